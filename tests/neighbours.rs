//! Worker and slow path together: what a next hop says changes where packets go, and nothing else.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::common::router::TestRouter;
use etherparse::PacketBuilder;
use slr::clock::Instant;
use slr::config::Config;
use slr::control::compile::{Compiler, Configured, compile};
use slr::control::neighbours::{Change, Neighbours};
use slr::control::slow_path::SlowPath;
use slr::control::waiting::WaitingDrop;
use slr::packet::arp::{self, ArpPacket};
use slr::units::{MacAddr, PortIndex};
use zerocopy::IntoBytes;

const CONFIG: &str = r#"
router: { name: test, tunnel_addresses: [10.1.0.1], parents: [10.0.0.254] }
ports:
  - { name: clients, device: a, addresses: [10.0.0.1/24] }
  - { name: servers, device: b, addresses: [10.1.0.1/24], mtu: 1600 }
flows: { capacity_v4: 1000, capacity_v6: 1000 }
children: [{ name: one, address: 10.1.0.11 }, { name: two, address: 10.1.0.12 }]
virtual_hosts:
  - { name: both, addresses: [192.0.2.1], services: [any], table_size: 251, children: [one, two] }
"#;

const PORTS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 0xa]), MacAddr([2, 0, 0, 0, 0, 0xb])];
const SERVERS: PortIndex = PortIndex(1);
const ONE: (Ipv4Addr, MacAddr) = (Ipv4Addr::new(10, 1, 0, 11), MacAddr([2, 0, 0, 0, 1, 1]));
const TWO: (Ipv4Addr, MacAddr) = (Ipv4Addr::new(10, 1, 0, 12), MacAddr([2, 0, 0, 0, 1, 2]));

/// A router whose slow path runs when it is told to.
struct Whole {
    router: TestRouter,
    slow_path: SlowPath,
    now: Instant,
}

impl Whole {
    fn new(config: &Config) -> Whole {
        let neighbours = Neighbours::new(config, &PORTS, 1);
        let mut router = TestRouter::over(CONFIG, &Configured { config, neighbours: &neighbours });
        let compiler = std::mem::replace(&mut router.compiler, Compiler::new(0));
        let end = router.end();
        let slow_path =
            SlowPath::new(Arc::new(config.clone()), compiler, neighbours, router.published.clone(), vec![end]);
        Whole { router, slow_path, now: Instant::ZERO }
    }

    /// Lets time pass and the slow path work; returns what has changed and what leaves.
    fn pass(&mut self, time: Duration) -> (Vec<Change>, Vec<(PortIndex, Vec<u8>)>) {
        self.now = self.now + time;
        let changes = self.slow_path.pass(self.now);
        self.router.worker.run();
        (changes, self.router.worker.io_mut().take_sent())
    }

    fn arrive(&mut self, port: PortIndex, frame: &[u8]) {
        self.router.worker.io_mut().arrive(port, frame);
        self.router.worker.run();
        assert!(self.router.counters.packets().conserved());
    }

    /// The server answers the router's question.
    fn answer(&mut self, (address, mac): (Ipv4Addr, MacAddr)) {
        let question = ArpPacket::request(PORTS[1], Ipv4Addr::new(10, 1, 0, 1), address);
        self.arrive(SERVERS, &arp_frame(PORTS[1], mac, &question.reply(mac)));
    }

    /// Which server gets each of 100 flows: the last byte of the outer destination, and the link-layer address.
    fn flows(&mut self) -> Vec<(u8, MacAddr)> {
        let frames = (1..=100).map(|port| udp([192, 0, 2, 1], port));
        let sent = self.router.carry(frames);
        sent.iter().map(|frame| (frame[33], MacAddr(frame[..6].try_into().expect("six bytes")))).collect()
    }
}

fn arp_frame(destination: MacAddr, source: MacAddr, packet: &ArpPacket) -> Vec<u8> {
    [&destination.0[..], &source.0, &[8, 6], packet.as_bytes()].concat()
}

fn udp(destination: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], PORTS[0].0).ipv4([10, 0, 0, 9], destination, 64).udp(port, 80);
    builder.write(&mut frame, b"data").expect("a packet");
    frame
}

fn config() -> Config {
    Config::parse(CONFIG, "test.yaml").unwrap_or_else(|error| panic!("{error}"))
}

/// Which addresses are asked for by ARP in these frames.
fn asked(sent: &[(PortIndex, Vec<u8>)]) -> Vec<Ipv4Addr> {
    let packets = sent.iter().filter_map(|(_, frame)| ArpPacket::parse(&frame[14..]));
    let questions =
        packets.filter(|packet| packet.operation == arp::REQUEST && packet.sender_ip() != packet.target_ip());
    questions.map(|packet| packet.target_ip()).collect()
}

#[test]
fn children_get_packets_as_soon_as_they_have_answered_and_flows_stay_where_they_are() {
    let config = config();
    let mut whole = Whole::new(&config);
    assert!(whole.flows().is_empty());
    let first = [("received", 100), ("flows_inserted", 100), ("no_neighbour", 4), ("punt_ring_full", 96)];
    assert_eq!(whole.router.moved(), first, "the slow path is told, and no more than its ring half full");

    let (changes, sent) = whole.pass(Duration::ZERO);
    assert_eq!(asked(&sent), [ONE.0, TWO.0]);
    assert!(changes.is_empty());
    assert_eq!(whole.router.moved(), [("injected", 4)], "two questions and two announcements");

    whole.answer(ONE);
    let (changes, _) = whole.pass(Duration::from_millis(1));
    assert_eq!(changes, [Change { address: ONE.0.into(), before: None, mac: Some(ONE.1) }]);
    whole.router.moved();
    let to_one = whole.flows();
    assert!(!to_one.is_empty() && to_one.iter().all(|to| *to == (11, ONE.1)));
    let lost = 100 - to_one.len() as u64;
    let told = [("received", 100), ("forwarded", 100 - lost), ("no_neighbour", 4), ("punt_ring_full", lost - 4)];
    assert_eq!(whole.router.moved(), told);

    whole.answer(TWO);
    whole.pass(Duration::from_millis(1));
    assert_eq!(whole.flows().len(), to_one.len(), "snapshots keep a distance");
    whole.pass(Duration::from_millis(9));
    whole.router.moved();
    let all = whole.flows();
    assert_eq!(all.len(), 100);
    assert_eq!(all.iter().filter(|to| **to == (11, ONE.1)).count(), to_one.len());
    assert!(all.iter().all(|to| [(11, ONE.1), (12, TWO.1)].contains(to)));
    assert_eq!(whole.router.moved(), [("received", 100), ("forwarded", 100)], "no flow was made anew");

    // It moves to another link-layer address and says so.
    let moved = MacAddr([2, 0, 0, 0, 1, 9]);
    whole.arrive(SERVERS, &arp_frame(MacAddr([0xff; 6]), moved, &ArpPacket::request(moved, TWO.0, TWO.0)));
    whole.pass(Duration::from_millis(20));
    let expected: Vec<_> = all.iter().map(|to| if *to == (12, TWO.1) { (12, moved) } else { *to }).collect();
    assert_eq!(whole.flows(), expected);

    // Both fall silent: within a minute no packet is sent into the void any more.
    let mut gone = Vec::new();
    for _ in 0..60 {
        gone.extend(whole.pass(Duration::from_secs(1)).0);
    }
    gone.sort_by_key(|change| change.address);
    let lost = |(address, before)| Change { address: IpAddr::V4(address), before: Some(before), mac: None };
    assert_eq!(gone, [ONE, (TWO.0, moved)].map(lost));
    assert!(whole.flows().is_empty());
}

#[test]
fn the_first_packets_to_a_child_wait_until_it_has_answered() {
    let config = config();
    let mut whole = Whole::new(&config);
    let frames: Vec<Vec<u8>> = (1..=4).map(|port| udp([192, 0, 2, 1], port)).collect();
    assert!(whole.router.carry(&frames).is_empty());
    whole.pass(Duration::ZERO);
    whole.answer(ONE);
    whole.answer(TWO);
    whole.router.moved();
    let (_, sent) = whole.pass(Duration::from_millis(1));
    assert_eq!(whole.router.moved(), [("received", 4), ("forwarded", 4)]);
    let inner: Vec<&[u8]> = sent.iter().map(|(_, frame)| &frame[34..]).collect();
    let mut expected: Vec<&[u8]> = frames.iter().map(|frame| &frame[14..]).collect();
    // Those for one child leave in the order in which they came.
    expected.sort_by_key(|packet| inner.iter().position(|sent| sent == packet));
    assert_eq!(inner, expected);

    // Nobody answers: no packet is kept for ever, and each is counted.
    let mut whole = Whole::new(&config);
    whole.router.carry(&frames);
    let counters = whole.slow_path.counters();
    whole.pass(Duration::ZERO);
    assert_eq!(counters.waiting.get(), 4);
    for _ in 0..3 {
        whole.pass(Duration::from_secs(1));
    }
    assert_eq!((counters.waiting.get(), counters.waiting_dropped(WaitingDrop::Unanswered).get()), (0, 4));
    // Who is known not to answer is not waited for.
    whole.router.carry(&frames);
    whole.pass(Duration::ZERO);
    assert_eq!((counters.waiting.get(), counters.waiting_dropped(WaitingDrop::Unanswered).get()), (0, 8));
}

#[test]
fn fragments_find_their_first_one_when_it_has_waited_for_the_next_hop() {
    let config = config();
    for order in [[0, 1, 2], [2, 0, 1], [2, 1, 0]] {
        let mut whole = Whole::new(&config);
        whole.pass(Duration::ZERO);
        whole.router.moved();
        let fragments = [(0_u16, 0x20_u8), (4, 0x20), (8, 0)].map(|(offset, more)| {
            let mut frame = udp([192, 0, 2, 1], 7);
            frame.truncate(34);
            // Headers of UDP, or data that look like them.
            frame.extend([0, 7, 0, 80, 0, 96, 0, 0].repeat(4));
            frame[16..18].copy_from_slice(&52_u16.to_be_bytes());
            frame[20..22].copy_from_slice(&[more, offset as u8]);
            frame[24..26].fill(0);
            let sum = slr::packet::checksum::checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            frame
        });
        order.iter().for_each(|&number| whole.arrive(PortIndex(0), &fragments[number]));
        let moved = whole.router.moved();
        assert_eq!(moved, [("received", 3), ("flows_inserted", 1), ("no_neighbour", 1)], "{order:?}");
        assert_eq!(whole.router.counters.held.get(), 2);
        whole.answer(ONE);
        whole.answer(TWO);
        let (_, sent) = whole.pass(Duration::from_millis(20));
        let left: Vec<u8> = sent.iter().map(|(_, frame)| frame[34 + 7]).collect();
        let later: Vec<u8> = order.iter().filter(|number| **number > 0).map(|number| *number as u8 * 4).collect();
        assert_eq!(left, [&[0], &later[..]].concat(), "{order:?}");
        assert_eq!(whole.router.counters.held.get(), 0);
    }
}

#[test]
fn a_snapshot_over_other_neighbours_is_what_compiling_anew_gives() {
    let config = config();
    let mut whole = Whole::new(&config);
    whole.pass(Duration::ZERO);
    whole.answer(ONE);
    whole.answer(TWO);
    whole.pass(Duration::from_millis(1));
    let published = whole.router.published.load_full();
    let text = CONFIG.to_owned()
        + &format!(
            r#"neighbours: [{{ address: {}, mac: "{}" }}, {{ address: {}, mac: "{}" }}]"#,
            ONE.0, ONE.1, TWO.0, TWO.1
        );
    let fixed = Config::parse(&text, "test.yaml").unwrap_or_else(|error| panic!("{error}"));
    let neighbours = Neighbours::new(&fixed, &PORTS, 1);
    let anew = compile(&fixed, &Configured { config: &fixed, neighbours: &neighbours });
    assert_eq!(format!("{:?}{:?}", published.paths, published.targets), format!("{:?}{:?}", anew.paths, anew.targets));
    assert_eq!(published.paths.len(), 2);
}

#[test]
fn what_the_slow_path_cannot_send_is_counted_and_disturbs_nothing() {
    let config = config();
    let mut whole = Whole::new(&config);
    let question = arp_frame(
        PORTS[0],
        MacAddr([2; 6]),
        &ArpPacket::request(MacAddr([2; 6]), [10, 0, 0, 9].into(), [10, 0, 0, 1].into()),
    );
    whole.pass(Duration::ZERO);
    whole.router.moved();

    whole.router.worker.io_mut().limit(0);
    whole.arrive(PortIndex(0), &question);
    whole.pass(Duration::ZERO);
    assert_eq!(whole.router.moved(), [("received", 1), ("inject_tx_queue_full", 1), ("arp", 1)]);

    whole.router.worker.io_mut().limit(usize::MAX);
    whole.router.worker.io_mut().limit_buffers(3);
    (0..4).for_each(|_| whole.arrive(PortIndex(0), &question));
    let (_, sent) = whole.pass(Duration::ZERO);
    assert_eq!(sent.len(), 3);
    assert_eq!(whole.router.moved(), [("received", 4), ("injected", 3), ("inject_no_buffer", 1), ("arp", 4)]);

    whole.router.worker.io_mut().limit_buffers(usize::MAX);
    (0..8).for_each(|_| whole.arrive(PortIndex(0), &question));
    whole.slow_path.pass(whole.now);
    // The worker has not run yet: its ring of eight is full.
    whole
        .router
        .punts
        .push(|| slr::forward::punt::Punt::new(PortIndex(0), slr::forward::verdict::PuntReason::Arp.into(), &question));
    let (_, sent) = whole.pass(Duration::ZERO);
    assert_eq!(sent.len(), 8);
    assert_eq!(whole.router.moved(), [("received", 8), ("injected", 8), ("inject_ring_full", 1), ("arp", 8)]);
}

#[test]
fn what_comes_out_of_a_tunnel_is_no_neighbours_word() {
    let config = config();
    let mut whole = Whole::new(&config);
    whole.pass(Duration::ZERO);
    whole.router.moved();
    // Read as a frame the inner packet would start with an Ethernet header of ARP: its source is 8.6.x.x.
    let mut inner = Vec::new();
    let builder = PacketBuilder::ipv4([8, 6, 0, 1], [10, 0, 0, 1], 64).icmpv4_echo_request(1, 1);
    builder.write(&mut inner, &[0; 40]).expect("a packet");
    let mut frame = [&PORTS[0].0[..], &[2; 6], &[8, 0]].concat();
    let number = etherparse::ip_number::IPV4;
    let mut outer =
        etherparse::Ipv4Header::new(inner.len() as u16, 9, number, [10, 0, 0, 254], [10, 1, 0, 1]).expect("a header");
    outer.header_checksum = outer.calc_header_checksum();
    outer.write(&mut frame).expect("a vector");
    frame.extend(inner);
    whole.arrive(PortIndex(0), &frame);
    let (changes, sent) = whole.pass(Duration::ZERO);
    assert_eq!((changes.len(), sent.len()), (0, 0));
    assert_eq!(whole.router.moved(), [("received", 1), ("own_address_in_tunnel", 1)]);
}
