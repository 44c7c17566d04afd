//! The checks against servers that a second TCP/IP stack makes real, on a clock set by hand.

use std::io::{Read, Write};
use std::time::Duration;

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use rustls::ServerConnection;
use smoltcp::socket::{tcp, udp};

use super::stack::Stack;
use super::*;

const V4: &str = "192.0.2.80";
const V6: &str = "2001:db8:80::80";

/// Two children whose virtual host is checked as `health` says.
fn config(address: &str, health: &str) -> Config {
    let yaml = format!(
        r#"
router: {{ name: test, tunnel_addresses: [198.51.100.1, "2001:db8:1::1"] }}
children: [{{ name: one, address: 203.0.113.1 }}, {{ name: two, address: 203.0.113.2 }}]
virtual_hosts:
  - {{ name: other, addresses: [192.0.2.1], children: [one] }}
  - {{ name: web, addresses: ["{address}"], children: [two, one], health: {health} }}
"#
    );
    Config::parse(&yaml, "test.yaml").unwrap_or_else(|error| panic!("{error}"))
}

/// What a server does.
#[derive(Clone)]
enum Doing {
    /// Nothing.
    Silent,
    /// It has no listener: connections are reset.
    Refuse,
    /// It accepts connections.
    Accept,
    /// It says this as soon as it has heard a whole request, in pieces of so many bytes.
    Say(&'static str, usize),
    /// It closes what it has accepted.
    Close,
    /// It speaks TLS, and says this over it.
    Tls(Arc<rustls::ServerConfig>, &'static str),
    /// It answers echo requests, with so many bytes of their data changed.
    Echo(usize),
    /// It answers DNS queries with this code, and with another identifier or question.
    Dns(u8, bool, bool),
}

/// A server with the virtual host's address.
struct Server {
    address: IpAddr,
    doing: Doing,
    stack: Option<Stack>,
    tls: Option<ServerConnection>,
    heard: Vec<u8>,
    to_say: Vec<u8>,
}

impl Server {
    fn new(address: IpAddr, doing: Doing) -> Server {
        Server { address, doing, stack: None, tls: None, heard: Vec::new(), to_say: Vec::new() }
    }

    /// Takes a packet and returns its answers.
    fn receive(&mut self, now: Instant, packet: &[u8]) -> Vec<Vec<u8>> {
        let sliced = SlicedPacket::from_ip(packet).expect("a sound packet");
        match (sliced.transport.as_ref().expect("a transport"), self.doing.clone()) {
            (_, Doing::Silent) => Vec::new(),
            (TransportSlice::Tcp(header), doing) => {
                if header.syn() {
                    // Each check gets a server that remembers nothing.
                    self.stack = Some(self.listener(now, header.destination_port(), &doing));
                    (self.tls, self.heard, self.to_say) = (None, Vec::new(), Vec::new());
                    if let Doing::Tls(config, _) = &doing {
                        self.tls = Some(ServerConnection::new(config.clone()).expect("a connection"));
                    }
                }
                self.talk(now, packet, &doing)
            }
            (TransportSlice::Udp(header), Doing::Dns(code, other_id, other_question)) => {
                let mut answer = header.payload().to_vec();
                answer[2] |= 0x80;
                answer[3] = answer[3] & 0xf0 | code;
                answer[0] ^= u8::from(other_id);
                answer[13] ^= u8::from(other_question);
                let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 1], vec![0; 1500]);
                let mut stack = Stack::new(now, self.address, udp::Socket::new(buffer(), buffer()), 1);
                let (socket, _) = stack.socket::<udp::Socket>();
                socket.bind(header.destination_port()).expect("a port");
                socket.send_slice(&answer, (source(&sliced), header.source_port())).expect("room");
                stack.poll(now);
                stack.take_leaving()
            }
            (TransportSlice::Icmpv4(header), Doing::Echo(wrong)) => {
                let Icmpv4Type::EchoRequest(echo) = header.icmp_type() else { panic!("an echo request") };
                let (IpAddr::V4(from), IpAddr::V4(to)) = (self.address, source(&sliced)) else { panic!("IPv4") };
                let builder = PacketBuilder::ipv4(from.octets(), to.octets(), 60);
                vec![written(
                    |into, data| builder.icmpv4_echo_reply(echo.id, echo.seq).write(into, data),
                    header.payload(),
                    wrong,
                )]
            }
            (TransportSlice::Icmpv6(header), Doing::Echo(wrong)) => {
                let Icmpv6Type::EchoRequest(echo) = header.icmp_type() else { panic!("an echo request") };
                let (IpAddr::V6(from), IpAddr::V6(to)) = (self.address, source(&sliced)) else { panic!("IPv6") };
                let builder = PacketBuilder::ipv6(from.octets(), to.octets(), 60);
                vec![written(
                    |into, data| builder.icmpv6_echo_reply(echo.id, echo.seq).write(into, data),
                    header.payload(),
                    wrong,
                )]
            }
            _ => Vec::new(),
        }
    }

    fn listener(&self, now: Instant, port: u16, doing: &Doing) -> Stack {
        let buffer = || tcp::SocketBuffer::new(vec![0; 16 << 10]);
        let mut stack = Stack::new(now, self.address, tcp::Socket::new(buffer(), buffer()), 1);
        if !matches!(doing, Doing::Refuse) {
            stack.socket::<tcp::Socket>().0.listen(port).expect("a port");
        }
        stack
    }

    fn talk(&mut self, now: Instant, packet: &[u8], doing: &Doing) -> Vec<Vec<u8>> {
        let Some(stack) = &mut self.stack else { return Vec::new() };
        stack.receive(packet);
        stack.poll(now);
        let (socket, _) = stack.socket::<tcp::Socket>();
        let mut bytes = vec![0; 16 << 10];
        let count = socket.recv_slice(&mut bytes).unwrap_or(0);
        let mut piece = usize::MAX;
        let answer = match doing {
            Doing::Say(answer, length) => {
                piece = *length;
                self.heard.extend(&bytes[..count]);
                *answer
            }
            Doing::Tls(_, answer) => {
                let tls = self.tls.as_mut().expect("a connection");
                let mut rest = &bytes[..count];
                while !rest.is_empty() {
                    tls.read_tls(&mut rest).expect("bytes");
                    let _ = tls.process_new_packets();
                }
                let _ = tls.reader().read_to_end(&mut self.heard);
                *answer
            }
            Doing::Close => {
                if socket.may_send() {
                    socket.close();
                }
                ""
            }
            _ => "",
        };
        if self.heard.ends_with(b"\r\n\r\n") {
            assert!(self.heard.starts_with(b"GET /ok HTTP/1.1\r\nHost: www.example.org\r\n"), "{:?}", self.heard);
            self.heard.clear();
            match &mut self.tls {
                Some(tls) => tls.writer().write_all(answer.as_bytes()).expect("room"),
                None => self.to_say.extend(answer.bytes()),
            }
        }
        while self.tls.as_mut().is_some_and(|tls| tls.wants_write()) {
            self.tls.as_mut().expect("it is there").write_tls(&mut self.to_say).expect("a vector");
        }
        let mut leaving = Vec::new();
        while !self.to_say.is_empty() && socket_of(stack).can_send() {
            let length = piece.min(self.to_say.len());
            let said = socket_of(stack).send_slice(&self.to_say[..length]).expect("an open connection");
            self.to_say.drain(..said);
            stack.poll(now);
            leaving.extend(stack.take_leaving());
        }
        stack.poll(now);
        leaving.extend(stack.take_leaving());
        leaving
    }
}

fn socket_of(stack: &mut Stack) -> &mut tcp::Socket<'static> {
    stack.socket::<tcp::Socket>().0
}

fn source(packet: &SlicedPacket<'_>) -> IpAddr {
    match packet.net.as_ref().expect("an IP header") {
        NetSlice::Ipv4(slice) => slice.header().source_addr().into(),
        NetSlice::Ipv6(slice) => slice.header().source_addr().into(),
        other => panic!("{other:?}"),
    }
}

/// A packet whose payload differs in its first `wrong` bytes, padded as short Ethernet frames are.
fn written<E: std::fmt::Debug>(
    write: impl FnOnce(&mut Vec<u8>, &[u8]) -> Result<(), E>,
    data: &[u8],
    wrong: usize,
) -> Vec<u8> {
    let (mut packet, mut data) = (Vec::new(), data.to_vec());
    data[..wrong].iter_mut().for_each(|byte| *byte ^= 1);
    write(&mut packet, &data).expect("a packet");
    packet.resize(packet.len() + 6, 0);
    packet
}

/// The machine and the servers of the two children.
struct World {
    health: Health,
    servers: [Server; 2],
    now: Instant,
    changes: Vec<String>,
    commands: Vec<Command>,
    measured: Vec<(String, Duration)>,
}

impl World {
    fn new(address: &str, health: &str, doings: [Doing; 2]) -> World {
        let ip = address.parse().expect("an address");
        let servers = doings.map(|doing| Server::new(ip, doing));
        let health = Health::new(Instant::ZERO, &config(address, health), 5);
        World { health, servers, now: Instant::ZERO, changes: Vec::new(), commands: Vec::new(), measured: Vec::new() }
    }

    /// Lets time pass; packets take none.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            if self.health.next_deadline().is_some_and(|deadline| deadline <= self.now) {
                let outputs = self.health.handle(self.now, Input::Tick);
                self.take(outputs);
            }
            self.now = self.now + Duration::from_millis(1);
        }
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { host, member, packet } => {
                    assert_eq!(host, 1);
                    assert!(packet.len() <= 1280);
                    for answer in self.servers[member].receive(self.now, &packet) {
                        let taken = self.health.takes(&answer);
                        let outputs = self.health.handle(self.now, Input::Packet(&answer));
                        assert!(taken || outputs.is_empty());
                        self.take(outputs);
                    }
                }
                Output::Run(command) => self.commands.push(command),
                Output::Changed(change) => self.changes.push(change.to_string()),
                Output::Measured(child, time) => self.measured.push((child, time)),
            }
        }
    }

    /// How checks of the first child, `two`, have ended.
    fn results(&self) -> Vec<(&'static str, u64)> {
        let record = &self.health.records()[0];
        assert_eq!((&*record.virtual_host, &*record.child), ("web", "two"));
        let all = CheckResult::ALL.iter().map(|result| (result.label(), record.ended(*result).get()));
        all.filter(|(_, count)| *count > 0).collect()
    }
}

/// A certificate for www.example.org, and a file in which it is an authority's.
fn certificate() -> (Arc<rustls::ServerConfig>, tempfile::NamedTempFile) {
    let signed = rcgen::generate_simple_self_signed(["www.example.org".to_owned()]).expect("a certificate");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(signed.cert.pem().as_bytes()).expect("a file");
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .expect("a certificate and its key");
    (Arc::new(config), file)
}

#[test]
fn every_kind_finds_a_good_server_up_and_others_down_and_says_why() {
    const GET: &str = "{ http: { path: /ok, host: www.example.org, expect: 200-299 } }";
    const DNS: &str = "{ dns: { name: example.org, type: AAAA } }";
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: x\r\n\r\nok";
    const SILENT: &str = "no answer in 200ms";
    let (tls, file) = certificate();
    let verified =
        |name: &str| format!("{{ tls: {{ port: 443, server_name: {name}, ca: {} }} }}", file.path().display());
    let https = format!(
        "{{ https: {{ port: 8443, path: /ok, host: www.example.org, server_name: www.example.org, ca: {} }} }}",
        file.path().display()
    );
    let [good_name, other_name] = ["www.example.org", "other.example.org"].map(verified);
    let secure = |answer| Doing::Tls(tls.clone(), answer);
    let table: Vec<(&str, &str, Doing, &str)> = vec![
        (V4, "icmp", Doing::Echo(0), ""),
        (V6, "icmp", Doing::Echo(0), ""),
        (V4, "icmp", Doing::Echo(1), SILENT),
        (V6, "icmp", Doing::Echo(1), SILENT),
        (V4, "icmp", Doing::Silent, SILENT),
        (V4, "{ tcp: { port: 25 } }", Doing::Accept, ""),
        (V6, "{ tcp: { port: 25 } }", Doing::Accept, ""),
        (V4, "{ tcp: { port: 25 } }", Doing::Close, ""),
        (V4, "{ tcp: { port: 25 } }", Doing::Refuse, "connection refused"),
        (V6, "{ tcp: { port: 25 } }", Doing::Refuse, "connection refused"),
        (V4, "{ tcp: { port: 25 } }", Doing::Silent, SILENT),
        (V4, GET, Doing::Say(OK, 2000), ""),
        (V6, GET, Doing::Say(OK, 7), ""),
        (V4, GET, Doing::Say("HTTP/1.0 204 No Content\r\n\r\n", 2000), ""),
        (V4, GET, Doing::Say("HTTP/1.1 503 Service Unavailable\r\n\r\n", 2000), "HTTP status 503"),
        (V4, GET, Doing::Say("HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", 2000), "HTTP status 301"),
        (V4, GET, Doing::Say("220 mail.example.org ESMTP\r\n", 2000), "no HTTP answer: invalid HTTP version"),
        (V4, GET, Doing::Say("HTTP/1.1 200 OK\r\nContent-", 2000), SILENT),
        (V4, GET, Doing::Accept, SILENT),
        (V4, GET, Doing::Close, "connection closed before an answer"),
        (V4, GET, Doing::Refuse, "connection refused"),
        (V4, "tls", secure(""), ""),
        (V6, "tls", secure(""), ""),
        (V4, &good_name, secure(""), ""),
        (V4, &other_name, secure(""), "TLS: invalid peer certificate: certificate not valid for name"),
        (V4, "tls", Doing::Close, "connection closed before an answer"),
        (V4, "tls", Doing::Refuse, "connection refused"),
        (V4, "tls", Doing::Accept, SILENT),
        (V4, &https, secure(OK), ""),
        (V6, &https, secure(OK), ""),
        (V4, &https, secure("HTTP/1.1 500 Oh\r\n\r\n"), "HTTP status 500"),
        (V4, &https, secure("what"), "no HTTP answer: invalid HTTP version"),
        (V4, DNS, Doing::Dns(0, false, false), ""),
        (V6, DNS, Doing::Dns(0, false, false), ""),
        (V4, DNS, Doing::Dns(2, false, false), "DNS: the answer is ServerFailure"),
        (V4, DNS, Doing::Dns(3, false, false), "DNS: the answer is NameError"),
        (V4, DNS, Doing::Dns(0, true, false), SILENT),
        (V4, DNS, Doing::Dns(0, false, true), SILENT),
        (V4, DNS, Doing::Silent, SILENT),
    ];
    for (row, (address, health, doing, why)) in table.into_iter().enumerate() {
        // The other child, checked at the same time for the same address, never answers.
        let mut world = World::new(address, health, [doing, Doing::Silent]);
        world.pass(Duration::from_millis(1000));
        let of_two: Vec<&String> = world.changes.iter().filter(|change| change.contains("on two")).collect();
        if why.is_empty() {
            assert!(of_two.is_empty(), "row {row}, {health}: {of_two:?}");
            assert!(matches!(world.results()[..], [("success", 3..=5)]), "row {row}, {health}: {:?}", world.results());
        } else {
            assert_eq!(of_two.len(), 1, "row {row}, {health}: {of_two:?}");
            let said = format!("web on two is down: {why}");
            assert!(of_two[0].starts_with(&said), "row {row}, {health}: {}", of_two[0]);
            assert!(world.results().iter().all(|(result, _)| *result != "success"), "row {row}, {health}");
        }
        let other = world.changes.iter().filter(|change| change.as_str() == format!("web on one is down: {SILENT}"));
        assert_eq!(other.count(), 1, "row {row}, {health}: {:?}", world.changes);
    }
}

#[test]
fn a_server_that_dies_is_down_within_a_second_and_up_again_when_it_comes_back() {
    let mut world = World::new(V4, "{ tcp: { port: 80 } }", [Doing::Accept, Doing::Accept]);
    world.pass(Duration::from_secs(2));
    assert!(world.changes.is_empty());
    assert!(world.health.down().is_empty());

    world.servers[0].doing = Doing::Silent;
    world.pass(Duration::from_millis(861));
    assert_eq!(world.changes, ["web on two is down: no answer in 200ms"]);
    assert_eq!(world.health.down(), HashSet::from([("web".to_owned(), "two".to_owned())]));
    assert_eq!(world.health.records().iter().map(|record| record.up.get()).collect::<Vec<_>>(), [0, 1]);

    world.servers[0].doing = Doing::Accept;
    world.pass(Duration::from_millis(1000));
    assert_eq!(world.changes[1..], ["web on two is up"]);
    assert!(world.health.down().is_empty());
    // Nothing is left behind.
    world.pass(Duration::from_secs(60));
    assert!(world.health.prober.is_idle_but_for(2));
}

#[test]
fn a_child_that_must_prove_itself_is_down_at_first() {
    let health = "{ tcp: { port: 80 }, initial: down, rise: 3, interval: 100ms, jitter: 0% }";
    let mut world = World::new(V4, health, [Doing::Accept, Doing::Silent]);
    assert_eq!(world.health.down().len(), 2);
    world.pass(Duration::from_millis(200));
    assert_eq!(world.health.down().len(), 2);
    world.pass(Duration::from_millis(200));
    assert_eq!(world.changes, ["web on two is up"]);
    assert_eq!(world.health.down(), HashSet::from([("web".to_owned(), "one".to_owned())]));
}

#[test]
fn a_packet_of_another_or_a_wrong_one_disturbs_no_check() {
    let mut health = Health::new(Instant::ZERO, &config(V4, "{ tcp: { port: 80 } }"), 5);
    let now = Instant::ZERO + Duration::from_millis(500);
    let mut syns = health.handle(now, Input::Tick).into_iter().filter_map(|output| match output {
        Output::Send { packet, .. } => Some(packet),
        _ => None,
    });
    let [one, two] = [syns.next(), syns.next()].map(|syn| syn.expect("two checks"));
    let port = |packet: &[u8]| u16::from_be_bytes([packet[20], packet[21]]);
    assert_ne!(port(&one), port(&two));
    let answer = |from: [u8; 4], to: [u8; 4], port: u16, protocol: &str| {
        let (builder, mut packet) = (PacketBuilder::ipv4(from, to, 64), Vec::new());
        match protocol {
            "tcp" => builder.tcp(80, port, 1, 1000).rst().write(&mut packet, &[]),
            _ => builder.udp(80, port).write(&mut packet, &[]),
        }
        .expect("a packet");
        packet
    };
    let (host, own) = ([192, 0, 2, 80], [198, 51, 100, 1]);
    for (packet, takes) in [
        (answer(host, own, port(&one), "tcp"), true),
        (answer(host, own, port(&two), "tcp"), true),
        (answer(host, own, port(&one), "udp"), false),
        (answer([192, 0, 2, 81], own, port(&one), "tcp"), false),
        (answer(host, [198, 51, 100, 2], port(&one), "tcp"), false),
        (answer(host, own, 80, "tcp"), false),
        (vec![], false),
        (vec![0x45; 30], false),
    ] {
        assert_eq!(health.takes(&packet), takes, "{packet:02x?}");
        // A reset that acknowledges nothing of ours is nobody's answer either.
        assert_eq!(health.handle(now, Input::Packet(&packet)), []);
    }
}

#[test]
fn commands_are_run_with_what_they_need_and_judged_by_their_end() {
    let mut world = World::new(V4, "{ command: [/bin/check, -q], timeout: 200ms }", [Doing::Silent, Doing::Silent]);
    world.pass(Duration::from_millis(200));
    let [first, second] = [world.commands[0].clone(), world.commands[1].clone()];
    let of_two = if first.environment[1].1 == "two" { &first } else { &second };
    let environment = [("VIRTUAL_HOST", "web"), ("CHILD", "two"), ("ADDRESS", "203.0.113.2")];
    assert_eq!(of_two.environment, environment.map(|(name, value)| (name, value.to_owned())));
    assert_eq!(
        (of_two.words.as_slice(), of_two.timeout),
        (&["/bin/check".into(), "-q".into()][..], Duration::from_millis(200))
    );

    let mut world = World::new(
        V4,
        "{ command: [/bin/check], timeout: 200ms, interval: 500ms, fall: 2 }",
        [Doing::Silent, Doing::Silent],
    );
    for _ in 0..1500 {
        world.pass(Duration::from_millis(1));
        for command in std::mem::take(&mut world.commands) {
            // The one for `one` says nothing in time, and something too late.
            let result = if command.environment[1].1 == "two" { Err("it ended with 3".into()) } else { continue };
            let outputs = world.health.handle(world.now, Input::CommandDone(command.run, result));
            world.take(outputs);
            let late = world.health.handle(world.now, Input::CommandDone(command.run, Ok(())));
            assert_eq!(late, []);
        }
    }
    world.changes.sort();
    assert_eq!(world.changes, ["web on one is down: no answer in 200ms", "web on two is down: it ended with 3"]);
    assert!(world.results().iter().all(|(result, _)| *result == "wrong"));
}

#[test]
fn another_configuration_keeps_what_is_known() {
    let health = "{ tcp: { port: 80 } }";
    let mut world = World::new(V4, health, [Doing::Silent, Doing::Accept]);
    world.pass(Duration::from_secs(2));
    let down = HashSet::from([("web".to_owned(), "two".to_owned())]);
    assert_eq!(world.health.down(), down);
    let counted = world.results();
    for (health, kept) in [("{ tcp: { port: 81 }, interval: 1s }", true), ("{ icmp: {}, initial: down }", true)] {
        let other = world.health.reconfigured(world.now, &config(V4, health));
        assert_eq!(other.down() == down, kept, "{health}");
        assert_eq!(other.records()[0].ended(CheckResult::Timeout).get(), counted[0].1);
    }
    let unchecked = config(V4, health);
    let unchecked = Config { virtual_hosts: vec![unchecked.virtual_hosts[0].clone()], ..unchecked };
    assert!(world.health.reconfigured(world.now, &unchecked).down().is_empty());
}

/// 5,000 children that never answer: what runs and what is sent stays bounded, and each is found down.
#[test]
fn thousands_of_dead_children_are_all_found() {
    let mut yaml = String::from("router: { name: test, tunnel_addresses: [198.51.100.1] }\nchildren:\n");
    (0..5000).for_each(|n| yaml += &format!("  - {{ name: c{n}, address: 203.0.{}.{} }}\n", n / 250, n % 250 + 1));
    yaml += "virtual_hosts:\n  - name: web\n    addresses: [192.0.2.80]\n    health: { tcp: { port: 80 } }\n    children:\n";
    (0..5000).for_each(|n| yaml += &format!("      - c{n}\n"));
    let config = Config::parse(&yaml, "test.yaml").unwrap_or_else(|error| panic!("{error}"));
    let mut health = Health::new(Instant::ZERO, &config, 9);
    let mut most = 0;
    for millisecond in 0..1100 {
        let outputs = health.handle(Instant::ZERO + Duration::from_millis(millisecond), Input::Tick);
        most = most.max(outputs.len());
    }
    assert_eq!(health.down().len(), 5000);
    // Twenty start in a millisecond on average, and as many end.
    assert!(most < 400, "{most} outputs in a millisecond");
}

#[test]
fn checks_of_one_exchange_tell_how_long_it_took() {
    for (health, doing, tells) in [
        ("tcp: { port: 80 }", Doing::Accept, true),
        ("icmp: {}", Doing::Echo(0), true),
        ("icmp: {}", Doing::Silent, false),
        (
            "http: { path: /ok, host: www.example.org }",
            Doing::Say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 9),
            false,
        ),
    ] {
        let mut world = World::new(V4, &format!("{{ {health} }}"), [doing.clone(), doing]);
        world.pass(Duration::from_secs(1));
        let measured: HashSet<&str> = world.measured.iter().map(|(child, _)| child.as_str()).collect();
        assert_eq!(measured, if tells { HashSet::from(["one", "two"]) } else { HashSet::new() }, "{health}");
        assert!(world.measured.iter().all(|(_, time)| *time == Duration::ZERO), "packets take no time here");
    }
}
