//! Which region a client is in, by its address: what only new flows of virtual hosts with costs by region ask.
//!
//! ```text
//! source ──► longest of the operator's prefixes ──none──► the database's network ──none──► in no region
//! ```
//!
//! What the operator writes says more than a database, however small the database's networks are. Neighbouring networks of
//! one region are one range, so that a continent is not the sum of its providers.

use std::net::IpAddr;

use ipnet::IpNet;

use super::lookup::{Address, close};
use super::ranges::{NONE, Ranges, Starts};
use crate::units::RegionId;

/// The regions of all clients; immutable once built.
#[derive(Clone, Debug)]
pub struct Regions {
    given: Both,
    placed: Both,
}

impl Regions {
    /// Those of the operator's prefixes, of which the longest around an address counts, and of a database's networks.
    pub fn new(
        given: impl IntoIterator<Item = (IpNet, RegionId)>,
        placed: impl IntoIterator<Item = (IpNet, RegionId)>,
    ) -> Regions {
        Regions { given: Both::new(given), placed: Both::new(placed) }
    }

    /// That of the client with this address.
    pub fn find(&self, client: IpAddr) -> RegionId {
        match self.given.find(client) {
            RegionId::NONE => self.placed.find(client),
            region => region,
        }
    }

    /// Ranges of addresses that are told apart: each takes about 6 bytes of IPv4, and 22 of IPv6.
    pub fn ranges(&self) -> usize {
        self.given.ranges + self.placed.ranges
    }
}

impl Default for Regions {
    fn default() -> Regions {
        Regions::new([], [])
    }
}

/// The ranges of both families.
#[derive(Clone, Debug)]
struct Both {
    v4: Ranges<u32, RegionId, 16, 12>,
    v6: Ranges<u128, RegionId, 4, 3>,
    ranges: usize,
}

impl Both {
    fn new(prefixes: impl IntoIterator<Item = (IpNet, RegionId)>) -> Both {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, region) in prefixes {
            match prefix {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits(), region)),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits(), region)),
            }
        }
        let (v4, v6) = (flat(v4), flat(v6));
        let ranges = v4.len() + v6.len();
        Both { v4: Ranges::new(&v4, u32::MAX), v6: Ranges::new(&v6, u128::MAX), ranges }
    }

    fn find(&self, address: IpAddr) -> RegionId {
        match address {
            IpAddr::V4(address) => self.v4.find(address.to_bits()),
            IpAddr::V6(address) => self.v6.find(address.to_bits()),
        }
    }
}

/// Where another region begins, from the least address on, when of prefixes (first and last address) the longest counts.
fn flat<A: Address>(mut prefixes: Vec<(A, A, RegionId)>) -> Vec<(A, RegionId)> {
    // Shorter prefixes before the longer that they cover.
    prefixes.sort_by(|a, b| (a.0, b.1).cmp(&(b.0, a.1)));
    let mut starts = Starts::new(A::MIN);
    let mut open: Vec<(u32, A)> = Vec::new();
    for (first, last, region) in prefixes {
        close(&mut open, &mut starts, |end| end < first);
        starts.push(first, region.0.into());
        open.push((region.0.into(), last));
    }
    close(&mut open, &mut starts, |_| true);
    let region = |value| if value == NONE { RegionId::NONE } else { RegionId(value as u8) };
    let mut flat: Vec<(A, RegionId)> = starts.0.into_iter().map(|(start, value)| (start, region(value))).collect();
    flat.dedup_by_key(|(_, region)| *region);
    flat
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_operators_longest_prefix_counts_and_a_database_only_where_there_is_none() {
        let given = [("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("2001:db8::/32", 2), ("255.255.255.255/32", 1)];
        let placed = [("10.1.2.0/24", 3), ("11.0.0.0/8", 3), ("11.0.0.0/9", 3), ("12.0.0.0/8", 3), ("::/1", 1)];
        let regions =
            |list: &[(&str, u8)]| list.iter().map(|(text, id)| (net(text), RegionId(*id))).collect::<Vec<_>>();
        let regions = Regions::new(regions(&given), regions(&placed));
        for (client, region) in [
            ("9.255.255.255", 0),
            ("10.0.0.0", 1),
            ("10.1.0.0", 2),
            ("10.1.2.3", 2),
            ("10.2.0.0", 1),
            ("10.255.255.255", 1),
            ("11.0.0.1", 3),
            ("12.255.255.255", 3),
            ("13.0.0.0", 0),
            ("255.255.255.254", 0),
            ("255.255.255.255", 1),
            ("2001:db8::1", 2),
            ("2001:db9::1", 1),
            ("8000::", 0),
        ] {
            assert_eq!(regions.find(ip(client)), RegionId(region), "{client}");
        }
        // What is beside each other in one region is one range.
        assert_eq!(regions.placed.ranges, 5 + 2);
        assert_eq!(Regions::default().find(ip("10.0.0.1")), RegionId::NONE);
    }

    /// A prefix with few distinct bits, so that prefixes meet.
    fn prefix() -> impl Strategy<Value = IpNet> {
        let octet = || prop::sample::select(&[0u8, 1, 0x7f, 0x80, 0xff][..]);
        let address = prop_oneof![
            prop::array::uniform4(octet()).prop_map(IpAddr::from),
            prop::array::uniform16(octet()).prop_map(IpAddr::from),
        ];
        (address, any::<u8>()).prop_map(|(address, length)| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            IpNet::new_assert(address, length % (bits + 1)).trunc()
        })
    }

    proptest! {
        #[test]
        fn nested_prefixes_are_found_as_by_looking_at_all(nets in vec(prefix(), 0..30), others in vec(prefix(), 0..9)) {
            // Of the same prefix the first one counts.
            let all: std::collections::BTreeMap<IpNet, RegionId> =
                nets.iter().zip(1..=u8::MAX).rev().map(|(net, id)| (*net, RegionId(id % 4 + 1))).collect();
            let regions = Regions::new(all.clone(), []);
            let ends = |net: &IpNet| [net.network(), net.broadcast()];
            for client in nets.iter().chain(&others).flat_map(ends) {
                let around = all.iter().filter(|(net, _)| net.contains(&client));
                let expected = around.max_by_key(|(net, _)| net.prefix_len()).map_or(RegionId::NONE, |(_, id)| *id);
                prop_assert_eq!(regions.find(client), expected, "{}", client);
            }
        }
    }
}
