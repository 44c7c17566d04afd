//! What the agent answers over its control socket: how it is.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use super::decapsulate::Decapsulator;
use super::outcome::Outcome;
use super::parents::Sessions;
use super::report::Report;
use crate::clock::WallClock;
use crate::config::show;
use crate::ctl::request::Request;
use crate::ctl::response::{AgentStatus, HostedRow, ParentRow};
use crate::ctl::socket::Asked;

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// When it was started.
    pub started: Instant,
    /// Longest packet that fits into every kind of tunnel, in bytes.
    pub inner_mtu: u32,
    /// Changes that it has made to the system.
    pub changes: usize,
}

/// Answers what is asked.
pub fn answer(
    facts: &Facts,
    decapsulator: &Decapsulator,
    report: &Report,
    sessions: &Sessions,
    Asked { request, to }: Asked,
) {
    match request {
        Request::Status => to.finish(Ok(status(facts, decapsulator, report, sessions))),
        Request::Parents => to.finish(Ok(rows(sessions))),
        Request::Reload => to.finish(Err::<(), _>("a reload is under way already; wait for its end".into())),
        _ => {
            let why = "a host agent answers `status`, `parents` and `reload` only; ask a router for the rest";
            to.finish(Err::<(), _>(why.into()));
        }
    }
}

fn rows(sessions: &Sessions) -> Vec<ParentRow> {
    sessions.parents.iter().map(ParentRow::from).collect()
}

fn status(facts: &Facts, decapsulator: &Decapsulator, report: &Report, sessions: &Sessions) -> AgentStatus {
    let now = WallClock::from(SystemTime::now()).0 as f64;
    let packets = Outcome::ALL.iter().map(|of| (of.label().to_owned(), decapsulator.outcome(*of)));
    let machine = report.virtual_hosts.first().map(|host| host.sample.inputs).unwrap_or_default();
    let row = |host: &super::report::HostReport| HostedRow {
        name: host.name.to_string(),
        addresses: host.prefixes.iter().copied().map(show).collect(),
        failure: host.failure.as_deref().map(str::to_owned),
        load: host.sample.load,
        established: host.sample.inputs.established as u64,
        queue: host.sample.inputs.queue,
        bytes_in: host.sample.inputs.bytes_in,
        bytes_out: host.sample.inputs.bytes_out,
        application: host.application,
    };
    AgentStatus {
        name: facts.name.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_seconds: facts.started.elapsed().as_secs_f64(),
        draining: report.draining,
        decapsulation: decapsulator.method.label().into(),
        why: decapsulator.why.clone(),
        inner_mtu: facts.inner_mtu,
        changes: facts.changes,
        packets: packets.collect::<BTreeMap<_, _>>(),
        cpu: machine.cpu,
        cpu_pressure: machine.cpu_pressure,
        memory: machine.memory,
        memory_pressure: machine.memory_pressure,
        virtual_hosts: report.virtual_hosts.iter().map(row).collect(),
        parents: rows(sessions),
        certificate_seconds: sessions.not_after.map(|end| (end.0 as f64 - now) / 1000.0),
    }
}
