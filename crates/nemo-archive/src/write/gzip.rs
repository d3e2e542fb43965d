//! Archives inside gzip, which is what NeMo before 1.7 wants.
//!
//! The length of a compressed stream is not known before it is made, so it is no layout: the plain
//! archive is written beside the destination first, then compressed, then removed.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use ckptkit_core::{
    CopyOptions, CopyReport, Error, Existing, Layout, Observer, Output, Progress, Result, Section,
};
use flate2::{Compression, write::GzEncoder};

use super::archive::NewArchive;

const BUFFER: usize = 256 << 10;

impl NewArchive {
    /// As [`NewArchive::write`], compressed with gzip, for releases of NeMo before 1.7. Takes room
    /// for the plain archive beside the destination while it runs. Tensors in it can no longer be
    /// read where they lie.
    ///
    /// # Errors
    /// As [`NewArchive::write`].
    pub fn write_gzip(
        self,
        destination: impl AsRef<Path>,
        existing: Existing,
        options: &CopyOptions<'_>,
    ) -> Result<CopyReport> {
        write(self, destination.as_ref(), existing, options)
    }
}

fn write(
    archive: NewArchive,
    destination: &Path,
    existing: Existing,
    options: &CopyOptions<'_>,
) -> Result<CopyReport> {
    let output = Output::file(destination, existing)?;
    let folder = match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let scratch = tempfile::Builder::new()
        .prefix(".ckptkit-tmp")
        .tempdir_in(folder)
        .map_err(|e| Error::io("create a temporary folder", e).in_file(folder))?;
    let plain = scratch.path().join("archive.tar");
    let total = archive.file.len().saturating_mul(2);
    let first = Part { observer: options.observer, done: 0, total };
    let mut copy = CopyOptions::default();
    (copy.threads, copy.observer) = (options.threads, &first);
    Layout::file(archive.file).write(&plain, Existing::Refuse, &copy)?;

    let source = Section::open(&plain)?;
    let second = Part { observer: options.observer, done: source.len(), total };
    let fail = |e: io::Error| Error::io("write the output", e).in_file(destination);
    // No name and no time in its header: the same input gives the same bytes.
    let target = BufWriter::with_capacity(BUFFER, output.create(None)?);
    let mut encoder = GzEncoder::new(target, Compression::default());
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    while at < source.len() {
        let len = usize::try_from(source.len() - at).unwrap_or(BUFFER).min(BUFFER);
        source.read_at(at, &mut buffer[..len])?;
        encoder.write_all(&buffer[..len]).map_err(fail)?;
        at += len as u64;
        if second.on_progress(Progress::new(at, source.len())).is_break() {
            return Err(Error::cancelled());
        }
    }
    let file = encoder.finish().map_err(fail)?.into_inner().map_err(|e| fail(e.into_error()))?;
    let bytes = file.metadata().map_err(fail)?.len();
    drop(file);
    output.commit(options.sync)?;
    let mut report = CopyReport::default();
    (report.files, report.bytes) = (1, bytes);
    options.observer.on_written(&report);
    Ok(report)
}

/// One of the two passes over the bytes.
struct Part<'a> {
    observer: &'a dyn Observer,
    done: u64,
    total: u64,
}

impl Observer for Part<'_> {
    fn on_progress(&self, progress: Progress) -> ControlFlow<()> {
        self.observer.on_progress(Progress::new(self.done + progress.bytes_done, self.total))
    }
}
