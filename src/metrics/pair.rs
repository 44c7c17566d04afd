//! What is told of a pair in metrics.

use std::sync::Arc;

use prometheus::proto::{MetricFamily, MetricType};

use super::collector::{Sample, family};
use crate::forward::counters::Counter;
use crate::ha::counters::{Advert, Counters};
use crate::ha::election::{Path, Role};
use crate::ha::link::Outcome;
use crate::recovery::mirror::{self, Event};

/// What is counted of a pair, and of mirroring, where flows are mirrored.
pub type Look = (Arc<Counters>, Option<Arc<mirror::Counters>>);

/// The families of a router that is one of a pair.
pub fn families((counters, mirrored): &Look) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let labelled =
        |name, label: &str, counter: &Counter| -> Sample { (vec![(name, label.to_owned())], counter.get() as f64) };
    let plain = |counter: &Counter| vec![(Vec::new(), counter.get() as f64)];
    let role = |role: &Role| {
        let is = counters.role.get() == *role as u64;
        (vec![("role", role.label().to_owned())], f64::from(u8::from(is)))
    };
    let entered = Role::ALL.iter().map(|&of| labelled("role", of.label(), counters.entered(of))).collect();
    let heard = Path::ALL.iter().map(|&of| labelled("path", of.label(), counters.heard(of))).collect();
    let adverts = Advert::ALL.iter().map(|&of| labelled("outcome", of.label(), counters.adverts(of))).collect();
    let datagrams = Outcome::ALL.iter().map(|&of| labelled("outcome", of.label(), counters.datagrams(of))).collect();
    let families: [(&'static str, &'static str, MetricType, Vec<Sample>); 7] = [
        ("slr_pair_role", "1 for what this router of the pair is.", GAUGE, Role::ALL.iter().map(role).collect()),
        ("slr_pair_priority", "Priority that counts; 0 while it must not be active.", GAUGE, plain(&counters.priority)),
        ("slr_pair_partner", "1 while the other router is heard and could be active.", GAUGE, plain(&counters.partner)),
        ("slr_pair_role_changes_total", "Times that a role was entered.", COUNTER, entered),
        ("slr_pair_heard_total", "Times that the other router was heard, by way.", COUNTER, heard),
        ("slr_pair_advertisements_total", "VRRP advertisements that came, by what became of them.", COUNTER, adverts),
        (
            "slr_pair_datagrams_total",
            "Datagrams at the pair's peer address, by what became of them.",
            COUNTER,
            datagrams,
        ),
    ];
    let mirrored = mirrored.iter().flat_map(|counters| mirroring(counters));
    families.into_iter().chain(mirrored).map(|(name, help, kind, samples)| family(name, help, kind, samples)).collect()
}

fn mirroring(counters: &mirror::Counters) -> [(&'static str, &'static str, MetricType, Vec<Sample>); 5] {
    use MetricType::{COUNTER, GAUGE};
    let plain = |value: f64| vec![(Vec::new(), value)];
    let event = |of: &Event| (vec![("event", of.label().to_owned())], counters.of(*of).get() as f64);
    [
        (
            "slr_mirror_events_total",
            "What has become of flows that the pair's routers tell each other, by event.",
            COUNTER,
            Event::ALL.iter().map(event).collect(),
        ),
        ("slr_mirror_flows", "Flows that the other router was told of.", GAUGE, plain(counters.flows.get() as f64)),
        (
            "slr_mirror_pending_flows",
            "Flows that it was told of, or is to be, without an answer yet.",
            GAUGE,
            plain(counters.pending.get() as f64),
        ),
        ("slr_mirror_lag_seconds", "Age of the oldest of these.", GAUGE, plain(counters.lag.get() as f64 / 1e9)),
        (
            "slr_mirror_synchronised",
            "1 while all flows of the active router are here.",
            GAUGE,
            plain(counters.synchronised.get() as f64),
        ),
    ]
}
