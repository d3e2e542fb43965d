//! A buffer that starts at a block of memory, as writing past the page cache asks for.

/// What devices and memory are cut into, at most.
pub(super) const ALIGN: usize = 4096;

/// Keeps its memory between uses.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    /// `len` bytes that start at a multiple of [`ALIGN`] in memory; what they hold is unspecified.
    pub(super) fn get(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < len + ALIGN {
            self.bytes = vec![0; len + ALIGN];
        }
        let start = self.bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        &mut self.bytes[start..start + len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_aligned_whatever_its_length() {
        let mut buffer = Buffer::default();
        for len in [1, 5000, 100, 1 << 20] {
            let bytes = buffer.get(len);
            assert_eq!(bytes.len(), len);
            assert_eq!(bytes.as_ptr().align_offset(ALIGN), 0);
        }
    }
}
