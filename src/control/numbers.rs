//! Which number a virtual host and each of its targets has: flow entries hold these, so they stay the same from one
//! configuration to the next.
//!
//! A target that is left out keeps its number until no flow can hold it any more; then another may have it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::clock::Instant;
use crate::units::{TargetId, VirtualHostId};

/// There are more targets than the workers have counters for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the virtual hosts have more children than there is room for since the start ({targets_max} in all); restart to make room"
)]
pub struct TooManyTargets {
    /// Most targets.
    pub targets_max: usize,
}

/// The numbers given so far.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    virtual_hosts: HashMap<String, VirtualHostId>,
    /// By virtual host and child, with the numbering that has used it last.
    targets: HashMap<(VirtualHostId, String), (TargetId, u64)>,
    /// Numbers that are not used any more, and since when.
    retired: VecDeque<(TargetId, Instant)>,
    reused: Vec<TargetId>,
    given: usize,
    targets_max: usize,
    numbering: u64,
    /// The longest that a flow without packets has ever been kept.
    longest: Duration,
}

impl Numbers {
    pub fn new(targets_max: usize) -> Numbers {
        Numbers {
            virtual_hosts: HashMap::new(),
            targets: HashMap::new(),
            retired: VecDeque::new(),
            reused: Vec::new(),
            given: 0,
            targets_max,
            numbering: 0,
            longest: Duration::ZERO,
        }
    }

    /// Starts to number anew; flows without packets are kept for `longest` at most.
    pub fn begin(&mut self, longest: Duration) {
        self.numbering += 1;
        self.longest = self.longest.max(longest);
    }

    pub fn virtual_host(&mut self, name: &str) -> VirtualHostId {
        let next = VirtualHostId(self.virtual_hosts.len() as u32);
        *self.virtual_hosts.entry(name.to_owned()).or_insert(next)
    }

    pub fn target(&mut self, host: VirtualHostId, child: &str, now: Instant) -> Result<TargetId, TooManyTargets> {
        if let Some((target, used)) = self.targets.get_mut(&(host, child.to_owned())) {
            *used = self.numbering;
            return Ok(*target);
        }
        let reusable = |(_, since): &&(TargetId, Instant)| now - *since > self.longest;
        let target = if self.retired.front().filter(reusable).is_some() {
            self.reused.extend(self.retired.front().map(|(target, _)| *target));
            self.retired.pop_front().map(|(target, _)| target)
        } else {
            (self.given < self.targets_max).then_some(TargetId(self.given as u32))
        };
        let target = target.ok_or(TooManyTargets { targets_max: self.targets_max })?;
        self.given = self.given.max(target.index() + 1);
        self.targets.insert((host, child.to_owned()), (target, self.numbering));
        Ok(target)
    }

    /// Ends the numbering: what it has not used is retired.
    pub fn end(&mut self, now: Instant) {
        let numbering = self.numbering;
        let retired = &mut self.retired;
        self.targets.retain(|_, (target, used)| {
            if *used != numbering {
                retired.push_back((*target, now));
            }
            *used == numbering
        });
    }

    /// The numbers that have gone from one to another since the last call.
    pub fn take_reused(&mut self) -> Vec<TargetId> {
        std::mem::take(&mut self.reused)
    }

    /// Numbers given so far: one more than the highest.
    pub fn given(&self) -> usize {
        self.given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Duration = Duration::from_secs(60);

    fn number(numbers: &mut Numbers, at: u64, targets: &[(&str, &str)]) -> Result<Vec<u32>, TooManyTargets> {
        let now = Instant::ZERO + Duration::from_secs(at);
        numbers.begin(KEPT);
        let mut given = Vec::new();
        for (host, child) in targets {
            let host = numbers.virtual_host(host);
            given.push(numbers.target(host, child, now)?.0);
        }
        numbers.end(now);
        Ok(given)
    }

    #[test]
    fn who_stays_keeps_its_number_and_others_get_it_only_when_no_flow_can_hold_it() {
        let mut numbers = Numbers::new(4);
        assert_eq!(number(&mut numbers, 0, &[("a", "x"), ("a", "y"), ("b", "x")]), Ok(vec![0, 1, 2]));
        assert_eq!(number(&mut numbers, 1, &[("b", "x"), ("a", "y")]), Ok(vec![2, 1]));
        // Number 0 went at 1 s; at 61 s a flow may still hold it.
        assert_eq!(number(&mut numbers, 61, &[("b", "x"), ("a", "y"), ("a", "z")]), Ok(vec![2, 1, 3]));
        let one_more = [("b", "x"), ("a", "y"), ("a", "z"), ("c", "x")];
        assert_eq!(number(&mut numbers.clone(), 61, &one_more), Err(TooManyTargets { targets_max: 4 }));
        assert_eq!(numbers.take_reused(), []);
        assert_eq!(number(&mut numbers, 62, &one_more), Ok(vec![2, 1, 3, 0]));
        assert_eq!(numbers.take_reused(), [TargetId(0)]);
        assert_eq!(numbers.given(), 4);
    }
}
