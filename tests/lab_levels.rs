//! Three levels of routers end to end: through three tunnels, and past them, in the namespaces of `scripts/lab --levels 3`.

#![cfg(feature = "dpdk")]

use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use crate::common::lab::{Capture, Lab, Metrics, VIP, VIP6};
use crate::common::{may_run, said, wait_for};
use serde_json::Value;

const ROUTERS: [(&str, u8); 6] =
    [("network", 1), ("system1", 2), ("system2", 3), ("site1", 4), ("site2", 5), ("site3", 6)];

fn metrics(lab: &Lab, node: &str) -> Metrics {
    Metrics(lab.on(node, "curl -sf http://127.0.0.1:9477/metrics"))
}

fn json(lab: &Lab, node: &str, words: &str) -> Value {
    serde_json::from_str(&lab.on(node, &format!("slrctl --json {words}"))).expect("JSON")
}

/// When each packet of a capture passed, in time of the day.
fn times(capture: Capture) -> Vec<Duration> {
    let time = |line: String| {
        let mut parts = line.split([':', ' ']).map(|part| part.parse::<f64>().unwrap_or(f64::NAN));
        let mut next = || parts.next().expect("a time");
        Duration::from_secs_f64(next() * 3600.0 + next() * 60.0 + next())
    };
    capture.lines().into_iter().map(time).collect()
}

/// A page that the browser would call large, in every server's directory.
fn make_large(lab: &Lab, megabytes: u64) {
    let file = File::create(lab.directory().join("www/large")).expect("a file");
    file.set_len(megabytes << 20).expect("room");
}

/// The flow that is in use at a router: its child, and where it goes past that.
fn flow_in_use(lab: &Lab, node: &str) -> Option<(String, Option<String>)> {
    let flows = json(lab, node, "flows state=established");
    let flow = flows["flows"].as_array()?.iter().find(|flow| flow["idle_seconds"].as_f64() < Some(1.0))?.clone();
    let text = |key: &str| flow[key].as_str().map(str::to_owned);
    Some((text("child")?, text("shortcut")))
}

#[test]
fn a_download_goes_past_the_routers_below_the_topmost_until_its_server_is_drained() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&["--levels", "3"]);
    make_large(&lab, 100);
    for host in [VIP.to_owned(), format!("[{VIP6}]")] {
        let pages = lab.shell("client", &format!("for i in {{1..12}}; do curl -sf -m 5 http://{host}/; done"));
        assert_eq!(pages.lines().filter(|line| line.contains("serves")).count(), 12, "{pages}");
    }
    // Each level has chosen, and every router has conserved what came.
    for (node, _) in ROUTERS {
        let metrics = metrics(&lab, node);
        assert!(metrics.sum("slr_flows_inserted_total", &[]) > 0.0, "{node}: {}", metrics.0);
        assert_eq!(metrics.sum("slr_dropped_packets_total", &["tunnel"]), 0.0, "{node}: {}", metrics.0);
    }

    // Tunnel packets to each router that have a client's packet in them.
    let tunnels = |(node, host): (&str, u8)| {
        lab.capture(node, "fabric", &format!("ip proto 4 and dst host 10.0.2.{host} and src net 10.0.2.0/29"))
    };
    let below: Vec<Capture> = ROUTERS[1..].iter().copied().map(tunnels).collect();
    let at_client = lab.capture("client", "eth0", &format!("dst host {VIP}"));
    // Not in less than two seconds, in half of which a busy machine too has found the way past the routers.
    let words = format!("curl -sf -m 60 --limit-rate 50M -o /dev/null -w %{{size_download}} http://{VIP}/large");
    let loaded = lab.on("client", &words);
    assert_eq!(loaded, (100_u64 << 20).to_string());
    let sent = times(at_client);
    // One for many segments.
    assert!(sent.len() > 200, "{} packets of the client", sent.len());
    let mut first = 0;
    for ((node, _), capture) in ROUTERS[1..].iter().zip(below) {
        let passed = times(capture);
        let late = passed.iter().filter(|at| **at > sent[sent.len() / 2]).count();
        println!("{node}: {} of {} packets, {late} of the second half", passed.len(), sent.len());
        assert_eq!(late, 0, "{node} has carried {} of {} packets", passed.len(), sent.len());
        first += passed.len();
    }
    assert!(first >= 2, "a system's and a site's router have carried the first packet");

    // One that lasts: shown by the routers, and sent by all levels again when its server is drained.
    let words = format!("curl -sf -m 60 --limit-rate 8M -o /dev/null -w %{{size_download}} http://{VIP}/large");
    let download = lab.command("client", &words).stdout(Stdio::piped()).spawn().expect("curl");
    let mut shortcut = None;
    wait_for("a shortcut", || {
        shortcut = flow_in_use(&lab, "network").and_then(|(_, shortcut)| shortcut);
        shortcut.is_some()
    });
    let end = shortcut.expect("one that was waited for");
    let number = end.rsplit('.').next().and_then(|last| last.parse::<u8>().ok()).expect("an address") - 10;
    let (server, site) = (format!("server{number}"), format!("site{}", number.div_ceil(2)));
    lab.on(&site, &format!("slrctl drain {server}"));
    wait_for("the long way", || flow_in_use(&lab, "network").is_some_and(|(_, shortcut)| shortcut.is_none()));
    let by_way_of_site = || metrics(&lab, &site).sum("slr_forwarded_packets_total", &[]);
    let before = by_way_of_site();
    // How many packets a client sends for so many bytes is its own affair.
    wait_for("packets by way of the site", || by_way_of_site() > before + 20.0);
    assert_eq!(said(download.wait_with_output().expect("curl")), (100_u64 << 20).to_string());
    let network = metrics(&lab, "network");
    assert!(network.sum("slr_shortcuts_total", &["revoked"]) > 0.0, "{}", network.0);
}

#[test]
fn without_shortcuts_every_packet_passes_all_levels_and_a_trace_says_so() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&["--levels", "3", "--shortcuts", "off"]);
    let file = lab.directory().join("www/1M");
    let loaded = lab.on("client", &format!("curl -sf -m 20 -T {} http://{VIP}/upload/1M", file.display()));
    assert_eq!(loaded, "");
    let stored = fs::read(lab.directory().join("www/upload/1M")).expect("a file");
    assert_eq!(stored, fs::read(file).expect("a file"));
    let sum = |level: &str, family| {
        let nodes = ROUTERS.iter().filter(|(node, _)| node.starts_with(level));
        nodes.map(|(node, _)| metrics(&lab, node).sum(family, &[])).sum::<f64>()
    };
    let by_network = sum("network", "slr_virtual_host_packets_total");
    assert!(by_network > 700.0, "{by_network}");
    for level in ["system", "site"] {
        let passed = sum(level, "slr_virtual_host_packets_total");
        assert!(passed >= by_network, "{passed} of {by_network} packets by {level} routers");
        assert_eq!(sum(level, "slr_shortcuts_told_total"), 0.0);
    }
    let trace = json(&lab, "network", &format!("trace 10.0.0.2:4711 {VIP}:80"));
    assert_eq!((trace["outcome"].as_str(), trace["shortcut"].is_null()), (Some("forwarded"), true), "{trace:#}");
}
