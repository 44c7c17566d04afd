//! How a packet that is longer than its path with its tunnel header is cut into pieces, each with a header of its own.
//!
//! ```text
//! [link][outer IP][data .........................]
//! [link][outer IP, offset 0][data ...]  [link][outer IP, offset n][... data ...]  [link][outer IP, last][...]
//!               over IPv6 with a fragment header behind it
//! ```
//!
//! Over IPv4 that is RFC 791 section 3.2, over IPv6 what a tunnel's entry does (RFC 2473 section 7.2), which is the sender of
//! the outer packet. What the data starts with (an inner packet, or UDP or GRE before it) does not matter. Where the
//! outermost IP header is the client's own, of a packet that may be fragmented, the pieces are fragments of that packet, and
//! if it was one itself, they keep their place in its datagram.

use std::ops::Range;

use arrayvec::ArrayVec;
use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use crate::packet::checksum::checksum;
use crate::packet::ipv4::{DONT_FRAGMENT, FRAGMENT_OFFSET, Ipv4Header, MORE_FRAGMENTS};
use crate::packet::ipv6::{self, FragmentHeader, Ipv6Header};
use crate::packet::protocol;

/// Longest header of a piece: link layer with tags or labels, IPv4 with all options.
const HEADER_MAX: usize = 128;

/// The header of a piece, from the link layer on.
pub type Header = ArrayVec<u8, HEADER_MAX>;

/// A packet on the way to be cut up.
#[derive(Clone, Debug)]
pub struct Split {
    /// Of the whole packet, from the link layer on.
    header: Header,
    ip_offset: usize,
    /// Bytes of data in the frame that have no piece yet.
    rest: Range<usize>,
    /// Bytes of data in the frame before the first piece.
    start: usize,
    /// Bytes of data in every piece but the last, a multiple of 8.
    step: usize,
    identification: u32,
}

impl Split {
    /// Pieces of at most `mtu` bytes each of the packet whose frame starts with `head` and whose outermost IP header is
    /// `ip_offset` bytes into it. `identification` is used where the header has none.
    ///
    /// `None` where the headers are not whole in `head`, or leave no room for data.
    pub fn new(head: &[u8], ip_offset: usize, mtu: u16, identification: u32) -> Option<Split> {
        let ip = head.get(ip_offset..)?;
        let (header_len, len, added, identification) = match ip.first()? >> 4 {
            4 => {
                let (header, options, _) = Ipv4Header::split(ip)?;
                let atomic = header.flags_fragment.get() & DONT_FRAGMENT != 0;
                let own = header.identification.get().into();
                let identification = if atomic { identification } else { own };
                (Ipv4Header::LEN + options.len(), header.total_length.get().into(), 0, identification)
            }
            6 => {
                let (header, _) = Ipv6Header::ref_from_prefix(ip).ok()?;
                let len = Ipv6Header::LEN + usize::from(header.payload_length.get());
                (Ipv6Header::LEN, len, FragmentHeader::LEN, identification)
            }
            _ => return None,
        };
        let step = usize::from(mtu).checked_sub(header_len + added)? & !7;
        let start = ip_offset + header_len;
        let header = Header::try_from(head.get(..start)?).ok()?;
        (step > 0).then_some(Split { header, ip_offset, rest: start..ip_offset + len, start, step, identification })
    }

    fn piece_v4(&self, data: &Range<usize>) -> Option<Header> {
        let mut header = self.header.clone();
        let first = data.start == self.start;
        if !first {
            let options = self.ip_offset + Ipv4Header::LEN;
            let copied = copied_options(header.get(options..)?);
            header.truncate(options);
            header.try_extend_from_slice(&copied).ok()?;
        }
        let header_len = header.len() - self.ip_offset;
        let (ip, _) = Ipv4Header::mut_from_prefix(header.get_mut(self.ip_offset..)?).ok()?;
        let flags_fragment = ip.flags_fragment.get();
        let offset = (flags_fragment & FRAGMENT_OFFSET) + ((data.start - self.start) / 8) as u16;
        let more = if data.end < self.rest.end { MORE_FRAGMENTS } else { flags_fragment & MORE_FRAGMENTS };
        ip.version_ihl = 0x40 | (header_len / 4) as u8;
        ip.total_length = U16::new((header_len + data.len()) as u16);
        ip.identification = U16::new(self.identification as u16);
        ip.flags_fragment = U16::new(more | offset & FRAGMENT_OFFSET);
        ip.checksum = U16::ZERO;
        let sum = checksum(header.get(self.ip_offset..)?);
        let (ip, _) = Ipv4Header::mut_from_prefix(header.get_mut(self.ip_offset..)?).ok()?;
        ip.checksum = U16::new(sum);
        Some(header)
    }

    fn piece_v6(&self, data: &Range<usize>) -> Option<Header> {
        let mut header = self.header.clone();
        let (ip, _) = Ipv6Header::mut_from_prefix(header.get_mut(self.ip_offset..)?).ok()?;
        let more = if data.end < self.rest.end { ipv6::MORE_FRAGMENTS } else { 0 };
        let fragment = FragmentHeader {
            next_header: ip.next_header,
            reserved: 0,
            offset_flags: U16::new((data.start - self.start) as u16 | more),
            identification: U32::new(self.identification),
        };
        ip.next_header = protocol::FRAGMENT;
        ip.payload_length = U16::new((FragmentHeader::LEN + data.len()) as u16);
        header.try_extend_from_slice(fragment.as_bytes()).ok()?;
        Some(header)
    }
}

impl Iterator for Split {
    /// The header of a piece, and which bytes of the frame follow it.
    type Item = (Header, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let data = self.rest.start..self.rest.end.min(self.rest.start + self.step);
        let version = self.header.get(self.ip_offset)? >> 4;
        let header = if version == 4 { self.piece_v4(&data) } else { self.piece_v6(&data) }?;
        self.rest.start = data.end;
        Some((header, data))
    }
}

/// The options that all fragments carry, padded to words (RFC 791 section 3.1, "copied flag").
fn copied_options(mut options: &[u8]) -> ArrayVec<u8, 40> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut copied = ArrayVec::new();
    while let Some(&kind) = options.first() {
        let len = match (kind, options.get(1)) {
            (END, _) => break,
            (NO_OPERATION, _) => 1,
            (_, Some(&len)) if len >= 2 => usize::from(len),
            _ => break,
        };
        let Some((option, rest)) = options.split_at_checked(len) else { break };
        if kind & COPIED != 0 && copied.try_extend_from_slice(option).is_err() {
            break;
        }
        options = rest;
    }
    while copied.len() % 4 != 0 {
        copied.push(END);
    }
    copied
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with `link` bytes before an IPv4 header with these options and flags, and `len` bytes of data.
    fn frame_v4(link: usize, options: &[u8], flags_fragment: u16, len: usize) -> Vec<u8> {
        let header_len = 20 + options.len();
        let mut frame = vec![0xaa; link];
        frame.push(0x40 | (header_len / 4) as u8);
        frame.push(0);
        frame.extend(((header_len + len) as u16).to_be_bytes());
        frame.extend([0x12, 0x34]);
        frame.extend(flags_fragment.to_be_bytes());
        frame.extend([64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame.extend(options);
        frame.extend((0..len).map(|byte| byte as u8));
        frame
    }

    type Piece = (Vec<u8>, u16, bool, u16, usize);

    /// Of each piece: options, offset in bytes, whether more follow, identification, bytes of data.
    fn pieces(frame: &[u8], link: usize, mtu: u16) -> Vec<Piece> {
        let split = Split::new(frame, link, mtu, 0xbeef).expect("headers");
        let read = |(header, data): (Header, Range<usize>)| {
            assert_eq!(header[..link], frame[..link]);
            let ip = &header[link..];
            let (fixed, options, rest) = Ipv4Header::split(ip).expect("a header");
            assert!(rest.is_empty() && checksum(ip) == 0);
            assert_eq!(usize::from(fixed.total_length.get()), ip.len() + data.len());
            assert!(fixed.total_length.get() <= mtu);
            let more = fixed.flags_fragment.get() & MORE_FRAGMENTS != 0;
            assert_eq!(fixed.flags_fragment.get() & DONT_FRAGMENT, 0);
            (options.to_vec(), fixed.fragment_offset() as u16, more, fixed.identification.get(), data.len())
        };
        split.map(read).collect()
    }

    #[test]
    fn pieces_are_as_long_as_fits_in_units_of_eight_bytes() {
        let none = Vec::new;
        assert_eq!(
            pieces(&frame_v4(18, &[], 0, 100), 18, 67),
            [(none(), 0, true, 0x1234, 40), (none(), 40, true, 0x1234, 40), (none(), 80, false, 0x1234, 20)]
        );
        assert_eq!(pieces(&frame_v4(14, &[], 0, 40), 14, 60), [(none(), 0, false, 0x1234, 40)]);
        assert!(Split::new(&frame_v4(14, &[], 0, 40), 14, 27, 0).is_none(), "no room for data");
        assert!(Split::new(&frame_v4(14, &[], 0, 40)[..33], 14, 60, 0).is_none(), "no whole header");
    }

    #[test]
    fn a_packet_that_had_no_identification_gets_one() {
        let ids: Vec<_> = pieces(&frame_v4(14, &[], DONT_FRAGMENT, 80), 14, 68).iter().map(|piece| piece.3).collect();
        assert_eq!(ids, [0xbeef, 0xbeef]);
    }

    #[test]
    fn a_fragment_in_pieces_keeps_its_place() {
        let places = |flags_fragment| -> Vec<(u16, bool)> {
            pieces(&frame_v4(14, &[], flags_fragment, 80), 14, 68).iter().map(|piece| (piece.1, piece.2)).collect()
        };
        assert_eq!(places(0x2000 | 10), [(80, true), (128, true)]);
        assert_eq!(places(10), [(80, true), (128, false)]);
    }

    #[test]
    fn later_pieces_have_the_options_that_are_to_be_copied() {
        // Record route, no operation, loose source route, router alert, end.
        let options = [7, 3, 4, 1, 131, 3, 4, 148, 4, 0, 0, 0];
        let found: Vec<_> = pieces(&frame_v4(14, &options, 0, 80), 14, 80).into_iter().map(|piece| piece.0).collect();
        assert_eq!(found, [options.to_vec(), vec![131, 3, 4, 148, 4, 0, 0, 0]]);
        // What cannot be read over ends the list.
        for broken in [[148, 0, 0, 0], [148, 9, 0, 0], [148, 1, 0, 0]] {
            let found: Vec<_> =
                pieces(&frame_v4(14, &broken, 0, 80), 14, 80).into_iter().map(|piece| piece.0).collect();
            assert_eq!(found, [broken.to_vec(), vec![]]);
        }
    }

    #[test]
    fn over_ipv6_pieces_have_a_fragment_header() {
        let mut frame = vec![0xaa; 14];
        frame.extend([0x6a, 0, 0, 7, 0, 100, 47, 64]);
        frame.extend([1; 16]);
        frame.extend([2; 16]);
        frame.extend([7; 100]);
        let split = Split::new(&frame, 14, 100, 0xdead_beef).expect("headers");
        let found: Vec<_> = split
            .map(|(header, data)| {
                let payload = u16::from_be_bytes([header[18], header[19]]);
                assert_eq!((header.len(), usize::from(payload)), (62, 8 + data.len()));
                assert_eq!((&header[14..18], header[20]), (&frame[14..18], 44));
                (header[54..62].to_vec(), data)
            })
            .collect();
        // Offset and the flag that more follow share two bytes.
        let expected = [(1, 54..102), (48 | 1, 102..150), (96, 150..154)];
        assert_eq!(found, expected.map(|(offset, data)| (vec![47, 0, 0, offset, 0xde, 0xad, 0xbe, 0xef], data)));
    }
}
