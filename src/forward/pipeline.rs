//! The walk of a packet: what a worker does with each burst, and the flow tables that it does it with.
//!
//! ```text
//! 1  every packet: parse; ours? take the tunnel off and parse again, or punt; hash; ask for its bucket
//! 2  every packet: ask for its flow entry
//! 3  every packet: flow entry, or virtual host and a new entry ─► target ─► path ─► header in front ─► port
//! ```
//!
//! By step 3 what a packet needs has been on its way for the length of a burst. Packets of one flow keep their order.
//!
//! Lost against this, in instructions a packet (IPv4, known flow): packets, keys and what the parser found moved from step
//! to step as one value, 831 against 621; `retain` with the whole of step 1 in its closure, 763.

use std::sync::Arc;

use super::counters::WorkerCounters;
use super::io::{BURST, Burst, PacketIo};
use super::punt::{Cause, Punt, PuntRing};
use super::tables::{ForwardTables, Path, Target, VirtualHost};
use super::verdict::{DropReason, PuntReason, Refusal};
use crate::clock::{Instant, Tick};
use crate::flow::key::{FlowKey, KeyV4, KeyV6};
use crate::flow::memory::Memory;
use crate::flow::state::FlowState;
use crate::flow::table::{FlowHash, Full, Hint, Table};
use crate::packet::buffer::PacketBuffer;
use crate::packet::parse::{Family, Fragment, Frame, Parsed, parse};
use crate::packet::tcp;
use crate::service::mss;
use crate::service::selection::Granularity;
use crate::tunnel::decapsulate::{DecapsulateError, Decapsulated, decapsulate, is_tunnel};
use crate::tunnel::template::{EncapsulateError, PerPacket, TTL};
use crate::units::{PortIndex, TargetId, VirtualHostId, WorkerId};

use arrayvec::ArrayVec;
use zerocopy::FromZeros;

mod steer;

const ICMPV6: u8 = 58;
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

/// The flow tables of one family.
struct FamilyTables<K: FlowKey, M: Memory> {
    flows: Table<K, M>,
    /// Where the fragments of a datagram go, known from its first one.
    fragments: Table<K, M>,
}

impl<K: FlowKey + FromZeros, M: Memory> FamilyTables<K, M> {
    fn new(flows: u32, FlowCapacity { fragments, seed, .. }: FlowCapacity) -> Option<FamilyTables<K, M>> {
        Some(FamilyTables { flows: Table::new(flows, seed)?, fragments: Table::new(fragments, seed)? })
    }
}

/// How a packet ends that is not forwarded.
enum End {
    Drop(DropReason),
    Punt(Cause),
}

impl<R: Into<DropReason>> From<R> for End {
    fn from(reason: R) -> End {
        End::Drop(reason.into())
    }
}

const _: () = assert!(BURST <= u32::BITS as usize, "a bit for each packet of a burst");

/// What the steps of a burst tell each other about a packet. Its key is not in here: reading it again from the packet is
/// cheaper than storing and loading it.
struct Work {
    parsed: Parsed,
    hash: FlowHash,
    hint: Hint,
    /// Of the outer header to come.
    ttl: u8,
}

/// The memory of one worker's forwarding: flow tables, counters and the packets that leave with this burst.
pub struct Pipeline<I: PacketIo> {
    v4: FamilyTables<KeyV4, I::Memory>,
    v6: FamilyTables<KeyV6, I::Memory>,
    counters: Arc<WorkerCounters>,
    punts: PuntRing,
    /// Leaving packets, by port.
    outgoing: Vec<Burst<I::Packet>>,
    /// Outer IPv4 identification of the next packet that may be fragmented; each worker has its own.
    identification: u16,
    identification_step: u16,
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
            counters,
            punts,
            outgoing: (0..ports).map(|_| Burst::new()).collect(),
            identification: worker.0,
            // A power of two, so that workers stay out of each other's numbers after the wrap too.
            identification_step: workers.max(1).next_power_of_two(),
        })
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
        let start = I::cycles();
        self.counters.received.add(burst.len() as u64);
        self.counters.bursts.add(1);
        self.walk(tables, port, now.tick(), burst);
        self.counters.busy_cycles.add(I::cycles().wrapping_sub(start));
        self.send(io);
    }

    fn walk(&mut self, tables: &ForwardTables, port: PortIndex, now: Tick, burst: &mut Burst<I::Packet>) {
        let mut works: ArrayVec<Work, BURST> = ArrayVec::new();
        let mut ended = 0_u32;
        for (place, packet) in burst.iter_mut().enumerate() {
            if let Err(end) = self.admit(tables, packet, &mut works) {
                self.end(port, packet, end);
                ended |= 1 << place;
            }
        }
        if ended != 0 {
            burst.retain(|_| {
                let stays = ended & 1 == 0;
                ended >>= 1;
                stays
            });
        }
        for work in &mut works {
            work.hint = match work.parsed.family {
                Family::V4 => self.v4.flows.prefetch_entry(work.hash, I::prefetch),
                Family::V6 => self.v6.flows.prefetch_entry(work.hash, I::prefetch),
            };
        }
        for (mut packet, work) in burst.drain(..).zip(&works) {
            match self.carry(tables, now, &mut packet, work) {
                Ok(port) => self.outgoing[port.index()].push(packet),
                Err(end) => self.end(port, &packet, end),
            }
        }
    }

    fn send(&mut self, io: &mut I) {
        for (port, packets) in (0..).map(PortIndex).zip(&mut self.outgoing) {
            if !packets.is_empty() {
                let count = packets.len();
                let unsent = io.tx_burst(port, packets);
                self.counters.forwarded.add((count - unsent) as u64);
                self.counters.dropped(Refusal::TxQueueFull.into()).add(unsent as u64);
            }
        }
    }

    /// Reclaims flow entries that are past their time in the next few buckets, and publishes what the tables hold.
    pub fn age(&mut self, tables: &ForwardTables, now: Instant, buckets: usize) {
        let (now, timeouts) = (now.tick(), &tables.timeouts);
        self.v4.flows.age(now, buckets, timeouts);
        self.v6.flows.age(now, buckets, timeouts);
        self.v4.fragments.age(now, buckets, timeouts);
        self.v6.fragments.age(now, buckets, timeouts);
        self.counters.flows_active.set((self.v4.flows.len() + self.v6.flows.len()) as u64);
        self.counters.flows_expired.set(self.v4.flows.expired() + self.v6.flows.expired());
    }

    /// Decides whether a packet is one to look up, and how: adds that to `works`.
    #[inline(always)]
    fn admit(
        &self,
        tables: &ForwardTables,
        packet: &mut I::Packet,
        works: &mut ArrayVec<Work, BURST>,
    ) -> Result<(), End> {
        let frame = parse(packet.head(), packet.frame_len());
        let parsed = match &frame {
            Ok(Frame::Ip(parsed)) => parsed,
            Ok(Frame::Arp) => return Err(End::Punt(PuntReason::Arp.into())),
            Err(error) => return Err(End::from(*error)),
        };
        if is_ours(tables, packet, parsed) {
            let (inner, ttl) = leave_tunnel(tables, packet, &field_by_field(parsed))?;
            return self.look_up(packet, &inner, ttl, works);
        }
        if parsed.protocol == ICMPV6 && is_neighbour_discovery(packet.head(), parsed) {
            return Err(End::Punt(PuntReason::NeighbourDiscovery.into()));
        }
        self.look_up(packet, parsed, TTL, works)
    }

    #[inline(always)]
    fn look_up(
        &self,
        packet: &I::Packet,
        parsed: &Parsed,
        ttl: u8,
        works: &mut ArrayVec<Work, BURST>,
    ) -> Result<(), End> {
        let hash = match parsed.family {
            Family::V4 => {
                let hash = self.v4.flows.hash(&KeyV4::of(packet.head(), parsed));
                self.v4.flows.prefetch_tags(hash, I::prefetch);
                hash
            }
            Family::V6 => {
                let hash = self.v6.flows.hash(&KeyV6::of(packet.head(), parsed));
                self.v6.flows.prefetch_tags(hash, I::prefetch);
                hash
            }
        };
        works.push(Work { parsed: field_by_field(parsed), hash, hint: Hint::NONE, ttl });
        Ok(())
    }

    /// Finds a packet's target and puts the header of its path in front.
    #[inline(always)]
    fn carry(
        &mut self,
        tables: &ForwardTables,
        now: Tick,
        packet: &mut I::Packet,
        work: &Work,
    ) -> Result<PortIndex, End> {
        let (head, parsed) = (packet.head(), &work.parsed);
        let visit = Visit { tables, counters: &self.counters, now, work, parsed, head };
        let target = match work.parsed.family {
            Family::V4 => visit.target(&mut self.v4, KeyV4::of(head, parsed))?,
            Family::V6 => visit.target(&mut self.v6, KeyV6::of(head, parsed))?,
        };
        let Target { path, host, clamps_mss, .. } = tables.targets[target.index()];
        let unresolved =
            || Cause { reason: PuntReason::NoNeighbour, target: Some(target), bare: work.parsed.l3_offset == 0 };
        let path = &tables.paths[path.ok_or_else(|| End::Punt(unresolved()))?.index()];
        if clamps_mss && work.parsed.tcp_flags & tcp::SYN != 0 {
            self.clamp_mss(&tables.virtual_hosts[host.index()], path, packet, &work.parsed);
        }
        let per = PerPacket { flow_hash: work.hash.bits(), ttl: work.ttl, identification: self.identification };
        path.template.encapsulate(packet, &work.parsed, per).map_err(|error| match error {
            EncapsulateError::TooBig => Refusal::TooBig,
            EncapsulateError::NoHeadroom => Refusal::NoHeadroom,
        })?;
        self.identification = self.identification.wrapping_add(self.identification_step);
        let counters = self.counters.target(target);
        counters.packets.add(1);
        counters.bytes.add(u64::from(work.parsed.l3_len));
        Ok(path.port)
    }

    /// Lowers the MSS option of a SYN to what its virtual host wants.
    #[cold]
    fn clamp_mss(&self, host: &VirtualHost, path: &Path, packet: &mut I::Packet, parsed: &Parsed) {
        let limit = host.mss_clamp.limit(parsed.family, path.template.packet_max());
        if limit.is_some_and(|limit| mss::clamp(packet.head_mut(), parsed, limit)) {
            self.counters.mss_clamped.add(1);
        }
    }

    /// Ends a packet that goes nowhere.
    #[cold]
    fn end(&self, port: PortIndex, packet: &I::Packet, end: End) {
        match end {
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
        src_port: parsed.src_port,
        dst_port: parsed.dst_port,
        fragment: parsed.fragment,
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
    if !tables.parents.iter().any(|parent| parent.contains(&outer_source)) {
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

/// One packet's visit to the flow table and, where that does not know it, to its virtual host.
struct Visit<'a> {
    tables: &'a ForwardTables,
    counters: &'a WorkerCounters,
    now: Tick,
    work: &'a Work,
    parsed: &'a Parsed,
    /// The packet's first segment.
    head: &'a [u8],
}

impl Visit<'_> {
    /// The target of the packet with this 5-tuple.
    #[inline(always)]
    fn target<K: FlowKey + FromZeros, M: Memory>(
        &self,
        family: &mut FamilyTables<K, M>,
        key: K,
    ) -> Result<TargetId, Refusal> {
        match self.parsed.fragment {
            Fragment::None => self.flow_target(family, key),
            Fragment::First { id } => {
                let target = self.flow_target(family, key)?;
                self.remember(&mut family.fragments, key.datagram(id), target);
                Ok(target)
            }
            Fragment::Later { id } => {
                let key = key.datagram(id);
                let hash = family.fragments.hash(&key);
                self.follow(&mut family.fragments, Hint::NONE, hash, &key).ok_or(Refusal::FragmentUnknown)
            }
        }
    }

    /// The target of a packet that shows its ports.
    #[inline(always)]
    fn flow_target<K: FlowKey + FromZeros, M: Memory>(
        &self,
        family: &mut FamilyTables<K, M>,
        key: K,
    ) -> Result<TargetId, Refusal> {
        match self.follow(&mut family.flows, self.work.hint, self.work.hash, &key) {
            Some(target) if self.tables.targets[target.index()].reads_quic => {
                Ok(self.steer(&mut family.flows, &key, target))
            }
            Some(target) => Ok(target),
            None => self.open(family, key),
        }
    }

    /// The target of a flow that has an entry; counts the packet there.
    #[inline(always)]
    fn follow<K: FlowKey + FromZeros, M: Memory>(
        &self,
        table: &mut Table<K, M>,
        hint: Hint,
        hash: FlowHash,
        key: &K,
    ) -> Option<TargetId> {
        let slot = table.find_live(hint, hash, key, self.now, &self.tables.timeouts)?;
        let entry = table.entry_mut(slot);
        let state = entry.state().after(self.parsed.tcp_flags);
        let Some(state) = state.filter(|_| !self.tables.targets[entry.target().index()].moves) else {
            table.expire(slot);
            return None;
        };
        entry.touch(self.now, state, self.parsed.l3_len);
        Some(entry.target())
    }

    /// Gives a new flow to a child. Where there is no room for its entry its packets are forwarded all the same, each by
    /// hash, so that they stay together.
    #[cold]
    #[inline(never)]
    fn open<K: FlowKey + FromZeros, M: Memory>(
        &self,
        family: &mut FamilyTables<K, M>,
        key: K,
    ) -> Result<TargetId, Refusal> {
        let host = self.virtual_host(&key).ok_or(Refusal::NoVirtualHost)?;
        let (key, chosen_by, hash, state) = match host.granularity {
            Granularity::FiveTuple => {
                (key, key, self.work.hash, FlowState::of_first(self.parsed.protocol, self.parsed.tcp_flags))
            }
            Granularity::Source { v4, v6 } => {
                let prefix = if self.parsed.family == Family::V4 { v4 } else { v6 };
                // Numbers of virtual hosts are this router's own; all routers of the cluster are to choose alike.
                let chosen_by = key.coarse(VirtualHostId(0), prefix);
                let key = key.coarse(host.number, prefix);
                let hash = family.flows.hash(&key);
                if let Some(target) = self.follow(&mut family.flows, Hint::NONE, hash, &key) {
                    // What else this client has stays where it is.
                    return Ok(self.certain(host, target));
                }
                (key, chosen_by, hash, FlowState::Other)
            }
        };
        let vacancy = family.flows.vacancy(hash, self.now, &self.tables.timeouts);
        let cluster_hash = self.tables.cluster.hash(chosen_by.as_bytes());
        let member = match (self.named(host), &vacancy) {
            (Some(named), _) => {
                self.counters.quic_steered.add(1);
                Some(named.member())
            }
            (None, Ok(_)) => host.selector.select(cluster_hash),
            (None, Err(Full)) => host.selector.select_again(cluster_hash),
        };
        let target = host.members[member.ok_or(Refusal::NoChild)?].target;
        match vacancy {
            Ok(vacancy) => {
                let entry = family.flows.fill(vacancy, hash, key, target, state, self.now);
                entry.touch(self.now, state, self.parsed.l3_len);
                self.counters.flows_inserted.add(1);
                self.counters.target(target).flows.add(1);
            }
            Err(Full) => self.counters.flows_refused.add(1),
        }
        Ok(target)
    }

    /// Notes where the later fragments of a datagram go. Without room they are dropped as unknown.
    #[cold]
    fn remember<K: FlowKey + FromZeros, M: Memory>(&self, fragments: &mut Table<K, M>, key: K, target: TargetId) {
        let hash = fragments.hash(&key);
        if let Some(slot) = fragments.find(hash, &key) {
            fragments.remove(slot);
        }
        if let Ok(vacancy) = fragments.vacancy(hash, self.now, &self.tables.timeouts) {
            fragments.fill(vacancy, hash, key, target, FlowState::Fragments, self.now);
        }
    }

    fn virtual_host<K: FlowKey>(&self, key: &K) -> Option<&VirtualHost> {
        let id = self.tables.index.find(key.destination(), self.parsed.protocol, self.parsed.dst_port)?;
        Some(&self.tables.virtual_hosts[id.index()])
    }
}
