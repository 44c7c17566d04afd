//! What a packet costs a worker: `Pipeline::process` alone, on real packet buffers, with flows in random order; and the
//! same work done with DPDK's own hash table.
//!
//! ```text
//! pipeline [--quick] [--json FILE] [--instructions FILE] [SCENE...]   times the scenes, round by round in turn
//! pipeline --capture FILE --flows NUMBER [--mixed]                    writes one packet of each flow to a capture
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pcap_file::pcap::{PcapPacket, PcapWriter};
use serde_json::json;
use slr::dpdk::{HugeMemory, HugeSlice, Mbuf, Pool, lcore, tsc};
use slr::flow::memory::Memory;
use zerocopy::FromZeros;

mod environment;
mod reference;
mod scenes;

use reference::Reference;
use scenes::{BATCH, BenchIo, Frames, Kind, Machine, Scene, Stage, Tunnel};

/// Whose flow table it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Own,
    RteHash,
}

/// A scene, whose table it uses, and group and key of the result in the JSON file.
struct Row {
    scene: Scene,
    table: Table,
    json: (&'static str, &'static str),
    /// Nanoseconds a packet, one for each batch of every round, so that what interrupts the bench spoils few of them; in
    /// ascending order at the end.
    ns: Vec<f64>,
    bytes_per_flow: f64,
    refused: u64,
}

fn row(name: &'static str, kind: Kind, tunnel: Tunnel, flows: u32, json: (&'static str, &'static str)) -> Row {
    let scene = Scene { name, kind, tunnel, flows };
    Row { scene, table: Table::Own, json, ns: Vec::new(), bytes_per_flow: 0.0, refused: 0 }
}

fn rte(name: &'static str, flows: u32, key: &'static str) -> Row {
    Row { table: Table::RteHash, ..row(name, Kind::V4, Tunnel::IpIp, flows, ("rte_hash_ns", key)) }
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    vec![
        row("v4-1k",     Kind::V4,          Tunnel::IpIp,  1_000,      ("established_ns", "1k")),
        rte("rte-1k",                                      1_000,      "1k"),
        row("v4-100k",   Kind::V4,          Tunnel::IpIp,  100_000,    ("established_ns", "100k")),
        rte("rte-100k",                                    100_000,    "100k"),
        row("v4-1M",     Kind::V4,          Tunnel::IpIp,  1_000_000,  ("established_ns", "1M")),
        rte("rte-1M",                                      1_000_000,  "1M"),
        row("v4-10M",    Kind::V4,          Tunnel::IpIp,  10_000_000, ("established_ns", "10M")),
        rte("rte-10M",                                     10_000_000, "10M"),
        row("tcp4-1M",   Kind::Tcp,         Tunnel::IpIp,  1_000_000,  ("established_tcp_ns", "1M")),
        row("v6-1M",     Kind::V6,          Tunnel::IpIp,  1_000_000,  ("established_v6_ns", "1M")),
        row("v6-10M",    Kind::V6,          Tunnel::IpIp,  10_000_000, ("established_v6_ns", "10M")),
        row("over6-100k", Kind::V4,         Tunnel::IpIp6, 100_000,    ("over_v6_ns", "100k")),
        row("gue-100k",  Kind::V4,          Tunnel::Gue,   100_000,    ("gue_ns", "100k")),
        row("gre-100k",  Kind::V4,          Tunnel::Gre,   100_000,    ("gre_ns", "100k")),
        row("decap-100k", Kind::Decapsulate, Tunnel::IpIp, 100_000,    ("decapsulate_ns", "100k")),
        row("flood-1M",   Kind::Flood,       Tunnel::IpIp, 1_000_000,  ("burst_p99_ns", "random")),
        row("collide-1M", Kind::Colliding,   Tunnel::IpIp, 1_000_000,  ("burst_p99_ns", "colliding")),
        row("new-1M",    Kind::New,         Tunnel::IpIp,  1_000_000,  ("new_flow_ns", "1M")),
    ]
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

    #[inline(always)]
    fn prefetch<T>(at: &T) {
        HugeMemory::prefetch(at);
    }
}

/// The processor and DPDK's memory.
struct Here;

impl Machine for Here {
    type Memory = Counted;

    #[inline(always)]
    fn cycles() -> u64 {
        tsc::now()
    }
}

/// A scene with its flow table.
enum Measured {
    Own(Box<Stage<Mbuf, Here>>),
    RteHash(Box<Reference>),
}

impl Measured {
    fn new(row: &mut Row, pool: &Pool) -> Result<Measured> {
        let memory = || format!("{}: no memory for {} flows", row.scene.name, row.scene.flows);
        COUNTED.store(0, Ordering::Relaxed);
        let mut stage = Box::new(Stage::new(row.scene).with_context(memory)?);
        let mut io = BenchIo::new(|| pool.alloc_from(stage.frames.any())).context("the pool is too small")?;
        if row.table == Table::RteHash {
            return Ok(Measured::RteHash(Box::new(Reference::new(*stage).with_context(memory)?)));
        }
        row.bytes_per_flow = COUNTED.load(Ordering::Relaxed) as f64 / f64::from(row.scene.flows);
        stage.fill(&mut io);
        Ok(Measured::Own(stage))
    }

    fn round(&mut self, pool: &Pool, packets: u32, mut cycles: impl FnMut(u64)) -> Result<()> {
        let any = match self {
            Measured::Own(stage) => stage.frames.any(),
            Measured::RteHash(reference) => reference.stage.frames.any(),
        };
        let mut io = BenchIo::new(|| pool.alloc_from(any)).context("the pool is too small")?;
        match self {
            Measured::Own(stage) => stage.round(&mut io, packets, &mut cycles),
            Measured::RteHash(reference) => reference.round(&mut io, packets, &mut cycles),
        }
        Ok(())
    }
}

impl Row {
    /// The value below which this share of the batches lies.
    fn quantile(&self, share: f64) -> f64 {
        self.ns[((self.ns.len() - 1) as f64 * share).round() as usize]
    }
}

fn time(mut rows: Vec<Row>, quick: bool) -> Result<Vec<Row>> {
    let (rounds, packets) = if quick { (9, 100 * BATCH as u32) } else { (25, 800 * BATCH as u32) };
    let pool = Pool::new("bench", 2 * BATCH as u32, 2048)?;
    let mut scenes = rows.iter_mut().map(|row| Measured::new(row, &pool)).collect::<Result<Vec<_>>>()?;
    let ns = 1e9 / tsc::hz() as f64 / BATCH as f64;
    for _ in 0..rounds {
        for (scene, row) in scenes.iter_mut().zip(&mut rows) {
            scene.round(&pool, packets, |cycles| row.ns.push(cycles as f64 * ns))?;
        }
    }
    for (scene, row) in scenes.iter().zip(&mut rows) {
        if let Measured::Own(stage) = scene {
            let packets = stage.counters.packets();
            ensure!(packets.received == packets.forwarded, "{}: not all was forwarded: {packets:?}", row.scene.name);
            row.refused = stage.counters.flows_refused.get();
        }
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
    println!("{:<12} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}", "scene", "ns", "least", "p90", "p99", "Mpps", "bytes");
    for row in rows {
        let median = row.quantile(0.5);
        print!(
            "{:<12} {median:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.1} ",
            row.scene.name,
            row.quantile(0.0),
            row.quantile(0.9),
            row.quantile(0.99),
            1e3 / median,
        );
        match row.bytes_per_flow {
            0.0 => print!("{:>8}", "-"),
            bytes => print!("{bytes:>8.1}"),
        }
        println!("{}", if row.refused > 0 { format!("  ({} flows had no room)", row.refused) } else { String::new() });
    }
    if !counts.is_empty() {
        println!("\n{:<12} {:>12}", "1,000 flows", "instructions");
        counts.iter().for_each(|(scene, count)| println!("{scene:<12} {count:>12.1}"));
    }
}

/// Memory of this process, in bytes.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = |field: &str| status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
    let parts = ["VmRSS:", "HugetlbPages:"].map(|field| kib(field).map_or(Ok(0), str::parse::<u64>));
    let [ordinary, huge] = parts;
    Ok((ordinary? + huge?) << 10)
}

fn save(path: &str, rows: &[Row], counts: &BTreeMap<String, f64>, resident: u64) -> Result<()> {
    let mut out = json!({ "instructions": counts, "resident_bytes": resident });
    for row in rows {
        let (group, key) = row.json;
        out[group][key] = json!(row.quantile(if row.scene.kind.is_by_burst() { 0.99 } else { 0.5 }));
        // Of large tables, where the few slots that any table has do not count.
        match (row.scene.kind, row.scene.flows) {
            (Kind::V4, 1_000_000..) if row.table == Table::Own => {
                out["bytes_per_flow"]["v4"] = json!(row.bytes_per_flow)
            }
            (Kind::V6, 1_000_000..) => out["bytes_per_flow"]["v6"] = json!(row.bytes_per_flow),
            _ => {}
        }
    }
    fs::write(path, format!("{out:#}\n")).with_context(|| path.to_owned())
}

/// Writes a packet of each of `flows` flows, in random order, to a capture; the kinds take turns.
fn write_capture(path: &str, flows: u32, kinds: &[Kind]) -> Result<()> {
    let mut frames: Vec<_> = kinds.iter().map(|kind| Frames::new(*kind)).collect();
    let mut writer = PcapWriter::new(fs::File::create(path).with_context(|| path.to_owned())?)?;
    // A step that is prime to the number of flows visits them all; how far it goes makes neighbours strangers.
    let step = (flows / 3..).find(|step| gcd(*step, flows) == 1).unwrap_or(1);
    for turn in 0..u64::from(flows) {
        let frame = frames[turn as usize % kinds.len()].of((turn * u64::from(step) % u64::from(flows)) as u32);
        writer.write_packet(&PcapPacket::new(Duration::from_micros(turn), frame.len() as u32, frame))?;
    }
    Ok(())
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut quick, mut json, mut counts, mut wanted) = (false, None, BTreeMap::new(), Vec::new());
    let (mut capture, mut flows, mut kinds) = (None, 1, &[Kind::V4][..]);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--quick" => quick = true,
            "--json" => json = Some(value()?),
            "--capture" => capture = Some(value()?),
            "--flows" => flows = value()?.parse()?,
            "--mixed" => kinds = &[Kind::V4, Kind::Tcp, Kind::V6, Kind::Decapsulate],
            "--instructions" => counts = instructions(&value()?)?,
            name => wanted.push(name.to_owned()),
        }
    }
    if let Some(path) = capture {
        return write_capture(&path, flows, kinds);
    }
    let mut rows = rows();
    rows.retain(|row| match wanted.as_slice() {
        [] => !quick || row.scene.flows < 10_000_000,
        names => names.iter().any(|name| name == row.scene.name),
    });
    ensure!(!rows.is_empty(), "no such scene");

    // Each table has three parts, which begin with a page of 2 MB.
    let bytes = |row: &Row| match row.table {
        Table::Own => row.scene.capacity().bytes() + (8 << 20),
        Table::RteHash => u64::from(row.scene.flows) * 160,
    };
    let memory_mib = 32 + (rows.iter().map(bytes).sum::<u64>() >> 20) as u32;
    environment::start(memory_mib)?;
    let rows = lcore::launch(0, move || time(rows, quick))?.join()??;
    print(&rows, &counts);
    let resident = resident()?;
    println!("\n{} MiB resident, huge pages included", resident >> 20);
    json.map_or(Ok(()), |path| save(&path, &rows, &counts, resident))
}
