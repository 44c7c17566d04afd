//! What the agent changes in the system, and how each change is undone: by the agent when it ends, or by the next one
//! when this one could not.
//!
//! ```text
//! wanted ──► what differs from how it is ──► journal (NAME.json) ──► made
//!                                               │
//!                        a stop, or the next start after a crash ──► undone, last first; the journal goes
//! ```
//!
//! What was there before stays: an address that somebody else gave to the machine is not taken away.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::mtu::{TCP_V4, TCP_V6};
use crate::netlink::Netlink;

/// The loopback interface's index, in every network namespace.
const LOOPBACK: u32 = 1;

/// The table of what is local.
const TABLE_LOCAL: u8 = 255;

/// Why the system could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Another agent of the same name runs.
    #[error("agent {0} runs already ({1} is locked); stop that one, or give each agent on a machine a name of its own")]
    Running(String, PathBuf),
    /// The journal cannot be read or written.
    #[error("{path}: {source}; the directory `state` must be one that slr-host may write to")]
    Journal {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A change is refused.
    #[error("cannot {what}: {source}{advice}", advice = advice(.source))]
    Refused {
        /// Which, for people.
        what: String,
        /// What the kernel says.
        source: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; slr-host needs root or the capabilities of its systemd unit",
        _ => "",
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A setting below `/proc/sys`.
    Setting {
        /// Its path.
        path: PathBuf,
        /// What it was.
        before: String,
        /// What it is made.
        after: String,
    },
    /// An address on the loopback interface.
    Address(IpAddr),
    /// A prefix that is local as a whole.
    Prefix(IpNet),
    /// The MSS that is announced where a route is taken.
    Advmss {
        /// Destinations of the route.
        destination: IpNet,
        /// Its priority.
        priority: Option<u32>,
        /// What it was.
        before: Option<u32>,
        /// What it is made.
        after: u32,
    },
}

impl Change {
    fn describe(&self) -> String {
        match self {
            Change::Setting { path, after, .. } => format!("set {} to {after}", path.display()),
            Change::Address(address) => format!("take {address} as an address of this machine"),
            Change::Prefix(prefix) => format!("take {prefix} as local"),
            Change::Advmss { destination, after, .. } => format!("announce an MSS of {after} towards {destination}"),
        }
    }

    fn make(&self, netlink: &mut Netlink<RouteNetlinkMessage>) -> io::Result<()> {
        match self {
            Change::Setting { path, after, .. } => fs::write(path, after),
            Change::Address(address) => {
                netlink.change(RouteNetlinkMessage::NewAddress(on_loopback(*address)), NLM_F_CREATE | NLM_F_EXCL)
            }
            Change::Prefix(prefix) => {
                netlink.change(RouteNetlinkMessage::NewRoute(local(*prefix)), NLM_F_CREATE | NLM_F_EXCL)
            }
            Change::Advmss { before, after, .. } => self.set_advmss(netlink, *before, Some(*after)),
        }
    }

    fn undo(&self, netlink: &mut Netlink<RouteNetlinkMessage>) -> io::Result<()> {
        match self {
            // Who has set it to something else since wants that.
            Change::Setting { path, before, after } => match read(path)? == *after {
                true => fs::write(path, before),
                false => Ok(()),
            },
            Change::Address(address) => netlink.change(RouteNetlinkMessage::DelAddress(on_loopback(*address)), 0),
            Change::Prefix(prefix) => netlink.change(RouteNetlinkMessage::DelRoute(local(*prefix)), 0),
            Change::Advmss { before, after, .. } => self.set_advmss(netlink, Some(*after), *before),
        }
    }

    /// Changes the metric of the routes that this is about from one value to another.
    fn set_advmss(
        &self,
        netlink: &mut Netlink<RouteNetlinkMessage>,
        from: Option<u32>,
        to: Option<u32>,
    ) -> io::Result<()> {
        let Change::Advmss { destination, priority, .. } = self else { return Ok(()) };
        for mut route in gateway_routes(netlink, destination.addr().is_ipv4())? {
            if (destination_of(&route), priority_of(&route), advmss_of(&route)) != (*destination, *priority, from) {
                continue;
            }
            let mut metrics: Vec<_> = metrics_of(&route).cloned().collect();
            metrics.retain(|metric| !matches!(metric, RouteMetric::Advmss(_)));
            metrics.extend(to.map(RouteMetric::Advmss));
            // What the kernel tells about a route beyond what makes it.
            route.attributes.retain(|one| !matches!(one, RouteAttribute::Metrics(_) | RouteAttribute::CacheInfo(_)));
            if !metrics.is_empty() {
                route.attributes.push(RouteAttribute::Metrics(metrics));
            }
            netlink.change(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE | NLM_F_REPLACE)?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

fn family(ipv4: bool) -> AddressFamily {
    if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// A virtual host's address: never the source of what this machine itself begins, and bound without being asked for on
/// the link.
fn on_loopback(address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.is_ipv4());
    message.header.prefix_len = IpNet::from(address).prefix_len();
    message.header.index = LOOPBACK;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    match address {
        IpAddr::V4(_) => message.header.scope = AddressScope::Host,
        IpAddr::V6(_) => {
            message.header.flags = AddressHeaderFlags::Nodad;
            let mut times = CacheInfo::default();
            // Deprecated from the start (RFC 4862 section 5.5.4).
            (times.ifa_preferred, times.ifa_valid) = (0, u32::MAX);
            message.attributes.push(AddressAttribute::CacheInfo(times));
        }
    }
    message
}

fn local(prefix: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    let ipv4 = prefix.addr().is_ipv4();
    message.header = RouteHeader {
        address_family: family(ipv4),
        destination_prefix_length: prefix.prefix_len(),
        table: TABLE_LOCAL,
        protocol: RouteProtocol::Static,
        scope: if ipv4 { RouteScope::Host } else { RouteScope::Universe },
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Destination(prefix.addr().into()), RouteAttribute::Oif(LOOPBACK)];
    message
}

fn metrics_of(route: &RouteMessage) -> impl Iterator<Item = &RouteMetric> {
    route.attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => metrics.as_slice(),
        _ => &[],
    })
}

fn advmss_of(route: &RouteMessage) -> Option<u32> {
    metrics_of(route).find_map(|metric| if let RouteMetric::Advmss(mss) = metric { Some(*mss) } else { None })
}

fn priority_of(route: &RouteMessage) -> Option<u32> {
    route
        .attributes
        .iter()
        .find_map(|one| if let RouteAttribute::Priority(priority) = one { Some(*priority) } else { None })
}

fn destination_of(route: &RouteMessage) -> IpNet {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    let all =
        if route.header.address_family == AddressFamily::Inet { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    // The kernel's lengths are in range.
    IpNet::new_assert(address.unwrap_or(all), route.header.destination_prefix_length)
}

/// Routes of the main table that lead through a gateway.
fn gateway_routes(netlink: &mut Netlink<RouteNetlinkMessage>, ipv4: bool) -> io::Result<Vec<RouteMessage>> {
    let mut wanted = RouteMessage::default();
    wanted.header.address_family = family(ipv4);
    let mut routes = Vec::new();
    netlink.list(RouteNetlinkMessage::GetRoute(wanted), |message| {
        let RouteNetlinkMessage::NewRoute(route) = message else { return };
        let through_gateway = route.attributes.iter().any(|attribute| {
            matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_))
        });
        let ours = route.header.table == RouteHeader::RT_TABLE_MAIN && route.header.kind == RouteType::Unicast;
        if ours && through_gateway && route.header.address_family == family(ipv4) {
            routes.push(route);
        }
    })?;
    Ok(routes)
}

/// The changes that have been made, and the file that tells the next start of them.
pub struct Journal {
    path: PathBuf,
    netlink: Netlink<RouteNetlinkMessage>,
    made: Vec<Change>,
    /// Held for as long as the agent lives.
    _lock: File,
}

impl Journal {
    /// Opens the journal of an agent, and undoes what it tells of an agent that could not; also returns what that was.
    ///
    /// # Errors
    /// Another agent of this name runs, or the system refuses.
    pub fn open(directory: &Path, name: &str) -> Result<(Journal, Vec<Change>), ChangeError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| ChangeError::Journal { path, source }
        };
        fs::create_dir_all(directory).map_err(at(directory))?;
        let lock_path = directory.join(format!("{name}.lock"));
        let lock = File::create(&lock_path).map_err(at(&lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            Errno::WOULDBLOCK => ChangeError::Running(name.to_owned(), lock_path.clone()),
            error => at(&lock_path)(error.into()),
        })?;
        let netlink = Netlink::route()
            .map_err(|source| ChangeError::Refused { what: "speak netlink with the kernel".into(), source })?;
        let path = directory.join(format!("{name}.json"));
        let made = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| at(&path)(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(at(&path)(error)),
        };
        let mut journal = Journal { path, netlink, made, _lock: lock };
        let left = journal.made.clone();
        journal.undo()?;
        Ok((journal, left))
    }

    /// Has addresses and prefixes taken as this machine's own, as far as they are not.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn take(&mut self, addresses: impl IntoIterator<Item = IpNet>) -> Result<(), ChangeError> {
        let mut there = std::collections::HashSet::new();
        let listed = self.netlink.list(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
            if let RouteNetlinkMessage::NewAddress(address) = message {
                there.extend(address.attributes.iter().filter_map(|one| match one {
                    AddressAttribute::Local(address) | AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                }));
            }
        });
        listed.map_err(|source| ChangeError::Refused { what: "list addresses".into(), source })?;
        let changes = addresses.into_iter().filter_map(|net| match net.prefix_len() == net.max_prefix_len() {
            true if there.contains(&net.addr()) => None,
            true => Some(Change::Address(net.addr())),
            false => Some(Change::Prefix(net)),
        });
        let changes = changes.filter(|change| !self.made.contains(change)).collect();
        self.make(changes)
    }

    /// Gives back the addresses and prefixes that were taken, but for those to keep.
    ///
    /// # Errors
    /// The first one that could not be given back; the others are.
    pub fn release(&mut self, keep: &[IpNet]) -> Result<(), ChangeError> {
        let is_kept = |change: &Change| match change {
            Change::Address(address) => keep.contains(&IpNet::from(*address)),
            Change::Prefix(prefix) => keep.contains(prefix),
            Change::Setting { .. } | Change::Advmss { .. } => true,
        };
        let given_back: Vec<_> = self.made.extract_if(.., |change| !is_kept(change)).collect();
        let mut done = Ok(());
        for change in given_back.iter().rev() {
            let undone = self.undo_one(change);
            done = done.and(undone);
        }
        done.and(self.write())
    }

    fn undo_one(&mut self, change: &Change) -> Result<(), ChangeError> {
        match change.undo(&mut self.netlink) {
            // Gone already, or its interface is.
            Err(error) if is_gone(&error) => Ok(()),
            undone => undone.map_err(|source| {
                let what = format!("undo \"{}\"", change.describe());
                ChangeError::Refused { what, source }
            }),
        }
    }

    /// Raises settings below `/proc/sys/net` to at least a number.
    ///
    /// # Errors
    /// The system refuses.
    pub fn raise(&mut self, settings: &[(String, u32)]) -> Result<(), ChangeError> {
        let mut changes = Vec::new();
        for (name, least) in settings {
            let path = Path::new("/proc/sys/net").join(name);
            let before = read(&path).map_err(|source| {
                let what = format!("read {}", path.display());
                ChangeError::Refused { what, source }
            })?;
            if before.parse::<u32>().is_ok_and(|before| before < *least) {
                changes.push(Change::Setting { path, before, after: least.to_string() });
            }
        }
        self.make(changes)
    }

    /// Has at most this MSS announced through gateways, `v4` over IPv4 and `v6` over IPv6.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn clamp(&mut self, v4: u32, v6: u32) -> Result<(), ChangeError> {
        let refused = |what: &str| {
            let what = what.to_owned();
            move |source| ChangeError::Refused { what, source }
        };
        let links = self.netlink.links().map_err(refused("list interfaces"))?;
        // What an interface announces by itself; of a route over several, nobody knows.
        let usual = |route: &RouteMessage, headers: u32| {
            let index =
                route.attributes.iter().find_map(|it| if let RouteAttribute::Oif(at) = it { Some(*at) } else { None });
            let link = links.iter().find(|link| Some(link.index) == index);
            link.map_or(u32::MAX, |link| link.mtu.saturating_sub(headers))
        };
        let mut changes = Vec::new();
        for (ipv4, after, headers) in [(true, v4, TCP_V4), (false, v6, TCP_V6)] {
            let routes = gateway_routes(&mut self.netlink, ipv4);
            for route in routes.map_err(refused("list routes"))? {
                let before = advmss_of(&route);
                if before.unwrap_or_else(|| usual(&route, headers)) > after {
                    let (destination, priority) = (destination_of(&route), priority_of(&route));
                    changes.push(Change::Advmss { destination, priority, before, after });
                }
            }
        }
        self.make(changes)
    }

    /// What has been made.
    pub fn made(&self) -> &[Change] {
        &self.made
    }

    /// The addresses and prefixes among that.
    pub fn taken(&self) -> Vec<IpNet> {
        let taken = self.made.iter().filter_map(|change| match change {
            Change::Address(address) => Some((*address).into()),
            Change::Prefix(prefix) => Some(*prefix),
            Change::Setting { .. } | Change::Advmss { .. } => None,
        });
        taken.collect()
    }

    fn make(&mut self, changes: Vec<Change>) -> Result<(), ChangeError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.made.extend(changes.iter().cloned());
        // Before it is done, so that what is half done can be undone too.
        self.write()?;
        for change in &changes {
            match change.make(&mut self.netlink) {
                Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {
                    self.made.retain(|made| made != change);
                    self.write()?;
                }
                made => made.map_err(|source| ChangeError::Refused { what: change.describe(), source })?,
            }
        }
        Ok(())
    }

    fn write(&self) -> Result<(), ChangeError> {
        let text = serde_json::to_vec(&self.made).map_err(io::Error::from);
        let new = self.path.with_extension("new");
        let written = text.and_then(|text| fs::write(&new, text)).and_then(|()| fs::rename(&new, &self.path));
        written.map_err(|source| ChangeError::Journal { path: self.path.clone(), source })
    }

    /// Undoes everything, last first, and forgets it.
    ///
    /// # Errors
    /// The first change that could not be undone; the others are.
    pub fn undo(&mut self) -> Result<(), ChangeError> {
        let mut failed = Ok(());
        while let Some(change) = self.made.pop() {
            let undone = self.undo_one(&change);
            failed = failed.and(undone);
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                failed.and(Err(ChangeError::Journal { path: self.path.clone(), source: error }))
            }
            _ => failed,
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::SRCH, Errno::ADDRNOTAVAIL, Errno::NODEV];
    gone.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
