//! Archives are laid out as Python's tarfile would write them, and refused where readers would.
#![cfg(feature = "write")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use ckptkit_core::{
    CopyOptions, EntryPath, ErrorKind, Existing, Layout, OutputFile, Result, Segment,
};
use nemo_archive::TarLayout;
use sha2::{Digest, Sha256};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The first bytes of an archive, which are all in memory.
fn start(file: &OutputFile, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (_, segment) in file.segments() {
        match segment {
            Segment::Literal(bytes) => out.extend_from_slice(bytes),
            Segment::Fill { byte, len } => {
                let len = usize::try_from((*len).min(1024)).unwrap();
                out.resize(out.len() + len, *byte);
            }
            other => panic!("{other:?}"),
        }
        if out.len() >= len {
            break;
        }
    }
    out.truncate(len);
    out
}

fn bytes(len: u64) -> OutputFile {
    let mut file = OutputFile::default();
    file.push(Segment::Fill { byte: b'x', len }).unwrap();
    file
}

fn path(name: &str) -> EntryPath {
    EntryPath::new(name).unwrap()
}

#[test]
fn headers_are_those_of_tarfile() {
    let table = include_str!("data/headers.tsv");
    let mut checked = 0;
    for line in table.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [form, kind, name, size, mtime, digest] = fields[..] else { panic!("{line}") };
        let name: String = serde_json::from_str(name).unwrap();
        let (size, mtime): (u64, u64) = (size.parse().unwrap(), mtime.parse().unwrap());
        let len = if form == "ustar" { 512 } else { 1536 };
        let found = match (kind, name.as_str()) {
            ("whole", _) => continue,
            (_, "./") => start(&TarLayout::new(mtime).unwrap().finish().unwrap(), 512),
            (kind, name) => {
                let mut tar = TarLayout::new(mtime).unwrap();
                match kind {
                    "d" => tar.directory(&path(name), mtime).unwrap(),
                    _ => tar.file(&path(name), mtime, bytes(size)).unwrap(),
                }
                start(&tar.finish().unwrap(), 512 + len)[512..].to_vec()
            }
        };
        assert_eq!(sha256(&found), digest, "{line}");
        checked += 1;
    }
    assert!(checked >= 19, "{checked}");
}

fn written(file: OutputFile) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out");
    Layout::file(file).write(&to, Existing::Refuse, &CopyOptions::default()).unwrap();
    std::fs::read(to).unwrap()
}

#[test]
fn a_whole_archive_is_that_of_tarfile() {
    let line = include_str!("data/headers.tsv").lines().last().unwrap();
    let [.., len, mtime, digest] = line.split('\t').collect::<Vec<_>>()[..] else { panic!() };
    let mtime = mtime.parse().unwrap();
    let mut config = OutputFile::default();
    config.push(Segment::Literal(b"a: 1\n".to_vec())).unwrap();
    let mut tar = TarLayout::new(mtime).unwrap();
    tar.file(&path("model_config.yaml"), mtime, config).unwrap();
    tar.directory(&path("w"), mtime).unwrap();
    tar.file(&path("w/x"), mtime, bytes(600)).unwrap();
    let found = written(tar.finish().unwrap());
    assert_eq!(found.len().to_string(), len);
    assert_eq!(sha256(&found), digest);
}

#[test]
fn the_padding_is_whole_records() {
    for size in [0, 1, 8192 - 512, 8192 - 511, 8192, 10240] {
        let mut tar = TarLayout::new(0).unwrap();
        tar.file(&path("x"), 0, bytes(size)).unwrap();
        let file = tar.finish().unwrap();
        assert_eq!(file.len() % 10240, 0, "{size}");
        // Headers, the bytes, two blocks of zeros, and less than a record more.
        let needed = 1024 + size.next_multiple_of(512) + 1024;
        assert!((needed..needed + 10240).contains(&file.len()), "{size}: {}", file.len());
    }
}

#[test]
fn names_that_readers_would_refuse_are_not_written() {
    #[track_caller]
    fn check(says: &str, build: impl FnOnce(&mut TarLayout) -> Result<()>) {
        let error = build(&mut TarLayout::new(0).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(says), "{error}");
    }
    let file = |tar: &mut TarLayout, name: &str| tar.file(&path(name), 0, bytes(1));
    let dir = |tar: &mut TarLayout, name: &str| tar.directory(&path(name), 0);
    check("member a/b: two members", |t| file(t, "a/b").and_then(|()| file(t, "./a//b")));
    check("two members", |t| file(t, "a").and_then(|()| dir(t, "a")));
    check("member a/b: lies in a, which is a file", |t| file(t, "a").and_then(|()| file(t, "a/b")));
    check("member a: is a file, and others", |t| file(t, "a/b/c").and_then(|()| file(t, "a")));
    check("member model_weights.ckpt: is a directory", |t| dir(t, "model_weights.ckpt"));
    check("which is a file", |t| file(t, "model_config.yaml/x"));
    // Names that only look alike.
    let mut tar = TarLayout::new(0).unwrap();
    for name in ["a-b", "a/b", "a.b", "ab", "b"] {
        file(&mut tar, name).unwrap();
    }
    dir(&mut tar, "a").unwrap();
}

#[test]
fn nothing_is_longer_than_a_file_can_be() {
    let mut tar = TarLayout::new(0).unwrap();
    let error = tar.file(&path("x"), 0, bytes(i64::MAX as u64 - 100)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
}
