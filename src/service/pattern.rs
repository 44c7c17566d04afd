//! Which of the virtual hosts on one prefix has a protocol and port: their filters as disjoint spans.
//!
//! ```text
//! any        ├───────────────── a ─────────────────┤          any        ├─ a ─┼─ b ─┼────────── a ────────────┤
//! any/80-99        ├─ b ─┤                             ──►
//! tcp/80           c                                          tcp              c
//! ```

use super::filter::Filter;
use super::ranges::{NONE, Ranges, Starts};
use crate::units::VirtualHostId;

/// One filter of a prefix and whose it is.
#[derive(Clone, Copy)]
pub(super) struct Rule<'a> {
    pub(super) filter: &'a Filter,
    pub(super) host: VirtualHostId,
}

/// The spans of prefixes: in ascending order, disjoint. Prefixes with the same ones share them (the usual: 80 and 443).
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    Few([Span; FEW]),
    Many(Ranges<u32, u32, 16, 8>),
}

impl Pattern {
    /// Spans up to [`FEW`] cost no search.
    pub(super) fn new(spans: &[Span]) -> Pattern {
        let mut few = [Span::EMPTY; FEW];
        match few.get_mut(..spans.len()) {
            Some(used) => {
                used.copy_from_slice(spans);
                Pattern::Few(few)
            }
            None => Pattern::Many(ranges(spans)),
        }
    }

    /// The host of the span that has the protocol and port, else of the one that has any protocol and the port, else
    /// [`NONE`].
    #[inline]
    pub(super) fn find(&self, protocol: u8, port: u16) -> u32 {
        let (named, any) = (class(u32::from(protocol), port), class(ANY, port));
        match self {
            Pattern::Few(spans) => {
                // No branches: who floods us could make them unpredictable. Spans of `any` are last, and give way.
                let mut host = NONE;
                for span in spans.iter().rev() {
                    host = if span.contains(named) | span.contains(any) { span.host } else { host };
                }
                host
            }
            Pattern::Many(spans) => match spans.find(named) {
                NONE => spans.find(any),
                host => host,
            },
        }
    }
}

/// The classes of traffic, made by [`class`], from `first` to `last` that belong to `host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Span {
    first: u32,
    last: u32,
    pub(super) host: u32,
}

impl Span {
    /// Spans nothing.
    const EMPTY: Span = Span { first: 1, last: 0, host: NONE };

    #[inline]
    fn contains(&self, class: u32) -> bool {
        (self.first <= class) & (class <= self.last)
    }
}

/// Spans that are looked through one by one.
const FEW: usize = 5;

/// Number that stands beside the 256 protocols for a filter without one.
const ANY: u32 = 256;

/// A protocol and a port in one number that orders by protocol first.
fn class(protocol: u32, port: u16) -> u32 {
    protocol << 16 | u32::from(port)
}

/// The rules of one prefix as disjoint spans in ascending order, of which the narrowest and then the earliest is on
/// top.
pub(super) fn paint(rules: &[Rule<'_>]) -> Vec<Span> {
    let mut spans: Vec<Span> = rules
        .iter()
        .map(|&Rule { filter, host }| {
            let protocol = filter.protocol.map_or(ANY, u32::from);
            let (first, last) = (class(protocol, *filter.ports.start()), class(protocol, *filter.ports.end()));
            Span { first, last, host: host.0 }
        })
        .filter(|span| span.first <= span.last)
        .collect();
    if spans.len() < 2 {
        return spans;
    }
    spans.sort_by_key(|span| span.last - span.first);

    // Between two neighbouring edges all classes have the same owner. Narrow spans come first and take what is free.
    let mut edges: Vec<u32> = spans.iter().flat_map(|span| [span.first, span.last + 1]).collect();
    edges.sort_unstable();
    edges.dedup();
    let mut owners = vec![NONE; edges.len()];
    // The next free piece at or after each one, found by ever shorter leaps.
    let mut free: Vec<usize> = (0..edges.len()).collect();
    for span in &spans {
        let mut piece = next_free(&mut free, edges.partition_point(|&edge| edge < span.first));
        while edges[piece] <= span.last {
            owners[piece] = span.host;
            free[piece] = piece + 1;
            piece = next_free(&mut free, piece);
        }
    }
    // The last edge ends the last span and owns nothing.
    let mut painted: Vec<Span> = Vec::new();
    for (piece, &host) in owners.iter().enumerate().filter(|&(_, &host)| host != NONE) {
        let (first, last) = (edges[piece], edges[piece + 1] - 1);
        match painted.last_mut() {
            Some(before) if before.host == host && before.last + 1 == first => before.last = last,
            _ => painted.push(Span { first, last, host }),
        }
    }
    painted
}

fn next_free(free: &mut [usize], mut piece: usize) -> usize {
    while free[piece] != piece {
        free[piece] = free[free[piece]];
        piece = free[piece];
    }
    piece
}

/// The spans as a search tree over all classes.
fn ranges(spans: &[Span]) -> Ranges<u32, u32, 16, 8> {
    let mut starts = Starts::new(0);
    for span in spans {
        starts.push(span.first, span.host);
        starts.push(span.last + 1, NONE);
    }
    Ranges::new(&starts.0, u32::MAX)
}
