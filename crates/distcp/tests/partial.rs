//! What is left of a checkpoint, and items that contradict the metadata, where that is allowed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod support;

use ckptkit_core::{Dtype, ErrorKind, Region, Result, TensorBytes, TensorSource};
use distcp::{DistCheckpoint, OpenOptions};
use support::item::{archive, floats, tensor_value};
use support::pickle::{P, size};
use support::{Hollow, META, Memory, Metadata, transformed};

/// Offsets and sizes.
type BoxOf<'a> = (&'a [i64], &'a [i64]);

fn partial(files: &Memory, m: &Metadata) -> DistCheckpoint {
    open(files, m, &OpenOptions::default().allow_partial(true)).unwrap()
}

fn open(files: &Memory, m: &Metadata, options: &OpenOptions) -> Result<DistCheckpoint> {
    let mut files = files.clone();
    files.0.insert(".metadata".into(), m.pickle());
    options.with_storage(Box::new(files))
}

/// Adds `name` of shape `dims` with the boxes of `chunks`; each element is its position plus one.
fn add(files: &mut Memory, m: &mut Metadata, name: &str, dims: &[i64], chunks: &[BoxOf<'_>]) {
    m.tensor(name, "float32", dims, chunks);
    for (offsets, sizes) in chunks {
        let values: Vec<f32> = positions(dims, offsets, sizes).map(|i| i as f32 + 1.0).collect();
        let (at, len) = files.item("__0_0.distcp", &floats(sizes, &values));
        m.place(name, Some(offsets), "__0_0.distcp", at, len);
    }
}

/// Row-major positions in the tensor of a box's elements.
fn positions(dims: &[i64], offsets: &[i64], sizes: &[i64]) -> impl Iterator<Item = i64> {
    let count: i64 = sizes.iter().product();
    let (dims, offsets, sizes) = (dims.to_vec(), offsets.to_vec(), sizes.to_vec());
    (0..count).map(move |mut i| {
        let (mut at, mut stride) = (0, 1);
        for d in (0..dims.len()).rev() {
            at += (offsets[d] + i % sizes[d]) * stride;
            stride *= dims[d];
            i /= sizes[d];
        }
        at
    })
}

fn read(checkpoint: &DistCheckpoint, name: &str) -> Vec<f32> {
    let bytes = checkpoint.tensor(name).unwrap().read().unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// What a tensor of these boxes is, zeros included.
fn expected(dims: &[i64], chunks: &[BoxOf<'_>]) -> Vec<f32> {
    let mut out = vec![0.0; dims.iter().product::<i64>() as usize];
    for (offsets, sizes) in chunks {
        for at in positions(dims, offsets, sizes) {
            out[at as usize] = at as f32 + 1.0;
        }
    }
    out
}

#[test]
fn what_is_missing_is_zeros() {
    let cases: [(&[i64], &[BoxOf<'_>]); 6] = [
        (&[4, 3], &[(&[0, 0], &[2, 3])]),
        (&[4, 3], &[(&[2, 0], &[2, 3])]),
        (&[4, 6], &[(&[0, 0], &[2, 3]), (&[2, 3], &[2, 3])]),
        (&[3, 3], &[(&[1, 1], &[1, 1])]),
        (&[2, 2, 2], &[(&[0, 1, 0], &[1, 1, 2]), (&[1, 0, 1], &[1, 2, 1])]),
        (&[5], &[(&[1], &[2]), (&[4], &[1]), (&[5], &[0])]),
    ];
    for (dims, chunks) in cases {
        let (mut files, mut m) = (Memory::default(), Metadata::default());
        add(&mut files, &mut m, "w", dims, chunks);
        add(&mut files, &mut m, "whole", &[2], &[(&[0], &[2])]);
        let strict = files.open(&m).unwrap();
        let e = strict.tensor("w").unwrap().read().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Malformed, "{e}");
        assert!(e.to_string().contains("allow_partial"), "{e}");
        assert!(strict.filled("w").unwrap().is_empty());
        assert!(!strict.verify().unwrap().is_ok());

        let checkpoint = partial(&files, &m);
        let want = expected(dims, chunks);
        assert_eq!(read(&checkpoint, "w"), want);
        let missing = want.iter().filter(|v| **v == 0.0).count() as u64;
        let filled = checkpoint.filled("w").unwrap();
        assert_eq!(filled.iter().map(|r| r.sizes.iter().product::<u64>()).sum::<u64>(), missing);
        for Region { offsets, sizes } in &filled {
            let len: u64 = sizes.iter().product();
            let mut out = vec![1; len as usize * 4];
            checkpoint.read_region("w", offsets, sizes, &mut out).unwrap();
            assert!(out.iter().all(|&b| b == 0));
        }
        let notes = checkpoint.notes();
        assert_eq!(notes.len(), 1, "{notes:?}");
        let text = format!("w: no chunk holds {missing} of {} elements", want.len());
        assert!(notes[0].starts_with(&text), "{notes:?}");
        let report = checkpoint.verify().unwrap();
        assert!(report.is_ok(), "{:?}", report.problems);
        assert_eq!(report.notes, notes);
        // One that is whole is as it was.
        assert!(checkpoint.filled("whole").unwrap().is_empty());
        assert_eq!(read(&checkpoint, "whole"), [1.0, 2.0]);
    }
}

#[test]
fn in_pieces_that_begin_and_end_anywhere() {
    let chunks: &[BoxOf<'_>] = &[(&[0, 1], &[2, 2]), (&[3, 0], &[1, 5])];
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    add(&mut files, &mut m, "w", &[4, 5], chunks);
    let tensor = partial(&files, &m).tensor("w").unwrap();
    let whole = tensor.read().unwrap();
    for start in 0..whole.len() {
        for end in start..=whole.len() {
            let mut out = vec![7; end - start];
            tensor.read_into(start as u64, &mut out).unwrap();
            assert_eq!(out, whole[start..end]);
        }
    }
}

#[test]
fn nothing_at_all_is_zeros_too() {
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    add(&mut files, &mut m, "w", &[2, 3], &[]);
    m.tensor("scalar", "float32", &[], &[]);
    m.tensor("empty", "float32", &[0, 3], &[]);
    let checkpoint = partial(&files, &m);
    assert_eq!(read(&checkpoint, "w"), [0.0; 6]);
    assert_eq!(read(&checkpoint, "scalar"), [0.0]);
    assert!(read(&checkpoint, "empty").is_empty());
    assert_eq!(checkpoint.filled("scalar").unwrap().len(), 1);
    assert!(checkpoint.filled("empty").unwrap().is_empty());
    assert_eq!(checkpoint.notes().len(), 2);
    assert_eq!(checkpoint.filled("none").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn everything_else_stays_an_error() {
    let refused = |files: &Memory, m: &Metadata, words: &str| {
        let checkpoint = partial(files, m);
        let e = checkpoint.tensor("w").unwrap().read().unwrap_err().to_string();
        assert!(e.contains(words), "{e}");
        assert!(!checkpoint.verify().unwrap().is_ok());
    };
    // An overlap, with a gap before and behind it.
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    add(&mut files, &mut m, "w", &[6], &[(&[2], &[2]), (&[3], &[2])]);
    refused(&files, &m, "chunks overlap: 2 of them hold the element at [3], 4 elements are stored");
    assert!(partial(&files, &m).filled("w").is_err());
    assert!(partial(&files, &m).notes().is_empty());
    // A chunk outside.
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    add(&mut files, &mut m, "w", &[2], &[(&[1], &[2])]);
    refused(&files, &m, "reaches outside");
    // A chunk that has no place: it is not missing, it cannot be found.
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    add(&mut files, &mut m, "w", &[4], &[(&[0], &[1]), (&[2], &[1])]);
    m.storage.pop();
    refused(&files, &m, "no place for the chunk at [2]");
    // A damaged item.
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    add(&mut files, &mut m, "w", &[4], &[(&[0], &[1])]);
    files.0.get_mut("__0_0.distcp").unwrap()[..4].fill(0);
    refused(&files, &m, "item of");
    // A file that is not there.
    files.0.clear();
    let e = open(&files, &m, &OpenOptions::default().allow_partial(true)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
}

#[test]
fn a_size_that_only_the_metadata_claims_is_not_filled() {
    for dims in [&[1 << 40, 1 << 10][..], &[1 << 40]] {
        let (mut files, mut m) = (Memory::default(), Metadata::default());
        let sizes = vec![1; dims.len()];
        let offsets = vec![0; dims.len()];
        add(&mut files, &mut m, "w", dims, &[(&offsets, &sizes)]);
        let checkpoint = partial(&files, &m);
        let tensor = checkpoint.tensor("w").unwrap();
        let TensorBytes::Broken(e) = tensor.bytes() else { panic!("{:?}", tensor.bytes()) };
        assert_eq!(e.kind(), ErrorKind::LimitExceeded, "{e}");
    }
}

#[test]
fn chunks_cut_in_too_many_ways_to_tell() {
    // Every box spans all the cuts of the others.
    let n = 4000;
    let mut m = Metadata::default();
    let owned: Vec<([i64; 2], [i64; 2])> = (0..n).map(|i| ([i, i], [n, 1])).collect();
    let chunks: Vec<BoxOf<'_>> = owned.iter().map(|(o, s)| (&o[..], &s[..])).collect();
    m.tensor("w", "int8", &[2 * n, n + 1], &chunks);
    let checkpoint = OpenOptions::default().allow_partial(true);
    let checkpoint = checkpoint.with_storage(Box::new(Hollow(m.pickle()))).unwrap();
    let e = checkpoint.filled("w").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded, "{e}");
}

#[test]
fn notes_on_many_tensors_stay_few() {
    let mut m = Metadata::default();
    for i in 0..300 {
        m.tensor(&format!("w{i}"), "float32", &[2], &[]);
    }
    let notes = partial(&Memory::default(), &m).notes();
    assert_eq!(notes.len(), 101);
    assert!(notes[100].contains("200 more tensors"), "{}", notes[100]);
}

/// A tensor of Megatron's flattened shards: a grid of two blocks, the second lost.
#[test]
fn flattened_shards() {
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    let values: Vec<f32> = (1..=6_u8).map(f32::from).collect();
    m.tensor("w", "float32", &[2, 1, 6], &[(&[0, 0, 0], &[1, 1, 6])]);
    let (at, len) = files.item("__0_0.distcp", &floats(&[1, 1, 6], &values));
    m.place("w", Some(&[0, 0, 0]), "__0_0.distcp", at, len);
    let shape = P::Dict(vec![(P::Str("nd_reformulated_orig_global_shape".into()), size(&[4, 3]))]);
    m.more.push(("mcore_data", P::Dict(vec![(P::Str("w".into()), shape)])));
    assert!(files.open(&m).unwrap().tensor("w").unwrap().read().is_err());
    let checkpoint = partial(&files, &m);
    let want: Vec<f32> = values.into_iter().chain([0.0; 6]).collect();
    assert_eq!(read(&checkpoint, "w"), want);
    assert_eq!(checkpoint.filled("w").unwrap()[0].offsets, [1, 0, 0]);
}

// --- items of another dtype --------------------------------------------------

fn believing(files: &Memory, m: &Metadata) -> DistCheckpoint {
    open(files, m, &OpenOptions::default().item_dtypes(true)).unwrap()
}

/// A tensor of two chunks whose metadata says `dtype`, with float32 items.
fn contradicted(dtype: &'static str) -> (Memory, Metadata) {
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    add(&mut files, &mut m, "w", &[4], &[(&[0], &[2]), (&[2], &[2])]);
    let chunks = [(&[0_i64][..], &[2_i64][..]), (&[2][..], &[2][..])];
    m.entries.clear();
    m.tensor("w", dtype, &[4], &chunks);
    (files, m)
}

#[test]
fn items_are_believed_where_they_agree() {
    for dtype in ["float64", "bfloat16", "int8"] {
        let (files, m) = contradicted(dtype);
        let strict = files.open(&m).unwrap();
        let e = strict.tensor("w").unwrap().read().unwrap_err().to_string();
        assert!(e.contains("the item holds F32") && e.contains("item_dtypes"), "{e}");

        let checkpoint = believing(&files, &m);
        let info = checkpoint.infos().next().unwrap();
        assert_eq!((info.dtype(), info.shape()), (Dtype::F32, &[4][..]));
        assert_eq!(read(&checkpoint, "w"), [1.0, 2.0, 3.0, 4.0]);
        let notes = checkpoint.notes();
        assert!(notes[0].starts_with("w: its items hold F32 elements, the metadata says"));
        assert_eq!(notes.len(), 1);
        let report = checkpoint.verify().unwrap();
        assert!(report.is_ok(), "{:?}", report.problems);
    }
}

#[test]
fn items_that_disagree_are_not_believed() {
    let (mut files, mut m) = contradicted("float64");
    let other = tensor_value(&[2], &[1], 0, 2);
    let bytes = archive(&other, &[&[0; 8]]);
    let (at, len) = files.item("__0_0.distcp", &bytes);
    m.storage.pop();
    m.place("w", Some(&[2]), "__0_0.distcp", at, len);
    // Both float32 still: that agrees.
    assert_eq!(believing(&files, &m).tensor("w").unwrap().dtype(), Dtype::F32);
    // One whose item is as the metadata says, one whose item is not.
    let half = support::item::archive(&half_tensor(), &[&[0; 4]]);
    let (at, len) = files.item("__0_0.distcp", &half);
    m.storage.pop();
    m.place("w", Some(&[2]), "__0_0.distcp", at, len);
    let checkpoint = believing(&files, &m);
    let tensor = checkpoint.tensor("w").unwrap();
    assert_eq!(tensor.dtype(), Dtype::F64);
    let e = tensor.read().unwrap_err().to_string();
    assert!(e.contains("the metadata says F64"), "{e}");
    assert!(checkpoint.notes().is_empty());
    assert!(!checkpoint.verify().unwrap().is_ok());
}

/// Two float16 elements.
fn half_tensor() -> P {
    let storage = P::Pers(Box::new(P::Tuple(vec![
        P::Str("storage".into()),
        P::Global("torch", "HalfStorage"),
        P::Str("0".into()),
        P::Str("cpu".into()),
        P::Int(2),
    ])));
    let args = vec![
        storage,
        P::Int(0),
        P::Tuple(vec![P::Int(2)]),
        P::Tuple(vec![P::Int(1)]),
        P::Bool(false),
        P::Call("collections", "OrderedDict", vec![]),
    ];
    P::Call("torch._utils", "_rebuild_tensor_v2", args)
}

/// An item that cannot be opened leaves the tensor to its own error, and the others to be listed.
#[test]
fn items_that_cannot_be_opened() {
    let (mut files, m) = contradicted("float64");
    files.0.get_mut("__0_0.distcp").unwrap()[..4].fill(0);
    let checkpoint = believing(&files, &m);
    assert_eq!(checkpoint.infos().count(), 1);
    assert!(checkpoint.tensor("w").unwrap().read().is_err());
    // A transform that nobody knows.
    let (mut files, mut m) = contradicted("float64");
    m.storage[0].1 = transformed("__0_0.distcp", 0, 10, &["stream.rot13/1"]);
    let checkpoint = believing(&files, &m);
    let e = checkpoint.tensor("w").unwrap().read().unwrap_err().to_string();
    assert!(e.contains("rot13"), "{e}");
    files.0.clear();
    m.entries.push((P::Str("x".into()), P::Obj(META, "BytesStorageMetadata", None)));
    assert!(open(&files, &m, &OpenOptions::default().item_dtypes(true)).is_err());
}
