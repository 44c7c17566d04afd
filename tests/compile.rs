//! What of the configuration reaches the forwarding snapshot, and that nothing takes another thing's place.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::common::router::{OneLink, TestRouter};
use etherparse::{IpNumber, PacketBuilder};
use slr::config::Config;
use slr::control::compile::{Configured, compile};
use slr::control::neighbours::Neighbours;
use slr::forward::tables::ForwardTables;
use slr::units::{MacAddr, PortIndex, VirtualHostId};

fn parsed(yaml: &str) -> Config {
    Config::parse(yaml, "test.yaml").unwrap_or_else(|error| panic!("{error}"))
}

fn compiled(yaml: &str) -> ForwardTables {
    compile(&parsed(yaml), &OneLink { mtu: 1600, vlan: None })
}

/// A frame of `kind` to an IPv4 or IPv6 address: `udp`, `gre`, or TCP with the flags named by their first letters.
fn frame(kind: &str, destination: &str, source_port: u16, payload: usize) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]);
    let ip = match destination.parse().expect("an address") {
        IpAddr::V4(destination) => ethernet.ipv4([10, 7, 0, 9], destination.octets(), 57),
        IpAddr::V6(destination) => ethernet.ipv6([0x20; 16], destination.octets(), 57),
    };
    let (mut bytes, payload) = (Vec::new(), vec![0; payload]);
    match kind {
        "udp" => ip.udp(source_port, 80).write(&mut bytes, &payload),
        "gre" => ip.write(&mut bytes, IpNumber(47), &payload),
        flags => {
            let step = flags.chars().fold(ip.tcp(source_port, 80, 7, 1000), |step, flag| match flag {
                'S' => step.syn(),
                'A' => step.ack(1),
                'F' => step.fin(),
                'R' => step.rst(),
                other => panic!("no flag {other}"),
            });
            step.write(&mut bytes, &payload)
        }
    }
    .expect("a packet");
    bytes
}

#[test]
fn every_state_has_the_timeout_that_is_configured_for_it() {
    const CONFIG: &str = "
router: { name: test, tunnel_addresses: [198.51.100.1] }
flows: { timeouts: { tcp_syn: 11s, tcp_established: 22s, tcp_fin: 33s, tcp_rst: 44s, udp: 55s, other: 66s } }
children: [{ name: one, address: 203.0.113.1 }]
virtual_hosts:
  - { name: fine, addresses: [192.0.2.1], children: [one] }
  - { name: coarse, addresses: [192.0.2.2], flow: source, children: [one] }
";
    for (destination, first, next, seconds) in [
        ("192.0.2.1", "S", "S", 11),
        ("192.0.2.1", "A", "A", 22),
        ("192.0.2.1", "FA", "A", 33),
        ("192.0.2.1", "R", "R", 44),
        ("192.0.2.1", "udp", "udp", 55),
        ("192.0.2.1", "gre", "gre", 66),
        ("192.0.2.2", "udp", "udp", 66),
        ("192.0.2.2", "S", "S", 66),
    ] {
        let mut router = TestRouter::new(CONFIG);
        router.carry([frame(first, destination, 4242, 20)]);
        let timeout = Duration::from_secs(seconds);
        let flow_counters = |router: &mut TestRouter| -> Vec<_> {
            router.carry([frame(next, destination, 4242, 20)]);
            router.moved().into_iter().filter(|(label, _)| label.starts_with("flows")).collect()
        };
        router.moved();
        router.wait(timeout);
        assert_eq!(flow_counters(&mut router), [], "{first} to {destination} is kept for {seconds} s");
        router.wait(timeout + Duration::from_millis(1));
        let over = [("flows_inserted", 1), ("flows_expired", 1)];
        assert_eq!(flow_counters(&mut router), over, "{first} to {destination} is given up after {seconds} s");
    }
}

/// Children `a`, `b` and `c`; one virtual host of them with `settings`.
fn three(cluster: &str, settings: &str) -> String {
    format!(
        "router: {{ name: test, tunnel_addresses: [198.51.100.1] }}\n\
         cluster: {{ {cluster} }}\n\
         children:\n\
         \x20 - {{ name: a, address: 203.0.113.1 }}\n\
         \x20 - {{ name: b, address: 203.0.113.2 }}\n\
         \x20 - {{ name: c, address: 203.0.113.3 }}\n\
         virtual_hosts: [{{ name: web, addresses: [192.0.2.1], {settings} }}]\n"
    )
}

#[test]
fn weights_costs_tiers_and_table_sizes_decide_how_new_flows_are_shared() {
    const SMALL: &str = "table_size: 13";
    /// The cluster's settings, the virtual host's, and slots or turns by position in its list of children.
    type Row = (&'static str, &'static str, &'static [(usize, usize)]);
    let table: &[Row] = &[
        (SMALL, "children: [a, b, c], selection: round_robin", &[(0, 1), (1, 1), (2, 1)]),
        (SMALL, "children: [c], table_size: 31", &[(0, 31)]),
        (SMALL, "children: [c]", &[(0, 13)]),
        ("", "children: [c]", &[(0, 65_537)]),
        (
            SMALL,
            "children: [{ name: a, weight: 3 }, { name: b, weight: 1 }, { name: c, weight: 2 }]",
            &[(0, 7), (1, 2), (2, 4)],
        ),
        (
            SMALL,
            "selection: round_robin, children: [{ name: a, weight: 3 }, { name: b, weight: 0 }, c]",
            &[(0, 3), (2, 100)],
        ),
        (SMALL, "children: [{ name: a, weight: 0 }, { name: b, weight: 7 }]", &[(1, 13)]),
        (SMALL, "children: [{ name: a, weight: 0 }]", &[]),
        (SMALL, "children: [{ name: a, cost: 2 }, { name: b, cost: 1.5 }, c], selection: least_cost", &[(2, 13)]),
        (
            SMALL,
            "children: [{ name: a, cost: 2 }, { name: b, cost: 1.5 }, { name: c, cost: 3 }], selection: least_cost",
            &[(1, 13)],
        ),
        (SMALL, "children: [{ name: a, cost: 2 }, { name: b, cost: 1 }], selection: round_robin", &[(0, 1), (1, 1)]),
        (SMALL, "children: [{ name: a, tier: 2 }, { name: b, tier: 1 }, { name: c, tier: 3 }]", &[(1, 13)]),
        (SMALL, "children: [{ name: a, tier: 1 }, { name: b, weight: 0 }]", &[(0, 13)]),
    ];
    for (cluster, settings, expected) in table {
        let tables = compiled(&three(cluster, settings));
        let expected: BTreeMap<usize, usize> = expected.iter().copied().collect();
        assert_eq!(tables.selections.of(VirtualHostId(0)).selector.shares(), expected, "{cluster} {settings}");
    }
}

#[test]
fn members_are_children_by_name_each_with_a_target_of_its_own() {
    let yaml = three("", "children: [c, a] }, { name: dns, addresses: [192.0.2.2], children: [a, b, c]");
    let tables = compiled(&yaml);
    let members: Vec<Vec<(&str, String, u32)>> = tables
        .virtual_hosts
        .iter()
        .map(|host| host.members.iter().map(|m| (&m.child[..], m.address.to_string(), m.target.0)).collect())
        .collect();
    let member = |name, address: &str, target| (name, address.to_owned(), target);
    let web = vec![member("c", "203.0.113.3", 0), member("a", "203.0.113.1", 1)];
    let dns = vec![member("a", "203.0.113.1", 2), member("b", "203.0.113.2", 3), member("c", "203.0.113.3", 4)];
    assert_eq!(members, [web, dns]);
}

const KEYS: [&str; 2] = ["000102030405060708090a0b0c0d0e0f", "100102030405060708090a0b0c0d0e0f"];

/// Ten children behind one virtual host, in the order of `numbers`.
fn ten(name: &str, key: &str, numbers: impl Iterator<Item = u8> + Clone) -> String {
    let children: String =
        numbers.clone().map(|number| format!("  - {{ name: c{number}, address: 203.0.113.{number} }}\n")).collect();
    let names: Vec<String> = numbers.map(|number| format!("c{number}")).collect();
    format!(
        "router: {{ name: {name}, tunnel_addresses: [198.51.100.1] }}\ncluster: {{ key: {key} }}\nchildren:\n{children}\
         virtual_hosts: [{{ name: web, addresses: [192.0.2.1], children: [{}] }}]\n",
        names.join(", ")
    )
}

/// Who gets each of 200 flows, as the wire shows it.
fn choices(yaml: &str) -> Vec<[u8; 4]> {
    let mut router = TestRouter::new(yaml);
    let sent = router.carry((0..200).map(|port| frame("udp", "192.0.2.1", port, 20)));
    sent.iter().map(|frame| [frame[30], frame[31], frame[32], frame[33]]).collect()
}

#[test]
fn routers_with_one_cluster_key_choose_alike_and_those_with_another_do_not() {
    let mine = choices(&ten("mine", KEYS[0], 1..=10));
    assert_eq!(choices(&ten("yours", KEYS[0], (1..=10).rev())), mine, "whatever the order of children");
    let other = choices(&ten("other", KEYS[1], 1..=10));
    let same = mine.iter().zip(&other).filter(|(a, b)| a == b).count();
    assert!(same < 60, "{same} of 200 alike, 20 expected by chance");
}

#[test]
fn the_cluster_key_is_that_of_the_hash_and_of_the_table() {
    let [one, other] = KEYS.map(|key| compiled(&ten("test", key, 1..=10)));
    // SipHash-1-3 of nothing under its reference key.
    assert_eq!(one.cluster.hash(b""), 0xabac_0158_050f_c4dc);
    assert_ne!(other.cluster.hash(b""), 0xabac_0158_050f_c4dc);
    let select = |tables: &ForwardTables| -> Vec<_> {
        (0..1000_u64)
            .map(|slot| tables.selections.of(VirtualHostId(0)).selector.select(slot * (u64::MAX / 1000)))
            .collect()
    };
    let again = compiled(&ten("again", KEYS[0], 1..=10));
    assert_eq!(select(&one), select(&again));
    let same = select(&one).into_iter().zip(select(&other)).filter(|(a, b)| a == b).count();
    assert!(same < 200, "{same} of 1000 hash values have the same child, 100 expected by chance");
}

/// Two ports, and children by every kind of way.
const LINKS: &str = r#"
router:
  name: test
  tunnel_addresses: [198.51.100.1, "2001:db8:1::1"]
  parents: [198.51.100.254, "2001:db8:ffff::/48"]
ports:
  - { name: left, device: net_null0, mtu: 1400, addresses: [10.0.0.1/24, "2001:db8:a::1/64"], vlan: 7 }
  - { name: right, device: net_null1, mtu: 1600, addresses: [10.0.1.1/24, 10.0.2.1/24] }
routes:
  - { prefix: 203.0.113.0/24, via: 10.0.1.253 }
  - { prefix: 203.0.113.128/25, via: 10.0.0.253 }
  - { prefix: 0.0.0.0/0, via: 10.0.0.254 }
  - { prefix: "::/0", via: "2001:db8:a::fe" }
neighbours:
  - { address: 10.0.0.254, mac: "02:00:00:00:00:a1" }
  - { address: 10.0.1.253, mac: "02:00:00:00:00:a2" }
  - { address: 10.0.0.253, mac: "02:00:00:00:00:a3" }
  - { address: 10.0.1.11, mac: "02:00:00:00:00:a4" }
  - { address: "2001:db8:a::fe", mac: "02:00:00:00:00:a5" }
children:
  - { name: direct, address: 10.0.1.11 }
  - { name: silent, address: 10.0.1.12 }
  - { name: by-24, address: 203.0.113.1 }
  - { name: by-25, address: 203.0.113.129 }
  - { name: by-default, address: 8.8.8.8 }
  - { name: six, address: "2001:db8:c::1" }
virtual_hosts:
  - { name: to-direct, addresses: [192.0.2.1], children: [direct] }
  - { name: to-silent, addresses: [192.0.2.2], children: [silent] }
  - { name: to-by-24, addresses: [192.0.2.3], children: [by-24] }
  - { name: to-by-25, addresses: [192.0.2.4], children: [by-25] }
  - { name: to-by-default, addresses: [192.0.2.5], children: [by-default] }
  - { name: to-six, addresses: [192.0.2.6], children: [six] }
"#;

const MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 0x10]), MacAddr([2, 0, 0, 0, 0, 0x11])];

/// A router whose children are reached as [`LINKS`] says.
fn linked() -> TestRouter {
    let config = parsed(LINKS);
    let neighbours = Neighbours::new(&config, &MACS, 1);
    TestRouter::over(LINKS, &Configured { config: &config, neighbours: &neighbours })
}

/// What leaves when `frame` arrives, with its port.
fn sent(router: &mut TestRouter, frame: &[u8]) -> Vec<(PortIndex, Vec<u8>)> {
    router.worker.io_mut().arrive(PortIndex(0), frame);
    router.worker.run();
    router.worker.io_mut().take_sent()
}

#[test]
fn each_child_is_sent_to_by_the_longest_route_with_the_link_header_of_its_port() {
    let mut router = linked();
    const TAGGED: &[u8] = &[0x81, 0, 0, 7];
    for (destination, port, next_hop, tag, ethertype, child) in [
        ("192.0.2.1", 1, 0xa4, &[][..], [8, 0], &[10, 0, 1, 11][..]),
        ("192.0.2.3", 1, 0xa2, &[][..], [8, 0], &[203, 0, 113, 1][..]),
        ("192.0.2.4", 0, 0xa3, TAGGED, [8, 0], &[203, 0, 113, 129][..]),
        ("192.0.2.5", 0, 0xa1, TAGGED, [8, 0], &[8, 8, 8, 8][..]),
        ("192.0.2.6", 0, 0xa5, TAGGED, [0x86, 0xdd], &[0x20, 1, 0xd, 0xb8, 0, 0xc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    ] {
        let leaving = sent(&mut router, &frame("udp", destination, 4242, 20));
        let [(by, frame)] = &leaving[..] else { panic!("to {destination}: {leaving:?}") };
        assert_eq!(*by, PortIndex(port), "to {destination}");
        let link = [&[2, 0, 0, 0, 0, next_hop], &MACS[usize::from(port)].0[..], tag, &ethertype].concat();
        assert!(frame.starts_with(&link), "to {destination}: {frame:02x?}");
        let ip = &frame[link.len()..];
        let to = if child.len() == 4 { &ip[16..20] } else { &ip[24..40] };
        assert_eq!(to, child, "to {destination}");
    }
}

#[test]
fn a_child_whose_next_hop_is_not_known_drops_and_says_so() {
    let mut router = linked();
    assert_eq!(sent(&mut router, &frame("udp", "192.0.2.2", 4242, 20)), []);
    let moved = router.moved();
    assert_eq!(moved, [("received", 1), ("flows_inserted", 1), ("no_neighbour", 1)]);
}

#[test]
fn the_longest_packet_is_that_of_the_port() {
    for (destination, mtu) in [("192.0.2.1", 1600), ("192.0.2.5", 1400)] {
        let mut router = linked();
        let udp = |length: usize| frame("udp", destination, 4242, length - 20 - 20 - 8);
        assert_eq!(sent(&mut router, &udp(mtu)).len(), 1, "{mtu} to {destination}");
        router.moved();
        assert_eq!(sent(&mut router, &udp(mtu + 1)), []);
        assert_eq!(router.moved(), [("received", 1), ("too_big", 1)], "to {destination}");
    }
}

#[test]
fn own_addresses_are_those_of_the_tunnels_and_of_every_port() {
    for (address, counter) in [
        ("198.51.100.1", "own_address"),
        ("2001:db8:1::1", "own_address"),
        ("10.0.0.1", "own_address"),
        ("2001:db8:a::1", "own_address"),
        ("10.0.1.1", "own_address"),
        ("10.0.2.1", "own_address"),
        ("10.0.0.2", "no_virtual_host"),
        ("2001:db8:a::", "no_virtual_host"),
    ] {
        let mut router = linked();
        assert_eq!(sent(&mut router, &frame("udp", address, 4242, 20)), []);
        assert_eq!(router.moved(), [("received", 1), (counter, 1)], "to {address}");
    }
}

#[test]
fn parents_are_those_of_the_configuration() {
    let router = linked();
    for (address, is_parent) in [
        ("198.51.100.254", true),
        ("198.51.100.253", false),
        ("198.51.100.255", false),
        ("2001:db8:ffff::", true),
        ("2001:db8:ffff:ffff::9", true),
        ("2001:db8:fffe:ffff::9", false),
        ("2001:db9:0::", false),
    ] {
        assert_eq!(router.tables.parents.contain(address.parse().expect("an address")), is_parent, "{address}");
    }
}
