//! 100,000 virtual subnets over 1,000 children, in real time: how soon an update is in force, what a round of all takes of the
//! slow path's core, and that no packet is lost meanwhile.
//!
//! `by_least_cost` and `by_shares` say how new flows are given out; both where none is named. Exit status 1 when something takes
//! longer than it may.

#[path = "../tests/subnets/scene.rs"]
mod scene;

use std::collections::VecDeque;
use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use etherparse::PacketBuilder;
use slr::clock;
use slr::control::session::Happening;
use slr::control::slow_path::{SlowPath, WorkerEnd};
use slr::control::wire::State;
use slr::forward::counters::WorkerCounters;
use slr::forward::inspect;
use slr::forward::memory_io::MemoryIo;
use slr::forward::pipeline::{FlowCapacity, Pipeline};
use slr::forward::punt::{InjectRing, PuntRing};
use slr::forward::tables::Published;
use slr::forward::worker::Worker;
use slr::service::selections::Selection;
use slr::units::{PortIndex, VirtualHostId, WorkerId};

use scene::{EACH, Given, Machines, Random, Scale, hello, identity, name, session, update};

const FULL: Scale = Scale { subnets: 100_000, children: 1000, keys: "", interval: Duration::from_secs(5) };

/// Rounds that are measured, after the first ones in which everybody is heard for the first time and shares go by capacity.
const ROUNDS: (u32, u32) = (7, 4);

/// A child says something that shows so often.
const PROBING: Duration = Duration::from_millis(333);

/// As long as TLS's records are at most, in bytes.
const PIECE: usize = 16 << 10;

/// Until an update is in force, at most.
const IN_FORCE: Duration = Duration::from_millis(100);

/// What the children send, each at its own time in the interval; every so often one of them something that shows.
fn speak(scale: Scale, shows: Shows, to: &Sender<Happening>, probes: &Sender<(usize, Instant)>) {
    let subnets = scale.subnets_of_children();
    let mut random = Random(7);
    let mut sequence = 0;
    let mut say = |child: usize, shown: bool| {
        sequence += 1;
        let bytes = update(sequence, &subnets[child], |_| {
            let load = 0.3 + 0.6 * random.fraction();
            if shown { shows(load) } else { (State::Serving, load) }
        });
        let sent =
            bytes.chunks(PIECE).all(|piece| to.send(Happening::Received(session(child), piece.to_vec())).is_ok());
        sent.then(Instant::now)
    };
    for child in 0..scale.children {
        let _ = to.send(Happening::Opened(session(child), identity(&name(child), 2)));
        let _ = to.send(Happening::Received(session(child), hello(child)));
    }
    let (start, mut probed) = (Instant::now(), Duration::ZERO);
    for round in 0.. {
        for child in 0..scale.children {
            let at = scale.interval * round + scale.interval * child as u32 / scale.children as u32;
            thread::sleep(at.saturating_sub(start.elapsed()));
            if say(child, false).is_none() {
                return;
            }
            if round >= ROUNDS.0 && start.elapsed() > probed + PROBING {
                probed = start.elapsed();
                // One of those that speak again soon.
                let other = (child + 20) % scale.children;
                if let Some(sent) = say(other, true) {
                    let _ = probes.send((other, sent));
                }
            }
        }
    }
}

/// How long each probe has taken until it was in force in all subnets of its child.
fn watch(scale: Scale, published: &Published, probes: &Receiver<(usize, Instant)>, all: InForce) -> Vec<Duration> {
    let subnets = scale.subnets_of_children();
    let mut times = Vec::new();
    for (child, sent) in probes {
        let place = |subnet: usize| scale.members(subnet).iter().position(|member| *member == child);
        loop {
            let tables = published.load();
            let selection = |subnet: usize| tables.selections.of(VirtualHostId(subnet as u32));
            if subnets[child].iter().all(|&subnet| all(selection(subnet), place(subnet).expect("its own"))) {
                break times.push(sent.elapsed());
            }
            if sent.elapsed() > Duration::from_secs(2) {
                break times.push(sent.elapsed());
            }
            drop(tables);
            thread::sleep(Duration::from_millis(1));
        }
    }
    times
}

/// A packet each for virtual subnets at random, from new clients.
fn carry(worker: &mut Worker<MemoryIo>, subnets: usize, random: &mut Random) {
    for _ in 0..64 {
        let (client, subnet) = (random.next() as u32, random.next() % subnets as u64);
        let [_, a, b, c] = client.to_be_bytes();
        let destination = (0x6440_0000 + subnet as u32).to_be_bytes();
        let packet =
            PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]).ipv4([10, a, b, c], destination, 64);
        let mut bytes = Vec::new();
        packet.udp(client as u16, 443).write(&mut bytes, &[0; 64]).expect("a packet");
        worker.io_mut().arrive(PortIndex(0), &bytes);
    }
    worker.io_mut().wait(Duration::from_millis(1));
    worker.run();
    worker.io_mut().take_sent();
}

/// Time that this thread has had a processor for.
fn processor_time() -> Duration {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts");
    Duration::from_nanos(statistics.split(' ').next().and_then(|time| time.parse().ok()).expect("nanoseconds"))
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("of this process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

/// What a child says of a virtual subnet that shows, where its load would be that.
type Shows = fn(f64) -> (State, f64);

/// Whether that shows, of the child at this place.
type InForce = fn(&Selection, usize) -> bool;

fn run(keys: &'static str, shows: Shows, all: InForce) -> bool {
    let scale = Scale { keys, ..FULL };
    let begun = Instant::now();
    let Machines { config, neighbours, compiler, hierarchy, tables, .. } = Machines::new(scale.config());
    println!(
        "  {} virtual subnets, {} children, {} each: compiled in {:.1?}",
        scale.subnets,
        scale.children,
        EACH,
        begun.elapsed()
    );
    let published: Published = Arc::new(ArcSwap::from_pointee(tables));
    let counters = Arc::new(WorkerCounters::new(scale.subnets * EACH));
    let (punts, injections) = (PuntRing::new(1024), InjectRing::new(1024));
    let capacity = FlowCapacity { v4: 1 << 20, v6: 64, fragments: 64, seed: Some(7) };
    let pipeline = Pipeline::new((WorkerId(0), 1), 1, capacity, counters.clone(), punts.clone()).expect("memory");
    let stop = Arc::new(AtomicBool::new(false));
    let worker = Worker::new(MemoryIo::new(1), pipeline, published.clone(), Arc::new(AtomicBool::new(false)));
    let (_desk, inspector) = inspect::pair();
    let mut worker = worker.injecting(injections.clone()).inspected(inspector);
    let end = WorkerEnd { punts, injections, counters: counters.clone() };
    let thinking = SlowPath::new(config, compiler, neighbours, published.clone(), vec![end]);
    let mut thinking = thinking.speaking(clock::Instant::ZERO, hierarchy);

    let (to, from) = mpsc::channel();
    let (probes, probed) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || speak(scale, shows, &to, &probes));
        let watched = published.clone();
        let watching = scope.spawn(move || watch(scale, &watched, &probed, all));
        scope.spawn(|| {
            let mut random = Random(8);
            while !stop.load(Ordering::Relaxed) {
                carry(&mut worker, scale.subnets, &mut random);
                thread::sleep(Duration::from_millis(1));
            }
        });
        let start = Instant::now();
        let mut waiting = VecDeque::new();
        let mut measured = None;
        let mut longest = Duration::ZERO;
        let mut late = 0;
        while start.elapsed() < scale.interval * (ROUNDS.0 + ROUNDS.1) {
            let now = clock::Instant::ZERO + start.elapsed();
            waiting.extend(from.try_iter());
            let before = Instant::now();
            thinking.pass(now);
            let told = thinking.converse(now, &mut Given(std::iter::from_fn(|| waiting.pop_front())));
            late += told.iter().filter(|line| line.contains("has not reported")).count();
            if measured.is_some() {
                longest = longest.max(before.elapsed());
            } else if start.elapsed() >= scale.interval * ROUNDS.0 {
                let lost = elsewhere(&counters);
                let number = thinking.publication().number;
                measured = Some((Instant::now(), processor_time(), number, updates(&thinking), lost));
            }
            thread::sleep(Duration::from_millis(1));
        }
        let (since, used, number, taken, lost) = measured.expect("more rounds than one");
        let used = processor_time() - used;
        let share = used.as_secs_f64() / since.elapsed().as_secs_f64();
        let snapshots = thinking.publication().number - number;
        let taken = updates(&thinking) - taken;
        drop(from);
        stop.store(true, Ordering::Relaxed);
        let mut times = watching.join().expect("no panic");
        times.sort_unstable();
        let tables = thinking.counters().table_bytes.get() >> 20;
        let each = used.checked_div(taken as u32).unwrap_or_default();
        println!(
            "  slow path: {:.1} % of a core; {taken} updates, {each:.0?} each; {snapshots} snapshots",
            share * 100.0
        );
        println!("  longest pass: {longest:.1?}");
        let (half, most) = (times[times.len() / 2], times[times.len() - 1]);
        println!("  in force after: {half:.1?} (median), {most:.1?} (longest of {})", times.len());
        println!("  memory: tables {tables} MiB, process {} MiB", resident_mib());
        let packets = counters.packets();
        let lost = elsewhere(&counters) - lost;
        println!("  packets: {} received, {lost} of them not forwarded since all children are known", packets.received);
        let mut holds = true;
        for (what, so) in [
            ("each is in force within 100 ms", most <= IN_FORCE),
            ("a round takes at most half of the core", share <= 0.5),
            ("no packet is lost", packets.received > 100_000 && lost == 0),
            ("no child counts as silent", late == 0),
        ] {
            println!("  {} {what}", if so { "ok   " } else { "FAIL " });
            holds &= so;
        }
        holds
    })
}

/// Packets that were not forwarded.
fn elsewhere(counters: &WorkerCounters) -> u64 {
    let packets = counters.packets();
    packets.dropped + packets.punted
}

/// Updates of children that have been taken in.
fn updates(thinking: &SlowPath) -> u64 {
    let view = thinking.hierarchy().expect("sessions").look().load_full();
    view.counters.as_ref().map_or(0, |counters| counters.updates.get())
}

fn takes_all(selection: &Selection, place: usize) -> bool {
    (0..4).all(|slot| selection.selector.select(slot * (u64::MAX / 4)) == Some(place))
}

fn takes_none(selection: &Selection, place: usize) -> bool {
    !selection.takes_new[place] && !selection.selector.shares().contains_key(&place)
}

fn main() -> ExitCode {
    let named: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let least_cost = "selection: least_cost, cost_function: \"load\", table_size: 251";
    let shares = "selection: shares, cost_function: \"load\", table_size: 251";
    let ways: [(&str, &'static str, Shows, InForce); 2] = [
        ("by_least_cost", least_cost, |_| (State::Serving, 0.0), takes_all),
        ("by_shares", shares, |load| (State::Draining, load), takes_none),
    ];
    let mut holds = true;
    for (way, keys, shows, all) in ways {
        if named.is_empty() || named.iter().any(|name| name == way) {
            println!("{way}");
            holds &= run(keys, shows, all);
        }
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
