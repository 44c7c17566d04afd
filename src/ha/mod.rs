//! Which of two routers is active, and so answers for the addresses that belong to the pair.
//!
//! ```text
//!              own links and              nothing from an active one for the down interval; a release;
//!  ┌─────────┐ neighbours known ┌───────┐ pre-emption of a lesser one                      ┌──────┐
//!  │ Initial ├─────────────────►│Standby├─────────────────────────────────────────────────►│Active│
//!  └─────────┘                  └─┬───▲─┘◄──────────────────────────────────────────────┬──┴──┬───┘
//!                       forbidden │   │ allowed      a greater one is heard; stand-by ──┘     │ forbidden
//!                               ┌─▼───┴─────┐                                                │
//!                               │Inoperative│◄───────────────────────────────────────────────┘
//!                               └───────────┘
//! ```
//!
//! The rules are those of VRRP version 3 (RFC 9568 section 6.4), heard by two ways: advertisements on the access port, and
//! sealed datagrams of the other router of the pair by another network. Either is enough to know that there is an active
//! one. In addition, what is in order here counts: without its links a router is not active, and for other shortcomings
//! its priority is lower. A router that comes back waits until it has the flows of the other one, and for a while, before
//! it takes over from it; when the other one is gone it waits for neither.
//!
//! - [`election`]: the machine.
//! - [`vrrp`]: advertisements as bytes.
//! - [`link`]: sealed datagrams between the two, none of which can be used twice.
//! - [`heartbeat`]: what one says in them about itself.

pub mod counters;
pub mod election;
pub mod heartbeat;
pub mod link;
pub mod vrrp;
