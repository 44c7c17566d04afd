//! ICMP errors, fragments, and packets that are too long, on their way to a child by every kind of tunnel.

use slr::packet::checksum::checksum;

use super::clients::{client, dont_fragment, udp};
use super::*;
use crate::common::tunnels::{ip, version};

/// A router that has nothing to do with client and server says that the server's packet from this port to that one was too
/// big.
fn too_big(host: IpAddr, from: u16, to: u16) -> Vec<u8> {
    let quoted = ip((host, client(host)), 0, 57, 17, &[from, to, 1480, 0].map(u16::to_be_bytes).concat());
    let (router, protocol, kind) = match host {
        IpAddr::V4(_) => ("172.16.0.7", 1, [3, 4]),
        IpAddr::V6(_) => ("2001:db8:7777::1", 58, [2, 0]),
    };
    ip((address(router), host), 0, 57, protocol, &[&kind[..], &[0, 0, 0, 0, 5, 0], &quoted].concat())
}

/// Fragments of a packet of 220 bytes behind its IP header.
fn fragments(host: IpAddr) -> [Vec<u8>; 3] {
    [(0, 80), (80, 160), (160, 220)].map(|(from, to)| fragment(host, from, to))
}

/// Bytes `from` to `to` of that packet.
fn fragment(host: IpAddr, from: u16, to: u16) -> Vec<u8> {
    let header = if host.is_ipv4() { 20 } else { 40 };
    let whole = udp(host, 443, 0, 57, header + 220);
    let (data, more) = (&whole[header + usize::from(from)..header + usize::from(to)], to < 220);
    if host.is_ipv6() {
        let [high, low] = (from | u16::from(more)).to_be_bytes();
        return ip((client(host), host), 0, 57, 44, &[&[17, 0, high, low, 0, 0, 0, 7], data].concat());
    }
    let mut fragment = ip((client(host), host), 0, 57, 17, data);
    fragment[4..8].copy_from_slice(&[0, 7, u8::from(more) << 5, (from / 8) as u8]);
    fragment[10..12].fill(0);
    let sum = checksum(&fragment[..20]);
    fragment[10..12].copy_from_slice(&sum.to_be_bytes());
    fragment
}

type Behaviour = (&'static str, fn(IpAddr) -> Vec<Step>);

const BEHAVIOURS: &[Behaviour] = &[
    ("fragmentation needed, from a third router", |host| {
        let error = too_big(host, 443, 4242);
        let carried = Step { moved: vec![("forwarded", 1), ("icmp_errors", 1)], ..opens(&error) };
        vec![opens(&udp(host, 443, 0, 57, 60)), carried]
    }),
    ("an error about no flow", |host| vec![ends(ethernet(&too_big(host, 443, 4242)), "icmp_error_unknown_flow")]),
    ("errors with a wrong port", |host| {
        let forged = |from, to| ends(ethernet(&too_big(host, from, to)), "icmp_error_unknown_flow");
        vec![
            opens(&udp(host, 443, 0, 57, 60)),
            forged(443, 4243),
            forged(444, 4242),
            follows(&udp(host, 443, 0, 57, 60)),
        ]
    }),
    ("fragments in order", |host| {
        let [first, second, third] = fragments(host);
        vec![opens(&first), follows(&second), follows(&third)]
    }),
    ("fragments in reverse", |host| {
        let [first, second, third] = fragments(host);
        let held = |ip: &[u8]| Step { leaves: vec![], moved: vec![], ..opens(ip) };
        let all = Step {
            leaves: vec![first.clone(), third.clone(), second.clone()],
            moved: vec![("forwarded", 3), ("flows_inserted", 1)],
            ..opens(&first)
        };
        vec![held(&third), held(&second), all]
    }),
    ("a fragment that comes again", |host| {
        let [first, second, _] = fragments(host);
        vec![opens(&first), follows(&first), follows(&second), follows(&second)]
    }),
    ("fragments over others", |host| {
        let [first, second, third] = fragments(host);
        let over = [(0, 88), (72, 152), (80, 152), (88, 160), (80, 220)];
        let refused = over.map(|(from, to)| ends(ethernet(&fragment(host, from, to)), "fragment_overlap"));
        [opens(&first), follows(&second)].into_iter().chain(refused).chain([follows(&third)]).collect()
    }),
];

#[test]
fn errors_and_fragments() {
    for (name, steps) in BEHAVIOURS {
        for child in &CHILDREN {
            for host in HOSTS {
                let case = format!("{name}: {host} by {}", child.name);
                take(&mut router_to(child, ""), child, &case, steps(address(host)));
            }
        }
    }
}

fn may_fragment(mut ip: Vec<u8>) -> Vec<u8> {
    if version(&ip) == 4 {
        ip[6] = 0;
        ip[10..12].fill(0);
        let sum = checksum(&ip[..20]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    ip
}

/// Puts the pieces of a packet together again, as whoever takes off their IP header does.
fn join(pieces: &[Vec<u8>]) -> Vec<u8> {
    let at = if pieces[0][12..14] == [0x88, 0x47] { 18 } else { 14 };
    let v4 = version(&pieces[0][at..]) == 4;
    let behind = at + if v4 { 20 } else { 48 };
    let mut whole = pieces[0][..behind].to_vec();
    for (place, piece) in pieces.iter().enumerate() {
        let field = if v4 { at + 6 } else { at + 42 };
        let field = u16::from_be_bytes([piece[field], piece[field + 1]]);
        let (offset, more) = if v4 { (field & 0x1fff, field & 0x2000 != 0) } else { (field >> 3, field & 1 == 1) };
        assert_eq!((usize::from(offset) * 8, more), (whole.len() - behind, place + 1 < pieces.len()));
        assert!(piece.len() - at <= usize::from(SHORT));
        whole.extend(&piece[behind..]);
    }
    if v4 {
        let len = (whole.len() - at) as u16;
        whole[at + 2..at + 4].copy_from_slice(&len.to_be_bytes());
        whole[at + 6..at + 8].fill(0);
        whole[at + 10..at + 12].fill(0);
        let sum = checksum(&whole[at..at + 20]);
        whole[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
    } else {
        let len = (whole.len() - behind) as u16;
        whole[at + 4..at + 6].copy_from_slice(&len.to_be_bytes());
        whole[at + 6] = whole[at + 40];
        whole.drain(at + 40..behind);
    }
    whole
}

/// An MTU that is too short for 1280 bytes by whatever tunnel.
const SHORT: u16 = 1276;

#[test]
fn a_packet_longer_than_the_path_arrives_in_pieces_or_its_sender_is_told() {
    for child in &CHILDREN {
        for host in HOSTS.map(address) {
            let has_outer = !matches!(child.kind, Kind::Mpls | Kind::Mac);
            for (packet, cut) in [
                (may_fragment(udp(host, 443, 0xb9, 57, 1280)), host.is_ipv4() || has_outer),
                (may_fragment(udp(host, 443, 0xb9, 57, 2600)), host.is_ipv4()),
                (dont_fragment(udp(host, 443, 0xb9, 57, 2600)), false),
            ] {
                let case = format!("{} bytes to {host} by {}", packet.len(), child.name);
                let mut router = TestRouter::over(&config(child, ""), &OneLink { mtu: SHORT, vlan: None });
                let sent = router.carry([ethernet(&packet)]);
                if !cut {
                    assert_eq!(router.moved(), [("received", 1), ("flows_inserted", 1), ("too_big", 1)], "{case}");
                    continue;
                }
                let pieces = ("pieces", sent.len() as u64);
                let moved = [("received", 1), ("forwarded", 1), ("fragmented", 1), pieces, ("flows_inserted", 1)];
                assert_eq!(router.moved(), moved, "{case}");
                let around = Outer { dont_fragment: false, ..expected(child, &packet, 64) };
                assert_eq!(read(&join(&sent)), (around, packet), "{case}");
            }
        }
    }
}
