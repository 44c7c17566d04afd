//! One replay from start to end: files, devices, workers, report.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tempfile::{NamedTempFile, TempDir};

use super::capture::{self, CaptureError, Part, Split};
use super::io::ReplayIo;
use crate::config::Config;
use crate::control::compile::{Reach, Reachability, compile};
use crate::daemon::{self, StartError};
use crate::dpdk::{self, Pool, Port, PortOptions, PortStats};
use crate::forward::counters::{Packets, WorkerCounters};
use crate::forward::pipeline::Pipeline;
use crate::forward::punt::PuntRing;
use crate::forward::worker::Worker;
use crate::metrics::report::Report;
use crate::tunnel::template::Link;
use crate::units::{MacAddr, PortIndex, WorkerId};

/// Longest IP packet that is written: the longest there is.
const MTU: u16 = u16::MAX;

/// Longest frame that the pcap device writes whole when it lies in several buffers (9,728 bytes), less the longest header
/// that a tunnel adds.
const SEGMENTED_BYTES_MAX: usize = 9_600;

/// Frames that wait for the slow path at most, per worker.
const PUNT_SLOTS: usize = 256;

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
    /// Packet buffers were not given back: a defect of this program.
    #[error("{buffers} packet buffers were not given back; please report this with the capture")]
    Leaked {
        /// How many.
        buffers: u32,
    },
}

/// Called a few times a second with what has been done: packets so far, packets in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Replays a capture. Nothing is left behind unless all of it worked.
pub fn run(config: &Config, options: &Options, progress: Progress<'_>) -> Result<Report, ReplayError> {
    let workers = options.workers.unwrap_or(config.workers.count).max(1);
    let mut output = writable(&options.output)?;
    let mut report_file = options.report.as_deref().map(writable).transpose()?;
    let directory = tempfile::Builder::new()
        .prefix("slr-replay-")
        .tempdir()
        .map_err(|source| ReplayError::Unwritable { path: std::env::temp_dir(), source })?;
    let split = capture::split(&options.input, directory.path(), workers)?;

    let eal = daemon::start_eal(config, workers, false)?;
    let (report, parts) = forward(config, options, &split, &directory, workers, progress)?;
    eal.cleanup().map_err(StartError::from)?;

    let written = capture::merge(&parts, &mut output)?;
    debug_assert_eq!(written, report.packets.forwarded);
    if let Some(file) = &mut report_file {
        let unwritable = |source| ReplayError::Unwritable { path: options.report.clone().unwrap_or_default(), source };
        serde_json::to_writer_pretty(file.as_file_mut(), &report).map_err(|error| unwritable(error.into()))?;
    }
    persist(output, &options.output)?;
    if let (Some(file), Some(path)) = (report_file, &options.report) {
        persist(file, path)?;
    }
    Ok(report)
}

/// Runs the workers over the split capture.
fn forward(
    config: &Config,
    options: &Options,
    split: &Split,
    directory: &TempDir,
    workers: u16,
    progress: Progress<'_>,
) -> Result<(Report, Vec<Part>), ReplayError> {
    let (buffers, data_room) = pool_size(config, split.frame_bytes, workers);
    let pool = Pool::new("replay", buffers, data_room).map_err(StartError::from)?;
    let out: Vec<PathBuf> = (0..workers).map(|worker| directory.path().join(format!("out-{worker}.pcap"))).collect();
    let tx_options = PortOptions { rx_queues: 0, tx_queues: workers, ..PortOptions::default() };
    let (output, _, tx) =
        Port::open(&pcap_device("net_pcap_out", "tx_pcap", &out), &tx_options, &pool).map_err(StartError::from)?;
    output.start().map_err(StartError::from)?;

    let tables = Arc::new(compile(config, &ToOutput));
    let published = Arc::new(ArcSwap::from(tables.clone()));
    let stop = Arc::new(AtomicBool::new(false));
    let mut counters = Vec::new();
    let mut punts = Vec::new();
    let mut running = Vec::new();
    for (worker, tx) in (0..workers).zip(tx) {
        let worker_counters = Arc::new(WorkerCounters::new(tables.targets.len()));
        let ring = PuntRing::new(PUNT_SLOTS);
        let pipeline = Pipeline::new(
            (WorkerId(worker), workers),
            1,
            daemon::flow_capacity(config),
            worker_counters.clone(),
            ring.clone(),
        )
        .ok_or(StartError::FlowMemory)?;
        let packets_max = split.records[usize::from(worker)] * u64::from(options.loops);
        let io = ReplayIo::new(tx, split.start.as_nanos() as u64, packets_max as usize);
        running.push(Worker::new(io, pipeline, published.clone(), stop.clone()));
        counters.push(worker_counters);
        punts.push(ring);
    }

    let expected = split.records.iter().sum::<u64>() * u64::from(options.loops);
    let mut elapsed = Duration::ZERO;
    let mut statistics = PortStats::default();
    for pass in 0..options.loops {
        let rx_options = PortOptions { rx_queues: workers, tx_queues: 0, ..PortOptions::default() };
        let device = pcap_device(&format!("net_pcap_in{pass}"), "rx_pcap", &split.files);
        let (input, rx, _) = Port::open(&device, &rx_options, &pool).map_err(StartError::from)?;
        input.start().map_err(StartError::from)?;
        let pass_ns = (split.span + Duration::from_secs(1)).as_nanos() as u64 * u64::from(pass);
        running.iter_mut().zip(rx).for_each(|(worker, rx)| worker.io_mut().start_pass(rx, pass_ns));
        let start = Instant::now();
        running = one_pass(running, &mut || {
            // A replay has no slow path: what is punted has been counted, and that is all that is asked of it.
            punts.iter().for_each(|ring| while ring.pop().is_some() {});
            progress(total(&counters).received, expected);
        })?;
        elapsed += start.elapsed();
        statistics = input.stats();
        running.iter_mut().for_each(|worker| worker.io_mut().end_pass());
    }
    let received = total(&counters).received;
    if received != expected {
        return Err(ReplayError::Lost { received, expected, statistics: format!("{statistics:?}") });
    }
    let report = Report::new(&tables, &counters, elapsed.as_secs_f64(), dpdk::tsc::hz() as f64);
    let parts =
        out.into_iter().zip(running).map(|(file, worker)| Part { file, timestamps: worker.into_io().into_sent_at() });
    let parts = parts.collect();
    // Closing the port writes the rest of its files.
    output.close().map_err(StartError::from)?;
    match pool.in_use() {
        0 => Ok((report, parts)),
        buffers => Err(ReplayError::Leaked { buffers }),
    }
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
        let finished = Arc::new(AtomicBool::new(false));
        let done = finished.clone();
        let handle = dpdk::lcore::launch(index, move || {
            worker.run();
            done.store(true, Ordering::Release);
            worker
        })?;
        handles.push((handle, finished));
    }
    let mut nap = Duration::from_micros(50);
    while !handles.iter().all(|(_, finished)| finished.load(Ordering::Acquire)) {
        std::thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(20));
        meanwhile();
    }
    meanwhile();
    handles.into_iter().map(|(handle, _)| handle.join().map_err(StartError::from)).collect()
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

/// A file beside `path` that takes its place when everything is written.
fn writable(path: &Path) -> Result<NamedTempFile, ReplayError> {
    let unwritable = |source| ReplayError::Unwritable { path: path.to_owned(), source };
    if path.is_dir() {
        return Err(unwritable(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(".slr-replay-").tempfile_in(directory).map_err(unwritable)
}

fn persist(file: NamedTempFile, path: &Path) -> Result<(), ReplayError> {
    let unwritable = |source| ReplayError::Unwritable { path: path.to_owned(), source };
    // Temporary files are private; what the user asked for has the permissions that the umask gives.
    daemon::open_to_umask(file.as_file()).map_err(unwritable)?;
    file.persist(path).map(drop).map_err(|error| unwritable(error.error))
}
