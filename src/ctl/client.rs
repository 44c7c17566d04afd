//! The asking end: one connection to a router, requests and their answers in turn.

use std::fs;
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
    /// Several could be meant.
    #[error("{} routers run here; name the one that is meant: --socket {}", .0.len(), paths(.0))]
    Several(Vec<PathBuf>),
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

fn paths(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(" or --socket ")
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

    /// Connects to the one router that has its control socket in a directory.
    ///
    /// # Errors
    /// None listens there, several do, or this user may not ask it.
    pub fn find(directory: &Path) -> Result<Client, AskError> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut sockets: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|end| end == "sock")).collect();
        sockets.sort();
        // A router that was killed leaves its socket.
        sockets.retain(|path| !matches!(Client::connect(path), Err(AskError::NotRunning(_))));
        match &sockets[..] {
            [] => Err(AskError::NotRunning(directory.join("*.sock"))),
            [socket] => Client::connect(socket),
            _ => Err(AskError::Several(sockets)),
        }
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_only_living_router_of_a_directory_is_found_and_several_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let find = || Client::find(directory.path());
        drop(UnixListener::bind(path("dead.sock")).expect("a socket"));
        fs::write(path("other"), "").expect("a file");
        assert!(matches!(find(), Err(AskError::NotRunning(_))));
        let _edge1 = UnixListener::bind(path("edge1.sock")).expect("a socket");
        assert!(find().is_ok());
        let _edge2 = UnixListener::bind(path("edge2.sock")).expect("a socket");
        let said = find().expect_err("two").to_string();
        assert!(said.starts_with("2 routers run here") && said.contains("edge1.sock or --socket "), "{said}");
        assert!(Client::find(Path::new("/nonexistent")).is_err());
    }
}
