//! Where a table's slices lie: the heap here, 2 MB pages where [`crate::dpdk`] provides them.

use std::ops::DerefMut;

use zerocopy::FromZeros;

/// A source of zeroed slices that live as long as the table.
pub trait Memory {
    /// An owned slice.
    type Slice<T: FromZeros + Send>: DerefMut<Target = [T]> + Send;

    /// `len` zeroed elements, or `None` when there is not that much memory.
    fn zeroed<T: FromZeros + Send>(len: usize) -> Option<Self::Slice<T>>;

    /// Asks the processor to load the cache line at `at`, where that can be asked for.
    #[inline(always)]
    fn prefetch<T>(_at: &T) {}
}

/// The process's heap.
#[derive(Clone, Copy, Debug)]
pub struct Heap;

impl Memory for Heap {
    type Slice<T: FromZeros + Send> = Vec<T>;

    fn zeroed<T: FromZeros + Send>(len: usize) -> Option<Vec<T>> {
        T::new_vec_zeroed(len).ok()
    }
}
