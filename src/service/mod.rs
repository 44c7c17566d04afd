//! Which virtual host a packet is for, and which child gets a new flow.

pub mod filter;
pub mod selection;
