//! The capture under way: its frames on their way from the workers to whoever asked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::Instant;
use crate::control::slow_path::SlowPath;
use crate::ctl::request::CaptureRequest;
use crate::ctl::response::{CaptureEnd, CaptureItem, CapturedFrame, to_hex};
use crate::ctl::socket::Outbox;
use crate::forward::bpf::{Instruction, Program};
use crate::forward::capture::{Capture, SeenFrame};
use crate::forward::punt::COPY_BYTES_MAX;

use super::{Now, rows};

/// Frames that are handed on in a pass.
const FRAMES_PER_PASS: usize = 512;

/// At most one capture is under way.
#[derive(Default)]
pub struct Captures(Option<UnderWay>);

struct UnderWay {
    capture: Arc<Capture>,
    to: Outbox,
    /// A time by both clocks, by which frames are dated.
    start: Now,
    ends_at: Option<Instant>,
    left: Option<u64>,
    frames: u64,
    /// The workers have been told to stop; what is in the rings is still handed on.
    ending: bool,
}

impl Captures {
    /// Starts a capture by `workers` workers for `to`, or tells it why not.
    pub fn start(&mut self, request: &CaptureRequest, router: &mut SlowPath, now: Now, workers: usize, to: Outbox) {
        match self.check(request) {
            Ok(program) => {
                let capture = Arc::new(Capture::new(program, request.drops, request.snap_len, workers));
                router.capture(Some(capture.clone()), now.instant);
                to.item(&CaptureItem::Started);
                let ends_at = request.seconds.map(|seconds| now.instant + Duration::from_secs(seconds));
                let (left, frames, ending) = (request.count, 0, false);
                self.0 = Some(UnderWay { capture, to, start: now, ends_at, left, frames, ending });
            }
            Err(why) => to.finish(Err::<(), _>(why)),
        }
    }

    fn check(&self, request: &CaptureRequest) -> Result<Program, String> {
        if self.0.is_some() {
            return Err("a capture is under way; end it before you start another".into());
        }
        if !(1..=COPY_BYTES_MAX).contains(&usize::from(request.snap_len)) {
            return Err(format!("{} bytes a frame are not possible; ask for 1 to {COPY_BYTES_MAX}", request.snap_len));
        }
        let instruction = |&(code, jt, jf, k): &(u16, u8, u8, u32)| Instruction { code, jt, jf, k };
        let program: Vec<Instruction> = request.program.iter().map(instruction).collect();
        Program::new(&program).map_err(|error| error.to_string())
    }

    /// Hands on what the workers have captured, and ends the capture when it is time.
    pub fn pass(&mut self, router: &mut SlowPath, now: Instant) {
        let Some(under_way) = &mut self.0 else { return };
        let was_ending = under_way.ending;
        let full = under_way.hand_on(router);
        let over = under_way.left == Some(0) || under_way.ends_at.is_some_and(|end| end <= now);
        if !was_ending && (over || under_way.to.is_ended()) {
            router.capture(None, now);
            under_way.ending = true;
        } else if was_ending
            && !full
            && let Some(UnderWay { capture, to, frames, .. }) = self.0.take()
        {
            // By now the workers have taken the snapshot without it, and what they had copied is out.
            to.finish(Ok(CaptureEnd { frames, missed: capture.missed() }));
        }
    }
}

impl UnderWay {
    /// Hands on as many frames as there is room for, the oldest first. True when there may be more.
    fn hand_on(&mut self, router: &SlowPath) -> bool {
        let mut frames: Vec<SeenFrame> = Vec::new();
        let closed = self.to.is_closed();
        let most =
            self.left.map_or(FRAMES_PER_PASS, |left| FRAMES_PER_PASS.min(usize::try_from(left).unwrap_or(usize::MAX)));
        let room = if closed { 0 } else { self.to.room().min(most) };
        frames.extend((0..room).map_while(|_| self.capture.pop()));
        frames.sort_by_key(|frame| frame.what.at);
        for frame in &frames {
            let frame = CapturedFrame {
                time_ns: self.time_of(frame.what.at),
                port: rows::port(router.config(), frame.port),
                length: frame.what.frame_len,
                dropped: frame.what.dropped.map(|reason| reason.label().to_owned()),
                bytes: to_hex(frame.frame()),
            };
            self.to.item(&CaptureItem::Frame(frame));
        }
        self.frames += frames.len() as u64;
        self.left = self.left.map(|left| left - frames.len() as u64);
        !closed && self.left != Some(0) && frames.len() == room
    }

    /// Nanoseconds since 1970.
    fn time_of(&self, at: Instant) -> u64 {
        let start = self.start.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time = (start + (at - self.start.instant)).saturating_sub(self.start.instant - at);
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
    }
}
