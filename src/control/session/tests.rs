//! The two machines with nothing between them, and a parent before peers that are not honest.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::child::{self, ChildEnd, Stage, hello};
use super::parent::{self, ParentEnd, Settings};
use super::*;
use crate::clock::WallClock;
use crate::control::wire::{Hello, Load, Message, Reason, Record, Sequence, State, Token, Update};
use crate::service::filter::Filter;

const INTERVAL: Duration = Duration::from_secs(1);
const YEAR: WallClock = WallClock(365 * 86_400_000);

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn identity(name: &str, level: u8) -> Identity {
    let offers = ["192.0.2.0/24", "2001:db8::/32"].map(|net| net.parse().unwrap()).to_vec();
    Identity { name: name.into(), level, offers, not_after: YEAR }
}

fn record(prefix: &str, load: u32) -> Record {
    let prefix = prefix.parse().unwrap();
    Record { prefix, service: Filter::ANY, state: State::Serving, load: Load(load), capacity: 100 }
}

fn parent() -> ParentEnd {
    let settings = Settings {
        name: "system1".into(),
        level: 2,
        interval: INTERVAL,
        sessions_max: 3,
        records_max: 100,
        takes_anyone: false,
    };
    let children = ["site1", "site2"].map(String::from);
    ParentEnd::new(at(0), WallClock(1000), settings, BTreeSet::from(children))
}

/// One child and its parent; what they say arrives at once.
struct Pair {
    parent: ParentEnd,
    child: ChildEnd,
    session: Option<SessionId>,
    sessions: u64,
    records: Vec<Record>,
    reachable: bool,
    told: Vec<String>,
}

impl Pair {
    fn new() -> Pair {
        let child = ChildEnd::new(at(0), hello("site1".into(), 1), "system1".into(), 7);
        let records = vec![record("192.0.2.0/25", 500_000)];
        Pair { parent: parent(), child, session: None, sessions: 0, records, reachable: true, told: Vec::new() }
    }

    fn child(&mut self, now: Instant, input: child::Input<'_>) {
        for output in self.child.handle(now, input) {
            match output {
                child::Output::Connect if self.reachable => {
                    self.sessions += 1;
                    let session = SessionId(self.sessions);
                    self.session = Some(session);
                    let outputs = self.parent.handle(now, parent::Input::Opened(session, identity("site1", 1)));
                    self.perform(now, outputs);
                    self.child(now, child::Input::Opened(identity("system1", 2)));
                }
                child::Output::Connect => self.child(now, child::Input::Closed("no route")),
                child::Output::Send(bytes) => {
                    if let Some(session) = self.session.filter(|_| self.reachable) {
                        let outputs = self.parent.handle(now, parent::Input::Received(session, &bytes));
                        self.perform(now, outputs);
                    }
                }
                child::Output::Close => {
                    if let Some(session) = self.session.take() {
                        let outputs = self.parent.handle(now, parent::Input::Closed(session, "closed"));
                        self.perform(now, outputs);
                    }
                }
                child::Output::Report => self.child(now, child::Input::Report(self.records.clone())),
                child::Output::Told(line) => self.told.push(line),
                child::Output::Kept(_) => {}
            }
        }
    }

    fn perform(&mut self, now: Instant, outputs: Vec<parent::Output>) {
        for output in outputs {
            match output {
                parent::Output::Send(id, bytes) if Some(id) == self.session && self.reachable => {
                    self.child(now, child::Input::Received(&bytes));
                }
                parent::Output::Close(id) if Some(id) == self.session => {
                    self.session = None;
                    self.child(now, child::Input::Closed("by the parent"));
                }
                parent::Output::Told(line) => self.told.push(line),
                _ => {}
            }
        }
    }

    /// Lets time pass up to `to`, from deadline to deadline.
    fn run(&mut self, to: Instant) {
        loop {
            let next = self.child.next_deadline().into_iter().chain(self.parent.next_deadline()).min();
            let Some(next) = next.filter(|next| *next <= to) else { return };
            self.child(next, child::Input::Tick);
            let outputs = self.parent.handle(next, parent::Input::Tick);
            self.perform(next, outputs);
        }
    }

    fn load(&self) -> Option<u32> {
        let report = &self.parent.news("site1")?.report;
        Some(report.of(&["192.0.2.1/32".parse().unwrap()], &[Filter::ANY])?.load.0)
    }
}

#[test]
fn a_child_is_taken_and_heard_every_interval() {
    let mut pair = Pair::new();
    pair.run(at(0));
    assert_eq!((pair.child.stage(), pair.load()), (Stage::Established, Some(500_000)));
    pair.records = vec![record("192.0.2.0/24", 700_000)];
    pair.run(at(999));
    assert_eq!(pair.load(), Some(500_000));
    pair.run(at(1000));
    assert_eq!(pair.load(), Some(700_000));
    pair.run(at(10_000));
    let counters = pair.child.counters();
    assert_eq!((counters.updates.get(), counters.acknowledged.get(), counters.attempts.get()), (11, 11, 1));
    assert_eq!(pair.child.wall(at(10_000)), Some(WallClock(11_000)));
    assert_eq!(pair.parent.news("site1").unwrap().round_trip, Some(Duration::ZERO));
}

#[test]
fn urgent_news_do_not_wait_and_do_not_flood() {
    let mut pair = Pair::new();
    pair.run(at(100));
    pair.records = vec![record("192.0.2.0/24", 1)];
    for ms in 101..=200 {
        pair.child(at(ms), child::Input::Urgent);
        pair.run(at(ms));
    }
    assert_eq!((pair.load(), pair.child.counters().updates.get()), (Some(1), 3));
}

#[test]
fn updates_are_as_many_whether_they_come_early_or_not() {
    let updates = |every: u64, input: Option<child::Input<'_>>| {
        let mut pair = Pair::new();
        for ms in (0..200_000).step_by(100) {
            pair.run(at(ms));
            if ms % every == 300 % every {
                input.iter().for_each(|input| pair.child(at(ms), input.clone()));
            }
        }
        pair.child.counters().updates.get()
    };
    let calm = updates(10_000, None);
    // One leap, or one service that fails, in ten intervals; and leaps without end.
    for (every, input) in [(10_000, child::Input::Soon), (10_000, child::Input::Urgent), (100, child::Input::Soon)] {
        let hurried = updates(every, Some(input.clone()));
        assert!(hurried.abs_diff(calm) <= calm / 100, "{input:?}: {hurried} updates instead of {calm}");
    }
}

#[test]
fn what_was_said_is_believed_for_three_intervals_and_a_session_that_comes_back_changes_nothing() {
    let mut pair = Pair::new();
    pair.run(at(1000));
    pair.reachable = false;
    pair.run(at(3999));
    assert_eq!(pair.load(), Some(500_000));
    pair.run(at(4000));
    assert_eq!((pair.load(), pair.parent.counters().expired.get()), (None, 1));
    pair.reachable = true;
    pair.run(at(40_000));
    assert_eq!(pair.load(), Some(500_000));
    assert_eq!(pair.child.stage(), Stage::Established);

    // A break that is shorter than that.
    let mut pair = Pair::new();
    pair.run(at(1000));
    let session = pair.session.take().unwrap();
    let outputs = pair.parent.handle(at(1000), parent::Input::Closed(session, "reset"));
    assert!(!outputs.iter().any(|output| matches!(output, parent::Output::Changed(_))), "{outputs:?}");
    pair.child(at(1000), child::Input::Closed("reset"));
    pair.run(at(3000));
    assert_eq!((pair.load(), pair.parent.counters().expired.get()), (Some(500_000), 0));
}

#[test]
fn who_leaves_is_gone_at_once_and_who_drains_is_not() {
    let mut pair = Pair::new();
    pair.run(at(0));
    pair.child(at(10), child::Input::Drain(true));
    assert!(pair.parent.news("site1").unwrap().draining);
    pair.child(at(20), child::Input::Drain(false));
    assert!(!pair.parent.news("site1").unwrap().draining);
    pair.child(at(30), child::Input::Leave("maintenance"));
    assert_eq!((pair.load(), pair.child.stage(), pair.child.next_deadline()), (None, Stage::Left, None));
    assert!(pair.told.iter().any(|line| line.contains("site1 has left: maintenance")), "{:?}", pair.told);
}

#[test]
fn a_session_that_drains_says_so_again_when_it_comes_back() {
    let mut pair = Pair::new();
    pair.child(at(0), child::Input::Drain(true));
    pair.run(at(0));
    assert!(pair.parent.news("site1").unwrap().draining);
    // And that it does no more, if that has changed while it was away.
    let session = pair.session.take().unwrap();
    pair.parent.handle(at(100), parent::Input::Closed(session, "reset"));
    pair.child(at(100), child::Input::Closed("reset"));
    pair.child(at(100), child::Input::Drain(false));
    pair.run(at(1000));
    assert!(!pair.parent.news("site1").unwrap().draining);
}

#[test]
fn who_drains_knows_when_the_parent_has_heard_it_or_believes_nothing_any_more() {
    let mut pair = Pair::new();
    pair.run(at(1000));
    pair.child(at(1010), child::Input::Drain(true));
    assert!(!pair.child.is_drained(at(1010)), "nothing is acknowledged yet");
    pair.run(at(1050));
    assert!(pair.child.is_drained(at(1050)));
    // A session that comes back says it again.
    let session = pair.session.take().unwrap();
    pair.parent.handle(at(1100), parent::Input::Closed(session, "reset"));
    pair.child(at(1100), child::Input::Closed("reset"));
    pair.run(at(2000));
    assert_eq!((pair.child.stage(), pair.child.is_drained(at(2000))), (Stage::Established, true));

    // Nothing arrives any more: what was said last may have, at 3750: an update that came early makes later ones later.
    let mut pair = Pair::new();
    pair.run(at(1000));
    pair.reachable = false;
    pair.child(at(1500), child::Input::Drain(true));
    pair.run(at(20_000));
    assert_eq!([6749, 6750].map(|ms| pair.child.is_drained(at(ms))), [false, true]);

    // Who has never been heard need not wait.
    let mut pair = Pair::new();
    pair.reachable = false;
    pair.child(at(0), child::Input::Drain(true));
    pair.run(at(1000));
    assert!(pair.child.is_drained(at(1000)));
}

#[test]
fn a_parent_that_is_not_the_right_one_hears_nothing() {
    for (name, level, why) in [("system2", 2, "certificate of system2"), ("system1", 1, "not above our 1")] {
        let mut child = ChildEnd::new(at(0), hello("site1".into(), 1), "system1".into(), 7);
        assert_eq!(child.handle(at(0), child::Input::Tick), [child::Output::Connect]);
        let outputs = child.handle(at(0), child::Input::Opened(identity(name, level)));
        let [child::Output::Told(line), child::Output::Close] = outputs.as_slice() else { panic!("{outputs:?}") };
        assert!(line.contains(why), "{line}");
        assert_eq!(child.stage(), Stage::Waiting);
    }
}

#[test]
fn attempts_become_rarer_and_spread() {
    let mut child = ChildEnd::new(at(0), hello("site1".into(), 1), "system1".into(), 7);
    let mut gaps = Vec::new();
    let mut last = at(0);
    for _ in 0..12 {
        let now = child.next_deadline().unwrap();
        gaps.push((now - last).as_millis());
        last = now;
        assert_eq!(child.handle(now, child::Input::Tick), [child::Output::Connect]);
        child.handle(now, child::Input::Closed("refused"));
    }
    assert!((175..=325).contains(&gaps[1]), "{gaps:?}");
    assert!(gaps[8..].iter().all(|gap| (10_500..=19_500).contains(gap)), "{gaps:?}");
    assert!(gaps[8..].windows(2).all(|pair| pair[0] != pair[1]), "{gaps:?}");
}

fn greeting(name: &str, level: u8) -> Vec<u8> {
    Message::Hello(hello(name.into(), level)).to_bytes()
}

fn update(sequence: u64, records: Vec<Record>) -> Vec<u8> {
    Message::Update(Update { sequence: Sequence(sequence), sent: Token(0), records }).to_bytes()
}

/// The reason for which a parent ends a session in which this comes.
fn refused(identity: Identity, pieces: &[(u64, Vec<u8>)]) -> Option<Reason> {
    let mut parent = parent();
    let mut outputs = parent.handle(at(0), parent::Input::Opened(SessionId(1), identity));
    for (ms, bytes) in pieces {
        outputs.extend(parent.handle(at(*ms), parent::Input::Tick));
        outputs.extend(parent.handle(at(*ms), parent::Input::Received(SessionId(1), bytes)));
    }
    let refusals = Reason::ALL.iter().filter(|reason| parent.counters().refused(**reason).get() > 0);
    let refused: Vec<Reason> = refusals.copied().collect();
    assert!(refused.len() <= 1);
    // Counted, said to the child, said in the log, and closed.
    let said = |reason: Reason| {
        let log = outputs.iter().any(|output| match output {
            parent::Output::Told(line) => line.contains(reason.label()),
            _ => false,
        });
        let mut inbox = crate::control::wire::Inbox::default();
        outputs.iter().for_each(|output| {
            if let parent::Output::Send(_, bytes) = output {
                inbox.push(bytes);
            }
        });
        let mut told = false;
        while let Ok(Some(message)) = inbox.next_message() {
            told |= matches!(message, Message::Refusal(refusal) if refusal.reason == Some(reason));
        }
        log && told && outputs.contains(&parent::Output::Close(SessionId(1)))
    };
    assert!(refused.iter().all(|reason| said(*reason)), "{outputs:?}");
    assert_eq!(refused.is_empty(), !outputs.contains(&parent::Output::Close(SessionId(1))), "{outputs:?}");
    refused.first().copied()
}

#[test]
fn each_way_to_misbehave_ends_the_session_with_its_reason() {
    let site1 = || identity("site1", 1);
    let wide = |net: &str| Hello { offers: vec![net.parse().unwrap()], ..hello("site1".into(), 1) };
    let future = Hello { version: 9, version_min: 9, ..hello("site1".into(), 1) };
    let newer = Hello { version: 9, version_min: 1, ..hello("site1".into(), 1) };
    let hello = || (0, greeting("site1", 1));
    /// What it is, its certificate, what it sends and when, and what becomes of it.
    type Row = (&'static str, Identity, Vec<(u64, Vec<u8>)>, Option<Reason>);
    let table: Vec<Row> = vec![
        ("an honest child", site1(), vec![hello(), (10, update(1, vec![record("192.0.2.1/32", 1)]))], None),
        ("a stranger", identity("site9", 1), vec![], Some(Reason::UnknownChild)),
        ("one of our level", identity("site1", 2), vec![], Some(Reason::Level)),
        ("an old certificate", Identity { not_after: WallClock(1000), ..site1() }, vec![], Some(Reason::Certificate)),
        (
            "a certificate that ends",
            Identity { not_after: WallClock(61_000), ..site1() },
            vec![hello(), (60_000, update(1, vec![]))],
            Some(Reason::Certificate),
        ),
        ("another's name", site1(), vec![(0, greeting("site2", 1))], Some(Reason::NotItself)),
        ("another level", site1(), vec![(0, greeting("site1", 0))], Some(Reason::NotItself)),
        (
            "a foreign prefix",
            site1(),
            vec![(0, Message::Hello(wide("198.51.100.0/24")).to_bytes())],
            Some(Reason::Prefix),
        ),
        (
            "too wide a prefix",
            site1(),
            vec![(0, Message::Hello(wide("192.0.0.0/16")).to_bytes())],
            Some(Reason::Prefix),
        ),
        ("its own prefix", site1(), vec![(0, Message::Hello(wide("192.0.2.128/25")).to_bytes())], None),
        ("no version in common", site1(), vec![(0, Message::Hello(future).to_bytes())], Some(Reason::Version)),
        ("a newer one that speaks ours", site1(), vec![(0, Message::Hello(newer).to_bytes())], None),
        ("junk", site1(), vec![(0, vec![0xff; 64])], Some(Reason::Malformed)),
        ("news before the hello", site1(), vec![(0, update(1, vec![]))], Some(Reason::Malformed)),
        ("two hellos", site1(), vec![hello(), hello()], Some(Reason::Malformed)),
        ("a parent's word", site1(), vec![hello(), (0, Message::Probe(Token(1)).to_bytes())], Some(Reason::Malformed)),
        ("silence", site1(), vec![(4999, vec![]), (5000, vec![])], Some(Reason::TooSlow)),
        (
            "a byte a second",
            site1(),
            (0..30).map(|second| (1000 * second, greeting("site1", 1)[second as usize % 16..][..1].to_vec())).collect(),
            Some(Reason::TooSlow),
        ),
        (
            "a message that does not end",
            site1(),
            [hello()]
                .into_iter()
                .chain((0..20).map(|second| (1000 * second, vec![2, 0, 1, 0][..1].to_vec())))
                .collect(),
            Some(Reason::TooSlow),
        ),
        (
            "a gigabyte that nobody knows",
            site1(),
            [hello()]
                .into_iter()
                .chain((0..8192).map(|_| (1, [&[200, 1, 0xff, 0xfc][..], &[0; 0x1fffc]].concat())))
                .collect(),
            Some(Reason::TooFast),
        ),
        (
            "small messages without end",
            site1(),
            [hello()].into_iter().chain((0..300).map(|_| (1, vec![200, 0, 0, 0]))).collect(),
            Some(Reason::TooFast),
        ),
        (
            "too many virtual subnets",
            site1(),
            vec![hello(), (0, update(1, (0..101).map(|i| record(&format!("192.0.2.{i}/32"), 1)).collect()))],
            Some(Reason::TooMany),
        ),
    ];
    for (what, identity, pieces, expected) in table {
        assert_eq!(refused(identity, &pieces), expected, "{what}");
    }
}

#[test]
fn records_beyond_the_certificate_are_left_out_and_the_others_stay() {
    let mut pair = Pair::new();
    pair.records = vec![record("192.0.2.0/24", 1), record("198.51.100.0/24", 2), record("0.0.0.0/0", 3)];
    pair.run(at(3000));
    let news = pair.parent.news("site1").unwrap();
    assert_eq!((news.report.len(), news.refused, pair.load()), (1, 2, Some(1)));
    assert_eq!(pair.parent.counters().records_refused.get(), 8);
    assert!(pair.child.refusal().unwrap().contains("198.51.100.0/24"), "{:?}", pair.child.refusal());
    // Once in each log, however often it is tried.
    let told = pair.told.iter().filter(|line| line.contains("198.51.100.0/24")).count();
    assert_eq!(told, 2, "{:?}", pair.told);
    // And when it stops, all is well again.
    pair.records.truncate(1);
    pair.run(at(4000));
    assert_eq!((pair.parent.news("site1").unwrap().refused, pair.child.refusal()), (0, None));
}

#[test]
fn the_newest_session_of_a_child_counts_and_old_news_do_not() {
    let mut parent = parent();
    for id in [1, 2] {
        parent.handle(at(0), parent::Input::Opened(SessionId(id), identity("site1", 1)));
        parent.handle(at(0), parent::Input::Received(SessionId(id), &greeting("site1", 1)));
    }
    assert_eq!(parent.counters().refused(Reason::Replaced).get(), 1);
    assert_eq!(parent.counters().sessions.get(), 1);
    let load = |parent: &ParentEnd| parent.news("site1").unwrap().report.records().next().map(|r| r.load.0);
    for (sequence, load_sent, load_known) in [(2, 5, 5), (1, 6, 5), (2, 7, 5), (3, 8, 8)] {
        let bytes = update(sequence, vec![record("192.0.2.0/24", load_sent)]);
        parent.handle(at(0), parent::Input::Received(SessionId(2), &bytes));
        // What the older session says is not heard.
        parent.handle(at(0), parent::Input::Received(SessionId(1), &update(99, vec![record("192.0.2.0/24", 1)])));
        assert_eq!(load(&parent), Some(load_known), "update {sequence}");
    }
    assert_eq!(parent.counters().stale.get(), 2);
}

#[test]
fn more_sessions_than_there_is_room_for_are_refused_and_the_others_stay() {
    let mut parent = parent();
    for (id, site) in (0..).zip(["site1", "site2", "site1", "site2", "site1"]) {
        parent.handle(at(0), parent::Input::Opened(SessionId(id), identity(site, 1)));
        if id < 2 {
            parent.handle(at(0), parent::Input::Received(SessionId(id), &greeting(site, 1)));
        }
    }
    assert_eq!((parent.counters().sessions.get(), parent.counters().refused(Reason::TooMany).get()), (3, 2));
    assert!(["site1", "site2"].iter().all(|site| parent.news(site).is_some_and(|news| news.session.is_some())));
}

#[test]
fn a_child_that_opens_sessions_and_says_nothing_takes_the_room_of_one() {
    let mut parent = parent();
    for id in 0..5 {
        parent.handle(at(0), parent::Input::Opened(SessionId(id), identity("site1", 1)));
        assert_eq!((parent.counters().sessions.get(), parent.counters().refused(Reason::Replaced).get()), (1, id));
    }
    parent.handle(at(0), parent::Input::Received(SessionId(4), &greeting("site1", 1)));
    assert!(parent.news("site1").is_some());
}

#[test]
fn a_child_that_the_configuration_drops_is_dropped() {
    let mut pair = Pair::new();
    pair.run(at(0));
    let outputs = pair.parent.reconfigure(BTreeSet::from(["site2".into()]));
    pair.perform(at(1), outputs);
    assert!(pair.parent.news("site1").is_none());
    assert_eq!(pair.child.stage(), Stage::Waiting);
    assert!(pair.child.refusal().unwrap().contains("no child of system1 any more"));
}

proptest! {
    /// Whatever comes from a peer with a good certificate: no panic, and nothing beyond its certificate in force.
    #[test]
    fn any_bytes_leave_only_what_the_certificate_allows(
        pieces in prop::collection::vec((0..3000_u64, prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            Just(greeting("site1", 1)),
            (0..9_u64, prop::sample::select(vec!["192.0.2.0/25", "10.0.0.0/8", "::/0", "2001:db8:1::/48"]))
                .prop_map(|(sequence, net)| update(sequence, vec![record(net, 1)])),
            any::<bool>().prop_map(|drain| Message::Drain(drain).to_bytes()),
        ]), 0..20),
    ) {
        let mut parent = parent();
        let mut now = 0;
        parent.handle(at(0), parent::Input::Opened(SessionId(1), identity("site1", 1)));
        for (wait, bytes) in pieces {
            now += wait;
            parent.handle(at(now), parent::Input::Tick);
            parent.handle(at(now), parent::Input::Received(SessionId(1), &bytes));
            for (name, news) in parent.all_news() {
                prop_assert_eq!(name, "site1");
                prop_assert!(news.expires > at(now) && news.received <= at(now));
                for record in news.report.records() {
                    prop_assert!(identity("site1", 1).may_offer(record.prefix));
                }
            }
        }
    }
}
