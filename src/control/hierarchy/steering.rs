//! Which of a virtual host's children take new flows, at which cost and in which shares.

use std::time::Duration;

use super::Hierarchy;
use crate::clock::{Instant, WallClock};
use crate::config::{Config, Member, Register, RouteCost, VirtualHost};
use crate::control::conditions::{Conditions, Steer};
use crate::control::session::report::Serves;
use crate::control::wire::State;
use crate::cost::{Child, Here};

impl Hierarchy {
    /// What a virtual host's expressions may know beside its children.
    pub(super) fn here(&self, now: Instant, config: &Config) -> Here {
        let (at, WallClock(wall)) = self.wall;
        let passed = u64::try_from((now - at).as_millis()).unwrap_or(0);
        Here { level: config.router.level, wall: WallClock(wall.saturating_add(passed)) }
    }

    /// What a child says of a virtual host, and what that means without any costs.
    fn said(&self, config: &Config, host: &VirtualHost, member: &Member) -> (Steer, Option<Serves>) {
        let child = &config.children[member.child];
        match (child.register, self.news(&child.name).filter(|news| news.reported)) {
            (Register::Off, _) | (Register::Optional, None) => (Steer::AsConfigured, None),
            (Register::Required, None) => (Steer::TakesNone, None),
            (_, Some(news)) => match news.report.of(&host.addresses, &host.services) {
                None => (Steer::TakesNone, None),
                Some(serves) if serves.state == State::Down => (Steer::Down, Some(serves)),
                Some(serves) if news.draining || serves.state == State::Draining => (Steer::TakesNone, Some(serves)),
                Some(serves) => (Steer::Takes { cost: None, weight: None }, Some(serves)),
            },
        }
    }

    /// What an expression may know of a child in a virtual host.
    pub(super) fn facts(&self, config: &Config, host: &VirtualHost, member: &Member) -> Child {
        let child = &config.children[member.child];
        let (_, serves) = self.said(config, host, member);
        let weight = f64::from(member.weight.get());
        let round_trip = self.news(&child.name).and_then(|news| news.round_trip);
        let rtt_ms = round_trip.map_or(0.0, |time: Duration| time.as_secs_f64() * 1000.0);
        Child {
            name: child.name.clone(),
            load: serves.map_or(0.0, |serves| serves.load.ratio()),
            capacity: serves.map_or(weight, |serves| f64::from(serves.capacity)),
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

    /// What a virtual host's children say, for its new flows. Shares move on where `steps` says that an interval is over.
    pub(super) fn steer(
        &mut self,
        now: Instant,
        config: &Config,
        conditions: &Conditions,
        position: usize,
        steps: bool,
    ) -> Vec<Steer> {
        let host = &config.virtual_hosts[position];
        let here = self.here(now, config);
        let mut steers: Vec<Steer> = host.members.iter().map(|member| self.said(config, host, member).0).collect();
        if host.cost_function.is_none() && !host.shares {
            return steers;
        }
        let mut costs = Vec::with_capacity(steers.len());
        for (member, steer) in host.members.iter().zip(&mut steers) {
            let takes = matches!(steer, Steer::AsConfigured | Steer::Takes { .. });
            let facts = self.facts(config, host, member);
            let cost = match &host.cost_function {
                None => facts.cost,
                Some(function) => function.of_child(&facts, here).unwrap_or_else(|why| {
                    self.cost_error = Some(format!("the cost of {} for {} is unknown: {why}", facts.name, host.name));
                    f64::INFINITY
                }),
            };
            let cost = cost.max(0.0);
            if takes {
                *steer = Steer::Takes { cost: Some(cost), weight: None };
            }
            // What the operator or a check says counts for shares too.
            let name = &config.children[member.child].name;
            let able = takes && !conditions.drained.contains(name) && !conditions.is_down(&host.name, name);
            costs.push(able.then_some((cost, facts.capacity)));
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
