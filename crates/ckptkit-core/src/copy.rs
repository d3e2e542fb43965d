//! The engine that runs a layout: pieces of the output taken from a counter by a few threads, each
//! with one buffer.
//!
//! Bytes go by one of three ways, which never differ in what is written: through a buffer that stays
//! in the cache of a core; by the kernel, which shares extents where the file system can; or past
//! the page cache, where the output is to be on the disk in the end anyway.

mod buffer;
mod checksum;
mod fill;
#[cfg_attr(not(all(feature = "kernel", target_os = "linux")), path = "copy/portable.rs")]
mod kernel;
mod pieces;
mod target;

use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use self::buffer::Buffer;
use self::checksum::{Part, Sums};
use self::fill::Filler;
use self::kernel::Sharing;
use self::pieces::Piece;
use self::target::Target;
use crate::atomic::{Existing, Output};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::parts::Stretch;
use crate::progress::{CopyReport, Observer, Progress, Unobserved};

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

impl Layout {
    /// Writes the files beside `destination` and moves them there when all are complete.
    ///
    /// With the feature `kernel`, on Linux, ranges whose offsets agree with the source's modulo the
    /// block size share the source's extents where the file system can (xfs, btrfs), and an output
    /// that is forced to the disk is written past the page cache. The bytes are the same.
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
    let direct = kernel::worth_direct(layout.total_bytes(), options.sync);
    let sharing = output.folder().and_then(Sharing::probe);
    let mut targets = Vec::with_capacity(layout.files.len());
    for (path, file) in &layout.files {
        let target = output.create(path.as_ref())?;
        let at = output.path_of(path.as_ref());
        let target = Target::new(target, &at, file, direct, sharing);
        targets.push(target.map_err(|e| e.in_file(output.place_of(path.as_ref())))?);
    }
    let engine = Engine::new(&targets, options);
    engine.run().map_err(|e| match e.kind() {
        crate::ErrorKind::Io if e.file().is_none() => e.in_file(destination),
        _ => e,
    })?;
    let report = CopyReport {
        files: layout.files.len(),
        bytes: layout.total_bytes(),
        shared_bytes: engine.shared.load(Ordering::Relaxed),
        direct_bytes: engine.direct.load(Ordering::Relaxed),
    };
    drop(targets);
    output.commit(options.sync)?;
    options.observer.on_written(&report);
    Ok(report)
}

struct Engine<'a> {
    targets: &'a [Target<'a>],
    pieces: Vec<Piece>,
    next: AtomicUsize,
    stop: AtomicBool,
    done: AtomicU64,
    shared: AtomicU64,
    direct: AtomicU64,
    total: u64,
    /// Checksums of parts of the outputs.
    parts: Mutex<Vec<Waiting>>,
    failure: Mutex<Option<Error>>,
    threads: usize,
    observer: &'a dyn Observer,
}

/// A part of a checksum, and the file that it is in.
struct Waiting {
    file: usize,
    /// Whether what it is a checksum of was laid out while it was written.
    made: bool,
    part: Part,
}

impl<'a> Engine<'a> {
    fn new(targets: &'a [Target<'a>], options: &CopyOptions<'a>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        let threads = if options.threads == 0 { cores } else { options.threads.min(64) };
        let pieces = pieces::cut(targets.iter().map(|t| t.output.len()), threads);
        Self {
            total: targets.iter().map(|t| t.output.len()).sum(),
            targets,
            threads: threads.min(pieces.len()).max(1),
            pieces,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            done: AtomicU64::new(0),
            shared: AtomicU64::new(0),
            direct: AtomicU64::new(0),
            parts: Mutex::default(),
            failure: Mutex::new(None),
            observer: options.observer,
        }
    }

    fn run(&self) -> Result<()> {
        std::thread::scope(|scope| {
            for _ in 1..self.threads {
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
        parts.sort_unstable_by_key(|p| (p.file, p.made, p.part.start));
        let mut parts = parts.into_iter().peekable();
        for (index, target) in self.targets.iter().enumerate() {
            let plain = |w: &Waiting| w.file == index && !w.made;
            let of_file = std::iter::from_fn(|| parts.next_if(plain).map(|w| w.part));
            checksum::put(target, &target.output.plain(0..target.output.len()), of_file)?;
            while let Some(next) = parts.peek().filter(|w| w.file == index) {
                let stretch = target.output.stretch(next.part.start..next.part.start + 1)?;
                let end = stretch.base + stretch.file.len();
                let within = |w: &Waiting| w.file == index && w.part.start < end;
                let of_part = std::iter::from_fn(|| parts.next_if(within).map(|w| w.part));
                checksum::put(target, &stretch, of_part)?;
            }
        }
        Ok(())
    }

    fn work(&self) {
        let mut filler = Filler::default();
        let mut buffer = Buffer::default();
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = self.pieces.get(index) else { return };
            // The disk fetches what this thread takes next while it moves what is here.
            if let Some(ahead) = self.pieces.get(index + self.threads) {
                self.targets[ahead.file].expect(ahead.range.clone());
            }
            if let Err(error) = self.piece(piece, &mut filler, &mut buffer) {
                self.stop.store(true, Ordering::Relaxed);
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(error);
                return;
            }
        }
    }

    fn piece(&self, piece: &Piece, filler: &mut Filler, buffer: &mut Buffer) -> Result<()> {
        let target = &self.targets[piece.file];
        let mut at = piece.range.start;
        while at < piece.range.end && !self.stop.load(Ordering::Relaxed) {
            let stretch = target.output.stretch(at..piece.range.end)?;
            let parts = self.stretch(target, &stretch, filler, buffer)?;
            let made = stretch.is_made();
            let mut waiting = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.extend(parts.into_iter().map(|part| Waiting { file: piece.file, made, part }));
            at = stretch.end();
        }
        Ok(())
    }

    fn stretch(
        &self,
        target: &Target<'_>,
        stretch: &Stretch<'_>,
        filler: &mut Filler,
        buffer: &mut Buffer,
    ) -> Result<Vec<Part>> {
        let mut sums = Sums::new(stretch);
        let mut at = stretch.range.start;
        while at < stretch.range.end {
            let shared = target.share(stretch, at);
            let end = if shared > 0 { at + shared } else { target.until_shared(stretch, at) };
            // What the kernel has copied is read only where its checksum is wanted.
            if shared > 0 && !sums.wants(at..end) {
                at = end;
                self.shared.fetch_add(shared, Ordering::Relaxed);
                self.tell(shared)?;
                continue;
            }
            while at < end {
                let place = stretch.base + at;
                let bytes = filler.fill(&stretch.file, at, end, buffer, target.block(place))?;
                sums.update(at, bytes);
                if stretch.is_made() {
                    sums.fill(at, bytes);
                }
                if shared == 0 && target.write(place, bytes)? {
                    self.direct.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
                let written = bytes.len() as u64;
                at += written;
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(Vec::new());
                }
                self.tell(written)?;
            }
            self.shared.fetch_add(shared, Ordering::Relaxed);
        }
        Ok(sums.into_parts().collect())
    }

    fn tell(&self, written: u64) -> Result<()> {
        let done = self.done.fetch_add(written, Ordering::Relaxed) + written;
        match self.observer.on_progress(Progress::new(done, self.total)).is_break() {
            true => Err(Error::cancelled()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
