//! How a new flow's child is chosen.
//!
//! ```text
//! candidates ──lowest tier that can──► (least cost: the cheapest, equal weights) ──► table of members
//!                                                                                        ▲
//!                                     flow key's cluster hash, or a cursor that goes round ┘
//! ```
//!
//! Policy is worked out when a table is built; a new flow only looks into it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::quality::RandomState;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::maglev::{Maglev, apportion, scale};
use super::preferences::Preferences;
use crate::units::Weight;

/// Which packets make up one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// Same protocol, addresses and ports.
    FiveTuple,
    /// Same client prefix of these lengths in bits (32 and 128: one client address), whatever protocol and ports.
    Source {
        /// Leading bits of an IPv4 source that count, 0 to 32.
        v4: u8,
        /// Leading bits of an IPv6 source that count, 0 to 128.
        v6: u8,
    },
}

/// Rule by which a virtual host's children share new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// In proportion to weights, the same child for the same flow on every router with the same key (Maglev).
    ConsistentHash,
    /// To the child with the least cost; equal ones share as by consistent hash.
    LeastCost,
    /// In turn, in proportion to weights. Each router has its own turn.
    RoundRobin,
}

/// A child that may get new flows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// Name, unique among the candidates, that all routers of the cluster agree on.
    pub name: &'a str,
    /// Share of new flows; 0 drains.
    pub weight: Weight,
    /// Cost of sending a flow there, for [`Policy::LeastCost`]; in any unit. Not a number counts as infinite.
    pub cost: f64,
    /// 0 is primary; a tier gets new flows only when no candidate of a lower one can take any.
    pub tier: u8,
    /// Whether it is up.
    pub available: bool,
}

impl Candidate<'_> {
    /// Whether a new flow may go to it, as far as it goes by this candidate alone.
    pub fn takes_flows(&self) -> bool {
        self.available && self.weight != Weight::DRAIN
    }

    fn cost(&self) -> f64 {
        if self.cost.is_nan() { f64::INFINITY } else { self.cost }
    }
}

/// Gives new flows of a virtual host their member. Shared by workers; only the cursor of round robin ever changes, which
/// copies have in common.
#[derive(Clone, Debug)]
pub struct Selector {
    table: Table,
    /// The candidates that take part, by name: what the table's entries are positions in.
    members: Arc<[u32]>,
}

/// Where a new flow's child is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The slot of its hash, or the next turn; from 0.
    pub place: usize,
    /// Slots, or turns in a cycle.
    pub places: usize,
    /// The candidate there, by its position.
    pub member: usize,
}

#[derive(Clone, Debug)]
enum Table {
    Hash(Maglev),
    /// The members in turn, and whose turn it is.
    Turn(Arc<Turns>),
}

/// A cycle of turns.
#[derive(Debug)]
struct Turns {
    cycle: Arc<[u16]>,
    /// Modulo its length.
    next: AtomicU32,
}

impl Selector {
    /// Works out who gets new flows under `policy`, with `table_size` slots where they are found by hash.
    pub fn build(policy: Policy, candidates: &[Candidate<'_>], table_size: u32, tables: &mut TableCache) -> Selector {
        let mut members = std::mem::take(&mut tables.scratch);
        members.clear();
        members.extend((0..).zip(candidates).filter(|(_, c)| c.takes_flows()).map(|(i, _)| i));
        let candidate = |member: &u32| &candidates[*member as usize];
        if let Some(active) = members.iter().map(|m| candidate(m).tier).min() {
            members.retain(|m| candidate(m).tier == active);
        }
        if policy == Policy::LeastCost {
            let least = members.iter().map(|m| candidate(m).cost()).fold(f64::INFINITY, f64::min);
            members.retain(|m| candidate(m).cost() <= least);
        }
        // Candidates listed in another order share the same table.
        members.sort_by_key(|m| candidate(m).name);
        let children = members.iter().map(|m| {
            let weight = if policy == Policy::LeastCost { EQUAL } else { candidate(m).weight };
            (candidate(m).name, weight)
        });
        let table = match policy {
            Policy::ConsistentHash | Policy::LeastCost => Table::Hash(tables.maglev(children, table_size)),
            Policy::RoundRobin => {
                let weights: Vec<u16> = children.map(|(_, weight)| weight.get()).collect();
                Table::Turn(Arc::new(Turns { cycle: tables.turns(&weights), next: AtomicU32::new(0) }))
            }
        };
        let selector = Selector { table, members: shared(&mut tables.members, &members) };
        tables.scratch = members;
        selector
    }

    /// Whether it gives all flows to the same candidates as `other`, in the same shares, by the same table. A turn that is
    /// under way does not count.
    pub fn is_same(&self, other: &Selector) -> bool {
        let table = match (&self.table, &other.table) {
            (Table::Hash(one), Table::Hash(other)) => Arc::ptr_eq(one.slots(), other.slots()),
            (Table::Turn(one), Table::Turn(other)) => Arc::ptr_eq(&one.cycle, &other.cycle),
            (Table::Hash(_), Table::Turn(_)) | (Table::Turn(_), Table::Hash(_)) => false,
        };
        table && self.members == other.members
    }

    /// Whether no candidate can take a new flow.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Like [`select`](Selector::select) for a packet whose flow cannot be remembered: always the same candidate for the
    /// same hash. Nobody's turn passes.
    pub fn select_again(&self, hash: u64) -> Option<usize> {
        match &self.table {
            Table::Hash(_) => self.select(hash),
            Table::Turn(turns) => {
                let turn = (u128::from(hash) * turns.cycle.len() as u128) >> 64;
                turns.cycle.get(turn as usize).map(|&entry| self.members[usize::from(entry)] as usize)
            }
        }
    }

    /// What [`select`](Selector::select) would find now, for people. Nobody's turn passes.
    pub fn look(&self, hash: u64) -> Option<Look> {
        let (entries, place): (&[u16], usize) = match &self.table {
            Table::Hash(table) => (table.slots(), scale(hash, table.slots().len() as u32)),
            Table::Turn(turns) => {
                let turn = turns.next.load(Ordering::Relaxed).checked_rem(turns.cycle.len() as u32)?;
                (&turns.cycle, turn as usize)
            }
        };
        let member = self.members[usize::from(*entries.get(place)?)] as usize;
        Some(Look { place, places: entries.len(), member })
    }

    /// The slots, or turns of a cycle, of each candidate, by its position; candidates that take no new flows are left
    /// out.
    pub fn shares(&self) -> BTreeMap<usize, usize> {
        let entries: &[u16] = match &self.table {
            Table::Hash(table) => table.slots(),
            Table::Turn(turns) => &turns.cycle,
        };
        let mut shares = BTreeMap::new();
        for &entry in entries {
            *shares.entry(self.members[usize::from(entry)] as usize).or_default() += 1;
        }
        shares
    }

    /// Hands to `prefetch` what [`select`](Selector::select) then reads that may be far away.
    #[inline]
    pub fn prefetch(&self, hash: u64, prefetch: impl Fn(&u16)) {
        if let Table::Hash(table) = &self.table
            && let Some(slot) = table.slots().get(scale(hash, table.slots().len() as u32))
        {
            prefetch(slot);
        }
    }

    /// The candidate, by its position, that gets the new flow whose key has this
    /// [`ClusterHash`](super::maglev::ClusterHash);
    /// `None` where no candidate can take any.
    #[inline]
    pub fn select(&self, hash: u64) -> Option<usize> {
        let entry = match &self.table {
            Table::Hash(table) => table.slot(hash)?,
            Table::Turn(turns) => {
                let length = turns.cycle.len() as u32;
                let turn = turns.next.fetch_add(1, Ordering::Relaxed).checked_rem(length)?;
                usize::from(turns.cycle[turn as usize])
            }
        };
        self.members.get(entry).map(|&member| member as usize)
    }
}

/// The weight of all, where weights do not count.
const EQUAL: Weight = Weight::new(1).expect("1 is in the range of weights");

/// Tables, and lists of members, that selectors share: those of equal children, weights and sizes are one.
#[derive(Debug)]
pub struct TableCache {
    key: [u8; 16],
    /// By what is in them: 128 bits of SipHash, which no two that anybody configures have in common.
    maglev: HashMap<u128, Maglev, RandomState>,
    turns: HashMap<Vec<u16>, Arc<[u16]>, RandomState>,
    members: HashSet<Arc<[u32]>, RandomState>,
    takers: HashSet<Arc<[bool]>, RandomState>,
    /// To work with.
    scratch: Vec<u32>,
    bytes: usize,
    /// Of those, made since unused ones were dropped.
    fresh: usize,
    /// Where children are in many tables.
    preferences: Option<Preferences>,
}

/// Unused tables are looked for when so many parts of the memory are new.
const SWEEP: usize = 4;

impl TableCache {
    /// No tables yet; `key` is the cluster's.
    pub fn new(key: [u8; 16]) -> TableCache {
        TableCache {
            key,
            maglev: HashMap::default(),
            turns: HashMap::default(),
            members: HashSet::default(),
            takers: HashSet::default(),
            scratch: Vec::new(),
            bytes: 0,
            fresh: 0,
            preferences: None,
        }
    }

    /// The cluster's key that the tables are made with.
    pub fn key(&self) -> &[u8; 16] {
        &self.key
    }

    /// Memory of all tables, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memory of what makes new ones quick, in bytes.
    pub fn preference_bytes(&self) -> usize {
        self.preferences.as_ref().map_or(0, Preferences::bytes)
    }

    /// Whether children are in so many tables that it is worth to remember what they prefer.
    pub fn remember(&mut self, many: bool) {
        self.preferences = self.preferences.take().filter(|_| many).or_else(|| many.then(Preferences::default));
    }

    /// Which of the candidates take new flows.
    pub fn takers(&mut self, takes: &[bool]) -> Arc<[bool]> {
        shared(&mut self.takers, takes)
    }

    /// Drops the tables that no selector holds any more, unless they can only be a small part of all.
    pub fn drop_unused(&mut self) {
        if self.fresh * SWEEP < self.bytes {
            return;
        }
        self.maglev.retain(|_, table| Arc::strong_count(table.slots()) > 1);
        self.turns.retain(|_, table| Arc::strong_count(table) > 1);
        self.members.retain(|list| Arc::strong_count(list) > 1);
        self.takers.retain(|list| Arc::strong_count(list) > 1);
        let maglev = self.maglev.values().map(Maglev::slots);
        self.bytes = maglev.chain(self.turns.values()).map(bytes).sum();
        self.fresh = 0;
    }

    fn maglev<'a>(&mut self, children: impl ExactSizeIterator<Item = (&'a str, Weight)> + Clone, size: u32) -> Maglev {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u32(size);
        // Whoever is alone has all slots.
        let alone = children.len() == 1;
        for (name, weight) in children.clone().filter(|_| !alone) {
            hasher.write_u16(weight.get());
            hasher.write_usize(name.len());
            hasher.write(name.as_bytes());
        }
        hasher.write_u8(alone.into());
        let table = self.maglev.entry(hasher.finish128().as_u128()).or_insert_with(|| {
            let children: Vec<(&str, Weight)> = if alone { vec![("", EQUAL)] } else { children.collect() };
            let table = match &mut self.preferences {
                Some(preferences) => Maglev::build_with(&children, size, &self.key, preferences),
                None => Maglev::build(&children, size, &self.key),
            };
            self.fresh += bytes(table.slots());
            self.bytes += bytes(table.slots());
            table
        });
        table.clone()
    }

    fn turns(&mut self, weights: &[u16]) -> Arc<[u16]> {
        let table = self.turns.entry(weights.to_vec()).or_insert_with(|| {
            let table = turns(weights);
            self.fresh += bytes(&table);
            self.bytes += bytes(&table);
            table
        });
        table.clone()
    }
}

/// A list that all who have the same one share.
fn shared<T: Copy + Eq + Hash>(lists: &mut HashSet<Arc<[T]>, RandomState>, list: &[T]) -> Arc<[T]> {
    lists.get(list).cloned().unwrap_or_else(|| {
        let list: Arc<[T]> = list.into();
        lists.insert(list.clone());
        list
    })
}

fn bytes(table: &Arc<[u16]>) -> usize {
    size_of_val::<[u16]>(table)
}

/// Turns in a cycle of round robin at most, as long as there are fewer members.
const TURNS_MAX: u32 = 1 << 14;

/// A cycle of turns, each a position in `weights`: as many for each as its weight, spread evenly.
///
/// Weights are divided by their greatest common divisor. Where they still add up to more than [`TURNS_MAX`] they are
/// scaled down to that, rounded to the largest remainders but to no less than one turn: a share is off by less than
/// one turn in the cycle, or has one turn where it would have none. Weights are above 0.
fn turns(weights: &[u16]) -> Arc<[u16]> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let mut counts: Vec<u32> = weights.iter().map(|&weight| u32::from(weight / divisor)).collect();
    if counts.iter().sum::<u32>() > TURNS_MAX {
        let shares: Vec<(u32, u64)> = counts.iter().copied().zip(0..).collect();
        counts = apportion(&shares, TURNS_MAX).into_iter().map(|count| count.max(1)).collect();
    }
    // Each member gains its count in every turn; the richest takes the turn and pays for it with a whole cycle's worth.
    let cycle: i64 = counts.iter().copied().map(i64::from).sum();
    let mut credit = vec![0; counts.len()];
    (0..cycle)
        .filter_map(|_| {
            for (credit, &count) in credit.iter_mut().zip(&counts) {
                *credit += i64::from(count);
            }
            // The first of the richest.
            let richest = (0..credit.len()).rev().max_by_key(|&member| credit[member])?;
            credit[richest] -= cycle;
            u16::try_from(richest).ok()
        })
        .collect()
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::maglev::ClusterHash;

    const KEY: [u8; 16] = *b"all routers know";
    const SIZE: u32 = 1021;

    fn candidate(name: &str, weight: u16) -> Candidate<'_> {
        Candidate { name, weight: Weight::new(weight).unwrap(), cost: 0.0, tier: 0, available: true }
    }

    fn build(policy: Policy, candidates: &[Candidate<'_>]) -> Selector {
        Selector::build(policy, candidates, SIZE, &mut TableCache::new(KEY))
    }

    /// Of 10,000 new flows, how many each candidate gets.
    fn counts(selector: &Selector, candidates: usize) -> Vec<u32> {
        let hash = ClusterHash::new(&KEY);
        let mut counts = vec![0; candidates];
        for flow in 0..10_000u32 {
            if let Some(member) = selector.select(hash.hash(&flow.to_be_bytes())) {
                counts[member] += 1;
            }
        }
        counts
    }

    /// Which candidates get new flows at all.
    fn chosen(policy: Policy, candidates: &[Candidate<'_>]) -> Vec<bool> {
        counts(&build(policy, candidates), candidates.len()).into_iter().map(|count| count > 0).collect()
    }

    const POLICIES: [Policy; 3] = [Policy::ConsistentHash, Policy::LeastCost, Policy::RoundRobin];

    #[test]
    fn weight_0_and_unavailability_drain() {
        for policy in POLICIES {
            let mut candidates = [candidate("a", 0), candidate("b", 1), candidate("c", 1)];
            assert_eq!(chosen(policy, &candidates), [false, true, true], "{policy:?}");
            candidates[1].available = false;
            assert_eq!(chosen(policy, &candidates), [false, false, true], "{policy:?}");
            candidates[2].weight = Weight::DRAIN;
            assert_eq!(chosen(policy, &candidates), [false, false, false], "{policy:?}");
            assert_eq!(build(policy, &[]).select(0), None, "{policy:?}");
        }
    }

    #[test]
    fn a_tier_takes_over_and_gives_back() {
        let tiers = [3, 1, 1, 2];
        // Available, and then who gets new flows.
        let cases = [
            ([true, true, true, true], [false, true, true, false]),
            ([true, false, true, true], [false, false, true, false]),
            ([true, false, false, true], [false, false, false, true]),
            ([true, false, false, false], [true, false, false, false]),
            ([false, false, false, false], [false, false, false, false]),
            ([true, true, false, true], [false, true, false, false]),
        ];
        for policy in POLICIES {
            for (available, expected) in cases {
                let mut candidates = ["a", "b", "c", "d"].map(|name| candidate(name, 1));
                for ((candidate, tier), available) in candidates.iter_mut().zip(tiers).zip(available) {
                    (candidate.tier, candidate.available) = (tier, available);
                }
                assert_eq!(chosen(policy, &candidates), expected, "{policy:?} {available:?}");
            }
        }
    }

    #[test]
    fn a_tier_that_is_drained_gives_way() {
        let candidates = [candidate("primary", 0), Candidate { tier: 1, ..candidate("backup", 1) }];
        assert_eq!(chosen(Policy::ConsistentHash, &candidates), [false, true]);
    }

    #[test]
    fn the_least_cost_of_the_active_tier_wins_and_ties_share() {
        let cases = [
            ([3.0, 1.0, 2.0, 0.5], [false, true, false, false]),
            ([1.0, 1.0, 2.0, 0.5], [true, true, false, false]),
            ([0.0, -0.0, 0.0, 0.0], [true, true, true, false]),
            ([f64::NAN, 7.0, f64::INFINITY, 0.0], [false, true, false, false]),
            ([f64::NAN, f64::INFINITY, f64::NAN, 0.0], [true, true, true, false]),
        ];
        for (costs, expected) in cases {
            // The cheapest of all is a backup, and weights above 0 do not count.
            let mut candidates = [candidate("a", 1), candidate("b", 1000), candidate("c", 1), candidate("d", 1)];
            candidates[3].tier = 1;
            for (candidate, cost) in candidates.iter_mut().zip(costs) {
                candidate.cost = cost;
            }
            let counts = counts(&build(Policy::LeastCost, &candidates), 4);
            let fair = 10_000 / expected.iter().filter(|&&gets| gets).count() as u32;
            for (count, gets) in counts.into_iter().zip(expected) {
                let expected = if gets { fair - 300..fair + 300 } else { 0..1 };
                assert!(expected.contains(&count), "{costs:?}: {count}");
            }
        }
    }

    #[test]
    fn consistent_hash_follows_weights_and_not_the_order_of_candidates() {
        let candidates = [candidate("a", 1), candidate("b", 0), candidate("c", 3), candidate("d", 6)];
        let selector = build(Policy::ConsistentHash, &candidates);
        for (count, expected) in counts(&selector, 4).into_iter().zip([1000, 0, 3000, 6000]) {
            assert!(count.abs_diff(expected) <= expected / 5, "{count} of {expected}");
        }
        let mut reversed = candidates;
        reversed.reverse();
        let other = build(Policy::ConsistentHash, &reversed);
        for flow in 0..10_000u64 {
            let hash = flow << 50 | flow;
            let name = |candidates: &[Candidate<'static>; 4], selector: &Selector| {
                selector.select(hash).map(|member| candidates[member].name)
            };
            assert_eq!(name(&candidates, &selector), name(&reversed, &other), "{hash}");
        }
    }

    #[test]
    fn round_robin_goes_round() {
        let cases: [(&[u16], &[usize]); 4] = [
            (&[1, 1, 1], &[0, 1, 2]),
            (&[5, 1, 1], &[0, 0, 1, 0, 2, 0, 0]),
            (&[600, 0, 200], &[0, 0, 2, 0]),
            (&[7], &[0]),
        ];
        for (weights, cycle) in cases {
            let candidates: Vec<_> = ["a", "b", "c"].iter().zip(weights).map(|(name, &w)| candidate(name, w)).collect();
            let selector = build(Policy::RoundRobin, &candidates);
            for _ in 0..3 {
                let turns: Vec<_> = (0..cycle.len()).filter_map(|_| selector.select(0)).collect();
                assert_eq!(turns, cycle, "{weights:?}");
            }
        }
    }

    #[test]
    fn a_cycle_is_exact_and_smooth() {
        for weights in [&[1u16, 2, 3][..], &[2, 13, 111, 10], &[100, 99, 98, 1], &[9973, 1, 1], &[4000, 6000, 3000]] {
            let cycle = turns(weights);
            let divisor = weights.iter().copied().fold(0, gcd);
            let sum: u32 = weights.iter().map(|&weight| u32::from(weight / divisor)).sum();
            assert_eq!(cycle.len(), sum as usize, "{weights:?}");
            for (member, weight) in weights.iter().enumerate() {
                let rate = f64::from(weight / divisor) / f64::from(sum);
                let mut had = 0.0;
                for (turn, &whose) in cycle.iter().enumerate() {
                    had += if usize::from(whose) == member { 1.0 } else { 0.0 };
                    let due = rate * (turn + 1) as f64;
                    let late: f64 = had - due;
                    assert!(late.abs() < weights.len() as f64 / 2.0, "{weights:?}: {member} had {had} of {due}");
                }
                assert_eq!(had, f64::from(weight / divisor), "{weights:?}: {member}");
            }
        }
    }

    #[test]
    fn long_cycles_are_rounded_and_forget_nobody() {
        let mut weights = vec![10_000; 99];
        weights.extend([1, 4999]);
        let cycle = turns(&weights);
        let count = |member: u16| cycle.iter().filter(|&&whose| whose == member).count() as f64;
        assert!(cycle.len() <= TURNS_MAX as usize + 1);
        assert_eq!(count(99), 1.0);
        for (member, weight) in [(0, 10_000.0), (98, 10_000.0), (100, 4999.0)] {
            let due = weight / 995_000.0 * f64::from(TURNS_MAX);
            assert!((count(member) - due).abs() <= 1.0, "{} turns of {due}", count(member));
        }
    }

    #[test]
    fn equal_children_share_one_table() {
        let mut tables = TableCache::new(KEY);
        let children = [candidate("a", 1), candidate("b", 2), candidate("c", 0)];
        let reordered = [candidate("b", 2), candidate("a", 1)];
        let one = SIZE as usize * size_of::<u16>();
        // Policy, candidates, slots, and the bytes of all tables after it.
        let steps = [
            (Policy::ConsistentHash, &children[..], SIZE, one),
            (Policy::ConsistentHash, &children[..], SIZE, one),
            (Policy::ConsistentHash, &reordered[..], SIZE, one),
            (Policy::LeastCost, &children[..], SIZE, 2 * one),
            (Policy::LeastCost, &reordered[..], SIZE, 2 * one),
            (Policy::ConsistentHash, &children[..1], SIZE, 3 * one),
            (Policy::ConsistentHash, &children[..], 7, 3 * one + 14),
            (Policy::RoundRobin, &children[..], SIZE, 3 * one + 14 + 6),
            (Policy::RoundRobin, &reordered[..], SIZE, 3 * one + 14 + 6),
        ];
        let mut selectors = Vec::new();
        for (step, (policy, candidates, size, bytes)) in steps.into_iter().enumerate() {
            selectors.push(Selector::build(policy, candidates, size, &mut tables));
            assert_eq!(tables.bytes(), bytes, "step {step}");
        }
        selectors.truncate(1);
        tables.drop_unused();
        assert_eq!(tables.bytes(), one);
    }

    #[test]
    fn workers_share_the_turns() {
        let candidates = [candidate("a", 1), candidate("b", 3)];
        let selector = build(Policy::RoundRobin, &candidates);
        let b: usize = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1000).filter(|_| selector.select(0) == Some(1)).count())).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(b, 3000);
    }
}
