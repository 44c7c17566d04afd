//! How a check can end, for people and for metrics.

use std::time::Duration;

use crate::units::labelled;

labelled! {
    /// How a check has ended.
    CheckResult {
        /// As it should.
        Success => "success",
        /// No answer in time.
        Timeout => "timeout",
        /// The connection was refused or ended too early.
        Refused => "refused",
        /// An answer, but not a good one.
        Wrong => "wrong",
    }
}

/// Why a check has failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No answer in time.
    #[error("no answer in {0:?}")]
    Timeout(Duration),
    /// The server reset the connection that was opened.
    #[error("connection refused")]
    Refused,
    /// The server ended the connection before it had answered.
    #[error("connection closed before an answer")]
    Closed,
    /// Another HTTP status.
    #[error("HTTP status {0}")]
    Status(u16),
    /// No HTTP.
    #[error("no HTTP answer: {0}")]
    Http(String),
    /// TLS could not be agreed on, or the certificate is not good.
    #[error("TLS: {0}")]
    Tls(String),
    /// No DNS answer, or one with an error.
    #[error("DNS: {0}")]
    Dns(String),
    /// The program ended otherwise than with 0, or could not be started.
    #[error("{0}")]
    Command(String),
    /// It could not be sent.
    #[error("the check cannot be sent: {0}")]
    Unsendable(&'static str),
}

impl Failure {
    /// What it counts as.
    pub fn result(&self) -> CheckResult {
        match self {
            Failure::Timeout(_) => CheckResult::Timeout,
            Failure::Refused | Failure::Closed => CheckResult::Refused,
            Failure::Status(_) | Failure::Http(_) | Failure::Tls(_) | Failure::Dns(_) | Failure::Command(_) => {
                CheckResult::Wrong
            }
            Failure::Unsendable(_) => CheckResult::Timeout,
        }
    }
}
