//! Which connections have had no word of their client for too long, and whom the client's echo reply is to remind of them.
//!
//! ```text
//! sock_diag: unacknowledged data or a probe, sent again, no acknowledgement for longer than the retransmission time
//!    └─► echo request from the virtual host's address to the client ─► its reply ─► the router that has the flow now
//! ```
//!
//! Only a connection on which the server has sent something can tell: where the client alone speaks, the client's own
//! retransmissions are all there is. A thread of its own lists the sockets; it rests ten times as long as that takes.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant as Clock, SystemTime};

use arc_swap::ArcSwap;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetResponse, StateFlags};
use rustix::net::{
    AddressFamily, Protocol, RawProtocol, SendFlags, SocketFlags, SocketType, bind, sendto, socket_with,
};

use super::prefixes::Prefixes;
use crate::clock::rate_limit::RateLimit;
use crate::clock::{Instant, WallClock};
use crate::config::host::HostConfig;
use crate::netlink::Netlink;
use crate::packet::checksum::checksum;
use crate::packet::protocol::{ICMP, ICMPV6, TCP};
use crate::recovery::FlowId;
use crate::recovery::echo::{Codec, Echo, LIFE};
use crate::units::labelled;

/// From one look at the connections to the next, at least.
const LOOKS: Duration = Duration::from_millis(250);

/// Echoes a second, and how many in one go: of this server, and to one client.
const SERVER: (u32, u32) = (1000, 200);
const CLIENT: (u32, u32) = (20, 20);

/// Clients that are remembered at most.
const CLIENTS: usize = 4096;

/// Connections that are silent for longer are over, as far as we are concerned.
const PATIENCE: Duration = Duration::from_secs(60);

labelled! {
    /// What has become of a connection without word of its client.
    EchoOutcome {
        /// An echo was sent.
        Sent => "sent",
        /// There had been too many.
        Limited => "limited",
        /// The system did not send it.
        Failed => "failed",
    }
}

/// What is shared with the thread.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    prefixes: ArcSwap<Prefixes>,
    counts: [AtomicU64; EchoOutcome::ALL.len()],
}

/// The thread; ends when this is dropped.
#[derive(Debug, Default)]
pub struct Echoes(Arc<Shared>);

impl Echoes {
    /// Starts it where the configuration has a key; else nothing is ever sent.
    ///
    /// # Errors
    /// The kernel lists no sockets, or gives none for ICMP.
    pub fn start(config: &HostConfig, prefixes: &Arc<Prefixes>) -> io::Result<Echoes> {
        let shared = Arc::new(Shared { prefixes: ArcSwap::new(prefixes.clone()), ..Shared::default() });
        if let Some(key) = config.echo {
            let seed = std::collections::hash_map::RandomState::new();
            let mut sender = Sender {
                netlink: Netlink::sockets()?,
                codec: Codec::new(&key),
                tunnel_ends: config.tunnel_addresses.clone(),
                limit: RateLimit::new(SERVER.0, SERVER.1),
                clients: HashMap::new(),
                number: std::hash::BuildHasher::hash_one(&seed, &config.name),
                shared: shared.clone(),
            };
            std::thread::Builder::new().name("echoes".into()).spawn(move || sender.run())?;
        }
        Ok(Echoes(shared))
    }

    /// Looks after the connections of other virtual hosts from now on.
    pub fn serve(&self, prefixes: &Arc<Prefixes>) {
        self.0.prefixes.store(prefixes.clone());
    }

    /// How often this has become of a connection.
    pub fn count(&self, outcome: EchoOutcome) -> u64 {
        self.0.counts[outcome as usize].load(Ordering::Relaxed)
    }
}

impl Drop for Echoes {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// What the kernel says about a connection's progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    /// Times that the oldest data have been sent again without an acknowledgement.
    retransmits: u8,
    /// Times that the client was asked for room, or whether it is there, without an answer.
    probes: u8,
    /// Segments without an acknowledgement.
    unacked: u32,
    /// When data are sent again.
    retransmission_time: Duration,
    /// Since the last acknowledgement.
    silence: Duration,
}

impl Progress {
    /// Reads `struct tcp_info` (linux/tcp.h), which starts alike in all kernels.
    fn read(info: &[u8]) -> Option<Progress> {
        let number = |at: usize| Some(u32::from_ne_bytes(*info.get(at..)?.first_chunk()?));
        Some(Progress {
            retransmits: *info.get(2)?,
            probes: *info.get(3)?,
            retransmission_time: Duration::from_micros(number(8)?.into()),
            unacked: number(24)?,
            silence: Duration::from_millis(number(56)?.into()),
        })
    }

    /// Whether the client's word may have been lost on the way to a router that does not know the flow.
    fn is_stuck(&self) -> bool {
        // The time doubles with each try; the first one counts.
        let first = self.retransmission_time / (1 << self.retransmits.min(16));
        let unanswered = self.unacked > 0 && self.retransmits > 0 || self.probes > 0;
        unanswered && self.silence > first && self.silence < PATIENCE
    }
}

struct Sender {
    netlink: Netlink<SockDiagMessage>,
    codec: Codec,
    tunnel_ends: Vec<IpAddr>,
    limit: RateLimit,
    clients: HashMap<IpAddr, RateLimit>,
    /// The number of the next echo.
    number: u64,
    shared: Arc<Shared>,
}

impl Sender {
    fn run(&mut self) {
        let start = Clock::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let began = Clock::now();
            let prefixes = self.shared.prefixes.load_full();
            match self.stuck(&prefixes) {
                Ok(flows) => {
                    let now = Instant::ZERO + start.elapsed();
                    flows.into_iter().for_each(|flow| self.remind(now, flow));
                }
                Err(error) => eprintln!("slr-host: cannot list connections for recovery echoes: {error}"),
            }
            std::thread::sleep(LOOKS.max(began.elapsed() * 10));
        }
    }

    /// The connections of virtual hosts that are stuck.
    fn stuck(&mut self, prefixes: &Prefixes) -> io::Result<Vec<FlowId>> {
        let mut flows = Vec::new();
        let states = StateFlags::ESTABLISHED | StateFlags::FIN_WAIT1 | StateFlags::CLOSE_WAIT | StateFlags::LAST_ACK;
        self.netlink.tcp(states, ExtensionFlags::INFO, |response| {
            flows.extend(stuck_flow(&response).filter(|flow| prefixes.find(flow.destination.ip()).is_some()));
        })?;
        Ok(flows)
    }

    /// Sends the echo for a flow, where it is not one too many.
    fn remind(&mut self, now: Instant, flow: FlowId) {
        let client = flow.source.ip();
        if self.clients.len() >= CLIENTS && !self.clients.contains_key(&client) {
            // Those that could send as many as ever have nothing to be remembered for.
            self.clients.retain(|_, limit| limit.ready() + Duration::from_secs(1) > now);
        }
        let room = self.clients.len() < CLIENTS || self.clients.contains_key(&client);
        let allowed = room
            && self.clients.entry(client).or_insert_with(|| RateLimit::new(CLIENT.0, CLIENT.1)).take(now)
            && self.limit.take(now);
        let outcome = match allowed {
            false => EchoOutcome::Limited,
            true if self.send(flow).is_ok() => EchoOutcome::Sent,
            true => EchoOutcome::Failed,
        };
        self.shared.counts[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn send(&mut self, flow: FlowId) -> io::Result<()> {
        self.number = self.number.wrapping_add(1);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let echo = Echo {
            flow,
            tunnel_v4: self
                .tunnel_ends
                .iter()
                .find_map(|end| if let IpAddr::V4(end) = end { Some(*end) } else { None }),
            tunnel_v6: self
                .tunnel_ends
                .iter()
                .find_map(|end| if let IpAddr::V6(end) = end { Some(*end) } else { None }),
            expires: WallClock((since + LIFE).as_millis() as u64),
            number: self.number,
        };
        let mut message = self.codec.write(&echo);
        if flow.source.is_ipv4() {
            // For ICMPv6 the kernel does it.
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        let socket = icmp_socket(flow.destination.ip())?;
        sendto(&socket, &message, SendFlags::empty(), &SocketAddr::new(flow.source.ip(), 0))?;
        Ok(())
    }
}

/// A socket that sends ICMP from `source`.
fn icmp_socket(source: IpAddr) -> io::Result<OwnedFd> {
    let (family, number) = if source.is_ipv4() { (AddressFamily::INET, ICMP) } else { (AddressFamily::INET6, ICMPV6) };
    let protocol = RawProtocol::new(u32::from(number)).map(Protocol::from_raw);
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    bind(&socket, &SocketAddr::new(source, 0))?;
    Ok(socket)
}

/// The flow of a connection that is stuck.
fn stuck_flow(response: &InetResponse) -> Option<FlowId> {
    let info = response.nlas.iter().find_map(|nla| if let Nla::TcpInfo(info) = nla { Some(info) } else { None })?;
    Progress::read(info).filter(Progress::is_stuck)?;
    let id = &response.header.socket_id;
    // IPv4 in sockets of IPv6 (RFC 4291 section 2.5.5.2).
    let end = |address: IpAddr, port| SocketAddr::new(address.to_canonical(), port);
    let source = end(id.destination_address, id.destination_port);
    let destination = end(id.source_address, id.source_port);
    Some(FlowId { source, destination, protocol: TCP })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_stuck_when_data_were_sent_again_and_nothing_came_back_for_long() {
        let progress = |retransmits, probes, unacked, rto_ms, silence_ms| Progress {
            retransmits,
            probes,
            unacked,
            retransmission_time: Duration::from_millis(rto_ms),
            silence: Duration::from_millis(silence_ms),
        };
        for (progress, stuck) in [
            (progress(1, 0, 10, 400, 250), true),
            (progress(3, 0, 1, 1600, 1400), true),
            (progress(0, 1, 0, 200, 250), true),
            (progress(0, 0, 10, 200, 5000), false),
            (progress(1, 0, 0, 400, 250), false),
            (progress(1, 0, 10, 400, 150), false),
            (progress(9, 0, 10, 120_000, 61_000), false),
        ] {
            assert_eq!(progress.is_stuck(), stuck, "{progress:?}");
        }
    }

    #[test]
    fn progress_is_read_where_the_kernel_writes_it() {
        let mut info = [0; 104];
        (info[2], info[3]) = (3, 1);
        info[8..12].copy_from_slice(&204_000_u32.to_ne_bytes());
        info[24..28].copy_from_slice(&10_u32.to_ne_bytes());
        info[56..60].copy_from_slice(&1500_u32.to_ne_bytes());
        let (retransmission_time, silence) = (Duration::from_millis(204), Duration::from_millis(1500));
        let expected = Progress { retransmits: 3, probes: 1, unacked: 10, retransmission_time, silence };
        assert_eq!(Progress::read(&info), Some(expected));
        assert_eq!(Progress::read(&info[..59]), None);
    }
}
