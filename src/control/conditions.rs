//! What about the children differs from the configuration for the time being: said by the operator, or found out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use super::wire::TunnelEnd;
use crate::units::Weight;

/// The children's conditions. Names that no configuration knows do no harm: a reload may bring the child back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Children that get no new flows, by name.
    pub drained: BTreeSet<String>,
    /// Weights instead of the configured ones, in all virtual hosts of the child.
    pub weights: BTreeMap<String, Weight>,
    /// Virtual hosts and children on which they do not work.
    pub down: Down,
    /// What the children say themselves.
    pub steering: Steering,
    /// Where flows may go past a child, and whether they do: else they go to the child after all.
    pub shortcuts: BTreeMap<Past, bool>,
}

/// Virtual hosts, and children on which each does not work, by their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Down(HashMap<String, BTreeSet<String>>);

impl Down {
    /// It does not work there any more.
    pub fn insert(&mut self, virtual_host: String, child: String) {
        self.0.entry(virtual_host).or_default().insert(child);
    }

    /// It works there again.
    pub fn remove(&mut self, virtual_host: &str, child: &str) {
        if let Some(children) = self.0.get_mut(virtual_host) {
            children.remove(child);
            if children.is_empty() {
                self.0.remove(virtual_host);
            }
        }
    }

    /// The virtual hosts that do not work on a child.
    pub fn hosts<'a>(&'a self, child: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(_, children)| children.contains(child)).map(|(host, _)| host.as_str())
    }

    /// Whether it does not work there.
    pub fn contains(&self, virtual_host: &str, child: &str) -> bool {
        self.0.get(virtual_host).is_some_and(|children| children.contains(child))
    }
}

impl Extend<(String, String)> for Down {
    fn extend<I: IntoIterator<Item = (String, String)>>(&mut self, pairs: I) {
        pairs.into_iter().for_each(|(virtual_host, child)| self.insert(virtual_host, child));
    }
}

impl FromIterator<(String, String)> for Down {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Down {
        let mut down = Down::default();
        down.extend(pairs);
        down
    }
}

/// A way of a virtual host's flows past the child that they were given to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Past {
    /// Name of the virtual host.
    pub host: String,
    /// Name of the child.
    pub child: String,
    /// Where its tunnel ends.
    pub end: TunnelEnd,
}

/// What a child that tells us how it is means for the new flows of one virtual host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Steer {
    /// As if it said nothing.
    #[default]
    AsConfigured,
    /// It takes new flows.
    Takes {
        /// At this cost instead of the configured one.
        cost: Option<f64>,
        /// In this share instead of the configured one.
        weight: Option<Weight>,
    },
    /// It takes no new flows, and serves those that it has.
    TakesNone,
    /// It does not serve, and says so.
    Down,
}

/// For each virtual host of a configuration, by its position, its members in their order, for clients in no region and, where
/// it asks where clients are, for those in each region again; without any virtual hosts: as configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steering {
    /// Where in `members` those of each virtual host end.
    ends: Vec<usize>,
    members: Vec<Steer>,
}

impl Steering {
    /// Nothing about virtual hosts with so many members each, counted for each kind of clients.
    pub fn nothing(members: impl IntoIterator<Item = usize>) -> Steering {
        let ends = members.into_iter().scan(0, |end, members| {
            *end += members;
            Some(*end)
        });
        let ends: Vec<usize> = ends.collect();
        let members = vec![Steer::AsConfigured; ends.last().copied().unwrap_or(0)];
        Steering { ends, members }
    }

    fn range(&self, host: usize) -> Option<Range<usize>> {
        let end = *self.ends.get(host)?;
        Some(host.checked_sub(1).map_or(0, |before| self.ends[before])..end)
    }

    /// About a member of a virtual host, by their positions, for clients in no region.
    pub fn of(&self, host: usize, member: usize) -> Steer {
        self.all_of(host).get(member).copied().unwrap_or_default()
    }

    /// About all members of a virtual host.
    pub fn all_of(&self, host: usize) -> &[Steer] {
        self.range(host).map(|range| &self.members[range]).unwrap_or_default()
    }

    /// Puts what is known about one member for clients in no region in the place of what was.
    pub fn set_one(&mut self, host: usize, member: usize, steer: Steer) {
        if let Some(before) = self.range(host).and_then(|range| self.members[range].get_mut(member)) {
            *before = steer;
        }
    }

    /// Puts what is known about a virtual host's members in the place of what was, and says whether that is new.
    pub fn set(&mut self, host: usize, members: &[Steer]) -> bool {
        let Some(range) = self.range(host).filter(|range| range.len() == members.len()) else { return false };
        let before = &mut self.members[range];
        let new = *before != *members;
        before.copy_from_slice(members);
        new
    }
}

impl Conditions {
    /// The weight of `child` where the configuration says `configured`.
    pub fn weight(&self, child: &str, configured: Weight) -> Weight {
        match self.drained.contains(child) {
            true => Weight::DRAIN,
            false => self.weights.get(child).copied().unwrap_or(configured),
        }
    }

    /// Whether nothing but what the children say themselves makes a difference to how new flows are given out.
    pub fn are_plain(&self) -> bool {
        self.drained.is_empty() && self.weights.is_empty() && self.down.0.is_empty()
    }

    /// Whether `virtual_host` does not work on `child`.
    pub fn is_down(&self, virtual_host: &str, child: &str) -> bool {
        self.down.contains(virtual_host, child)
    }
}
