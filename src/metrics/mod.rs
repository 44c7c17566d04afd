//! What the router tells the outside about itself: Prometheus metrics, and the server that hands them out.

pub mod collector;
mod pair;
pub mod report;
pub mod server;
pub mod sessions;
mod site;
