//! Whether the checks of a virtual host's children are complete: one kind, a port, an address, times that make sense.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use super::{family, or};
use crate::config::error::{Fault, nearest, one_line, quote};
use crate::config::raw::{self, Text, WordOr};
use crate::config::tree::Spanned;
use crate::config::values::{duration, example, host as usable, number, word};
use crate::config::{Health, Probe, Request, Rhythm, Tls};
use crate::service::filter::Filter;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A server that is down must be known to be within a second: three times 220 ms and 200 ms after its last answer. One that
/// only has much to do answers one of three in time.
const RHYTHM: Rhythm = Rhythm {
    interval: Duration::from_millis(200),
    timeout: Duration::from_millis(200),
    jitter_percent: 10,
    rise: 2,
    fall: 3,
    initially_up: true,
};

/// Shortest interval and time-out.
const TIME_MIN: Duration = Duration::from_millis(10);

/// Status codes that are good where none are named.
const EXPECT: RangeInclusive<u16> = 200..=399;

/// Kinds that need no keys.
const WORDS: [&str; 5] = ["icmp", "tcp", "http", "https", "tls"];

/// Record types that a query can be for (RFC 1035 section 3.2.2, RFC 3596).
const RECORDS: [(&str, u16); 7] =
    [("A", 1), ("NS", 2), ("CNAME", 5), ("SOA", 6), ("MX", 15), ("TXT", 16), ("AAAA", 28)];

/// What checks are about: the virtual host that they belong to.
struct Host<'a> {
    name: &'a str,
    services: &'a [Filter],
}

pub(in crate::config) fn health(
    raw: &Spanned<WordOr<raw::Health>>,
    name: &str,
    addresses: &[IpNet],
    services: &[Filter],
) -> Result<Health, Fault> {
    let host = Host { name, services };
    let map = match &raw.value {
        WordOr::Word(_) => None,
        WordOr::Map(map) => Some(map.as_ref()),
    };
    let address = host.address(raw, map.and_then(|map| map.address.as_ref()), addresses)?;
    let probe = match &raw.value {
        WordOr::Word(word) => host.probe_of_word(raw, word, address)?,
        WordOr::Map(map) => host.probe(raw, map, address)?,
    };
    Ok(Health { probe, address, rhythm: map.map_or(Ok(RHYTHM), rhythm)? })
}

/// What is wrong where answers to checks of `address` cannot come back.
pub(super) fn no_source(name: &str, address: IpAddr) -> String {
    let (is, example) = family(address.is_ipv4(), ("IPv4", "[192.0.2.1]"), ("IPv6", "[\"2001:db8::1\"]"));
    format!(
        "checks of virtual host \"{name}\" go to the {is} address {address}, but the router has no {is} address that \
         answers could come to; add one to router: tunnel_addresses: {example}"
    )
}

fn rhythm(raw: &raw::Health) -> Result<Rhythm, Fault> {
    let states = [("up", true), ("down", false)];
    let count = |key: &str, text: &Option<Text>, default| or(text, default, |text| number(key, text, 1..=100));
    Ok(Rhythm {
        interval: or(&raw.interval, RHYTHM.interval, |text| time("interval", text))?,
        timeout: or(&raw.timeout, RHYTHM.timeout, |text| time("timeout", text))?,
        jitter_percent: or(&raw.jitter, RHYTHM.jitter_percent, percent)?,
        rise: count("rise", &raw.rise, RHYTHM.rise)?,
        fall: count("fall", &raw.fall, RHYTHM.fall)?,
        initially_up: or(&raw.initial, RHYTHM.initially_up, |text| word("initial", text, &states))?,
    })
}

pub(in crate::config) fn time(key: &str, text: &Text) -> Result<Duration, Fault> {
    let time = duration(key, text)?;
    if time >= TIME_MIN {
        return Ok(time);
    }
    let message = format!("{key} {} is too short; write at least 10ms: {}", quote(&text.value), example(key));
    Err(Fault::at(text, message))
}

fn percent(text: &Text) -> Result<u8, Fault> {
    let digits = text.value.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).filter(|percent| *percent <= 50).ok_or_else(|| {
        let wrong = quote(&text.value);
        let message =
            format!("jitter {wrong} is no share of the interval; write one from 0% to 50%: {}", example("jitter"));
        Fault::at(text, message)
    })
}

impl Host<'_> {
    /// The address that is asked: the one that is given, or the first.
    fn address<T>(&self, at: &Spanned<T>, given: Option<&Text>, addresses: &[IpNet]) -> Result<IpAddr, Fault> {
        let name = self.name;
        let address = match (given, addresses) {
            (Some(text), _) => {
                let address = usable("address", text)?;
                if !addresses.iter().any(|net| net.contains(&address)) {
                    let message =
                        format!("{address} is no address of virtual host \"{name}\"; write one of those it has");
                    return Err(Fault::at(text, message));
                }
                address
            }
            (None, [first, ..]) => first.addr(),
            (None, []) => return Err(Fault::at(at, format!("virtual host \"{name}\" has no address to check"))),
        };
        if address.is_unspecified() || address.is_multicast() {
            let message = format!(
                "the first address of virtual host \"{name}\", {address}, cannot be checked; \
                 name another one of it: health: {{ address: 192.0.2.80, tcp: {{}} }}"
            );
            return Err(Fault::at(at, message));
        }
        Ok(address)
    }

    fn probe_of_word<T>(&self, at: &Spanned<T>, kind: &str, address: IpAddr) -> Result<Probe, Fault> {
        Ok(match kind {
            "icmp" => Probe::Icmp,
            "tcp" => Probe::Tcp { port: self.port(at, &None, TCP, None)? },
            "http" => Probe::Http(self.request(at, [&None, &None, &None, &None], 80, address)?),
            "https" => Probe::Https(self.request(at, [&None, &None, &None, &None], 443, address)?, tls(&None, &None)?),
            "tls" => Probe::Tls(self.port(at, &None, TCP, Some(443))?, tls(&None, &None)?),
            _ => {
                let advice = match nearest(kind, WORDS) {
                    Some(near) => format!("did you mean health: {near}?"),
                    None => format!("write one of {}, or a map: {}", WORDS.join(", "), example("health")),
                };
                return Err(Fault::at(at, format!("health {} is not known; {advice}", quote(kind))));
            }
        })
    }

    fn probe(&self, at: &Spanned<WordOr<raw::Health>>, raw: &raw::Health, address: IpAddr) -> Result<Probe, Fault> {
        let raw::Health { icmp, tcp, http, https, tls: handshake, dns, command, .. } = raw;
        let kinds = [
            icmp.is_some(),
            tcp.is_some(),
            http.is_some(),
            https.is_some(),
            handshake.is_some(),
            dns.is_some(),
            command.is_some(),
        ];
        let kinds = kinds.into_iter().filter(|given| *given).count();
        if kinds != 1 {
            let (name, number) = (self.name, if kinds == 0 { "no kind" } else { "more than one kind" });
            let message = format!(
                "the health of virtual host \"{name}\" names {number} of check; write exactly one of \
                 icmp, tcp, http, https, tls, dns, command: {}",
                example("health")
            );
            return Err(Fault::at(at, message));
        }
        if let Some(tcp) = tcp {
            return Ok(Probe::Tcp { port: self.port(tcp, &tcp.value.port, TCP, None)? });
        }
        if let Some(http) = http {
            let raw::Http { port, path, host, expect } = &http.value;
            return Ok(Probe::Http(self.request(http, [port, path, host, expect], 80, address)?));
        }
        if let Some(https) = https {
            let raw::Https { port, path, host, expect, server_name, ca } = &https.value;
            let tls = tls(server_name, ca)?;
            let mut request = self.request(https, [port, path, host, expect], 443, address)?;
            if let (None, Some(name)) = (host, &tls.server_name) {
                request.host.clone_from(name);
            }
            return Ok(Probe::Https(request, tls));
        }
        if let Some(handshake) = handshake {
            let raw::Tls { port, server_name, ca } = &handshake.value;
            return Ok(Probe::Tls(self.port(handshake, port, TCP, Some(443))?, tls(server_name, ca)?));
        }
        if let Some(dns) = dns {
            let raw::Dns { port, name, record } = &dns.value;
            let port = self.port(dns, port, UDP, Some(53))?;
            return Ok(Probe::Dns {
                port,
                name: domain(name)?,
                record: or(record, 1, |text| word("type", text, &RECORDS))?,
            });
        }
        command.as_ref().map_or(Ok(Probe::Icmp), |list| command_line(list).map(Probe::Command))
    }

    /// The port that is given, the one port of the virtual host's services with this protocol, or the usual one.
    fn port<T>(&self, at: &Spanned<T>, given: &Option<Text>, protocol: u8, usual: Option<u16>) -> Result<u16, Fault> {
        if let Some(text) = given {
            return number("port", text, 1..=u16::MAX);
        }
        let services = self.services.iter().filter(|service| service.protocol == Some(protocol));
        let mut single = services.filter(|service| service.ports.start() == service.ports.end());
        single.next().map(|service| *service.ports.start()).filter(|port| *port != 0).or(usual).ok_or_else(|| {
            let message = format!(
                "the services of virtual host \"{}\" name no single port to check; name one: health: {{ tcp: {{ port: 80 }} }}",
                self.name
            );
            Fault::at(at, message)
        })
    }

    fn request<T>(
        &self,
        at: &Spanned<T>,
        [port, path, host, expect]: [&Option<Text>; 4],
        usual: u16,
        address: IpAddr,
    ) -> Result<Request, Fault> {
        let plain = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        Ok(Request {
            port: self.port(at, port, TCP, Some(usual))?,
            path: or(path, "/".into(), |text| visible("path", text, |value| value.starts_with('/')))?,
            host: or(host, plain, |text| visible("host", text, |value| !value.is_empty()))?,
            expect: or(expect, EXPECT, statuses)?,
        })
    }
}

/// What goes into a line of a request: visible characters of ASCII only.
fn visible(key: &str, text: &Text, good: impl Fn(&str) -> bool) -> Result<String, Fault> {
    let value = &text.value;
    if value.len() <= 1024 && value.bytes().all(|byte| byte.is_ascii_graphic()) && good(value) {
        return Ok(value.clone());
    }
    let start = if key == "path" { ", a slash first" } else { "" };
    let message = format!(
        "{key} {} cannot stand in a request; write up to 1024 visible ASCII characters{start}: {}",
        quote(value),
        example(key)
    );
    Err(Fault::at(text, message))
}

fn statuses(text: &Text) -> Result<RangeInclusive<u16>, Fault> {
    let (first, last) = text.value.split_once('-').unwrap_or((&text.value, &text.value));
    let status = |digits: &str| digits.parse().ok().filter(|code| digits.len() == 3 && (100..600).contains(code));
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => {
            let wrong = quote(&text.value);
            let what = "is no HTTP status; write one from 100 to 599 or a range";
            Err(Fault::at(text, format!("expect {wrong} {what}: {}", example("expect"))))
        }
    }
}

fn tls(server_name: &Option<Text>, ca: &Option<Text>) -> Result<Tls, Fault> {
    let name = |text: &Text| match ServerName::try_from(text.value.as_str()) {
        Ok(_) => Ok(text.value.clone()),
        Err(_) => {
            let message = format!(
                "server_name {} is neither a host name nor an address; write one: {}",
                quote(&text.value),
                example("server_name")
            );
            Err(Fault::at(text, message))
        }
    };
    let roots = ca.as_ref().map(|text| roots("ca", text)).transpose()?;
    Ok(Tls { server_name: server_name.as_ref().map(name).transpose()?, roots })
}

/// Reads the certificates of authorities.
pub(super) fn roots(key: &str, text: &Text) -> Result<Arc<RootCertStore>, Fault> {
    let wrong = |why: String| {
        let file = quote(&text.value);
        Fault::at(text, format!("{key} {file} {why}; write a file of certificates in PEM form: {}", example(key)))
    };
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(&text.value)
        .map_err(|error| wrong(one_line(&format!("cannot be read: {error}"))))?;
    for certificate in certificates {
        let added = certificate.map_err(|error| error.to_string());
        let added = added.and_then(|certificate| store.add(certificate).map_err(|error| error.to_string()));
        added.map_err(|error| wrong(one_line(&format!("has a certificate that is not sound: {error}"))))?;
    }
    if store.is_empty() { Err(wrong("has no certificate".into())) } else { Ok(Arc::new(store)) }
}

/// A domain name as RFC 1035 section 2.3.4 limits it, the root's written as a dot.
fn domain(text: &Text) -> Result<String, Fault> {
    let value = text.value.strip_suffix('.').unwrap_or(&text.value);
    let plain = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_graphic());
    if text.value == "." || (value.len() <= 253 && value.split('.').all(plain)) {
        return Ok(value.to_owned());
    }
    let message = format!("name {} is no domain name; write one: name: example.org", quote(&text.value));
    Err(Fault::at(text, message))
}

pub(in crate::config) fn command_line(list: &Spanned<Vec<Text>>) -> Result<Vec<String>, Fault> {
    match list.value.as_slice() {
        [program, ..] if program.value.starts_with('/') => {
            Ok(list.value.iter().map(|word| word.value.clone()).collect())
        }
        [program, ..] => {
            let wrong = quote(&program.value);
            let message = format!("the program {wrong} is not given by its whole path; write {}", example("command"));
            Err(Fault::at(program, message))
        }
        [] => Err(Fault::at(list, format!("the command is empty; write {}", example("command")))),
    }
}
