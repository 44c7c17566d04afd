//! One machine, told by its children and asked by its parents; workers that answer or do not.

use std::net::Ipv4Addr;

use super::*;
use crate::flow::key::KeyV4;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn flow(number: u32) -> Key {
    Key::V4(KeyV4 { source: number.to_be_bytes(), destination: [192, 0, 2, 80], ports: [4, 1, 0, 80], protocol: 6 })
}

fn end(number: u32) -> TunnelEnd {
    TunnelEnd { kind: 1, port: 0, address: Ipv4Addr::from(0x0a00_0200 + number).into() }
}

fn shortcut(number: u32, to: u32, seconds: u64) -> Shortcut {
    let lifetime = Duration::from_secs(seconds);
    Shortcut { flow: flow(number), source_prefix: 0, level: 0, end: end(to), lifetime }
}

fn told(child: &str, shortcut: Shortcut) -> Input<'_> {
    Input::Told { child, level: 1, shortcut, reachable: true }
}

/// What a worker says that has the flow.
fn sent(number: u32, child: &str, to: u32, done: bool) -> Input<'_> {
    Input::Sent { flow: flow(number), child, end: end(to), done }
}

fn send(number: u32, child: &str, to: u32) -> Output {
    Output::Order(flow(number), Doing::Send { child: child.into(), end: end(to) })
}

fn back(number: u32, child: &str, to: u32) -> Output {
    Output::Order(flow(number), Doing::Return { child: child.into(), end: end(to) })
}

fn look(number: u32) -> Output {
    Output::Order(flow(number), Doing::Look)
}

fn alive(number: u32, idle: Duration) -> Kept {
    Kept { flow: flow(number), state: FlowState::TcpEstablished, idle }
}

/// A machine that has been told flow 1 by site1, to end 7 for 20 s, at 0.
fn installed() -> Shortcuts {
    let mut machine = Shortcuts::new(true);
    let chosen = Input::Chosen { flow: flow(1), child: "site1", end: None, kept: MINUTE };
    assert_eq!(machine.handle(at(0), chosen), []);
    assert_eq!(machine.handle(at(1), told("site1", shortcut(1, 7, 20))), [send(1, "site1", 7)]);
    assert_eq!(machine.of(&flow(1)), None, "no worker has said yet that it has the flow");
    let passed_on = machine.handle(at(1), sent(1, "site1", 7, true));
    assert_eq!(passed_on, [Output::Tell(shortcut(1, 7, 20))]);
    assert_eq!(machine.of(&flow(1)), Some(("site1", end(7), at(20_001))));
    machine
}

fn counted(machine: &Shortcuts) -> Vec<(&'static str, u64)> {
    let count = |outcome: &Outcome| (outcome.label(), machine.counters().of(*outcome).get());
    Outcome::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect()
}

#[test]
fn who_chooses_a_server_tells_for_how_long_it_may_be_believed() {
    let mut machine = Shortcuts::new(true);
    for (kept, seconds) in [(MINUTE, 30), (15 * MINUTE, 30), (10 * SECOND, 5)] {
        let chosen = Input::Chosen { flow: flow(1), child: "server1", end: Some((0, end(7))), kept };
        assert_eq!(machine.handle(at(0), chosen), [Output::Tell(shortcut(1, 7, seconds))]);
    }
    assert_eq!(machine.handle(at(0), Input::Unable(end(7))), [Output::Revoke(end(7))]);
}

#[test]
fn each_reason_not_to_take_a_shortcut_has_its_name() {
    let right = shortcut(1, 7, 20);
    let of = |shortcut, reachable| Input::Told { child: "site1", level: 1, shortcut, reachable };
    let table = [
        (of(Shortcut { level: 1, ..right }, true), "not_below"),
        (of(Shortcut { level: 3, ..right }, true), "not_below"),
        (of(Shortcut { end: TunnelEnd { kind: 9, ..end(7) }, ..right }, true), "unreachable"),
        (of(right, false), "unreachable"),
        (of(Shortcut { source_prefix: 24, ..right }, true), "not_for_us"),
    ];
    for (input, why) in table {
        let mut machine = Shortcuts::new(true);
        assert_eq!(machine.handle(at(0), input), [], "{why}");
        assert_eq!(counted(&machine), [(why, 1)]);
    }
    let mut off = Shortcuts::new(false);
    assert_eq!(off.handle(at(0), of(right, true)), []);
    let chosen = Input::Chosen { flow: flow(1), child: "server1", end: Some((0, end(7))), kept: MINUTE };
    assert_eq!(off.handle(at(0), chosen), []);
    assert_eq!(counted(&off), [("off", 1)]);
}

#[test]
fn only_the_child_that_the_flow_was_sent_to_is_believed() {
    // What a worker says that has sent it elsewhere, and one that does not have it at all.
    let mut machine = Shortcuts::new(true);
    machine.handle(at(0), told("site2", shortcut(1, 7, 20)));
    assert_eq!(machine.handle(at(1), sent(1, "site2", 7, false)), [back(1, "site2", 7)]);
    machine.handle(at(1), told("site2", shortcut(2, 7, 20)));
    assert_eq!(machine.handle(at(1001), Input::Tick), [back(2, "site2", 7)]);
    assert_eq!((counted(&machine), machine.in_force().count()), (vec![("unknown_flow", 1), ("not_sent_there", 1)], 0));
    // What a worker says of one child's shortcut is not taken for another's.
    let mut machine = Shortcuts::new(true);
    machine.handle(at(0), told("site1", shortcut(1, 7, 20)));
    machine.handle(at(0), told("site2", shortcut(1, 8, 20)));
    assert_eq!(machine.handle(at(1), sent(1, "site1", 7, true)), []);
    assert_eq!(machine.in_force().count(), 0);
    assert_eq!(machine.handle(at(1), sent(1, "site2", 8, false)), [back(1, "site2", 8)]);
    // Nor does another child take over what is in force.
    let mut machine = installed();
    assert_eq!(machine.handle(at(2), told("site2", shortcut(1, 8, 20))), []);
    assert_eq!(machine.handle(at(2), Input::Revoked { child: "site2", end: end(7) }), []);
    assert_eq!(machine.of(&flow(1)), Some(("site1", end(7), at(20_001))));
    // The flow has begun anew, and goes elsewhere.
    machine.handle(at(2), told("site1", shortcut(1, 7, 20)));
    assert_eq!(machine.handle(at(3), sent(1, "site1", 7, false)), [back(1, "site1", 7)]);
    assert_eq!(machine.in_force().count(), 0);
}

#[test]
fn a_flow_that_no_parent_has_sent_is_told_to_none() {
    let mut machine = Shortcuts::new(true);
    machine.handle(at(0), told("site1", shortcut(1, 7, 20)));
    assert_eq!(machine.handle(at(1), sent(1, "site1", 7, true)), []);
    // One asks for it.
    let kept = alive(1, SECOND);
    let touch = Doing::Touch { state: kept.state, idle: kept.idle };
    assert_eq!(machine.handle(at(10_000), Input::Kept(kept)), [Output::Order(flow(1), touch)]);
    let chosen = Input::Chosen { flow: flow(1), child: "site1", end: None, kept: MINUTE };
    assert_eq!(machine.handle(at(10_000), chosen), [Output::Tell(shortcut(1, 7, 10))]);
}

#[test]
fn a_shortcut_is_renewed_as_long_as_its_flow_lives_and_ends_in_time_otherwise() {
    let mut machine = installed();
    assert_eq!(machine.next_deadline(), Some(at(10_001)));
    assert_eq!(machine.handle(at(10_001), Input::Tick).first(), Some(&look(1)));
    let kept = alive(1, 8 * SECOND);
    assert_eq!(machine.handle(at(10_002), Input::Alive(kept)), [Output::Keep("site1".into(), kept)]);
    // And it goes up again.
    let renewed = machine.handle(at(10_005), told("site1", shortcut(1, 7, 20)));
    assert_eq!(renewed, [send(1, "site1", 7), Output::Tell(shortcut(1, 7, 20))]);
    assert_eq!(machine.handle(at(10_005), sent(1, "site1", 7, true)), []);
    assert_eq!(machine.of(&flow(1)), Some(("site1", end(7), at(30_005))));
    // The flow is gone: nobody answers.
    assert_eq!(machine.handle(at(20_005), Input::Tick), [look(1)]);
    assert_eq!(machine.handle(at(25_005), Input::Tick), [look(1)]);
    assert_eq!(machine.handle(at(30_005), Input::Tick), [back(1, "site1", 7)]);
    assert_eq!((machine.in_force().count(), machine.held.len(), machine.due.len()), (0, 0, 0));
    assert_eq!(counted(&machine), [("installed", 1), ("renewed", 1), ("expired", 1)]);
}

#[test]
fn a_flow_whose_shortcut_lapses_gets_another_when_it_is_used() {
    let mut machine = installed();
    for ms in [10_001, 15_001, 17_501, 18_751, 19_376, 19_876] {
        let outputs = machine.handle(at(ms), Input::Tick);
        assert!(outputs.contains(&look(1)), "{ms}: {outputs:?}");
        machine.handle(at(ms), Input::Alive(alive(1, Duration::ZERO)));
    }
    assert_eq!(machine.handle(at(20_001), Input::Tick), [back(1, "site1", 7)]);
    assert_eq!(machine.handle(at(50_001), Input::Tick).first(), Some(&look(1)));
    // Not used for too long: not worth it.
    assert_eq!(machine.handle(at(50_002), Input::Alive(alive(1, MINUTE))), []);
    assert_eq!(machine.handle(at(80_001), Input::Tick).first(), Some(&look(1)));
    let kept = alive(1, SECOND);
    assert_eq!(machine.handle(at(80_002), Input::Alive(kept)), [Output::Keep("site1".into(), kept)]);
    assert_eq!(machine.handle(at(80_003), told("site1", shortcut(1, 8, 20))), [send(1, "site1", 8)]);
    machine.handle(at(80_004), sent(1, "site1", 8, true));
    assert_eq!(machine.of(&flow(1)), Some(("site1", end(8), at(100_003))));
    // Another, whose flow is gone meanwhile.
    let mut machine = installed();
    machine.handle(at(2), Input::Revoked { child: "site1", end: end(7) });
    assert_eq!(machine.handle(at(30_002), Input::Tick).first(), Some(&look(1)));
    machine.handle(at(60_002), Input::Tick);
    assert_eq!(machine.held.len(), 0);
}

#[test]
fn an_end_that_is_revoked_is_closed_at_once_and_the_parents_hear_of_it() {
    let mut machine = installed();
    machine.handle(at(2), told("site1", shortcut(2, 7, 20)));
    machine.handle(at(2), told("site1", shortcut(3, 8, 20)));
    for number in [2, 3] {
        machine.handle(at(3), sent(number, "site1", number + 5, true));
    }
    let mut outputs = machine.handle(at(4), Input::Revoked { child: "site1", end: end(7) });
    assert_eq!(outputs.remove(0), Output::Close("site1".into(), end(7)));
    assert_eq!(outputs.pop(), Some(Output::Revoke(end(7))));
    assert!(outputs.contains(&back(1, "site1", 7)) && outputs.contains(&back(2, "site1", 7)) && outputs.len() == 2);
    assert_eq!(machine.in_force().map(|(flow, ..)| *flow).collect::<Vec<_>>(), [flow(3)]);
    assert_eq!(machine.counters().in_force.get(), 1);
    // One that nobody has been told of.
    assert_eq!(machine.handle(at(5), Input::Revoked { child: "site1", end: end(9) }), []);
}

#[test]
fn turned_off_all_flows_take_the_long_way() {
    let mut machine = installed();
    assert_eq!(machine.set(true), []);
    assert_eq!(machine.set(false), [back(1, "site1", 7), Output::Close("site1".into(), end(7))]);
    assert_eq!((machine.in_force().count(), machine.counters().in_force.get()), (0, 0));
    assert_eq!(machine.handle(at(9), Input::Kept(alive(1, SECOND))), []);
}

#[test]
fn shortcuts_are_limited_in_rate_and_number() {
    let mut machine = Shortcuts::new(true);
    let mut told_at = |ms, numbers: std::ops::Range<u32>| {
        for number in numbers {
            machine.handle(at(ms), told("site1", shortcut(number, number % 7, 30)));
            machine.handle(at(ms), sent(number, "site1", number % 7, true));
        }
        machine.in_force().count()
    };
    assert_eq!(told_at(0, 0..6_000), 5_000);
    assert_eq!(told_at(1_000, 6_000..12_000), 10_000);
    for second in 2..9 {
        told_at(second * 1_000, second as u32 * 6_000..(second as u32 + 1) * 6_000);
    }
    assert_eq!(machine.in_force().count(), HELD_MAX.1);
    let refused = |why| machine.counters().of(why).get();
    assert!(refused(Outcome::TooFast) >= 6_000 && refused(Outcome::Full) > 0);
    // Ends of one child, and of all.
    let mut machine = Shortcuts::new(true);
    for number in 0..20_000_u32 {
        let child = ["site1", "site2", "site3"][(number / 8_000) as usize];
        machine.handle(at(u64::from(number)), told(child, shortcut(1, number, 30)));
        let seconds = machine.ends.len();
        assert!(seconds <= ENDS_MAX.0);
    }
    assert_eq!(machine.ends.len(), ENDS_MAX.0);
}

#[test]
fn an_end_without_flows_is_forgotten_after_a_while() {
    let mut machine = installed();
    machine.handle(at(2), Input::Revoked { child: "site1", end: end(7) });
    machine.handle(at(30_002), Input::Tick);
    machine.handle(at(60_002), Input::Tick);
    let mut forgotten = Vec::new();
    for seconds in 61..480 {
        let outputs = machine.handle(at(seconds * 1_000), Input::Tick);
        forgotten.extend(outputs.into_iter().map(|output| (seconds, output)));
    }
    assert_eq!(forgotten.len(), 1, "{forgotten:?}");
    let (seconds, output) = &forgotten[0];
    assert_eq!(*output, Output::Forget("site1".into(), end(7)));
    assert!((360..=420).contains(seconds), "{seconds}");
    assert_eq!((machine.tellers.len(), machine.next_deadline()), (0, None));
}
