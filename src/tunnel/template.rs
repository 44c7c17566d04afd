//! The header that carries packets to one child, made once and copied in front of every packet.
//!
//! ```text
//! [Ethernet 14][802.1Q 4, where the port has a tag][IPv4 20 or IPv6 40]
//! ```
//!
//! The template holds all that is the same for every packet. Length, traffic class, TTL, DF, identification, protocol
//! and, where the source is spread, its host bits are filled in; the IPv4 checksum starts from the sum of the rest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::buffer::PacketBuffer;
use crate::packet::parse::{Family, Parsed};
use crate::units::MacAddr;

/// Outer TTL of a packet that comes from a client, not out of a parent's tunnel.
pub const TTL: u8 = 64;

/// IP protocol number of IPv4 in IP (RFC 2003).
pub const PROTOCOL_IPV4: u8 = 4;
/// IP protocol number of IPv6 in IP (RFC 2473, RFC 4213).
pub const PROTOCOL_IPV6: u8 = 41;

const ETHERNET: usize = 14;
const VLAN_TAG: usize = 4;
const TAGGED: usize = ETHERNET + VLAN_TAG;
const IPV4: usize = 20;
const IPV6: usize = 40;

/// Where a tunnel begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// Over IPv4.
    V4 {
        /// Outer source.
        source: Ipv4Addr,
        /// Trailing bits of the source that are taken from the flow's hash; 0 for a fixed source.
        spread_bits: u8,
        /// Outer destination.
        destination: Ipv4Addr,
    },
    /// Over IPv6.
    V6 {
        /// Outer source.
        source: Ipv6Addr,
        /// Trailing bits of the source that are taken from the flow's hash, at most 64; 0 for a fixed source.
        spread_bits: u8,
        /// Outer destination.
        destination: Ipv6Addr,
    },
}

impl Endpoints {
    /// The child's end.
    pub fn destination(&self) -> IpAddr {
        match *self {
            Endpoints::V4 { destination, .. } => destination.into(),
            Endpoints::V6 { destination, .. } => destination.into(),
        }
    }
}

/// The link towards the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Our port's address.
    pub source: MacAddr,
    /// The next hop's.
    pub destination: MacAddr,
    /// 802.1Q tag, priority 0.
    pub vlan: Option<u16>,
}

/// What of the outer header differs from packet to packet.
#[derive(Clone, Copy, Debug)]
pub struct PerPacket {
    /// Spreads the outer source, and is the outer IPv6 flow label (RFC 6438).
    pub flow_hash: u64,
    /// Outer TTL or hop limit.
    pub ttl: u8,
    /// Outer IPv4 identification, for packets that may be fragmented (RFC 6864).
    pub identification: u16,
}

/// Why a packet cannot be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncapsulateError {
    /// Outer packet longer than the path's MTU or than an IP length field can say.
    #[error("packet and tunnel header are longer than the path's MTU")]
    TooBig,
    /// No room for the header in front of the packet.
    #[error("no headroom in the packet buffer")]
    NoHeadroom,
}

/// The trailing `bits` bits of an address, at most 64.
fn host_mask(bits: u8) -> u64 {
    1_u64.checked_shl(bits.into()).map_or(u64::MAX, |bit| bit - 1)
}

/// A ready-made header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    bytes: [u8; ETHERNET + VLAN_TAG + IPV6],
    /// Of the outer IP header.
    l3_offset: u8,
    family: Family,
    /// Sum of the 16-bit words of the IPv4 header that never change.
    checksum: u32,
    /// The source, of IPv6 its low half; host bits that are taken from the hash are zero.
    source: u64,
    /// Those host bits.
    spread_mask: u64,
    /// Longest outer IP packet, in bytes.
    mtu: u16,
}

impl Template {
    /// The header of IP-in-IP tunnels between `endpoints` (RFC 2003, 2473, 4213) over `link`.
    ///
    /// `mtu` is the longest outer IP packet in bytes.
    pub fn ip_in_ip(endpoints: Endpoints, link: Link, mtu: u16) -> Template {
        let mut bytes = [0; ETHERNET + VLAN_TAG + IPV6];
        bytes[..6].copy_from_slice(&link.destination.0);
        bytes[6..12].copy_from_slice(&link.source.0);
        let mut at = 12;
        if let Some(vlan) = link.vlan {
            bytes[at..at + 2].copy_from_slice(&0x8100_u16.to_be_bytes());
            bytes[at + 2..at + 4].copy_from_slice(&(vlan & 0x0fff).to_be_bytes());
            at += VLAN_TAG;
        }
        let l3 = at + 2;
        let (family, ethertype, source, spread_bits) = match endpoints {
            Endpoints::V4 { source, spread_bits, destination } => {
                let network = u32::from(source) & !(host_mask(spread_bits) as u32);
                bytes[l3] = 0x45;
                bytes[l3 + 12..l3 + 16].copy_from_slice(&network.to_be_bytes());
                bytes[l3 + 16..l3 + 20].copy_from_slice(&destination.octets());
                (Family::V4, 0x0800_u16, u64::from(network), spread_bits)
            }
            Endpoints::V6 { source, spread_bits, destination } => {
                let network = u128::from(source) & !u128::from(host_mask(spread_bits));
                bytes[l3] = 0x60;
                bytes[l3 + 8..l3 + 24].copy_from_slice(&network.to_be_bytes());
                bytes[l3 + 24..l3 + 40].copy_from_slice(&destination.octets());
                (Family::V6, 0x86dd, network as u64, spread_bits)
            }
        };
        bytes[at..l3].copy_from_slice(&ethertype.to_be_bytes());
        let checksum =
            bytes[l3..l3 + IPV4].chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        Template { bytes, l3_offset: l3 as u8, family, checksum, source, spread_mask: host_mask(spread_bits), mtu }
    }

    /// Bytes that the tunnel adds to the IP packet.
    pub fn overhead(&self) -> usize {
        match self.family {
            Family::V4 => IPV4,
            Family::V6 => IPV6,
        }
    }

    /// Puts the header in the place of everything in front of the packet's IP header, and cuts off what is behind it.
    ///
    /// The IP packet itself is not touched. On error the buffer is unchanged.
    #[inline]
    pub fn encapsulate<B: PacketBuffer>(
        &self,
        packet: &mut B,
        inner: &Parsed,
        per: PerPacket,
    ) -> Result<(), EncapsulateError> {
        let length = inner.l3_len as usize + self.overhead();
        if length > usize::from(self.mtu) {
            return Err(EncapsulateError::TooBig);
        }
        let from = usize::from(inner.l3_offset);
        let (traffic_class, dont_fragment, protocol) = match (inner.family, &packet.head()[from..]) {
            (Family::V4, [_, tos, _, _, _, _, flags, ..]) => (*tos, flags & 0x40 != 0, PROTOCOL_IPV4),
            // IPv6 packets are never fragmented on their way.
            (Family::V6, [first, second, ..]) => (first << 4 | second >> 4, true, PROTOCOL_IPV6),
            _ => (0, false, PROTOCOL_IPV4),
        };
        let end = from + inner.l3_len as usize;
        if packet.frame_len() > end {
            packet.truncate(end);
        }
        // A tag or none, one family or the other: for each the compiler knows all lengths, and copies with wide stores.
        let (tagged, length) = (usize::from(self.l3_offset) > ETHERNET, length as u16);
        match (self.family, tagged) {
            (Family::V4, false) => {
                let ip = self.put::<_, ETHERNET, { ETHERNET + IPV4 }, IPV4>(packet, from)?;
                self.fill_v4(ip, length, traffic_class, dont_fragment, protocol, per);
            }
            (Family::V4, true) => {
                let ip = self.put::<_, TAGGED, { TAGGED + IPV4 }, IPV4>(packet, from)?;
                self.fill_v4(ip, length, traffic_class, dont_fragment, protocol, per);
            }
            (Family::V6, false) => {
                let ip = self.put::<_, ETHERNET, { ETHERNET + IPV6 }, IPV6>(packet, from)?;
                self.fill_v6(ip, inner.l3_len as u16, traffic_class, protocol, per);
            }
            (Family::V6, true) => {
                let ip = self.put::<_, TAGGED, { TAGGED + IPV6 }, IPV6>(packet, from)?;
                self.fill_v6(ip, inner.l3_len as u16, traffic_class, protocol, per);
            }
        }
        Ok(())
    }

    /// Copies the template, which has `LEN` bytes, in front of what is `from` bytes into the packet, and returns the outer
    /// IP header, `IP` bytes that start at `L3`.
    #[inline(always)]
    fn put<'p, B: PacketBuffer, const L3: usize, const LEN: usize, const IP: usize>(
        &self,
        packet: &'p mut B,
        from: usize,
    ) -> Result<&'p mut [u8; IP], EncapsulateError> {
        let head = if LEN >= from {
            packet.prepend(LEN - from)
        } else {
            packet.trim_front(from - LEN);
            Some(packet.head_mut())
        };
        let header: &mut [u8; LEN] =
            head.and_then(|head| head.first_chunk_mut()).ok_or(EncapsulateError::NoHeadroom)?;
        if let Some(bytes) = self.bytes.first_chunk() {
            *header = *bytes;
        }
        header[L3..].first_chunk_mut().ok_or(EncapsulateError::NoHeadroom)
    }

    #[inline]
    fn fill_v4(&self, ip: &mut [u8; IPV4], length: u16, tos: u8, dont_fragment: bool, protocol: u8, per: PerPacket) {
        // RFC 6864 section 4.1: the identification of an atomic datagram has no meaning.
        let (identification, fragment) = if dont_fragment { (0, 0x4000_u16) } else { (per.identification, 0) };
        let ttl_protocol = u16::from_be_bytes([per.ttl, protocol]);
        let spread = (per.flow_hash & self.spread_mask) as u32;
        ip[1] = tos;
        ip[2..4].copy_from_slice(&length.to_be_bytes());
        ip[4..6].copy_from_slice(&identification.to_be_bytes());
        ip[6..8].copy_from_slice(&fragment.to_be_bytes());
        ip[8..10].copy_from_slice(&ttl_protocol.to_be_bytes());
        // The template's host bits are zero, so that spreading the source adds its words to the sum.
        ip[12..16].copy_from_slice(&(self.source as u32 | spread).to_be_bytes());
        let mut sum = self.checksum
            + u32::from(tos)
            + u32::from(length)
            + u32::from(identification)
            + u32::from(fragment)
            + u32::from(ttl_protocol)
            + (spread >> 16)
            + (spread & 0xffff);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        ip[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }

    #[inline]
    fn fill_v6(&self, ip: &mut [u8; IPV6], payload: u16, traffic_class: u8, protocol: u8, per: PerPacket) {
        let label = (per.flow_hash >> 44) as u32;
        ip[..4].copy_from_slice(&(0x6000_0000 | u32::from(traffic_class) << 20 | label).to_be_bytes());
        ip[4..6].copy_from_slice(&payload.to_be_bytes());
        ip[6] = protocol;
        ip[7] = per.ttl;
        // Into the low half of the source.
        let spread = per.flow_hash & self.spread_mask;
        ip[16..24].copy_from_slice(&(self.source | spread).to_be_bytes());
    }
}
