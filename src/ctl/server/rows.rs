//! What there is to tell about ports, services, children and neighbours.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::clock::{Instant, WallClock};
use crate::config::Config;
use crate::control::compile::candidates;
use crate::control::conditions::Steer;
use crate::control::hierarchy::Hierarchy;
use crate::control::hierarchy::view::{ChildView, ParentView};
use crate::control::session::report::Serves;
use crate::control::slow_path::SlowPath;
use crate::control::wire::State;
use crate::ctl::request::protocol_name;
use crate::ctl::response::{
    ChildRow, MemberRow, NeighbourRow, Pair, PairHeard, PairMirror, ParentRow, PortRow, Recovery, RecoveryEvent,
    RegionRow, ServiceRow, Snapshot, Status, Tells, TellsOf,
};
use crate::ha::election::{Heard, Other, Path};
use crate::metrics::collector::ForwardCollector;
use crate::metrics::report::{Report, Traffic};
use crate::recovery::FlowId;
use crate::recovery::events::Event;
use crate::service::selection::{Candidate, Granularity, Policy};
use crate::service::selections::Selection;
use crate::units::{PortIndex, RegionId, Weight};

use super::{Facts, Now};

pub fn status(facts: &Facts, collector: &ForwardCollector, router: &SlowPath, now: Now) -> Status {
    let Now { instant: now, wall } = now;
    let until = |end: WallClock| seconds_until(wall, end);
    let (config, publication) = (router.config(), router.publication());
    let uptime_seconds = (now - facts.started).as_secs_f64();
    Status {
        name: config.router.name.clone(),
        level: config.router.level,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds,
        configuration: facts.configuration.clone(),
        virtual_hosts: config.virtual_hosts.len(),
        children: config.children.len(),
        drained: router.conditions().drained.iter().cloned().collect(),
        certificate_seconds: config.sessions.credentials.as_ref().map(|of| until(of.identity.not_after)),
        snapshot: Snapshot { number: publication.number, age_seconds: (now - publication.at).as_secs_f64() },
        counters: collector.report(uptime_seconds),
    }
}

pub fn ports(facts: &Facts, collector: &ForwardCollector, router: &SlowPath) -> Vec<PortRow> {
    let ports = router.config().ports.iter().zip(&facts.ports).zip(collector.ports());
    let row = |((port, facts), (_, statistics)): ((&crate::config::Port, &super::PortFacts), (_, _))| PortRow {
        name: port.name.clone(),
        device: port.device.clone(),
        driver: facts.driver.clone(),
        mac: facts.mac.clone(),
        mtu: port.mtu,
        vlan: port.vlan,
        addresses: port.addresses.iter().map(ToString::to_string).collect(),
        statistics,
    };
    ports.map(row).collect()
}

pub fn services(report: &Report, router: &SlowPath) -> Vec<ServiceRow> {
    let (config, tables, conditions) = (router.config(), router.tables(), router.conditions());
    let hosts = config.virtual_hosts.iter().zip(tables.virtual_hosts.iter()).zip(&report.virtual_hosts);
    let row = |(at, ((host, compiled), counted)): (
        usize,
        ((&crate::config::VirtualHost, &crate::forward::tables::VirtualHost), _),
    )| {
        let counted: &crate::metrics::report::VirtualHostReport = counted;
        let shares = tables.selection(compiled).selector.shares();
        let all: usize = shares.values().sum();
        let members = host.members.iter().zip(&counted.children).enumerate();
        let members = members.map(|(position, (member, counted))| {
            let name = &config.children[member.child].name;
            let Traffic { packets, bytes, flows } = counted.traffic;
            let (cost, weight) = match conditions.steering.of(at, position) {
                Steer::Takes { cost, weight } => (cost.unwrap_or(member.cost), weight.unwrap_or(member.weight)),
                Steer::AsConfigured => (member.cost, member.weight),
                Steer::TakesNone | Steer::Down => (member.cost, Weight::DRAIN),
            };
            MemberRow {
                name: name.clone(),
                weight: conditions.weight(name, weight).get(),
                tier: member.tier,
                // JSON has no infinity.
                cost: cost.min(f64::MAX),
                share: shares.get(&position).copied().unwrap_or(0) as f64 / all.max(1) as f64,
                flows,
                packets,
                bytes,
                up: conditions.steering.of(at, position) != Steer::Down && !conditions.is_down(&host.name, name),
            }
        });
        ServiceRow {
            name: host.name.clone(),
            addresses: host.addresses.iter().map(ToString::to_string).collect(),
            services: host.services.iter().map(ToString::to_string).collect(),
            flow: granularity(host.flow),
            selection: if host.shares { "shares" } else { policy(host.policy) }.to_owned(),
            children: members.collect(),
            regions: regions(router, at, tables.selection(compiled)),
        }
    };
    hosts.enumerate().map(row).collect()
}

/// The regions of a virtual host, by its position, that asks where clients are.
fn regions(router: &SlowPath, position: usize, selection: &Selection) -> Vec<RegionRow> {
    let (config, conditions) = (router.config(), router.conditions());
    let host = &config.virtual_hosts[position];
    let count = config.kinds_of_clients(host) - 1;
    let row = |(name, region): (&String, u8)| {
        let region = RegionId(region);
        let shares = selection.selector(region).shares();
        let all: usize = shares.values().sum();
        let child = |(place, candidate): (usize, Candidate<'_>)| {
            let share = shares.get(&place).copied().unwrap_or(0) as f64 / all.max(1) as f64;
            (candidate.name.to_owned(), candidate.cost.min(f64::MAX), share)
        };
        let candidates = candidates(config, (position, host), region, conditions);
        RegionRow { name: name.clone(), children: candidates.into_iter().enumerate().map(child).collect() }
    };
    config.client_regions.iter().take(count).zip(1..).map(row).collect()
}

pub fn granularity(flow: Granularity) -> String {
    match flow {
        Granularity::FiveTuple => "5-tuple".into(),
        Granularity::Source { v4, v6 } => format!("source /{v4} /{v6}"),
    }
}

pub fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::ConsistentHash => "consistent_hash",
        Policy::LeastCost => "least_cost",
        Policy::RoundRobin => "round_robin",
    }
}

pub fn children(report: &Report, router: &SlowPath, now: Now) -> Vec<ChildRow> {
    let view = router.hierarchy().map(|hierarchy| hierarchy.view(now.instant, router.config()));
    let views: HashMap<&str, &ChildView> =
        view.iter().flat_map(|view| &view.children).map(|child| (child.name.as_str(), child)).collect();
    let names = view.as_ref().map_or(&[][..], |view| &view.hosts);
    let (config, conditions) = (router.config(), router.conditions());
    let mut traffic: HashMap<&str, Traffic> = HashMap::new();
    for child in report.virtual_hosts.iter().flat_map(|host| &host.children) {
        let sum = traffic.entry(&child.name).or_default();
        sum.packets += child.traffic.packets;
        sum.bytes += child.traffic.bytes;
        sum.flows += child.traffic.flows;
    }
    let row = |child: &crate::config::Child| {
        let attachment = config.attachment(child.address);
        let state = attachment.and_then(|attachment| router.neighbours().state(attachment.next_hop));
        let Traffic { packets, bytes, flows } = traffic.get(child.name.as_str()).copied().unwrap_or_default();
        let mut down: Vec<String> = conditions.down.hosts(&child.name).map(str::to_owned).collect();
        down.sort_unstable();
        ChildRow {
            name: child.name.clone(),
            address: child.address,
            tunnel: child.tunnel.to_string(),
            port: attachment.map(|attachment| port(config, attachment.port)),
            next_hop: attachment.map(|attachment| attachment.next_hop),
            neighbour: state.map_or("unknown", |state| state.label()).to_owned(),
            mtu: attachment.and_then(|attachment| config.ports.get(attachment.port.index())).map(|port| port.mtu),
            weight: conditions.weights.get(&child.name).map(|weight| weight.get()),
            drained: conditions.drained.contains(&child.name),
            down,
            flows,
            packets,
            bytes,
            tells: views.get(child.name.as_str()).map(|view| tells(names, view, now.wall)),
        }
    };
    config.children.iter().map(row).collect()
}

fn seconds_until(wall: SystemTime, WallClock(end): WallClock) -> f64 {
    let now = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    end as f64 / 1000.0 - now.as_secs_f64()
}

fn tells(names: &[Arc<str>], view: &ChildView, wall: SystemTime) -> Tells {
    let said = view.said.as_ref();
    let of = |(host, serves): &(u32, Option<Serves>)| TellsOf {
        name: names.get(*host as usize).map(ToString::to_string).unwrap_or_default(),
        state: match serves.map(|serves| serves.state) {
            Some(State::Serving) => "serving",
            Some(State::Draining) => "draining",
            Some(State::Down) => "down",
            None => "not covered",
        }
        .to_owned(),
        load: serves.map(|serves| serves.load.ratio()),
        capacity: serves.map(|serves| serves.capacity),
    };
    let state = match (view.connected, said) {
        (true, _) => "connected",
        (false, Some(_)) => "lost",
        (false, None) => "silent",
    };
    Tells {
        state: state.to_owned(),
        age_seconds: said.map(|said| said.age.as_secs_f64()),
        round_trip_seconds: said.and_then(|said| said.round_trip).map(|time| time.as_secs_f64()),
        draining: said.is_some_and(|said| said.draining),
        records: said.map_or(0, |said| said.records.0),
        records_refused: said.map_or(0, |said| said.records.1),
        certificate_seconds: said.map(|said| seconds_until(wall, said.not_after)),
        hosts: said.map(|said| said.hosts.iter().map(of).collect()).unwrap_or_default(),
    }
}

pub fn parents(router: &SlowPath) -> Vec<ParentRow> {
    let parents = router.hierarchy().into_iter().flat_map(Hierarchy::parents);
    parents.map(|(end, address)| (&ParentView::of(end, address)).into()).collect()
}

pub fn recovery(router: &SlowPath, now: Instant) -> Recovery {
    let counters = router.recovery_counters();
    let count = |event: &Event| (event.label().to_owned(), counters.of(*event).get());
    let event = |(then, event, flow): &(Instant, Event, FlowId)| RecoveryEvent {
        age_seconds: (now - *then).as_secs_f64(),
        event: event.label().to_owned(),
        source: flow.source,
        destination: flow.destination,
        protocol: protocol_name(flow.protocol),
    };
    let last = router.recovery_events().iter().map(event).collect();
    Recovery { counts: Event::ALL.iter().map(count).collect(), last }
}

/// What there is to say about a router that is none of a pair.
pub const NO_PAIR: &str = "this router is none of a pair; add pair: to its configuration and restart it";

pub fn pair(router: &SlowPath, now: Instant) -> Result<Pair, String> {
    let (pairing, configured) = router.pair().zip(router.config().pair.as_ref()).ok_or_else(|| NO_PAIR.to_owned())?;
    let election = pairing.election();
    let (role, since) = election.role();
    let heard = |path: &Path| {
        let Other { heard, at } = election.other(*path)?;
        let age_seconds = (now - at).as_secs_f64();
        let Heard { from, active, priority, .. } = heard;
        Some(PairHeard { path: path.label().to_owned(), age_seconds, from, active, priority })
    };
    Ok(Pair {
        role: role.label().to_owned(),
        seconds: (now - since).as_secs_f64(),
        priority: election.priority(),
        configured_priority: configured.priority,
        stands_by: election.stands_by(),
        missing: pairing.missing().to_vec(),
        addresses: pairing.addresses().into_iter().map(|(address, mac)| (address, mac.to_string())).collect(),
        heard: Path::ALL.iter().filter_map(heard).collect(),
        mirror: pairing.mirrored().map(|counters| PairMirror {
            synchronised: election.synchronised(),
            flows: counters.flows.get(),
            pending: counters.pending.get(),
            lag_seconds: counters.lag.get() as f64 / 1e9,
        }),
    })
}

pub fn port(config: &Config, port: PortIndex) -> String {
    config.ports.get(port.index()).map_or_else(|| port.to_string(), |port| port.name.clone())
}

pub fn neighbours(router: &SlowPath) -> Vec<NeighbourRow> {
    let row =
        |(address, index, state, mac): (_, _, crate::control::neighbours::State, Option<crate::units::MacAddr>)| {
            NeighbourRow {
                address,
                port: port(router.config(), index),
                state: state.label().to_owned(),
                mac: mac.map(|mac| mac.to_string()),
            }
        };
    router.neighbours().all().map(row).collect()
}
