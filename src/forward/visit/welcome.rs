//! Which new flows of a burst are given a child and an entry together: those whose virtual host has nothing to weigh but
//! whose turn it is, where there is room for them at once.
//!
//! All others are left to a [`Visit`](super::Visit) of their own. Here two looks into memory are ahead of their use: into
//! the table of children, and, since [`locate`](Table::locate), into the record and the time of making.

use arrayvec::ArrayVec;

use crate::flow::key::{FlowKey, Words};
use crate::flow::limit::InsertLimit;
use crate::flow::memory::Memory;
use crate::flow::state::FlowState;
use crate::flow::table::Table;
use crate::forward::counters::WorkerCounters;
use crate::forward::inspect::Key;
use crate::forward::io::BURST;
use crate::forward::orders::{NewFlow, NewFlows};
use crate::forward::tables::{ForwardTables, NO_PATH, VirtualHost};
use crate::forward::work::{Arrival, What, Work};
use crate::service::selection::{Granularity, Selector};
use crate::units::TargetId;

/// What new flows need.
pub(in crate::forward) struct Desk<'a> {
    pub(in crate::forward) arrival: Arrival<'a>,
    pub(in crate::forward) counters: &'a WorkerCounters,
    pub(in crate::forward) inserts: &'a InsertLimit,
    pub(in crate::forward) new_flows: &'a NewFlows,
}

/// A virtual host and who gets its new flows.
#[derive(Clone, Copy)]
struct Host<'a> {
    host: &'a VirtualHost,
    selector: &'a Selector,
}

/// A new flow that will have an entry.
struct Newcomer<'a> {
    /// Its packet's place in the burst.
    place: usize,
    by: Host<'a>,
    /// The hash by which its child is chosen.
    cluster_hash: u64,
}

impl<'a> Desk<'a> {
    /// Gives children and entries to the new flows over one family; whether any stay without, which are not touched.
    ///
    /// Nothing else makes entries meanwhile, so a room that was found free and still is says that the flow has no entry.
    pub(in crate::forward) fn welcome<K: FlowKey + Into<Key>, M: Memory>(
        &self,
        flows: &mut Table<K, M>,
        what: What,
        works: &mut [Work],
    ) -> bool {
        let Arrival { tables, now, .. } = self.arrival;
        let mut newcomers = ArrayVec::<Newcomer<'_>, BURST>::new();
        let mut others = false;
        // In a flood of new flows most are for one service.
        let mut last = None;
        for (place, work) in works.iter().enumerate().take(BURST) {
            if work.what != what || work.path != NO_PATH {
                continue;
            }
            if !work.hint.is_room() {
                others = true;
                continue;
            }
            let words = K::Words::of_saved(&work.key);
            let by = match last {
                Some((other, by)) if words.equals_in(&other, &K::service()) => by,
                _ => {
                    let by = host(tables, &K::from_words(&words));
                    last = Some((words, by));
                    by
                }
            };
            let Some(by) = by else {
                others = true;
                continue;
            };
            let cluster_hash = tables.cluster.hash_words(words.as_ref(), size_of::<K>());
            by.selector.prefetch(cluster_hash, M::prefetch);
            newcomers.push(Newcomer { place, by, cluster_hash });
        }
        self.inserts.renew(now, tables.inserts_per_second);
        let mut made = 0;
        for Newcomer { place, by, cluster_hash } in &newcomers {
            let work = &mut works[*place];
            let Some(vacancy) = flows.hinted_room(work.hint) else { continue };
            if !self.inserts.take_more() {
                break;
            }
            let Some(member) = by.selector.select(*cluster_hash) else { continue };
            let target = by.host.members[member].target;
            let words = K::Words::of_saved(&work.key);
            let state = FlowState::of_first(words.protocol(), work.tcp_flags);
            flows.fill_words(vacancy, work.hash, words, target, state, now).count(now, work.inner.bytes());
            self.counters.target(target).flows.add(1);
            self.tell::<K>(work.inner.l3_offset, &words, target);
            work.settle(tables, target);
            made += 1;
        }
        self.counters.flows_inserted.add(made as u64);
        others || made < newcomers.len()
    }

    /// Tells the slow path where a flow goes that a parent has sent.
    #[inline(always)]
    pub(super) fn tell<K: FlowKey + Into<Key>>(&self, l3_offset: u16, words: &K::Words, target: TargetId) {
        if self.arrival.tables.tells_new_flows
            && l3_offset == 0
            && !self.new_flows.push(NewFlow { key: K::from_words(words).into(), target })
        {
            self.counters.flows_untold.add(1);
        }
    }
}

/// The virtual host of a flow's first packet, where it has nothing to weigh.
#[inline(never)]
fn host<'a, K: FlowKey>(tables: &'a ForwardTables, key: &K) -> Option<Host<'a>> {
    let id = tables.index.find(key.destination(), key.protocol(), key.destination_port())?;
    let host = &tables.virtual_hosts[id.index()];
    let selection = tables.selection(host);
    let selector = &selection.selector;
    let has_more_to_weigh = host.granularity != Granularity::FiveTuple
        || host.quic.is_some()
        || host.on_unknown.is_some()
        || selection.by_region.is_some();
    (!has_more_to_weigh && !selector.is_empty()).then_some(Host { host, selector })
}
