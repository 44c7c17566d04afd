//! Two routers of a pair in memory, each with its worker and slow path: who answers for the pair's address, whose frames are
//! carried, and which flows the spare knows.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use etherparse::PacketBuilder;
use slr::clock::Instant;
use slr::config::Config;
use slr::control::compile::{Compiler, Configured};
use slr::control::neighbours::Neighbours;
use slr::control::slow_path::{Pairing, SlowPath};
use slr::ha::election::Role;
use slr::ha::link::Outcome;
use slr::packet::arp::{ArpPacket, REPLY};
use slr::recovery::mirror::Event;
use slr::units::{MacAddr, PortIndex};
use zerocopy::IntoBytes;

use crate::common::router::TestRouter;

const CLIENT_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const VIRTUAL_MAC: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 51]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
const HOST: [u8; 4] = [192, 0, 2, 1];

/// The configuration of router 1 or 2; each has a cluster key of its own, so that only what was told is known.
fn configuration(number: u8, more: &str) -> Config {
    let (other, priority, key) = (3 - number, 250 - 50 * u16::from(number), format!("{number:032x}"));
    let yaml = format!(
        r#"
router: {{ name: r{number}, tunnel_addresses: [10.1.0.{number}] }}
ports:
  - {{ name: clients, device: net_null0, addresses: [10.0.0.{number}/24] }}
  - {{ name: servers, device: net_null1, mtu: 1600, addresses: [10.1.0.{number}/24] }}
flows: {{ capacity_v4: 600, capacity_v6: 100 }}
cluster: {{ key: {key} }}
neighbours:
  - {{ address: 10.1.0.11, mac: "02:00:00:00:01:01" }}
  - {{ address: 10.1.0.12, mac: "02:00:00:00:01:02" }}
  - {{ address: 10.1.0.13, mac: "02:00:00:00:01:03" }}
children: [{{ name: s1, address: 10.1.0.11 }}, {{ name: s2, address: 10.1.0.12 }}, {{ name: s3, address: 10.1.0.13 }}]
virtual_hosts:
  - {{ name: web, addresses: [192.0.2.1], on_unknown: drop, children: [s1, s2, s3] }}
  - {{ name: sticky, addresses: [192.0.2.2], flow: source, children: [s1, s2, s3] }}
pair:
  access: clients
  id: 51
  virtual_addresses: [{ADDRESS}]
  priority: {priority}
  heartbeat: 10ms
  preempt: 100ms
  peer: {{ listen: 10.9.0.{number}:9480, address: 10.9.0.{other}:9480, key: 000102030405060708090a0b0c0d0e0f }}
  mirror_after: 100ms
  {more}
"#
    );
    Config::parse(&yaml, "test.yaml").unwrap_or_else(|error| panic!("{error}"))
}

struct Router {
    worker: TestRouter,
    slow_path: SlowPath,
    mac: MacAddr,
}

impl Router {
    fn new(number: u8, more: &str, now: Instant) -> Router {
        let config = configuration(number, more);
        let mac = MacAddr([2, 0, 0, 0, 0, number]);
        let macs = [mac, MacAddr([2, 0, 0, 0, 1, number])];
        let neighbours = Neighbours::new(&config, &macs, 1);
        let mut worker = TestRouter::of(&config, &Configured { config: &config, neighbours: &neighbours });
        let compiler = std::mem::replace(&mut worker.compiler, Compiler::new(0));
        let desk = worker.desk.take().expect("a desk");
        let pairing = Pairing::new(now, &config, &macs, now.as_nanos() + u64::from(number));
        let slow_path =
            SlowPath::new(Arc::new(config), compiler, neighbours, worker.published.clone(), vec![worker.end()]);
        let slow_path = slow_path.ordering(vec![desk.clerk()], 1).recovering(vec![desk.finder()], 1);
        let slow_path = slow_path.pairing(now, pairing).mirroring(vec![desk.surveyor()]);
        Router { worker, slow_path, mac }
    }

    fn role(&self) -> Role {
        self.slow_path.pair().expect("a pair").election().role().0
    }

    fn datagrams(&self, outcome: Outcome) -> u64 {
        self.slow_path.pair().expect("a pair").counters().datagrams(outcome).get()
    }

    fn mirrored(&self, event: Event) -> u64 {
        self.slow_path.pair().expect("a pair").mirrored().expect("flows are mirrored").of(event).get()
    }

    /// Whether it answers for the pair's address, and with which Ethernet address.
    fn answers(&mut self, now: Instant) -> Option<MacAddr> {
        let request = ArpPacket::request(CLIENT_MAC, Ipv4Addr::new(10, 0, 0, 254), ADDRESS);
        let frame = [&[0xff; 6][..], &CLIENT_MAC.0, &[8, 6], request.as_bytes()].concat();
        self.worker.worker.io_mut().arrive(PortIndex(0), &frame);
        self.worker.worker.run();
        self.slow_path.pass(now);
        self.worker.worker.run();
        let sent = self.worker.worker.io_mut().take_sent();
        let replies = sent.iter().filter(|(_, frame)| frame[12..14] == [8, 6]);
        let replies = replies.filter_map(|(_, frame)| ArpPacket::parse(&frame[14..]));
        replies.filter(|reply| reply.operation == REPLY).map(|reply| reply.sender_mac).next()
    }

    /// Where a packet goes that its client sends to this Ethernet address.
    fn child_of(&mut self, frame: &[u8]) -> Option<IpAddr> {
        self.worker.worker.io_mut().arrive(PortIndex(0), frame);
        self.worker.worker.run();
        let sent = self.worker.worker.io_mut().take_sent();
        let tunnelled = sent.into_iter().find(|(port, _)| *port == PortIndex(1));
        tunnelled.map(|(_, frame)| IpAddr::from(<[u8; 4]>::try_from(&frame[30..34]).expect("an address")))
    }
}

/// A packet of the client, which asks for a connection or goes on with one.
fn packet(to: MacAddr, host: [u8; 4], port: u16, opens: bool) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(CLIENT_MAC.0, to.0).ipv4([10, 7, 0, (port % 250) as u8], host, 57);
    let builder = builder.tcp(port, 80, 1, 1000);
    let mut frame = Vec::new();
    let builder = if opens { builder.syn() } else { builder.ack(1) };
    builder.write(&mut frame, b"").expect("a packet");
    frame
}

/// Both routers, of which the dead ones are gone, and what they have said to each other.
struct Pair {
    routers: [Option<Router>; 2],
    now: Instant,
    /// Datagrams for the second one.
    recorded: Vec<Vec<u8>>,
    /// Announcements of the pair's address: who sent each.
    announced: Vec<MacAddr>,
}

impl Pair {
    fn new(more: &str) -> Pair {
        let routers = [1, 2].map(|number| Some(Router::new(number, more, Instant::ZERO)));
        Pair { routers, now: Instant::ZERO, recorded: Vec::new(), announced: Vec::new() }
    }

    fn router(&mut self, number: usize) -> &mut Router {
        self.routers[number - 1].as_mut().expect("it runs")
    }

    /// Lets time pass, in which each hears what the other says.
    fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.now = self.now + Duration::from_millis(1);
            for from in 0..2 {
                let Some(router) = &mut self.routers[from] else { continue };
                router.worker.wait(Duration::from_millis(1));
                router.slow_path.pass(self.now);
                router.worker.worker.run();
                let frames = router.worker.worker.io_mut().take_sent();
                let datagrams = router.slow_path.take_peer_datagrams();
                for (port, frame) in frames {
                    if let Some(arp) = ArpPacket::parse(&frame[14..]).filter(|arp| arp.sender_ip() == ADDRESS) {
                        self.announced.push(arp.sender_mac);
                    }
                    if let (PortIndex(0), Some(other)) = (port, &mut self.routers[1 - from]) {
                        other.worker.worker.io_mut().arrive(PortIndex(0), &frame);
                    }
                }
                if from == 0 {
                    self.recorded.extend(datagrams.iter().cloned());
                }
                if let Some(other) = &mut self.routers[1 - from] {
                    datagrams.iter().for_each(|datagram| other.slow_path.hear_peer(self.now, datagram));
                }
            }
        }
    }

    fn roles(&self) -> [Option<Role>; 2] {
        self.routers.each_ref().map(|router| router.as_ref().map(Router::role))
    }
}

#[test]
fn the_active_router_alone_answers_for_the_address_and_the_other_one_takes_it_over() {
    let mut pair = Pair::new("");
    pair.run(200);
    assert_eq!(pair.roles(), [Some(Role::Active), Some(Role::Standby)]);
    let now = pair.now;
    let (first, second) = (pair.router(1).mac, pair.router(2).mac);
    assert_eq!(pair.router(1).answers(now), Some(first));
    assert_eq!(pair.router(2).answers(now), None);
    assert!(pair.announced.contains(&first) && !pair.announced.contains(&second));

    pair.routers[0] = None;
    pair.run(40);
    assert_eq!(pair.roles(), [None, Some(Role::Active)]);
    assert_eq!(pair.announced.last(), Some(&second));
    let now = pair.now;
    assert_eq!(pair.router(2).answers(now), Some(second));

    // The first one is back: it has to have the flows and to wait, and the second one is silent again.
    pair.routers[0] = Some(Router::new(1, "", now));
    pair.run(100);
    assert_eq!(pair.roles(), [Some(Role::Standby), Some(Role::Active)]);
    pair.run(2000);
    assert_eq!(pair.roles(), [Some(Role::Active), Some(Role::Standby)]);
    assert_eq!(pair.announced.last(), Some(&first));
    let now = pair.now;
    assert_eq!([pair.router(1).answers(now), pair.router(2).answers(now)], [Some(first), None]);
    let counters = |router: &Router| Outcome::ALL.iter().map(|of| router.datagrams(*of)).collect::<Vec<_>>();
    for number in [1, 2] {
        let router = pair.router(number);
        assert!(router.datagrams(Outcome::Taken) > 0);
        let bad = router.datagrams(Outcome::Forged) + router.datagrams(Outcome::Malformed);
        assert_eq!(bad, 0, "{:?}", counters(router));
    }
}

#[test]
fn a_link_that_goes_down_and_a_gateway_that_does_not_answer_change_who_is_active() {
    let mut pair = Pair::new("requires: { links: [clients], gateways: [10.0.0.254], penalty: 100 }");
    // Nobody knows about the gateway: both lack it alike, after the time that it has to answer.
    pair.run(6000);
    assert_eq!(pair.roles(), [Some(Role::Active), Some(Role::Standby)]);
    let priority = |router: &mut Router| router.slow_path.pair().expect("a pair").election().priority();
    assert_eq!((priority(pair.router(1)), priority(pair.router(2))), (100, 50));
    assert_eq!(pair.router(1).slow_path.pair().expect("a pair").missing(), ["gateway 10.0.0.254"]);
    pair.router(1).slow_path.set_links([false, true].into_iter());
    pair.run(20);
    assert_eq!(pair.roles(), [Some(Role::Inoperative), Some(Role::Active)]);
    pair.router(1).slow_path.set_links([true, true].into_iter());
    // A port that is not required may be down.
    pair.router(2).slow_path.set_links([true, false].into_iter());
    pair.run(3000);
    assert_eq!(pair.roles(), [Some(Role::Active), Some(Role::Standby)]);
}

#[test]
fn the_spare_knows_the_flows_of_the_active_router_and_takes_nothing_that_was_recorded() {
    let mut pair = Pair::new("");
    pair.run(200);
    let to = pair.router(1).mac;
    let flows: Vec<u16> = (1000..1100).collect();
    let mut children = Vec::new();
    for port in &flows {
        pair.router(1).child_of(&packet(to, HOST, *port, true));
        children.push(pair.router(1).child_of(&packet(to, HOST, *port, false)).expect("a child"));
    }
    // A flood of SYNs, and a client whose flows are one.
    for port in 2000..2100 {
        pair.router(1).child_of(&packet(to, HOST, port, true));
    }
    let sticky: Vec<_> =
        (1..20).map(|client| pair.router(1).child_of(&packet(to, [192, 0, 2, 2], client, true))).collect();
    pair.run(3000);
    assert_eq!(pair.router(1).mirrored(Event::Told), 100 + 19, "the flood is not told");
    assert_eq!(pair.router(2).mirrored(Event::Kept), 100 + 19);
    assert_eq!(pair.router(2).mirrored(Event::UnknownTunnel), 0);

    // What was said before, once more, and later still to a router that has begun anew.
    let recorded = std::mem::take(&mut pair.recorded);
    let now = pair.now;
    for datagram in &recorded {
        pair.router(2).slow_path.hear_peer(now, datagram);
    }
    assert_eq!(pair.router(2).datagrams(Outcome::Replayed), recorded.len() as u64);
    assert_eq!(pair.router(2).mirrored(Event::Kept), 100 + 19);
    let mut anew = Router::new(2, "", now);
    for datagram in &recorded {
        anew.slow_path.hear_peer(now, datagram);
    }
    assert_eq!((anew.mirrored(Event::Kept), anew.datagrams(Outcome::Taken)), (0, 0));
    assert_eq!(anew.datagrams(Outcome::OtherLife) + anew.datagrams(Outcome::Greeting), recorded.len() as u64);

    pair.routers[0] = None;
    pair.run(100);
    let to = pair.router(2).mac;
    for (port, child) in flows.iter().zip(children) {
        assert_eq!(pair.router(2).child_of(&packet(to, HOST, *port, false)), Some(child), "{port}");
    }
    assert_eq!(pair.router(2).child_of(&packet(to, HOST, 3000, false)), None, "nobody has told of this one");
    for (client, child) in (1..20).zip(sticky) {
        assert_eq!(pair.router(2).child_of(&packet(to, [192, 0, 2, 2], client, true)), child);
    }
}

#[test]
fn with_an_ethernet_address_of_its_own_only_the_active_router_carries_its_frames() {
    let mut pair = Pair::new("virtual_mac: on");
    pair.run(200);
    assert_eq!(pair.announced.last(), Some(&VIRTUAL_MAC));
    let now = pair.now;
    assert_eq!([pair.router(1).answers(now), pair.router(2).answers(now)], [Some(VIRTUAL_MAC), None]);
    let frames = |own: MacAddr| [own, VIRTUAL_MAC, CLIENT_MAC].map(|to| packet(to, HOST, 7, true));
    for (number, carried) in [(1, [true, true, false]), (2, [true, false, false])] {
        let router = pair.router(number);
        router.worker.moved();
        let own = router.mac;
        assert_eq!(frames(own).map(|frame| router.child_of(&frame).is_some()), carried, "router {number}");
        let moved = router.worker.moved();
        let strangers = carried.iter().filter(|carried| !**carried).count() as u64;
        assert!(moved.contains(&("other_station", strangers)), "{moved:?}");
        assert!(router.worker.counters.packets().conserved());
    }
    pair.routers[0] = None;
    pair.run(60);
    let own = pair.router(2).mac;
    assert_eq!(frames(own).map(|frame| pair.router(2).child_of(&frame).is_some()), [true, true, false]);
}
