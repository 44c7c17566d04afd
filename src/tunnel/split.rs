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
