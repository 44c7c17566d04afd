//! Two routers with the address of one: what is under way goes on when the active one dies, loses its links, or takes over
//! again; and the same with another program's router as the second one.

#![cfg(feature = "dpdk")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::common::lab::{Lab, Metrics, VIP, VIP6};
use crate::common::{may_run, wait_for};

const DOWNLOADS: usize = 6;
const IDLE: usize = 100;

/// Connections of the client that do nothing until they are asked for.
struct Idle {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Idle {
    fn open(lab: &Lab, count: usize) -> Idle {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab.d/idle");
        let mut command = lab.script("exec");
        command.args(["client", script, &count.to_string(), VIP]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("scripts/lab");
        let (stdin, stdout) = (process.stdin.take(), BufReader::new(process.stdout.take().expect("a pipe")));
        let mut idle = Idle { process, stdin, stdout };
        assert_eq!(idle.line(), format!("open {count}"));
        idle
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("UTF-8");
        line.trim().to_owned()
    }

    fn ask(&mut self) -> String {
        self.stdin.as_mut().expect("a pipe").write_all(b"\n").expect("it runs");
        self.line()
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.process.wait();
    }
}

/// What a router says of itself, or nothing while it does not run.
fn role(lab: &Lab, router: u8) -> String {
    let output = lab.command(&format!("router{router}"), "slrctl --json ha").output().expect("scripts/lab");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ["initial", "standby", "active", "inoperative"]
        .into_iter()
        .find(|role| text.contains(&format!("\"role\": \"{role}\"")))
        .unwrap_or_default()
        .to_owned()
}

fn until_roles(lab: &Lab, first: &str, second: &str) {
    wait_for(&format!("{first}, {second}"), || role(lab, 1) == first && role(lab, 2) == second);
}

fn metrics(lab: &Lab, router: u8) -> Metrics {
    Metrics(lab.on(&format!("router{router}"), "curl -sf http://127.0.0.1:9477/metrics"))
}

/// Waits until the other router knows of so many flows of this one.
fn until_mirrored(lab: &Lab, router: u8, flows: usize) {
    wait_for("the flows", || {
        let metrics = metrics(lab, router);
        metrics.sum("slr_mirror_flows", &[]) >= flows as f64 && metrics.sum("slr_mirror_pending_flows", &[]) == 0.0
    });
}

fn process(lab: &Lab, router: u8) -> String {
    let path = lab.directory().join(format!("router{router}/slrd.pid"));
    std::fs::read_to_string(path).expect("a process").trim().to_owned()
}

fn kill(lab: &Lab, router: u8) {
    assert!(Command::new("kill").args(["-9", &process(lab, router)]).status().expect("kill").success());
}

fn downloads(lab: &Lab) -> Vec<Child> {
    let one = |number: usize| {
        let host = if number.is_multiple_of(2) { VIP.to_owned() } else { format!("[{VIP6}]") };
        let line = format!("curl -sf -m 40 --limit-rate 60k 'http://{host}/1M' | sha256sum");
        let mut command = lab.script("exec");
        command.args(["client", "bash", "-c", &line]).stdout(Stdio::piped()).spawn().expect("scripts/lab")
    };
    (0..DOWNLOADS).map(one).collect()
}

/// How many of the downloads were whole.
fn whole(lab: &Lab, downloads: Vec<Child>) -> usize {
    let sums = std::fs::read_to_string(lab.directory().join("www/SHA256SUMS")).expect("sums");
    let sum = sums.split_whitespace().next().expect("a sum");
    let outputs = downloads.into_iter().map(|download| download.wait_with_output().expect("a download"));
    outputs.filter(|output| String::from_utf8_lossy(&output.stdout).starts_with(sum)).count()
}

#[test]
fn connections_survive_the_death_and_the_return_of_the_active_router() {
    if !may_run() {
        return;
    }
    // With keys apart a second selection would go elsewhere.
    let lab = Lab::up(&["--pair", "--servers", "3", "--keys", "apart"]);
    until_roles(&lab, "active", "standby");
    // So that what is to come does not wait in the client already.
    lab.shell("client", "sysctl -q -w net.ipv4.tcp_rmem='4096 16384 32768'");
    let mut idle = Idle::open(&lab, IDLE);
    let downloads = downloads(&lab);
    let all = format!("answered {IDLE}, failed 0");
    until_mirrored(&lab, 1, IDLE + DOWNLOADS);

    kill(&lab, 1);
    wait_for("the other one", || role(&lab, 2) == "active");
    assert_eq!(idle.ask(), all);

    let configuration = lab.directory().join("router1/slrd.yaml");
    let mut back = lab.script("exec");
    back.args(["router1", "slrd", "--config"]).arg(configuration).stdout(Stdio::null()).stderr(Stdio::null());
    let mut back = back.spawn().expect("scripts/lab");
    until_roles(&lab, "active", "standby");
    assert_eq!(idle.ask(), all);

    // Without its link to the access routers it gives the address up by the other way.
    lab.on("switch", "ip link set c-router1 down");
    until_roles(&lab, "inoperative", "active");
    assert_eq!(idle.ask(), all);
    lab.on("switch", "ip link set c-router1 up");
    until_roles(&lab, "active", "standby");

    // What an operator wants.
    lab.on("router1", "slrctl ha standby");
    until_roles(&lab, "standby", "active");
    assert_eq!(idle.ask(), all);
    lab.on("router1", "slrctl ha active");
    until_roles(&lab, "active", "standby");
    assert_eq!(whole(&lab, downloads), DOWNLOADS);
    assert_eq!(idle.ask(), all);

    for router in [1, 2] {
        let metrics = metrics(&lab, router);
        for path in ["access", "peer"] {
            assert!(metrics.sum("slr_pair_heard_total", &[path]) > 0.0, "router{router} hears nothing by {path}");
        }
        for reason in ["forged", "malformed", "replayed"] {
            assert_eq!(metrics.sum("slr_pair_datagrams_total", &[reason]), 0.0, "{reason}");
        }
    }
    // All flows were there before the first router took over again.
    assert!(metrics(&lab, 1).sum("slr_mirror_events_total", &["\"kept\""]) >= IDLE as f64);
    drop(idle);
    back.kill().expect("it runs");
    back.wait().expect("it ends");
}

#[test]
fn connections_break_where_the_flows_of_the_other_router_are_not_known() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&["--pair", "--servers", "3", "--keys", "apart", "--mirror", "off"]);
    until_roles(&lab, "active", "standby");
    let mut idle = Idle::open(&lab, IDLE);
    kill(&lab, 1);
    wait_for("the other one", || role(&lab, 2) == "active");
    assert_ne!(idle.ask(), format!("answered {IDLE}, failed 0"));
}

#[test]
fn keepalived_and_slrd_agree_on_who_is_active() {
    if !may_run() {
        return;
    }
    let lab = Lab::up(&["--pair", "--peer", "keepalived", "--servers", "1", "--heartbeat", "100"]);
    let has = || lab.on("router2", "ip -4 address show dev clients").contains("10.0.1.10");
    let ours = || role(&lab, 1);
    wait_for("slrd", || ours() == "active" && !has());
    lab.on("client", &format!("curl -sf -m 5 -o /dev/null http://{VIP}/"));
    for _ in 0..2 {
        lab.on("router1", "slrctl ha standby");
        wait_for("keepalived", || ours() == "standby" && has());
        assert!(metrics(&lab, 1).sum("slr_pair_advertisements_total", &["\"taken\""]) > 0.0);
        lab.on("router1", "slrctl ha active");
        wait_for("slrd again", || ours() == "active" && !has());
    }
    let metrics = metrics(&lab, 1);
    for reason in ["checksum", "malformed", "hop_limit", "other_addresses"] {
        assert_eq!(metrics.sum("slr_pair_advertisements_total", &[&format!("\"{reason}\"")]), 0.0, "{reason}");
    }
}
