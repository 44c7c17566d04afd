//! What stands between the outer and the inner IP packet: GUE, GRE and MPLS, as they are written and as they are read.
//!
//! ```text
//! GUE, variant 0  │0 0│C│ Hlen │ protocol │          flags          │   behind UDP (draft-ietf-intarea-gue section 3.1)
//! GUE, variant 1  │0 1 ...: the first bits of an IP version           behind UDP (section 4)
//! GRE             │C│ ... │ver │ protocol type, an EtherType         │ (RFC 2784 section 2.1)
//! MPLS            │ label (20) │ class (3) │S│ TTL (8)               │ behind the EtherType (RFC 3032 section 2.1)
//! ```

use crate::packet::{ethernet, protocol};

/// UDP port of GUE (IANA).
pub const GUE_PORT: u16 = 6080;

/// Bytes of a GUE header without extension fields.
pub const GUE_LEN: usize = 4;

/// EtherType of MPLS, unicast (RFC 3032 section 5).
pub const MPLS: u16 = 0x8847;

/// Bottom of the label stack.
const BOTTOM: u32 = 1 << 8;

/// Flags of GRE that RFC 2784 section 2.3 has a receiver refuse (checksum: it may; the key and sequence number of RFC 2890
/// and the routing of RFC 1701), and the version, which is 0.
const GRE_UNKNOWN: u16 = 0b1111_1100_0000_0111;

/// The GUE header in front of a packet with this IP protocol number.
pub const fn gue(protocol: u8) -> [u8; GUE_LEN] {
    [0, protocol, 0, 0]
}

/// The GRE header in front of a packet with this EtherType.
pub const fn gre(ethertype: u16) -> [u8; 4] {
    let [high, low] = ethertype.to_be_bytes();
    [0, 0, high, low]
}

/// The bottom label of a stack, its class and TTL zero.
pub const fn label(label: u32) -> u32 {
    label << 12 | BOTTOM
}

/// The third byte's part of a label that tells the traffic class: the upper three bits of a DSCP.
pub const fn label_class(traffic_class: u8) -> u8 {
    traffic_class >> 5 << 1
}

/// The UDP source port of a flow: 14 bits of its hash, in the dynamic range (RFC 6335 section 6).
#[inline]
pub const fn source_port(flow_hash: u64) -> u16 {
    // Neither the bits that spread the source address nor those of the flow label.
    0xc000 | (flow_hash >> 24) as u16 & 0x3fff
}

/// What a shim says: the IP protocol number of the packet behind it, and where that starts.
pub type Inside = (u8, usize);

/// Reads what is behind UDP; `None` where it is cut off, has a version that nobody knows, or is not a packet of ours: a
/// control message, or with extension fields, of which we know none.
pub fn read_gue(bytes: &[u8]) -> Option<Inside> {
    match bytes {
        [0, protocol @ (protocol::IPV4 | protocol::IPV6), 0, 0, ..] => Some((*protocol, GUE_LEN)),
        [0x40..=0x4f, ..] => Some((protocol::IPV4, 0)),
        [0x60..=0x6f, ..] => Some((protocol::IPV6, 0)),
        _ => None,
    }
}

/// Reads a GRE header; `None` where it is cut off, has fields that we know nothing of, or carries something else than IP.
pub fn read_gre(bytes: &[u8]) -> Option<Inside> {
    let [f0, f1, p0, p1, ..] = *bytes else { return None };
    if u16::from_be_bytes([f0, f1]) & GRE_UNKNOWN != 0 {
        return None;
    }
    match u16::from_be_bytes([p0, p1]) {
        ethernet::IPV4 => Some((protocol::IPV4, 4)),
        ethernet::IPV6 => Some((protocol::IPV6, 4)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gue_is_read_as_far_as_it_is_ours() {
        let table: &[(&str, &[u8], Option<Inside>)] = &[
            ("IPv4", &[0, 4, 0, 0, 0x45], Some((4, 4))),
            ("IPv6", &[0, 41, 0, 0, 0x60], Some((41, 4))),
            ("direct IPv4", &[0x45, 0], Some((4, 0))),
            ("direct IPv4 with options", &[0x4f, 0], Some((4, 0))),
            ("direct IPv6", &[0x6b, 0x80], Some((41, 0))),
            ("direct, IP version 5", &[0x50, 0], None),
            ("direct, IP version 7", &[0x70, 0], None),
            ("variant 2", &[0x80, 4, 0, 0], None),
            ("variant 3", &[0xc0, 4, 0, 0], None),
            ("control", &[0x20, 4, 0, 0], None),
            ("private data", &[0x01, 4, 0, 0, 0, 0, 0, 0], None),
            ("flags", &[0x00, 4, 0x80, 0], None),
            ("last flag", &[0x00, 4, 0, 1], None),
            ("UDP inside", &[0, 17, 0, 0], None),
            ("nothing inside", &[0, 59, 0, 0], None),
            ("cut", &[0, 4, 0], None),
            ("nothing", &[], None),
        ];
        for (name, bytes, expected) in table {
            assert_eq!(read_gue(bytes), *expected, "{name}");
        }
    }

    #[test]
    fn gre_is_read_as_far_as_it_is_ours() {
        let table: &[(&str, &[u8], Option<Inside>)] = &[
            ("IPv4", &[0, 0, 8, 0], Some((4, 4))),
            ("IPv6", &[0, 0, 0x86, 0xdd], Some((41, 4))),
            ("bits that a receiver ignores", &[0x03, 0xf8, 8, 0], Some((4, 4))),
            ("checksum", &[0x80, 0, 8, 0], None),
            ("routing", &[0x40, 0, 8, 0], None),
            ("key", &[0x20, 0, 8, 0], None),
            ("sequence number", &[0x10, 0, 8, 0], None),
            ("strict source route", &[0x08, 0, 8, 0], None),
            ("recursion control", &[0x04, 0, 8, 0], None),
            ("version 1, of PPTP", &[0, 1, 8, 0], None),
            ("version 4", &[0, 4, 8, 0], None),
            ("Ethernet inside", &[0, 0, 0x65, 0x58], None),
            ("cut", &[0, 0, 8], None),
        ];
        for (name, bytes, expected) in table {
            assert_eq!(read_gre(bytes), *expected, "{name}");
        }
    }

    #[test]
    fn source_ports_are_dynamic_ones() {
        assert_eq!([source_port(0), source_port(u64::MAX), source_port(1 << 24)], [49152, 65535, 49153]);
    }
}
