//! What a router with `forwarding: on` does with packets for no service: packet in, packet out, counters.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::common::router::{ROUTER_MAC, TestRouter};
use etherparse::{IpHeaders, PacketBuilder, PacketHeaders};
use slr::clock::Instant;
use slr::config::Config;
use slr::control::compile::{Compiler, Configured};
use slr::control::neighbours::Neighbours;
use slr::control::slow_path::SlowPath;
use slr::units::{MacAddr, PortIndex};

const SERVERS_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);
const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 1, 0xfe]);
const SERVER: MacAddr = MacAddr([2, 0, 0, 0, 1, 0x0a]);
const CLIENTS: PortIndex = PortIndex(0);
const SERVERS: PortIndex = PortIndex(1);

fn config(forwarding: &str) -> Config {
    let text = format!(
        r#"
router: {{ name: test, tunnel_addresses: [10.1.0.1, "2001:db8:b::1"] }}
forwarding: {forwarding}
ports:
  - {{ name: clients, device: net_null0, mtu: 1400, addresses: [10.0.0.1/24, "2001:db8:a::1/64"] }}
  - {{ name: servers, device: net_null1, mtu: 1600, vlan: 7, addresses: [10.1.0.1/24, "2001:db8:b::1/64"] }}
routes:
  - {{ prefix: 0.0.0.0/0, via: 10.0.0.254 }}
  - {{ prefix: "2000::/3", via: "2001:db8:a::fe" }}
neighbours:
  - {{ address: 10.0.0.254, mac: "{GATEWAY}" }}
  - {{ address: "2001:db8:a::fe", mac: "{GATEWAY}" }}
  - {{ address: 10.1.0.10, mac: "{SERVER}" }}
  - {{ address: "2001:db8:b::10", mac: "{SERVER}" }}
children: [{{ name: s, address: 10.1.0.10 }}]
virtual_hosts:
  - {{ name: web, addresses: [192.0.2.1], services: [tcp/80], echo: router, children: [s] }}
"#
    );
    Config::parse(&text, "test.yaml").unwrap_or_else(|error| panic!("{error}"))
}

struct Whole {
    router: TestRouter,
    slow_path: SlowPath,
}

impl Whole {
    fn new(forwarding: &str) -> Whole {
        let config = config(forwarding);
        let neighbours = Neighbours::new(&config, &[ROUTER_MAC, SERVERS_MAC], 1);
        let mut router = TestRouter::of(&config, &Configured { config: &config, neighbours: &neighbours });
        let compiler = std::mem::replace(&mut router.compiler, Compiler::new(0));
        let end = router.end();
        let slow_path = SlowPath::new(Arc::new(config), compiler, neighbours, router.published.clone(), vec![end]);
        Whole { router, slow_path }
    }

    /// What leaves when a frame arrives, at once and after the slow path has seen it.
    fn arrive(&mut self, port: PortIndex, frame: &[u8], at: u64) -> Vec<(PortIndex, Vec<u8>)> {
        let now = Instant::ZERO + Duration::from_secs(100 + at);
        self.router.worker.io_mut().arrive(port, frame);
        self.router.worker.run();
        self.slow_path.pass(now);
        self.router.worker.run();
        assert!(self.router.counters.packets().conserved());
        self.router.worker.io_mut().take_sent()
    }

    /// The same, without the questions and announcements that the router sends by itself.
    fn answers(&mut self, port: PortIndex, frame: &[u8], at: u64) -> Vec<(PortIndex, Vec<u8>)> {
        let sent = self.arrive(port, frame, at);
        let is_ip = |frame: &[u8]| {
            PacketHeaders::from_ethernet_slice(frame).is_ok_and(|headers| {
                // Neighbour discovery has hop limit 255.
                !matches!(headers.net, None | Some(etherparse::NetHeaders::Arp(_))) && !is_discovery(frame)
            })
        };
        sent.into_iter().filter(|(_, frame)| is_ip(frame)).collect()
    }
}

fn is_discovery(frame: &[u8]) -> bool {
    let ip = if frame[12..14] == [0x81, 0] { &frame[18..] } else { &frame[14..] };
    ip[0] >> 4 == 6 && ip[6] == 58 && (133..=137).contains(&ip[40])
}

/// A UDP datagram with so many bytes of data.
fn udp(to_mac: MacAddr, (from, to): (&str, &str), ttl: u8, len: usize, dont_fragment: bool) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(SERVER.0, to_mac.0);
    let ip = match (from.parse().expect("an address"), to.parse().expect("an address")) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = etherparse::Ipv4Header::new(0, ttl, etherparse::IpNumber::UDP, from.octets(), to.octets())
                .expect("a header");
            header.dont_fragment = dont_fragment;
            ethernet.ip(IpHeaders::Ipv4(header, Default::default()))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), ttl),
        _ => panic!("two families"),
    };
    let mut bytes = Vec::new();
    ip.udp(4242, 53).write(&mut bytes, &vec![7; len]).expect("a packet");
    bytes
}

/// The IP packet in a frame of a port with or without a tag.
fn ip(port: PortIndex, frame: &[u8]) -> &[u8] {
    if port == SERVERS { &frame[18..] } else { &frame[14..] }
}

const OUT: (&str, &str) = ("10.1.0.10", "198.51.100.9");
const OUT6: (&str, &str) = ("2001:db8:b::10", "2001:db8:ffff::9");

#[test]
fn packets_go_on_with_another_link_layer_and_a_ttl_less_one() {
    for (forwarding, name, port, to_mac, addresses, out) in [
        ("on", "to the gateway", SERVERS, SERVERS_MAC, OUT, Some((CLIENTS, GATEWAY))),
        ("on", "to the gateway", SERVERS, SERVERS_MAC, OUT6, Some((CLIENTS, GATEWAY))),
        ("on", "to a neighbour", CLIENTS, ROUTER_MAC, (OUT.1, OUT.0), Some((SERVERS, SERVER))),
        ("on", "to a neighbour", CLIENTS, ROUTER_MAC, (OUT6.1, OUT6.0), Some((SERVERS, SERVER))),
        ("on", "back by the same port", CLIENTS, ROUTER_MAC, ("10.0.0.9", "203.0.113.1"), Some((CLIENTS, GATEWAY))),
        ("on", "for another station", SERVERS, GATEWAY, OUT, None),
        ("on", "for all stations", SERVERS, MacAddr([0xff; 6]), OUT, None),
        ("on", "a virtual host's address, not its service", SERVERS, SERVERS_MAC, ("10.1.0.10", "192.0.2.1"), None),
        ("on", "to a group", SERVERS, SERVERS_MAC, ("10.1.0.10", "224.0.0.9"), None),
        ("on", "from the link alone", SERVERS, SERVERS_MAC, ("fe80::9", OUT6.1), None),
        ("on", "to a subnet's broadcast address", CLIENTS, ROUTER_MAC, ("10.0.0.9", "10.1.0.255"), None),
        ("off", "to the gateway", SERVERS, SERVERS_MAC, OUT, None),
        ("off", "to a neighbour", CLIENTS, ROUTER_MAC, (OUT6.1, OUT6.0), None),
    ] {
        let mut whole = Whole::new(forwarding);
        let mut frame = udp(to_mac, addresses, 64, 20, true);
        if port == SERVERS {
            frame.splice(12..12, [0x81, 0, 0, 7]);
        }
        let sent = whole.answers(port, &frame, 0);
        let Some((out_port, mac)) = out else {
            assert!(sent.is_empty(), "{name}: {sent:?}");
            continue;
        };
        let [(sent_port, sent)] = &sent[..] else { panic!("{name}: {sent:?}") };
        assert_eq!((*sent_port, &sent[..6]), (out_port, &mac.0[..]), "{name}");
        assert_eq!(sent[6..12], if out_port == SERVERS { SERVERS_MAC.0 } else { ROUTER_MAC.0 }, "{name}");
        let headers = PacketHeaders::from_ip_slice(ip(out_port, sent)).expect("an IP packet");
        let mut expected = ip(port, &frame).to_vec();
        match headers.net {
            Some(etherparse::NetHeaders::Ipv4(header, _)) => {
                assert_eq!(
                    (header.time_to_live, header.header_checksum),
                    (63, header.calc_header_checksum()),
                    "{name}"
                );
                expected[8] = 63;
                expected[10..12].copy_from_slice(&header.header_checksum.to_be_bytes());
            }
            _ => expected[7] = 63,
        }
        assert_eq!(ip(out_port, sent), expected, "{name}");
        assert!(whole.router.moved().contains(&("routed", 1)), "{name}");
    }
}

#[test]
fn who_sends_what_cannot_go_on_is_told_why() {
    // ICMP type and code, and the MTU where there is one.
    for (name, frame, told) in [
        ("TTL 1", udp(SERVERS_MAC, OUT, 1, 20, true), Some((11, 0, 0))),
        ("hop limit 1", udp(SERVERS_MAC, OUT6, 1, 20, true), Some((3, 0, 0))),
        ("longer than the link", udp(SERVERS_MAC, OUT, 64, 1401 - 28, true), Some((3, 4, 1400))),
        ("longer than the link", udp(SERVERS_MAC, OUT6, 64, 1401 - 48, true), Some((2, 0, 1400))),
        ("as long as the link", udp(SERVERS_MAC, OUT, 64, 1400 - 28, true), None),
        ("as long as the link", udp(SERVERS_MAC, OUT6, 64, 1400 - 48, true), None),
        ("no route", udp(SERVERS_MAC, (OUT6.0, "fd00::1"), 64, 20, true), Some((1, 0, 0))),
    ] {
        let mut whole = Whole::new("on");
        let mut frame = frame;
        frame.splice(12..12, [0x81, 0, 0, 7]);
        let sent = whole.answers(SERVERS, &frame, 0);
        let [(port, answer)] = &sent[..] else { panic!("{name}: {sent:?}") };
        let Some((kind, code, mtu)) = told else {
            assert_eq!(*port, CLIENTS, "{name}");
            continue;
        };
        assert_eq!((*port, &answer[..6]), (SERVERS, &SERVER.0[..]), "{name}");
        let packet = ip(SERVERS, answer);
        let icmp = if packet[0] >> 4 == 4 { &packet[20..] } else { &packet[40..] };
        let said = if packet[0] >> 4 == 4 {
            u32::from(u16::from_be_bytes([icmp[6], icmp[7]]))
        } else {
            u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]])
        };
        assert_eq!((icmp[0], icmp[1], said), (kind, code, mtu), "{name}");
        // It quotes the packet as it was.
        assert_eq!(icmp[8..40], ip(SERVERS, &frame)[..32], "{name}");
    }
}

#[test]
fn what_may_be_cut_goes_on_in_pieces() {
    let mut whole = Whole::new("on");
    let mut frame = udp(SERVERS_MAC, OUT, 64, 1472, false);
    frame.splice(12..12, [0x81, 0, 0, 7]);
    let sent = whole.answers(SERVERS, &frame, 0);
    let lengths: Vec<(u8, usize)> =
        sent.iter().map(|(port, frame)| (ip(*port, frame)[8], ip(*port, frame).len())).collect();
    assert_eq!(lengths, [(63, 1396), (63, 124)]);
    let data: Vec<u8> = sent.iter().flat_map(|(port, frame)| ip(*port, frame)[20..].to_vec()).collect();
    assert_eq!(data, ip(SERVERS, &frame)[20..]);
}

#[test]
fn a_neighbour_that_is_not_known_is_asked_for_and_its_packets_wait() {
    let mut whole = Whole::new("on");
    let unknown = ("198.51.100.9", "10.1.0.77");
    let frame = udp(ROUTER_MAC, unknown, 64, 20, true);
    let asked = whole.arrive(CLIENTS, &frame, 0);
    let question = asked.iter().find(|(_, frame)| frame[16..18] == [8, 6] && frame[42..46] == [10, 1, 0, 77]);
    let (port, question) = question.unwrap_or_else(|| panic!("{asked:?}"));
    assert_eq!(*port, SERVERS);
    let mut answer = question.clone();
    answer[..6].copy_from_slice(&SERVERS_MAC.0);
    answer[6..12].copy_from_slice(&SERVER.0);
    answer[25] = 2;
    answer[26..32].copy_from_slice(&SERVER.0);
    answer[32..36].copy_from_slice(&[10, 1, 0, 77]);
    answer[36..42].copy_from_slice(&SERVERS_MAC.0);
    answer[42..46].copy_from_slice(&[10, 1, 0, 1]);
    let sent = whole.answers(SERVERS, &answer, 1);
    let [(SERVERS, sent)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((&sent[..6], ip(SERVERS, sent)[8]), (&SERVER.0[..], 63));
    // The next one does not wait.
    let sent = whole.answers(CLIENTS, &frame, 1);
    assert_eq!(sent.len(), 1);

    // Nobody answers: the sender is told after three questions, and at once for as long as that is remembered.
    let mut whole = Whole::new("on");
    let mut told = Vec::new();
    for second in 0..4 {
        let nothing = [0; 60];
        let sent = whole.answers(CLIENTS, if second == 0 { &frame } else { &nothing }, second);
        told.extend(sent.into_iter().map(|(port, answer)| (second, port, answer[34], answer[35])));
    }
    assert_eq!(told, [(3, CLIENTS, 3, 1)]);
}

#[test]
fn echo_requests_for_a_virtual_host_are_answered_in_its_place() {
    let mut whole = Whole::new("off");
    let echo = |to: [u8; 4]| {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(SERVER.0, ROUTER_MAC.0).ipv4([10, 0, 0, 9], to, 57);
        builder.icmpv4_echo_request(7, 9).write(&mut frame, b"hello").expect("a packet");
        frame
    };
    let sent = whole.answers(CLIENTS, &echo([192, 0, 2, 1]), 0);
    let [(CLIENTS, answer)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((&answer[26..30], &answer[30..34], answer[34]), (&[192, 0, 2, 1][..], &[10, 0, 0, 9][..], 0));
    assert!(whole.router.moved().contains(&("virtual_host_echo", 1)));
    assert!(whole.answers(CLIENTS, &echo([192, 0, 2, 2]), 0).is_empty());
}
