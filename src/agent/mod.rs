//! The host agent: a server's end of the tunnels, of health and of load.
//!
//! ```text
//!   routers ══ tunnels ══► interface ─ ebpf ─► network stack ─► services on virtual hosts' addresses
//!                              └ fragments ─► tun ─┘                    │
//!   changes: addresses, settings, routes; undone at the end             │ straight to the client
//!   checks:  each service, in packets through the TUN device            ▼
//!   load:    samples ──► Report ──► parents: sessions with the routers above; metrics, slrctl --agent
//! ```
//!
//! - [`changes`]: what is changed in the system, and how it is undone, after a crash by the next start.
//! - [`decapsulate`]: which way of taking tunnels off is used, and why; [`ebpf`] and [`tun`] are the ways.
//! - [`mtu`]: what must be announced so that packets fit into tunnels.
//! - [`load`]: how loaded each virtual host is; [`checks`]: whether it works at all.
//! - [`echo`]: whom a client's echo reply is to remind of a connection without word of its client.
//! - [`report`]: what comes of that, for whoever passes it on; [`parents`]: the routers above are told.
//! - [`sampling`]: when the load is sampled and applications are asked.
//! - [`reload`]: what another configuration may change while the agent runs.
//! - [`service`]: all of it together, from start to end.

pub mod changes;
pub mod checks;
pub mod decapsulate;
pub mod ebpf;
pub mod echo;
pub mod load;
pub mod metrics;
pub mod mtu;
pub mod outcome;
pub mod parents;
pub mod prefixes;
pub mod reload;
pub mod report;
pub mod sampling;
pub mod service;
pub mod status;
pub mod tun;
