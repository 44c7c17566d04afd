//! Sealed datagrams between the two routers of a pair: whether one is from the other, meant for us as we run now, and new.
//!
//! All numbers in network order:
//!
//! ```text
//! offset bytes
//!      0     4  "SLRP"
//!      4     1  version: 1
//!      5     1  kind
//!      6     2  zeros
//!      8     8  the sender's life: a number that is another each time that it starts
//!     16     8  the receiver's life, as far as the sender knows it; else 0
//!     24     8  number of the datagram in the sender's life, from 1
//!     32     n  what it says
//!   32+n    16  seal: first half of the HMAC-SHA256 by the pair's key, over "slr pair" and all before
//! ```
//!
//! What a datagram says counts only where it names our life, so that the sender has heard from us in it, and where its
//! number is above all that have come in the sender's life. In one life of ours only one of the other router's counts: when
//! that begins another, so do we. So nothing that was recorded is good for anything: not in the same lives, where its
//! number is old, and not in others, which it does not name.

use std::time::Duration;

use crate::clock::Instant;
use crate::trust::seal::{self, Seal};
use crate::units::labelled;

/// Bytes of a datagram around what it says.
pub const OVERHEAD: usize = HEADER + seal::LEN;
/// Longest that one may say, so that a datagram fits into a packet of 1280 bytes.
pub const BODY_MAX: usize = 1280 - 48 - OVERHEAD;

const HEADER: usize = 32;
const MAGIC: [u8; 4] = *b"SLRP";
const VERSION: u8 = 1;

/// How long the other router must be silent until it may have begun another life without knowing of ours.
const SILENCE: Duration = Duration::from_millis(100);

/// From one life of ours to the next in one process: odd, so that none comes twice.
const NEXT_LIFE: u64 = 0x9e37_79b9_7f4a_7c15;

labelled! {
    /// What became of datagrams at the pair's address.
    Outcome {
        /// Taken.
        Taken => "taken",
        /// It was made before its sender has heard of us: it teaches us the sender's life only.
        Greeting => "greeting",
        /// Its seal is not right.
        Forged => "forged",
        /// It is of another version, cut off, or makes no sense.
        Malformed => "malformed",
        /// It, or a later one, has come before.
        Replayed => "replayed",
        /// It was made for another life of ours, or in another one of the sender's.
        OtherLife => "other_life",
        /// It was ours, and the other router's machine has no program that takes it.
        Refused => "refused",
    }
}

/// One end.
#[derive(Debug)]
pub struct Link {
    seal: Seal,
    life: u64,
    sent: u64,
    peer: Option<Peer>,
    /// Whether anything has been taken in this life.
    has_taken: bool,
}

/// The other router's life.
#[derive(Clone, Copy, Debug)]
struct Peer {
    life: u64,
    /// The greatest number that has come.
    number: u64,
    at: Instant,
}

impl Link {
    /// An end that begins the life of this number, which nobody can foresee.
    pub fn new(key: &[u8; 16], life: u64) -> Link {
        Link { seal: Seal::new(key, b"slr pair"), life: life.max(1), sent: 0, peer: None, has_taken: false }
    }

    /// The life of the other router, as far as it is known.
    pub fn peer(&self) -> Option<u64> {
        self.peer.map(|peer| peer.life)
    }

    /// A datagram that says this.
    pub fn write(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        self.sent += 1;
        let mut bytes = Vec::with_capacity(OVERHEAD + body.len());
        bytes.extend(MAGIC);
        bytes.extend([VERSION, kind, 0, 0]);
        for number in [self.life, self.peer().unwrap_or(0), self.sent] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(body);
        let seal = self.seal.of(&bytes);
        bytes.extend(seal);
        bytes
    }

    /// Kind of a datagram that has come, and what it says.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn read<'a>(&mut self, now: Instant, datagram: &'a [u8]) -> Result<(u8, &'a [u8]), Outcome> {
        if datagram.len() < OVERHEAD || datagram[..4] != MAGIC || datagram[4] != VERSION {
            return Err(Outcome::Malformed);
        }
        let bytes = self.seal.open(datagram).ok_or(Outcome::Forged)?;
        let (header, body) = bytes.split_first_chunk::<HEADER>().ok_or(Outcome::Malformed)?;
        let number = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let (from, to, number) = (number(8), number(16), number(24));
        // Our own words, come back.
        if from == self.life {
            return Err(Outcome::OtherLife);
        }
        let for_us = to == self.life;
        match &mut self.peer {
            Some(peer) if peer.life == from => {
                if number <= peer.number {
                    return Err(Outcome::Replayed);
                }
                (peer.number, peer.at) = (number, now);
            }
            Some(peer) if (self.has_taken || !for_us) && now - peer.at < SILENCE => return Err(Outcome::OtherLife),
            peer => {
                *peer = Some(Peer { life: from, number, at: now });
                if std::mem::take(&mut self.has_taken) {
                    self.life = self.life.wrapping_add(NEXT_LIFE).max(1);
                    return Err(Outcome::OtherLife);
                }
            }
        }
        match (for_us, to) {
            (true, _) => {
                self.has_taken = true;
                Ok((header[5], body))
            }
            (false, 0) => Err(Outcome::Greeting),
            (false, _) => Err(Outcome::OtherLife),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 16] = [7; 16];

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    /// Two that know each other.
    fn acquainted() -> (Link, Link) {
        let (mut a, mut b) = (Link::new(&KEY, 11), Link::new(&KEY, 22));
        let greeting = a.write(1, b"hello");
        assert_eq!(b.read(at(0), &greeting), Err(Outcome::Greeting));
        assert_eq!(a.read(at(0), &b.write(1, b"hi")), Ok((1, &b"hi"[..])));
        assert_eq!(b.read(at(0), &a.write(2, b"")), Ok((2, &b""[..])));
        (a, b)
    }

    #[test]
    fn a_datagram_is_taken_once_and_in_order() {
        let (mut a, mut b) = acquainted();
        let [first, second] = [b"1", b"2"].map(|body| a.write(3, body));
        assert_eq!(b.read(at(1), &second), Ok((3, &b"2"[..])));
        for old in [&first, &second] {
            assert_eq!(b.read(at(500), old), Err(Outcome::Replayed));
        }
    }

    #[test]
    fn what_was_recorded_is_good_for_no_other_life() {
        let (mut a, mut b) = acquainted();
        let recorded: Vec<Vec<u8>> = (0..10).map(|_| a.write(3, b"flows")).collect();
        // The receiver starts anew.
        let mut anew = Link::new(&KEY, 33);
        for datagram in &recorded {
            assert_eq!(anew.read(at(1000), datagram), Err(Outcome::OtherLife));
        }
        // What comes from the sender itself then counts as soon as it knows of the new life.
        let early = a.write(3, b"early");
        assert_eq!(anew.read(at(1001), &early), Err(Outcome::OtherLife));
        assert_eq!(a.read(at(1002), &anew.write(1, b"")), Err(Outcome::OtherLife), "it begins another life, too");
        assert_eq!(anew.read(at(1003), &a.write(3, b"now")), Ok((3, &b"now"[..])));
        assert_eq!(a.read(at(1004), &anew.write(1, b"")), Ok((1, &b""[..])));
        // The sender starts anew: what it said before is void, and cannot take the place of what it says now.
        let mut sender = Link::new(&KEY, 44);
        assert_eq!(b.read(at(50), &sender.write(1, b"")), Err(Outcome::OtherLife), "it may be a recorded one");
        assert_eq!(b.read(at(1000), &sender.write(1, b"")), Err(Outcome::OtherLife));
        assert_eq!(sender.read(at(1001), &b.write(1, b"")), Ok((1, &b""[..])));
        for time in [1001, 2000] {
            assert_eq!(b.read(at(time), &sender.write(1, b"back")), Ok((1, &b"back"[..])));
            for datagram in &recorded {
                assert_eq!(b.read(at(time), datagram), Err(Outcome::OtherLife));
            }
        }
    }

    #[test]
    fn recorded_datagrams_in_a_silence_are_not_taken_and_do_not_keep_the_two_apart() {
        let (mut a, mut b) = acquainted();
        let recorded = a.write(3, b"flows");
        let mut again = Link::new(&KEY, 44);
        assert_eq!(b.read(at(1000), &again.write(1, b"")), Err(Outcome::OtherLife));
        assert_eq!(again.read(at(1000), &b.write(1, b"")), Ok((1, &b""[..])));
        assert_eq!(b.read(at(1000), &again.write(1, b"")), Ok((1, &b""[..])));
        // It is silent for long, and the old life speaks.
        assert_eq!(b.read(at(2000), &recorded), Err(Outcome::OtherLife));
        assert_eq!(b.read(at(2001), &recorded), Err(Outcome::Replayed));
        let mut taken = [0, 0];
        for time in 0..100 {
            taken[0] += usize::from(b.read(at(2002 + 10 * time), &again.write(1, b"")).is_ok());
            taken[1] += usize::from(again.read(at(2002 + 10 * time), &b.write(1, b"")).is_ok());
        }
        assert!(taken.iter().all(|taken| *taken > 70), "{taken:?}");
    }

    #[test]
    fn what_was_changed_or_sealed_by_another_key_is_refused() {
        let (mut a, mut b) = acquainted();
        let datagram = a.write(3, b"flows");
        for bit in 0..8 * datagram.len() {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let why = if bit < 5 * 8 { Outcome::Malformed } else { Outcome::Forged };
            assert_eq!(b.read(at(1), &changed), Err(why), "bit {bit}");
        }
        assert_eq!(b.read(at(1), &Link::new(&[8; 16], 11).write(3, b"flows")), Err(Outcome::Forged));
        assert_eq!(b.read(at(1), &datagram[..OVERHEAD - 1]), Err(Outcome::Malformed));
        assert_eq!(b.read(at(1), &datagram), Ok((3, &b"flows"[..])), "it is the first that comes whole");
    }
}
