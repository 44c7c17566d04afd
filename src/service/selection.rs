//! How a new flow's child is chosen.

/// Which packets make up one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// Same protocol, addresses and ports.
    FiveTuple,
    /// Same client prefix of these lengths in bits (32 and 128: one client address), whatever protocol and ports.
    Source {
        /// Leading bits of an IPv4 source that count, 0 to 32.
        v4: u8,
        /// Leading bits of an IPv6 source that count, 0 to 128.
        v6: u8,
    },
}

/// Rule by which a virtual host's children share new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// In proportion to weights, the same child for the same flow on every router with the same key (Maglev).
    ConsistentHash,
    /// To the child with the least cost; equal ones share as by consistent hash.
    LeastCost,
    /// In turn, in proportion to weights. Each router has its own turn.
    RoundRobin,
}
