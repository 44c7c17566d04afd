//! What the rest of the program may rely on once a configuration is let in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jiff::tz::TimeZone;
use rustls::RootCertStore;

use crate::cost::Expression;
use crate::service::filter::Filter;
use crate::service::mss::MssClamp;
use crate::service::quic::Layout;
use crate::service::regions::Regions;
use crate::service::selection::{Granularity, Policy};
pub use crate::service::unknown::OnUnknown;
use crate::trust::Credentials;
pub use crate::units::{GueVariant, Hugepages};
use crate::units::{MacAddr, PortIndex, Weight};

/// Where routers have their control sockets when nothing else is said, each under its own name: `/run/slr/edge1.sock`.
pub const SOCKET_DIRECTORY: &str = "/run/slr";

/// One router's configuration, checked: names resolve, ranges hold, virtual hosts do not overlap.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this router is.
    pub router: Router,
    /// The DPDK environment.
    pub dpdk: Dpdk,
    /// The poll-mode workers.
    pub workers: Workers,
    /// The ports; empty in a configuration that is only replayed.
    pub ports: Vec<Port>,
    /// Static routes, beside the subnets of the ports' own addresses.
    pub routes: Vec<Route>,
    /// Whether packets for no service are forwarded between the ports, as any router does.
    pub forwarding: bool,
    /// Whether flows may go past a child that says where it sends them, and parents are told where we do.
    pub shortcuts: bool,
    /// Neighbours whose link-layer address is given.
    pub neighbours: Vec<Neighbour>,
    /// The flow tables.
    pub flows: Flows,
    /// What all routers of a cluster share so that they choose alike.
    pub cluster: Cluster,
    /// Names of the regions of clients, by their numbers from 1.
    pub client_regions: Vec<String>,
    /// Which of them a client is in.
    pub regions: Arc<Regions>,
    /// Next-level gateways and host servers.
    pub children: Vec<Child>,
    /// The site that they come from; `None`: the file.
    pub site: Option<Site>,
    /// The services.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Where metrics are served.
    pub metrics: Metrics,
    /// Where the router is asked and steered while it runs.
    pub control: Control,
    /// With whom of the hierarchy it speaks.
    pub sessions: Sessions,
    /// How flows are found again that a worker does not know.
    pub recovery: Recovery,
    /// What it has together with another router; `None`: it is alone.
    pub pair: Option<Pair>,
}

/// Who this router is.
#[derive(Clone, Debug)]
pub struct Router {
    /// Name in messages and metrics.
    pub name: String,
    /// Level in the hierarchy: 1 is the router in front of host servers (`site`), then `system`, `network`, and upward.
    pub level: u8,
    /// Source of our IPv4 tunnels, and where parents' tunnels to us end.
    pub tunnel_v4: Option<Ipv4Addr>,
    /// Source of our IPv6 tunnels, and where parents' tunnels to us end.
    pub tunnel_v6: Option<Ipv6Addr>,
    /// Prefix over which the outer IPv4 source is spread by flow hash, instead of `tunnel_v4`.
    pub tunnel_source_v4: Option<Ipv4Net>,
    /// Prefix over which the outer IPv6 source is spread by flow hash, instead of `tunnel_v6`.
    pub tunnel_source_v6: Option<Ipv6Net>,
    /// UDP port of parents' GUE tunnels to us.
    pub gue_port: u16,
    /// Outer sources whose tunnel packets we take off.
    pub parents: Vec<IpNet>,
    /// How far children are that say nothing else.
    pub route_cost: RouteCost,
    /// By which cost functions tell the time of day.
    pub time_zone: TimeZone,
}

/// The DPDK environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dpdk {
    /// Kind of pages.
    pub hugepages: Hugepages,
    /// Memory for packet buffers and tables, in MiB.
    pub memory_mib: u32,
    /// Packet buffers in the pool.
    pub buffers: u32,
    /// Name that keeps instances on one machine apart; `None`: made from the process id.
    pub file_prefix: Option<String>,
}

/// The poll-mode workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// How many; at least 1.
    pub count: u16,
    /// CPU of each worker, as long as `count`; empty: any, in turn.
    pub cpus: Vec<u16>,
    /// Whether workers sleep a little while nothing arrives.
    pub sleeps: bool,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name in messages and metrics.
    pub name: String,
    /// DPDK devargs: `0000:01:00.0`, `net_af_packet0,iface=veth0`, `net_tap0,iface=tap0`.
    pub device: String,
    /// Longest IP packet that leaves here, in bytes.
    pub mtu: u16,
    /// Our addresses on this link, each with the length of its subnet.
    pub addresses: Vec<IpNet>,
    /// 802.1Q tag of everything we send here.
    pub vlan: Option<u16>,
}

/// One static route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Destinations.
    pub prefix: IpNet,
    /// Next hop; lies in the subnet of a port.
    pub via: IpAddr,
}

/// A neighbour whose link-layer address is given.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// Its IP address; lies in the subnet of a port.
    pub address: IpAddr,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

/// The flow tables of each worker.
#[derive(Clone, Debug)]
pub struct Flows {
    /// Flows over IPv4 that one worker holds.
    pub capacity_v4: u32,
    /// Flows over IPv6 that one worker holds.
    pub capacity_v6: u32,
    /// Flow entries that one worker makes in a second at most.
    pub inserts_per_second: u32,
    /// How long a flow without packets is kept.
    pub timeouts: Timeouts,
}

/// How long a flow without packets is kept, by its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, only SYN seen.
    pub tcp_syn: Duration,
    /// TCP, data or acknowledgements seen.
    pub tcp_established: Duration,
    /// TCP, client has sent FIN.
    pub tcp_fin: Duration,
    /// TCP, client has sent RST.
    pub tcp_rst: Duration,
    /// UDP.
    pub udp: Duration,
    /// Every other protocol, and flows coarser than a 5-tuple.
    pub other: Duration,
}

/// What all routers of a cluster share.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Key of the consistent hash (SipHash), 16 bytes.
    pub key: [u8; 16],
    /// Slots of a consistent-hash table where the virtual host names no size of its own; a prime.
    pub table_size: u32,
}

/// A site that has the table of children.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where the table is, as it was written.
    pub url: String,
    /// Name or address of the site.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path and query.
    pub target: String,
    /// Who must have signed its certificate.
    pub roots: Arc<RootCertStore>,
    /// From one question to the next.
    pub interval: Duration,
    /// Where the last good table is kept.
    pub copy: PathBuf,
}

/// How packets are carried to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// IP in IP, in the four combinations of families (RFC 2003, 2473, 4213).
    IpIp,
    /// Generic UDP encapsulation (draft-ietf-intarea-gue).
    Gue {
        /// UDP port of the child.
        port: u16,
        /// How it is laid out.
        variant: GueVariant,
    },
    /// Generic routing encapsulation, without checksum and key (RFC 2784).
    Gre,
    /// One MPLS label (RFC 3032).
    Mpls {
        /// Which, 20 bits.
        label: u32,
    },
    /// As it is, to a neighbour on one of our links.
    Mac,
}

impl TunnelKind {
    /// Whether it has an outer IP header, and so starts at a tunnel address of ours.
    pub fn has_outer_ip(self) -> bool {
        matches!(self, TunnelKind::IpIp | TunnelKind::Gue { .. } | TunnelKind::Gre)
    }
}

/// A next-level gateway or host server.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Unique name.
    pub name: String,
    /// Where its tunnels end.
    pub address: IpAddr,
    /// How packets get there.
    pub tunnel: TunnelKind,
    /// Whether it tells us how it is.
    pub register: Register,
    /// How far it is, for cost functions.
    pub route_cost: RouteCost,
    /// What the operator says of it, for cost functions.
    pub labels: Vec<String>,
}

/// How far a child is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RouteCost {
    /// As the operator says, in any unit; finite, at least 0.
    Given(f64),
    /// By the round-trip time of its session, or else of its checks, in milliseconds.
    RoundTrip,
    /// By the metric of the route to it in this machine's routing table.
    Metric,
}

/// Whether a child tells us how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// It does not.
    Off,
    /// What it says counts; as long as it says nothing it is as configured.
    Optional,
    /// What it says counts; as long as it says nothing it gets no new flows.
    Required,
}

/// A service.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    /// Unique name.
    pub name: String,
    /// Addresses and whole subnets.
    pub addresses: Vec<IpNet>,
    /// Protocols and ports; never empty.
    pub services: Vec<Filter>,
    /// What a flow is.
    pub flow: Granularity,
    /// Who gets a new flow.
    pub policy: Policy,
    /// Whether weights follow costs instead of being as configured.
    pub shares: bool,
    /// What a child costs; `None`: its configured cost.
    pub cost_function: Option<Expression>,
    /// Whether that asks where clients are, so that each region has costs and shares of its own.
    pub by_region: bool,
    /// What load parents are told; `None`: the mean of the children's, by capacity.
    pub aggregate_function: Option<Expression>,
    /// Where its servers' ids lie in their QUIC connection ids, if they do.
    pub quic: Option<Layout>,
    /// What becomes of the MSS option of SYNs.
    pub mss_clamp: MssClamp,
    /// Slots of the consistent-hash table; a prime.
    pub table_size: u32,
    /// Whether we answer echo requests for its addresses ourselves, instead of its children.
    pub answers_echo: bool,
    /// Who serves it; never empty.
    pub members: Vec<Member>,
    /// Whether these are all children, whoever that is.
    pub takes_all: bool,
    /// How each of its children is checked; `None`: they count as up.
    pub health: Option<Health>,
    /// What becomes of a child's flows when its check fails.
    pub on_failure: OnFailure,
    /// What becomes of packets in the middle of TCP connections that nobody knows.
    pub on_unknown: OnUnknown,
}

/// What becomes of the flows of a child that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// They stay on it until their time is over.
    Keep,
    /// Each gets another child with its next packet, as if it were new.
    Reselect,
}

/// How the children of a virtual host are checked.
#[derive(Clone, Debug)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// The virtual host's address that is asked on each child.
    pub address: IpAddr,
    /// When, and what the answers mean.
    pub rhythm: Rhythm,
}

/// When a child is asked, and how many answers change what is thought of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// From the start of one check to that of the next, on average.
    pub interval: Duration,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// How much the interval varies either way, in percent of it; at most 50.
    pub jitter_percent: u8,
    /// Successes in a row after which a child that is down is up; at least 1.
    pub rise: u8,
    /// Failures in a row after which a child that is up is down; at least 1.
    pub fall: u8,
    /// Whether a child counts as up before its first checks.
    pub initially_up: bool,
}

impl Rhythm {
    /// Time from a child's failure until it counts as down, at most.
    pub fn detection_max(&self) -> Duration {
        let interval = self.interval * (100 + u32::from(self.jitter_percent)) / 100;
        // It fails right after it has answered.
        interval + interval.max(self.timeout) * (u32::from(self.fall) - 1) + self.timeout
    }
}

/// What a child is asked to see whether it is up.
#[derive(Clone, Debug)]
pub enum Probe {
    /// ICMP or ICMPv6 echo: a reply.
    Icmp,
    /// TCP: a connection is accepted.
    Tcp {
        /// Port.
        port: u16,
    },
    /// An HTTP/1.1 GET: a status in the expected range.
    Http(Request),
    /// The same over TLS.
    Https(Request, Tls),
    /// A TLS handshake that succeeds.
    Tls(u16, Tls),
    /// A DNS query over UDP: an answer without an error (NOERROR).
    Dns {
        /// Port.
        port: u16,
        /// The name that is asked for.
        name: String,
        /// Number of the record type.
        record: u16,
    },
    /// A program, with its arguments, that exits with 0.
    Command(Vec<String>),
}

impl Probe {
    /// Whether its answer comes after one round trip.
    pub fn is_one_exchange(&self) -> bool {
        matches!(self, Probe::Icmp | Probe::Tcp { .. })
    }
}

/// An HTTP GET.
#[derive(Clone, Debug)]
pub struct Request {
    /// Port.
    pub port: u16,
    /// Path and query; starts with a slash.
    pub path: String,
    /// `Host` header.
    pub host: String,
    /// Status codes of a good answer.
    pub expect: RangeInclusive<u16>,
}

/// A TLS handshake.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Name that is sent (SNI) and, where certificates are verified, must be in the server's; `None`: the address.
    pub server_name: Option<String>,
    /// Who must have signed the server's certificate; `None`: any certificate is good.
    pub roots: Option<Arc<RootCertStore>>,
}

/// A child in a virtual host's service.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Position in [`Config::children`].
    pub child: usize,
    /// Share of new flows.
    pub weight: Weight,
    /// Cost, for [`Policy::LeastCost`]; finite, at least 0.
    pub cost: f64,
    /// Its id in QUIC connection ids, a number in network order; 0 in a virtual host that reads none.
    pub server_id: u128,
    /// 0 is primary; tier n+1 gets new flows only when no child of tier n can take any.
    pub tier: u8,
}

impl Member {
    /// A child of which nothing else is said.
    pub fn unweighed(child: usize) -> Member {
        /// Room for finer shares below, and for larger ones above.
        const WEIGHT: Weight = Weight::new(100).expect("100 is below Weight::MAX");
        Member { child, weight: WEIGHT, cost: 1.0, server_id: 0, tier: 0 }
    }
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Address of the HTTP endpoint; `None` turns it off.
    pub listen: Option<SocketAddr>,
}

/// The control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Path of the socket; `None` turns it off.
    pub socket: Option<PathBuf>,
}

/// With whom of the hierarchy the router speaks.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// Where children's sessions come.
    pub listen: Option<SocketAddr>,
    /// From one update of a child to the next.
    pub interval: Duration,
    /// Whether nodes below us become children by their hello alone.
    pub takes_anyone: bool,
    /// The routers above that are told how we are.
    pub parents: Vec<Parent>,
    /// By what we show who we are; there where there is somebody to speak with.
    pub credentials: Option<Credentials>,
}

impl Sessions {
    /// Whether they are the same but for the certificates, which may be renewed.
    pub fn same(&self, other: &Sessions) -> bool {
        let of = |of: &Sessions| (of.listen, of.interval, of.takes_anyone, of.parents.clone());
        of(self) == of(other)
    }
}

/// A router above that is told how we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its name, as in its certificate.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// How flows are found again that a worker does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the other workers are asked.
    pub asks_workers: bool,
    /// What becomes of a flow's first packets while it is asked for.
    pub first_packets: FirstPackets,
    /// Which other routers are asked, and answered.
    pub whohas: Option<Whohas>,
    /// Key of the recovery echoes of host servers; `None`: there are none.
    pub echo: Option<[u8; 16]>,
}

/// What becomes of a flow's first packets while it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstPackets {
    /// A few are held.
    Hold,
    /// They go to a child by hash, where the virtual host selects anew for unknown flows.
    Select,
}

/// Which other routers are asked for flows, and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whohas {
    /// Where their datagrams come, and ours come from.
    pub listen: SocketAddr,
    /// Key of the datagrams.
    pub key: [u8; 16],
    /// Who is asked.
    pub peers: Vec<SocketAddr>,
    /// How often a question may be passed on.
    pub hops: u8,
    /// How long answers are waited for.
    pub patience: Duration,
    /// Questions that are asked, and that are answered or passed on, in a second at most.
    pub questions_per_second: u32,
}

/// What this router has together with another one, of which one is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The port on which the access routers are.
    pub access: PortIndex,
    /// Number of the virtual router of VRRP, from 1.
    pub id: u8,
    /// The addresses of whichever router is active, on the access port.
    pub addresses: Vec<IpAddr>,
    /// From 1 to 254; who has the greater one is active.
    pub priority: u8,
    /// From one advertisement to the next; whole hundredths of a second.
    pub heartbeat: Duration,
    /// How long a router of greater priority waits before it takes over; `None`: it does not while the other one is active.
    pub preempt: Option<Duration>,
    /// Whether the addresses have an Ethernet address of their own, which goes with them.
    pub virtual_mac: bool,
    /// The other way to the other router.
    pub peer: Option<Peer>,
    /// How old flows of the active router must be to be told to the other one; `None`: none are.
    pub mirror_after: Option<Duration>,
    /// What a router needs to be active.
    pub requires: Requires,
}

/// A way to the other router of a pair beside the access port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where its datagrams come, and ours come from.
    pub listen: SocketAddr,
    /// Where ours go.
    pub address: SocketAddr,
    /// Key of the datagrams.
    pub key: [u8; 16],
}

/// What a router of a pair needs to be active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requires {
    /// Ports that must be up.
    pub links: Vec<PortIndex>,
    /// Neighbours that must answer.
    pub gateways: Vec<IpAddr>,
    /// Children that must take new flows.
    pub live_children: usize,
    /// What each missing gateway, and too few children, take from the priority; `None`: such a router is not active.
    pub penalty: Option<u8>,
}

/// The subnet of a port that an address lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The port.
    pub port: PortIndex,
    /// The neighbour on that port to send to.
    pub next_hop: IpAddr,
}
