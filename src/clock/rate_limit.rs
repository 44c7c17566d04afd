//! Whether something may be done now, when it must not be done too often.

use std::time::Duration;

use crate::clock::Instant;

/// Allows a number of doings a second on average, and some of them in one go.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    interval: Duration,
    /// What may be done in one go takes so long at the average rate, less the last.
    ahead: Duration,
    /// When as many as ever may be done in one go again.
    full: Instant,
}

impl RateLimit {
    /// Allows `per_second` on average and `at_once` in one go; both at least 1.
    pub fn new(per_second: u32, at_once: u32) -> RateLimit {
        let interval = Duration::from_secs(1) / per_second.max(1);
        RateLimit { interval, ahead: interval * (at_once.max(1) - 1), full: Instant::ZERO }
    }

    /// Whether it may be done now; if so, it counts as done.
    pub fn take(&mut self, now: Instant) -> bool {
        let allowed = now >= self.ready();
        if allowed {
            self.full = self.full.max(now) + self.interval;
        }
        allowed
    }

    /// When it may be done next.
    pub fn ready(&self) -> Instant {
        Instant::ZERO + (self.full - Instant::ZERO).saturating_sub(self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_in_one_go_and_then_one_at_a_time() {
        let at = |milliseconds| Instant::ZERO + Duration::from_millis(milliseconds);
        let mut limit = RateLimit::new(100, 3);
        for (milliseconds, asked, allowed) in
            [(5000, 5, 3), (5009, 5, 0), (5010, 5, 1), (5020, 1, 1), (5045, 5, 2), (9000, 5, 3)]
        {
            let count = (0..asked).filter(|_| limit.take(at(milliseconds))).count();
            assert_eq!(count, allowed, "at {milliseconds} ms");
        }
        assert_eq!(limit.ready(), at(9010));
    }
}
