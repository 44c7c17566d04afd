//! QUIC packets whose connection ids name a child.

use std::time::Duration;

use super::*;
use crate::common::tunnels::ip;

/// Three servers; connection ids of 6 bytes, the server's id in the second and third.
const CONFIG: &str = r#"
router: { name: test, tunnel_addresses: [198.51.100.1, "2001:db8:1::1"] }
flows: { capacity_v4: 1000, capacity_v6: 1000, timeouts: { udp: 30s } }
children:
  - { name: a, address: 203.0.113.1 }
  - { name: b, address: 203.0.113.2 }
  - { name: drained, address: 203.0.113.3 }
virtual_hosts:
  - name: web
    addresses: [192.0.2.80, "2001:db8:80::80"]
    services: [udp/443, tcp/443]
    quic: { length: 6, offset: 1, server_id_length: 2 }
    children:
      - { name: a, server_id: "00a1" }
      - { name: b, server_id: "00b2", tier: 1 }
      - { name: drained, server_id: "00c3", weight: 0 }
  - name: plain
    addresses: [192.0.2.81, "2001:db8:80::81"]
    services: [udp/443]
    children: [a]
"#;

/// Connection ids of the three, of a server that is not there, and one that is too long.
const A: &[u8] = &[9, 0x00, 0xa1, 1, 2, 3];
const B: &[u8] = &[9, 0x00, 0xb2, 1, 2, 3];
const DRAINED: &[u8] = &[9, 0x00, 0xc3, 1, 2, 3];
const UNKNOWN: &[u8] = &[9, 0x0b, 0xad, 1, 2, 3];
const LONG: &[u8] = &[9, 0x00, 0xb2, 1, 2, 3, 4, 5];
const NONE: &[u8] = &[];

fn long(first: u8, dcid: &[u8]) -> Vec<u8> {
    [&[first, 0, 0, 0, 1, dcid.len() as u8], dcid, &[3, 7, 7, 7, 0, 64], &[5; 40]].concat()
}

fn initial(dcid: &[u8]) -> Vec<u8> {
    long(0xc3, dcid)
}

fn zero_rtt(dcid: &[u8]) -> Vec<u8> {
    long(0xd3, dcid)
}

fn handshake(dcid: &[u8]) -> Vec<u8> {
    long(0xe3, dcid)
}

fn short(dcid: &[u8]) -> Vec<u8> {
    [&[0x43], dcid, &[5; 40]].concat()
}

/// A datagram from a client's port to the virtual host `host`.
fn packet(host: &str, source_port: u16, payload: &[u8]) -> Vec<u8> {
    let host = address(host);
    let client = address(if host.is_ipv4() { "10.0.0.9" } else { "2001:db8:c::9" });
    let length = 8 + payload.len() as u16;
    let udp = etherparse::UdpHeader { source_port, destination_port: 443, length, checksum: 0xabcd };
    ip((client, host), 0, 57, 17, &[&udp.to_bytes()[..], payload].concat())
}

const NEW: &[&str] = &["forwarded", "flows_inserted"];
const NEW_BY_ID: &[&str] = &["forwarded", "flows_inserted", "quic_steered"];
const KNOWN: &[&str] = &["forwarded"];
const MOVED: &[&str] = &["forwarded", "quic_steered"];

/// A client's port, what it sends, the last number of the child's address that gets it, and the counters that move.
type Row = (u16, Vec<u8>, u8, &'static [&'static str]);

fn table() -> Vec<(&'static str, Vec<Row>)> {
    vec![
        (
            "a connection from its first packet on",
            vec![
                (1, initial(UNKNOWN), 1, NEW),
                (1, initial(A), 1, KNOWN),
                (1, handshake(A), 1, KNOWN),
                (1, short(A), 1, KNOWN),
            ],
        ),
        ("the client's address changes: short header", vec![(1, short(B), 2, NEW_BY_ID), (1, short(B), 2, KNOWN)]),
        ("the client's address changes: handshake", vec![(1, handshake(B), 2, NEW_BY_ID), (1, short(B), 2, KNOWN)]),
        (
            "an address translator gives the same ports to another connection",
            vec![
                (1, short(A), 1, NEW_BY_ID),
                (1, short(B), 2, MOVED),
                (1, short(B), 2, KNOWN),
                (1, short(UNKNOWN), 2, KNOWN),
                (1, handshake(A), 1, MOVED),
            ],
        ),
        (
            "an initial packet goes by the flow entry first",
            vec![(1, initial(UNKNOWN), 1, NEW), (1, initial(B), 1, KNOWN), (1, zero_rtt(B), 1, KNOWN)],
        ),
        (
            "an initial packet without a flow entry goes by its id",
            vec![(1, initial(B), 2, NEW_BY_ID), (2, zero_rtt(B), 2, NEW_BY_ID)],
        ),
        (
            "an initial packet of another length is the client's own",
            vec![(1, initial(LONG), 1, NEW), (2, zero_rtt(LONG), 1, NEW)],
        ),
        (
            "unknown ids",
            vec![
                (1, initial(UNKNOWN), 1, NEW),
                (2, zero_rtt(UNKNOWN), 1, NEW),
                (3, handshake(UNKNOWN), 1, NEW),
                (4, short(UNKNOWN), 1, NEW),
                (4, short(UNKNOWN), 1, KNOWN),
            ],
        ),
        (
            "no id",
            vec![
                (1, initial(NONE), 1, NEW),
                (2, zero_rtt(NONE), 1, NEW),
                (3, handshake(NONE), 1, NEW),
                (4, [&[0x43], &[0; 40][..]].concat(), 1, NEW),
                (5, vec![], 1, NEW),
                (6, vec![0x43, 9, 0], 1, NEW),
            ],
        ),
        (
            "a draining child keeps its connections",
            vec![(1, short(DRAINED), 3, NEW_BY_ID), (2, handshake(DRAINED), 3, NEW_BY_ID)],
        ),
        (
            "a draining child gets no new ones, whatever ids clients choose",
            vec![(1, initial(DRAINED), 1, NEW), (2, zero_rtt(DRAINED), 1, NEW)],
        ),
    ]
}

fn run(router: &mut TestRouter, case: &str, host: &str, rows: Vec<Row>) {
    for (number, (port, payload, child, moved)) in (1..).zip(rows) {
        let ip = packet(host, port, &payload);
        let sent = router.carry([ethernet(&ip)]);
        let (outer, inner) = read(&sent[0]);
        let case = format!("{case} to {host}, row {number}");
        let to = outer.ends.expect("an outer header").1;
        assert_eq!((to, inner), (IpAddr::from([203, 0, 113, child]), ip), "{case}");
        let moved = moved.iter().map(|counter| (*counter, 1)).chain([("received", 1)]).collect();
        assert_eq!(router.moved().into_iter().collect::<BTreeMap<_, _>>(), moved, "{case}");
    }
}

#[test]
fn connection_ids_select_the_child() {
    for (case, rows) in table() {
        for host in HOSTS {
            run(&mut TestRouter::new(CONFIG), case, host, rows.clone());
        }
    }
}

#[test]
fn a_virtual_host_without_quic_reads_none() {
    for host in ["192.0.2.81", "2001:db8:80::81"] {
        run(&mut TestRouter::new(CONFIG), "plain", host, vec![(1, short(B), 1, NEW), (1, handshake(B), 1, KNOWN)]);
    }
}

#[test]
fn a_moved_flow_is_counted_on_and_expires_as_any_other() {
    let mut router = TestRouter::new(CONFIG);
    run(&mut router, "moved", HOSTS[0], vec![(1, short(A), 1, NEW_BY_ID), (1, short(B), 2, MOVED)]);
    router.wait(Duration::from_secs(31));
    router.carry([ethernet(&packet(HOSTS[0], 1, &initial(UNKNOWN)))]);
    let expected = [("received", 1), ("forwarded", 1), ("flows_inserted", 1), ("flows_expired", 1)];
    assert_eq!(router.moved(), expected);
}

#[test]
fn what_is_behind_the_datagram_in_its_frame_does_not_count() {
    let mut router = TestRouter::new(CONFIG);
    // Cut within the connection id, padded with the rest of it.
    let ip = packet(HOSTS[0], 1, &short(B)[..4]);
    let sent = router.carry([[ethernet(&ip), short(B)[4..].to_vec()].concat()]);
    assert_eq!(read(&sent[0]).0.ends.expect("an outer header").1, address("203.0.113.1"));
    assert_eq!(router.moved(), [("received", 1), ("forwarded", 1), ("flows_inserted", 1)]);
}

#[test]
fn a_client_prefix_as_one_flow_stays_while_single_connections_go_by_their_ids() {
    let coarse = CONFIG.replace("    quic:", "    flow: source\n    quic:");
    let mut router = TestRouter::new(&coarse);
    let rows = vec![
        (1, initial(UNKNOWN), 1, NEW),
        (2, short(B), 2, MOVED),
        (2, short(B), 2, MOVED),
        (2, initial(UNKNOWN), 1, KNOWN),
        (3, initial(B), 1, KNOWN),
    ];
    run(&mut router, "coarse", HOSTS[0], rows);
}

#[test]
fn a_full_flow_table_does_not_keep_an_id_from_being_read() {
    let mut router = TestRouter::new(&CONFIG.replace("capacity_v4: 1000", "capacity_v4: 1"));
    let by_id: &[&str] = &["forwarded", "flows_refused", "quic_steered"];
    let rows = vec![(1, initial(UNKNOWN), 1, NEW), (2, short(B), 2, by_id), (2, short(B), 2, by_id)];
    run(&mut router, "full", HOSTS[0], rows);
}
