//! The agent from start to end: what is done in which order, and undone.
//!
//! ```text
//! clean up after a crash ─► addresses, settings ─► decapsulation ─► MSS ─► serve: sample, check, report, answer
//!                                                                            │ SIGTERM
//!   all undone ◄── goodbye ◄── no connection is left ◄── no parent sends new flows ◄── draining is reported
//!                      ◄────────────────── or the time is over
//! ```

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::changes::{ChangeError, Journal};
use super::checks::Checks;
use super::decapsulate::{DecapsulateError, Decapsulator};
use super::echo::Echoes;
use super::load::application::{self, Silence};
use super::load::sockets::Sockets;
use super::load::{Known, Sampler};
use super::mtu::Room;
use super::netlink::Netlink;
use super::outcome::Traffic;
use super::parents::Upward;
use super::prefixes::Prefixes;
use super::report::{HostReport, Report, channel};
use super::{metrics, status};
use crate::commands::Commands;
use crate::config::host::{HostConfig, HostedService};
use crate::ctl::socket::{Listener, SocketError};
use crate::metrics::server;
use crate::service::filter::Filter;
use crate::transport::tls::TlsError;

/// Requests that wait for their answers at most.
const ASKED: usize = 16;

/// Packets that wait for the checks at most.
const ANSWERS: usize = 1024;

/// How often routes are looked at for such as somebody has made or changed since.
const ROUTES: Duration = Duration::from_secs(30);

/// Why the agent does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The system cannot be changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Tunnels cannot be taken off.
    #[error(transparent)]
    Decapsulate(#[from] DecapsulateError),
    /// An interface is missing.
    #[error("there is no interface {missing} here; there are {there}")]
    Interface {
        /// Which.
        missing: String,
        /// Those that are there.
        there: String,
    },
    /// The control socket.
    #[error(transparent)]
    Control(#[from] SocketError),
    /// The metrics' address.
    #[error("metrics.listen {address}: {source}; write another address, or turn it off with `listen: off`")]
    Metrics {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Sessions with parents.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Something else of the system.
    #[error("cannot {what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn system(what: &'static str) -> impl Fn(io::Error) -> AgentError {
    move |source| AgentError::System { what, source }
}

/// Runs until SIGTERM or SIGINT, and leaves the system as it was.
///
/// # Errors
/// It cannot start, or something cannot be undone.
pub fn run(config: &HostConfig) -> Result<(), AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system("start"))?;
    let (mut journal, left) = Journal::open(&config.state, &config.name)?;
    if !left.is_empty() {
        eprintln!("slr-host: undid {} changes that an agent had left behind", left.len());
    }
    let served = runtime.block_on(serve(config, &mut journal));
    let undone = journal.undo();
    served?;
    undone?;
    eprintln!("slr-host: all changes are undone");
    Ok(())
}

/// What belongs to a virtual host, in the order of the configuration.
struct Hosts {
    prefixes: Arc<Prefixes>,
    /// Numbers of each virtual host's prefixes.
    numbers: Vec<Vec<usize>>,
    named: Vec<Named>,
}

/// What each report says anew of a virtual host.
struct Named {
    name: Arc<str>,
    prefixes: Arc<[IpNet]>,
    services: Arc<[Filter]>,
}

async fn serve(config: &HostConfig, journal: &mut Journal) -> Result<(), AgentError> {
    // From here on a signal ends nothing in the middle.
    let mut terminate = signal(SignalKind::terminate()).map_err(system("wait for signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("wait for signals"))?;
    let (prefixes, numbers) = Prefixes::new(&config.virtual_hosts);
    let named = config.virtual_hosts.iter().map(|host| Named {
        name: host.name.as_str().into(),
        prefixes: host.addresses.as_slice().into(),
        services: host.services.as_slice().into(),
    });
    let hosts = Hosts { prefixes: Arc::new(prefixes), numbers, named: named.collect() };

    let room = room(config)?;
    if let Some(warning) = room.warning() {
        eprintln!("slr-host: {warning}");
    }
    let seed = std::collections::hash_map::RandomState::new();
    let seed = std::hash::BuildHasher::hash_one(&seed, &config.name);
    let mut upward = Upward::new(config, seed)?;
    let sessions = upward.look();
    let control = config.control.socket.as_deref().map(Listener::bind).transpose()?;
    let metrics_listener = metrics_listener(config).await?;

    journal.raise(&settings(config))?;
    journal.take(hosts.prefixes.all().iter().copied())?;
    let clamp = |journal: &mut Journal| match (config.mss_clamp, room.mss()) {
        (true, Some((v4, v6))) => journal.clamp(v4, v6),
        _ => Ok(()),
    };
    clamp(journal)?;
    let (sender, mut answers) = mpsc::channel(ANSWERS);
    let decapsulator = Arc::new(Decapsulator::start(config, &hosts.prefixes, sender)?);
    eprintln!("slr-host: decapsulation by {}: {}", decapsulator.method, decapsulator.why);

    let echoes = Echoes::start(config, &hosts.prefixes).map_err(system("send recovery echoes"))?;
    let echoes = Arc::new(echoes);
    let (reports, newest) = channel();
    let facts = status::Facts {
        name: config.name.clone(),
        started: Instant::now(),
        inner_mtu: room.inner(),
        changes: journal.made().len(),
    };
    let (sender, mut asked) = mpsc::channel(ASKED);
    if let Some(listener) = control {
        eprintln!("slr-host: control socket {}", listener.path().display());
        tokio::spawn(listener.serve(sender.clone()));
    }
    if let Some(listener) = metrics_listener {
        let address = listener.local_addr().map_err(system("tell the address of the metrics"))?;
        eprintln!("slr-host: metrics at http://{address}/metrics");
        let (decapsulator, newest, echoes) = (decapsulator.clone(), newest.clone(), echoes.clone());
        let sessions = upward.look();
        let gather = move || metrics::gather(&decapsulator, &echoes, &newest.borrow(), &sessions.load());
        tokio::spawn(server::serve(listener, gather));
    }

    let mut checks =
        Checks::new(config, decapsulator.device.clone(), seed).map_err(system("have answers to checks come back"))?;
    let (commands, mut done) = Commands::new();
    let mut sampling = Sampling::new(config, &hosts).map_err(system("list sockets"))?;
    let mut tick = tokio::time::interval(config.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut routes = tokio::time::interval_at(tokio::time::Instant::now() + ROUTES, ROUTES);
    let mut draining: Option<Draining> = None;
    eprintln!("slr-host: {} serves {} virtual hosts", config.name, config.virtual_hosts.len());
    loop {
        let mut changed = false;
        tokio::select! {
            _ = tick.tick() => {
                sampling.sample(config, &hosts, &decapsulator, &checks, draining.is_some(), &reports);
                if draining.as_mut().is_some_and(|of| of.is_over(config, &upward, &sampling.sockets)) {
                    break;
                }
            }
            _ = routes.tick() => {
                if let Err(error) = clamp(journal) {
                    eprintln!("slr-host: {error}");
                }
            }
            _ = stopped(&mut terminate, &mut interrupt) => {
                if draining.is_some() {
                    break;
                }
                sampling.sample(config, &hosts, &decapsulator, &checks, true, &reports);
                eprintln!("slr-host: draining: {} connections, up to {:?}", sampling.sockets.open(), config.drain);
                upward.drain(&newest.borrow());
                let no_new_flows = config.parents.is_empty().then(Instant::now);
                draining = Some(Draining { since: Instant::now(), no_new_flows });
            }
            () = tokio::time::sleep(checks.pause()) => changed = checks.tick(&commands),
            Some(done) = done.recv() => changed = checks.done(done, &commands),
            Some(packet) = answers.recv() => changed = checks.receive(&packet, &commands),
            Some((host, said)) = sampling.said.1.recv() => sampling.take_in(config, host, said),
            Some(asked) = asked.recv() => {
                status::answer(&facts, &decapsulator, &newest.borrow(), &sessions.load(), asked);
            }
            () = upward.due() => upward.pass(&newest.borrow()),
        }
        if changed {
            reports.send_modify(|report| Arc::make_mut(report).take_in(&checks));
            upward.hurry(&newest.borrow());
        }
    }
    upward.leave().await;
    Ok(())
}

/// Waits for either signal.
async fn stopped(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// A stop that has begun.
struct Draining {
    since: Instant,
    /// Since when no parent has given us new flows.
    no_new_flows: Option<Instant>,
}

impl Draining {
    /// Whether nothing is left to wait for, or there is no time left to wait.
    fn is_over(&mut self, config: &HostConfig, upward: &Upward, sockets: &Sockets) -> bool {
        if self.no_new_flows.is_none() && upward.is_drained() {
            self.no_new_flows = Some(Instant::now());
            eprintln!("slr-host: no parent sends new flows any more");
        }
        // What a parent has sent before it knew is on its way for a moment.
        let settled = self.no_new_flows.is_some_and(|since| since.elapsed() >= config.interval);
        if settled && sockets.open() == 0 {
            return true;
        }
        let late = self.since.elapsed() >= config.drain;
        if late {
            let whose = if settled { "" } else { ", and a parent may still send new flows" };
            eprintln!("slr-host: {} connections are cut off{whose}", sockets.open());
        }
        late
    }
}

/// What fits into tunnels here.
fn room(config: &HostConfig) -> Result<Room, AgentError> {
    let links = Netlink::route().and_then(|mut netlink| netlink.links()).map_err(system("list interfaces"))?;
    let mut mtus = Vec::new();
    for name in &config.interfaces {
        match links.iter().find(|link| link.name == *name) {
            Some(link) => mtus.push(link.mtu),
            None => {
                let there: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
                return Err(AgentError::Interface { missing: name.clone(), there: there.join(", ") });
            }
        }
    }
    Ok(Room::new(config, mtus))
}

async fn metrics_listener(config: &HostConfig) -> Result<Option<tokio::net::TcpListener>, AgentError> {
    let Some(address) = config.metrics.listen else { return Ok(None) };
    let listener = tokio::net::TcpListener::bind(address).await;
    listener.map(Some).map_err(|source| AgentError::Metrics { address, source })
}

/// What must hold of settings below `/proc/sys/net`, of which the kernel takes the greater of `all` and the interface's:
/// nobody hears on a link of a virtual host's address (`arp_ignore`, `arp_announce`), and a packet may come from another way
/// than its answer leaves (`rp_filter` 2, unless it is off).
fn settings(config: &HostConfig) -> Vec<(String, u32)> {
    let mut settings = vec![("ipv4/conf/all/arp_ignore".to_owned(), 1), ("ipv4/conf/all/arp_announce".to_owned(), 2)];
    let strict = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
        text.is_ok_and(|text| text.trim() == "1")
    };
    let all = strict("all");
    let interfaces = config.interfaces.iter().filter(|name| all || strict(name));
    settings.extend(interfaces.map(|name| (format!("ipv4/conf/{name}/rp_filter"), 2)));
    settings
}

/// What an application has said, and of which virtual host.
type Said = (usize, Result<f64, Silence>);

/// Samples, and what they are made of.
struct Sampling {
    sampler: Sampler,
    sockets: Sockets,
    last: Instant,
    application: Vec<Option<f64>>,
    /// Applications that have not answered yet.
    asking: HashMap<usize, Instant>,
    silent: Vec<bool>,
    said: (mpsc::UnboundedSender<Said>, mpsc::UnboundedReceiver<Said>),
}

impl Sampling {
    fn new(config: &HostConfig, hosts: &Hosts) -> io::Result<Sampling> {
        let count = config.virtual_hosts.len();
        Ok(Sampling {
            sampler: Sampler::new(config.cgroup.clone()),
            sockets: Sockets::new(&config.virtual_hosts, &hosts.prefixes, &hosts.numbers)?,
            last: Instant::now(),
            application: vec![None; count],
            asking: HashMap::new(),
            silent: vec![false; count],
            said: mpsc::unbounded_channel(),
        })
    }

    /// Takes a sample and reports it.
    fn sample(
        &mut self,
        config: &HostConfig,
        hosts: &Hosts,
        decapsulator: &Decapsulator,
        checks: &Checks,
        draining: bool,
        reports: &watch::Sender<Arc<Report>>,
    ) {
        if let Err(error) = self.sockets.count(&hosts.prefixes) {
            eprintln!("slr-host: cannot list sockets: {error}");
        }
        self.ask_applications(&config.virtual_hosts, config.interval);
        let known: Vec<Known> = hosts
            .numbers
            .iter()
            .zip(&self.application)
            .map(|(numbers, application)| {
                let mut traffic = Traffic::default();
                numbers.iter().for_each(|number| traffic += decapsulator.traffic(*number));
                Known { traffic, application: *application }
            })
            .collect();
        let elapsed = std::mem::replace(&mut self.last, Instant::now()).elapsed();
        let samples = self.sampler.sample(&config.virtual_hosts, &known, &self.sockets, elapsed);
        let virtual_hosts = hosts.named.iter().zip(samples).zip(known).map(|((of, sample), known)| HostReport {
            name: of.name.clone(),
            prefixes: of.prefixes.clone(),
            services: of.services.clone(),
            failure: checks.failure(&of.name),
            sample,
            application: known.application,
            traffic: known.traffic,
        });
        reports.send_replace(Arc::new(Report { draining, virtual_hosts: virtual_hosts.collect() }));
    }

    /// Asks applications that are not being asked; none has longer than an interval.
    fn ask_applications(&mut self, hosts: &[HostedService], patience: Duration) {
        for (at, application) in hosts.iter().enumerate().filter_map(|(at, host)| Some((at, host.application.clone()?)))
        {
            if self.asking.contains_key(&at) {
                continue;
            }
            self.asking.insert(at, Instant::now());
            let said = self.said.0.clone();
            tokio::spawn(async move {
                let late = || Err(Silence::Unreadable(io::ErrorKind::TimedOut.into()));
                let answer = tokio::time::timeout(patience, application::ask(&application)).await;
                // Nobody listens any more when the agent ends.
                let _ = said.send((at, answer.unwrap_or_else(|_| late())));
            });
        }
    }

    /// Takes in what an application has said. One that falls silent has no number, and that is told once.
    fn take_in(&mut self, config: &HostConfig, host: usize, said: Result<f64, Silence>) {
        self.asking.remove(&host);
        let silent = said.is_err();
        if let (Err(why), false) = (&said, self.silent[host]) {
            let HostedService { name, application, .. } = &config.virtual_hosts[host];
            let whom = application.as_ref().map(ToString::to_string).unwrap_or_default();
            eprintln!("slr-host: virtual host {name}: its application ({whom}) says no number: {why}");
        }
        self.silent[host] = silent;
        self.application[host] = said.ok();
    }
}
