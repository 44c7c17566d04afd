//! What the outer header says of a flow and of a packet, and what of a parent's tunnel packet must not be carried on.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use slr::forward::memory_io::MemoryIo;
use slr::forward::pipeline::{FlowCapacity, Pipeline};
use slr::forward::worker::Worker;
use slr::units::WorkerId;

use super::*;

#[test]
fn the_checksum_holds_however_many_bits_of_the_source_are_spread() {
    for (prefix, octets) in
        [("198.18.0.0/15", 1), ("172.16.0.0/12", 1), ("11.0.0.0/8", 1), ("100.0.0.0/6", 0), ("96.0.0.0/4", 0)]
    {
        let config = CONFIG.replace("  parents:", &format!("  tunnel_source_prefixes: [{prefix}]\n  parents:"));
        let mut router = TestRouter::new(&config);
        let sent = router.carry((0..200).map(|port| udp(FOUR).with_port(port).frame()));
        let sources: Vec<IpAddr> = sent.iter().map(|frame| outer(frame).source).collect();
        let net: ipnet::IpNet = prefix.parse().expect("a prefix");
        assert!(sources.iter().all(|source| net.contains(source)), "{prefix}: {sources:?}");
        // The highest octet that the prefix leaves free.
        let highest: HashSet<u8> = sent.iter().map(|frame| frame[14 + 12 + octets]).collect();
        assert!(highest.len() > 1, "{prefix}: {sources:?}");
    }
}

#[test]
fn the_outer_flow_label_tells_flows_apart_and_stays_with_each() {
    for destination in [SIX, v6("2001:db8:80::6")] {
        let mut router = TestRouter::new(CONFIG);
        let mut labels = || -> Vec<u32> {
            let sent = router.carry((0..200).map(|port| udp(destination).with_port(port).frame()));
            sent.iter().map(|frame| u32::from_be_bytes([0, frame[15] & 0xf, frame[16], frame[17]])).collect()
        };
        let first = labels();
        assert!(first.iter().collect::<HashSet<_>>().len() > 190, "to {destination}: {first:x?}");
        assert_eq!(labels(), first, "to {destination}");
    }
}

/// A router whose one worker is this one of two.
fn worker_of_two(number: u16) -> TestRouter {
    let mut router = TestRouter::new(CONFIG);
    let capacity = FlowCapacity { v4: 100, v6: 100, fragments: 64, seed: None };
    let pipeline = Pipeline::new((WorkerId(number), 2), 2, capacity, router.counters.clone(), router.punts.clone());
    let published = Arc::new(ArcSwap::from(router.tables.clone()));
    let stop = Arc::new(AtomicBool::new(false));
    router.worker = Worker::new(MemoryIo::new(2), pipeline.expect("memory"), published, stop);
    router
}

#[test]
fn two_workers_never_give_the_same_identification() {
    // More packets than there are identifications, so that each worker has begun again.
    let [even, odd] = [0, 1].map(|number| -> HashSet<u16> {
        let sent = worker_of_two(number).carry(vec![udp(FOUR).frame(); 40_000]);
        sent.iter().map(|frame| u16::from_be_bytes([frame[18], frame[19]])).collect()
    });
    assert_eq!((even.len(), odd.len()), (1 << 15, 1 << 15));
    assert!(even.is_disjoint(&odd));
}

#[test]
fn padding_behind_a_short_tunnel_packet_is_neither_carried_nor_taken_for_the_inner_packet() {
    for (parent, own) in [("198.51.100.254", "198.51.100.1"), ("2001:db8:ffff::1", "2001:db8:1::1")] {
        for (destination, too_long) in [(FOUR, "ipv4_total_length"), (v6("2001:db8:80::4"), "ipv6_payload_length")] {
            let mut router = TestRouter::new(CONFIG);
            let inner = Packet { payload: 6, ..udp(destination) }.ip();
            let padded = |inner: &[u8]| [tunnelled(parent, own, 9, 0, inner), vec![0xee; 17]].concat();
            let sent = router.carry([padded(&inner)]);
            assert_eq!(sent.len(), 1, "{parent} to {destination}");
            assert_eq!(outer(&sent[0]).inner, inner, "{parent} to {destination}");
            router.moved();
            assert!(router.carry([padded(&inner[..inner.len() - 4])]).is_empty(), "{parent} to {destination}");
            assert_eq!(router.moved(), [("received", 1), (too_long, 1)], "{parent} to {destination}");
        }
    }
}
