//! The router on a network end to end: real clients and servers in the namespaces of `scripts/lab`.
//!
//! `scripts/soak` does the same with larger files, for longer.

#![cfg(feature = "dpdk")]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::common::lab::{Capture, Lab, VIP, VIP6};
use crate::common::{may_run, said, wait_for};

fn sha256(text: &str) -> &str {
    text.split_whitespace().next().expect("a sum")
}

#[test]
fn files_pass_unchanged_both_ways_and_replies_come_straight_from_the_server() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&[]);
    let from_vip = format!("src host {VIP} or src host {VIP6}");
    let at_client = lab.capture("client", "eth0", &from_vip);
    let at_gateway = lab.capture("gateway", "fabric", &from_vip);
    // The answers to its own health checks are for the router.
    let for_others = format!("({from_vip}) and not dst host 10.0.2.1 and not dst host 2001:db8:2::1");
    let at_router = lab.capture("router", "any", &for_others);

    let sums = fs::read_to_string(lab.directory().join("www/SHA256SUMS")).expect("sums");
    let wanted = sha256(&sums);
    for host in [VIP.to_owned(), format!("[{VIP6}]")] {
        let down = lab.shell("client", &format!("set -o pipefail; curl -sf -m 20 http://{host}/1M | sha256sum"));
        assert_eq!(sha256(&down), wanted, "download from {host}");
        let file = lab.directory().join("www/1M");
        lab.on("client", &format!("curl -sf -m 20 -T {} http://{host}/upload/{}", file.display(), host.len()));
        let stored = lab.directory().join("www/upload").join(host.len().to_string());
        let up = said(Command::new("sha256sum").arg(stored).output().expect("sha256sum"));
        assert_eq!(sha256(&up), wanted, "upload to {host}");
    }

    let [at_client, at_gateway, at_router] = [at_client, at_gateway, at_router].map(Capture::lines);
    for source in [format!(" {VIP}.80 > "), format!(" {VIP6}.80 > ")] {
        let lines = at_client.iter().filter(|line| line.contains(&source)).count();
        assert!(lines > 10, "{lines} packets from {source} at the client");
    }
    let servers: Vec<String> = ["server1", "server2"]
        .iter()
        .map(|server| lab.on(server, "cat /sys/class/net/eth0/address").trim().to_owned())
        .collect();
    for line in at_gateway {
        assert!(servers.iter().any(|mac| line.contains(&format!(" {mac} > "))), "not from a server: {line}");
    }
    assert!(at_router.is_empty(), "a reply at the router: {}", at_router[0]);
    // What clients sent has passed there, 2 MB of it.
    assert!(lab.metrics().sum("slr_virtual_host_bytes_total", &["web"]) > 2e6);
}

/// Requests of `wrk` that got no good answer, and those that got one.
fn failed_and_served(report: &str) -> (usize, usize) {
    let number = |text: &str| text.trim().parse::<usize>().expect("a number");
    let after = |words: &str| report.lines().find_map(|line| line.trim().strip_prefix(words));
    let sockets = after("Socket errors:").map_or(0, |errors| {
        errors.split(',').map(|error| number(error.trim().rsplit(' ').next().expect("a count"))).sum()
    });
    let answers = after("Non-2xx or 3xx responses:").map_or(0, number);
    let served = report.lines().find_map(|line| line.trim().split_once(" requests in")).expect("a count").0;
    (sockets + answers, number(served))
}

#[test]
fn what_wrk_says_is_understood() {
    let report = "  8 requests in 4.00s, 1MB read\n  Socket errors: connect 1, read 2, write 3, timeout 4\n  \
                  Non-2xx or 3xx responses: 5\nRequests/sec: 2";
    assert_eq!(failed_and_served(report), (15, 8));
    assert_eq!(failed_and_served("  8 requests in 4.00s, 1MB read"), (0, 8));
}

/// Starts `wrk` at the client with connections that stay, and with such that are made for one request each.
fn wrk(lab: &Lab, seconds: u32) -> [Child; 2] {
    ["keep-alive", "close"].map(|connection| {
        let words = format!("wrk -t 1 -c 20 -d {seconds} --timeout 5 -H Connection:{connection} http://{VIP}/");
        lab.command("client", &words).stdout(Stdio::piped()).spawn().expect("wrk")
    })
}

fn assert_no_request_failed(wrk: [Child; 2]) {
    for running in wrk {
        let report = said(running.wait_with_output().expect("wrk"));
        let (failed, served) = failed_and_served(&report);
        assert!(failed == 0 && served > 100, "{report}");
    }
}

#[test]
fn no_request_fails_while_servers_are_drained_and_weighed_by_reloads() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&["--servers", "3"]);
    let config = lab.directory().join("slrd.yaml");
    let text = fs::read_to_string(&config).expect("a configuration");
    let wrk = wrk(&lab, 6);
    for (reload, weight) in [0, 100, 7, 0, 300, 100, 0, 1, 100, 0].into_iter().enumerate() {
        let member = format!("{{ name: server2, weight: {weight} }}");
        let changed = text.replace("children: [server1, server2,", &format!("children: [server1, {member},"));
        assert_ne!(changed, text);
        fs::write(&config, changed).expect("a configuration");
        said(Command::new("kill").args(["-HUP", &lab.router().to_string()]).output().expect("kill"));
        wait_for("the reload", || lab.log().matches("slr: reloaded").count() > reload);
        sleep(Duration::from_millis(300));
    }
    assert_no_request_failed(wrk);
}

/// Memory that slrd holds, in KiB.
fn resident(lab: &Lab) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", lab.router())).expect("slrd");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn floods_of_pings_and_of_neighbours_stop_no_request_and_take_no_memory() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&[]);
    let storm = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab.d/storm");
    // What a storm takes once is not what it takes each time.
    lab.on("gateway", &format!("{storm} arp vips 20000"));
    lab.on("gateway", &format!("{storm} ndp vips 20000"));
    let (before, counted) = (resident(&lab), lab.metrics());

    let wrk = wrk(&lab, 6);
    let floods = [
        lab.command("gateway", &format!("{storm} arp vips 100000")),
        lab.command("gateway", &format!("{storm} ndp vips 100000")),
        lab.command("gateway", "ping -q -f -c 50000 -w 5 10.0.1.1"),
        lab.command("client", &format!("ping -q -f -c 50000 -w 5 {VIP}")),
    ];
    let floods: Vec<_> = floods.map(|mut flood| flood.stdout(Stdio::null()).spawn().expect("a flood")).into();
    for mut flood in floods {
        flood.wait().expect("a flood");
    }
    assert_no_request_failed(wrk);

    let after = lab.metrics();
    let grown = |family: &str, labels: &[&str]| after.sum(family, labels) - counted.sum(family, labels);
    // Flow tables take their memory as flows come.
    assert!(resident(&lab) < before + 8192, "{} KiB after {before}", resident(&lab));
    // The device drops what comes faster than the worker takes it.
    assert!(grown("slr_punted_packets_total", &["\"arp\""]) > 10_000.0, "{}", after.0);
    let received = after.sum("slr_received_packets_total", &[]);
    let ended = ["slr_forwarded_packets_total", "slr_punted_packets_total", "slr_dropped_packets_total"];
    let ended: f64 = ended.iter().map(|family| after.sum(family, &[])).sum();
    assert_eq!(received, ended, "{}", after.0);
    // The router still knows the way to and from its true neighbours.
    assert!(lab.on("client", &format!("curl -sf -m 5 http://{VIP}/")).contains("serves"));
}

#[test]
fn a_cable_that_is_pulled_and_plugged_in_again_is_told() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&[]);
    for (state, up) in [("down", 0.0), ("up", 1.0)] {
        lab.on("gateway", &format!("ip link set vips {state}"));
        let line = format!("slr: port clients: link is {state}\n");
        wait_for(&line, || lab.log().contains(&line));
        assert_eq!(lab.metrics().sum("slr_port_up", &["clients"]), up);
    }
    assert!(!lab.log().contains("port servers: link is"), "{}", lab.log());
}

#[test]
fn workers_share_the_flows_of_each_kind_of_device() {
    if !may_run() {
        return;
    }
    // On a veth, net_af_xdp has one queue.
    for (driver, workers) in [("net_af_packet", 2), ("net_af_xdp", 1)] {
        let lab = Lab::up(&["--driver", driver, "--workers", &workers.to_string()]);
        for host in [VIP.to_owned(), format!("[{VIP6}]")] {
            let pages = lab.shell("client", &format!("for i in {{1..40}}; do curl -sf -m 5 http://{host}/; done"));
            assert_eq!(pages.lines().filter(|line| line.contains("serves")).count(), 40, "{driver}: {pages}");
        }
        let metrics = lab.metrics();
        for worker in 0..workers {
            let flows = metrics.sum("slr_flows_inserted_total", &[&format!("worker=\"{worker}\"")]);
            assert!(flows >= 10.0, "{driver}: {flows} flows of worker {worker}");
        }
    }
}

#[test]
fn a_narrow_link_behind_the_router_stops_no_file_and_shows_in_tracepath() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&["--narrow", "1480"]);
    let file = lab.directory().join("www/1M");
    for host in [VIP.to_owned(), format!("[{VIP6}]")] {
        // Each is a flow of its own, to either server.
        for _ in 0..4 {
            let down = lab.on("client", &format!("curl -sf -m 20 -o /dev/null -w %{{size_download}} http://{host}/1M"));
            assert_eq!(down, "1048576", "download from {host}");
            lab.on("client", &format!("curl -sf -m 20 -T {} http://{host}/upload/narrow", file.display()));
        }
    }
    let fits = ["pmtu 1460", "pmtu 1440"];
    for host in [VIP, VIP6] {
        let path = lab.on("client", &format!("tracepath -n -m 8 {host}"));
        let end = path.lines().last().unwrap_or_default();
        assert!(fits.iter().any(|mtu| end.contains(mtu)) && path.contains("reached"), "{path}");
    }
}

#[test]
fn a_server_that_dies_gets_no_new_connections_a_second_later() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&["--servers", "3"]);
    let nginx = fs::read_to_string(lab.directory().join("server2/nginx.pid")).expect("a process");
    said(Command::new("kill").arg(nginx.trim()).output().expect("kill"));
    sleep(Duration::from_secs(1));
    let pages = lab.shell("client", &format!("for i in {{1..60}}; do curl -sf -m 2 http://{VIP}/ || exit 1; done"));
    for (server, serves) in [("server1", true), ("server2", false), ("server3", true)] {
        assert_eq!(pages.contains(server), serves, "{pages}");
    }
}
