//! Which child a QUIC connection id names, where a virtual host's servers put their own id into those that they issue.
//!
//! ```text
//! connection id   │ offset │ server id │      rest       │
//!                 0        └───────────┘                 length bytes
//! ```
//!
//! The servers agree with the router on that layout, as in QUIC-LB's plaintext algorithm (draft-ietf-quic-load-balancers);
//! every UDP packet to such a virtual host is read as QUIC. What a packet shows is
//!
//! - certain, in a short header or a Handshake packet: the server has issued the connection id that it goes to;
//! - likely, in everything else that a client sends with a connection id of that length, Initial and 0-RTT packets above
//!   all: the server's or, in the first of a connection, the client's own choice. A random one names some server by chance
//!   once in `256^server_id_length / servers`, which is as good a choice for a new connection as any other.

use crate::packet::quic::{QuicHeader, is_handshake};

/// How the servers of one virtual host lay out their connection ids; all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Of a connection id, 1 to 20 (RFC 9000 section 17.2).
    pub length: u8,
    /// In front of the server id.
    pub offset: u8,
    /// Of the server id, 1 to 16; it ends within the connection id.
    pub server_id_length: u8,
}

impl Layout {
    /// The server id in a connection id; `None` in one of another length.
    fn server_id(self, connection_id: &[u8]) -> Option<u128> {
        if connection_id.len() != usize::from(self.length) {
            return None;
        }
        let server_id = connection_id.get(usize::from(self.offset)..)?.get(..usize::from(self.server_id_length))?;
        Some(server_id.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }
}

/// A child that a packet's connection id names, by its position among the virtual host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// It has the connection, whatever a flow entry says.
    Certain(usize),
    /// It has the connection unless a flow entry says otherwise.
    Likely(usize),
}

impl Named {
    /// The child's position.
    pub fn member(self) -> usize {
        match self {
            Named::Certain(member) | Named::Likely(member) => member,
        }
    }
}

/// The server ids of one virtual host.
#[derive(Debug)]
pub struct ServerIds {
    layout: Layout,
    /// Each with its child's position, sorted.
    ids: Box<[(u128, usize)]>,
}

impl ServerIds {
    /// The ids of a virtual host's children, each a number in network order, in the order of the children.
    pub fn new(layout: Layout, ids: impl IntoIterator<Item = u128>) -> ServerIds {
        let mut ids: Box<[_]> = ids.into_iter().zip(0..).collect();
        ids.sort_unstable();
        ServerIds { layout, ids }
    }

    /// The child that the QUIC packet at the start of a UDP payload names.
    pub fn read(&self, payload: &[u8]) -> Option<Named> {
        let (connection_id, certain) = match QuicHeader::parse(payload, usize::from(self.layout.length))? {
            QuicHeader::Short { dcid } => (dcid, true),
            QuicHeader::Long { version, dcid, .. } => (dcid, is_handshake(*payload.first()?, version)),
        };
        let server_id = self.layout.server_id(connection_id)?;
        let found = self.ids.binary_search_by_key(&server_id, |(id, _)| *id).ok()?;
        let member = self.ids[found].1;
        Some(if certain { Named::Certain(member) } else { Named::Likely(member) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION_1: [u8; 4] = [0, 0, 0, 1];
    const VERSION_2: [u8; 4] = [0x6b, 0x33, 0x43, 0xcf];

    fn long(first: u8, version: [u8; 4], connection_id: &[u8]) -> Vec<u8> {
        [&[first][..], &version, &[connection_id.len() as u8], connection_id, &[0, 9, 9]].concat()
    }

    #[test]
    fn packets_name_a_child_as_surely_as_the_server_has_chosen_their_connection_id() {
        use Named::{Certain, Likely};
        let layout = Layout { length: 6, offset: 1, server_id_length: 2 };
        let ids = ServerIds::new(layout, [0xbeef, 0x00a1, 0xffff]);
        let (beef, a1) = ([7, 0xbe, 0xef, 1, 2, 3], [0, 0x00, 0xa1, 1, 2, 3]);
        let short = |connection_id: &[u8]| [&[0x41][..], connection_id, &[5; 20]].concat();
        for (name, payload, expected) in [
            ("short", short(&beef), Some(Certain(0))),
            ("short, of another", short(&a1), Some(Certain(1))),
            ("short, fixed bit greased", [&[0x01][..], &beef].concat(), Some(Certain(0))),
            ("short, unknown server", short(&[7, 0xbe, 0xee, 1, 2, 3]), None),
            ("short, cut", short(&[])[..6].to_vec(), None),
            ("handshake", long(0xe0, VERSION_1, &beef), Some(Certain(0))),
            ("handshake of version 2", long(0xf0, VERSION_2, &a1), Some(Certain(1))),
            ("initial", long(0xc0, VERSION_1, &beef), Some(Likely(0))),
            ("initial of version 2", long(0xd0, VERSION_2, &beef), Some(Likely(0))),
            ("0-RTT", long(0xd0, VERSION_1, &beef), Some(Likely(0))),
            ("0-RTT of version 2, a handshake in version 1", long(0xe0, VERSION_2, &beef), Some(Likely(0))),
            ("unknown version", long(0xe0, [0xfa; 4], &beef), Some(Likely(0))),
            ("initial, unknown server", long(0xc0, VERSION_1, &[7, 1, 1, 1, 2, 3]), None),
            ("initial, id too long", long(0xc0, VERSION_1, &[7, 0xbe, 0xef, 1, 2, 3, 4]), None),
            ("handshake, id too short", long(0xe0, VERSION_1, &beef[..5]), None),
            ("handshake, no id", long(0xe0, VERSION_1, &[]), None),
            ("nothing", vec![], None),
        ] {
            assert_eq!(ids.read(&payload), expected, "{name}");
        }
    }

    #[test]
    fn a_server_id_may_fill_the_whole_connection_id() {
        let ids = |layout, id| ServerIds::new(layout, [id]);
        let whole = ids(Layout { length: 16, offset: 0, server_id_length: 16 }, u128::MAX);
        assert_eq!(whole.read(&[0x7f, 0xff]), None);
        assert_eq!(whole.read(&[&[0x40][..], &[0xff; 16]].concat()), Some(Named::Certain(0)));
        let last = ids(Layout { length: 20, offset: 19, server_id_length: 1 }, 3);
        assert_eq!(last.read(&[&[0x40][..], &[9; 19], &[3]].concat()), Some(Named::Certain(0)));
    }
}
