//! What becomes of a packet that is longer than its path with the tunnel header.
//!
//! ```text
//! IPv4 with DF, IPv6 of more than 1280 bytes ──► punted: its sender is told (RFC 1191, RFC 4443 section 3.2)
//! (and any IPv6 where the tunnel has no IP header of its own)
//! all others ──► encapsulated and sent in pieces, which the child puts together again (RFC 2003, RFC 2473 section 7.2)
//! ```

use super::io::{Burst, PacketIo};
use super::pipeline::Pipeline;
use super::punt::Cause;
use super::tables::Path;
use super::verdict::{PuntReason, Refusal};
use super::work::{Arrival, End, Work};
use crate::packet::buffer::PacketBuffer;
use crate::packet::parse::{Family, Parsed};
use crate::tunnel::split::Split;
use crate::units::{PathId, PortIndex, TargetId};

/// The longest IPv6 packet that nobody may be asked to shorten (RFC 8200 section 5), in bytes.
const IPV6_MTU_MIN: u32 = 1280;

impl<I: PacketIo> Pipeline<I> {
    /// Sends a packet in pieces, or has its sender told.
    #[cold]
    #[inline(never)]
    pub(super) fn too_long(
        &mut self,
        io: &mut I,
        arrival: Arrival<'_>,
        mut packet: I::Packet,
        work: &Work,
        path: PathId,
        target: Option<TargetId>,
    ) {
        let path = &arrival.tables.paths[path.index()];
        let end = if may_be_cut(packet.head(), &work.parsed(), path) {
            match self.send_in_pieces(io, path, &mut packet, work, target) {
                Ok(()) => return,
                Err(refusal) => refusal.into(),
            }
        } else {
            End::Punt(Cause { target, bare: work.inner.l3_offset == 0, ..PuntReason::TooBig.into() })
        };
        self.end(arrival.port, &packet, end);
    }

    fn send_in_pieces(
        &mut self,
        io: &mut I,
        path: &Path,
        packet: &mut I::Packet,
        work: &Work,
        target: Option<TargetId>,
    ) -> Result<(), Refusal> {
        if work.parsed().l3_len as usize + path.template.overhead() > usize::from(u16::MAX) {
            return Err(Refusal::TooLong);
        }
        let whole = path.template.with_mtu(u16::MAX);
        whole.encapsulate(packet, &work.parsed(), self.per_packet(work)).map_err(|_| Refusal::NoHeadroom)?;
        let split = Split::new(packet.head(), whole.ip_offset(), path.template.mtu(), self.identification);
        self.count(target, work);
        // What came before it leaves before it.
        self.flush(io, path.port);
        let mut pieces = Burst::new();
        for (header, range) in split.ok_or(Refusal::TooLong)? {
            pieces.push(io.piece(&header, packet, range).ok_or(Refusal::NoBuffer)?);
            if pieces.is_full() {
                self.send_pieces(io, path.port, &mut pieces)?;
            }
        }
        self.send_pieces(io, path.port, &mut pieces)?;
        self.counters.forwarded.add(1);
        self.counters.fragmented.add(1);
        Ok(())
    }

    fn send_pieces(&self, io: &mut I, port: PortIndex, pieces: &mut Burst<I::Packet>) -> Result<(), Refusal> {
        if pieces.is_empty() {
            return Ok(());
        }
        let count = pieces.len();
        let unsent = io.tx_burst(port, pieces);
        self.counters.pieces.add((count - unsent) as u64);
        if unsent > 0 { Err(Refusal::TxQueueFull) } else { Ok(()) }
    }
}

/// Whether a packet that is too long for a path may be sent in pieces.
pub(super) fn may_be_cut(head: &[u8], parsed: &Parsed, path: &Path) -> bool {
    match parsed.family {
        Family::V4 => head.get(usize::from(parsed.l3_offset) + 6).is_some_and(|flags| flags & 0x40 == 0),
        Family::V6 => parsed.l3_len <= IPV6_MTU_MIN && path.template.has_outer_ip(),
    }
}
