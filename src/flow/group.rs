//! Which slots of a group may hold a key: 16 bits of each slot's hash in one cache line, compared all at once.
//!
//! The comparison is left to `wide`, which has the processor's own for it. Plain loops over the tags, whatever their shape,
//! became some 130 instructions instead of 15, and a packet cost 819 instead of 671.

use wide::{i8x16, i16x16};
use zerocopy::{FromZeros, transmute};

/// Slots in a group.
pub const SLOTS: usize = 31;

/// Where the number of displaced entries stands, behind the tags.
const DISPLACED: usize = SLOTS;

/// Tag of a free slot.
const FREE: u16 = 0;

/// Tags of a group's slots, and how many entries that belong here stand elsewhere.
#[derive(Clone, Copy, FromZeros)]
#[repr(C, align(64))]
pub struct Group([u16; SLOTS + 1]);

/// Some of a group's slots, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots(u32);

impl Slots {
    /// Every slot of a group.
    const ALL: Slots = Slots((1 << SLOTS) - 1);

    /// The first of them.
    #[inline(always)]
    pub fn first(self) -> Option<usize> {
        (self.0 != 0).then_some(self.0.trailing_zeros() as usize)
    }
}

impl Iterator for Slots {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let first = self.first()?;
        self.0 &= self.0 - 1;
        Some(first)
    }
}

impl Group {
    /// The slots whose hash has this tag, and seldom others.
    #[inline(always)]
    pub fn matching(&self, tag: u16) -> Slots {
        self.carrying(tag_of(tag))
    }

    /// The slots without an entry.
    #[inline]
    pub fn free(&self) -> Slots {
        self.carrying(FREE)
    }

    /// The slots with an entry.
    pub fn taken(&self) -> Slots {
        Slots(!self.free().0 & Slots::ALL.0)
    }

    /// Whether a slot has an entry.
    pub fn is_taken(&self, slot: usize) -> bool {
        self.0[slot] != FREE
    }

    /// Gives a slot to an entry.
    pub fn set(&mut self, slot: usize, tag: u16) {
        self.0[slot] = tag_of(tag);
    }

    /// Makes a slot free.
    pub fn clear(&mut self, slot: usize) {
        self.0[slot] = FREE;
    }

    /// Entries that belong here and stand elsewhere; 65,535 is that many or more.
    #[inline]
    pub fn displaced(&self) -> u16 {
        self.0[DISPLACED]
    }

    /// One more stands elsewhere.
    pub fn displace(&mut self) {
        self.0[DISPLACED] = self.0[DISPLACED].saturating_add(1);
    }

    /// One less stands elsewhere.
    pub fn replace(&mut self) {
        if self.0[DISPLACED] != u16::MAX {
            self.0[DISPLACED] = self.0[DISPLACED].saturating_sub(1);
        }
    }

    #[inline(always)]
    fn carrying(&self, tag: u16) -> Slots {
        let halves: [[i16; 16]; 2] = transmute!(self.0);
        let tag = i16x16::splat(tag.cast_signed());
        let [low, high] = halves.map(|tags| i8x16::from_i16x16_saturate(i16x16::new(tags).simd_eq(tag)).to_bitmask());
        Slots((low | high << 16) & Slots::ALL.0)
    }
}

/// What stands for a tag; never [`FREE`].
#[inline(always)]
fn tag_of(tag: u16) -> u16 {
    tag | 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slot_is_found_by_its_tag_until_it_is_cleared() {
        let mut group = Group::new_zeroed();
        assert_eq!((group.free().count(), group.taken().count()), (SLOTS, 0));
        for slot in 0..SLOTS {
            group.set(slot, slot as u16 % 3);
        }
        assert_eq!(group.free().first(), None);
        assert!(group.matching(2).eq((0..SLOTS).filter(|slot| slot % 3 == 2)));
        assert!(group.matching(0).eq((0..SLOTS).filter(|slot| slot % 3 != 2)), "tags 0 and 1 are the same");
        group.clear(30);
        assert!(!group.is_taken(30) && group.free().eq([30]) && group.taken().count() == 30);
    }

    #[test]
    fn what_stands_elsewhere_is_counted_and_no_slot() {
        let mut group = Group::new_zeroed();
        (0..5).for_each(|_| group.displace());
        group.replace();
        assert_eq!((group.displaced(), group.matching(4).first()), (4, None));
        // A count that has come to its end stays there: nobody knows how many there are.
        (0..70_000).for_each(|_| group.displace());
        group.replace();
        assert_eq!(group.displaced(), u16::MAX);
    }

    proptest! {
        #[test]
        fn all_at_once_is_one_by_one(tags in any::<[u16; SLOTS]>(), few in any::<bool>()) {
            let tags = if few { tags.map(|tag| tag % 4) } else { tags };
            let tag = tags[3];
            let mut group = Group::new_zeroed();
            (0..SLOTS).for_each(|slot| group.set(slot, tags[slot]));
            let expected = (0..SLOTS).filter(|slot| tag_of(tags[*slot]) == tag_of(tag));
            prop_assert!(group.matching(tag).eq(expected));
        }
    }
}
