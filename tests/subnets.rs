//! Many virtual subnets over many children: what one child says changes its own part of the snapshot, at once, and nothing else.
//!
//! The full size is in `benches/subnets.rs`, which `scripts/soak subnets` runs.

mod scene;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use scene::{EACH, Given, Machines, Scale, hello, identity, name, session, update, weight};
use slr::clock::Instant;
use slr::config::{OnFailure, Register};
use slr::control::compile::{Compiler, Configured, Latest};
use slr::control::session::Happening;
use slr::control::wire::{Message, State};
use slr::forward::tables::ForwardTables;
use slr::units::VirtualHostId;

const SMALL: Scale = Scale {
    subnets: 200,
    children: 50,
    keys: "selection: least_cost, cost_function: \"load\", table_size: 31",
    interval: Duration::from_secs(5),
};

/// A small router and its time.
struct Small {
    machines: Machines,
    now: Instant,
    sequence: u64,
    subnets: Vec<Vec<usize>>,
    /// Virtual hosts whose conditions have changed since the last update.
    changed: BTreeSet<usize>,
}

impl Small {
    fn new(scale: Scale) -> Small {
        let mut config = scale.config();
        // Of all kinds: some move flows away from who is down, some children need not say anything.
        for host in config.virtual_hosts.iter_mut().step_by(3) {
            host.on_failure = OnFailure::Reselect;
        }
        for child in config.children.iter_mut().step_by(7) {
            child.register = Register::Optional;
        }
        let machines = Machines::new(config);
        let (now, subnets) = (Instant::ZERO, scale.subnets_of_children());
        Small { machines, now, sequence: 0, subnets, changed: BTreeSet::new() }
    }

    fn pass(&mut self, happenings: Vec<Happening>) {
        let Machines { config, hierarchy, conditions, .. } = &mut self.machines;
        let outcome = hierarchy.pass(self.now, &mut Given(happenings.into_iter()), config, conditions);
        self.changed.extend(outcome.steered);
    }

    fn greet(&mut self, child: usize) {
        let opened = Happening::Opened(session(child), identity(&name(child), 2));
        self.pass(vec![opened, Happening::Received(session(child), hello(child))]);
    }

    fn say(&mut self, child: usize, say: impl FnMut(usize) -> (State, f64)) {
        self.sequence += 1;
        let bytes = update(self.sequence, &self.subnets[child], say);
        self.pass(vec![Happening::Received(session(child), bytes)]);
    }

    /// The next snapshot; whether there is a new one.
    fn update(&mut self) -> bool {
        let Machines { config, neighbours, compiler, conditions, tables, .. } = &mut self.machines;
        let reachability = Configured { config, neighbours };
        let changed = std::mem::take(&mut self.changed);
        let latest = Latest { config, conditions, tables };
        let compiled = compiler.update(latest, (&changed, false), &reachability, self.now);
        let is_new = compiled.is_some();
        compiled.into_iter().for_each(|compiled| *tables = compiled.tables);
        is_new
    }

    /// The snapshot that is made of nothing but the configuration and the conditions.
    fn anew(&self) -> ForwardTables {
        let Machines { config, neighbours, conditions, .. } = &self.machines;
        let reachability = Configured { config, neighbours };
        Compiler::new(usize::MAX).compile(config, conditions, &reachability, self.now).expect("no limit").tables
    }
}

/// All that may differ between two snapshots of the same configuration.
fn shown(tables: &ForwardTables) -> String {
    let selections: Vec<_> = tables.selections.iter().collect();
    format!("{:?} {selections:?} {:?} {:?}", tables.virtual_hosts, tables.targets, tables.paths)
}

#[derive(Clone, Debug)]
enum Step {
    /// A child says something of its subnets, by a number that decides on each.
    Say(usize, u64),
    Drain(usize),
    Goodbye(usize),
    Lost(usize),
    /// The operator's word, and a check's.
    Weigh(usize, u16),
    Fail(usize, usize),
    Recover(usize, usize),
    Wait(u64),
    Publish,
}

fn step() -> impl Strategy<Value = Step> {
    let child = 0..SMALL.children;
    let (subnet, place) = (0..SMALL.subnets, 0..EACH);
    prop_oneof![
        8 => (child.clone(), any::<u64>()).prop_map(|(child, dice)| Step::Say(child, dice)),
        1 => child.clone().prop_map(Step::Drain),
        1 => child.clone().prop_map(Step::Goodbye),
        1 => child.clone().prop_map(Step::Lost),
        1 => (child, 0..3_u16).prop_map(|(child, weight)| Step::Weigh(child, weight)),
        1 => (subnet.clone(), place.clone()).prop_map(|(subnet, place)| Step::Fail(subnet, place)),
        1 => (subnet, place).prop_map(|(subnet, place)| Step::Recover(subnet, place)),
        2 => (1..4000_u64).prop_map(Step::Wait),
        4 => Just(Step::Publish),
    ]
}

fn one(small: &mut Small, step: &Step) {
    let host_of = |small: &Small, subnet: usize, place: usize| {
        let host = &small.machines.config.virtual_hosts[subnet];
        (host.name.clone(), name(host.members[place].child))
    };
    match *step {
        Step::Say(child, dice) => {
            if small.machines.hierarchy.news(&name(child)).is_none_or(|news| news.session.is_none()) {
                small.greet(child);
            }
            small.say(child, |subnet| {
                let mixed = (dice ^ subnet as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                let state = match mixed % 16 {
                    0 => State::Down,
                    1 => State::Draining,
                    _ => State::Serving,
                };
                (state, (mixed / 16 % 4) as f64 / 4.0)
            });
        }
        Step::Drain(child) => {
            small.pass(vec![Happening::Received(session(child), Message::Drain(true).to_bytes())]);
        }
        Step::Goodbye(child) => {
            small.pass(vec![Happening::Received(session(child), Message::Goodbye("so".into()).to_bytes())]);
        }
        Step::Lost(child) => small.pass(vec![Happening::Closed(session(child), "lost".into())]),
        Step::Weigh(child, to) => {
            small.machines.conditions.weights.insert(name(child), weight(to));
            small.changed.extend(&small.subnets[child]);
        }
        Step::Fail(subnet, place) => {
            let (host, child) = host_of(small, subnet, place);
            small.machines.conditions.down.insert(host, child);
            small.changed.insert(subnet);
        }
        Step::Recover(subnet, place) => {
            let (host, child) = host_of(small, subnet, place);
            small.machines.conditions.down.remove(&host, &child);
            small.changed.insert(subnet);
        }
        Step::Wait(ms) => {
            small.now = small.now + Duration::from_millis(ms);
            small.pass(Vec::new());
        }
        Step::Publish => drop(small.update()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn step_by_step_the_snapshot_is_what_it_would_be_if_it_were_made_anew(
        steps in prop::collection::vec(step(), 1..60),
        policy in 0..3_usize,
    ) {
        let keys = [
            SMALL.keys,
            "selection: shares, cost_function: \"load\", table_size: 31",
            "selection: round_robin",
        ][policy];
        let mut small = Small::new(Scale { keys, ..SMALL });
        for step in &steps {
            one(&mut small, step);
        }
        small.pass(Vec::new());
        small.update();
        prop_assert_eq!(shown(&small.machines.tables), shown(&small.anew()));
        // Shares remember; all else is what the last news say.
        if !keys.contains("shares") {
            let Machines { config, hierarchy, conditions, .. } = &mut small.machines;
            let anew = hierarchy.reconfigured(small.now, config);
            prop_assert_eq!(format!("{:?}", conditions.steering), format!("{anew:?}"));
        }
    }
}

#[test]
fn what_a_child_says_changes_its_own_subnets_and_shares_all_others_with_the_snapshot_before() {
    let mut small = Small::new(SMALL);
    for child in 0..SMALL.children {
        small.greet(child);
        small.say(child, |_| (State::Serving, 0.5));
    }
    assert!(small.update());
    let before = small.machines.tables.clone();
    small.say(21, |_| (State::Serving, 0.25));
    assert!(small.update());
    let after = small.machines.tables.clone();
    for subnet in 0..SMALL.subnets {
        let host = VirtualHostId(subnet as u32);
        let same = std::ptr::eq(before.selections.of(host), after.selections.of(host));
        assert_eq!(same, !small.subnets[21].contains(&subnet), "{subnet}");
    }
    assert!(Arc::ptr_eq(&before.virtual_hosts, &after.virtual_hosts) && Arc::ptr_eq(&before.targets, &after.targets));
    for &subnet in &small.subnets[21] {
        let host = &after.virtual_hosts[subnet];
        let member = after.selection(host).selector.select(7).expect("a child");
        assert_eq!(*host.members[member].child, *name(21));
    }
    // It costs less still, which changes nothing: nobody even looks at it again.
    small.say(21, |_| (State::Serving, 0.125));
    assert!(small.changed.is_empty() && !small.update());
    // Another one costs as little, and shares with it.
    small.say(22, |_| (State::Serving, 0.125));
    assert!(small.changed.iter().copied().eq(small.subnets[22].iter().copied()) && small.update());
}

#[test]
fn equal_children_with_equal_shares_have_one_table_in_its_size_and_unused_ones_go() {
    let mut small = Small::new(Scale { keys: "selection: shares, cost_function: \"load\", table_size: 31", ..SMALL });
    small.machines.config.virtual_hosts.iter().for_each(|host| assert_eq!(host.table_size, 31));
    for child in 0..SMALL.children {
        small.greet(child);
        small.say(child, |_| (State::Serving, 0.5));
    }
    small.update();
    let distinct: BTreeSet<[usize; EACH]> = (0..SMALL.subnets).map(|subnet| SMALL.members(subnet)).collect();
    assert!(distinct.len() < SMALL.subnets);
    // Those of the snapshot before are still there, and what each child prefers: 4 bytes for each slot.
    let bytes = |sets: usize| sets * 31 * size_of::<u16>();
    let preferences = SMALL.children * 31 * 4;
    let held = small.machines.compiler.table_bytes() - preferences;
    assert!((bytes(distinct.len())..=bytes(2 * distinct.len())).contains(&held), "{held}");
    // However often shares change, there are no more than one for each subnet of two snapshots, and a third above.
    for round in 0..100_u64 {
        small.now = small.now + Duration::from_millis(2500);
        for child in 0..SMALL.children {
            small.say(child, |subnet| {
                (State::Serving, ((subnet as u64 * 7 + child as u64 * 13 + round) % 17) as f64 / 17.0)
            });
        }
        small.update();
        let held = small.machines.compiler.table_bytes() - preferences;
        assert!(held <= bytes(2 * SMALL.subnets) * 4 / 3, "round {round}: {held}");
    }
}
