//! What the operator wrote, checked: YAML text in, a [`Config`] that holds together or one clear error out.
//!
//! ```text
//!   text ──raw──► the keys and lists, each value with its place ──check──► Config
//!    └─────────────────────────┴────────────────────► ConfigError: file:line:column: what; what to do
//! ```
//!
//! `tree` reads YAML, `raw` decides which keys exist, `check` what their values may be; `values` reads single values.

mod check;
mod checked;
pub mod draft;
mod error;
pub mod host;
mod raw;
mod summary;
mod tree;
mod values;

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use crate::units::PortIndex;
pub use checked::*;
pub use error::{ConfigError, Place};
pub use summary::Summary;
pub(crate) use values::show;

use draft::Draft;
use error::Fault;

/// Largest configuration that is read, in bytes.
const FILE_SIZE_MAX: u64 = 256 << 20;

/// Reads the text of a file.
fn read_file(path: &Path, sample: &str) -> Result<String, Fault> {
    let unreadable =
        |error| Fault::whole(format!("cannot read the configuration: {error}; give the path of a readable file"));
    if path.metadata().map_err(unreadable)?.is_dir() {
        return Err(Fault::whole(format!("is a directory; give the path of a file, for example {sample}")));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_SIZE_MAX {
        return Err(Fault::whole("is larger than 256 MiB; give the path of a configuration file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let (good, bad) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let place = Place::after(&String::from_utf8_lossy(good));
        let byte = bad.first().copied().unwrap_or_default();
        let what = format!("byte 0x{byte:02x} is not UTF-8; save the file as UTF-8 text");
        Fault::somewhere(place, what)
    })
}

impl Config {
    /// The same with more children, which serve the virtual hosts that take all. One whose name there is counts as the other.
    pub fn with_children<'a>(&self, more: impl IntoIterator<Item = &'a Child>) -> Config {
        let mut config = self.clone();
        for child in more {
            if config.children.iter().any(|other| other.name == child.name) {
                continue;
            }
            let member = Member::unweighed(config.children.len());
            let hosts = config.virtual_hosts.iter_mut().filter(|host| host.takes_all);
            hosts.for_each(|host| host.members.push(member));
            config.children.push(child.clone());
        }
        config
    }

    /// Reads and checks a file; where a site has the children, with the copy of them that is kept.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8 or larger than 256 MiB, there is no such copy, or what [`Config::parse`] refuses.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Draft::load(path)?.finish_with_copy()
    }

    /// Checks a configuration given as YAML text, which has its children itself; `file_name` is what errors call it.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str, file_name: &str) -> Result<Config, ConfigError> {
        Draft::parse(text, file_name)?.finish(None)
    }

    /// The port and neighbour by which an address is reached, by the longest prefix around it: directly where that is
    /// the subnet of a port, else by the static route. `None`: there is no way.
    pub fn attachment(&self, ip: IpAddr) -> Option<Attachment> {
        let routes = self.routes.iter().filter(|route| route.prefix.contains(&ip));
        let route = routes.max_by_key(|route| route.prefix.prefix_len());
        match (port_of(&self.ports, ip), route) {
            (Some((port, length)), route) if route.is_none_or(|route| route.prefix.prefix_len() <= length) => {
                Some(Attachment { port, next_hop: ip })
            }
            (_, route) => {
                let next_hop = route?.via;
                port_of(&self.ports, next_hop).map(|(port, _)| Attachment { port, next_hop })
            }
        }
    }

    /// Our address that a check of `address` on `child` comes from, so that answers find back: the tunnel address of its
    /// family, else the port's that the child is reached by, else any. `None`: there is no address of its family.
    pub fn source_of_checks(&self, address: IpAddr, child: Option<IpAddr>) -> Option<IpAddr> {
        let ipv4 = address.is_ipv4();
        let tunnel =
            if ipv4 { self.router.tunnel_v4.map(IpAddr::from) } else { self.router.tunnel_v6.map(IpAddr::from) };
        let near = child.and_then(|child| self.attachment(child)).and_then(|at| self.ports.get(at.port.index()));
        let ports = near.into_iter().chain(&self.ports);
        tunnel.or_else(|| ports.flat_map(|port| &port.addresses).map(IpNet::addr).find(|own| own.is_ipv4() == ipv4))
    }

    /// Whether there is somebody to ask about flows that a worker does not know.
    pub fn asks_elsewhere(&self) -> bool {
        let others = self.recovery.asks_workers && self.workers.count > 1;
        others || self.recovery.whohas.as_ref().is_some_and(|whohas| !whohas.peers.is_empty())
    }

    /// For how many kinds of clients a virtual host gives out new flows: those in no region, and those in each where it asks
    /// for that.
    pub fn kinds_of_clients(&self, host: &VirtualHost) -> usize {
        if host.by_region { 1 + self.client_regions.len() } else { 1 }
    }

    /// What was compiled, for people.
    pub fn summary(&self) -> Summary<'_> {
        Summary(self)
    }
}

/// The port with the longest subnet that an address lies in, and that length.
fn port_of(ports: &[Port], ip: IpAddr) -> Option<(PortIndex, u8)> {
    let subnets = (0..).zip(ports).flat_map(|(index, port)| port.addresses.iter().map(move |net| (index, net)));
    let around = subnets.filter(|(_, net): &(u16, &IpNet)| net.contains(&ip));
    around.map(|(index, net)| (PortIndex(index), net.prefix_len())).max_by_key(|(_, length)| *length)
}
