//! Tunnels taken off in this process: for tunnel packets that came in fragments, which only the system puts together, and
//! for all of them where no eBPF program can be used.
//!
//! ```text
//! raw sockets (IP in IP, GRE; GUE over IPv6), UDP socket ── whole tunnel packets ──► from a router? for us? ──► TUN device ──► stack
//! ```
//!
//! A congestion mark on the outer header is seen and carried over where the outer packet is IPv4 and raw; sockets of the
//! other kinds do not show it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use arc_swap::ArcSwap;
use ipnet::{IpNet, Ipv4Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::{self as route, RouteNetlinkMessage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::ipproto::UDP;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{
    AddressFamily, Protocol, RawProtocol, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with,
};
use tappers::{Interface, Tun};
use tokio::sync::mpsc;

use super::outcome::{Outcome, Outcomes, Traffic};
use super::prefixes::Prefixes;
use crate::config::host::Tunnels;
use crate::netlink::Netlink;
use crate::packet::parse::parse_ip;
use crate::packet::protocol;
use crate::packet::udp::UdpHeader;
use crate::tunnel::decapsulate::mark;
use crate::tunnel::shim;

/// Room for the longest packet.
const PACKET_MAX: usize = 64 << 10;

/// Packets read from one socket before the others have their turn.
const TURN: usize = 64;

/// What a socket may hold while the process is busy, in bytes.
const QUEUE: usize = 4 << 20;

/// The device's own address, which is nobody's outside of this machine; the other one of its two is that of who asks in
/// checks.
const OWN_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 83, 77), 31);

/// How often a quiet reader looks whether it is to end.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// A TUN device, up.
pub struct Device {
    /// The device; it goes with this.
    pub tun: Tun,
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
}

impl Device {
    /// Makes one.
    ///
    /// # Errors
    /// The system has no TUN devices, or refuses.
    pub fn new() -> io::Result<Device> {
        let mut tun = Tun::new_named(Interface::new("slr%d")?)?;
        let name = tun.name()?.name().to_string_lossy().into_owned();
        // Packets come in here whose answers leave by another way, which the kernel allows where there is an address.
        fs::write(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), "2")?;
        let quiet = format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode");
        // Without IPv6 there is no such file, and no address to keep from being made.
        let _ = fs::write(quiet, "1");
        tun.set_nonblocking(true)?;
        tun.set_up()?;
        let mut netlink = Netlink::route()?;
        let index = netlink.links()?.into_iter().find(|link| link.name == name).ok_or(io::ErrorKind::NotFound)?.index;
        let mut address = AddressMessage::default();
        address.header.family = route::AddressFamily::Inet;
        address.header.prefix_len = OWN_V4.prefix_len();
        address.header.scope = AddressScope::Link;
        address.header.index = index;
        let own = OWN_V4.addr().into();
        address.attributes = vec![AddressAttribute::Local(own), AddressAttribute::Address(own)];
        netlink.change(RouteNetlinkMessage::NewAddress(address), NLM_F_CREATE | NLM_F_EXCL)?;
        Ok(Device { tun, name, index })
    }
}

/// What decides over a packet.
pub struct Rules {
    /// Which tunnels end here.
    pub tunnels: Tunnels,
    /// Where.
    pub ends: Vec<IpAddr>,
    /// Outer sources that are let in.
    pub routers: Vec<IpNet>,
    /// What is served here.
    pub virtual_hosts: Arc<Prefixes>,
}

/// Counters of one prefix, of what came in through the process.
#[derive(Debug, Default)]
struct Came {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// What decides over packets now, and what came by that for each prefix.
struct Serving {
    rules: Rules,
    came: Vec<Arc<Came>>,
}

/// What the reader is told, and what it has counted.
pub struct Shared {
    /// Packets by what became of them.
    pub outcomes: Outcomes,
    serving: ArcSwap<Serving>,
}

impl Shared {
    fn new(rules: Rules) -> Shared {
        let came = rules.virtual_hosts.all().iter().map(|_| Arc::default()).collect();
        Shared { outcomes: Outcomes::default(), serving: ArcSwap::from_pointee(Serving { rules, came }) }
    }

    /// Goes over to other routers and virtual hosts; tunnels and their ends stay what they are. Prefixes that stay go on
    /// being counted.
    pub fn set(&self, rules: Rules) {
        let before = self.serving.load();
        let same = |net: &IpNet| before.rules.virtual_hosts.all().iter().position(|other| other == net);
        let came = |net| same(net).map_or_else(Arc::default, |number| before.came[number].clone());
        let came = rules.virtual_hosts.all().iter().map(came).collect();
        self.serving.store(Arc::new(Serving { rules, came }));
    }

    /// What came for a prefix.
    pub fn traffic(&self, prefix: usize) -> Traffic {
        let serving = self.serving.load();
        let came = serving.came.get(prefix);
        let read = |counter: fn(&Came) -> &AtomicU64| came.map_or(0, |came| counter(came).load(Ordering::Relaxed));
        Traffic { packets_in: read(|came| &came.packets), bytes_in: read(|came| &came.bytes), ..Traffic::default() }
    }
}

/// What a socket's packets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Whole packets over IPv4, of this protocol.
    RawV4(u8),
    /// What is behind IPv6 headers, of this protocol.
    RawV6(u8),
    /// What is behind UDP.
    Gue,
}

/// Reads tunnel packets, and what the system sends into the device, until it is dropped.
pub struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// What it is told and counts.
    pub shared: Arc<Shared>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

impl Reader {
    /// Starts to read; what was in tunnels goes to `device`, and what comes from there to `answers`.
    ///
    /// # Errors
    /// A socket cannot be had.
    pub fn start(rules: Rules, device: Arc<Device>, answers: mpsc::Sender<Vec<u8>>) -> io::Result<Reader> {
        let sockets = Sockets::new(&rules)?;
        let shared = Arc::new(Shared::new(rules));
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, own) = (stop.clone(), shared.clone());
        let thread = thread::Builder::new().name("tunnels".into()).stack_size(256 << 10).spawn(move || {
            let mut packet = vec![0; PACKET_MAX];
            while !stopped.load(Ordering::Relaxed) {
                let Ok(ready) = wait(&sockets.read, &device) else { continue };
                let serving = own.serving.load();
                for ((socket, source), _) in sockets.read.iter().zip(&ready).filter(|(_, ready)| **ready) {
                    read(socket, *source, &serving, &device, &own.outcomes, &mut packet);
                }
                for _ in 0..TURN {
                    let Ok(length) = device.tun.recv(&mut packet) else { break };
                    // An answer that nobody has time for is as good as lost.
                    let _ = answers.try_send(packet[..length].to_vec());
                }
            }
        })?;
        Ok(Reader { stop, thread: Some(thread), shared })
    }
}

/// What tunnel packets are read from.
struct Sockets {
    read: Vec<(OwnedFd, Source)>,
    /// Never read: these keep the system from telling senders that the port is closed.
    _held: Vec<OwnedFd>,
}

impl Sockets {
    /// For every kind of tunnel at every end.
    fn new(rules: &Rules) -> io::Result<Sockets> {
        let (mut read, mut held) = (Vec::new(), Vec::new());
        for end in &rules.ends {
            let raw = |number| if end.is_ipv4() { Source::RawV4(number) } else { Source::RawV6(number) };
            if rules.tunnels.ipip {
                read.push((raw_socket(*end, protocol::IPV4)?, raw(protocol::IPV4)));
                read.push((raw_socket(*end, protocol::IPV6)?, raw(protocol::IPV6)));
            }
            if rules.tunnels.gre {
                read.push((raw_socket(*end, protocol::GRE)?, raw(protocol::GRE)));
            }
            match (rules.tunnels.gue, end.is_ipv4()) {
                (Some(port), true) => read.push((socket(*end, port, SocketType::DGRAM, UDP)?, Source::Gue)),
                // Over IPv6 a tunnel's checksum may be zero (RFC 6935), which a UDP socket does not let in.
                (Some(port), false) => {
                    held.push(socket(*end, port, SocketType::DGRAM, UDP)?);
                    read.push((socket(*end, 0, SocketType::RAW, UDP)?, raw(protocol::UDP)));
                }
                (None, _) => {}
            }
        }
        Ok(Sockets { read, _held: held })
    }
}

fn raw_socket(end: IpAddr, number: u8) -> io::Result<OwnedFd> {
    // None of the numbers is 0.
    let number = RawProtocol::new(u32::from(number)).ok_or(io::ErrorKind::InvalidInput)?;
    socket(end, 0, SocketType::RAW, Protocol::from_raw(number))
}

fn socket(end: IpAddr, port: u16, kind: SocketType, protocol: Protocol) -> io::Result<OwnedFd> {
    let family = if end.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(protocol))?;
    // As much as the system allows.
    let _ = set_socket_recv_buffer_size(&socket, QUEUE);
    bind(&socket, &SocketAddr::new(end, port))?;
    Ok(socket)
}

/// Waits for packets, or until it is time to look up; which sockets have some.
fn wait(sockets: &[(OwnedFd, Source)], device: &Device) -> Result<Vec<bool>, Errno> {
    let mut waiting: Vec<_> = sockets.iter().map(|(socket, _)| PollFd::new(socket, PollFlags::IN)).collect();
    waiting.push(PollFd::new(&device.tun, PollFlags::IN));
    poll(&mut waiting, Some(&LOOK))?;
    Ok(waiting.iter().map(|socket| !socket.revents().is_empty()).collect())
}

/// Takes some packets in.
fn read(socket: &OwnedFd, source: Source, serving: &Serving, device: &Device, outcomes: &Outcomes, bytes: &mut [u8]) {
    for _ in 0..TURN {
        let (length, from) = match recvfrom(socket, &mut *bytes, RecvFlags::empty()) {
            Ok((length, _, from)) => (length, from.and_then(|from| SocketAddr::try_from(from).ok())),
            Err(Errno::INTR) => continue,
            Err(_) => break,
        };
        let Some(from) = from else { continue };
        let mut packet = &mut bytes[..length];
        let outcome = match serving.rules.open(source, from.ip(), &mut packet) {
            Ok(None) => continue,
            Ok(Some((kind, prefix))) => match device.tun.send(packet) {
                Ok(_) => {
                    if let Some(came) = serving.came.get(prefix) {
                        came.packets.fetch_add(1, Ordering::Relaxed);
                        came.bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
                    }
                    kind
                }
                Err(_) => Outcome::Failed,
            },
            Err(outcome) => outcome,
        };
        outcomes.count(outcome);
    }
}

impl Rules {
    /// Cuts `packet` down to what is in the tunnel; its kind, and the prefix that it is for. `None`: it is no tunnel packet.
    fn open(&self, source: Source, from: IpAddr, packet: &mut &mut [u8]) -> Result<Option<(Outcome, usize)>, Outcome> {
        let (kind, number, start, class) = match source {
            Source::RawV4(number) => {
                let outer = parse_ip(packet, packet.len()).map_err(|_| Outcome::Header)?;
                (Outcome::IpIp, number, usize::from(outer.l4_offset), packet.get(1).copied().unwrap_or_default())
            }
            Source::RawV6(protocol::UDP) => match **packet {
                [_, _, high, low, _, _, _, _, ..] if Some(u16::from_be_bytes([high, low])) == self.tunnels.gue => {
                    (Outcome::Gue, protocol::UDP, UdpHeader::LEN, 0)
                }
                _ => return Ok(None),
            },
            Source::RawV6(number) => (Outcome::IpIp, number, 0, 0),
            Source::Gue => (Outcome::Gue, protocol::UDP, 0, 0),
        };
        if !self.routers.iter().any(|router| router.contains(&from)) {
            return Err(Outcome::Stranger);
        }
        let behind = packet.get(start..).unwrap_or_default();
        let (kind, (carried, offset)) = match (kind, number) {
            (Outcome::Gue, _) => (Outcome::Gue, shim::read_gue(behind).ok_or(Outcome::Header)?),
            (_, protocol::GRE) => (Outcome::Gre, shim::read_gre(behind).ok_or(Outcome::Header)?),
            (kind, carried) => (kind, (carried, 0)),
        };
        let inner = std::mem::take(packet).get_mut(start + offset..).unwrap_or_default();
        let parsed = parse_ip(inner, inner.len()).map_err(|_| Outcome::Inner)?;
        let destination = parsed.destination(inner);
        if destination.is_ipv6() != (carried == protocol::IPV6) {
            return Err(Outcome::Inner);
        }
        let prefix = self.virtual_hosts.find(destination).ok_or(Outcome::NoVirtualHost)?;
        mark(inner, parsed.family, class).ok_or(Outcome::Ecn)?;
        *packet = inner.get_mut(..parsed.l3_len as usize).unwrap_or_default();
        Ok(Some((kind, prefix)))
    }
}
