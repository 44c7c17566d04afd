//! The last step of a burst: the header of its path in front of each packet, and its count.

use super::io::{Burst, PacketIo};
use super::pipeline::Pipeline;
use super::punt::Cause;
use super::tables::{ForwardTables, Path};
use super::verdict::{PuntReason, Refusal};
use super::work::{End, NOWHERE, Work};
use crate::packet::buffer::PacketBuffer;
use crate::packet::parse::Parsed;
use crate::packet::tcp;
use crate::service::mss;
use crate::tunnel::template::{EncapsulateError, PerPacket};
use crate::units::{PortIndex, TargetId};

impl<I: PacketIo> Pipeline<I> {
    /// Puts the header of its path in front of each packet that has one, and counts it. Gives the port that all leave by, if
    /// it is one.
    #[inline(never)]
    pub(super) fn put_headers(
        &mut self,
        tables: &ForwardTables,
        burst: &mut Burst<I::Packet>,
        works: &mut [Work],
    ) -> Option<PortIndex> {
        let (paths, targets) = (&*tables.paths, self.counters.targets());
        let (mut identification, step) = (self.identification, self.identification_step);
        let (mut all, mut any) = (NOWHERE.0, 0);
        for (packet, work) in burst.iter_mut().zip(works) {
            let (hash, id) = (work.hash.bits(), identification as u16);
            work.leaves_by = match paths.get(work.path.index()) {
                Some(path) if path.template.put_in_front(packet, &work.inner, hash, id).is_ok() => {
                    identification = identification.wrapping_add(step);
                    targets[work.target.index()].count(work.inner.bytes());
                    path.port
                }
                _ => nowhere(),
            };
            (all, any) = (all & work.leaves_by.0, any | work.leaves_by.0);
        }
        self.identification = identification;
        (all == any && any != NOWHERE.0).then_some(PortIndex(any))
    }

    /// Puts the header of the path to a target in front of a packet, which may begin a connection.
    pub(super) fn encapsulate(
        &mut self,
        tables: &ForwardTables,
        packet: &mut I::Packet,
        work: &Work,
        id: TargetId,
    ) -> Result<PortIndex, End> {
        let target = &tables.targets[id.index()];
        if let (true, Some(path)) = (target.clamps_mss && work.tcp_flags & tcp::SYN != 0, target.path()) {
            self.clamp_mss(tables, id, &tables.paths[path.index()], packet, &work.parsed());
        }
        let unresolved =
            || Cause { target: Some(id), bare: work.inner.l3_offset == 0, ..PuntReason::NoNeighbour.into() };
        let path_id = target.path().ok_or_else(|| End::Punt(unresolved()))?;
        let path = &tables.paths[path_id.index()];
        let per = self.per_packet(work);
        path.template.encapsulate(packet, &work.parsed(), per).map_err(|error| match error {
            EncapsulateError::TooBig => End::TooLong(path_id, Some(id)),
            EncapsulateError::NoHeadroom => Refusal::NoHeadroom.into(),
        })?;
        self.count(Some(id), work);
        Ok(path.port)
    }

    #[inline(always)]
    pub(super) fn per_packet(&self, work: &Work) -> PerPacket {
        PerPacket { flow_hash: work.hash.bits(), ttl: work.inner.ttl(), identification: self.identification as u16 }
    }

    /// Counts a packet that has its header, towards its target where it is for a service.
    #[inline(always)]
    pub(super) fn count(&mut self, target: Option<TargetId>, work: &Work) {
        self.identification = self.identification.wrapping_add(self.identification_step);
        if let Some(target) = target {
            self.counters.target(target).count(work.inner.bytes());
        }
    }

    /// Lowers the MSS option of a SYN to what its virtual host wants.
    #[cold]
    fn clamp_mss(
        &self,
        tables: &ForwardTables,
        target: TargetId,
        path: &Path,
        packet: &mut I::Packet,
        parsed: &Parsed,
    ) {
        let host = &tables.virtual_hosts[tables.targets[target.index()].host.index()];
        let limit = host.mss_clamp.limit(parsed.family, path.template.packet_max());
        if limit.is_some_and(|limit| mss::clamp(packet.head_mut(), parsed, limit)) {
            self.counters.mss_clamped.add(1);
        }
    }
}

/// [`NOWHERE`], kept out of the way of packets that leave.
#[cold]
#[inline(never)]
fn nowhere() -> PortIndex {
    NOWHERE
}
