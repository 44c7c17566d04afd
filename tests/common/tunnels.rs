//! Tunnel packets of every kind, written and read by an independent library, or by hand where it knows none.

use std::net::IpAddr;

use etherparse::{IpDscp, IpEcn, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, UdpHeader};

/// What stands between link layer and inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    IpIp,
    Gue,
    Direct,
    Gre,
    Mpls,
    Mac,
}

/// The kinds that a parent may use.
pub const OF_PARENTS: [Kind; 4] = [Kind::IpIp, Kind::Gue, Kind::Direct, Kind::Gre];

/// UDP port of GUE.
pub const GUE_PORT: u16 = 6080;

/// What is on the wire around an inner packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Outer {
    pub kind: Kind,
    /// Outer source and destination, where there is an outer IP header.
    pub ends: Option<(IpAddr, IpAddr)>,
    /// DSCP and ECN; of a label its three bits; 0 where there is no room for any.
    pub tos: u8,
    /// 0 where there is none.
    pub ttl: u8,
    /// Of IPv4.
    pub dont_fragment: bool,
}

/// 4 for IPv4, 6 for IPv6.
pub fn version(ip: &[u8]) -> u8 {
    ip[0] >> 4
}

fn ethertype(ip: &[u8]) -> [u8; 2] {
    if version(ip) == 4 { [8, 0] } else { [0x86, 0xdd] }
}

fn protocol(ip: &[u8]) -> u8 {
    if version(ip) == 4 { 4 } else { 41 }
}

/// An IP packet in a frame to the router.
pub fn ethernet(ip: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9][..], &ethertype(ip), ip].concat()
}

/// What is between outer IP header and inner packet; a UDP header without a checksum.
pub fn shim(kind: Kind, source_port: u16, inner: &[u8]) -> (u8, Vec<u8>) {
    let udp = |header: &[u8]| {
        let length = (8 + header.len() + inner.len()) as u16;
        let udp = UdpHeader { source_port, destination_port: GUE_PORT, length, checksum: 0 };
        (17, [&udp.to_bytes()[..], header].concat())
    };
    match kind {
        Kind::Gue => udp(&[0, protocol(inner), 0, 0]),
        Kind::Direct => udp(&[]),
        Kind::Gre => (47, [&[0, 0], &ethertype(inner)[..]].concat()),
        _ => (protocol(inner), Vec::new()),
    }
}

/// An IP packet with this header and payload.
pub fn ip(ends: (IpAddr, IpAddr), tos: u8, ttl: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (length, protocol) = (payload.len() as u16, IpNumber(protocol));
            let mut header =
                Ipv4Header::new(length, ttl, protocol, source.octets(), destination.octets()).expect("short");
            header.dscp = IpDscp::try_new(tos >> 2).expect("six bits");
            header.ecn = IpEcn::try_new(tos & 3).expect("two bits");
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut bytes).expect("a vector");
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Header {
                traffic_class: tos,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: payload.len() as u16,
                next_header: IpNumber(protocol),
                hop_limit: ttl,
                source: source.octets(),
                destination: destination.octets(),
            };
            header.write(&mut bytes).expect("a vector");
        }
        _ => panic!("two families"),
    }
    [bytes, payload.to_vec()].concat()
}

/// `inner` in a tunnel packet.
pub fn tunnelled(kind: Kind, ends: (IpAddr, IpAddr), tos: u8, ttl: u8, inner: &[u8]) -> Vec<u8> {
    let (protocol, shim) = shim(kind, 55_555, inner);
    ip(ends, tos, ttl, protocol, &[shim, inner.to_vec()].concat())
}

/// Reads what the router has sent: the header and the inner packet.
///
/// # Panics
/// Something about the header is wrong that no test wants otherwise: checksums, lengths, ports.
pub fn read(frame: &[u8]) -> (Outer, Vec<u8>) {
    let behind = &frame[14..];
    let plain = |kind, tos, ttl| Outer { kind, ends: None, tos, ttl, dont_fragment: false };
    if frame[12..14] == [0x88, 0x47] {
        assert_eq!(behind[2] & 1, 1, "bottom of the stack");
        return (plain(Kind::Mpls, behind[2] >> 1 & 7, behind[3]), behind[4..].to_vec());
    }
    assert_eq!(frame[12..14], ethertype(behind));
    let (outer, protocol, payload) = match version(behind) {
        4 => {
            let (header, payload) = Ipv4Header::from_slice(behind).expect("an IPv4 header");
            assert_eq!(header.calc_header_checksum(), header.header_checksum, "outer checksum");
            assert_eq!(usize::from(header.total_len), behind.len(), "nothing behind the packet");
            let ends = (header.source.into(), header.destination.into());
            let (tos, dont_fragment) = (header.dscp.value() << 2 | header.ecn.value(), header.dont_fragment);
            let kind = Kind::IpIp;
            let outer = Outer { kind, ends: Some(ends), tos, ttl: header.time_to_live, dont_fragment };
            (outer, header.protocol.0, payload)
        }
        _ => {
            let (header, payload) = Ipv6Header::from_slice(behind).expect("an IPv6 header");
            assert_eq!(usize::from(header.payload_length), payload.len(), "nothing behind the packet");
            let ends = (header.source.into(), header.destination.into());
            let (kind, tos) = (Kind::IpIp, header.traffic_class);
            let outer = Outer { kind, ends: Some(ends), tos, ttl: header.hop_limit, dont_fragment: false };
            (outer, header.next_header.0, payload)
        }
    };
    let (kind, expected, inner) = match (protocol, payload) {
        (4 | 41, inner) => (Kind::IpIp, protocol, inner),
        (47, [0, 0, 8, 0, inner @ ..]) => (Kind::Gre, 4, inner),
        (47, [0, 0, 0x86, 0xdd, inner @ ..]) => (Kind::Gre, 41, inner),
        (17, datagram) => {
            let (udp, rest) = UdpHeader::from_slice(datagram).expect("a UDP header");
            if udp.destination_port != GUE_PORT {
                return (plain(Kind::Mac, 0, 0), behind.to_vec());
            }
            assert!(udp.source_port >= 49152, "source port {}", udp.source_port);
            assert_eq!((usize::from(udp.length), udp.checksum), (datagram.len(), 0));
            match rest {
                [0, expected, 0, 0, inner @ ..] => (Kind::Gue, *expected, inner),
                inner => (Kind::Direct, protocol_of_direct(inner), inner),
            }
        }
        _ => return (plain(Kind::Mac, 0, 0), behind.to_vec()),
    };
    assert_eq!(expected, self::protocol(inner), "what the header says is inside");
    (Outer { kind, ..outer }, inner.to_vec())
}

fn protocol_of_direct(inner: &[u8]) -> u8 {
    assert!(matches!(inner[0] >> 6, 1), "variant 1");
    protocol(inner)
}
