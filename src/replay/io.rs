//! A worker's queues in a replay: one file in, one file out, and the capture's clock.

use crate::clock::Instant;
use crate::dpdk::{self, HugeMemory, Mbuf, RxQueue, TxQueue};
use crate::forward::io::{Burst, PacketIo};
use crate::units::PortIndex;

/// Packets further apart than this do not share a burst, because a burst has one time. Flows live for seconds at least.
const WINDOW_NS: u64 = 1_000_000_000;

/// One worker's files.
pub struct ReplayIo {
    /// The file of the pass that is under way.
    rx: Option<RxQueue>,
    tx: TxQueue,
    /// Read ahead, not handed out yet.
    pending: Burst<Mbuf>,
    /// When each record of the file was captured, in nanoseconds since 1970.
    times_ns: Vec<u64>,
    /// The earliest time of the whole capture.
    start_ns: u64,
    /// Time from the first pass over the capture to this one, in nanoseconds.
    pass_ns: u64,
    now_ns: u64,
    drained: bool,
    sent_at_ns: Vec<u64>,
}

impl ReplayIo {
    /// Writes to `tx` what is read in `passes` passes over a file whose records were captured at `times_ns`, in a
    /// capture that starts at `start_ns`.
    pub fn new(tx: TxQueue, times_ns: Vec<u64>, start_ns: u64, passes: u32) -> ReplayIo {
        let sent_at_ns = Vec::with_capacity(times_ns.len() * passes as usize);
        let pending = Burst::new();
        ReplayIo { rx: None, tx, pending, times_ns, start_ns, pass_ns: 0, now_ns: 0, drained: false, sent_at_ns }
    }

    /// Starts a pass over the capture: reads `rx`, `pass_ns` after the first pass.
    pub fn start_pass(&mut self, rx: RxQueue, pass_ns: u64) {
        self.rx = Some(rx);
        self.pass_ns = pass_ns;
        self.drained = false;
    }

    /// Ends a pass: gives up its file.
    pub fn end_pass(&mut self) {
        self.rx = None;
    }

    /// When each packet that was sent stood in the capture: nanoseconds since 1970, in the order of sending.
    pub fn into_sent_at_ns(self) -> Vec<u64> {
        self.sent_at_ns
    }

    /// The device's time stamp is the record's number in microseconds (see [`super::capture::Split`]).
    fn time_ns(&self, packet: &Mbuf) -> u64 {
        let record = packet.timestamp().map(|number| number / 1_000);
        let time = record.and_then(|record| self.times_ns.get(record as usize)).copied().unwrap_or(self.start_ns);
        time.saturating_add(self.pass_ns)
    }
}

impl PacketIo for ReplayIo {
    type Packet = Mbuf;
    type Memory = HugeMemory;

    fn ports(&self) -> u16 {
        1
    }

    fn rx_burst(&mut self, _port: PortIndex, into: &mut Burst<Mbuf>) -> Instant {
        if self.pending.is_empty() {
            self.drained = self.rx.as_mut().is_none_or(|rx| rx.burst(&mut self.pending) == 0);
        }
        if let Some(first) = self.pending.first() {
            let first_ns = self.time_ns(first);
            let near = |packet: &&Mbuf| self.time_ns(packet).abs_diff(first_ns) < WINDOW_NS;
            let count = self.pending.iter().take_while(near).count();
            into.extend(self.pending.drain(..count));
            self.now_ns = self.now_ns.max(first_ns.saturating_sub(self.start_ns));
        }
        Instant::from_nanos(self.now_ns)
    }

    fn tx_burst(&mut self, _port: PortIndex, packets: &mut Burst<Mbuf>) -> usize {
        let before = self.sent_at_ns.len();
        for packet in packets.iter() {
            let at = self.time_ns(packet);
            self.sent_at_ns.push(at);
        }
        let result = self.tx.burst(packets);
        self.sent_at_ns.truncate(before + result.sent);
        result.unsent
    }

    fn exhausted(&self) -> bool {
        self.drained
    }

    fn cycles() -> u64 {
        dpdk::tsc::now()
    }
}
