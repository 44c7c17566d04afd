//! What of finding flows again is counted, and the last few times that something came of it.

use std::collections::VecDeque;

use super::FlowId;
use crate::clock::Instant;
use crate::forward::counters::Counter;
use crate::units::labelled;

labelled! {
    /// What has happened.
    Event {
        /// A packet came in the middle of a flow that its worker does not know.
        Stray => "stray",
        /// The other workers were asked for a flow.
        WorkersAsked => "workers_asked",
        /// One of them had it.
        WorkersFound => "workers_found",
        /// The peers were asked for a flow.
        PeersAsked => "peers_asked",
        /// One of them had it.
        PeersFound => "peers_found",
        /// Nobody who was asked had the flow.
        Nobody => "nobody",
        /// Nobody had it, and its packets got a child anew.
        Selected => "selected",
        /// A packet went to a child by hash while its flow was asked for.
        Passed => "passed",
        /// A packet was dropped because nobody had its flow.
        Dropped => "dropped",
        /// A client was told that its connection is over.
        Reset => "reset",
        /// It was not told, because there had been too many or there is no way to it.
        ResetSuppressed => "reset_suppressed",
        /// A packet was dropped because too many waited for their flow.
        HeldFull => "held_full",
        /// A flow was not asked for because too many were.
        Overload => "overload",
        /// The peers were not asked because there had been too many questions.
        QuestionsLimited => "questions_limited",
        /// A peer's question was answered.
        Answered => "answered",
        /// A peer's question was passed on.
        PassedOn => "passed_on",
        /// A peer's question was ignored because there had been too many.
        AnswersLimited => "answers_limited",
        /// A peer's question had come before.
        Duplicate => "duplicate",
        /// A datagram was made too long ago, or by a clock that is ahead of ours.
        Stale => "stale",
        /// A datagram's seal is not right.
        Forged => "forged",
        /// A datagram is none that we know how to read.
        Malformed => "malformed",
        /// An answer to no question that is still open.
        Unasked => "unasked",
        /// An answer named a tunnel that is none of the virtual host's children's, or one that flows are to leave.
        UnknownTunnel => "unknown_tunnel",
        /// A recovery echo came back and its flow was learned.
        EchoInstalled => "echo_installed",
        /// A recovery echo's seal is not right, or it is another client's.
        EchoForged => "echo_forged",
        /// A recovery echo's time was over.
        EchoExpired => "echo_expired",
        /// A recovery echo came back before.
        EchoReplayed => "echo_replayed",
        /// A recovery echo named a server that is none of the virtual host's children.
        EchoUnknownServer => "echo_unknown_server",
    }
}

/// Events that are remembered.
const LAST: usize = 32;

/// How often each has happened; to be read by anyone.
#[derive(Debug)]
pub struct Counters([Counter; Event::ALL.len()]);

impl Default for Counters {
    fn default() -> Counters {
        Counters(std::array::from_fn(|_| Counter::default()))
    }
}

impl Counters {
    /// Times that this has happened.
    pub fn of(&self, event: Event) -> &Counter {
        &self.0[event as usize]
    }
}

/// The last events that a person may want to know of, the oldest first.
#[derive(Debug, Default)]
pub struct Last(VecDeque<(Instant, Event, FlowId)>);

impl Last {
    /// Remembers that this has happened to a flow.
    pub fn add(&mut self, now: Instant, event: Event, flow: FlowId) {
        if self.0.len() == LAST {
            self.0.pop_front();
        }
        self.0.push_back((now, event, flow));
    }

    /// When what happened to which flow, the latest first.
    pub fn iter(&self) -> impl Iterator<Item = &(Instant, Event, FlowId)> {
        self.0.iter().rev()
    }
}
