//! What the steps of a burst tell each other about its packets.

use super::punt::Cause;
use super::tables::{ForwardTables, NO_PATH};
use super::verdict::{DropReason, Refusal};
use crate::clock::Tick;
use crate::flow::key::{FlowKey, KeyV4, KeyV6, WORDS_MAX, Words};
use crate::flow::table::{FlowHash, Hint};
use crate::packet::parse::{Family, Fragment, Parsed};
use crate::packet::plain::Plain;
use crate::packet::protocol::{ICMP, ICMPV6};
use crate::packet::tcp;
use crate::tunnel::inner::Inner;
use crate::units::{PathId, PortIndex, TargetId};

/// A packet that waits for another one.
pub(super) struct Held<P> {
    pub(super) packet: P,
    pub(super) work: Work,
    /// Port that it came in by.
    pub(super) port: PortIndex,
}

/// How a packet ends that is not simply forwarded.
pub(super) enum End {
    Drop(DropReason),
    Punt(Cause),
    /// Too long for this path with its header.
    TooLong(PathId, Option<TargetId>),
}

impl<R: Into<DropReason>> From<R> for End {
    fn from(reason: R) -> End {
        End::Drop(reason.into())
    }
}

/// What the steps of a burst tell each other about a packet. Little, since whatever is written here is written for every
/// packet.
#[derive(Clone)]
pub(super) struct Work {
    /// The key of its 5-tuple.
    pub(super) key: [u64; WORDS_MAX],
    pub(super) hash: FlowHash,
    pub(super) hint: Hint,
    /// For the outer header to come.
    pub(super) inner: Inner,
    l4_offset: u16,
    pub(super) tcp_flags: u8,
    pub(super) what: What,
    /// Where the flow goes that has an entry and needs nothing else; without meaning where `path` is [`NO_PATH`].
    pub(super) target: TargetId,
    /// And how.
    pub(super) path: PathId,
    /// Where the packet leaves that has its header; [`NOWHERE`] until then.
    pub(super) leaves_by: PortIndex,
    /// Of a rare packet, what is where in it.
    rare: Parsed,
}

/// No port has this number.
pub(super) const NOWHERE: PortIndex = PortIndex(u16::MAX);

/// What a packet is to the last step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// One of those that are forwarded by the million, over IPv4.
    V4,
    /// The same over IPv6.
    V6,
    /// One of them for which `target` is known, whatever `path` is.
    Known,
    /// One of them that goes nowhere.
    Refused(Refusal),
    /// It needs more than its flow's entry.
    Rare,
    /// None: it has ended.
    Ended,
}

impl Work {
    /// Of no packet.
    pub(super) const NONE: Work = Work {
        key: [0; WORDS_MAX],
        hash: FlowHash::NONE,
        hint: Hint::NONE,
        inner: Inner::NONE,
        l4_offset: 0,
        tcp_flags: 0,
        what: What::Ended,
        target: TargetId(0),
        path: NO_PATH,
        leaves_by: NOWHERE,
        rare: Parsed::NOTHING,
    };

    /// Takes down what has been read of a packet of the common kind. `ttl` is the outer one to come.
    #[inline(always)]
    pub(super) fn begin(&mut self, plain: &Plain, ttl: u8) {
        let parsed = &plain.parsed;
        self.inner = Inner::of_plain(plain, ttl);
        (self.l4_offset, self.tcp_flags, self.path) = (parsed.l4_offset, parsed.tcp_flags, NO_PATH);
        self.what = match parsed.family {
            Family::V4 => What::V4,
            Family::V6 => What::V6,
        };
    }

    /// The same of a packet that may be a rare one.
    #[inline(always)]
    pub(super) fn begin_otherwise(&mut self, plain: &Plain, ttl: u8) {
        self.begin(plain, ttl);
        if is_rare(&plain.parsed) {
            (self.rare, self.what) = (plain.parsed, What::Rare);
        }
    }

    /// Sends it to a target that has been found or chosen.
    #[inline(always)]
    pub(super) fn settle(&mut self, tables: &ForwardTables, id: TargetId) {
        let target = &tables.targets[id.index()];
        (self.target, self.what, self.path) = (id, What::Known, target.path_number());
        if target.clamps_mss && self.tcp_flags & tcp::SYN != 0 {
            self.path = NO_PATH;
        }
    }

    /// What is where in the packet.
    #[inline]
    pub(super) fn parsed(&self) -> Parsed {
        if self.what == What::Rare {
            return self.rare;
        }
        let family = self.inner.family();
        let last = match family {
            Family::V4 => <KeyV4 as FlowKey>::Words::of_saved(&self.key).last(),
            Family::V6 => <KeyV6 as FlowKey>::Words::of_saved(&self.key).last(),
        };
        Parsed {
            l3_offset: self.inner.l3_offset,
            l4_offset: self.l4_offset,
            l3_len: self.inner.bytes(),
            family,
            protocol: (last >> 32) as u8,
            tcp_flags: self.tcp_flags,
            ports: (last as u32).to_ne_bytes(),
            fragment: Fragment::None,
            traffic_class: self.inner.class(),
            dont_fragment: self.inner.dont_fragment(),
        }
    }
}

/// Whether a packet needs more than its flow's entry.
#[inline(always)]
fn is_rare(parsed: &Parsed) -> bool {
    // What is longer than an IPv4 packet can be is too long for every tunnel.
    let is_huge = parsed.l3_len > u16::MAX.into();
    parsed.is_fragment() || parsed.protocol == ICMP || parsed.protocol == ICMPV6 || is_huge
}

/// What the packets of a burst have in common.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) tables: &'a ForwardTables,
    /// Port that they came in by.
    pub(super) port: PortIndex,
    pub(super) now: Tick,
}
