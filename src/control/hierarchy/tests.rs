//! Three levels in one thread, over a carrier that loses nothing.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::*;
use crate::control::session::{Identity, SessionId};
use crate::control::wire::State;
use crate::trust::Credentials;
use crate::units::Weight;

/// What connects the ends of all carriers.
#[derive(Default)]
struct Network {
    /// What waits for each node.
    waiting: HashMap<String, VecDeque<Happening>>,
    /// The two ends of each session.
    ends: HashMap<SessionId, [String; 2]>,
    levels: HashMap<String, u8>,
    listening: HashMap<SocketAddr, String>,
}

/// One node's end.
struct Wire {
    node: String,
    network: Rc<RefCell<Network>>,
}

impl Network {
    fn identity(&self, node: &str) -> Identity {
        let offers = vec!["192.0.2.0/24".parse().unwrap()];
        Identity { name: node.into(), level: self.levels[node], offers, not_after: WallClock(u64::MAX) }
    }

    fn tell(&mut self, node: &str, happening: Happening) {
        self.waiting.entry(node.into()).or_default().push_back(happening);
    }
}

impl Carrier for Wire {
    type Address = SocketAddr;

    fn connect(&mut self, to: &SocketAddr) -> SessionId {
        let network = &mut *self.network.borrow_mut();
        let id = SessionId(network.ends.len() as u64 + 1);
        let Some(other) = network.listening.get(to).cloned() else {
            network.ends.insert(id, [self.node.clone(), String::new()]);
            network.tell(&self.node, Happening::Closed(id, "nobody listens".into()));
            return id;
        };
        network.ends.insert(id, [self.node.clone(), other.clone()]);
        let (own, its) = (network.identity(&self.node), network.identity(&other));
        network.tell(&other, Happening::Opened(id, own));
        network.tell(&self.node, Happening::Opened(id, its));
        id
    }

    fn send(&mut self, session: SessionId, bytes: Vec<u8>) {
        let network = &mut *self.network.borrow_mut();
        let [a, b] = network.ends[&session].clone();
        let other = if a == self.node { b } else { a };
        network.tell(&other, Happening::Received(session, bytes));
    }

    fn close(&mut self, session: SessionId) {
        let network = &mut *self.network.borrow_mut();
        let [a, b] = network.ends[&session].clone();
        let other = if a == self.node { b } else { a };
        network.tell(&other, Happening::Closed(session, "closed".into()));
    }

    fn poll(&mut self) -> Option<Happening> {
        self.network.borrow_mut().waiting.get_mut(&self.node)?.pop_front()
    }
}

struct Node {
    config: Config,
    conditions: Conditions,
    hierarchy: Hierarchy,
    wire: Wire,
}

/// A configuration with sessions, without the files that a real one has.
fn node(network: &Rc<RefCell<Network>>, text: &str, listen: Option<&str>, parents: &[(&str, &str)]) -> Node {
    // Registration needs a listener; this is the shortest way to one without files.
    let mut config = Config::parse(&text.replace("register: required", "register: off"), "t.yaml").unwrap();
    for (child, line) in config.children.iter_mut().zip(text.lines().filter(|line| line.contains("address:"))) {
        if line.contains("register: required") {
            child.register = Register::Required;
        }
    }
    let (name, level) = (config.router.name.clone(), config.router.level);
    let listen: Option<SocketAddr> = listen.map(|address| address.parse().unwrap());
    network.borrow_mut().levels.insert(name.clone(), level);
    listen.map(|address| network.borrow_mut().listening.insert(address, name.clone()));
    config.sessions.listen = listen;
    config.sessions.parents = parents
        .iter()
        .map(|(name, address)| crate::config::Parent { name: (*name).into(), address: address.parse().unwrap() })
        .collect();
    config.sessions.credentials = Some(Credentials {
        identity: network.borrow().identity(&name),
        chain: Vec::new(),
        key: Arc::new(rustls::pki_types::PrivatePkcs8KeyDer::from(Vec::new()).into()),
        authority: Arc::new(rustls::RootCertStore::empty()),
    });
    let mut hierarchy = Hierarchy::new(Instant::ZERO, WallClock(0), &config, 7);
    let conditions = Conditions { steering: hierarchy.steering(Instant::ZERO, &config), ..Conditions::default() };
    Node { config, conditions, hierarchy, wire: Wire { node: name, network: network.clone() } }
}

impl Node {
    fn pass(&mut self, now: Instant) -> Outcome {
        self.hierarchy.pass(now, &mut self.wire, &self.config, &mut self.conditions)
    }

    fn steers(&self) -> Vec<Steer> {
        (0..self.config.virtual_hosts[0].members.len()).map(|at| self.conditions.steering.of(0, at)).collect()
    }
}

const SITE: &str = "
router: { name: site1, level: 1, tunnel_addresses: [10.0.0.1] }
children:
  - { name: server1, address: 10.0.0.11 }
  - { name: server2, address: 10.0.0.12 }
virtual_hosts: [{ name: web, addresses: [192.0.2.80], services: [tcp/80], children: [server1, { name: server2, weight: 50 }] }]
";

const SYSTEM: &str = "
router: { name: system1, level: 2, tunnel_addresses: [10.0.0.2] }
children:
  - { name: site1, address: 10.0.0.1, register: required }
  - { name: site2, address: 10.0.0.3, register: required }
virtual_hosts: [{ name: web, addresses: [192.0.2.80], services: [tcp/80], children: [site1, site2] }]
";

const NETWORK: &str = "
router: { name: net1, level: 3, tunnel_addresses: [10.0.0.9] }
children:
  - { name: system1, address: 10.0.0.2, register: required }
virtual_hosts: [{ name: web, addresses: [192.0.2.80], services: [tcp/80], children: [system1] }]
";

const TAKES: Steer = Steer::Takes { cost: None, weight: None };

/// A network, a system and a site.
fn levels() -> [Node; 3] {
    let network = Rc::default();
    [
        node(&network, NETWORK, Some("10.1.0.3:1"), &[]),
        node(&network, SYSTEM, Some("10.1.0.2:1"), &[("net1", "10.1.0.3:1")]),
        node(&network, SITE, None, &[("system1", "10.1.0.2:1")]),
    ]
}

/// Lets all go on for so many milliseconds.
fn run(nodes: &mut [Node], from: u64, to: u64) {
    for ms in (from..to).step_by(5) {
        nodes.iter_mut().for_each(|node| drop(node.pass(Instant::ZERO + Duration::from_millis(ms))));
    }
}

#[test]
fn what_a_site_can_do_is_known_two_levels_above() {
    let mut nodes = levels();
    assert_eq!((nodes[0].steers(), nodes[1].steers()), (vec![Steer::TakesNone], vec![Steer::TakesNone; 2]));
    run(&mut nodes, 0, 500);
    assert_eq!((nodes[0].steers(), nodes[1].steers()), (vec![TAKES], vec![TAKES, Steer::TakesNone]));
    let said = |node: &Node, child: &str| {
        let news = node.hierarchy.news(child).unwrap();
        let host = &node.config.virtual_hosts[0];
        let serves = news.report.of(&host.addresses, &host.services).unwrap();
        (serves.state, serves.capacity)
    };
    assert_eq!(said(&nodes[0], "system1"), (State::Serving, 150));

    // The operator drains one server, then the other.
    nodes[2].conditions.drained.insert("server1".into());
    run(&mut nodes, 500, 3000);
    assert_eq!(said(&nodes[0], "system1"), (State::Serving, 50));
    nodes[2].conditions.weights.insert("server2".into(), Weight::DRAIN);
    run(&mut nodes, 3000, 6000);
    assert_eq!(said(&nodes[0], "system1"), (State::Draining, 0));
    assert_eq!(nodes[0].steers(), [Steer::TakesNone]);

    // Both are down: the flows that they have may go elsewhere.
    nodes[2].conditions.down.extend(["server1", "server2"].map(|child| ("web".into(), child.into())));
    run(&mut nodes, 6000, 9000);
    assert_eq!((said(&nodes[1], "site1").0, nodes[1].steers()[0]), (State::Down, Steer::Down));
}

#[test]
fn a_parent_that_is_new_to_a_child_or_lost_changes_nothing_else() {
    let mut nodes = levels();
    run(&mut nodes, 0, 500);
    // The site's router is gone: three intervals later nobody counts on it, and it is told upward at once.
    let (rest, _) = nodes.split_at_mut(2);
    run(rest, 500, 3990);
    assert_eq!((rest[0].steers(), rest[1].steers()), (vec![Steer::TakesNone], vec![Steer::TakesNone; 2]));
    let look = rest[1].hierarchy.look();
    let view = look.load();
    assert_eq!(view.children.iter().filter(|child| child.said.is_some()).count(), 0);
    assert_eq!(view.counters.as_ref().unwrap().expired.get(), 1);
}

#[test]
fn another_configuration_drops_the_children_that_it_does_not_have() {
    let mut nodes = levels();
    run(&mut nodes, 0, 500);
    nodes[1].config.children[0].register = Register::Off;
    let config = nodes[1].config.clone();
    nodes[1].hierarchy.reconfigure(&config);
    nodes[1].conditions.steering = nodes[1].hierarchy.steering(Instant::ZERO + Duration::from_millis(500), &config);
    run(&mut nodes[1..], 500, 700);
    assert_eq!(nodes[1].steers(), [Steer::AsConfigured, Steer::TakesNone]);
    assert!(nodes[1].hierarchy.news("site1").is_none());
    let refusal = nodes[2].hierarchy.parents().next().and_then(|(end, _)| end.refusal()).map(str::to_owned);
    assert!(refusal.is_some_and(|text| text.contains("no child of system1 any more")));
}

const SITE2: &str = "
router: { name: site2, level: 1, tunnel_addresses: [10.0.0.3] }
children:
  - { name: server3, address: 10.0.0.13 }
virtual_hosts: [{ name: web, addresses: [192.0.2.80], services: [tcp/80], children: [{ name: server3, weight: 150 }] }]
";

/// A system over two sites that report these loads, and its virtual host with these keys.
fn priced(keys: &str, loads: [&str; 2]) -> [Node; 3] {
    let network = Rc::default();
    let system = SYSTEM.replace("services: [tcp/80],", &format!("services: [tcp/80], {keys},"));
    let site = |text: &str, load: &str| {
        text.replace("services: [tcp/80],", &format!("services: [tcp/80], aggregate_function: \"{load}\","))
    };
    [
        node(&network, &system, Some("10.1.0.2:1"), &[]),
        node(&network, &site(SITE, loads[0]), None, &[("system1", "10.1.0.2:1")]),
        node(&network, &site(SITE2, loads[1]), None, &[("system1", "10.1.0.2:1")]),
    ]
}

fn weights(node: &Node) -> Vec<u16> {
    let weight = |steer: &Steer| match steer {
        Steer::Takes { weight: Some(weight), .. } => weight.get(),
        _ => 0,
    };
    node.steers().iter().map(weight).collect()
}

#[test]
fn the_operators_function_is_the_cost_of_each_child() {
    let keys = "selection: least_cost, cost_function: \"load + (child == 'site2' ? 1.0 : 0.0) + 0.001 * capacity\"";
    let mut nodes = priced(keys, ["0.5", "0.25"]);
    run(&mut nodes, 0, 500);
    let costs: Vec<_> = nodes[0]
        .steers()
        .iter()
        .map(|steer| match steer {
            Steer::Takes { cost: Some(cost), weight: None } => (cost * 1000.0).round(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(costs, [650.0, 1400.0]);
}

#[test]
fn another_load_is_another_cost_also_behind_a_virtual_host_that_asks_for_regions() {
    let network = Rc::default();
    let both = |text: &str, first: &str, second: &str| {
        let (head, host) = text.split_once("virtual_hosts: [").expect("virtual hosts");
        let host = host.trim_end().trim_end_matches(']').replace("services: [tcp/80],", "services: [tcp/80], KEYS,");
        let other = host.replace("name: web", "name: late").replace("tcp/80", "tcp/81");
        format!("{head}virtual_hosts: [{}, {}]\n", host.replace("KEYS", first), other.replace("KEYS", second))
    };
    let asks = "selection: least_cost, cost_function: \"client_region == 'campus' ? 1.0 : load\"";
    let system = both(SYSTEM, asks, "selection: least_cost, cost_function: \"load\"");
    let system = format!("client_regions: [{{ name: campus, prefixes: [10.1.0.0/16] }}]{system}");
    let load = "aggregate_function: \"minute < 1.0 ? 0.5 : 0.25\"";
    let utc = |text: &str| both(text, load, load).replace("level: 1,", "level: 1, time_zone: UTC,");
    let mut nodes = [
        node(&network, &system, Some("10.1.0.2:1"), &[]),
        node(&network, &utc(SITE), None, &[("system1", "10.1.0.2:1")]),
        node(&network, &utc(SITE2), None, &[("system1", "10.1.0.2:1")]),
    ];
    for (from, until, load) in [(0, 5_000, 0.5), (5_000, 66_000, 0.25)] {
        run(&mut nodes, from, until);
        let steering = &nodes[0].conditions.steering;
        let (here, campus) = ([0, 1].map(|host| steering.of(host, 0)), steering.of(0, 2));
        let costs = |cost| Steer::Takes { cost: Some(cost), weight: None };
        assert_eq!((here, campus), ([costs(load); 2], costs(1.0)), "after {until} ms");
    }
}

#[test]
fn costs_ask_for_what_the_operator_says_of_a_child() {
    let network = Rc::default();
    let keys = "services: [tcp/80], selection: least_cost, cost_function: \"'far' in labels ? 9.0 : 1.0\",";
    let system = SYSTEM.replace("services: [tcp/80],", keys).replacen("register:", "labels: [far], register:", 1);
    let mut nodes = [
        node(&network, &system, Some("10.1.0.2:1"), &[]),
        node(&network, SITE, None, &[("system1", "10.1.0.2:1")]),
        node(&network, SITE2, None, &[("system1", "10.1.0.2:1")]),
    ];
    run(&mut nodes, 0, 5_000);
    assert_eq!(nodes[0].steers(), [9.0, 1.0].map(|cost| Steer::Takes { cost: Some(cost), weight: None }));
}

#[test]
fn shares_follow_costs_slowly_and_leave_at_once() {
    let keys = "selection: shares, cost_function: \"load\"";
    let mut nodes = priced(keys, ["0.9", "0.3"]);
    run(&mut nodes, 0, 40_000);
    let [one, other] = weights(&nodes[0])[..] else { panic!() };
    assert!(other == 1000 && (300..=370).contains(&one), "{one}, {other}");

    // The second site is drained, and later is there again.
    nodes[2].conditions.drained.insert("server3".into());
    run(&mut nodes, 40_000, 42_000);
    assert_eq!(weights(&nodes[0]), [1000, 0]);
    nodes[2].conditions.drained.clear();
    run(&mut nodes, 42_000, 44_500);
    let early = weights(&nodes[0])[1];
    assert!(early > 0 && early < 900, "{early}");
    run(&mut nodes, 44_500, 80_000);
    assert_eq!(weights(&nodes[0])[1], 1000);
}

#[test]
fn a_cost_that_cannot_be_known_is_told_and_counts_as_the_highest() {
    // Whole numbers do not divide by 0, which no everyday value shows.
    let keys = "selection: least_cost, cost_function: \"child == 'site1' ? double(1 / int(load * 4.0 - 1.0)) : 5.0\"";
    let mut nodes = priced(keys, ["0.25", "0.5"]);
    let mut told = Vec::new();
    for ms in (0..500).step_by(5) {
        for node in &mut nodes {
            told.extend(node.pass(Instant::ZERO + Duration::from_millis(ms)).told);
        }
    }
    assert!(told.iter().any(|line| line.contains("the cost of site1 for web is unknown")), "{told:?}");
    let Steer::Takes { cost: Some(cost), .. } = nodes[0].steers()[0] else { panic!("{:?}", nodes[0].steers()) };
    assert_eq!(cost, f64::INFINITY);
}

#[test]
fn route_costs_are_measured_by_checks_and_read_from_the_routing_table() {
    let text = "
router: { name: site1, tunnel_addresses: [10.0.0.1], route_cost: metric }
children:
  - { name: near, address: 10.0.0.11 }
  - { name: far, address: 10.0.0.12, route_cost: rtt }
virtual_hosts:
  - { name: web, addresses: [192.0.2.80], services: [tcp/80], selection: least_cost, cost_function: route_cost, children: all, health: tcp }
";
    let mut site = node(&Rc::default(), text, None, &[]);
    let costs = |site: &mut Node, second: u64| {
        for ms in (second * 1000..second * 1000 + 1000).step_by(5) {
            site.pass(Instant::ZERO + Duration::from_millis(ms));
        }
        let cost = |steer| match steer {
            Steer::Takes { cost: Some(cost), .. } => cost,
            other => panic!("{other:?}"),
        };
        site.steers().into_iter().map(cost).collect::<Vec<_>>()
    };
    assert_eq!(costs(&mut site, 1), [0.0, 0.0]);
    site.hierarchy.measured("far".into(), Duration::from_millis(8));
    site.hierarchy.measured("far".into(), Duration::from_millis(16));
    site.hierarchy.set_metrics([("near".to_owned(), 321.0)].into());
    assert_eq!(costs(&mut site, 2), [321.0, 9.0]);
    site.hierarchy.set_metrics([("near".to_owned(), f64::INFINITY)].into());
    assert_eq!(costs(&mut site, 3), [f64::INFINITY, 9.0]);
}
