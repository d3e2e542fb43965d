//! Directories: an index and its shards, what is chosen among several, what is refused.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests")]

mod common;

use std::fs;
use std::path::Path;

use ckptkit_core::{Error, ErrorKind, Limits, Section};
use common::{file, map};
use st_io::{OpenOptions, ShardedSt, StCheckpoint, Variant};
use tempfile::TempDir;

/// A file with one-byte tensors: (name, value).
fn shard(tensors: &[(&str, u8)]) -> Vec<u8> {
    let entry = |(i, (name, _)): (usize, &(&str, u8))| {
        format!(r#""{name}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{}]}}"#, i + 1)
    };
    let entries: Vec<String> = tensors.iter().enumerate().map(entry).collect();
    let values: Vec<u8> = tensors.iter().map(|t| t.1).collect();
    file(format!("{{{}}}", entries.join(",")), &values)
}

fn index(weight_map: &[(&str, &str)]) -> Vec<u8> {
    let pairs: Vec<String> = weight_map.iter().map(|(n, s)| format!("{n:?}:{s:?}")).collect();
    format!(r#"{{"metadata":{{"total_size":2}},"weight_map":{{{}}}}}"#, pairs.join(",")).into()
}

fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

const ONE: &str = "model-00001-of-00002.safetensors";
const TWO: &str = "model-00002-of-00002.safetensors";
const INDEX: &str = "model.safetensors.index.json";

fn good() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (ONE, shard(&[("a", 1)])),
        (TWO, shard(&[("b", 2)])),
        (INDEX, index(&[("b", TWO), ("a", ONE)])),
    ]
}

#[track_caller]
fn check(path: &Path, variant: Variant, values: &[(&str, u8)], notes: &[&str]) -> StCheckpoint {
    let opened = StCheckpoint::open(path).unwrap();
    assert_eq!(opened.variant(), variant);
    let found: Vec<(String, u8)> = opened
        .tensors()
        .map(|t| t.unwrap())
        .map(|t| (t.name().into(), t.read().unwrap()[0]))
        .collect();
    let expected: Vec<(String, u8)> = values.iter().map(|(n, v)| ((*n).into(), *v)).collect();
    assert_eq!(found, expected);
    assert_eq!(opened.notes().len(), notes.len(), "{:?}", opened.notes());
    for (note, part) in opened.notes().iter().zip(notes) {
        assert!(note.contains(part), "{note:?} does not say {part:?}");
    }
    opened.verify().unwrap();
    opened
}

#[track_caller]
fn refused(files: &[(&str, Vec<u8>)], kind: ErrorKind, says: &[&str]) -> Error {
    let dir = folder(files);
    let error = StCheckpoint::open(dir.path()).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for part in says {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
    error
}

#[test]
fn a_directory_and_its_index_are_one() {
    let dir = folder(&good());
    for path in [dir.path().to_path_buf(), dir.path().join(INDEX)] {
        // In the order of the index.
        let opened = check(&path, Variant::Sharded, &[("b", 2), ("a", 1)], &[]);
        let shards = opened.shards();
        assert_eq!(shards[0].path, dir.path().join(TWO));
        assert_eq!(shards[0].bytes, shard(&[("b", 2)]).len() as u64);
        let sharded = opened.as_sharded().unwrap();
        assert_eq!(sharded.shard_of("a"), Some(ONE));
        assert_eq!(sharded.total_size(), Some(2));
        assert_eq!(opened.tensor("c").unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(ShardedSt::open(dir.path()).unwrap().infos().count(), 2);
    // One of its files alone.
    check(&dir.path().join(ONE), Variant::File, &[("a", 1)], &[]);
}

#[test]
fn other_names_of_indexes() {
    let (one, two) = ("x.fp16-00001-of-00002.safetensors", "x.fp16-00002-of-00002.safetensors");
    let map = index(&[("a", one), ("b", two)]);
    let dir = folder(&[
        (one, shard(&[("a", 1)])),
        (two, shard(&[("b", 2)])),
        ("x.safetensors.index.fp16.json", map),
    ]);
    check(dir.path(), Variant::Sharded, &[("a", 1), ("b", 2)], &[]);
    let (one, two) = ("x-00001-of-00002.fp16.safetensors", "x-00002-of-00002.fp16.safetensors");
    let dir = folder(&[
        (one, shard(&[("a", 1)])),
        (two, shard(&[("b", 2)])),
        ("x.safetensors.index.fp16.json", index(&[("a", one), ("b", two)])),
    ]);
    check(dir.path(), Variant::Sharded, &[("a", 1), ("b", 2)], &[]);
    // An index under a name of one's own, recognised by what it holds.
    let dir =
        folder(&[("s.safetensors", shard(&[("a", 1)])), ("map", index(&[("a", "s.safetensors")]))]);
    check(&dir.path().join("map"), Variant::Sharded, &[("a", 1)], &["total_size"]);
    // Shards under names of their own.
    let dir = folder(&[
        ("first.safetensors", shard(&[("a", 1)])),
        ("second.safetensors", shard(&[("b", 2)])),
        (
            "w.safetensors.index.json",
            index(&[("a", "first.safetensors"), ("b", "second.safetensors")]),
        ),
    ]);
    check(dir.path(), Variant::Sharded, &[("a", 1), ("b", 2)], &[]);
}

#[test]
fn one_file_in_a_directory() {
    let dir = folder(&[("model.safetensors", shard(&[("a", 1)])), ("README.md", b"x".to_vec())]);
    check(dir.path(), Variant::File, &[("a", 1)], &[]);
    let dir = folder(&[("diffusion_pytorch_model.fp16.safetensors", shard(&[("a", 1)]))]);
    check(dir.path(), Variant::File, &[("a", 1)], &[]);
}

#[test]
fn a_stale_file_wins_as_in_transformers_and_is_noted() {
    let mut files = good();
    files.push(("model.safetensors", shard(&[("old", 9)])));
    let dir = folder(&files);
    check(dir.path(), Variant::File, &[("old", 9)], &["stale"]);
    // The index can still be named.
    check(&dir.path().join(INDEX), Variant::Sharded, &[("b", 2), ("a", 1)], &["not in the index"]);
    let mut options = OpenOptions::default();
    options.select = Some(INDEX.into());
    let opened = StCheckpoint::open_with(dir.path(), &options).unwrap();
    assert_eq!(opened.variant(), Variant::Sharded);
    options.select = Some("none.safetensors".into());
    let error = StCheckpoint::open_with(dir.path(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn several_checkpoints() {
    let a = || shard(&[("a", 1)]);
    refused(
        &[("x.safetensors", a()), ("x.fp16.safetensors", a()), ("y.safetensors", a())],
        ErrorKind::InvalidArgument,
        &["3 checkpoints", "x.safetensors, x.fp16.safetensors, y.safetensors"],
    );
    let mut files = good();
    files.push(("consolidated.safetensors", a()));
    let dir = folder(&files);
    let notes = ["consolidated.safetensors", "not in the index"];
    check(dir.path(), Variant::Sharded, &[("b", 2), ("a", 1)], &notes);
    refused(
        &[("notes.txt", vec![])],
        ErrorKind::NotFound,
        &["no safetensors", "model.safetensors"],
    );
}

#[test]
fn missing_shards_are_all_listed() {
    let error = refused(&good()[2..], ErrorKind::NotFound, &["2 of 2", ONE, TWO]);
    assert!(error.to_string().contains("fetch them"));
}

#[test]
fn index_contradictions() {
    let with = |weight_map: &[(&str, &str)], says: &[&str]| {
        let mut files = good();
        files[2].1 = index(weight_map);
        refused(&files, ErrorKind::Malformed, says);
    };
    with(&[("a", ONE), ("b", TWO), ("c", TWO)], &["\"c\"", TWO, "does not have it"]);
    with(&[("a", TWO), ("b", TWO)], &["\"a\"", TWO, "does not have it"]);
    with(&[("a", TWO), ("b", ONE)], &["\"a\"", "it is in", ONE]);
    with(&[("a", ONE), ("a", ONE), ("b", TWO)], &["\"a\" twice"]);

    let mut files = good();
    files[1].1 = shard(&[("b", 2), ("a", 3)]);
    refused(&files, ErrorKind::Malformed, &["\"a\" is in both", ONE, TWO]);
    files[1].1 = shard(&[("b", 2), ("c", 3)]);
    refused(&files, ErrorKind::Malformed, &["\"c\"", TWO, "not in the index"]);
    files[1].1 = vec![0; 30];
    refused(&files, ErrorKind::Malformed, &[TWO]);
}

#[test]
fn indexes_that_are_none() {
    let with = |text: &str, kind, says: &[&str]| {
        let mut files = good();
        files[2].1 = text.into();
        refused(&files, kind, &[says, &[INDEX]].concat());
    };
    with("[]", ErrorKind::Malformed, &["object"]);
    with("{}", ErrorKind::Malformed, &["no weight_map"]);
    with(r#"{"weight_map":[]}"#, ErrorKind::Malformed, &["weight_map as an object"]);
    with(r#"{"weight_map":{"a":1}}"#, ErrorKind::Malformed, &["string"]);
    with(r#"{"weight_map":{},"weight_map":{}}"#, ErrorKind::Malformed, &["twice"]);
    with(r#"{"metadata":{"a":1,"a":1},"weight_map":{}}"#, ErrorKind::Malformed, &["\"a\" twice"]);
    with(r#"{"metadata":3,"weight_map":{}}"#, ErrorKind::Malformed, &["metadata"]);
    for bad in
        ["../m.safetensors", "/m.safetensors", "a\\\\b.safetensors", "c:m.safetensors", "m.bin"]
    {
        let text = format!(r#"{{"weight_map":{{"a":"{bad}"}}}}"#);
        with(&text, ErrorKind::Denied, &[bad]);
    }
    let mut options = OpenOptions::default();
    options.limits.header_bytes = 16;
    let dir = folder(&good());
    let error = StCheckpoint::open_with(dir.path(), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn odd_metadata_is_information() {
    let shards = format!(r#""weight_map":{{"a":"{ONE}","b":"{TWO}"}}"#);
    for (metadata, note) in [
        (r#""metadata":{"total_size":2.0},"#, "2.0"),
        (r#""metadata":{"total_size":7},"#, "is 7, the tensors have 2"),
        ("", "no metadata"),
        (r#""metadata":null,"#, "no metadata"),
    ] {
        let mut files = good();
        files[2].1 = format!("{{{metadata}{shards}}}").into();
        let dir = folder(&files);
        check(dir.path(), Variant::Sharded, &[("a", 1), ("b", 2)], &[note]);
    }
    let mut files = good();
    let metadata =
        r#""metadata":{"total_size":2,"x":{"y":[1]},"z":"a","format":"pt"},"other":[{}],"#;
    files[2].1 = format!("{{{metadata}{shards}}}").into();
    let dir = folder(&files);
    let opened = check(dir.path(), Variant::Sharded, &[("a", 1), ("b", 2)], &[]);
    assert_eq!(opened.aliases(), map(&[("z", "a")]));
}

#[test]
fn numbered_shards_without_an_index() {
    let files = &good()[..2];
    refused(files, ErrorKind::NotFound, &["no index", ONE, "without_index"]);
    let mut options = OpenOptions::default();
    options.without_index = true;
    let open = |files: &[(&str, Vec<u8>)]| {
        let dir = folder(files);
        StCheckpoint::open_with(dir.path(), &options)
    };
    let opened = open(files).unwrap();
    assert_eq!(opened.variant(), Variant::Sharded);
    assert_eq!(opened.infos().map(|i| i.name()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(opened.notes()[0].contains("no index"));
    let error = open(&files[1..]).unwrap_err();
    assert!(error.to_string().contains("missing numbers: 1"), "{error}");
    let twice = [(ONE, shard(&[("a", 1)])), (TWO, shard(&[("a", 2)]))];
    let error = open(&twice).unwrap_err();
    assert!(error.to_string().contains("\"a\" is in both"), "{error}");
}

#[test]
fn side_files() {
    let mut files = good();
    files.extend([
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", b"tok".to_vec()),
        ("merges.txt", b"m".to_vec()),
        (".gitattributes", vec![]),
        ("pytorch_model.bin", vec![]),
        ("pytorch_model.bin.index.json", vec![]),
    ]);
    let dir = folder(&files);
    let opened = check(dir.path(), Variant::Sharded, &[("b", 2), ("a", 1)], &[]);
    assert_eq!(opened.config().unwrap().unwrap().read(9).unwrap(), b"{}");
    let artifacts = opened.artifacts().unwrap();
    let names: Vec<&str> = artifacts.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["merges.txt", "tokenizer.json"]);
    assert_eq!(artifacts[1].1.read(9).unwrap(), b"tok");
    let alone = StCheckpoint::open(dir.path().join(ONE)).unwrap();
    assert!(alone.config().unwrap().is_none() && alone.artifacts().unwrap().is_empty());
}

#[cfg(unix)]
#[test]
fn links_may_not_leave_the_directory() {
    use std::os::unix::fs::symlink;
    let elsewhere = folder(&[(ONE, shard(&[("a", 1)]))]);
    let dir = folder(&good()[1..]);
    symlink(elsewhere.path().join(ONE), dir.path().join(ONE)).unwrap();
    let error = StCheckpoint::open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("symbolic link"), "{error}");
    let mut options = OpenOptions::default();
    options.follow_links = true;
    assert_eq!(StCheckpoint::open_with(dir.path(), &options).unwrap().infos().count(), 2);
    // Inside the directory a link is as good as the file, and the user's own path may be one.
    fs::remove_file(dir.path().join(ONE)).unwrap();
    fs::write(dir.path().join("real"), shard(&[("a", 1)])).unwrap();
    symlink("real", dir.path().join(ONE)).unwrap();
    symlink(dir.path(), elsewhere.path().join("to")).unwrap();
    check(&elsewhere.path().join("to"), Variant::Sharded, &[("b", 2), ("a", 1)], &[]);
    // The cache of the Hugging Face hub.
    let cache =
        folder(&[("models--x/blobs/123", shard(&[("a", 1)])), ("models--x/snapshots/r/x", vec![])]);
    let snapshot = cache.path().join("models--x/snapshots/r");
    symlink("../../blobs/123", snapshot.join("model.safetensors")).unwrap();
    check(&snapshot, Variant::File, &[("a", 1)], &[]);
}

#[test]
fn shards_inside_other_bytes() {
    let section = |bytes: Vec<u8>| Section::from_bytes(bytes, "member");
    let files = good();
    let parts = |names: &[usize]| -> Vec<(String, Section)> {
        names.iter().map(|i| (files[*i].0.to_owned(), section(files[*i].1.clone()))).collect()
    };
    let index = section(files[2].1.clone());
    let limits = Limits::default();
    let opened = ShardedSt::from_sections(&index, parts(&[0, 1]), &limits).unwrap();
    assert_eq!(opened.tensor("b").unwrap().read().unwrap(), [2]);
    assert!(opened.config().unwrap().is_none());
    let error = ShardedSt::from_sections(&index, parts(&[0]), &limits).unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains(TWO));
}

#[test]
fn one_exotic_tensor_in_a_shard() {
    let odd = file(r#"{"b":{"dtype":"U128","shape":[1],"data_offsets":[0,1]}}"#, &[0]);
    let mut files = good();
    files[1].1 = odd;
    let dir = folder(&files);
    let opened = StCheckpoint::open(dir.path()).unwrap();
    assert_eq!(opened.infos().count(), 1);
    assert_eq!(opened.entries().count(), 2);
    assert!(opened.notes()[0].contains("U128"));
    assert_eq!(opened.verify().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(opened.tensor("b").unwrap_err().kind(), ErrorKind::Unsupported);
}
