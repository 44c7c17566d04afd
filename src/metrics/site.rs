//! What is told of a site that has the table of children in metrics.

use prometheus::proto::{MetricFamily, MetricType};

use super::collector::{Sample, family};
use crate::control::site::{Counters, Poll};

/// The families of a router whose children a site has; none of another.
pub fn families(counters: &Counters) -> Vec<MetricFamily> {
    if !counters.any() {
        return Vec::new();
    }
    let poll = |of: &Poll| -> Sample { (vec![("outcome", of.label().to_owned())], counters.of(*of).get() as f64) };
    let answered = counters.answered().0 as f64 / 1000.0;
    vec![
        family(
            "slr_children_site_polls_total",
            "Times that the site was asked for the table of children, by what became of that.",
            MetricType::COUNTER,
            Poll::ALL.iter().map(poll).collect(),
        ),
        family(
            "slr_children_site_answer_timestamp_seconds",
            "When the site last had an answer that is in force, in seconds since 1970; 0: not yet.",
            MetricType::GAUGE,
            vec![(Vec::new(), answered)],
        ),
    ]
}
