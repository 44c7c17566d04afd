//! The loop of one core: receive, process, and when nothing arrives, tidy up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::Cache;

use super::inspect::Inspector;
use super::io::{BURST, Burst, PacketIo};
use super::pipeline::Pipeline;
use super::punt::{Handling, InjectRing};
use super::tables::{ForwardTables, Published};
use super::verdict::InjectDrop;
use crate::clock::Instant;
use crate::flow::table::GROUP;
use crate::units::PortIndex;

/// Groups of flow entries aged after each burst: about as many entries as a full burst has packets, so that a table that is full
/// of dead flows is swept while it takes in as many new ones.
const AGED_GROUPS: usize = BURST / GROUP;

/// Frames of the slow path that are taken in one turn of the loop.
const INJECTED: usize = 4;

/// Turns of the loop without anything to do after which the machine may rest.
const IDLE_TURNS: u32 = 256;

/// A worker: runs on one lcore and shares nothing but the snapshot, its rings and the stop flag.
pub struct Worker<I: PacketIo> {
    io: I,
    pipeline: Pipeline<I>,
    tables: Cache<Published, Arc<ForwardTables>>,
    stop: Arc<AtomicBool>,
    injections: Option<InjectRing>,
    inspector: Option<Inspector>,
}

impl<I: PacketIo> Worker<I> {
    /// A worker that reads its snapshot from `published` and runs until `stop` is set.
    pub fn new(io: I, pipeline: Pipeline<I>, published: Published, stop: Arc<AtomicBool>) -> Worker<I> {
        Worker { io, pipeline, tables: Cache::new(published), stop, injections: None, inspector: None }
    }

    /// The same, sending or carrying what the slow path puts into `ring`.
    pub fn injecting(self, ring: InjectRing) -> Worker<I> {
        Worker { injections: Some(ring), ..self }
    }

    /// The same, letting the slow path look into its flow tables, and change them, through `inspector`.
    pub fn inspected(mut self, inspector: Inspector) -> Worker<I> {
        self.pipeline.tell(inspector.new_flows());
        Worker { inspector: Some(inspector), ..self }
    }

    /// Forwards until told to stop, or until nothing will ever arrive again.
    pub fn run(&mut self) {
        let mut burst = Burst::new();
        let mut now = Instant::ZERO;
        let mut idle_turns = 0;
        while !self.stop.load(Ordering::Relaxed) {
            // Between two bursts the worker holds no reference into a snapshot: this is where it takes a new one.
            let tables = self.tables.load();
            let mut idle = true;
            for port in (0..self.io.ports()).map(PortIndex) {
                now = self.io.rx_burst(port, &mut burst);
                if !burst.is_empty() {
                    idle = false;
                    self.pipeline.process(tables, &mut self.io, port, now, &mut burst);
                }
            }
            self.pipeline.age(tables, now, AGED_GROUPS);
            let inspected = self.inspect(now);
            let idle = !self.inject(now) && !inspected && idle;
            if !idle {
                idle_turns = 0;
                continue;
            }
            if self.io.exhausted() {
                break;
            }
            idle_turns += 1;
            if idle_turns > IDLE_TURNS {
                self.io.rest();
            }
        }
    }

    /// Drops, and counts, what is held for packets that have not come: to be called when no run follows.
    pub fn finish(&mut self) {
        self.pipeline.drop_held();
    }

    /// Does a little of what the slow path asks for with the flows. False when it asks for nothing.
    #[inline(always)]
    fn inspect(&mut self, now: Instant) -> bool {
        let Some(inspector) = self.inspector.as_mut().filter(|inspector| inspector.is_asked()) else { return false };
        self.pipeline.inspect(inspector, self.tables.load(), now);
        true
    }

    /// Takes a few frames of the slow path. False when there are none.
    fn inject(&mut self, now: Instant) -> bool {
        let Some(ring) = self.injections.as_ref().filter(|ring| !ring.is_empty()) else { return false };
        for injection in (0..INJECTED).map_while(|_| ring.pop()) {
            match injection.what {
                Handling::Install(install) => {
                    self.pipeline.install(self.tables.load(), now, install);
                    continue;
                }
                Handling::Forget => {
                    self.pipeline.forget();
                    continue;
                }
                Handling::Walk(_) | Handling::Send => {}
            }
            let counters = self.pipeline.counters();
            let Some(packet) = self.io.alloc(injection.frame()) else {
                counters.inject_dropped(InjectDrop::NoBuffer).add(1);
                continue;
            };
            let mut burst = Burst::from_iter([packet]);
            if injection.port.0 >= self.io.ports() {
                counters.inject_dropped(InjectDrop::TxQueueFull).add(1);
                continue;
            }
            match injection.what {
                // The snapshot that the frame has waited for was published before it was put into the ring.
                Handling::Walk(again) => {
                    let tables = self.tables.load();
                    self.pipeline.process_again(again, tables, &mut self.io, injection.port, now, &mut burst);
                }
                Handling::Send if self.io.tx_burst(injection.port, &mut burst) == 0 => counters.injected.add(1),
                Handling::Send => counters.inject_dropped(InjectDrop::TxQueueFull).add(1),
                Handling::Install(_) | Handling::Forget => {}
            }
        }
        true
    }

    /// The worker's queues, to start them again.
    pub fn io_mut(&mut self) -> &mut I {
        &mut self.io
    }

    /// Ends the worker and gives its queues back.
    pub fn into_io(self) -> I {
        self.io
    }
}
