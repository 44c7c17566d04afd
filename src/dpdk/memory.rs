//! Decides where large tables lie: in DPDK's memory, which is hugepages where the machine has them.

use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

use zerocopy::FromZeros;

use super::eal::Lease;
use super::sys;
use crate::flow::memory::Memory;

const CACHE_LINE_BYTES: usize = 64;

/// A slice in DPDK's memory, aligned to cache lines, freed on drop.
pub struct HugeSlice<T: FromZeros> {
    start: NonNull<T>,
    len: usize,
    _lease: Lease,
}

// SAFETY: it owns its elements as a Box<[T]> does, and rte_malloc and rte_free may be called from any thread.
unsafe impl<T: FromZeros + Send> Send for HugeSlice<T> {}
// SAFETY: as above; a shared reference gives out shared references to elements only.
unsafe impl<T: FromZeros + Sync> Sync for HugeSlice<T> {}

impl<T: FromZeros> HugeSlice<T> {
    /// `len` elements, all bytes zero. `None` where DPDK's memory has no such piece left, or there is no EAL.
    pub fn new(len: usize) -> Option<HugeSlice<T>> {
        let lease = Lease::take()?;
        let bytes = len.checked_mul(size_of::<T>())?.max(1);
        let align = u32::try_from(align_of::<T>().max(CACHE_LINE_BYTES)).ok()?;
        // SAFETY: the lease says that the EAL runs; a null name is allowed and the alignment is a power of two.
        let start = unsafe { sys::rte_zmalloc(ptr::null(), bytes, align) };
        Some(HugeSlice { start: NonNull::new(start)?.cast(), len, _lease: lease })
    }
}

impl<T: FromZeros> Deref for HugeSlice<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `start` is aligned and heads `len` elements that only this value owns; zeros were a valid T each.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: FromZeros> DerefMut for HugeSlice<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: FromZeros> Drop for HugeSlice<T> {
    fn drop(&mut self) {
        // SAFETY: the elements are valid and not used again; the memory came from rte_zmalloc, and the EAL still runs
        // because the lease is dropped after this.
        unsafe {
            ptr::drop_in_place(&raw mut **self);
            sys::rte_free(self.start.as_ptr().cast());
        }
    }
}

/// DPDK's memory as the place of flow tables.
#[derive(Clone, Copy, Debug)]
pub struct HugeMemory;

impl Memory for HugeMemory {
    type Slice<T: FromZeros + Send> = HugeSlice<T>;

    fn zeroed<T: FromZeros + Send>(len: usize) -> Option<HugeSlice<T>> {
        HugeSlice::new(len)
    }

    #[inline(always)]
    fn prefetch<T>(at: &T) {
        prefetch_at((&raw const *at).cast());
    }
}

/// Asks the processor to fetch the cache line at `address`, which need not be one.
#[inline(always)]
pub(super) fn prefetch_at(address: *const i8) {
    // SAFETY: a prefetch is a hint that neither faults nor reads for the program.
    unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address) }
}
