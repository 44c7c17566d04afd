//! The host agent on a link of its own: what it lets out of tunnels, what it drops and why, what it changes in the system and
//! how that is undone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::common::namespaces::Namespaces;
use crate::common::tunnels::{Kind, ip, tunnelled, version};
use crate::common::{may_run, said, wait_for};
use serde_json::Value;

const VIP: &str = "192.0.2.80";
const VIP6: &str = "2001:db8:80::80";
const HOST: &str = "10.0.0.2";
const HOST6: &str = "2001:db8::2";
const ROUTER: &str = "10.0.0.1";
const ROUTER6: &str = "2001:db8::1";

/// Sends frames, one in hexadecimal digits a line.
const SEND: &str = "import socket, sys\n\
                    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n\
                    s.bind((sys.argv[1], 0))\n\
                    for line in sys.stdin: s.send(bytes.fromhex(line))\n";

/// Two namespaces with a link between them: a router that says what it is told to, and a host with the agent.
struct Pair {
    ends: Namespaces,
    agent: Option<Child>,
}

impl Pair {
    fn new(test: &str) -> Pair {
        let ends = Namespaces::new(test, &["h", "r"]);
        // Addresses that are being tried out change by themselves.
        ends.on("h", "sysctl -q -w net.ipv6.conf.default.accept_dad=0");
        ends.ip("h", &format!("link add eth0 mtu 1600 type veth peer name eth0 netns {} mtu 1600", ends.name("r")));
        for (end, mac, address, address6) in
            [("h", "02:00:00:00:00:01", HOST, HOST6), ("r", "02:00:00:00:00:09", ROUTER, ROUTER6)]
        {
            ends.ip(end, &format!("link set eth0 address {mac}"));
            ends.ip(end, &format!("address add {address}/24 dev eth0"));
            ends.ip(end, &format!("address add {address6}/64 dev eth0 nodad"));
            ends.ip(end, "link set eth0 up");
        }
        ends.ip("h", &format!("route add default via {ROUTER}"));
        ends.ip("h", &format!("-6 route add default via {ROUTER6} metric 7"));
        Pair { ends, agent: None }
    }

    /// A command on one of the two.
    fn on(&self, end: &str, words: &str) -> Command {
        self.ends.command(end, words)
    }

    fn run(&self, end: &str, words: &str) -> String {
        self.ends.on(end, words)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.ends.path(name)
    }

    /// Writes the agent's configuration; `more` are keys of it.
    fn configure(&self, more: &str) -> PathBuf {
        let socket = self.path("agent.sock");
        let (state, config) = (self.path("state"), self.path("agent.yaml"));
        let text = format!(
            "agent: {{ name: test, tunnel_addresses: [{HOST}, \"{HOST6}\"] }}\ninterfaces: [eth0]\n\
             routers: [{ROUTER}, \"{ROUTER6}\"]\nmetrics: {{ listen: off }}\ndrain: {{ timeout: 5s }}\n\
             control: {{ socket: {} }}\nstate: {}\n{more}\n",
            socket.display(),
            state.display()
        );
        fs::write(&config, text).expect("a file");
        config
    }

    /// Starts the agent with such a configuration.
    fn start(&mut self, more: &str) {
        let config = self.configure(more);
        let log = File::create(self.path("log")).expect("a file");
        let program = env!("CARGO_BIN_EXE_slr-host");
        let mut command = self.on("h", &format!("{program} --config {}", config.display()));
        let mut agent = command.stderr(log).spawn().expect("ip");
        wait_for("the agent", || {
            assert!(agent.try_wait().expect("a process").is_none(), "{}", self.log());
            self.log().contains(" serves ")
        });
        self.agent = Some(agent);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).expect("UTF-8")
    }

    /// Ends the agent by a signal.
    fn stop(&mut self, signal: &str) {
        let mut agent = self.agent.take().expect("a running agent");
        said(Command::new("kill").args([signal, &agent.id().to_string()]).output().expect("kill"));
        let status = agent.wait().expect("an end");
        assert!(status.success() || signal == "-KILL", "{status}: {}", self.log());
    }

    /// Asks the agent something.
    fn ask(&self, what: &str) -> Output {
        let (slrctl, socket) = (env!("CARGO_BIN_EXE_slrctl"), self.path("agent.sock"));
        self.on("h", &format!("{slrctl} --agent --json --socket {} {what}", socket.display())).output().expect("ip")
    }

    /// How the agent is.
    fn status(&self) -> Value {
        serde_json::from_str(&said(self.ask("status"))).expect("JSON")
    }

    /// What the agent says to another configuration, which is refused.
    fn refusal(&self, more: &str) -> String {
        self.configure(more);
        let refused = self.ask("reload");
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && words.contains("not reloaded, all stays as it was: "), "{words}");
        assert!(self.log().contains(words.trim().trim_start_matches("slrctl: ")), "{words}");
        words
    }

    /// Packets by what became of them, without those of which there are none.
    fn packets(&self) -> BTreeMap<String, u64> {
        let status = self.status();
        let all = status["packets"].as_object().expect("packets").iter();
        all.map(|(label, count)| (label.clone(), count.as_u64().expect("a number")))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Puts frames on the link.
    fn send(&self, frames: &[Vec<u8>]) {
        let mut command = self.on("r", "python3");
        command.args(["-c", SEND, "eth0"]).stdin(Stdio::piped());
        let mut python = command.spawn().expect("python3");
        let mut lines = python.stdin.take().expect("a pipe");
        for frame in frames {
            let line: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(lines, "{line}").expect("a pipe");
        }
        drop(lines);
        assert!(python.wait().expect("an end").success());
    }

    /// Everything of the host's network that the agent may change.
    fn settings(&self) -> String {
        [
            "ip address show",
            "ip route show table all",
            "ip -6 route show table all",
            "ip link show",
            "sysctl net.ipv4.conf",
        ]
        .map(|words| {
            let text = self.run("h", words);
            let lines = text.lines().filter(|line| !line.contains("valid_lft"));
            // A route that was replaced stands elsewhere in the list.
            let mut lines: Vec<_> = lines.map(str::trim).collect();
            lines.sort_unstable();
            lines.join("\n")
        })
        .join("\n")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            println!("the agent said:\n{}", self.log());
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

fn ends(source: &str, destination: &str) -> (IpAddr, IpAddr) {
    (source.parse().expect("an address"), destination.parse().expect("an address"))
}

/// A frame to the host.
fn frame(ethertype: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9][..], &ethertype, packet].concat()
}

fn plain(packet: &[u8]) -> Vec<u8> {
    frame(if version(packet) == 4 { [8, 0] } else { [0x86, 0xdd] }, packet)
}

/// A datagram for port 9 from a client, marked with ECN bits.
fn datagram(family: u8, destination: &str, ecn: u8, length: usize) -> Vec<u8> {
    let source = if family == 4 { "198.51.100.7" } else { "2001:db8:c::7" };
    // A checksum of zero is none, over IPv4; nobody looks at it over IPv6 here.
    let udp = [&[0x9c, 0x40, 0, 9][..], &((8 + length) as u16).to_be_bytes(), &[0, 0], &vec![b'x'; length]].concat();
    ip(ends(source, destination), ecn, 60, 17, &udp)
}

fn sources(family: u8) -> ((IpAddr, IpAddr), (IpAddr, IpAddr)) {
    match family {
        4 => (ends(ROUTER, HOST), ends("10.0.0.66", HOST)),
        _ => (ends(ROUTER6, HOST6), ends("2001:db8::66", HOST6)),
    }
}

const HOSTS: &str = "virtual_hosts: [{ name: web, addresses: [192.0.2.80, \"2001:db8:80::/64\"] }]";

/// What must come of some packets, in every kind of tunnel and over both families, whatever takes the tunnel off.
fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let mut cases = Vec::new();
    for outer in [4, 6] {
        let (router, stranger) = sources(outer);
        for (kind, label) in [(Kind::IpIp, "ipip"), (Kind::Gue, "gue"), (Kind::Direct, "gue"), (Kind::Gre, "gre")] {
            for (inner, vip) in [(4, VIP), (6, "2001:db8:80::1:2")] {
                let good = datagram(inner, vip, 0, 10);
                cases.push((label, tunnelled(kind, router, 0, 64, &good)));
                cases.push(("tunnel_stranger", tunnelled(kind, stranger, 0, 64, &good)));
                let other = if inner == 4 { "192.0.2.81" } else { "2001:db8:81::1" };
                cases.push(("no_virtual_host", tunnelled(kind, router, 0, 64, &datagram(inner, other, 0, 10))));
            }
        }
        let (udp, _) = (17, ());
        let gue = |header: &[u8]| {
            let length = (8 + header.len()) as u16;
            ip(router, 0, 64, udp, &[&[0xd9, 3, 0x17, 0xc0][..], &length.to_be_bytes(), &[0, 0], header].concat())
        };
        cases.push(("tunnel_header", gue(&[0x20, 4, 0, 0, 0x45, 0, 0, 0])));
        cases.push(("tunnel_header", gue(&[0, 17, 0, 0, 0x45, 0, 0, 0])));
        cases.push(("tunnel_header", gue(&[0, 4, 0x80, 0, 0x45, 0, 0, 0])));
        cases.push(("tunnel_header", ip(router, 0, 64, 47, &[0x20, 0, 8, 0, 0, 0, 0, 1, 0x45])));
        cases.push(("tunnel_header", ip(router, 0, 64, 47, &[0, 0, 0x65, 0x58, 0, 0, 0, 0])));
        cases.push(("tunnel_inner", ip(router, 0, 64, 4, &datagram(6, VIP6, 0, 10))));
        cases.push(("tunnel_inner", ip(router, 0, 64, 4, &[0x45, 0, 0, 20])));
    }
    cases
}

#[test]
fn every_way_takes_the_same_packets_and_drops_the_others_for_the_same_reasons() {
    if !may_run() {
        return;
    }
    for way in ["tc", "xdp", "tun"] {
        let mut pair = Pair::new(way);
        pair.start(&format!("decapsulation: {way}\ntunnels: [ipip, gue, gre]\n{HOSTS}"));
        let cases = cases();
        let mut expected = BTreeMap::new();
        for (outcome, _) in &cases {
            *expected.entry((*outcome).to_owned()).or_insert(0) += 1;
        }
        pair.send(&cases.iter().map(|(_, packet)| plain(packet)).collect::<Vec<_>>());
        wait_for("the packets", || pair.packets().values().sum::<u64>() >= cases.len() as u64);
        assert_eq!(pair.packets(), expected, "{way}");
        // Each case that is taken is a datagram for a port that is closed.
        let taken: u64 = ["ipip", "gue", "gre"].iter().map(|label| expected[*label]).sum();
        let reached = pair.run("h", "nstat -asz UdpNoPorts Ip6InDelivers");
        let number = |name: &str| {
            let line = reached.lines().find(|line| line.starts_with(name)).expect("a counter");
            line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number")
        };
        assert!(number("UdpNoPorts") >= taken / 2, "{way}: {reached}");
        pair.stop("-TERM");
    }
}

#[test]
fn a_congestion_mark_is_carried_over_and_what_cannot_bear_it_is_dropped() {
    if !may_run() {
        return;
    }
    for way in ["tc", "xdp"] {
        let mut pair = Pair::new(&format!("ecn-{way}"));
        pair.start(&format!("decapsulation: {way}\ntunnels: [ipip, gue, gre]\n{HOSTS}"));
        let mut frames = Vec::new();
        for outer in [4, 6] {
            for (inner, vip) in [(4, VIP), (6, VIP6)] {
                // Not ECN-capable: dropped. ECT(0): marked.
                for ecn in [0, 2] {
                    frames.push(plain(&tunnelled(Kind::IpIp, sources(outer).0, 3, 64, &datagram(inner, vip, ecn, 10))));
                }
            }
        }
        pair.send(&frames);
        wait_for("the packets", || pair.packets().values().sum::<u64>() >= 8);
        let expected = [("ipip", 4), ("tunnel_ecn", 4)].map(|(label, count)| (label.to_owned(), count));
        assert_eq!(pair.packets(), BTreeMap::from(expected), "{way}");
        // The stack counts marks, and headers whose checksum is wrong.
        let counters = pair.run("h", "nstat -asz IpExtInCEPkts Ip6InCEPkts IpInHdrErrors IpExtInCsumErrors");
        for (name, count) in [("IpExtInCEPkts", 2), ("Ip6InCEPkts", 2), ("IpInHdrErrors", 0), ("IpExtInCsumErrors", 0)]
        {
            let line = counters.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{counters}"));
            assert_eq!(line.split_whitespace().nth(1), Some(&*count.to_string()), "{way}: {counters}");
        }
        pair.stop("-TERM");
    }
}

#[test]
fn labels_are_taken_off_by_xdp() {
    if !may_run() {
        return;
    }
    let mut pair = Pair::new("mpls");
    let labels = format!("tunnels: [{{ mpls: {{ label: 1000 }} }}]\n{HOSTS}");
    pair.start(&labels);
    assert!(pair.log().contains("decapsulation by xdp"), "{}", pair.log());
    let label = |label: u32, bottom: u32| (label << 12 | bottom << 8 | 64).to_be_bytes();
    let labelled = |head: [u8; 4], inner: &[u8]| frame([0x88, 0x47], &[&head[..], inner].concat());
    pair.send(&[
        labelled(label(1000, 1), &datagram(4, VIP, 0, 10)),
        labelled(label(1000, 1), &datagram(6, VIP6, 0, 10)),
        labelled(label(1000, 0), &datagram(4, VIP, 0, 10)),
        labelled(label(1000, 1), &datagram(4, "192.0.2.81", 0, 10)),
        labelled(label(1001, 1), &datagram(4, VIP, 0, 10)),
    ]);
    wait_for("the packets", || pair.packets().values().sum::<u64>() >= 4);
    let expected =
        [("mpls", 2), ("no_virtual_host", 1), ("tunnel_header", 1)].map(|(label, count)| (label.to_owned(), count));
    assert_eq!(pair.packets(), BTreeMap::from(expected));

    // From two machines now, of which one sends.
    let good = labelled(label(1000, 1), &datagram(4, VIP, 0, 10));
    for (macs, mpls, strangers) in [
        (r#"["02:00:00:00:00:08", "02:00:00:00:00:07"]"#, 2, 1),
        (r#"["02:00:00:00:00:08", "02:00:00:00:00:09"]"#, 3, 1),
    ] {
        pair.configure(&format!("router_macs: {macs}\n{labels}"));
        said(pair.ask("reload"));
        pair.send(std::slice::from_ref(&good));
        wait_for("the packet", || pair.packets().values().sum::<u64>() >= 2 + mpls + strangers);
        assert_eq!((pair.packets()["mpls"], pair.packets()["tunnel_stranger"]), (mpls, strangers), "{macs}");
    }
    pair.stop("-TERM");
}

#[test]
fn fragments_of_tunnel_packets_are_put_together_first() {
    if !may_run() {
        return;
    }
    let mut pair = Pair::new("frag");
    pair.start(&format!("tunnels: [ipip, gue, gre]\n{HOSTS}"));
    // The kernel of the router fragments what it sends by a raw socket, or has it fragmented: 2000 bytes inside.
    let inner = datagram(4, VIP, 0, 1400);
    let whole = tunnelled(Kind::IpIp, sources(4).0, 0, 64, &inner);
    let (head, payload) = whole.split_at(20);
    let piece = |offset: usize, more: bool, bytes: &[u8]| {
        let mut packet = ip(sources(4).0, 0, 64, 4, bytes);
        let field = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        packet[4..6].copy_from_slice(&[0x12, 0x34]);
        packet[10..12].fill(0);
        let sum = packet[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u32>();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        plain(&packet)
    };
    assert_eq!(head.len(), 20);
    pair.send(&[piece(0, true, &payload[..800]), piece(800, false, &payload[800..])]);
    wait_for("the packet", || pair.packets().contains_key("ipip"));
    assert_eq!(pair.packets(), BTreeMap::from([("fragment".to_owned(), 2), ("ipip".to_owned(), 1)]));
    let row = &pair.status()["virtual_hosts"][0];
    assert_eq!(row["name"], "web");
    pair.stop("-TERM");
}

#[test]
fn what_is_changed_is_undone_at_the_end_and_after_a_crash_by_the_next_start() {
    if !may_run() {
        return;
    }
    let mut pair = Pair::new("undo");
    pair.run("h", "sysctl -q -w net.ipv4.conf.eth0.rp_filter=1");
    pair.run("h", "ip address add 192.0.2.99/32 dev lo");
    let before = pair.settings();
    let hosts = "virtual_hosts: [{ name: web, addresses: [192.0.2.80, 192.0.2.99, 198.51.100.0/24, \"2001:db8:80::80\", \
                 \"2001:db8:81::/64\"] }]";
    pair.start(hosts);
    let during = pair.settings();
    for part in [
        "inet 192.0.2.80/32 scope host lo",
        "inet6 2001:db8:80::80/128 scope global nodad deprecated",
        "local 198.51.100.0/24 dev lo",
        "local 2001:db8:81::/64 dev lo",
        "net.ipv4.conf.all.arp_ignore = 1",
        "net.ipv4.conf.all.arp_announce = 2",
        "net.ipv4.conf.eth0.rp_filter = 2",
        "default via 10.0.0.1 dev eth0 advmss 1508",
        "default via 2001:db8::1 dev eth0 metric 7 advmss 1488",
    ] {
        assert!(during.contains(part), "no {part:?} in {during}");
    }
    // Nobody hears of a virtual host on the link.
    let asked = pair.on("r", "arping -c 2 -w 1 -I eth0 192.0.2.80").output();
    if let Ok(asked) = asked {
        assert!(!String::from_utf8_lossy(&asked.stdout).contains("02:00:00:00:00:01"), "{asked:?}");
    }
    pair.stop("-TERM");
    assert_eq!(pair.settings(), before, "after an orderly end");

    pair.start(hosts);
    pair.stop("-KILL");
    assert!(pair.settings().contains("192.0.2.80/32"), "a crash leaves it");
    // The next one serves something else, and leaves nothing of the first.
    pair.start("virtual_hosts: [{ name: web, addresses: [203.0.113.1] }]");
    assert!(pair.log().contains("that an agent had left behind"), "{}", pair.log());
    let next = pair.settings();
    assert!(!next.contains("192.0.2.80/32") && next.contains("203.0.113.1/32"), "{next}");
    pair.stop("-TERM");
    assert_eq!(pair.settings(), before, "after the next one's end");
}

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn connections_that_outlast_a_stop_are_reset() {
    if !may_run() {
        return;
    }
    let mut pair = Pair::new("reset");
    let _server = Running(pair.on("h", "socat TCP-LISTEN:80,fork EXEC:cat").spawn().expect("socat"));
    pair.start("virtual_hosts: [{ name: web, addresses: [192.0.2.80], services: [tcp/80] }]");
    // One to the virtual host and one to somebody else's address, neither of which says anything.
    let connect = |to: &str| {
        let words = format!("socat -u TCP:{to}:80,bind={HOST},retry=50,interval=0.1 STDOUT");
        Running(pair.on("h", &words).stdout(Stdio::null()).spawn().expect("socat"))
    };
    let (mut client, mut other) = (connect("192.0.2.80"), connect(HOST));
    let established = |from: &str| pair.run("h", &format!("ss -Htan state established sport = 80 src {from}"));
    wait_for("connections", || {
        [established("192.0.2.80"), established(HOST)].iter().all(|lines| lines.contains(":80"))
    });
    pair.stop("-TERM");
    let log = pair.log();
    assert!(log.contains("1 connections are cut off") && log.contains("1 connections are reset"), "{log}");
    wait_for("the client to hear of it", || client.0.try_wait().expect("a process").is_some());
    assert_eq!(pair.run("h", "ss -Htan src 192.0.2.80"), "");
    assert!(other.0.try_wait().expect("a process").is_none(), "of no virtual host");
}

#[test]
fn a_reload_takes_over_whole_or_not_at_all() {
    if !may_run() {
        return;
    }
    let count = |packets: &[(&str, u64)]| -> BTreeMap<String, u64> {
        packets.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect()
    };
    for way in ["tc", "xdp", "tun"] {
        let mut pair = Pair::new(&format!("reload-{way}"));
        let before = pair.settings();
        let head = format!("decapsulation: {way}\ntunnels: [ipip]\n");
        let addresses: Vec<_> = (1..=20).map(|last| format!("198.51.100.{last}")).collect();
        let (web, many) = ("{ name: web, addresses: [192.0.2.80] }", addresses.join(", "));
        let first = format!("{head}virtual_hosts: [{web}]");
        let second = format!(
            "{head}virtual_hosts: [{{ name: many, addresses: [{many}] }}, {{ name: nets, addresses: [203.0.113.0/24] }}, {web}]"
        );
        pair.start(&first);
        let (router, _) = sources(4);
        let send = |pair: &Pair| {
            let to = |vip| plain(&tunnelled(Kind::IpIp, router, 0, 64, &datagram(4, vip, 0, 10)));
            pair.send(&["192.0.2.80", "198.51.100.17", "203.0.113.9"].map(to));
        };
        let came = |pair: &Pair, expected: &[(&str, u64)]| {
            wait_for("the packets", || pair.packets().values().sum::<u64>() >= expected.iter().map(|(_, n)| n).sum());
            assert_eq!(pair.packets(), count(expected), "{way}");
        };
        send(&pair);
        came(&pair, &[("ipip", 1), ("no_virtual_host", 2)]);

        let words = pair.refusal(&format!("{second}\nno_such_key: 1"));
        assert!(words.contains("no_such_key"), "{words}");
        let words = pair.refusal(&second.replace("[ipip]", "[ipip, gre]"));
        assert!(words.contains("tunnels cannot change while the agent runs"), "{words}");
        assert!(!pair.settings().contains("198.51.100.17"));

        pair.configure(&second);
        let process = pair.agent.as_ref().expect("an agent").id();
        said(Command::new("kill").args(["-HUP", &process.to_string()]).output().expect("kill"));
        wait_for("the reload", || pair.log().contains("reloaded: 3 virtual hosts"));
        assert!(pair.settings().contains("198.51.100.17/32"));
        // What has been counted before is in it.
        send(&pair);
        came(&pair, &[("ipip", 4), ("no_virtual_host", 2)]);
        // "web" is elsewhere in the list now, and the number of its prefix is another.
        let rows = |pair: &Pair| pair.status()["virtual_hosts"].clone();
        assert_eq!(
            (&rows(&pair)[2]["name"], pair.status()["changes"].as_u64().expect("a number") > 22),
            (&"web".into(), true)
        );

        // A router less, and virtual hosts less.
        let third = format!("{head}virtual_hosts: [{{ name: nets, addresses: [203.0.113.0/24] }}]");
        pair.configure(&third);
        let file = pair.path("agent.yaml");
        let text = fs::read_to_string(&file)
            .expect("a file")
            .replace(&format!("routers: [{ROUTER}, "), "routers: [10.0.0.66, ");
        fs::write(&file, text).expect("a file");
        said(pair.ask("reload"));
        send(&pair);
        came(&pair, &[("ipip", 4), ("no_virtual_host", 2), ("tunnel_stranger", 3)]);
        let settings = pair.settings();
        assert!(
            settings.contains("local 203.0.113.0/24")
                && !settings.contains("192.0.2.80")
                && !settings.contains("198.51.100.")
        );
        pair.configure(&third);
        said(pair.ask("reload"));
        send(&pair);
        came(&pair, &[("ipip", 5), ("no_virtual_host", 4), ("tunnel_stranger", 3)]);
        pair.stop("-TERM");
        assert_eq!(pair.settings(), before, "{way}");
    }
}

#[test]
fn a_reload_keeps_what_is_known_of_services_that_stay() {
    if !may_run() {
        return;
    }
    let mut pair = Pair::new("known");
    let number = pair.path("number");
    fs::write(&number, "0.25\n").expect("a file");
    let web = format!(
        "{{ name: web, addresses: [{VIP}], services: [tcp/8080], health: tcp, application: {{ file: {} }} }}",
        number.display()
    );
    pair.start(&format!("load: {{ interval: 100ms }}\nvirtual_hosts: [{web}]"));
    let row = |name: &str| {
        let status = pair.status();
        let rows = status["virtual_hosts"].as_array().expect("rows");
        rows.iter().find(|row| row["name"] == name).cloned().unwrap_or_default()
    };
    // Until the first checks, a service counts as up.
    wait_for("the failure", || row("web")["failure"].is_string());
    let mut server = pair.on("h", "python3 -m http.server 8080 --bind ::");
    let mut server = server.stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("ip");
    wait_for("the service", || row("web")["failure"].is_null() && row("web")["load"] == 0.25);
    // The one that is new has nobody who answers; the load of the other is another expression's.
    let six = format!("{{ name: six, addresses: [\"{VIP6}\"], services: [tcp/8081], health: tcp }}");
    let web = web.replace("health: tcp", "health: tcp, load: application * 2.0");
    pair.configure(&format!("load: {{ interval: 100ms }}\nvirtual_hosts: [{six}, {web}]"));
    said(pair.ask("reload"));
    let now = row("web");
    assert!(now["failure"].is_null() && now["load"] == 0.5, "{now}");
    wait_for("the failure", || row("six")["failure"].is_string());
    server.kill().expect("a process");
    server.wait().expect("an end");
    wait_for("the other failure", || row("web")["failure"].is_string());
    pair.stop("-TERM");
}

#[test]
fn a_second_agent_of_the_same_name_is_refused() {
    if !may_run() {
        return;
    }
    let mut pair = Pair::new("twice");
    pair.start(HOSTS);
    let config = pair.path("agent.yaml");
    let second = pair
        .on("h", &format!("{} --config {}", env!("CARGO_BIN_EXE_slr-host"), config.display()))
        .output()
        .expect("ip");
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(1) && words.contains("agent test runs already"), "{words}");
    assert!(pair.settings().contains("192.0.2.80/32"), "the first one goes on");
    pair.stop("-TERM");
}

#[test]
fn a_service_that_does_not_answer_is_down_and_an_application_is_heard() {
    if !may_run() {
        return;
    }
    let mut pair = Pair::new("load");
    let number = pair.path("number");
    fs::write(&number, "0.25\n").expect("a file");
    pair.start(&format!(
        "load: {{ interval: 100ms }}\nvirtual_hosts:\n  - name: web\n    addresses: [{VIP}, \"{VIP6}\"]\n    \
         services: [tcp/8080]\n    health: tcp\n    application: {{ file: {} }}\n  - name: six\n    \
         addresses: [\"2001:db8:81::1\"]\n    services: [tcp/8080]\n    health: tcp\n    load: established / 4.0\n",
        number.display()
    ));
    let row = |at: usize| pair.status()["virtual_hosts"][at].clone();
    wait_for("the failures", || row(0)["failure"].is_string() && row(1)["failure"].is_string());
    wait_for("the number", || row(0)["load"] == 0.25);
    let mut server = pair
        .on("h", "python3 -m http.server 8080 --bind ::")
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("ip");
    wait_for("the services", || row(0)["failure"].is_null() && row(1)["failure"].is_null());
    fs::write(&number, "nothing\n").expect("a file");
    wait_for("the default load", || row(0)["load"] != 0.25);
    let text = "import socket, time; c = [socket.create_connection(('2001:db8:81::1', 8080)) for _ in range(3)]; time.sleep(30)";
    let mut client = pair.on("h", "python3").args(["-c", text]).spawn().expect("ip");
    wait_for("the connections", || row(1)["established"] == 3 && row(1)["load"] == 0.75);
    for child in [&mut client, &mut server] {
        child.kill().expect("a process");
        child.wait().expect("an end");
    }
    wait_for("the failure", || row(1)["failure"].is_string());
    pair.stop("-TERM");
}

/// Memory of its own in KiB and processor time in ticks of a process.
fn usage(process: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a size");
    let memory = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .expect("fields")
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|n| n.parse().expect("a number"))
        .collect();
    (memory, fields.iter().sum())
}

#[test]
fn a_thousand_idle_virtual_hosts_cost_little() {
    if !may_run() {
        return;
    }
    let mut pair = Pair::new("idle");
    let mut hosts = String::from("virtual_hosts:\n");
    for number in 0..1000 {
        hosts += &format!("  - {{ name: v{number}, addresses: [10.1.{}.{}] }}\n", number / 250, number % 250 + 1);
    }
    pair.start(&hosts);
    let process = pair.agent.as_ref().expect("an agent").id();
    sleep(Duration::from_secs(1));
    let (_, before) = usage(process);
    sleep(Duration::from_secs(5));
    let (memory, after) = usage(process);
    println!("{memory} KiB, {} ticks of 10 ms in 5 s", after - before);
    // 20 MiB are for all of it, and half of that is the program's own text.
    assert!(memory < 10 << 10, "{memory} KiB");
    // 1 % of a processor is 5 ticks of 10 ms in 5 s; a debug build and a busy machine get some more.
    assert!(after - before <= 15, "{} ticks", after - before);
    pair.stop("-TERM");
}
