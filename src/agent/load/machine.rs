//! How busy the machine as a whole is, as the kernel tells below `/proc`.

use std::fs;

/// Shares from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Of the processors' time, in use since the last sample.
    pub cpu: f64,
    /// Of the time, something waited for a processor.
    pub cpu_pressure: f64,
    /// Of the memory, in use.
    pub memory: f64,
    /// Of the time, something waited for memory.
    pub memory_pressure: f64,
}

/// Remembers the last sample.
#[derive(Default)]
pub struct Machine {
    before: Option<Times>,
}

impl Machine {
    /// How it is now. What the kernel does not tell counts as 0.
    pub fn sample(&mut self) -> Usage {
        let read = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        let now = times(&read("stat"));
        let before = std::mem::replace(&mut self.before, now);
        Usage {
            cpu: now.zip(before).map_or(0.0, |(now, before)| now.busy_since(before)),
            cpu_pressure: pressure(&read("pressure/cpu")).unwrap_or(0.0),
            memory: memory(&read("meminfo")).unwrap_or(0.0),
            memory_pressure: pressure(&read("pressure/memory")).unwrap_or(0.0),
        }
    }
}

/// Time of all processors since the machine started, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    all: u64,
    idle: u64,
}

impl Times {
    fn busy_since(self, before: Times) -> f64 {
        let (all, idle) = (self.all.saturating_sub(before.all), self.idle.saturating_sub(before.idle));
        if all == 0 { 0.0 } else { 1.0 - (idle.min(all) as f64 / all as f64) }
    }
}

/// Reads `/proc/stat` (proc(5)): user, nice, system, idle, iowait, irq, softirq, steal; what guests use is in user.
fn times(text: &str) -> Option<Times> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut numbers = [0_u64; 8];
    for (number, word) in numbers.iter_mut().zip(line.split_whitespace()) {
        *number = word.parse().ok()?;
    }
    Some(Times { all: numbers.iter().sum(), idle: numbers[3] + numbers[4] })
}

/// Reads the share of the last 10 seconds in which some task waited (`Documentation/accounting/psi.rst` of Linux).
fn pressure(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let average = some.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    average.parse::<f64>().ok().map(|percent| percent / 100.0)
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
            assert!((now.busy_since(before) - busy).abs() < 1e-9, "{line}: {}", now.busy_since(before));
        }
        assert_eq!(times("intr 5"), None);
    }

    #[test]
    fn pressure_is_that_of_some_task_over_ten_seconds() {
        let text = "some avg10=12.50 avg60=1.00 avg300=0.10 total=1\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(pressure(text), Some(0.125));
        assert_eq!(pressure(""), None, "a kernel that does not measure it");
    }

    #[test]
    fn memory_that_can_be_had_back_is_not_in_use() {
        let text = "MemTotal:       1000 kB\nMemFree:          10 kB\nMemAvailable:    250 kB\n";
        assert_eq!(memory(text), Some(0.75));
        assert_eq!(memory("MemTotal: 0 kB\nMemAvailable: 0 kB"), None);
    }
}
