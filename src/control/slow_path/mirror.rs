//! How the flows of an active router reach its spare's workers: by a survey of the one's tables, and as orders to the other's.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::recovery::place;
use super::{Pairing, SlowPath};
use crate::clock::Instant;
use crate::config::Config;
use crate::forward::inspect::{Flow, Key, Surveyor, Walked};
use crate::forward::orders::{Doing, Order};
use crate::forward::tables::ForwardTables;
use crate::ha::election::{Input, Role};
use crate::ha::link::{BODY_MAX, Outcome};
use crate::packet::protocol::TCP;
use crate::recovery::FlowId;
use crate::recovery::mirror::{ANSWER, BATCH, BATCH_MAX, Counters, Event, News, Sink, Source};
use crate::service::selection::Granularity;

/// Groups of slots that a survey passes in a pass at most: so much of a worker's time is left to packets.
const GROUPS_MAX: u32 = 512;

/// How long the other router must be silent until it is told nothing.
const SILENCE: Duration = Duration::from_secs(2);

/// Orders that wait for the workers until no more flows are taken in.
const ORDERS_MAX: usize = 4096;

const _: () = assert!(BATCH_MAX <= BODY_MAX, "a batch fits into a datagram");

/// What mirroring needs in the slow path.
pub(super) struct Mirroring {
    source: Source,
    sink: Sink,
    counters: Arc<Counters>,
    surveyors: Vec<Surveyor>,
    /// Whether the survey of each worker has come to its end in this round.
    ended: Vec<bool>,
    /// Groups of slots that a pass adds.
    groups: u32,
    /// With the worker that each is for.
    orders: VecDeque<(Order, usize)>,
    /// What the election knows.
    synchronised: bool,
}

impl Mirroring {
    /// Mirroring of flows that are `age` old, in generations from `generation` on.
    pub fn new(config: &Config, age: Duration, generation: u64) -> Mirroring {
        let counters: Arc<Counters> = Arc::default();
        let timeouts = &config.flows.timeouts;
        // Often enough that none is over at the spare while it goes on here.
        let refresh = timeouts.tcp_established.min(timeouts.udp).min(timeouts.other) / 4;
        let flows = config.flows.capacity_v4.saturating_add(config.flows.capacity_v6);
        Mirroring {
            source: Source::new(age, refresh, generation, counters.clone()),
            sink: Sink::new(counters.clone()),
            counters,
            surveyors: Vec::new(),
            ended: Vec::new(),
            groups: (flows / 1024 + 2).min(GROUPS_MAX),
            orders: VecDeque::new(),
            synchronised: false,
        }
    }

    /// What is counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// The router has this role now.
    pub fn enter(&mut self, role: Role) {
        match role {
            Role::Active => {
                self.source.restart();
                self.sink.reset();
            }
            _ => self.source.stop(),
        }
        self.ended.fill(false);
    }
}

impl SlowPath {
    /// The same, telling its spare the flows that `surveyors` come upon, one for each worker.
    pub fn mirroring(mut self, surveyors: Vec<Surveyor>) -> SlowPath {
        if let Some(mirror) = self.pairing.as_mut().and_then(|pairing| pairing.mirror.as_mut()) {
            (mirror.ended, mirror.surveyors) = (vec![false; surveyors.len()], surveyors);
        }
        self
    }

    /// Takes in what the other router says of flows.
    pub(super) fn hear_flows(&mut self, kind: u8, body: &[u8]) -> Outcome {
        let Some(mut mirror) = self.pairing.as_mut().and_then(|pairing| pairing.mirror.take()) else {
            return Outcome::Malformed;
        };
        let active = self.pair().is_some_and(|pairing| pairing.election().role().0 == Role::Active);
        let outcome = match (kind, active) {
            (ANSWER, true) => {
                mirror.source.hear(body);
                Outcome::Taken
            }
            (BATCH, false) => {
                let (news, answer) = mirror.sink.hear(body, mirror.orders.len() < ORDERS_MAX);
                self.mirror_news(&mut mirror, news);
                if let Some(Pairing { link: Some(link), datagrams, .. }) = &mut self.pairing {
                    datagrams.extend(answer.map(|answer| link.write(ANSWER, &answer)));
                }
                Outcome::Taken
            }
            // They have crossed with a change of roles.
            (ANSWER | BATCH, _) => Outcome::Taken,
            _ => Outcome::Malformed,
        };
        if let Some(pairing) = &mut self.pairing {
            pairing.mirror = Some(mirror);
        }
        outcome
    }

    /// Makes orders of what the active router says.
    fn mirror_news(&self, mirror: &mut Mirroring, news: Vec<News>) {
        let tables = self.published.load();
        for news in news {
            let (News::Goes(flow, _) | News::Gone(flow)) = &news;
            let place = place(&tables, flow);
            let order = match &news {
                News::Goes(_, owner) => place.as_ref().and_then(|place| {
                    let target = self.target(place, owner).filter(|target| !tables.targets[target.index()].moves)?;
                    let doing = Doing::Keep { target, state: owner.state, idle: owner.idle };
                    Some((Order { key: place.key, doing }, Event::Kept))
                }),
                News::Gone(_) => place.map(|place| (Order { key: place.key, doing: Doing::Drop }, Event::Dropped)),
            };
            let Some((order, event)) = order else {
                mirror.counters.of(Event::UnknownTunnel).add(1);
                continue;
            };
            mirror.counters.of(event).add(1);
            let workers = self.workers.len();
            match self.config.recovery.asks_workers && flow.protocol == TCP {
                // Whichever worker gets its packets asks this one.
                true => mirror.orders.push_back((order, worker_of(&order.key, workers))),
                // Nobody asks about these.
                false => mirror.orders.extend((0..workers).map(|worker| (order, worker))),
            }
        }
    }

    /// Goes on with telling and with taking in.
    pub(super) fn mirror_in_time(&mut self, now: Instant) {
        let Some(mut mirror) = self.pairing.as_mut().and_then(|pairing| pairing.mirror.take()) else { return };
        let active = self.pair().is_some_and(|pairing| pairing.election().role().0 == Role::Active);
        let heard = self.pair().is_some_and(|pairing| pairing.hears_peer(now, SILENCE));
        if !heard && mirror.source.has_told() {
            // It would know nothing of what is told meanwhile, which would only pile up here.
            mirror.source.restart();
        }
        if active && heard {
            self.survey(now, &mut mirror);
            if let Some(Pairing { link: Some(link), datagrams, .. }) = &mut self.pairing {
                datagrams.extend(mirror.source.batches(now).iter().map(|batch| link.write(BATCH, batch)));
            }
        }
        while let Some((order, worker)) = mirror.orders.front()
            && self.clerks.order(*worker, *order)
        {
            mirror.orders.pop_front();
        }
        // What is on its way to the workers is not there yet.
        let synchronised = active || (mirror.sink.is_whole() && mirror.orders.is_empty()) || {
            mirror.synchronised && mirror.sink.is_whole()
        };
        let changed = std::mem::replace(&mut mirror.synchronised, synchronised) != synchronised;
        if let Some(pairing) = &mut self.pairing {
            pairing.mirror = Some(mirror);
        }
        if changed {
            self.elect(now, Input::Synchronised(synchronised));
        }
    }

    /// Takes in what the surveys have come upon.
    fn survey(&self, now: Instant, mirror: &mut Mirroring) {
        let tables = self.published.load();
        for (surveyor, ended) in mirror.surveyors.iter().zip(&mut mirror.ended) {
            while !*ended && let Some(walked) = surveyor.surveyed() {
                match walked {
                    Walked::End => *ended = true,
                    Walked::Flow(flow) => {
                        if let Some((id, owner)) = flow_id(&self.config, &tables, &flow).zip(self.owner(&flow)) {
                            mirror.source.seen(now, id, owner, flow.age);
                        }
                    }
                }
            }
            // Who has come to the end waits for the others.
            if !*ended {
                surveyor.go_on(mirror.groups);
            }
        }
        if mirror.ended.iter().all(|ended| *ended) {
            mirror.source.round_done(now);
            mirror.ended.fill(false);
        }
    }
}

/// The worker that keeps a flow until another one asks for it.
fn worker_of(key: &Key, workers: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() % workers.max(1) as u64) as usize
}

/// A flow of a worker's table as other routers know it: of a coarse one, any packet that belongs to it.
fn flow_id(config: &Config, tables: &ForwardTables, flow: &Flow) -> Option<FlowId> {
    let position = tables.targets.get(flow.target.index())?.host.index();
    let (source, destination, [a, b, c, d], protocol): (IpAddr, IpAddr, _, _) = match flow.key {
        Key::V4(key) => (key.source.into(), key.destination.into(), key.ports, key.protocol),
        Key::V6(key) => (key.source.into(), key.destination.into(), key.ports, key.protocol),
    };
    let (from, to) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    match tables.virtual_hosts.get(position)?.granularity {
        Granularity::FiveTuple => {
            let (source, destination) = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
            Some(FlowId { source, destination, protocol })
        }
        Granularity::Source { .. } => {
            let host = config.virtual_hosts.get(position)?;
            let address = host.addresses.iter().map(|net| net.addr()).find(|own| own.is_ipv4() == source.is_ipv4())?;
            let service = host.services.first()?;
            let (source, destination) = (SocketAddr::new(source, 0), SocketAddr::new(address, *service.ports.start()));
            Some(FlowId { source, destination, protocol: service.protocol.unwrap_or(TCP) })
        }
    }
}
