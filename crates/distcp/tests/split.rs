//! How a checkpoint is split and dealt out, against what torch did with the same state dicts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ckptkit_core::{CopyOptions, Existing};
use distcp::Placement::{Replicate, Shard};
use distcp::{DistCheckpoint, Entry, Placement, WriteOptions};
use support::index::index;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/distcp").join(name)
}

/// Writes what torch saved, in the order of the state dict that it was given, placed as
/// `xtask/python/make_distcp.py` places it: chunks, files and the order in them must be torch's.
fn check(name: &str, options: &WriteOptions, placed: impl Fn(&str) -> Option<Vec<Placement>>) {
    let source = fixture(name);
    let checkpoint = DistCheckpoint::open(&source).unwrap();
    let metadata = |dir: &Path| std::fs::read(dir.join(".metadata")).unwrap();
    let (expected, order) = index(metadata(checkpoint.dir().unwrap()));
    let mut by_fqn: HashMap<String, Entry> =
        checkpoint.entries().unwrap().into_iter().map(|e| (e.fqn(), e)).collect();
    let entries: Vec<Entry> = order
        .iter()
        .map(|fqn| {
            let entry = by_fqn.remove(fqn).unwrap();
            match placed(fqn) {
                Some(placements) if !expected.chunks[fqn].is_empty() => entry.placed(placements),
                _ => entry,
            }
        })
        .collect();
    assert!(by_fqn.is_empty());
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("again");
    let layout = distcp::layout(&entries, options).unwrap();
    layout.write(&to, Existing::Refuse, &CopyOptions::default()).unwrap();
    let (got, _) = index(metadata(&to));
    for (fqn, chunks) in &expected.chunks {
        assert_eq!(&got.chunks[fqn], chunks, "{name}: {fqn}");
    }
    assert_eq!(got, expected, "{name}");
}

fn ranks(n: u32) -> WriteOptions {
    let mut options = WriteOptions::new();
    options.ranks = n;
    options
}

/// The state of `tp_state`.
fn tensor_parallel(fqn: &str) -> Option<Vec<Placement>> {
    Some(vec![match fqn {
        "columns" | "uneven_columns" | "three_dims" => Shard(1),
        "replicated" | "plain" | "scalar" => Replicate,
        _ => Shard(0),
    }])
}

/// Buffers stay whole.
fn fsdp2(fqn: &str) -> Option<Vec<Placement>> {
    (fqn.contains("running_") || fqn.contains("num_batches")).then(|| vec![Replicate])
}

#[test]
fn rows_columns_and_replicas() {
    check("tp_2", &ranks(2), tensor_parallel);
    check("tp_4", &ranks(4), tensor_parallel);
}

#[test]
fn fully_sharded_models() {
    check("fsdp2_2", &ranks(2), fsdp2);
    check("fsdp2_4", &ranks(4), fsdp2);
    check("fsdp2_app", &ranks(2), fsdp2);
}

#[test]
fn a_mesh_of_two_dimensions() {
    let mut options = ranks(4);
    options.mesh = vec![2, 2];
    check("mesh_2d", &options, |fqn| match fqn {
        "same_dim" => Some(vec![Shard(0), Shard(0)]),
        "replicated_rows" => Some(vec![Replicate, Shard(0)]),
        "replicated" => Some(vec![Replicate, Replicate]),
        // The rule is that of two sharded dimensions.
        _ => None,
    });
}

#[test]
fn nested_keys_and_objects() {
    let whole = |fqn: &str| match fqn {
        "model.layers.0.weight" | "model.list.1" => None,
        _ => Some(vec![Replicate]),
    };
    check("nested", &ranks(2), whole);
    check("objects", &ranks(1), |_| None);
    check("dtypes", &ranks(1), |_| None);
}

#[test]
fn a_file_for_each_item() {
    let mut options = ranks(2);
    options.file_per_item = true;
    check("file_per_item", &options, tensor_parallel);
}

#[test]
fn a_lightning_strategy() {
    check("lightning.ckpt", &ranks(2), fsdp2);
}
