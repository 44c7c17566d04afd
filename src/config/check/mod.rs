//! Whether what was written holds together: ranges, families, names that resolve.

pub(super) mod health;
pub(super) mod links;
mod overlap;
mod pair;
mod recovery;
mod regions;
pub(super) mod services;
pub(super) mod sessions;
pub(super) mod site;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use jiff::tz::TimeZone;

use super::checked::SOCKET_DIRECTORY;
use super::error::{Fault, quote};
use super::raw::{self, ListOr, Text, WordOr};
use super::tree::Spanned;
use super::values::{Once, duration, example, host, mebibytes, name, number, prefix, word};
use super::{
    Child, Cluster, Config, Control, Dpdk, Flows, GueVariant, Hugepages, Metrics, Register, RouteCost, Router,
    Timeouts, TunnelKind, Workers, port_of,
};

/// The largest prime below 2^24: beyond it a selection table costs more memory than it gains in evenness.
const TABLE_SIZE_MAX: u32 = 16_777_213;

/// UDP port of GUE, by IANA.
const GUE_PORT: u16 = 6080;

/// TCP port of the router's metrics.
const METRICS_PORT: u16 = 9477;

/// Smallest room that a packet buffer takes in its pool, in bytes: its header, headroom and 2 KiB of data.
const BUFFER_SIZE_MIN: u64 = 2304;

/// Longest path of the control socket, in bytes: a socket's address has 108, and it is bound under a longer name first.
const SOCKET_PATH_MAX: usize = 100;

/// Checks everything; the first fault ends it. `table` has the children where the configuration says only which site does.
pub(super) fn check(raw: &raw::Config, table: Option<&raw::Table>) -> Result<Config, Fault> {
    let site = site::site(raw)?;
    let own = match (&raw.children.value, table) {
        (ListOr::List(own), _) => own,
        (ListOr::Map(_), Some(table)) => &table.children.value,
        (ListOr::Map(_), None) => return Err(Fault::at(&raw.children, "the site's table of children is missing")),
    };
    let of_site = |fault: Fault| Fault { of_site: site.is_some(), ..fault };
    let router = router(&raw.router)?;
    let dpdk = dpdk(raw.dpdk.as_ref())?;
    let workers = workers(raw.workers.as_ref())?;
    let mut config = Config {
        ports: links::ports(&raw.ports)?,
        router,
        dpdk,
        workers,
        routes: Vec::new(),
        forwarding: or(&raw.forwarding, false, |text| word("forwarding", text, &[("on", true), ("off", false)]))?,
        shortcuts: or(&raw.shortcuts, true, |text| word("shortcuts", text, &[("on", true), ("off", false)]))?,
        neighbours: Vec::new(),
        flows: flows(raw.flows.as_ref())?,
        cluster: cluster(raw.cluster.as_ref())?,
        client_regions: Vec::new(),
        regions: Default::default(),
        children: Vec::new(),
        site: site.clone(),
        virtual_hosts: Vec::new(),
        metrics: metrics(raw.metrics.as_ref(), METRICS_PORT)?,
        control: control(raw.control.as_ref(), SOCKET_DIRECTORY, &raw.router.name.value)?,
        sessions: sessions::sessions(raw)?,
        recovery: recovery::recovery(raw.recovery.as_ref())?,
        pair: None,
    };
    config.routes = links::routes(&raw.routes, &config.ports)?;
    config.neighbours = links::neighbours(&raw.neighbours, &config.ports)?;
    (config.client_regions, config.regions) = regions::regions(raw)?;
    config.children = children(own, &config).map_err(of_site)?;
    sessions::heard(own, &config).map_err(of_site)?;
    sessions::fit(raw, &config)?;
    config.virtual_hosts = services::virtual_hosts(&raw.virtual_hosts.value, &config)?;
    sessions::measured(&raw.router, own, &config)?;
    overlap::check(&raw.virtual_hosts.value, &config.virtual_hosts)?;
    recovery::fit(raw, &config)?;
    config.pair = raw.pair.as_ref().map(|pair| pair::pair(pair, &config)).transpose()?;
    Ok(config)
}

/// What was written, read, or the default.
pub(super) fn or<T>(text: &Option<Text>, default: T, read: impl FnOnce(&Text) -> Result<T, Fault>) -> Result<T, Fault> {
    text.as_ref().map_or(Ok(default), read)
}

/// `v4` or `v6`, whichever is of the family.
pub(super) fn family<T>(ipv4: bool, v4: T, v6: T) -> T {
    if ipv4 { v4 } else { v6 }
}

fn router(raw: &raw::Router) -> Result<Router, Fault> {
    let mut router = Router {
        name: name("name", &raw.name)?,
        level: or(&raw.level, 1, level)?,
        tunnel_v4: None,
        tunnel_v6: None,
        tunnel_source_v4: None,
        tunnel_source_v6: None,
        gue_port: or(&raw.gue_port, GUE_PORT, |text| number("gue_port", text, 1..=u16::MAX))?,
        parents: Vec::new(),
        route_cost: or(&raw.route_cost, RouteCost::Given(0.0), sessions::route_cost)?,
        time_zone: time_zone(raw.time_zone.as_ref())?,
    };
    for text in &raw.tunnel_addresses {
        let second = match host("tunnel address", text)? {
            std::net::IpAddr::V4(ip) => router.tunnel_v4.replace(ip).is_some(),
            std::net::IpAddr::V6(ip) => router.tunnel_v6.replace(ip).is_some(),
        };
        if second {
            let message = format!("{} is the second tunnel address of its family; keep one of each family", text.value);
            return Err(Fault::at(text, message));
        }
    }
    let has_tunnel = |ipv4| family(ipv4, router.tunnel_v4.is_some(), router.tunnel_v6.is_some());
    let needs_tunnel = |what: &str, net: IpNet, text: &Text| match has_tunnel(net.addr().is_ipv4()) {
        true => Ok(()),
        false => Err(Fault::at(text, no_tunnel_address(&format!("{what} {}", text.value), net.addr().is_ipv4()))),
    };
    for text in &raw.tunnel_source_prefixes {
        let net = prefix("tunnel source prefix", text)?;
        needs_tunnel("tunnel source prefix", net, text)?;
        if net.prefix_len() == net.max_prefix_len() {
            let message = format!(
                "tunnel source prefix {} holds one address only; write a shorter one: 192.0.2.64/26",
                text.value
            );
            return Err(Fault::at(text, message));
        }
        let second = match net {
            IpNet::V4(net) => router.tunnel_source_v4.replace(net).is_some(),
            IpNet::V6(net) => router.tunnel_source_v6.replace(net).is_some(),
        };
        if second {
            let message = format!("{net} is the second tunnel source prefix of its family; keep one of each family");
            return Err(Fault::at(text, message));
        }
    }
    let mut once = Once::new("parent");
    for text in &raw.parents {
        let net = prefix("parent", text)?;
        needs_tunnel("parent", net, text)?;
        once.add(net, text)?;
        router.parents.push(net);
    }
    Ok(router)
}

fn no_tunnel_address(who: &str, ipv4: bool) -> String {
    let (is, example) = family(ipv4, ("IPv4", "[192.0.2.1]"), ("IPv6", "[\"2001:db8::1\"]"));
    format!("{who} is {is}, but the router has no {is} tunnel address; add one to router: tunnel_addresses: {example}")
}

fn level(text: &Text) -> Result<u8, Fault> {
    let names = [("site", 1), ("system", 2), ("network", 3)];
    if text.value.bytes().all(|byte| byte.is_ascii_digit()) {
        number("level", text, 1..=255)
    } else {
        word("level", text, &names)
    }
}

/// The machine's where none is named.
fn time_zone(text: Option<&Text>) -> Result<TimeZone, Fault> {
    let Some(text) = text.filter(|text| text.value != "local") else { return Ok(TimeZone::system()) };
    TimeZone::get(&text.value).map_err(|_| {
        let wrong = quote(&text.value);
        let what = "is not known on this machine; write a name of the IANA database (package tzdata), UTC, or local";
        Fault::at(text, format!("time_zone {wrong} {what}: {}", example("time_zone")))
    })
}

fn dpdk(raw: Option<&raw::Dpdk>) -> Result<Dpdk, Fault> {
    let mut dpdk = Dpdk { hugepages: Hugepages::Auto, memory_mib: 512, buffers: 16_384, file_prefix: None };
    let Some(raw) = raw else { return Ok(dpdk) };
    let kinds = [("auto", Hugepages::Auto), ("require", Hugepages::Require), ("never", Hugepages::Never)];
    dpdk.hugepages = or(&raw.hugepages, dpdk.hugepages, |text| word("hugepages", text, &kinds))?;
    dpdk.memory_mib = or(&raw.memory, dpdk.memory_mib, |text| mebibytes("memory", text))?;
    dpdk.buffers = or(&raw.buffers, dpdk.buffers, |text| number("buffers", text, 1024..=1 << 26))?;
    dpdk.file_prefix = raw.file_prefix.as_ref().map(|text| name("file_prefix", text)).transpose()?;
    let needed = (u64::from(dpdk.buffers) * BUFFER_SIZE_MIN).div_ceil(1 << 20);
    if needed > u64::from(dpdk.memory_mib) {
        let (buffers, memory) = (dpdk.buffers, dpdk.memory_mib);
        let message = format!(
            "{buffers} buffers do not fit into {memory}MiB; write at least memory: {needed}MiB or fewer buffers"
        );
        return Err(match raw.buffers.as_ref().or(raw.memory.as_ref()) {
            Some(text) => Fault::at(text, message),
            None => Fault::whole(message),
        });
    }
    Ok(dpdk)
}

fn workers(raw: Option<&raw::Workers>) -> Result<Workers, Fault> {
    let Some(raw) = raw else { return Ok(Workers { count: 1, cpus: Vec::new(), sleeps: false }) };
    let (mut cpus, mut once) = (Vec::new(), Once::new("CPU"));
    for text in raw.cpus.iter().flat_map(|list| &list.value) {
        let cpu = number("cpus", text, 0..=1023)?;
        once.add(cpu, text)?;
        cpus.push(cpu);
    }
    let idle = [("poll", false), ("sleep", true)];
    let count = or(&raw.count, cpus.len().max(1) as u16, |text| number("count", text, 1..=127))?;
    match &raw.cpus {
        Some(list) if !cpus.is_empty() && cpus.len() != usize::from(count) => {
            let message = format!("{} CPUs for {count} workers; name one CPU for each worker, or none", cpus.len());
            Err(Fault::at(list, message))
        }
        _ => Ok(Workers { count, cpus, sleeps: or(&raw.idle, false, |text| word("idle", text, &idle))? }),
    }
}

fn flows(raw: Option<&raw::Flows>) -> Result<Flows, Fault> {
    // Only the client's side of a connection passes here, since the server answers directly: a state lasts until the
    // client should have spoken again.
    let mut flows = Flows {
        capacity_v4: 1_000_000,
        capacity_v6: 250_000,
        inserts_per_second: 1_000_000,
        timeouts: Timeouts {
            tcp_syn: Duration::from_secs(60),
            tcp_established: Duration::from_secs(15 * 60),
            tcp_fin: Duration::from_secs(30),
            tcp_rst: Duration::from_secs(5),
            udp: Duration::from_secs(60),
            other: Duration::from_secs(60),
        },
    };
    let Some(raw) = raw else { return Ok(flows) };
    flows.capacity_v4 = or(&raw.capacity_v4, flows.capacity_v4, |text| number("capacity_v4", text, 1..=1 << 28))?;
    flows.capacity_v6 = or(&raw.capacity_v6, flows.capacity_v6, |text| number("capacity_v6", text, 1..=1 << 28))?;
    flows.inserts_per_second = or(&raw.inserts_per_second, flows.inserts_per_second, |text| {
        number("inserts_per_second", text, 1..=1_000_000_000)
    })?;
    let Some(raw) = &raw.timeouts else { return Ok(flows) };
    let timeouts = &mut flows.timeouts;
    for (key, text, timeout) in [
        ("tcp_syn", &raw.tcp_syn, &mut timeouts.tcp_syn),
        ("tcp_established", &raw.tcp_established, &mut timeouts.tcp_established),
        ("tcp_fin", &raw.tcp_fin, &mut timeouts.tcp_fin),
        ("tcp_rst", &raw.tcp_rst, &mut timeouts.tcp_rst),
        ("udp", &raw.udp, &mut timeouts.udp),
        ("other", &raw.other, &mut timeouts.other),
    ] {
        *timeout = or(text, *timeout, |text| duration(key, text))?;
    }
    Ok(flows)
}

fn cluster(raw: Option<&raw::Cluster>) -> Result<Cluster, Fault> {
    let mut cluster = Cluster { key: [0; 16], table_size: 65_537 };
    let Some(raw) = raw else { return Ok(cluster) };
    cluster.key = or(&raw.key, cluster.key, key)?;
    cluster.table_size = or(&raw.table_size, cluster.table_size, table_size)?;
    Ok(cluster)
}

pub(super) fn key(text: &Text) -> Result<[u8; 16], Fault> {
    let digits = &text.value;
    let number = match digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => u128::from_str_radix(digits, 16).ok(),
        false => None,
    };
    // The key is a secret, so the message does not repeat it.
    number.map(u128::to_be_bytes).ok_or_else(|| {
        Fault::at(
            text,
            format!("the key is not 32 hexadecimal digits; make one with openssl rand -hex 16: {}", example("key")),
        )
    })
}

/// Slots of a consistent-hash table.
fn table_size(text: &Text) -> Result<u32, Fault> {
    let size = number("table_size", text, 2..=TABLE_SIZE_MAX)?;
    // TABLE_SIZE_MAX is a prime, so there is one to find.
    let prime = (size..=TABLE_SIZE_MAX).find(|&size| is_prime(size)).unwrap_or(TABLE_SIZE_MAX);
    if prime == size {
        return Ok(size);
    }
    Err(Fault::at(text, format!("table_size {size} is not a prime; write the next one up: table_size: {prime}")))
}

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

fn children(raw: &[raw::Child], config: &Config) -> Result<Vec<Child>, Fault> {
    let mut once = Once::new("child");
    let child = |child: &raw::Child| {
        let labels = child.labels.iter().map(|label| name("labels", label)).collect::<Result<_, Fault>>()?;
        let name = name("name", &child.name)?;
        once.add(name.clone(), &child.name)?;
        let Some(text) = &child.address else {
            return Err(Fault::at(
                &child.name,
                format!("child \"{name}\" has no address; add it: {}", example("address")),
            ));
        };
        let address = host("address", text)?;
        let ipv4 = address.is_ipv4();
        let router = &config.router;
        let tunnel = child.tunnel.as_ref().map_or(Ok(TunnelKind::IpIp), tunnel)?;
        if tunnel.has_outer_ip() && !family(ipv4, router.tunnel_v4.is_some(), router.tunnel_v6.is_some()) {
            return Err(Fault::at(text, no_tunnel_address(&format!("child \"{name}\""), ipv4)));
        }
        if router.parents.contains(&IpNet::from(address)) {
            let message = format!(
                "child \"{name}\" has the address of a parent, {address}; packets would go round in circles, write the child's"
            );
            return Err(Fault::at(text, message));
        }
        if config.owns(address) {
            let message = format!("child \"{name}\" has the router's own address {address}; write the child's");
            return Err(Fault::at(text, message));
        }
        if !config.ports.is_empty() && config.attachment(address).is_none() {
            let route =
                family(ipv4, "{ prefix: 0.0.0.0/0, via: 10.0.0.254 }", "{ prefix: \"::/0\", via: \"2001:db8::fe\" }");
            let message = format!(
                "child \"{name}\" cannot be reached: no port's subnet and no route has {address}; add a route: {route}"
            );
            return Err(Fault::at(text, message));
        }
        if let (TunnelKind::Mac, Some(tunnel)) = (tunnel, &child.tunnel)
            && !config.ports.is_empty()
            && port_of(&config.ports, address).is_none()
        {
            let message = format!(
                "child \"{name}\" is in no port's subnet, and a changed MAC address leads no farther; \
                 write another kind: tunnel: ipip"
            );
            return Err(Fault::at(tunnel, message));
        }
        let register = or(&child.register, Register::Off, sessions::register)?;
        let route_cost = or(&child.route_cost, config.router.route_cost, sessions::route_cost)?;
        Ok(Child { name, address, tunnel, register, route_cost, labels })
    };
    raw.iter().map(child).collect()
}

pub(super) fn tunnel(raw: &Spanned<WordOr<raw::Tunnel>>) -> Result<TunnelKind, Fault> {
    let default = TunnelKind::Gue { port: GUE_PORT, variant: GueVariant::Header };
    let map = match &raw.value {
        WordOr::Word(kind) if kind == "mpls" => {
            let message = "tunnel \"mpls\" has no label; write one: tunnel: { mpls: { label: 1000 } }";
            return Err(Fault::at(raw, message));
        }
        WordOr::Word(kind) => {
            let text = raw.with(kind.clone());
            let kinds =
                [("ipip", TunnelKind::IpIp), ("gue", default), ("gre", TunnelKind::Gre), ("mac", TunnelKind::Mac)];
            return word("tunnel", &text, &kinds);
        }
        WordOr::Map(map) => map,
    };
    match (&map.gue, &map.mpls) {
        (Some(gue), None) => {
            let variant = or(&gue.variant, 0, |text| number("variant", text, 0..=1))?;
            Ok(TunnelKind::Gue {
                port: or(&gue.port, GUE_PORT, |text| number("port", text, 1..=u16::MAX))?,
                variant: if variant == 0 { GueVariant::Header } else { GueVariant::Direct },
            })
        }
        // RFC 3032 section 2.1: the first 16 have meanings of their own.
        (None, Some(mpls)) => Ok(TunnelKind::Mpls { label: number("label", &mpls.label, 16..=(1 << 20) - 1)? }),
        _ => Err(Fault::at(raw, format!("a tunnel is of one kind; write one: {}", example("tunnel")))),
    }
}

pub(super) fn metrics(raw: Option<&raw::Metrics>, port: u16) -> Result<Metrics, Fault> {
    let default = SocketAddr::from(([127, 0, 0, 1], port));
    let Some(text) = raw.and_then(|raw| raw.listen.as_ref()) else { return Ok(Metrics { listen: Some(default) }) };
    if text.value == "off" {
        return Ok(Metrics { listen: None });
    }
    let wrong = |_| {
        let what = "is neither off nor an address with a port";
        Fault::at(
            text,
            format!("listen {} {what}; write listen: {default} or listen: \"[::1]:9477\"", quote(&text.value)),
        )
    };
    text.value.parse().map(|listen| Metrics { listen: Some(listen) }).map_err(wrong)
}

pub(super) fn control(raw: Option<&raw::Control>, directory: &str, name: &str) -> Result<Control, Fault> {
    let Some(text) = raw.and_then(|raw| raw.socket.as_ref()) else {
        return Ok(Control { socket: Some(PathBuf::from(directory).join(format!("{name}.sock"))) });
    };
    if text.value == "off" {
        return Ok(Control { socket: None });
    }
    let path = PathBuf::from(&text.value);
    let fault = |why: &str| {
        let message = format!("socket {} {why}; write {} or socket: off", quote(&text.value), example("socket"));
        Fault::at(text, message)
    };
    if !path.is_absolute() || text.value.ends_with('/') {
        return Err(fault("is neither off nor the whole path of a file"));
    }
    if text.value.len() > SOCKET_PATH_MAX {
        return Err(fault("is too long for a socket, which may have 100 characters"));
    }
    Ok(Control { socket: Some(path) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_from_composites() {
        let composite = |n: u32| (2..n).any(|a| (2..n).any(|b| a * b == n));
        for n in 2..300 {
            assert_eq!(is_prime(n), !composite(n), "{n}");
        }
        assert!(!is_prime(0) && !is_prime(1));
        assert!(is_prime(65_537) && is_prime(TABLE_SIZE_MAX));
    }
}
