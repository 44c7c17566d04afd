//! Whether the children of a virtual host serve it: each is asked again and again, through its tunnel.
//!
//! ```text
//!            own address ──► virtual host's address, in the tunnel to the child
//!   router ═══════════════════════════════════════════════════════════════════════► child
//!      ▲                                                                              │
//!      └────── virtual host's address ──► own address, straight and without tunnel ───┘
//! ```
//!
//! A check takes the road of the clients' packets: the tunnel, the child that takes it off, the service on the virtual
//! host's address, and the direct answer. Workers punt the answer as one for our own address. Commands are the
//! exception: a program asks in its own way.
//!
//! A child that fails `fall` times in a row is down. It gets no new flows; its old ones stay, or move each with its next
//! packet (`on_failure`). It is up again after `rise` successes in a row. Where no child is left that could take a flow, old
//! flows stay where they are whatever `on_failure` says, and new ones are refused as `no_child`. Before the first checks a
//! child counts as up, so that a router that starts refuses nobody, unless `initial: down` says that it must prove itself.

mod conversation;
mod failure;
pub(in crate::control) mod prober;
mod schedule;
mod stack;
mod tls;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::clock::Instant;
use crate::config::{self, Config, Probe, Register};
use crate::control::random::Random;
use crate::forward::counters::Counter;
pub use failure::{CheckResult, Failure};
use prober::{Prober, Progress, Question};
use schedule::{Class, Schedule, Step};

/// The check of one virtual host on one child: its position among all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckId(pub(in crate::control) u32);

impl CheckId {
    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A run of a command: a late result is told from that of a later run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(u64);

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// An IP packet for one of our own addresses, from its header on; it may have something behind it.
    Packet(&'a [u8]),
    /// A command has ended: well, or how.
    CommandDone(RunId, Result<(), String>),
    /// Time has passed.
    Tick,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Put an IP packet into the tunnel of a virtual host's child.
    Send {
        /// Position of the virtual host in [`Config::virtual_hosts`].
        host: usize,
        /// Position of the child in its list of members.
        member: usize,
        /// The packet, from its header on.
        packet: Vec<u8>,
    },
    /// Run a program and tell how it has ended.
    Run(Command),
    /// A child is thought of otherwise now.
    Changed(Change),
    /// A child, by its name, has answered after one round trip, which took this long.
    Measured(String, Duration),
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Goes with [`Input::CommandDone`].
    pub run: RunId,
    /// The program and its arguments.
    pub words: Vec<String>,
    /// What it finds in its environment.
    pub environment: [(&'static str, String); 3],
    /// How long it may run. Its end is not waited for any longer.
    pub timeout: Duration,
}

/// A child that is up or down now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Name of the virtual host.
    pub virtual_host: String,
    /// Name of the child.
    pub child: String,
    /// Why it is down; `None`: it is up.
    pub failure: Option<Failure>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { virtual_host, child, failure } = self;
        match failure {
            None => write!(f, "{virtual_host} on {child} is up"),
            Some(failure) => write!(f, "{virtual_host} on {child} is down: {failure}"),
        }
    }
}

/// What is counted about one check, to be read by anyone.
#[derive(Debug, Default)]
pub struct Record {
    /// Name of the virtual host.
    pub virtual_host: String,
    /// Name of the child.
    pub child: String,
    /// 1 while it is up, else 0.
    pub up: Counter,
    results: [Counter; CheckResult::ALL.len()],
}

impl Record {
    /// Checks that ended so.
    pub fn ended(&self, result: CheckResult) -> &Counter {
        &self.results[result as usize]
    }
}

struct Check {
    host: usize,
    member: usize,
    timeout: Duration,
    child: IpAddr,
    question: Question,
    record: Arc<Record>,
    /// When the one under way was started, where somebody wants to know how long it takes.
    since: Option<Instant>,
    measures: bool,
}

/// The machine.
pub struct Health {
    checks: Vec<Check>,
    schedule: Schedule,
    prober: Prober,
    commands: HashMap<u64, CheckId>,
    runs: u64,
    random: Random,
}

impl Health {
    /// The checks that `config` asks for. The first ones start within an interval after `now`. `seed` spreads them and
    /// makes ports and sequence numbers.
    pub fn new(now: Instant, config: &Config, seed: u64) -> Health {
        Health::of(now, plans(config), seed)
    }

    /// Some checks, however they came about.
    pub fn of(now: Instant, plans: Vec<Plan<'_>>, seed: u64) -> Health {
        Health::build(now, plans, Random::new(seed), None)
    }

    /// The checks that another configuration asks for: what is known about a child of a virtual host by its name, and
    /// what was counted, is kept.
    pub fn reconfigured(&self, now: Instant, config: &Config) -> Health {
        self.renewed(now, plans(config))
    }

    /// The same with other checks, however they came about.
    pub fn renewed(&self, now: Instant, plans: Vec<Plan<'_>>) -> Health {
        Health::build(now, plans, self.random.clone(), Some(self))
    }

    fn build(now: Instant, plans: Vec<Plan<'_>>, mut random: Random, before: Option<&Health>) -> Health {
        let known: HashMap<(&str, &str), (&Arc<Record>, bool)> = before
            .into_iter()
            .flat_map(|before| before.states())
            .map(|(record, up)| ((&*record.virtual_host, &*record.child), (record, up)))
            .collect();
        let mut schedule = Schedule::new(random.next());
        let mut checks = Vec::new();
        let mut spoken_by: Option<(usize, Arc<Probe>, Option<Spoken>)> = None;
        for plan in plans {
            let Plan { host, member, virtual_host, child: name, address: child, health, own, measures } = plan;
            // The children of a virtual host share what is the same for all of them.
            let shared = spoken_by.take().filter(|(of, ..)| *of == host);
            let (_, probe, tls) = shared.unwrap_or_else(|| (host, Arc::new(health.probe.clone()), spoken(health)));
            let (record, up) = known.get(&(virtual_host, name)).map_or_else(
                || {
                    let (virtual_host, child) = (virtual_host.to_owned(), name.to_owned());
                    let up = health.rhythm.initially_up;
                    (Arc::new(Record { virtual_host, child, ..Record::default() }), up)
                },
                |(record, up)| (Arc::clone(record), *up),
            );
            record.up.set(up.into());
            schedule.add(now, health.rhythm, Class::of(&probe), up);
            let question = Question { probe: probe.clone(), tls: tls.clone(), address: health.address, own };
            let timeout = health.rhythm.timeout;
            let measures = measures && probe.is_one_exchange();
            checks.push(Check { host, member, timeout, child, question, record, since: None, measures });
            spoken_by = Some((host, probe, tls));
        }
        let prober = Prober::new(random.next());
        let runs = before.map_or(0, |before| before.runs);
        Health { checks, schedule, prober, commands: HashMap::new(), runs, random }
    }

    /// Virtual hosts and children on which they do not work, by name.
    pub fn down(&self) -> HashSet<(String, String)> {
        let down = self.states().filter(|(_, up)| !up);
        down.map(|(record, _)| (record.virtual_host.clone(), record.child.clone())).collect()
    }

    fn states(&self) -> impl Iterator<Item = (&Arc<Record>, bool)> {
        self.checks.iter().zip(0..).map(|(check, id)| (&check.record, self.schedule.is_up(CheckId(id))))
    }

    /// What is counted, with one record for each check.
    pub fn records(&self) -> Vec<Arc<Record>> {
        self.checks.iter().map(|check| check.record.clone()).collect()
    }

    /// Whether an IP packet for one of our own addresses, from its header on, is for a check under way.
    pub fn takes(&self, packet: &[u8]) -> bool {
        self.prober.takes(packet)
    }

    /// When the next [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.schedule.next_deadline().into_iter().chain(self.prober.next_deadline()).min()
    }

    /// Takes an input in, and returns what is to be done.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Packet(packet) => {
                if let Some(progress) = self.prober.receive(now, packet) {
                    self.take_in(now, progress, &mut outputs);
                }
            }
            Input::CommandDone(RunId(run), result) => {
                if let Some(id) = self.commands.remove(&run) {
                    self.finish(now, id, result.map_err(Failure::Command), &mut outputs);
                }
            }
            Input::Tick => {
                while let Some(progress) = self.prober.poll(now) {
                    self.take_in(now, progress, &mut outputs);
                }
                while let Some(step) = self.schedule.step(now) {
                    match step {
                        Step::Start(id) => self.start(now, id, &mut outputs),
                        Step::TimedOut(id) => self.time_out(now, id, &mut outputs),
                    }
                }
            }
        }
        outputs
    }

    fn start(&mut self, now: Instant, id: CheckId, outputs: &mut Vec<Output>) {
        let check = &mut self.checks[id.index()];
        check.since = check.measures.then_some(now);
        if let Probe::Command(words) = &*check.question.probe {
            self.runs += 1;
            self.commands.insert(self.runs, id);
            let environment = [
                ("VIRTUAL_HOST", check.record.virtual_host.clone()),
                ("CHILD", check.record.child.clone()),
                ("ADDRESS", check.child.to_string()),
            ];
            let (words, timeout) = (words.clone(), check.timeout);
            outputs.push(Output::Run(Command { run: RunId(self.runs), words, environment, timeout }));
            return;
        }
        let progress = self.prober.start(now, id, &check.question);
        self.take_in(now, progress, outputs);
    }

    fn time_out(&mut self, now: Instant, id: CheckId, outputs: &mut Vec<Output>) {
        let packets = self.prober.stop(now, id);
        self.send(id, packets, outputs);
        self.commands.retain(|_, check| *check != id);
        let timeout = self.checks[id.index()].timeout;
        self.finish(now, id, Err(Failure::Timeout(timeout)), outputs);
    }

    fn take_in(&mut self, now: Instant, Progress { check, packets, ended }: Progress, outputs: &mut Vec<Output>) {
        self.send(check, packets, outputs);
        if let Some(result) = ended {
            self.finish(now, check, result, outputs);
        }
    }

    fn send(&self, id: CheckId, packets: Vec<Vec<u8>>, outputs: &mut Vec<Output>) {
        let Check { host, member, .. } = self.checks[id.index()];
        outputs.extend(packets.into_iter().map(|packet| Output::Send { host, member, packet }));
    }

    fn finish(&mut self, now: Instant, id: CheckId, result: Result<(), Failure>, outputs: &mut Vec<Output>) {
        let Check { record, since, .. } = &self.checks[id.index()];
        if let (Ok(()), Some(since)) = (&result, since) {
            outputs.push(Output::Measured(record.child.clone(), now - *since));
        }
        let kind = result.as_ref().map_or_else(Failure::result, |()| CheckResult::Success);
        record.ended(kind).add(1);
        if self.schedule.finish(now, id, result.is_ok()) {
            record.up.set(result.is_ok().into());
            let (virtual_host, child) = (record.virtual_host.clone(), record.child.clone());
            outputs.push(Output::Changed(Change { virtual_host, child, failure: result.err() }));
        }
    }
}

/// A check to be made.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Position of the virtual host.
    pub host: usize,
    /// Position of the child in it.
    pub member: usize,
    /// Name of the virtual host.
    pub virtual_host: &'a str,
    /// Name of the child.
    pub child: &'a str,
    /// Address of the child, for programs.
    pub address: IpAddr,
    /// What is asked, and when.
    pub health: &'a config::Health,
    /// Where the answers are to come.
    pub own: IpAddr,
    /// Whether the time to the child and back is wanted.
    pub measures: bool,
}

/// The checks that a configuration asks for.
fn plans(config: &Config) -> Vec<Plan<'_>> {
    let mut plans = Vec::new();
    for (host, (virtual_host, health)) in config.virtual_hosts.iter().map(|host| (host, &host.health)).enumerate() {
        let Some(health) = health else { continue };
        for (member, child) in virtual_host.members.iter().map(|member| &config.children[member.child]).enumerate() {
            // A command has no packets, and needs no address of ours.
            let own = config.source_of_checks(health.address, Some(child.address)).unwrap_or(health.address);
            let (virtual_host, address) = (&*virtual_host.name, child.address);
            // A session says it too.
            let measures = child.register == Register::Off;
            plans.push(Plan { host, member, virtual_host, child: &child.name, address, health, own, measures });
        }
    }
    plans
}

/// How TLS is spoken, and the name that is sent and verified.
type Spoken = (Arc<rustls::ClientConfig>, ServerName<'static>);

/// How TLS is spoken in these checks, where it is.
fn spoken(health: &config::Health) -> Option<Spoken> {
    let (Probe::Https(_, tls) | Probe::Tls(_, tls)) = &health.probe else { return None };
    let named = tls.server_name.clone().and_then(|name| ServerName::try_from(name).ok());
    Some((tls::client(tls.roots.clone()), named.unwrap_or_else(|| health.address.into())))
}
