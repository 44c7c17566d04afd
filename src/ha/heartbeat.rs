//! What a router of a pair says about itself to the other one, over a [`link`](super::link).
//!
//! ```text
//! offset bytes
//!      0     1  what it is: 0 initial, 1 standby, 2 active, 3 inoperative
//!      1     1  its priority now; 0: it gives the addresses up, or must not have them
//!      2     2  how often it says so, in hundredths of a second
//!      4    16  address of its access port; IPv4 as ::ffff:a.b.c.d
//! ```

use std::net::IpAddr;
use std::time::Duration;

use super::election::{Heard, Path, Role};

/// Kind of the datagrams.
pub const KIND: u8 = 1;

const LEN: usize = 20;

/// A heartbeat's bytes.
pub fn write(role: Role, priority: u8, interval: Duration, identity: IpAddr) -> Vec<u8> {
    let centiseconds = u16::try_from(interval.as_millis() / 10).unwrap_or(u16::MAX);
    let identity = match identity {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    [&[role as u8, priority][..], &centiseconds.to_be_bytes(), &identity.octets()].concat()
}

/// What a heartbeat says; `None` where it is none.
pub fn read(body: &[u8]) -> Option<Heard> {
    let body: &[u8; LEN] = body.try_into().ok()?;
    let [role, priority, a, b, identity @ ..] = *body;
    let active = *Role::ALL.get(usize::from(role))? == Role::Active;
    let interval = Duration::from_millis(10 * u64::from(u16::from_be_bytes([a, b])));
    Some(Heard { path: Path::Peer, active, priority, from: IpAddr::from(identity).to_canonical(), interval })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_read_as_it_was_written() {
        let identity: IpAddr = "10.0.1.1".parse().unwrap();
        for role in Role::ALL {
            let interval = Duration::from_millis(10);
            let bytes = write(*role, 200, interval, identity);
            let active = *role == Role::Active;
            assert_eq!(read(&bytes), Some(Heard { path: Path::Peer, active, priority: 200, from: identity, interval }));
            assert_eq!(read(&bytes[1..]), None);
        }
        assert_eq!(read(&[4; LEN]), None, "no such role");
    }
}
