//! Pieces written by torch's distributed checkpoint, put together.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests")]

mod common;

use std::fs;

use ckptkit_core::{Dtype, Error, ErrorKind};
use common::{file, pattern};
use st_io::{DcpShards, StCheckpoint, Variant};
use tempfile::TempDir;

/// A piece: name, dtype, where it begins, shape, bytes.
struct Piece(&'static str, Dtype, Vec<u64>, Vec<u64>, Vec<u8>);

/// The file that torch writes for one rank.
fn rank_file(pieces: &[Piece]) -> Vec<u8> {
    let info: Vec<String> = pieces
        .iter()
        .map(|p| format!(r#"\"{}\": {{\"saved_offsets\": {:?}}}"#, p.0, p.2))
        .collect();
    let mut header = format!(
        r#"{{"__metadata__":{{"format":"pt","DCP_VERSION":"1.0","DCP_SHARDING_INFO":"{{{}}}"}}"#,
        info.join(", ")
    );
    let mut data = Vec::new();
    for Piece(name, dtype, _, shape, bytes) in pieces {
        let begin = data.len();
        data.extend_from_slice(bytes);
        header += &format!(
            r#","{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{}]}}"#,
            data.len()
        );
    }
    file(header + "}", &data)
}

fn name(rank: usize) -> String {
    format!("shard-{rank:05}-model-00001-of-00001.safetensors")
}

fn folder(ranks: &[Vec<u8>]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, bytes) in ranks.iter().enumerate() {
        fs::write(dir.path().join(name(i + 1)), bytes).unwrap();
    }
    dir
}

/// Cuts row-major bytes (`unit` each) into the box at `offset`: element by element.
fn cut(whole: &[u8], shape: &[u64], unit: usize, offset: &[u64], size: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    let count: u64 = size.iter().product();
    for i in 0..count {
        let (mut rest, mut at, mut stride) = (i, 0, 1);
        for d in (0..shape.len()).rev() {
            at += (offset[d] + rest % size[d]) * stride;
            rest /= size[d];
            stride *= shape[d];
        }
        let at = at as usize * unit;
        out.extend_from_slice(&whole[at..at + unit]);
    }
    out
}

/// Writes `boxes` of a tensor to one file each, in this order, and reads the whole back.
#[track_caller]
fn check(dtype: Dtype, shape: &[u64], boxes: &[(&[u64], &[u64])]) {
    let unit = dtype.element_bytes().unwrap() as usize;
    let whole = pattern(3, shape.iter().product::<u64>() * unit as u64);
    let ranks: Vec<Vec<u8>> = boxes
        .iter()
        .map(|(o, s)| {
            let bytes = cut(&whole, shape, unit, o, s);
            rank_file(&[Piece("t", dtype, o.to_vec(), s.to_vec(), bytes)])
        })
        .collect();
    let dir = folder(&ranks);
    let opened = StCheckpoint::open(dir.path()).unwrap();
    assert_eq!(opened.variant(), Variant::DcpShards);
    assert!(opened.notes().is_empty(), "{:?}", opened.notes());
    opened.verify().unwrap();
    let t = opened.tensor("t").unwrap();
    assert_eq!((t.dtype(), t.shape()), (dtype, shape));
    assert_eq!(t.read().unwrap(), whole, "{dtype} {shape:?} {boxes:?}");
    assert_eq!(opened.infos().map(|i| i.name()).collect::<Vec<_>>(), ["t"]);
    assert_eq!(opened.shards().len(), boxes.len());
}

#[test]
fn pieces_of_every_cut_and_dtype() {
    for dtype in [
        Dtype::F32,
        Dtype::I64,
        Dtype::I32,
        Dtype::Bool,
        Dtype::Bf16,
        Dtype::F8E4M3,
        Dtype::U8,
        Dtype::C64,
    ] {
        // A scalar, which torch's own consolidation turns into zero.
        check(dtype, &[], &[(&[], &[])]);
        check(dtype, &[4, 3], &[(&[0, 0], &[2, 3]), (&[2, 0], &[2, 3])]);
        check(dtype, &[4, 6], &[(&[0, 0], &[4, 3]), (&[0, 3], &[4, 3])]);
        let quarters: [(&[u64], &[u64]); 4] =
            [(&[0, 0], &[2, 2]), (&[0, 2], &[2, 3]), (&[2, 0], &[3, 2]), (&[2, 2], &[3, 3])];
        check(dtype, &[5, 5], &quarters);
        // Uneven, and a rank that has nothing.
        check(dtype, &[5, 2], &[(&[0, 0], &[2, 2]), (&[2, 0], &[2, 2]), (&[4, 0], &[1, 2])]);
        check(dtype, &[2, 2], &[(&[0, 0], &[1, 2]), (&[1, 0], &[1, 2]), (&[2, 0], &[0, 2])]);
        check(dtype, &[2, 3, 4], &[(&[0, 0, 0], &[2, 1, 4]), (&[0, 1, 0], &[2, 2, 4])]);
        check(dtype, &[7], &[(&[4], &[3]), (&[0], &[4])]);
        check(dtype, &[0, 4], &[(&[0, 0], &[0, 4])]);
    }
}

#[test]
fn packed_pieces() {
    // torch counts pairs along the last dimension, the file counts elements: [4, 3] in torch.
    let rows = |o: u64, b: &[u8]| Piece("t", Dtype::F4, vec![o, 0], vec![2, 6], b.to_vec());
    let dir = folder(&[
        rank_file(&[rows(0, &[1, 2, 3, 4, 5, 6])]),
        rank_file(&[rows(2, &[7, 8, 9, 10, 11, 12])]),
    ]);
    let t = StCheckpoint::open(dir.path()).unwrap().tensor("t").unwrap();
    assert_eq!(t.shape(), [4, 6]);
    assert_eq!(t.read().unwrap(), (1..=12).collect::<Vec<u8>>());
    let columns =
        |o: u64, w: u64, b: &[u8]| Piece("t", Dtype::F4, vec![0, o], vec![2, w], b.to_vec());
    let dir =
        folder(&[rank_file(&[columns(0, 4, &[1, 2, 4, 5])]), rank_file(&[columns(2, 2, &[3, 6])])]);
    let t = StCheckpoint::open(dir.path()).unwrap().tensor("t").unwrap();
    assert_eq!(t.shape(), [2, 6]);
    assert_eq!(t.read().unwrap(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn tensors_come_in_the_order_of_the_files() {
    let byte = |n, o: u64, v: u8| Piece(n, Dtype::U8, vec![o], vec![1], vec![v]);
    let dir = folder(&[
        rank_file(&[byte("x", 0, 1), byte("a", 0, 2)]),
        rank_file(&[byte("m", 0, 3), byte("x", 1, 4)]),
    ]);
    let opened = DcpShards::open(dir.path()).unwrap();
    assert_eq!(opened.infos().map(|i| i.name()).collect::<Vec<_>>(), ["x", "a", "m"]);
    assert_eq!(opened.tensor("x").unwrap().read().unwrap(), [1, 4]);
    assert_eq!(opened.metadata(), &common::map(&[("format", "pt"), ("DCP_VERSION", "1.0")]));
    // One file alone is listed as it is, with a word about it.
    let alone = StCheckpoint::open(dir.path().join(name(2))).unwrap();
    assert_eq!(alone.tensor("x").unwrap().shape(), [1]);
    assert!(alone.notes()[0].contains("pieces"));
}

#[test]
fn files_without_offsets_hold_whole_tensors() {
    let plain = file(r#"{"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#, &[5, 6]);
    let dir = folder(&[plain]);
    let opened = StCheckpoint::open(dir.path()).unwrap();
    assert_eq!(opened.tensor("w").unwrap().read().unwrap(), [5, 6]);
}

#[test]
fn sharded_below_is_preferred_to_what_was_consolidated() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sharded")).unwrap();
    let scalar = |v: u8| Piece("s", Dtype::U8, vec![], vec![], vec![v]);
    fs::write(dir.path().join("sharded").join(name(1)), rank_file(&[scalar(7)])).unwrap();
    let zero = file(r#"{"s":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}"#, &[0]);
    let consolidated = "model-00001-of-00001.safetensors";
    fs::write(dir.path().join(consolidated), zero).unwrap();
    let index =
        format!(r#"{{"metadata":{{"total_size":1}},"weight_map":{{"s":"{consolidated}"}}}}"#);
    fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    let opened = StCheckpoint::open(dir.path()).unwrap();
    assert_eq!(opened.variant(), Variant::DcpShards);
    assert_eq!(opened.tensor("s").unwrap().read().unwrap(), [7]);
    assert!(opened.notes()[0].contains("consolidated"), "{:?}", opened.notes());
    assert!(opened.config().unwrap().is_some());
}

#[track_caller]
fn refused(ranks: &[Vec<u8>], kind: ErrorKind, says: &[&str]) -> Error {
    let dir = folder(ranks);
    let error = StCheckpoint::open(dir.path()).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for part in says {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
    error
}

#[test]
fn pieces_that_do_not_tile() {
    let f = |o: &[u64], s: &[u64]| {
        let len = s.iter().product::<u64>();
        rank_file(&[Piece("t", Dtype::U8, o.to_vec(), s.to_vec(), vec![1; len as usize])])
    };
    let bad = ErrorKind::Malformed;
    refused(
        &[f(&[0], &[2]), f(&[3], &[2])],
        bad,
        &["tensor t", "4 of the 5 elements", "rank is missing"],
    );
    refused(
        &[f(&[0], &[2]), f(&[1], &[2])],
        bad,
        &["tensor t", "overlap", "shard-00001", "shard-00002"],
    );
    refused(&[f(&[], &[]), f(&[], &[])], bad, &["overlap"]);
    refused(&[f(&[1, 0], &[1, 2])], bad, &["2 of the 4"]);
    refused(&[f(&[0], &[2]), f(&[2, 0], &[1, 1])], bad, &["differ in rank", "[2]", "[1, 1]"]);
    refused(&[f(&[0, 0], &[2])], bad, &["saved_offsets [0, 0]", "shape [2]"]);
    // A box far larger than the data is refused before it is sized.
    refused(&[f(&[1 << 62], &[2])], bad, &["2 of the"]);
    refused(&[f(&[u64::MAX], &[2])], bad, &["overflow"]);
    refused(&[f(&[1 << 63, 1 << 63, 1 << 63], &[1, 1, 1])], bad, &["too many elements"]);
    let other = rank_file(&[Piece("t", Dtype::I8, vec![2], vec![1], vec![1])]);
    refused(&[f(&[0], &[2]), other], bad, &["differ in dtype", "U8", "I8"]);
}

#[test]
fn sharding_information_that_is_none() {
    let with = |info: &str| {
        let info = serde_json::to_string(info).unwrap();
        file(
            format!(
                r#"{{"__metadata__":{{"DCP_SHARDING_INFO":{info}}},"t":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#
            ),
            &[1],
        )
    };
    for (info, says) in [
        ("", "JSON"),
        ("[]", "object"),
        ("{}", "does not say"),
        (r#"{"t":[0]}"#, "object with saved_offsets"),
        (r#"{"t":{}}"#, "saved_offsets are missing"),
        (r#"{"t":{"saved_offsets":[-1]}}"#, "-1"),
        (r#"{"t":{"saved_offsets":[0.0]}}"#, "0.0"),
        (r#"{"t":{"saved_offsets":[0],"saved_offsets":[0]}}"#, "twice"),
        (r#"{"t":{"saved_offsets":[0]},"t":{"saved_offsets":[0]}}"#, "twice"),
        (r#"{"t":{"saved_offsets":[0]},"u":{"saved_offsets":[0]}}"#, "\"u\""),
    ] {
        refused(&[with(info)], ErrorKind::Malformed, &[says, "shard-00001"]);
    }
    let fine = folder(&[with(r#"{"t":{"saved_offsets":[0],"more":{"x":[1]}}}"#)]);
    StCheckpoint::open(fine.path()).unwrap();
}

#[test]
fn gaps_in_the_numbers_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    let t = rank_file(&[Piece("t", Dtype::U8, vec![0], vec![1], vec![1])]);
    fs::write(dir.path().join(name(3)), &t).unwrap();
    fs::write(dir.path().join("other.safetensors"), &t).unwrap();
    let opened = StCheckpoint::open(dir.path()).unwrap();
    let notes = opened.notes().join("\n");
    assert!(notes.contains("rank number 1, 2 of 3"), "{notes}");
    assert!(notes.contains("other.safetensors"), "{notes}");
}

#[test]
fn entries_that_are_no_tensors_are_named() {
    let archive = [
        b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0e\0\0\0epoch/data.pkl"
            .as_slice(),
        &[0; 64],
    ]
    .concat();
    let t = rank_file(&[Piece("t", Dtype::U8, vec![0], vec![1], vec![1])]);
    refused(
        &[t, archive],
        ErrorKind::Unsupported,
        &["shard-00002", "epoch/data.pkl", "no tensors"],
    );
}

#[test]
fn pieces_of_unknown_dtypes_leave_the_rest() {
    let odd = file(
        r#"{"o":{"dtype":"X9","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
        &[1, 2],
    );
    let dir = folder(&[odd]);
    let opened = StCheckpoint::open(dir.path()).unwrap();
    assert_eq!(opened.tensor("t").unwrap().read().unwrap(), [2]);
    assert!(opened.notes()[0].contains("X9"));
    assert_eq!(opened.verify().unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn a_save_by_rank_0_is_sharded() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let byte = |n, v: u8| rank_file(&[Piece(n, Dtype::U8, vec![0], vec![1], vec![v])]);
    fs::write(dir.path().join(one), byte("a", 1)).unwrap();
    fs::write(dir.path().join(two), byte("b", 2)).unwrap();
    let index =
        format!(r#"{{"metadata":{{"total_size":2}},"weight_map":{{"a":"{one}","b":"{two}"}}}}"#);
    fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    let opened = StCheckpoint::open(dir.path()).unwrap();
    assert_eq!(opened.variant(), Variant::Sharded);
    assert_eq!(opened.tensor("b").unwrap().read().unwrap(), [2]);
    assert!(opened.notes().is_empty(), "{:?}", opened.notes());
    assert_eq!(opened.metadata(), &common::map(&[("format", "pt"), ("DCP_VERSION", "1.0")]));
}
