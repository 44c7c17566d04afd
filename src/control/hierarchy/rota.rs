//! Whose turn it is in a round: many do something once in each, evenly spread over it, so that no pass has all of them.

use std::time::Duration;

use crate::clock::Instant;

/// Turns that are taken in one pass at most: what is late comes in the next ones.
const TURNS_MAX: usize = 2048;

/// Numbers in the order of their turns.
#[derive(Debug, Default)]
pub(super) struct Rota {
    all: Vec<usize>,
    /// How many have had their turn in this round.
    done: usize,
    /// When the round begins, or has begun.
    start: Instant,
}

impl Rota {
    /// The first of `all` has its turn at `start`.
    pub fn new(all: Vec<usize>, start: Instant) -> Rota {
        Rota { all, done: 0, start }
    }

    /// Others have their turns from now on, in the same rhythm.
    pub fn set(&mut self, all: Vec<usize>) {
        self.done = self.done.min(all.len());
        self.all = all;
    }

    /// When the next turn is due, in rounds as long as `round`; `None` where there is nobody.
    pub fn next_turn(&self, round: Duration) -> Option<Instant> {
        let all = u32::try_from(self.all.len()).ok().filter(|all| *all > 0)?;
        // Nobody is left: the first one of the next round is.
        let done = u32::try_from(self.done).unwrap_or(all);
        Some(self.start + round.mul_f64(f64::from(done) / f64::from(all)))
    }

    /// Those whose turn has come.
    pub fn due(&mut self, now: Instant, round: Duration) -> Vec<usize> {
        let mut turns = Vec::new();
        while turns.len() < TURNS_MAX && self.next_turn(round).is_some_and(|turn| turn <= now) {
            if self.done == self.all.len() {
                let next = self.start + round;
                // Nobody has a turn for each of the rounds that have been missed.
                self.start = if now - next > round { now } else { next };
                self.done = 0;
            }
            turns.push(self.all[self.done]);
            self.done += 1;
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_secs(5);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn each_has_one_turn_in_a_round_and_all_are_spread_over_it() {
        let mut rota = Rota::new(vec![7, 8, 9, 10], at(5000));
        let mut turns = Vec::new();
        for ms in (0..15_000).step_by(10) {
            turns.extend(rota.due(at(ms), ROUND).into_iter().map(|who| (ms, who)));
        }
        let rounds =
            [5000, 10_000].into_iter().flat_map(|start| (0..4).map(move |n| (start + 1250 * n, 7 + n as usize)));
        assert_eq!(turns, rounds.collect::<Vec<_>>());
        assert_eq!(rota.next_turn(ROUND), Some(at(15_000)));
    }

    #[test]
    fn a_late_pass_takes_what_it_can_and_the_next_ones_the_rest() {
        let mut rota = Rota::new((0..3000).collect(), at(0));
        assert_eq!(rota.due(at(4999), ROUND).len(), TURNS_MAX);
        assert_eq!(rota.due(at(4999), ROUND), (TURNS_MAX..3000).collect::<Vec<_>>());
        assert_eq!(rota.due(at(4999), ROUND), Vec::<usize>::new());
        assert_eq!(rota.due(at(100_000), ROUND), [0]);
        assert_eq!(rota.due(at(102_500), ROUND).len(), 1500);
    }

    #[test]
    fn without_anybody_nothing_is_due() {
        let mut rota = Rota::new(Vec::new(), at(0));
        assert_eq!((rota.next_turn(ROUND), rota.due(at(9000), ROUND).len()), (None, 0));
        rota.set(vec![1]);
        assert_eq!(rota.due(at(9000), ROUND), [1, 1]);
    }
}
