//! The packets that need more than their flow's entry: fragments, ICMP, and those too long for their path.

use zerocopy::FromZeros;

use super::fragments::{DatagramId, Fate, Step, Way};
use super::icmp_errors;
use super::inspect::Key;
use super::io::PacketIo;
use super::pipeline::{FamilyTables, Pipeline};
use super::punt::Cause;
use super::verdict::{DropReason, PuntReason, Refusal};
use super::visit::Visit;
use super::work::{Arrival, End, Held, Work};
use crate::flow::key::{FlowKey, KeyV4, KeyV6};
use crate::flow::memory::Memory;
use crate::packet::buffer::PacketBuffer;
use crate::packet::fragment::Piece;
use crate::packet::icmp::{V4_ECHO_REQUEST, V6_ECHO_REQUEST, is_recovery_reply};
use crate::packet::parse::{Family, Fragment};
use crate::packet::protocol::{ICMP, ICMPV6};
use crate::units::TargetId;

/// What a first fragment tells.
struct First {
    /// Where it goes.
    target: Result<TargetId, End>,
    /// The record of its datagram, where there is room for one, and what becomes of the other fragments.
    datagram: Option<(DatagramId, Fate)>,
}

impl<I: PacketIo> Pipeline<I> {
    /// Carries a packet that is a fragment or ICMP.
    #[cold]
    #[inline(never)]
    pub(super) fn carry_rare(&mut self, io: &mut I, arrival: Arrival<'_>, packet: I::Packet, work: &Work) {
        match work.parsed().fragment {
            Fragment::None if icmp_errors::error(packet.head(), &work.parsed()).is_some() => {
                let head = packet.head();
                let visit = Visit::new(arrival, (&self.counters, &self.inserts, &self.new_flows), work, head);
                let target = match work.inner.family() {
                    Family::V4 => visit.rare_target(&mut self.v4, KeyV4::of(head, &work.parsed())),
                    Family::V6 => visit.rare_target(&mut self.v6, KeyV6::of(head, &work.parsed())),
                };
                self.carry_to(io, arrival, packet, work, target);
            }
            Fragment::None if is_echo_for_us(arrival, packet.head(), work) => {
                let bare = work.inner.l3_offset == 0;
                let cause = Cause { bare, ..PuntReason::VirtualHostEcho.into() };
                self.end(arrival.port, &packet, End::Punt(cause));
            }
            Fragment::None if is_recovery_echo(arrival, packet.head(), work) => {
                let bare = work.inner.l3_offset == 0;
                self.end(arrival.port, &packet, End::Punt(Cause { bare, ..PuntReason::RecoveryEcho.into() }));
            }
            Fragment::None => {
                let target = self.target(arrival, &packet, work, None);
                self.carry_to(io, arrival, packet, work, target.map_err(End::from));
            }
            Fragment::First { id } => self.carry_first(io, arrival, packet, work, id),
            Fragment::Later { id } => self.carry_later(io, arrival, packet, work, id),
        }
    }

    /// Carries the first fragment of a datagram, and those behind it that have come before it.
    fn carry_first(&mut self, io: &mut I, arrival: Arrival<'_>, packet: I::Packet, work: &Work, id: u32) {
        let (family, head) = (work.inner.family(), packet.head());
        let visit = Visit::new(arrival, (&self.counters, &self.inserts, &self.new_flows), work, head);
        let first = match family {
            Family::V4 => visit.first(&mut self.v4, KeyV4::of(head, &work.parsed()), id),
            Family::V6 => visit.first(&mut self.v6, KeyV6::of(head, &work.parsed()), id),
        };
        let First { target, datagram } = match first {
            Ok(first) => first,
            Err(refusal) => return self.end(arrival.port, &packet, refusal.into()),
        };
        self.carry_to(io, arrival, packet, work, target);
        let Some((datagram, fate)) = datagram else { return };
        while let Some(Held { packet, work, port }) = self.release(family, datagram) {
            self.carry_like(io, Arrival { port, ..arrival }, packet, &work, fate);
        }
        match family {
            Family::V4 => self.v4.fragments.close(datagram),
            Family::V6 => self.v6.fragments.close(datagram),
        }
    }

    fn release(&mut self, family: Family, datagram: DatagramId) -> Option<Held<I::Packet>> {
        match family {
            Family::V4 => self.v4.fragments.release(&self.counters, datagram),
            Family::V6 => self.v6.fragments.release(&self.counters, datagram),
        }
    }

    /// Carries another fragment of a datagram, or holds it.
    fn carry_later(&mut self, io: &mut I, arrival: Arrival<'_>, packet: I::Packet, work: &Work, id: u32) {
        let head = packet.head();
        let visit = Visit::new(arrival, (&self.counters, &self.inserts, &self.new_flows), work, head);
        let step = match work.inner.family() {
            Family::V4 => visit.later(&mut self.v4, KeyV4::of(head, &work.parsed()), id),
            Family::V6 => visit.later(&mut self.v6, KeyV6::of(head, &work.parsed()), id),
        };
        match step {
            Ok(Step::Follow(fate)) => self.carry_like(io, arrival, packet, work, fate),
            Ok(Step::Hold(datagram)) => {
                let held = Held { packet, work: work.clone(), port: arrival.port };
                let back = match work.inner.family() {
                    Family::V4 => self.v4.fragments.hold(&self.counters, datagram, held),
                    Family::V6 => self.v6.fragments.hold(&self.counters, datagram, held),
                };
                if let Err(held) = back {
                    self.end(arrival.port, &held.packet, Refusal::FragmentNoRoom.into());
                }
            }
            Err(refusal) => self.turn_away(io, arrival, packet, work, refusal.into()),
        }
    }

    /// Carries a fragment the way of its first one.
    fn carry_like(&mut self, io: &mut I, arrival: Arrival<'_>, packet: I::Packet, work: &Work, fate: Fate) {
        match fate {
            Ok(Way { target, hash }) => {
                let mut work = work.clone();
                work.hash = hash;
                self.carry_to(io, arrival, packet, &work, Ok(target));
            }
            Err(refusal) => self.end(arrival.port, &packet, refusal.into()),
        }
    }

    pub(super) fn carry_to(
        &mut self,
        io: &mut I,
        arrival: Arrival<'_>,
        mut packet: I::Packet,
        work: &Work,
        target: Result<TargetId, End>,
    ) {
        let carried = target.and_then(|id| self.encapsulate(arrival.tables, &mut packet, work, id));
        match carried {
            Ok(port) => self.push(io, port, packet),
            Err(end) => self.turn_away(io, arrival, packet, work, end),
        }
    }

    /// Ends a packet that is not simply forwarded.
    #[cold]
    #[inline(never)]
    pub(super) fn turn_away(&mut self, io: &mut I, arrival: Arrival<'_>, packet: I::Packet, work: &Work, end: End) {
        match end {
            End::Drop(DropReason::Refused(Refusal::NoVirtualHost)) if arrival.tables.routes.is_some() => {
                self.route(io, arrival, packet, work);
            }
            End::Drop(DropReason::Refused(Refusal::IcmpErrorUnknownFlow)) => {
                self.end(arrival.port, &packet, self.ask_elsewhere(work));
            }
            End::Drop(DropReason::Refused(Refusal::UnknownFlow)) => self.carry_stray(io, arrival, packet, work),
            End::TooLong(path, target) => self.too_long(io, arrival, packet, work, path, target),
            end => self.end(arrival.port, &packet, end),
        }
    }
}

/// Whether it is an echo request for a virtual host in whose place we answer.
fn is_echo_for_us(arrival: Arrival<'_>, head: &[u8], work: &Work) -> bool {
    let parsed = &work.parsed();
    let request = match (parsed.family, parsed.protocol) {
        (Family::V4, ICMP) => V4_ECHO_REQUEST,
        (Family::V6, ICMPV6) => V6_ECHO_REQUEST,
        _ => return false,
    };
    head.get(usize::from(parsed.l4_offset)) == Some(&request)
        && arrival.tables.echo.find(parsed.destination(head)) == Some(true)
}

/// Whether it answers a recovery echo of one of our virtual hosts' servers.
fn is_recovery_echo(arrival: Arrival<'_>, head: &[u8], work: &Work) -> bool {
    let parsed = &work.parsed();
    arrival.tables.takes_recovery_echoes
        && matches!((parsed.family, parsed.protocol), (Family::V4, ICMP) | (Family::V6, ICMPV6))
        && head.get(usize::from(parsed.l4_offset)..).is_some_and(|message| is_recovery_reply(parsed.family, message))
        && arrival.tables.index.covers(parsed.destination(head))
}

impl Visit<'_> {
    /// The target of a packet that may be an ICMP error.
    fn rare_target<K: FlowKey + FromZeros + Into<Key>, M: Memory, P>(
        &self,
        family: &mut FamilyTables<K, M, P>,
        key: K,
    ) -> Result<TargetId, End> {
        match icmp_errors::error(self.head, &self.parsed) {
            None => Ok(self.target(&mut family.flows)?),
            Some(error) => {
                let owner = self.owner(&family.flows, key, error)?;
                self.counters.icmp_errors.add(1);
                Ok(owner)
            }
        }
    }

    /// Looks at a first fragment; an error where it does not fit to what has been seen of its datagram.
    fn first<K: FlowKey + FromZeros + Into<Key>, M: Memory, P>(
        &self,
        family: &mut FamilyTables<K, M, P>,
        key: K,
        id: u32,
    ) -> Result<First, Refusal> {
        if !self.tables.index.covers(key.destination()) {
            return Ok(First { target: self.rare_target(family, key), datagram: None });
        }
        let piece = Piece::of(self.head, &self.parsed).ok_or(Refusal::FragmentBeyondEnd)?;
        let fragments = &mut family.fragments;
        let datagram = match fragments.first(self.counters, key.datagram(id), piece, self.now, &self.tables.timeouts) {
            Ok(datagram) => Some(datagram),
            // Those behind it will not find it; it can still go.
            Err(Refusal::FragmentNoRoom) => None,
            Err(refusal) => return Err(refusal),
        };
        let target = self.rare_target(family, key);
        let fate = match &target {
            Ok(target) => Ok(Way { target: *target, hash: self.work.hash }),
            Err(End::Drop(DropReason::Refused(refusal))) => Err(*refusal),
            Err(_) => Err(Refusal::NoVirtualHost),
        };
        let Some(datagram) = datagram else { return Ok(First { target, datagram: None }) };
        if fate.is_ok_and(|way| !self.is_open(way.target)) {
            family.fragments.retract(self.counters, datagram, piece);
            return Ok(First { target, datagram: None });
        }
        family.fragments.settle(datagram, fate, self.now);
        Ok(First { target, datagram: Some((datagram, fate)) })
    }

    fn later<K: FlowKey + FromZeros, M: Memory, P>(
        &self,
        family: &mut FamilyTables<K, M, P>,
        key: K,
        id: u32,
    ) -> Result<Step, Refusal> {
        // What is for no virtual host is not worth a place.
        if !self.tables.index.covers(key.destination()) {
            return Err(Refusal::NoVirtualHost);
        }
        let piece = Piece::of(self.head, &self.parsed).ok_or(Refusal::FragmentBeyondEnd)?;
        let (key, timeouts) = (key.datagram(id), &self.tables.timeouts);
        family.fragments.later(self.counters, key, piece, self.now, timeouts, |target| self.is_open(target))
    }

    /// Whether packets to a target do not have to wait for its next hop.
    fn is_open(&self, target: TargetId) -> bool {
        self.tables.targets[target.index()].path().is_some()
    }
}
