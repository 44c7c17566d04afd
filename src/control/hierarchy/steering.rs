//! Which of a virtual host's children take new flows, at which cost and in which shares.

use std::time::Duration;

use super::{Hierarchy, Place};
use crate::clock::{Instant, WallClock};
use crate::config::{Config, Member, Register, RouteCost};
use crate::control::conditions::{Conditions, Steer};
use crate::control::session::parent::News;
use crate::control::session::report::Serves;
use crate::control::wire::State;
use crate::cost::{Child, Here};

/// What is known of a child in a virtual host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// What that means for new flows, without cost and share.
    steer: Steer,
    /// What it says.
    serves: Option<Serves>,
    /// What it costs; not a number as long as that is not worked out.
    cost: f64,
}

impl Known {
    /// Of a child that says nothing.
    pub fn nothing(register: Register) -> Known {
        let steer = if register == Register::Required { Steer::TakesNone } else { Steer::AsConfigured };
        Known { steer, serves: None, cost: f64::NAN }
    }

    fn of(register: Register, news: Option<&News>, serves: Option<Serves>) -> Known {
        let Some(news) = news.filter(|_| register != Register::Off) else { return Known::nothing(register) };
        let steer = match serves {
            None => Steer::TakesNone,
            Some(serves) if serves.state == State::Down => Steer::Down,
            Some(serves) if news.draining || serves.state == State::Draining => Steer::TakesNone,
            Some(_) => Steer::Takes { cost: None, weight: None },
        };
        Known { steer, serves, cost: f64::NAN }
    }

    /// How much it can do, in the unit of weights.
    fn capacity(&self, member: &Member) -> f64 {
        self.serves.map_or(f64::from(member.weight.get()), |serves| f64::from(serves.capacity))
    }

    fn takes(&self) -> bool {
        matches!(self.steer, Steer::AsConfigured | Steer::Takes { .. })
    }
}

impl Hierarchy {
    /// What a virtual host's expressions may know beside its children.
    pub(super) fn here(&self, now: Instant, config: &Config) -> Here {
        let (at, WallClock(wall)) = self.wall;
        let passed = u64::try_from((now - at).as_millis()).unwrap_or(0);
        Here { level: config.router.level, wall: WallClock(wall.saturating_add(passed)) }
    }

    /// Takes in what a child says of all virtual hosts that it is in.
    pub(super) fn learn(&mut self, config: &Config, name: &str) {
        let Some((child, places)) = self.places.get(name) else { return };
        let register = config.children[*child].register;
        let news = self.children.as_ref().and_then(|children| children.news(name)).filter(|news| news.reported);
        let mut said = Vec::with_capacity(places.len());
        for &Place { host, known } in places {
            let virtual_host = &config.virtual_hosts[host];
            let serves = news.and_then(|news| news.report.of(&virtual_host.addresses, &virtual_host.services));
            self.known[known] = Known::of(register, news, serves);
            said.push((self.names[host].clone(), serves));
        }
        self.said.insert(name.to_owned(), said.into());
    }

    /// What an expression may know of a child in a virtual host, by its place there.
    pub(super) fn facts<'a>(&self, config: &'a Config, position: usize, place: usize) -> Child<'a> {
        let member = &config.virtual_hosts[position].members[place];
        let child = &config.children[member.child];
        let known = &self.known[self.starts[position] + place];
        let weight = f64::from(member.weight.get());
        let round_trip = self.news(&child.name).and_then(|news| news.round_trip);
        let rtt_ms = round_trip.map_or(0.0, |time: Duration| time.as_secs_f64() * 1000.0);
        Child {
            name: &child.name,
            load: known.serves.map_or(0.0, |serves| serves.load.ratio()),
            capacity: known.capacity(member),
            route_cost: match child.route_cost {
                RouteCost::Given(cost) => cost,
                RouteCost::RoundTrip => rtt_ms,
            },
            rtt_ms,
            weight,
            cost: member.cost,
            tier: member.tier.into(),
        }
    }

    /// What a virtual host's children say, for its new flows. Where `steps` says that an interval is over, shares move on, and
    /// all costs are worked out anew: else only those of children that have said something new.
    pub(super) fn steer(
        &mut self,
        now: Instant,
        config: &Config,
        conditions: &Conditions,
        position: usize,
        steps: bool,
    ) -> Vec<Steer> {
        let host = &config.virtual_hosts[position];
        let first = self.starts[position];
        let known = &self.known[first..first + host.members.len()];
        let mut steers: Vec<Steer> = known.iter().map(|known| known.steer).collect();
        if host.cost_function.is_none() && !host.shares {
            return steers;
        }
        let here = self.here(now, config);
        let mut costs = Vec::with_capacity(steers.len());
        for (place, steer) in steers.iter_mut().enumerate() {
            let known = self.known[first + place];
            if !known.takes() {
                costs.push(None);
                continue;
            }
            let mut cost = known.cost;
            if steps || cost.is_nan() {
                let facts = self.facts(config, position, place);
                cost = match &host.cost_function {
                    None => facts.cost,
                    Some(function) => function.of_child(&facts, here).unwrap_or_else(|why| {
                        let told = format!("the cost of {} for {} is unknown: {why}", facts.name, host.name);
                        self.cost_error = Some(told);
                        f64::INFINITY
                    }),
                }
                .max(0.0);
                self.known[first + place].cost = cost;
            }
            *steer = Steer::Takes { cost: Some(cost), weight: None };
            if host.shares {
                let member = &host.members[place];
                let name = &config.children[member.child].name;
                // What the operator or a check says counts for shares too.
                let able = !conditions.drained.contains(name) && !conditions.is_down(&host.name, name);
                costs.push(able.then_some((cost, known.capacity(member))));
            }
        }
        if host.shares {
            let shares = self.shares.entry(position).or_default();
            if steps || costs.iter().enumerate().any(|(at, cost)| cost.is_some() != (shares.of(at) > 0.0)) {
                shares.step(&costs, steps);
            }
            for (at, steer) in steers.iter_mut().enumerate() {
                if let Steer::Takes { weight, .. } = steer {
                    *weight = Some(shares.weight(at));
                }
            }
        }
        steers
    }
}
