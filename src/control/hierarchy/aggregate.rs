//! What this router says upward about each of its virtual hosts: what its children say, taken together.

use std::net::IpAddr;

use super::Hierarchy;
use crate::config::{Config, Router};
use crate::control::compile::candidates;
use crate::control::conditions::Conditions;
use crate::control::wire::{Load, Record, State, TunnelEnd};
use crate::units::Weight;

/// Where tunnels to us end, of every kind that we take.
pub(super) fn tunnel_ends(router: &Router) -> Vec<TunnelEnd> {
    let ends = [router.tunnel_v4.map(IpAddr::from), router.tunnel_v6.map(IpAddr::from)];
    let kinds = |address| [(1, 0), (2, router.gue_port), (3, 0)].map(|(kind, port)| TunnelEnd { kind, port, address });
    ends.into_iter().flatten().flat_map(kinds).collect()
}

/// One record for each address and service of each virtual host. Where a virtual host has children that can take flows, it
/// serves with the capacity of those of the first tier that can, and their mean load; a child that says nothing counts
/// with its weight, and as idle.
pub(super) fn records(hierarchy: &Hierarchy, config: &Config, conditions: &Conditions) -> Vec<Record> {
    let mut records = Vec::new();
    for (position, host) in config.virtual_hosts.iter().enumerate() {
        let candidates = candidates(config, (position, host), conditions);
        let up = || candidates.iter().zip(&host.members).filter(|(candidate, _)| candidate.available);
        let able = || up().filter(|(candidate, _)| candidate.weight != Weight::DRAIN);
        let tier = able().map(|(candidate, _)| candidate.tier).min();
        let (mut capacity, mut busy) = (0_u64, 0_u64);
        for (_, member) in able().filter(|(candidate, _)| Some(candidate.tier) == tier) {
            let news = hierarchy.news(&config.children[member.child].name);
            let serves = news.and_then(|news| news.report.of(&host.addresses, &host.services));
            let (its_capacity, load) = serves
                .map_or((u32::from(member.weight.get()), Load::default()), |serves| (serves.capacity, serves.load));
            capacity += u64::from(its_capacity);
            busy = busy.saturating_add(u64::from(its_capacity) * u64::from(load.0));
        }
        let state = match (tier, up().next()) {
            (Some(_), _) => State::Serving,
            (None, Some(_)) => State::Draining,
            (None, None) => State::Down,
        };
        let load = Load(u32::try_from(busy.checked_div(capacity).unwrap_or(0)).unwrap_or(u32::MAX));
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX);
        for prefix in &host.addresses {
            records.extend(host.services.iter().map(|service| {
                let service = service.clone();
                Record { prefix: *prefix, service, state, load, capacity }
            }));
        }
    }
    records
}
