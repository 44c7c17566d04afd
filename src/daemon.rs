//! Wires the rooms together to a running router.
//!
//! ```text
//! lcore 1..N   Worker ◄─ snapshot, frames ── slow path (the calling thread): neighbours, signals, metrics
//!                └──── punted frames ──────►
//! ```

mod datagrams;
mod error;
mod listeners;
mod live;
mod news;
mod routes;
pub mod site;

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::MissedTickBehavior;

use crate::commands::Commands;
use crate::config::{Config, ConfigError};
use crate::control::compile::{Compiler, Configured};
use crate::control::conditions::Conditions;
use crate::control::health::Health;
use crate::control::hierarchy::Hierarchy;
use crate::control::neighbours::{Change, Neighbours};
use crate::control::session::Nobody;
use crate::control::shortcuts::ENDS_MAX;
use crate::control::slow_path::{HealthNews, Pairing, SlowPath, WorkerEnd};
use crate::ctl::request::Request;
use crate::ctl::server::{self as ctl, Asked, Control, Facts, Now, PortFacts};
use crate::ctl::socket::Outbox;
use crate::dpdk::lcore::LcoreHandle;
use crate::dpdk::{self, Eal, EalOptions, Hugepages, Pages, Pool, Port, PortOptions, RxQueue, TxQueue};
use crate::forward::counters::WorkerCounters;
use crate::forward::inspect;
use crate::forward::pipeline::{FlowCapacity, Pipeline};
use crate::forward::punt::{InjectRing, PuntRing};
use crate::forward::worker::Worker;
use crate::metrics::collector::{ForwardCollector, PortStatistics};
use crate::metrics::report::Report;
use crate::metrics::server;
use crate::transport::tls::{LEAVING, Renewal, Tls};
use crate::units::{MacAddr, PortIndex, TargetId, WorkerId};
pub use error::StartError;
use listeners::Listeners;
use live::{LiveIo, TscClock};
use news::News;
use routes::{LOOKING, Routes};
pub use site::read;
use site::{Adopted, Children, Loaded, load_again};

/// Bytes of a frame that one packet buffer holds; longer frames take several.
pub const DATA_ROOM: u16 = 2048;

/// Fragmented datagrams that a worker keeps track of at the same time, for each family.
const FRAGMENTED_DATAGRAMS: u32 = 4096;

/// Frames that wait for the slow path at most, per worker.
const PUNT_SLOTS: usize = 1024;

/// Frames of the slow path that wait for a worker at most.
const INJECT_SLOTS: usize = 1024;

/// Virtual hosts' children that there is room for at least, in all.
const TARGETS_MIN: usize = 16_384;

/// Requests that wait for the slow path at most.
const ASKED: usize = 16;

/// How often the slow path looks at the punt rings: about as long as an answer from here takes.
const PUNT_POLL: Duration = Duration::from_millis(1);

/// How often the links of a pair are looked at.
const LINKS: Duration = Duration::from_millis(5);

/// From a release of the pair's addresses to the end of the process.
const RELEASING: Duration = Duration::from_millis(100);

/// How often changes of neighbours and children are told.
const TELLING: Duration = Duration::from_secs(1);

/// How often it is told that our certificate ends.
const EXPIRING: Duration = Duration::from_secs(6 * 3600);

/// Starts DPDK for `workers` workers as `config` says, and announces on standard error which pages it uses.
pub fn start_eal(config: &Config, workers: u16, pci: bool, memory_mib: u32) -> Result<&'static Eal, StartError> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u16;
    let cpu = |worker: u16| match config.workers.cpus.as_slice() {
        // The last CPUs first: the slow path is most likely on the first one.
        [] => cpus - 1 - worker % cpus,
        listed => listed[usize::from(worker) % listed.len()],
    };
    let devices = config.ports.iter().filter(|_| pci).map(|port| port.device.clone()).collect();
    let eal = Eal::init(&EalOptions {
        hugepages: config.dpdk.hugepages,
        memory_mib,
        file_prefix: config.dpdk.file_prefix.clone().unwrap_or_else(|| format!("slr-{}", std::process::id())),
        lcores: (0..workers).map(cpu).collect(),
        devices,
        verbose: false,
    })?;
    if let (Pages::Ordinary { why }, Hugepages::Auto) = (eal.pages(), config.dpdk.hugepages) {
        eprintln!("slr: using ordinary pages instead of hugepages: {why}");
    }
    Ok(eal)
}

/// Flow table sizes from the configuration.
pub fn flow_capacity(config: &Config) -> FlowCapacity {
    FlowCapacity {
        v4: config.flows.capacity_v4,
        v6: config.flows.capacity_v6,
        fragments: FRAGMENTED_DATAGRAMS,
        seed: None,
    }
}

/// Runs the router until SIGTERM or SIGINT, and returns what it did. At SIGHUP it reads its configuration, which came
/// from `file`, again.
pub fn run(loaded: Loaded, file: &Path) -> Result<Report, StartError> {
    let children_of = Children::new(&loaded);
    let (config, made_of) = loaded.split();
    if config.ports.is_empty() {
        return Err(StartError::NoPorts);
    }
    // What can fail without touching the machine comes first.
    let listeners = Listeners::bind(&config)?;
    let workers = config.workers.count;
    let eal = start_eal(&config, workers, true, config.dpdk.memory_mib)?;
    let report = forward(Arc::new(config), (file, children_of, made_of), workers, listeners)?;
    eal.cleanup()?;
    Ok(report)
}

/// Opens the ports, runs the workers and the slow path beside them, and takes all down again.
fn forward(
    config: Arc<Config>,
    (file, mut children, made_of): (&Path, Children, Adopted),
    workers: u16,
    listeners: Listeners,
) -> Result<Report, StartError> {
    let pool = Pool::new("packets", config.dpdk.buffers, DATA_ROOM)?;
    let mut ports = Vec::new();
    let mut queues: Vec<Vec<(RxQueue, TxQueue)>> = (0..workers).map(|_| Vec::new()).collect();
    for (index, port) in (0..).map(PortIndex).zip(&config.ports) {
        let pair = config.pair.as_ref().filter(|pair| pair.access == index);
        let options = PortOptions {
            rx_queues: workers,
            tx_queues: workers,
            mtu: port.mtu,
            all_multicast: pair.is_some() || port.addresses.iter().any(|net| net.addr().is_ipv6()),
            // Not all devices can take the frames of a second station.
            promiscuous: pair.is_some_and(|pair| pair.virtual_mac),
            ..PortOptions::default()
        };
        let (port, rx, tx) = Port::open(&port.device, &options, &pool)?;
        ports.push(port);
        for (queues, pair) in queues.iter_mut().zip(rx.into_iter().zip(tx)) {
            queues.push(pair);
        }
    }
    let clock = TscClock::new();
    let macs: Vec<MacAddr> = ports.iter().map(Port::mac).collect();
    let neighbours = Neighbours::new(&config, &macs, dpdk::tsc::now());
    // Room for what a reload brings.
    let targets: usize = config.virtual_hosts.iter().map(|host| host.members.len()).sum();
    let targets_max = (4 * targets.max(TARGETS_MIN / 4) + ENDS_MAX.0).min(TargetId::COUNT_MAX);
    let mut compiler = Compiler::new(targets_max);
    let reachability = Configured { config: &config, neighbours: &neighbours };
    let health = Health::new(clock.now(), &config, dpdk::tsc::now());
    let mut hierarchy = Hierarchy::new(clock.now(), SystemTime::now().into(), &config, dpdk::tsc::now());
    let steering = hierarchy.steering(clock.now(), &config);
    let conditions = Conditions { down: health.down().into_iter().collect(), steering, ..Conditions::default() };
    let compiled = compiler.compile(&config, &conditions, &reachability, clock.now())?;
    let published = Arc::new(ArcSwap::from_pointee(compiled.tables));
    let stop = Arc::new(AtomicBool::new(false));
    ports.iter().try_for_each(Port::start)?;

    let start = Instant::now();
    let mut counters = Vec::new();
    let mut ends = Vec::new();
    let (mut desks, mut clerks, mut finders, mut surveyors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut handles = Vec::new();
    for (worker, queues) in (0..workers).zip(queues) {
        let worker_counters = Arc::new(WorkerCounters::new(targets_max));
        let punts = PuntRing::new(PUNT_SLOTS);
        let injections = InjectRing::new(INJECT_SLOTS);
        let pipeline = Pipeline::new(
            (WorkerId(worker), workers),
            ports.len() as u16,
            flow_capacity(&config),
            worker_counters.clone(),
            punts.clone(),
        )
        .ok_or(StartError::FlowMemory)?;
        let io = LiveIo { queues, pool: pool.clone(), clock, sleeps: config.workers.sleeps };
        let (desk, inspector) = inspect::pair();
        clerks.push(desk.clerk());
        let worker_loop = Worker::new(io, pipeline, published.clone(), stop.clone());
        let mut worker_loop = worker_loop.injecting(injections.clone()).inspected(inspector);
        handles.push(dpdk::lcore::launch(worker, move || {
            worker_loop.run();
            worker_loop.finish();
        })?);
        counters.push(worker_counters.clone());
        finders.push(desk.finder());
        surveyors.push(desk.surveyor());
        desks.push(desk);
        ends.push(WorkerEnd { punts, injections, counters: worker_counters });
    }

    announce(&config, &ports);

    let drivers: Vec<String> = ports.iter().map(Port::driver).collect();
    let ports = Arc::new(ports);
    let links = Links::new(&config, ports.clone());
    let names: Vec<String> = config.ports.iter().map(|port| port.name.clone()).collect();
    let reader = {
        let ports = ports.clone();
        Box::new(move || names.iter().cloned().zip(ports.iter().map(port_statistics)).collect())
    };
    let hz = dpdk::tsc::hz() as f64;
    let look = hierarchy.look();
    let thinking = SlowPath::new(config.clone(), compiler, neighbours, published.clone(), ends);
    let thinking = thinking.checking(health).speaking(clock.now(), hierarchy);
    let thinking = thinking.ordering(clerks, dpdk::tsc::now()).recovering(finders, dpdk::tsc::now());
    let pairing = Pairing::new(clock.now(), &config, &macs, unforeseen());
    let thinking = thinking.pairing(clock.now(), pairing).mirroring(surveyors);
    let slow_path_counters = thinking.counters();
    let collector = ForwardCollector::new(counters.clone(), published.clone(), hz, reader, slow_path_counters);
    let collector = collector.with_checks(thinking.records()).with_sessions(look);
    let collector = collector.with_recovery(thinking.recovery_counters());
    let pair = thinking.pair().map(|pair| (pair.counters().clone(), pair.mirrored().cloned()));
    let collector = Arc::new(collector.with_pair(pair).with_site(children.counters()));
    let facts = Facts {
        configuration: file.display().to_string(),
        started: clock.now(),
        ports: macs.iter().zip(drivers).map(|(mac, driver)| PortFacts { driver, mac: mac.to_string() }).collect(),
    };
    let answering = Control::new(facts, collector.clone(), desks);
    let watched = Watched { workers: &handles, links };
    let outcome = slow_path(thinking, answering, (file, &mut children, made_of), watched, clock, listeners, collector);

    stop.store(true, Ordering::Relaxed);
    for handle in handles {
        handle.join()?;
    }
    outcome?;
    Ok(Report::new(&published.load(), &counters, start.elapsed().as_secs_f64(), hz))
}

/// A number that nobody can foresee, and that is another each time that the process starts.
fn unforeseen() -> u64 {
    // Its seed is random.
    RandomState::new().hash_one(dpdk::tsc::now())
}

/// Says on standard error what is running where.
fn announce(config: &Config, ports: &[Port]) {
    for (configured, port) in config.ports.iter().zip(ports) {
        let name = &configured.name;
        let state = if port.link().up { "link up" } else { "link down" };
        eprintln!("slr: port {name}: {} ({}), {}, {state}", configured.device, port.driver(), port.mac());
        for shortcoming in port.shortcomings() {
            eprintln!("slr: port {name} {shortcoming}");
        }
    }
    eprintln!("slr: {} workers are forwarding", config.workers.count);
}

/// What the slow path keeps an eye on.
struct Watched<'a> {
    workers: &'a [LcoreHandle<()>],
    links: Links,
}

/// The ports' links as they were told last.
struct Links {
    names: Vec<String>,
    ports: Arc<Vec<Port>>,
    up: Vec<bool>,
}

impl Links {
    fn new(config: &Config, ports: Arc<Vec<Port>>) -> Links {
        let names = config.ports.iter().map(|port| port.name.clone()).collect();
        Links { names, up: ports.iter().map(|port| port.link().up).collect(), ports }
    }

    /// Says on standard error which have changed.
    fn tell(&mut self) {
        for ((name, port), was_up) in self.names.iter().zip(&*self.ports).zip(&mut self.up) {
            let up = port.link().up;
            if up != std::mem::replace(was_up, up) {
                eprintln!("slr: port {name}: link is {}", if up { "up" } else { "down" });
            }
        }
    }
}

/// Where a neighbour is, or that it is gone.
fn tell_neighbour(Change { address, mac, .. }: Change) -> String {
    match mac {
        Some(mac) => format!("neighbour {address} is at {mac}"),
        None => format!("neighbour {address} does not answer; children behind it get no packets"),
    }
}

fn port_statistics(port: &Port) -> PortStatistics {
    let (stats, link) = (port.stats(), port.link());
    PortStatistics {
        rx_packets: stats.rx_packets,
        rx_bytes: stats.rx_bytes,
        rx_lost: stats.rx_errors + stats.rx_missed + stats.rx_no_buffer,
        tx_packets: stats.tx_packets,
        tx_bytes: stats.tx_bytes,
        tx_errors: stats.tx_errors,
        link_up: link.up,
        speed_mbps: link.speed_mbps,
    }
}

/// Everything that thinks, on the calling thread, until a signal or the end of a worker ends it.
fn slow_path(
    mut thinking: SlowPath,
    mut answering: Control,
    (file, table, made_of): (&Path, &mut Children, Adopted),
    mut watched: Watched<'_>,
    clock: TscClock,
    mut listeners: Listeners,
    collector: Arc<ForwardCollector>,
) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut loading = None;
        // Whether that is because the site has another table.
        let mut by_site = false;
        let mut reloading: Option<Outbox> = None;
        table.adopt(&made_of);
        let now = || Now { instant: clock.now(), wall: SystemTime::now() };
        let mut poll = tokio::time::interval(PUNT_POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut telling = tokio::time::interval(TELLING);
        let (mut looking, mut routes) = (tokio::time::interval(LOOKING), Routes::default());
        let mut tls = match &thinking.config().sessions.credentials {
            Some(credentials) => {
                if let Some(listen) = thinking.config().sessions.listen {
                    eprintln!("slr: children at {listen}");
                }
                Some(Tls::new(credentials, listeners.children.take())?)
            }
            None => None,
        };
        let (mut sessions, mut pair) = (News::of("sessions"), News::of("the pair"));
        let mut looked = Instant::now();
        let mut expiring = tokio::time::interval(EXPIRING);
        let (mut neighbours, mut children) = (News::of("neighbours"), News::of("children"));
        let (commands, mut done) = Commands::new();
        let (sender, mut asked) = mpsc::channel(ASKED);
        if let Some(listener) = listeners.control.take() {
            eprintln!("slr: control socket {}", listener.path().display());
            tokio::spawn(listener.serve(sender.clone()));
        }
        if let Some(listener) = listeners.metrics.take() {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            eprintln!("slr: metrics at http://{}/metrics", listener.local_addr()?);
            tokio::spawn(server::serve(listener, move || collector.gather()));
        }
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = poll.tick() => {
                    if thinking.pair().is_some() && looked.elapsed() >= LINKS {
                        looked = Instant::now();
                        thinking.set_links(watched.links.ports.iter().map(|port| port.link().up));
                    }
                    // First what has come: silence counts only when nothing is left to be heard.
                    listeners.hear_for(&mut thinking, clock.now());
                    neighbours.add(thinking.pass(clock.now()).into_iter().map(tell_neighbour));
                    listeners.speak_for(&mut thinking, clock.now());
                    pair.add(thinking.take_pair_news().into_iter());
                    let HealthNews { commands: runs, changes } = thinking.take_health_news();
                    let told = match &mut tls {
                        Some(tls) => thinking.converse(clock.now(), tls),
                        None => thinking.converse(clock.now(), &mut Nobody),
                    };
                    sessions.add(told.into_iter());
                    runs.into_iter().for_each(|command| commands.start(command));
                    children.add(changes.iter().map(ToString::to_string));
                    answering.pass(&mut thinking, now());
                    // Nobody told it to: it has panicked, and joining it says so.
                    if watched.workers.iter().any(LcoreHandle::is_finished) {
                        break;
                    }
                }
                Some((run, result)) = done.recv() => thinking.command_done(clock.now(), run, result),
                _ = telling.tick() => {
                    watched.links.tell();
                    neighbours.tell();
                    children.tell();
                    sessions.tell();
                    pair.tell();
                    thinking.set_wall(clock.now(), SystemTime::now().into());
                }
                _ = looking.tick() => routes.look(thinking.config()),
                found = routes.found() => match found {
                    Ok(metrics) => thinking.set_metrics(metrics),
                    Err(why) => sessions.add(std::iter::once(why)),
                },
                _ = expiring.tick() => {
                    let credentials = thinking.config().sessions.credentials.as_ref();
                    sessions.add(credentials.and_then(|of| of.identity.expiry_warning(SystemTime::now().into())).into_iter());
                }
                // A large file takes its time to read, which the slow path has not.
                _ = hangup.recv(), if loading.is_none() => (loading, by_site) = (Some(load_again(file.to_owned(), table)), false),
                Some(answer) = table.answer(), if loading.is_none() => (loading, by_site) = (table.take(answer), true),
                loaded = finished(&mut loading) => {
                    loading = None;
                    let outcome = reload(&mut thinking, &mut tls, loaded, clock);
                    if let Ok((_, made_of)) = &outcome {
                        table.adopt(made_of);
                    }
                    let outcome = match outcome {
                        Err(why) if by_site => {
                            table.refuse(&format!("{why:#}"));
                            continue;
                        }
                        Err(why) => Err(format!("not reloaded, all stays as it was: {why:#}")),
                        Ok((said, _)) => Ok(said),
                    };
                    let (Ok(said) | Err(said)) = &outcome;
                    eprintln!("slr: {said}");
                    if let Some(to) = reloading.take() {
                        ctl::finish(to, outcome);
                    }
                }
                Some(asked) = asked.recv() => match asked {
                    Asked { request: Request::Reload, to } if loading.is_none() => {
                        (loading, by_site, reloading) = (Some(load_again(file.to_owned(), table)), false, Some(to));
                    }
                    asked => answering.ask(&mut thinking, now(), asked),
                },
            }
        }
        if thinking.pair().is_some() {
            thinking.leave_pair(clock.now());
            listeners.speak_for(&mut thinking, clock.now());
            // The workers go on until the other one has taken over.
            tokio::time::sleep(RELEASING).await;
        }
        if let Some(tls) = &mut tls {
            thinking.leave(clock.now(), tls);
            // For the tasks that carry the sessions.
            tokio::time::sleep(LEAVING).await;
        }
        Ok(())
    })
}

/// A configuration that is being read.
type Loading = JoinHandle<Result<Loaded, ConfigError>>;

/// What became of `loading`; never, while nothing is being read.
async fn finished(loading: &mut Option<Loading>) -> Result<Result<Loaded, ConfigError>, JoinError> {
    match loading {
        Some(loading) => loading.await,
        None => std::future::pending().await,
    }
}

/// Goes over to what was read, and says what that is, and what it was made of.
fn reload(
    thinking: &mut SlowPath,
    tls: &mut Option<Tls>,
    loaded: Result<Result<Loaded, ConfigError>, JoinError>,
    clock: TscClock,
) -> anyhow::Result<(String, Adopted)> {
    let (config, made_of) = loaded??.split();
    let renewal = config.sessions.credentials.as_ref().map(Renewal::new).transpose()?;
    thinking.reload(config, clock.now())?;
    if let (Some(tls), Some(renewal)) = (tls, renewal) {
        tls.renew(renewal);
    }
    let config = thinking.config();
    let (hosts, children) = (config.virtual_hosts.len(), config.children.len());
    Ok((format!("reloaded: {hosts} virtual hosts, {children} children"), made_of))
}
