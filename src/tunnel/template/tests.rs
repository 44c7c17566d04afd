//! The bytes of each kind's header, written out from the RFCs.

use super::*;
use crate::packet::buffer::OwnedBuffer;
use crate::packet::checksum::checksum;
use crate::packet::parse::parse_ip;

const V4: Endpoints = Endpoints::V4 {
    source: Ipv4Addr::new(198, 51, 100, 1),
    spread_bits: 0,
    destination: Ipv4Addr::new(203, 0, 113, 4),
};
const V6: Endpoints = Endpoints::V6 {
    source: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1),
    spread_bits: 0,
    destination: Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 6),
};
const LINK: Link = Link { source: MacAddr([2, 0, 0, 0, 0, 1]), destination: MacAddr([2, 0, 0, 0, 0, 2]), vlan: None };
const LINK_HEADER: &str = "02 00 00 00 00 02  02 00 00 00 00 01 ";

/// Flow label 0xabcde, source port 49152 + 0x1234.
const PER: PerPacket = PerPacket { flow_hash: 0xabcd_e012_3400_0000, ttl: 63, identification: 0x0102 };

/// A packet with no payload; DSCP EF and ECT(0); may be fragmented if it is IPv4.
fn inner(family: Family) -> Vec<u8> {
    match family {
        Family::V4 => {
            let mut ip = vec![0x45, 0xba, 0, 20, 0x12, 0x34, 0, 0, 57, 255, 0, 0, 10, 0, 0, 9, 192, 0, 2, 4];
            let sum = checksum(&ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            ip
        }
        Family::V6 => [&[0x6b, 0xa0, 0, 0, 0, 0, 59, 57][..], &[0x20; 32]].concat(),
    }
}

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("two digits")).collect()
}

/// What `template` makes of a packet.
fn carried(template: &Template, ip: &[u8]) -> Result<Vec<u8>, EncapsulateError> {
    let parsed = parse_ip(ip, ip.len()).expect("a packet");
    let mut buffer = OwnedBuffer::new(ip);
    template.encapsulate(&mut buffer, &parsed, PER).map(|()| buffer.head().to_vec())
}

type Make = fn(Link, u16) -> Template;

/// A name, the template, the bytes it adds to the packet, and what stands before an inner IPv4 and an inner IPv6 packet.
const KINDS: &[(&str, Make, usize, &str, &str)] = &[
    (
        "ipip over IPv4",
        |link, mtu| Template::ip_in_ip(V4, link, mtu),
        20,
        "08 00  45 ba 00 28 01 02 00 00 3f 04 13 dd c6 33 64 01 cb 00 71 04",
        "08 00  45 ba 00 3c 00 00 40 00 3f 29 d4 a5 c6 33 64 01 cb 00 71 04",
    ),
    (
        "ipip over IPv6",
        |link, mtu| Template::ip_in_ip(V6, link, mtu),
        40,
        "86 dd  6b aa bc de 00 14 04 3f 20 01 0d b8 00 01 00 00 00 00 00 00 00 00 00 01 \
                20 01 0d b8 00 02 00 00 00 00 00 00 00 00 00 06",
        "86 dd  6b aa bc de 00 28 29 3f 20 01 0d b8 00 01 00 00 00 00 00 00 00 00 00 01 \
                20 01 0d b8 00 02 00 00 00 00 00 00 00 00 00 06",
    ),
    (
        "gue over IPv4",
        |link, mtu| Template::gue(V4, 6080, GueVariant::Header, link, mtu),
        32,
        "08 00  45 ba 00 34 01 02 00 00 3f 11 13 c4 c6 33 64 01 cb 00 71 04  d2 34 17 c0 00 20 00 00  00 04 00 00",
        "08 00  45 ba 00 48 00 00 40 00 3f 11 d4 b1 c6 33 64 01 cb 00 71 04  d2 34 17 c0 00 34 00 00  00 29 00 00",
    ),
    (
        "gue over IPv6, another port",
        |link, mtu| Template::gue(V6, 6666, GueVariant::Header, link, mtu),
        52,
        "86 dd  6b aa bc de 00 20 11 3f 20 01 0d b8 00 01 00 00 00 00 00 00 00 00 00 01 \
                20 01 0d b8 00 02 00 00 00 00 00 00 00 00 00 06  d2 34 1a 0a 00 20 00 00  00 04 00 00",
        "86 dd  6b aa bc de 00 34 11 3f 20 01 0d b8 00 01 00 00 00 00 00 00 00 00 00 01 \
                20 01 0d b8 00 02 00 00 00 00 00 00 00 00 00 06  d2 34 1a 0a 00 34 00 00  00 29 00 00",
    ),
    (
        "gue, direct, over IPv4",
        |link, mtu| Template::gue(V4, 6080, GueVariant::Direct, link, mtu),
        28,
        "08 00  45 ba 00 30 01 02 00 00 3f 11 13 c8 c6 33 64 01 cb 00 71 04  d2 34 17 c0 00 1c 00 00",
        "08 00  45 ba 00 44 00 00 40 00 3f 11 d4 b5 c6 33 64 01 cb 00 71 04  d2 34 17 c0 00 30 00 00",
    ),
    (
        "gue, direct, over IPv6",
        |link, mtu| Template::gue(V6, 6080, GueVariant::Direct, link, mtu),
        48,
        "86 dd  6b aa bc de 00 1c 11 3f 20 01 0d b8 00 01 00 00 00 00 00 00 00 00 00 01 \
                20 01 0d b8 00 02 00 00 00 00 00 00 00 00 00 06  d2 34 17 c0 00 1c 00 00",
        "86 dd  6b aa bc de 00 30 11 3f 20 01 0d b8 00 01 00 00 00 00 00 00 00 00 00 01 \
                20 01 0d b8 00 02 00 00 00 00 00 00 00 00 00 06  d2 34 17 c0 00 30 00 00",
    ),
    (
        "gre over IPv4",
        |link, mtu| Template::gre(V4, link, mtu),
        24,
        "08 00  45 ba 00 2c 01 02 00 00 3f 2f 13 ae c6 33 64 01 cb 00 71 04  00 00 08 00",
        "08 00  45 ba 00 40 00 00 40 00 3f 2f d4 9b c6 33 64 01 cb 00 71 04  00 00 86 dd",
    ),
    (
        "gre over IPv6",
        |link, mtu| Template::gre(V6, link, mtu),
        44,
        "86 dd  6b aa bc de 00 18 2f 3f 20 01 0d b8 00 01 00 00 00 00 00 00 00 00 00 01 \
                20 01 0d b8 00 02 00 00 00 00 00 00 00 00 00 06  00 00 08 00",
        "86 dd  6b aa bc de 00 2c 2f 3f 20 01 0d b8 00 01 00 00 00 00 00 00 00 00 00 01 \
                20 01 0d b8 00 02 00 00 00 00 00 00 00 00 00 06  00 00 86 dd",
    ),
    // Label 1000 is 0x3e8; class 5 of DSCP 46, bottom of the stack.
    ("mpls", |link, mtu| Template::mpls(1000, link, mtu), 4, "88 47  00 3e 8b 3f", "88 47  00 3e 8b 3f"),
    (
        "mpls, highest label",
        |link, mtu| Template::mpls(0xfffff, link, mtu),
        4,
        "88 47 ff ff fb 3f",
        "88 47 ff ff fb 3f",
    ),
    ("mac", Template::mac, 0, "08 00", "86 dd"),
];

#[test]
fn headers_are_byte_for_byte_what_the_rfcs_say() {
    for (name, make, overhead, before_v4, before_v6) in KINDS {
        for (family, before) in [(Family::V4, before_v4), (Family::V6, before_v6)] {
            let ip = inner(family);
            let tagged = Link { vlan: Some(0x123), ..LINK };
            for (link, tag) in [(LINK, ""), (tagged, "81 00 01 23 ")] {
                let template = make(link, 1500);
                assert_eq!(template.overhead(), *overhead, "{name}");
                let expected = [hex(&[LINK_HEADER, tag, before].concat()), ip.clone()].concat();
                let got = carried(&template, &ip).expect("room");
                assert_eq!(got, expected, "{name}, {family:?} inside: {got:02x?}, not {expected:02x?}");
                let l3 = template.l3_offset as usize;
                assert!(!before.starts_with("08 00  ") || checksum(&got[l3..l3 + 20]) == 0, "{name}: checksum");
            }
        }
    }
}

#[test]
fn the_longest_packet_is_the_links_less_what_the_tunnel_adds() {
    for (name, make, overhead, ..) in KINDS {
        for family in [Family::V4, Family::V6] {
            let ip = inner(family);
            let fits = (ip.len() + overhead) as u16;
            assert_eq!(usize::from(make(LINK, fits).packet_max()), ip.len(), "{name}");
            assert!(carried(&make(LINK, fits), &ip).is_ok(), "{name}, {family:?} inside");
            assert_eq!(carried(&make(LINK, fits - 1), &ip), Err(EncapsulateError::TooBig), "{name}, {family:?} inside");
        }
    }
}

#[test]
fn a_packet_gets_its_header_wherever_in_its_buffer_it_starts() {
    for (name, make, ..) in KINDS {
        let (template, ip) = (make(LINK, 1500), inner(Family::V4));
        let expected = carried(&template, &ip).expect("room");
        // More and less in front than the header takes, and padding behind.
        for front in [0, 1, 14, 22, 54, 74, 120] {
            let mut parsed = parse_ip(&ip, ip.len()).expect("a packet");
            parsed.l3_offset = front;
            let mut buffer = OwnedBuffer::new(&[&vec![0xee; usize::from(front)], &ip[..], &[0xee; 9]].concat());
            template.encapsulate(&mut buffer, &parsed, PER).expect("room");
            assert_eq!(buffer.head(), expected, "{name}, {front} bytes in front");
        }
    }
}

#[test]
fn without_room_in_front_nothing_is_written() {
    for (name, make, ..) in KINDS {
        let ip = inner(Family::V4);
        let parsed = parse_ip(&ip, ip.len()).expect("a packet");
        let mut buffer = OwnedBuffer::new(&ip);
        buffer.prepend(OwnedBuffer::HEADROOM - 13).expect("headroom");
        let mut behind = parsed;
        behind.l3_offset = 0;
        let before = buffer.clone();
        let result = make(LINK, 65535).encapsulate(&mut buffer, &behind, PER);
        // Its bytes are no packet now, but they count for none.
        assert_eq!((result, buffer.headroom()), (Err(EncapsulateError::NoHeadroom), before.headroom()), "{name}");
    }
}

#[test]
fn a_label_shows_the_class_and_a_clear_one_the_rest() {
    let template = Template::mpls(16, LINK, 1500);
    for (tos, third) in [(0x00, 0x01), (0x1f, 0x01), (0x20, 0x03), (0xff, 0x0f)] {
        let ip = [&[0x60 | tos >> 4, tos << 4, 0, 0, 0, 0, 59, 9][..], &[0; 32]].concat();
        let frame = carried(&template, &ip).expect("room");
        assert_eq!(frame[14..18], [0, 1, third, 63], "traffic class {tos:#x}");
    }
}
