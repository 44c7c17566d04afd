//! Whether a pair of routers can be as it is written: its addresses, how it is heard of, and what it requires.

use std::net::IpAddr;
use std::time::Duration;

use super::recovery::endpoint;
use super::{key, or};
use crate::config::error::{Fault, quote};
use crate::config::raw::{self, Text};
use crate::config::values::{Once, duration, example, host, number, word};
use crate::config::{Config, Pair, Peer, Requires, port_of};
use crate::units::PortIndex;

/// Addresses of a pair at most: as many as fit into an advertisement that nobody has to fragment.
const ADDRESSES_MAX: usize = 16;

/// From one advertisement to the next: the first takes the step that VRRP counts in, the last is what it can say.
const HEARTBEATS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(40_950)];

const PEER: &str = "peer: { listen: 10.255.0.1:9480, address: 10.255.0.2:9480, key: 000102030405060708090a0b0c0d0e0f }";

pub(super) fn pair(raw: &raw::Pair, config: &Config) -> Result<Pair, Fault> {
    let access = port("access", &raw.access, config)?;
    let heartbeats = or(&raw.heartbeat, Duration::from_millis(100), heartbeat)?;
    Ok(Pair {
        access,
        id: number("id", &raw.id, 1..=255)?,
        addresses: addresses(raw, access, config)?,
        priority: or(&raw.priority, 100, |text| number("priority", text, 1..=254))?,
        heartbeat: heartbeats,
        preempt: or(&raw.preempt, Some(Duration::from_secs(5)), |text| match text.value.as_str() {
            "off" => Ok(None),
            _ => duration("preempt", text).map(Some),
        })?,
        virtual_mac: or(&raw.virtual_mac, false, |text| word("virtual_mac", text, &[("on", true), ("off", false)]))?,
        peer: raw.peer.as_ref().map(peer).transpose()?,
        mirror_after: mirror_after(raw)?,
        requires: requires(raw.requires.as_ref(), config)?,
    })
}

fn port(what: &str, text: &Text, config: &Config) -> Result<PortIndex, Fault> {
    let position = config.ports.iter().position(|port| port.name == text.value);
    position.map(|position| PortIndex(position as u16)).ok_or_else(|| {
        let names: Vec<&str> = config.ports.iter().map(|port| port.name.as_str()).collect();
        let known = if names.is_empty() { "none".into() } else { names.join(", ") };
        Fault::at(text, format!("{what} {} is not a port; ports are {known}", quote(&text.value)))
    })
}

fn addresses(raw: &raw::Pair, access: PortIndex, config: &Config) -> Result<Vec<IpAddr>, Fault> {
    let (mut addresses, mut once) = (Vec::new(), Once::new("virtual address"));
    let list = &raw.virtual_addresses;
    if list.value.is_empty() {
        let message = format!("a pair without addresses is none; write {}", example("virtual_addresses"));
        return Err(Fault::at(list, message));
    }
    let port = &config.ports[access.index()];
    for text in &list.value {
        let address = host("virtual address", text)?;
        once.add(address, text)?;
        let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        let wrong = if config.owns(address) {
            Some("is this router's own address; write one that neither of the two has")
        } else if config.virtual_hosts.iter().any(|of| of.addresses.iter().any(|net| net.contains(&address))) {
            Some("belongs to a virtual host; write the address by which the access routers reach the pair")
        } else if addresses.len() == ADDRESSES_MAX {
            Some("is one more than 16; leave it out")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            return Err(Fault::at(text, format!("virtual address {address} {wrong}")));
        }
        if !link_local && port_of(&config.ports, address).is_none_or(|(at, _)| at != access) {
            let name = &port.name;
            let message = format!("virtual address {address} is in no subnet of port \"{name}\"; write one that is");
            return Err(Fault::at(text, message));
        }
        if !port.addresses.iter().any(|net| net.addr().is_ipv4() == address.is_ipv4()) {
            let name = &port.name;
            let message = format!(
                "virtual address {address} is of a family that port \"{name}\" has no address of; add one to the port"
            );
            return Err(Fault::at(text, message));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn heartbeat(text: &Text) -> Result<Duration, Fault> {
    let heartbeat = duration("heartbeat", text)?;
    let [least, most] = HEARTBEATS;
    if (least..=most).contains(&heartbeat) && heartbeat.as_millis().is_multiple_of(10) {
        return Ok(heartbeat);
    }
    let what = "is not a number of hundredths of a second from 10ms to 40950ms";
    Err(Fault::at(text, format!("heartbeat {} {what}; write {}", text.value, example("heartbeat"))))
}

fn peer(raw: &raw::Peer) -> Result<Peer, Fault> {
    let (listen, address) = (endpoint("listen", &raw.listen, PEER)?, endpoint("address", &raw.address, PEER)?);
    if address == listen {
        return Err(Fault::at(&raw.address, format!("address {address} is this router itself; write the other one's")));
    }
    if address.is_ipv4() != listen.is_ipv4() {
        let message = format!("address {address} is of another family than listen {listen}; write both alike");
        return Err(Fault::at(&raw.address, message));
    }
    Ok(Peer { listen, address, key: key(&raw.key)? })
}

fn mirror_after(raw: &raw::Pair) -> Result<Option<Duration>, Fault> {
    let default = raw.peer.as_ref().map(|_| Duration::from_secs(1));
    let Some(text) = raw.mirror_after.as_ref().filter(|text| text.value != "off") else {
        return Ok(if raw.mirror_after.is_some() { None } else { default });
    };
    let age = duration("mirror_after", text)?;
    match raw.peer {
        Some(_) => Ok(Some(age)),
        None => Err(Fault::at(text, format!("mirror_after needs the other way to the other router; add {PEER}"))),
    }
}

fn requires(raw: Option<&raw::Requires>, config: &Config) -> Result<Requires, Fault> {
    let all = || (0..config.ports.len() as u16).map(PortIndex).collect();
    let mut requires = Requires { links: all(), gateways: Vec::new(), live_children: 0, penalty: Some(50) };
    let Some(raw) = raw else { return Ok(requires) };
    if let Some(links) = &raw.links {
        let mut once = Once::new("link");
        let link = |text: &Text| {
            once.add(text.value.clone(), text)?;
            port("link", text, config)
        };
        requires.links = links.iter().map(link).collect::<Result<_, _>>()?;
    }
    let mut once = Once::new("gateway");
    for text in &raw.gateways {
        let gateway = host("gateway", text)?;
        once.add(gateway, text)?;
        if config.owns(gateway) || port_of(&config.ports, gateway).is_none() {
            let message = format!("gateway {gateway} is no neighbour on a port; write {}", example("gateways"));
            return Err(Fault::at(text, message));
        }
        requires.gateways.push(gateway);
    }
    let most = config.children.len();
    requires.live_children = or(&raw.live_children, 0, |text| number("live_children", text, 0..=most as u64))? as usize;
    requires.penalty = or(&raw.penalty, requires.penalty, |text| match text.value.as_str() {
        "forbid" => Ok(None),
        _ => number("penalty", text, 1..=253).map(Some),
    })?;
    if let Some(text) = &raw.penalty
        && requires.gateways.is_empty()
        && requires.live_children == 0
    {
        let message = "penalty has no meaning where neither gateways nor live_children are required; leave it out";
        return Err(Fault::at(text, message));
    }
    Ok(requires)
}
