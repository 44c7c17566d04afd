//! Which child a packet goes to: the one of its flow, or, of a new flow, the one that its virtual host chooses.

mod steer;
pub(super) mod welcome;

use std::cell::Cell;
use std::net::IpAddr;

use self::welcome::Desk;
use super::counters::WorkerCounters;
use super::inspect::Key;
use super::orders::NewFlows;
use super::tables::{ForwardTables, NO_PATH, VirtualHost};
use super::verdict::Refusal;
use super::work::{Arrival, What, Work};
use crate::clock::Tick;
use crate::flow::key::{FlowKey, Words};
use crate::flow::limit::InsertLimit;
use crate::flow::memory::Memory;
use crate::flow::state::FlowState;
use crate::flow::table::{FlowHash, Full, Table};
use crate::packet::parse::{Family, Parsed};
use crate::packet::{protocol, tcp};
use crate::service::selection::Granularity;
use crate::units::{TargetId, VirtualHostId};

/// Finds the targets of packets over one family whose flows have an entry where it was expected, and need nothing but to
/// be counted; whether there are others.
#[inline(never)]
pub(super) fn recognise<K: FlowKey, M: Memory>(
    Arrival { tables, now, .. }: Arrival<'_>,
    flows: &mut Table<K, M>,
    what: What,
    works: &mut [Work],
) -> bool {
    let mut others = false;
    let (targets, timeouts) = (&*tables.targets, &tables.timeouts);
    for work in works.iter_mut().filter(|work| work.what == what) {
        if let Some(record) = flows.hinted(work.hint, &K::Words::of_saved(&work.key)) {
            let target = record.target();
            let path = targets[target.index()].straight();
            if path != NO_PATH
                && !record.expired(now, timeouts)
                && record.follow(now, work.tcp_flags, work.inner.bytes())
            {
                (work.target, work.path) = (target, path);
                continue;
            }
        }
        others = true;
    }
    others
}

/// New flows of a burst for whose entries room is made where none is free: in a table as full as it may be every 200th
/// needs that, so that only a flood of chosen keys needs it for more.
const EFFORTS: u8 = 4;

/// What the visits of one burst share.
#[derive(Default)]
pub(super) struct Round {
    /// The virtual host that was last looked for, and by what: in a flood of new flows most are for one.
    last_host: Cell<Option<(IpAddr, u8, u16, VirtualHostId)>>,
    /// How often room was made.
    efforts: Cell<u8>,
}

/// One packet's visit to the flow table and, where that does not know it, to its virtual host.
pub(super) struct Visit<'a> {
    arrival: Arrival<'a>,
    pub(super) tables: &'a ForwardTables,
    pub(super) counters: &'a WorkerCounters,
    inserts: &'a InsertLimit,
    new_flows: &'a NewFlows,
    pub(super) now: Tick,
    pub(super) work: &'a Work,
    pub(super) parsed: Parsed,
    /// The packet's first segment.
    pub(super) head: &'a [u8],
    /// What it shares with others.
    pub(super) round: Option<&'a Round>,
}

impl<'a> Visit<'a> {
    #[inline(always)]
    pub(super) fn new(
        arrival: Arrival<'a>,
        (counters, inserts, new_flows): (&'a WorkerCounters, &'a InsertLimit, &'a NewFlows),
        work: &'a Work,
        head: &'a [u8],
    ) -> Visit<'a> {
        let Arrival { tables, now, .. } = arrival;
        Visit { arrival, tables, counters, inserts, new_flows, now, work, parsed: work.parsed(), head, round: None }
    }

    /// The target of the packet.
    #[inline(never)]
    pub(super) fn target<K: FlowKey + Into<Key>, M: Memory>(
        &self,
        flows: &mut Table<K, M>,
    ) -> Result<TargetId, Refusal> {
        let words = K::Words::of_saved(&self.work.key);
        match self.follow::<K, M>(flows, self.work.hash, &words) {
            Some(target) if self.tables.targets[target.index()].reads_quic => {
                Ok(self.steer(flows, &K::from_words(&words), target))
            }
            Some(target) => {
                // A client that begins again, or a parent that has forgotten what it was told.
                if self.parsed.tcp_flags & tcp::SYN != 0 {
                    self.tell::<K>(&words, target);
                }
                Ok(target)
            }
            None => self.open(flows, words),
        }
    }

    /// The target of a flow that has an entry; counts the packet there.
    #[inline(always)]
    pub(super) fn follow<K: FlowKey, M: Memory>(
        &self,
        table: &mut Table<K, M>,
        hash: FlowHash,
        words: &K::Words,
    ) -> Option<TargetId> {
        let slot = table.find_live_words(hash, words, self.now, &self.tables.timeouts)?;
        let record = table.record_mut(slot);
        let state = record.state().after(self.parsed.tcp_flags);
        let Some(state) = state.filter(|_| !self.tables.targets[record.target().index()].moves) else {
            table.expire(slot);
            return None;
        };
        record.touch(self.now, state, self.parsed.l3_len);
        Some(record.target())
    }

    /// Gives a new flow to a child.
    fn open<K: FlowKey + Into<Key>, M: Memory>(
        &self,
        flows: &mut Table<K, M>,
        words: K::Words,
    ) -> Result<TargetId, Refusal> {
        let host = self.virtual_host(&K::from_words(&words)).ok_or(Refusal::NoVirtualHost)?;
        if host.on_unknown.is_some() && self.parsed.protocol == protocol::TCP && self.parsed.tcp_flags & tcp::SYN == 0 {
            return self.stray(flows, K::from_words(&words), host);
        }
        self.choose(flows, words, host, false)
    }

    /// Gives a flow that has no entry to a child. Where there is no room for its entry, or too many have been made, or it
    /// only `passes`, its packets are forwarded all the same, each by hash, so that they stay together.
    ///
    /// Its key is in words all the way: keys as bytes are loaded wider than they were stored, which stalls.
    #[inline(always)]
    pub(super) fn choose<K: FlowKey + Into<Key>, M: Memory>(
        &self,
        flows: &mut Table<K, M>,
        five_tuple: K::Words,
        host: &VirtualHost,
        passes: bool,
    ) -> Result<TargetId, Refusal> {
        let (words, chosen_by, hash, state) = match host.granularity {
            Granularity::FiveTuple => {
                let state = FlowState::of_first(self.parsed.protocol, self.parsed.tcp_flags);
                (five_tuple, five_tuple, self.work.hash, state)
            }
            Granularity::Source { v4, v6 } => {
                let key = K::from_words(&five_tuple);
                let prefix = if self.parsed.family == Family::V4 { v4 } else { v6 };
                // Numbers of virtual hosts are this router's own; all routers of the cluster are to choose alike.
                let chosen_by = key.coarse(VirtualHostId(0), prefix).words();
                let words = key.coarse(host.number, prefix).words();
                let hash = flows.hash_words(&words);
                if let Some(target) = self.follow::<K, M>(flows, hash, &words) {
                    // What else this client has stays where it is.
                    return Ok(self.certain(host, target));
                }
                (words, chosen_by, hash, FlowState::Other)
            }
        };
        let within_limit = !passes && self.inserts.take(self.now, self.tables.inserts_per_second);
        let vacancy = within_limit.then(|| match flows.free_vacancy(hash) {
            Some(vacancy) => Ok(vacancy),
            None if self.is_spent() => Err(Full),
            None => flows.vacancy(hash, self.now, &self.tables.timeouts),
        });
        let cluster_hash = self.tables.cluster.hash_words(chosen_by.as_ref(), size_of::<K>());
        // All clients of a coarse flow are where the first of its prefix is.
        let client = || K::from_words(&chosen_by).source();
        let member = match (self.named(host), &vacancy) {
            (Some(named), _) => {
                self.counters.quic_steered.add(1);
                Some(named.member())
            }
            (None, Some(Ok(_))) => self.tables.selector(host, client).select(cluster_hash),
            (None, Some(Err(Full)) | None) => self.tables.selector(host, client).select_again(cluster_hash),
        };
        let target = host.members[member.ok_or(Refusal::NoChild)?].target;
        match vacancy {
            Some(Ok(vacancy)) => {
                flows.fill_words(vacancy, hash, words, target, state, self.now).count(self.now, self.parsed.l3_len);
                self.counters.flows_inserted.add(1);
                self.counters.target(target).flows.add(1);
                self.tell::<K>(&five_tuple, target);
            }
            Some(Err(Full)) => self.counters.flows_refused.add(1),
            None if passes => self.counters.strays_passed.add(1),
            None => self.counters.flows_over_limit.add(1),
        }
        Ok(target)
    }

    /// Whether this burst has had its share of made room; takes a part of that if not.
    fn is_spent(&self) -> bool {
        let Some(round) = self.round else { return false };
        let efforts = round.efforts.get();
        round.efforts.set(efforts.saturating_add(1));
        efforts >= EFFORTS
    }

    /// Tells the slow path where a flow goes that a parent has sent.
    fn tell<K: FlowKey + Into<Key>>(&self, words: &K::Words, target: TargetId) {
        let Visit { arrival, counters, inserts, new_flows, .. } = *self;
        Desk { arrival, counters, inserts, new_flows }.tell::<K>(self.parsed.l3_offset, words, target);
    }

    pub(super) fn virtual_host<K: FlowKey>(&self, key: &K) -> Option<&'a VirtualHost> {
        let (destination, protocol, port) = (key.destination(), self.parsed.protocol, self.parsed.dst_port());
        let id = match self.round.and_then(|round| round.last_host.get()) {
            Some((to, by, at, id)) if (to, by, at) == (destination, protocol, port) => id,
            _ => self.tables.index.find(destination, protocol, port)?,
        };
        if let Some(round) = self.round {
            round.last_host.set(Some((destination, protocol, port, id)));
        }
        Some(&self.tables.virtual_hosts[id.index()])
    }
}
