//! What must hold of the walk of a packet for any frames at all, in any order.

use std::sync::LazyLock;

use crate::common::router::{OneLink, TestRouter};
use slr::config::Config;
use slr::packet::parse::{Frame, parse};

static CONFIG: LazyLock<Config> = LazyLock::new(|| Config::parse(YAML, "fuzz.yaml").expect("a configuration"));

/// Everything is a service, and everybody a parent, so that no frame is turned away early.
const YAML: &str = r#"
router:
  name: fuzz
  tunnel_addresses: [192.0.2.1, "2001:db8::1"]
  parents: [0.0.0.0/0, "::/0"]
flows: { capacity_v4: 16, capacity_v6: 16 }
cluster: { table_size: 13 }
children:
  - { name: four, address: 198.51.100.4 }
  - { name: six, address: "2001:db8:1::6" }
  - { name: gue, address: 198.51.100.5, tunnel: gue }
  - { name: gre, address: "2001:db8:1::5", tunnel: gre }
virtual_hosts:
  - { name: tcp, addresses: [0.0.0.0/0, "::/0"], services: [tcp], mss_clamp: auto, children: [four, six] }
  - name: udp
    addresses: [0.0.0.0/0, "::/0"]
    services: [udp]
    quic: { length: 8, server_id_length: 1 }
    children: [{ name: gue, server_id: "00" }, { name: gre, server_id: "01" }]
  - { name: others, addresses: [0.0.0.0/0, "::/0"], services: [any], flow: source, selection: round_robin, children: [six, four] }
"#;

/// Puts a frame behind its length, as [`run`] reads it.
#[allow(dead_code, reason = "the seeds are made with it, the fuzzer makes its own")]
pub fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u16).to_be_bytes(), frame].concat()
}

/// Lets frames arrive, each behind its length in two bytes, and checks that each ends in one way (the router does, after
/// every burst) and that what leaves is sound.
pub fn run(mut data: &[u8]) {
    let mut frames = Vec::new();
    while let Some((length, rest)) = data.split_first_chunk() {
        let (frame, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        frames.push(frame);
        data = rest;
    }
    for frame in TestRouter::of(&CONFIG, &OneLink { mtu: 1600, vlan: None }).carry(frames) {
        match parse(&frame, frame.len()) {
            Ok(Frame::Ip(parsed)) => {
                assert_eq!(usize::from(parsed.l3_offset) + parsed.l3_len as usize, frame.len());
                assert!([4, 41, 17, 47].contains(&parsed.protocol));
            }
            other => panic!("{other:?} leaves: {frame:02x?}"),
        }
    }
}
