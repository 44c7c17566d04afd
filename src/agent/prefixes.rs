//! The prefixes that are served here, each with its number, and which of them an address lies in.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::config::host::HostedService;

/// Prefixes of all virtual hosts, each once.
#[derive(Debug, Default)]
pub struct Prefixes {
    all: Vec<IpNet>,
    v4: PrefixMap<Ipv4Net, usize>,
    v6: PrefixMap<Ipv6Net, usize>,
}

impl Prefixes {
    /// Those of some virtual hosts, and for each of these the numbers of its prefixes.
    pub fn new(hosts: &[HostedService]) -> (Prefixes, Vec<Vec<usize>>) {
        let mut prefixes = Prefixes::default();
        let numbers = hosts.iter().map(|host| host.addresses.iter().map(|net| prefixes.add(*net)).collect());
        let numbers = numbers.collect();
        (prefixes, numbers)
    }

    fn add(&mut self, net: IpNet) -> usize {
        let next = self.all.len();
        let number = match net {
            IpNet::V4(net) => *self.v4.entry(net).or_insert(next),
            IpNet::V6(net) => *self.v6.entry(net).or_insert(next),
        };
        if number == next {
            self.all.push(net);
        }
        number
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Each with its number as its position.
    pub fn all(&self) -> &[IpNet] {
        &self.all
    }

    /// The number of the longest one that an address lies in.
    pub fn find(&self, address: IpAddr) -> Option<usize> {
        match address {
            IpAddr::V4(address) => self.v4.get_lpm(&Ipv4Net::from(address)).map(|(_, number)| *number),
            IpAddr::V6(address) => self.v6.get_lpm(&Ipv6Net::from(address)).map(|(_, number)| *number),
        }
    }
}
