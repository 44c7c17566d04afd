//! Checks of children on real links: network namespaces, a real web server on each of two host servers, a stand-in that
//! takes the tunnel off.
//!
//! ```text
//! client eth0 ─── veth0 slrd veth1 ─── eth0 server1 (socat, nginx on 192.0.2.80)
//!                          veth2 ─── eth0 server2 (socat, nginx on 192.0.2.80)
//! ```

#![cfg(feature = "dpdk")]

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio, id};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::common::wait_for;

const NODES: [&str; 4] = ["client", "router", "server1", "server2"];

const CONFIG: &str = r#"
router: { name: live, tunnel_addresses: [10.0.1.1] }
dpdk: { hugepages: never, memory: 64MiB, buffers: 4096, file_prefix: PREFIX }
ports:
  - { name: clients, device: "net_af_packet0,iface=veth0", addresses: [10.0.0.1/24] }
  - { name: first, device: "net_af_packet1,iface=veth1", mtu: 1600, addresses: [10.0.1.1/24] }
  - { name: second, device: "net_af_packet2,iface=veth2", mtu: 1600, addresses: [10.0.2.1/24] }
flows: { capacity_v4: 1000, capacity_v6: 1000 }
children: [{ name: server1, address: 10.0.1.11 }, { name: server2, address: 10.0.2.11 }]
virtual_hosts:
  - name: web
    addresses: [192.0.2.80]
    services: [tcp/80, udp/80]
    children: [server1, server2]
    health: { http: { path: /ok, expect: 204 } }
metrics: { listen: "127.0.0.1:9477" }
control: { socket: off }
"#;

const NGINX: &str = "
daemon off; master_process off; error_log stderr; pid DIRECTORY/pid;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path DIRECTORY; proxy_temp_path DIRECTORY; fastcgi_temp_path DIRECTORY; uwsgi_temp_path DIRECTORY;
  scgi_temp_path DIRECTORY;
  server { listen 192.0.2.80:80; location = /ok { return 204; } }
}
";

/// Four namespaces and what runs in them; all of it goes when this goes, whether the test passes or not.
struct Lab {
    directory: PathBuf,
    running: Vec<Child>,
    /// Of the client: every flow is another one.
    next_port: AtomicU16,
}

impl Lab {
    fn new() -> Lab {
        sweep();
        let directory = std::env::temp_dir().join(format!("slr-health-{}", id()));
        let lab = Lab { directory, running: Vec::new(), next_port: AtomicU16::new(10_000) };
        fs::create_dir(&lab.directory).expect("a new directory");
        for node in NODES {
            run(&["ip", "netns", "add", &name(node)]);
            run(&["ip", "-n", &name(node), "link", "set", "lo", "up"]);
        }
        for (node, side, address, gateway) in [
            ("client", "veth0", "10.0.0.9/24", "10.0.0.1"),
            ("server1", "veth1", "10.0.1.11/24", "10.0.1.1"),
            ("server2", "veth2", "10.0.2.11/24", "10.0.2.1"),
        ] {
            let (node, router) = (name(node), name("router"));
            run(&["ip", "-n", &node, "link", "add", "eth0", "type", "veth", "peer", "name", side, "netns", &router]);
            // The kernel on the router's side is to keep silent: slrd speaks there.
            run(&["ip", "-n", &router, "link", "set", side, "addrgenmode", "none"]);
            for (namespace, interface) in [(&node, "eth0"), (&router, side)] {
                run(&["ip", "-n", namespace, "link", "set", interface, "mtu", "1600", "up"]);
                run(&["ip", "netns", "exec", namespace, "ethtool", "-K", interface, "tx", "off"]);
            }
            run(&["ip", "-n", &node, "address", "add", address, "dev", "eth0"]);
            run(&["ip", "-n", &node, "route", "add", "default", "via", gateway]);
        }
        for node in ["server1", "server2"] {
            run(&["ip", "-n", &name(node), "address", "add", "192.0.2.80/32", "dev", "lo"]);
            for setting in ["all.rp_filter=0", "default.rp_filter=0", "all.arp_ignore=1", "all.arp_announce=2"] {
                lab.on(node, &format!("sysctl -q -w net.ipv4.conf.{setting}"));
            }
        }
        lab
    }

    /// Runs a command in a namespace to its end and returns what it prints.
    fn on(&self, node: &str, command: &str) -> String {
        let namespace = name(node);
        let words = ["ip", "netns", "exec", &namespace];
        run(&words.into_iter().chain(command.split_whitespace()).collect::<Vec<_>>())
    }

    /// Starts a command in a namespace, and returns its number and the file that has what it prints.
    fn start(&mut self, node: &str, command: &str) -> (usize, PathBuf) {
        let path = self.directory.join(format!("output-{}", self.running.len()));
        let file = File::create(&path).expect("a file");
        let mut process = Command::new("ip");
        process.args(["netns", "exec", &name(node)]).args(command.split_whitespace());
        process.stdout(file.try_clone().expect("a file")).stderr(file).stdin(Stdio::null());
        self.running.push(process.spawn().expect("ip"));
        (self.running.len() - 1, path)
    }

    fn start_web_server(&mut self, node: &str) -> usize {
        let directory = self.directory.join(node);
        fs::create_dir_all(&directory).expect("a directory");
        let file = directory.join("nginx.conf");
        fs::write(&file, NGINX.replace("DIRECTORY", &directory.display().to_string())).expect("a file");
        self.start(node, &format!("nginx -c {}", file.display())).0
    }

    fn start_decapsulator(&mut self, node: &str) -> usize {
        self.start(node, "socat -u IP4-RECV:4 TUN:169.254.9.1/32,tun-name=dec0,iff-no-pi,iff-up").0
    }

    fn kill(&mut self, process: usize) {
        self.running[process].kill().expect("a process");
        self.running[process].wait().expect("its end");
    }

    fn metrics(&self) -> String {
        self.on("router", "curl -sS http://127.0.0.1:9477/metrics")
    }

    /// The sample of a metric for a child.
    fn of_child(&self, metric: &str, child: &str) -> u64 {
        let metrics = self.metrics();
        let start = format!("{metric}{{child=\"{child}\",");
        let line = metrics.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{metrics}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    }

    /// Sends the first packets of twenty flows, and returns how many each server got.
    fn new_flows(&self) -> [u64; 2] {
        let flows = || ["server1", "server2"].map(|child| self.of_child("slr_virtual_host_flows_total", child));
        let before = flows();
        for _ in 0..20 {
            let port = self.next_port.fetch_add(1, Ordering::Relaxed);
            self.on("client", &format!("socat -u OPEN:/proc/version UDP-SENDTO:192.0.2.80:80,sourceport={port}"));
        }
        let since = || flows().iter().zip(before).map(|(now, before)| now - before).collect::<Vec<_>>();
        wait_for("20 new flows", || since().iter().sum::<u64>() >= 20);
        since().try_into().expect("two")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for node in NODES {
            let _ = Command::new("ip").args(["netns", "del", &name(node)]).status();
        }
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_dir_all(format!("/var/run/dpdk/slr-health-{}", id()));
    }
}

/// A namespace of this process.
fn name(node: &str) -> String {
    format!("slr-health-{}-{node}", id())
}

/// Removes namespaces of runs that were killed before they could.
fn sweep() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix("slr-health-").and_then(|rest| rest.split('-').next()).map(str::to_owned);
        if process.is_some_and(|process| !PathBuf::from("/proc").join(process).exists()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|error| panic!("{words:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{words:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn a_killed_server_gets_no_new_flows_until_it_is_back() {
    if !fs::read_to_string("/proc/self/status").expect("a status").contains("Uid:\t0\t0\t") {
        println!("skipped: not root");
        return;
    }
    let mut lab = Lab::new();
    let config = lab.directory.join("slrd.yaml");
    fs::write(&config, CONFIG.replace("PREFIX", &format!("slr-health-{}", id()))).expect("a file");
    let web = ["server1", "server2"].map(|node| lab.start_web_server(node));
    let decapsulators = ["server1", "server2"].map(|node| lab.start_decapsulator(node));
    let (slrd, log) = lab.start("router", &format!("{} --config {}", env!("CARGO_BIN_EXE_slrd"), config.display()));
    let said = || fs::read_to_string(&log).unwrap_or_default();
    wait_for("slrd", || {
        assert!(!said().contains("slrd: "), "{}", said());
        said().contains("metrics at")
    });
    let up = |lab: &Lab, child: &str| lab.of_child("slr_child_up", child) == 1;
    let succeeded = |lab: &Lab, child: &str| {
        let start = format!("slr_health_checks_total{{child=\"{child}\",result=\"success\"");
        lab.metrics().lines().any(|line| line.starts_with(&start) && !line.ends_with(" 0"))
    };
    for child in ["server1", "server2"] {
        wait_for("a check that succeeds", || succeeded(&lab, child) && up(&lab, child));
    }
    let shares = lab.new_flows();
    assert!(shares[0] > 0 && shares[1] > 0, "{shares:?}\n{}", said());

    // The process dies: its kernel refuses connections.
    lab.kill(web[0]);
    let time = wait_for("server1 to be down", || !up(&lab, "server1"));
    println!("server1 was found down after {time:?}");
    // The router promises 0.9 s; a busy machine has its own.
    assert!(time < Duration::from_secs(2), "{time:?}");
    assert_eq!(lab.new_flows(), [0, 20]);
    wait_for("the reason", || said().contains("web on server1 is down: connection refused"));

    lab.start_web_server("server1");
    wait_for("server1 to be up", || up(&lab, "server1"));
    assert!(lab.new_flows()[0] > 0);

    // The way to it is cut: nobody answers.
    lab.kill(decapsulators[1]);
    let time = wait_for("server2 to be down", || !up(&lab, "server2"));
    println!("server2 was found down after {time:?}");
    assert!(time < Duration::from_secs(2), "{time:?}");
    assert_eq!(lab.new_flows(), [20, 0]);
    wait_for("the reason", || said().contains("web on server2 is down: no answer in 200ms"));

    let saved = lab.directory.join("metrics");
    fs::write(&saved, lab.metrics()).expect("a file");
    let lint = Command::new("promtool").args(["check", "metrics"]).stdin(File::open(&saved).expect("a file")).output();
    let lint = lint.expect("promtool");
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stderr));

    run(&["kill", "-TERM", &lab.running[slrd].id().to_string()]);
    let status = lab.running[slrd].wait().expect("slrd");
    assert!(status.success(), "{}", said());
}
