//! What the benches carry: scenes, each a kind of packet over a number of flows, and a worker that knows them.
//!
//! Frames are written anew into the packets that have just left, [`BATCH`] at a time, and then carried burst by burst, which
//! alone is measured. Writing them is thus neither measured nor subtracted, and the frames come from the inner caches, as a
//! network card that writes into the cache would leave them. Transmission is a move of the pointers.

use std::marker::PhantomData;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use slr::clock::Instant;
use slr::flow::key::{FlowKey, KeyV4};
use slr::flow::memory::Memory;
use slr::flow::state::Timeouts;
use slr::flow::table::Table;
use slr::forward::counters::WorkerCounters;
use slr::forward::io::{BURST, Burst, PacketIo};
use slr::forward::pipeline::{FlowCapacity, Pipeline};
use slr::forward::punt::PuntRing;
use slr::forward::routes::ByPrefix;
use slr::forward::tables::{ForwardTables, Member, Path, Target, VirtualHost};
use slr::packet::buffer::PacketBuffer;
use slr::packet::checksum::checksum;
use slr::packet::plain;
use slr::service::filter::Filter;
use slr::service::lookup::VirtualHosts;
use slr::service::maglev::ClusterHash;
use slr::service::mss::MssClamp;
use slr::service::selection::{Candidate, Granularity, Policy, Selector, TableCache};
use slr::service::selections::{Selection, Selections};
use slr::tunnel::template::{Endpoints, Link, Template};
use slr::units::{GueVariant, MacAddr, PathId, PortIndex, TargetId, VirtualHostId, Weight, WorkerId};

/// Packets that are prepared together; a multiple of [`BURST`].
pub const BATCH: usize = 512;

/// New flows per round beside those that are known, as a share of them.
pub const NEW_SHARE: u32 = 4;

/// What the packets of a scene are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UDP over IPv4, of flows that are known.
    V4,
    /// TCP over IPv4, of flows that are known.
    Tcp,
    /// UDP over IPv6, of flows that are known.
    V6,
    /// The same as `V4`, out of a parent's tunnel.
    Decapsulate,
    /// The same as `V4`, each packet of a flow that is not known yet.
    New,
    /// The same, timed burst by burst.
    #[allow(dead_code)]
    Flood,
    /// The same, each packet one of [`CRAFTED`] keys that have the same few groups of slots, most of which are full.
    Colliding,
}

impl Kind {
    /// Whether its packets are of flows that are not known.
    pub fn is_new(self) -> bool {
        matches!(self, Kind::New | Kind::Flood | Kind::Colliding)
    }

    /// Whether each burst is timed, not each batch.
    pub fn is_by_burst(self) -> bool {
        matches!(self, Kind::Flood | Kind::Colliding)
    }
}

/// Keys of a flood that collide. Their hashes are the same in [`CRAFTED_BITS`] bits of either half, which leads to 1/32 of
/// the table's groups.
const CRAFTED: usize = 1 << 16;
const CRAFTED_BITS: u32 = 5;

/// The tunnels to the children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// IP in IP over IPv4.
    IpIp,
    /// IP in IP over IPv6.
    IpIp6,
    /// GUE, variant 0, over IPv4.
    Gue,
    /// GRE over IPv4.
    Gre,
}

/// Packets to carry.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// Its name on the command line and in results.
    pub name: &'static str,
    /// What the packets are.
    pub kind: Kind,
    /// How they leave.
    pub tunnel: Tunnel,
    /// Known flows.
    pub flows: u32,
}

impl Scene {
    /// The room that its flows need.
    pub fn capacity(&self) -> FlowCapacity {
        let new = if self.kind.is_new() { self.flows / NEW_SHARE + BATCH as u32 } else { 0 };
        let flows = self.flows + new;
        let (v4, v6) = if self.kind == Kind::V6 { (0, flows) } else { (flows, 0) };
        FlowCapacity { v4, v6, fragments: 0, seed: SEED }
    }
}

/// Writes the frames of numbered flows, 64 bytes on the wire for IPv4.
pub struct Frames {
    template: Vec<u8>,
    /// Of the IP header that differs from flow to flow.
    l3: usize,
    v4: bool,
}

impl Frames {
    /// Frames of this kind.
    pub fn new(kind: Kind) -> Frames {
        let v4 = kind != Kind::V6;
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9];
        frame.extend_from_slice(if v4 { &[0x08, 0x00] } else { &[0x86, 0xdd] });
        let ipv4 = |len: u8, protocol, source: [u8; 4], destination: [u8; 4]| {
            let mut header = [0x45, 0, 0, len, 0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            header[12..16].copy_from_slice(&source);
            header[16..].copy_from_slice(&destination);
            header
        };
        if kind == Kind::Decapsulate {
            let mut outer = ipv4(66, 4, [198, 51, 100, 254], [198, 51, 100, 1]);
            let sum = checksum(&outer);
            outer[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend_from_slice(&outer);
        }
        let l3 = frame.len();
        let (protocol, transport): (u8, &[u8]) = match kind {
            Kind::Tcp => (6, &[0, 0, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]),
            Kind::V6 => (17, &[0, 0, 1, 0xbb, 0, 8, 0, 0]),
            _ => (17, &[0, 0, 1, 0xbb, 0, 26, 0, 0]),
        };
        // As long as the shortest frame, without its checksum.
        let len = if v4 { 46 } else { 48 };
        if v4 {
            frame.extend_from_slice(&ipv4(len, protocol, [10, 0, 0, 0], [192, 0, 2, 4]));
        } else {
            frame.extend_from_slice(&[0x60, 0, 0, 0, 0, len - 40, protocol, 64]);
            frame.extend_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            frame.extend_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4]);
        }
        frame.extend_from_slice(transport);
        frame.resize(l3 + usize::from(len), 0x5a);
        Frames { template: frame, l3, v4 }
    }

    /// A frame of no flow in particular.
    pub fn any(&self) -> &[u8] {
        &self.template
    }

    /// The frame of flow `flow`.
    pub fn of(&mut self, flow: u32) -> &[u8] {
        let port = (1024 + flow % 60_000) as u16;
        let (source, transport) = if self.v4 { (12, 20) } else { (20, 40) };
        let ip = &mut self.template[self.l3..];
        let host = (flow & 0x00ff_ffff | if self.v4 { 10 << 24 } else { 0 }).to_be_bytes();
        ip[source..source + 4].copy_from_slice(&host);
        ip[transport..transport + 2].copy_from_slice(&port.to_be_bytes());
        if self.v4 {
            ip[10..12].fill(0);
            let sum = checksum(&ip[..20]);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        &self.template
    }
}

/// What is beneath a worker: where its flow tables lie, and what of the processor it uses.
pub trait Machine {
    /// Where flow tables lie.
    type Memory: Memory;

    /// A cycle counter.
    fn cycles() -> u64;
}

/// Keeps what it is given to send.
pub struct BenchIo<P, X> {
    sent: Vec<Burst<P>>,
    /// Room for those to come.
    spare: Vec<Burst<P>>,
    machine: PhantomData<X>,
}

impl<P: PacketBuffer, X: Machine> PacketIo for BenchIo<P, X> {
    type Packet = P;
    type Memory = X::Memory;

    fn ports(&self) -> u16 {
        1
    }

    fn rx_burst(&mut self, _port: PortIndex, _into: &mut Burst<P>) -> Instant {
        Instant::ZERO
    }

    fn tx_burst(&mut self, _port: PortIndex, packets: &mut Burst<P>) -> usize {
        self.sent.push(mem::take(packets));
        0
    }

    #[inline(always)]
    fn cycles() -> u64 {
        X::cycles()
    }
}

impl<P: PacketBuffer, X: Machine> BenchIo<P, X> {
    /// With a batch of packets to begin with; `None` where there are not so many.
    pub fn new(mut packet: impl FnMut() -> Option<P>) -> Option<BenchIo<P, X>> {
        let mut burst = || (0..BURST).map(|_| packet()).collect::<Option<Burst<P>>>();
        let sent = (0..BATCH / BURST).map(|_| burst()).collect::<Option<_>>()?;
        Some(BenchIo { sent, spare: Vec::with_capacity(BATCH / BURST), machine: PhantomData })
    }

    /// Takes bursts that have been carried, which are empty, to be filled again.
    pub fn give_back(&mut self, mut bursts: Vec<Burst<P>>) {
        bursts.clear();
        self.spare = bursts;
    }
}

/// What is measured. A function of its own, so that callgrind can find it.
#[inline(never)]
pub fn measured<P: PacketBuffer, X: Machine>(
    pipeline: &mut Pipeline<BenchIo<P, X>>,
    tables: &ForwardTables,
    io: &mut BenchIo<P, X>,
    now: Instant,
    bursts: &mut [Burst<P>],
) {
    for burst in bursts {
        pipeline.process(tables, io, PortIndex(0), now, burst);
    }
}

/// One scene with its own flow tables.
pub struct Stage<P: PacketBuffer, X: Machine> {
    /// What is carried.
    pub scene: Scene,
    /// Its frames.
    pub frames: Frames,
    /// What the worker has counted.
    pub counters: Arc<WorkerCounters>,
    pipeline: Pipeline<BenchIo<P, X>>,
    /// The snapshot.
    pub tables: ForwardTables,
    now: Instant,
    random: u64,
    /// The flows of a flood that collide.
    crafted: Vec<u32>,
}

impl<P: PacketBuffer, X: Machine> Stage<P, X> {
    /// A worker with room for the scene's flows, which knows none of them yet; `None` where there is no such memory.
    pub fn new(scene: Scene) -> Option<Stage<P, X>> {
        let tables = tables(scene.tunnel);
        let counters = Arc::new(WorkerCounters::new(tables.targets.len()));
        let pipeline = Pipeline::new((WorkerId(0), 1), 1, scene.capacity(), counters.clone(), PuntRing::new(1))?;
        let (frames, now) = (Frames::new(scene.kind), Instant::from_nanos(1_000_000_000));
        let random = 0x9e37_79b9_7f4a_7c15 ^ u64::from(scene.flows);
        let crafted = if scene.kind == Kind::Colliding { crafted(scene.flows) } else { Vec::new() };
        Some(Stage { scene, frames, counters, pipeline, tables, now, random, crafted })
    }

    /// Carries `packets` packets, in whole batches, whose flows `next` names; `cycles` is told what each batch took.
    pub fn pass(
        &mut self,
        io: &mut BenchIo<P, X>,
        packets: u32,
        cycles: &mut impl FnMut(u64),
        mut next: impl FnMut(&mut u64) -> u32,
    ) {
        for _ in 0..packets.div_ceil(BATCH as u32) {
            let mut bursts = self.prepare(io, &mut next);
            let timed = if self.scene.kind.is_by_burst() { 1 } else { bursts.len() };
            let share = (bursts.len() / timed) as u64;
            for bursts in bursts.chunks_mut(timed) {
                let start = X::cycles();
                measured(&mut self.pipeline, &self.tables, io, self.now, bursts);
                cycles((X::cycles() - start) * share);
            }
            io.give_back(bursts);
        }
    }

    /// Writes the next frames into the packets that have left.
    fn prepare(&mut self, io: &mut BenchIo<P, X>, mut next: impl FnMut(&mut u64) -> u32) -> Vec<Burst<P>> {
        let mut bursts = mem::replace(&mut io.sent, mem::take(&mut io.spare));
        for packet in bursts.iter_mut().flatten() {
            let frame = self.frames.of(next(&mut self.random));
            packet.trim_front(packet.head().len());
            let Some(head) = packet.prepend(frame.len()) else { unreachable!("a packet's end stays where it is") };
            head.copy_from_slice(frame);
        }
        bursts
    }

    /// Frames of known flows, for whoever carries them in another way.
    #[allow(dead_code)]
    pub fn prepare_known(&mut self, io: &mut BenchIo<P, X>) -> Vec<Burst<P>> {
        let flows = self.scene.flows;
        self.prepare(io, |random| pick(random, flows))
    }

    /// Makes every flow of the scene known.
    pub fn fill(&mut self, io: &mut BenchIo<P, X>) {
        let (mut flow, flows) = (0, self.scene.flows);
        for _ in 0..flows.div_ceil(BATCH as u32) {
            let mut bursts = self.prepare(io, |_| {
                flow += 1;
                (flow - 1) % flows
            });
            for burst in &mut bursts {
                self.pipeline.process(&self.tables, io, PortIndex(0), self.now, burst);
            }
            io.give_back(bursts);
        }
    }

    /// One round of about `packets` packets; `cycles` is told what each batch took, or would have where it is timed burst by
    /// burst.
    pub fn round(&mut self, io: &mut BenchIo<P, X>, packets: u32, cycles: &mut impl FnMut(u64)) {
        let flows = self.scene.flows;
        if !self.scene.kind.is_new() {
            return self.pass(io, packets, cycles, |random| pick(random, flows));
        }
        // Everything that is known runs out, and the flows that shall be known come again.
        self.now = self.now + Duration::from_secs(86_400);
        self.pipeline.age(&self.tables, self.now, usize::MAX);
        self.fill(io);
        let mut flow = self.scene.flows;
        let crafted = mem::take(&mut self.crafted);
        self.pass(io, self.scene.flows / NEW_SHARE, cycles, |random| {
            flow += 1;
            if crafted.is_empty() { flow - 1 } else { crafted[pick(random, crafted.len() as u32) as usize] }
        });
        self.crafted = crafted;
    }
}

/// Of the tables' hashes, so that what is measured repeats.
const SEED: Option<u64> = Some(7);

/// Flows from number `first` on whose keys collide in every table with the seed.
fn crafted(first: u32) -> Vec<u32> {
    let table = Table::<KeyV4>::new(1, SEED).expect("a little memory");
    let mut frames = Frames::new(Kind::Colliding);
    let collides = |flow: &u32| {
        let frame = frames.of(*flow);
        let hash =
            plain::read_frame(frame, frame.len()).map(|plain| table.hash(&KeyV4::of(frame, &plain.parsed)).bits());
        hash.is_some_and(|hash| (hash as u32) >> (32 - CRAFTED_BITS) == 0 && hash >> (64 - CRAFTED_BITS) == 0)
    };
    (first..).filter(collides).take(CRAFTED).collect()
}

/// One of `flows` flows.
fn pick(random: &mut u64, flows: u32) -> u32 {
    ((u64::from(draw(random)) * u64::from(flows)) >> 32) as u32
}

/// The next of a sequence of even numbers.
fn draw(state: &mut u64) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
}

/// A snapshot of one virtual host with four children behind the one port, as the slow path would compile it.
fn tables(tunnel: Tunnel) -> ForwardTables {
    const CHILDREN: [&str; 4] = ["a", "b", "c", "d"];
    let key = [7; 16];
    let weight = Weight::new(1).expect("1 is in the range of weights");
    let candidates = CHILDREN.map(|name| Candidate { name, weight, cost: 0.0, tier: 0, available: true });
    let selector = Selector::build(Policy::ConsistentHash, &candidates, 65_537, &mut TableCache::new(key));
    let any = [Filter::ANY];
    let addresses = ["192.0.2.4/32", "2001:db8:80::4/128"].map(|net| net.parse().expect("a prefix"));
    let index = VirtualHosts::new(addresses.map(|net| (net, any.as_slice(), VirtualHostId(0))));
    let member = |(child, name): (usize, &str)| Member {
        child: name.into(),
        address: IpAddr::from([203, 0, 113, child as u8]),
        target: TargetId(child as u32),
    };
    let host = VirtualHost {
        name: "service".into(),
        position: VirtualHostId(0),
        number: VirtualHostId(0),
        granularity: Granularity::FiveTuple,
        quic: None,
        on_unknown: None,
        mss_clamp: MssClamp::Off,
        members: CHILDREN.into_iter().enumerate().map(member).collect(),
    };
    let target = |child: usize| Target::new(VirtualHostId(0), Some(PathId(child as u32)));
    let link = Link { source: MacAddr([2, 0, 0, 0, 0, 1]), destination: MacAddr([2, 0, 0, 0, 0, 2]), vlan: None };
    let template = |child: usize| {
        let (source, destination) = (Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(203, 0, 113, child as u8));
        let v4 = Endpoints::V4 { source, spread_bits: 0, destination };
        let (source, destination) = (Ipv6Addr::from(1), Ipv6Addr::from(2 + child as u128));
        let v6 = Endpoints::V6 { source, spread_bits: 0, destination };
        match tunnel {
            Tunnel::IpIp => Template::ip_in_ip(v4, link, 1600),
            Tunnel::IpIp6 => Template::ip_in_ip(v6, link, 1600),
            Tunnel::Gue => Template::gue(v4, 6080, GueVariant::Header, link, 1600),
            Tunnel::Gre => Template::gre(v4, link, 1600),
        }
    };
    let own = ["198.51.100.1", "2001:db8:1::1"].map(|address| address.parse::<IpAddr>().expect("an address"));
    ForwardTables {
        own: own.into_iter().collect(),
        parents: ["198.51.100.254/32".parse().expect("a prefix")].into_iter().collect(),
        gue_port: 6080,
        tunnel_sources: Vec::new(),
        index: Arc::new(index),
        virtual_hosts: [host].into(),
        selections: Selections::new(vec![Selection {
            selector,
            takes_new: [true; CHILDREN.len()].into(),
            by_region: None,
        }]),
        targets: (0..CHILDREN.len()).map(target).collect(),
        paths: (0..CHILDREN.len()).map(|child| Path { port: PortIndex(0), template: template(child) }).collect(),
        routes: None,
        echo: Arc::new(ByPrefix::default()),
        regions: Arc::default(),
        cluster: ClusterHash::new(&key),
        timeouts: Timeouts::new(|_| 3_600_000),
        inserts_per_second: u32::MAX,
        asks_elsewhere: false,
        takes_recovery_echoes: false,
        tells_new_flows: true,
        shortcuts: Arc::new([]),
        capture: None,
        stations: None,
    }
}
