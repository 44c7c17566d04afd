//! What a child has said last, and what that means for a virtual host.

use std::cmp::Reverse;

use ipnet::IpNet;

use crate::control::wire::{Load, Record, State};
use crate::service::filter::Filter;

/// What is known about a child in one virtual host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serves {
    /// Whether it takes new flows.
    pub state: State,
    /// The highest load of all that belongs to the virtual host.
    pub load: Load,
    /// The lowest capacity of all that belongs to it.
    pub capacity: u32,
}

/// The records of a snapshot, to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// By prefix, then by service.
    records: Vec<Record>,
    /// Lengths of IPv4 and of IPv6 prefixes that there are, the longest first.
    lengths: [Vec<u8>; 2],
}

impl Report {
    /// A snapshot. Of records for the same thing the last one counts.
    pub fn new(mut records: Vec<Record>) -> Report {
        let place = |record: &Record| {
            let Filter { protocol, ports } = &record.service;
            (record.prefix, *protocol, *ports.start(), *ports.end())
        };
        // Children say them in the same order each time, mostly in this one.
        records.sort_by_key(place);
        records.dedup_by(|later, kept| {
            let alike = place(later) == place(kept);
            if alike {
                std::mem::swap(later, kept);
            }
            alike
        });
        let mut lengths = [Vec::new(), Vec::new()];
        for record in &records {
            let (own, length) = (&mut lengths[usize::from(record.prefix.addr().is_ipv6())], record.prefix.prefix_len());
            if !own.contains(&length) {
                own.push(length);
            }
        }
        lengths.iter_mut().for_each(|own| own.sort_unstable_by_key(|length| Reverse(*length)));
        Report { records, lengths }
    }

    /// Records, those about the same thing once.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All of it.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// Whether `other` is about the same things, each in the same place.
    pub fn is_alike(&self, other: &Report) -> bool {
        let about = |record: &Record| (record.prefix, record.service.clone());
        self.records.iter().map(about).eq(other.records.iter().map(about))
    }

    /// What the record in a place says.
    pub fn at(&self, place: u32) -> Option<Serves> {
        let Record { state, load, capacity, .. } = *self.records.get(place as usize)?;
        Some(Serves { state, load, capacity })
    }

    /// What it says of the virtual host with these addresses and services; `None` where it does not cover all of them.
    pub fn of(&self, addresses: &[IpNet], services: &[Filter]) -> Option<Serves> {
        let mut all: Option<Serves> = None;
        for (address, service) in addresses.iter().flat_map(|address| services.iter().map(move |one| (address, one))) {
            let Serves { state, load, capacity } = self.at(self.nearest(*address, service)?)?;
            let seen = all.unwrap_or(Serves { state, load, capacity });
            let state = match (seen.state, state) {
                (State::Down, _) | (_, State::Down) => State::Down,
                (State::Draining, _) | (_, State::Draining) => State::Draining,
                (State::Serving, State::Serving) => State::Serving,
            };
            all = Some(Serves { state, load: seen.load.max(load), capacity: seen.capacity.min(capacity) });
        }
        all
    }

    /// The place of the record with the longest prefix that holds `address` and whose service holds `service`.
    pub fn nearest(&self, address: IpNet, service: &Filter) -> Option<u32> {
        let lengths = self.lengths[usize::from(address.addr().is_ipv6())].iter().copied();
        lengths.filter(|length| *length <= address.prefix_len()).find_map(|length| {
            let around = IpNet::new(address.addr(), length).ok()?.trunc();
            let first = self.records.partition_point(|record| record.prefix < around);
            let here = (first as u32..).zip(&self.records[first..]).take_while(|(_, record)| record.prefix == around);
            let covering = here.filter(|(_, record)| covers(&record.service, service));
            let nearest =
                covering.min_by_key(|(_, record)| (record.service.protocol.is_none(), record.service.ports.len()));
            nearest.map(|(place, _)| place)
        })
    }
}

/// Whether all packets of `narrow` are packets of `wide`.
fn covers(wide: &Filter, narrow: &Filter) -> bool {
    (wide.protocol.is_none() || wide.protocol == narrow.protocol)
        && wide.ports.start() <= narrow.ports.start()
        && narrow.ports.end() <= wide.ports.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(prefix: &str, service: Filter, state: State, load: u32, capacity: u32) -> Record {
        Record { prefix: prefix.parse().unwrap(), service, state, load: Load(load), capacity }
    }

    fn tcp(first: u16, last: u16) -> Filter {
        Filter { protocol: Some(6), ports: first..=last }
    }

    #[test]
    fn a_virtual_host_is_covered_as_a_whole_by_the_most_specific_records_or_not_at_all() {
        use State::{Down, Draining, Serving};
        let report = Report::new(vec![
            record("192.0.2.0/24", Filter::ANY, Serving, 10, 100),
            record("192.0.2.80/32", tcp(80, 80), Serving, 20, 50),
            record("192.0.2.80/32", tcp(0, 1023), Draining, 30, 40),
            record("2001:db8::/32", tcp(80, 80), Down, 40, 30),
            record("192.0.2.81/32", tcp(80, 80), Serving, 1, 1),
            record("192.0.2.81/32", tcp(80, 80), Serving, 2, 2),
        ]);
        let serves = |state, load, capacity| Some(Serves { state, load: Load(load), capacity });
        let table: [(&[&str], &[Filter], Option<Serves>); 9] = [
            (&["192.0.2.7/32"], &[tcp(80, 80)], serves(Serving, 10, 100)),
            (&["192.0.2.80/32"], &[tcp(80, 80)], serves(Serving, 20, 50)),
            (&["192.0.2.80/32"], &[tcp(22, 22)], serves(Draining, 30, 40)),
            (&["192.0.2.80/32"], &[tcp(5000, 5000)], serves(Serving, 10, 100)),
            (&["192.0.2.80/32"], &[tcp(80, 80), tcp(22, 22)], serves(Draining, 30, 40)),
            (&["192.0.2.80/32", "2001:db8::1/128"], &[tcp(80, 80)], serves(Down, 40, 30)),
            (&["192.0.2.80/32", "2001:db8::1/128"], &[tcp(443, 443)], None),
            (&["192.0.0.0/16"], &[tcp(80, 80)], None),
            // The last one said counts.
            (&["192.0.2.81/32"], &[tcp(80, 80)], serves(Serving, 2, 2)),
        ];
        for (addresses, services, expected) in table {
            let nets: Vec<IpNet> = addresses.iter().map(|net| net.parse().unwrap()).collect();
            assert_eq!(report.of(&nets, services), expected, "{addresses:?} {services:?}");
        }
        assert_eq!((report.len(), report.records().count()), (5, 5));
    }
}
