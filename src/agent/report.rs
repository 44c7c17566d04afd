//! What the agent has found out, for whoever passes it on: to the routers above, to metrics, to people.
//!
//! The agent publishes a [`Report`] each interval and whenever it starts to drain; [`watch::Receiver`]s always find the
//! newest. The state-update protocol is to be one of these: each report is one update, and `draining` its drain.

use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::watch;

use super::load::Sample;
use super::outcome::Traffic;

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
    /// What a router above is to be told: each subnet with its load, infinite where nothing is to come. Sorted by subnet; a
    /// subnet of several virtual hosts has the load of the busiest.
    pub fn loads(&self) -> Vec<(IpNet, f64)> {
        let mut loads: Vec<(IpNet, f64)> = Vec::new();
        for host in &self.virtual_hosts {
            let refuses = self.draining || host.failure.is_some();
            let load = if refuses { f64::INFINITY } else { host.sample.load };
            loads.extend(host.prefixes.iter().map(|net| (*net, load)));
        }
        loads.sort_by(|one, other| one.0.cmp(&other.0).then(other.1.total_cmp(&one.1)));
        loads.dedup_by_key(|(net, _)| *net);
        loads
    }
}

/// Where reports are published, and where they are found.
pub fn channel() -> (watch::Sender<Arc<Report>>, watch::Receiver<Arc<Report>>) {
    watch::channel(Arc::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, prefixes: &[&str], load: f64, failure: Option<&str>) -> HostReport {
        HostReport {
            name: name.into(),
            prefixes: prefixes.iter().map(|net| net.parse().expect("a prefix")).collect(),
            failure: failure.map(Into::into),
            sample: Sample { load, ..Sample::default() },
            application: None,
            traffic: Traffic::default(),
        }
    }

    #[test]
    fn a_subnet_has_the_load_of_the_busiest_and_none_where_nothing_is_to_come() {
        let web = || host("web", &["192.0.2.80/32", "2001:db8::/64"], 0.25, None);
        let mail = |failure| host("mail", &["192.0.2.80/32"], 0.5, failure);
        let loads = |draining, hosts| Report { draining, virtual_hosts: hosts }.loads();
        let of = |v4: f64, v6: f64| {
            vec![("192.0.2.80/32".parse().expect("a prefix"), v4), ("2001:db8::/64".parse().expect("a prefix"), v6)]
        };
        assert_eq!(loads(false, vec![web(), mail(None)]), of(0.5, 0.25));
        assert_eq!(loads(false, vec![mail(None), web()]), of(0.5, 0.25));
        assert_eq!(loads(false, vec![web(), mail(Some("refused"))]), of(f64::INFINITY, 0.25));
        assert_eq!(loads(true, vec![web()]), of(f64::INFINITY, f64::INFINITY));
    }
}
