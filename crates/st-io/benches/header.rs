//! Parsing and laying out a header of 10 000 tensors, beside the reference crate.

use std::collections::BTreeMap;
use std::hint::black_box;

use ckptkit_core::{Dtype, Section, Tensor, TensorBytes, TensorInfo};
use criterion::{Criterion, criterion_group, criterion_main};
use safetensors::SafeTensors;
use st_io::{Header, StFile, WriteOptions, layout_file};

const TENSORS: usize = 10_000;

fn tensors() -> Vec<Tensor> {
    let byte = Section::from_bytes([0, 0], "memory");
    (0..TENSORS)
        .map(|i| {
            let name = format!("model.layers.{}.mlp.experts.{}.up_proj.weight", i / 100, i % 100);
            let info = TensorInfo::new(name, Dtype::Bf16, [1, 1]).expect("a small shape");
            Tensor::new(info, TensorBytes::Range(byte.clone())).expect("two bytes")
        })
        .collect()
}

fn header(c: &mut Criterion) {
    let tensors = tensors();
    let layout = || layout_file(&tensors, &BTreeMap::new(), &WriteOptions::new());
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("many.safetensors");
    layout()
        .and_then(|l| l.write(&path, Default::default(), &Default::default()))
        .expect("a writable directory");
    let bytes = std::fs::read(&path).expect("the file just written");
    let json = &bytes[8..bytes.len() - 2 * TENSORS];

    let mut group = c.benchmark_group("10k tensors");
    group.bench_function("parse", |b| b.iter(|| Header::parse(black_box(json))));
    group.bench_function("parse, reference crate", |b| {
        b.iter(|| SafeTensors::read_metadata(black_box(&bytes)));
    });
    group.bench_function("open", |b| b.iter(|| StFile::open(black_box(&path))));
    let file = StFile::open(&path).expect("a file that was just written");
    group.bench_function("look up all", |b| {
        b.iter(|| tensors.iter().filter(|t| file.tensor(black_box(t.name())).is_ok()).count());
    });
    group.bench_function("lay out", |b| b.iter(layout));
    group.finish();
}

criterion_group!(benches, header);
criterion_main!(benches);
