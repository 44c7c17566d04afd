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
//! whose tables do not fit into the registers, 379 against 371. And of a new flow: packets without an entry one by one behind
//! the others, 1,220 against 977; its key as bytes, 975 against 888.

use std::mem;
use std::sync::Arc;

use super::counters::WorkerCounters;
use super::fragments::Fragments;
use super::inspect::Inspector;
use super::io::{BURST, Burst, PacketIo};
use super::orders::NewFlows;
use super::punt::{Again, Cause, Punt, PuntRing};
use super::tables::{ForwardTables, Path};
use super::verdict::{DropReason, PuntReason, Refusal};
use super::visit::{Round, Visit, recognise};
use crate::clock::{Instant, Tick};
use crate::flow::key::{FlowKey, KeyV4, KeyV6, WORDS_MAX, Words};
use crate::flow::limit::InsertLimit;
use crate::flow::memory::Memory;
use crate::flow::table::{FlowHash, Hint, Table};
use crate::packet::buffer::PacketBuffer;
use crate::packet::parse::{Family, Frame, Parsed, parse};
use crate::packet::plain;
use crate::packet::protocol::{ICMP, ICMPV6};
use crate::packet::tcp;
use crate::service::mss;
use crate::tunnel::decapsulate::{DecapsulateError, Decapsulated, decapsulate, is_tunnel};
use crate::tunnel::template::{EncapsulateError, PerPacket, TTL};
use crate::units::{PathId, PortIndex, TargetId, WorkerId};

use zerocopy::FromZeros;

/// ICMPv6 types of neighbour discovery, router solicitation to redirect (RFC 4861 section 4).
const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

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

/// A packet that waits for another one.
pub(super) struct Held<P> {
    pub(super) packet: P,
    pub(super) work: Work,
    /// Port that it came in by.
    pub(super) port: PortIndex,
}

/// How a packet ends that is not simply forwarded.
pub(super) enum End {
    Drop(DropReason),
    Punt(Cause),
    /// Too long for this path with its header.
    TooLong(PathId, Option<TargetId>),
}

impl<R: Into<DropReason>> From<R> for End {
    fn from(reason: R) -> End {
        End::Drop(reason.into())
    }
}

/// What the steps of a burst tell each other about a packet.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) parsed: Parsed,
    /// The key of its 5-tuple.
    pub(super) key: [u64; WORDS_MAX],
    pub(super) hash: FlowHash,
    pub(super) hint: Hint,
    /// Of the outer header to come.
    pub(super) ttl: u8,
    pub(super) what: What,
    /// Where the flow goes that has an entry and needs nothing else; without meaning where `path` is [`NO_PATH`].
    pub(super) target: TargetId,
    /// And how.
    pub(super) path: PathId,
    /// Where the packet leaves that has its header; [`NOWHERE`] until then.
    pub(super) leaves_by: PortIndex,
}

/// No path has this number.
pub(super) const NO_PATH: PathId = PathId(u32::MAX);

/// No port has this number.
const NOWHERE: PortIndex = PortIndex(u16::MAX);

/// What a packet is to the last step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// One of those that are forwarded by the million, over IPv4.
    V4,
    /// The same over IPv6.
    V6,
    /// One of them for which `target` is known, whatever `path` is.
    Known,
    /// One of them that goes nowhere.
    Refused(Refusal),
    /// It needs more than its flow's entry.
    Rare,
    /// None: it has ended.
    Ended,
}

impl Work {
    /// Of no packet.
    const NONE: Work = Work {
        parsed: Parsed::NOTHING,
        key: [0; WORDS_MAX],
        hash: FlowHash::NONE,
        hint: Hint::NONE,
        ttl: TTL,
        what: What::Ended,
        target: TargetId(0),
        path: NO_PATH,
        leaves_by: NOWHERE,
    };
}

/// What the packets of a burst have in common.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) tables: &'a ForwardTables,
    /// Port that they came in by.
    pub(super) port: PortIndex,
    pub(super) now: Tick,
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
    identification_step: u32,
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
        let bare = work.parsed.l3_offset == 0;
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
        let has_v6 = locate::<_, I>(&self.v4.flows, Family::V4, works);
        if has_v6 {
            locate::<_, I>(&self.v6.flows, Family::V6, works);
        }
        let mut unknown = works.len() - recognise(arrival, &mut self.v4.flows, What::V4, works);
        if has_v6 {
            unknown -= recognise(arrival, &mut self.v6.flows, What::V6, works);
        }
        if unknown > 0 {
            self.introduce(arrival, burst, works);
        }
        let (mut all, mut any) = (NOWHERE.0, 0);
        for (packet, work) in burst.iter_mut().zip(works.iter_mut()) {
            work.leaves_by = self.put_known_header(arrival.tables, packet, work);
            (all, any) = (all & work.leaves_by.0, any | work.leaves_by.0);
        }
        let whole = all == any && any != NOWHERE.0;
        if !whole {
            for (packet, work) in burst.drain(..).zip(works.iter()) {
                match work.leaves_by {
                    NOWHERE => self.carry_otherwise(io, arrival, packet, work),
                    port => self.push(io, port, packet),
                }
            }
        }
        self.works = lent;
        whole.then_some(PortIndex(any))
    }

    /// Finds or chooses the targets of the other common packets.
    #[inline(never)]
    fn introduce(&mut self, arrival: Arrival<'_>, burst: &Burst<I::Packet>, works: &mut [Work]) {
        let round = Round::default();
        let tables = arrival.tables;
        for (packet, work) in burst.iter().zip(works).filter(|(_, work)| work.path == NO_PATH) {
            if !matches!(work.what, What::V4 | What::V6) {
                continue;
            }
            match self.target(arrival, packet, work, Some(&round)) {
                Ok(id) => {
                    let target = &tables.targets[id.index()];
                    let is_clamped = target.clamps_mss && work.parsed.tcp_flags & tcp::SYN != 0;
                    (work.target, work.what) = (id, What::Known);
                    work.path = target.path.filter(|_| !is_clamped).unwrap_or(NO_PATH);
                }
                Err(refusal) => work.what = What::Refused(refusal),
            }
        }
    }

    /// Puts the header of its path in front of a packet that has one, and counts it. Gives the port that it leaves by.
    #[inline(always)]
    fn put_known_header(&mut self, tables: &ForwardTables, packet: &mut I::Packet, work: &Work) -> PortIndex {
        let Some(path) = tables.paths.get(work.path.index()) else { return NOWHERE };
        if path.template.encapsulate(packet, &work.parsed, self.per_packet(work)).is_err() {
            return NOWHERE;
        }
        self.count(Some(work.target), work);
        path.port
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

    /// Decides whether a packet is one to look up, and how: says so in `work`.
    #[inline(always)]
    fn admit(&self, arrival: Arrival<'_>, packet: &mut I::Packet, work: &mut Work) {
        let head = packet.head();
        match plain::read_frame(head, packet.frame_len()) {
            Some(parsed) if !may_be_ours(arrival.tables, head, &parsed) => {
                self.look_up(head, parsed, TTL, false, work);
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
        if let Some(parsed) = plain::read_tagged_frame(head, len).filter(|parsed| !may_be_ours(tables, head, parsed)) {
            self.look_up(head, parsed, TTL, false, work);
            return Ok(());
        }
        let frame = parse(head, len);
        let parsed = match &frame {
            Ok(Frame::Ip(parsed)) => parsed,
            Ok(Frame::Arp) => return Err(End::Punt(PuntReason::Arp.into())),
            Err(error) => return Err(End::from(*error)),
        };
        if is_ours(tables, packet, parsed) {
            let (inner, ttl) = leave_tunnel(tables, packet, &field_by_field(parsed))?;
            let is_rare = is_rare(&inner);
            self.look_up(packet.head(), inner, ttl, is_rare, work);
            return Ok(());
        }
        if parsed.protocol == ICMPV6 && is_neighbour_discovery(packet.head(), parsed) {
            return Err(End::Punt(PuntReason::NeighbourDiscovery.into()));
        }
        self.look_up(packet.head(), field_by_field(parsed), TTL, is_rare(parsed), work);
        Ok(())
    }

    #[inline(always)]
    fn look_up(&self, head: &[u8], parsed: Parsed, ttl: u8, is_rare: bool, work: &mut Work) {
        let (hash, what) = match parsed.family {
            Family::V4 => (prepare::<_, I>(&self.v4.flows, KeyV4::words_of(head, &parsed), &mut work.key), What::V4),
            Family::V6 => (prepare::<_, I>(&self.v6.flows, KeyV6::words_of(head, &parsed), &mut work.key), What::V6),
        };
        let what = if is_rare { What::Rare } else { what };
        (work.parsed, work.hash, work.ttl, work.what, work.path) = (parsed, hash, ttl, what, NO_PATH);
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
        match work.parsed.family {
            Family::V4 => visit.target(&mut self.v4.flows),
            Family::V6 => visit.target(&mut self.v6.flows),
        }
    }

    /// Puts the header of the path to a target in front of a packet, which may begin a connection.
    pub(super) fn encapsulate(
        &mut self,
        tables: &ForwardTables,
        packet: &mut I::Packet,
        work: &Work,
        id: TargetId,
    ) -> Result<PortIndex, End> {
        let target = &tables.targets[id.index()];
        if let (true, Some(path)) = (target.clamps_mss && work.parsed.tcp_flags & tcp::SYN != 0, target.path) {
            self.clamp_mss(tables, id, &tables.paths[path.index()], packet, &work.parsed);
        }
        let unresolved =
            || Cause { target: Some(id), bare: work.parsed.l3_offset == 0, ..PuntReason::NoNeighbour.into() };
        let path_id = target.path.ok_or_else(|| End::Punt(unresolved()))?;
        let path = &tables.paths[path_id.index()];
        let per = self.per_packet(work);
        path.template.encapsulate(packet, &work.parsed, per).map_err(|error| match error {
            EncapsulateError::TooBig => End::TooLong(path_id, Some(id)),
            EncapsulateError::NoHeadroom => Refusal::NoHeadroom.into(),
        })?;
        self.count(Some(id), work);
        Ok(path.port)
    }

    #[inline(always)]
    pub(super) fn per_packet(&self, work: &Work) -> PerPacket {
        PerPacket { flow_hash: work.hash.bits(), ttl: work.ttl, identification: self.identification as u16 }
    }

    /// Counts a packet that has its header, towards its target where it is for a service.
    #[inline(always)]
    pub(super) fn count(&mut self, target: Option<TargetId>, work: &Work) {
        self.identification = self.identification.wrapping_add(self.identification_step);
        if let Some(target) = target {
            let counters = self.counters.target(target);
            counters.packets.add(1);
            counters.bytes.add(u64::from(work.parsed.l3_len));
        }
    }

    /// Lowers the MSS option of a SYN to what its virtual host wants.
    #[cold]
    fn clamp_mss(
        &self,
        tables: &ForwardTables,
        target: TargetId,
        path: &Path,
        packet: &mut I::Packet,
        parsed: &Parsed,
    ) {
        let host = &tables.virtual_hosts[tables.targets[target.index()].host.index()];
        let limit = host.mss_clamp.limit(parsed.family, path.template.packet_max());
        if limit.is_some_and(|limit| mss::clamp(packet.head_mut(), parsed, limit)) {
            self.counters.mss_clamped.add(1);
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

/// Whether a packet needs more than its flow's entry.
#[inline(always)]
fn is_rare(parsed: &Parsed) -> bool {
    parsed.is_fragment() || parsed.protocol == ICMP || parsed.protocol == ICMPV6
}

/// Asks for the entries of the flows over one family; whether there are others. Of packets that have ended they are
/// anybody's, which harms nobody.
#[inline(never)]
fn locate<K: FlowKey, I: PacketIo>(flows: &Table<K, I::Memory>, family: Family, works: &mut [Work]) -> bool {
    let mut others = false;
    for work in works {
        if work.parsed.family == family {
            work.hint = flows.locate(work.hash, I::prefetch);
        } else {
            others = true;
        }
    }
    others
}

/// Keeps a key for the next steps, and asks for the group that its flow is in.
#[inline(always)]
fn prepare<K: FlowKey, I: PacketIo>(
    flows: &Table<K, I::Memory>,
    words: K::Words,
    key: &mut [u64; WORDS_MAX],
) -> FlowHash {
    words.save(key);
    let hash = flows.hash_words(&words);
    flows.prefetch_group(hash, I::prefetch);
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
fn leave_tunnel<P: PacketBuffer>(tables: &ForwardTables, packet: &mut P, outer: &Parsed) -> Result<(Parsed, u8), End> {
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
    let spoofed = match inner.family {
        Family::V4 => tables.own.contains_v4(&KeyV4::of(packet.head(), &inner).source),
        Family::V6 => tables.own.contains_v6(&KeyV6::of(packet.head(), &inner).source),
    };
    if spoofed {
        return Err(Refusal::TunnelSpoofed.into());
    }
    if is_ours(tables, packet, &inner) {
        let nested = is_tunnel(&inner, tables.gue_port);
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
