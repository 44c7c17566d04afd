//! What a packet in the middle of a TCP connection is worth when nobody knows the connection.

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnknown {
    /// It gets a child as if it were a new flow's first.
    Select,
    /// It is dropped.
    Drop,
    /// It is dropped, and its client is told that the connection is over.
    Reset,
}
