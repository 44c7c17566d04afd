//! Clients' packets, on their way to a child by every kind of tunnel.

use etherparse::PacketBuilder;

use super::*;
use crate::common::tunnels::ip;

/// A name, and what happens, given the child and the virtual host's address.
type Behaviour = (&'static str, fn(&Child, IpAddr) -> Vec<Step>);

/// A client of the family of `host`.
pub fn client(host: IpAddr) -> IpAddr {
    address(if host.is_ipv4() { "10.0.0.9" } else { "2001:db8:c::9" })
}

/// A UDP datagram of a client; `len` counts the bytes of the whole packet, 60 at least.
pub fn udp(host: IpAddr, port: u16, tos: u8, ttl: u8, len: usize) -> Vec<u8> {
    let header = if host.is_ipv4() { 20 } else { 40 };
    let length = (len - header) as u16;
    let udp = etherparse::UdpHeader { source_port: 4242, destination_port: port, length, checksum: 0xabcd };
    ip((client(host), host), tos, ttl, 17, &[&udp.to_bytes()[..], &vec![7; len - header - 8]].concat())
}

fn echo(host: IpAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (client(host), host) {
        (IpAddr::V4(client), IpAddr::V4(host)) => {
            let builder = PacketBuilder::ipv4(client.octets(), host.octets(), 57);
            builder.icmpv4_echo_request(7, 1).write(&mut bytes, b"ping")
        }
        (IpAddr::V6(client), IpAddr::V6(host)) => {
            let builder = PacketBuilder::ipv6(client.octets(), host.octets(), 57);
            builder.icmpv6_echo_request(7, 1).write(&mut bytes, b"ping")
        }
        _ => panic!("two families"),
    }
    .expect("a packet");
    bytes
}

/// With the router alert option (RFC 2113).
fn with_options(host: IpAddr) -> Vec<u8> {
    let plain = udp(host, 443, 0, 57, 60);
    let mut ip = [&[0x46], &plain[1..20], &[0x94, 4, 0, 0], &plain[20..]].concat();
    ip[2..4].copy_from_slice(&64_u16.to_be_bytes());
    ip[10..12].fill(0);
    let sum = slr::packet::checksum::checksum(&ip[..24]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip
}

pub fn dont_fragment(mut ip: Vec<u8>) -> Vec<u8> {
    if ip[0] >> 4 == 4 {
        ip[6] |= 0x40;
        ip[10..12].fill(0);
        let sum = slr::packet::checksum::checksum(&ip[..20]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    ip
}

const CLIENTS: &[Behaviour] = &[
    ("DSCP and ECN in all combinations", |_, host| {
        let packets = (0..=255).map(|tos| udp(host, 443, tos, 57, 60));
        packets.enumerate().map(|(number, ip)| if number == 0 { opens(&ip) } else { follows(&ip) }).collect()
    }),
    ("the last hop", |_, host| vec![opens(&udp(host, 443, 0, 1, 60)), follows(&udp(host, 443, 0, 0, 60))]),
    ("don't fragment", |_, host| {
        vec![opens(&dont_fragment(udp(host, 443, 0, 57, 60))), follows(&udp(host, 443, 0, 57, 60))]
    }),
    ("IPv4 options", |_, host| if host.is_ipv4() { vec![opens(&with_options(host))] } else { vec![] }),
    ("an echo request to the virtual host", |_, host| vec![opens(&echo(host)), follows(&echo(host))]),
    ("the wrong port", |_, host| vec![ends(ethernet(&udp(host, 444, 0, 57, 60)), "no_virtual_host")]),
    ("no service's address", |_, host| {
        let other = address(if host.is_ipv4() { "192.0.2.81" } else { "2001:db8:80::81" });
        vec![ends(ethernet(&udp(other, 443, 0, 57, 60)), "no_virtual_host")]
    }),
    ("padding behind a short packet", |_, host| {
        let ip = udp(host, 443, 0, 57, 60);
        vec![Step { arrives: [ethernet(&ip), vec![0xee; 11]].concat(), ..opens(&ip) }]
    }),
    ("the longest packet that fits, and one byte more", |child, host| {
        let longest = usize::from(MTU) - child.overhead;
        let too_long = dont_fragment(udp(host, 443, 0, 57, longest + 1));
        let longest = dont_fragment(udp(host, 443, 0, 57, longest));
        vec![opens(&longest), ends(ethernet(&too_long), "too_big"), follows(&longest)]
    }),
    ("a labelled packet", |_, host| {
        let ip = udp(host, 443, 0, 57, 60);
        let labelled = [&ethernet(&ip)[..12], &[0x88, 0x47, 0, 0x3e, 0x81, 64], &ip].concat();
        vec![ends(labelled, "ethertype_unsupported")]
    }),
];

#[test]
fn packets_of_clients() {
    for (name, steps) in CLIENTS {
        for child in &CHILDREN {
            for host in HOSTS {
                let case = format!("{name}: {host} by {}", child.name);
                take(&mut router_to(child, ""), child, &case, steps(child, address(host)));
            }
        }
    }
}

#[test]
fn the_udp_source_port_tells_flows_apart_and_stays_with_each() {
    for child in CHILDREN.iter().filter(|child| matches!(child.kind, Kind::Gue | Kind::Direct)) {
        let mut router = router_to(child, "");
        let at = if address(child.address).is_ipv4() { 34 } else { 54 };
        let mut ports = || -> Vec<[u8; 2]> {
            let flows = (0..100_u8).map(|number| {
                let host = address(HOSTS[0]);
                let mut ip = udp(host, 443, 0, 57, 60);
                ip[20..22].copy_from_slice(&[9, number]);
                ethernet(&ip)
            });
            router.carry(flows).iter().map(|frame| [frame[at], frame[at + 1]]).collect()
        };
        let first = ports();
        let different: std::collections::HashSet<_> = first.iter().collect();
        assert!(different.len() > 90, "{}: {first:?}", child.name);
        assert_eq!(ports(), first, "{}", child.name);
    }
}
