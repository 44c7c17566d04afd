//! What a server sends through its client so that whichever router carries the flow learns whose it is.
//!
//! ```text
//! server ── echo request from the virtual host's address ──► client
//! client ── echo reply with the same data ──► a router: seal, addresses, time, once? ──► flow entry; the reply ends there
//! ```
//!
//! An ICMP or ICMPv6 message of 160 bytes, numbers in network order:
//!
//! ```text
//! offset bytes
//!      0    64  header and data as any ping has them (RFC 792, RFC 4443 section 4)
//!     64     4  "SLRE"
//!     68     1  version: 1
//!     69     1  IP protocol of the flow
//!     70     2  port of the client
//!     72     2  port of the virtual host
//!     74     2  0
//!     76     4  where the server's IPv4 tunnels end; 0: nowhere
//!     80     8  until when it counts, in milliseconds since 1970
//!     88     8  number, by the server
//!     96    16  client address; IPv4 as ::ffff:a.b.c.d
//!    112    16  address of the virtual host
//!    128    16  where the server's IPv6 tunnels end; 0: nowhere
//!    144    16  seal: first half of the HMAC-SHA256 by the echoes' key, over "slr echo" and what is from 64 on
//! ```
//!
//! Whoever listens on the way can send an echo a second time within its few seconds, to another router too: what that
//! router then learns is true.

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::events::Event;
use super::{FlowId, address_bytes, address_of};
use crate::clock::WallClock;
use crate::packet::icmp::{RECOVERY_ECHO, RECOVERY_ECHO_OFFSET};
use crate::trust::seal::{self, Seal};

/// Bytes of the message.
pub const LEN: usize = RECOVERY_ECHO_OFFSET + SEALED + seal::LEN;
const SEALED: usize = 80;
const VERSION: u8 = 1;

/// How long an echo counts: a client's round trip, and clocks that are some seconds apart.
pub const LIFE: Duration = Duration::from_secs(10);

/// Echoes that are remembered at most.
const SEEN: usize = 1 << 16;

/// What an echo says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Which flow.
    pub flow: FlowId,
    /// Where the server's IPv4 tunnels end.
    pub tunnel_v4: Option<Ipv4Addr>,
    /// Where the server's IPv6 tunnels end.
    pub tunnel_v6: Option<Ipv6Addr>,
    /// Until when it counts.
    pub expires: WallClock,
    /// No two of a server are the same.
    pub number: u64,
}

impl Echo {
    /// Whether a tunnel to the server ends there.
    pub fn ends_at(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.tunnel_v4 == Some(address),
            IpAddr::V6(address) => self.tunnel_v6 == Some(address),
        }
    }
}

/// Writes and reads echoes by one key.
#[derive(Clone, Debug)]
pub struct Codec(Seal);

impl Codec {
    /// By `key`.
    pub fn new(key: &[u8; 16]) -> Codec {
        Codec(Seal::new(key, b"slr echo"))
    }

    /// The message that asks the client, but for its checksum, which is zero.
    pub fn write(&self, echo: &Echo) -> Vec<u8> {
        let mut sealed = [0; SEALED];
        let mut put = |at: usize, what: &[u8]| {
            let at = at - RECOVERY_ECHO_OFFSET;
            sealed[at..at + what.len()].copy_from_slice(what);
        };
        let Echo { flow, tunnel_v4, tunnel_v6, expires, number } = echo;
        put(64, &RECOVERY_ECHO);
        put(68, &[VERSION, flow.protocol]);
        put(70, &flow.source.port().to_be_bytes());
        put(72, &flow.destination.port().to_be_bytes());
        put(76, &tunnel_v4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        put(80, &expires.0.to_be_bytes());
        put(88, &number.to_be_bytes());
        put(96, &address_bytes(flow.source.ip()));
        put(112, &address_bytes(flow.destination.ip()));
        put(128, &tunnel_v6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
        let kind = if flow.source.is_ipv4() {
            crate::packet::icmp::V4_ECHO_REQUEST
        } else {
            crate::packet::icmp::V6_ECHO_REQUEST
        };
        let mut message = vec![kind, 0, 0, 0];
        // Identifier and sequence number.
        message.extend_from_slice(&(*number as u32).to_be_bytes());
        message.extend(8..RECOVERY_ECHO_OFFSET as u8);
        message.extend_from_slice(&sealed);
        message.extend_from_slice(&self.0.of(&sealed));
        message
    }

    /// What a message says; `None` where its seal is not right or it makes no sense.
    pub fn read(&self, message: &[u8]) -> Option<Echo> {
        let sealed = message.get(RECOVERY_ECHO_OFFSET..LEN).and_then(|bytes| self.0.open(bytes))?;
        let sealed: &[u8; SEALED] = sealed.try_into().ok()?;
        if sealed[..4] != RECOVERY_ECHO || sealed[4] != VERSION {
            return None;
        }
        let source = SocketAddr::new(address_of(get(sealed, 96)), u16::from_be_bytes(get(sealed, 70)));
        let destination = SocketAddr::new(address_of(get(sealed, 112)), u16::from_be_bytes(get(sealed, 72)));
        let flow = FlowId { source, destination, protocol: sealed[5] };
        flow.key()?;
        Some(Echo {
            flow,
            tunnel_v4: Some(Ipv4Addr::from(get::<4>(sealed, 76))).filter(|address| !address.is_unspecified()),
            tunnel_v6: Some(Ipv6Addr::from(get::<16>(sealed, 128))).filter(|address| !address.is_unspecified()),
            expires: WallClock(u64::from_be_bytes(get(sealed, 80))),
            number: u64::from_be_bytes(get(sealed, 88)),
        })
    }
}

/// `N` bytes from offset `at` of the message on.
fn get<const N: usize>(sealed: &[u8; SEALED], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&sealed[at - RECOVERY_ECHO_OFFSET..at - RECOVERY_ECHO_OFFSET + N]);
    field
}

/// Believes each echo once.
#[derive(Debug)]
pub struct Verifier {
    codec: Codec,
    /// Echoes that have come, and in the order of coming until when they would count.
    seen: HashSet<(u64, FlowId)>,
    remembered: VecDeque<(WallClock, (u64, FlowId))>,
}

impl Verifier {
    /// For echoes by `key`.
    pub fn new(key: &[u8; 16]) -> Verifier {
        Verifier { codec: Codec::new(key), seen: HashSet::new(), remembered: VecDeque::new() }
    }

    /// What a reply says that came `from` a client `to` a virtual host.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&mut self, now: WallClock, from: IpAddr, to: IpAddr, message: &[u8]) -> Result<Echo, Event> {
        let echo = self.codec.read(message).ok_or(Event::EchoForged)?;
        if (echo.flow.source.ip(), echo.flow.destination.ip()) != (from, to) {
            return Err(Event::EchoForged);
        }
        // One from the future comes from a clock that is not to be trusted.
        if !(now.0..=now.0 + 2 * LIFE.as_millis() as u64).contains(&echo.expires.0) {
            return Err(Event::EchoExpired);
        }
        while self.remembered.len() >= SEEN || self.remembered.front().is_some_and(|(until, _)| *until < now) {
            if let Some((_, forgotten)) = self.remembered.pop_front() {
                self.seen.remove(&forgotten);
            }
        }
        let which = (echo.number, echo.flow);
        if !self.seen.insert(which) {
            return Err(Event::EchoReplayed);
        }
        self.remembered.push_back((echo.expires, which));
        Ok(echo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallClock = WallClock(1_700_000_000_000);

    fn echo(v6: bool) -> Echo {
        let (source, destination) =
            if v6 { ("[2001:db8::7]:40000", "[2001:db8:80::80]:80") } else { ("10.0.0.2:40000", "192.0.2.80:80") };
        let flow = FlowId { source: source.parse().unwrap(), destination: destination.parse().unwrap(), protocol: 6 };
        Echo {
            flow,
            tunnel_v4: Some(Ipv4Addr::new(10, 0, 1, 11)),
            tunnel_v6: v6.then(|| Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 11)),
            expires: WallClock(NOW.0 + 10_000),
            number: 0x0102_0304_0506_0708,
        }
    }

    fn addresses(echo: &Echo) -> (IpAddr, IpAddr) {
        (echo.flow.source.ip(), echo.flow.destination.ip())
    }

    #[test]
    fn an_echo_is_laid_out_as_documented_and_looks_like_a_ping_up_to_there() {
        let message = Codec::new(&[7; 16]).write(&echo(false));
        assert_eq!((message.len(), &message[..8]), (LEN, &[8, 0, 0, 0, 5, 6, 7, 8][..]));
        assert!(message[8..64].iter().copied().eq(8..64));
        let expected: [&[u8]; 7] = [
            b"SLRE\x01\x06\x9c\x40\x00\x50\x00\x00",
            &[10, 0, 1, 11],
            &1_700_000_010_000_u64.to_be_bytes(),
            &[1, 2, 3, 4, 5, 6, 7, 8],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 2],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 80],
            &[0; 16],
        ];
        assert_eq!(message[64..144], expected.concat());
    }

    #[test]
    fn an_echo_is_believed_once_in_its_time_from_its_client_and_unchanged() {
        for echo in [echo(false), echo(true)] {
            let mut verifier = Verifier::new(&[7; 16]);
            let (from, to) = addresses(&echo);
            let message = Codec::new(&[7; 16]).write(&echo);
            for byte in 64..LEN {
                let mut changed = message.clone();
                changed[byte] ^= 1;
                assert_eq!(verifier.verify(NOW, from, to, &changed), Err(Event::EchoForged), "byte {byte}");
            }
            let forged = Codec::new(&[8; 16]).write(&echo);
            assert_eq!(verifier.verify(NOW, from, to, &forged), Err(Event::EchoForged));
            assert_eq!(verifier.verify(NOW, from, to, &message[..LEN - 1]), Err(Event::EchoForged));
            assert_eq!(verifier.verify(NOW, "10.0.0.3".parse().unwrap(), to, &message), Err(Event::EchoForged));
            assert_eq!(verifier.verify(NOW, from, from, &message), Err(Event::EchoForged));
            let late = WallClock(NOW.0 + 10_001);
            assert_eq!(verifier.verify(late, from, to, &message), Err(Event::EchoExpired));
            let early = WallClock(NOW.0 - 10_001);
            assert_eq!(verifier.verify(early, from, to, &message), Err(Event::EchoExpired));
            assert_eq!(verifier.verify(NOW, from, to, &message), Ok(echo));
            let then = WallClock(NOW.0 + 10_000);
            assert_eq!(verifier.verify(then, from, to, &message), Err(Event::EchoReplayed));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_in_time() {
        let mut verifier = Verifier::new(&[7; 16]);
        let (codec, first) = (Codec::new(&[7; 16]), echo(false));
        let (from, to) = addresses(&first);
        for number in 0..SEEN as u64 + 100 {
            let message = codec.write(&Echo { number, ..first });
            assert!(verifier.verify(NOW, from, to, &message).is_ok());
        }
        assert_eq!((verifier.seen.len(), verifier.remembered.len()), (SEEN, SEEN));
        let later = WallClock(NOW.0 + 20_000);
        let message = codec.write(&Echo { expires: later, ..first });
        assert!(verifier.verify(later, from, to, &message).is_ok());
        assert_eq!(verifier.seen.len(), 1);
    }
}
