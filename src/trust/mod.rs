//! Who a node of the hierarchy is and what it may offer: its certificate says so, and a private authority signs it.
//!
//! A node's certificate (X.509, RFC 5280) carries these subject alternative names:
//!
//! ```text
//! URI  slr:node:site1             its name; one
//! URI  slr:level:1                its level, 0 for a host server; one
//! URI  slr:offer:192.0.2.0/24     a prefix that its virtual subnets may lie in; any number
//! DNS  slr.internal               the same in all: TLS checks the chain, we check who it is
//! ```

pub mod authority;
pub mod seal;

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use ipnet::IpNet;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::WallClock;

/// The DNS name of every node, by which TLS finds that a certificate is one of a node.
pub const SERVER_NAME: &str = "slr.internal";

/// What the URIs start with.
const NODE: &str = "slr:node:";
const LEVEL: &str = "slr:level:";
const OFFER: &str = "slr:offer:";

const DAY_MS: u64 = 86_400_000;

/// How long before its end a certificate is to be made anew.
const EXPIRES_SOON_DAYS: u64 = 30;

/// Largest file of certificates or keys, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Who is at the other end of a session, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its level; 0 is a host server.
    pub level: u8,
    /// Prefixes that its virtual subnets may lie in.
    pub offers: Vec<IpNet>,
    /// When the certificate ends.
    pub not_after: WallClock,
}

impl Identity {
    /// Whether it may say that it serves all of `prefix`.
    pub fn may_offer(&self, prefix: IpNet) -> bool {
        self.offers.iter().any(|offer| offer.contains(&prefix))
    }

    /// What its owner is to be told when it ends within a month.
    pub fn expiry_warning(&self, now: WallClock) -> Option<String> {
        let left = self.not_after.0.saturating_sub(now.0);
        match left / DAY_MS {
            _ if left == 0 => {
                Some("our certificate is over; nobody takes it: slrctl ca issue, then restart".to_owned())
            }
            days @ ..EXPIRES_SOON_DAYS => {
                Some(format!("our certificate ends in {days} days; make a new one: slrctl ca issue, then restart"))
            }
            _ => None,
        }
    }

    /// Reads a certificate; its signature is not looked at.
    ///
    /// # Errors
    /// It is no certificate of a node.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Identity, TrustError> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| TrustError::NoCertificate)?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let (mut name, mut level, mut offers) = (None, None, Vec::new());
        for uri in uris {
            let wrong = || TrustError::Uri(uri.chars().take(100).collect());
            if let Some(text) = uri.strip_prefix(NODE) {
                let first = is_name(text) && name.replace(text.to_owned()).is_none();
                first.then_some(()).ok_or_else(wrong)?;
            } else if let Some(text) = uri.strip_prefix(LEVEL) {
                let first = level.replace(text.parse().map_err(|_| wrong())?).is_none();
                first.then_some(()).ok_or_else(wrong)?;
            } else if let Some(text) = uri.strip_prefix(OFFER) {
                let net: IpNet = text.parse().map_err(|_| wrong())?;
                offers.push(Some(net).filter(|net| net.trunc() == *net).ok_or_else(wrong)?);
            }
        }
        let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let not_after = WallClock(not_after.saturating_mul(1000));
        match (name, level) {
            (Some(name), Some(level)) => Ok(Identity { name, level, offers, not_after }),
            _ => Err(TrustError::NotANode),
        }
    }
}

/// As the configuration takes names.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(plain) && text.as_bytes()[0].is_ascii_alphanumeric()
}

/// Why a certificate or key is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Not X.509.
    #[error("is no certificate; make one with slrctl ca issue")]
    NoCertificate,
    /// A certificate without name and level.
    #[error("is a certificate of no node (no slr:node: and slr:level: among its names); make one with slrctl ca issue")]
    NotANode,
    /// A name of ours that means nothing, or is there twice.
    #[error("has the name \"{0}\", which means nothing here or is there twice; make one with slrctl ca issue")]
    Uri(String),
    /// No private key.
    #[error("has no private key in PEM; give the .key file that slrctl ca issue has written")]
    NoKey,
    /// Not readable.
    #[error("cannot be read: {0}; give the path of a PEM file")]
    File(#[from] io::Error),
}

/// By what a node shows who it is, and whom it believes.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Who the certificate says that we are.
    pub identity: Identity,
    /// Our certificate, and those between it and the authority's.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: Arc<PrivateKeyDer<'static>>,
    /// The authorities that are believed.
    pub authority: Arc<RootCertStore>,
}

/// Certificates of a PEM file, the node's own first, and who that is.
///
/// # Errors
/// The file is not readable, or has no certificate of a node.
pub fn read_chain(file: &Path) -> Result<(Vec<CertificateDer<'static>>, Identity), TrustError> {
    let chain = certificates(file)?;
    let identity = Identity::of(chain.first().ok_or(TrustError::NoCertificate)?)?;
    Ok((chain, identity))
}

/// The private key of a PEM file.
///
/// # Errors
/// The file is not readable, or has none.
pub fn read_key(file: &Path) -> Result<Arc<PrivateKeyDer<'static>>, TrustError> {
    PrivateKeyDer::from_pem_slice(&read(file)?).map(Arc::new).map_err(|_| TrustError::NoKey)
}

/// The authorities of a PEM file.
///
/// # Errors
/// The file is not readable, or has no certificate.
pub fn read_authority(file: &Path) -> Result<Arc<RootCertStore>, TrustError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store.add(certificate).map_err(|_| TrustError::NoCertificate)?;
    }
    if store.is_empty() { Err(TrustError::NoCertificate) } else { Ok(Arc::new(store)) }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let pem = read(file)?;
    CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| TrustError::NoCertificate)
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    match fs::metadata(file)?.len() {
        ..=FILE_MAX => fs::read(file),
        _ => Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 1 MiB")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_a_month_before_and_ever_after() {
        let of = Identity { name: "a".into(), level: 0, offers: Vec::new(), not_after: WallClock(100 * DAY_MS) };
        for (day, says) in [(70, None), (71, Some("ends in 29 days")), (99, Some("in 1 days")), (100, Some("is over"))]
        {
            let told = of.expiry_warning(WallClock(day * DAY_MS));
            assert_eq!(told.is_some(), says.is_some(), "{day}: {told:?}");
            assert!(told.unwrap_or_default().contains(says.unwrap_or_default()), "{day}");
        }
    }
}
