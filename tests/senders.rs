//! Worker and slow path together: whose packet cannot be carried is told so and why, as often as is allowed and never where
//! it is not; and what routers say about our own tunnel packets is believed as far as it can be true.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::common::router::TestRouter;
use slr::clock::Instant;
use slr::config::Config;
use slr::control::compile::{Compiler, Configured};
use slr::control::icmp::{Failure, Icmp, Kind, Suppressed};
use slr::control::neighbours::Neighbours;
use slr::control::path_mtu::Outcome;
use slr::control::slow_path::SlowPath;
use slr::packet::checksum::{checksum, pseudo_v6};
use slr::units::{MacAddr, PortIndex};

/// Every child's tunnel leaves by the second port.
const CONFIG: &str = r#"
router:
  name: test
  tunnel_addresses: [10.1.0.1, "2001:db8:1::1"]
  tunnel_source_prefixes: [10.99.0.0/24]
  parents: [10.0.0.254]
ports:
  - { name: clients, device: a, addresses: [10.0.0.1/24, "2001:db8:c::1/64"] }
  - { name: servers, device: b, addresses: [10.1.0.1/24, "2001:db8:1::1/64"], mtu: 1400 }
routes: [{ prefix: 0.0.0.0/0, via: 10.0.0.254 }, { prefix: "::/0", via: "2001:db8:c::fe" }]
neighbours:
  - { address: 10.0.0.254, mac: "02:00:00:00:00:fe" }
  - { address: "2001:db8:c::fe", mac: "02:00:00:00:00:fd" }
  - { address: 10.1.0.11, mac: "02:00:00:00:01:01" }
  - { address: 10.1.0.12, mac: "02:00:00:00:01:03" }
  - { address: "2001:db8:1::11", mac: "02:00:00:00:01:02" }
flows: { capacity_v4: 1000, capacity_v6: 1000 }
children:
  - { name: four, address: 10.1.0.11 }
  - { name: six, address: "2001:db8:1::11" }
  - { name: gre, address: 10.1.0.12, tunnel: gre }
virtual_hosts:
  - { name: to-four, addresses: [192.0.2.4, "2001:db8:80::4"], services: [any], children: [four] }
  - { name: to-six, addresses: [192.0.2.6, "2001:db8:80::6"], services: [any], children: [six] }
  - { name: to-gre, addresses: [192.0.2.7], services: [any], children: [gre] }
"#;

const PORTS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 0xa]), MacAddr([2, 0, 0, 0, 0, 0xb])];
const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const CLIENTS: PortIndex = PortIndex(0);

/// A frame, and the port that it leaves by.
type Leaving = (PortIndex, Vec<u8>);

struct Whole {
    router: TestRouter,
    slow_path: SlowPath,
    now: Instant,
}

impl Whole {
    fn new(yaml: &str) -> Whole {
        let config = Config::parse(yaml, "test.yaml").unwrap_or_else(|error| panic!("{error}"));
        let neighbours = Neighbours::new(&config, &PORTS, 1);
        let mut router = TestRouter::over(yaml, &Configured { config: &config, neighbours: &neighbours });
        let compiler = std::mem::replace(&mut router.compiler, Compiler::new(0));
        let end = router.end();
        let slow_path = SlowPath::new(Arc::new(config), compiler, neighbours, router.published.clone(), vec![end]);
        let mut whole = Whole { router, slow_path, now: Instant::ZERO };
        // Announcements.
        (0..4).for_each(|_| drop(whole.pass(Duration::from_secs(1))));
        whole
    }

    fn pass(&mut self, time: Duration) -> Vec<Leaving> {
        self.now = self.now + time;
        self.slow_path.pass(self.now);
        self.router.worker.run();
        self.router.worker.io_mut().take_sent()
    }

    /// What has come of errors about our own packets.
    fn path_mtu(&self) -> Vec<(&'static str, u64)> {
        let counters = self.slow_path.counters();
        let all = Outcome::ALL.iter().map(|outcome| (outcome.label(), counters.path_mtu.of(*outcome).get()));
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// A frame arrives from the clients: what leaves at once, and what the slow path says.
    fn arrive(&mut self, frame: &[u8]) -> (Vec<Vec<u8>>, Vec<Leaving>) {
        self.router.worker.io_mut().arrive(CLIENTS, frame);
        self.router.worker.run();
        assert!(self.router.counters.packets().conserved());
        let sent = self.router.worker.io_mut().take_sent().into_iter().map(|(_, frame)| frame).collect();
        (sent, self.pass(Duration::from_millis(20)))
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An IP packet; IPv4 with DF.
fn ip(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (address(source), address(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let fixed = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 9, protocol, 0, 0];
            let mut header = [&fixed[..], &source.octets(), &destination.octets()].concat();
            header[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            [&header, payload].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [high, low] = (payload.len() as u16).to_be_bytes();
            [&[0x60, 0, 0, 0, high, low, protocol, 9][..], &source.octets(), &destination.octets(), payload].concat()
        }
        _ => panic!("two families"),
    }
}

/// A UDP packet of `len` bytes in all from the usual client.
fn packet(destination: &str, len: usize) -> Vec<u8> {
    let (client, header) = if address(destination).is_ipv4() { ("10.0.0.9", 20) } else { ("2001:db8:c::9", 40) };
    let [high, low] = (len as u16 - header as u16).to_be_bytes();
    let mut payload = vec![0x10, 0x92, 0, 80, high, low, 0, 0];
    payload.extend((0..len - header - 8).map(|byte| byte as u8));
    ip(client, destination, 17, &payload)
}

fn frame(ip: &[u8]) -> Vec<u8> {
    let ethertype: [u8; 2] = if ip[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&PORTS[0].0[..], &CLIENT.0, &ethertype, ip].concat()
}

/// What an ICMP error says, its checksums having been found right.
#[derive(Debug, PartialEq)]
struct Said {
    link: (MacAddr, MacAddr),
    source: IpAddr,
    destination: IpAddr,
    kind: (u8, u8),
    rest: u32,
    len: usize,
    quote: Vec<u8>,
}

fn said(frame: &[u8]) -> Said {
    let mac = |at: usize| MacAddr(frame[at..at + 6].try_into().expect("six bytes"));
    let ip = &frame[14..];
    let (source, destination, icmp): (IpAddr, IpAddr, &[u8]) = if ip[0] >> 4 == 4 {
        assert_eq!((checksum(&ip[..20]), ip[9], ip[8]), (0, 1, 64));
        let len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let at = |at: usize| <[u8; 4]>::try_from(&ip[at..at + 4]).expect("four");
        assert_eq!(checksum(&ip[20..len]), 0);
        (at(12).into(), at(16).into(), &ip[20..len])
    } else {
        assert_eq!((ip[6], ip[7]), (58, 64));
        let len = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
        let at = |at: usize| <[u8; 16]>::try_from(&ip[at..at + 16]).expect("sixteen");
        let icmp = &ip[40..len];
        assert_eq!(pseudo_v6(&at(8), &at(24), 58, icmp.len() as u32).add_bytes(icmp).finish(), 0);
        (at(8).into(), at(24).into(), icmp)
    };
    Said {
        link: (mac(0), mac(6)),
        source,
        destination,
        kind: (icmp[0], icmp[1]),
        rest: u32::from_be_bytes(icmp[4..8].try_into().expect("four")),
        len: icmp.len() + if ip[0] >> 4 == 4 { 20 } else { 40 },
        quote: icmp[8..].to_vec(),
    }
}

#[test]
fn who_sends_too_much_is_told_how_much_fits_and_what_fits_is_carried() {
    // To whom, what fits, the error's length.
    for (destination, fits, kind, len) in [
        ("192.0.2.4", 1380, (3, 4), 576),
        ("192.0.2.6", 1360, (3, 4), 576),
        ("192.0.2.7", 1376, (3, 4), 576),
        ("2001:db8:80::4", 1380, (2, 0), 1280),
        ("2001:db8:80::6", 1360, (2, 0), 1280),
    ] {
        let mut whole = Whole::new(CONFIG);
        let v4 = address(destination).is_ipv4();
        let (router, client) = if v4 { ("10.0.0.1", "10.0.0.9") } else { ("2001:db8:c::1", "2001:db8:c::9") };
        assert_eq!(whole.arrive(&frame(&packet(destination, fits))).0.len(), 1);
        let long = packet(destination, fits + 1);
        whole.router.moved();
        let (carried, answers) = whole.arrive(&frame(&long));
        assert!(carried.is_empty());
        assert_eq!(whole.router.moved(), [("received", 1), ("injected", 1), ("too_big", 1)]);
        let [(CLIENTS, answer)] = &answers[..] else { panic!("{answers:?}") };
        let quote = long[..len - if v4 { 28 } else { 48 }].to_vec();
        let expected = Said {
            link: (CLIENT, PORTS[0]),
            source: address(router),
            destination: address(client),
            kind,
            rest: fits as u32,
            len,
            quote,
        };
        assert_eq!(said(answer), expected, "{destination}");
        assert_eq!(whole.slow_path.counters().icmp.sent(Kind::TooBig).get(), 1);
    }
}

#[test]
fn no_ipv6_sender_is_told_less_than_every_link_takes_and_shorter_ones_arrive_in_pieces() {
    let mut whole = Whole::new(&CONFIG.replace("mtu: 1400", "mtu: 1280"));
    let (_, answers) = whole.arrive(&frame(&packet("2001:db8:80::6", 1281)));
    assert_eq!(said(&answers[0].1).rest, 1280);
    let (carried, answers) = whole.arrive(&frame(&packet("2001:db8:80::6", 1280)));
    assert_eq!((carried.len(), answers.len()), (2, 0));
}

#[test]
fn about_a_packet_out_of_a_tunnel_the_client_is_told_by_route() {
    for (client, destination, gateway, own) in
        [("172.16.5.5", "192.0.2.4", 0xfe, "10.0.0.1"), ("2001:db8:5::5", "2001:db8:80::4", 0xfd, "2001:db8:c::1")]
    {
        let mut whole = Whole::new(CONFIG);
        let mut inner = packet(destination, 1390);
        match address(client) {
            IpAddr::V4(client) => {
                inner[12..16].copy_from_slice(&client.octets());
                inner[10..12].fill(0);
                let sum = checksum(&inner[..20]);
                inner[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            IpAddr::V6(client) => inner[8..24].copy_from_slice(&client.octets()),
        }
        let number = if address(client).is_ipv4() { 4 } else { 41 };
        let (_, answers) = whole.arrive(&frame(&ip("10.0.0.254", "10.1.0.1", number, &inner)));
        let said = said(&answers[0].1);
        let expected = (MacAddr([2, 0, 0, 0, 0, gateway]), address(own), address(client), 1380);
        assert_eq!((said.link.0, said.source, said.destination, said.rest), expected);
        assert!(inner.starts_with(&said.quote));
    }
}

/// The machine alone.
struct Machine {
    config: Config,
    neighbours: Neighbours,
    icmp: Icmp,
}

impl Machine {
    fn new(yaml: &str) -> Machine {
        let config = Config::parse(yaml, "test.yaml").unwrap_or_else(|error| panic!("{error}"));
        let neighbours = Neighbours::new(&config, &PORTS, 1);
        Machine { config, neighbours, icmp: Icmp::default() }
    }

    fn tell(&mut self, milliseconds: u64, kind: Kind, bytes: &[u8]) -> Option<Vec<u8>> {
        let here = Configured { config: &self.config, neighbours: &self.neighbours };
        let now = Instant::ZERO + Duration::from_millis(milliseconds);
        let failure = Failure { kind, mtu: Some(1300), port: CLIENTS, bare: false, bytes };
        self.icmp.handle(now, &here, failure).map(|(_, frame)| frame)
    }

    fn suppressed(&self) -> Vec<(&'static str, u64)> {
        let counters = self.icmp.counters();
        let all = Suppressed::ALL.iter().map(|why| (why.label(), counters.suppressed(*why).get()));
        all.filter(|(_, count)| *count > 0).collect()
    }
}

#[test]
fn each_kind_has_its_type_and_code() {
    for (kind, v4, v6) in [
        (Kind::TooBig, (3, 4), (2, 0)),
        (Kind::TimeExceeded, (11, 0), (3, 0)),
        (Kind::NetUnreachable, (3, 0), (1, 0)),
        (Kind::HostUnreachable, (3, 1), (1, 3)),
        (Kind::Prohibited, (3, 13), (1, 1)),
        (Kind::PortUnreachable, (3, 3), (1, 4)),
    ] {
        let mut machine = Machine::new(CONFIG);
        for (destination, expected) in [("192.0.2.4", v4), ("2001:db8:80::4", v6)] {
            let short = packet(destination, 60);
            let answer = machine.tell(0, kind, &[frame(&short), vec![0xee; 20]].concat()).expect("an answer");
            let rest = if kind == Kind::TooBig { 1300 } else { 0 };
            assert_eq!((said(&answer).kind, said(&answer).rest), (expected, rest), "{kind}");
            assert_eq!(said(&answer).quote, short, "the packet without what is behind it");
        }
    }
}

#[test]
fn what_must_not_be_answered_is_not() {
    let from = |source: &str, protocol, payload: &[u8]| {
        let destination = if address(source).is_ipv4() { "192.0.2.4" } else { "2001:db8:80::4" };
        frame(&ip(source, destination, protocol, payload))
    };
    let later = |offset_flags: [u8; 2], source| {
        let mut bytes = from(source, 17, &[0, 1, 0, 2, 0, 40, 0, 0].repeat(4));
        bytes[20..22].copy_from_slice(&offset_flags);
        bytes[24..26].fill(0);
        let sum = checksum(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        bytes
    };
    let udp = [0, 1, 0, 2, 0, 8, 0, 0];
    let mut to_group = from("10.0.0.9", 17, &udp);
    to_group[0] = 1;
    let table = [
        ("fine", from("10.0.0.9", 17, &udp), true),
        ("fine", from("2001:db8:c::9", 17, &udp), true),
        ("an echo request", from("10.0.0.9", 1, &[8, 0, 0, 0, 0, 0, 0, 0]), true),
        ("an echo request", from("2001:db8:c::9", 58, &[128, 0, 0, 0]), true),
        ("an ICMP error", from("10.0.0.9", 1, &[3, 1, 0, 0, 0, 0, 0, 0]), false),
        ("a redirect", from("10.0.0.9", 1, &[5, 1, 0, 0, 0, 0, 0, 0]), false),
        ("an ICMPv6 error", from("2001:db8:c::9", 58, &[1, 0, 0, 0]), false),
        ("a redirect", from("2001:db8:c::9", 58, &[137, 0, 0, 0]), false),
        ("a first fragment", later([0x20, 0], "10.0.0.9"), true),
        ("a later fragment", later([0x20, 9], "10.0.0.9"), false),
        ("nobody", from("0.0.0.0", 17, &udp), false),
        ("all", from("255.255.255.255", 17, &udp), false),
        ("a group", from("224.0.0.5", 17, &udp), false),
        ("a class without hosts", from("240.0.0.5", 17, &udp), false),
        ("a loopback address", from("127.0.0.1", 17, &udp), false),
        ("nobody", from("::", 17, &udp), false),
        ("a group", from("ff02::1", 17, &udp), false),
        ("a loopback address", from("::1", 17, &udp), false),
        ("our own address", from("10.0.0.1", 17, &udp), false),
        ("our own address", from("2001:db8:1::1", 17, &udp), false),
        ("to a group's link-layer address", to_group, false),
        ("to a group", frame(&ip("10.0.0.9", "224.0.0.9", 17, &udp)), false),
    ];
    for (what, bytes, answered) in table {
        let mut machine = Machine::new(CONFIG);
        assert_eq!(machine.tell(0, Kind::TimeExceeded, &bytes).is_some(), answered, "{what}: {bytes:02x?}");
        let expected: &[(&str, u64)] = if answered { &[] } else { &[("not_allowed", 1)] };
        assert_eq!(machine.suppressed(), expected, "{what}");
    }
}

#[test]
fn without_an_address_or_a_way_back_nobody_is_told() {
    let no_v6 = CONFIG.replace(r#"addresses: [10.0.0.1/24, "2001:db8:c::1/64"]"#, "addresses: [10.0.0.1/24]");
    let no_v6 = no_v6.replace(r#", { prefix: "::/0", via: "2001:db8:c::fe" }"#, "");
    let no_v6 = no_v6.replace(r#"  - { address: "2001:db8:c::fe", mac: "02:00:00:00:00:fd" }"#, "");
    let mut machine = Machine::new(&no_v6);
    let answer = machine.tell(0, Kind::NetUnreachable, &frame(&packet("2001:db8:80::4", 100))).expect("an answer");
    assert_eq!(said(&answer).source, address("2001:db8:1::1"), "the tunnel address");
    let here = Configured { config: &machine.config, neighbours: &machine.neighbours };
    let bytes = packet("2001:db8:80::4", 100);
    let failure = Failure { kind: Kind::NetUnreachable, mtu: None, port: CLIENTS, bare: true, bytes: &bytes };
    assert_eq!(machine.icmp.handle(Instant::ZERO, &here, failure), None);
    assert_eq!(machine.suppressed(), [("no_way_back", 1)]);
}

#[test]
fn errors_are_limited_and_those_that_path_mtu_discovery_needs_have_a_limit_of_their_own() {
    let mut machine = Machine::new(CONFIG);
    let bytes = frame(&packet("192.0.2.4", 100));
    let mut told = |at, kind, times| (0..times).filter(|_| machine.tell(at, kind, &bytes).is_some()).count();
    assert_eq!(told(1000, Kind::TimeExceeded, 150), 100);
    assert_eq!(told(1000, Kind::HostUnreachable, 50), 0);
    assert_eq!(told(1000, Kind::TooBig, 150), 100);
    assert_eq!(told(1010, Kind::TooBig, 50), 10);
    assert_eq!(machine.suppressed(), [("rate_limit", 50 + 50 + 50 + 40)]);
}

/// An error about a packet of ours that was too big, from a router on the way.
fn too_big(own: &str, mtu: u16, quoted: &[u8]) -> Vec<u8> {
    let v4 = address(own).is_ipv4();
    let [high, low] = mtu.to_be_bytes();
    let mut icmp = [&[if v4 { 3 } else { 2 }, if v4 { 4 } else { 0 }, 0, 0, 0, 0, high, low], quoted].concat();
    let router = if v4 { "10.0.0.77" } else { "2001:db8:7::77" };
    let sum = match address(own) {
        IpAddr::V4(_) => checksum(&icmp),
        IpAddr::V6(own) => {
            let router: Ipv6Addr = router.parse().expect("an address");
            pseudo_v6(&router.octets(), &own.octets(), 58, icmp.len() as u32).add_bytes(&icmp).finish()
        }
    };
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    frame(&ip(router, own, if v4 { 1 } else { 58 }, &icmp))
}

#[test]
fn a_router_on_the_way_shortens_the_path_for_ten_minutes() {
    // To whom, where our tunnel comes from and goes, its protocol; what the router says, and what fits then.
    for (destination, child, protocol, said_mtu, fits) in [
        ("192.0.2.4", "10.1.0.11", 4, 1000, 980),
        ("192.0.2.4", "10.1.0.11", 4, 100, 556),
        ("192.0.2.4", "10.1.0.11", 4, 0, 1006 - 20),
        ("192.0.2.7", "10.1.0.12", 47, 1000, 976),
        ("192.0.2.6", "2001:db8:1::11", 4, 1300, 1260),
    ] {
        let mut whole = Whole::new(CONFIG);
        let long = frame(&packet(destination, 1350));
        let (carried, _) = whole.arrive(&long);
        let outer = &carried[0][14..];
        let (header, at) = if outer[0] >> 4 == 4 { (20, 12) } else { (40, 8) };
        let own = match outer[at..at + 4] {
            [10, 99, 0, host] => format!("10.99.0.{host}"),
            _ => "2001:db8:1::1".to_owned(),
        };
        assert_eq!(outer[if header == 20 { 9 } else { 6 }], protocol);
        // As little as there must be (RFC 792).
        let (_, answers) = whole.arrive(&too_big(&own, said_mtu, &outer[..header + 8]));
        assert!(answers.is_empty());
        assert_eq!(whole.path_mtu(), [("lowered", 1)], "{destination} by {child}");
        let (carried, answers) = whole.arrive(&long);
        assert_eq!((carried.len(), said(&answers[0].1).rest), (0, fits), "{destination}");
        assert_eq!(whole.arrive(&frame(&packet(destination, fits as usize))).0.len(), 1);
        // What another router then says of a packet that was longer is no news.
        whole.arrive(&too_big(&own, said_mtu.max(1300), &outer[..header + 8]));
        assert_eq!(whole.path_mtu()[0], ("lowered", 1));

        whole.pass(Duration::from_secs(599));
        assert!(whole.arrive(&long).0.is_empty());
        whole.pass(Duration::from_secs(2));
        assert_eq!(whole.arrive(&long).0.len(), 1, "{destination}: forgotten");
    }
}

#[test]
fn what_cannot_be_true_of_our_packets_is_not_believed() {
    let outer = |source, destination, protocol, len: usize| ip(source, destination, protocol, &vec![0x45; len - 20]);
    let good = outer("10.99.0.5", "10.1.0.11", 4, 1370);
    let v6 = ip("2001:db8:1::1", "2001:db8:1::11", 4, &[0x45; 1330]);
    let mut spoilt = too_big("10.1.0.1", 1000, &good[..28]);
    spoilt[36] ^= 1;
    for (what, frame, outcome) in [
        ("fine", too_big("10.99.0.5", 1000, &good[..28]), Some("lowered")),
        ("fine", too_big("2001:db8:1::1", 1290, &v6[..48]), Some("lowered")),
        ("a wrong checksum", spoilt, None),
        ("another source", too_big("10.1.0.1", 1000, &outer("10.98.0.5", "10.1.0.11", 4, 1370)), Some("unfounded")),
        ("no child", too_big("10.1.0.1", 1000, &outer("10.99.0.5", "10.1.0.99", 4, 1370)), Some("unfounded")),
        ("another protocol", too_big("10.1.0.1", 1000, &outer("10.99.0.5", "10.1.0.11", 47, 1370)), Some("unfounded")),
        (
            "longer than we send",
            too_big("10.1.0.1", 1000, &outer("10.99.0.5", "10.1.0.11", 4, 1401)),
            Some("unfounded"),
        ),
        ("shorter than what fits", too_big("10.1.0.1", 1370, &good[..28]), Some("unfounded")),
        ("too little", too_big("10.1.0.1", 1000, &good[..19]), Some("unfounded")),
        ("less than every link takes", too_big("2001:db8:1::1", 1279, &v6[..48]), Some("not_lower")),
    ] {
        let mut whole = Whole::new(CONFIG);
        whole.arrive(&frame);
        assert_eq!(whole.path_mtu(), outcome.map(|label| (label, 1)).into_iter().collect::<Vec<_>>(), "{what}");
        let carried = whole.arrive(&self::frame(&packet("192.0.2.4", 1370))).0.len();
        assert_eq!(carried == 0, what == "fine" && frame[12] == 8, "{what}");
    }
}
