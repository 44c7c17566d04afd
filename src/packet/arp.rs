//! Who has which IPv4 address on a link: ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ethernet;
use crate::units::MacAddr;

/// Hardware type of Ethernet (RFC 826, "Definitions").
const ETHERNET: u16 = 1;
/// Operation code of a request (RFC 826, "Definitions").
pub const REQUEST: u16 = 1;
/// Operation code of a reply (RFC 826, "Definitions").
pub const REPLY: u16 = 2;

/// An ARP packet for IPv4 over Ethernet (RFC 826, "Packet format"; the comments give its abbreviations).
///
/// Written to the wire with [`IntoBytes::as_bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ArpPacket {
    /// `ar$hrd`: kind of hardware address.
    hardware_type: U16,
    /// `ar$pro`: kind of protocol address, an EtherType.
    protocol_type: U16,
    /// `ar$hln`: bytes of a hardware address.
    hardware_len: u8,
    /// `ar$pln`: bytes of a protocol address.
    protocol_len: u8,
    /// `ar$op`: [`REQUEST`] or [`REPLY`].
    pub operation: U16,
    /// `ar$sha`: the sender's hardware address.
    pub sender_mac: MacAddr,
    /// `ar$spa`: the sender's IPv4 address.
    sender_ip: [u8; 4],
    /// `ar$tha`: the target's hardware address; without meaning in a request.
    pub target_mac: MacAddr,
    /// `ar$tpa`: the target's IPv4 address.
    target_ip: [u8; 4],
}

impl ArpPacket {
    /// Bytes of the packet.
    pub const LEN: usize = size_of::<Self>();

    /// The packet at the start of `payload` (what follows the EtherType; Ethernet padding behind it is ignored).
    ///
    /// `None` when it is cut off or not about IPv4 over Ethernet.
    pub fn parse(payload: &[u8]) -> Option<&ArpPacket> {
        let (packet, _) = ArpPacket::ref_from_prefix(payload).ok()?;
        let ours = packet.hardware_type == ETHERNET
            && packet.protocol_type == ethernet::IPV4
            && packet.hardware_len == 6
            && packet.protocol_len == 4;
        ours.then_some(packet)
    }

    /// Asks who has `target_ip`. With `sender_ip` the same it announces it (RFC 5227 section 3).
    pub fn request(sender_mac: MacAddr, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> ArpPacket {
        Self::new(REQUEST, (sender_mac, sender_ip), (MacAddr::default(), target_ip))
    }

    /// Answers this request: its target address is at `mac`.
    pub fn reply(&self, mac: MacAddr) -> ArpPacket {
        Self::new(REPLY, (mac, self.target_ip()), (self.sender_mac, self.sender_ip()))
    }

    /// The sender's IPv4 address.
    pub fn sender_ip(&self) -> Ipv4Addr {
        self.sender_ip.into()
    }

    /// The target's IPv4 address.
    pub fn target_ip(&self) -> Ipv4Addr {
        self.target_ip.into()
    }

    fn new(operation: u16, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> ArpPacket {
        ArpPacket {
            hardware_type: U16::new(ETHERNET),
            protocol_type: U16::new(ethernet::IPV4),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(operation),
            sender_mac: sender.0,
            sender_ip: sender.1.octets(),
            target_mac: target.0,
            target_ip: target.1.octets(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OWNER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    #[test]
    fn a_request_is_laid_out_as_rfc_826_says_and_read_back_through_padding() {
        let request = ArpPacket::request(ASKER, Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 9));
        let expected = [
            0, 1, 8, 0, 6, 4, 0, 1, // Ethernet, IPv4, lengths, request
            2, 0, 0, 0, 0, 1, 192, 0, 2, 1, // sender
            0, 0, 0, 0, 0, 0, 192, 0, 2, 9, // target
        ];
        assert_eq!(request.as_bytes(), expected);
        assert_eq!(ArpPacket::parse(&[&expected[..], &[0; 18]].concat()), Some(&request));
    }

    #[test]
    fn a_reply_goes_back_to_the_asker_and_names_the_owner() {
        let request = ArpPacket::request(ASKER, Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 9));
        let reply = request.reply(OWNER);
        assert_eq!(reply.operation, REPLY);
        assert_eq!((reply.sender_mac, reply.sender_ip()), (OWNER, Ipv4Addr::new(192, 0, 2, 9)));
        assert_eq!((reply.target_mac, reply.target_ip()), (ASKER, Ipv4Addr::new(192, 0, 2, 1)));
    }

    #[test]
    fn other_hardware_other_protocols_and_cut_packets_are_refused() {
        let good = ArpPacket::request(ASKER, Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST);
        let good = good.as_bytes();
        for (name, at, value) in
            [("hardware", 1, 6), ("protocol", 2, 0x86), ("hardware length", 4, 8), ("length", 5, 16)]
        {
            let mut wrong = good.to_vec();
            wrong[at] = value;
            assert_eq!(ArpPacket::parse(&wrong), None, "{name}");
        }
        assert_eq!(ArpPacket::parse(&good[..ArpPacket::LEN - 1]), None, "cut");
    }
}
