//! Fragments in whatever order they come: those that belong together go together, and what cannot is named.

use proptest::prelude::*;

use super::*;
use crate::common::capture::real_frames;

const SIX_TO_TEN: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 4));

fn router() -> TestRouter {
    TestRouter::new(&ten("flow: 5-tuple").replace("192.0.2.0/24]", "192.0.2.0/24, \"2001:db8:80::/48\"]"))
}

/// A datagram of 1208 bytes and its fragments.
fn datagram(destination: IpAddr, source_port: u16, at: &[usize]) -> Vec<Vec<u8>> {
    cut(&Packet { payload: 1200, ..udp(destination) }.with_port(source_port).ip(), source_port, at)
}

#[test]
fn whatever_the_order_all_go_to_the_child_of_the_flow_behind_the_first() {
    for destination in [FOUR, SIX_TO_TEN] {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut router = router();
            let mut expected = Vec::new();
            for flow in 0..20 {
                let packet = Packet { payload: 1200, ..udp(destination) }.with_port(flow).frame();
                expected.push(children(&mut router, [packet])[0]);
            }
            router.moved();
            for (flow, expected) in (0..20).zip(expected) {
                let pieces = datagram(destination, flow, &[400, 800]);
                let sent = router.carry(order.map(|piece| &pieces[piece]));
                // The first, what came before it, what came after it.
                let first = order.iter().position(|piece| *piece == 0).expect("the first");
                let order = [&[0], &order[..first], &order[first + 1..]].concat();
                let inner: Vec<_> = order.iter().map(|piece| pieces[*piece][14..].to_vec()).collect();
                let outer: Vec<_> = sent.iter().map(|frame| outer(frame)).collect();
                assert_eq!(outer.iter().map(|outer| outer.inner.clone()).collect::<Vec<_>>(), inner, "{order:?}");
                assert!(outer.iter().all(|outer| outer.destination == expected), "{order:?} to {destination}");
            }
            assert_eq!(router.moved(), [("received", 60), ("forwarded", 60)], "{order:?}");
            assert_eq!(router.counters.held.get(), 0);
        }
    }
}

#[test]
fn more_fragments_than_a_burst_are_released_in_order() {
    let packet = Packet { payload: 392, ..udp(FOUR) };
    let cuts: Vec<usize> = (1..50).map(|number| number * 8).collect();
    let mut pieces = cut(&packet.ip(), 7, &cuts);
    pieces.truncate(48);
    pieces.rotate_left(1);
    let mut router = router();
    let sent = router.carry(&pieces);
    pieces.rotate_right(1);
    assert!(sent.iter().zip(&pieces).all(|(frame, piece)| outer(frame).inner == piece[14..]));
    assert_eq!(router.moved(), [("received", 48), ("forwarded", 48), ("flows_inserted", 1)]);
}

#[test]
fn held_ones_are_given_up_after_two_seconds() {
    for destination in [FOUR, SIX_TO_TEN] {
        let mut router = router();
        let pieces = datagram(destination, 1, &[400, 800]);
        router.carry([&pieces[1]]);
        router.wait(Duration::from_millis(1_500));
        router.carry([&pieces[2]]);
        assert_eq!(router.moved(), [("received", 2)]);
        assert_eq!(router.counters.held.get(), 2);
        router.wait(Duration::from_millis(500));
        router.carry::<&[u8]>([]);
        assert_eq!(router.counters.held.get(), 2, "2 s are not over");
        router.wait(Duration::from_millis(1));
        router.carry::<&[u8]>([]);
        assert_eq!(router.moved(), [("fragment_timeout", 2)]);
        assert_eq!(router.carry([&pieces[0]]).len(), 1, "the first one still goes");
    }
}

#[test]
fn what_is_held_when_the_worker_stops_is_dropped_and_counted() {
    let mut router = router();
    router.carry(datagram(FOUR, 1, &[400, 800]).into_iter().skip(1));
    router.carry(datagram(SIX_TO_TEN, 1, &[400, 800]).into_iter().skip(1));
    router.moved();
    router.worker.finish();
    assert_eq!(router.moved(), [("fragment_timeout", 4)]);
    assert_eq!(router.counters.held.get(), 0);
    assert!(router.counters.packets().conserved());
}

#[test]
fn a_complete_datagram_is_forgotten_and_its_identification_is_free() {
    for destination in [FOUR, SIX_TO_TEN] {
        let mut router = router();
        let pieces = datagram(destination, 1, &[400, 800]);
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            assert_eq!(router.carry(order.map(|piece| &pieces[piece])).len(), 3, "{order:?}");
        }
        assert_eq!(router.moved(), [("received", 9), ("forwarded", 9), ("flows_inserted", 1)]);
    }
}

#[test]
fn no_byte_is_carried_twice_and_none_behind_the_end() {
    for destination in [FOUR, SIX_TO_TEN] {
        let ip = Packet { payload: 1200, ..udp(destination) }.ip();
        let header = &ip[..ip.len() - 1208];
        let piece = |offset, len, more| ethernet(&fragment(header, 9, offset, more, &vec![b'x'; len]));
        let first = cut(&ip, 9, &[400]).swap_remove(0);
        // What comes before, and what is dropped.
        for (before, dropped, reason) in [
            (vec![first.clone()], piece(392, 16, true), "fragment_overlap"),
            (vec![first.clone(), piece(800, 8, true)], piece(400, 408, true), "fragment_overlap"),
            (vec![first.clone(), piece(800, 8, false)], piece(808, 8, true), "fragment_beyond_end"),
            (vec![first.clone(), piece(800, 8, false)], piece(816, 8, false), "fragment_beyond_end"),
            (vec![first.clone(), piece(800, 8, true)], piece(600, 8, false), "fragment_beyond_end"),
            (vec![first.clone()], piece(800, 0, true), "fragment_empty"),
        ] {
            let mut router = router();
            let count = before.len();
            assert_eq!(router.carry(before).len(), count);
            router.moved();
            assert!(router.carry([&dropped]).is_empty());
            assert_eq!(router.moved(), [("received", 1), (reason, 1)], "to {destination}");
        }
        // The same among those that are held: what overlaps is not released.
        let mut router = router();
        let sent = router.carry([piece(400, 80, true), piece(440, 8, true), first]);
        assert_eq!(sent.len(), 2);
        assert_eq!(router.moved(), [("received", 3), ("forwarded", 2), ("flows_inserted", 1), ("fragment_overlap", 1)]);
    }
}

#[test]
fn copies_go_where_the_fragment_went_also_when_all_has_been_seen() {
    for destination in [FOUR, SIX_TO_TEN] {
        let pieces = datagram(destination, 1, &[400, 800]);
        for order in [[0, 0, 1, 1, 2, 2, 1], [2, 2, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2, 2], [1, 1, 2, 0, 0, 2, 1]] {
            let mut router = router();
            assert_eq!(router.carry(order.map(|piece| &pieces[piece])).len(), 7, "{order:?}");
            assert_eq!(router.moved(), [("received", 7), ("forwarded", 7), ("flows_inserted", 1)], "{order:?}");
        }
        // Later it is another datagram's, whose first one is to come.
        let mut router = router();
        router.carry(&pieces);
        router.wait(Duration::from_millis(2_001));
        assert!(router.carry([&pieces[1]]).is_empty());
        assert_eq!(router.counters.held.get(), 1);
    }
}

#[test]
fn an_identification_that_comes_again_after_a_lost_fragment_is_another_datagram() {
    let mut router = router();
    let [lossy, whole] = [(1, 400), (2, 800)]
        .map(|(port, at)| cut(&Packet { payload: 1200, ..udp(FOUR) }.with_port(port).ip(), 7, &[at]));
    router.carry([&lossy[0]]);
    router.wait(Duration::from_secs(2));
    assert!(router.carry([&whole[0]]).is_empty());
    router.wait(Duration::from_millis(1));
    assert_eq!(router.carry(&whole).len(), 2);
}

#[test]
fn others_of_a_datagram_whose_first_one_is_refused_share_its_end() {
    let web = ten("flow: 5-tuple").replace("services: [any]", "services: [udp/81]");
    let mut router = TestRouter::new(&web);
    let pieces = datagram(FOUR, 1, &[400, 800]);
    assert!(router.carry([&pieces[1], &pieces[0], &pieces[2]]).is_empty());
    assert_eq!(router.moved(), [("received", 3), ("no_virtual_host", 3)]);
}

#[test]
fn fragments_for_no_virtual_host_take_no_room() {
    let mut router = router();
    router.carry(datagram(IpAddr::from([198, 51, 100, 77]), 1, &[400, 800]).into_iter().rev());
    assert_eq!(router.moved(), [("received", 3), ("no_virtual_host", 3)]);
}

#[test]
fn a_flood_of_lone_fragments_takes_bounded_room_and_gives_it_back() {
    for destination in [FOUR, SIX_TO_TEN] {
        let mut router = router();
        let lone =
            (0..5000_u16).map(|id| cut(&Packet { payload: 80, ..udp(destination) }.ip(), id, &[40]).swap_remove(1));
        assert!(router.carry(lone).is_empty());
        // 64 datagrams have a record in a test; the real number is the daemon's.
        let held = router.counters.held.get();
        assert!((32..=64).contains(&held), "{held} held");
        assert_eq!(router.moved(), [("received", 5000), ("fragment_no_room", 5000 - held)]);
        // What comes together is carried all the same.
        assert_eq!(router.carry(datagram(destination, 6000, &[400, 800])).len(), 3);
        router.wait(Duration::from_millis(2_001));
        for _ in 0..10 {
            router.carry::<&[u8]>([]);
        }
        assert_eq!(router.counters.held.get(), 0);
    }
}

#[test]
fn one_datagram_holds_so_many_and_a_crowd_of_them_gives_way_to_the_newest() {
    let cuts: Vec<usize> = (1..60).map(|number| number * 8).collect();
    let pieces = |id| cut(&Packet { payload: 472, ..udp(FOUR) }.ip(), id, &cuts);
    let mut router = router();
    router.carry(&pieces(1)[1..]);
    assert_eq!(router.moved(), [("received", 59), ("fragment_no_room", 59 - 48)]);
    router.carry(&pieces(2)[1..49]);
    router.carry(&pieces(3)[1..33]);
    assert_eq!(router.moved(), [("received", 80)]);
    assert_eq!(router.counters.held.get(), 128);
    router.carry(&pieces(4)[1..2]);
    assert_eq!(router.moved(), [("received", 1), ("fragment_no_room", 48)], "the oldest gives way");
    assert_eq!(router.carry(&pieces(2)[..1]).len(), 49);
}

#[test]
fn fragments_out_of_a_parents_tunnel_are_held_too() {
    for (parent, own) in [("198.51.100.254", "198.51.100.1"), ("2001:db8:ffff::1", "2001:db8:1::1")] {
        let mut router = TestRouter::new(CONFIG);
        let pieces = datagram(FOUR, 1, &[400, 800]);
        let frames = [2, 1, 0].map(|piece: usize| tunnelled(parent, own, 9 - piece as u8, 0, &pieces[piece][14..]));
        let sent: Vec<_> = router.carry(frames).iter().map(|frame| outer(frame)).collect();
        let expected = [(0, 8), (2, 6), (1, 7)].map(|(piece, ttl): (usize, u8)| (pieces[piece][14..].to_vec(), ttl));
        assert_eq!(sent.into_iter().map(|outer| (outer.inner, outer.ttl)).collect::<Vec<_>>(), expected);
    }
}

/// A real capture with copies of fragments, as it came and with all later fragments of a datagram before its first.
#[test]
fn real_fragments_in_another_order_go_where_they_went() {
    use slr::packet::parse::{Fragment, Frame, parse};
    let Some(frames) = real_frames("frag_v4.pcap") else { return };
    let everything = ten("flow: 5-tuple").replace("192.0.2.0/24", "0.0.0.0/0");
    let all = |frames: &[Vec<u8>]| {
        let mut router = TestRouter::new(&everything);
        let mut sent = Vec::new();
        for chunk in frames.chunks(32) {
            sent.extend(router.carry(chunk));
        }
        router.worker.finish();
        let mut went: Vec<_> =
            sent.iter().map(|frame| outer(frame)).map(|outer| (outer.inner, outer.destination)).collect();
        went.sort();
        (went, router.moved())
    };
    let (in_order, moved) = all(&frames);
    // Of one datagram the capture has only a later fragment.
    let fragments: Vec<_> = moved.iter().filter(|(label, _)| label.starts_with("fragment")).collect();
    assert!(in_order.len() > 2900 && fragments == [&("fragment_timeout", 1)], "{moved:?}");
    let mut firsts = Vec::new();
    let mut reordered = Vec::new();
    for frame in &frames {
        match parse(frame, frame.len()) {
            Ok(Frame::Ip(parsed)) if matches!(parsed.fragment, Fragment::First { .. }) => firsts.push(frame.clone()),
            Ok(Frame::Ip(parsed)) if parsed.is_fragment() => reordered.push(frame.clone()),
            _ => {
                reordered.append(&mut firsts);
                reordered.push(frame.clone());
            }
        }
    }
    reordered.append(&mut firsts);
    assert_ne!(reordered, frames);
    assert_eq!(all(&reordered), (in_order, moved));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Several datagrams, mixed at random, with copies: all that arrives leaves.
    #[test]
    fn mixed_at_random_every_fragment_leaves_as_often_as_it_came(
        order in Just((0..5_usize).flat_map(|flow| (0..4_usize).map(move |piece| (flow, piece))).collect::<Vec<_>>()).prop_shuffle(),
        again in prop::collection::vec(0..20_usize, 0..10),
        six: bool,
    ) {
        let destination = if six { SIX_TO_TEN } else { FOUR };
        let datagrams: Vec<_> = (0..5).map(|flow| datagram(destination, flow, &[200, 400, 800])).collect();
        let mut arriving = order.clone();
        for (place, copied) in again.iter().enumerate() {
            arriving.insert(place + copied, arriving[*copied]);
        }
        let mut router = router();
        let sent = router.carry(arriving.iter().map(|(flow, piece)| &datagrams[*flow][*piece]));
        router.worker.finish();
        prop_assert!(router.counters.packets().conserved());
        let mut left: Vec<Vec<u8>> = sent.iter().map(|frame| outer(frame).inner).collect();
        let mut came: Vec<Vec<u8>> = arriving.iter().map(|(flow, piece)| datagrams[*flow][*piece][14..].to_vec()).collect();
        left.sort();
        came.sort();
        prop_assert!(left == came, "{arriving:?}");
    }
}
