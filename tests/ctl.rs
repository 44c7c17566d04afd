//! What a router in memory answers over its control socket, held against what it does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::common::router::{ROUTER_MAC, TestRouter};
use etherparse::PacketBuilder;
use proptest::prelude::*;
use serde_json::Value;
use slr::clock::Instant;
use slr::config::Config;
use slr::control::compile::{Compiler, Configured};
use slr::control::neighbours::Neighbours;
use slr::control::slow_path::SlowPath;
use slr::ctl::request::{CaptureRequest, FlowFilter, Request, TraceRequest};
use slr::ctl::server::{Asked, Control, Facts, Now};
use slr::ctl::socket::{Answer, Outbox};
use slr::metrics::collector::ForwardCollector;
use slr::units::MacAddr;

const CONFIG: &str = r#"
router: { name: test, tunnel_addresses: [10.1.0.1] }
ports:
  - { name: clients, device: net_null0, addresses: [10.0.0.1/24] }
  - { name: servers, device: net_null1, mtu: 1600, addresses: [10.1.0.1/24] }
flows: { capacity_v4: 600, capacity_v6: 100 }
neighbours:
  - { address: 10.1.0.10, mac: "02:00:00:00:01:01" }
  - { address: 10.1.0.20, mac: "02:00:00:00:01:02" }
  - { address: 10.1.0.30, mac: "02:00:00:00:01:03" }
children: [{ name: s1, address: 10.1.0.10 }, { name: s2, address: 10.1.0.20 }, { name: s3, address: 10.1.0.30 }]
virtual_hosts:
  - { name: hash, addresses: [192.0.2.1], table_size: 251, children: [s1, { name: s2, weight: 300 }, s3] }
  - { name: turn, addresses: [192.0.2.2], selection: round_robin, children: [s1, s2, s3] }
  - { name: least, addresses: [192.0.2.3], table_size: 251, selection: least_cost, children: [{ name: s1, cost: 9 }, s2, s3] }
  - { name: coarse, addresses: [192.0.2.4], table_size: 251, flow: { source: { v4: 28 } }, children: [s1, s2, s3] }
  - { name: tiers, addresses: [192.0.2.0/24], services: [udp/53], table_size: 251, children: [{ name: s1, tier: 1 }, s3] }
"#;

struct Running {
    router: TestRouter,
    slow_path: SlowPath,
    control: Control,
    now: Instant,
}

impl Running {
    fn new() -> Running {
        Running::with(CONFIG)
    }

    fn with(config: &str) -> Running {
        let config = Config::parse(config, "test.yaml").unwrap_or_else(|error| panic!("{error}"));
        let neighbours = Neighbours::new(&config, &[ROUTER_MAC, MacAddr([2, 0, 0, 0, 0, 3])], 1);
        let mut router = TestRouter::of(&config, &Configured { config: &config, neighbours: &neighbours });
        let compiler = std::mem::replace(&mut router.compiler, Compiler::new(0));
        let end = router.end();
        let published = router.published.clone();
        let slow_path = SlowPath::new(Arc::new(config), compiler, neighbours, published.clone(), vec![end]);
        let (counters, ports) = (vec![router.counters.clone()], Box::new(Vec::new));
        let collector = Arc::new(ForwardCollector::new(counters, published, 1e9, ports, slow_path.counters()));
        let facts = Facts { configuration: "test.yaml".into(), started: Instant::ZERO, ports: Vec::new() };
        let desks = router.desk.take().into_iter().collect();
        Running { router, slow_path, control: Control::new(facts, collector, desks), now: Instant::ZERO }
    }

    fn now(&self) -> Now {
        Now { instant: self.now, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000) }
    }

    fn start(&mut self, request: Request) -> Answer {
        let (to, answer) = Outbox::pair();
        let now = self.now();
        self.control.ask(&mut self.slow_path, now, Asked { request, to });
        answer
    }

    /// Lets the worker turn and the slow path pass.
    fn pass(&mut self) {
        self.router.worker.run();
        let now = self.now();
        self.control.pass(&mut self.slow_path, now);
    }

    /// The items of an answer and its end.
    fn ask(&mut self, request: Request) -> (Vec<Value>, Value) {
        let mut answer = self.start(request);
        self.finish(&mut answer)
    }

    fn finish(&mut self, answer: &mut Answer) -> (Vec<Value>, Value) {
        let mut items = Vec::new();
        for _ in 0..1000 {
            while let Ok(line) = answer.lines.try_recv() {
                let mut line: Value = serde_json::from_str(&line).expect("JSON");
                match line.get_mut("item") {
                    Some(item) => items.push(item.take()),
                    None => return (items, line),
                }
            }
            self.pass();
        }
        panic!("no end after {items:?}");
    }

    /// Sends a packet, and returns the number of the child that it goes to.
    fn carry(&mut self, source: SocketAddr, destination: SocketAddr) -> Option<String> {
        let sent = self.router.carry([frame(source, destination)]);
        // The third byte from the end of the outer header's destination: 10, 20, 30.
        sent.first().map(|frame| format!("s{}", frame[33] / 10))
    }
}

fn frame(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), destination.ip()) else { panic!("IPv4") };
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], ROUTER_MAC.0).ipv4(from.octets(), to.octets(), 57);
    let mut frame = Vec::new();
    builder.udp(source.port(), destination.port()).write(&mut frame, b"hello").expect("a packet");
    frame
}

fn trace(source: SocketAddr, destination: SocketAddr) -> Request {
    Request::Trace(TraceRequest { source, destination, protocol: 17 })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the policy, the granularity and who is drained: a packet goes where its trace has said, before its flow is
    /// known and after.
    #[test]
    fn a_packet_goes_where_its_trace_says(
        packets in prop::collection::vec((0..64_u8, 1..6_u8, 40_000..40_008_u16, prop::bool::ANY), 1..40),
        drained in prop::option::of(1..=3_u8),
    ) {
        let mut running = Running::new();
        if let Some(child) = drained {
            let (_, end) = running.ask(Request::Drain { child: format!("s{child}") });
            prop_assert!(end.get("ok").is_some(), "{}", end);
        }
        for (client, host, port, dns) in packets {
            let source = SocketAddr::from(([10, 7, 0, client], port));
            let destination = SocketAddr::from(([192, 0, 2, host], if dns { 53 } else { 80 }));
            let (_, said) = running.ask(trace(source, destination));
            let said = &said["ok"];
            let child = running.carry(source, destination);
            prop_assert_eq!(said["child"].as_str(), child.as_deref(), "{} to {}: {}", source, destination, said);
            let outcome = if child.is_some() { "forwarded" } else { "dropped" };
            prop_assert_eq!(said["outcome"].as_str(), Some(outcome));
            let (_, again) = running.ask(trace(source, destination));
            prop_assert_eq!(again["ok"]["child"].as_str(), child.as_deref());
            prop_assert_eq!(again["ok"]["worker"].as_u64(), child.map(|_| 0));
        }
    }
}

#[test]
fn a_packet_for_no_service_goes_where_its_trace_says() {
    let router = "neighbours:\n";
    let config = CONFIG
        .replace(router, &format!("forwarding: on\nroutes: [{{ prefix: 198.51.100.0/24, via: 10.1.0.10 }}]\n{router}"));
    for (to, outcome, reason) in [
        ([198, 51, 100, 7], "forwarded", None),
        ([10, 1, 0, 20], "forwarded", None),
        ([10, 1, 0, 99], "punted", Some("no_neighbour")),
        ([10, 1, 0, 255], "dropped", Some("not_routable")),
        ([203, 0, 113, 7], "punted", Some("no_route")),
        ([224, 0, 0, 9], "dropped", Some("not_routable")),
        ([192, 0, 2, 9], "dropped", Some("no_virtual_host")),
        ([10, 1, 0, 1], "punted", Some("own_address")),
    ] {
        let mut running = Running::with(&config);
        let (source, destination) = (SocketAddr::from(([10, 7, 0, 9], 1)), SocketAddr::from((to, 80)));
        let (_, said) = running.ask(trace(source, destination));
        let said = &said["ok"];
        assert_eq!((&said["outcome"], said["reason"].as_str()), (&outcome.into(), reason), "{said}");
        running.router.moved();
        let sent = running.router.carry([frame(source, destination)]);
        let moved = running.router.moved();
        assert!(moved.contains(&(reason.unwrap_or("forwarded"), 1)), "{destination}: {moved:?}");
        let header = said["header"].as_str().map(|header| header.len() / 2);
        let front = sent.first().map(|frame| frame[..14].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        assert_eq!((header, said["header"].as_str()), (front.as_ref().map(|_| 14), front.as_deref()), "{destination}");
    }
    let mut without = Running::new();
    let (_, said) = without.ask(trace(SocketAddr::from(([10, 7, 0, 9], 1)), SocketAddr::from(([198, 51, 100, 7], 80))));
    assert_eq!(said["ok"]["reason"], "no_virtual_host");
}

#[test]
fn flows_are_listed_whole_and_as_far_as_the_limit() {
    let mut running = Running::new();
    for port in 1..=300 {
        running.carry(SocketAddr::from(([10, 7, 0, 9], port)), SocketAddr::from(([192, 0, 2, 1], 80)));
    }
    let (flows, end) = running.ask(Request::Flows(FlowFilter::default()));
    let mut ports: Vec<u64> = flows.iter().map(|flow| flow["source_port"].as_u64().expect("a port")).collect();
    ports.sort_unstable();
    assert_eq!(ports, (1..=300).collect::<Vec<u64>>());
    assert_eq!(end["ok"], serde_json::json!({ "listed": 300, "more": false }));
    for (limit, listed, more) in [(10, 10, true), (300, 300, false), (0, 0, true)] {
        let (flows, end) = running.ask(Request::Flows(FlowFilter { limit: Some(limit), ..FlowFilter::default() }));
        assert_eq!((flows.len(), end["ok"]["more"].as_bool()), (listed, Some(more)));
    }
    // Two at a time: one after the other.
    let filter = |child: &str| Request::Flows(FlowFilter { child: Some(child.into()), ..FlowFilter::default() });
    let (mut first, mut second) = (running.start(filter("s1")), running.start(filter("s2")));
    let (second, first) = (running.finish(&mut second).0, running.finish(&mut first).0);
    assert!(!first.is_empty() && first.iter().all(|flow| flow["child"] == "s1"));
    assert!(second.len() > first.len(), "s2 has three times the weight");
}

/// Returns 1 for every frame.
const EVERYTHING: (u16, u8, u8, u32) = (6, 0, 0, 1);

fn capture(drops: bool, count: Option<u64>, seconds: Option<u64>) -> Request {
    Request::Capture(CaptureRequest { program: vec![EVERYTHING], drops, snap_len: 40, count, seconds })
}

#[test]
fn a_capture_of_drops_has_the_frames_as_they_came_and_the_reason_of_each() {
    let mut running = Running::new();
    let mut answer = running.start(capture(true, None, Some(5)));
    let host = |last: u8, port: u16| SocketAddr::from(([192, 0, 2, last], port));
    let client = SocketAddr::from(([10, 7, 0, 9], 7));
    let mut cut = frame(client, host(1, 80));
    cut.truncate(30);
    let (fine, lost) = (frame(client, host(1, 80)), frame(client, host(9, 80)));
    // All in one burst.
    assert_eq!(running.router.carry([&fine, &cut, &fine, &lost]).len(), 2);
    running.router.worker.io_mut().limit(0);
    assert!(running.router.carry([&fine]).is_empty());
    running.now = running.now + Duration::from_secs(6);
    let (items, end) = running.finish(&mut answer);
    assert_eq!(items[0], "started");
    let frames: Vec<(&str, &str, u64)> = items[1..]
        .iter()
        .map(|item| {
            let field = |name: &str| item["frame"][name].as_str().expect("a word");
            (field("dropped"), field("bytes"), item["frame"]["length"].as_u64().expect("a number"))
        })
        .collect();
    let hex = |frame: &[u8]| frame.iter().take(40).map(|byte| format!("{byte:02x}")).collect::<String>();
    let (cut_hex, lost_hex, fine_hex) = (hex(&cut), hex(&lost), hex(&fine));
    let expected = [
        ("ipv4_truncated", cut_hex.as_str(), cut.len() as u64),
        ("no_virtual_host", lost_hex.as_str(), lost.len() as u64),
        ("tx_queue_full", fine_hex.as_str(), fine.len() as u64),
    ];
    assert_eq!(frames, expected);
    assert_eq!(end["ok"], serde_json::json!({ "frames": 3, "missed": 0 }));
    assert!(running.router.published.load().capture.is_none());
}

#[test]
fn a_capture_counts_what_found_no_room_and_stops_at_its_count() {
    let mut running = Running::new();
    let one = frame(SocketAddr::from(([10, 7, 0, 9], 7)), SocketAddr::from(([192, 0, 2, 1], 80)));
    let mut answer = running.start(capture(false, None, Some(5)));
    running.router.carry(vec![one.clone(); 700]);
    running.now = running.now + Duration::from_secs(6);
    let (items, end) = running.finish(&mut answer);
    assert_eq!((items.len(), &end["ok"]), (513, &serde_json::json!({ "frames": 512, "missed": 188 })));

    let mut answer = running.start(capture(false, Some(3), None));
    let (_, refused) = running.ask(capture(false, None, None));
    assert_eq!(refused["error"], "a capture is under way; end it before you start another");
    running.router.carry(vec![one.clone(); 10]);
    let (items, end) = running.finish(&mut answer);
    assert_eq!((items.len(), &end["ok"]["frames"]), (4, &3.into()));

    // Who goes away, in either way, ends it.
    let answer = running.start(capture(false, None, None));
    drop(answer);
    (0..3).for_each(|_| running.pass());
    let mut answer = running.start(capture(false, None, None));
    answer.ended.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(running.finish(&mut answer).1["ok"]["frames"], 0);
    assert!(running.router.published.load().capture.is_none());
}

#[test]
fn what_must_not_run_on_a_worker_is_refused() {
    let mut running = Running::new();
    for (program, snap_len, words) in [
        (vec![], 40, "the filter has 0 instructions"),
        (vec![(0xff, 0, 0, 0), EVERYTHING], 40, "instruction 0 of the filter is unknown"),
        (vec![(5, 0, 0, 9), EVERYTHING], 40, "jumps back, or beyond its end"),
        (vec![EVERYTHING], 0, "0 bytes a frame are not possible; ask for 1 to 2048"),
        (vec![EVERYTHING], 2049, "2049 bytes a frame are not possible"),
    ] {
        let request = CaptureRequest { program, drops: false, snap_len, count: None, seconds: None };
        let (items, end) = running.ask(Request::Capture(request));
        let said = end["error"].as_str().unwrap_or_default();
        assert!(said.contains(words) && items.is_empty(), "{end}");
    }
    assert!(running.router.published.load().capture.is_none());
    let (_, end) = running.ask(Request::Weight { child: "s1".into(), weight: Some(10_001) });
    assert_eq!(end["error"], "weight 10001 is too large; give one from 0 to 10000");
}
