//! What is told and counted of a site that has the table of children: trouble is told when it begins and when it ends.
//!
//! ```text
//!   answer ──► unchanged ─┐
//!          ──► failed     ├──► counted; a line for the log where it is news
//!          ──► a table ──► taken or refused ─┘
//! ```

use std::sync::Arc;

use crate::clock::WallClock;
use crate::forward::counters::Counter;
use crate::units::labelled;

labelled! {
    /// What became of a question.
    Poll {
        /// The table is the one that we have.
        Unchanged => "unchanged",
        /// There was another table, which is in force.
        Taken => "taken",
        /// There was another table, which is none, or does not fit the configuration.
        Refused => "refused",
        /// There was no answer, or none that holds a table.
        Failed => "failed",
    }
}

/// How often each has happened, and when the site last had a good answer; to be read by anyone.
#[derive(Debug, Default)]
pub struct Counters {
    polls: [Counter; Poll::ALL.len()],
    /// Milliseconds of the calendar.
    answered: Counter,
}

impl Counters {
    /// How often a question ended so.
    pub fn of(&self, poll: Poll) -> &Counter {
        &self.polls[poll as usize]
    }

    /// When the site last had an answer that is in force; 0: never.
    pub fn answered(&self) -> WallClock {
        WallClock(self.answered.get())
    }

    /// Whether there is a site.
    pub fn any(&self) -> bool {
        self.polls.iter().any(|polls| polls.get() > 0)
    }
}

/// How it stands with a site.
#[derive(Debug, Default)]
pub struct Watch {
    counters: Arc<Counters>,
    /// What was last told to be wrong, and how that came.
    trouble: Option<(Poll, String)>,
}

impl Watch {
    /// What is counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// A question ended so at `wall`; `what` says it. A line for the log, where that is news.
    pub fn ended(&mut self, wall: WallClock, poll: Poll, what: &str) -> Option<String> {
        self.counters.of(poll).add(1);
        match poll {
            Poll::Failed | Poll::Refused => {
                let trouble = Some((poll, what.to_owned()));
                // A table that is refused is not told again when the site is gone for a while.
                let known = self.trouble == trouble || (poll, self.refuses()) == (Poll::Failed, true);
                if known {
                    return None;
                }
                self.trouble = trouble;
                Some(what.to_owned())
            }
            Poll::Unchanged | Poll::Taken => {
                self.counters.answered.set(wall.0);
                let over = self.trouble.take().is_some() && poll == Poll::Unchanged;
                (poll == Poll::Taken || over).then(|| what.to_owned())
            }
        }
    }

    fn refuses(&self) -> bool {
        self.trouble.as_ref().is_some_and(|(poll, _)| *poll == Poll::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_when_it_begins_and_when_it_ends() {
        let mut watch = Watch::default();
        for (poll, what, told, answered) in [
            (Poll::Unchanged, "same", false, 1),
            (Poll::Failed, "gone", true, 1),
            (Poll::Failed, "gone", false, 1),
            (Poll::Failed, "404", true, 1),
            (Poll::Unchanged, "same", true, 5),
            (Poll::Unchanged, "same", false, 6),
            (Poll::Refused, "line 1", true, 6),
            (Poll::Refused, "line 1", false, 6),
            (Poll::Failed, "gone", false, 6),
            (Poll::Refused, "line 1", false, 6),
            (Poll::Refused, "line 2", true, 6),
            (Poll::Unchanged, "same", true, 12),
            (Poll::Refused, "line 2", true, 12),
            (Poll::Taken, "new", true, 14),
            (Poll::Taken, "newer", true, 15),
            (Poll::Unchanged, "same", false, 16),
        ] {
            let now = WallClock(Poll::ALL.iter().map(|poll| watch.counters().of(*poll).get()).sum::<u64>() + 1);
            assert_eq!(watch.ended(now, poll, what), told.then(|| what.to_owned()), "{poll} {what} at {now:?}");
            assert_eq!(watch.counters().answered(), WallClock(answered), "{poll} {what} at {now:?}");
        }
        let counts = Poll::ALL.iter().map(|poll| watch.counters().of(*poll).get());
        assert_eq!(counts.collect::<Vec<_>>(), [5, 2, 5, 4]);
    }
}
