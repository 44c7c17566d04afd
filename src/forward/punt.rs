//! The ways between a worker and the slow path: bounded rings of copies. A packet's own memory never leaves its worker.
//!
//! ```text
//! worker ── PuntRing: frames that it cannot decide on ───────────────► slow path
//!        ◄── InjectRing: frames to send, and frames to walk again ────
//! ```

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::inspect::Key;
use super::verdict::PuntReason;
use crate::flow::state::FlowState;
use crate::units::{PortIndex, TargetId};

/// Longest frame that is copied whole; a longer one is cut.
pub const COPY_BYTES_MAX: usize = 2048;

/// A copy of a frame.
#[derive(Clone)]
pub struct Copied<R> {
    /// Port it came in by, or is to leave by.
    pub port: PortIndex,
    /// Why it is copied, or what is to be done with it.
    pub what: R,
    len: u16,
    bytes: [u8; COPY_BYTES_MAX],
}

/// Why a worker could not decide on a packet, and how far it had come with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Why.
    pub reason: PuntReason,
    /// What it was on the way to.
    pub target: Option<TargetId>,
    /// It came out of a tunnel: its copy starts with the IP header.
    pub bare: bool,
    /// Workers that do not know its flow, as far as they have been asked.
    pub strangers: u16,
}

impl From<PuntReason> for Cause {
    fn from(reason: PuntReason) -> Cause {
        Cause { reason, target: None, bare: reason == PuntReason::OwnAddressInTunnel, strangers: 0 }
    }
}

/// What a worker does with a frame of the slow path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Sends it by its port, as it is.
    Send,
    /// Carries it as if it had just come in by its port.
    Walk(Again),
    /// Makes a flow entry. There is no frame.
    Install(Install),
    /// Forgets all its flows. There is no frame.
    Forget,
}

/// What has come of asking others about a packet that is carried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// Workers that do not know the flow of its ICMP error, as far as they have been asked.
    pub strangers: u16,
    /// What becomes of it in the middle of a flow that this worker does not know.
    pub stray: Stray,
}

/// What becomes of a packet in the middle of a flow that this worker does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stray {
    /// The slow path is asked.
    #[default]
    Ask,
    /// Nobody knows the flow: it is given to a child, where the virtual host wants that.
    Keep,
    /// The flow is still asked for: the packet goes to a child by hash, where the virtual host wants that.
    Pass,
    /// The flow goes there, also where its entry has found no room.
    Goes(TargetId),
}

/// A flow entry to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Install {
    /// As the worker's table has it: coarse where the virtual host's flows are.
    pub key: Key,
    /// Where the flow's packets go.
    pub target: TargetId,
    /// How far the flow has come.
    pub state: FlowState,
    /// Whether it takes the place of a live entry; else a flow that is known stays where it is.
    pub replaces: bool,
}

/// A frame that a worker could not decide on.
pub type Punt = Copied<Cause>;

/// A frame of the slow path.
pub type Injection = Copied<Handling>;

impl<R> Copied<R> {
    /// A copy of `frame`, as far as it fits.
    pub fn new(port: PortIndex, what: R, frame: &[u8]) -> Copied<R> {
        let len = frame.len().min(COPY_BYTES_MAX);
        let mut bytes = [0; COPY_BYTES_MAX];
        bytes[..len].copy_from_slice(&frame[..len]);
        Copied { port, what, len: len as u16, bytes }
    }

    /// The frame, from its Ethernet header on.
    pub fn frame(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A worker's end and the slow path's end are the same; a full ring refuses, it never waits.
pub struct Ring<R>(Option<Arc<ArrayQueue<Copied<R>>>>);

/// From a worker to the slow path.
pub type PuntRing = Ring<Cause>;

/// From the slow path to a worker.
pub type InjectRing = Ring<Handling>;

impl<R> Clone for Ring<R> {
    fn clone(&self) -> Ring<R> {
        Ring(self.0.clone())
    }
}

impl<R> Ring<R> {
    /// A ring of `slots` frames, all allocated now.
    pub fn new(slots: usize) -> Ring<R> {
        Ring(Some(Arc::new(ArrayQueue::new(slots))))
    }

    /// A ring that nobody reads: it takes every frame and keeps none.
    pub fn discarding() -> Ring<R> {
        Ring(None)
    }

    /// Whether somebody reads it.
    pub fn is_read(&self) -> bool {
        self.0.is_some()
    }

    /// Adds a frame, or returns false when the ring is full. The copy is made only for a ring that keeps it.
    pub fn push(&self, copy: impl FnOnce() -> Copied<R>) -> bool {
        self.0.as_ref().is_none_or(|ring| ring.push(copy()).is_ok())
    }

    /// Takes the oldest frame.
    pub fn pop(&self) -> Option<Copied<R>> {
        self.0.as_ref()?.pop()
    }

    /// Frames in the ring; may be outdated at once.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |ring| ring.len())
    }

    /// True when every other slot at least is taken; may be outdated at once.
    pub fn is_half_full(&self) -> bool {
        self.0.as_ref().is_some_and(|ring| ring.len() * 2 >= ring.capacity())
    }

    /// True when it holds no frame; may be outdated at once.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|ring| ring.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_refuses_and_keeps_what_it_has() {
        let ring = PuntRing::new(2);
        let punt = |byte| Punt::new(PortIndex(0), PuntReason::Arp.into(), &[byte; 60]);
        assert!(ring.push(|| punt(1)) && ring.push(|| punt(2)));
        assert!(!ring.push(|| punt(3)));
        assert_eq!(ring.pop().map(|punt| punt.frame().to_vec()), Some(vec![1; 60]));
        assert!(ring.push(|| punt(4)));
        assert_eq!(ring.pop().map(|punt| punt.frame()[0]), Some(2));
        assert_eq!(ring.pop().map(|punt| punt.frame()[0]), Some(4));
        assert!(ring.pop().is_none());
    }

    #[test]
    fn a_long_frame_is_cut() {
        let punt = Punt::new(PortIndex(3), PuntReason::OwnAddress.into(), &[7; 9000]);
        assert_eq!(punt.frame(), &[7; COPY_BYTES_MAX]);
    }
}
