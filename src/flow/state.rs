//! How far a flow has come, as seen from the client's side alone: the server's answers do not pass this router.
//!
//! ```text
//!            SYN                     any other
//!  (new) ──────────► TcpSyn ───────────────────────► TcpEstablished ◄──┐ (the server ignored the RST)
//!    │ FIN, RST, any other: the state of that row         │ FIN   │RST │
//!    └────────────────────────────────────────────►    TcpFin   TcpRst ┘
//!                                                         │ SYN   │ SYN
//!                                                         └──► (new)
//! ```

use crate::packet::tcp as flags;

/// State of a flow; decides how long it is kept without packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowState {
    /// TCP, only SYN seen.
    TcpSyn,
    /// TCP, more than SYN seen.
    TcpEstablished,
    /// TCP, the client has sent FIN.
    TcpFin,
    /// TCP, the client has sent RST last.
    TcpRst,
    /// UDP.
    Udp,
    /// Every other protocol, and keys coarser than a 5-tuple.
    Other,
    /// Fragments of one datagram.
    Fragments,
}

impl FlowState {
    /// Number of states.
    pub const COUNT: usize = 7;

    /// Every state, in the order of their numbers.
    pub const ALL: [FlowState; FlowState::COUNT] = [
        FlowState::TcpSyn,
        FlowState::TcpEstablished,
        FlowState::TcpFin,
        FlowState::TcpRst,
        FlowState::Udp,
        FlowState::Other,
        FlowState::Fragments,
    ];

    /// Its name for people and programs, in snake case.
    pub const fn label(self) -> &'static str {
        match self {
            FlowState::TcpSyn => "syn",
            FlowState::TcpEstablished => "established",
            FlowState::TcpFin => "fin",
            FlowState::TcpRst => "rst",
            FlowState::Udp => "udp",
            FlowState::Other => "other",
            FlowState::Fragments => "fragments",
        }
    }

    /// State of a flow whose first packet is of `protocol` with these TCP flags (0 for other protocols).
    #[inline]
    pub fn of_first(protocol: u8, tcp_flags: u8) -> FlowState {
        match protocol {
            6 if tcp_flags & flags::RST != 0 => FlowState::TcpRst,
            6 if tcp_flags & flags::FIN != 0 => FlowState::TcpFin,
            6 if tcp_flags & flags::SYN != 0 => FlowState::TcpSyn,
            6 => FlowState::TcpEstablished,
            17 => FlowState::Udp,
            _ => FlowState::Other,
        }
    }

    /// The state with this number; [`FlowState::Other`] where there is none.
    #[inline(always)]
    pub fn of(number: u8) -> FlowState {
        const BY_NUMBER: [FlowState; 8] = {
            let mut states = [FlowState::Other; 8];
            let mut number = 0;
            while number < FlowState::COUNT {
                states[number] = FlowState::ALL[number];
                number += 1;
            }
            states
        };
        BY_NUMBER[usize::from(number % 8)]
    }

    /// State after one more packet, or `None` when that packet opens a new connection on the old one's ports.
    #[inline]
    pub fn after(self, tcp_flags: u8) -> Option<FlowState> {
        self.transition(tcp_flags)
    }

    /// Whether the state with this number stays as it is with a packet that has these TCP flags; if in doubt not.
    #[inline(always)]
    pub(super) fn stays(number: u8, tcp_flags: u8) -> bool {
        /// A bit for each state that does without any of the flags that count.
        const STAYING: u32 = {
            let (mut bits, mut number) = (0, 0);
            while number < FlowState::COUNT {
                let state = FlowState::ALL[number];
                let after = state.transition(0).expect("without a flag no connection is opened");
                bits |= if after as u8 == state as u8 { 1 << number } else { 0 };
                number += 1;
            }
            bits
        };
        tcp_flags & (flags::FIN | flags::SYN | flags::RST) == 0 && STAYING >> number & 1 != 0
    }

    /// The same for the state with this number; `None` for SYN in every state of TCP.
    #[inline(always)]
    pub(super) fn quietly_after(number: u8, tcp_flags: u8) -> Option<FlowState> {
        /// By state, then by the three flags that count.
        const AFTER: [[Option<FlowState>; 8]; 8] = {
            let mut after = [[None; 8]; 8];
            let mut row = 0;
            while row < FlowState::COUNT {
                let mut tcp_flags = 0;
                while tcp_flags < 8 {
                    let state = FlowState::ALL[row];
                    let opens = state.is_tcp() && tcp_flags & (flags::SYN | flags::RST) as usize == flags::SYN as usize;
                    after[row][tcp_flags] = if opens { None } else { state.transition(tcp_flags as u8) };
                    tcp_flags += 1;
                }
                row += 1;
            }
            after
        };
        const { assert!(flags::FIN | flags::SYN | flags::RST == 7) }
        AFTER[usize::from(number % 8)][usize::from(tcp_flags % 8)]
    }

    /// Whether it is one of TCP.
    pub const fn is_tcp(self) -> bool {
        matches!(self, FlowState::TcpSyn | FlowState::TcpEstablished | FlowState::TcpFin | FlowState::TcpRst)
    }

    const fn transition(self, tcp_flags: u8) -> Option<FlowState> {
        use FlowState::{TcpEstablished, TcpFin, TcpRst, TcpSyn};
        let (syn, fin, rst) = (tcp_flags & flags::SYN != 0, tcp_flags & flags::FIN != 0, tcp_flags & flags::RST != 0);
        match self {
            FlowState::Udp | FlowState::Other | FlowState::Fragments => Some(self),
            TcpFin | TcpRst if syn && !rst => None,
            _ if rst => Some(TcpRst),
            TcpFin => Some(TcpFin),
            _ if fin => Some(TcpFin),
            TcpSyn if syn => Some(TcpSyn),
            TcpSyn | TcpEstablished | TcpRst => Some(TcpEstablished),
        }
    }
}

/// How long a flow without packets is kept, in milliseconds, by state.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts([u32; 8]);

const _: () = assert!(FlowState::COUNT <= 8, "three bits for a state");

impl Timeouts {
    /// Timeouts by a function of the state.
    pub fn new(milliseconds: impl Fn(FlowState) -> u32) -> Timeouts {
        let mut timeouts = [0; 8];
        for (timeout, state) in timeouts.iter_mut().zip(FlowState::ALL) {
            *timeout = milliseconds(state);
        }
        Timeouts(timeouts)
    }

    /// Timeout of `state`, in milliseconds.
    pub fn milliseconds(&self, state: FlowState) -> u32 {
        self.of(state as u8)
    }

    /// Timeout of the state with this number.
    #[inline(always)]
    pub(super) fn of(&self, state: u8) -> u32 {
        self.0[usize::from(state % 8)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FlowState::*;
    use flags::{ACK, FIN, RST, SYN};

    #[test]
    fn the_first_packet_sets_the_state() {
        for (protocol, tcp_flags, state) in [
            (6, SYN, TcpSyn),
            (6, ACK, TcpEstablished),
            (6, FIN | ACK, TcpFin),
            (6, RST, TcpRst),
            (6, 0, TcpEstablished),
            (17, 0, Udp),
            (47, 0, Other),
        ] {
            assert_eq!(FlowState::of_first(protocol, tcp_flags), state, "protocol {protocol}, flags {tcp_flags:#x}");
        }
    }

    #[test]
    fn every_transition() {
        let after = |state: FlowState| [SYN, ACK, FIN | ACK, RST].map(|tcp_flags| state.after(tcp_flags));
        //                           SYN                   ACK                   FIN           RST
        assert_eq!(after(TcpSyn), [Some(TcpSyn), Some(TcpEstablished), Some(TcpFin), Some(TcpRst)]);
        assert_eq!(after(TcpEstablished), [Some(TcpEstablished), Some(TcpEstablished), Some(TcpFin), Some(TcpRst)]);
        assert_eq!(after(TcpFin), [None, Some(TcpFin), Some(TcpFin), Some(TcpRst)]);
        assert_eq!(after(TcpRst), [None, Some(TcpEstablished), Some(TcpFin), Some(TcpRst)]);
        for state in [Udp, Other, Fragments] {
            assert_eq!(after(state), [Some(state); 4]);
        }
    }

    #[test]
    fn only_what_opens_a_connection_is_not_quiet() {
        for (number, state) in FlowState::ALL.into_iter().enumerate() {
            for tcp_flags in [ACK, FIN | ACK, RST, RST | SYN, 0] {
                assert_eq!(FlowState::quietly_after(number as u8, tcp_flags), state.after(tcp_flags), "{state:?}");
            }
            let quiet = [Udp, Other, Fragments].contains(&state);
            assert_eq!(FlowState::quietly_after(number as u8, SYN).is_some(), quiet, "{state:?}");
        }
    }

    #[test]
    fn each_state_has_its_own_timeout() {
        let timeouts = Timeouts::new(|state| 1000 + state as u32);
        for (number, state) in FlowState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
            assert_eq!(timeouts.of(state as u8), 1000 + number as u32);
        }
    }
}
