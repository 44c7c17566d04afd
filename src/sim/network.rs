//! What becomes of messages between nodes: sessions over links that delay, lose, double and cut.
//!
//! It is worse than what TLS over TCP makes of such links: single messages are lost, doubled and overtaken.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::calendar::Calendar;
use crate::clock::Instant;
use crate::control::random::Random;
use crate::control::session::{Carrier, Happening, Identity, SessionId};

/// A node, by its position in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// What links do to messages.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Shortest and longest delay of a message; between them, so that messages overtake each other.
    pub delay: (Duration, Duration),
    /// Part of the messages that is lost, from 0 to 1.
    pub loss: f64,
    /// Part of the messages that comes twice, from 0 to 1.
    pub duplicates: f64,
}

impl Faults {
    /// Links that only take a millisecond.
    pub const NONE: Faults =
        Faults { delay: (Duration::from_millis(1), Duration::from_millis(1)), loss: 0.0, duplicates: 0.0 };
}

/// What is on its way: when it comes, and to whom. What was sent first comes before its equals.
type Way = (Instant, NodeId, Happening);

/// The network.
pub struct Network {
    /// The time.
    pub now: Instant,
    /// What links do at the moment.
    pub faults: Faults,
    /// Nodes that nothing reaches, and from which nothing comes.
    pub cut: BTreeSet<NodeId>,
    /// Nodes that do nothing.
    pub dead: BTreeSet<NodeId>,
    /// Bytes that were sent.
    pub bytes: u64,
    identities: Vec<Identity>,
    listening: HashMap<SocketAddr, NodeId>,
    ends: Vec<(NodeId, NodeId)>,
    ways: Calendar<Way>,
    arrived: Vec<VecDeque<Happening>>,
    /// Nodes where something has arrived since this was asked.
    reached: Vec<NodeId>,
    random: Random,
}

impl Network {
    /// A network without nodes.
    pub fn new(seed: u64) -> Network {
        Network {
            now: Instant::ZERO,
            faults: Faults::NONE,
            cut: BTreeSet::new(),
            dead: BTreeSet::new(),
            bytes: 0,
            identities: Vec::new(),
            listening: HashMap::new(),
            ends: Vec::new(),
            ways: Calendar::default(),
            arrived: Vec::new(),
            reached: Vec::new(),
            random: Random::new(seed),
        }
    }

    /// Adds a node with the certificate that says this, which takes sessions at `listen`.
    pub fn add(&mut self, identity: Identity, listen: Option<SocketAddr>) -> NodeId {
        let node = NodeId(self.identities.len());
        self.identities.push(identity);
        self.arrived.push(VecDeque::new());
        if let Some(listen) = listen {
            self.listening.insert(listen, node);
        }
        node
    }

    /// What the certificate of a node says.
    pub fn identity(&self, node: NodeId) -> &Identity {
        &self.identities[node.0]
    }

    /// Time goes on to `now`: what is due by then arrives.
    pub fn advance(&mut self, now: Instant) {
        self.now = now;
        while let Some(mut ways) = self.ways.take(now) {
            ways.sort_by_key(|(at, _, _)| *at);
            for (_, node, happening) in ways {
                if self.dead.contains(&node) {
                    continue;
                }
                let arrived = &mut self.arrived[node.0];
                if arrived.is_empty() {
                    self.reached.push(node);
                }
                arrived.push_back(happening);
            }
        }
    }

    /// The nodes where something has arrived since this was asked last.
    pub fn take_reached(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.reached)
    }

    /// How many messages have arrived at a node that it has not looked at.
    pub fn arrived(&self, node: NodeId) -> usize {
        self.arrived[node.0].len()
    }

    /// The end of the network at a node.
    pub fn at(&mut self, node: NodeId) -> End<'_> {
        End { network: self, node }
    }

    fn is_cut(&self, a: NodeId, b: NodeId) -> bool {
        [a, b].iter().any(|node| self.cut.contains(node) || self.dead.contains(node))
    }

    fn delay(&mut self) -> Duration {
        let (least, most) = self.faults.delay;
        least + (most - least).mul_f64(self.random.fraction())
    }

    fn send(&mut self, to: NodeId, after: Duration, happening: Happening) {
        let at = self.now + after;
        self.ways.put(at, (at, to, happening));
    }
}

/// The end of the network at one node.
pub struct End<'a> {
    network: &'a mut Network,
    node: NodeId,
}

impl End<'_> {
    fn other(&self, session: SessionId) -> Option<NodeId> {
        let (a, b) = *self.network.ends.get(session.0 as usize)?;
        Some(if a == self.node { b } else { a })
    }
}

impl Carrier for End<'_> {
    type Address = SocketAddr;

    fn connect(&mut self, to: &SocketAddr) -> SessionId {
        let network = &mut *self.network;
        let id = SessionId(network.ends.len() as u64);
        let other = network.listening.get(to).copied();
        network.ends.push((self.node, other.unwrap_or(self.node)));
        let delay = network.delay();
        match other.filter(|other| !network.is_cut(self.node, *other)) {
            Some(other) => {
                let (own, its) = (network.identity(self.node).clone(), network.identity(other).clone());
                network.send(other, delay, Happening::Opened(id, own));
                network.send(self.node, 2 * delay, Happening::Opened(id, its));
            }
            None => network.send(self.node, delay, Happening::Closed(id, "it is not reached".into())),
        }
        id
    }

    fn send(&mut self, session: SessionId, bytes: Vec<u8>) {
        let Some(other) = self.other(session) else { return };
        let network = &mut *self.network;
        network.bytes += bytes.len() as u64;
        let copies = if network.random.fraction() < network.faults.duplicates { 2 } else { 1 };
        for _ in 0..copies {
            if network.is_cut(self.node, other) || network.random.fraction() < network.faults.loss {
                continue;
            }
            let delay = network.delay();
            network.send(other, delay, Happening::Received(session, bytes.clone()));
        }
    }

    fn close(&mut self, session: SessionId) {
        let Some(other) = self.other(session) else { return };
        let network = &mut *self.network;
        if !network.is_cut(self.node, other) {
            let delay = network.faults.delay.1;
            network.send(other, delay, Happening::Closed(session, "by the other end".into()));
        }
    }

    fn poll(&mut self) -> Option<Happening> {
        self.network.arrived[self.node.0].pop_front()
    }
}
