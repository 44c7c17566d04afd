//! `slrctl`: asks and steers a running router.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use slr::ctl::client::{AskError, Client};
use slr::ctl::recording::{CompileError, Recording, compile};
use slr::ctl::request::{CaptureRequest, FilterError, FlowFilter, Request, TraceRequest, protocol};
use slr::ctl::response::{CaptureEnd, CaptureItem, Done, FlowRow, FlowsEnd};
use slr::ctl::{AGENT_DIRECTORY, SOCKET_DIRECTORY, show, top};
use slr::trust::authority::{self, AuthorityError, Node};

/// Ask and steer a running router.
///
/// Exit status: 0 done, 1 the router refused or does not run, 2 usage.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  slrctl status\n  slrctl --json children\n  slrctl drain server1\n  slrctl --agent status"
)]
struct Arguments {
    /// Control socket of the router, where more than one runs: /run/slr/NAME.sock; with --agent, of the host agent
    #[arg(long, global = true, value_name = "PATH", env = "SLRCTL_SOCKET")]
    socket: Option<PathBuf>,
    /// Ask the host agent of this machine, which answers `status` and `parents`
    #[arg(long, global = true)]
    agent: bool,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Who the router is, what it runs on, and what became of its packets
    #[command(after_help = "Example:\n  slrctl status")]
    Status,
    /// Ports: device, link, counters
    #[command(after_help = "Example:\n  slrctl ports")]
    Ports,
    /// Virtual hosts, and how their children share new flows
    #[command(after_help = "Example:\n  slrctl services")]
    Services,
    /// Children, how they are reached, and how they are
    #[command(after_help = "Example:\n  slrctl children")]
    Children,
    /// Flows that the workers know
    #[command(after_help = "FILTER is any of, all of which must hold:\n  \
        vip=192.0.2.80  host=web  child=server1  src=10.0.0.0/8  port=443  proto=tcp  state=established  limit=100\n\n\
        Examples:\n  slrctl flows\n  slrctl flows vip=192.0.2.80 child=server1 state=syn\n  \
        slrctl --json flows src=198.51.100.7 limit=100000")]
    Flows {
        /// Which flows; 1000 at most unless limit= says otherwise
        filter: Vec<String>,
    },
    /// Routers above, and how the sessions with them are
    #[command(after_help = "Example:\n  slrctl parents")]
    Parents,
    /// Make an authority of your own, and certificates of nodes; no router is asked
    #[command(subcommand)]
    Ca(Ca),
    /// Next hops, and what is known about them
    #[command(after_help = "Example:\n  slrctl neighbours")]
    Neighbours,
    /// Give a child no new flows; those that it has stay
    #[command(after_help = "Example:\n  slrctl drain server1")]
    Drain {
        /// Name of the child
        child: String,
    },
    /// Give a child new flows again
    #[command(after_help = "Example:\n  slrctl undrain server1")]
    Undrain {
        /// Name of the child
        child: String,
    },
    /// Give a child another weight in all its virtual hosts
    #[command(after_help = "Examples:\n  slrctl weight server1 50\n  slrctl weight server1 configured")]
    Weight {
        /// Name of the child
        child: String,
        /// From 0 to 10000, or "configured" for what the configuration says
        #[arg(value_parser = weight)]
        weight: Wanted,
    },
    /// How flows were found again that a worker did not know
    #[command(after_help = "Example:\n  slrctl recovery")]
    Recovery,
    /// Let a worker forget all its flows, as if it had been started anew: to try out what happens then
    #[command(after_help = "Example:\n  slrctl forget 0")]
    Forget {
        /// Number of the worker
        worker: u16,
    },
    /// Which router of a pair is active, and why; or which is to be
    #[command(
        after_help = "Examples:\n  slrctl ha\n  slrctl ha standby   # before work on this router\n  slrctl ha active"
    )]
    Ha {
        /// standby: let the other router be active; active: end that, and take over at once where this one is the better
        #[arg(value_parser = ha, value_name = "status|standby|active", default_value = "status")]
        wish: HaWish,
    },
    /// Read the configuration again: the new one takes over whole, or the old one stays
    #[command(after_help = "Example:\n  slrctl reload")]
    Reload,
    /// Where a packet would go and why; nothing is sent
    #[command(after_help = "Examples:\n  slrctl trace 198.51.100.7:40000 192.0.2.80:80\n  \
        slrctl trace '[2001:db8::7]:40000' '[2001:db8:80::1]:443' --protocol udp\n  \
        slrctl trace 198.51.100.7 192.0.2.80 --protocol icmp")]
    Trace {
        /// Where it comes from: an address, with a port where its protocol has ports
        #[arg(value_parser = end)]
        source: SocketAddr,
        /// Where it goes
        #[arg(value_parser = end)]
        destination: SocketAddr,
        /// Its protocol, by name or number
        #[arg(long, value_name = "PROTOCOL", default_value = "tcp", value_parser = known_protocol)]
        protocol: u8,
    },
    /// Write what the router receives to a file, until Ctrl-C
    #[command(
        after_help = "FILTER is in tcpdump's language (man pcap-filter); '' takes every frame. A FILE that ends in\n\
        .pcapng names ports and reasons; any other is pcap, and - is standard output.\n\n\
        Examples:\n  slrctl capture 'tcp port 80' web.pcap --count 1000\n  \
        slrctl capture --drops '' drops.pcapng --seconds 10\n  slrctl capture 'host 192.0.2.80' - | tcpdump -r -"
    )]
    Capture {
        /// Only frames that are dropped
        #[arg(long)]
        drops: bool,
        /// End after so many frames
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        /// End after so many seconds
        #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
        seconds: Option<u64>,
        /// Bytes of each frame
        #[arg(long, value_name = "BYTES", default_value_t = 2048, value_parser = clap::value_parser!(u16).range(1..=2048))]
        snap: u16,
        /// Which frames
        filter: String,
        /// File to write
        file: PathBuf,
    },
    /// What happens every second, in a view that refreshes; q ends it
    #[command(after_help = "Examples:\n  slrctl top\n  slrctl top | cat      # one look, as text\n  slrctl --json top")]
    Top,
    /// Print completions for a shell
    #[command(after_help = "Example:\n  slrctl completions bash > /etc/bash_completion.d/slrctl")]
    Completions {
        /// bash, zsh or fish
        #[arg(value_parser = shell)]
        shell: Shell,
    },
}

#[derive(Subcommand)]
enum Ca {
    /// Make an authority: ca.pem, which every node needs, and ca.key, which stays here
    #[command(after_help = "Example:\n  slrctl ca init --directory /etc/slr/ca")]
    Init {
        /// Where its files go
        #[arg(long, value_name = "PATH", default_value = ".")]
        directory: PathBuf,
        /// Its name in certificates
        #[arg(long, default_value = "slr authority")]
        name: String,
    },
    /// Make a node's certificate: NAME.pem and NAME.key, which that node needs beside ca.pem
    #[command(
        after_help = "Examples:\n  slrctl ca issue site1 --level site --offer 192.0.2.0/24 --offer 2001:db8::/32\n  \
        slrctl ca issue server1 --level 0 --offer 192.0.2.80/32 --days 30"
    )]
    Issue {
        /// Name of the node, as router: name: says it
        name: String,
        /// Its level: 0 for a host server, site (1), system (2), network (3) or a number to 255
        #[arg(long, value_parser = level)]
        level: u8,
        /// A prefix that it may serve; give one for each
        #[arg(long = "offer", value_name = "PREFIX", value_parser = offer)]
        offers: Vec<IpNet>,
        /// How long the certificate is good
        #[arg(long, value_name = "N", default_value_t = 397, value_parser = clap::value_parser!(u16).range(1..=3650))]
        days: u16,
        /// Where the authority's files are, and the node's go
        #[arg(long, value_name = "PATH", default_value = ".")]
        directory: PathBuf,
    },
}

fn level(text: &str) -> Result<u8, String> {
    match text {
        "site" => Ok(1),
        "system" => Ok(2),
        "network" => Ok(3),
        _ => text.parse().map_err(|_| "write site, system, network or a number from 0 to 255".into()),
    }
}

fn offer(text: &str) -> Result<IpNet, String> {
    let alone = || text.parse::<IpAddr>().map(IpNet::from);
    let net = text.parse::<IpNet>().or_else(|_| alone()).ok().filter(|net| net.trunc() == *net);
    net.ok_or_else(|| "write a prefix without bits behind it, like 192.0.2.0/24 or 2001:db8::/32".into())
}

/// Makes certificates, and says which files hold them.
fn ca(command: Ca) -> Result<String, Failure> {
    let now = SystemTime::now();
    let [certificate, key] = match command {
        Ca::Init { directory, name } => authority::init(&directory, &name, now)?,
        Ca::Issue { name, level, offers, days, directory } => {
            let lifetime = Duration::from_secs(u64::from(days) * 86_400);
            authority::issue(&directory, &Node { name, level, offers }, now, lifetime)?
        }
    };
    Ok(format!("written: {} and {}\n", certificate.display(), key.display()))
}

/// What is wanted of a pair.
#[derive(Clone, Copy)]
enum HaWish {
    Status,
    Standby,
    Active,
}

fn ha(text: &str) -> Result<HaWish, String> {
    match text {
        "status" => Ok(HaWish::Status),
        "standby" => Ok(HaWish::Standby),
        "active" => Ok(HaWish::Active),
        _ => Err("write status, standby or active".into()),
    }
}

/// A weight, or `None` for the configured one.
#[derive(Clone, Copy)]
struct Wanted(Option<u16>);

fn weight(text: &str) -> Result<Wanted, String> {
    match text {
        "configured" => Ok(Wanted(None)),
        _ => match text.parse() {
            Ok(weight @ 0..=10_000) => Ok(Wanted(Some(weight))),
            _ => Err("write a number from 0 to 10000, or configured".into()),
        },
    }
}

fn end(text: &str) -> Result<SocketAddr, String> {
    let alone = || text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 0));
    text.parse().or_else(|_| alone()).map_err(|_| "write it like 192.0.2.80:80 or [2001:db8::80]:80".into())
}

fn known_protocol(text: &str) -> Result<u8, String> {
    protocol(text).ok_or_else(|| "write tcp, udp, sctp, icmp, icmpv6 or a number from 0 to 255".into())
}

fn shell(text: &str) -> Result<Shell, String> {
    match text {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err("write bash, zsh or fish".into()),
    }
}

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("no agent answers at {0}; start slr-host, or name its control socket with --socket")]
    NoAgent(PathBuf),
    #[error(transparent)]
    Words(#[from] FilterError),
    #[error(transparent)]
    Filter(#[from] CompileError),
    #[error("{path}: {source}", path = .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    #[error("the answer is not understood ({0}); slrctl and slrd should be of one version")]
    Strange(#[from] serde_json::Error),
}

impl Failure {
    fn is_usage(&self) -> bool {
        matches!(self, Failure::Words(_) | Failure::Filter(_) | Failure::File { .. })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has enough: slrctl flows | head.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("slrctl: {failure}");
            if failure.is_usage() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(Arguments { socket, agent, json, command }: Arguments) -> Result<(), Failure> {
    let connect = || match &socket {
        Some(path) => Client::connect(path),
        None => Client::find(Path::new(if agent { AGENT_DIRECTORY } else { SOCKET_DIRECTORY })),
    };
    let ask = |request: Request| -> Result<Value, Failure> { Ok(connect()?.ask_value(&request)?) };
    let done = |request| print(json, ask(request)?, |done: &Done| format!("{}\n", done.done));
    match command {
        Command::Status if agent => {
            let answer = ask(Request::Status).map_err(|failure| match failure {
                Failure::Ask(AskError::NotRunning(path)) => Failure::NoAgent(path),
                other => other,
            });
            print(json, answer?, show::agent)
        }
        Command::Status => print(json, ask(Request::Status)?, show::status),
        Command::Ports => print(json, ask(Request::Ports)?, |ports: &Vec<_>| show::ports(ports)),
        Command::Services => print(json, ask(Request::Services)?, |services: &Vec<_>| show::services(services)),
        Command::Children => print(json, ask(Request::Children)?, |children: &Vec<_>| show::children(children)),
        Command::Parents => print(json, ask(Request::Parents)?, |parents: &Vec<_>| show::parents(parents)),
        Command::Ca(command) => output(&ca(command)?),
        Command::Neighbours => print(json, ask(Request::Neighbours)?, |all: &Vec<_>| show::neighbours(all)),
        Command::Flows { filter } => {
            let filter = FlowFilter::from_words(filter.iter().map(String::as_str))?;
            flows(connect()?, filter, json)
        }
        Command::Drain { child } => done(Request::Drain { child }),
        Command::Undrain { child } => done(Request::Undrain { child }),
        Command::Weight { child, weight: Wanted(weight) } => done(Request::Weight { child, weight }),
        Command::Recovery => print(json, ask(Request::Recovery)?, show::recovery),
        Command::Ha { wish: HaWish::Status } => print(json, ask(Request::Ha)?, show::pair),
        Command::Ha { wish } => done(Request::HaWish { active: matches!(wish, HaWish::Active) }),
        Command::Forget { worker } => done(Request::Forget { worker }),
        Command::Reload => done(Request::Reload),
        Command::Trace { source, destination, protocol } => {
            print(json, ask(Request::Trace(TraceRequest { source, destination, protocol }))?, show::trace)
        }
        Command::Capture { drops, count, seconds, snap, filter, file } => {
            let program = compile(&filter)?;
            let request = CaptureRequest { program, drops, snap_len: snap, count, seconds };
            capture(connect()?, request, &file, json)
        }
        Command::Top => {
            let mut client = connect()?;
            match json {
                true => output(&format!("{}\n", serde_json::to_string_pretty(&top::once(&mut client)?)?)),
                false => Ok(top::run(&mut client)?),
            }
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "slrctl", &mut script);
            output(&String::from_utf8_lossy(&script))
        }
    }
}

/// Prints an answer as JSON or as `show` shows it.
fn print<T: DeserializeOwned>(json: bool, answer: Value, show: impl Fn(&T) -> String) -> Result<(), Failure> {
    match json {
        true => output(&format!("{}\n", serde_json::to_string_pretty(&answer)?)),
        false => output(&show(&serde_json::from_value(answer)?)),
    }
}

fn output(text: &str) -> Result<(), Failure> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn flows(mut client: Client, filter: FlowFilter, json: bool) -> Result<(), Failure> {
    let mut flows: Vec<FlowRow> = Vec::new();
    let end = client.stream(&Request::Flows(filter), &mut || false, &mut |flow| {
        flows.push(flow);
        Ok(())
    })?;
    let FlowsEnd { listed, more } = serde_json::from_value(end)?;
    if json {
        let all = json!({ "flows": flows, "more": more });
        return output(&format!("{}\n", serde_json::to_string_pretty(&all)?));
    }
    output(&show::flows(&flows))?;
    if more {
        eprintln!("slrctl: there are more than these {listed}; limit=N shows up to N");
    }
    Ok(())
}

fn capture(mut client: Client, request: CaptureRequest, file: &Path, json: bool) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Without the handler the signal ends the process; the file is whole up to there.
        let _ = signal_hook::flag::register(signal, stop.clone());
    }
    let snap_len = request.snap_len;
    let (mut recording, mut unwritable) = (None, None);
    let outcome = client.stream(&Request::Capture(request), &mut || stop.load(Ordering::Relaxed), &mut |item| {
        let written = match (item, &mut recording) {
            // Only now, as a router that refuses shall leave no file.
            (CaptureItem::Started, _) => Recording::create(file, snap_len).map(|started| recording = Some(started)),
            (CaptureItem::Frame(frame), Some(recording)) => recording.add(&frame),
            (CaptureItem::Frame(_), None) => Ok(()),
        };
        written.map_err(|error| {
            let kind = error.kind();
            unwritable = Some(error);
            kind.into()
        })
    });
    match unwritable {
        // Of standard output, whoever reads has enough.
        Some(error) if file == Path::new("-") => return Err(Failure::Output(error)),
        Some(source) => return Err(Failure::File { path: file.to_owned(), source }),
        None => {}
    }
    let CaptureEnd { frames, missed } = serde_json::from_value(outcome?)?;
    let said = match json {
        true => format!("{}\n", json!({ "frames": frames, "missed": missed, "file": file })),
        false => format!("{frames} frames written to {}, {missed} missed\n", file.display()),
    };
    if file == Path::new("-") {
        eprint!("{said}");
        return Ok(());
    }
    output(&said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_hold_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn ends_of_a_packet_have_a_port_or_none() {
        for (text, expected) in [
            ("192.0.2.80:80", Some("192.0.2.80:80")),
            ("192.0.2.80", Some("192.0.2.80:0")),
            ("[2001:db8::1]:443", Some("[2001:db8::1]:443")),
            ("2001:db8::1", Some("[2001:db8::1]:0")),
            ("web:80", None),
            ("192.0.2.80:99999", None),
        ] {
            assert_eq!(end(text).ok().map(|end| end.to_string()).as_deref(), expected, "{text}");
        }
    }
}
