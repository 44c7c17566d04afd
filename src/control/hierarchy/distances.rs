//! How far children are, as far as their own words do not say that: by their checks, and by the machine's routes.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Hierarchy;
use crate::config::Config;

/// How much a new round-trip time counts beside those before it: one that is late once changes little.
const NEW: f64 = 0.125;

/// By the children's names.
#[derive(Debug, Default)]
pub(super) struct Distances {
    round_trips: HashMap<String, Duration>,
    metrics: HashMap<String, f64>,
}

impl Distances {
    /// Forgets the children that are not there any more.
    pub fn keep(&mut self, config: &Config) {
        let names: HashSet<&str> = config.children.iter().map(|child| child.name.as_str()).collect();
        self.round_trips.retain(|child, _| names.contains(child.as_str()));
    }

    /// The time to a child and back by its checks, smoothed.
    pub fn round_trip(&self, child: &str) -> Option<Duration> {
        self.round_trips.get(child).copied()
    }

    /// The metric of the route to a child; infinite where there is no route, 0 while that is not known.
    pub fn metric(&self, child: &str) -> f64 {
        self.metrics.get(child).copied().unwrap_or(0.0)
    }
}

impl Hierarchy {
    /// A check has taken one round trip to a child.
    pub fn measured(&mut self, child: String, time: Duration) {
        let known = self.distances.round_trips.entry(child).or_insert(time);
        *known = known.mul_f64(1.0 - NEW) + time.mul_f64(NEW);
    }

    /// The metrics of the routes to children, by their names, where these count; infinite: there is no route.
    pub fn set_metrics(&mut self, metrics: HashMap<String, f64>) {
        self.distances.metrics = metrics;
    }
}
