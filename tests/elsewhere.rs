//! Packets about flows that another worker has: several workers in memory, and the slow path between them.

use std::sync::Arc;
use std::time::Duration;

use crate::common::router::{ROUTER_MAC, TestRouter};
use etherparse::PacketBuilder;
use slr::clock::Instant;
use slr::config::Config;
use slr::control::compile::{Compiler, Configured};
use slr::control::neighbours::Neighbours;
use slr::control::slow_path::SlowPath;
use slr::units::MacAddr;

const CONFIG: &str = r#"
router: { name: test, tunnel_addresses: [10.1.0.1], parents: [10.0.0.7] }
ports:
  - { name: clients, device: net_null0, addresses: [10.0.0.1/24] }
  - { name: servers, device: net_null1, mtu: 1600, addresses: [10.1.0.1/24] }
flows: { capacity_v4: 600, capacity_v6: 100 }
neighbours: [{ address: 10.1.0.10, mac: "02:00:00:00:01:01" }, { address: 10.1.0.20, mac: "02:00:00:00:01:02" }]
children: [{ name: s1, address: 10.1.0.10 }, { name: s2, address: 10.1.0.20 }]
virtual_hosts: [{ name: web, addresses: [192.0.2.1], selection: round_robin, children: [s1, s2] }]
"#;

const WORKERS: u16 = 3;
const CLIENT: [u8; 4] = [10, 7, 0, 9];
const HOST: [u8; 4] = [192, 0, 2, 1];

struct Router {
    workers: Vec<TestRouter>,
    slow_path: SlowPath,
}

impl Router {
    fn new() -> Router {
        let config = Config::parse(CONFIG, "test.yaml").unwrap_or_else(|error| panic!("{error}"));
        let neighbours = Neighbours::new(&config, &[ROUTER_MAC, MacAddr([2, 0, 0, 0, 0, 3])], 1);
        let reachability = Configured { config: &config, neighbours: &neighbours };
        let mut workers: Vec<_> = (0..WORKERS).map(|_| TestRouter::one_of(WORKERS, &config, &reachability)).collect();
        let ends = workers.iter().map(TestRouter::end).collect();
        let compiler = std::mem::replace(&mut workers[0].compiler, Compiler::new(0));
        let slow_path = SlowPath::new(Arc::new(config), compiler, neighbours, workers[0].published.clone(), ends);
        let mut router = Router { workers, slow_path };
        // What it says of itself at start.
        router.turn();
        router.moved();
        router
    }

    /// Lets the slow path and then every worker do what there is to do; returns what the workers send of IPv4.
    fn turn(&mut self) -> Vec<Vec<u8>> {
        self.slow_path.pass(Instant::ZERO + Duration::from_secs(1));
        let sent = self.workers.iter_mut().flat_map(|worker| {
            worker.worker.run();
            worker.worker.io_mut().take_sent()
        });
        sent.map(|(_, frame)| frame).filter(|frame| frame[12..14] == [8, 0]).collect()
    }

    /// Which of these counters has moved by how much, in all workers.
    fn moved(&mut self) -> Vec<(&'static str, u64)> {
        let all: Vec<_> = self.workers.iter_mut().flat_map(TestRouter::moved).collect();
        ["forwarded", "icmp_errors", "icmp_error_elsewhere", "icmp_error_unknown_flow"]
            .map(|label| (label, all.iter().filter(|(other, _)| *other == label).map(|(_, count)| count).sum()))
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// A packet of the client to the virtual host.
fn request(port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], ROUTER_MAC.0).ipv4(CLIENT, HOST, 57);
    builder.udp(port, 80).write(&mut frame, b"hello").expect("a packet");
    frame
}

/// "Fragmentation needed" of a router about the answer to that, as an IP packet.
fn too_big(port: u16) -> Vec<u8> {
    let mut quoted = Vec::new();
    PacketBuilder::ipv4(HOST, CLIENT, 57).udp(80, port).write(&mut quoted, &[0; 8]).expect("a packet");
    let unreachable = etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
    let mut packet = Vec::new();
    PacketBuilder::ipv4([172, 16, 0, 7], HOST, 57)
        .icmpv4(etherparse::Icmpv4Type::DestinationUnreachable(unreachable))
        .write(&mut packet, &quoted)
        .expect("a packet");
    packet
}

fn framed(packet: &[u8]) -> Vec<u8> {
    [&ROUTER_MAC.0[..], &[2, 0, 0, 0, 0, 9], &[8, 0], packet].concat()
}

/// The packet in a tunnel of the parent.
fn tunnelled(packet: &[u8]) -> Vec<u8> {
    let mut outer =
        etherparse::Ipv4Header::new(packet.len() as u16, 9, etherparse::IpNumber::IPV4, [10, 0, 0, 7], [10, 1, 0, 1])
            .expect("a header");
    outer.header_checksum = outer.calc_header_checksum();
    framed(&[&outer.to_bytes()[..], packet].concat())
}

#[test]
fn an_icmp_error_finds_its_flow_at_whatever_worker() {
    for owner in 0..usize::from(WORKERS) {
        for arrives in [framed, tunnelled] {
            for port in [1, 2] {
                let mut router = Router::new();
                let child = router.workers[owner].carry([request(port)])[0][30..34].to_vec();
                router.moved();
                router.workers[0].carry([arrives(&too_big(port))]);
                let mut sent: Vec<_> = (0..WORKERS).flat_map(|_| router.turn()).collect();
                let moved = router.moved();
                assert!(moved.starts_with(&[("forwarded", 1), ("icmp_errors", 1)]), "{moved:?}");
                // Asked one after the other.
                assert_eq!(moved.get(2).map_or(0, |(_, count)| *count), owner as u64, "{moved:?}");
                if owner > 0 {
                    let sent = sent.remove(0);
                    assert_eq!((&sent[30..34], &sent[34..]), (&child[..], &too_big(port)[..]));
                }
            }
        }
    }
}

#[test]
fn an_icmp_error_about_nobodys_flow_is_dropped_once_and_asks_each_worker_once() {
    let mut router = Router::new();
    router.workers[1].carry([request(1)]);
    router.moved();
    for forged in [2, 3, 4] {
        router.workers[2].carry([framed(&too_big(forged))]);
        for _ in 0..2 * WORKERS {
            assert!(router.turn().is_empty());
        }
        assert_eq!(router.moved(), [("icmp_error_elsewhere", 2), ("icmp_error_unknown_flow", 1)]);
    }
}
