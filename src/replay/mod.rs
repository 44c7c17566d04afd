//! Pushes a capture through the workers of a real router and writes what would go on the wire.
//!
//! ```text
//! IN.pcap ─► split by flow hash ─► one file a worker ─► net_pcap port "in"  ─► worker w on its lcore
//! OUT.pcap ◄─ merge by time     ◄─ one file a worker ◄─ net_pcap port "out" ◄─┘
//! ```
//!
//! Nothing in between differs from what `slrd` runs: the same queues, pipeline and counters. Only time does: a worker's
//! clock is the capture's, so that flows age as they did when it was recorded.

pub mod capture;
pub mod harness;
pub mod io;
pub mod output;
