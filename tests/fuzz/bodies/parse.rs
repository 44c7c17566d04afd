//! What must hold of the parser and the header views for any bytes at all, taken as an Ethernet frame.

use slr::packet::arp::ArpPacket;
use slr::packet::ipv4::Ipv4Header;
use slr::packet::parse::{Family, Fragment, Frame, ParseError, Parsed, parse, parse_ip};
use slr::packet::quic::QuicHeader;
use slr::packet::{checksum, ethernet, icmp, protocol, tcp};

/// Runs the parser over `frame` and checks what it says; once more with a right IPv4 header checksum where it has a wrong
/// one, because a fuzzer does not guess checksums.
pub fn run(frame: &[u8]) {
    check_frame(frame);
    if parse(frame, frame.len()) == Err(ParseError::Ipv4Checksum) {
        check_frame(&mended(frame));
    }
}

/// The frame with a right IPv4 header checksum, if it has a whole IPv4 header.
pub fn mended(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Ok((ethernet::IPV4, l3)) = ethernet::payload(&frame)
        && let Some((header, options, _)) = Ipv4Header::split(&frame[l3..])
    {
        let end = l3 + size_of_val(header) + options.len();
        frame[l3 + 10..l3 + 12].fill(0);
        let checksum = checksum::checksum(&frame[l3..end]).to_be_bytes();
        frame[l3 + 10..l3 + 12].copy_from_slice(&checksum);
    }
    frame
}

fn check_frame(frame: &[u8]) {
    let whole = parse(frame, frame.len());
    for first_segment in [13, 14, 33, 34, 53, 54, 62, frame.len() / 2] {
        let head = &frame[..first_segment.min(frame.len())];
        let cut = parse(head, frame.len());
        assert!(cut.is_err() || cut == whole, "{head:02x?} in front changes {whole:?} to {cut:?}");
    }
    match whole {
        Ok(Frame::Ip(parsed)) => check_packet(frame, &parsed),
        Ok(Frame::Arp) => {
            let (_, offset) = ethernet::payload(frame).expect("it was found to be ARP");
            if let Some(request) = ArpPacket::parse(&frame[offset..]) {
                assert_eq!(request.reply(request.target_mac).target_ip(), request.sender_ip());
            }
        }
        Err(_) => {}
    }
    let _ = parse(frame, usize::MAX);
    let _ = parse(frame, 0);
}

fn check_packet(frame: &[u8], parsed: &Parsed) {
    let (l3, l4) = (usize::from(parsed.l3_offset), usize::from(parsed.l4_offset));
    let end = l3 + parsed.l3_len as usize;
    assert!(l3 < l4 && l4 <= end && end <= frame.len(), "{parsed:?} in {} bytes", frame.len());

    let bare = parse_ip(&frame[l3..], frame.len() - l3);
    let moved = Parsed { l3_offset: 0, l4_offset: parsed.l4_offset - parsed.l3_offset, ..*parsed };
    assert_eq!(bare, Ok(moved), "a packet reads the same without its frame");

    let addresses = (parsed.source(frame), parsed.destination(frame));
    assert_eq!(
        (addresses.0.is_ipv4(), addresses.1.is_ipv4()),
        (parsed.family == Family::V4, parsed.family == Family::V4)
    );

    let data = &frame[l4..end];
    if matches!(parsed.fragment, Fragment::Later { .. }) {
        assert_eq!((parsed.src_port(), parsed.dst_port(), parsed.tcp_flags), (0, 0, 0));
        return;
    }
    match (parsed.protocol, parsed.family) {
        (protocol::TCP, _) => {
            let (header, _, _) = tcp::TcpHeader::split(data).expect("a whole TCP header was promised");
            assert_eq!((header.source_port.get(), header.flags), (parsed.src_port(), parsed.tcp_flags));
        }
        (protocol::UDP, _) => {
            for len in [0, 8, 20] {
                if let Some(QuicHeader::Short { dcid }) = QuicHeader::parse(&data[8..], len) {
                    assert_eq!(dcid.len(), len);
                }
            }
        }
        (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => {
            if let Some(quoted) = icmp::quoted(parsed.family, data) {
                assert_eq!(quoted.len() + icmp::QUOTE_OFFSET, data.len());
                let _ = parse_ip(quoted, quoted.len());
            }
        }
        _ => {}
    }
}
