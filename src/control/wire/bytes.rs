//! How single values stand in a message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{HEADER, SHORTCUTS_MAX, TEXT_MAX, TunnelEnd, body_max};

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The body ends within a value.
    #[error("a message ends too early")]
    Short,
    /// The header announces more than such a message may have.
    #[error("a message of kind {kind} with {length} bytes is too long")]
    Long {
        /// Kind.
        kind: u8,
        /// Bytes of its body.
        length: usize,
    },
    /// A number has no meaning where it stands.
    #[error("{value} is no {what}")]
    Value {
        /// What it was to be.
        what: &'static str,
        /// What it is.
        value: u64,
    },
    /// A text is no UTF-8, or has control characters, which do not belong into a log.
    #[error("a text is not readable")]
    Text,
}

/// What is left of a body.
pub(super) struct Reading<'a>(pub &'a [u8]);

impl<'a> Reading<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    /// 16 bytes: an IPv4 address has zeros behind it.
    pub fn address(&mut self, family: u8) -> Result<IpAddr, WireError> {
        let octets: [u8; 16] = self.array()?;
        match (family, octets) {
            (4, [a, b, c, d, rest @ ..]) if rest == [0; 12] => Ok(Ipv4Addr::new(a, b, c, d).into()),
            (4, _) => Err(WireError::Value { what: "IPv4 address", value: u64::from(octets[15]) }),
            (6, _) => Ok(Ipv6Addr::from(octets).into()),
            _ => Err(WireError::Value { what: "family of addresses", value: family.into() }),
        }
    }

    /// Family, prefix length, address; no bits may be set behind the prefix.
    pub fn prefix(&mut self) -> Result<IpNet, WireError> {
        let (family, length) = (self.u8()?, self.u8()?);
        let address = self.address(family)?;
        let wrong = WireError::Value { what: "prefix length", value: length.into() };
        IpNet::new(address, length).ok().filter(|net| net.trunc() == *net).ok_or(wrong)
    }

    /// Kind, family, UDP port, address.
    pub fn tunnel(&mut self) -> Result<TunnelEnd, WireError> {
        let (kind, family, port) = (self.u8()?, self.u8()?, self.u16()?);
        Ok(TunnelEnd { kind, port, address: self.address(family)? })
    }

    /// Size of one, count, and as many of at least `size` bytes.
    pub fn list<T>(
        &mut self,
        size: usize,
        read: impl Fn(&mut Reading<'_>) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let (stride, count) = (usize::from(self.u16()?), usize::from(self.u16()?));
        if stride < size {
            return Err(WireError::Value { what: "size of an entry", value: stride as u64 });
        }
        if count > SHORTCUTS_MAX {
            return Err(WireError::Value { what: "number of entries", value: count as u64 });
        }
        let entries = self.take(stride * count)?;
        entries.chunks_exact(stride).map(|entry| read(&mut Reading(entry))).collect()
    }

    pub fn text(&mut self) -> Result<String, WireError> {
        let length = self.u8()?;
        let text = std::str::from_utf8(self.take(length.into())?).map_err(|_| WireError::Text)?;
        if text.chars().any(char::is_control) { Err(WireError::Text) } else { Ok(text.to_owned()) }
    }
}

/// A message that is being written.
pub(super) struct Writing(Vec<u8>);

impl Writing {
    /// A message of `kind` with what `body` writes.
    pub fn of(kind: u8, body: impl FnOnce(&mut Writing)) -> Vec<u8> {
        let mut writing = Writing(vec![kind, 0, 0, 0]);
        body(&mut writing);
        let Writing(mut bytes) = writing;
        let length = bytes.len() - HEADER;
        debug_assert!(length <= body_max(kind), "the limits of lists and texts keep every body within its own");
        bytes[1..HEADER].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
        bytes
    }

    pub fn u8(&mut self, value: u8) -> &mut Writing {
        self.0.push(value);
        self
    }

    pub fn u16(&mut self, value: u16) -> &mut Writing {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn u32(&mut self, value: u32) -> &mut Writing {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn u64(&mut self, value: u64) -> &mut Writing {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.0.extend(v4.octets().into_iter().chain([0; 12])),
            IpAddr::V6(v6) => self.0.extend(v6.octets()),
        }
    }

    pub fn tunnel(&mut self, TunnelEnd { kind, port, address }: &TunnelEnd) {
        self.u8(*kind).u8(super::family(*address)).u16(*port).address(*address);
    }

    /// As many of the entries as a message may have, of `size` bytes each.
    pub fn list<T>(&mut self, size: usize, entries: &[T], write: impl Fn(&mut Writing, &T)) {
        let entries = &entries[..entries.len().min(SHORTCUTS_MAX)];
        self.u16(size as u16).u16(entries.len() as u16);
        entries.iter().for_each(|entry| write(self, entry));
    }

    pub fn prefix(&mut self, net: IpNet) {
        self.u8(super::family(net.addr())).u8(net.prefix_len()).address(net.network());
    }

    /// As much of the text as has room, without control characters.
    pub fn text(&mut self, text: &str) {
        let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let length = (0..=plain.len().min(TEXT_MAX)).rev().find(|end| plain.is_char_boundary(*end)).unwrap_or(0);
        self.u8(length as u8).0.extend(&plain.as_bytes()[..length]);
    }
}
