//! `slrctl` as a user runs it, against a router that reads a capture of real clients over and over.

#![cfg(feature = "dpdk")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::channel;

use serde_json::Value;

use crate::common::{PATIENCE, wait_for};

const MANIFEST: &str = env!("CARGO_MANIFEST_DIR");

/// A running router with its directory; killed when the test fails.
struct Router {
    process: Child,
    directory: tempfile::TempDir,
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn config(directory: &Path) -> PathBuf {
    let path = directory.join("router.yaml");
    let socket = directory.join("slrd.sock");
    let text = format!(
        r#"
router: {{ name: test, tunnel_addresses: [10.9.0.254], level: 2 }}
dpdk: {{ hugepages: never, memory: 128MiB, buffers: 8192 }}
flows: {{ capacity_v4: 10000, capacity_v6: 10000 }}
ports:
  - {{ name: only, device: "net_pcap0,rx_pcap={MANIFEST}/tests/captures/demo.pcap,infinite_rx=1", mtu: 1600, addresses: [10.9.0.254/24] }}
neighbours:
  - {{ address: 10.9.0.1, mac: "02:00:00:00:00:11" }}
  - {{ address: 10.9.0.2, mac: "02:00:00:00:00:12" }}
children:
  - {{ name: first, address: 10.9.0.1 }}
  - {{ name: second, address: 10.9.0.2 }}
  - {{ name: silent, address: 10.9.0.3 }}
virtual_hosts:
  - {{ name: names, addresses: [0.0.0.0/0], services: [udp/53], flow: {{ source: {{ v4: 24 }} }}, children: [second] }}
  - {{ name: web, addresses: [0.0.0.0/0, "::/0"], services: [tcp], children: [first, second] }}
  - {{ name: nobody, addresses: [192.0.2.0/24], services: [udp/9], children: [silent] }}
metrics: {{ listen: off }}
control: {{ socket: "{}" }}
"#,
        socket.display()
    );
    fs::write(&path, text).expect("a file");
    path
}

impl Router {
    fn start() -> Router {
        let directory = tempfile::tempdir().expect("a directory");
        let mut slrd = Command::new(env!("CARGO_BIN_EXE_slrd"));
        slrd.arg("--config").arg(config(directory.path())).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = slrd.spawn().expect("slrd");
        let lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let (sender, said) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let router = Router { process, directory };
        let mut lines = std::iter::from_fn(|| said.recv_timeout(PATIENCE).ok());
        assert!(lines.any(|line| line.contains("control socket")), "slrd does not serve its control socket");
        router
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("slrd.sock")
    }

    fn slrctl(&self, arguments: &[&str]) -> Command {
        let mut slrctl = Command::new(env!("CARGO_BIN_EXE_slrctl"));
        slrctl.env("SLRCTL_SOCKET", self.socket()).args(arguments);
        slrctl
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.slrctl(arguments).output().expect("slrctl")
    }

    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[&["--json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    fn refuses(&self, arguments: &[&str], status: i32, line: &str) {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.trim_end()), (Some(status), line), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }

    /// Waits until the router has carried the whole capture once.
    fn warm_up(&self) {
        let received = || self.json(&["status"])["counters"]["packets"]["rx"].as_u64().expect("a number");
        wait_for("the router to receive", || received() >= 900);
    }
}

fn assert_has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word} is not in:\n{text}");
    }
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|one| one["name"].as_str().expect("a name")).collect()
}

#[test]
fn every_command_answers_in_tables_and_in_json() {
    let router = Router::start();
    router.warm_up();

    assert_has(
        &router.text(&["status"]),
        &["test, level 2, slr 0.1.0, up ", "router.yaml: 3 virtual hosts, 3 children"],
    );
    let status = router.json(&["status"]);
    assert_eq!((status["name"].as_str(), status["level"].as_u64()), (Some("test"), Some(2)));
    assert_eq!(status["counters"]["workers"].as_array().map(Vec::len), Some(1));
    let packets = &status["counters"]["packets"];
    assert!(packets["forwarded"].as_u64() > Some(0), "{packets}");

    assert_has(&router.text(&["ports"]), &["only", "net_pcap", "rx packets", "10.9.0.254/24"]);
    let ports = router.json(&["ports"]);
    assert_eq!(names(&ports), ["only"]);
    assert!(ports[0]["rx_packets"].as_u64() >= Some(900) && ports[0]["mac"].is_string(), "{ports}");

    assert_has(&router.text(&["services"]), &["web: 0.0.0.0/0, ::/0; tcp; flow 5-tuple; consistent_hash", "50.0 %"]);
    let services = router.json(&["services"]);
    assert_eq!(names(&services), ["names", "web", "nobody"]);
    let web = &services[1]["children"];
    assert_eq!(names(web), ["first", "second"]);
    assert_eq!((&web[0]["weight"], &web[0]["up"]), (&Value::from(100), &Value::from(true)));

    assert_has(&router.text(&["children"]), &["first", "10.9.0.1", "ipip", "static", "1600"]);
    let children = router.json(&["children"]);
    assert_eq!(names(&children), ["first", "second", "silent"]);
    assert_eq!((children[0]["neighbour"].as_str(), children[0]["drained"].as_bool()), (Some("static"), Some(false)));
    assert!(children[0]["packets"].as_u64() > Some(0), "{children}");

    assert_has(&router.text(&["neighbours"]), &["10.9.0.2", "02:00:00:00:00:12"]);
    let neighbours = router.json(&["neighbours"]);
    let silent = neighbours.as_array().expect("a list").iter().find(|one| one["address"] == "10.9.0.3");
    assert!(silent.is_some_and(|one| one["mac"].is_null() && one["state"] != "static"), "{neighbours}");

    assert_has(&router.text(&["top"]), &["test: ", "rx packets/s", "web", "  first", "forwarded/s"]);
    let top = router.json(&["top"]);
    assert!(top["workers"][0]["received"].as_f64() > Some(0.0) && top["seconds"].as_f64() > Some(0.9), "{top}");
}

#[test]
fn flows_are_listed_as_the_filter_says() {
    let router = Router::start();
    router.warm_up();
    let flows = |filter: &[&str]| {
        let answer = router.json(&[&["flows"], filter].concat());
        (answer["flows"].as_array().expect("a list").clone(), answer["more"].as_bool().expect("a word"))
    };
    let (all, more) = flows(&[]);
    let active = router.json(&["status"])["counters"]["flows"]["active"].as_u64().expect("a number");
    assert_eq!((all.len() as u64, more), (active, false));
    assert!(all.len() > 10);

    let count = |flows: &[Value], field: &str, value: &str| flows.iter().filter(|flow| flow[field] == value).count();
    for child in ["first", "second"] {
        let (some, _) = flows(&[&format!("child={child}")]);
        assert_eq!((some.len(), count(&some, "child", child)), (count(&all, "child", child), some.len()));
        assert!(!some.is_empty());
    }
    let (web, _) = flows(&["host=web", "proto=tcp"]);
    assert_eq!(web.len(), count(&all, "virtual_host", "web"));
    let one = &web[0];
    let (vip, port) = (one["destination"].as_str().expect("an address"), one["destination_port"].as_u64());
    let (same, _) = flows(&[&format!("vip={vip}"), &format!("port={}", port.expect("a port"))]);
    assert!(!same.is_empty() && same.iter().all(|flow| flow["destination"] == vip));
    // Names are asked for by client prefix, and have neither ports nor protocol.
    let (names, _) = flows(&["host=names"]);
    assert!(
        names.iter().all(|flow| flow["source"].as_str().is_some_and(|source| source.ends_with("/24"))),
        "{names:?}"
    );
    assert_eq!(flows(&["limit=3"]).0.len(), 3);
    assert!(flows(&["limit=3"]).1);
    assert_eq!(flows(&["src=192.0.2.99"]), (vec![], false));
    assert_has(&router.text(&["flows", "host=web", "limit=5"]), &["protocol", "web", "tcp", "idle"]);

    router.refuses(&["flows", "child=server9"], 1, "slrctl: no child \"server9\"; slrctl children lists them");
    router.refuses(&["flows", "host=x"], 1, "slrctl: no virtual host \"x\"; slrctl services lists them");
    router.refuses(&["flows", "port=x"], 2, "slrctl: port=x is not right; write it like port=443");
}

#[test]
fn children_are_drained_and_weighed_and_the_configuration_read_again() {
    let router = Router::start();
    let shares = || {
        let services = router.json(&["services"]);
        [0, 1].map(|child| services[1]["children"][child]["share"].as_f64().expect("a number"))
    };
    assert_has(&router.text(&["drain", "first"]), &["first gets no new flows"]);
    assert_eq!(shares(), [0.0, 1.0]);
    assert_eq!(router.json(&["status"])["drained"][0], "first");
    assert_has(&router.text(&["children"]), &["drained"]);
    assert_has(router.json(&["undrain", "first"])["done"].as_str().expect("a sentence"), &["first gets new flows"]);
    assert!((shares()[0] - 0.5).abs() < 0.001);
    assert_has(&router.text(&["weight", "second", "300"]), &["second has weight 300"]);
    assert!((shares()[1] - 0.75).abs() < 0.001);
    assert_eq!(router.json(&["children"])[1]["weight"], 300);
    router.text(&["weight", "second", "configured"]);
    assert!((shares()[1] - 0.5).abs() < 0.001);
    router.refuses(&["drain", "server9"], 1, "slrctl: no child \"server9\"; children are first, second, silent");
    router.refuses(&["weight", "x", "1"], 1, "slrctl: no child \"x\"; children are first, second, silent");

    let path = router.directory.path().join("router.yaml");
    let before = fs::read_to_string(&path).expect("a file");
    let snapshot = |router: &Router| router.json(&["status"])["snapshot"]["number"].as_u64();
    let number = snapshot(&router);
    fs::write(&path, before.replace("name: nobody", "name: somebody")).expect("a file");
    assert_has(&router.text(&["reload"]), &["reloaded: 3 virtual hosts, 3 children"]);
    assert!(snapshot(&router) > number);
    assert_eq!(names(&router.json(&["services"])), ["names", "web", "somebody"]);
    fs::write(&path, before.replace("[silent]", "[nobody]")).expect("a file");
    let refused = router.run(&["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_has(
        &String::from_utf8_lossy(&refused.stderr),
        &["not reloaded, all stays as it was: ", "router.yaml:", "nobody"],
    );
    fs::write(&path, before.replace("slrd.sock", "other.sock")).expect("a file");
    let refused = router.run(&["reload"]);
    assert_has(&String::from_utf8_lossy(&refused.stderr), &["control cannot change while the router runs"]);
}

#[test]
fn a_trace_says_step_by_step_where_a_packet_would_go() {
    let router = Router::start();
    router.warm_up();
    let flows = router.json(&["flows", "host=web", "proto=tcp", "limit=1"]);
    let flow = &flows["flows"][0];
    let end = |address: &str, port: &str| match flow[address].as_str().expect("an address") {
        v6 if v6.contains(':') => format!("[{v6}]:{}", flow[port]),
        v4 => format!("{v4}:{}", flow[port]),
    };
    let known = [end("source", "source_port"), end("destination", "destination_port")];
    let trace = router.json(&["trace", &known[0], &known[1]]);
    assert_eq!(
        (&trace["outcome"], &trace["child"], &trace["worker"]),
        (&"forwarded".into(), &flow["child"], &0.into())
    );

    let new = ["trace", "198.51.100.7:40000", "192.0.2.80:80"];
    let trace = router.json(&new);
    assert_eq!((&trace["outcome"], &trace["virtual_host"]), (&"forwarded".into(), &"web".into()));
    assert!(trace["worker"].is_null());
    let child = if trace["child"] == "first" { 1 } else { 2 };
    let header = trace["header"].as_str().expect("a header");
    assert!(
        header.starts_with(&format!("02000000001{child}")) && header.ends_with(&format!("0a0900fe0a09000{child}")),
        "{header}"
    );
    assert_eq!(header.len(), 2 * 34);
    let text = router.text(&new);
    for words in [
        "packet        tcp from 198.51.100.7:40000 to 192.0.2.80:80",
        "own address   192.0.2.80 is none of ours",
        "virtual host  web, which has 0.0.0.0/0 with tcp",
        "flow          new: no worker knows it (1 workers)",
        "candidate     first: weight 100, tier 0, cost 1: 327",
        "selection     consistent_hash: hash slot ",
        "by port only, static, at 02:00:00:00:00:1",
        "20 bytes of header",
        "outcome       forwarded to ",
        "in front      02 00 00 00 00 1",
    ] {
        assert_has(&text, &[words]);
    }
    // The new flow goes where the trace has said.
    router.text(&["drain", if child == 1 { "first" } else { "second" }]);
    let moved = router.json(&new);
    assert_eq!(moved["child"], if child == 1 { "second" } else { "first" });
    assert_has(&router.text(&new), &["drained, gets no new flows"]);

    for (packet, outcome, reason) in [
        (["198.51.100.7:1", "192.0.2.80:9", "udp"], "punted", "no_neighbour"),
        (["198.51.100.7:1", "198.51.100.8:9", "udp"], "dropped", "no_virtual_host"),
        (["198.51.100.7", "10.9.0.254", "icmp"], "punted", "own_address"),
        (["198.51.100.7", "10.9.0.254", "4"], "dropped", "tunnel_stranger"),
    ] {
        let [source, destination, protocol] = packet;
        let trace = router.json(&["trace", source, destination, "--protocol", protocol]);
        assert_eq!((&trace["outcome"], &trace["reason"]), (&outcome.into(), &reason.into()), "{packet:?}: {trace}");
    }
    let refused = router.run(&["trace", "198.51.100.7:1", "[2001:db8::1]:1"]);
    assert_has(&String::from_utf8_lossy(&refused.stderr), &["are of two families"]);
}

/// Packets and their comments, as tshark's own library would read them.
fn frames(path: &Path) -> Vec<Vec<u8>> {
    let mut capture = pcap::Capture::from_file(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut frames = Vec::new();
    while let Ok(packet) = capture.next_packet() {
        assert_eq!(packet.header.len as usize, packet.data.len());
        frames.push(packet.data.to_vec());
    }
    frames
}

#[test]
fn a_capture_writes_the_frames_that_the_filter_takes() {
    let router = Router::start();
    router.warm_up();
    let file = |name: &str| router.directory.path().join(name);
    let path = file("web.pcap");
    let said = router.text(&["capture", "--count", "50", "tcp", path.to_str().expect("UTF-8")]);
    assert_has(&said, &["50 frames written to", " missed"]);
    let web = frames(&path);
    assert_eq!(web.len(), 50);
    let known = frames(&Path::new(MANIFEST).join("tests/captures/demo.pcap"));
    assert!(web.iter().all(|frame| known.contains(frame)), "as they were received");

    let path = file("drops.pcapng");
    let end = router.json(&["capture", "--drops", "--count", "20", "", path.to_str().expect("UTF-8")]);
    assert_eq!(end["frames"], 20);
    assert_eq!(frames(&path).len(), 20);
    let bytes = fs::read(&path).expect("a file");
    let comment = b"dropped: no_virtual_host";
    assert!(bytes.windows(comment.len()).filter(|window| window == comment).count() >= 10);

    // Ends by itself, and by the signal of Ctrl-C; what there is is whole.
    let path = file("none.pcap");
    let end = router.json(&["capture", "--seconds", "1", "udp port 1", path.to_str().expect("UTF-8")]);
    assert_eq!((&end["frames"], frames(&path).len()), (&0.into(), 0));
    let path = file("signal.pcap");
    let mut command = router.slrctl(&["capture", "--snap", "64", "ip or ip6", path.to_str().expect("UTF-8")]);
    let mut capturing = command.stdout(Stdio::piped()).spawn().expect("slrctl");
    wait_for("packets", || fs::metadata(&path).map_or(0, |file| file.len()) >= 1000);
    let second = router.run(&["capture", "", file("second.pcap").to_str().expect("UTF-8")]);
    assert_has(&String::from_utf8_lossy(&second.stderr), &["a capture is under way"]);
    assert!(!file("second.pcap").exists());
    Command::new("kill").arg("-INT").arg(capturing.id().to_string()).status().expect("kill");
    assert_eq!(capturing.wait().expect("an end").code(), Some(0));
    assert!(pcap::Capture::from_file(&path).expect("a capture").next_packet().is_ok());

    for (filter, path, status, words) in [
        ("tpc port", file("x.pcap"), 2, "slrctl: filter \"tpc port\": "),
        ("", file("no/such/directory.pcap"), 2, "no/such/directory.pcap: No such file or directory"),
    ] {
        let output = router.run(&["capture", "--seconds", "5", filter, path.to_str().expect("UTF-8")]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), said.trim_end().lines().count()), (Some(status), 1), "{said}");
        assert_has(&said, &[words]);
        assert!(!path.exists());
    }
    // Whoever could not write has left no capture behind.
    router.text(&["capture", "--count", "1", "", file("last.pcap").to_str().expect("UTF-8")]);
}

#[test]
fn a_router_that_does_not_run_is_one_clear_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_slrctl")).args(["--socket", "/nonexistent.sock", "status"]).output();
    let output = output.expect("slrctl");
    let said = String::from_utf8_lossy(&output.stderr);
    let line = "slrctl: no router answers at /nonexistent.sock; start slrd, or name its control socket with --socket\n";
    assert_eq!((output.status.code(), said.as_ref()), (Some(1), line));
}

#[test]
fn two_routers_do_not_share_a_socket_and_a_dead_ones_is_taken_over() {
    let mut router = Router::start();
    let start = || {
        let config = router.directory.path().join("router.yaml");
        Command::new(env!("CARGO_BIN_EXE_slrd")).arg("--config").arg(config).output().expect("slrd")
    };
    let second = start();
    assert_eq!(second.status.code(), Some(1));
    assert_has(&String::from_utf8_lossy(&second.stderr), &["control.socket", "a running router has it"]);
    assert_has(&router.text(&["status"]), &["test, level 2"]);
    router.process.kill().expect("a process");
    router.process.wait().expect("an end");
    assert!(router.socket().exists(), "nobody has cleaned up");
    let refused = router.run(&["status"]);
    assert_has(&String::from_utf8_lossy(&refused.stderr), &["no router answers"]);
    let listener = slr::ctl::socket::Listener::bind(&router.socket());
    assert!(listener.is_ok(), "{listener:?}");
}

#[test]
fn completions_and_help_know_every_command() {
    let slrctl = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_slrctl")).args(arguments).output().expect("slrctl");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let commands = [
        "status",
        "ports",
        "services",
        "children",
        "flows",
        "neighbours",
        "drain",
        "undrain",
        "weight",
        "reload",
        "trace",
        "capture",
        "top",
        "completions",
    ];
    for shell in ["bash", "zsh", "fish"] {
        assert_has(&slrctl(&["completions", shell]), &commands);
    }
    assert_has(&slrctl(&["--help"]), &commands);
    for command in commands {
        assert_has(&slrctl(&[command, "--help"]), &["Example", &format!("slrctl {command}")]);
    }
    let wrong = Command::new(env!("CARGO_BIN_EXE_slrctl")).arg("stauts").output().expect("slrctl");
    assert_eq!(wrong.status.code(), Some(2));
    assert_has(&String::from_utf8_lossy(&wrong.stderr), &["'status'"]);
}

#[test]
fn slrctl_needs_no_dpdk() {
    let output = Command::new("ldd").arg(env!("CARGO_BIN_EXE_slrctl")).output().expect("ldd");
    let libraries = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && libraries.contains("libc.so"), "{libraries}");
    assert!(!libraries.contains("rte_"), "{libraries}");
}
