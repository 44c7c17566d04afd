//! Whether bytes arrived as they were sent: the Internet checksum, in full (RFC 1071) and updated in place (RFC 1624).
//!
//! Checksums are in host order: what `get()` of a header's checksum field gives.

use zerocopy::{FromBytes, transmute};

/// A ones' complement sum in the making.
///
/// It is kept in the machine's byte order and swapped once at the end (RFC 1071 section 2(B)). Every piece but the last
/// must have an even length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes; an odd last one counts as if a zero followed (RFC 1071 section 1).
    #[inline]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Sum {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut sum = self.0;
        for word in words {
            sum = add_carry(sum, u64::from_ne_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        Sum(add_carry(sum, u64::from_ne_bytes(last)))
    }

    /// Adds one 16-bit field.
    #[inline]
    #[must_use]
    pub fn add_u16(self, value: u16) -> Sum {
        Sum(add_carry(self.0, u64::from(value.to_be())))
    }

    /// Adds one 32-bit field.
    #[inline]
    #[must_use]
    pub fn add_u32(self, value: u32) -> Sum {
        Sum(add_carry(self.0, u64::from(value.to_be())))
    }

    /// The sum folded to 16 bits: 0xFFFF over data that contain their own correct checksum.
    #[inline]
    pub fn fold(self) -> u16 {
        u16::from_be(fold_u64(self.0))
    }

    /// The checksum: the complement of the sum.
    #[inline]
    pub fn finish(self) -> u16 {
        !self.fold()
    }
}

/// Addition with the carry brought round to the low end.
#[inline]
fn add_carry(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u64::from(carry)
}

/// Folds a sum of words to that of their 16-bit halves (RFC 1071 section 2(B)): each half is added to the other with its
/// carry, and the upper one then holds the result.
#[inline(always)]
pub fn fold_u64(sum: u64) -> u16 {
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The checksum over `bytes` (RFC 1071 section 1); zero when they contain their own correct checksum.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::default().add_bytes(bytes).finish()
}

/// Whether the checksum of an IPv4 header without options is right (RFC 791 section 3.1). Of nothing but zeros it is said to
/// be.
#[inline]
pub(super) fn ipv4_is_valid(header: &[u8; 20]) -> bool {
    #[derive(FromBytes)]
    #[repr(C, packed)]
    struct Words(u64, u64, u32);
    let Words(first, second, last) = transmute!(*header);
    // 65,535 divides 2^64 - 1, so carries brought round change no remainder; and where it divides a sum of words, that of
    // their halves folds to 0xFFFF. The compiler makes this one multiplication.
    add_carry(add_carry(first, second), last.into()).is_multiple_of(0xffff)
}

/// The sum over the pseudo-header of TCP and UDP over IPv4 (RFC 9293 section 3.1, RFC 768); `length` in bytes of
/// transport header and data.
#[inline]
pub fn pseudo_v4(source: [u8; 4], destination: [u8; 4], protocol: u8, length: u16) -> Sum {
    Sum::default().add_bytes(&source).add_bytes(&destination).add_u16(u16::from(protocol)).add_u16(length)
}

/// The sum over the pseudo-header of everything over IPv6 (RFC 8200 section 8.1); `length` in bytes of transport header
/// and data.
#[inline]
pub fn pseudo_v6(source: &[u8; 16], destination: &[u8; 16], next_header: u8, length: u32) -> Sum {
    Sum::default().add_bytes(source).add_bytes(destination).add_u32(length).add_u16(u16::from(next_header))
}

/// The checksum after a 16-bit field changed from `old` to `new` (RFC 1624 section 3, equation 3).
#[inline]
pub fn update_u16(checksum: u16, old: u16, new: u16) -> u16 {
    !fold_u64(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

/// The checksum after a 32-bit field at an even offset changed from `old` to `new` (RFC 1624 section 3, equation 3).
#[inline]
pub fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    !fold_u64(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 16 bits at a time in network order, as RFC 1071 section 1 words it.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u64;
        for pair in bytes.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_rfcs_own_examples_come_out() {
        let rfc_1071 = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().add_bytes(&rfc_1071).fold(), 0xddf2);
        assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000, "RFC 1624 section 4");
    }

    #[test]
    fn sums_that_carry_round_are_folded_all_the_way() {
        for len in 0..64 {
            assert_eq!(checksum(&vec![0xff; len]), naive(&vec![0xff; len]), "{len} bytes of 0xff");
        }
        assert_eq!(update_u32(0, 0, u32::MAX), 0);
        assert_eq!(update_u32(0xffff, u32::MAX, 0), 0xffff);
    }

    proptest! {
        #[test]
        fn the_fast_sum_is_the_naive_one(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(checksum(&bytes), naive(&bytes));
        }

        #[test]
        fn a_sum_in_even_pieces_is_the_sum_of_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..100), at in 0..50usize) {
            let at = (at * 2).min(bytes.len() & !1);
            let pieces = Sum::default().add_bytes(&bytes[..at]).add_bytes(&bytes[at..]);
            prop_assert_eq!(pieces.finish(), naive(&bytes));
        }

        #[test]
        fn the_short_cut_for_ipv4_headers_is_the_naive_one(
            mut header in any::<[u8; 20]>(), first in 1..=255u8, mend in any::<bool>(),
        ) {
            header[0] = first;
            if mend {
                header[10..12].fill(0);
                let checksum = naive(&header).to_be_bytes();
                header[10..12].copy_from_slice(&checksum);
            }
            prop_assert_eq!(ipv4_is_valid(&header), naive(&header) == 0);
            prop_assert!(!mend || ipv4_is_valid(&header));
        }

        // The first byte stays above zero: over nothing but zeros the full checksum is 0xFFFF, which no update gives.
        #[test]
        fn an_update_is_a_full_recomputation(
            mut bytes in prop::array::uniform20(any::<u8>()), first in 1..=255u8,
            at in 1..9usize, half in any::<u16>(), word in any::<u32>(),
        ) {
            bytes[0] = first;
            let at = at * 2;
            let before = naive(&bytes);
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&half.to_be_bytes());
            let after = naive(&bytes);
            prop_assert_eq!(update_u16(before, old, half), after);

            let old = u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
            prop_assert_eq!(update_u32(after, old, word), naive(&bytes));
        }

        #[test]
        fn pseudo_headers_are_summed_as_laid_out_by_their_rfcs(
            v4 in any::<[[u8; 4]; 2]>(), v6 in any::<[[u8; 16]; 2]>(), protocol: u8, short: u16, long: u32,
        ) {
            let mut bytes = v4.concat();
            bytes.extend([0, protocol]);
            bytes.extend(short.to_be_bytes());
            prop_assert_eq!(pseudo_v4(v4[0], v4[1], protocol, short).finish(), naive(&bytes));

            let mut bytes = v6.concat();
            bytes.extend(long.to_be_bytes());
            bytes.extend([0, 0, 0, protocol]);
            prop_assert_eq!(pseudo_v6(&v6[0], &v6[1], protocol, long).finish(), naive(&bytes));
        }
    }
}
