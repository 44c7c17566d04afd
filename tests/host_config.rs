//! What the host agent's configuration lets in, what it refuses, and in which words.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use slr::config::host::{Application, HostConfig, Method, Tunnels};
use slr::trust::authority::{Node, init, issue};

/// A small good configuration; the table below changes one thing in it.
const GOOD: &str = r#"agent: { name: h1, tunnel_addresses: [10.0.2.11] }
interfaces: [eth0]
routers: [10.0.2.1]
decapsulation: auto
tunnels: [ipip, gre]
virtual_hosts:
  - name: web
    addresses: [192.0.2.80, 192.0.3.0/24]
    services: [tcp/80]
    health: tcp
    application: { file: /run/web/load }
    load: max(cpu, queue)
load: { interval: 1s }
drain: { timeout: 60s }
"#;

/// A fragment of the good configuration, what stands in its place, and what is said after `h.yaml:`.
const REFUSALS: &[(&str, &str, &str)] = &[
    ("interfaces:", "interface:", r#"2:1: unknown key "interface"; did you mean "interfaces"? (interfaces: [eth0])"#),
    ("routers: [10.0.2.1]\n", "", r#"13:1: missing key "routers"; add it: routers: [10.0.1.254]"#),
    (
        "routers: [10.0.2.1]",
        "routers: [10.0.2.1]\nparents: [{ address: 10.0.2.1 }]",
        r#"4:13: missing key "name"; add it: name: web-1"#,
    ),
    (
        "routers: [10.0.2.1]",
        "routers: [10.0.2.1]\nparents: { name: site1 }",
        r#"4:10: a list is expected here; write it in brackets or with one "- " a line: parents: [{ name: site1, address: 10.255.0.1:9478 }]"#,
    ),
    (
        "routers: [10.0.2.1]",
        "routers: [10.0.2.1]\nparents: [{ name: site1, address: 10.0.2.1 }]",
        r#"4:35: address "10.0.2.1" is no address with a port; write one like address: 10.255.0.9:9478"#,
    ),
    (
        "routers: [10.0.2.1]",
        "routers: [10.0.2.1]\nparents: [{ name: a, address: 10.0.2.1:1 }, { name: a, address: 10.0.2.1:2 }]",
        "4:53: parent a is already there (line 4); change or remove one of them",
    ),
    (
        "routers: [10.0.2.1]",
        "routers: [10.0.2.1]\nparents: [{ name: site1, address: 10.0.2.1:9478 }]",
        "4:19: sessions with children and parents need certificate, key and authority; add them to control: { certificate: /etc/slr/edge1.pem, key: /etc/slr/edge1.key, authority: /etc/slr/ca.pem }",
    ),
    (
        "drain: { timeout: 60s }",
        "control: { authority: /etc/slr/ca.pem }",
        "14:23: this has no meaning without sessions; leave it out, or add parents:",
    ),
    (
        "drain: { timeout: 60s }",
        "control: { listen: 10.255.0.1:9478 }",
        "14:20: listen is for routers, to which children come; a host server has none: leave it out",
    ),
    (
        "drain: { timeout: 60s }",
        "control: { interval: 1s }",
        "14:22: interval is for routers, to which children come; a host server has none: leave it out",
    ),
    ("interval: 1s", "capacity: 0", "13:19: capacity 0 is out of range; write one from 1 to 10000: capacity: 100"),
    (
        "interval: 1s",
        "cgroup: nginx",
        r#"13:17: cgroup "nginx" is not a whole path; write cgroup: /sys/fs/cgroup/system.slice/nginx.service"#,
    ),
    ("[10.0.2.11]", "[]", "1:38: tunnels need an address to end at: tunnel_addresses: [192.0.2.1]"),
    (
        "[10.0.2.11]",
        "[10.0.2.11, 10.0.2.11]",
        "1:50: tunnel address 10.0.2.11 is already there (line 1); change or remove one of them",
    ),
    ("[eth0]", "[]", "2:13: tunnels need an interface to come in by: interfaces: [eth0]"),
    ("[eth0]", "[eth0/1]", r#"2:14: "eth0/1" is no interface that tunnels come in by; write interfaces: [eth0]"#),
    ("[eth0]", "[lo]", r#"2:14: "lo" is no interface that tunnels come in by; write interfaces: [eth0]"#),
    ("[eth0]", "[eth0, eth0]", "2:20: interface eth0 is already there (line 2); change or remove one of them"),
    ("[10.0.2.1]", "[]", "3:10: without a router no tunnel is taken; write routers: [10.0.1.254]"),
    (
        "[10.0.2.1]",
        "[\"2001:db8::1\"]",
        "3:11: router 2001:db8::1 is IPv6, but the agent has no IPv6 tunnel address; add one to agent: tunnel_addresses: [192.0.2.1]",
    ),
    (
        "decapsulation: auto",
        "decapsulation: xpd",
        r#"4:16: decapsulation "xpd" is not known; did you mean decapsulation: xdp?"#,
    ),
    ("[ipip, gre]", "[]", "5:10: the list of tunnels is empty; write tunnels: [ipip, gue, gre]"),
    ("[ipip, gre]", "[ipip, ipip]", "5:17: this kind of tunnel is in the list already; keep one of each kind"),
    (
        "auto\ntunnels: [ipip, gre]",
        "tc\ntunnels: [{ mpls: { label: 1000 } }]",
        "4:16: decapsulation tc cannot take labels off; write decapsulation: xdp or auto",
    ),
    (
        "[ipip, gre]",
        "[ipip, gre]\nrouter_macs: [\"02:00:5e:10:00:01\"]",
        "6:14: this is for labels alone, and none are taken; leave it out, or add tunnels: [{ mpls: { label: 1000 } }]",
    ),
    (
        "[ipip, gre]",
        "[{ mpls: { label: 1000 } }]\nrouter_macs: []",
        "6:14: 0 routers; give 1 to 16, or leave router_macs out for any sender on the link",
    ),
    (
        "[ipip, gre]",
        "[{ mpls: { label: 1000 } }]\nrouter_macs: [\"02:00:5e:10:00\"]",
        r#"6:15: mac "02:00:5e:10:00" is not six hexadecimal octets; write them with colons, in quotes: "02:00:5e:10:00:01""#,
    ),
    (
        "192.0.3.0/24",
        "10.0.2.0/24",
        r#"8:29: virtual host "web" has the tunnel address 10.0.2.11 in 10.0.2.0/24; give the service addresses of its own"#,
    ),
    (
        "192.0.3.0/24",
        "127.0.0.0/8",
        "8:29: 127.0.0.0/8 cannot be a host's own; write the addresses of the service: addresses: [192.0.2.80/32]",
    ),
    (
        "192.0.3.0/24",
        "0.0.0.0/0",
        r#"8:29: virtual host "web" has the tunnel address 10.0.2.11 in 0.0.0.0/0; give the service addresses of its own"#,
    ),
    (
        "{ file: /run/web/load }",
        "{ file: /run/web/load, command: [/bin/load] }",
        r#"11:18: an application's number comes from one place; write one: application: { http: "http://127.0.0.1:8080/load" }"#,
    ),
    (
        "{ file: /run/web/load }",
        "{ file: load }",
        r#"11:26: file "load" is not a whole path; write file: /run/web/load"#,
    ),
    (
        "{ file: /run/web/load }",
        "{ http: \"http://localhost/load\" }",
        r#"11:26: http "http://localhost/load" is no address of a page; write it with the server's IP address: http: "http://127.0.0.1:8080/load""#,
    ),
    (
        "load: max(cpu, queue)",
        "load: max(cpu, queues)",
        r#"12:11: expression "max(cpu, queues)" names "queues", which is not measured; there are cpu, cpu_pressure, memory, memory_pressure, established, queue, bytes_in, bytes_out, application; write one: expression: max(cpu, queue)"#,
    ),
    ("interval: 1s", "interval: 50ms", "13:19: interval 50ms is too short; write at least 100ms: interval: 1s"),
    (
        "timeout: 60s",
        "timeout: soon",
        r#"14:19: timeout "soon" is not a time; write a whole number with its unit ms, s, m or h: timeout: 200ms"#,
    ),
    ("drain: { timeout: 60s }", "state: run", r#"14:8: state "run" is not a whole path; write state: /run/slr-host"#),
    (
        "drain: { timeout: 60s }",
        "recovery: { echo: { key: secret } }",
        "14:26: the key is not 32 hexadecimal digits; make one with openssl rand -hex 16: key: 000102030405060708090a0b0c0d0e0f",
    ),
    (
        "drain: { timeout: 60s }",
        "recovery: {}",
        r#"14:11: missing key "echo"; add it: echo: { key: 9d02c6714b8ea35f10e7d9c84a6b2f53 }"#,
    ),
    (
        "drain: { timeout: 60s }",
        "control: { socket: run.sock }",
        r#"14:20: socket "run.sock" is neither off nor the whole path of a file; write socket: /run/slr/edge1.sock or socket: off"#,
    ),
];

fn verdict(text: &str) -> String {
    HostConfig::parse(text, "h.yaml").map_or_else(|error| error.to_string(), |_| "accepted".into())
}

#[test]
fn one_wrong_thing_is_refused_in_one_line_that_says_where_and_what_to_do() {
    assert_eq!(verdict(GOOD), "accepted");
    for (from, to, expected) in REFUSALS {
        assert_eq!(GOOD.matches(from).count(), 1, "the fragment {from:?} must be there once");
        assert_eq!(verdict(&GOOD.replace(from, to)), format!("h.yaml:{expected}"), "{from:?} -> {to:?}");
    }
}

#[test]
fn an_unknown_key_is_refused_at_every_depth() {
    let mut kinds = BTreeSet::new();
    for (from, to) in [
        ("interfaces:", "bogus: 1\ninterfaces:"),
        ("{ name: h1", "{ bogus: 1, name: h1"),
        ("    addresses:", "    bogus: 1\n    addresses:"),
        ("{ file:", "{ bogus: 1, file:"),
        ("{ interval:", "{ bogus: 1, interval:"),
        ("{ timeout:", "{ bogus: 1, timeout:"),
        ("health: tcp", "health: { bogus: 1 }"),
        ("drain:", "recovery: { bogus: 1 }\ndrain:"),
        ("drain:", "recovery: { echo: { bogus: 1 } }\ndrain:"),
        ("[ipip, gre]", "[ipip, { bogus: 1 }]"),
        ("interfaces:", "parents: [{ bogus: 1 }]\ninterfaces:"),
        ("interfaces:", "control: { bogus: 1 }\ninterfaces:"),
    ] {
        let said = verdict(&GOOD.replacen(from, to, 1));
        let keys = said.split_once("unknown key \"bogus\"; the keys here are ").unwrap_or_else(|| panic!("{said}")).1;
        kinds.insert(keys.to_owned());
    }
    assert_eq!(kinds.len(), 12, "{kinds:#?}");
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let text = "agent: { name: h, tunnel_addresses: [10.0.0.1] }\ninterfaces: [eth0]\nrouters: [10.0.0.2]\n\
                virtual_hosts: [{ name: web, addresses: [192.0.2.80] }]\n";
    let config = HostConfig::parse(text, "h.yaml").expect("a configuration");
    assert_eq!(config.method, Method::Auto);
    assert_eq!(config.tunnels, Tunnels { ipip: true, gue: Some(6080), gre: true, mpls: None, mac: true });
    assert!(config.mss_clamp);
    assert_eq!((config.interval, config.drain), (Duration::from_secs(1), Duration::from_secs(60)));
    assert!(config.parents.is_empty() && config.credentials.is_none() && config.cgroup.is_none());
    assert_eq!(config.capacity, 100);
    assert_eq!(config.metrics.listen, Some(([127, 0, 0, 1], 9478).into()));
    assert_eq!(config.control.socket.as_deref(), Some("/run/slr-host/h.sock".as_ref()));
    assert_eq!(config.state.as_os_str(), "/run/slr-host");
    let host = &config.virtual_hosts[0];
    assert!(host.health.is_none() && host.application.is_none() && host.load.is_none());
}

#[test]
fn applications_are_asked_by_address() {
    for (url, expected) in [
        ("http://127.0.0.1:8080/load?short", Some(("127.0.0.1:8080", "/load?short"))),
        ("http://127.0.0.1", Some(("127.0.0.1:80", "/"))),
        ("http://[::1]:9000/", Some(("[::1]:9000", "/"))),
        ("http://[::1]/x", Some(("[::1]:80", "/x"))),
        ("https://127.0.0.1/", None),
        ("http://127.0.0.1/a b", None),
        ("http://", None),
    ] {
        let text = GOOD.replace("{ file: /run/web/load }", &format!("{{ http: \"{url}\" }}"));
        let found =
            HostConfig::parse(&text, "h.yaml").ok().map(|mut config| config.virtual_hosts.remove(0).application);
        let expected = expected.map(|(server, path)| {
            Some(Application::Http { server: server.parse().expect("an address"), path: path.into() })
        });
        assert_eq!(found, expected, "{url}");
    }
}

/// The sample with the lines about parents in force, and certificates of a directory.
fn sample_with_parents(directory: &Path, from: &str, to: &str) -> Result<HostConfig, String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/dpdk-config/host.yaml");
    let mut text = std::fs::read_to_string(path).expect("the sample");
    for key in ["parents:", "  - { name: site1", "certificate: /etc", "key: /etc", "authority: /etc"] {
        assert_eq!(text.matches(&format!("# {key}")).count(), 1, "{key} must be there once, in a comment");
        text = text.replace(&format!("# {key}"), key);
    }
    assert_eq!(text.matches(from).count(), 1, "the fragment {from:?} must be there once");
    let text = text.replace(from, to).replace(": /etc/slr/", &format!(": {}/", directory.display()));
    HostConfig::parse(&text, "h.yaml").map_err(|error| error.message.replace(&directory.display().to_string(), "DIR"))
}

#[test]
fn sessions_with_parents_need_certificates_that_are_the_agents_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let (directory, now, day) = (directory.path(), SystemTime::now(), Duration::from_secs(86_400));
    init(directory, "test", now).expect("an authority");
    for (name, level) in [("server1", 0), ("server2", 0), ("site", 1)] {
        let offers = ["192.0.2.80/32", "2001:db8::/32"].map(|net| net.parse().expect("a prefix")).to_vec();
        issue(directory, &Node { name: name.into(), level, offers }, now, day).expect("a certificate");
    }
    let same = "name: server1";
    let config = sample_with_parents(directory, same, same).expect("the sample is good");
    assert_eq!((config.parents[0].name.as_str(), config.parents[0].address.port()), ("site1", 9478));
    assert_eq!(config.credentials.as_ref().map(|of| of.identity.level), Some(0));
    let summary = config.summary().to_string();
    for words in [
        "sessions with parents: site1 at 10.255.0.1:9478\n",
        "our certificate may offer 192.0.2.80, 2001:db8::/32\n",
        "and not 192.0.2.53, which parents will refuse\n",
        "load     every 1s, capacity 100; a stop waits up to 60s",
    ] {
        assert!(summary.contains(words), "{words} is not in:\n{summary}");
    }
    for (from, to, expected) in [
        (
            "name: server1",
            "name: server9",
            "the certificate is of node \"server1\", level 0, but the agent is \"server9\", level 0; make one for it: slrctl ca issue server9 --level 0",
        ),
        (
            "server1.pem",
            "server2.pem",
            "key \"DIR/server1.key\" does not belong to certificate \"DIR/server2.pem\"; give the one made with it",
        ),
        ("name: site1,", "name: server1,", "parent \"server1\" is the agent itself; write the name of a router"),
        (
            "ca.pem",
            "nothing.pem",
            "authority \"DIR/nothing.pem\" cannot be read: No such file or directory (os error 2); give the path of a PEM file: authority: /etc/slr/ca.pem",
        ),
    ] {
        assert_eq!(sample_with_parents(directory, from, to).map(|_| ()), Err(expected.to_owned()), "{from} -> {to}");
    }
}

#[test]
fn the_sample_is_understood_and_shown() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/dpdk-config/host.yaml");
    let output =
        Command::new(env!("CARGO_BIN_EXE_slr-host")).args(["--check", "--config", path]).output().expect("slr-host");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "host server1\n",
        "routers           10.0.2.1, 2001:db8:2::1\n",
        "decapsulation     auto: ipip, gue, port 6080, gre, mac\n",
        "addresses    192.0.2.80, 2001:db8:80::/64\n",
        "load         max(cpu, queue)\n",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let wrong =
        Command::new(env!("CARGO_BIN_EXE_slr-host")).args(["--config", "/nowhere.yaml"]).output().expect("slr-host");
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert_eq!((wrong.status.code(), said.lines().count()), (Some(2), 1), "{said}");
}
