//! Reading a compressed stream by position, in bounded memory.

use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use crate::read_at::ReadAt;

/// How many decoders are kept open: one for each of a few readers that advance side by side.
const CURSORS: usize = 4;

type Open = Box<dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync>;

/// A [`ReadAt`] over something that can only be decoded from its start: a deflated zip member, a
/// zstd frame. Reads that go forward cost what they decode; a read that goes back before every
/// open decoder starts a new one. Memory is that of a few decoders, whatever the length.
pub struct Sequential {
    open: Open,
    size: u64,
    name: String,
    cursors: Mutex<Vec<Cursor>>,
}

struct Cursor {
    decoder: Box<dyn Read + Send>,
    position: u64,
}

impl Sequential {
    /// `open` starts a decoder at the beginning of the stream, which holds `size` bytes when
    /// decoded; `name` is what messages call it.
    pub fn new(
        name: impl Into<String>,
        size: u64,
        open: impl Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync + 'static,
    ) -> Self {
        Self { open: Box::new(open), size, name: name.into(), cursors: Mutex::default() }
    }

    fn take(&self, offset: u64) -> io::Result<Cursor> {
        let mut cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        let best = (0..cursors.len())
            .filter(|&i| cursors[i].position <= offset)
            .max_by_key(|&i| cursors[i].position);
        match best {
            Some(i) => Ok(cursors.swap_remove(i)),
            None => Ok(Cursor { decoder: (self.open)()?, position: 0 }),
        }
    }

    fn put_back(&self, cursor: Cursor) {
        let mut cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        if cursors.len() == CURSORS {
            cursors.remove(0);
        }
        cursors.push(cursor);
    }
}

impl ReadAt for Sequential {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut cursor = self.take(offset)?;
        let skip = offset - cursor.position;
        let skipped = io::copy(&mut cursor.decoder.by_ref().take(skip), &mut io::sink())?;
        if skipped < skip {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        cursor.decoder.read_exact(out)?;
        cursor.position = offset + out.len() as u64;
        self.put_back(cursor);
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn forward_reads_share_a_decoder() {
        let opened = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&opened);
        let s = Sequential::new("s", 1000, move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(io::Cursor::new((0..1000u32).map(|i| (i % 251) as u8).collect::<Vec<_>>())))
        });
        let mut b = [0; 4];
        for at in (0..900).step_by(100) {
            s.read_exact_at(at, &mut b).unwrap();
            assert_eq!(u64::from(b[0]), at % 251);
        }
        assert_eq!(opened.load(Ordering::Relaxed), 1);
        s.read_exact_at(7, &mut b).unwrap();
        assert_eq!(b, [7, 8, 9, 10]);
        assert_eq!(opened.load(Ordering::Relaxed), 2);
        assert!(s.read_exact_at(998, &mut b).is_err());
    }
}
