//! Real host agents at the far end of real tunnels: every kind, every way of taking it off, both families; stops, crashes.

#![cfg(feature = "dpdk")]

use std::fs::{self, OpenOptions};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::common::lab::{Lab, VIP, VIP6};
use crate::common::{may_run, said, wait_for};

fn agent_log(lab: &Lab, server: u32) -> String {
    fs::read_to_string(lab.directory().join(format!("server{server}-agent.log"))).expect("a log")
}

fn agent_process(lab: &Lab, server: u32) -> u32 {
    let text = fs::read_to_string(lab.directory().join(format!("server{server}/agent.pid"))).expect("a process");
    text.trim().parse().expect("a number")
}

fn signal(process: u32, signal: &str) {
    said(Command::new("kill").args([signal, &process.to_string()]).output().expect("kill"));
}

fn lives(process: u32) -> bool {
    // A process that has ended stays until its parent, which the lab's script no longer is, has taken note.
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn files_and_answers_pass_in_every_kind_of_tunnel_whatever_takes_it_off() {
    if !may_run() {
        return;
    }
    for (tunnel, asked, used) in [
        ("ipip", "auto", "tc"),
        ("gue", "tun", "tun"),
        ("gue1", "xdp", "xdp"),
        ("gre", "tun", "tun"),
        ("mpls", "auto", "xdp"),
        ("mac", "auto", "tc"),
    ] {
        let lab = Lab::up(&["--tunnel", tunnel, "--decapsulation", asked]);
        assert!(agent_log(&lab, 1).contains(&format!("decapsulation by {used}: ")), "{}", agent_log(&lab, 1));
        let sums = fs::read_to_string(lab.directory().join("www/SHA256SUMS")).expect("sums");
        let wanted = sums.split_whitespace().next().expect("a sum").to_owned();
        for host in [VIP.to_owned(), format!("[{VIP6}]")] {
            // Each is a flow of its own, to either server.
            let down = format!("for i in {{1..6}}; do curl -sf -m 20 http://{host}/1M | sha256sum; done");
            let sums = lab.shell("client", &down);
            assert_eq!(sums.matches(&wanted).count(), 6, "{tunnel} by {asked}, {host}: {sums}");
            let file = lab.directory().join("www/1M");
            lab.on("client", &format!("curl -sf -m 20 -T {} http://{host}/upload/{tunnel}", file.display()));
        }
        for vip in [VIP, VIP6] {
            let answers =
                lab.shell("client", &format!("for i in {{1..8}}; do dig +short +timeout=2 @{vip} who.lab txt; done"));
            assert_eq!(answers.matches("\"server").count(), 8, "{tunnel} by {asked}, {vip}: {answers}");
        }
        for server in ["server1", "server2"] {
            let status = lab.on(server, "slrctl --agent --json status");
            let packets = serde_json::from_str::<serde_json::Value>(&status).expect("JSON")["packets"].clone();
            let of = if tunnel == "gue1" { "gue" } else { tunnel };
            assert!(packets[of].as_u64().expect("a number") > 20, "{tunnel} by {asked}, {server}: {packets}");
            for dropped in ["tunnel_stranger", "no_virtual_host", "tunnel_header", "tunnel_inner", "failed"] {
                assert_eq!(packets[dropped], 0, "{tunnel} by {asked}, {server}: {packets}");
            }
        }
    }
}

#[test]
fn iperf3_and_packets_in_fragments_pass() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&[]);
    // All that follows goes to server1, where both connections of iperf3 must be.
    lab.on("router", "slrctl drain server2");
    for vip in [VIP, VIP6] {
        for direction in [&[][..], &["--reverse"]] {
            let words = [&["iperf3", "--json", "--time", "2", "--client", vip][..], direction].concat().join(" ");
            let report: serde_json::Value = serde_json::from_str(&lab.on("client", &words)).expect("JSON");
            let bits = report["end"]["sum_received"]["bits_per_second"].as_f64().expect("a rate");
            assert!(bits > 1e6, "{words}: {bits} bit/s");
        }
        // In five fragments. The first reply over IPv6 finds out that the client's link is narrower than the fabric.
        let _ = lab.command("client", &format!("ping -c 1 -W 1 -s 7000 {vip}")).output();
        let pings = lab.on("client", &format!("ping -c 3 -i 0.3 -W 3 -s 7000 {vip}"));
        assert!(pings.contains(" 0% packet loss"), "{pings}");
    }
}

/// Starts a server's agent again, which goes on with its log.
fn start_agent(lab: &Lab, server: u32) -> Child {
    let log = lab.directory().join(format!("server{server}-agent.log"));
    let log = OpenOptions::new().append(true).open(log).expect("a log");
    let config = lab.directory().join(format!("server{server}/agent.yaml"));
    let words = format!("{} --config {}", env!("CARGO_BIN_EXE_slr-host"), config.display());
    lab.command(&format!("server{server}"), &words).stderr(log).spawn().expect("slr-host")
}

fn is_connected(lab: &Lab, server: &str) -> bool {
    lab.metrics().sum("slr_child_connected", &[&format!("child=\"{server}\"")]) == 1.0
}

/// Who answers so many requests, one after the other.
fn answers(lab: &Lab, requests: u32) -> String {
    lab.shell("client", &format!("for i in {{1..{requests}}}; do curl -sf -m 2 http://{VIP}/ || exit 1; done"))
}

#[test]
fn no_request_fails_when_an_agent_is_stopped_and_started_again() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&["--drain", "30"]);
    let parents = lab.on("server2", "slrctl --agent parents");
    assert!(parents.contains("established"), "{parents}");
    let process = agent_process(&lab, 2);
    let wrk = ["keep-alive", "close"].map(|connection| {
        let words = format!("wrk -t 1 -c 10 -d 8 --timeout 5 -H Connection:{connection} http://{VIP}/");
        lab.command("client", &words).stdout(Stdio::piped()).spawn().expect("wrk")
    });
    sleep(Duration::from_secs(1));
    signal(process, "-TERM");
    // Nobody else says it to the router, and new connections go to the other server alone.
    wait_for("the router to know", || lab.log().contains("child server2 wants no new flows"));
    let agent = || agent_log(&lab, 2).contains("no parent sends new flows any more");
    wait_for("the agent to know that", agent);
    let pages = answers(&lab, 30);
    assert!(pages.contains("server1") && !pages.contains("server2"), "{pages}");
    assert!(lives(process), "connections of wrk are there still");
    for running in wrk {
        let report = said(running.wait_with_output().expect("wrk"));
        assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{report}");
        assert!(report.contains(" requests in"), "{report}");
    }
    wait_for("the agent's end", || !lives(process));
    let log = agent_log(&lab, 2);
    assert!(log.contains("draining: ") && log.contains("all changes are undone") && !log.contains("cut off"), "{log}");
    wait_for("the goodbye", || lab.log().contains("child server2 has left: it stops"));
    let addresses = lab.on("server2", "ip address show dev lo");
    assert!(!addresses.contains(VIP) && !addresses.contains(VIP6), "{addresses}");

    let mut agent = start_agent(&lab, 2);
    let is_used = || answers(&lab, 10).contains("server2");
    wait_for("server2 to be used again", is_used);
    signal(agent.id(), "-TERM");
    wait_for("the agent's end", || agent.try_wait().expect("a process").is_some());
}

#[test]
fn new_connections_leave_a_server_that_has_other_work_and_come_back() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&["--servers", "3", "--selection", "least_cost", "--cost", "load>0.5?1.0:0.0"]);
    if !lab.directory().join("groups").exists() {
        println!("skipped: no control groups of version 2, so that all servers have the machine's load");
        return;
    }
    let share = || {
        let services: serde_json::Value =
            serde_json::from_str(&lab.on("router", "slrctl --json services")).expect("JSON");
        services[0]["children"][0]["share"].as_f64().expect("a share")
    };
    let is_used = || answers(&lab, 10).contains("server1 ");
    wait_for("server1 to be used", is_used);

    let mut work = lab.command("server1", "stress-ng --quiet --cpu 4 --timeout 60").spawn().expect("stress-ng");
    wait_for("new connections to leave server1", || share() == 0.0);
    let during = answers(&lab, 20);
    let children = lab.on("router", "slrctl children");
    signal(work.id(), "-TERM");
    work.wait().expect("stress-ng");
    assert!(!during.contains("server1 ") && during.contains("server2 "), "{during}\n{children}");
    wait_for("new connections to come back", || share() > 0.3);
    wait_for("server1 to be used again", is_used);
}

#[test]
fn after_a_crash_the_next_agent_cleans_up_and_serves_again() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&["--drain", "5"]);
    signal(agent_process(&lab, 2), "-KILL");
    let up = |server: &str| lab.metrics().sum("slr_child_up", &[&format!("child=\"{server}\"")]) == 1.0;
    wait_for("server2 to be down", || !up("server2"));
    // The other one goes on, and nobody is sent to the one that is dead.
    let pages = answers(&lab, 30);
    assert!(pages.contains("server1") && !pages.contains("server2"), "{pages}");

    let mut agent = start_agent(&lab, 2);
    let works = || up("server2") && is_connected(&lab, "server2");
    wait_for("server2 to be up and to say so", works);
    // It says first that its service has not been checked yet.
    let serves = || lab.metrics().sum("slr_child_serving", &["child=\"server2\""]) == 1.0;
    wait_for("server2 to serve", serves);
    let pages = answers(&lab, 40);
    assert!(pages.contains("server1") && pages.contains("server2"), "{pages}");
    signal(agent.id(), "-TERM");
    wait_for("the agent's end", || agent.try_wait().expect("a process").is_some());
    let words = agent_log(&lab, 2);
    assert!(words.contains("that an agent had left behind") && words.contains("all changes are undone"), "{words}");
    assert!(!lab.on("server2", "ip address show dev lo").contains(VIP));
}
