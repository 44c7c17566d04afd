//! A router whose children a site has: nginx with a certificate of its own, which answers, changes, breaks and goes away.

#![cfg(feature = "dpdk")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use slr::config::draft::Draft;
use slr::transport::site::{Answer, Table, fetch};

use crate::common::{PATIENCE, wait_for};

const TABLE: &str = "children:\n  - { name: first, address: 10.9.0.1 }\n  - { name: second, address: 10.9.0.2 }\n";

/// nginx in a directory; ended when it is dropped.
struct Site {
    directory: tempfile::TempDir,
    port: u16,
    server: Option<Child>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Site {
    /// One that has the table, with a certificate by the authority in `ca.pem`.
    fn new() -> Site {
        let directory = tempfile::tempdir().expect("a directory");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|taken| taken.local_addr()).expect("a port").port();
        let mut site = Site { directory, port, server: None };
        let (authority, stranger) = (authority("ours"), authority("another's"));
        site.write("ca.pem", &authority.pem());
        site.write("stranger.pem", &stranger.pem());
        site.certify(&authority, "127.0.0.1");
        site.put(TABLE);
        let root = site.directory.path().display();
        let configuration = format!(
            "daemon off; pid {root}/pid; error_log {root}/error.log; worker_processes 1;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log {root}/access.log; client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; \
             fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;\n\
             server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {root}/site.pem; ssl_certificate_key {root}/site.key; \
             root {root}/www; location /moved {{ return 302 /table.yaml; }} }} }}\n"
        );
        site.write("nginx.conf", &configuration);
        site.start();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    fn certify(&self, authority: &CertifiedIssuer<'_, KeyPair>, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new([name.to_owned()]).expect("a name").signed_by(&key, authority);
        self.write("site.pem", &certificate.expect("a certificate").pem());
        self.write("site.key", &key.serialize_pem());
    }

    /// Puts a table in the place of the one that there is.
    fn put(&self, table: &str) {
        fs::create_dir_all(self.path("www")).expect("a directory");
        // In one step, so that nobody is given a half of it.
        self.write("next", table);
        fs::rename(self.path("next"), self.path("www/table.yaml")).expect("a file");
    }

    fn start(&mut self) {
        let mut nginx = Command::new("nginx");
        // Started as root it would take another user's rights, who may not read here.
        nginx.arg("-c").arg(self.path("nginx.conf")).args(["-g", "user root;"]);
        nginx.arg("-e").arg(self.path("error.log"));
        self.server = Some(nginx.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nginx is installed"));
        wait_for("nginx", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = Command::new("kill").arg(server.id().to_string()).status();
            let _ = server.wait();
        }
    }

    /// Status codes of all answers so far.
    fn statuses(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("access.log")).unwrap_or_default();
        log.lines().filter_map(|line| line.split("\" ").nth(1)?.split(' ').next().map(str::to_owned)).collect()
    }

    /// Waits until it has written down that its first answers were these, which it does after it has given them.
    fn answered(&self, expected: &[&str]) {
        wait_for(&format!("{expected:?}"), || {
            self.statuses().get(..expected.len()).is_some_and(|first| first == expected)
        });
    }

    /// A configuration whose children the site has at `path`.
    fn config(&self, path: &str, authority: &str, metrics: &str) -> PathBuf {
        let (port, root) = (self.port, self.directory.path().display());
        let text = format!(
            r#"router: {{ name: test, tunnel_addresses: [10.9.0.254] }}
dpdk: {{ hugepages: never, memory: 128MiB, buffers: 4096 }}
flows: {{ capacity_v4: 1000, capacity_v6: 1000 }}
ports: [{{ name: only, device: net_null0, mtu: 1600, addresses: [10.9.0.254/24] }}]
children: {{ url: "https://127.0.0.1:{port}/{path}", authority: {root}/{authority}, interval: 1s, copy: {root}/copies/copy.yaml }}
virtual_hosts:
  - {{ name: all, addresses: [192.0.2.1], children: all }}
  - {{ name: some, addresses: [192.0.2.2], children: [first] }}
metrics: {{ listen: "{metrics}" }}
control: {{ socket: off }}
"#
        );
        self.write("router.yaml", &text);
        self.path("router.yaml")
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new([]).expect("no names");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("a certificate")
}

#[test]
fn what_a_site_answers_is_the_table_or_a_clear_reason() {
    let mut site = Site::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ask = |site: &Site, path: &str, authority: &str, etag: Option<&str>| {
        let draft = Draft::load(&site.config(path, authority, "off")).expect("a draft");
        runtime.block_on(fetch(draft.site().expect("a site"), etag))
    };
    let first = ask(&site, "table.yaml", "ca.pem", None).expect("a table");
    let Answer::Table(Table { text, etag: Some(etag) }) = first else { panic!("{first:?}") };
    assert_eq!(text, TABLE);
    assert_eq!(ask(&site, "table.yaml", "ca.pem", Some(&etag)), Ok(Answer::Unchanged));
    site.answered(&["200", "304"]);
    site.put(&format!("{TABLE}  - {{ name: third, address: 10.9.0.3 }}\n"));
    let changed = ask(&site, "table.yaml", "ca.pem", Some(&etag)).expect("a table");
    assert!(
        matches!(&changed, Answer::Table(table) if table.text.contains("third") && table.etag.as_ref() != Some(&etag))
    );

    let refused = |answer: Result<Answer, String>, words: &str| {
        let why = answer.expect_err(words);
        assert!(why.contains(words) && !why.contains('\n'), "{why}");
    };
    refused(ask(&site, "nothing", "ca.pem", None), "it answers 404 Not Found");
    refused(ask(&site, "moved", "ca.pem", None), "302 Found and leads to https://127.0.0.1:");
    refused(ask(&site, "table.yaml", "stranger.pem", None), "no TLS session: invalid peer certificate: UnknownIssuer");
    fs::write(site.path("www/table.yaml"), b"children: [\xff]").expect("a file");
    refused(ask(&site, "table.yaml", "ca.pem", None), "the table is not UTF-8");
    // Another's name in the certificate.
    site.stop();
    let other = authority("ours");
    site.write("ca.pem", &other.pem());
    site.certify(&other, "192.0.2.7");
    site.start();
    refused(ask(&site, "table.yaml", "ca.pem", None), "certificate not valid for name \"127.0.0.1\"");
    site.stop();
    refused(ask(&site, "table.yaml", "ca.pem", None), "cannot connect: Connection refused");
}

/// A running router and what it says on standard error; killed when the test fails.
struct Router(Child, Receiver<String>);

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Router {
    fn start(config: &Path) -> Router {
        let mut slrd = Command::new(env!("CARGO_BIN_EXE_slrd"));
        let mut child =
            slrd.arg("--config").arg(config).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("slrd");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let (sender, said) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| sender.send(line).unwrap_or_default()));
        Router(child, said)
    }

    /// The next line with these words.
    fn says(&self, words: &str) -> String {
        let mut before = Vec::new();
        while let Ok(line) = self.1.recv_timeout(PATIENCE) {
            if line.contains(words) {
                return line;
            }
            before.push(line);
        }
        panic!("slrd does not say {words:?} but {before:?}")
    }

    fn stop(mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        assert_eq!(self.0.wait().expect("an end").code(), Some(0));
    }
}

fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn polls(address: &str, outcome: &str) -> u64 {
    let metrics = metrics(address);
    let name = format!("slr_children_site_polls_total{{outcome=\"{outcome}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_else(|| panic!("{metrics}"));
    value.parse().expect("a number")
}

/// The children of the virtual host `all`.
fn children(address: &str) -> Vec<String> {
    let start = "slr_virtual_host_packets_total{child=\"";
    let metrics = metrics(address);
    let all = metrics.lines().filter(|line| line.contains("virtual_host=\"all\""));
    all.filter_map(|line| line.strip_prefix(start)?.split('"').next().map(str::to_owned)).collect()
}

#[test]
fn a_router_follows_its_site_and_keeps_what_it_has_while_that_is_broken_or_gone() {
    let mut site = Site::new();
    let config = site.config("table.yaml", "ca.pem", "127.0.0.1:0");
    let url = format!("https://127.0.0.1:{}/table.yaml", site.port);
    let router = Router::start(&config);
    let line = router.says("metrics at http://");
    let address = line.split("http://").nth(1).expect("an address").trim_end_matches("/metrics").to_owned();
    assert_eq!(children(&address), ["first", "second"]);
    wait_for("the site to be asked again", || polls(&address, "unchanged") > 0);
    // Asked by tag.
    site.answered(&["200", "304"]);
    let copy = || fs::read_to_string(site.path("copies/copy.yaml")).expect("a copy");
    assert_eq!(copy(), TABLE);

    let more = format!("{TABLE}  - {{ name: third, address: 10.9.0.3 }}\n");
    site.put(&more);
    router.says("reloaded: 2 virtual hosts, 3 children");
    assert_eq!(children(&address), ["first", "second", "third"]);

    // What is broken is told once, with its place, however often the site is asked.
    for (table, why) in [
        ("children:\n  - { nmae: first }\n", format!("{url}:2:7: unknown key \"nmae\"; did you mean \"name\"?")),
        (
            "children:\n  - { name: first, address: 10.9.0.254 }\n",
            format!("{url}:2:29: child \"first\" has the router's own address"),
        ),
        (
            "children:\n  - { name: last, address: 10.9.0.1 }\n",
            "router.yaml:8:54: virtual host \"some\" names the child \"first\", which is not defined".to_owned(),
        ),
        (
            "virtual_hosts: []\nchildren: []\n",
            format!("{url}:1:1: unknown key \"virtual_hosts\"; the keys here are children"),
        ),
        ("", format!("{url}:1:1: the file holds no configuration")),
    ] {
        let before = polls(&address, "refused");
        site.put(table);
        let line = router.says("stay as they are");
        assert!(
            line.starts_with(&format!("slr: children of {url} stay as they are: ")) && line.contains(&why),
            "{line}"
        );
        assert!(children(&address).len() == 3 && polls(&address, "refused") > before, "{table}");
    }
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(router.1.try_iter().collect::<Vec<_>>(), [""; 0]);
    site.put(&more);
    router.says("has the table that is in force again");

    site.stop();
    assert!(router.says("stay as they are").contains("cannot connect: Connection refused"));
    assert!(polls(&address, "failed") >= 1);
    assert_eq!(children(&address).len(), 3);
    // A reload by hand keeps them too, and says why.
    let _ = Command::new("kill").arg("-HUP").arg(router.0.id().to_string()).status();
    router.says("reloaded: 2 virtual hosts, 3 children");
    router.stop();

    // Without the site the copy counts.
    let copied = fs::read_to_string(site.path("copies/copy.yaml")).expect("a copy");
    assert_eq!(copied, more);
    let router = Router::start(&config);
    assert!(router.says("children are the last known ones").contains("Connection refused"));
    let line = router.says("metrics at http://");
    let address = line.split("http://").nth(1).expect("an address").trim_end_matches("/metrics").to_owned();
    assert_eq!(children(&address).len(), 3);
    site.put(TABLE);
    site.start();
    router.says("reloaded: 2 virtual hosts, 2 children");
    router.stop();

    // Neither site nor copy: one line, and nothing is started.
    site.stop();
    fs::remove_file(site.path("copies/copy.yaml")).expect("a copy");
    let check =
        Command::new(env!("CARGO_BIN_EXE_slrd")).args(["--check", "--config"]).arg(&config).output().expect("slrd");
    let said = String::from_utf8_lossy(&check.stderr);
    assert_eq!((check.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(
        said.contains(&format!("{url}: cannot connect: Connection refused")) && said.contains("there is no copy"),
        "{said}"
    );
}

#[test]
fn a_site_that_makes_no_sense_is_refused() {
    let site = Site::new();
    let good = fs::read_to_string(site.config("table.yaml", "ca.pem", "off")).expect("a file");
    let url = format!("https://127.0.0.1:{}/table.yaml", site.port);
    let authority = site.path("ca.pem").display().to_string();
    let copy = site.path("copies/copy.yaml").display().to_string();
    let right = "write one like url: https://config.example.org/edge1.yaml";
    for (from, to, expected) in [
        (
            url.as_str(),
            "http://127.0.0.1/x",
            format!("r.yaml:5:18: url \"http://127.0.0.1/x\" does not start with https://; {right}"),
        ),
        (&url, "https://", format!("r.yaml:5:18: url \"https://\" is none; {right}")),
        (
            &url,
            "https://me@site/x",
            format!("r.yaml:5:18: url \"https://me@site/x\" has a user name, which is not sent; {right}"),
        ),
        (
            "interval: 1s",
            "interval: 1ms",
            "interval \"1ms\" is out of range; write a time from 1s to 24h: interval: 30s".into(),
        ),
        (
            &copy,
            "copy.yaml",
            "copy \"copy.yaml\" is no whole path of a file; write one: copy: /var/lib/slr/edge1.children.yaml".into(),
        ),
        (&authority, "/nowhere", "authority \"/nowhere\" cannot be read".into()),
        ("children: all", "children: every", "r.yaml:7:52: a list is expected here".into()),
        (
            "interval: 1s",
            "colour: red",
            "unknown key \"colour\"; the keys here are url, authority, interval, copy".into(),
        ),
    ] {
        assert_eq!(good.matches(from).count(), 1, "{from}");
        let text = good.replace(from, to);
        let error =
            Draft::parse(&text, "r.yaml").and_then(|draft| draft.finish(Some(TABLE))).expect_err(to).to_string();
        assert!(error.starts_with("r.yaml:") && error.contains(&expected) && !error.contains('\n'), "{error}");
    }
    let draft = Draft::parse(&good, "r.yaml").expect("a draft");
    let config = draft.finish(Some(TABLE)).expect("a configuration");
    let shown = config.summary().to_string();
    assert!(shown.contains(&format!("children of {url}, asked every 1s, with a copy at {copy}\n")), "{shown}");
    assert_eq!(config.virtual_hosts[0].members.len(), 2);
    assert!(draft.finish(None).is_err() && draft.finish_with_copy().is_err());
}
