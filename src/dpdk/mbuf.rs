//! Decides who owns a packet in DPDK's memory: an [`Mbuf`] does, alone, with all its segments.
//!
//! The fields are read and written in place, without a call into C: `wrapper.h` gives their offsets, `shim.c` asserts
//! their widths.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::memory::prefetch_at;
use super::sys;
use crate::packet::buffer::PacketBuffer;

/// A packet. Dropping it gives its buffers back to their pool.
#[repr(transparent)]
pub struct Mbuf(Segment);

// SAFETY: an Mbuf is the only owner of its buffers, and the pool takes them back from any thread.
unsafe impl Send for Mbuf {}

/// One buffer of a packet.
///
/// Invariant: it belongs to a living [`Mbuf`], and whoever holds the Segment has borrowed that Mbuf (mutably, to call a
/// setter) or owns it. Hence its fields may be read and written in the methods below. `data_off + data_len <= buf_len`,
/// and those bytes of the buffer are initialised memory (a pool's memory starts as zeros).
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Segment(NonNull<sys::rte_mbuf>);

macro_rules! field {
    ($get:ident, $set:ident, $type:ty, $offset:ident) => {
        #[inline(always)]
        fn $get(self) -> $type {
            // SAFETY: the invariant of Segment; offset and type are the field's.
            unsafe { self.0.byte_add(sys::slr_mbuf_offset::$offset as usize).cast::<$type>().read() }
        }

        #[inline(always)]
        #[allow(dead_code)]
        fn $set(self, value: $type) {
            // SAFETY: the invariant of Segment; offset and type are the field's.
            unsafe { self.0.byte_add(sys::slr_mbuf_offset::$offset as usize).cast::<$type>().write(value) }
        }
    };
}

impl Segment {
    field!(buf_addr, set_buf_addr, *mut u8, SLR_MBUF_BUF_ADDR);
    field!(data_off, set_data_off, u16, SLR_MBUF_DATA_OFF);
    field!(nb_segs, set_nb_segs, u16, SLR_MBUF_NB_SEGS);
    field!(port, set_port, u16, SLR_MBUF_PORT);
    field!(ol_flags, set_ol_flags, u64, SLR_MBUF_OL_FLAGS);
    field!(pkt_len, set_pkt_len, u32, SLR_MBUF_PKT_LEN);
    field!(data_len, set_data_len, u16, SLR_MBUF_DATA_LEN);
    field!(buf_len, set_buf_len, u16, SLR_MBUF_BUF_LEN);
    field!(next, set_next, Option<Segment>, SLR_MBUF_NEXT);

    /// Where the data starts.
    #[inline(always)]
    fn data(self) -> *mut u8 {
        // SAFETY: `data_off` is within the buffer.
        unsafe { self.buf_addr().add(usize::from(self.data_off())) }
    }

    fn tailroom(self) -> u16 {
        self.buf_len() - self.data_off() - self.data_len()
    }
}

/// Where drivers write the time of arrival in an mbuf, and the flag that says they did; `usize::MAX`: not registered.
static TIMESTAMP_OFFSET: AtomicUsize = AtomicUsize::new(usize::MAX);
static TIMESTAMP_FLAG: AtomicU64 = AtomicU64::new(0);
/// By port: nanoseconds in one unit of its timestamps; 0 where that is not known.
static NANOS_PER_UNIT: [AtomicU32; sys::SLR_MAX_PORTS as usize] = [const { AtomicU32::new(0) }; _];

/// Lets packets of `port` tell when they arrived. Called before the port starts, as the driver then looks for the field.
pub fn enable_timestamps(port: u16, nanos_per_unit: u32) {
    let (mut offset, mut flag) = (0, 0);
    // SAFETY: the port's lease says that the EAL runs; both places are ours to write. Repeated calls give the same.
    let status = unsafe { sys::rte_mbuf_dyn_rx_timestamp_register(&raw mut offset, &raw mut flag) };
    if let (0, Ok(offset)) = (status, usize::try_from(offset)) {
        TIMESTAMP_FLAG.store(flag, Ordering::Relaxed);
        TIMESTAMP_OFFSET.store(offset, Ordering::Relaxed);
    }
    if let Some(unit) = NANOS_PER_UNIT.get(usize::from(port)) {
        unit.store(nanos_per_unit, Ordering::Relaxed);
    }
}

impl Mbuf {
    /// # Safety
    /// The caller owns the packet that starts with this mbuf, and nobody else will touch it.
    pub(super) unsafe fn from_raw(mbuf: NonNull<sys::rte_mbuf>) -> Mbuf {
        Mbuf(Segment(mbuf))
    }

    /// When the packet arrived: nanoseconds since 1970 on a captured packet; `None` where the driver does not say so.
    pub fn timestamp(&self) -> Option<u64> {
        let unit = NANOS_PER_UNIT.get(usize::from(self.0.port()))?.load(Ordering::Relaxed);
        let flag = TIMESTAMP_FLAG.load(Ordering::Relaxed);
        if unit == 0 || self.0.ol_flags() & flag == 0 {
            return None;
        }
        let offset = TIMESTAMP_OFFSET.load(Ordering::Relaxed);
        // SAFETY: a unit is stored after the offset, on the same way to the thread that polls the port, so the offset is
        // the registered one: a u64 field within the mbuf, and the flag says that the driver wrote it.
        let raw = unsafe { self.0.0.byte_add(offset).cast::<u64>().read_unaligned() };
        Some(raw.saturating_mul(u64::from(unit)))
    }

    /// Bytes of each segment, in order.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        let chain = std::iter::successors(Some(self.0), |segment| segment.next());
        // SAFETY: data of a segment of this packet, which stays borrowed.
        chain.map(|segment| unsafe { std::slice::from_raw_parts(segment.data(), usize::from(segment.data_len())) })
    }

    /// Asks the processor to fetch the start of the frame. It reads the mbuf itself, which the driver has just written.
    #[inline(always)]
    pub fn prefetch(&self) {
        prefetch_at(self.0.data().cast());
    }

    /// Adds as much of `bytes` to the last segment as fits; the rest.
    pub(super) fn fill<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let last = self.last();
        let len = usize::from(last.tailroom()).min(bytes.len());
        let (now, rest) = bytes.split_at(len);
        // SAFETY: `len` bytes behind the data are within the buffer, which nobody else has.
        unsafe { last.data().add(usize::from(last.data_len())).copy_from_nonoverlapping(now.as_ptr(), len) };
        last.set_data_len(last.data_len() + len as u16);
        self.0.set_pkt_len(self.0.pkt_len() + len as u32);
        rest
    }

    fn last(&self) -> Segment {
        let mut last = self.0;
        while let Some(next) = last.next() {
            last = next;
        }
        last
    }

    /// Adds the packet `tail` behind this one; it comes back where a packet cannot have so many segments.
    pub(super) fn append(&mut self, tail: Mbuf) -> Result<(), Mbuf> {
        let Some(segments) = self.0.nb_segs().checked_add(tail.0.nb_segs()) else { return Err(tail) };
        let Some(len) = self.0.pkt_len().checked_add(tail.0.pkt_len()) else { return Err(tail) };
        self.last().set_next(Some(tail.0));
        self.0.set_nb_segs(segments);
        self.0.set_pkt_len(len);
        std::mem::forget(tail);
        Ok(())
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        free(self.0);
    }
}

/// Frees a chain whose owner gives it up.
#[inline]
fn free(chain: Segment) {
    // SAFETY: by the caller nobody uses the chain again, and its pool lives: pools outlive their packets.
    unsafe { sys::slr_mbuf_free(chain.0.as_ptr()) }
}

impl PacketBuffer for Mbuf {
    #[inline(always)]
    fn head(&self) -> &[u8] {
        // SAFETY: data of the first segment of this packet, which stays borrowed.
        unsafe { std::slice::from_raw_parts(self.0.data(), usize::from(self.0.data_len())) }
    }

    #[inline(always)]
    fn head_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `head`; the packet is borrowed mutably, and its buffers have no second owner.
        unsafe { std::slice::from_raw_parts_mut(self.0.data(), usize::from(self.0.data_len())) }
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        self.0.pkt_len() as usize
    }

    #[inline(always)]
    fn headroom(&self) -> usize {
        usize::from(self.0.data_off())
    }

    #[inline(always)]
    fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        let data_off = self.headroom().checked_sub(count)?;
        // Cannot cut: `count <= data_off`, and `data_off + data_len` is within the buffer, whose length is a u16.
        self.0.set_data_off(data_off as u16);
        self.0.set_data_len(self.0.data_len() + count as u16);
        self.0.set_pkt_len(self.0.pkt_len() + count as u32);
        Some(self.head_mut())
    }

    #[inline(always)]
    fn trim_front(&mut self, count: usize) -> bool {
        let fits = count <= usize::from(self.0.data_len());
        if fits {
            self.0.set_data_off(self.0.data_off() + count as u16);
            self.0.set_data_len(self.0.data_len() - count as u16);
            self.0.set_pkt_len(self.0.pkt_len() - count as u32);
        }
        fits
    }

    #[inline(always)]
    fn replace_front(&mut self, removed: usize, added: usize) -> Option<&mut [u8]> {
        let behind = usize::from(self.0.data_len()).checked_sub(removed)?;
        let data_off = (self.headroom() + removed).checked_sub(added)?;
        // Nothing is cut: the data ends where it did, within a buffer whose length is a u16.
        self.0.set_data_off(data_off as u16);
        self.0.set_data_len((behind + added) as u16);
        self.0.set_pkt_len((self.0.pkt_len() as usize - removed + added) as u32);
        // SAFETY: the first `added` bytes of the first segment's data, which is borrowed mutably with `self`.
        Some(unsafe { std::slice::from_raw_parts_mut(self.0.data(), added) })
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        if len >= self.frame_len() {
            return;
        }
        let (mut last, mut rest, mut segments) = (self.0, len, 1);
        while rest > usize::from(last.data_len())
            && let Some(next) = last.next()
        {
            rest -= usize::from(last.data_len());
            last = next;
            segments += 1;
        }
        let tail = last.next();
        last.set_next(None);
        last.set_data_len(rest as u16);
        self.0.set_nb_segs(segments);
        self.0.set_pkt_len(len as u32);
        if let Some(tail) = tail {
            free(tail);
        }
    }
}
