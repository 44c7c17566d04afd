//! Two routers and a host server's agent over TLS on loopback: what the agent says is in force two levels above. And peers
//! that do not belong there.

#![cfg(feature = "dpdk")]

mod attacks;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use slr::agent::load::Sample;
use slr::agent::parents::Upward;
use slr::agent::report::{HostReport, Report};
use slr::config::host::HostConfig;
use slr::control::session::child::{self, ChildEnd, hello};
use slr::control::session::parents::Parents;
use slr::control::session::{Carrier, Happening};
use slr::control::wire::{Hello, Load, Record, State, TunnelEnd};
use slr::service::filter::Filter;
use slr::transport::tls::{Renewal, Tls};
use slr::trust::authority::{self, Node};
use slr::trust::{Credentials, read_authority, read_chain, read_key};

use crate::common::{PATIENCE, wait_for};

/// A running router; killed when the test fails.
struct Router {
    process: Child,
    socket: PathBuf,
    metrics: SocketAddr,
    said: Receiver<String>,
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port of loopback that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

impl Router {
    /// A router on a device that receives nothing.
    fn start(directory: &Path, name: &str, rest: &str) -> Router {
        let (socket, metrics) = (directory.join(format!("{name}.sock")), free());
        let file = directory.join(format!("{name}.yaml"));
        let pem = |end: &str| directory.join(end).display().to_string();
        let text = format!(
            r#"
dpdk: {{ hugepages: never, memory: 64MiB, buffers: 2048 }}
flows: {{ capacity_v4: 1000, capacity_v6: 1000 }}
ports: [{{ name: only, device: "net_null0,no-rx=1", mtu: 1600, addresses: [10.9.0.254/24] }}]
metrics: {{ listen: "{metrics}" }}
control:
  socket: "{}"
  interval: 200ms
  certificate: "{}"
  key: "{}"
  authority: "{}"
{rest}
"#,
            socket.display(),
            pem(&format!("{name}.pem")),
            pem(&format!("{name}.key")),
            pem("ca.pem"),
        );
        fs::write(&file, text).expect("a file");
        let mut slrd = Command::new(env!("CARGO_BIN_EXE_slrd"));
        slrd.arg("--config").arg(&file).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = slrd.spawn().expect("slrd");
        let lines = BufReader::new(process.stderr.take().expect("a pipe")).lines();
        let (sender, said) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let router = Router { process, socket, metrics, said };
        router.says("metrics at");
        router
    }

    /// Waits for a line with these words.
    fn says(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut before = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.said.recv_timeout(left) else { panic!("\"{words}\" is not said, but:\n{before}") };
            if line.contains(words) {
                return line;
            }
            before += &format!("{line}\n");
        }
    }

    fn text(&self, arguments: &[&str]) -> String {
        let mut slrctl = Command::new(env!("CARGO_BIN_EXE_slrctl"));
        let output = slrctl.env("SLRCTL_SOCKET", &self.socket).args(arguments).output().expect("slrctl");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn json(&self, what: &str) -> Value {
        serde_json::from_str(&self.text(&["--json", what])).expect("JSON")
    }

    /// Waits until what `find` finds in an answer is `expected`.
    fn wait(&self, what: &str, find: impl Fn(&Value) -> Value, expected: &Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.json(what);
            if find(&answer) == *expected {
                return;
            }
            assert!(Instant::now() < deadline, "{expected} does not come about, but:\n{answer:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for news of a child, which is connected.
    fn is_told_by(&self, child: usize) {
        wait_for("news", || {
            let tells = &self.json("children")[child]["tells"];
            assert_eq!(tells["state"], "connected");
            tells["age_seconds"].as_f64().expect("an age") < 0.5
        });
    }

    /// The metrics whose names start so.
    fn metrics(&self, name: &str) -> Vec<String> {
        let mut stream = TcpStream::connect(self.metrics).expect("the endpoint");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("a request");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
    }
}

fn issue(directory: &Path, name: &str, level: u8, offers: &[&str], lifetime: Duration, now: SystemTime) {
    let offers = offers.iter().map(|net| net.parse().expect("a prefix")).collect();
    authority::issue(directory, &Node { name: name.into(), level, offers }, now, lifetime).expect("a certificate");
}

fn credentials(directory: &Path, name: &str) -> Credentials {
    let (chain, identity) = read_chain(&directory.join(format!("{name}.pem"))).expect("a certificate");
    let key = read_key(&directory.join(format!("{name}.key"))).expect("a key");
    Credentials { identity, chain, key, authority: read_authority(&directory.join("ca.pem")).expect("an authority") }
}

/// A host server's end of a session, on a thread of its own. Dropped, it says nothing more.
struct Agent {
    says: Sender<Option<Vec<Record>>>,
    told: Receiver<String>,
}

impl Agent {
    fn start(credentials: Credentials, parent: &str, to: SocketAddr) -> Agent {
        Agent::start_at(credentials, parent, to, Vec::new())
    }

    /// One that says where its tunnels end.
    fn start_at(credentials: Credentials, parent: &str, to: SocketAddr, tunnels: Vec<TunnelEnd>) -> Agent {
        let ((says, orders), (tell, told)) = (channel(), channel());
        let (parent, start) = (parent.to_owned(), Instant::now());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut tls = Tls::new(&credentials, None).expect("TLS");
                let now = || slr::clock::Instant::ZERO + start.elapsed();
                let hello = Hello { tunnels, ..hello(credentials.identity.name.clone(), credentials.identity.level) };
                let mut parents: Parents<SocketAddr> =
                    [(ChildEnd::new(now(), hello, parent, 7), to)].into_iter().collect();
                let mut records = Vec::new();
                loop {
                    let (mut lines, mut rest) = (Vec::new(), Vec::new());
                    parents.handle(now(), &child::Input::Tick, &mut tls, &mut rest);
                    match orders.try_recv() {
                        Ok(Some(new)) => records = new,
                        Ok(None) => {
                            parents.handle(now(), &child::Input::Leave("maintenance"), &mut tls, &mut rest);
                        }
                        Err(TryRecvError::Disconnected) => break,
                        Err(TryRecvError::Empty) => {}
                    }
                    while let Some(happening) = tls.poll() {
                        if let Happening::Closed(_, why) = &happening {
                            lines.push(why.clone());
                        }
                        parents.take_in(now(), happening, &mut tls, &mut rest);
                    }
                    parents.report(now(), || records.clone(), &mut tls, &mut rest);
                    lines.extend(rest.into_iter().filter_map(child::Output::line));
                    lines.into_iter().for_each(|line| drop(tell.send(line)));
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
        });
        Agent { says, told }
    }

    fn says(&self, prefix: &str, state: State, load: f64, capacity: u32) {
        let prefix = prefix.parse().expect("a prefix");
        let service = Filter { protocol: Some(6), ports: 80..=80 };
        let record = Record { prefix, service, state, load: Load::from_ratio(load), capacity };
        self.says.send(Some(vec![record])).expect("an agent");
    }

    /// Waits for a line with these words.
    fn hears(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.told.recv_timeout(left).unwrap_or_else(|_| panic!("\"{words}\" is not heard"));
            if line.contains(words) {
                return;
            }
        }
    }
}

/// What a real agent's report says of its only virtual host.
fn report(draining: bool) -> Report {
    let host = HostReport {
        name: "web".into(),
        prefixes: ["192.0.2.80/32".parse().expect("a prefix")].into(),
        services: [Filter { protocol: Some(6), ports: 80..=80 }].into(),
        failure: None,
        sample: Sample { load: 0.5, ..Sample::default() },
        application: None,
        traffic: Default::default(),
    };
    Report { draining, virtual_hosts: vec![host] }
}

/// The configuration of the host server "server1", with its certificates in a directory.
fn host(directory: &Path, parents: &str) -> HostConfig {
    let files = ["server1.pem", "server1.key", "ca.pem"].map(|name| directory.join(name).display().to_string());
    let text = format!(
        "agent: {{ name: server1, tunnel_addresses: [10.9.0.1] }}\ninterfaces: [eth0]\nrouters: [10.9.0.254]\n\
         parents: [{parents}]\nvirtual_hosts: [{{ name: web, addresses: [192.0.2.80], services: [tcp/80] }}]\n\
         load: {{ capacity: 250 }}\n\
         control: {{ certificate: \"{}\", key: \"{}\", authority: \"{}\" }}\n",
        files[0], files[1], files[2]
    );
    HostConfig::parse(&text, "h.yaml").unwrap_or_else(|error| panic!("{error}"))
}

/// A real agent's sessions, until `orders` ends; an order is to drain. Says when it is drained.
fn drive(config: &HostConfig, orders: &Receiver<()>, drained: &Sender<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut upward = Upward::new(config, 7).expect("TLS");
        let (mut draining, mut told) = (false, false);
        loop {
            let _ = tokio::time::timeout(Duration::from_millis(20), upward.due()).await;
            upward.pass(&report(draining));
            match orders.try_recv() {
                Ok(()) => {
                    draining = true;
                    upward.drain(&report(draining));
                }
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {}
            }
            if draining && !told && upward.is_drained() {
                told = true;
                drained.send(()).expect("a test");
            }
        }
        upward.leave().await;
    });
}

const DAY: Duration = Duration::from_secs(86_400);

/// An authority, the certificates of a system, its site and a server, and the router of the system.
fn system(at: SocketAddr) -> (tempfile::TempDir, Router) {
    let directory = tempfile::tempdir().expect("a directory");
    let now = SystemTime::now();
    authority::init(directory.path(), "test", now).expect("an authority");
    issue(directory.path(), "system1", 2, &[], DAY, now);
    issue(directory.path(), "site1", 1, &["192.0.2.0/24"], DAY, now);
    let rest = format!(
        r#"
  listen: "{at}"
router: {{ name: system1, level: system, tunnel_addresses: [10.9.0.254] }}
children:
  - {{ name: site1, address: 10.9.0.1, register: required }}
  - {{ name: site2, address: 10.9.0.2, register: required }}
virtual_hosts: [{{ name: web, addresses: [192.0.2.80], services: [tcp/80], table_size: 251, children: [site1, site2] }}]
"#
    );
    let router = Router::start(directory.path(), "system1", &rest);
    (directory, router)
}

fn load(child: usize) -> impl Fn(&Value) -> Value {
    move |answer| {
        let tells = &answer[child]["tells"];
        let host = &tells["hosts"][0];
        serde_json::json!([tells["state"], host["state"], host["load"], host["capacity"]])
    }
}

fn shares(answer: &Value) -> Value {
    answer[0]["children"].as_array().into_iter().flatten().map(|child| child["share"].clone()).collect()
}

#[test]
fn who_says_hello_is_a_child_where_anyone_below_may_be_one() {
    let (at, directory, now) = (free(), tempfile::tempdir().expect("a directory"), SystemTime::now());
    authority::init(directory.path(), "test", now).expect("an authority");
    for (name, level) in [("system1", 2), ("system2", 2), ("site1", 1), ("homeless", 1)] {
        issue(directory.path(), name, level, &["192.0.2.0/24"], DAY, now);
    }
    let rest = format!(
        r#"
  listen: "{at}"
  registration: anyone
router: {{ name: system1, level: system, tunnel_addresses: [10.9.0.254], parents: [10.9.0.200] }}
children: [{{ name: spare, address: 10.9.0.9 }}]
virtual_hosts:
  - {{ name: web, addresses: [192.0.2.80], services: [tcp/80], table_size: 251, children: all }}
  - {{ name: own, addresses: [198.51.100.80], table_size: 251, children: [spare] }}
"#
    );
    let system = Router::start(directory.path(), "system1", &rest);
    system.wait("services", shares, &serde_json::json!([1.0]));
    // Of another version, out of reach, a parent's, and good.
    let end = |kind, address: &str| TunnelEnd { kind, port: 0, address: address.parse().expect("an address") };
    let ends = vec![end(9, "10.9.0.1"), end(1, "203.0.113.1"), end(1, "10.9.0.200"), end(3, "10.9.0.1")];
    let agent = Agent::start_at(credentials(directory.path(), "site1"), "system1", at, ends);
    system.says("site1 is a child at 10.9.0.1 now");
    system.wait("services", shares, &serde_json::json!([1.0, 0.0]));
    agent.says("192.0.2.80/32", State::Serving, 0.5, 300);
    let half = |answer: &Value| {
        let share = answer[0]["children"][1]["share"].as_f64().unwrap_or_default();
        serde_json::json!([(0.49..0.51).contains(&share), answer[1]["children"].as_array().map(Vec::len)])
    };
    system.wait("services", half, &serde_json::json!([true, 1]));
    // It stays one when the configuration is read again.
    system.text(&["reload"]);
    system.wait("services", half, &serde_json::json!([true, 1]));

    let homeless = Agent::start(credentials(directory.path(), "homeless"), "system1", at);
    system.says("homeless is no child: it tells no tunnel end that can be reached");
    let equal = Agent::start(credentials(directory.path(), "system2"), "system1", at);
    system.says("system2 has level 2 in its certificate, which is not below 2 of system1");
    system.wait("services", half, &serde_json::json!([true, 1]));
    drop((homeless, equal));
    assert_eq!(system.metrics("slr_registered_children "), ["slr_registered_children 1"]);
    assert_eq!(system.metrics("slr_registrations_refused_total "), ["slr_registrations_refused_total 1"]);

    agent.says.send(None).expect("an agent");
    system.wait("services", shares, &serde_json::json!([1.0, 0.0]));
    // It comes back, somewhere else.
    let ends = vec![end(1, "10.9.0.2")];
    let agent = Agent::start_at(credentials(directory.path(), "site1"), "system1", at, ends);
    system.says("site1 is a child at 10.9.0.2 now");
    agent.says("192.0.2.80/32", State::Serving, 0.5, 300);
    system.wait("services", half, &serde_json::json!([true, 1]));
}

#[test]
fn what_a_server_says_is_in_force_two_levels_above() {
    let (upper, lower) = (free(), free());
    let (directory, system) = system(upper);
    issue(directory.path(), "server1", 0, &["192.0.2.80/32"], DAY, SystemTime::now());
    system.wait("services", shares, &serde_json::json!([0.0, 0.0]));
    let rest = format!(
        r#"
  listen: "{lower}"
router: {{ name: site1, level: site, tunnel_addresses: [10.9.0.254] }}
parents: [{{ name: system1, address: "{upper}" }}]
children:
  - {{ name: server1, address: 10.9.0.1, register: required }}
  - {{ name: server2, address: 10.9.0.2 }}
virtual_hosts:
  - {{ name: web, addresses: [192.0.2.80], services: [tcp/80], table_size: 251, children: [server1, server2] }}
  - {{ name: foreign, addresses: [198.51.100.80], children: [server2] }}
"#
    );
    let mut site = Router::start(directory.path(), "site1", &rest);

    // Only the server that has no agent takes flows; above that is a site with its capacity and no load.
    system.wait("children", load(0), &serde_json::json!(["connected", "serving", 0.0, 100]));
    system.wait("services", shares, &serde_json::json!([1.0, 0.0]));
    site.wait("services", shares, &serde_json::json!([0.0, 1.0]));

    let agent = Agent::start(credentials(directory.path(), "server1"), "site1", lower);
    agent.says("192.0.2.80/32", State::Serving, 0.5, 300);
    site.wait("children", load(0), &serde_json::json!(["connected", "serving", 0.5, 300]));
    // (0.5 * 300 + 0 * 100) / 400
    system.wait("children", load(0), &serde_json::json!(["connected", "serving", 0.375, 400]));
    let shown = system.text(&["children"]);
    assert!(shown.contains("37.5 %") && shown.contains("silent"), "{shown}");
    let parents = site.json("parents");
    assert_eq!((&parents[0]["name"], &parents[0]["state"]), (&"system1".into(), &"established".into()));

    // What the certificate does not allow is refused above, and both say so.
    system.says("reports 198.51.100.80/32, which its certificate does not allow");
    site.says("refuses (prefix): site1 reports 198.51.100.80/32");
    let refused = &system.json("children")[0]["tells"]["records_refused"];
    assert_eq!(refused, 1, "{refused}");

    for (router, metric) in [
        (&system, r#"slr_child_load{child="site1",virtual_host="web"} 0.375"#),
        (&system, r#"slr_child_connected{child="site2"} 0"#),
        (&site, r#"slr_child_capacity{child="server1",virtual_host="web"} 300"#),
        (&site, r#"slr_parent_connected{parent="system1"} 1"#),
        (&site, r#"slr_session_refusals_total{reason="prefix"} 0"#),
    ] {
        let found = router.metrics(metric.split(['{', ' ']).next().expect("a name"));
        assert!(found.iter().any(|line| line == metric), "{metric} is not among {found:#?}");
    }

    // It drains, and the last that can take flows says that it is down.
    agent.says("192.0.2.80/32", State::Draining, 0.9, 300);
    system.wait("children", load(0), &serde_json::json!(["connected", "serving", 0.0, 100]));
    site.wait("services", shares, &serde_json::json!([0.0, 1.0]));
    site.text(&["drain", "server2"]);
    system.wait("children", load(0), &serde_json::json!(["connected", "draining", 0.0, 0]));
    system.wait("services", shares, &serde_json::json!([0.0, 0.0]));
    agent.says("192.0.2.80/32", State::Serving, 0.1, 300);
    system.wait("children", load(0), &serde_json::json!(["connected", "serving", 0.1, 300]));

    // An agent that dies is believed for three intervals and no longer.
    drop(agent);
    site.says("child server1 has not reported for 600ms");
    system.wait("services", shares, &serde_json::json!([0.0, 0.0]));

    // A site that stops says so.
    let pid = site.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    system.says("child site1 has left: it stops");
    assert!(site.process.wait().expect("an end").success());
    system.wait("children", load(0), &serde_json::json!(["silent", null, null, null]));
}

#[test]
fn an_agent_speaks_with_all_of_its_parents_though_one_is_dead_and_leaves_when_all_know() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, now) = (directory.path(), SystemTime::now());
    authority::init(path, "test", now).expect("an authority");
    issue(path, "server1", 0, &["192.0.2.80/32"], DAY, now);
    let parents = ["site1", "site2", "dead"].map(|name| (name, free()));
    let routers = parents.map(|(name, at)| {
        issue(path, name, 1, &["192.0.2.0/24"], DAY, now);
        let rest = format!(
            r#"
  listen: "{at}"
router: {{ name: {name}, tunnel_addresses: [10.9.0.254] }}
children: [{{ name: server1, address: 10.9.0.1, register: required }}]
virtual_hosts: [{{ name: web, addresses: [192.0.2.80], services: [tcp/80], table_size: 251, children: [server1] }}]
"#
        );
        (name != "dead").then(|| Router::start(path, name, &rest))
    });
    let list = parents.map(|(name, at)| format!("{{ name: {name}, address: \"{at}\" }}")).join(", ");
    let config = host(path, &list);
    let ((order, orders), (tell, drained)) = (channel(), channel());
    let agent = std::thread::spawn(move || drive(&config, &orders, &tell));

    let living = || routers.iter().flatten();
    for router in living() {
        router.wait("children", load(0), &serde_json::json!(["connected", "serving", 0.5, 250]));
        router.wait("services", shares, &serde_json::json!([1.0]));
    }
    order.send(()).expect("an agent");
    drained.recv_timeout(PATIENCE).expect("both have heard it");
    for router in living() {
        // What an agent goes by is so already.
        assert_eq!(load(0)(&router.json("children")), serde_json::json!(["connected", "draining", 0.5, 250]));
        router.wait("services", shares, &serde_json::json!([0.0]));
    }
    drop(order);
    agent.join().expect("an end");
    living().for_each(|router| drop(router.says("child server1 has left: it stops")));
}

#[test]
fn who_does_not_belong_there_is_refused_and_counted_and_disturbs_nobody() {
    let at = free();
    let (directory, system) = system(at);
    let now = SystemTime::now();
    let elsewhere = tempfile::tempdir().expect("a directory");
    authority::init(elsewhere.path(), "another", now).expect("an authority");
    issue(elsewhere.path(), "site2", 1, &["192.0.2.0/24"], DAY, now);
    issue(directory.path(), "old", 1, &["192.0.2.0/24"], DAY, now - 3 * DAY);
    issue(directory.path(), "stranger", 1, &["0.0.0.0/0"], DAY, now);

    let honest = Agent::start(credentials(directory.path(), "site1"), "system1", at);
    honest.says("192.0.2.80/32", State::Serving, 0.5, 100);
    system.wait("services", shares, &serde_json::json!([1.0, 0.0]));

    // Another authority's, trusting ours; an old one; one that is no child here.
    let forged = Credentials {
        authority: read_authority(&directory.path().join("ca.pem")).expect("an authority"),
        ..credentials(elsewhere.path(), "site2")
    };
    let forged = Agent::start(forged, "system1", at);
    forged.hears("UnknownCA");
    drop(forged);
    let old = Agent::start(credentials(directory.path(), "old"), "system1", at);
    old.hears("CertificateExpired");
    drop(old);
    let stranger = Agent::start(credentials(directory.path(), "stranger"), "system1", at);
    stranger.hears("system1 has no child stranger");
    drop(stranger);

    // No TLS at all, in one go and byte by byte; and a handshake that is left alone.
    let mut junk = TcpStream::connect(at).expect("a connection");
    let _ = junk.write_all(&[0xa5; 1 << 20]);
    let mut alert = Vec::new();
    let _ = junk.read_to_end(&mut alert);
    let mut idle = TcpStream::connect(at).expect("a connection");
    let _ = idle.write_all(&[0x16]);
    let begun = Instant::now();
    let _ = idle.read(&mut [0]);
    assert!(begun.elapsed() < PATIENCE, "a handshake that does not begin is not ended");
    system.says("no handshake in 5s");

    let counted = system.metrics("slr_session_refusals_total");
    let count = |reason: &str| {
        let start = format!("slr_session_refusals_total{{reason=\"{reason}\"}} ");
        counted.iter().find_map(|line| line.strip_prefix(&start)?.parse::<u32>().ok()).expect("a counter")
    };
    assert!(count("certificate") >= 4 && count("unknown_child") >= 1, "{counted:#?}");
    system.is_told_by(0);
    assert_eq!(shares(&system.json("services")), serde_json::json!([1.0, 0.0]));
    honest.says.send(None).expect("an agent");
    system.says("child site1 has left: maintenance");
}

#[test]
fn certificates_are_renewed_by_a_reload_and_sessions_that_are_up_stay() {
    let at = free();
    let directory = tempfile::tempdir().expect("a directory");
    let (path, now) = (directory.path(), SystemTime::now());
    let elsewhere = tempfile::tempdir().expect("a directory");
    for (directory, life) in [(path, DAY), (elsewhere.path(), 9 * DAY)] {
        authority::init(directory, "test", now).expect("an authority");
        issue(directory, "site1", 1, &["192.0.2.0/24"], life, now);
        issue(directory, "server1", 0, &["192.0.2.80/32"], life, now);
        issue(directory, "server2", 0, &["192.0.2.80/32"], life, now);
    }
    let rest = format!(
        r#"
  listen: "{at}"
router: {{ name: site1, tunnel_addresses: [10.9.0.254] }}
children:
  - {{ name: server1, address: 10.9.0.1, register: required }}
  - {{ name: server2, address: 10.9.0.2, register: required }}
virtual_hosts: [{{ name: web, addresses: [192.0.2.80], services: [tcp/80], table_size: 251, children: [server1, server2] }}]
"#
    );
    let router = Router::start(path, "site1", &rest);
    let state = |child: usize| move |answer: &Value| answer[child]["tells"]["state"].clone();
    let up = Agent::start(credentials(path, "server2"), "site1", at);
    up.says("192.0.2.80/32", State::Serving, 0.5, 100);
    router.wait("children", state(1), &"connected".into());

    // Half of what is new is refused, and nothing changes.
    let take = |name: &str| assert!(fs::copy(elsewhere.path().join(name), path.join(name)).expect("a file") > 0);
    let before = host(path, &format!("{{ name: site1, address: \"{at}\" }}"));
    take("site1.key");
    let mut slrctl = Command::new(env!("CARGO_BIN_EXE_slrctl"));
    let refused = slrctl.env("SLRCTL_SOCKET", &router.socket).arg("reload").output().expect("slrctl");
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && words.contains("does not belong to certificate"), "{words}");
    ["site1.pem", "ca.pem", "server1.pem", "server1.key"].into_iter().for_each(take);
    let lifetime = || router.json("status")["certificate_seconds"].as_f64().expect("a time");
    assert!(lifetime() < DAY.as_secs_f64());
    router.text(&["reload"]);
    assert!(lifetime() > 8.0 * DAY.as_secs_f64(), "{}", lifetime());

    // Who comes with what was believed before is refused, until it reads its own files again.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut upward = Upward::new(&before, 7).expect("TLS");
        let after = host(path, &format!("{{ name: site1, address: \"{at}\" }}"));
        let renewal = Renewal::new(after.credentials.as_ref().expect("credentials")).expect("TLS");
        let (mut renewal, start) = (Some(renewal), Instant::now());
        while state(0)(&router.json("children")) != "connected" {
            assert!(start.elapsed() < PATIENCE, "it is not let in");
            let _ = tokio::time::timeout(Duration::from_millis(20), upward.due()).await;
            upward.pass(&report(false));
            if start.elapsed() > Duration::from_secs(1)
                && let Some(renewal) = renewal.take()
            {
                upward.reconfigure(&after, Some(renewal));
            }
        }
        assert!(renewal.is_none(), "it was let in with what is not believed any more");
    });
    router.is_told_by(1);
}
