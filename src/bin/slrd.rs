//! `slrd`: the router.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use slr::control::compile::{Shares, Unconnected, compile};
use slr::daemon::{self, StartError};

/// Route packets for virtual hosts to the host servers that serve them best.
///
/// Runs until SIGTERM or SIGINT, then prints its counters. At SIGHUP it reads its configuration again: the new one takes
/// over whole, or the old one stays.
/// Exit status: 0 done, 1 the run failed, 2 usage or configuration.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  slrd --config dpdk-config/lab.yaml --check")]
struct Arguments {
    /// Configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration, print what was understood, and stop
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let loaded = match daemon::read(&arguments.config) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("slrd: {error}");
            return ExitCode::from(2);
        }
    };
    if arguments.check {
        if let Some(trouble) = loaded.trouble() {
            eprintln!("slrd: {trouble}");
        }
        let tables = compile(&loaded.config, &Unconnected);
        print!("{}{}", loaded.config.summary(), Shares(&tables));
        return ExitCode::SUCCESS;
    }
    match daemon::run(loaded, &arguments.config) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("slrd: {error}");
            if matches!(error, StartError::NoPorts) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
