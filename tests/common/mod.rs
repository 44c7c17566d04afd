//! What tests share.

pub mod capture;
pub mod lab;
pub mod router;
pub mod tunnels;
