//! How what children say reaches the snapshot, and what this router says reaches its parents.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::SlowPath;
use crate::clock::{Instant, WallClock};
use crate::control::hierarchy::{Hierarchy, Outcome};
use crate::control::session::Carrier;

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
        let Outcome { steered, told, orders } = hierarchy.pass(now, carrier, &self.config, &mut self.conditions);
        self.outdated.hosts.extend(steered);
        self.perform_orders(now, orders);
        self.give_orders();
        told
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
