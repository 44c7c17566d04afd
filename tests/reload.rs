//! What a running router takes from a new configuration and from the operator, and that flows stay where they may.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::router::{ROUTER_MAC, TestRouter};
use etherparse::PacketBuilder;
use slr::clock::Instant;
use slr::config::Config;
use slr::control::compile::{Compiler, Configured};
use slr::control::neighbours::Neighbours;
use slr::control::slow_path::{ReloadError, SlowPath};
use slr::units::{MacAddr, VirtualHostId, Weight};

/// Children 1 to 4, all behind port 1.
fn configuration(members: &str, more: &str) -> Config {
    let mut text = String::from(
        "router: { name: test, tunnel_addresses: [10.1.0.1] }\n\
         ports:\n\
         \x20 - { name: clients, device: net_null0, addresses: [10.0.0.1/24] }\n\
         \x20 - { name: servers, device: net_null1, mtu: 1600, addresses: [10.1.0.1/24] }\n",
    );
    let list = |line: &dyn Fn(u8) -> String| (1..=4).map(line).collect::<Vec<_>>().join(", ");
    let mac = |n| format!("{{ address: 10.1.0.{n}0, mac: \"02:00:00:00:01:0{n}\" }}");
    let child = |n| format!("{{ name: s{n}, address: 10.1.0.{n}0 }}");
    text += &format!("neighbours: [{}]\nchildren: [{}]\n", list(&mac), list(&child));
    text += &format!("virtual_hosts: [{{ name: web, addresses: [192.0.2.1], table_size: 251, {members} }}{more}]\n");
    Config::parse(&text, "test.yaml").unwrap_or_else(|error| panic!("{error}\n{text}"))
}

struct Running {
    router: TestRouter,
    slow_path: SlowPath,
}

impl Running {
    fn new(config: &Config) -> Running {
        let neighbours = Neighbours::new(config, &[ROUTER_MAC, MacAddr([2, 0, 0, 0, 0, 3])], 1);
        let reachability = Configured { config, neighbours: &neighbours };
        let mut router = TestRouter::of(config, &reachability);
        let compiler = std::mem::replace(&mut router.compiler, Compiler::new(0));
        let end = router.end();
        let published = router.published.clone();
        let slow_path = SlowPath::new(Arc::new(config.clone()), compiler, neighbours, published, vec![end]);
        Running { router, slow_path }
    }

    /// One packet of each of these flows: the child that it goes to, by the flow.
    fn carry(&mut self, flows: impl Iterator<Item = u16>) -> BTreeMap<u16, u8> {
        let mut children = BTreeMap::new();
        for flow in flows {
            let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], ROUTER_MAC.0);
            let builder = builder.ipv4([10, 7, 0, 9], [192, 0, 2, 1], 57).udp(flow, 80);
            let mut frame = Vec::new();
            builder.write(&mut frame, b"hello").expect("a packet");
            let sent = self.router.carry([frame]);
            // The last byte of the outer destination: 10, 20, 30, 40.
            children.extend(sent.first().map(|frame| (flow, frame[33] / 10)));
        }
        children
    }

    fn reload(&mut self, config: &Config) -> Result<(), ReloadError> {
        self.slow_path.reload(config.clone(), Instant::ZERO)
    }
}

/// How many flows each child has.
fn count(flows: &BTreeMap<u16, u8>) -> BTreeMap<u8, usize> {
    let mut counts = BTreeMap::new();
    flows.values().for_each(|child| *counts.entry(*child).or_default() += 1);
    counts
}

const OLD: std::ops::RangeInclusive<u16> = 1..=60;
const NEW: std::ops::RangeInclusive<u16> = 101..=160;

#[test]
fn a_reload_moves_no_flow_but_those_of_children_that_are_gone() {
    let mut running = Running::new(&configuration("children: [s1, s2, s3]", ""));
    let before = running.carry(OLD);
    assert_eq!(before.len(), 60);
    assert_eq!(count(&before).len(), 3, "{before:?}");

    // In another order, beside another virtual host, with other weights, one child less and one more.
    let other = ", { name: dns, addresses: [192.0.2.2], children: [s1] }";
    let after = configuration("children: [s4, { name: s3, weight: 7 }, s1]", other);
    assert_eq!(running.reload(&after), Ok(()));
    let same = running.carry(OLD);
    assert_eq!(same.len(), 60, "no packet is lost");
    for (flow, child) in &before {
        assert_eq!(same[flow] == *child, *child != 2, "flow {flow} was on {child}, is on {}", same[flow]);
    }
    let new = running.carry(NEW);
    assert!(!count(&new).contains_key(&2) && count(&new).contains_key(&4), "{new:?}");
    // Those that had to move stay where they are now.
    assert_eq!(running.carry(OLD), same);
}

#[test]
fn what_is_settled_at_start_is_refused_and_nothing_changes() {
    let config = configuration("children: [s1, s2]", "");
    let mut running = Running::new(&config);
    let flows = running.carry(OLD);
    type Change = fn(&mut Config);
    let cases: &[(&str, Change)] = &[
        ("router.name", |config| config.router.name = "other".into()),
        ("dpdk", |config| config.dpdk.buffers += 1),
        ("workers", |config| config.workers.count += 1),
        ("ports", |config| config.ports[0].mtu = 9000),
        ("flows.capacity_v4 or flows.capacity_v6", |config| config.flows.capacity_v6 += 1),
        ("metrics", |config| config.metrics.listen = None),
    ];
    for (key, change) in cases {
        // The rest of it would send everything to s4.
        let mut changed = configuration("children: [s4]", "");
        change(&mut changed);
        let refused = running.reload(&changed).expect_err(key);
        assert_eq!(refused, ReloadError::NeedsRestart(key));
        assert!(refused.to_string().starts_with(&format!("{key} cannot change")), "{refused}");
    }
    let many = (0..30).map(|n| format!(", {{ name: v{n}, addresses: [192.0.3.{n}], children: [s4] }}"));
    let many = configuration("children: [s4]", &many.collect::<String>());
    assert!(matches!(running.reload(&many), Err(ReloadError::TooManyTargets(_))));
    assert_eq!(running.carry(OLD), flows);
    assert!(!count(&running.carry(NEW)).contains_key(&4));
}

#[test]
fn a_drained_child_keeps_its_flows_and_gets_no_new_ones_until_it_is_undrained() {
    let mut running = Running::new(&configuration("children: [s1, s2]", ""));
    let old = running.carry(OLD);
    running.slow_path.drain("s1", true, Instant::ZERO).expect("a child");
    assert_eq!(running.carry(OLD), old);
    assert_eq!(count(&running.carry(NEW)), [(2, 60)].into());
    // Through a reload, too.
    assert_eq!(running.reload(&configuration("children: [s1, s2, s3]", "")), Ok(()));
    assert_eq!(running.carry(OLD), old);
    assert!(!count(&running.carry(201..=260)).contains_key(&1));
    running.slow_path.drain("s1", false, Instant::ZERO).expect("a child");
    assert!(count(&running.carry(301..=360)).contains_key(&1));
}

#[test]
fn a_weight_counts_from_when_it_is_given_until_it_is_taken_back() {
    let mut running = Running::new(&configuration("children: [s1, s2]", ""));
    let shares = |running: &Running| -> Vec<usize> {
        running.router.published.load().selections.of(VirtualHostId(0)).selector.shares().into_values().collect()
    };
    assert_eq!(shares(&running), [125, 126]);
    running.slow_path.weigh("s2", Weight::new(300), Instant::ZERO).expect("a child");
    assert_eq!(shares(&running), [63, 188]);
    running.slow_path.weigh("s2", None, Instant::ZERO).expect("a child");
    assert_eq!(shares(&running), [125, 126]);
    let refused = running.slow_path.weigh("s9", None, Instant::ZERO).expect_err("no child");
    assert_eq!(refused.to_string(), "no child \"s9\"; children are s1, s2, s3, s4");
}

#[test]
fn counters_of_a_new_child_start_at_zero_though_its_number_was_anothers() {
    let hosts = |from: u8, to: u8| {
        let host = |n| format!(", {{ name: v{n}, addresses: [192.0.3.{n}], children: [s4] }}");
        (from..to).map(host).collect::<String>()
    };
    // 16 in all, as many as there is room for.
    let mut running = Running::new(&configuration("children: [s1]", &hosts(0, 15)));
    running.carry(OLD);
    let packets = |running: &Running, host: usize| {
        let target = running.router.published.load().virtual_hosts[host].members[0].target;
        running.router.counters.target(target).packets.get()
    };
    assert_eq!(packets(&running, 0), 60);
    let without = configuration("children: [s2]", &hosts(1, 15));
    let at = |hours: u64| Instant::ZERO + std::time::Duration::from_secs(3600 * hours);
    assert!(running.slow_path.reload(configuration("children: [s2, s3]", &hosts(0, 15)), at(0)).is_err());
    let mut gone = without.clone();
    gone.virtual_hosts.remove(0);
    running.slow_path.reload(gone, at(1)).expect("fewer");
    running.slow_path.reload(without, at(99)).expect("as many");
    assert_eq!(packets(&running, 0), 0);
    assert_eq!(count(&running.carry(OLD)), [(2, 60)].into());
    assert_eq!(packets(&running, 0), 60);
}
