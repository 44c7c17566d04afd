//! How what children say reaches the snapshot, and what this router says reaches its parents.

use std::collections::{BTreeMap, HashMap};
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
            let is_here =
                |child: &str| self.hierarchy.as_ref().is_some_and(|hierarchy| hierarchy.news(child).is_some());
            match child_at(&self.read, &name, &ends) {
                None => {
                    self.counters.registrations_refused.add(1);
                    told.push(format!("{name} is no child: it tells no tunnel end that can be reached"));
                }
                Some(child) if self.registered.get(&name) == Some(&child) => {}
                Some(child) => match make_place(&mut self.registered, REGISTERED_MAX, &name, is_here) {
                    Ok(left) => {
                        told.extend(
                            left.map(|left| format!("{left} is no child any more: it left, and others have come")),
                        );
                        told.push(format!("{name} is a child at {} now", child.address));
                        self.registered.insert(name, child);
                    }
                    Err(Full) => {
                        self.counters.registrations_refused.add(1);
                        told.push(format!("{name} is no child: there are {REGISTERED_MAX} that are not configured"));
                    }
                },
            }
        }
        if self.registered == before {
            return;
        }
        if let Err(error) = self.go_over(self.read.clone(), now) {
            told.push(format!("children stay as they are: {error}"));
            self.registered = before;
        }
        self.counters.registered.set(self.registered.len() as u64);
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

/// All who are children are here, and there are as many as there may be.
#[derive(Debug, PartialEq, Eq)]
struct Full;

/// Sees to it that `name` can be among those who are children by their hello, `max` at most. One who has left keeps its place,
/// as it may come back and has its flows until then, for as long as nobody else needs that place; returns who had to give it.
fn make_place(
    registered: &mut BTreeMap<String, Child>,
    max: usize,
    name: &str,
    is_here: impl Fn(&str) -> bool,
) -> Result<Option<String>, Full> {
    if registered.len() < max || registered.contains_key(name) {
        return Ok(None);
    }
    let left = registered.keys().find(|child| !is_here(child)).cloned().ok_or(Full)?;
    registered.remove(&left);
    Ok(Some(left))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_left_gives_way_and_nobody_else_does() {
        let text = "
router: { name: site1, level: 1, tunnel_addresses: [10.0.0.1] }
children: [{ name: a, address: 10.0.0.11 }, { name: b, address: 10.0.0.12 }]
virtual_hosts: [{ name: web, addresses: [192.0.2.80], children: all }]
";
        let config = Config::parse(text, "t.yaml").expect("a configuration");
        let mut registered: BTreeMap<_, _> = config.children.iter().map(|of| (of.name.clone(), of.clone())).collect();
        assert_eq!(make_place(&mut registered, 3, "c", |_| false), Ok(None));
        assert_eq!(make_place(&mut registered, 2, "a", |_| false), Ok(None));
        assert_eq!(make_place(&mut registered, 2, "c", |_| true), Err(Full));
        assert_eq!(registered.len(), 2);
        assert_eq!(make_place(&mut registered, 2, "c", |child| child == "a"), Ok(Some("b".into())));
        assert_eq!(registered.keys().collect::<Vec<_>>(), ["a"]);
    }
}
