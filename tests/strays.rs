//! Packets in the middle of TCP connections that their worker does not know: several workers in memory, and the slow path
//! between them.

use std::sync::Arc;
use std::time::Duration;

use crate::common::router::{ROUTER_MAC, TestRouter};
use etherparse::PacketBuilder;
use slr::clock::{Instant, WallClock};
use slr::config::Config;
use slr::control::compile::{Compiler, Configured};
use slr::control::neighbours::Neighbours;
use slr::control::slow_path::SlowPath;
use slr::recovery::FlowId;
use slr::recovery::echo::{Codec, Echo};
use slr::recovery::events::Event;
use slr::units::MacAddr;

const CONFIG: &str = r#"
router: { name: test, tunnel_addresses: [10.1.0.1], parents: [10.0.0.7] }
workers: { count: 3 }
ports:
  - { name: clients, device: net_null0, addresses: [10.0.0.1/24] }
  - { name: servers, device: net_null1, mtu: 1600, addresses: [10.1.0.1/24] }
flows: { capacity_v4: 600, capacity_v6: 100 }
neighbours: [{ address: 10.1.0.10, mac: "02:00:00:00:01:01" }, { address: 10.1.0.20, mac: "02:00:00:00:01:02" }]
children: [{ name: s1, address: 10.1.0.10 }, { name: s2, address: 10.1.0.20 }]
virtual_hosts:
  - { name: web, addresses: [192.0.2.1], selection: round_robin, children: [s1, s2] }
recovery: { ask_workers: on }
"#;

const WORKERS: u16 = 3;

struct Router {
    workers: Vec<TestRouter>,
    slow_path: SlowPath,
    now: Instant,
}

impl Router {
    fn new(config: &str) -> Router {
        let config = Config::parse(config, "test.yaml").unwrap_or_else(|error| panic!("{error}"));
        let neighbours = Neighbours::new(&config, &[ROUTER_MAC, MacAddr([2, 0, 0, 0, 0, 3])], 1);
        let reachability = Configured { config: &config, neighbours: &neighbours };
        let mut workers: Vec<_> = (0..WORKERS).map(|_| TestRouter::one_of(WORKERS, &config, &reachability)).collect();
        let ends = workers.iter().map(TestRouter::end).collect();
        let finders = workers.iter().map(|worker| worker.desk.as_ref().expect("a desk").finder()).collect();
        let compiler = std::mem::replace(&mut workers[0].compiler, Compiler::new(0));
        let slow_path = SlowPath::new(Arc::new(config), compiler, neighbours, workers[0].published.clone(), ends);
        let slow_path = slow_path.recovering(finders, 1);
        let mut router = Router { workers, slow_path, now: Instant::ZERO + Duration::from_secs(1) };
        // What it says of itself at start.
        router.turn();
        router
    }

    /// Lets the slow path and then every worker do what there is to do; returns what leaves of IPv4, with its port.
    fn turn(&mut self) -> Vec<(u16, Vec<u8>)> {
        self.slow_path.pass(self.now);
        let sent = self.workers.iter_mut().flat_map(|worker| {
            worker.worker.run();
            assert!(worker.counters.packets().conserved());
            worker.worker.io_mut().take_sent()
        });
        sent.map(|(port, frame)| (port.0, frame)).filter(|(_, frame)| frame[12..14] == [8, 0]).collect()
    }

    /// Lets a frame arrive at a worker, and returns what leaves at once and in the next few milliseconds.
    fn arrive(&mut self, worker: usize, frame: &[u8]) -> Vec<(u16, Vec<u8>)> {
        self.workers[worker].worker.io_mut().arrive(slr::units::PortIndex(0), frame);
        let mut sent = Vec::new();
        for _ in 0..5 {
            self.now = self.now + Duration::from_millis(1);
            sent.extend(self.workers.iter_mut().flat_map(|worker| {
                worker.worker.run();
                worker.worker.io_mut().take_sent().into_iter().map(|(port, frame)| (port.0, frame)).collect::<Vec<_>>()
            }));
            sent.extend(self.turn());
        }
        sent
    }

    /// The last byte of the address of the server that a packet went to; `None`: it did not leave.
    fn server(&mut self, worker: usize, frame: &[u8]) -> Option<u8> {
        let sent = self.arrive(worker, frame);
        assert!(sent.len() <= 1, "{sent:?}");
        sent.first().map(|(port, frame)| {
            assert_eq!(*port, 1);
            frame[33]
        })
    }

    fn count(&self, event: Event) -> u64 {
        self.slow_path.recovery_counters().of(event).get()
    }

    fn inserted(&self) -> u64 {
        self.workers.iter().map(|worker| worker.counters.flows_inserted.get()).sum()
    }

    fn installed(&self) -> u64 {
        self.workers.iter().map(|worker| worker.counters.flows_installed.get()).sum()
    }
}

/// The kinds of segments.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Syn,
    Data,
    Fin,
    Rst,
}
use Kind::{Data, Fin, Rst, Syn};

/// A client's segment.
fn segment(port: u16, kind: Kind) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], ROUTER_MAC.0).ipv4([10, 0, 0, 9], [192, 0, 2, 1], 57);
    let tcp = builder.tcp(port, 80, 1000, 1024);
    let tcp = match kind {
        Syn => tcp.syn(),
        Data => tcp.ack(77).psh(),
        Fin => tcp.ack(77).fin(),
        Rst => tcp.rst(),
    };
    let mut frame = Vec::new();
    tcp.write(&mut frame, if kind == Data { b"hello" } else { b"" }).expect("a packet");
    frame
}

/// The packet in a tunnel of the parent.
fn tunnelled(frame: &[u8]) -> Vec<u8> {
    let packet = &frame[14..];
    let mut outer =
        etherparse::Ipv4Header::new(packet.len() as u16, 9, etherparse::IpNumber::IPV4, [10, 0, 0, 7], [10, 1, 0, 1])
            .expect("a header");
    outer.header_checksum = outer.calc_header_checksum();
    [&ROUTER_MAC.0[..], &[2, 0, 0, 0, 0, 9], &[8, 0], &outer.to_bytes()[..], packet].concat()
}

fn with(from: &str, to: &str) -> String {
    assert!(CONFIG.contains(from), "{from}");
    CONFIG.replace(from, to)
}

#[test]
fn a_connection_that_comes_by_another_worker_stays_with_its_server() {
    for source in ["", ", flow: source"] {
        for framing in [|frame: &[u8]| frame.to_vec(), tunnelled] {
            let mut router = Router::new(&with("round_robin", &format!("round_robin{source}")));
            let first = router.server(1, &segment(1, Syn)).expect("a server");
            for (worker, kind) in [(0, Data), (0, Data), (2, Data), (0, Fin)] {
                assert_eq!(
                    router.server(worker, &framing(&segment(1, kind))),
                    Some(first),
                    "by worker {worker}{source}"
                );
            }
            // Nobody has selected for it again, and each worker has asked once.
            assert_eq!((router.inserted(), router.installed()), (1, 2), "{source}");
            assert_eq!((router.count(Event::Stray), router.count(Event::WorkersFound)), (2, 2));
        }
    }
}

#[test]
fn a_worker_that_has_forgotten_its_flows_learns_them_from_the_others() {
    let mut router = Router::new(CONFIG);
    let servers: Vec<_> = (1..=20).map(|port| router.server(0, &segment(port, Syn))).collect();
    // Each is known to a second worker too.
    (1..=20).for_each(|port| assert_eq!(router.server(1, &segment(port, Data)), servers[usize::from(port) - 1]));
    router.slow_path.forget(0).expect("a worker");
    router.turn();
    (1..=20).for_each(|port| assert_eq!(router.server(0, &segment(port, Data)), servers[usize::from(port) - 1]));
    assert_eq!(router.inserted(), 20);
    assert_eq!(router.slow_path.forget(3).expect_err("no worker").to_string(), "no worker 3; there are 3, from 0");
}

#[test]
fn several_packets_of_one_flow_ask_once_and_leave_in_order() {
    let mut router = Router::new(CONFIG);
    let server = router.server(1, &segment(1, Syn));
    for kind in [Data, Data, Fin] {
        router.workers[0].worker.io_mut().arrive(slr::units::PortIndex(0), &segment(1, kind));
    }
    let sent = router.arrive(0, &segment(1, Rst));
    let flags: Vec<u8> = sent.iter().map(|(_, frame)| frame[34 + 20 + 13]).collect();
    assert_eq!(flags, [0x18, 0x18, 0x11, 0x04]);
    assert!(sent.iter().all(|(_, frame)| Some(frame[33]) == server));
    assert_eq!((router.count(Event::Stray), router.count(Event::WorkersAsked)), (4, 1));
    // Of a fifth and sixth there are too many.
    let server = router.server(1, &segment(2, Syn));
    for _ in 0..2 {
        for _ in 0..3 {
            router.workers[2].worker.io_mut().arrive(slr::units::PortIndex(0), &segment(2, Data));
        }
        router.workers[2].worker.run();
        router.slow_path.pass(router.now);
    }
    let sent: Vec<_> = (0..3).flat_map(|_| router.turn()).collect();
    assert!(sent.len() == 4 && sent.iter().all(|(_, frame)| Some(frame[33]) == server), "{}", sent.len());
    assert_eq!(router.count(Event::HeldFull), 2);
}

#[test]
fn a_flow_without_room_for_its_entry_is_asked_for_with_each_packet_and_goes_right() {
    let mut router = Router::new(&with("capacity_v4: 600", "capacity_v4: 1"));
    let server = router.server(1, &segment(1, Syn));
    assert!(router.server(0, &segment(2, Syn)).is_some());
    for packet in 1..=3 {
        assert_eq!(router.server(0, &segment(1, Data)), server);
        assert_eq!((router.count(Event::Stray), router.installed()), (packet, 0));
    }
}

#[test]
fn what_nobody_knows_is_selected_dropped_or_reset() {
    for (policy, ask, answered) in [
        ("select", "on", true),
        ("select", "off", true),
        ("drop", "on", false),
        ("drop", "off", false),
        ("reset", "on", true),
        ("reset", "off", true),
    ] {
        let config = with("round_robin,", &format!("round_robin, on_unknown: {policy},"))
            .replace("workers: on", &format!("workers: {ask}"));
        let mut router = Router::new(&config);
        let sent = router.arrive(0, &segment(1, Data));
        assert_eq!(sent.len(), usize::from(answered), "{policy}");
        let dropped: u64 =
            router.workers[0].moved().iter().find(|(label, _)| *label == "unknown_flow").map_or(0, |(_, count)| *count);
        match policy {
            "select" => assert_eq!((sent[0].0, router.inserted()), (1, 1)),
            "drop" => assert_eq!((router.inserted(), dropped + router.count(Event::Dropped)), (0, 1), "asked: {ask}"),
            _ => {
                // To the client, by the port that it came by, with the sequence number that it waits for.
                let (port, frame) = &sent[0];
                assert_eq!(
                    (*port, &frame[..6], &frame[26..34]),
                    (0, &[2, 0, 0, 0, 0, 9][..], &[192, 0, 2, 1, 10, 0, 0, 9][..])
                );
                assert_eq!((&frame[38..42], frame[47]), (&[0, 0, 0, 77][..], 0x04));
                assert_eq!((router.inserted(), router.count(Event::Reset)), (0, 1));
                // A reset is not answered.
                assert!(router.arrive(0, &segment(1, Rst)).is_empty());
                assert_eq!(router.count(Event::ResetSuppressed), 1);
            }
        }
        // A new connection is none of this.
        assert!(router.server(0, &segment(2, Syn)).is_some());
    }
}

#[test]
fn first_packets_go_by_hash_where_that_is_wanted_and_the_flow_is_found_all_the_same() {
    let mut router = Router::new(&with("ask_workers: on", "first_packets: select"));
    let servers: Vec<_> = (1..=20).map(|port| router.server(1, &segment(port, Syn))).collect();
    let by_hash = (1..=20).map(|port| router.server(0, &segment(port, Data))).collect::<Vec<_>>();
    assert!(by_hash.iter().all(Option::is_some) && by_hash != servers, "hash and turn choose alike");
    assert_eq!((router.inserted(), router.count(Event::Passed)), (20, 20));
    let then = (1..=20).map(|port| router.server(0, &segment(port, Data))).collect::<Vec<_>>();
    assert_eq!(then, servers);
    // What nobody knows stays where its first packet went.
    let unknown = router.server(0, &segment(99, Data));
    assert!(unknown.is_some() && (0..3).all(|_| router.server(0, &segment(99, Data)) == unknown));
    assert_eq!(router.count(Event::Nobody), 1);
}

#[test]
fn a_flood_of_strays_leaves_room_for_the_routers_own_and_costs_no_entry() {
    let mut router = Router::new(CONFIG);
    let (flood, before) = (100, router.inserted());
    for port in 0..flood {
        router.workers[0].worker.io_mut().arrive(slr::units::PortIndex(0), &segment(1000 + port, Data));
    }
    router.workers[0].worker.run();
    let passed = router.workers[0].counters.strays_passed.get();
    // The ring has 8 slots.
    assert_eq!((passed, router.inserted()), (u64::from(flood) - 4, before));
}

/// A client's echo reply to the virtual host with this behind its IP header.
fn reply(client: [u8; 4], message: &[u8]) -> Vec<u8> {
    let mut packet =
        etherparse::Ipv4Header::new(message.len() as u16, 57, etherparse::IpNumber::ICMP, client, [192, 0, 2, 1])
            .expect("a header");
    packet.header_checksum = packet.calc_header_checksum();
    let mut message = message.to_vec();
    message[0] = 0;
    [&ROUTER_MAC.0[..], &[2, 0, 0, 0, 0, 9], &[8, 0], &packet.to_bytes()[..], &message].concat()
}

#[test]
fn a_recovery_echo_teaches_where_its_flow_goes_and_reaches_no_server() {
    const KEY: [u8; 16] = [9; 16];
    const NOW: u64 = 1_700_000_000_000;
    let config = with("ask_workers: on", "echo: { key: 09090909090909090909090909090909 }");
    let config = config.replace("round_robin,", "round_robin, on_unknown: drop,");
    let echo = |port: u16, server: u8, number| {
        let (source, destination) = (([10, 0, 0, 9], port).into(), ([192, 0, 2, 1], 80).into());
        let flow = FlowId { source, destination, protocol: 6 };
        let (tunnel_v4, expires) = (Some([10, 1, 0, server].into()), WallClock(NOW + 5_000));
        Echo { flow, tunnel_v4, tunnel_v6: None, expires, number }
    };
    let codec = Codec::new(&KEY);
    let written = |port, server, number| reply([10, 0, 0, 9], &codec.write(&echo(port, server, number)));
    for framing in [|frame: &[u8]| frame.to_vec(), tunnelled] {
        let mut router = Router::new(&config);
        router.slow_path.set_wall(router.now, WallClock(NOW));
        for (port, server) in [(1, 10), (2, 20), (3, 20), (4, 10)] {
            assert_eq!(router.server(0, &segment(port, Data)), None, "nobody knows it yet");
            assert!(router.arrive(0, &framing(&written(port, server, 1))).is_empty(), "the echo ends here");
            // By whichever worker.
            assert_eq!(router.server(0, &segment(port, Data)), Some(server));
            assert_eq!(router.server(2, &segment(port, Data)), Some(server));
        }
        assert_eq!(router.count(Event::EchoInstalled), 4);
        // A flow that is known stays where it is.
        let known = router.server(1, &segment(5, Syn)).expect("a server");
        assert!(router.arrive(1, &framing(&written(5, 30 - known, 1))).is_empty());
        assert_eq!(router.server(1, &segment(5, Data)), Some(known));

        let forged = reply([10, 0, 0, 9], &Codec::new(&[8; 16]).write(&echo(6, 10, 1)));
        let of_another = reply([10, 0, 0, 8], &codec.write(&echo(6, 10, 2)));
        let expired = Echo { expires: WallClock(NOW - 1), ..echo(6, 10, 3) };
        for (frame, event) in [
            (forged, Event::EchoForged),
            (of_another, Event::EchoForged),
            (reply([10, 0, 0, 9], &codec.write(&expired)), Event::EchoExpired),
            (written(1, 10, 1), Event::EchoReplayed),
            (written(6, 99, 4), Event::EchoUnknownServer),
        ] {
            let before = (router.count(event), router.installed());
            assert!(router.arrive(0, &framing(&frame)).is_empty(), "{event}");
            assert_eq!((router.count(event), router.installed()), (before.0 + 1, before.1), "{event}");
        }
        assert_eq!(router.server(0, &segment(6, Data)), None);
        // Any other echo reply is the servers' own.
        let ping = [&[0; 8][..], &[7; 80]].concat();
        assert!(router.server(0, &reply([10, 0, 0, 9], &ping)).is_some());
    }
    // Without a key it is a ping like any other.
    let mut router = Router::new(CONFIG);
    assert!(router.server(0, &written(1, 10, 1)).is_some());
}
