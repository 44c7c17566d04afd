//! A router in memory: a configuration, one worker, frames in and frames out.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use slr::clock::Instant;
use slr::config::Config;
use slr::control::compile::{Compiler, Reach, Reachability};
use slr::control::conditions::Conditions;
use slr::control::slow_path::WorkerEnd;
use slr::forward::counters::WorkerCounters;
use slr::forward::inspect::{self, Desk};
use slr::forward::memory_io::MemoryIo;
use slr::forward::pipeline::{FlowCapacity, Pipeline};
use slr::forward::punt::{InjectRing, PuntRing};
use slr::forward::tables::{ForwardTables, Published};
use slr::forward::verdict::{DropReason, InjectDrop, PuntReason};
use slr::forward::worker::Worker;
use slr::tunnel::template::Link;
use slr::units::{MacAddr, PortIndex, WorkerId};

pub const ROUTER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// Most targets that the worker counts.
pub const TARGETS_MAX: usize = 16;
pub const NEXT_HOP_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// [`InjectDrop::ALL`], told apart from drops for the same reason.
const INJECT_DROPS: [&str; InjectDrop::ALL.len()] = ["inject_ring_full", "inject_no_buffer", "inject_tx_queue_full"];

/// Every child is behind port 1, as one next hop.
pub struct OneLink {
    pub mtu: u16,
    pub vlan: Option<u16>,
}

impl Reachability for OneLink {
    fn reach(&self, _address: IpAddr) -> Option<Reach> {
        let link = Link { source: ROUTER_MAC, destination: NEXT_HOP_MAC, vlan: self.vlan };
        Some(Reach { port: PortIndex(1), link, mtu: self.mtu })
    }
}

pub struct TestRouter {
    pub worker: Worker<MemoryIo>,
    pub counters: Arc<WorkerCounters>,
    pub punts: PuntRing,
    pub injections: InjectRing,
    pub published: Published,
    pub tables: Arc<ForwardTables>,
    pub compiler: Compiler,
    /// The way into the worker's flow tables, until somebody takes it.
    pub desk: Option<Desk>,
    seen: Vec<(&'static str, u64)>,
}

impl TestRouter {
    /// The slow path's end of the worker.
    pub fn end(&self) -> WorkerEnd {
        let (punts, injections) = (self.punts.clone(), self.injections.clone());
        WorkerEnd { punts, injections, counters: self.counters.clone() }
    }

    pub fn new(yaml: &str) -> TestRouter {
        TestRouter::over(yaml, &OneLink { mtu: 1600, vlan: None })
    }

    pub fn over(yaml: &str, reachability: &impl Reachability) -> TestRouter {
        TestRouter::of(&Config::parse(yaml, "test.yaml").unwrap_or_else(|error| panic!("{error}")), reachability)
    }

    pub fn of(config: &Config, reachability: &impl Reachability) -> TestRouter {
        TestRouter::one_of(1, config, reachability)
    }

    /// A worker that knows that there are `workers` of them.
    pub fn one_of(workers: u16, config: &Config, reachability: &impl Reachability) -> TestRouter {
        let mut compiler = Compiler::new(TARGETS_MAX);
        let compiled = compiler.compile(config, &Conditions::default(), reachability, Instant::ZERO);
        let tables = Arc::new(compiled.expect("few targets").tables);
        let counters = Arc::new(WorkerCounters::new(TARGETS_MAX));
        let (punts, injections) = (PuntRing::new(8), InjectRing::new(8));
        let capacity =
            FlowCapacity { v4: config.flows.capacity_v4, v6: config.flows.capacity_v6, fragments: 64, seed: Some(7) };
        let pipeline =
            Pipeline::new((WorkerId(0), workers), 2, capacity, counters.clone(), punts.clone()).expect("memory");
        let published = Arc::new(ArcSwap::from(tables.clone()));
        let worker = Worker::new(MemoryIo::new(2), pipeline, published.clone(), Arc::new(AtomicBool::new(false)));
        let (desk, inspector) = inspect::pair();
        let worker = worker.injecting(injections.clone()).inspected(inspector);
        let desk = Some(desk);
        TestRouter { worker, counters, punts, injections, published, tables, compiler, desk, seen: Vec::new() }
    }

    /// Lets the frames arrive at port 0 and returns what leaves, which must be by port 1.
    pub fn carry<F: AsRef<[u8]>>(&mut self, frames: impl IntoIterator<Item = F>) -> Vec<Vec<u8>> {
        for frame in frames {
            self.worker.io_mut().arrive(PortIndex(0), frame.as_ref());
        }
        self.worker.run();
        assert!(self.counters.packets().conserved(), "{:?}", self.counters.packets());
        let sent = self.worker.io_mut().take_sent();
        sent.into_iter()
            .map(|(port, frame)| {
                assert_eq!(port, PortIndex(1));
                frame
            })
            .collect()
    }

    pub fn wait(&mut self, time: Duration) {
        self.worker.io_mut().wait(time);
    }

    /// Every counter that has moved since the last call, with how far.
    pub fn moved(&mut self) -> Vec<(&'static str, u64)> {
        let counters = &self.counters;
        let mut all = vec![
            ("received", counters.received.get()),
            ("forwarded", counters.forwarded.get()),
            ("icmp_errors", counters.icmp_errors.get()),
            ("fragmented", counters.fragmented.get()),
            ("pieces", counters.pieces.get()),
            ("flows_inserted", counters.flows_inserted.get()),
            ("flows_expired", counters.flows_expired.get()),
            ("flows_refused", counters.flows_refused.get()),
            ("flows_over_limit", counters.flows_over_limit.get()),
            ("routed", counters.routed.get()),
            ("flows_installed", counters.flows_installed.get()),
            ("strays_passed", counters.strays_passed.get()),
            ("quic_steered", counters.quic_steered.get()),
            ("mss_clamped", counters.mss_clamped.get()),
            ("injected", counters.injected.get()),
        ];
        all.extend(InjectDrop::ALL.iter().map(|&why| (INJECT_DROPS[why as usize], counters.inject_dropped(why).get())));
        all.extend(PuntReason::ALL.iter().map(|&reason| (reason.label(), counters.punted(reason).get())));
        all.extend(DropReason::all().map(|reason| (reason.label(), counters.dropped(reason).get())));
        let before = std::mem::replace(&mut self.seen, all.clone());
        all.into_iter()
            .enumerate()
            .map(|(row, (label, now))| (label, now - before.get(row).map_or(0, |(_, then)| *then)))
            .filter(|(_, delta)| *delta > 0)
            .collect()
    }
}
