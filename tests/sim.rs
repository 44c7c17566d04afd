//! Simulated hierarchies: what must hold whatever the network does, and how shares and failures come out.

use std::time::Duration;

use proptest::prelude::*;
use slr::sim::network::Faults;
use slr::sim::report::Sample;
use slr::sim::world::STEP;
use slr::sim::{Study, Topology, World};

/// Runs that are left to chance.
const SEEDS: u64 = 200;

/// One in so many goes on in peace afterwards, which takes longer.
const PEACEFUL: u64 = 10;

fn topology(text: &str) -> Topology {
    Topology::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Numbers of a seed, for what is to happen.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// A small hierarchy under loss, delay, duplicates, cuts and deaths, and then in peace.
fn one_run(seed: u64) {
    let mut dice = Dice(seed);
    let selection = ["shares", "least_cost", "consistent_hash"][dice.next(3) as usize];
    // Following every packet takes its time.
    let shortcuts = seed % 4 == 2;
    let topology = topology(&format!(
        "{{ systems: 2, sites: 2, servers: 2, capacity: 20, interval: 0.5, flow_seconds: 2.0, slots: 50, shortcuts: {shortcuts}, selection: {selection} }}"
    ));
    let names: Vec<String> = topology.names().collect();
    let mut world = World::new(&topology, seed);
    let milliseconds = |ms| Duration::from_millis(ms);
    let mut hurt = Vec::new();
    for step in 0..600 {
        if step % 50 == 0 {
            let most = 1 + dice.next(400);
            let (loss, duplicates) = (dice.next(30) as f64 / 100.0, dice.next(10) as f64 / 100.0);
            world.network.faults = Faults { delay: (milliseconds(1), milliseconds(most)), loss, duplicates };
            let node = world.node(&names[dice.next(names.len() as u64) as usize]).expect("a node");
            match dice.next(4) {
                0 => world.cut(node, false),
                1 => world.kill(node),
                _ => {}
            }
            hurt.push(node);
            let liar = world.node(&format!("site{}-{}", 1 + dice.next(2), 1 + dice.next(2))).expect("a site");
            (0..20).for_each(|_| world.lie(liar, dice.next(1000)));
            if dice.next(2) == 0 {
                for node in hurt.drain(..) {
                    world.cut(node, true);
                    world.revive(node);
                }
            }
        }
        world.step();
        world.check();
    }
    if !seed.is_multiple_of(PEACEFUL) {
        return;
    }
    // In peace all that is there is found again: an attempt may wait for 20 s, and one that was under way for 10 s more.
    for node in hurt {
        world.cut(node, true);
        world.revive(node);
    }
    world.network.faults = Faults::NONE;
    for step in 0..4500 {
        world.step();
        if step % 10 == 0 {
            world.check();
        }
    }
    world.take_flows();
    for _ in 0..100 {
        world.step();
    }
    let flows = world.take_flows();
    assert!(flows.served > 0 && flows.lost == 0 && flows.refused == 0, "{flows:?}");
    if selection != "least_cost" {
        for router in ["network", "system1", "system2", "site1-1", "site2-2"] {
            let shares = world.shares(router);
            // Few where a server of 20 flows has more than it can do by chance.
            assert!(shares.iter().all(|(_, share)| *share > 0.01), "{router}: {shares:?}");
        }
    }
}

#[test]
fn whatever_the_network_does_nobody_goes_by_old_or_foreign_news_and_no_flow_goes_round() {
    let runs = |first: u64| {
        for seed in (first..SEEDS).step_by(2) {
            let outcome = std::panic::catch_unwind(|| one_run(seed));
            assert!(outcome.is_ok(), "seed {seed} fails");
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| runs(1));
        runs(0);
        other.join().expect("the other half");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn the_same_seed_gives_the_same_run(seed in any::<u64>()) {
        let topology = topology("{ seconds: 5.0, loss: 0.1, delay_ms: 300.0, events: [{ at: 2.0, kill: server1-1-1 }] }");
        prop_assert_eq!(Study::run(&topology, seed), Study::run(&topology, seed));
    }
}

#[test]
fn shares_hold_servers_together_where_the_cheapest_one_swings() {
    let text = |selection: &str| {
        topology(&format!(
            "{{ systems: 2, sites: 3, servers: 4, capacity: 1000, load: 0.8, flow_seconds: 10.0, seconds: 100.0, selection: {selection} }}"
        ))
    };
    let shares = Study::run(&text("shares"), 1);
    assert!(shares.imbalance <= 1.15, "{shares}");
    let cheapest = Study::run(&text("least_cost"), 1);
    assert!(cheapest.imbalance > 1.3, "{cheapest}");
}

#[test]
fn a_site_that_dies_is_out_of_every_table_within_four_intervals_and_comes_back() {
    let topology = topology("{ systems: 2, sites: 2, servers: 2, capacity: 100 }");
    let mut world = World::new(&topology, 5);
    let run = |world: &mut World, seconds: f64| {
        for _ in 0..(seconds / STEP.as_secs_f64()) as u32 {
            world.step();
        }
    };
    run(&mut world, 20.0);
    let share = |world: &World, router: &str, child: usize| world.shares(router)[child].1;
    assert!(share(&world, "system1", 0) > 0.3);
    let site = world.node("site1-1").expect("a site");
    world.kill(site);
    run(&mut world, 4.0);
    assert_eq!(share(&world, "system1", 0), 0.0);
    world.take_flows();
    run(&mut world, 5.0);
    assert_eq!(world.take_flows().lost, 0);
    // A whole system, seen by the network's router.
    let system = world.node("system2").expect("a system");
    world.kill(system);
    run(&mut world, 4.0);
    assert_eq!((share(&world, "network", 0), share(&world, "network", 1)), (1.0, 0.0));
    world.revive(system);
    world.revive(site);
    run(&mut world, 60.0);
    assert!(share(&world, "network", 1) > 0.3 && share(&world, "system1", 0) > 0.3);
}

#[test]
fn most_packets_go_past_routers_and_none_after_a_drain_to_what_is_drained() {
    let topology = topology(
        "{ systems: 2, sites: 2, servers: 2, capacity: 20, flow_seconds: 20.0, slots: 50, shortcuts: true, selection: least_cost }",
    );
    let mut world = World::new(&topology, 11);
    let run = |world: &mut World, seconds: f64| {
        for _ in 0..(seconds / STEP.as_secs_f64()) as u32 {
            world.step();
            world.check();
        }
    };
    run(&mut world, 40.0);
    world.take_packets();
    run(&mut world, 60.0);
    let (packets, past) = world.take_packets();
    // The first one of a flow comes half a second after it began.
    assert!(packets > 10_000 && past * 100 > packets * 99, "{past} of {packets}");
    let server = world.node("server1-2-1").expect("a server");
    assert!(world.flows_past_to(server) > 5);
    world.drain(server, true);
    run(&mut world, 0.5);
    assert_eq!(world.flows_past_to(server), 0);
    // They go on as they are; and those that are left go past the routers again when it takes new ones.
    run(&mut world, 20.0);
    assert_eq!(world.flows_past_to(server), 0);
    world.drain(server, false);
    run(&mut world, 20.0);
    assert!(world.flows_past_to(server) > 0);
}

#[test]
fn a_service_that_fails_loses_new_flows_and_gets_them_again() {
    let text = "{ seconds: 60.0, flow_seconds: 2.0, events: [{ at: 20, fail: system1 }, { at: 20, fail: server2-1-1 }, \
                { at: 30, recover: network }] }";
    let study = Study::run(&topology(text), 4);
    let at = |second: usize| study.samples[second - 1].systems.clone();
    assert!(at(19)[0] > 0.3, "{study}");
    assert_eq!(at(25), [0.0, 1.0], "{study}");
    assert!(at(60)[0] > 0.3, "{study}");
    // One server of the other system is not what makes it fail.
    assert_eq!(study.samples[25..29].iter().map(|sample| sample.lost + sample.refused).sum::<u64>(), 0, "{study}");
    let svg = study.svg();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    // Two lines of load, one for each system, traffic and age, each with a point for each second.
    let lines: Vec<&str> = svg.lines().filter(|line| line.starts_with("<polyline")).collect();
    assert_eq!(lines.len(), 6);
    assert!(lines.iter().all(|line| line.matches(',').count() == 60), "{lines:#?}");
}

#[test]
fn control_traffic_and_work_are_the_same_whether_children_fail_or_not() {
    let study = |events: &str| {
        let text = format!("{{ seconds: 55.0, load: 0.1, events: [{events}] }}");
        let study = Study::run(&topology(&text), 3);
        // An update more or less at the ends of that is a fortieth.
        let late = &study.samples[15..];
        let mean = |of: fn(&Sample) -> f64| late.iter().map(of).sum::<f64>() / late.len() as f64;
        let messages = mean(|sample| sample.messages as f64);
        (mean(|sample| sample.control_bytes_per_second), messages, mean(|sample| sample.steered as f64))
    };
    let (well, messages, steered) = study("");
    let (failing, messages_then, steered_then) = study("{ at: 8.0, fail: network }");
    assert!((failing / well - 1.0).abs() < 0.05, "{well} and {failing} bytes a second");
    assert!((messages_then / messages - 1.0).abs() < 0.05, "{messages} and {messages_then} messages");
    // Nobody is left to give new flows to.
    assert!(steered_then <= steered, "{steered} and {steered_then} times in another way");
    let (ill, ..) = study("{ at: 8.0, cut: server1-1-1 }, { at: 8.0, cut: server2-3-4 }");
    // Two of 24 servers' sessions are gone: their own bytes are missing, and hardly any others are added.
    assert!(ill <= well * 1.01 && ill >= well * 0.9, "{well} and {ill} bytes a second");
}

/// `scripts/soak study` runs it in full.
#[test]
fn the_sample_has_a_hundred_thousand_servers() {
    let sample = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/dpdk-config/topology.yaml"));
    let sample = topology(&sample.expect("the sample"));
    let servers = sample.systems * sample.sites * sample.servers;
    assert_eq!((sample.systems, sample.systems * sample.sites, servers), (20, 2000, 100_000));
    let all = Topology { events: Vec::new(), ..Topology::default() };
    let few = Topology { events: Vec::new(), systems: 2, sites: 3, servers: 4, seconds: 20.0, ..sample };
    let study = Study::run(&few, 1);
    assert!(study.samples.iter().all(|sample| sample.lost == 0 && sample.served > 0), "{study}");
    assert_eq!((few.load, few.interval, few.selection), (all.load, all.interval, all.selection));
}

#[test]
fn a_topology_that_makes_no_sense_is_refused_in_one_line() {
    for (text, says) in [
        ("{ systems: 0 }", "systems 0 is out of range; write one from 1 to 10000"),
        ("{ sites: 10000, servers: 1000 }", "servers are more than 200000 in all; write fewer"),
        ("{ loss: 2.0 }", "loss 2 is out of range; write one from 0 to 0.9"),
        ("{ cost_function: lod }", "cost_function names lod, which is not there"),
        (
            "{ events: [{ at: 1.0, kill: site9-1 }] }",
            "events name \"site9-1\", which is not there; write one like site1-2",
        ),
        ("{ colour: red }", "colour"),
    ] {
        let error = Topology::parse(text).expect_err(text).to_string();
        assert!(error.contains(says) && error.lines().count() == 1, "{text}: {error}");
    }
}
