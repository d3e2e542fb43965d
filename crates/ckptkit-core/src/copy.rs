//! The engine that runs a layout: pieces of the output taken from a counter by a few threads, each
//! with one buffer.

mod checksum;

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use self::checksum::{Part, Sums};
use crate::atomic::{Existing, Output};
use crate::error::{Error, Result};
use crate::gather::Gather;
use crate::layout::{Layout, OutputFile, Segment};
use crate::progress::{Observer, Progress, Unobserved};
use crate::tensor::TensorBytes;

/// Stays in the L2 cache of one core between the read and the write.
const BUFFER: usize = 512 << 10;
/// A view's rows lie far apart: more of them at once make longer runs in its storage.
const GATHER_BUFFER: usize = 4 << 20;
/// What a thread takes at a time.
const PIECE: u64 = 16 << 20;

/// How a layout is written.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct CopyOptions<'a> {
    /// Threads that move bytes; 0 (the default) chooses. Memory is threads × a few MiB. What is
    /// written does not depend on it.
    pub threads: usize,
    /// Whether the output is forced to the disk before it is moved into place.
    pub sync: bool,
    /// Is told of progress and may stop the work.
    pub observer: &'a dyn Observer,
}

impl Default for CopyOptions<'_> {
    fn default() -> Self {
        Self { threads: 0, sync: false, observer: &Unobserved }
    }
}

impl std::fmt::Debug for CopyOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyOptions")
            .field("threads", &self.threads)
            .field("sync", &self.sync)
            .finish_non_exhaustive()
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyReport {
    /// Files written.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Layout {
    /// Writes the files beside `destination` and moves them there when all are complete.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) when the destination is taken, those
    /// of reading and writing, [`Cancelled`](crate::ErrorKind::Cancelled). The destination is then
    /// as it was, and nothing is left beside it.
    pub fn write(
        &self,
        destination: impl AsRef<Path>,
        existing: Existing,
        options: &CopyOptions<'_>,
    ) -> Result<CopyReport> {
        run(self, destination.as_ref(), existing, options)
    }
}

fn run(
    layout: &Layout,
    destination: &Path,
    existing: Existing,
    options: &CopyOptions<'_>,
) -> Result<CopyReport> {
    let output = if layout.is_directory() {
        Output::directory(destination, existing)?
    } else {
        Output::file(destination, existing)?
    };
    let mut targets = Vec::with_capacity(layout.files.len());
    for (path, file) in &layout.files {
        let target = output.create(path.as_ref())?;
        target.set_len(file.len()).map_err(|e| {
            Error::io(format_args!("make room for {} bytes", file.len()), e)
                .in_file(output.path_of(path.as_ref()))
        })?;
        targets.push((target, file));
    }
    Engine::new(&targets, options).run().map_err(|e| match e.kind() {
        crate::ErrorKind::Io if e.file().is_none() => e.in_file(destination),
        _ => e,
    })?;
    drop(targets);
    output.commit(options.sync)?;
    Ok(CopyReport { files: layout.files.len(), bytes: layout.total_bytes() })
}

struct Piece {
    file: usize,
    start: u64,
    end: u64,
}

struct Engine<'a> {
    targets: &'a [(File, &'a OutputFile)],
    pieces: Vec<Piece>,
    next: AtomicUsize,
    stop: AtomicBool,
    done: AtomicU64,
    total: u64,
    /// (file, checksums of parts of it).
    parts: Mutex<Vec<(usize, Part)>>,
    failure: Mutex<Option<Error>>,
    options: &'a CopyOptions<'a>,
}

impl<'a> Engine<'a> {
    fn new(targets: &'a [(File, &'a OutputFile)], options: &'a CopyOptions<'a>) -> Self {
        let mut pieces = Vec::new();
        for (file, (_, output)) in targets.iter().enumerate() {
            let mut start = 0;
            while start < output.len() {
                let end = output.len().min(start + PIECE);
                pieces.push(Piece { file, start, end });
                start = end;
            }
        }
        Self {
            total: targets.iter().map(|(_, f)| f.len()).sum(),
            targets,
            pieces,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            done: AtomicU64::new(0),
            parts: Mutex::default(),
            failure: Mutex::new(None),
            options,
        }
    }

    fn run(&self) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        let threads = if self.options.threads == 0 { cores } else { self.options.threads.min(64) };
        let threads = threads.min(self.pieces.len()).max(1);
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| self.work());
            }
            self.work();
        });
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => self.put_checksums(),
        }
    }

    /// Writes the checksums over the bytes that wait for them.
    fn put_checksums(&self) -> Result<()> {
        let mut parts =
            std::mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner));
        parts.sort_unstable_by_key(|(file, part)| (*file, part.start));
        let mut parts = parts.into_iter().peekable();
        for (index, (target, file)) in self.targets.iter().enumerate() {
            let of_file =
                std::iter::from_fn(|| parts.next_if(|(f, _)| *f == index).map(|(_, p)| p));
            checksum::put(target, file, of_file)?;
        }
        Ok(())
    }

    fn work(&self) {
        let mut mover = Mover { buffer: Vec::new(), gather: Gather::default() };
        while !self.stop.load(Ordering::Relaxed) {
            let Some(piece) = self.pieces.get(self.next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            if let Err(error) = self.piece(piece, &mut mover) {
                self.stop.store(true, Ordering::Relaxed);
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(error);
                return;
            }
        }
    }

    fn piece(&self, piece: &Piece, mover: &mut Mover) -> Result<()> {
        let (target, output) = &self.targets[piece.file];
        let mut sums = Sums::new(output.sums(), piece.start);
        let mut at = piece.start;
        while at < piece.end {
            let bytes = mover.step(output, at, piece.end)?;
            sums.update(at, bytes);
            write_at(target, at, bytes).map_err(|e| Error::io("write the output", e).at(at))?;
            let written = bytes.len() as u64;
            at += written;
            let done = self.done.fetch_add(written, Ordering::Relaxed) + written;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.options.observer.on_progress(Progress::new(done, self.total)).is_break() {
                return Err(Error::cancelled());
            }
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.extend(sums.into_parts().map(|part| (piece.file, part)));
        Ok(())
    }
}

struct Mover {
    buffer: Vec<u8>,
    gather: Gather,
}

impl Mover {
    /// The output from `at`, as much of it as the buffer takes.
    fn step(&mut self, output: &OutputFile, at: u64, end: u64) -> Result<&[u8]> {
        let segments = output.segments();
        let mut index = segments.partition_point(|(start, _)| *start <= at) - 1;
        let want = if gathers(&segments[index].1) { GATHER_BUFFER } else { BUFFER };
        let len = usize::try_from(end - at).unwrap_or(want).min(want);
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        let mut filled = 0;
        while filled < len {
            let (start, segment) = &segments[index];
            let skip = at + filled as u64 - start;
            let n = usize::try_from(segment.len() - skip).unwrap_or(len).min(len - filled);
            let part = &mut self.buffer[filled..filled + n];
            match segment {
                Segment::Literal(bytes) => {
                    let skip = usize::try_from(skip).unwrap_or(bytes.len());
                    part.copy_from_slice(&bytes[skip..skip + n]);
                }
                Segment::Section(section) => section.read_at(skip, part)?,
                Segment::Tensor(tensor) => self.gather.read(tensor, skip, part)?,
                Segment::Fill { byte, .. } => part.fill(*byte),
            }
            filled += n;
            index += 1;
        }
        Ok(&self.buffer[..len])
    }
}

fn gathers(segment: &Segment) -> bool {
    matches!(segment, Segment::Tensor(t) if !matches!(t.bytes(), TensorBytes::Range(_)))
}

#[cfg(unix)]
fn write_at(file: &File, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        bytes = &bytes[n..];
        offset += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry_path::EntryPath;
    use crate::section::Section;
    use std::ops::ControlFlow;

    fn sample() -> (OutputFile, Vec<u8>) {
        let mut file = OutputFile::default();
        let mut expected = Vec::new();
        for i in 0..2000_u32 {
            let bytes: Vec<u8> = (0..i * 17 % 30_000).map(|k| (k * i % 251) as u8).collect();
            expected.extend_from_slice(&bytes);
            let segment = if i % 2 == 0 {
                Segment::Literal(bytes)
            } else {
                Segment::Section(Section::from_bytes(bytes, "s"))
            };
            file.push(segment).unwrap();
        }
        (file, expected)
    }

    #[test]
    fn bytes_do_not_depend_on_threads() {
        let (file, expected) = sample();
        assert!(file.len() > PIECE);
        let dir = tempfile::tempdir().unwrap();
        for threads in [1, 3] {
            let to = dir.path().join(threads.to_string());
            let options = CopyOptions { threads, ..CopyOptions::default() };
            let report = Layout::file(file.clone()).write(&to, Existing::Refuse, &options).unwrap();
            assert_eq!(report.bytes, expected.len() as u64);
            assert!(std::fs::read(&to).unwrap() == expected);
        }
    }

    #[test]
    fn a_cancelled_run_leaves_nothing() {
        struct Stop;
        impl Observer for Stop {
            fn on_progress(&self, p: Progress) -> ControlFlow<()> {
                if p.bytes_done > 1 << 20 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let mut layout = Layout::directory();
        layout.add(EntryPath::new("a/b").unwrap(), sample().0).unwrap();
        assert!(layout.add(EntryPath::new("a/b").unwrap(), OutputFile::default()).is_err());
        let options = CopyOptions { observer: &Stop, ..CopyOptions::default() };
        let error = layout.write(dir.path().join("out"), Existing::Refuse, &options).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Cancelled);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
