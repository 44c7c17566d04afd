//! A run from its start to its end, and how it is shown: a table, CSV, JSON.

use std::fmt;

use serde::Serialize;

use super::topology::Topology;
use super::world::{Flows, STEP, Work, World};

/// One interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the start.
    pub at: f64,
    /// Mean load of the servers that work; 1 is their capacity.
    pub load_mean: f64,
    /// The highest.
    pub load_max: f64,
    /// Load of the busiest site: the mean of its servers.
    pub site_max: f64,
    /// Flows that were given to a server that works.
    pub served: u64,
    /// Flows that were given to what is dead.
    pub lost: u64,
    /// Flows that were refused.
    pub refused: u64,
    /// Bytes a second of all sessions.
    pub control_bytes_per_second: f64,
    /// Messages that routers have taken in.
    pub messages: u64,
    /// Times that a router gave out new flows in another way.
    pub steered: u64,
    /// Age of the oldest news that any router goes by, in seconds.
    pub staleness: f64,
    /// Shares of new flows of the network's systems.
    pub systems: Vec<f64>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Study {
    /// The seed.
    pub seed: u64,
    /// One for each interval.
    pub samples: Vec<Sample>,
    /// Highest load over the mean, on average over the last quarter of the run.
    pub imbalance: f64,
    /// The same of sites. Where servers have few flows each, chance alone makes some of them much busier than others.
    pub site_imbalance: f64,
}

impl Study {
    /// Runs a topology and looks at it every interval.
    pub fn run(topology: &Topology, seed: u64) -> Study {
        let mut world = World::new(topology, seed);
        let mut events = topology.events.clone();
        events.sort_by(|a, b| a.at.total_cmp(&b.at));
        let mut events = events.into_iter().peekable();
        let steps = (topology.interval / STEP.as_secs_f64()).round().max(1.0) as u64;
        let intervals = (topology.seconds / topology.interval).floor() as u64;
        let mut samples = Vec::new();
        let mut bytes = 0;
        for interval in 1..=intervals {
            for step in 0..steps {
                let at = ((interval - 1) * steps + step) as f64 * STEP.as_secs_f64();
                while let Some(event) = events.next_if(|event| event.at <= at) {
                    let node = |name: &Option<String>| name.as_deref().and_then(|name| world.node(name));
                    let [kill, revive, cut, mend] = [&event.kill, &event.revive, &event.cut, &event.mend].map(node);
                    kill.into_iter().for_each(|node| world.kill(node));
                    revive.into_iter().for_each(|node| world.revive(node));
                    cut.into_iter().for_each(|node| world.cut(node, false));
                    mend.into_iter().for_each(|node| world.cut(node, true));
                    event.fail.iter().for_each(|name| world.fail(name, true));
                    event.recover.iter().for_each(|name| world.fail(name, false));
                }
                world.step();
            }
            let loads = world.loads();
            let Work { messages, steered } = world.take_work();
            let Flows { served, lost, refused } = world.take_flows();
            let sent = world.network.bytes - std::mem::replace(&mut bytes, world.network.bytes);
            samples.push(Sample {
                at: interval as f64 * topology.interval,
                load_mean: loads.iter().sum::<f64>() / loads.len().max(1) as f64,
                load_max: loads.iter().copied().fold(0.0, f64::max),
                site_max: world.site_loads().into_iter().fold(0.0, f64::max),
                served,
                lost,
                refused,
                control_bytes_per_second: sent as f64 / topology.interval,
                messages,
                steered,
                staleness: world.staleness().as_secs_f64(),
                systems: world.shares("network").into_iter().map(|(_, share)| share).collect(),
            });
        }
        let late = &samples[samples.len() * 3 / 4..];
        let mean = |of: fn(&Sample) -> f64| {
            late.iter().map(|sample| of(sample) / sample.load_mean.max(1e-9)).sum::<f64>() / late.len().max(1) as f64
        };
        let (imbalance, site_imbalance) = (mean(|sample| sample.load_max), mean(|sample| sample.site_max));
        Study { seed, samples, imbalance, site_imbalance }
    }

    /// One line for each interval, with a head.
    pub fn csv(&self) -> String {
        let head = "at,load_mean,load_max,site_max,served,lost,refused,control_bytes_per_second,messages,steered,staleness,systems\n";
        let line = |sample: &Sample| {
            let Sample { at, load_mean, load_max, site_max, served, lost, refused, messages, steered, .. } = sample;
            let (bytes, oldest) = (sample.control_bytes_per_second, sample.staleness);
            let systems: Vec<String> = sample.systems.iter().map(|share| format!("{share:.4}")).collect();
            format!(
                "{at},{load_mean:.4},{load_max:.4},{site_max:.4},{served},{lost},{refused},{bytes:.0},{messages},{steered},\
                 {oldest:.3},{}\n",
                systems.join(" ")
            )
        };
        head.to_owned() + &self.samples.iter().map(line).collect::<String>()
    }
}

impl fmt::Display for Study {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>8}  {:>9}  {:>8}  {:>8}  {:>8}  {:>6}  {:>7}  {:>11}  {:>9}",
            "at s", "mean load", "max load", "max site", "served", "lost", "refused", "control B/s", "oldest s"
        )?;
        for sample in &self.samples {
            writeln!(
                f,
                "{:>8.1}  {:>9.3}  {:>8.3}  {:>8.3}  {:>8}  {:>6}  {:>7}  {:>11.0}  {:>9.2}",
                sample.at,
                sample.load_mean,
                sample.load_max,
                sample.site_max,
                sample.served,
                sample.lost,
                sample.refused,
                sample.control_bytes_per_second,
                sample.staleness
            )?;
        }
        writeln!(
            f,
            "seed {}: in the last quarter, the busiest server has {:.3} times the mean load, the busiest site {:.3} times",
            self.seed, self.imbalance, self.site_imbalance
        )
    }
}
