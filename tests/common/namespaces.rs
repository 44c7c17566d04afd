//! Network namespaces of one test and what runs in them: all of it is gone when the test is over, passed or not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, id};

use super::said;

/// Namespaces, by the names of their nodes.
pub struct Namespaces {
    prefix: String,
    nodes: &'static [&'static str],
    directory: tempfile::TempDir,
    running: Vec<Child>,
}

impl Namespaces {
    /// A namespace for each node. `what` is the test's, a word without a hyphen.
    pub fn new(what: &str, nodes: &'static [&'static str]) -> Namespaces {
        sweep(&format!("slr-{what}-"));
        let directory = tempfile::tempdir().expect("a directory");
        let all = Namespaces { prefix: format!("slr-{what}-{}", id()), nodes, directory, running: Vec::new() };
        for node in nodes {
            said(Command::new("ip").args(["netns", "add", &all.name(node)]).output().expect("ip"));
            all.ip(node, "link set lo up");
        }
        all
    }

    /// What the names of all that is made for this test begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name of a node's namespace.
    pub fn name(&self, node: &str) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// A file of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Changes a node's network.
    pub fn ip(&self, node: &str, words: &str) {
        said(Command::new("ip").args(["-n", &self.name(node)]).args(words.split_whitespace()).output().expect("ip"));
    }

    /// A link from `eth0` of a node to `side` of the router, where slrd speaks and the kernel is to keep silent.
    pub fn link(&self, node: &str, router: &str, side: &str, mtu: u16) {
        self.ip(node, &format!("link add eth0 type veth peer name {side} netns {}", self.name(router)));
        self.ip(router, &format!("link set {side} addrgenmode none"));
        for (node, interface) in [(node, "eth0"), (router, side)] {
            self.ip(node, &format!("link set {interface} mtu {mtu} up"));
            self.on(node, &format!("ethtool -K {interface} tx off"));
        }
    }

    /// A command on a node.
    pub fn command(&self, node: &str, words: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(node)]).args(words.split_whitespace()).stdin(Stdio::null());
        command
    }

    /// Runs a command on a node to its end, which must be a good one, and returns what it prints.
    pub fn on(&self, node: &str, words: &str) -> String {
        said(self.command(node, words).output().expect("ip"))
    }

    /// Starts a command on a node, and returns its number and the file that has what it prints.
    pub fn start(&mut self, node: &str, words: &str) -> (usize, PathBuf) {
        let path = self.path(&format!("output-{}", self.running.len()));
        let file = File::create(&path).expect("a file");
        let mut command = self.command(node, words);
        command.stdout(file.try_clone().expect("a file")).stderr(file);
        self.running.push(command.spawn().expect("ip"));
        (self.running.len() - 1, path)
    }

    /// Ends what was started in good order.
    pub fn stop(&mut self, process: usize) {
        let running = &mut self.running[process];
        said(Command::new("kill").args(["-TERM", &running.id().to_string()]).output().expect("kill"));
        assert!(running.wait().expect("its end").success());
    }

    /// Ends what was started at once.
    pub fn kill(&mut self, process: usize) {
        self.running[process].kill().expect("a process");
        self.running[process].wait().expect("its end");
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for number in 0..self.running.len() {
                let said = fs::read_to_string(self.path(&format!("output-{number}")));
                println!("what was started as number {number} said:\n{}", said.unwrap_or_default());
            }
        }
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for node in self.nodes {
            delete(&self.name(node));
        }
        let _ = fs::remove_dir_all(format!("/var/run/dpdk/{}", self.prefix));
    }
}

fn delete(name: &str) {
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

/// Removes namespaces of runs that were killed before they could.
fn sweep(prefix: &str) {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            delete(&name);
        }
    }
}
