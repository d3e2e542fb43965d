//! A whole archive that is laid out and not yet written.

use std::path::Path;

use ckptkit_core::{CopyOptions, CopyReport, Existing, Layout, OutputFile, Result};

use super::report::Change;

/// A whole archive: every byte has its place, and none has moved.
#[derive(Clone, Debug)]
pub struct NewArchive {
    pub(crate) file: OutputFile,
    pub(crate) changes: Vec<Change>,
    pub(crate) notes: Vec<String>,
}

impl NewArchive {
    /// The archive as a file to be.
    #[must_use]
    pub fn file(&self) -> &OutputFile {
        &self.file
    }

    /// The archive as a file to be, for who nests it or writes it otherwise.
    #[must_use]
    pub fn into_file(self) -> OutputFile {
        self.file
    }

    /// What is other than in the source, in the order in which it was asked for.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What a person should know about the result.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Writes the archive beside `destination` and moves it there when it is complete.
    ///
    /// # Errors
    /// As [`Layout::write`].
    pub fn write(
        self,
        destination: impl AsRef<Path>,
        existing: Existing,
        options: &CopyOptions<'_>,
    ) -> Result<CopyReport> {
        Layout::file(self.file).write(destination, existing, options)
    }
}
