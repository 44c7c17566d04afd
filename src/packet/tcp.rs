//! What a TCP header says (RFC 9293 section 3.1).

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// No more data from the sender (RFC 9293 section 3.1).
pub const FIN: u8 = 0x01;
/// Synchronize sequence numbers: opens a connection (RFC 9293 section 3.1).
pub const SYN: u8 = 0x02;
/// Reset the connection (RFC 9293 section 3.1).
pub const RST: u8 = 0x04;
/// Push (RFC 9293 section 3.1).
pub const PSH: u8 = 0x08;
/// The acknowledgment number counts (RFC 9293 section 3.1).
pub const ACK: u8 = 0x10;
/// The urgent pointer counts (RFC 9293 section 3.1).
pub const URG: u8 = 0x20;
/// ECN echo (RFC 3168 section 6.1).
pub const ECE: u8 = 0x40;
/// Congestion window reduced (RFC 3168 section 6.1).
pub const CWR: u8 = 0x80;

/// The fixed part of a TCP header (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TcpHeader {
    /// Sender's port (RFC 9293 section 3.1).
    pub source_port: U16,
    /// Receiver's port (RFC 9293 section 3.1).
    pub destination_port: U16,
    /// Number of the first byte of data (RFC 9293 section 3.1).
    pub sequence: U32,
    /// Number of the next byte expected, when [`ACK`] is set (RFC 9293 section 3.1).
    pub acknowledgment: U32,
    /// Data offset in units of 4 bytes (4 bits) and reserved bits (RFC 9293 section 3.1).
    pub data_offset: u8,
    /// [`FIN`] to [`CWR`] (RFC 9293 section 3.1).
    pub flags: u8,
    /// Bytes that the sender is willing to receive, before scaling (RFC 9293 section 3.1).
    pub window: U16,
    /// Checksum over pseudo-header, header and data (RFC 9293 section 3.1).
    pub checksum: U16,
    /// End of urgent data, when [`URG`] is set (RFC 9293 section 3.1).
    pub urgent: U16,
}

impl TcpHeader {
    /// Bytes of a header without options.
    pub const LEN: usize = size_of::<Self>();

    /// Bytes of the header with its options as it claims, 0 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }

    /// The header at the start of `segment`, its options (RFC 9293 section 3.2) and the data.
    ///
    /// `None` when it is cut off or claims fewer than 20 bytes.
    pub fn split(segment: &[u8]) -> Option<(&TcpHeader, &[u8], &[u8])> {
        let (header, rest) = TcpHeader::ref_from_prefix(segment).ok()?;
        let (options, data) = rest.split_at_checked(header.header_len().checked_sub(Self::LEN)?)?;
        Some((header, options, data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const SEGMENT: [u8; 26] = [
        0xc0, 0x00, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x60, 0x12, 0xff, 0xff, 0xab, 0xcd, 0, 3,
        2, 4, 0x05, 0xb4, // maximum segment size
        b'h', b'i',
    ];

    #[test]
    fn fields_are_where_rfc_9293_puts_them() {
        let (header, options, data) = TcpHeader::split(&SEGMENT).expect("whole header");
        assert_eq!((header.source_port.get(), header.destination_port.get()), (0xc000, 443));
        assert_eq!((header.sequence.get(), header.acknowledgment.get()), (1, 2));
        assert_eq!((header.header_len(), header.flags), (24, SYN | ACK));
        assert_eq!((header.window.get(), header.checksum.get(), header.urgent.get()), (0xffff, 0xabcd, 3));
        assert_eq!((options, data), (&[2, 4, 0x05, 0xb4][..], &b"hi"[..]));
    }

    #[test]
    fn data_offsets_below_the_header_or_beyond_the_segment_are_refused() {
        for (offset, good) in [(0x40, false), (0x50, true), (0x60, true), (0x70, false), (0xf0, false)] {
            let mut segment = SEGMENT;
            segment[12] = offset;
            assert_eq!(TcpHeader::split(&segment).is_some(), good, "{offset:#x}");
        }
        assert!(TcpHeader::split(&SEGMENT[..19]).is_none(), "cut");
    }
}
