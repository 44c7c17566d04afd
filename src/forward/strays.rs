//! What becomes of packets in the middle of TCP connections that this worker does not know, and of what the slow path has
//! found out about them.
//!
//! ```text
//!                           ask elsewhere? ── yes, and the ring has room ──► slow path ──► Install, Walk
//! packet without SYN ─────►      │ no                   │ no room
//!                                ▼                      ▼
//!                     select: child, entry      select: child by hash, no entry
//!                     drop, reset: dropped      drop, reset: dropped
//! ```

use super::io::PacketIo;
use super::pipeline::Pipeline;
use super::punt::{Cause, Install, Stray};
use super::tables::{ForwardTables, VirtualHost};
use super::verdict::{PuntReason, Refusal};
use super::visit::Visit;
use super::work::{Arrival, End, Work};
use crate::clock::{Instant, Tick};
use crate::flow::key::{FlowKey, KeyV4, KeyV6};
use crate::flow::memory::Memory;
use crate::flow::table::Table;
use crate::forward::inspect::Key;
use crate::packet::buffer::PacketBuffer;
use crate::packet::parse::Family;
use crate::service::selection::Granularity;
use crate::service::unknown::OnUnknown;
use crate::units::TargetId;

impl<I: PacketIo> Pipeline<I> {
    /// Ends, or carries, a packet in the middle of a flow that this worker does not know.
    #[cold]
    #[inline(never)]
    pub(super) fn carry_stray(&mut self, io: &mut I, arrival: Arrival<'_>, packet: I::Packet, work: &Work) {
        let head = packet.head();
        let visit = Visit::new(arrival, (&self.counters, &self.inserts, &self.new_flows), work, head);
        let policy = match work.inner.family() {
            Family::V4 => visit.policy(&KeyV4::of(head, &work.parsed())),
            Family::V6 => visit.policy(&KeyV6::of(head, &work.parsed())),
        };
        let selects = policy == Some(OnUnknown::Select);
        let asks = self.punts.is_read() && (arrival.tables.asks_elsewhere || policy == Some(OnUnknown::Reset));
        let stray = match self.again.stray {
            Stray::Ask if asks && !(selects && self.punts.is_half_full()) => {
                let cause = Cause { bare: work.inner.l3_offset == 0, ..PuntReason::FlowElsewhere.into() };
                return self.end(arrival.port, &packet, End::Punt(cause));
            }
            Stray::Ask if asks => Stray::Pass,
            Stray::Ask => Stray::Keep,
            Stray::Goes(target) if target.index() < arrival.tables.targets.len() => {
                return self.carry_to(io, arrival, packet, work, Ok(target));
            }
            told => told,
        };
        if !selects {
            return self.end(arrival.port, &packet, Refusal::UnknownFlow.into());
        }
        let target = match work.inner.family() {
            Family::V4 => visit.settle(&mut self.v4.flows, KeyV4::of(head, &work.parsed()), stray),
            Family::V6 => visit.settle(&mut self.v6.flows, KeyV6::of(head, &work.parsed()), stray),
        };
        self.carry_to(io, arrival, packet, work, target.map_err(End::from));
    }

    /// Makes a flow entry that the slow path wants. One for which there is no room is not made.
    #[cold]
    pub fn install(&mut self, tables: &ForwardTables, now: Instant, install: Install) {
        // An order may come in after the snapshot that it was given by.
        if tables.targets.get(install.target.index()).is_none() {
            return;
        }
        let made = match install.key {
            Key::V4(key) => make(&mut self.v4.flows, key, install, (tables, now.tick())),
            Key::V6(key) => make(&mut self.v6.flows, key, install, (tables, now.tick())),
        };
        if made {
            self.counters.flows_installed.add(1);
        }
    }

    /// Forgets all flows: what a worker knows after it has been started anew.
    #[cold]
    pub fn forget(&mut self) {
        self.v4.flows.clear();
        self.v6.flows.clear();
    }
}

/// Whether the entry is there as it was wanted.
fn make<K: FlowKey, M: Memory>(
    flows: &mut Table<K, M>,
    key: K,
    Install { target, state, replaces, .. }: Install,
    (tables, now): (&ForwardTables, Tick),
) -> bool {
    let hash = flows.hash(&key);
    if let Some(slot) = flows.find_live(hash, &key, now, &tables.timeouts) {
        let record = flows.record_mut(slot);
        if replaces {
            record.redirect(target);
        }
        return replaces;
    }
    match flows.vacancy(hash, now, &tables.timeouts) {
        Ok(vacancy) => {
            flows.fill(vacancy, hash, key, target, state, now);
            true
        }
        Err(_) => false,
    }
}

impl Visit<'_> {
    /// The target of a packet in the middle of a flow that is not to be opened by it, where its client has one.
    #[cold]
    #[inline(never)]
    pub(super) fn stray<K: FlowKey, M: Memory>(
        &self,
        flows: &mut Table<K, M>,
        key: K,
        host: &VirtualHost,
    ) -> Result<TargetId, Refusal> {
        let Granularity::Source { v4, v6 } = host.granularity else { return Err(Refusal::UnknownFlow) };
        let key = key.coarse(host.number, if self.parsed.family == Family::V4 { v4 } else { v6 });
        let hash = flows.hash(&key);
        self.follow::<K, M>(flows, hash, &key.words()).ok_or(Refusal::UnknownFlow)
    }

    /// What the virtual host of a packet does with those in the middle of flows that are not known.
    fn policy<K: FlowKey>(&self, key: &K) -> Option<OnUnknown> {
        self.virtual_host(key)?.on_unknown
    }

    fn settle<K: FlowKey + Into<Key>, M: Memory>(
        &self,
        flows: &mut Table<K, M>,
        key: K,
        stray: Stray,
    ) -> Result<TargetId, Refusal> {
        let host = self.virtual_host(&key).ok_or(Refusal::NoVirtualHost)?;
        self.choose(flows, key.words(), host, stray == Stray::Pass)
    }
}
