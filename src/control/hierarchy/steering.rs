//! Which of a virtual host's children take new flows, at which cost and in which shares.

use std::sync::Arc;
use std::time::Duration;

use super::regions::share;
use super::shares::Price;
use super::{Hierarchy, Learned, Place, Priced, SaidOf, Turn};
use crate::clock::{Instant, WallClock};
use crate::config::{self, Config, Member, Register, RouteCost, VirtualHost};
use crate::control::conditions::{Conditions, Steer};
use crate::control::session::parent::News;
use crate::control::session::report::{Report, Serves};
use crate::control::wire::{Load, State};
use crate::cost::{Child, Here};
use crate::units::Weight;

/// Parents are told before the interval is over when the mean load of all children has changed by so much.
const LEAP_UPWARD: Load = Load(100_000);

/// What a child's word means for new flows, without cost and share.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stance {
    AsConfigured,
    Takes,
    TakesNone,
    Down,
}

impl Stance {
    fn of(register: Register, news: Option<&News>, serves: Option<Serves>) -> Stance {
        let Some(news) = news.filter(|_| register != Register::Off) else {
            return if register == Register::Required { Stance::TakesNone } else { Stance::AsConfigured };
        };
        match serves {
            None => Stance::TakesNone,
            Some(serves) if serves.state == State::Down => Stance::Down,
            Some(serves) if news.draining || serves.state == State::Draining => Stance::TakesNone,
            Some(_) => Stance::Takes,
        }
    }
}

/// What is known of a child in a virtual host. Small: of all there are, a few of each virtual host are looked at in no order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    stance: Stance,
    /// What it says.
    serves: Option<Serves>,
    /// What it costs; not a number as long as that is not worked out.
    cost: f64,
    /// Its tier; `None` where the configuration gives it no new flows.
    tier: Option<u8>,
}

impl Known {
    /// Of a child that says nothing.
    pub fn nothing(register: Register, member: &Member) -> Known {
        let tier = (member.weight != Weight::DRAIN).then_some(member.tier);
        Known { stance: Stance::of(register, None, None), serves: None, cost: f64::NAN, tier }
    }

    /// Who is before others where the cheapest of the first tier gets new flows.
    fn rank(&self) -> Option<(u8, f64)> {
        self.tier.filter(|_| self.takes()).map(|tier| (tier, self.cost))
    }

    /// The same, where it is to be steered like that.
    fn rank_as(&self, steer: &Steer) -> Option<(u8, f64)> {
        match *steer {
            Steer::Takes { cost: Some(cost), .. } => Some((self.tier?, cost)),
            _ => None,
        }
    }

    /// Whether its cost is worked out, or does not count.
    fn is_priced(&self) -> bool {
        !self.takes() || !self.cost.is_nan()
    }

    fn takes(&self) -> bool {
        matches!(self.stance, Stance::AsConfigured | Stance::Takes)
    }

    fn steer(&self) -> Steer {
        match self.stance {
            Stance::AsConfigured => Steer::AsConfigured,
            Stance::Takes => Steer::Takes { cost: None, weight: None },
            Stance::TakesNone => Steer::TakesNone,
            Stance::Down => Steer::Down,
        }
    }
}

/// Where a report says something of a virtual host.
#[derive(Clone, Copy, Debug)]
enum Line {
    Nowhere,
    /// In this place, and nowhere else.
    At(u32),
    /// In several places, one for each address and service.
    Several,
}

impl Line {
    fn of(report: &Report, host: &VirtualHost) -> Line {
        match (&host.addresses[..], &host.services[..]) {
            ([address], [service]) => report.nearest(*address, service).map_or(Line::Nowhere, Line::At),
            _ => Line::Several,
        }
    }
}

/// A child that may tell us how it is.
pub(super) struct Speaker {
    /// Its position.
    child: usize,
    /// Where it is a member.
    places: Vec<Place>,
    /// Its last report, and where in that something is said of each of them: as long as reports are alike, that stays.
    report: Arc<Report>,
    lines: Vec<Line>,
    /// What it has said last of the virtual hosts that it is in.
    pub said: SaidOf,
}

impl Speaker {
    pub fn new(child: usize, places: Vec<Place>) -> Speaker {
        Speaker { child, places, report: Arc::default(), lines: Vec::new(), said: Arc::new([]) }
    }

    fn read(&mut self, config: &Config, report: &Arc<Report>) {
        if self.lines.is_empty() || !report.is_alike(&self.report) {
            let hosts = self.places.iter().map(|place| &config.virtual_hosts[place.host as usize]);
            self.lines = hosts.map(|host| Line::of(report, host)).collect();
        }
        self.report = report.clone();
    }
}

/// How much a child can do, in the unit of weights.
fn capacity(serves: Option<Serves>, weight: Weight) -> f64 {
    serves.map_or(f64::from(weight.get()), |serves| f64::from(serves.capacity))
}

/// How much of that it does.
fn load(serves: Option<Serves>) -> f64 {
    serves.map_or(0.0, |serves| serves.load.ratio())
}

/// What an expression may know of a child with this weight, cost and tier in a virtual host.
fn facts(
    child: &config::Child,
    (weight, cost, tier): (Weight, f64, u8),
    serves: Option<Serves>,
    (away, metric): (Option<Duration>, f64),
) -> Child<'_> {
    let rtt_ms = away.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    Child {
        name: &child.name,
        labels: &child.labels,
        client_region: "",
        load: load(serves),
        capacity: capacity(serves, weight),
        route_cost: match child.route_cost {
            RouteCost::Given(cost) => cost,
            RouteCost::RoundTrip => rtt_ms,
            RouteCost::Metric => metric,
        },
        rtt_ms,
        weight: weight.get().into(),
        cost,
        tier: tier.into(),
    }
}

/// A cost that has been worked out; one that could not be is told, and without measure.
fn known_cost(cost: Result<f64, String>, (child, host): (&str, &str), told: &mut Option<String>) -> f64 {
    cost.map(|cost| cost.max(0.0)).unwrap_or_else(|why| {
        *told = Some(format!("the cost of {child} for {host} is unknown: {why}"));
        f64::INFINITY
    })
}

impl Hierarchy {
    /// Sees what a virtual host's expressions may know beside its children, once a minute.
    pub(super) fn look_at_calendar(&mut self, now: Instant, config: &Config) {
        let (at, WallClock(wall)) = self.wall;
        let wall = wall.saturating_add(u64::try_from((now - at).as_millis()).unwrap_or(0));
        let minute = Some(wall / 60_000);
        if self.here.1 != minute {
            self.here = (Here::at(config.router.level, WallClock(wall), &config.router.time_zone), minute);
        }
    }

    /// Takes in what a child says of all virtual hosts that it is in, and adds those of which it says something new.
    pub(super) fn learn(&mut self, config: &Config, name: &str, learned: &mut Learned) {
        let here = self.here.0;
        let Some(speaker) = self.speakers.get_mut(name) else { return };
        let child = &config.children[speaker.child];
        let news = self.children.as_ref().and_then(|children| children.news(name)).filter(|news| news.reported);
        if let Some(news) = news {
            speaker.read(config, &news.report);
        }
        let serves = |host: usize, line: Option<&Line>| match *line? {
            Line::Nowhere => None,
            Line::At(place) => news?.report.at(place),
            Line::Several => {
                let VirtualHost { addresses, services, .. } = &config.virtual_hosts[host];
                news?.report.of(addresses, services)
            }
        };
        let mut said = Vec::with_capacity(speaker.places.len());
        for (at, place) in speaker.places.iter().enumerate() {
            let host = place.host as usize;
            let serves = serves(host, speaker.lines.get(at));
            said.push((place.host, serves));
            let stance = Stance::of(child.register, news, serves);
            let known = self.known[place.known as usize];
            if (known.stance, known.serves) == (stance, serves) {
                continue;
            }
            let mut next = Known { stance, serves, cost: f64::NAN, ..known };
            let pricing = self.pricing[host];
            let first = self.starts[host];
            let members = first..self.starts.get(host + 1).copied().unwrap_or(self.known.len());
            if let (Some(before), Some(now)) = (known.serves, serves)
                && now.load.leaps_from(before.load)
            {
                if pricing.shares {
                    learned.leaps.push((host, now.load >= Load::FULL));
                }
                learned.is_telling |= !self.parents.is_empty() && {
                    let all = self.known[members.clone()].iter().filter_map(|known| known.serves);
                    let all: u64 = all.map(|serves| u64::from(serves.capacity)).sum();
                    let own = u64::from(before.load.0.abs_diff(now.load.0)) * u64::from(now.capacity);
                    own >= u64::from(LEAP_UPWARD.0) * all.max(1)
                };
            }
            let simple = pricing.at_once && !pricing.timed && !pricing.regional;
            let quick = known.stance == stance && known.takes() && simple;
            match pricing.function.filter(|_| quick && self.known[members.clone()].iter().all(Known::is_priced)) {
                // Another load alone: no need to look at more than that.
                Some(function) => {
                    // It does not ask for the way to the child.
                    let facts = facts(child, (place.weight, place.cost, place.tier), serves, (None, 0.0));
                    let cost = self.functions[function as usize].of_child(&facts, here);
                    next.cost = known_cost(cost, (&child.name, &self.names[host]), &mut self.cost_error);
                    let others = members.filter(|at| *at != place.known as usize);
                    let others = others.filter_map(|at| self.known[at].rank());
                    let least =
                        others.fold((u8::MAX, f64::INFINITY), |least, one| if one < least { one } else { least });
                    let against = |known: &Known| known.rank().and_then(|rank| rank.partial_cmp(&least));
                    let matters = pricing.cheapest && against(&known) != against(&next);
                    learned.priced.push(Priced { host: place.host, known: place.known, cost: next.cost, matters });
                }
                // It counts where it is a cost at once; for shares it does when the interval is over.
                None if known.stance != stance || pricing.at_once => learned.hosts.push((host, false)),
                None => {}
            }
            self.known[place.known as usize] = next;
        }
        speaker.said = said.into();
    }

    /// What an expression may know of a child in a virtual host, by its place there.
    pub(super) fn facts<'a>(&self, config: &'a Config, position: usize, place: usize) -> Child<'a> {
        let child = &config.children[config.virtual_hosts[position].members[place].child];
        let round_trip = self.news(&child.name).and_then(|news| news.round_trip);
        let round_trip = round_trip.or_else(|| self.distances.round_trip(&child.name));
        self.facts_at(config, position, place, round_trip)
    }

    /// The same, where the time to the child and back is known.
    fn facts_at<'a>(&self, config: &'a Config, position: usize, place: usize, away: Option<Duration>) -> Child<'a> {
        let member = &config.virtual_hosts[position].members[place];
        let known = &self.known[self.starts[position] + place];
        let child = &config.children[member.child];
        let metric = match child.route_cost {
            RouteCost::Metric => self.distances.metric(&child.name),
            RouteCost::Given(_) | RouteCost::RoundTrip => 0.0,
        };
        facts(child, (member.weight, member.cost, member.tier), known.serves, (away, metric))
    }

    /// What a virtual host's children say, for its new flows, in their order. Where `steps` says that an interval is over,
    /// shares move on, and costs that change with time are worked out anew: else only those of children that have said
    /// something new.
    pub(super) fn steer(
        &mut self,
        config: &Config,
        conditions: &Conditions,
        (position, steps): Turn,
        steers: &mut Vec<Steer>,
    ) {
        let host = &config.virtual_hosts[position];
        let first = self.starts[position];
        steers.clear();
        steers.extend(self.known[first..first + host.members.len()].iter().map(Known::steer));
        if host.cost_function.is_none() && !host.shares {
            return;
        }
        let timed = self.pricing[position].timed;
        let mut prices = Vec::with_capacity(if host.shares { steers.len() } else { 0 });
        for (place, steer) in steers.iter_mut().enumerate() {
            let known = self.known[first + place];
            let takes = known.takes();
            if takes {
                let mut cost = known.cost;
                if steps && timed || cost.is_nan() {
                    cost = self.cost(config, position, (place, ""));
                    self.known[first + place].cost = cost;
                }
                *steer = Steer::Takes { cost: Some(cost), weight: None };
            }
            if host.shares {
                let member = &host.members[place];
                let name = &config.children[member.child].name;
                // What the operator or a check says counts for shares too.
                let able = takes && !conditions.drained.contains(name) && !conditions.is_down(&host.name, name);
                prices.push(able.then(|| Price {
                    cost: self.known[first + place].cost,
                    capacity: capacity(known.serves, member.weight),
                    load: load(known.serves),
                }));
            }
        }
        if host.shares {
            share(&mut self.shares[position], &prices, steps, steers);
        }
        if host.by_region {
            self.steer_by_region(config, (position, steps), &prices, steers);
        }
    }

    /// What a child costs in a virtual host, by its place there, for clients in a region.
    pub(super) fn cost(&mut self, config: &Config, position: usize, (place, region): (usize, &str)) -> f64 {
        let host = &config.virtual_hosts[position];
        let mut facts = match self.pricing[position].timed {
            true => self.facts(config, position, place),
            // It does not ask for the time to the child.
            false => self.facts_at(config, position, place, None),
        };
        facts.client_region = region;
        let Some(function) = &host.cost_function else { return facts.cost };
        let cost = function.of_child(&facts, self.here.0);
        known_cost(cost, (facts.name, &host.name), &mut self.cost_error)
    }

    /// Whether new flows are given out in another way when what is known of a virtual host's members is `after` instead of
    /// `before`, as far as it depends on nothing else. A cost alone does so only where it makes another member the cheapest.
    pub(super) fn makes_difference(&self, position: usize, before: &[Steer], after: &[Steer]) -> bool {
        let differ = |(before, after): (&Steer, &Steer)| match (before, after) {
            (Steer::Takes { weight: before, .. }, Steer::Takes { weight: after, .. }) => before != after,
            (before, after) => before != after,
        };
        if before.len() != after.len() || before.iter().zip(after).any(differ) {
            return true;
        }
        if self.pricing[position].regional {
            return before != after;
        }
        if !self.pricing[position].cheapest {
            return false;
        }
        let first = self.starts[position];
        let both = || self.known[first..].iter().zip(before.iter().zip(after));
        let mut least = [(u8::MAX, f64::INFINITY); 2];
        for (known, (before, after)) in both() {
            for (least, one) in least.iter_mut().zip([known.rank_as(before), known.rank_as(after)]) {
                *least = one.filter(|one| one < least).unwrap_or(*least);
            }
        }
        // Whoever is among the cheapest shares with them.
        both().any(|(known, (before, after))| {
            (known.rank_as(before) == Some(least[0])) != (known.rank_as(after) == Some(least[1]))
        })
    }
}
