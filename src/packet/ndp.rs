//! Who has which IPv6 address on a link: neighbour solicitations and advertisements (RFC 4861).

use std::net::Ipv6Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::units::MacAddr;

/// ICMPv6 type of a neighbour solicitation (RFC 4861 section 4.3).
pub const SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement (RFC 4861 section 4.4).
pub const ADVERTISEMENT: u8 = 136;
/// Hop limit of every such packet: none has come through a router (RFC 4861 section 3.1).
pub const HOP_LIMIT: u8 = 255;
/// All nodes on the link (RFC 4291 section 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Flag of an advertisement: the sender is a router (RFC 4861 section 4.4).
pub const ROUTER: u32 = 1 << 31;
/// Flag of an advertisement: it answers a solicitation (RFC 4861 section 4.4).
pub const SOLICITED: u32 = 1 << 30;
/// Flag of an advertisement: it replaces what is known (RFC 4861 section 4.4).
pub const OVERRIDE: u32 = 1 << 29;

/// Option: link-layer address of the sender (RFC 4861 section 4.6.1).
const SOURCE_LINK_LAYER: u8 = 1;
/// Option: link-layer address of the target (RFC 4861 section 4.6.1).
const TARGET_LINK_LAYER: u8 = 2;

/// A solicitation or advertisement with one option, the sender's Ethernet address, as this router sends them.
///
/// Written to the wire with [`IntoBytes::as_bytes`]; the checksum is left to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NeighbourMessage {
    header: NeighbourHeader,
    option_kind: u8,
    option_len: u8,
    option_mac: MacAddr,
}

/// How solicitations and advertisements start (RFC 4861 sections 4.3 and 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NeighbourHeader {
    /// [`SOLICITATION`] or [`ADVERTISEMENT`].
    pub kind: u8,
    /// Zero.
    pub code: u8,
    /// Checksum over message and pseudo-header (RFC 4443 section 2.3).
    pub checksum: U16,
    /// [`ROUTER`], [`SOLICITED`], [`OVERRIDE`]; zero in a solicitation.
    pub flags: U32,
    target: [u8; 16],
}

impl NeighbourMessage {
    /// Bytes of the message.
    pub const LEN: usize = size_of::<Self>();

    /// Asks who has `target`; `sender` is the asker's Ethernet address.
    pub fn solicitation(target: Ipv6Addr, sender: MacAddr) -> NeighbourMessage {
        Self::new(SOLICITATION, 0, target, SOURCE_LINK_LAYER, sender)
    }

    /// Says that `target` is at `owner`.
    pub fn advertisement(target: Ipv6Addr, owner: MacAddr, flags: u32) -> NeighbourMessage {
        Self::new(ADVERTISEMENT, flags, target, TARGET_LINK_LAYER, owner)
    }

    fn new(kind: u8, flags: u32, target: Ipv6Addr, option_kind: u8, option_mac: MacAddr) -> NeighbourMessage {
        let header =
            NeighbourHeader { kind, code: 0, checksum: U16::ZERO, flags: U32::new(flags), target: target.octets() };
        // The option's length counts units of 8 bytes.
        NeighbourMessage { header, option_kind, option_len: 1, option_mac }
    }
}

impl NeighbourHeader {
    /// Bytes before the options.
    pub const LEN: usize = size_of::<Self>();

    /// The address that is asked for or advertised.
    pub fn target(&self) -> Ipv6Addr {
        self.target.into()
    }

    /// Whether the message is an advertisement with this flag.
    pub fn has(&self, flag: u32) -> bool {
        self.kind == ADVERTISEMENT && self.flags.get() & flag != 0
    }

    /// The header of `message`, an ICMPv6 message with everything behind it, and the Ethernet address in the option that
    /// belongs to its type, where there is one.
    ///
    /// `None` where RFC 4861 sections 7.1.1 and 7.1.2 have it discarded for what the message itself says; its checksum and
    /// its IPv6 header are the caller's to check.
    pub fn parse(message: &[u8]) -> Option<(&NeighbourHeader, Option<MacAddr>)> {
        let (header, mut options) = NeighbourHeader::ref_from_prefix(message).ok()?;
        let wanted = match header.kind {
            SOLICITATION => SOURCE_LINK_LAYER,
            ADVERTISEMENT => TARGET_LINK_LAYER,
            _ => return None,
        };
        if header.code != 0 || header.target().is_multicast() {
            return None;
        }
        let mut mac = None;
        while let [kind, units, ..] = *options {
            // "All included options have a length that is greater than zero."
            let (option, rest) = options.split_at_checked(usize::from(units) * 8).filter(|_| units > 0)?;
            // Ethernet addresses take exactly one unit (RFC 2464 section 6).
            if let (true, [_, 1, octets @ ..]) = (kind == wanted, option) {
                mac = octets.try_into().ok().map(MacAddr);
            }
            options = rest;
        }
        options.is_empty().then_some((header, mac))
    }
}

/// The group that everyone joins who has `address` (RFC 4291 section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The Ethernet address of an IPv6 group (RFC 2464 section 7).
pub fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn target() -> Ipv6Addr {
        "2001:db8::12:3456".parse().expect("an address")
    }

    #[test]
    fn messages_are_laid_out_as_rfc_4861_says_and_read_back() {
        let target = target();
        for (message, start, option) in [
            (NeighbourMessage::solicitation(target, MAC), [135, 0, 0, 0, 0, 0, 0, 0], 1),
            (NeighbourMessage::advertisement(target, MAC, SOLICITED | OVERRIDE), [136, 0, 0, 0, 0x60, 0, 0, 0], 2),
        ] {
            let expected = [&start[..], &target.octets(), &[option, 1], &MAC.0].concat();
            assert_eq!(message.as_bytes(), expected);
            let (header, mac) = NeighbourHeader::parse(&expected).expect("a message");
            assert_eq!((header.target(), mac, header.has(OVERRIDE)), (target, Some(MAC), start[0] == 136));
            assert_eq!(NeighbourHeader::parse(&expected[..24]).expect("a message").1, None, "no option is fine");
        }
    }

    #[test]
    fn messages_that_rfc_4861_has_discarded() {
        let good = NeighbourMessage::advertisement(target(), MAC, 0).as_bytes().to_vec();
        for (name, at, value) in
            [("code", 1, 1), ("type", 0, 137), ("group", 8, 0xff), ("empty option", 25, 0), ("long option", 25, 2)]
        {
            let mut wrong = good.clone();
            wrong[at] = value;
            assert!(NeighbourHeader::parse(&wrong).is_none(), "{name}");
        }
        assert!(NeighbourHeader::parse(&good[..23]).is_none(), "cut in the target");
        assert!(NeighbourHeader::parse(&good[..31]).is_none(), "cut in the option");
        assert!(NeighbourHeader::parse(&[&good[..], &[5]].concat()).is_none(), "half an option behind");
        let mut other = good.clone();
        other[24] = 1;
        assert_eq!(NeighbourHeader::parse(&other).expect("a message").1, None, "an option of the other type");
    }

    #[test]
    fn groups_of_an_address() {
        let group = solicited_node(target());
        assert_eq!(group, "ff02::1:ff12:3456".parse::<Ipv6Addr>().expect("an address"));
        assert_eq!(group_mac(group), MacAddr([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]));
    }
}
