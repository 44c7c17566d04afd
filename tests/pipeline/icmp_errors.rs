//! ICMP errors reach the child whose flow they are about, whoever sends them, and touch nothing.

use super::*;
use crate::common::capture::real_frames;

const SIX_TO_TEN: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 4));

fn config(extra: &str) -> String {
    ten(extra).replace("192.0.2.0/24]", "192.0.2.0/24, \"2001:db8:80::/48\"]")
}

/// An IP packet of any protocol with a payload.
fn ip(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source.parse().expect("an address"), destination.parse().expect("an address")) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header =
                [&[0x45, 0, 0, 0, 0, 0, 0, 0, 9, protocol, 0, 0][..], &source.octets(), &destination.octets()].concat();
            header[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
            fix_checksum(&mut header);
            [&header, payload].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [high, low] = (payload.len() as u16).to_be_bytes();
            [&[0x60, 0, 0, 0, high, low, protocol, 9][..], &source.octets(), &destination.octets(), payload].concat()
        }
        _ => panic!("two families"),
    }
}

/// An error about `quoted` from a router that has nothing to do with the flow, as a bare IP packet.
fn error(to: IpAddr, kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    let message = [&[kind, code, 0, 0, 0, 0, 5, 0], quoted].concat();
    match to {
        IpAddr::V4(_) => ip("172.16.0.7", &to.to_string(), 1, &message),
        IpAddr::V6(_) => ip("2001:db8:7777::1", &to.to_string(), 58, &message),
    }
}

/// What a server sends to the usual client: the start of a packet of `protocol` from port 80 to this port.
fn answer(from: IpAddr, protocol: u8, client_port: u16) -> Vec<u8> {
    let transport = [&80_u16.to_be_bytes()[..], &client_port.to_be_bytes(), &[0; 4]].concat();
    let client = if from.is_ipv4() { "10.0.0.9" } else { "2001:db8:c::9" };
    let mut quoted = ip(&from.to_string(), client, protocol, &transport);
    // Lengths and checksums of quotes are those of another place and time.
    let length = if from.is_ipv4() { 2 } else { 4 };
    quoted[length..length + 2].copy_from_slice(&1500_u16.to_be_bytes());
    quoted
}

const ALL: [(IpAddr, &[(u8, u8)]); 2] =
    [(FOUR, &[(3, 1), (3, 4), (3, 13), (11, 0), (12, 0)]), (SIX_TO_TEN, &[(1, 0), (1, 4), (2, 0), (3, 0), (4, 1)])];

#[test]
fn every_kind_of_error_goes_untouched_to_the_child_of_the_quoted_flow() {
    for (destination, kinds) in ALL {
        for extra in ["flow: 5-tuple, selection: round_robin", "flow: source", "flow: { source: { v4: 24, v6: 56 } }"] {
            let mut router = TestRouter::new(&config(extra));
            for (port, flags) in (1..=20).zip([None, Some("S")].into_iter().cycle()) {
                let packet = Packet { tcp_flags: flags, ..udp(destination) }.with_port(port).frame();
                let child = children(&mut router, [packet])[0];
                router.moved();
                let protocol = if flags.is_some() { 6 } else { 17 };
                for (kind, code) in kinds {
                    let error = error(destination, *kind, *code, &answer(destination, protocol, port));
                    let sent = router.carry([ethernet(&error)]);
                    let outer = outer(&sent[0]);
                    assert_eq!((outer.destination, &outer.inner), (child, &error), "{kind}/{code}, {extra}");
                }
                let count = kinds.len() as u64;
                assert_eq!(router.moved(), [("received", count), ("forwarded", count), ("icmp_errors", count)]);
            }
        }
    }
}

#[test]
fn an_error_about_an_answer_to_ping_follows_the_ping_and_another_clients_ping_does_not_draw_it() {
    for (destination, ping, protocol, kind) in [(FOUR, 8, 1, 3), (SIX_TO_TEN, 128, 58, 1)] {
        let mut router = TestRouter::new(&config("selection: round_robin"));
        let client = if destination.is_ipv4() { "10.0.0.9" } else { "2001:db8:c::9" };
        let request = ip(client, &destination.to_string(), protocol, &[ping, 0, 0, 0, 0, 1, 0, 1]);
        let web = children(&mut router, [udp(destination).frame()])[0];
        let child = children(&mut router, [ethernet(&request)])[0];
        assert_ne!(child, web);
        router.moved();
        let reply = if ping == 8 { 0 } else { 129 };
        let quoted = ip(&destination.to_string(), client, protocol, &[reply, 0, 0, 0, 0, 1, 0, 1]);
        assert_eq!(children(&mut router, [ethernet(&error(destination, kind, 1, &quoted))]), [child]);
        // The client itself says that its port is closed: not the ping's flow, though it is from the client and ICMP.
        let message = [&[kind, 4, 0, 0, 0, 0, 0, 0][..], &answer(destination, 17, 4242)].concat();
        let from_client = ip(client, &destination.to_string(), protocol, &message);
        assert_eq!(children(&mut router, [ethernet(&from_client)]), [web]);
        assert_eq!(router.moved(), [("received", 2), ("forwarded", 2), ("icmp_errors", 2)]);
    }
}

#[test]
fn forged_and_broken_errors_change_nothing_and_are_counted() {
    for (destination, kinds) in ALL {
        let (kind, code) = kinds[1];
        let mut router = TestRouter::new(&config("flow: 5-tuple"));
        router.carry([udp(destination).frame()]);
        let header_len = if destination.is_ipv4() { 20 } else { 40 };
        let good = answer(destination, 17, 4242);
        let server_port = |port: u16| [&good[..header_len], &port.to_be_bytes(), &good[header_len + 2..]].concat();
        let other = if destination.is_ipv4() { IpAddr::from([192, 0, 2, 99]) } else { v6("2001:db8:80::99") };
        let (ping, protocol) = if destination.is_ipv4() { ([3, 0, 0, 0], 1) } else { ([1, 0, 0, 0], 58) };
        let about_an_error = ip(
            &destination.to_string(),
            if destination.is_ipv4() { "10.0.0.9" } else { "2001:db8:c::9" },
            protocol,
            &ping,
        );
        let later = fragment(&good[..header_len], 9, 800, true, &[0; 16]);
        for (quoted, reason) in [
            (answer(destination, 17, 4243), "icmp_error_unknown_flow"),
            (answer(destination, 6, 4242), "icmp_error_unknown_flow"),
            (answer(destination, 47, 4242), "icmp_error_unknown_flow"),
            (server_port(81), "icmp_error_unknown_flow"),
            (answer(other, 17, 4242), "icmp_error_malformed"),
            (good[..header_len + 3].to_vec(), "icmp_error_malformed"),
            (good[..header_len - 1].to_vec(), "icmp_error_malformed"),
            (vec![], "icmp_error_malformed"),
            (about_an_error, "icmp_error_malformed"),
            (later, "icmp_error_fragment"),
        ] {
            router.moved();
            assert!(router.carry([ethernet(&error(destination, kind, code, &quoted))]).is_empty());
            assert_eq!(router.moved(), [("received", 1), (reason, 1)], "to {destination}: {quoted:02x?}");
        }
        // About a flow, but for somebody who is no virtual host.
        let nobody = if destination.is_ipv4() { IpAddr::from([198, 51, 100, 77]) } else { v6("2001:db8:99::1") };
        router.carry([ethernet(&error(nobody, kind, code, &good))]);
        assert_eq!(router.moved(), [("received", 1), ("no_virtual_host", 1)]);
        assert_eq!(router.counters.flows_active.get(), 1);
    }
    let mut router = TestRouter::new(&config("flow: 5-tuple"));
    router.carry([udp(FOUR).frame()]);
    router.moved();
    router.carry([4, 5].map(|kind| ethernet(&error(FOUR, kind, 0, &answer(FOUR, 17, 4242)))));
    assert_eq!(router.moved(), [("received", 2), ("icmp_error_ignored", 2)], "source quench and redirect");
}

#[test]
fn an_error_keeps_no_flow_alive() {
    for (destination, kinds) in ALL {
        let mut router = TestRouter::new(&CONFIG.replace("udp: 30s", "udp: 3s"));
        let destination = if destination.is_ipv6() { v6("2001:db8:80::4") } else { destination };
        router.carry([udp(destination).frame()]);
        let error = ethernet(&error(destination, kinds[0].0, kinds[0].1, &answer(destination, 17, 4242)));
        router.wait(Duration::from_secs(2));
        assert_eq!(router.carry([&error]).len(), 1);
        router.wait(Duration::from_secs(1));
        assert_eq!(router.carry([&error]).len(), 1, "3 s after the packet");
        router.moved();
        router.wait(Duration::from_millis(1));
        assert!(router.carry([&error]).is_empty());
        let moved = router.moved();
        assert!(moved.contains(&("icmp_error_unknown_flow", 1)), "{moved:?}");
    }
}

#[test]
fn an_error_out_of_a_parents_tunnel_takes_the_same_way() {
    for (destination, kinds) in [(FOUR, ALL[0].1), (v6("2001:db8:80::6"), ALL[1].1)] {
        let mut router = TestRouter::new(CONFIG);
        router.carry([udp(destination).frame()]);
        router.moved();
        let error = error(destination, kinds[0].0, kinds[0].1, &answer(destination, 17, 4242));
        let sent = router.carry([tunnelled("198.51.100.254", "198.51.100.1", 9, 0, &error)]);
        assert_eq!((outer(&sent[0]).inner, outer(&sent[0]).ttl), (error, 8));
        assert_eq!(router.moved(), [("received", 1), ("forwarded", 1), ("icmp_errors", 1)]);
    }
}

#[test]
fn an_error_for_a_source_of_our_tunnels_is_for_the_slow_path() {
    let spread =
        CONFIG.replace("  parents:", "  tunnel_source_prefixes: [198.51.100.128/26, \"2001:db8:5::/64\"]\n  parents:");
    for (to, kind) in [("198.51.100.140", 3), ("2001:db8:5::77", 2), ("198.51.100.1", 3)] {
        let mut router = TestRouter::new(&spread);
        let to = to.parse().expect("an address");
        router.carry([ethernet(&error(to, kind, 4, &[0; 28]))]);
        assert_eq!(router.moved(), [("received", 1), ("own_address", 1)], "to {to}");
    }
}

/// The quoted packet of each error, turned round, is a packet that the client sent to the virtual host.
#[test]
fn errors_seen_in_the_world_are_carried_as_soon_as_their_flow_is_known() {
    use slr::packet::parse::{Frame, parse};
    use slr::packet::{icmp, quote};
    let Some(frames) = real_frames("icmp_errors.pcap") else { return };
    let everything = CONFIG
        .replace("addresses: [192.0.2.4, \"2001:db8:80::4\"]", "addresses: [0.0.0.0/0, \"::/0\"]")
        .replace("capacity_v4: 1000, capacity_v6: 1000", "capacity_v4: 10000, capacity_v6: 10000");
    let mut carried = 0;
    for frame in &frames {
        let Ok(Frame::Ip(parsed)) = parse(frame, frame.len()) else { continue };
        let end = usize::from(parsed.l3_offset) + parsed.l3_len as usize;
        let Some(quoted) = icmp::quoted(parsed.family, &frame[usize::from(parsed.l4_offset)..end]) else { continue };
        let mut router = TestRouter::new(&everything);
        assert!(router.carry([frame]).is_empty(), "its flow is not known");
        let Some(flow) = quote::read(parsed.family, quoted) else { continue };
        // The client's packet: addresses and ports of the quote the other way round.
        let length = if quoted[0] >> 4 == 4 { 4 } else { 16 };
        let at = if length == 4 { 12 } else { 8 };
        let text = |bytes: &[u8]| match length {
            4 => IpAddr::from(<[u8; 4]>::try_from(bytes).expect("four")).to_string(),
            _ => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("sixteen")).to_string(),
        };
        let (source, destination) = (text(&quoted[at..at + length]), text(&quoted[at + length..at + 2 * length]));
        let ports = [flow.dst_port().to_be_bytes(), flow.src_port().to_be_bytes()].concat();
        let payload = match flow.protocol {
            6 => [&ports[..], &[0; 8], &[0x50, 2, 0, 0, 0, 0, 0, 0]].concat(),
            17 => [&ports[..], &[0, 8, 0, 0]].concat(),
            1 | 58 => vec![if length == 4 { 8 } else { 128 }, 0, 0, 0, 0, 0, 0, 0],
            _ => [&ports[..], &[0; 12]].concat(),
        };
        router.carry([ethernet(&ip(&destination, &source, flow.protocol, &payload))]);
        router.moved();
        carried += router.carry([frame]).len();
    }
    assert!(carried > 400, "{carried} of {}", frames.len());
}
