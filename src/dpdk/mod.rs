//! Decides how memory and ports of DPDK may be touched: the only room with `unsafe`, and what leaves it is safe.
//!
//! ```text
//!   Eal::init ──► Pool::new ──► Port::open ──► Port::start
//!                    │              ├── RxQueue ──burst──► Mbuf ──burst──► TxQueue     one thread each
//!                    └──alloc_from──┴─────────────────────► Mbuf
//! ```
//!
//! Who owns what:
//! - An [`Mbuf`] is one packet with all its segments and has one owner. Dropping it frees it; a transmit takes it.
//! - A [`RxQueue`] or [`TxQueue`] has one owner too, who may be any one thread at a time. Each keeps its port open.
//! - A device is stopped and closed, and unplugged when it is a virtual one, when its [`Port`] and all queues are gone;
//!   [`Port::close`] does that at a known point.
//! - A [`Pool`] is freed when its last handle and the last port that receives into it are gone. With packets still out
//!   it is kept until the process ends instead, so no packet ever outlives its memory. Join the workers first.
//! - The [`Eal`] is started once per process and lives to its end, unless [`Eal::cleanup`] finds everything else gone.
//!
//! Any thread may call anything here. Lcores (see [`lcore`]) allocate and free from a cache of their own; other threads
//! use the pool's shared ring.

mod eal;
mod hash;
pub mod lcore;
mod log;
mod mbuf;
mod memory;
mod plug;
mod pool;
mod port;
mod queue;
mod sys;
pub mod tsc;

pub use eal::{Eal, EalError, EalOptions, Hugepages, Pages};
pub use hash::{BULK_MAX, RteHash};
pub use mbuf::Mbuf;
pub use memory::{HugeMemory, HugeSlice};
pub use pool::{Pool, PoolError};
pub use port::{Link, Port, PortError, PortOptions, PortStats};
pub use queue::{RxQueue, TxQueue, TxResult};

use std::ffi::{CStr, c_int};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks what stays consistent whatever panicked while it was locked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// DPDK's text for an error number of either sign.
fn error_text(number: c_int) -> String {
    // SAFETY: takes any number and returns a string that stays valid until this thread calls it again; copied here.
    unsafe { CStr::from_ptr(sys::rte_strerror(number.abs())) }.to_string_lossy().into_owned()
}

/// Reason of a failed call: the error's text, then what DPDK logged during the call.
fn reason(number: c_int, said: &str) -> String {
    // DPDK's -1 is any failure, and seldom the error of that number (operation not permitted).
    match (number.abs(), said) {
        (0 | 1, "") => "DPDK does not say why".to_owned(),
        (0 | 1, said) => format!("DPDK says: {said}"),
        (_, "") => error_text(number),
        (_, said) => format!("{}; DPDK says: {said}", error_text(number)),
    }
}

/// This thread's `rte_errno`.
fn errno() -> c_int {
    // SAFETY: reads a thread-local of libraries that are linked in.
    unsafe { sys::slr_errno() }
}
