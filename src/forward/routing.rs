//! What a router does with packets for no service, where it forwards them: another link layer, a TTL less one.

use super::io::PacketIo;
use super::pipeline::Pipeline;
use super::punt::Cause;
use super::routes::{Way, may_pass};
use super::too_long::may_be_cut;
use super::verdict::{PuntReason, Refusal};
use super::work::{Arrival, End, Work};
use crate::packet::buffer::PacketBuffer;
use crate::packet::checksum;
use crate::packet::parse::{Family, Parsed};
use crate::units::PortIndex;

impl<I: PacketIo> Pipeline<I> {
    /// Forwards a packet for no service, or ends it.
    pub(super) fn route(&mut self, io: &mut I, arrival: Arrival<'_>, mut packet: I::Packet, work: &Work) {
        match self.onward(arrival, &mut packet, work) {
            Ok(port) => self.push(io, port, packet),
            Err(End::TooLong(path, target)) => self.too_long(io, arrival, packet, work, path, target),
            Err(end) => self.end(arrival.port, &packet, end),
        }
    }

    fn onward(&mut self, arrival: Arrival<'_>, packet: &mut I::Packet, work: &Work) -> Result<PortIndex, End> {
        let (tables, parsed, head) = (arrival.tables, &work.parsed(), packet.head());
        // Out of a parent's tunnel come packets for services, or wrong ones.
        let routes = tables.routes.as_ref().filter(|_| parsed.l3_offset > 0).ok_or(Refusal::NoVirtualHost)?;
        let (source, destination) = (parsed.source(head), parsed.destination(head));
        if routes.macs.get(arrival.port.index()).is_none_or(|mac| !head.starts_with(&mac.0)) {
            return Err(Refusal::OtherStation.into());
        }
        // A service's address that the service does not take: there is nowhere else to look for it.
        if tables.index.covers(destination) {
            return Err(Refusal::NoVirtualHost.into());
        }
        if !may_pass(source, destination) {
            return Err(Refusal::NotRoutable.into());
        }
        let punt = |reason| End::Punt(Cause::from(reason));
        if !has_ttl_left(head, parsed) {
            return Err(punt(PuntReason::TtlExceeded));
        }
        let path_id = match routes.ways.find(destination) {
            Some(Way::Path(path)) => path,
            Some(Way::Unresolved) => return Err(punt(PuntReason::NoNeighbour)),
            Some(Way::Nobody) => return Err(Refusal::NotRoutable.into()),
            None => return Err(punt(PuntReason::NoRoute)),
        };
        let path = &tables.paths[path_id.index()];
        if parsed.l3_len > u32::from(path.template.packet_max()) {
            // Its sender is told of the packet as it was; its pieces are forwarded.
            if may_be_cut(head, parsed, path) {
                decrement_ttl(packet.head_mut(), parsed);
            }
            return Err(End::TooLong(path_id, None));
        }
        decrement_ttl(packet.head_mut(), parsed);
        path.template.encapsulate(packet, parsed, self.per_packet(work)).map_err(|_| Refusal::NoHeadroom)?;
        self.counters.routed.add(1);
        Ok(path.port)
    }
}

/// Where the TTL or hop limit is in the head of a packet.
fn ttl_offset(parsed: &Parsed) -> usize {
    usize::from(parsed.l3_offset) + if parsed.family == Family::V4 { 8 } else { 7 }
}

fn has_ttl_left(head: &[u8], parsed: &Parsed) -> bool {
    head.get(ttl_offset(parsed)).is_some_and(|ttl| *ttl > 1)
}

/// Takes one off the TTL or hop limit, which must not be zero.
fn decrement_ttl(head: &mut [u8], parsed: &Parsed) {
    let at = ttl_offset(parsed);
    match (parsed.family, head.get_mut(at..at + 4)) {
        (Family::V4, Some([ttl, protocol, sum @ ..])) => {
            let before = u16::from_be_bytes([*ttl, *protocol]);
            *ttl = ttl.wrapping_sub(1);
            let after = u16::from_be_bytes([*ttl, *protocol]);
            let updated = checksum::update_u16(u16::from_be_bytes([sum[0], sum[1]]), before, after);
            sum.copy_from_slice(&updated.to_be_bytes());
        }
        (Family::V6, Some([hops, ..])) => *hops = hops.wrapping_sub(1),
        _ => {}
    }
}
