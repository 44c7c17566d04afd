//! Sessions over TLS 1.3 with certificates on both sides: who comes this far has a certificate of the authority.
//!
//! ```text
//! listener ─► handshake (5 s, few at a time for each address) ─┐
//! connect ──► handshake (5 s) ─────────────────────────────────┴─► a task for each session ─► Happening
//!                                                                  ◄── bytes ──
//! ```
//!
//! Sessions are never resumed and take no early data, so that none can be replayed.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::control::session::{Carrier, Happening, Identity, SessionId};
use crate::trust::{Credentials, SERVER_NAME};

/// How long a connection and its handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Handshakes under way at most: in all, and from one address.
const HANDSHAKES: (usize, usize) = (1024, 16);

/// How long a peer may take to take what is sent.
const SENDING: Duration = Duration::from_secs(10);

/// How long, and how many bytes of, what a session still sends is thrown away once we have closed it: were it not read, the
/// system would reset the connection and what we said last could be lost.
const LINGER: (Duration, usize) = (Duration::from_millis(500), 4 << 20);

/// How long what is said last may take to leave, when the process ends.
pub const LEAVING: Duration = Duration::from_millis(200);

/// Messages that wait to be sent in one session.
const OUTBOX: usize = 256;

/// Happenings that wait to be taken in; sessions wait for each other then.
const HAPPENINGS: usize = 256;

/// Bytes that are read in one go.
const READ: usize = 64 << 10;

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Certificate and key, or the authority.
    #[error("certificate, key and authority do not fit: {0}; make them with slrctl ca init and slrctl ca issue")]
    Credentials(String),
    /// The listener.
    #[error("cannot listen for children: {0}")]
    Listen(#[from] io::Error),
}

enum Event {
    /// The flag says that we have dialled.
    Opened(SessionId, Identity, Sender<Vec<u8>>, bool),
    Other(Happening),
}

/// The carrier. Lives in a tokio runtime.
pub struct Tls {
    connector: TlsConnector,
    sender: Sender<Event>,
    events: Receiver<Event>,
    /// The event that [`Tls::happens`] has found.
    next: Option<Event>,
    sessions: HashMap<SessionId, Sender<Vec<u8>>>,
    /// Connections on their way.
    dials: HashMap<SessionId, AbortHandle>,
    /// Sessions that did not take what was sent.
    stuck: VecDeque<SessionId>,
    numbers: Arc<AtomicU64>,
    /// By what sessions that come are taken.
    server: Arc<ArcSwap<ServerConfig>>,
    accepting: Option<AbortHandle>,
}

/// What [`Tls::renew`] takes over: credentials that have been found to fit.
pub struct Renewal(Configurations);

impl Renewal {
    /// From credentials that were read anew.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(credentials: &Credentials) -> Result<Renewal, TlsError> {
        configurations(credentials).map(Renewal).map_err(TlsError::Credentials)
    }
}

impl Tls {
    /// A carrier of a node with `credentials`, which takes sessions at `listener`.
    ///
    /// # Errors
    /// What is wrong with either.
    pub fn new(credentials: &Credentials, listener: Option<std::net::TcpListener>) -> Result<Tls, TlsError> {
        let Renewal((client, server)) = Renewal::new(credentials)?;
        let server = Arc::new(ArcSwap::new(server));
        let (sender, events) = mpsc::channel(HAPPENINGS);
        let numbers = Arc::new(AtomicU64::new(1));
        let accepting = match listener {
            Some(listener) => {
                let listener = TcpListener::from_std(listener)?;
                let serving = accept(listener, server.clone(), sender.clone(), numbers.clone());
                Some(tokio::spawn(serving).abort_handle())
            }
            None => None,
        };
        Ok(Tls {
            connector: TlsConnector::from(client),
            sender,
            events,
            next: None,
            sessions: HashMap::new(),
            dials: HashMap::new(),
            stuck: VecDeque::new(),
            numbers,
            server,
            accepting,
        })
    }

    /// Shows other credentials from now on, and believes others. Sessions that are up stay.
    pub fn renew(&mut self, Renewal((client, server)): Renewal) {
        self.connector = TlsConnector::from(client);
        self.server.store(server);
    }

    /// Waits until something has happened, which [`Carrier::poll`] then tells.
    pub async fn happens(&mut self) {
        if self.next.is_none() && self.stuck.is_empty() {
            self.next = self.events.recv().await;
        }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.accepting.iter().chain(self.dials.values()).for_each(AbortHandle::abort);
    }
}

impl Carrier for Tls {
    type Address = SocketAddr;

    fn connect(&mut self, to: &SocketAddr) -> SessionId {
        let id = SessionId(self.numbers.fetch_add(1, Ordering::Relaxed));
        let (connector, sender, to) = (self.connector.clone(), self.sender.clone(), *to);
        let task = tokio::spawn(async move {
            let name = ServerName::try_from(SERVER_NAME).expect("a constant that is a DNS name");
            let connected = timeout(HANDSHAKE, async {
                let stream = TcpStream::connect(to).await?;
                stream.set_nodelay(true)?;
                connector.connect(name, stream).await
            });
            let stream = match connected.await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return closed(&sender, id, plain(&error)).await,
                Err(_) => return closed(&sender, id, format!("no handshake with {to} in {HANDSHAKE:?}")).await,
            };
            match identity(stream.get_ref().1.peer_certificates()) {
                Ok(identity) => carry(id, identity, stream, sender, true).await,
                Err(why) => closed(&sender, id, format!("the certificate of {to} {why}")).await,
            }
        });
        self.dials.insert(id, task.abort_handle());
        id
    }

    fn send(&mut self, session: SessionId, bytes: Vec<u8>) {
        let Some(outbox) = self.sessions.get(&session) else { return };
        match outbox.try_send(bytes) {
            // A session that has ended tells so, after what came before its end.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.sessions.remove(&session);
                self.stuck.push_back(session);
            }
        }
    }

    fn close(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        if let Some(dial) = self.dials.remove(&session) {
            dial.abort();
        }
    }

    fn poll(&mut self) -> Option<Happening> {
        if let Some(session) = self.stuck.pop_front() {
            return Some(Happening::Closed(session, "it does not take what is sent".into()));
        }
        loop {
            match self.next.take().or_else(|| self.events.try_recv().ok())? {
                Event::Opened(id, identity, outbox, dialled) => {
                    // It may have been closed meanwhile; the task ends when its outbox is dropped.
                    if self.dials.remove(&id).is_none() && dialled {
                        continue;
                    }
                    self.sessions.insert(id, outbox);
                    return Some(Happening::Opened(id, identity));
                }
                Event::Other(Happening::Closed(id, why)) => {
                    let known = self.sessions.remove(&id).is_some() | self.dials.remove(&id).is_some();
                    if known {
                        return Some(Happening::Closed(id, why));
                    }
                }
                Event::Other(Happening::Received(id, bytes)) => {
                    if self.sessions.contains_key(&id) {
                        return Some(Happening::Received(id, bytes));
                    }
                }
                Event::Other(other) => return Some(other),
            }
        }
    }
}

type Configurations = (Arc<ClientConfig>, Arc<ServerConfig>);

fn configurations(credentials: &Credentials) -> Result<Configurations, String> {
    let provider = Arc::new(ring::default_provider());
    let Credentials { chain, key, authority, .. } = credentials;
    let text = |error: rustls::Error| error.to_string();
    let verifier = WebPkiClientVerifier::builder_with_provider(authority.clone(), provider.clone()).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13]);
    let server = server.map_err(text)?.with_client_cert_verifier(verifier);
    let mut server = server.with_single_cert(chain.clone(), key.clone_key()).map_err(text)?;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).map_err(text)?;
    let client = client.with_root_certificates(authority.clone());
    let mut client = client.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(text)?;
    client.resumption = Resumption::disabled();
    Ok((Arc::new(client), Arc::new(server)))
}

/// Handshakes under way, by address.
type Pending = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// A handshake's place among the others.
struct Place(Pending, IpAddr);

impl Place {
    fn take(pending: &Pending, address: IpAddr) -> Option<Place> {
        let mut all = pending.lock().unwrap_or_else(PoisonError::into_inner);
        let sum: usize = all.values().sum();
        let here = all.get(&address).copied().unwrap_or(0);
        if sum >= HANDSHAKES.0 || here >= HANDSHAKES.1 {
            return None;
        }
        all.insert(address, here + 1);
        Some(Place(pending.clone(), address))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.1);
            }
        }
    }
}

async fn accept(
    listener: TcpListener,
    server: Arc<ArcSwap<ServerConfig>>,
    sender: Sender<Event>,
    numbers: Arc<AtomicU64>,
) {
    let pending = Pending::default();
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            // No file descriptors left, for example: some may be free later.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, sender, numbers) = (TlsAcceptor::from(server.load_full()), sender.clone(), numbers.clone());
        let Some(place) = Place::take(&pending, from.ip()) else {
            // Without waiting: whoever comes so often is told of often enough.
            let _ = sender.try_send(rejected(from, "too many handshakes at a time"));
            continue;
        };
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let why = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    drop(place);
                    match identity(stream.get_ref().1.peer_certificates()) {
                        Ok(identity) => {
                            let id = SessionId(numbers.fetch_add(1, Ordering::Relaxed));
                            return carry(id, identity, stream, sender, false).await;
                        }
                        Err(why) => format!("its certificate {why}"),
                    }
                }
                Ok(Err(error)) => plain(&error),
                Err(_) => format!("no handshake in {HANDSHAKE:?}"),
            };
            let _ = sender.send(rejected(from, &why)).await;
        });
    }
}

fn rejected(from: SocketAddr, why: &str) -> Event {
    Event::Other(Happening::Rejected(format!("{from}: {why}")))
}

fn identity(certificates: Option<&[CertificateDer<'_>]>) -> Result<Identity, String> {
    let certificate = certificates.and_then(<[_]>::first).ok_or("is missing")?;
    Identity::of(certificate).map_err(|error| error.to_string())
}

async fn closed(sender: &Sender<Event>, id: SessionId, why: String) {
    let _ = sender.send(Event::Other(Happening::Closed(id, why))).await;
}

/// What an error says, in one line.
fn plain(error: &io::Error) -> String {
    error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// Carries a session until one of its ends closes it.
async fn carry<S: AsyncRead + AsyncWrite + Unpin>(
    id: SessionId,
    identity: Identity,
    mut stream: S,
    sender: Sender<Event>,
    dialled: bool,
) {
    let (outbox, mut waiting) = mpsc::channel::<Vec<u8>>(OUTBOX);
    if sender.send(Event::Opened(id, identity, outbox, dialled)).await.is_err() {
        return;
    }
    let mut buffer = vec![0; READ];
    let why = loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) => break "by the other end".to_owned(),
                Ok(count) => {
                    let received = Happening::Received(id, buffer[..count].to_vec());
                    if sender.send(Event::Other(received)).await.is_err() {
                        return;
                    }
                }
                Err(error) => break plain(&error),
            },
            bytes = waiting.recv() => {
                let Some(bytes) = bytes else {
                    let _ = timeout(SENDING, stream.shutdown()).await;
                    let _ = timeout(LINGER.0, rest(&mut stream, &mut buffer, |_| async { true })).await;
                    return;
                };
                let sent = timeout(SENDING, async {
                    stream.write_all(&bytes).await?;
                    stream.flush().await
                });
                match sent.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        // What the other end said before it left, a goodbye perhaps, may not have been read yet.
                        let tell = |bytes: Vec<u8>| async {
                            sender.send(Event::Other(Happening::Received(id, bytes))).await.is_ok()
                        };
                        let _ = timeout(LINGER.0, rest(&mut stream, &mut buffer, tell)).await;
                        break plain(&error);
                    }
                    Err(_) => break format!("it does not take what is sent in {SENDING:?}"),
                }
            }
        }
    };
    closed(&sender, id, why).await;
}

/// Reads what is left until its end, or until there is more than a peer that is about to leave has to say.
async fn rest<S: AsyncRead + Unpin, F: Future<Output = bool>>(
    stream: &mut S,
    buffer: &mut [u8],
    mut take: impl FnMut(Vec<u8>) -> F,
) {
    let mut left = LINGER.1;
    while let Ok(count @ 1..) = stream.read(buffer).await
        && left > 0
        && take(buffer[..count].to_vec()).await
    {
        left = left.saturating_sub(count);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::SystemTime;

    use super::*;
    use crate::clock::WallClock;
    use crate::trust::authority::{self, Node};
    use crate::trust::{read_authority, read_chain, read_key};

    fn credentials(directory: &std::path::Path, name: &str) -> Credentials {
        let node = Node { name: name.into(), level: 0, offers: Vec::new() };
        authority::issue(directory, &node, SystemTime::now(), Duration::from_secs(3600)).expect("a certificate");
        let (chain, identity) = read_chain(&directory.join(format!("{name}.pem"))).expect("a certificate");
        let key = read_key(&directory.join(format!("{name}.key"))).expect("a key");
        Credentials {
            identity,
            chain,
            key,
            authority: read_authority(&directory.join("ca.pem")).expect("an authority"),
        }
    }

    async fn next(tls: &mut Tls) -> Happening {
        loop {
            timeout(Duration::from_secs(10), tls.happens()).await.expect("something happens");
            if let Some(happening) = tls.poll() {
                return happening;
            }
        }
    }

    #[tokio::test]
    async fn a_goodbye_is_told_though_we_were_sending_when_it_came() {
        let directory = tempfile::tempdir().expect("a directory");
        authority::init(directory.path(), "test", SystemTime::now()).expect("an authority");
        let [parent, child] = ["parent", "child"].map(|name| credentials(directory.path(), name));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let mut parent = Tls::new(&parent, Some(listener)).expect("TLS");
        let mut child = Tls::new(&child, None).expect("TLS");
        let up = child.connect(&address);
        let Happening::Opened(down, _) = next(&mut parent).await else { panic!("no session") };
        assert!(matches!(next(&mut child).await, Happening::Opened(..)));
        child.send(up, b"goodbye".to_vec());
        child.close(up);
        // By then the parent's task has heard all and has ended; the parent has not looked yet.
        let outbox = parent.sessions[&down].clone();
        timeout(Duration::from_secs(10), outbox.closed()).await.expect("an end");
        parent.send(down, b"how are you?".to_vec());
        assert!(matches!(next(&mut parent).await, Happening::Received(_, bytes) if bytes == b"goodbye"));
        assert!(matches!(next(&mut parent).await, Happening::Closed(_, why) if why == "by the other end"));
    }

    #[tokio::test]
    async fn what_came_before_a_reset_is_told() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("a connection");
        let identity = Identity { name: "child".into(), level: 0, offers: Vec::new(), not_after: WallClock::default() };
        let (sender, mut events) = mpsc::channel(HAPPENINGS);
        let task = tokio::spawn(carry(SessionId(1), identity, stream, sender, false));
        let Some(Event::Opened(_, _, outbox, _)) = events.recv().await else { panic!("no session") };
        outbox.try_send(b"welcome".to_vec()).expect("room");
        peer.read_exact(&mut [0; 7]).await.expect("a welcome");
        // The task is told of all this at once. It takes what it is to send first, as only that needs no look at the socket.
        peer.set_zero_linger().expect("an option");
        peer.try_write(b"goodbye").expect("to send");
        drop(peer);
        outbox.try_send(b"how are you?".to_vec()).expect("room");
        task.await.expect("a task");
        let Some(Event::Other(Happening::Received(_, bytes))) = events.recv().await else { panic!("no goodbye") };
        assert_eq!(bytes, b"goodbye");
        assert!(matches!(events.recv().await, Some(Event::Other(Happening::Closed(..)))));
    }
}
