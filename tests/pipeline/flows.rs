//! What a flow is, how long it and a datagram's fragments are remembered, and what is counted of it.

use slr::units::{PortIndex, VirtualHostId};

use super::*;

const SIX_TO_TEN: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 4));

/// As [`ten`], for both families of packets.
fn ten_for_both(extra: &str) -> String {
    ten(extra).replace("192.0.2.0/24]", "192.0.2.0/24, \"2001:db8:80::/48\"]")
}

/// A datagram to `destination` in two fragments.
fn fragments(destination: IpAddr, source_port: u16, id: u16) -> [Vec<u8>; 2] {
    let ip = Packet { payload: 1200, ..udp(destination) }.with_port(source_port).ip();
    cut(&ip, id, &[800]).try_into().expect("two")
}

#[test]
fn a_reused_fragment_identification_belongs_to_the_newest_datagram() {
    for destination in [FOUR, SIX_TO_TEN] {
        let mut router = TestRouter::new(&ten_for_both("selection: round_robin"));
        let datagrams = [1, 2, 1].map(|source_port| fragments(destination, source_port, 77));
        let chosen = children(&mut router, datagrams.concat());
        assert_ne!(chosen[0], chosen[2], "two flows, two children");
        let by_flow = [chosen[0], chosen[2], chosen[0]];
        assert_eq!(chosen, by_flow.map(|child| [child; 2]).concat(), "to {destination}");
    }
}

#[test]
fn a_datagram_is_remembered_for_30_s_after_its_last_fragment() {
    for destination in [FOUR, SIX_TO_TEN] {
        let mut router = TestRouter::new(&ten_for_both("flow: 5-tuple"));
        let mut pieces = cut(&Packet { payload: 1200, ..udp(destination) }.ip(), 77, &[400, 600, 800]).into_iter();
        router.carry(pieces.next());
        router.moved();
        for (wait, moved) in [(29_000, Some("forwarded")), (30_000, Some("forwarded")), (30_001, None)] {
            router.wait(Duration::from_millis(wait));
            router.carry(pieces.next());
            let moved: Vec<_> = [Some("received"), moved].into_iter().flatten().map(|label| (label, 1)).collect();
            assert_eq!(router.moved(), moved, "to {destination} after {wait} ms");
        }
        assert_eq!(router.counters.held.get(), 1, "it waits for another first one");
    }
}

/// Times are kept in milliseconds modulo 2^32, so that what is not swept looks young again.
#[test]
fn what_is_over_stays_over_when_the_clock_wraps() {
    for destination in [FOUR, SIX_TO_TEN] {
        let mut router = TestRouter::new(&ten_for_both("flow: 5-tuple"));
        let [first, later] = fragments(destination, 1, 77);
        router.carry([first]);
        router.wait(Duration::from_secs(120));
        router.carry::<&[u8]>([]);
        router.moved();
        router.wait(Duration::from_millis(1 << 32) - Duration::from_secs(119));
        router.carry([later]);
        assert_eq!(router.moved(), [("received", 1)], "to {destination}");
        assert_eq!(router.counters.held.get(), 1, "to {destination}");
    }
}

#[test]
fn dead_flows_of_both_families_are_swept_without_traffic() {
    for destination in [FOUR, v6("2001:db8:80::4")] {
        let mut router = TestRouter::new(CONFIG);
        router.carry((0..50).map(|port| udp(destination).with_port(port).frame()));
        assert_eq!(router.counters.flows_active.get(), 50);
        router.moved();
        router.wait(Duration::from_secs(31));
        // A table for 1000 flows has 44 groups of slots; each idle turn visits one.
        for _ in 0..44 {
            router.carry::<&[u8]>([]);
        }
        assert_eq!(router.counters.flows_active.get(), 0, "to {destination}");
        assert_eq!(router.moved(), [("flows_expired", 50)], "to {destination}");
    }
}

#[test]
fn bytes_are_those_of_the_client_s_packet_without_padding_and_tunnel() {
    let mut router = TestRouter::new(CONFIG);
    let [empty, short, long] = [0, 1, 999].map(|payload| Packet { payload, ..udp(FOUR) });
    let over_ipv6 = Packet { payload: 300, ..udp(v6("2001:db8:80::6")) };
    let padded = [short.frame(), vec![0; 17]].concat();
    let from_parent = tunnelled("198.51.100.254", "198.51.100.1", 9, 0, &over_ipv6.ip());
    router.carry([empty.frame(), padded, long.frame(), over_ipv6.frame(), from_parent]);
    for (host, packets, bytes) in [(0, 3, 3 * 28 + 1000), (1, 2, 2 * (48 + 300))] {
        let target = router.tables.virtual_hosts[VirtualHostId(host).index()].members[0].target;
        let counters = router.counters.target(target);
        let counted = (counters.packets.get(), counters.bytes.get(), counters.flows.get());
        assert_eq!(counted, (packets, bytes, 1), "virtual host {host}");
    }
}

#[test]
fn one_client_s_coarse_flows_to_two_virtual_hosts_are_two() {
    let coarse = CONFIG.replace("services:", "flow: source, services:");
    for (one, other) in [(FOUR, SIX), (v6("2001:db8:80::4"), v6("2001:db8:80::6"))] {
        let mut router = TestRouter::new(&coarse);
        let chosen = children(&mut router, [one, other, one, other].map(|destination| udp(destination).frame()));
        let (child4, child6) = (IpAddr::from([203, 0, 113, 4]), v6("2001:db8:2::6"));
        assert_eq!(chosen, [child4, child6, child4, child6]);
        assert_eq!(router.moved(), [("received", 4), ("forwarded", 4), ("flows_inserted", 2)]);
    }
}

/// A packet of another client than the usual one.
fn from_client(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let mut ip = udp(destination).ip();
    match source {
        IpAddr::V4(source) => {
            ip[12..16].copy_from_slice(&source.octets());
            fix_checksum(&mut ip);
        }
        IpAddr::V6(source) => ip[8..24].copy_from_slice(&source.octets()),
    }
    ethernet(&ip)
}

#[test]
fn each_family_s_clients_are_told_apart_by_its_own_prefix_length() {
    type Client = fn(u8) -> IpAddr;
    let table: [(&str, IpAddr, Client, usize); 6] = [
        ("v4: 24, v6: 56", FOUR, |n| [10, 1, 2, n].into(), 1),
        ("v4: 24, v6: 56", FOUR, |n| [10, 1, n, 2].into(), 10),
        ("v4: 24, v6: 56", SIX_TO_TEN, |n| v6(&format!("2001:db8:c:1{n:02x}::9")), 1),
        ("v4: 24, v6: 56", SIX_TO_TEN, |n| v6(&format!("2001:db8:c:{n:02x}00::9")), 10),
        ("v4: 32", SIX_TO_TEN, |n| v6(&format!("2001:db8:c::{n:x}")), 10),
        ("v6: 16", FOUR, |n| [10, 1, 2, n].into(), 10),
    ];
    for (lengths, destination, client, expected) in table {
        let mut router =
            TestRouter::new(&ten_for_both(&format!("flow: {{ source: {{ {lengths} }} }}, selection: round_robin")));
        let chosen = children(&mut router, (1..=10).map(|n| from_client(client(n), destination)));
        let distinct = chosen.iter().collect::<HashSet<_>>().len();
        assert_eq!((chosen.len(), distinct), (10, expected), "{lengths}: {} and so on", client(1));
    }
}

#[test]
fn more_new_flows_than_a_second_may_bring_are_forwarded_without_entries() {
    let config = ten("selection: round_robin");
    let mut router = TestRouter::new(&config.replace("children:\n", "flows: { inserts_per_second: 500 }\nchildren:\n"));
    let packets = |ports: std::ops::Range<u16>, flags: &'static str| {
        ports.map(move |port| tcp(FOUR, flags).with_port(port).frame()).collect::<Vec<_>>()
    };
    let established = children(&mut router, packets(0..10, "S"));
    children(&mut router, packets(0..10, "A"));
    router.moved();
    // A tenth of a second can be caught up on, and ten of that were used.
    let flood = children(&mut router, packets(1_000..2_000, "S"));
    let moved = [("received", 1000), ("forwarded", 1000), ("flows_inserted", 40), ("flows_over_limit", 960)];
    assert_eq!(router.moved(), moved);
    assert_eq!(children(&mut router, packets(1_000..2_000, "S")), flood, "each to the same child again");
    router.moved();
    assert_eq!(children(&mut router, packets(0..10, "A")), established);
    assert_eq!(router.moved(), [("received", 10), ("forwarded", 10)], "the established have their entries");
    router.wait(Duration::from_millis(20));
    children(&mut router, packets(3_000..4_000, "S"));
    assert_eq!(router.moved()[2..], [("flows_inserted", 10), ("flows_over_limit", 990)]);
}

/// Half a million SYNs a second, each from another address, for a second; 200 clients go on meanwhile.
#[test]
fn a_flood_of_syns_costs_no_established_flow_its_entry() {
    const TURNS: u32 = 100;
    const SYNS_PER_TURN: u32 = 5_000;
    let flows = "flows: { capacity_v4: 20000, inserts_per_second: 5000, timeouts: { tcp_syn: 5s } }\nchildren:\n";
    let mut router = TestRouter::new(&ten("selection: round_robin").replace("children:\n", flows));
    let established = |flags: &'static str| (0..200).map(move |port| tcp(FOUR, flags).with_port(port).frame());
    let chosen = children(&mut router, established("S"));
    let mut syn = tcp(FOUR, "S").frame();
    for turn in 0..TURNS {
        router.wait(Duration::from_secs(1) / TURNS);
        for number in 0..SYNS_PER_TURN {
            syn[26..30].copy_from_slice(&(0x0b00_0000 + turn * SYNS_PER_TURN + number).to_be_bytes());
            fix_checksum(&mut syn[14..34]);
            router.worker.io_mut().arrive(PortIndex(0), &syn);
        }
        assert_eq!(router.carry::<&[u8]>([]).len(), SYNS_PER_TURN as usize);
        assert_eq!(children(&mut router, established("A")), chosen, "after {turn} turns");
    }
    // A tenth of a second's flows may come at once.
    let (made, counters) = (router.counters.flows_inserted.get(), &router.counters);
    assert!((5_000..=5_500).contains(&made), "{made} entries");
    assert_eq!(made + counters.flows_over_limit.get(), 200 + u64::from(TURNS * SYNS_PER_TURN));
    assert_eq!(counters.flows_refused.get(), 0);
}
