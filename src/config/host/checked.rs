//! What the agent may rely on once its configuration is let in.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::Expression;
use crate::config::{Control, Health, Metrics, Parent};
use crate::service::filter::Filter;
use crate::trust::Credentials;
use crate::units::{MacAddr, labelled};

/// Where agents have their control sockets and journals when nothing else is said, each under its own name.
pub const DIRECTORY: &str = "/run/slr-host";

/// One host agent's configuration, checked: names are unique, ranges hold, tunnels can end.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Name of the host in messages and metrics.
    pub name: String,
    /// Where routers' tunnels end; never empty.
    pub tunnel_addresses: Vec<IpAddr>,
    /// Interfaces that tunnels come in by; never empty.
    pub interfaces: Vec<String>,
    /// Outer sources whose tunnel packets are taken; never empty.
    pub routers: Vec<IpNet>,
    /// Machines on the link whose labels are taken; empty: all are, as a label has no source address.
    pub router_macs: Vec<MacAddr>,
    /// The routers that are told how each virtual host is.
    pub parents: Vec<Parent>,
    /// By what the agent shows them who it is; there where there are some.
    pub credentials: Option<Credentials>,
    /// How tunnels are taken off.
    pub method: Method,
    /// Which are.
    pub tunnels: Tunnels,
    /// Whether the MSS that services announce is lowered where a tunnel's header would not fit.
    pub mss_clamp: bool,
    /// What is served here; never empty.
    pub virtual_hosts: Vec<HostedService>,
    /// From one sample of the load to the next.
    pub interval: Duration,
    /// How much this machine can do, in the unit of weights.
    pub capacity: u32,
    /// Directory of the control group (version 2) whose processors and pressure are measured; `None`: the machine's.
    pub cgroup: Option<PathBuf>,
    /// How long a stop waits for connections to end.
    pub drain: Duration,
    /// Where metrics are served.
    pub metrics: Metrics,
    /// Where the agent is asked.
    pub control: Control,
    /// Key of recovery echoes; `None`: there are none.
    pub echo: Option<[u8; 16]>,
    /// Directory of what the next start must know after a crash.
    pub state: PathBuf,
}

labelled! {
    /// How tunnels are taken off.
    Method {
        /// The best that works.
        Auto => "auto",
        /// An eBPF program behind the driver, at the interface's ingress (tc).
        Tc => "tc",
        /// An eBPF program in the driver, or in front of the network stack where the driver has no place for it.
        Xdp => "xdp",
        /// A process that reads tunnel packets from raw sockets and writes their contents into a TUN device.
        Tun => "tun",
    }
}

/// Which tunnels are taken off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnels {
    /// IP in IP, in the four combinations of families.
    pub ipip: bool,
    /// GUE of both variants, at this UDP port.
    pub gue: Option<u16>,
    /// GRE without checksum and key.
    pub gre: bool,
    /// One MPLS label, this one.
    pub mpls: Option<u32>,
    /// None at all, by another MAC address.
    pub mac: bool,
}

/// A virtual host that is served here.
#[derive(Clone, Debug)]
pub struct HostedService {
    /// Unique name.
    pub name: String,
    /// Addresses and whole subnets; never empty.
    pub addresses: Vec<IpNet>,
    /// Protocols and ports whose sockets count; never empty.
    pub services: Vec<Filter>,
    /// How the service is checked; `None`: it counts as up.
    pub health: Option<Health>,
    /// Where the service's own number comes from.
    pub application: Option<Application>,
    /// What makes the reported load of the samples; `None`: the default.
    pub load: Option<Expression>,
}

/// Where a number about a service comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Application {
    /// The body of an answer to a GET.
    Http {
        /// Who is asked.
        server: SocketAddr,
        /// Path and query; starts with a slash.
        path: String,
    },
    /// The first word of a file.
    File(PathBuf),
    /// The first word that a program prints.
    Command(Vec<String>),
}
