//! The hierarchy's own machines on a clock and a network made of numbers: what would become of a topology, and whether
//! what must always hold does hold when messages are lost, late, doubled and out of order.
//!
//! ```text
//! topology ──► World: routers (Hierarchy, Compiler), servers (ChildEnd), flows ──every 10 ms──► invariants
//!                 └── Network: delay, loss, duplicates, partitions, from one seed ──► samples: table, CSV, JSON, SVG
//! ```
//!
//! The same seed gives the same run, to the bit.

mod bypass;
mod calendar;
pub mod network;
mod plot;
pub mod report;
pub mod topology;
pub mod world;

pub use report::Study;
pub use topology::Topology;
pub use world::World;
