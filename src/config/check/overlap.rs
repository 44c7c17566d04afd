//! Whether two virtual hosts would take the same packet, with nothing that says which one.
//!
//! The most specific wins: a longer prefix before a shorter one; at the same prefix a named protocol before `any`, and
//! a narrower range of ports before a wider one around it. So at one prefix the ranges of one protocol must be apart
//! or strictly one inside the other, which one sweep over them in order finds out.

use std::cmp::Reverse;

use ipnet::IpNet;

use crate::config::VirtualHost;
use crate::config::error::{Fault, Place};
use crate::config::raw;
use crate::config::values::show;
use crate::service::filter::Filter;

/// One filter of one virtual host at one of its prefixes. Sorted, a range comes after every range around it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    prefix: IpNet,
    protocol: Option<u8>,
    first: u16,
    last: Reverse<u16>,
    host: usize,
    address: usize,
    service: usize,
}

/// Finds the first overlap in the order of the file.
pub(super) fn check(raw: &[raw::VirtualHost], hosts: &[VirtualHost]) -> Result<(), Fault> {
    let mut claims = Vec::new();
    for (host, checked) in hosts.iter().enumerate() {
        for (address, &prefix) in checked.addresses.iter().enumerate() {
            for (service, filter) in checked.services.iter().enumerate() {
                let (first, last) = (*filter.ports.start(), Reverse(*filter.ports.end()));
                claims.push(Claim { prefix, protocol: filter.protocol, first, last, host, address, service });
            }
        }
    }
    claims.sort_unstable();

    let mut overlap: Option<(Claim, Claim)> = None;
    let order = |claim: &Claim| (claim.host, claim.service, claim.address);
    // Ranges around the current place, each inside the one before it.
    let mut around: Vec<Claim> = Vec::new();
    for claim in claims {
        while around.last().is_some_and(|open| {
            (open.prefix, open.protocol) != (claim.prefix, claim.protocol) || open.last.0 < claim.first
        }) {
            around.pop();
        }
        match around.last() {
            Some(&open) if claim.last.0 > open.last.0 || (claim.first, claim.last) == (open.first, open.last) => {
                let (earlier, later) = if order(&open) < order(&claim) { (open, claim) } else { (claim, open) };
                if overlap.is_none_or(|(_, first)| order(&later) < order(&first)) {
                    overlap = Some((earlier, later));
                }
            }
            _ => around.push(claim),
        }
    }
    overlap.map_or(Ok(()), |(earlier, later)| Err(explain(raw, hosts, earlier, later)))
}

fn explain(raw: &[raw::VirtualHost], hosts: &[VirtualHost], earlier: Claim, later: Claim) -> Fault {
    let place: Place = match &raw[later.host].services {
        Some(list) => list.value[later.service].place,
        None => raw[later.host].addresses.value[later.address].place,
    };
    let ports = earlier.first.max(later.first)..=earlier.last.0.min(later.last.0);
    let both = Filter { protocol: later.protocol, ports };
    let (name, other) = (&hosts[later.host].name, &hosts[earlier.host].name);
    let service = |claim: Claim| &hosts[claim.host].services[claim.service];
    let message = if earlier.host != later.host {
        let line = raw[earlier.host].name.place.line;
        let at = show(later.prefix);
        let change = if matches!(later.protocol, None | Some(6 | 17 | 132)) { "ports" } else { "addresses" };
        format!(
            "virtual host \"{name}\" overlaps \"{other}\" (line {line}): both take {both} of {at}; \
             give one of them other {change}"
        )
    } else if service(earlier) == service(later) {
        format!("virtual host \"{name}\" has the service {both} twice; remove one of them")
    } else {
        let (first, last) = (earlier.first.min(later.first), earlier.last.0.max(later.last.0));
        let whole = Filter { protocol: later.protocol, ports: first..=last };
        let (one, two) = (service(earlier), service(later));
        format!("services {one} and {two} of virtual host \"{name}\" overlap; write them as one: {whole}")
    };
    Fault::somewhere(place, message)
}
