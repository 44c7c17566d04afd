//! What the spare has, against what the active router has, over networks that lose, delay and repeat.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const AGE: Duration = Duration::from_secs(1);
const REFRESH: Duration = Duration::from_secs(100);

fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(milliseconds * 1_000_000)
}

fn flow(number: u16) -> FlowId {
    let source = SocketAddr::from(([10, 0, 0, 2], number));
    FlowId { source, destination: "192.0.2.80:80".parse().unwrap(), protocol: 6 }
}

fn owner(server: u8, state: FlowState) -> Owner {
    Owner { address: [10, 0, 2, server].into(), tunnel: TunnelKind::IpIp, state, idle: Duration::ZERO }
}

const ESTABLISHED: FlowState = FlowState::TcpEstablished;

fn pair() -> (Source, Sink) {
    (Source::new(AGE, REFRESH, 7, Arc::default()), Sink::new(Arc::default()))
}

/// A round of the survey over these flows, each `age` old.
fn round(source: &mut Source, now: Instant, flows: &HashMap<u16, Owner>, age: Duration) {
    flows.iter().for_each(|(number, owner)| source.seen(now, flow(*number), *owner, age));
    source.round_done(now);
}

/// Lets all that is to be sent arrive.
fn deliver(source: &mut Source, sink: &mut Sink, now: Instant, spare: &mut HashMap<u16, Owner>) {
    loop {
        let batches = source.batches(now);
        if batches.is_empty() {
            break;
        }
        for batch in batches {
            let (news, answer) = sink.hear(&batch, true);
            apply(news, spare);
            source.hear(&answer.expect("an answer"));
        }
    }
}

fn apply(news: Vec<News>, spare: &mut HashMap<u16, Owner>) {
    for news in news {
        match news {
            News::Goes(flow, owner) => drop(spare.insert(flow.source.port(), owner)),
            News::Gone(flow) => drop(spare.remove(&flow.source.port())),
        }
    }
}

#[test]
fn additions_changes_and_removals_arrive_and_what_stays_as_it_is_is_not_told_again() {
    let (mut source, mut sink) = pair();
    let mut spare = HashMap::new();
    let mut flows: HashMap<u16, Owner> = (1..=100).map(|number| (number, owner(1, ESTABLISHED))).collect();
    round(&mut source, at(0), &flows, AGE);
    deliver(&mut source, &mut sink, at(0), &mut spare);
    assert!(!sink.is_whole(), "the round may have begun before the generation");
    round(&mut source, at(1000), &flows, AGE);
    deliver(&mut source, &mut sink, at(1000), &mut spare);
    assert!(sink.is_whole());
    assert_eq!(spare, flows);
    assert_eq!(source.counters.of(Event::Told).get(), 100);

    flows.insert(1, owner(2, ESTABLISHED));
    flows.insert(2, owner(1, FlowState::TcpFin));
    flows.remove(&3);
    round(&mut source, at(2000), &flows, AGE);
    assert!(source.lag(at(2050)) == Duration::from_millis(50));
    deliver(&mut source, &mut sink, at(2050), &mut spare);
    assert_eq!(spare, flows);
    assert_eq!((source.counters.of(Event::Told).get(), source.counters.of(Event::ToldGone).get()), (102, 1));
    assert_eq!((source.lag(at(9999)), source.counters.pending.get()), (Duration::ZERO, 0));
}

#[test]
fn young_flows_and_those_that_open_or_have_ended_are_not_told() {
    let (mut source, mut sink) = pair();
    let mut spare = HashMap::new();
    let young = HashMap::from([(1, owner(1, ESTABLISHED))]);
    let ended = Owner { idle: AGE, ..owner(1, FlowState::TcpFin) };
    let opening = HashMap::from([(2, owner(1, FlowState::TcpSyn)), (3, owner(1, FlowState::TcpRst)), (4, ended)]);
    round(&mut source, at(0), &young, AGE - Duration::from_millis(1));
    round(&mut source, at(0), &opening, Duration::from_secs(30));
    deliver(&mut source, &mut sink, at(0), &mut spare);
    assert!(spare.is_empty() && sink.is_whole());
    round(&mut source, at(1), &young, AGE);
    deliver(&mut source, &mut sink, at(1), &mut spare);
    assert_eq!(spare, young);
}

#[test]
fn a_flow_that_goes_on_is_told_again_in_time_and_an_idle_one_is_not() {
    let (mut source, _) = pair();
    let idle = |seconds| Owner { idle: Duration::from_secs(seconds), ..owner(1, ESTABLISHED) };
    source.seen(at(0), flow(1), idle(0), AGE);
    source.seen(at(0), flow(2), idle(0), AGE);
    for second in 1..=250 {
        source.seen(at(second * 1000), flow(1), idle(0), AGE);
        source.seen(at(second * 1000), flow(2), idle(second), AGE);
    }
    let told = source.waiting.iter().filter(|(_, news)| matches!(news, News::Goes(of, _) if *of == flow(1))).count();
    assert_eq!((told, source.waiting.len()), (3, 4));
}

#[test]
fn batches_beyond_the_window_wait_and_are_sent_again_without_an_answer() {
    let (mut source, mut sink) = pair();
    let flows: HashMap<u16, Owner> = (0..3000).map(|number| (number, owner(1, ESTABLISHED))).collect();
    round(&mut source, at(0), &flows, AGE);
    let first = source.batches(at(0));
    assert_eq!(first.len(), WINDOW);
    assert!(source.batches(at(10)).is_empty());
    assert_eq!(source.batches(at(50)), first);
    // Without room nothing is taken, and nothing is lost.
    let (news, answer) = sink.hear(&first[0], false);
    assert!(news.is_empty());
    source.hear(&answer.expect("an answer"));
    assert_eq!((source.under_way.len(), source.counters.of(Event::Restarted).get()), (WINDOW, 0));
    let mut spare = HashMap::new();
    deliver(&mut source, &mut sink, at(100), &mut spare);
    assert_eq!(spare, flows);
}

#[test]
fn a_spare_that_begins_anew_gets_everything_anew() {
    let (mut source, mut sink) = pair();
    let flows: HashMap<u16, Owner> = (0..100).map(|number| (number, owner(1, ESTABLISHED))).collect();
    let mut spare = HashMap::new();
    for time in [0, 1] {
        round(&mut source, at(time), &flows, AGE);
        deliver(&mut source, &mut sink, at(time), &mut spare);
    }
    assert!(sink.is_whole());
    let mut sink = Sink::new(Arc::default());
    spare.clear();
    let mut changed = flows.clone();
    changed.insert(7, owner(3, ESTABLISHED));
    for time in 2..6 {
        round(&mut source, at(time), &changed, AGE);
        deliver(&mut source, &mut sink, at(time), &mut spare);
    }
    assert_eq!((spare, sink.is_whole()), (changed, true));
    assert_eq!(source.counters.of(Event::Restarted).get(), 1);
}

#[test]
fn a_spare_that_begins_anew_is_found_out_also_when_nothing_changes() {
    let (mut source, mut sink) = pair();
    let flows = HashMap::from([(1, owner(1, ESTABLISHED))]);
    let mut spare = HashMap::new();
    for time in [0, 1] {
        round(&mut source, at(time), &flows, AGE);
        deliver(&mut source, &mut sink, at(time), &mut spare);
    }
    let mut sink = Sink::new(Arc::default());
    for time in (10..2000).step_by(10) {
        round(&mut source, at(time), &flows, AGE);
        deliver(&mut source, &mut sink, at(time), &mut spare);
    }
    assert!(sink.is_whole());
}

#[test]
fn what_was_recorded_installs_nothing() {
    let (mut source, mut sink) = pair();
    let flows = HashMap::from([(1, owner(1, ESTABLISHED))]);
    round(&mut source, at(0), &flows, AGE);
    let recorded = source.batches(at(0));
    let mut spare = HashMap::new();
    let (news, _) = sink.hear(&recorded[0], true);
    apply(news, &mut spare);
    for _ in 0..10 {
        assert_eq!(sink.hear(&recorded[0], true).0, []);
    }
    assert_eq!(sink.counters.of(Event::OutOfTurn).get(), 10);
    for cut in 0..recorded[0].len() {
        assert_eq!(sink.hear(&recorded[0][..cut], true), (vec![], None), "cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn over_a_bad_network_the_spare_has_in_the_end_what_the_active_router_has(
        changes in proptest::collection::vec((0_u16..60, 0_u8..4), 1..200),
        dice in proptest::collection::vec(any::<u8>(), 64),
        restart in 0_usize..400,
    ) {
        let (mut source, mut sink) = pair();
        let (mut flows, mut spare) = (HashMap::new(), HashMap::new());
        let mut fates = dice.iter().cycle();
        let mut changes = changes.into_iter();
        let mut late: Vec<Vec<u8>> = Vec::new();
        for step in 0..600 {
            let now = at(step as u64 * 20);
            // In the end the network is sound and nothing changes.
            let bad = step < 400;
            if let Some((number, server)) = changes.next() {
                match server {
                    0 => drop(flows.remove(&number)),
                    _ => drop(flows.insert(number, owner(server, ESTABLISHED))),
                }
            }
            if step == restart {
                sink = Sink::new(Arc::default());
                spare.clear();
            }
            round(&mut source, now, &flows, AGE);
            let mut arriving = std::mem::take(&mut late);
            for batch in source.batches(now) {
                match fates.next() {
                    Some(fate) if bad && fate % 4 == 0 => {}
                    Some(fate) if bad && fate % 4 == 1 => late.push(batch),
                    Some(fate) if bad && fate % 8 == 2 => arriving.extend([batch.clone(), batch]),
                    _ => arriving.push(batch),
                }
            }
            for batch in arriving {
                let room = !bad || fates.next().is_some_and(|fate| fate % 8 > 0);
                let (news, answer) = sink.hear(&batch, room);
                apply(news, &mut spare);
                if !bad || fates.next().is_some_and(|fate| fate % 4 > 0) {
                    source.hear(&answer.expect("an answer"));
                }
            }
        }
        prop_assert!(sink.is_whole());
        // What was gone before all was told anew is not known to be: it stays until its time is over.
        if source.counters.of(Event::Restarted).get() > 0 {
            spare.retain(|number, _| flows.contains_key(number));
        }
        prop_assert_eq!(spare, flows);
    }
}
