//! How many flow entries a worker makes in a second: so that a flood of new flows fills no table faster than time-outs
//! empty it.

use std::cell::Cell;

use crate::clock::Tick;

/// What of a second can be caught up on, in milliseconds.
const BURST_MS: u64 = 100;

/// What one entry costs: credit is in thousandths of an entry, of which a rate per second gives so many a millisecond.
const ENTRY: u64 = 1000;

/// One worker's entries.
#[derive(Debug)]
pub struct InsertLimit {
    credit: Cell<u64>,
    at: Cell<Tick>,
}

impl Default for InsertLimit {
    /// As after a long rest.
    fn default() -> InsertLimit {
        InsertLimit { credit: Cell::new(u64::MAX), at: Cell::new(Tick(0)) }
    }
}

impl InsertLimit {
    /// Whether another entry may be made at `now`, where `per_second` may be made in a second.
    pub fn take(&self, now: Tick, per_second: u32) -> bool {
        self.renew(now, per_second);
        self.take_more()
    }

    /// Says what time it is and what may be made in a second, for what is taken next.
    pub fn renew(&self, now: Tick, per_second: u32) {
        let rate = u64::from(per_second);
        let passed = u64::from(now.since(self.at.replace(now)));
        let most = (rate * BURST_MS).max(ENTRY);
        self.credit.set(self.credit.get().min(most).saturating_add(passed * rate).min(most));
    }

    /// Whether another entry may be made at that time.
    #[inline(always)]
    pub fn take_more(&self) -> bool {
        let left = self.credit.get().checked_sub(ENTRY);
        if let Some(left) = left {
            self.credit.set(left);
        }
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_made_as_a_second_allows_and_a_burst_before() {
        for (per_second, burst) in [(1, 1), (50, 5), (1_000, 100), (1_000_000, 100_000)] {
            let limit = InsertLimit::default();
            let made = |now, wanted: u32| (0..wanted).filter(|_| limit.take(Tick(now), per_second)).count() as u32;
            assert_eq!(made(1, per_second + 1), burst, "at once, of {per_second} a second");
            let steady: u32 = (2..10_002).map(|now| made(now, per_second / 500 + 2)).sum();
            assert!(steady.abs_diff(10 * per_second) <= 1, "{steady} in 10 s of {per_second} a second");
            assert_eq!(made(3_600_000, per_second + 1), burst, "after a rest, of {per_second} a second");
        }
    }
}
