//! Parts of an output that are laid out when they are written, so that a plan of a million small
//! ones is no larger than the list of what they are made of.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::gather::Gather;
use crate::layout::{OutputFile, Segment};

/// Files that stand in an output one after the other, each laid out when it is wanted and forgotten
/// again; see [`Segment::Parts`].
///
/// ```
/// use ckptkit_core::{OutputFile, Parts, Result, Segment};
///
/// /// Numbered lines, of eight bytes each.
/// #[derive(Debug)]
/// struct Lines(u64);
///
/// impl Parts for Lines {
///     fn total_bytes(&self) -> u64 {
///         8 * self.0
///     }
///
///     fn part_at(&self, at: u64) -> Result<(u64, OutputFile)> {
///         let mut line = OutputFile::default();
///         line.push(Segment::Literal(format!("{:07}\n", at / 8).into_bytes()))?;
///         Ok((at / 8 * 8, line))
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let mut file = OutputFile::default();
/// file.push(Segment::Parts(std::sync::Arc::new(Lines(1000))))?;
/// assert_eq!(file.len(), 8000);
/// assert_eq!(file.into_section("lines").slice(7992, 8)?.read(8)?, b"0000999\n");
/// # Ok(())
/// # }
/// ```
pub trait Parts: Debug + Send + Sync {
    /// Bytes of all parts.
    fn total_bytes(&self) -> u64;

    /// The part that holds the byte at `at`, which is below [`Parts::total_bytes`], and where it
    /// starts. Every part holds a byte, the next one starts where it ends, and none holds parts in
    /// turn. Asked again, by whatever thread, it gives the same.
    ///
    /// # Errors
    /// Whatever keeps the part from being laid out.
    fn part_at(&self, at: u64) -> Result<(u64, OutputFile)>;
}

/// The part that holds a byte, after a look at whether it does.
fn part_at(parts: &dyn Parts, at: u64) -> Result<(u64, OutputFile)> {
    let (start, part) = parts.part_at(at)?;
    let holds = start <= at && at - start < part.len();
    if !holds || part.parts_end() > 0 || part.len() > parts.total_bytes() - start {
        return Err(Error::invalid(format!(
            "byte {at} of parts of {} bytes was said to be in one of {} bytes from {start}",
            parts.total_bytes(),
            part.len()
        )));
    }
    Ok((start, part))
}

/// Fills `out` with the bytes from `at`; the places of checksums are zeros.
pub(crate) fn read_at(
    parts: &dyn Parts,
    gather: &mut Gather,
    at: u64,
    out: &mut [u8],
) -> Result<()> {
    let mut filled = 0;
    while filled < out.len() {
        let at = at + filled as u64;
        let (start, part) = part_at(parts, at)?;
        let left = usize::try_from(part.len() - (at - start)).unwrap_or(usize::MAX);
        let n = left.min(out.len() - filled);
        part.read_at(gather, at - start, &mut out[filled..filled + n])?;
        filled += n;
    }
    Ok(())
}

/// Some bytes of an output file, with all that they are made of at hand.
pub(crate) struct Stretch<'a> {
    /// A file that holds them: the output itself, or parts of it.
    pub(crate) file: Cow<'a, OutputFile>,
    /// Where that starts in the output.
    pub(crate) base: u64,
    /// Which of its bytes are meant.
    pub(crate) range: Range<u64>,
}

impl Stretch<'_> {
    /// Whether it was laid out for this.
    pub(crate) fn is_made(&self) -> bool {
        matches!(self.file, Cow::Owned(_))
    }

    /// Where it ends in the output.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.range.end
    }
}

impl OutputFile {
    /// These bytes, in the file as it is: what is laid out later stays so.
    pub(crate) fn plain(&self, range: Range<u64>) -> Stretch<'_> {
        Stretch { file: Cow::Borrowed(self), base: 0, range }
    }

    /// The bytes from the start of `range`, as far as they are parts or none of them is; of parts,
    /// all that meet the range.
    pub(crate) fn stretch(&self, range: Range<u64>) -> Result<Stretch<'_>> {
        if self.parts_end() <= range.start {
            return Ok(self.plain(range));
        }
        let segments = &self.segments()[self.segment_at(range.start)..];
        let Some((from, Segment::Parts(parts))) = segments.first() else {
            let next = segments.iter().find(|(_, s)| matches!(s, Segment::Parts(_)));
            let end = next.map_or(range.end, |(start, _)| range.end.min(*start));
            return Ok(self.plain(range.start..end));
        };
        let end = range.end.min(from + parts.total_bytes());
        let (start, mut file) = part_at(&**parts, range.start - from)?;
        let base = from + start;
        while base + file.len() < end {
            let next = base + file.len() - from;
            let (start, part) = part_at(&**parts, next)?;
            if start != next {
                return Err(Error::invalid(format!(
                    "a part starts at {start}, the one before it ends at {next}"
                )));
            }
            file.append(part)?;
        }
        Ok(Stretch { file: Cow::Owned(file), base, range: range.start - base..end - base })
    }
}

#[cfg(test)]
mod tests;
