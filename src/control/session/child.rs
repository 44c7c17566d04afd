//! The child's end of its session with one parent: when to connect, what to say, and when to start again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::{Identity, Smoothed};
use crate::clock::Instant;
use crate::control::random::Random;
use crate::control::wire::{
    Hello, Inbox, Kept, Message, OFFERS_MAX, Record, Sequence, Shortcut, Token, TunnelEnd, Update, VERSION, WallClock,
};
use crate::forward::counters::Counter;
use crate::units::labelled;

/// How long a connection with its handshake, and then a welcome, is waited for.
const CONNECTING: Duration = Duration::from_secs(10);

/// From one attempt to the next: the first time, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// How much attempts vary, so that children of a parent that comes back do not all come at once; in percent.
const JITTER: u8 = 30;

/// Intervals without an acknowledgement after which the session is given up.
const SILENT_INTERVALS: u32 = 3;

/// Times of intervals that are taken from a parent.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(3600));

/// From a snapshot to one that has urgent news, at least.
const URGENT: Duration = Duration::from_millis(50);

/// What part of an interval is between a snapshot and one that says that something has leapt, at least.
const APART: u32 = 4;

/// What part of an interval longer the next ones are until those that were cut short are made up for: so what is sent, and what
/// it costs, is the same in the long run, whatever happens. No more than so many intervals are made up for.
const MADE_UP: u32 = 8;

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The connection that was asked for is there.
    Opened(Identity),
    /// Bytes have come.
    Received(&'a [u8]),
    /// The connection is gone, or has not come about.
    Closed(&'a str),
    /// What [`Output::Report`] asked for.
    Report(Vec<Record>),
    /// Where flows go that the parent has sent, if it has.
    Shortcuts(Vec<Shortcut>),
    /// Where no flow may go any more but by us.
    Revoke(Vec<TunnelEnd>),
    /// Something has changed that should not wait for the end of the interval.
    Urgent,
    /// Something has leapt: the next update comes early, if not too many have.
    Soon,
    /// We want no new flows, or (false) as many as before.
    Drain(bool),
    /// We leave, for what is said.
    Leave(&'a str),
    /// Time has passed.
    Tick,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Connect to the parent.
    Connect,
    /// Send bytes.
    Send(Vec<u8>),
    /// Close the connection after what has been sent.
    Close,
    /// Say by [`Input::Report`] how the virtual subnets are now.
    Report,
    /// Flows that go past us are still there.
    Kept(Vec<Kept>),
    /// To be told in the log.
    Told(String),
}

impl Output {
    /// What is to be told in the log, if it is that.
    pub fn line(self) -> Option<String> {
        if let Output::Told(line) = self { Some(line) } else { None }
    }
}

labelled! {
    /// How far a session has come.
    Stage {
        /// Until the next attempt.
        Waiting => "waiting",
        /// The connection is on its way.
        Connecting => "connecting",
        /// The welcome is waited for.
        Greeting => "greeting",
        /// The parent is told how we are.
        Established => "established",
        /// We have left.
        Left => "left",
    }
}

/// What is counted, to be read by anyone.
#[derive(Debug, Default)]
pub struct ChildCounters {
    /// 1 while the parent is told how we are.
    pub established: Counter,
    /// Updates sent.
    pub updates: Counter,
    /// Updates acknowledged.
    pub acknowledged: Counter,
    /// Records that the parent has refused.
    pub records_refused: Counter,
    /// Sessions that the parent has refused, and other refusals.
    pub refusals: Counter,
    /// Bytes sent.
    pub bytes: Counter,
    /// Connections that were tried.
    pub attempts: Counter,
}

/// The machine.
pub struct ChildEnd {
    hello: Hello,
    /// Name of the parent.
    parent: String,
    stage: Stage,
    /// When the stage ends, or the next update is due.
    at: Instant,
    again: Duration,
    interval: Duration,
    inbox: Inbox,
    sequence: Sequence,
    /// When the last update was asked for.
    asked: Instant,
    unanswered: bool,
    /// By how much intervals have been cut short that are not made up for.
    owed: Duration,
    acknowledged: Instant,
    draining: bool,
    /// The first update behind the word that we drain: who has acknowledged it has heard that.
    drained_by: Sequence,
    drain_heard: bool,
    /// How long an update is believed, and until when the last one is.
    expiry: Duration,
    believed: Instant,
    wall: Option<(Instant, WallClock)>,
    round_trip: Smoothed,
    /// What the parent has said last about why not.
    refusal: Option<String>,
    random: Random,
    counters: Arc<ChildCounters>,
}

impl ChildEnd {
    /// Speaks as `hello` to the parent of this name; the first attempt is due now.
    pub fn new(now: Instant, hello: Hello, parent: String, seed: u64) -> ChildEnd {
        ChildEnd {
            hello,
            parent,
            stage: Stage::Waiting,
            at: now,
            again: AGAIN.0,
            interval: AGAIN.1,
            inbox: Inbox::default(),
            sequence: Sequence(0),
            asked: now,
            unanswered: false,
            owed: Duration::ZERO,
            acknowledged: now,
            draining: false,
            drained_by: Sequence(0),
            drain_heard: false,
            expiry: Duration::ZERO,
            believed: now,
            wall: None,
            round_trip: Smoothed::default(),
            refusal: None,
            random: Random::new(seed),
            counters: Arc::default(),
        }
    }

    /// Offers other prefixes from the next session on.
    pub fn offer(&mut self, offers: Vec<IpNet>) {
        self.hello.offers = offers;
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<ChildCounters> {
        &self.counters
    }

    /// Name of the parent.
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// How far the session has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether [`Output::Report`] has asked and has not been answered.
    pub fn wants_report(&self) -> bool {
        self.stage == Stage::Established && self.unanswered
    }

    /// Whether the parent gives us no new flows: it has heard that we drain, or believes nothing of what we have said.
    pub fn is_drained(&self, now: Instant) -> bool {
        (self.draining && self.drain_heard) || (self.stage != Stage::Established && self.believed <= now)
    }

    /// Why the parent did not take us, or a part of what we said.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Time to the parent and back.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.0
    }

    /// The parent's calendar, as it was told last.
    pub fn wall(&self, now: Instant) -> Option<WallClock> {
        let (at, WallClock(wall)) = self.wall?;
        Some(WallClock(wall.saturating_add(u64::try_from((now - at).as_millis()).unwrap_or(u64::MAX))))
    }

    /// When the next [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Left => None,
            Stage::Established => Some(self.at.min(self.silent())),
            _ => Some(self.at),
        }
    }

    /// Until when the parent must have acknowledged something.
    fn silent(&self) -> Instant {
        self.acknowledged + self.interval * SILENT_INTERVALS
    }

    /// Takes an input in, and returns what is to be done.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Vec<Output> {
        let mut outputs = Vec::new();
        match (input, self.stage) {
            (_, Stage::Left) => {}
            (Input::Opened(identity), Stage::Connecting) => self.greet(now, &identity, &mut outputs),
            (Input::Received(bytes), Stage::Greeting | Stage::Established) => {
                self.inbox.push(bytes);
                self.read(now, &mut outputs);
            }
            (Input::Closed(why), Stage::Connecting | Stage::Greeting | Stage::Established) => {
                let told = match (self.stage, &self.refusal) {
                    (Stage::Connecting, _) => Some(format!("parent {} is not reached: {why}", self.parent)),
                    // It has said why.
                    (_, Some(_)) => None,
                    _ => Some(format!("the session with parent {} is closed: {why}", self.parent)),
                };
                outputs.extend(told.map(Output::Told));
                self.start_again(now);
            }
            (Input::Report(records), Stage::Established) => {
                (self.sequence, self.unanswered) = (Sequence(self.sequence.0 + 1), false);
                self.believed = now + self.expiry;
                let update = Update { sequence: self.sequence, sent: Token(now.as_nanos()), records };
                self.counters.updates.add(1);
                self.send(Message::Update(update), &mut outputs);
            }
            (Input::Shortcuts(told), Stage::Established) => self.send(Message::Shortcuts(told), &mut outputs),
            (Input::Revoke(ends), Stage::Established) => self.send(Message::Revoke(ends), &mut outputs),
            (Input::Urgent, Stage::Established) => self.hurry(now, URGENT),
            (Input::Soon, Stage::Established) if self.owed <= self.interval => self.hurry(now, self.interval / APART),
            (Input::Drain(draining), stage) => {
                let new = std::mem::replace(&mut self.draining, draining) != draining;
                if new && stage == Stage::Established {
                    self.say_drain(&mut outputs);
                    self.hurry(now, URGENT);
                }
            }
            (Input::Leave(why), stage) => {
                if matches!(stage, Stage::Greeting | Stage::Established) {
                    self.send(Message::Goodbye(why.to_owned()), &mut outputs);
                }
                outputs.push(Output::Close);
                self.stage = Stage::Left;
            }
            (Input::Tick, _) => self.tick(now, &mut outputs),
            _ => {}
        }
        self.counters.established.set((self.stage == Stage::Established).into());
        outputs
    }

    fn send(&self, message: Message, outputs: &mut Vec<Output>) {
        let bytes = message.to_bytes();
        self.counters.bytes.add(bytes.len() as u64);
        outputs.push(Output::Send(bytes));
    }

    /// The next update does not wait for the end of the interval, but is at least this far from the last one.
    fn hurry(&mut self, now: Instant, apart: Duration) {
        let at = self.at.min(self.asked + apart).max(now);
        self.owed = (self.owed + (self.at - at)).min(self.interval * MADE_UP);
        self.at = at;
    }

    fn say_drain(&mut self, outputs: &mut Vec<Output>) {
        (self.drained_by, self.drain_heard) = (Sequence(self.sequence.0 + 1), false);
        self.send(Message::Drain(self.draining), outputs);
    }

    fn greet(&mut self, now: Instant, identity: &Identity, outputs: &mut Vec<Output>) {
        let Identity { name, level, .. } = identity;
        let wrong = if *name != self.parent {
            Some(format!("the parent that should be {} has the certificate of {name}", self.parent))
        } else if *level <= self.hello.level {
            let own = self.hello.level;
            Some(format!("parent {name} has level {level} in its certificate, which is not above our {own}"))
        } else {
            None
        };
        if let Some(why) = wrong {
            return self.give_up(now, why, outputs);
        }
        (self.stage, self.at, self.inbox) = (Stage::Greeting, now + CONNECTING, Inbox::default());
        self.send(Message::Hello(self.hello.clone()), outputs);
    }

    fn read(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        loop {
            match self.inbox.next_message() {
                Ok(Some(message)) => self.take_in(now, message, outputs),
                Ok(None) => return,
                Err(error) => {
                    let why = format!("parent {} sends what is no message: {error}", self.parent);
                    return self.give_up(now, why, outputs);
                }
            }
            if !matches!(self.stage, Stage::Greeting | Stage::Established) {
                return;
            }
        }
    }

    fn take_in(&mut self, now: Instant, message: Message, outputs: &mut Vec<Output>) {
        let parent = &self.parent;
        match (message, self.stage) {
            (Message::Welcome(welcome), Stage::Greeting) => {
                if !(self.hello.version_min..=self.hello.version).contains(&welcome.version) {
                    let why = format!("parent {parent} wants to speak version {}", welcome.version);
                    return self.give_up(now, why, outputs);
                }
                outputs.push(Output::Told(format!("parent {parent} has taken us (version {})", welcome.version)));
                (self.stage, self.at, self.again, self.refusal) = (Stage::Established, now, AGAIN.0, None);
                (self.sequence, self.acknowledged) = (Sequence(0), now);
                self.interval = welcome.interval.clamp(INTERVALS.0, INTERVALS.1);
                (self.wall, self.expiry) = (Some((now, welcome.wall)), welcome.expiry.min(INTERVALS.1));
                // The parent may remember otherwise from an earlier session.
                self.say_drain(outputs);
            }
            (Message::Acknowledgement(of), Stage::Established) => {
                self.acknowledged = now;
                self.wall = Some((now, of.wall));
                self.drain_heard |= of.sequence >= self.drained_by;
                self.counters.acknowledged.add(1);
                self.counters.records_refused.add(of.refused.into());
                if of.sequence == self.sequence {
                    self.round_trip.add(now - Instant::from_nanos(of.sent.0));
                }
                if of.refused == 0 {
                    self.refusal = None;
                }
            }
            (Message::Probe(token), Stage::Established) => self.send(Message::Echo(token), outputs),
            (Message::Keep(flows), Stage::Established) => outputs.push(Output::Kept(flows)),
            (Message::Refusal(refusal), _) => {
                let reason = refusal.reason.map_or("another reason", |reason| reason.label());
                outputs.push(Output::Told(format!("parent {parent} refuses ({reason}): {}", refusal.text)));
                self.counters.refusals.add(1);
                self.refusal = Some(refusal.text);
            }
            (Message::Goodbye(why), _) => {
                let why = format!("parent {parent} has left: {why}");
                self.give_up(now, why, outputs);
            }
            _ => {
                let why = format!("parent {parent} sends what does not belong there");
                self.give_up(now, why, outputs);
            }
        }
    }

    fn give_up(&mut self, now: Instant, why: String, outputs: &mut Vec<Output>) {
        outputs.extend([Output::Told(why), Output::Close]);
        self.start_again(now);
    }

    fn start_again(&mut self, now: Instant) {
        let after = self.again.mul_f64(self.random.around(JITTER));
        self.again = (self.again * 2).min(AGAIN.1);
        (self.stage, self.at, self.inbox) = (Stage::Waiting, now + after, Inbox::default());
    }

    fn tick(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        match self.stage {
            Stage::Waiting if self.at <= now => {
                (self.stage, self.at) = (Stage::Connecting, now + CONNECTING);
                self.counters.attempts.add(1);
                outputs.push(Output::Connect);
            }
            Stage::Connecting | Stage::Greeting if self.at <= now => {
                let why = format!("parent {} does not answer", self.parent);
                self.give_up(now, why, outputs);
            }
            Stage::Established if self.silent() <= now => {
                let why = format!("parent {} acknowledges nothing any more", self.parent);
                self.give_up(now, why, outputs);
            }
            Stage::Established if self.at <= now => {
                let longer = self.owed.min(self.interval / MADE_UP);
                self.owed -= longer;
                (self.asked, self.at, self.unanswered) = (now, now + self.interval + longer, true);
                outputs.push(Output::Report);
            }
            _ => {}
        }
    }
}

/// What a node's hello offers of what it serves. What its certificate does not allow is left to be refused record by record, with
/// a reason.
pub fn offers(identity: Option<&Identity>, served: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    let may = |prefix: &IpNet| identity.is_some_and(|of| of.may_offer(*prefix));
    served.filter(may).collect::<BTreeSet<_>>().into_iter().take(OFFERS_MAX).collect()
}

/// What a node says first, with all that this version can do.
pub fn hello(name: String, level: u8) -> Hello {
    let (tunnels, offers) = (Vec::new(), Vec::new());
    Hello {
        version: VERSION,
        version_min: crate::control::wire::VERSION_MIN,
        level,
        capabilities: 0,
        name,
        tunnels,
        offers,
    }
}
