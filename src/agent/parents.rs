//! The agent as a child of its routers: what they are told, when, and when none of them sends new flows any more.
//!
//! ```text
//! Report ──► records ──► a session with each parent ──► ...
//!    └ whenever a service fails, works again, or is about to stop, or a load leaps: at once; else every interval of the parent's
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::report::Report;
use crate::clock::{self, WallClock};
use crate::config::host::{HostConfig, Tunnels};
use crate::control::hierarchy::view::ParentView;
use crate::control::random::Random;
use crate::control::session::child::{self, ChildEnd, Input, Output, hello};
use crate::control::session::parents::Parents;
use crate::control::session::{Carrier, Identity};
use crate::control::wire::TunnelEnd;
use crate::transport::tls::{LEAVING, Renewal, Tls, TlsError};

/// How often it is told that our certificate ends.
const EXPIRING: Duration = Duration::from_secs(6 * 3600);

/// What is known of the sessions, for whoever asks.
pub type Look = Arc<ArcSwap<Sessions>>;

/// The sessions at one time.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Each parent.
    pub parents: Vec<ParentView>,
    /// When our certificate ends, where there is one.
    pub not_after: Option<WallClock>,
}

/// The sessions with all parents. Where there are none it has nothing to do, ever.
pub struct Upward {
    parents: Parents<SocketAddr>,
    tls: Option<Tls>,
    identity: Option<Identity>,
    started: Instant,
    capacity: u32,
    /// When it is told next whether our certificate ends.
    expiring: Instant,
    look: Look,
}

impl Upward {
    /// The sessions that are configured. `seed` spreads attempts.
    ///
    /// # Errors
    /// Certificate, key and authority do not fit.
    pub fn new(config: &HostConfig, seed: u64) -> Result<Upward, TlsError> {
        let tls = config.credentials.as_ref().map(|credentials| Tls::new(credentials, None)).transpose()?;
        let identity = config.credentials.as_ref().map(|credentials| credentials.identity.clone());
        let mut random = Random::new(seed);
        let parents = config.parents.iter().map(|parent| {
            let mut hello = hello(config.name.clone(), 0);
            hello.offers = offers(config);
            hello.tunnels = tunnel_ends(&config.tunnel_addresses, config.tunnels);
            (ChildEnd::new(clock::Instant::ZERO, hello, parent.name.clone(), random.next()), parent.address)
        });
        let (parents, now) = (parents.collect(), Instant::now());
        let (capacity, look) = (config.capacity, Look::default());
        Ok(Upward { parents, tls, identity, started: now, capacity, expiring: now, look })
    }

    /// Goes over to another configuration with the same parents: sessions that are up stay, and the next ones show the
    /// certificate that has been read with it.
    pub fn reconfigure(&mut self, config: &HostConfig, renewal: Option<Renewal>) {
        if let (Some(tls), Some(renewal)) = (&mut self.tls, renewal) {
            tls.renew(renewal);
        }
        self.parents.offer(&offers(config));
        self.identity = config.credentials.as_ref().map(|credentials| credentials.identity.clone());
        (self.capacity, self.expiring) = (config.capacity, Instant::now());
    }

    /// Where others can read what is known.
    pub fn look(&self) -> Look {
        self.look.clone()
    }

    fn now(&self) -> clock::Instant {
        clock::Instant::ZERO + self.started.elapsed()
    }

    /// Waits until there is something for [`Upward::pass`] to do.
    pub async fn due(&mut self) {
        let Some(tls) = &mut self.tls else { return std::future::pending().await };
        let due = self.parents.next_deadline().map_or(EXPIRING, |due| Duration::from_nanos(due.as_nanos()));
        let at = (self.started + due).min(self.expiring);
        tokio::select! {
            () = tls.happens() => {}
            () = tokio::time::sleep_until(at.into()) => {}
        }
    }

    /// Takes in what has happened and does what is due; `report` says how we are.
    pub fn pass(&mut self, report: &Report) {
        let now = self.now();
        let Some(tls) = &mut self.tls else { return };
        let (mut told, mut rest) = (Vec::new(), Vec::new());
        while let Some(happening) = tls.poll() {
            // What is given back is of a session that we have closed.
            self.parents.take_in(now, happening, tls, &mut rest);
        }
        self.parents.handle(now, &Input::Tick, tls, &mut rest);
        self.parents.report(now, || report.records(self.capacity), tls, &mut rest);
        told.extend(rest.into_iter().filter_map(Output::line));
        if self.expiring <= Instant::now() {
            self.expiring = Instant::now() + EXPIRING;
            told.extend(self.identity.as_ref().and_then(|of| of.expiry_warning(SystemTime::now().into())));
        }
        told.iter().for_each(|line| eprintln!("slr-host: {line}"));
        let views = self.parents.iter().map(|(end, address)| ParentView::of(end, *address)).collect();
        let not_after = self.identity.as_ref().map(|of| of.not_after);
        self.look.store(Arc::new(Sessions { parents: views, not_after }));
    }

    /// Tells the parents what has changed without waiting for the end of the interval.
    pub fn hurry(&mut self, report: &Report) {
        self.tell(&Input::Urgent);
        self.pass(report);
    }

    /// The same for a load that has leapt, but less often.
    pub fn leap(&mut self, report: &Report) {
        self.tell(&Input::Soon);
        self.pass(report);
    }

    /// Wants no new flows from now on.
    pub fn drain(&mut self, report: &Report) {
        self.tell(&Input::Drain(true));
        self.pass(report);
    }

    /// Whether no parent gives us new flows any more: each has heard that we drain, or believes nothing that we have said.
    pub fn is_drained(&self) -> bool {
        self.parents.iter().all(|(end, _)| end.is_drained(self.now()))
    }

    /// Says goodbye.
    pub async fn leave(&mut self) {
        self.tell(&Input::Leave("it stops"));
        if self.tls.is_some() {
            // For the tasks that carry the sessions.
            tokio::time::sleep(LEAVING).await;
        }
    }

    fn tell(&mut self, input: &Input<'_>) {
        let now = self.now();
        if let Some(tls) = &mut self.tls {
            // To these, no machine has anything to say.
            self.parents.handle(now, input, tls, &mut Vec::new());
        }
    }
}

fn offers(config: &HostConfig) -> Vec<IpNet> {
    let identity = config.credentials.as_ref().map(|of| &of.identity);
    child::offers(identity, config.virtual_hosts.iter().flat_map(|host| &host.addresses).copied())
}

/// Where tunnels end here, of the kinds that have addresses.
fn tunnel_ends(addresses: &[IpAddr], Tunnels { ipip, gue, gre, .. }: Tunnels) -> Vec<TunnelEnd> {
    let kinds = [ipip.then_some((1, 0)), gue.map(|port| (2, port)), gre.then_some((3, 0))];
    let ends =
        |address: &IpAddr| kinds.map(|kind| kind.map(|(kind, port)| TunnelEnd { kind, port, address: *address }));
    addresses.iter().flat_map(ends).flatten().collect()
}
