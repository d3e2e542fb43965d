//! How long planning takes: it is all layout, no tensor is read.

use std::sync::Arc;

use ckptkit_core::{
    Chunk, Deferred, Dtype, Error, Key, Region, Resolve, Result, Tensor, TensorBytes, TensorInfo,
    Transform,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use distcp::{Entry, WriteOptions};

/// An item that nobody opens.
struct Elsewhere;

impl Resolve for Elsewhere {
    fn resolve(&self, _: &TensorInfo) -> Result<(TensorBytes, Transform)> {
        Err(Error::not_found("planning opens nothing"))
    }
}

fn deferred(name: &str, shape: &[u64]) -> Tensor {
    let info = TensorInfo::new(name, Dtype::Bf16, shape).expect("a small shape");
    let bytes = TensorBytes::Deferred(Deferred::new(Arc::new(Elsewhere)));
    Tensor::new(info, bytes).expect("deferred bytes fit any shape")
}

/// `tensors` of one of twelve shapes, whose rows lie on `ranks` ranks.
fn entries(tensors: u64, ranks: u64) -> Vec<Entry> {
    (0..tensors)
        .map(|t| {
            let name = format!("model.layers.{t}.self_attention.linear_qkv.weight");
            let rows = (16 + t % 12) * 256 * ranks;
            let each = rows / ranks;
            let chunks = (0..ranks).map(|r| {
                let sizes = vec![each, 4096];
                let tensor = deferred(&name, &sizes);
                Chunk { region: Region { offsets: vec![r * each, 0], sizes }, tensor }
            });
            let info = TensorInfo::new(name.as_str(), Dtype::Bf16, [rows, 4096]);
            let bytes = TensorBytes::Chunks(chunks.collect());
            let tensor = Tensor::new(info.expect("a small shape"), bytes).expect("chunks that fit");
            let path: Vec<Key> = name.split('.').map(|k| Key::Str(k.into())).collect();
            Entry::tensor(path, tensor)
        })
        .collect()
}

fn plan(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan");
    group.sample_size(10);
    for (tensors, from, to) in [(10_000, 1, 8), (10_000, 6, 8), (1000, 256, 256)] {
        let entries = entries(tensors, from);
        let mut options = WriteOptions::new();
        options.ranks = to;
        group.throughput(Throughput::Elements(tensors * u64::from(to)));
        group.bench_function(format!("{tensors} tensors, {from} ranks to {to}"), |b| {
            b.iter(|| distcp::plan(&entries, &options).expect("entries that fit"));
        });
    }
    group.finish();
}

criterion_group!(benches, plan);
criterion_main!(benches);
