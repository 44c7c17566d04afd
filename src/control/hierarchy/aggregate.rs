//! What this router says upward about each of its virtual hosts: what its children say, taken together.

use std::net::IpAddr;

use super::Hierarchy;
use crate::config::{Config, Router};
use crate::control::compile::candidates;
use crate::control::conditions::Conditions;
use crate::control::wire::{Load, Record, State, TunnelEnd};
use crate::cost::Child;
use crate::units::{RegionId, Weight};

/// Where tunnels to us end, of every kind that we take.
pub(super) fn tunnel_ends(router: &Router) -> Vec<TunnelEnd> {
    let ends = [router.tunnel_v4.map(IpAddr::from), router.tunnel_v6.map(IpAddr::from)];
    let kinds = |address| [(1, 0), (2, router.gue_port), (3, 0)].map(|(kind, port)| TunnelEnd { kind, port, address });
    ends.into_iter().flatten().flat_map(kinds).collect()
}

/// One record for each address and service of each virtual host. Where a virtual host has children that can take flows, it
/// serves with the capacity of those of the first tier that can, and their mean load; a child that says nothing counts
/// with its weight, and as idle. Where the virtual host has a function for it, that gives the load.
pub(super) fn records(hierarchy: &Hierarchy, config: &Config, conditions: &Conditions) -> Vec<Record> {
    let here = hierarchy.here.0;
    let mut records = Vec::new();
    for (position, host) in config.virtual_hosts.iter().enumerate() {
        let candidates = candidates(config, (position, host), RegionId::NONE, conditions);
        let up = || candidates.iter().enumerate().filter(|(_, candidate)| candidate.available);
        let able = || up().filter(|(_, candidate)| candidate.weight != Weight::DRAIN);
        let tier = able().map(|(_, candidate)| candidate.tier).min();
        let serving = able().filter(|(_, candidate)| Some(candidate.tier) == tier);
        let children: Vec<Child<'_>> = serving.map(|(place, _)| hierarchy.facts(config, position, place)).collect();
        let capacity: f64 = children.iter().map(|child| child.capacity).sum();
        let busy: f64 = children.iter().map(|child| child.capacity * child.load).sum();
        let mean = if capacity > 0.0 { busy / capacity } else { 0.0 };
        let state = match (tier, up().next()) {
            (Some(_), _) => State::Serving,
            (None, Some(_)) => State::Draining,
            (None, None) => State::Down,
        };
        let load = match &host.aggregate_function {
            Some(function) if !children.is_empty() => function.upward(&children, here).unwrap_or(f64::INFINITY),
            _ => mean,
        };
        let (load, capacity) = (Load::from_ratio(load), capacity as u32);
        for prefix in &host.addresses {
            records.extend(host.services.iter().map(|service| {
                let service = service.clone();
                Record { prefix: *prefix, service, state, load, capacity }
            }));
        }
    }
    records
}
