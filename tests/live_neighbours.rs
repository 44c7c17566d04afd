//! The router as a neighbour on real links: network namespaces, `veth`, the kernel's own ARP and neighbour discovery.
//!
//! ```text
//! client eth0 ─── veth0 slrd veth1 ─── eth0 server
//! ```

#![cfg(feature = "dpdk")]

use std::fs;

use crate::common::namespaces::Namespaces;
use crate::common::{lint_metrics, may_run, wait_for};

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

/// Three namespaces.
fn lab() -> Namespaces {
    let all = Namespaces::new("live", &["client", "router", "server"]);
    for (node, side, mac, mtu) in [("client", "veth0", CLIENT_SIDE, 1500), ("server", "veth1", SERVER_SIDE, 1600)] {
        all.link(node, "router", side, mtu);
        all.ip("router", &format!("link set {side} address {mac}"));
    }
    all.ip("server", "link set eth0 down");
    all.ip("server", &format!("link set eth0 address {SERVER} up"));
    for (node, address) in [
        ("client", "10.0.0.9/24"),
        ("client", "2001:db8:a::9/64 nodad"),
        ("server", "10.0.1.11/24"),
        ("server", "2001:db8:b::11/64 nodad"),
    ] {
        all.ip(node, &format!("address add {address} dev eth0"));
    }
    for route in ["192.0.2.0/24 via 10.0.0.1", "10.0.1.0/24 via 10.0.0.1", "2001:db8:80::/64 via 2001:db8:a::1"] {
        all.ip("client", &format!("route add {route}"));
    }
    all
}

/// The first frame at the server that `filter` takes, as tcpdump prints it, while the client sends to `destination`.
fn seen_at_server(lab: &mut Namespaces, filter: &str, destination: &str) -> String {
    let (_, path) = lab.start("server", &format!("tcpdump -n -e -l -c 1 -i eth0 {filter}"));
    let mut seen = String::new();
    wait_for(&format!("{filter} at the server"), || {
        lab.on("client", &format!("socat -u OPEN:/proc/version UDP-SENDTO:{destination}"));
        seen = fs::read_to_string(&path).unwrap_or_default();
        seen.contains(" > ")
    });
    seen
}

#[test]
fn the_router_is_a_neighbour_without_any_static_neighbours() {
    if !may_run() {
        return;
    }
    let mut lab = lab();
    let config = lab.path("slrd.yaml");
    fs::write(&config, CONFIG.replace("PREFIX", lab.prefix())).expect("a file");
    let (slrd, log) = lab.start("router", &format!("{} --config {}", env!("CARGO_BIN_EXE_slrd"), config.display()));
    let said = || fs::read_to_string(&log).unwrap_or_default();
    wait_for("slrd", || {
        assert!(!said().contains("slrd: "), "{}", said());
        said().contains("forwarding")
    });

    let metrics = |lab: &Namespaces| lab.on("router", "curl -sS http://127.0.0.1:9477/metrics");
    for own in ["10.0.0.1", "2001:db8:a::1", "10.0.1.1"] {
        let replies = lab.on("client", &format!("ping -n -c 3 -i 0.2 -W 2 {own}"));
        assert!(replies.contains("3 received"), "{replies}\n{}", metrics(&lab));
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
        let seen = seen_at_server(&mut lab, filter, destination);
        assert!(seen.contains(outer) && seen.contains(&format!("{SERVER_SIDE} > {SERVER}")), "{seen}\n{}", said());
    }

    // The server gets another network card, and makes itself heard.
    let moved = "02:00:00:00:bb:99";
    lab.ip("server", "link set eth0 down");
    lab.ip("server", &format!("link set eth0 address {moved} up"));
    lab.on("server", "ping -n -c 1 -W 2 10.0.1.1");
    wait_for("the new address", || said().contains(&format!("neighbour 10.0.1.11 is at {moved}")));
    let seen = seen_at_server(&mut lab, "ip proto 4", "192.0.2.4:53");
    assert!(seen.contains(&format!("{SERVER_SIDE} > {moved}")), "{seen}");

    let metrics = metrics(&lab);
    assert!(!metrics.contains("slr_injected_packets_total{worker=\"0\"} 0\n"), "{metrics}");
    assert!(metrics.contains("slr_neighbours{state=\"failed\"} 0\n"), "{metrics}");
    assert!(metrics.contains("slr_inject_dropped_packets_total{reason=\"no_buffer\",worker=\"0\"} 0\n"), "{metrics}");
    lint_metrics(&metrics, lab.path("metrics"));
    lab.stop(slrd);
}
