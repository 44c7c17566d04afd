//! Whether virtual hosts are complete: addresses, services, policy, and children that exist.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::{health, or, regions, sessions, table_size};
use crate::config::error::{Fault, nearest, quote};
use crate::config::raw::{self, Members, Text, WordOr};
use crate::config::tree::Spanned;
use crate::config::values::{Once, example, name, number, prefix, show, word};
use crate::config::{Config, Member, OnFailure, OnUnknown, Probe, VirtualHost};
use crate::cost::Kind;
use crate::service::filter::Filter;
use crate::service::mss::MssClamp;
use crate::service::quic::Layout;
use crate::service::selection::{Granularity, Policy};
use crate::units::{TargetId, Weight};

/// Protocols by name; the flag says whether they have ports.
const PROTOCOLS: [(&str, (u8, bool)); 5] =
    [("tcp", (6, true)), ("udp", (17, true)), ("sctp", (132, true)), ("icmp", (1, false)), ("icmpv6", (58, false))];

pub(super) fn virtual_hosts(raw: &[raw::VirtualHost], config: &Config) -> Result<Vec<VirtualHost>, Fault> {
    let children: HashMap<&str, usize> =
        config.children.iter().enumerate().map(|(index, child)| (child.name.as_str(), index)).collect();
    let mut once = Once::new("virtual host");
    let (mut hosts, mut members) = (Vec::with_capacity(raw.len()), 0);
    for raw in raw {
        let host = virtual_host(raw, config, &children)?;
        once.add(host.name.clone(), &raw.name)?;
        members += host.members.len();
        if members > TargetId::COUNT_MAX {
            let message = format!(
                "up to here virtual hosts have {members} children in all; {} are the most",
                TargetId::COUNT_MAX
            );
            return Err(Fault::at(&raw.name, message));
        }
        hosts.push(host);
    }
    Ok(hosts)
}

fn virtual_host(
    raw: &raw::VirtualHost,
    config: &Config,
    children: &HashMap<&str, usize>,
) -> Result<VirtualHost, Fault> {
    let name = name("name", &raw.name)?;
    let addresses = addresses(&name, &raw.addresses)?;
    for (net, text) in addresses.iter().zip(&raw.addresses.value) {
        if net.prefix_len() == net.max_prefix_len() && config.owns(net.addr()) {
            let own = net.addr();
            let message =
                format!("virtual host \"{name}\" has the router's own address {own}; give the service one of its own");
            return Err(Fault::at(text, message));
        }
    }
    let services = services(&name, &raw.services)?;
    let policies = [
        ("consistent_hash", Policy::ConsistentHash),
        ("least_cost", Policy::LeastCost),
        ("round_robin", Policy::RoundRobin),
        ("shares", Policy::ConsistentHash),
    ];
    let flow = granularity(raw)?;
    let policy = or(&raw.selection, Policy::ConsistentHash, |text| word("selection", text, &policies))?;
    let shares = raw.selection.as_ref().is_some_and(|text| text.value == "shares");
    let expression = |key: &str, text: &Option<Text>, kind| {
        text.as_ref().map(|text| sessions::expression(key, text, kind)).transpose()
    };
    let cost_function = expression("cost_function", &raw.cost_function, Kind::Child)?;
    let aggregate_function = expression("aggregate_function", &raw.aggregate_function, Kind::Upward)?;
    if let (Some(text), false) = (&raw.cost_function, shares || policy == Policy::LeastCost) {
        let message = "cost_function has no meaning without costs; add selection: least_cost or selection: shares";
        return Err(Fault::at(text, message));
    }
    let by_region = match (&raw.cost_function, &cost_function) {
        (Some(text), Some(function)) => regions::asks(text, function, config)?,
        _ => false,
    };
    let table_size = or(&raw.table_size, config.cluster.table_size, table_size)?;
    let quic = quic(raw, &services)?;
    let mss_clamp = mss_clamp(raw, &services)?;
    let members = members(&name, raw, children, quic)?;
    if members.len() > table_size as usize {
        let count = members.len();
        let message = format!(
            "table_size {table_size} is smaller than the {count} children of virtual host \"{name}\"; \
             write at least a hundred slots a child: {}",
            example("table_size")
        );
        return Err(match &raw.table_size {
            Some(text) => Fault::at(text, message),
            None => Fault::at(&raw.children, message),
        });
    }
    let echo = [("children", false), ("router", true)];
    let answers_echo = or(&raw.echo, false, |text| word("echo", text, &echo))?;
    let health = match &raw.health {
        Some(raw) => {
            let health = health::health(raw, &name, &addresses, &services)?;
            if !matches!(health.probe, Probe::Command(_)) && config.source_of_checks(health.address, None).is_none() {
                return Err(Fault::at(raw, health::no_source(&name, health.address)));
            }
            Some(health)
        }
        None => None,
    };
    let outcomes = [("keep", OnFailure::Keep), ("reselect", OnFailure::Reselect)];
    let on_failure = or(&raw.on_failure, OnFailure::Keep, |text| word("on_failure", text, &outcomes))?;
    let unknown = [("select", OnUnknown::Select), ("drop", OnUnknown::Drop), ("reset", OnUnknown::Reset)];
    let on_unknown = or(&raw.on_unknown, OnUnknown::Select, |text| word("on_unknown", text, &unknown))?;
    Ok(VirtualHost {
        name,
        addresses,
        services,
        flow,
        policy,
        shares,
        cost_function,
        by_region,
        aggregate_function,
        quic,
        mss_clamp,
        table_size,
        answers_echo,
        takes_all: matches!(raw.children.value, Members::All),
        members,
        health,
        on_failure,
        on_unknown,
    })
}

/// The addresses of a virtual host.
pub(in crate::config) fn addresses(name: &str, raw: &Spanned<Vec<Text>>) -> Result<Vec<IpNet>, Fault> {
    let (mut addresses, mut once) = (Vec::new(), Once::new("address"));
    for text in &raw.value {
        let net = prefix("address", text)?;
        once.add(show(net), text)?;
        addresses.push(net);
    }
    if addresses.is_empty() {
        let message = format!("virtual host \"{name}\" has no address; write at least one: {}", example("addresses"));
        return Err(Fault::at(raw, message));
    }
    Ok(addresses)
}

/// The services of a virtual host; any, where none are named.
pub(in crate::config) fn services(name: &str, raw: &Option<Spanned<Vec<Text>>>) -> Result<Vec<Filter>, Fault> {
    match raw {
        None => Ok(vec![Filter::ANY]),
        Some(list) if list.value.is_empty() => {
            let message = format!(
                "virtual host \"{name}\" has an empty list of services; leave the key out for any, or write {}",
                example("services")
            );
            Err(Fault::at(list, message))
        }
        Some(list) => list.value.iter().map(service).collect(),
    }
}

/// `tcp/80`, `tcp/8000-8999`, `udp`, `47`, `any`.
fn service(text: &Text) -> Result<Filter, Fault> {
    let wrong = |why: String| Fault::at(text, format!("service {} {why}", quote(&text.value)));
    if text.value == "any" {
        return Ok(Filter::ANY);
    }
    let (protocol, ports) = match text.value.split_once('/') {
        Some((protocol, ports)) => (protocol, Some(ports)),
        None => (text.value.as_str(), None),
    };
    let named = PROTOCOLS.iter().find(|(name, _)| *name == protocol).map(|(_, meaning)| *meaning);
    let number = decimal(protocol).and_then(|number| u8::try_from(number).ok());
    let numbered = number.map(|number| (number, PROTOCOLS.iter().any(|&(_, known)| known == (number, true))));
    let Some((protocol, has_ports)) = named.or(numbered) else {
        let names = PROTOCOLS.iter().map(|(name, _)| *name).chain(["any"]);
        return Err(wrong(match nearest(protocol, names) {
            Some(near) => format!("is not known; did you mean \"{near}\"?"),
            None => "is not known; write tcp, udp, sctp, icmp, icmpv6, a protocol number from 0 to 255, or any".into(),
        }));
    };
    let ports = match ports {
        None => Filter::ALL_PORTS,
        Some(_) if !has_ports => {
            let protocol = Filter { protocol: Some(protocol), ports: Filter::ALL_PORTS };
            return Err(wrong(format!("has a port, which its protocol does not have; write {protocol} alone")));
        }
        Some(ports) => port_range(ports).ok_or_else(|| {
            wrong("has no good port; write one from 0 to 65535 or a range: tcp/80 or tcp/8000-8999".into())
        })?,
    };
    Ok(Filter { protocol: Some(protocol), ports })
}

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = decimal(first)?..=decimal(last)?;
    (!range.is_empty()).then_some(range)
}

fn decimal(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn granularity(raw: &raw::VirtualHost) -> Result<Granularity, Fault> {
    match raw.flow.as_ref().map(|flow| (flow, &flow.value)) {
        None => Ok(Granularity::FiveTuple),
        Some((_, WordOr::Word(word))) if word == "5-tuple" => Ok(Granularity::FiveTuple),
        Some((_, WordOr::Word(word))) if word == "source" => Ok(Granularity::Source { v4: 32, v6: 128 }),
        Some((at, WordOr::Word(word))) => {
            Err(Fault::at(at, format!("flow {} is not known; write {}", quote(word), example("flow"))))
        }
        Some((_, WordOr::Map(given))) => Ok(Granularity::Source {
            v4: or(&given.source.v4, 32, |text| number("v4", text, 0..=32))?,
            v6: or(&given.source.v6, 128, |text| number("v6", text, 0..=128))?,
        }),
    }
}

fn has_protocol(services: &[Filter], protocol: u8) -> bool {
    services.iter().any(|service| service.protocol.is_none_or(|named| named == protocol))
}

fn quic(raw: &raw::VirtualHost, services: &[Filter]) -> Result<Option<Layout>, Fault> {
    let Some(given) = &raw.quic else { return Ok(None) };
    if !has_protocol(services, 17) {
        let message = "quic has no meaning without UDP; add it: services: [tcp/443, udp/443]";
        return Err(Fault::at(given, message));
    }
    let raw = &given.value;
    // RFC 9000 section 17.2: version 1 has no longer connection ids.
    let length = number("length", &raw.length, 1..=20)?;
    let offset = or(&raw.offset, 0, |text| number("offset", text, 0..=length - 1))?;
    let server_id_length = number("server_id_length", &raw.server_id_length, 1..=16)?;
    if offset + server_id_length > length {
        let message = format!(
            "a server id of {server_id_length} bytes from byte {offset} ends behind a connection id of {length}; \
             write at least length: {}, or less of the others",
            offset + server_id_length
        );
        return Err(Fault::at(&raw.server_id_length, message));
    }
    Ok(Some(Layout { length, offset, server_id_length }))
}

fn mss_clamp(raw: &raw::VirtualHost, services: &[Filter]) -> Result<MssClamp, Fault> {
    let Some(text) = &raw.mss_clamp else { return Ok(MssClamp::Off) };
    if !has_protocol(services, 6) {
        return Err(Fault::at(text, "mss_clamp has no meaning without TCP; leave it out"));
    }
    if text.value.bytes().all(|byte| byte.is_ascii_digit()) {
        return number("mss_clamp", text, 536..=65_495).map(MssClamp::To);
    }
    word("mss_clamp", text, &[("auto", MssClamp::Auto), ("off", MssClamp::Off)])
}

/// The server id of a child, as a number in network order.
fn server_id(child: &str, at: &Spanned<WordOr<raw::Member>>, quic: Option<Layout>) -> Result<u128, Fault> {
    let given = match &at.value {
        WordOr::Word(_) => None,
        WordOr::Map(member) => member.server_id.as_ref(),
    };
    match (given, quic) {
        (None, None) => Ok(0),
        (Some(text), None) => {
            let message = "server_id has no meaning without the virtual host's quic; leave it out, or add";
            Err(Fault::at(text, format!("{message} {}", example("quic"))))
        }
        (None, Some(_)) => {
            let message = format!("child \"{child}\" has no server_id, by which QUIC connections are told");
            Err(Fault::at(at, format!("{message}; add it: {{ name: {child}, {} }}", example("server_id"))))
        }
        (Some(text), Some(Layout { server_id_length, .. })) => {
            let digits = usize::from(server_id_length) * 2;
            let hex = text.value.len() == digits && text.value.bytes().all(|byte| byte.is_ascii_hexdigit());
            let id = if hex { u128::from_str_radix(&text.value, 16).ok() } else { None };
            id.ok_or_else(|| {
                let wrong = quote(&text.value);
                let what = format!("is not {digits} hexadecimal digits, as server_id_length: {server_id_length} says");
                Fault::at(text, format!("server_id {wrong} {what}; write them in quotes: {}", example("server_id")))
            })
        }
    }
}

fn members(
    host: &str,
    raw: &raw::VirtualHost,
    children: &HashMap<&str, usize>,
    quic: Option<Layout>,
) -> Result<Vec<Member>, Fault> {
    let listed = match &raw.children.value {
        Members::All if quic.is_some() => {
            let message = format!("children of virtual host \"{host}\" have no server_id this way; list them");
            return Err(Fault::at(&raw.children, format!("{message}: {}", example("children"))));
        }
        Members::All => {
            let mut all: Vec<&usize> = children.values().collect();
            all.sort_unstable();
            if !all.is_empty() {
                return Ok(all.into_iter().copied().map(Member::unweighed).collect());
            }
            &[]
        }
        Members::Listed(listed) => &listed[..],
    };
    if listed.is_empty() {
        let message = format!("virtual host \"{host}\" has no children; name at least one: children: [server1]");
        return Err(Fault::at(&raw.children, message));
    }
    let (mut members, mut once, mut ids) = (Vec::new(), Once::new("child"), Once::new("server_id"));
    for item in listed {
        let (name, given) = match &item.value {
            WordOr::Word(name) => (name, None),
            WordOr::Map(member) => (&member.name.value, Some(member.as_ref())),
        };
        let Some(&child) = children.get(name.as_str()) else {
            let advice = match nearest(name, children.keys().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "define it in the top-level children: { name: server1, address: 10.0.1.1 }".into(),
            };
            let wrong = quote(name);
            let message = format!("virtual host \"{host}\" names the child {wrong}, which is not defined; {advice}");
            // A name in a map has a place of its own.
            return Err(given.map_or_else(|| Fault::at(item, &message), |given| Fault::at(&given.name, &message)));
        };
        once.add(name, item)?;
        let server_id = server_id(name, item, quic)?;
        if let Some(text) = given.and_then(|given| given.server_id.as_ref()) {
            ids.add(text.value.to_ascii_lowercase(), text)?;
        }
        let mut member = Member { server_id, ..Member::unweighed(child) };
        if let Some(given) = given {
            member.weight = or(&given.weight, member.weight, weight)?;
            member.cost = or(&given.cost, member.cost, cost)?;
            member.tier = or(&given.tier, member.tier, |text| number("tier", text, 0..=u8::MAX))?;
        }
        members.push(member);
    }
    Ok(members)
}

fn weight(text: &Text) -> Result<Weight, Fault> {
    let number = number("weight", text, 0..=Weight::MAX)?;
    Ok(Weight::new(number).expect("the range ends at Weight::MAX"))
}

fn cost(text: &Text) -> Result<f64, Fault> {
    text.value.parse().ok().filter(|cost: &f64| cost.is_finite() && *cost >= 0.0).ok_or_else(|| {
        let wrong = quote(&text.value);
        Fault::at(text, format!("cost {wrong} is not a number of at least 0; write one: {}", example("cost")))
    })
}
