//! What of a running agent another configuration may change, and how all of it goes over, or nothing.
//!
//! ```text
//! file ─► checked ─► nothing that is settled at start? certificates fit? ─► addresses taken ─► eBPF program exchanged
//!                                                                              │ fails: given back ◄─┘ │
//!      addresses given back that are served no longer ◄─ checks, samples, parents, echoes ◄────────────┘
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::changes::{ChangeError, Journal};
use super::checks::Checks;
use super::decapsulate::Decapsulator;
use super::ebpf::EbpfError;
use super::echo::Echoes;
use super::parents::Upward;
use super::report::Report;
use super::sampling::{Hosts, Sampling, sockets};
use crate::config::ConfigError;
use crate::config::host::HostConfig;
use crate::transport::tls::{Renewal, TlsError};

/// Why the agent goes on with the configuration that it has.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Reading it has failed in a way that nobody has thought of.
    #[error("cannot read the configuration: {0}")]
    Reading(#[from] JoinError),
    /// Something has changed that is settled at start.
    #[error("{0} cannot change while the agent runs; restart it, or put back what was there")]
    NeedsRestart(&'static str),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system cannot be changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// Tunnels cannot be taken off for these virtual hosts.
    #[error(transparent)]
    Program(#[from] EbpfError),
    /// Something else of the system.
    #[error("cannot {what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A configuration that is being read.
pub type Loading = JoinHandle<Result<HostConfig, ConfigError>>;

/// What became of it.
pub type Loaded = Result<Result<HostConfig, ConfigError>, JoinError>;

/// Begins to read a configuration; a large one takes its time.
pub fn load(file: PathBuf) -> Loading {
    spawn_blocking(move || HostConfig::load(&file))
}

/// What became of `loading`; never, while nothing is being read.
pub async fn finished(loading: &mut Option<Loading>) -> Loaded {
    match loading {
        Some(loading) => loading.await,
        None => std::future::pending().await,
    }
}

/// A configuration, and all that goes by it.
pub struct Serving {
    /// The configuration that is in force.
    pub config: HostConfig,
    /// Its virtual hosts.
    pub hosts: Hosts,
    /// What takes tunnels off for them.
    pub decapsulator: Arc<Decapsulator>,
    /// Whether they work.
    pub checks: Checks,
    /// How loaded they are.
    pub sampling: Sampling,
    /// Reminders of their connections.
    pub echoes: Arc<Echoes>,
    /// Who is told.
    pub upward: Upward,
}

impl Serving {
    /// Takes a sample and reports it.
    pub fn sample(&mut self, draining: bool, reports: &watch::Sender<Arc<Report>>) {
        let Serving { config, hosts, decapsulator, checks, sampling, .. } = self;
        sampling.sample(config, hosts, decapsulator, checks, draining, reports);
    }

    /// Goes over to what was read, whole or not at all, and says what that is. Virtual hosts that stay are served without
    /// a gap, and what is known about them stays.
    ///
    /// # Errors
    /// What stands in the way; nothing has changed.
    pub fn reload(&mut self, loaded: Loaded, journal: &mut Journal) -> Result<String, ReloadError> {
        let config = loaded??;
        settled_at_start(&self.config, &config).map_or(Ok(()), |key| Err(ReloadError::NeedsRestart(key)))?;
        let system = |what| move |source| ReloadError::System { what, source };
        let renewal = config.credentials.as_ref().map(Renewal::new).transpose()?;
        let hosts = Hosts::new(&config);
        let sockets = sockets(&config, &hosts).map_err(system("list sockets"))?;
        self.checks.prepare(&config).map_err(system("have answers to checks come back"))?;
        let taken = journal.take(hosts.prefixes.all().iter().copied()).map_err(ReloadError::from);
        let served = taken.and_then(|()| Ok(self.decapsulator.reconfigure(&config, &hosts.prefixes)?));
        if let Err(error) = served {
            journal.release(self.hosts.prefixes.all())?;
            return Err(error);
        }

        self.echoes.serve(&hosts.prefixes);
        self.checks.reconfigure(&config);
        self.sampling.reconfigure(&config, sockets, &self.hosts, &hosts, &self.decapsulator);
        self.upward.reconfigure(&config, renewal);
        (self.config, self.hosts) = (config, hosts);
        if let Err(error) = journal.release(self.hosts.prefixes.all()) {
            // Nobody sends packets for it here any more.
            eprintln!("slr-host: {error}");
        }
        Ok(format!("reloaded: {} virtual hosts", self.config.virtual_hosts.len()))
    }
}

/// The key of what differs although it is settled at start.
fn settled_at_start(before: &HostConfig, after: &HostConfig) -> Option<&'static str> {
    [
        ("agent.name", before.name == after.name),
        ("agent.tunnel_addresses", before.tunnel_addresses == after.tunnel_addresses),
        ("interfaces", before.interfaces == after.interfaces),
        ("parents", before.parents == after.parents),
        ("decapsulation", before.method == after.method),
        ("tunnels", before.tunnels == after.tunnels),
        ("mss_clamp", before.mss_clamp == after.mss_clamp),
        ("load.cgroup", before.cgroup == after.cgroup),
        ("metrics", before.metrics == after.metrics),
        ("control.socket", before.control == after.control),
        ("recovery", before.echo == after.echo),
        ("state", before.state == after.state),
    ]
    .into_iter()
    .find_map(|(key, same)| (!same).then_some(key))
}
