//! How the slow path changes where single flows go, and hears of new ones that parents have sent.
//!
//! ```text
//! slow path: Clerk ── orders about flows ─────────────────────► worker: Inspector, which alone touches its tables
//!                  ◄── answers about those that it has ────────
//!                  ◄── NewFlows: key and target of new flows ── worker: whoever makes a flow entry
//! ```
//!
//! A flow is at one worker, and the slow path does not know at which: it asks all of them, and only the one that has it
//! answers. Orders wait while there is no room for their answers. A new flow that finds no room is counted, and not told.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use super::inspect::{Key, Shared};
use crate::clock::Tick;
use crate::flow::key::{FlowKey, KeyV4, KeyV6};
use crate::flow::memory::Memory;
use crate::flow::state::{FlowState, Timeouts};
use crate::flow::table::{FlowHash, Slot, Table};
use crate::units::TargetId;

/// Orders, and answers to them, that wait at most.
const ORDERS: usize = 1024;

/// New flows that wait for the slow path at most.
const NEW_FLOWS: usize = 1024;

/// Orders that are carried out in one turn.
const ORDERS_PER_TURN: usize = 8;

/// What is to be done with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Its packets go to another target from now on, if they go to the first one.
    Redirect {
        /// Where they must go before.
        from: TargetId,
        /// Where they go then.
        to: TargetId,
        /// Whether that is past a child; back to it else.
        is_past: bool,
    },
    /// Nothing: the answer is wanted.
    Look,
    /// It is taken for one that has come as far elsewhere, where its last packet came that long ago.
    Touch {
        /// How far it has come there.
        state: FlowState,
        /// How long ago it has been seen there.
        idle: Duration,
    },
    /// It is one that another router has: where its packets go, and as if it had come as far here. Nobody is answered.
    Keep {
        /// Where its packets go.
        target: TargetId,
        /// How far it has come there.
        state: FlowState,
        /// How long ago it has been seen there.
        idle: Duration,
    },
    /// It has ended at another router, and has not been seen here. Nobody is answered.
    Drop,
}

/// Something to be done with a flow, wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The key of its entry.
    pub key: Key,
    /// What.
    pub doing: Doing,
}

/// What the worker says that has the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was ordered.
    pub order: Order,
    /// Where its packets have gone until then.
    pub target: TargetId,
    /// How far it has come.
    pub state: FlowState,
    /// Time since its last packet.
    pub idle: Duration,
}

/// A flow that a worker has made an entry for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFlow {
    /// Addresses, protocol and ports of its first packet, whatever its entry's key is.
    pub key: Key,
    /// Where its packets go.
    pub target: TargetId,
}

/// The way of new flows to the slow path.
#[derive(Clone)]
pub struct NewFlows(Option<Arc<ArrayQueue<NewFlow>>>);

impl NewFlows {
    /// A way that nobody looks at: it takes every flow and keeps none.
    pub fn discarding() -> NewFlows {
        NewFlows(None)
    }

    /// Tells a flow; false when there is no room.
    pub(super) fn push(&self, flow: NewFlow) -> bool {
        self.0.as_ref().is_none_or(|ring| ring.push(flow).is_ok())
    }
}

/// The rings between one worker and the slow path.
pub(super) struct Rings {
    orders: ArrayQueue<Order>,
    answers: ArrayQueue<Answer>,
    new_flows: Arc<ArrayQueue<NewFlow>>,
}

impl Rings {
    pub fn new() -> Rings {
        let new_flows = Arc::new(ArrayQueue::new(NEW_FLOWS));
        Rings { orders: ArrayQueue::new(ORDERS), answers: ArrayQueue::new(ORDERS), new_flows }
    }

    /// The worker's end for its new flows.
    pub fn new_flows(&self) -> NewFlows {
        NewFlows(Some(self.new_flows.clone()))
    }

    /// Carries out a few of the orders, as far as there is room for their answers. True when more wait.
    pub fn carry_out<M: Memory>(
        &self,
        v4: &mut Table<KeyV4, M>,
        v6: &mut Table<KeyV6, M>,
        now: Tick,
        timeouts: &Timeouts,
    ) -> bool {
        for _ in 0..ORDERS_PER_TURN {
            // The worker alone adds to the ring, so that room there is stays there.
            let order = if self.answers.is_full() { None } else { self.orders.pop() };
            let Some(order) = order else { break };
            let answer = match order.key {
                Key::V4(key) => carry_out(v4, &key, order, now, timeouts),
                Key::V6(key) => carry_out(v6, &key, order, now, timeouts),
            };
            if let Some(answer) = answer {
                let _ = self.answers.push(answer);
            }
        }
        !self.orders.is_empty()
    }
}

fn carry_out<K: FlowKey, M: Memory>(
    table: &mut Table<K, M>,
    key: &K,
    order: Order,
    now: Tick,
    timeouts: &Timeouts,
) -> Option<Answer> {
    let hash = table.hash(key);
    let slot = match (table.find_live(hash, key, now, timeouts), order.doing) {
        (found, Doing::Keep { target, state, idle }) => {
            keep(table, (found, hash, key), (target, state, idle), now, timeouts);
            return None;
        }
        (found, _) => found?,
    };
    let entry = table.entry(slot);
    let record = table.record_mut(slot);
    match order.doing {
        Doing::Redirect { from, to, .. } if record.target() == from => record.redirect(to),
        Doing::Redirect { .. } | Doing::Look => {}
        Doing::Touch { state, idle } => record.renew(now, state, idle),
        Doing::Keep { .. } => {}
        Doing::Drop => {
            // What has passed here is known better here.
            if entry.packets == 0 {
                table.remove(slot);
            }
            return None;
        }
    }
    let idle = Duration::from_millis(u64::from(now.since(entry.last_seen)));
    Some(Answer { order, target: entry.target, state: entry.state, idle })
}

/// Makes a flow's entry as it is at another router, or changes the one that there is. For one that finds no room there is
/// none.
fn keep<K: FlowKey, M: Memory>(
    table: &mut Table<K, M>,
    (found, hash, key): (Option<Slot>, FlowHash, &K),
    (target, state, idle): (TargetId, FlowState, Duration),
    now: Tick,
    timeouts: &Timeouts,
) {
    match found {
        Some(slot) => {
            let record = table.record_mut(slot);
            record.redirect(target);
            record.renew(now, state, idle);
        }
        None => {
            if let Ok(vacancy) = table.vacancy(hash, now, timeouts) {
                let idle = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
                table.fill(vacancy, hash, *key, target, state, Tick(now.0.wrapping_sub(idle)));
            }
        }
    }
}

/// The slow path's end.
pub struct Clerk(pub(super) Arc<Shared>);

impl Clerk {
    /// Gives an order; false when too many wait.
    pub fn order(&self, order: Order) -> bool {
        let room = self.0.rings.orders.push(order).is_ok();
        self.0.ask();
        room
    }

    /// The next answer.
    pub fn answer(&self) -> Option<Answer> {
        let answer = self.0.rings.answers.pop();
        if answer.is_some() && !self.0.rings.orders.is_empty() {
            // They may have waited for this room.
            self.0.ask();
        }
        answer
    }

    /// The next new flow.
    pub fn new_flow(&self) -> Option<NewFlow> {
        self.0.rings.new_flows.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::memory::Heap;
    use crate::forward::inspect::pair;

    const SECOND: u32 = 1_000;

    fn timeouts() -> Timeouts {
        Timeouts::new(|state| if state == FlowState::TcpEstablished { 90 * SECOND } else { 10 * SECOND })
    }

    fn key(number: u32) -> KeyV4 {
        KeyV4 { source: number.to_be_bytes(), destination: [192, 0, 2, 1], ports: [1, 2, 0, 80], protocol: 6 }
    }

    /// Flows 0 to 9, all to target 1, first seen at 1 s.
    fn table() -> (Table<KeyV4, Heap>, Table<KeyV6, Heap>) {
        let mut v4 = Table::new(5_000, Some(7)).expect("memory");
        for number in 0..10 {
            let hash = v4.hash(&key(number));
            let vacancy = v4.vacancy(hash, Tick(SECOND), &timeouts()).expect("room");
            let record = v4.fill(vacancy, hash, key(number), TargetId(1), FlowState::TcpSyn, Tick(SECOND));
            record.touch(Tick(SECOND), FlowState::TcpSyn, 40);
        }
        (v4, Table::new(100, Some(7)).expect("memory"))
    }

    #[test]
    fn a_flow_is_redirected_only_from_where_it_goes_and_unknown_ones_have_no_answer() {
        let (mut v4, mut v6) = table();
        let (desk, mut inspector) = pair();
        let clerk = desk.clerk();
        let redirect = |from, to| Doing::Redirect { from: TargetId(from), to: TargetId(to), is_past: true };
        let table = [
            (3, redirect(1, 7), Some(1), Some(7)),
            (3, redirect(1, 8), Some(7), Some(7)),
            (3, redirect(7, 1), Some(7), Some(1)),
            (4, redirect(2, 8), Some(1), Some(1)),
            (4, Doing::Look, Some(1), Some(1)),
            (99, redirect(1, 8), None, None),
        ];
        for (number, doing, before, after) in table {
            assert!(clerk.order(Order { key: key(number).into(), doing }));
            assert!(inspector.is_asked());
            inspector.answer(&mut v4, &mut v6, Tick(3 * SECOND), &timeouts());
            let answer = clerk.answer();
            assert_eq!(answer.map(|answer| answer.target.0), before, "{number} {doing:?}");
            assert!(answer.is_none_or(|answer| answer.idle == Duration::from_secs(2)), "{answer:?}");
            let now = v4.peek(&key(number), Tick(3 * SECOND), &timeouts());
            assert_eq!(now.map(|entry| entry.target.0), after, "{number} {doing:?}");
        }
        assert!(!inspector.is_asked());
    }

    #[test]
    fn a_flow_that_lives_elsewhere_lives_here_as_long() {
        let (mut v4, mut v6) = table();
        let (desk, mut inspector) = pair();
        let clerk = desk.clerk();
        let doing = Doing::Touch { state: FlowState::TcpEstablished, idle: Duration::from_secs(2) };
        for number in [3, 4] {
            assert!(clerk.order(Order { key: key(number).into(), doing }));
        }
        inspector.answer(&mut v4, &mut v6, Tick(8 * SECOND), &timeouts());
        let known = |number, now| v4.peek(&key(number), Tick(now * SECOND), &timeouts()).is_some();
        assert_eq!([known(3, 96), known(3, 97), known(5, 11), known(5, 12)], [true, false, true, false]);
        let entry = v4.peek(&key(4), Tick(8 * SECOND), &timeouts()).expect("a flow");
        assert_eq!((entry.packets, entry.bytes), (1, 40), "nothing has passed here");
    }

    #[test]
    fn a_flow_of_another_router_is_kept_changed_and_dropped_as_it_is_there() {
        let (mut v4, mut v6) = table();
        let (desk, mut inspector) = pair();
        let clerk = desk.clerk();
        let keep =
            |target, state, idle| Doing::Keep { target: TargetId(target), state, idle: Duration::from_secs(idle) };
        let (established, fin) = (FlowState::TcpEstablished, FlowState::TcpFin);
        // What is ordered, and the flow's target, state and last packet in seconds then.
        let table = [
            (50, keep(5, established, 2), Some((5, established, 8))),
            (50, keep(6, fin, 1), Some((6, fin, 9))),
            (50, keep(6, fin, 5), Some((6, fin, 9))),
            (50, Doing::Drop, None),
            (50, Doing::Drop, None),
            // This one has passed here.
            (3, keep(7, established, 0), Some((7, established, 10))),
            (3, Doing::Drop, Some((7, established, 10))),
            // Its time is over.
            (51, keep(5, fin, 11), None),
        ];
        for (number, doing, expected) in table {
            assert!(clerk.order(Order { key: key(number).into(), doing }));
            inspector.answer(&mut v4, &mut v6, Tick(10 * SECOND), &timeouts());
            assert_eq!(clerk.answer(), None);
            let entry = v4.peek(&key(number), Tick(10 * SECOND), &timeouts());
            let now = entry.map(|entry| (entry.target.0, entry.state, entry.last_seen.0 / SECOND));
            assert_eq!(now, expected, "{number} {doing:?}");
        }
    }

    #[test]
    fn no_answer_is_lost_and_orders_beyond_the_room_are_refused() {
        let (mut v4, mut v6) = table();
        let (desk, mut inspector) = pair();
        let clerk = desk.clerk();
        let order = Order { key: key(1).into(), doing: Doing::Look };
        let (mut given, mut answered) = (0, 0);
        while clerk.order(order) {
            given += 1;
        }
        assert_eq!(given, ORDERS);
        while inspector.is_asked() && !inspector_is_stuck(&clerk, &mut inspector, (&mut v4, &mut v6)) {}
        while clerk.order(order) {
            given += 1;
        }
        loop {
            let before = answered;
            while clerk.answer().is_some() {
                answered += 1;
            }
            (0..given).for_each(|_| inspector.answer(&mut v4, &mut v6, Tick(SECOND), &timeouts()));
            if answered == before {
                break;
            }
        }
        assert_eq!(answered, given);
    }

    type Tables<'a> = (&'a mut Table<KeyV4, Heap>, &'a mut Table<KeyV6, Heap>);

    /// Whether a turn more changes nothing: no room for answers, or no orders.
    fn inspector_is_stuck(clerk: &Clerk, inspector: &mut crate::forward::inspect::Inspector, (v4, v6): Tables) -> bool {
        let before = clerk.0.rings.orders.len();
        inspector.answer(v4, v6, Tick(SECOND), &timeouts());
        clerk.0.rings.orders.len() == before
    }

    #[test]
    fn new_flows_beyond_the_room_are_refused() {
        let (desk, inspector) = pair();
        let (clerk, new_flows) = (desk.clerk(), inspector.new_flows());
        let flow = |number| NewFlow { key: key(number).into(), target: TargetId(number) };
        let told = (0..2_000).filter(|number| new_flows.push(flow(*number))).count();
        assert_eq!(told, NEW_FLOWS);
        assert_eq!((clerk.new_flow(), clerk.new_flow()), (Some(flow(0)), Some(flow(1))));
        assert!(NewFlows::discarding().push(flow(1)));
    }
}
