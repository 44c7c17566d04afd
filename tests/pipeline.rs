//! The walk of a packet, behaviour by behaviour: packet in, packet out, and exactly the counters that move.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::common::router::{NEXT_HOP_MAC, OneLink, ROUTER_MAC, TestRouter};
use etherparse::{IpHeaders, NetSlice, PacketBuilder, SlicedPacket};
use slr::forward::io::BURST;

/// Two families of virtual hosts on children of two families.
const CONFIG: &str = r#"
router:
  name: test
  level: site
  tunnel_addresses: [198.51.100.1, "2001:db8:1::1"]
  parents: [198.51.100.254, "2001:db8:ffff::/48"]
flows: { capacity_v4: 1000, capacity_v6: 1000, timeouts: { tcp_syn: 10s, tcp_established: 600s, udp: 30s } }
cluster: { table_size: 251 }
children:
  - { name: four, address: 203.0.113.4 }
  - { name: six, address: "2001:db8:2::6" }
virtual_hosts:
  - { name: to-four, addresses: [192.0.2.4, "2001:db8:80::4"], services: [any], children: [four] }
  - { name: to-six, addresses: [192.0.2.6, "2001:db8:80::6"], services: [any], children: [six] }
"#;

const FOUR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 4));
const SIX: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 6));

fn v6(text: &str) -> IpAddr {
    IpAddr::V6(text.parse::<Ipv6Addr>().expect("an address"))
}

/// An IP packet from a client of the destination's family.
struct Packet {
    destination: IpAddr,
    source_port: u16,
    tos: u8,
    dont_fragment: bool,
    ttl: u8,
    payload: usize,
    tcp_flags: Option<&'static str>,
}

fn udp(destination: IpAddr) -> Packet {
    Packet { destination, source_port: 4242, tos: 0, dont_fragment: false, ttl: 57, payload: 20, tcp_flags: None }
}

fn tcp(destination: IpAddr, flags: &'static str) -> Packet {
    Packet { tcp_flags: Some(flags), ..udp(destination) }
}

impl Packet {
    /// The IP packet alone.
    fn ip(&self) -> Vec<u8> {
        let builder = match self.destination {
            IpAddr::V4(destination) => {
                let mut header = etherparse::Ipv4Header::new(
                    0,
                    self.ttl,
                    etherparse::ip_number::UDP,
                    [10, 0, 0, 9],
                    destination.octets(),
                )
                .expect("a header");
                header.dscp = etherparse::IpDscp::try_new(self.tos >> 2).expect("six bits");
                header.ecn = etherparse::IpEcn::try_new(self.tos & 3).expect("two bits");
                header.dont_fragment = self.dont_fragment;
                header.identification = 0x1234;
                PacketBuilder::ip(IpHeaders::Ipv4(header, Default::default()))
            }
            IpAddr::V6(destination) => {
                let header = etherparse::Ipv6Header {
                    traffic_class: self.tos,
                    hop_limit: self.ttl,
                    source: "2001:db8:c::9".parse::<Ipv6Addr>().expect("an address").octets(),
                    destination: destination.octets(),
                    ..Default::default()
                };
                PacketBuilder::ip(IpHeaders::Ipv6(header, Default::default()))
            }
        };
        let payload: Vec<u8> = (0..self.payload).map(|byte| byte as u8).collect();
        let mut bytes = Vec::new();
        match self.tcp_flags {
            None => builder.udp(self.source_port, 80).write(&mut bytes, &payload),
            Some(flags) => {
                let mut step = builder.tcp(self.source_port, 80, 7, 1000);
                for flag in flags.chars() {
                    step = match flag {
                        'S' => step.syn(),
                        'A' => step.ack(1),
                        'F' => step.fin(),
                        'R' => step.rst(),
                        other => panic!("no flag {other}"),
                    };
                }
                step.write(&mut bytes, &payload)
            }
        }
        .expect("a packet");
        bytes
    }

    /// The same in an Ethernet frame.
    fn frame(&self) -> Vec<u8> {
        ethernet(&self.ip())
    }
}

fn ethernet(ip: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if ip[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9][..], &ethertype, ip].concat()
}

/// `inner` in a tunnel packet between two addresses of one family.
fn tunnelled(source: &str, destination: &str, ttl: u8, tos: u8, inner: &[u8]) -> Vec<u8> {
    let number = etherparse::IpNumber(if inner[0] >> 4 == 4 { 4 } else { 41 });
    let mut bytes = Vec::new();
    match (source.parse().expect("an address"), destination.parse().expect("an address")) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header =
                etherparse::Ipv4Header::new(inner.len() as u16, ttl, number, source.octets(), destination.octets())
                    .expect("a header");
            header.ecn = etherparse::IpEcn::try_new(tos & 3).expect("two bits");
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut bytes).expect("a vector");
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = etherparse::Ipv6Header {
                traffic_class: tos,
                hop_limit: ttl,
                payload_length: inner.len() as u16,
                next_header: number,
                source: source.octets(),
                destination: destination.octets(),
                ..Default::default()
            };
            header.write(&mut bytes).expect("a vector");
        }
        _ => panic!("two families"),
    }
    bytes.extend_from_slice(inner);
    ethernet(&bytes)
}

/// What is on the wire towards a child, as an independent parser sees it.
#[derive(Debug, PartialEq)]
struct Outer {
    source: IpAddr,
    destination: IpAddr,
    tos: u8,
    ttl: u8,
    dont_fragment: Option<bool>,
    protocol: u8,
    inner: Vec<u8>,
}

fn outer(frame: &[u8]) -> Outer {
    assert_eq!(frame[..6], NEXT_HOP_MAC.0);
    assert_eq!(frame[6..12], ROUTER_MAC.0);
    let packet = SlicedPacket::from_ethernet(frame).expect("a valid frame");
    match packet.net.expect("an IP packet") {
        NetSlice::Ipv4(slice) => {
            let header = slice.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum, "outer checksum");
            assert_eq!(usize::from(header.total_len), frame.len() - 14, "nothing behind the packet");
            Outer {
                source: header.source.into(),
                destination: header.destination.into(),
                tos: header.dscp.value() << 2 | header.ecn.value(),
                ttl: header.time_to_live,
                dont_fragment: Some(header.dont_fragment),
                protocol: header.protocol.0,
                inner: slice.payload().payload.to_vec(),
            }
        }
        NetSlice::Ipv6(slice) => {
            let header = slice.header().to_header();
            assert_eq!(usize::from(header.payload_length), frame.len() - 54, "nothing behind the packet");
            Outer {
                source: header.source.into(),
                destination: header.destination.into(),
                tos: header.traffic_class,
                ttl: header.hop_limit,
                dont_fragment: None,
                protocol: header.next_header.0,
                inner: slice.payload().payload.to_vec(),
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn ip_in_ip_in_the_four_combinations_of_families() {
    let (router4, router6) = (IpAddr::from([198, 51, 100, 1]), v6("2001:db8:1::1"));
    let (child4, child6) = (IpAddr::from([203, 0, 113, 4]), v6("2001:db8:2::6"));
    for (destination, source, child, protocol) in [
        (FOUR, router4, child4, 4),
        (v6("2001:db8:80::4"), router4, child4, 41),
        (SIX, router6, child6, 4),
        (v6("2001:db8:80::6"), router6, child6, 41),
    ] {
        let mut router = TestRouter::new(CONFIG);
        let packet = Packet { tos: 0xb8, dont_fragment: true, ..udp(destination) };
        let sent = router.carry([packet.frame()]);
        let expected = Outer {
            source,
            destination: child,
            tos: 0xb8,
            ttl: 64,
            dont_fragment: child.is_ipv4().then_some(true),
            protocol,
            inner: packet.ip(),
        };
        assert_eq!(sent.iter().map(|frame| outer(frame)).collect::<Vec<_>>(), [expected], "to {destination}");
        assert_eq!(router.moved(), [("received", 1), ("forwarded", 1), ("flows_inserted", 1)]);
    }
}

#[test]
fn dscp_and_ecn_are_copied_in_all_combinations() {
    for destination in [FOUR, SIX, v6("2001:db8:80::4"), v6("2001:db8:80::6")] {
        let mut router = TestRouter::new(CONFIG);
        let packets: Vec<Packet> = (0..=255).map(|tos| Packet { tos, ..udp(destination) }).collect();
        let sent = router.carry(packets.iter().map(Packet::frame));
        assert_eq!(sent.len(), 256);
        for (tos, (frame, packet)) in (0..=255).zip(sent.iter().zip(&packets)) {
            let outer = outer(frame);
            assert_eq!((outer.tos, &outer.inner), (tos, &packet.ip()), "to {destination}");
        }
    }
}

#[test]
fn dont_fragment_is_copied_and_a_packet_that_may_be_fragmented_has_an_identification_of_its_own() {
    let mut router = TestRouter::new(CONFIG);
    let packets = [false, true, false, false].map(|dont_fragment| Packet { dont_fragment, ..udp(FOUR) });
    let sent = router.carry(packets.iter().map(Packet::frame));
    let flags: Vec<_> = sent.iter().map(|frame| outer(frame).dont_fragment).collect();
    assert_eq!(flags, [Some(false), Some(true), Some(false), Some(false)]);
    let identification = |frame: &[u8]| u16::from_be_bytes([frame[18], frame[19]]);
    assert_eq!(identification(&sent[1]), 0, "an atomic datagram needs none");
    let others: HashSet<u16> = [0, 2, 3].map(|index: usize| identification(&sent[index])).into();
    assert_eq!(others.len(), 3);
}

#[test]
fn link_layer_padding_and_tags_stay_behind() {
    let packet = Packet { payload: 1, ..udp(FOUR) };
    let ip = packet.ip();
    let padded = [packet.frame(), vec![0xee; 17]].concat();
    let tagged = [&padded[..12], &[0x81, 0, 0, 5], &padded[12..]].concat();
    let twice = [&padded[..12], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5], &padded[12..]].concat();
    let mut router = TestRouter::new(CONFIG);
    for frame in router.carry([padded, tagged, twice]) {
        assert_eq!(outer(&frame).inner, ip);
    }
    assert_eq!(router.moved(), [("received", 3), ("forwarded", 3), ("flows_inserted", 1)]);
}

#[test]
fn a_port_with_a_vlan_tags_what_it_sends() {
    let mut router = TestRouter::over(CONFIG, &OneLink { mtu: 1600, vlan: Some(100) });
    for destination in [FOUR, SIX] {
        let sent = router.carry([udp(destination).frame()]);
        assert_eq!(sent[0][12..16], [0x81, 0x00, 0, 100]);
        let untagged = [&sent[0][..12], &sent[0][16..]].concat();
        assert_eq!(outer(&untagged).inner, udp(destination).ip());
    }
}

#[test]
fn the_outer_source_is_spread_over_a_prefix_by_flow() {
    let spread =
        CONFIG.replace("  parents:", "  tunnel_source_prefixes: [198.51.100.128/26, \"2001:db8:5::/64\"]\n  parents:");
    for (destination, prefix) in [(FOUR, "198.51.100.128/26"), (SIX, "2001:db8:5::/64")] {
        let mut router = TestRouter::new(&spread);
        let prefix: ipnet::IpNet = prefix.parse().expect("a prefix");
        let flow = |source_port| Packet { source_port, ..udp(destination) }.frame();
        let sent = router.carry((0..200).map(flow));
        let sources: Vec<IpAddr> = sent.iter().map(|frame| outer(frame).source).collect();
        assert!(sources.iter().all(|source| prefix.contains(source)), "{sources:?}");
        assert!(sources.iter().collect::<HashSet<_>>().len() > 30, "spread");
        let again: Vec<IpAddr> = router.carry((0..200).map(flow)).iter().map(|frame| outer(frame).source).collect();
        assert_eq!(sources, again, "a flow keeps its source");
    }
}

#[test]
fn a_packet_longer_than_the_path_with_its_header_is_dropped() {
    for (destination, payload_max) in [(FOUR, 1600 - 20 - 20 - 8), (v6("2001:db8:80::6"), 1600 - 40 - 40 - 8)] {
        let mut router = TestRouter::new(CONFIG);
        let packet = |payload| Packet { payload, dont_fragment: true, ..udp(destination) }.frame();
        assert_eq!(router.carry([packet(payload_max)]).len(), 1);
        assert_eq!(router.moved(), [("received", 1), ("forwarded", 1), ("flows_inserted", 1)]);
        assert_eq!(router.carry([packet(payload_max + 1)]).len(), 0);
        assert_eq!(router.moved(), [("received", 1), ("too_big", 1)]);
    }
}

#[test]
fn what_is_for_no_virtual_host_is_dropped_and_what_is_for_the_router_is_punted() {
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
    let mut solicitation = Vec::new();
    PacketBuilder::ethernet2([2; 6], [3; 6])
        .ipv6([0xfe; 16], [0xff; 16], 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut solicitation, &[0; 20])
        .expect("a packet");
    let to = |address: &str| udp(address.parse().expect("an address")).frame();
    let mut from_afar = solicitation.clone();
    from_afar[14 + 7] = 254;
    for (frame, counter) in [
        (from_afar, "no_virtual_host"),
        (to("192.0.2.5"), "no_virtual_host"),
        (to("2001:db8:80::5"), "no_virtual_host"),
        (to("198.51.100.1"), "own_address"),
        (to("2001:db8:1::1"), "own_address"),
        (arp, "arp"),
        (solicitation, "neighbour_discovery"),
        (vec![0; 60], "ethertype_unsupported"),
    ] {
        let mut router = TestRouter::new(CONFIG);
        assert!(router.carry([frame]).is_empty());
        assert_eq!(router.moved(), [("received", 1), (counter, 1)]);
    }
}

#[test]
fn a_punted_frame_reaches_the_slow_path_whole_and_a_full_ring_is_counted() {
    let mut router = TestRouter::new(CONFIG);
    let frame = udp("198.51.100.1".parse().expect("an address")).frame();
    router.carry(vec![frame.clone(); 11]);
    assert_eq!(router.moved(), [("received", 11), ("own_address", 8), ("punt_ring_full", 3)]);
    assert_eq!(router.punts.pop().map(|punt| punt.frame().to_vec()), Some(frame));
}

#[test]
fn tunnel_packets_from_parents_take_the_same_walk_with_a_falling_ttl() {
    for (parent, own, destination) in [
        ("198.51.100.254", "198.51.100.1", FOUR),
        ("198.51.100.254", "198.51.100.1", v6("2001:db8:80::6")),
        ("2001:db8:ffff::1", "2001:db8:1::1", FOUR),
        ("2001:db8:ffff::1", "2001:db8:1::1", v6("2001:db8:80::4")),
    ] {
        let mut router = TestRouter::new(CONFIG);
        let inner = udp(destination).ip();
        let sent = router.carry([tunnelled(parent, own, 64, 0, &inner), tunnelled(parent, own, 2, 0, &inner)]);
        let outers: Vec<Outer> = sent.iter().map(|frame| outer(frame)).collect();
        assert_eq!(outers.iter().map(|outer| outer.ttl).collect::<Vec<_>>(), [63, 1], "{parent} to {destination}");
        assert!(outers.iter().all(|outer| outer.inner == inner));
        assert_eq!(router.moved(), [("received", 2), ("forwarded", 2), ("flows_inserted", 1)]);
    }
}

#[test]
fn tunnel_packets_that_must_not_be_taken_off() {
    let (parent, own) = ("198.51.100.254", "198.51.100.1");
    let inner = udp(FOUR).ip();
    let mut spoofed = udp(FOUR).ip();
    spoofed[12..16].copy_from_slice(&[198, 51, 100, 1]);
    fix_checksum(&mut spoofed);
    let nested = tunnelled(parent, own, 9, 0, &inner)[14..].to_vec();
    let mut fragment = tunnelled(parent, own, 9, 0, &inner);
    fragment[20] = 0x20;
    fragment.truncate(14 + 20 + 24);
    fragment[17] = 20 + 24;
    fix_checksum(&mut fragment[14..34]);
    let mut mislabelled = tunnelled(parent, own, 9, 0, &inner);
    mislabelled[23] = 41;
    fix_checksum(&mut mislabelled[14..34]);
    let mut damaged = inner.clone();
    damaged[10] ^= 1;
    for (frame, counter) in [
        (tunnelled("198.51.100.253", own, 9, 0, &inner), "tunnel_stranger"),
        (tunnelled(parent, own, 1, 0, &inner), "ttl_exceeded"),
        (tunnelled(parent, own, 9, 0, &spoofed), "tunnel_spoofed"),
        (tunnelled(parent, own, 9, 0, &nested), "tunnel_nested"),
        (tunnelled(parent, own, 9, 3, &inner), "tunnel_ecn"),
        (fragment, "tunnel_fragment"),
        (mislabelled, "ip_version"),
        (tunnelled(parent, own, 9, 0, &damaged), "ipv4_checksum"),
    ] {
        let mut router = TestRouter::new(CONFIG);
        assert!(router.carry([frame]).is_empty(), "{counter}");
        assert_eq!(router.moved(), [("received", 1), (counter, 1)]);
    }
}

#[test]
fn a_congestion_mark_on_the_tunnel_is_carried_on() {
    for destination in [FOUR, v6("2001:db8:80::4")] {
        let mut router = TestRouter::new(CONFIG);
        let capable = Packet { tos: 2, ..udp(destination) };
        let marked = Packet { tos: 3, ..udp(destination) };
        let sent = router.carry([tunnelled("198.51.100.254", "198.51.100.1", 9, 3, &capable.ip())]);
        let outer = outer(&sent[0]);
        assert_eq!((outer.tos, outer.inner), (3, marked.ip()), "inner header marked, its checksum right");
    }
}

fn fix_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = slr::packet::checksum::checksum(&header[..20]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn a_flow_is_kept_while_it_lasts_and_given_up_when_its_time_is_over() {
    let mut router = TestRouter::new(CONFIG);
    for (flags, wait, moved) in [
        ("S", 0, vec![("flows_inserted", 1)]),
        ("S", 9, vec![]),
        ("S", 11, vec![("flows_inserted", 1), ("flows_expired", 1)]),
        ("A", 1, vec![]),
        ("A", 599, vec![]),
        ("FA", 0, vec![]),
        ("A", 1, vec![]),
        ("S", 0, vec![("flows_inserted", 1), ("flows_expired", 1)]),
        ("R", 0, vec![]),
        ("S", 0, vec![("flows_inserted", 1), ("flows_expired", 1)]),
    ] {
        router.wait(Duration::from_secs(wait));
        assert_eq!(router.carry([tcp(FOUR, flags).frame()]).len(), 1);
        let flows: Vec<_> = router.moved().into_iter().filter(|(label, _)| label.starts_with("flows")).collect();
        assert_eq!(flows, moved, "{flags} after {wait} s");
    }
    assert_eq!(router.counters.flows_active.get(), 1);
    router.wait(Duration::from_secs(3600));
    for _ in 0..1000 {
        router.carry::<&[u8]>([]);
    }
    assert_eq!(router.counters.flows_active.get(), 0, "dead flows are swept without traffic");
}

#[test]
fn a_full_table_still_forwards_and_counts() {
    let small = CONFIG.replace("capacity_v4: 1000", "capacity_v4: 16");
    let mut router = TestRouter::new(&small);
    let sent = router.carry((0..100).map(|source_port| Packet { source_port, ..udp(FOUR) }.frame()));
    assert_eq!(sent.len(), 100);
    assert_eq!(router.moved(), [("received", 100), ("forwarded", 100), ("flows_inserted", 16), ("flows_refused", 84)]);
}

#[test]
fn what_the_port_does_not_take_is_counted() {
    let mut router = TestRouter::new(CONFIG);
    router.worker.io_mut().limit(20);
    let (all, lost) = (BURST as u64 + 8, BURST as u64 - 20);
    let sent = router.carry(vec![udp(FOUR).frame(); BURST + 8]);
    assert_eq!(sent.len(), 28, "20 of the first burst, all of the second of 8");
    assert_eq!(router.moved(), [("received", all), ("forwarded", 28), ("flows_inserted", 1), ("tx_queue_full", lost)]);
}

/// Ten children, so that a wrong choice shows.
fn ten(extra: &str) -> String {
    let children: String =
        (1..=10).map(|number| format!("  - {{ name: c{number}, address: 203.0.113.{number} }}\n")).collect();
    let names: Vec<String> = (1..=10).map(|number| format!("c{number}")).collect();
    format!(
        "router: {{ name: test, level: site, tunnel_addresses: [198.51.100.1] }}\nchildren:\n{children}virtual_hosts:\n  \
         - {{ name: web, addresses: [192.0.2.0/24], services: [any], children: [{}], {extra} }}\n",
        names.join(", ")
    )
}

fn children(router: &mut TestRouter, frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<IpAddr> {
    router.carry(frames).iter().map(|frame| outer(frame).destination).collect()
}

#[test]
fn coarse_flows_keep_a_client_on_one_child_whatever_its_ports_and_protocol() {
    for (extra, all_one) in
        [("flow: 5-tuple", false), ("flow: source, selection: round_robin", true), ("flow: source", true)]
    {
        let mut router = TestRouter::new(&ten(extra));
        let mixed = (0..50).map(|port| if port % 2 == 0 { udp(FOUR) } else { tcp(SIX, "S") }.with_port(port).frame());
        let chosen: HashSet<IpAddr> = children(&mut router, mixed).into_iter().collect();
        assert_eq!(chosen.len() == 1, all_one, "{extra}: {chosen:?}");
    }
}

impl Packet {
    fn with_port(self, source_port: u16) -> Packet {
        Packet { source_port, ..self }
    }
}

#[test]
fn round_robin_goes_round_and_stays_with_a_flow() {
    let mut router = TestRouter::new(&ten("selection: round_robin"));
    let flow = |port| udp(FOUR).with_port(port).frame();
    let first = children(&mut router, (0..20).map(flow));
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 10);
    assert_eq!(first[..10], first[10..]);
    assert_eq!(children(&mut router, (0..20).map(flow)), first);
}

#[test]
fn fragments_follow_their_first_one() {
    let mut router = TestRouter::new(&ten("flow: 5-tuple"));
    let mut expected = Vec::new();
    let mut frames = Vec::new();
    for flow in 0..20_u16 {
        let packet = Packet { payload: 1200, ..udp(FOUR) }.with_port(flow);
        let ip = packet.ip();
        expected.push(children(&mut router, [packet.frame()])[0]);
        frames.extend(cut(&ip, 0x700 + flow, &[400, 800]));
    }
    router.moved();
    let chosen = children(&mut router, frames.clone());
    let thrice: Vec<IpAddr> = expected.into_iter().flat_map(|child| [child; 3]).collect();
    assert_eq!(chosen, thrice);
    assert_eq!(router.moved(), [("received", 60), ("forwarded", 60)]);
}

/// The fragments of an IP packet without options, cut at these bytes of its payload, as frames.
fn cut(ip: &[u8], id: u16, at: &[usize]) -> Vec<Vec<u8>> {
    let header_len = if ip[0] >> 4 == 4 { 20 } else { 40 };
    let payload = &ip[header_len..];
    let bounds = [&[0], at, &[payload.len()]].concat();
    let piece = |bounds: &[usize]| {
        let (offset, data) = (bounds[0] as u16, &payload[bounds[0]..bounds[1]]);
        ethernet(&fragment(&ip[..header_len], id, offset, bounds[1] < payload.len(), data))
    };
    bounds.windows(2).map(piece).collect()
}

/// A fragment of the packet with this IP header.
fn fragment(header: &[u8], id: u16, offset: u16, more: bool, data: &[u8]) -> Vec<u8> {
    let mut header = header.to_vec();
    // The offset counts 8 bytes; in IPv6 it stands above three other bits.
    if header[0] >> 4 == 4 {
        header[2..4].copy_from_slice(&(20 + data.len() as u16).to_be_bytes());
        header[4..6].copy_from_slice(&id.to_be_bytes());
        header[6..8].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
        fix_checksum(&mut header);
    } else {
        header[4..6].copy_from_slice(&(8 + data.len() as u16).to_be_bytes());
        let protocol = std::mem::replace(&mut header[6], 44);
        let ([high, low], [a, b]) = ((offset | u16::from(more)).to_be_bytes(), id.to_be_bytes());
        header.extend([protocol, 0, high, low, 0, 0, a, b]);
    }
    [&header, data].concat()
}

#[test]
fn a_later_fragment_is_no_neighbour_discovery_whatever_its_payload_starts_with() {
    let fragment = |offset_flags: u16, payload: &[u8]| {
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend((8 + payload.len() as u16).to_be_bytes());
        ip.extend([44, 57]);
        ip.extend("2001:db8:c::9".parse::<Ipv6Addr>().expect("an address").octets());
        ip.extend("2001:db8:80::4".parse::<Ipv6Addr>().expect("an address").octets());
        ip.extend([58, 0]);
        ip.extend(offset_flags.to_be_bytes());
        ip.extend([0, 0, 0, 7]);
        ip.extend(payload);
        ethernet(&ip)
    };
    let mut router = TestRouter::new(CONFIG);
    router.carry([fragment(1, &[128, 0, 0, 0, 0, 1, 0, 1])]);
    assert_eq!(router.carry([fragment(8, &[135, 1, 2, 3])]).len(), 1, "the echo request's second fragment");
}

#[test]
fn a_flow_without_an_entry_stays_on_its_child_under_round_robin_too() {
    let full = ten("selection: round_robin").replace("children:\n", "flows: { capacity_v4: 1 }\nchildren:\n");
    let mut router = TestRouter::new(&full);
    router.carry([udp(FOUR).with_port(1).frame()]);
    let chosen: HashSet<IpAddr> = children(&mut router, vec![udp(FOUR).with_port(2).frame(); 20]).into_iter().collect();
    assert_eq!(chosen.len(), 1, "{chosen:?}");
}

#[test]
fn only_flows_with_an_entry_are_counted_as_flows() {
    let mut router = TestRouter::new(&CONFIG.replace("capacity_v4: 1000", "capacity_v4: 1"));
    router.carry([udp(FOUR).with_port(1).frame()]);
    router.moved();
    router.carry(vec![udp(FOUR).with_port(2).frame(); 20]);
    let flows: u64 = router.tables.virtual_hosts[0]
        .members
        .iter()
        .map(|member| router.counters.target(member.target).flows.get())
        .sum();
    assert_eq!(flows, 1, "the one that has an entry");
}
#[path = "pipeline/flows.rs"]
mod flows;
#[path = "pipeline/fragments.rs"]
mod fragments;
#[path = "pipeline/headers.rs"]
mod headers;
#[path = "pipeline/icmp_errors.rs"]
mod icmp_errors;
#[path = "pipeline/too_long.rs"]
mod too_long;
