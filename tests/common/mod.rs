//! What tests share.

pub mod capture;
pub mod lab;
pub mod mmdb;
pub mod namespaces;
pub mod router;
pub mod tunnels;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
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

/// Whether namespaces may be made here; says so when not.
pub fn may_run() -> bool {
    let root = fs::read_to_string("/proc/self/status").expect("a status").contains("Uid:\t0\t0\t");
    if !root {
        println!("skipped: not root");
    }
    root
}

/// What a command printed, which must have ended well.
pub fn said(output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    text
}

/// Sees to it that Prometheus takes a page of metrics, which is kept in `file` meanwhile.
pub fn lint_metrics(metrics: &str, file: PathBuf) {
    fs::write(&file, metrics).expect("a file");
    let page = fs::File::open(file).expect("a file");
    said(Command::new("promtool").args(["check", "metrics"]).stdin(page).output().expect("promtool"));
}
