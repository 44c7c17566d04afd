//! libFuzzer over the walk of a packet.

#![no_main]

#[path = "../bodies/pipeline.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
