//! What tests share.

pub mod capture;
pub mod lab;
pub mod mmdb;
pub mod router;
pub mod tunnels;
