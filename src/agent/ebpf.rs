//! The eBPF program that takes tunnels off in the kernel: loaded, told what it may take, attached, and read.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{self, Map, MapData, MapError, PerCpuArray};
use aya::programs::tc::SchedClassifierLink;
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode, tc};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use ipnet::IpNet;

use super::outcome::{Outcome, Traffic};
use super::prefixes::Prefixes;
use crate::config::host::{HostConfig, Method, Tunnels};
use crate::units::MacAddr;

/// What `bpf/decapsulate.c` became.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/decapsulate.o"));

/// Names of the programs in it, which are those of the filters too.
const TC: &str = "take_off_tc";
const XDP: &str = "take_off_xdp";
const LEAVING: &str = "count_leaving";

/// What an address is used for; the numbers are those of the program.
const ROUTER: u32 = 1;
const HOST: u32 = 2;

/// Places for tunnel addresses in the program, for routers, and for virtual hosts.
const LIST_MAX: usize = 16;

/// Why the program cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EbpfError {
    /// The kernel does not take it.
    #[error("the kernel does not load the eBPF program: {0}")]
    Load(String),
    /// A map does not take an entry.
    #[error("the eBPF program cannot be told {what}: {source}")]
    Map {
        /// What.
        what: &'static str,
        /// Why.
        source: MapError,
    },
    /// An interface does not take it.
    #[error("{interface} does not take the eBPF program at {at}: {why}")]
    Attach {
        /// Which.
        interface: String,
        /// Where on it.
        at: &'static str,
        /// Why.
        why: String,
    },
}

/// A program that runs; it is detached when this is dropped.
pub struct Program {
    outcomes: PerCpuArray<MapData, u64>,
    traffic: PerCpuArray<MapData, [u64; 4]>,
    /// What others in its place have counted before, by outcome and by prefix.
    before: ([u64; Outcome::ALL.len()], Vec<Traffic>),
    method: Method,
    /// Where it is attached, for people.
    pub place: String,
    links: Mutex<Vec<Link>>,
    _loaded: Ebpf,
}

/// A place where a program is attached, which another one can take over without a gap.
enum Link {
    Xdp(XdpLink),
    /// With the name of the program.
    Tc(&'static str, SchedClassifierLink),
}

/// The whole chain of causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text += &format!(": {said}");
        }
        next = cause.source();
    }
    // What the verifier says has many lines, the last of which but for its statistics tells why.
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("processed "));
    let first = lines.next().unwrap_or_default();
    lines.next_back().map_or_else(|| first.to_owned(), |last| format!("{first} ... {last}"))
}

/// An address as the program's maps have it.
fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A list of the program's, as far as there are places, and its length.
fn list(addresses: impl Iterator<Item = IpAddr>) -> ([[u8; 16]; LIST_MAX], u32) {
    let (mut list, mut count) = ([[0; 16]; LIST_MAX], 0);
    for (place, address) in list.iter_mut().zip(addresses) {
        *place = key(address);
        count += 1;
    }
    (list, count)
}

fn prefix(net: IpNet) -> Key<[u8; 16]> {
    let mapped = if net.addr().is_ipv4() { 96 } else { 0 };
    Key::new(u32::from(net.prefix_len()) + mapped, key(net.network()))
}

fn kinds(tunnels: &Tunnels) -> u32 {
    let taken = [
        (Outcome::IpIp, tunnels.ipip),
        (Outcome::Gue, tunnels.gue.is_some()),
        (Outcome::Gre, tunnels.gre),
        (Outcome::Mpls, tunnels.mpls.is_some()),
        (Outcome::Mac, tunnels.mac),
    ];
    taken.into_iter().filter(|(_, taken)| *taken).map(|(kind, _)| 1 << kind as u32).sum()
}

impl Program {
    /// Loads the program and attaches it to the interfaces by one method, [`Method::Tc`] or [`Method::Xdp`].
    ///
    /// # Errors
    /// The kernel or an interface does not take it.
    pub fn start(config: &HostConfig, prefixes: &Prefixes, method: Method) -> Result<Program, EbpfError> {
        let mut loaded = load(config, prefixes, method)?;
        let (mut place, mut links) = (String::new(), Vec::new());
        for interface in &config.interfaces {
            let at = match method {
                Method::Xdp => attach_xdp(&mut loaded, interface, &mut links)?,
                _ => attach_tc(&mut loaded, TC, interface, TcAttachType::Ingress, &mut links)?,
            };
            place = format!("{place}{}{at} of {interface}", if place.is_empty() { "" } else { ", " });
            attach_tc(&mut loaded, LEAVING, interface, TcAttachType::Egress, &mut links)?;
        }
        let before = ([0; Outcome::ALL.len()], vec![Traffic::default(); prefixes.len()]);
        Program::of(loaded, before, method, place, links)
    }

    /// A program with another configuration in the place of this one, which takes over between two packets and goes on with
    /// its counters; `old` are the prefixes of this one.
    ///
    /// # Errors
    /// The kernel does not take it; this one goes on.
    pub fn successor(&self, config: &HostConfig, prefixes: &Prefixes, old: &Prefixes) -> Result<Program, EbpfError> {
        let mut loaded = load(config, prefixes, self.method)?;
        let mut held = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let mut links = Vec::with_capacity(held.len());
        for link in held.drain(..) {
            links.push(match link {
                Link::Xdp(link) => {
                    let program = xdp(&mut loaded)?;
                    let link = program.attach_to_link(link).and_then(|id| program.take_link(id));
                    Link::Xdp(link.map_err(unloadable)?)
                }
                Link::Tc(name, link) => {
                    let program = classifier(&mut loaded, name)?;
                    let link = program.attach_to_link(link).and_then(|id| program.take_link(id));
                    Link::Tc(name, link.map_err(unloadable)?)
                }
            });
        }
        let mut outcomes = [0; Outcome::ALL.len()];
        Outcome::ALL.iter().for_each(|of| outcomes[*of as usize] = self.outcome(*of));
        let same = |net: &IpNet| old.all().iter().position(|other| other == net);
        let traffic = |net| same(net).map_or_else(Traffic::default, |number| self.traffic(number));
        let before = (outcomes, prefixes.all().iter().map(traffic).collect());
        Program::of(loaded, before, self.method, self.place.clone(), links)
    }

    fn of(
        mut loaded: Ebpf,
        before: ([u64; Outcome::ALL.len()], Vec<Traffic>),
        method: Method,
        place: String,
        links: Vec<Link>,
    ) -> Result<Program, EbpfError> {
        Ok(Program {
            outcomes: taken(&mut loaded, "outcomes")?,
            traffic: taken(&mut loaded, "traffic")?,
            before,
            method,
            place,
            links: Mutex::new(links),
            _loaded: loaded,
        })
    }

    /// Packets by what became of them, of all processors.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        let now = self.outcomes.get(&(outcome as u32), 0).map_or(0, |values| values.iter().sum::<u64>());
        self.before.0[outcome as usize] + now
    }

    /// What has come for a prefix and gone from it.
    pub fn traffic(&self, prefix: usize) -> Traffic {
        let Some(before) = self.before.1.get(prefix) else { return Traffic::default() };
        let mut sum = *before;
        for [packets_in, bytes_in, packets_out, bytes_out] in
            self.traffic.get(&(prefix as u32), 0).iter().flat_map(|all| all.iter())
        {
            sum += Traffic {
                packets_in: *packets_in,
                bytes_in: *bytes_in,
                packets_out: *packets_out,
                bytes_out: *bytes_out,
            };
        }
        sum
    }
}

/// Loads what a method needs, told what it may take.
fn load(config: &HostConfig, prefixes: &Prefixes, method: Method) -> Result<Ebpf, EbpfError> {
    let Tunnels { gue, mpls, .. } = config.tunnels;
    let count = prefixes.len() as u32;
    let kinds = kinds(&config.tunnels);
    // The configuration has no more tunnel addresses than there are places.
    let (ends, end_count) = list(config.tunnel_addresses.iter().copied());
    let (senders, sender_count) = list(config.routers.iter().filter(|net| is_single(net)).map(IpNet::addr));
    let singles = numbered(prefixes).filter(|(_, net)| is_single(net));
    // Where they are more, they are all found in the table.
    let few = if singles.clone().count() <= LIST_MAX { LIST_MAX } else { 0 };
    let (hosts, host_count) = list(singles.clone().take(few).map(|(_, net)| net.addr()));
    let mut host_numbers = [0; LIST_MAX];
    host_numbers.iter_mut().zip(singles.take(few)).for_each(|(place, (number, _))| *place = number);
    // Nor of these.
    let (mut label_senders, label_sender_count) = ([0_u64; LIST_MAX], config.router_macs.len() as u32);
    for (place, MacAddr([a, b, c, d, e, f])) in label_senders.iter_mut().zip(&config.router_macs) {
        *place = u64::from_ne_bytes([*a, *b, *c, *d, *e, *f, 0, 0]);
    }
    let addresses = addresses(config, prefixes);
    let has_prefix = |nets: &[IpNet]| nets.iter().any(|net| !is_single(net));
    let uses = if has_prefix(&config.routers) { ROUTER } else { 0 } | if has_prefix(prefixes.all()) { HOST } else { 0 };
    let (port, label) = (gue.unwrap_or(0), mpls.unwrap_or(0));
    let mut loaded = EbpfLoader::new()
        .override_global("kinds", &kinds, true)
        .override_global("gue_port", &port, true)
        .override_global("mpls_label", &label, true)
        .override_global("label_sender_count", &label_sender_count, true)
        .override_global("label_senders", &label_senders, true)
        .override_global("end_count", &end_count, true)
        .override_global("ends", &ends, true)
        .override_global("sender_count", &sender_count, true)
        .override_global("senders", &senders, true)
        .override_global("host_count", &host_count, true)
        .override_global("hosts", &hosts, true)
        .override_global("host_numbers", &host_numbers, true)
        .override_global("prefix_uses", &uses, true)
        .map_max_entries("addresses", addresses.len().max(1) as u32)
        .map_max_entries("routers", config.routers.len() as u32)
        .map_max_entries("virtual_hosts", count)
        .map_max_entries("traffic", count)
        .load(OBJECT)
        .map_err(|error| EbpfError::Load(causes(&error)))?;
    fill(&mut loaded, config, prefixes, &addresses)?;

    match method {
        Method::Xdp => xdp(&mut loaded)?.load().map_err(unloadable)?,
        _ => classifier(&mut loaded, TC)?.load().map_err(unloadable)?,
    }
    classifier(&mut loaded, LEAVING)?.load().map_err(unloadable)?;
    Ok(loaded)
}

fn unloadable(error: ProgramError) -> EbpfError {
    EbpfError::Load(causes(&error))
}

fn xdp(loaded: &mut Ebpf) -> Result<&mut Xdp, EbpfError> {
    let program = loaded.program_mut(XDP).ok_or_else(|| missing(XDP))?;
    program.try_into().map_err(unloadable)
}

fn classifier<'a>(loaded: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, EbpfError> {
    let program = loaded.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(unloadable)
}

fn missing(name: &str) -> EbpfError {
    EbpfError::Load(format!("it has no {name}"))
}

/// A map for us alone. Programs that use it must be loaded by then.
fn taken<T: TryFrom<Map, Error = MapError>>(loaded: &mut Ebpf, name: &'static str) -> Result<T, EbpfError> {
    let map = loaded.take_map(name).ok_or_else(|| missing(name))?;
    T::try_from(map).map_err(|source| EbpfError::Map { what: name, source })
}

fn map_of<'a, T: TryFrom<&'a mut Map, Error = MapError>>(
    loaded: &'a mut Ebpf,
    name: &'static str,
) -> Result<T, EbpfError> {
    let map = loaded.map_mut(name).ok_or_else(|| missing(name))?;
    T::try_from(map).map_err(|source| EbpfError::Map { what: name, source })
}

/// Single addresses, what each is used for, and the number of a virtual host's.
fn addresses(config: &HostConfig, prefixes: &Prefixes) -> HashMap<[u8; 16], [u32; 2]> {
    let mut addresses = HashMap::new();
    let single = |net: &&IpNet| is_single(net);
    let routers = config.routers.iter().filter(single).map(|net| (net.addr(), ROUTER, 0));
    let hosts = numbered(prefixes).filter(|(_, net)| is_single(net)).map(|(at, net)| (net.addr(), HOST, at));
    for (address, usage, host) in routers.chain(hosts) {
        let [uses, number] = addresses.entry(key(address)).or_default();
        *uses |= usage;
        *number |= host;
    }
    addresses
}

fn numbered(prefixes: &Prefixes) -> impl Iterator<Item = (u32, &IpNet)> + Clone {
    (0..).zip(prefixes.all())
}

fn is_single(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

fn fill(
    loaded: &mut Ebpf,
    config: &HostConfig,
    prefixes: &Prefixes,
    addresses: &HashMap<[u8; 16], [u32; 2]>,
) -> Result<(), EbpfError> {
    let told = |what| move |source| EbpfError::Map { what, source };
    let mut table: maps::HashMap<&mut MapData, [u8; 16], [u32; 2]> = map_of(loaded, "addresses")?;
    for (address, known) in addresses {
        table.insert(address, known, 0).map_err(told("addresses"))?;
    }
    let mut routers: LpmTrie<&mut MapData, [u8; 16], u8> = map_of(loaded, "routers")?;
    for router in config.routers.iter().filter(|net| !is_single(net)) {
        routers.insert(&prefix(*router), 1, 0).map_err(told("routers"))?;
    }
    let mut hosts: LpmTrie<&mut MapData, [u8; 16], u32> = map_of(loaded, "virtual_hosts")?;
    for (number, net) in numbered(prefixes).filter(|(_, net)| !is_single(net)) {
        hosts.insert(&prefix(*net), number, 0).map_err(told("virtual hosts"))?;
    }
    Ok(())
}

/// Attaches in the driver, or in front of the network stack where the driver has no place for it.
fn attach_xdp(loaded: &mut Ebpf, interface: &str, links: &mut Vec<Link>) -> Result<&'static str, EbpfError> {
    let refused = |error: ProgramError| refused(interface, "xdp", causes(&error));
    let program = xdp(loaded)?;
    let (id, place) = match program.attach(interface, XdpMode::Driver) {
        Ok(id) => (id, "the driver (xdp)"),
        Err(_) => (program.attach(interface, XdpMode::Skb).map_err(refused)?, "the entry of the stack (generic xdp)"),
    };
    links.push(Link::Xdp(program.take_link(id).map_err(refused)?));
    Ok(place)
}

fn attach_tc(
    loaded: &mut Ebpf,
    name: &'static str,
    interface: &str,
    way: TcAttachType,
    links: &mut Vec<Link>,
) -> Result<&'static str, EbpfError> {
    let refused = |why: String| refused(interface, "tc", why);
    // A link goes with its process. A filter of older kernels stays after a crash, in the way of its successor.
    let has_links = KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 6, 0));
    if !has_links {
        match tc::qdisc_add_clsact(interface) {
            Err(tc::TcError::NetlinkError(_)) | Ok(()) => {}
            Err(error) => return Err(refused(causes(&error))),
        }
        match tc::qdisc_detach_program(interface, way, name) {
            Err(tc::TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(|error| refused(causes(&error)))?,
        }
    }
    let program = classifier(loaded, name)?;
    let link = program.attach(interface, way).and_then(|id| program.take_link(id));
    links.push(Link::Tc(name, link.map_err(|error| refused(causes(&error)))?));
    Ok(if has_links { "the ingress (tcx)" } else { "the ingress (tc)" })
}

fn refused(interface: &str, at: &'static str, why: String) -> EbpfError {
    EbpfError::Attach { interface: interface.to_owned(), at, why }
}
