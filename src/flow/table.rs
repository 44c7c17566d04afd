//! The flow table of one worker: fixed memory, bounded work per operation, lazy expiry.
//!
//! Two arrays. `tags` holds 16 bits of the hash of every slot, eight slots to a bucket, so that one 16-byte load tells
//! which slot to look at; it is small enough to stay in the outer caches. `entries` holds the rest, one entry a slot:
//!
//! ```text
//! entry  key 13 or 37 | state 1 | packets (high) 2 | target 4 | last seen 4 | created 4 | packets (low) 4 | bytes 8
//!        = 40 bytes for IPv4, 64 bytes for IPv6; with tag and at 3/4 load 56 and 88 bytes a flow
//! ```
//!
//! A key may be in either of two buckets that its hash names. Insertion takes the first free or expired slot of the two,
//! else moves one of their sixteen entries to that entry's own other bucket, else gives up and says so. Nothing ever
//! looks at more than those eighteen buckets, so a flood of chosen keys costs what any flood costs; the hash is keyed
//! for each table anyway.
//!
//! Lost against this: asking for the tags of the first bucket alone, and comparing them one by one, with a branch to the
//! second bucket. That is a dependent miss and a mispredicted branch for every fifth flow (1 M flows, least of many
//! rounds: IPv4 253 ns a packet against 78, IPv6 198 against 86).

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use zerocopy::{FromZeros, IntoBytes};

use super::key::FlowKey;
use super::memory::{Heap, Memory};
use super::state::{FlowState, Timeouts};
use crate::clock::Tick;
use crate::units::TargetId;

/// Slots in a bucket.
pub const BUCKET: usize = 8;

/// Buckets of the smallest table.
const BUCKETS_MIN: usize = 8;

/// Tag of a free slot.
const FREE: u16 = 0;

/// The tags of a bucket's slots; one load wide.
#[derive(Clone, Copy, FromZeros)]
#[repr(C, align(16))]
struct Tags([u16; BUCKET]);

impl Tags {
    /// The slots that carry `tag`, as bits: slot `i` is bit `16 i` for the first four, `16 (i - 4) + 1` for the others.
    #[inline(always)]
    fn matching(&self, tag: u16) -> u64 {
        // Four tags to a word. A lane of `word ^ pattern` is zero where they agree, and the addition carries into the top
        // bit of every lane that is not.
        const LOW: u64 = 0x7fff_7fff_7fff_7fff;
        let pattern = u64::from(tag) * 0x0001_0001_0001_0001;
        let agreeing = |tags: [u16; 4]| {
            let [a, b, c, d] = tags.map(u64::from);
            let differing = (a | b << 16 | c << 32 | d << 48) ^ pattern;
            !(((differing & LOW) + LOW) | differing) & !LOW
        };
        let [a, b, c, d, e, f, g, h] = self.0;
        agreeing([a, b, c, d]) >> 15 | agreeing([e, f, g, h]) >> 14
    }
}

/// The slot in its bucket of a bit of [`Tags::matching`].
#[inline(always)]
fn slot_of(bit: u32) -> usize {
    (bit / 16 + bit % 2 * 4) as usize
}

/// What is known of one flow.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
pub struct Entry<K> {
    key: K,
    state: u8,
    packets_high: [u8; 2],
    target: u32,
    last_seen: u32,
    created: u32,
    packets_low: u32,
    bytes: u64,
}

const _: () = assert!(size_of::<Entry<super::key::KeyV4>>() == 40);
const _: () = assert!(size_of::<Entry<super::key::KeyV6>>() == 64);

impl<K: FlowKey> Entry<K> {
    /// The flow's key.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Where its packets go.
    #[inline]
    pub fn target(&self) -> TargetId {
        TargetId(self.target)
    }

    /// How far it has come.
    #[inline]
    pub fn state(&self) -> FlowState {
        FlowState::ALL.get(usize::from(self.state)).copied().unwrap_or(FlowState::Other)
    }

    /// Packets so far, modulo 2^48.
    pub fn packets(&self) -> u64 {
        u64::from(u16::from_ne_bytes(self.packets_high)) << 32 | u64::from(self.packets_low)
    }

    /// Bytes of IP packets so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Time from its first packet to its last.
    pub fn duration(&self) -> Duration {
        Duration::from_millis(u64::from(Tick(self.last_seen).since(Tick(self.created))))
    }

    /// Sends its packets to another target from now on.
    pub fn redirect(&mut self, target: TargetId) {
        self.target = target.0;
    }

    /// Counts one packet of `bytes` bytes that leaves the flow in `state`.
    #[inline]
    pub fn touch(&mut self, now: Tick, state: FlowState, bytes: u32) {
        self.last_seen = now.0;
        self.state = state as u8;
        self.bytes += u64::from(bytes);
        let (low, carry) = self.packets_low.overflowing_add(1);
        self.packets_low = low;
        if carry {
            self.packets_high = u16::from_ne_bytes(self.packets_high).wrapping_add(1).to_ne_bytes();
        }
    }

    /// When its first packet came.
    pub fn created(&self) -> Tick {
        Tick(self.created)
    }

    /// When its last packet came.
    pub fn last_seen(&self) -> Tick {
        Tick(self.last_seen)
    }

    /// Whether it is past its time.
    #[inline]
    pub fn expired(&self, now: Tick, timeouts: &Timeouts) -> bool {
        now.since(Tick(self.last_seen)) > timeouts.of(self.state)
    }
}

/// Hash of a key in one table; good for that table only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowHash(u64);

impl FlowHash {
    /// 64 evenly spread bits, for choices that need not agree with another router's.
    #[inline]
    pub fn bits(self) -> u64 {
        self.0
    }
}

/// A slot that holds an entry, until the next insertion or removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// Where a key was going to be found when [`Table::prefetch_entry`] looked; good for nothing else, and always allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint(usize);

impl Hint {
    /// No idea.
    pub const NONE: Hint = Hint(usize::MAX);
}

/// Room for an entry, until the next change of the table.
#[derive(Clone, Copy, Debug)]
pub struct Vacancy(usize);

/// Why a flow has no entry: the table holds as many as it was made for, or both of its buckets are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the flow table is full")]
pub struct Full;

/// A flow table.
pub struct Table<K: FlowKey, M: Memory = Heap> {
    tags: M::Slice<Tags>,
    entries: M::Slice<Entry<K>>,
    hasher: SeedableRandomState,
    capacity: usize,
    len: usize,
    expired: u64,
    /// Next bucket to age.
    hand: usize,
}

impl<K: FlowKey + FromZeros, M: Memory> Table<K, M> {
    /// A table for `capacity` flows, or `None` when there is not that much memory. Its hash has this seed, or one that
    /// nobody can foresee.
    pub fn new(capacity: u32, seed: Option<u64>) -> Option<Table<K, M>> {
        let buckets = buckets(capacity);
        let shared = SharedSeed::global_fixed();
        let hasher = seed.map_or_else(SeedableRandomState::random, |seed| SeedableRandomState::with_seed(seed, shared));
        Some(Table {
            tags: M::zeroed(buckets)?,
            entries: M::zeroed(buckets * BUCKET)?,
            hasher,
            capacity: capacity as usize,
            len: 0,
            expired: 0,
            hand: 0,
        })
    }

    /// Memory that a table for `capacity` flows takes, in bytes.
    pub fn bytes(capacity: u32) -> u64 {
        (buckets(capacity) * (size_of::<Tags>() + BUCKET * size_of::<Entry<K>>())) as u64
    }

    /// Entries, including those that are past their time and not yet reclaimed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when no entry is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entries reclaimed because their time was over.
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// The hash by which `key` is found in this table.
    #[inline]
    pub fn hash(&self, key: &K) -> FlowHash {
        FlowHash(self.hasher.hash_one(key))
    }

    /// The first of the two buckets for `hash`.
    #[inline]
    fn first_bucket(&self, hash: FlowHash) -> usize {
        scale(hash.0 as u32, self.tags.len())
    }

    /// The other of the two.
    #[inline]
    fn second_bucket(&self, hash: FlowHash) -> usize {
        scale((hash.0 >> 32) as u32, self.tags.len())
    }

    /// Hands to `prefetch` what [`find`](Table::find) reads first.
    #[inline]
    pub fn prefetch_tags(&self, hash: FlowHash, prefetch: impl Fn(&u16)) {
        prefetch(&self.tags[self.first_bucket(hash)].0[0]);
        prefetch(&self.tags[self.second_bucket(hash)].0[0]);
    }

    /// Hands to `prefetch` what [`find`](Table::find) reads next, and says where that is; reads the tags.
    #[inline]
    pub fn prefetch_entry(&self, hash: FlowHash, prefetch: impl Fn(&u8)) -> Hint {
        let candidates = self.candidates(hash);
        // A new flow's entry will be written where there is room.
        let slot = match candidates {
            0 => self.free_in(self.first_bucket(hash)).unwrap_or(0),
            _ => self.slot(hash, candidates),
        };
        let entry = &self.entries[slot];
        // IPv4 entries may lie across two cache lines.
        prefetch(&entry.key.as_bytes()[0]);
        prefetch(&entry.bytes.as_bytes()[7]);
        if candidates == 0 { Hint::NONE } else { Hint(slot) }
    }

    /// The slots of both buckets that carry the hash's tag: bits of [`Tags::matching`], those of the second bucket two
    /// places up. Both at once, since a branch on which bucket it is would be mispredicted for every fifth packet.
    #[inline(always)]
    fn candidates(&self, hash: FlowHash) -> u64 {
        let tag = tag(hash);
        self.tags[self.first_bucket(hash)].matching(tag) | self.tags[self.second_bucket(hash)].matching(tag) << 2
    }

    /// The slot of the lowest of `candidates`.
    #[inline(always)]
    fn slot(&self, hash: FlowHash, candidates: u64) -> usize {
        let bit = candidates.trailing_zeros();
        let half = if bit & 2 == 0 { hash.0 as u32 } else { (hash.0 >> 32) as u32 };
        scale(half, self.tags.len()) * BUCKET + slot_of(bit)
    }

    /// The entry of `key`, expired or not.
    pub fn find(&self, hash: FlowHash, key: &K) -> Option<Slot> {
        let mut candidates = self.candidates(hash);
        while candidates != 0 {
            let slot = self.slot(hash, candidates);
            if self.entries[slot].key == *key {
                return Some(Slot(slot));
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// The same as [`find`](Table::find), and quicker where the hint is still right.
    #[inline(always)]
    pub fn find_near(&self, hint: Hint, hash: FlowHash, key: &K) -> Option<Slot> {
        match (self.tags.get(hint.0 / BUCKET), self.entries.get(hint.0)) {
            // A free slot keeps the key that it had.
            (Some(tags), Some(entry)) if tags.0[hint.0 % BUCKET] != FREE && entry.key == *key => Some(Slot(hint.0)),
            _ => self.find(hash, key),
        }
    }

    /// The entry of `key` that is not past its time at `now`. One that is gets removed and counted.
    #[inline(always)]
    pub fn find_live(&mut self, hint: Hint, hash: FlowHash, key: &K, now: Tick, timeouts: &Timeouts) -> Option<Slot> {
        let slot = self.find_near(hint, hash, key)?;
        if self.entries[slot.0].expired(now, timeouts) {
            self.expire(slot);
            return None;
        }
        Some(slot)
    }

    /// The entry of `key` that is not past its time at `now`; changes nothing.
    pub fn peek(&self, key: &K, now: Tick, timeouts: &Timeouts) -> Option<&Entry<K>> {
        let slot = self.find(self.hash(key), key)?;
        Some(self.entry(slot)).filter(|entry| !entry.expired(now, timeouts))
    }

    /// The entry in `slot`.
    #[inline]
    pub fn entry(&self, slot: Slot) -> &Entry<K> {
        &self.entries[slot.0]
    }

    /// The entry in `slot`, to change.
    #[inline]
    pub fn entry_mut(&mut self, slot: Slot) -> &mut Entry<K> {
        &mut self.entries[slot.0]
    }

    /// Finds, or makes, room for the entry of a key with this hash.
    pub fn vacancy(&mut self, hash: FlowHash, now: Tick, timeouts: &Timeouts) -> Result<Vacancy, Full> {
        let (first, second) = (self.first_bucket(hash), self.second_bucket(hash));
        let slot = self
            .free_in(first)
            .or_else(|| self.free_in(second))
            .filter(|_| self.len < self.capacity)
            .or_else(|| self.reclaim_in(first, now, timeouts))
            .or_else(|| self.reclaim_in(second, now, timeouts))
            .or_else(|| if self.len < self.capacity { self.make_room(first, second) } else { None });
        slot.map(Vacancy).ok_or(Full)
    }

    /// Puts an entry without packets for `key`, which must not be in the table, into the room that was made for it.
    pub fn fill(
        &mut self,
        Vacancy(slot): Vacancy,
        hash: FlowHash,
        key: K,
        target: TargetId,
        state: FlowState,
        now: Tick,
    ) -> &mut Entry<K> {
        debug_assert!(self.find(hash, &key).is_none(), "the key is in the table already");
        self.tags[slot / BUCKET].0[slot % BUCKET] = tag(hash);
        self.len += 1;
        let entry = &mut self.entries[slot];
        *entry = Entry {
            key,
            state: state as u8,
            packets_high: [0; 2],
            target: target.0,
            last_seen: now.0,
            created: now.0,
            packets_low: 0,
            bytes: 0,
        };
        entry
    }

    /// Removes the entry in `slot`.
    pub fn remove(&mut self, slot: Slot) {
        self.tags[slot.0 / BUCKET].0[slot.0 % BUCKET] = FREE;
        self.len -= 1;
    }

    /// Removes the entry in `slot` and counts it as one whose time was over.
    pub fn expire(&mut self, slot: Slot) {
        self.remove(slot);
        self.expired += 1;
    }

    /// Reclaims expired entries of the next `buckets` buckets, so that each bucket is visited in turn.
    pub fn age(&mut self, now: Tick, buckets: usize, timeouts: &Timeouts) {
        for _ in 0..buckets.min(self.tags.len()) {
            while let Some(slot) = self.reclaim_in(self.hand, now, timeouts) {
                debug_assert_eq!(self.tags[slot / BUCKET].0[slot % BUCKET], FREE);
            }
            self.hand = (self.hand + 1) % self.tags.len();
        }
    }

    /// Every entry, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<K>> {
        let tags = self.tags.iter().flat_map(|tags| tags.0);
        tags.zip(self.entries.iter()).filter(|(tag, _)| *tag != FREE).map(|(_, entry)| entry)
    }

    /// Number of buckets.
    pub fn buckets(&self) -> usize {
        self.tags.len()
    }

    /// Every entry of the bucket with this number, expired or not; at most [`BUCKET`].
    pub fn in_bucket(&self, bucket: usize) -> impl Iterator<Item = &Entry<K>> {
        let start = bucket * BUCKET;
        let tags = self.tags[bucket].0;
        tags.into_iter().zip(&self.entries[start..start + BUCKET]).filter(|(tag, _)| *tag != FREE).map(|(_, e)| e)
    }

    /// A slot of `bucket` without an entry.
    #[inline]
    fn free_in(&self, bucket: usize) -> Option<usize> {
        let mask = self.tags[bucket].matching(FREE);
        (mask != 0).then(|| bucket * BUCKET + slot_of(mask.trailing_zeros()))
    }

    /// Removes an expired entry of `bucket` and returns its slot.
    fn reclaim_in(&mut self, bucket: usize, now: Tick, timeouts: &Timeouts) -> Option<usize> {
        let start = bucket * BUCKET;
        let slot = (start..start + BUCKET)
            .find(|&slot| self.tags[bucket].0[slot - start] != FREE && self.entries[slot].expired(now, timeouts))?;
        self.expire(Slot(slot));
        Some(slot)
    }

    /// Moves an entry of either bucket to its other bucket, where that has room, and returns the slot it left.
    fn make_room(&mut self, first: usize, second: usize) -> Option<usize> {
        for bucket in [first, second] {
            for slot in bucket * BUCKET..(bucket + 1) * BUCKET {
                let hash = self.hash(&self.entries[slot].key);
                let here = self.first_bucket(hash);
                let other = if here == bucket { self.second_bucket(hash) } else { here };
                if let Some(free) = self.free_in(other) {
                    self.entries[free] = self.entries[slot];
                    self.tags[other].0[free % BUCKET] = tag(hash);
                    self.tags[bucket].0[slot % BUCKET] = FREE;
                    return Some(slot);
                }
            }
        }
        None
    }
}

/// Buckets for `capacity` flows at 3/4 load, and a few more for small tables, where chance weighs more.
fn buckets(capacity: u32) -> usize {
    (capacity as usize * 4).div_ceil(3 * BUCKET).max(BUCKETS_MIN)
}

/// The 16 bits of a hash that its slot carries; never [`FREE`].
#[inline]
fn tag(hash: FlowHash) -> u16 {
    let bits = (hash.0 ^ hash.0 >> 32) as u16;
    bits | u16::from(bits == FREE)
}

/// Maps 32 even bits to `0..buckets`.
#[inline]
fn scale(bits: u32, buckets: usize) -> usize {
    ((u64::from(bits) * buckets as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::flow::key::{KeyV4, KeyV6};

    const TIMEOUT: u32 = 1_000;
    /// Where flows land is chance; tests repeat.
    const SEED: Option<u64> = Some(7);

    fn timeouts() -> Timeouts {
        Timeouts::new(|_| TIMEOUT)
    }

    fn key(number: u32) -> KeyV4 {
        KeyV4 { source: number.to_be_bytes(), destination: [192, 0, 2, 1], ports: [1, 2, 3, 4], protocol: 17 }
    }

    fn insert<M: Memory>(table: &mut Table<KeyV4, M>, number: u32, now: u32) -> Result<(), Full> {
        let key = key(number);
        let (hash, now) = (table.hash(&key), Tick(now));
        let vacancy = table.vacancy(hash, now, &timeouts())?;
        table.fill(vacancy, hash, key, TargetId(number), FlowState::Udp, now);
        Ok(())
    }

    fn target(table: &Table<KeyV4>, number: u32) -> Option<u32> {
        let key = key(number);
        table.find(table.hash(&key), &key).map(|slot| table.entry(slot).target().0)
    }

    #[test]
    fn it_holds_what_it_was_made_for_and_then_refuses() {
        for capacity in [1, 7, 1_000, 100_000] {
            let mut table: Table<KeyV4> = Table::new(capacity, SEED).expect("memory");
            for number in 0..capacity {
                assert!(insert(&mut table, number, 0).is_ok(), "flow {number} of {capacity}");
            }
            assert_eq!(insert(&mut table, capacity, 0), Err(Full));
            assert_eq!(table.len(), capacity as usize);
            for number in 0..capacity {
                assert_eq!(target(&table, number), Some(number));
            }
        }
    }

    #[test]
    fn a_full_table_takes_new_flows_when_old_ones_are_past_their_time() {
        let mut table: Table<KeyV4> = Table::new(64, SEED).expect("memory");
        (0..64).for_each(|number| assert!(insert(&mut table, number, 0).is_ok()));
        assert_eq!(insert(&mut table, 64, TIMEOUT), Err(Full));
        let taken = (64..128).filter(|&number| insert(&mut table, number, TIMEOUT + 1).is_ok()).count();
        assert!(taken >= 32, "{taken} of 64 found an expired entry in their two buckets");
        assert_eq!(table.expired(), taken as u64);
        assert_eq!(table.len(), 64);
    }

    #[test]
    fn ageing_reclaims_everything_that_is_past_its_time_in_one_round() {
        let mut table: Table<KeyV4> = Table::new(1_000, SEED).expect("memory");
        (0..1_000).for_each(|number| assert!(insert(&mut table, number, number).is_ok()));
        let buckets = table.tags.len();
        for _ in 0..buckets {
            table.age(Tick(TIMEOUT + 500), 1, &timeouts());
        }
        assert_eq!(table.len(), 500, "flows last seen at 500 and later remain");
        assert_eq!(table.expired(), 500);
        assert!(table.iter().all(|entry| entry.last_seen >= 500));
    }

    #[test]
    fn an_expired_entry_is_not_found_alive() {
        let mut table: Table<KeyV4> = Table::new(8, SEED).expect("memory");
        insert(&mut table, 1, 0).expect("room");
        let (key, timeouts) = (key(1), timeouts());
        let hash = table.hash(&key);
        assert!(table.find_live(Hint::NONE, hash, &key, Tick(TIMEOUT), &timeouts).is_some());
        assert!(table.find_live(Hint::NONE, hash, &key, Tick(TIMEOUT + 1), &timeouts).is_none());
        assert!(table.is_empty());
    }

    #[test]
    fn counters_carry_past_32_bits() {
        let mut table: Table<KeyV6> = Table::new(8, SEED).expect("memory");
        let key = KeyV6 { source: [1; 16], destination: [2; 16], ports: [0; 4], protocol: 6 };
        let hash = table.hash(&key);
        let vacancy = table.vacancy(hash, Tick(0), &timeouts()).expect("room");
        let entry = table.fill(vacancy, hash, key, TargetId(0), FlowState::TcpSyn, Tick(0));
        entry.packets_low = u32::MAX;
        entry.touch(Tick(7), FlowState::TcpEstablished, 1_500);
        assert_eq!(entry.packets(), 1 << 32);
        assert_eq!(entry.bytes(), 1_500);
        assert_eq!(entry.duration(), Duration::from_millis(7));
        assert_eq!(entry.state(), FlowState::TcpEstablished);
    }

    /// One step of the model test.
    #[derive(Clone, Debug)]
    enum Operation {
        Insert(u32),
        Find(u32),
        Remove(u32),
        Wait(u32),
        Age(usize),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            4 => (0..96_u32).prop_map(Operation::Insert),
            4 => (0..96_u32).prop_map(Operation::Find),
            1 => (0..96_u32).prop_map(Operation::Remove),
            1 => (0..TIMEOUT).prop_map(Operation::Wait),
            1 => (0..4_usize).prop_map(Operation::Age),
        ]
    }

    proptest! {
        /// Against a map of key -> last seen: a live key is found, an absent one is not, nothing is lost or invented.
        #[test]
        fn it_behaves_like_a_map_that_forgets(operations in prop::collection::vec(operation(), 1..400)) {
            let mut table: Table<KeyV4> = Table::new(64, SEED).expect("memory");
            let mut oracle: HashMap<u32, u32> = HashMap::new();
            let mut now = 0;
            for operation in operations {
                match operation {
                    Operation::Insert(number) => {
                        let (key, timeouts) = (key(number), timeouts());
                        let hash = table.hash(&key);
                        let live = oracle.get(&number).is_some_and(|seen| now - seen <= TIMEOUT);
                        prop_assert_eq!(table.find_live(Hint::NONE, hash, &key, Tick(now), &timeouts).is_some(), live);
                        if !live {
                            match insert(&mut table, number, now) {
                                Ok(_) => drop(oracle.insert(number, now)),
                                Err(Full) => drop(oracle.remove(&number)),
                            }
                        }
                    }
                    Operation::Find(number) => {
                        let live = oracle.get(&number).is_some_and(|seen| now - seen <= TIMEOUT);
                        let found = target(&table, number);
                        prop_assert!(found.is_none_or(|target| target == number));
                        prop_assert!(!live || found.is_some(), "flow {} was lost", number);
                        prop_assert!(oracle.contains_key(&number) || found.is_none(), "flow {} was invented", number);
                    }
                    Operation::Remove(number) => {
                        let key = key(number);
                        if let Some(slot) = table.find(table.hash(&key), &key) {
                            table.remove(slot);
                        }
                        oracle.remove(&number);
                    }
                    Operation::Wait(milliseconds) => now += milliseconds,
                    Operation::Age(buckets) => table.age(Tick(now), buckets, &timeouts()),
                }
                prop_assert_eq!(table.len(), table.iter().count());
                prop_assert!(table.len() <= 64);
            }
        }
    }
}
