//! Whether flows can be found again as it is written: addresses, keys, and policies that fit each other.

use std::net::SocketAddr;
use std::time::Duration;

use super::{key, or};
use crate::config::error::{Fault, quote};
use crate::config::raw::{self, Text};
use crate::config::values::{Once, duration, example, number, word};
use crate::config::{Config, FirstPackets, OnUnknown, Recovery, Whohas};

/// How long answers are waited for.
const PATIENCE: Duration = Duration::from_millis(100);

/// Shortest and longest wait: routers look for datagrams every millisecond, and clients send again after a second.
const PATIENCES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

/// Peers at most: each of them gets each question.
const PEERS_MAX: usize = 16;

pub(super) fn recovery(raw: Option<&raw::Recovery>) -> Result<Recovery, Fault> {
    let mut recovery = Recovery { asks_workers: true, first_packets: FirstPackets::Hold, whohas: None, echo: None };
    let Some(raw) = raw else { return Ok(recovery) };
    recovery.asks_workers =
        or(&raw.ask_workers, true, |text| word("ask_workers", text, &[("on", true), ("off", false)]))?;
    let ways = [("hold", FirstPackets::Hold), ("select", FirstPackets::Select)];
    recovery.first_packets = or(&raw.first_packets, FirstPackets::Hold, |text| word("first_packets", text, &ways))?;
    recovery.whohas = raw.whohas.as_ref().map(whohas).transpose()?;
    recovery.echo = raw.echo.as_ref().map(|echo| key(&echo.key)).transpose()?;
    Ok(recovery)
}

fn whohas(raw: &raw::Whohas) -> Result<Whohas, Fault> {
    let listen = endpoint("listen", &raw.listen, example("peers"))?;
    let (mut peers, mut once) = (Vec::new(), Once::new("peer"));
    for text in &raw.peers {
        let peer = endpoint("peer", text, example("peers"))?;
        once.add(peer, text)?;
        if peer == listen {
            return Err(Fault::at(text, format!("peer {peer} is this router itself; leave it out")));
        }
        if peer.is_ipv4() != listen.is_ipv4() {
            let message = format!("peer {peer} is of another family than listen {listen}; write both alike");
            return Err(Fault::at(text, message));
        }
        if peers.len() == PEERS_MAX {
            let message = format!("{peer} is one peer more than {PEERS_MAX}; name the nearest, and let them pass on");
            return Err(Fault::at(text, message));
        }
        peers.push(peer);
    }
    Ok(Whohas {
        listen,
        key: key(&raw.key)?,
        peers,
        hops: or(&raw.hops, 1, |text| number("hops", text, 0..=8))?,
        patience: or(&raw.patience, PATIENCE, patience)?,
        questions_per_second: or(&raw.questions_per_second, 10_000, |text| {
            number("questions_per_second", text, 1..=1_000_000)
        })?,
    })
}

/// An address of one router with a port.
pub(super) fn endpoint(what: &str, text: &Text, example: &str) -> Result<SocketAddr, Fault> {
    let wrong = || {
        let wrong = quote(&text.value);
        Fault::at(text, format!("{what} {wrong} is no address of one router with a port; write {example}"))
    };
    let address: SocketAddr = text.value.parse().map_err(|_| wrong())?;
    let one = !address.ip().is_unspecified() && !address.ip().is_multicast() && address.port() != 0;
    if one { Ok(address) } else { Err(wrong()) }
}

fn patience(text: &Text) -> Result<Duration, Fault> {
    let patience = duration("patience", text)?;
    let [least, most] = PATIENCES;
    if (least..=most).contains(&patience) {
        return Ok(patience);
    }
    let message = format!("patience {} is not from {least:?} to {most:?}; write {}", text.value, example("patience"));
    Err(Fault::at(text, message))
}

/// Whether the policies fit each other.
pub(super) fn fit(raw: &raw::Config, config: &Config) -> Result<(), Fault> {
    let Some(text) = raw.recovery.as_ref().and_then(|recovery| recovery.first_packets.as_ref()) else { return Ok(()) };
    let selects = config.virtual_hosts.iter().any(|host| host.on_unknown == OnUnknown::Select);
    if config.recovery.first_packets == FirstPackets::Select && !selects {
        let message = "first_packets: select has no meaning where no virtual host has on_unknown: select; leave it out";
        return Err(Fault::at(text, message));
    }
    Ok(())
}
