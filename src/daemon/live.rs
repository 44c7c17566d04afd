//! What a worker receives from and sends to on a real machine.

use std::ops::Range;
use std::time::Duration;

use crate::clock::Instant;
use crate::dpdk::{self, HugeMemory, Mbuf, Pool, RxQueue, TxQueue};
use crate::forward::io::{Burst, PacketIo};
use crate::units::PortIndex;

/// How long a worker sleeps that may.
const NAP: Duration = Duration::from_micros(200);

/// One worker's queues of every port, and the machine's clock.
pub(super) struct LiveIo {
    pub(super) queues: Vec<(RxQueue, TxQueue)>,
    pub(super) pool: Pool,
    pub(super) clock: TscClock,
    /// Whether it may sleep when nothing has arrived for a while.
    pub(super) sleeps: bool,
}

/// Nanoseconds by the time-stamp counter.
#[derive(Clone, Copy)]
pub(super) struct TscClock {
    origin: u64,
    /// Nanoseconds a cycle, times 2^32.
    scale: u64,
}

impl TscClock {
    pub(super) fn new() -> TscClock {
        let scale = (1_000_000_000_u128 << 32) / u128::from(dpdk::tsc::hz().max(1));
        TscClock { origin: dpdk::tsc::now(), scale: scale as u64 }
    }

    #[inline]
    pub(super) fn now(&self) -> Instant {
        let cycles = dpdk::tsc::now().wrapping_sub(self.origin);
        Instant::from_nanos(((u128::from(cycles) * u128::from(self.scale)) >> 32) as u64)
    }
}

impl PacketIo for LiveIo {
    type Packet = Mbuf;
    type Memory = HugeMemory;

    fn ports(&self) -> u16 {
        self.queues.len() as u16
    }

    fn rx_burst(&mut self, port: PortIndex, into: &mut Burst<Mbuf>) -> Instant {
        self.queues[port.index()].0.burst(into);
        self.clock.now()
    }

    fn tx_burst(&mut self, port: PortIndex, packets: &mut Burst<Mbuf>) -> usize {
        self.queues[port.index()].1.burst(packets).unsent
    }

    fn alloc(&mut self, frame: &[u8]) -> Option<Mbuf> {
        self.pool.alloc_from(frame)
    }

    fn piece(&mut self, header: &[u8], of: &Mbuf, range: Range<usize>) -> Option<Mbuf> {
        self.pool.alloc_piece(header, of, range)
    }

    fn rest(&mut self) {
        if self.sleeps {
            std::thread::sleep(NAP);
        }
    }

    fn cycles() -> u64 {
        dpdk::tsc::now()
    }
}
