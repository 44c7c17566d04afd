//! The same packets and the same tunnel headers, with DPDK's hash table in the place of the flow table: no time-outs, no
//! TCP states, no virtual hosts.

use std::mem;

use slr::dpdk::{BULK_MAX, Mbuf, RteHash, tsc};
use slr::flow::key::{FlowKey, KeyV4};
use slr::forward::io::{BURST, Burst, PacketIo};
use slr::packet::buffer::PacketBuffer;
use slr::packet::parse::Parsed;
use slr::packet::plain;
use slr::tunnel::template::{PerPacket, TTL};
use slr::units::{PortIndex, TargetId};

use super::Here;
use super::scenes::{BATCH, BenchIo, Stage};

/// A scene with DPDK's table.
pub struct Reference {
    /// Writes the frames; its own flow table stays empty.
    pub stage: Stage<Mbuf, Here>,
    flows: RteHash<[u64; 2]>,
}

impl Reference {
    /// The scene's flows in a table; `None` where there is no memory for them.
    pub fn new(mut stage: Stage<Mbuf, Here>) -> Option<Reference> {
        let count = stage.scene.flows;
        let mut flows = RteHash::new(stage.scene.name, count + count / 8)?;
        for flow in 0..count {
            let frame = stage.frames.of(flow);
            let plain = plain::read_frame(frame, frame.len())?;
            if !flows.insert(&KeyV4::words_of(frame, &plain.parsed), flow % 4) {
                return None;
            }
        }
        Some(Reference { stage, flows })
    }

    /// One round of about `packets` packets; `cycles` is told what each batch took.
    pub fn round(&mut self, io: &mut BenchIo<Mbuf, Here>, packets: u32, cycles: &mut impl FnMut(u64)) {
        for _ in 0..packets.div_ceil(BATCH as u32) {
            let mut bursts = self.stage.prepare_known(io);
            let start = tsc::now();
            self.carry(io, &mut bursts);
            cycles(tsc::now() - start);
            io.give_back(bursts);
        }
    }

    #[inline(never)]
    fn carry(&mut self, io: &mut BenchIo<Mbuf, Here>, bursts: &mut [Burst<Mbuf>]) {
        for burst in bursts {
            self.carry_burst(io, burst);
        }
    }

    fn carry_burst(&self, io: &mut BenchIo<Mbuf, Here>, burst: &mut Burst<Mbuf>) {
        let mut keys = [[0; 2]; BURST];
        let mut found: [Option<Parsed>; BURST] = [None; BURST];
        for ((packet, key), found) in burst.iter().zip(&mut keys).zip(&mut found) {
            let head = packet.head();
            *found = plain::read_frame(head, packet.frame_len()).map(|plain| plain.parsed);
            if let Some(parsed) = found {
                *key = KeyV4::words_of(head, parsed);
            }
        }
        let mut numbers = [0; BULK_MAX];
        let hits = self.flows.look_up(&keys[..burst.len()], &mut numbers);
        for (place, packet) in burst.iter_mut().enumerate() {
            let (Some(parsed), true) = (found[place], hits >> place & 1 != 0) else {
                unreachable!("every flow is known")
            };
            let path = &self.stage.tables.paths[numbers[place] % 4];
            let per = PerPacket { flow_hash: 0, ttl: TTL, identification: 0 };
            if path.template.encapsulate(packet, &parsed, per).is_err() {
                unreachable!("the header fits");
            }
            let counters = self.stage.counters.target(TargetId(numbers[place] as u32 % 4));
            counters.packets.add(1);
            counters.bytes.add(u64::from(parsed.l3_len));
        }
        io.tx_burst(PortIndex(0), &mut mem::take(burst));
    }
}
