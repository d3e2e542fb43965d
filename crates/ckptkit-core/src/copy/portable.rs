//! What the engine asks of the operating system, where it can be asked for nothing.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use crate::section::Section;

#[derive(Clone, Copy)]
pub(super) struct Sharing {
    pub(super) block: u64,
}

impl Sharing {
    pub(super) fn probe(_: &Path) -> Option<Self> {
        None
    }

    #[cfg(test)]
    pub(super) fn for_test(_: &Path) -> Option<Self> {
        None
    }

    pub(super) fn reaches(self, _: &Section) -> bool {
        false
    }
}

pub(super) fn worth_direct(_: u64, _: bool) -> bool {
    false
}

pub(super) fn open_direct(_: &Path) -> Option<File> {
    None
}

pub(super) fn copy_range(_: &File, _: u64, _: &File, _: u64, _: u64) -> bool {
    false
}

pub(super) fn fetch(_: &File, _: Range<u64>) {}
