//! How a flow stands in messages about shortcuts, where a child sends it, and how far it has come.

use std::net::IpAddr;
use std::time::Duration;

use super::bytes::{Reading, WireError, Writing};
use super::{TunnelEnd, family, millis};
use crate::config::{GueVariant, TunnelKind};
use crate::flow::key::{COARSE, KeyV4, KeyV6};
use crate::flow::state::FlowState;
use crate::forward::inspect::Key;

/// Where a child sends a flow.
///
/// ```text
///  0        1          2               3       4              6                   8        24            40
/// ┌────────┬──────────┬───────────────┬───────┬──────────────┬───────────────────┬────────┬─────────────┐
/// │ family │ protocol │ source prefix │ level │ source port  │ destination port  │ source │ destination │
/// ├────────┴──────────┴───────────────┴───────┴──────────────┴─────┬─────────────┴────────┴─────┬───────┘
/// │ tunnel: kind (1), family (1), port (2), address (16)           │ lifetime in ms             │
/// └────────────────────────────────────────────────────────────────┴────────────────────────────┘
///  40                                                               60                           64
/// ```
///
/// The source prefix is 0 for a flow of one 5-tuple; else all packets of the source's prefix of that length to the virtual
/// host are the flow, and what stands here is one of its 5-tuples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortcut {
    /// Addresses, protocol and ports of its first packet.
    pub flow: Key,
    /// Length of the source prefix that the flow is all of; 0 for a 5-tuple.
    pub source_prefix: u8,
    /// Level of the node where the tunnel ends; 0 is a host server.
    pub level: u8,
    /// Where its tunnel ends.
    pub end: TunnelEnd,
    /// For how long that may be believed.
    pub lifetime: Duration,
}

/// A flow that is still there: 40 bytes as in [`Shortcut`], with its state's number in the place of the level, and the time
/// since its last packet in ms (4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Addresses, protocol and ports of its first packet.
    pub flow: Key,
    /// How far it has come.
    pub state: FlowState,
    /// Time since its last packet.
    pub idle: Duration,
}

impl Shortcut {
    /// Bytes of one.
    pub const BYTES: usize = 64;

    pub(super) fn write(&self, body: &mut Writing) {
        write_flow(body, self.flow, self.source_prefix, self.level);
        body.tunnel(&self.end);
        body.u32(millis(self.lifetime));
    }

    pub(super) fn read(body: &mut Reading<'_>) -> Result<Shortcut, WireError> {
        let (flow, source_prefix, level) = read_flow(body)?;
        let end = body.tunnel()?;
        let lifetime = Duration::from_millis(body.u32()?.into());
        Ok(Shortcut { flow, source_prefix, level, end, lifetime })
    }
}

impl Kept {
    /// Bytes of one.
    pub const BYTES: usize = 44;

    pub(super) fn write(&self, body: &mut Writing) {
        write_flow(body, self.flow, 0, self.state as u8);
        body.u32(millis(self.idle));
    }

    pub(super) fn read(body: &mut Reading<'_>) -> Result<Kept, WireError> {
        let (flow, _, number) = read_flow(body)?;
        let state = FlowState::ALL.get(usize::from(number)).copied();
        let state = state.ok_or(WireError::Value { what: "state of a flow", value: number.into() })?;
        Ok(Kept { flow, state, idle: Duration::from_millis(body.u32()?.into()) })
    }
}

fn write_flow(body: &mut Writing, flow: Key, prefix: u8, last: u8) {
    let (source, destination, ports, protocol): (IpAddr, IpAddr, _, _) = match flow {
        Key::V4(KeyV4 { source, destination, ports, protocol }) => (source.into(), destination.into(), ports, protocol),
        Key::V6(KeyV6 { source, destination, ports, protocol }) => (source.into(), destination.into(), ports, protocol),
    };
    body.u8(family(source)).u8(protocol).u8(prefix).u8(last).u32(u32::from_be_bytes(ports));
    body.address(source);
    body.address(destination);
}

fn read_flow(body: &mut Reading<'_>) -> Result<(Key, u8, u8), WireError> {
    let (family, protocol, prefix, last) = (body.u8()?, body.u8()?, body.u8()?, body.u8()?);
    let ports = body.u32()?.to_be_bytes();
    let flow = match (body.address(family)?, body.address(family)?) {
        // The number that keys of this router's own have, and no packet.
        _ if protocol == COARSE => return Err(WireError::Value { what: "protocol", value: protocol.into() }),
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Key::V4(KeyV4 { source: source.octets(), destination: destination.octets(), ports, protocol })
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Key::V6(KeyV6 { source: source.octets(), destination: destination.octets(), ports, protocol })
        }
        _ => return Err(WireError::Value { what: "family of addresses", value: family.into() }),
    };
    if usize::from(prefix) > if family == 4 { 32 } else { 128 } {
        return Err(WireError::Value { what: "prefix length", value: prefix.into() });
    }
    Ok((flow, prefix, last))
}

impl TunnelEnd {
    /// The end of a child's tunnel; `None` for a kind that leads to neighbours only.
    pub fn of(tunnel: TunnelKind, address: IpAddr) -> Option<TunnelEnd> {
        let (kind, port) = match tunnel {
            TunnelKind::IpIp => (1, 0),
            TunnelKind::Gue { port, variant: GueVariant::Header } => (2, port),
            TunnelKind::Gre => (3, 0),
            TunnelKind::Gue { port, variant: GueVariant::Direct } => (4, port),
            TunnelKind::Mpls { .. } | TunnelKind::Mac => return None,
        };
        Some(TunnelEnd { kind, port, address })
    }

    /// Of which kind it is; `None` for one of a later version.
    pub fn tunnel(self) -> Option<TunnelKind> {
        match self.kind {
            1 => Some(TunnelKind::IpIp),
            2 => Some(TunnelKind::Gue { port: self.port, variant: GueVariant::Header }),
            3 => Some(TunnelKind::Gre),
            4 => Some(TunnelKind::Gue { port: self.port, variant: GueVariant::Direct }),
            _ => None,
        }
    }
}
