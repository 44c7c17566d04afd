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
//! received = forwarded + punted + dropped, by reason
//! ```

pub mod counters;
pub mod io;
pub mod memory_io;
pub mod pipeline;
pub mod punt;
pub mod routes;
pub mod tables;
pub mod verdict;
pub mod worker;
