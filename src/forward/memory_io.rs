//! Frames in vectors and a clock that is set by hand: what a pipeline stands on in tests, fuzzing and simulation.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::time::Duration;

use super::io::{Burst, PacketIo};
use crate::clock::Instant;
use crate::flow::memory::Heap;
use crate::packet::buffer::{OwnedBuffer, PacketBuffer};
use crate::units::PortIndex;

/// Queues of any number of ports.
#[derive(Debug)]
pub struct MemoryIo {
    arriving: Vec<VecDeque<OwnedBuffer>>,
    sent: Vec<(PortIndex, Vec<u8>)>,
    /// Packets that each transmission still takes; the rest of a burst is refused.
    room: usize,
    /// Packets that can still be made.
    buffers: usize,
    now: Instant,
}

impl MemoryIo {
    /// Queues of `ports` ports, empty.
    pub fn new(ports: u16) -> MemoryIo {
        let arriving = (0..ports).map(|_| VecDeque::new()).collect();
        MemoryIo { arriving, sent: Vec::new(), room: usize::MAX, buffers: usize::MAX, now: Instant::ZERO }
    }

    /// Lets a frame arrive at `port`.
    pub fn arrive(&mut self, port: PortIndex, frame: &[u8]) {
        self.arriving[port.index()].push_back(OwnedBuffer::new(frame));
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Limits each transmission to `packets`.
    pub fn limit(&mut self, packets: usize) {
        self.room = packets;
    }

    /// Limits the packets that can still be made to `buffers`.
    pub fn limit_buffers(&mut self, buffers: usize) {
        self.buffers = buffers;
    }

    /// Takes what has been sent, oldest first.
    pub fn take_sent(&mut self) -> Vec<(PortIndex, Vec<u8>)> {
        mem::take(&mut self.sent)
    }
}

impl PacketIo for MemoryIo {
    type Packet = OwnedBuffer;
    type Memory = Heap;

    fn ports(&self) -> u16 {
        self.arriving.len() as u16
    }

    fn rx_burst(&mut self, port: PortIndex, into: &mut Burst<OwnedBuffer>) -> Instant {
        let queue = &mut self.arriving[port.index()];
        let count = queue.len().min(into.remaining_capacity());
        into.extend(queue.drain(..count));
        self.now
    }

    fn tx_burst(&mut self, port: PortIndex, packets: &mut Burst<OwnedBuffer>) -> usize {
        let unsent = packets.len().saturating_sub(self.room);
        packets.truncate(packets.len() - unsent);
        self.sent.extend(packets.drain(..).map(|packet| (port, packet.head().to_vec())));
        unsent
    }

    fn alloc(&mut self, frame: &[u8]) -> Option<OwnedBuffer> {
        self.buffers = self.buffers.checked_sub(1)?;
        Some(OwnedBuffer::new(frame))
    }

    fn piece(&mut self, header: &[u8], of: &OwnedBuffer, range: Range<usize>) -> Option<OwnedBuffer> {
        self.alloc(&[header, of.head().get(range)?].concat())
    }

    fn exhausted(&self) -> bool {
        self.arriving.iter().all(VecDeque::is_empty)
    }

    fn cycles() -> u64 {
        0
    }
}
