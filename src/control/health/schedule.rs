//! When each child is checked, and when what is found changes what is thought of it.
//!
//! ```text
//!          due, and the limits allow it
//! Waiting ──────────────────────────────► Running
//!    ▲        finished, or timed out         │          fall failures in a row
//!    └───────────────────────────────────────┘      up ─────────────────────────► down
//!      interval ± jitter after its start               ◄─────────────────────────
//!                                                        rise successes in a row
//! ```
//!
//! Every child has a time of its own to start with, anywhere in its first interval, and each interval varies: checks
//! spread by themselves. Only so many start in a second and only so many run at a time. Beyond that they come later than
//! configured; the slow path is not held up.

use std::collections::BTreeSet;

use super::CheckId;
use crate::clock::Instant;
use crate::config::{Probe, Rhythm};
use crate::control::random::Random;
use crate::control::rate_limit::RateLimit;

/// Checks of like cost, limited together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A few packets.
    Plain,
    /// A TLS handshake: a fraction of a millisecond of arithmetic.
    Tls,
    /// A process.
    Command,
}

impl Class {
    /// The class of a probe.
    pub fn of(probe: &Probe) -> Class {
        match probe {
            Probe::Icmp | Probe::Tcp { .. } | Probe::Http(_) | Probe::Dns { .. } => Class::Plain,
            Probe::Https(..) | Probe::Tls(..) => Class::Tls,
            Probe::Command(_) => Class::Command,
        }
    }
}

/// Limits of each [`Class`]: starts a second, starts in one go, and checks under way.
const LIMITS: [(u32, u32, usize); 3] = [(20_000, 100, 16_384), (1000, 4, 2048), (100, 10, 64)];

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start the check.
    Start(CheckId),
    /// End it: its answer has not come in time.
    TimedOut(CheckId),
}

#[derive(Debug)]
struct Entry {
    rhythm: Rhythm,
    class: Class,
    up: bool,
    /// Results in a row that speak against what is thought of it.
    streak: u8,
    /// While it is under way: since when, and how long at most.
    running: Option<(Instant, Instant)>,
}

/// The checks of one class.
#[derive(Debug)]
struct Lane {
    waiting: BTreeSet<(Instant, CheckId)>,
    starts: RateLimit,
    running: usize,
    running_max: usize,
}

impl Lane {
    fn full(&self) -> bool {
        self.running >= self.running_max
    }
}

/// The machine.
#[derive(Debug)]
pub struct Schedule {
    entries: Vec<Entry>,
    lanes: [Lane; LIMITS.len()],
    /// Ends of the time of those under way.
    running: BTreeSet<(Instant, CheckId)>,
    random: Random,
}

impl Schedule {
    /// No checks. `seed` spreads them.
    pub fn new(seed: u64) -> Schedule {
        let lane = |(per_second, at_once, running_max)| {
            let starts = RateLimit::new(per_second, at_once);
            Lane { waiting: BTreeSet::new(), starts, running: 0, running_max }
        };
        Schedule { entries: Vec::new(), lanes: LIMITS.map(lane), running: BTreeSet::new(), random: Random::new(seed) }
    }

    /// Adds a check, whose child is thought of as `up`, and returns its number: as many as were added before.
    pub fn add(&mut self, now: Instant, rhythm: Rhythm, class: Class, up: bool) -> CheckId {
        let id = CheckId(self.entries.len() as u32);
        let due = now + rhythm.interval.mul_f64(self.random.fraction());
        self.lanes[class as usize].waiting.insert((due, id));
        self.entries.push(Entry { rhythm, class, up, streak: 0, running: None });
        id
    }

    /// Whether the child of a check is up.
    pub fn is_up(&self, id: CheckId) -> bool {
        self.entries[id.index()].up
    }

    /// When there is something to do next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let lanes = self.lanes.iter().filter(|lane| !lane.full());
        let starts = lanes.filter_map(|lane| lane.waiting.first().map(|(due, _)| (*due).max(lane.starts.ready())));
        starts.chain(self.running.first().map(|(until, _)| *until)).min()
    }

    /// The next thing to do, if any is due. A check that has timed out is to be [finished](Schedule::finish) by the caller.
    pub fn step(&mut self, now: Instant) -> Option<Step> {
        if let Some((until, id)) = self.running.first().copied()
            && until <= now
        {
            // Not again.
            self.running.remove(&(until, id));
            return Some(Step::TimedOut(id));
        }
        for lane in self.lanes.iter_mut().filter(|lane| !lane.full()) {
            if let Some((due, id)) = lane.waiting.first().copied()
                && due <= now
                && lane.starts.take(now)
            {
                let entry = &mut self.entries[id.index()];
                let until = now + entry.rhythm.timeout;
                lane.waiting.remove(&(due, id));
                lane.running += 1;
                entry.running = Some((now, until));
                self.running.insert((until, id));
                return Some(Step::Start(id));
            }
        }
        None
    }

    /// Takes in how a check under way has ended; true when its child is thought of otherwise now.
    pub fn finish(&mut self, now: Instant, id: CheckId, success: bool) -> bool {
        let entry = &mut self.entries[id.index()];
        let Some((since, until)) = entry.running.take() else { return false };
        let due = (since + entry.rhythm.interval.mul_f64(self.random.around(entry.rhythm.jitter_percent))).max(now);
        let lane = &mut self.lanes[entry.class as usize];
        lane.running -= 1;
        lane.waiting.insert((due, id));
        self.running.remove(&(until, id));
        if success == entry.up {
            entry.streak = 0;
            return false;
        }
        entry.streak += 1;
        let changed = entry.streak >= if entry.up { entry.rhythm.fall } else { entry.rhythm.rise };
        if changed {
            (entry.up, entry.streak) = (success, 0);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;

    const RHYTHM: Rhythm = Rhythm {
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(60),
        jitter_percent: 0,
        rise: 2,
        fall: 3,
        initially_up: true,
    };

    fn at(milliseconds: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(milliseconds)
    }

    /// Lets time pass, a tenth of a millisecond at a time, until the next step.
    fn next(schedule: &mut Schedule, now: &mut Instant) -> Step {
        loop {
            let due = schedule.next_deadline().is_some_and(|deadline| deadline <= *now);
            let step = schedule.step(*now);
            assert_eq!(step.is_some(), due, "at {now:?}");
            match step {
                Some(step) => return step,
                None => *now = *now + Duration::from_micros(100),
            }
        }
    }

    #[test]
    fn a_child_falls_and_rises_by_results_in_a_row() {
        // Whether it is up at first; rise and fall; results; and after each of them whether it is up.
        for (up, rise, fall, results, expected) in [
            (true, 2, 3, "fffff", "++---"),
            (true, 2, 3, "ffsfffss", "+++++--+"),
            (true, 2, 3, "ffsffsfff", "++++++++-"),
            (false, 2, 3, "sss", "-++"),
            (false, 2, 3, "sfsss", "---++"),
            (false, 1, 1, "sfsf", "+-+-"),
            (true, 1, 1, "fs", "-+"),
            (true, 3, 2, "ffssfsss", "+------+"),
        ] {
            let mut schedule = Schedule::new(1);
            let id = schedule.add(Instant::ZERO, Rhythm { rise, fall, ..RHYTHM }, Class::Plain, up);
            let (mut now, mut before, mut found) = (Instant::ZERO, up, String::new());
            for result in results.chars() {
                assert_eq!(next(&mut schedule, &mut now), Step::Start(id));
                let changed = schedule.finish(now, id, result == 's');
                assert_eq!(changed, schedule.is_up(id) != before, "{results}");
                before = schedule.is_up(id);
                found.push(if before { '+' } else { '-' });
            }
            assert_eq!(found, expected, "{results}, rise {rise}, fall {fall}");
        }
    }

    #[test]
    fn checks_start_an_interval_apart_and_end_in_time() {
        let mut schedule = Schedule::new(2);
        let id = schedule.add(at(500), RHYTHM, Class::Plain, true);
        let mut now = at(500);
        assert_eq!(next(&mut schedule, &mut now), Step::Start(id));
        let first = now;
        assert!(first < at(600));
        assert_eq!(next(&mut schedule, &mut now), Step::TimedOut(id));
        assert!(now - first >= RHYTHM.timeout && now - first < RHYTHM.timeout + Duration::from_millis(1));
        schedule.finish(now, id, false);
        // The time that a check takes is part of the interval, unless it takes longer.
        assert_eq!(next(&mut schedule, &mut now), Step::Start(id));
        let second = now;
        assert!(second - first >= RHYTHM.interval && second - first < RHYTHM.interval + Duration::from_millis(1));
        now = now + Duration::from_millis(20);
        schedule.finish(now, id, true);
        assert!(!schedule.finish(now, id, false), "a check ends once");
        assert_eq!(next(&mut schedule, &mut now), Step::Start(id));
        assert!(now - second >= RHYTHM.interval && now - second < RHYTHM.interval + Duration::from_millis(1));
    }

    #[test]
    fn jitter_spreads_what_would_start_together() {
        for (jitter_percent, low, high) in [(0, 100, 101), (10, 90, 111), (50, 50, 151)] {
            let mut schedule = Schedule::new(3);
            let rhythm = Rhythm { jitter_percent, ..RHYTHM };
            for _ in 0..100 {
                schedule.add(Instant::ZERO, rhythm, Class::Plain, true);
            }
            let (mut now, mut started, mut gaps) = (Instant::ZERO, HashMap::new(), Vec::new());
            let mut firsts = Vec::new();
            while gaps.len() < 2000 {
                let Step::Start(id) = next(&mut schedule, &mut now) else { panic!("none takes long") };
                schedule.finish(now, id, true);
                match started.insert(id, now) {
                    Some(before) => gaps.push((now - before).as_millis()),
                    None => firsts.push(now),
                }
            }
            assert!(gaps.iter().all(|gap| (low..=high).contains(gap)), "{jitter_percent} %");
            let spread = gaps.iter().max().zip(gaps.iter().min()).map_or(0, |(most, least)| most - least);
            assert!(spread + 15 >= u128::from(2 * jitter_percent), "{jitter_percent} %: {spread} ms");
            let early = firsts.iter().filter(|first| **first < at(50)).count();
            assert!((30..=70).contains(&early), "{early} of 100 start in the first half of the interval");
        }
    }

    /// What the limits promise: however many are due, a pass has an end and the other classes their share.
    #[test]
    fn no_class_starts_more_than_it_may_nor_holds_another_up() {
        let rhythm = Rhythm { timeout: Duration::from_secs(30), ..RHYTHM };
        let mut schedule = Schedule::new(4);
        let classes = [Class::Plain, Class::Tls, Class::Command];
        for number in 0..9000 {
            schedule.add(at(0), rhythm, classes[number % 3], true);
        }
        let (mut starts, mut last) = ([0_usize; 3], [CheckId(0); 3]);
        for millisecond in 1000..2000 {
            let mut in_one_go = [0_u32; 3];
            while let Some(step) = schedule.step(at(millisecond)) {
                let Step::Start(CheckId(number)) = step else { panic!("{step:?}") };
                starts[number as usize % 3] += 1;
                last[number as usize % 3] = CheckId(number);
                in_one_go[number as usize % 3] += 1;
            }
            for (count, (_, at_once, _)) in in_one_go.iter().zip(LIMITS) {
                assert!(*count <= at_once, "{in_one_go:?} at {millisecond} ms");
            }
        }
        // All of the first, a second's worth of the next, as many as may run of the last.
        assert_eq!(starts[0], 3000);
        assert!((1000..=1004).contains(&starts[1]), "{starts:?}");
        assert_eq!(starts[2], 64);
        // One ends, one starts.
        schedule.finish(at(2000), last[2], true);
        let mut next = std::iter::from_fn(|| schedule.step(at(2001)));
        assert!(next.any(|step| matches!(step, Step::Start(CheckId(number)) if number % 3 == 2)));
    }

    #[test]
    fn the_defaults_of_a_rhythm_find_a_failure_in_the_time_they_promise() {
        for (interval, timeout, jitter_percent, fall) in [(250, 250, 10, 2), (100, 300, 50, 3), (300, 50, 0, 1)] {
            let (interval, timeout) = (Duration::from_millis(interval), Duration::from_millis(timeout));
            let rhythm = Rhythm { interval, timeout, jitter_percent, fall, ..RHYTHM };
            for seed in 0..50 {
                let mut schedule = Schedule::new(seed);
                let id = schedule.add(Instant::ZERO, rhythm, Class::Plain, true);
                let mut now = Instant::ZERO;
                assert_eq!(next(&mut schedule, &mut now), Step::Start(id));
                schedule.finish(now, id, true);
                let failed = now;
                while schedule.is_up(id) {
                    if let Step::TimedOut(id) = next(&mut schedule, &mut now) {
                        schedule.finish(now, id, false);
                    }
                }
                // Each step may be seen a tenth of a millisecond late.
                let found = now - failed;
                assert!(found <= rhythm.detection_max() + Duration::from_millis(1), "{found:?} by {rhythm:?}");
            }
        }
    }
}
