//! Where a packet would go, step by step, by the same tables that the workers go by; nothing is sent or changed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use zerocopy::IntoBytes;

use super::rows;
use crate::clock::Instant;
use crate::config::{self, Config};
use crate::control::slow_path::SlowPath;
use crate::ctl::request::{TraceRequest, protocol_name};
use crate::ctl::response::{Step, Trace, to_hex};
use crate::ctl::socket::Outbox;
use crate::flow::key::FlowKey;
use crate::forward::inspect::{Desk, Flow, Key};
use crate::forward::routes::{Way, may_pass};
use crate::forward::tables::{ForwardTables, Path, VirtualHost};
use crate::forward::verdict::{PuntReason, Refusal};
use crate::packet::buffer::{OwnedBuffer, PacketBuffer};
use crate::packet::parse::{Frame, parse};
use crate::packet::protocol;
use crate::service::filter::Filter;
use crate::service::selection::{Granularity, Policy};
use crate::tunnel::decapsulate::is_tunnel;
use crate::tunnel::template::{PerPacket, TTL};
use crate::units::{PathId, RegionId, TargetId, VirtualHostId};

/// How long a worker may take to look for a flow.
const PATIENCE: Duration = Duration::from_secs(1);

/// A trace that waits for what the workers find.
pub struct Tracing {
    packet: Packet,
    /// The keys that the packet's flow may have, in the order in which a worker looks for them.
    keys: Vec<Key>,
    /// What each worker has found, by key.
    found: Vec<(usize, Key, Option<Flow>)>,
    asked: Option<Instant>,
    to: Option<Outbox>,
}

/// The packet that is traced.
#[derive(Clone, Copy)]
struct Packet {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
}

impl Packet {
    fn has_ports(self) -> bool {
        use protocol::{DCCP, SCTP, TCP, UDP, UDP_LITE};
        [TCP, UDP, SCTP, UDP_LITE, DCCP].contains(&self.protocol)
    }

    /// Source and destination port, 0 where its protocol has none.
    fn ports(self) -> (u16, u16) {
        if self.has_ports() { (self.source.port(), self.destination.port()) } else { (0, 0) }
    }

    /// What makes it the flow that it is.
    fn key(self) -> Option<Key> {
        let (source, destination) = self.ports();
        let (source, destination) = ((self.source.ip(), source).into(), (self.destination.ip(), destination).into());
        Key::between(source, destination, self.protocol)
    }

    /// The shortest such packet in a frame: zeros but for what decides its way.
    fn frame(self) -> Vec<u8> {
        const TRANSPORT: usize = 20;
        let mut frame = vec![0; 12];
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0, 0x45, 0, 0, 20 + TRANSPORT as u8, 0, 0, 0x40, 0, 64, self.protocol, 0, 0]);
                frame.extend(source.octets().into_iter().chain(destination.octets()));
                let checksum = crate::packet::checksum::checksum(&frame[14..]);
                frame[24..26].copy_from_slice(&checksum.to_be_bytes());
            }
            (source, destination) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, TRANSPORT as u8, self.protocol, 64]);
                for address in [source, destination] {
                    if let IpAddr::V6(address) = address {
                        frame.extend(address.octets());
                    }
                }
            }
        }
        let (source, destination) = self.ports();
        frame.extend(source.to_be_bytes().into_iter().chain(destination.to_be_bytes()));
        let udp_length = if matches!(self.protocol, protocol::UDP | protocol::UDP_LITE) { TRANSPORT as u16 } else { 0 };
        frame.extend(udp_length.to_be_bytes().into_iter().chain([0; 6]));
        // TCP's and DCCP's header length; no flags but ACK.
        frame.extend([0x50, 0x10, 0, 0, 0, 0, 0, 0]);
        frame
    }
}

impl Tracing {
    /// The trace of the packet that `request` describes.
    ///
    /// # Errors
    /// There is no such packet.
    pub fn new(request: &TraceRequest, router: &SlowPath) -> Result<Tracing, String> {
        let TraceRequest { source, destination, protocol } = *request;
        let packet = Packet { source, destination, protocol };
        let Some(key) = packet.key() else {
            return Err(format!("{source} and {destination} are of two families; give two addresses of one"));
        };
        let mut keys = vec![key];
        if let Some(host) = virtual_host(&router.tables(), packet) {
            keys.extend(coarse(host.granularity, key, host.number));
        }
        Ok(Tracing { packet, keys, found: Vec::new(), asked: None, to: None })
    }

    /// The same, for `to`.
    pub fn to(self, to: Outbox) -> Tracing {
        Tracing { to: Some(to), ..self }
    }

    /// Takes what the workers have found since. True when this is the end.
    pub fn pass(&mut self, desks: &[Desk], router: &SlowPath, now: Instant) -> bool {
        let asked = *self.asked.get_or_insert_with(|| {
            for desk in desks {
                // What an earlier trace has not waited for.
                while desk.found().is_some() {}
                for key in &self.keys {
                    // One that finds no room is missing at the end, which is said.
                    let _ = desk.find(*key);
                }
            }
            now
        });
        for (worker, desk) in desks.iter().enumerate() {
            let found = std::iter::from_fn(|| desk.found()).filter(|(key, _)| self.keys.contains(key));
            self.found.extend(found.map(|(key, flow)| (worker, key, flow)));
        }
        let all = self.found.len() >= desks.len() * self.keys.len();
        if !all && now - asked < PATIENCE {
            return false;
        }
        if let Some(to) = self.to.take() {
            to.finish(Ok(self.trace(router, desks.len(), all)));
        }
        true
    }

    /// The trace, as far as the workers have answered.
    fn trace(&self, router: &SlowPath, workers: usize, all: bool) -> Trace {
        let Packet { source, destination, protocol } = self.packet;
        let mut trace = Trace {
            steps: Vec::new(),
            outcome: "dropped".into(),
            reason: None,
            virtual_host: None,
            child: None,
            shortcut: None,
            worker: None,
            port: None,
            header: None,
        };
        let packet = match self.packet.has_ports() {
            true => format!("{} from {source} to {destination}", protocol_name(protocol)),
            false => format!("{} from {} to {}", protocol_name(protocol), source.ip(), destination.ip()),
        };
        trace.step("packet", packet);
        if let Err(reason) = self.walk(&mut trace, router, workers, all) {
            trace.reason = Some(reason.to_owned());
        }
        let outcome = match (trace.outcome.as_str(), &trace.reason, &trace.child) {
            ("forwarded", _, Some(child)) if trace.shortcut.is_some() => format!("forwarded past {child}"),
            ("forwarded", _, Some(child)) => format!("forwarded to {child}"),
            ("forwarded", _, None) => "forwarded as it is".into(),
            (outcome, Some(reason), _) => format!("{outcome}: {reason}"),
            (outcome, None, _) => outcome.to_owned(),
        };
        trace.step("outcome", outcome);
        trace
    }

    /// The steps of a worker; an error is why the packet is dropped or punted.
    fn walk(&self, trace: &mut Trace, router: &SlowPath, workers: usize, all: bool) -> Result<(), &'static str> {
        let (config, tables) = (router.config(), router.tables());
        self.own_address(trace, &tables)?;
        let Some(host) = virtual_host(&tables, self.packet) else {
            trace.step("virtual host", "none has this address, protocol and port");
            return self.route(trace, router, &tables);
        };
        trace.virtual_host = Some(host.name.to_string());
        let configured = config.virtual_hosts.iter().find(|configured| *configured.name == *host.name);
        trace.step("virtual host", why_this_host(configured, self.packet, &host.name));

        if host.quic.is_some() && self.packet.protocol == protocol::UDP {
            trace.step("quic", "a connection id in the packet may name another child than this trace, which has none");
        }
        let flow = self.keys.iter().find_map(|key| {
            let same = self.found.iter().find(|(_, found, flow)| found == key && flow.is_some());
            same.and_then(|(worker, _, flow)| Some((*worker, flow.as_ref()?)))
        });
        let target = match flow {
            Some((worker, flow)) if !tables.targets.get(flow.target.index()).is_none_or(|target| target.moves) => {
                let (packets, idle) = (flow.packets, flow.idle);
                let state = flow.state.label();
                let known = format!("known to worker {worker}: {state}, {packets} packets, the last {idle:.1?} ago");
                trace.step("flow", known);
                trace.worker = Some(worker);
                flow.target
            }
            _ => {
                let those =
                    if all { "no worker knows it" } else { "not all workers have answered; of those none knows it" };
                trace.step("flow", format!("new: {those} ({workers} workers)"));
                self.select(trace, router, &tables, host, configured)?
            }
        };
        let past = tables.shortcuts.iter().find(|shortcut| shortcut.target == target);
        let past = past.filter(|past| tables.virtual_hosts[past.host.index()].number == host.number);
        let member = match past {
            Some(past) => host.members.get(past.member),
            None => host.members.iter().find(|member| member.target == target),
        };
        let Some(member) = member else {
            trace.step("child", "its flow belongs to another virtual host");
            return Err(Refusal::NoChild.label());
        };
        trace.child = Some(member.child.to_string());
        let Some(past) = past.filter(|past| past.in_force) else {
            return self.path(trace, router, &tables, target, member.address, &member.child);
        };
        trace.shortcut = Some(past.address);
        trace.step("shortcut", self.why_past(router, &member.child, past.address));
        self.path(trace, router, &tables, target, past.address, &member.child)
    }

    /// Why the flow goes past its child.
    fn why_past(&self, router: &SlowPath, child: &str, end: IpAddr) -> String {
        let shortcuts = router.hierarchy().map(|hierarchy| hierarchy.shortcuts());
        let known = self.keys.iter().find_map(|key| shortcuts?.of(key));
        match known {
            Some((_, told, _)) if told.address == end => {
                format!("past {child}, which has told that it sends it to {end}")
            }
            _ => format!("past {child} to {end} until now; about to return to {child}"),
        }
    }

    fn own_address(&self, trace: &mut Trace, tables: &ForwardTables) -> Result<(), &'static str> {
        let (source, destination) = (self.packet.source.ip(), self.packet.destination.ip());
        let ours = match destination {
            IpAddr::V4(ip) => tables.own.contains_v4(&ip.octets()),
            IpAddr::V6(ip) => tables.own.contains_v6(&ip.octets()),
        };
        if !ours {
            trace.step("own address", format!("{destination} is none of ours"));
            return Ok(());
        }
        let frame = self.packet.frame();
        let tunnel = matches!(parse(&frame, frame.len()), Ok(Frame::Ip(parsed)) if is_tunnel(&parsed, tables.gue_port));
        if !tunnel {
            trace.step("own address", format!("{destination} is ours and this is no tunnel: the slow path answers"));
            trace.outcome = "punted".into();
            return Err(PuntReason::OwnAddress.label());
        }
        if tables.parents.contain(source) {
            trace.step(
                "own address",
                format!("{destination} is ours and {source} a parent: trace what is in the tunnel"),
            );
            trace.outcome = "unpacked".into();
            return Err("tunnel");
        }
        trace.step("own address", format!("{destination} is ours and {source} no parent"));
        Err(Refusal::TunnelStranger.label())
    }

    /// Who gets the flow, and why.
    fn select(
        &self,
        trace: &mut Trace,
        router: &SlowPath,
        tables: &ForwardTables,
        host: &VirtualHost,
        configured: Option<&config::VirtualHost>,
    ) -> Result<TargetId, &'static str> {
        let conditions = router.conditions();
        // All routers of a cluster choose alike, whatever numbers their virtual hosts have.
        let chosen_by = self.keys.first().map(|key| coarse(host.granularity, *key, VirtualHostId(0)).unwrap_or(*key));
        let region = chosen_by.map_or(RegionId::NONE, |key| tables.regions.find(key.source()));
        let selection = tables.selection(host);
        if selection.by_region.is_some() {
            let name = usize::from(region.0).checked_sub(1).and_then(|at| router.config().client_regions.get(at));
            trace.step("client region", name.map_or("none", String::as_str));
        }
        let selector = selection.selector(region);
        let shares = selector.shares();
        let all: usize = shares.values().sum();
        for (position, member) in configured.iter().flat_map(|host| &host.members).enumerate() {
            let name = &router.config().children[member.child].name;
            let (weight, tier, cost) = (conditions.weight(name, member.weight).get(), member.tier, member.cost);
            let slots = shares.get(&position).copied().unwrap_or(0);
            let why = match () {
                () if conditions.is_down(&host.name, name) => "down, gets no new flows".into(),
                () if conditions.drained.contains(name) => "drained, gets no new flows".into(),
                () if weight == 0 => "weight 0, gets no new flows".into(),
                () if slots == 0 => "gets none while others of a lower tier or cost can take them".into(),
                () => format!("{slots} of {all} places"),
            };
            trace.step("candidate", format!("{name}: weight {weight}, tier {tier}, cost {cost}: {why}"));
        }
        let policy = configured.map_or(Policy::ConsistentHash, |host| host.policy);
        let hash = chosen_by.map(|key| match key {
            Key::V4(key) => tables.cluster.hash(key.as_bytes()),
            Key::V6(key) => tables.cluster.hash(key.as_bytes()),
        });
        let look = hash.and_then(|hash| selector.look(hash));
        let Some(look) = look else {
            trace.step("selection", format!("{}: no child takes new flows", rows::policy(policy)));
            return Err(Refusal::NoChild.label());
        };
        let member = &host.members[look.member];
        let kind = if policy == Policy::RoundRobin { "turn" } else { "hash slot" };
        let (place, places) = (look.place, look.places);
        let found = format!("{}: {kind} {place} of {places} is {}", rows::policy(policy), member.child);
        trace.step("selection", found);
        Ok(member.target)
    }

    /// Where a packet for no service goes.
    fn route(&self, trace: &mut Trace, router: &SlowPath, tables: &ForwardTables) -> Result<(), &'static str> {
        let (source, destination) = (self.packet.source.ip(), self.packet.destination.ip());
        let Some(routes) = &tables.routes else { return Err(Refusal::NoVirtualHost.label()) };
        if tables.index.covers(destination) {
            trace.step("forwarding", "on, but not for the address of a service");
            return Err(Refusal::NoVirtualHost.label());
        }
        let way = routes.ways.find(destination).filter(|_| may_pass(source, destination));
        let path = match way {
            Some(Way::Path(path)) => Some(path),
            Some(Way::Unresolved) => None,
            None if may_pass(source, destination) => {
                trace.step("forwarding", format!("on, but no port and no route leads to {destination}"));
                trace.outcome = "punted".into();
                return Err(PuntReason::NoRoute.label());
            }
            None | Some(Way::Nobody) => {
                trace.step("forwarding", "on, but not between these addresses");
                return Err(Refusal::NotRoutable.label());
            }
        };
        trace.step("forwarding", "on");
        self.next_hop(trace, router, destination);
        let path = self.known(trace, tables, path)?;
        let packet_max = path.template.packet_max();
        trace.step("link", format!("no tunnel: packets of up to {packet_max} bytes fit, TTL less 1"));
        self.send(trace, router.config(), path);
        Ok(())
    }

    /// The way to the child.
    fn path(
        &self,
        trace: &mut Trace,
        router: &SlowPath,
        tables: &ForwardTables,
        target: TargetId,
        address: IpAddr,
        child: &str,
    ) -> Result<(), &'static str> {
        self.next_hop(trace, router, address);
        let path = self.known(trace, tables, tables.targets.get(target.index()).and_then(|target| target.path()))?;
        let kind = tunnel_of(router.config(), child);
        let (overhead, packet_max) = (path.template.overhead(), path.template.packet_max());
        trace.step(
            "tunnel",
            format!("{kind} to {address}: {overhead} bytes of header, packets of up to {packet_max} bytes fit"),
        );
        self.send(trace, router.config(), path);
        Ok(())
    }

    fn next_hop(&self, trace: &mut Trace, router: &SlowPath, address: IpAddr) {
        let config = router.config();
        match config.attachment(address) {
            Some(attachment) => {
                let next_hop = attachment.next_hop;
                let state = router.neighbours().state(next_hop).map_or("unknown", |state| state.label());
                let link = router.neighbours().link(next_hop);
                let mac = link.map_or("its address is not known".into(), |link| format!("at {}", link.destination));
                let port = rows::port(config, attachment.port);
                trace.step("next hop", format!("{next_hop} by port {port}, {state}, {mac}"));
            }
            None => trace.step("next hop", format!("no port and no route leads to {address}")),
        }
    }

    fn known<'t>(
        &self,
        trace: &mut Trace,
        tables: &'t ForwardTables,
        path: Option<PathId>,
    ) -> Result<&'t Path, &'static str> {
        path.and_then(|path| tables.paths.get(path.index())).ok_or_else(|| {
            trace.step("path", "not known yet: the slow path keeps the packet a moment and asks for the next hop");
            trace.outcome = "punted".into();
            PuntReason::NoNeighbour.label()
        })
    }

    /// What leaves.
    fn send(&self, trace: &mut Trace, config: &Config, path: &Path) {
        let frame = self.packet.frame();
        if let Ok(Frame::Ip(parsed)) = parse(&frame, frame.len()) {
            let mut buffer = OwnedBuffer::new(&frame);
            let per = PerPacket { flow_hash: 0, ttl: TTL, identification: 0 };
            if path.template.encapsulate(&mut buffer, &parsed, per).is_ok() {
                let length = buffer.frame_len().saturating_sub(parsed.l3_len as usize);
                trace.header = Some(to_hex(&buffer.head()[..length]));
            }
        }
        trace.port = Some(rows::port(config, path.port));
        trace.outcome = "forwarded".into();
    }
}

impl Trace {
    fn step(&mut self, step: &str, found: impl Into<String>) {
        self.steps.push(Step { step: step.to_owned(), found: found.into() });
    }
}

fn virtual_host(tables: &ForwardTables, packet: Packet) -> Option<&VirtualHost> {
    let id = tables.index.find(packet.destination.ip(), packet.protocol, packet.ports().1)?;
    tables.virtual_hosts.get(id.index())
}

/// The coarser key of a flow, where its virtual host goes by those.
fn coarse(granularity: Granularity, key: Key, host: VirtualHostId) -> Option<Key> {
    match (granularity, key) {
        (Granularity::Source { v4, .. }, Key::V4(key)) => Some(Key::V4(key.coarse(host, v4))),
        (Granularity::Source { v6, .. }, Key::V6(key)) => Some(Key::V6(key.coarse(host, v6))),
        (Granularity::FiveTuple, _) => None,
    }
}

fn tunnel_of(config: &Config, child: &str) -> String {
    let child = config.children.iter().find(|configured| configured.name == child);
    child.map_or_else(String::new, |child| child.tunnel.to_string())
}

/// The prefix and filter by which a virtual host takes a packet: the longest prefix, then the narrowest filter.
fn why_this_host(host: Option<&config::VirtualHost>, packet: Packet, name: &str) -> String {
    let (destination, (_, port)) = (packet.destination.ip(), packet.ports());
    let takes = |filter: &&Filter| {
        filter.protocol.is_none_or(|protocol| protocol == packet.protocol) && filter.ports.contains(&port)
    };
    let rank = |filter: &&Filter| (filter.protocol.is_none(), filter.ports.end() - filter.ports.start());
    let prefixes = host.iter().flat_map(|host| &host.addresses).filter(|prefix| prefix.contains(&destination));
    let filters = host.iter().flat_map(|host| &host.services).filter(takes);
    match (prefixes.max_by_key(|prefix| prefix.prefix_len()), filters.min_by_key(rank)) {
        (Some(prefix), Some(filter)) => format!("{name}, which has {prefix} with {filter}"),
        _ => name.to_owned(),
    }
}
