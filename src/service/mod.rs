//! Which virtual host a packet is for, and which child gets a new flow.
//!
//! ```text
//! destination, protocol, port ──lookup──► virtual host ──selection──► child
//!                                 │                         │
//!                              filter, pattern, ranges    maglev ◄── cluster hash of the flow key
//! ```
//!
//! - [`filter`]: what protocols and ports a virtual host asks for.
//! - [`lookup`]: which virtual host is the most specific for a packet.
//! - `pattern`: which of the virtual hosts on one prefix has a protocol and port.
//! - `preferences`: in which order members come to slots, remembered.
//! - `ranges`: which of many ranges a key lies in.
//! - [`maglev`]: which member a hash belongs to, alike on all routers of a cluster.
//! - [`quic`]: which member a QUIC connection id names, before any of that.
//! - [`mss`]: what size of segments a virtual host's clients ask for.
//! - [`regions`]: where a client is, for virtual hosts with costs by region.
//! - [`selection`]: which members take part (tiers, costs), and who of them gets a new flow.
//! - [`selections`]: those of all virtual hosts, from one snapshot to the next.
//! - [`unknown`]: what becomes of packets in the middle of connections that nobody knows.
//!
//! Everything is built by the slow path and then only read: workers look up without allocation, locks or clocks.

pub mod filter;
pub mod lookup;
pub mod maglev;
pub mod mss;
mod pattern;
mod preferences;
pub mod quic;
mod ranges;
pub mod regions;
pub mod selection;
pub mod selections;
pub mod unknown;
