//! What time it is, as everything below the daemon is told it: nobody but the driver of a loop reads a clock.
//!
//! [`Instant`] is a nanosecond count from an origin that the process chose (the time-stamp counter at start, a
//! capture's first packet, a simulation's zero). [`Tick`] is the same time in milliseconds, small enough to sit in
//! every flow entry.

pub mod rate_limit;

use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime};

/// A point in time: nanoseconds since the origin of this process's clock. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Instant = Instant(0);

    /// The instant `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The same time as flow entries keep it.
    pub const fn tick(self) -> Tick {
        Tick((self.0 / 1_000_000) as u32)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, later: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    fn sub(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Milliseconds since the origin, modulo 2^32: it wraps after 49.7 days, so ticks are compared by [`Tick::since`] only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick(pub u32);

impl Tick {
    /// Milliseconds from `earlier` to `self`, right as long as less than 49.7 days lie between them.
    #[inline]
    pub const fn since(self, earlier: Tick) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

/// A time of the calendar: milliseconds since 1970 (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallClock(pub u64);

impl From<SystemTime> for WallClock {
    fn from(time: SystemTime) -> WallClock {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        WallClock(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_measure_across_the_wrap() {
        let before = Instant::from_nanos(u64::from(u32::MAX) * 1_000_000).tick();
        let after = Instant::from_nanos((u64::from(u32::MAX) + 5) * 1_000_000).tick();
        assert_eq!(after.since(before), 5);
    }

    #[test]
    fn time_does_not_run_backwards() {
        let early = Instant::from_nanos(5);
        let late = early + Duration::from_nanos(7);
        assert_eq!(late - early, Duration::from_nanos(7));
        assert_eq!(early - late, Duration::ZERO);
    }
}
