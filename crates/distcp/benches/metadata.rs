//! How long opening takes: it is all metadata.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use distcp::DistCheckpoint;

#[path = "../tests/support/mod.rs"]
mod support;

use support::{Hollow, Metadata};

/// `tensors` of two dimensions, cut by rows into `ranks` chunks each.
fn metadata(tensors: i64, ranks: i64) -> Vec<u8> {
    let mut m = Metadata::default();
    for t in 0..tensors {
        let fqn = format!("model.layers.{t}.self_attention.linear_qkv.weight");
        let rows: Vec<[i64; 2]> = (0..ranks).map(|r| [r * 8, 0]).collect();
        let chunks: Vec<(&[i64], &[i64])> = rows.iter().map(|o| (&o[..], &[8, 4096][..])).collect();
        m.tensor(&fqn, "bfloat16", &[ranks * 8, 4096], &chunks);
        for (r, offset) in rows.iter().enumerate() {
            m.place(&fqn, Some(offset), &format!("__{r}_0.distcp"), t * 67_113, 67_113);
        }
        let path = fqn.split('.').map(support::pickle::s).collect();
        m.path(&fqn, path);
    }
    m.pickle()
}

fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("open");
    group.sample_size(10);
    for (name, tensors, ranks) in [("10k tensors, 1 rank", 10_000, 1), ("1M chunks", 1000, 1000)] {
        let bytes = metadata(tensors, ranks);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |b| {
            b.iter_batched(
                || Box::new(Hollow(bytes.clone())),
                |storage| DistCheckpoint::with_storage(storage).expect("well-formed metadata"),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, open);
criterion_main!(benches);
