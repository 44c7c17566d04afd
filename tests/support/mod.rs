//! What several integration tests share: the real captures, where there are any.

use std::fs::File;
use std::path::PathBuf;

use pcap_file::pcap::PcapReader;

/// The frames of one capture in `$SLR_CAPTURES` or `../shared/captures`; says so and gives `None` when it is not there.
pub fn frames(capture: &str) -> Option<Vec<Vec<u8>>> {
    let folder = std::env::var_os("SLR_CAPTURES")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/captures"), PathBuf::from);
    let path = folder.join(capture);
    if !path.exists() {
        println!("skipped: no captures");
        return None;
    }
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut reader = PcapReader::new(file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet.unwrap_or_else(|error| panic!("{}: {error}", path.display())).data.into_owned());
    }
    Some(frames)
}
