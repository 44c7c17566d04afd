//! The agent from start to end: what is done in which order, and undone.
//!
//! ```text
//! clean up after a crash ─► addresses, settings ─► decapsulation ─► MSS ─► serve: sample, check, report, answer
//!                                                                            │      ▲ └─ SIGHUP: reload ─┐
//!                                                                            │      └────────────────────┘
//!                                                                            │ SIGTERM
//!   all undone ◄── what is left is reset ◄── goodbye ◄── no connection is left ◄── no parent sends new flows ◄── draining
//!                                                ◄────────────────── or the time is over                  is reported
//! ```

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::changes::{ChangeError, Journal};
use super::checks::Checks;
use super::decapsulate::{DecapsulateError, Decapsulator};
use super::echo::Echoes;
use super::load::sockets::{self, Sockets};
use super::mtu::Room;
use super::parents::Upward;
use super::reload::{self, Serving};
use super::report::channel;
use super::sampling::{Hosts, Sampling};
use super::{metrics, status};
use crate::commands::Commands;
use crate::config::host::HostConfig;
use crate::ctl::request::Request;
use crate::ctl::server::finish;
use crate::ctl::socket::{Asked, Listener, SocketError};
use crate::metrics::server;
use crate::netlink::Netlink;
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

/// Runs until SIGTERM or SIGINT, and leaves the system as it was. At SIGHUP it reads its configuration, which came from
/// `file`, again.
///
/// # Errors
/// It cannot start, or something cannot be undone.
pub fn run(config: HostConfig, file: &Path) -> Result<(), AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system("start"))?;
    let (mut journal, left) = Journal::open(&config.state, &config.name)?;
    if !left.is_empty() {
        eprintln!("slr-host: undid {} changes that an agent had left behind", left.len());
    }
    let served = runtime.block_on(serve(config, file, &mut journal));
    // With its tasks the last of what takes tunnels off goes: nothing comes for these addresses any more.
    drop(runtime);
    match sockets::reset(&journal.taken()) {
        Ok(0) => {}
        Ok(left) => eprintln!("slr-host: {left} connections are reset"),
        Err(error) => eprintln!("slr-host: connections that are left end by themselves: cannot reset them: {error}"),
    }
    let undone = journal.undo();
    served?;
    undone?;
    eprintln!("slr-host: all changes are undone");
    Ok(())
}

async fn serve(config: HostConfig, file: &Path, journal: &mut Journal) -> Result<(), AgentError> {
    // From here on a signal ends nothing in the middle.
    let mut terminate = signal(SignalKind::terminate()).map_err(system("wait for signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("wait for signals"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(system("wait for signals"))?;
    let hosts = Hosts::new(&config);

    let room = room(&config)?;
    if let Some(warning) = room.warning() {
        eprintln!("slr-host: {warning}");
    }
    let seed = std::collections::hash_map::RandomState::new();
    let seed = std::hash::BuildHasher::hash_one(&seed, &config.name);
    let upward = Upward::new(&config, seed)?;
    let sessions = upward.look();
    let control = config.control.socket.as_deref().map(Listener::bind).transpose()?;
    let metrics_listener = metrics_listener(&config).await?;

    journal.raise(&settings(&config))?;
    journal.take(hosts.prefixes.all().iter().copied())?;
    let mss = room.mss().filter(|_| config.mss_clamp);
    let clamp = |journal: &mut Journal| mss.map_or(Ok(()), |(v4, v6)| journal.clamp(v4, v6));
    clamp(journal)?;
    let (sender, mut answers) = mpsc::channel(ANSWERS);
    let decapsulator = Arc::new(Decapsulator::start(&config, &hosts.prefixes, sender)?);
    eprintln!("slr-host: decapsulation by {}: {}", decapsulator.method, decapsulator.why);

    let echoes = Echoes::start(&config, &hosts.prefixes).map_err(system("send recovery echoes"))?;
    let echoes = Arc::new(echoes);
    let (reports, newest) = channel();
    let mut facts = status::Facts {
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

    let checks =
        Checks::new(&config, decapsulator.device.clone(), seed).map_err(system("have answers to checks come back"))?;
    let (commands, mut done) = Commands::new();
    let sampling = Sampling::new(&config, &hosts).map_err(system("list sockets"))?;
    let mut tick = ticks(&config);
    let mut routes = tokio::time::interval_at(tokio::time::Instant::now() + ROUTES, ROUTES);
    let mut draining: Option<Draining> = None;
    eprintln!("slr-host: {} serves {} virtual hosts", config.name, config.virtual_hosts.len());
    let mut of = Serving { config, hosts, decapsulator, checks, sampling, echoes, upward };
    let (mut loading, mut reloading) = (None, None);
    loop {
        let mut changed = false;
        tokio::select! {
            _ = tick.tick() => {
                let before = newest.borrow().clone();
                of.sample(draining.is_some(), &reports);
                let report = newest.borrow().clone();
                if report.leaps_from(&before) {
                    of.upward.leap(&report);
                }
                if draining.as_mut().is_some_and(|drain| drain.is_over(&of.config, &of.upward, &of.sampling.sockets)) {
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
                of.sample(true, &reports);
                eprintln!("slr-host: draining: {} connections, up to {:?}", of.sampling.sockets.open(), of.config.drain);
                of.upward.drain(&newest.borrow());
                let no_new_flows = of.config.parents.is_empty().then(Instant::now);
                draining = Some(Draining { since: Instant::now(), no_new_flows });
            }
            _ = hangup.recv(), if loading.is_none() => loading = Some(reload::load(file.to_owned())),
            loaded = reload::finished(&mut loading) => {
                loading = None;
                let outcome = of.reload(loaded, journal).map_err(|why| format!("not reloaded, all stays as it was: {why}"));
                let (Ok(said) | Err(said)) = &outcome;
                eprintln!("slr-host: {said}");
                if outcome.is_ok() {
                    (tick, facts.changes) = (ticks(&of.config), journal.made().len());
                    of.sample(draining.is_some(), &reports);
                    of.upward.hurry(&newest.borrow());
                }
                if let Some(to) = reloading.take() {
                    finish(to, outcome);
                }
            }
            () = tokio::time::sleep(of.checks.pause()) => changed = of.checks.tick(&commands),
            Some(done) = done.recv() => changed = of.checks.done(done, &commands),
            Some(packet) = answers.recv() => changed = of.checks.receive(&packet, &commands),
            Some(said) = of.sampling.said() => of.sampling.take_in(&of.config, said),
            Some(asked) = asked.recv() => match asked {
                Asked { request: Request::Reload, to } if loading.is_none() => {
                    (loading, reloading) = (Some(reload::load(file.to_owned())), Some(to));
                }
                asked => status::answer(&facts, &of.decapsulator, &newest.borrow(), &sessions.load(), asked),
            },
            () = of.upward.due() => of.upward.pass(&newest.borrow()),
        }
        if changed {
            reports.send_modify(|report| Arc::make_mut(report).take_in(&of.checks));
            of.upward.hurry(&newest.borrow());
        }
    }
    of.upward.leave().await;
    Ok(())
}

/// When samples are due.
fn ticks(config: &HostConfig) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
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
