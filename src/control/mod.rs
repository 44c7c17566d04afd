//! The slow path: turns what is configured and known into the snapshot that the workers forward by.

pub mod compile;
pub mod conditions;
mod frames;
pub mod health;
pub mod hierarchy;
pub mod icmp;
pub mod neighbours;
mod numbers;
pub mod path_mtu;
pub(crate) mod random;
pub use crate::clock::rate_limit;
pub mod session;
pub mod shortcuts;
pub mod site;
pub mod slow_path;
pub mod waiting;
pub mod wire;
