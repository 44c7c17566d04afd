//! What a UDP header says (RFC 768).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A UDP header (RFC 768, "Format").
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UdpHeader {
    /// Sender's port, zero when unused (RFC 768, "Fields").
    pub source_port: U16,
    /// Receiver's port (RFC 768, "Fields").
    pub destination_port: U16,
    /// Bytes of header and data, 8 at least (RFC 768, "Fields").
    pub length: U16,
    /// Checksum over pseudo-header, header and data; zero is none, in IPv4 (RFC 768, "Fields"; RFC 8200 section 8.1).
    pub checksum: U16,
}

impl UdpHeader {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_rfc_768_puts_them() {
        let bytes = [0xc0, 0x01, 0x00, 0x35, 0x00, 0x0a, 0xab, 0xcd, 1, 2];
        let (header, data) = UdpHeader::ref_from_prefix(&bytes).expect("8 bytes");
        assert_eq!((header.source_port.get(), header.destination_port.get()), (0xc001, 53));
        assert_eq!((header.length.get(), header.checksum.get(), data), (10, 0xabcd, &[1, 2][..]));
    }
}
