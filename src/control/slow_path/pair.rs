//! How the election of a pair reaches the neighbours and the workers: what is heard, what is in order here, and the
//! addresses that come and go.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use zerocopy::IntoBytes;

use super::mirror::Mirroring;
use super::{Compiled, SlowPath, perform};
use crate::clock::Instant;
use crate::config::{Config, Pair};
use crate::control::frames;
use crate::control::neighbours::{State, wire};
use crate::forward::punt::{Handling, Injection, Punt};
use crate::forward::stations::Stations;
use crate::forward::tables::ForwardTables;
use crate::forward::verdict::PuntReason;
use crate::ha::counters::{Advert, Counters};
use crate::ha::election::{Condition, Election, Heard, Input, Output, Path, Refused, Role, Settings};
use crate::ha::heartbeat;
use crate::ha::link::{Link, Outcome};
use crate::ha::vrrp::{self, Advertisement, Checked};
use crate::packet::ethernet;
use crate::packet::ipv4::Ipv4Header;
use crate::packet::ipv6::Ipv6Header;
use crate::packet::ndp;
use crate::packet::protocol::VRRP;
use crate::recovery::mirror;
use crate::tunnel::template;
use crate::units::MacAddr;

/// How long neighbours may take to answer at start, until they count as missing.
const STARTING: Duration = Duration::from_secs(5);

/// Service class of advertisements: network control, CS6 (RFC 2474 section 4.2.2).
const DSCP_ECN: u8 = 0xc0;

/// What a pair needs in the slow path.
pub struct Pairing {
    pair: Pair,
    election: Election,
    pub(super) link: Option<Link>,
    /// For the other router.
    pub(super) datagrams: Vec<Vec<u8>>,
    /// The access port's own Ethernet address.
    mac: MacAddr,
    /// Our address on the access port and those of the pair, by family.
    families: Vec<(IpAddr, Vec<IpAddr>)>,
    /// What the checksums of advertisements are over: as it was heard last.
    checked: Checked,
    /// Whether each port is up.
    links: Vec<bool>,
    started: Instant,
    /// Children that take new flows, in the snapshot of this number.
    live: (u64, usize),
    /// What is missing.
    missing: Vec<String>,
    told: Option<Condition>,
    counters: Arc<Counters>,
    news: Vec<String>,
    pub(super) mirror: Option<Mirroring>,
}

impl Pairing {
    /// The pair of `config`, over ports with these Ethernet addresses, all up; `None` where there is none. `seed` is a
    /// number that nobody can foresee, another each time that the router starts.
    pub fn new(now: Instant, config: &Config, macs: &[MacAddr], seed: u64) -> Option<Pairing> {
        let pair = config.pair.clone()?;
        let mac = *macs.get(pair.access.index())?;
        let of = |ipv4: bool| pair.addresses.iter().copied().filter(move |address| address.is_ipv4() == ipv4);
        let port = &config.ports[pair.access.index()];
        let mut families = Vec::new();
        if of(true).next().is_some() {
            let source = port.addresses.iter().map(|net| net.addr()).find(IpAddr::is_ipv4)?;
            families.push((source, of(true).collect()));
        }
        if of(false).next().is_some() {
            // The first must be of this kind (RFC 9568 section 5.2.9).
            let is_local = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            let mut addresses: Vec<IpAddr> = of(false).collect();
            if !addresses.iter().any(is_local) {
                addresses.push(vrrp::link_local(vrrp::virtual_mac(pair.id, false)).into());
            }
            addresses.sort_by_key(|address| !is_local(address));
            families.push((vrrp::link_local(mac).into(), addresses));
        }
        let settings = Settings {
            priority: pair.priority,
            interval: pair.heartbeat,
            preempt: pair.preempt,
            identity: families.first()?.0,
            mirrors: pair.mirror_after.is_some(),
            has_peer: pair.peer.is_some(),
        };
        Some(Pairing {
            election: Election::new(now, settings),
            link: pair.peer.as_ref().map(|peer| Link::new(&peer.key, seed)),
            datagrams: Vec::new(),
            mac,
            families,
            checked: Checked::WithAddresses,
            links: vec![true; config.ports.len()],
            started: now,
            live: (0, 0),
            missing: Vec::new(),
            told: None,
            counters: Arc::default(),
            news: Vec::new(),
            mirror: pair.mirror_after.map(|age| Mirroring::new(config, age, seed)),
            pair,
        })
    }

    /// What it counts.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Who is active, and why.
    pub fn election(&self) -> &Election {
        &self.election
    }

    /// What of mirroring is counted, where flows are mirrored.
    pub fn mirrored(&self) -> Option<&Arc<mirror::Counters>> {
        self.mirror.as_ref().map(Mirroring::counters)
    }

    /// Whether the other router has been heard by its datagrams lately.
    pub(super) fn hears_peer(&self, now: Instant, lately: Duration) -> bool {
        self.election.other(Path::Peer).is_some_and(|other| now - other.at <= lately)
    }

    /// What is missing here of what the pair requires.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// The addresses of the pair, each with the Ethernet address that goes with it.
    pub fn addresses(&self) -> Vec<(IpAddr, MacAddr)> {
        let all = self.families.iter().flat_map(|(_, addresses)| addresses);
        let mac = |address: &IpAddr| match self.pair.virtual_mac {
            true => vrrp::virtual_mac(self.pair.id, address.is_ipv4()),
            false => self.mac,
        };
        all.map(|address| (*address, mac(address))).collect()
    }

    /// Whose frames the access port takes, where it gets those of others.
    fn stations(&self, active: bool) -> Option<Arc<Stations>> {
        let pair = self.addresses().into_iter().filter(|_| active).map(|(_, mac)| mac);
        let own = std::iter::once(self.mac).chain(pair).collect();
        self.pair.virtual_mac.then(|| Arc::new(Stations { port: self.pair.access, own }))
    }

    /// An advertisement of each family, as a frame.
    fn advertise(&self, vlan: Option<u16>, priority: u8) -> impl Iterator<Item = Vec<u8>> {
        self.families.iter().map(move |(source, addresses)| {
            let Pair { id, heartbeat, virtual_mac, .. } = self.pair;
            let message = Advertisement { id, priority, interval: heartbeat, addresses: addresses.clone() };
            let message = message.write(*source, self.checked);
            let own = if virtual_mac { vrrp::virtual_mac(id, source.is_ipv4()) } else { self.mac };
            let link = |destination| template::Link { source: own, destination, vlan };
            match source {
                IpAddr::V4(source) => {
                    let header = frames::ipv4_header(*source, vrrp::GROUP_V4, DSCP_ECN, message.len());
                    let mut header = Ipv4Header { ttl: vrrp::HOP_LIMIT, protocol: VRRP, ..header };
                    header.fill_checksum();
                    frames::frame(link(vrrp::GROUP_MAC_V4), ethernet::IPV4, &[header.as_bytes(), &message])
                }
                IpAddr::V6(source) => {
                    let group = vrrp::GROUP_V6;
                    let header = frames::ipv6_header(*source, group, DSCP_ECN, vrrp::HOP_LIMIT, message.len());
                    let header = Ipv6Header { next_header: VRRP, ..header };
                    frames::frame(link(ndp::group_mac(group)), ethernet::IPV6, &[header.as_bytes(), &message])
                }
            }
        })
    }

    /// Whether all that an election goes by is known, and how this router is.
    fn condition(&mut self, now: Instant, router: &Known<'_>) -> Option<Condition> {
        let requires = &self.pair.requires;
        let ports = &router.config.ports;
        let down = requires.links.iter().filter(|port| !self.links[port.index()]);
        let down: Vec<String> = down.map(|port| format!("link {}", ports[port.index()].name)).collect();
        let forbidden = !down.is_empty();
        self.missing = down;
        let mut lacking = 0_u8;
        for (gateway, state) in requires.gateways.iter().zip(&router.gateways) {
            if matches!(state, None | Some(State::Incomplete)) && now - self.started < STARTING && self.told.is_none() {
                return None;
            }
            if !state.is_some_and(State::is_known) {
                self.missing.push(format!("gateway {gateway}"));
                lacking = lacking.saturating_add(1);
            }
        }
        if self.live.1 < requires.live_children {
            self.missing.push(format!(
                "{} of {} children",
                requires.live_children - self.live.1,
                requires.live_children
            ));
            lacking = lacking.saturating_add(1);
        }
        Some(match requires.penalty {
            Some(penalty) => Condition { forbidden, lowered: lacking.saturating_mul(penalty) },
            None => Condition { forbidden: forbidden || lacking > 0, lowered: 0 },
        })
    }
}

/// What of the rest of the slow path a condition depends on.
struct Known<'a> {
    config: &'a Config,
    /// What is known about each gateway that is required.
    gateways: Vec<Option<State>>,
}

/// Children that take new flows of some virtual host.
fn live_children(tables: &ForwardTables) -> usize {
    let hosts = tables.virtual_hosts.iter().zip(tables.selections.iter());
    let members = hosts.flat_map(|(host, selection)| host.members.iter().zip(selection.takes_new.iter()));
    members.filter(|(_, takes)| **takes).map(|(member, _)| &*member.child).collect::<HashSet<_>>().len()
}

impl SlowPath {
    /// The same, as one of a pair.
    pub fn pairing(mut self, now: Instant, pairing: Option<Pairing>) -> SlowPath {
        self.stations = pairing.as_ref().and_then(|pairing| pairing.stations(false));
        self.pairing = pairing;
        self.publish_stations(now);
        self
    }

    /// The pair, if there is one.
    pub fn pair(&self) -> Option<&Pairing> {
        self.pairing.as_ref()
    }

    /// Whether each port is up.
    pub fn set_links(&mut self, up: impl Iterator<Item = bool>) {
        if let Some(pairing) = &mut self.pairing {
            pairing.links.iter_mut().zip(up).for_each(|(link, up)| *link = up);
        }
    }

    /// Takes in a datagram of the other router of the pair.
    pub fn hear_peer(&mut self, now: Instant, bytes: &[u8]) {
        let Some(Pairing { link: Some(link), .. }) = &mut self.pairing else { return };
        let outcome = match link.read(now, bytes) {
            Ok((heartbeat::KIND, body)) => match heartbeat::read(body) {
                Some(heard) => {
                    self.hear_other(now, heard);
                    Outcome::Taken
                }
                None => Outcome::Malformed,
            },
            Ok((kind, body)) => self.hear_flows(kind, body),
            Err(outcome) => outcome,
        };
        if let Some(pairing) = &self.pairing {
            pairing.counters.datagrams(outcome).add(1);
        }
    }

    /// Takes in that the machine of the other router of the pair has no program that takes our datagrams.
    pub fn refused_by_peer(&mut self, now: Instant) {
        let Some(pairing) = &self.pairing else { return };
        pairing.counters.datagrams(Outcome::Refused).add(1);
        self.elect(now, Input::Refused);
    }

    /// The datagrams for the other router of the pair that have come up since this was asked last.
    pub fn take_peer_datagrams(&mut self) -> Vec<Vec<u8>> {
        self.pairing.as_mut().map(|pairing| std::mem::take(&mut pairing.datagrams)).unwrap_or_default()
    }

    /// What is to be told of the pair since this was asked last.
    pub fn take_pair_news(&mut self) -> Vec<String> {
        self.pairing.as_mut().map(|pairing| std::mem::take(&mut pairing.news)).unwrap_or_default()
    }

    /// Lets the other router of the pair be active, or (`active`) this one again.
    ///
    /// # Errors
    /// What stands in the way; `None` where there is no pair.
    pub fn wish(&mut self, now: Instant, active: bool) -> Result<(), Option<Refused>> {
        let Some(pairing) = &mut self.pairing else { return Err(None) };
        let wish = if active { Election::take_over } else { Election::stand_by };
        let outputs = wish(&mut pairing.election, now).map_err(Some)?;
        self.perform_election(now, outputs);
        Ok(())
    }

    /// Gives the addresses of the pair up, at the end.
    pub fn leave_pair(&mut self, now: Instant) {
        self.elect(now, Input::Stop);
    }

    /// Takes in what may be an advertisement; false when it is none.
    pub(super) fn hear_advertisement(&mut self, now: Instant, punt: &Punt) -> bool {
        let Some(pairing) = self.pairing.as_mut().filter(|_| punt.what.reason == PuntReason::OwnAddress) else {
            return false;
        };
        let vlan = self.config.ports[pairing.pair.access.index()].vlan;
        let packet = wire::payload_of(punt.frame(), vlan).and_then(|l3| punt.frame().get(l3..));
        let Some(packet) = packet.filter(|packet| is_vrrp(packet)) else { return false };
        if punt.port != pairing.pair.access {
            return true;
        }
        let counters = pairing.counters.clone();
        let (advertisement, from, checked) = match Advertisement::read(packet) {
            Ok((advertisement, ..)) if advertisement.id != pairing.pair.id => {
                counters.adverts(Advert::OtherRouter).add(1);
                return true;
            }
            Ok(read) => read,
            Err(why) => {
                counters.adverts(why.into()).add(1);
                return true;
            }
        };
        let ours = pairing.families.iter().find(|(source, _)| source.is_ipv4() == from.is_ipv4());
        let Some((own, addresses)) = ours else { return true };
        let alike = addresses.iter().all(|address| advertisement.addresses.contains(address));
        counters.adverts(if alike { Advert::Taken } else { Advert::OtherAddresses }).add(1);
        if from == *own {
            return true;
        }
        if from.is_ipv4() {
            pairing.checked = checked;
        }
        // One election is for both families, and held over IPv4 where the pair has addresses of it.
        if from.is_ipv4() != pairing.families[0].0.is_ipv4() {
            return true;
        }
        let Advertisement { priority, interval, .. } = advertisement;
        self.hear_other(now, Heard { path: Path::Access, active: true, priority, from, interval });
        true
    }

    fn hear_other(&mut self, now: Instant, heard: Heard) {
        if let Some(pairing) = &self.pairing {
            pairing.counters.heard(heard.path).add(1);
        }
        self.elect(now, Input::Heard(heard));
    }

    /// Does what is due for the pair.
    pub(super) fn pair_in_time(&mut self, now: Instant) {
        let Some(pairing) = &mut self.pairing else { return };
        if pairing.live.0 != self.publication.number {
            pairing.live = (self.publication.number, live_children(&self.published.load()));
        }
        let gateways = pairing.pair.requires.gateways.iter().map(|gateway| {
            let state = self.neighbours.state(*gateway);
            if state.is_none() {
                self.neighbours.want(now, &self.config, *gateway);
            }
            state
        });
        let known = Known { config: &self.config, gateways: gateways.collect() };
        let condition = pairing.condition(now, &known);
        if let Some(condition) = condition.filter(|condition| pairing.told != Some(*condition)) {
            pairing.told = Some(condition);
            self.elect(now, Input::Condition(condition));
        }
        self.mirror_in_time(now);
        let Some(pairing) = &self.pairing else { return };
        if pairing.election.next_deadline().is_some_and(|due| due <= now) {
            self.elect(now, Input::Tick);
        }
        if let Some(Pairing { election, counters, .. }) = &self.pairing {
            counters.priority.set(election.priority().into());
            counters.partner.set(election.partner(now).is_some().into());
        }
    }

    pub(super) fn elect(&mut self, now: Instant, input: Input) {
        let Some(pairing) = &mut self.pairing else { return };
        let outputs = pairing.election.handle(now, input);
        self.perform_election(now, outputs);
    }

    fn perform_election(&mut self, now: Instant, outputs: Vec<Output>) {
        for output in outputs {
            let (Some(pairing), Some(worker)) = (&mut self.pairing, self.workers.first()) else { return };
            let access = pairing.pair.access;
            match output {
                Output::Advertise(priority) => {
                    let vlan = self.config.ports[access.index()].vlan;
                    let frames = pairing.advertise(vlan, priority);
                    frames.for_each(|frame| worker.send(Injection::new(access, Handling::Send, &frame)));
                }
                Output::Heartbeat(role, priority) => {
                    let body = heartbeat::write(role, priority, pairing.pair.heartbeat, pairing.families[0].0);
                    let datagram = pairing.link.as_mut().map(|link| link.write(heartbeat::KIND, &body));
                    pairing.datagrams.extend(datagram);
                }
                Output::Take => {
                    self.neighbours.hold(access, &pairing.addresses());
                    self.stations = pairing.stations(true);
                    self.publish_stations(now);
                }
                Output::Release => {
                    self.neighbours.hold(access, &[]);
                    self.stations = pairing.stations(false);
                    self.publish_stations(now);
                }
                Output::Announce => perform(worker, self.neighbours.announce_held(), &mut Vec::new()),
                Output::Changed(role) => {
                    pairing.counters.entered(role).add(1);
                    pairing.counters.role.set(role as u64);
                    pairing.mirror.iter_mut().for_each(|mirror| mirror.enter(role));
                    let why = match role {
                        Role::Inoperative => format!(": {} missing", pairing.missing.join(", ")),
                        _ => String::new(),
                    };
                    pairing.news.push(format!("this router of the pair is {role} now{why}"));
                }
            }
        }
    }

    /// Tells the workers whose frames they take, where that changes with the role.
    fn publish_stations(&mut self, now: Instant) {
        if self.published.load().stations != self.stations {
            let tables = ForwardTables::clone(&self.published.load());
            self.publish(Compiled { tables, renumbered: Vec::new() }, now);
        }
    }
}

/// Whether an IP packet without options is of VRRP.
fn is_vrrp(packet: &[u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(9) == Some(&VRRP),
        Some(6) => packet.get(6) == Some(&VRRP),
        _ => false,
    }
}
