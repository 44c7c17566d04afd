//! What happens to punted frames and to what the operator says: it is fed to the machines, which answer through the
//! workers, and whatever changes the snapshot makes a new one.

mod checks;
mod mirror;
mod pair;
mod recovery;
mod sessions;
mod shortcuts;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::compile::{Compiled, Compiler, Configured, Latest, Reachability, TooManyTargets};
use super::conditions::Conditions;
use super::health::{self, Health};
use super::hierarchy::Hierarchy;
use super::icmp::{Failure, Icmp, IcmpCounters, Kind};
use super::neighbours::{Change, Input, Neighbours, Output, State, Wanted};
use super::path_mtu::{Learned, PathMtuCounters, PathMtus};
use super::shortcuts::proofs::Proofs;
use super::waiting::{Waiting, WaitingDrop};
use crate::clock::Instant;
use crate::config::{Child, Config, VirtualHost};
use crate::forward::capture::Capture;
use crate::forward::counters::{Counter, WorkerCounters};
use crate::forward::punt::{Again, Handling, InjectRing, Injection, Punt, PuntRing};
use crate::forward::stations::Stations;
use crate::forward::tables::{ForwardTables, Published};
use crate::forward::verdict::{InjectDrop, PuntReason};
use crate::packet::ethernet;
use crate::packet::parse::{Frame, parse};
use crate::units::{TargetId, Weight};
use recovery::Recovering;
use shortcuts::Clerks;

pub use checks::{HealthNews, Records};
pub use pair::Pairing;
pub use recovery::NoSuchWorker;

/// Frames that are taken from one worker in a pass at most, so that no storm keeps the slow path from its other work.
const PUNTS_PER_PASS: usize = 1024;

/// From one snapshot to the next, at least: in all, and for each virtual host where the targets were new in the last one,
/// so that publishing takes no large part of the slow path's time.
const PUBLISHING: (Duration, Duration) = (Duration::from_millis(10), Duration::from_nanos(500));

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

/// What the slow path counts, to be read by anyone.
#[derive(Debug, Default)]
pub struct SlowPathCounters {
    neighbours: [Counter; State::ALL.len()],
    /// Packets that wait for a next hop now.
    pub waiting: Counter,
    waiting_dropped: [Counter; WaitingDrop::ALL.len()],
    /// Memory of the tables by which new flows find their child, in bytes.
    pub table_bytes: Counter,
    /// Children by their hello alone.
    pub registered: Counter,
    /// Hellos that made nobody a child, as there was no way to who said them or no place left.
    pub registrations_refused: Counter,
    /// What senders have been told about packets that could not be carried.
    pub icmp: Arc<IcmpCounters>,
    /// What came of errors about our own tunnel packets.
    pub path_mtu: Arc<PathMtuCounters>,
}

impl SlowPathCounters {
    /// Neighbours in `state` now.
    pub fn neighbours(&self, state: State) -> &Counter {
        &self.neighbours[state as usize]
    }

    /// Packets that waited for a next hop, or were to, and were dropped for `reason`.
    pub fn waiting_dropped(&self, reason: WaitingDrop) -> &Counter {
        &self.waiting_dropped[reason as usize]
    }
}

/// In what the snapshot is behind.
#[derive(Debug, Default)]
struct Outdated {
    /// In what is known about neighbours, about paths or about shortcuts.
    paths: bool,
    /// In the conditions of these virtual hosts' children.
    hosts: BTreeSet<usize>,
}

impl Outdated {
    fn is_nothing(&self) -> bool {
        !self.paths && self.hosts.is_empty()
    }
}

/// One snapshot among those that the router has published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its number, from 1.
    pub number: u64,
    /// When it was published.
    pub at: Instant,
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
    /// The one in force: that which was read, and those who have become children by their hello.
    config: Arc<Config>,
    read: Arc<Config>,
    registered: BTreeMap<String, Child>,
    conditions: Conditions,
    compiler: Compiler,
    neighbours: Neighbours,
    icmp: Icmp,
    path_mtus: PathMtus,
    published: Published,
    publication: Publication,
    capture: Option<Arc<Capture>>,
    workers: Vec<WorkerEnd>,
    counters: Arc<SlowPathCounters>,
    waiting: Waiting<Waiter>,
    /// Neighbours that have been found since the snapshot.
    found: Vec<IpAddr>,
    outdated: Outdated,
    /// When neighbours may change the snapshot again.
    publish_after: Instant,
    /// Snapshots that a worker may still read: held here, so that no worker ever frees one.
    retired: Vec<Arc<ForwardTables>>,
    health: Option<Health>,
    records: Records,
    news: HealthNews,
    hierarchy: Option<Hierarchy>,
    recovering: Recovering,
    clerks: Clerks,
    proofs: Proofs,
    pairing: Option<Pairing>,
    /// Whose frames the workers take on the access port of a pair.
    stations: Option<Arc<Stations>>,
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
        let recovering = Recovering::new(&config, workers.len());
        let (icmp, path_mtus) = (Icmp::default(), PathMtus::default());
        let (sent, learned) = (icmp.counters().clone(), path_mtus.counters().clone());
        let counters = Arc::new(SlowPathCounters { icmp: sent, path_mtu: learned, ..SlowPathCounters::default() });
        counters.table_bytes.set(compiler.table_bytes() as u64);
        SlowPath {
            read: config.clone(),
            config,
            registered: BTreeMap::new(),
            conditions: Conditions::default(),
            compiler,
            neighbours,
            icmp,
            path_mtus,
            published,
            publication: Publication { number: 1, at: Instant::ZERO },
            capture: None,
            workers,
            counters,
            waiting: Waiting::default(),
            found: Vec::new(),
            outdated: Outdated::default(),
            publish_after: Instant::ZERO,
            retired: Vec::new(),
            health: None,
            records: Records::default(),
            news: HealthNews::default(),
            hierarchy: None,
            recovering,
            clerks: Clerks::default(),
            proofs: Proofs::new(0),
            pairing: None,
            stations: None,
        }
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<SlowPathCounters> {
        self.counters.clone()
    }

    /// Does what has come up by `now`, and returns which neighbours have changed.
    pub fn pass(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.path_mtus.tick(now) {
            self.outdated.paths = true;
        }
        for worker in 0..self.workers.len() {
            for _ in 0..PUNTS_PER_PASS {
                let Some(punt) = self.workers[worker].punts.pop() else { break };
                self.take_in(now, worker, &punt, &mut changes);
            }
        }
        self.recover(now);
        for Waiter { worker, punt } in self.waiting.expired(now) {
            self.give_up(now, worker, &punt, WaitingDrop::Unanswered);
        }
        // What nobody has asked for leaves by the first worker.
        if let Some(worker) = self.workers.first()
            && self.neighbours.next_deadline().is_some_and(|deadline| deadline <= now)
        {
            perform(worker, self.neighbours.handle(now, Input::Tick), &mut changes);
        }
        self.check_in_time(now);
        self.pair_in_time(now);
        for state in State::ALL {
            self.counters.neighbours(*state).set(self.neighbours.count(*state));
        }
        for change in changes.iter().filter(|change| change.mac != change.before) {
            self.outdated.paths = true;
            self.found.extend(change.mac.map(|_| change.address));
        }
        self.hear_workers(now);
        self.prove(now);
        self.catch_up(now, false);
        self.give_orders();
        self.counters.waiting.set(self.waiting.len() as u64);
        self.retired.retain(|tables| Arc::strong_count(tables) > 1);
        changes
    }

    /// Takes in a frame that `worker` could not decide on.
    fn take_in(&mut self, now: Instant, worker: usize, punt: &Punt, changes: &mut Vec<Change>) {
        if let Some(packet) = self.answer_to_check(punt) {
            return self.check(now, worker, health::Input::Packet(packet));
        }
        if self.hear_proof(now, punt) || self.hear_advertisement(now, punt) {
            return;
        }
        match punt.what.reason {
            PuntReason::NoNeighbour => {
                if let Err(reason) = self.wait_for_next_hop(now, worker, punt) {
                    self.give_up(now, worker, punt, reason);
                }
            }
            PuntReason::TooBig => self.tell_sender(now, worker, punt, Kind::TooBig),
            PuntReason::TtlExceeded => self.tell_sender(now, worker, punt, Kind::TimeExceeded),
            PuntReason::NoRoute => self.tell_sender(now, worker, punt, Kind::NetUnreachable),
            PuntReason::HostUnreachable => self.tell_sender(now, worker, punt, Kind::HostUnreachable),
            PuntReason::IcmpErrorElsewhere => self.ask_next(worker, punt),
            PuntReason::RecoveryEcho => self.recovery_echo(now, worker, punt),
            PuntReason::FlowElsewhere => self.stray(now, worker, punt),
            // What comes out of a tunnel is from no neighbour.
            _ if punt.what.bare => {}
            PuntReason::VirtualHostEcho => {
                let input = Input::EchoFor { port: punt.port, bytes: punt.frame() };
                perform(&self.workers[worker], self.neighbours.handle(now, input), changes);
            }
            reason => {
                let here = Configured { config: &self.config, neighbours: &self.neighbours };
                if reason == PuntReason::OwnAddress && self.path_mtus.hear(now, &self.config, &here, punt.frame()) {
                    self.outdated.paths = true;
                }
                let input = Input::Frame { port: punt.port, bytes: punt.frame() };
                perform(&self.workers[worker], self.neighbours.handle(now, input), changes);
            }
        }
    }

    /// Drops a packet whose next hop is not known. Of one for no service the sender is told.
    fn give_up(&mut self, now: Instant, worker: usize, punt: &Punt, reason: WaitingDrop) {
        self.counters.waiting_dropped(reason).add(1);
        if punt.what.target.is_none() && reason == WaitingDrop::Unanswered {
            self.tell_sender(now, worker, punt, Kind::HostUnreachable);
        }
    }

    /// Tells the sender of a packet what has become of it.
    fn tell_sender(&mut self, now: Instant, worker: usize, punt: &Punt, kind: Kind) {
        let here = Configured { config: &self.config, neighbours: &self.neighbours };
        let mtu = match punt.what.target {
            Some(target) => mtu_towards(&self.published.load(), target),
            None => destination(punt).and_then(|destination| here.reach(destination)).map(|reach| reach.mtu),
        };
        let failure = Failure { kind, mtu, port: punt.port, bare: punt.what.bare, bytes: punt.frame() };
        if let Some((port, frame)) = self.icmp.handle(now, &here, failure) {
            self.workers[worker].send(Injection::new(port, Handling::Send, &frame));
        }
    }

    /// Asks for the next hop of a packet, and keeps the packet until there is an answer.
    fn wait_for_next_hop(&mut self, now: Instant, worker: usize, punt: &Punt) -> Result<(), WaitingDrop> {
        let destination = destination(punt);
        let address = match punt.what.target {
            Some(target) => self.compiler.child(target).map(|child| self.config.children[child].address),
            None => destination,
        };
        let next_hop = address.and_then(|address| self.config.attachment(address)).map(|way| way.next_hop);
        let next_hop = next_hop.ok_or(WaitingDrop::NotAsked)?;
        let wanted = self.neighbours.want(now, &self.config, next_hop);
        if destination.is_none() {
            return Err(WaitingDrop::Unfit);
        }
        let waiter = Waiter { worker, punt: punt.clone() };
        match wanted {
            Wanted::Silent => Err(WaitingDrop::Unanswered),
            Wanted::NoRoom | Wanted::NoLink => Err(WaitingDrop::NotAsked),
            Wanted::Asked => self.waiting.hold(now, next_hop, waiter),
            Wanted::Known if !self.outdated.is_nothing() => self.waiting.hold(now, next_hop, waiter),
            // It was on its way here when the snapshot was published.
            Wanted::Known => {
                self.go_on(&waiter);
                Ok(())
            }
        }
    }

    /// Puts another configuration in the place of the one that there is: at once and whole, or not at all. Flows stay
    /// where they are as long as their virtual host keeps their child.
    ///
    /// # Errors
    /// What stands in the way; nothing has changed.
    pub fn reload(&mut self, config: Config, now: Instant) -> Result<(), ReloadError> {
        self.go_over(Arc::new(config), now)
    }

    /// Goes over to what was read, with those who have become children since.
    fn go_over(&mut self, read: Arc<Config>, now: Instant) -> Result<(), ReloadError> {
        let config = match self.registered.is_empty() {
            true => read.clone(),
            false => Arc::new(read.with_children(self.registered.values())),
        };
        settled_at_start(&self.config, &config).map_or(Ok(()), |what| Err(ReloadError::NeedsRestart(what)))?;
        let neighbours = self.neighbours.reconfigured(&config);
        let health = self.health.as_ref().map(|health| health.reconfigured(now, &config));
        let mut conditions = self.conditions.clone();
        conditions.down = health.iter().flat_map(Health::down).collect();
        // Until the sessions have gone over to it, by what children have said about what was there before.
        conditions.steering = self.hierarchy.as_mut().map(|known| known.reconfigured(now, &config)).unwrap_or_default();
        let reachability = Configured { config: &config, neighbours: &neighbours };
        let reachability = Learned { reachability: &reachability, path_mtus: &self.path_mtus };
        let compiled = match self.compiler.compile(&config, &conditions, &reachability, now) {
            Ok(compiled) => compiled,
            Err(error) => {
                if let Some(hierarchy) = &mut self.hierarchy {
                    self.conditions.steering = hierarchy.reconfigured(now, &self.config);
                }
                return Err(error.into());
            }
        };
        (self.config, self.neighbours, self.outdated) = (config, neighbours, Outdated::default());
        self.read = read;
        (self.conditions, self.health) = (conditions, health);
        if let Some(hierarchy) = &mut self.hierarchy {
            hierarchy.reconfigure(&self.config);
        }
        self.reconfigure_recovery();
        self.records.store(Arc::new(self.health.as_ref().map(Health::records).unwrap_or_default()));
        self.publish(compiled, now);
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
        self.changed(child, changed, now);
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
        self.changed(child, before != weight, now);
        Ok(())
    }

    /// What is known about the neighbours.
    pub fn neighbours(&self) -> &Neighbours {
        &self.neighbours
    }

    /// The snapshot that is in force.
    pub fn tables(&self) -> Arc<ForwardTables> {
        self.published.load_full()
    }

    /// When that was published, and how many there have been.
    pub fn publication(&self) -> Publication {
        self.publication
    }

    /// Lets the workers capture frames, or (`None`) end it. The slow path holds a capture until no worker reads it.
    pub fn capture(&mut self, capture: Option<Arc<Capture>>, now: Instant) {
        self.capture = capture;
        let tables = ForwardTables::clone(&self.published.load());
        self.publish(Compiled { tables, renumbered: Vec::new() }, now);
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

    fn changed(&mut self, child: &str, changed: bool, now: Instant) {
        if changed {
            let has = |host: &VirtualHost| host.members.iter().any(|one| self.config.children[one.child].name == child);
            let hosts = self.config.virtual_hosts.iter().enumerate();
            self.outdated.hosts.extend(hosts.filter(|(_, host)| has(host)).map(|(position, _)| position));
            self.catch_up(now, true);
        }
    }

    /// Publishes a new snapshot where there is need for one: at once where it is `urgent`, else not too often.
    fn catch_up(&mut self, now: Instant, urgent: bool) {
        if self.outdated.is_nothing() || !(urgent || now >= self.publish_after) {
            return;
        }
        let reachability = Configured { config: &self.config, neighbours: &self.neighbours };
        let reachability = Learned { reachability: &reachability, path_mtus: &self.path_mtus };
        let Outdated { paths, hosts } = std::mem::take(&mut self.outdated);
        let tables = self.published.load();
        let latest = Latest { config: &self.config, conditions: &self.conditions, tables: &tables };
        let compiled = self.compiler.update(latest, (&hosts, paths), &reachability, now);
        let new_targets = |compiled: &Compiled| !Arc::ptr_eq(&compiled.tables.targets, &tables.targets);
        let hosts = if compiled.as_ref().is_some_and(new_targets) { tables.virtual_hosts.len() } else { 0 };
        let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
        self.publish_after = now + PUBLISHING.0.max(PUBLISHING.1.saturating_mul(hosts));
        if let Some(compiled) = compiled {
            self.publish(compiled, now);
        }
    }

    fn publish(&mut self, Compiled { mut tables, renumbered }: Compiled, now: Instant) {
        for worker in &self.workers {
            renumbered.iter().for_each(|target| worker.counters.forget(*target));
        }
        (tables.capture, tables.stations) = (self.capture.clone(), self.stations.clone());
        self.counters.table_bytes.set(self.compiler.table_bytes() as u64);
        self.publication = Publication { number: self.publication.number + 1, at: now };
        let before = self.published.swap(Arc::new(tables));
        self.revoke_unable(now, &before);
        self.retired.push(before);
        for address in std::mem::take(&mut self.found) {
            for waiter in self.waiting.take(address) {
                self.go_on(&waiter);
            }
        }
    }

    fn go_on(&self, Waiter { worker, punt }: &Waiter) {
        self.workers[*worker].send(Injection::new(punt.port, Handling::Walk(Again::default()), punt.frame()));
    }

    /// Lets the next worker carry a packet whose flow `worker` does not know.
    fn ask_next(&self, worker: usize, punt: &Punt) {
        let handling = Handling::Walk(Again { strangers: punt.what.strangers, ..Again::default() });
        let injection = match punt.what.bare {
            false => Injection::new(punt.port, handling, punt.frame()),
            true => Injection::new(punt.port, handling, &framed(punt.frame())),
        };
        self.workers[(worker + 1) % self.workers.len()].send(injection);
    }
}

/// Where a packet is for that came by a link; `None` of one whose copy was cut, which does not parse.
fn destination(punt: &Punt) -> Option<IpAddr> {
    let frame = punt.frame();
    match parse(frame, frame.len()) {
        Ok(Frame::Ip(parsed)) if !punt.what.bare => Some(parsed.destination(frame)),
        _ => None,
    }
}

/// A packet in a frame, as if it had come by a link.
fn framed(packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet.first().is_some_and(|first| first >> 4 == 4) { ethernet::IPV4 } else { ethernet::IPV6 };
    [&[0; 12][..], &ethertype.to_be_bytes(), packet].concat()
}

/// A packet that waits until more is known.
struct Waiter {
    /// Who is to carry it.
    worker: usize,
    punt: Punt,
}

/// The key of what differs although it is settled at start.
fn settled_at_start(before: &Config, after: &Config) -> Option<&'static str> {
    let whohas = |config: &Config| config.recovery.whohas.as_ref().map(|whohas| whohas.listen);
    let flows = |config: &Config| (config.flows.capacity_v4, config.flows.capacity_v6);
    [
        ("router.name", before.router.name == after.router.name),
        ("dpdk", before.dpdk == after.dpdk),
        ("workers", before.workers == after.workers),
        ("ports", before.ports == after.ports),
        ("flows.capacity_v4 or flows.capacity_v6", flows(before) == flows(after)),
        ("pair", before.pair == after.pair),
        ("metrics", before.metrics == after.metrics),
        ("control", before.control == after.control),
        ("recovery.whohas.listen", whohas(before) == whohas(after)),
        ("parents, control.listen or control.interval", before.sessions.same(&after.sessions)),
    ]
    .into_iter()
    .find_map(|(key, same)| (!same).then_some(key))
}

/// The longest packet that fits on the way to a target, in bytes; `None` where there is none.
fn mtu_towards(tables: &ForwardTables, target: TargetId) -> Option<u16> {
    let target = tables.targets.get(target.index())?;
    Some(tables.paths.get(target.path()?.index())?.template.packet_max())
}

fn perform(worker: &WorkerEnd, outputs: Vec<Output>, changes: &mut Vec<Change>) {
    for output in outputs {
        match output {
            Output::Send { port, frame } => worker.send(Injection::new(port, Handling::Send, &frame)),
            Output::Changed(change) => changes.push(change),
        }
    }
}
