//! Connections that the network sends to another router of a cluster: who finds them again, and that nobody does where
//! nobody is asked.

#![cfg(feature = "dpdk")]

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use crate::common::lab::{Lab, Metrics, VIP};
use crate::common::may_run;

/// Downloads under way while the network changes its mind.
const DOWNLOADS: usize = 8;

/// A cluster through whose first router downloads have begun that the second and then the third router gets. Returns how
/// many of them end well, and what those two have counted.
fn moved(recovery: &str) -> (usize, [Metrics; 2]) {
    let lab = Lab::up(&["--cluster", "3", "--recovery", recovery]);
    let by = |router: u8| lab.on("gateway", &format!("ip route replace 192.0.2.0/24 via 10.0.1.{router}"));
    by(1);
    // So that what is to come does not wait in the client already.
    lab.shell("client", "sysctl -q -w net.ipv4.tcp_rmem='4096 16384 32768'");
    let download = |_| {
        let mut command = lab.script("exec");
        let line = format!("curl -sf -m 20 --limit-rate 200k http://{VIP}/1M | sha256sum");
        command.args(["client", "bash", "-c", &line]).stdout(Stdio::piped()).spawn().expect("scripts/lab")
    };
    let downloads: Vec<_> = (0..DOWNLOADS).map(download).collect();
    sleep(Duration::from_millis(1500));
    by(2);
    sleep(Duration::from_millis(1500));
    by(3);
    let sums = std::fs::read_to_string(lab.directory().join("www/SHA256SUMS")).expect("sums");
    let sum = sums.split_whitespace().next().expect("a sum");
    let outputs = downloads.into_iter().map(|download| download.wait_with_output().expect("a download"));
    let whole = outputs.filter(|output| String::from_utf8_lossy(&output.stdout).starts_with(sum)).count();
    let metrics = |router: &str| Metrics(lab.on(router, "curl -sf http://127.0.0.1:9477/metrics"));
    (whole, ["router2", "router3"].map(metrics))
}

fn events(metrics: &Metrics, event: &str) -> f64 {
    metrics.sum("slr_recovery_events_total", &[&format!("\"{event}\"")])
}

#[test]
fn connections_survive_another_router_by_whohas() {
    if !may_run() {
        return;
    }
    let (whole, routers) = moved("whohas");
    assert_eq!(whole, DOWNLOADS);
    for router in &routers {
        assert!(events(router, "peers_found") >= DOWNLOADS as f64, "{}", events(router, "peers_found"));
        assert_eq!(events(router, "echo_installed"), 0.0);
        assert_eq!(events(router, "forged") + events(router, "malformed"), 0.0);
    }
}

#[test]
fn connections_survive_another_router_by_recovery_echoes() {
    if !may_run() {
        return;
    }
    let (whole, routers) = moved("echo");
    assert_eq!(whole, DOWNLOADS);
    let installed = routers.iter().map(|router| events(router, "echo_installed")).sum::<f64>();
    // Where a download has got all of its data before the next change it needs no more.
    assert!(installed >= DOWNLOADS as f64, "{installed}");
    for router in &routers {
        assert_eq!(events(router, "peers_asked") + events(router, "echo_forged"), 0.0);
    }
}

#[test]
fn connections_break_where_nobody_finds_them_again() {
    if !may_run() {
        return;
    }
    let (whole, routers) = moved("none");
    assert_eq!(whole, 0);
    for router in &routers {
        assert_eq!(events(router, "peers_found") + events(router, "echo_installed"), 0.0);
        assert!(router.sum("slr_dropped_packets_total", &["\"unknown_flow\""]) > 0.0);
    }
}
