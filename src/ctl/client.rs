//! The asking end: one connection to a router, requests and their answers in turn.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::request::Request;
use super::response::Line;

/// How long an answer may take; a router answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often who waits for a long answer looks whether to go on.
const LOOK: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no router answers at {0}; start slrd, or name its control socket with --socket")]
    NotRunning(PathBuf),
    /// Only the router's user may ask.
    #[error("no permission to use {0}; run slrctl as the user that runs slrd (root, for the most part)")]
    NotAllowed(PathBuf),
    /// The connection broke.
    #[error("the connection to the router broke: {0}")]
    Broken(#[from] io::Error),
    /// The answer is not one.
    #[error("the answer is not understood ({0}); slrctl and slrd should be of one version")]
    Strange(#[from] serde_json::Error),
    /// The router says no.
    #[error("{0}")]
    Refused(String),
}

/// A connection to a router.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the router whose control socket is at `path`.
    ///
    /// # Errors
    /// No router listens there, or this user may not ask it.
    pub fn connect(path: &Path) -> Result<Client, AskError> {
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => AskError::NotRunning(path.to_owned()),
            ErrorKind::PermissionDenied => AskError::NotAllowed(path.to_owned()),
            _ => AskError::Broken(error),
        })?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// The router refuses, or does not answer.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, AskError> {
        Ok(serde_json::from_value(self.ask_value(request)?)?)
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// As for [`ask`](Client::ask).
    pub fn ask_value(&mut self, request: &Request) -> Result<Value, AskError> {
        self.stream::<Value>(request, &mut || false, &mut |_| Ok(()))
    }

    /// Asks for an answer of many parts, and hands each to `each`. Ends it when `stop` says so or `each` fails.
    ///
    /// # Errors
    /// What `each` says, the router's refusal, or why it does not answer.
    pub fn stream<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        stop: &mut dyn FnMut() -> bool,
        each: &mut dyn FnMut(T) -> io::Result<()>,
    ) -> Result<Value, AskError> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        let (mut failed, mut stopped) = (None, false);
        let mut buffer = Vec::new();
        let mut quiet = Duration::ZERO;
        loop {
            if !stopped && (stop() || failed.is_some()) {
                stopped = true;
                self.stream.get_mut().shutdown(Shutdown::Write)?;
            }
            match self.stream.read_until(b'\n', &mut buffer) {
                Ok(0) => return Err(AskError::Broken(ErrorKind::UnexpectedEof.into())),
                Ok(_) if buffer.ends_with(b"\n") => {}
                Ok(_) => continue,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
                {
                    quiet += LOOK;
                    // An answer that goes on may have long pauses.
                    if quiet >= PATIENCE && (stopped || !matches!(request, Request::Capture(_))) {
                        return Err(AskError::Broken(ErrorKind::TimedOut.into()));
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            quiet = Duration::ZERO;
            match serde_json::from_slice(&buffer)? {
                Line::Item(item) if failed.is_none() => failed = each(serde_json::from_value(item)?).err(),
                Line::Item(_) => {}
                Line::Ok(end) => return failed.map_or(Ok(end), |error| Err(AskError::Refused(error.to_string()))),
                Line::Error(why) => return Err(AskError::Refused(why)),
            }
            buffer.clear();
        }
    }
}
