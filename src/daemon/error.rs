//! Why the router does not start.

use std::io;
use std::net::SocketAddr;

use crate::control::compile::TooManyTargets;
use crate::ctl::socket::SocketError;
use crate::dpdk::lcore::LcoreError;
use crate::dpdk::{EalError, PoolError, PortError};
use crate::transport::tls::TlsError;

/// Why the router does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration has no ports.
    #[error("the configuration has no ports; add them under `ports:`, or push a capture through it with slr-replay")]
    NoPorts,
    /// The DPDK environment.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// Packet buffers.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A worker.
    #[error(transparent)]
    Lcore(#[from] LcoreError),
    /// Flow tables.
    #[error(
        "not enough memory for the flow tables; raise dpdk.memory or lower flows.capacity_v4 and flows.capacity_v6"
    )]
    FlowMemory,
    /// Targets.
    #[error(transparent)]
    TooManyTargets(#[from] TooManyTargets),
    /// The metrics endpoint.
    #[error("metrics.listen {address}: {source}; choose another address, or turn it off with `listen: off`")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Sessions with parents and children.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The place where children's sessions come.
    #[error("control.listen {address}: {source}; choose another address, or leave it out")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The place where other routers ask for flows.
    #[error("recovery: whohas: listen {address}: {source}; choose another address, or leave whohas out")]
    Peers {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The place where the other router of the pair is heard.
    #[error("pair: peer: listen {address}: {source}; choose another address of this machine")]
    Pair {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Signals or timers.
    #[error("cannot set up the slow path: {0}")]
    SlowPath(#[from] io::Error),
}
