//! `slrd` on the kinds of devices that every machine has: what passes through them, and what is said of one that will not do.

#![cfg(feature = "dpdk")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};

use crate::common::PATIENCE;

/// A router that runs until this is dropped, and what it has said.
struct Router {
    process: Child,
    log: PathBuf,
}

impl Router {
    fn start(directory: &Path, name: &str, config: &str) -> Router {
        let [config_file, log] = ["yaml", "log"].map(|what| directory.join(format!("{name}.{what}")));
        fs::write(&config_file, config).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_slrd"));
        command.arg("--config").arg(config_file).stdout(Stdio::null()).stderr(File::create(&log).expect("a file"));
        Router { process: command.spawn().expect("slrd"), log }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }

    fn wait_until(&mut self, what: &str, happened: impl Fn(&Router) -> bool) {
        let start = Instant::now();
        while !happened(self) {
            assert!(start.elapsed() < PATIENCE, "waited in vain for {what}: {}", self.said());
            assert!(self.process.try_wait().expect("slrd").is_none(), "slrd ended: {}", self.said());
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A UDP packet for the virtual host, with this much in it.
fn datagram(payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let builder = builder.ipv4([10, 0, 0, 9], [192, 0, 2, 80], 64).udp(5000, 53);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).expect("a packet");
    frame
}

fn numbered(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7 + index / 251) as u8).collect()
}

const COMMON: &str = r#"
dpdk: { hugepages: never, memory: 64MiB, buffers: 4096 }
flows: { capacity_v4: 1000, capacity_v6: 1000 }
virtual_hosts: [{ name: all, addresses: [192.0.2.80], children: [next] }]
metrics: { listen: off }
control: { socket: off }
"#;

#[test]
fn two_levels_are_neighbours_over_memif_with_a_vlan_tag_and_jumbo_frames_in_several_buffers() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let payload = numbered(8000);
    let fifo = path("in.pcap");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let frame = datagram(&payload);
    // The way on is not known at first, so there is one packet after the other until the router ends.
    std::thread::spawn(move || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut input = PcapWriter::new(File::options().write(true).open(fifo)?)?;
        loop {
            input.write_packet(&PcapPacket::new(Duration::ZERO, frame.len() as u32, &frame))?;
            sleep(Duration::from_micros(200));
        }
    });

    let memif = format!("net_memif0,socket={},socket-abstract=no,role", path("memif.sock"));
    let upper = format!(
        r#"{COMMON}
router: {{ name: upper, level: system, tunnel_addresses: [10.8.0.1] }}
ports:
  - {{ name: clients, device: "net_pcap0,rx_pcap={},tx_pcap={}", mtu: 9000 }}
  - {{ name: link, device: "{memif}=server", mtu: 9000, vlan: 100, addresses: [10.8.0.1/24] }}
children: [{{ name: next, address: 10.8.0.2 }}]
"#,
        path("in.pcap"),
        path("back.pcap")
    );
    let lower = format!(
        r#"{COMMON}
router: {{ name: lower, tunnel_addresses: [10.8.0.2], parents: [10.8.0.1] }}
ports:
  - {{ name: link, device: "{memif}=client", mtu: 9000, vlan: 100, addresses: [10.8.0.2/24] }}
  - {{ name: servers, device: "net_pcap0,tx_pcap={}", mtu: 9000, addresses: [10.9.0.1/24] }}
neighbours: [{{ address: 10.9.0.2, mac: "02:00:00:00:00:09" }}]
children: [{{ name: next, address: 10.9.0.2 }}]
"#,
        path("out.pcap")
    );
    let mut upper = Router::start(directory.path(), "upper", &upper);
    upper.wait_until("the server of memif", |router| router.said().contains("forwarding"));
    let mut lower = Router::start(directory.path(), "lower", &lower);
    let sent = |_: &Router| fs::metadata(path("out.pcap")).is_ok_and(|file| file.len() > 100_000);
    lower.wait_until("packets", sent);
    drop(lower);
    drop(upper);

    let mut output = PcapReader::new(File::open(path("out.pcap")).expect("a file")).expect("a capture");
    let mut carried = 0;
    // The router was killed: the last one may be cut.
    while let Some(Ok(packet)) = output.next_packet() {
        // ARP and announcements.
        if packet.data.len() < 1000 {
            continue;
        }
        assert_eq!(packet.data.len(), 14 + 20 + 28 + payload.len());
        assert_eq!(packet.data[12..14], [8, 0], "no tag on the other port");
        assert_eq!(packet.data[26..34], [10, 8, 0, 2, 10, 9, 0, 2], "one tunnel, of the lower router");
        assert!(packet.data.ends_with(&payload));
        carried += 1;
    }
    assert!(carried >= 10, "{carried}");
}

#[test]
fn a_port_that_will_not_do_is_one_clear_line_that_says_what_would() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut rows = vec![
        ("net_af_packet0,iface=lo".to_owned(), 2, vec!["1 receive queues", "2 workers", "qpairs=2", "workers.count"]),
        ("net_pcap0,iface=lo".to_owned(), 2, vec!["1 receive queues", "for each"]),
        ("0000:7f:00.0".to_owned(), 1, vec!["no such PCI device", "scripts/bind-nic --list"]),
    ];
    if let Some(address) = card_of_linux() {
        rows.push((address, 1, vec!["Linux uses it", "scripts/bind-nic 0000:"]));
    }
    for (device, workers, words) in rows {
        let config = format!(
            r#"{COMMON}
router: {{ name: one, tunnel_addresses: [10.9.0.1] }}
workers: {{ count: {workers} }}
ports: [{{ name: only, device: "{device}", addresses: [10.9.0.1/24] }}]
children: [{{ name: next, address: 10.9.0.2 }}]
"#
        );
        let mut router = Router::start(directory.path(), "refused", &config);
        let start = Instant::now();
        while router.process.try_wait().expect("slrd").is_none() {
            assert!(start.elapsed() < PATIENCE, "{device}: slrd runs: {}", router.said());
            sleep(Duration::from_millis(20));
        }
        let status = router.process.wait().expect("slrd");
        let said = router.said();
        assert_eq!(status.code(), Some(1), "{device}: {said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(words.iter().all(|word| last.contains(word)), "{device}: {words:?} in: {said}");
    }
}

/// Any PCI device that a driver of Linux has, as every machine of a cloud has one.
fn card_of_linux() -> Option<String> {
    let devices = fs::read_dir("/sys/bus/pci/devices").ok()?;
    devices.filter_map(|entry| Some(entry.ok()?.path())).find_map(|device| {
        let driver = fs::read_link(device.join("driver")).ok()?;
        let driver = driver.file_name()?.to_string_lossy().into_owned();
        let kernels = !driver.contains("vfio") && !driver.contains("uio") && !driver.starts_with("mlx");
        kernels.then(|| device.file_name().expect("a name").to_string_lossy().into_owned())
    })
}
