//! Every kind of tunnel on real traffic, judged by tshark.

use super::*;
use crate::common::tunnels::read;

/// The sample configuration, all its children by tunnels of one kind.
fn config(tunnel: &str) -> String {
    let sample = fs::read_to_string(Path::new(MANIFEST).join("dpdk-config/replay.yaml")).expect("the sample");
    let child = |line: &str| line.starts_with("  - { name: server") && line.contains("address:");
    let lines = sample.lines().map(|line| {
        if child(line) {
            let line = line.replace(", tunnel: ipip", "").replace(" }", "");
            format!("{line}, tunnel: {tunnel} }}\n")
        } else {
            format!("{line}\n")
        }
    });
    lines.collect()
}

/// What tshark says of each frame: its protocols, the status of its first IPv4 header's checksum, and complaints.
fn tshark(capture: &Path) -> Vec<[String; 3]> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-o", "ip.check_checksum:TRUE", "-d", "udp.port==6080,ip", "-T", "fields"]);
    tshark.args(["-E", "occurrence=f", "-e", "frame.protocols", "-e", "ip.checksum.status", "-e", "_ws.malformed"]);
    let output = tshark.arg("-r").arg(capture).output().expect("tshark is installed (scripts/test does it)");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let row = |line: &str| {
        let mut fields = line.split('\t').map(str::to_owned);
        std::array::from_fn(|_| fields.next().unwrap_or_default())
    };
    text.lines().map(row).collect()
}

#[test]
fn tshark_takes_every_kind_of_tunnel_for_what_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let ipip = run(&demo(), &[]);
    let packets: Vec<Vec<u8>> = ipip.sent.iter().map(|frame| decapsulate(frame).2).collect();
    for (tunnel, chain) in [
        ("ipip", "OUTER:INNER:"),
        // It knows GUE only as far as it is IP directly behind UDP, and shows IPv6 there behind an "ip".
        ("gue", "OUTER:udp"),
        ("{ gue: { variant: 1 } }", "OUTER:udp:ip"),
        ("gre", "OUTER:gre:INNER:"),
        ("{ mpls: { label: 1000 } }", "mpls:INNER:"),
        ("mac", "INNER:"),
    ] {
        let path = directory.path().join("kind.yaml");
        fs::write(&path, config(tunnel)).expect("a file");
        let run = run_by(&path.display().to_string(), &demo(), &[]);
        assert_eq!(run.sent.iter().map(|frame| read(frame).1).collect::<Vec<_>>(), packets, "{tunnel}");
        let rows = tshark(&run.output);
        assert_eq!(rows.len(), run.sent.len(), "{tunnel}");
        for ([protocols, checksum, malformed], (frame, packet)) in rows.iter().zip(run.sent.iter().zip(&packets)) {
            let name = |ipv4: bool| if ipv4 { "ip" } else { "ipv6" };
            let inner = name(packet[0] >> 4 == 4);
            let chain = chain.replace("OUTER", name(frame[12..14] == [8, 0])).replace("INNER", inner);
            let chain = format!("eth:ethertype:{chain}");
            assert!(protocols.starts_with(&chain), "{tunnel}: {protocols}, not {chain}");
            assert!(checksum.is_empty() || checksum == "1", "{tunnel}: checksum of {protocols}");
            assert_eq!(malformed, "", "{tunnel}: {protocols}");
        }
    }
}
