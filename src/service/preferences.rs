//! When children come to the slots of a table: in which turn depends on a child's name and on the table's size alone, so those
//! that are in many tables, of other weights each time, need not draw it anew.

use std::collections::HashMap;
use std::iter;

use foldhash::quality::RandomState;

/// Slots of a table at most whose children's preferences are kept: those of larger ones would take too much memory.
pub(super) const SLOTS_MAX: u32 = 1024;

/// Memory of all at most, in bytes: 16,000 children of tables with 251 slots.
const BYTES_MAX: usize = 16 << 20;

/// What a child prefers in a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preference<'a> {
    /// For each slot, how many turns the child has before it draws that first.
    pub turns: &'a [u16],
    /// The slots in the order in which it does.
    pub order: &'a [u16],
}

/// What children prefer in tables of any sizes.
#[derive(Debug, Default)]
pub(super) struct Preferences {
    /// The turns and the order of one child after the other.
    all: Vec<u16>,
    /// Where in that they are, by the child's stream and the table's size.
    places: HashMap<(u64, u32), usize, RandomState>,
}

impl Preferences {
    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val::<[u16]>(&self.all)
    }

    /// Makes room for what so many children prefer in tables of `slots` slots: whatever else there is may be lost.
    pub fn make_room(&mut self, children: usize, slots: u32) {
        if self.bytes() + children * 2 * slots as usize * size_of::<u16>() > BYTES_MAX {
            *self = Preferences::default();
        }
    }

    /// Where it is what the child with this stream prefers in a table of `slots` slots, [`SLOTS_MAX`] at most, with `draw`
    /// for one slot after the other; `None` where there is a slot that it does not draw in 2^16 turns.
    pub fn place(&mut self, stream: u64, slots: u32, draw: impl FnMut() -> usize) -> Option<usize> {
        if let Some(place) = self.places.get(&(stream, slots)) {
            return Some(*place);
        }
        let (turns, order) = draw_all(slots as usize, draw)?;
        let place = self.all.len();
        self.all.extend(turns.into_iter().chain(order));
        self.places.insert((stream, slots), place);
        Some(place)
    }

    /// What is there.
    pub fn at(&self, place: usize, slots: u32) -> Preference<'_> {
        let (turns, order) = self.all[place..place + 2 * slots as usize].split_at(slots as usize);
        Preference { turns, order }
    }
}

/// The turns and the order. That there are none is so unlikely, one case of 10^24 with 1024 slots, that it need not be quick.
fn draw_all(slots: usize, draw: impl FnMut() -> usize) -> Option<(Vec<u16>, Vec<u16>)> {
    let (mut turns, mut order) = (vec![None; slots], Vec::with_capacity(slots));
    let mut draws = (0..=u16::MAX).zip(iter::repeat_with(draw));
    while order.len() < slots {
        let (turn, slot) = draws.next()?;
        if turns[slot].is_none() {
            turns[slot] = Some(turn);
            order.push(slot as u16);
        }
    }
    Some((turns.into_iter().flatten().collect(), order))
}
