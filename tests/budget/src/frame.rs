//! A packet buffer without DPDK that costs about as many instructions as DPDK's.

use slr::packet::buffer::PacketBuffer;

/// A frame on the heap, as small to move as DPDK's.
pub struct HeapFrame(Box<HeapBytes>);

struct HeapBytes {
    start: u16,
    end: u16,
    bytes: [u8; 512],
}

impl HeapFrame {
    /// A copy of `frame`, with room in front of it.
    pub fn new(frame: &[u8]) -> HeapFrame {
        let mut bytes = [0; 512];
        bytes[128..][..frame.len()].copy_from_slice(frame);
        HeapFrame(Box::new(HeapBytes { start: 128, end: 128 + frame.len() as u16, bytes }))
    }
}

impl PacketBuffer for HeapFrame {
    #[inline(always)]
    fn head(&self) -> &[u8] {
        &self.0.bytes[usize::from(self.0.start)..usize::from(self.0.end)]
    }

    #[inline(always)]
    fn head_mut(&mut self) -> &mut [u8] {
        &mut self.0.bytes[usize::from(self.0.start)..usize::from(self.0.end)]
    }

    #[inline(always)]
    fn frame_len(&self) -> usize {
        usize::from(self.0.end - self.0.start)
    }

    #[inline(always)]
    fn headroom(&self) -> usize {
        self.0.start.into()
    }

    #[inline(always)]
    fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        self.0.start = usize::from(self.0.start).checked_sub(count)? as u16;
        Some(self.head_mut())
    }

    #[inline(always)]
    fn trim_front(&mut self, count: usize) -> bool {
        let fits = count <= self.frame_len();
        if fits {
            self.0.start += count as u16;
        }
        fits
    }

    #[inline(always)]
    fn replace_front(&mut self, removed: usize, added: usize) -> Option<&mut [u8]> {
        let start = (usize::from(self.0.start) + removed).checked_sub(added)?;
        self.0.start = start as u16;
        self.0.bytes.get_mut(start..start + added)
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) {
        self.0.end = self.0.end.min(self.0.start + len as u16);
    }
}
