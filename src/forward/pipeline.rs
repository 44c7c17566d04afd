//! The walk of a packet: what a worker does with each burst, and the flow tables that it does it with.
//!
//! ```text
//! 1  every packet: parse; ours? take the tunnel off and parse again, or punt; hash; ask for its group of slots
//! 2  every packet: ask for its flow entry
//! 3  every packet: flow entry ─► target ─► path
//! 4  those without one: virtual host ─► new entry ─► target ─► path
//! 5  every packet with a path: header in front ─► port
//! ```
//!
//! By step 3 what a packet needs has been on its way for the length of a burst. A burst that goes to one port as a whole
//! leaves as it came; else its packets are dealt out in their order, so that those of one flow keep it. Fragments, ICMP and
//! what is too long for its path part from this walk there, for `rare`.
//!
//! In each step the packet that comes by the million is handled in line, and everything else in a function of its own that
//! is called with the least: what is lent to a call lies in memory for every packet, called or not.
//!
//! Lost against this, in instructions a packet (IPv4, known flow), each against what was there at its time: packets, keys and
//! what the parser found moved from step to step as one value, 831 against 621; `retain` with the whole of step 1 in its
//! closure, 763 against 621; the full parser for every packet, 671 against 599; one way for known and new flows, and ports in
//! host order in between, 501 against 440; keys, traffic class and DF read from the packet again in steps 3 and 5, 441 against
//! 405; packets dealt out to ports one by one, and entry and header in one step, 405 against 379; both families in one loop,
//! whose tables do not fit into the registers, 379 against 371; all that the parser has found kept from step to step, 371
//! against 352; known packets counted in step 3, instead of a flag for others, and states always from a table, 69 against 54 for
//! that step; steps 1 and 5 in one function, 218 against 210 for both. And of a new flow: packets without an entry one by one
//! behind the others, 1,220 against 977; its key as bytes, 975 against 888; each given its child and entry before the next, with
//! nothing asked for ahead but the record, 911 against 659, and 186 ns against 61 with a million known.
//!
//! And in nanoseconds with a thousand and a million flows known: bursts of 32, 17.0 and 33.5 against 16.4 and 30.6; steps 1 to
//! 3 over 8 packets of a burst at a time, each step some packets behind the one before, 18.3 and 40.5 against 17.5 and 34, since
//! memory has less time to answer; all of it asked for into the second level cache alone, 17.3 and 28.7 against 16.4 and 30.6,
//! which is no gain where few flows are known; compiled for the processor at hand, no difference.

use std::mem;
use std::sync::Arc;

use super::counters::WorkerCounters;
use super::fragments::Fragments;
use super::inspect::Inspector;
use super::io::{BURST, Burst, PacketIo};
use super::orders::NewFlows;
use super::punt::{Again, Cause, Punt, PuntRing};
use super::tables::{ForwardTables, NO_PATH};
use super::verdict::{PuntReason, Refusal};
use super::visit::welcome::Desk;
use super::visit::{Round, Visit, recognise};
use super::work::{Arrival, End, Held, NOWHERE, What, Work};
use crate::clock::Instant;
use crate::flow::key::{FlowKey, KeyV4, KeyV6};
use crate::flow::limit::InsertLimit;
use crate::flow::memory::Memory;
use crate::flow::table::{Hint, Table};
use crate::packet::buffer::PacketBuffer;
use crate::packet::parse::Family;
use crate::units::{PortIndex, TargetId, WorkerId};

use zerocopy::FromZeros;

/// Sizes of one worker's flow tables.
#[derive(Clone, Copy, Debug)]
pub struct FlowCapacity {
    /// Flows over IPv4.
    pub v4: u32,
    /// Flows over IPv6.
    pub v6: u32,
    /// Fragmented datagrams under way, for each family.
    pub fragments: u32,
    /// Seed of the tables' hashes; `None` for one that nobody can foresee. The outer source and flow label come from
    /// these hashes too.
    pub seed: Option<u64>,
}

impl FlowCapacity {
    /// Memory of one worker's tables, in bytes.
    pub fn bytes(&self) -> u64 {
        [self.v4, self.fragments].map(Table::<KeyV4>::bytes).iter().sum::<u64>()
            + [self.v6, self.fragments].map(Table::<KeyV6>::bytes).iter().sum::<u64>()
    }
}

/// The flow tables of one family; `P` is a packet.
pub(super) struct FamilyTables<K: FlowKey, M: Memory, P> {
    pub(super) flows: Table<K, M>,
    /// Where the fragments of a datagram go.
    pub(super) fragments: Fragments<K, M, Held<P>>,
}

impl<K: FlowKey + FromZeros, M: Memory, P> FamilyTables<K, M, P> {
    fn new(flows: u32, FlowCapacity { fragments, seed, .. }: FlowCapacity) -> Option<FamilyTables<K, M, P>> {
        Some(FamilyTables { flows: Table::new(flows, seed)?, fragments: Fragments::new(fragments, seed)? })
    }
}

/// The memory of one worker's forwarding: flow tables, counters and the packets that leave with this burst.
pub struct Pipeline<I: PacketIo> {
    pub(super) v4: FamilyTables<KeyV4, I::Memory, I::Packet>,
    pub(super) v6: FamilyTables<KeyV6, I::Memory, I::Packet>,
    pub(super) worker: WorkerId,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) inserts: InsertLimit,
    pub(super) new_flows: NewFlows,
    pub(super) punts: PuntRing,
    /// Leaving packets, by port.
    outgoing: Vec<Burst<I::Packet>>,
    /// What is known of the packets of a burst, by their places in it; what is left of an earlier burst has no meaning.
    works: Box<[Work]>,
    /// Outer identification of the next packet that may be fragmented, of which IPv4 takes the low half; each worker has
    /// its own.
    pub(super) identification: u32,
    pub(super) identification_step: u32,
    workers: u16,
    /// What has come of asking others about the packet that is carried now.
    pub(super) again: Again,
}

impl<I: PacketIo> Pipeline<I> {
    /// Forwarding for `worker` of `workers`, or `None` when there is not enough memory for its tables.
    pub fn new(
        (worker, workers): (WorkerId, u16),
        ports: u16,
        capacity: FlowCapacity,
        counters: Arc<WorkerCounters>,
        punts: PuntRing,
    ) -> Option<Pipeline<I>> {
        Some(Pipeline {
            v4: FamilyTables::new(capacity.v4, capacity)?,
            v6: FamilyTables::new(capacity.v6, capacity)?,
            worker,
            counters,
            inserts: InsertLimit::default(),
            new_flows: NewFlows::discarding(),
            punts,
            outgoing: (0..ports).map(|_| Burst::new()).collect(),
            works: vec![Work::NONE; BURST].into(),
            identification: worker.0.into(),
            // A power of two, so that workers stay out of each other's numbers after the wrap too.
            identification_step: u32::from(workers.max(1)).next_power_of_two(),
            workers,
            again: Again::default(),
        })
    }

    /// Tells new flows that parents have sent by `new_flows` from now on.
    pub(super) fn tell(&mut self, new_flows: NewFlows) {
        self.new_flows = new_flows;
    }

    /// What this pipeline counts.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.counters
    }

    /// Carries the packets of one burst, all received by `port`, and sends what is to be sent; leaves `burst` empty.
    pub fn process(
        &mut self,
        tables: &ForwardTables,
        io: &mut I,
        port: PortIndex,
        now: Instant,
        burst: &mut Burst<I::Packet>,
    ) {
        if let Some(stations) = &tables.stations {
            self.leave_out(stations, port, burst);
        }
        match &tables.capture {
            None => self.carry_burst(tables, io, port, now, burst),
            Some(capture) => self.carry_watched(capture, tables, io, port, now, burst),
        }
    }

    /// Carries a packet of the slow path, about whose flow others have been asked.
    pub fn process_again(
        &mut self,
        again: Again,
        tables: &ForwardTables,
        io: &mut I,
        port: PortIndex,
        now: Instant,
        burst: &mut Burst<I::Packet>,
    ) {
        self.again = again;
        self.process(tables, io, port, now, burst);
        self.again = Again::default();
    }

    /// What becomes of an ICMP error about a flow that this worker does not know: the next one may, where there is one.
    pub(super) fn ask_elsewhere(&self, work: &Work) -> End {
        let strangers = self.again.strangers + 1;
        if strangers >= self.workers || !self.punts.is_read() {
            return Refusal::IcmpErrorUnknownFlow.into();
        }
        let bare = work.inner.l3_offset == 0;
        End::Punt(Cause { bare, strangers, ..PuntReason::IcmpErrorElsewhere.into() })
    }

    #[inline(always)]
    pub(super) fn carry_burst(
        &mut self,
        tables: &ForwardTables,
        io: &mut I,
        port: PortIndex,
        now: Instant,
        burst: &mut Burst<I::Packet>,
    ) {
        let start = I::cycles();
        self.counters.received.add(burst.len() as u64);
        self.counters.bursts.add(1);
        let leaves_whole_by = self.walk(io, Arrival { tables, port, now: now.tick() }, burst);
        self.counters.busy_cycles.add(I::cycles().wrapping_sub(start));
        match leaves_whole_by {
            Some(port) => send(&self.counters, io, port, burst),
            None => (0..self.outgoing.len() as u16).map(PortIndex).for_each(|port| self.flush(io, port)),
        }
    }

    /// Where the burst is to be sent that leaves as it is; all of another one is where it belongs then.
    fn walk(&mut self, io: &mut I, arrival: Arrival<'_>, burst: &mut Burst<I::Packet>) -> Option<PortIndex> {
        // Lent, so that all else can be used meanwhile; made once, so that it need not be cleared for each burst.
        let mut lent = mem::take(&mut self.works);
        let works = &mut lent[..burst.len()];
        for (packet, work) in burst.iter_mut().zip(works.iter_mut()) {
            self.admit(arrival, packet, work);
        }
        // One family after the other: like this what is in its tables stays in registers.
        let has_v6 = locate(&self.v4.flows, What::V4, works);
        if has_v6 {
            locate(&self.v6.flows, What::V6, works);
        }
        let mut others = recognise(arrival, &mut self.v4.flows, What::V4, works);
        if has_v6 {
            others |= recognise(arrival, &mut self.v6.flows, What::V6, works);
        }
        if others {
            self.introduce(arrival, burst, works, has_v6);
        }
        let whole = self.put_headers(arrival.tables, burst, works);
        if whole.is_none() {
            for (packet, work) in burst.drain(..).zip(works.iter()) {
                match work.leaves_by {
                    NOWHERE => self.carry_otherwise(io, arrival, packet, work),
                    port => self.push(io, port, packet),
                }
            }
        }
        self.works = lent;
        whole
    }

    /// Finds or chooses the targets of the other common packets: first of those in new flows that are quickly given a child,
    /// `known` are not any more, then of the rest.
    #[inline(never)]
    fn introduce(&mut self, arrival: Arrival<'_>, burst: &Burst<I::Packet>, works: &mut [Work], has_v6: bool) {
        let desk = Desk { arrival, counters: &self.counters, inserts: &self.inserts, new_flows: &self.new_flows };
        let mut others = desk.welcome(&mut self.v4.flows, What::V4, works);
        if has_v6 {
            others |= desk.welcome(&mut self.v6.flows, What::V6, works);
        }
        if !others {
            return;
        }
        let round = Round::default();
        let tables = arrival.tables;
        for (packet, work) in burst.iter().zip(works).filter(|(_, work)| work.path == NO_PATH) {
            if !matches!(work.what, What::V4 | What::V6) {
                continue;
            }
            match self.target(arrival, packet, work, Some(&round)) {
                Ok(id) => work.settle(tables, id),
                Err(refusal) => work.what = What::Refused(refusal),
            }
        }
    }

    /// Lets a packet leave with this burst.
    #[inline(always)]
    pub(super) fn push(&mut self, io: &mut I, port: PortIndex, packet: I::Packet) {
        if let Err(full) = self.outgoing[port.index()].try_push(packet) {
            // Only with what was held before can there be more than a burst.
            self.flush(io, port);
            self.outgoing[port.index()].push(full.element());
        }
    }

    /// Sends what is to leave by `port`.
    #[inline]
    pub(super) fn flush(&mut self, io: &mut I, port: PortIndex) {
        let packets = &mut self.outgoing[port.index()];
        if !packets.is_empty() {
            send(&self.counters, io, port, packets);
        }
    }

    /// Reclaims flow entries that are past their time in the next few groups, and publishes what the tables hold.
    pub fn age(&mut self, tables: &ForwardTables, now: Instant, groups: usize) {
        let (now, timeouts) = (now.tick(), &tables.timeouts);
        self.v4.flows.age(now, groups, timeouts);
        self.v6.flows.age(now, groups, timeouts);
        self.v4.fragments.age(&self.counters, now, timeouts);
        self.v6.fragments.age(&self.counters, now, timeouts);
        self.counters.flows_active.set((self.v4.flows.len() + self.v6.flows.len()) as u64);
        self.counters.flows_expired.set(self.v4.flows.expired() + self.v6.flows.expired());
    }

    /// Drops what is held: no more packets will come.
    pub fn drop_held(&mut self) {
        self.v4.fragments.drop_held(&self.counters);
        self.v6.fragments.drop_held(&self.counters);
    }

    /// Does what the slow path asks for with the flows.
    pub fn inspect(&mut self, inspector: &mut Inspector, tables: &ForwardTables, now: Instant) {
        inspector.answer(&mut self.v4.flows, &mut self.v6.flows, now.tick(), &tables.timeouts);
    }

    /// Carries a packet that needs more than its flow's entry, or whose header was refused.
    #[inline(never)]
    fn carry_otherwise(&mut self, io: &mut I, arrival: Arrival<'_>, packet: I::Packet, work: &Work) {
        match work.what {
            // The short way to its header was not for it.
            What::V4 | What::V6 | What::Known => self.carry_to(io, arrival, packet, work, Ok(work.target)),
            What::Refused(refusal) => self.turn_away(io, arrival, packet, work, refusal.into()),
            What::Rare => self.carry_rare(io, arrival, packet, work),
            What::Ended => {}
        }
    }

    /// Finds a packet's target, or chooses it.
    #[inline(never)]
    pub(super) fn target(
        &mut self,
        arrival: Arrival<'_>,
        packet: &I::Packet,
        work: &Work,
        round: Option<&Round>,
    ) -> Result<TargetId, Refusal> {
        let mut visit = Visit::new(arrival, (&self.counters, &self.inserts, &self.new_flows), work, packet.head());
        visit.round = round;
        match work.inner.family() {
            Family::V4 => visit.target(&mut self.v4.flows),
            Family::V6 => visit.target(&mut self.v6.flows),
        }
    }

    /// Ends a packet that goes nowhere.
    #[cold]
    pub(super) fn end(&self, port: PortIndex, packet: &I::Packet, end: End) {
        match end {
            End::TooLong(..) => self.counters.dropped(Refusal::TooLong.into()).add(1),
            End::Drop(reason) => self.counters.dropped(reason).add(1),
            End::Punt(cause) if !cause.reason.is_for_us() && self.punts.is_half_full() => {
                self.counters.dropped(Refusal::PuntRingFull.into()).add(1);
            }
            End::Punt(cause) if self.punts.push(|| Punt::new(port, cause, packet.head())) => {
                self.counters.punted(cause.reason).add(1);
            }
            End::Punt(_) => self.counters.dropped(Refusal::PuntRingFull.into()).add(1),
        }
    }
}

/// Sends packets, and counts what became of them.
fn send<I: PacketIo>(counters: &WorkerCounters, io: &mut I, port: PortIndex, packets: &mut Burst<I::Packet>) {
    let count = packets.len();
    let unsent = io.tx_burst(port, packets);
    counters.forwarded.add((count - unsent) as u64);
    counters.dropped(Refusal::TxQueueFull.into()).add(unsent as u64);
}

/// Asks for the entries of the common packets over one family; whether there are other packets.
#[inline(never)]
fn locate<K: FlowKey, M: Memory>(flows: &Table<K, M>, what: What, works: &mut [Work]) -> bool {
    let (mut others, mut seconds) = (false, false);
    for work in works.iter_mut() {
        if work.what != what {
            others = true;
            continue;
        }
        work.hint = flows.locate(work.hash, &mut seconds);
    }
    if seconds {
        for work in works.iter_mut().filter(|work| work.what == what && work.hint == Hint::SECOND) {
            work.hint = flows.locate_second(work.hash);
        }
    }
    others
}
