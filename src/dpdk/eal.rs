//! Decides how the DPDK environment starts: which pages, which lcores, and that it leaves nothing behind.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fs::{self, File};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::thread;

use super::{errno, error_text, lock, log, plug, reason, sys};
pub use crate::units::Hugepages;

/// How to start the DPDK environment.
#[derive(Clone, Debug)]
pub struct EalOptions {
    /// Kind of pages.
    pub hugepages: Hugepages,
    /// Memory for pools and tables, in MiB.
    pub memory_mib: u32,
    /// Name that keeps processes on one machine apart; letters, digits, `-`, `_` and `.`.
    pub file_prefix: String,
    /// The CPU of each worker: worker `w` runs on lcore `w + 1`. Several may share a CPU.
    pub lcores: Vec<u16>,
    /// Devices to be used. DPDK takes the PCI devices among them, unless Linux uses them, and leaves all others alone.
    pub devices: Vec<String>,
    /// Writes all that DPDK logs to standard error, too.
    pub verbose: bool,
}

/// The pages that DPDK's memory got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Hugepages.
    Huge,
    /// Ordinary ones: slower, as lookups in large tables also miss in the TLB.
    Ordinary {
        /// Why, and what to do about it.
        why: String,
    },
}

/// Why the DPDK environment did not start or end.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EalError {
    /// DPDK starts once per process, and cannot be started again after it failed or ended.
    #[error("the DPDK environment was already started in this process; it can be started once")]
    AlreadyStarted,
    /// [`Hugepages::Require`] on a machine without enough.
    #[error(
        "{needed_mib} MiB of hugepages are required and {free_mib} MiB are free: run `sysctl -w vm.nr_hugepages={pages}`"
    )]
    Hugepages {
        /// Memory asked for.
        needed_mib: u32,
        /// Free hugepages of all sizes.
        free_mib: u64,
        /// What `vm.nr_hugepages` has to be at least.
        pages: u64,
    },
    /// No memory asked for.
    #[error("DPDK cannot start with 0 MiB of memory: ask for 64 or more")]
    NoMemory,
    /// A worker's CPU that this process may not use, or that does not exist.
    #[error("CPU {cpu} of a worker is not available: this process may use CPUs {allowed}")]
    Cpu {
        /// The CPU asked for.
        cpu: u16,
        /// The CPUs there are, as ranges.
        allowed: String,
    },
    /// More workers than DPDK is built for.
    #[error("{asked} workers are too many: this DPDK has room for {max}")]
    Lcores {
        /// Workers asked for.
        asked: usize,
        /// The most there can be.
        max: usize,
    },
    /// A prefix that is no plain file name.
    #[error("`{0}` is no file prefix: use letters, digits, `-`, `_` and `.`, and a letter or digit first")]
    FilePrefix(String),
    /// DPDK refused to start.
    #[error("the DPDK environment does not start: {reason}")]
    Init {
        /// DPDK's error and log.
        reason: String,
    },
    /// Cleanup while something of DPDK is still held.
    #[error("the DPDK environment cannot end: {held} pools, ports, slices or workers are still in use")]
    InUse {
        /// How many.
        held: usize,
    },
    /// DPDK failed to end.
    #[error("the DPDK environment did not end cleanly: {reason}")]
    Cleanup {
        /// DPDK's error.
        reason: String,
    },
}

/// What this process's EAL is doing.
enum Stage {
    Unstarted,
    Running { held: usize },
    Over,
}

static STAGE: Mutex<Stage> = Mutex::new(Stage::Unstarted);
static EAL: OnceLock<Eal> = OnceLock::new();

/// The right to use DPDK: as long as one exists the EAL runs. Everything that owns something of DPDK holds one.
pub struct Lease(());

impl Lease {
    /// `None` when the EAL does not run.
    pub fn take() -> Option<Lease> {
        match &mut *lock(&STAGE) {
            Stage::Running { held } => {
                *held += 1;
                Some(Lease(()))
            }
            Stage::Unstarted | Stage::Over => None,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Stage::Running { held } = &mut *lock(&STAGE) {
            *held -= 1;
        }
    }
}

/// Where the kernel tells of hugepages, one directory for each size.
const HUGEPAGES: &str = "/sys/kernel/mm/hugepages";

/// The running DPDK environment.
pub struct Eal {
    pages: Pages,
    /// Asks the main lcore's thread to end the EAL, and its answer.
    cleanup: Mutex<(Sender<()>, Receiver<c_int>)>,
}

impl Eal {
    /// Starts DPDK, once per process.
    ///
    /// The calling thread keeps its CPU affinity: the main lcore is a thread of its own, which sleeps.
    pub fn init(options: &EalOptions) -> Result<&'static Eal, EalError> {
        // Held until the pages are taken, so that of two processes that start at once the second counts what is left.
        let _turn = hugepages_turn();
        let pages = choose_pages(options.hugepages, options.memory_mib, free_hugepages_mib())?;
        let arguments = arguments(options, &pages, &allowed_cpus())?;

        let mut stage = lock(&STAGE);
        if !matches!(*stage, Stage::Unstarted) {
            return Err(EalError::AlreadyStarted);
        }
        *stage = Stage::Over;
        log::install(options.verbose);
        let (ask, asked) = channel();
        let (tell, told) = channel();
        let (started, start) = channel();
        let main = move || {
            let status = init_here(arguments);
            if started.send(status).is_ok() && status.is_ok() && asked.recv().is_ok() {
                // SAFETY: the thread of `rte_eal_init`; `Eal::cleanup` asks when nothing of DPDK is held any more.
                let _ = tell.send(unsafe { sys::rte_eal_cleanup() });
            }
        };
        let (status, said) = log::during(|| {
            thread::Builder::new().name("eal-main".into()).spawn(main).map_err(|e| e.raw_os_error().unwrap_or(0))?;
            start.recv().unwrap_or(Err(0))
        });
        remove_runtime_dir();
        status.map_err(|number| EalError::Init { reason: reason(number, &said) })?;
        *stage = Stage::Running { held: 0 };
        Ok(EAL.get_or_init(|| Eal { pages, cleanup: Mutex::new((ask, told)) }))
    }

    /// The pages that memory comes from.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Ends DPDK; nothing of it can be used afterwards, and it cannot be started again.
    ///
    /// Refused as long as there are pools, ports, queues, slices or running workers. A process may also just exit.
    pub fn cleanup(&self) -> Result<(), EalError> {
        let mut stage = lock(&STAGE);
        match *stage {
            Stage::Running { held: 0 } => *stage = Stage::Over,
            Stage::Running { held } => return Err(EalError::InUse { held }),
            Stage::Unstarted | Stage::Over => return Ok(()),
        }
        let main = lock(&self.cleanup);
        let status = main.0.send(()).ok().and_then(|()| main.1.recv().ok()).unwrap_or(-1);
        if status == 0 { Ok(()) } else { Err(EalError::Cleanup { reason: error_text(status) }) }
    }
}

/// Runs `rte_eal_init` on this thread; on failure its error number.
fn init_here(arguments: Vec<CString>) -> Result<(), c_int> {
    // DPDK reorders the vector and may keep pointers to the strings.
    let mut argv: Vec<*mut c_char> = arguments.into_iter().map(CString::into_raw).collect();
    let count = argv.len() as c_int;
    // SAFETY: `argv` has `count` strings, leaked above, so they outlive the EAL. `Stage` lets only one thread of the
    // process come here, once.
    if unsafe { sys::rte_eal_init(count, argv.as_mut_ptr()) } < 0 { Err(errno()) } else { Ok(()) }
}

/// Removes the directory that EAL makes for files which we tell it not to make (`--in-memory`, `--no-shconf`): now, so
/// that it is gone even after a kill.
fn remove_runtime_dir() {
    // SAFETY: after `rte_eal_init`, even one that failed, this is a string that stays; empty where it came to none.
    let path = unsafe { CStr::from_ptr(sys::rte_eal_get_runtime_dir()) };
    // Not empty: another process with this prefix uses it.
    let _ = path.to_str().map(|path| fs::remove_dir(Path::new(path)));
}

fn choose_pages(wish: Hugepages, needed_mib: u32, free_mib: u64) -> Result<Pages, EalError> {
    // What a machine needs that has none; where some are in use the operator knows better.
    let pages = u64::from(needed_mib.div_ceil(2));
    let enough = free_mib >= u64::from(needed_mib);
    match wish {
        Hugepages::Never => Ok(Pages::Ordinary { why: "the configuration asks for ordinary pages".to_owned() }),
        _ if enough => Ok(Pages::Huge),
        Hugepages::Require => Err(EalError::Hugepages { needed_mib, free_mib, pages }),
        Hugepages::Auto => Ok(Pages::Ordinary {
            why: format!(
                "{needed_mib} MiB of hugepages are needed and {free_mib} MiB are free (sysctl -w vm.nr_hugepages={pages})"
            ),
        }),
    }
}

/// Waits until no other process of ours is choosing its pages. The lock is on a file of the kernel's and leaves nothing
/// behind; where it cannot be had, the choice is made without it. The file is below /proc, as `ip netns exec` gives each
/// network namespace a /sys of its own, whose locks nobody else sees.
fn hugepages_turn() -> Option<File> {
    let file = File::open("/proc/sys/vm/nr_hugepages").ok()?;
    file.lock().ok()?;
    Some(file)
}

/// Free hugepages of all sizes that nobody has reserved, in MiB.
fn free_hugepages_mib() -> u64 {
    let number = |path: &Path| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let size_kib = |name: &str| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok();
    let Ok(sizes) = fs::read_dir(HUGEPAGES) else { return 0 };
    let free_kib = sizes.filter_map(|entry| {
        let entry = entry.ok()?;
        let kib = size_kib(entry.file_name().to_str()?)?;
        let free = number(&entry.path().join("free_hugepages"))?;
        let reserved = number(&entry.path().join("resv_hugepages")).unwrap_or(0);
        Some(kib * free.saturating_sub(reserved))
    });
    free_kib.sum::<u64>() / 1024
}

/// The CPUs that this thread may use, as the kernel lists them: `0-3,8`.
fn allowed_cpus() -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap_or("0").trim().to_owned()
}

fn contains_cpu(list: &str, cpu: u16) -> bool {
    list.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
        bounds.is_some_and(|(first, last)| (first..=last).contains(&cpu))
    })
}

fn arguments(options: &EalOptions, pages: &Pages, cpus: &str) -> Result<Vec<CString>, EalError> {
    if options.memory_mib == 0 {
        return Err(EalError::NoMemory);
    }
    if let Some(&cpu) = options.lcores.iter().find(|&&cpu| !contains_cpu(cpus, cpu)) {
        return Err(EalError::Cpu { cpu, allowed: cpus.to_owned() });
    }
    let max = sys::SLR_MAX_LCORES as usize - 1;
    if options.lcores.len() > max {
        return Err(EalError::Lcores { asked: options.lcores.len(), max });
    }
    let prefix = &options.file_prefix;
    let plain = prefix.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !plain || !prefix.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(EalError::FilePrefix(prefix.clone()));
    }

    // The main lcore sleeps, so any CPU will do.
    let mut lcores = format!("0@({cpus})");
    for (worker, cpu) in options.lcores.iter().enumerate() {
        lcores.push_str(&format!(",{}@{cpu}", worker + 1));
    }
    let memory = options.memory_mib.to_string();
    let mut arguments = vec!["slr", "--lcores", &lcores, "--main-lcore", "0", "-m", &memory, "--file-prefix", prefix];
    arguments.push("--no-telemetry");
    arguments.extend(match pages {
        Pages::Huge => &["--in-memory"][..],
        Pages::Ordinary { .. } => &["--no-huge", "--no-shconf"],
    });
    let cards = options.devices.iter().filter(|device| plug::is_free_pci_device(device));
    let before = arguments.len();
    cards.for_each(|card| arguments.extend(["-a", card]));
    if arguments.len() == before {
        arguments.push("--no-pci");
    }
    let strings = arguments.into_iter().map(CString::new).collect::<Result<_, _>>();
    strings.map_err(|_| EalError::FilePrefix(prefix.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hugepages_are_taken_where_there_are_enough() {
        let pages = |wish, free_mib| match choose_pages(wish, 513, free_mib) {
            Ok(Pages::Huge) => "huge",
            Ok(Pages::Ordinary { .. }) => "ordinary",
            Err(_) => "error",
        };
        for (wish, free_mib, expected) in [
            (Hugepages::Auto, 513, "huge"),
            (Hugepages::Auto, 512, "ordinary"),
            (Hugepages::Require, 513, "huge"),
            (Hugepages::Require, 512, "error"),
            (Hugepages::Never, 100_000, "ordinary"),
        ] {
            assert_eq!(pages(wish, free_mib), expected, "{wish:?} with {free_mib} MiB free");
        }
    }

    #[test]
    fn missing_hugepages_are_told_with_the_command_that_adds_them() {
        let error = choose_pages(Hugepages::Require, 513, 6).expect_err("too few").to_string();
        assert!(error.contains("513 MiB") && error.contains("6 MiB"), "{error}");
        assert!(error.contains("sysctl -w vm.nr_hugepages=257"), "{error}");
    }

    #[test]
    fn cpu_lists_are_read_as_the_kernel_writes_them() {
        let cpus: Vec<u16> = (0..20).filter(|&cpu| contains_cpu("0-2,5,16-17", cpu)).collect();
        assert_eq!(cpus, [0, 1, 2, 5, 16, 17]);
    }

    #[test]
    fn options_that_dpdk_would_choke_on_are_refused_with_the_reason() {
        let good = EalOptions {
            hugepages: Hugepages::Never,
            memory_mib: 64,
            file_prefix: "slr".into(),
            lcores: vec![0, 1, 0],
            devices: Vec::new(),
            verbose: false,
        };
        let check = |options: &EalOptions| arguments(options, &Pages::Huge, "0-1");
        let text: Vec<_> = check(&good).expect("good").iter().map(|a| a.to_string_lossy().into_owned()).collect();
        assert!(text.contains(&"0@(0-1),1@0,2@1,3@0".to_owned()), "{text:?}");

        let wrong = [
            (EalOptions { memory_mib: 0, ..good.clone() }, EalError::NoMemory),
            (EalOptions { lcores: vec![2], ..good.clone() }, EalError::Cpu { cpu: 2, allowed: "0-1".into() }),
            (EalOptions { lcores: vec![0; 128], ..good.clone() }, EalError::Lcores { asked: 128, max: 127 }),
            (EalOptions { file_prefix: "../etc".into(), ..good.clone() }, EalError::FilePrefix("../etc".into())),
            (EalOptions { file_prefix: String::new(), ..good.clone() }, EalError::FilePrefix(String::new())),
        ];
        for (options, error) in wrong {
            assert_eq!(check(&options), Err(error));
        }
    }
}
