//! The fast path: what happens to a packet between the queue it came from and the queue it leaves by.
//!
//! ```text
//! PacketIo::rx_burst ─► pipeline ─► PacketIo::tx_burst ◄── inject ring
//!                          │  ▲                                 worker: the loop around them
//!             punt ring ◄──┘  └── ForwardTables                 shared with the slow path: the rings and the snapshot
//! ```
//!
//! A worker owns its queues, its flow tables and its counters. On a packet it takes no lock, makes no system call,
//! allocates nothing and logs nothing. After every burst
//!
//! ```text
//! received = forwarded + punted + dropped, by reason, + held
//! ```

mod admit;
pub mod bpf;
pub mod capture;
pub mod counters;
mod fragments;
mod headers;
mod icmp_errors;
pub mod inspect;
pub mod io;
pub mod memory_io;
pub mod orders;
mod pieces;
pub mod pipeline;
pub mod punt;
mod rare;
pub mod routes;
mod routing;
pub mod stations;
mod strays;
pub mod tables;
mod too_long;
pub mod verdict;
mod visit;
mod watched;
mod work;
pub mod worker;
