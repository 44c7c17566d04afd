//! In which order children come to the slots of a table: it depends on a child's name and on the table's size alone, so those
//! that are in many tables, of other weights each time, need not draw it anew.

use std::collections::HashMap;
use std::sync::Arc;

/// Slots of a table at most whose children's preferences are kept: those of larger ones would take too much memory.
const SLOTS_MAX: u32 = 1024;

/// Memory of all at most, in bytes: 8000 children of tables with 251 slots.
const BYTES_MAX: usize = 16 << 20;

/// A slot that a child has not drawn before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    /// The child's turns before.
    pub turns: u32,
    /// The slot.
    pub slot: u16,
}

/// Of each child, all slots in the order in which it draws them first.
#[derive(Debug, Default)]
pub(super) struct Preferences {
    drawn: HashMap<(u64, u32), Arc<[Draw]>>,
    bytes: usize,
}

impl Preferences {
    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Those of the child with this stream in a table of `slots` slots, with `draw` for one slot after the other; `None` where
    /// they are not kept.
    pub fn of(&mut self, stream: u64, slots: u32, draw: impl FnMut() -> usize) -> Option<Arc<[Draw]>> {
        if slots > SLOTS_MAX {
            return None;
        }
        if let Some(drawn) = self.drawn.get(&(stream, slots)) {
            return Some(drawn.clone());
        }
        let drawn = draw_all(slots as usize, draw);
        let bytes = size_of_val::<[Draw]>(&drawn);
        if self.bytes + bytes > BYTES_MAX {
            *self = Preferences::default();
        }
        self.bytes += bytes;
        self.drawn.insert((stream, slots), drawn.clone());
        Some(drawn)
    }
}

fn draw_all(slots: usize, draw: impl FnMut() -> usize) -> Arc<[Draw]> {
    let mut seen = vec![false; slots];
    let draws = (0..).zip(std::iter::repeat_with(draw)).filter(|(_, slot)| !std::mem::replace(&mut seen[*slot], true));
    draws.map(|(turns, slot)| Draw { turns, slot: slot as u16 }).take(slots).collect()
}
