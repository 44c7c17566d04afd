//! Decides what runs on which lcore: worker `w` on lcore `w + 1`, one closure at a time.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::eal::Lease;
use super::{error_text, lock, sys};

type Job = Box<dyn FnOnce() + Send>;

/// DPDK starts work on an lcore without a lock of its own.
static LAUNCH: Mutex<()> = Mutex::new(());

/// Why nothing runs on the lcore, or nothing came of it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LcoreError {
    /// There is no EAL.
    #[error("worker {worker} cannot be launched: the DPDK environment is not running")]
    NotRunning {
        /// The worker.
        worker: u16,
    },
    /// Not one of [`super::EalOptions::lcores`].
    #[error("worker {worker} cannot be launched: the DPDK environment was started with fewer lcores")]
    NoSuchLcore {
        /// The worker.
        worker: u16,
    },
    /// It still works.
    #[error("worker {worker} cannot be launched: its lcore is busy")]
    Busy {
        /// The worker.
        worker: u16,
    },
    /// DPDK refused.
    #[error("worker {worker} cannot be launched: {reason}")]
    Launch {
        /// The worker.
        worker: u16,
        /// DPDK's text.
        reason: String,
    },
    /// The closure panicked.
    #[error("worker {worker} panicked: {message}")]
    Panicked {
        /// The worker.
        worker: u16,
        /// What it panicked with.
        message: String,
    },
}

/// Work that was launched. Dropping it lets the work go on.
pub struct LcoreHandle<T> {
    worker: u16,
    result: Receiver<thread::Result<T>>,
    finished: Arc<AtomicBool>,
}

/// Runs `work` on the lcore of worker `worker` (0 for the first of [`super::EalOptions::lcores`]).
///
/// A panic in `work` ends the work, not the lcore, and is told by [`LcoreHandle::join`].
pub fn launch<T, F>(worker: u16, work: F) -> Result<LcoreHandle<T>, LcoreError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let lease = Lease::take().ok_or(LcoreError::NotRunning { worker })?;
    let lcore = lcore_of(worker);
    // SAFETY: any number may be asked for; the lease says that the EAL runs.
    if unsafe { sys::rte_lcore_is_enabled(lcore) } == 0 {
        return Err(LcoreError::NoSuchLcore { worker });
    }
    let (sender, result): (SyncSender<thread::Result<T>>, _) = sync_channel(1);
    let finished = Arc::new(AtomicBool::new(false));
    let at_end = finished.clone();
    let job: Job = Box::new(move || {
        let outcome = catch_unwind(AssertUnwindSafe(work));
        // Before the sending, so that a cleanup after the join finds nothing in use.
        drop(lease);
        // Nobody waits when the handle was dropped; then the outcome goes down with the error, and may panic too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(sender.send(outcome))));
        at_end.store(true, Ordering::Release);
    });
    let argument = Box::into_raw(Box::new(job));

    let guard = lock(&LAUNCH);
    // SAFETY: the lcore is enabled and no other launch is under way. On success `run` takes the box over, exactly once.
    let status = unsafe { sys::rte_eal_remote_launch(Some(run), argument.cast(), lcore) };
    drop(guard);
    if status == 0 {
        return Ok(LcoreHandle { worker, result, finished });
    }
    // SAFETY: DPDK refused, so the box is still ours.
    drop(unsafe { Box::from_raw(argument) });
    Err(match status {
        BUSY => LcoreError::Busy { worker },
        _ => LcoreError::Launch { worker, reason: error_text(status) },
    })
}

/// `-EBUSY`
const BUSY: c_int = -16;

fn lcore_of(worker: u16) -> u32 {
    u32::from(worker) + 1
}

/// What an lcore runs: the closure of one launch, whose panics it has caught itself.
unsafe extern "C" fn run(argument: *mut c_void) -> c_int {
    // SAFETY: `launch` leaked this very box for us.
    let job = unsafe { Box::from_raw(argument.cast::<Job>()) };
    job();
    0
}

impl<T> LcoreHandle<T> {
    /// True when the work is done, or has panicked.
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Waits until the work is done and the lcore can be launched again; the work's result, or that it panicked.
    pub fn join(self) -> Result<T, LcoreError> {
        let LcoreHandle { worker, result, .. } = self;
        let outcome = result.recv().unwrap_or_else(|_| Err(Box::new("its lcore ended")));
        // SAFETY: the lcore exists, else there were no handle. It is on its way out of `run`: no long wait.
        while unsafe { sys::rte_eal_get_lcore_state(lcore_of(worker)) } == sys::rte_lcore_state_t::RUNNING {
            thread::yield_now();
        }
        outcome.map_err(|payload| LcoreError::Panicked { worker, message: message_of(&*payload) })
    }
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)").to_owned()
}
