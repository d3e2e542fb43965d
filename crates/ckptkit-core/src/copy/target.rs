//! One output file and the ways into it.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::buffer::ALIGN;
use super::fill::{BUFFER, run_of};
use super::kernel::{self, Sharing};
use crate::error::{Error, Result};
use crate::layout::OutputFile;
use crate::parts::Stretch;
use crate::section::Section;

/// Written past the page cache at once, in bytes: disks want long requests.
const DIRECT_BLOCK: usize = 8 << 20;
/// Shorter ranges are not worth a call for each, in bytes.
const LEAST_SHARED: u64 = 64 << 10;
/// Ranges that lie so near each other are fetched as one, in bytes.
const NEAR: u64 = 1 << 20;

pub(super) struct Target<'a> {
    pub(super) output: &'a OutputFile,
    file: File,
    /// The same file, opened to be written past the page cache.
    direct: Option<File>,
    direct_refused: AtomicBool,
    sharing: Option<Sharing>,
    sharing_refused: AtomicBool,
}

impl<'a> Target<'a> {
    /// Makes room in a file that was just created at `path`.
    pub(super) fn new(
        file: File,
        path: &Path,
        output: &'a OutputFile,
        direct: bool,
        sharing: Option<Sharing>,
    ) -> Result<Self> {
        let len = output.len();
        file.set_len(len).map_err(|e| Error::io(format_args!("make room for {len} bytes"), e))?;
        let direct = direct && sharing.is_none() && output.len() >= DIRECT_BLOCK as u64;
        Ok(Self {
            output,
            direct: direct.then(|| kernel::open_direct(path)).flatten(),
            file,
            direct_refused: AtomicBool::new(false),
            sharing,
            sharing_refused: AtomicBool::new(false),
        })
    }

    /// How many bytes are to be written at once from `at`, where it matters.
    pub(super) fn block(&self, at: u64) -> Option<usize> {
        let direct = self.direct.is_some() && !self.direct_refused.load(Ordering::Relaxed);
        (direct && at % ALIGN as u64 == 0).then_some(DIRECT_BLOCK)
    }

    /// Writes bytes at an offset; says whether they went past the page cache.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<bool> {
        let fail = |e| Error::io("write the output", e).at(at);
        let aligned = at % ALIGN as u64 == 0 && bytes.len() % ALIGN == 0;
        if let Some(direct) = self.direct.as_ref().filter(|_| aligned) {
            if !self.direct_refused.load(Ordering::Relaxed) {
                match write_at(direct, at, bytes) {
                    Ok(()) => return Ok(true),
                    // Not every file system that lets one open a file so lets one write it.
                    Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => {
                        self.direct_refused.store(true, Ordering::Relaxed);
                    }
                    Err(e) => return Err(fail(e)),
                }
            }
        }
        for (piece, at) in bytes.chunks(BUFFER).zip((at..).step_by(BUFFER)) {
            write_at(&self.file, at, piece).map_err(fail)?;
        }
        Ok(false)
    }

    /// Lets the bytes of a stretch from `at` share the place of the source's on the disk; says how
    /// many do, which may be none.
    pub(super) fn share(&self, stretch: &Stretch<'_>, at: u64) -> u64 {
        let next = self.next_shared(stretch, at).filter(|(start, _)| *start == at);
        let Some((start, len)) = next else { return 0 };
        let (from, segment) = &stretch.file.segments()[stretch.file.segment_at(start)];
        let Some(run) = run_of(segment) else { return 0 };
        let Some(source) = run.source().file() else { return 0 };
        let (there, here) = (run.offset() + (start - from), stretch.base + start);
        if kernel::copy_range(source, there, &self.file, here, len) {
            return len;
        }
        self.sharing_refused.store(true, Ordering::Relaxed);
        0
    }

    /// Where a range that can be shared starts behind `at`; the end of the stretch where there is
    /// none.
    pub(super) fn until_shared(&self, stretch: &Stretch<'_>, at: u64) -> u64 {
        self.next_shared(stretch, at + 1).map_or(stretch.range.end, |(start, _)| start)
    }

    /// The next range from `at` that can be shared: where it starts, and its length.
    fn next_shared(&self, stretch: &Stretch<'_>, at: u64) -> Option<(u64, u64)> {
        let sharing = self.sharing?;
        let (file, base, end) = (&stretch.file, stretch.base, stretch.range.end);
        if at >= end || self.sharing_refused.load(Ordering::Relaxed) {
            return None;
        }
        for (start, segment) in &file.segments()[file.segment_at(at)..] {
            if *start >= end {
                break;
            }
            let Some(run) = run_of(segment).filter(|r| r.len() >= LEAST_SHARED) else { continue };
            // Blocks are those of the output.
            let start = base + start;
            let from = start.max(base + at).next_multiple_of(sharing.block);
            let to = (base + end).min(start + run.len()) / sharing.block * sharing.block;
            let congruent = (run.offset() + from.saturating_sub(start)) % sharing.block == 0;
            if congruent && from + LEAST_SHARED <= to && sharing.reaches(run) {
                return Some((from - base, to - from));
            }
        }
        None
    }

    /// Has the operating system fetch what a range of the output is made of, where it is not in
    /// memory already.
    pub(super) fn expect(&self, range: Range<u64>) {
        let mut at = range.start;
        // What cannot be laid out is an error when it is written.
        while let Some(Ok(stretch)) = (at < range.end).then(|| self.output.stretch(at..range.end)) {
            expect(&stretch);
            at = stretch.end();
        }
    }

    /// Writes four bytes or so over what was written already.
    pub(super) fn patch(&self, at: u64, bytes: &[u8]) -> std::io::Result<()> {
        write_at(&self.file, at, bytes)
    }
}

fn expect(stretch: &Stretch<'_>) {
    let (file, range) = (&stretch.file, &stretch.range);
    let mut last: Option<(&Section, Range<u64>)> = None;
    for (start, segment) in &file.segments()[file.segment_at(range.start)..] {
        if *start >= range.end {
            break;
        }
        let Some(run) = run_of(segment) else { continue };
        let skip = range.start.saturating_sub(*start);
        let len = run.len().min(range.end - start).saturating_sub(skip);
        let wanted = run.offset() + skip..run.offset() + skip + len;
        match &mut last {
            Some((of, known))
                if Arc::ptr_eq(of.source(), run.source())
                    && wanted.start >= known.end
                    && wanted.start - known.end <= NEAR =>
            {
                known.end = wanted.end;
            }
            _ => {
                fetch(last.replace((run, wanted)));
            }
        }
    }
    fetch(last);
}

fn fetch(wanted: Option<(&Section, Range<u64>)>) {
    if let Some((section, range)) = wanted {
        if let Some(file) = section.source().file() {
            kernel::fetch(file, range);
        }
    }
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
