//! What is told on standard error of what changes, and how much of it: who flaps does not fill the log.

/// How many changes are told at a time at most.
const CHANGES_TOLD: usize = 10;

/// What has changed and is still to be told.
pub(super) struct News {
    /// Of what.
    whose: &'static str,
    lines: Vec<String>,
    more: usize,
}

impl News {
    pub(super) fn of(whose: &'static str) -> News {
        News { whose, lines: Vec::new(), more: 0 }
    }

    pub(super) fn add(&mut self, lines: impl Iterator<Item = String>) {
        for line in lines {
            if self.lines.len() < CHANGES_TOLD {
                self.lines.push(line);
            } else {
                self.more += 1;
            }
        }
    }

    /// Says it on standard error.
    pub(super) fn tell(&mut self) {
        self.lines.drain(..).for_each(|line| eprintln!("slr: {line}"));
        match std::mem::take(&mut self.more) {
            0 => {}
            more => eprintln!("slr: {more} more changes of {}", self.whose),
        }
    }
}
