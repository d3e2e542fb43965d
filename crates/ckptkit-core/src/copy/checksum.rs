//! Checksums of what is written, made while the bytes are at hand, by several threads in any order.

use std::ops::Range;

use crc32fast::Hasher;

use super::target::Target;
use crate::error::{Error, Result};
use crate::parts::Stretch;

/// The checksum of what lies in one piece of the output.
pub(super) struct Part {
    /// In the output.
    pub(super) start: u64,
    len: u64,
    hasher: Hasher,
}

/// Follows the bytes of a stretch, in order.
pub(super) struct Sums<'a> {
    stretch: &'a Stretch<'a>,
    /// The first that is not over yet.
    next: usize,
    /// By the position of the checksum that each is a part of.
    parts: Vec<(usize, Part)>,
}

impl<'a> Sums<'a> {
    pub(super) fn new(stretch: &'a Stretch<'a>) -> Self {
        let next = stretch.file.sums().partition_point(|s| s.end <= stretch.range.start);
        Self { stretch, next, parts: Vec::new() }
    }

    /// Takes note of the bytes at `at`.
    pub(super) fn update(&mut self, at: u64, bytes: &[u8]) {
        let (sums, base) = (self.stretch.file.sums(), self.stretch.base);
        let end = at + bytes.len() as u64;
        while let Some(sum) = sums.get(self.next).filter(|s| s.start < end) {
            let (from, to) = (sum.start.max(at), sum.end.min(end));
            if from < to {
                let within = |offset: u64| usize::try_from(offset - at).unwrap_or(bytes.len());
                let bytes = &bytes[within(from)..within(to)];
                match self.parts.last_mut() {
                    Some((_, part)) if from > sum.start && part.start + part.len == base + from => {
                        part.hasher.update(bytes);
                        part.len += bytes.len() as u64;
                    }
                    _ => {
                        let mut hasher = Hasher::new();
                        hasher.update(bytes);
                        let len = bytes.len() as u64;
                        self.parts.push((self.next, Part { start: base + from, len, hasher }));
                    }
                }
            }
            if sum.end > end {
                break;
            }
            self.next += 1;
        }
    }

    /// Puts what is known into the places among the bytes at `at`, before they are written.
    pub(super) fn fill(&self, at: u64, bytes: &mut [u8]) {
        for (place, sum) in self.stretch.file.places(at..at + bytes.len() as u64) {
            let Some(part) = self.whole(sum) else { continue };
            for (place, byte) in (place..).zip(part.hasher.clone().finalize().to_le_bytes()) {
                let there = place.checked_sub(at).and_then(|i| usize::try_from(i).ok());
                if let Some(there) = there.and_then(|i| bytes.get_mut(i)) {
                    *there = byte;
                }
            }
        }
    }

    /// The part that is all of a checksum's bytes.
    fn whole(&self, sum: usize) -> Option<&Part> {
        let at = self.parts.binary_search_by_key(&sum, |(sum, _)| *sum).ok()?;
        let wanted = &self.stretch.file.sums()[sum];
        Some(&self.parts[at].1).filter(|part| part.len == wanted.end - wanted.start)
    }

    /// Whether a checksum is wanted of any of these bytes.
    pub(super) fn wants(&self, range: Range<u64>) -> bool {
        let mut sums = self.stretch.file.sums()[self.next..].iter();
        let next = sums.find(|s| s.end > range.start && s.start < s.end);
        next.is_some_and(|s| s.start < range.end)
    }

    /// What is still to be put somewhere. In a stretch whose places were [filled](Self::fill) that
    /// is not what had all of them in it.
    pub(super) fn into_parts(self) -> impl Iterator<Item = Part> {
        let stretch = self.stretch;
        let sums = if stretch.is_made() { stretch.file.sums().len() } else { 0 };
        let mut waits: Vec<bool> = (0..sums).map(|sum| self.whole(sum).is_none()).collect();
        if sums > 0 {
            for (place, sum) in stretch.file.places(0..stretch.file.len()) {
                waits[sum] |= place + 4 > stretch.range.end;
            }
        }
        let parts = self.parts.into_iter();
        parts.filter(move |(sum, _)| waits.get(*sum) != Some(&false)).map(|(_, part)| part)
    }
}

/// Combines parts of checksums, given in order, and writes each to its places in the stretch's file.
/// What was laid out while it was written may have had some put in before; of anything else none
/// may be missing.
pub(super) fn put(
    target: &Target<'_>,
    stretch: &Stretch<'_>,
    parts: impl Iterator<Item = Part>,
) -> Result<()> {
    let (file, base) = (&stretch.file, stretch.base);
    let incomplete = |start, end| {
        Error::invalid(format!("the checksum of bytes {start} to {end} was not completed"))
    };
    let mut parts = parts.peekable();
    let mut done = Vec::with_capacity(file.sums().len());
    for sum in file.sums() {
        let mut whole = Hasher::new();
        let (start, end) = (base + sum.start, base + sum.end);
        let mut at = start;
        while let Some(part) = parts.next_if(|p| p.start == at && at < end) {
            whole.combine(&part.hasher);
            at += part.len;
        }
        let put_before = stretch.is_made() && at == start;
        if at != end && !put_before {
            return Err(incomplete(start, end));
        }
        done.push((at == end).then(|| whole.finalize()));
    }
    if let Some(part) = parts.next() {
        return Err(incomplete(part.start, part.start + part.len));
    }
    for (at, index) in file.places(0..file.len()) {
        let Some(sum) = done[index] else { continue };
        let at = base + at;
        target
            .patch(at, &sum.to_le_bytes())
            .map_err(|e| Error::io("write a checksum", e).at(at))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::{CopyOptions, Existing, Layout, OutputFile, Section, Segment};

    /// Stretches of many lengths, each followed by its checksum and all of them again at the end,
    /// in a file that starts inside another one.
    fn sample() -> (OutputFile, Vec<(usize, usize)>) {
        let mut inner = OutputFile::default();
        let mut sums = Vec::new();
        let mut at = Vec::new();
        for i in 0..400_usize {
            inner.push(Segment::Literal(vec![1; i % 3])).unwrap();
            let start = inner.len();
            let bytes: Vec<u8> = (0..i * i % 90_000).map(|k| (k * i % 251) as u8).collect();
            if i == 200 {
                // Longer than a piece.
                inner.push(Segment::Fill { byte: 7, len: 40 << 20 }).unwrap();
            }
            inner.push(Segment::Section(Section::from_bytes(bytes, "s"))).unwrap();
            at.push((start as usize, inner.len() as usize));
            sums.push(inner.checksum(start).unwrap());
            inner.push_checksum(sums[i]).unwrap();
        }
        for sum in sums {
            inner.push_checksum(sum).unwrap();
        }
        let mut outer = OutputFile::default();
        outer.push(Segment::Fill { byte: b'Z', len: 1000 }).unwrap();
        outer.append(inner).unwrap();
        outer.push(Segment::Literal(b"end".to_vec())).unwrap();
        (outer, at)
    }

    #[test]
    fn checksums_are_those_of_the_bytes() {
        let (file, at) = sample();
        let dir = tempfile::tempdir().unwrap();
        for threads in [1, 3] {
            let to = dir.path().join(threads.to_string());
            let options = CopyOptions { threads, ..CopyOptions::default() };
            Layout::file(file.clone()).write(&to, Existing::Refuse, &options).unwrap();
            let bytes = std::fs::read(&to).unwrap();
            assert!(bytes[..1000].iter().all(|b| *b == b'Z'));
            let inner = &bytes[1000..bytes.len() - 3];
            let list = inner.len() - 4 * at.len();
            for (i, &(start, end)) in at.iter().enumerate() {
                let sum = crc32fast::hash(&inner[start..end]).to_le_bytes();
                assert_eq!(&inner[end..end + 4], &sum);
                assert_eq!(&inner[list + 4 * i..][..4], &sum);
            }
        }
    }

    #[test]
    fn a_checksum_covers_no_other() {
        let mut file = OutputFile::default();
        file.push(Segment::Literal(b"abc".to_vec())).unwrap();
        let sum = file.checksum(0).unwrap();
        assert!(file.checksum(0).is_err());
        file.push_checksum(sum).unwrap();
        assert!(file.checksum(3).is_err());
        assert!(file.checksum(8).is_err());
        let empty = file.checksum(7).unwrap();
        file.push_checksum(empty).unwrap();
        assert!(OutputFile::default().push_checksum(sum).is_err());
    }
}
