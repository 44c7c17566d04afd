//! The flow table of one worker: fixed memory, bounded work per operation, lazy expiry.
//!
//! ```text
//! group   31 tags of 2 | displaced 2                        one cache line: which of 31 slots may hold a key
//! record  key, state, target 16 or 40 | last seen 4 | packets 4 + 1.5 | bytes 6.5
//!         = 32 bytes for IPv4, 64 bytes for IPv6, never across two cache lines; when it was made is kept apart for IPv4
//! ```
//!
//! A key's hash names two groups. An entry stands in the first of them unless that was full when it came; then it stands in
//! the second, and the first counts it as displaced. So a known flow costs two cache lines that depend on each other, and a
//! look into the second group only where something was displaced, which is rare: 24 of 31 slots are taken on average.
//! With tags, times of making and at 3/4 load that is 51 bytes a flow over IPv4 and 88 over IPv6.
//!
//! Insertion takes a free slot of the two groups, else one of a few expired ones there, else moves one of a few entries to
//! its own other group, else gives up and says so. Nothing ever looks at more than that, and the walk of a burst does so a few
//! times at most, so a flood of chosen keys costs what any flood costs; the hash is keyed for each table anyway.
//!
//! Lost against this:
//! - two buckets of 8 slots that are equally likely, and entries of 40 bytes, half of them across two lines: four cache
//!   lines a packet instead of two, and 723 instructions against 671;
//! - the same, asking for the tags of the first bucket alone, with a branch to the second: a dependent miss and a
//!   mispredicted branch for every fifth packet (1 M flows over IPv4: 253 ns a packet against 78 for both at once).

use std::hash::{BuildHasher, Hasher};

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

use super::group::{Group, SLOTS};
use super::key::{FlowKey, Made, Words};
use super::memory::{Heap, Memory};
use super::record::{Entry, Record};
use super::state::{FlowState, Timeouts};
use crate::clock::Tick;
use crate::units::TargetId;

/// Slots in a group.
pub const GROUP: usize = SLOTS;

/// Groups of the smallest table.
const GROUPS_MIN: usize = 3;

/// Slots of a group that an insertion without free slots looks at.
const TRIED: usize = 8;

/// Hash of a key in one table; good for that table only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowHash(u64);

impl FlowHash {
    /// Of no key.
    pub const NONE: FlowHash = FlowHash(0);

    /// 64 evenly spread bits, for choices that need not agree with another router's.
    #[inline]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The 16 bits that its slot carries.
    #[inline(always)]
    fn tag(self) -> u16 {
        (self.0 ^ self.0 >> 32) as u16
    }
}

/// A slot that holds an entry, until the next insertion or removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// Where a key was going to be found when [`Table::locate`] looked, or where there was room for it; always allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint(usize);

impl Hint {
    /// No idea.
    pub const NONE: Hint = Hint(usize::MAX);

    /// To ask [`Table::locate_second`].
    pub const SECOND: Hint = Hint(usize::MAX - 1);

    /// Nowhere; behind this there is room.
    const ROOM: usize = 1 << 63;

    /// Whether there was room.
    #[inline(always)]
    pub fn is_room(self) -> bool {
        self.0 >= Hint::ROOM && self.0 < Hint::SECOND.0
    }
}

/// Room for an entry, until the next change of the table: a group and a slot of it in one number, as is soonest taken
/// apart, and above them whether the entry's first group is another one.
#[derive(Clone, Copy, Debug)]
pub struct Vacancy(u64);

impl Vacancy {
    const DISPLACED: u64 = 1 << 63;

    #[inline]
    fn new(group: usize, slot: usize, displaced: bool) -> Vacancy {
        Vacancy(Vacancy::place(group, slot) as u64 | if displaced { Vacancy::DISPLACED } else { 0 })
    }

    #[inline]
    fn place(group: usize, slot: usize) -> usize {
        group << SLOT_BITS | slot
    }

    /// Its group, its slot there, and whether the entry is displaced.
    #[inline]
    fn parts(self) -> (usize, usize, bool) {
        let place = (self.0 & !Vacancy::DISPLACED) as usize;
        (place >> SLOT_BITS, place % (1 << SLOT_BITS), self.0 & Vacancy::DISPLACED != 0)
    }
}

const SLOT_BITS: u32 = 5;
const _: () = assert!(GROUP <= 1 << SLOT_BITS);

/// Why a flow has no entry: the table holds as many as it was made for, or both of its groups are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the flow table is full")]
pub struct Full;

/// A flow table.
pub struct Table<K: FlowKey, M: Memory = Heap> {
    groups: M::Slice<Group>,
    records: M::Slice<Record<K::Words>>,
    /// When each entry was made, in ticks, where records have no room for that; else empty.
    created: M::Slice<u32>,
    hasher: SeedableRandomState,
    capacity: usize,
    len: usize,
    expired: u64,
    /// Next group to age.
    hand: usize,
}

impl<K: FlowKey, M: Memory> Table<K, M> {
    const CREATED_APART: bool = <K::Words as Words>::Made::IS_APART;

    /// A table for `capacity` flows, or `None` when there is not that much memory. Its hash has this seed, or one that
    /// nobody can foresee.
    pub fn new(capacity: u32, seed: Option<u64>) -> Option<Table<K, M>> {
        let groups = groups(capacity);
        let shared = SharedSeed::global_fixed();
        let hasher = seed.map_or_else(SeedableRandomState::random, |seed| SeedableRandomState::with_seed(seed, shared));
        Some(Table {
            groups: M::zeroed(groups)?,
            records: M::zeroed(groups * GROUP)?,
            created: M::zeroed(if Self::CREATED_APART { groups * GROUP } else { 0 })?,
            hasher,
            capacity: capacity as usize,
            len: 0,
            expired: 0,
            hand: 0,
        })
    }

    /// Memory that a table for `capacity` flows takes, in bytes.
    pub fn bytes(capacity: u32) -> u64 {
        let apart = if Self::CREATED_APART { size_of::<u32>() } else { 0 };
        (groups(capacity) * (size_of::<Group>() + GROUP * (size_of::<Record<K::Words>>() + apart))) as u64
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
    #[inline(always)]
    pub fn hash(&self, key: &K) -> FlowHash {
        self.hash_words(&key.words())
    }

    /// The same for a key in words.
    #[inline(always)]
    pub fn hash_words(&self, words: &K::Words) -> FlowHash {
        let mut hasher = self.hasher.build_hasher();
        words.as_ref().iter().for_each(|word| hasher.write_u64(*word));
        FlowHash(hasher.finish())
    }

    /// The group where an entry with this hash stands.
    #[inline(always)]
    fn first_group(&self, hash: FlowHash) -> usize {
        scale(hash.0 as u32, self.groups.len())
    }

    /// The group where it stands when there was no room in the first.
    #[inline]
    fn second_group(&self, hash: FlowHash) -> usize {
        let second = scale((hash.0 >> 32) as u32, self.groups.len());
        if second == self.first_group(hash) { (second + 1) % self.groups.len() } else { second }
    }

    /// Asks for what [`locate`](Table::locate) reads.
    #[inline(always)]
    pub fn prefetch_group(&self, hash: FlowHash) {
        M::prefetch(&self.groups[self.first_group(hash)]);
    }

    /// Says where the entry with this hash is, or room for it, and asks for what [`hinted`](Table::hinted) or
    /// [`fill`](Table::fill) then needs. Where that may be in its second group, says so in `seconds`.
    #[inline(always)]
    pub fn locate(&self, hash: FlowHash, seconds: &mut bool) -> Hint {
        let group = self.first_group(hash);
        match self.groups[group].matching(hash.tag()).first() {
            Some(slot) => self.hint(group, slot),
            None => self.locate_room(hash, group, seconds),
        }
    }

    /// The same for what is not in `group`, its first one.
    #[inline(never)]
    fn locate_room(&self, hash: FlowHash, group: usize, seconds: &mut bool) -> Hint {
        let free = self.groups[group].free().first();
        if let Some(slot) = free {
            M::prefetch(&self.records[group * GROUP + slot]);
            if let Some(created) = self.created.get(group * GROUP + slot) {
                M::prefetch(created);
            }
        }
        match free {
            Some(slot) if self.groups[group].displaced() == 0 => Hint(Hint::ROOM | Vacancy::place(group, slot)),
            _ => {
                M::prefetch(&self.groups[self.second_group(hash)]);
                *seconds = true;
                Hint::SECOND
            }
        }
    }

    /// The same for where that was said, after the whole burst: by then the second group is there.
    #[inline(never)]
    pub fn locate_second(&self, hash: FlowHash) -> Hint {
        let group = self.second_group(hash);
        match self.groups[group].matching(hash.tag()).first() {
            Some(slot) => self.hint(group, slot),
            None => Hint::NONE,
        }
    }

    #[inline(always)]
    fn hint(&self, group: usize, slot: usize) -> Hint {
        let slot = group * GROUP + slot;
        M::prefetch(&self.records[slot]);
        Hint(slot)
    }

    /// The room that was found where there was no entry, if it is still there. When since then entries have only been made
    /// in rooms found like this, there is no entry of that hash's key yet.
    #[inline(always)]
    pub fn hinted_room(&self, hint: Hint) -> Option<Vacancy> {
        let place = hint.0.wrapping_sub(Hint::ROOM);
        let group = self.groups.get(place >> SLOT_BITS)?;
        let is_free = !group.is_taken(place % (1 << SLOT_BITS)) && group.displaced() == 0;
        (is_free && self.len < self.capacity).then_some(Vacancy(place as u64))
    }

    /// The entry of `key`, expired or not.
    pub fn find(&self, hash: FlowHash, key: &K) -> Option<Slot> {
        self.find_words(hash, &key.words())
    }

    #[inline(never)]
    fn find_words(&self, hash: FlowHash, words: &K::Words) -> Option<Slot> {
        let first = self.first_group(hash);
        let found = self.find_in(first, hash, words);
        if found.is_some() || self.groups[first].displaced() == 0 {
            return found;
        }
        self.find_in(self.second_group(hash), hash, words)
    }

    fn find_in(&self, group: usize, hash: FlowHash, words: &K::Words) -> Option<Slot> {
        let slots = self.groups[group].matching(hash.tag()).map(|slot| group * GROUP + slot);
        slots.into_iter().find(|slot| self.records[*slot].holds(words)).map(Slot)
    }

    /// The entry of a key, expired or not, where the hint is right.
    #[inline(always)]
    pub fn hinted(&mut self, hint: Hint, words: &K::Words) -> Option<&mut Record<K::Words>> {
        self.records.get_mut(hint.0).filter(|record| record.holds(words))
    }

    /// The entry of `key` that is not past its time at `now`. One that is gets removed and counted.
    pub fn find_live(&mut self, hash: FlowHash, key: &K, now: Tick, timeouts: &Timeouts) -> Option<Slot> {
        self.find_live_words(hash, &key.words(), now, timeouts)
    }

    /// The same for a key in words.
    #[inline]
    pub fn find_live_words(
        &mut self,
        hash: FlowHash,
        words: &K::Words,
        now: Tick,
        timeouts: &Timeouts,
    ) -> Option<Slot> {
        let slot = self.find_words(hash, words)?;
        if self.records[slot.0].expired(now, timeouts) {
            self.expire(slot);
            return None;
        }
        Some(slot)
    }

    /// The entry of `key` that is not past its time at `now`; changes nothing.
    pub fn peek(&self, key: &K, now: Tick, timeouts: &Timeouts) -> Option<Entry<K>> {
        let slot = self.find(self.hash(key), key)?;
        (!self.records[slot.0].expired(now, timeouts)).then(|| self.entry(slot))
    }

    /// What is known of the flow in `slot`.
    pub fn entry(&self, Slot(slot): Slot) -> Entry<K> {
        let record = &self.records[slot];
        record.entry(record.made().unwrap_or_else(|| Tick(self.created[slot])))
    }

    /// The entry in `slot`, to change.
    pub fn record_mut(&mut self, slot: Slot) -> &mut Record<K::Words> {
        &mut self.records[slot.0]
    }

    /// Room for the entry of a key with this hash, where there is a free slot in one of its groups.
    #[inline]
    pub fn free_vacancy(&self, hash: FlowHash) -> Option<Vacancy> {
        if self.len >= self.capacity {
            return None;
        }
        let group = self.first_group(hash);
        match self.groups[group].free().first() {
            Some(slot) => Some(Vacancy::new(group, slot, false)),
            None => {
                let group = self.second_group(hash);
                self.groups[group].free().first().map(|slot| Vacancy::new(group, slot, true))
            }
        }
    }

    /// Finds, or makes, room for the entry of a key with this hash. Where none is free this looks at some 40 entries.
    pub fn vacancy(&mut self, hash: FlowHash, now: Tick, timeouts: &Timeouts) -> Result<Vacancy, Full> {
        match self.free_vacancy(hash) {
            Some(vacancy) => Ok(vacancy),
            None => self.made_vacancy(hash, now, timeouts),
        }
    }

    #[cold]
    #[inline(never)]
    fn made_vacancy(&mut self, hash: FlowHash, now: Tick, timeouts: &Timeouts) -> Result<Vacancy, Full> {
        let (first, second) = (self.first_group(hash), self.second_group(hash));
        let has_room = self.len < self.capacity;
        let slot = self
            .reclaim_some(first, hash, now, timeouts)
            .or_else(|| self.reclaim_some(second, hash, now, timeouts))
            .or_else(|| if has_room { self.make_room(first, second, hash) } else { None });
        let slot = slot.ok_or(Full)?;
        Ok(Vacancy::new(slot / GROUP, slot % GROUP, slot / GROUP != first))
    }

    /// Puts an entry without packets for `key`, which must not be in the table, into the room that was made for it.
    pub fn fill(
        &mut self,
        vacancy: Vacancy,
        hash: FlowHash,
        key: K,
        target: TargetId,
        state: FlowState,
        now: Tick,
    ) -> &mut Record<K::Words> {
        self.fill_words(vacancy, hash, key.words(), target, state, now)
    }

    /// The same for a key in words.
    #[inline(always)]
    pub fn fill_words(
        &mut self,
        vacancy: Vacancy,
        hash: FlowHash,
        words: K::Words,
        target: TargetId,
        state: FlowState,
        now: Tick,
    ) -> &mut Record<K::Words> {
        debug_assert!(self.find_words(hash, &words).is_none(), "the key is in the table already");
        let (group, slot, displaced) = vacancy.parts();
        self.len += 1;
        self.groups[group].set(slot, hash.tag());
        if displaced {
            let first = self.first_group(hash);
            self.groups[first].displace();
        }
        let slot = group * GROUP + slot;
        if let Some(created) = self.created.get_mut(slot) {
            *created = now.0;
        }
        let record = &mut self.records[slot];
        *record = Record::new(words, target, state, now);
        record
    }

    /// Removes the entry in `slot`.
    pub fn remove(&mut self, slot: Slot) {
        self.vacate(slot.0);
        self.len -= 1;
    }

    /// Removes the entry in `slot` and counts it as one whose time was over.
    pub fn expire(&mut self, slot: Slot) {
        self.remove(slot);
        self.expired += 1;
    }

    /// Removes every entry.
    pub fn clear(&mut self) {
        for group in 0..self.groups.len() {
            for slot in self.groups[group].taken() {
                self.remove(Slot(group * GROUP + slot));
            }
        }
    }

    /// Reclaims expired entries of the next `groups` groups, so that each group is visited in turn.
    pub fn age(&mut self, now: Tick, groups: usize, timeouts: &Timeouts) {
        for _ in 0..groups.min(self.groups.len()) {
            let start = self.hand * GROUP;
            for slot in self.groups[self.hand].taken().map(|slot| start + slot) {
                if self.records[slot].expired(now, timeouts) {
                    self.expire(Slot(slot));
                }
            }
            self.hand = if self.hand + 1 == self.groups.len() { 0 } else { self.hand + 1 };
        }
    }

    /// Every entry, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<K>> {
        (0..self.groups.len()).flat_map(|group| self.in_group(group))
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Every entry of the group with this number, expired or not; at most [`GROUP`].
    pub fn in_group(&self, group: usize) -> impl Iterator<Item = Entry<K>> {
        self.groups[group].taken().map(move |slot| self.entry(Slot(group * GROUP + slot)))
    }

    /// A slot of `group` without an entry.
    #[inline]
    fn free_in(&self, group: usize) -> Option<usize> {
        self.groups[group].free().first().map(|slot| group * GROUP + slot)
    }

    /// Marks a slot as that of a hash.
    fn occupy(&mut self, slot: usize, hash: FlowHash) {
        let (group, first) = (slot / GROUP, self.first_group(hash));
        self.groups[group].set(slot % GROUP, hash.tag());
        if group != first {
            self.groups[first].displace();
        }
    }

    /// Marks a slot as free; its entry is found no more, by no hint either.
    fn vacate(&mut self, slot: usize) {
        let (group, first) = (slot / GROUP, self.first_group(self.hash_of(slot)));
        self.groups[group].clear(slot % GROUP);
        self.records[slot].forget();
        if group != first {
            self.groups[first].replace();
        }
    }

    /// The hash of the key in a slot that has an entry.
    fn hash_of(&self, slot: usize) -> FlowHash {
        self.hash_words(&self.records[slot].key())
    }

    /// A few slots of `group`, other ones for other hashes.
    fn some_of(group: usize, hash: FlowHash) -> impl Iterator<Item = usize> {
        (0..TRIED).map(move |try_| group * GROUP + (hash.0 as usize % GROUP + try_) % GROUP)
    }

    /// Removes one of a few entries of `group` that is expired and returns its slot.
    fn reclaim_some(&mut self, group: usize, hash: FlowHash, now: Tick, timeouts: &Timeouts) -> Option<usize> {
        let taken = |slot: &usize| self.groups[group].is_taken(slot % GROUP);
        let slot = Self::some_of(group, hash).filter(taken).find(|slot| self.records[*slot].expired(now, timeouts))?;
        self.expire(Slot(slot));
        Some(slot)
    }

    /// Moves one of a few entries of either group, both of which are full, to its other group, where that has room, and
    /// returns the slot it left.
    fn make_room(&mut self, first: usize, second: usize, hash: FlowHash) -> Option<usize> {
        for slot in Self::some_of(first, hash).chain(Self::some_of(second, hash)) {
            let moved = self.hash_of(slot);
            let here = self.first_group(moved);
            let other = if here == slot / GROUP { self.second_group(moved) } else { here };
            if let Some(free) = self.free_in(other) {
                self.records[free] = self.records[slot];
                if Self::CREATED_APART {
                    self.created[free] = self.created[slot];
                }
                self.vacate(slot);
                self.occupy(free, moved);
                return Some(slot);
            }
        }
        None
    }
}

/// Groups for `capacity` flows at 3/4 load, and a few more for small tables, where chance weighs more.
fn groups(capacity: u32) -> usize {
    (capacity as usize * 4).div_ceil(3 * GROUP).max(GROUPS_MIN)
}

/// Maps 32 even bits to `0..groups`.
#[inline(always)]
fn scale(bits: u32, groups: usize) -> usize {
    ((u64::from(bits) * groups as u64) >> 32) as usize
}

#[cfg(test)]
mod tests;
