//! Which virtual host a packet belongs to: the most specific one that has its destination, protocol and port.
//!
//! ```text
//! destination ──Ranges──► longest prefix ──its spans──► (protocol, port)? ──► (any, port)? ──► virtual host
//!                              ▲                                                  │ none
//!                              └───────────── next shorter prefix ◄───────────────┘
//! ```
//!
//! The prefixes are flattened to disjoint ranges of addresses, each with its longest prefix, in a search tree
//! (`Ranges`); shorter prefixes hang on the longer by links. That is one search whatever mix of lengths is in use,
//! five blocks among 100,000 IPv4 prefixes and nine among as many IPv6 prefixes, and then as many links as prefixes
//! cover the address without a matching filter: at most its length in bits, commonly none. A hash table per length
//! needs a probe, so a cache miss, for each length in use down to the one that matches; a trie needs a node for each
//! stride of a long IPv6 prefix. And there is no hash to attack.
//!
//! A prefix's filters become disjoint spans of ports for each protocol (`pattern`), the narrowest on top, so that
//! 65,000 virtual hosts on one address cost one more search. What new flows wait for is memory, so prefixes with
//! equal spans share them, and a range holds its prefix itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::filter::Filter;
use super::pattern::{Pattern, Rule, paint};
use super::ranges::{NONE, Ranges, Starts};
use crate::units::VirtualHostId;

/// Index of all virtual hosts; immutable once built.
#[derive(Clone, Debug)]
pub struct VirtualHosts {
    v4: Prefixes<u32, 16, 4>,
    v6: Prefixes<u128, 4, 4>,
}

impl VirtualHosts {
    /// The index of `services`: addresses, the filters that belong to a virtual host there, and the virtual host.
    ///
    /// Bits of a prefix beyond its length are ignored. A prefix may come several times. Of filters that are equally
    /// specific (same prefix, both with a protocol or both without, ranges of ports equally wide) the earlier one wins.
    pub fn new<'a>(services: impl IntoIterator<Item = (IpNet, &'a [Filter], VirtualHostId)>) -> VirtualHosts {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (net, filters, host) in services {
            let rules = filters.iter().map(|filter| Rule { filter, host });
            match net {
                IpNet::V4(net) => {
                    let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                    v4.extend(rules.map(|rule| Service { first, last, rule }));
                }
                IpNet::V6(net) => {
                    let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
                    v6.extend(rules.map(|rule| Service { first, last, rule }));
                }
            }
        }
        VirtualHosts { v4: Prefixes::new(v4), v6: Prefixes::new(v6) }
    }

    /// The virtual host of packets to an IPv4 address; `port` is 0 for protocols without ports.
    #[inline]
    pub fn find_v4(&self, destination: Ipv4Addr, protocol: u8, port: u16) -> Option<VirtualHostId> {
        self.v4.find(destination.to_bits(), protocol, port)
    }

    /// The virtual host of packets to an IPv6 address; `port` is 0 for protocols without ports.
    #[inline]
    pub fn find_v6(&self, destination: Ipv6Addr, protocol: u8, port: u16) -> Option<VirtualHostId> {
        self.v6.find(destination.to_bits(), protocol, port)
    }

    /// The virtual host of packets to an address; `port` is 0 for protocols without ports.
    #[inline]
    pub fn find(&self, destination: IpAddr, protocol: u8, port: u16) -> Option<VirtualHostId> {
        match destination {
            IpAddr::V4(destination) => self.find_v4(destination, protocol, port),
            IpAddr::V6(destination) => self.find_v6(destination, protocol, port),
        }
    }

    /// Whether an address belongs to any virtual host, for whatever protocol and port.
    pub fn covers(&self, destination: IpAddr) -> bool {
        match destination {
            IpAddr::V4(destination) => self.v4.covers(destination.to_bits()),
            IpAddr::V6(destination) => self.v6.covers(destination.to_bits()),
        }
    }
}

/// What an index asks of an address as a number.
pub(super) trait Address: Copy + Ord {
    const MIN: Self;
    const MAX: Self;

    /// The address after this one; `None` after the last.
    fn next(self) -> Option<Self>;
}

impl Address for u32 {
    const MIN: u32 = u32::MIN;
    const MAX: u32 = u32::MAX;

    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }
}

impl Address for u128 {
    const MIN: u128 = u128::MIN;
    const MAX: u128 = u128::MAX;

    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }
}

/// One filter on the addresses from `first` to `last`, which are a prefix.
struct Service<'a, A> {
    first: A,
    last: A,
    rule: Rule<'a>,
}

/// The prefixes of one address family.
#[derive(Clone, Debug)]
struct Prefixes<A, const U: usize, const L: usize> {
    /// Addresses to their longest prefix.
    ranges: Ranges<A, Prefix, U, L>,
    /// All prefixes, for the links to shorter ones.
    prefixes: Vec<Prefix>,
    patterns: Vec<Pattern>,
}

/// A prefix. Small, since there may be one for each virtual host, and the more of them a cache holds the better.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    /// Position of the next shorter prefix that covers this one, or [`NONE`].
    shorter: u32,
    /// Position of its spans in `patterns`.
    pattern: u32,
    /// The lowest of its virtual hosts, from which the hosts of its spans are counted.
    host: u32,
}

impl Prefix {
    /// Covers addresses that have no prefix; its pattern is the first one, which is empty.
    const NOBODY: Prefix = Prefix { shorter: NONE, pattern: 0, host: 0 };
}

impl<A: Address, const U: usize, const L: usize> Prefixes<A, U, L> {
    fn new(mut services: Vec<Service<'_, A>>) -> Self {
        // Shorter prefixes before the longer that they cover; the order of equal ones stays.
        services.sort_by(|a, b| (a.first, b.last).cmp(&(b.first, a.last)));
        let mut prefixes = Vec::new();
        let mut patterns = vec![Pattern::new(&[])];
        let mut known = HashMap::from([(Vec::new(), Prefix::NOBODY.pattern)]);
        let mut starts = Starts::new(A::MIN);
        // Prefixes that cover the address where we are, with their last address.
        let mut open: Vec<(u32, A)> = Vec::new();
        for same in services.chunk_by(|a, b| (a.first, a.last) == (b.first, b.last)) {
            let (first, last) = (same[0].first, same[0].last);
            close(&mut open, &mut starts, |end| end < first);
            let rules: Vec<Rule<'_>> = same.iter().map(|service| service.rule).collect();
            let mut spans = paint(&rules);
            let host = spans.iter().map(|span| span.host).min().unwrap_or(0);
            spans.iter_mut().for_each(|span| span.host -= host);
            let pattern = *known.entry(spans).or_insert_with_key(|spans| {
                patterns.push(Pattern::new(spans));
                patterns.len() as u32 - 1
            });
            let shorter = open.last().map_or(NONE, |&(prefix, _)| prefix);
            let position = prefixes.len() as u32;
            prefixes.push(Prefix { shorter, pattern, host });
            starts.push(first, position);
            open.push((position, last));
        }
        close(&mut open, &mut starts, |_| true);
        let longest = |position: u32| prefixes.get(position as usize).copied().unwrap_or(Prefix::NOBODY);
        let starts: Vec<(A, Prefix)> =
            starts.0.into_iter().map(|(start, position)| (start, longest(position))).collect();
        Prefixes { ranges: Ranges::new(&starts, A::MAX), prefixes, patterns }
    }

    #[inline]
    fn find(&self, destination: A, protocol: u8, port: u16) -> Option<VirtualHostId> {
        let mut prefix = self.ranges.find(destination);
        loop {
            let host = self.patterns[prefix.pattern as usize].find(protocol, port);
            if host != NONE {
                return Some(VirtualHostId(prefix.host + host));
            }
            prefix = *self.prefixes.get(prefix.shorter as usize)?;
        }
    }

    fn covers(&self, destination: A) -> bool {
        self.ranges.find(destination).pattern != Prefix::NOBODY.pattern
    }
}

/// Ends the open prefixes, the longest first, while their last address is `done`.
pub(super) fn close<A: Address>(open: &mut Vec<(u32, A)>, starts: &mut Starts<A>, done: impl Fn(A) -> bool) {
    while let Some((_, last)) = open.pop_if(|&mut (_, last)| done(last)) {
        if let Some(start) = last.next() {
            starts.push(start, open.last().map_or(NONE, |&(prefix, _)| prefix));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::ops::RangeInclusive;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const ICMP: u8 = 1;

    type Services = Vec<(IpNet, Vec<Filter>)>;

    /// The index in which virtual host `n` is the `n`th service.
    fn index(services: &Services) -> VirtualHosts {
        VirtualHosts::new((0..).zip(services).map(|(host, (net, filters))| (*net, &filters[..], VirtualHostId(host))))
    }

    /// What [`index`] must find, by looking at everything.
    fn oracle(services: &Services, destination: IpAddr, protocol: u8, port: u16) -> Option<VirtualHostId> {
        let mut best = None;
        for (host, (net, filters)) in services.iter().enumerate().filter(|(_, (net, _))| net.contains(&destination)) {
            for filter in filters {
                if filter.protocol.is_none_or(|own| own == protocol) && filter.ports.contains(&port) {
                    let width = filter.ports.end() - filter.ports.start();
                    let rank = (net.prefix_len(), filter.protocol.is_some(), Reverse(width), Reverse(host));
                    best = best.max(Some((rank, VirtualHostId(host as u32))));
                }
            }
        }
        best.map(|(_, host)| host)
    }

    fn filter(protocol: impl Into<Option<u8>>, ports: RangeInclusive<u16>) -> Filter {
        Filter { protocol: protocol.into(), ports }
    }

    fn one(net: &str, filter: Filter) -> (IpNet, Vec<Filter>) {
        (net.parse().unwrap(), vec![filter])
    }

    fn assert_found(services: &Services, cases: &[(&str, u8, u16, Option<u32>)]) {
        let index = index(services);
        for &(destination, protocol, port, host) in cases {
            let found = index.find(destination.parse().unwrap(), protocol, port);
            assert_eq!(found, host.map(VirtualHostId), "{destination} {protocol}/{port}");
        }
    }

    #[test]
    fn the_longest_prefix_with_a_matching_filter_wins() {
        let services = vec![
            one("0.0.0.0/0", filter(UDP, Filter::ALL_PORTS)),
            one("10.0.0.0/8", Filter::ANY),
            one("10.1.0.0/16", filter(TCP, 80..=80)),
            one("10.1.2.0/24", filter(TCP, 443..=443)),
            one("10.1.2.3/32", filter(TCP, 22..=22)),
            one("255.255.255.255/32", Filter::ANY),
        ];
        assert_found(
            &services,
            &[
                ("10.1.2.3", TCP, 22, Some(4)),
                ("10.1.2.3", TCP, 443, Some(3)),
                ("10.1.2.3", TCP, 80, Some(2)),
                ("10.1.2.3", TCP, 8080, Some(1)),
                ("10.1.2.4", TCP, 22, Some(1)),
                ("10.1.2.255", TCP, 443, Some(3)),
                ("10.1.3.0", TCP, 443, Some(1)),
                ("10.1.255.255", TCP, 80, Some(2)),
                ("10.2.0.0", TCP, 80, Some(1)),
                ("10.255.255.255", ICMP, 0, Some(1)),
                ("11.0.0.0", TCP, 80, None),
                ("11.0.0.0", UDP, 53, Some(0)),
                ("0.0.0.0", UDP, 53, Some(0)),
                ("255.255.255.254", UDP, 53, Some(0)),
                ("255.255.255.255", UDP, 53, Some(5)),
                ("::", UDP, 53, None),
            ],
        );
    }

    #[test]
    fn ipv6_prefixes_of_every_length_cover_their_first_and_last_address() {
        let base: u128 = 0x2001_0db8_aaaa_5555_f0f0_0f0f_1234_9876;
        let mut services: Services = (0..=128)
            .map(|length| (ipnet::Ipv6Net::new_assert(base.into(), length).trunc().into(), vec![Filter::ANY]))
            .collect();
        services.push(one("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", Filter::ANY));
        let index = index(&services);
        assert_eq!(index.find_v6(base.into(), TCP, 80), Some(VirtualHostId(128)));
        for length in 0..128 {
            let neighbour = base ^ (1 << (127 - length));
            assert_eq!(index.find_v6(neighbour.into(), TCP, 80), Some(VirtualHostId(length)), "{length}");
        }
        assert_eq!(index.find_v6(u128::MAX.into(), TCP, 80), Some(VirtualHostId(129)));
        assert_eq!(index.find_v6((u128::MAX - 1).into(), TCP, 80), Some(VirtualHostId(0)));
        assert_eq!(index.find_v4(Ipv4Addr::BROADCAST, TCP, 80), None);
    }

    #[test]
    fn at_one_prefix_a_protocol_beats_any_and_few_ports_beat_many() {
        let services = vec![
            one("192.0.2.1/32", Filter::ANY),
            one("192.0.2.1/32", filter(None, 80..=80)),
            one("192.0.2.1/32", filter(TCP, Filter::ALL_PORTS)),
            one("192.0.2.1/32", filter(TCP, 1000..=1999)),
            one("192.0.2.1/32", filter(TCP, 1500..=1509)),
            one("192.0.2.1/32", filter(TCP, 1505..=1505)),
            one("192.0.2.1/32", filter(TCP, 1990..=2100)),
            one("192.0.2.1/32", filter(TCP, 65535..=65535)),
            one("192.0.2.1/32", filter(UDP, 80..=81)),
            one("192.0.2.1/32", filter(UDP, 81..=82)),
        ];
        assert_found(
            &services,
            &[
                ("192.0.2.1", TCP, 80, Some(2)),
                ("192.0.2.1", TCP, 999, Some(2)),
                ("192.0.2.1", TCP, 1000, Some(3)),
                ("192.0.2.1", TCP, 1500, Some(4)),
                ("192.0.2.1", TCP, 1505, Some(5)),
                ("192.0.2.1", TCP, 1509, Some(4)),
                ("192.0.2.1", TCP, 1510, Some(3)),
                ("192.0.2.1", TCP, 1989, Some(3)),
                ("192.0.2.1", TCP, 1990, Some(6)),
                ("192.0.2.1", TCP, 2100, Some(6)),
                ("192.0.2.1", TCP, 2101, Some(2)),
                ("192.0.2.1", TCP, 65535, Some(7)),
                ("192.0.2.1", UDP, 0, Some(0)),
                ("192.0.2.1", UDP, 80, Some(8)),
                ("192.0.2.1", UDP, 81, Some(8)), // equally wide: the earlier
                ("192.0.2.1", UDP, 82, Some(9)),
                ("192.0.2.1", UDP, 83, Some(0)),
                ("192.0.2.1", ICMP, 0, Some(0)),
                ("192.0.2.1", 255, 80, Some(1)),
            ],
        );
    }

    #[test]
    fn bits_beyond_the_prefix_do_not_count() {
        assert_found(
            &vec![one("198.51.100.77/24", Filter::ANY)],
            &[("198.51.100.0", TCP, 1, Some(0)), ("198.51.101.77", TCP, 1, None)],
        );
    }

    #[test]
    fn nothing_is_found_in_nothing() {
        let cases = [("0.0.0.0", TCP, 0, None), ("255.255.255.255", TCP, 0, None), ("::1", TCP, 0, None)];
        assert_found(&vec![], &cases);
        assert_found(&vec![("0.0.0.0/0".parse().unwrap(), vec![])], &cases);
    }

    #[test]
    fn one_address_holds_a_virtual_host_per_port() {
        let mut services: Services =
            (0..=u16::MAX).step_by(2).map(|port| one("192.0.2.1/32", filter(TCP, port..=port))).collect();
        services.push(one("192.0.2.0/24", filter(TCP, 0..=60_001)));
        services.push(one("192.0.2.1/32", filter(None, 3..=3)));
        let shorter = Some(VirtualHostId(services.len() as u32 - 2));
        let index = index(&services);
        for port in 0..=u16::MAX {
            let expected = match port {
                3 => Some(VirtualHostId(services.len() as u32 - 1)),
                even if even % 2 == 0 => Some(VirtualHostId(u32::from(port) / 2)),
                ..=60_001 => shorter,
                _ => None,
            };
            assert_eq!(index.find_v4(Ipv4Addr::new(192, 0, 2, 1), TCP, port), expected, "{port}");
        }
    }

    #[test]
    fn a_hundred_thousand_prefixes_are_told_apart() {
        // Lengths 16 to 32 in turn, spread by an odd multiplier, so that many lie in one another.
        let services: Services = (0..100_000u32)
            .map(|i| {
                let address = Ipv4Addr::from(i.wrapping_mul(0x9e37_79b1));
                (ipnet::Ipv4Net::new_assert(address, 16 + (i % 17) as u8).trunc().into(), vec![Filter::ANY])
            })
            .collect();
        let index = index(&services);
        for i in (0..100_000).step_by(1009) {
            let destination = services[i].0.addr();
            assert_eq!(index.find(destination, TCP, 80), oracle(&services, destination, TCP, 80), "{destination}");
        }
    }

    /// An address with few distinct bits, so that prefixes made from it meet.
    fn address() -> impl Strategy<Value = IpAddr> {
        let octet = || prop::sample::select(&[0u8, 1, 0x7f, 0x80, 0xff][..]);
        prop_oneof![
            prop::array::uniform4(octet()).prop_map(IpAddr::from),
            prop::array::uniform4(octet())
                .prop_map(|[a, b, c, d]| { IpAddr::from([a, b, 0, 0, 0, 0, 0, c, c, 0, 0, 0, 0, 0, 0, d]) }),
        ]
    }

    fn service() -> impl Strategy<Value = (IpNet, Vec<Filter>)> {
        let net = (address(), any::<u8>()).prop_map(|(address, length)| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            IpNet::new_assert(address, length % (bits + 1))
        });
        let protocol = prop_oneof![Just(None), Just(Some(TCP)), Just(Some(UDP)), Just(Some(0)), Just(Some(255))];
        let port = || prop_oneof![0u16..40, 65_500..=u16::MAX];
        let ports = prop_oneof![
            3 => (port(), port()).prop_map(|(a, b)| a.min(b)..=a.max(b)),
            1 => Just(Filter::ALL_PORTS),
        ];
        (net, vec((protocol, ports).prop_map(|(protocol, ports)| Filter { protocol, ports }), 0..5))
    }

    fn assert_as_oracle(services: &Services, destinations: &[IpAddr]) {
        let index = index(services);
        let of_nets = services.iter().flat_map(|(net, _)| [net.network(), net.broadcast()]);
        for destination in of_nets.chain(destinations.iter().copied()) {
            for protocol in [0, ICMP, TCP, UDP, 255] {
                for port in (0..=40).chain(65_499..=u16::MAX).step_by(3) {
                    let (found, expected) =
                        (index.find(destination, protocol, port), oracle(services, destination, protocol, port));
                    assert_eq!(found, expected, "{destination} {protocol}/{port}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn nested_prefixes_are_found_as_by_looking_at_everything(
            services in vec(service(), 0..40),
            destinations in vec(address(), 8),
        ) {
            assert_as_oracle(&services, &destinations);
        }

        #[test]
        fn crowded_prefixes_are_found_as_by_looking_at_everything(
            filters in vec(service(), 20..80),
            nets in prop::array::uniform3(service()),
            destinations in vec(address(), 2),
        ) {
            let services = (0..).zip(filters).map(|(i, (_, filters))| (nets[i % 3].0, filters)).collect();
            assert_as_oracle(&services, &destinations);
        }
    }
}
