//! Which flows go past a child straight to where that would send them, and until when.
//!
//! ```text
//!  site router            system router                        network router
//!  chooses a server ────► told: asks its workers ─ it was      told: likewise
//!  for a new flow           sent there ► redirected ─────────►   ...
//!                   ◄──── keep: it is still there ◄────────────── keep, at half of the lifetime
//!  is still there: told again ─────► renewed ────────────────► renewed
//!  server drained or down: revoke ─► goes by the child again ─► likewise
//!
//!  of one flow, in the router that is told:
//!            told               a worker has it, and it goes to that child
//!  (nothing) ────► Asked ──────────────────────────────────────────────────► InForce ◄─ told again
//!                    │ nobody has it, or it goes elsewhere                     │ lifetime over, or revoked
//!                    ▼                                              told again ▼
//!                (nothing) ◄─────────────────── the flow is gone ─────────── Lapsed
//! ```
//!
//! A shortcut is told to every parent; only the one that has sent the flow has it, and takes it. Above a shortcut's router
//! the flow's packets do not pass those below: so that these do not forget where it goes, keep says how it is, and their
//! entries live as long as the topmost one. That is why a shortcut may be lost at any time: the packet takes the long way
//! to the same server.
//!
//! A router speaks only of flows whose first packet it has been sent in a tunnel, or that a parent has asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::rate_limit::RateLimit;
use super::wire::{Kept, Shortcut, TunnelEnd};
use crate::clock::Instant;
use crate::flow::state::FlowState;
use crate::forward::counters::Counter;
use crate::forward::inspect::Key;
use crate::units::labelled;

pub mod proofs;
#[cfg(test)]
mod tests;

/// How long a shortcut is believed at most.
const LIFETIME: Duration = Duration::from_secs(30);

/// How long a worker may take to say whether it has a flow.
const ANSWER: Duration = Duration::from_secs(1);

/// From one question about a shortcut to the next, at least.
const QUESTION: Duration = Duration::from_millis(500);

/// After so long a shortcut that has lapsed is tried again, if its flow is in use.
const AGAIN: Duration = Duration::from_secs(30);

/// Flows that are known to have a shortcut, or are about to get one, at most: in all, and past one child.
const HELD_MAX: (usize, usize) = (65_536, 32_768);

/// Ends of shortcuts at most: in all, and past one child.
pub const ENDS_MAX: (usize, usize) = (16_384, 8_192);

/// How long an end is remembered that no flow goes to.
const END_KEPT: Duration = Duration::from_secs(300);

/// Shortcuts that one child may tell a second, and in one go.
const TOLD: (u32, u32) = (5_000, 5_000);

/// Flows that were sent to us, and of which a child will tell where they go: how many, and for how long.
const EXPECTED: (usize, Duration) = (16_384, Duration::from_secs(5));

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A flow that a parent has sent, or has asked for, goes to a child.
    Chosen {
        /// The flow.
        flow: Key,
        /// The child.
        child: &'a str,
        /// What the parents may know: its level and where its tunnel ends; `None` where the child tells itself, or there
        /// is nothing to tell.
        end: Option<(u8, TunnelEnd)>,
        /// How long we keep such a flow without packets.
        kept: Duration,
    },
    /// A child says where it sends a flow.
    Told {
        /// The child.
        child: &'a str,
        /// Its level.
        level: u8,
        /// What it says.
        shortcut: Shortcut,
        /// Whether there is a way to the tunnel's end from here, and it is none of our own.
        reachable: bool,
    },
    /// A child says that it sends no flows there any more, or not in one tunnel at least.
    Revoked {
        /// The child.
        child: &'a str,
        /// Where the tunnel ends.
        end: TunnelEnd,
    },
    /// A child of ours takes no new flows any more.
    Unable(TunnelEnd),
    /// A parent says that a flow is still there.
    Kept(Kept),
    /// A worker has a flow that was to be sent past a child.
    Sent {
        /// The flow.
        flow: Key,
        /// The child.
        child: &'a str,
        /// Where the tunnel ends.
        end: TunnelEnd,
        /// Whether that was done, or had been.
        done: bool,
    },
    /// A flow cannot be sent past a child.
    Refused(Key, Outcome),
    /// A worker has a flow that it was asked for.
    Alive(Kept),
    /// Time has passed.
    Tick,
}

/// What is to be done with a flow, by the worker that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Send it past a child, if it goes there.
    Send {
        /// The child.
        child: Arc<str>,
        /// Where the tunnel ends.
        end: TunnelEnd,
    },
    /// Send it to the child again, if it goes past it.
    Return {
        /// The child.
        child: Arc<str>,
        /// Where the tunnel ends.
        end: TunnelEnd,
    },
    /// Say how it is.
    Look,
    /// Keep it, as it is still there elsewhere.
    Touch {
        /// How far it has come there.
        state: FlowState,
        /// Time since its last packet there.
        idle: Duration,
    },
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Something with a flow.
    Order(Key, Doing),
    /// Tell the parents.
    Tell(Shortcut),
    /// Tell the parents that no flow may go there past us any more.
    Revoke(TunnelEnd),
    /// Tell a child that a flow is still there.
    Keep(Arc<str>, Kept),
    /// All flows that go past a child to this end go to the child again.
    Close(Arc<str>, TunnelEnd),
    /// No flow goes there any more.
    Forget(Arc<str>, TunnelEnd),
}

labelled! {
    /// What has become of a shortcut that a child has told.
    Outcome {
        /// The flow goes past the child.
        Installed => "installed",
        /// It goes on to do so.
        Renewed => "renewed",
        /// It is for no virtual host, or for one whose flows are not single 5-tuples, or are told by QUIC connection ids.
        NotForUs => "not_for_us",
        /// No worker has the flow.
        UnknownFlow => "unknown_flow",
        /// The flow was not sent to that child.
        NotSentThere => "not_sent_there",
        /// Its end is not below the child.
        NotBelow => "not_below",
        /// There is no way to its end, or no such tunnel.
        Unreachable => "unreachable",
        /// The child tells too many a second.
        TooFast => "too_fast",
        /// There is no room for another.
        Full => "full",
        /// The setting says no.
        Off => "off",
        /// It was not renewed in time.
        Expired => "expired",
        /// The child has revoked it.
        Revoked => "revoked",
    }
}

/// What is counted, to be read by anyone.
#[derive(Debug, Default)]
pub struct ShortcutCounters {
    outcomes: [Counter; Outcome::ALL.len()],
    /// Flows that go past a child now, or will as soon as the end has answered.
    pub in_force: Counter,
    /// Ends that they go to.
    pub ends: Counter,
    /// Those of them that have not answered in a tunnel of ours, for each virtual host.
    pub unproven: Counter,
    /// Shortcuts that parents were told.
    pub told: Counter,
    /// Ends that parents were told to send no flows to.
    pub revoked: Counter,
    /// Flows that children were told to keep.
    pub kept: Counter,
}

impl ShortcutCounters {
    /// Shortcuts with this outcome.
    pub fn of(&self, outcome: Outcome) -> &Counter {
        &self.outcomes[outcome as usize]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asked,
    InForce,
    Lapsed,
}

#[derive(Debug)]
struct Held {
    child: Arc<str>,
    shortcut: Shortcut,
    stage: Stage,
    /// Until when it is believed.
    expires: Instant,
    /// When something is to be done about it.
    due: Instant,
    /// A worker has answered when it was asked last.
    alive: bool,
    /// A parent has sent the flow.
    from_above: bool,
}

/// What is known about a child.
#[derive(Debug)]
struct Teller {
    limit: RateLimit,
    flows: usize,
    ends: usize,
}

#[derive(Debug)]
struct End {
    flows: HashSet<Key>,
    /// When the last one went.
    empty: Instant,
}

/// The machine.
#[derive(Debug)]
pub struct Shortcuts {
    on: bool,
    held: HashMap<Key, Held>,
    due: BTreeSet<(Instant, Key)>,
    tellers: HashMap<Arc<str>, Teller>,
    ends: BTreeMap<(Arc<str>, TunnelEnd), End>,
    expected: HashSet<Key>,
    /// When they are expected no more, the oldest first.
    expected_until: VecDeque<(Instant, Key)>,
    sweep_at: Instant,
    /// When the last input came.
    now: Instant,
    counters: Arc<ShortcutCounters>,
}

impl Shortcuts {
    /// No shortcuts, nor ever any unless they are `on`.
    pub fn new(on: bool) -> Shortcuts {
        Shortcuts {
            on,
            held: HashMap::new(),
            due: BTreeSet::new(),
            tellers: HashMap::new(),
            ends: BTreeMap::new(),
            expected: HashSet::new(),
            expected_until: VecDeque::new(),
            sweep_at: Instant::ZERO,
            now: Instant::ZERO,
            counters: Arc::default(),
        }
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<ShortcutCounters> {
        &self.counters
    }

    /// Where a flow goes past which child, and for how long at least.
    pub fn of(&self, flow: &Key) -> Option<(&str, TunnelEnd, Instant)> {
        let held = self.held.get(flow).filter(|held| held.stage == Stage::InForce)?;
        Some((&held.child, held.shortcut.end, held.expires))
    }

    /// Every flow that goes past a child: the child, and where to.
    pub fn in_force(&self) -> impl Iterator<Item = (&Key, &str, TunnelEnd)> {
        let held = self.held.iter().filter(|(_, held)| held.stage == Stage::InForce);
        held.map(|(flow, held)| (flow, &*held.child, held.shortcut.end))
    }

    /// Whether there are to be shortcuts from now on. Where not, all flows take the long way.
    pub fn set(&mut self, on: bool) -> Vec<Output> {
        let mut outputs = Vec::new();
        if self.on && !on {
            let flows: Vec<Key> = self.held.keys().copied().collect();
            flows.iter().for_each(|flow| self.remove(flow, &mut outputs));
            outputs.extend(self.ends.keys().map(|(child, end)| Output::Close(child.clone(), *end)));
        }
        self.on = on;
        outputs
    }

    /// When the next [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let sweep = (!self.ends.is_empty()).then_some(self.sweep_at);
        self.due.first().map(|(due, _)| *due).into_iter().chain(sweep).min()
    }

    /// Takes an input in, and returns what is to be done.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.now = now;
        match input {
            Input::Chosen { flow, child, end, kept } if self.on => {
                self.chosen(now, flow, child, end, kept, &mut outputs)
            }
            Input::Chosen { .. } => {}
            Input::Told { child, level, shortcut, reachable } => {
                let refused = match () {
                    () if !self.on => Some(Outcome::Off),
                    () if shortcut.source_prefix != 0 => Some(Outcome::NotForUs),
                    () if shortcut.level >= level => Some(Outcome::NotBelow),
                    () if !reachable || shortcut.end.tunnel().is_none() => Some(Outcome::Unreachable),
                    () => self.told(now, child, shortcut, &mut outputs),
                };
                if let Some(why) = refused {
                    self.counters.of(why).add(1);
                }
            }
            Input::Revoked { child, end } => self.revoked(now, child, end, &mut outputs),
            Input::Unable(end) if self.on => self.revoke(end, &mut outputs),
            Input::Unable(_) => {}
            Input::Kept(Kept { flow, state, idle }) if self.on => {
                outputs.push(Output::Order(flow, Doing::Touch { state, idle }));
            }
            Input::Kept(_) => {}
            Input::Sent { flow, child, end, done } => self.sent(now, flow, (child, end), done, &mut outputs),
            Input::Refused(flow, why) => {
                self.counters.of(why).add(1);
                self.remove(&flow, &mut outputs);
            }
            Input::Alive(kept) => self.alive(kept, &mut outputs),
            Input::Tick => self.tick(now, &mut outputs),
        }
        self.counters.ends.set(self.ends.len() as u64);
        outputs
    }

    fn tell(&self, shortcut: Shortcut, outputs: &mut Vec<Output>) {
        self.counters.told.add(1);
        outputs.push(Output::Tell(shortcut));
    }

    fn revoke(&self, end: TunnelEnd, outputs: &mut Vec<Output>) {
        self.counters.revoked.add(1);
        outputs.push(Output::Revoke(end));
    }

    fn chosen(
        &mut self,
        now: Instant,
        flow: Key,
        child: &str,
        end: Option<(u8, TunnelEnd)>,
        kept: Duration,
        outputs: &mut Vec<Output>,
    ) {
        // Told twice in that time, we still have it.
        let most = LIFETIME.min(kept / 2);
        if let Some((level, end)) = end {
            return self.tell(Shortcut { flow, source_prefix: 0, level, end, lifetime: most }, outputs);
        }
        match self.held.get_mut(&flow) {
            Some(held) if held.stage == Stage::InForce && *held.child == *child => {
                held.from_above = true;
                let shortcut = Shortcut { lifetime: most.min(held.expires - now), ..held.shortcut };
                self.tell(shortcut, outputs);
            }
            _ => self.expect(now, flow),
        }
    }

    /// Remembers for a moment that a parent has sent a flow.
    fn expect(&mut self, now: Instant, flow: Key) {
        while let Some((until, oldest)) = self.expected_until.front()
            && (*until <= now || self.expected_until.len() >= EXPECTED.0)
        {
            self.expected.remove(oldest);
            self.expected_until.pop_front();
        }
        if self.expected.insert(flow) {
            self.expected_until.push_back((now + EXPECTED.1, flow));
        }
    }

    /// Has a worker asked for the flow of a shortcut, or says why not.
    fn told(&mut self, now: Instant, child: &str, shortcut: Shortcut, outputs: &mut Vec<Output>) -> Option<Outcome> {
        let flow = shortcut.flow;
        let shortcut = Shortcut { lifetime: shortcut.lifetime.min(LIFETIME), ..shortcut };
        let child: Arc<str> = match self.tellers.get_key_value(child) {
            Some((known, _)) => known.clone(),
            None => child.into(),
        };
        let limit = RateLimit::new(TOLD.0, TOLD.1);
        let teller = self.tellers.entry(child.clone()).or_insert(Teller { limit, flows: 0, ends: 0 });
        if !teller.limit.take(now) {
            return Some(Outcome::TooFast);
        }
        let end_is_new = !self.ends.contains_key(&(child.clone(), shortcut.end));
        if end_is_new && (self.ends.len() >= ENDS_MAX.0 || teller.ends >= ENDS_MAX.1) {
            return Some(Outcome::Full);
        }
        let (mut stage, mut from_above) = (Stage::Asked, false);
        match self.held.get(&flow) {
            // What is known about it may be out of date; a worker would say so in time.
            Some(held) if *held.child != *child && held.stage == Stage::InForce => return Some(Outcome::NotSentThere),
            Some(held) if *held.child == *child && held.shortcut.end == shortcut.end => {
                stage = if held.stage == Stage::InForce { Stage::InForce } else { Stage::Asked };
                from_above = held.from_above;
            }
            None if self.held.len() >= HELD_MAX.0 || teller.flows >= HELD_MAX.1 => return Some(Outcome::Full),
            _ => {}
        }
        if stage != Stage::InForce {
            self.remove(&flow, outputs);
        }
        let due = if stage == Stage::InForce { now + shortcut.lifetime / 2 } else { now + ANSWER };
        let held = Held {
            child: child.clone(),
            shortcut,
            stage,
            expires: now + shortcut.lifetime,
            due,
            alive: true,
            from_above,
        };
        self.insert(flow, held);
        // Even where it is sent there already: the flow may have begun anew meanwhile.
        outputs.push(Output::Order(flow, Doing::Send { child, end: shortcut.end }));
        if stage == Stage::InForce {
            self.counters.of(Outcome::Renewed).add(1);
            if from_above {
                self.tell(shortcut, outputs);
            }
        }
        None
    }

    fn sent(
        &mut self,
        now: Instant,
        flow: Key,
        (child, end): (&str, TunnelEnd),
        done: bool,
        outputs: &mut Vec<Output>,
    ) {
        // It may be late, and about what another child had told before.
        let same = |held: &&mut Held| held.stage != Stage::Lapsed && *held.child == *child && held.shortcut.end == end;
        let Some(held) = self.held.get_mut(&flow).filter(same) else { return };
        if !done {
            self.counters.of(Outcome::NotSentThere).add(1);
            return self.remove(&flow, outputs);
        }
        if held.stage == Stage::InForce {
            return;
        }
        held.stage = Stage::InForce;
        held.from_above |= self.expected.remove(&flow);
        let (due, from_above) = (now + held.shortcut.lifetime / 2, held.from_above);
        let shortcut = Shortcut { lifetime: held.expires - now, ..held.shortcut };
        self.schedule(&flow, due);
        self.counters.of(Outcome::Installed).add(1);
        self.counters.in_force.add(1);
        if from_above {
            self.tell(shortcut, outputs);
        }
    }

    fn revoked(&mut self, now: Instant, child: &str, end: TunnelEnd, outputs: &mut Vec<Output>) {
        let Some((child, _)) = self.tellers.get_key_value(child) else { return };
        let place = (child.clone(), end);
        let Some(known) = self.ends.get(&place) else { return };
        let flows: Vec<Key> = known.flows.iter().copied().collect();
        outputs.push(Output::Close(place.0, end));
        for flow in flows {
            self.lapse(now, &flow, Outcome::Revoked, outputs);
        }
        self.revoke(end, outputs);
    }

    /// Lets a flow take the long way; later there may be a shortcut again.
    fn lapse(&mut self, now: Instant, flow: &Key, why: Outcome, outputs: &mut Vec<Output>) {
        let Some(held) = self.held.get_mut(flow) else { return };
        let before = std::mem::replace(&mut held.stage, Stage::Lapsed);
        if before == Stage::Lapsed {
            return;
        }
        held.alive = true;
        let (child, end) = (held.child.clone(), held.shortcut.end);
        self.schedule(flow, now + AGAIN);
        self.counters.of(why).add(1);
        if before == Stage::InForce {
            self.counters.in_force.sub(1);
        }
        outputs.push(Output::Order(*flow, Doing::Return { child, end }));
    }

    fn alive(&mut self, kept: Kept, outputs: &mut Vec<Output>) {
        let Some(held) = self.held.get_mut(&kept.flow) else { return };
        held.alive = true;
        // One that nobody uses needs no shortcut.
        if held.stage == Stage::InForce || (held.stage == Stage::Lapsed && kept.idle < AGAIN) {
            self.counters.kept.add(1);
            outputs.push(Output::Keep(held.child.clone(), kept));
        }
    }

    fn tick(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        while let Some((due, flow)) = self.due.first().copied()
            && due <= now
        {
            let Some(held) = self.held.get_mut(&flow) else {
                self.due.remove(&(due, flow));
                continue;
            };
            let answered = std::mem::replace(&mut held.alive, false);
            match held.stage {
                Stage::Asked => {
                    self.counters.of(Outcome::UnknownFlow).add(1);
                    self.remove(&flow, outputs);
                }
                Stage::InForce if held.expires <= now && answered => {
                    self.lapse(now, &flow, Outcome::Expired, outputs);
                }
                Stage::InForce if held.expires <= now => {
                    self.counters.of(Outcome::Expired).add(1);
                    self.remove(&flow, outputs);
                }
                Stage::Lapsed if !answered => self.remove(&flow, outputs),
                Stage::InForce => {
                    let left = held.expires - now;
                    let next = now + left.min((left / 2).max(QUESTION));
                    self.schedule(&flow, next);
                    outputs.push(Output::Order(flow, Doing::Look));
                }
                Stage::Lapsed => {
                    self.schedule(&flow, now + AGAIN);
                    outputs.push(Output::Order(flow, Doing::Look));
                }
            }
        }
        if self.sweep_at <= now {
            self.sweep_at = now + END_KEPT / 5;
            let unused = |end: &End| end.flows.is_empty() && now - end.empty >= END_KEPT;
            let unused: Vec<_> =
                self.ends.iter().filter(|(_, end)| unused(end)).map(|(place, _)| place.clone()).collect();
            for (child, end) in unused {
                self.ends.remove(&(child.clone(), end));
                if let Some(teller) = self.tellers.get_mut(&child) {
                    teller.ends -= 1;
                }
                outputs.push(Output::Forget(child, end));
            }
            self.tellers.retain(|_, teller| teller.ends > 0);
        }
    }

    fn schedule(&mut self, flow: &Key, due: Instant) {
        if let Some(held) = self.held.get_mut(flow) {
            self.due.remove(&(held.due, *flow));
            held.due = due;
            self.due.insert((due, *flow));
        }
    }

    fn insert(&mut self, flow: Key, held: Held) {
        let (due, child, end) = (held.due, held.child.clone(), held.shortcut.end);
        match self.held.insert(flow, held) {
            Some(before) => drop(self.due.remove(&(before.due, flow))),
            None => self.tellers.get_mut(&child).into_iter().for_each(|teller| teller.flows += 1),
        }
        self.due.insert((due, flow));
        if self.ends.is_empty() {
            self.sweep_at = self.now + END_KEPT / 5;
        }
        let (ends, tellers) = (&mut self.ends, &mut self.tellers);
        let end = ends.entry((child.clone(), end)).or_insert_with(|| {
            tellers.get_mut(&child).into_iter().for_each(|teller| teller.ends += 1);
            End { flows: HashSet::new(), empty: Instant::ZERO }
        });
        end.flows.insert(flow);
    }

    /// Forgets a flow. If it may go past a child, it does so no more.
    fn remove(&mut self, flow: &Key, outputs: &mut Vec<Output>) {
        let Some(Held { child, shortcut, stage, due, .. }) = self.held.remove(flow) else { return };
        self.due.remove(&(due, *flow));
        self.tellers.get_mut(&child).into_iter().for_each(|teller| teller.flows -= 1);
        if let Some(end) = self.ends.get_mut(&(child.clone(), shortcut.end)) {
            end.flows.remove(flow);
            end.empty = self.now;
        }
        if stage == Stage::InForce {
            self.counters.in_force.sub(1);
        }
        if stage != Stage::Lapsed {
            outputs.push(Output::Order(*flow, Doing::Return { child, end: shortcut.end }));
        }
    }
}
