//! What a received frame is and where its headers are, decided in one pass over its first segment.
//!
//! ```text
//! frame     Ethernet, 0-2 VLAN tags │ IP header, options or extensions │ transport header │ data │ padding
//!           0                       l3_offset                          l4_offset                 l3_offset + l3_len
//! ```
//!
//! A packet whose lengths lie is refused with the first lie found, in the order of the headers; the IPv4 header checksum
//! comes before everything that it covers except the header's own length. Any bytes at all are safe to hand in. The
//! checksums of TCP, UDP and ICMP are left to the receiver: this is a router.

use std::convert::identity;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, transmute, transmute_ref};

pub use super::error::ParseError;
use super::icmp::IcmpHeader;
use super::ipv4::{self, Ipv4Header};
use super::ipv6::{ExtensionHeader, FragmentHeader, Ipv6Header, is_extension};
use super::tcp::TcpHeader;
use super::udp::UdpHeader;
use super::{checksum, ethernet, protocol};

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// IPv6 extension headers that are walked at most.
pub const EXTENSIONS_MAX: usize = 8;

/// The longest packet that fragments may add up to: IPv4's total length and IPv6's payload length have 16 bits.
const LEN_MAX: usize = 65535;

/// The shortest authentication header, in bytes (RFC 4302 section 2).
const AUTHENTICATION_LEN_MIN: usize = 12;

/// Version of the Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

/// Which part of a fragmented packet this is (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// The whole packet, perhaps with a fragment header that says so (RFC 6946).
    None,
    /// The first fragment: the transport header is in it.
    First {
        /// Identification, host order; 16 bits in IPv4.
        id: u32,
    },
    /// Any other fragment: it shows no ports.
    Later {
        /// Identification, host order; 16 bits in IPv4.
        id: u32,
    },
}

/// What is where in a frame that carries IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Where the IP header starts, in bytes from the start of the frame.
    pub l3_offset: u16,
    /// Where the transport header starts (behind IPv4 options or IPv6 extension headers; in later fragments the data), in
    /// bytes from the start of the frame.
    pub l4_offset: u16,
    /// Bytes of the IP packet: IPv4's total length, or 40 + IPv6's payload length. Ethernet padding behind it is not part
    /// of it.
    pub l3_len: u32,
    /// Version of IP.
    pub family: Family,
    /// Transport protocol ([`protocol`]): IPv4's protocol, or the last next-header number of IPv6's chain. In IPv6's later
    /// fragments it is the fragment header's, which may be an extension header's.
    pub protocol: u8,
    /// Flags of TCP ([`super::tcp`]); 0 for other protocols and later fragments.
    pub tcp_flags: u8,
    /// Source and destination port of TCP, UDP, SCTP, UDP-Lite or DCCP, network order; 0 for other protocols and later
    /// fragments.
    pub ports: [u8; 4],
    /// Which part of a fragmented packet this is.
    pub fragment: Fragment,
    /// DSCP and ECN: IPv4's TOS, IPv6's traffic class.
    pub traffic_class: u8,
    /// Whether no router may fragment it: IPv4's DF; of IPv6 none may.
    pub dont_fragment: bool,
}

impl Parsed {
    /// Of no packet.
    pub const NOTHING: Parsed = Parsed {
        l3_offset: 0,
        l4_offset: 0,
        l3_len: 0,
        family: Family::V4,
        protocol: 0,
        tcp_flags: 0,
        ports: NO_PORTS,
        fragment: Fragment::None,
        traffic_class: 0,
        dont_fragment: false,
    };

    /// Source port, host order.
    #[inline]
    pub fn src_port(&self) -> u16 {
        u16::from_be_bytes([self.ports[0], self.ports[1]])
    }

    /// Destination port, host order.
    #[inline]
    pub fn dst_port(&self) -> u16 {
        u16::from_be_bytes([self.ports[2], self.ports[3]])
    }

    /// Whether this is one of several fragments.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.fragment != Fragment::None
    }

    /// The sender. `head` must be what was parsed; the unspecified address comes back when it is too short to be that.
    #[inline]
    pub fn source(&self, head: &[u8]) -> IpAddr {
        match self.family {
            Family::V4 => self.header::<Ipv4Header>(head).map_or(Ipv4Addr::UNSPECIFIED, Ipv4Header::source).into(),
            Family::V6 => self.header::<Ipv6Header>(head).map_or(Ipv6Addr::UNSPECIFIED, Ipv6Header::source).into(),
        }
    }

    /// The receiver, under the same condition as [`source`](Self::source).
    #[inline]
    pub fn destination(&self, head: &[u8]) -> IpAddr {
        match self.family {
            Family::V4 => self.header::<Ipv4Header>(head).map_or(Ipv4Addr::UNSPECIFIED, Ipv4Header::destination).into(),
            Family::V6 => self.header::<Ipv6Header>(head).map_or(Ipv6Addr::UNSPECIFIED, Ipv6Header::destination).into(),
        }
    }

    #[inline]
    fn header<'a, H>(&self, head: &'a [u8]) -> Option<&'a H>
    where
        H: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
    {
        let header = view(head, usize::from(self.l3_offset));
        debug_assert!(header.is_some(), "not the head that was parsed");
        header
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An IP packet.
    Ip(Parsed),
    /// ARP, for the slow path; [`super::arp::ArpPacket::parse`] checks it.
    Arp,
}

/// Parses an Ethernet frame. `head` is its first segment, in which all headers must lie; `frame_len` counts the bytes of
/// all segments.
#[inline(always)]
pub fn parse(head: &[u8], frame_len: usize) -> Result<Frame, ParseError> {
    let (ethertype, l3) = ethernet::payload(head)?;
    match ethertype {
        ethernet::IPV4 => parse_ipv4(head, l3, frame_len, Frame::Ip),
        ethernet::IPV6 => parse_ipv6(head, l3, frame_len, Frame::Ip),
        ethernet::ARP => Ok(Frame::Arp),
        _ => Err(ParseError::EthertypeUnsupported),
    }
}

/// Parses an IP packet without a link layer in front, at offset 0 of `head`; `packet_len` counts the bytes of all
/// segments.
#[inline(always)]
pub fn parse_ip(head: &[u8], packet_len: usize) -> Result<Parsed, ParseError> {
    match head.first().map(|byte| byte >> 4) {
        Some(4) => parse_ipv4(head, 0, packet_len, identity),
        Some(6) => parse_ipv6(head, 0, packet_len, identity),
        _ => Err(ParseError::IpVersion),
    }
}

// What `parse` and `parse_ip` make of the findings (`done`) is made where they are complete: copied from one result into
// the other they would be stored narrow and loaded wide several times over, which costs more than the parsing. For the
// same reason the ways of rare packets are functions of their own, and nothing of a plain packet is lent to them.

/// The header `H` at `offset`, if all of it is there.
#[inline]
fn view<H>(bytes: &[u8], offset: usize) -> Option<&H>
where
    H: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
{
    H::ref_from_prefix(bytes.get(offset..)?).ok().map(|(header, _)| header)
}

#[inline(always)]
fn parse_ipv4<T>(head: &[u8], l3: usize, frame_len: usize, done: impl FnOnce(Parsed) -> T) -> Result<T, ParseError> {
    let available = frame_len.saturating_sub(l3);
    let bytes = head.get(l3..).unwrap_or_default();
    let Ok((header, _)) = Ipv4Header::ref_from_prefix(bytes) else {
        return Err(cut(Ipv4Header::LEN, available, ParseError::Ipv4Truncated));
    };
    let header_len = if header.version_ihl == Ipv4Header::VERSION_IHL {
        if !checksum::ipv4_is_valid(transmute_ref!(header)) {
            return Err(ParseError::Ipv4Checksum);
        }
        Ipv4Header::LEN
    } else {
        ipv4_options(header, bytes, available)?
    };
    let len = usize::from(header.total_length.get());
    if len < header_len || len > available {
        return Err(ParseError::Ipv4TotalLength);
    }
    let bytes = bytes.get(..len).unwrap_or(bytes);
    if header.flags_fragment.get() & (ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET) != 0 {
        return ipv4_fragment(bytes, header, l3, header_len, done);
    }
    let ip = Ip::v4(header, bytes, Fragment::None);
    transport(ip, l3, header_len, header.protocol, done)
}

/// Goes on with an IPv4 fragment; `bytes` as in [`Ip`].
#[cold]
fn ipv4_fragment<T>(
    bytes: &[u8],
    header: &Ipv4Header,
    l3: usize,
    header_len: usize,
    done: impl FnOnce(Parsed) -> T,
) -> Result<T, ParseError> {
    let len = usize::from(header.total_length.get());
    let id = u32::from(header.identification.get());
    let more = header.flags_fragment.get() & ipv4::MORE_FRAGMENTS != 0;
    // RFC 791 section 3.1: header included, all of a packet has at most 65,535 bytes.
    let fragment = fragment_of(id, header.fragment_offset(), more, len - header_len, len, header.protocol)?;
    transport(Ip::v4(header, bytes, fragment), l3, header_len, header.protocol, done)
}

/// Checks an IPv4 header that is not exactly 20 bytes of version 4; gives its length in bytes.
#[cold]
fn ipv4_options(header: &Ipv4Header, bytes: &[u8], available: usize) -> Result<usize, ParseError> {
    if header.version() != 4 {
        return Err(ParseError::IpVersion);
    }
    let len = header.header_len();
    if len < Ipv4Header::LEN {
        return Err(ParseError::Ipv4HeaderLength);
    }
    let Some(with_options) = bytes.get(..len) else { return Err(cut(len, available, ParseError::Ipv4Truncated)) };
    if checksum::checksum(with_options) != 0 {
        return Err(ParseError::Ipv4Checksum);
    }
    Ok(len)
}

#[inline(always)]
fn parse_ipv6<T>(head: &[u8], l3: usize, frame_len: usize, done: impl FnOnce(Parsed) -> T) -> Result<T, ParseError> {
    let available = frame_len.saturating_sub(l3);
    let bytes = head.get(l3..).unwrap_or_default();
    let Ok((header, _)) = Ipv6Header::ref_from_prefix(bytes) else {
        return Err(cut(Ipv6Header::LEN, available, ParseError::Ipv6Truncated));
    };
    if header.version() != 6 {
        return Err(ParseError::IpVersion);
    }
    let len = Ipv6Header::LEN + usize::from(header.payload_length.get());
    if len > available {
        return Err(ParseError::Ipv6PayloadLength);
    }
    let bytes = bytes.get(..len).unwrap_or(bytes);
    if is_extension(header.next_header) {
        return behind_extensions(bytes, header, l3, done);
    }
    transport(Ip::v6(header, bytes), l3, Ipv6Header::LEN, header.next_header, done)
}

/// Goes on with an IPv6 packet that has extension headers; `bytes` as in [`Ip`].
#[cold]
fn behind_extensions<T>(
    bytes: &[u8],
    header: &Ipv6Header,
    l3: usize,
    done: impl FnOnce(Parsed) -> T,
) -> Result<T, ParseError> {
    let mut ip = Ip::v6(header, bytes);
    let (l4, protocol) = walk_extensions(&mut ip, header.next_header)?;
    transport(ip, l3, l4, protocol, done)
}

/// Walks IPv6 extension headers from number `kind` on: where the transport header starts in the packet, and its number.
/// What the fragment header says goes into `ip`.
fn walk_extensions(ip: &mut Ip, mut kind: u8) -> Result<(usize, u8), ParseError> {
    // RFC 2675 section 3: payload length 0 with hop-by-hop options means a jumbogram, which no Ethernet frame holds.
    if kind == protocol::HOP_BY_HOP && ip.len == Ipv6Header::LEN {
        return Err(ParseError::Ipv6PayloadLength);
    }
    let mut at = Ipv6Header::LEN;
    let mut fragment_seen = false;
    let mut walked = 0;
    while is_extension(kind) {
        if walked == EXTENSIONS_MAX {
            return Err(ParseError::Ipv6ExtensionsTooMany);
        }
        walked += 1;
        // RFC 8200 section 4.1: hop-by-hop options come first or not at all.
        if kind == protocol::HOP_BY_HOP && at != Ipv6Header::LEN {
            return Err(ParseError::Ipv6Extension);
        }
        let Some(header) = view::<ExtensionHeader>(ip.bytes, at) else {
            return Err(ip.cut(at + size_of::<ExtensionHeader>(), ParseError::Ipv6Extension));
        };
        let behind = at + header.header_len(kind);
        // RFC 4302 section 2: nothing in an authentication header's first 12 bytes is optional.
        if kind == protocol::AUTHENTICATION && behind < at + AUTHENTICATION_LEN_MIN {
            return Err(ParseError::Ipv6Extension);
        }
        if behind > ip.bytes.len() {
            return Err(ip.cut(behind, ParseError::Ipv6Extension));
        }
        if kind == protocol::FRAGMENT {
            let Some(header) = view::<FragmentHeader>(ip.bytes, at) else { return Err(ParseError::Ipv6Extension) };
            // A fragment of a fragment: only a sender that wants to confuse makes one.
            if fragment_seen {
                return Err(ParseError::Ipv6Extension);
            }
            fragment_seen = true;
            let (offset, more) = (header.fragment_offset(), header.more_fragments());
            // RFC 6946: alone in its packet, it is handled as if there were no fragment header.
            if offset != 0 || more {
                // RFC 8200 section 4.5: payload length, without the fragment header, of all of a packet has 16 bits.
                let whole = ip.len - Ipv6Header::LEN - FragmentHeader::LEN;
                let id = header.identification.get();
                ip.fragment = fragment_of(id, offset, more, ip.len - behind, whole, header.next_header)?;
            }
            if offset != 0 {
                return Ok((behind, header.next_header));
            }
        }
        kind = header.next_header;
        at = behind;
    }
    Ok((at, kind))
}

/// An IP packet whose own lengths have been checked.
#[derive(Clone, Copy)]
struct Ip<'a> {
    /// From the IP header on, as far as the first segment holds the packet; no padding.
    bytes: &'a [u8],
    /// Bytes of the packet.
    len: usize,
    family: Family,
    fragment: Fragment,
    traffic_class: u8,
    dont_fragment: bool,
}

impl<'a> Ip<'a> {
    /// `bytes` as in the field.
    #[inline(always)]
    fn v4(header: &Ipv4Header, bytes: &'a [u8], fragment: Fragment) -> Ip<'a> {
        let (len, traffic_class) = (usize::from(header.total_length.get()), header.dscp_ecn);
        Ip { bytes, len, family: Family::V4, fragment, traffic_class, dont_fragment: header.dont_fragment() }
    }

    /// The same.
    #[inline(always)]
    fn v6(header: &Ipv6Header, bytes: &'a [u8]) -> Ip<'a> {
        let len = Ipv6Header::LEN + usize::from(header.payload_length.get());
        let (fragment, traffic_class) = (Fragment::None, header.dscp_ecn());
        Ip { bytes, len, family: Family::V6, fragment, traffic_class, dont_fragment: true }
    }

    /// Why a header that needs the packet's first `needed` bytes is not in the first segment; `error` unless it is
    /// because of the segment or the fragment.
    #[inline(always)]
    fn cut(&self, needed: usize, error: ParseError) -> ParseError {
        match self.fragment {
            // RFC 1858 section 3, RFC 7112 section 5: all headers are in the first fragment.
            Fragment::First { .. } => cut(needed, self.len, ParseError::FragmentTiny),
            _ => cut(needed, self.len, error),
        }
    }
}

/// Why `needed` bytes are not in the first segment: there are only `len`, which is `error`, or they are further on.
#[cold]
fn cut(needed: usize, len: usize, error: ParseError) -> ParseError {
    if needed <= len { ParseError::HeadersSegmented } else { error }
}

/// Judges a fragment: `payload` is its bytes at `offset`, `whole` what counts of it towards [`LEN_MAX`].
fn fragment_of(
    id: u32,
    offset: usize,
    more: bool,
    payload: usize,
    whole: usize,
    protocol: u8,
) -> Result<Fragment, ParseError> {
    if offset + whole > LEN_MAX {
        return Err(ParseError::FragmentTooLong);
    }
    if more && !payload.is_multiple_of(8) {
        return Err(ParseError::FragmentUnaligned);
    }
    match offset {
        0 => Ok(Fragment::First { id }),
        // RFC 1858 section 4, RFC 3128: it would overwrite the TCP header that the first fragment showed.
        1..TcpHeader::LEN if protocol == protocol::TCP => Err(ParseError::FragmentTiny),
        _ => Ok(Fragment::Later { id }),
    }
}

/// Reads the transport header at `l4` of the packet, whose IP header is at `l3` of the frame.
#[inline(always)]
fn transport<T>(ip: Ip, l3: usize, l4: usize, protocol: u8, done: impl FnOnce(Parsed) -> T) -> Result<T, ParseError> {
    let (ports, tcp_flags) = match protocol {
        _ if matches!(ip.fragment, Fragment::Later { .. }) => (NO_PORTS, 0),
        protocol::TCP => {
            let Some(tcp) = view::<TcpHeader>(ip.bytes, l4) else {
                return Err(ip.cut(l4 + TcpHeader::LEN, ParseError::TcpHeader));
            };
            let len = tcp.header_len();
            if len < TcpHeader::LEN {
                return Err(ParseError::TcpHeader);
            }
            if l4 + len > ip.bytes.len() {
                return Err(ip.cut(l4 + len, ParseError::TcpHeader));
            }
            (both(tcp.source_port, tcp.destination_port), tcp.flags)
        }
        protocol::UDP => {
            let Some(udp) = view::<UdpHeader>(ip.bytes, l4) else {
                return Err(ip.cut(l4 + UdpHeader::LEN, ParseError::UdpLength));
            };
            let len = usize::from(udp.length.get());
            // In a first fragment the length is that of the whole datagram.
            if len < UdpHeader::LEN || (l4 + len > ip.len && ip.fragment == Fragment::None) {
                return Err(ParseError::UdpLength);
            }
            (both(udp.source_port, udp.destination_port), 0)
        }
        _ => match other_ports(ip.bytes, l4, ip.family, protocol) {
            Ok(ports) => (ports, 0),
            Err((needed, error)) => return Err(ip.cut(needed, error)),
        },
    };
    Ok(done(Parsed {
        l3_offset: l3 as u16,
        l4_offset: (l3 + l4) as u16,
        l3_len: ip.len as u32,
        family: ip.family,
        protocol,
        tcp_flags,
        ports,
        fragment: ip.fragment,
        traffic_class: ip.traffic_class,
        dont_fragment: ip.dont_fragment,
    }))
}

/// Ports of a packet that shows none.
const NO_PORTS: [u8; 4] = [0; 4];

/// Source and destination port as they stand in the packet.
#[inline(always)]
pub(super) fn both(source: U16, destination: U16) -> [u8; 4] {
    transmute!([source, destination])
}

/// Source and destination port of the rarer protocols, which have them where UDP does, or none. The error is how many
/// bytes of the packet a header needs that is cut off, and what that is called.
#[cold]
fn other_ports(bytes: &[u8], l4: usize, family: Family, protocol: u8) -> Result<[u8; 4], (usize, ParseError)> {
    let (len, error) = match (protocol, family) {
        // RFC 9260 section 3.1, RFC 4340 section 5.1 (the short form), RFC 3828 section 3.1.
        (protocol::SCTP | protocol::DCCP, _) => (12, ParseError::TransportTruncated),
        (protocol::UDP_LITE, _) => (8, ParseError::TransportTruncated),
        (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => {
            (IcmpHeader::message_len_min(family), ParseError::IcmpTruncated)
        }
        _ => return Ok(NO_PORTS),
    };
    match bytes.get(l4..l4 + len) {
        None => Err((l4 + len, error)),
        Some([s0, s1, d0, d1, ..]) if error == ParseError::TransportTruncated => Ok([*s0, *s1, *d0, *d1]),
        Some(_) => Ok(NO_PORTS),
    }
}
