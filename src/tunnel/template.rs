//! The header that carries packets to one child, made once and copied in front of every packet.
//!
//! ```text
//! [Ethernet 14][802.1Q 4, where the port has a tag] │ [IPv4 20 or IPv6 40]                   │ ipip
//!                                                   │ [IPv4 20 or IPv6 40][UDP 8][GUE 4]     │ gue, variant 0
//!                                                   │ [IPv4 20 or IPv6 40][UDP 8]            │ gue, variant 1
//!                                                   │ [IPv4 20 or IPv6 40][GRE 4]            │ gre
//!                                                   │ [label 4]                              │ mpls
//!                                                   │                                        │ mac
//! ```
//!
//! The template holds all that is the same for every packet. Length, traffic class, TTL, DF, identification, protocol, the
//! source port of UDP and, where the source is spread, its host bits are filled in, and the IPv4 checksum with them.
//!
//! - DSCP and ECN (RFC 6040 section 4.1) of the outer IP header are the inner one's. A label has three bits for either
//!   (RFC 5462): it shows the upper three of the DSCP, and no congestion mark.
//! - DF of an outer IPv4 header is the inner one's, set over an inner IPv6. `mpls` and `mac` have nothing like it.
//! - UDP has no checksum over IPv4 (RFC 768) and none over IPv6 either, as RFC 6935 allows tunnels: to sum up every
//!   payload would cost more than all the rest, and what is inside has checksums of its own (RFC 6936 section 3). A child
//!   over IPv6 must take such packets on that port.
//! - `mac` changes nothing but the two Ethernet addresses, not even the TTL. So nothing counts how often a packet goes
//!   round: it is for host servers, not for routers that could send it back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::inner::{Inner, third};
use super::shim;
use crate::packet::buffer::PacketBuffer;
use crate::packet::ipv4::DONT_FRAGMENT;
use crate::packet::parse::{Family, Parsed};
use crate::packet::{checksum, ethernet, protocol};
use crate::units::{GueVariant, MacAddr};

/// Outer TTL of a packet that comes from a client, not out of a parent's tunnel.
pub const TTL: u8 = 64;

const ETHERNET: usize = 14;
const VLAN_TAG: usize = 4;
const TAGGED: usize = ETHERNET + VLAN_TAG;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
const LABEL: usize = 4;
/// The longest template.
const LEN_MAX: usize = TAGGED + IPV6 + UDP + shim::GUE_LEN;

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

/// What stands between the link layer's header and the inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    IpIp,
    Gue,
    GueDirect,
    Gre,
    Mpls,
    Mac,
}

/// A ready-made header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    bytes: [u8; LEN_MAX],
    kind: Kind,
    /// IP in IP over IPv4, without a tag.
    is_plain: bool,
    /// Where the link layer's header ends.
    l3_offset: u8,
    /// Of the outer IP header, if any.
    family: Family,
    /// Bytes that the tunnel adds to the IP packet.
    overhead: u8,
    /// Over IPv4, the sum of the header's words that are the same for every packet.
    sum: u64,
    /// The source, of IPv6 its low half; host bits that are taken from the hash are zero.
    source: u64,
    /// Those host bits.
    spread_mask: u64,
    /// Longest outer IP packet, in bytes.
    mtu: u16,
    /// Longest packet that is carried whole, in bytes.
    packet_max: u32,
}

impl Template {
    /// The header of IP-in-IP tunnels between `endpoints` (RFC 2003, 2473, 4213) over `link`.
    ///
    /// `mtu`, here and below, is the longest IP packet that the link takes, outer header included, in bytes.
    pub fn ip_in_ip(endpoints: Endpoints, link: Link, mtu: u16) -> Template {
        Template::over_ip(Kind::IpIp, endpoints, &[], link, mtu)
    }

    /// The header of GUE tunnels (draft-ietf-intarea-gue) to UDP port `port`.
    pub fn gue(endpoints: Endpoints, port: u16, variant: GueVariant, link: Link, mtu: u16) -> Template {
        let [high, low] = port.to_be_bytes();
        let udp = [0, 0, high, low, 0, 0, 0, 0];
        let header = [udp.as_slice(), &shim::gue(0)].concat();
        match variant {
            GueVariant::Header => Template::over_ip(Kind::Gue, endpoints, &header, link, mtu),
            GueVariant::Direct => Template::over_ip(Kind::GueDirect, endpoints, &udp, link, mtu),
        }
    }

    /// The header of GRE tunnels without checksum and key (RFC 2784).
    pub fn gre(endpoints: Endpoints, link: Link, mtu: u16) -> Template {
        Template::over_ip(Kind::Gre, endpoints, &shim::gre(0), link, mtu)
    }

    /// A label of 20 bits, the only one on the packet (RFC 3032).
    pub fn mpls(label: u32, link: Link, mtu: u16) -> Template {
        Template::on_link(Kind::Mpls, shim::MPLS, &shim::label(label).to_be_bytes(), link, mtu)
    }

    /// No header but the link's: the packet goes to the neighbour as it is.
    pub fn mac(link: Link, mtu: u16) -> Template {
        Template::on_link(Kind::Mac, 0, &[], link, mtu)
    }

    fn over_ip(kind: Kind, endpoints: Endpoints, behind: &[u8], link: Link, mtu: u16) -> Template {
        let mut ip = [0; IPV6];
        let (family, ethertype, len, source, spread_bits) = match endpoints {
            Endpoints::V4 { source, spread_bits, destination } => {
                let network = u32::from(source) & !(host_mask(spread_bits) as u32);
                ip[0] = 0x45;
                ip[12..16].copy_from_slice(&network.to_be_bytes());
                ip[16..20].copy_from_slice(&destination.octets());
                (Family::V4, ethernet::IPV4, IPV4, u64::from(network), spread_bits)
            }
            Endpoints::V6 { source, spread_bits, destination } => {
                let network = u128::from(source) & !u128::from(host_mask(spread_bits));
                ip[0] = 0x60;
                ip[8..24].copy_from_slice(&network.to_be_bytes());
                ip[24..40].copy_from_slice(&destination.octets());
                (Family::V6, ethernet::IPV6, IPV6, network as u64, spread_bits)
            }
        };
        let sum = match endpoints {
            Endpoints::V4 { destination, .. } => source + u64::from(destination.to_bits()),
            Endpoints::V6 { .. } => 0,
        };
        let template = Template::on_link(kind, ethertype, &[&ip[..len], behind].concat(), link, mtu);
        let is_plain = kind == Kind::IpIp && family == Family::V4 && link.vlan.is_none();
        Template { is_plain, family, sum, source, spread_mask: host_mask(spread_bits), ..template }
    }

    fn on_link(kind: Kind, ethertype: u16, behind: &[u8], link: Link, mtu: u16) -> Template {
        let mut header = [link.destination.0, link.source.0].concat();
        if let Some(vlan) = link.vlan {
            header.extend([ethernet::CUSTOMER_TAG, vlan & 0x0fff].map(u16::to_be_bytes).as_flattened());
        }
        header.extend(ethertype.to_be_bytes());
        let mut bytes = [0; LEN_MAX];
        bytes[..header.len()].copy_from_slice(&header);
        bytes[header.len()..][..behind.len()].copy_from_slice(behind);
        let (l3_offset, overhead) = (header.len() as u8, behind.len() as u8);
        let (is_plain, family, sum, source, spread_mask, packet_max) = (false, Family::V4, 0, 0, 0, 0);
        let template =
            Template { bytes, kind, is_plain, l3_offset, family, overhead, sum, source, spread_mask, mtu, packet_max };
        template.with_mtu(mtu)
    }

    /// Bytes that the tunnel adds to the IP packet.
    pub fn overhead(&self) -> usize {
        usize::from(self.overhead)
    }

    /// The longest IP packet that is carried whole, in bytes.
    pub fn packet_max(&self) -> u16 {
        self.packet_max as u16
    }

    /// Longest IP packet that leaves, outer header included, in bytes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The same for a path with another MTU.
    pub fn with_mtu(&self, mtu: u16) -> Template {
        Template { mtu, packet_max: mtu.saturating_sub(self.overhead.into()).into(), ..self.clone() }
    }

    /// Where the outermost IP header is in a frame that has this header in front, in bytes.
    pub fn ip_offset(&self) -> usize {
        usize::from(self.l3_offset) + if self.kind == Kind::Mpls { LABEL } else { 0 }
    }

    /// Whether that is the tunnel's own, not the client's.
    pub fn has_outer_ip(&self) -> bool {
        !matches!(self.kind, Kind::Mpls | Kind::Mac)
    }

    /// Puts the header in the place of everything in front of the packet's IP header, and cuts off what is behind it.
    ///
    /// The IP packet itself is not touched. On error the buffer is unchanged.
    pub fn encapsulate<B: PacketBuffer>(
        &self,
        packet: &mut B,
        inner: &Parsed,
        per: PerPacket,
    ) -> Result<(), EncapsulateError> {
        if inner.l3_len > self.packet_max {
            return Err(EncapsulateError::TooBig);
        }
        self.put_in_front(packet, &Inner::of(inner, per.ttl), per.flow_hash, per.identification)
    }

    /// The same, with what [`PerPacket`] says besides the TTL.
    #[inline(always)]
    pub fn put_in_front<B: PacketBuffer>(
        &self,
        packet: &mut B,
        inner: &Inner,
        flow_hash: u64,
        identification: u16,
    ) -> Result<(), EncapsulateError> {
        if inner.bytes() > self.packet_max {
            return Err(EncapsulateError::TooBig);
        }
        let from = usize::from(inner.l3_offset);
        let end = from + inner.bytes() as usize;
        if packet.frame_len() > end {
            packet.truncate(end);
        }
        // By far the most common one, in line.
        if self.is_plain {
            let (ip, _) = split::<IPV4, 0>(self.put(packet, from, ETHERNET + IPV4)?, ETHERNET)?;
            self.fill_v4(ip, inner, 0, inner.third, flow_hash, identification);
            return Ok(());
        }
        self.put_otherwise(packet, inner, flow_hash, identification)
    }

    /// Goes on with every other kind of template. What it is told it is told one by one: else the common kind would store
    /// it, too.
    #[inline(never)]
    fn put_otherwise<B: PacketBuffer>(
        &self,
        packet: &mut B,
        inner: &Inner,
        flow_hash: u64,
        identification: u16,
    ) -> Result<(), EncapsulateError> {
        let per = (flow_hash, identification);
        match self.kind {
            Kind::IpIp => self.put_ip::<_, 0>(packet, inner, inner.protocol(), per).map(|_| ()),
            Kind::Gue => self.put_udp::<_, { UDP + shim::GUE_LEN }>(packet, inner, per),
            Kind::GueDirect => self.put_udp::<_, UDP>(packet, inner, per),
            Kind::Gre => self.put_gre(packet, inner, per),
            Kind::Mpls => self.put_label(packet, inner),
            Kind::Mac => self.put_link(packet, inner),
        }
    }

    #[inline]
    fn is_tagged(&self) -> bool {
        usize::from(self.l3_offset) > ETHERNET
    }

    /// Copies the first `len` bytes of the template in front of what is `from` bytes into the packet, and returns them.
    #[inline(always)]
    fn put<'p, B: PacketBuffer>(
        &self,
        packet: &'p mut B,
        from: usize,
        len: usize,
    ) -> Result<&'p mut [u8], EncapsulateError> {
        let header = packet.replace_front(from, len).ok_or(EncapsulateError::NoHeadroom)?;
        header.copy_from_slice(&self.bytes[..len]);
        Ok(header)
    }

    /// Puts a template with an outer IP header, and fills that in. Returns the `SHIM` bytes behind it.
    #[inline(always)]
    fn put_ip<'p, B: PacketBuffer, const SHIM: usize>(
        &self,
        packet: &'p mut B,
        inner: &Inner,
        protocol: u8,
        (flow_hash, identification): (u64, u16),
    ) -> Result<&'p mut [u8; SHIM], EncapsulateError> {
        let from = usize::from(inner.l3_offset);
        // A tag or none, one family or the other: for each the compiler knows all lengths, and copies with wide stores.
        match (self.family, self.is_tagged()) {
            (Family::V4, false) => {
                let (ip, shim) = split(self.put(packet, from, ETHERNET + IPV4 + SHIM)?, ETHERNET)?;
                self.fill_v4(ip, inner, SHIM, third(inner.ttl(), protocol), flow_hash, identification);
                Ok(shim)
            }
            (Family::V4, true) => {
                let (ip, shim) = split(self.put(packet, from, TAGGED + IPV4 + SHIM)?, TAGGED)?;
                self.fill_v4(ip, inner, SHIM, third(inner.ttl(), protocol), flow_hash, identification);
                Ok(shim)
            }
            (Family::V6, false) => {
                let (ip, shim) = split(self.put(packet, from, ETHERNET + IPV6 + SHIM)?, ETHERNET)?;
                self.fill_v6(ip, inner, SHIM, protocol, flow_hash);
                Ok(shim)
            }
            (Family::V6, true) => {
                let (ip, shim) = split(self.put(packet, from, TAGGED + IPV6 + SHIM)?, TAGGED)?;
                self.fill_v6(ip, inner, SHIM, protocol, flow_hash);
                Ok(shim)
            }
        }
    }

    #[inline(never)]
    fn put_udp<B: PacketBuffer, const SHIM: usize>(
        &self,
        packet: &mut B,
        inner: &Inner,
        (flow_hash, identification): (u64, u16),
    ) -> Result<(), EncapsulateError> {
        let shim: &mut [u8; SHIM] = self.put_ip(packet, inner, protocol::UDP, (flow_hash, identification))?;
        if let [s0, s1, _, _, l0, l1, _, _, gue @ ..] = shim.as_mut_slice() {
            [*s0, *s1] = shim::source_port(flow_hash).to_be_bytes();
            [*l0, *l1] = (inner.bytes() as u16 + SHIM as u16).to_be_bytes();
            if let [_, protocol, ..] = gue {
                *protocol = inner.protocol();
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn put_gre<B: PacketBuffer>(&self, packet: &mut B, inner: &Inner, per: (u64, u16)) -> Result<(), EncapsulateError> {
        *self.put_ip(packet, inner, protocol::GRE, per)? = shim::gre(inner.ethertype());
        Ok(())
    }

    #[inline(never)]
    fn put_label<B: PacketBuffer>(&self, packet: &mut B, inner: &Inner) -> Result<(), EncapsulateError> {
        let len = if self.is_tagged() { TAGGED } else { ETHERNET } + LABEL;
        if let Some([.., class_bottom, ttl]) = self.put(packet, inner.l3_offset.into(), len)?.last_chunk_mut::<LABEL>()
        {
            *class_bottom |= shim::label_class(inner.class());
            *ttl = inner.ttl();
        }
        Ok(())
    }

    #[inline(never)]
    fn put_link<B: PacketBuffer>(&self, packet: &mut B, inner: &Inner) -> Result<(), EncapsulateError> {
        let len = if self.is_tagged() { TAGGED } else { ETHERNET };
        if let Some(ethertype) = self.put(packet, inner.l3_offset.into(), len)?.last_chunk_mut() {
            *ethertype = inner.ethertype().to_be_bytes();
        }
        Ok(())
    }

    #[inline(always)]
    fn fill_v4(
        &self,
        ip: &mut [u8; IPV4],
        inner: &Inner,
        shim: usize,
        third: u32,
        flow_hash: u64,
        identification: u16,
    ) {
        // The length grows, and by what the template's longest packet allows for: class and version stay.
        let first = inner.first + (IPV4 + shim) as u32;
        // RFC 6864 section 4.1: the identification of an atomic datagram has no meaning.
        let second = if inner.dont_fragment() { DONT_FRAGMENT.into() } else { u32::from(identification) << 16 };
        let spread = (flow_hash & self.spread_mask) as u32;
        let sum = [first, second, third, spread].into_iter().map(u64::from).sum::<u64>();
        let third = third | u32::from(!checksum::fold_u64(self.sum + sum));
        let source = self.source as u32 | spread;
        for (field, word) in ip.as_chunks_mut().0.iter_mut().zip([first, second, third, source]) {
            *field = word.to_be_bytes();
        }
    }

    #[inline]
    fn fill_v6(&self, ip: &mut [u8; IPV6], inner: &Inner, shim: usize, protocol: u8, flow_hash: u64) {
        let label = (flow_hash >> 44) as u32;
        ip[..4].copy_from_slice(&(0x6000_0000 | u32::from(inner.class()) << 20 | label).to_be_bytes());
        ip[4..6].copy_from_slice(&(inner.bytes() as u16 + shim as u16).to_be_bytes());
        ip[6] = protocol;
        ip[7] = inner.ttl();
        // Into the low half of the source.
        let spread = flow_hash & self.spread_mask;
        ip[16..24].copy_from_slice(&(self.source | spread).to_be_bytes());
    }
}

/// The outer IP header, which starts `l3` bytes into `header`, and what follows it.
#[inline(always)]
fn split<const IP: usize, const SHIM: usize>(
    header: &mut [u8],
    l3: usize,
) -> Result<(&mut [u8; IP], &mut [u8; SHIM]), EncapsulateError> {
    let split = header.get_mut(l3..).and_then(|ip| ip.split_first_chunk_mut());
    split.and_then(|(ip, shim)| Some((ip, shim.first_chunk_mut()?))).ok_or(EncapsulateError::NoHeadroom)
}

#[cfg(test)]
mod tests;
