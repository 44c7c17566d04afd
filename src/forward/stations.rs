//! Which frames are for this router on a port that gets those of other stations, too.
//!
//! That is so where the addresses of a pair have an Ethernet address of their own: both routers see its frames, and the
//! active one alone carries them.

use super::io::{Burst, PacketIo};
use super::pipeline::Pipeline;
use super::verdict::Refusal;
use crate::packet::buffer::PacketBuffer;
use crate::units::{MacAddr, PortIndex};

/// Who a router is on such a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stations {
    /// The port.
    pub port: PortIndex,
    /// Ethernet addresses that are this router's now.
    pub own: Vec<MacAddr>,
}

impl Stations {
    /// Whether a frame is for this router, or for a group.
    fn take(&self, frame: &[u8]) -> bool {
        match frame.first_chunk::<6>() {
            Some(to) => to[0] & 1 == 1 || self.own.iter().any(|own| own.0 == *to),
            // That is for the parser to say.
            None => true,
        }
    }
}

impl<I: PacketIo> Pipeline<I> {
    /// Drops the frames of a burst that are for other stations.
    #[cold]
    #[inline(never)]
    pub(super) fn leave_out(&self, stations: &Stations, port: PortIndex, burst: &mut Burst<I::Packet>) {
        if stations.port != port {
            return;
        }
        let before = burst.len();
        burst.retain(|packet| stations.take(packet.head()));
        let left_out = (before - burst.len()) as u64;
        self.counters().received.add(left_out);
        self.counters().dropped(Refusal::OtherStation.into()).add(left_out);
    }
}
