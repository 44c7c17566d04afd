//! How a running router is asked and steered: what may be said over its control socket, both ends of it, and how answers
//! are shown to people.
//!
//! ```text
//! slrctl ── one request, a line of JSON ──────────────────► Listener ── Asked ──► Control, on the slow path
//!        ◄── any number of items, then ok or error ─────────────────◄── lines ──┘   (walks, captures: pass by pass)
//! ```
//!
//! A line that comes back is `{"item": ...}`, `{"ok": ...}` or `{"error": "..."}`; one of the last two ends an answer. Who
//! closes the sending half of the socket ends an answer that would go on. A person can speak it too:
//!
//! ```text
//! echo '{"command":"drain","child":"server1"}' | socat - UNIX:/run/slr/edge1.sock
//! ```

pub mod client;
pub mod recording;
pub mod request;
pub mod response;
pub mod server;
pub mod show;
pub mod socket;
pub mod top;

/// Where slrctl looks for a router.
pub const SOCKET_DIRECTORY: &str = crate::config::SOCKET_DIRECTORY;

/// Where slrctl looks for a host agent.
pub const AGENT_DIRECTORY: &str = crate::config::host::DIRECTORY;
