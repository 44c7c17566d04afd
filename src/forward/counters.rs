//! What a worker counts: written by it alone, read by anyone at any time.
//!
//! Packets are conserved: `received = forwarded + punted + dropped + held` holds whenever the worker is between two bursts.
//! Held are fragments that wait for their first one; when the worker stops there are none. A packet that leaves in pieces is
//! forwarded once.
//! Frames that the slow path has sent (injected) are none of these and counted apart.
//! Bytes are those of the IP packet as the client sent it, without link layer and tunnel.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};

use super::verdict::{DropReason, InjectDrop, PuntReason};
use crate::units::TargetId;

/// A number with one writer and any readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`; for the one writer. Not an atomic addition: there is nobody to race with.
    #[inline]
    pub fn add(&self, count: u64) {
        self.set(self.get().wrapping_add(count));
    }

    /// Takes `count` away; for the one writer.
    #[inline]
    pub fn sub(&self, count: u64) {
        self.set(self.get().wrapping_sub(count));
    }

    /// Sets the value; for the one writer.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Packets and flows of one virtual host on one child.
#[derive(Debug, Default)]
pub struct TargetCounters {
    /// Packets sent towards it, also those that the port then did not take.
    pub packets: Counter,
    /// Bytes of those packets.
    pub bytes: Counter,
    /// Flow entries made for it.
    pub flows: Counter,
}

impl TargetCounters {
    /// Counts a packet of `bytes` bytes.
    #[inline(always)]
    pub fn count(&self, bytes: u32) {
        self.packets.add(1);
        self.bytes.add(bytes.into());
    }
}

/// One worker's counters. Aligned so that two workers' counters share no pair of cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerCounters {
    /// Packets received.
    pub received: Counter,
    /// Packets handed to a port.
    pub forwarded: Counter,
    /// Fragments held now, until the first of their datagram comes.
    pub held: Counter,
    /// ICMP errors carried to the child whose flow they are about.
    pub icmp_errors: Counter,
    /// Packets that left in pieces, because they were too long with their tunnel header.
    pub fragmented: Counter,
    /// Those pieces, as far as a port took them.
    pub pieces: Counter,
    /// Bursts with at least one packet.
    pub bursts: Counter,
    /// Cycles spent on packets, from after their reception to before their transmission.
    pub busy_cycles: Counter,
    /// Flow entries made.
    pub flows_inserted: Counter,
    /// Flow entries whose time was over.
    pub flows_expired: Counter,
    /// Packets that would have made a flow entry and found no room; they are forwarded all the same.
    pub flows_refused: Counter,
    /// Packets that would have made a flow entry when there had been enough of them for the time being; they are forwarded
    /// all the same.
    pub flows_over_limit: Counter,
    /// Packets in the middle of flows that are not known which went to a child by hash and made no flow entry.
    pub strays_passed: Counter,
    /// Flow entries made because the slow path wanted them.
    pub flows_installed: Counter,
    /// Flows out of tunnels that were to be told to the slow path, which had no room.
    pub flows_untold: Counter,
    /// Packets that a QUIC connection id has given another child than their flow entry or, without one, than selection.
    pub quic_steered: Counter,
    /// TCP packets whose MSS option was lowered.
    pub mss_clamped: Counter,
    /// Flow entries held now.
    pub flows_active: Counter,
    /// Packets for no service that were forwarded to another port.
    pub routed: Counter,
    /// Frames of the slow path that were handed to a port.
    pub injected: Counter,
    inject_dropped: [Counter; InjectDrop::ALL.len()],
    dropped: [Counter; DropReason::COUNT],
    punted: [Counter; PuntReason::ALL.len()],
    /// With a few more at both ends, so that no other worker's counters are in the same cache lines.
    targets: Box<[TargetCounters]>,
}

/// Bytes that processors fetch and pass to each other together, at most.
const LINES_BYTES: usize = 128;

/// Counters in front of the targets' and behind them that nobody uses.
const MARGIN: usize = LINES_BYTES.div_ceil(size_of::<TargetCounters>());

impl WorkerCounters {
    /// Counters for `targets` targets, all zero.
    pub fn new(targets: usize) -> WorkerCounters {
        WorkerCounters {
            received: Counter::default(),
            forwarded: Counter::default(),
            held: Counter::default(),
            icmp_errors: Counter::default(),
            fragmented: Counter::default(),
            pieces: Counter::default(),
            bursts: Counter::default(),
            busy_cycles: Counter::default(),
            flows_inserted: Counter::default(),
            flows_expired: Counter::default(),
            flows_refused: Counter::default(),
            flows_over_limit: Counter::default(),
            strays_passed: Counter::default(),
            flows_installed: Counter::default(),
            flows_untold: Counter::default(),
            quic_steered: Counter::default(),
            mss_clamped: Counter::default(),
            flows_active: Counter::default(),
            routed: Counter::default(),
            injected: Counter::default(),
            inject_dropped: std::array::from_fn(|_| Counter::default()),
            dropped: std::array::from_fn(|_| Counter::default()),
            punted: std::array::from_fn(|_| Counter::default()),
            targets: (0..targets + 2 * MARGIN).map(|_| TargetCounters::default()).collect(),
        }
    }

    /// Packets dropped for `reason`.
    #[inline]
    pub fn dropped(&self, reason: DropReason) -> &Counter {
        &self.dropped[reason.index()]
    }

    /// Packets dropped for each reason, by [`DropReason::index`].
    pub fn drops(&self) -> [u64; DropReason::COUNT] {
        std::array::from_fn(|index| self.dropped[index].get())
    }

    /// Packets punted for `reason`.
    #[inline]
    pub fn punted(&self, reason: PuntReason) -> &Counter {
        &self.punted[reason as usize]
    }

    /// Frames of the slow path that were not sent for `reason`. [`InjectDrop::RingFull`] is the slow path's to count.
    #[inline]
    pub fn inject_dropped(&self, reason: InjectDrop) -> &Counter {
        &self.inject_dropped[reason as usize]
    }

    /// Counters of `target`.
    #[inline]
    pub fn target(&self, target: TargetId) -> &TargetCounters {
        &self.targets[target.index() + MARGIN]
    }

    /// Counters of all targets, by [`TargetId`].
    #[inline]
    pub fn targets(&self) -> &[TargetCounters] {
        &self.targets[MARGIN..self.targets.len() - MARGIN]
    }

    /// Starts the counters of `target` at zero again; for who knows that no flow has it.
    pub fn forget(&self, target: TargetId) {
        let TargetCounters { packets, bytes, flows } = self.target(target);
        [packets, bytes, flows].into_iter().for_each(|counter| counter.set(0));
    }

    /// What became of the packets.
    pub fn packets(&self) -> Packets {
        Packets {
            received: self.received.get(),
            forwarded: self.forwarded.get(),
            punted: self.punted.iter().map(Counter::get).sum(),
            dropped: self.dropped.iter().map(Counter::get).sum(),
            held: self.held.get(),
        }
    }
}

/// What became of a number of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// Received.
    pub received: u64,
    /// Handed to a port.
    pub forwarded: u64,
    /// Handed to the slow path.
    pub punted: u64,
    /// Dropped, for whatever reason.
    pub dropped: u64,
    /// Neither yet: held until more is known.
    pub held: u64,
}

impl Packets {
    /// True when every packet received has ended in one way, or is held.
    pub fn conserved(&self) -> bool {
        self.received == self.forwarded + self.punted + self.dropped + self.held
    }
}

impl Add for Packets {
    type Output = Packets;

    fn add(self, other: Packets) -> Packets {
        Packets {
            received: self.received + other.received,
            forwarded: self.forwarded + other.forwarded,
            punted: self.punted + other.punted,
            dropped: self.dropped + other.dropped,
            held: self.held + other.held,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::ptr;
    use std::sync::Arc;

    use super::*;

    /// The cache lines, two at a time, of what a worker writes for its packets.
    fn lines(counters: &WorkerCounters, targets: usize) -> HashSet<usize> {
        let lines = |start: usize, len: usize| start / LINES_BYTES..=(start + len - 1) / LINES_BYTES;
        let own = lines(ptr::from_ref(counters).addr(), size_of_val(counters));
        let target = |target| counters.target(TargetId(target as u32));
        own.chain((0..targets).flat_map(|t| lines(ptr::from_ref(target(t)).addr(), size_of::<TargetCounters>())))
            .collect()
    }

    #[test]
    fn no_two_workers_write_to_the_same_cache_line() {
        for targets in [0, 1, 2, 4, 5, 16, 100, 16_384] {
            let workers: Vec<_> = (0..8).map(|_| Arc::new(WorkerCounters::new(targets))).collect();
            let each: Vec<_> = workers.iter().map(|counters| lines(counters, targets)).collect();
            let all: HashSet<usize> = each.iter().flatten().copied().collect();
            assert_eq!(all.len(), each.iter().map(HashSet::len).sum::<usize>(), "{targets} targets");
        }
    }
}
