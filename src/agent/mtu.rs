//! What fits into a tunnel, and what services must announce so that clients send no more.
//!
//! ```text
//! MTU of the interface that tunnels come in by
//! │ outer IP header: 20 or 40 │ shim: 0 to 12 │ inner packet: IP header, TCP header, at most the MSS │
//! ```

use std::net::IpAddr;

use crate::config::host::{HostConfig, Tunnels};

/// Longest packet of the Internet's links, in bytes.
const USUAL: u32 = 1500;

/// What every link carries of IPv6 (RFC 8200 section 5), in bytes.
const LEAST: u32 = 1280;

/// IP and TCP headers without options, in bytes.
pub(super) const TCP_V4: u32 = 40;
pub(super) const TCP_V6: u32 = 60;

/// What fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// MTU of the interface, in bytes.
    pub mtu: u32,
    /// Header of the longest kind of tunnel that is taken, in bytes.
    pub overhead: u32,
}

impl Room {
    /// What fits where tunnels come in by interfaces of these MTUs.
    pub fn new(config: &HostConfig, mtus: impl IntoIterator<Item = u32>) -> Room {
        let mtu = mtus.into_iter().min().unwrap_or(USUAL);
        Room { mtu, overhead: overhead(&config.tunnels, &config.tunnel_addresses) }
    }

    /// Longest inner packet, in bytes.
    pub fn inner(self) -> u32 {
        self.mtu.saturating_sub(self.overhead)
    }

    /// The MSS to announce at most, over IPv4 and over IPv6; `None` where whatever fits the interface fits the tunnel.
    pub fn mss(self) -> Option<(u32, u32)> {
        let bounded = |headers| self.inner().saturating_sub(headers).max(536);
        (self.overhead > 0).then(|| (bounded(TCP_V4), bounded(TCP_V6)))
    }

    /// What is wrong with it, if anything.
    pub fn warning(self) -> Option<String> {
        let Room { mtu, overhead } = self;
        let (inner, wanted) = (self.inner(), USUAL + overhead);
        let advice = format!("set the MTU of the fabric to {wanted} or more");
        match inner {
            USUAL.. => None,
            LEAST..USUAL => Some(format!(
                "an MTU of {mtu} leaves {inner} bytes beside a tunnel's {overhead}: longer packets of clients need \
                 fragments or a smaller MSS, which services announce; {advice}"
            )),
            _ => Some(format!(
                "an MTU of {mtu} leaves {inner} bytes beside a tunnel's {overhead}, too few for IPv6, which wants {LEAST}; {advice}"
            )),
        }
    }
}

/// The longest header that a packet may come with, in bytes.
fn overhead(tunnels: &Tunnels, ends: &[IpAddr]) -> u32 {
    let outer = if ends.iter().any(IpAddr::is_ipv6) { 40 } else { 20 };
    let kinds = [
        (tunnels.ipip, outer),
        (tunnels.gue.is_some(), outer + 12),
        (tunnels.gre, outer + 4),
        (tunnels.mpls.is_some(), 4),
    ];
    kinds.into_iter().filter(|(taken, _)| *taken).map(|(_, length)| length).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "10.0.0.1";
    const V6: &str = "2001:db8::1";

    #[test]
    fn the_longest_header_counts() {
        let none = Tunnels::default();
        let ipip = Tunnels { ipip: true, ..none };
        for (tunnels, ends, length) in [
            (none, vec![V4], 0),
            (Tunnels { mac: true, ..none }, vec![V4, V6], 0),
            (Tunnels { mpls: Some(16), ..none }, vec![V6], 4),
            (ipip, vec![V4], 20),
            (ipip, vec![V4, V6], 40),
            (Tunnels { gre: true, ..ipip }, vec![V4], 24),
            (Tunnels { gre: true, gue: Some(6080), ..ipip }, vec![V6], 52),
        ] {
            let ends: Vec<IpAddr> = ends.iter().map(|end| end.parse().expect("an address")).collect();
            assert_eq!(overhead(&tunnels, &ends), length, "{tunnels}, {ends:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_announced_and_told() {
        // MTU and overhead; MSS over both families; a part of the warning.
        for (mtu, overhead, mss, warning) in [
            (1500, 0, None, None),
            (1600, 52, Some((1508, 1488)), None),
            (1552, 52, Some((1460, 1440)), None),
            (1500, 20, Some((1440, 1420)), Some("leaves 1480 bytes")),
            (1300, 40, Some((1220, 1200)), Some("too few for IPv6")),
            (100, 40, Some((536, 536)), Some("set the MTU of the fabric to 1540")),
        ] {
            let room = Room { mtu, overhead };
            assert_eq!(room.mss(), mss, "{room:?}");
            let said = room.warning();
            assert_eq!(said.is_some(), warning.is_some(), "{room:?}: {said:?}");
            assert!(said.unwrap_or_default().contains(warning.unwrap_or_default()), "{room:?}");
        }
    }
}
