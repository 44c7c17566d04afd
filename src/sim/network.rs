//! What becomes of messages between nodes: sessions over links that delay, lose, double and cut.
//!
//! It is worse than what TLS over TCP makes of such links: single messages are lost, doubled and overtaken.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

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

/// What is on its way: when it comes, a number that keeps the order of equals, and to whom.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Way(Instant, u64, NodeId);

/// The network.
pub struct Network {
    /// The time.
    pub now: Instant,
    /// What links do at the moment.
    pub faults: Faults,
    /// Pairs of nodes between which nothing passes; the lower one first.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    /// Nodes that do nothing.
    pub dead: BTreeSet<NodeId>,
    /// Bytes that were sent.
    pub bytes: u64,
    identities: Vec<Identity>,
    listening: HashMap<SocketAddr, NodeId>,
    ends: Vec<(NodeId, NodeId)>,
    ways: BinaryHeap<Reverse<Way>>,
    cargo: HashMap<u64, Happening>,
    count: u64,
    arrived: Vec<VecDeque<Happening>>,
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
            ways: BinaryHeap::new(),
            cargo: HashMap::new(),
            count: 0,
            arrived: Vec::new(),
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
        while let Some(&Reverse(Way(at, number, node))) = self.ways.peek()
            && at <= now
        {
            self.ways.pop();
            let Some(happening) = self.cargo.remove(&number) else { continue };
            if !self.dead.contains(&node) {
                self.arrived[node.0].push_back(happening);
            }
        }
    }

    /// Whether anything has arrived at a node.
    pub fn has_arrived(&self, node: NodeId) -> bool {
        !self.arrived[node.0].is_empty()
    }

    /// The end of the network at a node.
    pub fn at(&mut self, node: NodeId) -> End<'_> {
        End { network: self, node }
    }

    fn is_cut(&self, a: NodeId, b: NodeId) -> bool {
        self.cut.contains(&(a.min(b), a.max(b))) || self.dead.contains(&a) || self.dead.contains(&b)
    }

    fn delay(&mut self) -> Duration {
        let (least, most) = self.faults.delay;
        least + (most - least).mul_f64(self.random.fraction())
    }

    fn send(&mut self, to: NodeId, after: Duration, happening: Happening) {
        self.count += 1;
        self.ways.push(Reverse(Way(self.now + after, self.count, to)));
        self.cargo.insert(self.count, happening);
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
