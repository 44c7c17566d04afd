//! The fast path alone: the same files as in the router, without what makes it a program.
#[path = "../../../src/clock/mod.rs"]
pub mod clock;
#[path = "../../../src/flow/mod.rs"]
pub mod flow;
#[path = "../../../src/forward/mod.rs"]
pub mod forward;
#[path = "../../../src/packet/mod.rs"]
pub mod packet;
#[path = "../../../src/service/mod.rs"]
pub mod service;
#[path = "../../../src/tunnel/mod.rs"]
pub mod tunnel;
#[path = "../../../src/units.rs"]
pub mod units;
