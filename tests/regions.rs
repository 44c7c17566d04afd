//! New flows by where clients are and what time it is; what a database of places says.

use std::io::Write;
use std::time::Duration;

use etherparse::PacketBuilder;
use jiff::tz::TimeZone;
use slr::clock::{Instant, WallClock};
use slr::config::Config;
use slr::control::conditions::Conditions;
use slr::control::hierarchy::Hierarchy;
use slr::control::session::Nobody;
use slr::units::RegionId;

use crate::common::mmdb::{Place, database};
use crate::common::router::{OneLink, TestRouter};

const LINK: OneLink = OneLink { mtu: 1600, vlan: None };

const BERLIN: Place = ["EU", "DE", "BE"];
const MUNICH: Place = ["EU", "DE", "BY"];
const LYON: Place = ["EU", "FR", "ARA"];
const TOKYO: Place = ["AS", "JP", "13"];

/// Two children that are near to somebody, and one that is far from all.
const CONFIG: &str = "
router: { name: edge1, tunnel_addresses: [198.51.100.1] }
client_regions:
  - { name: europe, prefixes: [10.1.0.0/16, \"2001:db8:1::/48\"] }
  - { name: asia, prefixes: [10.2.0.0/16, 10.1.2.0/24] }
children:
  - { name: paris, address: 203.0.113.1 }
  - { name: tokyo, address: 203.0.113.2 }
  - { name: far, address: 203.0.113.3 }
virtual_hosts:
  - name: web
    addresses: [192.0.2.1, \"2001:db8::1\"]
    selection: least_cost
    cost_function: \"client_region == 'europe' && child == 'paris' || client_region == 'asia' && child == 'tokyo' ? 1.0 : (child == 'far' ? 2.0 : 3.0)\"
    children: [paris, tokyo, far]
  - { name: plain, addresses: [192.0.2.2], children: [far] }
  - name: coarse
    addresses: [192.0.2.3]
    flow: { source: { v4: 16 } }
    selection: least_cost
    cost_function: \"(client_region == 'asia') == (child == 'tokyo') ? 1.0 : 2.0\"
    children: [paris, tokyo]
";

fn parsed(text: &str) -> Config {
    Config::parse(text, "t.yaml").unwrap_or_else(|error| panic!("{error}"))
}

fn syn(from: &str, to: &str, port: u16) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1]);
    let address = |text: &str| text.parse::<std::net::IpAddr>().expect("an address");
    let ip = match (address(from), address(to)) {
        (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 57),
        (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 57),
        _ => panic!("{from} and {to} are of different families"),
    };
    let mut bytes = Vec::new();
    ip.tcp(port, 80, 7, 1000).syn().write(&mut bytes, &[]).expect("a packet");
    bytes
}

/// A router whose slow path has worked out costs at a time, and what it goes on with.
struct Steered {
    config: Config,
    hierarchy: Hierarchy,
    conditions: Conditions,
    router: TestRouter,
}

impl Steered {
    fn new(config: Config, wall: WallClock) -> Steered {
        let mut hierarchy = Hierarchy::new(Instant::ZERO, wall, &config, 7);
        let conditions = Conditions { steering: hierarchy.steering(Instant::ZERO, &config), ..Conditions::default() };
        let router = TestRouter::of(&config, &LINK);
        let mut steered = Steered { config, hierarchy, conditions, router };
        steered.publish(Instant::ZERO);
        steered
    }

    fn publish(&mut self, now: Instant) {
        let compiled = self.router.compiler.compile(&self.config, &self.conditions, &LINK, now);
        self.router.published.store(compiled.expect("few targets").tables.into());
    }

    /// Lets the slow path go on until then, second by second.
    fn run(&mut self, seconds: std::ops::Range<u64>) {
        for second in seconds {
            let now = Instant::ZERO + Duration::from_secs(second);
            let outcome = self.hierarchy.pass(now, &mut Nobody, &self.config, &mut self.conditions);
            if !outcome.steered.is_empty() {
                self.publish(now);
            }
        }
    }

    /// The child that a packet is tunnelled to.
    fn child(&mut self, frame: Vec<u8>) -> &str {
        let sent = self.router.carry([frame]);
        let [sent] = &sent[..] else { panic!("{} frames", sent.len()) };
        let end: [u8; 4] = sent[14 + 16..14 + 20].try_into().expect("an IPv4 address");
        let child = self.config.children.iter().find(|child| child.address == std::net::IpAddr::from(end));
        &child.expect("a child").name
    }
}

#[test]
fn new_flows_of_clients_in_a_region_go_by_its_costs_and_others_by_theirs() {
    let mut steered = Steered::new(parsed(CONFIG), WallClock(0));
    for (from, to, expected) in [
        ("10.1.0.1", "192.0.2.1", "paris"),
        ("10.1.1.255", "192.0.2.1", "paris"),
        ("10.1.2.0", "192.0.2.1", "tokyo"),
        ("10.2.255.255", "192.0.2.1", "tokyo"),
        ("10.3.0.0", "192.0.2.1", "far"),
        ("2001:db8:1::7", "2001:db8::1", "paris"),
        ("2001:db8:2::7", "2001:db8::1", "far"),
        ("10.1.0.1", "192.0.2.2", "far"),
        // All of a client prefix are where its first address is.
        ("10.1.2.1", "192.0.2.3", "paris"),
        ("10.2.0.1", "192.0.2.3", "tokyo"),
    ] {
        for port in 5000..5003 {
            assert_eq!(steered.child(syn(from, to, port)), expected, "{from} to {to}");
        }
    }
    let tables = steered.router.published.load();
    let by_region = tables.selections.iter().map(|selection| selection.by_region.is_some());
    assert_eq!(by_region.collect::<Vec<_>>(), [true, false, true], "what does not ask has nothing to look up");
}

#[test]
fn where_no_entry_can_be_made_clients_in_a_region_have_its_child_all_the_same() {
    let text = format!("flows: {{ inserts_per_second: 1 }}{CONFIG}");
    let mut steered = Steered::new(parsed(&text), WallClock(0));
    for port in 5000..5100 {
        assert_eq!(steered.child(syn("10.2.0.1", "192.0.2.1", port)), "tokyo");
    }
    assert!(steered.router.counters.flows_over_limit.get() > 50);
}

#[test]
fn shares_of_clients_in_a_region_go_by_its_costs() {
    let text = CONFIG.replace("selection: least_cost", "selection: shares");
    let text = format!("cluster: {{ table_size: 10007 }}{text}");
    let mut steered = Steered::new(parsed(&text), WallClock(0));
    steered.run(0..60);
    let share = |region| {
        let tables = steered.router.published.load();
        let shares = tables.selections.iter().next().expect("a virtual host").selector(RegionId(region)).shares();
        let all: usize = shares.values().sum();
        [0, 1, 2].map(|place| (shares[&place] * 100).div_ceil(all))
    };
    // 1/3 : 1/3 : 1/2, and with 1 at home.
    assert_eq!([share(0), share(1), share(2)], [[29, 29, 43], [55, 19, 28], [19, 55, 28]]);
}

/// Milliseconds of the calendar.
fn wall(time: &str) -> WallClock {
    WallClock(time.parse::<jiff::Timestamp>().expect("a time").as_millisecond() as u64)
}

#[test]
fn costs_follow_the_local_time_and_flows_that_there_are_stay() {
    let cost = "cost_function: \"hour * 60.0 + minute >= 1290.0 && weekday <= 5.0 ? (child == 'far' ? 0.0 : 1.0) : (child == 'far' ? 1.0 : 0.0)\"";
    let text = format!(
        "router: {{ name: edge1, tunnel_addresses: [198.51.100.1], time_zone: UTC }}
children: [{{ name: near, address: 203.0.113.1 }}, {{ name: far, address: 203.0.113.2 }}]
virtual_hosts: [{{ name: web, addresses: [192.0.2.1], selection: least_cost, {cost}, children: [near, far] }}]"
    );
    let mut config = parsed(&text);
    config.router.time_zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
    // A Friday, 21:28 in winter time.
    let mut steered = Steered::new(config, wall("2026-11-20T20:28:00Z"));
    assert_eq!(steered.child(syn("10.1.0.1", "192.0.2.1", 1)), "near");
    steered.run(0..119);
    assert_eq!(steered.child(syn("10.1.0.1", "192.0.2.1", 2)), "near");
    steered.run(119..123);
    assert_eq!(steered.child(syn("10.1.0.1", "192.0.2.1", 3)), "far");
    assert_eq!(steered.child(syn("10.1.0.1", "192.0.2.1", 2)), "near", "a flow that there is");
    // Midnight: it is Saturday.
    steered.run(9115..9119);
    assert_eq!(steered.child(syn("10.1.0.1", "192.0.2.1", 4)), "far");
    steered.run(9119..9123);
    assert_eq!(steered.child(syn("10.1.0.1", "192.0.2.1", 5)), "near");
}

/// A configuration with regions of places, by a database of these networks.
fn placed(regions: &str, networks: &[(&str, Place)]) -> (tempfile::NamedTempFile, String) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(&database(networks)).expect("a file");
    let text = format!(
        "router: {{ name: edge1, tunnel_addresses: [198.51.100.1] }}
geoip: {}
client_regions: [{regions}]
children: [{{ name: a, address: 203.0.113.1 }}]
virtual_hosts: [{{ name: web, addresses: [192.0.2.1], children: [a] }}]",
        file.path().display()
    );
    (file, text)
}

const NETWORKS: [(&str, Place); 7] = [
    ("10.0.0.0/9", BERLIN),
    ("10.128.0.0/9", MUNICH),
    ("11.0.0.0/8", LYON),
    ("12.0.0.0/30", TOKYO),
    ("12.0.0.4/31", ["NA", "", ""]),
    ("2001:db8:a::/48", TOKYO),
    ("2001:db8:b::/48", LYON),
];

#[test]
fn a_database_says_where_clients_are_and_the_smallest_place_and_the_operator_have_the_last_word() {
    let regions = "{ name: bavaria, subdivisions: [DE-BY] }, { name: germany, countries: [DE] }, \
        { name: europe, continents: [EU] }, { name: japan, countries: [JP], prefixes: [11.1.0.0/16] }";
    let (_file, text) = placed(regions, &NETWORKS);
    let config = parsed(&text);
    for (client, expected) in [
        ("9.255.255.255", None),
        ("10.0.0.0", Some("germany")),
        ("10.128.0.0", Some("bavaria")),
        ("11.0.0.0", Some("europe")),
        ("11.1.2.3", Some("japan")),
        ("12.0.0.3", Some("japan")),
        ("12.0.0.4", None),
        ("2001:db8:a::1", Some("japan")),
        ("2001:db8:b::1", Some("europe")),
        ("2001:db8:c::1", None),
        ("::ffff:10.0.0.0", None),
    ] {
        let region = config.regions.find(client.parse().expect("an address"));
        let name = usize::from(region.0).checked_sub(1).map(|at| config.client_regions[at].as_str());
        assert_eq!(name, expected, "{client}");
    }
    let shown = config.summary().to_string();
    assert!(shown.contains("client regions  bavaria, germany, europe, japan, in 14 ranges of addresses\n"), "{shown}");
}

#[test]
fn a_database_that_cannot_serve_is_refused_with_its_place() {
    let europe = "{ name: europe, continents: [EU] }";
    let (file, good) = placed(europe, &NETWORKS);
    let path = file.path().display().to_string();
    let whole = std::fs::read(file.path()).expect("a file");
    let right = "give a GeoIP2 or GeoLite2 country or city database: geoip: /var/lib/GeoIP/GeoLite2-Country.mmdb";
    for (from, to, expected) in [
        ("continents: [EU]", "continents: [OC]", r#"3:47: continent "OC" has no networks in "#.to_owned()),
        (
            path.as_str(),
            "/nowhere",
            format!(r#"2:8: geoip "/nowhere" cannot be read: No such file or directory (os error 2); {right}"#),
        ),
        (path.as_str(), "/etc/passwd", r#"2:8: geoip "/etc/passwd" is no such database: "#.to_owned()),
    ] {
        let error = Config::parse(&good.replace(from, to), "r.yaml").expect_err(to).to_string();
        assert!(error.starts_with(&format!("r.yaml:{expected}")) && !error.contains('\n'), "{error}");
    }
    // Whatever is cut off or changed, it is refused or read, and nothing else happens.
    let mut refused = 0;
    for length in (0..whole.len()).step_by(7) {
        std::fs::write(file.path(), &whole[..length]).expect("a file");
        refused += u32::from(Config::parse(&good, "r.yaml").is_err());
        let mut changed = whole.clone();
        changed[length] ^= 0xff;
        std::fs::write(file.path(), &changed).expect("a file");
        let _ = Config::parse(&good, "r.yaml");
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn regions_that_mean_nothing_are_refused() {
    let (file, good) = placed("{ name: europe, continents: [EU] }", &NETWORKS);
    let without = good.lines().filter(|line| !line.starts_with("geoip")).collect::<Vec<_>>().join("\n");
    let check = |text: &str, from: &str, to: &str, expected: &str| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        let error = Config::parse(&text.replace(from, to), "r.yaml").expect_err(to).to_string();
        assert_eq!(error, format!("r.yaml:{expected}"), "{from} -> {to}");
    };
    let europe = "{ name: europe, continents: [EU] }";
    for (to, expected) in [
        (
            "{ name: europe }",
            r#"3:26: client region "europe" has no clients; say where they are: prefixes: [198.51.100.0/24]"#,
        ),
        (
            "{ name: a, countries: [UKR] }",
            r#"3:41: country "UKR" is none; write the two capital letters of ISO 3166-1: countries: [DE, FR]"#,
        ),
        (
            "{ name: a, countries: [de] }",
            r#"3:41: country "de" is none; write the two capital letters of ISO 3166-1: countries: [DE, FR]"#,
        ),
        (
            "{ name: a, continents: [EUROPE] }",
            r#"3:42: continent "EUROPE" is none; write one of AF, AN, AS, EU, NA, OC, SA: continents: [EU]"#,
        ),
        (
            "{ name: a, subdivisions: [BY] }",
            r#"3:44: subdivision "BY" is none; write a code of ISO 3166-2: subdivisions: [US-CA]"#,
        ),
        (
            "{ name: a, countries: [DE] }, { name: a, countries: [FR] }",
            "3:56: client region a is already there (line 3); change or remove one of them",
        ),
        (
            "{ name: a, countries: [DE] }, { name: b, countries: [DE] }",
            "3:71: country DE is already there (line 3); change or remove one of them",
        ),
        (
            "{ name: a, countries: [GB] }",
            &format!(
                r#"3:41: country "GB" has no networks in "{}"; write another, or leave it out"#,
                file.path().display()
            ),
        ),
        (
            "{ name: a, prefixes: [10.0.0.0/8] }, { name: b, prefixes: [10.0.0.0/8] }",
            "3:77: prefix 10.0.0.0/8 is already there (line 3); change or remove one of them",
        ),
        (
            "{ name: a, prefixes: [10.0.0.1/8] }",
            "3:40: prefix 10.0.0.1/8 has bits set behind the prefix; write 10.0.0.0/8 for all of it or 10.0.0.1 for one address",
        ),
        (
            "{ name: a, colour: red }",
            r#"3:29: unknown key "colour"; the keys here are name, prefixes, continents, countries, subdivisions"#,
        ),
    ] {
        check(&good, europe, to, expected);
    }
    check(
        &good,
        europe,
        "{ name: a, prefixes: [10.0.0.0/8] }",
        "2:8: geoip has no meaning without places; leave it out, or name some in client_regions: countries: [DE, FR]",
    );
    check(
        &without,
        "continents: [EU]",
        "continents: [EU, AS]",
        "2:47: where places are is for a database to say; add it at the top: geoip: /var/lib/GeoIP/GeoLite2-Country.mmdb",
    );
    let many: Vec<String> = (0..65).map(|n| format!("{{ name: r{n}, prefixes: [10.{n}.0.0/16] }}")).collect();
    let refused =
        Config::parse(&without.replace(europe, &many.join(", ")), "r.yaml").expect_err("too many").to_string();
    assert!(refused.contains("64 client regions are the most; join some"), "{refused}");
    let asks =
        |expression: &str| format!("addresses: [192.0.2.1], selection: least_cost, cost_function: \"{expression}\"");
    let named = good.replace("addresses: [192.0.2.1]", &asks("client_region == 'eurpe' ? 1.0 : 2.0"));
    let error = Config::parse(&named, "r.yaml").expect_err("a region that is not there").to_string();
    assert!(
        error.ends_with(r#"cost_function names the client region "eurpe", which is not there; did you mean "europe"?"#),
        "{error}"
    );
    let none =
        named.lines().filter(|line| !line.starts_with("geoip") && !line.starts_with("client_")).collect::<Vec<_>>();
    let error = Config::parse(&none.join("\n"), "r.yaml").expect_err("no regions").to_string();
    assert!(error.ends_with("cost_function asks for client_region, but there are none; add them at the top: client_regions: [{ name: europe, prefixes: [198.51.100.0/24] }]"), "{error}");
    let zone = good.replace("[198.51.100.1] }", "[198.51.100.1], time_zone: Europe/Nowhere }");
    let error = Config::parse(&zone, "r.yaml").expect_err("no zone").to_string();
    assert_eq!(
        error,
        r#"r.yaml:1:69: time_zone "Europe/Nowhere" is not known on this machine; write a name of the IANA database (package tzdata), UTC, or local: time_zone: Europe/Berlin"#
    );
    for zone in ["UTC", "local"] {
        parsed(&good.replace("[198.51.100.1] }", &format!("[198.51.100.1], time_zone: {zone} }}")));
    }
}
