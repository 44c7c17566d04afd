//! Which range of an ordered space a key lies in: a search tree over the ranges' starts, built once.
//!
//! ```text
//! upper  [0 ........ k16 ........ k32 ..]      starts of the blocks below, one block a cache line or two
//!         │           │            │
//! leaves [0 k1 k2 ..][k16 k17 ..][k32 ..]      starts, and beside them the values
//! ```
//!
//! A block is compared whole, without branches, so a search among 200,000 ranges touches five or six blocks, of which all
//! but the last stay in the first cache levels. The keys that arrive cannot make it slower.

/// Value of keys in no range that was given.
pub(super) const NONE: u32 = u32::MAX;

/// Values of ranges that cover the whole space; `B` starts lie in one block.
#[derive(Clone, Debug)]
pub(super) struct Ranges<K, const B: usize> {
    upper: Vec<Vec<Block<K, B>>>,
    leaves: Vec<Leaf<K, B>>,
}

/// Starts in ascending order; unused ones at the end hold the largest key.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Block<K, const B: usize>([K; B]);

#[derive(Clone, Copy, Debug)]
struct Leaf<K, const B: usize> {
    starts: Block<K, B>,
    values: [u32; B],
}

impl<K: Copy + Ord, const B: usize> Block<K, B> {
    /// The last start that is not above `key`.
    #[inline]
    fn position(&self, key: K) -> usize {
        let count: usize = self.0.iter().map(|&start| usize::from(start <= key)).sum();
        count.saturating_sub(1)
    }
}

impl<K: Copy + Ord, const B: usize> Ranges<K, B> {
    /// Ranges from each start to the one before the next, with their values. `starts` ascends from the least key, which
    /// is always there; `max` is the largest key.
    pub(super) fn new(starts: &[(K, u32)], max: K) -> Ranges<K, B> {
        let leaves: Vec<Leaf<K, B>> = starts
            .chunks(B)
            .map(|chunk| {
                // A key equal to `max` counts the unused starts too, and finds the last value there.
                let unused = (max, chunk[chunk.len() - 1].1);
                let at = |i: usize| *chunk.get(i).unwrap_or(&unused);
                Leaf { starts: Block(std::array::from_fn(|i| at(i).0)), values: std::array::from_fn(|i| at(i).1) }
            })
            .collect();
        let mut upper: Vec<Vec<Block<K, B>>> = Vec::new();
        let mut firsts: Vec<K> = leaves.iter().map(|leaf| leaf.starts.0[0]).collect();
        while firsts.len() > 1 {
            let level: Vec<Block<K, B>> =
                firsts.chunks(B).map(|chunk| Block(std::array::from_fn(|i| *chunk.get(i).unwrap_or(&max)))).collect();
            firsts = level.iter().map(|block| block.0[0]).collect();
            upper.push(level);
        }
        upper.reverse();
        Ranges { upper, leaves }
    }

    /// The value of the range that `key` lies in.
    #[inline]
    pub(super) fn find(&self, key: K) -> u32 {
        // A key equal to `max` counts unused starts too, and is kept from going beyond the end.
        let mut block = 0;
        for level in &self.upper {
            block = block.min(level.len() - 1);
            block = block * B + level[block].position(key);
        }
        let leaf = &self.leaves[block.min(self.leaves.len() - 1)];
        leaf.values[leaf.starts.position(key)]
    }
}
