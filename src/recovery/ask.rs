//! Who is asked about a flow that a worker does not know, in what order, and what becomes of its packets meanwhile.
//!
//! ```text
//!   stray packet ──► Workers: the other workers are asked ──none──► Peers: WHOHAS ──none, in time──► Nobody
//!   peer's question ──►  │ one has it                          │ answers, the freshest counts
//!                        └──────────► Settled, answers ◄───────┘
//! ```
//!
//! A flow may have passed several routers and left an entry in each; where its client used the same ports twice, old
//! entries are wrong. So answers are gathered for a moment, and the one that has seen a packet last is believed. What is
//! believed must name a tunnel of ours: whoever performs what this says looks for it among the virtual host's children.
//!
//! Everything is bounded: flows that are asked for, packets that are held for each and in all, questions a second in both
//! directions, and how long a question is remembered, so that it is answered once.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::FlowId;
use super::events::{Counters, Event, Last};
use super::whohas::{Answer, Codec, Message, Owner, Question, Unreadable};
use crate::clock::rate_limit::RateLimit;
use crate::clock::{Instant, WallClock};
use crate::config::{Config, FirstPackets, Whohas};

/// Flows that are asked for at the same time.
const LOOKUPS: usize = 4096;
/// Packets that are held for one flow, and in all.
const EACH: usize = 4;
const ALL: usize = 1024;

/// How long workers may take to answer: they do it between two bursts.
const WORKERS_PATIENCE: Duration = Duration::from_millis(50);

/// How long answers are gathered, from the question on.
const GATHERING: Duration = Duration::from_millis(10);

/// How far clocks may be apart, and datagrams be under way.
const CLOCKS: Duration = Duration::from_secs(5);

/// Questions that are remembered at most.
const SEEN: usize = 1 << 17;

/// What is asked, and whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Workers of this router.
    pub workers: u16,
    /// Whether they are asked about each other's strays.
    pub asks_workers: bool,
    /// What becomes of a flow's first packets.
    pub first_packets: FirstPackets,
    /// Which other routers are asked.
    pub whohas: Option<Whohas>,
}

impl Settings {
    /// Those of a configuration.
    pub fn of(config: &Config) -> Settings {
        Settings {
            workers: config.workers.count,
            asks_workers: config.recovery.asks_workers,
            first_packets: config.recovery.first_packets,
            whohas: config.recovery.whohas.clone(),
        }
    }
}

/// What time it is.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// By this process's clock.
    pub instant: Instant,
    /// By the calendar, which routers compare.
    pub wall: WallClock,
}

/// What happens; `P` is all that is needed to carry a packet again.
#[derive(Debug)]
pub enum Input<'a, P> {
    /// A packet of a flow that `worker` does not know; `None` where it cannot be carried again.
    Stray {
        /// Its flow.
        flow: FlowId,
        /// Who does not know it.
        worker: usize,
        /// The packet.
        packet: Option<P>,
    },
    /// What a worker has found.
    Found {
        /// That of [`Output::AskWorkers`].
        number: u64,
        /// Where the flow goes.
        owner: Option<Owner>,
    },
    /// A datagram has come.
    Datagram {
        /// From there.
        from: SocketAddr,
        /// What it holds.
        bytes: &'a [u8],
    },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output<P> {
    /// Ask the workers for a flow; each answers with [`Input::Found`].
    AskWorkers {
        /// To be given back.
        number: u64,
        /// Which.
        flow: FlowId,
        /// Who has been seen not to know it.
        but: Option<usize>,
    },
    /// Send a datagram.
    Send {
        /// There.
        to: SocketAddr,
        /// This.
        datagram: Vec<u8>,
    },
    /// The flow goes there: make an entry, and carry the packets again.
    Settled {
        /// Which.
        flow: FlowId,
        /// Where it goes.
        owner: Owner,
        /// Who is to know it.
        workers: Vec<usize>,
        /// What was held.
        packets: Vec<P>,
    },
    /// Nobody knows the flow.
    Nobody {
        /// Which.
        flow: FlowId,
        /// Who has got packets of it.
        workers: Vec<usize>,
        /// What was held.
        packets: Vec<P>,
    },
    /// This packet is not held; its flow may still be asked for.
    Pass {
        /// Its flow.
        flow: FlowId,
        /// The packet.
        packet: P,
    },
}

/// A flow that is asked for.
#[derive(Debug)]
struct Lookup<P> {
    flow: FlowId,
    stage: Stage,
    due: Instant,
    /// Where it goes, by the freshest that is known.
    owner: Option<Owner>,
    /// Who has got packets of it; none where only peers ask.
    workers: Vec<usize>,
    held: Vec<P>,
    /// Peers' questions about it, and where they came from.
    questions: Vec<(Question, SocketAddr)>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// So many workers have not answered yet.
    Workers { waiting: u16 },
    /// The peers were asked then; so many have answered.
    Peers { since: Instant, answers: usize },
}

/// The machine.
#[derive(Debug)]
pub struct Asking<P> {
    settings: Settings,
    codec: Option<Codec>,
    questions: RateLimit,
    answers: RateLimit,
    /// The number of the next lookup.
    next: u64,
    lookups: HashMap<u64, Lookup<P>>,
    by_flow: HashMap<FlowId, u64>,
    due: BTreeSet<(Instant, u64)>,
    held: usize,
    /// Questions of others: which, and until when they are remembered.
    seen: HashSet<(SocketAddr, u64)>,
    remembered: VecDeque<(Instant, (SocketAddr, u64))>,
    counters: Arc<Counters>,
    last: Last,
}

impl<P> Asking<P> {
    /// A machine whose questions are numbered from `seed` on, which is to be another each time that the router starts.
    pub fn new(settings: Settings, seed: u64) -> Asking<P> {
        let none = RateLimit::new(1, 1);
        let mut asking = Asking {
            settings: settings.clone(),
            codec: None,
            questions: none,
            answers: none,
            next: seed,
            lookups: HashMap::new(),
            by_flow: HashMap::new(),
            due: BTreeSet::new(),
            held: 0,
            seen: HashSet::new(),
            remembered: VecDeque::new(),
            counters: Arc::default(),
            last: Last::default(),
        };
        asking.reconfigure(settings);
        asking
    }

    /// Goes over to other settings. What is asked stays asked.
    pub fn reconfigure(&mut self, settings: Settings) {
        self.codec = settings.whohas.as_ref().map(|whohas| Codec::new(&whohas.key));
        let per_second = settings.whohas.as_ref().map_or(1, |whohas| whohas.questions_per_second);
        let limit = RateLimit::new(per_second, per_second.div_ceil(10));
        (self.questions, self.answers, self.settings) = (limit, limit, settings);
    }

    /// What has been counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What has happened last.
    pub fn last(&self) -> &Last {
        &self.last
    }

    /// The same, to add what others have done.
    pub fn last_mut(&mut self) -> &mut Last {
        &mut self.last
    }

    /// When time alone changes something.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Takes in what happens, and says what is to be done.
    pub fn handle(&mut self, now: Now, input: Input<'_, P>) -> Vec<Output<P>> {
        let mut out = Vec::new();
        match input {
            Input::Stray { flow, worker, packet } => self.stray(now, flow, (worker, packet), &mut out),
            Input::Found { number, owner } => self.found(now, number, owner, &mut out),
            Input::Datagram { from, bytes } => self.datagram(now, from, bytes, &mut out),
            Input::Tick => {}
        }
        while let Some(&(due, number)) = self.due.first()
            && due <= now.instant
        {
            match self.lookups[&number].stage {
                Stage::Workers { .. } => self.workers_done(now, number, &mut out),
                Stage::Peers { .. } => self.end(now, number, Event::PeersFound, &mut out),
            }
        }
        out
    }

    fn count(&self, event: Event) {
        self.counters.of(event).add(1);
    }

    fn stray(&mut self, now: Now, flow: FlowId, (worker, packet): (usize, Option<P>), out: &mut Vec<Output<P>>) {
        self.count(Event::Stray);
        let known = self.by_flow.get(&flow).copied();
        let number = match known {
            Some(number) => number,
            None if self.lookups.len() >= LOOKUPS => {
                self.count(Event::Overload);
                out.extend(packet.map(|packet| Output::Pass { flow, packet }));
                return;
            }
            None => self.start(now, flow),
        };
        let room = self.held < ALL;
        let lookup = self.lookups.get_mut(&number).expect("a flow with a number is being asked for");
        if !lookup.workers.contains(&worker) {
            lookup.workers.push(worker);
        }
        match packet {
            Some(packet) if self.settings.first_packets == FirstPackets::Select => {
                out.push(Output::Pass { flow, packet });
            }
            Some(packet) if room && lookup.held.len() < EACH => {
                lookup.held.push(packet);
                self.held += 1;
            }
            Some(_) => self.count(Event::HeldFull),
            None => {}
        }
        if known.is_none() {
            let others = if self.settings.asks_workers { self.settings.workers.saturating_sub(1) } else { 0 };
            self.ask_workers(now, number, others, Some(worker), out);
        }
    }

    /// A number for a flow that is asked for from now on.
    fn start(&mut self, now: Now, flow: FlowId) -> u64 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let stage = Stage::Workers { waiting: 0 };
        let due = now.instant + WORKERS_PATIENCE;
        let (workers, held, questions) = (Vec::new(), Vec::new(), Vec::new());
        self.lookups.insert(number, Lookup { flow, stage, due, owner: None, workers, held, questions });
        self.by_flow.insert(flow, number);
        self.due.insert((due, number));
        number
    }

    fn ask_workers(&mut self, now: Now, number: u64, waiting: u16, but: Option<usize>, out: &mut Vec<Output<P>>) {
        let Some(lookup) = self.lookups.get_mut(&number) else { return };
        lookup.stage = Stage::Workers { waiting };
        if waiting == 0 {
            return self.workers_done(now, number, out);
        }
        out.push(Output::AskWorkers { number, flow: lookup.flow, but });
        self.count(Event::WorkersAsked);
    }

    fn found(&mut self, now: Now, number: u64, owner: Option<Owner>, out: &mut Vec<Output<P>>) {
        let Some(lookup) = self.lookups.get_mut(&number) else { return };
        let Stage::Workers { waiting } = &mut lookup.stage else { return };
        *waiting = waiting.saturating_sub(1);
        let done = *waiting == 0;
        lookup.owner = fresher(lookup.owner, owner);
        if done {
            self.workers_done(now, number, out);
        }
    }

    /// Goes on when the workers have said what they know.
    fn workers_done(&mut self, now: Now, number: u64, out: &mut Vec<Output<P>>) {
        let Some(lookup) = self.lookups.get_mut(&number) else { return };
        let questions = std::mem::take(&mut lookup.questions);
        let (flow, owner, is_ours) = (lookup.flow, lookup.owner, !lookup.workers.is_empty());
        for (question, from) in questions {
            match owner {
                Some(owner) => self.answer(now, &question, owner, out),
                None => self.pass_on(question, from, out),
            }
        }
        if owner.is_some() || !is_ours || !self.ask_peers(now, number, flow, out) {
            self.end(now, number, Event::WorkersFound, out);
        }
    }

    fn answer(&mut self, now: Now, question: &Question, owner: Owner, out: &mut Vec<Output<P>>) {
        let Some(codec) = &self.codec else { return };
        let answer = Answer { number: question.number, made: now.wall, flow: question.flow, owner };
        out.push(Output::Send { to: question.reply_to, datagram: codec.write(&Message::Answer(answer)) });
        self.count(Event::Answered);
    }

    /// Asks the own peers what another one wants to know.
    fn pass_on(&mut self, question: Question, from: SocketAddr, out: &mut Vec<Output<P>>) {
        let (Some(codec), Some(whohas)) = (&self.codec, &self.settings.whohas) else { return };
        let Some(hops) = question.hops.checked_sub(1) else { return };
        // Nobody's questions go farther than our own would.
        let hops = hops.min(whohas.hops.saturating_sub(1));
        let datagram = codec.write(&Message::Question(Question { hops, ..question }));
        let others = whohas.peers.iter().filter(|peer| ![from, question.reply_to].contains(peer));
        let before = out.len();
        out.extend(others.map(|&to| Output::Send { to, datagram: datagram.clone() }));
        if out.len() > before {
            self.count(Event::PassedOn);
        }
    }

    /// Whether the peers could be asked.
    fn ask_peers(&mut self, now: Now, number: u64, flow: FlowId, out: &mut Vec<Output<P>>) -> bool {
        let (Some(codec), Some(whohas)) = (&self.codec, &self.settings.whohas) else { return false };
        if whohas.peers.is_empty() {
            return false;
        }
        if !self.questions.take(now.instant) {
            self.count(Event::QuestionsLimited);
            return false;
        }
        let question = Question { number, made: now.wall, hops: whohas.hops, flow, reply_to: whohas.listen };
        let datagram = codec.write(&Message::Question(question));
        out.extend(whohas.peers.iter().map(|&to| Output::Send { to, datagram: datagram.clone() }));
        let due = now.instant + whohas.patience;
        self.set(number, Stage::Peers { since: now.instant, answers: 0 }, due);
        self.count(Event::PeersAsked);
        true
    }

    fn set(&mut self, number: u64, stage: Stage, due: Instant) {
        let Some(lookup) = self.lookups.get_mut(&number) else { return };
        self.due.remove(&(lookup.due, number));
        self.due.insert((due, number));
        (lookup.stage, lookup.due) = (stage, due);
    }

    /// Ends a lookup: with what is known, which counts as `found`, or with nothing.
    fn end(&mut self, now: Now, number: u64, found: Event, out: &mut Vec<Output<P>>) {
        let Some(lookup) = self.lookups.remove(&number) else { return };
        self.due.remove(&(lookup.due, number));
        self.by_flow.remove(&lookup.flow);
        self.held -= lookup.held.len();
        let (flow, workers, packets) = (lookup.flow, lookup.workers, lookup.held);
        if workers.is_empty() {
            return;
        }
        let event = if lookup.owner.is_some() { found } else { Event::Nobody };
        self.count(event);
        self.last.add(now.instant, event, flow);
        out.push(match lookup.owner {
            Some(owner) => Output::Settled { flow, owner, workers, packets },
            None => Output::Nobody { flow, workers, packets },
        });
    }

    fn datagram(&mut self, now: Now, from: SocketAddr, bytes: &[u8], out: &mut Vec<Output<P>>) {
        let Some(codec) = &self.codec else { return };
        let message = match codec.read(bytes) {
            Ok(message) => message,
            Err(Unreadable::Forged) => return self.count(Event::Forged),
            Err(Unreadable::Malformed) => return self.count(Event::Malformed),
        };
        let (Message::Question(Question { made, .. }) | Message::Answer(Answer { made, .. })) = message;
        if made.0.abs_diff(now.wall.0) > CLOCKS.as_millis() as u64 {
            return self.count(Event::Stale);
        }
        match message {
            Message::Question(question) => self.question(now, question, from, out),
            Message::Answer(answer) => self.answered(now, &answer, out),
        }
    }

    fn question(&mut self, now: Now, question: Question, from: SocketAddr, out: &mut Vec<Output<P>>) {
        while self.remembered.front().is_some_and(|(until, _)| *until <= now.instant) {
            if let Some((_, forgotten)) = self.remembered.pop_front() {
                self.seen.remove(&forgotten);
            }
        }
        let which = (question.reply_to, question.number);
        let own = self.settings.whohas.as_ref().is_some_and(|whohas| whohas.listen == question.reply_to);
        if own || self.seen.contains(&which) {
            return self.count(Event::Duplicate);
        }
        if self.seen.len() >= SEEN || !self.answers.take(now.instant) {
            return self.count(Event::AnswersLimited);
        }
        self.seen.insert(which);
        // As long as another copy would not be stale.
        self.remembered.push_back((now.instant + 2 * CLOCKS, which));
        let number = match self.by_flow.get(&question.flow) {
            Some(number) => *number,
            None if self.lookups.len() >= LOOKUPS => return self.count(Event::Overload),
            None => {
                let number = self.start(now, question.flow);
                self.lookups.entry(number).and_modify(|lookup| lookup.questions.push((question, from)));
                return self.ask_workers(now, number, self.settings.workers, None, out);
            }
        };
        let Some(lookup) = self.lookups.get_mut(&number) else { return };
        match lookup.stage {
            Stage::Workers { .. } => lookup.questions.push((question, from)),
            // We do not have it ourselves.
            Stage::Peers { .. } => self.pass_on(question, from, out),
        }
    }

    fn answered(&mut self, now: Now, answer: &Answer, out: &mut Vec<Output<P>>) {
        let lookup = self.lookups.get_mut(&answer.number).filter(|lookup| lookup.flow == answer.flow);
        let peers = self.settings.whohas.as_ref().map_or(0, |whohas| whohas.peers.len());
        let Some(Lookup { stage: Stage::Peers { since, answers }, owner, .. }) = lookup else {
            return self.count(Event::Unasked);
        };
        *owner = fresher(*owner, Some(answer.owner));
        let (since, answers) = (*since, *answers + 1);
        if answers >= peers || now.instant - since >= GATHERING {
            return self.end(now, answer.number, Event::PeersFound, out);
        }
        self.set(answer.number, Stage::Peers { since, answers }, since + GATHERING);
    }
}

/// That of two which has seen a packet last.
fn fresher(one: Option<Owner>, other: Option<Owner>) -> Option<Owner> {
    [one, other].into_iter().flatten().min_by_key(|owner| owner.idle)
}
