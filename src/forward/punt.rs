//! The way from a worker to the slow path: a bounded ring of copies. A packet's own memory never leaves its worker.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::verdict::PuntReason;
use crate::units::PortIndex;

/// Longest frame that is copied whole; a longer one is cut.
pub const PUNT_BYTES_MAX: usize = 2048;

/// A copy of a frame that a worker could not decide on.
#[derive(Clone)]
pub struct Punt {
    /// Port it came in by.
    pub port: PortIndex,
    /// Why it was punted.
    pub reason: PuntReason,
    len: u16,
    bytes: [u8; PUNT_BYTES_MAX],
}

impl Punt {
    /// A copy of `frame`, as far as it fits.
    pub fn new(port: PortIndex, reason: PuntReason, frame: &[u8]) -> Punt {
        let len = frame.len().min(PUNT_BYTES_MAX);
        let mut bytes = [0; PUNT_BYTES_MAX];
        bytes[..len].copy_from_slice(&frame[..len]);
        Punt { port, reason, len: len as u16, bytes }
    }

    /// The frame, from its Ethernet header on.
    pub fn frame(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A worker's end and the slow path's end are the same; a full ring refuses, it never waits.
#[derive(Clone)]
pub struct PuntRing(Arc<ArrayQueue<Punt>>);

impl PuntRing {
    /// A ring of `slots` frames, all allocated now.
    pub fn new(slots: usize) -> PuntRing {
        PuntRing(Arc::new(ArrayQueue::new(slots)))
    }

    /// Adds a frame, or returns false when the ring is full.
    pub fn push(&self, punt: Punt) -> bool {
        self.0.push(punt).is_ok()
    }

    /// Takes the oldest frame.
    pub fn pop(&self) -> Option<Punt> {
        self.0.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_refuses_and_keeps_what_it_has() {
        let ring = PuntRing::new(2);
        let punt = |byte| Punt::new(PortIndex(0), PuntReason::Arp, &[byte; 60]);
        assert!(ring.push(punt(1)) && ring.push(punt(2)));
        assert!(!ring.push(punt(3)));
        assert_eq!(ring.pop().map(|punt| punt.frame().to_vec()), Some(vec![1; 60]));
        assert!(ring.push(punt(4)));
        assert_eq!(ring.pop().map(|punt| punt.frame()[0]), Some(2));
        assert_eq!(ring.pop().map(|punt| punt.frame()[0]), Some(4));
        assert!(ring.pop().is_none());
    }

    #[test]
    fn a_long_frame_is_cut() {
        let punt = Punt::new(PortIndex(3), PuntReason::OwnAddress, &[7; 9000]);
        assert_eq!(punt.frame(), &[7; PUNT_BYTES_MAX]);
    }
}
