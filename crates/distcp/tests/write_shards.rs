//! Safetensors shards, against those that torch's `HuggingFaceStorageWriter` wrote.
#![cfg(feature = "safetensors")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ckptkit_core::{
    CopyOptions, Dtype, ErrorKind, Existing, Key, OutputFile, Section, Tensor, TensorBytes,
    TensorInfo,
};
use distcp::Placement::{Replicate, Shard};
use distcp::{DistCheckpoint, Entry, Form, Placement, WriteOptions, plan};
use st_io::{DcpShards, StFile};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn options(ranks: u32) -> WriteOptions {
    let mut options = WriteOptions::new();
    (options.ranks, options.form) = (ranks, Form::Safetensors);
    options
}

fn key(name: &str) -> Vec<Key> {
    vec![Key::Str(name.into())]
}

fn write(entries: &[Entry], options: &WriteOptions, to: &Path) -> DcpShards {
    let plan = plan(entries, options).unwrap();
    plan.layout.write(to, Existing::Replace, &CopyOptions::default()).unwrap();
    let shards = DcpShards::open(to).unwrap();
    shards.verify().unwrap();
    shards
}

/// What a shard holds: names, shapes, bytes, and where they begin.
fn content(file: &StFile) -> BTreeMap<String, (Vec<u64>, Vec<u8>, String)> {
    let info: serde_json::Value =
        serde_json::from_str(&file.metadata()["DCP_SHARDING_INFO"]).unwrap();
    let tensors = file.infos().map(|i| {
        let bytes = file.tensor(i.name()).unwrap().read().unwrap();
        (i.name().to_owned(), (i.shape().to_vec(), bytes, info[i.name()].to_string()))
    });
    assert_eq!(info.as_object().unwrap().len(), file.infos().count());
    tensors.collect()
}

/// The state of `xtask/python/make_safetensors.py`, in its order.
const PLACED: [(&str, Placement); 6] = [
    ("rows", Shard(0)),
    ("columns", Shard(1)),
    ("replicated", Replicate),
    ("scalar", Replicate),
    ("ints", Shard(0)),
    ("thin", Shard(0)),
];

#[test]
fn the_shards_are_those_of_torch() {
    let torch = DcpShards::open(fixtures().join("safetensors/dcp_shards")).unwrap();
    let entries: Vec<Entry> = PLACED
        .iter()
        .map(|&(name, placement)| {
            Entry::tensor(key(name), torch.tensor(name).unwrap()).placed([placement])
        })
        .collect();
    assert_eq!(entries.len(), torch.infos().count());
    let temp = tempfile::tempdir().unwrap();
    let mut options = options(2);
    options.align = 8;
    let ours = write(&entries, &options, &temp.path().join("again"));
    for ((theirs, a), (name, b)) in torch.files().zip(ours.files()) {
        assert_eq!(name, theirs);
        assert_eq!(content(b), content(a), "{name}");
        let others = |f: &StFile| {
            let mut metadata = f.metadata().clone();
            metadata.remove("DCP_SHARDING_INFO");
            metadata
        };
        assert_eq!(others(b), others(a));
    }
    assert_eq!(ours.files().count(), 2);
}

#[test]
fn checkpoints_become_shards() {
    let source = DistCheckpoint::open(fixtures().join("distcp/tp_4")).unwrap();
    let temp = tempfile::tempdir().unwrap();
    for ranks in [1, 3, 4] {
        let ours = write(&source.entries().unwrap(), &options(ranks), &temp.path().join("shards"));
        assert!(ours.notes().is_empty(), "{:?}", ours.notes());
        assert_eq!(ours.files().count(), ranks as usize);
        for info in ours.infos() {
            let before = ckptkit_core::TensorSource::tensor(&source, info.name()).unwrap();
            assert_eq!((info.shape(), info.dtype()), (before.shape(), before.dtype()));
            let after = ours.tensor(info.name()).unwrap().read().unwrap();
            assert_eq!(after, before.read().unwrap(), "{}", info.name());
        }
    }
}

#[test]
fn pairs_of_small_floats_and_strange_names() {
    let tensor = |dtype, shape: &[u64]| {
        let info = TensorInfo::new("t", dtype, shape).unwrap();
        let len = u8::try_from(info.byte_len()).unwrap();
        let bytes = Section::from_bytes((0..len).collect::<Vec<u8>>(), "memory");
        Tensor::new(info, TensorBytes::Range(bytes)).unwrap()
    };
    let mut of_mesh = options(4);
    of_mesh.mesh = vec![2, 2];
    let strange = "a \"quoted\" \\ name \u{7f}\n ü";
    let entries = [
        Entry::tensor(key("f4"), tensor(Dtype::F4, &[5, 12])),
        Entry::tensor(key(strange), tensor(Dtype::I8, &[3])),
    ];
    let temp = tempfile::tempdir().unwrap();
    let ours = write(&entries, &of_mesh, &temp.path().join("shards"));
    let whole = tensor(Dtype::F4, &[5, 12]).read().unwrap();
    assert_eq!(ours.tensor("f4").unwrap().read().unwrap(), whole);
    assert_eq!(ours.tensor(strange).unwrap().read().unwrap(), [0, 1, 2]);
}

#[test]
fn what_shards_cannot_hold() {
    let refused = |entry: Entry, options: &WriteOptions, kind, mentions: &[&str]| {
        let e = plan(&[entry], options).unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        for words in mentions {
            assert!(e.to_string().contains(words), "{e} does not mention {words}");
        }
    };
    let tensor = |dtype| {
        let info = TensorInfo::new("t", dtype, [1]).unwrap();
        let bytes =
            Section::from_bytes(vec![0; usize::try_from(info.byte_len()).unwrap()], "memory");
        Entry::tensor(key("x"), Tensor::new(info, TensorBytes::Range(bytes)).unwrap())
    };
    let unsupported = ErrorKind::Unsupported;
    let object = Entry::bytes(key("o"), OutputFile::default());
    refused(object, &options(1), unsupported, &["entry o", "tensors only"]);
    refused(tensor(Dtype::C128), &options(1), unsupported, &["tensor x", "C128"]);
    let mut items = options(1);
    items.file_per_item = true;
    refused(tensor(Dtype::F32), &items, ErrorKind::InvalidArgument, &["file_per_item"]);
}
