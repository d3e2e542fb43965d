//! What `cargo xtask count` counts the instructions of: each parser once, on an input that is
//! always the same. `counted` prints the names, `counted NAME` runs one; what is counted is what
//! happens inside of [`counted_work`].
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a count that cannot be taken is to stop")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;

use ckptkit::core::{Limits, Section, Tensor, TensorBytes, TensorInfo, TensorSource};
use ckptkit::distcp::DistCheckpoint;
use ckptkit::lightning::LightningCkpt;
use ckptkit::nemo::NemoArchive;
use ckptkit::safetensors::{Header, StFile, WriteOptions, layout_file};
use ckptkit::torch::{Graph, TorchFile};
use ckptkit::{Checkpoint, Dtype};
use ckptkit_tests::large::{self, Size};

/// Enough that what is done once does not count.
const SIZE: Size = Size { tensors: 2000, elements: 16 };

type Work = (&'static str, fn(&Path));

const WORK: &[Work] = &[
    ("safetensors-header", header),
    ("safetensors-open", |path| open(path, large::safetensors, |p| StFile::open(p).unwrap())),
    ("safetensors-layout", layout),
    ("pickle-parse", pickle),
    ("pickle-emit", emit),
    ("zip-directory", |path| in_memory(path, large::storages)),
    ("torch-zip", |path| in_memory(path, large::ckpt)),
    ("torch-legacy", |path| in_memory(path, large::legacy)),
    ("lightning-open", |path| open(path, large::ckpt, |p| LightningCkpt::open(p).unwrap())),
    ("nemo-open", |path| open(path, large::nemo, |p| NemoArchive::open(p).unwrap())),
    ("distcp-metadata", |path| open(path, large::distcp, |p| DistCheckpoint::open(p).unwrap())),
    ("list-ckpt", |path| list(path, large::ckpt)),
    ("list-distcp", |path| list(path, large::distcp)),
];

fn main() {
    let asked = std::env::args().nth(1);
    let Some(name) = asked else {
        for (name, _) in WORK {
            println!("{name}");
        }
        return;
    };
    let found = WORK.iter().find(|(known, _)| *known == name);
    let (_, work) = found.unwrap_or_else(|| panic!("there is no work {name}"));
    let folder = tempfile::tempdir().unwrap();
    work(&folder.path().join("input"));
}

/// callgrind counts from its call to its return. What it gives is dropped outside.
#[inline(never)]
fn counted_work<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}

fn open<T>(path: &Path, make: fn(&Path, Size), open: fn(&Path) -> T) {
    make(path, SIZE);
    drop(counted_work(|| open(black_box(path))));
}

fn list(path: &Path, make: fn(&Path, Size)) {
    make(path, SIZE);
    let listed = counted_work(|| {
        let checkpoint = Checkpoint::open(black_box(path)).unwrap();
        let bytes: u64 = checkpoint.tensors().map(|t| black_box(t).byte_len()).sum();
        (bytes, checkpoint)
    });
    assert_eq!(listed.0, SIZE.tensors * SIZE.elements * 4);
}

fn in_memory(path: &Path, make: fn(&Path, Size)) {
    make(path, SIZE);
    let section = Section::from_bytes(std::fs::read(path).unwrap(), "memory");
    let file = counted_work(|| TorchFile::from_section(black_box(&section)).unwrap());
    black_box(file.infos().count());
}

fn header(path: &Path) {
    large::safetensors(path, SIZE);
    let bytes = std::fs::read(path).unwrap();
    let data = usize::try_from(SIZE.tensors * SIZE.elements * 4).unwrap();
    let json = &bytes[8..bytes.len() - data];
    drop(counted_work(|| Header::parse(black_box(json)).unwrap()));
}

fn layout(_: &Path) {
    let byte = Section::from_bytes([0, 0], "memory");
    let tensors: Vec<Tensor> = (0..SIZE.tensors)
        .map(|i| {
            let info = TensorInfo::new(format!("encoder.{i}.weight"), Dtype::Bf16, [1, 1]).unwrap();
            Tensor::new(info, TensorBytes::Range(byte.clone())).unwrap()
        })
        .collect();
    let (none, options) = (BTreeMap::new(), WriteOptions::new());
    drop(counted_work(|| layout_file(black_box(&tensors), &none, &options).unwrap()));
}

fn pickle(_: &Path) {
    let bytes = large::lightning(SIZE, false);
    drop(counted_work(|| Graph::parse(black_box(bytes), &Limits::default()).unwrap()));
}

fn emit(_: &Path) {
    let graph = Graph::parse(large::lightning(SIZE, false), &Limits::default()).unwrap();
    drop(counted_work(|| black_box(&graph).to_pickle().unwrap()));
}
