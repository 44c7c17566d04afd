//! What the fast path asks of a frame in memory, whoever owns the memory.
//!
//! The mbuf of [`crate::dpdk`] implements [`PacketBuffer`] from outside, and so does [`OwnedBuffer`] for tests, fuzzing
//! and everything else that has no DPDK.

/// A frame with room in front of it.
///
/// A frame may lie in several segments (a jumbo frame in small mbufs). Headers are read and written in the first
/// one only: [`head`](PacketBuffer::head) is what the first segment holds, [`frame_len`](PacketBuffer::frame_len) counts
/// all of them.
pub trait PacketBuffer {
    /// The bytes of the first segment, from the start of the frame.
    fn head(&self) -> &[u8];

    /// The same bytes, to write.
    fn head_mut(&mut self) -> &mut [u8];

    /// Bytes of the frame over all segments.
    fn frame_len(&self) -> usize;

    /// Bytes that [`prepend`](PacketBuffer::prepend) can still add.
    fn headroom(&self) -> usize;

    /// Adds `count` bytes in front and returns the whole new head, those bytes first and of unspecified content.
    ///
    /// `None`, and nothing changed, where there is no such headroom.
    fn prepend(&mut self, count: usize) -> Option<&mut [u8]>;

    /// Removes `count` bytes from the front. False, and nothing changed, when the first segment is shorter.
    fn trim_front(&mut self, count: usize) -> bool;

    /// Puts `added` bytes of unspecified content in the place of the first `removed`, and returns them.
    ///
    /// `None`, and nothing changed, where there is no such headroom or the first segment is shorter than `removed`.
    #[inline(always)]
    fn replace_front(&mut self, removed: usize, added: usize) -> Option<&mut [u8]> {
        if removed > self.head().len() {
            return None;
        }
        let head = if added >= removed {
            self.prepend(added - removed)?
        } else {
            self.trim_front(removed - added);
            self.head_mut()
        };
        head.get_mut(..added)
    }

    /// Cuts the frame's end off so that `len` bytes remain; does nothing when it is no longer than that.
    fn truncate(&mut self, len: usize);
}

/// A frame in a vector of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl OwnedBuffer {
    /// Headroom of a new buffer, the same as DPDK's `RTE_PKTMBUF_HEADROOM`.
    pub const HEADROOM: usize = 128;

    /// A buffer that holds a copy of `frame`.
    pub fn new(frame: &[u8]) -> OwnedBuffer {
        let mut bytes = vec![0; Self::HEADROOM];
        bytes.extend_from_slice(frame);
        OwnedBuffer { bytes, start: Self::HEADROOM }
    }
}

impl PacketBuffer for OwnedBuffer {
    #[inline]
    fn head(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    #[inline]
    fn head_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    #[inline]
    fn frame_len(&self) -> usize {
        self.head().len()
    }

    #[inline]
    fn headroom(&self) -> usize {
        self.start
    }

    #[inline]
    fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(count)?;
        Some(self.head_mut())
    }

    #[inline]
    fn trim_front(&mut self, count: usize) -> bool {
        let fits = count <= self.frame_len();
        if fits {
            self.start += count;
        }
        fits
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.start + len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_in_front_until_its_headroom_is_used_up() {
        let mut buffer = OwnedBuffer::new(b"frame");
        assert_eq!(buffer.headroom(), OwnedBuffer::HEADROOM);
        buffer.prepend(2).expect("headroom")[..2].copy_from_slice(b"a ");
        assert_eq!(buffer.head(), b"a frame");
        assert!(buffer.prepend(OwnedBuffer::HEADROOM - 1).is_none());
        assert_eq!(buffer.head(), b"a frame", "a refused prepend changes nothing");
        assert!(buffer.trim_front(2));
        assert!(!buffer.trim_front(6));
        buffer.truncate(9);
        buffer.truncate(3);
        assert_eq!(buffer.head(), b"fra");
    }
}
