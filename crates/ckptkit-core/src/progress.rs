//! What a caller is told of a copy: its progress, and how it went; and cancelling.

use std::ops::ControlFlow;

/// How far a copy has come, in bytes of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes written so far.
    pub bytes_done: u64,
    /// Bytes that the whole output will have.
    pub bytes_total: u64,
}

impl Progress {
    /// Makes a report.
    #[must_use]
    pub fn new(bytes_done: u64, bytes_total: u64) -> Self {
        Self { bytes_done, bytes_total }
    }
}

/// What was written, and by which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyReport {
    /// Files written.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Those of them that share their place on the disk with the source.
    pub shared_bytes: u64,
    /// Those of them that went past the page cache.
    pub direct_bytes: u64,
}

/// Is told of progress, from any of the working threads, and may stop the work.
pub trait Observer: Send + Sync {
    /// Called at least every few MiB; [`ControlFlow::Break`] stops the work, which then ends with
    /// [`Cancelled`](crate::ErrorKind::Cancelled) and leaves no output behind.
    fn on_progress(&self, progress: Progress) -> ControlFlow<()>;

    /// Called once, when the output stands at its destination.
    fn on_written(&self, report: &CopyReport) {
        let _ = report;
    }
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn on_progress(&self, _: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}
