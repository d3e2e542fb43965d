//! Checksums of what is written, made while the bytes are at hand, by several threads in any order.

use std::ops::Range;

use crc32fast::Hasher;

use super::target::Target;
use crate::error::{Error, Result};

/// The checksum of a stretch that lies in one piece of the output.
pub(super) struct Part {
    pub(super) start: u64,
    len: u64,
    hasher: Hasher,
}

/// Follows the bytes of one piece, in order.
pub(super) struct Sums<'a> {
    /// The stretches that are not over yet.
    wanted: &'a [Range<u64>],
    parts: Vec<Part>,
}

impl<'a> Sums<'a> {
    pub(super) fn new(sums: &'a [Range<u64>], start: u64) -> Self {
        Self { wanted: &sums[sums.partition_point(|s| s.end <= start)..], parts: Vec::new() }
    }

    pub(super) fn update(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        while let Some(sum) = self.wanted.first().filter(|s| s.start < end) {
            let (from, to) = (sum.start.max(at), sum.end.min(end));
            if from < to {
                let within = |offset: u64| usize::try_from(offset - at).unwrap_or(bytes.len());
                let bytes = &bytes[within(from)..within(to)];
                match self.parts.last_mut() {
                    Some(part) if from > sum.start && part.start + part.len == from => {
                        part.hasher.update(bytes);
                        part.len += bytes.len() as u64;
                    }
                    _ => {
                        let mut hasher = Hasher::new();
                        hasher.update(bytes);
                        self.parts.push(Part { start: from, len: bytes.len() as u64, hasher });
                    }
                }
            }
            if sum.end > end {
                break;
            }
            self.wanted = &self.wanted[1..];
        }
    }

    /// Whether a checksum is wanted of any of these bytes.
    pub(super) fn wants(&self, range: Range<u64>) -> bool {
        let next = self.wanted.iter().find(|s| s.end > range.start && s.start < s.end);
        next.is_some_and(|s| s.start < range.end)
    }

    pub(super) fn into_parts(self) -> impl Iterator<Item = Part> {
        self.parts.into_iter()
    }
}

/// Combines the parts of a file, given in order, and writes each checksum to its places.
pub(super) fn put(target: &Target<'_>, parts: impl Iterator<Item = Part>) -> Result<()> {
    let file = target.output;
    let mut parts = parts.peekable();
    let mut done = Vec::with_capacity(file.sums().len());
    for sum in file.sums() {
        let mut whole = Hasher::new();
        let mut at = sum.start;
        while let Some(part) = parts.next_if(|p| p.start == at && at < sum.end) {
            whole.combine(&part.hasher);
            at += part.len;
        }
        if at != sum.end {
            return Err(Error::invalid(format!(
                "the checksum of bytes {} to {} was not completed",
                sum.start, sum.end
            )));
        }
        done.push(whole.finalize());
    }
    for (at, index) in file.places() {
        target
            .patch(at, &done[index].to_le_bytes())
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
