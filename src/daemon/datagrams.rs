//! How datagrams of other routers come in and go out, without anybody waiting for them.

use std::io;
use std::net::{SocketAddr, UdpSocket};

/// Datagrams of other routers that are taken in a pass at most.
const DATAGRAMS_PER_PASS: usize = 1024;

/// Bytes of such a datagram at most.
const DATAGRAM_MAX: usize = 1500;

/// Where other routers are heard.
pub(super) struct Datagrams(UdpSocket);

impl Datagrams {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Datagrams> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Datagrams(socket))
    }

    /// Takes in what has come.
    pub(super) fn take(&self, mut hear: impl FnMut(SocketAddr, &[u8])) {
        // A byte more than any datagram of ours: a longer one is seen to be none.
        let mut bytes = [0; DATAGRAM_MAX + 1];
        for _ in 0..DATAGRAMS_PER_PASS {
            let Ok((len, from)) = self.0.recv_from(&mut bytes) else { break };
            hear(from, &bytes[..len]);
        }
    }

    /// Sends a datagram. What cannot be sent is lost, as datagrams are.
    pub(super) fn send(&self, to: SocketAddr, datagram: &[u8]) {
        let _ = self.0.send_to(datagram, to);
    }
}

/// What one other router is heard by, and its machine where that says that nobody is there.
pub(super) struct Partner {
    socket: UdpSocket,
    address: SocketAddr,
}

/// What comes from there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// A datagram.
    Datagram(&'a [u8]),
    /// No program takes what is sent there (ICMP, port unreachable).
    Refused,
}

impl Partner {
    /// A socket at `own` for the router at `address`, which need not be reachable yet.
    pub(super) fn bind(own: SocketAddr, address: SocketAddr) -> io::Result<Partner> {
        let socket = UdpSocket::bind(own)?;
        socket.set_nonblocking(true)?;
        // Only a connected socket hears of refusals. Without a route there is no connection; sending tries again.
        let _ = socket.connect(address);
        Ok(Partner { socket, address })
    }

    /// Takes in what has come.
    pub(super) fn take(&self, mut hear: impl FnMut(Heard<'_>)) {
        let mut bytes = [0; DATAGRAM_MAX + 1];
        for _ in 0..DATAGRAMS_PER_PASS {
            match self.socket.recv_from(&mut bytes) {
                Ok((len, from)) if from == self.address => hear(Heard::Datagram(&bytes[..len])),
                Ok(_) => {}
                Err(error) if is_refusal(&error) => hear(Heard::Refused),
                Err(_) => break,
            }
        }
    }

    /// Sends a datagram, and says whether one before it was refused. What cannot be sent is lost, as datagrams are.
    pub(super) fn send(&self, datagram: &[u8]) -> bool {
        let Err(error) = self.socket.send(datagram) else { return false };
        let refused = is_refusal(&error);
        if !refused {
            let _ = self.socket.connect(self.address);
        }
        let _ = self.socket.send(datagram);
        refused
    }
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn who_is_not_there_refuses_and_who_comes_back_is_heard() {
        let free = || UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
        let (one, other) = (free(), free());
        let here = Partner::bind(one, other).expect("a socket");
        let heard = |until: fn(&Heard<'_>) -> bool| {
            let start = Instant::now();
            let mut found = false;
            while !found && start.elapsed() < Duration::from_secs(10) {
                here.take(|what| found |= until(&what));
            }
            found
        };
        assert!(!here.send(b"1"));
        assert!(heard(|what| *what == Heard::Refused));
        assert!(!here.send(b"2"), "a refusal is told once");
        assert!(here.send(b"3"), "in the place of a datagram");
        let there = Partner::bind(other, one).expect("a socket");
        here.send(b"4");
        there.send(b"5");
        assert!(heard(|what| *what == Heard::Datagram(b"5")));
        // Strangers are not.
        UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"6", one)).expect("sent");
        there.send(b"7");
        assert!(heard(|what| {
            assert_ne!(*what, Heard::Datagram(b"6"));
            *what == Heard::Datagram(b"7")
        }));
    }
}
