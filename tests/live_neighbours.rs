//! The router as a neighbour on real links: network namespaces, `veth`, the kernel's own ARP and neighbour discovery.
//!
//! ```text
//! client eth0 ─── veth0 slrd veth1 ─── eth0 server
//! ```

#![cfg(feature = "dpdk")]

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio, id};

use crate::common::wait_for;

const CLIENT_SIDE: &str = "02:00:00:00:aa:01";
const SERVER_SIDE: &str = "02:00:00:00:bb:01";
const SERVER: &str = "02:00:00:00:bb:11";

const CONFIG: &str = r#"
router: { name: live, tunnel_addresses: [10.0.1.1, "2001:db8:b::1"] }
dpdk: { hugepages: never, memory: 64MiB, buffers: 4096, file_prefix: PREFIX }
ports:
  - { name: clients, device: "net_af_packet0,iface=veth0", addresses: [10.0.0.1/24, "2001:db8:a::1/64"] }
  - { name: servers, device: "net_af_packet1,iface=veth1", mtu: 1600, addresses: [10.0.1.1/24, "2001:db8:b::1/64"] }
flows: { capacity_v4: 1000, capacity_v6: 1000 }
control: { socket: off }
children:
  - { name: four, address: 10.0.1.11 }
  - { name: six, address: "2001:db8:b::11" }
virtual_hosts:
  - { name: to-four, addresses: [192.0.2.4, "2001:db8:80::4"], services: [any], children: [four] }
  - { name: to-six, addresses: [192.0.2.6, "2001:db8:80::6"], services: [any], children: [six] }
"#;

/// Three namespaces and what runs in them; all of it goes when this goes, whether the test passes or not.
struct Lab {
    directory: PathBuf,
    running: Vec<Child>,
}

impl Lab {
    fn new() -> Lab {
        sweep();
        let lab = Lab { directory: std::env::temp_dir().join(format!("slr-live-{}", id())), running: Vec::new() };
        fs::create_dir(&lab.directory).expect("a new directory");
        for node in ["client", "router", "server"] {
            run(&["ip", "netns", "add", &name(node)]);
            run(&["ip", "-n", &name(node), "link", "set", "lo", "up"]);
        }
        for (node, side, mac, mtu) in
            [("client", "veth0", CLIENT_SIDE, "1500"), ("server", "veth1", SERVER_SIDE, "1600")]
        {
            let (node, router) = (name(node), name("router"));
            run(&["ip", "-n", &node, "link", "add", "eth0", "type", "veth", "peer", "name", side, "netns", &router]);
            // The kernel on the router's side is to keep silent: slrd speaks there.
            run(&["ip", "-n", &router, "link", "set", side, "address", mac, "addrgenmode", "none"]);
            for (namespace, interface) in [(&node, "eth0"), (&router, side)] {
                run(&["ip", "-n", namespace, "link", "set", interface, "mtu", mtu, "up"]);
                run(&["ip", "netns", "exec", namespace, "ethtool", "-K", interface, "tx", "off"]);
            }
        }
        lab.on("server", "ip link set eth0 down");
        lab.on("server", &format!("ip link set eth0 address {SERVER} up"));
        for (node, address) in [
            ("client", "10.0.0.9/24"),
            ("client", "2001:db8:a::9/64 nodad"),
            ("server", "10.0.1.11/24"),
            ("server", "2001:db8:b::11/64 nodad"),
        ] {
            lab.on(node, &format!("ip address add {address} dev eth0"));
        }
        for route in ["192.0.2.0/24 via 10.0.0.1", "10.0.1.0/24 via 10.0.0.1", "2001:db8:80::/64 via 2001:db8:a::1"] {
            lab.on("client", &format!("ip route add {route}"));
        }
        lab
    }

    /// Runs a command in a namespace to its end and returns what it prints.
    fn on(&self, node: &str, command: &str) -> String {
        let mut words = vec!["ip", "netns", "exec"];
        let namespace = name(node);
        words.push(&namespace);
        words.extend(command.split_whitespace());
        run(&words)
    }

    /// Starts a command in a namespace; what it prints goes to the returned file.
    fn start(&mut self, node: &str, command: &[&str]) -> PathBuf {
        let path = self.directory.join(format!("output-{}", self.running.len()));
        let file = File::create(&path).expect("a file");
        let child = Command::new("ip")
            .args(["netns", "exec", &name(node)])
            .args(command)
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .stdin(Stdio::null())
            .spawn()
            .expect("ip");
        self.running.push(child);
        path
    }

    /// The first frame at the server that `filter` takes, as tcpdump prints it, while the client sends to `destination`.
    fn seen_at_server(&mut self, filter: &str, destination: &str) -> String {
        let arguments = ["tcpdump", "-n", "-e", "-l", "-c", "1", "-i", "eth0", filter];
        let path = self.start("server", &arguments);
        let mut seen = String::new();
        wait_for(&format!("{filter} at the server"), || {
            self.on("client", &format!("socat -u OPEN:/proc/version UDP-SENDTO:{destination}"));
            seen = fs::read_to_string(&path).unwrap_or_default();
            seen.contains(" > ")
        });
        seen
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for node in ["client", "router", "server"] {
            let _ = Command::new("ip").args(["netns", "del", &name(node)]).status();
        }
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_dir_all(format!("/var/run/dpdk/slr-live-{}", id()));
    }
}

/// A namespace of this process.
fn name(node: &str) -> String {
    format!("slr-live-{}-{node}", id())
}

/// Removes namespaces of runs that were killed before they could.
fn sweep() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix("slr-live-").and_then(|rest| rest.split('-').next()).map(str::to_owned);
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
fn the_router_is_a_neighbour_without_any_static_neighbours() {
    if !fs::read_to_string("/proc/self/status").expect("a status").contains("Uid:\t0\t0\t") {
        println!("skipped: not root");
        return;
    }
    let mut lab = Lab::new();
    let config = lab.directory.join("slrd.yaml");
    fs::write(&config, CONFIG.replace("PREFIX", &format!("slr-live-{}", id()))).expect("a file");
    let log = lab.start("router", &[env!("CARGO_BIN_EXE_slrd"), "--config", config.to_str().expect("a path")]);
    let said = || fs::read_to_string(&log).unwrap_or_default();
    wait_for("slrd", || {
        assert!(!said().contains("slrd: "), "{}", said());
        said().contains("forwarding")
    });

    for own in ["10.0.0.1", "2001:db8:a::1", "10.0.1.1"] {
        let replies = lab.on("client", &format!("ping -n -c 3 -i 0.2 -W 2 {own}"));
        assert!(replies.contains("3 received"), "{replies}");
    }
    // More than a frame's minimum, and with a service class.
    lab.on("client", "ping -n -c 1 -W 2 -s 1400 -Q 0xb8 10.0.0.1");
    for own in ["10.0.0.1", "2001:db8:a::1"] {
        let neighbour = lab.on("client", &format!("ip neigh show {own} dev eth0"));
        assert!(neighbour.contains(CLIENT_SIDE), "{own}: {neighbour}");
    }

    for (filter, destination, outer) in [
        ("ip proto 4", "192.0.2.4:53", "10.0.1.1 > 10.0.1.11"),
        ("ip proto 41", "[2001:db8:80::4]:53", "10.0.1.1 > 10.0.1.11"),
        ("ip6 proto 4", "192.0.2.6:53", "2001:db8:b::1 > 2001:db8:b::11"),
        ("ip6 proto 41", "[2001:db8:80::6]:53", "2001:db8:b::1 > 2001:db8:b::11"),
    ] {
        let seen = lab.seen_at_server(filter, destination);
        assert!(seen.contains(outer) && seen.contains(&format!("{SERVER_SIDE} > {SERVER}")), "{seen}\n{}", said());
    }

    // The server gets another network card, and makes itself heard.
    let moved = "02:00:00:00:bb:99";
    lab.on("server", "ip link set eth0 down");
    lab.on("server", &format!("ip link set eth0 address {moved} up"));
    lab.on("server", "ping -n -c 1 -W 2 10.0.1.1");
    wait_for("the new address", || said().contains(&format!("neighbour 10.0.1.11 is at {moved}")));
    let seen = lab.seen_at_server("ip proto 4", "192.0.2.4:53");
    assert!(seen.contains(&format!("{SERVER_SIDE} > {moved}")), "{seen}");

    let metrics = lab.on("router", "curl -sS http://127.0.0.1:9477/metrics");
    assert!(!metrics.contains("slr_injected_packets_total{worker=\"0\"} 0\n"), "{metrics}");
    assert!(metrics.contains("slr_neighbours{state=\"failed\"} 0\n"), "{metrics}");
    assert!(metrics.contains("slr_inject_dropped_packets_total{reason=\"no_buffer\",worker=\"0\"} 0\n"), "{metrics}");
    let saved = lab.directory.join("metrics");
    fs::write(&saved, &metrics).expect("a file");
    let lint = Command::new("promtool").args(["check", "metrics"]).stdin(File::open(&saved).expect("a file")).output();
    let lint = lint.expect("promtool");
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stderr));

    run(&["kill", "-TERM", &lab.running[0].id().to_string()]);
    let status = lab.running[0].wait().expect("slrd");
    assert!(status.success(), "{}", said());
}
