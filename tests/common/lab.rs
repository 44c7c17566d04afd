//! A lab of `scripts/lab` for one test: up when made, down when dropped, whether the test passes or not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, id};
use std::thread::sleep;
use std::time::Duration;

use super::{said, wait_for};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab");

/// The virtual host, as `scripts/lab vip` says.
pub const VIP: &str = "192.0.2.80";
/// Its IPv6 address.
pub const VIP6: &str = "2001:db8:80::80";

/// A running lab.
pub struct Lab {
    name: String,
}

impl Lab {
    /// Builds a lab; `options` are those of `scripts/lab up`.
    pub fn up(options: &[&str]) -> Lab {
        sweep();
        let lab = Lab { name: format!("slr-test-{}", id()) };
        let up = lab.script("up").args(["--small", "--slrd", env!("CARGO_BIN_EXE_slrd")]).args(options).output();
        said(up.expect("scripts/lab"));
        lab
    }

    /// A command of `scripts/lab` for this lab.
    pub fn script(&self, verb: &str) -> Command {
        let mut command = Command::new(SCRIPT);
        command.args([verb, "--name", &self.name]).stdin(Stdio::null());
        command
    }

    /// A command on a node, not started yet.
    pub fn command(&self, node: &str, words: &str) -> Command {
        let mut command = self.script("exec");
        command.arg(node).args(words.split_whitespace());
        command
    }

    /// Runs a command on a node to its end, which must be a good one, and returns what it prints.
    pub fn on(&self, node: &str, words: &str) -> String {
        said(self.command(node, words).output().expect("scripts/lab"))
    }

    /// Runs a line of shell on a node.
    pub fn shell(&self, node: &str, line: &str) -> String {
        said(self.script("exec").args([node, "bash", "-c", line]).output().expect("scripts/lab"))
    }

    /// Where the lab keeps its files.
    pub fn directory(&self) -> PathBuf {
        Path::new("/run/slr-lab").join(&self.name)
    }

    /// The process of slrd.
    pub fn router(&self) -> u32 {
        let text = fs::read_to_string(self.directory().join("slrd.pid")).expect("a process");
        text.trim().parse().expect("a number")
    }

    /// What slrd has said until now.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory().join("slrd.log")).expect("slrd's log")
    }

    /// The router's metrics.
    pub fn metrics(&self) -> Metrics {
        Metrics(self.on("router", "curl -sf http://127.0.0.1:9477/metrics"))
    }

    /// Records what `filter` takes on an interface of a node.
    pub fn capture(&self, node: &str, interface: &str, filter: &str) -> Capture {
        let [lines, words] = ["lines", "words"].map(|what| self.directory().join(format!("{node}-{interface}.{what}")));
        let mut command = self.command(node, &format!("tcpdump -n -q -e -i {interface} --immediate-mode -l"));
        command.arg(filter).stdout(File::create(&lines).expect("a file")).stderr(File::create(&words).expect("a file"));
        let capture = Capture { process: command.spawn().expect("scripts/lab"), lines };
        wait_for("tcpdump", || fs::read_to_string(&words).expect("UTF-8").contains("listening on"));
        capture
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for entry in fs::read_dir(self.directory()).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name == "slrd.log" || name.ends_with("-agent.log") {
                    println!("{name} of the lab:\n{}", fs::read_to_string(entry.path()).unwrap_or_default());
                }
            }
        }
        down(&self.name);
    }
}

/// A capture that is running.
pub struct Capture {
    process: Child,
    lines: PathBuf,
}

impl Capture {
    /// Ends it and returns one line a packet.
    pub fn lines(mut self) -> Vec<String> {
        // What came last is on its way from the kernel.
        sleep(Duration::from_millis(300));
        let killed = Command::new("kill").arg(self.process.id().to_string()).status().expect("kill");
        assert!(killed.success() && self.process.wait().expect("tcpdump").success(), "tcpdump had failed");
        let text = fs::read_to_string(&self.lines).expect("UTF-8");
        // What is in an HTTP header has lines of its own.
        text.lines().filter(|line| line.contains(" > ")).map(str::to_owned).collect()
    }
}

/// A page of metrics.
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of the samples of `family` whose labels hold all of `labels`; 0 where there are none.
    pub fn sum(&self, family: &str, labels: &[&str]) -> f64 {
        let samples = self.0.lines().filter_map(|line| line.rsplit_once(' '));
        let ours = samples.filter(|(name, _)| {
            name.split('{').next() == Some(family) && labels.iter().all(|label| name.contains(label))
        });
        ours.map(|(_, value)| value.parse::<f64>().expect("a number")).sum()
    }
}

/// Takes down the labs of tests that were killed before they could.
fn sweep() {
    for entry in fs::read_dir("/run/slr-lab").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let dead = name.strip_prefix("slr-test-").is_some_and(|process| !Path::new("/proc").join(process).exists());
        if dead {
            down(&name);
        }
    }
}

fn down(name: &str) {
    let _ = Command::new(SCRIPT).args(["down", "--name", name]).stdout(Stdio::null()).status();
}
