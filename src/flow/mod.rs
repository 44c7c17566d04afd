//! Which packets belong together, and what is known of them: flow keys, flow state and the per-worker flow table.
//!
//! ```text
//!   packet ─► Key ─► hash ─► group of 31 tags (64 bytes) ─► record: key, state, target, time, counters
//!                       └──► the one other group where it may be
//! ```
//!
//! A table belongs to one worker, has a fixed size, and never waits: see [`table`].

mod group;
pub mod key;
pub mod limit;
pub mod memory;
pub mod record;
pub mod state;
pub mod table;
