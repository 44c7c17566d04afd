//! The short way to read what comes by the million: whole TCP and UDP packets, and whole packets within packets, over IP
//! without options and extensions.
//!
//! It looks at each byte once and refuses whatever it is not sure of, sound or not; [`parse`](super::parse::parse) then
//! decides. What it accepts, `parse` accepts with the same result.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, transmute_ref};

use super::checksum;
use super::ethernet;
use super::ipv4::{DONT_FRAGMENT, FRAGMENT_OFFSET, Ipv4Header, MORE_FRAGMENTS};
use super::ipv6::Ipv6Header;
use super::parse::{Family, Fragment, Parsed, both};
use super::protocol;
use super::tcp::TcpHeader;
use super::udp::UdpHeader;

/// Bytes of the link layer without a tag and with one.
const UNTAGGED: usize = 14;
const TAGGED: usize = 18;

/// What such a packet says.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// What is where in it.
    pub parsed: Parsed,
    /// The first word of an IPv4 header without options that has its class and length, host order.
    pub first: u32,
    /// IPv4's flags and fragment offset, of which only [`DONT_FRAGMENT`] counts.
    pub flags: u16,
}

impl Plain {
    /// The same of a packet that was read the long way; of one longer than 65,535 bytes the length is cut.
    #[inline(always)]
    pub fn of(parsed: Parsed) -> Plain {
        let first = Ipv4Header::START | u32::from(parsed.traffic_class) << 16 | parsed.l3_len & 0xffff;
        Plain { parsed, first, flags: if parsed.dont_fragment { DONT_FRAGMENT } else { 0 } }
    }
}

/// Reads an Ethernet frame without a VLAN tag; parameters as for [`parse`](super::parse::parse).
#[inline(always)]
pub fn read_frame(head: &[u8], frame_len: usize) -> Option<Plain> {
    // The longer one is refused where it is read.
    let start: &[u8; UNTAGGED + size_of::<Start<Ipv4Header>>()] = head.first_chunk()?;
    // Compared as it lies there, it need not be turned round.
    const IPV4: u16 = ethernet::IPV4.to_be();
    const IPV6: u16 = ethernet::IPV6.to_be();
    match u16::from_ne_bytes([start[12], start[13]]) {
        IPV4 => read_ipv4::<UNTAGGED>(head, frame_len),
        IPV6 => read_ipv6::<UNTAGGED>(head, frame_len),
        _ => None,
    }
}

/// The same for a frame with one tag.
pub fn read_tagged_frame(head: &[u8], frame_len: usize) -> Option<Plain> {
    let start: &[u8; TAGGED] = head.first_chunk()?;
    match (u16::from_be_bytes([start[12], start[13]]), u16::from_be_bytes([start[16], start[17]])) {
        (ethernet::CUSTOMER_TAG, ethernet::IPV4) => read_ipv4::<TAGGED>(head, frame_len),
        (ethernet::CUSTOMER_TAG, ethernet::IPV6) => read_ipv6::<TAGGED>(head, frame_len),
        _ => None,
    }
}

/// Reads an IP packet with nothing in front of it; parameters as for [`parse_ip`](super::parse::parse_ip).
#[inline(always)]
pub fn read_ip(head: &[u8], packet_len: usize) -> Option<Plain> {
    match head.first()? >> 4 {
        4 => read_ipv4::<0>(head, packet_len),
        6 => read_ipv6::<0>(head, packet_len),
        _ => None,
    }
}

/// An IP header and what TCP and UDP begin with.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Start<H> {
    ip: H,
    /// Of TCP the ports are in the same place.
    udp: UdpHeader,
}

/// Reads the packet whose header is `L3` bytes into the frame; that this is known makes every place in it known.
#[inline(always)]
fn read_ipv4<const L3: usize>(head: &[u8], frame_len: usize) -> Option<Plain> {
    let ip = head.get(L3..)?;
    let (Start { ip: header, udp }, _) = Start::<Ipv4Header>::ref_from_prefix(ip).ok()?;
    let first = u32::from_be_bytes(*ip.first_chunk()?);
    let len = (first & 0xffff) as usize;
    let flags = header.flags_fragment.get();
    let whole = L3 + len <= frame_len && flags & (MORE_FRAGMENTS | FRAGMENT_OFFSET) == 0;
    if header.version_ihl != Ipv4Header::VERSION_IHL || !whole || !checksum::ipv4_is_valid(transmute_ref!(header)) {
        return None;
    }
    let (end, ports, tcp_flags) = transport::<{ Ipv4Header::LEN }>(ip, udp, header.protocol)?;
    let parsed = Parsed {
        l3_offset: L3 as u16,
        l4_offset: (L3 + Ipv4Header::LEN) as u16,
        l3_len: len as u32,
        family: Family::V4,
        protocol: header.protocol,
        tcp_flags,
        ports,
        fragment: Fragment::None,
        traffic_class: (first >> 16) as u8,
        dont_fragment: flags & DONT_FRAGMENT != 0,
    };
    (end <= len).then_some(Plain { parsed, first, flags })
}

#[inline(always)]
fn read_ipv6<const L3: usize>(head: &[u8], frame_len: usize) -> Option<Plain> {
    let ip = head.get(L3..)?;
    let (Start { ip: header, udp }, _) = Start::<Ipv6Header>::ref_from_prefix(ip).ok()?;
    let len = Ipv6Header::LEN + usize::from(header.payload_length.get());
    // Longer ones do not fit into the first word.
    if header.version() != 6 || L3 + len > frame_len || len > usize::from(u16::MAX) {
        return None;
    }
    let (end, ports, tcp_flags) = transport::<{ Ipv6Header::LEN }>(ip, udp, header.next_header)?;
    let parsed = Parsed {
        l3_offset: L3 as u16,
        l4_offset: (L3 + Ipv6Header::LEN) as u16,
        l3_len: len as u32,
        family: Family::V6,
        protocol: header.next_header,
        tcp_flags,
        ports,
        fragment: Fragment::None,
        traffic_class: header.dscp_ecn(),
        dont_fragment: true,
    };
    let first = Ipv4Header::START | u32::from(header.dscp_ecn()) << 16 | len as u32;
    (end <= len).then_some(Plain { parsed, first, flags: DONT_FRAGMENT })
}

/// Where in the packet `ip` the transport header, which starts at `L4`, and what it vouches for end; its ports, and the flags
/// of TCP.
#[inline(always)]
fn transport<const L4: usize>(ip: &[u8], udp: &UdpHeader, protocol: u8) -> Option<(usize, [u8; 4], u8)> {
    let ports = both(udp.source_port, udp.destination_port);
    match protocol {
        protocol::UDP => {
            let len = usize::from(udp.length.get());
            (len >= UdpHeader::LEN).then_some((L4 + len, ports, 0))
        }
        protocol::TCP => {
            let (tcp, _) = TcpHeader::ref_from_prefix(ip.get(L4..)?).ok()?;
            let end = L4 + tcp.header_len();
            (end <= ip.len() && tcp.header_len() >= TcpHeader::LEN).then_some((end, ports, tcp.flags))
        }
        protocol::IPV4 | protocol::IPV6 | protocol::GRE => Some((L4, [0; 4], 0)),
        _ => None,
    }
}
