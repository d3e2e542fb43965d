//! What tensors go through on their way: gathering views and chunks, and casting, out of memory.
#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to stop")]

use std::hint::black_box;

use ckptkit::Dtype;
use ckptkit::core::{Chunk, Region, Section, Strided, Tensor, TensorBytes, TensorInfo};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// 4 MiB of fp32: larger than a core's second cache, as tensors are.
const SIDE: u64 = 1024;
const BYTES: u64 = SIDE * SIDE * 4;

fn info(shape: &[u64]) -> TensorInfo {
    TensorInfo::new("weight", Dtype::F32, shape).unwrap()
}

/// Numbers between -1 and 1, as weights are.
fn floats() -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..SIDE * SIDE)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let fraction = f32::from(u16::try_from(state >> 48).unwrap()) / 32768.0 - 1.0;
            fraction.to_le_bytes()
        })
        .collect()
}

fn whole() -> Tensor {
    let bytes = TensorBytes::Range(Section::from_bytes(floats(), "memory"));
    Tensor::new(info(&[SIDE, SIDE]), bytes).unwrap()
}

fn strided(offset: u64, shape: &[u64], strides: &[u64]) -> Tensor {
    let storage = Section::from_bytes(floats(), "memory");
    let strides = strides.to_vec();
    Tensor::new(info(shape), TensorBytes::Strided(Strided { storage, offset, strides })).unwrap()
}

/// The tensor cut into `rows` × `columns` boxes, each a run of its own.
fn chunks(rows: u64, columns: u64) -> Tensor {
    let (height, width) = (SIDE / rows, SIDE / columns);
    let boxes = (0..rows).flat_map(|r| (0..columns).map(move |c| vec![r * height, c * width]));
    let chunks = boxes.map(|offsets| {
        let sizes = vec![height, width];
        let len = usize::try_from(height * width * 4).unwrap();
        let bytes = TensorBytes::Range(Section::from_bytes(floats()[..len].to_vec(), "memory"));
        let tensor = Tensor::new(info(&sizes), bytes).unwrap();
        Chunk { region: Region { offsets, sizes }, tensor }
    });
    Tensor::new(info(&[SIDE, SIDE]), TensorBytes::Chunks(chunks.collect())).unwrap()
}

fn gather(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gather");
    group.throughput(Throughput::Bytes(BYTES));
    let tensors = [
        ("one run", whole()),
        ("transposed", strided(0, &[SIDE, SIDE], &[1, SIDE])),
        ("every fourth element", strided(0, &[SIDE, SIDE / 4], &[SIDE, 4])),
        ("left half of the rows", strided(0, &[SIDE, SIDE / 2], &[SIDE, 1])),
        ("4 chunks of rows", chunks(4, 1)),
        ("4 chunks of columns", chunks(1, 4)),
        ("64 chunks of columns", chunks(1, 64)),
        ("2 x 2 chunks", chunks(2, 2)),
    ];
    for (name, tensor) in tensors {
        group.throughput(Throughput::Bytes(tensor.byte_len()));
        group.bench_function(name, |b| b.iter(|| black_box(&tensor).read().unwrap()));
    }
    group.finish();
}

fn cast(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cast");
    let full = whole();
    let types = [Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::F64, Dtype::F8E4M3];
    for from in types {
        // The source in its own type, with nothing left to be cast.
        let source = full.cast(from).unwrap();
        let info = TensorInfo::new("weight", from, [SIDE, SIDE]).unwrap();
        let stored = Section::from_bytes(source.read().unwrap(), "memory");
        let source = Tensor::new(info, TensorBytes::Range(stored)).unwrap();
        group.throughput(Throughput::Bytes(source.byte_len()));
        for to in types.into_iter().filter(|to| *to != from) {
            let target = source.cast(to).unwrap();
            let name = format!("{} to {}", from.name(), to.name());
            group.bench_function(name, |b| b.iter(|| black_box(&target).read().unwrap()));
        }
    }
    group.finish();
}

criterion_group!(benches, gather, cast);
criterion_main!(benches);
