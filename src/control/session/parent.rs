//! The parent's end of its children's sessions: who is let in, what of their news is taken, and for how long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::report::Report;
use super::{Budget, Identity, SessionId, Smoothed};
use crate::clock::Instant;
use crate::control::wire::{
    Acknowledgement, Hello, Inbox, Kept, Message, Reason, Refusal, Sequence, Shortcut, TELLS_SHORTCUTS, Token,
    TunnelEnd, Update, VERSION, VERSION_MIN, WallClock, Welcome,
};
use crate::forward::counters::Counter;

/// How long a hello is waited for.
const GREETING: Duration = Duration::from_secs(5);

/// How long the rest of a message is waited for.
const MESSAGE: Duration = Duration::from_secs(10);

/// Bytes that one session may send a second, and in one go: two of the largest snapshots.
const BYTES: (u64, u64) = (4 << 20, 16 << 20);

/// Messages that one session may send a second, and in one go.
const MESSAGES: (u64, u64) = (100, 200);

/// From one probe of a child to the next, at least.
const PROBING_MIN: Duration = Duration::from_secs(1);

/// An update is believed for so many intervals.
pub const EXPIRY_INTERVALS: u32 = 3;

/// What does not change while it runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our name.
    pub name: String,
    /// Our level; children are below.
    pub level: u8,
    /// From one update of a child to the next.
    pub interval: Duration,
    /// Sessions at the same time at most.
    pub sessions_max: usize,
    /// Records of one child at most.
    pub records_max: usize,
    /// Whether who is below us is a child by its hello, whether it is waited for or not.
    pub takes_anyone: bool,
}

impl Settings {
    /// How long an update is believed.
    pub fn expiry(&self) -> Duration {
        self.interval * EXPIRY_INTERVALS
    }
}

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A session is open.
    Opened(SessionId, Identity),
    /// Bytes have come.
    Received(SessionId, &'a [u8]),
    /// A session is gone.
    Closed(SessionId, &'a str),
    /// Flows that go past a child are still there.
    Keep(&'a str, Vec<Kept>),
    /// Time has passed.
    Tick,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send bytes.
    Send(SessionId, Vec<u8>),
    /// Close a session after what has been sent.
    Close(SessionId),
    /// What is known about a child has changed.
    Changed(String),
    /// Somebody says hello, where anyone may be a child, whose tunnels end there.
    Registered(String, Vec<TunnelEnd>),
    /// A child of this level tells where it sends flows.
    Shortcuts(String, u8, Vec<Shortcut>),
    /// A child sends no flows there any more.
    Revoked(String, Vec<TunnelEnd>),
    /// To be told in the log.
    Told(String),
}

/// What is counted, to be read by anyone.
#[derive(Debug, Default)]
pub struct ParentCounters {
    /// Sessions now, also those that have not greeted yet.
    pub sessions: Counter,
    /// Updates taken.
    pub updates: Counter,
    /// Updates that came late, twice or out of order.
    pub stale: Counter,
    /// Bytes received.
    pub bytes: Counter,
    /// Records that are not in force.
    pub records_refused: Counter,
    /// Children whose last update is too old.
    pub expired: Counter,
    refusals: [Counter; Reason::ALL.len()],
}

impl ParentCounters {
    /// Sessions refused or ended for `reason`.
    pub fn refused(&self, reason: Reason) -> &Counter {
        &self.refusals[reason as usize]
    }
}

/// What is known about a child.
#[derive(Clone, Debug, Default)]
pub struct News {
    /// Its last update.
    pub report: Arc<Report>,
    /// Whether there has been one.
    pub reported: bool,
    /// When that came.
    pub received: Instant,
    /// When that is not believed any more.
    pub expires: Instant,
    /// It wants no new flows.
    pub draining: bool,
    /// Time to it and back, by the sessions' way.
    pub round_trip: Option<Duration>,
    /// Its session, while there is one.
    pub session: Option<SessionId>,
    /// Records of its last update that were refused.
    pub refused: u32,
    /// When its certificate ends.
    pub not_after: WallClock,
    /// It tells where it sends the flows that it is sent.
    pub tells_shortcuts: bool,
}

struct Session {
    identity: Identity,
    inbox: Inbox,
    /// The last of the session's updates; `None` before its hello.
    last: Option<Sequence>,
    /// When the hello, or the rest of a message, must be there.
    due: Option<Instant>,
    bytes: Budget,
    messages: Budget,
    probe_at: Instant,
    probe: Option<Token>,
    round_trip: Smoothed,
    /// The prefix that was refused last, so that it is told once.
    told: Option<ipnet::IpNet>,
}

/// Why a session ends.
struct End(Reason, String);

/// The machine.
pub struct ParentEnd {
    settings: Settings,
    expected: BTreeSet<String>,
    /// In their order, so that the same inputs have the same outputs.
    sessions: BTreeMap<SessionId, Session>,
    children: BTreeMap<String, News>,
    counters: Arc<ParentCounters>,
    /// The calendar at a time.
    wall: (Instant, WallClock),
    /// When something is due at the earliest; may be too early.
    deadline: Option<Instant>,
}

impl ParentEnd {
    /// Waits for the children of these names; it is `wall` now.
    pub fn new(now: Instant, wall: WallClock, settings: Settings, children: BTreeSet<String>) -> ParentEnd {
        ParentEnd {
            settings,
            expected: children,
            sessions: BTreeMap::new(),
            children: BTreeMap::new(),
            counters: Arc::default(),
            wall: (now, wall),
            deadline: None,
        }
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<ParentCounters> {
        &self.counters
    }

    /// How it was set up.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is known about a child; `None` where nothing is, or it is too old.
    pub fn news(&self, child: &str) -> Option<&News> {
        self.children.get(child)
    }

    /// What is known about all children of which anything is.
    pub fn all_news(&self) -> impl Iterator<Item = (&str, &News)> {
        self.children.iter().map(|(name, news)| (name.as_str(), news))
    }

    /// The calendar is corrected: it is `wall` now.
    pub fn set_wall(&mut self, now: Instant, wall: WallClock) {
        self.wall = (now, wall);
    }

    /// Somebody was turned away before there was a session.
    pub fn reject(&mut self) {
        self.counters.refused(Reason::Certificate).add(1);
    }

    /// Waits for other children from now on. Sessions of those that are none any more end.
    pub fn reconfigure(&mut self, children: BTreeSet<String>) -> Vec<Output> {
        self.expected = children;
        let mut outputs = Vec::new();
        let takes_anyone = self.settings.takes_anyone;
        let gone = |session: &Session| !takes_anyone && !self.expected.contains(&session.identity.name);
        let ended: Vec<SessionId> = self.sessions.iter().filter(|(_, s)| gone(s)).map(|(id, _)| *id).collect();
        for id in ended {
            let name = &self.sessions[&id].identity.name;
            let end = End(Reason::UnknownChild, format!("{name} is no child of {} any more", self.settings.name));
            self.end(id, end, &mut outputs);
        }
        self.children.retain(|name, _| takes_anyone || self.expected.contains(name));
        outputs
    }

    /// When the next [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes an input in, and returns what is to be done.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Opened(id, identity) => self.open(now, id, identity, &mut outputs),
            Input::Received(id, bytes) => {
                if let Err(end) = self.receive(now, id, bytes, &mut outputs) {
                    self.end(id, end, &mut outputs);
                }
            }
            Input::Closed(id, why) => self.closed(id, why, &mut outputs),
            Input::Keep(child, flows) => {
                if let Some(id) = self.children.get(child).and_then(|news| news.session) {
                    outputs.push(Output::Send(id, Message::Keep(flows).to_bytes()));
                }
            }
            Input::Tick => self.tick(now, &mut outputs),
        }
        self.counters.sessions.set(self.sessions.len() as u64);
        outputs
    }

    fn wall(&self, now: Instant) -> WallClock {
        let (at, WallClock(wall)) = self.wall;
        WallClock(wall + u64::try_from((now - at).as_millis()).unwrap_or(u64::MAX / 2))
    }

    fn due(&mut self, at: Instant) {
        self.deadline = Some(self.deadline.map_or(at, |before| before.min(at)));
    }

    fn open(&mut self, now: Instant, id: SessionId, identity: Identity, outputs: &mut Vec<Output>) {
        let Identity { name, level, not_after, .. } = &identity;
        let (own, own_level) = (&self.settings.name, self.settings.level);
        let wrong = if !self.settings.takes_anyone && !self.expected.contains(name) {
            Some(End(Reason::UnknownChild, format!("{own} has no child {name}")))
        } else if *level >= own_level {
            let text = format!("{name} has level {level} in its certificate, which is not below {own_level} of {own}");
            Some(End(Reason::Level, text))
        } else if *not_after <= self.wall(now) {
            Some(End(Reason::Certificate, format!("the certificate of {name} is over")))
        } else if self.sessions.len() >= self.settings.sessions_max {
            Some(End(Reason::TooMany, format!("{own} has no room for more sessions")))
        } else {
            None
        };
        let session = Session {
            identity,
            inbox: Inbox::default(),
            last: None,
            due: Some(now + GREETING),
            bytes: Budget::new(BYTES.0, BYTES.1),
            messages: Budget::new(MESSAGES.0, MESSAGES.1),
            probe_at: now,
            probe: None,
            round_trip: Smoothed::default(),
            told: None,
        };
        let name = session.identity.name.clone();
        // One child that keeps opening sessions takes nobody's room.
        let silent = self.sessions.iter().find(|(_, other)| other.last.is_none() && other.identity.name == name);
        let silent = silent.map(|(older, _)| *older).filter(|_| wrong.is_none());
        self.sessions.insert(id, session);
        self.due(now + GREETING);
        if let Some(end) = wrong {
            self.end(id, end, outputs);
        }
        if let Some(older) = silent {
            self.end(older, End(Reason::Replaced, format!("{name} has opened another session")), outputs);
        }
    }

    fn receive(&mut self, now: Instant, id: SessionId, bytes: &[u8], outputs: &mut Vec<Output>) -> Result<(), End> {
        // It may have been refused while they were on their way.
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let name = session.identity.name.clone();
        self.counters.bytes.add(bytes.len() as u64);
        if !session.bytes.take(now, bytes.len() as u64) {
            return Err(End(Reason::TooFast, format!("{name} sends more than {} bytes a second", BYTES.0)));
        }
        session.inbox.push(bytes);
        loop {
            let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
            let skipped = session.inbox.skipped();
            let message = session.inbox.next_message();
            let count = session.inbox.skipped() - skipped + u64::from(matches!(message, Ok(Some(_))));
            if !session.messages.take(now, count) {
                return Err(End(Reason::TooFast, format!("{name} sends more than {} messages a second", MESSAGES.0)));
            }
            match message {
                Ok(Some(message)) => self.take_in(now, id, message, outputs)?,
                Ok(None) => break,
                Err(error) => return Err(End(Reason::Malformed, format!("{name} sends what is no message: {error}"))),
            }
        }
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        if session.last.is_some() {
            session.due = session.inbox.is_waiting().then(|| session.due.unwrap_or(now + MESSAGE));
        }
        if let Some(due) = session.due {
            self.due(due);
        }
        Ok(())
    }

    fn take_in(&mut self, now: Instant, id: SessionId, message: Message, outputs: &mut Vec<Output>) -> Result<(), End> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let name = session.identity.name.clone();
        match (message, session.last) {
            (Message::Hello(hello), None) => self.greet(now, id, &hello, outputs),
            (Message::Update(update), Some(last)) => {
                session.due = None;
                if update.sequence <= last {
                    self.counters.stale.add(1);
                    return Ok(());
                }
                self.update(now, id, update, outputs)
            }
            (Message::Drain(draining), Some(_)) => {
                if let Some(news) = self.children.get_mut(&name)
                    && news.draining != draining
                {
                    news.draining = draining;
                    let what = if draining { "wants no new flows" } else { "takes new flows again" };
                    outputs.extend([Output::Told(format!("child {name} {what}")), Output::Changed(name)]);
                }
                Ok(())
            }
            (Message::Echo(token), Some(_)) => {
                if session.probe.take_if(|asked| *asked == token).is_some() {
                    session.round_trip.add(now - Instant::from_nanos(token.0));
                    let round_trip = session.round_trip.0;
                    if let Some(news) = self.children.get_mut(&name) {
                        news.round_trip = round_trip;
                    }
                }
                Ok(())
            }
            (Message::Shortcuts(shortcuts), Some(_)) => {
                outputs.push(Output::Shortcuts(name, session.identity.level, shortcuts));
                Ok(())
            }
            (Message::Revoke(ends), Some(_)) => {
                outputs.push(Output::Revoked(name, ends));
                Ok(())
            }
            (Message::Goodbye(why), _) => {
                outputs.extend([Output::Told(format!("child {name} has left: {why}")), Output::Close(id)]);
                self.sessions.remove(&id);
                if self.children.get(&name).is_some_and(|news| news.session == Some(id)) {
                    self.children.remove(&name);
                    outputs.push(Output::Changed(name));
                }
                Ok(())
            }
            (other, _) => {
                let what = match other {
                    Message::Hello(_) => "a second hello",
                    Message::Update(_)
                    | Message::Drain(_)
                    | Message::Echo(_)
                    | Message::Shortcuts(_)
                    | Message::Revoke(_) => "news before its hello",
                    _ => "what only a parent sends",
                };
                Err(End(Reason::Malformed, format!("{name} sends {what}")))
            }
        }
    }

    fn greet(&mut self, now: Instant, id: SessionId, hello: &Hello, outputs: &mut Vec<Output>) -> Result<(), End> {
        let wall = self.wall(now);
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let Identity { name, level, not_after, .. } = session.identity.clone();
        if (&hello.name, hello.level) != (&name, level) {
            let text = format!(
                "{name} (level {level} in its certificate) says that it is {} of level {}",
                hello.name, hello.level
            );
            return Err(End(Reason::NotItself, text));
        }
        if let Some(offer) = hello.offers.iter().find(|offer| !session.identity.may_offer(**offer)) {
            return Err(End(Reason::Prefix, format!("{name} offers {offer}, which its certificate does not allow")));
        }
        let version = hello.version.min(VERSION);
        if version < hello.version_min.max(VERSION_MIN) {
            let (newest, oldest) = (hello.version, hello.version_min);
            let text = format!("{name} speaks versions {oldest} to {newest}, we {VERSION_MIN} to {VERSION}");
            return Err(End(Reason::Version, text));
        }
        (session.last, session.due) = (Some(Sequence(0)), None);
        let (interval, expiry) = (self.settings.interval, self.settings.expiry());
        let news = self.children.entry(name.clone()).or_insert_with(|| News {
            received: now,
            expires: now + expiry,
            ..News::default()
        });
        news.not_after = not_after;
        news.tells_shortcuts = hello.capabilities & TELLS_SHORTCUTS != 0;
        if let Some(older) = news.session.replace(id) {
            let text = format!("{name} has opened another session");
            self.end(older, End(Reason::Replaced, text), outputs);
        }
        let (level, own) = (self.settings.level, self.settings.name.clone());
        let welcome = Message::Welcome(Welcome { version, level, interval, expiry, wall, name: own });
        let told = format!("child {name}, level {}, has opened a session (version {version})", hello.level);
        outputs.extend([Output::Send(id, welcome.to_bytes()), Output::Told(told)]);
        if self.settings.takes_anyone {
            outputs.push(Output::Registered(name, hello.tunnels.clone()));
        }
        self.due(now);
        self.due(now + expiry);
        Ok(())
    }

    fn update(&mut self, now: Instant, id: SessionId, update: Update, outputs: &mut Vec<Output>) -> Result<(), End> {
        let (wall, expires) = (self.wall(now), now + self.settings.expiry());
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let name = session.identity.name.clone();
        let Update { sequence, sent, mut records } = update;
        if records.len() > self.settings.records_max {
            let (count, most) = (records.len(), self.settings.records_max);
            return Err(End(
                Reason::TooMany,
                format!("{name} reports {count} virtual subnets; at most {most} are taken"),
            ));
        }
        session.last = Some(sequence);
        let all = records.len();
        let beyond = records.iter().map(|record| record.prefix).find(|prefix| !session.identity.may_offer(*prefix));
        if beyond.is_some() {
            records.retain(|record| session.identity.may_offer(record.prefix));
        }
        let (taken, refused) = (records.len() as u32, (all - records.len()) as u32);
        if let Some(prefix) = beyond {
            self.counters.records_refused.add(refused.into());
            if session.told.replace(prefix) != Some(prefix) {
                let text =
                    format!("{name} reports {prefix}, which its certificate does not allow ({refused} such records)");
                let refusal = Refusal { reason: Some(Reason::Prefix), text: text.clone() };
                outputs.push(Output::Send(id, Message::Refusal(refusal).to_bytes()));
                outputs.push(Output::Told(format!("child {text}; they are left out")));
            }
        }
        self.counters.updates.add(1);
        let report = Report::new(records);
        let round_trip = session.round_trip.0;
        let news = self.children.entry(name.clone()).or_default();
        let changed = !news.reported || *news.report != report;
        (news.received, news.expires, news.refused, news.reported) = (now, expires, refused, true);
        (news.session, news.round_trip) = (Some(id), round_trip);
        if changed {
            news.report = Arc::new(report);
            outputs.push(Output::Changed(name));
        }
        let acknowledgement = Message::Acknowledgement(Acknowledgement { sequence, sent, wall, taken, refused });
        outputs.push(Output::Send(id, acknowledgement.to_bytes()));
        self.due(expires);
        Ok(())
    }

    /// Ends a session and says why, to the child and to the log.
    fn end(&mut self, id: SessionId, End(reason, text): End, outputs: &mut Vec<Output>) {
        self.counters.refused(reason).add(1);
        let refusal = Refusal { reason: Some(reason), text: text.clone() };
        outputs.push(Output::Send(id, Message::Refusal(refusal).to_bytes()));
        outputs.push(Output::Close(id));
        outputs.push(Output::Told(format!("session refused ({reason}): {text}")));
        self.forget(id);
    }

    fn closed(&mut self, id: SessionId, why: &str, outputs: &mut Vec<Output>) {
        if let Some(session) = self.forget(id) {
            let name = session.identity.name;
            outputs.push(Output::Told(format!("the session of child {name} is closed: {why}")));
        }
    }

    /// What the child has said stays until it expires.
    fn forget(&mut self, id: SessionId) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        if let Some(news) = self.children.get_mut(&session.identity.name) {
            news.session.take_if(|own| *own == id);
        }
        Some(session)
    }

    fn tick(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        let wall = self.wall(now);
        let expired: Vec<String> =
            self.children.iter().filter(|(_, news)| news.expires <= now).map(|(name, _)| name.clone()).collect();
        for name in expired {
            self.children.remove(&name);
            self.counters.expired.add(1);
            let told = format!("child {name} has not reported for {:?}", self.settings.expiry());
            outputs.extend([Output::Told(told), Output::Changed(name)]);
        }
        let mut ended = Vec::new();
        let probing = self.settings.interval.max(PROBING_MIN);
        for (id, session) in &mut self.sessions {
            let name = &session.identity.name;
            if session.due.is_some_and(|due| due <= now) {
                let what = if session.last.is_some() { "the rest of a message" } else { "a hello" };
                ended.push((*id, End(Reason::TooSlow, format!("{name} takes too long for {what}"))));
            } else if session.identity.not_after <= wall {
                ended.push((*id, End(Reason::Certificate, format!("the certificate of {name} is over"))));
            } else if session.last.is_some() && session.probe_at <= now {
                session.probe_at = now + probing;
                session.probe = Some(Token(now.as_nanos()));
                outputs.push(Output::Send(*id, Message::Probe(Token(now.as_nanos())).to_bytes()));
            }
        }
        ended.into_iter().for_each(|(id, end)| self.end(id, end, outputs));
        let sessions = self.sessions.values();
        let timers = sessions.flat_map(|s| s.due.into_iter().chain(s.last.map(|_| s.probe_at)));
        self.deadline = timers.chain(self.children.values().map(|news| news.expires)).min();
    }
}
