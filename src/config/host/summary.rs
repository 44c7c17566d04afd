//! How the host agent's configuration is shown to people.

use std::fmt;

use super::{Application, HostConfig, HostedService, Tunnels};
use crate::config::summary::{checks, list, rhythm};
use crate::config::values::show;

/// What was understood, as a text of many lines; made by [`HostConfig::summary`].
#[derive(Debug)]
pub struct Summary<'a>(pub(super) &'a HostConfig);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostConfig { name, tunnel_addresses, interfaces, routers, method, tunnels, interval, .. } = self.0;
        writeln!(f, "host {name}")?;
        writeln!(f, "  tunnel addresses  {}", list(tunnel_addresses.iter().map(ToString::to_string)))?;
        writeln!(f, "  interfaces        {}", interfaces.join(", "))?;
        writeln!(f, "  routers           {}", list(routers.iter().copied().map(show)))?;
        writeln!(f, "  decapsulation     {method}: {tunnels}")?;
        match self.0.router_macs.as_slice() {
            [] => {}
            macs => writeln!(f, "  labels from       {}", list(macs.iter().map(ToString::to_string)))?,
        }
        writeln!(f, "  mss clamp         {}", if self.0.mss_clamp { "auto" } else { "off" })?;
        self.sessions(f)?;
        let HostConfig { capacity, drain, .. } = self.0;
        write!(f, "load     every {interval:?}, capacity {capacity}")?;
        if let Some(cgroup) = &self.0.cgroup {
            write!(f, ", of control group {}", cgroup.display())?;
        }
        writeln!(f, "; a stop waits up to {drain:?} for connections to end")?;
        match self.0.metrics.listen {
            Some(listen) => writeln!(f, "metrics  http://{listen}/metrics")?,
            None => writeln!(f, "metrics  off")?,
        }
        match &self.0.control.socket {
            Some(socket) => writeln!(f, "control  {}", socket.display())?,
            None => writeln!(f, "control  off")?,
        }
        if self.0.echo.is_some() {
            writeln!(f, "recovery echoes for connections without word of their client")?;
        }
        writeln!(f, "state    {}", self.0.state.display())?;
        writeln!(f, "virtual hosts: {}", self.0.virtual_hosts.len())?;
        self.0.virtual_hosts.iter().try_for_each(|host| virtual_host(f, host))
    }
}

impl Summary<'_> {
    fn sessions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(credentials) = &self.0.credentials else { return Ok(()) };
        let parents = self.0.parents.iter().map(|parent| format!("{} at {}", parent.name, parent.address));
        writeln!(f, "sessions with parents: {}", list(parents))?;
        let identity = &credentials.identity;
        writeln!(f, "         our certificate may offer {}", list(identity.offers.iter().copied().map(show)))?;
        let addresses = self.0.virtual_hosts.iter().flat_map(|host| &host.addresses).copied();
        let mut beyond = addresses.filter(|net| !identity.may_offer(*net)).map(show).peekable();
        match beyond.peek() {
            Some(_) => writeln!(f, "         and not {}, which parents will refuse", list(beyond)),
            None => Ok(()),
        }
    }
}

fn virtual_host(f: &mut fmt::Formatter<'_>, host: &HostedService) -> fmt::Result {
    writeln!(f, "  {}", host.name)?;
    writeln!(f, "    addresses    {}", list(host.addresses.iter().copied().map(show)))?;
    writeln!(f, "    services     {}", list(host.services.iter().map(ToString::to_string)))?;
    if let Some(health) = &host.health {
        writeln!(f, "    health       {}", checks(health))?;
        writeln!(f, "                 {}", rhythm(&health.rhythm))?;
    }
    if let Some(application) = &host.application {
        writeln!(f, "    application  {application}")?;
    }
    match &host.load {
        Some(expression) => writeln!(f, "    load         {}", expression.text()),
        None => Ok(()),
    }
}

impl fmt::Display for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Application::Http { server, path } => write!(f, "http://{server}{path}"),
            Application::File(path) => write!(f, "file {}", path.display()),
            Application::Command(words) => write!(f, "command {}", words.join(" ")),
        }
    }
}

impl fmt::Display for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            self.ipip.then(|| "ipip".to_owned()),
            self.gue.map(|port| format!("gue, port {port}")),
            self.gre.then(|| "gre".to_owned()),
            self.mpls.map(|label| format!("mpls, label {label}")),
            self.mac.then(|| "mac".to_owned()),
        ];
        f.write_str(&list(kinds.into_iter().flatten()))
    }
}
