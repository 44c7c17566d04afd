//! All nodes of a topology, their flows, and what must hold of them at every step.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::bypass::{self, Entries, Followed};
use super::calendar::Calendar;
use super::network::{Faults, Network, NodeId};
use super::topology::{Selection, Topology};
use crate::clock::{Instant, WallClock};
use crate::config::{Config, Parent, Register, Sessions};
use crate::control::compile::{Compiler, Latest, Unconnected};
use crate::control::conditions::Conditions;
use crate::control::hierarchy::Hierarchy;
use crate::control::random::Random;
use crate::control::session::child::{self, ChildEnd, hello};
use crate::control::session::parent::EXPIRY_INTERVALS;
use crate::control::session::parents::Parents;
use crate::control::session::{Carrier, Identity};
use crate::control::wire::{Load, Record, State};
use crate::forward::tables::ForwardTables;
use crate::service::filter::Filter;
use crate::service::maglev::ClusterHash;
use crate::service::selection::Selector;
use crate::trust::Credentials;

/// From one step to the next.
pub const STEP: Duration = Duration::from_millis(10);

/// What all nodes may serve.
const SERVED: &str = "192.0.2.0/24";

/// The virtual host.
const VIRTUAL_HOST: &str = "192.0.2.80/32";

/// What servers also report that do not keep to their certificate.
const FOREIGN: &str = "198.51.100.0/24";

/// One server of so many does not.
const ROGUES: usize = 5;

/// Shape of the lengths of flows: smaller is wilder.
const PARETO: f64 = 1.5;

/// Slots of a table at most.
const SLOTS_MAX: usize = 65_537;

pub(super) struct Router {
    pub node: NodeId,
    pub config: Config,
    conditions: Conditions,
    pub hierarchy: Hierarchy,
    compiler: Compiler,
    tables: ForwardTables,
    pub selector: Selector,
    /// Who has a share of new flows, by its position among the children, once somebody asks.
    takers: OnceCell<Vec<usize>>,
    /// Children, in the order of the selector's candidates.
    pub children: Vec<NodeId>,
    /// Which of them take new flows.
    pub able: Arc<[bool]>,
    pub entries: Entries,
}

pub(super) struct Server {
    node: NodeId,
    parents: Parents<SocketAddr>,
    failing: bool,
}

pub(super) enum Node {
    Router(Box<Router>),
    Server(Box<Server>),
}

/// What happened to new flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// Given to a server that works.
    pub served: u64,
    /// Given to a server or router that is dead.
    pub lost: u64,
    /// Refused by a router that has no child for them.
    pub refused: u64,
}

/// The whole.
pub struct World {
    topology: Topology,
    /// The network between the nodes; faults and cuts may be changed at any time.
    pub network: Network,
    pub(super) nodes: Vec<Node>,
    names: HashMap<String, NodeId>,
    random: Random,
    /// By the level of the router: with one key for all, tables of two levels would fall together unevenly.
    pub(super) hashes: [ClusterHash; 4],
    /// Nodes that have something to do when that time comes, and what is planned of each.
    wakes: Calendar<(Instant, NodeId)>,
    planned: Vec<Option<Instant>>,
    /// Flows of each node.
    busy: Vec<u32>,
    /// Servers on which a flow ends.
    ends: Calendar<u32>,
    arrivals: f64,
    flows: Flows,
    given: u64,
    pub(super) followed: Followed,
    work: Work,
}

/// What routers had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Messages that they have taken in.
    pub messages: u64,
    /// Times that one gave out new flows in another way.
    pub steered: u64,
}

/// Where the router with this number takes sessions.
pub(super) fn address(node: usize) -> SocketAddr {
    let [_, a, b, c] = (node as u32).to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, a, b, c), 9478))
}

impl World {
    /// The topology at its start. The same seed gives the same run.
    ///
    /// # Panics
    /// A configuration that is made here is not let in, or a topology that has not been checked.
    pub fn new(topology: &Topology, seed: u64) -> World {
        let mut world = World {
            topology: topology.clone(),
            network: Network::new(seed ^ 0x5eed),
            nodes: Vec::new(),
            names: HashMap::new(),
            random: Random::new(seed),
            hashes: [0, 1, 2, 3].map(|level| ClusterHash::new(&key(level))),
            wakes: Calendar::default(),
            planned: Vec::new(),
            busy: Vec::new(),
            ends: Calendar::default(),
            arrivals: 0.0,
            flows: Flows::default(),
            given: 0,
            followed: Followed::default(),
            work: Work::default(),
        };
        let most = Duration::from_secs_f64(topology.delay_ms / 1000.0);
        world.network.faults = Faults { delay: (most / 10, most), loss: topology.loss, duplicates: 0.0 };
        let systems: Vec<String> = (1..=topology.systems).map(|system| format!("system{system}")).collect();
        world.router("network", 3, None, &systems);
        for (system, name) in (1..).zip(&systems) {
            let sites: Vec<String> = (1..=topology.sites).map(|site| format!("site{system}-{site}")).collect();
            world.router(name, 2, Some("network"), &sites);
            for (site, name) in (1..).zip(&sites) {
                let servers: Vec<String> =
                    (1..=topology.servers).map(|server| format!("server{system}-{site}-{server}")).collect();
                world.router(name, 1, Some(&format!("system{system}")), &servers);
                servers.iter().for_each(|server| world.server(server, name));
            }
        }
        world.connect_children();
        world.busy = vec![0; world.nodes.len()];
        world.planned = vec![None; world.nodes.len()];
        (0..world.nodes.len()).for_each(|node| world.plan(NodeId(node)));
        world
    }

    fn identity(name: &str, level: u8) -> Identity {
        let offers = vec![SERVED.parse().expect("a constant prefix")];
        Identity { name: name.to_owned(), level, offers, not_after: WallClock(u64::MAX) }
    }

    fn router(&mut self, name: &str, level: u8, parent: Option<&str>, children: &[String]) {
        let own = address(self.nodes.len());
        let node = self.network.add(World::identity(name, level), Some(own));
        let selection = match self.topology.selection {
            Selection::ConsistentHash => "consistent_hash".to_owned(),
            Selection::LeastCost => format!("least_cost, cost_function: {:?}", self.topology.cost_function),
            Selection::Shares => format!("shares, cost_function: {:?}", self.topology.cost_function),
        };
        let slots = (children.len() * self.topology.slots as usize).clamp(251, SLOTS_MAX);
        // A table's size must be a prime.
        let prime = (slots..).find(|n| (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d))).unwrap_or(251);
        let mut text = format!(
            "router: {{ name: {name}, level: {level}, tunnel_addresses: [10.255.255.1], time_zone: UTC }}\nchildren:\n"
        );
        for (number, child) in children.iter().enumerate() {
            let _ = writeln!(text, "  - {{ name: {child}, address: {} }}", address(number + 1).ip());
        }
        let list = children.join(", ");
        let _ = write!(
            text,
            "virtual_hosts: [{{ name: web, addresses: [{VIRTUAL_HOST}], selection: {selection}, \
             table_size: {prime}, children: [{list}] }}]"
        );
        let mut config = Config::parse(&text, "simulated").unwrap_or_else(|error| panic!("{error}\n{text}"));
        config.children.iter_mut().for_each(|child| child.register = Register::Required);
        config.shortcuts = self.topology.shortcuts;
        config.cluster.key = key(level);
        let parents = parent.map(|parent| Parent { name: parent.to_owned(), address: address(self.names[parent].0) });
        config.sessions = Sessions {
            listen: Some(own),
            interval: self.topology.interval(),
            takes_anyone: false,
            parents: parents.into_iter().collect(),
            // Nobody signs here: the network says who is who.
            credentials: Some(Credentials {
                identity: World::identity(name, level),
                chain: Vec::new(),
                key: Arc::new(rustls::pki_types::PrivatePkcs8KeyDer::from(Vec::new()).into()),
                authority: Arc::new(rustls::RootCertStore::empty()),
            }),
        };
        let mut hierarchy = Hierarchy::new(Instant::ZERO, WallClock(0), &config, self.random.next());
        let conditions = Conditions { steering: hierarchy.steering(Instant::ZERO, &config), ..Conditions::default() };
        let mut compiler = Compiler::new(children.len());
        let compiled = compiler.compile(&config, &conditions, &Unconnected, Instant::ZERO);
        let tables = compiled.expect("as many targets as there are children").tables;
        let selection = tables.selection(&tables.virtual_hosts[0]);
        let (selector, able) = (selection.selector.clone(), selection.takes_new.clone());
        let (takers, children, entries) = (OnceCell::new(), Vec::new(), Entries::default());
        let router =
            Router { node, config, conditions, hierarchy, compiler, tables, selector, takers, children, able, entries };
        self.nodes.push(Node::Router(Box::new(router)));
        self.names.insert(name.to_owned(), node);
    }

    fn server(&mut self, name: &str, parent: &str) {
        let node = self.network.add(World::identity(name, 0), None);
        let end = ChildEnd::new(Instant::ZERO, hello(name.to_owned(), 0), parent.to_owned(), self.random.next());
        let parent = address(self.names[parent].0);
        let server = Server { node, parents: [(end, parent)].into_iter().collect(), failing: false };
        self.nodes.push(Node::Server(Box::new(server)));
        self.names.insert(name.to_owned(), node);
    }

    fn connect_children(&mut self) {
        for node in &mut self.nodes {
            if let Node::Router(router) = node {
                let children = router.config.children.iter();
                router.children = children.map(|child| self.names[&child.name]).collect();
            }
        }
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<NodeId> {
        self.names.get(name).copied()
    }

    /// Lets nothing pass between a node and others, or (`through`) everything again.
    pub fn cut(&mut self, node: NodeId, through: bool) {
        match through {
            true => self.network.cut.remove(&node),
            false => self.network.cut.insert(node),
        };
    }

    /// A node does nothing from now on; a server's flows are gone.
    pub fn kill(&mut self, node: NodeId) {
        self.network.dead.insert(node);
    }

    /// A server wants no new flows any more, or (false) as many as before.
    pub fn drain(&mut self, node: NodeId, drained: bool) {
        let now = self.network.now;
        if let Node::Server(server) = &mut self.nodes[node.0] {
            server.drain(now, &mut self.network, drained);
        }
        self.plan(node);
    }

    /// The service of a server, or of all servers below a router, does not work any more, or (false) works again.
    pub fn fail(&mut self, name: &str, failing: bool) {
        // What is below site1-2 is called server1-2-3.
        let numbers = name.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let below = |server: &str| {
            let rest = server.strip_prefix("server").and_then(|own| own.strip_prefix(numbers));
            rest.is_some_and(|rest| rest.is_empty() || numbers.is_empty() || rest.starts_with('-'))
        };
        for (name, node) in &self.names {
            if let (true, Node::Server(server)) = (below(name), &mut self.nodes[node.0]) {
                server.failing = failing;
            }
        }
    }

    /// A node goes on.
    pub fn revive(&mut self, node: NodeId) {
        self.network.dead.remove(&node);
        self.plan(node);
    }

    /// Takes note of when a node has something to do.
    fn plan(&mut self, node: NodeId) {
        let next = match &self.nodes[node.0] {
            _ if self.network.arrived(node) > 0 => Some(self.network.now),
            Node::Router(router) => router.hierarchy.next_deadline(),
            Node::Server(server) => server.parents.next_deadline(),
        };
        if let Some(next) = next
            && self.planned[node.0].is_none_or(|planned| next < planned)
        {
            self.planned[node.0] = Some(next);
            self.wakes.put(next, (next, node));
        }
    }

    /// The nodes that have something to do now, in their order.
    fn due(&mut self, now: Instant) -> Vec<NodeId> {
        let mut due = self.network.take_reached();
        while let Some(wakes) = self.wakes.take(now) {
            for (at, node) in wakes {
                // Else it was planned anew meanwhile, for an earlier time.
                if self.planned[node.0].take_if(|planned| *planned == at).is_some() {
                    due.push(node);
                }
            }
        }
        if self.topology.shortcuts {
            // Flows give them more to do at any time.
            due = (0..self.nodes.len()).map(NodeId).collect();
        }
        due.sort_unstable();
        due.dedup();
        due
    }

    /// Time goes on by a [`STEP`].
    pub fn step(&mut self) {
        let now = self.network.now + STEP;
        self.network.advance(now);
        for node in self.due(now) {
            let busy = self.busy[node.0];
            match &mut self.nodes[node.0] {
                Node::Router(router) => router.pass(now, &mut self.network, &mut self.work),
                Node::Server(server) => server.pass(now, &mut self.network, (busy, self.topology.capacity)),
            }
            self.plan(node);
        }
        while let Some(ended) = self.ends.take(now) {
            ended.into_iter().for_each(|server| self.busy[server as usize] -= 1);
        }
        let (topology, servers) = (&self.topology, self.topology.systems * self.topology.sites * self.topology.servers);
        let at_a_time = topology.load * f64::from(servers) * f64::from(topology.capacity);
        // As many end as begin.
        self.arrivals += at_a_time / topology.flow_seconds * STEP.as_secs_f64();
        while self.arrivals >= 1.0 {
            self.arrivals -= 1.0;
            self.begin_flow(now);
        }
        if self.topology.shortcuts {
            self.carry_flows(now);
        }
    }

    fn begin_flow(&mut self, now: Instant) {
        self.given += 1;
        let flow = self.given.to_be_bytes();
        let mut at = NodeId(0);
        let mut levels = u8::MAX;
        loop {
            if self.network.dead.contains(&at) {
                self.flows.lost += 1;
                return;
            }
            match &mut self.nodes[at.0] {
                Node::Router(router) => {
                    // No loop: every router is below the one before it.
                    let level = router.config.router.level;
                    assert!(level < levels, "a flow goes up or sideways at {}", router.config.router.name);
                    levels = level;
                    // One child for a flow: whoever asks again is told the same.
                    let hash = self.hashes[usize::from(level)].hash(&flow);
                    let child = router.selector.select(hash);
                    assert_eq!(
                        child,
                        router.selector.select_again(hash),
                        "{} has two minds",
                        router.config.router.name
                    );
                    match child {
                        Some(child) => {
                            if self.topology.shortcuts {
                                router.send(now, bypass::key(self.given), child);
                            }
                            at = router.children[child];
                        }
                        None => {
                            self.flows.refused += 1;
                            return;
                        }
                    }
                }
                Node::Server(_) => {
                    self.busy[at.0] += 1;
                    self.flows.served += 1;
                    let least = self.topology.flow_seconds * (PARETO - 1.0) / PARETO;
                    let lasts = least / (1.0 - self.random.fraction()).powf(1.0 / PARETO);
                    let lasts = Duration::from_secs_f64(lasts.min(86_400.0));
                    self.ends.put(now + lasts, at.0 as u32);
                    if self.topology.shortcuts {
                        self.follow(now, self.given, at, now + lasts);
                    }
                    return;
                }
            }
        }
    }

    /// What became of new flows since this was asked last.
    pub fn take_flows(&mut self) -> Flows {
        std::mem::take(&mut self.flows)
    }

    /// What routers had to do since this was asked last.
    pub fn take_work(&mut self) -> Work {
        std::mem::take(&mut self.work)
    }

    /// The load of each server that works: 1 is its capacity.
    pub fn loads(&self) -> Vec<f64> {
        let alive = |node: &Node| match node {
            Node::Server(server) if !self.network.dead.contains(&server.node) => {
                Some(f64::from(self.busy[server.node.0]) / f64::from(self.topology.capacity))
            }
            _ => None,
        };
        self.nodes.iter().filter_map(alive).collect()
    }

    /// The mean load of each site's servers that work, of sites where any does.
    pub fn site_loads(&self) -> Vec<f64> {
        let site = |node: &Node| match node {
            Node::Router(router) if router.config.router.level == 1 => {
                let alive = |server: &&NodeId| !self.network.dead.contains(server);
                let busy: Vec<u32> = router.children.iter().filter(alive).map(|server| self.busy[server.0]).collect();
                let all = busy.iter().copied().map(f64::from).sum::<f64>() / f64::from(self.topology.capacity);
                (!busy.is_empty() && !self.network.dead.contains(&router.node)).then(|| all / busy.len() as f64)
            }
            _ => None,
        };
        self.nodes.iter().filter_map(site).collect()
    }

    /// Shares of new flows of a router's children, by name; empty for what is no router.
    pub fn shares(&self, router: &str) -> Vec<(String, f64)> {
        let Some(Node::Router(router)) = self.node(router).map(|node| &self.nodes[node.0]) else { return Vec::new() };
        let shares = router.selector.shares();
        let all: usize = shares.values().sum();
        let share = |at: usize| shares.get(&at).copied().unwrap_or(0) as f64 / all.max(1) as f64;
        router.config.children.iter().enumerate().map(|(at, child)| (child.name.clone(), share(at))).collect()
    }

    /// The oldest news of a child that any router goes by.
    pub fn staleness(&self) -> Duration {
        let routers = self.nodes.iter().filter_map(|node| match node {
            Node::Router(router) if !self.network.dead.contains(&router.node) => Some(router),
            _ => None,
        });
        let ages = routers.flat_map(|router| {
            let names = router.config.children.iter();
            names.filter_map(|child| Some(self.network.now - router.hierarchy.news(&child.name)?.received))
        });
        ages.max().unwrap_or_default()
    }

    /// Checks what must hold at every step.
    ///
    /// # Panics
    /// It does not hold.
    pub fn check(&self) {
        let now = self.network.now;
        let expiry = self.topology.interval() * EXPIRY_INTERVALS;
        self.check_flows();
        for node in &self.nodes {
            let Node::Router(router) = node else { continue };
            if self.network.dead.contains(&router.node) {
                continue;
            }
            let name = &router.config.router.name;
            for child in &router.config.children {
                let Some(news) = router.hierarchy.news(&child.name) else { continue };
                assert!(news.expires > now, "{name} keeps what {} said past its expiry", child.name);
                assert!(now - news.received <= expiry, "{name} goes by old news of {}", child.name);
                let identity = self.network.identity(self.names[&child.name]);
                assert!(identity.level < router.config.router.level, "{name} has a child that is not below it");
                for record in news.report.records() {
                    assert!(
                        identity.may_offer(record.prefix),
                        "{name} lets {} serve {}, which its certificate does not allow",
                        child.name,
                        record.prefix
                    );
                }
            }
            let takers = router.takers.get_or_init(|| router.selector.shares().into_keys().collect());
            for (at, child) in takers.iter().map(|at| (at, &router.config.children[*at])) {
                let known = router.hierarchy.news(&child.name).is_some();
                assert!(known, "{name} gives flows to {} ({at}), of which it knows nothing", child.name);
            }
        }
    }
}

/// The key of the routers of a level.
fn key(level: u8) -> [u8; 16] {
    [level; 16]
}

impl Router {
    fn pass(&mut self, now: Instant, network: &mut Network, work: &mut Work) {
        if network.dead.contains(&self.node) {
            return;
        }
        let due = self.hierarchy.next_deadline().is_some_and(|deadline| deadline <= now);
        if !due && network.arrived(self.node) == 0 {
            return;
        }
        let arrived = network.arrived(self.node);
        let mut end = network.at(self.node);
        let outcome = self.hierarchy.pass(now, &mut end, &self.config, &mut self.conditions);
        work.messages += (arrived - network.arrived(self.node)) as u64;
        let latest = Latest { config: &self.config, conditions: &self.conditions, tables: &self.tables };
        let steered = (&outcome.steered.into_iter().collect(), false);
        if let Some(compiled) = self.compiler.update(latest, steered, &Unconnected, now) {
            work.steered += 1;
            self.tables = compiled.tables;
            let selection = self.tables.selection(&self.tables.virtual_hosts[0]);
            let (selector, able) = (selection.selector.clone(), selection.takes_new.clone());
            (self.selector, self.takers) = (selector, OnceCell::new());
            self.know_able(now, able);
        }
        self.perform(now, outcome.orders);
    }
}

impl Server {
    fn pass(&mut self, now: Instant, network: &mut Network, (busy, capacity): (u32, u32)) {
        if network.dead.contains(&self.node) {
            return;
        }
        let due = self.parents.next_deadline().is_some_and(|deadline| deadline <= now);
        if !due && network.arrived(self.node) == 0 {
            return;
        }
        let mut carrier = network.at(self.node);
        // Nobody reads the logs of so many.
        let mut rest = Vec::new();
        while let Some(happening) = carrier.poll() {
            // Of a session that was given up, something may still be on its way.
            self.parents.take_in(now, happening, &mut carrier, &mut rest);
        }
        self.parents.handle(now, &child::Input::Tick, &mut carrier, &mut rest);
        let load = Load::from_ratio(f64::from(busy) / f64::from(capacity));
        let record = |prefix: &str| {
            let prefix = prefix.parse().expect("a constant prefix");
            let state = if self.failing { State::Down } else { State::Serving };
            Record { prefix, service: Filter::ANY, state, load, capacity }
        };
        let rogue = self.node.0.is_multiple_of(ROGUES);
        let records = || [VIRTUAL_HOST].into_iter().chain(rogue.then_some(FOREIGN)).map(record).collect();
        self.parents.report(now, records, &mut carrier, &mut rest);
    }
    fn drain(&mut self, now: Instant, network: &mut Network, drained: bool) {
        self.parents.handle(now, &child::Input::Drain(drained), &mut network.at(self.node), &mut Vec::new());
    }
}
