//! What makes two packets the same flow: 5-tuples, and coarser keys of the same shape.
//!
//! ```text
//! KeyV4  source 4 | destination 4 | source port 2 | destination port 2 | protocol 1       13 bytes
//! KeyV6  source 16 | destination 16 | source port 2 | destination port 2 | protocol 1     37 bytes
//! ```
//!
//! All fields are in network order, as they stand in the packet. A coarser key (all packets of one client prefix to one
//! virtual host) keeps the masked source, puts the virtual host's number where the destination was, and takes
//! [`COARSE`] as its protocol, so that it meets no 5-tuple.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::clock::Tick;
use crate::packet::parse::Parsed;
use crate::units::VirtualHostId;

/// Protocol number of coarse keys; IANA reserves 255.
pub const COARSE: u8 = 255;

/// A key as a [`Table`](super::table::Table) keeps and compares it.
pub trait Words: Copy + AsRef<[u64]> + FromZeros + Send + 'static {
    /// What a record of such a key says of when it was made.
    type Made: Made;

    /// The last word. The key has its low 40 bits.
    fn last(&self) -> u64;

    /// Changes the last word.
    fn set_last(&mut self, last: u64);

    /// The bits in which the last words differ.
    fn differs(&self, other: &Self) -> u64;

    /// Whether all other words are equal.
    fn rest_equals(&self, other: &Self) -> bool;

    /// Whether they are equal in the bits that are set in `mask`.
    fn equals_in(&self, other: &Self, mask: &Self) -> bool;

    /// The key's protocol.
    #[inline(always)]
    fn protocol(&self) -> u8 {
        (self.last() >> 32) as u8
    }

    /// Copies them to where there is room for any key.
    fn save(&self, room: &mut [u64; WORDS_MAX]);

    /// What was saved there.
    fn of_saved(saved: &[u64; WORDS_MAX]) -> Self;
}

/// When a record was made, where the record has room for that.
pub trait Made: Copy + FromZeros + Send + 'static {
    /// Whether it has none.
    const IS_APART: bool;

    /// Made now.
    fn new(now: Tick) -> Self;

    /// When, if it says so.
    fn tick(self) -> Option<Tick>;
}

/// A record that fills half of a cache line.
impl Made for () {
    const IS_APART: bool = true;

    #[inline(always)]
    fn new(_now: Tick) {}

    fn tick(self) -> Option<Tick> {
        None
    }
}

/// One that leaves some of a whole one.
impl Made for u32 {
    const IS_APART: bool = false;

    #[inline(always)]
    fn new(Tick(now): Tick) -> u32 {
        now
    }

    fn tick(self) -> Option<Tick> {
        Some(Tick(self))
    }
}

/// Whether a record of a key with so many words has room for more.
pub trait Room {
    /// What it says of when it was made.
    type Made: Made;
}

impl Room for [u64; 2] {
    type Made = ();
}

impl Room for [u64; WORDS_MAX] {
    type Made = u32;
}

/// Words of the longest key.
pub const WORDS_MAX: usize = 5;

impl<const N: usize> Words for [u64; N]
where
    [u64; N]: FromZeros + Room,
{
    type Made = <[u64; N] as Room>::Made;

    #[inline(always)]
    fn last(&self) -> u64 {
        self[N - 1]
    }

    #[inline(always)]
    fn set_last(&mut self, last: u64) {
        self[N - 1] = last;
    }

    #[inline(always)]
    fn differs(&self, other: &Self) -> u64 {
        self[N - 1] ^ other[N - 1]
    }

    #[inline(always)]
    fn rest_equals(&self, other: &Self) -> bool {
        (0..N - 1).fold(0, |differing, word| differing | self[word] ^ other[word]) == 0
    }

    #[inline(always)]
    fn equals_in(&self, other: &Self, mask: &Self) -> bool {
        (0..N).fold(0, |differing, word| differing | (self[word] ^ other[word]) & mask[word]) == 0
    }

    #[inline(always)]
    fn save(&self, room: &mut [u64; WORDS_MAX]) {
        room[..N].copy_from_slice(self);
    }

    #[inline(always)]
    fn of_saved(saved: &[u64; WORDS_MAX]) -> Self {
        std::array::from_fn(|word| saved[word])
    }
}

/// A key that a [`Table`](super::table::Table) can hold: bytes without padding.
pub trait FlowKey: Copy + Eq + Hash + Send + FromBytes + IntoBytes + Immutable + 'static {
    /// The same in words.
    type Words: Words;

    /// The 5-tuple of the packet that was parsed from `head`, which is of this key's family.
    #[inline(always)]
    fn of(head: &[u8], parsed: &Parsed) -> Self {
        Self::from_words(&Self::words_of(head, parsed))
    }

    /// The same in words, without a key in between.
    fn words_of(head: &[u8], parsed: &Parsed) -> Self::Words;

    /// The key in words: the addresses, then the ports and above them the protocol.
    fn words(&self) -> Self::Words;

    /// The key that is in `words`, whatever is above it.
    fn from_words(words: &Self::Words) -> Self;

    /// Where the packet comes from; of a coarse key the first address of the client prefix.
    fn source(&self) -> IpAddr;

    /// Where the packet is going.
    fn destination(&self) -> IpAddr;

    /// And to which port of it, host order.
    fn destination_port(&self) -> u16;

    /// IP protocol number, or [`COARSE`].
    fn protocol(&self) -> u8;

    /// The bits of a key in words that say for which service a packet is: destination, port and protocol.
    fn service() -> Self::Words;

    /// The key of a datagram's fragments: the identification takes the place of the ports (RFC 791 section 3.2, RFC 8200
    /// section 4.5).
    fn datagram(self, identification: u32) -> Self;

    /// The key of packets that go the other way.
    fn reversed(self) -> Self;

    /// The key that all flows of one client prefix to `host` share; `prefix` is the number of leading source bits kept.
    fn coarse(self, host: VirtualHostId, prefix: u8) -> Self;
}

/// Defines a key over addresses of `$len` bytes each, the first of which starts `$at` bytes into the IP header.
macro_rules! key {
    ($(#[$doc:meta])* $name:ident, $len:literal, $at:literal, $words:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub struct $name {
            /// Client address.
            pub source: [u8; $len],
            /// Address of the virtual host.
            pub destination: [u8; $len],
            /// Source port, then destination port.
            pub ports: [u8; 4],
            /// IP protocol number, or [`COARSE`].
            pub protocol: u8,
        }

        impl FlowKey for $name {
            type Words = [u64; $words];

            #[inline(always)]
            fn words(&self) -> [u64; $words] {
                let mut words = [u64::from(u32::from_ne_bytes(self.ports)) | u64::from(self.protocol) << 32; $words];
                let mut addresses = [0; 2 * $len];
                addresses[..$len].copy_from_slice(&self.source);
                addresses[$len..].copy_from_slice(&self.destination);
                for (word, bytes) in words.iter_mut().zip(addresses.as_chunks().0) {
                    *word = u64::from_ne_bytes(*bytes);
                }
                words
            }

            #[inline(always)]
            fn from_words(words: &[u64; $words]) -> $name {
                let mut key = $name::new_zeroed();
                let (addresses, last) = words.as_bytes().split_at(2 * $len);
                key.source.copy_from_slice(&addresses[..$len]);
                key.destination.copy_from_slice(&addresses[$len..]);
                let last = u64::from_ne_bytes(*last.first_chunk().expect("the last word"));
                (key.ports, key.protocol) = ((last as u32).to_ne_bytes(), (last >> 32) as u8);
                key
            }

            #[inline(always)]
            fn words_of(head: &[u8], parsed: &Parsed) -> [u64; $words] {
                let start = usize::from(parsed.l3_offset) + $at;
                // The parser has seen the whole IP header in `head`.
                let addresses: &[u8; 2 * $len] = head[start..].first_chunk().expect("a parsed header");
                let ports = u32::from_ne_bytes(parsed.ports);
                let mut words = [u64::from(ports) | u64::from(parsed.protocol) << 32; $words];
                for (word, bytes) in words.iter_mut().zip(addresses.as_chunks().0) {
                    *word = u64::from_ne_bytes(*bytes);
                }
                words
            }

            fn source(&self) -> IpAddr {
                self.source.into()
            }

            fn destination(&self) -> IpAddr {
                self.destination.into()
            }

            fn destination_port(&self) -> u16 {
                let [_, _, high, low] = self.ports;
                u16::from_be_bytes([high, low])
            }

            fn protocol(&self) -> u8 {
                self.protocol
            }

            #[inline(always)]
            fn service() -> [u64; $words] {
                let ports = [0, 0, 0xff, 0xff];
                $name { source: [0; $len], destination: [0xff; $len], ports, protocol: 0xff }.words()
            }

            fn datagram(self, identification: u32) -> $name {
                // An IPv6 identification is unique whatever the protocol, and only the first fragment tells the protocol.
                let protocol = if $len == 16 { 0 } else { self.protocol };
                $name { ports: identification.to_be_bytes(), protocol, ..self }
            }

            fn reversed(self) -> $name {
                let [a, b, c, d] = self.ports;
                $name { source: self.destination, destination: self.source, ports: [c, d, a, b], ..self }
            }

            fn coarse(self, host: VirtualHostId, prefix: u8) -> $name {
                let mut source = self.source;
                mask(&mut source, prefix);
                let mut destination = [0; $len];
                destination[..4].copy_from_slice(&host.0.to_be_bytes());
                $name { source, destination, ports: [0; 4], protocol: COARSE }
            }
        }
    };
}

key!(
    /// Key of a flow over IPv4.
    KeyV4,
    4,
    12,
    2
);
key!(
    /// Key of a flow over IPv6.
    KeyV6,
    16,
    8,
    5
);

impl Hash for KeyV4 {
    /// Two words: a multiplicative hasher takes them in two steps.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ports = u64::from(u32::from_ne_bytes(self.ports));
        state.write_u64(
            u64::from(u32::from_ne_bytes(self.source)) << 32 | u64::from(u32::from_ne_bytes(self.destination)),
        );
        state.write_u64(ports << 8 | u64::from(self.protocol));
    }
}

impl Hash for KeyV6 {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ports = u64::from(u32::from_ne_bytes(self.ports));
        state.write_u128(u128::from_ne_bytes(self.source));
        state.write_u128(u128::from_ne_bytes(self.destination));
        state.write_u64(ports << 8 | u64::from(self.protocol));
    }
}

/// Clears all but the first `prefix` bits.
fn mask(address: &mut [u8], prefix: u8) {
    for (index, octet) in address.iter_mut().enumerate() {
        let kept = usize::from(prefix).saturating_sub(8 * index).min(8);
        *octet &= !(0xff_u16 >> kept) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_keeps_exactly_the_prefix() {
        for (prefix, expected) in [(0, [0, 0, 0, 0]), (1, [0x80, 0, 0, 0]), (12, [0xff, 0xf0, 0, 0]), (32, [0xff; 4])] {
            let mut address = [0xff; 4];
            mask(&mut address, prefix);
            assert_eq!(address, expected, "/{prefix}");
        }
    }

    #[test]
    fn coarse_keys_depend_on_client_prefix_and_virtual_host_alone() {
        let key = KeyV4 { source: [10, 1, 2, 3], destination: [192, 0, 2, 1], ports: [0, 80, 1, 2], protocol: 6 };
        let same = KeyV4 { source: [10, 1, 2, 99], destination: [192, 0, 2, 7], ports: [9; 4], protocol: 17 };
        let host = VirtualHostId(7);
        assert_eq!(key.coarse(host, 24), same.coarse(host, 24));
        assert_ne!(key.coarse(host, 32), same.coarse(host, 32));
        assert_ne!(key.coarse(host, 24), same.coarse(VirtualHostId(8), 24));
    }
}
