//! How checks of children reach them and the snapshot: through the paths of the clients' packets, and as conditions.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::SlowPath;
use crate::clock::Instant;
use crate::control::health::{Change, Command, Health, Input, Output, Record, RunId};
use crate::forward::punt::{Handling, Injection, Punt};
use crate::forward::tables::{ForwardTables, Path};
use crate::forward::verdict::PuntReason;
use crate::packet::buffer::{OwnedBuffer, PacketBuffer};
use crate::packet::ethernet;
use crate::packet::parse::parse_ip;
use crate::tunnel::template::{PerPacket, TTL};

/// What is counted about each check, to be read by anyone.
pub type Records = Arc<ArcSwap<Vec<Arc<Record>>>>;

/// What the checks of children want done and told outside.
#[derive(Debug, Default)]
pub struct HealthNews {
    /// Programs to run.
    pub commands: Vec<Command>,
    /// Children that are up or down now.
    pub changes: Vec<Change>,
}

impl SlowPath {
    /// The same, checking the children as `health` does. The snapshot that is published has been compiled with what this
    /// says is down.
    pub fn checking(mut self, health: Health) -> SlowPath {
        self.conditions.down = health.down().into_iter().collect();
        self.records.store(Arc::new(health.records()));
        self.health = Some(health);
        self
    }

    /// What is counted about each check; another configuration may bring others.
    pub fn records(&self) -> Records {
        self.records.clone()
    }

    /// What the checks have wanted done and told since this was asked last.
    pub fn take_health_news(&mut self) -> HealthNews {
        std::mem::take(&mut self.news)
    }

    /// Takes in how a command of a check has ended: well, or how.
    pub fn command_done(&mut self, now: Instant, run: RunId, result: Result<(), String>) {
        self.check(now, 0, Input::CommandDone(run, result));
    }

    /// The packet in a frame, where it is one for a check under way.
    pub(super) fn answer_to_check<'a>(&self, punt: &'a Punt) -> Option<&'a [u8]> {
        let packet = packet_for_us(punt)?;
        self.health.as_ref()?.takes(packet).then_some(packet)
    }

    /// Lets the checks whose time has come go on.
    pub(super) fn check_in_time(&mut self, now: Instant) {
        if self.health.as_ref().and_then(Health::next_deadline).is_some_and(|deadline| deadline <= now) {
            self.check(now, 0, Input::Tick);
        }
    }

    /// Lets the checks go on; what they send leaves by `worker`.
    pub(super) fn check(&mut self, now: Instant, worker: usize, input: Input<'_>) {
        let Some(health) = &mut self.health else { return };
        let outputs = health.handle(now, input);
        if outputs.is_empty() {
            return;
        }
        let tables = self.published.load();
        for output in outputs {
            match output {
                Output::Send { host, member, packet } => {
                    let check = carry(&tables, host, member, &packet);
                    // Without a path it is lost, as a client's packet would be.
                    if let (Some(worker), Some(check)) = (self.workers.get(worker), check) {
                        worker.send(check);
                    }
                }
                Output::Measured(child, time) => {
                    if let Some(hierarchy) = &mut self.hierarchy {
                        hierarchy.measured(child, time);
                    }
                }
                Output::Run(command) => self.news.commands.push(command),
                Output::Changed(change) => {
                    let (host, child) = (&change.virtual_host, &change.child);
                    match change.failure {
                        Some(_) => self.conditions.down.insert(host.clone(), child.clone()),
                        None => self.conditions.down.remove(host, child),
                    }
                    self.outdated.hosts.extend(self.config.virtual_hosts.iter().position(|known| known.name == *host));
                    self.news.changes.push(change);
                }
            }
        }
    }
}

/// A packet in the tunnel of a virtual host's child, to be sent; `None` while there is no way to it.
fn carry(tables: &ForwardTables, host: usize, member: usize, packet: &[u8]) -> Option<Injection> {
    let target = tables.virtual_hosts.get(host)?.members.get(member)?.target;
    let path = &tables.paths[tables.targets[target.index()].path()?.index()];
    // All packets of a check take one way where outer sources are spread.
    let flow_hash = tables.cluster.hash(&parse_ip(packet, packet.len()).ok()?.src_port().to_be_bytes());
    in_tunnel(path, flow_hash, packet)
}

/// The IP packet in a frame for one of our own addresses.
pub(super) fn packet_for_us(punt: &Punt) -> Option<&[u8]> {
    if !matches!(punt.what.reason, PuntReason::OwnAddress | PuntReason::OwnAddressInTunnel) {
        return None;
    }
    let frame = punt.frame();
    if punt.what.bare { Some(frame) } else { frame.get(ethernet::payload(frame).ok()?.1..) }
}

/// A packet with the header of a path in front, to be sent.
pub(super) fn in_tunnel(path: &Path, flow_hash: u64, packet: &[u8]) -> Option<Injection> {
    let parsed = parse_ip(packet, packet.len()).ok()?;
    let mut frame = OwnedBuffer::new(packet);
    path.template.encapsulate(&mut frame, &parsed, PerPacket { flow_hash, ttl: TTL, identification: 0 }).ok()?;
    Some(Injection::new(path.port, Handling::Send, frame.head()))
}
