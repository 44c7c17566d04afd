//! Parents' tunnel packets, and what looks like them.

use super::*;
use crate::common::tunnels::{OF_PARENTS, ip, shim, tunnelled};

/// A parent and our own end, by family.
const ENDS: [(&str, &str); 2] = [("198.51.100.254", OWN[0]), ("2001:db8:ffff::1", OWN[1])];

/// A packet of a client to a virtual host.
fn inner(host: &str, tos: u8) -> Vec<u8> {
    let (client, host) = match address(host) {
        host @ IpAddr::V4(_) => (address("10.0.0.9"), host),
        host @ IpAddr::V6(_) => (address("2001:db8:c::9"), host),
    };
    ip((client, host), tos, 57, 17, &[16, 146, 1, 187, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
}

fn addresses((source, destination): (&str, &str)) -> (IpAddr, IpAddr) {
    (address(source), address(destination))
}

/// For every kind of tunnel that we take off, over both families, with a packet of each family inside.
fn for_each(mut case: impl FnMut(Kind, (IpAddr, IpAddr), &'static str)) {
    for kind in OF_PARENTS {
        for ends in ENDS {
            for host in HOSTS {
                case(kind, addresses(ends), host);
            }
        }
    }
}

#[test]
fn the_inner_packet_takes_the_same_walk_with_a_falling_ttl() {
    for_each(|kind, ends, host| {
        for child in &CHILDREN {
            let ip = inner(host, 0);
            let arrives = |ttl| ethernet(&tunnelled(kind, ends, 0, ttl, &ip));
            let steps = vec![
                Step { arrives: arrives(64), ttl: 63, ..opens(&ip) },
                Step { arrives: arrives(2), ttl: 1, ..follows(&ip) },
                super::ends(arrives(1), "ttl_exceeded"),
                super::ends(arrives(0), "ttl_exceeded"),
                Step { arrives: [arrives(9), vec![0xee; 9]].concat(), ttl: 8, ..follows(&ip) },
            ];
            let case = format!("{kind:?} {ends:?} to {host} by {}", child.name);
            take(&mut router_to(child, ""), child, &case, steps);
        }
    });
}

/// The ECN field that an inner packet leaves with (RFC 6040 figure 4), by inner and outer field; `None` is dropped.
const ECN: [[Option<u8>; 4]; 4] = [
    [Some(0), Some(0), Some(0), None],
    [Some(1), Some(1), Some(1), Some(3)],
    [Some(2), Some(1), Some(2), Some(3)],
    [Some(3), Some(3), Some(3), Some(3)],
];

#[test]
fn congestion_marks_and_dscp_in_all_combinations() {
    for_each(|kind, ends, host| {
        for (inside, row) in (0..4).zip(ECN) {
            for (outside, leaves) in (0..4).zip(row) {
                for dscp in [0, 46 << 2] {
                    let arrives =
                        ethernet(&tunnelled(kind, ends, 0b1010_1000 | outside, 9, &inner(host, dscp | inside)));
                    let step = match leaves {
                        Some(ecn) => Step { arrives, ttl: 8, ..opens(&inner(host, dscp | ecn)) },
                        None => super::ends(arrives, "tunnel_ecn"),
                    };
                    let case = format!("{kind:?} {ends:?} to {host}: {inside} in {outside}");
                    take(&mut router_to(&CHILDREN[0], ""), &CHILDREN[0], &case, vec![step]);
                }
            }
        }
    });
}

/// A first fragment of a packet.
fn fragment(mut ip: Vec<u8>) -> Vec<u8> {
    let cut = |len: usize, header: usize| (len - header) / 8 * 8 + header;
    match ip[0] >> 4 {
        4 => {
            ip.truncate(cut(ip.len(), 20));
            let len = ip.len() as u16;
            ip[2..4].copy_from_slice(&len.to_be_bytes());
            ip[6] = 0x20;
            ip[10..12].fill(0);
            let sum = slr::packet::checksum::checksum(&ip[..20]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            ip
        }
        _ => {
            ip.truncate(cut(ip.len(), 40));
            let len = (ip.len() - 40 + 8) as u16;
            let next = std::mem::replace(&mut ip[6], 44);
            ip[4..6].copy_from_slice(&len.to_be_bytes());
            [&ip[..40], &[next, 0, 0, 1, 0, 0, 0, 7], &ip[40..]].concat()
        }
    }
}

#[test]
fn tunnel_packets_that_must_not_be_taken_off() {
    for_each(|kind, ends, host| {
        let good = inner(host, 0);
        let own = address(OWN[usize::from(address(host).is_ipv6())]);
        let stranger = address(if ends.0.is_ipv4() { "198.51.100.253" } else { "2001:db8:fffe::1" });
        let wrap = |inner: &[u8]| ethernet(&tunnelled(kind, ends, 0, 9, inner));
        let plain = ip((own, address(host)), 0, 57, 17, &good[good.len() - 16..]);
        let to_us = ip(
            (address(if own.is_ipv4() { "10.0.0.9" } else { "2001:db8:c::9" }), own),
            0,
            57,
            17,
            &[0, 53, 0, 53, 0, 8, 0, 0],
        );
        let mut cases = vec![
            ("a stranger", ethernet(&tunnelled(kind, (stranger, ends.1), 0, 9, &good)), "tunnel_stranger"),
            ("our own address inside", wrap(&plain), "tunnel_spoofed"),
            ("for us inside", wrap(&to_us), "own_address_in_tunnel"),
            ("a fragment", ethernet(&fragment(tunnelled(kind, ends, 0, 9, &good))), "tunnel_fragment"),
            (
                "no service inside",
                wrap(&inner(if host == HOSTS[0] { "192.0.2.99" } else { "2001:db8::99" }, 0)),
                "no_virtual_host",
            ),
        ];
        for nested in OF_PARENTS {
            let (parent, own) = ENDS[usize::from(own.is_ipv6())];
            let nested = tunnelled(nested, addresses((parent, own)), 0, 9, &good);
            cases.push(("a tunnel in a tunnel", wrap(&nested), "tunnel_nested"));
        }
        let cut = if good[0] >> 4 == 4 { "ipv4_total_length" } else { "ipv6_payload_length" };
        cases.push(("the inner packet cut", wrap(&good[..good.len() - 4]), cut));
        for (name, arrives, counter) in cases {
            let case = format!("{name}: {kind:?} {ends:?} to {host}");
            take(&mut router_to(&CHILDREN[0], ""), &CHILDREN[0], &case, vec![super::ends(arrives, counter)]);
        }
    });
}

#[test]
fn headers_that_are_none_of_ours() {
    let good = inner(HOSTS[0], 0);
    // The kind whose header is changed, the byte of it, and what is written there.
    for (name, kind, at, value, counter) in [
        ("GUE, control message", Kind::Gue, 8, 0x20, "tunnel_header"),
        ("GUE, private data", Kind::Gue, 8, 1, "tunnel_header"),
        ("GUE, variant 2", Kind::Gue, 8, 0x80, "tunnel_header"),
        ("GUE, TCP inside", Kind::Gue, 9, 6, "tunnel_header"),
        ("GUE, a flag", Kind::Gue, 10, 0x80, "tunnel_header"),
        ("GUE, the other family inside", Kind::Gue, 9, 41, "ip_version"),
        ("GUE, a wrong checksum", Kind::Gue, 7, 1, "tunnel_checksum"),
        ("GUE, the length cuts the inner packet", Kind::Gue, 5, 40, "ipv4_total_length"),
        ("GUE, the length cuts the header", Kind::Gue, 5, 10, "tunnel_header"),
        ("direct, a wrong checksum", Kind::Direct, 6, 1, "tunnel_checksum"),
        ("direct, IP version 5", Kind::Direct, 8, 0x55, "tunnel_header"),
        ("direct, nothing inside", Kind::Direct, 5, 8, "tunnel_header"),
        ("another UDP port", Kind::Gue, 3, 0xc1, "own_address"),
        ("GRE with a checksum", Kind::Gre, 0, 0x80, "tunnel_header"),
        ("GRE with a key", Kind::Gre, 0, 0x20, "tunnel_header"),
        ("GRE with a sequence number", Kind::Gre, 0, 0x10, "tunnel_header"),
        ("GRE, version 1", Kind::Gre, 1, 1, "tunnel_header"),
        ("GRE, Ethernet inside", Kind::Gre, 2, 0x65, "tunnel_header"),
    ] {
        for ends in ENDS.map(addresses) {
            let (protocol, mut shim) = shim(kind, 55_555, &good);
            let mut payload = [std::mem::take(&mut shim), good.clone()].concat();
            payload[at] = value;
            let arrives = ethernet(&ip(ends, 0, 9, protocol, &payload));
            let case = format!("{name} {ends:?}");
            take(&mut router_to(&CHILDREN[0], ""), &CHILDREN[0], &case, vec![super::ends(arrives, counter)]);
        }
    }
}

#[test]
fn a_right_udp_checksum_is_as_good_as_none() {
    use slr::packet::checksum::{pseudo_v4, pseudo_v6};
    for_each(|kind, ends, host| {
        if !matches!(kind, Kind::Gue | Kind::Direct) {
            return;
        }
        let good = inner(host, 0);
        let mut payload = [shim(kind, 55_555, &good).1, good.clone()].concat();
        let sum = match ends {
            (IpAddr::V4(source), IpAddr::V4(own)) => {
                pseudo_v4(source.octets(), own.octets(), 17, payload.len() as u16).add_bytes(&payload)
            }
            (IpAddr::V6(source), IpAddr::V6(own)) => {
                pseudo_v6(&source.octets(), &own.octets(), 17, payload.len() as u32).add_bytes(&payload)
            }
            _ => panic!("two families"),
        };
        payload[6..8].copy_from_slice(&sum.finish().to_be_bytes());
        let step = Step { arrives: ethernet(&ip(ends, 0, 9, 17, &payload)), ttl: 8, ..opens(&good) };
        take(&mut router_to(&CHILDREN[0], ""), &CHILDREN[0], &format!("{kind:?} {ends:?}"), vec![step]);
    });
}

#[test]
fn gue_of_parents_comes_to_the_port_that_is_configured() {
    let elsewhere = config(&CHILDREN[0], "").replace("parents:", "gue_port: 6666, parents:");
    let mut router = TestRouter::over(&elsewhere, &OneLink { mtu: MTU, vlan: None });
    let (good, ends) = (inner(HOSTS[0], 0), addresses(ENDS[0]));
    let (protocol, shim) = shim(Kind::Gue, 55_555, &good);
    let mut payload = [shim, good.clone()].concat();
    let usual = ethernet(&ip(ends, 0, 9, protocol, &payload));
    payload[2..4].copy_from_slice(&6666_u16.to_be_bytes());
    let configured = ethernet(&ip(ends, 0, 9, protocol, &payload));
    let steps = vec![super::ends(usual, "own_address"), Step { arrives: configured, ttl: 8, ..opens(&good) }];
    take(&mut router, &CHILDREN[0], "port 6666", steps);
}
