//! What the agent has found out, for whoever passes it on: to the routers above, to metrics, to people.
//!
//! The agent publishes a [`Report`] each interval and whenever it starts to drain; [`watch::Receiver`]s always find the
//! newest.

use std::cmp::Reverse;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::watch;

use super::checks::Checks;
use super::load::Sample;
use super::outcome::Traffic;
use crate::control::wire::{Load, Record, State};
use crate::service::filter::Filter;

/// How the host is.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// It is about to stop: no new flows, please.
    pub draining: bool,
    /// How each virtual host is, in the order of the configuration.
    pub virtual_hosts: Vec<HostReport>,
}

/// How a virtual host is.
#[derive(Clone, Debug)]
pub struct HostReport {
    /// Its name.
    pub name: Arc<str>,
    /// Its addresses and subnets.
    pub prefixes: Arc<[IpNet]>,
    /// Its protocols and ports.
    pub services: Arc<[Filter]>,
    /// Why it does not work, as its checks say; `None`: it does.
    pub failure: Option<Arc<str>>,
    /// What was measured.
    pub sample: Sample,
    /// What its application says.
    pub application: Option<f64>,
    /// All that has come and gone.
    pub traffic: Traffic,
}

impl Report {
    /// The same, with what the checks say now.
    pub fn take_in(&mut self, checks: &Checks) {
        self.virtual_hosts.iter_mut().for_each(|host| host.failure = checks.failure(&host.name));
    }

    /// Whether the load of a virtual host has leapt since `before`.
    pub fn leaps_from(&self, before: &Report) -> bool {
        let load = |of: &HostReport| Load::from_ratio(of.sample.load);
        let mut both = self.virtual_hosts.iter().zip(&before.virtual_hosts);
        both.any(|(now, before)| now.name == before.name && load(now).leaps_from(load(before)))
    }

    /// What a router above is to be told: each subnet with each service. Where several virtual hosts have the same, the one
    /// speaks for all that is in the worst state, and then the busiest.
    pub fn records(&self, capacity: u32) -> Vec<Record> {
        let mut records = Vec::new();
        for HostReport { prefixes, services, failure, sample, .. } in &self.virtual_hosts {
            let state = match failure {
                Some(_) => State::Down,
                None if self.draining => State::Draining,
                None => State::Serving,
            };
            let load = Load::from_ratio(sample.load);
            for prefix in prefixes.iter().copied() {
                let record = |service: &Filter| Record { prefix, service: service.clone(), state, load, capacity };
                records.extend(services.iter().map(record));
            }
        }
        let what = |of: &Record| (of.prefix, of.service.protocol, *of.service.ports.start(), *of.service.ports.end());
        records.sort_by_key(|of| (what(of), Reverse((of.state as u8, of.load))));
        records.dedup_by_key(|of| what(of));
        records
    }
}

/// Where reports are published, and where they are found.
pub fn channel() -> (watch::Sender<Arc<Report>>, watch::Receiver<Arc<Report>>) {
    watch::channel(Arc::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: u8 = 6;

    fn host(name: &str, prefixes: &[&str], port: u16, load: f64, failure: Option<&str>) -> HostReport {
        HostReport {
            name: name.into(),
            prefixes: prefixes.iter().map(|net| net.parse().expect("a prefix")).collect(),
            services: [Filter { protocol: Some(TCP), ports: port..=port }].into(),
            failure: failure.map(Into::into),
            sample: Sample { load, ..Sample::default() },
            application: None,
            traffic: Traffic::default(),
        }
    }

    #[test]
    fn each_subnet_and_service_is_told_once_and_by_the_virtual_host_that_can_do_least() {
        use State::{Down, Draining, Serving};
        let (v4, v6) = ("192.0.2.80/32", "2001:db8::/64");
        let web = || host("web", &[v4, v6], 80, 0.25, None);
        let same = |failure| host("same", &[v4], 80, 0.5, failure);
        let mail = || host("mail", &[v4], 25, f64::INFINITY, None);
        let told = |draining, hosts| {
            let records = Report { draining, virtual_hosts: hosts }.records(300);
            assert!(records.iter().all(|of| of.capacity == 300 && of.service.protocol == Some(TCP)));
            let row = |of: &Record| (of.prefix.to_string(), *of.service.ports.start(), of.state, of.load.0);
            records.iter().map(row).collect::<Vec<_>>()
        };
        let row = |net: &str, port, state, load| (net.to_owned(), port, state, load);
        let both = |load, state| vec![row(v4, 80, state, load), row(v6, 80, Serving, 250_000)];
        assert_eq!(told(false, vec![web(), same(None)]), both(500_000, Serving));
        assert_eq!(told(false, vec![same(None), web()]), both(500_000, Serving));
        assert_eq!(told(false, vec![web(), same(Some("refused"))]), both(500_000, Down));
        let rows = vec![row(v4, 25, Serving, u32::MAX), row(v4, 80, Serving, 250_000), row(v6, 80, Serving, 250_000)];
        assert_eq!(told(false, vec![web(), mail()]), rows);
        let rows = vec![row(v4, 80, Down, 500_000), row(v6, 80, Draining, 250_000)];
        assert_eq!(told(true, vec![web(), same(Some("refused"))]), rows);
    }

    #[test]
    fn a_load_that_leaps_is_seen_and_another_virtual_host_is_none() {
        let report = |name, load| Report { draining: false, virtual_hosts: vec![host(name, &[], 80, load, None)] };
        for (before, now, leaps) in
            [(0.2, 0.3, false), (0.2, 0.45, true), (1.2, 0.9, true), (0.5, f64::NAN, true), (f64::NAN, f64::NAN, false)]
        {
            assert_eq!(report("web", now).leaps_from(&report("web", before)), leaps, "{before} to {now}");
        }
        assert!(!report("mail", 1.0).leaps_from(&report("web", 0.0)));
        assert!(!report("web", 1.0).leaps_from(&Report::default()));
    }
}
