//! Writing: directories by the rule, indexes to the letter, refusals before a byte.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests")]

mod common;

use std::collections::BTreeMap;
use std::fs;

use ckptkit_core::{Dtype, ErrorKind, StorageId, Tensor, TensorBytes, TensorInfo};
use common::{bytes_of, map, open, pattern, tensor, write};
use safetensors::SafeTensors;
use st_io::{
    StCheckpoint, Variant, WriteOptions, layout_file, layout_sharded, plan_file, plan_sharded,
};

fn byte_tensor(name: &str, len: u64) -> Tensor {
    tensor(name, Dtype::U8, &[len], pattern(len, len))
}

/// The sizes of the format notes' own example.
fn six() -> Vec<Tensor> {
    let sizes = [("a", 6), ("b", 6), ("c", 2), ("d", 6), ("é", 2), ("f", 2)];
    sizes.iter().map(|(n, s)| byte_tensor(n, *s)).collect()
}

fn limit(bytes: u64) -> WriteOptions {
    let mut options = WriteOptions::new();
    options.max_shard_bytes = bytes;
    options
}

#[test]
fn shards_and_their_index() {
    let mut options = limit(10);
    options.aliases = map(&[("tied", "a")]);
    let metadata = map(&[("format", "pt")]);
    let plan = plan_sharded(&six(), &metadata, &options).unwrap();
    let sizes: Vec<u64> = plan.shards.iter().map(|s| s.1).collect();
    assert_eq!(sizes, [6, 8, 10]);
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out");
    write(&plan.layout, &to);
    // As json.dumps(index, indent=2, sort_keys=True) + "\n" writes it in Python.
    let expected = r#"{
  "metadata": {
    "tied": "a",
    "total_size": 24
  },
  "weight_map": {
    "a": "model-00001-of-00003.safetensors",
    "b": "model-00002-of-00003.safetensors",
    "c": "model-00002-of-00003.safetensors",
    "d": "model-00003-of-00003.safetensors",
    "f": "model-00003-of-00003.safetensors",
    "\u00e9": "model-00003-of-00003.safetensors"
  }
}
"#;
    let index = fs::read_to_string(to.join("model.safetensors.index.json")).unwrap();
    assert_eq!(index, expected);
    let shard = fs::read(to.join("model-00002-of-00003.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&shard).unwrap();
    assert_eq!(reference.tensor("b").unwrap().data(), pattern(6, 6));
    assert_eq!(reference.len(), 2);
    let opened = StCheckpoint::open(&to).unwrap();
    assert!(opened.notes().is_empty(), "{:?}", opened.notes());
    assert_eq!(opened.aliases(), map(&[("tied", "a")]));
    assert_eq!(opened.metadata(), &metadata);
}

#[test]
fn every_limit_gives_a_directory_that_reads_back() {
    let tensors = six();
    for bytes in 1..=25 {
        let plan = plan_sharded(&tensors, &BTreeMap::new(), &limit(bytes)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("out");
        write(&plan.layout, &to);
        let opened = StCheckpoint::open(&to).unwrap();
        opened.verify().unwrap();
        assert!(opened.notes().is_empty());
        let one = bytes >= 24;
        assert_eq!(opened.variant(), if one { Variant::File } else { Variant::Sharded });
        assert_eq!(to.join("model.safetensors").exists(), one);
        for t in &tensors {
            assert_eq!(opened.tensor(t.name()).unwrap().read().unwrap(), t.read().unwrap());
        }
        for (name, held) in &plan.shards {
            // More than the limit only where one tensor is.
            assert!(
                *held <= bytes || matches!(held, 2 | 6),
                "{name} holds {held}, the limit is {bytes}"
            );
        }
    }
}

#[test]
fn names_with_a_variant() {
    let mut options = limit(10);
    options.stem = "diffusion_pytorch_model".into();
    options.variant = Some("fp16".into());
    let layout = layout_sharded(&six(), &BTreeMap::new(), &options).unwrap();
    let names: Vec<&str> = layout.files().map(|(p, _)| p.unwrap().as_str()).collect();
    assert_eq!(
        names,
        [
            "diffusion_pytorch_model.fp16-00001-of-00003.safetensors",
            "diffusion_pytorch_model.fp16-00002-of-00003.safetensors",
            "diffusion_pytorch_model.fp16-00003-of-00003.safetensors",
            "diffusion_pytorch_model.safetensors.index.fp16.json",
        ]
    );
    options.max_shard_bytes = 100;
    let layout = layout_sharded(&six(), &BTreeMap::new(), &options).unwrap();
    let names: Vec<&str> = layout.files().map(|(p, _)| p.unwrap().as_str()).collect();
    assert_eq!(names, ["diffusion_pytorch_model.fp16.safetensors"]);
    for stem in ["../x", "a/b", "/x"] {
        options.stem = stem.into();
        assert!(layout_sharded(&six(), &BTreeMap::new(), &options).is_err(), "{stem}");
    }
}

#[test]
fn aliases_of_a_single_file_go_into_its_header() {
    let mut options = WriteOptions::new();
    options.aliases = map(&[("z", "a"), ("format", "a")]);
    for layout in [
        layout_file(&six(), &map(&[("format", "pt")]), &options).unwrap(),
        layout_sharded(&six(), &map(&[("format", "pt")]), &options).unwrap(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("out");
        write(&layout, &to);
        let opened = StCheckpoint::open(&to).unwrap();
        assert_eq!(opened.aliases(), map(&[("z", "a")]));
        assert_eq!(opened.metadata()["format"], "pt", "a key that is there stays");
    }
}

#[test]
fn no_tensors() {
    // From the reference writer: N = 8 and six spaces.
    let bytes = bytes_of(&layout_file(&[], &BTreeMap::new(), &WriteOptions::new()).unwrap());
    assert_eq!(bytes, b"\x08\0\0\0\0\0\0\0{}      ");
    let layout = layout_sharded(&[], &BTreeMap::new(), &WriteOptions::new()).unwrap();
    assert_eq!(layout.files().count(), 1);
}

#[test]
fn tied_tensors_share_a_shard() {
    let in_storage = |name: &str, index: u32| {
        let info = TensorInfo::new(name, Dtype::U8, [6]).unwrap();
        let info = info.in_storage(StorageId { container: 0, index });
        let bytes = ckptkit_core::Section::from_bytes(vec![1; 6], "m");
        Tensor::new(info, TensorBytes::Range(bytes)).unwrap()
    };
    let tensors = [in_storage("a", 0), in_storage("b", 1), in_storage("c", 0)];
    let plan = plan_sharded(&tensors, &BTreeMap::new(), &limit(6)).unwrap();
    assert_eq!(plan.shards.iter().map(|s| s.1).collect::<Vec<_>>(), [12, 6]);
}

#[track_caller]
fn refused(tensors: &[Tensor], options: &WriteOptions, kind: ErrorKind, says: &[&str]) {
    let none = BTreeMap::new();
    for error in [
        plan_file(tensors, &none, options).unwrap_err(),
        plan_sharded(tensors, &none, options).unwrap_err(),
    ] {
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        for part in says {
            assert!(text.contains(part), "{text:?} does not say {part:?}");
        }
    }
}

#[test]
fn refusals() {
    let options = WriteOptions::new();
    let a = byte_tensor("a", 1);
    let invalid = ErrorKind::InvalidArgument;
    refused(&[byte_tensor("__metadata__", 1)], &options, invalid, &["reserved", "rename"]);
    refused(&[a.clone(), a.clone()], &options, invalid, &["tensor a", "two tensors"]);
    let unsupported = ErrorKind::Unsupported;
    for dtype in Dtype::all().filter(|d| d.safetensors_name().is_none()) {
        let t = tensor("q", dtype, &[8], vec![0; dtype.byte_len(8).unwrap() as usize]);
        refused(&[a.clone(), t], &options, unsupported, &["tensor q", dtype.name(), "cast"]);
    }
    let odd = tensor("f4", Dtype::F4, &[3], vec![0; 2]);
    refused(&[odd], &options, unsupported, &["tensor f4", "whole number of bytes"]);
    let info = TensorInfo::new("meta", Dtype::F32, [2]).unwrap();
    let meta = Tensor::new(info, TensorBytes::None("a meta tensor".into())).unwrap();
    refused(&[meta], &options, unsupported, &["tensor meta", "a meta tensor", "leave"]);
    for align in [0, 4, 12, 1 << 30] {
        let mut options = WriteOptions::new();
        options.align = align;
        refused(std::slice::from_ref(&a), &options, invalid, &["alignment"]);
    }
    let error = layout_sharded(&[a], &BTreeMap::new(), &limit(0)).unwrap_err();
    assert_eq!(error.kind(), invalid);
}

#[test]
fn a_long_header_is_noted() {
    let value = "x".repeat(25_000_001);
    let plan = plan_file(&[], &map(&[("k", &value)]), &WriteOptions::new()).unwrap();
    assert!(plan.notes[0].contains("\"format\""), "{:?}", plan.notes);
    assert!(plan.notes[1].contains("25000000"), "{:?}", plan.notes);
    let plan = plan_file(&six(), &map(&[("format", "pt")]), &WriteOptions::new()).unwrap();
    assert!(plan.notes.is_empty());
    let value = "x".repeat(100_000_001);
    let error = plan_file(&[], &map(&[("k", &value)]), &WriteOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn ten_thousand_tensors() {
    let tensors: Vec<Tensor> = (0..10_000)
        .map(|i| tensor(&format!("layers.{i}.weight"), Dtype::I16, &[1], vec![i as u8, 1]))
        .collect();
    let bytes = bytes_of(&layout_file(&tensors, &BTreeMap::new(), &WriteOptions::new()).unwrap());
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let opened = open(bytes.clone()).unwrap();
    for i in [0, 77, 9_999] {
        let name = format!("layers.{i}.weight");
        let ours = opened.tensor(&name).unwrap().read().unwrap();
        assert_eq!(ours, [i as u8, 1]);
        assert_eq!(reference.tensor(&name).unwrap().data(), ours);
    }
}
