//! Keeps what DPDK logs off the console and gives it to the error that it explains.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{lock, sys};

/// `RTE_LOG_WARNING`: graver levels are smaller.
const WARNING: u32 = 5;
const LINES_MAX: usize = 16;

/// The latest warnings and errors, and how many there ever were.
struct Tail {
    lines: VecDeque<String>,
    count: usize,
}

static TAIL: Mutex<Tail> = Mutex::new(Tail { lines: VecDeque::new(), count: 0 });
static VERBOSE: AtomicBool = AtomicBool::new(false);

/// Takes over DPDK's log; with `verbose` all of it is also written to standard error.
pub fn install(verbose: bool) {
    VERBOSE.store(verbose, Ordering::Relaxed);
    // SAFETY: `sink` has the signature that the shim calls and lives as long as the process. Where there is no memory
    // for the stream the log stays on the console, which is no harm.
    unsafe { sys::slr_log_to(Some(sink)) };
}

unsafe extern "C" fn sink(level: u32, text: *const c_char, len: usize) {
    // SAFETY: the shim hands over the buffer of a stdio write: `len` initialised bytes, not changed during the call.
    let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    if VERBOSE.load(Ordering::Relaxed) {
        let _ = std::io::stderr().write_all(text);
    }
    if level > WARNING {
        return;
    }
    let mut tail = lock(&TAIL);
    for line in String::from_utf8_lossy(text).lines().map(str::trim).filter(|line| !line.is_empty()) {
        if tail.lines.len() == LINES_MAX {
            tail.lines.pop_front();
        }
        tail.lines.push_back(line.to_owned());
        tail.count += 1;
    }
}

/// What `call` returns, and the warnings and errors logged meanwhile (by any thread), joined into one line.
pub fn during<R>(call: impl FnOnce() -> R) -> (R, String) {
    let before = lock(&TAIL).count;
    let result = call();
    let tail = lock(&TAIL);
    let new = (tail.count - before).min(tail.lines.len());
    let said: Vec<&str> = tail.lines.iter().skip(tail.lines.len() - new).map(String::as_str).collect();
    (result, said.join("; "))
}
