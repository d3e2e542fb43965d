//! What an output file holds at a place, read from where it comes from.

use crate::error::{Error, Result};
use crate::gather::Gather;
use crate::layout::{OutputFile, Segment};
use crate::parts;

impl OutputFile {
    /// The position of the segment that holds the byte at `at`, which is one of the file's.
    pub(crate) fn segment_at(&self, at: u64) -> usize {
        self.segments().partition_point(|(start, _)| *start <= at).saturating_sub(1)
    }

    /// Fills `out` with the bytes from `at`; the places of checksums are zeros.
    pub(crate) fn read_at(&self, gather: &mut Gather, at: u64, out: &mut [u8]) -> Result<()> {
        let past = || Error::malformed("the bytes wanted reach past the end of the output");
        let mut filled = 0;
        let mut next = self.segment_at(at);
        while filled < out.len() {
            let (start, segment) = self.segments().get(next).ok_or_else(past)?;
            let skip = at + filled as u64 - start;
            let left = segment.len().checked_sub(skip).ok_or_else(past)?;
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(out.len() - filled);
            let part = &mut out[filled..filled + n];
            match segment {
                Segment::Literal(bytes) => {
                    let skip = usize::try_from(skip).unwrap_or(bytes.len());
                    part.copy_from_slice(&bytes[skip..skip + n]);
                }
                Segment::Section(section) => section.read_at(skip, part)?,
                Segment::Tensor(tensor) => gather.read(tensor, skip, part)?,
                Segment::Fill { byte, .. } => part.fill(*byte),
                Segment::Parts(parts) => parts::read_at(&**parts, gather, skip, part)?,
            }
            filled += n;
            next += 1;
        }
        Ok(())
    }
}
