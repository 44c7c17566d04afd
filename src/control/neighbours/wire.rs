//! What a punted frame says to a neighbour, and the frames that are said back: ARP, neighbour discovery, echo.

use std::net::{IpAddr, Ipv6Addr};

use zerocopy::{FromBytes, IntoBytes};

use crate::control::frames::{checksum_v6, frame, ipv4_header, ipv6_header};
use crate::packet::arp::ArpPacket;
use crate::packet::checksum::checksum;
use crate::packet::ethernet::{self, EthernetHeader, VlanTag};
use crate::packet::icmp::{IcmpHeader, V4_ECHO_REPLY, V4_ECHO_REQUEST, V6_ECHO_REPLY, V6_ECHO_REQUEST};
use crate::packet::ipv4::Ipv4Header;
use crate::packet::ipv6::Ipv6Header;
use crate::packet::ndp::{self, NeighbourHeader, NeighbourMessage};
use crate::packet::parse::{Fragment, Frame, Parsed, parse};
use crate::packet::protocol;
use crate::tunnel::ecn;
use crate::tunnel::template::{Link, TTL};
use crate::units::MacAddr;

/// A frame that concerns the slow path.
#[derive(Debug)]
pub struct Received<'a> {
    /// Link-layer sender.
    pub from: MacAddr,
    /// Link-layer receiver; may be a group.
    pub to: MacAddr,
    /// What it says.
    pub message: Message<'a>,
}

/// What it says.
#[derive(Debug)]
pub enum Message<'a> {
    /// ARP for IPv4 over Ethernet.
    Arp(&'a ArpPacket),
    /// Somebody asks for an IPv6 address.
    Solicitation {
        /// Who; unspecified when it looks for duplicates of an address that it wants (RFC 4862 section 5.4.2).
        source: Ipv6Addr,
        /// For which address.
        target: Ipv6Addr,
        /// The asker's link-layer address.
        mac: Option<MacAddr>,
    },
    /// Somebody tells where an IPv6 address is.
    Advertisement {
        /// Which address.
        target: Ipv6Addr,
        /// Its link-layer address.
        mac: Option<MacAddr>,
        /// It answers a solicitation.
        solicited: bool,
        /// It replaces what is known.
        overrides: bool,
    },
    /// An echo request.
    Echo(Echo<'a>),
}

/// An echo request of either family.
#[derive(Debug)]
pub struct Echo<'a> {
    /// Who asks.
    pub source: IpAddr,
    /// Who is asked.
    pub destination: IpAddr,
    /// DSCP and ECN.
    dscp_ecn: u8,
    /// Identifier, sequence number and data.
    data: &'a [u8],
}

/// Reads a frame that came by a link with this VLAN tag; `None` where it is none of these, not sound, or of another VLAN.
pub fn read(frame: &[u8], vlan: Option<u16>) -> Option<Received<'_>> {
    let (header, _) = EthernetHeader::ref_from_prefix(frame).ok()?;
    let l3 = payload_of(frame, vlan)?;
    let message = match parse(frame, frame.len()).ok()? {
        Frame::Arp => Message::Arp(ArpPacket::parse(frame.get(l3..)?)?),
        Frame::Ip(parsed) if parsed.fragment == Fragment::None => read_icmp(frame, &parsed)?,
        Frame::Ip(_) => return None,
    };
    Some(Received { from: header.source, to: header.destination, message })
}

/// Where the payload of a frame starts; `None` of one with another VLAN tag than this.
pub fn payload_of(frame: &[u8], vlan: Option<u16>) -> Option<usize> {
    let (_, rest) = EthernetHeader::ref_from_prefix(frame).ok()?;
    let (_, l3) = ethernet::payload(frame).ok()?;
    let tag = if l3 > EthernetHeader::LEN { VlanTag::ref_from_prefix(rest).ok() } else { None };
    let tags = (l3 - EthernetHeader::LEN) / VlanTag::LEN;
    // VLAN 0 is none: such a tag carries a priority only (IEEE 802.1Q-2018 clause 6.8).
    let ours = tags <= 1 && tag.map_or(0, |(tag, _)| tag.vlan()) == vlan.unwrap_or(0);
    ours.then_some(l3)
}

fn read_icmp<'a>(frame: &'a [u8], parsed: &Parsed) -> Option<Message<'a>> {
    let l3 = usize::from(parsed.l3_offset);
    let ip = frame.get(l3..l3 + parsed.l3_len as usize)?;
    let icmp = ip.get(usize::from(parsed.l4_offset) - l3..)?;
    let (header, data) = IcmpHeader::ref_from_prefix(icmp).ok()?;
    let (source, destination) = (parsed.source(frame), parsed.destination(frame));
    match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) if parsed.protocol == protocol::ICMP => {
            let dscp_ecn = Ipv4Header::ref_from_prefix(ip).ok()?.0.dscp_ecn;
            let request = header.kind == V4_ECHO_REQUEST && header.code == 0 && checksum(icmp) == 0;
            request.then_some(Message::Echo(Echo { source, destination, dscp_ecn, data }))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) if parsed.protocol == protocol::ICMPV6 => {
            let outer = Ipv6Header::ref_from_prefix(ip).ok()?.0;
            if checksum_v6(from, to, icmp) != 0 {
                return None;
            }
            if header.kind == V6_ECHO_REQUEST {
                let dscp_ecn = outer.dscp_ecn();
                return (header.code == 0).then_some(Message::Echo(Echo { source, destination, dscp_ecn, data }));
            }
            if outer.hop_limit != ndp::HOP_LIMIT {
                return None;
            }
            read_neighbour(from, to, icmp)
        }
        _ => None,
    }
}

fn read_neighbour<'a>(source: Ipv6Addr, destination: Ipv6Addr, icmp: &[u8]) -> Option<Message<'a>> {
    let (header, mac) = NeighbourHeader::parse(icmp)?;
    let target = header.target();
    if header.kind == ndp::SOLICITATION {
        // RFC 4861 section 7.1.1: who has no address yet asks the group, and is not to be remembered.
        let nameless = source.is_unspecified();
        let sound = !nameless || (destination == ndp::solicited_node(target) && mac.is_none());
        return sound.then_some(Message::Solicitation { source, target, mac });
    }
    let solicited = header.has(ndp::SOLICITED);
    let sound = !(solicited && destination.is_multicast());
    sound.then_some(Message::Advertisement { target, mac, solicited, overrides: header.has(ndp::OVERRIDE) })
}

/// An ARP packet as a frame.
pub fn arp(link: Link, packet: &ArpPacket) -> Vec<u8> {
    frame(link, ethernet::ARP, &[packet.as_bytes()])
}

/// A solicitation or advertisement as a frame.
pub fn neighbour(link: Link, source: Ipv6Addr, destination: Ipv6Addr, message: NeighbourMessage) -> Vec<u8> {
    let mut icmp = message.as_bytes().to_vec();
    let sum = checksum_v6(source, destination, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = ipv6_header(source, destination, 0, ndp::HOP_LIMIT, icmp.len());
    frame(link, ethernet::IPV6, &[header.as_bytes(), &icmp])
}

/// The answer to an echo request (RFC 792; RFC 4443 section 4.2), without the options or extension headers that it had.
pub fn echo_reply(link: Link, echo: &Echo<'_>) -> Vec<u8> {
    // The sender's service class comes back to it (RFC 1122 section 3.2.2.6), its marks of congestion do not.
    let class = echo.dscp_ecn & !ecn::MASK;
    let icmp = |kind| [&[kind, 0, 0, 0], echo.data].concat();
    match (echo.destination, echo.source) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut icmp = icmp(V4_ECHO_REPLY);
            let sum = checksum(&icmp);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            let header = ipv4_header(source, destination, class, icmp.len());
            frame(link, ethernet::IPV4, &[header.as_bytes(), &icmp])
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut icmp = icmp(V6_ECHO_REPLY);
            let sum = checksum_v6(source, destination, &icmp);
            icmp[2..4].copy_from_slice(&sum.to_be_bytes());
            let header = ipv6_header(source, destination, class, TTL, icmp.len());
            frame(link, ethernet::IPV6, &[header.as_bytes(), &icmp])
        }
        // A packet has one family.
        _ => Vec::new(),
    }
}
