//! Turns the workers' counters into Prometheus metric families at the moment somebody asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use serde::{Deserialize, Serialize};

use super::pair;
use super::report::Report;
use super::sessions;
use super::site;
use crate::control;
use crate::control::health::CheckResult;
use crate::control::hierarchy::Look;
use crate::control::icmp::{Kind, Suppressed};
use crate::control::neighbours::State;
use crate::control::path_mtu::Outcome;
use crate::control::slow_path::{Records, SlowPathCounters};
use crate::control::waiting::WaitingDrop;
use crate::forward::counters::{self, TargetCounters, WorkerCounters};
use crate::forward::tables::Published;
use crate::forward::verdict::{DropReason, InjectDrop, PuntReason};
use crate::recovery::events::{Counters, Event};

/// Statistics of one port, as its device counts them.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct PortStatistics {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets lost on reception: errors, no buffer, no room in the queue.
    pub rx_lost: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// True while the link is up.
    pub link_up: bool,
    /// Megabits per second, where the device can tell.
    pub speed_mbps: Option<u32>,
}

/// Reads the statistics of every port: name and numbers.
pub type PortReader = Box<dyn Fn() -> Vec<(String, PortStatistics)> + Send + Sync>;

/// The forwarding counters of all workers, ready to be gathered.
pub struct ForwardCollector {
    workers: Vec<Arc<WorkerCounters>>,
    published: Published,
    cycles_per_second: f64,
    ports: PortReader,
    slow_path: Arc<SlowPathCounters>,
    checks: Records,
    sessions: Look,
    recovery: Arc<Counters>,
    pair: Option<pair::Look>,
    site: Arc<control::site::Counters>,
}

impl ForwardCollector {
    /// A collector over `workers`, whose busy cycles pass at `cycles_per_second`.
    pub fn new(
        workers: Vec<Arc<WorkerCounters>>,
        published: Published,
        cycles_per_second: f64,
        ports: PortReader,
        slow_path: Arc<SlowPathCounters>,
    ) -> ForwardCollector {
        let (checks, sessions, recovery) = (Records::default(), Look::default(), Arc::default());
        let (pair, site) = (None, Arc::default());
        ForwardCollector {
            workers,
            published,
            cycles_per_second,
            ports,
            slow_path,
            checks,
            sessions,
            recovery,
            pair,
            site,
        }
    }

    /// The same, over the checks of children too.
    pub fn with_checks(self, checks: Records) -> ForwardCollector {
        ForwardCollector { checks, ..self }
    }

    /// The same, over the sessions with children and parents too.
    pub fn with_sessions(self, sessions: Look) -> ForwardCollector {
        ForwardCollector { sessions, ..self }
    }

    /// The same, over how flows are found again too.
    pub fn with_recovery(self, recovery: Arc<Counters>) -> ForwardCollector {
        ForwardCollector { recovery, ..self }
    }

    /// The same, over the pair that the router is one of, too.
    pub fn with_pair(self, pair: Option<pair::Look>) -> ForwardCollector {
        ForwardCollector { pair, ..self }
    }

    /// The same, over the site that has the children, too.
    pub fn with_site(self, site: Arc<control::site::Counters>) -> ForwardCollector {
        ForwardCollector { site, ..self }
    }

    /// Whether each child of a virtual host is up, and how its checks have ended.
    fn per_check(&self) -> (Vec<Sample>, Vec<Sample>) {
        let (mut up, mut ended) = (Vec::new(), Vec::new());
        for record in self.checks.load().iter() {
            let [child, host] = [("child", record.child.clone()), ("virtual_host", record.virtual_host.clone())];
            for result in CheckResult::ALL {
                let labels = vec![child.clone(), ("result", result.label().to_owned()), host.clone()];
                ended.push((labels, record.ended(*result).get() as f64));
            }
            up.push((vec![child, host], record.up.get() as f64));
        }
        (up, ended)
    }

    /// What the workers have done in `seconds`, for people and for programs that are no Prometheus.
    pub fn report(&self, seconds: f64) -> Report {
        Report::new(&self.published.load(), &self.workers, seconds, self.cycles_per_second)
    }

    /// The statistics of every port: name and numbers.
    pub fn ports(&self) -> Vec<(String, PortStatistics)> {
        (self.ports)()
    }

    fn per_worker(&self, value: impl Fn(&WorkerCounters) -> &counters::Counter) -> Vec<Sample> {
        let sample = |(worker, counters): (usize, &Arc<WorkerCounters>)| {
            (vec![("worker", worker.to_string())], value(counters).get() as f64)
        };
        self.workers.iter().enumerate().map(sample).collect()
    }

    fn per_reason<R: Copy>(
        &self,
        reasons: impl Iterator<Item = R>,
        label: impl Fn(R) -> &'static str,
        value: impl Fn(&WorkerCounters, R) -> u64,
    ) -> Vec<Sample> {
        let mut samples = Vec::new();
        for reason in reasons {
            for (worker, counters) in self.workers.iter().enumerate() {
                let labels = vec![("reason", label(reason).to_owned()), ("worker", worker.to_string())];
                samples.push((labels, value(counters, reason) as f64));
            }
        }
        samples
    }

    fn per_target(&self, value: impl Fn(&TargetCounters) -> &counters::Counter) -> Vec<Sample> {
        let tables = self.published.load();
        let mut samples = Vec::new();
        for host in tables.virtual_hosts.iter() {
            for member in &host.members {
                let total: u64 = self.workers.iter().map(|worker| value(worker.target(member.target)).get()).sum();
                let labels = vec![("child", member.child.to_string()), ("virtual_host", host.name.to_string())];
                samples.push((labels, total as f64));
            }
        }
        samples
    }

    /// What went past each child of a virtual host, to wherever.
    fn per_shortcut(&self, value: impl Fn(&TargetCounters) -> &counters::Counter) -> Vec<Sample> {
        let tables = self.published.load();
        let mut sums: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        for shortcut in tables.shortcuts.iter() {
            let all: u64 = self.workers.iter().map(|worker| value(worker.target(shortcut.target)).get()).sum();
            *sums.entry((shortcut.host.index(), shortcut.member)).or_default() += all;
        }
        let sample = |((host, member), sum): ((usize, usize), u64)| {
            let host = &tables.virtual_hosts[host];
            let child = host.members[member].child.to_string();
            let labels = vec![("child", child), ("virtual_host", host.name.to_string())];
            (labels, sum as f64)
        };
        sums.into_iter().map(sample).collect()
    }

    fn per_port(statistics: &[(String, PortStatistics)], value: impl Fn(&PortStatistics) -> f64) -> Vec<Sample> {
        statistics.iter().map(|(name, port)| (vec![("port", name.clone())], value(port))).collect()
    }
}

/// Labels in alphabetical order, and a value.
pub type Sample = (Vec<(&'static str, String)>, f64);

/// A metric family of counters or gauges.
pub fn family(name: &str, help: &str, kind: MetricType, samples: Vec<Sample>) -> MetricFamily {
    let metrics = samples.into_iter().map(|(labels, value)| {
        let mut metric = Metric::default();
        metric.set_label(labels.into_iter().map(|(name, value)| label(name, value)).collect());
        match kind {
            MetricType::GAUGE => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            _ => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
        }
        metric
    });
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics.collect());
    family
}

fn label(name: &str, value: String) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value);
    pair
}

impl ForwardCollector {
    /// Every metric family that has a sample now.
    pub fn gather(&self) -> Vec<MetricFamily> {
        use MetricType::{COUNTER, GAUGE};
        let ports = (self.ports)();
        let port = |value: fn(&PortStatistics) -> u64| Self::per_port(&ports, |port| value(port) as f64);
        let slow_path = &self.slow_path;
        let labelled = |name, label: &str, counter: &counters::Counter| -> Sample {
            (vec![(name, label.to_owned())], counter.get() as f64)
        };
        let neighbours = State::ALL.iter().map(|&s| labelled("state", s.label(), slow_path.neighbours(s))).collect();
        let waiting_dropped = WaitingDrop::ALL.iter();
        let waiting_dropped =
            waiting_dropped.map(|&why| labelled("reason", why.label(), slow_path.waiting_dropped(why))).collect();
        let (icmp, path_mtu) = (&slow_path.icmp, &slow_path.path_mtu);
        let icmp_sent = Kind::ALL.iter().map(|&kind| labelled("kind", kind.label(), icmp.sent(kind))).collect();
        let icmp_suppressed = Suppressed::ALL.iter();
        let icmp_suppressed =
            icmp_suppressed.map(|&why| labelled("reason", why.label(), icmp.suppressed(why))).collect();
        let path_mtu = Outcome::ALL.iter().map(|&of| labelled("outcome", of.label(), path_mtu.of(of))).collect();
        let recovery = Event::ALL.iter().map(|&of| labelled("event", of.label(), self.recovery.of(of))).collect();
        let (up, ended) = self.per_check();
        let inject_drops = InjectDrop::ALL.iter().copied();
        let punts = PuntReason::ALL.iter().copied();
        let families = [
            ("slr_received_packets_total", "Packets received.", COUNTER, self.per_worker(|w| &w.received)),
            ("slr_forwarded_packets_total", "Packets sent to a child.", COUNTER, self.per_worker(|w| &w.forwarded)),
            (
                "slr_punted_packets_total",
                "Packets handed to the slow path, by reason.",
                COUNTER,
                self.per_reason(punts, PuntReason::label, |w, reason| w.punted(reason).get()),
            ),
            (
                "slr_dropped_packets_total",
                "Packets dropped, by reason.",
                COUNTER,
                self.per_reason(DropReason::all(), DropReason::label, |w, reason| w.dropped(reason).get()),
            ),
            (
                "slr_routed_packets_total",
                "Packets for no service that were forwarded to another port.",
                COUNTER,
                self.per_worker(|w| &w.routed),
            ),
            (
                "slr_injected_packets_total",
                "Packets of the slow path that were sent.",
                COUNTER,
                self.per_worker(|w| &w.injected),
            ),
            (
                "slr_inject_dropped_packets_total",
                "Packets of the slow path that were not sent, by reason.",
                COUNTER,
                self.per_reason(inject_drops, InjectDrop::label, |w, reason| w.inject_dropped(reason).get()),
            ),
            ("slr_neighbours", "Next hops, by what is known about them.", GAUGE, neighbours),
            (
                "slr_icmp_errors_carried_total",
                "ICMP errors carried to the child whose flow they are about.",
                COUNTER,
                self.per_worker(|w| &w.icmp_errors),
            ),
            (
                "slr_icmp_errors_sent_total",
                "ICMP errors sent about packets that could not be carried, by kind.",
                COUNTER,
                icmp_sent,
            ),
            ("slr_icmp_errors_suppressed_total", "ICMP errors not sent, by reason.", COUNTER, icmp_suppressed),
            (
                "slr_path_mtu_errors_total",
                "ICMP errors about tunnel packets that were too big, by what came of them.",
                COUNTER,
                path_mtu,
            ),
            ("slr_held_packets", "Fragments held until their first one comes.", GAUGE, self.per_worker(|w| &w.held)),
            (
                "slr_fragmented_packets_total",
                "Packets that were sent in pieces, too long with their tunnel header.",
                COUNTER,
                self.per_worker(|w| &w.fragmented),
            ),
            ("slr_fragments_sent_total", "Those pieces.", COUNTER, self.per_worker(|w| &w.pieces)),
            (
                "slr_selection_table_bytes",
                "Memory of the tables by which new flows find their child.",
                GAUGE,
                vec![(Vec::new(), slow_path.table_bytes.get() as f64)],
            ),
            (
                "slr_registered_children",
                "Children by their hello alone, which are not configured.",
                GAUGE,
                vec![(Vec::new(), slow_path.registered.get() as f64)],
            ),
            (
                "slr_registrations_refused_total",
                "Hellos that made nobody a child: no tunnel end of theirs is reached, or there is no place left.",
                COUNTER,
                vec![(Vec::new(), slow_path.registrations_refused.get() as f64)],
            ),
            (
                "slr_waiting_packets",
                "Packets that wait until their next hop is found.",
                GAUGE,
                vec![(Vec::new(), slow_path.waiting.get() as f64)],
            ),
            (
                "slr_waiting_dropped_packets_total",
                "Packets whose next hop was not found, or that could not wait for it, by reason.",
                COUNTER,
                waiting_dropped,
            ),
            (
                "slr_virtual_host_packets_total",
                "Packets of a virtual host forwarded to a child.",
                COUNTER,
                self.per_target(|target| &target.packets),
            ),
            (
                "slr_virtual_host_bytes_total",
                "Bytes of those packets, without link layer and tunnel.",
                COUNTER,
                self.per_target(|target| &target.bytes),
            ),
            (
                "slr_virtual_host_flows_total",
                "Flows of a virtual host given to a child.",
                COUNTER,
                self.per_target(|target| &target.flows),
            ),
            ("slr_child_up", "1 while the checks of a virtual host find the child up.", GAUGE, up),
            ("slr_health_checks_total", "Checks of a virtual host on a child, by how they ended.", COUNTER, ended),
            ("slr_flows", "Flow entries held.", GAUGE, self.per_worker(|w| &w.flows_active)),
            ("slr_flows_inserted_total", "Flow entries made.", COUNTER, self.per_worker(|w| &w.flows_inserted)),
            (
                "slr_flows_expired_total",
                "Flow entries whose time was over.",
                COUNTER,
                self.per_worker(|w| &w.flows_expired),
            ),
            (
                "slr_flows_refused_total",
                "Packets forwarded without a flow entry because the table had no room for one.",
                COUNTER,
                self.per_worker(|w| &w.flows_refused),
            ),
            (
                "slr_flows_over_limit_total",
                "Packets forwarded without a flow entry because flows.inserts_per_second had been made.",
                COUNTER,
                self.per_worker(|w| &w.flows_over_limit),
            ),
            (
                "slr_flows_installed_total",
                "Flow entries made because somebody else has told where the flow goes.",
                COUNTER,
                self.per_worker(|w| &w.flows_installed),
            ),
            (
                "slr_strays_passed_packets_total",
                "Packets in the middle of unknown flows that went to a child by hash and made no flow entry.",
                COUNTER,
                self.per_worker(|w| &w.strays_passed),
            ),
            (
                "slr_recovery_events_total",
                "What has become of flows that a worker did not know, by event.",
                COUNTER,
                recovery,
            ),
            (
                "slr_flows_untold_total",
                "Flows out of tunnels that parents were not told of: the slow path had no room.",
                COUNTER,
                self.per_worker(|w| &w.flows_untold),
            ),
            (
                "slr_shortcut_packets_total",
                "Packets of a virtual host whose flow has a shortcut past the child that it was given to.",
                COUNTER,
                self.per_shortcut(|target| &target.packets),
            ),
            (
                "slr_shortcut_bytes_total",
                "Bytes of those packets, without link layer and tunnel.",
                COUNTER,
                self.per_shortcut(|target| &target.bytes),
            ),
            (
                "slr_quic_steered_packets_total",
                "Packets that a QUIC connection id has given their child, against the flow entry or without one.",
                COUNTER,
                self.per_worker(|w| &w.quic_steered),
            ),
            (
                "slr_mss_clamped_packets_total",
                "TCP packets whose MSS option was lowered.",
                COUNTER,
                self.per_worker(|w| &w.mss_clamped),
            ),
            ("slr_worker_bursts_total", "Bursts of packets handled.", COUNTER, self.per_worker(|w| &w.bursts)),
            (
                "slr_worker_busy_seconds_total",
                "Time spent on packets, without receiving and sending them.",
                COUNTER,
                self.per_worker(|w| &w.busy_cycles)
                    .into_iter()
                    .map(|(labels, cycles)| (labels, cycles / self.cycles_per_second))
                    .collect(),
            ),
            ("slr_port_receive_packets_total", "Packets that the port received.", COUNTER, port(|p| p.rx_packets)),
            ("slr_port_receive_bytes_total", "Bytes that the port received.", COUNTER, port(|p| p.rx_bytes)),
            ("slr_port_receive_lost_total", "Packets that the port lost.", COUNTER, port(|p| p.rx_lost)),
            ("slr_port_transmit_packets_total", "Packets that the port sent.", COUNTER, port(|p| p.tx_packets)),
            ("slr_port_transmit_bytes_total", "Bytes that the port sent.", COUNTER, port(|p| p.tx_bytes)),
            ("slr_port_transmit_errors_total", "Packets that the port failed to send.", COUNTER, port(|p| p.tx_errors)),
            ("slr_port_up", "1 while the port's link is up.", GAUGE, port(|p| u64::from(p.link_up))),
        ];
        families
            .into_iter()
            .filter(|(_, _, _, samples)| !samples.is_empty())
            .map(|(name, help, kind, samples)| family(name, help, kind, samples))
            .chain(sessions::families(&self.sessions.load()))
            .chain(self.pair.iter().flat_map(pair::families))
            .chain(site::families(&self.site))
            .collect()
    }
}
