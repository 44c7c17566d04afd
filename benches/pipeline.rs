//! What a packet costs a worker: `Pipeline::process` alone, on real packet buffers, with flows in random order.
//!
//! ```text
//! pipeline [--quick] [--json FILE] [--instructions FILE] [SCENE...]   times the scenes, round by round in turn
//! pipeline --count SCENE PACKETS                                      runs one scene for callgrind, without DPDK
//! ```
//!
//! Frames are written anew into the packets that have just left, [`BATCH`] at a time, and then carried burst by burst;
//! only the carrying is timed. Writing them is thus neither measured nor subtracted, and the frames come from the inner
//! caches, as a network card that writes into the cache would leave them. Transmission is a move of the pointers.
//!
//! Under callgrind the frames lie on the heap, every scene has 1,000 flows, and what is counted is [`measured`].

use std::collections::BTreeMap;
use std::fs;
use std::marker::PhantomData;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use slr::clock::Instant;
use slr::config::Config;
use slr::control::compile::{Reach, Reachability, compile};
use slr::dpdk::{self, Eal, EalOptions, HugeMemory, HugeSlice, Hugepages, Mbuf, Pages, Pool, lcore, tsc};
use slr::flow::memory::{Heap, Memory};
use slr::forward::counters::WorkerCounters;
use slr::forward::io::{BURST, Burst, PacketIo};
use slr::forward::pipeline::{FlowCapacity, Pipeline};
use slr::forward::punt::PuntRing;
use slr::forward::tables::ForwardTables;
use slr::packet::buffer::{OwnedBuffer, PacketBuffer};
use slr::packet::checksum::checksum;
use slr::tunnel::template::Link;
use slr::units::{MacAddr, PortIndex, WorkerId};
use zerocopy::FromZeros;

const CONFIG: &str = r#"
router:
  name: bench
  level: site
  tunnel_addresses: [198.51.100.1, "2001:db8:1::1"]
  parents: [198.51.100.254]
flows: { capacity_v4: 1000, capacity_v6: 1000 }
children:
  - { name: a, address: 203.0.113.1 }
  - { name: b, address: 203.0.113.2 }
  - { name: c, address: 203.0.113.3 }
  - { name: d, address: 203.0.113.4 }
virtual_hosts:
  - name: service
    addresses: [192.0.2.4, "2001:db8:80::4"]
    services: [any]
    children: [a, b, c, d]
"#;

/// Every child is behind the one port.
struct OneLink;

impl Reachability for OneLink {
    fn reach(&self, _address: IpAddr) -> Option<Reach> {
        let link = Link { source: MacAddr([2, 0, 0, 0, 0, 1]), destination: MacAddr([2, 0, 0, 0, 0, 2]), vlan: None };
        Some(Reach { port: PortIndex(0), link, mtu: 1600 })
    }
}

/// Packets that are prepared together; a multiple of [`BURST`].
const BATCH: usize = 512;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// IPv4 packets of flows that are known.
    V4,
    /// IPv6 packets of flows that are known.
    V6,
    /// The same as `V4` out of a parent's tunnel.
    Decapsulate,
    /// IPv4 packets each of which starts a flow, beside flows that are known.
    New,
}

#[derive(Clone, Copy)]
struct Scene {
    name: &'static str,
    kind: Kind,
    flows: u32,
    /// Group and key of the result in the JSON file.
    json: (&'static str, &'static str),
}

#[rustfmt::skip]
const SCENES: [Scene; 7] = [
    Scene { name: "v4-1k",       kind: Kind::V4,          flows: 1_000,      json: ("established_ns", "1k") },
    Scene { name: "v4-100k",     kind: Kind::V4,          flows: 100_000,    json: ("established_ns", "100k") },
    Scene { name: "v4-1M",       kind: Kind::V4,          flows: 1_000_000,  json: ("established_ns", "1M") },
    Scene { name: "v4-10M",      kind: Kind::V4,          flows: 10_000_000, json: ("established_ns", "10M") },
    Scene { name: "v6-1M",       kind: Kind::V6,          flows: 1_000_000,  json: ("established_v6_ns", "1M") },
    Scene { name: "decap-100k",  kind: Kind::Decapsulate, flows: 100_000,    json: ("decapsulate_ns", "100k") },
    Scene { name: "new-1M",      kind: Kind::New,         flows: 1_000_000,  json: ("new_flow_ns", "1M") },
];

/// New flows per round beside those that are known, as a share of them.
const NEW_SHARE: u32 = 4;

/// Writes the frames of numbered flows, 64 bytes on the wire for IPv4.
struct Frames {
    template: Vec<u8>,
    /// Of the IP header that differs from flow to flow.
    l3: usize,
    v4: bool,
}

impl Frames {
    fn new(kind: Kind) -> Frames {
        let v4 = kind != Kind::V6;
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9];
        frame.extend_from_slice(if v4 { &[0x08, 0x00] } else { &[0x86, 0xdd] });
        let ipv4 = |len: u8, protocol, source: [u8; 4], destination: [u8; 4]| {
            let mut header = [0x45, 0, 0, len, 0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            header[12..16].copy_from_slice(&source);
            header[16..].copy_from_slice(&destination);
            header
        };
        if kind == Kind::Decapsulate {
            let mut outer = ipv4(66, 4, [198, 51, 100, 254], [198, 51, 100, 1]);
            let sum = checksum(&outer);
            outer[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend_from_slice(&outer);
        }
        let l3 = frame.len();
        let payload = if v4 { 18 } else { 0 };
        if v4 {
            frame.extend_from_slice(&ipv4(20 + 8 + payload, 17, [10, 0, 0, 0], [192, 0, 2, 4]));
        } else {
            frame.extend_from_slice(&[0x60, 0, 0, 0, 0, 8, 17, 64]);
            frame.extend_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            frame.extend_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4]);
        }
        frame.extend_from_slice(&[0, 0, 0x01, 0xbb, 0, 8 + payload, 0, 0]);
        frame.extend(std::iter::repeat_n(0x5a, payload.into()));
        Frames { template: frame, l3, v4 }
    }

    /// The frame of flow `flow`.
    fn of(&mut self, flow: u32) -> &[u8] {
        let port = (1024 + flow % 60_000) as u16;
        let (source, transport) = if self.v4 { (12, 20) } else { (20, 40) };
        let ip = &mut self.template[self.l3..];
        let host = (flow & 0x00ff_ffff | if self.v4 { 10 << 24 } else { 0 }).to_be_bytes();
        ip[source..source + 4].copy_from_slice(&host);
        ip[transport..transport + 2].copy_from_slice(&port.to_be_bytes());
        if self.v4 {
            ip[10..12].fill(0);
            let sum = checksum(&ip[..20]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        &self.template
    }
}

/// A memory that counts the bytes it gives out.
struct Counted;

static COUNTED: AtomicUsize = AtomicUsize::new(0);

impl Memory for Counted {
    type Slice<T: FromZeros + Send> = HugeSlice<T>;

    fn zeroed<T: FromZeros + Send>(len: usize) -> Option<HugeSlice<T>> {
        COUNTED.fetch_add(len * size_of::<T>(), Ordering::Relaxed);
        HugeMemory::zeroed(len)
    }
}

/// Keeps what it is given to send.
struct BenchIo<P, M> {
    sent: Vec<Burst<P>>,
    memory: PhantomData<M>,
}

impl<P: PacketBuffer, M: Memory> PacketIo for BenchIo<P, M> {
    type Packet = P;
    type Memory = M;

    fn ports(&self) -> u16 {
        1
    }

    fn rx_burst(&mut self, _port: PortIndex, _into: &mut Burst<P>) -> Instant {
        Instant::ZERO
    }

    fn tx_burst(&mut self, _port: PortIndex, packets: &mut Burst<P>) -> usize {
        self.sent.push(mem::take(packets));
        0
    }

    fn cycles() -> u64 {
        tsc::now()
    }

    fn prefetch<T>(at: &T) {
        dpdk::prefetch(at);
    }
}

impl<P: PacketBuffer, M: Memory> BenchIo<P, M> {
    /// With a batch of packets to begin with.
    fn new(mut packet: impl FnMut() -> Option<P>) -> Result<BenchIo<P, M>> {
        let mut burst = || (0..BURST).map(|_| packet()).collect::<Option<Burst<P>>>();
        let sent = (0..BATCH / BURST).map(|_| burst()).collect::<Option<_>>();
        Ok(BenchIo { sent: sent.context("the pool is too small")?, memory: PhantomData })
    }
}

#[inline(never)]
fn carry<P: PacketBuffer, M: Memory>(
    pipeline: &mut Pipeline<BenchIo<P, M>>,
    tables: &ForwardTables,
    io: &mut BenchIo<P, M>,
    now: Instant,
    bursts: &mut [Burst<P>],
) {
    for burst in bursts {
        pipeline.process(tables, io, PortIndex(0), now, burst);
    }
}

/// What is measured: [`carry`]. A function of its own, so that callgrind can find it.
#[inline(never)]
fn measured(work: impl FnOnce()) -> u64 {
    let start = tsc::now();
    work();
    tsc::now() - start
}

/// One scene with its own flow tables.
struct Stage<P: PacketBuffer, M: Memory> {
    scene: Scene,
    frames: Frames,
    pipeline: Pipeline<BenchIo<P, M>>,
    tables: Arc<ForwardTables>,
    counters: Arc<WorkerCounters>,
    now: Instant,
    random: u64,
}

impl<P: PacketBuffer, M: Memory> Stage<P, M> {
    fn new(scene: Scene, tables: &Arc<ForwardTables>) -> Result<Stage<P, M>> {
        let counters = Arc::new(WorkerCounters::new(tables.targets.len()));
        let flows =
            if scene.kind == Kind::New { scene.flows + scene.flows / NEW_SHARE + BATCH as u32 } else { scene.flows };
        let (v4, v6) = if scene.kind == Kind::V6 { (0, flows) } else { (flows, 0) };
        let capacity = FlowCapacity { v4, v6, fragments: 0, seed: None };
        let pipeline = Pipeline::new((WorkerId(0), 1), 1, capacity, counters.clone(), PuntRing::new(1));
        let pipeline = pipeline.with_context(|| format!("no memory for {flows} flows"))?;
        let (frames, tables) = (Frames::new(scene.kind), tables.clone());
        let now = Instant::from_nanos(1_000_000_000);
        let mut stage = Stage { scene, frames, pipeline, tables, counters, now, random: 0x9e37_79b9_7f4a_7c15 };
        stage.random ^= u64::from(scene.flows);
        Ok(stage)
    }

    /// Carries `packets` packets, in whole batches, whose flows `next` names; returns how many there were, and the cycles
    /// that took.
    fn pass(&mut self, io: &mut BenchIo<P, M>, packets: u32, mut next: impl FnMut(&mut u64) -> u32) -> (u32, u64) {
        let batches = packets.div_ceil(BATCH as u32);
        let mut cycles = 0;
        for _ in 0..batches {
            let mut bursts = self.prepare(io, &mut next);
            cycles += measured(|| carry(&mut self.pipeline, &self.tables, io, self.now, &mut bursts));
        }
        (batches * BATCH as u32, cycles)
    }

    /// Writes the next frames into the packets that have left.
    fn prepare(&mut self, io: &mut BenchIo<P, M>, mut next: impl FnMut(&mut u64) -> u32) -> Vec<Burst<P>> {
        let mut bursts = mem::replace(&mut io.sent, Vec::with_capacity(BATCH / BURST));
        for packet in bursts.iter_mut().flatten() {
            let frame = self.frames.of(next(&mut self.random));
            packet.trim_front(packet.head().len());
            let Some(head) = packet.prepend(frame.len()) else { unreachable!("a packet's end stays where it is") };
            head.copy_from_slice(frame);
        }
        bursts
    }

    /// Makes every flow of the scene known.
    fn fill(&mut self, io: &mut BenchIo<P, M>) {
        let (mut flow, flows) = (0, self.scene.flows);
        for _ in 0..flows.div_ceil(BATCH as u32) {
            let mut bursts = self.prepare(io, |_| {
                flow += 1;
                (flow - 1) % flows
            });
            carry(&mut self.pipeline, &self.tables, io, self.now, &mut bursts);
        }
    }

    /// One round of about `packets` packets: how many there were, and the cycles that took.
    fn round(&mut self, io: &mut BenchIo<P, M>, packets: u32) -> (u32, u64) {
        let flows = u64::from(self.scene.flows);
        if self.scene.kind != Kind::New {
            return self.pass(io, packets, |random| ((u64::from(draw(random)) * flows) >> 32) as u32);
        }
        // Everything that is known runs out, and the flows that shall be known come again.
        self.now = self.now + Duration::from_secs(86_400);
        self.pipeline.age(&self.tables, self.now, usize::MAX);
        self.fill(io);
        let mut flow = self.scene.flows;
        self.pass(io, self.scene.flows / NEW_SHARE, |_| {
            flow += 1;
            flow - 1
        })
    }

    fn check(&self) -> Result<()> {
        let packets = self.counters.packets();
        ensure!(packets.received == packets.forwarded, "{}: packets were not forwarded: {packets:?}", self.scene.name);
        Ok(())
    }
}

/// The next of a sequence of even numbers.
fn draw(state: &mut u64) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
}

fn tables() -> Result<Arc<ForwardTables>> {
    Ok(Arc::new(compile(&Config::parse(CONFIG, "bench")?, &OneLink)))
}

/// Runs a scene with few flows over heap memory.
fn count(name: &str, packets: u32) -> Result<()> {
    let scene = SCENES.iter().find(|scene| scene.name == name).with_context(|| format!("no scene {name}"))?;
    // Of a new flow's scene each packet is a flow.
    let flows = if scene.kind == Kind::New { packets * NEW_SHARE } else { 1_000 };
    let mut stage = Stage::<OwnedBuffer, Heap>::new(Scene { flows, ..*scene }, &tables()?)?;
    let mut io = BenchIo::new(|| Some(OwnedBuffer::new(&stage.frames.template)))?;
    match scene.kind {
        // So that nothing but new flows is counted.
        Kind::New => {
            let mut flow = 0;
            stage.pass(&mut io, packets, |_| {
                flow += 1;
                flow
            });
        }
        _ => {
            stage.fill(&mut io);
            stage.round(&mut io, packets);
        }
    }
    stage.check()
}

/// One scene's results.
struct Row {
    scene: Scene,
    /// Nanoseconds a packet, one for each round, in ascending order.
    ns: Vec<f64>,
    bytes_per_flow: f64,
    refused: u64,
}

impl Row {
    /// The value below which this share of the rounds lies.
    fn quantile(&self, share: f64) -> f64 {
        self.ns[((self.ns.len() - 1) as f64 * share).round() as usize]
    }
}

fn time(scenes: Vec<Scene>, quick: bool) -> Result<Vec<Row>> {
    let (rounds, packets) = if quick { (7, 100 * BATCH as u32) } else { (25, 800 * BATCH as u32) };
    let pool = Pool::new("bench", 2 * BATCH as u32, 2048)?;
    let tables = tables()?;
    let mut stages = Vec::new();
    let mut rows = Vec::new();
    for scene in scenes {
        COUNTED.store(0, Ordering::Relaxed);
        let stage = Stage::<Mbuf, Counted>::new(scene, &tables)?;
        let bytes_per_flow = COUNTED.load(Ordering::Relaxed) as f64 / f64::from(scene.flows);
        let mut io = BenchIo::new(|| pool.alloc_from(&stage.frames.template))?;
        stages.push(stage);
        if let Some(stage) = stages.last_mut() {
            stage.fill(&mut io);
        }
        rows.push(Row { scene, ns: Vec::new(), bytes_per_flow, refused: 0 });
    }
    for _ in 0..rounds {
        for (stage, row) in stages.iter_mut().zip(&mut rows) {
            let mut io = BenchIo::new(|| pool.alloc_from(&stage.frames.template))?;
            let (packets, cycles) = stage.round(&mut io, packets);
            row.ns.push(cycles as f64 * 1e9 / tsc::hz() as f64 / f64::from(packets));
        }
    }
    for (stage, row) in stages.iter().zip(&mut rows) {
        stage.check()?;
        row.refused = stage.counters.flows_refused.get();
        row.ns.sort_by(f64::total_cmp);
    }
    Ok(rows)
}

/// What a file of lines `SCENE NUMBER` says.
fn instructions(path: &str) -> Result<BTreeMap<String, f64>> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    text.lines()
        .map(|line| {
            let (scene, number) = line.split_once(' ').with_context(|| format!("{path}: no number in '{line}'"))?;
            Ok((scene.to_owned(), number.parse()?))
        })
        .collect()
}

fn print(rows: &[Row], counts: &BTreeMap<String, f64>) {
    println!(
        "{:<12} {:>8} {:>8} {:>8} {:>8} {:>8} {:>13}",
        "scene", "ns", "least", "p90", "Mpps", "bytes", "instructions"
    );
    for row in rows {
        let median = row.quantile(0.5);
        let count = counts.get(row.scene.name).map_or(String::from("-"), |count| format!("{count:.1}"));
        print!(
            "{:<12} {median:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {count:>13}",
            row.scene.name,
            row.quantile(0.0),
            row.quantile(0.9),
            1e3 / median,
            row.bytes_per_flow,
        );
        println!("{}", if row.refused > 0 { format!("  ({} flows had no room)", row.refused) } else { String::new() });
    }
}

fn save(path: &str, rows: &[Row], counts: &BTreeMap<String, f64>) -> Result<()> {
    let mut out = json!({ "instructions": counts });
    for row in rows {
        let (group, key) = row.scene.json;
        out[group][key] = json!(row.quantile(0.5));
        match row.scene.kind {
            Kind::V4 => out["bytes_per_flow"]["v4"] = json!(row.bytes_per_flow),
            Kind::V6 => out["bytes_per_flow"]["v6"] = json!(row.bytes_per_flow),
            Kind::Decapsulate | Kind::New => {}
        }
    }
    fs::write(path, format!("{out:#}\n")).with_context(|| path.to_owned())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut quick, mut json, mut counts, mut wanted) = (false, None, BTreeMap::new(), Vec::new());
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            // From `cargo bench`.
            "--bench" => {}
            "--quick" => quick = true,
            "--json" => json = Some(value()?),
            "--instructions" => counts = instructions(&value()?)?,
            "--count" => {
                let scene = value()?;
                return count(&scene, value()?.parse()?);
            }
            name => wanted.push(name.to_owned()),
        }
    }
    let all = SCENES.iter().filter(|scene| !quick || scene.flows < 10_000_000);
    let scenes: Vec<Scene> =
        all.filter(|scene| wanted.is_empty() || wanted.iter().any(|name| name == scene.name)).copied().collect();
    ensure!(!scenes.is_empty(), "no such scene");

    let slots: u64 = scenes.iter().map(|scene| u64::from(scene.flows) * 5 / 4).sum();
    let memory_mib = 64 + ((slots * 70) >> 20) as u32;
    let eal = Eal::init(&EalOptions {
        hugepages: Hugepages::Auto,
        memory_mib,
        file_prefix: format!("slr-bench-{}", std::process::id()),
        lcores: vec![std::thread::available_parallelism()?.get() as u16 - 1],
        devices: Vec::new(),
        verbose: false,
    })?;
    match eal.pages() {
        Pages::Huge => println!("{memory_mib} MiB of hugepages"),
        Pages::Ordinary { why } => println!("ordinary pages, so expect more time a packet: {why}"),
    }
    let rows = lcore::launch(0, move || time(scenes, quick))?.join()??;
    print(&rows, &counts);
    json.map_or(Ok(()), |path| save(&path, &rows, &counts))
}
