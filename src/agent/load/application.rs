//! The number that an application says about itself: asked for over HTTP, read from a file, or printed by a program.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::config::host::Application;

/// Bytes of an answer that are looked at.
const ANSWER_MAX: u64 = 16 << 10;

/// Headers of an HTTP answer at most.
const HEADERS_MAX: usize = 64;

/// Why there is no number.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    /// It could not be asked.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// What answers is no web server, or refuses.
    #[error("the answer to GET is {0}")]
    Answer(String),
    /// The program failed.
    #[error("it ended with {0}")]
    Ended(std::process::ExitStatus),
    /// What was said does not start with a number from 0 up.
    #[error("\"{0}\" is no number from 0 up")]
    NoNumber(String),
}

/// Asks an application.
///
/// # Errors
/// Why there is no number.
pub async fn ask(application: &Application) -> Result<f64, Silence> {
    match application {
        Application::Http { server, path } => get(*server, path).await,
        Application::File(path) => read(path).await,
        Application::Command(words) => run(words).await,
    }
}

async fn some(source: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(ANSWER_MAX).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

async fn read(path: &Path) -> Result<f64, Silence> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(ANSWER_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    number(&read.await.map_err(io::Error::other)??)
}

async fn run(words: &[String]) -> Result<f64, Silence> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput).map_err(io::Error::from)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let printed = match child.stdout.take() {
        Some(stdout) => some(stdout).await?,
        None => Vec::new(),
    };
    let status = child.wait().await?;
    if status.success() { number(&printed) } else { Err(Silence::Ended(status)) }
}

async fn get(server: SocketAddr, path: &str) -> Result<f64, Silence> {
    let mut stream = TcpStream::connect(server).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {server}\r\nUser-Agent: slr-host\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    body(&some(stream).await?).and_then(number)
}

/// What is behind the header of a good answer.
fn body(answer: &[u8]) -> Result<&[u8], Silence> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer) {
        Ok(httparse::Status::Complete(length)) => match response.code {
            Some(200) => Ok(&answer[length..]),
            code => Err(Silence::Answer(format!("status {}", code.unwrap_or(0)))),
        },
        Ok(httparse::Status::Partial) => Err(Silence::Answer("cut off".into())),
        Err(error) => Err(Silence::Answer(error.to_string())),
    }
}

fn number(bytes: &[u8]) -> Result<f64, Silence> {
    let text = String::from_utf8_lossy(bytes);
    let word = text.split_whitespace().next().unwrap_or_default();
    let number = word.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| Silence::NoNumber(word.chars().take(40).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_the_number() {
        for (text, expected) in [
            ("0.75\n", Some(0.75)),
            ("  3 requests wait", Some(3.0)),
            ("1e3", Some(1000.0)),
            ("", None),
            ("busy", None),
            ("-1", None),
            ("nan", None),
            ("inf", None),
        ] {
            assert_eq!(number(text.as_bytes()).ok(), expected, "{text}");
        }
    }

    #[test]
    fn only_a_good_answer_has_a_number() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n0.5\n", Some(0.5)),
            ("HTTP/1.0 404 Not Found\r\n\r\n0.5\n", None),
            ("HTTP/1.0 200 OK\r\nContent", None),
            ("SSH-2.0-OpenSSH", None),
        ] {
            assert_eq!(body(answer.as_bytes()).and_then(number).ok(), expected, "{answer}");
        }
    }
}
