//! Taking a parent's tunnel header off: IP in IP, GUE of both variants, GRE.

use zerocopy::FromBytes;

use super::{ecn, shim};
use crate::packet::buffer::PacketBuffer;
use crate::packet::checksum;
use crate::packet::ipv4::Ipv4Header;
use crate::packet::ipv6::Ipv6Header;
use crate::packet::parse::{Family, Fragment, ParseError, Parsed, parse_ip};
use crate::packet::plain::{self, Plain};
use crate::packet::protocol;
use crate::packet::udp::UdpHeader;

/// Why a tunnel packet is not taken off its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecapsulateError {
    /// Congestion was marked on a packet whose ends do not know of it (RFC 6040 section 4.2).
    Ecn,
    /// The outer packet is a fragment.
    Fragment,
    /// What stands between outer and inner packet is cut off, or not of the kind that we take.
    Header,
    /// The outer UDP checksum is wrong.
    Checksum,
    /// What it carries is no valid IP packet, or not of the family that the header names.
    Inner(ParseError),
}

/// What came out of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Decapsulated {
    /// The inner packet, which starts the buffer now.
    pub inner: Plain,
    /// TTL or hop limit with which the outer packet arrived.
    pub outer_ttl: u8,
}

/// True for packets that carry IP in a way that we take off; `gue_port` is the UDP port of GUE here.
#[inline]
pub fn is_tunnel(packet: &Parsed, gue_port: u16) -> bool {
    match packet.protocol {
        protocol::IPV4 | protocol::IPV6 | protocol::GRE => true,
        // Of a later fragment nobody can say.
        protocol::UDP => packet.dst_port() == gue_port && !matches!(packet.fragment, Fragment::Later { .. }),
        _ => false,
    }
}

/// Removes everything in front of the inner packet; `outer` is what [`is_tunnel`].
#[inline(always)]
pub fn decapsulate<B: PacketBuffer>(packet: &mut B, outer: &Parsed) -> Result<Decapsulated, DecapsulateError> {
    if outer.is_fragment() {
        return Err(DecapsulateError::Fragment);
    }
    let (outer_class, outer_ttl) = match (outer.family, packet.head().get(usize::from(outer.l3_offset)..)) {
        (Family::V4, Some([_, tos, _, _, _, _, _, _, ttl, ..])) => (*tos, *ttl),
        (Family::V6, Some([first, second, _, _, _, _, _, hops, ..])) => (first << 4 | second >> 4, *hops),
        _ => return Err(DecapsulateError::Inner(ParseError::Ipv4Truncated)),
    };
    packet.truncate(usize::from(outer.l3_offset) + outer.l3_len as usize);
    let (carried, offset) = match outer.protocol {
        protocol::UDP => behind_udp(packet, outer)?,
        protocol::GRE => {
            let gre = packet.head().get(usize::from(outer.l4_offset)..).unwrap_or_default();
            shim::read_gre(gre).ok_or(DecapsulateError::Header)?
        }
        carried => (carried, 0),
    };
    packet.trim_front(usize::from(outer.l4_offset) + offset);
    let (head, len) = (packet.head(), packet.frame_len());
    let mut inner = match plain::read_ip(head, len) {
        Some(inner) => inner,
        None => Plain::of(parse_ip(head, len).map_err(DecapsulateError::Inner)?),
    };
    let family = inner.parsed.family;
    if (family == Family::V6) != (carried == protocol::IPV6) {
        return Err(DecapsulateError::Inner(ParseError::IpVersion));
    }
    let class = inner.parsed.traffic_class;
    let marks = ecn::on_decapsulation(class, outer_class).ok_or(DecapsulateError::Ecn)?;
    if marks != class & ecn::MASK {
        mark(packet.head_mut(), family, outer_class).ok_or(DecapsulateError::Ecn)?;
        inner = Plain::of(Parsed { traffic_class: class & !ecn::MASK | marks, ..inner.parsed });
    }
    Ok(Decapsulated { inner, outer_ttl })
}

/// Reads UDP and GUE, and cuts off what is behind the datagram.
///
/// A checksum of zero is none, over IPv6 too (RFC 6935). Any other is verified, as far as the packet lies in one segment.
fn behind_udp<B: PacketBuffer>(packet: &mut B, outer: &Parsed) -> Result<shim::Inside, DecapsulateError> {
    let l4 = usize::from(outer.l4_offset);
    let header = packet.head().get(l4..).and_then(|bytes| UdpHeader::ref_from_prefix(bytes).ok());
    let (UdpHeader { length, checksum, .. }, _) = header.ok_or(DecapsulateError::Header)?;
    let (end, whole) = (l4 + usize::from(length.get()), *checksum != 0);
    packet.truncate(end);
    let ip = packet.head().get(usize::from(outer.l3_offset)..).unwrap_or_default();
    if let (true, Some(datagram)) = (whole, packet.head().get(l4..end))
        && !is_intact(ip, outer.family, datagram)
    {
        return Err(DecapsulateError::Checksum);
    }
    let gue = packet.head().get(l4 + UdpHeader::LEN..).unwrap_or_default();
    let (carried, offset) = shim::read_gue(gue).ok_or(DecapsulateError::Header)?;
    Ok((carried, UdpHeader::LEN + offset))
}

/// Whether the checksum of a UDP datagram of an IP packet is right.
fn is_intact(ip: &[u8], family: Family, datagram: &[u8]) -> bool {
    let sum = match family {
        Family::V4 => Ipv4Header::ref_from_prefix(ip).ok().map(|(header, _)| {
            checksum::pseudo_v4(header.source, header.destination, protocol::UDP, datagram.len() as u16)
        }),
        Family::V6 => Ipv6Header::ref_from_prefix(ip).ok().map(|(header, _)| {
            checksum::pseudo_v6(&header.source, &header.destination, protocol::UDP, datagram.len() as u32)
        }),
    };
    sum.is_some_and(|sum| sum.add_bytes(datagram).finish() == 0)
}

/// Carries the outer header's congestion mark over to the inner header at the start of `ip`.
pub fn mark(ip: &mut [u8], family: Family, outer_class: u8) -> Option<()> {
    match (family, ip) {
        (Family::V4, [version, tos, rest @ ..]) => {
            let marked = *tos & !ecn::MASK | ecn::on_decapsulation(*tos, outer_class)?;
            if let (true, Some(field)) = (marked != *tos, rest.get_mut(8..10)) {
                let old = u16::from_be_bytes([field[0], field[1]]);
                let word = |tos| u16::from_be_bytes([*version, tos]);
                field.copy_from_slice(&checksum::update_u16(old, word(*tos), word(marked)).to_be_bytes());
                *tos = marked;
            }
        }
        (Family::V6, [_, class, ..]) => {
            let marked = ecn::on_decapsulation(*class >> 4, outer_class)?;
            *class = *class & !(ecn::MASK << 4) | marked << 4;
        }
        _ => {}
    }
    Some(())
}
