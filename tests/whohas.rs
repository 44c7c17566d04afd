//! Routers that ask each other who has a flow: alone with its datagrams, and in a network of seeded misfortunes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use slr::clock::{Instant, WallClock};
use slr::config::{FirstPackets, TunnelKind, Whohas};
use slr::flow::state::FlowState;
use slr::recovery::FlowId;
use slr::recovery::ask::{Asking, Input, Now, Output, Settings};
use slr::recovery::events::Event;
use slr::recovery::whohas::{Answer, Codec, Message, Owner, Question};

const KEY: [u8; 16] = [7; 16];
const START: u64 = 1_700_000_000_000;

fn address(router: usize) -> SocketAddr {
    SocketAddr::from(([10, 255, 0, router as u8 + 1], 9479))
}

fn settings(router: usize, peers: impl IntoIterator<Item = usize>, hops: u8) -> Settings {
    let peers = peers.into_iter().map(address).collect();
    let patience = Duration::from_millis(100);
    let whohas = Whohas { listen: address(router), key: KEY, peers, hops, patience, questions_per_second: 10_000 };
    Settings { workers: 1, asks_workers: true, first_packets: FirstPackets::Hold, whohas: Some(whohas) }
}

fn flow(number: u16) -> FlowId {
    FlowId {
        source: SocketAddr::from(([10, 0, 0, 2], number)),
        destination: SocketAddr::from(([192, 0, 2, 80], 80)),
        protocol: 6,
    }
}

fn owner(server: u8, idle: Duration) -> Owner {
    let address = [10, 0, 1, server].into();
    Owner { address, tunnel: TunnelKind::IpIp, state: FlowState::TcpEstablished, idle }
}

fn now(milliseconds: u64) -> Now {
    let instant = Instant::ZERO + Duration::from_millis(milliseconds);
    Now { instant, wall: WallClock(START + milliseconds) }
}

/// A router that has asked its two peers for flow 1 at time 0, with one packet held, and the question.
fn asking() -> (Asking<u32>, Question) {
    let mut asking = Asking::new(settings(0, [1, 2], 1), 1000);
    let sent = asking.handle(now(0), Input::Stray { flow: flow(1), worker: 0, packet: Some(1) });
    let [Output::Send { to, datagram }, Output::Send { to: second, .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((*to, *second), (address(1), address(2)));
    let Ok(Message::Question(question)) = Codec::new(&KEY).read(datagram) else { panic!("no question") };
    assert_eq!((question.flow, question.hops, question.reply_to), (flow(1), 1, address(0)));
    (asking, question)
}

fn hear(asking: &mut Asking<u32>, at: u64, message: &Message) -> Vec<Output<u32>> {
    asking.handle(now(at), Input::Datagram { from: address(1), bytes: &Codec::new(&KEY).write(message) })
}

fn answer(question: &Question, at: u64, server: u8, idle: u64) -> Message {
    let owner = owner(server, Duration::from_millis(idle));
    Message::Answer(Answer { number: question.number, made: WallClock(START + at), flow: question.flow, owner })
}

#[test]
fn the_freshest_answer_counts() {
    for (first, second, server) in [((3, 500), (4, 20), 4), ((3, 20), (4, 500), 3)] {
        let (mut asking, question) = asking();
        assert!(
            hear(&mut asking, 1, &answer(&question, 1, first.0, first.1)).is_empty(),
            "a moment is waited for more"
        );
        let settled = hear(&mut asking, 2, &answer(&question, 2, second.0, second.1));
        let idle = Duration::from_millis(20);
        let expected =
            Output::Settled { flow: flow(1), owner: owner(server, idle), workers: vec![0], packets: vec![1] };
        assert_eq!(settled, [expected]);
        assert!(hear(&mut asking, 3, &answer(&question, 3, 9, 0)).is_empty());
        assert_eq!(asking.counters().of(Event::Unasked).get(), 1, "too late");
    }
}

#[test]
fn one_answer_is_enough_and_none_means_nobody() {
    let (mut asking, question) = asking();
    assert!(hear(&mut asking, 3, &answer(&question, 3, 3, 5)).is_empty());
    assert!(asking.handle(now(9), Input::Tick).is_empty());
    assert!(matches!(&asking.handle(now(10), Input::Tick)[..], [Output::Settled { packets, .. }] if *packets == [1]));
    let (mut asking, _) = self::asking();
    assert!(asking.handle(now(99), Input::Tick).is_empty());
    let nobody = Output::Nobody { flow: flow(1), workers: vec![0], packets: vec![1] };
    assert_eq!(asking.handle(now(100), Input::Tick), [nobody]);
    assert_eq!(asking.next_deadline(), None);
}

#[test]
fn forged_replayed_stale_and_foreign_answers_settle_nothing_and_are_counted() {
    let (mut asking, question) = asking();
    let good = Codec::new(&KEY).write(&answer(&question, 1, 3, 5));
    let mut count = |bytes: &[u8], at: u64, event: Event| {
        let before = asking.counters().of(event).get();
        let done = asking.handle(now(at), Input::Datagram { from: address(1), bytes });
        assert!(done.is_empty(), "{done:?}");
        assert_eq!(asking.counters().of(event).get(), before + 1, "{event}");
    };
    let mut changed = good.clone();
    changed[79] ^= 1;
    count(&changed, 1, Event::Forged);
    count(&Codec::new(&[8; 16]).write(&answer(&question, 1, 3, 5)), 1, Event::Forged);
    count(&good[..100], 1, Event::Malformed);
    count(&[], 1, Event::Malformed);
    // To another question, and to this one about another flow.
    let codec = Codec::new(&KEY);
    count(&codec.write(&answer(&Question { number: 1, ..question }, 1, 3, 5)), 1, Event::Unasked);
    count(&codec.write(&answer(&Question { flow: flow(2), ..question }, 1, 3, 5)), 1, Event::Unasked);
    // Made by a clock that is far off.
    count(&codec.write(&answer(&question, 6_000, 3, 5)), 1, Event::Stale);
    // What was heard once, after the question is over.
    asking.handle(now(1), Input::Datagram { from: address(1), bytes: &good });
    asking.handle(now(10), Input::Tick);
    let replayed = asking.handle(now(11), Input::Datagram { from: address(1), bytes: &good });
    assert!(replayed.is_empty());
    assert_eq!(asking.counters().of(Event::Unasked).get(), 3);
}

#[test]
fn a_question_is_answered_or_passed_on_once() {
    for (found, expected) in [(Some(owner(3, Duration::ZERO)), vec![0]), (None, vec![3])] {
        for copies in [1, 3] {
            let mut asked = Asking::<u32>::new(settings(1, [0, 2, 3], 2), 1);
            let question = Question { number: 5, made: WallClock(START), hops: 1, flow: flow(1), reply_to: address(0) };
            let bytes = Codec::new(&KEY).write(&Message::Question(question));
            let mut out = Vec::new();
            for _ in 0..copies {
                out.extend(asked.handle(now(0), Input::Datagram { from: address(2), bytes: &bytes }));
            }
            let [Output::AskWorkers { number, flow: wanted, but: None }] = out[..] else { panic!("{out:?}") };
            assert_eq!(wanted, flow(1));
            let out = asked.handle(now(1), Input::Found { number, owner: found });
            let to: Vec<_> = out
                .iter()
                .map(|output| matches!(output, Output::Send { to, .. } if expected.iter().any(|&r| *to == address(r))))
                .collect();
            assert_eq!(to, [true], "{out:?}");
            assert_eq!(asked.counters().of(Event::Duplicate).get(), copies - 1);
        }
    }
    // At the end of its hops it goes nowhere, and a router never answers itself.
    for (hops, reply_to, event) in [(0, 0, Event::Nobody), (1, 1, Event::Duplicate)] {
        let mut asked = Asking::<u32>::new(settings(1, [0, 2, 3], 2), 1);
        let question = Question { number: 5, made: WallClock(START), hops, flow: flow(1), reply_to: address(reply_to) };
        let bytes = Codec::new(&KEY).write(&Message::Question(question));
        for output in asked.handle(now(0), Input::Datagram { from: address(2), bytes: &bytes }) {
            let Output::AskWorkers { number, .. } = output else { panic!("{output:?}") };
            assert!(asked.handle(now(1), Input::Found { number, owner: None }).is_empty());
        }
        assert_eq!(asked.counters().of(event).get(), u64::from(event == Event::Duplicate));
    }
}

#[test]
fn questions_in_both_directions_are_limited() {
    let limited = |whohas: &mut Option<Whohas>| whohas.as_mut().expect("peers").questions_per_second = 10;
    let mut ours = settings(0, [1], 1);
    limited(&mut ours.whohas);
    let mut asking = Asking::new(ours.clone(), 1);
    for number in 0..100 {
        asking.handle(now(0), Input::Stray { flow: flow(number), worker: 0, packet: Some(number) });
        let question = Question {
            number: number.into(),
            made: WallClock(START),
            hops: 0,
            flow: flow(1000 + number),
            reply_to: address(1),
        };
        hear_any(&mut asking, &Message::Question(question));
    }
    let count = |event| asking.counters().of(event).get();
    assert_eq!((count(Event::PeersAsked), count(Event::QuestionsLimited)), (1, 99));
    assert_eq!((count(Event::WorkersAsked), count(Event::AnswersLimited)), (1, 99));
}

fn hear_any(asking: &mut Asking<u16>, message: &Message) {
    asking.handle(now(0), Input::Datagram { from: address(1), bytes: &Codec::new(&KEY).write(message) });
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a router's table says of a flow.
#[derive(Clone, Copy)]
struct Entry {
    server: u8,
    seen: u64,
}

struct SimRouter {
    asking: Asking<FlowId>,
    table: HashMap<FlowId, Entry>,
}

/// Five routers in a ring with a chord, each of which asks its neighbours there; a network between them that loses, delays,
/// repeats, partitions and changes datagrams; and somebody who sends again what he has heard.
struct World {
    random: Random,
    routers: Vec<SimRouter>,
    /// By when they arrive, then in order of sending.
    under_way: BTreeMap<(u64, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    heard: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Every server that has ever had a flow.
    truth: HashMap<FlowId, HashSet<u8>>,
    /// That which has it now.
    current: HashMap<FlowId, u8>,
    /// Which routers cannot reach the others.
    cut: HashSet<usize>,
    time: u64,
    hostile: bool,
    delivered: u64,
    lost: u64,
    wrong: u64,
}

const ROUTERS: usize = 5;
const SERVERS: u64 = 8;

impl World {
    fn new(seed: u64, hostile: bool) -> World {
        let peers = |router| [(router + 1) % ROUTERS, (router + ROUTERS - 1) % ROUTERS, (router + 2) % ROUTERS];
        let router = |router| SimRouter {
            asking: Asking::new(settings(router, peers(router), 2), seed.wrapping_mul(1_000_003)),
            table: HashMap::new(),
        };
        World {
            random: Random(seed),
            routers: (0..ROUTERS).map(router).collect(),
            under_way: BTreeMap::new(),
            sent: 0,
            heard: Vec::new(),
            truth: HashMap::new(),
            current: HashMap::new(),
            cut: HashSet::new(),
            time: 0,
            hostile,
            delivered: 0,
            lost: 0,
            wrong: 0,
        }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        let copies = if self.hostile { [0, 1, 1, 1, 1, 1, 2][self.random.below(7) as usize] } else { 1 };
        for _ in 0..copies {
            let (mut datagram, most) = (datagram.clone(), if self.hostile { 60 } else { 3 });
            if self.hostile && self.random.chance(3) {
                let byte = self.random.below(datagram.len() as u64) as usize;
                datagram[byte] ^= 1 << self.random.below(8);
            }
            self.heard.push((from, to, datagram.clone()));
            let at = self.time + 1 + self.random.below(most);
            self.sent += 1;
            self.under_way.insert((at, self.sent), (from, to, datagram));
        }
    }

    fn number(&self, address: SocketAddr) -> usize {
        (0..ROUTERS).find(|router| self::address(*router) == address).expect("a router")
    }

    /// Lets a router take something in, and does what it says.
    fn handle(&mut self, router: usize, input: Input<'_, FlowId>) {
        let now = now(self.time);
        let mut outputs = self.routers[router].asking.handle(now, input);
        while let Some(output) = (!outputs.is_empty()).then(|| outputs.remove(0)) {
            match output {
                Output::AskWorkers { number, flow, but } => {
                    let known = self.routers[router].table.get(&flow).filter(|_| but.is_none());
                    let owner = known.map(|known| owner(known.server, Duration::from_millis(self.time - known.seen)));
                    outputs.extend(self.routers[router].asking.handle(now, Input::Found { number, owner }));
                }
                Output::Send { to, datagram } => self.send(address(router), to, datagram),
                Output::Settled { flow, owner, packets, .. } => {
                    let std::net::IpAddr::V4(server) = owner.address else { panic!("IPv4") };
                    let entry = Entry { server: server.octets()[3], seen: self.time };
                    self.routers[router].table.entry(flow).or_insert(entry);
                    packets.into_iter().for_each(|flow| self.packet(router, flow));
                }
                // The policy is drop.
                Output::Nobody { packets, .. } => self.lost += packets.len() as u64,
                Output::Pass { .. } => self.lost += 1,
            }
        }
    }

    /// A packet in the middle of a flow arrives.
    fn packet(&mut self, router: usize, flow: FlowId) {
        let time = self.time;
        match self.routers[router].table.get_mut(&flow) {
            Some(entry) => {
                entry.seen = time;
                if self.current[&flow] == entry.server { self.delivered += 1 } else { self.wrong += 1 }
            }
            None => self.handle(router, Input::Stray { flow, worker: 0, packet: Some(flow) }),
        }
    }

    /// The first packet of a flow arrives: any server may get it.
    fn open(&mut self, router: usize, flow: FlowId) {
        let server = self.random.below(SERVERS) as u8;
        self.truth.entry(flow).or_default().insert(server);
        self.current.insert(flow, server);
        self.routers[router].table.insert(flow, Entry { server, seen: self.time });
    }

    fn step(&mut self) {
        self.time += 1;
        while let Some(((at, _), _)) = self.under_way.first_key_value().filter(|((at, _), _)| *at <= self.time) {
            let _ = at;
            let (_, (from, to, datagram)) = self.under_way.pop_first().expect("one is there");
            let (a, b) = (self.number(from), self.number(to));
            if self.cut.contains(&a) == self.cut.contains(&b) {
                self.handle(b, Input::Datagram { from, bytes: &datagram });
            }
        }
        for router in 0..ROUTERS {
            if self.routers[router].asking.next_deadline().is_some_and(|due| due <= now(self.time).instant) {
                self.handle(router, Input::Tick);
            }
        }
        if self.hostile {
            if self.random.chance(2) {
                self.cut = (0..ROUTERS).filter(|_| self.random.chance(30)).collect();
            }
            if self.random.chance(20) && !self.heard.is_empty() {
                let (from, _, datagram) = self.heard[self.random.below(self.heard.len() as u64) as usize].clone();
                let to = address(self.random.below(ROUTERS as u64) as usize);
                self.sent += 1;
                self.under_way.insert((self.time + 1, self.sent), (from, to, datagram));
            }
        }
        for (router, SimRouter { table, .. }) in self.routers.iter().enumerate() {
            for (flow, Entry { server, .. }) in table {
                assert!(
                    self.truth[flow].contains(server),
                    "router {router}: {flow} is not, and was not, server {server}'s"
                );
            }
        }
    }
}

fn simulate(seed: u64, hostile: bool) -> World {
    let mut world = World::new(seed, hostile);
    let mut at = HashMap::new();
    for step in 0..1_000 {
        let flow = flow(world.random.below(24) as u16);
        let router = world.random.below(ROUTERS as u64) as usize;
        match world.random.below(20) {
            // The same ports again, perhaps, for another connection.
            0 if hostile || !at.contains_key(&flow) => {
                world.open(router, flow);
                at.insert(flow, router);
            }
            // The network sends it elsewhere.
            1 if at.contains_key(&flow) => {
                at.insert(flow, router);
            }
            2 if hostile => world.routers[router].table.retain(|known, _| *known != flow),
            _ => {
                if let Some(&router) = at.get(&flow) {
                    world.packet(router, flow);
                }
            }
        }
        world.step();
        if step % 300 == 299 && !hostile {
            assert_eq!((world.wrong, world.lost), (0, 0));
        }
    }
    world
}

#[test]
fn no_entry_points_at_a_server_that_never_had_the_flow_whatever_the_network_does() {
    let seeds = std::env::var("SLR_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(200);
    let mut counted = HashMap::new();
    let (mut delivered, mut lost, mut wrong) = (0, 0, 0);
    for seed in 0..seeds {
        let world = std::panic::catch_unwind(|| simulate(seed, true)).unwrap_or_else(|_| panic!("seed {seed}"));
        for router in &world.routers {
            for event in Event::ALL {
                *counted.entry(*event).or_insert(0) += router.asking.counters().of(*event).get();
            }
        }
        delivered += world.delivered;
        lost += world.lost;
        wrong += world.wrong;
    }
    // It was as bad as it was meant to be, and of use all the same.
    for event in [
        Event::PeersFound,
        Event::Nobody,
        Event::Answered,
        Event::PassedOn,
        Event::Duplicate,
        Event::Forged,
        Event::Unasked,
    ] {
        assert!(counted[&event] > seeds, "{event}: {}", counted[&event]);
    }
    assert!(delivered > 5 * lost, "{delivered} delivered, {lost} lost, {wrong} to an earlier connection's server");
    println!(
        "{seeds} seeds: {delivered} delivered, {lost} lost, {wrong} to an earlier connection's server; {counted:?}"
    );
}

#[test]
fn in_a_network_that_only_delays_every_moved_flow_is_found() {
    for seed in 0..20 {
        let world = simulate(seed, false);
        assert_eq!((world.wrong, world.lost), (0, 0), "seed {seed}");
        let found: u64 = world.routers.iter().map(|router| router.asking.counters().of(Event::PeersFound).get()).sum();
        assert!(found > 5, "seed {seed}: {found}");
    }
}
