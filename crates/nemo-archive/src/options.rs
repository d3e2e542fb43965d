//! How an archive is opened.

use std::path::Path;

use ckptkit_core::{Limits, Result, Section};

use crate::archive::NemoArchive;
use crate::limits::ArchiveLimits;

/// How to open an archive, where the defaults of [`NemoArchive::open`] do not fit.
///
/// ```
/// # fn main() -> ckptkit_core::Result<()> {
/// use nemo_archive::OpenOptions;
///
/// let missing = OpenOptions::new().members_only(true).open("no-such.nemo");
/// assert_eq!(missing.unwrap_err().kind(), ckptkit_core::ErrorKind::NotFound);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    pub(crate) limits: ArchiveLimits,
    pub(crate) torch_limits: Limits,
    pub(crate) members_only: bool,
    pub(crate) mapped: bool,
    #[cfg(feature = "distcp")]
    pub(crate) allow_partial: bool,
}

impl OpenOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bounds on the archive and its config.
    #[must_use]
    pub fn limits(mut self, limits: ArchiveLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Bounds on the torch checkpoints inside.
    #[must_use]
    pub fn torch_limits(mut self, limits: Limits) -> Self {
        self.torch_limits = limits;
        self
    }

    /// Reads the headers of the members only. [`NemoArchive::config`] and
    /// [`NemoArchive::weights`] are then read when they are asked for, so that an archive with a
    /// broken config or without weights can still be looked into.
    #[must_use]
    pub fn members_only(mut self, yes: bool) -> Self {
        self.members_only = yes;
        self
    }

    /// Reads what no rank has saved of a distributed checkpoint inside the archive as zeros, as
    /// [`distcp::OpenOptions::allow_partial`] does; other weights have no such regions.
    #[cfg(feature = "distcp")]
    #[must_use]
    pub fn allow_partial(mut self, yes: bool) -> Self {
        self.allow_partial = yes;
        self
    }

    /// Maps files into memory, so that tensors can be borrowed without a copy. Only for files that
    /// nobody changes meanwhile; see [`Section::open_mapped`].
    #[cfg(feature = "mmap")]
    #[must_use]
    pub fn mapped(mut self, yes: bool) -> Self {
        self.mapped = yes;
        self
    }

    /// Opens an archive or an unpacked directory, told apart by what is there.
    ///
    /// # Errors
    /// As [`NemoArchive::open`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<NemoArchive> {
        let path = path.as_ref();
        if path.is_dir() {
            return NemoArchive::of_directory(path, self);
        }
        #[cfg(feature = "mmap")]
        if self.mapped {
            return self.open_section(Section::open_mapped(path)?);
        }
        self.open_section(Section::open(path)?)
    }

    /// Opens an archive that lies in a window of something else.
    ///
    /// # Errors
    /// As [`NemoArchive::from_section`].
    pub fn open_section(&self, section: Section) -> Result<NemoArchive> {
        NemoArchive::of_section(&section, section.name(), 0, self)
    }
}
