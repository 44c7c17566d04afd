//! A burst while somebody watches: copies of the frames that are wanted, taken before anything happens to them.

use super::capture::Capture;
use super::io::{Burst, PacketIo};
use super::pipeline::Pipeline;
use super::tables::ForwardTables;
use super::verdict::DropReason;
use crate::clock::Instant;
use crate::packet::buffer::PacketBuffer;
use crate::units::PortIndex;

impl<I: PacketIo> Pipeline<I> {
    /// Carries a burst as ever, for a capture that is under way.
    #[cold]
    #[inline(never)]
    pub(super) fn carry_watched(
        &mut self,
        capture: &Capture,
        tables: &ForwardTables,
        io: &mut I,
        port: PortIndex,
        now: Instant,
        burst: &mut Burst<I::Packet>,
    ) {
        let copy = |packet: &I::Packet| capture.copy(port, now, packet.head(), packet.frame_len());
        if !capture.drops() {
            burst.iter().filter_map(copy).for_each(|frame| capture.keep(self.worker, frame));
            return self.carry_burst(tables, io, port, now, burst);
        }
        // One by one: what has been counted tells why a packet was dropped, wherever that was.
        for packet in burst.drain(..) {
            let copied = copy(&packet);
            let (before, drops) = (self.counters.packets(), self.counters.drops());
            self.carry_burst(tables, io, port, now, &mut Burst::from_iter([packet]));
            let after = self.counters.packets();
            // Else it lives, and those that were dropped are fragments that had waited for it.
            let lives =
                (after.forwarded, after.punted) != (before.forwarded, before.punted) || after.held > before.held;
            let mut moved = DropReason::all().zip(drops.into_iter().zip(self.counters.drops()));
            if let (false, Some(mut frame)) = (lives, copied) {
                frame.what.dropped = moved.find(|(_, (before, after))| before != after).map(|(reason, _)| reason);
                capture.keep(self.worker, frame);
            }
        }
    }
}
