//! The machine's routing table, as far as children's costs go by it: read again and again, beside the slow path.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::config::{Config, RouteCost};
use crate::netlink::Netlink;

/// From one look to the next.
pub(super) const LOOKING: Duration = Duration::from_secs(2);

type Metrics = HashMap<String, f64>;

/// A look that is under way.
#[derive(Default)]
pub(super) struct Routes(Option<JoinHandle<io::Result<Metrics>>>);

impl Routes {
    /// Begins to look, where any child's distance is the metric of a route.
    pub(super) fn look(&mut self, config: &Config) {
        let children = config.children.iter().filter(|child| child.route_cost == RouteCost::Metric);
        let wanted: Vec<(String, IpAddr)> = children.map(|child| (child.name.clone(), child.address)).collect();
        if self.0.is_none() && !wanted.is_empty() {
            self.0 = Some(spawn_blocking(move || read(wanted)));
        }
    }

    /// What was found; never, while nobody looks.
    pub(super) async fn found(&mut self) -> Result<Metrics, String> {
        let Some(looking) = &mut self.0 else { return std::future::pending().await };
        let found = looking.await;
        self.0 = None;
        let found = found.map_err(|error| error.to_string())?;
        found.map_err(|error| format!("the routing table cannot be read, route costs stay as they are: {error}"))
    }
}

fn read(wanted: Vec<(String, IpAddr)>) -> io::Result<Metrics> {
    let mut netlink = Netlink::route()?;
    let metric = |(name, address)| Ok((name, netlink.metric(address)?.map_or(f64::INFINITY, f64::from)));
    wanted.into_iter().map(metric).collect()
}
