//! Packets that are too long with their tunnel header: who may be told is, all others arrive in pieces.

use super::*;

/// The outer packet put together again, as a receiver does, and its pieces' lengths.
fn reassemble(frames: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
    let mut whole = Vec::new();
    let mut identification = None;
    for (place, frame) in frames.iter().enumerate() {
        let last = place + 1 == frames.len();
        let packet = SlicedPacket::from_ethernet(frame).expect("a valid frame");
        let (id, offset, more, payload) = match packet.net.expect("an IP packet") {
            NetSlice::Ipv4(slice) => {
                let header = slice.header().to_header();
                assert_eq!(header.calc_header_checksum(), header.header_checksum);
                assert!(!header.dont_fragment);
                assert_eq!(usize::from(header.total_len), frame.len() - 14);
                let id = u32::from(header.identification);
                (id, header.fragment_offset.byte_offset(), header.more_fragments, slice.payload().payload.to_vec())
            }
            NetSlice::Ipv6(slice) => {
                assert_eq!(slice.header().next_header().0, 44);
                assert_eq!(usize::from(slice.header().payload_length()), frame.len() - 54);
                let field = u16::from_be_bytes([frame[56], frame[57]]);
                let id = u32::from_be_bytes([frame[58], frame[59], frame[60], frame[61]]);
                (id, field & !7, field & 1 == 1, frame[62..].to_vec())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!((usize::from(offset), more), (whole.len(), !last), "piece {place}");
        assert_eq!(*identification.get_or_insert(id), id);
        whole.extend(payload);
    }
    (whole, frames.iter().map(|frame| frame.len() - 14).collect())
}

#[test]
fn a_packet_that_may_be_fragmented_arrives_in_pieces_over_both_families() {
    let over_v6 = OneLink { mtu: 1300, vlan: None };
    let over_v4 = OneLink { mtu: 1300, vlan: None };
    for (destination, link, payload, lengths) in [
        (FOUR, &over_v4, 1400, vec![1300, 168]),
        (FOUR, &over_v4, 3000, vec![1300, 1300, 488]),
        (SIX, &over_v6, 1400, vec![1296, 228]),
        (v6("2001:db8:80::6"), &over_v6, 1232, vec![1296, 80]),
        (v6("2001:db8:80::4"), &OneLink { mtu: 1290, vlan: None }, 1232, vec![1284, 36]),
    ] {
        let mut router = TestRouter::over(CONFIG, link);
        let packet = Packet { payload, ..udp(destination) };
        let sent = router.carry([packet.frame()]);
        let (whole, found) = reassemble(&sent);
        assert_eq!((whole, found), (packet.ip(), lengths.clone()), "{payload} bytes to {destination}");
        let pieces = ("pieces", lengths.len() as u64);
        assert_eq!(
            router.moved(),
            [("received", 1), ("forwarded", 1), ("fragmented", 1), pieces, ("flows_inserted", 1)]
        );
    }
}

#[test]
fn pieces_keep_their_place_among_the_others_and_have_numbers_of_their_own() {
    let mut router = TestRouter::over(CONFIG, &OneLink { mtu: 1300, vlan: Some(9) });
    let short = udp(FOUR).frame();
    let long = Packet { payload: 1400, ..udp(FOUR) }.frame();
    let sent = router.carry([&short, &long, &short, &long, &short]);
    let untagged: Vec<_> = sent.iter().map(|frame| [&frame[..12], &frame[16..]].concat()).collect();
    assert_eq!(untagged.iter().map(Vec::len).collect::<Vec<_>>(), [82, 1314, 182, 82, 1314, 182, 82]);
    reassemble(&untagged[1..3]);
    reassemble(&untagged[4..6]);
    assert_ne!(untagged[1][18..20], untagged[4][18..20]);
}

#[test]
fn a_sender_that_can_be_told_is_left_to_the_slow_path() {
    for (destination, payload, dont_fragment) in [(FOUR, 1400, true), (v6("2001:db8:80::4"), 1240, false)] {
        let packet = Packet { payload, dont_fragment, ..udp(destination) };
        for tunnel in [false, true] {
            let mut router = TestRouter::over(CONFIG, &OneLink { mtu: 1280, vlan: None });
            let frame = match tunnel {
                false => packet.frame(),
                true => tunnelled("198.51.100.254", "198.51.100.1", 9, 0, &packet.ip()),
            };
            assert!(router.carry([&frame]).is_empty());
            assert_eq!(router.moved(), [("received", 1), ("flows_inserted", 1), ("too_big", 1)]);
            let punt = router.punts.pop().expect("a punt");
            assert_eq!((punt.what.bare, punt.what.target.is_some()), (tunnel, true));
            assert_eq!(punt.frame(), if tunnel { packet.ip() } else { frame });
        }
    }
}

#[test]
fn what_cannot_be_cut_or_sent_is_counted_once() {
    let long = Packet { payload: 1400, ..udp(FOUR) }.frame();
    let mut router = TestRouter::over(CONFIG, &OneLink { mtu: 1300, vlan: None });
    router.carry([udp(FOUR).frame()]);
    router.moved();
    router.worker.io_mut().limit_buffers(1);
    assert!(router.carry([&long]).is_empty());
    assert_eq!(router.moved(), [("received", 1), ("no_buffer", 1)]);
    router.worker.io_mut().limit_buffers(usize::MAX);
    router.worker.io_mut().limit(1);
    assert_eq!(router.carry([&long]).len(), 1);
    assert_eq!(router.moved(), [("received", 1), ("pieces", 1), ("tx_queue_full", 1)]);
    router.worker.io_mut().limit(usize::MAX);
    let longest = Packet { payload: 65_507, ..udp(FOUR) }.frame();
    assert!(router.carry([longest]).is_empty());
    assert_eq!(router.moved(), [("received", 1), ("too_long", 1)]);
    // In more pieces than a burst has packets.
    let mut router = TestRouter::over(CONFIG, &OneLink { mtu: 1300, vlan: None });
    let packet = Packet { payload: 60_000, ..udp(FOUR) };
    assert_eq!(reassemble(&router.carry([packet.frame()])).0, packet.ip());
}

#[test]
fn a_fragment_that_is_too_long_is_cut_again() {
    let mut router = TestRouter::over(CONFIG, &OneLink { mtu: 800, vlan: None });
    let pieces = cut(&Packet { payload: 1600, ..udp(FOUR) }.ip(), 7, &[800]);
    let sent = router.carry(&pieces);
    assert_eq!(reassemble(&sent[..2]).0, pieces[0][14..]);
    assert_eq!(reassemble(&sent[2..]).0, pieces[1][14..]);
}
