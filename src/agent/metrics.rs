//! The agent's Prometheus metrics, made of its counters and its newest report when somebody asks.

use prometheus::proto::{MetricFamily, MetricType};

use super::decapsulate::Decapsulator;
use super::echo::{EchoOutcome, Echoes};
use super::outcome::Outcome;
use super::parents::Sessions;
use super::report::{HostReport, Report};
use crate::metrics::collector::{Sample, family};
use crate::metrics::sessions;

/// Every metric family that has a sample now.
pub fn gather(decapsulator: &Decapsulator, echoes: &Echoes, report: &Report, parents: &Sessions) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let outcomes = |label: &'static str, wanted: fn(Outcome) -> bool| -> Vec<Sample> {
        let of = Outcome::ALL.iter().copied().filter(|of| wanted(*of));
        of.map(|of| (vec![(label, of.label().to_owned())], decapsulator.outcome(of) as f64)).collect()
    };
    let per_host = |value: fn(&HostReport) -> Option<f64>| -> Vec<Sample> {
        let sample = |host: &HostReport| Some((vec![("virtual_host", host.name.to_string())], value(host)?));
        report.virtual_hosts.iter().filter_map(sample).collect()
    };
    let machine = report.virtual_hosts.first().map(|host| host.sample.inputs).unwrap_or_default();
    let one = |value: f64| -> Vec<Sample> { vec![(Vec::new(), value)] };
    let families = [
        (
            "slr_host_received_packets_total",
            "Packets for virtual hosts that were handed on, by the tunnel that they came in.",
            COUNTER,
            outcomes("tunnel", Outcome::is_taken),
        ),
        (
            "slr_host_dropped_packets_total",
            "Tunnel packets dropped, by reason.",
            COUNTER,
            outcomes("reason", Outcome::is_dropped),
        ),
        (
            "slr_host_fragments_total",
            "Fragments of tunnel packets left to the system.",
            COUNTER,
            one(decapsulator.outcome(Outcome::Fragment) as f64),
        ),
        (
            "slr_host_recovery_echoes_total",
            "Connections without word of their client, by whether a recovery echo was sent.",
            COUNTER,
            EchoOutcome::ALL
                .iter()
                .map(|of| (vec![("outcome", of.label().to_owned())], echoes.count(*of) as f64))
                .collect(),
        ),
        (
            "slr_host_draining",
            "1 while the agent waits for connections to end.",
            GAUGE,
            one(f64::from(u8::from(report.draining))),
        ),
        ("slr_host_cpu_ratio", "Share of the processors' time in use.", GAUGE, one(machine.cpu)),
        (
            "slr_host_cpu_pressure_ratio",
            "Share of the time in which something waited for a processor.",
            GAUGE,
            one(machine.cpu_pressure),
        ),
        ("slr_host_memory_ratio", "Share of the memory in use.", GAUGE, one(machine.memory)),
        (
            "slr_host_memory_pressure_ratio",
            "Share of the time in which something waited for memory.",
            GAUGE,
            one(machine.memory_pressure),
        ),
        ("slr_host_load", "Load of a virtual host, as reported.", GAUGE, per_host(|host| Some(host.sample.load))),
        (
            "slr_host_virtual_host_up",
            "1 while the checks of a virtual host find that it works.",
            GAUGE,
            per_host(|host| Some(f64::from(u8::from(host.failure.is_none())))),
        ),
        (
            "slr_host_established_connections",
            "Established TCP connections of a virtual host.",
            GAUGE,
            per_host(|host| Some(host.sample.inputs.established)),
        ),
        (
            "slr_host_accept_queue_ratio",
            "Fill of the fullest accept queue of a virtual host.",
            GAUGE,
            per_host(|host| Some(host.sample.inputs.queue)),
        ),
        (
            "slr_host_application_value",
            "What the application of a virtual host says about itself.",
            GAUGE,
            per_host(|host| host.application),
        ),
        (
            "slr_host_virtual_host_receive_packets_total",
            "Packets that came for a virtual host.",
            COUNTER,
            per_host(|host| Some(host.traffic.packets_in as f64)),
        ),
        (
            "slr_host_virtual_host_receive_bytes_total",
            "Bytes of those packets, without link layer and tunnel.",
            COUNTER,
            per_host(|host| Some(host.traffic.bytes_in as f64)),
        ),
        (
            "slr_host_virtual_host_transmit_packets_total",
            "Packets that a virtual host sent by the interfaces of tunnels.",
            COUNTER,
            per_host(|host| Some(host.traffic.packets_out as f64)),
        ),
        (
            "slr_host_virtual_host_transmit_bytes_total",
            "Bytes of those packets, without link layer.",
            COUNTER,
            per_host(|host| Some(host.traffic.bytes_out as f64)),
        ),
    ];
    families
        .into_iter()
        .filter(|(_, _, _, samples)| !samples.is_empty())
        .map(|(name, help, kind, samples)| family(name, help, kind, samples))
        .chain(sessions::parents("slr_host", &parents.parents, parents.not_after))
        .collect()
}
