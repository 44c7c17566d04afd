//! Whether ports, routes and neighbours fit each other.

use std::net::IpAddr;

use ipnet::IpNet;

use super::or;
use crate::config::error::{Fault, quote};
use crate::config::raw::{self, Text};
use crate::config::tree::Spanned;
use crate::config::values::{Once, host, name, number, prefix, show};
use crate::config::{Config, Neighbour, Port, Route, port_of};
use crate::units::MacAddr;

/// As many as DPDK is built for.
const PORTS_MAX: usize = 32;

impl Config {
    /// Whether an address is one of the router's own.
    pub fn owns(&self, ip: IpAddr) -> bool {
        self.router.tunnel_v4.is_some_and(|own| ip == own)
            || self.router.tunnel_v6.is_some_and(|own| ip == own)
            || is_port_address(&self.ports, ip)
    }
}

fn is_port_address(ports: &[Port], ip: IpAddr) -> bool {
    ports.iter().flat_map(|port| &port.addresses).any(|net| net.addr() == ip)
}

pub(super) fn ports(raw: &[Spanned<raw::Port>]) -> Result<Vec<Port>, Fault> {
    if let Some(port) = raw.get(PORTS_MAX) {
        return Err(Fault::at(port, format!("more than {PORTS_MAX} ports; DPDK takes no more, remove this one")));
    }
    let (mut names, mut devices) = (Once::new("port"), Once::new("device"));
    let mut ports: Vec<Port> = Vec::new();
    for raw in raw.iter().map(|port| &port.value) {
        let name = name("name", &raw.name)?;
        names.add(name.clone(), &raw.name)?;
        let device = raw.device.value.clone();
        if device.is_empty() || device.contains(|c: char| c.is_whitespace() || c.is_control()) {
            let message = format!(
                "device {} is not a DPDK device; \
                 write a PCI address \"0000:01:00.0\" or a driver with its arguments \"net_af_packet0,iface=veth0\"",
                quote(&device)
            );
            return Err(Fault::at(&raw.device, message));
        }
        devices.add(device.clone(), &raw.device)?;
        let mut addresses = Vec::new();
        for text in &raw.addresses {
            let net = interface(text)?;
            let others = ports.iter().map(|port| (&port.name, &port.addresses));
            for (other, nets) in others.chain([(&name, &addresses)]) {
                let wrong = match nets.iter().find(|other| other.trunc() == net.trunc()) {
                    Some(same) if same.addr() == net.addr() => "the address",
                    Some(_) if *other != name => "the subnet",
                    _ => continue,
                };
                let message = format!(
                    "{wrong} of {net} is on port \"{other}\" already; each belongs to one port, change one of them"
                );
                return Err(Fault::at(text, message));
            }
            addresses.push(net);
        }
        let mtu = or(&raw.mtu, 1500, |text| number("mtu", text, 576..=65_535))?;
        if let (Some(text), 576..1280) = (raw.mtu.as_ref(), mtu)
            && addresses.iter().any(|net| net.addr().is_ipv6())
        {
            let message =
                format!("mtu {mtu} is too small for the IPv6 address of port \"{name}\"; write at least mtu: 1280");
            return Err(Fault::at(text, message));
        }
        let vlan = raw.vlan.as_ref().map(|text| number("vlan", text, 1..=4094)).transpose()?;
        ports.push(Port { name, device, mtu, addresses, vlan });
    }
    Ok(ports)
}

/// An address of our own with the length of its subnet.
fn interface(text: &Text) -> Result<IpNet, Fault> {
    let Ok(net) = text.value.parse::<IpNet>() else {
        let wrong = quote(&text.value);
        let what = "is not an address with the length of its subnet; write one like 10.0.0.1/24 or \"2001:db8::1/64\"";
        return Err(Fault::at(text, format!("port address {wrong} {what}")));
    };
    let single = text.with(net.addr().to_string());
    host("port address", &single)?;
    // RFC 3021 and RFC 6164: a link of two addresses has neither a network nor a broadcast address.
    let wide = net.max_prefix_len() - net.prefix_len() >= 2;
    let reserved = net.addr() == net.network() || (net.addr().is_ipv4() && net.addr() == net.broadcast());
    if wide && reserved {
        let message = format!("port address {net} is none that a machine can have; write one like 10.0.0.1/24");
        return Err(Fault::at(text, message));
    }
    Ok(net)
}

/// Checks that an address is a neighbour on some port; without ports there is nothing to check against.
fn neighbour(key: &str, text: &Text, ports: &[Port]) -> Result<IpAddr, Fault> {
    let ip = host(key, text)?;
    if ports.is_empty() {
        return Ok(ip);
    }
    let own = is_port_address(ports, ip);
    if !own && port_of(ports, ip).is_some() {
        return Ok(ip);
    }
    let subnets: Vec<String> =
        ports.iter().flat_map(|port| &port.addresses).map(|net| net.trunc().to_string()).collect();
    let message = match own {
        true => format!("{key} {ip} is the router's own address; write a neighbour's"),
        false => format!("{key} {ip} is in no port's subnet; write an address in one of {}", several(&subnets)),
    };
    Err(Fault::at(text, message))
}

/// The first few of a list.
fn several(items: &[String]) -> String {
    match items.len() {
        0 => "them, after giving a port addresses: [10.0.0.1/24]".into(),
        1..=4 => items.join(", "),
        _ => format!("{}, ...", items[..4].join(", ")),
    }
}

pub(super) fn routes(raw: &[raw::Route], ports: &[Port]) -> Result<Vec<Route>, Fault> {
    let mut once = Once::new("route to");
    let route = |raw: &raw::Route| {
        let prefix = prefix("prefix", &raw.prefix)?;
        once.add(show(prefix), &raw.prefix)?;
        let via = neighbour("via", &raw.via, ports)?;
        if via.is_ipv4() != prefix.addr().is_ipv4() {
            let message = format!("via {via} is not of the family of {prefix}; write a next hop of the same family");
            return Err(Fault::at(&raw.via, message));
        }
        Ok(Route { prefix, via })
    };
    raw.iter().map(route).collect()
}

pub(super) fn neighbours(raw: &[raw::Neighbour], ports: &[Port]) -> Result<Vec<Neighbour>, Fault> {
    let mut once = Once::new("neighbour");
    let checked = |raw: &raw::Neighbour| {
        let address = neighbour("neighbour", &raw.address, ports)?;
        once.add(address, &raw.address)?;
        Ok(Neighbour { address, mac: mac(&raw.mac)? })
    };
    raw.iter().map(checked).collect()
}

/// The MAC address of one machine.
pub(in crate::config) fn mac(text: &Text) -> Result<MacAddr, Fault> {
    let mac: MacAddr = text.value.parse().map_err(|_| {
        let wrong = quote(&text.value);
        let what = "is not six hexadecimal octets; write them with colons, in quotes: \"02:00:5e:10:00:01\"";
        Fault::at(text, format!("mac {wrong} {what}"))
    })?;
    let group = mac.0[0] & 1 == 1;
    if group || mac.0 == [0; 6] {
        let what = if group { "a group of machines" } else { "no machine" };
        let message = format!("mac {mac} is the address of {what}; write one machine's: \"02:00:5e:10:00:01\"");
        return Err(Fault::at(text, message));
    }
    Ok(mac)
}
