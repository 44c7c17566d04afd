//! `slr-sim`: what would become of a topology.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use slr::sim::{Study, Topology};

/// Simulate a hierarchy of routers: the machines of the real ones, on a clock and a network made of numbers.
///
/// Prints a table with one line for each interval. The same seed gives the same run.
/// Exit status: 0 done, 1 a file cannot be written, 2 usage or topology.
#[derive(Parser)]
#[command(
    version,
    after_help = "A topology, with the defaults of what is left out:\n  \
    systems: 2\n  sites: 3            # of each system\n  servers: 4          # of each site\n  \
    capacity: 100       # flows that a server serves at a time\n  interval: 1.0       # seconds between updates\n  \
    slots: 1000         # of a table, for each child\n  selection: shares   # or least_cost, consistent_hash\n  cost_function: load\n  load: 0.8           # of all capacities\n  \
    flow_seconds: 10.0\n  seconds: 60.0\n  delay_ms: 10.0\n  loss: 0.0\n  \
    events: [{ at: 20, kill: site1-2 }, { at: 40, revive: site1-2 }]   # also cut, mend: its sessions;\n          \
    # fail, recover: the service of its servers, or with `network` of all\n\n\
    Example:\n  slr-sim --config topology.yaml --seed 7 --csv run.csv --svg run.svg"
)]
struct Arguments {
    /// Topology
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Seed of all that is left to chance
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write what the table shows, and more, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write it as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw load, shares of new flows, control traffic and staleness over time, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Arguments { config, seed, json, csv, svg } = Arguments::parse();
    let read = std::fs::read_to_string(&config).map_err(|error| error.to_string());
    let topology = match read.and_then(|text| Topology::parse(&text).map_err(|error| error.to_string())) {
        Ok(topology) => topology,
        Err(error) => {
            eprintln!("slr-sim: {}: {error}", config.display());
            return ExitCode::from(2);
        }
    };
    let study = Study::run(&topology, seed);
    print!("{study}");
    let texts =
        [(json, serde_json::to_string_pretty(&study).unwrap_or_default()), (csv, study.csv()), (svg, study.svg())];
    for (file, text) in texts {
        if let Some(file) = file
            && let Err(error) = write(&file, &text)
        {
            eprintln!("slr-sim: {}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write(file: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(file, text)
}
