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
