//! Whether sessions with parents and children can be: addresses, names, and certificates that fit the router.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;

use super::or;
use crate::config::error::{Fault, one_line, quote};
use crate::config::raw::{self, Text};
use crate::config::values::{Once, duration, example, name, word};
use crate::config::{Config, Parent, Register, RouteCost, Sessions, VirtualHost};
use crate::cost::{Expression, ExpressionError, Kind};
use crate::trust::{Credentials, TrustError, read_authority, read_chain, read_key};

/// From one update of a child to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shortest and longest interval: what is said is believed for three of them.
const INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(60)];

const EXAMPLE: &str =
    "control: { certificate: /etc/slr/edge1.pem, key: /etc/slr/edge1.key, authority: /etc/slr/ca.pem }";

pub(super) fn sessions(raw: &raw::Config) -> Result<Sessions, Fault> {
    let parents = parents(&raw.parents)?;
    let mut sessions = Sessions { listen: None, interval: INTERVAL, takes_anyone: false, parents, credentials: None };
    let control = raw.control.as_ref();
    if let Some(control) = control {
        sessions.listen = control.listen.as_ref().map(|text| address("listen", "10.255.0.1:9478", text)).transpose()?;
        sessions.interval = or(&control.interval, INTERVAL, interval)?;
        let words = [("listed", false), ("anyone", true)];
        sessions.takes_anyone = or(&control.registration, false, |text| word("registration", text, &words))?;
        if let (Some(text), None) = (&control.registration, &control.listen) {
            return Err(meaningless(text, "control: listen"));
        }
    }
    // What needs certificates, as it was written.
    let listen = control.and_then(|control| control.listen.as_ref());
    let reason = listen.or(raw.parents.first().map(|parent| &parent.name));
    sessions.credentials = proof(control, reason, "control: listen or parents:")?;
    match control.and_then(|control| control.interval.as_ref()) {
        Some(text) if reason.is_none() => Err(meaningless(text, "control: listen or parents:")),
        _ => Ok(sessions),
    }
}

/// Routers above.
pub(in crate::config) fn parents(raw: &[raw::Parent]) -> Result<Vec<Parent>, Fault> {
    let mut once = Once::new("parent");
    let parent = |raw: &raw::Parent| {
        let name = name("name", &raw.name)?;
        once.add(name.clone(), &raw.name)?;
        Ok(Parent { name, address: address("address", "10.255.0.9:9478", &raw.address)? })
    };
    raw.iter().map(parent).collect()
}

/// By what we show who we are, where `reason` asks for it; else nothing may, unless there were `sessions`.
pub(in crate::config) fn proof(
    control: Option<&raw::Control>,
    reason: Option<&Text>,
    sessions: &str,
) -> Result<Option<Credentials>, Fault> {
    let files = control.map(|control| (&control.certificate, &control.key, &control.authority));
    match (reason, files) {
        (Some(_), Some((Some(certificate), Some(key), Some(authority)))) => {
            credentials(certificate, key, authority).map(Some)
        }
        (Some(at), _) => {
            let message = "sessions with children and parents need certificate, key and authority; add them to";
            Err(Fault::at(at, format!("{message} {EXAMPLE}")))
        }
        (None, Some((certificate, key, authority))) => {
            match [certificate, key, authority].into_iter().flatten().next() {
                Some(text) => Err(meaningless(text, sessions)),
                None => Ok(None),
            }
        }
        (None, None) => Ok(None),
    }
}

fn meaningless(text: &Text, sessions: &str) -> Fault {
    Fault::at(text, format!("this has no meaning without sessions; leave it out, or add {sessions}"))
}

/// Whether the certificate is that of the router or agent (`what`) of this name and level.
pub(in crate::config) fn own(
    credentials: Option<&Credentials>,
    control: Option<&raw::Control>,
    (what, name, level): (&str, &str, u8),
) -> Result<(), Fault> {
    let Some((credentials, at)) = credentials.zip(control.and_then(|control| control.certificate.as_ref())) else {
        return Ok(());
    };
    let of = &credentials.identity;
    if (of.name.as_str(), of.level) == (name, level) {
        return Ok(());
    }
    let message = format!(
        "the certificate is of node \"{}\", level {}, but the {what} is \"{name}\", level {level}; \
         make one for it: slrctl ca issue {name} --level {level}",
        of.name, of.level
    );
    Err(Fault::at(at, message))
}

/// Whether sessions fit what else there is.
pub(super) fn fit(raw: &raw::Config, config: &Config) -> Result<(), Fault> {
    let (router, sessions) = (&config.router, &config.sessions);
    own(sessions.credentials.as_ref(), raw.control.as_ref(), ("router", &router.name, router.level))?;
    for (raw, parent) in raw.parents.iter().zip(&sessions.parents) {
        let who = match &parent.name {
            name if *name == router.name => "the router itself",
            name if config.children.iter().any(|child| child.name == *name) => "a child too",
            _ => continue,
        };
        let message = format!("parent \"{}\" is {who}; packets would go round in circles, remove one", parent.name);
        return Err(Fault::at(&raw.name, message));
    }
    Ok(())
}

/// Whether children that are to tell how they are can.
pub(super) fn heard(children: &[raw::Child], config: &Config) -> Result<(), Fault> {
    for (raw, child) in children.iter().zip(&config.children) {
        if let Some(text) = &raw.register
            && child.register != Register::Off
            && config.sessions.listen.is_none()
        {
            let message = format!(
                "child \"{}\" can tell nothing, as we do not listen; add control: {{ listen: 10.255.0.1:9478, ... }}",
                child.name
            );
            return Err(Fault::at(text, message));
        }
    }
    Ok(())
}

pub(super) fn register(text: &Text) -> Result<Register, Fault> {
    let words = [("off", Register::Off), ("optional", Register::Optional), ("required", Register::Required)];
    word("register", text, &words)
}

/// A number of at least 0, or that the round-trip time or the metric of the route is to be taken.
pub(super) fn route_cost(text: &Text) -> Result<RouteCost, Fault> {
    if text.value == "rtt" {
        return Ok(RouteCost::RoundTrip);
    }
    if text.value == "metric" {
        return Ok(RouteCost::Metric);
    }
    let number = text.value.parse().ok().filter(|cost: &f64| cost.is_finite() && *cost >= 0.0);
    number.map(RouteCost::Given).ok_or_else(|| {
        let wrong = quote(&text.value);
        let message = format!(
            "route_cost {wrong} is neither a number of at least 0 nor rtt or metric; write {}",
            example("route_cost")
        );
        Fault::at(text, message)
    })
}

/// Whether the round-trip time to each child that is to be so far can be known.
pub(super) fn measured(raw: &raw::Router, children: &[raw::Child], config: &Config) -> Result<(), Fault> {
    let quick = |host: &&VirtualHost| host.health.as_ref().is_some_and(|health| health.probe.is_one_exchange());
    let asked = config.virtual_hosts.iter().filter(quick).flat_map(|host| &host.members);
    let asked: HashSet<usize> = asked.map(|member| member.child).collect();
    for (position, (written, child)) in children.iter().zip(&config.children).enumerate() {
        let known = child.register != Register::Off || asked.contains(&position);
        if let (RouteCost::RoundTrip, false, Some(at)) =
            (child.route_cost, known, written.route_cost.as_ref().or(raw.route_cost.as_ref()))
        {
            let message = format!(
                "the round-trip time to child \"{}\" is only known by its session, or by checks by icmp or tcp; \
                 add register: optional, or to a virtual host of its health: icmp",
                child.name
            );
            let of_site = config.site.is_some() && written.route_cost.is_some();
            return Err(Fault { of_site, ..Fault::at(at, message) });
        }
    }
    Ok(())
}

/// An expression of a virtual host.
pub(super) fn expression(key: &str, text: &Text, kind: Kind) -> Result<Expression, Fault> {
    Expression::new(&text.value, kind).map_err(|ExpressionError { at, message }| {
        let place = at.map(|at| format!(" (at its character {})", at + 1)).unwrap_or_default();
        Fault::at(text, format!("{key} {} {message}{place}; an example: {}", quote(&text.value), example(key)))
    })
}

fn address(key: &str, right: &str, text: &Text) -> Result<SocketAddr, Fault> {
    text.value.parse().map_err(|_| {
        let wrong = quote(&text.value);
        Fault::at(text, format!("{key} {wrong} is no address with a port; write one like {key}: {right}"))
    })
}

fn interval(text: &Text) -> Result<Duration, Fault> {
    let time = duration("interval", text)?;
    if (INTERVALS[0]..=INTERVALS[1]).contains(&time) {
        return Ok(time);
    }
    let wrong = quote(&text.value);
    Err(Fault::at(text, format!("interval {wrong} is out of range; write a time from 100ms to 60s: interval: 1s")))
}

fn credentials(certificate: &Text, key: &Text, authority: &Text) -> Result<Credentials, Fault> {
    let fault = |name: &'static str, right: &'static str, text: &Text| {
        let (at, shown) = (text.clone(), quote(&text.value));
        move |error: TrustError| {
            let why = one_line(&error.to_string());
            Fault::at(&at, format!("{name} {shown} {why}: {right}"))
        }
    };
    let (chain, identity) =
        read_chain(Path::new(&certificate.value)).map_err(fault("certificate", example("certificate"), certificate))?;
    let private = read_key(Path::new(&key.value)).map_err(fault("key", "key: /etc/slr/edge1.key", key))?;
    let authority =
        read_authority(Path::new(&authority.value)).map_err(fault("authority", example("authority"), authority))?;
    if CertifiedKey::from_der(chain.clone(), private.clone_key(), &ring::default_provider()).is_err() {
        let (key_file, file) = (quote(&key.value), quote(&certificate.value));
        let message = format!("key {key_file} does not belong to certificate {file}; give the one made with it");
        return Err(Fault::at(key, message));
    }
    Ok(Credentials { identity, chain, key: private, authority })
}
