//! What two levels of the hierarchy say to each other: bytes to messages and back, and what the bytes may be at all.
//!
//! The carrier is a stream that keeps bytes whole and in order and has settled who is at the other end (TLS 1.3 with
//! certificates on both sides). All numbers are big-endian. Every message starts with four bytes:
//!
//! ```text
//!  0        1                     4
//! ┌────────┬─────────────────────┬──────────────────────┐
//! │  kind  │ length of the body  │ body                 │
//! └────────┴─────────────────────┴──────────────────────┘
//! ```
//!
//! | kind | from   | message           | body                                                                           |
//! |-----:|--------|-------------------|--------------------------------------------------------------------------------|
//! |    1 | child  | [`Hello`]         | newest and oldest version (1 each), level (1), zero (1), capabilities (4), name, tunnels, offers |
//! |    2 | child  | [`Update`]        | sequence (8), child's clock (8), bytes of a record (2), records (4), the records |
//! |    3 | child  | drain             | 1: no new flows any more, 0: as before (1)                                     |
//! |    4 | both   | goodbye           | text                                                                           |
//! |    5 | child  | echo              | token (8), as it was in the probe                                              |
//! |    6 | child  | [`Shortcut`]s     | bytes of one (2), count (2), as many                                           |
//! |    7 | child  | revoke            | count (2), as many tunnels                                                     |
//! |   65 | parent | [`Welcome`]       | version (1), level (1), zero (2), interval in ms (4), expiry in ms (4), wall clock (8), name |
//! |   66 | parent | [`Acknowledgement`] | sequence (8), child's clock as in the update (8), wall clock (8), taken (4), refused (4) |
//! |   67 | parent | [`Refusal`]       | reason (1), text                                                               |
//! |   68 | parent | probe             | token (8)                                                                      |
//! |   69 | parent | keep              | bytes of one (2), count (2), as many [`Kept`]                                  |
//!
//! Names and texts are a length (1) and as many bytes of UTF-8. `tunnels` is a count (1) and as many of kind (1), family
//! (1, 4 or 6), UDP port (2) and address (16, IPv4 in the first four). `offers` is a count (2) and as many of family (1),
//! prefix length (1) and address (16). The child's clock is in nanoseconds of its own origin; the wall clock is in
//! milliseconds since 1970. A record is described at [`Record`], flows and shortcuts at [`Shortcut`] and [`Kept`].
//!
//! How versions talk: the child says which it speaks, the parent welcomes it in the newest that both do. Within a version
//! a body, a tunnel list excepted, and a record may grow at their ends: what is behind the known part is skipped. A kind
//! that is not known is skipped by its length. Kinds from 128 on are for experiments.

mod bytes;
mod inbox;
mod record;
mod shortcut;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

pub use bytes::WireError;
use bytes::{Reading, Writing};
pub use inbox::Inbox;
pub use record::{Load, Record, State};
pub use shortcut::{Kept, Shortcut};

pub use crate::clock::WallClock;
use crate::units::labelled;

/// The newest version of the protocol that is spoken here, and the oldest.
pub const VERSION: u8 = 1;
/// See [`VERSION`].
pub const VERSION_MIN: u8 = 1;

/// Bytes before a body.
pub const HEADER: usize = 4;

/// Longest body of a snapshot: more than 100,000 virtual subnets.
pub const UPDATE_MAX: usize = 8 << 20;

/// Longest body of any other message.
pub const BODY_MAX: usize = 128 << 10;

/// Records of a snapshot at most.
pub const RECORDS_MAX: usize = 1 << 17;

/// Prefixes that a hello offers at most.
pub const OFFERS_MAX: usize = 4096;

/// Flows or tunnels that a message about shortcuts has at most.
pub const SHORTCUTS_MAX: usize = 1024;

/// Capability: it tells its parents where the flows go that they send it, and takes keep.
pub const TELLS_SHORTCUTS: u32 = 1;

/// Longest name or text, in bytes.
pub const TEXT_MAX: usize = 255;

/// Number of a snapshot within its session, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// A time of the sender's own clock, in nanoseconds, that only it can read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Token(pub u64);

/// A way in which a child takes packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelEnd {
    /// 1 IP in IP, 2 GUE, 3 GRE, 4 GUE of variant 1; others are for later versions.
    pub kind: u8,
    /// UDP port, where the kind has one.
    pub port: u16,
    /// Where it ends.
    pub address: IpAddr,
}

/// What a child says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Newest version that it speaks.
    pub version: u8,
    /// Oldest version that it speaks.
    pub version_min: u8,
    /// Its level; 0 is a host server.
    pub level: u8,
    /// What it can do beside the version's own: [`TELLS_SHORTCUTS`]; the other bits have no meaning yet.
    pub capabilities: u32,
    /// Its name, as in its certificate.
    pub name: String,
    /// Where its tunnels end.
    pub tunnels: Vec<TunnelEnd>,
    /// The prefixes that its virtual subnets lie in.
    pub offers: Vec<IpNet>,
}

/// All that a child knows of its virtual subnets, each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Rises by one from snapshot to snapshot.
    pub sequence: Sequence,
    /// When it was sent.
    pub sent: Token,
    /// One for each virtual subnet.
    pub records: Vec<Record>,
}

/// What a parent says to a hello that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version that is spoken from here on.
    pub version: u8,
    /// The parent's level.
    pub level: u8,
    /// From one update to the next.
    pub interval: Duration,
    /// How long an update is believed.
    pub expiry: Duration,
    /// The parent's calendar.
    pub wall: WallClock,
    /// The parent's name.
    pub name: String,
}

/// What a parent says to an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// That of the update.
    pub sequence: Sequence,
    /// That of the update.
    pub sent: Token,
    /// The parent's calendar.
    pub wall: WallClock,
    /// Records that are in force.
    pub taken: u32,
    /// Records that are not; a [`Refusal`] has told why.
    pub refused: u32,
}

labelled! {
    /// Why a parent does not take a child, or what it says.
    Reason {
        /// The certificate is of no child of this parent.
        UnknownChild => "unknown_child",
        /// The certificate is not (or no longer) valid, or says nothing of slr.
        Certificate => "certificate",
        /// Another name or level than in the certificate.
        NotItself => "not_itself",
        /// The level is not below the parent's: packets could go round in circles.
        Level => "level",
        /// A prefix that the certificate does not allow.
        Prefix => "prefix",
        /// No version in common.
        Version => "version",
        /// Bytes that are no message, or a message out of turn.
        Malformed => "malformed",
        /// Too many bytes or messages in a time.
        TooFast => "too_fast",
        /// A message, or the first one, that took too long.
        TooSlow => "too_slow",
        /// Too many sessions or records.
        TooMany => "too_many",
        /// A newer session of the same child.
        Replaced => "replaced",
    }
}

/// Why a child, or a part of what it says, is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason; `None` for one of a later version.
    pub reason: Option<Reason>,
    /// What it is about, in a sentence.
    pub text: String,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Update`].
    Update(Update),
    /// The child wants no new flows, or (false) as many as before.
    Drain(bool),
    /// The session ends because its sender wants to, for what is said.
    Goodbye(String),
    /// The answer to a probe.
    Echo(Token),
    /// Flows that the parent has sent may go straight to where the child sends them.
    Shortcuts(Vec<Shortcut>),
    /// No flow may go there any more but by the child.
    Revoke(Vec<TunnelEnd>),
    /// See [`Welcome`].
    Welcome(Welcome),
    /// See [`Acknowledgement`].
    Acknowledgement(Acknowledgement),
    /// See [`Refusal`].
    Refusal(Refusal),
    /// To be answered at once: how long that takes is the distance.
    Probe(Token),
    /// Flows that go past the child are still there.
    Keep(Vec<Kept>),
}

const HELLO: u8 = 1;
const UPDATE: u8 = 2;
const DRAIN: u8 = 3;
const GOODBYE: u8 = 4;
const ECHO: u8 = 5;
const SHORTCUTS: u8 = 6;
const REVOKE: u8 = 7;
const WELCOME: u8 = 65;
const ACKNOWLEDGEMENT: u8 = 66;
const REFUSAL: u8 = 67;
const PROBE: u8 = 68;
const KEEP: u8 = 69;

/// Longest body of a kind.
const fn body_max(kind: u8) -> usize {
    if kind == UPDATE { UPDATE_MAX } else { BODY_MAX }
}

impl Message {
    /// The whole message. What is beyond the limits of this module is left out at the end of its list or text.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Message::Hello(hello) => Writing::of(HELLO, |body| {
                body.u8(hello.version).u8(hello.version_min).u8(hello.level).u8(0).u32(hello.capabilities);
                body.text(&hello.name);
                let tunnels = &hello.tunnels[..hello.tunnels.len().min(usize::from(u8::MAX))];
                body.u8(tunnels.len() as u8);
                tunnels.iter().for_each(|end| body.tunnel(end));
                let offers = &hello.offers[..hello.offers.len().min(OFFERS_MAX)];
                body.u16(offers.len() as u16);
                offers.iter().for_each(|net| body.prefix(*net));
            }),
            Message::Update(update) => Writing::of(UPDATE, |body| {
                let records = &update.records[..update.records.len().min(RECORDS_MAX)];
                body.u64(update.sequence.0).u64(update.sent.0).u16(Record::BYTES as u16).u32(records.len() as u32);
                records.iter().for_each(|record| record.write(body));
            }),
            Message::Drain(drained) => Writing::of(DRAIN, |body| {
                body.u8((*drained).into());
            }),
            Message::Goodbye(text) => Writing::of(GOODBYE, |body| body.text(text)),
            Message::Echo(token) => token_only(ECHO, *token),
            Message::Welcome(welcome) => Writing::of(WELCOME, |body| {
                body.u8(welcome.version).u8(welcome.level).u16(0);
                body.u32(millis(welcome.interval)).u32(millis(welcome.expiry)).u64(welcome.wall.0);
                body.text(&welcome.name);
            }),
            Message::Acknowledgement(Acknowledgement { sequence, sent, wall, taken, refused }) => {
                Writing::of(ACKNOWLEDGEMENT, |body| {
                    body.u64(sequence.0).u64(sent.0).u64(wall.0).u32(*taken).u32(*refused);
                })
            }
            Message::Refusal(refusal) => Writing::of(REFUSAL, |body| {
                body.u8(refusal.reason.map_or(u8::MAX, |reason| reason as u8)).text(&refusal.text);
            }),
            Message::Probe(token) => token_only(PROBE, *token),
            Message::Shortcuts(shortcuts) => Writing::of(SHORTCUTS, |body| {
                body.list(Shortcut::BYTES, shortcuts, |body, shortcut| shortcut.write(body));
            }),
            Message::Revoke(ends) => Writing::of(REVOKE, |body| {
                let ends = &ends[..ends.len().min(SHORTCUTS_MAX)];
                body.u16(ends.len() as u16);
                ends.iter().for_each(|end| body.tunnel(end));
            }),
            Message::Keep(flows) => Writing::of(KEEP, |body| {
                body.list(Kept::BYTES, flows, |body, flow| flow.write(body));
            }),
        }
    }

    /// The message of a kind with this body; `None` where the kind is not known here.
    ///
    /// # Errors
    /// The body is no such message.
    pub fn parse(kind: u8, body: &[u8]) -> Result<Option<Message>, WireError> {
        let mut body = Reading(body);
        Ok(Some(match kind {
            HELLO => Message::Hello(hello(&mut body)?),
            UPDATE => Message::Update(update(&mut body)?),
            DRAIN => Message::Drain(match body.u8()? {
                0 => false,
                1 => true,
                other => return Err(WireError::Value { what: "drain", value: other.into() }),
            }),
            GOODBYE => Message::Goodbye(body.text()?),
            ECHO => Message::Echo(Token(body.u64()?)),
            WELCOME => {
                let (version, level, _) = (body.u8()?, body.u8()?, body.u16()?);
                let mut time = || Ok(Duration::from_millis(body.u32()?.into()));
                let (interval, expiry) = (time()?, time()?);
                Message::Welcome(Welcome {
                    version,
                    level,
                    interval,
                    expiry,
                    wall: WallClock(body.u64()?),
                    name: body.text()?,
                })
            }
            ACKNOWLEDGEMENT => Message::Acknowledgement(Acknowledgement {
                sequence: Sequence(body.u64()?),
                sent: Token(body.u64()?),
                wall: WallClock(body.u64()?),
                taken: body.u32()?,
                refused: body.u32()?,
            }),
            REFUSAL => {
                let reason = body.u8()?;
                let reason = Reason::ALL.get(usize::from(reason)).copied();
                Message::Refusal(Refusal { reason, text: body.text()? })
            }
            PROBE => Message::Probe(Token(body.u64()?)),
            SHORTCUTS => Message::Shortcuts(body.list(Shortcut::BYTES, Shortcut::read)?),
            REVOKE => Message::Revoke(revoke(&mut body)?),
            KEEP => Message::Keep(body.list(Kept::BYTES, Kept::read)?),
            _ => return Ok(None),
        }))
    }
}

fn token_only(kind: u8, token: Token) -> Vec<u8> {
    Writing::of(kind, |body| {
        body.u64(token.0);
    })
}

fn hello(body: &mut Reading<'_>) -> Result<Hello, WireError> {
    let (version, version_min, level, _) = (body.u8()?, body.u8()?, body.u8()?, body.u8()?);
    let (capabilities, name) = (body.u32()?, body.text()?);
    let tunnels = (0..body.u8()?).map(|_| body.tunnel()).collect::<Result<_, WireError>>()?;
    let count = usize::from(body.u16()?);
    if count > OFFERS_MAX {
        return Err(WireError::Value { what: "number of offers", value: count as u64 });
    }
    let offers = (0..count).map(|_| body.prefix()).collect::<Result<_, _>>()?;
    Ok(Hello { version, version_min, level, capabilities, name, tunnels, offers })
}

fn update(body: &mut Reading<'_>) -> Result<Update, WireError> {
    let (sequence, sent) = (Sequence(body.u64()?), Token(body.u64()?));
    let (stride, count) = (usize::from(body.u16()?), body.u32()? as usize);
    if stride < Record::BYTES {
        return Err(WireError::Value { what: "size of a record", value: stride as u64 });
    }
    if count > RECORDS_MAX {
        return Err(WireError::Value { what: "number of records", value: count as u64 });
    }
    // Before room is made for them: what is announced must be there.
    let records = body.take(stride * count)?;
    let records = records.chunks_exact(stride).map(|record| Record::read(&mut Reading(record)));
    Ok(Update { sequence, sent, records: records.collect::<Result<_, _>>()? })
}

fn revoke(body: &mut Reading<'_>) -> Result<Vec<TunnelEnd>, WireError> {
    let count = usize::from(body.u16()?);
    if count > SHORTCUTS_MAX {
        return Err(WireError::Value { what: "number of entries", value: count as u64 });
    }
    (0..count).map(|_| body.tunnel()).collect()
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}
