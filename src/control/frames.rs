//! How a message of the slow path becomes a frame: IP header, link-layer header, padding.

use std::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::IntoBytes;
use zerocopy::network_endian::{U16, U32};

use crate::packet::checksum::pseudo_v6;
use crate::packet::ethernet::{self, EthernetHeader, VlanTag};
use crate::packet::ipv4::{DONT_FRAGMENT, Ipv4Header};
use crate::packet::ipv6::Ipv6Header;
use crate::packet::protocol;
use crate::tunnel::template::{Link, TTL};

/// Shortest frame without its checksum, in bytes (IEEE 802.3-2018 clause 4A.4.2).
const FRAME_LEN_MIN: usize = 60;

/// The checksum of an ICMPv6 message, or zero where it has its own and that is right (RFC 4443 section 2.3).
pub fn checksum_v6(source: Ipv6Addr, destination: Ipv6Addr, icmp: &[u8]) -> u16 {
    let sum = pseudo_v6(&source.octets(), &destination.octets(), protocol::ICMPV6, icmp.len() as u32);
    sum.add_bytes(icmp).finish()
}

/// The header of an ICMP message of `payload` bytes.
pub fn ipv4_header(source: Ipv4Addr, destination: Ipv4Addr, dscp_ecn: u8, payload: usize) -> Ipv4Header {
    let mut header = Ipv4Header {
        version_ihl: Ipv4Header::VERSION_IHL,
        dscp_ecn,
        total_length: U16::new((Ipv4Header::LEN + payload) as u16),
        identification: U16::ZERO,
        flags_fragment: U16::new(DONT_FRAGMENT),
        ttl: TTL,
        protocol: protocol::ICMP,
        checksum: U16::ZERO,
        source: source.octets(),
        destination: destination.octets(),
    };
    header.fill_checksum();
    header
}

/// The header of an ICMPv6 message of `payload` bytes.
pub fn ipv6_header(source: Ipv6Addr, destination: Ipv6Addr, class: u8, hop_limit: u8, payload: usize) -> Ipv6Header {
    Ipv6Header {
        version_class_flow: U32::new(6 << 28 | u32::from(class) << 20),
        payload_length: U16::new(payload as u16),
        next_header: protocol::ICMPV6,
        hop_limit,
        source: source.octets(),
        destination: destination.octets(),
    }
}

/// A frame of these parts, as long as it must be.
pub fn frame(link: Link, ethertype: u16, payload: &[&[u8]]) -> Vec<u8> {
    let Link { source, destination, vlan } = link;
    let first = if vlan.is_some() { ethernet::CUSTOMER_TAG } else { ethertype };
    let header = EthernetHeader { destination, source, ethertype: U16::new(first) };
    let mut bytes = header.as_bytes().to_vec();
    if let Some(vlan) = vlan {
        let tag = VlanTag { control: U16::new(vlan), ethertype: U16::new(ethertype) };
        bytes.extend_from_slice(tag.as_bytes());
    }
    payload.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.resize(bytes.len().max(FRAME_LEN_MIN), 0);
    bytes
}
