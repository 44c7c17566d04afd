//! What is told of a pair in metrics.

use prometheus::proto::{MetricFamily, MetricType};

use super::collector::{Sample, family};
use crate::forward::counters::Counter;
use crate::ha::counters::{Advert, Counters};
use crate::ha::election::{Path, Role};
use crate::ha::link::Outcome;

/// The families of a router that is one of a pair.
pub fn families(counters: &Counters) -> Vec<MetricFamily> {
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
    let families: [(&str, &str, MetricType, Vec<Sample>); 7] = [
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
    families.into_iter().map(|(name, help, kind, samples)| family(name, help, kind, samples)).collect()
}
