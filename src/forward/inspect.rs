//! How the slow path looks into a worker's flow tables, which nobody but the worker may touch: it asks, the worker copies.
//!
//! ```text
//! slow path: Desk ── walk all flows, find one ──► worker: Inspector
//!                 ◄── copies of flow entries ────
//! ```
//!
//! The worker walks a few groups of slots in a turn of its loop, as long as the ring has room, and looks for single flows at once.
//! While nobody asks it reads one flag a turn. Flows come and go and change their groups meanwhile: one that does may be
//! missed, or copied twice.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use super::orders::{Clerk, NewFlows, Rings};
use crate::clock::Tick;
use crate::flow::key::{FlowKey, KeyV4, KeyV6};
use crate::flow::memory::Memory;
use crate::flow::record::Entry;
use crate::flow::state::{FlowState, Timeouts};
use crate::flow::table::{GROUP, Table};
use crate::units::TargetId;

use zerocopy::FromZeros;

/// Copies that wait for the slow path at most.
const COPIES: usize = 1024;

/// Single flows that are looked for at the same time.
const FINDS: usize = 8;

/// Flows that the slow path looks for in its own business at the same time: as many as it asks for at once.
const QUESTIONS: usize = 4096;

/// Groups that are walked in one turn.
const GROUPS: usize = 2;

/// A key of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Over IPv4.
    V4(KeyV4),
    /// Over IPv6.
    V6(KeyV6),
}

impl Key {
    /// The key of a 5-tuple; `None` where the families differ.
    pub fn between(source: SocketAddr, destination: SocketAddr, protocol: u8) -> Option<Key> {
        let ([a, b], [c, d]) = (source.port().to_be_bytes(), destination.port().to_be_bytes());
        let ports = [a, b, c, d];
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (source, destination) = (source.octets(), destination.octets());
                Some(Key::V4(KeyV4 { source, destination, ports, protocol }))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (source, destination) = (source.octets(), destination.octets());
                Some(Key::V6(KeyV6 { source, destination, ports, protocol }))
            }
            _ => None,
        }
    }

    /// The client's address; of a coarse key the first one of its prefix.
    pub fn source(&self) -> IpAddr {
        match self {
            Key::V4(key) => key.source.into(),
            Key::V6(key) => key.source.into(),
        }
    }
}

impl From<KeyV4> for Key {
    fn from(key: KeyV4) -> Key {
        Key::V4(key)
    }
}

impl From<KeyV6> for Key {
    fn from(key: KeyV6) -> Key {
        Key::V6(key)
    }
}

/// A copy of a flow entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The flow's key.
    pub key: Key,
    /// Where its packets go.
    pub target: TargetId,
    /// How far it has come.
    pub state: FlowState,
    /// Packets so far.
    pub packets: u64,
    /// Bytes of IP packets so far.
    pub bytes: u64,
    /// Time since its first packet.
    pub age: Duration,
    /// Time since its last packet.
    pub idle: Duration,
}

impl Flow {
    fn of<K: FlowKey + Into<Key>>(entry: Entry<K>, now: Tick) -> Flow {
        let since = |then| Duration::from_millis(u64::from(now.since(then)));
        Flow {
            key: entry.key.into(),
            target: entry.target,
            state: entry.state,
            packets: entry.packets,
            bytes: entry.bytes,
            age: since(entry.created),
            idle: since(entry.last_seen),
        }
    }
}

/// What a walk comes upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walked {
    /// A flow.
    Flow(Flow),
    /// The end of the tables.
    End,
}

/// What both ends have.
pub(super) struct Shared {
    /// There is something to do for the worker.
    asked: AtomicBool,
    /// The number of the walk that is wanted; 0 for none.
    walk: AtomicU32,
    walked: ArrayQueue<(u32, Walked)>,
    finds: ArrayQueue<Key>,
    found: ArrayQueue<(Key, Option<Flow>)>,
    questions: ArrayQueue<(u64, Key)>,
    answers: ArrayQueue<(u64, Option<Flow>)>,
    /// Groups that the survey may still walk, and what it has come upon.
    surveying: AtomicU32,
    surveyed: ArrayQueue<(u32, Walked)>,
    pub(super) rings: Rings,
}

impl Shared {
    /// There is something to do for the worker.
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }
}

/// The slow path's end.
pub struct Desk {
    shared: Arc<Shared>,
    /// The number of the last walk.
    walks: u32,
}

/// The worker's end.
pub struct Inspector {
    shared: Arc<Shared>,
    walk: Walk,
    survey: Walk,
}

/// How far a walk has come.
#[derive(Clone, Copy, Default)]
struct Walk {
    number: u32,
    v4: usize,
    v6: usize,
    under_way: bool,
}

/// The two ends of the way into one worker's flow tables. All memory is taken now.
pub fn pair() -> (Desk, Inspector) {
    let shared = Arc::new(Shared {
        asked: AtomicBool::new(false),
        walk: AtomicU32::new(0),
        walked: ArrayQueue::new(COPIES),
        finds: ArrayQueue::new(FINDS),
        found: ArrayQueue::new(FINDS),
        questions: ArrayQueue::new(QUESTIONS),
        answers: ArrayQueue::new(QUESTIONS),
        surveying: AtomicU32::new(0),
        surveyed: ArrayQueue::new(COPIES),
        rings: Rings::new(),
    });
    (Desk { shared: shared.clone(), walks: 0 }, Inspector { shared, walk: Walk::default(), survey: Walk::default() })
}

/// Another end of the slow path, for a walk over all flows that goes on for ever, as slowly as is wanted.
pub struct Surveyor(Arc<Shared>);

impl Surveyor {
    /// Lets the walk go on by so many groups of slots, instead of by what is left of what was said before.
    pub fn go_on(&self, groups: u32) {
        self.0.surveying.store(groups, Ordering::Relaxed);
        self.0.ask();
    }

    /// What the walk has come upon since; after the end of the tables it begins anew.
    pub fn surveyed(&self) -> Option<Walked> {
        self.0.surveyed.pop().map(|(_, walked)| walked)
    }
}

/// Another end of the slow path, for flows that are looked for without anybody at the desk.
pub struct Finder(Arc<Shared>);

impl Finder {
    /// Has a flow looked for, under a number of the caller's; false when too many are.
    pub fn ask(&self, number: u64, key: Key) -> bool {
        let room = self.0.questions.push((number, key)).is_ok();
        self.0.asked.store(true, Ordering::Release);
        room
    }

    /// The number of a flow that was looked for, and what was found.
    pub fn answer(&self) -> Option<(u64, Option<Flow>)> {
        self.0.answers.pop()
    }
}

impl Desk {
    /// A finder at the same worker. Of several each gets some of the answers.
    pub fn finder(&self) -> Finder {
        Finder(self.shared.clone())
    }

    /// A surveyor of the same worker. There is to be one.
    pub fn surveyor(&self) -> Surveyor {
        Surveyor(self.shared.clone())
    }

    /// The end of who gives orders about flows.
    pub fn clerk(&self) -> Clerk {
        Clerk(self.shared.clone())
    }

    /// Starts a walk over all flows; ends the one that is under way.
    pub fn start_walk(&mut self) {
        self.walks = self.walks.wrapping_add(1).max(1);
        self.want(self.walks);
    }

    /// Ends the walk that is under way.
    pub fn stop_walk(&mut self) {
        self.want(0);
        while self.shared.walked.pop().is_some() {}
    }

    fn want(&self, walk: u32) {
        self.shared.walk.store(walk, Ordering::Relaxed);
        self.shared.ask();
    }

    /// What the walk has come upon since, one by one.
    pub fn walked(&mut self) -> Option<Walked> {
        loop {
            let (number, walked) = self.shared.walked.pop()?;
            // Of an earlier walk something may be left.
            if number == self.walks {
                return Some(walked);
            }
        }
    }

    /// Has a flow looked for; false when too many are.
    pub fn find(&self, key: Key) -> bool {
        let room = self.shared.finds.push(key).is_ok();
        self.shared.ask();
        room
    }

    /// A flow that was looked for, and what was found.
    pub fn found(&self) -> Option<(Key, Option<Flow>)> {
        self.shared.found.pop()
    }
}

impl Inspector {
    /// Where the worker tells its new flows.
    pub fn new_flows(&self) -> NewFlows {
        self.shared.rings.new_flows()
    }

    /// Whether there is anything to do.
    #[inline(always)]
    pub fn is_asked(&self) -> bool {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// Does a little of what is asked for.
    #[cold]
    #[inline(never)]
    pub fn answer<M: Memory>(
        &mut self,
        v4: &mut Table<KeyV4, M>,
        v6: &mut Table<KeyV6, M>,
        now: Tick,
        timeouts: &Timeouts,
    ) {
        // Before the look at what there is: who asks later sets it again.
        self.shared.asked.swap(false, Ordering::AcqRel);
        let find = |key| match key {
            Key::V4(key) => find(v4, &key, now, timeouts),
            Key::V6(key) => find(v6, &key, now, timeouts),
        };
        for key in (0..FINDS).map_while(|_| self.shared.finds.pop()) {
            // Whoever asks takes the answers before asking more.
            let _ = self.shared.found.push((key, find(key)));
        }
        for _ in 0..FINDS {
            let Some((number, key)) = self.shared.questions.pop() else { break };
            // Who does not take the answers has waited long enough.
            let _ = self.shared.answers.push((number, find(key)));
        }
        if !self.shared.questions.is_empty() {
            self.shared.asked.store(true, Ordering::Relaxed);
        }
        if self.shared.rings.carry_out(v4, v6, now, timeouts) {
            self.shared.asked.store(true, Ordering::Relaxed);
        }
        let surveying = self.shared.surveying.load(Ordering::Relaxed);
        if surveying > 0 {
            let (ring, groups) = (&self.shared.surveyed, GROUPS.min(surveying as usize));
            let mut step = Step { ring, number: 0, now, timeouts, groups };
            step.walk(v4, &mut self.survey.v4);
            step.walk(v6, &mut self.survey.v6);
            let left = surveying.saturating_sub((groups - step.groups) as u32);
            let ended = self.survey.v6 == v6.groups();
            // Who says more meanwhile says it again soon.
            self.shared.surveying.store(if ended { 0 } else { left }, Ordering::Relaxed);
            if ended && ring.push((0, Walked::End)).is_ok() {
                self.survey = Walk::default();
            }
            if left > 0 && step.groups < groups {
                self.shared.asked.store(true, Ordering::Relaxed);
            }
        }
        let wanted = self.shared.walk.load(Ordering::Relaxed);
        if wanted != self.walk.number {
            self.walk = Walk { number: wanted, under_way: wanted != 0, ..Walk::default() };
        }
        if !self.walk.under_way {
            return;
        }
        self.shared.asked.store(true, Ordering::Relaxed);
        let ring = &self.shared.walked;
        let mut step = Step { ring, number: wanted, now, timeouts, groups: GROUPS };
        step.walk(v4, &mut self.walk.v4);
        step.walk(v6, &mut self.walk.v6);
        if self.walk.v6 == v6.groups() {
            self.walk.under_way = self.shared.walked.push((wanted, Walked::End)).is_err();
        }
    }
}

fn find<K: FlowKey + FromZeros + Into<Key>, M: Memory>(
    table: &Table<K, M>,
    key: &K,
    now: Tick,
    timeouts: &Timeouts,
) -> Option<Flow> {
    table.peek(key, now, timeouts).map(|entry| Flow::of(entry, now))
}

/// What of a walk is done in one turn.
struct Step<'a> {
    ring: &'a ArrayQueue<(u32, Walked)>,
    number: u32,
    now: Tick,
    timeouts: &'a Timeouts,
    /// Groups that may still be walked.
    groups: usize,
}

impl Step<'_> {
    /// Goes on from group `at` to the table's end, at most.
    fn walk<K: FlowKey + FromZeros + Into<Key>, M: Memory>(&mut self, table: &Table<K, M>, at: &mut usize) {
        let walked = self.ring;
        // The worker alone adds to the ring, so that room there is stays there.
        while self.groups > 0 && *at < table.groups() && walked.capacity() - walked.len() >= GROUP {
            let live = table.in_group(*at).filter(|entry| !entry.expired(self.now, self.timeouts));
            for entry in live {
                let _ = walked.push((self.number, Walked::Flow(Flow::of(entry, self.now))));
            }
            self.groups -= 1;
            *at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::flow::memory::Heap;

    fn timeouts() -> Timeouts {
        Timeouts::new(|state| if state == FlowState::Udp { 1000 } else { 9000 })
    }

    fn key_v4(number: u32) -> KeyV4 {
        KeyV4 { source: number.to_be_bytes(), destination: [192, 0, 2, 1], ports: [1, 2, 0, 80], protocol: 17 }
    }

    fn key_v6(number: u128) -> KeyV6 {
        KeyV6 { source: number.to_be_bytes(), destination: [1; 16], ports: [1, 2, 0, 80], protocol: 6 }
    }

    fn insert<K: FlowKey + FromZeros>(table: &mut Table<K>, key: K, target: u32, state: FlowState, now: u32) {
        let hash = table.hash(&key);
        let vacancy = table.vacancy(hash, Tick(now), &timeouts()).expect("room");
        table.fill(vacancy, hash, key, TargetId(target), state, Tick(now)).touch(Tick(now + 1), state, 100);
    }

    /// 3,000 live flows over IPv4, 500 expired ones, and 10 over IPv6.
    fn tables() -> (Table<KeyV4, Heap>, Table<KeyV6, Heap>) {
        let mut v4 = Table::new(5_000, Some(7)).expect("memory");
        let mut v6 = Table::new(100, Some(7)).expect("memory");
        (0..3_000).for_each(|number| insert(&mut v4, key_v4(number), number, FlowState::Udp, 2_000));
        (3_000..3_500).for_each(|number| insert(&mut v4, key_v4(number), number, FlowState::Udp, 500));
        (0..10).for_each(|number| insert(&mut v6, key_v6(number), 9, FlowState::TcpSyn, 500));
        (v4, v6)
    }

    #[test]
    fn a_walk_copies_every_live_flow_once_and_never_more_than_there_is_room_for() {
        let (mut v4, mut v6) = tables();
        let (mut desk, mut inspector) = pair();
        assert!(!inspector.is_asked());
        desk.start_walk();
        let mut seen = HashSet::new();
        let mut turns = 0;
        'walk: loop {
            assert!(inspector.is_asked());
            // As long as nobody takes them the ring fills up and stays as it is.
            for _ in 0..if turns == 0 { 1_000 } else { 3 } {
                inspector.answer(&mut v4, &mut v6, Tick(2_500), &timeouts());
            }
            turns += 1;
            while let Some(walked) = desk.walked() {
                let Walked::Flow(flow) = walked else { break 'walk };
                let number = match flow.key {
                    Key::V4(key) => u128::from(u32::from_be_bytes(key.source)),
                    Key::V6(key) => u128::from_be_bytes(key.source) | 1 << 100,
                };
                assert!(seen.insert(number), "flow {number} twice");
                assert_eq!((flow.packets, flow.bytes), (1, 100));
                let (created, last_seen) = if number < 3_000 { (500, 499) } else { (2_000, 1_999) };
                assert_eq!((flow.age.as_millis(), flow.idle.as_millis()), (created, last_seen), "{number}");
            }
        }
        let expected = (0..3_000).chain((0..10).map(|number| number | 1 << 100)).collect();
        assert_eq!(seen, expected);
        assert!(turns > 3, "the ring is shorter than the tables");
        inspector.answer(&mut v4, &mut v6, Tick(2_500), &timeouts());
        assert!(!inspector.is_asked() && desk.walked().is_none());
    }

    #[test]
    fn a_survey_goes_round_and_round_as_far_as_it_is_let() {
        let (mut v4, mut v6) = tables();
        let (desk, mut inspector) = pair();
        let surveyor = desk.surveyor();
        let mut rounds = Vec::new();
        let (mut seen, mut turns) = (0, 0);
        while rounds.len() < 3 {
            surveyor.go_on(10);
            while inspector.is_asked() {
                inspector.answer(&mut v4, &mut v6, Tick(2_500), &timeouts());
                turns += 1;
            }
            while let Some(walked) = surveyor.surveyed() {
                match walked {
                    Walked::Flow(_) => seen += 1,
                    Walked::End => rounds.push(std::mem::take(&mut seen)),
                }
            }
            assert!(seen <= 10 * GROUP * (turns + 1));
        }
        assert_eq!(rounds, [3_010; 3]);
        // Where nobody takes what it finds it stops.
        surveyor.go_on(u32::MAX);
        (0..5_000).for_each(|_| inspector.answer(&mut v4, &mut v6, Tick(2_500), &timeouts()));
        assert!(std::iter::from_fn(|| surveyor.surveyed()).count() <= COPIES);
    }

    #[test]
    fn a_new_walk_starts_from_the_beginning_and_a_stopped_one_leaves_nothing() {
        let (mut v4, mut v6) = tables();
        let (mut desk, mut inspector) = pair();
        let mut count = |desk: &mut Desk, turns: usize| {
            (0..turns).for_each(|_| inspector.answer(&mut v4, &mut v6, Tick(2_500), &timeouts()));
            std::iter::from_fn(|| desk.walked()).filter(|walked| *walked != Walked::End).count()
        };
        desk.start_walk();
        assert!(count(&mut desk, 3) > 0);
        desk.start_walk();
        let all: usize = (0..200).map(|_| count(&mut desk, 10)).sum();
        assert_eq!(all, 3_010);
        desk.start_walk();
        assert!(count(&mut desk, 1) > 0);
        desk.stop_walk();
        assert_eq!(count(&mut desk, 10), 0);
    }

    #[test]
    fn a_single_flow_is_found_while_it_lives() {
        let (mut v4, mut v6) = tables();
        let (desk, mut inspector) = pair();
        let keys = [Key::V4(key_v4(17)), Key::V4(key_v4(3_017)), Key::V4(key_v4(9_999)), Key::V6(key_v6(3))];
        assert!(keys.iter().all(|key| desk.find(*key)));
        inspector.answer(&mut v4, &mut v6, Tick(2_500), &timeouts());
        let found: Vec<_> = std::iter::from_fn(|| desk.found()).collect();
        let targets = found.iter().map(|(key, flow)| (*key, flow.map(|flow| flow.target.0)));
        let expected = [Some(17), None, None, Some(9)];
        assert_eq!(targets.collect::<Vec<_>>(), keys.into_iter().zip(expected).collect::<Vec<_>>());
        assert!(!inspector.is_asked());
    }

    #[test]
    fn who_asks_for_too_many_is_told() {
        let (desk, _inspector) = pair();
        assert_eq!((0..20).filter(|number| desk.find(key_v4(*number).into())).count(), FINDS);
    }
}
