//! The protocols and ports that belong to a virtual host.

use std::fmt;
use std::ops::RangeInclusive;

/// One protocol, or all of them, with a range of destination ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    /// IP protocol number (IANA), or `None` for every protocol.
    pub protocol: Option<u8>,
    /// Destination ports. Protocols without ports count as port 0, so only the full range takes them in.
    pub ports: RangeInclusive<u16>,
}

impl Filter {
    /// Every port.
    pub const ALL_PORTS: RangeInclusive<u16> = 0..=u16::MAX;

    /// Everything sent to the address.
    pub const ANY: Filter = Filter { protocol: None, ports: Self::ALL_PORTS };
}

impl fmt::Display for Filter {
    /// As the configuration writes it: `tcp/80`, `udp/5000-5999`, `icmp`, `47`, `any`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            None => f.write_str("any")?,
            Some(1) => f.write_str("icmp")?,
            Some(6) => f.write_str("tcp")?,
            Some(17) => f.write_str("udp")?,
            Some(58) => f.write_str("icmpv6")?,
            Some(132) => f.write_str("sctp")?,
            Some(number) => number.fmt(f)?,
        }
        match (self.ports.start(), self.ports.end()) {
            (0, &u16::MAX) => Ok(()),
            (start, end) if start == end => write!(f, "/{start}"),
            (start, end) => write!(f, "/{start}-{end}"),
        }
    }
}
