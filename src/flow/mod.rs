//! Which packets belong together, and what is known of them: flow keys, flow state and the per-worker flow table.
//!
//! ```text
//!   packet ─► Key ─► hash ─► bucket of 8 tags (16 bytes) ─► entry: key, state, target, times, counters
//!                       └──► the one other bucket where it may be
//! ```
//!
//! A table belongs to one worker, has a fixed size, and never waits: see [`table`].

pub mod key;
pub mod memory;
pub mod state;
pub mod table;
