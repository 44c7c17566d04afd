//! `slr-replay`: pushes a capture through the router's workers and writes what would go on the wire.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use slr::config::Config;
use slr::replay::harness::{self, Options, WORKERS_MAX};

/// Push a capture through the router's workers and write what would go on the wire.
///
/// Reads pcap and pcapng files of Ethernet frames. Prints where packets and flows went and why others were dropped.
/// Exit status: 0 done, 1 the run failed, 2 usage or configuration.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  slr-replay --config dpdk-config/replay.yaml --input in.pcap --output out.pcap --workers 2"
)]
struct Arguments {
    /// Configuration; its ports are not used
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Capture to read
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Capture to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Workers, each with its own queue [default: as configured]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(WORKERS_MAX)))]
    workers: Option<u16>,
    /// Passes over the capture
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    loops: u32,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("slr-replay: {error}");
            return ExitCode::from(2);
        }
    };
    let options = Options {
        input: arguments.input,
        output: arguments.output,
        report: arguments.report,
        workers: arguments.workers,
        loops: arguments.loops,
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Without the handler the signal ends the process, as it would anyway; only temporary files stay then.
        let _ = signal_hook::flag::register(signal, stop.clone());
    }
    let mut progress = Progress::new();
    let outcome = harness::run(&config, &options, &stop, &mut |done, all| progress.show(done, all));
    progress.clear();
    match outcome {
        Ok(report) => {
            println!("{report}");
            println!("{} packets written to {}", report.packets.forwarded, options.output.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("slr-replay: {error}");
            if error.is_usage() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// A line on standard error that says how far a long run has come.
struct Progress {
    start: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    fn new() -> Progress {
        Progress { start: Instant::now(), shown: None, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, done: u64, all: u64) {
        // Once a second where it overwrites itself, every ten where it fills a log.
        let interval = Duration::from_secs(if self.terminal { 1 } else { 10 });
        if self.shown.unwrap_or(self.start).elapsed() < interval {
            return;
        }
        self.shown = Some(Instant::now());
        let end = if self.terminal { '\r' } else { '\n' };
        let percent = done * 100 / all.max(1);
        eprint!("slr-replay: {done} of {all} packets, {percent} %, {} s{end}", self.start.elapsed().as_secs());
        let _ = std::io::stderr().flush();
    }

    fn clear(&self) {
        if self.terminal && self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
