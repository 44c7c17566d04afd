//! The datagrams in which routers ask each other who has a flow.
//!
//! All numbers in network order; 104 bytes, always:
//!
//! ```text
//! offset bytes
//!      0     4  "SLRW"
//!      4     1  version: 1
//!      5     1  1: question, 2: answer
//!      6     1  question: how often it may still be passed on; answer: 0
//!      7     1  IP protocol of the flow
//!      8     8  number of the question, by who asks
//!     16     8  when the question (the answer) was made, in milliseconds since 1970
//!     24    16  client address; IPv4 as ::ffff:a.b.c.d
//!     40    16  address of the virtual host
//!     56     2  port of the client
//!     58     2  port of the virtual host
//!     60     2  question: UDP port that the answer goes to; answer: UDP port of a GUE tunnel
//!     62     1  answer: kind of the tunnel: 1 IP in IP, 2 GUE, 3 GUE variant 1, 4 GRE, 5 MPLS, 6 MAC
//!     63     1  answer: state of the flow, as the number in flow/state.rs
//!     64    16  question: address that the answer goes to; answer: where the tunnel ends
//!     80     4  answer: MPLS label
//!     84     4  answer: milliseconds since the flow's last packet
//!     88    16  seal: first half of the HMAC-SHA256 by the routers' key, over "slr whohas" and all before
//! ```
//!
//! A router that passes a question on lowers what is at 6 and seals again. Whoever has another version is not understood.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{FlowId, address_bytes, address_of, tunnel_numbers, tunnel_of};
use crate::clock::WallClock;
use crate::config::TunnelKind;
use crate::flow::state::FlowState;
use crate::trust::seal::{self, Seal};

/// Bytes of every datagram.
pub const LEN: usize = 104;
const SEALED: usize = LEN - seal::LEN;

const MAGIC: [u8; 4] = *b"SLRW";
const VERSION: u8 = 1;
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;

/// Where a flow's packets go, and how the flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Where the tunnel to its server ends.
    pub address: IpAddr,
    /// How packets get there.
    pub tunnel: TunnelKind,
    /// How far the flow has come.
    pub state: FlowState,
    /// Time since its last packet; to the millisecond in datagrams.
    pub idle: Duration,
}

/// Who has this flow?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// By who asks: with where the answer goes, no two are the same.
    pub number: u64,
    /// When it was asked.
    pub made: WallClock,
    /// How often it may still be passed on.
    pub hops: u8,
    /// Which flow.
    pub flow: FlowId,
    /// Where the answer goes.
    pub reply_to: SocketAddr,
}

/// This is where the flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// That of the question.
    pub number: u64,
    /// When it was answered.
    pub made: WallClock,
    /// Which flow.
    pub flow: FlowId,
    /// Where it goes.
    pub owner: Owner,
}

/// A datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A question.
    Question(Question),
    /// An answer.
    Answer(Answer),
}

/// Why a datagram is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Its seal is not right.
    Forged,
    /// It is of another length, version or kind, or its fields do not fit each other.
    Malformed,
}

/// Writes and reads datagrams by one key.
#[derive(Clone, Debug)]
pub struct Codec(Seal);

impl Codec {
    /// By `key`.
    pub fn new(key: &[u8; 16]) -> Codec {
        Codec(Seal::new(key, b"slr whohas"))
    }

    /// A datagram with this in it.
    pub fn write(&self, message: &Message) -> Vec<u8> {
        let mut bytes = vec![0; SEALED];
        let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
        put(0, &MAGIC);
        let (kind, hops, number, made, flow) = match message {
            Message::Question(q) => (QUESTION, q.hops, q.number, q.made, q.flow),
            Message::Answer(a) => (ANSWER, 0, a.number, a.made, a.flow),
        };
        put(4, &[VERSION, kind, hops, flow.protocol]);
        put(8, &number.to_be_bytes());
        put(16, &made.0.to_be_bytes());
        put(24, &address_bytes(flow.source.ip()));
        put(40, &address_bytes(flow.destination.ip()));
        put(56, &flow.source.port().to_be_bytes());
        put(58, &flow.destination.port().to_be_bytes());
        match message {
            Message::Question(Question { reply_to, .. }) => {
                put(60, &reply_to.port().to_be_bytes());
                put(64, &address_bytes(reply_to.ip()));
            }
            Message::Answer(Answer { owner, .. }) => {
                let (kind, port, label) = tunnel_numbers(owner.tunnel);
                put(60, &port.to_be_bytes());
                put(62, &[kind, owner.state as u8]);
                put(64, &address_bytes(owner.address));
                put(80, &label.to_be_bytes());
                put(84, &u32::try_from(owner.idle.as_millis()).unwrap_or(u32::MAX).to_be_bytes());
            }
        }
        let seal = self.0.of(&bytes);
        bytes.extend_from_slice(&seal);
        bytes
    }

    /// What is in a datagram.
    ///
    /// # Errors
    /// It was not sealed by this key, or makes no sense.
    pub fn read(&self, datagram: &[u8]) -> Result<Message, Unreadable> {
        if datagram.len() != LEN || datagram[..4] != MAGIC || datagram[4] != VERSION {
            return Err(Unreadable::Malformed);
        }
        let bytes = self.0.open(datagram).ok_or(Unreadable::Forged)?;
        let bytes: &[u8; SEALED] = bytes.try_into().map_err(|_| Unreadable::Malformed)?;
        decode(bytes).ok_or(Unreadable::Malformed)
    }
}

/// `N` bytes from `at` on.
fn get<const N: usize>(bytes: &[u8; SEALED], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn decode(bytes: &[u8; SEALED]) -> Option<Message> {
    let source = SocketAddr::new(address_of(get(bytes, 24)), u16::from_be_bytes(get(bytes, 56)));
    let destination = SocketAddr::new(address_of(get(bytes, 40)), u16::from_be_bytes(get(bytes, 58)));
    let flow = FlowId { source, destination, protocol: bytes[7] };
    flow.key()?;
    let number = u64::from_be_bytes(get(bytes, 8));
    let made = WallClock(u64::from_be_bytes(get(bytes, 16)));
    let (port, address) = (u16::from_be_bytes(get(bytes, 60)), address_of(get(bytes, 64)));
    match bytes[5] {
        QUESTION => {
            let reply_to = SocketAddr::new(address, port);
            Some(Message::Question(Question { number, made, hops: bytes[6], flow, reply_to }))
        }
        ANSWER => {
            let tunnel = tunnel_of(bytes[62], port, u32::from_be_bytes(get(bytes, 80)))?;
            let state = *FlowState::ALL.get(usize::from(bytes[63]))?;
            let idle = Duration::from_millis(u32::from_be_bytes(get(bytes, 84)).into());
            let owner = Owner { address, tunnel, state, idle };
            Some(Message::Answer(Answer { number, made, flow, owner }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::GueVariant;

    fn flow(v6: bool) -> FlowId {
        let (source, destination) =
            if v6 { ("[2001:db8::7]:40000", "[2001:db8:80::80]:80") } else { ("10.0.0.2:40000", "192.0.2.80:80") };
        FlowId { source: source.parse().unwrap(), destination: destination.parse().unwrap(), protocol: 6 }
    }

    fn question() -> Message {
        let reply_to = "10.255.0.1:9479".parse().unwrap();
        Message::Question(Question {
            number: 0x0102_0304_0506_0708,
            made: WallClock(1_700_000_000_000),
            hops: 1,
            flow: flow(false),
            reply_to,
        })
    }

    fn answers() -> impl Iterator<Item = Message> {
        let (header, direct) = (GueVariant::Header, GueVariant::Direct);
        let kinds = [
            TunnelKind::IpIp,
            TunnelKind::Gue { port: 6080, variant: header },
            TunnelKind::Gue { port: 6081, variant: direct },
            TunnelKind::Gre,
            TunnelKind::Mpls { label: 1000 },
            TunnelKind::Mac,
        ];
        kinds.into_iter().enumerate().map(|(at, tunnel)| {
            let address = if at % 2 == 0 { "10.0.1.11".parse().unwrap() } else { "2001:db8:2::12".parse().unwrap() };
            let (state, idle) = (FlowState::ALL[at % 4], Duration::from_millis(1234));
            let owner = Owner { address, tunnel, state, idle };
            Message::Answer(Answer { number: 9, made: WallClock(5), flow: flow(at % 2 == 0), owner })
        })
    }

    #[test]
    fn a_question_is_laid_out_as_documented() {
        let bytes = Codec::new(&[0; 16]).write(&question());
        let expected: [&[u8]; 9] = [
            b"SLRW\x01\x01\x01\x06",
            &[1, 2, 3, 4, 5, 6, 7, 8],
            &1_700_000_000_000_u64.to_be_bytes(),
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 2],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 80],
            &[0x9c, 0x40, 0, 80],
            &[0x25, 0x07, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 255, 0, 1],
            &[0; 8],
        ];
        assert_eq!(bytes[..88], expected.concat());
        assert_eq!(bytes.len(), LEN);
    }

    #[test]
    fn what_is_written_is_read_and_nothing_that_was_changed_is() {
        let codec = Codec::new(&[7; 16]);
        for message in answers().chain([question()]) {
            let bytes = codec.write(&message);
            assert_eq!(codec.read(&bytes), Ok(message));
            for bit in 0..8 * LEN {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let why = if bit < 5 * 8 { Unreadable::Malformed } else { Unreadable::Forged };
                assert_eq!(codec.read(&changed), Err(why), "bit {bit}");
            }
            assert_eq!(Codec::new(&[8; 16]).read(&bytes), Err(Unreadable::Forged));
            assert_eq!(codec.read(&bytes[..LEN - 1]), Err(Unreadable::Malformed));
        }
    }

    proptest! {
        #[test]
        fn sealed_nonsense_is_refused_or_read_and_written_alike(mut bytes in proptest::collection::vec(any::<u8>(), SEALED)) {
            let codec = Codec::new(&[7; 16]);
            bytes[..5].copy_from_slice(b"SLRW\x01");
            bytes[5] %= 4;
            bytes[62] %= 8;
            bytes[63] %= 9;
            let seal = codec.0.of(&bytes);
            bytes.extend_from_slice(&seal);
            if let Ok(message) = codec.read(&bytes) {
                prop_assert_eq!(codec.read(&codec.write(&message)), Ok(message));
            }
        }
    }
}
