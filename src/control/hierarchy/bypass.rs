//! How shortcuts come in by the sessions and leave by them: many in one message, and few messages a second.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::{Hierarchy, Outcome};
use crate::clock::Instant;
use crate::config::Config;
use crate::control::session::{Carrier, child, parent};
use crate::control::shortcuts::{Doing, Input, Output, Shortcuts};
use crate::control::wire::{Kept, SHORTCUTS_MAX, Shortcut, TunnelEnd};
use crate::forward::inspect::Key;

/// From one message about shortcuts to the next, at least: the first of them leaves at once.
const TELLING: Duration = Duration::from_millis(20);

/// Shortcuts, and flows to keep, that wait to be told at most.
const WAITING_MAX: usize = 8 * SHORTCUTS_MAX;

/// What is to be done with flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// With one.
    Flow(Key, Doing),
    /// All that go past a child to this end go to the child again.
    Close(Arc<str>, TunnelEnd),
    /// None goes there any more.
    Forget(Arc<str>, TunnelEnd),
}

/// What waits to be done and told.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    orders: Vec<Order>,
    told: Vec<Shortcut>,
    revoked: Vec<TunnelEnd>,
    kept: BTreeMap<Arc<str>, Vec<Kept>>,
    /// When the next messages may leave.
    after: Instant,
}

impl Outbox {
    fn waits(&self) -> bool {
        !(self.told.is_empty() && self.revoked.is_empty() && self.kept.is_empty())
    }

    /// Sorts what the machine wants. What finds no room to wait is not told: its flows take the long way.
    pub fn put(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Order(flow, doing) => self.orders.push(Order::Flow(flow, doing)),
                Output::Close(child, end) => self.orders.push(Order::Close(child, end)),
                Output::Forget(child, end) => self.orders.push(Order::Forget(child, end)),
                Output::Tell(shortcut) if self.told.len() < WAITING_MAX => self.told.push(shortcut),
                Output::Tell(_) => {}
                Output::Revoke(end) => {
                    // What was to be told about it would come behind.
                    self.told.retain(|shortcut| shortcut.end != end);
                    if !self.revoked.contains(&end) {
                        self.revoked.push(end);
                    }
                }
                Output::Keep(child, kept) => {
                    let waiting = self.kept.entry(child).or_default();
                    if waiting.len() < WAITING_MAX {
                        waiting.push(kept);
                    }
                }
            }
        }
    }
}

impl Hierarchy {
    /// The shortcuts.
    pub fn shortcuts(&self) -> &Shortcuts {
        &self.shortcuts
    }

    /// Tells the shortcuts what has come up with flows.
    pub fn shortcut(&mut self, now: Instant, input: Input<'_>) {
        let outputs = self.shortcuts.handle(now, input);
        self.outbox.put(outputs);
    }

    /// Whether a child tells itself where it sends flows.
    pub fn tells_shortcuts(&self, child: &str) -> bool {
        self.news(child).is_some_and(|news| news.tells_shortcuts && news.session.is_some())
    }

    /// When shortcuts are to go on, or to be told.
    pub(super) fn next_shortcut(&self) -> Option<Instant> {
        let at_once = (!self.outbox.orders.is_empty()).then_some(Instant::ZERO);
        let telling = self.outbox.waits().then_some(self.outbox.after);
        self.shortcuts.next_deadline().into_iter().chain(at_once).chain(telling).min()
    }

    pub(super) fn told(&mut self, now: Instant, config: &Config, child: &str, level: u8, told: Vec<Shortcut>) {
        for shortcut in told {
            let reachable = is_below(config, shortcut.end.address);
            self.shortcut(now, Input::Told { child, level, shortcut, reachable });
        }
    }

    pub(super) fn revoked(&mut self, now: Instant, child: &str, ends: Vec<TunnelEnd>) {
        ends.into_iter().for_each(|end| self.shortcut(now, Input::Revoked { child, end }));
    }

    /// Lets the shortcuts go on, and tells what there is to tell.
    pub(super) fn bypass<C>(&mut self, now: Instant, carrier: &mut C, config: &Config, outcome: &mut Outcome)
    where
        C: Carrier<Address = SocketAddr>,
    {
        if self.shortcuts.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.shortcut(now, Input::Tick);
        }
        outcome.orders.append(&mut self.outbox.orders);
        if !self.outbox.waits() || now < self.outbox.after {
            return;
        }
        self.outbox.after = now + TELLING;
        let revoked = std::mem::take(&mut self.outbox.revoked);
        let told: Vec<Shortcut> = self.outbox.told.drain(..self.outbox.told.len().min(SHORTCUTS_MAX)).collect();
        let mut rest = Vec::new();
        // In this order: after it was revoked an end may be told again.
        for ends in revoked.chunks(SHORTCUTS_MAX) {
            self.parents.handle(now, &child::Input::Revoke(ends.to_vec()), carrier, &mut rest);
        }
        if !told.is_empty() {
            self.parents.handle(now, &child::Input::Shortcuts(told), carrier, &mut rest);
        }
        self.upward(now, rest, outcome);
        for (child, mut kept) in std::mem::take(&mut self.outbox.kept) {
            let later = kept.split_off(kept.len().min(SHORTCUTS_MAX));
            if !later.is_empty() {
                self.outbox.kept.insert(child.clone(), later);
            }
            if let Some(children) = &mut self.children {
                let outputs = children.handle(now, parent::Input::Keep(&child, kept));
                self.downward(now, outputs, carrier, config, outcome);
            }
        }
    }
}

/// Whether tunnels may lead there: there is a way, and neither we nor a parent is there.
fn is_below(config: &Config, address: IpAddr) -> bool {
    let up = config.router.parents.iter().any(|net| net.prefix_len() == net.max_prefix_len() && net.addr() == address);
    let ways = config.ports.is_empty() || config.attachment(address).is_some();
    let tunnels = match address {
        IpAddr::V4(_) => config.router.tunnel_v4.is_some(),
        IpAddr::V6(_) => config.router.tunnel_v6.is_some(),
    };
    let host = !(address.is_unspecified() || address.is_multicast() || address.is_loopback());
    tunnels && ways && host && !up && !config.owns(address)
}
