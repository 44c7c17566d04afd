//! Packets whose next hop is being asked for: held for a moment, a few for each next hop and a bounded number in all.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Instant;
use crate::units::labelled;

/// How long a packet waits: as long as a next hop is asked.
const PATIENCE: Duration = Duration::from_secs(3);
/// Packets that wait for one next hop (RFC 1122 section 2.3.2.2 asks for one at least).
const EACH: u8 = 4;
/// Packets that wait in all.
const ALL: usize = 1024;

labelled! {
    /// Why a packet that waited, or was to wait, was dropped.
    WaitingDrop {
        /// Others wait for the same next hop, as many as may.
        NextHopFull => "next_hop_full",
        /// As many wait as may in all.
        Full => "full",
        /// The next hop does not answer.
        Unanswered => "unanswered",
        /// There is no room for another neighbour, or it is on no link of ours.
        NotAsked => "not_asked",
        /// It came out of a tunnel or is longer than a copy, and cannot be carried again.
        Unfit => "unfit",
    }
}

/// The packets that wait; `P` is all that is needed to go on with one.
#[derive(Debug)]
pub struct Waiting<P> {
    /// The oldest first.
    packets: VecDeque<(Instant, IpAddr, P)>,
    each: HashMap<IpAddr, u8>,
}

impl<P> Default for Waiting<P> {
    fn default() -> Waiting<P> {
        Waiting { packets: VecDeque::new(), each: HashMap::new() }
    }
}

impl<P> Waiting<P> {
    /// Lets a packet wait for `next_hop`.
    ///
    /// # Errors
    /// Too many wait already.
    pub fn hold(&mut self, now: Instant, next_hop: IpAddr, packet: P) -> Result<(), WaitingDrop> {
        if self.packets.len() >= ALL {
            return Err(WaitingDrop::Full);
        }
        let each = self.each.entry(next_hop).or_default();
        if *each >= EACH {
            return Err(WaitingDrop::NextHopFull);
        }
        *each += 1;
        self.packets.push_back((now + PATIENCE, next_hop, packet));
        Ok(())
    }

    /// Takes the packets that wait for `next_hop`, the oldest first.
    pub fn take(&mut self, next_hop: IpAddr) -> Vec<P> {
        if self.each.remove(&next_hop).is_none() {
            return Vec::new();
        }
        let (taken, left) = std::mem::take(&mut self.packets).into_iter().partition(|(_, whom, _)| *whom == next_hop);
        self.packets = left;
        let taken: VecDeque<(Instant, IpAddr, P)> = taken;
        taken.into_iter().map(|(_, _, packet)| packet).collect()
    }

    /// Takes the packets that have waited in vain.
    pub fn expired(&mut self, now: Instant) -> Vec<P> {
        let mut expired = Vec::new();
        while self.packets.front().is_some_and(|(until, _, _)| *until <= now) {
            let Some((_, next_hop, packet)) = self.packets.pop_front() else { break };
            if let Some(each) = self.each.get_mut(&next_hop) {
                *each -= 1;
                if *each == 0 {
                    self.each.remove(&next_hop);
                }
            }
            expired.push(packet);
        }
        expired
    }

    /// Number of packets that wait.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(milliseconds)
    }

    fn hop(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    #[test]
    fn a_few_wait_for_each_and_leave_in_order_or_when_their_time_is_over() {
        let mut waiting = Waiting::default();
        for packet in 0..4 {
            assert_eq!(waiting.hold(at(packet), hop(1), packet), Ok(()));
            assert_eq!(waiting.hold(at(packet), hop(2), 10 + packet), Ok(()));
        }
        assert_eq!(waiting.hold(at(4), hop(1), 4), Err(WaitingDrop::NextHopFull));
        assert_eq!(waiting.take(hop(1)), [0, 1, 2, 3]);
        assert!(waiting.take(hop(1)).is_empty());
        assert_eq!(waiting.hold(at(5), hop(1), 5), Ok(()));
        assert!(waiting.expired(at(2999)).is_empty());
        assert_eq!(waiting.expired(at(3001)), [10, 11]);
        assert_eq!(waiting.hold(at(3001), hop(2), 20), Ok(()));
        assert_eq!(waiting.take(hop(2)), [12, 13, 20]);
        assert_eq!(waiting.expired(at(9000)), [5]);
        assert!(waiting.is_empty() && waiting.each.is_empty());
    }

    #[test]
    fn all_together_are_bounded() {
        let mut waiting = Waiting::default();
        let held = (0..100_000).filter(|&number| waiting.hold(at(0), hop(number), number).is_ok()).count();
        assert_eq!((held, waiting.len(), waiting.each.len()), (ALL, ALL, ALL));
        assert_eq!(waiting.hold(at(0), hop(0), 0), Err(WaitingDrop::Full));
    }
}
