//! What a run did, for programs (JSON) and for people (a table).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::forward::counters::{Packets, TargetCounters, WorkerCounters};
use crate::forward::tables::{ForwardTables, VirtualHost};
use crate::forward::verdict::{DropReason, PuntReason};

/// Numbers by the label of a reason.
pub type ByReason = BTreeMap<Cow<'static, str>, u64>;

/// The whole report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// What became of the packets.
    pub packets: PacketReport,
    /// Where they went.
    pub virtual_hosts: Vec<VirtualHostReport>,
    /// The flow tables of all workers.
    pub flows: FlowReport,
    /// The same for each worker.
    pub workers: Vec<WorkerReport>,
    /// Time that the workers ran, in seconds.
    pub seconds: f64,
    /// Time that a worker spent on a packet, from after its reception to before its transmission, in nanoseconds.
    pub ns_per_packet: f64,
}

/// What became of a number of packets: `rx = forwarded + punted + all of dropped`, since nothing is held at the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PacketReport {
    /// Received.
    pub rx: u64,
    /// Sent to a child.
    pub forwarded: u64,
    /// Handed to the slow path.
    pub punted: u64,
    /// Handed to the slow path, by reason; reasons without packets are left out.
    pub punted_by_reason: ByReason,
    /// Dropped, by reason; reasons without packets are left out.
    pub dropped: ByReason,
}

/// What one virtual host or child got.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets as the clients sent them.
    pub bytes: u64,
    /// Flows.
    pub flows: u64,
}

/// A virtual host's row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VirtualHostReport {
    /// Its name.
    pub name: String,
    /// What it got.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// What each child got of it.
    pub children: Vec<ChildReport>,
}

/// A child's row under a virtual host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChildReport {
    /// Its name.
    pub name: String,
    /// Where its tunnels end.
    pub address: String,
    /// What it got.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// Flow entries.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct FlowReport {
    /// Held at the end.
    pub active: u64,
    /// Made.
    pub inserted: u64,
    /// Given up because their time was over.
    pub expired: u64,
    /// Packets that would have made an entry and found no room; they were forwarded all the same.
    pub refused: u64,
}

/// One worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Its number.
    pub worker: usize,
    /// What became of its packets.
    pub packets: PacketReport,
    /// Its flow tables.
    pub flows: FlowReport,
    /// Bursts with at least one packet.
    pub bursts: u64,
    /// As in [`Report::ns_per_packet`].
    pub ns_per_packet: f64,
}

impl Report {
    /// Reads the counters of workers that ran for `seconds` and whose busy cycles pass at `cycles_per_second`.
    pub fn new(
        tables: &ForwardTables,
        workers: &[Arc<WorkerCounters>],
        seconds: f64,
        cycles_per_second: f64,
    ) -> Report {
        let all: Vec<&WorkerCounters> = workers.iter().map(Arc::as_ref).collect();
        let one = |(worker, counters): (usize, &&WorkerCounters)| WorkerReport {
            worker,
            packets: packets(&[counters]),
            flows: flows(&[counters]),
            bursts: counters.bursts.get(),
            ns_per_packet: ns_per_packet(&[counters], cycles_per_second),
        };
        Report {
            packets: packets(&all),
            virtual_hosts: tables.virtual_hosts.iter().map(|host| virtual_host(host, &all)).collect(),
            flows: flows(&all),
            workers: all.iter().enumerate().map(one).collect(),
            seconds,
            ns_per_packet: ns_per_packet(&all, cycles_per_second),
        }
    }
}

fn packets(workers: &[&WorkerCounters]) -> PacketReport {
    let Packets { received, forwarded, punted, .. } =
        workers.iter().map(|worker| worker.packets()).fold(Packets::default(), |sum, more| sum + more);
    let total = |count: &dyn Fn(&WorkerCounters) -> u64| workers.iter().map(|worker| count(worker)).sum::<u64>();
    let punts =
        PuntReason::ALL.iter().map(|&reason| (Cow::from(reason.label()), total(&|worker| worker.punted(reason).get())));
    let drops =
        DropReason::all().map(|reason| (Cow::from(reason.label()), total(&|worker| worker.dropped(reason).get())));
    PacketReport {
        rx: received,
        forwarded,
        punted,
        punted_by_reason: punts.filter(|(_, count)| *count > 0).collect(),
        dropped: drops.filter(|(_, count)| *count > 0).collect(),
    }
}

fn flows(workers: &[&WorkerCounters]) -> FlowReport {
    workers.iter().fold(FlowReport::default(), |sum, worker| FlowReport {
        active: sum.active + worker.flows_active.get(),
        inserted: sum.inserted + worker.flows_inserted.get(),
        expired: sum.expired + worker.flows_expired.get(),
        refused: sum.refused + worker.flows_refused.get(),
    })
}

fn ns_per_packet(workers: &[&WorkerCounters], cycles_per_second: f64) -> f64 {
    let cycles: u64 = workers.iter().map(|worker| worker.busy_cycles.get()).sum();
    let packets: u64 = workers.iter().map(|worker| worker.received.get()).sum();
    if packets == 0 { 0.0 } else { cycles as f64 / cycles_per_second * 1e9 / packets as f64 }
}

fn virtual_host(host: &VirtualHost, workers: &[&WorkerCounters]) -> VirtualHostReport {
    let sum = |sum: Traffic, counters: &TargetCounters| Traffic {
        packets: sum.packets + counters.packets.get(),
        bytes: sum.bytes + counters.bytes.get(),
        flows: sum.flows + counters.flows.get(),
    };
    let children: Vec<ChildReport> = host
        .members
        .iter()
        .map(|member| ChildReport {
            name: member.child.to_string(),
            address: member.address.to_string(),
            traffic: workers.iter().map(|worker| worker.target(member.target)).fold(Traffic::default(), sum),
        })
        .collect();
    let traffic = children.iter().fold(Traffic::default(), |sum, child| Traffic {
        packets: sum.packets + child.traffic.packets,
        bytes: sum.bytes + child.traffic.bytes,
        flows: sum.flows + child.traffic.flows,
    });
    VirtualHostReport { name: host.name.to_string(), traffic, children }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, address: &str, traffic: &Traffic| {
            let Traffic { packets, bytes, flows } = traffic;
            writeln!(f, "{name:<24} {address:<24} {packets:>12} {bytes:>16} {flows:>10}")
        };
        writeln!(
            f,
            "{:<24} {:<24} {:>12} {:>16} {:>10}",
            "virtual host / child", "address", "packets", "bytes", "flows"
        )?;
        for host in &self.virtual_hosts {
            row(f, &host.name, "", &host.traffic)?;
            for child in &host.children {
                row(f, &format!("  {}", child.name), &child.address, &child.traffic)?;
            }
        }
        let PacketReport { rx, forwarded, punted, punted_by_reason, dropped } = &self.packets;
        let lost: u64 = dropped.values().sum();
        writeln!(f, "\n{:<49} {:>12}", "packets", "")?;
        writeln!(f, "{:<49} {rx:>12}", "  received")?;
        writeln!(f, "{:<49} {forwarded:>12}", "  forwarded")?;
        writeln!(f, "{:<49} {punted:>12}", "  punted to the slow path")?;
        for (reason, count) in punted_by_reason {
            writeln!(f, "    {reason:<45} {count:>12}")?;
        }
        writeln!(f, "{:<49} {lost:>12}", "  dropped")?;
        for (reason, count) in dropped {
            writeln!(f, "    {reason:<45} {count:>12}")?;
        }
        let FlowReport { active, inserted, expired, refused } = self.flows;
        writeln!(f, "\nflows: {inserted} inserted, {expired} expired, {active} active, {refused} refused")?;
        let rate = if self.seconds > 0.0 { *rx as f64 / self.seconds } else { 0.0 };
        write!(
            f,
            "{} worker(s), {:.3} s, {rate:.0} packets/s, {:.1} ns a packet in the worker",
            self.workers.len(),
            self.seconds,
            self.ns_per_packet
        )
    }
}
