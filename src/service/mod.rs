//! Which virtual host a packet is for, and which child gets a new flow.

pub mod filter;
pub mod lookup;
pub mod maglev;
mod ranges;
pub mod selection;
