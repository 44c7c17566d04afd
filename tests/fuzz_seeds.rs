//! The bodies of the fuzz targets on stable Rust, over their seeds: hand-made frames, frames of the captures where they
//! are there, and every seed cut short and with single bytes changed.
//!
//! `SLR_FUZZ_CORPUS=folder` also writes the seeds of each target there, to start libFuzzer from:
//! `RUSTC_WORKSPACE_WRAPPER=$PWD/tests/fuzz/instrument cargo build --package slr-fuzz`, then `target/debug/parse folder/parse`.

#[path = "fuzz/bodies/config.rs"]
mod config;
#[path = "fuzz/bodies/parse.rs"]
mod parse;
#[path = "fuzz/bodies/pipeline.rs"]
mod pipeline;
#[path = "fuzz/bodies/wire.rs"]
mod wire;

use crate::common::capture;

/// Frames taken from each capture, spread over it.
const FRAMES_PER_CAPTURE: usize = 100;

/// Frames that start deep: each reaches code that few frames of the captures do.
const HAND_MADE: [(&str, &str); 12] = [
    ("nothing", ""),
    ("ARP request", "ffffffffffff020000000001080600010800060400010200000000 01c00002010000000000 00c0000209"),
    (
        "IPv4, options, TCP",
        "0200000000010200000000020800 4600002c00004000400600009404 0000c0000201c6336407 c00001bb000000010000000050 02ffff00000000",
    ),
    (
        "IPv4, first fragment, UDP",
        "0200000000010200000000020800 4500002400012000401100 00c0000201c6336407 c001003503e80000 0000000000000000",
    ),
    (
        "two tags, IPv6, UDP",
        "02000000000102000000000288a8000181000002 86dd 60000000000811402001 0db8000000000000000000000001 20010db8000000000000000000000002 c001003500080000",
    ),
    (
        "IPv6, three extension headers, TCP",
        "020000000001020000000002 86dd 60000000002c0040 20010db8000000000000000000000001 20010db8000000000000000000000002 3c00010400000000 2c00010400000000 0600000000000007 c00001bb000000010000000050 02ffff00000000",
    ),
    (
        "IPv6, last fragment",
        "020000000001020000000002 86dd 60000000000c2c40 20010db8000000000000000000000001 20010db8000000000000000000000002 110005a800000007 00000000",
    ),
    (
        "IPv6, packet too big",
        "020000000001020000000002 86dd 6000000000083a40 20010db8000000000000000000000001 20010db8000000000000000000000002 0200000000000500",
    ),
    (
        "IPv4, fragmentation needed",
        "020000000001020000000002 0800 4500003800000000400100 00c6336401c6336407 0304000000000400 4500057800000000400600 00c6336407c0000201 01bbc00100000001",
    ),
    (
        "IPv6, first fragment behind its last one",
        "020000000001020000000002 86dd 6000000000102c40 20010db8000000000000000000000001 20010db8000000000000000000000002 1100000100000007 c001003505b00000",
    ),
    (
        "IPv4, fragment that overlaps",
        "020000000001020000000002 0800 4500001c00012000401100 00c0000201c6336407 c001003500100000",
    ),
    (
        "IPv6, UDP, QUIC initial",
        "020000000001020000000002 86dd 6000000000151140 20010db8000000000000000000000001 20010db8000000000000000000000002 c00101bb00150000 c30000000103010203020809 40",
    ),
];

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn frames() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = HAND_MADE.iter().map(|(_, text)| parse::mended(&unhex(text))).collect();
    for capture in ["realmix.pcap", "isp_mix_4096_vlan.pcap", "ipv6_tls.pcap", "frag_v4.pcap", "icmp_errors.pcap"] {
        let Some(frames) = capture::real_frames(capture) else { break };
        let step = frames.len().div_ceil(FRAMES_PER_CAPTURE).max(1);
        seeds.extend(frames.into_iter().step_by(step));
    }
    seeds
}

/// Longer ones are many frames, of which each shall be changed, and not only the headers of the first.
const ONE_FRAME: usize = 4096;

/// Runs `body` over the seeds, over each cut short, and over each with one byte changed.
fn run(target: &str, seeds: &[Vec<u8>], body: fn(&[u8])) {
    if let Some(folder) = std::env::var_os("SLR_FUZZ_CORPUS") {
        let folder = std::path::Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder).expect("the folder of the corpus can be made");
        for (index, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{index:04}")), seed).expect("a seed can be written");
        }
    }
    for seed in seeds {
        body(seed);
        let step = if seed.len() > ONE_FRAME { seed.len() / 128 } else { 1 };
        for at in (0..seed.len()).step_by(step).take(128) {
            body(&seed[..at]);
            let mut changed = seed.clone();
            for bits in [0x01, 0xff] {
                changed[at] = seed[at] ^ bits;
                body(&changed);
            }
        }
    }
}

#[test]
fn hand_made_frames_are_let_in() {
    for (name, text) in &HAND_MADE[1..] {
        let frame = parse::mended(&unhex(text));
        let parsed = slr::packet::parse::parse(&frame, frame.len());
        assert!(parsed.is_ok(), "{name}: {parsed:?}");
    }
}

#[test]
fn the_parser_holds_its_promises_around_every_seed() {
    run("parse", &frames(), parse::run);
}

/// IPv4 in IPv4 for the router of the pipeline's body.
fn tunnelled(frame: &[u8]) -> Vec<u8> {
    let Ok(slr::packet::parse::Frame::Ip(parsed)) = slr::packet::parse::parse(frame, frame.len()) else {
        return frame.to_vec();
    };
    let inner = &frame[usize::from(parsed.l3_offset)..][..parsed.l3_len as usize];
    let protocol = if inner[0] >> 4 == 4 { 4 } else { 41 };
    let [high, low] = (20 + inner.len() as u16).to_be_bytes();
    let outer = [0x45, 1, high, low, 0, 0, 0, 0, 7, protocol, 0, 0, 198, 51, 100, 9, 192, 0, 2, 1];
    parse::mended(&[&[2; 12][..], &[8, 0], &outer, inner].concat())
}

#[test]
fn the_walk_of_a_packet_holds_its_promises_around_every_seed() {
    let frames = frames();
    let alone = frames.iter().flat_map(|frame| [pipeline::framed(frame), pipeline::framed(&tunnelled(frame))]);
    let chunks = frames.chunks(25).step_by(4);
    let together = chunks.map(|chunk| chunk.iter().flat_map(|frame| pipeline::framed(frame)).collect());
    let seeds: Vec<Vec<u8>> = alone.step_by(50).chain(together).collect();
    run("pipeline", &seeds, pipeline::run);
}

#[test]
fn the_configuration_is_taken_or_refused_in_one_line_around_every_sample() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/dpdk-config");
    let files = std::fs::read_dir(folder).expect("the samples").map(|entry| entry.expect("an entry").path());
    let seeds: Vec<Vec<u8>> = files.map(|file| std::fs::read(file).expect("a sample")).collect();
    assert!(seeds.len() >= 3);
    run("config", &seeds, config::run);
}

#[test]
fn messages_of_sessions_are_read_or_refused_around_every_seed() {
    use slr::control::session::child::hello;
    use slr::control::wire::{
        Acknowledgement, Load, Message, Record, Refusal, Sequence, State, Token, Update, WallClock,
    };
    let record = |prefix: &str| Record {
        prefix: prefix.parse().expect("a prefix"),
        service: slr::service::filter::Filter::ANY,
        state: State::Serving,
        load: Load(1),
        capacity: 2,
    };
    let (sequence, sent, wall) = (Sequence(1), Token(2), WallClock(3));
    let mut first = hello("site1".into(), 1);
    first.offers = vec!["192.0.2.0/24".parse().expect("a prefix"), "2001:db8::/32".parse().expect("a prefix")];
    let messages = [
        Message::Hello(first),
        Message::Update(Update { sequence, sent, records: vec![record("192.0.2.0/24"), record("2001:db8::/64")] }),
        Message::Drain(true),
        Message::Goodbye("it stops".into()),
        Message::Acknowledgement(Acknowledgement { sequence, sent, wall, taken: 1, refused: 1 }),
        Message::Refusal(Refusal { reason: None, text: "no".into() }),
        Message::Probe(sent),
    ];
    let mut seeds: Vec<Vec<u8>> = messages.iter().map(Message::to_bytes).collect();
    seeds.push(seeds.concat());
    run("wire", &seeds, wire::run);
}
