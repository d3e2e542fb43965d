//! What the engine asks of Linux: shared extents, writes past the page cache, reading ahead.

use std::fs::{File, OpenOptions};
use std::io::IoSliceMut;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, Mode, OFlags};
use rustix::io::ReadWriteFlags;

use crate::section::Section;

/// Outputs below this are as fast through the page cache, forced to the disk or not; in bytes.
const LEAST_DIRECT: u64 = 64 << 20;

/// A file system that lets files share extents.
#[derive(Clone, Copy)]
pub(super) struct Sharing {
    /// Ranges start at multiples of this in both files, in bytes.
    pub(super) block: u64,
    device: u64,
}

impl Sharing {
    /// Finds out with two files without a name in `folder` whether its file system can.
    pub(super) fn probe(folder: &Path) -> Option<Self> {
        let unnamed = || {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR).ok()
        };
        let (one, other) = (unnamed()?, unnamed()?);
        rustix::fs::ioctl_ficlone(&other, &one).ok()?;
        let block = u64::try_from(rustix::fs::fstatfs(&one).ok()?.f_bsize).ok()?;
        let device = File::from(one).metadata().ok()?.dev();
        (block.is_power_of_two() && block <= 1 << 20).then_some(Self { block, device })
    }

    /// As if the file system of `folder` could, which only makes copies slower.
    #[cfg(test)]
    pub(super) fn for_test(folder: &Path) -> Option<Self> {
        Some(Self { block: 4096, device: std::fs::metadata(folder).ok()?.dev() })
    }

    /// Whether the section's file lies on this file system.
    pub(super) fn reaches(self, section: &Section) -> bool {
        let file = section.source().file();
        file.and_then(|f| f.metadata().ok()).is_some_and(|m| m.dev() == self.device)
    }
}

/// Whether an output is to go past the page cache: where it must be on the disk in the end anyway,
/// or where most of it would be written back before it is complete.
pub(super) fn worth_direct(bytes: u64, sync: bool) -> bool {
    let memory = || {
        let info = rustix::system::sysinfo();
        (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
    };
    bytes >= LEAST_DIRECT && (sync || bytes > memory() / 2)
}

/// Opens a file to be written past the page cache; `None` where the file system refuses.
pub(super) fn open_direct(path: &Path) -> Option<File> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

/// Copies a range inside the kernel; says whether all of it was.
pub(super) fn copy_range(
    from: &File,
    mut from_at: u64,
    to: &File,
    mut to_at: u64,
    mut len: u64,
) -> bool {
    while len > 0 {
        let want = usize::try_from(len).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), want) {
            Ok(0) | Err(_) => return false,
            Ok(n) => len -= n as u64,
        }
    }
    true
}

/// Starts reading a range of a file into the page cache, unless it is there.
///
/// Not from a disk: what the kernel reads ahead of a reader comes in large pages and long requests,
/// which is quicker than what it reads when it is asked to. A network wants more at once.
pub(super) fn fetch(file: &File, range: Range<u64>) {
    // File systems without a block device of their own.
    let remote = |m: std::fs::Metadata| rustix::fs::major(m.dev()) == 0;
    if !file.metadata().is_ok_and(remote) {
        return;
    }
    let absent = |at: u64| {
        let mut byte = [0];
        let mut one = [IoSliceMut::new(&mut byte)];
        let read = rustix::io::preadv2(file, &mut one, at, ReadWriteFlags::NOWAIT);
        read == Err(rustix::io::Errno::AGAIN)
    };
    let Some(len) = std::num::NonZeroU64::new(range.end.saturating_sub(range.start)) else {
        return;
    };
    if absent(range.start) || absent(range.end - 1) {
        // A hint: reading works without it.
        let _ = rustix::fs::fadvise(file, range.start, Some(len), Advice::WillNeed);
    }
}
