//! Decides how bursts cross the border to a driver: through the driver's own function, without a call in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;

use super::mbuf::Mbuf;
use super::port::Device;
use super::sys;

/// The functions and queues that a driver publishes for its port.
#[derive(Clone, Copy)]
pub struct Ops(*const sys::rte_eth_fp_ops);

impl Ops {
    /// Those of `port`, DPDK's number of a port.
    pub fn of(port: u16) -> Ops {
        // SAFETY: DPDK gives out port numbers below SLR_MAX_PORTS only, which is the length of the array.
        Ops(unsafe { (&raw const sys::rte_eth_fp_ops).cast::<sys::rte_eth_fp_ops>().add(usize::from(port)) })
    }

    /// Polls receive queue `index` once: so many packets are in `into` afterwards, and the caller's.
    ///
    /// # Safety
    /// The port is started and stays so during the call, it has that queue, nobody else polls the queue, and `into` has
    /// room for `room` pointers.
    #[inline(always)]
    pub unsafe fn receive(self, index: u16, into: *mut *mut sys::rte_mbuf, room: u16) -> usize {
        // SAFETY: starting has set up the port's table, with an entry for each queue; the rest is the caller's promise.
        unsafe {
            let ops = &*self.0;
            let Some(receive) = ops.rx_pkt_burst else { return 0 };
            usize::from(receive(*ops.rxq.data.add(usize::from(index)), into, room))
        }
    }

    /// Sends through transmit queue `index`: the driver takes the first so many of the `count` packets at `from`.
    ///
    /// # Safety
    /// As for [`Ops::receive`]; the packets are the caller's, and those that were taken are not any more.
    #[inline(always)]
    pub unsafe fn transmit(self, index: u16, from: *mut *mut sys::rte_mbuf, count: u16) -> usize {
        // SAFETY: as for reception.
        unsafe {
            let ops = &*self.0;
            let Some(transmit) = ops.tx_pkt_burst else { return 0 };
            usize::from(transmit(*ops.txq.data.add(usize::from(index)), from, count))
        }
    }
}

/// A receive queue, for one thread at a time.
pub struct RxQueue {
    ops: Ops,
    index: u16,
    device: Arc<Device>,
}

/// A transmit queue, for one thread at a time.
pub struct TxQueue {
    ops: Ops,
    index: u16,
    device: Arc<Device>,
}

// SAFETY: a driver's queue may be used by any thread, one at a time; RxQueue is neither Clone nor Sync.
unsafe impl Send for RxQueue {}
// SAFETY: as above.
unsafe impl Send for TxQueue {}

/// What became of a transmitted burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "unsent packets are lost and have to be counted"]
pub struct TxResult {
    /// Packets that the driver took.
    pub sent: usize,
    /// Packets that it had no room for; they are freed.
    pub unsent: usize,
}

impl RxQueue {
    /// # Safety
    /// The caller makes one such queue only, and `device` was configured with more than `index` receive queues.
    pub(super) unsafe fn new(device: &Arc<Device>, index: u16) -> RxQueue {
        RxQueue { ops: Ops::of(device.id()), index, device: device.clone() }
    }

    /// Its number among the port's receive queues.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Fills the free part of `into` with packets that have arrived, and says how many came; none before the port starts.
    #[inline]
    pub fn burst<const N: usize>(&mut self, into: &mut ArrayVec<Mbuf, N>) -> usize {
        if !self.device.started().load(Ordering::Acquire) {
            return 0;
        }
        let len = into.len();
        let room = u16::try_from(N - len).unwrap_or(u16::MAX);
        // SAFETY: the device is started, and stays so while this queue holds it; the queue exists and only `self` polls it.
        // Mbuf is a bare pointer to an mbuf, `room` of them fit behind `len`, and each one written there is ours.
        unsafe {
            let count = self.ops.receive(self.index, into.as_mut_ptr().add(len).cast(), room);
            into.set_len(len + count);
            count
        }
    }
}

impl TxQueue {
    /// # Safety
    /// The caller makes one such queue only, and `device` was configured with more than `index` transmit queues.
    pub(super) unsafe fn new(device: &Arc<Device>, index: u16) -> TxQueue {
        TxQueue { ops: Ops::of(device.id()), index, device: device.clone() }
    }

    /// Its number among the port's transmit queues.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Sends `packets` and leaves it empty: what the driver has no room for is freed. Before the port starts that is all.
    #[inline]
    pub fn burst<const N: usize>(&mut self, packets: &mut ArrayVec<Mbuf, N>) -> TxResult {
        let len = packets.len();
        let count = u16::try_from(len).unwrap_or(u16::MAX);
        if len == 0 || !self.device.started().load(Ordering::Acquire) {
            packets.clear();
            return TxResult { sent: 0, unsent: len };
        }
        let first = packets.as_mut_ptr().cast::<*mut sys::rte_mbuf>();
        // SAFETY: device and queue as for reception. With its length at zero `packets` owns nothing any more: of the
        // pointers behind `first` the driver owns those it says it took, and the rest is freed here, once.
        unsafe {
            packets.set_len(0);
            let sent = self.ops.transmit(self.index, first, count);
            if sent < len {
                sys::rte_pktmbuf_free_bulk(first.add(sent), (len - sent) as u32);
            }
            TxResult { sent, unsent: len - sent }
        }
    }
}
