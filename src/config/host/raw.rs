//! Which keys the host agent's configuration has.

use crate::config::error::Fault;
use crate::config::raw::{self, Control, Dialect, Echo, Health, Metrics, Parent, Text, Tunnel, WordOr};
use crate::config::tree::{Spanned, raw};

raw! {
    Config {
        agent: Agent,
        interfaces: Spanned<Vec<Text>>,
        routers: Spanned<Vec<Text>>,
        router_macs: Option<Spanned<Vec<Text>>>,
        parents: Vec<Parent>,
        decapsulation: Option<Text>,
        tunnels: Option<Spanned<Vec<Spanned<WordOr<Tunnel>>>>>,
        mss_clamp: Option<Text>,
        virtual_hosts: Spanned<Vec<VirtualHost>>,
        load: Option<Load>,
        drain: Option<Drain>,
        metrics: Option<Metrics>,
        control: Option<Control>,
        state: Option<Text>,
        recovery: Option<Recovery>,
    }
    Recovery {
        echo: Echo,
    }
    Agent {
        name: Text,
        tunnel_addresses: Spanned<Vec<Text>>,
    }
    VirtualHost {
        name: Text,
        addresses: Spanned<Vec<Text>>,
        services: Option<Spanned<Vec<Text>>>,
        health: Option<Spanned<WordOr<Health>>>,
        application: Option<Spanned<Application>>,
        load: Option<Text>,
    }
    Application {
        http: Option<Text>,
        file: Option<Text>,
        command: Option<Spanned<Vec<Text>>>,
    }
    Load {
        interval: Option<Text>,
        expression: Option<Text>,
        capacity: Option<Text>,
        cgroup: Option<Text>,
    }
    Drain {
        timeout: Option<Text>,
    }
}

const DIALECT: Dialect = Dialect {
    sample: super::SAMPLE,
    start: "dpdk-config/host.yaml, or with agent: { name: server1, tunnel_addresses: [10.0.1.1] }",
    examples: &[
        ("virtual_hosts", true, "virtual_hosts: [{ name: web, addresses: [192.0.2.80] }]"),
        ("load", true, "load: { interval: 1s, expression: cpu }"),
        ("parents", true, "parents: [{ name: site1, address: 10.255.0.1:9478 }]"),
        ("control", true, "control: { socket: /run/slr-host/server1.sock }"),
        ("echo", false, "echo: { key: 9d02c6714b8ea35f10e7d9c84a6b2f53 }"),
        ("recovery", true, "recovery: { echo: { key: 9d02c6714b8ea35f10e7d9c84a6b2f53 } }"),
        ("metrics", true, "metrics: { listen: 127.0.0.1:9478 }"),
    ],
};

/// Reads the keys; what the values mean is not looked at.
pub(super) fn read(text: &str) -> Result<Config, Fault> {
    raw::read(text, &DIALECT)
}
