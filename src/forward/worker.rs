//! The loop of one core: receive, process, and when nothing arrives, tidy up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::Cache;

use super::io::{Burst, PacketIo};
use super::pipeline::Pipeline;
use super::tables::{ForwardTables, Published};
use crate::clock::Instant;
use crate::units::PortIndex;

/// Flow buckets aged after each burst; at 32 packets a burst a table that is full of dead flows is swept while it
/// takes in as many new ones.
const AGED_BUCKETS: usize = 4;

/// A worker: runs on one lcore and shares nothing but the snapshot, the punt ring and the stop flag.
pub struct Worker<I: PacketIo> {
    io: I,
    pipeline: Pipeline<I>,
    tables: Cache<Published, Arc<ForwardTables>>,
    stop: Arc<AtomicBool>,
}

impl<I: PacketIo> Worker<I> {
    /// A worker that reads its snapshot from `published` and runs until `stop` is set.
    pub fn new(io: I, pipeline: Pipeline<I>, published: Published, stop: Arc<AtomicBool>) -> Worker<I> {
        Worker { io, pipeline, tables: Cache::new(published), stop }
    }

    /// Forwards until told to stop, or until nothing will ever arrive again.
    pub fn run(&mut self) {
        let mut burst = Burst::new();
        let mut now = Instant::ZERO;
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
            self.pipeline.age(tables, now, AGED_BUCKETS);
            if idle && self.io.exhausted() {
                break;
            }
        }
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
