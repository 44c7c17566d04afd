//! What is said to a child in a check over a connection or in packets, and which answers are good.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr};

use super::failure::Failure;
use super::stack::Stack;
use crate::clock::Instant;
use crate::config::Request;

/// Most of an HTTP answer that is read to find the end of its header, in bytes.
const HEADER_MAX: usize = 16 << 10;

/// Headers of an HTTP answer at most.
const HEADERS_MAX: usize = 128;

/// What an echo request carries.
const ECHO_DATA: &[u8] = b"slr health check";

/// Buffers of a connection, in bytes: a window of a few segments, and a request.
const RECEIVE_BUFFER: usize = 4096;
const SEND_BUFFER: usize = 2048;

/// Where a check comes from and goes to.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Our address.
    pub own: IpAddr,
    /// Our port or ICMP identifier.
    pub number: u16,
    /// The virtual host's address.
    pub address: IpAddr,
}

/// One check's conversation and how far it has come.
pub enum Conversation {
    /// Waits for the echo of this packet.
    Echo(Ends),
    /// Waits for the answer to this query, from this port.
    Query(Ends, u16, Vec<u8>),
    /// Talks over a connection.
    Stream(Box<Stream>),
}

/// A talk over TCP.
pub struct Stream {
    accepted: bool,
    tls: Option<ClientConnection>,
    http: Option<Http>,
}

struct Http {
    /// What is still to be sent.
    request: Vec<u8>,
    answer: Vec<u8>,
    expect: RangeInclusive<u16>,
}

impl Http {
    fn new(request: &Request) -> Http {
        let Request { path, host, expect, .. } = request;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: slr-health\r\nConnection: close\r\n\r\n");
        Http { request: request.into_bytes(), answer: Vec::new(), expect: expect.clone() }
    }

    /// Says what the answer so far is worth; `None` while its header is incomplete.
    fn judge(&self) -> Option<Result<(), Failure>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&self.answer) {
            Ok(httparse::Status::Complete(_)) => match response.code {
                Some(code) if self.expect.contains(&code) => Some(Ok(())),
                code => Some(Err(Failure::Status(code.unwrap_or(0)))),
            },
            Ok(httparse::Status::Partial) if self.answer.len() > HEADER_MAX => {
                Some(Err(Failure::Http("its header is too long".into())))
            }
            Ok(httparse::Status::Partial) => None,
            Err(error) => Some(Err(Failure::Http(error.to_string()))),
        }
    }
}

/// A connection with somebody's bytes in it, as rustls and we read and write it.
struct Socket<'a>(&'a mut tcp::Socket<'static>);

impl Read for Socket<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.recv_slice(into) {
            Ok(0) if !into.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            Ok(count) => Ok(count),
            Err(_) => Ok(0),
        }
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.send_slice(bytes) {
            Ok(0) if !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            Ok(count) => Ok(count),
            Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a check over TCP is begun.
pub struct Opening<'a> {
    /// Port that is connected to.
    pub port: u16,
    /// TLS, with the name to send and verify.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Request, once connected.
    pub request: Option<&'a Request>,
}

impl Conversation {
    /// An ICMP echo.
    pub fn echo(now: Instant, ends: Ends, seed: u64) -> Result<(Stack, Conversation), Failure> {
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 1], vec![0; 256]);
        let mut stack = Stack::new(now, ends.own, icmp::Socket::new(buffer(), buffer()), seed);
        let (socket, _) = stack.socket::<icmp::Socket>();
        socket.bind(icmp::Endpoint::Ident(ends.number)).map_err(|_| Failure::Unsendable("no identifier"))?;
        let (ident, seq_no, data) = (ends.number, 1, ECHO_DATA);
        let sums = ChecksumCapabilities::default();
        let sent = match (ends.own, ends.address) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                let echo = Icmpv4Repr::EchoRequest { ident, seq_no, data };
                let send = |bytes: &mut [u8]| {
                    echo.emit(&mut Icmpv4Packet::new_unchecked(bytes), &sums);
                    echo.buffer_len()
                };
                socket.send_with(echo.buffer_len(), ends.address.into(), send)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let echo = Icmpv6Repr::EchoRequest { ident, seq_no, data };
                let send = |bytes: &mut [u8]| {
                    echo.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(bytes), &sums);
                    echo.buffer_len()
                };
                socket.send_with(echo.buffer_len(), ends.address.into(), send)
            }
            _ => return Err(Failure::Unsendable("two families")),
        };
        sent.map_err(|_| Failure::Unsendable("no room"))?;
        Ok((stack, Conversation::Echo(ends)))
    }

    /// A DNS query for records of type `record` of `name`, sent to `port`.
    pub fn query(
        now: Instant,
        ends: Ends,
        (port, name, record): (u16, &str, u16),
        seed: u64,
    ) -> Result<(Stack, Conversation), Failure> {
        use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, TYPE};
        let unsendable = |_| Failure::Unsendable("the name does not fit into a query");
        let mut packet = Packet::new_query(seed as u16);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new(name).map_err(unsendable)?;
        packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::from(record)), CLASS::IN.into(), false));
        let query = packet.build_bytes_vec().map_err(unsendable)?;

        let buffer = |size| udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 1], vec![0; size]);
        let mut stack = Stack::new(now, ends.own, udp::Socket::new(buffer(1500), buffer(512)), seed);
        let (socket, _) = stack.socket::<udp::Socket>();
        socket.bind((ends.own, ends.number)).map_err(|_| Failure::Unsendable("no port"))?;
        socket.send_slice(&query, (ends.address, port)).map_err(|_| Failure::Unsendable("no room"))?;
        Ok((stack, Conversation::Query(ends, port, query)))
    }

    /// A connection.
    pub fn stream(
        now: Instant,
        ends: Ends,
        Opening { port, tls, request }: Opening<'_>,
        seed: u64,
    ) -> Result<(Stack, Conversation), Failure> {
        let buffer = |size| tcp::SocketBuffer::new(vec![0; size]);
        let mut stack = Stack::new(now, ends.own, tcp::Socket::new(buffer(RECEIVE_BUFFER), buffer(SEND_BUFFER)), seed);
        let (socket, context) = stack.socket::<tcp::Socket>();
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket
            .connect(context, (ends.address, port), (ends.own, ends.number))
            .map_err(|_| Failure::Unsendable("no way to connect"))?;
        let tls = tls.map(|(config, name)| ClientConnection::new(config, name)).transpose();
        let tls = tls.map_err(|error| Failure::Tls(error.to_string()))?;
        let stream = Stream { accepted: false, tls, http: request.map(Http::new) };
        Ok((stack, Conversation::Stream(Box::new(stream))))
    }

    /// Goes on as far as what has arrived allows; how it has ended, once it has.
    pub fn go_on(&mut self, stack: &mut Stack) -> Option<Result<(), Failure>> {
        match self {
            Conversation::Echo(ends) => hear_echo(stack, ends),
            Conversation::Query(ends, port, query) => hear_answer(stack, ends, *port, query),
            Conversation::Stream(stream) => stream.go_on(stack.socket::<tcp::Socket>().0),
        }
    }

    /// Ends it; what there is to say about that leaves with the next poll.
    pub fn end(&self, stack: &mut Stack) {
        if let Conversation::Stream(_) = self {
            stack.socket::<tcp::Socket>().0.abort();
        }
    }
}

fn hear_echo(stack: &mut Stack, ends: &Ends) -> Option<Result<(), Failure>> {
    let sums = ChecksumCapabilities::ignored();
    let (socket, _) = stack.socket::<icmp::Socket>();
    let (bytes, from) = socket.recv().ok()?;
    let good = match (ends.own, ends.address) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let packet = Icmpv4Packet::new_checked(bytes).ok()?;
            let reply = Icmpv4Repr::parse(&packet, &sums).ok()?;
            reply == Icmpv4Repr::EchoReply { ident: ends.number, seq_no: 1, data: ECHO_DATA }
        }
        (IpAddr::V6(own), IpAddr::V6(address)) => {
            let packet = Icmpv6Packet::new_checked(bytes).ok()?;
            let reply = Icmpv6Repr::parse(&address, &own, &packet, &sums).ok()?;
            reply == Icmpv6Repr::EchoReply { ident: ends.number, seq_no: 1, data: ECHO_DATA }
        }
        _ => false,
    };
    // Something else with our identifier is no answer, and says nothing about the child.
    (good && from == ends.address.into()).then_some(Ok(()))
}

fn hear_answer(stack: &mut Stack, ends: &Ends, port: u16, query: &[u8]) -> Option<Result<(), Failure>> {
    use simple_dns::{PacketFlag, RCODE, header_buffer};
    let (socket, _) = stack.socket::<udp::Socket>();
    let (answer, meta) = socket.recv().ok()?;
    if meta.endpoint != (ends.address, port).into() {
        return None;
    }
    // RFC 5452 section 9.1: an answer is known by its identifier and question.
    let (question, identifier) = (&query[12..], &query[..2]);
    if !(answer.starts_with(identifier) && answer.get(12..).is_some_and(|rest| rest.starts_with(question))) {
        return None;
    }
    let response = header_buffer::has_flags(answer, PacketFlag::RESPONSE);
    match (response, header_buffer::rcode(answer)) {
        (Ok(true), Ok(RCODE::NoError)) => Some(Ok(())),
        (Ok(true), Ok(code)) => Some(Err(Failure::Dns(format!("the answer is {code:?}")))),
        _ => None,
    }
}

impl Stream {
    fn go_on(&mut self, socket: &mut tcp::Socket<'static>) -> Option<Result<(), Failure>> {
        if !self.accepted {
            if !socket.is_open() {
                return Some(Err(Failure::Refused));
            }
            self.accepted = socket.may_send();
            if !self.accepted {
                return None;
            }
        }
        let ended = match (&mut self.tls, &mut self.http) {
            (None, None) => return Some(Ok(())),
            (None, Some(http)) => http.exchange(&mut Socket(socket)),
            (Some(tls), http) => go_on_with_tls(tls, http.as_mut(), socket),
        };
        if let Some(result) = ended {
            return Some(result);
        }
        // Everything has been read.
        let over = !socket.may_recv() && !socket.can_recv();
        over.then_some(Err(Failure::Closed))
    }
}

impl Http {
    /// Sends what there is room for and reads what there is; how the check has ended, once it has.
    fn exchange(&mut self, connection: &mut (impl Read + Write)) -> Option<Result<(), Failure>> {
        while let Ok(count @ 1..) = connection.write(&self.request) {
            self.request.drain(..count);
        }
        let mut bytes = [0; 2048];
        while let Ok(count @ 1..) = connection.read(&mut bytes) {
            self.answer.extend_from_slice(&bytes[..count]);
            if let Some(result) = self.judge() {
                return Some(result);
            }
        }
        None
    }
}

fn go_on_with_tls(
    tls: &mut ClientConnection,
    mut http: Option<&mut Http>,
    socket: &mut tcp::Socket<'static>,
) -> Option<Result<(), Failure>> {
    loop {
        let read = match socket.can_recv() && tls.wants_read() {
            true => tls.read_tls(&mut Socket(socket)).unwrap_or(0),
            false => 0,
        };
        let processed = tls.process_new_packets().map(|_| ());
        // Also what is wrong is said, as an alert.
        while tls.wants_write() && tls.write_tls(&mut Socket(socket)).is_ok_and(|count| count > 0) {}
        if let Err(error) = processed {
            return Some(Err(Failure::Tls(error.to_string())));
        }
        if !tls.is_handshaking() {
            match &mut http {
                None => return Some(Ok(())),
                Some(http) => {
                    if let Some(result) = http.exchange(&mut Plain(tls)) {
                        return Some(result);
                    }
                    while tls.wants_write() && tls.write_tls(&mut Socket(socket)).is_ok_and(|count| count > 0) {}
                }
            }
        }
        if read == 0 {
            return None;
        }
    }
}

/// What is inside TLS.
struct Plain<'a>(&'a mut ClientConnection);

impl Read for Plain<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.reader().read(into)
    }
}

impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
