//! DPDK's environment for a bench: its memory, and one worker on the last processor.

use anyhow::Result;
use slr::dpdk::{Eal, EalOptions, Hugepages, Pages};

/// Starts it, and says of what pages its memory is.
pub fn start(memory_mib: u32) -> Result<()> {
    let eal = Eal::init(&EalOptions {
        hugepages: Hugepages::Auto,
        memory_mib,
        file_prefix: format!("slr-bench-{}", std::process::id()),
        lcores: vec![std::thread::available_parallelism()?.get() as u16 - 1],
        devices: Vec::new(),
        verbose: false,
    })?;
    match eal.pages() {
        Pages::Huge => println!("{memory_mib} MiB of hugepages"),
        Pages::Ordinary { why } => println!("ordinary pages, so expect more time: {why}"),
    }
    Ok(())
}
