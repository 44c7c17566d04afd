//! slr, a service-level router: it knows which services exist at the edges of a network and carries each client's
//! packets to the host server that serves it best.
//!
//! ```text
//!            daemon  replay   agent              composers: wire rooms together; the agent is a host server's
//!              │       │
//!      ├───── ctl ───┐ │   transport             asked and steered while it runs; sessions over TLS
//!   control  metrics   │                         slow path: compile, publish, count
//!      ├── recovery     │                         whose a flow is that is not known here
//!      ├── ha           │                         which of two routers is active
//!      │       │       │
//!      └────► forward ◄┘ ◄── dpdk                fast path: burst in, burst out (dpdk arrives as `PacketIo`)
//!      │       │
//!   config     ├──► flow  service  tunnel        tables and headers
//!   trust cost │                                 who a node is, by its certificate; what a child costs
//!              └──► packet                       bytes <-> meaning, no I/O
//!                     └──► units  clock
//! ```
//!
//! Arrows point down only; `tests/tidy.rs` holds them. `dpdk` is the one room that may contain `unsafe`.

pub mod agent;
pub mod clock;
pub mod commands;
pub mod config;
pub mod control;
pub mod cost;
pub mod ctl;
#[cfg(feature = "dpdk")]
pub mod daemon;
#[cfg(feature = "dpdk")]
#[allow(unsafe_code)]
pub mod dpdk;
pub mod flow;
pub mod forward;
pub mod ha;
pub mod metrics;
pub mod netlink;
pub mod packet;
pub mod recovery;
#[cfg(feature = "dpdk")]
pub mod replay;
pub mod service;
pub mod sim;
pub mod transport;
pub mod trust;
pub mod tunnel;
pub mod units;
