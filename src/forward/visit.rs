//! Which child a packet goes to: the one of its flow, or, of a new flow, the one that its virtual host chooses.

use zerocopy::FromZeros;

use super::counters::WorkerCounters;
use super::pipeline::{Arrival, Work};
use super::tables::{ForwardTables, VirtualHost};
use super::verdict::Refusal;
use crate::clock::Tick;
use crate::flow::key::FlowKey;
use crate::flow::memory::Memory;
use crate::flow::state::FlowState;
use crate::flow::table::{FlowHash, Full, Hint, Table};
use crate::packet::parse::{Family, Parsed};
use crate::service::selection::Granularity;
use crate::units::{TargetId, VirtualHostId};

/// One packet's visit to the flow table and, where that does not know it, to its virtual host.
pub(super) struct Visit<'a> {
    pub(super) tables: &'a ForwardTables,
    pub(super) counters: &'a WorkerCounters,
    pub(super) now: Tick,
    pub(super) work: &'a Work,
    pub(super) parsed: &'a Parsed,
    /// The packet's first segment.
    pub(super) head: &'a [u8],
}

impl<'a> Visit<'a> {
    #[inline(always)]
    pub(super) fn new(
        Arrival { tables, now, .. }: Arrival<'a>,
        counters: &'a WorkerCounters,
        work: &'a Work,
        head: &'a [u8],
    ) -> Visit<'a> {
        Visit { tables, counters, now, work, parsed: &work.parsed, head }
    }

    /// The target of the packet with this 5-tuple.
    #[inline(always)]
    pub(super) fn target<K: FlowKey + FromZeros, M: Memory>(
        &self,
        flows: &mut Table<K, M>,
        key: K,
    ) -> Result<TargetId, Refusal> {
        match self.follow(flows, self.work.hint, self.work.hash, &key) {
            Some(target) if self.tables.targets[target.index()].reads_quic => Ok(self.steer(flows, &key, target)),
            Some(target) => Ok(target),
            None => self.open(flows, key),
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
    fn open<K: FlowKey + FromZeros, M: Memory>(&self, flows: &mut Table<K, M>, key: K) -> Result<TargetId, Refusal> {
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
                let hash = flows.hash(&key);
                if let Some(target) = self.follow(flows, Hint::NONE, hash, &key) {
                    // What else this client has stays where it is.
                    return Ok(self.certain(host, target));
                }
                (key, chosen_by, hash, FlowState::Other)
            }
        };
        let vacancy = flows.vacancy(hash, self.now, &self.tables.timeouts);
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
                let entry = flows.fill(vacancy, hash, key, target, state, self.now);
                entry.touch(self.now, state, self.parsed.l3_len);
                self.counters.flows_inserted.add(1);
                self.counters.target(target).flows.add(1);
            }
            Err(Full) => self.counters.flows_refused.add(1),
        }
        Ok(target)
    }

    fn virtual_host<K: FlowKey>(&self, key: &K) -> Option<&'a VirtualHost> {
        let id = self.tables.index.find(key.destination(), self.parsed.protocol, self.parsed.dst_port)?;
        Some(&self.tables.virtual_hosts[id.index()])
    }
}
