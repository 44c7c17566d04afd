//! `slr-replay` as a user runs it: captures in, tunnelled packets out, through real DPDK devices.

#![cfg(feature = "dpdk")]

#[path = "replay/kinds.rs"]
mod kinds;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::common::capture::{self, Flow, by_flow, decapsulate, frames, owner, real_capture};
use serde_json::Value;

const MANIFEST: &str = env!("CARGO_MANIFEST_DIR");

fn replay(config: &str, input: &Path, output: &Path, more: &[&str]) -> Output {
    let mut replay = Command::new(env!("CARGO_BIN_EXE_slr-replay"));
    replay.current_dir(MANIFEST).args(["--config", config, "--input"]).arg(input).arg("--output").arg(output);
    replay.args(more).output().expect("slr-replay")
}

/// A replay that worked: what was sent, and the report.
struct Run {
    sent: Vec<Vec<u8>>,
    report: Value,
    table: String,
    output: PathBuf,
    _directory: tempfile::TempDir,
}

fn run(input: &Path, more: &[&str]) -> Run {
    run_by("dpdk-config/replay.yaml", input, more)
}

fn run_by(config: &str, input: &Path, more: &[&str]) -> Run {
    let directory = tempfile::tempdir().expect("a directory");
    let (output, report) = (directory.path().join("out.pcap"), directory.path().join("report.json"));
    let report_argument = report.display().to_string();
    let finished = replay(config, input, &output, &[&["--report", &report_argument], more].concat());
    assert!(finished.status.success(), "{}", String::from_utf8_lossy(&finished.stderr));
    let report = serde_json::from_slice(&fs::read(&report).expect("a report")).expect("JSON");
    let table = String::from_utf8(finished.stdout).expect("UTF-8");
    Run { sent: frames(&output), report, table, output, _directory: directory }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

fn dropped(packets: &Value) -> u64 {
    packets["dropped"].as_object().expect("reasons").values().map(number).sum()
}

impl Run {
    /// Received packets have all ended in one way, for each worker and in all, and the sums agree.
    fn assert_conserved(&self, records: usize) {
        let all = &self.report["packets"];
        let workers = self.report["workers"].as_array().expect("workers");
        for packets in workers.iter().map(|worker| &worker["packets"]).chain([all]) {
            let ended = number(&packets["forwarded"]) + number(&packets["punted"]) + dropped(packets);
            assert_eq!(number(&packets["rx"]), ended, "{packets}");
        }
        assert_eq!(workers.iter().map(|worker| number(&worker["packets"]["rx"])).sum::<u64>(), records as u64);
        assert_eq!(number(&all["rx"]), records as u64);
        assert_eq!(number(&all["forwarded"]), self.sent.len() as u64);
        let hosts = self.report["virtual_hosts"].as_array().expect("virtual hosts");
        assert_eq!(hosts.iter().map(|host| number(&host["packets"])).sum::<u64>(), self.sent.len() as u64);
        for host in hosts {
            let children = host["children"].as_array().expect("children");
            for count in ["packets", "bytes", "flows"] {
                assert_eq!(number(&host[count]), children.iter().map(|child| number(&child[count])).sum::<u64>());
            }
        }
        let flows = &self.report["flows"];
        assert_eq!(number(&flows["inserted"]), number(&flows["active"]) + number(&flows["expired"]));
        assert!(self.report["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
        assert!(self.report["ns_per_packet"].as_f64().is_some_and(|ns| ns > 0.0));
    }

    /// What was sent is what came in, unchanged and per flow in order; returns the child of each flow.
    fn assert_faithful(&self, input: &[Vec<u8>]) -> HashMap<Flow, IpAddr> {
        let came = by_flow(input);
        let mut children: HashMap<Flow, IpAddr> = HashMap::new();
        let mut went: HashMap<Flow, Vec<Vec<u8>>> = HashMap::new();
        for frame in &self.sent {
            let (child, flow, packet) = decapsulate(frame);
            // Errors about a flow go where the flow goes.
            let owner = owner(&packet).unwrap_or_else(|| panic!("a packet of no flow: {packet:02x?}"));
            let known = *children.entry(owner).or_insert(child);
            assert_eq!(known, child, "flow {owner:?} has two children");
            went.entry(flow).or_default().push(packet);
        }
        for (flow, packets) in went {
            let came = came.get(&flow).unwrap_or_else(|| panic!("nobody sent {flow:?}"));
            let mut left = came.iter();
            for packet in &packets {
                assert!(left.any(|other| other == packet), "{flow:?}: a packet was changed or overtaken");
            }
            if flow.3.is_some() {
                assert_eq!(packets.len(), came.len(), "{flow:?}: packets are missing");
            }
        }
        children
    }

    /// tshark finds nothing wrong with any outer header.
    fn assert_valid_for_tshark(&self) {
        let fields = ["ip.checksum.status", "ip.version", "ipv6.version", "frame.len", "ip.len", "ipv6.plen"];
        let mut tshark = Command::new("tshark");
        tshark
            .args(["-n", "-o", "ip.check_checksum:TRUE", "-T", "fields", "-E", "occurrence=f", "-r"])
            .arg(&self.output);
        tshark.args(fields.iter().flat_map(|field| ["-e", field]));
        let output = tshark.output().expect("tshark is installed (scripts/test does it)");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(text.lines().count(), self.sent.len(), "{}", String::from_utf8_lossy(&output.stderr));
        for (line, frame) in text.lines().zip(&self.sent) {
            let row: Vec<&str> = line.split('\t').collect();
            let frame_len: usize = row[3].parse().expect("a length");
            if frame[12..14] == [8, 0] {
                assert_eq!(row[0], "1", "outer checksum: {line}");
                assert_eq!(frame_len, 14 + row[4].parse::<usize>().expect("a length"), "{line}");
            } else {
                assert_eq!(frame_len, 54 + row[5].parse::<usize>().expect("a length"), "{line}");
            }
        }
    }
}

fn demo() -> PathBuf {
    Path::new(MANIFEST).join("tests/captures/demo.pcap")
}

#[test]
fn the_demo_capture_goes_through_faithfully() {
    let input = frames(&demo());
    let run = run(&demo(), &[]);
    run.assert_conserved(input.len());
    run.assert_valid_for_tshark();
    let children = run.assert_faithful(&input);
    assert!(children.len() > 20, "{} flows", children.len());
    assert!(number(&run.report["packets"]["punted"]) > 0, "ARP and neighbour discovery are punted");
    for word in ["tcp", "virtual host", "punted to the slow path", "ns a packet in the worker"] {
        assert!(run.table.contains(word), "{word} is not in the table:\n{}", run.table);
    }
}

#[test]
fn the_same_children_with_any_number_of_workers_and_on_every_run() {
    let input = frames(&demo());
    let mut first: Option<HashMap<Flow, IpAddr>> = None;
    for workers in ["1", "2", "4", "4"] {
        let run = run(&demo(), &["--workers", workers]);
        run.assert_conserved(input.len());
        let busy = run.report["workers"].as_array().expect("workers").iter();
        assert!(busy.clone().all(|worker| number(&worker["packets"]["rx"]) > 0), "a worker got nothing");
        assert_eq!(busy.count().to_string(), workers);
        let children = run.assert_faithful(&input);
        assert_eq!(*first.get_or_insert(children.clone()), children, "{workers} workers");
    }
}

#[test]
fn real_captures_go_through_faithfully() {
    for (name, bad_checksums) in [("realmix.pcap", 2_570), ("isp_mix_4096_vlan.pcap", 0), ("ipv6_tls.pcap", 1_470)] {
        let Some(path) = real_capture(name) else { return };
        let input = frames(&path);
        let mut first: Option<HashMap<Flow, IpAddr>> = None;
        for workers in ["1", "2", "4"] {
            let run = run(&path, &["--workers", workers]);
            run.assert_conserved(input.len());
            let dropped = &run.report["packets"]["dropped"]["ipv4_checksum"];
            assert_eq!(dropped.as_u64().unwrap_or(0), bad_checksums, "{name}");
            let children = run.assert_faithful(&input);
            assert!(children.values().collect::<HashSet<_>>().len() > 5, "{name}: few children");
            assert_eq!(*first.get_or_insert(children.clone()), children, "{name} with {workers} workers");
            if workers == "1" {
                run.assert_valid_for_tshark();
            }
        }
    }
}

#[test]
fn fragments_of_real_captures_stay_with_their_first_one() {
    let Some(path) = real_capture("frag_v4.pcap") else { return };
    let input = frames(&path);
    let run = run(&path, &["--workers", "2"]);
    run.assert_conserved(input.len());
    run.assert_faithful(&input);
    let fragments = run.sent.iter().filter(|frame| decapsulate(frame).1.3.is_none()).count();
    assert!(fragments > 1_000, "{fragments} fragments were forwarded");
}

#[test]
fn several_passes_repeat_the_first() {
    let input = frames(&demo());
    let once = run(&demo(), &[]);
    let thrice = run(&demo(), &["--loops", "3", "--workers", "2"]);
    thrice.assert_conserved(3 * input.len());
    assert_eq!(thrice.sent.len(), 3 * once.sent.len());
    let mut counts: HashMap<Vec<u8>, i64> = HashMap::new();
    thrice.sent.iter().for_each(|frame| *counts.entry(decapsulate(frame).2).or_default() += 1);
    once.sent.iter().for_each(|frame| *counts.entry(decapsulate(frame).2).or_default() -= 3);
    assert!(counts.values().all(|count| *count == 0));
}

/// A UDP packet from one of many clients.
fn udp(client: u8, port: u16, payload: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [3; 6])
        .ipv4([10, 0, 0, client], [198, 18, 0, 1], 64)
        .udp(port, 53)
        .write(&mut frame, &vec![0; payload])
        .expect("a packet");
    frame
}

#[test]
fn flows_age_by_the_time_of_the_capture_and_the_output_keeps_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let input = directory.path().join("in.pcap");
    let at = |seconds: u64| (Duration::from_secs(1_700_000_000 + seconds), udp(1, 1000, 10));
    capture::write(&input, &[at(0), at(1), at(4_000), at(4_001)]);
    let run = run(&input, &[]);
    assert_eq!(run.report["flows"]["inserted"], 2, "the flow was idle for more than an hour");
    assert_eq!(run.report["flows"]["expired"], 1);
    assert_eq!(run.report["flows"]["active"], 1);
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&run.output).args(["-T", "fields", "-e", "frame.time_epoch"]);
    let text = String::from_utf8(tshark.output().expect("tshark").stdout).expect("UTF-8");
    let seconds: Vec<&str> = text.lines().map(|line| line.split('.').next().unwrap_or("")).collect();
    assert_eq!(seconds, ["1700000000", "1700000001", "1700004000", "1700004001"]);
}

#[test]
fn frames_longer_than_a_packet_buffer_go_through() {
    let directory = tempfile::tempdir().expect("a directory");
    let input = directory.path().join("in.pcap");
    let lengths = [0, 1_400, 2_100, 9_000, 9_600, 9_728, 30_000, 65_000];
    let records: Vec<_> = lengths.iter().map(|&payload| (Duration::ZERO, udp(1, 7, payload))).collect();
    capture::write(&input, &records);
    let run = run(&input, &[]);
    let input: Vec<Vec<u8>> = records.into_iter().map(|(_, frame)| frame).collect();
    run.assert_conserved(lengths.len());
    run.assert_faithful(&input);
    assert_eq!(run.sent.len(), lengths.len());
}

#[test]
fn the_same_input_gives_the_same_output_to_the_byte() {
    for workers in ["1", "3"] {
        let [one, other] =
            [(); 2].map(|()| fs::read(&run(&demo(), &["--workers", workers]).output).expect("the output"));
        assert!(one == other, "{workers} workers");
    }
}

/// A classic pcap of microseconds with one record a tuple: seconds, microseconds, frame, original length.
fn pcap(snaplen: u32, records: &[(u32, u32, &[u8], u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, snaplen, 1] {
        bytes.extend(u32::to_le_bytes(word));
    }
    for (seconds, micros, frame, original) in records {
        [*seconds, *micros, frame.len() as u32, *original].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        bytes.extend(*frame);
    }
    bytes
}

#[test]
fn odd_captures_are_replayed_all_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let input = directory.path().join("in.pcap");
    let frame = udp(1, 1000, 10);
    let whole = frame.len() as u32;
    for (what, bytes, sent) in [
        ("frames cut when they were captured", pcap(60, &[(1, 0, &frame, 1518), (1, 1, &frame[..40], 1518)]), 1),
        (
            "the last second there is, then the first",
            pcap(65_535, &[(u32::MAX, 0, &frame, whole), (0, 0, &frame, whole)]),
            2,
        ),
        ("more than a million microseconds", pcap(65_535, &[(1, 3_000_000, &frame, whole)]), 1),
        ("a frame without bytes", pcap(65_535, &[(1, 0, &[], 0), (1, 0, &frame, whole)]), 1),
    ] {
        fs::write(&input, bytes).expect("a file");
        assert_eq!(run(&input, &["--loops", "3"]).sent.len(), 3 * sent, "{what}");
    }
}

#[test]
fn pcapng_is_read_with_its_own_unit_of_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let input = directory.path().join("in.pcapng");
    let classic = demo();
    let converted = Command::new("editcap").args(["-F", "pcapng"]).arg(&classic).arg(&input).status();
    assert!(converted.expect("editcap comes with tshark").success());
    let [first, second] = [&classic, &input].map(|path| run(path, &[]));
    assert!(fs::read(&first.output).expect("a file") == fs::read(&second.output).expect("a file"));
}

#[test]
fn an_output_that_is_a_link_or_a_pipe_is_written_to_and_not_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let (link, file, pipe) =
        (directory.path().join("link"), directory.path().join("file"), directory.path().join("pipe"));
    fs::write(&file, b"old").expect("a file");
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    assert!(replay("dpdk-config/replay.yaml", &demo(), &link, &[]).status.success());
    assert!(fs::symlink_metadata(&link).expect("the link").is_symlink());
    let expected = fs::read(&file).expect("the file");
    assert!(expected.len() > 10_000);

    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).expect("the pipe")
    });
    assert!(replay("dpdk-config/replay.yaml", &demo(), &pipe, &[]).status.success());
    assert!(reader.join().expect("the reader") == expected);
}

#[test]
fn files_that_are_one_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (input, output) = (directory.path().join("in.pcap"), directory.path().join("out.pcap"));
    fs::copy(demo(), &input).expect("a copy");
    let report = |path: &Path| path.display().to_string();
    for (target, more) in [
        (&input, vec![]),
        (&output, vec!["--report".to_owned(), report(&output)]),
        (&output, vec!["--report".to_owned(), report(&input)]),
    ] {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let refused = replay("dpdk-config/replay.yaml", &input, target, &more);
        let said = String::from_utf8(refused.stderr).expect("UTF-8");
        assert_eq!((refused.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    }
    assert!(fs::read(&input).expect("the input") == fs::read(demo()).expect("the demo capture"));
    assert!(!output.exists());
}

#[test]
fn a_signal_ends_a_replay_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut running = Command::new(env!("CARGO_BIN_EXE_slr-replay"))
        .current_dir(MANIFEST)
        .env("TMPDIR", directory.path())
        .args(["--config", "dpdk-config/replay.yaml", "--loops", "1000000", "--input"])
        .arg(demo())
        .arg("--output")
        .arg(directory.path().join("out.pcap"))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("slr-replay");
    std::thread::sleep(Duration::from_secs(2));
    Command::new("kill").arg(running.id().to_string()).status().expect("kill");
    assert_eq!(running.wait().expect("an end").code(), Some(1));
    let left: Vec<_> =
        fs::read_dir(directory.path()).expect("a directory").map(|entry| entry.expect("an entry")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn two_instances_run_at_once() {
    let input = frames(&demo());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| run(&demo(), &["--workers", "2", "--loops", "5"]).assert_conserved(5 * input.len()));
        }
    });
}

#[test]
fn bad_input_gets_one_clear_line_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path
    };
    let capture = fs::read(demo()).expect("the demo capture");
    let good = demo();
    let cut = file("cut.pcap", &capture[..capture.len() - 7]);
    let cut_header = file("cut-header.pcap", &capture[..20]);
    let no_packets = file("no-packets.pcap", &capture[..24]);
    let mut other_link = capture.clone();
    other_link[20..24].copy_from_slice(&113_u32.to_ne_bytes());
    let other_link = file("cooked.pcap", &other_link);
    let no_bytes = file("no-bytes.pcap", b"");
    let text = file("text.pcap", b"this is no capture, is it?");
    let unknown_key = file("unknown.yaml", b"router:\n  name: x\n  colour: blue\n");
    let unknown_key = unknown_key.display().to_string();
    let (out, nowhere) = (directory.path().join("out.pcap"), directory.path().join("none/out.pcap"));
    let (missing, folder) = (Path::new("/nonexistent.pcap"), Path::new(MANIFEST));
    let config = "dpdk-config/replay.yaml";
    for (config, input, output, status, words) in [
        (config, missing, &out, 1, &["/nonexistent.pcap", "No such file"][..]),
        (config, &*cut, &out, 1, &["cut.pcap", "after record"]),
        (config, &cut_header, &out, 1, &["cut-header.pcap", "not a capture"]),
        (config, &no_packets, &out, 1, &["no-packets.pcap", "holds no packets"]),
        (config, &other_link, &out, 1, &["cooked.pcap", "Ethernet"]),
        (config, &no_bytes, &out, 1, &["no-bytes.pcap", "not a capture"]),
        (config, &text, &out, 1, &["text.pcap", "not a capture"]),
        (config, folder, &out, 1, &["directory"]),
        (config, &good, &nowhere, 1, &["none/out.pcap", "No such file"]),
        (config, &good, &folder.to_owned(), 1, &["directory"]),
        ("/nonexistent.yaml", &good, &out, 2, &["/nonexistent.yaml"]),
        (&unknown_key, &good, &out, 2, &["unknown.yaml:3:3", "colour"]),
    ] {
        let finished = replay(config, input, output, &[]);
        let said = String::from_utf8(finished.stderr).expect("UTF-8");
        assert_eq!(finished.status.code(), Some(status), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} in: {said}");
    }
    for workers in ["0", "17"] {
        let usage = replay(config, &good, &out, &["--workers", workers]);
        assert_eq!(usage.status.code(), Some(2));
    }
    let left: Vec<_> =
        fs::read_dir(directory.path()).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(left.len(), 7, "{left:?}");
}
