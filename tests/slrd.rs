//! `slrd` as a user runs it: check a configuration, start on DPDK devices, serve metrics, stop on a signal.

#![cfg(feature = "dpdk")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::common::PATIENCE;

const MANIFEST: &str = env!("CARGO_MANIFEST_DIR");

fn slrd() -> Command {
    let mut slrd = Command::new(env!("CARGO_BIN_EXE_slrd"));
    slrd.current_dir(MANIFEST);
    slrd
}

/// A router that reads the demo capture as its one port, and two children as its neighbours.
fn config(directory: &Path, device: &str, listen: &str) -> std::path::PathBuf {
    let path = directory.join("router.yaml");
    let text = format!(
        r#"
router: {{ name: test, tunnel_addresses: [10.9.0.254] }}
dpdk: {{ hugepages: never, memory: 128MiB, buffers: 4096 }}
workers: {{ count: 1 }}
flows: {{ capacity_v4: 10000, capacity_v6: 10000 }}
ports:
  - {{ name: only, device: "{device}", mtu: 1600, addresses: [10.9.0.254/24] }}
neighbours:
  - {{ address: 10.9.0.1, mac: "02:00:00:00:00:11" }}
  - {{ address: 10.9.0.2, mac: "02:00:00:00:00:12" }}
children:
  - {{ name: first, address: 10.9.0.1 }}
  - {{ name: second, address: 10.9.0.2 }}
virtual_hosts:
  - {{ name: everything, addresses: [0.0.0.0/0, "::/0"], services: [tcp, udp], children: [first, second] }}
metrics: {{ listen: "{listen}" }}
control: {{ socket: off }}
"#
    );
    fs::write(&path, text).expect("a file");
    path
}

/// A running router and the lines that it prints to standard error; killed when the test fails.
struct Running(Child, Receiver<String>);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the router and returns it with the address of its metrics.
fn start(config: &Path) -> (Running, String) {
    let mut command = slrd();
    command.arg("--config").arg(config).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("slrd");
    let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let (sender, said) = channel();
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| sender.send(line).unwrap_or_default()));
    let running = Running(child, said);
    let url = running.says("metrics at http://");
    let address = url.split("http://").nth(1).expect("an address").trim_end_matches("/metrics").to_owned();
    (running, address)
}

impl Running {
    /// The next line with these words.
    fn says(&self, words: &str) -> String {
        let mut lines = std::iter::from_fn(|| self.1.recv_timeout(PATIENCE).ok());
        lines.find(|line| line.contains(words)).unwrap_or_else(|| panic!("slrd does not say {words}"))
    }

    fn signal(&self, signal: &str) {
        Command::new("kill").arg(signal).arg(self.0.id().to_string()).status().expect("kill");
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// The value of the sample that starts with `name`.
fn sample(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {metrics}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn it_forwards_serves_metrics_and_stops_with_its_counters() {
    let directory = tempfile::tempdir().expect("a directory");
    let sent = directory.path().join("sent.pcap");
    let device = format!("net_pcap0,rx_pcap={MANIFEST}/tests/captures/demo.pcap,tx_pcap={}", sent.display());
    let (mut running, address) = start(&config(directory.path(), &device, "127.0.0.1:0"));

    // A packet in the middle of its walk is received, and not yet anything else.
    let deadline = Instant::now() + PATIENCE;
    let (metrics, forwarded) = loop {
        let metrics = get(&address, "/metrics");
        let forwarded = sample(&metrics, "slr_forwarded_packets_total");
        let punted =
            ["arp", "neighbour_discovery"].map(|reason| format!("slr_punted_packets_total{{reason=\"{reason}\""));
        // A client's answer from a closed port is about a packet in the other direction.
        let dropped = ["no_virtual_host", "icmp_error_unknown_flow"]
            .map(|reason| format!("slr_dropped_packets_total{{reason=\"{reason}\""));
        let others: f64 = punted.iter().chain(&dropped).map(|name| sample(&metrics, name)).sum();
        let children = ["first", "second"]
            .map(|name| format!("slr_virtual_host_packets_total{{child=\"{name}\",virtual_host=\"everything\"}}"));
        let carried: f64 = children.iter().map(|name| sample(&metrics, name)).sum();
        // The router also announces itself.
        let left = sample(&metrics, "slr_port_transmit_packets_total{port=\"only\"}") >= forwarded;
        let received = sample(&metrics, "slr_received_packets_total");
        if received == 852.0 && forwarded + others == received && carried == forwarded && left {
            break (metrics, forwarded);
        }
        assert!(Instant::now() < deadline, "not every packet of the capture has its end in time: {metrics}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(forwarded > 800.0);
    assert!(get(&address, "/elsewhere").starts_with("HTTP/1.1 404"));
    assert_promtool_is_content(metrics.split("\r\n\r\n").nth(1).expect("a body"));

    running.signal("-TERM");
    let mut counters = String::new();
    running.0.stdout.take().expect("a pipe").read_to_string(&mut counters).expect("UTF-8");
    assert_eq!(running.0.wait().expect("an end").code(), Some(0));
    for words in ["everything", "first", "received", "852", "neighbour_discovery", "flows:"] {
        assert!(counters.contains(words), "{words} is not in:\n{counters}");
    }
    let written = fs::read(&sent).expect("what was sent");
    assert!(written.len() > 400_000, "{} bytes were sent", written.len());
}

fn assert_promtool_is_content(metrics: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (scripts/test does it)");
    promtool.stdin.take().expect("a pipe").write_all(metrics.as_bytes()).expect("a pipe");
    let output = promtool.wait_with_output().expect("promtool");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn a_check_prints_what_was_understood() {
    for sample in ["replay", "lab", "bare-metal"] {
        let output =
            slrd().args(["--check", "--config", &format!("dpdk-config/{sample}.yaml")]).output().expect("slrd");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("tunnel addresses"), "{sample}: {said}");
        assert!(said.contains("new flows, by slots") && said.contains(" of 65537 "), "{sample}: {said}");
    }
}

fn assert_one_line(output: &Output, status: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{said}");
    // What was announced before does not count: the last line is the error.
    let last = said.lines().last().unwrap_or_default();
    assert!(words.iter().all(|word| last.contains(word)), "{words:?} in: {said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn what_cannot_be_started_is_one_clear_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    for (device, listen, words) in [
        ("net_af_packet0,iface=no-such-if", "off", &["no-such-if"][..]),
        ("0000:7f:00.0", "off", &["0000:7f:00.0"]),
        ("net_nonsense0", "off", &["net_nonsense0"]),
        ("net_null0", taken.as_str(), &["metrics.listen", taken.as_str(), "in use"]),
    ] {
        let config = config(directory.path(), device, listen);
        assert_one_line(&slrd().arg("--config").arg(config).output().expect("slrd"), 1, words);
    }
    let run = |config: &str| slrd().args(["--config", config]).output().expect("slrd");
    assert_one_line(&run("dpdk-config/replay.yaml"), 2, &["no ports"]);
    assert_one_line(&run("/nonexistent.yaml"), 2, &["/nonexistent.yaml"]);
}

#[test]
fn at_sighup_it_takes_the_new_configuration_whole_or_keeps_the_old_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = config(directory.path(), "net_null0", "127.0.0.1:0");
    let (running, address) = start(&path);
    let before = fs::read_to_string(&path).expect("a file");
    let knows_third = || get(&address, "/metrics").contains("child=\"third\"");
    let third = before.replace("second,", "third,").replace(", second]", ", third]");

    for (text, words) in [
        (third.replace("children: [first", "children: [nobody"), "nobody"),
        (third.replace("mtu: 1600", "mtu: 1500"), "ports cannot change while the router runs"),
    ] {
        fs::write(&path, text).expect("a file");
        running.signal("-HUP");
        let said = running.says("not reloaded, all stays as it was: ");
        assert!(said.contains(words), "{said}");
        assert!(!knows_third());
    }
    fs::write(&path, third).expect("a file");
    running.signal("-HUP");
    assert_eq!(running.says("reloaded: "), "slr: reloaded: 1 virtual hosts, 2 children");
    assert!(knows_third());
}
