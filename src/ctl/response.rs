//! What a running router answers. Every type here is the JSON of an answer, field by field.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::control::hierarchy::view::ParentView;
use crate::metrics::collector::PortStatistics;
use crate::metrics::report::Report;

/// A line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line<T> {
    /// One of several parts; more will come.
    Item(T),
    /// The answer, or its last part.
    Ok(T),
    /// Why there is no answer, or no more of it.
    Error(String),
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// In a sentence.
    pub done: String,
}

/// Who the router is and how it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Its level in the hierarchy.
    pub level: u8,
    /// Version of slr.
    pub version: String,
    /// Time that it has been running.
    pub uptime_seconds: f64,
    /// Where its configuration was read.
    pub configuration: String,
    /// Virtual hosts.
    pub virtual_hosts: usize,
    /// Children.
    pub children: usize,
    /// Children that get no new flows because an operator said so.
    pub drained: Vec<String>,
    /// Time until our certificate ends, where there is one.
    pub certificate_seconds: Option<f64>,
    /// The forwarding snapshot.
    pub snapshot: Snapshot,
    /// What it has done since it started.
    pub counters: Report,
}

/// How a host agent is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its name.
    pub name: String,
    /// Version of slr.
    pub version: String,
    /// Time that it has been running.
    pub uptime_seconds: f64,
    /// Whether it is about to stop, and waits for connections to end.
    pub draining: bool,
    /// How tunnels are taken off.
    pub decapsulation: String,
    /// Where, and why so.
    pub why: String,
    /// Longest packet that fits into every kind of tunnel, in bytes.
    pub inner_mtu: u32,
    /// Changes that it has made to the system, and will undo.
    pub changes: usize,
    /// Packets by what became of them.
    pub packets: BTreeMap<String, u64>,
    /// Share of the processors' time in use, 0 to 1.
    pub cpu: f64,
    /// Share of the time in which something waited for a processor, 0 to 1.
    pub cpu_pressure: f64,
    /// Share of the memory in use, 0 to 1.
    pub memory: f64,
    /// Share of the time in which something waited for memory, 0 to 1.
    pub memory_pressure: f64,
    /// What it serves.
    pub virtual_hosts: Vec<HostedRow>,
    /// The routers above, and how the sessions with them are.
    pub parents: Vec<ParentRow>,
    /// Time until its certificate ends, where there is one.
    pub certificate_seconds: Option<f64>,
}

/// A virtual host on its host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostedRow {
    /// Its name.
    pub name: String,
    /// Addresses and prefixes.
    pub addresses: Vec<String>,
    /// Why it does not work; `None`: it does.
    pub failure: Option<String>,
    /// The load that is reported.
    pub load: f64,
    /// Established TCP connections.
    pub established: u64,
    /// The fullest accept queue, 0 to 1.
    pub queue: f64,
    /// Bytes a second to it.
    pub bytes_in: f64,
    /// Bytes a second from it.
    pub bytes_out: f64,
    /// What its application says.
    pub application: Option<f64>,
}

/// A forwarding snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its number, from 1.
    pub number: u64,
    /// Time since it was published.
    pub age_seconds: f64,
}

/// A port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PortRow {
    /// Its name.
    pub name: String,
    /// DPDK devargs.
    pub device: String,
    /// Name of the driver.
    pub driver: String,
    /// Ethernet address.
    pub mac: String,
    /// Longest IP packet that leaves here, in bytes.
    pub mtu: u16,
    /// 802.1Q tag.
    pub vlan: Option<u16>,
    /// Our addresses on this link.
    pub addresses: Vec<String>,
    /// Link and counters.
    #[serde(flatten)]
    pub statistics: PortStatistics,
}

/// A virtual host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Its name.
    pub name: String,
    /// Addresses and prefixes.
    pub addresses: Vec<String>,
    /// Protocols and ports.
    pub services: Vec<String>,
    /// What a flow is.
    pub flow: String,
    /// Who gets a new one.
    pub selection: String,
    /// Who serves it.
    pub children: Vec<MemberRow>,
    /// Who gets the new flows of clients in each region, where it asks where they are; `children` are those of the others.
    #[serde(default)]
    pub regions: Vec<RegionRow>,
}

/// A virtual host's new flows from one region of clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RegionRow {
    /// Its name.
    pub name: String,
    /// Of each child its name, its cost for these clients, and the part of their new flows that it gets, from 0 to 1.
    pub children: Vec<(String, f64, f64)>,
}

/// A child in a virtual host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberRow {
    /// Its name.
    pub name: String,
    /// Weight in force; 0 while it is drained.
    pub weight: u16,
    /// Tier.
    pub tier: u8,
    /// Cost.
    pub cost: f64,
    /// Part of the new flows that it gets, from 0 to 1.
    pub share: f64,
    /// Flows that it was given.
    pub flows: u64,
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets as the clients sent them.
    pub bytes: u64,
    /// False while it does not work for this virtual host.
    pub up: bool,
}

/// A child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChildRow {
    /// Its name.
    pub name: String,
    /// Where its tunnels end.
    pub address: IpAddr,
    /// How packets get there.
    pub tunnel: String,
    /// Port that it is reached by.
    pub port: Option<String>,
    /// Neighbour that it is reached by.
    pub next_hop: Option<IpAddr>,
    /// What is known about that neighbour.
    pub neighbour: String,
    /// Longest IP packet on the way, with the tunnel's header.
    pub mtu: Option<u16>,
    /// Weight that an operator gave it instead of the configured ones.
    pub weight: Option<u16>,
    /// Whether an operator said that it gets no new flows.
    pub drained: bool,
    /// Virtual hosts that do not work on it.
    pub down: Vec<String>,
    /// Flows that it was given.
    pub flows: u64,
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets as the clients sent them.
    pub bytes: u64,
    /// What it says of itself, where it may.
    pub tells: Option<Tells>,
}

/// What a child says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tells {
    /// `connected`, `lost` (what it said last is still believed) or `silent`.
    pub state: String,
    /// Time since its last update.
    pub age_seconds: Option<f64>,
    /// Time to it and back.
    pub round_trip_seconds: Option<f64>,
    /// It wants no new flows.
    pub draining: bool,
    /// Virtual subnets in its last update that are in force.
    pub records: usize,
    /// Those that are not, as its certificate does not allow them.
    pub records_refused: u32,
    /// Time until its certificate ends.
    pub certificate_seconds: Option<f64>,
    /// Its virtual hosts, and what it says of each.
    pub hosts: Vec<TellsOf>,
}

/// What a child says of a virtual host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TellsOf {
    /// Name of the virtual host.
    pub name: String,
    /// `serving`, `draining`, `down`, or `not covered` where it does not speak of all of it.
    pub state: String,
    /// 1 where it does all that it can.
    pub load: Option<f64>,
    /// How much it can do, in the unit of weights.
    pub capacity: Option<u32>,
}

/// A router above.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParentRow {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// How far the session has come.
    pub state: String,
    /// Time to it and back.
    pub round_trip_seconds: Option<f64>,
    /// Updates sent.
    pub updates: u64,
    /// Updates acknowledged.
    pub acknowledged: u64,
    /// Connections that were tried.
    pub attempts: u64,
    /// Why it did not take us, or a part of what we said.
    pub refusal: Option<String>,
}

impl From<&ParentView> for ParentRow {
    fn from(view: &ParentView) -> ParentRow {
        ParentRow {
            name: view.name.clone(),
            address: view.address,
            state: view.stage.label().to_owned(),
            round_trip_seconds: view.round_trip.map(|time| time.as_secs_f64()),
            updates: view.counters.updates.get(),
            acknowledged: view.counters.acknowledged.get(),
            attempts: view.counters.attempts.get(),
            refusal: view.refusal.clone(),
        }
    }
}

/// How flows were found again that a worker did not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// How often each event has happened, in the order of their list.
    pub counts: Vec<(String, u64)>,
    /// What has come of it last, the latest first.
    pub last: Vec<RecoveryEvent>,
}

/// What has become of a flow that a worker did not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecoveryEvent {
    /// How long ago.
    pub age_seconds: f64,
    /// What.
    pub event: String,
    /// Its client.
    pub source: SocketAddr,
    /// Its virtual host.
    pub destination: SocketAddr,
    /// Its protocol's name, or number.
    pub protocol: String,
}

/// How a router stands to the other one of its pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// What it is.
    pub role: String,
    /// For how long.
    pub seconds: f64,
    /// Priority that counts; 0 while it must not be active.
    pub priority: u8,
    /// Priority of the configuration.
    pub configured_priority: u8,
    /// Whether an operator wants the other one to be active.
    pub stands_by: bool,
    /// What is missing of what the pair requires.
    pub missing: Vec<String>,
    /// The pair's addresses, each with its Ethernet address when this router is active.
    pub addresses: Vec<(IpAddr, String)>,
    /// The other router, by each way that it has been heard by.
    pub heard: Vec<PairHeard>,
    /// How far the two know each other's flows, where they tell each other.
    pub mirror: Option<PairMirror>,
}

/// How far the routers of a pair know each other's flows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairMirror {
    /// Whether all flows of the active router are here, or this is the one.
    pub synchronised: bool,
    /// Flows that this router has told, while it is active.
    pub flows: u64,
    /// Those without an answer yet, or still to be told.
    pub pending: u64,
    /// Age of the oldest of these.
    pub lag_seconds: f64,
}

/// What was heard last of the other router of a pair by one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairHeard {
    /// By which way.
    pub path: String,
    /// How long ago.
    pub age_seconds: f64,
    /// Who it is.
    pub from: IpAddr,
    /// Whether it is active.
    pub active: bool,
    /// Its priority.
    pub priority: u8,
}

/// A next hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourRow {
    /// Its address.
    pub address: IpAddr,
    /// Port that it is behind.
    pub port: String,
    /// What is known about it.
    pub state: String,
    /// Its Ethernet address, where that is known.
    pub mac: Option<String>,
}

/// The router's counters at one time: the difference of two is a rate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Counters {
    /// The router's name.
    pub name: String,
    /// All but the ports.
    #[serde(flatten)]
    pub report: Report,
    /// Each port by its name.
    pub ports: Vec<(String, PortStatistics)>,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowRow {
    /// IP protocol by name or number; `None` for all packets of a client prefix.
    pub protocol: Option<String>,
    /// Where its packets come from.
    pub source: String,
    /// Source port, where the flow has one.
    pub source_port: Option<u16>,
    /// Where they go; `None` for all packets of a client prefix.
    pub destination: Option<IpAddr>,
    /// Destination port, where the flow has one.
    pub destination_port: Option<u16>,
    /// Its virtual host; `None` once that is gone.
    pub virtual_host: Option<String>,
    /// Its child.
    pub child: Option<String>,
    /// Where its tunnel ends, when it goes past the child.
    #[serde(default)]
    pub shortcut: Option<IpAddr>,
    /// How far it has come.
    pub state: String,
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets as the client sent them.
    pub bytes: u64,
    /// Time since its first packet.
    pub age_seconds: f64,
    /// Time since its last packet.
    pub idle_seconds: f64,
    /// Worker that has it.
    pub worker: usize,
}

/// After the last flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsEnd {
    /// Flows that were listed.
    pub listed: u32,
    /// There were as many as may be listed: there may be more.
    pub more: bool,
}

/// Where a packet would go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// What would be looked at, in order, and what is found there.
    pub steps: Vec<Step>,
    /// `forwarded`, `punted` or `dropped`.
    pub outcome: String,
    /// Why, where it is not forwarded; a label of the metrics.
    pub reason: Option<String>,
    /// Its virtual host.
    pub virtual_host: Option<String>,
    /// Its child.
    pub child: Option<String>,
    /// Where its tunnel ends, when it goes past the child.
    #[serde(default)]
    pub shortcut: Option<IpAddr>,
    /// Worker that has its flow.
    pub worker: Option<usize>,
    /// Port that it would leave by.
    pub port: Option<String>,
    /// What would be put in front of it, in hexadecimal.
    pub header: Option<String>,
}

/// A step of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is looked at.
    pub step: String,
    /// What is found.
    pub found: String,
}

/// A part of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureItem {
    /// From now on.
    Started,
    /// A frame.
    Frame(CapturedFrame),
}

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedFrame {
    /// When it was received, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Port that it came in by.
    pub port: String,
    /// Bytes that it had.
    pub length: u32,
    /// Why it was dropped.
    pub dropped: Option<String>,
    /// Its first bytes, in hexadecimal.
    pub bytes: String,
}

/// After the last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureEnd {
    /// Frames that were handed out.
    pub frames: u64,
    /// Frames that would have been, had there been room.
    pub missed: u64,
}

/// Bytes in hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| DIGITS[usize::from(digit)] as char).collect()
}

/// The bytes that [`to_hex`] was given; `None` for what it did not make.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_from_hexadecimal() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        assert_eq!(to_hex(&[0x0a, 0xf0]), "0af0");
        assert_eq!([from_hex("0"), from_hex("0g"), from_hex("")], [None, None, Some(vec![])]);
    }
}
