//! Whether what was written for the host agent holds together.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::raw::{self, Config};
use super::{Application, DIRECTORY, Expression, HostConfig, HostedService, Method, Tunnels};
use crate::config::check::links::mac;
use crate::config::check::services::{addresses, services};
use crate::config::check::{control, health, key, metrics, or, sessions, tunnel};
use crate::config::error::{Fault, quote};
use crate::config::raw::{Text, WordOr};
use crate::config::tree::Spanned;
use crate::config::values::{Once, duration, example, host, name, number, prefix, show, word};
use crate::config::{Probe, TunnelKind};
use crate::units::Weight;

/// TCP port of the agent's metrics.
const METRICS_PORT: u16 = 9478;

/// UDP port of GUE, by IANA.
const GUE_PORT: u16 = 6080;

/// Tunnel addresses at most; the eBPF program has room for as many.
const TUNNEL_ADDRESSES_MAX: usize = 16;

/// MAC addresses of routers at most, likewise.
const ROUTER_MACS_MAX: usize = 16;

/// What a machine can do when nothing else is said: the weight of a child of which nothing else is said.
const CAPACITY: u32 = 100;

/// Longest name of an interface, in bytes (IFNAMSIZ without its end).
const INTERFACE_NAME_MAX: usize = 15;

/// Checks everything; the first fault ends it.
pub(super) fn check(raw: &Config) -> Result<HostConfig, Fault> {
    let load = raw.load.as_ref();
    let expression = load.and_then(|load| load.expression.as_ref()).map(expression).transpose()?;
    let mut config = HostConfig {
        name: name("name", &raw.agent.name)?,
        tunnel_addresses: tunnel_addresses(&raw.agent.tunnel_addresses)?,
        interfaces: interfaces(&raw.interfaces)?,
        routers: Vec::new(),
        router_macs: Vec::new(),
        parents: sessions::parents(&raw.parents)?,
        credentials: None,
        method: or(&raw.decapsulation, Method::Auto, method)?,
        tunnels: tunnels(raw.tunnels.as_ref())?,
        mss_clamp: or(&raw.mss_clamp, true, |text| word("mss_clamp", text, &[("auto", true), ("off", false)]))?,
        virtual_hosts: Vec::new(),
        interval: or(&load.and_then(|load| load.interval.clone()), Duration::from_secs(1), interval)?,
        capacity: or(&load.and_then(|load| load.capacity.clone()), CAPACITY, |text| {
            number("capacity", text, 1..=u32::from(Weight::MAX))
        })?,
        cgroup: load.and_then(|load| load.cgroup.as_ref()).map(|text| whole_path("cgroup", text)).transpose()?,
        drain: or(&raw.drain.as_ref().and_then(|drain| drain.timeout.clone()), Duration::from_secs(60), |text| {
            duration("timeout", text)
        })?,
        metrics: metrics(raw.metrics.as_ref(), METRICS_PORT)?,
        control: control(raw.control.as_ref(), DIRECTORY, &raw.agent.name.value)?,
        echo: raw.recovery.as_ref().map(|recovery| key(&recovery.echo.key)).transpose()?,
        state: or(&raw.state, DIRECTORY.into(), |text| whole_path("state", text))?,
    };
    routers(&raw.routers, &mut config)?;
    router_macs(raw.router_macs.as_ref(), &mut config)?;
    parents(raw, &mut config)?;
    virtual_hosts(&raw.virtual_hosts.value, &mut config, expression)?;
    if let (Method::Tc | Method::Tun, Some(_), Some(text)) = (config.method, config.tunnels.mpls, &raw.decapsulation) {
        let message = format!("decapsulation {} cannot take labels off; write decapsulation: xdp or auto", text.value);
        return Err(Fault::at(text, message));
    }
    Ok(config)
}

fn tunnel_addresses(list: &Spanned<Vec<Text>>) -> Result<Vec<IpAddr>, Fault> {
    let mut once = Once::new("tunnel address");
    let mut addresses = Vec::new();
    for text in &list.value {
        let address = host("tunnel address", text)?;
        once.add(address, text)?;
        addresses.push(address);
    }
    match addresses.len() {
        0 => Err(Fault::at(list, format!("tunnels need an address to end at: {}", example("tunnel_addresses")))),
        1..=TUNNEL_ADDRESSES_MAX => Ok(addresses),
        many => {
            Err(Fault::at(list, format!("{many} tunnel addresses are too many; write up to {TUNNEL_ADDRESSES_MAX}")))
        }
    }
}

fn interfaces(list: &Spanned<Vec<Text>>) -> Result<Vec<String>, Fault> {
    let mut once = Once::new("interface");
    let mut interfaces = Vec::new();
    for text in &list.value {
        let value = &text.value;
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"/:".contains(&byte);
        if value.len() > INTERFACE_NAME_MAX || !value.bytes().all(plain) || ["", ".", "..", "lo"].contains(&&**value) {
            let message =
                format!("{} is no interface that tunnels come in by; write {}", quote(value), example("interfaces"));
            return Err(Fault::at(text, message));
        }
        once.add(value.clone(), text)?;
        interfaces.push(value.clone());
    }
    match interfaces.is_empty() {
        true => Err(Fault::at(list, format!("tunnels need an interface to come in by: {}", example("interfaces")))),
        false => Ok(interfaces),
    }
}

fn routers(list: &Spanned<Vec<Text>>, config: &mut HostConfig) -> Result<(), Fault> {
    let mut once = Once::new("router");
    for text in &list.value {
        let net = prefix("router", text)?;
        once.add(net, text)?;
        if !config.tunnel_addresses.iter().any(|end| end.is_ipv4() == net.addr().is_ipv4()) {
            let is = if net.addr().is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!(
                "router {} is {is}, but the agent has no {is} tunnel address; add one to agent: {}",
                show(net),
                example("tunnel_addresses")
            );
            return Err(Fault::at(text, message));
        }
        config.routers.push(net);
    }
    match config.routers.is_empty() {
        true => Err(Fault::at(list, format!("without a router no tunnel is taken; write {}", example("routers")))),
        false => Ok(()),
    }
}

fn router_macs(list: Option<&Spanned<Vec<Text>>>, config: &mut HostConfig) -> Result<(), Fault> {
    let Some(list) = list else { return Ok(()) };
    if config.tunnels.mpls.is_none() {
        let message =
            "this is for labels alone, and none are taken; leave it out, or add tunnels: [{ mpls: { label: 1000 } }]";
        return Err(Fault::at(list, message));
    }
    let mut once = Once::new("router");
    for text in &list.value {
        let mac = mac(text)?;
        once.add(mac, text)?;
        config.router_macs.push(mac);
    }
    match (1..=ROUTER_MACS_MAX).contains(&config.router_macs.len()) {
        true => Ok(()),
        false => {
            let message = format!(
                "{} routers; give 1 to {ROUTER_MACS_MAX}, or leave router_macs out for any sender on the link",
                config.router_macs.len()
            );
            Err(Fault::at(list, message))
        }
    }
}

/// Whether there can be sessions with the parents.
fn parents(raw: &Config, config: &mut HostConfig) -> Result<(), Fault> {
    let control = raw.control.as_ref();
    if let Some((key, text)) = control.and_then(|of| {
        [("listen", &of.listen), ("interval", &of.interval), ("registration", &of.registration)]
            .into_iter()
            .find_map(|(key, text)| Some((key, text.as_ref()?)))
    }) {
        let message = format!("{key} is for routers, to which children come; a host server has none: leave it out");
        return Err(Fault::at(text, message));
    }
    config.credentials = sessions::proof(control, raw.parents.first().map(|parent| &parent.name), "parents:")?;
    sessions::own(config.credentials.as_ref(), control, ("agent", &config.name, 0))?;
    match raw.parents.iter().find(|parent| parent.name.value == config.name) {
        Some(parent) => {
            let message = format!("parent \"{}\" is the agent itself; write the name of a router", config.name);
            Err(Fault::at(&parent.name, message))
        }
        None => Ok(()),
    }
}

fn method(text: &Text) -> Result<Method, Fault> {
    let words: Vec<_> = Method::ALL.iter().map(|method| (method.label(), *method)).collect();
    word("decapsulation", text, &words)
}

fn tunnels(list: Option<&Spanned<Vec<Spanned<WordOr<crate::config::raw::Tunnel>>>>>) -> Result<Tunnels, Fault> {
    let Some(list) = list else {
        return Ok(Tunnels { ipip: true, gue: Some(GUE_PORT), gre: true, mac: true, mpls: None });
    };
    let mut tunnels = Tunnels::default();
    for raw in &list.value {
        let twice = match tunnel(raw)? {
            TunnelKind::IpIp => std::mem::replace(&mut tunnels.ipip, true),
            TunnelKind::Gre => std::mem::replace(&mut tunnels.gre, true),
            TunnelKind::Mac => std::mem::replace(&mut tunnels.mac, true),
            TunnelKind::Gue { port, .. } => tunnels.gue.replace(port).is_some(),
            TunnelKind::Mpls { label } => tunnels.mpls.replace(label).is_some(),
        };
        if twice {
            return Err(Fault::at(raw, "this kind of tunnel is in the list already; keep one of each kind"));
        }
    }
    match tunnels == Tunnels::default() {
        true => Err(Fault::at(list, format!("the list of tunnels is empty; write {}", example("tunnels")))),
        false => Ok(tunnels),
    }
}

fn interval(text: &Text) -> Result<Duration, Fault> {
    const MIN: Duration = Duration::from_millis(100);
    let interval = duration("interval", text)?;
    if interval < MIN {
        return Err(Fault::at(
            text,
            format!("interval {} is too short; write at least 100ms: interval: 1s", text.value),
        ));
    }
    Ok(interval)
}

fn expression(text: &Text) -> Result<Expression, Fault> {
    Expression::new(&text.value).map_err(|why| {
        Fault::at(text, format!("expression {} {why}; write one: {}", quote(&text.value), example("expression")))
    })
}

fn whole_path(key: &str, text: &Text) -> Result<PathBuf, Fault> {
    let path = PathBuf::from(&text.value);
    match path.is_absolute() {
        true => Ok(path),
        false => {
            Err(Fault::at(text, format!("{key} {} is not a whole path; write {}", quote(&text.value), example(key))))
        }
    }
}

fn virtual_hosts(
    raw: &[raw::VirtualHost],
    config: &mut HostConfig,
    expression_of_all: Option<Expression>,
) -> Result<(), Fault> {
    if raw.is_empty() {
        return Err(Fault::whole(
            "there is no virtual host to serve; write virtual_hosts: [{ name: web, addresses: [192.0.2.80] }]",
        ));
    }
    let mut once = Once::new("virtual host");
    for raw in raw {
        let name = name("name", &raw.name)?;
        once.add(name.clone(), &raw.name)?;
        let addresses = addresses(&name, &raw.addresses)?;
        for (net, text) in addresses.iter().zip(&raw.addresses.value) {
            if let Some(own) = config.tunnel_addresses.iter().find(|own| net.contains(*own)) {
                let message = format!(
                    "virtual host \"{name}\" has the tunnel address {own} in {}; give the service addresses of its own",
                    show(*net)
                );
                return Err(Fault::at(text, message));
            }
            if net.prefix_len() == 0 || net.addr().is_multicast() || net.addr().is_loopback() {
                let message = format!(
                    "{} cannot be a host's own; write the addresses of the service: {}",
                    show(*net),
                    example("addresses")
                );
                return Err(Fault::at(text, message));
            }
        }
        let services = services(&name, &raw.services)?;
        let health = raw.health.as_ref().map(|raw| health::health(raw, &name, &addresses, &services)).transpose()?;
        let own = raw.load.as_ref().map(expression).transpose()?;
        config.virtual_hosts.push(HostedService {
            health,
            application: raw.application.as_ref().map(application).transpose()?,
            load: own.or_else(|| expression_of_all.clone()),
            name,
            addresses,
            services,
        });
    }
    Ok(())
}

fn application(raw: &Spanned<raw::Application>) -> Result<Application, Fault> {
    match &raw.value {
        raw::Application { http: Some(text), file: None, command: None } => url(text),
        raw::Application { http: None, file: Some(text), command: None } => {
            whole_path("file", text).map(Application::File)
        }
        raw::Application { http: None, file: None, command: Some(list) } => {
            health::command_line(list).map(Application::Command)
        }
        _ => Err(Fault::at(
            raw,
            format!("an application's number comes from one place; write one: {}", example("application")),
        )),
    }
}

/// `http://127.0.0.1:8080/load`: an address, not a name, since nothing here looks names up.
fn url(text: &Text) -> Result<Application, Fault> {
    let wrong = || {
        let what =
            "is no address of a page; write it with the server's IP address: http: \"http://127.0.0.1:8080/load\"";
        Fault::at(text, format!("http {} {what}", quote(&text.value)))
    };
    let rest = text.value.strip_prefix("http://").ok_or_else(wrong)?;
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    let bare = authority.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(authority);
    let server = authority.parse().or_else(|_| bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, 80)));
    if path.len() > 1024 || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong());
    }
    Ok(Application::Http { server: server.map_err(|_| wrong())?, path: path.to_owned() })
}

/// Checks that need packets of our own to come back.
impl HostConfig {
    /// Whether any service is checked in packets, and not by a program alone.
    pub fn checks_in_packets(&self) -> bool {
        let checks = self.virtual_hosts.iter().filter_map(|host| host.health.as_ref());
        checks.into_iter().any(|health| !matches!(health.probe, Probe::Command(_)))
    }
}
