//! Where a frame's payload starts and what it is: Ethernet II with up to two VLAN tags.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::ParseError;
use crate::units::MacAddr;

/// EtherType of IPv4 (RFC 894).
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP (RFC 826, "Packet format").
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6 (RFC 2464 section 3).
pub const IPV6: u16 = 0x86dd;
/// Tag protocol identifier of a customer tag (IEEE 802.1Q-2018 table 9-1).
pub const CUSTOMER_TAG: u16 = 0x8100;
/// Tag protocol identifier of a service tag (IEEE 802.1ad, now IEEE 802.1Q-2018 table 9-1).
pub const SERVICE_TAG: u16 = 0x88a8;

/// VLAN tags that are read over at most.
pub const VLAN_TAGS_MAX: usize = 2;

/// An Ethernet II header (RFC 894; IEEE 802.3-2018 clause 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EthernetHeader {
    /// Receiver (IEEE 802.3-2018 clause 3.2.4).
    pub destination: MacAddr,
    /// Sender (IEEE 802.3-2018 clause 3.2.5).
    pub source: MacAddr,
    /// What follows: an EtherType, or a tag protocol identifier (IEEE 802.3-2018 clause 3.2.6).
    pub ethertype: U16,
}

impl EthernetHeader {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();
}

/// What follows the tag protocol identifier of a VLAN tag (IEEE 802.1Q-2018 clause 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VlanTag {
    /// Priority (3 bits), drop eligible (1 bit), VLAN (12 bits).
    pub control: U16,
    /// What follows the tag: an EtherType, or the identifier of the next tag.
    pub ethertype: U16,
}

impl VlanTag {
    /// Bytes that one tag adds to a frame.
    pub const LEN: usize = size_of::<Self>();

    /// The VLAN's number, 0 to 4095.
    pub fn vlan(&self) -> u16 {
        self.control.get() & 0x0fff
    }
}

/// The EtherType behind all tags, and where its payload starts in the frame.
#[inline]
pub fn payload(frame: &[u8]) -> Result<(u16, usize), ParseError> {
    let Ok((header, rest)) = EthernetHeader::ref_from_prefix(frame) else { return Err(ParseError::EthernetTruncated) };
    match header.ethertype.get() {
        CUSTOMER_TAG | SERVICE_TAG => tagged_payload(rest),
        ethertype => Ok((ethertype, EthernetHeader::LEN)),
    }
}

/// [`payload`] of a frame whose header announces a tag; `rest` is what follows the header.
fn tagged_payload(mut rest: &[u8]) -> Result<(u16, usize), ParseError> {
    for tags in 1..=VLAN_TAGS_MAX {
        let Ok((tag, behind)) = VlanTag::ref_from_prefix(rest) else { return Err(ParseError::EthernetTruncated) };
        match tag.ethertype.get() {
            CUSTOMER_TAG | SERVICE_TAG => rest = behind,
            ethertype => return Ok((ethertype, EthernetHeader::LEN + tags * VlanTag::LEN)),
        }
    }
    Err(ParseError::VlanTagsTooMany)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_start_behind_as_many_tags_as_there_are() {
        const Q: [u8; 4] = [0x81, 0x00, 0x20, 0x2a];
        const AD: [u8; 4] = [0x88, 0xa8, 0x00, 0x01];
        const IP: [u8; 2] = [0x08, 0x00];
        type Case = (&'static str, &'static [&'static [u8]], Result<(u16, usize), ParseError>);
        let cases: &[Case] = &[
            ("untagged", &[&IP], Ok((IPV4, 14))),
            ("802.1Q", &[&Q, &IP], Ok((IPV4, 18))),
            ("802.1ad with a customer tag inside", &[&AD, &Q, &[0x86, 0xdd]], Ok((IPV6, 22))),
            ("two customer tags", &[&Q, &Q, &[0x08, 0x06]], Ok((ARP, 22))),
            ("802.3 length is passed on as it is", &[&[0x00, 0x26]], Ok((0x26, 14))),
            ("three tags", &[&AD, &Q, &Q, &IP], Err(ParseError::VlanTagsTooMany)),
            ("cut in the type", &[&[0x08]], Err(ParseError::EthernetTruncated)),
            ("cut in the tag", &[&Q, &[0x08]], Err(ParseError::EthernetTruncated)),
            ("cut in the second tag", &[&AD, &Q], Err(ParseError::EthernetTruncated)),
        ];
        for (name, tail, expected) in cases {
            let frame = [&[0; 12][..], &tail.concat()].concat();
            assert_eq!(payload(&frame), *expected, "{name}");
        }
    }

    #[test]
    fn a_tag_shows_its_vlan_without_priority_and_drop_eligibility() {
        assert_eq!(VlanTag { control: U16::new(0xf02a), ethertype: U16::new(IPV4) }.vlan(), 42);
    }
}
