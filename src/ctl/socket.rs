//! The control socket itself: made where no living router has it, and its connections served.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};

use super::request::{REQUEST_MAX, Request};
use super::response::Line;

/// Connections at the same time.
const CONNECTIONS_MAX: usize = 32;

/// Lines of an answer that wait for their reader at most.
const LINES: usize = 1024;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another router has it.
    #[error(
        "control.socket {0}: a running router has it; stop that one, or give each router on a machine its own path"
    )]
    InUse(PathBuf),
    /// Something else has its path.
    #[error("control.socket {0}: there is a file of this name that is no socket; write another path, or remove it")]
    NoSocket(PathBuf),
    /// It cannot be made.
    #[error("control.socket {path}: {source}; write a path that slrd may write to, or turn it off with `socket: off`")]
    Unusable {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A socket that listens; its file is removed with it.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    listener: UnixListener,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Listener {
    /// Listens at `path`, for this process's user alone. The socket of a process that is dead is replaced.
    ///
    /// # Errors
    /// A living process listens there, the path is something else, or the system refuses.
    pub fn bind(path: &Path) -> Result<Listener, SocketError> {
        let unusable = |source| SocketError::Unusable { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(unusable)?;
        }
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unusable(error)),
            Ok(there) if !there.file_type().is_socket() => return Err(SocketError::NoSocket(path.to_owned())),
            Ok(_) => match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(unusable(error)),
                Ok(_) => return Err(SocketError::InUse(path.to_owned())),
            },
        }
        // Under another name until it is closed to others; the renaming takes the place of what a dead process left.
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{:x}", std::process::id() & 0xf_ffff));
        let _ = fs::remove_file(&new);
        let listener = UnixListener::bind(&new).map_err(unusable)?;
        let ready = fs::set_permissions(&new, Permissions::from_mode(0o600))
            .and_then(|()| listener.set_nonblocking(true))
            .and_then(|()| fs::rename(&new, path));
        if let Err(error) = ready {
            let _ = fs::remove_file(&new);
            return Err(unusable(error));
        }
        Ok(Listener { path: path.to_owned(), listener })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hands what is asked to `asked` for as long as the future is polled.
    ///
    /// # Errors
    /// The system takes no connections any more.
    pub async fn serve(self, asked: mpsc::Sender<Asked>) -> io::Result<()> {
        let listener = tokio::net::UnixListener::from_std(self.listener.try_clone()?)?;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let (stream, _) = listener.accept().await?;
            let (reader, mut writer) = stream.into_split();
            let Ok(place) = places.clone().try_acquire_owned() else {
                let _ = writer
                    .write_all(line(&Line::<()>::Error("too many are asking; try again".into())).as_bytes())
                    .await;
                continue;
            };
            let asked = asked.clone();
            tokio::spawn(async move {
                // Who goes away in the middle of an answer is no matter.
                let _ = converse(reader, writer, asked).await;
                drop(place);
            });
        }
    }
}

/// A request and where its answer goes.
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub to: Outbox,
}

/// Where an answer goes, line by line.
pub struct Outbox {
    lines: mpsc::Sender<String>,
    ended: Arc<AtomicBool>,
}

/// The other end of an [`Outbox`].
pub struct Answer {
    /// The lines, each with its end.
    pub lines: mpsc::Receiver<String>,
    /// Set by who has enough of an answer that would go on.
    pub ended: Arc<AtomicBool>,
}

impl Outbox {
    /// An empty outbox and its other end.
    pub fn pair() -> (Outbox, Answer) {
        let (sender, lines) = mpsc::channel(LINES);
        let ended = Arc::new(AtomicBool::new(false));
        (Outbox { lines: sender, ended: ended.clone() }, Answer { lines, ended })
    }

    /// Parts that fit now. A place is kept for the end of the answer.
    pub fn room(&self) -> usize {
        self.lines.capacity().saturating_sub(1)
    }

    /// Whether nobody can read the answer any more.
    pub fn is_closed(&self) -> bool {
        self.lines.is_closed()
    }

    /// Whether nobody wants more of the answer.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed) || self.lines.is_closed()
    }

    /// Adds a part of the answer, which there must be room for.
    pub fn item(&self, item: &impl Serialize) {
        let _ = self.lines.try_send(line(&Line::Item(item)));
    }

    /// Ends the answer.
    pub fn finish(self, end: Result<impl Serialize, String>) {
        let end = end.map_or_else(Line::Error, Line::Ok);
        let _ = self.lines.try_send(line(&end));
    }
}

fn line(line: &Line<impl Serialize>) -> String {
    // Maps have strings for keys and there is no other way to fail.
    let mut json = serde_json::to_string(line).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
    json.push('\n');
    json
}

/// One connection: requests and their answers in turn.
async fn converse(reader: OwnedReadHalf, mut writer: OwnedWriteHalf, asked: mpsc::Sender<Asked>) -> io::Result<()> {
    let mut reader = BufReader::new(reader);
    let mut request = Vec::new();
    loop {
        request.clear();
        let length = (&mut reader).take(REQUEST_MAX as u64 + 1).read_until(b'\n', &mut request).await?;
        if length == 0 {
            return Ok(());
        }
        let (outbox, answer) = Outbox::pair();
        if length > REQUEST_MAX {
            outbox.finish(Err::<(), _>(format!("a request has {REQUEST_MAX} bytes at most")));
            return reply(&mut reader, &mut writer, answer).await;
        }
        match serde_json::from_slice(&request) {
            // Without the slow path the router is about to end.
            Ok(request) => drop(asked.send(Asked { request, to: outbox }).await),
            Err(error) => outbox.finish(Err::<(), _>(format!("not a request: {error}"))),
        }
        reply(&mut reader, &mut writer, answer).await?;
    }
}

/// Writes an answer; who closes the sending half meanwhile has enough of it.
async fn reply(reader: &mut BufReader<OwnedReadHalf>, writer: &mut OwnedWriteHalf, answer: Answer) -> io::Result<()> {
    let Answer { mut lines, ended } = answer;
    let mut listening = true;
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => writer.write_all(line.as_bytes()).await?,
                None => return Ok(()),
            },
            more = reader.fill_buf(), if listening => {
                // The next request waits for its turn.
                listening = false;
                if more?.is_empty() {
                    ended.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_the_users_alone_and_goes_with_its_listener() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("below").join("slrd.sock");
        let listener = Listener::bind(&path).expect("a socket");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(fs::read_dir(path.parent().expect("a directory")).expect("entries").count(), 1);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_routers_socket_is_replaced_and_a_living_ones_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("slrd.sock");
        drop(UnixListener::bind(&path).expect("a socket"));
        assert!(path.exists(), "the system leaves it");
        let listener = Listener::bind(&path).expect("in the dead one's place");
        let refused = Listener::bind(&path).expect_err("a living one").to_string();
        assert!(refused.contains("a running router has it") && refused.contains("slrd.sock"), "{refused}");
        assert!(UnixStream::connect(listener.path()).is_ok());
    }

    #[test]
    fn what_is_no_socket_stays_as_it_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        fs::write(&path, "precious").expect("a file");
        assert!(matches!(Listener::bind(&path), Err(SocketError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&path).expect("a file"), "precious");
        assert!(matches!(Listener::bind(&path.join("below")), Err(SocketError::Unusable { .. })));
    }

    #[test]
    fn an_answer_keeps_a_place_for_its_end() {
        let (outbox, mut answer) = Outbox::pair();
        let mut items = 0;
        while outbox.room() > 0 {
            outbox.item(&items);
            items += 1;
        }
        outbox.finish(Ok("end"));
        assert_eq!(items, LINES - 1);
        let lines: Vec<String> = std::iter::from_fn(|| answer.lines.try_recv().ok()).collect();
        assert_eq!((lines.len(), lines[0].as_str()), (LINES, "{\"item\":0}\n"));
        assert_eq!(lines[LINES - 1], "{\"ok\":\"end\"}\n");
    }
}
