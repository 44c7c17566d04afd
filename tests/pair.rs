//! Two routers of a pair on a network that loses, delays, repeats and cuts, by seed: who is active, and for how long both are.

use std::net::IpAddr;
use std::time::Duration;

use slr::clock::Instant;
use slr::ha::election::{Condition, Election, Heard, INTERVALS, Input, Output, Path, Role, Settings};
use slr::ha::heartbeat;
use slr::ha::link::Link;

/// Runs that are left to chance; `SLR_SEEDS` says another number.
const SEEDS: u64 = 100;

const INTERVAL_MS: u64 = INTERVALS[0].as_millis() as u64;
/// Time that a datagram may take.
const DELAY_MS: u64 = 5;
/// From the loss of the active one until the other one is, at most: the down interval of the least priority, and the wait
/// for what was on its way.
const VACANT_MS: u64 = 4 * INTERVAL_MS + 2 * DELAY_MS;
const TURMOIL_MS: u64 = 8_000;
const PEACE_MS: u64 = 4_000;

fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(milliseconds * 1_000_000)
}

/// Numbers of a seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

struct Node {
    settings: Settings,
    election: Election,
    link: Link,
    /// It runs.
    up: bool,
    /// It answers for the addresses.
    holds: bool,
    forbidden: bool,
    lives: u64,
}

impl Node {
    fn new(settings: Settings) -> Node {
        let (election, link) = (Election::new(at(0), settings.clone()), Link::new(&[7; 16], 1));
        Node { settings, election, link, up: false, holds: false, forbidden: false, lives: 0 }
    }

    fn start(&mut self, now: u64, life: u64) {
        self.election = Election::new(at(now), self.settings.clone());
        self.link = Link::new(&[7; 16], life);
        (self.up, self.holds) = (true, false);
        self.lives += 1;
    }
}

enum Word {
    Advertisement(Heard),
    Datagram(Vec<u8>),
    /// What a machine says whose router has ended, or somebody else.
    Refusal,
}

/// Two nodes, and the two ways between them.
struct World {
    dice: Dice,
    nodes: [Node; 2],
    under_way: Vec<(u64, usize, Word)>,
    recorded: Vec<(usize, Vec<u8>)>,
    cut: [bool; 2],
    loss_percent: u64,
    now: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut dice = Dice(seed);
        let equal = dice.next(4) == 0;
        let preempt = [None, Some(Duration::from_millis(300))][usize::from(dice.next(3) > 0)];
        let node = |number: u8, priority| {
            let identity = IpAddr::from([10, 0, 1, number]);
            let interval = Duration::from_millis(INTERVAL_MS);
            Node::new(Settings { priority, interval, preempt, identity, mirrors: false, has_peer: true })
        };
        let mut nodes = [node(1, if equal { 100 } else { 200 }), node(2, 100)];
        nodes[0].start(0, 1001);
        nodes[1].start(dice.next(50), 1002);
        World { dice, nodes, under_way: Vec::new(), recorded: Vec::new(), cut: [false; 2], loss_percent: 0, now: 0 }
    }

    fn perform(&mut self, node: usize, outputs: Vec<Output>) {
        for output in outputs {
            let Settings { identity: from, interval, .. } = self.nodes[node].settings;
            match output {
                Output::Advertise(priority) => {
                    let heard = Heard { path: Path::Access, active: true, priority, from, interval };
                    self.send(Path::Access, node, Word::Advertisement(heard));
                }
                Output::Heartbeat(role, priority) => {
                    let body = heartbeat::write(role, priority, interval, from);
                    let datagram = self.nodes[node].link.write(heartbeat::KIND, &body);
                    if self.dice.next(50) == 0 {
                        self.recorded.push((1 - node, datagram.clone()));
                    }
                    self.send(Path::Peer, node, Word::Datagram(datagram));
                }
                Output::Take => self.nodes[node].holds = true,
                Output::Release => self.nodes[node].holds = false,
                Output::Announce => assert!(self.nodes[node].holds, "announces what it does not have"),
                Output::Changed(role) => {
                    assert_eq!(self.nodes[node].holds, role == Role::Active, "{role}: the addresses go with the role");
                }
            }
        }
    }

    fn send(&mut self, path: Path, from: usize, word: Word) {
        let lost = self.cut[path as usize] || self.dice.next(100) < self.loss_percent;
        // Without its links a node reaches nobody on the access side.
        let unheard = path == Path::Access && self.nodes[from].forbidden;
        if lost || unheard {
            return;
        }
        let delay = self.dice.next(DELAY_MS + 1);
        let (to, word) = match self.nodes[1 - from].up {
            false if path == Path::Peer => (from, Word::Refusal),
            _ => (1 - from, word),
        };
        self.under_way.push((self.now + delay, to, word));
    }

    fn tell(&mut self, node: usize, input: Input) {
        if self.nodes[node].up {
            let outputs = self.nodes[node].election.handle(at(self.now), input);
            self.perform(node, outputs);
        }
    }

    fn step(&mut self) {
        self.now += 1;
        let now = self.now;
        let due: Vec<_> = self.under_way.extract_if(.., |(due, ..)| *due <= now).collect();
        for (_, to, word) in due {
            if !self.nodes[to].up {
                continue;
            }
            let input = match word {
                Word::Refusal => Some(Input::Refused),
                Word::Advertisement(heard) => Some(Input::Heard(heard)),
                Word::Datagram(bytes) => {
                    let read = self.nodes[to].link.read(at(now), &bytes);
                    let heard =
                        read.ok().and_then(|(kind, body)| (kind == heartbeat::KIND).then(|| heartbeat::read(body))?);
                    heard.map(Input::Heard)
                }
            };
            if let Some(input) = input {
                self.tell(to, input);
            }
        }
        for node in 0..2 {
            let forbidden = self.nodes[node].forbidden;
            if self.nodes[node].up && self.nodes[node].election.condition().forbidden != forbidden
                || self.nodes[node].election.role().0 == Role::Initial
            {
                self.tell(node, Input::Condition(Condition { forbidden, lowered: 0 }));
            }
            self.tell(node, Input::Tick);
        }
    }

    /// Something happens to the network, a node, or what an operator wants.
    fn trouble(&mut self) {
        let node = self.dice.next(2) as usize;
        match self.dice.next(10) {
            0 => self.cut[0] = !self.cut[0],
            1 => self.cut[1] = !self.cut[1],
            2 => self.cut = [true; 2],
            3 => self.cut = [false; 2],
            4 => self.loss_percent = self.dice.next(60),
            5 => (self.nodes[node].up, self.nodes[node].holds) = (false, false),
            6 if !self.nodes[node].up => {
                let life = self.dice.next(u64::MAX >> 1);
                self.nodes[node].start(self.now, life);
            }
            6 => self.nodes[node].forbidden = !self.nodes[node].forbidden,
            7 => {
                let outputs = match (self.nodes[node].up, self.dice.next(2)) {
                    (false, _) => return,
                    (true, 0) => self.nodes[node].election.stand_by(at(self.now)),
                    (true, _) => self.nodes[node].election.take_over(at(self.now)),
                };
                self.perform(node, outputs.unwrap_or_default());
            }
            // Somebody pretends to be the other one's machine.
            8 => self.under_way.push((self.now, node, Word::Refusal)),
            // ... and sends again what was recorded.
            _ => {
                let Some(last) = self.recorded.len().checked_sub(1) else { return };
                for _ in 0..5 {
                    let (to, datagram) = self.recorded[self.dice.next(last as u64 + 1) as usize].clone();
                    self.under_way.push((self.now, to, Word::Datagram(datagram)));
                }
            }
        }
    }

    fn holders(&self) -> usize {
        self.nodes.iter().filter(|node| node.holds).count()
    }

    /// Whether each hears the other by all ways.
    fn is_whole(&self) -> bool {
        self.cut == [false; 2] && self.loss_percent == 0 && self.nodes.iter().all(|node| node.up && !node.forbidden)
    }
}

fn one_run(seed: u64) {
    let mut world = World::new(seed);
    let (mut both, mut none) = (0, 0);
    while world.now < TURMOIL_MS + PEACE_MS {
        if world.now < TURMOIL_MS && world.dice.next(60) == 0 {
            world.trouble();
        }
        if world.now == TURMOIL_MS {
            (world.cut, world.loss_percent) = ([false; 2], 0);
            for node in 0..2 {
                world.nodes[node].forbidden = false;
                if !world.nodes[node].up {
                    let life = world.dice.next(u64::MAX >> 1);
                    world.nodes[node].start(world.now, life);
                }
                let wish = world.nodes[node].election.take_over(at(world.now));
                world.perform(node, wish.unwrap_or_default());
            }
        }
        world.step();
        let holders = world.holders();
        // One hears the other within an interval of the end of a partition, and says so within the next delay.
        both = if holders == 2 && world.is_whole() { both + 1 } else { 0 };
        assert!(both <= INTERVAL_MS + 2 * DELAY_MS, "both are active for {both} ms at {}", world.now);
        let able = world.nodes.iter().any(|node| node.up && !node.forbidden);
        none = if holders == 0 && able && world.is_whole() { none + 1 } else { 0 };
        assert!(none <= VACANT_MS, "nobody is active for {none} ms at {}", world.now);
    }
    assert_eq!(world.holders(), 1, "in peace one is active");
    let [first, second] = &world.nodes;
    if first.settings.preempt.is_some() && first.settings.priority > second.settings.priority {
        assert!(first.holds, "the greater one");
    }
}

#[test]
fn whatever_the_network_does_both_are_active_no_longer_than_an_interval_after_it_has_healed() {
    let seeds = std::env::var("SLR_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("SLR_SEEDS: a number"));
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| one_run(seed));
        assert!(outcome.is_ok(), "seed {seed} fails");
    }
}
