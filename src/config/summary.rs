//! How a checked configuration is shown to people.

use std::fmt;

use super::values::show;
use super::{
    Config, GueVariant, Health, Hugepages, OnFailure, OnUnknown, Pair, Probe, Register, Request, Requires, Rhythm, Tls,
    TunnelKind, VirtualHost, Whohas,
};
use crate::service::mss::MssClamp;
use crate::service::quic::Layout;
use crate::service::selection::{Granularity, Policy};
use crate::units::PortIndex;

/// What was compiled, as a text of many lines; made by [`Config::summary`].
#[derive(Debug)]
pub struct Summary<'a>(pub(super) &'a Config);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.router(f)?;
        self.ports(f)?;
        self.regions(f)?;
        let children = self.0.children.iter();
        let rows = children.map(|child| {
            let tells = match child.register {
                Register::Off => "",
                Register::Optional => "tells how it is",
                Register::Required => "must tell how it is",
            };
            vec![child.name.clone(), child.address.to_string(), child.tunnel.to_string(), tells.to_owned()]
        });
        if let Some(site) = &self.0.site {
            let (url, interval, copy) = (&site.url, site.interval, site.copy.display());
            writeln!(f, "children of {url}, asked every {interval:?}, with a copy at {copy}")?;
        }
        table(f, "children", 0, &["name", "address", "tunnel", ""], rows.collect())?;
        writeln!(f, "virtual hosts: {}", self.0.virtual_hosts.len())?;
        self.0.virtual_hosts.iter().try_for_each(|host| self.virtual_host(f, host))
    }
}

impl Summary<'_> {
    fn router(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { router, dpdk, workers, flows, cluster, metrics, control, sessions, recovery, .. } = self.0;
        let level = match router.level {
            1 => " (site)",
            2 => " (system)",
            3 => " (network)",
            _ => "",
        };
        writeln!(f, "router {}, level {}{level}", router.name, router.level)?;
        let own = router.tunnel_v4.iter().map(ToString::to_string);
        let own = own.chain(router.tunnel_v6.iter().map(ToString::to_string));
        writeln!(f, "  tunnel addresses  {}", list(own))?;
        let spread = router.tunnel_source_v4.iter().map(ToString::to_string);
        let spread = spread.chain(router.tunnel_source_v6.iter().map(ToString::to_string));
        writeln!(f, "  tunnel sources    {}", list(spread))?;
        writeln!(f, "  parents           {}", list(router.parents.iter().copied().map(show)))?;
        if !router.parents.is_empty() {
            writeln!(f, "  their gue port    {}", router.gue_port)?;
        }
        let hugepages = match dpdk.hugepages {
            Hugepages::Auto => "auto",
            Hugepages::Require => "require",
            Hugepages::Never => "never",
        };
        let prefix = dpdk.file_prefix.as_deref().unwrap_or("from the process id");
        let (memory, buffers) = (dpdk.memory_mib, dpdk.buffers);
        writeln!(f, "dpdk     hugepages {hugepages}, {memory} MiB, {buffers} buffers, file prefix {prefix}")?;
        let cpus = if workers.cpus.is_empty() { "any".into() } else { list(workers.cpus.iter().map(u16::to_string)) };
        let idle = if workers.sleeps { ", asleep while nothing comes" } else { "" };
        writeln!(f, "workers  {}, CPUs {cpus}{idle}", workers.count)?;
        let times = &flows.timeouts;
        let super::Flows { capacity_v4, capacity_v6, inserts_per_second, .. } = flows;
        writeln!(
            f,
            "flows    {capacity_v4} IPv4 and {capacity_v6} IPv6 a worker, {inserts_per_second} a second, kept for"
        )?;
        writeln!(
            f,
            "         tcp syn {:?}, established {:?}, fin {:?}, rst {:?}; udp {:?}; other {:?}",
            times.tcp_syn, times.tcp_established, times.tcp_fin, times.tcp_rst, times.udp, times.other
        )?;
        let key = if cluster.key == [0; 16] { "all zeros (anyone can foresee the choice)" } else { "given" };
        writeln!(f, "cluster  key {key}, {} slots a table", cluster.table_size)?;
        match metrics.listen {
            Some(listen) => writeln!(f, "metrics  http://{listen}/metrics")?,
            None => writeln!(f, "metrics  off")?,
        }
        match &control.socket {
            Some(socket) => writeln!(f, "control  {}", socket.display())?,
            None => writeln!(f, "control  off")?,
        }
        if let Some(Whohas { listen, peers, hops, patience, .. }) = &recovery.whohas {
            let peers = list(peers.iter().map(ToString::to_string));
            writeln!(f, "whohas   at {listen}, asks {peers} for {patience:?}, passed on {hops} times at most")?;
        }
        if recovery.echo.is_some() {
            writeln!(f, "recovery echoes of host servers are taken")?;
        }
        self.pair(f)?;
        let Some(credentials) = &sessions.credentials else { return Ok(()) };
        let listen = sessions.listen.map_or("none".into(), |listen| listen.to_string());
        let parents = sessions.parents.iter().map(|parent| format!("{} at {}", parent.name, parent.address));
        writeln!(f, "sessions of children at {listen}, every {:?}; of parents: {}", sessions.interval, list(parents))?;
        let shortcuts = self.0.shortcuts;
        let offers = list(credentials.identity.offers.iter().copied().map(show));
        writeln!(f, "         our certificate may offer {offers}; shortcuts {}", if shortcuts { "on" } else { "off" })
    }

    fn pair(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Pair {
            access,
            id,
            addresses,
            priority,
            heartbeat,
            preempt,
            peer,
            mirror_after,
            requires,
            virtual_mac,
        }) = &self.0.pair
        else {
            return Ok(());
        };
        let name = |port: &PortIndex| self.0.ports[port.index()].name.clone();
        let (port, addresses) = (name(access), list(addresses.iter().map(ToString::to_string)));
        let own_mac = if *virtual_mac { ", with an Ethernet address of their own" } else { "" };
        writeln!(f, "pair     {addresses} on {port}, VRRP {id}, priority {priority}, every {heartbeat:?}{own_mac}")?;
        let after = preempt.map_or("never".into(), |delay| format!("after {delay:?}"));
        let peer = peer.as_ref().map_or("none".into(), |peer| format!("{} from {}", peer.address, peer.listen));
        writeln!(f, "         takes over from a lesser one {after}; peer {peer}")?;
        if let Some(age) = mirror_after {
            writeln!(f, "         the other one is told the flows that are {age:?} old")?;
        }
        let Requires { links, gateways, live_children, penalty } = requires;
        let (links, gateways) = (list(links.iter().map(name)), list(gateways.iter().map(ToString::to_string)));
        let penalty = penalty.map_or("not active".into(), |penalty| format!("priority less {penalty}"));
        writeln!(f, "         requires links {links}; gateways {gateways}, {live_children} children, else {penalty}")
    }

    fn regions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { client_regions, regions, .. } = self.0;
        if client_regions.is_empty() {
            return Ok(());
        }
        let names = list(client_regions.iter().cloned());
        writeln!(f, "client regions  {names}, in {} ranges of addresses", regions.ranges())
    }

    fn ports(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.0.ports.iter().map(|port| {
            let vlan = port.vlan.map_or("-".into(), |vlan| vlan.to_string());
            let addresses = list(port.addresses.iter().map(ToString::to_string));
            vec![port.name.clone(), port.device.clone(), port.mtu.to_string(), vlan, addresses]
        });
        table(f, "ports", 0, &["name", "device", "mtu", "vlan", "addresses"], ports.collect())?;
        let routes = self.0.routes.iter().map(|route| vec![show(route.prefix), route.via.to_string()]);
        table(f, "routes", 0, &["prefix", "via"], routes.collect())?;
        let forwarding = if self.0.forwarding { "on" } else { "off: what is for no virtual host is dropped" };
        writeln!(f, "forwarding  {forwarding}")?;
        let neighbours = self.0.neighbours.iter().map(|one| vec![one.address.to_string(), one.mac.to_string()]);
        table(f, "neighbours", 0, &["address", "mac"], neighbours.collect())
    }

    fn virtual_host(&self, f: &mut fmt::Formatter<'_>, host: &VirtualHost) -> fmt::Result {
        writeln!(f, "  {}", host.name)?;
        writeln!(f, "    addresses  {}", list(host.addresses.iter().copied().map(show)))?;
        writeln!(f, "    services   {}", list(host.services.iter().map(ToString::to_string)))?;
        match host.flow {
            Granularity::FiveTuple => writeln!(f, "    flow       5-tuple")?,
            Granularity::Source { v4, v6 } => writeln!(f, "    flow       source /{v4} (IPv4), /{v6} (IPv6)")?,
        }
        match host.policy {
            Policy::ConsistentHash if host.shares => {
                writeln!(f, "    selection  shares by cost, {} slots", host.table_size)?;
            }
            Policy::ConsistentHash => writeln!(f, "    selection  consistent_hash, {} slots", host.table_size)?,
            Policy::LeastCost => writeln!(f, "    selection  least_cost, {} slots", host.table_size)?,
            Policy::RoundRobin => writeln!(f, "    selection  round_robin")?,
        }
        if let Some(function) = &host.cost_function {
            writeln!(f, "    cost       {}", function.source())?;
            if function.changes_with_time() {
                let zone = &self.0.router.time_zone;
                writeln!(
                    f,
                    "               by the time in {}",
                    zone.iana_name().unwrap_or("the zone of this machine")
                )?;
            }
        }
        if let Some(function) = &host.aggregate_function {
            writeln!(f, "    upward     {}", function.source())?;
        }
        if let Some(Layout { length, offset, server_id_length }) = host.quic {
            writeln!(f, "    quic       ids of {length} bytes, of the server {server_id_length} from byte {offset}")?;
        }
        match host.mss_clamp {
            MssClamp::Off => {}
            MssClamp::Auto => writeln!(f, "    mss clamp  auto")?,
            MssClamp::To(limit) => writeln!(f, "    mss clamp  {limit}")?,
        }
        match host.on_unknown {
            OnUnknown::Select => {}
            OnUnknown::Drop => writeln!(f, "    unknown    flows that nobody knows are dropped")?,
            OnUnknown::Reset => writeln!(f, "    unknown    flows that nobody knows are reset")?,
        }
        if let Some(health) = &host.health {
            writeln!(f, "    health     {}", checks(health))?;
            let flows = match host.on_failure {
                OnFailure::Keep => "flows stay",
                OnFailure::Reselect => "flows move",
            };
            writeln!(f, "               {}; of a child that is down, {flows}", rhythm(&health.rhythm))?;
        }
        let members = host.members.iter().map(|member| {
            let name = self.0.children[member.child].name.clone();
            let weight = member.weight.get();
            let id = host.quic.map(|quic| {
                format!("server id {:0digits$x}", member.server_id, digits = 2 * usize::from(quic.server_id_length))
            });
            let draining = (weight == 0).then(|| "draining".to_owned());
            let note = id.into_iter().chain(draining).collect::<Vec<_>>().join(", ");
            vec![name, weight.to_string(), member.tier.to_string(), member.cost.to_string(), note]
        });
        table(f, "children", 4, &["name", "weight", "tier", "cost", ""], members.collect())
    }
}

impl fmt::Display for TunnelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TunnelKind::IpIp => f.write_str("ipip"),
            TunnelKind::Gue { port, variant: GueVariant::Header } => write!(f, "gue, port {port}"),
            TunnelKind::Gue { port, variant: GueVariant::Direct } => write!(f, "gue, port {port}, variant 1"),
            TunnelKind::Gre => f.write_str("gre"),
            TunnelKind::Mpls { label } => write!(f, "mpls, label {label}"),
            TunnelKind::Mac => f.write_str("mac"),
        }
    }
}

/// What is asked.
pub(super) fn checks(health: &Health) -> String {
    let to = health.address;
    let get = |request: &Request| {
        let Request { port, path, host, expect } = request;
        let (first, last) = (expect.start(), expect.end());
        let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
        format!("{to} port {port}, GET {path} of {host}, expects {range}")
    };
    let certificate = |tls: &Tls| match (&tls.roots, &tls.server_name) {
        (None, _) => "any certificate".into(),
        (Some(_), Some(name)) => format!("verified certificate of {name}"),
        (Some(_), None) => format!("verified certificate of {to}"),
    };
    match &health.probe {
        Probe::Icmp => format!("icmp to {to}"),
        Probe::Tcp { port } => format!("tcp to {to} port {port}"),
        Probe::Http(request) => format!("http to {}", get(request)),
        Probe::Https(request, tls) => format!("https to {}, {}", get(request), certificate(tls)),
        Probe::Tls(port, tls) => format!("tls to {to} port {port}, {}", certificate(tls)),
        Probe::Dns { port, name, record } => format!("dns to {to} port {port}, type {record} of {name:?}"),
        Probe::Command(words) => format!("command {}, for {to}", words.join(" ")),
    }
}

/// When it is asked, and what follows.
pub(super) fn rhythm(rhythm: &Rhythm) -> String {
    let Rhythm { interval, timeout, jitter_percent, rise, fall, initially_up } = rhythm;
    let state = if *initially_up { "up" } else { "down" };
    let detection = rhythm.detection_max();
    format!(
        "every {interval:?}, varied by {jitter_percent} %, time-out {timeout:?}, rise {rise}, fall {fall}, {state} at first; \
         down within {detection:?}"
    )
}

pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { "none".into() } else { items.join(", ") }
}

/// Writes aligned columns under a title with their number; nothing but the title when there are none.
fn table(f: &mut fmt::Formatter<'_>, title: &str, margin: usize, head: &[&str], rows: Vec<Vec<String>>) -> fmt::Result {
    writeln!(f, "{:margin$}{title}: {}", "", rows.len())?;
    if rows.is_empty() {
        return Ok(());
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0).max(head[column].len());
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let head = head.iter().map(ToString::to_string).collect();
    for row in std::iter::once(&head).chain(&rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(f, "{:1$}{2}", "", margin + 2, line.trim_end())?;
    }
    Ok(())
}
