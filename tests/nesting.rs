//! Tensors inside archives inside archives are windows of one open file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::Path;
use std::sync::Arc;

use ckptkit::{Checkpoint, Convert, CopyOptions, Existing, Json, OpenOptions, Target, Tensor};
use ckptkit_tests::fixture::{self, Fixture, each};
use ckptkit_tests::{copy, sha256, tree};

fn mapped(path: &Path) -> Checkpoint {
    let mut options = OpenOptions::new();
    options.mapped = true;
    options.open(path).unwrap()
}

/// The tensors that have bytes in one piece.
fn in_one_piece(checkpoint: &Checkpoint) -> Vec<Tensor> {
    checkpoint.tensors().filter(|t| t.contiguous().is_some()).cloned().collect()
}

#[test]
fn a_mapped_tensor_is_borrowed_from_the_mapping_of_the_whole_file() {
    let fixtures: Vec<Fixture> = [
        "nemo/ctc_bpe.nemo",
        "nemo/bare_ustar.nemo",
        "lightning/adam.ckpt",
        "torch/state_dict.pt",
        "torch/legacy_protocol_2.pt",
        "safetensors/dtypes.safetensors",
    ]
    .map(fixture::one)
    .into();
    each(&fixtures, |f| {
        let checkpoint = mapped(&f.path);
        let tensors = in_one_piece(&checkpoint);
        assert!(tensors.len() * 2 > f.manifest.tensors.len(), "{} in one piece", tensors.len());
        let first = tensors[0].contiguous().unwrap().source();
        let size = std::fs::metadata(&f.path).unwrap().len();
        assert_eq!(first.size(), size);
        let whole = first.as_slice(0..size).unwrap().as_ptr_range();
        for tensor in &tensors {
            let section = tensor.contiguous().unwrap();
            // One mapping for all: a storage in a zip in a tar is an offset in it.
            assert!(Arc::ptr_eq(first, section.source()), "{}", tensor.name());
            let slice = tensor.as_slice().unwrap();
            if !slice.is_empty() {
                let at = slice.as_ptr_range();
                assert!(whole.start <= at.start && at.end <= whole.end, "{}", tensor.name());
                let offset = at.start as usize - whole.start as usize;
                assert_eq!(offset as u64, section.offset(), "{}", tensor.name());
            }
            let row = f.manifest.tensors.iter().find(|t| t.name == tensor.name()).unwrap();
            assert_eq!(Some(sha256(slice)), row.sha256);
        }
    });
}

#[test]
fn shards_are_mapped_each() {
    let f = fixture::one("safetensors/hf_sharded");
    let checkpoint = mapped(&f.path);
    for row in &f.manifest.tensors {
        let tensor = checkpoint.tensor(&row.name).unwrap();
        assert_eq!(tensor.as_slice().map(sha256), row.sha256, "{}", row.name);
    }
}

#[test]
fn nothing_is_lent_where_nothing_is_mapped() {
    let fixtures: Vec<Fixture> =
        ["nemo/ctc_bpe.nemo", "lightning/adam.ckpt", "safetensors/dtypes.safetensors"]
            .map(fixture::one)
            .into();
    each(&fixtures, |f| {
        let checkpoint = Checkpoint::open(&f.path).unwrap();
        let lent = checkpoint.tensors().filter(|t| t.as_slice().is_some_and(|s| !s.is_empty()));
        assert_eq!(lent.count(), 0);
    });
}

#[test]
fn the_members_of_an_archive_share_one_open_file() {
    for name in ["nemo/ctc_bpe.nemo", "lightning/adam.ckpt", "safetensors/dtypes.safetensors"] {
        let checkpoint = Checkpoint::open(fixture::one(name).path).unwrap();
        let tensors = in_one_piece(&checkpoint);
        let first = tensors[0].contiguous().unwrap().source();
        for tensor in &tensors {
            assert!(Arc::ptr_eq(first, tensor.contiguous().unwrap().source()), "{name}");
        }
        for artifact in checkpoint.artifacts() {
            assert!(Arc::ptr_eq(first, artifact.section.source()), "{name}: {}", artifact.name);
        }
    }
}

/// After opening, nothing looks at the path again: with the source moved away and something else
/// put in its place, the conversion finishes and gives the same bytes. (The data files of a
/// distributed checkpoint are opened when they are needed, since there can be more of them than a
/// process may hold open.)
#[cfg(unix)]
#[test]
fn a_source_is_opened_once() {
    let fixtures: Vec<Fixture> = [
        "nemo/rnnt_bpe.nemo",
        "nemo/gzip.nemo",
        "lightning/adam.ckpt",
        "torch/views.pt",
        "torch/tar_era.pt",
        "torch/legacy_views.pt",
        "safetensors/dtypes.safetensors",
        "safetensors/hf_sharded",
        "safetensors/dcp_shards",
    ]
    .map(fixture::one)
    .into();
    each(&fixtures, |f| {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        copy(&f.path, &source);
        let mut wish = Convert::new(Target::SafetensorsDirectory);
        wish.max_shard_bytes = 200;
        let write = |checkpoint: &Checkpoint, to: &str, moved: bool| {
            let to = dir.path().join(to);
            let plan = wish.plan(checkpoint, &to).unwrap();
            if moved {
                std::fs::rename(&source, dir.path().join("elsewhere")).unwrap();
                std::fs::write(&source, "not a checkpoint").unwrap();
            }
            plan.write(Existing::Refuse, &CopyOptions::default()).unwrap();
            tree(&to)
        };
        let checkpoint = Checkpoint::open(&source).unwrap();
        let before = write(&checkpoint, "before", false);
        assert!(before == write(&checkpoint, "after", true));
        assert!(!before.is_empty());
    });
}

/// Megatron's objects in files of their own are members of the archive like its data files.
#[test]
fn objects_beside_the_data_files_are_read_inside_an_archive() {
    let archive = Checkpoint::open(fixture::one("nemo/dist_objects.nemo").path).unwrap();
    let directory = Checkpoint::open(fixture::one("distcp/megatron_objects_0_7").path).unwrap();
    assert!(!archive.notes().iter().any(|n| n.contains("shard")), "{:?}", archive.notes());
    let objects: Vec<String> =
        directory.value_keys().into_iter().filter(|k| k.contains("/shard_")).collect();
    assert_eq!(objects.len(), 7);
    for key in &objects {
        let json = |c: &Checkpoint| serde_json::to_value(Json(&c.value(key).unwrap())).unwrap();
        assert_eq!(json(&archive), json(&directory), "{key}");
        assert!(archive.value_keys().contains(key), "{key}");
    }
    let name = "optimizer.distributed.dp_group_idx_0.param_state/shard_0_1.0.torch.float32";
    let inside = archive.tensor(name).unwrap();
    assert_eq!(inside.read().unwrap(), directory.tensor(name).unwrap().read().unwrap());
    let names: Vec<std::sync::Arc<str>> = archive.weights().unwrap().full_names;
    assert_eq!(names, directory.weights().unwrap().full_names);
    assert!(!names.iter().any(|n| n.contains("shard")), "{names:?}");
}
