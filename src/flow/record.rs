//! What a flow table holds of one flow.

use std::time::Duration;

use zerocopy::FromZeros;

use super::key::{FlowKey, Made, Words};
use super::state::{FlowState, Timeouts};
use crate::clock::Tick;
use crate::units::TargetId;

const STATE_BITS: u32 = 3;
/// Of the last word of a key, what is the key's.
const KEY_BITS: u32 = 40;
const TARGET_SHIFT: u32 = KEY_BITS + STATE_BITS;
const _: () = assert!(TargetId::COUNT_MAX == 1 << (u64::BITS - TARGET_SHIFT), "a record has room for every target");
const KEY_MASK: u64 = (1 << KEY_BITS) - 1;

/// Where the packets' high bits stand above the bytes.
const BYTES_BITS: u32 = 52;

/// The last word of an empty slot that has held an entry: no packet of the protocol that IANA reserves has ports.
const NOBODY: u64 = KEY_MASK;

/// What is known of one flow, packed.
#[derive(Clone, Copy, FromZeros)]
#[repr(C, align(32))]
pub struct Record<W: Words> {
    /// The key; above it in the last word the state, then the target.
    words: W,
    last_seen: u32,
    packets_low: u32,
    /// Bytes modulo 2^51, and above them the packets' high bits.
    volume: u64,
    made: W::Made,
}

const _: () = assert!(size_of::<Record<[u64; 2]>>() == 32);
const _: () = assert!(size_of::<Record<[u64; 5]>>() == 64);

impl<W: Words> Record<W> {
    /// That of a flow without packets.
    #[inline(always)]
    pub(super) fn new(mut key: W, target: TargetId, state: FlowState, now: Tick) -> Record<W> {
        debug_assert!(target.index() < TargetId::COUNT_MAX, "the target's number is too large");
        key.set_last(key.last() | (state as u64) << KEY_BITS | u64::from(target.0) << TARGET_SHIFT);
        Record { words: key, last_seen: now.0, packets_low: 0, volume: 0, made: W::Made::new(now) }
    }

    /// Whether it is that of a key.
    #[inline(always)]
    pub(super) fn holds(&self, key: &W) -> bool {
        self.words.differs(key) << (u64::BITS - KEY_BITS) == 0 && self.words.rest_equals(key)
    }

    /// Makes it that of no key.
    #[inline(always)]
    pub(super) fn forget(&mut self) {
        self.words.set_last(NOBODY);
    }

    /// Its key.
    #[inline(always)]
    pub(super) fn key(&self) -> W {
        let mut words = self.words;
        words.set_last(words.last() & KEY_MASK);
        words
    }

    /// When it was made, where that is not kept apart.
    pub(super) fn made(&self) -> Option<Tick> {
        self.made.tick()
    }

    /// All that it says.
    pub(super) fn entry<K: FlowKey<Words = W>>(&self, created: Tick) -> Entry<K> {
        Entry {
            key: K::from_words(&self.words),
            target: self.target(),
            state: self.state(),
            created,
            last_seen: Tick(self.last_seen),
            packets: self.volume >> BYTES_BITS << 32 | u64::from(self.packets_low),
            bytes: self.volume & ((1 << (BYTES_BITS - 1)) - 1),
        }
    }

    /// The state's number.
    #[inline(always)]
    fn state_number(&self) -> u8 {
        (self.words.last() >> KEY_BITS) as u8 & ((1 << STATE_BITS) - 1)
    }

    /// Where its packets go.
    #[inline(always)]
    pub fn target(&self) -> TargetId {
        TargetId((self.words.last() >> TARGET_SHIFT) as u32)
    }

    /// How far it has come.
    #[inline(always)]
    pub fn state(&self) -> FlowState {
        FlowState::of(self.state_number())
    }

    /// Counts one more packet of `bytes` bytes that has these TCP flags; false, and nothing counted, when that opens a
    /// connection, a new one or the flow's own once more.
    #[inline(always)]
    pub fn follow(&mut self, now: Tick, tcp_flags: u8, bytes: u32) -> bool {
        let number = self.state_number();
        if !FlowState::stays(number, tcp_flags) && !self.change(number, tcp_flags) {
            return false;
        }
        self.count(now, bytes);
        true
    }

    /// Changes the state, unless these TCP flags open a connection.
    #[inline(never)]
    fn change(&mut self, number: u8, tcp_flags: u8) -> bool {
        let state = FlowState::quietly_after(number, tcp_flags);
        state.is_some_and(|state| {
            self.set_state(state);
            true
        })
    }

    /// Sends its packets to another target from now on.
    pub fn redirect(&mut self, target: TargetId) {
        let last = self.words.last() & ((1 << TARGET_SHIFT) - 1);
        self.words.set_last(last | u64::from(target.0) << TARGET_SHIFT);
    }

    /// Takes it for one that is in `state` elsewhere, where its last packet came `idle` ago.
    pub fn renew(&mut self, now: Tick, state: FlowState, idle: Duration) {
        let idle = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
        if idle < now.since(Tick(self.last_seen)) {
            self.last_seen = now.0.wrapping_sub(idle);
        }
        // What is no TCP has one state only.
        if state.is_tcp() && self.state().is_tcp() {
            self.set_state(state);
        }
    }

    #[inline(always)]
    fn set_state(&mut self, state: FlowState) {
        let last = self.words.last();
        self.words.set_last(last & !(((1 << STATE_BITS) - 1) << KEY_BITS) | (state as u64) << KEY_BITS);
    }

    /// Counts one packet of `bytes` bytes that leaves the flow in `state`.
    #[inline(always)]
    pub fn touch(&mut self, now: Tick, state: FlowState, bytes: u32) {
        self.set_state(state);
        self.count(now, bytes);
    }

    /// The same where the state stays as it is.
    #[inline(always)]
    pub fn count(&mut self, now: Tick, bytes: u32) {
        self.last_seen = now.0;
        self.volume += u64::from(bytes);
        let (low, carry) = self.packets_low.overflowing_add(1);
        self.packets_low = low;
        if carry {
            self.carry();
        }
    }

    /// After 2^32 packets, which are less than 2^51 bytes: so the bytes never grow into the packets' high bits.
    #[cold]
    fn carry(&mut self) {
        let packets = (self.volume >> BYTES_BITS).wrapping_add(1);
        self.volume = packets << BYTES_BITS | self.volume & ((1 << (BYTES_BITS - 1)) - 1);
    }

    /// Whether it is past its time.
    #[inline(always)]
    pub fn expired(&self, now: Tick, timeouts: &Timeouts) -> bool {
        now.since(Tick(self.last_seen)) > timeouts.of(self.state_number())
    }
}

/// What is known of one flow.
#[derive(Clone, Copy, Debug)]
pub struct Entry<K> {
    /// The flow's key.
    pub key: K,
    /// Where its packets go.
    pub target: TargetId,
    /// How far it has come.
    pub state: FlowState,
    /// When its first packet came.
    pub created: Tick,
    /// When its last packet came.
    pub last_seen: Tick,
    /// Packets so far, modulo 2^44.
    pub packets: u64,
    /// Bytes of IP packets so far, modulo 2^51.
    pub bytes: u64,
}

impl<K> Entry<K> {
    /// Whether it is past its time.
    pub fn expired(&self, now: Tick, timeouts: &Timeouts) -> bool {
        now.since(self.last_seen) > timeouts.of(self.state as u8)
    }

    /// Time from its first packet to its last.
    pub fn duration(&self) -> Duration {
        Duration::from_millis(u64::from(self.last_seen.since(self.created)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::key::KeyV6;

    #[test]
    fn counters_carry_past_32_bits() {
        let key = KeyV6 { source: [1; 16], destination: [2; 16], ports: [0; 4], protocol: 6 };
        let mut record = Record::new(key.words(), TargetId(7), FlowState::TcpSyn, Tick(0));
        record.packets_low = u32::MAX;
        record.touch(Tick(7), FlowState::TcpEstablished, 1_500);
        let entry: Entry<KeyV6> = record.entry(Tick(0));
        assert_eq!((entry.packets, entry.bytes), (1 << 32, 1_500));
        assert_eq!(entry.duration(), Duration::from_millis(7));
        assert_eq!((entry.key, entry.state, entry.target), (key, FlowState::TcpEstablished, TargetId(7)));
    }
}
