//! How loaded each virtual host is: samples of the machine, of its sockets and of what the service says, made one number
//! by an expression.
//!
//! ```text
//! /proc, cgroup: processors, memory ────┐
//! sock_diag: connections, accept queues ├─► Inputs of each virtual host ── expression ──► load
//! counters: bytes in and out            │
//! application: page, file or program ───┘
//! ```
//!
//! Where no expression is configured, the load is what the application says, and where it says nothing either, the
//! greatest of `cpu`, `cpu_pressure`, `memory_pressure` and `queue`.

pub mod application;
pub mod machine;
pub mod sockets;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::host::{Expression, HostedService, Inputs};
use machine::{Machine, Usage};
use sockets::Sockets;

use super::outcome::Traffic;

/// What was measured of one virtual host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// What an expression looks at.
    pub inputs: Inputs,
    /// Connections that are not over, whatever their state.
    pub open: u32,
    /// What all that comes to.
    pub load: f64,
}

/// The sampler of all virtual hosts.
#[derive(Default)]
pub struct Sampler {
    machine: Machine,
    traffic: Vec<Traffic>,
    /// The last expression that failed, which is told once.
    failed: Option<String>,
}

/// What of a virtual host is known from elsewhere at the time of a sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// All that has come and gone.
    pub traffic: Traffic,
    /// What its application says.
    pub application: Option<f64>,
}

impl Sampler {
    /// Of the machine, or of a control group below its directory.
    pub fn new(cgroup: Option<PathBuf>) -> Sampler {
        Sampler { machine: Machine::new(cgroup), ..Sampler::default() }
    }

    /// Goes over to other virtual hosts: for each, which of those before it was, if any, and what has come and gone.
    pub fn renumber(&mut self, hosts: impl Iterator<Item = (Option<usize>, Traffic)>) {
        let before = std::mem::take(&mut self.traffic);
        let known = |(before_at, now): (Option<usize>, Traffic)| {
            before_at.and_then(|at| before.get(at).copied()).unwrap_or(now)
        };
        self.traffic = hosts.map(known).collect();
    }

    /// Samples all virtual hosts, `elapsed` after the last time.
    pub fn sample(
        &mut self,
        hosts: &[HostedService],
        known: &[Known],
        sockets: &Sockets,
        elapsed: Duration,
    ) -> Vec<Sample> {
        let usage = self.machine.sample();
        self.traffic.resize(hosts.len(), Traffic::default());
        let seconds = elapsed.as_secs_f64().max(1e-3);
        let mut samples = Vec::with_capacity(hosts.len());
        // Many virtual hosts that do nothing look alike, and an expression takes its time.
        let mut last: Option<(&Expression, Inputs, f64)> = None;
        for (at, (host, known)) in hosts.iter().zip(known).enumerate() {
            let before = std::mem::replace(&mut self.traffic[at], known.traffic);
            let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
            let Usage { cpu, cpu_pressure, memory, memory_pressure } = usage;
            let of = sockets.of(at);
            let inputs = Inputs {
                cpu,
                cpu_pressure,
                memory,
                memory_pressure,
                established: f64::from(of.established),
                queue: of.queue,
                bytes_in: rate(known.traffic.bytes_in, before.bytes_in),
                bytes_out: rate(known.traffic.bytes_out, before.bytes_out),
                application: known.application.unwrap_or(0.0),
            };
            let load = match (&host.load, last) {
                (None, _) => known.application.unwrap_or_else(|| by_default(&inputs)),
                (Some(now), Some((then, same, load))) if same == inputs && now.text() == then.text() => load,
                (Some(expression), _) => self.evaluate(&host.name, expression, &inputs),
            };
            last = host.load.as_ref().map(|expression| (expression, inputs, load));
            samples.push(Sample { inputs, open: of.open, load });
        }
        samples
    }

    fn evaluate(&mut self, host: &str, expression: &Expression, inputs: &Inputs) -> f64 {
        match expression.evaluate(inputs) {
            Ok(load) => load,
            Err(why) => {
                if self.failed.as_deref() != Some(expression.text()) {
                    eprintln!("slr-host: virtual host {host}: expression {why}; the default load is reported");
                    self.failed = Some(expression.text().to_owned());
                }
                by_default(inputs)
            }
        }
    }
}

fn by_default(inputs: &Inputs) -> f64 {
    [inputs.cpu, inputs.cpu_pressure, inputs.memory_pressure, inputs.queue].into_iter().fold(0.0, f64::max)
}
