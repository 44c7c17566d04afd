//! What a tunnel's header takes from the packet that it is put in front of.

use crate::packet::ipv4::DONT_FRAGMENT;
use crate::packet::parse::{Family, Parsed};
use crate::packet::plain::Plain;
use crate::packet::{ethernet, protocol};

/// What a header takes from the packet in front of which it is put, in words of an IPv4 header in host order: as they come
/// from one IPv4 header they go into the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Where the IP header starts, in bytes from the start of the frame.
    pub l3_offset: u16,
    /// Flags and fragment offset, of which DF counts.
    pub flags: u16,
    /// Version and header length of a header without options, class, and length in bytes.
    pub first: u32,
    /// Outer TTL, and the protocol number of the packet as one within a packet.
    pub third: u32,
}

impl Inner {
    /// Of no packet.
    pub const NONE: Inner = Inner { l3_offset: 0, flags: 0, first: 0, third: 0 };

    /// That of a packet of no more than 65,535 bytes. `ttl` is the outer one to come.
    #[inline(always)]
    pub fn of(packet: &Parsed, ttl: u8) -> Inner {
        Inner::of_plain(&Plain::of(*packet), ttl)
    }

    /// The same.
    #[inline(always)]
    pub fn of_plain(packet: &Plain, ttl: u8) -> Inner {
        let Plain { parsed, first, flags } = packet;
        let third = third(ttl, protocol_of(parsed.family));
        Inner { l3_offset: parsed.l3_offset, flags: *flags, first: *first, third }
    }

    /// Bytes of the IP packet.
    #[inline(always)]
    pub fn bytes(&self) -> u32 {
        self.first & 0xffff
    }

    /// DSCP and ECN.
    #[inline(always)]
    pub fn class(&self) -> u8 {
        (self.first >> 16) as u8
    }

    /// Whether a router may not fragment it.
    #[inline(always)]
    pub fn dont_fragment(&self) -> bool {
        self.flags & DONT_FRAGMENT != 0
    }

    /// Version of IP.
    #[inline(always)]
    pub fn family(&self) -> Family {
        if self.protocol() == protocol::IPV6 { Family::V6 } else { Family::V4 }
    }

    /// Outer TTL.
    #[inline(always)]
    pub fn ttl(&self) -> u8 {
        (self.third >> 24) as u8
    }

    #[inline(always)]
    pub(super) fn protocol(&self) -> u8 {
        (self.third >> 16) as u8
    }

    #[inline(always)]
    pub(super) fn ethertype(&self) -> u16 {
        match self.family() {
            Family::V4 => ethernet::IPV4,
            Family::V6 => ethernet::IPV6,
        }
    }
}

/// The third word of an IPv4 header without its checksum.
#[inline(always)]
pub(super) fn third(ttl: u8, protocol: u8) -> u32 {
    u32::from_be_bytes([ttl, protocol, 0, 0])
}

/// The IP protocol number of a packet within a packet.
#[inline(always)]
fn protocol_of(family: Family) -> u8 {
    match family {
        Family::V4 => protocol::IPV4,
        Family::V6 => protocol::IPV6,
    }
}
