//! A file as a source of bytes.

use std::fs::File;
use std::io;

use crate::read_at::ReadAt;

use self::per_thread::PerThread;

/// A file that many threads read at once.
pub(crate) struct FileSource {
    file: File,
    size: u64,
    name: String,
    per_thread: PerThread,
}

impl FileSource {
    /// A file of `size` bytes; `name` is what messages call it.
    pub(crate) fn new(file: File, size: u64, name: String) -> Self {
        Self { file, size, name, per_thread: PerThread::default() }
    }
}

impl ReadAt for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    #[cfg(unix)]
    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let file = self.per_thread.open(&self.file, out.len());
        std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
    }

    #[cfg(windows)]
    fn read_exact_at(&self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let file = self.per_thread.open(&self.file, out.len());
        while !out.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(file, out, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    out = &mut out[n..];
                    offset += n as u64;
                }
            }
        }
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn file(&self) -> Option<&File> {
        Some(&self.file)
    }
}

/// What each thread reads a file through.
///
/// Linux reads ahead of what it takes for one reader, which is all that reads through one open
/// file: two threads at two places look like one that jumps about, ahead of which nothing can be
/// read. So each has the file open for itself.
#[cfg(target_os = "linux")]
mod per_thread {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// More threads than that share.
    const THREADS: usize = 4;
    /// Shorter reads are not those of a copy, in bytes.
    const LEAST: usize = 64 << 10;
    /// Files that are opened once more at the same time; a process may have 1024 open, commonly.
    const MOST: usize = 64;

    static OPEN: AtomicUsize = AtomicUsize::new(0);
    static NEXT: AtomicUsize = AtomicUsize::new(0);

    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed) % THREADS;
    }

    /// The file, opened once more for each thread but those of the first number.
    #[derive(Default)]
    pub(super) struct PerThread([OnceLock<Option<Again>>; THREADS - 1]);

    impl PerThread {
        pub(super) fn open<'a>(&'a self, file: &'a File, len: usize) -> &'a File {
            if len < LEAST {
                return file;
            }
            let number = NUMBER.with(|number| *number);
            let Some(own) = number.checked_sub(1).and_then(|n| self.0.get(n)) else { return file };
            own.get_or_init(|| Again::open(file)).as_ref().map_or(file, |again| &again.0)
        }
    }

    /// A file that is open once more, and counted.
    struct Again(File);

    impl Again {
        /// `None` where it cannot be, which costs only time.
        fn open(file: &File) -> Option<Self> {
            if OPEN.fetch_add(1, Ordering::Relaxed) < MOST {
                // By its path it might be another file by now.
                if let Ok(file) = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())) {
                    return Some(Self(file));
                }
            }
            OPEN.fetch_sub(1, Ordering::Relaxed);
            None
        }
    }

    impl Drop for Again {
        fn drop(&mut self) {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn threads_read_through_files_of_their_own() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("f");
            std::fs::write(&path, b"before").unwrap();
            let file = File::open(&path).unwrap();
            // What is opened again is the same file, whatever its path is now.
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, b"another file").unwrap();
            let files = PerThread::default();
            let mut seen = std::collections::BTreeSet::new();
            // Other threads of this process take numbers as well.
            for _ in 0..1000 {
                let read = || {
                    let short = files.open(&file, LEAST - 1);
                    assert_eq!(short.as_raw_fd(), file.as_raw_fd());
                    let own = files.open(&file, LEAST);
                    (own.as_raw_fd(), own.metadata().unwrap().len())
                };
                seen.insert(std::thread::scope(|s| s.spawn(read).join().unwrap()));
                if seen.len() == THREADS {
                    break;
                }
            }
            assert_eq!(seen.len(), THREADS);
            assert!(seen.iter().all(|(_, len)| *len == 6), "{seen:?}");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod per_thread {
    use std::fs::File;

    #[derive(Default)]
    pub(super) struct PerThread;

    impl PerThread {
        pub(super) fn open<'a>(&'a self, file: &'a File, _: usize) -> &'a File {
            file
        }
    }
}
