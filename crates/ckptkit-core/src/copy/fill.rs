//! Filling a buffer with what an output file holds at a place.

use super::buffer::Buffer;
use crate::error::Result;
use crate::gather::Gather;
use crate::layout::{OutputFile, Segment};
use crate::section::Section;
use crate::tensor::TensorBytes;

/// Stays in the L2 cache of one core between the read and the write, in bytes. No more is written
/// at once, since the kernel then looks for larger free blocks of memory, which are fewer, and which
/// the host of a virtual machine may have taken back.
pub(super) const BUFFER: usize = 512 << 10;
/// What is a row here is a column in the storage: more rows at once make longer runs there.
const TURNED_BUFFER: usize = 4 << 20;

/// Reads sources, gathers views.
#[derive(Default)]
pub(super) struct Filler {
    gather: Gather,
}

impl Filler {
    /// The output from `at`, up to `end` or as much as goes at once: `block` bytes, where that is
    /// said.
    pub(super) fn fill<'b>(
        &mut self,
        output: &OutputFile,
        at: u64,
        end: u64,
        buffer: &'b mut Buffer,
        block: Option<usize>,
    ) -> Result<&'b mut [u8]> {
        let segment = &output.segments()[output.segment_at(at)].1;
        let want = match block {
            Some(block) => block,
            None if is_turned(segment) => TURNED_BUFFER,
            None => BUFFER,
        };
        let len = usize::try_from(end - at).unwrap_or(want).min(want);
        let bytes = buffer.get(len);
        output.read_at(&mut self.gather, at, bytes)?;
        Ok(bytes)
    }
}

/// The one run of a source that a segment is, where it is known to be one.
pub(super) fn run_of(segment: &Segment) -> Option<&Section> {
    match segment {
        Segment::Section(section) => Some(section),
        Segment::Tensor(tensor) => tensor.contiguous(),
        _ => None,
    }
}

fn is_turned(segment: &Segment) -> bool {
    let Segment::Tensor(tensor) = segment else { return false };
    let mut bytes = tensor.bytes();
    while let TensorBytes::Cast(source) = bytes {
        bytes = source.bytes();
    }
    match bytes {
        TensorBytes::Strided(view) => view.strides.last().is_some_and(|stride| *stride != 1),
        _ => false,
    }
}
