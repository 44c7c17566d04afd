//! Copies of received frames for somebody who watches: which, how much of each, and for frames that were dropped, why.
//!
//! ```text
//! slow path ── Capture, in the snapshot ──► workers
//!           ◄── one ring a worker: frames that the program takes; what finds no room is counted as missed
//! ```
//!
//! Without a capture a burst costs one look at the snapshot. A frame is copied as it was received, before a tunnel is taken
//! off or put on. A fragment that is held and dropped later is not among the drops.

use super::bpf::Program;
use super::counters::Counter;
use super::punt::{Copied, Ring};
use super::verdict::DropReason;
use crate::clock::Instant;
use crate::units::{PortIndex, WorkerId};

/// Frames that one worker's ring holds.
const SLOTS: usize = 512;

/// What is known of a copied frame beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When it was received.
    pub at: Instant,
    /// Bytes that it had, however many were copied.
    pub frame_len: u32,
    /// Why it was dropped, where it was.
    pub dropped: Option<DropReason>,
}

/// A copied frame.
pub type SeenFrame = Copied<Seen>;

/// A capture under way.
pub struct Capture {
    program: Program,
    drops: bool,
    snap_len: u16,
    workers: Box<[Share]>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").field("drops", &self.drops).field("snap_len", &self.snap_len).finish_non_exhaustive()
    }
}

/// One worker's part of a capture.
struct Share {
    ring: Ring<Seen>,
    missed: Counter,
}

impl Capture {
    /// A capture by `workers` workers of the first `snap_len` bytes of each frame that `program` takes; with `drops`, of
    /// those among them that are dropped.
    pub fn new(program: Program, drops: bool, snap_len: u16, workers: usize) -> Capture {
        let share = |_| Share { ring: Ring::new(SLOTS), missed: Counter::default() };
        Capture { program, drops, snap_len, workers: (0..workers).map(share).collect() }
    }

    /// Whether only frames that are dropped are wanted.
    pub fn drops(&self) -> bool {
        self.drops
    }

    /// A copy of a frame that is wanted, as far as can be said before its fate is known.
    pub fn copy(&self, port: PortIndex, at: Instant, head: &[u8], frame_len: usize) -> Option<SeenFrame> {
        let frame_len = u32::try_from(frame_len).unwrap_or(u32::MAX);
        let wanted = self.program.takes(head, frame_len);
        let snap = head.len().min(usize::from(self.snap_len));
        wanted.then(|| Copied::new(port, Seen { at, frame_len, dropped: None }, &head[..snap]))
    }

    /// Hands a copy over.
    pub fn keep(&self, worker: WorkerId, frame: SeenFrame) {
        if let Some(share) = self.workers.get(worker.index())
            && !share.ring.push(|| frame)
        {
            share.missed.add(1);
        }
    }

    /// Takes the oldest frame of some worker.
    pub fn pop(&self) -> Option<SeenFrame> {
        self.workers.iter().find_map(|share| share.ring.pop())
    }

    /// Frames that were wanted and found no room.
    pub fn missed(&self) -> u64 {
        self.workers.iter().map(|share| share.missed.get()).sum()
    }
}
