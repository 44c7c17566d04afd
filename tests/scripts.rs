//! The scripts that prepare a machine for DPDK, on a sysfs made of plain files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A machine with two NUMA nodes and these PCI devices: address, class, driver, interface.
struct Machine(TempDir);

const CARDS: [(&str, &str, &str, &str); 5] = [
    ("0000:01:00.0", "0x020000", "igb", "eth0"),
    ("0000:01:00.1", "0x020000", "igb", "eth1"),
    ("0000:02:00.0", "0x020000", "mlx5_core", "eth2"),
    ("0000:03:00.0", "0x010802", "nvme", ""),
    ("0000:04:00.0", "0x020000", "vfio-pci", ""),
];

impl Machine {
    fn new() -> Machine {
        let machine = Machine(tempfile::tempdir().expect("a directory"));
        for node in ["node0", "node1"] {
            for size in ["hugepages-2048kB", "hugepages-1048576kB"] {
                machine.file(&format!("devices/system/node/{node}/hugepages/{size}/nr_hugepages"), "0");
            }
        }
        for (address, class, driver, interface) in CARDS {
            let device = format!("bus/pci/devices/{address}");
            machine.file(&format!("{device}/class"), class);
            machine.file(&format!("{device}/driver_override"), if driver == "vfio-pci" { driver } else { "(null)" });
            machine.file(&format!("bus/pci/drivers/{driver}/unbind"), "");
            let link = machine.path(&format!("{device}/driver"));
            symlink(format!("../../../bus/pci/drivers/{driver}"), link).expect("a link");
            if !interface.is_empty() {
                machine.file(&format!("{device}/net/{interface}/address"), "02:00:00:00:00:01");
            }
        }
        machine.file("bus/pci/drivers_probe", "");
        machine.file("kernel/iommu_groups/1/type", "DMA");
        // The default route goes over a bond of the first card.
        machine.file("bus/pci/devices/0000:01:00.0/net/eth0/upper_bond0/x", "");
        machine.file("bin/ip", "#!/bin/sh\ncase \"$*\" in *route*) echo default via 192.0.2.1 dev bond0 ;; esac\n");
        let ip = machine.path("bin/ip");
        let chmod = Command::new("chmod").arg("755").arg(ip).status().expect("chmod");
        assert!(chmod.success());
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a file").trim().to_owned()
    }

    fn run(&self, line: &str) -> Output {
        let mut words = line.split_whitespace();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(words.next().expect("a script"));
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").expect("PATH"));
        let mut command = Command::new(script);
        command.args(words).env("SLR_SYSFS", self.0.path()).env("PATH", path).env_remove("SSH_CONNECTION");
        command.output().expect("a script")
    }

    /// Runs `line`, which is to end with `status` and say all of `words`.
    fn expect(&self, line: &str, status: i32, words: &[&str]) {
        let output = self.run(line);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{line}: {said}");
        for word in words {
            assert!(said.contains(word), "{line}: no {word:?} in: {said}");
        }
    }
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").expect("a status").contains("Uid:\t0\t0\t")
}

#[test]
fn a_dry_run_says_what_it_would_do_and_writes_nothing() {
    let machine = Machine::new();
    for (line, words) in [
        (
            "hugepages --dry-run 3",
            &["write 2 to", "node0/hugepages/hugepages-2048kB", "write 1 to", "nr_hugepages=3"][..],
        ),
        ("hugepages --dry-run 513M", &["write 129 to", "write 128 to", "nr_hugepages=257"]),
        ("hugepages --dry-run --page 1G --node 1 1500M", &["write 2 to", "node1/hugepages/hugepages-1048576kB", "1:2"]),
        ("hugepages --dry-run 0", &["write 0 to"]),
        (
            "bind-nic --dry-run 01:00.1",
            &[
                "write \"vfio-pci\" to",
                "0000:01:00.1/driver_override",
                "write \"0000:01:00.1\" to",
                "drivers/igb/unbind",
                "drivers_probe",
                "Linux loses eth1",
                "device: \"0000:01:00.1\"",
            ],
        ),
        (
            "bind-nic --dry-run --driver uio_pci_generic 01:00.1",
            &["load the kernel module uio_pci_generic", "write \"uio_pci_generic\" to"],
        ),
        ("bind-nic --dry-run --force 01:00.0", &["drivers/igb/unbind", "Linux loses eth0 bond0"]),
        ("bind-nic --dry-run 04:00.0", &["bound to vfio-pci already"]),
        ("bind-nic --dry-run --restore", &["write \"\" to", "0000:04:00.0/driver_override", "drivers/vfio-pci/unbind"]),
        ("bind-nic --list", &["0000:01:00.0  igb", "eth1", "0000:04:00.0  vfio-pci"]),
    ] {
        machine.expect(line, 0, words);
    }
    assert_eq!(machine.read("devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"), "0");
    assert_eq!(machine.read("bus/pci/devices/0000:01:00.1/driver_override"), "(null)");
    assert_eq!(machine.read("bus/pci/drivers_probe"), "");
}

#[test]
fn what_would_be_a_mistake_is_refused_with_the_reason() {
    let machine = Machine::new();
    for (line, status, words) in [
        ("hugepages", 2, &["number of pages"][..]),
        ("hugepages many", 2, &["'many'", "512M"]),
        ("hugepages --page 4K 1", 2, &["2M and 1G"]),
        ("hugepages --node 7 1", 2, &["node 7"]),
        ("hugepages 1 2", 2, &["'1' and '2'"]),
        ("bind-nic", 2, &["which card"]),
        ("bind-nic eth1", 2, &["'eth1'", "0000:01:00.0"]),
        ("bind-nic 09:00.0", 2, &["no PCI device 0000:09:00.0"]),
        ("bind-nic --driver e1000 01:00.1", 2, &["vfio-pci"]),
        ("bind-nic --dry-run 01:00.0", 1, &["bond0", "default route", "--force"]),
        ("bind-nic --dry-run 02:00.0", 1, &["not to be bound", "shares"]),
        ("bind-nic --dry-run 03:00.0", 1, &["no network card"]),
    ] {
        machine.expect(line, status, words);
    }
    fs::remove_dir_all(machine.path("kernel/iommu_groups")).expect("removed");
    machine.expect("bind-nic --dry-run 01:00.1", 0, &["no IOMMU", "intel_iommu=on", "--no-iommu"]);
    machine.expect("bind-nic --dry-run --no-iommu 01:00.1", 0, &["write \"Y\" to", "enable_unsafe_noiommu_mode"]);
}

#[test]
fn what_a_dry_run_says_is_what_is_written() {
    if !is_root() {
        println!("skipped: not root");
        return;
    }
    let machine = Machine::new();
    machine.expect("hugepages 5", 0, &["nr_hugepages: 3", "nr_hugepages: 2"]);
    let pages =
        |node: &str| machine.read(&format!("devices/system/node/{node}/hugepages/hugepages-2048kB/nr_hugepages"));
    assert_eq!((pages("node0"), pages("node1")), ("3".to_owned(), "2".to_owned()));

    // No kernel is behind these files, so the card stays where it is: it is given back, and that is said.
    machine.expect("bind-nic 01:00.1", 1, &["vfio-pci does not take 0000:01:00.1"]);
    assert_eq!(machine.read("bus/pci/drivers/igb/unbind"), "0000:01:00.1");
    assert_eq!(machine.read("bus/pci/drivers_probe"), "0000:01:00.1");
    assert_eq!(machine.read("bus/pci/devices/0000:01:00.1/driver_override"), "");
}
