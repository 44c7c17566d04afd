//! Requests to the kernel over netlink, one at a time, each waiting for its answer.

use std::fmt::Debug;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_packet_sock_diag::{SOCK_DESTROY, SockDiagMessage};
use netlink_sys::protocols::{NETLINK_ROUTE, NETLINK_SOCK_DIAG};
use netlink_sys::{Socket, SocketAddr};

/// Room for what the kernel says in one go.
const BUFFER: usize = 64 << 10;

/// A socket for messages of one family.
pub struct Netlink<M> {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
    of: PhantomData<M>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Longest packet, in bytes.
    pub mtu: u32,
}

impl Netlink<RouteNetlinkMessage> {
    /// For addresses, links and routes.
    pub fn route() -> io::Result<Self> {
        Netlink::open(NETLINK_ROUTE)
    }

    /// The network interfaces of this machine.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        self.list(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
            let RouteNetlinkMessage::NewLink(link) = message else { return };
            let mut found = Link { name: String::new(), index: link.header.index, mtu: 0 };
            for attribute in link.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => found.name = name,
                    LinkAttribute::Mtu(mtu) => found.mtu = mtu,
                    _ => {}
                }
            }
            links.push(found);
        })?;
        Ok(links)
    }
}

impl Netlink<RouteNetlinkMessage> {
    /// The metric of the route that packets to an address take; 0 where the route has none. `None`: there is no route.
    ///
    /// # Errors
    /// What else the kernel says.
    pub fn metric(&mut self, to: IpAddr) -> io::Result<Option<u32>> {
        let mut wanted = RouteMessage::default();
        let (family, length) = if to.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
        (wanted.header.address_family, wanted.header.destination_prefix_length) = (family, length);
        // Without this the kernel says what it has made of the route, which has no metric.
        wanted.header.flags = RouteFlags::FibMatch;
        wanted.attributes.push(RouteAttribute::Destination(to.into()));
        let mut metric = None;
        self.send(RouteNetlinkMessage::GetRoute(wanted), NLM_F_REQUEST | NLM_F_ACK)?;
        let answered = self.receive(&mut |message| {
            let RouteNetlinkMessage::NewRoute(route) = message else { return };
            let priority = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Priority(priority) => Some(*priority),
                _ => None,
            });
            // A route that says that there is none is none.
            metric = (route.header.kind == RouteType::Unicast).then(|| priority.unwrap_or(0));
        });
        match answered {
            Ok(()) => Ok(metric),
            Err(error) if matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Netlink<SockDiagMessage> {
    /// For sockets.
    pub fn sockets() -> io::Result<Self> {
        Netlink::open(NETLINK_SOCK_DIAG)
    }

    /// Hands every TCP socket of either family in one of these states to `each`, with what `more` asks for.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn tcp(
        &mut self,
        states: StateFlags,
        more: ExtensionFlags,
        mut each: impl FnMut(InetResponse),
    ) -> io::Result<()> {
        for (family, socket_id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            let (extensions, states) = (more.clone(), states.clone());
            let request = InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id };
            self.list(SockDiagMessage::InetRequest(request), |message| {
                if let SockDiagMessage::InetResponse(response) = message {
                    each(*response);
                }
            })?;
        }
        Ok(())
    }

    /// Ends a TCP connection, as listed: both programs hear that it was reset.
    ///
    /// # Errors
    /// What the kernel says; not every kernel can.
    pub fn reset(&mut self, family: u8, socket_id: SocketId) -> io::Result<()> {
        let (extensions, states) = (ExtensionFlags::empty(), StateFlags::all());
        let request = InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id };
        let mut packet = self.packet(SockDiagMessage::InetRequest(request), NLM_F_REQUEST | NLM_F_ACK);
        // The same request, for another end.
        packet.header.message_type = SOCK_DESTROY;
        self.send_packet(&packet)?;
        self.receive(&mut |_| ())
    }
}

impl<M: NetlinkSerializable + NetlinkDeserializable + Debug> Netlink<M> {
    fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netlink { socket, buffer: Vec::with_capacity(BUFFER), sequence: 0, of: PhantomData })
    }

    /// Has something changed, with `flags` beside those of every request.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn change(&mut self, message: M, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.receive(&mut |_| ())
    }

    /// Hands everything of a kind to `each`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn list(&mut self, message: M, mut each: impl FnMut(M)) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        self.receive(&mut each)
    }

    fn send(&mut self, message: M, flags: u16) -> io::Result<()> {
        let packet = self.packet(message, flags);
        self.send_packet(&packet)
    }

    fn packet(&mut self, message: M, flags: u16) -> NetlinkMessage<M> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
        packet.header.flags = flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        packet
    }

    fn send_packet(&mut self, packet: &NetlinkMessage<M>) -> io::Result<()> {
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Reads up to the acknowledgement or the end of the list.
    fn receive(&mut self, each: &mut dyn FnMut(M)) -> io::Result<()> {
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            let mut rest = self.buffer.as_slice();
            while !rest.is_empty() {
                let packet = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
                let length = (packet.header.length as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if packet.header.sequence_number != self.sequence {
                    continue;
                }
                match packet.payload {
                    NetlinkPayload::InnerMessage(message) => each(message),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return if error.code.is_none() { Ok(()) } else { Err(error.to_io()) };
                    }
                    _ => {}
                }
            }
        }
    }
}
