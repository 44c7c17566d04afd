//! Where the fragments of a datagram go: with their first one, whatever the order in which they come.
//!
//! ```text
//!                later fragment                 first fragment: its flow is known
//!   (unknown) ──────────────────► waiting ────────────────────────────────────────► known ──► all seen: complete
//!       │                         holds them, 2 s at most                            ▲ │        2 s for copies
//!       │ first fragment                                                             │ │ 30 s without one: forgotten
//!       └────────────────────────────────────────────────────────────────────────────┘ ▼
//!                                                                           later fragments follow
//! ```
//!
//! All memory is made at start: records of datagrams, and slots for held packets. All lists are in the order of their
//! deadlines, so that what is over stands in front, and every step costs the same whatever a flood brings. Where there is
//! no room the oldest gives way: fragments that belong together come within milliseconds, those of a flood stay alone.
//!
//! A fragment whose next hop is not known yet goes to the slow path and comes again later: it has not been seen.
//!
//! A datagram in which nothing has come for 2 s and whose identification comes again is taken for a new one: 16 bits are
//! soon used up, and of a datagram that lost a fragment its record is left. Of one that is complete only copies are taken;
//! another first fragment, or a piece that does not fit, starts a new one.

use zerocopy::FromZeros;

use super::counters::WorkerCounters;
use super::pieces::Pieces;
use super::verdict::Refusal;
use crate::clock::Tick;
use crate::flow::key::FlowKey;
use crate::flow::memory::Memory;
use crate::flow::state::{FlowState, Timeouts};
use crate::flow::table::{FlowHash, Slot, Table};
use crate::packet::fragment::Piece;
use crate::units::TargetId;

/// Fragments of one family that a worker holds at most.
pub const HELD_MAX: u16 = 128;

/// Fragments of one datagram that are held at most: 64 KiB in pieces of 1,480 bytes, in reverse, and a few.
pub const HELD_PER_DATAGRAM_MAX: u8 = 48;

/// How long fragments are held until their first one comes.
const HOLD_MS: u32 = 2_000;

/// After so long without a fragment an identification that comes again is another datagram's.
const REUSE_MS: u32 = 2_000;

/// Datagrams of each list that are forgotten at once at most, so that a burst stays short.
const EXPIRED_AT_ONCE: usize = 16;

/// No record, no slot.
const NONE: u32 = u32::MAX;

/// The flow that a datagram belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where its packets go.
    pub target: TargetId,
    /// Its hash: fragments look like their first one to the network.
    pub hash: FlowHash,
}

/// What happens to the fragments of a datagram, once the first one has told.
pub type Fate = Result<Way, Refusal>;

/// The number of a record; good until the next call that may forget one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramId(u32);

/// What is to be done with a later fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// As with the first one.
    Follow(Fate),
    /// [`Fragments::hold`] it.
    Hold(DatagramId),
}

#[derive(Debug)]
struct Datagram<K> {
    key: K,
    pieces: Pieces,
    fate: Option<Fate>,
    /// While waiting: when its first-come fragment came; then: when the last one came.
    at: Tick,
    /// Neighbours in its list.
    previous: u32,
    next: u32,
    /// Slots of the held packets, first come, last come.
    oldest: u32,
    newest: u32,
    held: u8,
}

/// Records in the order of their time.
#[derive(Debug)]
struct Queue {
    first: u32,
    last: u32,
}

/// A held packet and the slot of the next one of its datagram.
type Held<T> = (T, u32);

/// Fragmented datagrams of one family under way; held packets are of type `T`.
pub struct Fragments<K: FlowKey, M: Memory, T> {
    /// Key to record; the number of the record stands as target.
    index: Table<K, M>,
    datagrams: Vec<Datagram<K>>,
    vacant: Vec<u32>,
    waiting: Queue,
    known: Queue,
    complete: Queue,
    slots: Vec<Option<Held<T>>>,
    vacant_slots: Vec<u32>,
}

/// Records leave the index when they are forgotten, not by its own clock.
fn never() -> Timeouts {
    Timeouts::new(|_| u32::MAX)
}

impl<K: FlowKey + FromZeros, M: Memory, T> Fragments<K, M, T> {
    /// Room for `capacity` datagrams, or `None` when there is not that much memory. `seed` as for [`Table::new`].
    pub fn new(capacity: u32, seed: Option<u64>) -> Option<Fragments<K, M, T>> {
        let blank = || Datagram {
            key: K::new_zeroed(),
            pieces: Pieces::default(),
            fate: None,
            at: Tick(0),
            previous: NONE,
            next: NONE,
            oldest: NONE,
            newest: NONE,
            held: 0,
        };
        Some(Fragments {
            index: Table::new(capacity, seed)?,
            datagrams: (0..capacity).map(|_| blank()).collect(),
            vacant: (0..capacity).rev().collect(),
            waiting: Queue { first: NONE, last: NONE },
            known: Queue { first: NONE, last: NONE },
            complete: Queue { first: NONE, last: NONE },
            slots: (0..HELD_MAX).map(|_| None).collect(),
            vacant_slots: (0..u32::from(HELD_MAX)).rev().collect(),
        })
    }

    /// Takes note of a datagram's first fragment; what becomes of it is to be [told](Fragments::settle) at once.
    pub fn first(
        &mut self,
        counters: &WorkerCounters,
        key: K,
        piece: Piece,
        now: Tick,
        timeouts: &Timeouts,
    ) -> Result<DatagramId, Refusal> {
        if let Some((_, id)) = self.find(&key)
            && self.record(id).pieces.complete()
        {
            self.forget(counters, id, Refusal::FragmentTimeout);
        }
        self.place(counters, key, piece, now, timeouts)
    }

    /// Forgets that a datagram's first fragment has come: it will come again.
    pub fn retract(&mut self, counters: &WorkerCounters, id: DatagramId, piece: Piece) {
        let datagram = self.record(id);
        datagram.pieces.remove(piece);
        if datagram.pieces.is_empty() {
            self.forget(counters, id, Refusal::FragmentTimeout);
        }
    }

    /// Takes note of another fragment of a datagram. Where the way to its target `is_open` not, it will come again.
    pub fn later(
        &mut self,
        counters: &WorkerCounters,
        key: K,
        piece: Piece,
        now: Tick,
        timeouts: &Timeouts,
        is_open: impl Fn(TargetId) -> bool,
    ) -> Result<Step, Refusal> {
        let id = self.place(counters, key, piece, now, timeouts)?;
        if let Some(fate) = self.record(id).fate {
            self.enter_known(id, now);
            if fate.is_ok_and(|way| !is_open(way.target)) {
                self.record(id).pieces.remove(piece);
            }
            self.close(id);
            return Ok(Step::Follow(fate));
        }
        if self.record(id).held == HELD_PER_DATAGRAM_MAX {
            return Err(Refusal::FragmentNoRoom);
        }
        while self.vacant_slots.is_empty() {
            let oldest = DatagramId(self.waiting.first);
            let gives_way = if oldest == id { DatagramId(self.record(id).next) } else { oldest };
            // One datagram alone never holds all slots.
            if gives_way.0 == NONE {
                return Err(Refusal::FragmentNoRoom);
            }
            self.forget(counters, gives_way, Refusal::FragmentNoRoom);
        }
        Ok(Step::Hold(id))
    }

    /// Holds a packet that [`later`](Fragments::later) has said is to be held; it comes back where there is no slot.
    pub fn hold(&mut self, counters: &WorkerCounters, id: DatagramId, packet: T) -> Result<(), T> {
        let Some(slot) = self.vacant_slots.pop() else { return Err(packet) };
        self.slots[slot as usize] = Some((packet, NONE));
        let datagram = self.record(id);
        let before = std::mem::replace(&mut datagram.newest, slot);
        datagram.held += 1;
        match before {
            NONE => datagram.oldest = slot,
            _ => {
                if let Some((_, next)) = &mut self.slots[before as usize] {
                    *next = slot;
                }
            }
        }
        counters.held.add(1);
        Ok(())
    }

    /// Says what becomes of a datagram: its first fragment has come.
    pub fn settle(&mut self, id: DatagramId, fate: Fate, now: Tick) {
        self.record(id).fate = Some(fate);
        self.enter_known(id, now);
    }

    /// Gives back the held packets of a datagram, one at a time, in the order in which they came.
    pub fn release(&mut self, counters: &WorkerCounters, id: DatagramId) -> Option<T> {
        let slot = self.record(id).oldest;
        let (packet, next) = self.slots.get_mut(slot as usize)?.take()?;
        let datagram = self.record(id);
        (datagram.oldest, datagram.held) = (next, datagram.held - 1);
        if next == NONE {
            datagram.newest = NONE;
        }
        self.vacant_slots.push(slot);
        counters.held.sub(1);
        Some(packet)
    }

    /// Makes a datagram of which all has been seen the first to give way.
    pub fn close(&mut self, id: DatagramId) {
        if self.record(id).pieces.complete() {
            self.unlink(id.0);
            link(&mut self.datagrams, &mut self.complete, id.0);
        }
    }

    /// Forgets datagrams whose time is over; what is held of them is dropped.
    pub fn age(&mut self, counters: &WorkerCounters, now: Tick, timeouts: &Timeouts) {
        for _ in 0..EXPIRED_AT_ONCE {
            for first in [self.waiting.first, self.known.first, self.complete.first] {
                if first != NONE && self.is_over(DatagramId(first), now, timeouts) {
                    self.forget(counters, DatagramId(first), Refusal::FragmentTimeout);
                }
            }
        }
    }

    /// Drops all that is held: nothing more will come.
    pub fn drop_held(&mut self, counters: &WorkerCounters) {
        while self.waiting.first != NONE {
            self.forget(counters, DatagramId(self.waiting.first), Refusal::FragmentTimeout);
        }
    }

    fn record(&mut self, id: DatagramId) -> &mut Datagram<K> {
        &mut self.datagrams[id.0 as usize]
    }

    fn find(&self, key: &K) -> Option<(Slot, DatagramId)> {
        let slot = self.index.find(self.index.hash(key), key)?;
        Some((slot, DatagramId(self.index.entry(slot).target.0)))
    }

    fn is_over(&mut self, id: DatagramId, now: Tick, timeouts: &Timeouts) -> bool {
        let datagram = self.record(id);
        let limit_ms = match datagram.fate {
            None => HOLD_MS,
            Some(_) if datagram.pieces.complete() => REUSE_MS,
            Some(_) => timeouts.milliseconds(FlowState::Fragments),
        };
        now.since(datagram.at) > limit_ms
    }

    /// Adds a piece to the record of its datagram, new or old.
    fn place(
        &mut self,
        counters: &WorkerCounters,
        key: K,
        piece: Piece,
        now: Tick,
        timeouts: &Timeouts,
    ) -> Result<DatagramId, Refusal> {
        if let Some((_, id)) = self.find(&key) {
            let over = self.is_over(id, now, timeouts);
            let datagram = self.record(id);
            let complete = datagram.pieces.complete();
            let idle = datagram.fate.is_some() && now.since(datagram.at) > REUSE_MS;
            let fits = if over { Err(Refusal::FragmentTimeout) } else { datagram.pieces.add(piece) };
            match fits {
                Ok(()) => return Ok(id),
                Err(_) if over || idle || complete => self.forget(counters, id, Refusal::FragmentTimeout),
                Err(why) => return Err(why),
            }
        }
        let mut pieces = Pieces::default();
        pieces.add(piece)?;
        self.admit(counters, key, pieces, now).ok_or(Refusal::FragmentNoRoom)
    }

    /// Makes a record; the one of the datagram that has been silent for longest gives way.
    fn admit(&mut self, counters: &WorkerCounters, key: K, pieces: Pieces, now: Tick) -> Option<DatagramId> {
        // Of the complete no more is to come, and of the known nothing is held.
        let candidates = [self.complete.first, self.known.first, self.waiting.first];
        let oldest = candidates.into_iter().find(|first| *first != NONE).unwrap_or(NONE);
        if self.vacant.is_empty() && oldest != NONE {
            self.forget(counters, DatagramId(oldest), Refusal::FragmentNoRoom);
        }
        let hash = self.index.hash(&key);
        let vacancy = self.index.vacancy(hash, now, &never()).ok()?;
        let id = self.vacant.pop()?;
        self.index.fill(vacancy, hash, key, TargetId(id), FlowState::Fragments, now);
        let datagram = self.record(DatagramId(id));
        (datagram.key, datagram.pieces, datagram.fate, datagram.at) = (key, pieces, None, now);
        link(&mut self.datagrams, &mut self.waiting, id);
        Some(DatagramId(id))
    }

    /// Forgets a datagram; what is held of it is dropped, and counted under `why`.
    fn forget(&mut self, counters: &WorkerCounters, id: DatagramId, why: Refusal) {
        while let Some(packet) = self.release(counters, id) {
            drop(packet);
            counters.dropped(why.into()).add(1);
        }
        let key = self.record(id).key;
        if let Some((slot, _)) = self.find(&key) {
            self.index.remove(slot);
        }
        self.unlink(id.0);
        self.vacant.push(id.0);
    }

    /// Makes a datagram the one of the known whose last fragment is the newest.
    fn enter_known(&mut self, id: DatagramId, now: Tick) {
        self.unlink(id.0);
        self.record(id).at = now;
        link(&mut self.datagrams, &mut self.known, id.0);
    }

    /// Takes a record out of the list that it is in.
    fn unlink(&mut self, id: u32) {
        let Datagram { previous, next, .. } = self.datagrams[id as usize];
        for queue in [&mut self.waiting, &mut self.known, &mut self.complete] {
            if queue.first == id {
                queue.first = next;
            }
            if queue.last == id {
                queue.last = previous;
            }
        }
        if let Some(before) = self.datagrams.get_mut(previous as usize) {
            before.next = next;
        }
        if let Some(behind) = self.datagrams.get_mut(next as usize) {
            behind.previous = previous;
        }
    }
}

/// Appends a record that is in no list.
fn link<K>(datagrams: &mut [Datagram<K>], queue: &mut Queue, id: u32) {
    (datagrams[id as usize].previous, datagrams[id as usize].next) = (queue.last, NONE);
    match datagrams.get_mut(queue.last as usize) {
        Some(last) => last.next = id,
        None => queue.first = id,
    }
    queue.last = id;
}
