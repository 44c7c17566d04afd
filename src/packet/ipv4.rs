//! What an IPv4 header says (RFC 791 section 3.1).

use std::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum;

/// Bit of [`Ipv4Header::flags_fragment`]: do not fragment.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// Bit of [`Ipv4Header::flags_fragment`]: more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// Bits of [`Ipv4Header::flags_fragment`] that hold the fragment offset, in units of 8 bytes.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;

/// The fixed part of an IPv4 header (RFC 791 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (4 bits) and header length in units of 4 bytes (4 bits) (RFC 791 section 3.1).
    pub version_ihl: u8,
    /// DSCP (6 bits, RFC 2474 section 3) and ECN (2 bits, RFC 3168 section 5).
    pub dscp_ecn: u8,
    /// Bytes of header and payload (RFC 791 section 3.1).
    pub total_length: U16,
    /// What the fragments of one packet share (RFC 791 section 3.1, RFC 6864).
    pub identification: U16,
    /// [`DONT_FRAGMENT`], [`MORE_FRAGMENTS`] and [`FRAGMENT_OFFSET`] (RFC 791 section 3.1).
    pub flags_fragment: U16,
    /// Hops left (RFC 791 section 3.1).
    pub ttl: u8,
    /// Number of the protocol behind the header ([`super::protocol`]; RFC 791 section 3.1).
    pub protocol: u8,
    /// Checksum over the header with its options (RFC 791 section 3.1).
    pub checksum: U16,
    /// Sender (RFC 791 section 3.1).
    pub source: [u8; 4],
    /// Receiver (RFC 791 section 3.1).
    pub destination: [u8; 4],
}

impl Ipv4Header {
    /// Bytes of a header without options.
    pub const LEN: usize = size_of::<Self>();
    /// [`version_ihl`](Self::version_ihl) of a header without options.
    pub const VERSION_IHL: u8 = 0x45;
    /// The first word of such a header in host order, class and length still zero.
    pub const START: u32 = (Self::VERSION_IHL as u32) << 24;

    /// The version, 4 in a valid header.
    #[inline]
    pub fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Bytes of the header with its options as it claims, 0 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl & 0x0f) * 4
    }

    /// Whether no router may fragment the packet.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.flags_fragment.get() & DONT_FRAGMENT != 0
    }

    /// Bytes of the packet's payload before this one's.
    #[inline]
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.flags_fragment.get() & FRAGMENT_OFFSET) * 8
    }

    /// Sender.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        self.source.into()
    }

    /// Receiver.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        self.destination.into()
    }

    /// Sets the checksum of a header that has no options.
    #[inline]
    pub fn fill_checksum(&mut self) {
        self.checksum = U16::ZERO;
        self.checksum = U16::new(checksum::checksum(self.as_bytes()));
    }

    /// The header at the start of `packet`, its options (RFC 791 section 3.1, "Options") and what follows.
    ///
    /// `None` when it is cut off or claims fewer than 20 bytes. Neither version nor checksum is looked at.
    pub fn split(packet: &[u8]) -> Option<(&Ipv4Header, &[u8], &[u8])> {
        let (header, rest) = Ipv4Header::ref_from_prefix(packet).ok()?;
        let (options, payload) = rest.split_at_checked(header.header_len().checked_sub(Self::LEN)?)?;
        Some((header, options, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const PACKET: [u8; 26] = [
        0x46, 0xb9, 0, 26, 0x12, 0x34, 0x60, 0x02, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7,
        0x94, 4, 0, 0, // router alert, RFC 2113
        8, 9,
    ];

    #[test]
    fn fields_are_where_rfc_791_puts_them() {
        let (header, options, payload) = Ipv4Header::split(&PACKET).expect("whole header");
        assert_eq!((header.version(), header.header_len(), header.dscp_ecn), (4, 24, 0xb9));
        assert_eq!((header.total_length.get(), header.identification.get()), (26, 0x1234));
        assert_eq!(header.flags_fragment.get() & !FRAGMENT_OFFSET, DONT_FRAGMENT | MORE_FRAGMENTS);
        assert_eq!(header.fragment_offset(), 16);
        assert_eq!((header.ttl, header.protocol), (64, 17));
        assert_eq!(
            (header.source(), header.destination()),
            (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7))
        );
        assert_eq!((options, payload), (&PACKET[20..24], &PACKET[24..]));
    }

    #[test]
    fn headers_that_are_cut_or_too_short_are_refused() {
        assert!(Ipv4Header::split(&PACKET[..23]).is_none(), "cut in the options");
        assert!(Ipv4Header::split(&PACKET[..19]).is_none(), "cut in the header");
        let mut short = PACKET;
        short[0] = 0x44;
        assert!(Ipv4Header::split(&short).is_none(), "16 bytes claimed");
    }

    #[test]
    fn a_filled_checksum_makes_the_header_sum_to_nothing() {
        let mut bytes = PACKET;
        let (header, _) = Ipv4Header::mut_from_prefix(&mut bytes).expect("whole header");
        header.version_ihl = Ipv4Header::VERSION_IHL;
        header.checksum = U16::new(0xbeef);
        header.fill_checksum();
        assert_ne!(header.checksum, 0xbeef);
        assert_eq!(checksum::checksum(&bytes[..20]), 0);
    }
}
