//! Where the router is asked, and where it hears others and speaks to them.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::datagrams::{Datagrams, Heard, Partner};
use super::error::StartError;
use crate::clock::Instant;
use crate::config::{self, Config};
use crate::control::slow_path::SlowPath;
use crate::ctl::socket::Listener;

/// All of them that are configured.
pub(super) struct Listeners {
    pub(super) metrics: Option<TcpListener>,
    pub(super) control: Option<Listener>,
    pub(super) children: Option<TcpListener>,
    peers: Option<Datagrams>,
    pair: Option<Partner>,
}

impl Listeners {
    /// Those of a configuration.
    ///
    /// # Errors
    /// An address is taken, or is none of this machine.
    pub(super) fn bind(config: &Config) -> Result<Listeners, StartError> {
        let metrics = config
            .metrics
            .listen
            .map(|address| listen(address).map_err(|source| StartError::Metrics { address, source }));
        let metrics = metrics.transpose()?;
        let children = config
            .sessions
            .listen
            .map(|address| listen(address).map_err(|source| StartError::Listen { address, source }));
        let children = children.transpose()?;
        let bind = |whohas: &config::Whohas| {
            let address = whohas.listen;
            Datagrams::bind(address).map_err(|source| StartError::Peers { address, source })
        };
        let peers = config.recovery.whohas.as_ref().map(bind).transpose()?;
        let bind = |peer: &config::Peer| {
            let address = peer.listen;
            Partner::bind(address, peer.address).map_err(|source| StartError::Pair { address, source })
        };
        let pair = config.pair.as_ref().and_then(|pair| pair.peer.as_ref()).map(bind).transpose()?;
        let control = config.control.socket.as_deref().map(Listener::bind).transpose()?;
        Ok(Listeners { metrics, control, children, peers, pair })
    }

    /// Lets the slow path hear other routers.
    pub(super) fn hear_for(&self, thinking: &mut SlowPath, now: Instant) {
        if let Some(peers) = &self.peers {
            peers.take(|from, bytes| thinking.hear(now, from, bytes));
        }
        if let Some(pair) = &self.pair {
            pair.take(|heard| match heard {
                Heard::Datagram(bytes) => thinking.hear_peer(now, bytes),
                Heard::Refused => thinking.refused_by_peer(now),
            });
        }
    }

    /// Sends other routers what the slow path has to say.
    pub(super) fn speak_for(&self, thinking: &mut SlowPath, now: Instant) {
        if let Some(peers) = &self.peers {
            thinking.take_datagrams().iter().for_each(|(to, datagram)| peers.send(*to, datagram));
        }
        if let Some(pair) = &self.pair {
            // Of all of them: a refusal is heard once.
            let refused = thinking.take_peer_datagrams().iter().fold(false, |refused, one| pair.send(one) | refused);
            if refused {
                thinking.refused_by_peer(now);
            }
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
}
