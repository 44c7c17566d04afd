//! A router with many virtual subnets over many children, and what those children say, byte for byte.

#![allow(dead_code, reason = "tests and the bench use their own parts of this")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use slr::clock::Instant;
use slr::config::{Config, Member, Register};
use slr::control::compile::{Compiler, Configured};
use slr::control::conditions::Conditions;
use slr::control::hierarchy::Hierarchy;
use slr::control::neighbours::Neighbours;
use slr::control::session::{Carrier, Happening, Identity, SessionId};
use slr::control::wire::{Hello, Load, Message, Record, Sequence, State, Token, Update, VERSION, WallClock};
use slr::forward::tables::ForwardTables;
use slr::service::filter::Filter;
use slr::trust::Credentials;
use slr::units::{MacAddr, Weight};

/// Children of each virtual subnet.
pub const EACH: usize = 10;

/// How large it all is, and how new flows are shared.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Virtual subnets; each is a virtual host.
    pub subnets: usize,
    /// Children; as many as fit into the subnets evenly, a multiple of [`EACH`].
    pub children: usize,
    /// Keys of each virtual host.
    pub keys: &'static str,
    /// From one update of a child to the next.
    pub interval: Duration,
}

impl Scale {
    /// The children of a virtual subnet, by their positions: each child is in as many subnets as any other, and sets differ.
    pub fn members(&self, subnet: usize) -> [usize; EACH] {
        let group = self.children / EACH;
        std::array::from_fn(|place| place * group + (subnet + place * (subnet / group)) % group)
    }

    /// The virtual subnets of each child.
    pub fn subnets_of_children(&self) -> Vec<Vec<usize>> {
        let mut subnets = vec![Vec::new(); self.children];
        for subnet in 0..self.subnets {
            self.members(subnet).iter().for_each(|child| subnets[*child].push(subnet));
        }
        subnets
    }

    /// The configuration of all that.
    pub fn config(&self) -> Config {
        let children =
            (0..self.children).map(|child| format!("  - {{ name: {}, address: {} }}\n", name(child), ip(child)));
        let text = format!(
            "router: {{ name: top, level: 3, tunnel_addresses: [198.51.100.1] }}\n\
             ports: [{{ name: left, device: net_null0, mtu: 1600, addresses: [192.0.2.1/24] }}]\n\
             routes: [{{ prefix: 0.0.0.0/0, via: 192.0.2.2 }}]\n\
             neighbours: [{{ address: 192.0.2.2, mac: \"02:00:00:00:00:02\" }}]\n\
             children:\n{}\
             virtual_hosts: [{{ name: web, addresses: [100.64.0.0], services: [udp/443], {}, children: [{}] }}]\n",
            children.collect::<String>(),
            self.keys,
            (0..EACH).map(name).collect::<Vec<_>>().join(", ")
        );
        let mut config = Config::parse(&text, "subnets.yaml").unwrap_or_else(|error| panic!("{error}"));
        config.children.iter_mut().for_each(|child| child.register = Register::Required);
        config.sessions.listen = Some(SocketAddr::from(([127, 0, 0, 1], 1)));
        config.sessions.interval = self.interval;
        config.sessions.credentials = Some(Credentials {
            identity: identity("top", 3),
            chain: Vec::new(),
            key: Arc::new(rustls::pki_types::PrivatePkcs8KeyDer::from(Vec::new()).into()),
            authority: Arc::new(rustls::RootCertStore::empty()),
        });
        let pattern = config.virtual_hosts[0].clone();
        let host = |subnet: usize| {
            let mut host = pattern.clone();
            host.name = format!("subnet{subnet}");
            host.addresses = vec![prefix(subnet)];
            let members = self.members(subnet).into_iter().zip(&pattern.members);
            host.members = members.map(|(child, pattern)| Member { child, ..*pattern }).collect();
            host
        };
        config.virtual_hosts = (0..self.subnets).map(host).collect();
        config
    }
}

/// The name of a child.
pub fn name(child: usize) -> String {
    format!("system{child}")
}

fn ip(child: usize) -> String {
    format!("10.7.{}.{}", child / 250, child % 250 + 1)
}

/// The addresses of a virtual subnet: one IPv4 address.
pub fn prefix(subnet: usize) -> ipnet::IpNet {
    ipnet::Ipv4Net::from(std::net::Ipv4Addr::from_bits(0x6440_0000 + subnet as u32)).into()
}

/// Who a node is by its certificate.
pub fn identity(name: &str, level: u8) -> Identity {
    let offers = vec!["100.64.0.0/10".parse().expect("a prefix")];
    Identity { name: name.to_owned(), level, offers, not_after: WallClock(u64::MAX) }
}

/// What a child says of its virtual subnets, by `load` and state of each.
pub fn update(sequence: u64, subnets: &[usize], mut say: impl FnMut(usize) -> (State, f64)) -> Vec<u8> {
    let record = |subnet: &usize| {
        let (state, load) = say(*subnet);
        let service = Filter { protocol: Some(17), ports: 443..=443 };
        Record { prefix: prefix(*subnet), service, state, load: Load::from_ratio(load), capacity: 100 }
    };
    let records = subnets.iter().map(record).collect();
    Message::Update(Update { sequence: Sequence(sequence), sent: Token(0), records }).to_bytes()
}

/// What a child says first.
pub fn hello(child: usize) -> Vec<u8> {
    let hello = Hello {
        version: VERSION,
        version_min: VERSION,
        level: 2,
        capabilities: 0,
        name: name(child),
        tunnels: Vec::new(),
        offers: Vec::new(),
    };
    Message::Hello(hello).to_bytes()
}

/// The session of a child.
pub fn session(child: usize) -> SessionId {
    SessionId(child as u64 + 1)
}

/// Carries what it is given, and forgets what is to be sent.
pub struct Given<I>(pub I);

impl<I: Iterator<Item = Happening>> Carrier for Given<I> {
    type Address = SocketAddr;

    fn connect(&mut self, _to: &SocketAddr) -> SessionId {
        SessionId(0)
    }

    fn send(&mut self, _session: SessionId, _bytes: Vec<u8>) {}

    fn close(&mut self, _session: SessionId) {}

    fn poll(&mut self) -> Option<Happening> {
        self.0.next()
    }
}

/// The machines of a router, before anybody has said anything.
pub struct Machines {
    pub config: Arc<Config>,
    pub neighbours: Neighbours,
    pub compiler: Compiler,
    pub hierarchy: Hierarchy,
    pub conditions: Conditions,
    pub tables: ForwardTables,
}

impl Machines {
    pub fn new(config: Config) -> Machines {
        let neighbours = Neighbours::new(&config, &[MacAddr([2, 0, 0, 0, 0, 1])], 1);
        let mut compiler = Compiler::new(usize::MAX);
        let mut hierarchy = Hierarchy::new(Instant::ZERO, WallClock(0), &config, 7);
        let steering = hierarchy.steering(Instant::ZERO, &config);
        let conditions = Conditions { steering, ..Conditions::default() };
        let reachability = Configured { config: &config, neighbours: &neighbours };
        let compiled = compiler.compile(&config, &conditions, &reachability, Instant::ZERO).expect("no limit");
        Machines { config: Arc::new(config), neighbours, compiler, hierarchy, conditions, tables: compiled.tables }
    }
}

/// A weight.
pub fn weight(weight: u16) -> Weight {
    Weight::new(weight).expect("a weight")
}

/// Numbers that differ (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 31
    }

    /// From 0 to below 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
