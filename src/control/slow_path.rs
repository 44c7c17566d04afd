//! What happens to punted frames: they are fed to the protocol machines, which answer through the workers and change the
//! snapshot.

use std::sync::Arc;
use std::time::Duration;

use super::compile::{Configured, recompile};
use super::neighbours::{Change, Input, Neighbours, Output, State};
use crate::clock::Instant;
use crate::config::Config;
use crate::forward::counters::{Counter, WorkerCounters};
use crate::forward::punt::{Handling, InjectRing, Injection, PuntRing};
use crate::forward::tables::{ForwardTables, Published};
use crate::forward::verdict::InjectDrop;

/// Frames that are taken from one worker in a pass at most, so that no storm keeps the slow path from its other work.
const PUNTS_PER_PASS: usize = 1024;

/// From one snapshot to the next, at least.
const PUBLISHING: Duration = Duration::from_millis(10);

/// The slow path's end of one worker.
pub struct WorkerEnd {
    /// Frames from the worker.
    pub punts: PuntRing,
    /// Frames to the worker.
    pub injections: InjectRing,
    /// Where it is counted that the second ring was full.
    pub counters: Arc<WorkerCounters>,
}

impl WorkerEnd {
    fn send(&self, injection: Injection) {
        if !self.injections.push(|| injection) {
            self.counters.inject_dropped(InjectDrop::RingFull).add(1);
        }
    }
}

/// Neighbours by state, to be read by anyone.
#[derive(Debug, Default)]
pub struct NeighbourGauges([Counter; State::ALL.len()]);

impl NeighbourGauges {
    /// The label of each state and the number of neighbours in it.
    pub fn read(&self) -> Vec<(&'static str, u64)> {
        State::ALL.iter().zip(&self.0).map(|(state, gauge)| (state.label(), gauge.get())).collect()
    }
}

/// The slow path, without its thread and its clock.
pub struct SlowPath {
    config: Arc<Config>,
    neighbours: Neighbours,
    published: Published,
    workers: Vec<WorkerEnd>,
    gauges: Arc<NeighbourGauges>,
    /// The snapshot is behind what is known about neighbours.
    outdated: bool,
    publish_after: Instant,
    /// Snapshots that a worker may still read: held here, so that no worker ever frees one.
    retired: Vec<Arc<ForwardTables>>,
}

impl SlowPath {
    /// The slow path of `workers` that read their snapshot, compiled from `config` over `neighbours`, from `published`.
    pub fn new(config: Arc<Config>, neighbours: Neighbours, published: Published, workers: Vec<WorkerEnd>) -> SlowPath {
        let gauges = Arc::default();
        let (outdated, publish_after, retired) = (false, Instant::ZERO, Vec::new());
        SlowPath { config, neighbours, published, workers, gauges, outdated, publish_after, retired }
    }

    /// Neighbours by state as of the last pass.
    pub fn gauges(&self) -> Arc<NeighbourGauges> {
        self.gauges.clone()
    }

    /// Does what has come up by `now`, and returns which neighbours have changed.
    pub fn pass(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        for worker in &self.workers {
            for punt in (0..PUNTS_PER_PASS).map_while(|_| worker.punts.pop()) {
                // What comes out of a tunnel is from no neighbour.
                if !punt.what.bare {
                    let input = Input::Frame { port: punt.port, bytes: punt.frame() };
                    perform(worker, self.neighbours.handle(now, input), &mut changes);
                }
            }
        }
        // What nobody has asked for leaves by the first worker.
        if let Some(worker) = self.workers.first()
            && self.neighbours.next_deadline().is_some_and(|deadline| deadline <= now)
        {
            perform(worker, self.neighbours.handle(now, Input::Tick), &mut changes);
        }
        for (state, gauge) in State::ALL.iter().zip(&self.gauges.0) {
            gauge.set(self.neighbours.count(*state));
        }
        self.outdated |= !changes.is_empty();
        if self.outdated && now >= self.publish_after {
            self.publish();
            (self.outdated, self.publish_after) = (false, now + PUBLISHING);
        }
        self.retired.retain(|tables| Arc::strong_count(tables) > 1);
        changes
    }

    fn publish(&mut self) {
        let reachability = Configured { config: &self.config, neighbours: &self.neighbours };
        let tables = recompile(&self.config, &self.published.load(), &reachability);
        self.retired.push(self.published.swap(Arc::new(tables)));
    }
}

fn perform(worker: &WorkerEnd, outputs: Vec<Output>, changes: &mut Vec<Change>) {
    for output in outputs {
        match output {
            Output::Send { port, frame } => worker.send(Injection::new(port, Handling::Send, &frame)),
            Output::Changed(change) => changes.push(change),
        }
    }
}
