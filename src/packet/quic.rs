//! Which connection a QUIC packet belongs to, as far as every version shows it (RFC 8999, RFC 9000 section 17).

/// Bit of the first byte: a long header (RFC 8999 section 5.1).
const LONG_HEADER: u8 = 0x80;

/// QUIC version 1 (RFC 9000).
const VERSION_1: u32 = 1;
/// QUIC version 2 (RFC 9369).
const VERSION_2: u32 = 0x6b33_43cf;

/// The part of a QUIC header that does not depend on the version (RFC 8999 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuicHeader<'a> {
    /// A long header (RFC 8999 section 5.1; version 1: RFC 9000 section 17.2).
    Long {
        /// The version, host order; zero is version negotiation (RFC 8999 section 6).
        version: u32,
        /// Destination connection id, 0 to 255 bytes; version 1 has no more than 20.
        dcid: &'a [u8],
        /// Source connection id, 0 to 255 bytes; version 1 has no more than 20.
        scid: &'a [u8],
    },
    /// A short header (RFC 8999 section 5.2; version 1: RFC 9000 section 17.3).
    Short {
        /// Destination connection id, as long as the reader says.
        dcid: &'a [u8],
    },
}

impl<'a> QuicHeader<'a> {
    /// Reads the header at the start of a UDP payload; `None` when it is cut off.
    ///
    /// A short header does not say how long its connection id is: `short_dcid_len` bytes, the length that the server
    /// which issued it uses (RFC 9000 section 5.1). The fixed bit is not looked at: it may be greased (RFC 9287).
    pub fn parse(payload: &'a [u8], short_dcid_len: usize) -> Option<QuicHeader<'a>> {
        let (first, rest) = payload.split_first()?;
        if first & LONG_HEADER == 0 {
            return Some(QuicHeader::Short { dcid: rest.get(..short_dcid_len)? });
        }
        let (version, rest) = rest.split_first_chunk()?;
        let (dcid, rest) = connection_id(rest)?;
        let (scid, _) = connection_id(rest)?;
        Some(QuicHeader::Long { version: u32::from_be_bytes(*version), dcid, scid })
    }
}

/// Whether a long header with this first byte is a Handshake packet, the only long header whose destination connection id
/// a server has certainly chosen (RFC 9000 sections 7.2 and 17.2.4; version 2: RFC 9369 section 3.2). False in versions
/// whose packet types are not known.
pub fn is_handshake(first: u8, version: u32) -> bool {
    let kind = first >> 4 & 0b11;
    match version {
        VERSION_1 => kind == 2,
        VERSION_2 => kind == 3,
        _ => false,
    }
}

/// A connection id behind its length in one byte, and what follows.
fn connection_id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_show_their_connection_ids() {
        let long = |version, dcid: &'static [u8], scid: &'static [u8]| Some(QuicHeader::Long { version, dcid, scid });
        let cases: &[(&str, &[u8], Option<QuicHeader>)] = &[
            ("initial", &[0xc3, 0, 0, 0, 1, 3, 1, 2, 3, 2, 8, 9, 0, 64], long(1, &[1, 2, 3], &[8, 9])),
            ("version 2", &[0xd3, 0x6b, 0x33, 0x43, 0xcf, 1, 7, 0], long(0x6b33_43cf, &[7], &[])),
            ("version negotiation", &[0x80, 0, 0, 0, 0, 0, 1, 5, 0, 0, 0, 1], long(0, &[], &[5])),
            ("short", &[0x40, 1, 2, 3, 4, 5, 6], Some(QuicHeader::Short { dcid: &[1, 2, 3, 4] })),
            ("short, cut", &[0x40, 1, 2, 3], None),
            ("nothing", &[], None),
            ("long, cut in the version", &[0xc0, 0, 0, 0], None),
            ("long, no destination length", &[0xc0, 0, 0, 0, 1], None),
            ("long, destination cut", &[0xc0, 0, 0, 0, 1, 4, 1, 2, 3], None),
            ("long, no source length", &[0xc0, 0, 0, 0, 1, 2, 1, 2], None),
            ("long, source cut", &[0xc0, 0, 0, 0, 1, 0, 255, 1], None),
        ];
        for (name, payload, expected) in cases {
            assert_eq!(QuicHeader::parse(payload, 4), *expected, "{name}");
        }
    }

    #[test]
    fn a_length_of_255_is_read_where_the_bytes_are_there() {
        let mut payload = vec![0xff; 1 + 4 + 1 + 255];
        payload.push(0);
        assert!(matches!(QuicHeader::parse(&payload, 0), Some(QuicHeader::Long { dcid: [_, ..], scid: [], .. })));
        assert_eq!(QuicHeader::parse(&payload[..261], 0), None);
    }
}
