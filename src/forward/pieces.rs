//! Whether a fragment fits to what has been seen of its datagram: pieces may come in any order, and no byte in two of them.
//!
//! ```text
//! 0 ──────────── 1480 ░░░░░░░░ 2960 ──────────── 4440 ░░░░░
//!     seen               hole        seen             until the last piece tells the end
//! ```
//!
//! Who could send a byte in two pieces could show a filter one packet and the server another (RFC 1858, RFC 3128,
//! RFC 5722). Of two pieces that overlap the first to come is carried and the other is not. Networks do repeat packets: a
//! copy, with the bounds of a piece that has been seen, is carried like it (RFC 8200 section 4.5 lets the receiver choose).
//!
//! Of more than 48 pieces those without a hole between them become one: then their copies are told from other pieces no longer.

use arrayvec::ArrayVec;

use super::verdict::Refusal;
use crate::packet::fragment::Piece;

/// Pieces that are told apart: 64 KiB in pieces of 1,480 bytes, and a few.
const PIECES_MAX: usize = 48;

/// What has been seen of one datagram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// From and to, sorted; no two overlap.
    seen: ArrayVec<(u16, u16), PIECES_MAX>,
    end: Option<u16>,
}

impl Pieces {
    /// Adds a piece that may be carried, or sees that it is a copy; else says why not, and nothing has changed.
    pub fn add(&mut self, piece: Piece) -> Result<(), Refusal> {
        let Piece { start, end, last } = piece;
        if start >= end {
            return Err(Refusal::FragmentEmpty);
        }
        // Where it would stand, if it fits.
        let place = self.seen.partition_point(|&(_, to)| to <= start);
        if self.seen.get(place) == Some(&(start, end)) && last == (self.end == Some(end)) {
            return Ok(());
        }
        if self.seen.get(place).is_some_and(|&(from, _)| from < end) {
            return Err(Refusal::FragmentOverlap);
        }
        let ends_early = last && (self.end.is_some() || place < self.seen.len());
        if ends_early || self.end.is_some_and(|known| end > known) {
            return Err(Refusal::FragmentBeyondEnd);
        }
        if self.seen.is_full() {
            self.join();
            let place = self.seen.partition_point(|&(_, to)| to <= start);
            self.seen.try_insert(place, (start, end)).map_err(|_| Refusal::FragmentHoles)?;
        } else {
            self.seen.insert(place, (start, end));
        }
        if last {
            self.end = Some(end);
        }
        Ok(())
    }

    /// Makes one of pieces that have no hole between them.
    fn join(&mut self) {
        let mut joined: ArrayVec<(u16, u16), PIECES_MAX> = ArrayVec::new();
        for &(from, to) in &self.seen {
            match joined.last_mut() {
                Some((_, end)) if *end == from => *end = to,
                // No more of them than there were.
                _ => joined.push((from, to)),
            }
        }
        self.seen = joined;
    }

    /// Takes back a piece that has been added.
    pub fn remove(&mut self, piece: Piece) {
        let Piece { start, end, last } = piece;
        let around = self.seen.iter().position(|&(from, to)| from <= start && end <= to);
        let Some((place, (from, to))) = around.map(|place| (place, self.seen[place])) else { return };
        match (from < start, end < to) {
            (false, false) => drop(self.seen.remove(place)),
            (false, true) => self.seen[place].0 = end,
            (true, false) => self.seen[place].1 = start,
            // Before it was added there was room for both.
            (true, true) if self.seen.try_insert(place + 1, (end, to)).is_err() => return,
            (true, true) => self.seen[place].1 = start,
        }
        if last {
            self.end = None;
        }
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Whether all of the datagram has been seen.
    pub fn complete(&self) -> bool {
        // They do not overlap, and none is behind the end.
        self.end.is_some_and(|end| self.seen.iter().map(|(from, to)| to - from).sum::<u16>() == end)
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
            (vec![piece(0, 16, false)], piece(0, 16, false), Ok(())),
            (vec![piece(0, 16, false)], piece(0, 16, true), Err(FragmentOverlap)),
            (vec![piece(0, 16, true)], piece(0, 16, false), Err(FragmentOverlap)),
            (vec![piece(0, 16, false)], piece(0, 8, false), Err(FragmentOverlap)),
            (vec![piece(0, 8, false), piece(8, 16, false)], piece(0, 16, false), Err(FragmentOverlap)),
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
    fn holes_are_limited_and_pieces_without_them_are_not() {
        let mut pieces = Pieces::default();
        (0..1000).for_each(|number| assert_eq!(pieces.add(piece(8 * number, 8 * number + 8, false)), Ok(())));
        let at = |number: u16| piece(16 * number + 16_000, 16 * number + 16_008, false);
        (1..PIECES_MAX as u16).for_each(|number| assert_eq!(pieces.add(at(number)), Ok(())));
        let before = pieces.clone();
        assert_eq!(pieces.add(at(PIECES_MAX as u16)), Err(Refusal::FragmentHoles));
        pieces.remove(at(PIECES_MAX as u16));
        assert_eq!(pieces, before);
    }

    /// Every byte by itself: the piece that it came in.
    #[derive(Default)]
    struct Oracle {
        seen: Vec<Option<(u16, u16)>>,
        end: Option<usize>,
    }

    impl Oracle {
        fn add(&mut self, piece: Piece) -> bool {
            let (start, end) = (usize::from(piece.start), usize::from(piece.end));
            self.seen.resize(1000, None);
            let bounds = (start < end).then_some((piece.start, piece.end));
            if bounds.is_some() && self.seen[start] == bounds && piece.last == (self.end == Some(end)) {
                return true;
            }
            let overlaps = self.seen[start..end].iter().any(Option::is_some);
            let beyond = self.end.is_some_and(|known| end > known || piece.last);
            let early = piece.last && self.seen[end..].iter().any(Option::is_some);
            let fits = start < end && !overlaps && !beyond && !early;
            if fits {
                self.seen[start..end].fill(bounds);
                self.end = if piece.last { Some(end) } else { self.end };
            }
            fits
        }

        fn complete(&self) -> bool {
            self.end.is_some_and(|end| self.seen[..end].iter().all(Option::is_some))
        }
    }

    proptest! {
        /// Of no more pieces than are told apart.
        #[test]
        fn it_says_what_looking_at_every_byte_says(
            pieces in prop::collection::vec((0..40_u16, 0..5_u16, 0..12_u8), 0..80),
        ) {
            let (mut tracked, mut oracle) = (Pieces::default(), Oracle::default());
            for (start, len, last) in pieces {
                let piece = piece(8 * start, 8 * (start + len), last == 0);
                let before = tracked.clone();
                let fits = tracked.add(piece).is_ok();
                prop_assert_eq!(fits, oracle.add(piece), "{:?} to {:?}", piece, before);
                if fits && tracked != before {
                    let mut after = tracked.clone();
                    after.remove(piece);
                    prop_assert_eq!(after, before, "without {:?} again", piece);
                }
                prop_assert_eq!(tracked.complete(), oracle.complete());
            }
        }

        /// Pieces beyond those that are told apart, none twice.
        #[test]
        fn a_datagram_in_any_order_is_complete_with_its_last_piece_and_not_before(
            order in (1..90_u16).prop_flat_map(|count| Just((0..count).collect::<Vec<_>>()).prop_shuffle()), len in 1..9_u16,
        ) {
            let mut pieces = Pieces::default();
            for (count, number) in (1..).zip(&order) {
                let last = usize::from(*number) == order.len() - 1;
                let end = if last { number * 8 + len } else { number * 8 + 8 };
                match pieces.add(piece(number * 8, end, last)) {
                    Ok(()) => prop_assert_eq!(pieces.complete(), count == order.len()),
                    // Joined, they have as many holes as are told apart.
                    Err(refusal) => {
                        prop_assert_eq!(refusal, Refusal::FragmentHoles);
                        prop_assert!(pieces.seen.windows(2).all(|pair| pair[0].1 < pair[1].0) && pieces.seen.is_full());
                        return Ok(());
                    }
                }
            }
        }
    }
}
