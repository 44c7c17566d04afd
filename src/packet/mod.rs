//! Bytes and their meaning: header views, one-pass parsing and checksums, without any I/O.
//!
//! A header view is a `#[repr(C)]` struct laid over the bytes themselves; its wide fields are in network order and read
//! with `get()`. Nothing here trusts a length that a packet states about itself.

pub mod arp;
pub mod buffer;
pub mod checksum;
mod error;
pub mod ethernet;
pub mod fragment;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod parse;
pub mod plain;
pub mod protocol;
pub mod quic;
pub mod quote;
pub mod tcp;
pub mod udp;
