//! Worker and slow path together: checks of children leave in their tunnels, answers find them, and what they find decides
//! where flows go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::common::router::TestRouter;
use etherparse::{Icmpv4Type, PacketBuilder, SlicedPacket, TransportSlice};
use slr::clock::Instant;
use slr::config::Config;
use slr::control::compile::{Compiler, Configured};
use slr::control::health::Health;
use slr::control::neighbours::Neighbours;
use slr::control::slow_path::SlowPath;
use slr::units::{MacAddr, PortIndex};

const PORTS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 0xa]), MacAddr([2, 0, 0, 0, 0, 0xb])];
const OWN: [u8; 4] = [10, 1, 0, 1];
const HOST: [u8; 4] = [192, 0, 2, 1];
const PARENT: [u8; 4] = [10, 0, 0, 254];

/// A virtual host on the children 10.1.0.11 (`one`) and 10.1.0.12 (`two`), asked by ping every 100 ms.
fn config(rest: &str) -> Config {
    let yaml = format!(
        r#"
router: {{ name: test, tunnel_addresses: [10.1.0.1], parents: [10.0.0.254] }}
ports:
  - {{ name: clients, device: a, addresses: [10.0.0.1/24] }}
  - {{ name: servers, device: b, addresses: [10.1.0.1/24], mtu: 1600 }}
neighbours:
  - {{ address: 10.1.0.11, mac: "02:00:00:00:01:01" }}
  - {{ address: 10.1.0.12, mac: "02:00:00:00:01:02" }}
flows: {{ capacity_v4: 1000, capacity_v6: 1000 }}
children: [{{ name: one, address: 10.1.0.11 }}, {{ name: two, address: 10.1.0.12 }}]
virtual_hosts:
  - name: both
    addresses: [192.0.2.1]
    table_size: 251
    children: [one, two]
    health: {{ icmp: {{}}, interval: 100ms, timeout: 50ms, jitter: 0%, fall: 2 }}
    {rest}
"#
    );
    Config::parse(&yaml, "test.yaml").unwrap_or_else(|error| panic!("{error}"))
}

/// How the answers of a child come.
#[derive(Clone, Copy, PartialEq)]
enum Answers {
    Straight,
    InParentsTunnel,
    Never,
}

/// A router, and two children that answer pings.
struct Scene {
    router: TestRouter,
    slow_path: SlowPath,
    now: Instant,
    answers: BTreeMap<u8, Answers>,
    told: Vec<String>,
}

impl Scene {
    fn new(rest: &str) -> Scene {
        let config = config(rest);
        let neighbours = Neighbours::new(&config, &PORTS, 1);
        let mut router = {
            let reachability = Configured { config: &config, neighbours: &neighbours };
            TestRouter::of(&config, &reachability)
        };
        let compiler = std::mem::replace(&mut router.compiler, Compiler::new(0));
        let end = router.end();
        let health = Health::new(Instant::ZERO, &config, 3);
        let slow_path = SlowPath::new(Arc::new(config), compiler, neighbours, router.published.clone(), vec![end]);
        let slow_path = slow_path.checking(health);
        let answers = [(11, Answers::Straight), (12, Answers::Straight)].into();
        Scene { router, slow_path, now: Instant::ZERO, answers, told: Vec::new() }
    }

    /// Lets time pass; the children answer what they are asked.
    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.slow_path.pass(self.now);
            self.router.worker.run();
            let sent = self.router.worker.io_mut().take_sent();
            for (port, frame) in sent {
                if let Some((child, answer)) = answer(port, &frame) {
                    match self.answers[&child] {
                        Answers::Straight => self.arrive(&framed(answer)),
                        Answers::InParentsTunnel => self.arrive(&framed(in_tunnel(&answer))),
                        Answers::Never => {}
                    }
                }
            }
            self.told.extend(self.slow_path.take_health_news().changes.iter().map(ToString::to_string));
            self.now = self.now + Duration::from_millis(1);
        }
    }

    fn arrive(&mut self, frame: &[u8]) {
        self.router.worker.io_mut().arrive(PortIndex(1), frame);
        self.router.worker.run();
        assert!(self.router.counters.packets().conserved());
    }

    /// Which child each of 100 flows goes to, by the last byte of its address; `None` for one that is dropped.
    fn flows(&mut self, first_port: u16) -> Vec<Option<u8>> {
        let mut flow = |port: u16| {
            let mut frame = Vec::new();
            let builder = PacketBuilder::ethernet2([2; 6], PORTS[0].0).ipv4([10, 0, 0, 9], HOST, 64).udp(port, 80);
            builder.write(&mut frame, b"data").expect("a packet");
            self.router.carry([frame]).pop().map(|frame| frame[33])
        };
        (first_port..first_port + 100).map(&mut flow).collect()
    }
}

/// The child that a check goes to and its answer; `None` for what is no check.
fn answer(port: PortIndex, frame: &[u8]) -> Option<(u8, Vec<u8>)> {
    if frame[12..14] != [8, 0] {
        return None;
    }
    assert_eq!(port, PortIndex(1));
    let outer = &frame[14..];
    // IP in IP from our tunnel address to the child's, by its link-layer address.
    assert_eq!((outer[9], &outer[12..16], &outer[16..19]), (4, &OWN[..], &[10, 1, 0][..]));
    let child = outer[19];
    assert_eq!(frame[..12], [&[2, 0, 0, 0, 1, child - 10][..], &PORTS[1].0].concat());
    let inner = &outer[20..];
    assert_eq!((&inner[12..16], &inner[16..20]), (&OWN[..], &HOST[..]));
    let sliced = SlicedPacket::from_ip(inner).expect("a packet");
    let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("{inner:02x?}") };
    let Icmpv4Type::EchoRequest(echo) = icmp.icmp_type() else { panic!("{inner:02x?}") };
    let mut reply = Vec::new();
    let builder = PacketBuilder::ipv4(HOST, OWN, 63).icmpv4_echo_reply(echo.id, echo.seq);
    builder.write(&mut reply, icmp.payload()).expect("a packet");
    Some((child, reply))
}

fn in_tunnel(packet: &[u8]) -> Vec<u8> {
    let mut outer = Vec::new();
    let builder = PacketBuilder::ipv4(PARENT, OWN, 63);
    builder.write(&mut outer, etherparse::ip_number::IPV4, packet).expect("a packet");
    outer
}

fn framed(packet: Vec<u8>) -> Vec<u8> {
    [&PORTS[1].0[..], &[2, 0, 0, 0, 1, 1], &[8, 0], &packet].concat()
}

/// Children by the number of flows that they have.
fn count(flows: &[Option<u8>]) -> BTreeMap<Option<u8>, usize> {
    flows.iter().fold(BTreeMap::new(), |mut counts, child| {
        *counts.entry(*child).or_default() += 1;
        counts
    })
}

#[test]
fn checks_leave_in_the_childrens_tunnels_and_their_answers_find_them_on_any_way() {
    let mut scene = Scene::new("");
    scene.answers.insert(12, Answers::InParentsTunnel);
    scene.pass(1001);
    assert_eq!(scene.told, [""; 0]);
    let records = scene.slow_path.records();
    let succeeded = |child: usize| records.load()[child].ended(slr::control::health::CheckResult::Success).get();
    assert!((10..=11).contains(&succeeded(0)) && (10..=11).contains(&succeeded(1)));
    let moved: BTreeMap<_, _> = scene.router.moved().into_iter().collect();
    assert_eq!(moved["own_address"], succeeded(0));
    assert_eq!(moved["own_address_in_tunnel"], succeeded(1));
}

#[test]
fn pings_of_others_are_answered_all_the_same() {
    let mut scene = Scene::new("");
    scene.pass(300);
    let mut ping = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], PORTS[1].0).ipv4([10, 1, 0, 9], OWN, 64);
    builder.icmpv4_echo_request(7, 1).write(&mut ping, b"hello").expect("a packet");
    scene.arrive(&ping);
    scene.slow_path.pass(scene.now);
    scene.router.worker.run();
    let sent = scene.router.worker.io_mut().take_sent();
    let reply = sent.iter().find(|(_, frame)| frame[30..34] == [10, 1, 0, 9]).expect("a reply");
    assert_eq!((&reply.1[26..30], reply.1[34]), (&OWN[..], 0));
}

#[test]
fn a_failed_child_gets_no_new_flows_and_its_old_ones_move_or_stay() {
    for (on_failure, stay) in [("", true), ("on_failure: reselect", false), ("on_failure: keep", true)] {
        let mut scene = Scene::new(on_failure);
        scene.pass(300);
        let before = scene.flows(1000);
        let counted = count(&before);
        assert!(counted[&Some(11)] > 30 && counted[&Some(12)] > 30, "{counted:?}");

        scene.answers.insert(11, Answers::Never);
        scene.pass(270);
        assert_eq!(scene.told, ["both on one is down: no answer in 50ms"], "{on_failure}");
        assert_eq!(count(&scene.flows(2000)), [(Some(12), 100)].into(), "{on_failure}: new flows");
        scene.router.moved();
        let after = scene.flows(1000);
        let expected: Vec<_> = before.iter().map(|child| if stay { *child } else { Some(12) }).collect();
        assert_eq!(after, expected, "{on_failure}");
        let inserted = if stay { 0 } else { counted[&Some(11)] as u64 };
        let of_flows = |(label, count): (&'static str, u64)| (label == "flows_inserted").then_some(count);
        assert_eq!(scene.router.moved().into_iter().find_map(of_flows).unwrap_or(0), inserted, "{on_failure}");

        scene.answers.insert(11, Answers::Straight);
        scene.pass(300);
        assert_eq!(scene.told[1..], ["both on one is up"]);
        assert_eq!(scene.flows(1000), after, "{on_failure}: nothing moves when it comes back");
        assert!(count(&scene.flows(3000))[&Some(11)] > 30, "{on_failure}");
    }
}

#[test]
fn without_any_child_old_flows_stay_and_new_ones_are_refused() {
    let mut scene = Scene::new("");
    scene.pass(300);
    let before = scene.flows(1000);
    scene.answers = [(11, Answers::Never), (12, Answers::Never)].into();
    scene.pass(300);
    assert_eq!(scene.told.len(), 2);
    assert_eq!(scene.flows(1000), before);
    scene.router.moved();
    assert_eq!(count(&scene.flows(2000)), [(None, 100)].into());
    assert_eq!(scene.router.moved(), [("received", 100), ("no_child", 100)]);
}

#[test]
fn a_reload_keeps_what_is_known_and_forgets_who_is_not_checked() {
    let mut scene = Scene::new("");
    scene.answers.insert(11, Answers::Never);
    scene.pass(500);
    assert_eq!(count(&scene.flows(1000)), [(Some(12), 100)].into());
    scene.slow_path.reload(config("on_failure: keep"), scene.now).expect("a reload");
    assert_eq!(count(&scene.flows(2000)), [(Some(12), 100)].into());
    let mut unchecked = config("");
    unchecked.virtual_hosts[0].health = None;
    scene.slow_path.reload(unchecked, scene.now).expect("a reload");
    assert!(count(&scene.flows(3000))[&Some(11)] > 30);
    assert!(scene.slow_path.records().load().is_empty());
}
