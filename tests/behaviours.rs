//! A table of behaviours: what arrives, what leaves, and exactly the counters that move, for every kind of tunnel and both
//! families.
//!
//! A behaviour is a list of [`Step`]s that one router takes one after the other. Those in [`CLIENTS`] are gone through for
//! each child of [`CHILDREN`] and a virtual host of each family, those of parents for each kind of tunnel that we take off.

#[path = "behaviours/clients.rs"]
mod clients;
#[path = "behaviours/errors.rs"]
mod errors;
#[path = "behaviours/mss.rs"]
mod mss;
#[path = "behaviours/parents.rs"]
mod parents;
#[path = "behaviours/quic.rs"]
mod quic;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::common::router::{NEXT_HOP_MAC, OneLink, ROUTER_MAC, TestRouter};
use crate::common::tunnels::{Kind, Outer, ethernet, read};

/// Longest packet of the link to the children.
const MTU: u16 = 1600;

/// One frame, and what comes of it.
struct Step {
    arrives: Vec<u8>,
    /// The inner packets of what leaves.
    leaves: Vec<Vec<u8>>,
    /// TTL of the outer header.
    ttl: u8,
    /// Every counter that moves, beside `received`.
    moved: Vec<(&'static str, u64)>,
}

/// A packet from a client that opens a flow.
fn opens(ip: &[u8]) -> Step {
    Step {
        arrives: ethernet(ip),
        leaves: vec![ip.to_vec()],
        ttl: 64,
        moved: vec![("forwarded", 1), ("flows_inserted", 1)],
    }
}

/// A packet from a client whose flow is known.
fn follows(ip: &[u8]) -> Step {
    Step { moved: vec![("forwarded", 1)], ..opens(ip) }
}

/// A frame that goes nowhere and is counted once.
fn ends(arrives: Vec<u8>, counter: &'static str) -> Step {
    Step { arrives, leaves: vec![], ttl: 0, moved: vec![(counter, 1)] }
}

/// A child, and the kind of tunnel to it.
struct Child {
    name: &'static str,
    kind: Kind,
    address: &'static str,
    tunnel: &'static str,
    /// Bytes that the tunnel adds.
    overhead: usize,
}

#[rustfmt::skip]
const CHILDREN: [Child; 10] = [
    Child { name: "ipip-4", kind: Kind::IpIp, address: "203.0.113.1", tunnel: "ipip", overhead: 20 },
    Child { name: "ipip-6", kind: Kind::IpIp, address: "2001:db8:2::1", tunnel: "ipip", overhead: 40 },
    Child { name: "gue-4", kind: Kind::Gue, address: "203.0.113.2", tunnel: "gue", overhead: 32 },
    Child { name: "gue-6", kind: Kind::Gue, address: "2001:db8:2::2", tunnel: "{ gue: { variant: 0 } }", overhead: 52 },
    Child { name: "direct-4", kind: Kind::Direct, address: "203.0.113.3", tunnel: "{ gue: { variant: 1 } }", overhead: 28 },
    Child { name: "direct-6", kind: Kind::Direct, address: "2001:db8:2::3", tunnel: "{ gue: { variant: 1 } }", overhead: 48 },
    Child { name: "gre-4", kind: Kind::Gre, address: "203.0.113.4", tunnel: "gre", overhead: 24 },
    Child { name: "gre-6", kind: Kind::Gre, address: "2001:db8:2::4", tunnel: "gre", overhead: 44 },
    Child { name: "mpls", kind: Kind::Mpls, address: "203.0.113.5", tunnel: "{ mpls: { label: 1000 } }", overhead: 4 },
    Child { name: "mac", kind: Kind::Mac, address: "203.0.113.6", tunnel: "mac", overhead: 0 },
];

/// The router's own ends of tunnels.
const OWN: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];
/// The virtual hosts.
const HOSTS: [&str; 2] = ["192.0.2.80", "2001:db8:80::80"];

/// A router in front of one child, for which any table will do.
fn config(child: &Child, settings: &str) -> String {
    let Child { name, address, tunnel, .. } = child;
    let ([own4, own6], [host4, host6]) = (OWN, HOSTS);
    format!(
        r#"
router: {{ name: test, tunnel_addresses: [{own4}, "{own6}"], parents: [198.51.100.254, "2001:db8:ffff::/48"] }}
flows: {{ capacity_v4: 1000, capacity_v6: 1000 }}
children: [{{ name: {name}, address: "{address}", tunnel: {tunnel} }}]
virtual_hosts:
  - name: web
    addresses: [{host4}, "{host6}"]
    services: [tcp/80, udp/443, icmp, icmpv6]
    children: [{name}]
    table_size: 251
    {settings}
"#
    )
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// What must stand around `inner` on its way to `child`.
fn expected(child: &Child, inner: &[u8], ttl: u8) -> Outer {
    let kind = child.kind;
    let (tos, dont_fragment) = match inner[0] >> 4 {
        4 => (inner[1], inner[6] & 0x40 != 0),
        _ => (inner[0] << 4 | inner[1] >> 4, true),
    };
    let to = address(child.address);
    match kind {
        Kind::Mac => Outer { kind, ends: None, tos: 0, ttl: 0, dont_fragment: false },
        Kind::Mpls => Outer { kind, ends: None, tos: tos >> 5, ttl, dont_fragment: false },
        _ => {
            let source = address(OWN[usize::from(to.is_ipv6())]);
            Outer { kind, ends: Some((source, to)), tos, ttl, dont_fragment: dont_fragment && to.is_ipv4() }
        }
    }
}

/// Takes the steps one after the other. `case` is what failures are called.
fn take(router: &mut TestRouter, child: &Child, case: &str, steps: Vec<Step>) {
    for (number, step) in (1..).zip(steps) {
        let case = format!("{case}, step {number}");
        let sent = router.carry([&step.arrives]);
        let leaving: Vec<_> = sent.iter().map(|frame| read(frame)).collect();
        let leaves: Vec<_> = step.leaves.iter().map(|ip| (expected(child, ip, step.ttl), ip.clone())).collect();
        assert_eq!(leaving, leaves, "{case}");
        assert!(sent.iter().all(|frame| frame.starts_with(&[NEXT_HOP_MAC.0, ROUTER_MAC.0].concat())), "{case}");
        let moved: BTreeMap<_, _> = router.moved().into_iter().collect();
        assert_eq!(moved, step.moved.into_iter().chain([("received", 1)]).collect(), "{case}");
    }
}

/// A router in front of `child` alone.
fn router_to(child: &Child, settings: &str) -> TestRouter {
    TestRouter::over(&config(child, settings), &OneLink { mtu: MTU, vlan: None })
}
