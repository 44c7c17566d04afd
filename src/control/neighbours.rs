//! Who the router's neighbours are and where, and what it tells them about itself: ARP (RFC 826), IPv6 neighbour
//! discovery (RFC 4861) and echo (RFC 792, RFC 4443) for its own addresses.
//!
//! ```text
//!   next hops of the configuration
//!        │            answer                    15 to 45 s
//!        └─► Incomplete ───────────► Reachable ────────────► Stale ◄── unasked news
//!             ▲   │ 3 unanswered         ▲   answer            │ 5 s
//!    1 to 8 s │   ▼                      └─────────── Probe ◄──┘
//!            Failed ◄──────────────────────────────────┘ 3 unanswered
//! ```
//!
//! Packets are sent to a neighbour that is Reachable, Stale or Probe. The table holds the next hops that the
//! configuration needs, and those that a packet was to be forwarded to ([`Neighbours::want`]), of which there are only so
//! many; no other frame that arrives can add an entry, and both kinds have their own share of questions, so no storm can
//! crowd out a configured next hop. A next hop counts as always in use: what RFC 4861 does at the next packet to a
//! neighbour is done when the time has come. One that is only wanted is forgotten at the end of Failed. An echo reply
//! goes back to the link-layer address that the request came from.

mod held;
pub(super) mod wire;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::rate_limit::RateLimit;
use crate::clock::Instant;
use crate::config::{Attachment, Config};
use crate::packet::arp::{self, ArpPacket};
use crate::packet::ndp::{self, NeighbourMessage};
use crate::tunnel::template::Link;
use crate::units::{MacAddr, PortIndex, labelled};
use wire::{Echo, Message};

/// Neighbours that the configuration does not name, at most.
pub const WANTED_MAX: usize = 8192;

/// Solicitations without an answer until a neighbour has failed (RFC 4861 section 10).
const SOLICITATIONS: u8 = 3;
/// Time between them (RFC 4861 section 10).
const RETRANSMISSION: Duration = Duration::from_secs(1);
/// How long an answer is good for, on average (RFC 4861 section 10); it varies by half either way.
const REACHABLE: Duration = Duration::from_secs(30);
/// From stale to the first probe (RFC 4861 section 10).
const STALE: Duration = Duration::from_secs(5);
/// From failure to the next try; doubles with every failure in a row, [`DOUBLINGS`] times at most.
const RETRY: Duration = Duration::from_secs(1);
const DOUBLINGS: u8 = 3;
/// How often our own addresses are announced at start, and how far apart (RFC 4861 section 7.2.6).
const ANNOUNCEMENTS: u8 = 3;
const ANNOUNCEMENT: Duration = Duration::from_secs(1);

/// Solicitations of either kind of neighbour, answers to solicitations, and echo replies a second, each; and how many of them in one go.
const PER_SECOND: u32 = 1000;
const AT_ONCE: u32 = 100;

labelled! {
    /// What is known about a neighbour.
    State {
        /// Its link-layer address is given by the configuration.
        Static => "static",
        /// Asked for, not known.
        Incomplete => "incomplete",
        /// It has answered lately.
        Reachable => "reachable",
        /// It has not answered lately.
        Stale => "stale",
        /// It is asked whether it is still there.
        Probe => "probe",
        /// It does not answer; asked again later.
        Failed => "failed",
    }
}

impl State {
    /// Whether packets are sent to such a neighbour.
    pub(super) fn is_known(self) -> bool {
        !matches!(self, State::Incomplete | State::Failed)
    }
}

/// What the machine is told.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A frame that arrived.
    Frame {
        /// By which port.
        port: PortIndex,
        /// The frame, from its Ethernet header on.
        bytes: &'a [u8],
    },
    /// A frame that arrived with an echo request for a virtual host in whose place we answer.
    EchoFor {
        /// By which port.
        port: PortIndex,
        /// The frame, from its Ethernet header on.
        bytes: &'a [u8],
    },
    /// Time has passed.
    Tick,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a frame.
    Send {
        /// By which port.
        port: PortIndex,
        /// The frame, from its Ethernet header on.
        frame: Vec<u8>,
    },
    /// A neighbour is known, known elsewhere, or not known any more, or it could not be found.
    Changed(Change),
}

/// What has changed about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which one.
    pub address: IpAddr,
    /// Where it was before.
    pub before: Option<MacAddr>,
    /// Where it is now.
    pub mac: Option<MacAddr>,
}

/// Our side of a link.
#[derive(Debug)]
struct Side {
    mac: MacAddr,
    vlan: Option<u16>,
    /// Addresses that we answer for there.
    own: Vec<IpAddr>,
    /// Those that we have for the time being, each with the link-layer address that goes with it.
    held: Vec<(IpAddr, MacAddr)>,
}

#[derive(Clone, Debug)]
struct Neighbour {
    address: IpAddr,
    port: PortIndex,
    /// Our address that it is asked from.
    source: IpAddr,
    state: State,
    /// Meaningful while the state [`State::is_known`].
    mac: MacAddr,
    /// Solicitations sent in this state.
    sent: u8,
    /// Times that it has failed in a row.
    failures: u8,
    /// When its state ends by itself.
    due: Option<Instant>,
    /// It is not in the configuration.
    wanted: bool,
}

/// When which neighbours' states end, and how many may be asked for.
#[derive(Debug)]
struct Timers {
    due: BTreeSet<(Instant, usize)>,
    solicitations: RateLimit,
}

impl Timers {
    fn new() -> Timers {
        Timers { due: BTreeSet::new(), solicitations: RateLimit::new(PER_SECOND, AT_ONCE) }
    }

    /// When the first of them is due and may be asked.
    fn first(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| (*due).max(self.solicitations.ready()))
    }
}

/// What there is to know about the way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is known where it is.
    Known,
    /// It is being asked for.
    Asked,
    /// It has not answered, a moment ago.
    Silent,
    /// There are too many others that are being asked for.
    NoRoom,
    /// It is on no link of ours.
    NoLink,
}

impl Neighbour {
    fn known(&self) -> Option<MacAddr> {
        self.state.is_known().then_some(self.mac)
    }
}

/// The machine.
#[derive(Debug)]
pub struct Neighbours {
    sides: Vec<Side>,
    own: HashSet<IpAddr>,
    table: Vec<Neighbour>,
    by_address: HashMap<IpAddr, usize>,
    /// Places in the table of neighbours that are forgotten.
    vacant: Vec<usize>,
    configured: Timers,
    wanted: Timers,
    counts: [u64; State::ALL.len()],
    /// When our addresses are announced next, and how often still.
    announcing: Option<(Instant, u8)>,
    answers: RateLimit,
    echoes: RateLimit,
    random: u64,
}

impl Neighbours {
    /// The neighbours that `config` needs, over ports with these link-layer addresses. Nothing happens before the first
    /// [`Input::Tick`]. `seed` spreads the times at which neighbours are asked again.
    pub fn new(config: &Config, macs: &[MacAddr], seed: u64) -> Neighbours {
        let tunnels = [config.router.tunnel_v4.map(IpAddr::from), config.router.tunnel_v6.map(IpAddr::from)];
        let tunnels: Vec<IpAddr> = tunnels.into_iter().flatten().collect();
        let sides: Vec<Side> = (0..)
            .map(PortIndex)
            .zip(config.ports.iter().zip(macs))
            .map(|(index, (port, mac))| {
                let mut own: Vec<IpAddr> = port.addresses.iter().map(|net| net.addr()).collect();
                // A tunnel address out of every subnet is answered for on every link.
                let here = |tunnel: &&IpAddr| on_link(config, **tunnel).is_none_or(|port| port == index);
                own.extend(tunnels.iter().filter(here));
                own.sort_unstable();
                own.dedup();
                Side { mac: *mac, vlan: port.vlan, own, held: Vec::new() }
            })
            .collect();
        let mut neighbours = Neighbours {
            own: sides.iter().flat_map(|side| &side.own).copied().collect(),
            sides,
            table: Vec::new(),
            by_address: HashMap::new(),
            vacant: Vec::new(),
            configured: Timers::new(),
            wanted: Timers::new(),
            counts: [0; State::ALL.len()],
            announcing: Some((Instant::ZERO, ANNOUNCEMENTS)),
            answers: RateLimit::new(PER_SECOND, AT_ONCE),
            echoes: RateLimit::new(PER_SECOND, AT_ONCE),
            random: seed,
        };
        for neighbour in &config.neighbours {
            neighbours.add(config, neighbour.address, Some(neighbour.mac), Instant::ZERO);
        }
        let children = config.children.iter().map(|child| child.address);
        for address in children.chain(config.routes.iter().map(|route| route.via)) {
            if let Some(Attachment { next_hop, .. }) = config.attachment(address) {
                neighbours.add(config, next_hop, None, Instant::ZERO);
            }
        }
        neighbours
    }

    /// The neighbours that `config` needs, over the same ports, as far as they are known already.
    pub fn reconfigured(&self, config: &Config) -> Neighbours {
        let mut anew = Neighbours::new(config, &self.macs(), self.random);
        for before in self.by_address.values().map(|slot| &self.table[*slot]) {
            if before.wanted {
                anew.add_wanted(config, before.address, Instant::ZERO);
            }
            let Some(&slot) = anew.by_address.get(&before.address) else { continue };
            let now = &anew.table[slot];
            if before.port == now.port && before.state != State::Static && now.state != State::Static {
                anew.counts[now.state as usize] -= 1;
                anew.counts[before.state as usize] += 1;
                let (source, wanted) = (now.source, now.wanted);
                anew.table[slot] = Neighbour { source, wanted, due: now.due, ..before.clone() };
                anew.schedule(slot, before.due.unwrap_or(Instant::ZERO));
            }
        }
        anew.hold_as(self);
        if anew.own == self.own {
            anew.announcing = self.announcing;
        }
        Neighbours { answers: self.answers, echoes: self.echoes, ..anew }
    }

    /// Looks for the neighbour with this address, before all others of its kind, because a packet is for it.
    pub fn want(&mut self, now: Instant, config: &Config, address: IpAddr) -> Wanted {
        let known = self.by_address.get(&address).copied();
        let Some(slot) = known else { return self.add_wanted(config, address, now) };
        match self.table[slot].state {
            State::Static | State::Reachable | State::Stale | State::Probe => Wanted::Known,
            State::Incomplete if self.table[slot].sent == 0 => {
                self.schedule(slot, Instant::ZERO);
                Wanted::Asked
            }
            State::Incomplete => Wanted::Asked,
            State::Failed => Wanted::Silent,
        }
    }

    fn add_wanted(&mut self, config: &Config, address: IpAddr, now: Instant) -> Wanted {
        if self.wanted.due.len() >= WANTED_MAX {
            return Wanted::NoRoom;
        }
        match self.add(config, address, None, now) {
            Some(slot) => {
                self.configured.due.remove(&(now, slot));
                self.table[slot].wanted = true;
                self.wanted.due.insert((now, slot));
                Wanted::Asked
            }
            None => Wanted::NoLink,
        }
    }

    /// Adds a neighbour that is not there yet, and says where in the table it is.
    fn add(&mut self, config: &Config, address: IpAddr, mac: Option<MacAddr>, now: Instant) -> Option<usize> {
        let port = on_link(config, address).filter(|port| port.index() < self.sides.len())?;
        if self.by_address.contains_key(&address) {
            return None;
        }
        let subnets = config.ports[port.index()].addresses.iter().filter(|net| net.contains(&address));
        let source = subnets.max_by_key(|net| net.prefix_len())?.addr();
        let (state, due) = if mac.is_some() { (State::Static, None) } else { (State::Incomplete, Some(now)) };
        let mac = mac.unwrap_or_default();
        let neighbour = Neighbour { address, port, source, state, mac, sent: 0, failures: 0, due, wanted: false };
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.table[slot] = neighbour;
                slot
            }
            None => {
                self.table.push(neighbour);
                self.table.len() - 1
            }
        };
        self.configured.due.extend(due.map(|due| (due, slot)));
        self.counts[state as usize] += 1;
        self.by_address.insert(address, slot);
        Some(slot)
    }

    /// Forgets a neighbour that is only wanted.
    fn forget(&mut self, slot: usize) {
        let Neighbour { address, state, due, .. } = self.table[slot];
        self.counts[state as usize] -= 1;
        self.by_address.remove(&address);
        self.wanted.due.remove(&(due.unwrap_or_default(), slot));
        self.vacant.push(slot);
    }

    /// The link towards the neighbour with this address, while it is known.
    pub fn link(&self, address: IpAddr) -> Option<Link> {
        let neighbour = &self.table[*self.by_address.get(&address)?];
        Some(self.link_to(neighbour.port, neighbour.known()?))
    }

    /// The link by which a frame of this sender came in by `port`, towards the sender; `None` for groups and strange ports.
    pub fn link_back(&self, port: PortIndex, sender: MacAddr) -> Option<Link> {
        (port.index() < self.sides.len() && is_station(sender)).then(|| self.link_to(port, sender))
    }

    /// Whether an address is ours.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// What is known about the neighbour with this address; `None` for one that nobody needs.
    pub fn state(&self, address: IpAddr) -> Option<State> {
        self.by_address.get(&address).map(|slot| self.table[*slot].state)
    }

    /// Every neighbour: its address, the port that it is behind, what is known about it, and where it is.
    pub fn all(&self) -> impl Iterator<Item = (IpAddr, PortIndex, State, Option<MacAddr>)> {
        let all = self.by_address.values().map(|slot| &self.table[*slot]);
        all.map(|one| (one.address, one.port, one.state, one.known()))
    }

    /// Number of neighbours in `state`.
    pub fn count(&self, state: State) -> u64 {
        self.counts[state as usize]
    }

    /// Our link-layer addresses, by port.
    pub fn macs(&self) -> Vec<MacAddr> {
        self.sides.iter().map(|side| side.mac).collect()
    }

    /// The neighbours whose link-layer addresses are known, each with the link towards it.
    pub fn known(&self) -> impl Iterator<Item = (IpAddr, PortIndex, Link)> {
        let known = |slot: &usize| {
            let neighbour = &self.table[*slot];
            Some((neighbour.address, neighbour.port, self.link_to(neighbour.port, neighbour.known()?)))
        };
        self.by_address.values().filter_map(known)
    }

    /// When the next [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        // A timer that is due may still wait for its turn to send.
        let timers = [self.configured.first(), self.wanted.first()].into_iter().flatten();
        timers.chain(self.announcing.map(|(at, _)| at)).min()
    }

    /// Takes an input in, and returns what is to be done.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Frame { port, bytes } => self.hear(now, port, bytes, false, &mut outputs),
            Input::EchoFor { port, bytes } => self.hear(now, port, bytes, true, &mut outputs),
            Input::Tick => {
                self.announce(now, &mut outputs);
                self.run_timers(now, false, &mut outputs);
                self.run_timers(now, true, &mut outputs);
            }
        }
        outputs
    }

    /// `echo`: the frame is an echo request that we answer, whoever it is for.
    fn hear(&mut self, now: Instant, port: PortIndex, bytes: &[u8], echo: bool, outputs: &mut Vec<Output>) {
        let Some(side) = self.sides.get(port.index()) else { return };
        let Some(received) = wire::read(bytes, side.vlan) else { return };
        let to_us = side.is_at(received.to);
        if !(to_us || is_group(received.to)) || is_group(received.from) {
            return;
        }
        match received.message {
            Message::Arp(packet) => self.hear_arp(now, port, to_us, packet, outputs),
            Message::Solicitation { source, target, mac } => {
                let mac = mac.unwrap_or(received.from);
                self.hear_solicitation(now, port, source, target, mac, outputs);
            }
            Message::Advertisement { target, mac, solicited, overrides } => {
                self.learn(now, port, target.into(), News { mac, solicited, overrides }, outputs);
            }
            Message::Echo(request) if to_us && (echo || self.own.contains(&request.destination)) => {
                self.hear_echo(now, port, received.from, &request, outputs);
            }
            Message::Echo(_) => {}
        }
    }

    fn hear_arp(&mut self, now: Instant, port: PortIndex, to_us: bool, packet: &ArpPacket, outputs: &mut Vec<Output>) {
        let (sender, target) = (IpAddr::V4(packet.sender_ip()), IpAddr::V4(packet.target_ip()));
        if self.own.contains(&sender) {
            return;
        }
        // ARP has no flag that tells an answer from news: it is one if we have asked.
        let asked = matches!(self.state(sender), Some(State::Incomplete | State::Probe));
        let solicited = asked && to_us && packet.operation == arp::REPLY;
        self.learn(now, port, sender, News { mac: Some(packet.sender_mac), solicited, overrides: true }, outputs);
        if packet.operation == arp::REQUEST
            && let Some(source) = self.sides[port.index()].answers_for(target)
            && is_station(packet.sender_mac)
            && self.answers.take(now)
        {
            let link = Link { source, ..self.link_to(port, packet.sender_mac) };
            outputs.push(Output::Send { port, frame: wire::arp(link, &packet.reply(link.source)) });
        }
    }

    fn hear_solicitation(
        &mut self,
        now: Instant,
        port: PortIndex,
        source: Ipv6Addr,
        target: Ipv6Addr,
        mac: MacAddr,
        outputs: &mut Vec<Output>,
    ) {
        if self.own.contains(&source.into()) || source.is_multicast() || !is_station(mac) {
            return;
        }
        self.learn(now, port, source.into(), News { mac: Some(mac), solicited: false, overrides: true }, outputs);
        let answers_for = self.sides[port.index()].answers_for(target.into());
        if let Some(own) = answers_for.filter(|_| self.answers.take(now)) {
            // RFC 4861 section 7.2.4: who has no address yet is answered through the group of all.
            let (flags, destination, mac) = match source.is_unspecified() {
                true => (ndp::ROUTER | ndp::OVERRIDE, ndp::ALL_NODES, ndp::group_mac(ndp::ALL_NODES)),
                false => (ndp::ROUTER | ndp::OVERRIDE | ndp::SOLICITED, source, mac),
            };
            let link = Link { source: own, ..self.link_to(port, mac) };
            let message = NeighbourMessage::advertisement(target, own, flags);
            outputs.push(Output::Send { port, frame: wire::neighbour(link, target, destination, message) });
        }
    }

    fn hear_echo(&mut self, now: Instant, port: PortIndex, from: MacAddr, echo: &Echo<'_>, outputs: &mut Vec<Output>) {
        if !self.own.contains(&echo.source) && is_host(echo.source) && self.echoes.take(now) {
            let frame = wire::echo_reply(self.link_to(port, from), echo);
            outputs.push(Output::Send { port, frame });
        }
    }

    /// Takes in what is heard about an address (RFC 4861 section 7.2.5). What nobody needs, what is static and what comes
    /// from another link changes nothing.
    fn learn(&mut self, now: Instant, port: PortIndex, address: IpAddr, news: News, outputs: &mut Vec<Output>) {
        let Some(&slot) = self.by_address.get(&address) else { return };
        let neighbour = &self.table[slot];
        if neighbour.port != port || news.mac.is_some_and(|mac| !is_station(mac)) {
            return;
        }
        let before = neighbour.known();
        let moved = news.mac.filter(|mac| Some(*mac) != before);
        let next = match (neighbour.state, moved) {
            (State::Static, _) => return,
            // Without a link-layer address an advertisement tells nothing new.
            (State::Incomplete | State::Failed, None) => return,
            (State::Incomplete | State::Failed, Some(_)) if news.solicited => State::Reachable,
            (State::Incomplete | State::Failed, Some(_)) => State::Stale,
            (State::Reachable, Some(_)) if !news.overrides => State::Stale,
            (_, Some(_)) if !news.overrides => return,
            (_, _) if news.solicited => State::Reachable,
            (_, Some(_)) => State::Stale,
            (_, None) => return,
        };
        if let Some(mac) = moved.filter(|_| before.is_none() || news.overrides) {
            self.table[slot].mac = mac;
        }
        self.enter(now, slot, next);
        self.tell(slot, before, outputs);
    }

    fn tell(&self, slot: usize, before: Option<MacAddr>, outputs: &mut Vec<Output>) {
        let neighbour = &self.table[slot];
        let mac = neighbour.known();
        if mac != before {
            outputs.push(Output::Changed(Change { address: neighbour.address, before, mac }));
        }
    }

    fn enter(&mut self, now: Instant, slot: usize, state: State) {
        let neighbour = &mut self.table[slot];
        self.counts[neighbour.state as usize] -= 1;
        self.counts[state as usize] += 1;
        neighbour.state = state;
        neighbour.sent = 0;
        let lasts = match state {
            State::Static | State::Incomplete | State::Probe => Duration::ZERO,
            State::Stale => STALE,
            State::Reachable => {
                neighbour.failures = 0;
                self.random =
                    self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                REACHABLE / 2 + REACHABLE * (self.random >> 40) as u32 / (1 << 24)
            }
            State::Failed => {
                let lasts = RETRY * (1 << neighbour.failures);
                neighbour.failures = DOUBLINGS.min(neighbour.failures + 1);
                lasts
            }
        };
        self.schedule(slot, now + lasts);
    }

    fn schedule(&mut self, slot: usize, at: Instant) {
        let before = self.table[slot].due.replace(at);
        let timers = self.timers(self.table[slot].wanted);
        if let Some(before) = before {
            timers.due.remove(&(before, slot));
        }
        timers.due.insert((at, slot));
    }

    fn timers(&mut self, wanted: bool) -> &mut Timers {
        if wanted { &mut self.wanted } else { &mut self.configured }
    }

    fn run_timers(&mut self, now: Instant, wanted: bool, outputs: &mut Vec<Output>) {
        while let Some(&(_, slot)) = self.timers(wanted).due.first().filter(|(due, _)| *due <= now) {
            let before = self.table[slot].known();
            match self.table[slot].state {
                State::Incomplete | State::Probe if self.table[slot].sent == SOLICITATIONS => {
                    // Who has never been known is told of once, though nothing has changed.
                    if before.is_none() && self.table[slot].failures == 0 {
                        let address = self.table[slot].address;
                        outputs.push(Output::Changed(Change { address, before: None, mac: None }));
                    }
                    self.enter(now, slot, State::Failed);
                }
                State::Incomplete | State::Probe => {
                    if !self.timers(wanted).solicitations.take(now) {
                        return;
                    }
                    self.table[slot].sent += 1;
                    self.schedule(slot, now + RETRANSMISSION);
                    outputs.push(self.solicit(&self.table[slot]));
                }
                State::Reachable => self.enter(now, slot, State::Stale),
                State::Stale => self.enter(now, slot, State::Probe),
                State::Failed if wanted => self.forget(slot),
                State::Failed => self.enter(now, slot, State::Incomplete),
                // Has no timer.
                State::Static => return,
            }
            self.tell(slot, before, outputs);
        }
    }

    /// Asks for a neighbour: everyone, or itself alone where it is known (RFC 4861 section 7.3.3, RFC 1122 section
    /// 2.3.2.1).
    fn solicit(&self, neighbour: &Neighbour) -> Output {
        let port = neighbour.port;
        let known = neighbour.known();
        let frame = match (neighbour.source, neighbour.address) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                let link = self.link_to(port, known.unwrap_or(BROADCAST));
                wire::arp(link, &ArpPacket::request(link.source, source, target))
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                let group = ndp::solicited_node(target);
                let destination = if known.is_some() { target } else { group };
                let link = self.link_to(port, known.unwrap_or(ndp::group_mac(group)));
                wire::neighbour(link, source, destination, NeighbourMessage::solicitation(target, link.source))
            }
            _ => unreachable!("a subnet that contains an address is of its family"),
        };
        Output::Send { port, frame }
    }

    /// Announces our addresses while that is due, so that neighbours forget who had them before (RFC 5227 section 3, RFC
    /// 4861 section 7.2.6).
    fn announce(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        let Some((_, left)) = self.announcing.filter(|(at, _)| *at <= now) else { return };
        self.announcing = (left > 1).then(|| (now + ANNOUNCEMENT, left - 1));
        for (port, side) in (0..).map(PortIndex).zip(&self.sides) {
            outputs.extend(side.own.iter().map(|own| self.announcement(port, *own, side.mac)));
        }
    }

    fn link_to(&self, port: PortIndex, destination: MacAddr) -> Link {
        let side = &self.sides[port.index()];
        Link { source: side.mac, destination, vlan: side.vlan }
    }
}

/// The port in whose subnet an address lies.
fn on_link(config: &Config, address: IpAddr) -> Option<PortIndex> {
    config.attachment(address).filter(|attachment| attachment.next_hop == address).map(|attachment| attachment.port)
}

/// What is heard about a neighbour.
#[derive(Clone, Copy, Debug)]
struct News {
    mac: Option<MacAddr>,
    /// It answers a question.
    solicited: bool,
    /// It replaces what is known.
    overrides: bool,
}

const BROADCAST: MacAddr = MacAddr([0xff; 6]);

fn is_group(mac: MacAddr) -> bool {
    mac.0[0] & 1 == 1
}

/// Whether it is the address of one machine.
fn is_station(mac: MacAddr) -> bool {
    !is_group(mac) && mac != MacAddr::default()
}

/// Whether it is the address of one machine, not of this one alone.
pub(super) fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(broadcast || address.is_unspecified() || address.is_multicast() || address.is_loopback())
}
