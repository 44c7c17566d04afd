//! What a router does a second: the difference of two answers, as numbers, as text, and as a view that refreshes.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::Paragraph;
use serde::{Deserialize, Serialize};

use super::client::{AskError, Client};
use super::request::Request;
use super::response::Counters;
use super::show::Table;
use crate::metrics::report::Traffic;

/// From one look at the counters to the next.
const INTERVAL: Duration = Duration::from_secs(1);

/// What happens a second, everywhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// The router's name.
    pub name: String,
    /// Time that was looked at.
    pub seconds: f64,
    /// Flow entries held.
    pub flows: u64,
    /// Ports.
    pub ports: Vec<PortRates>,
    /// Workers.
    pub workers: Vec<WorkerRates>,
    /// Virtual hosts.
    pub virtual_hosts: Vec<ServiceRates>,
    /// Packets dropped a second, by reason; reasons without packets are left out.
    pub dropped: BTreeMap<String, f64>,
}

/// A port's packets and bits a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortRates {
    /// Its name.
    pub name: String,
    /// True while its link is up.
    pub up: bool,
    /// Packets received.
    pub rx_packets: f64,
    /// Bits received.
    pub rx_bits: f64,
    /// Packets lost on reception.
    pub rx_lost: f64,
    /// Packets sent.
    pub tx_packets: f64,
    /// Bits sent.
    pub tx_bits: f64,
}

/// A worker's packets a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerRates {
    /// Its number.
    pub worker: usize,
    /// Received.
    pub received: f64,
    /// Forwarded.
    pub forwarded: f64,
    /// Punted.
    pub punted: f64,
    /// Dropped.
    pub dropped: f64,
    /// New flows.
    pub new_flows: f64,
    /// Flow entries held.
    pub flows: u64,
}

/// What goes to a virtual host or child a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceRates {
    /// Its name.
    pub name: String,
    /// Packets.
    pub packets: f64,
    /// Bits of IP packets as the clients sent them.
    pub bits: f64,
    /// New flows.
    pub new_flows: f64,
    /// What of it goes to each child.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<ServiceRates>,
}

impl Rates {
    /// What happened from `before` to `after`.
    pub fn between(before: &Counters, after: &Counters) -> Rates {
        let seconds = (after.report.seconds - before.report.seconds).max(0.001);
        // A counter that starts again counts from zero.
        let rate =
            |before: u64, after: u64| after.saturating_sub(if after < before { 0 } else { before }) as f64 / seconds;
        let named = |name: &str, before: Traffic, after: Traffic, children| ServiceRates {
            name: name.to_owned(),
            packets: rate(before.packets, after.packets),
            bits: rate(before.bytes, after.bytes) * 8.0,
            new_flows: rate(before.flows, after.flows),
            children,
        };
        let port = |(name, now): &(String, crate::metrics::collector::PortStatistics)| {
            let then = before.ports.iter().find(|(known, _)| known == name).map(|(_, then)| *then).unwrap_or_default();
            PortRates {
                name: name.clone(),
                up: now.link_up,
                rx_packets: rate(then.rx_packets, now.rx_packets),
                rx_bits: rate(then.rx_bytes, now.rx_bytes) * 8.0,
                rx_lost: rate(then.rx_lost, now.rx_lost),
                tx_packets: rate(then.tx_packets, now.tx_packets),
                tx_bits: rate(then.tx_bytes, now.tx_bytes) * 8.0,
            }
        };
        let dropped = |packets: &crate::metrics::report::PacketReport| packets.dropped.values().sum::<u64>();
        let workers = after.report.workers.iter().zip(&before.report.workers).map(|(now, then)| WorkerRates {
            worker: now.worker,
            received: rate(then.packets.rx, now.packets.rx),
            forwarded: rate(then.packets.forwarded, now.packets.forwarded),
            punted: rate(then.packets.punted, now.packets.punted),
            dropped: rate(dropped(&then.packets), dropped(&now.packets)),
            new_flows: rate(then.flows.inserted, now.flows.inserted),
            flows: now.flows.active,
        });
        let hosts = after.report.virtual_hosts.iter().map(|now| {
            let then = before.report.virtual_hosts.iter().find(|then| then.name == now.name);
            let children = now.children.iter().map(|now| {
                let then = then.and_then(|then| then.children.iter().find(|then| then.name == now.name));
                named(&now.name, then.map(|then| then.traffic).unwrap_or_default(), now.traffic, Vec::new())
            });
            let traffic = then.map(|then| then.traffic).unwrap_or_default();
            named(&now.name, traffic, now.traffic, children.collect())
        });
        let drops = after.report.packets.dropped.iter().map(|(reason, now)| {
            (reason.to_string(), rate(before.report.packets.dropped.get(reason).copied().unwrap_or(0), *now))
        });
        Rates {
            name: after.name.clone(),
            seconds,
            flows: after.report.flows.active,
            ports: after.ports.iter().map(port).collect(),
            workers: workers.collect(),
            virtual_hosts: hosts.collect(),
            dropped: drops.filter(|(_, rate)| *rate > 0.0).collect(),
        }
    }

    /// The rates as tables.
    pub fn text(&self) -> String {
        let mut ports =
            Table::new(&["port", "link", ">rx packets/s", ">rx bit/s", ">rx lost/s", ">tx packets/s", ">tx bit/s"]);
        for port in &self.ports {
            let rates = [port.rx_packets, port.rx_bits, port.rx_lost, port.tx_packets, port.tx_bits];
            let link = if port.up { "up" } else { "down" };
            ports.row([port.name.clone(), link.into()].into_iter().chain(rates.map(short)));
        }
        let mut workers =
            Table::new(&["worker", ">received/s", ">forwarded/s", ">punted/s", ">dropped/s", ">new flows/s", ">flows"]);
        for worker in &self.workers {
            let rates = [worker.received, worker.forwarded, worker.punted, worker.dropped, worker.new_flows];
            let cells = std::iter::once(worker.worker.to_string()).chain(rates.map(short));
            workers.row(cells.chain([worker.flows.to_string()]));
        }
        let mut hosts = Table::new(&["virtual host / child", ">packets/s", ">bit/s", ">new flows/s"]);
        for host in &self.virtual_hosts {
            let row = |name: String, rates: &ServiceRates| {
                std::iter::once(name).chain([rates.packets, rates.bits, rates.new_flows].map(short))
            };
            hosts.row(row(host.name.clone(), host));
            host.children.iter().for_each(|child| hosts.row(row(format!("  {}", child.name), child)));
        }
        let mut text = format!("{}: {} flows\n\n{ports}\n{workers}\n{hosts}", self.name, self.flows);
        if !self.dropped.is_empty() {
            let mut drops = Table::new(&["dropped for", ">packets/s"]);
            self.dropped.iter().for_each(|(reason, rate)| drops.row([reason.clone(), short(*rate)]));
            text += &format!("\n{drops}");
        }
        text
    }
}

/// A number of at most four digits, with the prefix of its size.
fn short(number: f64) -> String {
    let (mut number, mut prefixes) = (number, ["", " k", " M", " G", " T"].into_iter());
    let mut prefix = prefixes.next().unwrap_or_default();
    while number >= 999.5 {
        let Some(next) = prefixes.next() else { break };
        (number, prefix) = (number / 1000.0, next);
    }
    match number {
        _ if number == 0.0 => "0".into(),
        10.0.. => format!("{number:.0}{prefix}"),
        _ => format!("{number:.1}{prefix}"),
    }
}

/// One look, over a second.
///
/// # Errors
/// The router does not answer.
pub fn once(client: &mut Client) -> Result<Rates, AskError> {
    let before: Counters = client.ask(&Request::Counters)?;
    thread::sleep(INTERVAL);
    Ok(Rates::between(&before, &client.ask(&Request::Counters)?))
}

/// The view that refreshes until somebody presses q. Where standard output is no terminal: one look, as text.
///
/// # Errors
/// The router does not answer, or the terminal does not work.
pub fn run(client: &mut Client) -> Result<(), AskError> {
    if !io::stdout().is_terminal() {
        print!("{}", once(client)?.text());
        return Ok(());
    }
    let mut before: Counters = client.ask(&Request::Counters)?;
    let mut text = format!("{}: a moment", before.name);
    let mut terminal = ratatui::try_init()?;
    let mut line = 0_u16;
    let outcome = (|| {
        let mut looked = Instant::now();
        loop {
            terminal
                .draw(|frame| frame.render_widget(Paragraph::new(styled(&text)).scroll((line, 0)), frame.area()))?;
            if event::poll(INTERVAL.saturating_sub(looked.elapsed()))?
                && let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
            {
                let last = text.lines().count().saturating_sub(1) as u16;
                match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                    KeyCode::Down => line = (line + 1).min(last),
                    KeyCode::PageDown => line = (line + 20).min(last),
                    KeyCode::Up => line = line.saturating_sub(1),
                    KeyCode::PageUp => line = line.saturating_sub(20),
                    _ => {}
                }
            }
            if looked.elapsed() >= INTERVAL {
                let after: Counters = client.ask(&Request::Counters)?;
                text = Rates::between(&before, &after).text() + "\nq ends, arrows scroll\n";
                (before, looked) = (after, Instant::now());
            }
        }
    })();
    ratatui::restore();
    outcome
}

/// The text with its headings in bold: the first line, and each after an empty one.
fn styled(text: &str) -> Text<'_> {
    let mut heading = true;
    let line = |text| {
        let style = if heading { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        heading = str::is_empty(text);
        Line::styled(text, style)
    };
    text.lines().map(line).collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_prefix_of_their_size() {
        for (number, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (9.94, "9.9"),
            (99.9, "100"),
            (999.4, "999"),
            (999.6, "1.0 k"),
            (12_345.0, "12 k"),
            (2.5e6, "2.5 M"),
            (4e10, "40 G"),
            (7e15, "7000 T"),
        ] {
            assert_eq!(short(number), text, "{number}");
        }
    }

    #[test]
    fn headings_are_bold() {
        let text = styled("a\nb\n\nc\nd");
        let bold = text.lines.iter().map(|line| line.style.add_modifier.contains(Modifier::BOLD));
        assert_eq!(bold.collect::<Vec<_>>(), [true, false, false, true, false]);
    }
}
