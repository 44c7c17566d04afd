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
        if let Some(outbox) = self.sessions.get(&session)
            && outbox.try_send(bytes).is_err()
        {
            self.sessions.remove(&session);
            self.stuck.push_back(session);
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
                    let rest = async {
                        let mut left = LINGER.1;
                        while let Ok(count @ 1..) = stream.read(&mut buffer).await
                            && left > 0
                        {
                            left = left.saturating_sub(count);
                        }
                    };
                    let _ = timeout(LINGER.0, rest).await;
                    return;
                };
                let sent = timeout(SENDING, async {
                    stream.write_all(&bytes).await?;
                    stream.flush().await
                });
                match sent.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => break plain(&error),
                    Err(_) => break format!("it does not take what is sent in {SENDING:?}"),
                }
            }
        }
    };
    closed(&sender, id, why).await;
}
