//! Opening and listing checkpoints of ten thousand tensors, in every format.
#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to stop")]

use std::hint::black_box;
use std::path::Path;

use ckptkit::Checkpoint;
use ckptkit_tests::large::{self, Size};
use criterion::{Criterion, criterion_group, criterion_main};

const SIZE: Size = Size { tensors: 10_000, elements: 16 };

type Make = fn(&Path, Size);

const FORMATS: [(&str, Make); 5] = [
    ("safetensors", large::safetensors),
    ("ckpt", large::ckpt),
    ("legacy", large::legacy),
    ("nemo", large::nemo),
    ("distcp", large::distcp),
];

fn open(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let mut group = criterion.benchmark_group("open and list 10k tensors");
    for (name, make) in FORMATS {
        let path = dir.path().join(name);
        make(&path, SIZE);
        group.bench_function(name, |b| {
            b.iter(|| {
                let checkpoint = Checkpoint::open(black_box(&path)).unwrap();
                let bytes: u64 = checkpoint.tensors().map(|t| black_box(t).byte_len()).sum();
                assert_eq!(bytes, SIZE.tensors * SIZE.elements * 4);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, open);
criterion_main!(benches);
