//! How a packet is carried to a child: header templates that are put in front of it, and taking them off again.
//!
//! ```text
//!   parent or client                                                    child
//!   [Ethernet][IP packet] ──► [Ethernet to next hop][outer IP][IP packet, untouched] ──►
//!                              └──────── template ──────────┘
//! ```

pub mod decapsulate;
pub mod ecn;
pub mod template;
