//! The short way to read what comes by the million: whole TCP and UDP packets over IP without options and extensions.
//!
//! It looks at each byte once and refuses whatever it is not sure of, sound or not; [`parse`](super::parse::parse) then
//! decides. What it accepts, `parse` accepts with the same result.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, transmute_ref};

use super::checksum;
use super::ethernet;
use super::ipv4::{FRAGMENT_OFFSET, Ipv4Header, MORE_FRAGMENTS};
use super::ipv6::Ipv6Header;
use super::parse::{Family, Fragment, Parsed, both};
use super::protocol;
use super::tcp::TcpHeader;
use super::udp::UdpHeader;

/// Bytes of the link layer without a tag and with one.
const UNTAGGED: usize = 14;
const TAGGED: usize = 18;

/// Reads an Ethernet frame without a VLAN tag; parameters as for [`parse`](super::parse::parse).
#[inline(always)]
pub fn read_frame(head: &[u8], frame_len: usize) -> Option<Parsed> {
    // The longer one is refused where it is read.
    let start: &[u8; UNTAGGED + size_of::<Start<Ipv4Header>>()] = head.first_chunk()?;
    match u16::from_be_bytes([start[12], start[13]]) {
        ethernet::IPV4 => read_ipv4::<UNTAGGED>(head, frame_len),
        ethernet::IPV6 => read_ipv6::<UNTAGGED>(head, frame_len),
        _ => None,
    }
}

/// The same for a frame with one tag.
pub fn read_tagged_frame(head: &[u8], frame_len: usize) -> Option<Parsed> {
    let start: &[u8; TAGGED] = head.first_chunk()?;
    match (u16::from_be_bytes([start[12], start[13]]), u16::from_be_bytes([start[16], start[17]])) {
        (ethernet::CUSTOMER_TAG, ethernet::IPV4) => read_ipv4::<TAGGED>(head, frame_len),
        (ethernet::CUSTOMER_TAG, ethernet::IPV6) => read_ipv6::<TAGGED>(head, frame_len),
        _ => None,
    }
}

/// Reads an IP packet with nothing in front of it; parameters as for [`parse_ip`](super::parse::parse_ip).
#[inline(always)]
pub fn read_ip(head: &[u8], packet_len: usize) -> Option<Parsed> {
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
fn read_ipv4<const L3: usize>(head: &[u8], frame_len: usize) -> Option<Parsed> {
    let ip = head.get(L3..)?;
    let (Start { ip: header, udp }, _) = Start::<Ipv4Header>::ref_from_prefix(ip).ok()?;
    let len = usize::from(header.total_length.get());
    let fragment = header.flags_fragment.get() & (MORE_FRAGMENTS | FRAGMENT_OFFSET);
    let sound = header.version_ihl == Ipv4Header::VERSION_IHL && L3 + len <= frame_len && fragment == 0;
    if !sound || !checksum::ipv4_is_valid(transmute_ref!(header)) {
        return None;
    }
    let (end, tcp_flags) = transport_end::<{ Ipv4Header::LEN }>(ip, udp, header.protocol)?;
    (end <= len).then_some(Parsed {
        l3_offset: L3 as u16,
        l4_offset: (L3 + Ipv4Header::LEN) as u16,
        l3_len: len as u32,
        family: Family::V4,
        protocol: header.protocol,
        tcp_flags,
        ports: both(udp.source_port, udp.destination_port),
        fragment: Fragment::None,
        traffic_class: header.dscp_ecn,
        dont_fragment: header.dont_fragment(),
    })
}

#[inline(always)]
fn read_ipv6<const L3: usize>(head: &[u8], frame_len: usize) -> Option<Parsed> {
    let ip = head.get(L3..)?;
    let (Start { ip: header, udp }, _) = Start::<Ipv6Header>::ref_from_prefix(ip).ok()?;
    let len = Ipv6Header::LEN + usize::from(header.payload_length.get());
    if header.version() != 6 || L3 + len > frame_len {
        return None;
    }
    let (end, tcp_flags) = transport_end::<{ Ipv6Header::LEN }>(ip, udp, header.next_header)?;
    (end <= len).then_some(Parsed {
        l3_offset: L3 as u16,
        l4_offset: (L3 + Ipv6Header::LEN) as u16,
        l3_len: len as u32,
        family: Family::V6,
        protocol: header.next_header,
        tcp_flags,
        ports: both(udp.source_port, udp.destination_port),
        fragment: Fragment::None,
        traffic_class: header.dscp_ecn(),
        dont_fragment: true,
    })
}

/// Where in the packet `ip` the transport header, which starts at `L4`, and what it vouches for end; and the flags of TCP.
#[inline(always)]
fn transport_end<const L4: usize>(ip: &[u8], udp: &UdpHeader, protocol: u8) -> Option<(usize, u8)> {
    match protocol {
        protocol::UDP => {
            let len = usize::from(udp.length.get());
            (len >= UdpHeader::LEN).then_some((L4 + len, 0))
        }
        protocol::TCP => {
            let (tcp, _) = TcpHeader::ref_from_prefix(ip.get(L4..)?).ok()?;
            let end = L4 + tcp.header_len();
            (end <= ip.len() && tcp.header_len() >= TcpHeader::LEN).then_some((end, tcp.flags))
        }
        _ => None,
    }
}
