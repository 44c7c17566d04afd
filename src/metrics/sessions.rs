//! Metric families of the sessions with children and parents.

use prometheus::proto::{MetricFamily, MetricType};

use super::collector::{Sample, family};
use crate::clock::WallClock;
use crate::control::hierarchy::View;
use crate::control::hierarchy::view::{ChildView, ParentView, Said};
use crate::control::session::child::ChildCounters;
use crate::control::shortcuts::{Outcome, ShortcutCounters};
use crate::control::wire::{Reason, State};
use crate::forward::counters::Counter;

/// Everything about the sessions of a router; empty where there are none.
pub(super) fn families(view: &View) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let children = |value: &dyn Fn(&ChildView) -> Option<f64>| {
        let sample = |child: &ChildView| Some((vec![("child", child.name.clone())], value(child)?));
        view.children.iter().filter_map(sample).collect::<Vec<Sample>>()
    };
    let said = |value: &dyn Fn(&Said) -> Option<f64>| children(&|child| value(child.said.as_ref()?));
    let (mut load, mut capacity, mut serving) = (Vec::new(), Vec::new(), Vec::new());
    for child in &view.children {
        for (host, serves) in child.said.iter().flat_map(|said| said.hosts.iter()) {
            let Some(host) = view.hosts.get(*host as usize) else { continue };
            let labels = vec![("child", child.name.clone()), ("virtual_host", host.to_string())];
            if let Some(serves) = serves {
                load.push((labels.clone(), serves.load.ratio()));
                capacity.push((labels.clone(), f64::from(serves.capacity)));
            }
            let takes = serves.is_some_and(|serves| serves.state == State::Serving);
            serving.push((labels, f64::from(u8::from(takes))));
        }
    }
    let own = |value: Option<f64>| value.map(|value| (Vec::new(), value)).into_iter().collect::<Vec<Sample>>();
    let of = |value: &dyn Fn(&crate::control::session::parent::ParentCounters) -> u64| {
        own(view.counters.as_ref().map(|counters| value(counters) as f64))
    };
    let refusals = view.counters.iter().flat_map(|counters| {
        let sample =
            |reason: &Reason| (vec![("reason", reason.label().to_owned())], counters.refused(*reason).get() as f64);
        Reason::ALL.iter().map(sample)
    });
    let shortcut = |value: fn(&ShortcutCounters) -> &Counter| {
        own(view.shortcuts.as_ref().map(|counters| value(counters).get() as f64))
    };
    let outcomes = view.shortcuts.iter().flat_map(|counters| {
        let sample = |of: &Outcome| (vec![("outcome", of.label().to_owned())], counters.of(*of).get() as f64);
        Outcome::ALL.iter().map(sample)
    });
    let families = [
        ("slr_shortcuts", "Flows that go past a child.", GAUGE, shortcut(|counters| &counters.in_force)),
        ("slr_shortcut_ends", "Ends of tunnels past children.", GAUGE, shortcut(|counters| &counters.ends)),
        (
            "slr_shortcut_ends_unproven",
            "Ends of tunnels past children that have not answered in one of ours.",
            GAUGE,
            shortcut(|counters| &counters.unproven),
        ),
        (
            "slr_shortcuts_total",
            "Shortcuts that children have told, by what has become of them.",
            COUNTER,
            outcomes.collect(),
        ),
        ("slr_shortcuts_told_total", "Shortcuts that parents were told.", COUNTER, shortcut(|counters| &counters.told)),
        (
            "slr_shortcuts_revoked_total",
            "Ends that parents were told to send no flows to but by us.",
            COUNTER,
            shortcut(|counters| &counters.revoked),
        ),
        (
            "slr_shortcuts_kept_total",
            "Flows that children were told to keep, as they go past them.",
            COUNTER,
            shortcut(|counters| &counters.kept),
        ),
        ("slr_child_connected", "1 while the child has a session.", GAUGE, children(&|c| Some(c.connected.into()))),
        (
            "slr_child_update_age_seconds",
            "Time since the child's last update.",
            GAUGE,
            said(&|said| Some(said.age.as_secs_f64())),
        ),
        (
            "slr_child_round_trip_seconds",
            "Time to the child and back, by its session.",
            GAUGE,
            said(&|said| said.round_trip.map(|time| time.as_secs_f64())),
        ),
        ("slr_child_load", "What the child says of its load; 1 is all that it can do.", GAUGE, load),
        ("slr_child_capacity", "How much the child says it can do, in the unit of weights.", GAUGE, capacity),
        ("slr_child_serving", "1 while the child says that it takes new flows.", GAUGE, serving),
        (
            "slr_child_certificate_end_timestamp_seconds",
            "When the child's certificate ends.",
            GAUGE,
            said(&|said| Some(said.not_after.0 as f64 / 1000.0)),
        ),
        ("slr_sessions", "Sessions of children.", GAUGE, of(&|counters| counters.sessions.get())),
        ("slr_session_updates_total", "Updates of children taken.", COUNTER, of(&|counters| counters.updates.get())),
        (
            "slr_session_stale_updates_total",
            "Updates of children that came twice or out of order.",
            COUNTER,
            of(&|counters| counters.stale.get()),
        ),
        ("slr_session_bytes_total", "Bytes received from children.", COUNTER, of(&|counters| counters.bytes.get())),
        (
            "slr_session_records_refused_total",
            "Virtual subnets in updates beyond the child's certificate.",
            COUNTER,
            of(&|counters| counters.records_refused.get()),
        ),
        (
            "slr_children_expired_total",
            "Times that a child's last update was too old.",
            COUNTER,
            of(&|counters| counters.expired.get()),
        ),
        ("slr_session_refusals_total", "Sessions refused or ended, by reason.", COUNTER, refusals.collect()),
    ];
    families
        .into_iter()
        .filter(|(_, _, _, samples)| !samples.is_empty())
        .map(|(name, help, kind, samples)| family(name, help, kind, samples))
        .chain(parents("slr", &view.parents, view.not_after))
        .collect()
}

/// The sessions of a node with its parents, and its own certificate; names start with `prefix`. Empty where there are none.
pub fn parents(prefix: &str, parents: &[ParentView], not_after: Option<WallClock>) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let counted = |value: fn(&ChildCounters) -> &Counter| {
        let sample =
            |parent: &ParentView| (vec![("parent", parent.name.clone())], value(&parent.counters).get() as f64);
        parents.iter().map(sample).collect::<Vec<Sample>>()
    };
    let end = not_after.map(|end| (Vec::new(), end.0 as f64 / 1000.0)).into_iter().collect();
    let families = [
        ("parent_connected", "1 while the parent is told how we are.", GAUGE, counted(|of| &of.established)),
        ("parent_updates_total", "Updates sent to the parent.", COUNTER, counted(|of| &of.updates)),
        (
            "parent_acknowledged_total",
            "Updates that the parent has acknowledged.",
            COUNTER,
            counted(|of| &of.acknowledged),
        ),
        (
            "parent_records_refused_total",
            "Virtual subnets that the parent has refused.",
            COUNTER,
            counted(|of| &of.records_refused),
        ),
        ("parent_refusals_total", "Refusals by the parent.", COUNTER, counted(|of| &of.refusals)),
        ("parent_attempts_total", "Connections to the parent that were tried.", COUNTER, counted(|of| &of.attempts)),
        ("parent_bytes_total", "Bytes sent to the parent.", COUNTER, counted(|of| &of.bytes)),
        ("certificate_end_timestamp_seconds", "When our own certificate ends.", GAUGE, end),
    ];
    families
        .into_iter()
        .filter(|(_, _, _, samples)| !samples.is_empty())
        .map(|(name, help, kind, samples)| family(&format!("{prefix}_{name}"), help, kind, samples))
        .collect()
}
