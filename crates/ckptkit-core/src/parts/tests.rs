//! Parts are written as if they had been there from the start.

use std::sync::Arc;

use super::*;
use crate::section::Section;
use crate::{CopyOptions, Existing, Layout};

/// A file with a checksum of its middle, which stands behind it and again at the end.
fn archive(i: usize) -> OutputFile {
    let bytes: Vec<u8> = (0..i * i % 9000 + i % 2).map(|k| (k * i % 251) as u8).collect();
    let mut file = OutputFile::default();
    file.push(Segment::Literal(format!("head {i}").into_bytes())).unwrap();
    let start = file.len();
    if i == 300 {
        // Longer than a piece.
        file.push(Segment::Fill { byte: 7, len: 40 << 20 }).unwrap();
    }
    file.push(Segment::Section(Section::from_bytes(bytes, "s"))).unwrap();
    let sum = file.checksum(start).unwrap();
    file.push_checksum(sum).unwrap();
    file.push(Segment::Fill { byte: b'-', len: i as u64 % 70 }).unwrap();
    file.push_checksum(sum).unwrap();
    file
}

#[derive(Debug)]
struct Archives {
    /// Where each starts, and where the last one ends.
    starts: Vec<u64>,
    first: usize,
}

impl Archives {
    fn new(range: std::ops::Range<usize>) -> Self {
        let mut starts = vec![0];
        starts.extend(range.clone().scan(0, |end, i| {
            *end += archive(i).len();
            Some(*end)
        }));
        Self { starts, first: range.start }
    }
}

impl Parts for Archives {
    fn total_bytes(&self) -> u64 {
        *self.starts.last().unwrap()
    }

    fn part_at(&self, at: u64) -> Result<(u64, OutputFile)> {
        let i = self.starts.partition_point(|start| *start <= at) - 1;
        Ok((self.starts[i], archive(self.first + i)))
    }
}

/// Parts and others by turns; the same with everything there from the start.
fn samples() -> [OutputFile; 2] {
    let (mut lazy, mut eager) = (OutputFile::default(), OutputFile::default());
    for (i, range) in [0..250, 250..250, 250..301, 301..900].into_iter().enumerate() {
        for file in [&mut lazy, &mut eager] {
            let start = file.len();
            file.push(Segment::Fill { byte: b'Z', len: 1000 }).unwrap();
            file.push(Segment::Literal(vec![b'a'; i])).unwrap();
            let sum = file.checksum(start).unwrap();
            file.push_checksum(sum).unwrap();
        }
        lazy.push(Segment::Parts(Arc::new(Archives::new(range.clone())))).unwrap();
        range.for_each(|i| eager.append(archive(i)).unwrap());
    }
    [lazy, eager].map(|mut file| {
        file.push(Segment::Literal(b"end".to_vec())).unwrap();
        file
    })
}

#[test]
fn they_are_written_as_if_they_had_been_there() {
    let [lazy, eager] = samples();
    assert_eq!(lazy.len(), eager.len());
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, file: &OutputFile, options: CopyOptions<'_>| {
        let to = dir.path().join(name);
        Layout::file(file.clone()).write(&to, Existing::Refuse, &options).unwrap();
        std::fs::read(&to).unwrap()
    };
    let expected = write("eager", &eager, CopyOptions::default());
    assert!(eager.sums().len() > 900);
    for range in eager.sums() {
        let bytes = &expected[range.start as usize..range.end as usize];
        let sum = crc32fast::hash(bytes).to_le_bytes();
        assert_eq!(expected[range.end as usize..][..4], sum);
    }
    for threads in [1, 3] {
        for sync in [false, true] {
            let options = CopyOptions { threads, sync, ..CopyOptions::default() };
            assert!(write(&format!("{threads} {sync}"), &lazy, options) == expected);
        }
    }
    // In another file, from its middle on.
    let mut outer = OutputFile::default();
    outer.push(Segment::Literal(b"outer".to_vec())).unwrap();
    outer.append(lazy).unwrap();
    assert!(write("outer", &outer, CopyOptions::default())[5..] == expected);
}

#[test]
fn every_cut_reads_the_same() {
    let [lazy, eager] = samples();
    let (lazy, eager) = (lazy.into_section("lazy"), eager.into_section("eager"));
    for at in (0..200_000).step_by(3331) {
        for len in [1, 5, 4000, 70_000] {
            let [a, b] = [&lazy, &eager].map(|s| s.slice(at, len).unwrap().read(len).unwrap());
            assert!(a == b, "{len} bytes from {at}");
        }
    }
}

#[test]
fn a_checksum_covers_no_part() {
    let mut file = OutputFile::default();
    file.push(Segment::Literal(b"abc".to_vec())).unwrap();
    file.push(Segment::Parts(Arc::new(Archives::new(1..3)))).unwrap();
    assert!(file.checksum(0).is_err());
    assert!(file.checksum(3).is_err());
    assert!(file.checksum(file.len()).is_ok());
}

#[test]
fn parts_that_are_not_what_they_say_are_refused() {
    #[derive(Debug)]
    struct Wrong(u64, fn(u64) -> (u64, OutputFile));
    impl Parts for Wrong {
        fn total_bytes(&self) -> u64 {
            self.0
        }
        fn part_at(&self, at: u64) -> Result<(u64, OutputFile)> {
            Ok(self.1(at))
        }
    }
    fn bytes(len: u64) -> OutputFile {
        let mut file = OutputFile::default();
        file.push(Segment::Fill { byte: 1, len }).unwrap();
        file
    }
    fn nested(_: u64) -> (u64, OutputFile) {
        let mut file = OutputFile::default();
        file.push(Segment::Parts(Arc::new(Archives::new(1..3)))).unwrap();
        (0, file)
    }
    let wrong: [fn(u64) -> (u64, OutputFile); 6] = [
        |_| (0, OutputFile::default()),
        |at| (at + 1, bytes(5)),
        |_| (0, bytes(5)),
        |_| (0, bytes(1000)),
        |at| if at == 0 { (0, bytes(5)) } else { (4, bytes(6)) },
        nested,
    ];
    let dir = tempfile::tempdir().unwrap();
    for (i, parts) in wrong.into_iter().enumerate() {
        let mut file = OutputFile::default();
        file.push(Segment::Parts(Arc::new(Wrong(10, parts)))).unwrap();
        let to = dir.path().join("f");
        let error =
            Layout::file(file).write(&to, Existing::Refuse, &CopyOptions::default()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument, "{i}");
        assert!(!to.exists());
    }
}
