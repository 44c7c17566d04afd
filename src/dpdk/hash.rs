//! Decides how DPDK's own hash table may be used: as what the benches hold the router's flow table against, nothing else.

use std::ffi::{CString, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use zerocopy::{Immutable, IntoBytes};

use super::eal::Lease;
use super::sys;

/// Most keys that are looked up together.
pub const BULK_MAX: usize = sys::RTE_HASH_LOOKUP_BULK_MAX as usize;

/// A hash table of DPDK: keys of type `K`, each with a number.
pub struct RteHash<K> {
    table: NonNull<sys::rte_hash>,
    key: PhantomData<K>,
    _lease: Lease,
}

// SAFETY: the table is this value's alone, and no function of it depends on the thread.
unsafe impl<K: Send> Send for RteHash<K> {}

impl<K: IntoBytes + Immutable> RteHash<K> {
    /// A table for `entries` keys with DPDK's default hash; `None` where there is no memory, or no EAL. No two tables have
    /// the same name.
    pub fn new(name: &str, entries: u32) -> Option<RteHash<K>> {
        let lease = Lease::take()?;
        let name = CString::new(name).ok()?;
        let parameters = sys::rte_hash_parameters {
            name: name.as_ptr(),
            entries,
            key_len: size_of::<K>() as u32,
            ..sys::rte_hash_parameters::default()
        };
        // SAFETY: the lease says that the EAL runs; the name is copied.
        let table = unsafe { sys::rte_hash_create(&raw const parameters) };
        Some(RteHash { table: NonNull::new(table)?, key: PhantomData, _lease: lease })
    }

    /// Adds a key; false where there is no room.
    pub fn insert(&mut self, key: &K, number: u32) -> bool {
        let data = ptr::without_provenance_mut::<c_void>(number as usize);
        // SAFETY: the table is alive and only `self` uses it; it reads as many bytes as `K` has, none of them padding.
        unsafe { sys::rte_hash_add_key_data(self.table.as_ptr(), ptr::from_ref(key).cast(), data) == 0 }
    }

    /// The numbers of up to [`BULK_MAX`] keys, into `numbers`, and a bit for each key that was found.
    #[inline]
    pub fn look_up(&self, keys: &[K], numbers: &mut [usize; BULK_MAX]) -> u64 {
        let mut places = [ptr::null::<c_void>(); BULK_MAX];
        let mut hits = 0;
        let count = keys.len().min(BULK_MAX);
        for (place, key) in places.iter_mut().zip(keys) {
            *place = ptr::from_ref(key).cast();
        }
        if count > 0 {
            // SAFETY: `count` keys are alive behind `places`; hits and numbers have room for BULK_MAX, and a number is as
            // wide as a pointer.
            unsafe {
                sys::rte_hash_lookup_bulk_data(
                    self.table.as_ptr(),
                    places.as_mut_ptr(),
                    count as u32,
                    &raw mut hits,
                    numbers.as_mut_ptr().cast(),
                );
            }
        }
        hits
    }
}

impl<K> Drop for RteHash<K> {
    fn drop(&mut self) {
        // SAFETY: nobody else has the table, and the EAL still runs because the lease is dropped after this.
        unsafe { sys::rte_hash_free(self.table.as_ptr()) }
    }
}
