//! What a packet is when it arrives: one to look up, one for the slow path, or none; and the first step of a burst.

use super::io::PacketIo;
use super::pipeline::Pipeline;
use super::tables::{ForwardTables, NO_PATH};
use super::verdict::{PuntReason, Refusal};
use super::work::{Arrival, End, What, Work};
use crate::flow::key::{FlowKey, KeyV4, KeyV6, WORDS_MAX, Words};
use crate::flow::memory::Memory;
use crate::flow::table::{FlowHash, Table};
use crate::packet::buffer::PacketBuffer;
use crate::packet::parse::{Family, Frame, Parsed, parse};
use crate::packet::plain::{self, Plain};
use crate::packet::protocol::ICMPV6;
use crate::tunnel::decapsulate::{DecapsulateError, Decapsulated, decapsulate, is_tunnel};
use crate::tunnel::template::TTL;

/// ICMPv6 types of neighbour discovery, router solicitation to redirect (RFC 4861 section 4).
const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

impl<I: PacketIo> Pipeline<I> {
    /// Decides whether a packet is one to look up, and how: says so in `work`.
    #[inline(always)]
    pub(super) fn admit(&self, arrival: Arrival<'_>, packet: &mut I::Packet, work: &mut Work) {
        let head = packet.head();
        match plain::read_frame(head, packet.frame_len()) {
            Some(plain) if !may_be_ours(arrival.tables, head, &plain.parsed) => {
                self.look_up(head, &plain.parsed, work);
                work.begin(&plain, TTL);
            }
            _ => {
                if let Err(end) = self.admit_other(arrival.tables, packet, work) {
                    self.end(arrival.port, packet, end);
                    (work.what, work.path) = (What::Ended, NO_PATH);
                }
            }
        }
    }

    /// The same for every other packet.
    #[inline(never)]
    fn admit_other(&self, tables: &ForwardTables, packet: &mut I::Packet, work: &mut Work) -> Result<(), End> {
        let (head, len) = (packet.head(), packet.frame_len());
        let Some(plain) = plain::read_frame(head, len).or_else(|| plain::read_tagged_frame(head, len)) else {
            return self.admit_odd(tables, packet, work);
        };
        if is_ours(tables, packet, &plain.parsed) {
            return self.admit_inner(tables, packet, &plain.parsed, work);
        }
        self.look_up(head, &plain.parsed, work);
        work.begin(&plain, TTL);
        Ok(())
    }

    /// The same for what is not read the short way.
    #[inline(never)]
    fn admit_odd(&self, tables: &ForwardTables, packet: &mut I::Packet, work: &mut Work) -> Result<(), End> {
        let frame = parse(packet.head(), packet.frame_len());
        let parsed = match &frame {
            Ok(Frame::Ip(parsed)) => parsed,
            Ok(Frame::Arp) => return Err(End::Punt(PuntReason::Arp.into())),
            Err(error) => return Err(End::from(*error)),
        };
        if is_ours(tables, packet, parsed) {
            return self.admit_inner(tables, packet, parsed, work);
        }
        if parsed.protocol == ICMPV6 && is_neighbour_discovery(packet.head(), parsed) {
            return Err(End::Punt(PuntReason::NeighbourDiscovery.into()));
        }
        self.look_up(packet.head(), parsed, work);
        work.begin_otherwise(&Plain::of(field_by_field(parsed)), TTL);
        Ok(())
    }

    /// The same for what is in a packet for one of our own addresses.
    #[inline(always)]
    fn admit_inner(
        &self,
        tables: &ForwardTables,
        packet: &mut I::Packet,
        outer: &Parsed,
        work: &mut Work,
    ) -> Result<(), End> {
        let (inner, ttl) = leave_tunnel(tables, packet, outer)?;
        self.look_up(packet.head(), &inner.parsed, work);
        work.begin_otherwise(&inner, ttl);
        Ok(())
    }

    /// Hashes a packet's key, keeps both for the next steps, and asks for the group that its flow is in.
    #[inline(always)]
    fn look_up(&self, head: &[u8], parsed: &Parsed, work: &mut Work) {
        work.hash = match parsed.family {
            Family::V4 => prepare(&self.v4.flows, KeyV4::words_of(head, parsed), &mut work.key),
            Family::V6 => prepare(&self.v6.flows, KeyV6::words_of(head, parsed), &mut work.key),
        };
    }
}

#[inline(always)]
fn prepare<K: FlowKey, M: Memory>(flows: &Table<K, M>, words: K::Words, key: &mut [u64; WORDS_MAX]) -> FlowHash {
    words.save(key);
    let hash = flows.hash_words(&words);
    flows.prefetch_group(hash);
    hash
}

/// A copy. Copied whole, the fields would be loaded two to four at a time right after they were stored one by one, which
/// stalls; like this they stay in registers.
#[inline(always)]
fn field_by_field(parsed: &Parsed) -> Parsed {
    Parsed {
        l3_offset: parsed.l3_offset,
        l4_offset: parsed.l4_offset,
        l3_len: parsed.l3_len,
        family: parsed.family,
        protocol: parsed.protocol,
        tcp_flags: parsed.tcp_flags,
        ports: parsed.ports,
        fragment: parsed.fragment,
        traffic_class: parsed.traffic_class,
        dont_fragment: parsed.dont_fragment,
    }
}

/// False only for packets that are for none of our own addresses, and for most of those.
#[inline(always)]
fn may_be_ours(tables: &ForwardTables, head: &[u8], parsed: &Parsed) -> bool {
    match parsed.family {
        Family::V4 => tables.own.may_contain(&KeyV4::of(head, parsed).destination),
        Family::V6 => tables.own.may_contain(&KeyV6::of(head, parsed).destination),
    }
}

/// Whether a packet is for one of our own addresses.
#[inline(always)]
fn is_ours<P: PacketBuffer>(tables: &ForwardTables, packet: &P, parsed: &Parsed) -> bool {
    match parsed.family {
        Family::V4 => tables.own.contains_v4(&KeyV4::of(packet.head(), parsed).destination),
        Family::V6 => tables.own.contains_v6(&KeyV6::of(packet.head(), parsed).destination),
    }
}

/// Whether an ICMPv6 packet from the wire is neighbour discovery. Its hop limit says that it comes from the link itself
/// (RFC 4861 section 6.1, 7.1): from farther away it is a packet like any other.
fn is_neighbour_discovery(head: &[u8], parsed: &Parsed) -> bool {
    let hop_limit = head.get(usize::from(parsed.l3_offset) + 7);
    let kind = head.get(usize::from(parsed.l4_offset));
    !parsed.is_fragment() && hop_limit == Some(&255) && kind.is_some_and(|kind| NEIGHBOUR_DISCOVERY.contains(kind))
}

/// Takes a parent's tunnel header off a packet for one of our own addresses: what is in it, and the TTL it has left.
#[inline(always)]
fn leave_tunnel<P: PacketBuffer>(tables: &ForwardTables, packet: &mut P, outer: &Parsed) -> Result<(Plain, u8), End> {
    if !is_tunnel(outer, tables.gue_port) {
        return Err(End::Punt(PuntReason::OwnAddress.into()));
    }
    let outer_source = outer.source(packet.head());
    if !tables.parents.contain(outer_source) {
        return Err(Refusal::TunnelStranger.into());
    }
    let Decapsulated { inner, outer_ttl } = decapsulate(packet, outer).map_err(|error| match error {
        DecapsulateError::Ecn => End::from(Refusal::TunnelEcn),
        DecapsulateError::Fragment => End::from(Refusal::TunnelFragment),
        DecapsulateError::Header => End::from(Refusal::TunnelHeader),
        DecapsulateError::Checksum => End::from(Refusal::TunnelChecksum),
        DecapsulateError::Inner(error) => End::from(error),
    })?;
    let parsed = &inner.parsed;
    let spoofed = match parsed.family {
        Family::V4 => tables.own.contains_v4(&KeyV4::of(packet.head(), parsed).source),
        Family::V6 => tables.own.contains_v6(&KeyV6::of(packet.head(), parsed).source),
    };
    if spoofed {
        return Err(Refusal::TunnelSpoofed.into());
    }
    if is_ours(tables, packet, parsed) {
        let nested = is_tunnel(parsed, tables.gue_port);
        return Err(if nested {
            Refusal::TunnelNested.into()
        } else {
            End::Punt(PuntReason::OwnAddressInTunnel.into())
        });
    }
    if outer_ttl <= 1 {
        return Err(Refusal::TtlExceeded.into());
    }
    Ok((inner, outer_ttl - 1))
}
