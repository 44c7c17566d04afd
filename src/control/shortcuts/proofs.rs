//! Which ends of shortcuts take our tunnels: those from which the virtual host answers a ping through them.
//!
//! A host server takes tunnels from the routers that it knows of, and a firewall may stand on the way that the router below
//! does not have to take. What is asked is what a flow needs: a packet in a tunnel from our own address, for the virtual
//! host's, whose answer comes straight back. Until there has been one, flows take the long way, and the end is asked again,
//! each time after twice as long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
use crate::config::Probe;
use crate::control::conditions::Past;
use crate::control::health::CheckId;
use crate::control::health::prober::{Prober, Question};

/// From the first question to the second, and from one to the next at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));

struct Wanted {
    past: Past,
    question: Question,
    due: Instant,
    again: Duration,
}

/// The ends that have not answered yet.
pub struct Proofs {
    prober: Prober,
    wanted: BTreeMap<u32, Wanted>,
    numbers: HashMap<Past, u32>,
    due: BTreeSet<(Instant, u32)>,
    next: u32,
}

impl Proofs {
    /// None. `seed` makes the identifiers of questions.
    pub fn new(seed: u64) -> Proofs {
        let (wanted, numbers, due) = (BTreeMap::new(), HashMap::new(), BTreeSet::new());
        Proofs { prober: Prober::new(seed), wanted, numbers, due, next: 0 }
    }

    /// Ends that have not answered.
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Whether all have answered.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Has an end asked, from our address `own`, for the virtual host's `address`.
    pub fn want(&mut self, now: Instant, past: Past, own: IpAddr, address: IpAddr) {
        if self.numbers.contains_key(&past) {
            return;
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let question = Question { probe: Arc::new(Probe::Icmp), tls: None, address, own };
        self.numbers.insert(past.clone(), number);
        self.due.insert((now, number));
        self.wanted.insert(number, Wanted { past, question, due: now, again: AGAIN.0 });
    }

    /// Asks an end no more.
    pub fn forget(&mut self, now: Instant, past: &Past) {
        let Some(number) = self.numbers.remove(past) else { return };
        self.prober.stop(now, CheckId(number));
        if let Some(wanted) = self.wanted.remove(&number) {
            self.due.remove(&(wanted.due, number));
        }
    }

    /// The next end that is to be asked now, and by which packets.
    pub fn ask(&mut self, now: Instant) -> Option<(Past, Vec<Vec<u8>>)> {
        let (due, number) = *self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.remove(&(due, number));
        let wanted = self.wanted.get_mut(&number)?;
        wanted.due = now + wanted.again;
        wanted.again = (wanted.again * 2).min(AGAIN.1);
        self.due.insert((wanted.due, number));
        self.prober.stop(now, CheckId(number));
        let progress = self.prober.start(now, CheckId(number), &wanted.question);
        Some((wanted.past.clone(), progress.packets))
    }

    /// Whether an IP packet for one of our own addresses, from its header on, is an answer.
    pub fn takes(&self, packet: &[u8]) -> bool {
        !self.is_empty() && self.prober.takes(packet)
    }

    /// Takes in such a packet: the end that has answered.
    pub fn receive(&mut self, now: Instant, packet: &[u8]) -> Option<Past> {
        let progress = self.prober.receive(now, packet)?;
        let CheckId(number) = progress.check;
        progress.ended?.ok()?;
        let past = self.wanted.get(&number)?.past.clone();
        self.forget(now, &past);
        Some(past)
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv4Slice, Icmpv4Type, IpHeaders, PacketBuilder};

    use super::*;
    use crate::control::wire::TunnelEnd;

    fn past(number: u8) -> Past {
        let end = TunnelEnd { kind: 1, port: 0, address: [10, 0, 2, number].into() };
        Past { host: "web".into(), child: "site1".into(), end }
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    /// What a server answers to an echo request.
    fn reply(packet: &[u8]) -> Vec<u8> {
        let (IpHeaders::Ipv4(header, _), payload) = IpHeaders::from_slice(packet).expect("a packet") else {
            panic!("not IPv4")
        };
        let request = Icmpv4Slice::from_slice(payload.payload).expect("a message");
        let Icmpv4Type::EchoRequest(echo) = request.icmp_type() else { panic!("no echo request") };
        let mut reply = Vec::new();
        PacketBuilder::ipv4(header.destination, header.source, 60)
            .icmpv4(Icmpv4Type::EchoReply(echo))
            .write(&mut reply, request.payload())
            .expect("a packet");
        reply
    }

    #[test]
    fn an_end_is_asked_until_it_answers_less_and_less_often() {
        let mut proofs = Proofs::new(7);
        let (own, address) = (IpAddr::from([10, 0, 2, 1]), IpAddr::from([192, 0, 2, 80]));
        proofs.want(at(0), past(1), own, address);
        proofs.want(at(0), past(2), own, address);
        proofs.want(at(0), past(1), own, address);
        assert_eq!(proofs.len(), 2);
        let mut asked = Vec::new();
        for ms in 0..60_000 {
            while let Some((past, packets)) = proofs.ask(at(ms)) {
                assert_eq!(packets.len(), 1);
                asked.push((ms, past, packets[0].clone()));
            }
        }
        let of_first = asked.iter().filter(|(_, asked, _)| *asked == past(1)).map(|(ms, ..)| *ms).collect::<Vec<_>>();
        assert_eq!(of_first, [0, 10, 30, 70, 150, 310, 630, 1270, 2550, 5110, 10230, 20230, 30230, 40230, 50230]);
        // Only an answer to the last question counts, and only for the end that was asked.
        let of = |number| asked.iter().rfind(|(_, asked, _)| *asked == past(number)).expect("a question").2.clone();
        assert!(!proofs.takes(&reply(&asked[0].2)) && !proofs.takes(&of(2)));
        let answer = reply(&of(2));
        assert!(proofs.takes(&answer));
        assert_eq!(proofs.receive(at(60_000), &answer), Some(past(2)));
        assert_eq!((proofs.len(), proofs.takes(&answer)), (1, false));
        proofs.forget(at(60_000), &past(1));
        assert!(proofs.is_empty() && proofs.due.is_empty() && proofs.ask(at(99_000)).is_none());
    }
}
