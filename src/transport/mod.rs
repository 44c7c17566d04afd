//! How sessions of the hierarchy are carried: TLS 1.3 over the kernel's sockets, on the management network.
//!
//! Needs no DPDK, so that routers and host servers use the same.

pub mod site;
pub mod tls;
