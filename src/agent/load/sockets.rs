//! Connections and accept queues of each virtual host, as the kernel lists them (sock_diag).

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{TCP_ESTABLISHED, TCP_LISTEN};
use netlink_packet_sock_diag::inet::{ExtensionFlags, StateFlags};

use crate::agent::prefixes::Prefixes;
use crate::config::host::HostedService;
use crate::netlink::Netlink;
use crate::packet::protocol::TCP;

/// States of connections that clients have begun and that are not over.
const CONNECTIONS: StateFlags = StateFlags::all()
    .difference(StateFlags::TIME_WAIT.union(StateFlags::CLOSE).union(StateFlags::SYN_SENT).union(StateFlags::LISTEN));

/// Resets the connections to addresses that this machine is about to give back: nobody answers them any more, and the next
/// agent would take them for its own and wait for their end. Says how many there were.
///
/// # Errors
/// What the kernel says.
pub fn reset(addresses: &[IpNet]) -> io::Result<usize> {
    let mut netlink = Netlink::sockets()?;
    let mut left = Vec::new();
    netlink.tcp(CONNECTIONS, ExtensionFlags::empty(), |response| {
        let header = response.header;
        let address = header.socket_id.source_address.to_canonical();
        if addresses.iter().any(|net| net.contains(&address)) {
            left.push((header.family, header.socket_id));
        }
    })?;
    let count = left.len();
    for (family, id) in left {
        match netlink.reset(family, id) {
            // It has ended by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(count)
}

/// What the sockets of a virtual host come to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    /// Established TCP connections.
    pub established: u32,
    /// Connections that are not over: those, and such as are being made or closed.
    pub open: u32,
    /// The fullest accept queue: waiting connections per place, 0 to 1.
    pub queue: f64,
}

/// A socket, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    state: u8,
    address: IpAddr,
    port: u16,
    /// Of a listening socket: connections that wait to be accepted, and how many may.
    waiting: (u32, u32),
}

/// Who the virtual hosts are, and what was counted for each the last time.
pub struct Sockets {
    netlink: Netlink<SockDiagMessage>,
    owners: Owners,
    counts: Vec<Count>,
}

/// Which virtual hosts a socket belongs to.
struct Owners {
    /// For each prefix, virtual hosts that have it.
    of_prefix: Vec<Vec<usize>>,
    /// For each virtual host, its ports of TCP.
    ports: Vec<Vec<std::ops::RangeInclusive<u16>>>,
}

impl Sockets {
    /// The sockets of these virtual hosts, whose prefixes have these numbers.
    ///
    /// # Errors
    /// The kernel lists no sockets.
    pub fn new(hosts: &[HostedService], prefixes: &Prefixes, numbers: &[Vec<usize>]) -> io::Result<Sockets> {
        let owners = Owners::new(hosts, prefixes, numbers);
        Ok(Sockets { netlink: Netlink::sockets()?, owners, counts: vec![Count::default(); hosts.len()] })
    }

    /// What was counted for a virtual host.
    pub fn of(&self, host: usize) -> Count {
        self.counts[host]
    }

    /// Connections of all virtual hosts that are not over.
    pub fn open(&self) -> u32 {
        self.counts.iter().map(|count| count.open).sum()
    }

    /// Counts anew.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn count(&mut self, prefixes: &Prefixes) -> io::Result<()> {
        self.counts.fill(Count::default());
        let (owners, counts) = (&self.owners, &mut self.counts);
        self.netlink.tcp(CONNECTIONS | StateFlags::LISTEN, ExtensionFlags::empty(), |response| {
            let header = &response.header;
            let (address, port) = (header.socket_id.source_address, header.socket_id.source_port);
            let waiting = (header.recv_queue, header.send_queue);
            owners.count(Socket { state: header.state, address, port, waiting }, prefixes, counts);
        })
    }
}

impl Owners {
    fn new(hosts: &[HostedService], prefixes: &Prefixes, numbers: &[Vec<usize>]) -> Owners {
        let mut of_prefix = vec![Vec::new(); prefixes.len()];
        for (host, numbers) in numbers.iter().enumerate() {
            numbers.iter().for_each(|number| of_prefix[*number].push(host));
        }
        let ports = hosts.iter().map(|host| {
            let tcp = host.services.iter().filter(|service| service.protocol.is_none_or(|protocol| protocol == TCP));
            tcp.map(|service| service.ports.clone()).collect()
        });
        Owners { of_prefix, ports: ports.collect() }
    }

    fn count(&self, socket: Socket, prefixes: &Prefixes, counts: &mut [Count]) {
        let has_port = |host: &usize| self.ports[*host].iter().any(|ports| ports.contains(&socket.port));
        // IPv4 in sockets of IPv6 (RFC 4291 section 2.5.5.2).
        let address = socket.address.to_canonical();
        if socket.state == TCP_LISTEN {
            let (waiting, places) = socket.waiting;
            let full = if places == 0 { 0.0 } else { (f64::from(waiting) / f64::from(places)).min(1.0) };
            let mut at = |host: usize| counts[host].queue = counts[host].queue.max(full);
            match (address.is_unspecified(), prefixes.find(address)) {
                (true, _) => (0..self.ports.len()).filter(has_port).for_each(&mut at),
                (false, Some(prefix)) => self.of_prefix[prefix].iter().copied().filter(has_port).for_each(&mut at),
                (false, None) => {}
            }
            return;
        }
        let Some(prefix) = prefixes.find(address) else { return };
        for host in self.of_prefix[prefix].iter().copied().filter(has_port) {
            counts[host].open += 1;
            counts[host].established += u32::from(socket.state == TCP_ESTABLISHED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::host::HostConfig;

    const CONFIG: &str = "
agent: { name: h, tunnel_addresses: [10.0.0.1] }
interfaces: [eth0]
routers: [10.0.0.2]
virtual_hosts:
  - { name: web, addresses: [192.0.2.80, \"2001:db8::/64\"], services: [tcp/80, tcp/443] }
  - { name: mail, addresses: [192.0.2.80], services: [tcp/25] }
  - { name: dns, addresses: [192.0.2.53], services: [udp/53] }
";

    fn socket(state: u8, address: &str, port: u16, waiting: (u32, u32)) -> Socket {
        Socket { state, address: address.parse().expect("an address"), port, waiting }
    }

    #[test]
    fn a_socket_counts_for_the_virtual_hosts_with_its_address_and_port() {
        const FIN_WAIT1: u8 = 4;
        let hosts = HostConfig::parse(CONFIG, "test").expect("a configuration").virtual_hosts;
        let (prefixes, numbers) = Prefixes::new(&hosts);
        let owners = Owners::new(&hosts, &prefixes, &numbers);
        let count = |established, open, queue| Count { established, open, queue };
        let none = count(0, 0, 0.0);
        // A socket, and what it adds to web and mail; dns has no TCP.
        for (one, web, mail) in [
            (socket(TCP_ESTABLISHED, "192.0.2.80", 80, (9, 9)), count(1, 1, 0.0), none),
            (socket(TCP_ESTABLISHED, "::ffff:192.0.2.80", 443, (0, 0)), count(1, 1, 0.0), none),
            (socket(FIN_WAIT1, "2001:db8::7", 80, (0, 0)), count(0, 1, 0.0), none),
            (socket(TCP_ESTABLISHED, "192.0.2.80", 25, (0, 0)), none, count(1, 1, 0.0)),
            (socket(TCP_ESTABLISHED, "192.0.2.81", 80, (0, 0)), none, none),
            (socket(TCP_ESTABLISHED, "192.0.2.80", 22, (0, 0)), none, none),
            (socket(TCP_ESTABLISHED, "192.0.2.53", 53, (0, 0)), none, none),
            (socket(TCP_LISTEN, "0.0.0.0", 80, (64, 128)), count(0, 0, 0.5), none),
            (socket(TCP_LISTEN, "::", 25, (500, 128)), none, count(0, 0, 1.0)),
            (socket(TCP_LISTEN, "192.0.2.80", 443, (0, 128)), none, none),
            (socket(TCP_LISTEN, "10.0.0.1", 80, (64, 128)), none, none),
        ] {
            let mut counts = vec![Count::default(); 3];
            owners.count(one, &prefixes, &mut counts);
            assert_eq!(counts, [web, mail, none], "{one:?}");
        }
    }
}
