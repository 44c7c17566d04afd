//! Which bytes of a datagram a fragment carries (RFC 791 section 3.2, RFC 8200 section 4.5).

use zerocopy::FromBytes;

use super::ipv4::{Ipv4Header, MORE_FRAGMENTS};
use super::ipv6::{ExtensionHeader, FragmentHeader, Ipv6Header, is_extension};
use super::parse::{EXTENSIONS_MAX, Family, Parsed};
use super::protocol;

/// A fragment's place in its datagram: bytes of the part that is fragmented, so without the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The first one.
    pub start: u16,
    /// The one behind the last one.
    pub end: u16,
    /// None follow.
    pub last: bool,
}

impl Piece {
    /// The place of the fragment that was parsed from `head`; `None` for what is no fragment.
    pub fn of(head: &[u8], parsed: &Parsed) -> Option<Piece> {
        let ip = head.get(usize::from(parsed.l3_offset)..)?;
        let (start, header_len, last) = match parsed.family {
            Family::V4 => {
                let (header, options, _) = Ipv4Header::split(ip)?;
                let last = header.flags_fragment.get() & MORE_FRAGMENTS == 0;
                (header.fragment_offset(), Ipv4Header::LEN + options.len(), last)
            }
            Family::V6 => {
                let at = fragment_header(ip)?;
                let (header, _) = FragmentHeader::ref_from_prefix(ip.get(at..)?).ok()?;
                (header.fragment_offset(), at + FragmentHeader::LEN, !header.more_fragments())
            }
        };
        let len = (parsed.l3_len as usize).checked_sub(header_len)?;
        let end = u16::try_from(start + len).ok()?;
        (start > 0 || !last).then_some(Piece { start: start as u16, end, last })
    }
}

/// Where the fragment header of an IPv6 packet is.
fn fragment_header(packet: &[u8]) -> Option<usize> {
    let mut kind = Ipv6Header::ref_from_prefix(packet).ok()?.0.next_header;
    let mut at = Ipv6Header::LEN;
    for _ in 0..EXTENSIONS_MAX {
        if kind == protocol::FRAGMENT {
            return Some(at);
        }
        let (header, _) = ExtensionHeader::ref_from_prefix(packet.get(at..)?).ok()?;
        if !is_extension(kind) {
            return None;
        }
        at += header.header_len(kind);
        kind = header.next_header;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum::checksum;
    use crate::packet::parse::parse_ip;

    fn place(ip: &[u8]) -> Option<(u16, u16, bool)> {
        let parsed = parse_ip(ip, ip.len()).expect("a sound packet");
        Piece::of(ip, &parsed).map(|Piece { start, end, last }| (start, end, last))
    }

    #[test]
    fn ipv4_fragments_stand_where_their_header_says() {
        for (flags_fragment, len, expected) in [
            (0x2000_u16, 16, Some((0, 16, false))),
            (0x2002, 8, Some((16, 24, false))),
            (0x0003, 5, Some((24, 29, true))),
            (0x4000, 8, None),
        ] {
            let mut ip =
                vec![0x46, 0, 0, 24 + len as u8, 0, 7, 0, 0, 9, 17, 0, 0, 10, 0, 0, 9, 192, 0, 2, 1, 1, 1, 1, 0];
            ip[6..8].copy_from_slice(&flags_fragment.to_be_bytes());
            let sum = checksum(&ip).to_be_bytes();
            ip[10..12].copy_from_slice(&sum);
            ip.extend([0, 80, 0, 80, 0, 8, 0, 0].iter().cycle().take(len));
            assert_eq!(place(&ip), expected, "{flags_fragment:#06x}");
        }
    }

    #[test]
    fn ipv6_fragments_stand_behind_their_header_whatever_is_around_it() {
        let options = |kind| [kind, 0, 1, 4, 0, 0, 0, 0];
        let udp = [0, 80, 0, 80, 0, 8, 0, 0];
        let fragment = |kind, offset_flags: u16| {
            let [high, low] = offset_flags.to_be_bytes();
            [kind, 0, high, low, 0, 0, 0, 7]
        };
        for (first, rest, expected) in [
            (44, [&fragment(17, 1)[..], &udp].concat(), Some((0, 8, false))),
            (44, [&fragment(60, 1)[..], &options(17), &udp].concat(), Some((0, 16, false))),
            (0, [&options(44)[..], &fragment(60, 1), &options(17), &udp].concat(), Some((0, 16, false))),
            (60, [&options(44)[..], &fragment(17, 1480), &udp[..3]].concat(), Some((1480, 1483, true))),
            (44, [&fragment(17, 0)[..], &udp].concat(), None),
            (17, udp.to_vec(), None),
        ] {
            let ip = [&[0x60, 0, 0, 0, 0, rest.len() as u8, first, 9][..], &[1; 32], &rest].concat();
            assert_eq!(place(&ip), expected, "{rest:02x?}");
        }
    }
}
