//! A node's sessions with all of its parents over one carrier: which connection is whose, and what the machines want done.

use ipnet::IpNet;

use super::child::{ChildEnd, Input, Output};
use super::{Carrier, Happening, SessionId};
use crate::clock::Instant;
use crate::control::wire::Record;

/// All of them; addresses are those of the carrier.
pub struct Parents<A>(Vec<Parent<A>>);

struct Parent<A> {
    end: ChildEnd,
    address: A,
    /// The connection that is there, or on its way.
    session: Option<SessionId>,
}

impl<A> FromIterator<(ChildEnd, A)> for Parents<A> {
    fn from_iter<I: IntoIterator<Item = (ChildEnd, A)>>(parents: I) -> Parents<A> {
        Parents(parents.into_iter().map(|(end, address)| Parent { end, address, session: None }).collect())
    }
}

impl<A> Parents<A> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each with its address.
    pub fn iter(&self) -> impl Iterator<Item = (&ChildEnd, &A)> {
        self.0.iter().map(|parent| (&parent.end, &parent.address))
    }

    /// Has all of them be offered other prefixes from the next session on.
    pub fn offer(&mut self, offers: &[IpNet]) {
        self.0.iter_mut().for_each(|parent| parent.end.offer(offers.to_vec()));
    }

    /// When the next [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.0.iter().filter_map(|parent| parent.end.next_deadline()).min()
    }

    /// Takes in what has happened, and gives it back where it is of no connection to a parent. What the machines want that is
    /// not the carrier's business goes to `rest`, here as below.
    pub fn take_in<C>(
        &mut self,
        now: Instant,
        happening: Happening,
        carrier: &mut C,
        rest: &mut Vec<Output>,
    ) -> Option<Happening>
    where
        C: Carrier<Address = A>,
    {
        let (id, input) = match &happening {
            Happening::Opened(id, identity) => (id, Input::Opened(identity.clone())),
            Happening::Received(id, bytes) => (id, Input::Received(bytes)),
            Happening::Closed(id, why) => (id, Input::Closed(why)),
            Happening::Rejected(_) => return Some(happening),
        };
        let Some(parent) = self.0.iter_mut().find(|parent| parent.session == Some(*id)) else {
            return Some(happening);
        };
        if let Input::Closed(_) = input {
            parent.session = None;
        }
        parent.handle(now, input, carrier, rest);
        None
    }

    /// Tells all machines the same.
    pub fn handle<C>(&mut self, now: Instant, input: &Input<'_>, carrier: &mut C, rest: &mut Vec<Output>)
    where
        C: Carrier<Address = A>,
    {
        self.0.iter_mut().for_each(|parent| parent.handle(now, input.clone(), carrier, rest));
    }

    /// Tells those parents how we are that are to know it now.
    pub fn report<C, F>(&mut self, now: Instant, mut records: F, carrier: &mut C, rest: &mut Vec<Output>)
    where
        C: Carrier<Address = A>,
        F: FnMut() -> Vec<Record>,
    {
        for parent in self.0.iter_mut().filter(|parent| parent.end.wants_report()) {
            parent.handle(now, Input::Report(records()), carrier, rest);
        }
    }
}

impl<A> Parent<A> {
    fn handle<C>(&mut self, now: Instant, input: Input<'_>, carrier: &mut C, rest: &mut Vec<Output>)
    where
        C: Carrier<Address = A>,
    {
        for output in self.end.handle(now, input) {
            match output {
                Output::Connect => self.session = Some(carrier.connect(&self.address)),
                Output::Send(bytes) => self.session.iter().for_each(|id| carrier.send(*id, bytes.clone())),
                Output::Close => self.session.take().iter().for_each(|id| carrier.close(*id)),
                // Whoever drives us answers by `report`, when all news are in.
                Output::Report => {}
                other => rest.push(other),
            }
        }
    }
}
