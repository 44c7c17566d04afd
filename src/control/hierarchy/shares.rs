//! How fast shares of new flows follow costs: smoothed, bounded, and not at all for small change.
//!
//! News are an interval old, and flows that have been given out come to weigh on a child only later. Whoever gives the
//! cheapest child everything at once makes it the most expensive one. So a share goes a part of the way in an interval, by
//! no more than a part of itself, and what workers select by changes only when it has moved noticeably.
//!
//! What has leapt need not wait for the end of the interval: shares take the step of their next turn at once, and none at that
//! turn.
//!
//! A router that starts hears from one child after the other, and of loads that mean nothing yet: for its first intervals
//! shares go by capacity alone, and at once.

use std::time::Duration;

use crate::clock::Instant;
use crate::units::Weight;

/// How much of the way a share goes in one interval.
const PART: f64 = 0.3;

/// By how much of itself a share changes in one interval at most.
const CHANGE_MAX: f64 = 0.25;

/// Of a fair share, what a smaller one counts as when its change is bounded: who starts from nothing must get somewhere.
const SMALL: f64 = 1.0;

/// By how much a share must have moved from what is in force, in parts of itself, until it takes effect.
const NOTICEABLE: f64 = 0.03;

/// A cost that is less than this part of the highest counts as this part, so that shares differ by no more than that.
const COST_MIN: f64 = 0.1;

/// Intervals at the start in which costs do not count.
const SETTLING: u8 = 5;

/// Weight of the largest share: fine enough, and coarse enough that equal children are seen to be equal.
const WEIGHT_MAX: f64 = 1000.0;

/// The shares of one virtual host's children; those that take flows add up to 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shares {
    /// How they are, still on their way.
    moving: Vec<f64>,
    /// What is in force.
    settled: Vec<f64>,
    /// Intervals that have passed, up to [`SETTLING`].
    age: u8,
    /// When the last step was taken, and whether that was the one of the next turn.
    stepped: Instant,
    is_ahead: bool,
}

/// Part of an interval that lies between two steps at least.
const APART: u32 = 4;

impl Shares {
    /// Whether to take a step now, where it is their turn.
    pub fn take_turn(&mut self, now: Instant) -> bool {
        let takes = !std::mem::take(&mut self.is_ahead);
        if takes {
            self.stepped = now;
        }
        takes
    }

    /// Whether to take the step of the next turn now.
    pub fn go_ahead(&mut self, now: Instant, interval: Duration) -> bool {
        let goes = !self.is_ahead && now - self.stepped >= interval / APART;
        if goes {
            (self.stepped, self.is_ahead) = (now, true);
        }
        goes
    }

    /// Goes towards what children with these costs and capacities want, `None` for one that takes no flows. `passed`: an
    /// interval is over; else who takes flows has changed.
    pub fn step(&mut self, children: &[Option<(f64, f64)>], passed: bool) {
        let settling = self.age < SETTLING;
        self.age = self.age.saturating_add(passed.into()).min(SETTLING);
        let capacity = |(_, capacity): (f64, f64)| (1.0, capacity);
        match settling {
            true => {
                self.moving.clear();
                self.go(&wanted(&children.iter().map(|child| child.map(capacity)).collect::<Vec<_>>()));
            }
            false => self.go(&wanted(children)),
        }
    }

    fn go(&mut self, wanted: &[Option<f64>]) {
        let sum: f64 = wanted.iter().flatten().sum();
        let takers = wanted.iter().flatten().count().max(1) as f64;
        let part = |want: &Option<f64>| match (want, sum > 0.0) {
            (Some(want), true) => want / sum,
            (Some(_), false) => 1.0 / takers,
            (None, _) => 0.0,
        };
        if self.moving.len() != wanted.len() || self.moving.iter().sum::<f64>() <= 0.0 {
            self.moving = wanted.iter().map(part).collect();
            self.settled = self.moving.clone();
            return;
        }
        let small = SMALL / takers;
        for (share, want) in self.moving.iter_mut().zip(wanted) {
            let limit = CHANGE_MAX * share.max(small);
            *share = match want {
                None => 0.0,
                Some(_) => *share + (PART * (part(want) - *share)).clamp(-limit, limit),
            };
        }
        let sum: f64 = self.moving.iter().sum();
        if sum > 0.0 {
            self.moving.iter_mut().for_each(|share| *share /= sum);
        }
        let moved = |(now, before): (&f64, &f64)| {
            (now - before).abs() > NOTICEABLE * before.max(small) || (*now > 0.0) != (*before > 0.0)
        };
        if self.moving.iter().zip(&self.settled).any(moved) {
            self.settled.clone_from(&self.moving);
        }
    }

    /// The share in force of a child, by its position.
    pub fn of(&self, child: usize) -> f64 {
        self.settled.get(child).copied().unwrap_or(0.0)
    }

    /// All of them as weights; 0 only for a share of 0.
    pub fn weights(&self) -> impl Iterator<Item = Weight> {
        let largest = self.settled.iter().copied().fold(0.0, f64::max);
        self.settled.iter().map(move |share| {
            if *share <= 0.0 || largest <= 0.0 {
                return Weight::DRAIN;
            }
            let weight = (share / largest * WEIGHT_MAX).round().max(1.0);
            Weight::new(weight as u16).unwrap_or(Weight::DRAIN)
        })
    }
}

/// What children want that have these costs and capacities: in proportion to capacity, and against cost.
fn wanted(children: &[Option<(f64, f64)>]) -> Vec<Option<f64>> {
    let highest = children.iter().flatten().map(|(cost, _)| *cost).filter(|cost| cost.is_finite()).fold(0.0, f64::max);
    let floor = if highest > 0.0 { highest * COST_MIN } else { 1.0 };
    // A cost without measure is that of a child that is not to be chosen as long as there is another.
    children.iter().map(|child| child.map(|(cost, capacity)| capacity.max(1.0) / cost.max(floor))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(steps: &[&[Option<f64>]]) -> Shares {
        let mut shares = Shares::default();
        steps.iter().for_each(|wanted| shares.go(wanted));
        shares
    }

    #[test]
    fn shares_start_where_they_are_wanted_and_go_there_step_by_step() {
        let start = [Some(100.0), Some(100.0), None];
        let mut shares = shares(&[&start]);
        assert_eq!([0, 1, 2].map(|at| shares.of(at)), [0.5, 0.5, 0.0]);
        let mut before = shares.clone();
        for step in 0..40 {
            shares.go(&[Some(900.0), Some(100.0), None]);
            for at in [0, 1] {
                let (now, then) = (shares.moving[at], before.moving[at]);
                assert!((now - then).abs() <= CHANGE_MAX * then.max(0.5) * 1.2, "step {step}: {then} to {now}");
            }
            assert!((shares.moving.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            before = shares.clone();
        }
        assert!((shares.of(0) - 0.9).abs() < 0.02, "{shares:?}");
        let weights: Vec<u16> = shares.weights().map(Weight::get).collect();
        assert!(weights[0] == 1000 && (90..140).contains(&weights[1]) && weights[2] == 0, "{weights:?}");
    }

    #[test]
    fn a_step_is_taken_before_its_turn_or_at_it() {
        let interval = Duration::from_secs(4);
        let at = |s: u64| Instant::ZERO + Duration::from_secs(s);
        let mut shares = Shares::default();
        assert!(shares.take_turn(at(4)));
        // Not right behind another one, and once for each turn.
        let ahead: Vec<u64> = (4..8).filter(|s| shares.go_ahead(at(*s), interval)).collect();
        assert_eq!(ahead, [5]);
        assert!(!shares.take_turn(at(8)));
        assert!(shares.go_ahead(at(9), interval) && !shares.take_turn(at(12)));
        assert!(shares.take_turn(at(16)) && shares.take_turn(at(20)));
    }

    #[test]
    fn small_change_changes_nothing() {
        let mut shares = shares(&[&[Some(100.0), Some(100.0)]]);
        let before = shares.settled.clone();
        for step in 0..50 {
            let swing = if step % 2 == 0 { 1.0 } else { -1.0 };
            shares.go(&[Some(100.0 + swing * 5.0), Some(100.0 - swing * 5.0)]);
            assert_eq!(shares.settled, before, "step {step}");
        }
    }

    #[test]
    fn who_takes_no_flows_has_no_share_at_once_and_who_comes_back_gets_it_slowly() {
        let mut shares = shares(&[&[Some(100.0), Some(100.0)]]);
        shares.go(&[Some(100.0), None]);
        assert_eq!([shares.of(0), shares.of(1)], [1.0, 0.0]);
        let mut last = 0.0;
        let mut steps = 0;
        while shares.of(1) < 0.45 {
            shares.go(&[Some(100.0), Some(100.0)]);
            assert!(shares.of(1) - last <= 0.15, "{last} to {}", shares.of(1));
            (last, steps) = (shares.of(1), steps + 1);
            assert!(steps < 30);
        }
        assert!(steps > 3, "{steps}");
        // Nobody takes any, and then one does.
        shares.go(&[None, None]);
        assert!(shares.weights().eq([Weight::DRAIN; 2]));
        shares.go(&[None, Some(1.0)]);
        assert_eq!([shares.of(0), shares.of(1)], [0.0, 1.0]);
    }

    #[test]
    fn at_the_start_capacity_counts_alone_and_at_once() {
        let (one, both) = ([Some((0.1, 100.0)), None], [Some((0.9, 100.0)), Some((0.1, 300.0))]);
        let mut shares = Shares::default();
        shares.step(&one, true);
        assert_eq!([shares.of(0), shares.of(1)], [1.0, 0.0]);
        for _ in 0..SETTLING - 1 {
            shares.step(&both, true);
            assert_eq!([shares.of(0), shares.of(1)], [0.25, 0.75]);
        }
        shares.step(&both, true);
        assert!(shares.of(1) > 0.75 && shares.of(1) < 0.9, "{shares:?}");
    }

    #[test]
    fn shares_go_by_capacity_and_against_cost() {
        let of = |children: &[Option<(f64, f64)>]| wanted(children);
        assert_eq!(of(&[Some((0.5, 100.0)), Some((0.25, 100.0))]), [Some(200.0), Some(400.0)]);
        assert_eq!(of(&[Some((0.5, 300.0)), None]), [Some(600.0), None]);
        // All for nothing: by capacity alone. One for nothing: cheap, but not infinitely so.
        assert_eq!(of(&[Some((0.0, 100.0)), Some((0.0, 300.0))]), [Some(100.0), Some(300.0)]);
        assert_eq!(of(&[Some((1.0, 100.0)), Some((0.0, 100.0))]), [Some(100.0), Some(1000.0)]);
        assert_eq!(of(&[Some((f64::INFINITY, 100.0)), Some((1.0, 100.0))]), [Some(0.0), Some(100.0)]);
    }

    /// Load is what the last interval's share has brought, and cost is that load: shares settle and do not swing.
    #[test]
    fn shares_that_follow_old_news_come_to_rest_near_equal_loads() {
        let capacities = [100.0, 100.0, 300.0, 50.0];
        let mut loads = [0.9, 0.1, 0.5, 0.5];
        let mut shares = Shares::default();
        let mut changes = 0;
        for step in 0..100 {
            let children: Vec<_> =
                loads.iter().zip(capacities).map(|(load, capacity)| Some((*load, capacity))).collect();
            let before = shares.settled.clone();
            shares.step(&children, true);
            changes += u32::from(step > 50 && shares.settled != before);
            for at in 0..4 {
                // Flows last for some intervals: three quarters of the load is older.
                loads[at] = 0.75 * loads[at] + 0.25 * 0.8 * 550.0 * shares.of(at) / capacities[at];
            }
        }
        let mean = loads.iter().sum::<f64>() / 4.0;
        let most = loads.iter().copied().fold(0.0, f64::max);
        assert!(most / mean < 1.1, "{loads:?}");
        assert!(changes <= 2, "{changes} changes in the last 50 intervals");
    }
}
