//! How long a tunnel packet to each child may be: as long as the link takes, or less where a router on the way says so
//! (RFC 1191, RFC 8201).
//!
//! ```text
//! ICMP error for one of our addresses ─► quotes a tunnel packet of ours to a child? ─► shorter? ─► kept 10 minutes
//! ```
//!
//! Who can guess our tunnels can forge such errors. What is believed must fit to what we send: our source, the child's
//! address and protocol, a packet no longer than we send there and longer than what is said to fit; and no MTU gets below
//! what every network carries. So a forger costs fragments and no more.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use zerocopy::FromBytes;

use super::compile::{Reach, Reachability};
use super::frames::checksum_v6;
use super::neighbours::Neighbours;
use super::rate_limit::RateLimit;
use crate::clock::Instant;
use crate::config::{Child, Config, TunnelKind};
use crate::forward::counters::Counter;
use crate::packet::checksum::checksum;
use crate::packet::icmp::{IcmpHeader, QUOTE_OFFSET, V4_FRAGMENTATION_NEEDED, V4_UNREACHABLE, V6_PACKET_TOO_BIG};
use crate::packet::parse::{Family, Fragment, Frame, Parsed, parse};
use crate::packet::{protocol, quote};
use crate::units::labelled;

/// How long a path MTU is kept, from when it was lowered (RFC 1191 section 6.3, RFC 8201 section 5.3).
const KEPT: Duration = Duration::from_secs(600);

/// Smallest path MTU that is believed, in bytes: what every IPv4 host takes (RFC 791 section 3.1), what every IPv6 link does
/// (RFC 8200 section 5).
const V4_MTU_MIN: u16 = 576;
const V6_MTU_MIN: u16 = 1280;

/// Errors a second that are looked at, and how many of them in one go.
const PER_SECOND: u32 = 100;
const AT_ONCE: u32 = 50;

/// MTUs that networks have, for routers that do not say theirs (RFC 1191 section 7.1).
const PLATEAUS: [u16; 9] = [32_000, 17_914, 8_166, 4_352, 2_002, 1_492, 1_006, 576, 508];

labelled! {
    /// What came of an error about a packet of ours that was too big.
    Outcome {
        /// The child's path MTU is lower now.
        Lowered => "lowered",
        /// It is about no packet that we have sent.
        Unfounded => "unfounded",
        /// It says no less than is known, or less than can be.
        NotLower => "not_lower",
        /// There have been too many.
        RateLimit => "rate_limit",
    }
}

/// Errors by what came of them, to be read by anyone.
#[derive(Debug, Default)]
pub struct PathMtuCounters([Counter; Outcome::ALL.len()]);

impl PathMtuCounters {
    /// Errors with this outcome.
    pub fn of(&self, outcome: Outcome) -> &Counter {
        &self.0[outcome as usize]
    }
}

/// The machine.
#[derive(Debug)]
pub struct PathMtus {
    /// By child's address: longest IP packet in bytes, and until when.
    learned: HashMap<IpAddr, (u16, Instant)>,
    limit: RateLimit,
    counters: Arc<PathMtuCounters>,
}

impl Default for PathMtus {
    fn default() -> PathMtus {
        PathMtus { learned: HashMap::new(), limit: RateLimit::new(PER_SECOND, AT_ONCE), counters: Arc::default() }
    }
}

/// What such an error says.
struct TooBig<'a> {
    family: Family,
    mtu: u32,
    quote: &'a [u8],
}

impl PathMtus {
    /// What came of errors.
    pub fn counters(&self) -> &Arc<PathMtuCounters> {
        &self.counters
    }

    /// Takes in a frame that is for one of our own addresses. True when a path MTU has changed. `reachability` tells how
    /// long packets to a child are without what has been learned.
    pub fn hear(&mut self, now: Instant, config: &Config, reachability: &impl Reachability, frame: &[u8]) -> bool {
        let Some(error) = too_big(frame) else { return false };
        let outcome =
            if self.limit.take(now) { self.take_in(now, config, reachability, &error) } else { Outcome::RateLimit };
        self.counters.of(outcome).add(1);
        outcome == Outcome::Lowered
    }

    fn take_in(
        &mut self,
        now: Instant,
        config: &Config,
        reachability: &impl Reachability,
        error: &TooBig<'_>,
    ) -> Outcome {
        let Some((address, quoted)) = quoted_child(config, error) else { return Outcome::Unfounded };
        let Some(Reach { mtu: known, .. }) = (Learned { reachability, path_mtus: self }).reach(address) else {
            return Outcome::Unfounded;
        };
        let said = match (error.family, error.mtu) {
            (Family::V4, 0) => {
                PLATEAUS.into_iter().find(|mtu| u32::from(*mtu) < quoted.l3_len).unwrap_or(V4_MTU_MIN).into()
            }
            (_, said) => said,
        };
        if quoted.l3_len > u32::from(known) || quoted.l3_len <= said {
            return Outcome::Unfounded;
        }
        let mtu = match error.family {
            Family::V4 => said.max(V4_MTU_MIN.into()),
            // RFC 8201 section 4: never less than every link takes.
            Family::V6 if said < V6_MTU_MIN.into() => return Outcome::NotLower,
            Family::V6 => said,
        };
        match u16::try_from(mtu) {
            Ok(mtu) if mtu < known => {
                self.learned.insert(address, (mtu, now + KEPT));
                Outcome::Lowered
            }
            _ => Outcome::NotLower,
        }
    }

    /// Forgets what is too old. True when there was such.
    pub fn tick(&mut self, now: Instant) -> bool {
        let before = self.learned.len();
        self.learned.retain(|_, (_, until)| *until > now);
        self.learned.len() != before
    }

    /// When the next one is too old.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.learned.values().map(|(_, until)| *until).min()
    }
}

/// Reachability with what has been learned about paths.
#[derive(Debug)]
pub struct Learned<'a, R> {
    /// Reachability by links.
    pub reachability: &'a R,
    /// What has been learned.
    pub path_mtus: &'a PathMtus,
}

impl<R: Reachability> Reachability for Learned<'_, R> {
    fn reach(&self, address: IpAddr) -> Option<Reach> {
        let reach = self.reachability.reach(address)?;
        let learned = self.path_mtus.learned.get(&address).map_or(u16::MAX, |(mtu, _)| *mtu);
        Some(Reach { mtu: reach.mtu.min(learned), ..reach })
    }

    fn neighbours(&self) -> Option<&Neighbours> {
        self.reachability.neighbours()
    }
}

/// Reads an error about a packet that was too big, whole and with the right checksum.
fn too_big(frame: &[u8]) -> Option<TooBig<'_>> {
    let Ok(Frame::Ip(parsed)) = parse(frame, frame.len()) else { return None };
    let Parsed { family, .. } = parsed;
    let end = usize::from(parsed.l3_offset) + parsed.l3_len as usize;
    let message = frame.get(usize::from(parsed.l4_offset)..end)?;
    let (header, _) = IcmpHeader::ref_from_prefix(message).ok()?;
    let sound = match (parsed.source(frame), parsed.destination(frame)) {
        (IpAddr::V4(_), IpAddr::V4(_)) if parsed.protocol == protocol::ICMP => {
            (header.kind, header.code) == (V4_UNREACHABLE, V4_FRAGMENTATION_NEEDED) && checksum(message) == 0
        }
        (IpAddr::V6(from), IpAddr::V6(to)) if parsed.protocol == protocol::ICMPV6 => {
            header.kind == V6_PACKET_TOO_BIG && checksum_v6(from, to, message) == 0
        }
        _ => false,
    };
    let [.., a, b, c, d] = *message.first_chunk::<QUOTE_OFFSET>()?;
    // RFC 1191 section 4: in IPv4 the upper half is unused.
    let mtu = u32::from_be_bytes(if family == Family::V4 { [0, 0, c, d] } else { [a, b, c, d] });
    let whole = parsed.fragment == Fragment::None;
    (sound && whole).then_some(TooBig { family, mtu, quote: &message[QUOTE_OFFSET..] })
}

/// The child to which the quoted packet was a tunnel packet of ours.
fn quoted_child(config: &Config, error: &TooBig<'_>) -> Option<(IpAddr, Parsed)> {
    let quoted = quote::read(error.family, error.quote)?;
    let (source, destination) = (quoted.source(error.quote), quoted.destination(error.quote));
    let router = &config.router;
    let ours = match source {
        IpAddr::V4(source) => {
            router.tunnel_v4 == Some(source) || router.tunnel_source_v4.is_some_and(|net| net.contains(&source))
        }
        IpAddr::V6(source) => {
            router.tunnel_v6 == Some(source) || router.tunnel_source_v6.is_some_and(|net| net.contains(&source))
        }
    };
    let carries = |child: &&Child| child.address == destination && is_tunnel_to(child, &quoted);
    (ours && config.children.iter().any(|child| carries(&child))).then_some((destination, quoted))
}

/// Whether a packet to a child is one of its tunnel's kind.
fn is_tunnel_to(child: &Child, packet: &Parsed) -> bool {
    match child.tunnel {
        TunnelKind::IpIp => matches!(packet.protocol, protocol::IPV4 | protocol::IPV6),
        TunnelKind::Gue { port, .. } => packet.protocol == protocol::UDP && packet.dst_port() == port,
        TunnelKind::Gre => packet.protocol == protocol::GRE,
        // Without an IP header of their own no error is for us.
        TunnelKind::Mpls { .. } | TunnelKind::Mac => false,
    }
}
