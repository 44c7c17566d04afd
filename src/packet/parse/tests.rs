//! Tables of frames and what the parser says about them.

use super::*;
use ParseError::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const TCP_SYN: [u8; 20] = [0xc0, 0, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0];
const UDP_DATA: [u8; 10] = [0xc0, 0x01, 0, 53, 0, 10, 0, 0, b'h', b'i'];
const FLAG_MORE: u16 = ipv4::MORE_FRAGMENTS;

/// An IPv4 packet from 192.0.2.1 to 198.51.100.7 with a valid checksum, after `edit` had its way with the header.
fn v4_edited(protocol: u8, options: &[u8], payload: &[u8], edit: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let header_len = 20 + options.len();
    let mut packet = vec![0x40 | (header_len / 4) as u8, 0, 0, 0, 0xab, 0xcd, 0x40, 0, 64, protocol, 0, 0];
    packet.extend([192, 0, 2, 1, 198, 51, 100, 7]);
    packet.extend_from_slice(options);
    packet[2..4].copy_from_slice(&((header_len + payload.len()) as u16).to_be_bytes());
    edit(&mut packet);
    let checksum = checksum::checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&checksum);
    packet.extend_from_slice(payload);
    packet
}

fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    v4_edited(protocol, &[], payload, |_| {})
}

/// A fragment with the flags and the offset in units of 8 bytes that `flags_offset` holds.
fn v4_fragment(protocol: u8, flags_offset: u16, payload: &[u8]) -> Vec<u8> {
    v4_edited(protocol, &[], payload, |header| header[6..8].copy_from_slice(&flags_offset.to_be_bytes()))
}

/// An IPv6 packet from 2001:db8::1 to 2001:db8::2; `payload` is everything behind the header.
fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next_header, 64]);
    packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
    packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).octets());
    packet.extend_from_slice(payload);
    packet
}

/// An IPv6 fragment; `offset_flags` as in its header.
fn v6_fragment(next_header: u8, offset_flags: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = offset_flags.to_be_bytes();
    v6(protocol::FRAGMENT, &[&[next_header, 0, high, low, 0, 0, 0x30, 0x39], payload].concat())
}

/// An extension header of 8 bytes, `next_header` behind it.
fn extension(next_header: u8) -> [u8; 8] {
    [next_header, 0, 1, 4, 0, 0, 0, 0]
}

fn framed(tags: &[u8], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], tags, &ethertype.to_be_bytes(), payload].concat()
}

/// The frame `packet` travels in.
fn frame_of(packet: &[u8]) -> Vec<u8> {
    framed(&[], if packet[0] >> 4 == 6 { ethernet::IPV6 } else { ethernet::IPV4 }, packet)
}

/// What is expected of a packet that is let in, as far as it differs from row to row.
fn ip(family: Family, l4: u16, protocol: u8, ports: (u16, u16), fragment: Fragment) -> Result<Parsed, ParseError> {
    Ok(Parsed {
        l3_offset: 0,
        l4_offset: l4,
        l3_len: 0,
        family,
        protocol,
        tcp_flags: if protocol == protocol::TCP && ports != (0, 0) { 2 } else { 0 },
        ports: transmute!([ports.0, ports.1].map(U16::new)),
        fragment,
        traffic_class: 0,
        // The packets that are whole say so.
        dont_fragment: family == Family::V6 || fragment == Fragment::None,
    })
}

/// Parses every packet bare and framed, and compares; the length expected is the packet's own.
#[track_caller]
fn check(rows: Vec<(&str, Vec<u8>, Result<Parsed, ParseError>)>) {
    for (name, packet, expected) in rows {
        let expected = expected.map(|parsed| Parsed { l3_len: packet.len() as u32, ..parsed });
        assert_eq!(parse_ip(&packet, packet.len()), expected, "{name}");

        let frame = frame_of(&packet);
        let expected =
            expected.map(|parsed| Frame::Ip(Parsed { l3_offset: 14, l4_offset: parsed.l4_offset + 14, ..parsed }));
        assert_eq!(parse(&frame, frame.len()), expected, "{name}, framed");
    }
}

#[test]
fn whole_packets_show_their_protocol_and_ports() {
    use Family::*;
    use Fragment::None;
    let (tcp, udp) = ((0xc000, 443), (0xc001, 53));
    let router_alert = [0x94, 4, 0, 0];
    check(vec![
        ("TCP over IPv4", v4(6, &TCP_SYN), ip(V4, 20, 6, tcp, None)),
        ("UDP over IPv4", v4(17, &UDP_DATA), ip(V4, 20, 17, udp, None)),
        ("IPv4 options", v4_edited(17, &router_alert, &UDP_DATA, |_| {}), ip(V4, 24, 17, udp, None)),
        ("all 40 bytes of options", v4_edited(6, &[1; 40], &TCP_SYN, |_| {}), ip(V4, 60, 6, tcp, None)),
        ("ICMP", v4(1, &[8, 0, 0, 0, 0, 0, 0, 0]), ip(V4, 20, 1, (0, 0), None)),
        ("IP in IP", v4(4, &v4(6, &TCP_SYN)), ip(V4, 20, 4, (0, 0), None)),
        ("SCTP", v4(132, &[0x0b, 0x59, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0]), ip(V4, 20, 132, (2905, 80), None)),
        ("DCCP", v4(33, &[0, 1, 0, 2, 3, 0, 0, 0, 0, 0, 0, 0]), ip(V4, 20, 33, (1, 2), None)),
        ("UDP-Lite", v4(136, &[0, 3, 0, 4, 0, 8, 0, 0]), ip(V4, 20, 136, (3, 4), None)),
        ("GRE has no ports", v4(47, &[0, 0, 8, 0]), ip(V4, 20, 47, (0, 0), None)),
        ("no payload at all", v4(47, &[]), ip(V4, 20, 47, (0, 0), None)),
        ("UDP shorter than its packet", v4(17, &[&UDP_DATA[..], &[0; 4]].concat()), ip(V4, 20, 17, udp, None)),
        ("TCP over IPv6", v6(6, &TCP_SYN), ip(V6, 40, 6, tcp, None)),
        ("UDP over IPv6", v6(17, &UDP_DATA), ip(V6, 40, 17, udp, None)),
        ("ICMPv6 of 6 bytes", v6(58, &[155, 0, 0, 0, 0, 0]), ip(V6, 40, 58, (0, 0), None)),
        ("ESP hides the rest", v6(50, &[0; 9]), ip(V6, 40, 50, (0, 0), None)),
        ("no next header", v6(59, &[]), ip(V6, 40, 59, (0, 0), None)),
        ("no next header, but bytes", v6(59, &UDP_DATA), ip(V6, 40, 59, (0, 0), None)),
        ("ICMP is not IPv6's", v6(1, &[]), ip(V6, 40, 1, (0, 0), None)),
        ("ICMPv6 is not IPv4's", v4(58, &[]), ip(V4, 20, 58, (0, 0), None)),
    ]);
}

#[test]
fn ipv6_extension_headers_are_walked_to_the_transport_header() {
    use Family::V6;
    let udp = (0xc001, 53);
    let chain = |headers: &[&[u8]]| [&headers.concat()[..], &UDP_DATA].concat();
    let authentication = [17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let routing = [&[17, 2, 0, 0][..], &[0; 20]].concat();
    let eight = [[60, 0, 1, 4, 0, 0, 0, 0]; 8].concat();
    let mut eight_then_udp = eight.clone();
    eight_then_udp[56] = 17;
    let mut short = authentication;
    short[1] = 0;
    check(vec![
        ("hop-by-hop", v6(0, &chain(&[&extension(17)])), ip(V6, 48, 17, udp, Fragment::None)),
        ("routing", v6(43, &chain(&[&routing])), ip(V6, 64, 17, udp, Fragment::None)),
        ("authentication", v6(51, &chain(&[&authentication])), ip(V6, 64, 17, udp, Fragment::None)),
        (
            "hop-by-hop, destination options, routing",
            v6(0, &chain(&[&extension(60), &extension(43), &routing])),
            ip(V6, 80, 17, udp, Fragment::None),
        ),
        ("the chain ends in ESP", v6(60, &extension(50)), ip(V6, 48, 50, (0, 0), Fragment::None)),
        ("atomic fragment", v6_fragment(17, 0, &UDP_DATA), ip(V6, 48, 17, udp, Fragment::None)),
        ("eight headers", v6(60, &chain(&[&eight_then_udp])), ip(V6, 104, 17, udp, Fragment::None)),
        ("nine headers", v6(60, &chain(&[&eight, &extension(17)])), Err(Ipv6ExtensionsTooMany)),
        ("hop-by-hop in second place", v6(60, &chain(&[&extension(0), &extension(17)])), Err(Ipv6Extension)),
        ("announced, not there", v6(60, &[]), Err(Ipv6Extension)),
        ("one byte of it", v6(60, &[17]), Err(Ipv6Extension)),
        ("ends behind the packet", v6(60, &[17, 1, 1, 12, 0, 0, 0, 0]), Err(Ipv6Extension)),
        ("fragment header cut", v6(44, &[17, 0, 0, 0]), Err(Ipv6Extension)),
        ("authentication of 8 bytes", v6(51, &chain(&[&short])), Err(Ipv6Extension)),
        ("atomic fragment twice", v6_fragment(44, 0, &chain(&[&[17, 0, 0, 0, 0, 0, 0, 0]])), Err(Ipv6Extension)),
        ("jumbogram", v6(0, &[]), Err(Ipv6PayloadLength)),
    ]);
}

#[test]
fn fragments_show_ports_in_the_first_only_and_absurd_ones_are_refused() {
    use Family::*;
    let first = |id| Fragment::First { id };
    let later = |id| Fragment::Later { id };
    let (tcp, udp) = ((0xc000, 443), (0xc001, 53));
    let tcp_24 = [&TCP_SYN[..], &[0; 4]].concat();
    let mut options_beyond = tcp_24.clone();
    options_beyond[12] = 0x70;
    let udp_of_1000 = [0xc0, 0x01, 0, 53, 0x03, 0xe8, 0, 0];
    let mut udp_of_7 = udp_of_1000;
    udp_of_7[4..6].copy_from_slice(&[0, 7]);
    check(vec![
        ("first, TCP", v4_fragment(6, FLAG_MORE, &tcp_24), ip(V4, 20, 6, tcp, first(0xabcd))),
        ("first, UDP longer than itself", v4_fragment(17, FLAG_MORE, &udp_of_1000), ip(V4, 20, 17, udp, first(0xabcd))),
        ("first, UDP length lies", v4_fragment(17, FLAG_MORE, &udp_of_7), Err(UdpLength)),
        ("middle", v4_fragment(17, FLAG_MORE | 185, &[9; 16]), ip(V4, 20, 17, (0, 0), later(0xabcd))),
        ("last, any length", v4_fragment(17, 185, &[9; 3]), ip(V4, 20, 17, (0, 0), later(0xabcd))),
        ("last, TCP", v4_fragment(6, 3, &[9; 3]), ip(V4, 20, 6, (0, 0), later(0xabcd))),
        ("first without a whole TCP header", v4_fragment(6, FLAG_MORE, &TCP_SYN[..16]), Err(FragmentTiny)),
        ("first without the TCP options", v4_fragment(6, FLAG_MORE, &options_beyond), Err(FragmentTiny)),
        ("first without a UDP header", v4_fragment(17, FLAG_MORE, &[]), Err(FragmentTiny)),
        ("overwrites the TCP flags", v4_fragment(6, 1, &[9; 16]), Err(FragmentTiny)),
        ("at 8, but not TCP", v4_fragment(17, 1, &[9; 16]), ip(V4, 20, 17, (0, 0), later(0xabcd))),
        ("middle, 12 bytes", v4_fragment(17, FLAG_MORE | 185, &[9; 12]), Err(FragmentUnaligned)),
        ("first, 21 bytes", v4_fragment(6, FLAG_MORE, &[&TCP_SYN[..], &[0]].concat()), Err(FragmentUnaligned)),
        ("ends at 65535", v4_fragment(17, 8188, &[9; 11]), ip(V4, 20, 17, (0, 0), later(0xabcd))),
        ("ends at 65536", v4_fragment(17, 8188, &[9; 12]), Err(FragmentTooLong)),
        ("IPv6 first", v6_fragment(6, 1, &tcp_24), ip(V6, 48, 6, tcp, first(12345))),
        ("IPv6 first, UDP longer than itself", v6_fragment(17, 1, &udp_of_1000), ip(V6, 48, 17, udp, first(12345))),
        ("IPv6 middle", v6_fragment(17, 1448 | 1, &[9; 8]), ip(V6, 48, 17, (0, 0), later(12345))),
        ("IPv6 last", v6_fragment(6, 1448, &[9; 5]), ip(V6, 48, 6, (0, 0), later(12345))),
        ("IPv6 last of a chain", v6_fragment(60, 1448, &[9; 5]), ip(V6, 48, 60, (0, 0), later(12345))),
        ("IPv6 first without transport header", v6_fragment(6, 1, &TCP_SYN[..8]), Err(FragmentTiny)),
        ("IPv6 first without end of chain", v6_fragment(60, 1, &[6, 1, 1, 4, 0, 0, 0, 0]), Err(FragmentTiny)),
        ("IPv6 overwrites the TCP flags", v6_fragment(6, 8, &[9; 16]), Err(FragmentTiny)),
        ("IPv6 middle, 12 bytes", v6_fragment(17, 1448 | 1, &[9; 12]), Err(FragmentUnaligned)),
        ("IPv6 ends at 65535", v6_fragment(17, 65528, &[9; 7]), ip(V6, 48, 17, (0, 0), later(12345))),
        ("IPv6 ends at 65536", v6_fragment(17, 65528, &[9; 8]), Err(FragmentTooLong)),
    ]);
}

#[test]
fn lengths_that_lie_are_refused_by_name() {
    let tcp = |data_offset: u8| {
        let mut segment = TCP_SYN;
        segment[12] = data_offset;
        segment
    };
    let udp = |len: u8| {
        let mut datagram = UDP_DATA;
        datagram[5] = len;
        datagram
    };
    let edited = |edit: fn(&mut [u8])| v4_edited(6, &[], &TCP_SYN, edit);
    let mut v6_long = v6(6, &TCP_SYN);
    v6_long[5] += 1;
    let mut v6_version = v6(6, &TCP_SYN);
    v6_version[0] = 0x50;
    let mut wrong_checksum = v4(6, &TCP_SYN);
    wrong_checksum[8] -= 1;
    let mut wrong_checksum_and_length = edited(|header| header[2..4].fill(0));
    wrong_checksum_and_length[10] ^= 1;
    let mut wrong_options = v4_edited(6, &[1; 4], &TCP_SYN, |_| {});
    wrong_options[21] = 7;
    check(vec![
        ("header of 16 bytes", edited(|header| header[0] = 0x44), Err(Ipv4HeaderLength)),
        ("options beyond the packet", v4_edited(47, &[], &[0; 3], |header| header[0] = 0x46), Err(Ipv4Truncated)),
        ("checksum", wrong_checksum, Err(Ipv4Checksum)),
        ("checksum over options", wrong_options, Err(Ipv4Checksum)),
        ("checksum comes before total length", wrong_checksum_and_length, Err(Ipv4Checksum)),
        ("total length below the header", edited(|header| header[3] = 19), Err(Ipv4TotalLength)),
        ("total length zero", edited(|header| header[2..4].fill(0)), Err(Ipv4TotalLength)),
        ("total length beyond the frame", edited(|header| header[3] += 1), Err(Ipv4TotalLength)),
        ("IPv4 header cut", v4(6, &TCP_SYN)[..19].to_vec(), Err(Ipv4Truncated)),
        ("IPv6 header cut", v6(6, &[])[..39].to_vec(), Err(Ipv6Truncated)),
        ("IPv6 payload beyond the frame", v6_long, Err(Ipv6PayloadLength)),
        ("version 5", v6_version, Err(IpVersion)),
        ("TCP data offset 4", v4(6, &tcp(0x40)), Err(TcpHeader)),
        ("TCP data offset beyond the packet", v4(6, &tcp(0x60)), Err(TcpHeader)),
        ("TCP cut", v4(6, &TCP_SYN[..19]), Err(TcpHeader)),
        ("TCP cut over IPv6", v6(6, &TCP_SYN[..19]), Err(TcpHeader)),
        ("UDP length 7", v4(17, &udp(7)), Err(UdpLength)),
        ("UDP length 0", v6(17, &udp(0)), Err(UdpLength)),
        ("UDP length beyond the packet", v4(17, &udp(11)), Err(UdpLength)),
        ("UDP cut", v6(17, &UDP_DATA[..7]), Err(UdpLength)),
        ("ICMP cut", v4(1, &[8, 0, 0, 0, 0, 0, 0]), Err(IcmpTruncated)),
        ("ICMPv6 cut", v6(58, &[1, 0, 0]), Err(IcmpTruncated)),
        ("SCTP cut", v4(132, &[0; 11]), Err(TransportTruncated)),
        ("UDP-Lite cut", v6(136, &[0; 7]), Err(TransportTruncated)),
    ]);
    assert_eq!(parse_ip(&[], 0), Err(IpVersion));
}

#[test]
fn the_link_layer_decides_what_is_parsed() {
    let tags = [0x88, 0xa8, 0, 1, 0x81, 0, 0, 2];
    let packet = v4(6, &TCP_SYN);
    for (name, frame, expected) in [
        ("one tag", framed(&tags[..4], ethernet::IPV4, &packet), Ok(18)),
        ("two tags", framed(&tags, ethernet::IPV6, &v6(6, &TCP_SYN)), Ok(22)),
        ("three tags", framed(&[&tags[..], &tags[..4]].concat(), ethernet::IPV4, &packet), Err(VlanTagsTooMany)),
        ("IPv6 inside IPv4's type", framed(&[], ethernet::IPV4, &v6(6, &TCP_SYN)), Err(IpVersion)),
        ("IPv4 inside IPv6's type", framed(&[], ethernet::IPV6, &[&packet[..], &[0; 20]].concat()), Err(IpVersion)),
        ("MPLS", framed(&[], 0x8847, &packet), Err(EthertypeUnsupported)),
        ("802.3 with LLC", framed(&[], 0x0026, &[0x42; 38]), Err(EthertypeUnsupported)),
        ("13 bytes", vec![0; 13], Err(EthernetTruncated)),
        ("nothing behind the type", framed(&[], ethernet::IPV4, &[]), Err(Ipv4Truncated)),
        ("nothing behind the type", framed(&[], ethernet::IPV6, &[]), Err(Ipv6Truncated)),
    ] {
        let l3 = parse(&frame, frame.len()).map(|frame| match frame {
            Frame::Ip(parsed) => parsed.l3_offset,
            Frame::Arp => panic!("{name} is not ARP"),
        });
        assert_eq!(l3, expected, "{name}");
    }
    assert_eq!(parse(&framed(&tags, ethernet::ARP, &[]), 22), Ok(Frame::Arp), "checked where it is read");
}

#[test]
fn ethernet_padding_is_no_part_of_the_packet() {
    let udp = v4(17, &UDP_DATA[..8]);
    let padded = [&frame_of(&udp)[..], &[0; 18]].concat();
    assert_eq!(parse(&padded, padded.len()), Err(UdpLength), "10 bytes of UDP in 8, whatever the padding");
    let udp = v4(17, &UDP_DATA);
    let padded = [&frame_of(&udp)[..], &[0; 16]].concat();
    let Ok(Frame::Ip(parsed)) = parse(&padded, padded.len()) else { panic!("a padded frame is good") };
    assert_eq!(parsed.l3_len, 30);
}

#[test]
fn headers_must_lie_in_the_first_segment_and_data_need_not() {
    let long = [&TCP_SYN[..], &[7; 1000]].concat();
    let with_options = v4_edited(6, &[1; 8], &long, |_| {});
    let chained = v6(60, &[&extension(6)[..], &long].concat());
    for (name, packet, headers) in [
        ("IPv4", v4(6, &long), 40),
        ("IPv4 options", with_options, 48),
        ("IPv6", v6(6, &long), 60),
        ("chain", chained, 68),
    ] {
        let whole = parse_ip(&packet, packet.len());
        assert!(whole.is_ok(), "{name}");
        for segment in 1..packet.len() {
            let expected = if segment < headers { Err(HeadersSegmented) } else { whole };
            assert_eq!(parse_ip(&packet[..segment], packet.len()), expected, "{name}, first segment of {segment}");
        }
    }
}

#[test]
fn addresses_are_read_from_the_head_that_was_parsed() {
    let v4_addresses = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7));
    let frame = frame_of(&v4(6, &TCP_SYN));
    let Ok(Frame::Ip(parsed)) = parse(&frame, frame.len()) else { panic!("good frame") };
    assert_eq!((parsed.source(&frame), parsed.destination(&frame)), (v4_addresses.0.into(), v4_addresses.1.into()));

    let packet = v6(6, &TCP_SYN);
    let parsed = parse_ip(&packet, packet.len()).expect("good packet");
    assert_eq!(parsed.source(&packet), "2001:db8::1".parse::<IpAddr>().expect("address"));
    assert_eq!(parsed.destination(&packet), "2001:db8::2".parse::<IpAddr>().expect("address"));
}
