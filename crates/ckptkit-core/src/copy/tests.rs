//! What the engine writes, by every way it has.

use std::sync::Arc;

use super::pieces::SHORT;
use super::*;
use crate::entry_path::EntryPath;
use crate::layout::{OutputFile, Segment};
use crate::section::Section;
use std::ops::ControlFlow;

fn sample() -> (OutputFile, Vec<u8>) {
    let mut file = OutputFile::default();
    let mut expected = Vec::new();
    for i in 0..2000_u32 {
        let bytes: Vec<u8> = (0..i * 17 % 30_000).map(|k| (k * i % 251) as u8).collect();
        expected.extend_from_slice(&bytes);
        let segment = if i % 2 == 0 {
            Segment::Literal(bytes)
        } else {
            Segment::Section(Section::from_bytes(bytes, "s"))
        };
        file.push(segment).unwrap();
    }
    (file, expected)
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let (file, expected) = sample();
    assert!(file.len() > SHORT);
    let dir = tempfile::tempdir().unwrap();
    for threads in [1, 3] {
        let to = dir.path().join(threads.to_string());
        let options = CopyOptions { threads, ..CopyOptions::default() };
        let report = Layout::file(file.clone()).write(&to, Existing::Refuse, &options).unwrap();
        assert_eq!(report.bytes, expected.len() as u64);
        assert!(std::fs::read(&to).unwrap() == expected);
    }
}

#[test]
fn a_cancelled_run_leaves_nothing() {
    struct Stop;
    impl Observer for Stop {
        fn on_progress(&self, p: Progress) -> ControlFlow<()> {
            if p.bytes_done > 1 << 20 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut layout = Layout::directory();
    layout.add(EntryPath::new("a/b").unwrap(), sample().0).unwrap();
    assert!(layout.add(EntryPath::new("a/b").unwrap(), OutputFile::default()).is_err());
    let options = CopyOptions { observer: &Stop, ..CopyOptions::default() };
    let error = layout.write(dir.path().join("out"), Existing::Refuse, &options).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Cancelled);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Runs a layout of one file by the ways that are asked for; gives its bytes and what was counted.
fn written(file: &OutputFile, direct: bool, sharing: Option<Sharing>) -> (Vec<u8>, u64, u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let created = std::fs::OpenOptions::new().write(true).create_new(true).open(&path).unwrap();
    let targets = [Target::new(created, &path, file, direct, sharing).unwrap()];
    let engine = Engine::new(&targets, &CopyOptions::default());
    engine.run().unwrap();
    let (shared, past) = (&engine.shared, &engine.direct);
    let counts = (shared.load(Ordering::Relaxed), past.load(Ordering::Relaxed));
    (std::fs::read(&path).unwrap(), counts.0, counts.1)
}

#[test]
fn what_goes_past_the_page_cache_is_the_same() {
    let (mut file, mut expected) = sample();
    let sum = file.checksum(100).unwrap();
    file.push_checksum(sum).unwrap();
    expected.extend(crc32fast::hash(&expected[100..]).to_le_bytes());
    let (bytes, _, direct) = written(&file, true, None);
    assert!(bytes == expected);
    // Where the file system lets files be opened so, all goes this way but the end of the file.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), b"").unwrap();
    if kernel::open_direct(&dir.path().join("f")).is_some() {
        assert!(direct >= file.len() - SHORT, "{direct} of {}", file.len());
    }
}

/// A source in a file, and an output that takes stretches of it: some where offsets agree modulo
/// 4096, some where they do not, some too short.
fn stretches(dir: &Path) -> (OutputFile, Vec<u8>) {
    let bytes: Vec<u8> = (0..3 << 20_u32).map(|i| (i % 253) as u8 ^ (i >> 12) as u8).collect();
    let path = dir.join("source");
    std::fs::write(&path, &bytes).unwrap();
    let source = Section::open(&path).unwrap();
    let mut file = OutputFile::default();
    let mut expected = Vec::new();
    let mut push = |file: &mut OutputFile, segment: Segment, bytes: &[u8]| {
        file.push(segment).unwrap();
        expected.extend_from_slice(bytes);
    };
    for (skip, start, len) in
        [(4096, 4096, 900_000), (0, 904_096, 300_000), (7, 5, 400_000), (1, 1, 10), (0, 0, 1 << 20)]
    {
        let padding = vec![0xAA; skip];
        push(&mut file, Segment::Literal(padding.clone()), &padding);
        let part = source.slice(start, len).unwrap();
        push(&mut file, Segment::Section(part), &bytes[start as usize..][..len as usize]);
    }
    assert!(Arc::strong_count(source.source()) > 1);
    (file, expected)
}

#[test]
fn what_the_kernel_copies_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, mut expected) = stretches(dir.path());
    let (bytes, ..) = written(&file, false, None);
    assert!(bytes == expected);
    // Also where nothing is shared on the disk, which is the file system's to decide.
    if let Some(sharing) = Sharing::for_test(dir.path()) {
        let (bytes, shared, _) = written(&file, false, Some(sharing));
        assert!(bytes == expected);
        assert!(shared >= 1_100_000 && shared % 4096 == 0, "{shared}");
        let sum = file.checksum(4000).unwrap();
        file.push_checksum(sum).unwrap();
        expected.extend(crc32fast::hash(&expected[4000..]).to_le_bytes());
        let (bytes, again, _) = written(&file, false, Some(sharing));
        assert!(bytes == expected);
        assert_eq!(again, shared);
    }
}
