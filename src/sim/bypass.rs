//! Flows that go past routers: what workers and snapshots do for shortcuts in a router, done by numbers.
//!
//! What must hold of them at every step, whatever the network does to the sessions: a packet goes down only, a flow's packets
//! come to one server, and no flow goes past a child to what is not below it.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::calendar::Calendar;
use super::network::NodeId;
use super::world::{Node, Router, World, address};
use crate::clock::Instant;
use crate::control::hierarchy::Order;
use crate::control::shortcuts::{Doing, Input};
use crate::control::wire::{Kept, TunnelEnd};
use crate::flow::key::KeyV4;
use crate::flow::state::FlowState;
use crate::forward::inspect::Key;

/// How long a router keeps a flow without packets.
const KEPT: Duration = Duration::from_secs(60);

/// From one packet of a flow to the next.
const PACKETS: Duration = Duration::from_millis(500);

/// From one look for entries that are not kept any more to the next.
const TIDYING: Duration = Duration::from_secs(1);

/// Where a router sends a flow.
struct Entry {
    /// The child, by its position.
    child: usize,
    past: Option<TunnelEnd>,
    seen: Instant,
}

/// The flow table of one router.
#[derive(Default)]
pub(super) struct Entries(BTreeMap<Key, Entry>);

/// A flow under way.
struct Flow {
    number: u64,
    server: NodeId,
    until: Instant,
}

/// The flows whose packets are followed.
#[derive(Default)]
pub(super) struct Followed {
    flows: BTreeMap<Key, Flow>,
    /// When each sends its next packet.
    packets_due: Calendar<Key>,
    /// When what routers do not keep any more is looked for again.
    tidy_at: Instant,
    /// Who is above whom.
    parents: HashMap<NodeId, NodeId>,
    packets: u64,
    past: u64,
}

/// The key of the flow with this number.
pub(super) fn key(number: u64) -> Key {
    let source = (number as u32).to_be_bytes();
    Key::V4(KeyV4 { source, destination: [192, 0, 2, 80], ports: [4, 1, 0, 80], protocol: 6 })
}

fn end(node: NodeId) -> TunnelEnd {
    TunnelEnd { kind: 1, port: 0, address: address(node.0).ip() }
}

/// The node whose tunnels end there.
fn node(end: TunnelEnd) -> NodeId {
    let std::net::IpAddr::V4(address) = end.address else { return NodeId(usize::MAX) };
    NodeId(usize::try_from(u32::from(address) - u32::from(Ipv4Addr::new(10, 0, 0, 0))).unwrap_or(usize::MAX))
}

impl Router {
    /// Takes note of where a flow goes; what came from above is told there.
    pub(super) fn send(&mut self, now: Instant, flow: Key, child: usize) {
        self.entries.0.insert(flow, Entry { child, past: None, seen: now });
        self.chosen(now, flow, child);
    }

    fn chosen(&mut self, now: Instant, flow: Key, child: usize) {
        if self.config.sessions.parents.is_empty() {
            return;
        }
        let name = self.config.children[child].name.clone();
        let (tells, able) = (self.hierarchy.tells_shortcuts(&name), self.able.get(child).is_none_or(|able| *able));
        let end = (!tells && able).then(|| (self.config.router.level - 1, end(self.children[child])));
        if tells || end.is_some() {
            self.hierarchy.shortcut(now, Input::Chosen { flow, child: &name, end, kept: KEPT });
        }
    }

    /// Does what the shortcuts want done with flows.
    pub(super) fn perform(&mut self, now: Instant, orders: Vec<Order>) {
        for order in orders {
            match order {
                Order::Flow(flow, doing) => self.order(now, flow, doing),
                Order::Close(child, end) => {
                    let position = self.config.children.iter().position(|known| *known.name == *child);
                    let gone = |entry: &&mut Entry| entry.past == Some(end) && Some(entry.child) == position;
                    self.entries.0.values_mut().filter(gone).for_each(|entry| entry.past = None);
                }
                Order::Forget(..) => {}
            }
        }
    }

    fn order(&mut self, now: Instant, flow: Key, doing: Doing) {
        let Some(entry) = self.entries.0.get_mut(&flow).filter(|entry| now - entry.seen <= KEPT) else { return };
        let is = |child: &str| self.config.children[entry.child].name == child;
        match doing {
            Doing::Send { child, end } => {
                let done = is(&child);
                if done {
                    entry.past = Some(end);
                }
                self.hierarchy.shortcut(now, Input::Sent { flow, child: &child, end, done });
            }
            Doing::Return { child, end } if is(&child) && entry.past == Some(end) => entry.past = None,
            Doing::Return { .. } => {}
            Doing::Look => {
                let kept = Kept { flow, state: FlowState::TcpEstablished, idle: now - entry.seen };
                self.hierarchy.shortcut(now, Input::Alive(kept));
            }
            Doing::Touch { idle, .. } => {
                entry.seen = entry.seen.max(Instant::ZERO + (now - Instant::ZERO).saturating_sub(idle));
                let child = entry.child;
                self.chosen(now, flow, child);
            }
        }
    }

    /// Takes note of which children take new flows; parents hear of those that do not any more.
    pub(super) fn know_able(&mut self, now: Instant, able: Arc<[bool]>) {
        for (child, able) in able.iter().enumerate() {
            if !able && self.able.get(child).is_none_or(|before| *before) && !self.config.sessions.parents.is_empty() {
                self.hierarchy.shortcut(now, Input::Unable(end(self.children[child])));
            }
        }
        self.able = able;
    }
}

impl World {
    /// Follows the packets of a flow from now on.
    pub(super) fn follow(&mut self, now: Instant, number: u64, server: NodeId, until: Instant) {
        self.followed.flows.insert(key(number), Flow { number, server, until });
        self.followed.packets_due.put(now + PACKETS, key(number));
    }

    /// Lets flows send what they send by now.
    pub(super) fn carry_flows(&mut self, now: Instant) {
        if self.followed.parents.is_empty() {
            for node in &self.nodes {
                let Node::Router(router) = node else { continue };
                self.followed.parents.extend(router.children.iter().map(|child| (*child, router.node)));
            }
        }
        while let Some(due) = self.followed.packets_due.take(now) {
            for flow in due {
                match self.carry(now, flow) {
                    true => self.followed.packets_due.put(now + PACKETS, flow),
                    false => drop(self.followed.flows.remove(&flow)),
                }
            }
        }
        if now < self.followed.tidy_at {
            return;
        }
        self.followed.tidy_at = now + TIDYING;
        for node in &mut self.nodes {
            if let Node::Router(router) = node {
                router.entries.0.retain(|_, entry| now - entry.seen <= KEPT);
            }
        }
    }

    /// Carries a packet of a flow; false when the flow is over, or is lost on a node that is dead.
    fn carry(&mut self, now: Instant, key: Key) -> bool {
        let Some(flow) = self.followed.flows.get(&key) else { return false };
        let (number, server, until) = (flow.number, flow.server, flow.until);
        let (mut at, mut level) = (NodeId(0), u8::MAX);
        if until <= now {
            return false;
        }
        self.followed.packets += 1;
        while !self.network.dead.contains(&at) {
            let router = match &mut self.nodes[at.0] {
                Node::Router(router) => router,
                Node::Server(_) => {
                    assert_eq!(at, server, "the packets of {key:?} come to two servers");
                    return true;
                }
            };
            let own = router.config.router.level;
            assert!(own < level, "a packet goes up or sideways at {}", router.config.router.name);
            level = own;
            if router.entries.0.get(&key).is_none_or(|entry| now - entry.seen > KEPT) {
                let hash = self.hashes[usize::from(own)].hash(&number.to_be_bytes());
                let Some(child) = router.selector.select(hash) else { return false };
                router.send(now, key, child);
            }
            let entry = router.entries.0.get_mut(&key).expect("it has just been made");
            entry.seen = now;
            self.followed.past += u64::from(entry.past.is_some());
            at = entry.past.map_or(router.children[entry.child], node);
        }
        false
    }

    /// Checks what must hold of flows that go past routers.
    pub(super) fn check_flows(&self) {
        for node in &self.nodes {
            let Node::Router(router) = node else { continue };
            for (flow, entry) in &router.entries.0 {
                let Some(past) = entry.past else { continue };
                let mut at = self::node(past);
                while at != router.children[entry.child] {
                    let above = self.followed.parents.get(&at);
                    let name = &router.config.router.name;
                    at = *above.unwrap_or_else(|| panic!("{name} sends {flow:?} past its child to another's server"));
                }
            }
        }
    }

    /// A site's router tells its parents that some flow, which is another's, goes to its first server.
    pub fn lie(&mut self, router: NodeId, flow: u64) {
        let (now, followed) = (self.network.now, &self.followed);
        let others = followed.flows.iter().filter(|(_, flow)| followed.parents.get(&flow.server) != Some(&router));
        let others: Vec<Key> = others.map(|(key, _)| *key).collect();
        if let Some(key) = others.get(flow as usize % others.len().max(1)).copied()
            && let Node::Router(router) = &mut self.nodes[router.0]
        {
            let (name, end) = (router.config.children[0].name.clone(), (0, end(router.children[0])));
            router.hierarchy.shortcut(now, Input::Chosen { flow: key, child: &name, end: Some(end), kept: KEPT });
        }
    }

    /// Packets of the flows that have been followed, and how often one went past a router since this was asked last.
    pub fn take_packets(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.followed.packets), std::mem::take(&mut self.followed.past))
    }

    /// Flows that go past children to a node, at all routers.
    pub fn flows_past_to(&self, node: NodeId) -> usize {
        let routers = self.nodes.iter().filter_map(|node| match node {
            Node::Router(router) => Some(router),
            Node::Server(_) => None,
        });
        routers.flat_map(|router| router.entries.0.values()).filter(|entry| entry.past == Some(end(node))).count()
    }
}
