//! The machine against its state table, its peers' questions, storms and noise; time is simulated.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::State::{Failed, Incomplete, Probe, Reachable, Stale, Static};
use super::*;
use crate::packet::checksum::checksum;

const OURS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 0xa]), MacAddr([2, 0, 0, 0, 0, 0xb])];
const M1: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const M2: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const P0: PortIndex = PortIndex(0);
const P1: PortIndex = PortIndex(1);
const ROUTER4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const CHILD4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
const STRANGER4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const CHILD6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);

/// One child of one family on the first port; the second port has a VLAN.
fn config(child: IpAddr, neighbours: &str) -> Config {
    let text = format!(
        r#"
router: {{ name: test, tunnel_addresses: [198.51.100.1, "2001:db8::1"] }}
ports:
  - {{ name: a, device: a, addresses: [10.0.0.1/24, "2001:db8::1/64"] }}
  - {{ name: b, device: b, addresses: [10.1.0.1/24], vlan: 7 }}
neighbours: [{neighbours}]
children: [{{ name: child, address: "{child}" }}]
virtual_hosts: [{{ name: host, addresses: [192.0.2.1], services: [any], children: [child] }}]
"#
    );
    Config::parse(&text, "test.yaml").unwrap_or_else(|error| panic!("{error}"))
}

fn link(destination: MacAddr, source: MacAddr) -> Link {
    Link { source, destination, vlan: None }
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

/// What the child is heard to say from one link-layer address.
#[derive(Clone, Copy, Debug)]
enum Heard {
    /// ARP reply; advertisement, solicited, that replaces what is known.
    Answer(MacAddr),
    /// It asks us for something: ARP request; solicitation.
    Question(MacAddr),
    /// Advertisement that is not solicited and does not replace what is known.
    Weak(MacAddr),
    /// Solicited advertisement without a link-layer address.
    Bare,
}
use Heard::{Answer, Bare, Question, Weak};

struct Bench {
    machine: Neighbours,
    child: IpAddr,
    now: Instant,
}

impl Bench {
    fn new(child: IpAddr) -> Bench {
        Bench { machine: Neighbours::new(&config(child, ""), &OURS, 1), child, now: Instant::ZERO }
    }

    /// A machine whose child is in `state`, at [`M1`] where that is known.
    fn in_state(child: IpAddr, state: State) -> Bench {
        let mut bench = Bench::new(child);
        if state == Static {
            let neighbour = format!(r#"{{ address: "{child}", mac: "{M1}" }}"#);
            bench.machine = Neighbours::new(&config(child, &neighbour), &OURS, 1);
            return bench;
        }
        bench.tick(0);
        match state {
            Static | Incomplete => {}
            Reachable => drop(bench.hear(Answer(M1))),
            Stale => drop(bench.hear(Question(M1))),
            Probe => {
                bench.hear(Question(M1));
                bench.tick(5);
            }
            Failed => (0..3).for_each(|_| drop(bench.tick(1))),
        }
        assert_eq!(bench.state(), state);
        bench
    }

    fn tick(&mut self, seconds: u64) -> Vec<Output> {
        self.now = self.now + Duration::from_secs(seconds);
        self.machine.handle(self.now, Input::Tick)
    }

    fn frame(&mut self, port: PortIndex, bytes: &[u8]) -> Vec<Output> {
        self.machine.handle(self.now, Input::Frame { port, bytes })
    }

    fn hear(&mut self, heard: Heard) -> Vec<Output> {
        let frame = match self.child {
            IpAddr::V4(child) => {
                let question = ArpPacket::request(OURS[0], ROUTER4, child);
                match heard {
                    Answer(mac) => wire::arp(link(OURS[0], mac), &question.reply(mac)),
                    Question(mac) => wire::arp(link(BROADCAST, mac), &ArpPacket::request(mac, child, STRANGER4)),
                    Weak(_) | Bare => panic!("ARP has none"),
                }
            }
            IpAddr::V6(child) => {
                let advertise = |mac, flags| {
                    let message = NeighbourMessage::advertisement(child, mac, flags);
                    wire::neighbour(link(OURS[0], mac), child, ROUTER6, message)
                };
                match heard {
                    Answer(mac) => advertise(mac, ndp::SOLICITED | ndp::OVERRIDE),
                    Weak(mac) => advertise(mac, 0),
                    Question(mac) => {
                        let target = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77);
                        let group = ndp::solicited_node(target);
                        let message = NeighbourMessage::solicitation(target, mac);
                        wire::neighbour(link(ndp::group_mac(group), mac), child, group, message)
                    }
                    Bare => bare(&advertise(M1, ndp::SOLICITED)),
                }
            }
        };
        self.frame(P0, &frame)
    }

    fn state(&self) -> State {
        self.machine.state(self.child).expect("a next hop")
    }

    fn mac(&self) -> Option<MacAddr> {
        self.machine.link(self.child).map(|link| link.destination)
    }
}

/// A solicitation or advertisement of ours without its option.
fn bare(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame[..14 + 40 + 24].to_vec();
    frame[19] = 24;
    fix_icmpv6(&mut frame);
    frame
}

fn fix_icmpv6(frame: &mut [u8]) {
    frame[56..58].fill(0);
    let pseudo = [&frame[22..54], &[0, 0, 0, frame[19], 0, 0, 0, 58], &frame[54..54 + usize::from(frame[19])]].concat();
    frame[56..58].copy_from_slice(&checksum(&pseudo).to_be_bytes());
}

fn sends(outputs: &[Output]) -> Vec<(PortIndex, &[u8])> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send { port, frame } => Some((*port, frame.as_slice())),
            Output::Changed(_) => None,
        })
        .collect()
}

/// Times in seconds at which the child is asked, within the first `seconds`, and to whom the last question goes.
fn questions(bench: &mut Bench, seconds: u64) -> (Vec<u64>, Option<MacAddr>) {
    let (mut times, mut to) = (Vec::new(), None);
    bench.machine.announcing = None;
    while let Some(now) = bench.machine.next_deadline().filter(|deadline| *deadline <= at(seconds)) {
        bench.now = bench.now.max(now);
        for (port, frame) in sends(&bench.tick(0)) {
            assert_eq!(port, P0);
            times.push(bench.now.as_nanos() / 1_000_000_000);
            to = Some(MacAddr(frame[..6].try_into().expect("six bytes")));
        }
    }
    (times, to)
}

#[test]
fn every_state_takes_every_news_as_rfc_826_and_rfc_4861_say() {
    let (v4, v6) = (IpAddr::V4(CHILD4), IpAddr::V6(CHILD6));
    let (none, one, two) = (None, Some(M1), Some(M2));
    for (child, before, heard, after, mac) in [
        (v4, Static, Answer(M2), Static, one),
        (v4, Static, Question(M2), Static, one),
        (v4, Incomplete, Answer(M1), Reachable, one),
        (v4, Incomplete, Question(M1), Stale, one),
        (v4, Reachable, Answer(M1), Reachable, one),
        (v4, Reachable, Answer(M2), Stale, two), // nobody has asked
        (v4, Reachable, Question(M1), Reachable, one),
        (v4, Reachable, Question(M2), Stale, two),
        (v4, Stale, Answer(M1), Stale, one), // nobody has asked
        (v4, Stale, Answer(M2), Stale, two),
        (v4, Stale, Question(M1), Stale, one),
        (v4, Stale, Question(M2), Stale, two),
        (v4, Probe, Answer(M1), Reachable, one),
        (v4, Probe, Answer(M2), Reachable, two),
        (v4, Probe, Question(M1), Probe, one),
        (v4, Probe, Question(M2), Stale, two),
        (v4, Failed, Answer(M1), Stale, one), // too late: nobody is asking
        (v4, Failed, Question(M1), Stale, one),
        (v6, Static, Answer(M2), Static, one),
        (v6, Static, Question(M2), Static, one),
        (v6, Static, Weak(M2), Static, one),
        (v6, Static, Bare, Static, one),
        (v6, Incomplete, Answer(M1), Reachable, one),
        (v6, Incomplete, Question(M1), Stale, one),
        (v6, Incomplete, Weak(M1), Stale, one),
        (v6, Incomplete, Bare, Incomplete, none),
        (v6, Reachable, Answer(M1), Reachable, one),
        (v6, Reachable, Answer(M2), Reachable, two),
        (v6, Reachable, Question(M1), Reachable, one),
        (v6, Reachable, Question(M2), Stale, two),
        (v6, Reachable, Weak(M1), Reachable, one),
        (v6, Reachable, Weak(M2), Stale, one),
        (v6, Reachable, Bare, Reachable, one),
        (v6, Stale, Answer(M1), Reachable, one),
        (v6, Stale, Answer(M2), Reachable, two),
        (v6, Stale, Question(M2), Stale, two),
        (v6, Stale, Weak(M2), Stale, one),
        (v6, Stale, Bare, Reachable, one),
        (v6, Probe, Answer(M1), Reachable, one),
        (v6, Probe, Answer(M2), Reachable, two),
        (v6, Probe, Question(M1), Probe, one),
        (v6, Probe, Question(M2), Stale, two),
        (v6, Probe, Weak(M2), Probe, one),
        (v6, Probe, Bare, Reachable, one),
        (v6, Failed, Answer(M1), Reachable, one),
        (v6, Failed, Question(M1), Stale, one),
        (v6, Failed, Weak(M1), Stale, one),
        (v6, Failed, Bare, Failed, none),
    ] {
        let mut bench = Bench::in_state(child, before);
        let known = bench.mac();
        let outputs = bench.hear(heard);
        assert_eq!((bench.state(), bench.mac()), (after, mac), "{child} {before} {heard:?}");
        let change = (mac != known).then_some(Output::Changed(Change { address: child, before: known, mac }));
        assert_eq!(outputs, Vec::from_iter(change), "{child} {before} {heard:?}");
        assert_eq!(bench.machine.counts.iter().sum::<u64>(), 1);
        assert_eq!(bench.machine.count(after), 1);
    }
}

#[test]
fn who_does_not_answer_is_asked_three_times_and_then_less_and_less_often() {
    for child in [CHILD4.into(), CHILD6.into()] {
        let mut bench = Bench::new(child);
        let (times, to) = questions(&mut bench, 40);
        assert_eq!(times, [0, 1, 2, 4, 5, 6, 9, 10, 11, 16, 17, 18, 27, 28, 29, 38, 39, 40], "{child}");
        let everyone = if child.is_ipv4() { BROADCAST } else { ndp::group_mac(ndp::solicited_node(CHILD6)) };
        assert_eq!(to, Some(everyone));
        let mut bench = Bench::new(child);
        let told: Vec<Output> =
            (0..60).flat_map(|_| bench.tick(1)).filter(|o| matches!(o, Output::Changed(_))).collect();
        assert_eq!(told, [Output::Changed(Change { address: child, before: None, mac: None })], "told once");
    }
}

#[test]
fn who_has_answered_is_asked_again_alone_and_given_up_when_it_is_gone() {
    for child in [CHILD4.into(), CHILD6.into()] {
        let mut bench = Bench::in_state(child, Reachable);
        bench.machine.announcing = None;
        let expires = bench.machine.next_deadline().expect("a timer");
        assert!((at(15)..=at(45)).contains(&expires), "{expires:?}");
        let asked = expires.as_nanos() / 1_000_000_000 + 5;
        let (times, to) = questions(&mut bench, asked + 3);
        assert_eq!((times, to), (vec![asked, asked + 1, asked + 2], Some(M1)));
        assert_eq!((bench.state(), bench.mac()), (Probe, Some(M1)), "used as long as there is hope");
        let gone = Output::Changed(Change { address: child, before: Some(M1), mac: None });
        assert_eq!(bench.tick(1), [gone]);
        assert_eq!(bench.state(), Failed);
        bench.tick(1);
        assert_eq!(bench.hear(Answer(M2)), [Output::Changed(Change { address: child, before: None, mac: Some(M2) })]);
    }
}

#[test]
fn questions_for_our_addresses_are_answered_on_the_links_that_have_them() {
    let ask = |target: [u8; 4]| ArpPacket::request(M1, STRANGER4, target.into());
    let tagged = |vlan| Link { source: M1, destination: BROADCAST, vlan: Some(vlan) };
    let broadcast = link(BROADCAST, M1);
    for (name, port, frame, answered) in [
        ("ours", P0, wire::arp(broadcast, &ask([10, 0, 0, 1])), true),
        ("ours, to us alone", P0, wire::arp(link(OURS[0], M1), &ask([10, 0, 0, 1])), true),
        ("to somebody else", P0, wire::arp(link(M2, M1), &ask([10, 0, 0, 1])), false),
        ("from a group", P0, wire::arp(link(BROADCAST, BROADCAST), &ask([10, 0, 0, 1])), false),
        ("not ours", P0, wire::arp(broadcast, &ask([10, 0, 0, 2])), false),
        ("the other link's", P0, wire::arp(broadcast, &ask([10, 1, 0, 1])), false),
        ("tunnel address in no subnet", P0, wire::arp(broadcast, &ask([198, 51, 100, 1])), true),
        ("the same on the other link", P1, wire::arp(tagged(7), &ask([198, 51, 100, 1])), true),
        ("right VLAN", P1, wire::arp(tagged(7), &ask([10, 1, 0, 1])), true),
        ("other VLAN", P1, wire::arp(tagged(8), &ask([10, 1, 0, 1])), false),
        ("no VLAN", P1, wire::arp(broadcast, &ask([10, 1, 0, 1])), false),
        ("tag where there is none", P0, wire::arp(tagged(7), &ask([10, 0, 0, 1])), false),
        ("no such port", PortIndex(2), wire::arp(broadcast, &ask([10, 0, 0, 1])), false),
        ("a claim to our address", P0, wire::arp(broadcast, &ArpPacket::request(M1, ROUTER4, ROUTER4)), false),
    ] {
        let outputs = Bench::new(CHILD4.into()).frame(port, &frame);
        assert_eq!(sends(&outputs).len(), usize::from(answered), "{name}");
        for (through, reply) in sends(&outputs) {
            let received = wire::read(reply, (port == P1).then_some(7)).expect("sound");
            let Message::Arp(packet) = received.message else { panic!("{name}") };
            let ours = OURS[port.index()];
            assert_eq!((through, received.to, received.from, packet.operation.get()), (port, M1, ours, arp::REPLY));
            assert_eq!((packet.sender_mac, packet.target_ip()), (ours, STRANGER4), "{name}");
        }
    }
}

#[test]
fn solicitations_are_answered_when_rfc_4861_takes_them_for_sound() {
    let group = ndp::solicited_node(ROUTER6);
    let to_group = link(ndp::group_mac(group), M1);
    let message = NeighbourMessage::solicitation(ROUTER6, M1);
    let good = wire::neighbour(to_group, CHILD6, group, message);
    let changed = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        fix_icmpv6(&mut frame);
        frame
    };
    let damaged = [&good[..85], &[good[85] ^ 1]].concat();
    let nobody = Ipv6Addr::UNSPECIFIED;
    let duplicate = bare(&wire::neighbour(to_group, nobody, group, message));
    for (name, frame, answer) in [
        ("from the group", good.clone(), Some((CHILD6, true))),
        ("to us alone", wire::neighbour(link(OURS[0], M1), CHILD6, ROUTER6, message), Some((CHILD6, true))),
        ("without its sender's address", bare(&good), Some((CHILD6, true))),
        ("looking for duplicates", duplicate, Some((ndp::ALL_NODES, false))),
        ("from nobody, with an address", wire::neighbour(to_group, nobody, group, message), None),
        ("through a router", changed(21, 254), None),
        ("code", changed(55, 1), None),
        ("an option of no length", changed(79, 0), None),
        ("damaged", damaged, None),
        ("for somebody else", changed(77, 2), None),
    ] {
        let outputs = Bench::new(CHILD4.into()).frame(P0, &frame);
        let answers: Vec<_> = sends(&outputs)
            .into_iter()
            .map(|(_, reply)| {
                let destination = Ipv6Addr::from(<[u8; 16]>::try_from(&reply[38..54]).expect("an address"));
                let Message::Advertisement { target, mac, solicited, overrides } =
                    wire::read(reply, None).expect("sound").message
                else {
                    panic!("{name}")
                };
                assert_eq!((target, mac, overrides), (ROUTER6, Some(OURS[0]), true), "{name}");
                (destination, solicited)
            })
            .collect();
        assert_eq!(answers, Vec::from_iter(answer), "{name}");
    }
}

/// An echo request with 100 bytes of data in a frame.
fn echo(to: MacAddr, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let (mut bytes, data) = (Vec::new(), Vec::from_iter(0..100));
    let builder = etherparse::PacketBuilder::ethernet2(M1.0, to.0);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let builder = builder.ipv4(source.octets(), destination.octets(), 9);
            builder.icmpv4_echo_request(1, 2).write(&mut bytes, &data)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let builder = builder.ipv6(source.octets(), destination.octets(), 9);
            builder.icmpv6_echo_request(1, 2).write(&mut bytes, &data)
        }
        _ => panic!("two families"),
    }
    .expect("a packet");
    bytes
}

#[test]
fn echo_requests_to_our_addresses_come_back_to_where_they_came_from() {
    let (four, six) = (IpAddr::V4(ROUTER4), IpAddr::V6(ROUTER6));
    let (far4, far6) = (IpAddr::from([203, 0, 113, 5]), "2001:db8:5::5".parse().expect("an address"));
    let other: IpAddr = [10, 1, 0, 1].into();
    let tunnel: IpAddr = [198, 51, 100, 1].into();
    let mut damaged = echo(OURS[0], far4, four);
    damaged[60] ^= 1;
    let mut fragment = echo(OURS[0], far4, four);
    fragment[20] = 0x20;
    for (name, frame, answered) in [
        ("IPv4", echo(OURS[0], far4, four), Some((four, far4))),
        ("IPv6", echo(OURS[0], far6, six), Some((six, far6))),
        ("to another link's address", echo(OURS[0], far4, other), Some((other, far4))),
        ("to the tunnel address", echo(OURS[0], far4, tunnel), Some((tunnel, far4))),
        ("to somebody else", echo(OURS[0], far4, CHILD4.into()), None),
        ("to everyone on the link", echo(BROADCAST, far4, four), None),
        ("from ourselves", echo(OURS[0], other, four), None),
        ("from a group", echo(OURS[0], [224, 0, 0, 1].into(), four), None),
        ("from nobody", echo(OURS[0], [0, 0, 0, 0].into(), four), None),
        ("damaged", damaged, None),
        ("a fragment", fragment, None),
        ("cut", echo(OURS[0], far6, six)[..120].to_vec(), None),
    ] {
        let outputs = Bench::new(CHILD4.into()).frame(P0, &frame);
        let answers: Vec<_> = sends(&outputs)
            .into_iter()
            .map(|(port, reply)| {
                assert_eq!((port, &reply[..6], &reply[6..12]), (P0, &M1.0[..], &OURS[0].0[..]), "{name}");
                let packet = etherparse::PacketHeaders::from_ethernet_slice(reply).expect("sound");
                let (source, destination) = match packet.net.expect("IP") {
                    etherparse::NetHeaders::Ipv4(header, _) => {
                        assert_eq!(header.calc_header_checksum(), header.header_checksum, "{name}");
                        (IpAddr::from(header.source), IpAddr::from(header.destination))
                    }
                    etherparse::NetHeaders::Ipv6(header, _) => (header.source.into(), header.destination.into()),
                    other => panic!("{other:?}"),
                };
                // The same data behind, and a checksum that differs by the type alone.
                assert_eq!(reply[reply.len() - 104..], frame[frame.len() - 104..], "{name}");
                let back = packet.transport.expect("ICMP");
                match back {
                    etherparse::TransportHeader::Icmpv4(icmp) => {
                        assert_eq!(icmp.icmp_type.calc_checksum(packet.payload.slice()), icmp.checksum, "{name}");
                    }
                    etherparse::TransportHeader::Icmpv6(icmp) => {
                        let (IpAddr::V6(from), IpAddr::V6(to)) = (source, destination) else { panic!("{name}") };
                        let sum = icmp.icmp_type.calc_checksum(from.octets(), to.octets(), packet.payload.slice());
                        assert_eq!(sum.expect("short enough"), icmp.checksum, "{name}");
                    }
                    other => panic!("{other:?}"),
                }
                (source, destination)
            })
            .collect();
        assert_eq!(answers, Vec::from_iter(answered), "{name}");
    }
}

#[test]
fn our_addresses_are_announced_three_times_on_their_links() {
    let neighbour = format!(r#"{{ address: "{CHILD4}", mac: "{M1}" }}"#);
    let mut machine = Neighbours::new(&config(CHILD4.into(), &neighbour), &OURS, 1);
    let mut announced = Vec::new();
    while let Some(now) = machine.next_deadline() {
        let outputs = machine.handle(now, Input::Tick);
        for (port, frame) in sends(&outputs) {
            let received = wire::read(frame, (port == P1).then_some(7)).expect("sound");
            let own: IpAddr = match received.message {
                Message::Arp(packet) => {
                    assert_eq!((received.to, packet.sender_ip()), (BROADCAST, packet.target_ip()));
                    packet.sender_ip().into()
                }
                Message::Advertisement { target, mac, solicited: false, overrides: true } => {
                    assert_eq!((received.to, mac), (ndp::group_mac(ndp::ALL_NODES), Some(OURS[0])));
                    target.into()
                }
                other => panic!("{other:?}"),
            };
            announced.push((now.as_nanos() / 1_000_000_000, port, own));
        }
    }
    let here = |address: &str| address.parse::<IpAddr>().expect("an address");
    let all = [(P0, "10.0.0.1"), (P0, "198.51.100.1"), (P0, "2001:db8::1"), (P1, "10.1.0.1"), (P1, "198.51.100.1")];
    let expected: Vec<_> = (0..3).flat_map(|second| all.map(|(port, own)| (second, port, here(own)))).collect();
    assert_eq!(announced, expected);
}

#[test]
fn storms_and_masses_of_next_hops_are_met_at_a_steady_rate_with_a_table_that_does_not_grow() {
    const MANY: usize = 100_000;
    let child = |number: usize| {
        format!("  - {{ name: c{number}, address: {} }}\n", Ipv4Addr::from(0x0a01_0000 + number as u32))
    };
    let text = format!(
        "router: {{ name: test, tunnel_addresses: [10.0.0.1] }}\n\
         ports: [{{ name: a, device: a, addresses: [10.0.0.1/8] }}]\nchildren:\n{}\
         virtual_hosts: [{{ name: host, addresses: [192.0.2.1], services: [any], children: [c0] }}]\n",
        (0..MANY).map(child).collect::<String>()
    );
    let config = Config::parse(&text, "test.yaml").unwrap_or_else(|error| panic!("{error}"));
    let mut machine = Neighbours::new(&config, &OURS[..1], 1);
    machine.announcing = None;
    assert_eq!(machine.count(Incomplete), MANY as u64);
    let mut asked = 0;
    for milliseconds in 0..3000 {
        let now = Instant::ZERO + Duration::from_millis(milliseconds);
        asked += machine.handle(now, Input::Tick).len();
    }
    assert_eq!(asked as u32, AT_ONCE + 3 * PER_SECOND - 1);
    let (mut answers, mut replies) = (0, 0);
    for number in 0..10_000_u32 {
        let stranger = Ipv4Addr::from(0x0ac0_0000 + number);
        let question = ArpPacket::request(M1, stranger, ROUTER4);
        let bytes = wire::arp(link(BROADCAST, M1), &question);
        answers += machine.handle(at(3), Input::Frame { port: P0, bytes: &bytes }).len();
        let bytes = echo(OURS[0], stranger.into(), ROUTER4.into());
        replies += machine.handle(at(3), Input::Frame { port: P0, bytes: &bytes }).len();
    }
    assert_eq!((answers as u32, replies as u32), (AT_ONCE, AT_ONCE));
    assert_eq!((machine.table.len(), machine.configured.due.len()), (MANY, MANY));
}

#[test]
fn who_is_wanted_is_asked_for_found_and_when_silent_forgotten() {
    for (own, other) in [(CHILD4.into(), STRANGER4.into()), (IpAddr::V6(CHILD6), "2001:db8::77".parse().expect("one"))]
    {
        let config = config(own, "");
        let mut bench = Bench::new(own);
        bench.machine.announcing = None;
        bench.tick(0);
        let want = |bench: &mut Bench| bench.machine.want(bench.now, &config, other);
        assert_eq!(want(&mut bench), Wanted::Asked);
        assert_eq!(want(&mut bench), Wanted::Asked);
        assert_eq!(bench.tick(0).len(), 1, "asked once");
        // Two more questions, and another for the child; then it is known not to answer, and then it is forgotten.
        assert_eq!((bench.tick(1).len(), bench.tick(1).len()), (2, 2));
        let silent = Output::Changed(Change { address: other, before: None, mac: None });
        assert!(bench.tick(1).contains(&silent));
        assert_eq!((want(&mut bench), bench.machine.state(other)), (Wanted::Silent, Some(Failed)));
        bench.tick(1);
        assert_eq!((bench.machine.state(other), bench.machine.table.len()), (None, 2));
        // Its place is another's now, or its own again.
        assert_eq!(want(&mut bench), Wanted::Asked);
        assert_eq!(bench.machine.table.len(), 2);
        bench.child = other;
        bench.tick(0);
        bench.hear(Answer(M2));
        assert_eq!((want(&mut bench), bench.machine.link(other)), (Wanted::Known, Some(link(M2, OURS[0]))));
        // It stays through a reload, and goes when it answers no more.
        bench.machine = bench.machine.reconfigured(&config);
        assert_eq!((bench.machine.state(other), bench.machine.count(Reachable)), (Some(Reachable), 1));
        for _ in 0..60 {
            bench.tick(1);
        }
        assert_eq!((bench.machine.state(other), bench.machine.wanted.due.len()), (None, 0));
    }
    let mut bench = Bench::new(CHILD4.into());
    let elsewhere = "192.0.2.77".parse().expect("an address");
    assert_eq!(bench.machine.want(at(0), &config(CHILD4.into(), ""), elsewhere), Wanted::NoLink);
}

#[test]
fn a_scan_of_a_subnet_fills_its_share_of_the_table_and_no_more() {
    let config = Config::parse(
        "router: { name: test, tunnel_addresses: [10.0.0.1] }\n\
         ports: [{ name: a, device: a, addresses: [10.0.0.1/8] }]\n\
         children: [{ name: child, address: 10.0.0.9 }]\n\
         virtual_hosts: [{ name: host, addresses: [192.0.2.1], services: [any], children: [child] }]\n",
        "test.yaml",
    );
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    let mut machine = Neighbours::new(&config, &OURS[..1], 1);
    machine.announcing = None;
    let mut child_asked = 0;
    let question = |output: &Output| matches!(output, Output::Send { frame, .. } if frame[38..42] == [10, 0, 0, 9]);
    for millisecond in 0..20_000_u32 {
        let now = Instant::ZERO + Duration::from_millis(millisecond.into());
        for scanned in 0..5 {
            machine.want(now, &config, Ipv4Addr::from(0x0a01_0000 + millisecond * 5 + scanned).into());
        }
        child_asked += machine.handle(now, Input::Tick).iter().filter(|output| question(output)).count();
        assert!(machine.wanted.due.len() <= WANTED_MAX && machine.table.len() <= WANTED_MAX + 1);
    }
    assert_eq!(machine.wanted.due.len(), WANTED_MAX);
    assert_eq!(child_asked, 12, "as often as without a scan");
    machine = machine.reconfigured(&config);
    assert_eq!((machine.table.len(), machine.wanted.due.len()), (WANTED_MAX + 1, WANTED_MAX));
}

/// Frames of every kind that the machine reads.
fn sound_frames() -> Vec<Vec<u8>> {
    let group = ndp::solicited_node(ROUTER6);
    let solicitation = NeighbourMessage::solicitation(ROUTER6, M1);
    let advertisement = NeighbourMessage::advertisement(CHILD6, M1, ndp::SOLICITED);
    vec![
        wire::arp(link(BROADCAST, M1), &ArpPacket::request(M1, CHILD4, ROUTER4)),
        wire::neighbour(link(ndp::group_mac(group), M1), CHILD6, group, solicitation),
        wire::neighbour(link(OURS[0], M1), CHILD6, ROUTER6, advertisement),
        echo(OURS[0], CHILD4.into(), ROUTER4.into()),
        echo(OURS[0], CHILD6.into(), ROUTER6.into()),
    ]
}

proptest! {
    /// Whatever arrives and whenever: nothing panics, nothing is counted twice, and everyone who is not known has a timer.
    #[test]
    fn no_frame_and_no_time_upsets_the_machine(
        steps in prop::collection::vec(
            (0..3u16, 0..7usize, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
             any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..200), 0..3000u64, any::<bool>()),
            1..60,
        ),
        v6 in any::<bool>(),
    ) {
        let sound = sound_frames();
        let mut bench = Bench::new(if v6 { CHILD6.into() } else { CHILD4.into() });
        for (port, kind, changes, cut, noise, milliseconds, whole) in steps {
            let mut frame = sound.get(kind).cloned().unwrap_or(noise);
            for (at, value) in changes {
                if !frame.is_empty() {
                    let at = at.index(frame.len());
                    frame[at] = value;
                }
            }
            if !whole {
                frame.truncate(cut.index(frame.len() + 1));
            }
            bench.frame(PortIndex(port), &frame);
            bench.now = bench.now + Duration::from_millis(milliseconds);
            bench.tick(0);
            let machine = &bench.machine;
            prop_assert_eq!(machine.counts.iter().sum::<u64>(), 1);
            prop_assert_eq!(machine.configured.due.len(), 1);
            prop_assert_eq!(bench.mac().is_some(), bench.state().is_known());
            prop_assert!(machine.next_deadline().is_some_and(|deadline| deadline > bench.now));
        }
    }
}
