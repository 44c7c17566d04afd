//! The whole transition table, and what is said with each transition.

use super::*;

const INTERVAL: Duration = Duration::from_millis(10);
/// A router of priority 100 takes over after three intervals and 156/256 of one.
const DOWN: Duration = Duration::from_nanos(36_093_750);
const OWN: [u8; 4] = [10, 0, 1, 2];

fn settings() -> Settings {
    let preempt = Some(Duration::from_millis(500));
    Settings { priority: 100, interval: INTERVAL, preempt, identity: OWN.into(), mirrors: false, has_peer: true }
}

fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(milliseconds * 1_000_000)
}

fn heard(active: bool, priority: u8) -> Heard {
    Heard { path: Path::Access, active, priority, from: [10, 0, 1, 1].into(), interval: INTERVAL }
}

fn by_peer(active: bool, priority: u8) -> Heard {
    Heard { path: Path::Peer, ..heard(active, priority) }
}

const FINE: Condition = Condition { forbidden: false, lowered: 0 };
const FORBIDDEN: Condition = Condition { forbidden: true, lowered: 0 };

/// A machine in this role since 1 s.
fn in_role(role: Role) -> Election {
    let mut election = Election::new(at(0), settings());
    let now = at(1000);
    match role {
        Role::Initial => {}
        Role::Standby => drop(election.handle(now, Input::Condition(FINE))),
        Role::Inoperative => drop(election.handle(now, Input::Condition(FORBIDDEN))),
        Role::Active => {
            election.handle(at(900), Input::Condition(FINE));
            (election.down_at, election.awake) = (now, now);
            election.handle(now, Input::Tick);
        }
    }
    assert_eq!(election.role, role);
    election
}

/// Lets time pass, and returns what is done meanwhile.
fn run(election: &mut Election, until: Instant) -> Vec<Output> {
    let mut outputs = Vec::new();
    while let Some(due) = election.next_deadline().filter(|due| *due < until) {
        outputs.extend(election.handle(due, Input::Tick));
    }
    outputs.extend(election.handle(until, Input::Tick));
    outputs
}

/// Roles that the outputs go through.
fn changes(outputs: &[Output]) -> Vec<Role> {
    outputs.iter().filter_map(|output| if let Output::Changed(role) = output { Some(*role) } else { None }).collect()
}

#[test]
fn the_whole_transition_table() {
    use Role::{Active, Initial, Inoperative, Standby};
    let lesser_v4 = Heard { from: [10, 0, 1, 1].into(), ..heard(true, 100) };
    let greater_v4 = Heard { from: [10, 0, 1, 3].into(), ..heard(true, 100) };
    // What happens 1 ms after the role was entered, and the role then in Initial, Standby, Active, Inoperative.
    let table: &[(&str, Input, [Role; 4])] = &[
        ("nothing missing", Input::Condition(FINE), [Standby, Standby, Active, Standby]),
        ("a little missing", Input::Condition(Condition { lowered: 50, ..FINE }), [Standby, Standby, Active, Standby]),
        ("too much missing", Input::Condition(FORBIDDEN), [Inoperative, Inoperative, Inoperative, Inoperative]),
        ("a greater active one", Input::Heard(heard(true, 101)), [Initial, Standby, Standby, Inoperative]),
        ("the same by the other way", Input::Heard(by_peer(true, 101)), [Initial, Standby, Standby, Inoperative]),
        ("an equal one of greater address", Input::Heard(greater_v4), [Initial, Standby, Standby, Inoperative]),
        ("an equal one of lesser address", Input::Heard(lesser_v4), [Initial, Standby, Active, Inoperative]),
        ("a lesser active one", Input::Heard(heard(true, 99)), [Initial, Standby, Active, Inoperative]),
        ("a release", Input::Heard(heard(true, 0)), [Initial, Standby, Active, Inoperative]),
        ("a standby", Input::Heard(by_peer(false, 200)), [Initial, Standby, Active, Inoperative]),
        ("an inoperative one", Input::Heard(by_peer(false, 0)), [Initial, Standby, Active, Inoperative]),
        ("flows are here", Input::Synchronised(true), [Initial, Standby, Active, Inoperative]),
        ("flows are missing", Input::Synchronised(false), [Initial, Standby, Active, Inoperative]),
        ("nobody takes datagrams", Input::Refused, [Initial, Standby, Active, Inoperative]),
        ("the end", Input::Stop, [Initial, Standby, Active, Inoperative]),
        ("time", Input::Tick, [Initial, Standby, Active, Inoperative]),
    ];
    for (what, input, expected) in table {
        for (before, expected) in Role::ALL.iter().zip(expected) {
            let mut election = in_role(*before);
            let outputs = election.handle(at(1001), *input);
            assert_eq!(election.role, *expected, "{before} and {what}");
            let told = changes(&outputs);
            assert_eq!(told, if before == expected { vec![] } else { vec![*expected] }, "{before} and {what}");
            // The addresses go with the role, and with nothing else; at the end they are given up.
            let (had, has) = (*before == Active, *expected == Active && !matches!(input, Input::Stop));
            assert_eq!(outputs.contains(&Output::Take), !had && has, "{before} and {what}");
            assert_eq!(outputs.contains(&Output::Release), had && !has, "{before} and {what}");
            let released = outputs.contains(&Output::Advertise(0));
            assert!(!released || had, "{before} and {what}: only who has them gives them up");
        }
    }
}

#[test]
fn a_standby_takes_over_when_nothing_has_been_heard_for_the_down_interval_and_announces_that() {
    let mut election = in_role(Role::Standby);
    let down = at(1000) + DOWN;
    assert!(changes(&run(&mut election, Instant::from_nanos(down.as_nanos() - 1))).is_empty());
    let outputs = election.handle(down, Input::Tick);
    let expected = [
        Output::Take,
        Output::Changed(Role::Active),
        Output::Advertise(100),
        Output::Heartbeat(Role::Active, 100),
        Output::Announce,
    ];
    assert_eq!(outputs, expected);
    let mut announced = 1;
    while election.announcing.is_some() {
        let due = election.next_deadline().expect("a deadline");
        announced += usize::from(election.handle(due, Input::Tick).contains(&Output::Announce));
    }
    assert_eq!(announced, usize::from(ANNOUNCEMENTS));
}

#[test]
fn either_way_holds_a_standby_back_and_the_active_ones_interval_counts() {
    for path in Path::ALL {
        let mut election = in_role(Role::Standby);
        let slow = Heard { path: *path, interval: Duration::from_millis(100), ..heard(true, 100) };
        for time in (1020..3000).step_by(250) {
            assert!(changes(&run(&mut election, at(time))).is_empty());
            assert!(changes(&election.handle(at(time), Input::Heard(slow))).is_empty());
        }
        assert_eq!(changes(&run(&mut election, at(3200))), [Role::Active], "{path}");
    }
}

#[test]
fn silence_by_both_ways_counts_sooner_than_by_one() {
    for (ways, silent) in [(&Path::ALL[..1], DOWN), (&Path::ALL[1..], DOWN), (Path::ALL, DOWN - INTERVAL)] {
        let mut election = in_role(Role::Standby);
        for time in (1010..2000).step_by(10) {
            for path in ways {
                election.handle(at(time), Input::Heard(Heard { path: *path, ..heard(true, 200) }));
            }
        }
        // The one way falls silent before the other.
        election.handle(at(2000), Input::Heard(Heard { path: ways[0], ..heard(true, 200) }));
        let due = at(2000) + silent;
        assert!(changes(&run(&mut election, Instant::from_nanos(due.as_nanos() - 1))).is_empty(), "{ways:?}");
        assert_eq!(changes(&run(&mut election, due)), [Role::Active], "{ways:?}");
    }
}

#[test]
fn who_is_active_speaks_every_interval_and_who_is_not_only_to_the_other_one() {
    for (role, advertises) in [(Role::Active, true), (Role::Standby, false), (Role::Inoperative, false)] {
        let mut election = in_role(role);
        election.down_at = at(99_999);
        election.announcing = None;
        let (mut advertised, mut beaten) = (0, 0);
        for time in 1010..1110 {
            for output in election.handle(at(time), Input::Tick) {
                advertised += usize::from(output == Output::Advertise(100));
                beaten += usize::from(matches!(output, Output::Heartbeat(said, _) if said == role));
            }
        }
        assert_eq!((advertised, beaten), (if advertises { 10 } else { 0 }, 10), "{role}");
    }
}

#[test]
fn a_release_is_followed_after_the_skew_by_whichever_way_it_comes() {
    let skew = Duration::from_nanos(6_093_750);
    for (active, release) in [
        (heard(true, 200), heard(true, 0)),
        (by_peer(true, 200), by_peer(true, 0)),
        (by_peer(true, 200), by_peer(false, 0)),
        (by_peer(true, 200), by_peer(false, 1)),
    ] {
        let mut election = in_role(Role::Standby);
        election.handle(at(1010), Input::Heard(active));
        election.handle(at(1011), Input::Heard(release));
        let due = at(1011) + skew;
        assert!(changes(&run(&mut election, Instant::from_nanos(due.as_nanos() - 1))).is_empty());
        assert_eq!(changes(&run(&mut election, due)), [Role::Active], "{release:?}");
    }
}

#[test]
fn a_better_one_that_comes_back_waits_for_its_time_and_for_the_flows() {
    // Settings, what is known of the flows, and after how long an active one of priority 50 is relieved.
    let never = Settings { preempt: None, ..settings() };
    let mirrors = Settings { mirrors: true, ..settings() };
    let table = [
        ("after the delay", settings(), None, Some(500..=540)),
        ("not at all", never, None, None),
        ("not without flows", mirrors.clone(), None, None),
        ("when the flows are here", mirrors, Some(2000), Some(2000..=2040)),
    ];
    for (what, settings, synchronised, expected) in table {
        let mut election = Election::new(at(0), settings);
        election.handle(at(0), Input::Condition(FINE));
        let mut taken = None;
        for time in 0..5000 {
            let mut outputs = Vec::new();
            if synchronised == Some(time) {
                outputs.extend(election.handle(at(time), Input::Synchronised(true)));
            }
            if time % 10 == 0 {
                outputs.extend(election.handle(at(time), Input::Heard(heard(true, 50))));
            }
            outputs.extend(election.handle(at(time), Input::Tick));
            if changes(&outputs) == [Role::Active] {
                taken.get_or_insert(time);
            }
        }
        match expected {
            Some(range) => assert!(taken.is_some_and(|time| range.contains(&time)), "{what}: {taken:?}"),
            None => assert_eq!(taken, None, "{what}"),
        }
    }
}

#[test]
fn who_is_refused_takes_over_as_soon_as_an_advertisement_is_missing_but_not_from_one_that_speaks() {
    let mut election = in_role(Role::Standby);
    for time in (1010..2000).step_by(10) {
        let outputs = election.handle(at(time), Input::Heard(heard(true, 200)));
        assert!(changes(&outputs).is_empty());
        assert!(changes(&election.handle(at(time + 3), Input::Refused)).is_empty());
        assert!(changes(&run(&mut election, at(time + 9))).is_empty());
    }
    // The last was heard at 1990 ms; an interval and 156/256 of one later.
    let due = Instant::from_nanos(2_006_093_750);
    assert!(changes(&run(&mut election, Instant::from_nanos(due.as_nanos() - 1))).is_empty());
    assert_eq!(changes(&run(&mut election, due)), [Role::Active]);
}

#[test]
fn without_anybody_active_neither_delay_nor_flows_count() {
    let mut election = Election::new(at(0), Settings { mirrors: true, preempt: None, ..settings() });
    election.handle(at(0), Input::Condition(FINE));
    assert_eq!(changes(&run(&mut election, at(0) + DOWN)), [Role::Active]);
}

#[test]
fn who_has_slept_listens_before_it_takes_over() {
    for slept in [15, 25, 1000] {
        let mut election = in_role(Role::Standby);
        run(&mut election, at(1030));
        let stalled = slept > 20;
        let now = at(1030 + slept);
        assert_eq!(changes(&election.handle(now, Input::Tick)).is_empty(), stalled, "{slept} ms");
        if stalled {
            assert!(changes(&election.handle(now, Input::Heard(heard(true, 200)))).is_empty());
            assert!(changes(&run(&mut election, now + DOWN / 2)).is_empty());
            assert_eq!(changes(&run(&mut election, now + DOWN)), [Role::Active]);
        }
    }
}

#[test]
fn a_standby_relieves_an_active_one_whose_priority_falls_below_its_own() {
    let mut election = in_role(Role::Standby);
    for time in (1010..2000).step_by(10) {
        election.handle(at(time), Input::Heard(heard(true, 150)));
    }
    election.handle(at(2000), Input::Heard(heard(true, 60)));
    assert_eq!(changes(&run(&mut election, at(2040))), [Role::Active]);
    // It must not be relieved in turn by an own lack.
    election.handle(at(2050), Input::Condition(Condition { lowered: 80, ..FINE }));
    assert_eq!(changes(&election.handle(at(2060), Input::Heard(heard(true, 60)))), [Role::Standby]);
}

#[test]
fn what_an_operator_wishes() {
    let mut alone = in_role(Role::Active);
    assert_eq!(alone.stand_by(at(1001)), Err(Refused::Alone));
    assert_eq!((alone.role, alone.stands_by), (Role::Active, false));
    alone.handle(at(1002), Input::Heard(by_peer(false, 0)));
    assert_eq!(alone.stand_by(at(1003)), Err(Refused::Alone), "the other one must not be active");

    let mut active = in_role(Role::Active);
    active.handle(at(1001), Input::Heard(by_peer(false, 50)));
    let outputs = active.stand_by(at(1002)).expect("the other one is there");
    assert_eq!(outputs, [Output::Release, Output::Changed(Role::Standby), Output::Advertise(0)]);
    // The other one takes over, and is not relieved although its priority was less.
    for time in (1010..3000).step_by(10) {
        assert!(changes(&active.handle(at(time), Input::Heard(by_peer(true, 50)))).is_empty());
    }
    // When that is gone somebody must do it.
    let mut left = active;
    assert_eq!(changes(&run(&mut left, at(3100))), [Role::Active]);
    assert_eq!(left.priority(), 1);

    let mut standby = in_role(Role::Standby);
    standby.handle(at(1001), Input::Heard(by_peer(true, 100)));
    assert_eq!(standby.take_over(at(1002)), Err(Refused::Lesser(100)));
    standby.handle(at(1003), Input::Heard(by_peer(true, 99)));
    assert_eq!(changes(&standby.take_over(at(1004)).expect("it is better")), [Role::Active]);
    assert_eq!(in_role(Role::Inoperative).take_over(at(1001)), Err(Refused::Inoperative));
    let mut returning = Election::new(at(0), Settings { mirrors: true, ..settings() });
    returning.handle(at(0), Input::Condition(FINE));
    returning.handle(at(1), Input::Heard(by_peer(true, 50)));
    assert_eq!(returning.take_over(at(2)), Err(Refused::Unsynchronised));
}

#[test]
fn a_flood_of_lesser_ones_provokes_few_words() {
    let mut election = in_role(Role::Active);
    election.announcing = None;
    let outputs: Vec<_> = (0..1000).flat_map(|_| election.handle(at(1001), Input::Heard(heard(true, 50)))).collect();
    let count = |what| outputs.iter().filter(|output| **output == what).count();
    let most = CONTRADICTIONS.1 as usize;
    assert_eq!((count(Output::Announce), count(Output::Advertise(100))), (most, most));
}

#[test]
fn own_words_are_not_heard() {
    let mut election = in_role(Role::Active);
    let own = Heard { from: OWN.into(), ..heard(true, 254) };
    assert!(changes(&election.handle(at(1001), Input::Heard(own))).is_empty());
    assert_eq!(election.other(Path::Access), None);
}
