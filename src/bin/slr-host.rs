//! `slr-host`: the host agent.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use slr::agent::service;
use slr::config::host::HostConfig;

/// Serve virtual hosts on this machine: end the routers' tunnels, answer with the virtual hosts' addresses, measure load.
///
/// Runs until SIGTERM or SIGINT, then waits for connections to end and undoes all that it has changed. A second signal ends
/// the waiting. What a crash has left behind is undone by the next start. At SIGHUP it reads its configuration and certificates
/// again: the new ones take over whole, or the old ones stay.
/// Exit status: 0 done, 1 the run failed, 2 usage or configuration.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  slr-host --config dpdk-config/host.yaml --check")]
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
    let config = match HostConfig::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("slr-host: {error}");
            return ExitCode::from(2);
        }
    };
    if arguments.check {
        print!("{}", config.summary());
        return ExitCode::SUCCESS;
    }
    match service::run(config, &arguments.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slr-host: {error}");
            ExitCode::FAILURE
        }
    }
}
