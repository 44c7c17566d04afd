//! The MSS option of SYNs.

use etherparse::{PacketBuilder, TcpOptionElement};

use super::*;

/// A TCP packet of a client with this MSS, with a right checksum.
fn tcp(host: &str, flags: &str, mss: u16) -> Vec<u8> {
    let ip = match address(host) {
        IpAddr::V4(host) => PacketBuilder::ipv4([10, 0, 0, 9], host.octets(), 57),
        IpAddr::V6(host) => PacketBuilder::ipv6([0x20; 16], host.octets(), 57),
    };
    let tcp = ip.tcp(4242, 80, 7, 1000);
    let tcp = if flags == "S" { tcp.syn() } else { tcp.ack(9) };
    let tcp = tcp.options(&[TcpOptionElement::Noop, TcpOptionElement::MaximumSegmentSize(mss)]).expect("they fit");
    let mut bytes = Vec::new();
    tcp.write(&mut bytes, &[]).expect("a packet");
    bytes
}

#[test]
fn an_mss_is_lowered_to_what_is_configured_and_only_in_syns() {
    for child in &CHILDREN {
        for (host, headers) in HOSTS.into_iter().zip([40, 60]) {
            let auto = MTU - child.overhead as u16 - headers;
            for (settings, flags, came, leaves) in [
                ("mss_clamp: auto", "S", auto + 1, auto),
                ("mss_clamp: auto", "S", 9000, auto),
                ("mss_clamp: auto", "S", auto, auto),
                ("mss_clamp: auto", "S", 536, 536),
                ("mss_clamp: auto", "A", 9000, 9000),
                ("mss_clamp: 1300", "S", 1460, 1300),
                ("mss_clamp: 1300", "S", 1299, 1299),
                ("mss_clamp: off", "S", 9000, 9000),
                ("", "S", 9000, 9000),
            ] {
                let lowered = came != leaves;
                let mut step = Step { arrives: ethernet(&tcp(host, flags, came)), ..opens(&tcp(host, flags, leaves)) };
                step.moved.extend(lowered.then_some(("mss_clamped", 1)));
                let case = format!("{settings}: {flags} {came} to {host} by {}", child.name);
                take(&mut router_to(child, settings), child, &case, vec![step]);
            }
        }
    }
}
