//! What a child says of one virtual subnet.

use ipnet::IpNet;

use super::bytes::{Reading, WireError, Writing};
use crate::service::filter::Filter;

/// How much of what it can do a child does: 1,000,000 is all of it; more is possible for a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load(pub u32);

impl Load {
    /// All that it can do.
    pub const FULL: Load = Load(1_000_000);

    /// The load that is this part of everything; what is no number counts as more than any.
    pub fn from_ratio(ratio: f64) -> Load {
        if ratio.is_nan() { Load(u32::MAX) } else { Load((ratio * f64::from(Load::FULL.0)).round() as u32) }
    }

    /// Whether so much has changed since `before`, a quarter of all, that it is not to wait for the end of an interval.
    pub fn leaps_from(self, before: Load) -> bool {
        self.0.abs_diff(before.0) >= Load::FULL.0 / 4
    }

    /// 1 where it does all that it can.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(Load::FULL.0)
    }
}

/// Whether a virtual subnet gets new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It serves.
    Serving,
    /// It serves the flows that it has.
    Draining,
    /// It does not serve.
    Down,
}

/// What a child says of one virtual subnet.
///
/// ```text
///  0      family of the prefix, 4 or 6
///  1      its length
///  2      its address, IPv4 in the first four bytes, zeros behind
/// 18      protocol; 256 for all
/// 20      first destination port
/// 22      last destination port
/// 24      state: 1 serving, 2 draining, 3 down
/// 25      three zeros
/// 28      load, in millionths
/// 32      capacity
/// 36      (later versions go on here)
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Addresses.
    pub prefix: IpNet,
    /// Protocol and ports.
    pub service: Filter,
    /// Whether it gets new flows.
    pub state: State,
    /// How busy it is.
    pub load: Load,
    /// How much it can do, in the unit of the weights of children: a site can do what its servers can.
    pub capacity: u32,
}

/// The protocol that stands for all.
const EVERY_PROTOCOL: u16 = 256;

impl Record {
    /// Bytes of a record in this version.
    pub const BYTES: usize = 36;

    pub(super) fn read(bytes: &mut Reading<'_>) -> Result<Record, WireError> {
        let prefix = bytes.prefix()?;
        let (protocol, first, last) = (bytes.u16()?, bytes.u16()?, bytes.u16()?);
        let (state, _) = (bytes.u8()?, bytes.take(3)?);
        let protocol = match protocol {
            EVERY_PROTOCOL => None,
            number => {
                Some(u8::try_from(number).map_err(|_| WireError::Value { what: "protocol", value: number.into() })?)
            }
        };
        if first > last {
            return Err(WireError::Value { what: "first port of a range", value: first.into() });
        }
        let state = match state {
            1 => State::Serving,
            2 => State::Draining,
            3 => State::Down,
            other => return Err(WireError::Value { what: "state", value: other.into() }),
        };
        let service = Filter { protocol, ports: first..=last };
        Ok(Record { prefix, service, state, load: Load(bytes.u32()?), capacity: bytes.u32()? })
    }

    pub(super) fn write(&self, bytes: &mut Writing) {
        bytes.prefix(self.prefix);
        let state = match self.state {
            State::Serving => 1,
            State::Draining => 2,
            State::Down => 3,
        };
        let ports = &self.service.ports;
        bytes.u16(self.service.protocol.map_or(EVERY_PROTOCOL, u16::from)).u16(*ports.start()).u16(*ports.end());
        bytes.u8(state).u8(0).u16(0).u32(self.load.0).u32(self.capacity);
    }
}
