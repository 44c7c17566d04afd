//! What of a pair is counted, to be read by anyone.

use super::election::{Path, Role};
use super::link::Outcome;
use super::vrrp::Unreadable;
use crate::forward::counters::Counter;
use crate::units::labelled;

labelled! {
    /// What became of advertisements that came by the access port.
    Advert {
        /// Taken.
        Taken => "taken",
        /// Of another virtual router.
        OtherRouter => "other_router",
        /// It has come through a router, or says so.
        HopLimit => "hop_limit",
        /// Its checksum is wrong.
        Checksum => "checksum",
        /// It is of another version, or cut off.
        Malformed => "malformed",
        /// It names other addresses than ours: the two are not set up alike. It counts all the same.
        OtherAddresses => "other_addresses",
    }
}

impl From<Unreadable> for Advert {
    fn from(why: Unreadable) -> Advert {
        match why {
            Unreadable::HopLimit => Advert::HopLimit,
            Unreadable::Checksum => Advert::Checksum,
            Unreadable::Malformed => Advert::Malformed,
        }
    }
}

/// The counters.
#[derive(Debug)]
pub struct Counters {
    entered: [Counter; Role::ALL.len()],
    heard: [Counter; Path::ALL.len()],
    adverts: [Counter; Advert::ALL.len()],
    datagrams: [Counter; Outcome::ALL.len()],
    /// The role now, by its number.
    pub role: Counter,
    /// The priority now.
    pub priority: Counter,
    /// 1 while the other router is heard.
    pub partner: Counter,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            entered: std::array::from_fn(|_| Counter::default()),
            heard: std::array::from_fn(|_| Counter::default()),
            adverts: std::array::from_fn(|_| Counter::default()),
            datagrams: std::array::from_fn(|_| Counter::default()),
            role: Counter::default(),
            priority: Counter::default(),
            partner: Counter::default(),
        }
    }
}

impl Counters {
    /// Times that this role was entered.
    pub fn entered(&self, role: Role) -> &Counter {
        &self.entered[role as usize]
    }

    /// Times that the other router was heard by this way.
    pub fn heard(&self, path: Path) -> &Counter {
        &self.heard[path as usize]
    }

    /// Advertisements of which this became.
    pub fn adverts(&self, of: Advert) -> &Counter {
        &self.adverts[of as usize]
    }

    /// Datagrams of which this became.
    pub fn datagrams(&self, of: Outcome) -> &Counter {
        &self.datagrams[of as usize]
    }
}
