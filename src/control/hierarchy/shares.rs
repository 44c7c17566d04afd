//! How fast shares of new flows follow costs: smoothed, bounded, and not at all for small change.
//!
//! News are an interval old, and flows that have been given out come to weigh on a child only later. Whoever gives the
//! cheapest child everything at once makes it the most expensive one. So a share goes a part of the way in an interval, by
//! no more than a part of itself, and what workers select by changes only when it has moved noticeably.
//!
//! What has leapt need not wait for the end of the interval: shares take the step of their next turn at once, and none at that
//! turn.
//!
//! A child that has too much of other work is another matter: it does about all that it can, and clearly more than the others
//! do. It wants less than its cost says, next to nothing in the end, and what it gets falls as fast as news come. It comes back
//! as slowly as anybody: so where many routers have the same news, what they do together is to leave one quickly, not to rush to
//! another. Where all do about all that they can, shares stay where costs would have them; else they would swing.
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

/// Loads from which on a child may have too much, and from which on that counts in full.
const HIGH: [f64; 2] = [0.9, 1.0];

/// The same as a multiple of what the others do in the mean.
const ABOVE: [f64; 2] = [1.3, 1.6];

/// What part of what its cost says a child wants that has too much.
const LEFT: f64 = 0.05;

/// By how much of itself its share falls in a step at most.
const RELIEF_MAX: f64 = 0.75;

/// Intervals at the start in which costs do not count.
const SETTLING: u8 = 5;

/// Weight of the largest share: fine enough, and coarse enough that equal children are seen to be equal.
const WEIGHT_MAX: f64 = 1000.0;

/// What shares of new flows go by, for a child that takes any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// What it costs.
    pub cost: f64,
    /// How much it can do, in the unit of weights.
    pub capacity: f64,
    /// How much of that it does.
    pub load: f64,
}

impl Price {
    /// What part of what its cost says it wants, where the others have this load in the mean.
    fn headroom(&self, others: f64) -> f64 {
        if self.load <= HIGH[0] {
            return 1.0;
        }
        let on = |value: f64, [from, to]: [f64; 2]| ((value - from) / (to - from)).clamp(0.0, 1.0);
        let much = on(self.load, HIGH).min(on(self.load, ABOVE.map(|times| times * others.max(f64::MIN_POSITIVE))));
        1.0 - much * (1.0 - LEFT)
    }
}

/// What a child wants.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Want {
    /// In proportion to what the others want.
    part: f64,
    /// Whether it is to get no more than that soon.
    at_once: bool,
}

/// The shares of one virtual host's children; those that take flows add up to 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shares {
    /// How they are, still on their way.
    moving: Vec<f64>,
    /// What is in force.
    settled: Vec<f64>,
    /// Intervals that have passed, up to [`SETTLING`].
    age: u8,
    /// When the last step was taken, whether that was the one of the next turn, and whether that turn takes one all the same.
    stepped: Instant,
    is_ahead: bool,
    is_due: bool,
}

/// Part of an interval that lies between two steps at least.
const APART: u32 = 4;

impl Shares {
    /// Whether to take a step now, where it is their turn.
    pub fn take_turn(&mut self, now: Instant) -> bool {
        let takes = !self.is_ahead || self.is_due;
        (self.is_ahead, self.is_due) = (false, false);
        if takes {
            self.stepped = now;
        }
        takes
    }

    /// Whether to take the step of the next turn now, or, since a child is `full` all of a sudden, one more.
    pub fn go_ahead(&mut self, now: Instant, interval: Duration, full: bool) -> bool {
        let goes = (full || !self.is_ahead) && now - self.stepped >= interval / APART;
        if goes {
            (self.stepped, self.is_ahead) = (now, true);
        }
        self.is_due = !goes && (self.is_due || full);
        goes
    }

    /// Goes towards what children want, `None` for one that takes no flows. `passed`: an interval is over; else who takes
    /// flows has changed.
    pub fn step(&mut self, children: &[Option<Price>], passed: bool) {
        let settling = self.age < SETTLING;
        self.age = self.age.saturating_add(passed.into()).min(SETTLING);
        let by_capacity = |price: Price| Price { cost: 1.0, load: 0.0, ..price };
        match settling {
            true => {
                self.moving.clear();
                self.go(&wanted(&children.iter().map(|child| child.map(by_capacity)).collect::<Vec<_>>()));
            }
            false => self.go(&wanted(children)),
        }
    }

    fn go(&mut self, wanted: &[Option<Want>]) {
        let sum: f64 = wanted.iter().flatten().map(|want| want.part).sum();
        let takers = wanted.iter().flatten().count().max(1) as f64;
        let part = |want: &Want| if sum > 0.0 { want.part / sum } else { 1.0 / takers };
        if self.moving.len() != wanted.len() || self.moving.iter().sum::<f64>() <= 0.0 {
            self.moving = wanted.iter().map(|want| want.as_ref().map_or(0.0, part)).collect();
            self.settled = self.moving.clone();
            return;
        }
        let small = SMALL / takers;
        for (share, want) in self.moving.iter_mut().zip(wanted) {
            let Some(want) = want else {
                *share = 0.0;
                continue;
            };
            let (way, limit) = (part(want) - *share, CHANGE_MAX * share.max(small));
            *share += match want.at_once && way < 0.0 {
                true => way.max(-RELIEF_MAX * *share),
                false => (PART * way).clamp(-limit, limit),
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

/// What children want: in proportion to capacity, and against cost.
fn wanted(children: &[Option<Price>]) -> Vec<Option<Want>> {
    let costs = children.iter().flatten().map(|price| price.cost);
    let highest = costs.filter(|cost| cost.is_finite()).fold(0.0, f64::max);
    let floor = if highest > 0.0 { highest * COST_MIN } else { 1.0 };
    let all = children.iter().flatten();
    let (work, able) =
        all.fold((0.0, 0.0), |(work, able), price| (work + price.load * price.capacity, able + price.capacity));
    let want = |price: &Price| {
        let (work, able) = (work - price.load * price.capacity, able - price.capacity);
        let headroom = if able > 0.0 { price.headroom(work / able) } else { 1.0 };
        // A cost without measure is that of a child that is not to be chosen as long as there is another.
        Want { part: headroom * price.capacity.max(1.0) / price.cost.max(floor), at_once: headroom < 1.0 }
    };
    children.iter().map(|child| child.as_ref().map(want)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Children that want so much, none of them at once.
    fn want(parts: &[Option<f64>]) -> Vec<Option<Want>> {
        parts.iter().map(|part| part.map(|part| Want { part, at_once: false })).collect()
    }

    fn shares(start: &[Option<f64>]) -> Shares {
        let mut shares = Shares::default();
        shares.go(&want(start));
        shares
    }

    fn price(cost: f64, capacity: f64) -> Option<Price> {
        Some(Price { cost, capacity, load: 0.5 })
    }

    #[test]
    fn shares_start_where_they_are_wanted_and_go_there_step_by_step() {
        let mut shares = shares(&[Some(100.0), Some(100.0), None]);
        assert_eq!([0, 1, 2].map(|at| shares.of(at)), [0.5, 0.5, 0.0]);
        let mut before = shares.clone();
        for step in 0..40 {
            shares.go(&want(&[Some(900.0), Some(100.0), None]));
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
        let ahead: Vec<u64> = (4..8).filter(|s| shares.go_ahead(at(*s), interval, false)).collect();
        assert_eq!(ahead, [5]);
        assert!(!shares.take_turn(at(8)));
        assert!(shares.go_ahead(at(9), interval, false) && !shares.take_turn(at(12)));
        assert!(shares.take_turn(at(16)) && shares.take_turn(at(20)));
    }

    #[test]
    fn who_can_do_no_more_is_left_soon_even_right_behind_another_step() {
        let interval = Duration::from_secs(4);
        let at = |ms: u64| Instant::ZERO + Duration::from_millis(ms);
        let mut shares = Shares::default();
        assert!(shares.take_turn(at(4_000)) && shares.go_ahead(at(6_000), interval, false));
        // Two leaps, of two servers of one site, say: not that soon, but at the turn.
        assert!(!shares.go_ahead(at(6_100), interval, true) && !shares.go_ahead(at(6_200), interval, false));
        assert!(shares.take_turn(at(8_000)));
        assert!(shares.go_ahead(at(9_000), interval, false) && shares.go_ahead(at(10_000), interval, true));
        assert!(!shares.take_turn(at(12_000)));
    }

    #[test]
    fn small_change_changes_nothing() {
        let mut shares = shares(&[Some(100.0), Some(100.0)]);
        let before = shares.settled.clone();
        for step in 0..50 {
            let swing = if step % 2 == 0 { 1.0 } else { -1.0 };
            shares.go(&want(&[Some(100.0 + swing * 5.0), Some(100.0 - swing * 5.0)]));
            assert_eq!(shares.settled, before, "step {step}");
        }
    }

    #[test]
    fn who_takes_no_flows_has_no_share_at_once_and_who_comes_back_gets_it_slowly() {
        let mut shares = shares(&[Some(100.0), Some(100.0)]);
        shares.go(&want(&[Some(100.0), None]));
        assert_eq!([shares.of(0), shares.of(1)], [1.0, 0.0]);
        let mut last = 0.0;
        let mut steps = 0;
        while shares.of(1) < 0.45 {
            shares.go(&want(&[Some(100.0), Some(100.0)]));
            assert!(shares.of(1) - last <= 0.15, "{last} to {}", shares.of(1));
            (last, steps) = (shares.of(1), steps + 1);
            assert!(steps < 30);
        }
        assert!(steps > 3, "{steps}");
        // Nobody takes any, and then one does.
        shares.go(&want(&[None, None]));
        assert!(shares.weights().eq([Weight::DRAIN; 2]));
        shares.go(&want(&[None, Some(1.0)]));
        assert_eq!([shares.of(0), shares.of(1)], [0.0, 1.0]);
    }

    #[test]
    fn at_the_start_capacity_counts_alone_and_at_once() {
        let (one, both) = ([price(0.1, 100.0), None], [price(0.9, 100.0), price(0.1, 300.0)]);
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
        let of = |children: &[Option<Price>]| {
            wanted(children).iter().map(|want| want.map(|want| want.part)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[price(0.5, 100.0), price(0.25, 100.0)]), [Some(200.0), Some(400.0)]);
        assert_eq!(of(&[price(0.5, 300.0), None]), [Some(600.0), None]);
        // All for nothing: by capacity alone. One for nothing: cheap, but not infinitely so.
        assert_eq!(of(&[price(0.0, 100.0), price(0.0, 300.0)]), [Some(100.0), Some(300.0)]);
        assert_eq!(of(&[price(1.0, 100.0), price(0.0, 100.0)]), [Some(100.0), Some(1000.0)]);
        assert_eq!(of(&[price(f64::INFINITY, 100.0), price(1.0, 100.0)]), [Some(0.0), Some(100.0)]);
    }

    /// Shares of three children of which the first has this load, while the others have half.
    fn loaded(shares: &mut Shares, load: f64) -> f64 {
        let children = [load, 0.5, 0.5].map(|load| Some(Price { cost: 0.1 + load, capacity: 100.0, load }));
        shares.step(&children, true);
        shares.of(0)
    }

    #[test]
    fn a_child_that_can_do_no_more_has_next_to_nothing_after_three_steps_and_comes_back_slowly() {
        let mut shares = Shares::default();
        let fair = (0..10).map(|_| loaded(&mut shares, 0.5)).last().unwrap();
        let falling: Vec<f64> = (0..3).map(|_| loaded(&mut shares, 1.2)).collect();
        assert!(falling[0] >= (1.0 - RELIEF_MAX) * fair && falling[2] < fair / 10.0, "{falling:?}");
        let still = (0..20).map(|_| loaded(&mut shares, 1.2)).last().unwrap();
        assert!(still > 0.0 && still < fair / 20.0, "{still}");
        let rising: Vec<f64> = (0..30).map(|_| loaded(&mut shares, 0.5)).collect();
        let bound = fair * CHANGE_MAX * 1.1;
        assert!(rising.is_sorted() && rising[0] - still < bound && rising[2] < 0.8 * fair, "{rising:?}");
        assert!((rising[29] - fair).abs() < 0.02, "{rising:?}");
    }

    #[test]
    fn where_all_can_do_no_more_shares_go_by_cost() {
        let mut shares = Shares::default();
        for _ in 0..60 {
            let children = [(1.0, 1.1), (2.0, 1.3)].map(|(cost, load)| Some(Price { cost, capacity: 100.0, load }));
            shares.step(&children, true);
        }
        assert!((shares.of(0) - 2.0 / 3.0).abs() < 0.02, "{shares:?}");
    }

    /// Load is what the last interval's share has brought, and cost is that load: shares settle and do not swing.
    #[test]
    fn shares_that_follow_old_news_come_to_rest_near_equal_loads() {
        let capacities = [100.0, 100.0, 300.0, 50.0];
        let mut loads = [0.9, 0.1, 0.5, 0.5];
        let mut shares = Shares::default();
        let mut changes = 0;
        for step in 0..100 {
            let children: Vec<_> = loads
                .iter()
                .zip(capacities)
                .map(|(load, capacity)| Some(Price { cost: *load, capacity, load: *load }))
                .collect();
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
