//! One replay from start to end: files, devices, workers, report.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tempfile::TempDir;

use super::capture::{self, CaptureError, Part, Split};
use super::io::ReplayIo;
use super::output::Output;
use crate::config::Config;
use crate::control::compile::{Reach, Reachability, compile};
use crate::daemon::{self, StartError};
use crate::dpdk::lcore::LcoreHandle;
use crate::dpdk::{self, Pool, Port, PortOptions, PortStats};
use crate::forward::counters::{Packets, WorkerCounters};
use crate::forward::pipeline::{FlowCapacity, Pipeline};
use crate::forward::punt::PuntRing;
use crate::forward::worker::Worker;
use crate::metrics::report::Report;
use crate::service::selection::Granularity;
use crate::tunnel::template::Link;
use crate::units::{MacAddr, PortIndex, WorkerId};

/// Longest IP packet that is written: the longest there is.
const MTU: u16 = u16::MAX;

/// Longest frame that the pcap device writes whole when it lies in several buffers (9,728 bytes), less the longest header
/// that a tunnel adds.
const SEGMENTED_BYTES_MAX: usize = 9_600;

/// Most workers: the pcap device has 16 queues.
pub const WORKERS_MAX: u16 = 16;

/// Time between two passes over the capture.
const PASS_GAP_NS: u64 = 1_000_000_000;

/// What a packet buffer takes beside its data room: its descriptor, headroom and alignment, in bytes.
const BUFFER_OVERHEAD_BYTES: u64 = 512;

/// What to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// Capture to read, pcap or pcapng.
    pub input: PathBuf,
    /// Capture to write.
    pub output: PathBuf,
    /// Report to write.
    pub report: Option<PathBuf>,
    /// Workers, instead of the configuration's.
    pub workers: Option<u16>,
    /// Passes over the capture.
    pub loops: u32,
}

/// Why a replay did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A capture cannot be read or written.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A file cannot be written.
    #[error("{}: {source}; choose a place that can be written to", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// DPDK, its devices or the workers do not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The device did not deliver the whole capture.
    #[error(
        "the pcap device delivered {received} of {expected} packets ({statistics}); give it more memory (dpdk.buffers)"
    )]
    Lost {
        /// Packets that the workers received.
        received: u64,
        /// Packets in the capture, times the passes.
        expected: u64,
        /// What the device says.
        statistics: String,
    },
    /// The device's files hold fewer packets than were sent.
    #[error("only {written} of {forwarded} packets were kept in {}; make room there, or set TMPDIR", path.display())]
    Short {
        /// Packets in the files.
        written: u64,
        /// Packets sent.
        forwarded: u64,
        /// Where the files were.
        path: PathBuf,
    },
    /// The pcap device has no more queues.
    #[error("{workers} workers are too many for a replay; give --workers 1 to {WORKERS_MAX}")]
    Workers {
        /// As asked for.
        workers: u16,
    },
    /// Two of the files are one.
    #[error("{}: is {other}, too; give each file a place of its own", path.display())]
    SamePlace {
        /// The file.
        path: PathBuf,
        /// What else it is.
        other: &'static str,
    },
    /// The device's arguments cannot name the temporary directory.
    #[error("{}: a temporary directory with `,` or `=` in its name cannot be used; set TMPDIR to another", path.display())]
    TemporaryDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Packet buffers were not given back: a defect of this program.
    #[error("{buffers} packet buffers were not given back; please report this with the capture")]
    Leaked {
        /// How many.
        buffers: u32,
    },
}

impl ReplayError {
    /// True for what the command line asks and cannot be, whatever the machine.
    pub fn is_usage(&self) -> bool {
        matches!(self, ReplayError::Workers { .. } | ReplayError::SamePlace { .. })
    }
}

/// Called a few times a second with what has been done: packets so far, packets in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Replays a capture until its end, or until `stop` is set. Nothing is left behind unless all of it worked.
pub fn run(
    config: &Config,
    options: &Options,
    stop: &Arc<AtomicBool>,
    progress: Progress<'_>,
) -> Result<Report, ReplayError> {
    let workers = options.workers.unwrap_or(config.workers.count).max(1);
    if workers > WORKERS_MAX {
        return Err(ReplayError::Workers { workers });
    }
    let mut output = create(&options.output)?;
    let mut report_file = options.report.as_deref().map(create).transpose()?;
    refuse_collisions(&options.input, &output, report_file.as_ref())?;
    let directory = tempfile::Builder::new()
        .prefix("slr-replay-")
        .tempdir()
        .map_err(|error| unwritable(&std::env::temp_dir(), error.kind().into()))?;
    if directory.path().to_string_lossy().contains([',', '=']) {
        return Err(ReplayError::TemporaryDirectory { path: std::env::temp_dir() });
    }
    let split = capture::split(&options.input, directory.path(), workers, coarsest_flow(config), stop)?;

    let pool_size = pool_size(config, split.frame_bytes, workers);
    let eal = daemon::start_eal(config, workers, false, memory_mib(config, workers, pool_size))?;
    let (report, parts) = forward(config, options, split, &directory, workers, pool_size, (stop, progress))?;
    eal.cleanup().map_err(StartError::from)?;

    let written = capture::merge(&parts, &options.output, output.file(), stop)?;
    if written != report.packets.forwarded {
        return Err(ReplayError::Short { written, forwarded: report.packets.forwarded, path: std::env::temp_dir() });
    }
    if let Some(file) = &mut report_file {
        let written = serde_json::to_writer_pretty(file.file(), &report);
        written.map_err(|error| unwritable(file.path(), error.into()))?;
    }
    for file in [Some(output), report_file].into_iter().flatten() {
        let path = file.path().to_owned();
        file.finish().map_err(|error| unwritable(&path, error))?;
    }
    Ok(report)
}

fn unwritable(path: &Path, source: io::Error) -> ReplayError {
    ReplayError::Unwritable { path: path.to_owned(), source }
}

fn create(path: &Path) -> Result<Output, ReplayError> {
    Output::create(path).map_err(|error| unwritable(path, error))
}

fn refuse_collisions(input: &Path, output: &Output, report: Option<&Output>) -> Result<(), ReplayError> {
    let same = |path: &Path, other| Err(ReplayError::SamePlace { path: path.to_owned(), other });
    if output.replaces(input) {
        return same(output.path(), "the input");
    }
    match report {
        Some(report) if report.replaces(input) => same(report.path(), "the input"),
        Some(report) if report.collides(output) => same(report.path(), "the output"),
        _ => Ok(()),
    }
}

/// What must stay on one worker: the coarsest flow of any virtual host, as a NIC's hash would be set up for it.
fn coarsest_flow(config: &Config) -> Granularity {
    config.virtual_hosts.iter().map(|host| host.flow).fold(Granularity::FiveTuple, |coarsest, flow| {
        match (coarsest, flow) {
            (Granularity::Source { v4, v6 }, Granularity::Source { v4: other4, v6: other6 }) => {
                Granularity::Source { v4: v4.min(other4), v6: v6.min(other6) }
            }
            (Granularity::FiveTuple, flow) => flow,
            (coarsest, Granularity::FiveTuple) => coarsest,
        }
    })
}

/// Runs the workers over the split capture.
fn forward(
    config: &Config,
    options: &Options,
    split: Split,
    directory: &TempDir,
    workers: u16,
    (buffers, data_room): (u32, u16),
    (stop, progress): (&Arc<AtomicBool>, Progress<'_>),
) -> Result<(Report, Vec<Part>), ReplayError> {
    let pool = Pool::new("replay", buffers, data_room).map_err(StartError::from)?;
    let out: Vec<PathBuf> = (0..workers).map(|worker| directory.path().join(format!("out-{worker}.pcap"))).collect();
    let tx_options = PortOptions { rx_queues: 0, tx_queues: workers, ..PortOptions::default() };
    let (output, _, tx) =
        Port::open(&pcap_device("net_pcap_out", "tx_pcap", &out), &tx_options, &pool).map_err(StartError::from)?;
    output.start().map_err(StartError::from)?;

    let expected = split.records() * u64::from(options.loops);
    let tables = Arc::new(compile(config, &ToOutput));
    let published = Arc::new(ArcSwap::from(tables.clone()));
    let mut counters = Vec::new();
    let mut running = Vec::new();
    for ((worker, tx), times_ns) in (0..workers).zip(tx).zip(split.times_ns) {
        let worker_counters = Arc::new(WorkerCounters::new(tables.targets.len()));
        let pipeline = Pipeline::new(
            (WorkerId(worker), workers),
            1,
            // Always the same seed, so that the same input gives the same output.
            FlowCapacity { seed: Some(0), ..daemon::flow_capacity(config) },
            worker_counters.clone(),
            // A replay has no slow path: what is punted is counted, and that is all that is asked of it.
            PuntRing::discarding(),
        )
        .ok_or(StartError::FlowMemory)?;
        let io = ReplayIo::new(tx, times_ns, split.start_ns, options.loops);
        running.push(Worker::new(io, pipeline, published.clone(), stop.clone()));
        counters.push(worker_counters);
    }

    let mut elapsed = Duration::ZERO;
    let mut statistics = PortStats::default();
    for pass in 0..options.loops {
        let rx_options = PortOptions { rx_queues: workers, tx_queues: 0, ..PortOptions::default() };
        let device = pcap_device(&format!("net_pcap_in{pass}"), "rx_pcap", &split.files);
        let (input, rx, _) = Port::open(&device, &rx_options, &pool).map_err(StartError::from)?;
        input.start().map_err(StartError::from)?;
        let pass_ns = split.span_ns.saturating_add(PASS_GAP_NS).saturating_mul(u64::from(pass));
        running.iter_mut().zip(rx).for_each(|(worker, rx)| worker.io_mut().start_pass(rx, pass_ns));
        let start = Instant::now();
        running = one_pass(running, &mut || progress(total(&counters).received, expected))?;
        elapsed += start.elapsed();
        statistics = input.stats();
        running.iter_mut().for_each(|worker| worker.io_mut().end_pass());
        if stop.load(Ordering::Relaxed) {
            return Err(CaptureError::Interrupted.into());
        }
    }
    let received = total(&counters).received;
    if received != expected {
        return Err(ReplayError::Lost { received, expected, statistics: format!("{statistics:?}") });
    }
    let report = Report::new(&tables, &counters, elapsed.as_secs_f64(), dpdk::tsc::hz() as f64);
    let parts =
        out.into_iter().zip(running).map(|(file, worker)| Part { file, times_ns: worker.into_io().into_sent_at_ns() });
    let parts = parts.collect();
    // Closing the port writes the rest of its files.
    output.close().map_err(StartError::from)?;
    match pool.in_use() {
        0 => Ok((report, parts)),
        buffers => Err(ReplayError::Leaked { buffers }),
    }
}

/// Memory for the pool and the workers' tables: what is configured, or more where more workers are asked for or the
/// frames are long.
fn memory_mib(config: &Config, workers: u16, (buffers, data_room): (u32, u16)) -> u32 {
    let pool = u64::from(buffers) * (u64::from(data_room) + BUFFER_OVERHEAD_BYTES);
    let tables = u64::from(workers) * daemon::flow_capacity(config).bytes();
    let needed = (pool + tables) * 5 / 4 + (64 << 20);
    config.dpdk.memory_mib.max(u32::try_from(needed >> 20).unwrap_or(u32::MAX))
}

/// How many packet buffers of how many bytes: as configured, unless there are frames that the pcap device would cut
/// when they lie in several buffers. Then few and large ones: a replay holds two bursts and a cache for each worker.
fn pool_size(config: &Config, frame_bytes: usize, workers: u16) -> (u32, u16) {
    if frame_bytes <= SEGMENTED_BYTES_MAX {
        return (config.dpdk.buffers, daemon::DATA_ROOM);
    }
    (1024 * (u32::from(workers) + 1), frame_bytes.next_multiple_of(64).min(capture::FRAME_BYTES_MAX) as u16)
}

/// The arguments of a pcap device with one queue for each of `files`.
fn pcap_device(name: &str, key: &str, files: &[PathBuf]) -> String {
    files.iter().fold(name.to_owned(), |device, file| format!("{device},{key}={}", file.display()))
}

/// Runs every worker on its lcore until it has no more packets; calls `meanwhile` now and then.
fn one_pass(workers: Vec<Worker<ReplayIo>>, meanwhile: &mut dyn FnMut()) -> Result<Vec<Worker<ReplayIo>>, StartError> {
    let mut handles = Vec::new();
    for (mut worker, index) in workers.into_iter().zip(0..) {
        handles.push(dpdk::lcore::launch(index, move || {
            worker.run();
            worker.finish();
            worker
        })?);
    }
    let mut nap = Duration::from_micros(50);
    while !handles.iter().all(LcoreHandle::is_finished) {
        std::thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(20));
        meanwhile();
    }
    meanwhile();
    handles.into_iter().map(|handle| handle.join().map_err(StartError::from)).collect()
}

fn total(counters: &[Arc<WorkerCounters>]) -> Packets {
    counters.iter().map(|worker| worker.packets()).fold(Packets::default(), |sum, more| sum + more)
}

/// In a replay every child is behind the output file. The addresses are locally administered and say nothing.
struct ToOutput;

impl Reachability for ToOutput {
    fn reach(&self, _address: IpAddr) -> Option<Reach> {
        let link = Link { source: MacAddr([2, 0, 0, 0, 0, 1]), destination: MacAddr([2, 0, 0, 0, 0, 2]), vlan: None };
        Some(Reach { port: PortIndex(0), link, mtu: MTU })
    }
}
