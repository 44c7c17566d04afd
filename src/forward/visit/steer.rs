//! When a QUIC connection id decides on a packet's target, instead of its flow's entry.

use zerocopy::FromZeros;

use super::Visit;
use crate::flow::key::FlowKey;
use crate::flow::memory::Memory;
use crate::flow::table::Table;
use crate::forward::tables::VirtualHost;
use crate::packet::protocol;
use crate::packet::udp::UdpHeader;
use crate::service::quic::Named;
use crate::units::TargetId;

impl Visit<'_> {
    /// The target of a packet whose flow has an entry for `target`, and whose virtual host reads QUIC. Where the packet
    /// certainly belongs to another child, because the client's address or somebody's translation of it has changed, the
    /// entry follows.
    #[cold]
    pub(super) fn steer<K: FlowKey + FromZeros, M: Memory>(
        &self,
        flows: &mut Table<K, M>,
        key: &K,
        target: TargetId,
    ) -> TargetId {
        let host = &self.tables.virtual_hosts[self.tables.targets[target.index()].host.index()];
        let steered = self.certain(host, target);
        if steered != target
            && let Some(slot) = flows.find(self.work.hash, key)
        {
            flows.record_mut(slot).redirect(steered);
        }
        steered
    }

    /// The target that a packet's connection id certainly names, else `target`.
    pub(super) fn certain(&self, host: &VirtualHost, target: TargetId) -> TargetId {
        match self.named(host) {
            Some(Named::Certain(member)) if host.members[member].target != target => {
                self.counters.quic_steered.add(1);
                host.members[member].target
            }
            _ => target,
        }
    }

    /// The member of `host` that a packet's QUIC connection id names, unless its flows are to leave it, or the id may be a
    /// new client's and the member takes nobody new.
    pub(super) fn named(&self, host: &VirtualHost) -> Option<Named> {
        let ids = host.quic.as_ref().filter(|_| self.parsed.protocol == protocol::UDP)?;
        // Whatever is behind the packet in its frame does not count.
        let end = usize::from(self.parsed.l3_offset) + self.parsed.l3_len as usize;
        let packet = self.head.get(..end).unwrap_or(self.head);
        let named = ids.read(packet.get(usize::from(self.parsed.l4_offset) + UdpHeader::LEN..)?)?;
        let member = &host.members[named.member()];
        let takes = matches!(named, Named::Certain(_)) || self.tables.selection(host).takes_new[named.member()];
        (takes && !self.tables.targets[member.target.index()].moves).then_some(named)
    }
}
