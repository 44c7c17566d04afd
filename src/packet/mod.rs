//! Bytes and their meaning: header views, one-pass parsing and checksums, without any I/O.

pub mod buffer;
