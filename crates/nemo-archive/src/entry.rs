//! One member of an archive, wherever it lies.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ckptkit_core::{EntryPath, Error, Result, ResultExt, Section};

/// A member: a file or a directory of the archive, under its normalised name.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(crate) path: EntryPath,
    pub(crate) raw_name: String,
    pub(crate) size: u64,
    pub(crate) mtime: u64,
    pub(crate) place: Place,
}

/// Where the bytes of a member lie.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Directory,
    Section(Section),
    File {
        path: PathBuf,
        mapped: bool,
        /// Opened when it is first wanted, and only once.
        opened: Arc<OnceLock<Section>>,
    },
}

impl Entry {
    /// The name without `.` parts, repeated slashes, and the one directory that some archives wrap
    /// around everything.
    #[must_use]
    pub fn path(&self) -> &EntryPath {
        &self.path
    }

    /// The name as the archive spells it (`./model_config.yaml`).
    #[must_use]
    pub fn raw_name(&self) -> &str {
        &self.raw_name
    }

    /// Bytes of the file; zero for a directory.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// When it was last changed, in whole seconds since 1970; zero where that is not known.
    #[must_use]
    pub fn mtime(&self) -> u64 {
        self.mtime
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        matches!(self.place, Place::Directory)
    }

    /// Whether it is a file of a directory, whose time is that of whoever copied it there.
    #[cfg(feature = "write")]
    pub(crate) fn is_loose(&self) -> bool {
        matches!(self.place, Place::File { .. })
    }

    /// The member's bytes where they lie: a window of the archive, or the file of an unpacked one.
    ///
    /// # Errors
    /// [`Io`](ckptkit_core::ErrorKind::Io) when the file of an unpacked archive cannot be opened;
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for a directory.
    pub fn section(&self) -> Result<Section> {
        match &self.place {
            Place::Directory => {
                Err(Error::invalid("is a directory, it has no bytes").within(self.place_name()))
            }
            Place::Section(section) => Ok(section.clone()),
            Place::File { path, mapped, opened } => {
                if let Some(section) = opened.get() {
                    return Ok(section.clone());
                }
                let section = open(path, *mapped && self.size > 0)?;
                Ok(opened.get_or_init(|| section).clone())
            }
        }
    }

    /// All bytes, if they are at most `limit`.
    ///
    /// # Errors
    /// Those of [`Entry::section`]; [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded).
    pub fn read(&self, limit: u64) -> Result<Vec<u8>> {
        self.section()?.read(limit).within(|| self.place_name())
    }

    pub(crate) fn place_name(&self) -> String {
        format!("member {}", self.path)
    }
}

fn open(path: &Path, mapped: bool) -> Result<Section> {
    #[cfg(feature = "mmap")]
    if mapped {
        return Section::open_mapped(path);
    }
    let _ = mapped;
    Section::open(path)
}
