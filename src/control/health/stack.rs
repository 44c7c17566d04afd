//! One check's own end of an IP link, on smoltcp: a single address, a single socket, no clock and no wire.
//!
//! Every check has an interface of its own rather than a socket in a shared one: what a packet costs does not grow with
//! the number of checks under way, checks of many children with the same address cannot meet, and what leaves is known
//! to be of this check.

use std::net::IpAddr;

use smoltcp::iface::{Config, Context, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::AnySocket;
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::clock::Instant;

/// Longest packet, in bytes: what every IPv6 link carries (RFC 8200 section 5), so that it fits into any tunnel.
const MTU: usize = 1280;

/// The link: at most one packet that has arrived, and those that leave.
#[derive(Debug, Default)]
struct Wire {
    arrived: Option<Vec<u8>>,
    leaving: Vec<Vec<u8>>,
}

struct Arrived(Vec<u8>);

struct Leaving<'a>(&'a mut Vec<Vec<u8>>);

impl phy::RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl phy::TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _now: SmolInstant) -> Option<(Arrived, Leaving<'_>)> {
        self.arrived.take().map(|packet| (Arrived(packet), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _now: SmolInstant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// The end of the link.
pub struct Stack {
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
}

/// smoltcp's name for the same time, a little late rather than early: what was due then is due now.
fn smol(now: Instant) -> SmolInstant {
    SmolInstant::from_micros((now.as_nanos() / 1000) as i64)
}

impl Stack {
    /// An end with the address `own` and this socket; `seed` makes its sequence numbers.
    pub fn new(now: Instant, own: IpAddr, socket: impl AnySocket<'static>, seed: u64) -> Stack {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut wire = Wire::default();
        let mut interface = Interface::new(config, &mut wire, smol(now));
        interface.update_ip_addrs(|addresses| {
            // There is room for two.
            let _ = addresses.push(IpCidr::new(own.into(), if own.is_ipv4() { 32 } else { 128 }));
        });
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        Stack { interface, wire, sockets, socket }
    }

    /// Lets a packet arrive.
    pub fn receive(&mut self, packet: &[u8]) {
        self.wire.arrived = Some(packet.to_vec());
    }

    /// The socket, and what it needs to connect.
    pub fn socket<T: AnySocket<'static>>(&mut self) -> (&mut T, &mut Context) {
        (self.sockets.get_mut(self.socket), self.interface.context())
    }

    /// Does what has come up by `now`.
    pub fn poll(&mut self, now: Instant) {
        self.interface.poll(smol(now), &mut self.wire, &mut self.sockets);
    }

    /// Packets that leave.
    pub fn take_leaving(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.wire.leaving)
    }

    /// When it is to be polled next.
    pub fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(smol(now), &self.sockets)?;
        Some(Instant::from_nanos(u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1000)))
    }
}
