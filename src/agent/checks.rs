//! Whether the services of this machine work: each is asked at its virtual host's address, in packets that come out of the
//! TUN device as if from outside, or by a program.
//!
//! What is asked and when, and what counts as down, is what the router's own checks do ([`crate::control::health`]).

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::tun::Device;
use crate::clock::Instant;
use crate::commands::{Commands, Done};
use crate::config::host::{HostConfig, HostedService};
use crate::control::health::{Health, Input, Output, Plan};
use crate::netlink::Netlink;

/// Where checks come from: addresses that are nobody's outside of this machine.
const ASKER_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 83, 76);
const ASKER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x736c, 0x722d, 0x686f, 0x7374, 0, 0, 1);

/// The checks of all virtual hosts.
pub struct Checks {
    health: Health,
    names: Vec<Arc<str>>,
    /// Why those that are down are.
    failures: HashMap<Arc<str>, Arc<str>>,
    device: Option<Arc<Device>>,
    started: std::time::Instant,
}

impl Checks {
    /// The checks that are configured.
    ///
    /// # Errors
    /// The answers cannot be routed back.
    pub fn new(config: &HostConfig, device: Option<Arc<Device>>, seed: u64) -> io::Result<Checks> {
        let health = Health::of(Instant::ZERO, plans(config), seed);
        let (names, failures, started) = (Vec::new(), HashMap::new(), std::time::Instant::now());
        let mut checks = Checks { health, names, failures, device, started };
        checks.prepare(config)?;
        checks.know(config);
        Ok(checks)
    }

    /// Makes ready for the checks of a configuration, which does not disturb those that there are.
    ///
    /// # Errors
    /// The answers cannot be routed back.
    pub fn prepare(&self, config: &HostConfig) -> io::Result<()> {
        let is_v6 = |host: &HostedService| host.health.as_ref().is_some_and(|health| health.address.is_ipv6());
        match &self.device {
            Some(device) if config.virtual_hosts.iter().any(is_v6) => route_back(device),
            _ => Ok(()),
        }
    }

    /// Goes over to the checks of another configuration, for which all is ready. What is known of a virtual host by its
    /// name is kept.
    pub fn reconfigure(&mut self, config: &HostConfig) {
        self.health = self.health.renewed(self.now(), plans(config));
        self.know(config);
    }

    fn know(&mut self, config: &HostConfig) {
        self.names = config.virtual_hosts.iter().map(|host| host.name.as_str().into()).collect();
        let mut before = std::mem::take(&mut self.failures);
        for (name, _) in self.health.down() {
            let why = before.remove(name.as_str()).unwrap_or_else(|| "not checked yet".into());
            self.failures.insert(name.as_str().into(), why);
        }
    }

    /// Why a virtual host does not work; `None`: it does, as far as is known.
    pub fn failure(&self, host: &str) -> Option<Arc<str>> {
        self.failures.get(host).cloned()
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.started.elapsed().as_nanos() as u64)
    }

    /// How long until there is something to do.
    pub fn pause(&self) -> Duration {
        const LONG: Duration = Duration::from_secs(3600);
        let due = self.health.next_deadline().map(|due| due.as_nanos().saturating_sub(self.now().as_nanos()));
        due.map_or(LONG, Duration::from_nanos)
    }

    /// Does what is due. Whether it has found that a service fails or works again; so do the next two.
    pub fn tick(&mut self, commands: &Commands) -> bool {
        self.handle(Input::Tick, commands)
    }

    /// Takes in that a program has ended.
    pub fn done(&mut self, (run, result): Done, commands: &Commands) -> bool {
        self.handle(Input::CommandDone(run, result), commands)
    }

    /// Takes in a packet that has come back.
    pub fn receive(&mut self, packet: &[u8], commands: &Commands) -> bool {
        self.handle(Input::Packet(packet), commands)
    }

    fn handle(&mut self, input: Input<'_>, commands: &Commands) -> bool {
        let mut changed = false;
        for output in self.health.handle(self.now(), input) {
            match output {
                Output::Send { packet, .. } => {
                    // One that is lost is as good as an answer that is.
                    let _ = self.device.as_ref().map(|device| device.tun.send(&packet));
                }
                Output::Run(command) => commands.start(command),
                // Nobody asks for that.
                Output::Measured(..) => {}
                Output::Changed(change) => {
                    eprintln!("slr-host: {change}");
                    changed = true;
                    let Some(name) = self.names.iter().find(|name| ***name == *change.virtual_host) else { continue };
                    match change.failure {
                        Some(failure) => self.failures.insert(name.clone(), failure.to_string().into()),
                        None => self.failures.remove(name),
                    };
                }
            }
        }
        changed
    }
}

fn plans(config: &HostConfig) -> Vec<Plan<'_>> {
    let plans = config.virtual_hosts.iter().enumerate().filter_map(|(at, host)| {
        let health = host.health.as_ref()?;
        let own = if health.address.is_ipv4() { ASKER_V4.into() } else { ASKER_V6.into() };
        let (virtual_host, child) = (&*host.name, &*config.name);
        Some(Plan { host: at, member: 0, virtual_host, child, address: health.address, health, own, measures: false })
    });
    plans.collect()
}

/// Has answers over IPv6 go into the device, as those over IPv4 do by its address. The route goes with it.
fn route_back(device: &Device) -> io::Result<()> {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet6,
        destination_prefix_length: 128,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    let asker = RouteAddress::Inet6(ASKER_V6);
    message.attributes = vec![RouteAttribute::Destination(asker), RouteAttribute::Oif(device.index)];
    let made = Netlink::route()?.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL);
    made.or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
}
