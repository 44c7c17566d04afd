//! Checks of children on real links: network namespaces, a real web server on each of two host servers, a stand-in that
//! takes the tunnel off.
//!
//! ```text
//! client eth0 ─── veth0 slrd veth1 ─── eth0 server1 (socat, nginx on 192.0.2.80)
//!                          veth2 ─── eth0 server2 (socat, nginx on 192.0.2.80)
//! ```

#![cfg(feature = "dpdk")]

use std::fs;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::common::namespaces::Namespaces;
use crate::common::{lint_metrics, may_run, wait_for};

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

/// Four namespaces.
struct Lab {
    all: Namespaces,
    /// Of the client: every flow is another one.
    next_port: AtomicU16,
}

impl Lab {
    fn new() -> Lab {
        let all = Namespaces::new("health", &["client", "router", "server1", "server2"]);
        for (node, side, address, gateway) in [
            ("client", "veth0", "10.0.0.9/24", "10.0.0.1"),
            ("server1", "veth1", "10.0.1.11/24", "10.0.1.1"),
            ("server2", "veth2", "10.0.2.11/24", "10.0.2.1"),
        ] {
            all.link(node, "router", side, 1600);
            all.ip(node, &format!("address add {address} dev eth0"));
            all.ip(node, &format!("route add default via {gateway}"));
        }
        for node in ["server1", "server2"] {
            all.ip(node, "address add 192.0.2.80/32 dev lo");
            for setting in ["all.rp_filter=0", "default.rp_filter=0", "all.arp_ignore=1", "all.arp_announce=2"] {
                all.on(node, &format!("sysctl -q -w net.ipv4.conf.{setting}"));
            }
        }
        Lab { all, next_port: AtomicU16::new(10_000) }
    }

    fn start_web_server(&mut self, node: &str) -> usize {
        let directory = self.all.path(node);
        fs::create_dir_all(&directory).expect("a directory");
        let file = directory.join("nginx.conf");
        fs::write(&file, NGINX.replace("DIRECTORY", &directory.display().to_string())).expect("a file");
        self.all.start(node, &format!("nginx -c {}", file.display())).0
    }

    fn start_decapsulator(&mut self, node: &str) -> usize {
        self.all.start(node, "socat -u IP4-RECV:4 TUN:169.254.9.1/32,tun-name=dec0,iff-no-pi,iff-up").0
    }

    fn metrics(&self) -> String {
        self.all.on("router", "curl -sS http://127.0.0.1:9477/metrics")
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
            self.all.on("client", &format!("socat -u OPEN:/proc/version UDP-SENDTO:192.0.2.80:80,sourceport={port}"));
        }
        let since = || flows().iter().zip(before).map(|(now, before)| now - before).collect::<Vec<_>>();
        wait_for("20 new flows", || since().iter().sum::<u64>() >= 20);
        since().try_into().expect("two")
    }
}

#[test]
fn a_killed_server_gets_no_new_flows_until_it_is_back() {
    if !may_run() {
        return;
    }
    let mut lab = Lab::new();
    let config = lab.all.path("slrd.yaml");
    fs::write(&config, CONFIG.replace("PREFIX", lab.all.prefix())).expect("a file");
    let web = ["server1", "server2"].map(|node| lab.start_web_server(node));
    let decapsulators = ["server1", "server2"].map(|node| lab.start_decapsulator(node));
    let (slrd, log) = lab.all.start("router", &format!("{} --config {}", env!("CARGO_BIN_EXE_slrd"), config.display()));
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
    lab.all.kill(web[0]);
    let time = wait_for("server1 to be down", || !up(&lab, "server1"));
    println!("server1 was found down after {time:?}");
    assert_eq!(lab.new_flows(), [0, 20]);
    wait_for("the reason", || said().contains("web on server1 is down: connection refused"));

    lab.start_web_server("server1");
    wait_for("server1 to be up", || up(&lab, "server1"));
    assert!(lab.new_flows()[0] > 0);

    // The way to it is cut: nobody answers.
    lab.all.kill(decapsulators[1]);
    let time = wait_for("server2 to be down", || !up(&lab, "server2"));
    println!("server2 was found down after {time:?}");
    assert_eq!(lab.new_flows(), [20, 0]);
    wait_for("the reason", || said().contains("web on server2 is down: no answer in 200ms"));

    lint_metrics(&lab.metrics(), lab.all.path("metrics"));
    lab.all.stop(slrd);
}
