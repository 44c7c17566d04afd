//! The forwarding snapshot: everything a worker needs to know about the world, immutable once it is published.
//!
//! ```text
//! destination, protocol, port ─► VirtualHosts ─► VirtualHost ─► Selection ─► member ─► Target ─► Path ─► Template, port
//!                                flow entry ────────────────────────────────────────────►┘
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::capture::Capture;
use super::routes::{ByPrefix, Routes};
use super::stations::Stations;
use crate::flow::state::Timeouts;
use crate::service::lookup::VirtualHosts;
use crate::service::maglev::ClusterHash;
use crate::service::mss::MssClamp;
use crate::service::quic::ServerIds;
use crate::service::regions::Regions;
use crate::service::selection::{Granularity, Selector};
use crate::service::selections::{Selection, Selections};
use crate::service::unknown::OnUnknown;
use crate::tunnel::template::Template;
use crate::units::{PathId, PortIndex, TargetId, VirtualHostId};

/// A snapshot. Compiled by the slow path, read by the workers. What is large is shared with the snapshots before and after
/// that have the same.
#[derive(Clone, Debug)]
pub struct ForwardTables {
    /// Our own addresses.
    pub own: OwnAddresses,
    /// Outer sources whose tunnels we take off.
    pub parents: Parents,
    /// UDP port of parents' GUE tunnels to us.
    pub gue_port: u16,
    /// Where our own tunnels come from, beside [`own`](ForwardTables::own).
    pub tunnel_sources: Vec<IpNet>,
    /// Which virtual host a packet is for.
    pub index: Arc<VirtualHosts>,
    /// The virtual hosts, by the position that `index` finds: all snapshots of a configuration have the same.
    pub virtual_hosts: Arc<[VirtualHost]>,
    /// Who gets their new flows.
    pub selections: Selections,
    /// The targets, by [`TargetId`].
    pub targets: Arc<[Target]>,
    /// The paths, by [`PathId`].
    pub paths: Arc<[Path]>,
    /// Where packets go that are for no service; `None`: they are dropped.
    pub routes: Option<Arc<Routes>>,
    /// For which addresses of virtual hosts we answer echo requests in the place of their children.
    pub echo: Arc<ByPrefix<bool>>,
    /// Where clients are.
    pub regions: Arc<Regions>,
    /// The hash by which all routers of the cluster choose children.
    pub cluster: ClusterHash,
    /// How long flows are kept.
    pub timeouts: Timeouts,
    /// Flow entries that a worker makes in a second at most.
    pub inserts_per_second: u32,
    /// Whether there is somebody to ask about flows that a worker does not know.
    pub asks_elsewhere: bool,
    /// Whether servers remind us of flows by recovery echoes.
    pub takes_recovery_echoes: bool,
    /// Whether new flows out of tunnels are told to the slow path, because the parents are to hear of them.
    pub tells_new_flows: bool,
    /// Targets that are no child's: where flows go that are sent past one.
    pub shortcuts: Arc<[Shortcut]>,
    /// The capture under way.
    pub capture: Option<Arc<Capture>>,
    /// Whose frames are taken on a port that gets others' too.
    pub stations: Option<Arc<Stations>>,
}

impl ForwardTables {
    /// Who gets the new flows of one of its virtual hosts.
    #[inline]
    pub fn selection(&self, host: &VirtualHost) -> &Selection {
        self.selections.of(host.position)
    }

    /// By whom a new flow of one of its virtual hosts is given to a child; `client` is asked for only where it counts.
    #[inline]
    pub fn selector(&self, host: &VirtualHost, client: impl FnOnce() -> IpAddr) -> &Selector {
        let selection = self.selection(host);
        if selection.by_region.is_none() { &selection.selector } else { self.regional(selection, client()) }
    }

    #[cold]
    fn regional<'a>(&self, selection: &'a Selection, client: IpAddr) -> &'a Selector {
        selection.selector(self.regions.find(client))
    }
}

/// Our own addresses, few enough to compare with each.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses {
    v4: Vec<[u8; 4]>,
    v6: Vec<[u8; 16]>,
    /// A bit for the last byte of each, modulo 64: most other addresses differ there already.
    last_bytes: u64,
}

impl OwnAddresses {
    /// False only for addresses that are not ours, and for most of those.
    #[inline(always)]
    pub fn may_contain(&self, address: &[u8]) -> bool {
        address.last().is_some_and(|last| self.last_bytes >> (last % 64) & 1 != 0)
    }

    /// True when the IPv4 address, in network order, is ours.
    #[inline(always)]
    pub fn contains_v4(&self, address: &[u8; 4]) -> bool {
        self.may_contain(address) && self.v4.contains(address)
    }

    /// True when the IPv6 address, in network order, is ours.
    #[inline(always)]
    pub fn contains_v6(&self, address: &[u8; 16]) -> bool {
        self.may_contain(address) && self.v6.contains(address)
    }
}

impl FromIterator<IpAddr> for OwnAddresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> OwnAddresses {
        let mut own = OwnAddresses::default();
        for address in addresses {
            match address {
                IpAddr::V4(address) => own.v4.push(address.octets()),
                IpAddr::V6(address) => own.v6.push(address.octets()),
            }
        }
        let last_bytes = own.v4.iter().map(|address| address[3]).chain(own.v6.iter().map(|address| address[15]));
        own.last_bytes = last_bytes.fold(0, |bits, last| bits | 1 << (last % 64));
        own.v4.sort_unstable();
        own.v4.dedup();
        own.v6.sort_unstable();
        own.v6.dedup();
        own
    }
}

/// Prefixes of outer sources, each as its network and its mask: few enough to compare with each.
#[derive(Clone, Debug, Default)]
pub struct Parents {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Parents {
    /// True when the address is in one of the prefixes.
    #[inline]
    pub fn contain(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.iter().any(|(network, mask)| address.to_bits() & mask == *network),
            IpAddr::V6(address) => self.v6.iter().any(|(network, mask)| address.to_bits() & mask == *network),
        }
    }
}

impl FromIterator<IpNet> for Parents {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Parents {
        let mut parents = Parents::default();
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => parents.v4.push((net.network().to_bits(), net.netmask().to_bits())),
                IpNet::V6(net) => parents.v6.push((net.network().to_bits(), net.netmask().to_bits())),
            }
        }
        parents
    }
}

/// A service.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    /// Its name in messages, reports and metrics.
    pub name: Arc<str>,
    /// Its position among the virtual hosts of its configuration.
    pub position: VirtualHostId,
    /// Its number in flow keys that are coarser than a 5-tuple; the same in every snapshot.
    pub number: VirtualHostId,
    /// What a flow is.
    pub granularity: Granularity,
    /// Which of `members` a QUIC connection id names, where its servers put their ids into them.
    pub quic: Option<Arc<ServerIds>>,
    /// What becomes of packets in the middle of TCP connections that are not known; `None`: they get a child like any other.
    pub on_unknown: Option<OnUnknown>,
    /// How large the segments are that clients ask for.
    pub mss_clamp: MssClamp,
    /// Its children.
    pub members: Vec<Member>,
}

/// A child in a virtual host's service.
#[derive(Clone, Debug)]
pub struct Member {
    /// The child's name.
    pub child: Arc<str>,
    /// Where the child's tunnels end.
    pub address: IpAddr,
    /// What its flows point at.
    pub target: TargetId,
}

/// Where flows of a virtual host may go past the child that they were given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortcut {
    /// Position of the virtual host.
    pub host: VirtualHostId,
    /// Position of the child among its members.
    pub member: usize,
    /// Where the tunnel ends.
    pub address: IpAddr,
    /// What its flows point at.
    pub target: TargetId,
    /// Whether they do go there: else they go to the child.
    pub in_force: bool,
}

/// A virtual host on a child, as small as it can be: one is read for every packet.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// How packets get there; [`NO_PATH`] while the next hop's link-layer address is unknown.
    path: PathId,
    /// The same, where packets of its known flows simply go there, else [`NO_PATH`].
    straight: PathId,
    /// Position of its virtual host.
    pub host: VirtualHostId,
    /// Its flows go to another at their next packet.
    pub moves: bool,
    /// Its virtual host reads QUIC.
    pub reads_quic: bool,
    /// Its virtual host lowers the MSS of SYNs.
    pub clamps_mss: bool,
}

/// No path has this number.
pub(super) const NO_PATH: PathId = PathId(u32::MAX);

impl Target {
    /// The target of a virtual host's packets that take `path`, where one is known.
    pub fn new(host: VirtualHostId, path: Option<PathId>) -> Target {
        let path = path.unwrap_or(NO_PATH);
        Target { path, straight: path, host, moves: false, reads_quic: false, clamps_mss: false }
    }

    /// The same by another path.
    pub fn by(self, path: PathId) -> Target {
        Target { path, ..self }.straightened()
    }

    /// The same, whose flows go to another at their next packet or do not.
    pub fn moving(self, moves: bool) -> Target {
        Target { moves, ..self }.straightened()
    }

    /// The same of a virtual host that reads QUIC or does not.
    pub fn reading_quic(self, reads_quic: bool) -> Target {
        Target { reads_quic, ..self }.straightened()
    }

    /// The same of a virtual host that lowers the MSS of SYNs or does not.
    pub fn clamping_mss(self, clamps_mss: bool) -> Target {
        Target { clamps_mss, ..self }
    }

    fn straightened(self) -> Target {
        Target { straight: if self.moves | self.reads_quic { NO_PATH } else { self.path }, ..self }
    }

    /// How packets get there; `None` while the next hop's link-layer address is unknown.
    pub fn path(&self) -> Option<PathId> {
        (self.path != NO_PATH).then_some(self.path)
    }

    /// The same, or [`NO_PATH`].
    #[inline(always)]
    pub(super) fn path_number(&self) -> PathId {
        self.path
    }

    /// The same; [`NO_PATH`], too, where packets of its known flows do not simply go there.
    #[inline(always)]
    pub(super) fn straight(&self) -> PathId {
        self.straight
    }
}

/// The way to a child. It begins a cache line, and so does its header.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Path {
    /// Port to send by.
    pub port: PortIndex,
    /// Header to put in front.
    pub template: Template,
}

/// Where the current snapshot is published.
pub type Published = Arc<ArcSwap<ForwardTables>>;
