//! Decides where packet buffers come from: fixed pools, made at start.

use std::ffi::CString;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::eal::Lease;
use super::mbuf::Mbuf;
use super::{errno, log, reason, sys};
use crate::packet::buffer::PacketBuffer;

/// Buffers that an lcore may keep for itself, as a share of the pool and at most. A cache may grow to half as much
/// again, so 16 lcores hold no more than three quarters of the smallest pool.
const CACHE_SHARE: u32 = 32;
const CACHE_MAX: u32 = 256;

/// Why there is no pool.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PoolError {
    /// There is no EAL.
    #[error("pool `{0}` cannot be made: the DPDK environment is not running")]
    NotRunning(String),
    /// Sizes that no pool can have.
    #[error("pool `{name}` cannot have {buffers} buffers of {data_room} bytes: at least 1 buffer, 64 to {max} bytes")]
    Size {
        /// The pool.
        name: String,
        /// Buffers asked for.
        buffers: u32,
        /// Bytes asked for in each.
        data_room: u16,
        /// The most bytes.
        max: u16,
    },
    /// DPDK refused: the name is taken or too long, or there is no memory.
    #[error("pool `{name}` of {buffers} buffers (about {mib} MiB) cannot be made: {reason}")]
    Create {
        /// The pool.
        name: String,
        /// Buffers asked for.
        buffers: u32,
        /// Memory that they need.
        mib: u64,
        /// DPDK's error and log.
        reason: String,
    },
}

/// A handle on a pool of packet buffers. Clones are handles on the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    pool: NonNull<sys::rte_mempool>,
    size: u32,
    data_room: u16,
    lease: ManuallyDrop<Lease>,
}

// SAFETY: the pool's ring is for many producers and consumers, and caches belong to one lcore each.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Pool {
    /// Makes a pool of `buffers` buffers, each with room for `data_room` bytes beside the headroom of 128.
    ///
    /// Each receive descriptor of a port and each lcore's cache takes buffers out; count them in. `name` is unique in the
    /// process and at most 25 bytes long.
    pub fn new(name: &str, buffers: u32, data_room: u16) -> Result<Pool, PoolError> {
        let lease = Lease::take().ok_or_else(|| PoolError::NotRunning(name.to_owned()))?;
        let max = u16::MAX - sys::SLR_HEADROOM;
        if buffers == 0 || !(64..=max).contains(&data_room) {
            return Err(PoolError::Size { name: name.to_owned(), buffers, data_room, max });
        }
        let room = data_room + sys::SLR_HEADROOM;
        let create = |reason| {
            let mib = (u64::from(buffers) * (u64::from(room) + 256)).div_ceil(1 << 20);
            PoolError::Create { name: name.to_owned(), buffers, mib, reason }
        };
        let text = CString::new(name).map_err(|_| create("its name has a zero byte".to_owned()))?;
        let cache = (buffers / CACHE_SHARE).min(CACHE_MAX);
        let ((pool, error), said) = log::during(|| {
            // SAFETY: the lease says that the EAL runs; the name is copied. Socket -1 is any.
            let pool = unsafe { sys::rte_pktmbuf_pool_create(text.as_ptr(), buffers, cache, 0, room, -1) };
            (NonNull::new(pool), errno())
        });
        let pool = pool.ok_or_else(|| create(reason(error, &said)))?;
        Ok(Pool(Arc::new(Inner { pool, size: buffers, data_room, lease: ManuallyDrop::new(lease) })))
    }

    /// Buffers that are in the pool or in an lcore's cache. Exact only while nobody allocates or frees.
    pub fn available(&self) -> u32 {
        self.0.available()
    }

    /// Buffers that packets and receive descriptors hold. Exact only while nobody allocates or frees.
    pub fn in_use(&self) -> u32 {
        self.size() - self.available()
    }

    /// All buffers of the pool.
    pub fn size(&self) -> u32 {
        self.0.size
    }

    /// Bytes that one buffer holds beside its headroom.
    pub fn data_room(&self) -> u16 {
        self.0.data_room
    }

    /// An empty packet of one segment; `None` when the pool has none left.
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives as long as this handle.
        let mbuf = NonNull::new(unsafe { sys::slr_mbuf_alloc(self.0.pool.as_ptr()) })?;
        // SAFETY: freshly allocated: nobody else has it.
        Some(unsafe { Mbuf::from_raw(mbuf) })
    }

    /// A packet that holds a copy of `frame`, in as many segments as it takes; `None` when the pool has too few left.
    pub fn alloc_from(&self, frame: &[u8]) -> Option<Mbuf> {
        self.alloc_of([frame])
    }

    /// A packet that holds a copy of `header` and behind it of the bytes `range` of `of`; `None` when the pool has too few
    /// buffers left, or where there are no such bytes.
    pub fn alloc_piece(&self, header: &[u8], of: &Mbuf, range: Range<usize>) -> Option<Mbuf> {
        if range.start > range.end || range.end > of.frame_len() {
            return None;
        }
        let mut behind = 0;
        let parts = of.segments().map(|segment| {
            let from = range.start.saturating_sub(behind).min(segment.len());
            let to = range.end.saturating_sub(behind).min(segment.len());
            behind += segment.len();
            segment.get(from..to).unwrap_or_default()
        });
        self.alloc_of([header].into_iter().chain(parts))
    }

    /// A packet that holds a copy of all `parts`.
    fn alloc_of<'p>(&self, parts: impl IntoIterator<Item = &'p [u8]>) -> Option<Mbuf> {
        let mut packet = self.alloc()?;
        for part in parts {
            let mut rest = packet.fill(part);
            while !rest.is_empty() {
                let mut segment = self.alloc()?;
                rest = segment.fill(rest);
                packet.append(segment).ok()?;
            }
        }
        Some(packet)
    }

    /// The pool itself, valid as long as this handle.
    pub(super) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.0.pool.as_ptr()
    }
}

impl Inner {
    fn available(&self) -> u32 {
        // SAFETY: the pool lives as long as `self`.
        unsafe { sys::rte_mempool_avail_count(self.pool.as_ptr()) }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.available() < self.size {
            // Packets are still out, so pool and lease stay for ever. Nobody can allocate any more: the number only grows.
            return;
        }
        // SAFETY: every buffer is back and this was the last handle, so nobody knows the pool any more. The lease goes
        // after it, once, as this is its only drop.
        unsafe {
            sys::rte_mempool_free(self.pool.as_ptr());
            ManuallyDrop::drop(&mut self.lease);
        }
    }
}
