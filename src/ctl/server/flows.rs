//! Lists of flows: walks over all workers' tables, and what of them was asked for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Instant;
use crate::control::slow_path::SlowPath;
use crate::ctl::request::{FLOWS_DEFAULT, FlowFilter, protocol_name};
use crate::ctl::response::{FlowRow, FlowsEnd};
use crate::ctl::socket::Outbox;
use crate::flow::key::{COARSE, KeyV4, KeyV6};
use crate::forward::inspect::{Desk, Flow, Key, Walked};
use crate::service::selection::Granularity;
use crate::units::TargetId;

/// Flows of one worker that are looked at in a pass.
const FLOWS_PER_PASS: usize = 4096;

/// How long nobody reads until the list is ended: others wait for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose a target is.
struct Owner {
    virtual_host: String,
    child: String,
    /// Where its tunnel ends, past the child.
    shortcut: Option<IpAddr>,
    flow: Granularity,
}

/// A list under way.
pub struct Walk {
    filter: FlowFilter,
    owners: HashMap<TargetId, Owner>,
    listed: u32,
    /// Workers that have come to their end.
    ended: Vec<bool>,
    /// When somebody last read.
    read: Option<Instant>,
    to: Option<Outbox>,
}

impl Walk {
    /// The list of the flows that `filter` lets through.
    ///
    /// # Errors
    /// It names a virtual host or child that there is not.
    pub fn new(filter: FlowFilter, router: &SlowPath) -> Result<Walk, String> {
        let (config, tables) = (router.config(), router.tables());
        if let Some(host) = filter.host.as_ref().filter(|name| !config.virtual_hosts.iter().any(|h| h.name == **name)) {
            return Err(format!("no virtual host \"{host}\"; slrctl services lists them"));
        }
        if let Some(child) = filter.child.as_ref().filter(|name| !config.children.iter().any(|c| c.name == **name)) {
            return Err(format!("no child \"{child}\"; slrctl children lists them"));
        }
        let mut owners = HashMap::new();
        for host in tables.virtual_hosts.iter() {
            for member in &host.members {
                let (virtual_host, child) = (host.name.to_string(), member.child.to_string());
                let owner = Owner { virtual_host, child, shortcut: None, flow: host.granularity };
                owners.insert(member.target, owner);
            }
        }
        for shortcut in tables.shortcuts.iter() {
            let end = shortcut.in_force.then_some(shortcut.address);
            let host = &tables.virtual_hosts[shortcut.host.index()];
            let (virtual_host, child) = (host.name.to_string(), host.members[shortcut.member].child.to_string());
            let owner = Owner { virtual_host, child, shortcut: end, flow: host.granularity };
            owners.insert(shortcut.target, owner);
        }
        Ok(Walk { filter, owners, listed: 0, ended: Vec::new(), read: None, to: None })
    }

    /// The same, for `to`.
    pub fn into(self, to: Outbox) -> Walk {
        Walk { to: Some(to), ..self }
    }

    /// Takes what the workers have come upon since. True when this is the end.
    pub fn pass(&mut self, desks: &mut [Desk], now: Instant) -> bool {
        let Some(to) = &self.to else { return true };
        let read = *self.read.get_or_insert(now);
        if to.room() > 0 {
            self.read = Some(now);
        }
        if to.is_ended() || now - read > PATIENCE {
            self.finish(Err("nobody reads the list of flows".into()));
            return true;
        }
        self.ended.resize(desks.len(), false);
        let limit = self.filter.limit.unwrap_or(FLOWS_DEFAULT);
        for (worker, desk) in desks.iter_mut().enumerate() {
            for _ in 0..FLOWS_PER_PASS {
                if to.room() == 0 {
                    return false;
                }
                match desk.walked() {
                    Some(Walked::Flow(flow)) => {
                        let Some(row) = row(worker, &flow, &self.filter, &self.owners) else { continue };
                        if self.listed == limit {
                            self.finish(Ok(FlowsEnd { listed: limit, more: true }));
                            return true;
                        }
                        to.item(&row);
                        self.listed += 1;
                    }
                    Some(Walked::End) => self.ended[worker] = true,
                    None => break,
                }
            }
        }
        let ended = self.ended.iter().all(|ended| *ended);
        if ended {
            self.finish(Ok(FlowsEnd { listed: self.listed, more: false }));
        }
        ended
    }

    fn finish(&mut self, end: Result<FlowsEnd, String>) {
        if let Some(to) = self.to.take() {
            to.finish(end);
        }
    }
}

/// The row of a flow that the filter lets through.
fn row(worker: usize, flow: &Flow, filter: &FlowFilter, owners: &HashMap<TargetId, Owner>) -> Option<FlowRow> {
    let owner = owners.get(&flow.target);
    let (source, destination, ports, number): (IpAddr, IpAddr, _, _) = match flow.key {
        Key::V4(KeyV4 { source, destination, ports, protocol }) => (source.into(), destination.into(), ports, protocol),
        Key::V6(KeyV6 { source, destination, ports, protocol }) => (source.into(), destination.into(), ports, protocol),
    };
    let [a, b, c, d] = ports;
    let (source_port, destination_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let coarse = number == COARSE;
    let named = |wanted: &Option<String>, is: Option<&String>| wanted.is_none() || wanted.as_ref() == is;
    let wanted = filter.vip.is_none_or(|net| !coarse && net.contains(&destination))
        && filter.src.is_none_or(|net| net.contains(&source))
        && filter.port.is_none_or(|port| !coarse && port == destination_port)
        && filter.proto.is_none_or(|protocol| !coarse && protocol == number)
        && filter.state.as_ref().is_none_or(|state| state == flow.state.label())
        && named(&filter.host, owner.map(|owner| &owner.virtual_host))
        && named(&filter.child, owner.map(|owner| &owner.child));
    if !wanted {
        return None;
    }
    let prefix = match owner.map(|owner| owner.flow) {
        Some(Granularity::Source { v4, v6 }) if coarse => Some(if source.is_ipv4() { v4 } else { v6 }),
        _ => None,
    };
    let has_ports = !coarse && ports != [0; 4];
    Some(FlowRow {
        protocol: (!coarse).then(|| protocol_name(number)),
        source: prefix.map_or_else(|| source.to_string(), |prefix| format!("{source}/{prefix}")),
        source_port: has_ports.then_some(source_port),
        destination: (!coarse).then_some(destination),
        destination_port: has_ports.then_some(destination_port),
        virtual_host: owner.map(|owner| owner.virtual_host.clone()),
        child: owner.map(|owner| owner.child.clone()),
        shortcut: owner.and_then(|owner| owner.shortcut),
        state: flow.state.label().to_owned(),
        packets: flow.packets,
        bytes: flow.bytes,
        age_seconds: flow.age.as_secs_f64(),
        idle_seconds: flow.idle.as_secs_f64(),
        worker,
    })
}
