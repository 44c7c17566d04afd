//! What others may see of the sessions while they go on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Hierarchy;
use crate::clock::Instant;
use crate::config::{Config, Register};
use crate::control::session::child::{ChildCounters, ChildEnd, Stage};
use crate::control::session::parent::ParentCounters;
use crate::control::session::report::Serves;
use crate::control::shortcuts::ShortcutCounters;
use crate::control::wire::WallClock;

/// Where the last view is.
pub type Look = Arc<ArcSwap<View>>;

/// The sessions at one time.
#[derive(Debug, Default)]
pub struct View {
    /// What is counted of children's sessions, where we listen for them.
    pub counters: Option<Arc<ParentCounters>>,
    /// Names of the virtual hosts, by their positions.
    pub hosts: Arc<[Arc<str>]>,
    /// Children that may tell us how they are.
    pub children: Vec<ChildView>,
    /// Parents that are told how we are.
    pub parents: Vec<ParentView>,
    /// When our own certificate ends.
    pub not_after: Option<WallClock>,
    /// What is counted of shortcuts, where there are sessions.
    pub shortcuts: Option<Arc<ShortcutCounters>>,
}

/// A child that may tell us how it is.
#[derive(Clone, Debug)]
pub struct ChildView {
    /// Its name.
    pub name: String,
    /// Whether it has a session.
    pub connected: bool,
    /// What it has said that is still believed.
    pub said: Option<Said>,
}

/// What a child has said.
#[derive(Clone, Debug)]
pub struct Said {
    /// How long ago its last update came.
    pub age: Duration,
    /// Time to it and back.
    pub round_trip: Option<Duration>,
    /// It wants no new flows.
    pub draining: bool,
    /// Virtual subnets in its last update, and those that were refused.
    pub records: (usize, u32),
    /// Virtual hosts that it is a child of, by their positions, and what it says of each.
    pub hosts: Arc<[(u32, Option<Serves>)]>,
    /// When its certificate ends.
    pub not_after: WallClock,
}

/// A parent that is told how we are.
#[derive(Clone, Debug)]
pub struct ParentView {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// How far the session has come.
    pub stage: Stage,
    /// Time to it and back.
    pub round_trip: Option<Duration>,
    /// Why it did not take us, or a part of what we said.
    pub refusal: Option<String>,
    /// What is counted.
    pub counters: Arc<ChildCounters>,
}

impl ParentView {
    /// The session as it is now, with a parent that listens there.
    pub fn of(end: &ChildEnd, address: SocketAddr) -> ParentView {
        ParentView {
            name: end.parent().to_owned(),
            address,
            stage: end.stage(),
            round_trip: end.round_trip(),
            refusal: end.refusal().map(str::to_owned),
            counters: end.counters().clone(),
        }
    }
}

impl Hierarchy {
    /// The sessions as they are now.
    pub fn view(&self, now: Instant, config: &Config) -> View {
        let registering = config.children.iter().filter(|child| child.register != Register::Off);
        let children = registering.map(|child| {
            let news = self.news(&child.name);
            let said = news.map(|news| Said {
                age: now - news.received,
                round_trip: news.round_trip,
                draining: news.draining,
                records: (news.report.len(), news.refused),
                hosts: self.speakers.get(&child.name).map(|speaker| speaker.said.clone()).unwrap_or_default(),
                not_after: news.not_after,
            });
            ChildView { name: child.name.clone(), connected: news.is_some_and(|news| news.session.is_some()), said }
        });
        let parents = self.parents().map(|(end, address)| ParentView::of(end, address));
        View {
            hosts: self.names.clone(),
            counters: self.children.as_ref().map(|children| children.counters().clone()),
            children: children.collect(),
            parents: parents.collect(),
            not_after: config.sessions.credentials.as_ref().map(|credentials| credentials.identity.not_after),
            shortcuts: config.sessions.credentials.as_ref().map(|_| self.shortcuts.counters().clone()),
        }
    }
}
