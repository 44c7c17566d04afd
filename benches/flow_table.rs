//! What the flow table alone costs, with keys that are there already and without packets, burst by burst as a worker uses it.
//!
//! ```text
//! flow_table [--quick] [--json FILE]     the tables take turns, round by round; --quick leaves out those of 10 million
//! ```
//!
//! `known` finds an entry and counts a packet; `unknown` finds that there is none; `insert` makes one; `age` looks at one
//! entry whose time is not over. The order of keys is random.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::json;
use slr::clock::Tick;
use slr::dpdk::{HugeMemory, lcore, tsc};
use slr::flow::key::{FlowKey, KeyV4, KeyV6};
use slr::flow::state::{FlowState, Timeouts};
use slr::flow::table::{FlowHash, Hint, Table};
use slr::forward::io::BURST;
use slr::units::TargetId;

mod environment;

/// Bursts that are measured together.
const BURSTS: u32 = 16;

/// Bytes of a packet that is counted.
const LEN: u32 = 46;

const OPERATIONS: [&str; 4] = ["known", "unknown", "insert", "age"];

/// A key that a number makes.
trait Numbered: FlowKey {
    fn of_number(number: u32) -> Self;
}

impl Numbered for KeyV4 {
    fn of_number(number: u32) -> KeyV4 {
        KeyV4 { source: number.to_be_bytes(), destination: [192, 0, 2, 4], ports: [0, 1, 1, 0xbb], protocol: 17 }
    }
}

impl Numbered for KeyV6 {
    fn of_number(number: u32) -> KeyV6 {
        let mut source = [0x20; 16];
        source[12..].copy_from_slice(&number.to_be_bytes());
        KeyV6 { source, destination: [0x20; 16], ports: [0, 1, 1, 0xbb], protocol: 17 }
    }
}

/// A table with as many flows as it was made for, but for those of one measurement.
struct Bench<K: FlowKey> {
    table: Table<K, HugeMemory>,
    flows: u32,
    timeouts: Timeouts,
    /// State of the random numbers (SplitMix64).
    random: u64,
}

/// Nanoseconds of each operation, one figure for each time that [`BURSTS`] were measured.
type Figures = [Vec<f64>; OPERATIONS.len()];

impl<K: Numbered> Bench<K> {
    fn new(flows: u32) -> Option<Bench<K>> {
        let table = Table::new(flows + BURSTS * BURST as u32, Some(7))?;
        let mut bench = Bench { table, flows, timeouts: Timeouts::new(|_| 60_000), random: 1 };
        for number in 0..flows {
            bench.insert(&[K::of_number(number).words()]);
        }
        Some(bench)
    }

    fn next(&mut self) -> u32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 32) as u32
    }

    /// Keys of flows that are known, or of others.
    fn keys(&mut self, known: bool) -> Vec<K::Words> {
        let flows = u64::from(self.flows);
        let mut number = || ((u64::from(self.next()) * flows) >> 32) as u32;
        let numbers = (0..BURSTS * BURST as u32).map(|_| if known { number() } else { u32::MAX - number() });
        numbers.map(|number| K::of_number(number).words()).collect()
    }

    /// Where a burst's keys are.
    #[inline(always)]
    fn locate(&self, keys: &[K::Words]) -> [(FlowHash, Hint); BURST] {
        let mut found = [(FlowHash::NONE, Hint::NONE); BURST];
        for (key, (hash, _)) in keys.iter().zip(&mut found) {
            *hash = self.table.hash_words(key);
            self.table.prefetch_group(*hash);
        }
        let mut seconds = false;
        for (hash, hint) in &mut found[..keys.len()] {
            *hint = self.table.locate(*hash, &mut seconds);
        }
        if seconds {
            for (hash, hint) in found[..keys.len()].iter_mut().filter(|(_, hint)| *hint == Hint::SECOND) {
                *hint = self.table.locate_second(*hash);
            }
        }
        found
    }

    #[inline(never)]
    fn count(&mut self, keys: &[K::Words]) -> usize {
        let found = self.locate(keys);
        let mut known = 0;
        for (key, (_, hint)) in keys.iter().zip(found) {
            if let Some(record) = self.table.hinted(hint, key) {
                record.count(Tick(1), LEN);
                known += 1;
            }
        }
        known
    }

    #[inline(never)]
    fn insert(&mut self, keys: &[K::Words]) {
        let found = self.locate(keys);
        for (key, (hash, hint)) in keys.iter().zip(found) {
            let room = match self.table.hinted_room(hint) {
                Some(room) => Some(room),
                // One key twice in a burst, or a first group that was full.
                None if self.table.find(hash, &K::from_words(key)).is_some() => None,
                None => self.table.vacancy(hash, Tick(1), &self.timeouts).ok(),
            };
            if let Some(room) = room {
                let record = self.table.fill_words(room, hash, *key, TargetId(1), FlowState::Udp, Tick(1));
                record.count(Tick(1), LEN);
            }
        }
    }

    fn round(&mut self, figures: &mut Figures) -> Result<()> {
        let [known, unknown, insert, age] = figures;
        let (some, others, new) = (self.keys(true), self.keys(false), self.keys(false));
        let mut hits = 0;
        known.push(per(some.len(), || hits += some.chunks(BURST).map(|burst| self.count(burst)).sum::<usize>()));
        // A tag that matches by chance hides, in one of some thousands, what is in the second group.
        if hits < some.len() / 100 * 99 {
            bail!("only {hits} of {} known keys were found", some.len());
        }
        unknown.push(per(others.len(), || hits = others.chunks(BURST).map(|burst| self.count(burst)).sum()));
        if hits > 0 {
            bail!("{hits} unknown keys were found");
        }
        let before = self.table.len();
        insert.push(per(new.len(), || new.chunks(BURST).for_each(|burst| self.insert(burst))));
        if self.table.len() == before {
            bail!("nothing was inserted");
        }
        for key in &new {
            let hash = self.table.hash_words(key);
            if let Some(slot) = self.table.find(hash, &K::from_words(key)) {
                self.table.remove(slot);
            }
        }
        let groups = BURSTS as usize;
        let entries = self.table.len() as f64 / self.table.groups() as f64 * groups as f64;
        age.push(per(1, || self.table.age(Tick(2), groups, &self.timeouts)) / entries);
        Ok(())
    }
}

/// Nanoseconds for each of so many.
fn per(count: usize, work: impl FnOnce()) -> f64 {
    let start = tsc::now();
    work();
    (tsc::now() - start) as f64 * 1e9 / tsc::hz() as f64 / count as f64
}

/// Tables over which rounds go in turn.
trait Round: Send {
    fn round(&mut self, figures: &mut Figures) -> Result<()>;
}

impl<K: Numbered> Round for Bench<K> {
    fn round(&mut self, figures: &mut Figures) -> Result<()> {
        Bench::round(self, figures)
    }
}

struct Row {
    family: &'static str,
    flows: &'static str,
    table: Box<dyn Round>,
    figures: Figures,
}

fn rows(quick: bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (flows, count) in [("1k", 1_000), ("100k", 100_000), ("1M", 1_000_000), ("10M", 10_000_000)] {
        if quick && count > 1_000_000 {
            continue;
        }
        let memory = || format!("no memory for {flows} flows");
        let v4: Box<dyn Round> = Box::new(Bench::<KeyV4>::new(count).with_context(memory)?);
        let v6: Box<dyn Round> = Box::new(Bench::<KeyV6>::new(count).with_context(memory)?);
        rows.extend([("v4", v4), ("v6", v6)].map(|(family, table)| Row {
            family,
            flows,
            table,
            figures: Default::default(),
        }));
    }
    Ok(rows)
}

fn measure(quick: bool) -> Result<serde_json::Value> {
    let mut rows = rows(quick)?;
    for _ in 0..if quick { 9 } else { 25 } {
        for row in &mut rows {
            // For so long that the caches are full of this table again.
            for _ in 0..200 {
                row.table.round(&mut row.figures).with_context(|| format!("{} {}", row.family, row.flows))?;
            }
        }
    }
    println!("{:<10} {:>8} {:>8} {:>8} {:>8}", "ns", OPERATIONS[0], OPERATIONS[1], OPERATIONS[2], OPERATIONS[3]);
    let mut out = json!({});
    for row in &mut rows {
        print!("{:<10}", format!("{}-{}", row.family, row.flows));
        for (operation, figures) in OPERATIONS.iter().zip(&mut row.figures) {
            figures.sort_by(f64::total_cmp);
            let median = figures[figures.len() / 2];
            print!(" {median:>8.1}");
            out["flow_table_ns"][row.family][row.flows][operation] = json!(median);
        }
        println!();
    }
    Ok(out)
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut quick, mut json) = (false, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => quick = true,
            "--json" => json = Some(arguments.next().context("--json wants a value")?),
            other => bail!("unknown argument '{other}'; there are --quick and --json FILE"),
        }
    }
    let flows: &[u32] = if quick { &[1_000_000] } else { &[1_000_000, 10_000_000] };
    let bytes = |flows: &u32| Table::<KeyV4>::bytes(*flows) + Table::<KeyV6>::bytes(*flows);
    // The smaller ones, and pages of 2 MB that each part begins with.
    let memory_mib = 128 + (flows.iter().map(bytes).sum::<u64>() >> 20) as u32;
    environment::start(memory_mib)?;
    let figures = lcore::launch(0, move || measure(quick))?.join()??;
    json.map_or(Ok(()), |path| fs::write(&path, format!("{figures:#}\n")).context(path))
}
