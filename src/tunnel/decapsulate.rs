//! Taking a parent's tunnel header off.

use super::ecn;
use super::template::{PROTOCOL_IPV4, PROTOCOL_IPV6};
use crate::packet::buffer::PacketBuffer;
use crate::packet::checksum;
use crate::packet::parse::{Family, ParseError, Parsed, parse_ip};

/// Why a tunnel packet is not taken off its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecapsulateError {
    /// Congestion was marked on a packet whose ends do not know of it (RFC 6040 section 4.2).
    Ecn,
    /// The outer packet is a fragment.
    Fragment,
    /// What it carries is no valid IP packet, or not of the family that the header names.
    Inner(ParseError),
}

/// What came out of a tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Decapsulated {
    /// The inner packet, which starts the buffer now.
    pub inner: Parsed,
    /// TTL or hop limit with which the outer packet arrived.
    pub outer_ttl: u8,
}

/// True for packets that carry IP in IP.
#[inline]
pub fn is_tunnel(packet: &Parsed) -> bool {
    packet.protocol == PROTOCOL_IPV4 || packet.protocol == PROTOCOL_IPV6
}

/// Removes everything in front of the inner packet; `outer` is what [`is_tunnel`].
pub fn decapsulate<B: PacketBuffer>(packet: &mut B, outer: &Parsed) -> Result<Decapsulated, DecapsulateError> {
    if outer.is_fragment() {
        return Err(DecapsulateError::Fragment);
    }
    let (outer_class, outer_ttl) = match (outer.family, packet.head().get(usize::from(outer.l3_offset)..)) {
        (Family::V4, Some([_, tos, _, _, _, _, _, _, ttl, ..])) => (*tos, *ttl),
        (Family::V6, Some([_, class, _, _, _, _, _, hops, ..])) => (class >> 4, *hops),
        _ => return Err(DecapsulateError::Inner(ParseError::Ipv4Truncated)),
    };
    packet.truncate(usize::from(outer.l3_offset) + outer.l3_len as usize);
    packet.trim_front(usize::from(outer.l4_offset));
    let inner = parse_ip(packet.head(), packet.frame_len()).map_err(DecapsulateError::Inner)?;
    if (inner.family == Family::V6) != (outer.protocol == PROTOCOL_IPV6) {
        return Err(DecapsulateError::Inner(ParseError::IpVersion));
    }
    mark(packet.head_mut(), inner.family, outer_class).ok_or(DecapsulateError::Ecn)?;
    Ok(Decapsulated { inner, outer_ttl })
}

/// Carries the outer header's congestion mark over to the inner header at the start of `ip`.
fn mark(ip: &mut [u8], family: Family, outer_class: u8) -> Option<()> {
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
