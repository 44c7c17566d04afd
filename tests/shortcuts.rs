//! A router of the middle between its parent and its sites, in memory: packets at one side, messages at the other.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::common::router::{ROUTER_MAC, TestRouter};
use etherparse::{Icmpv4Slice, Icmpv4Type, PacketBuilder};
use slr::clock::{Instant, WallClock};
use slr::config::Config;
use slr::control::compile::{Compiler, Configured};
use slr::control::hierarchy::Hierarchy;
use slr::control::neighbours::Neighbours;
use slr::control::session::child::hello;
use slr::control::session::{Carrier, Happening, Identity, SessionId};
use slr::control::slow_path::SlowPath;
use slr::control::wire::{Inbox, Message, Shortcut, TELLS_SHORTCUTS, TunnelEnd};
use slr::flow::key::KeyV4;
use slr::forward::inspect::Key;
use slr::trust::authority::{self, Node};
use slr::units::{MacAddr, PortIndex};

const CLIENT: [u8; 4] = [10, 7, 0, 9];
const HOST: [u8; 4] = [192, 0, 2, 1];
const OWN: [u8; 4] = [10, 1, 0, 1];
const SITES: [[u8; 4]; 2] = [[10, 1, 0, 10], [10, 1, 0, 20]];
const SERVER: [u8; 4] = [10, 1, 0, 30];

fn config(directory: &std::path::Path, shortcuts: &str) -> Config {
    let now = SystemTime::now();
    authority::init(directory, "test", now).expect("an authority");
    let offers = vec!["192.0.2.0/24".parse().expect("a prefix")];
    let node = Node { name: "system1".into(), level: 2, offers };
    authority::issue(directory, &node, now, Duration::from_secs(86_400)).expect("a certificate");
    let at = directory.display();
    let text = format!(
        r#"
router: {{ name: system1, level: system, tunnel_addresses: [10.1.0.1], parents: [10.0.0.7] }}
ports:
  - {{ name: above, device: net_null0, addresses: [10.0.0.1/24] }}
  - {{ name: below, device: net_null1, mtu: 1600, addresses: [10.1.0.2/24] }}
flows: {{ capacity_v4: 600, capacity_v6: 100 }}
neighbours:
  - {{ address: 10.1.0.10, mac: "02:00:00:00:01:01" }}
  - {{ address: 10.1.0.20, mac: "02:00:00:00:01:02" }}
  - {{ address: 10.1.0.30, mac: "02:00:00:00:01:03" }}
shortcuts: {shortcuts}
control: {{ socket: off, listen: "127.0.0.1:9478", certificate: {at}/system1.pem, key: {at}/system1.key, authority: {at}/ca.pem }}
parents: [{{ name: network, address: "127.0.0.1:9479" }}]
children:
  - {{ name: site1, address: 10.1.0.10, register: optional }}
  - {{ name: site2, address: 10.1.0.20, register: optional }}
virtual_hosts: [{{ name: web, addresses: [192.0.2.1], selection: round_robin, children: [site1, site2] }}]
"#
    );
    Config::parse(&text, "test.yaml").unwrap_or_else(|error| panic!("{error}"))
}

/// The sessions' bytes.
#[derive(Default)]
struct Wire {
    happenings: VecDeque<Happening>,
    sent: Vec<(SessionId, Vec<u8>)>,
}

const PARENT: SessionId = SessionId(1);

impl Carrier for Wire {
    type Address = SocketAddr;

    fn connect(&mut self, _to: &SocketAddr) -> SessionId {
        self.happenings.push_back(Happening::Opened(PARENT, identity("network", 3)));
        PARENT
    }

    fn send(&mut self, session: SessionId, bytes: Vec<u8>) {
        self.sent.push((session, bytes));
    }

    fn close(&mut self, session: SessionId) {
        panic!("session {session:?} is closed");
    }

    fn poll(&mut self) -> Option<Happening> {
        self.happenings.pop_front()
    }
}

fn identity(name: &str, level: u8) -> Identity {
    let offers = vec!["192.0.2.0/24".parse().expect("a prefix")];
    Identity { name: name.into(), level, offers, not_after: WallClock(u64::MAX) }
}

struct Router {
    worker: TestRouter,
    slow_path: SlowPath,
    wire: Wire,
    now: Instant,
    _directory: tempfile::TempDir,
}

/// The session of the site with this number, from 1.
fn site(number: u64) -> SessionId {
    SessionId(10 + number)
}

impl Router {
    /// A router with a session with its parent, and with its sites where these `tell` what they send where.
    fn new(shortcuts: &str, tell: bool) -> Router {
        let directory = tempfile::tempdir().expect("a directory");
        let config = config(directory.path(), shortcuts);
        let neighbours = Neighbours::new(&config, &[ROUTER_MAC, MacAddr([2, 0, 0, 0, 0, 3])], 1);
        let reachability = Configured { config: &config, neighbours: &neighbours };
        let mut worker = TestRouter::of(&config, &reachability);
        let end = worker.end();
        let compiler = std::mem::replace(&mut worker.compiler, Compiler::new(0));
        let clerk = worker.desk.as_ref().expect("a desk").clerk();
        let now = Instant::ZERO + Duration::from_secs(1);
        let hierarchy = Hierarchy::new(now, WallClock(0), &config, 7);
        let slow_path = SlowPath::new(Arc::new(config), compiler, neighbours, worker.published.clone(), vec![end]);
        let slow_path = slow_path.speaking(now, hierarchy).ordering(vec![clerk], 7);
        let mut wire = Wire::default();
        if tell {
            for number in [1, 2] {
                let name = format!("site{number}");
                let mut hello = hello(name.clone(), 1);
                hello.capabilities = TELLS_SHORTCUTS;
                wire.happenings.push_back(Happening::Opened(site(number), identity(&name, 1)));
                wire.happenings.push_back(Happening::Received(site(number), Message::Hello(hello).to_bytes()));
            }
        }
        let mut router = Router { worker, slow_path, wire, now, _directory: directory };
        router.turn();
        let welcome = slr::control::wire::Welcome {
            version: 1,
            level: 3,
            interval: Duration::from_secs(1),
            expiry: Duration::from_secs(3),
            wall: WallClock(0),
            name: "network".into(),
        };
        router.wire.happenings.push_back(Happening::Received(PARENT, Message::Welcome(welcome).to_bytes()));
        router.turn();
        router.said(PARENT);
        router
    }

    /// Lets everybody do what there is to do, for 100 ms; what the slow path sends of IPv4.
    fn turn(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        for _ in 0..20 {
            self.now = self.now + Duration::from_millis(5);
            self.slow_path.pass(self.now);
            self.slow_path.converse(self.now, &mut self.wire);
            self.worker.worker.run();
            sent.extend(self.worker.worker.io_mut().take_sent().into_iter().map(|(_, frame)| frame));
        }
        sent.retain(|frame| frame[12..14] == [8, 0]);
        sent
    }

    /// Messages about shortcuts that were sent in a session since this was asked last.
    fn said(&mut self, session: SessionId) -> Vec<Message> {
        let mut inbox = Inbox::default();
        let of = self.wire.sent.extract_if(.., |(to, _)| *to == session);
        of.for_each(|(_, bytes)| inbox.push(&bytes));
        let messages = std::iter::from_fn(|| inbox.next_message().expect("a message"));
        messages.filter(|m| matches!(m, Message::Shortcuts(_) | Message::Revoke(_) | Message::Keep(_))).collect()
    }

    /// A packet of the parent about a flow: where it is sent on.
    fn carry(&mut self, port: u16) -> [u8; 4] {
        let sent = self.worker.carry([tunnelled(port)]);
        assert_eq!(sent.len(), 1);
        [sent[0][30], sent[0][31], sent[0][32], sent[0][33]]
    }

    fn hears(&mut self, session: SessionId, message: &Message) {
        self.wire.happenings.push_back(Happening::Received(session, message.to_bytes()));
    }

    /// Lets the server answer what of `sent` is a ping through a tunnel to it.
    fn answer_pings(&mut self, sent: &[Vec<u8>]) -> usize {
        let pings: Vec<_> = sent.iter().filter(|frame| frame[23] == 4 && frame[30..34] == SERVER).collect();
        for ping in &pings {
            let request = Icmpv4Slice::from_slice(&ping[54..54 + 8 + usize::from(ping[37]) - 28]).expect("a message");
            assert_eq!((&ping[46..50], &ping[50..54]), (&OWN[..], &HOST[..]));
            let Icmpv4Type::EchoRequest(echo) = request.icmp_type() else { panic!("no echo request") };
            let mut frame = Vec::new();
            PacketBuilder::ethernet2([2, 0, 0, 0, 1, 3], [2, 0, 0, 0, 0, 3])
                .ipv4(HOST, OWN, 60)
                .icmpv4(Icmpv4Type::EchoReply(echo))
                .write(&mut frame, request.payload())
                .expect("a packet");
            self.worker.worker.io_mut().arrive(PortIndex(1), &frame);
        }
        pings.len()
    }
}

/// A packet of a client in a tunnel of the parent.
fn tunnelled(port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(CLIENT, HOST, 57).udp(port, 80).write(&mut packet, b"hello").expect("a packet");
    let mut outer = etherparse::Ipv4Header::new(packet.len() as u16, 9, etherparse::IpNumber::IPV4, [10, 0, 0, 7], OWN)
        .expect("one");
    outer.header_checksum = outer.calc_header_checksum();
    [&ROUTER_MAC.0[..], &[2, 0, 0, 0, 0, 9], &[8, 0], &outer.to_bytes(), &packet].concat()
}

fn flow(port: u16) -> Key {
    let [a, b] = port.to_be_bytes();
    Key::V4(KeyV4 { source: CLIENT, destination: HOST, ports: [a, b, 0, 80], protocol: 17 })
}

fn shortcut(port: u16, level: u8, end: [u8; 4]) -> Shortcut {
    let end = TunnelEnd { kind: 1, port: 0, address: end.into() };
    Shortcut { flow: flow(port), source_prefix: 0, level, end, lifetime: Duration::from_secs(30) }
}

fn told(port: u16, end: [u8; 4]) -> Message {
    Message::Shortcuts(vec![shortcut(port, 0, end)])
}

#[test]
fn where_a_new_flow_goes_is_told_when_the_child_does_not_tell_it() {
    let mut router = Router::new("on", false);
    let child = router.carry(1);
    assert!(SITES.contains(&child));
    router.turn();
    // The site is where the parent's tunnel may end.
    assert_eq!(router.said(PARENT), [Message::Shortcuts(vec![shortcut(1, 1, child)])]);
    router.carry(1);
    router.turn();
    assert_eq!(router.said(PARENT), [], "a known flow is not told again");
    for (shortcuts, tell) in [("off", false), ("off", true), ("on", true)] {
        let mut router = Router::new(shortcuts, tell);
        router.carry(1);
        router.turn();
        assert_eq!(router.said(PARENT), [], "shortcuts {shortcuts}, sites tell: {tell}");
    }
}

#[test]
fn a_flow_goes_past_the_site_once_the_server_has_answered_and_by_it_when_that_is_revoked() {
    let mut router = Router::new("on", true);
    let by_site = router.carry(1);
    let its = site(1 + SITES.iter().position(|site| *site == by_site).expect("a site") as u64);
    router.turn();
    router.hears(its, &told(1, SERVER));
    let pings = router.turn();
    // It is installed and passed on, but nothing goes where nobody has answered.
    let Some(Message::Shortcuts(up)) = router.said(PARENT).pop() else { panic!("nothing is passed on") };
    assert_eq!((up[0].flow, up[0].end, up[0].level), (flow(1), shortcut(1, 0, SERVER).end, 0));
    assert_eq!(router.carry(1), by_site);
    assert!(router.answer_pings(&pings[pings.len() - 1..]) == 1);
    router.turn();
    assert_eq!(router.carry(1), SERVER);
    // A known end serves the next flow at once; flows of others are not touched.
    let other = router.carry(2);
    assert_ne!(other, by_site, "in turn");
    let next = router.carry(3);
    assert_eq!(next, by_site);
    router.turn();
    router.hears(its, &told(3, SERVER));
    router.hears(its, &told(2, SERVER));
    router.turn();
    assert_eq!([router.carry(1), router.carry(2), router.carry(3)], [SERVER, other, SERVER]);
    let counters = router.slow_path.hierarchy().expect("sessions").shortcuts().counters().clone();
    let of = |outcome| counters.of(outcome).get();
    use slr::control::shortcuts::Outcome::{Installed, NotSentThere, Revoked};
    assert_eq!((of(Installed), of(NotSentThere), counters.in_force.get()), (2, 1, 2));

    router.said(PARENT);
    router.hears(its, &Message::Revoke(vec![shortcut(1, 0, SERVER).end]));
    router.turn();
    assert_eq!([router.carry(1), router.carry(2), router.carry(3)], [by_site, other, by_site]);
    assert_eq!((of(Revoked), counters.in_force.get()), (2, 0));
    assert_eq!(router.said(PARENT), [Message::Revoke(vec![shortcut(1, 0, SERVER).end])]);
    assert!(router.worker.counters.packets().conserved());
}

#[test]
fn a_flow_that_nobody_has_and_ends_that_cannot_be_are_refused() {
    let mut router = Router::new("on", true);
    let by_site = router.carry(1);
    let its = site(1 + SITES.iter().position(|site| *site == by_site).expect("a site") as u64);
    router.turn();
    for (port, end) in [(9, SERVER), (1, OWN), (1, [10, 0, 0, 7]), (1, [203, 0, 113, 1]), (1, [224, 0, 0, 1])] {
        router.hears(its, &told(port, end));
    }
    router.hears(its, &Message::Shortcuts(vec![shortcut(1, 1, SERVER)]));
    (0..15).for_each(|_| drop(router.turn()));
    assert_eq!(router.carry(1), by_site);
    assert_eq!(router.said(PARENT), []);
    let counters = router.slow_path.hierarchy().expect("sessions").shortcuts().counters().clone();
    use slr::control::shortcuts::Outcome::{NotBelow, UnknownFlow, Unreachable};
    assert_eq!([UnknownFlow, Unreachable, NotBelow].map(|why| counters.of(why).get()), [1, 4, 1]);
}
