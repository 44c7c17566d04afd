//! What is simulated, as the operator writes it.

use std::time::Duration;

use serde::Deserialize;

use crate::cost::{Expression, Kind};

/// Servers at most: flows and machines must fit into memory.
const SERVERS_MAX: u32 = 200_000;

/// The topmost router.
pub(super) const NETWORK: &str = "network";

/// How routers give out new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// By configured weights.
    ConsistentHash,
    /// All to the cheapest.
    LeastCost,
    /// In shares that follow costs.
    Shares,
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When, in seconds.
    pub at: f64,
    /// A node that does nothing from then on: `site1-2` (the second of system 1), `server1-2-3`.
    pub kill: Option<String>,
    /// A node that goes on.
    pub revive: Option<String>,
    /// A node whose sessions do not get through.
    pub cut: Option<String>,
    /// A node whose sessions get through again.
    pub mend: Option<String>,
    /// A server, or a router with all servers below it, whose service does not work from then on; their sessions go on.
    pub fail: Option<String>,
    /// Those whose service works again.
    pub recover: Option<String>,
}

/// One network's router, systems, their sites, their servers, and flows.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topology {
    /// Autonomous systems.
    pub systems: u32,
    /// Sites of each.
    pub sites: u32,
    /// Servers of each site.
    pub servers: u32,
    /// Flows that each server can serve at a time.
    pub capacity: u32,
    /// From one update to the next, in seconds.
    pub interval: f64,
    /// Slots of a table for each child, about. With few of them the tables of two levels, which look at the same hash, fall
    /// together unevenly.
    pub slots: u32,
    /// How new flows are given out, at every level.
    pub selection: Selection,
    /// What a child costs; see [`crate::cost`].
    pub cost_function: String,
    /// Flows at a time, as a part of all capacities.
    pub load: f64,
    /// How long flows last on average, in seconds; their lengths are spread widely (Pareto, shape 1.5).
    pub flow_seconds: f64,
    /// How long it goes on, in seconds.
    pub seconds: f64,
    /// Longest delay of a message, in milliseconds; the shortest is a tenth of it.
    pub delay_ms: f64,
    /// Part of the messages that is lost.
    pub loss: f64,
    /// Whether flows go past routers, and their packets are followed: for small topologies.
    pub shortcuts: bool,
    /// What happens.
    pub events: Vec<Event>,
}

impl Default for Topology {
    fn default() -> Topology {
        Topology {
            systems: 2,
            sites: 3,
            servers: 4,
            capacity: 100,
            interval: 1.0,
            slots: 1000,
            selection: Selection::Shares,
            cost_function: "load".into(),
            load: 0.8,
            flow_seconds: 10.0,
            seconds: 60.0,
            delay_ms: 10.0,
            loss: 0.0,
            shortcuts: false,
            events: Vec::new(),
        }
    }
}

/// Why a topology is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// Not YAML, or another key.
    #[error("{0}")]
    Text(String),
    /// A value.
    #[error("{key} {what}")]
    Value {
        /// Its key.
        key: &'static str,
        /// What is wrong, and what is right.
        what: String,
    },
}

impl Topology {
    /// Reads a topology.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Topology, TopologyError> {
        let options = serde_saphyr::options! { with_snippet: false, };
        let topology: Topology = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| TopologyError::Text(error.to_string().replace('\n', " ")))?;
        topology.check()?;
        Ok(topology)
    }

    fn check(&self) -> Result<(), TopologyError> {
        let wrong = |key, what: String| Err(TopologyError::Value { key, what });
        let counts = [("systems", self.systems), ("sites", self.sites), ("servers", self.servers)];
        if let Some((key, count)) = counts.into_iter().find(|(_, count)| !(1..=10_000).contains(count)) {
            return wrong(key, format!("{count} is out of range; write one from 1 to 10000"));
        }
        if u64::from(self.systems) * u64::from(self.sites) * u64::from(self.servers) > u64::from(SERVERS_MAX) {
            return wrong("servers", format!("are more than {SERVERS_MAX} in all; write fewer"));
        }
        if !(10..=10_000).contains(&self.slots) {
            return wrong("slots", format!("{} is out of range; write one from 10 to 10000", self.slots));
        }
        if self.capacity == 0 {
            return wrong("capacity", "0 lets no server serve; write at least 1".into());
        }
        let ranges = [
            ("interval", self.interval, 0.1, 60.0),
            ("load", self.load, 0.0, 10.0),
            ("flow_seconds", self.flow_seconds, 0.1, 86_400.0),
            ("seconds", self.seconds, 1.0, 86_400.0),
            ("delay_ms", self.delay_ms, 1.0, 10_000.0),
            ("loss", self.loss, 0.0, 0.9),
        ];
        // What is not a number is in no range.
        let outside = |value: f64, least, most| !(least..=most).contains(&value);
        if let Some((key, value, least, most)) =
            ranges.into_iter().find(|(_, v, least, most)| outside(*v, *least, *most))
        {
            return wrong(key, format!("{value} is out of range; write one from {least} to {most}"));
        }
        if let Err(error) = Expression::new(&self.cost_function, Kind::Child) {
            return wrong("cost_function", error.to_string());
        }
        for event in &self.events {
            let named = [&event.kill, &event.revive, &event.cut, &event.mend].into_iter().flatten();
            let failing = [&event.fail, &event.recover].into_iter().flatten().filter(|name| *name != NETWORK);
            for name in named.chain(failing) {
                if !self.names().any(|known| known == *name) {
                    return wrong("events", format!("name \"{name}\", which is not there; write one like site1-2"));
                }
            }
            if !event.at.is_finite() || event.at < 0.0 {
                return wrong("events", format!("happen at {}; write seconds from 0 on", event.at));
            }
        }
        Ok(())
    }

    /// Names of all nodes below the network's router, parents before children.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let (sites, servers) = (self.sites, self.servers);
        (1..=self.systems).flat_map(move |system| {
            let below = (1..=sites).flat_map(move |site| {
                let servers = (1..=servers).map(move |server| format!("server{system}-{site}-{server}"));
                std::iter::once(format!("site{system}-{site}")).chain(servers)
            });
            std::iter::once(format!("system{system}")).chain(below)
        })
    }

    /// From one update to the next.
    pub fn interval(&self) -> Duration {
        Duration::from_secs_f64(self.interval)
    }
}
