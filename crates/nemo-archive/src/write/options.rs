//! How archives are written.

use ckptkit_core::Result;

use super::mtime::source_date_epoch;
use crate::entry::Entry;

/// How an archive is written, where the defaults do not fit.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WriteOptions {
    /// The time of members that have none of their own, in seconds since 1970. Default: what
    /// [`source_date_epoch`] says, else 0. Members of an archive keep their times; files of a
    /// directory do too, but get no later one than this where it is given.
    pub epoch: Option<u64>,
}

impl WriteOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn epoch(&self) -> Result<Option<u64>> {
        match self.epoch {
            Some(epoch) => Ok(Some(epoch)),
            None => source_date_epoch(),
        }
    }

    /// When a member was last changed.
    pub(super) fn mtime_of(&self, entry: &Entry, epoch: Option<u64>) -> u64 {
        match epoch {
            Some(epoch) if entry.is_loose() => entry.mtime().min(epoch),
            _ => entry.mtime(),
        }
    }
}
