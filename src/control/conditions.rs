//! What about the children differs from the configuration for the time being: said by the operator, or found out.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::units::Weight;

/// The children's conditions. Names that no configuration knows do no harm: a reload may bring the child back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Children that get no new flows, by name.
    pub drained: BTreeSet<String>,
    /// Weights instead of the configured ones, in all virtual hosts of the child.
    pub weights: BTreeMap<String, Weight>,
    /// Virtual hosts and children on which they do not work.
    pub down: HashSet<(String, String)>,
}

impl Conditions {
    /// The weight of `child` where the configuration says `configured`.
    pub fn weight(&self, child: &str, configured: Weight) -> Weight {
        match self.drained.contains(child) {
            true => Weight::DRAIN,
            false => self.weights.get(child).copied().unwrap_or(configured),
        }
    }

    /// Whether `virtual_host` does not work on `child`.
    pub fn is_down(&self, virtual_host: &str, child: &str) -> bool {
        !self.down.is_empty() && self.down.contains(&(virtual_host.to_owned(), child.to_owned()))
    }
}
