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

/// Reads an Ethernet frame with one VLAN tag or none; parameters as for [`parse`](super::parse::parse).
#[inline(always)]
pub fn read_frame(head: &[u8], frame_len: usize) -> Option<Parsed> {
    let start: &[u8; TAGGED] = head.first_chunk()?;
    let (ethertype, l3) = match u16::from_be_bytes([start[12], start[13]]) {
        ethernet::CUSTOMER_TAG => (u16::from_be_bytes([start[16], start[17]]), TAGGED),
        ethertype => (ethertype, UNTAGGED),
    };
    let (ip, available) = (&head[l3..], frame_len.checked_sub(l3)?);
    match ethertype {
        ethernet::IPV4 => read_ipv4(ip, available, l3),
        ethernet::IPV6 => read_ipv6(ip, available, l3),
        _ => None,
    }
}

/// Reads an IP packet with nothing in front of it; parameters as for [`parse_ip`](super::parse::parse_ip).
#[inline(always)]
pub fn read_ip(head: &[u8], packet_len: usize) -> Option<Parsed> {
    match head.first()? >> 4 {
        4 => read_ipv4(head, packet_len, 0),
        6 => read_ipv6(head, packet_len, 0),
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

#[inline(always)]
fn read_ipv4(ip: &[u8], available: usize, l3: usize) -> Option<Parsed> {
    let (start, _) = Start::<Ipv4Header>::ref_from_prefix(ip).ok()?;
    let header = &start.ip;
    let len = usize::from(header.total_length.get());
    let fragment = header.flags_fragment.get() & (MORE_FRAGMENTS | FRAGMENT_OFFSET);
    let sound = header.version_ihl == Ipv4Header::VERSION_IHL && len <= available && fragment == 0;
    if !sound || !checksum::ipv4_is_valid(transmute_ref!(header)) {
        return None;
    }
    read_transport(ip, &start.udp, Place { l3, l4: Ipv4Header::LEN, len }, Family::V4, header.protocol)
}

#[inline(always)]
fn read_ipv6(ip: &[u8], available: usize, l3: usize) -> Option<Parsed> {
    let (start, _) = Start::<Ipv6Header>::ref_from_prefix(ip).ok()?;
    let header = &start.ip;
    let len = Ipv6Header::LEN + usize::from(header.payload_length.get());
    if header.version() != 6 || len > available {
        return None;
    }
    read_transport(ip, &start.udp, Place { l3, l4: Ipv6Header::LEN, len }, Family::V6, header.next_header)
}

/// Where in a frame the IP header is, where in the packet the transport header, and how long the packet.
struct Place {
    l3: usize,
    l4: usize,
    len: usize,
}

#[inline(always)]
fn read_transport(ip: &[u8], udp: &UdpHeader, place: Place, family: Family, protocol: u8) -> Option<Parsed> {
    let Place { l3, l4, len } = place;
    let (end, tcp_flags) = match protocol {
        protocol::UDP => {
            let udp_len = usize::from(udp.length.get());
            (if udp_len < UdpHeader::LEN { usize::MAX } else { l4 + udp_len }, 0)
        }
        protocol::TCP => {
            let (tcp, _) = TcpHeader::ref_from_prefix(ip.get(l4..)?).ok()?;
            let end = l4 + tcp.header_len();
            (if end > ip.len() || tcp.header_len() < TcpHeader::LEN { usize::MAX } else { end }, tcp.flags)
        }
        _ => return None,
    };
    if end > len {
        return None;
    }
    Some(Parsed {
        l3_offset: l3 as u16,
        l4_offset: (l3 + l4) as u16,
        l3_len: len as u32,
        family,
        protocol,
        tcp_flags,
        ports: both(udp.source_port, udp.destination_port),
        fragment: Fragment::None,
    })
}
