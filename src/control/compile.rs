//! Configuration in, forwarding snapshot out.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::neighbours::Neighbours;
use crate::config::{self, Config, TunnelKind};
use crate::flow::state::{FlowState, Timeouts};
use crate::forward::tables::{ForwardTables, Member, OwnAddresses, Path, Target, VirtualHost};
use crate::service::lookup::VirtualHosts;
use crate::service::maglev::ClusterHash;
use crate::service::selection::{Candidate, Selector, TableCache};
use crate::tunnel::template::{Endpoints, Link, Template};
use crate::units::{PathId, PortIndex, TargetId, VirtualHostId};

/// How long the fragments of a datagram are waited for (RFC 8200 section 4.5 gives a reassembler 60 s; senders and the
/// paths between are faster).
const FRAGMENTS: Duration = Duration::from_secs(30);

/// The link by which an address is reached.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// Port to send by.
    pub port: PortIndex,
    /// Its link-layer header.
    pub link: Link,
    /// Longest IP packet, in bytes.
    pub mtu: u16,
}

/// Who knows how addresses are reached.
pub trait Reachability {
    /// The link towards `address`, or `None` while the next hop's link-layer address is unknown.
    fn reach(&self, address: IpAddr) -> Option<Reach>;
}

/// Reachability by the configuration's routes, over what is known about the neighbours.
#[derive(Debug)]
pub struct Configured<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The neighbours that it needs.
    pub neighbours: &'a Neighbours,
}

impl Reachability for Configured<'_> {
    fn reach(&self, address: IpAddr) -> Option<Reach> {
        let attachment = self.config.attachment(address)?;
        let mtu = self.config.ports.get(attachment.port.index())?.mtu;
        Some(Reach { port: attachment.port, link: self.neighbours.link(attachment.next_hop)?, mtu })
    }
}

/// Nothing is reachable: for looking at a snapshot that nobody forwards by.
#[derive(Debug)]
pub struct Unconnected;

impl Reachability for Unconnected {
    fn reach(&self, _address: IpAddr) -> Option<Reach> {
        None
    }
}

/// The snapshot that `config` describes.
pub fn compile(config: &Config, reachability: &impl Reachability) -> ForwardTables {
    let (paths, targets) = paths_and_targets(config, reachability);
    let mut next_target = (0..).map(TargetId);
    let mut tables = TableCache::new(config.cluster.key);
    let virtual_hosts: Vec<VirtualHost> = config
        .virtual_hosts
        .iter()
        .map(|host| VirtualHost {
            name: host.name.clone(),
            granularity: host.flow,
            selector: Arc::new(selector(config, host, &mut tables)),
            members: host
                .members
                .iter()
                .zip(&mut next_target)
                .map(|(member, target)| {
                    let child = &config.children[member.child];
                    Member { child: child.name.clone(), address: child.address, target }
                })
                .collect(),
        })
        .collect();

    let prefixes = config.virtual_hosts.iter().zip(0..).flat_map(|(host, number)| {
        host.addresses.iter().map(move |prefix| (*prefix, host.services.as_slice(), VirtualHostId(number)))
    });
    ForwardTables {
        own: own_addresses(config),
        parents: config.router.parents.clone(),
        index: VirtualHosts::new(prefixes),
        virtual_hosts,
        targets,
        paths,
        cluster: ClusterHash::new(&config.cluster.key),
        timeouts: timeouts(&config.flows.timeouts),
    }
}

/// How each virtual host of a snapshot shares new flows, for people.
#[derive(Debug)]
pub struct Shares<'a>(pub &'a ForwardTables);

impl fmt::Display for Shares<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "new flows, by slots or turns")?;
        for host in &self.0.virtual_hosts {
            let shares = host.selector.shares();
            let all: usize = shares.values().sum();
            writeln!(f, "  {}", host.name)?;
            for (position, member) in host.members.iter().enumerate() {
                let share = shares.get(&position).copied().unwrap_or(0);
                let percent = share as f64 * 100.0 / all.max(1) as f64;
                writeln!(f, "    {:<24} {share:>8} of {all} {percent:>8.3} %", member.child)?;
            }
        }
        Ok(())
    }
}

/// `tables`, compiled from the same `config`, over other neighbours: targets keep their numbers, so flows stay where they
/// are, and nothing that costs time is made anew.
pub fn recompile(config: &Config, tables: &ForwardTables, reachability: &impl Reachability) -> ForwardTables {
    let (paths, targets) = paths_and_targets(config, reachability);
    ForwardTables { paths, targets, ..tables.clone() }
}

/// The paths to the children that can be reached, and the targets: the members of all virtual hosts in their order.
fn paths_and_targets(config: &Config, reachability: &impl Reachability) -> (Vec<Path>, Vec<Target>) {
    let mut paths = Vec::new();
    let children: Vec<Option<PathId>> = config
        .children
        .iter()
        .map(|child| {
            paths.push(path(config, child, reachability)?);
            Some(PathId(paths.len() as u32 - 1))
        })
        .collect();
    let members = config.virtual_hosts.iter().flat_map(|host| &host.members);
    let targets = members.map(|member| Target { path: children[member.child] }).collect();
    (paths, targets)
}

fn own_addresses(config: &Config) -> OwnAddresses {
    let tunnels = [config.router.tunnel_v4.map(IpAddr::from), config.router.tunnel_v6.map(IpAddr::from)];
    let ports = config.ports.iter().flat_map(|port| port.addresses.iter().map(IpNet::addr));
    tunnels.into_iter().flatten().chain(ports).collect()
}

fn path(config: &Config, child: &config::Child, reachability: &impl Reachability) -> Option<Path> {
    let Reach { port, link, mtu } = reachability.reach(child.address)?;
    let router = &config.router;
    let endpoints = match child.address {
        IpAddr::V4(destination) => {
            let spread = router.tunnel_source_v4;
            let source = spread.map_or(router.tunnel_v4, |prefix| Some(prefix.network()))?;
            Endpoints::V4 { source, spread_bits: spread.map_or(0, |prefix| 32 - prefix.prefix_len()), destination }
        }
        IpAddr::V6(destination) => {
            let spread = router.tunnel_source_v6;
            let source = spread.map_or(router.tunnel_v6, |prefix| Some(prefix.network()))?;
            Endpoints::V6 { source, spread_bits: spread.map_or(0, |prefix| 128 - prefix.prefix_len()), destination }
        }
    };
    let template = match child.tunnel {
        TunnelKind::IpIp => Template::ip_in_ip(endpoints, link, mtu),
    };
    Some(Path { port, template })
}

fn selector(config: &Config, host: &config::VirtualHost, tables: &mut TableCache) -> Selector {
    let candidates: Vec<Candidate<'_>> = host
        .members
        .iter()
        .map(|member| Candidate {
            name: &config.children[member.child].name,
            weight: member.weight,
            cost: member.cost,
            tier: member.tier,
            available: true,
        })
        .collect();
    Selector::build(host.policy, &candidates, host.table_size, tables)
}

fn timeouts(configured: &config::Timeouts) -> Timeouts {
    Timeouts::new(|state| {
        let timeout = match state {
            FlowState::TcpSyn => configured.tcp_syn,
            FlowState::TcpEstablished => configured.tcp_established,
            FlowState::TcpFin => configured.tcp_fin,
            FlowState::TcpRst => configured.tcp_rst,
            FlowState::Udp => configured.udp,
            FlowState::Other => configured.other,
            FlowState::Fragments => FRAGMENTS,
        };
        u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX)
    })
}
