//! Filling a buffer with what an output file holds at a place.

use super::buffer::Buffer;
use crate::error::Result;
use crate::gather::Gather;
use crate::layout::{OutputFile, Segment};
use crate::section::Section;
use crate::tensor::TensorBytes;

/// Stays in the L2 cache of one core between the read and the write, in bytes.
const BUFFER: usize = 512 << 10;
/// A view's rows lie far apart: more of them at once make longer runs in its storage.
const GATHER_BUFFER: usize = 4 << 20;

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
    ) -> Result<&'b [u8]> {
        let segment = &output.segments()[output.segment_at(at)].1;
        let want = match block {
            Some(block) => block,
            None if gathers(segment) => GATHER_BUFFER,
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
        Segment::Literal(_) | Segment::Fill { .. } => None,
    }
}

fn gathers(segment: &Segment) -> bool {
    matches!(segment, Segment::Tensor(t) if !matches!(t.bytes(), TensorBytes::Range(_)))
}
