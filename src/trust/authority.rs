//! Makes a private authority, and certificates of nodes signed by it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, iter};

use ipnet::IpNet;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

use super::{LEVEL, NODE, OFFER, SERVER_NAME, is_name};

/// How long an authority's certificate is good.
const AUTHORITY: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How far the clock of another machine may be behind ours.
const SKEW: Duration = Duration::from_secs(3600);

/// Files of an authority in its directory.
const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";

/// What a node's certificate says.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its level; 0 is a host server.
    pub level: u8,
    /// Prefixes that it may offer.
    pub offers: Vec<IpNet>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The name.
    #[error("\"{0}\" is no name of a node; write 1 to 64 of the characters A-Z a-z 0-9 . _ -, a letter or digit first")]
    Name(String),
    /// The authority, or the arithmetic.
    #[error("no certificate can be made: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// Makes an authority in `directory`, which is made where it is missing, and returns the files: certificate and key.
/// Nothing is overwritten.
///
/// # Errors
/// A file cannot be written, or is there already.
pub fn init(directory: &Path, name: &str, now: SystemTime) -> Result<[PathBuf; 2], AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = ((now - SKEW).into(), (now + AUTHORITY).into());
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    fs::create_dir_all(directory).map_err(|source| AuthorityError::File { path: directory.to_owned(), source })?;
    write(directory, CERTIFICATE, KEY, &certificate.pem(), &key.serialize_pem())
}

/// Makes a certificate of `node`, good from an hour ago for `lifetime` from now, signed by the authority in `directory`,
/// and returns the files there: certificate and key. Nothing is overwritten.
///
/// # Errors
/// There is no authority, a file cannot be written or is there already, or the name is none.
pub fn issue(
    directory: &Path,
    node: &Node,
    now: SystemTime,
    lifetime: Duration,
) -> Result<[PathBuf; 2], AuthorityError> {
    let Node { name, level, offers } = node;
    if !is_name(name) || name == "ca" {
        return Err(AuthorityError::Name(name.clone()));
    }
    let read = |file: &str| {
        let path = directory.join(file);
        fs::read_to_string(&path).map_err(|source| AuthorityError::File { path, source })
    };
    let issuer = Issuer::from_ca_cert_pem(&read(CERTIFICATE)?, KeyPair::from_pem(&read(KEY)?)?)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Between two routers either may have the child's part.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = ((now - SKEW).into(), (now + lifetime).into());
    let offers = offers.iter().map(|offer| format!("{OFFER}{offer}"));
    for uri in iter::once(format!("{NODE}{name}")).chain([format!("{LEVEL}{level}")]).chain(offers) {
        params.subject_alt_names.push(SanType::URI(Ia5String::try_from(uri)?));
    }
    params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(SERVER_NAME)?));
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    write(directory, &format!("{name}.pem"), &format!("{name}.key"), &certificate.pem(), &key.serialize_pem())
}

/// Writes both files; the key so that only its owner can read it.
fn write(
    directory: &Path,
    certificate_file: &str,
    key_file: &str,
    certificate: &str,
    key: &str,
) -> Result<[PathBuf; 2], AuthorityError> {
    let one = |file: &str, mode, text: &str| {
        let path = directory.join(file);
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        match opened.and_then(|mut file| file.write_all(text.as_bytes())) {
            Ok(()) => Ok(path),
            Err(source) => Err(AuthorityError::File { path, source }),
        }
    };
    let key = one(key_file, 0o600, key)?;
    Ok([one(certificate_file, 0o644, certificate)?, key])
}
