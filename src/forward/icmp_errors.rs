//! Whose an ICMP error for a virtual host is: the child's that has the flow which the quoted packet belongs to.
//!
//! ```text
//!  any router ──► [IP to the virtual host][ICMP error: [IP virtual host ─► client][ports, ...]]
//!                                                       turned round: the flow's key
//! ```
//!
//! The server sent the quoted packet, past this router. Who sends the error does not matter, and is easily forged, so the
//! flow entry is looked at and not touched: an error keeps no flow alive and makes none. It is carried as it is.

use super::punt::Cause;
use super::verdict::{PuntReason, Refusal};
use super::visit::Visit;
use super::work::End;
use crate::flow::key::FlowKey;
use crate::flow::memory::Memory;
use crate::flow::table::Table;
use crate::packet::icmp::{IcmpHeader, QUOTE_OFFSET, V4_REDIRECT, V4_SOURCE_QUENCH};
use crate::packet::parse::{Family, Fragment, Parsed};
use crate::packet::{protocol, quote};
use crate::service::selection::Granularity;
use crate::units::TargetId;

use zerocopy::{FromBytes, FromZeros};

/// The ICMP message that a packet carries, if it reports an error: the header and what it quotes.
pub(super) fn error<'a>(head: &'a [u8], parsed: &Parsed) -> Option<(&'a IcmpHeader, &'a [u8])> {
    match (parsed.family, parsed.protocol, parsed.fragment) {
        (_, _, Fragment::Later { .. }) => return None,
        (Family::V4, protocol::ICMP, _) | (Family::V6, protocol::ICMPV6, _) => {}
        _ => return None,
    }
    let end = usize::from(parsed.l3_offset) + parsed.l3_len as usize;
    let message = head.get(usize::from(parsed.l4_offset)..head.len().min(end))?;
    let (header, _) = IcmpHeader::ref_from_prefix(message).ok()?;
    header.is_error(parsed.family).then(|| (header, message.get(QUOTE_OFFSET..).unwrap_or_default()))
}

impl Visit<'_> {
    /// The target of the flow that an ICMP error is about; `key` is the error's own.
    pub(super) fn owner<K: FlowKey + FromZeros, M: Memory>(
        &self,
        flows: &Table<K, M>,
        key: K,
        (header, quote): (&IcmpHeader, &[u8]),
    ) -> Result<TargetId, End> {
        let (tables, now) = (self.tables, self.now);
        let destination = key.destination();
        if !tables.index.covers(destination) {
            // Tunnels come from there, too; what is wrong with them is for the slow path to read.
            let ours = tables.tunnel_sources.iter().any(|prefix| prefix.contains(&destination));
            let cause = Cause { bare: self.parsed.l3_offset == 0, ..PuntReason::OwnAddress.into() };
            return Err(if ours { End::Punt(cause) } else { Refusal::NoVirtualHost.into() });
        }
        if self.parsed.family == Family::V4 && matches!(header.kind, V4_SOURCE_QUENCH | V4_REDIRECT) {
            return Err(Refusal::IcmpErrorIgnored.into());
        }
        let quoted = quote::read(self.parsed.family, quote).ok_or(Refusal::IcmpErrorMalformed)?;
        let flow = K::of(quote, &quoted).reversed();
        if flow.destination() != destination {
            return Err(Refusal::IcmpErrorMalformed.into());
        }
        if matches!(quoted.fragment, Fragment::Later { .. }) {
            return Err(Refusal::IcmpErrorFragment.into());
        }
        let known = flows.peek(&flow, now, &tables.timeouts).map(|entry| entry.target);
        let coarse = || {
            let id = tables.index.find(destination, quoted.protocol, quoted.src_port())?;
            let host = &tables.virtual_hosts[id.index()];
            let Granularity::Source { v4, v6 } = host.granularity else { return None };
            let coarse = flow.coarse(host.number, if quoted.family == Family::V4 { v4 } else { v6 });
            flows.peek(&coarse, now, &tables.timeouts).map(|entry| entry.target)
        };
        known.or_else(coarse).ok_or_else(|| Refusal::IcmpErrorUnknownFlow.into())
    }
}
