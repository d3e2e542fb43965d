//! Opening and listing: what a state_dict of ten thousand tensors costs before any is read.
#![allow(missing_docs, reason = "criterion's macros make public items")]

#[path = "../tests/support/build.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]
mod build;

use std::hint::black_box;

use build::{boolean, get, global, int, object, persid, pt, reduce, text, tuple};
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

/// What every tensor's construction repeats, in the memo, where torch has it as well.
fn constants() -> Vec<u8> {
    let constants = [
        global("torch._utils", "_rebuild_tensor_v2"),
        text("storage"),
        global("torch", "FloatStorage"),
        text("cpu"),
        global("collections", "OrderedDict"),
    ];
    let put = |(i, c): (usize, &Vec<u8>)| build::put(u32::try_from(i).unwrap_or(0), c);
    let puts: Vec<Vec<u8>> = constants.iter().enumerate().map(put).collect();
    [&b"("[..], &puts.concat(), b"1"].concat()
}

fn tensor(key: &str, last: &[Vec<u8>]) -> Vec<u8> {
    let mut id = vec![get(1), get(2), text(key), get(3), int(6)];
    id.extend_from_slice(last);
    let hooks = reduce(&get(4), &[]);
    let size = tuple(&[int(2), int(3)]);
    let stride = tuple(&[int(3), int(1)]);
    reduce(&get(0), &[persid(&tuple(&id)), int(0), size, stride, boolean(false), hooks])
}

fn state_dict(keys: &[String], last: &[Vec<u8>]) -> Vec<u8> {
    let names = names();
    let pairs: Vec<_> =
        names.iter().zip(keys).map(|(n, k)| (n.as_str(), tensor(k, last))).collect();
    [constants(), object(&pairs)].concat()
}

/// A state_dict of small tensors in the zip container, and its pickle.
fn zip() -> (Vec<u8>, Vec<u8>) {
    let keys: Vec<String> = (0..TENSORS).map(|i| i.to_string()).collect();
    let storages: Vec<_> = keys.iter().map(|k| (k.as_str(), vec![0; 24])).collect();
    let object = state_dict(&keys, &[]);
    (pt(&object, &storages), build::pickle(&object))
}

fn legacy() -> Vec<u8> {
    let keys: Vec<String> =
        (0..TENSORS).map(|i| format!("{}", 94_258_477_618_704 + 64 * i)).collect();
    let storages: Vec<_> = keys.iter().map(|k| (k.as_str(), 6, vec![0; 24])).collect();
    build::legacy(&state_dict(&keys, &[build::none()]), &storages)
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
