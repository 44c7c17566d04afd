//! A child's cost by the metric of the kernel's route to it, in a network namespace of the test's own.

#![cfg(feature = "dpdk")]

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::common::namespaces::Namespaces;
use crate::common::{may_run, wait_for};

#[test]
fn costs_follow_the_metrics_of_the_kernels_routes() {
    if !may_run() {
        return;
    }
    let mut all = Namespaces::new("routes", &["router"]);
    let (config, socket) = (all.path("router.yaml"), all.path("slrd.sock"));
    let text = format!(
        r#"router: {{ name: test, tunnel_addresses: [10.9.0.254, "2001:db8:9::fe"], route_cost: metric }}
dpdk: {{ hugepages: never, memory: 128MiB, buffers: 4096 }}
flows: {{ capacity_v4: 1000, capacity_v6: 1000 }}
ports: [{{ name: only, device: net_null0, mtu: 1600, addresses: [10.9.0.254/24, "2001:db8:9::fe/64"] }}]
children:
  - {{ name: first, address: 10.9.0.1 }}
  - {{ name: second, address: "2001:db8:9::2" }}
  - {{ name: third, address: 10.9.0.3, route_cost: 7.5 }}
virtual_hosts:
  - {{ name: web, addresses: [192.0.2.1], selection: least_cost, cost_function: route_cost, children: all }}
metrics: {{ listen: off }}
control: {{ socket: {} }}
"#,
        socket.display()
    );
    fs::write(&config, text).expect("a file");
    all.start("router", &format!("{} --config {}", env!("CARGO_BIN_EXE_slrd"), config.display()));
    let ip = |words| all.ip("router", words);
    ip("route add 10.9.0.0/24 dev lo metric 321");
    ip("route add 10.9.0.0/16 dev lo metric 5");
    ip("-6 route add 2001:db8:9::/64 dev lo metric 77");
    let costs = || -> Option<Vec<f64>> {
        let mut ask = Command::new(env!("CARGO_BIN_EXE_slrctl"));
        let said = ask.arg("--socket").arg(&socket).args(["--json", "services"]).output().ok()?;
        let said: Value = serde_json::from_slice(&said.stdout).ok()?;
        let children = said.as_array()?.first()?["children"].as_array()?;
        children.iter().map(|child| child["cost"].as_f64()).collect()
    };
    let become_these = |expected: [f64; 3]| {
        wait_for(&format!("the costs {expected:?}"), || costs().is_some_and(|costs| costs == expected));
    };
    become_these([321.0, 77.0, 7.5]);
    ip("route del 10.9.0.0/24");
    ip("-6 route add unreachable 2001:db8:9::2/128");
    become_these([5.0, f64::MAX, 7.5]);
    ip("route del 10.9.0.0/16");
    ip("-6 route del unreachable 2001:db8:9::2/128");
    become_these([f64::MAX, 77.0, 7.5]);
}
