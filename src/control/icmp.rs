//! Which senders are told that their packet could not be carried, and what: errors of ICMP (RFC 792, RFC 1812) and ICMPv6
//! (RFC 4443).
//!
//! ```text
//! punted packet ──► may it be answered? ──► have we an address there? ──► not too many? ──► frame
//!                        │ no                    │ no                        │ no
//!                        └───────────────────────┴───────────────────────────┴──► counted as suppressed
//! ```
//!
//! An error goes back to the link-layer address that the packet came from; about a packet out of a tunnel it goes by route
//! to the client. Packets that are too big have a limit of their own, so that no flood of others keeps a sender from
//! learning its path MTU.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use zerocopy::{FromBytes, IntoBytes};

use super::compile::{Configured, Reach, Reachability};
use super::frames;
use super::neighbours::is_host;
use super::rate_limit::RateLimit;
use crate::clock::Instant;
use crate::forward::counters::Counter;
use crate::packet::checksum::checksum;
use crate::packet::ethernet::{self, EthernetHeader};
use crate::packet::icmp::{
    IcmpHeader, V4_FRAGMENTATION_NEEDED, V4_TIME_EXCEEDED, V4_UNREACHABLE, V6_PACKET_TOO_BIG, V6_REDIRECT,
    V6_TIME_EXCEEDED, V6_UNREACHABLE,
};
use crate::packet::parse::{Family, Fragment, Frame, Parsed, parse, parse_ip};
use crate::packet::protocol;
use crate::tunnel::template::{Link, TTL};
use crate::units::{PortIndex, labelled};

/// Errors a second about packets that are too big, and about all others; and how many of them in one go.
const PER_SECOND: u32 = 1000;
const AT_ONCE: u32 = 100;

/// Longest ICMP error, IP header included, in bytes (RFC 1812 section 4.3.2.3).
const V4_LEN_MAX: usize = 576;
/// Longest ICMPv6 error, IPv6 header included, in bytes (RFC 4443 section 2.4(c)).
const V6_LEN_MAX: usize = 1280;
/// What comes before the quoted packet: IP header, ICMP header.
const V4_HEADERS: usize = 20 + 8;
const V6_HEADERS: usize = 40 + 8;

/// Smallest MTU that is told (RFC 791 section 3.2; RFC 8200 section 5).
const V4_MTU_MIN: u16 = 68;
const V6_MTU_MIN: u16 = 1280;

/// Service class of ICMP errors, CS6: internetwork control (RFC 1812 section 4.3.2.5, RFC 4594 section 3.2).
const DSCP_ECN: u8 = 0xc0;

/// A copy may be cut; what is not there is not read.
const LEN_UNKNOWN: usize = 1 << 17;

labelled! {
    /// What a sender is told.
    Kind {
        /// Its packet is too big for its path, and how big one may be.
        TooBig => "too_big",
        /// Its packet's TTL or hop limit has come to its end.
        TimeExceeded => "time_exceeded",
        /// There is no route to that destination.
        NetUnreachable => "net_unreachable",
        /// That destination does not answer on its link.
        HostUnreachable => "host_unreachable",
        /// It may not be reached from there.
        Prohibited => "prohibited",
        /// Nobody listens there.
        PortUnreachable => "port_unreachable",
    }
}

impl Kind {
    /// ICMP type and code (RFC 792, RFC 1812 section 5.2.7.1).
    fn v4(self) -> (u8, u8) {
        match self {
            Kind::TooBig => (V4_UNREACHABLE, V4_FRAGMENTATION_NEEDED),
            Kind::TimeExceeded => (V4_TIME_EXCEEDED, 0),
            Kind::NetUnreachable => (V4_UNREACHABLE, 0),
            Kind::HostUnreachable => (V4_UNREACHABLE, 1),
            Kind::Prohibited => (V4_UNREACHABLE, 13),
            Kind::PortUnreachable => (V4_UNREACHABLE, 3),
        }
    }

    /// ICMPv6 type and code (RFC 4443 section 3).
    fn v6(self) -> (u8, u8) {
        match self {
            Kind::TooBig => (V6_PACKET_TOO_BIG, 0),
            Kind::TimeExceeded => (V6_TIME_EXCEEDED, 0),
            Kind::NetUnreachable => (V6_UNREACHABLE, 0),
            Kind::HostUnreachable => (V6_UNREACHABLE, 3),
            Kind::Prohibited => (V6_UNREACHABLE, 1),
            Kind::PortUnreachable => (V6_UNREACHABLE, 4),
        }
    }
}

labelled! {
    /// Why a sender is told nothing.
    Suppressed {
        /// About such a packet no error is sent (RFC 1122 section 3.2.2, RFC 1812 section 4.3.2.7, RFC 4443 section 2.4(e)).
        NotAllowed => "not_allowed",
        /// We have no address of that family.
        NoAddress => "no_address",
        /// There is no way back to the sender.
        NoWayBack => "no_way_back",
        /// It was too big for a way that is not there any more.
        WayGone => "way_gone",
        /// There have been too many (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4(f)).
        RateLimit => "rate_limit",
    }
}

/// Errors sent by kind, and suppressed ones by reason; to be read by anyone.
#[derive(Debug, Default)]
pub struct IcmpCounters {
    sent: [Counter; Kind::ALL.len()],
    suppressed: [Counter; Suppressed::ALL.len()],
}

impl IcmpCounters {
    /// Errors of this kind that were sent.
    pub fn sent(&self, kind: Kind) -> &Counter {
        &self.sent[kind as usize]
    }

    /// Errors that were not sent for this reason.
    pub fn suppressed(&self, why: Suppressed) -> &Counter {
        &self.suppressed[why as usize]
    }
}

/// A packet that could not be carried.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// What its sender is to be told.
    pub kind: Kind,
    /// With [`Kind::TooBig`]: the longest packet that fits, in bytes; `None`: as long as the link towards its destination
    /// takes.
    pub mtu: Option<u16>,
    /// Port that it came in by.
    pub port: PortIndex,
    /// It came out of a tunnel: `bytes` start with the IP header, else with the Ethernet header.
    pub bare: bool,
    /// The packet, perhaps cut.
    pub bytes: &'a [u8],
}

/// The machine.
#[derive(Debug)]
pub struct Icmp {
    too_big: RateLimit,
    others: RateLimit,
    counters: Arc<IcmpCounters>,
}

impl Default for Icmp {
    fn default() -> Icmp {
        let limit = RateLimit::new(PER_SECOND, AT_ONCE);
        Icmp { too_big: limit, others: limit, counters: Arc::default() }
    }
}

impl Icmp {
    /// What has been sent and suppressed.
    pub fn counters(&self) -> &Arc<IcmpCounters> {
        &self.counters
    }

    /// The error about a packet as a frame, and the port that it leaves by; `None` where its sender is told nothing.
    pub fn handle(
        &mut self,
        now: Instant,
        here: &Configured<'_>,
        failure: Failure<'_>,
    ) -> Option<(PortIndex, Vec<u8>)> {
        match self.answer(now, here, failure) {
            Ok(answer) => {
                self.counters.sent(failure.kind).add(1);
                Some(answer)
            }
            Err(why) => {
                self.counters.suppressed(why).add(1);
                None
            }
        }
    }

    fn answer(
        &mut self,
        now: Instant,
        here: &Configured<'_>,
        failure: Failure<'_>,
    ) -> Result<(PortIndex, Vec<u8>), Suppressed> {
        let Failure { kind, mtu, port, bare, bytes } = failure;
        let parsed = read(bytes, bare).ok_or(Suppressed::NotAllowed)?;
        let sender = parsed.source(bytes);
        if !may_be_answered(bytes, bare, &parsed) || here.neighbours.is_own(sender) {
            return Err(Suppressed::NotAllowed);
        }
        let source = own_address(here, port, sender).ok_or(Suppressed::NoAddress)?;
        let mtu = match kind {
            Kind::TooBig => mtu.or_else(|| here.reach(parsed.destination(bytes)).map(|reach| reach.mtu)),
            _ => Some(0),
        };
        let mtu = mtu.ok_or(Suppressed::WayGone)?;
        let (port, link) = way_back(here, port, bare, bytes, sender).ok_or(Suppressed::NoWayBack)?;
        let limit = if kind == Kind::TooBig { &mut self.too_big } else { &mut self.others };
        if !limit.take(now) {
            return Err(Suppressed::RateLimit);
        }
        let l3 = usize::from(parsed.l3_offset);
        let packet = &bytes[l3..bytes.len().min(l3 + parsed.l3_len as usize)];
        let frame = match (source, sender) {
            (IpAddr::V4(source), IpAddr::V4(sender)) => error_v4(link, source, sender, (kind, mtu), packet),
            (IpAddr::V6(source), IpAddr::V6(sender)) => error_v6(link, source, sender, (kind, mtu), packet),
            _ => return Err(Suppressed::NoAddress),
        };
        Ok((port, frame))
    }
}

/// Reads a punted packet again.
pub(super) fn read(bytes: &[u8], bare: bool) -> Option<Parsed> {
    if bare {
        return parse_ip(bytes, LEN_UNKNOWN).ok();
    }
    match parse(bytes, LEN_UNKNOWN) {
        Ok(Frame::Ip(parsed)) => Some(parsed),
        _ => None,
    }
}

fn may_be_answered(bytes: &[u8], bare: bool, parsed: &Parsed) -> bool {
    let to_group = !bare && bytes.first().is_none_or(|octet| octet & 1 == 1);
    let later = matches!(parsed.fragment, Fragment::Later { .. });
    let source = parsed.source(bytes);
    let destination = parsed.destination(bytes);
    let one_host = is_host(source) && !matches!(source, IpAddr::V4(source) if source.octets()[0] >= 240);
    let one_receiver = !destination.is_multicast() && destination != IpAddr::V4(Ipv4Addr::BROADCAST);
    !to_group && !later && one_host && one_receiver && !is_error(bytes, parsed)
}

/// Whether it is an ICMP error, or an ICMPv6 redirect.
fn is_error(bytes: &[u8], parsed: &Parsed) -> bool {
    let icmp =
        matches!((parsed.family, parsed.protocol), (Family::V4, protocol::ICMP) | (Family::V6, protocol::ICMPV6));
    let header = bytes.get(usize::from(parsed.l4_offset)..).and_then(|rest| IcmpHeader::ref_from_prefix(rest).ok());
    icmp && header.is_none_or(|(header, _)| {
        header.is_error(parsed.family) || (parsed.family == Family::V6 && header.kind == V6_REDIRECT)
    })
}

/// Our address that the error comes from: one on the link that the packet came in by, best in the sender's subnet; else a
/// tunnel address.
fn own_address(here: &Configured<'_>, port: PortIndex, sender: IpAddr) -> Option<IpAddr> {
    let router = &here.config.router;
    let on_port = here.config.ports.get(port.index()).map(|port| port.addresses.as_slice()).unwrap_or_default();
    let near = on_port.iter().find(|net| net.contains(&sender));
    let any = || on_port.iter().find(|net| net.addr().is_ipv4() == sender.is_ipv4());
    near.or_else(any).map(|net| net.addr()).or_else(|| match sender {
        IpAddr::V4(_) => router.tunnel_v4.map(IpAddr::from),
        IpAddr::V6(_) => router.tunnel_v6.map(IpAddr::from),
    })
}

/// The link by which a packet has come, back to who sent it; out of a tunnel, the way to its sender.
pub(super) fn way_back(
    here: &Configured<'_>,
    port: PortIndex,
    bare: bool,
    bytes: &[u8],
    sender: IpAddr,
) -> Option<(PortIndex, Link)> {
    if bare {
        return here.reach(sender).map(|Reach { port, link, .. }| (port, link));
    }
    let (header, _) = EthernetHeader::ref_from_prefix(bytes).ok()?;
    Some((port, here.neighbours.link_back(port, header.source)?))
}

fn error_v4(link: Link, source: Ipv4Addr, destination: Ipv4Addr, (kind, mtu): (Kind, u16), packet: &[u8]) -> Vec<u8> {
    let (icmp_type, code) = kind.v4();
    // RFC 1191 section 4: the upper half of these four bytes is unused.
    let rest = if kind == Kind::TooBig { u32::from(mtu.max(V4_MTU_MIN)) } else { 0 };
    let quoted = &packet[..packet.len().min(V4_LEN_MAX - V4_HEADERS)];
    let mut icmp = [&[icmp_type, code, 0, 0], rest.to_be_bytes().as_slice(), quoted].concat();
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = frames::ipv4_header(source, destination, DSCP_ECN, icmp.len());
    frames::frame(link, ethernet::IPV4, &[header.as_bytes(), &icmp])
}

fn error_v6(link: Link, source: Ipv6Addr, destination: Ipv6Addr, (kind, mtu): (Kind, u16), packet: &[u8]) -> Vec<u8> {
    let (icmp_type, code) = kind.v6();
    let rest = if kind == Kind::TooBig { u32::from(mtu.max(V6_MTU_MIN)) } else { 0 };
    let quoted = &packet[..packet.len().min(V6_LEN_MAX - V6_HEADERS)];
    let mut icmp = [&[icmp_type, code, 0, 0], rest.to_be_bytes().as_slice(), quoted].concat();
    let sum = frames::checksum_v6(source, destination, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = frames::ipv6_header(source, destination, DSCP_ECN, TTL, icmp.len());
    frames::frame(link, ethernet::IPV6, &[header.as_bytes(), &icmp])
}
