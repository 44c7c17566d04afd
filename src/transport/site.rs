//! Asks a site for the table of children: one GET over TLS, which the site's certificate must be good for.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, ETAG, HOST, HeaderValue, IF_NONE_MATCH, LOCATION, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::Site;
use crate::config::draft::TABLE_MAX;

/// How long the whole answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a site says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The table is the one with the tag that was sent.
    Unchanged,
    /// The table.
    Table(Table),
}

/// A table of children as a site has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// YAML.
    pub text: String,
    /// By which the site knows whether it has changed (RFC 9110 section 8.8.3).
    pub etag: Option<String>,
}

/// Asks for the table, unless it is still that with `etag`.
///
/// # Errors
/// Why there is no table, in a line.
pub async fn fetch(site: &Site, etag: Option<&str>) -> Result<Answer, String> {
    let answer = timeout(PATIENCE, ask(site, etag)).await;
    let answer = answer.unwrap_or_else(|_| Err(format!("no whole answer within {PATIENCE:?}")));
    answer.map_err(|why| why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect())
}

async fn ask(site: &Site, etag: Option<&str>) -> Result<Answer, String> {
    let Site { host, port, target, roots, .. } = site;
    let stream =
        TcpStream::connect((host.as_str(), *port)).await.map_err(|error| format!("cannot connect: {error}"))?;
    let name =
        ServerName::try_from(host.clone()).map_err(|_| format!("{host} is no name that a certificate may have"))?;
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let client = client.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let client = client.with_root_certificates(roots.clone()).with_no_client_auth();
    let stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await;
    let stream = stream.map_err(|error| format!("no TLS session: {error}"))?;
    let broken = |error: hyper::Error| format!("no answer: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let authority = if *port == 443 { host.clone() } else { format!("{host}:{port}") };
    let request = Request::get(target).header(HOST, authority).header(ACCEPT, "application/yaml, */*");
    let mut request = request.header(USER_AGENT, concat!("slr/", env!("CARGO_PKG_VERSION")));
    if let Some(etag) = etag {
        request = request.header(IF_NONE_MATCH, etag);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        read(response, etag.is_some()).await
    };
    // Whoever ends first: without the connection nothing more comes.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

async fn read(response: Response<hyper::body::Incoming>, asked: bool) -> Result<Answer, String> {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let header = |name| response.headers().get(name).and_then(text);
    match response.status() {
        StatusCode::NOT_MODIFIED if asked => return Ok(Answer::Unchanged),
        StatusCode::OK => {}
        status if status.is_redirection() => {
            let to = header(LOCATION).unwrap_or_else(|| "nowhere".into());
            return Err(format!("it answers {status} and leads to {to}; write that as the url"));
        }
        status => return Err(format!("it answers {status}")),
    }
    let etag = header(ETAG);
    let body = Limited::new(response.into_body(), TABLE_MAX).collect().await;
    let body = body.map_err(|error| format!("the table is cut off or longer than {TABLE_MAX} bytes: {error}"))?;
    let text = String::from_utf8(body.to_bytes().into()).map_err(|_| "the table is not UTF-8".to_owned())?;
    Ok(Answer::Table(Table { text, etag }))
}
