//! Configuration in, forwarding snapshot out.
//!
//! ```text
//! Config, Conditions ──compile──► virtual hosts, selections ┐
//! neighbours ──────────────────► paths, targets ────────────┴─► ForwardTables
//! ```
//!
//! From one snapshot to the next a virtual host and its children keep their numbers, and a selector stays the same as
//! long as nothing that it depends on has changed: so flows stay where they are. What children say changes the selections
//! of the virtual hosts that it is about; all else is in the next snapshot as it is in the last one.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::conditions::{Conditions, Past, Steer};
use super::neighbours::Neighbours;
use super::numbers::Numbers;
pub use super::numbers::TooManyTargets;
use super::wire::TunnelEnd;
use crate::clock::Instant;
use crate::config::{self, Config, OnFailure, TunnelKind};
use crate::flow::state::{FlowState, Timeouts};
use crate::forward::routes::{ByPrefix, Routes, Way};
use crate::forward::tables::{ForwardTables, Member, OwnAddresses, Path, Shortcut, Target, VirtualHost};
use crate::ha::vrrp;
use crate::service::lookup::VirtualHosts;
use crate::service::maglev::ClusterHash;
use crate::service::mss::MssClamp;
use crate::service::quic::ServerIds;
use crate::service::selection::{Candidate, Selector, TableCache};
use crate::service::selections::{ByRegion, Selection, Selections};
use crate::service::unknown::OnUnknown;
use crate::tunnel::template::{Endpoints, Link, Template};
use crate::units::{PathId, PortIndex, RegionId, TargetId, VirtualHostId, Weight};

/// How long the fragments of a datagram are waited for (RFC 8200 section 4.5 gives a reassembler 60 s; senders and the
/// paths between are faster).
const FRAGMENTS: Duration = Duration::from_secs(30);

/// Virtual hosts from which on it counts how quickly the tables of other shares are made.
const MANY: usize = 100;

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

    /// The neighbours, where there are any to forward to.
    fn neighbours(&self) -> Option<&Neighbours> {
        None
    }
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

    fn neighbours(&self) -> Option<&Neighbours> {
        Some(self.neighbours)
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

/// The snapshot that `config` describes, for one who will not want another.
pub fn compile(config: &Config, reachability: &impl Reachability) -> ForwardTables {
    let compiled = Compiler::new(usize::MAX).compile(config, &Conditions::default(), reachability, Instant::ZERO);
    compiled.expect("there is room for any number of targets").tables
}

/// A snapshot, and what the workers' counters must forget before it is published.
#[derive(Debug)]
pub struct Compiled {
    /// The snapshot.
    pub tables: ForwardTables,
    /// Targets that have taken over the number of an earlier one.
    pub renumbered: Vec<TargetId>,
}

/// Compiles one snapshot after the other.
#[derive(Debug)]
pub struct Compiler {
    numbers: Numbers,
    /// The virtual hosts of the last snapshot.
    hosts: Arc<[VirtualHost]>,
    selections: Selections,
    /// The child of each target, by its position in the configuration.
    children: Vec<Option<usize>>,
    /// What flows point at that go past a child.
    past: HashMap<Past, TargetId>,
    past_of: HashMap<TargetId, Past>,
    /// The tables of those selectors: equal children with equal shares have one between them.
    tables: TableCache,
}

/// What the last snapshot was made of, and that snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Latest<'a> {
    /// The configuration that it was compiled from.
    pub config: &'a Config,
    /// The children's conditions now.
    pub conditions: &'a Conditions,
    /// The snapshot.
    pub tables: &'a ForwardTables,
}

impl Compiler {
    /// A compiler of snapshots with `targets_max` targets at most.
    pub fn new(targets_max: usize) -> Compiler {
        let tables = TableCache::new([0; 16]);
        let numbers = Numbers::new(targets_max);
        Compiler {
            numbers,
            hosts: Arc::new([]),
            selections: Selections::new(Vec::new()),
            children: Vec::new(),
            past: HashMap::new(),
            past_of: HashMap::new(),
            tables,
        }
    }

    /// Memory of the tables by which new flows find their child, in bytes.
    pub fn table_bytes(&self) -> usize {
        self.tables.bytes() + self.tables.preference_bytes()
    }

    /// The child of a target in the last configuration, by its position there; `None` where no member has it.
    pub fn child(&self, target: TargetId) -> Option<usize> {
        *self.children.get(target.index())?
    }

    /// In which way flows go past a child that point at this target, if they do.
    pub fn past_of(&self, target: TargetId) -> Option<&Past> {
        self.past_of.get(&target)
    }

    /// What flows point at that go past a child in this way.
    pub fn past(&self, past: &Past) -> Option<TargetId> {
        self.past.get(past).copied()
    }

    /// The snapshot that `config` describes under `conditions`.
    ///
    /// # Errors
    /// There are too many targets; the compiler is as it was before.
    pub fn compile(
        &mut self,
        config: &Config,
        conditions: &Conditions,
        reachability: &impl Reachability,
        now: Instant,
    ) -> Result<Compiled, TooManyTargets> {
        let mut numbers = self.numbers.clone();
        if *self.tables.key() != config.cluster.key {
            self.tables = TableCache::new(config.cluster.key);
        }
        self.tables.remember(config.virtual_hosts.len() >= MANY);
        let (before, selected) = (self.hosts.clone(), self.selections.clone());
        let before: HashMap<&str, &VirtualHost> = before.iter().map(|host| (&*host.name, host)).collect();
        let names: Vec<Arc<str>> = config.children.iter().map(|child| child.name.as_str().into()).collect();
        let mut virtual_hosts = Vec::with_capacity(config.virtual_hosts.len());
        let mut selections = Vec::with_capacity(config.virtual_hosts.len());
        numbers.begin(longest(&config.flows.timeouts));
        for (position, host) in config.virtual_hosts.iter().enumerate() {
            let number = numbers.virtual_host(&host.name);
            let members: Result<Vec<Member>, TooManyTargets> = host
                .members
                .iter()
                .map(|member| {
                    let target = numbers.target(number, &names[member.child], now)?;
                    let (child, address) = (names[member.child].clone(), config.children[member.child].address);
                    Ok(Member { child, address, target })
                })
                .collect();
            let last = before.get(host.name.as_str()).map(|before| selected.of(before.position));
            selections.push(self.selection(config, (position, host), conditions, last));
            let (name, granularity) = (host.name.as_str().into(), host.flow);
            let position = VirtualHostId(position as u32);
            let (quic, mss_clamp) = (server_ids(host), host.mss_clamp);
            let on_unknown =
                (config.asks_elsewhere() || host.on_unknown != OnUnknown::Select).then_some(host.on_unknown);
            let members = members?;
            virtual_hosts.push(VirtualHost {
                name,
                position,
                number,
                granularity,
                quic,
                on_unknown,
                mss_clamp,
                members,
            });
        }
        let (virtual_hosts, selections): (Arc<[VirtualHost]>, _) = (virtual_hosts.into(), Selections::new(selections));
        let shortcuts = shortcuts(config, conditions, &virtual_hosts, &mut numbers, now);
        numbers.end(now);
        let renumbered = numbers.take_reused();

        let prefixes = config.virtual_hosts.iter().zip(0..).flat_map(|(host, position)| {
            host.addresses.iter().map(move |prefix| (*prefix, host.services.as_slice(), VirtualHostId(position)))
        });
        let index = Arc::new(VirtualHosts::new(prefixes));
        let compiled = (&*virtual_hosts, &selections, &*shortcuts, numbers.given());
        let (paths, targets, routes) = ways(config, conditions, compiled, reachability);
        self.children = vec![None; numbers.given()];
        for (host, compiled) in config.virtual_hosts.iter().zip(virtual_hosts.iter()) {
            for (member, Member { target, .. }) in host.members.iter().zip(&compiled.members) {
                self.children[target.index()] = Some(member.child);
            }
        }
        self.know(config, &shortcuts);
        (self.numbers, self.hosts, self.selections) = (numbers, virtual_hosts.clone(), selections.clone());
        self.tables.drop_unused();
        let tables = ForwardTables {
            own: own_addresses(config),
            parents: config.router.parents.iter().copied().collect(),
            tunnel_sources: tunnel_sources(config),
            gue_port: config.router.gue_port,
            index,
            virtual_hosts,
            selections,
            targets,
            paths,
            routes,
            echo: Arc::new(echo(config)),
            regions: config.regions.clone(),
            cluster: ClusterHash::new(&config.cluster.key),
            timeouts: timeouts(&config.flows.timeouts),
            inserts_per_second: config.flows.inserts_per_second,
            asks_elsewhere: config.asks_elsewhere(),
            takes_recovery_echoes: config.recovery.echo.is_some(),
            tells_new_flows: config.shortcuts && !config.sessions.parents.is_empty(),
            shortcuts: shortcuts.into_iter().map(|tunnelled| tunnelled.shortcut).collect(),
            capture: None,
            stations: None,
        };
        Ok(Compiled { tables, renumbered })
    }

    /// Who gets the new flows of a virtual host, which was that before: the same selector as long as they are the same.
    fn selection(
        &mut self,
        config: &Config,
        (position, host): (usize, &config::VirtualHost),
        conditions: &Conditions,
        before: Option<&Selection>,
    ) -> Selection {
        let mut build = |region| {
            let candidates = candidates(config, (position, host), region, conditions);
            let selector = Selector::build(host.policy, &candidates, host.table_size, &mut self.tables);
            (selector, candidates.iter().map(Candidate::takes_flows).collect::<Vec<bool>>())
        };
        let (selector, mut takes_new) = build(RegionId::NONE);
        let by_region = host.by_region.then(|| {
            let selectors = (1..config.kinds_of_clients(host)).map(|region| {
                let (selector, takes) = build(RegionId(region as u8));
                // Somebody's new flows go there.
                takes_new.iter_mut().zip(takes).for_each(|(any, takes)| *any |= takes);
                selector
            });
            Arc::new(ByRegion(selectors.collect()))
        });
        let selector = match before.filter(|before| before.selector.is_same(&selector)) {
            Some(before) => before.selector.clone(),
            None => selector,
        };
        Selection { selector, takes_new: self.tables.takers(&takes_new), by_region }
    }

    /// The last snapshot with what has changed since: the conditions of these virtual hosts' children, and (true) what is
    /// known about neighbours, paths or shortcuts. Everything else is shared with it. `None`: that makes no difference.
    pub fn update(
        &mut self,
        latest: Latest<'_>,
        (hosts, paths): (&BTreeSet<usize>, bool),
        reachability: &impl Reachability,
        now: Instant,
    ) -> Option<Compiled> {
        let Latest { config, conditions, tables } = latest;
        let mut changed = Vec::with_capacity(hosts.len());
        // Whether flows are to leave a child, or not any more: targets say that.
        let mut moves = false;
        for &position in hosts {
            let pair = config.virtual_hosts.get(position).zip(tables.virtual_hosts.get(position));
            let Some((host, compiled)) = pair else { continue };
            let before = tables.selection(compiled);
            let selection = self.selection(config, (position, host), conditions, Some(before));
            moves |= host.on_failure == OnFailure::Reselect
                && compiled.members.iter().enumerate().any(|(place, member)| {
                    let able = !selection.selector.is_empty();
                    let moves = able && is_down(conditions, host, (position, place), &member.child);
                    tables.targets[member.target.index()].moves != moves
                });
            if !selection.is_same(before) {
                changed.push((compiled.position, selection));
            }
        }
        if changed.is_empty() && !moves && !paths {
            return None;
        }
        let mut tables = tables.clone();
        if !changed.is_empty() {
            tables.selections = tables.selections.with(changed);
            self.selections = tables.selections.clone();
            self.tables.drop_unused();
        }
        if moves || paths {
            return Some(self.recompile(config, conditions, &tables, reachability, now));
        }
        Some(Compiled { tables, renumbered: self.numbers.take_reused() })
    }

    /// `tables`, the last that was compiled from `config`, over other neighbours, and with other shortcuts than before:
    /// nothing that costs time is made anew.
    fn recompile(
        &mut self,
        config: &Config,
        conditions: &Conditions,
        tables: &ForwardTables,
        reachability: &impl Reachability,
        now: Instant,
    ) -> Compiled {
        let shortcuts = shortcuts(config, conditions, &tables.virtual_hosts, &mut self.numbers, now);
        let count = self.numbers.given().max(tables.targets.len());
        self.children.resize(count, None);
        self.know(config, &shortcuts);
        let compiled = (&*tables.virtual_hosts, &tables.selections, &*shortcuts, count);
        let (paths, targets, routes) = ways(config, conditions, compiled, reachability);
        let shortcuts = shortcuts.into_iter().map(|tunnelled| tunnelled.shortcut).collect();
        let tables = ForwardTables { paths, targets, routes, shortcuts, ..tables.clone() };
        Compiled { tables, renumbered: self.numbers.take_reused() }
    }

    /// Takes note of the children that shortcuts go past.
    fn know(&mut self, config: &Config, shortcuts: &[Tunnelled]) {
        self.past = shortcuts.iter().map(|one| (one.past.clone(), one.shortcut.target)).collect();
        self.past_of = shortcuts.iter().map(|one| (one.shortcut.target, one.past.clone())).collect();
        for Tunnelled { shortcut, .. } in shortcuts {
            let member = config.virtual_hosts[shortcut.host.index()].members.get(shortcut.member);
            self.children[shortcut.target.index()] = member.map(|member| member.child);
        }
    }
}

/// A shortcut with all that is known of it.
struct Tunnelled {
    past: Past,
    shortcut: Shortcut,
    /// How packets get there; `None` while it is not in force.
    tunnel: Option<TunnelKind>,
}

/// The targets of the shortcuts whose virtual host and child are there. Those for which there is no number are left out:
/// their flows go the long way.
fn shortcuts(
    config: &Config,
    conditions: &Conditions,
    virtual_hosts: &[VirtualHost],
    numbers: &mut Numbers,
    now: Instant,
) -> Vec<Tunnelled> {
    if conditions.shortcuts.is_empty() {
        return Vec::new();
    }
    let positions: HashMap<&str, usize> =
        config.virtual_hosts.iter().enumerate().map(|(position, host)| (host.name.as_str(), position)).collect();
    let shortcut = |(past, in_force): (&Past, &bool)| {
        let position = *positions.get(past.host.as_str())?;
        let host = &virtual_hosts[position];
        let member = host.members.iter().position(|member| *member.child == *past.child)?;
        // No name of a child has such a sign in it.
        let TunnelEnd { kind, port, address } = past.end;
        let name = format!("{}>{kind}:{port}:{address}", past.child);
        let target = numbers.target(host.number, &name, now).ok()?;
        let tunnel = past.end.tunnel().filter(|_| *in_force);
        let in_force = tunnel.is_some();
        let shortcut = Shortcut { host: VirtualHostId(position as u32), member, address, target, in_force };
        Some(Tunnelled { past: past.clone(), shortcut, tunnel })
    };
    conditions.shortcuts.iter().filter_map(shortcut).collect()
}

/// How each virtual host of a snapshot shares new flows, for people.
#[derive(Debug)]
pub struct Shares<'a>(pub &'a ForwardTables);

impl fmt::Display for Shares<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "new flows, by slots or turns")?;
        for host in self.0.virtual_hosts.iter() {
            let shares = self.0.selection(host).selector.shares();
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

/// Paths, targets, and the ways of packets that are for no service.
type Ways = (Arc<[Path]>, Arc<[Target]>, Option<Arc<Routes>>);

/// The paths to the children that can be reached, `count` targets, of which those that are no member's and no shortcut's
/// have no flows, and the ways of packets that are for no service.
fn ways(
    config: &Config,
    conditions: &Conditions,
    (virtual_hosts, selections, shortcuts, count): (&[VirtualHost], &Selections, &[Tunnelled], usize),
    reachability: &impl Reachability,
) -> Ways {
    let mut paths = Vec::new();
    let children: Vec<Option<PathId>> = config
        .children
        .iter()
        .map(|child| {
            paths.push(path(config, child.address, child.tunnel, reachability)?);
            Some(PathId(paths.len() as u32 - 1))
        })
        .collect();
    let unused = Target::new(VirtualHostId(0), None).moving(true);
    let mut targets = vec![unused; count];
    for ((at, host), compiled) in config.virtual_hosts.iter().enumerate().zip(virtual_hosts) {
        let position = compiled.position;
        let (reads_quic, clamps_mss) = (compiled.quic.is_some(), compiled.mss_clamp != MssClamp::Off);
        // Where nobody could take them, the flows of a child that is down stay: it may come back.
        let may_move = host.on_failure == OnFailure::Reselect && !selections.of(position).selector.is_empty();
        for (place, (member, Member { child, target, .. })) in host.members.iter().zip(&compiled.members).enumerate() {
            let moves = may_move && is_down(conditions, host, (at, place), child);
            let by_child = Target::new(position, children[member.child]);
            targets[target.index()] = by_child.moving(moves).reading_quic(reads_quic).clamping_mss(clamps_mss);
        }
    }
    for Tunnelled { shortcut: Shortcut { host, member, address, target, .. }, tunnel, .. } in shortcuts {
        // As long as there is no way past the child, its own serves: the packet comes to the same server.
        let by_child = targets[virtual_hosts[host.index()].members[*member].target.index()];
        targets[target.index()] = by_child;
        if let Some(tunnel) = tunnel
            && let Some(past) = path(config, *address, *tunnel, reachability)
        {
            paths.push(past);
            targets[target.index()] = by_child.by(PathId(paths.len() as u32 - 1));
        }
    }
    let routes = reachability.neighbours().filter(|_| config.forwarding).map(|known| routes(config, known, &mut paths));
    (paths.into(), targets.into(), routes.map(Arc::new))
}

/// Whether a child of a virtual host, by their positions, has failed.
fn is_down(conditions: &Conditions, host: &config::VirtualHost, (at, place): (usize, usize), child: &str) -> bool {
    conditions.is_down(&host.name, child) || conditions.steering.of(at, place) == Steer::Down
}

/// Where we answer echo requests ourselves.
fn echo(config: &Config) -> ByPrefix<bool> {
    let mut echo = ByPrefix::default();
    for host in &config.virtual_hosts {
        host.addresses.iter().for_each(|prefix| echo.insert(*prefix, host.answers_echo));
    }
    echo
}

/// The ways of packets that are for no service, with what they need of `paths` added there.
fn routes(config: &Config, neighbours: &Neighbours, paths: &mut Vec<Path>) -> Routes {
    let mut ways = ByPrefix::default();
    let mut way = |port: PortIndex, link| {
        paths.push(Path { port, template: Template::mac(link, config.ports[port.index()].mtu) });
        Way::Path(PathId(paths.len() as u32 - 1))
    };
    let known: HashMap<IpAddr, Way> =
        neighbours.known().map(|(address, port, link)| (address, way(port, link))).collect();
    for route in &config.routes {
        ways.insert(route.prefix, known.get(&route.via).copied().unwrap_or(Way::Unresolved));
    }
    // Of equal prefixes the port's own counts.
    for net in config.ports.iter().flat_map(|port| &port.addresses) {
        ways.insert(*net, Way::Unresolved);
        if let IpNet::V4(net) = net
            && net.prefix_len() < 31
        {
            for nobody in [net.network(), net.broadcast()] {
                ways.insert(Ipv4Net::from(nobody).into(), Way::Nobody);
            }
        }
    }
    for (address, way) in known {
        ways.insert(address.into(), way);
    }
    Routes { ways, macs: neighbours.macs() }
}

fn own_addresses(config: &Config) -> OwnAddresses {
    let tunnels = [config.router.tunnel_v4.map(IpAddr::from), config.router.tunnel_v6.map(IpAddr::from)];
    let ports = config.ports.iter().flat_map(|port| port.addresses.iter().map(IpNet::addr));
    tunnels.into_iter().flatten().chain(ports).chain(pair_addresses(config)).collect()
}

/// The addresses of a pair, whoever has them now, and those by which its routers hear each other: all of it is for the slow
/// path, which knows what is for this router.
fn pair_addresses(config: &Config) -> impl Iterator<Item = IpAddr> {
    let pair = config.pair.as_ref();
    let groups = pair.map(|_| [IpAddr::from(vrrp::GROUP_V4), IpAddr::from(vrrp::GROUP_V6)]);
    pair.into_iter().flat_map(|pair| pair.addresses.iter().copied()).chain(groups.into_iter().flatten())
}

fn tunnel_sources(config: &Config) -> Vec<IpNet> {
    let router = &config.router;
    let spread = [router.tunnel_source_v4.map(IpNet::from), router.tunnel_source_v6.map(IpNet::from)];
    spread.into_iter().flatten().collect()
}

pub(super) fn path(
    config: &Config,
    address: IpAddr,
    tunnel: TunnelKind,
    reachability: &impl Reachability,
) -> Option<Path> {
    let Reach { port, link, mtu } = reachability.reach(address)?;
    let router = &config.router;
    let endpoints = || match address {
        IpAddr::V4(destination) => {
            let spread = router.tunnel_source_v4;
            let source = spread.map_or(router.tunnel_v4, |prefix| Some(prefix.network()))?;
            let spread_bits = spread.map_or(0, |prefix| 32 - prefix.prefix_len());
            Some(Endpoints::V4 { source, spread_bits, destination })
        }
        IpAddr::V6(destination) => {
            let spread = router.tunnel_source_v6;
            let source = spread.map_or(router.tunnel_v6, |prefix| Some(prefix.network()))?;
            let spread_bits = spread.map_or(0, |prefix| 128 - prefix.prefix_len());
            Some(Endpoints::V6 { source, spread_bits, destination })
        }
    };
    let template = match tunnel {
        TunnelKind::IpIp => Template::ip_in_ip(endpoints()?, link, mtu),
        TunnelKind::Gue { port, variant } => Template::gue(endpoints()?, port, variant, link, mtu),
        TunnelKind::Gre => Template::gre(endpoints()?, link, mtu),
        TunnelKind::Mpls { label } => Template::mpls(label, link, mtu),
        TunnelKind::Mac => Template::mac(link, mtu),
    };
    Some(Path { port, template })
}

fn server_ids(host: &config::VirtualHost) -> Option<Arc<ServerIds>> {
    let ids = host.members.iter().map(|member| member.server_id);
    host.quic.map(|layout| Arc::new(ServerIds::new(layout, ids)))
}

/// The children of a virtual host as they are under `conditions` for the new flows of clients in a region.
pub(crate) fn candidates<'a>(
    config: &'a Config,
    (position, host): (usize, &config::VirtualHost),
    region: RegionId,
    conditions: &Conditions,
) -> Vec<Candidate<'a>> {
    let said = conditions.steering.all_of(position).get(region.index() * host.members.len()..).unwrap_or_default();
    let steers = said.iter().copied().chain(std::iter::repeat(Steer::default()));
    let candidate = |(member, steer): (&config::Member, Steer)| {
        let name = &config.children[member.child].name;
        let (cost, share, takes) = match steer {
            Steer::AsConfigured => (None, None, true),
            Steer::Takes { cost, weight } => (cost, weight, true),
            Steer::TakesNone | Steer::Down => (None, None, false),
        };
        let weight = conditions.weight(name, share.unwrap_or(member.weight));
        Candidate {
            name,
            weight: if takes { weight } else { Weight::DRAIN },
            cost: cost.unwrap_or(member.cost),
            tier: member.tier,
            available: steer != Steer::Down && !conditions.is_down(&host.name, name),
        }
    };
    host.members.iter().zip(steers).map(candidate).collect()
}

fn timeout(configured: &config::Timeouts, state: FlowState) -> Duration {
    match state {
        FlowState::TcpSyn => configured.tcp_syn,
        FlowState::TcpEstablished => configured.tcp_established,
        FlowState::TcpFin => configured.tcp_fin,
        FlowState::TcpRst => configured.tcp_rst,
        FlowState::Udp => configured.udp,
        FlowState::Other => configured.other,
        FlowState::Fragments => FRAGMENTS,
    }
}

fn timeouts(configured: &config::Timeouts) -> Timeouts {
    Timeouts::new(|state| u32::try_from(timeout(configured, state).as_millis()).unwrap_or(u32::MAX))
}

/// How long a flow without packets is kept at most.
fn longest(configured: &config::Timeouts) -> Duration {
    FlowState::ALL.iter().map(|state| timeout(configured, *state)).max().unwrap_or_default()
}
