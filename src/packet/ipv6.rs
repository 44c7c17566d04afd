//! What an IPv6 header and its extension headers say (RFC 8200).

use std::net::Ipv6Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::protocol;

/// Bit of [`FragmentHeader::offset_flags`]: more fragments follow.
pub const MORE_FRAGMENTS: u16 = 0x0001;

/// An IPv6 header (RFC 8200 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (4 bits), DSCP (6 bits), ECN (2 bits) and flow label (20 bits) (RFC 8200 section 3).
    pub version_class_flow: U32,
    /// Bytes behind this header, extension headers included (RFC 8200 section 3).
    pub payload_length: U16,
    /// Number of the header that follows (RFC 8200 section 3).
    pub next_header: u8,
    /// Hops left (RFC 8200 section 3).
    pub hop_limit: u8,
    /// Sender (RFC 8200 section 3).
    pub source: [u8; 16],
    /// Receiver (RFC 8200 section 3).
    pub destination: [u8; 16],
}

impl Ipv6Header {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();

    /// The version, 6 in a valid header.
    #[inline]
    pub fn version(&self) -> u8 {
        (self.version_class_flow.get() >> 28) as u8
    }

    /// DSCP and ECN, laid out as in IPv4 (RFC 8200 section 7, RFC 2474 section 3, RFC 3168 section 5).
    #[inline]
    pub fn dscp_ecn(&self) -> u8 {
        (self.version_class_flow.get() >> 20) as u8
    }

    /// The flow label, 20 bits (RFC 6437).
    #[inline]
    pub fn flow_label(&self) -> u32 {
        self.version_class_flow.get() & 0x000f_ffff
    }

    /// Sender.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        self.source.into()
    }

    /// Receiver.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        self.destination.into()
    }
}

/// How the extension headers start (RFC 8200 sections 4.3 to 4.6, RFC 4302 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ExtensionHeader {
    /// Number of the header that follows (RFC 8200 section 4.3).
    pub next_header: u8,
    /// Length; its unit depends on the header: see [`header_len`](Self::header_len) (RFC 8200 section 4.3).
    pub length: u8,
}

impl ExtensionHeader {
    /// Bytes of this header, whose own number is `kind`, one that [`is_extension`] knows.
    #[inline]
    pub fn header_len(&self, kind: u8) -> usize {
        match kind {
            protocol::FRAGMENT => FragmentHeader::LEN,
            // RFC 4302 section 2.2: in units of 4 bytes, less 2.
            protocol::AUTHENTICATION => (usize::from(self.length) + 2) * 4,
            // RFC 8200 sections 4.3, 4.4 and 4.6: in units of 8 bytes, without the first.
            _ => (usize::from(self.length) + 1) * 8,
        }
    }
}

/// Whether `kind` is the number of an extension header that can be read over.
///
/// ESP is not, because it hides what follows; mobility, HIP and Shim6 headers are not, because they end the chain.
#[inline]
pub fn is_extension(kind: u8) -> bool {
    matches!(
        kind,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
    )
}

/// A fragment header (RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FragmentHeader {
    /// Number of the first header of the fragmentable part (RFC 8200 section 4.5).
    pub next_header: u8,
    /// Zero when sent, ignored (RFC 8200 section 4.5).
    pub reserved: u8,
    /// Offset in bytes (its low 3 bits are not part of it) and [`MORE_FRAGMENTS`] (RFC 8200 section 4.5).
    pub offset_flags: U16,
    /// What the fragments of one packet share (RFC 8200 section 4.5).
    pub identification: U32,
}

impl FragmentHeader {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();

    /// Bytes of the fragmentable part before this fragment's.
    #[inline]
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.offset_flags.get() & !7)
    }

    /// Whether more fragments follow.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        self.offset_flags.get() & MORE_FRAGMENTS != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_rfc_8200_puts_them() {
        let mut bytes = [0; 40];
        bytes[..8].copy_from_slice(&[0x6b, 0x9a, 0xbc, 0xde, 0x01, 0x02, 17, 64]);
        bytes[23] = 1;
        bytes[39] = 2;
        let header = Ipv6Header::ref_from_bytes(&bytes).expect("40 bytes");
        assert_eq!((header.version(), header.dscp_ecn(), header.flow_label()), (6, 0xb9, 0xabcde));
        assert_eq!((header.payload_length.get(), header.next_header, header.hop_limit), (0x102, 17, 64));
        assert_eq!((header.source(), header.destination()), (Ipv6Addr::from(1), Ipv6Addr::from(2)));
    }

    #[test]
    fn each_extension_header_counts_its_length_in_its_own_unit() {
        for (kind, length, expected) in [
            (protocol::HOP_BY_HOP, 0, 8),
            (protocol::ROUTING, 2, 24),
            (protocol::DESTINATION_OPTIONS, 255, 2048),
            (protocol::AUTHENTICATION, 4, 24),
            (protocol::FRAGMENT, 200, 8),
        ] {
            assert_eq!(ExtensionHeader { next_header: 0, length }.header_len(kind), expected, "{kind}");
        }
    }

    #[test]
    fn the_chain_ends_where_nothing_can_be_read_over() {
        assert!((0..=255).filter(|kind| is_extension(*kind)).eq([0, 43, 44, 51, 60]));
    }

    #[test]
    fn a_fragment_header_shows_its_offset_in_bytes() {
        let bytes = [6, 0, 0x05, 0xa9, 0, 0, 0x30, 0x39];
        let header = FragmentHeader::ref_from_bytes(&bytes).expect("8 bytes");
        assert_eq!((header.fragment_offset(), header.more_fragments()), (1448, true));
        assert_eq!((header.next_header, header.identification.get()), (6, 12345));
    }
}
