//! Peers that mean harm, against a running router over real sockets: each is refused and counted, in little time and memory,
//! and a child that keeps to the rules goes on beside it.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use slr::control::session::child::hello;
use slr::control::wire::{Hello, Load, Message, Record, Sequence, State, Token, Update};
use slr::service::filter::Filter;
use slr::trust::{Credentials, SERVER_NAME};

use crate::common::{PATIENCE, wait_for};

use super::{Agent, DAY, Router, credentials, free, issue, shares, system};

const GIGABYTE: usize = 1 << 30;

/// What the system's buffers and the router's take before anybody can refuse it, in bytes.
const UNREAD: usize = 64 << 20;

/// A router with one honest child, and certificates for who comes to it.
struct Scene {
    at: SocketAddr,
    directory: tempfile::TempDir,
    system: Router,
    honest: Agent,
}

type Session = StreamOwned<ClientConnection, TcpStream>;

impl Scene {
    fn new() -> Scene {
        let at = free();
        let (directory, system) = system(at);
        issue(directory.path(), "site2", 1, &["192.0.2.0/24"], DAY, SystemTime::now());
        let honest = Agent::start(credentials(directory.path(), "site1"), "system1", at);
        honest.says("192.0.2.80/32", State::Serving, 0.5, 100);
        system.wait("services", shares, &serde_json::json!([1.0, 0.0]));
        Scene { at, directory, system, honest }
    }

    /// A handshake as who has these credentials, or as nobody.
    fn session(&self, credentials: Option<Credentials>) -> Session {
        let stream = TcpStream::connect(self.at).expect("a connection");
        self.session_over(stream, credentials).expect("a handshake")
    }

    fn session_over(&self, mut stream: TcpStream, credentials: Option<Credentials>) -> io::Result<Session> {
        let authority = super::read_authority(&self.directory.path().join("ca.pem")).expect("an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_protocol_versions(&[&TLS13]).expect("TLS 1.3").with_root_certificates(authority);
        let config = match credentials {
            Some(own) => {
                config.with_client_auth_cert(own.chain, own.key.clone_key()).expect("a certificate and its key")
            }
            None => config.with_no_client_auth(),
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let name = ServerName::try_from(SERVER_NAME).expect("a name");
        let mut tls = ClientConnection::new(Arc::new(config), name).expect("a connection");
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(tls, stream))
    }

    fn as_site2(&self) -> Session {
        self.session(Some(credentials(self.directory.path(), "site2")))
    }

    fn refused(&self, reason: &str) -> u64 {
        self.counter(&format!("slr_session_refusals_total{{reason=\"{reason}\"}}"))
    }

    fn counter(&self, name: &str) -> u64 {
        let lines = self.system.metrics(name);
        lines.first().and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Memory of the router, in bytes.
    fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.system.process.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
    }

    /// The honest child is where it was, and its news are fresh.
    fn goes_on(&self) {
        self.system.is_told_by(0);
        assert_eq!(shares(&self.system.json("services")), serde_json::json!([1.0, 0.0]));
    }

    /// What it says is still heard.
    fn end(self) {
        self.goes_on();
        self.honest.says.send(None).expect("an agent");
        // Its log line may be one too many beside those about the others.
        let state = |answer: &serde_json::Value| answer[0]["tells"]["state"].clone();
        self.system.wait("children", state, &serde_json::json!("silent"));
    }
}

/// Which children get new flows.
fn takers(answer: &serde_json::Value) -> serde_json::Value {
    shares(answer).as_array().into_iter().flatten().map(|share| share.as_f64() > Some(0.0)).collect()
}

/// Writes as much as it can of `count` bytes; how many it were.
fn pour(to: &mut impl Write, piece: &[u8], count: usize) -> usize {
    let mut written = 0;
    while written < count {
        match to.write(piece) {
            Ok(bytes) => written += bytes,
            Err(_) => break,
        }
    }
    written
}

/// Reads until the other end closes; everything that it said.
fn last_words(from: &mut impl Read) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        all.extend_from_slice(&buffer[..count]);
    }
    all
}

fn says(session: &mut Session, message: &Message) {
    session.write_all(&message.to_bytes()).and_then(|()| session.flush()).expect("a session");
}

fn update(sequence: u64, prefixes: &[&str]) -> Message {
    let record = |prefix: &&str| Record {
        prefix: prefix.parse().expect("a prefix"),
        service: Filter { protocol: Some(6), ports: 80..=80 },
        state: State::Serving,
        load: Load(0),
        capacity: 100,
    };
    let records = prefixes.iter().map(record).collect();
    Message::Update(Update { sequence: Sequence(sequence), sent: Token(0), records })
}

fn hello_of(name: &str, offers: &[&str]) -> Message {
    let offers = offers.iter().map(|net| net.parse().expect("a prefix")).collect();
    Message::Hello(Hello { offers, ..hello(name.to_owned(), 1) })
}

#[test]
fn who_has_no_certificate_or_is_another_or_claims_what_is_not_its_own_is_refused_for_that_reason() {
    let scene = Scene::new();
    // Without a certificate TLS 1.3 lets the client believe that it is in, until it hears more.
    let before = scene.refused("certificate");
    let mut nobody = scene.session(None);
    let _ = nobody.write_all(&hello_of("site2", &[]).to_bytes());
    assert!(last_words(&mut nobody).is_empty());
    scene.system.says("session refused (certificate)");
    assert_eq!(scene.refused("certificate"), before + 1);

    for (hello, reason, words) in [
        (hello_of("site1", &[]), "not_itself", "says that it is site1"),
        (
            hello_of("site2", &["198.51.100.0/24"]),
            "prefix",
            "offers 198.51.100.0/24, which its certificate does not allow",
        ),
        (hello_of("site2", &["192.0.0.0/16"]), "prefix", "offers 192.0.0.0/16"),
        (update(1, &["192.0.2.80/32"]), "malformed", "news before its hello"),
    ] {
        let before = scene.refused(reason);
        let mut session = scene.as_site2();
        says(&mut session, &hello);
        let answer = String::from_utf8_lossy(&last_words(&mut session)).into_owned();
        assert!(answer.contains(words), "{reason}: {answer}");
        assert!(scene.system.says(&format!("session refused ({reason})")).contains(words), "{reason}");
        assert_eq!(scene.refused(reason), before + 1, "{reason}");
    }

    // In an update, what is beyond the certificate is left out, and the rest counts.
    let mut session = scene.as_site2();
    says(&mut session, &hello_of("site2", &["192.0.2.0/24"]));
    says(&mut session, &update(1, &["198.51.100.7/32", "192.0.2.0/24", "0.0.0.0/0"]));
    scene.system.says("site2 reports 198.51.100.7/32, which its certificate does not allow (2 such records)");
    assert_eq!(scene.counter("slr_session_records_refused_total"), 2);
    scene.end();
}

#[test]
fn a_gigabyte_of_junk_is_cut_off_early_and_takes_no_memory() {
    let scene = Scene::new();
    let memory = scene.memory();
    let junk = vec![0xa5; 1 << 20];
    // Instead of TLS.
    let begun = Instant::now();
    let mut stream = TcpStream::connect(scene.at).expect("a connection");
    let poured = pour(&mut stream, &junk, GIGABYTE);
    assert!(poured < UNREAD, "{poured} bytes were taken instead of a handshake");
    scene.system.says("session refused (certificate)");

    // In a session: what is no message, and then messages that a later version may have, one after the other.
    let mut session = scene.as_site2();
    let poured = pour(&mut session, &junk, GIGABYTE);
    assert!(poured < UNREAD, "{poured} bytes were taken in a session");
    scene.system.says("session refused (malformed)");
    let later = [&[200, 0, 0xff, 0xff][..], &[0; 0xffff]].concat();
    let mut session = scene.as_site2();
    says(&mut session, &hello_of("site2", &[]));
    let poured = pour(&mut session, &later, GIGABYTE);
    assert!(poured < UNREAD, "{poured} bytes of unknown messages were taken");
    scene.system.says("session refused (too_fast)");
    // Small ones.
    let mut session = scene.as_site2();
    says(&mut session, &hello_of("site2", &[]));
    let poured = pour(&mut session, &[200, 0, 0, 0].repeat(4096), GIGABYTE);
    assert!(poured < UNREAD, "{poured} bytes of small messages were taken");
    scene.system.says("session refused (too_fast)");

    assert!(begun.elapsed() < PATIENCE, "it took {:?}", begun.elapsed());
    let grown = scene.memory().saturating_sub(memory);
    assert!(grown < 64 << 20, "the router has grown by {grown} bytes");
    assert_eq!((scene.refused("malformed"), scene.refused("too_fast")), (1, 2));
    scene.end();
}

/// Sends a byte a second until the other end closes; how long that took.
fn dribble(mut to: impl Write, bytes: &[u8]) -> Duration {
    let begun = Instant::now();
    for byte in bytes {
        if to.write_all(&[*byte]).and_then(|()| to.flush()).is_err() || begun.elapsed() > PATIENCE {
            break;
        }
        thread::sleep(Duration::from_secs(1));
    }
    begun.elapsed()
}

#[test]
fn one_byte_a_second_is_too_slow_wherever_it_stops() {
    let scene = Scene::new();
    let mut updating = scene.as_site2();
    says(&mut updating, &hello_of("site2", &[]));
    scene.system.says("child site2, level 1, has opened a session");
    let (handshake, mut greeting) = (TcpStream::connect(scene.at).expect("a connection"), scene.as_site2());
    // The start of a handshake that announces the longest there is.
    let client_hello = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3][..], &[7; 100]].concat();
    let times: Vec<Duration> = thread::scope(|scope| {
        let threads = [
            scope.spawn(|| dribble(handshake, &client_hello)),
            scope.spawn(|| dribble(&mut greeting, &[hello_of("site2", &[]).to_bytes(), vec![0; 200]].concat())),
            scope.spawn(|| dribble(&mut updating, &update(1, &["192.0.2.80/32"; 20]).to_bytes())),
        ];
        threads.map(|thread| thread.join().expect("no panic")).into()
    });
    // A write is refused only after the one that finds the connection closed.
    assert!(times.iter().all(|time| *time < Duration::from_secs(30)), "{times:?}");
    assert_eq!(scene.refused("too_slow"), 2, "a hello and an update");
    assert!(scene.refused("certificate") >= 1, "a handshake");
    scene.end();
}

#[test]
fn a_session_that_is_played_again_or_cut_short_changes_nothing() {
    let scene = Scene::new();
    let between = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let via = between.local_addr().expect("an address");
    let (at, cutting) = (scene.at, Arc::new(AtomicBool::new(false)));
    // Lets what the child says through and writes it down; is the line to be cut, that is in the middle of something.
    let cut = cutting.clone();
    let recording = thread::spawn(move || {
        let (mut child, _) = between.accept().expect("the child");
        let mut parent = TcpStream::connect(at).expect("the router");
        let (mut back, mut forth) = (parent.try_clone().expect("a socket"), child.try_clone().expect("a socket"));
        thread::spawn(move || io::copy(&mut back, &mut forth));
        let (mut recorded, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let count = child.read(&mut buffer).expect("bytes");
            let last = cut.load(Ordering::Relaxed);
            let passed = &buffer[..if last { count / 2 } else { count }];
            parent.write_all(passed).expect("the router takes them");
            recorded.extend_from_slice(passed);
            if last {
                let _ = (parent.shutdown(Shutdown::Both), child.shutdown(Shutdown::Both));
                return recorded;
            }
        }
    });
    let other = Agent::start(credentials(scene.directory.path(), "site2"), "system1", via);
    other.says("192.0.2.80/32", State::Serving, 0.5, 100);
    scene.system.wait("services", takers, &serde_json::json!([true, true]));
    cutting.store(true, Ordering::Relaxed);
    let recorded = recording.join().expect("a recording");
    scene.system.says("the session of child site2 is closed");
    // What it has said before is believed for three intervals, and no longer.
    scene.system.says("child site2 has not reported for");
    scene.system.wait("services", shares, &serde_json::json!([1.0, 0.0]));

    let before = scene.refused("certificate");
    let mut again = TcpStream::connect(scene.at).expect("a connection");
    let _ = again.write_all(&recorded);
    let _ = again.shutdown(Shutdown::Write);
    last_words(&mut again);
    scene.system.says("session refused (certificate)");
    assert_eq!(scene.refused("certificate"), before + 1);
    assert_eq!(shares(&scene.system.json("services")), serde_json::json!([1.0, 0.0]));
    scene.end();
}

/// A connection from another address of loopback.
fn from(address: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let SocketAddr::V4(to) = to else { panic!("loopback is IPv4 here") };
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddrV4::new(address, 0)).expect("an address of loopback");
    connect(&socket, &to).expect("a connection");
    socket.into()
}

#[test]
fn one_address_that_keeps_handshakes_open_leaves_room_for_others() {
    let scene = Scene::new();
    let memory = scene.memory();
    let before = scene.refused("certificate");
    let attacker = Ipv4Addr::new(127, 0, 0, 2);
    let mut open: Vec<TcpStream> = (0..200).map(|_| from(attacker, scene.at)).collect();
    // All but 16 are closed at once.
    wait_for("184 refusals", || scene.refused("certificate") >= before + 184);
    // Another child comes in meanwhile.
    let other = Agent::start(credentials(scene.directory.path(), "site2"), "system1", scene.at);
    other.says("192.0.2.80/32", State::Serving, 0.5, 100);
    scene.system.wait("services", takers, &serde_json::json!([true, true]));
    other.says.send(None).expect("an agent");
    scene.system.wait("services", shares, &serde_json::json!([1.0, 0.0]));
    // The 16 are closed when their time is over.
    open.iter_mut().for_each(|stream| assert!(last_words(stream).is_empty()));
    assert!(scene.memory().saturating_sub(memory) < 32 << 20);
    scene.end();
}

#[test]
fn a_child_that_opens_sessions_and_says_nothing_has_one_at_a_time() {
    let scene = Scene::new();
    let mut silent: Vec<Session> = (0..10).map(|_| scene.as_site2()).collect();
    let last = silent.pop().expect("the last one");
    for session in &mut silent {
        let words = String::from_utf8_lossy(&last_words(session)).into_owned();
        assert!(words.contains("has opened another session"), "{words}");
    }
    assert_eq!(scene.refused("replaced"), 9);
    drop(last);
    scene.end();
}
