//! What is to happen at which step.

use std::collections::BTreeMap;

use super::world::STEP;
use crate::clock::Instant;

/// By the step in which it happens; what was put in first happens first.
pub(super) struct Calendar<T>(BTreeMap<u64, Vec<T>>);

impl<T> Default for Calendar<T> {
    fn default() -> Calendar<T> {
        Calendar(BTreeMap::new())
    }
}

impl<T> Calendar<T> {
    /// Something happens in the first step that is not before `at`.
    pub fn put(&mut self, at: Instant, what: T) {
        self.0.entry(at.as_nanos().div_ceil(STEP.as_nanos() as u64)).or_default().push(what);
    }

    /// What happens in one of the steps up to `now`, the first of them first; `None` when there is nothing more.
    pub fn take(&mut self, now: Instant) -> Option<Vec<T>> {
        let first = self.0.first_entry().filter(|first| *first.key() <= now.as_nanos() / STEP.as_nanos() as u64)?;
        Some(first.remove())
    }
}
