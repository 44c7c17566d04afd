//! Who gets the new flows of every virtual host: what changes with the news, apart from what only a configuration changes.
//!
//! ```text
//! virtual host ──► its place, 4 bytes ──► chunk ──► Selection
//! ```
//!
//! The next snapshot has a copy of all places, of which those of what has changed point into chunks of their own; all other
//! chunks it shares. So an update costs what it changes, and dropping a snapshot next to nothing. What no place points at
//! any more stays in its chunk until it is a third of all: then everything is laid out anew.

use std::iter;
use std::sync::Arc;

use super::selection::Selector;
use crate::units::{RegionId, VirtualHostId};

/// How new flows of one virtual host are given out.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Who gets a new flow: yields positions among the virtual host's members.
    pub selector: Selector,
    /// Whether a new flow may go to each member: it is neither drained nor down.
    pub takes_new: Arc<[bool]>,
    /// Who gets the new flow of a client in a region, in their order; `None` where regions do not count.
    pub by_region: Option<Arc<ByRegion>>,
}

/// One selector for each region, beside that of clients in none.
#[derive(Debug)]
pub struct ByRegion(pub Box<[Selector]>);

impl ByRegion {
    fn is_same(&self, other: &ByRegion) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(one, other)| one.is_same(other))
    }
}

impl Selection {
    /// Whether it gives all flows to the same members as `other`.
    pub fn is_same(&self, other: &Selection) -> bool {
        let by_region = match (&self.by_region, &other.by_region) {
            (None, None) => true,
            (Some(one), Some(other)) => one.is_same(other),
            _ => false,
        };
        by_region && self.takes_new == other.takes_new && self.selector.is_same(&other.selector)
    }

    /// Who gets the new flow of a client in this region.
    pub fn selector(&self, region: RegionId) -> &Selector {
        let by_region = self.by_region.as_ref().zip(usize::from(region.0).checked_sub(1));
        by_region.and_then(|(all, at)| all.0.get(at)).unwrap_or(&self.selector)
    }
}

type Chunk = Arc<[Selection]>;

/// Bits of a place that say where in its chunk it is.
const WITHIN: u32 = 10;

/// Selections in a chunk at most.
const CHUNK: usize = 1 << WITHIN;

/// Chunks beyond those that would be full, at most.
const CHUNKS_SPARE: usize = 256;

/// The selections of all virtual hosts, by their positions.
#[derive(Clone, Debug)]
pub struct Selections {
    places: Arc<[u32]>,
    chunks: Arc<[Chunk]>,
}

impl Selections {
    /// Those of the virtual hosts in their order.
    pub fn new(all: Vec<Selection>) -> Selections {
        let count = u32::try_from(all.len()).expect("positions of virtual hosts are 32 bits wide");
        Selections { places: (0..count).collect(), chunks: chunks(all).collect() }
    }

    /// That of a virtual host.
    #[inline]
    pub fn of(&self, host: VirtualHostId) -> &Selection {
        self.at(self.places[host.index()])
    }

    /// All of them, in the order of the virtual hosts.
    pub fn iter(&self) -> impl Iterator<Item = &Selection> {
        self.places.iter().map(|place| self.at(*place))
    }

    #[inline]
    fn at(&self, place: u32) -> &Selection {
        &self.chunks[(place >> WITHIN) as usize][place as usize % CHUNK]
    }

    /// The same with others for these virtual hosts.
    pub fn with(&self, changed: Vec<(VirtualHostId, Selection)>) -> Selections {
        let all = self.places.len();
        let held = self.chunks.iter().map(|chunk| chunk.len()).sum::<usize>() + changed.len();
        let count = self.chunks.len() + changed.len().div_ceil(CHUNK);
        if held > all + all / 2 || count > all / CHUNK + CHUNKS_SPARE {
            let mut anew: Vec<Selection> = self.iter().cloned().collect();
            changed.into_iter().for_each(|(host, selection)| anew[host.index()] = selection);
            return Selections::new(anew);
        }
        let mut places: Arc<[u32]> = Arc::from(&*self.places);
        let own = Arc::get_mut(&mut places).expect("nobody else has it yet");
        let first = self.chunks.len() * CHUNK;
        let (hosts, changed): (Vec<VirtualHostId>, Vec<Selection>) = changed.into_iter().unzip();
        hosts.into_iter().zip(first..).for_each(|(host, place)| own[host.index()] = place as u32);
        Selections { places, chunks: self.chunks.iter().cloned().chain(chunks(changed)).collect() }
    }
}

fn chunks(all: Vec<Selection>) -> impl Iterator<Item = Chunk> {
    let mut rest = all.into_iter();
    iter::from_fn(move || Some(rest.by_ref().take(CHUNK).collect::<Chunk>()).filter(|chunk| !chunk.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::selection::{Candidate, Policy, TableCache};
    use crate::units::Weight;

    const KEY: [u8; 16] = [3; 16];

    /// One whose only taker is this of 40 members.
    fn only(taker: usize, tables: &mut TableCache) -> Selection {
        let names: Vec<String> = (0..40).map(|name| format!("c{name:02}")).collect();
        let weight = |at| Weight::new((at == taker).into()).expect("0 or 1");
        let candidate = |(at, name)| Candidate { name, weight: weight(at), cost: 0.0, tier: 0, available: true };
        let candidates: Vec<Candidate<'_>> = names.iter().map(String::as_str).enumerate().map(candidate).collect();
        let selector = Selector::build(Policy::ConsistentHash, &candidates, 31, tables);
        let takes_new = candidates.iter().map(Candidate::takes_flows).collect();
        Selection { selector, takes_new, by_region: None }
    }

    /// Against a plain list, through many updates of few and few updates of many.
    #[test]
    fn each_virtual_host_has_what_it_was_given_last_and_little_else_is_held() {
        for (hosts, most) in [(1, 1), (7, 3), (3000, 5), (3000, 2900)] {
            let mut tables = TableCache::new(KEY);
            let mut expected = vec![0; hosts];
            let mut selections = Selections::new(vec![only(0, &mut tables); hosts]);
            let mut dice = 7_u64;
            for round in 0..600 / most.min(20) {
                let changed: Vec<(VirtualHostId, Selection)> = (0..=round % most)
                    .map(|_| {
                        dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                        let (host, taker) = ((dice >> 33) as usize % hosts, (dice >> 20) as usize % 40);
                        expected[host] = taker;
                        (VirtualHostId(host as u32), only(taker, &mut tables))
                    })
                    .collect();
                selections = selections.with(changed);
                for (host, (taker, selection)) in expected.iter().zip(selections.iter()).enumerate() {
                    assert!(std::ptr::eq(selection, selections.of(VirtualHostId(host as u32))));
                    assert_eq!(selection.selector.select(7), Some(*taker), "{host} of {hosts} in round {round}");
                    assert!(selection.takes_new.iter().enumerate().all(|(at, takes)| *takes == (at == *taker)));
                }
                let held: usize = selections.chunks.iter().map(|chunk| chunk.len()).sum();
                assert!(held <= hosts + hosts / 2 && selections.chunks.len() <= hosts / CHUNK + CHUNKS_SPARE);
            }
        }
    }

    #[test]
    fn what_has_not_changed_is_shared_with_the_snapshot_before() {
        let mut tables = TableCache::new(KEY);
        let before = Selections::new((0..5000).map(|host| only(host % 40, &mut tables)).collect());
        let after = before.with(vec![(VirtualHostId(4711), only(1, &mut tables))]);
        let differs = |host: &u32| !std::ptr::eq(before.of(VirtualHostId(*host)), after.of(VirtualHostId(*host)));
        assert_eq!((0..5000).filter(differs).collect::<Vec<_>>(), [4711]);
        assert_eq!(before.of(VirtualHostId(4711)).selector.select(0), Some(4711 % 40));
    }
}
