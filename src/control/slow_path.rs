//! What happens to punted frames and to what the operator says: it is fed to the machines, which answer through the
//! workers, and whatever changes the snapshot makes a new one.

use std::sync::Arc;
use std::time::Duration;

use super::compile::{Compiled, Compiler, Configured, TooManyTargets, recompile};
use super::conditions::Conditions;
use super::neighbours::{Change, Input, Neighbours, Output, State};
use crate::clock::Instant;
use crate::config::Config;
use crate::forward::counters::{Counter, WorkerCounters};
use crate::forward::punt::{Handling, InjectRing, Injection, PuntRing};
use crate::forward::tables::{ForwardTables, Published};
use crate::forward::verdict::InjectDrop;
use crate::units::Weight;

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

/// How far the snapshot is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outdated {
    No,
    /// Behind what is known about neighbours.
    Paths,
    /// Behind the children's conditions.
    Selection,
}

/// Why the router goes on with the configuration that it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// Something has changed that is settled at start.
    #[error("{0} cannot change while the router runs; restart it, or put back what was there")]
    NeedsRestart(&'static str),
    /// More targets than the workers count.
    #[error(transparent)]
    TooManyTargets(#[from] TooManyTargets),
}

/// The configuration has no such child.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no child \"{name}\"; children are {known}")]
pub struct NoSuchChild {
    name: String,
    known: String,
}

/// Children that an error names at most.
const NAMED: usize = 10;

/// The slow path, without its thread and its clock.
pub struct SlowPath {
    config: Arc<Config>,
    conditions: Conditions,
    compiler: Compiler,
    neighbours: Neighbours,
    published: Published,
    workers: Vec<WorkerEnd>,
    gauges: Arc<NeighbourGauges>,
    outdated: Outdated,
    /// When neighbours may change the snapshot again.
    publish_after: Instant,
    /// Snapshots that a worker may still read: held here, so that no worker ever frees one.
    retired: Vec<Arc<ForwardTables>>,
}

impl SlowPath {
    /// The slow path of `workers` that read their snapshot, which `compiler` has made of `config` over `neighbours`, from
    /// `published`.
    pub fn new(
        config: Arc<Config>,
        compiler: Compiler,
        neighbours: Neighbours,
        published: Published,
        workers: Vec<WorkerEnd>,
    ) -> SlowPath {
        SlowPath {
            config,
            conditions: Conditions::default(),
            compiler,
            neighbours,
            published,
            workers,
            gauges: Arc::default(),
            outdated: Outdated::No,
            publish_after: Instant::ZERO,
            retired: Vec::new(),
        }
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
        if changes.iter().any(|change| change.mac != change.before) {
            self.outdated = self.outdated.max(Outdated::Paths);
        }
        self.catch_up(now);
        self.retired.retain(|tables| Arc::strong_count(tables) > 1);
        changes
    }

    /// Puts another configuration in the place of the one that there is: at once and whole, or not at all. Flows stay
    /// where they are as long as their virtual host keeps their child.
    ///
    /// # Errors
    /// What stands in the way; nothing has changed.
    pub fn reload(&mut self, config: Config, now: Instant) -> Result<(), ReloadError> {
        settled_at_start(&self.config, &config).map_or(Ok(()), |what| Err(ReloadError::NeedsRestart(what)))?;
        let neighbours = self.neighbours.reconfigured(&config);
        let reachability = Configured { config: &config, neighbours: &neighbours };
        let compiled = self.compiler.compile(&config, &self.conditions, &reachability, now)?;
        (self.config, self.neighbours, self.outdated) = (Arc::new(config), neighbours, Outdated::No);
        self.publish(compiled);
        Ok(())
    }

    /// The configuration that is in force.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// What differs from it for the time being.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Gives a child no new flows, or (`drained` false) as many as before again.
    ///
    /// # Errors
    /// There is no such child.
    pub fn drain(&mut self, child: &str, drained: bool, now: Instant) -> Result<(), NoSuchChild> {
        self.know(child)?;
        let changed = match drained {
            true => self.conditions.drained.insert(child.to_owned()),
            false => self.conditions.drained.remove(child),
        };
        self.changed(changed, now);
        Ok(())
    }

    /// Gives a child another weight in all its virtual hosts; `None` is the configured one.
    ///
    /// # Errors
    /// There is no such child.
    pub fn weigh(&mut self, child: &str, weight: Option<Weight>, now: Instant) -> Result<(), NoSuchChild> {
        self.know(child)?;
        let before = match weight {
            Some(weight) => self.conditions.weights.insert(child.to_owned(), weight),
            None => self.conditions.weights.remove(child),
        };
        self.changed(before != weight, now);
        Ok(())
    }

    fn know(&self, child: &str) -> Result<(), NoSuchChild> {
        if self.config.children.iter().any(|known| known.name == child) {
            return Ok(());
        }
        let mut known: Vec<&str> = self.config.children.iter().map(|child| child.name.as_str()).take(NAMED).collect();
        if self.config.children.len() > NAMED {
            known.push("...");
        }
        Err(NoSuchChild { name: child.to_owned(), known: known.join(", ") })
    }

    fn changed(&mut self, changed: bool, now: Instant) {
        if changed {
            self.outdated = Outdated::Selection;
            self.catch_up(now);
        }
    }

    /// Publishes a new snapshot where there is need for one.
    fn catch_up(&mut self, now: Instant) {
        let reachability = Configured { config: &self.config, neighbours: &self.neighbours };
        let compiled = match self.outdated {
            Outdated::Paths if now >= self.publish_after => {
                self.publish_after = now + PUBLISHING;
                let tables = recompile(&self.config, &self.published.load(), &reachability);
                Compiled { tables, renumbered: Vec::new() }
            }
            Outdated::No | Outdated::Paths => return,
            Outdated::Selection => {
                let compiled = self.compiler.compile(&self.config, &self.conditions, &reachability, now);
                compiled.expect("a configuration that has been compiled has no more targets than there is room for")
            }
        };
        self.outdated = Outdated::No;
        self.publish(compiled);
    }

    fn publish(&mut self, Compiled { tables, renumbered }: Compiled) {
        for worker in &self.workers {
            renumbered.iter().for_each(|target| worker.counters.forget(*target));
        }
        self.retired.push(self.published.swap(Arc::new(tables)));
    }
}

/// The key of what differs although it is settled at start.
fn settled_at_start(before: &Config, after: &Config) -> Option<&'static str> {
    let flows = |config: &Config| (config.flows.capacity_v4, config.flows.capacity_v6);
    [
        ("router.name", before.router.name == after.router.name),
        ("dpdk", before.dpdk == after.dpdk),
        ("workers", before.workers == after.workers),
        ("ports", before.ports == after.ports),
        ("flows.capacity_v4 or flows.capacity_v6", flows(before) == flows(after)),
        ("metrics", before.metrics == after.metrics),
    ]
    .into_iter()
    .find_map(|(key, same)| (!same).then_some(key))
}

fn perform(worker: &WorkerEnd, outputs: Vec<Output>, changes: &mut Vec<Change>) {
    for output in outputs {
        match output {
            Output::Send { port, frame } => worker.send(Injection::new(port, Handling::Send, &frame)),
            Output::Changed(change) => changes.push(change),
        }
    }
}
