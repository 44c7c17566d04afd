//! How a packet is carried to a child: header templates that are put in front of it, and taking them off again.
//!
//! ```text
//!   parent or client                                                    child
//!   [Ethernet][IP packet] ──► [Ethernet to next hop][outer IP and shim][IP packet, untouched] ──►
//!                              └──────────── template ───────────────┘
//! ```
//!
//! - [`template`]: the header towards one child, of every kind.
//! - [`inner`]: what of that differs with the packet.
//! - [`shim`]: what may stand between the two IP packets.
//! - [`decapsulate`]: which packets of a parent's are taken off their header, and which are refused. A parent may use
//!   `ipip`, `gue` and `gre`; what it sends by `mac` is a plain packet by then, and labelled packets are none of ours: they are
//!   dropped for their EtherType.
//! - [`ecn`]: what becomes of congestion marks.

pub mod decapsulate;
pub mod ecn;
pub mod inner;
pub mod shim;
pub mod split;
pub mod template;
