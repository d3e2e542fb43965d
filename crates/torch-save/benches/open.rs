//! Opening and listing: what a state_dict of ten thousand tensors costs before any is read.
#![allow(missing_docs, reason = "criterion's macros make public items")]

#[path = "../tests/support/build.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]
mod build;

use std::hint::black_box;

use build::{global, object, pt, reduce, storage, storage_view, tensor};
use ckptkit_core::{Section, TensorSource};
use criterion::{Criterion, criterion_group, criterion_main};
use torch_save::{Graph, TorchFile};

const TENSORS: usize = 10_000;

/// Names as a transformer has them.
fn names() -> Vec<String> {
    (0..TENSORS)
        .map(|i| format!("model.layers.{}.self_attn.proj_{}.weight", i / 8, i % 8))
        .collect()
}

/// A state_dict of small tensors in the zip container.
fn zip() -> (Vec<u8>, Vec<u8>) {
    let names = names();
    let keys: Vec<String> = (0..TENSORS).map(|i| i.to_string()).collect();
    let pairs: Vec<_> = names
        .iter()
        .zip(&keys)
        .map(|(n, k)| (n.as_str(), tensor(storage("FloatStorage", k, 6), 0, &[2, 3], &[3, 1])))
        .collect();
    let storages: Vec<_> = keys.iter().map(|k| (k.as_str(), vec![0; 24])).collect();
    let object = object(&pairs);
    (pt(&object, &storages), build::pickle(&object))
}

fn legacy() -> Vec<u8> {
    let names = names();
    let keys: Vec<String> =
        (0..TENSORS).map(|i| format!("{}", 94_258_477_618_704 + 64 * i)).collect();
    let pairs: Vec<_> = names
        .iter()
        .zip(&keys)
        .map(|(n, k)| {
            let storage = storage_view("FloatStorage", k, 6, build::none());
            (n.as_str(), tensor(storage, 0, &[2, 3], &[3, 1]))
        })
        .collect();
    let storages: Vec<_> = keys.iter().map(|k| (k.as_str(), 6, vec![0; 24])).collect();
    build::legacy(&object(&pairs), &storages)
}

/// A file, so that reading costs what it costs.
fn on_disk(name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("torch-save-bench-{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).expect("the temporary folder can be written");
    path
}

fn open(criterion: &mut Criterion) {
    let (zip, pickle) = zip();
    let files = [("zip", on_disk("zip.pt", &zip)), ("legacy", on_disk("legacy.pt", &legacy()))];
    let mut group = criterion.benchmark_group("10k tensors");
    group.bench_function("pickle", |b| {
        b.iter(|| Graph::parse(black_box(pickle.clone()), &Default::default()).map(|g| g.len()));
    });
    group.bench_function("zip in memory", |b| {
        let section = Section::from_bytes(zip.clone(), "bench");
        b.iter(|| TorchFile::from_section(black_box(&section)).map(|f| f.infos().count()));
    });
    for (name, path) in &files {
        group.bench_function(format!("{name} file"), |b| {
            b.iter(|| TorchFile::open(black_box(path)).map(|f| f.infos().count()));
        });
    }
    group.finish();
    let small = reduce(&global("collections", "OrderedDict"), &[]);
    let small = Section::from_bytes(pt(&small, &[]), "small");
    criterion
        .bench_function("empty file", |b| b.iter(|| TorchFile::from_section(black_box(&small))));
    for (_, path) in files {
        let _ = std::fs::remove_file(path);
    }
}

criterion_group!(benches, open);
criterion_main!(benches);
