//! How answers look to people: tables that a terminal of usual width holds.

use std::fmt::{Display, Write};

use super::response::{
    AgentStatus, ChildRow, FlowRow, NeighbourRow, Pair, ParentRow, PortRow, Recovery, RegionRow, ServiceRow, Status,
    Trace,
};
use crate::metrics::report::PacketReport;

/// A table: columns as wide as they need to be, numbers to the right.
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns; a heading that starts with `>` is one of numbers.
    pub fn new(head: &[&'static str]) -> Table {
        Table { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, a cell for each column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let titles: Vec<String> = self.head.iter().map(|title| title.trim_start_matches('>').to_owned()).collect();
        let all = || std::iter::once(&titles).chain(&self.rows);
        let width = |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..self.head.len()).map(|column| width(column).unwrap_or(0)).collect();
        for row in all() {
            let mut line = String::new();
            for ((cell, width), title) in row.iter().zip(&widths).zip(&self.head) {
                match title.starts_with('>') {
                    true => write!(line, "{cell:>width$}  ")?,
                    false => write!(line, "{cell:<width$}  ")?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// What is there, or a dash.
fn or_dash<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// A list, or a dash.
fn list(items: &[String]) -> String {
    if items.is_empty() { "-".into() } else { items.join(", ") }
}

/// A time in its two largest units.
pub fn time(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// `slrctl status`.
pub fn status(status: &Status) -> String {
    let Status { name, level, version, configuration, virtual_hosts, children, snapshot, counters, .. } = status;
    let PacketReport { rx, forwarded, punted, dropped, .. } = &counters.packets;
    let flows = counters.flows;
    let mut text = format!(
        "router         {name}, level {level}, slr {version}, up {}\n\
         configuration  {configuration}: {virtual_hosts} virtual hosts, {children} children\n\
         snapshot       {}, {} old\n\
         drained        {}\n\
         packets        {rx} received, {forwarded} forwarded, {punted} punted, {} dropped\n\
         flows          {} active, {} inserted, {} expired, {} refused\n\n",
        time(status.uptime_seconds),
        snapshot.number,
        time(snapshot.age_seconds),
        list(&status.drained),
        dropped.values().sum::<u64>(),
        flows.active,
        flows.inserted,
        flows.expired,
        flows.refused,
    );
    let mut table = Table::new(&["worker", ">received", ">forwarded", ">punted", ">dropped", ">flows", ">ns a packet"]);
    for worker in &counters.workers {
        let packets = &worker.packets;
        table.row([
            worker.worker.to_string(),
            packets.rx.to_string(),
            packets.forwarded.to_string(),
            packets.punted.to_string(),
            packets.dropped.values().sum::<u64>().to_string(),
            worker.flows.active.to_string(),
            format!("{:.1}", worker.ns_per_packet),
        ]);
    }
    text += &table.to_string();
    text += &certificate(status.certificate_seconds);
    if !dropped.is_empty() {
        let mut table = Table::new(&["dropped for", ">packets"]);
        for (reason, count) in dropped {
            table.row([reason.to_string(), count.to_string()]);
        }
        text += &format!("\n{table}");
    }
    text
}

fn certificate(seconds: Option<f64>) -> String {
    match seconds {
        Some(seconds) if seconds > 0.0 => format!("\nour certificate ends in {}\n", time(seconds)),
        Some(_) => "\nour certificate is over\n".into(),
        None => String::new(),
    }
}

/// `slrctl --agent status`.
pub fn agent(status: &AgentStatus) -> String {
    let AgentStatus { name, version, decapsulation, why, inner_mtu, changes, .. } = status;
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let mut text = format!(
        "host           {name}, slr {version}, up {}{}\n\
         decapsulation  {decapsulation}: {why}\n\
         in a tunnel    packets of up to {inner_mtu} bytes\n\
         changes        {changes}, undone at the end\n\
         machine        cpu {}, pressure {}; memory {}, pressure {}\n\n",
        time(status.uptime_seconds),
        if status.draining { ", draining" } else { "" },
        percent(status.cpu),
        percent(status.cpu_pressure),
        percent(status.memory),
        percent(status.memory_pressure),
    );
    let head = ["virtual host", "state", ">load", ">established", ">queue", ">bytes/s in", ">out", ">application"];
    let mut table = Table::new(&head);
    for host in &status.virtual_hosts {
        table.row([
            host.name.clone(),
            if host.failure.is_some() { "down" } else { "up" }.into(),
            format!("{:.3}", host.load),
            host.established.to_string(),
            percent(host.queue),
            format!("{:.0}", host.bytes_in),
            format!("{:.0}", host.bytes_out),
            or_dash(host.application),
        ]);
    }
    text += &table.to_string();
    let mut table = Table::new(&["packets that came", ">number"]);
    for (outcome, count) in status.packets.iter().filter(|(_, count)| **count > 0) {
        table.row([outcome.clone(), count.to_string()]);
    }
    text += &format!("\n{table}");
    if !status.parents.is_empty() {
        text += &format!("\n{}", parents(&status.parents));
    }
    text + &certificate(status.certificate_seconds)
}

/// `slrctl ports`.
pub fn ports(ports: &[PortRow]) -> String {
    let mut what = Table::new(&["port", "device", "driver", "link", "mac", ">mtu", "vlan", "addresses"]);
    let mut counters =
        Table::new(&["port", ">rx packets", ">rx bytes", ">rx lost", ">tx packets", ">tx bytes", ">tx errors"]);
    for port in ports {
        let numbers = &port.statistics;
        let link = match (numbers.link_up, numbers.speed_mbps) {
            (false, _) => "down".into(),
            (true, None) => "up".into(),
            (true, Some(mbps)) => format!("up, {mbps} Mbit/s"),
        };
        let (name, mtu) = (port.name.clone(), port.mtu.to_string());
        let (device, driver, mac) = (port.device.clone(), port.driver.clone(), port.mac.clone());
        what.row([name.clone(), device, driver, link, mac, mtu, or_dash(port.vlan), list(&port.addresses)]);
        let all = [
            numbers.rx_packets,
            numbers.rx_bytes,
            numbers.rx_lost,
            numbers.tx_packets,
            numbers.tx_bytes,
            numbers.tx_errors,
        ];
        counters.row(std::iter::once(name).chain(all.map(|number| number.to_string())));
    }
    format!("{what}\n{counters}")
}

/// `slrctl services`.
pub fn services(services: &[ServiceRow]) -> String {
    let one = |service: &ServiceRow| {
        let ServiceRow { name, addresses, services, flow, selection, children, regions } = service;
        let (addresses, services) = (list(addresses), list(services));
        let mut table =
            Table::new(&["  child", ">weight", ">tier", ">cost", ">share", "state", ">flows", ">packets", ">bytes"]);
        for child in children {
            let state = match (child.up, child.weight) {
                (false, _) => "down",
                (true, 0) => "draining",
                (true, _) => "up",
            };
            table.row([
                format!("  {}", child.name),
                child.weight.to_string(),
                child.tier.to_string(),
                child.cost.to_string(),
                format!("{:.1} %", child.share * 100.0),
                state.into(),
                child.flows.to_string(),
                child.packets.to_string(),
                child.bytes.to_string(),
            ]);
        }
        let mut text = format!("{name}: {addresses}; {services}; flow {flow}; {selection}\n{table}");
        for RegionRow { name, children } in regions {
            let takers = children.iter().filter(|(_, _, share)| *share > 0.0);
            let takers = takers.map(|(child, cost, share)| format!("{child} {:.1} % at {cost}", share * 100.0));
            let _ = writeln!(text, "  clients in {name}: {}", list(&takers.collect::<Vec<_>>()));
        }
        text
    };
    services.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// `slrctl children`.
pub fn children(children: &[ChildRow]) -> String {
    let head = [
        "child",
        "address",
        "tunnel",
        "port",
        "next hop",
        "neighbour",
        ">mtu",
        ">weight",
        "state",
        ">flows",
        ">packets",
    ];
    let mut table = Table::new(&head);
    for child in children {
        let state = match (child.drained, child.down.is_empty()) {
            (true, _) => "drained".into(),
            (false, true) => "up".into(),
            (false, false) => format!("down for {}", child.down.join(", ")),
        };
        table.row([
            child.name.clone(),
            child.address.to_string(),
            child.tunnel.clone(),
            or_dash(child.port.as_ref()),
            or_dash(child.next_hop),
            child.neighbour.clone(),
            or_dash(child.mtu),
            or_dash(child.weight),
            state,
            child.flows.to_string(),
            child.packets.to_string(),
        ]);
    }
    let mut text = table.to_string();
    let telling = || children.iter().filter_map(|child| Some((child, child.tells.as_ref()?)));
    if telling().next().is_some() {
        let mut table = Table::new(&[
            "child",
            "session",
            ">said ago",
            ">round trip",
            ">subnets",
            ">refused",
            ">certificate",
            "virtual host",
            "state",
            ">load",
            ">capacity",
        ]);
        for (child, tells) in telling() {
            let draining = if tells.draining { ", draining" } else { "" };
            let its = [
                child.name.clone(),
                format!("{}{draining}", tells.state),
                or_dash(tells.age_seconds.map(time)),
                or_dash(tells.round_trip_seconds.map(milliseconds)),
                tells.records.to_string(),
                tells.records_refused.to_string(),
                or_dash(tells.certificate_seconds.map(time)),
            ];
            let mut first = its.to_vec();
            for host in &tells.hosts {
                let load = host.load.map(|load| format!("{:.1} %", load * 100.0));
                let its = std::mem::replace(&mut first, vec![String::new(); its.len()]);
                let of = [host.name.clone(), host.state.clone(), or_dash(load), or_dash(host.capacity)];
                table.row(its.into_iter().chain(of));
            }
            if tells.hosts.is_empty() {
                table.row(first.into_iter().chain(["-"; 4].map(String::from)));
            }
        }
        text += &format!("\n{table}");
    }
    text
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.2} ms", seconds * 1000.0)
}

/// `slrctl recovery`.
pub fn recovery(recovery: &Recovery) -> String {
    let mut counts = Table::new(&["event", ">times"]);
    recovery.counts.iter().for_each(|(event, times)| counts.row([event.clone(), times.to_string()]));
    let mut last = Table::new(&[">ago", "event", "client", "virtual host", "protocol"]);
    for event in &recovery.last {
        let (client, host) = (event.source.to_string(), event.destination.to_string());
        last.row([time(event.age_seconds), event.event.clone(), client, host, event.protocol.clone()]);
    }
    format!("{counts}\n{last}")
}

/// `slrctl ha`.
pub fn pair(pair: &Pair) -> String {
    let Pair { role, seconds, priority, configured_priority, stands_by, missing, addresses, heard, mirror } = pair;
    let mut text = format!("{role} for {}, priority {priority} of {configured_priority}\n", time(*seconds));
    if *stands_by {
        text += "the other router is to be active, an operator said\n";
    }
    for what in missing {
        let _ = writeln!(text, "missing: {what}");
    }
    match mirror {
        Some(mirror) if role == "active" => {
            let (flows, pending, lag) = (mirror.flows, mirror.pending, milliseconds(mirror.lag_seconds));
            let _ = writeln!(text, "{flows} flows told, {pending} pending for {lag}");
        }
        Some(mirror) if mirror.synchronised => text += "all flows of the active router are here\n",
        Some(_) => text += "not all flows of the active router are here\n",
        None => {}
    }
    for (address, mac) in addresses {
        let _ = writeln!(text, "address {address} at {mac}");
    }
    let mut table = Table::new(&["way", ">heard ago", "router", "role", ">priority"]);
    for other in heard {
        let role = if other.active { "active" } else { "not active" };
        let (from, priority) = (other.from.to_string(), other.priority.to_string());
        table.row([other.path.clone(), milliseconds(other.age_seconds), from, role.into(), priority]);
    }
    format!("{text}\n{table}")
}

/// `slrctl parents`.
pub fn parents(parents: &[ParentRow]) -> String {
    let mut table = Table::new(&[
        "parent",
        "address",
        "session",
        ">round trip",
        ">updates",
        ">acknowledged",
        ">attempts",
        "refusal",
    ]);
    for parent in parents {
        table.row([
            parent.name.clone(),
            parent.address.to_string(),
            parent.state.clone(),
            or_dash(parent.round_trip_seconds.map(milliseconds)),
            parent.updates.to_string(),
            parent.acknowledged.to_string(),
            parent.attempts.to_string(),
            or_dash(parent.refusal.as_ref()),
        ]);
    }
    table.to_string()
}

/// `slrctl neighbours`.
pub fn neighbours(neighbours: &[NeighbourRow]) -> String {
    let mut table = Table::new(&["neighbour", "port", "state", "mac"]);
    for one in neighbours {
        table.row([one.address.to_string(), one.port.clone(), one.state.clone(), or_dash(one.mac.as_ref())]);
    }
    table.to_string()
}

/// `slrctl flows`.
pub fn flows(flows: &[FlowRow]) -> String {
    let head = [
        "protocol",
        "source",
        "destination",
        "virtual host",
        "child",
        "state",
        ">packets",
        ">bytes",
        ">age",
        ">idle",
        "worker",
    ];
    let mut table = Table::new(&head);
    let end = |address: &str, port: Option<u16>| match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    };
    for flow in flows {
        table.row([
            or_dash(flow.protocol.as_ref()),
            end(&flow.source, flow.source_port),
            flow.destination.map_or_else(|| "-".into(), |address| end(&address.to_string(), flow.destination_port)),
            or_dash(flow.virtual_host.as_ref()),
            match (&flow.child, flow.shortcut) {
                (Some(child), Some(end)) => format!("{child} > {end}"),
                (child, _) => or_dash(child.as_ref()),
            },
            flow.state.clone(),
            flow.packets.to_string(),
            flow.bytes.to_string(),
            time(flow.age_seconds),
            time(flow.idle_seconds),
            flow.worker.to_string(),
        ]);
    }
    table.to_string()
}

/// `slrctl trace`.
pub fn trace(trace: &Trace) -> String {
    let mut text = String::new();
    for step in &trace.steps {
        text += &format!("{:<13} {}\n", step.step, step.found);
    }
    if let Some(header) = &trace.header {
        let pairs = header.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned());
        text += &format!("{:<13} {}\n", "in front", pairs.collect::<Vec<_>>().join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_it_needs_to_be() {
        let mut table = Table::new(&["name", ">number", "more"]);
        table.row(["a".into(), "1".into(), String::new()]);
        table.row(["longer".into(), "12345678".into(), "x".into()]);
        assert_eq!(table.to_string(), "name      number  more\na              1\nlonger  12345678  x\n");
    }

    #[test]
    fn times_are_in_their_two_largest_units() {
        for (seconds, text) in
            [(0.04, "0.0 s"), (59.9, "59.9 s"), (61.0, "1 min 1 s"), (7_290.0, "2 h 1 min"), (180_000.0, "2 d 2 h")]
        {
            assert_eq!(time(seconds), text);
        }
    }
}
