//! Samples of the load, and what they are made of: counters, sockets, and what applications say when they are asked.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use tokio::sync::{mpsc, watch};

use super::checks::Checks;
use super::decapsulate::Decapsulator;
use super::load::application::{self, Silence};
use super::load::sockets::Sockets;
use super::load::{Known, Sampler};
use super::outcome::Traffic;
use super::prefixes::Prefixes;
use super::report::{HostReport, Report};
use crate::config::host::{HostConfig, HostedService};
use crate::service::filter::Filter;

/// What belongs to each virtual host, in the order of the configuration.
pub struct Hosts {
    /// All prefixes.
    pub prefixes: Arc<Prefixes>,
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

impl Hosts {
    /// Those of a configuration.
    pub fn new(config: &HostConfig) -> Hosts {
        let (prefixes, numbers) = Prefixes::new(&config.virtual_hosts);
        let named = config.virtual_hosts.iter().map(|host| Named {
            name: host.name.as_str().into(),
            prefixes: host.addresses.as_slice().into(),
            services: host.services.as_slice().into(),
        });
        Hosts { prefixes: Arc::new(prefixes), numbers, named: named.collect() }
    }

    fn traffic(&self, decapsulator: &Decapsulator) -> impl Iterator<Item = Traffic> {
        self.numbers.iter().map(|numbers| {
            let mut traffic = Traffic::default();
            numbers.iter().for_each(|number| traffic += decapsulator.traffic(*number));
            traffic
        })
    }
}

/// What an application has said, and of which virtual host.
pub type Said = (Arc<str>, Result<f64, Silence>);

/// What is known of a virtual host's application.
#[derive(Default)]
struct Asked {
    /// It has not answered yet.
    waiting: bool,
    silent: bool,
    value: Option<f64>,
}

/// The sampler, and what it needs.
pub struct Sampling {
    sampler: Sampler,
    /// Connections and accept queues.
    pub sockets: Sockets,
    last: Instant,
    applications: HashMap<Arc<str>, Asked>,
    said: (mpsc::UnboundedSender<Said>, mpsc::UnboundedReceiver<Said>),
}

impl Sampling {
    /// Of these virtual hosts.
    ///
    /// # Errors
    /// The kernel lists no sockets.
    pub fn new(config: &HostConfig, hosts: &Hosts) -> io::Result<Sampling> {
        Ok(Sampling {
            sampler: Sampler::new(config.cgroup.clone()),
            sockets: sockets(config, hosts)?,
            last: Instant::now(),
            applications: HashMap::new(),
            said: mpsc::unbounded_channel(),
        })
    }

    /// Goes over to other virtual hosts with sockets of theirs. What is known of one by its name is kept.
    pub fn reconfigure(
        &mut self,
        config: &HostConfig,
        sockets: Sockets,
        before: &Hosts,
        hosts: &Hosts,
        decapsulator: &Decapsulator,
    ) {
        self.sockets = sockets;
        let known = |host: &Named| before.named.iter().position(|other| other.name == host.name);
        self.sampler.renumber(hosts.named.iter().map(known).zip(hosts.traffic(decapsulator)));
        let has_one = |host: &HostedService, name: &str| host.name == name && host.application.is_some();
        self.applications.retain(|name, _| config.virtual_hosts.iter().any(|host| has_one(host, name)));
    }

    /// Waits until an application has said something.
    pub async fn said(&mut self) -> Option<Said> {
        self.said.1.recv().await
    }

    /// Takes a sample and reports it.
    pub fn sample(
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
        self.ask_applications(config, hosts);
        let says = |host: &Named| self.applications.get(&host.name).and_then(|asked| asked.value);
        let known = hosts.traffic(decapsulator).zip(&hosts.named);
        let known: Vec<_> = known.map(|(traffic, host)| Known { traffic, application: says(host) }).collect();
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
    fn ask_applications(&mut self, config: &HostConfig, hosts: &Hosts) {
        let patience = config.interval;
        let asked = config.virtual_hosts.iter().zip(&hosts.named);
        for (application, name) in asked.filter_map(|(host, of)| Some((host.application.clone()?, of.name.clone()))) {
            let known = self.applications.entry(name.clone()).or_default();
            if std::mem::replace(&mut known.waiting, true) {
                continue;
            }
            let said = self.said.0.clone();
            tokio::spawn(async move {
                let late = || Err(Silence::Unreadable(io::ErrorKind::TimedOut.into()));
                let answer = tokio::time::timeout(patience, application::ask(&application)).await;
                // Nobody listens any more when the agent ends.
                let _ = said.send((name, answer.unwrap_or_else(|_| late())));
            });
        }
    }

    /// Takes in what an application has said. One that falls silent has no number, and that is told once.
    pub fn take_in(&mut self, config: &HostConfig, (name, said): Said) {
        // Those of virtual hosts that are gone are, too.
        let Some(asked) = self.applications.get_mut(&name) else { return };
        let whom = |host: &&HostedService| *host.name == *name;
        if let (Err(why), false, Some(host)) = (&said, asked.silent, config.virtual_hosts.iter().find(whom)) {
            let whom = host.application.as_ref().map(ToString::to_string).unwrap_or_default();
            eprintln!("slr-host: virtual host {name}: its application ({whom}) says no number: {why}");
        }
        *asked = Asked { waiting: false, silent: said.is_err(), value: said.ok() };
    }
}

/// The sockets of a configuration's virtual hosts.
///
/// # Errors
/// The kernel lists none.
pub fn sockets(config: &HostConfig, hosts: &Hosts) -> io::Result<Sockets> {
    Sockets::new(&config.virtual_hosts, &hosts.prefixes, &hosts.numbers)
}
