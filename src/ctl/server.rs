//! The answering end: every request gets its answer here, on the slow path's own thread; long answers in parts, pass by
//! pass.

mod captures;
mod flows;
mod rows;
mod trace;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use super::request::Request;
use super::response::{Counters, Done};
pub use super::socket::Asked;
use super::socket::Outbox;
use crate::clock::Instant;
use crate::control::slow_path::SlowPath;
use crate::forward::inspect::Desk;
use crate::metrics::collector::ForwardCollector;
use crate::units::Weight;
use captures::Captures;
use flows::Walk;
use trace::Tracing;

/// Long answers of a kind that wait for their turn at most.
const WAITING_MAX: usize = 16;

/// What the answers need that does not change while the router runs.
pub struct Facts {
    /// Where the configuration was read.
    pub configuration: String,
    /// When the router was started.
    pub started: Instant,
    /// The ports' drivers and Ethernet addresses, in the order of the configuration.
    pub ports: Vec<PortFacts>,
}

/// What a port's device is.
#[derive(Clone, Debug)]
pub struct PortFacts {
    /// Name of the driver.
    pub driver: String,
    /// Ethernet address.
    pub mac: String,
}

/// The time, as the workers count it and as people do.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// By the workers' clock.
    pub instant: Instant,
    /// By the calendar's.
    pub wall: SystemTime,
}

/// Answers what is asked.
pub struct Control {
    facts: Facts,
    collector: Arc<ForwardCollector>,
    /// One for each worker.
    desks: Vec<Desk>,
    /// Walks over the flows; the first is under way.
    walks: VecDeque<Walk>,
    /// Traces; the first is under way.
    traces: VecDeque<Tracing>,
    captures: Captures,
}

impl Control {
    /// Answers about a router whose counters `collector` reads and whose workers are at `desks`.
    pub fn new(facts: Facts, collector: Arc<ForwardCollector>, desks: Vec<Desk>) -> Control {
        let (walks, traces) = (VecDeque::new(), VecDeque::new());
        Control { facts, collector, desks, walks, traces, captures: Captures::default() }
    }

    /// Answers a request, or starts to.
    pub fn ask(&mut self, router: &mut SlowPath, now: Now, Asked { request, to }: Asked) {
        match request {
            Request::Flows(filter) => match Walk::new(filter, router) {
                Ok(walk) if self.walks.len() < WAITING_MAX => {
                    self.walks.push_back(walk.into(to));
                    if self.walks.len() == 1 {
                        self.desks.iter_mut().for_each(Desk::start_walk);
                    }
                }
                Ok(_) => to.finish(Err::<(), _>("too many lists of flows are waiting; try again".into())),
                Err(why) => to.finish(Err::<(), _>(why)),
            },
            Request::Trace(request) => match Tracing::new(&request, router) {
                Ok(tracing) if self.traces.len() < WAITING_MAX => self.traces.push_back(tracing.to(to)),
                Ok(_) => to.finish(Err::<(), _>("too many traces are waiting; try again".into())),
                Err(why) => to.finish(Err::<(), _>(why)),
            },
            Request::Capture(request) => self.captures.start(&request, router, now, self.desks.len(), to),
            request => to.finish(self.answer(router, now, &request)),
        }
    }

    /// The answer to a request whose answer is short.
    ///
    /// # Errors
    /// Why there is none, in one line.
    pub fn answer(&mut self, router: &mut SlowPath, at: Now, request: &Request) -> Result<Value, String> {
        let now = at.instant;
        match request {
            Request::Status => json(rows::status(&self.facts, &self.collector, router, at)),
            Request::Ports => json(rows::ports(&self.facts, &self.collector, router)),
            Request::Services => json(rows::services(&self.collector.report(0.0), router)),
            Request::Children => json(rows::children(&self.collector.report(0.0), router, at)),
            Request::Parents => json(rows::parents(router)),
            Request::Recovery => json(rows::recovery(router, now)),
            Request::Ha => json(rows::pair(router, now)?),
            Request::HaWish { active } => {
                router.wish(now, *active).map_err(|why| why.map_or(rows::NO_PAIR.into(), |why| why.to_string()))?;
                done(match active {
                    true => "this router is active where its priority is the greater one".into(),
                    false => "the other router is to be active; this one takes over only when that is gone".into(),
                })
            }
            Request::Forget { worker } => {
                router.forget(usize::from(*worker)).map_err(|error| error.to_string())?;
                done(format!("worker {worker} has forgotten its flows"))
            }
            Request::Neighbours => json(rows::neighbours(router)),
            Request::Counters => json(Counters {
                name: router.config().router.name.clone(),
                report: self.collector.report((now - self.facts.started).as_secs_f64()),
                ports: self.collector.ports(),
            }),
            Request::Drain { child } => {
                router.drain(child, true, now).map_err(|error| error.to_string())?;
                done(format!("{child} gets no new flows; those that it has stay"))
            }
            Request::Undrain { child } => {
                router.drain(child, false, now).map_err(|error| error.to_string())?;
                done(format!("{child} gets new flows as its weight says"))
            }
            Request::Weight { child, weight } => {
                let weight = weight.map(|weight| {
                    let most = Weight::MAX;
                    Weight::new(weight)
                        .ok_or_else(|| format!("weight {weight} is too large; give one from 0 to {most}"))
                });
                let weight = weight.transpose()?;
                router.weigh(child, weight, now).map_err(|error| error.to_string())?;
                done(match weight {
                    Some(weight) => format!("{child} has weight {} in all its virtual hosts", weight.get()),
                    None => format!("{child} has the weights of the configuration"),
                })
            }
            Request::Reload => Err("a reload is under way already; wait for its end".into()),
            Request::Flows(_) | Request::Trace(_) | Request::Capture(_) => Err("this is answered in parts".into()),
        }
    }

    /// Goes on with the long answers.
    pub fn pass(&mut self, router: &mut SlowPath, now: Now) {
        if let Some(walk) = self.walks.front_mut()
            && walk.pass(&mut self.desks, now.instant)
        {
            self.walks.pop_front();
            let next = if self.walks.is_empty() { Desk::stop_walk } else { Desk::start_walk };
            self.desks.iter_mut().for_each(next);
        }
        if let Some(tracing) = self.traces.front_mut()
            && tracing.pass(&self.desks, router, now.instant)
        {
            self.traces.pop_front();
        }
        self.captures.pass(router, now.instant);
    }
}

fn json(answer: impl Serialize) -> Result<Value, String> {
    serde_json::to_value(answer).map_err(|error| error.to_string())
}

fn done(done: String) -> Result<Value, String> {
    json(Done { done })
}

/// Ends an answer that has no parts.
pub fn finish(to: Outbox, answer: Result<String, String>) {
    to.finish(answer.map(|done| Done { done }));
}
