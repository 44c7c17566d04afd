//! What a single value means: numbers, durations, sizes, addresses, prefixes, words; each refusal shows a right one.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::error::{Fault, nearest, quote};
use super::raw::Text;
use super::tree::Spanned;

/// A right use of a key; empty for what is no key.
pub(super) fn example(key: &str) -> &'static str {
    match key {
        "access" => "access: outside",
        "address" => "address: 10.0.1.1",
        "aggregate_function" => "aggregate_function: \"mean(children.map(c, c.load))\"",
        "addresses" => "addresses: [192.0.2.80/32]",
        "agent" => "agent: { name: server1, tunnel_addresses: [10.0.1.1] }",
        "ask_workers" => "ask_workers: on",
        "application" => "application: { http: \"http://127.0.0.1:8080/load\" }",
        "authority" => "authority: /etc/slr/ca.pem",
        "buffers" => "buffers: 16384",
        "ca" => "ca: /etc/ssl/certs/ca-certificates.crt",
        "capacity" => "capacity: 100",
        "capacity_v4" => "capacity_v4: 1000000",
        "capacity_v6" => "capacity_v6: 250000",
        "certificate" => "certificate: /etc/slr/edge1.pem",
        "cgroup" => "cgroup: /sys/fs/cgroup/system.slice/nginx.service",
        "children" => "children: [server1]",
        "cluster" => "cluster: { key: 000102030405060708090a0b0c0d0e0f }",
        "control" => "control: { socket: /run/slr/edge1.sock }",
        "client_regions" => "client_regions: [{ name: europe, prefixes: [198.51.100.0/24] }]",
        "command" => "command: [/usr/local/bin/check-web, --quick]",
        "continents" => "continents: [EU]",
        "copy" => "copy: /var/lib/slr/edge1.children.yaml",
        "cost" => "cost: 1.5",
        "cost_function" => "cost_function: \"load + 0.1 * route_cost\"",
        "count" => "count: 2",
        "countries" => "countries: [DE, FR]",
        "cpus" => "cpus: [1, 2]",
        "decapsulation" => "decapsulation: auto",
        "device" => "device: \"0000:01:00.0\"",
        "dns" => "dns: { name: example.org }",
        "dpdk" => "dpdk: { hugepages: auto }",
        "drain" => "drain: { timeout: 60s }",
        "echo" => "echo: router",
        "expect" => "expect: 200 or expect: 200-299",
        "expression" => "expression: max(cpu, queue)",
        "fall" => "fall: 3",
        "file" => "file: /run/web/load",
        "file_prefix" => "file_prefix: slr",
        "first_packets" => "first_packets: hold",
        "flow" => "flow: 5-tuple, flow: source or flow: { source: { v4: 24, v6: 56 } }",
        "flows" => "flows: { capacity_v4: 1000000 }",
        "forwarding" => "forwarding: on",
        "gateways" => "gateways: [10.0.0.254]",
        "geoip" => "geoip: /var/lib/GeoIP/GeoLite2-Country.mmdb",
        "gue" => "gue: { port: 6080, variant: 0 }",
        "gue_port" => "gue_port: 6080",
        "health" => "health: tcp or health: { http: { path: /ok }, interval: 200ms }",
        "heartbeat" => "heartbeat: 100ms",
        "hops" => "hops: 1",
        "host" => "host: www.example.org",
        "http" => "http: { path: /ok, expect: 200 }",
        "https" => "https: { path: /ok, expect: 200 }",
        "hugepages" => "hugepages: auto",
        "id" => "id: 51",
        "icmp" => "icmp: {}",
        "initial" => "initial: up",
        "idle" => "idle: poll",
        "inserts_per_second" => "inserts_per_second: 1000000",
        "interfaces" => "interfaces: [eth0]",
        "interval" => "interval: 200ms",
        "jitter" => "jitter: 10%",
        "key" => "key: 000102030405060708090a0b0c0d0e0f",
        "label" => "label: 1000",
        "length" => "length: 8",
        "labels" => "labels: [ssd, rack7]",
        "level" => "level: site",
        "links" => "links: [outside]",
        "listen" => "listen: 127.0.0.1:9477",
        "live_children" => "live_children: 1",
        "load" => "load: max(cpu, queue)",
        "mac" => "mac: \"02:00:5e:10:00:01\"",
        "memory" => "memory: 512MiB",
        "metrics" => "metrics: { listen: 127.0.0.1:9477 }",
        "mirror_after" => "mirror_after: 1s",
        "mss_clamp" => "mss_clamp: auto",
        "mtu" => "mtu: 1500",
        "name" => "name: web-1",
        "neighbours" => "neighbours: [{ address: 10.0.0.254, mac: \"02:00:5e:10:00:01\" }]",
        "offset" => "offset: 1",
        "on_failure" => "on_failure: keep",
        "on_unknown" => "on_unknown: select",
        "other" => "other: 60s",
        "pair" => "pair: { access: outside, id: 51, virtual_addresses: [10.0.0.10] }",
        "parents" => "parents: [198.51.100.1]",
        "patience" => "patience: 100ms",
        "path" => "path: /ok",
        "peer" => "peer: { listen: 10.255.0.1:9480, address: 10.255.0.2:9480, key: 000102030405060708090a0b0c0d0e0f }",
        "peers" => "peers: [10.255.0.2:9479]",
        "penalty" => "penalty: 50",
        "port" => "port: 6080",
        "ports" => "ports: [{ name: outside, device: \"0000:01:00.0\", addresses: [10.0.0.1/24] }]",
        "prefix" => "prefix: 0.0.0.0/0",
        "prefixes" => "prefixes: [198.51.100.0/24]",
        "preempt" => "preempt: 5s",
        "priority" => "priority: 100",
        "questions_per_second" => "questions_per_second: 10000",
        "quic" => "quic: { length: 8, offset: 1, server_id_length: 2 }",
        "recovery" => "recovery: { ask_workers: on }",
        "register" => "register: required",
        "requires" => "requires: { gateways: [10.0.0.254] }",
        "rise" => "rise: 2",
        "router" => "router: { name: edge1, tunnel_addresses: [192.0.2.1] }",
        "router_macs" => "router_macs: [\"02:00:5e:10:00:01\"]",
        "registration" => "registration: listed or registration: anyone",
        "route_cost" => {
            "route_cost: 10, route_cost: rtt for the round-trip time in milliseconds, or route_cost: metric for the kernel's route"
        }
        "routers" => "routers: [10.0.1.254]",
        "routes" => "routes: [{ prefix: 0.0.0.0/0, via: 10.0.0.254 }]",
        "selection" => "selection: consistent_hash",
        "server_id" => "server_id: \"00a1\"",
        "server_id_length" => "server_id_length: 2",
        "server_name" => "server_name: www.example.org",
        "services" => "services: [tcp/80, tcp/8000-8999, udp]",
        "socket" => "socket: /run/slr/edge1.sock",
        "shortcuts" => "shortcuts: on",
        "source" => "source: { v4: 24, v6: 56 }",
        "state" => "state: /run/slr-host",
        "subdivisions" => "subdivisions: [US-CA]",
        "table_size" => "table_size: 65537",
        "tcp" => "tcp: { port: 80 }",
        "tcp_established" => "tcp_established: 15m",
        "tcp_fin" => "tcp_fin: 30s",
        "tcp_rst" => "tcp_rst: 5s",
        "tcp_syn" => "tcp_syn: 60s",
        "tier" => "tier: 0",
        "time_zone" => "time_zone: Europe/Berlin",
        "timeout" => "timeout: 200ms",
        "timeouts" => "timeouts: { udp: 60s }",
        "tls" => "tls: { port: 443 }",
        "tunnel" => "tunnel: ipip, tunnel: gue or tunnel: { mpls: { label: 1000 } }",
        "tunnel_addresses" => "tunnel_addresses: [192.0.2.1]",
        "tunnel_source_prefixes" => "tunnel_source_prefixes: [192.0.2.64/26]",
        "tunnels" => "tunnels: [ipip, gue, gre]",
        "type" => "type: A",
        "udp" => "udp: 60s",
        "url" => "url: https://config.example.org/edge1.yaml",
        "v4" => "v4: 24",
        "v6" => "v6: 56",
        "variant" => "variant: 0",
        "via" => "via: 10.0.0.254",
        "virtual_addresses" => "virtual_addresses: [10.0.0.10]",
        "virtual_hosts" => "virtual_hosts: [{ name: web, addresses: [192.0.2.80], children: [server1] }]",
        "virtual_mac" => "virtual_mac: off",
        "vlan" => "vlan: 100",
        "weight" => "weight: 10",
        "whohas" => {
            "whohas: { listen: 10.255.0.1:9479, key: 000102030405060708090a0b0c0d0e0f, peers: [10.255.0.2:9479] }"
        }
        "workers" => "workers: { count: 2 }",
        _ => "",
    }
}

/// Digits only: no sign, no other base, no separators.
fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A whole number in a range.
pub(super) fn number<T>(key: &str, text: &Text, range: RangeInclusive<T>) -> Result<T, Fault>
where
    T: Copy + PartialOrd + Display + TryFrom<u64>,
{
    let (low, high) = (range.start(), range.end());
    let Some(number) = digits::<u128>(&text.value) else {
        let wrong = quote(&text.value);
        let message = format!("{key} {wrong} is not a whole number; write one from {low} to {high}: {}", example(key));
        return Err(Fault::at(text, message));
    };
    let fits = u64::try_from(number).ok().and_then(|number| T::try_from(number).ok());
    fits.filter(|number| range.contains(number)).ok_or_else(|| {
        let message = format!("{key} {number} is out of range; write one from {low} to {high}: {}", example(key));
        Fault::at(text, message)
    })
}

/// The number before a unit, in the smallest unit; `None` when either is not understood or it is beyond `u64`.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let start = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at(start);
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    digits::<u64>(count)?.checked_mul(*size)
}

/// A time from a millisecond to seven days: far from where the millisecond ticks of flow entries wrap.
pub(super) fn duration(key: &str, text: &Text) -> Result<Duration, Fault> {
    const DAY_MS: u64 = 24 * 3_600_000;
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let Some(ms) = with_unit(&text.value, &units) else {
        let wrong = quote(&text.value);
        let what = "is not a time; write a whole number with its unit ms, s, m or h";
        return Err(Fault::at(text, format!("{key} {wrong} {what}: {}", example(key))));
    };
    if !(1..=7 * DAY_MS).contains(&ms) {
        let wrong = quote(&text.value);
        let message = format!("{key} {wrong} is out of range; write a time from 1ms to 168h: {}", example(key));
        return Err(Fault::at(text, message));
    }
    Ok(Duration::from_millis(ms))
}

/// An amount of memory in MiB, from 64 MiB to 1 TiB.
pub(super) fn mebibytes(key: &str, text: &Text) -> Result<u32, Fault> {
    let Some(mib) = with_unit(&text.value, &[("MiB", 1), ("GiB", 1024)]) else {
        let what = "is not a size; write a whole number with its unit MiB or GiB";
        return Err(Fault::at(text, format!("{key} {} {what}: {}", quote(&text.value), example(key))));
    };
    u32::try_from(mib).ok().filter(|mib| (64..=1 << 20).contains(mib)).ok_or_else(|| {
        let wrong = quote(&text.value);
        Fault::at(text, format!("{key} {wrong} is out of range; write a size from 64MiB to 1024GiB: {}", example(key)))
    })
}

/// One of a few words.
pub(super) fn word<T: Copy>(key: &str, text: &Text, words: &[(&str, T)]) -> Result<T, Fault> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text.value) {
        return Ok(*meaning);
    }
    let names = || words.iter().map(|(word, _)| *word);
    let advice = match nearest(&text.value, names()) {
        Some(near) => format!("did you mean {key}: {near}?"),
        None => format!("write one of {}: {}", names().collect::<Vec<_>>().join(", "), example(key)),
    };
    Err(Fault::at(text, format!("{key} {} is not known; {advice}", quote(&text.value))))
}

/// A name that is safe in messages, metrics and file names.
pub(super) fn name(key: &str, text: &Text) -> Result<String, Fault> {
    let value = &text.value;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=64).contains(&value.len()) && value.bytes().all(plain) && value.as_bytes()[0].is_ascii_alphanumeric() {
        return Ok(value.clone());
    }
    let rule = "is not usable; write 1 to 64 of the characters A-Z a-z 0-9 . _ -, a letter or digit first";
    Err(Fault::at(text, format!("{key} {} {rule}: {}", quote(value), example(key))))
}

/// One address.
pub(super) fn address(key: &str, text: &Text) -> Result<IpAddr, Fault> {
    text.value.parse().map_err(|_| {
        let wrong = quote(&text.value);
        let message = match text.value.parse::<IpNet>() {
            Ok(net) => format!("{key} {wrong} has a prefix length, but one address belongs here: {}", net.addr()),
            Err(_) => format!("{key} {wrong} is not an IP address; write one like 192.0.2.1 or \"2001:db8::1\""),
        };
        Fault::at(text, message)
    })
}

/// One address of one machine, to send to or from.
pub(super) fn host(key: &str, text: &Text) -> Result<IpAddr, Fault> {
    let ip = address(key, text)?;
    let why = match ip {
        _ if ip.is_unspecified() => "the unspecified address",
        _ if ip.is_multicast() => "a multicast group",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        _ => return Ok(ip),
    };
    let message = format!("{key} {ip} is {why}; write the address of one machine, like 192.0.2.1 or \"2001:db8::1\"");
    Err(Fault::at(text, message))
}

/// A prefix, or one address as the prefix of its full length. No bits may be set behind the prefix.
pub(super) fn prefix(key: &str, text: &Text) -> Result<IpNet, Fault> {
    if let Ok(ip) = text.value.parse::<IpAddr>() {
        return Ok(IpNet::from(ip));
    }
    let Ok(net) = text.value.parse::<IpNet>() else {
        let wrong = quote(&text.value);
        let what = "is not an address or prefix; write one like 192.0.2.80, 192.0.2.0/24 or \"2001:db8::/64\"";
        return Err(Fault::at(text, format!("{key} {wrong} {what}")));
    };
    if net.trunc() != net {
        let (all, one) = (net.trunc(), net.addr());
        let message =
            format!("{key} {net} has bits set behind the prefix; write {all} for all of it or {one} for one address");
        return Err(Fault::at(text, message));
    }
    Ok(net)
}

/// A prefix as people write it: without its length where it is one address.
pub(crate) fn show(prefix: IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() { prefix.addr().to_string() } else { prefix.to_string() }
}

/// Checks that nothing is there twice: remembers where each thing was first.
pub(super) struct Once<K> {
    what: &'static str,
    seen: std::collections::HashMap<K, u32>,
}

impl<K: std::hash::Hash + Eq + Display> Once<K> {
    pub fn new(what: &'static str) -> Once<K> {
        Once { what, seen: Default::default() }
    }

    pub fn add<T>(&mut self, key: K, at: &Spanned<T>) -> Result<(), Fault> {
        let line = at.place.line;
        match self.seen.entry(key) {
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(line);
                Ok(())
            }
            std::collections::hash_map::Entry::Occupied(taken) => {
                let (what, key, first) = (self.what, taken.key(), taken.get());
                Err(Fault::at(
                    at,
                    format!("{what} {key} is already there (line {first}); change or remove one of them"),
                ))
            }
        }
    }
}
