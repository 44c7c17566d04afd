//! What needs certificates: they must be there, and be the router's own.

use std::path::Path;
use std::time::{Duration, SystemTime};

use slr::config::{Config, Register, RouteCost};
use slr::trust::authority::{Node, init, issue};

/// The sample of a system's router with other words in it, and certificates of a directory.
fn sample(directory: &Path, from: &str, to: &str) -> Result<Config, String> {
    let path = format!("{}/dpdk-config/system.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the sample");
    assert_eq!(text.matches(from).count(), 1, "the fragment {from:?} must be there once");
    let text = text.replace(from, to).replace(": /etc/slr/", &format!(": {}/", directory.display()));
    Config::parse(&text, "r.yaml").map_err(|error| error.message.replace(&directory.display().to_string(), "DIR"))
}

fn node(name: &str, level: u8) -> Node {
    Node { name: name.into(), level, offers: vec!["192.0.2.0/24".parse().expect("a prefix")] }
}

#[test]
fn sessions_need_certificates_that_are_the_routers_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let (directory, now, day) = (directory.path(), SystemTime::now(), Duration::from_secs(86_400));
    init(directory, "test", now).expect("an authority");
    for node in [node("system1", 2), node("other", 2), node("site1", 1)] {
        issue(directory, &node, now, day).expect("a certificate");
    }
    std::fs::write(directory.join("empty.pem"), "").expect("a file");

    let same = "certificate: /etc/slr/system1.pem";
    let config = sample(directory, same, same).expect("the sample is good");
    let children: Vec<_> = config.children.iter().map(|child| (child.register, child.route_cost)).collect();
    let expected = [(Register::Required, RouteCost::RoundTrip), (Register::Optional, RouteCost::Given(2.5))];
    assert_eq!(children, expected);
    assert_eq!(config.sessions.parents[0].name, "network1");
    let identity = config.sessions.credentials.as_ref().map(|of| (of.identity.name.as_str(), of.identity.offers.len()));
    assert_eq!(identity, Some(("system1", 1)));
    assert!(config.virtual_hosts[0].shares && config.virtual_hosts[0].cost_function.is_some());
    let summary = config.summary().to_string();
    for words in ["every 1s; of parents: network1 at 127.0.0.1:9479", "may offer 192.0.2.0/24", "must tell how it is"] {
        assert!(summary.contains(words), "{words} is not in:\n{summary}");
    }

    let table = [
        (
            same,
            "certificate: /etc/slr/other.pem",
            "key \"DIR/system1.key\" does not belong to certificate \"DIR/other.pem\"; give the one made with it",
        ),
        (
            same,
            "certificate: /etc/slr/nothing.pem",
            "certificate \"DIR/nothing.pem\" cannot be read: No such file or directory (os error 2); give the path of a PEM file: certificate: /etc/slr/edge1.pem",
        ),
        (
            same,
            "certificate: /etc/slr/empty.pem",
            "certificate \"DIR/empty.pem\" is no certificate; make one with slrctl ca issue: certificate: /etc/slr/edge1.pem",
        ),
        (
            same,
            "certificate: /etc/slr/ca.pem",
            "certificate \"DIR/ca.pem\" is a certificate of no node (no slr:node: and slr:level: among its names); make one with slrctl ca issue: certificate: /etc/slr/edge1.pem",
        ),
        (
            "key: /etc/slr/system1.key",
            "key: /etc/slr/ca.pem",
            "key \"DIR/ca.pem\" has no private key in PEM; give the .key file that slrctl ca issue has written: key: /etc/slr/edge1.key",
        ),
        (
            "authority: /etc/slr/ca.pem",
            "authority: /etc/slr/empty.pem",
            "authority \"DIR/empty.pem\" is no certificate; make one with slrctl ca issue: authority: /etc/slr/ca.pem",
        ),
        (
            "  name: system1\n",
            "  name: system9\n",
            "the certificate is of node \"system1\", level 2, but the router is \"system9\", level 2; make one for it: slrctl ca issue system9 --level 2",
        ),
        (
            "  level: system\n",
            "  level: network\n",
            "the certificate is of node \"system1\", level 2, but the router is \"system1\", level 3; make one for it: slrctl ca issue system1 --level 3",
        ),
        (
            "{ name: network1,",
            "{ name: site1,",
            "parent \"site1\" is a child too; packets would go round in circles, remove one",
        ),
        (
            "{ name: network1,",
            "{ name: system1,",
            "parent \"system1\" is the router itself; packets would go round in circles, remove one",
        ),
    ];
    for (from, to, expected) in table {
        assert_eq!(sample(directory, from, to).map(|_| ()), Err(expected.to_owned()), "{from:?} -> {to:?}");
    }
}

#[test]
fn what_an_authority_makes_is_read_back_and_nothing_is_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let site = node("site1", 1);
    assert!(issue(directory.path(), &site, now, day).is_err(), "there is no authority yet");
    let ca = init(directory.path(), "test", now).expect("an authority");
    let made = issue(directory.path(), &site, now, day).expect("a certificate");
    for key in [&ca[1], &made[1]] {
        assert_eq!(std::fs::metadata(key).expect("a key").permissions().mode() & 0o777, 0o600);
    }
    let (chain, identity) = slr::trust::read_chain(&made[0]).expect("a certificate");
    assert_eq!((chain.len(), identity.name.as_str(), identity.level), (1, "site1", 1));
    assert_eq!(identity.offers, site.offers);
    let ends = now.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970") + day;
    assert_eq!(identity.not_after.0 / 1000, ends.as_secs());
    for (prefix, may) in [("192.0.2.0/24", true), ("192.0.2.7/32", true), ("192.0.0.0/16", false), ("::/0", false)] {
        assert_eq!(identity.may_offer(prefix.parse().expect("a prefix")), may, "{prefix}");
    }
    assert!(issue(directory.path(), &site, now, day).is_err(), "the certificate is there already");
    assert!(init(directory.path(), "test", now).is_err(), "the authority is there already");
    for name in ["ca", "", "../site", "a b"] {
        assert!(issue(directory.path(), &node(name, 1), now, day).is_err(), "{name:?}");
    }
}
