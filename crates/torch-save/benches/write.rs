//! What writing costs beside the bytes themselves: pickles, archives' layouts and checksums; and
//! finding the members of an archive again.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;

use ckptkit_core::{Dtype, Section, Tensor, TensorBytes, TensorInfo, TensorSource};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use torch_save::{Graph, TorchFile, WriteOptions, layout_state_dict};

#[path = "../tests/support/build.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]
mod build;

const TENSORS: usize = 10_000;

fn tensors() -> Vec<Tensor> {
    let storage = Section::from_bytes(vec![0_u8; 24], "memory");
    (0..TENSORS)
        .map(|i| {
            let name = format!("model.layers.{}.self_attn.proj_{}.weight", i / 8, i % 8);
            let info = TensorInfo::new(name, Dtype::F32, [2, 3]).expect("a small shape");
            Tensor::new(info, TensorBytes::Range(storage.clone())).expect("24 bytes")
        })
        .collect()
}

/// The object of an archive of those tensors.
fn graph() -> Graph {
    let pairs: Vec<_> = (0..TENSORS)
        .map(|i| {
            let name = format!("model.layers.{}.self_attn.proj_{}.weight", i / 8, i % 8);
            let storage = build::storage("FloatStorage", &i.to_string(), 6);
            (build::text(&name), build::tensor(storage, 0, &[2, 3], &[3, 1]))
        })
        .collect();
    let pickle = build::pickle(&build::dict(&pairs));
    Graph::parse(pickle, &Default::default()).expect("a well-formed pickle")
}

fn emission(criterion: &mut Criterion) {
    let (tensors, graph) = (tensors(), graph());
    let mut group = criterion.benchmark_group("write 10k tensors");
    group.bench_function("emit a pickle", |b| b.iter(|| black_box(&graph).to_pickle()));
    group.bench_function("lay out a state_dict", |b| {
        b.iter(|| layout_state_dict(black_box(&tensors), &WriteOptions::new()));
    });
    group.finish();
}

fn directory(criterion: &mut Criterion) {
    let keys: Vec<String> = (0..TENSORS).map(|i| i.to_string()).collect();
    let storages: Vec<_> = keys.iter().map(|k| (k.as_str(), vec![0; 24])).collect();
    // The object uses none of them, so that what is left is the archive.
    let archive = Section::from_bytes(build::pt(&build::dict(&[]), &storages), "memory");
    criterion.bench_function("zip directory of 10k members", |b| {
        b.iter(|| TorchFile::from_section(black_box(&archive)).map(|f| f.infos().count()));
    });
}

fn checksums(criterion: &mut Criterion) {
    // What the copy engine has in its hands at a time.
    let buffer: Vec<u8> = (0..256 << 10).map(|i: u32| i.to_le_bytes()[1]).collect();
    let mut group = criterion.benchmark_group("CRC-32");
    group.throughput(Throughput::Bytes(buffer.len() as u64));
    group.bench_function("256 KiB", |b| b.iter(|| crc32fast::hash(black_box(&buffer))));
    group.throughput(Throughput::Elements(1));
    let mut part = crc32fast::Hasher::new();
    part.update(&buffer);
    group.bench_function("combine two parts", |b| {
        b.iter(|| {
            let mut whole = part.clone();
            whole.combine(black_box(&part));
            whole.finalize()
        });
    });
    group.finish();
}

criterion_group!(benches, emission, directory, checksums);
criterion_main!(benches);
