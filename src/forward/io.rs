//! What a worker stands on: queues, packet memory, time. DPDK, a capture and a test each provide it in their own way.

use std::ops::Range;

use arrayvec::ArrayVec;

use crate::clock::Instant;
use crate::flow::memory::Memory;
use crate::packet::buffer::PacketBuffer;
use crate::units::PortIndex;

/// Most packets that are handled together. With 64 memory has twice the time to answer that it has with 32: a packet of a known
/// flow costs 13 % less with a million known, and 8 % less with ten million, and no more with few.
pub const BURST: usize = 64;

/// Packets that are handled together.
pub type Burst<P> = ArrayVec<P, BURST>;

/// One worker's queues, one of each port, and the machine beneath them.
pub trait PacketIo {
    /// A packet; dropping it gives its memory back.
    type Packet: PacketBuffer;

    /// Where flow tables lie.
    type Memory: Memory;

    /// Number of ports.
    fn ports(&self) -> u16;

    /// Appends what has arrived on the worker's queue of `port`, without waiting, and says what time it is.
    fn rx_burst(&mut self, port: PortIndex, into: &mut Burst<Self::Packet>) -> Instant;

    /// Sends `packets` by the worker's queue of `port`, leaves the burst empty, and returns how many were not taken.
    fn tx_burst(&mut self, port: PortIndex, packets: &mut Burst<Self::Packet>) -> usize;

    /// A packet of this worker's own that holds a copy of `frame`; `None` where there is no memory for it, or where
    /// nothing is ever sent but what has arrived.
    fn alloc(&mut self, _frame: &[u8]) -> Option<Self::Packet> {
        None
    }

    /// A packet of this worker's own: `header`, and behind it a copy of the bytes `range` of `of`, over all its segments;
    /// `None` as for [`alloc`](PacketIo::alloc), or where there are no such bytes.
    fn piece(&mut self, _header: &[u8], _of: &Self::Packet, _range: Range<usize>) -> Option<Self::Packet> {
        None
    }

    /// Nothing has arrived for a while: this is where a machine may sleep that is to.
    fn rest(&mut self) {}

    /// True when nothing will ever arrive again.
    fn exhausted(&self) -> bool {
        false
    }

    /// A cycle counter to measure with, of unspecified rate.
    fn cycles() -> u64;
}
