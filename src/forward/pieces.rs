//! Whether a fragment fits to what has been seen of its datagram: pieces may come in any order, and no byte twice.
//!
//! ```text
//! 0 ──────────── 1480 ░░░░░░░░ 2960 ──────────── 4440 ░░░░░
//!     seen               hole        seen             until the last piece tells the end
//! ```
//!
//! Who could send a byte twice could show a filter one packet and the server another (RFC 1858, RFC 3128, RFC 5722). Of two
//! pieces that overlap the first to come is carried and the other is not, so that the server never has a choice. An exact
//! copy falls under that too; RFC 8200 section 4.5 allows it.

use arrayvec::ArrayVec;

use super::verdict::Refusal;
use crate::packet::fragment::Piece;

/// Stretches with holes between them that are told apart. In order, or in reverse, there is only one.
const STRETCHES_MAX: usize = 16;

/// What has been seen of one datagram.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// From and to, sorted; between two of them there is a hole.
    stretches: ArrayVec<(u16, u16), STRETCHES_MAX>,
    end: Option<u16>,
}

impl Pieces {
    /// Adds a piece that may be carried; else says why not, and nothing has changed.
    pub fn add(&mut self, piece: Piece) -> Result<(), Refusal> {
        let Piece { start, end, last } = piece;
        if start >= end {
            return Err(Refusal::FragmentEmpty);
        }
        // Where it would stand, if it fits.
        let place = self.stretches.partition_point(|&(_, to)| to <= start);
        if self.stretches.get(place).is_some_and(|&(from, _)| from < end) {
            return Err(Refusal::FragmentOverlap);
        }
        let ends_early = last && (self.end.is_some() || place < self.stretches.len());
        if ends_early || self.end.is_some_and(|known| end > known) {
            return Err(Refusal::FragmentBeyondEnd);
        }
        let behind = place.checked_sub(1).filter(|&before| self.stretches[before].1 == start);
        let ahead = self.stretches.get(place).is_some_and(|&(from, _)| from == end);
        match (behind, ahead) {
            (Some(before), true) => {
                self.stretches[before].1 = self.stretches[place].1;
                self.stretches.remove(place);
            }
            (Some(before), false) => self.stretches[before].1 = end,
            (None, true) => self.stretches[place].0 = start,
            (None, false) => {
                self.stretches.try_insert(place, (start, end)).map_err(|_| Refusal::FragmentHoles)?;
            }
        }
        if last {
            self.end = Some(end);
        }
        Ok(())
    }

    /// Whether all of the datagram has been seen.
    pub fn complete(&self) -> bool {
        self.end.is_some_and(|end| self.stretches[..] == [(0, end)])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(start: u16, end: u16, last: bool) -> Piece {
        Piece { start, end, last }
    }

    #[test]
    fn each_way_not_to_fit_has_its_name() {
        use Refusal::{FragmentBeyondEnd, FragmentEmpty, FragmentOverlap};
        // What has been seen, what comes, and what is said of it.
        let table = [
            (vec![], piece(8, 8, false), Err(FragmentEmpty)),
            (vec![piece(0, 16, false)], piece(0, 16, false), Err(FragmentOverlap)),
            (vec![piece(0, 16, false)], piece(8, 24, false), Err(FragmentOverlap)),
            (vec![piece(8, 16, false)], piece(0, 24, false), Err(FragmentOverlap)),
            (vec![piece(8, 16, false)], piece(0, 16, false), Err(FragmentOverlap)),
            (vec![piece(8, 16, false)], piece(0, 8, false), Ok(())),
            (vec![piece(8, 16, true)], piece(16, 24, false), Err(FragmentBeyondEnd)),
            (vec![piece(8, 16, true)], piece(24, 32, true), Err(FragmentBeyondEnd)),
            (vec![piece(24, 32, true)], piece(8, 16, true), Err(FragmentBeyondEnd)),
            (vec![piece(24, 32, false)], piece(8, 16, true), Err(FragmentBeyondEnd)),
            (vec![piece(0, 16, false)], piece(16, 19, true), Ok(())),
        ];
        for (seen, comes, expected) in table {
            let mut pieces = Pieces::default();
            seen.iter().for_each(|&piece| assert_eq!(pieces.add(piece), Ok(())));
            assert_eq!(pieces.add(comes), expected, "{seen:?}, then {comes:?}");
        }
    }

    #[test]
    fn holes_are_limited_and_filling_them_makes_room() {
        let mut pieces = Pieces::default();
        let at = |number: u16| piece(16 * number, 16 * number + 8, false);
        (0..STRETCHES_MAX as u16).for_each(|number| assert_eq!(pieces.add(at(number)), Ok(())));
        let more = at(STRETCHES_MAX as u16);
        assert_eq!(pieces.add(more), Err(Refusal::FragmentHoles));
        assert_eq!(pieces.add(piece(8, 16, false)), Ok(()));
        assert_eq!(pieces.add(more), Ok(()));
    }

    /// Every byte by itself.
    #[derive(Default)]
    struct Oracle {
        seen: Vec<bool>,
        end: Option<usize>,
    }

    impl Oracle {
        fn add(&mut self, piece: Piece) -> bool {
            let (start, end) = (usize::from(piece.start), usize::from(piece.end));
            self.seen.resize(1000, false);
            let overlaps = self.seen[start..end].contains(&true);
            let beyond = self.end.is_some_and(|known| end > known || piece.last);
            let early = piece.last && self.seen[end..].contains(&true);
            let mut after = self.seen.clone();
            after[start..end].fill(true);
            let stretches = after.chunk_by(|a, b| a == b).filter(|chunk| chunk[0]).count();
            let fits = start < end && !overlaps && !beyond && !early && stretches <= STRETCHES_MAX;
            if fits {
                self.seen = after;
                self.end = if piece.last { Some(end) } else { self.end };
            }
            fits
        }

        fn complete(&self) -> bool {
            self.end.is_some_and(|end| self.seen[..end].iter().all(|seen| *seen))
        }
    }

    proptest! {
        #[test]
        fn it_says_what_looking_at_every_byte_says(
            pieces in prop::collection::vec((0..60_u16, 0..5_u16, 0..12_u8), 0..80),
        ) {
            let (mut tracked, mut oracle) = (Pieces::default(), Oracle::default());
            for (start, len, last) in pieces {
                let piece = piece(8 * start, 8 * (start + len), last == 0);
                prop_assert_eq!(tracked.add(piece).is_ok(), oracle.add(piece), "{:?} to {:?}", piece, tracked);
                prop_assert_eq!(tracked.complete(), oracle.complete());
            }
        }

        #[test]
        fn a_datagram_in_any_order_is_complete_with_its_last_piece_and_not_before(
            order in Just((0..12_u16).collect::<Vec<_>>()).prop_shuffle(), len in 1..9_u16,
        ) {
            let mut pieces = Pieces::default();
            for (count, number) in (1..).zip(&order) {
                let last = *number == 11;
                let end = if last { number * 8 + len } else { number * 8 + 8 };
                prop_assert_eq!(pieces.add(piece(number * 8, end, last)), Ok(()));
                prop_assert_eq!(pieces.complete(), count == 12);
            }
        }
    }
}
