//! What must hold of the sessions' protocol for any bytes at all.

use slr::control::wire::{HEADER, Inbox, Message};

/// Checks that the bytes are read or refused alike in one go and in pieces, and that what is read is written alike.
pub fn run(bytes: &[u8]) {
    let whole = read([bytes].into_iter());
    assert_eq!(whole, read(bytes.chunks(7)), "in pieces");
    for message in whole.0 {
        let written = message.to_bytes();
        assert_eq!(Message::parse(written[0], &written[HEADER..]), Ok(Some(message)));
    }
}

/// The messages before what is none, and whether there is such.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Message>, bool) {
    let (mut inbox, mut messages) = (Inbox::default(), Vec::new());
    for piece in pieces {
        inbox.push(piece);
        loop {
            match inbox.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}
