//! What bytes are read from.

use std::fs::File;
use std::io;
use std::ops::Range;

/// Bytes that can be read at any position by many threads at once: a file, memory, later an object
/// in a store.
pub trait ReadAt: Send + Sync {
    /// The length in bytes, fixed when the source was opened.
    fn size(&self) -> u64;

    /// Fills `out` from `offset`, an absolute position in bytes.
    ///
    /// # Errors
    /// Those of the source; [`io::ErrorKind::UnexpectedEof`] when it ends early.
    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// The bytes themselves where they are in memory already.
    fn as_slice(&self, range: Range<u64>) -> Option<&[u8]> {
        let _ = range;
        None
    }

    /// What to call the source in messages.
    fn name(&self) -> &str {
        "input"
    }

    /// The file behind it, for copies that the operating system can do by itself; positions in the
    /// file are those of [`ReadAt::read_exact_at`].
    fn file(&self) -> Option<&File> {
        None
    }
}
