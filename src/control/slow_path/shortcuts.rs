//! How shortcuts reach the workers' flow tables and the snapshot, and how workers' flows reach the shortcuts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::SlowPath;
use super::checks::{in_tunnel, packet_for_us};
use crate::clock::Instant;
use crate::config::Timeouts;
use crate::control::compile::{self, Configured};
use crate::control::conditions::Past;
use crate::control::hierarchy::Order;
use crate::control::shortcuts::proofs::Proofs;
use crate::control::shortcuts::{Doing, ENDS_MAX, Input, Outcome};
use crate::control::wire::{Kept, TunnelEnd};
use crate::flow::key::{KeyV4, KeyV6};
use crate::forward::inspect::Key;
use crate::forward::orders::{self, Answer, Clerk, NewFlow};
use crate::forward::punt::Punt;
use crate::forward::tables::{ForwardTables, VirtualHost};
use crate::packet::protocol::{TCP, UDP};
use crate::service::selection::Granularity;
use crate::units::TargetId;

use ipnet::IpNet;

/// New flows, and answers, that are taken from one worker in a pass at most: a flood of new flows takes a part of the time.
const TAKEN_PER_PASS: (usize, usize) = (32, 1024);

/// Ends that are asked in a pass at most.
const ASKED_PER_PASS: usize = 32;

/// Orders that wait for room at most, beside those that a pass adds.
const WAITING_MAX: usize = 1 << 18;

/// The ends of who gives the workers orders about their flows.
#[derive(Default)]
pub(super) struct Clerks {
    clerks: Vec<Clerk>,
    /// Orders for which there has been no room yet, each with the workers that have them.
    waiting: VecDeque<(orders::Order, usize)>,
    /// What is to be ordered once the snapshot knows of it.
    unresolved: VecDeque<(Key, Doing)>,
    /// Ends that flows go past a child to, by that child and the tunnel.
    paths: BTreeMap<(Arc<str>, TunnelEnd), Vec<String>>,
}

impl Clerks {
    /// Gives one worker an order; false while there is no room.
    pub(super) fn order(&self, worker: usize, order: orders::Order) -> bool {
        self.clerks.get(worker).is_some_and(|clerk| clerk.order(order))
    }
}

impl SlowPath {
    /// The same, giving the workers orders about their flows, and hearing of new ones. `seed` makes identifiers that
    /// nobody can foresee.
    pub fn ordering(mut self, clerks: Vec<Clerk>, seed: u64) -> SlowPath {
        (self.clerks.clerks, self.proofs) = (clerks, Proofs::new(seed));
        self
    }

    /// Takes in what the workers say about flows.
    pub(super) fn hear_workers(&mut self, now: Instant) {
        for worker in 0..self.clerks.clerks.len() {
            for _ in 0..TAKEN_PER_PASS.0 {
                let Some(NewFlow { key, target }) = self.clerks.clerks[worker].new_flow() else { break };
                self.chosen(now, key, target);
            }
            for _ in 0..TAKEN_PER_PASS.1 {
                let Some(answer) = self.clerks.clerks[worker].answer() else { break };
                self.answered(now, answer);
            }
        }
    }

    /// A parent has sent this flow, or asks for it: where it goes is told, unless the child does that.
    fn chosen(&mut self, now: Instant, flow: Key, target: TargetId) {
        let Some(hierarchy) = &mut self.hierarchy else { return };
        let tables = self.published.load();
        let Some(position) = tables.targets.get(target.index()).map(|target| target.host.index()) else { return };
        let (Some(host), Some(child)) = (tables.virtual_hosts.get(position), self.compiler.child(target)) else {
            return;
        };
        if !takes_shortcuts(host) {
            return;
        }
        let child = &self.config.children[child];
        let tells = hierarchy.tells_shortcuts(&child.name);
        let takers = || host.members.iter().zip(tables.selection(host).takes_new.iter()).filter(|(_, takes)| **takes);
        let able = || takers().any(|(member, _)| *member.child == *child.name);
        let end = TunnelEnd::of(child.tunnel, child.address).filter(|_| !tells && able());
        if end.is_none() && !tells {
            return;
        }
        let level = self.config.router.level - 1;
        let kept = kept(&self.config.flows.timeouts, flow);
        hierarchy.shortcut(now, Input::Chosen { flow, child: &child.name, end: end.map(|end| (level, end)), kept });
    }

    fn answered(&mut self, now: Instant, Answer { order, target, state, idle }: Answer) {
        let orders::Order { key: flow, doing } = order;
        match doing {
            orders::Doing::Touch { .. } => self.chosen(now, flow, target),
            orders::Doing::Look => self.shortcut(now, Input::Alive(Kept { flow, state, idle })),
            // Of these there is no answer.
            orders::Doing::Keep { .. } | orders::Doing::Drop => {}
            // Of a flow that returns to its child nobody wants to know.
            orders::Doing::Redirect { is_past: false, .. } => {}
            orders::Doing::Redirect { from, to, .. } => {
                let Some(Past { child, end, .. }) = self.compiler.past_of(to).cloned() else { return };
                let done = target == from || target == to;
                self.shortcut(now, Input::Sent { flow, child: &child, end, done });
            }
        }
    }

    fn shortcut(&mut self, now: Instant, input: Input<'_>) {
        if let Some(hierarchy) = &mut self.hierarchy {
            hierarchy.shortcut(now, input);
        }
    }

    /// Does what the shortcuts want done.
    pub(super) fn perform_orders(&mut self, now: Instant, orders: Vec<Order>) {
        for order in orders {
            match order {
                Order::Flow(flow, Doing::Send { child, end }) => {
                    if self.open(now, flow, &child, end) {
                        self.clerks.unresolved.push_back((flow, Doing::Send { child, end }));
                    } else {
                        self.shortcut(now, Input::Refused(flow, Outcome::NotForUs));
                    }
                }
                Order::Flow(flow, doing) => self.clerks.unresolved.push_back((flow, doing)),
                Order::Close(child, end) => self.close(now, &child, end, false),
                Order::Forget(child, end) => self.close(now, &child, end, true),
            }
        }
    }

    /// Sees to it that flows of a virtual host can go past a child; false where they may not.
    fn open(&mut self, now: Instant, flow: Key, child: &Arc<str>, end: TunnelEnd) -> bool {
        let tables = self.published.load();
        let Some(host) = virtual_host(&tables, flow).filter(|host| takes_shortcuts(host)) else { return false };
        if !host.members.iter().any(|member| *member.child == **child) {
            return false;
        }
        let past = Past { host: host.name.to_string(), child: child.to_string(), end };
        let full = self.conditions.shortcuts.len() >= ENDS_MAX.0;
        match self.conditions.shortcuts.get(&past) {
            Some(true) => return true,
            Some(false) => {}
            None if full => return false,
            None => {
                self.clerks.paths.entry((child.clone(), end)).or_default().push(past.host.clone());
                self.conditions.shortcuts.insert(past.clone(), false);
                self.outdated.paths = true;
            }
        }
        let configured = self.config.virtual_hosts.iter().find(|configured| configured.name == past.host);
        let addresses = configured.into_iter().flat_map(|host| &host.addresses).map(IpNet::addr);
        let both = |address| Some((self.config.source_of_checks(address, Some(end.address))?, address));
        if let Some((own, address)) = addresses.filter_map(both).next() {
            self.proofs.want(now, past, own, address);
        }
        if let Some(way) = self.config.attachment(end.address) {
            self.neighbours.want(now, &self.config, way.next_hop);
        }
        true
    }

    fn close(&mut self, now: Instant, child: &Arc<str>, end: TunnelEnd, forgotten: bool) {
        let place = (child.clone(), end);
        for host in self.clerks.paths.get(&place).into_iter().flatten() {
            let past = Past { host: host.clone(), child: child.to_string(), end };
            self.proofs.forget(now, &past);
            if forgotten {
                self.conditions.shortcuts.remove(&past);
            } else if let Some(in_force) = self.conditions.shortcuts.get_mut(&past) {
                *in_force = false;
            }
            self.outdated.paths = true;
        }
        if forgotten {
            self.clerks.paths.remove(&place);
        }
    }

    /// Asks ends whether they take our tunnels.
    pub(super) fn prove(&mut self, now: Instant) {
        for _ in 0..ASKED_PER_PASS {
            let Some((past, packets)) = self.proofs.ask(now) else { break };
            let here = Configured { config: &self.config, neighbours: &self.neighbours };
            let tunnel = past.end.tunnel();
            let path = tunnel.and_then(|tunnel| compile::path(&self.config, past.end.address, tunnel, &here));
            let (Some(path), Some(worker)) = (path, self.workers.first()) else { continue };
            for packet in packets {
                if let Some(frame) = in_tunnel(&path, 0, &packet) {
                    worker.send(frame);
                }
            }
        }
        if let Some(hierarchy) = &self.hierarchy {
            hierarchy.shortcuts().counters().unproven.set(self.proofs.len() as u64);
        }
    }

    /// Takes in what may be the answer of an end; false when it is none.
    pub(super) fn hear_proof(&mut self, now: Instant, punt: &Punt) -> bool {
        let packet = packet_for_us(punt).filter(|packet| self.proofs.takes(packet));
        let Some(packet) = packet else { return false };
        if let Some(past) = self.proofs.receive(now, packet)
            && let Some(in_force) = self.conditions.shortcuts.get_mut(&past)
        {
            *in_force = true;
            self.outdated.paths = true;
        }
        true
    }

    /// Gives the workers what they are to do with flows, as soon as the snapshot has what that needs.
    pub(super) fn give_orders(&mut self) {
        if self.outdated.is_nothing() && !self.clerks.unresolved.is_empty() {
            let tables = self.published.load();
            for (flow, doing) in std::mem::take(&mut self.clerks.unresolved) {
                let doing = match doing {
                    Doing::Look => Some(orders::Doing::Look),
                    Doing::Touch { state, idle } => Some(orders::Doing::Touch { state, idle }),
                    Doing::Send { child, end } => self
                        .ways(&tables, flow, &child, end)
                        .map(|(from, to)| orders::Doing::Redirect { from, to, is_past: true }),
                    Doing::Return { child, end } => self
                        .ways(&tables, flow, &child, end)
                        .map(|(to, from)| orders::Doing::Redirect { from, to, is_past: false }),
                };
                if let Some(doing) = doing
                    && self.clerks.waiting.len() < WAITING_MAX
                {
                    self.clerks.waiting.push_back((orders::Order { key: flow, doing }, 0));
                }
            }
        }
        let Clerks { clerks, waiting, .. } = &mut self.clerks;
        while let Some((order, given)) = waiting.front_mut() {
            while *given < clerks.len() && clerks[*given].order(*order) {
                *given += 1;
            }
            if *given < clerks.len() {
                break;
            }
            waiting.pop_front();
        }
    }

    /// Where a flow goes by a child, and where past it.
    fn ways(&self, tables: &ForwardTables, flow: Key, child: &str, end: TunnelEnd) -> Option<(TargetId, TargetId)> {
        let host = virtual_host(tables, flow)?;
        let member = host.members.iter().find(|member| *member.child == *child)?;
        let past = Past { host: host.name.to_string(), child: child.to_owned(), end };
        Some((member.target, self.compiler.past(&past)?))
    }

    /// Tells the parents of children that take no new flows any more.
    pub(super) fn revoke_unable(&mut self, now: Instant, before: &ForwardTables) {
        let after = self.published.load_full();
        let Some(hierarchy) = self.hierarchy.as_mut().filter(|_| after.tells_new_flows) else { return };
        let both = after.virtual_hosts.iter().zip(before.virtual_hosts.iter());
        for (host, former) in both.filter(|(host, former)| host.name == former.name) {
            let (selection, last) = (after.selection(host), before.selection(former));
            if std::ptr::eq(selection, last) {
                continue;
            }
            for (member, _) in host.members.iter().zip(selection.takes_new.iter()).filter(|(_, takes)| !**takes) {
                let mut others = former.members.iter().zip(last.takes_new.iter());
                let took = others.any(|(other, took)| other.child == member.child && *took);
                let child = self.config.children.iter().find(|child| *child.name == *member.child);
                if let (true, Some(child)) = (took, child)
                    && let Some(end) = TunnelEnd::of(child.tunnel, child.address)
                {
                    hierarchy.shortcut(now, Input::Unable(end));
                }
            }
        }
    }
}

/// Whether flows of a virtual host may go past its children: each must be one 5-tuple, and no packet may name its server.
fn takes_shortcuts(host: &VirtualHost) -> bool {
    host.granularity == Granularity::FiveTuple && host.quic.is_none()
}

fn virtual_host(tables: &ForwardTables, flow: Key) -> Option<&VirtualHost> {
    let (destination, ports, protocol) = match flow {
        Key::V4(KeyV4 { destination, ports, protocol, .. }) => (destination.into(), ports, protocol),
        Key::V6(KeyV6 { destination, ports, protocol, .. }) => (destination.into(), ports, protocol),
    };
    let position = tables.index.find(destination, protocol, u16::from_be_bytes([ports[2], ports[3]]))?;
    tables.virtual_hosts.get(position.index())
}

/// How long a flow is kept without packets that has just begun, or goes on.
fn kept(timeouts: &Timeouts, flow: Key) -> Duration {
    let (Key::V4(KeyV4 { protocol, .. }) | Key::V6(KeyV6 { protocol, .. })) = flow;
    match protocol {
        TCP => timeouts.tcp_syn.min(timeouts.tcp_established),
        UDP => timeouts.udp,
        _ => timeouts.other,
    }
}
