//! The machine that decides whether this router of a pair is active.

use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Instant;
use crate::clock::rate_limit::RateLimit;
use crate::units::labelled;

/// Shortest and longest time between two advertisements: what VRRP can say (RFC 9568 section 5.2.7).
pub const INTERVALS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(40_950)];

/// How often the addresses are announced when they have been taken, and how far apart.
const ANNOUNCEMENTS: u8 = 4;
const ANNOUNCEMENT: Duration = Duration::from_secs(1);

/// Times a second, and in one go, that another one is contradicted that is active and should not be.
const CONTRADICTIONS: (u32, u32) = (20, 4);

labelled! {
    /// What a router of a pair is.
    Role {
        /// It does not know yet how its own links are.
        Initial => "initial",
        /// It is ready to be active.
        Standby => "standby",
        /// It has the pair's addresses.
        Active => "active",
        /// Something is missing without which it must not be active.
        Inoperative => "inoperative",
    }
}

labelled! {
    /// The ways by which the other router is heard.
    Path {
        /// VRRP on the access port.
        Access => "access",
        /// Sealed datagrams.
        Peer => "peer",
    }
}

/// What does not change while the router runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// From 1 to 254: who has the greater one is active.
    pub priority: u8,
    /// From one advertisement to the next.
    pub interval: Duration,
    /// How long a standby waits before it takes over from an active one of lesser priority; `None`: it does not.
    pub preempt: Option<Duration>,
    /// By what routers of equal priority are told apart: the access port's own address.
    pub identity: IpAddr,
    /// Whether it gets the flows of the other one, and takes over from it only with these.
    pub mirrors: bool,
    /// Whether it hears of the other one also while that is not active.
    pub has_peer: bool,
}

/// What was heard of another router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// By which way.
    pub path: Path,
    /// Whether it is active; one that releases the addresses is, with priority 0.
    pub active: bool,
    /// Its priority now; 0: it gives the addresses up, or must not have them.
    pub priority: u8,
    /// Who it is.
    pub from: IpAddr,
    /// How often it is to be heard.
    pub interval: Duration,
}

/// How this router is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// It must not be active.
    pub forbidden: bool,
    /// What it lacks, in steps of priority.
    pub lowered: u8,
}

/// What the machine is told.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// Another router was heard.
    Heard(Heard),
    /// How this router is: the first time, and whenever it has changed.
    Condition(Condition),
    /// Whether all flows of the active one are here.
    Synchronised(bool),
    /// The machine of the other router says that no program takes what it is sent.
    Refused,
    /// The process ends.
    Stop,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Say on the access port that this router is active, with this priority, or (0) is so no more.
    Advertise(u8),
    /// Say to the other one of the pair what this router is, and its priority.
    Heartbeat(Role, u8),
    /// Take the pair's addresses.
    Take,
    /// Tell everyone on the link where they are now.
    Announce,
    /// Give them up.
    Release,
    /// The role has changed.
    Changed(Role),
}

/// Why an operator's wish is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody would be active.
    #[error("no other router of the pair is heard that could take over; start it, or mend the links between the two")]
    Alone,
    /// The other one is at least as good.
    #[error("the other router is active with priority {0}, which is not less than ours; tell it to stand by instead")]
    Lesser(u8),
    /// The flows of the other one are not all here.
    #[error("the flows of the other router are not all here yet; wait until slrctl ha says that they are")]
    Unsynchronised,
    /// Something is missing.
    #[error("this router must not be active while what its pair requires is missing; see slrctl ha")]
    Inoperative,
}

/// The other router, as it was heard last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    /// What it said.
    pub heard: Heard,
    /// When.
    pub at: Instant,
}

/// The machine.
#[derive(Debug)]
pub struct Election {
    settings: Settings,
    role: Role,
    since: Instant,
    condition: Condition,
    synchronised: bool,
    /// The operator wants the other one to be active.
    stands_by: bool,
    /// While standby: when there is nobody active any more.
    down_at: Instant,
    /// While standby: before this it takes over from nobody who is heard.
    rests_until: Instant,
    /// The next advertisement or heartbeat.
    speaks_at: Instant,
    /// When the addresses are announced again, and how often still.
    announcing: Option<(Instant, u8)>,
    others: [Option<Other>; Path::ALL.len()],
    /// How often it may contradict others beside its usual words, which they may provoke.
    contradictions: RateLimit,
    /// When time was told last.
    awake: Instant,
    stopped: bool,
}

impl Election {
    /// A machine at its start.
    pub fn new(now: Instant, settings: Settings) -> Election {
        Election {
            synchronised: !settings.mirrors,
            settings,
            role: Role::Initial,
            since: now,
            condition: Condition::default(),
            stands_by: false,
            down_at: now,
            rests_until: now,
            speaks_at: now,
            announcing: None,
            others: [None; Path::ALL.len()],
            contradictions: RateLimit::new(CONTRADICTIONS.0, CONTRADICTIONS.1),
            awake: now,
            stopped: false,
        }
    }

    /// What this router is, and since when.
    pub fn role(&self) -> (Role, Instant) {
        (self.role, self.since)
    }

    /// How this router is.
    pub fn condition(&self) -> Condition {
        self.condition
    }

    /// Whether the operator wants the other one to be active.
    pub fn stands_by(&self) -> bool {
        self.stands_by
    }

    /// Whether all flows of the active one are here.
    pub fn synchronised(&self) -> bool {
        self.synchronised
    }

    /// What was heard last by a way.
    pub fn other(&self, path: Path) -> Option<Other> {
        self.others[path as usize]
    }

    /// The priority that counts now; 0 while it must not be active.
    pub fn priority(&self) -> u8 {
        match (self.condition.forbidden, self.stands_by) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => self.settings.priority.saturating_sub(self.condition.lowered).max(1),
        }
    }

    /// The other one that would be active if we were not, by what was heard lately.
    pub fn partner(&self, now: Instant) -> Option<Heard> {
        let fresh = |other: &&Other| now - other.at <= down_interval(other.heard.interval, 0);
        let others = self.others.iter().flatten().filter(fresh).filter(|other| other.heard.priority > 0);
        others.max_by_key(|other| (other.heard.active, other.at)).map(|other| other.heard)
    }

    /// When time alone changes something.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.stopped || self.role == Role::Initial {
            return None;
        }
        let announcing = self.announcing.map(|(at, _)| at);
        let down = (self.role == Role::Standby).then_some(self.down_at);
        [Some(self.speaks_at), announcing, down].into_iter().flatten().min()
    }

    /// Takes in what happens, and says what is to be done.
    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        if self.stopped {
            return out;
        }
        match input {
            Input::Heard(heard) => self.hear(now, heard, &mut out),
            Input::Condition(condition) => self.change(now, condition, &mut out),
            Input::Synchronised(synchronised) => self.synchronised = synchronised,
            Input::Refused => self.refuse(),
            Input::Stop => {
                if self.role == Role::Active {
                    out.extend([Output::Release, Output::Advertise(0)]);
                }
                if self.role != Role::Initial {
                    out.push(Output::Heartbeat(self.role, 0));
                }
                self.stopped = true;
            }
            Input::Tick => {}
        }
        self.pass_time(now, &mut out);
        out
    }

    /// Follows the operator's wish that the other one be active.
    ///
    /// # Errors
    /// There is none that could be.
    pub fn stand_by(&mut self, now: Instant) -> Result<Vec<Output>, Refused> {
        if self.role == Role::Active && self.settings.has_peer && self.partner(now).is_none() {
            return Err(Refused::Alone);
        }
        self.stands_by = true;
        let mut out = Vec::new();
        if self.role == Role::Active {
            self.yield_to(now, self.settings.interval, &mut out);
            out.push(Output::Advertise(0));
        }
        Ok(out)
    }

    /// Ends that, and takes over at once where this router is the better one.
    ///
    /// # Errors
    /// It is not, or must not be active.
    pub fn take_over(&mut self, now: Instant) -> Result<Vec<Output>, Refused> {
        self.stands_by = false;
        let mut out = Vec::new();
        match (self.role, self.partner(now)) {
            (Role::Active, _) => {}
            (Role::Initial | Role::Inoperative, _) => return Err(Refused::Inoperative),
            (Role::Standby, Some(other)) if other.active && other.priority >= self.priority() => {
                return Err(Refused::Lesser(other.priority));
            }
            (Role::Standby, Some(other)) if other.active && !self.synchronised => return Err(Refused::Unsynchronised),
            (Role::Standby, _) => self.take(now, &mut out),
        }
        Ok(out)
    }

    fn hear(&mut self, now: Instant, heard: Heard, out: &mut Vec<Output>) {
        // Our own words, come back.
        if heard.from == self.settings.identity {
            return;
        }
        let heard = Heard { interval: heard.interval.clamp(INTERVALS[0], INTERVALS[1]), ..heard };
        let before = self.others[heard.path as usize].replace(Other { heard, at: now });
        if !heard.active {
            // It has given the addresses up, and what it said of that on the access port may be lost.
            let was_active = before.is_some_and(|before| before.heard.active);
            if was_active && self.role == Role::Standby {
                self.down_at = self.down_at.min(now + self.skew());
            }
            return;
        }
        let own = self.priority();
        match self.role {
            Role::Initial | Role::Inoperative => {}
            Role::Standby if heard.priority == 0 => self.down_at = self.down_at.min(now + self.skew()),
            Role::Standby => {
                let rests = self.settings.preempt.is_none() || !self.synchronised || now < self.rests_until;
                // A lesser one is not listened to, so that the down interval passes (RFC 9568 section 6.4.2).
                if rests || heard.priority >= own {
                    self.down_at = now + self.silence(now, heard);
                }
            }
            Role::Active if (heard.priority, heard.from) > (own, self.settings.identity) => {
                self.yield_to(now, heard.interval, out);
            }
            // It is told at once, as is everyone that it has told of itself.
            Role::Active if self.contradictions.take(now) => {
                self.speak(now, out);
                out.push(Output::Announce);
            }
            Role::Active => {}
        }
    }

    /// Its program has ended, or somebody pretends that: nothing proves it. So what is heard counts, and this only makes the
    /// silence shorter after which there is nobody active.
    fn refuse(&mut self) {
        if let Some(Other { heard, at }) = self.others.iter().flatten().max_by_key(|other| other.at) {
            self.down_at = self.down_at.min(*at + heard.interval + self.skew());
        }
    }

    fn change(&mut self, now: Instant, condition: Condition, out: &mut Vec<Output>) {
        self.condition = condition;
        match (self.role, condition.forbidden) {
            (Role::Initial | Role::Inoperative, false) => {
                self.enter(now, Role::Standby, out);
                self.wait(now, self.settings.interval);
            }
            (Role::Active, true) => {
                out.extend([Output::Release, Output::Advertise(0)]);
                self.enter(now, Role::Inoperative, out);
            }
            (Role::Initial | Role::Standby, true) => self.enter(now, Role::Inoperative, out),
            _ => {}
        }
    }

    fn pass_time(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.stopped || self.role == Role::Initial {
            return;
        }
        // Who has slept has not listened: what was said meanwhile is still to be heard.
        if now - std::mem::replace(&mut self.awake, now) > 2 * self.settings.interval {
            self.down_at = self.down_at.max(now + self.settings.interval);
        }
        if self.role == Role::Standby && self.down_at <= now {
            self.take(now, out);
        }
        if self.speaks_at <= now {
            self.speak(now, out);
        }
        if let Some((_, left)) = self.announcing.filter(|(at, _)| *at <= now) {
            out.push(Output::Announce);
            self.announcing = (left > 1).then(|| (now + ANNOUNCEMENT, left - 1));
        }
    }

    fn speak(&mut self, now: Instant, out: &mut Vec<Output>) {
        let priority = self.priority();
        if self.role == Role::Active {
            out.push(Output::Advertise(priority));
        }
        out.push(Output::Heartbeat(self.role, priority));
        self.speaks_at = now + self.settings.interval;
    }

    fn take(&mut self, now: Instant, out: &mut Vec<Output>) {
        out.push(Output::Take);
        self.enter(now, Role::Active, out);
        self.announcing = Some((now, ANNOUNCEMENTS));
        self.pass_time(now, out);
    }

    fn yield_to(&mut self, now: Instant, interval: Duration, out: &mut Vec<Output>) {
        out.push(Output::Release);
        self.enter(now, Role::Standby, out);
        self.wait(now, interval);
    }

    fn wait(&mut self, now: Instant, interval: Duration) {
        self.down_at = now + down_interval(interval, self.priority());
        self.rests_until = now + self.settings.preempt.unwrap_or_default();
    }

    /// Goes over to another role, and says so at once.
    fn enter(&mut self, now: Instant, role: Role, out: &mut Vec<Output>) {
        (self.role, self.since, self.announcing, self.speaks_at) = (role, now, None, now);
        out.push(Output::Changed(role));
    }

    /// How long an active one that was just heard may be silent. One that speaks by two ways loses twice as many words in
    /// the same time, so less of it says as much.
    fn silence(&self, now: Instant, heard: Heard) -> Duration {
        let lately = |other: &Other| other.heard.active && now - other.at <= 2 * other.heard.interval;
        let ways = self.others.iter().flatten().filter(|other| lately(other)).count();
        match ways == Path::ALL.len() {
            true => 2 * heard.interval + skew(heard.interval, self.priority()),
            false => down_interval(heard.interval, self.priority()),
        }
    }

    fn skew(&self) -> Duration {
        skew(self.settings.interval, self.priority())
    }
}

/// The better one comes first when nobody is active (RFC 9568 section 6.1, Skew_Time).
fn skew(interval: Duration, priority: u8) -> Duration {
    interval * (256 - u32::from(priority)) / 256
}

/// How long nothing is heard by one way until there is nobody active (RFC 9568 section 6.1, Active_Down_Interval).
pub fn down_interval(interval: Duration, priority: u8) -> Duration {
    interval * 3 + skew(interval, priority)
}

#[cfg(test)]
mod tests;
