//! Whose a flow is that is not known here: other workers know, or other routers, or its server, by way of the client.
//!
//! ```text
//! packet in the middle ──► other workers ──► peers (WHOHAS) ──► nobody: on_unknown
//!                               │ known           │ known
//!                               └──────► Install ◄┴──── recovery echo of the server
//! ```
//!
//! - [`ask`]: the machine that asks, holds the first packets meanwhile, and answers peers.
//! - [`whohas`]: the datagrams between routers.
//! - [`echo`]: what a server sends through its client.
//! - [`mirror`]: how a router knows the flows of the one that it takes over from.
//! - [`reset`]: how a client is told that its connection is over.

pub mod ask;
pub mod echo;
pub mod events;
pub mod mirror;
pub mod reset;
pub mod whohas;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::config::{GueVariant, TunnelKind};
use crate::forward::inspect::Key;
use crate::packet::parse::Parsed;

/// A flow by its 5-tuple, whatever a virtual host takes for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    /// Client.
    pub source: SocketAddr,
    /// Virtual host; of the client's family.
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
}

impl FlowId {
    /// The flow of the packet that was parsed from `head`.
    pub fn of(head: &[u8], parsed: &Parsed) -> FlowId {
        FlowId {
            source: SocketAddr::new(parsed.source(head), parsed.src_port()),
            destination: SocketAddr::new(parsed.destination(head), parsed.dst_port()),
            protocol: parsed.protocol,
        }
    }

    /// Its key in a worker's table, where the virtual host's flows are 5-tuples; `None` where the families differ.
    pub fn key(&self) -> Option<Key> {
        Key::between(self.source, self.destination, self.protocol)
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}, protocol {}", self.source, self.destination, self.protocol)
    }
}

/// The 16 bytes of an address in datagrams and echoes: IPv4 as `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2).
fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The address in 16 bytes.
fn address_of(bytes: [u8; 16]) -> IpAddr {
    IpAddr::from(bytes).to_canonical()
}

/// Kind, UDP port and MPLS label of a tunnel in datagrams; what it has not is 0.
fn tunnel_numbers(tunnel: TunnelKind) -> (u8, u16, u32) {
    match tunnel {
        TunnelKind::IpIp => (1, 0, 0),
        TunnelKind::Gue { port, variant: GueVariant::Header } => (2, port, 0),
        TunnelKind::Gue { port, variant: GueVariant::Direct } => (3, port, 0),
        TunnelKind::Gre => (4, 0, 0),
        TunnelKind::Mpls { label } => (5, 0, label),
        TunnelKind::Mac => (6, 0, 0),
    }
}

/// The tunnel of these numbers.
fn tunnel_of(kind: u8, port: u16, label: u32) -> Option<TunnelKind> {
    Some(match kind {
        1 => TunnelKind::IpIp,
        2 => TunnelKind::Gue { port, variant: GueVariant::Header },
        3 => TunnelKind::Gue { port, variant: GueVariant::Direct },
        4 => TunnelKind::Gre,
        5 => TunnelKind::Mpls { label },
        6 => TunnelKind::Mac,
        _ => return None,
    })
}
