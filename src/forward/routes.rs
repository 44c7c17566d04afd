//! Where a packet goes that is for no service, when the router forwards such packets: by the longest prefix around its
//! destination.
//!
//! ```text
//! destination ─► static route ────────► next hop ─► Path
//!                port's subnet ───────► Unresolved: the slow path asks for the destination itself
//!                known neighbour /32 ─► Path
//! ```

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::units::{MacAddr, PathId};

/// What is behind a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// This path, whose template changes only the link layer.
    Path(PathId),
    /// A next hop whose link-layer address is not known.
    Unresolved,
    /// Nobody: a subnet's own and its broadcast address.
    Nobody,
}

/// Something for each prefix of either family.
#[derive(Clone, Debug)]
pub struct ByPrefix<T> {
    v4: PrefixMap<Ipv4Net, T>,
    v6: PrefixMap<Ipv6Net, T>,
}

impl<T> Default for ByPrefix<T> {
    fn default() -> ByPrefix<T> {
        ByPrefix { v4: PrefixMap::default(), v6: PrefixMap::default() }
    }
}

impl<T: Copy> ByPrefix<T> {
    /// Adds what is behind `prefix`, in the place of what was there.
    pub fn insert(&mut self, prefix: IpNet, what: T) {
        match prefix {
            IpNet::V4(prefix) => drop(self.v4.insert(prefix.trunc(), what)),
            IpNet::V6(prefix) => drop(self.v6.insert(prefix.trunc(), what)),
        }
    }

    /// What is behind the longest prefix around `address`.
    pub fn find(&self, address: IpAddr) -> Option<T> {
        match address {
            IpAddr::V4(address) => self.v4.get_lpm(&Ipv4Net::from(address)).map(|(_, what)| *what),
            IpAddr::V6(address) => self.v6.get_lpm(&Ipv6Net::from(address)).map(|(_, what)| *what),
        }
    }
}

/// The forwarding table.
#[derive(Clone, Debug)]
pub struct Routes {
    /// What is behind each prefix.
    pub ways: ByPrefix<Way>,
    /// Our link-layer addresses, by port: a frame for another is not ours to forward.
    pub macs: Vec<MacAddr>,
}

/// Whether packets between these addresses may pass a router at all (RFC 1812 section 5.3.7, RFC 4291 section 2.5).
pub fn may_pass(source: IpAddr, destination: IpAddr) -> bool {
    let local = |address: IpAddr| match address {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_link_local()
                || address.is_multicast()
                || address.octets()[0] == 0
                || address.octets()[0] >= 240
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_unicast_link_local()
        }
    };
    !local(source) && !local(destination)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_addresses_of_one_machine_that_mean_something_elsewhere_pass() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (other, passes) in [
            ("192.0.2.9", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("224.0.0.1", false),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
            ("2001:db8::9", true),
            ("fd00::1", true),
            ("::", false),
            ("::1", false),
            ("fe80::1", false),
            ("ff02::1", false),
        ] {
            let fine = if other.contains(':') { address("2001:db8::1") } else { address("198.51.100.1") };
            assert_eq!(may_pass(address(other), fine), passes, "from {other}");
            assert_eq!(may_pass(fine, address(other)), passes, "to {other}");
        }
    }

    proptest! {
        #[test]
        fn the_longest_prefix_counts(
            routes in prop::collection::vec((any::<u32>(), 0..=32u8), 0..60),
            asked in any::<u32>(),
            near in any::<prop::sample::Index>(),
        ) {
            let routes: Vec<(Ipv4Net, Way)> = routes
                .into_iter()
                .zip(0..)
                // Few different bits, so that prefixes contain each other.
                .map(|((address, len), id)| {
                    let net = Ipv4Net::new((address & 0x8103_0003).into(), len).expect("a length");
                    (net.trunc(), Way::Path(PathId(id)))
                })
                .collect();
            let mut table = ByPrefix::default();
            routes.iter().for_each(|(prefix, way)| table.insert((*prefix).into(), *way));
            let asked = if routes.is_empty() { asked.into() } else { routes[near.index(routes.len())].0.addr() };
            // Of equal prefixes the last counts.
            let around = routes.iter().filter(|(prefix, _)| prefix.contains(&asked));
            let longest = around.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, way)| *way);
            prop_assert_eq!(table.find(asked.into()), longest);
        }
    }
}
