//! How the spare of an active router knows its flows: what the one tells, and what the other takes of it.
//!
//! ```text
//!   workers' tables ──survey──► Source: what is new, changed or gone since it was told ─► batches, numbered ─┐
//!                                  ▲                                                                         ▼
//!                                  └──────────────── which comes next, whether all is there ◄───────────── Sink ─► orders
//! ```
//!
//! A survey passes all flows again and again, slowly. Of each that is old enough the source remembers what it has told, and
//! tells what differs; of what the survey has not come upon in a whole round it tells that it is gone. So nothing is asked of
//! workers when flows begin, and a flood of SYNs, whose flows are never old enough, tells nothing. What is younger, the spare
//! gives to the same child, as it chooses by the same hash.
//!
//! A generation begins with all flows, and ends when either side has lost the thread: then there is another, and what is gone
//! since stays at the spare until its time is over. Batches stay with the source until they are acknowledged, so many at
//! most, and are sent again. All numbers in network order:
//!
//! ```text
//! batch    0  8  generation               flow    0  1  1: it goes there, 2: it is gone
//!          8  4  number, from 0                   1  1  IP protocol
//!         12  1  1: all flows are told            2  1  state, as the number in flow/state.rs
//!         13  1  number of flows                  3  1  kind of the tunnel, as in whohas.rs
//!         14 66  each flow                        4 16  client; 20 16 virtual host; 36 2, 38 2 their ports
//!                                                40  2  UDP port of the tunnel; 42 4 MPLS label
//! answer   0  8  generation                      46  4  milliseconds since its last packet
//!          8  4  number of the next batch        50 16  where the tunnel ends
//!         12  1  1: all flows are here
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::whohas::Owner;
use super::{FlowId, address_bytes, address_of, tunnel_numbers, tunnel_of};
use crate::clock::Instant;
use crate::config::TunnelKind;
use crate::flow::state::FlowState;
use crate::forward::counters::Counter;
use crate::units::labelled;

/// Kinds of the datagrams (see `ha::link`).
pub const BATCH: u8 = 2;
/// The answers.
pub const ANSWER: u8 = 3;

const HEADER: usize = 14;
const FLOW: usize = 66;
/// Flows of a batch: as many as go into a packet of 1280 bytes.
const FLOWS: usize = 17;
const ANSWER_LEN: usize = 13;

/// Longest batch, in bytes.
pub const BATCH_MAX: usize = HEADER + FLOWS * FLOW;

/// Batches that wait for their answer at most.
const WINDOW: usize = 64;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long nothing is told until an empty batch asks whether the spare still knows what it was told.
const SILENCE: Duration = Duration::from_millis(200);

/// Flows that are remembered, and told, at most.
const FLOWS_MAX: usize = 4 << 20;
/// News that wait to be told at most, beside one of each flow; with more, all is told anew.
const NEWS_MAX: usize = 1 << 20;

labelled! {
    /// What has happened.
    Event {
        /// A flow, or what has changed about it, was told to the spare.
        Told => "told",
        /// It was told that a flow is gone.
        ToldGone => "told_gone",
        /// A batch was sent again.
        SentAgain => "sent_again",
        /// All flows are told anew.
        Restarted => "restarted",
        /// A flow was not told, because there are too many.
        NoRoom => "no_room",
        /// A flow of the active router was taken in.
        Kept => "kept",
        /// A flow that is gone at the active router was dropped.
        Dropped => "dropped",
        /// A flow of the active router goes to a tunnel that is none of our children's.
        UnknownTunnel => "unknown_tunnel",
        /// A batch has come before, or too early.
        OutOfTurn => "out_of_turn",
        /// A batch had to wait, and is to be sent again.
        Deferred => "deferred",
        /// A batch or answer makes no sense.
        Malformed => "malformed",
    }
}

/// The counters, to be read by anyone.
#[derive(Debug)]
pub struct Counters {
    events: [Counter; Event::ALL.len()],
    /// Flows that are known to have been told.
    pub flows: Counter,
    /// News that are not acknowledged.
    pub pending: Counter,
    /// How old the oldest of these is, in nanoseconds.
    pub lag: Counter,
    /// 1 while all flows of the active router are here.
    pub synchronised: Counter,
}

impl Default for Counters {
    fn default() -> Counters {
        let events = std::array::from_fn(|_| Counter::default());
        let (flows, pending, lag, synchronised) = Default::default();
        Counters { events, flows, pending, lag, synchronised }
    }
}

impl Counters {
    /// Times that this has happened.
    pub fn of(&self, event: Event) -> &Counter {
        &self.events[event as usize]
    }
}

/// News of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It goes there.
    Goes(FlowId, Owner),
    /// It is gone.
    Gone(FlowId),
}

impl News {
    fn write(&self, bytes: &mut Vec<u8>) {
        let (what, flow, owner) = match self {
            News::Goes(flow, owner) => (1, flow, Some(owner)),
            News::Gone(flow) => (2, flow, None),
        };
        let (kind, port, label) = owner.map_or((0, 0, 0), |owner| tunnel_numbers(owner.tunnel));
        bytes.extend([what, flow.protocol, owner.map_or(0, |owner| owner.state as u8), kind]);
        bytes.extend(address_bytes(flow.source.ip()));
        bytes.extend(address_bytes(flow.destination.ip()));
        bytes.extend(flow.source.port().to_be_bytes());
        bytes.extend(flow.destination.port().to_be_bytes());
        bytes.extend(port.to_be_bytes());
        bytes.extend(label.to_be_bytes());
        let idle = owner.map_or(0, |owner| u32::try_from(owner.idle.as_millis()).unwrap_or(u32::MAX));
        bytes.extend(idle.to_be_bytes());
        bytes.extend(owner.map_or([0; 16], |owner| address_bytes(owner.address)));
    }

    fn read(bytes: &[u8; FLOW]) -> Option<News> {
        fn get<const N: usize>(bytes: &[u8; FLOW], at: usize) -> [u8; N] {
            let mut field = [0; N];
            field.copy_from_slice(&bytes[at..at + N]);
            field
        }
        let number = |at: usize| u16::from_be_bytes(get(bytes, at));
        let source = SocketAddr::new(address_of(get(bytes, 4)), number(36));
        let destination = SocketAddr::new(address_of(get(bytes, 20)), number(38));
        let flow = FlowId { source, destination, protocol: bytes[1] };
        flow.key()?;
        match bytes[0] {
            1 => {
                let tunnel = tunnel_of(bytes[3], number(40), u32::from_be_bytes(get(bytes, 42)))?;
                let state = *FlowState::ALL.get(usize::from(bytes[2]))?;
                let idle = Duration::from_millis(u32::from_be_bytes(get(bytes, 46)).into());
                Some(News::Goes(flow, Owner { address: address_of(get(bytes, 50)), tunnel, state, idle }))
            }
            2 => Some(News::Gone(flow)),
            _ => None,
        }
    }
}

/// What was told of a flow.
#[derive(Clone, Copy, Debug)]
struct Told {
    address: IpAddr,
    tunnel: TunnelKind,
    state: FlowState,
    at: Instant,
    round: u32,
}

/// A batch that is not acknowledged.
#[derive(Debug)]
struct Batch {
    number: u32,
    bytes: Vec<u8>,
    flows: usize,
    sent: Instant,
    /// Since when the oldest news in it are known.
    since: Instant,
}

/// The end of the active router.
#[derive(Debug)]
pub struct Source {
    /// How old a flow must be.
    age: Duration,
    /// How often a flow that goes on is told again, so that it lives as long there.
    refresh: Duration,
    generation: u64,
    told: HashMap<FlowId, Told>,
    round: u32,
    waiting: VecDeque<(Instant, News)>,
    /// All flows have been seen in this generation, and (then) a batch says so.
    whole: bool,
    said_whole: bool,
    next: u32,
    /// When the last batch was made.
    spoke: Instant,
    under_way: VecDeque<Batch>,
    counters: Arc<Counters>,
}

impl Source {
    /// A source that tells flows that are `age` old, the same every `refresh`, in generations from `generation` on.
    pub fn new(age: Duration, refresh: Duration, generation: u64, counters: Arc<Counters>) -> Source {
        Source {
            age,
            refresh,
            generation,
            told: HashMap::new(),
            round: 0,
            waiting: VecDeque::new(),
            whole: false,
            said_whole: false,
            next: 0,
            spoke: Instant::ZERO,
            under_way: VecDeque::new(),
            counters,
        }
    }

    /// Tells all flows anew.
    pub fn restart(&mut self) {
        self.counters.of(Event::Restarted).add(1);
        self.stop();
        self.generation = self.generation.wrapping_add(1);
    }

    /// Whether it has told, or is to tell, anything in this generation.
    pub fn has_told(&self) -> bool {
        !(self.told.is_empty() && self.waiting.is_empty() && self.under_way.is_empty())
    }

    /// Forgets all that was told.
    pub fn stop(&mut self) {
        (self.told, self.waiting, self.under_way) = Default::default();
        (self.round, self.next, self.whole, self.said_whole) = (0, 0, false, false);
        self.count();
    }

    /// Takes in a flow that the survey has come upon, with the time since its first packet.
    pub fn seen(&mut self, now: Instant, flow: FlowId, owner: Owner, age: Duration) {
        let Owner { address, tunnel, state, idle } = owner;
        let told = Told { address, tunnel, state, at: now, round: self.round };
        let full = self.told.len() >= FLOWS_MAX;
        match self.told.get_mut(&flow) {
            Some(before) => {
                before.round = self.round;
                let same = (before.address, before.tunnel, before.state) == (address, tunnel, state);
                let goes_on = now - before.at > self.refresh && now - before.at > idle;
                if same && !goes_on {
                    return;
                }
                *before = told;
            }
            None if age < self.age || matches!(state, FlowState::TcpSyn | FlowState::TcpRst | FlowState::Fragments) => {
                return;
            }
            // It has ended, as far as anybody can tell.
            None if state == FlowState::TcpFin && idle >= self.age => return,
            None if full => return self.counters.of(Event::NoRoom).add(1),
            None => drop(self.told.insert(flow, told)),
        }
        self.waiting.push_back((now, News::Goes(flow, owner)));
    }

    /// The survey has passed all flows since this was said last.
    pub fn round_done(&mut self, now: Instant) {
        let (waiting, round) = (&mut self.waiting, self.round);
        self.told.retain(|flow, told| {
            let there = told.round == round;
            if !there {
                waiting.push_back((now, News::Gone(*flow)));
            }
            there
        });
        // The first round of a generation may have begun before it.
        self.whole |= round > 0;
        self.round += 1;
        if self.waiting.len() > self.told.len() + NEWS_MAX {
            self.restart();
        }
    }

    /// Takes in an answer of the spare.
    pub fn hear(&mut self, body: &[u8]) {
        let Ok(body) = <&[u8; ANSWER_LEN]>::try_from(body) else { return self.counters.of(Event::Malformed).add(1) };
        let (generation, rest) = body.split_first_chunk().expect("thirteen bytes");
        let next = u32::from_be_bytes(*rest.first_chunk().expect("five bytes"));
        if u64::from_be_bytes(*generation) != self.generation {
            return;
        }
        let oldest = self.under_way.front().map_or(self.next, |batch| batch.number);
        // It has not what it has acknowledged, or has what it was never sent: it lives anew.
        if next < oldest || next > self.next {
            return self.restart();
        }
        while self.under_way.front().is_some_and(|batch| batch.number < next) {
            self.under_way.pop_front();
        }
    }

    /// The batches to be sent now.
    pub fn batches(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        if self.under_way.front().is_some_and(|batch| now - batch.sent >= PATIENCE) {
            for batch in &mut self.under_way {
                batch.sent = now;
                out.push(batch.bytes.clone());
            }
            self.counters.of(Event::SentAgain).add(out.len() as u64);
        }
        while self.under_way.len() < WINDOW {
            let says_whole = self.whole && !self.said_whole && self.waiting.len() <= FLOWS;
            let asks = self.under_way.is_empty() && now - self.spoke >= SILENCE;
            if self.waiting.is_empty() && !says_whole && !asks {
                break;
            }
            self.spoke = now;
            let since = self.waiting.front().map_or(now, |(since, _)| *since);
            let flows: Vec<News> = (0..FLOWS).map_while(|_| self.waiting.pop_front()).map(|(_, news)| news).collect();
            self.said_whole |= says_whole;
            let mut bytes = self.generation.to_be_bytes().to_vec();
            bytes.extend(self.next.to_be_bytes());
            bytes.extend([u8::from(self.said_whole), flows.len() as u8]);
            for news in &flows {
                let event = if matches!(news, News::Goes(..)) { Event::Told } else { Event::ToldGone };
                self.counters.of(event).add(1);
                news.write(&mut bytes);
            }
            out.push(bytes.clone());
            self.under_way.push_back(Batch { number: self.next, bytes, flows: flows.len(), sent: now, since });
            self.next += 1;
        }
        self.counters.lag.set(u64::try_from(self.lag(now).as_nanos()).unwrap_or(u64::MAX));
        self.count();
        out
    }

    /// How old the oldest news are that the spare has not.
    pub fn lag(&self, now: Instant) -> Duration {
        let waiting = self.waiting.front().map(|(since, _)| *since);
        let oldest = self.under_way.front().map(|batch| batch.since).into_iter().chain(waiting).min();
        oldest.map_or(Duration::ZERO, |since| now - since)
    }

    fn count(&self) {
        let under_way: usize = self.under_way.iter().map(|batch| batch.flows).sum();
        self.counters.pending.set((self.waiting.len() + under_way) as u64);
        self.counters.flows.set(self.told.len() as u64);
    }
}

/// The end of the spare.
#[derive(Debug)]
pub struct Sink {
    generation: Option<u64>,
    next: u32,
    whole: bool,
    counters: Arc<Counters>,
}

impl Sink {
    /// A sink that knows of nothing.
    pub fn new(counters: Arc<Counters>) -> Sink {
        Sink { generation: None, next: 0, whole: false, counters }
    }

    /// Knows of nothing any more.
    pub fn reset(&mut self) {
        (self.generation, self.next, self.whole) = (None, 0, false);
        self.counters.synchronised.set(0);
    }

    /// Whether all flows of the active router are here.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Takes in a batch, where there is `room` for its flows: what it says, and the answer, where there is one.
    pub fn hear(&mut self, body: &[u8], room: bool) -> (Vec<News>, Option<Vec<u8>>) {
        let Some((generation, number, whole, news)) = read_batch(body) else {
            self.counters.of(Event::Malformed).add(1);
            return (Vec::new(), None);
        };
        if self.generation != Some(generation) && number == 0 {
            self.reset();
            self.generation = Some(generation);
        }
        let known = self.generation == Some(generation);
        let mut taken = Vec::new();
        match (known && number == self.next, room) {
            (true, true) => {
                taken = news;
                self.next += 1;
                self.whole |= whole;
                self.counters.synchronised.set(self.whole.into());
            }
            (true, false) => self.counters.of(Event::Deferred).add(1),
            (false, _) => self.counters.of(Event::OutOfTurn).add(1),
        }
        // Of a generation whose begin is missing nothing is here.
        let next = if known { self.next } else { 0 };
        let mut answer = generation.to_be_bytes().to_vec();
        answer.extend(next.to_be_bytes());
        answer.push((known && self.whole).into());
        (taken, Some(answer))
    }
}

fn read_batch(body: &[u8]) -> Option<(u64, u32, bool, Vec<News>)> {
    let (header, flows) = body.split_first_chunk::<HEADER>()?;
    let (generation, rest) = header.split_first_chunk()?;
    let number = u32::from_be_bytes(*rest.first_chunk()?);
    let (flows, rest) = flows.as_chunks::<FLOW>();
    if !rest.is_empty() || flows.len() != usize::from(header[13]) || header[12] > 1 {
        return None;
    }
    let news = flows.iter().map(News::read).collect::<Option<_>>()?;
    Some((u64::from_be_bytes(*generation), number, header[12] == 1, news))
}

#[cfg(test)]
mod tests;
