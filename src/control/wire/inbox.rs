//! Which messages a stream of bytes holds: what has come is kept until a message is whole, and no longer.

use super::{HEADER, Message, WireError, body_max};

/// The beginning of a stream's next message.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Bytes at the front that are done with.
    done: usize,
    skipped: u64,
}

impl Inbox {
    /// Takes in what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.done));
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message that is whole. Messages of kinds that are not known are passed over.
    ///
    /// # Errors
    /// What has come is no message; nothing behind it can be read either.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        loop {
            let Some((&[kind, a, b, c], rest)) = self.bytes[self.done..].split_first_chunk() else { return Ok(None) };
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > body_max(kind) {
                return Err(WireError::Long { kind, length });
            }
            let Some(body) = rest.get(..length) else { return Ok(None) };
            let message = Message::parse(kind, body)?;
            self.done += HEADER + length;
            match message {
                Some(message) => return Ok(Some(message)),
                None => self.skipped += 1,
            }
        }
    }

    /// Whether a message has begun and is not whole yet.
    pub fn is_waiting(&self) -> bool {
        self.done < self.bytes.len()
    }

    /// Messages passed over so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}
