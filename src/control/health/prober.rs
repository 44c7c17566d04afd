//! The checks under way: which packet belongs to which, and what each sends.
//!
//! A check is known by its number, which is its port and its ICMP identifier at our end and which no other check has at
//! the time. So many children can be asked for the same address at once, and what comes back finds the right one.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::CheckId;
use super::conversation::{Conversation, Ends, Opening};
use super::failure::Failure;
use super::stack::Stack;
use crate::clock::Instant;
use crate::config::Probe;
use crate::control::random::Random;
use crate::packet::icmp::{V4_ECHO_REPLY, V6_ECHO_REPLY};
use crate::packet::parse::{Parsed, parse_ip};
use crate::packet::protocol::{ICMP, ICMPV6, TCP, UDP};

/// Ports and identifiers of checks: above the services', below those that other systems pick.
const NUMBERS: std::ops::RangeInclusive<u16> = 20_000..=59_999;

/// From one poll of a check to the next, where nothing arrives.
const POLL_MIN: Duration = Duration::from_millis(1);

/// What is asked, as often as it is needed: see [`Probe`].
#[derive(Clone)]
pub struct Question {
    /// What is asked.
    pub probe: Arc<Probe>,
    /// How TLS is spoken, where it is.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The virtual host's address.
    pub address: IpAddr,
    /// Ours.
    pub own: IpAddr,
}

/// What a check has come to.
#[derive(Debug)]
pub struct Progress {
    /// Whose.
    pub check: CheckId,
    /// IP packets to send.
    pub packets: Vec<Vec<u8>>,
    /// How it has ended, if it has.
    pub ended: Option<Result<(), Failure>>,
}

struct Running {
    check: CheckId,
    own: IpAddr,
    address: IpAddr,
    protocol: u8,
    stack: Stack,
    conversation: Conversation,
    /// When it is to be polled.
    due: Option<Instant>,
}

/// The checks under way.
pub struct Prober {
    running: HashMap<u16, Running>,
    numbers: HashMap<CheckId, u16>,
    due: BTreeSet<(Instant, u16)>,
    next: u16,
    random: Random,
}

impl Prober {
    /// None yet. `seed` makes ports, identifiers and sequence numbers.
    pub fn new(seed: u64) -> Prober {
        let mut random = Random::new(seed);
        let next = NUMBERS.start() + (random.next() % NUMBERS.len() as u64) as u16;
        Prober { running: HashMap::new(), numbers: HashMap::new(), due: BTreeSet::new(), next, random }
    }

    /// When [`Prober::poll`] has something to do next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Starts a check that is not under way.
    pub fn start(&mut self, now: Instant, check: CheckId, question: &Question) -> Progress {
        let Some(number) = self.free_number() else {
            return Progress { check, packets: Vec::new(), ended: Some(Err(Failure::Unsendable("no port is free"))) };
        };
        let (own, address) = (question.own, question.address);
        let ends = Ends { own, number, address };
        let seed = self.random.next();
        let open = |port, tls, request| Conversation::stream(now, ends, Opening { port, tls, request }, seed);
        let tls = question.tls.clone();
        let (protocol, begun) = match &*question.probe {
            Probe::Icmp => (if own.is_ipv4() { ICMP } else { ICMPV6 }, Conversation::echo(now, ends, seed)),
            Probe::Tcp { port } => (TCP, open(*port, None, None)),
            Probe::Http(request) => (TCP, open(request.port, None, Some(request))),
            Probe::Https(request, _) => (TCP, open(request.port, tls, Some(request))),
            Probe::Tls(port, _) => (TCP, open(*port, tls, None)),
            Probe::Dns { port, name, record } => (UDP, Conversation::query(now, ends, (*port, name, *record), seed)),
            Probe::Command(_) => (0, Err(Failure::Unsendable("it is a command"))),
        };
        match begun {
            Ok((stack, conversation)) => {
                let running = Running { check, own, address, protocol, stack, conversation, due: None };
                self.running.insert(number, running);
                self.numbers.insert(check, number);
                self.advance(now, number).unwrap_or(Progress { check, packets: Vec::new(), ended: None })
            }
            Err(failure) => Progress { check, packets: Vec::new(), ended: Some(Err(failure)) },
        }
    }

    /// Whether an IP packet, from its header on, is for a check under way.
    pub fn takes(&self, packet: &[u8]) -> bool {
        self.recognise(packet).is_some()
    }

    /// Takes in such a packet.
    pub fn receive(&mut self, now: Instant, packet: &[u8]) -> Option<Progress> {
        let (number, length) = self.recognise(packet)?;
        self.running.get_mut(&number)?.stack.receive(packet.get(..length)?);
        self.advance(now, number)
    }

    /// Lets one check whose time has come go on.
    pub fn poll(&mut self, now: Instant) -> Option<Progress> {
        let (due, number) = *self.due.first()?;
        if due > now { None } else { self.advance(now, number) }
    }

    /// Ends a check, if it is under way, and returns what it has still to say.
    pub fn stop(&mut self, now: Instant, check: CheckId) -> Vec<Vec<u8>> {
        let Some(number) = self.numbers.remove(&check) else { return Vec::new() };
        let Some(mut running) = self.running.remove(&number) else { return Vec::new() };
        if let Some(due) = running.due {
            self.due.remove(&(due, number));
        }
        running.conversation.end(&mut running.stack);
        running.stack.poll(now);
        running.stack.take_leaving()
    }

    /// Whether no more than `checks` are under way, and nothing is kept of others.
    #[cfg(test)]
    pub fn is_idle_but_for(&self, checks: usize) -> bool {
        self.running.len() <= checks && self.numbers.len() == self.running.len() && self.due.len() <= checks
    }

    fn free_number(&mut self) -> Option<u16> {
        for _ in NUMBERS {
            let number = self.next;
            self.next = if number == *NUMBERS.end() { *NUMBERS.start() } else { number + 1 };
            if !self.running.contains_key(&number) {
                return Some(number);
            }
        }
        None
    }

    /// The number of the check that a packet is for, and the packet's length.
    fn recognise(&self, packet: &[u8]) -> Option<(u16, usize)> {
        let parsed = parse_ip(packet, packet.len()).ok()?;
        let number = number(packet, &parsed)?;
        let running = self.running.get(&number)?;
        let ours = running.protocol == parsed.protocol
            && running.own == parsed.destination(packet)
            && running.address == parsed.source(packet);
        ours.then_some((number, parsed.l3_len as usize))
    }

    fn advance(&mut self, now: Instant, number: u16) -> Option<Progress> {
        let running = self.running.get_mut(&number)?;
        running.stack.poll(now);
        let ended = running.conversation.go_on(&mut running.stack);
        running.stack.poll(now);
        let (check, mut packets) = (running.check, running.stack.take_leaving());
        if ended.is_some() {
            packets.extend(self.stop(now, check));
            return Some(Progress { check, packets, ended });
        }
        if let Some(due) = running.due.take() {
            self.due.remove(&(due, number));
        }
        // Never at once: what can be done now has been.
        running.due = running.stack.next_deadline(now).map(|due| due.max(now + POLL_MIN));
        self.due.extend(running.due.map(|due| (due, number)));
        Some(Progress { check, packets, ended })
    }
}

/// The port, or the identifier of an echo reply, at which a packet is aimed.
fn number(packet: &[u8], parsed: &Parsed) -> Option<u16> {
    if parsed.is_fragment() {
        return None;
    }
    match parsed.protocol {
        TCP | UDP => Some(parsed.dst_port()),
        ICMP | ICMPV6 => {
            let [kind, _, _, _, high, low] = *packet.get(usize::from(parsed.l4_offset)..)?.first_chunk()?;
            let reply = if parsed.protocol == ICMP { V4_ECHO_REPLY } else { V6_ECHO_REPLY };
            (kind == reply).then_some(u16::from_be_bytes([high, low]))
        }
        _ => None,
    }
}
