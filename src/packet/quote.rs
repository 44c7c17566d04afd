//! Which packet an ICMP error is about, told by the little of it that the error quotes (RFC 792, RFC 4443 section 3).
//!
//! A quote is cut off somewhere, so that its own lengths lie, and its checksum may be that of another hop: nothing is read
//! but what names the flow.

use std::net::IpAddr;

use zerocopy::FromBytes;

use super::icmp::IcmpHeader;
use super::ipv4::{Ipv4Header, MORE_FRAGMENTS};
use super::ipv6::{ExtensionHeader, FragmentHeader, Ipv6Header, is_extension};
use super::parse::{EXTENSIONS_MAX, Family, Fragment, Parsed};
use super::protocol;

/// Reads what an ICMP error quotes: the start of a packet of `family`, from its IP header on. Offsets are from there, and
/// the length is what the quoted header claims.
///
/// `None` where it is of another family, where it is cut off before its ports (protocols that have none need nothing behind
/// the IP header), or where it is an ICMP error itself, about which none is sent (RFC 1122 section 3.2.2, RFC 4443 section
/// 2.4(e)). A later fragment shows no ports.
pub fn read(family: Family, quote: &[u8]) -> Option<Parsed> {
    let (l4, len, protocol, fragment) = match family {
        Family::V4 => {
            let (header, options, _) = Ipv4Header::split(quote)?;
            let id = u32::from(header.identification.get());
            let fragment = fragment(id, header.fragment_offset(), header.flags_fragment.get() & MORE_FRAGMENTS != 0);
            let l4 = Ipv4Header::LEN + options.len();
            (header.version() == 4).then_some((l4, header.total_length.get().into(), header.protocol, fragment))?
        }
        Family::V6 => {
            let (header, _) = Ipv6Header::ref_from_prefix(quote).ok()?;
            let (l4, protocol, fragment) = behind_extensions(quote, header.next_header)?;
            let len = Ipv6Header::LEN as u32 + u32::from(header.payload_length.get());
            (header.version() == 6).then_some((l4, len, protocol, fragment))?
        }
    };
    let ports = match fragment {
        Fragment::Later { .. } => [0; 4],
        _ => ports(family, protocol, quote.get(l4..)?)?,
    };
    Some(Parsed {
        l3_offset: 0,
        l4_offset: u16::try_from(l4).ok()?,
        l3_len: len,
        family,
        protocol,
        tcp_flags: 0,
        ports,
        fragment,
        traffic_class: 0,
        dont_fragment: false,
    })
}

/// The sender of a quoted packet: `None` where the quote is too short.
pub fn source(quote: &[u8]) -> Option<IpAddr> {
    match quote.first()? >> 4 {
        4 => Some(Ipv4Header::ref_from_prefix(quote).ok()?.0.source().into()),
        6 => Some(Ipv6Header::ref_from_prefix(quote).ok()?.0.source().into()),
        _ => None,
    }
}

fn fragment(id: u32, offset: usize, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::None,
        (0, true) => Fragment::First { id },
        _ => Fragment::Later { id },
    }
}

/// Where the transport header of an IPv6 packet starts, whose first next-header number is `kind`, its own number, and which
/// fragment this is.
fn behind_extensions(packet: &[u8], mut kind: u8) -> Option<(usize, u8, Fragment)> {
    let mut at = Ipv6Header::LEN;
    let mut found = Fragment::None;
    for _ in 0..=EXTENSIONS_MAX {
        if !is_extension(kind) {
            return Some((at, kind, found));
        }
        let (header, _) = ExtensionHeader::ref_from_prefix(packet.get(at..)?).ok()?;
        let behind = at + header.header_len(kind);
        if kind == protocol::FRAGMENT {
            let (header, _) = FragmentHeader::ref_from_prefix(packet.get(at..)?).ok()?;
            found = fragment(header.identification.get(), header.fragment_offset(), header.more_fragments());
            if matches!(found, Fragment::Later { .. }) {
                return Some((behind, header.next_header, found));
            }
        }
        (at, kind) = (behind, header.next_header);
    }
    None
}

fn ports(family: Family, protocol: u8, transport: &[u8]) -> Option<[u8; 4]> {
    match (protocol, family) {
        (protocol::TCP | protocol::UDP | protocol::SCTP | protocol::DCCP | protocol::UDP_LITE, _) => {
            transport.first_chunk().copied()
        }
        (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => {
            let (header, _) = IcmpHeader::ref_from_prefix(transport).ok()?;
            (!header.is_error(family)).then_some([0; 4])
        }
        _ => Some([0; 4]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 header with 4 bytes of options, and what follows.
    fn v4(protocol: u8, flags_fragment: u16, rest: &[u8]) -> Vec<u8> {
        let [high, low] = flags_fragment.to_be_bytes();
        let header =
            [0x46, 0, 5, 220, 0, 77, high, low, 1, protocol, 0xba, 0xad, 192, 0, 2, 1, 10, 0, 0, 9, 0, 0, 0, 0];
        [&header, rest].concat()
    }

    /// An IPv6 header and what follows.
    fn v6(next_header: u8, rest: &[u8]) -> Vec<u8> {
        [&[0x60, 0, 0, 0, 5, 180, next_header, 1][..], &[1; 16], &[2; 16], rest].concat()
    }

    #[test]
    fn a_flow_is_read_from_as_little_as_there_must_be() {
        let ports = [0, 80, 16, 146];
        let behind_options = |kind| v6(60, &[&[kind, 0, 0, 0, 0, 0, 0, 0], &ports[..]].concat());
        let fragment = |low, kind| v6(44, &[&[kind, 0, 0, low, 0, 0, 0, 77], &ports[..]].concat());
        use Fragment::{First, Later, None as Whole};
        // What is quoted; protocol, ports, where the transport header starts, which fragment.
        let table = [
            (v4(6, 0x4000, &ports), Some((6, (80, 4242), 24, Whole))),
            (v4(17, 0, &ports), Some((17, (80, 4242), 24, Whole))),
            (v4(132, 0, &ports), Some((132, (80, 4242), 24, Whole))),
            (v4(17, 0x2000, &ports), Some((17, (80, 4242), 24, First { id: 77 }))),
            (v4(17, 0x2001, &[]), Some((17, (0, 0), 24, Later { id: 77 }))),
            (v4(47, 0, &[]), Some((47, (0, 0), 24, Whole))),
            (v4(1, 0, &[0, 0, 0, 0]), Some((1, (0, 0), 24, Whole))),
            (v4(1, 0, &[3, 4, 0, 0]), None),
            (v4(1, 0, &[0, 0, 0]), None),
            (v4(6, 0, &ports[..3]), None),
            (v4(6, 0, &ports)[..23].to_vec(), None),
            (v6(6, &ports), Some((6, (80, 4242), 40, Whole))),
            (v6(17, &ports[..3]), None),
            (v6(58, &[129, 0, 0, 0]), Some((58, (0, 0), 40, Whole))),
            (v6(58, &[1, 0, 0, 0]), None),
            (behind_options(17), Some((17, (80, 4242), 48, Whole))),
            (fragment(1, 17), Some((17, (80, 4242), 48, First { id: 77 }))),
            (fragment(8, 17), Some((17, (0, 0), 48, Later { id: 77 }))),
            (v6(60, &[17, 1, 0, 0, 0, 0, 0, 0]), None),
            (v6(60, &[]), None),
        ];
        for (quote, expected) in table {
            let family = if quote[0] >> 4 == 4 { Family::V4 } else { Family::V6 };
            let found = read(family, &quote);
            let short = found.map(|parsed| {
                (parsed.protocol, (parsed.src_port(), parsed.dst_port()), parsed.l4_offset, parsed.fragment)
            });
            assert_eq!(short, expected, "{quote:02x?}");
            assert!(found.is_none_or(|parsed| parsed.l3_len == 1500));
            let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
            assert_eq!(read(other, &quote), None, "of another family: {quote:02x?}");
        }
    }

    #[test]
    fn nothing_that_is_quoted_makes_it_stumble() {
        let whole = v6(60, &[&[44, 0, 0, 0, 0, 0, 0, 0][..], &[6, 0, 0, 1, 0, 0, 0, 7], &[0, 80, 0, 81]].concat());
        for len in 0..=whole.len() {
            let read = read(Family::V6, &whole[..len]);
            assert_eq!(read.is_some(), len == whole.len(), "{len} bytes");
            assert_eq!(source(&whole[..len]).is_some(), len >= 40);
        }
    }
}
