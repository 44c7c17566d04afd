//! Advertisements of VRRP version 3 as bytes (RFC 9568 section 5.2).
//!
//! ```text
//! offset bytes
//!      0     1  version 3, type 1
//!      1     1  number of the virtual router
//!      2     1  priority; 0: the sender gives the addresses up
//!      3     1  number of addresses
//!      4     2  four reserved bits, then the interval in hundredths of a second
//!      6     2  checksum
//!      8   4*n  addresses, or 16*n
//! ```
//!
//! Over IPv4 RFC 5798 had a pseudo-header in the checksum, as there is over IPv6, and RFC 9568 has none. Both are taken. What is
//! in use has it (keepalived 2.2 refuses the other), so that is sent, unless another is heard that does without.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::packet::checksum::{Sum, checksum, pseudo_v4, pseudo_v6};
use crate::packet::parse::{Family, Fragment, parse_ip};
use crate::packet::protocol::VRRP;
use crate::units::MacAddr;

/// Who hears advertisements over IPv4 (RFC 9568 section 5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Who hears advertisements over IPv6 (RFC 9568 section 5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// TTL or hop limit of every advertisement: none has come through a router (RFC 9568 sections 5.1.1.3, 5.1.2.3).
pub const HOP_LIMIT: u8 = 255;

const VERSION_TYPE: u8 = 0x31;
const HEADER: usize = 8;
const INTERVAL_MAX: u16 = 0x0fff;

/// What an advertisement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Number of the virtual router, from 1.
    pub id: u8,
    /// Priority of the sender; 0: it gives the addresses up.
    pub priority: u8,
    /// From one advertisement to the next; in hundredths of a second.
    pub interval: Duration,
    /// The addresses, all of the family that it is sent over.
    pub addresses: Vec<IpAddr>,
}

/// What the checksum of an advertisement is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// The message, and a pseudo-header with the addresses of its packet.
    WithAddresses,
    /// The message alone.
    Alone,
}

/// Why a packet is no advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It has come through a router.
    HopLimit,
    /// Its checksum is wrong.
    Checksum,
    /// It is of another version or kind, or cut off.
    Malformed,
}

impl Advertisement {
    /// The message as it is sent from `source`, over IPv4 with a checksum of this kind.
    pub fn write(&self, source: IpAddr, checked: Checked) -> Vec<u8> {
        let centiseconds = u16::try_from(self.interval.as_millis() / 10).unwrap_or(INTERVAL_MAX).min(INTERVAL_MAX);
        let count = self.addresses.len() as u8;
        let mut bytes = vec![VERSION_TYPE, self.id, self.priority, count];
        bytes.extend(centiseconds.to_be_bytes());
        bytes.extend([0, 0]);
        for address in &self.addresses {
            match address {
                IpAddr::V4(address) => bytes.extend(address.octets()),
                IpAddr::V6(address) => bytes.extend(address.octets()),
            }
        }
        let sum = match source {
            IpAddr::V4(_) if checked == Checked::Alone => checksum(&bytes),
            IpAddr::V4(source) => over_v4(source, GROUP_V4, &bytes).add_bytes(&bytes).finish(),
            IpAddr::V6(source) => over_v6(source, GROUP_V6, &bytes).add_bytes(&bytes).finish(),
        };
        bytes[6..8].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// What an IP packet of this protocol says, who says it, and how that is checked.
    ///
    /// # Errors
    /// Why it is to be discarded (RFC 9568 section 7.1).
    pub fn read(packet: &[u8]) -> Result<(Advertisement, IpAddr, Checked), Unreadable> {
        let parsed = parse_ip(packet, packet.len()).map_err(|_| Unreadable::Malformed)?;
        if parsed.protocol != VRRP || parsed.fragment != Fragment::None {
            return Err(Unreadable::Malformed);
        }
        let hop_limit = if parsed.family == Family::V4 { packet.get(8) } else { packet.get(7) };
        if hop_limit != Some(&HOP_LIMIT) {
            return Err(Unreadable::HopLimit);
        }
        let message = packet.get(usize::from(parsed.l4_offset)..parsed.l3_len as usize).ok_or(Unreadable::Malformed)?;
        let (source, destination) = (parsed.source(packet), parsed.destination(packet));
        let (header, rest) = message.split_first_chunk::<HEADER>().ok_or(Unreadable::Malformed)?;
        let [version_type, id, priority, count, a, b, ..] = *header;
        let size = if source.is_ipv4() { 4 } else { 16 };
        let addresses = rest.get(..size * usize::from(count)).ok_or(Unreadable::Malformed)?;
        if version_type != VERSION_TYPE || id == 0 || count == 0 {
            return Err(Unreadable::Malformed);
        }
        let pseudo = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => over_v4(source, destination, message),
            (IpAddr::V6(source), IpAddr::V6(destination)) => over_v6(source, destination, message),
            _ => return Err(Unreadable::Malformed),
        };
        let checked = if pseudo.add_bytes(message).finish() == 0 {
            Checked::WithAddresses
        } else if source.is_ipv4() && checksum(message) == 0 {
            Checked::Alone
        } else {
            return Err(Unreadable::Checksum);
        };
        let address = |octets: &[u8]| -> Option<IpAddr> {
            let v4 = || <[u8; 4]>::try_from(octets).map(IpAddr::from);
            v4().or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
        };
        let addresses = addresses.chunks_exact(size).filter_map(address).collect();
        let interval = Duration::from_millis(10 * u64::from(u16::from_be_bytes([a, b]) & INTERVAL_MAX));
        Ok((Advertisement { id, priority, interval, addresses }, source, checked))
    }
}

fn over_v4(source: Ipv4Addr, destination: Ipv4Addr, message: &[u8]) -> Sum {
    pseudo_v4(source.octets(), destination.octets(), VRRP, message.len() as u16)
}

fn over_v6(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Sum {
    pseudo_v6(&source.octets(), &destination.octets(), VRRP, message.len() as u32)
}

/// The Ethernet address of a virtual router in a family (RFC 9568 section 7.3).
pub fn virtual_mac(id: u8, ipv4: bool) -> MacAddr {
    MacAddr([0x00, 0x00, 0x5e, 0x00, if ipv4 { 1 } else { 2 }, id])
}

/// The Ethernet address of everyone who hears advertisements over IPv4 (RFC 1112 section 6.4).
pub const GROUP_MAC_V4: MacAddr = MacAddr([0x01, 0x00, 0x5e, 0x00, 0x00, 0x12]);

/// The link-local address that an Ethernet address makes (RFC 4291 section 2.5.6 and appendix A).
pub fn link_local(MacAddr([a, b, c, d, e, f]): MacAddr) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::IntoBytes;
    use zerocopy::network_endian::{U16, U32};

    use super::*;
    use crate::packet::ipv4::Ipv4Header;
    use crate::packet::ipv6::Ipv6Header;

    fn packet(source: IpAddr, hop_limit: u8, message: &[u8]) -> Vec<u8> {
        let header = match source {
            IpAddr::V4(source) => {
                let mut header = Ipv4Header {
                    version_ihl: Ipv4Header::VERSION_IHL,
                    dscp_ecn: 0xc0,
                    total_length: U16::new((Ipv4Header::LEN + message.len()) as u16),
                    identification: U16::ZERO,
                    flags_fragment: U16::ZERO,
                    ttl: hop_limit,
                    protocol: VRRP,
                    checksum: U16::ZERO,
                    source: source.octets(),
                    destination: GROUP_V4.octets(),
                };
                header.fill_checksum();
                header.as_bytes().to_vec()
            }
            IpAddr::V6(source) => {
                let (source, destination) = (source.octets(), GROUP_V6.octets());
                let payload_length = U16::new(message.len() as u16);
                let version_class_flow = U32::new(6 << 28);
                Ipv6Header { version_class_flow, payload_length, next_header: VRRP, hop_limit, source, destination }
                    .as_bytes()
                    .to_vec()
            }
        };
        [&header, message].concat()
    }

    fn advertisement(v6: bool) -> (Advertisement, IpAddr) {
        let (addresses, source) = if v6 {
            (vec!["fe80::200:5eff:fe00:233", "2001:db8:1::10"], "fe80::1")
        } else {
            (vec!["10.0.1.10", "10.0.1.11"], "10.0.1.1")
        };
        let addresses = addresses.iter().map(|one| one.parse().unwrap()).collect();
        let interval = Duration::from_millis(10);
        (Advertisement { id: 51, priority: 200, interval, addresses }, source.parse().unwrap())
    }

    #[test]
    fn an_advertisement_is_laid_out_as_rfc_9568_says() {
        let (advertisement, source) = advertisement(false);
        let bytes = advertisement.write(source, Checked::Alone);
        assert_eq!(bytes[..6], [0x31, 51, 200, 2, 0, 1]);
        assert_eq!(bytes[8..], [10, 0, 1, 10, 10, 0, 1, 11]);
        assert_eq!(checksum(&bytes), 0, "over the message alone");
        // As keepalived 2.2.7 sends it with one address, and takes it.
        let one = Advertisement { priority: 150, interval: Duration::from_millis(100), ..advertisement };
        let one = Advertisement { addresses: vec!["10.0.1.10".parse().unwrap()], ..one };
        let bytes = one.write("10.0.1.2".parse().unwrap(), Checked::WithAddresses);
        assert_eq!(bytes, [0x31, 51, 150, 1, 0, 10, 0x42, 0x26, 10, 0, 1, 10]);
    }

    #[test]
    fn what_is_written_is_read_and_nothing_that_was_changed_is() {
        let (with, alone) = (Checked::WithAddresses, Checked::Alone);
        for (v6, checked) in [(false, with), (false, alone), (true, with)] {
            let (advertisement, source) = advertisement(v6);
            let whole = packet(source, HOP_LIMIT, &advertisement.write(source, checked));
            assert_eq!(Advertisement::read(&whole), Ok((advertisement.clone(), source, checked)));
            let message = if v6 { 40 } else { 20 };
            for byte in message..whole.len() {
                let mut changed = whole.clone();
                changed[byte] ^= 0x10;
                assert!(Advertisement::read(&changed).is_err(), "byte {byte}");
                assert!(Advertisement::read(&whole[..byte]).is_err(), "cut at {byte}");
            }
            let far = packet(source, HOP_LIMIT - 1, &advertisement.write(source, checked));
            assert_eq!(Advertisement::read(&far), Err(Unreadable::HopLimit));
        }
    }

    #[test]
    fn addresses_of_a_virtual_router() {
        assert_eq!(virtual_mac(51, true).to_string(), "00:00:5e:00:01:33");
        assert_eq!(link_local(virtual_mac(51, false)), "fe80::200:5eff:fe00:233".parse::<Ipv6Addr>().unwrap());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_and_written_alike(
            mut message in proptest::collection::vec(any::<u8>(), 0..64),
            v6 in any::<bool>(),
        ) {
            let (_, source) = advertisement(v6);
            if message.len() >= HEADER {
                (message[0], message[3]) = (VERSION_TYPE, message[3] % 3);
                message[6..8].fill(0);
                let sum = match source {
                    IpAddr::V4(_) => checksum(&message),
                    IpAddr::V6(source) => over_v6(source, GROUP_V6, &message).add_bytes(&message).finish(),
                };
                message[6..8].copy_from_slice(&sum.to_be_bytes());
            }
            if let Ok((read, from, checked)) = Advertisement::read(&packet(source, HOP_LIMIT, &message)) {
                let again = packet(from, HOP_LIMIT, &read.write(from, checked));
                prop_assert_eq!(Advertisement::read(&again), Ok((read, from, checked)));
            }
        }
    }
}
