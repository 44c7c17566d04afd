//! How what children say reaches the snapshot, and what this router says reaches its parents.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::SlowPath;
use crate::clock::{Instant, WallClock};
use crate::config::{Child, Config, Register};
use crate::control::hierarchy::{Hierarchy, Outcome, REGISTERED_MAX};
use crate::control::session::Carrier;
use crate::control::wire::TunnelEnd;

impl SlowPath {
    /// The same, with sessions. The snapshot that is published has been compiled with what this says about children.
    pub fn speaking(mut self, now: Instant, mut hierarchy: Hierarchy) -> SlowPath {
        self.conditions.steering = hierarchy.steering(now, &self.config);
        self.hierarchy = Some(hierarchy);
        self
    }

    /// The sessions, where there are any.
    pub fn hierarchy(&self) -> Option<&Hierarchy> {
        self.hierarchy.as_ref()
    }

    /// Lets the sessions go on over `carrier`, and returns what is to be told in the log.
    pub fn converse<C: Carrier<Address = SocketAddr>>(&mut self, now: Instant, carrier: &mut C) -> Vec<String> {
        let Some(hierarchy) = &mut self.hierarchy else { return Vec::new() };
        let outcome = hierarchy.pass(now, carrier, &self.config, &mut self.conditions);
        let Outcome { steered, registered, mut told, orders } = outcome;
        self.outdated.hosts.extend(steered);
        self.perform_orders(now, orders);
        self.give_orders();
        if !registered.is_empty() {
            self.register(now, registered, &mut told);
        }
        told
    }

    /// Makes children of those who say hello without being configured, all of a pass at once.
    fn register(&mut self, now: Instant, registered: Vec<(String, Vec<TunnelEnd>)>, told: &mut Vec<String>) {
        let before = self.registered.clone();
        let is_listed = |name: &String| self.read.children.iter().any(|child| child.name == *name);
        for (name, ends) in registered.into_iter().filter(|(name, _)| !is_listed(name)) {
            let full = self.registered.len() >= REGISTERED_MAX && !self.registered.contains_key(&name);
            match child_at(&self.read, &name, &ends) {
                _ if full => {
                    told.push(format!("{name} is no child: there are {REGISTERED_MAX} that are not configured"))
                }
                None => told.push(format!("{name} is no child: it tells no tunnel end that can be reached")),
                Some(child) if self.registered.get(&name) == Some(&child) => {}
                Some(child) => {
                    told.push(format!("{name} is a child at {} now", child.address));
                    self.registered.insert(name, child);
                }
            }
        }
        if self.registered == before {
            return;
        }
        if let Err(error) = self.go_over(self.read.clone(), now) {
            told.push(format!("children stay as they are: {error}"));
            self.registered = before;
        }
    }

    /// The metrics of the machine's routes to children, by their names; infinite: there is no route.
    pub fn set_metrics(&mut self, metrics: HashMap<String, f64>) {
        if let Some(hierarchy) = &mut self.hierarchy {
            hierarchy.set_metrics(metrics);
        }
    }

    /// The calendar is corrected: it is `wall` now.
    pub fn set_wall(&mut self, now: Instant, wall: WallClock) {
        self.recovering.set_wall(now, wall);
        if let Some(hierarchy) = &mut self.hierarchy {
            hierarchy.set_wall(now, wall);
        }
    }

    /// Says goodbye to the parents.
    pub fn leave<C: Carrier<Address = SocketAddr>>(&mut self, now: Instant, carrier: &mut C) {
        if let Some(hierarchy) = &mut self.hierarchy {
            hierarchy.leave(now, carrier);
        }
    }
}

/// A child that nobody has configured, at the first of its tunnel ends that can be reached.
fn child_at(config: &Config, name: &str, ends: &[TunnelEnd]) -> Option<Child> {
    let router = &config.router;
    let reached = |end: &&TunnelEnd| {
        let begins = if end.address.is_ipv4() { router.tunnel_v4.is_some() } else { router.tunnel_v6.is_some() };
        // Nothing goes up, or round.
        let is_below = !config.owns(end.address) && !router.parents.iter().any(|net| net.contains(&end.address));
        begins && is_below && config.attachment(end.address).is_some()
    };
    let (tunnel, end) = ends.iter().filter(reached).find_map(|end| Some((end.tunnel()?, end)))?;
    Some(Child {
        name: name.to_owned(),
        address: end.address,
        tunnel,
        register: Register::Required,
        route_cost: config.router.route_cost,
        labels: Vec::new(),
    })
}
