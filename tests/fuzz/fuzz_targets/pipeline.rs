//! libFuzzer over the walk of a packet.

#![no_main]

#[allow(dead_code, reason = "tests use the rest")]
#[path = "../../common"]
mod common {
    pub mod router;
}

#[path = "../bodies/pipeline.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
