//! How what is found out about unknown flows reaches the workers, and what routers ask each other the daemon.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{SlowPath, Waiter, framed};
use crate::clock::rate_limit::RateLimit;
use crate::clock::{Instant, WallClock};
use crate::config::{Config, OnUnknown};
use crate::control::compile::Configured;
use crate::control::{frames, icmp};
use crate::flow::key::FlowKey;
use crate::flow::state::FlowState;
use crate::forward::inspect::{Finder, Flow, Key};
use crate::forward::punt::{Again, Handling, Injection, Install, Punt, Stray};
use crate::forward::tables::{ForwardTables, VirtualHost};
use crate::packet::ethernet;
use crate::recovery::FlowId;
use crate::recovery::ask::{Asking, Input, Now, Output, Settings};
use crate::recovery::echo::Verifier;
use crate::recovery::events::{Counters, Event, Last};
use crate::recovery::reset::reset;
use crate::recovery::whohas::Owner;
use crate::service::selection::Granularity;
use crate::units::{PortIndex, TargetId, VirtualHostId};

/// Resets a second, and how many of them in one go.
const RESETS_PER_SECOND: u32 = 1000;
const RESETS_AT_ONCE: u32 = 100;

/// A worker that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no worker {worker}; there are {count}, from 0")]
pub struct NoSuchWorker {
    worker: usize,
    count: usize,
}

/// What the slow path needs to find flows again.
pub(super) struct Recovering {
    asking: Asking<Waiter>,
    finders: Vec<Finder>,
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// The key of recovery echoes, and who believes them.
    echoes: Option<([u8; 16], Verifier)>,
    resets: RateLimit,
    /// What the calendar said when.
    calendar: (Instant, WallClock),
}

impl Recovering {
    pub fn new(config: &Config, workers: usize) -> Recovering {
        Recovering {
            asking: Asking::new(settings(config, workers), 0),
            finders: Vec::new(),
            datagrams: Vec::new(),
            echoes: config.recovery.echo.map(|key| (key, Verifier::new(&key))),
            resets: RateLimit::new(RESETS_PER_SECOND, RESETS_AT_ONCE),
            calendar: (Instant::ZERO, WallClock(0)),
        }
    }

    pub fn counters(&self) -> &Arc<Counters> {
        self.asking.counters()
    }

    pub fn set_wall(&mut self, now: Instant, wall: WallClock) {
        self.calendar = (now, wall);
    }

    fn now(&self, now: Instant) -> Now {
        let (then, wall) = self.calendar;
        Now { instant: now, wall: WallClock(wall.0 + (now - then).as_millis() as u64) }
    }
}

fn settings(config: &Config, workers: usize) -> Settings {
    Settings { workers: workers as u16, ..Settings::of(config) }
}

impl SlowPath {
    /// The same, looking for unknown flows by `finders`, one for each worker, and numbering its questions from `seed` on.
    pub fn recovering(mut self, finders: Vec<Finder>, seed: u64) -> SlowPath {
        self.recovering.asking = Asking::new(settings(&self.config, self.workers.len()), seed);
        self.recovering.finders = finders;
        self
    }

    /// What of finding flows again has been counted.
    pub fn recovery_counters(&self) -> Arc<Counters> {
        self.recovering.counters().clone()
    }

    /// What of it has happened last.
    pub fn recovery_events(&self) -> &Last {
        self.recovering.asking.last()
    }

    /// Takes in a datagram of another router.
    pub fn hear(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let input = Input::Datagram { from, bytes };
        self.ask(now, input);
    }

    /// The datagrams for other routers that have come up since this was asked last.
    pub fn take_datagrams(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.recovering.datagrams)
    }

    /// Lets a worker forget all its flows, as if it had been started anew: to try out what happens then.
    ///
    /// # Errors
    /// There is no such worker.
    pub fn forget(&mut self, worker: usize) -> Result<(), NoSuchWorker> {
        let end = self.workers.get(worker).ok_or(NoSuchWorker { worker, count: self.workers.len() })?;
        end.send(Injection::new(PortIndex(0), Handling::Forget, &[]));
        Ok(())
    }

    /// Goes over to the settings of the configuration.
    pub(super) fn reconfigure_recovery(&mut self) {
        self.recovering.asking.reconfigure(settings(&self.config, self.workers.len()));
        let key = self.config.recovery.echo;
        // With the same key it goes on remembering what it has seen.
        if self.recovering.echoes.as_ref().map(|(key, _)| *key) != key {
            self.recovering.echoes = key.map(|key| (key, Verifier::new(&key)));
        }
    }

    /// Learns the flow of a recovery echo that has come back to `worker`.
    pub(super) fn recovery_echo(&mut self, now: Instant, worker: usize, punt: &Punt) {
        let (bytes, wall) = (punt.frame(), self.recovering.now(now).wall);
        let Some(parsed) = icmp::read(bytes, punt.what.bare) else { return };
        let end = (usize::from(parsed.l3_offset) + parsed.l3_len as usize).min(bytes.len());
        let message = bytes.get(usize::from(parsed.l4_offset)..end).unwrap_or_default();
        let Some((_, verifier)) = &mut self.recovering.echoes else { return };
        let echo = match verifier.verify(wall, parsed.source(bytes), parsed.destination(bytes), message) {
            Ok(echo) => echo,
            Err(why) => return self.count(why),
        };
        let tables = self.published.load_full();
        let target = place(&tables, &echo.flow).and_then(|place| {
            let member = place.host.members.iter().find(|member| echo.ends_at(member.address))?;
            Some((place.key, member.target))
        });
        let Some((key, target)) = target else { return self.count(Event::EchoUnknownServer) };
        let install = Install { key, target, state: FlowState::TcpEstablished, replaces: false };
        // The flow's own packets may come to another worker, which asks this one.
        let asks = self.config.recovery.asks_workers;
        let learns = |at: &usize| *at == worker || !asks;
        (0..self.workers.len()).filter(learns).for_each(|worker| self.install(worker, install));
        self.count(Event::EchoInstalled);
        self.recovering.asking.last_mut().add(now, Event::EchoInstalled, echo.flow);
    }

    /// Looks for the flow of a packet that `worker` does not know.
    pub(super) fn stray(&mut self, now: Instant, worker: usize, punt: &Punt) {
        let Some(parsed) = icmp::read(punt.frame(), punt.what.bare) else { return };
        let flow = FlowId::of(punt.frame(), &parsed);
        let whole = usize::from(parsed.l3_offset) + parsed.l3_len as usize <= punt.frame().len();
        let packet = whole.then(|| Waiter { worker, punt: punt.clone() });
        self.ask(now, Input::Stray { flow, worker, packet });
    }

    /// Takes in what workers have found, and does what is due.
    pub(super) fn recover(&mut self, now: Instant) {
        for worker in 0..self.recovering.finders.len() {
            while let Some((number, found)) = self.recovering.finders[worker].answer() {
                let owner = found.and_then(|flow| self.owner(&flow));
                self.ask(now, Input::Found { number, owner });
            }
        }
        if self.recovering.asking.next_deadline().is_some_and(|due| due <= now) {
            self.ask(now, Input::Tick);
        }
    }

    fn ask(&mut self, now: Instant, input: Input<'_, Waiter>) {
        let outputs = self.recovering.asking.handle(self.recovering.now(now), input);
        if outputs.is_empty() {
            return;
        }
        let tables = self.published.load_full();
        for output in outputs {
            match output {
                Output::AskWorkers { number, flow, but } => self.ask_workers(now, &tables, (number, flow), but),
                Output::Send { to, datagram } => self.recovering.datagrams.push((to, datagram)),
                Output::Settled { flow, owner, workers, packets } => {
                    let found = place(&tables, &flow).and_then(|place| Some((place.key, self.target(&place, &owner)?)));
                    // Flows that are to leave a child are not brought back to it.
                    match found.filter(|(_, target)| !tables.targets[target.index()].moves) {
                        Some((key, target)) => {
                            let install = Install { key, target, state: owner.state, replaces: false };
                            workers.iter().for_each(|worker| self.install(*worker, install));
                            packets.iter().for_each(|waiter| self.walk(waiter, Stray::Goes(target)));
                        }
                        None => {
                            self.count(Event::UnknownTunnel);
                            self.nobody(now, &tables, flow, (&workers, &packets));
                        }
                    }
                }
                Output::Nobody { flow, workers, packets } => self.nobody(now, &tables, flow, (&workers, &packets)),
                Output::Pass { flow, packet } => {
                    let selects = policy(&tables, &flow) == Some(OnUnknown::Select);
                    self.count(if selects { Event::Passed } else { Event::Dropped });
                    if selects {
                        self.walk(&packet, Stray::Pass);
                    }
                }
            }
        }
    }

    fn count(&self, event: Event) {
        self.recovering.counters().of(event).add(1);
    }

    fn install(&self, worker: usize, install: Install) {
        self.workers[worker].send(Injection::new(PortIndex(0), Handling::Install(install), &[]));
    }

    /// Lets the worker carry a packet again.
    fn walk(&self, Waiter { worker, punt }: &Waiter, stray: Stray) {
        let handling = Handling::Walk(Again { stray, ..Again::default() });
        self.workers[*worker].send(match punt.what.bare {
            false => Injection::new(punt.port, handling, punt.frame()),
            true => Injection::new(punt.port, handling, &framed(punt.frame())),
        });
    }

    fn ask_workers(&mut self, now: Instant, tables: &ForwardTables, (number, flow): (u64, FlowId), but: Option<usize>) {
        let key = place(tables, &flow).map(|place| place.key);
        for worker in (0..self.workers.len()).filter(|worker| Some(*worker) != but) {
            let finder = self.recovering.finders.get(worker);
            if !key.zip(finder).is_some_and(|(key, finder)| finder.ask(number, key)) {
                self.ask(now, Input::Found { number, owner: None });
            }
        }
    }

    /// Where a flow of a worker's table goes; `None` where its child is no member any more.
    pub(super) fn owner(&self, flow: &Flow) -> Option<Owner> {
        let child = &self.config.children[self.compiler.child(flow.target)?];
        Some(Owner { address: child.address, tunnel: child.tunnel, state: flow.state, idle: flow.idle })
    }

    /// What a flow's packets are on the way to when they go to `owner`: a child of its virtual host.
    pub(super) fn target(&self, place: &Place<'_>, owner: &Owner) -> Option<TargetId> {
        let is_it = |target: TargetId| {
            let child = self.compiler.child(target).map(|child| &self.config.children[child]);
            child.is_some_and(|child| (child.address, child.tunnel) == (owner.address, owner.tunnel))
        };
        place.host.members.iter().map(|member| member.target).find(|target| is_it(*target))
    }

    /// Does with a flow that nobody knows what its virtual host wants.
    fn nobody(
        &mut self,
        now: Instant,
        tables: &ForwardTables,
        flow: FlowId,
        (workers, packets): (&[usize], &[Waiter]),
    ) {
        let Some(place) = place(tables, &flow) else { return };
        match place.host.on_unknown {
            Some(OnUnknown::Drop) => self.recovering.counters().of(Event::Dropped).add(packets.len() as u64),
            Some(OnUnknown::Reset) => {
                self.recovering.counters().of(Event::Dropped).add(packets.len() as u64);
                if let Some(waiter) = packets.first() {
                    let sent = self.reset(now, waiter);
                    self.count(if sent { Event::Reset } else { Event::ResetSuppressed });
                }
            }
            Some(OnUnknown::Select) | None => {
                self.count(Event::Selected);
                packets.iter().for_each(|waiter| self.walk(waiter, Stray::Keep));
                // Those that were not held have gone this way already.
                let selector = tables.selector(place.host, || place.key.source());
                let member = selector.select_again(place.cluster_hash).filter(|_| packets.is_empty());
                if let Some(member) = member {
                    let target = place.host.members[member].target;
                    let (key, state) = (place.key, FlowState::TcpEstablished);
                    let install = Install { key, target, state, replaces: false };
                    workers.iter().for_each(|worker| self.install(*worker, install));
                }
            }
        }
    }

    /// Tells the client of a packet that its connection is over. False when that cannot be.
    fn reset(&mut self, now: Instant, Waiter { worker, punt }: &Waiter) -> bool {
        let here = Configured { config: &self.config, neighbours: &self.neighbours };
        let bare = punt.what.bare;
        let Some(parsed) = icmp::read(punt.frame(), bare) else { return false };
        let client = parsed.source(punt.frame());
        let back = icmp::way_back(&here, punt.port, bare, punt.frame(), client);
        let (Some(packet), Some((port, link))) = (reset(punt.frame(), &parsed), back) else { return false };
        if !self.recovering.resets.take(now) {
            return false;
        }
        let ethertype = if client.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
        let frame = frames::frame(link, ethertype, &[&packet]);
        self.workers[*worker].send(Injection::new(port, Handling::Send, &frame));
        true
    }
}

/// How a flow stands in the snapshot.
pub(super) struct Place<'a> {
    host: &'a VirtualHost,
    /// Its key in a worker's table.
    pub(super) key: Key,
    /// The hash by which all routers choose its child.
    cluster_hash: u64,
}

pub(super) fn place<'a>(tables: &'a ForwardTables, flow: &FlowId) -> Option<Place<'a>> {
    let id = tables.index.find(flow.destination.ip(), flow.protocol, flow.destination.port())?;
    let host = &tables.virtual_hosts[id.index()];
    let (key, cluster_hash) = match flow.key()? {
        Key::V4(key) => in_table(tables, host, key),
        Key::V6(key) => in_table(tables, host, key),
    };
    Some(Place { host, key, cluster_hash })
}

fn in_table<K: FlowKey + Into<Key>>(tables: &ForwardTables, host: &VirtualHost, key: K) -> (Key, u64) {
    let (key, chosen_by) = match host.granularity {
        Granularity::FiveTuple => (key, key),
        Granularity::Source { v4, v6 } => {
            let prefix = if key.destination().is_ipv4() { v4 } else { v6 };
            (key.coarse(host.number, prefix), key.coarse(VirtualHostId(0), prefix))
        }
    };
    (key.into(), tables.cluster.hash(chosen_by.as_bytes()))
}

fn policy(tables: &ForwardTables, flow: &FlowId) -> Option<OnUnknown> {
    place(tables, flow)?.host.on_unknown
}
