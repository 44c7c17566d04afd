//! What tests share.

pub mod capture;
pub mod lab;
pub mod mmdb;
pub mod router;
pub mod tunnels;

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take on a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something has happened, and returns how long it took.
pub fn wait_for(what: &str, mut happened: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        sleep(Duration::from_millis(20));
    }
    start.elapsed()
}
