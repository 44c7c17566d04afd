//! Which way of taking tunnels off is used: the best that works here, or the one that is asked for; and why.
//!
//! | way | what it can | what it costs |
//! |---|---|---|
//! | `tc` | IP in IP, GUE, GRE; any device | a little of each packet |
//! | `xdp` | these and MPLS | less in a driver that has a place for it, more where none has; changes a virtual link's offloads |
//! | `tun` | IP in IP, GUE, GRE; any kernel with TUN | two copies and two system calls a packet |
//!
//! Beside `tc` and `xdp` the process reads what came in fragments and was put together by the system.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::ebpf::{EbpfError, Program};
use super::outcome::{Outcome, Traffic};
use super::prefixes::Prefixes;
use super::tun::{Device, Reader, Rules};
use crate::config::host::{HostConfig, Method};

/// Why no tunnel can be taken off.
#[derive(Debug, thiserror::Error)]
pub enum DecapsulateError {
    /// The one way that is asked for does not work.
    #[error("decapsulation {method} does not work: {source}; write decapsulation: auto for the best that does")]
    Asked {
        /// Which.
        method: Method,
        /// Why.
        source: EbpfError,
    },
    /// None does.
    #[error("no way of taking tunnels off works: {0}")]
    None(String),
    /// There is no TUN device.
    #[error(
        "cannot make a TUN device, which {what} needs: {source}; load the module tun, and see that /dev/net/tun is there"
    )]
    Device {
        /// What for.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// There are no sockets to read from.
    #[error("cannot read tunnel packets: {0}; another program may have the UDP port of GUE")]
    Sockets(io::Error),
}

/// Tunnels are taken off for as long as this lives.
pub struct Decapsulator {
    taking: ArcSwap<Taking>,
    reader: Option<Reader>,
    /// Where packets of our own go to, if there is such a device.
    pub device: Option<Arc<Device>>,
    /// How tunnels are taken off.
    pub method: Method,
    /// Where, and why so, for people.
    pub why: String,
}

/// What takes tunnels off for some virtual hosts.
struct Taking {
    program: Option<Program>,
    virtual_hosts: Arc<Prefixes>,
}

impl Decapsulator {
    /// Starts the best way that works, or the one that is asked for. What the system sends into the TUN device goes to
    /// `answers`.
    ///
    /// # Errors
    /// None works, or not the one.
    pub fn start(
        config: &HostConfig,
        prefixes: &Arc<Prefixes>,
        answers: mpsc::Sender<Vec<u8>>,
    ) -> Result<Decapsulator, DecapsulateError> {
        let (program, method, why) = program(config, prefixes)?;
        let device = match (Device::new(), &program) {
            (Ok(device), _) => Some(Arc::new(device)),
            (Err(source), None) => return Err(DecapsulateError::Device { what: "decapsulation tun", source }),
            (Err(source), Some(_)) if config.checks_in_packets() => {
                return Err(DecapsulateError::Device { what: "health", source });
            }
            (Err(error), Some(_)) => {
                eprintln!("slr-host: no TUN device ({error}): tunnel packets that come in fragments are lost");
                None
            }
        };
        let reader = match &device {
            Some(device) => Some(
                Reader::start(rules(config, prefixes), device.clone(), answers).map_err(DecapsulateError::Sockets)?,
            ),
            None => None,
        };
        let taking = ArcSwap::from_pointee(Taking { program, virtual_hosts: prefixes.clone() });
        Ok(Decapsulator { taking, reader, device, method, why })
    }

    /// Goes over to other routers and virtual hosts, without a gap and with its counters; tunnels, their ends and the way
    /// stay what they are.
    ///
    /// # Errors
    /// The kernel does not take it, and all stays as it was.
    pub fn reconfigure(&self, config: &HostConfig, prefixes: &Arc<Prefixes>) -> Result<(), EbpfError> {
        let before = self.taking.load();
        let successor = |program: &Program| program.successor(config, prefixes, &before.virtual_hosts);
        let program = before.program.as_ref().map(successor).transpose()?;
        if let Some(reader) = &self.reader {
            reader.shared.set(rules(config, prefixes));
        }
        self.taking.store(Arc::new(Taking { program, virtual_hosts: prefixes.clone() }));
        Ok(())
    }

    /// Packets by what became of them.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        let by_program = self.taking.load().program.as_ref().map_or(0, |program| program.outcome(outcome));
        by_program + self.reader.as_ref().map_or(0, |reader| reader.shared.outcomes.of(outcome))
    }

    /// What has come for a prefix and gone from it. Without a program nobody sees what goes.
    pub fn traffic(&self, prefix: usize) -> Traffic {
        let mut traffic =
            self.taking.load().program.as_ref().map_or_else(Traffic::default, |program| program.traffic(prefix));
        if let Some(reader) = &self.reader {
            traffic += reader.shared.traffic(prefix);
        }
        traffic
    }
}

fn rules(config: &HostConfig, prefixes: &Arc<Prefixes>) -> Rules {
    Rules {
        tunnels: config.tunnels,
        ends: config.tunnel_addresses.clone(),
        routers: config.routers.clone(),
        virtual_hosts: prefixes.clone(),
    }
}

/// The program, where one is used.
fn program(config: &HostConfig, prefixes: &Prefixes) -> Result<(Option<Program>, Method, String), DecapsulateError> {
    let labels = config.tunnels.mpls.is_some();
    let ways: &[Method] = match config.method {
        Method::Auto if labels => &[Method::Xdp],
        Method::Auto => &[Method::Tc, Method::Xdp],
        Method::Tun => return Ok((None, Method::Tun, "a TUN device, as configured".into())),
        Method::Tc => &[Method::Tc],
        Method::Xdp => &[Method::Xdp],
    };
    let mut refused = String::new();
    for method in ways {
        match Program::start(config, prefixes, *method) {
            Ok(program) => {
                let why = match (config.method, labels, refused.is_empty()) {
                    (Method::Auto, true, _) => "the one way that takes labels off".into(),
                    (Method::Auto, false, true) => "works on every device and is quick".into(),
                    (Method::Auto, false, false) => format!("the best that works: {refused}"),
                    _ => "as configured".into(),
                };
                let why = format!("{}; {why}", program.place);
                return Ok((Some(program), *method, why));
            }
            Err(source) if config.method != Method::Auto => {
                return Err(DecapsulateError::Asked { method: *method, source });
            }
            Err(error) => refused = format!("{refused}{}{method}: {error}", if refused.is_empty() { "" } else { "; " }),
        }
    }
    match labels {
        true => Err(DecapsulateError::None(refused)),
        false => Ok((None, Method::Tun, format!("a TUN device, the last way that is left: {refused}"))),
    }
}
