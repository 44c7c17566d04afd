//! What this router learns from its children and tells its parents.
//!
//! ```text
//!   carrier ──► ParentEnd ──► News of each child ──► Steering: who takes new flows ──► compile
//!                                       └──────────► aggregate ──► Records ──► ChildEnd ──► carrier
//! ```
//!
//! What a child says changes its own place in its virtual hosts, and nothing else is worked out anew. Costs and shares are
//! once in an interval, those of one virtual host after the other, and at once when a child begins or ceases to take flows, or
//! its load has leapt.

pub mod shares;
pub mod view;

mod aggregate;
mod bypass;
mod distances;
mod regions;
mod rota;
mod steering;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::conditions::{Conditions, Steer, Steering};
use super::random::Random;
use super::session::child::{self, ChildEnd};
use super::session::parent::{self, News, ParentEnd, Settings};
use super::session::parents::Parents;
use super::session::report::Serves;
use super::session::{Carrier, Happening};
use super::shortcuts::{self, Shortcuts};
use super::wire::{RECORDS_MAX, TELLS_SHORTCUTS, TunnelEnd, WallClock};
use crate::clock::Instant;
use crate::config::{Config, Member, Register, RouteCost, VirtualHost};
use crate::cost::{Expression, Here};
use crate::service::selection::Policy;
use crate::units::Weight;
pub use bypass::Order;
use bypass::Outbox;
use distances::Distances;
use rota::Rota;
use shares::Shares;
use steering::{Known, Speaker};
pub use view::{Look, View};

/// Sessions of children beyond one for each: those that are about to replace one.
const SESSIONS_SPARE: usize = 64;

/// Children that are not configured, at most.
pub const REGISTERED_MAX: usize = 1024;

/// Happenings that are taken in in a pass at most, and the bytes in them, so that nobody keeps the slow path from its other
/// work: a few updates of a thousand virtual subnets each.
const PER_PASS: (usize, usize) = (256, 256 << 10);

/// From one view to the next, at least.
const VIEWING: Duration = Duration::from_millis(500);

/// What a pass has brought.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Virtual hosts that are to be steered in another way, by their positions.
    pub steered: Vec<usize>,
    /// Who may be a child by its hello, and where its tunnels end.
    pub registered: Vec<(String, Vec<TunnelEnd>)>,
    /// To be told in the log.
    pub told: Vec<String>,
    /// To be done with flows that go past a child, or are to.
    pub orders: Vec<Order>,
}

/// A member of a virtual host: the host's position, that of what is known of the member, and what the configuration says of it.
/// A child's are beside each other, where all else is spread over the memory.
#[derive(Clone, Copy, Debug)]
struct Place {
    host: u32,
    known: u32,
    weight: Weight,
    tier: u8,
    cost: f64,
}

/// A virtual host, by its position, that is to be steered, and whether an interval is over for it.
type Turn = (usize, bool);

/// Virtual hosts by their positions, and what a child says of each.
type SaidOf = Arc<[(u32, Option<Serves>)]>;

/// The sessions of one router, and what comes of them.
pub struct Hierarchy {
    children: Option<ParentEnd>,
    parents: Parents<SocketAddr>,
    /// The children that may tell us how they are, by name.
    speakers: HashMap<String, Speaker>,
    /// Of the members of all virtual hosts, one after the other.
    known: Vec<Known>,
    /// Where in that the members of each virtual host start.
    starts: Vec<usize>,
    /// Names of the virtual hosts.
    names: Arc<[Arc<str>]>,
    /// Children about which something is new.
    changed: BTreeSet<String>,
    /// Virtual hosts that are to be steered in the next pass whatever is said, by their positions.
    unsteered: Vec<usize>,
    /// What a new configuration wants done in the next pass.
    pending: Vec<parent::Output>,
    interval: Duration,
    look: Look,
    view_after: Instant,
    /// The calendar at a time.
    wall: (Instant, WallClock),
    /// Virtual hosts whose costs or shares change with time, and when they do.
    priced: Rota,
    /// Of each virtual host.
    pricing: Vec<Pricing>,
    /// What children cost; each once, however many virtual hosts have it.
    functions: Vec<Expression>,
    /// By the position of their virtual host.
    shares: Vec<Shares>,
    /// The same for clients in each region, of virtual hosts that ask for that.
    regional: HashMap<usize, Vec<Shares>>,
    distances: Distances,
    /// What expressions know of the calendar, and in which minute.
    here: (Here, Option<u64>),
    /// To work with.
    steers: Vec<Steer>,
    /// Why a cost is not known; one is enough for the log.
    cost_error: Option<String>,
    shortcuts: Shortcuts,
    outbox: Outbox,
}

impl Hierarchy {
    /// The sessions that `config` asks for; it is `wall` now. `seed` spreads attempts.
    pub fn new(now: Instant, wall: WallClock, config: &Config, seed: u64) -> Hierarchy {
        let router = &config.router;
        let anyone = config.sessions.takes_anyone;
        let children = config.sessions.listen.map(|_| {
            let settings = Settings {
                name: router.name.clone(),
                level: router.level,
                interval: config.sessions.interval,
                sessions_max: config.children.len() + SESSIONS_SPARE + if anyone { REGISTERED_MAX } else { 0 },
                records_max: RECORDS_MAX,
                takes_anyone: anyone,
            };
            ParentEnd::new(now, wall, settings, registering(config))
        });
        let mut random = Random::new(seed);
        let parents = config.sessions.parents.iter().map(|parent| {
            let mut hello = child::hello(router.name.clone(), router.level);
            hello.offers = offers(config);
            hello.tunnels = aggregate::tunnel_ends(router);
            hello.capabilities = if config.shortcuts { TELLS_SHORTCUTS } else { 0 };
            (ChildEnd::new(now, hello, parent.name.clone(), random.next()), parent.address)
        });
        let mut hierarchy = Hierarchy {
            children,
            parents: parents.collect(),
            speakers: HashMap::new(),
            known: Vec::new(),
            starts: Vec::new(),
            names: Arc::new([]),
            changed: BTreeSet::new(),
            unsteered: Vec::new(),
            pending: Vec::new(),
            interval: config.sessions.interval,
            look: Arc::new(ArcSwap::from_pointee(View::default())),
            view_after: now,
            wall: (now, wall),
            priced: Rota::new(Vec::new(), now + config.sessions.interval),
            pricing: Vec::new(),
            functions: Vec::new(),
            shares: Vec::new(),
            regional: HashMap::new(),
            distances: Distances::default(),
            here: (Here::default(), None),
            steers: Vec::new(),
            cost_error: None,
            shortcuts: Shortcuts::new(config.shortcuts),
            outbox: Outbox::default(),
        };
        hierarchy.index(config);
        hierarchy
    }

    /// The calendar is corrected: it is `wall` now.
    pub fn set_wall(&mut self, now: Instant, wall: WallClock) {
        self.wall = (now, wall);
        if let Some(children) = &mut self.children {
            children.set_wall(now, wall);
        }
    }

    /// Where others can read what is known.
    pub fn look(&self) -> Look {
        self.look.clone()
    }

    /// What is known about a child.
    pub fn news(&self, child: &str) -> Option<&News> {
        self.children.as_ref()?.news(child)
    }

    /// The sessions with the parents.
    pub fn parents(&self) -> impl Iterator<Item = (&ChildEnd, SocketAddr)> {
        self.parents.iter().map(|(end, address)| (end, *address))
    }

    /// Another configuration with the same sessions is in force.
    pub fn reconfigure(&mut self, config: &Config) {
        self.index(config);
        self.parents.offer(&offers(config));
        if let Some(children) = &mut self.children {
            self.pending.extend(children.reconfigure(registering(config)));
        }
        let outputs = self.shortcuts.set(config.shortcuts);
        self.outbox.put(outputs);
    }

    /// How all virtual hosts of another configuration are to be steered, which is about to take over.
    pub fn reconfigured(&mut self, now: Instant, config: &Config) -> Steering {
        self.index(config);
        self.steering(now, config)
    }

    fn index(&mut self, config: &Config) {
        self.speakers.clear();
        // Positions have other meanings now.
        self.shares = vec![Shares::default(); config.virtual_hosts.len()];
        self.regional.clear();
        self.distances.keep(config);
        self.here.1 = None;
        let mut known: HashMap<&str, u32> = HashMap::new();
        self.functions.clear();
        let pricing = config.virtual_hosts.iter().map(|host| {
            let function = host.cost_function.as_ref().map(|function| {
                *known.entry(function.source()).or_insert_with(|| {
                    self.functions.push(function.clone());
                    self.functions.len() as u32 - 1
                })
            });
            Pricing::of(config, host, function)
        });
        self.pricing = pricing.collect();
        let hosts = config.virtual_hosts.iter().enumerate();
        let priced = hosts.filter(|(position, host)| host.shares || self.pricing[*position].timed);
        self.priced.set(priced.map(|(position, _)| position).collect());
        self.names = config.virtual_hosts.iter().map(|host| host.name.as_str().into()).collect();
        self.known.clear();
        self.starts.clear();
        self.unsteered = (0..config.virtual_hosts.len()).collect();
        let mut places = vec![Vec::new(); config.children.len()];
        for (host, virtual_host) in config.virtual_hosts.iter().enumerate() {
            self.starts.push(self.known.len());
            for member in &virtual_host.members {
                let (host, known) = (host as u32, self.known.len() as u32);
                let &Member { child, weight, tier, cost, .. } = member;
                places[child].push(Place { host, known, weight, tier, cost });
                self.known.push(Known::nothing(config.children[member.child].register, member));
            }
        }
        for ((position, child), places) in config.children.iter().enumerate().zip(places) {
            if child.register != Register::Off {
                self.speakers.insert(child.name.clone(), Speaker::new(position, places));
            }
        }
        registering(config).iter().for_each(|child| self.learn(config, child, &mut Learned::default()));
        self.changed.extend(registering(config));
    }

    /// Whether a pass has anything to do beside what the carrier brings.
    fn is_due(&self, now: Instant) -> bool {
        let children = self.children.iter().filter_map(ParentEnd::next_deadline);
        children.chain(self.parents.next_deadline()).any(|deadline| deadline <= now)
    }

    /// When time alone brings something up.
    pub fn next_deadline(&self) -> Option<Instant> {
        let children = self.children.iter().filter_map(ParentEnd::next_deadline);
        let shares = self.priced.next_turn(self.interval);
        children.chain(self.parents.next_deadline()).chain(shares).chain(self.next_shortcut()).min()
    }

    /// Takes in what has happened, lets the machines go on, and steers.
    pub fn pass<C>(&mut self, now: Instant, carrier: &mut C, config: &Config, conditions: &mut Conditions) -> Outcome
    where
        C: Carrier<Address = SocketAddr>,
    {
        self.look_at_calendar(now, config);
        let mut outcome = Outcome::default();
        let pending = std::mem::take(&mut self.pending);
        self.downward(now, pending, carrier, config, &mut outcome);
        let mut bytes = 0;
        for _ in 0..PER_PASS.0 {
            let Some(happening) = carrier.poll() else { break };
            if let Happening::Received(_, piece) = &happening {
                bytes += piece.len();
            }
            self.take_in(now, happening, carrier, config, &mut outcome);
            if bytes >= PER_PASS.1 {
                break;
            }
        }
        if self.is_due(now) {
            if let Some(children) = &mut self.children {
                let outputs = children.handle(now, parent::Input::Tick);
                self.downward(now, outputs, carrier, config, &mut outcome);
            }
            let mut rest = Vec::new();
            self.parents.handle(now, &child::Input::Tick, carrier, &mut rest);
            self.upward(now, rest, &mut outcome);
        }
        let hosts = self.unsteered.drain(..).map(|host| (host, false)).collect();
        let mut learned = Learned { hosts, ..Learned::default() };
        for child in std::mem::take(&mut self.changed) {
            self.learn(config, &child, &mut learned);
        }
        let Learned { mut hosts, priced, leaps, is_telling: soon } = learned;
        let plain = conditions.are_plain();
        for Priced { host, known, cost, matters } in priced {
            let member = known as usize - self.starts[host as usize];
            conditions.steering.set_one(host as usize, member, Steer::Takes { cost: Some(cost), weight: None });
            if matters || !plain {
                outcome.steered.push(host as usize);
            }
        }
        let ahead = leaps.into_iter().filter(|(host, full)| self.shares[*host].go_ahead(now, self.interval, *full));
        hosts.extend(ahead.map(|(host, _)| (host, true)));
        let turns = self.priced.due(now, self.interval).into_iter();
        hosts.extend(turns.filter(|host| self.shares[*host].take_turn(now)).map(|host| (host, true)));
        // Of each the one that steps, if any does.
        hosts.sort_unstable_by(|one, other| other.cmp(one));
        hosts.dedup_by_key(|(host, _)| *host);
        let mut urgent = false;
        let mut steers = std::mem::take(&mut self.steers);
        for (host, steps) in hosts {
            self.steer(config, conditions, (host, steps), &mut steers);
            let able = |steer: &Steer| matches!(steer, Steer::AsConfigured | Steer::Takes { .. });
            let before = conditions.steering.all_of(host);
            // Another load can wait for the end of the interval: traffic is the same whatever happens.
            urgent |= before.iter().any(able) != steers.iter().any(able);
            let matters = !plain || self.makes_difference(host, before, &steers);
            if conditions.steering.set(host, &steers) && matters {
                outcome.steered.push(host);
            }
        }
        self.steers = steers;
        outcome.told.extend(self.cost_error.take());
        let mut rest = Vec::new();
        if urgent {
            self.parents.handle(now, &child::Input::Urgent, carrier, &mut rest);
        } else if soon {
            self.parents.handle(now, &child::Input::Soon, carrier, &mut rest);
        }
        if self.parents.iter().any(|(end, _)| end.wants_report()) {
            let records = aggregate::records(self, config, conditions);
            self.parents.report(now, || records.clone(), carrier, &mut rest);
        }
        self.upward(now, rest, &mut outcome);
        self.bypass(now, carrier, config, &mut outcome);
        if now >= self.view_after {
            self.view_after = now + VIEWING;
            self.look.store(Arc::new(self.view(now, config)));
        }
        outcome
    }

    /// Says goodbye to the parents.
    pub fn leave<C: Carrier<Address = SocketAddr>>(&mut self, now: Instant, carrier: &mut C) {
        self.parents.handle(now, &child::Input::Leave("it stops"), carrier, &mut Vec::new());
    }

    fn take_in<C>(
        &mut self,
        now: Instant,
        happening: Happening,
        carrier: &mut C,
        config: &Config,
        outcome: &mut Outcome,
    ) where
        C: Carrier<Address = SocketAddr>,
    {
        let mut rest = Vec::new();
        let happening = self.parents.take_in(now, happening, carrier, &mut rest);
        self.upward(now, rest, outcome);
        let Some(happening) = happening else { return };
        // Without children: of a session that we have closed.
        let Some(children) = &mut self.children else { return };
        let outputs = match happening {
            Happening::Opened(id, identity) => children.handle(now, parent::Input::Opened(id, identity)),
            Happening::Received(id, bytes) => children.handle(now, parent::Input::Received(id, &bytes)),
            Happening::Closed(id, why) => children.handle(now, parent::Input::Closed(id, &why)),
            Happening::Rejected(why) => {
                children.reject();
                return outcome.told.push(format!("session refused (certificate): {why}"));
            }
        };
        self.downward(now, outputs, carrier, config, outcome);
    }

    fn downward<C: Carrier>(
        &mut self,
        now: Instant,
        outputs: Vec<parent::Output>,
        carrier: &mut C,
        config: &Config,
        outcome: &mut Outcome,
    ) {
        for output in outputs {
            match output {
                parent::Output::Send(id, bytes) => carrier.send(id, bytes),
                parent::Output::Close(id) => carrier.close(id),
                parent::Output::Changed(child) => drop(self.changed.insert(child)),
                parent::Output::Registered(child, ends) => outcome.registered.push((child, ends)),
                parent::Output::Shortcuts(child, level, told) => self.told(now, config, &child, level, told),
                parent::Output::Revoked(child, ends) => self.revoked(now, &child, ends),
                parent::Output::Told(line) => outcome.told.push(line),
            }
        }
    }

    /// Does what the parents' ends want that is not the carrier's business.
    fn upward(&mut self, now: Instant, rest: Vec<child::Output>, outcome: &mut Outcome) {
        for output in rest {
            match output {
                child::Output::Kept(flows) => {
                    flows.into_iter().for_each(|flow| self.shortcut(now, shortcuts::Input::Kept(flow)));
                }
                other => outcome.told.extend(other.line()),
            }
        }
    }

    /// How all virtual hosts of `config` are to be steered now, whatever was before.
    pub fn steering(&mut self, now: Instant, config: &Config) -> Steering {
        self.look_at_calendar(now, config);
        let members = config.virtual_hosts.iter().map(|host| host.members.len() * config.kinds_of_clients(host));
        let mut steering = Steering::nothing(members);
        let mut steers = Vec::new();
        for position in 0..config.virtual_hosts.len() {
            self.steer(config, &Conditions::default(), (position, false), &mut steers);
            steering.set(position, &steers);
        }
        steering
    }
}

/// The prefixes that our own parents are offered.
fn offers(config: &Config) -> Vec<IpNet> {
    let identity = config.sessions.credentials.as_ref().map(|of| &of.identity);
    child::offers(identity, config.virtual_hosts.iter().flat_map(|host| &host.addresses).copied())
}

/// What is new of children, and for whom.
#[derive(Debug, Default)]
struct Learned {
    /// Virtual hosts that are to be steered, and whether an interval is over for them.
    hosts: Vec<(usize, bool)>,
    /// Members that cost something else, while all else is as it was.
    priced: Vec<Priced>,
    /// Virtual hosts of which a child has another load that is not to wait for the end of the interval, and whether it can do no
    /// more.
    leaps: Vec<(usize, bool)>,
    /// Whether one of those makes a difference to what parents are told.
    is_telling: bool,
}

/// A member that costs something else.
#[derive(Clone, Copy, Debug)]
struct Priced {
    host: u32,
    known: u32,
    cost: f64,
    /// Other members are the cheapest ones now.
    matters: bool,
}

/// When the costs in a virtual host are worked out.
#[derive(Clone, Copy, Debug)]
struct Pricing {
    /// Their function, by its position, where there is one.
    function: Option<u32>,
    /// Once in an interval whatever is said: they change with time, or with the distance of a child.
    timed: bool,
    /// As soon as a child says something new.
    at_once: bool,
    /// The cheapest get all new flows, wherever clients are.
    cheapest: bool,
    /// Clients in each region are given out by costs of their own.
    regional: bool,
    /// New flows are given out in shares.
    shares: bool,
}

impl Pricing {
    fn of(config: &Config, host: &VirtualHost, function: Option<u32>) -> Pricing {
        let moves = || {
            let mut children = host.members.iter().map(|member| &config.children[member.child]);
            children.any(|child| !matches!(child.route_cost, RouteCost::Given(_)))
        };
        let timed = host.cost_function.as_ref().is_some_and(|function| {
            function.changes_with_time() || function.names(&["rtt_ms"]) || function.names(&["route_cost"]) && moves()
        });
        let at_once = host.cost_function.is_some() && !host.shares;
        let cheapest = at_once && host.policy == Policy::LeastCost && !host.by_region;
        Pricing { function, timed, at_once, cheapest, regional: host.by_region, shares: host.shares }
    }
}

/// Names of the children that may tell us how they are.
fn registering(config: &Config) -> BTreeSet<String> {
    let children = config.children.iter().filter(|child| child.register != Register::Off);
    children.map(|child| child.name.clone()).collect()
}
