//! How busy the machine, or one of its control groups, is, as the kernel tells below `/proc` and `/sys/fs/cgroup`.

use std::fs;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Instant;

/// Shares from 0 to 1, of the time since the last sample but for `memory`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Of the processors' time, in use.
    pub cpu: f64,
    /// Of the time, something waited for a processor.
    pub cpu_pressure: f64,
    /// Of the machine's memory, in use.
    pub memory: f64,
    /// Of the time, something waited for memory.
    pub memory_pressure: f64,
}

/// Remembers the last sample.
pub struct Machine {
    cgroup: Option<PathBuf>,
    started: Instant,
    before: Option<Totals>,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine::new(None)
    }
}

impl Machine {
    /// The machine, or a control group (version 2) by its directory.
    pub fn new(cgroup: Option<PathBuf>) -> Machine {
        Machine { cgroup, started: Instant::now(), before: None }
    }

    /// How it is now. What the kernel does not tell counts as 0.
    pub fn sample(&mut self) -> Usage {
        let proc = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        let time = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let (processors, [cpu, memory_pressure]) = match &self.cgroup {
            None => (times(&proc("stat")), ["cpu", "memory"].map(|name| proc(&format!("pressure/{name}")))),
            Some(group) => {
                let read = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
                let all = available_parallelism().map_or(1, usize::from) as u64;
                let times = times_of_group(&read("cpu.stat"), &read("cpu.max"), all, time);
                (times, ["cpu.pressure", "memory.pressure"].map(read))
            }
        };
        let waited = |text: &str| Times { all: time, busy: pressure(text).unwrap_or(0) };
        let now = Totals {
            processors: processors.unwrap_or_default(),
            for_processor: waited(&cpu),
            for_memory: waited(&memory_pressure),
        };
        let before = self.before.replace(now).unwrap_or(now);
        Usage {
            cpu: now.processors.since(before.processors),
            cpu_pressure: now.for_processor.since(before.for_processor),
            memory: memory(&proc("meminfo")).unwrap_or(0.0),
            memory_pressure: now.for_memory.since(before.for_memory),
        }
    }
}

/// What has been used and waited for since the beginning.
#[derive(Clone, Copy)]
struct Totals {
    processors: Times,
    for_processor: Times,
    for_memory: Times,
}

/// A time, and which part of it was spent so; in the same unit, whatever that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    all: u64,
    busy: u64,
}

impl Times {
    fn since(self, before: Times) -> f64 {
        let (all, busy) = (self.all.saturating_sub(before.all), self.busy.saturating_sub(before.busy));
        if all == 0 { 0.0 } else { busy.min(all) as f64 / all as f64 }
    }
}

/// Reads `/proc/stat` (proc(5)), in ticks: user, nice, system, idle, iowait, irq, softirq, steal; what guests use is in user.
fn times(text: &str) -> Option<Times> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut numbers = [0_u64; 8];
    for (number, word) in numbers.iter_mut().zip(line.split_whitespace()) {
        *number = word.parse().ok()?;
    }
    let all = numbers.iter().sum();
    Some(Times { all, busy: all - numbers[3] - numbers[4] })
}

/// Reads a control group's `cpu.stat` and `cpu.max` (`Documentation/admin-guide/cgroup-v2.rst` of Linux), in microseconds;
/// `all` processors have passed `time`, of which the group may have no more than its maximum.
fn times_of_group(stat: &str, max: &str, all: u64, time: u64) -> Option<Times> {
    let busy = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()?;
    let most = max.split_once(' ').and_then(|(quota, period)| {
        let (quota, period): (f64, f64) = (quota.parse().ok()?, period.trim().parse().ok()?);
        (period > 0.0).then_some(quota / period)
    });
    let processors = most.unwrap_or(f64::INFINITY).min(all as f64);
    Some(Times { all: (time as f64 * processors) as u64, busy })
}

/// Reads how long some task has waited, in microseconds (`Documentation/accounting/psi.rst` of Linux).
fn pressure(text: &str) -> Option<u64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_whitespace().find_map(|word| word.strip_prefix("total="))?.parse().ok()
}

/// Reads the share of memory that programs could not have, of `/proc/meminfo`.
fn memory(text: &str) -> Option<f64> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let (total, available) = (field("MemTotal:")?, field("MemAvailable:")?);
    (total > 0.0).then_some(1.0 - available / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_busy_when_they_neither_idle_nor_wait_for_a_disk() {
        let before = times("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3 4\n").expect("times");
        for (line, busy) in [
            ("cpu  100 0 100 800 0 0 0 0 0 0", 0.0),
            ("cpu  100 0 100 900 0 0 0 0 0 0", 0.0),
            ("cpu  125 5 110 810 50 0 0 0 9 9", 0.4),
            ("cpu  150 10 120 800 0 10 5 5 0 0", 1.0),
        ] {
            let now = times(line).expect("times");
            assert!((now.since(before) - busy).abs() < 1e-9, "{line}: {}", now.since(before));
        }
        assert_eq!(times("intr 5"), None);
    }

    #[test]
    fn a_control_group_is_busy_by_what_it_may_have() {
        let of = |used: u64, max, time| times_of_group(&format!("usage_usec {used}\nuser_usec 1\n"), max, 4, time);
        for (max, busy) in [("", 0.25), ("max 100000\n", 0.25), ("200000 100000\n", 0.5), ("50000 100000\n", 1.0)] {
            let [before, now] =
                [of(7_000_000, max, 1_000_000), of(9_000_000, max, 3_000_000)].map(|of| of.expect("times"));
            assert_eq!(now.since(before), busy, "{max}");
        }
        assert_eq!(times_of_group("", "", 4, 1), None, "a group that is not there");
    }

    #[test]
    fn pressure_is_the_time_that_some_task_has_waited() {
        let text =
            "some avg10=12.50 avg60=1.00 avg300=0.10 total=1234\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(pressure(text), Some(1234));
        assert_eq!(pressure(""), None, "a kernel that does not measure it");
    }

    #[test]
    fn memory_that_can_be_had_back_is_not_in_use() {
        let text = "MemTotal:       1000 kB\nMemFree:          10 kB\nMemAvailable:    250 kB\n";
        assert_eq!(memory(text), Some(0.75));
        assert_eq!(memory("MemTotal: 0 kB\nMemAvailable: 0 kB"), None);
    }
}
