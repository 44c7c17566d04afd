//! How a child and its parent keep a session: who may say what, how often, and how long it is believed.
//!
//! ```text
//!       ChildEnd, one for each parent                        ParentEnd, for all children
//!  connect ──────────────────────────────── carrier ────► Opened, with the certificate's Identity
//!  hello   ─────────────────────────────────────────────► name, level, prefixes, version: as in the certificate?
//!          ◄────────────────── welcome (interval, expiry), or refusal and close
//!  update  ──── every interval, a full snapshot ────────► every record within the certificate's prefixes?
//!          ◄──────────────────────────── acknowledgement
//!          ◄── probe ─────────────────── echo ──────────► round-trip time
//!  shortcut, revoke ────────────────────────────────────► as they are: see `control::shortcuts`
//!          ◄── keep
//! ```
//!
//! Both machines take bytes and give bytes, and read no clock. What they stand on (TLS over the kernel's sockets, a network
//! in memory) is a [`Carrier`]: it opens and closes sessions, and has checked the certificates' signatures.
//!
//! A child that is about to stop says `drain` before an update; who acknowledges that one gives it no new flows any more.
//!
//! A parent believes an update for its `expiry`, whatever becomes of the session; only a goodbye ends that at once. So a
//! session that breaks and comes back within that time changes nothing.

pub mod child;
pub mod parent;
pub mod parents;
pub mod report;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::clock::Instant;
pub use crate::trust::Identity;

/// A session among those of one carrier; no number comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What a carrier tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A session is open; the certificate's signature and time are right.
    Opened(SessionId, Identity),
    /// Bytes have come.
    Received(SessionId, Vec<u8>),
    /// A session, open or on its way, has ended, for what is said.
    Closed(SessionId, String),
    /// Somebody was turned away before there was a session.
    Rejected(String),
}

/// What carries sessions: the kernel's sockets, the router's own stack, or a simulated network.
pub trait Carrier {
    /// Where somebody to connect to is.
    type Address;

    /// Starts to connect; [`Happening::Opened`] or [`Happening::Closed`] will tell.
    fn connect(&mut self, to: &Self::Address) -> SessionId;

    /// Sends bytes. A session that does not take them is closed, which [`Happening::Closed`] tells.
    fn send(&mut self, session: SessionId, bytes: Vec<u8>);

    /// Closes a session after what has been sent. Nothing more is told about it.
    fn close(&mut self, session: SessionId);

    /// The next thing that has happened.
    fn poll(&mut self) -> Option<Happening>;
}

/// A carrier of no sessions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Carrier for Nobody {
    type Address = std::net::SocketAddr;

    fn connect(&mut self, _to: &Self::Address) -> SessionId {
        SessionId(0)
    }

    fn send(&mut self, _session: SessionId, _bytes: Vec<u8>) {}

    fn close(&mut self, _session: SessionId) {}

    fn poll(&mut self) -> Option<Happening> {
        None
    }
}

/// From one moment to the next, how many of something may come.
#[derive(Clone, Copy, Debug)]
struct Budget {
    per_second: u64,
    most: u64,
    left: u64,
    at: Instant,
}

impl Budget {
    /// `per_second` on average, `most` in one go.
    fn new(per_second: u64, most: u64) -> Budget {
        Budget { per_second, most, left: most, at: Instant::ZERO }
    }

    /// Whether `count` may come now; then they count as come.
    fn take(&mut self, now: Instant, count: u64) -> bool {
        let gained = (now - self.at).as_nanos() * u128::from(self.per_second) / 1_000_000_000;
        if gained > 0 {
            self.left = self.most.min(self.left.saturating_add(u64::try_from(gained).unwrap_or(u64::MAX)));
            self.at = now;
        }
        let allowed = count <= self.left;
        self.left = self.left.saturating_sub(count);
        allowed
    }
}

/// A time that is measured again and again: the last ones count most (RFC 6298 section 2 smooths alike).
#[derive(Clone, Copy, Debug, Default)]
struct Smoothed(Option<Duration>);

impl Smoothed {
    fn add(&mut self, sample: Duration) {
        self.0 = Some(self.0.map_or(sample, |before| before * 7 / 8 + sample / 8));
    }
}
