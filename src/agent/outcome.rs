//! The ways a packet that comes to the agent can end, counted alike by the eBPF program and by the process.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::units::labelled;

labelled! {
    /// What became of a packet; the numbers are those of `bpf/decapsulate.c`.
    Outcome {
        /// Came in IP, and was handed on.
        IpIp => "ipip",
        /// Came in GUE, and was handed on.
        Gue => "gue",
        /// Came in GRE, and was handed on.
        Gre => "gre",
        /// Came behind a label, and was handed on.
        Mpls => "mpls",
        /// Came as it is.
        Mac => "mac",
        /// A fragment of a tunnel packet, left to the system, which hands it back whole.
        Fragment => "fragment",
        /// A tunnel packet from a sender that is no router of ours.
        Stranger => "tunnel_stranger",
        /// Out of a tunnel, for none of our virtual hosts.
        NoVirtualHost => "no_virtual_host",
        /// A tunnel packet whose GUE or GRE header is cut off or says what we know nothing of.
        Header => "tunnel_header",
        /// A tunnel packet that carries no valid IP packet.
        Inner => "tunnel_inner",
        /// Congestion was marked on a packet whose ends do not know of it (RFC 6040 section 4.2).
        Ecn => "tunnel_ecn",
        /// The system refused to take the header off, or to take the packet.
        Failed => "failed",
    }
}

impl Outcome {
    /// Whether the packet was handed on.
    pub fn is_taken(self) -> bool {
        matches!(self, Outcome::IpIp | Outcome::Gue | Outcome::Gre | Outcome::Mpls | Outcome::Mac)
    }

    /// Whether it was dropped.
    pub fn is_dropped(self) -> bool {
        !self.is_taken() && self != Outcome::Fragment
    }
}

/// Packets by what became of them.
#[derive(Debug, Default)]
pub struct Outcomes([AtomicU64; Outcome::ALL.len()]);

impl Outcomes {
    /// Counts one.
    pub fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].load(Ordering::Relaxed)
    }
}

/// What has come for a prefix of a virtual host, and gone from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets that came.
    pub packets_in: u64,
    /// Bytes of those, without tunnel and link layer.
    pub bytes_in: u64,
    /// Packets that went.
    pub packets_out: u64,
    /// Bytes of those, without link layer.
    pub bytes_out: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.packets_in += other.packets_in;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.bytes_out += other.bytes_out;
    }
}
