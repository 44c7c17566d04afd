//! The ways a packet can end: the one list of drop and punt reasons, which are metric labels and report rows too.

use crate::packet::parse::ParseError;
use crate::units::labelled;

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Its bytes are not what they say they are.
    Malformed(ParseError),
    /// Sound, but not.
    Refused(Refusal),
}

labelled! {
    /// Why a sound packet was dropped.
    Refusal {
        /// No virtual host takes its destination, protocol and port.
        NoVirtualHost => "no_virtual_host",
        /// By its link-layer address not for us.
        OtherStation => "other_station",
        /// For no service, and from or to an address that no router forwards.
        NotRoutable => "not_routable",
        /// In the middle of a TCP connection that is not known, of a virtual host that does not select anew for those.
        UnknownFlow => "unknown_flow",
        /// Its virtual host has no child that takes new flows.
        NoChild => "no_child",
        /// With the tunnel header it is longer than any IP packet.
        TooLong => "too_long",
        /// No packet buffer left for the pieces of a packet that is too long with its tunnel header.
        NoBuffer => "no_buffer",
        /// A fragment whose datagram's first one has not come in time.
        FragmentTimeout => "fragment_timeout",
        /// A fragment without its first one, and too many of that kind to hold it.
        FragmentNoRoom => "fragment_no_room",
        /// A fragment with bytes that have been seen before (RFC 5722, RFC 1858, RFC 3128).
        FragmentOverlap => "fragment_overlap",
        /// A fragment behind the end of its datagram, or one that would set another end.
        FragmentBeyondEnd => "fragment_beyond_end",
        /// A fragment of a datagram that has come with more holes than are kept track of.
        FragmentHoles => "fragment_holes",
        /// A fragment without data.
        FragmentEmpty => "fragment_empty",
        /// An ICMP error about a packet of a virtual host in no flow that is known here.
        IcmpErrorUnknownFlow => "icmp_error_unknown_flow",
        /// An ICMP error for a virtual host that quotes no packet of it, or too little to tell the flow.
        IcmpErrorMalformed => "icmp_error_malformed",
        /// An ICMP error about a later fragment of a virtual host's packet: its flow cannot be told.
        IcmpErrorFragment => "icmp_error_fragment",
        /// A source quench or redirect for a virtual host, which no server may follow (RFC 6633; RFC 1122 section 3.2.2.2).
        IcmpErrorIgnored => "icmp_error_ignored",
        /// A tunnel packet for us from a sender that is no parent.
        TunnelStranger => "tunnel_stranger",
        /// A tunnel packet in a tunnel packet for us.
        TunnelNested => "tunnel_nested",
        /// A tunnel packet that is a fragment.
        TunnelFragment => "tunnel_fragment",
        /// A tunnel packet whose GUE or GRE header is cut off or says what we know nothing of.
        TunnelHeader => "tunnel_header",
        /// A tunnel packet whose UDP checksum is wrong.
        TunnelChecksum => "tunnel_checksum",
        /// Out of a tunnel, with our own address as its source.
        TunnelSpoofed => "tunnel_spoofed",
        /// A congestion mark on a packet that is not ECN-capable (RFC 6040).
        TunnelEcn => "tunnel_ecn",
        /// Its outer TTL does not allow another level.
        TtlExceeded => "ttl_exceeded",
        /// No room for the tunnel header in its buffer.
        NoHeadroom => "no_headroom",
        /// The ring to the slow path was full.
        PuntRingFull => "punt_ring_full",
        /// The port did not take it.
        TxQueueFull => "tx_queue_full",
    }
}

labelled! {
    /// Why a packet went to the slow path.
    PuntReason {
        /// ARP.
        Arp => "arp",
        /// IPv6 neighbour discovery (RFC 4861).
        NeighbourDiscovery => "neighbour_discovery",
        /// For one of our own addresses, and no tunnel.
        OwnAddress => "own_address",
        /// Out of a tunnel, for one of our own addresses; its copy starts with the IP header.
        OwnAddressInTunnel => "own_address_in_tunnel",
        /// An echo request for a virtual host in whose place we answer.
        VirtualHostEcho => "virtual_host_echo",
        /// The link-layer address of its next hop is not known.
        NoNeighbour => "no_neighbour",
        /// Longer than its path with the tunnel header, and not to be fragmented.
        TooBig => "too_big",
        /// Its TTL or hop limit ends here.
        TtlExceeded => "ttl_exceeded",
        /// There is no route to its destination.
        NoRoute => "no_route",
        /// The next hop to its destination does not answer.
        HostUnreachable => "host_unreachable",
        /// An ICMP error about a flow that this worker does not know, and another one may.
        IcmpErrorElsewhere => "icmp_error_elsewhere",
        /// The answer to a recovery echo of a server.
        RecoveryEcho => "recovery_echo",
        /// In the middle of a TCP connection that this worker does not know, and somebody else may.
        FlowElsewhere => "flow_elsewhere",
    }
}

impl PuntReason {
    /// Whether the router itself is meant. The others are strangers' packets, which may fill no more than half a ring.
    pub fn is_for_us(self) -> bool {
        use PuntReason::{Arp, NeighbourDiscovery, OwnAddress, OwnAddressInTunnel};
        matches!(self, Arp | NeighbourDiscovery | OwnAddress | OwnAddressInTunnel)
    }
}

labelled! {
    /// Why a frame of the slow path was not sent.
    InjectDrop {
        /// The ring to the worker was full.
        RingFull => "ring_full",
        /// No packet buffer left.
        NoBuffer => "no_buffer",
        /// The port did not take it, or there is no such port.
        TxQueueFull => "tx_queue_full",
    }
}

impl DropReason {
    /// Number of reasons.
    pub const COUNT: usize = ParseError::ALL.len() + Refusal::ALL.len();

    /// Its number, below [`DropReason::COUNT`].
    #[inline]
    pub const fn index(self) -> usize {
        match self {
            DropReason::Malformed(error) => error as usize,
            DropReason::Refused(refusal) => ParseError::ALL.len() + refusal as usize,
        }
    }

    /// The metric label, in snake case.
    pub const fn label(self) -> &'static str {
        match self {
            DropReason::Malformed(error) => error.label(),
            DropReason::Refused(refusal) => refusal.label(),
        }
    }

    /// Every reason, in the order of [`DropReason::index`].
    pub fn all() -> impl Iterator<Item = DropReason> {
        let malformed = ParseError::ALL.iter().copied().map(DropReason::Malformed);
        malformed.chain(Refusal::ALL.iter().copied().map(DropReason::Refused))
    }
}

impl From<ParseError> for DropReason {
    fn from(error: ParseError) -> DropReason {
        DropReason::Malformed(error)
    }
}

impl From<Refusal> for DropReason {
    fn from(refusal: Refusal) -> DropReason {
        DropReason::Refused(refusal)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn reasons_are_numbered_in_order_and_labelled_apart() {
        assert_eq!(DropReason::all().count(), DropReason::COUNT);
        for (number, reason) in DropReason::all().enumerate() {
            assert_eq!(reason.index(), number, "{reason:?}");
        }
        let labels: HashSet<_> = DropReason::all().map(DropReason::label).collect();
        assert_eq!(labels.len(), DropReason::COUNT);
    }
}
