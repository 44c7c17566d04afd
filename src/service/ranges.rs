//! Which range of an ordered space a key lies in: a search tree over the ranges' starts, built once.
//!
//! ```text
//! upper   [0 ......... k8 ......... k16 ........ ..]     starts of the blocks below
//!          │           │            │
//! leaves  [0 k1 .. k7][k8 .. k15 ..][k16 ..         ]    starts, and beside them the values
//! ```
//!
//! A block is compared whole, without branches, so that keys that somebody chose cost no more than others. All but the
//! last one or two blocks of a search stay in the first cache levels.

/// Value of keys in no range that was given.
pub(super) const NONE: u32 = u32::MAX;

/// Starts of ranges with their values, in ascending order from the least key.
pub(super) struct Starts<K>(pub(super) Vec<(K, u32)>);

impl<K: Copy + Ord> Starts<K> {
    /// All keys from `least` on are in no range.
    pub(super) fn new(least: K) -> Starts<K> {
        Starts(vec![(least, NONE)])
    }

    /// From `start` on, which is not below the one before, the value is this one.
    pub(super) fn push(&mut self, start: K, value: u32) {
        match self.0.last_mut() {
            Some(last) if last.0 == start => last.1 = value,
            _ => self.0.push((start, value)),
        }
    }
}

/// Values of ranges that cover the whole space; `U` starts lie in one upper block and `L` in one leaf.
#[derive(Clone, Debug)]
pub(super) struct Ranges<K, V, const U: usize, const L: usize> {
    upper: Vec<Vec<Block<K, U>>>,
    leaves: Vec<Leaf<K, V, L>>,
}

/// Starts in ascending order; unused ones at the end hold the largest key.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Block<K, const U: usize>([K; U]);

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Leaf<K, V, const L: usize> {
    starts: [K; L],
    values: [V; L],
}

/// Position of the last start that is not above `key`.
#[inline]
fn position<K: Copy + Ord>(starts: &[K], key: K) -> usize {
    let count: u32 = starts.iter().map(|&start| u32::from(start <= key)).sum();
    count.saturating_sub(1) as usize
}

impl<K: Copy + Ord, V: Copy, const U: usize, const L: usize> Ranges<K, V, U, L> {
    /// Ranges from each start to the one before the next, with their values. `starts` ascends from the least key, which
    /// is always there; `max` is the largest key.
    pub(super) fn new(starts: &[(K, V)], max: K) -> Self {
        let leaves: Vec<Leaf<K, V, L>> = starts
            .chunks(L)
            .map(|chunk| {
                // The largest key counts the unused starts too, and finds the last value there.
                let unused = (max, chunk[chunk.len() - 1].1);
                let at = |i: usize| *chunk.get(i).unwrap_or(&unused);
                Leaf { starts: std::array::from_fn(|i| at(i).0), values: std::array::from_fn(|i| at(i).1) }
            })
            .collect();
        let mut upper = Vec::new();
        let mut firsts: Vec<K> = leaves.iter().map(|leaf| leaf.starts[0]).collect();
        while firsts.len() > 1 {
            let level: Vec<Block<K, U>> =
                firsts.chunks(U).map(|chunk| Block(std::array::from_fn(|i| *chunk.get(i).unwrap_or(&max)))).collect();
            firsts = level.iter().map(|block| block.0[0]).collect();
            upper.push(level);
        }
        upper.reverse();
        Ranges { upper, leaves }
    }

    /// The value of the range that `key` lies in.
    #[inline]
    pub(super) fn find(&self, key: K) -> V {
        // The largest key counts unused starts too, and is kept from going beyond the end.
        let mut block = 0;
        for level in &self.upper {
            block = block.min(level.len() - 1);
            block = block * U + position(&level[block].0, key);
        }
        let leaf = &self.leaves[block.min(self.leaves.len() - 1)];
        leaf.values[position(&leaf.starts, key)]
    }
}
