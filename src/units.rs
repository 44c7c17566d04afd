//! Names for numbers: every identifier and measure that crosses a room's border has a type of its own.
//!
//! Values are in host byte order; network order lives in [`crate::packet`] alone.

use std::fmt;
use std::str::FromStr;

/// Defines an index newtype over an unsigned integer, for use with slices.
macro_rules! index {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $repr);

        impl $name {
            /// The position in the slice that this index belongs to.
            #[inline]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

index!(
    /// A port of this router: its position in the configuration's list of ports (not DPDK's port id).
    PortIndex(u16)
);
index!(
    /// A virtual host: its position in the forwarding snapshot.
    VirtualHostId(u32)
);
index!(
    /// One virtual host on one child: what a flow entry points at and what is counted together.
    TargetId(u32)
);
impl TargetId {
    /// Targets at most: a flow entry has 21 bits for its own.
    pub const COUNT_MAX: usize = 1 << 21;
}
index!(
    /// A region of clients: its position in the configuration, from 1.
    RegionId(u8)
);

impl RegionId {
    /// That of clients in no region.
    pub const NONE: RegionId = RegionId(0);
}
index!(
    /// A path: a ready-made tunnel header to one child.
    PathId(u32)
);
index!(
    /// A worker: 0 to N-1. Worker `w` polls queue `w` of every port.
    WorkerId(u16)
);

/// Defines a fieldless enum of reasons, each with the label that it has in metrics and reports.
macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every variant, in the order of their numbers.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The metric label, in snake case.
            pub const fn label(self) -> &'static str {
                match self {
                    $($name::$variant => $label,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}
pub(crate) use labelled;

/// Share of new flows that a child asks for, relative to its siblings; 0 drains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(u16);

impl Weight {
    /// The largest weight that the selection tables tell apart.
    pub const MAX: u16 = 10_000;
    /// No new flows.
    pub const DRAIN: Weight = Weight(0);

    /// A weight from 0 to [`Weight::MAX`].
    pub const fn new(value: u16) -> Option<Weight> {
        if value <= Self::MAX { Some(Weight(value)) } else { None }
    }

    /// The number itself.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Where DPDK's memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hugepages {
    /// Hugepages where the machine has enough, else ordinary pages; which of the two is announced.
    Auto,
    /// Hugepages or no start.
    Require,
    /// Ordinary pages.
    Never,
}

/// Layout of Generic UDP encapsulation (draft-ietf-intarea-gue).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GueVariant {
    /// Variant 0: a header of 4 bytes between UDP and the packet.
    Header,
    /// Variant 1: the packet comes right behind UDP.
    Direct,
}

/// A 48-bit Ethernet address, in transmission order.
#[derive(
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
    zerocopy::Unaligned,
)]
#[repr(C)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six hexadecimal octets separated by colons.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a MAC address (write six hexadecimal octets: 02:00:5e:10:00:01)")]
pub struct MacAddrError(String);

impl FromStr for MacAddr {
    type Err = MacAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || MacAddrError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(error)?;
            if part.len() != 2 {
                return Err(error());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() {
            return Err(error());
        }
        Ok(MacAddr(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_read_back_what_they_print() {
        let mac = MacAddr([0x02, 0, 0x5e, 0x10, 0, 0xff]);
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        for wrong in
            ["", "02:00:5e:10:00", "02:00:5e:10:00:ff:01", "2:0:5e:10:0:ff", "02-00-5e-10-00-ff", "0g:00:00:00:00:00"]
        {
            assert!(wrong.parse::<MacAddr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn weights_stop_at_their_maximum() {
        assert_eq!(Weight::new(Weight::MAX).map(Weight::get), Some(10_000));
        assert_eq!(Weight::new(Weight::MAX + 1), None);
    }
}
