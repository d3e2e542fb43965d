//! Every tensor and value of checkpoints that torch, Lightning and Megatron-Core wrote.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ckptkit_core::{Result, TensorSource};
use distcp::DistCheckpoint;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use torch_save::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn manifest(path: &Path) -> Json {
    let text = std::fs::read(
        path.with_file_name(format!("{}.json", path.file_name().unwrap().to_string_lossy())),
    );
    serde_json::from_slice(&text.unwrap()).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// Opens a fixture and compares all that its manifest says.
fn check(name: &str) -> DistCheckpoint {
    check_at(&fixtures().join("distcp").join(name), &fixtures().join("distcp").join(name))
}

fn check_at(dir: &Path, manifest_of: &Path) -> DistCheckpoint {
    let expected = manifest(manifest_of);
    let checkpoint = DistCheckpoint::open(dir).unwrap();
    let mut tensors = BTreeMap::new();
    for info in checkpoint.infos() {
        let tensor = checkpoint.tensor(info.name()).unwrap();
        let bytes = tensor.read().unwrap();
        let found = (info.dtype().name().to_owned(), info.shape().to_vec(), sha256(&bytes));
        assert!(tensors.insert(info.name().to_owned(), found).is_none());
    }
    let wanted: BTreeMap<_, _> = expected["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| {
            let text = |key: &str| t[key].as_str().unwrap().to_owned();
            let shape = t["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap());
            (text("name"), (text("dtype"), shape.collect::<Vec<_>>(), text("sha256")))
        })
        .collect();
    assert_eq!(tensors, wanted);
    let tree = checkpoint.tree().unwrap();
    if !expected["values"].is_null() {
        same(&tree, &expected["values"], "");
    }
    let report = checkpoint.verify().unwrap();
    assert!(report.is_ok(), "{:?}", report.problems);
    checkpoint
}

/// Compares what this crate puts together: containers, tensors, plain values. Objects of classes
/// are `torch-save`'s matter and only have to be there.
fn same(value: &Value, json: &Json, at: &str) {
    let fail = || panic!("{at}: {value:?} is not {json}");
    match (value, json) {
        (Value::None, Json::Null) => {}
        (Value::Bool(a), Json::Bool(b)) if a == b => {}
        (Value::Int(a), Json::Number(b)) if b.as_i64() == Some(*a) => {}
        (Value::Float(a), Json::Number(b)) if b.as_f64() == Some(*a) => {}
        (Value::Str(a), Json::String(b)) if a == b => {}
        (Value::List(a), Json::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| same(a, b, &format!("{at}.{i}")));
        }
        (_, Json::Object(b)) if b.contains_key("$type") => match (value, b["$type"].as_str()) {
            (Value::Tensor(name), Some("tensor")) if b["name"] == *name.as_str() => {}
            (Value::Tensor(_), _) | (_, Some("tensor")) => fail(),
            (Value::Tuple(a), Some("tuple")) => {
                same(&Value::List(a.clone()), &b["value"], at);
            }
            _ => {}
        },
        (Value::Dict(a), Json::Object(b)) if a.len() == b.len() => {
            for (key, value) in a {
                let key = key.key_text();
                match b.get(&key) {
                    Some(json) => same(value, json, &format!("{at}.{key}")),
                    None => panic!("{at}: {key} is not expected"),
                }
            }
        }
        (Value::Object(object), json) => match &object.value {
            Some(plain) => same(plain, json, at),
            None => fail(),
        },
        _ => fail(),
    }
}

#[test]
fn fsdp2() {
    let two = check("fsdp2_2");
    assert_eq!((two.variant(), two.ranks(), two.files().len()), ("dcp", 2, 2));
    assert_eq!(two.writer(), "torch 2.15 or later");
    assert_eq!(check("fsdp2_4").ranks(), 4);
    check("fsdp2_app");
}

/// `FullyShardedDataParallel` with `SHARDED_STATE_DICT`: ShardedTensors under the parameters' names.
#[test]
fn fsdp1() {
    let checkpoint = check("fsdp1_2");
    assert_eq!((checkpoint.variant(), checkpoint.ranks()), ("dcp", 2));
    assert_eq!(checkpoint.notes(), [""; 0]);
    assert_eq!(checkpoint.chunks("optim.state.first.weight.exp_avg").unwrap().len(), 2);
    let names = checkpoint.value("optim.param_groups.0.params").unwrap();
    assert!(matches!(names, Value::List(names) if names[0] == Value::Str("scale".into())));
}

#[test]
fn dtensors() {
    check("tp_2");
    check("tp_4");
    check("mesh_2d");
    check("sharded_tensor");
}

#[test]
fn dtypes_and_strided_locals() {
    check("dtypes");
}

#[test]
fn one_file_for_each_item_and_several_a_rank() {
    assert!(check("file_per_item").files().len() > 2);
    assert_eq!(check("threads").ranks(), 2);
}

#[test]
fn nested_and_flattened_and_not() {
    let nested = check("nested");
    assert_eq!(nested.value("optim.param_groups.0.lr").unwrap(), Value::Float(0.1));
    let plain = Value::Tensor("model.layers.0.weight".into());
    assert_eq!(nested.value("model.layers.0.weight").unwrap(), plain);
    assert_eq!(nested.value("model.tuple.1").unwrap(), Value::Int(1));
    assert!(matches!(nested.value("optim.state").unwrap(), Value::Dict(_)));
    assert!(nested.value("optim.nothing").is_err());
    check("not_flattened");
}

#[test]
fn objects() {
    let objects = check("objects");
    assert!(objects.byte_items().any(|fqn| fqn == "with_tensors"));
    let value = objects.item_value("with_tensors").unwrap();
    assert_eq!(value.get("1.inner"), Some(&Value::Tensor("with_tensors.1.inner".into())));
    assert!(objects.item("with_tensors").unwrap().is_some());
    assert!(objects.item_value("w").is_err());
    assert!(objects.item_value("nothing").is_err());
}

#[test]
fn ranks_that_saved_alone() {
    let local = check("rank_local");
    assert_eq!((local.variant(), local.ranks()), ("rank-local", 2));
    assert!(local.notes().iter().any(|n| n.contains("the lowest rank's are read")));
}

#[test]
fn lightning() {
    let lightning = check("lightning.ckpt");
    assert_eq!(lightning.variant(), "lightning");
    assert!(lightning.meta().unwrap().is_some());
    assert_eq!(lightning.value("epoch").unwrap(), Value::Int(1));
}

#[test]
fn megatron() {
    let megatron = check("megatron");
    assert_eq!(megatron.variant(), "megatron");
    assert_eq!(megatron.value("common.iteration").unwrap(), Value::Int(12));
    assert!(megatron.common().unwrap().is_some());
}

/// Fabric keeps the user's keys; what is no module or optimizer is in `meta.pt`, at the root.
#[test]
fn fabric() {
    let fabric = check("fabric");
    assert_eq!((fabric.variant(), fabric.ranks()), ("lightning", 2));
    assert_eq!(fabric.value("step").unwrap(), Value::Int(7));
    assert_eq!(fabric.value("options.lr").unwrap(), Value::Float(0.01));
    assert_eq!(fabric.value("seen").unwrap(), Value::Tensor("seen".into()));
    assert_eq!(fabric.chunks("net.first.weight").unwrap().len(), 2);
}

#[test]
fn older_releases() {
    assert_eq!(check("torch_2_1").writer(), "torch 2.2 or earlier");
    assert_eq!(check("torch_2_4").writer(), "torch 2.4 to 2.6");
}

#[test]
fn parents_that_people_hold() {
    let nemo = check("nemo2");
    assert!(nemo.dir().unwrap().ends_with("nemo2/weights"));
    assert_eq!((nemo.variant(), nemo.ranks()), ("megatron", 2));
    assert_eq!(nemo.value("common.global_step").unwrap(), Value::Int(12));
    let qkv = "module.decoder.layers.self_attention.linear_qkv.weight";
    assert_eq!(nemo.tensor(qkv).unwrap().shape(), [2, 18, 6]);
    assert_eq!(nemo.chunks(qkv).unwrap().len(), 4);
    let context = nemo.context().unwrap();
    assert!(context.iter().any(|p| p.ends_with("context/model.yaml")));
    assert_eq!(DistCheckpoint::open(nemo.dir().unwrap()).unwrap().context().unwrap(), context);

    let steps = fixtures().join("distcp/steps");
    let e = DistCheckpoint::open(&steps).unwrap_err();
    assert_eq!(e.kind(), ckptkit_core::ErrorKind::InvalidArgument);
    assert!(e.to_string().contains("step-10, step-20 (the latest)"), "{e}");
    check_at(&steps.join("step-20"), &steps);
    check_at(&steps.join("step-20/.metadata"), &steps);
}

#[cfg(feature = "zstd")]
#[test]
fn zstd() {
    let zstd = check("zstd");
    let chunks = zstd.chunks(zstd.infos().next().unwrap().name()).unwrap();
    assert_eq!(chunks[0].transforms, ["stream.zstd/1"]);
}

#[cfg(not(feature = "zstd"))]
#[test]
fn zstd_names_the_feature() {
    let zstd = DistCheckpoint::open(fixtures().join("distcp/zstd")).unwrap();
    let name = zstd.infos().next().unwrap().name().to_owned();
    let e = zstd.tensor(&name).and_then(|t| t.read()).unwrap_err().to_string();
    assert!(e.contains("build with the feature `zstd`"), "{e}");
}

#[cfg(feature = "safetensors")]
#[test]
fn safetensors_data_files() {
    check("safetensors_format");
}

#[cfg(not(feature = "safetensors"))]
#[test]
fn safetensors_data_files_name_the_feature() {
    let st = DistCheckpoint::open(fixtures().join("distcp/safetensors_format")).unwrap();
    let e = st.tensor("rows").and_then(|t| t.read()).unwrap_err().to_string();
    assert!(e.contains("build with the feature `safetensors`"), "{e}");
}

/// What reading the whole of it gives: the first error.
fn read_all(dir: &Path, verify: bool) -> Result<()> {
    let checkpoint = DistCheckpoint::open(dir)?;
    let names: Vec<String> = checkpoint.infos().map(|i| i.name().to_owned()).collect();
    for name in &names {
        checkpoint.tensor(name)?.copy_to(&mut std::io::sink())?;
    }
    if let Some((_, e)) = checkpoint.failures().first() {
        return Err(e.clone());
    }
    if verify {
        if let Some(e) = checkpoint.verify()?.problems.into_iter().next() {
            return Err(e);
        }
    }
    Ok(())
}

#[test]
fn hostile_directories_are_refused_by_name() {
    let hostile = fixtures().join("hostile");
    let mut seen = 0;
    for entry in std::fs::read_dir(hostile).unwrap() {
        let dir = entry.unwrap().path();
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let ours = name.starts_with("dcp_") && !name.starts_with("dcp_st_") && dir.is_dir();
        // Another message where the feature is not there.
        if !ours || (name.contains("zstd") && cfg!(not(feature = "zstd"))) {
            continue;
        }
        seen += 1;
        let expected = manifest(&dir);
        let e = read_all(&dir, expected["by"] == "verify").expect_err(&name).to_string();
        for word in expected["mentions"].as_array().unwrap() {
            assert!(e.contains(word.as_str().unwrap()), "{name}: {word} is not in {e:?}");
        }
    }
    assert!(seen > 20, "only {seen} directories were found");
}

/// `check` compares values and tensors with what Megatron's files hold.
#[test]
fn objects_in_files_of_their_own() {
    for name in ["megatron_objects", "megatron_objects_0_7"] {
        let checkpoint = check(name);
        assert_eq!(checkpoint.notes(), [""; 0], "{name}");
        assert_eq!(checkpoint.byte_items().count(), 7, "{name}");
        let rng = checkpoint.item_value("rng_state/shard_0.1_1.2").unwrap();
        assert_eq!(rng.get("0.np"), Some(&Value::Tuple(vec![Value::Int(1), Value::Int(1)])));
        let state = Value::Tensor("rng_state/shard_0.1_1.2.0.torch_rng_state".into());
        assert_eq!(rng.get("0.torch_rng_state"), Some(&state));
        assert_eq!(checkpoint.value("rng_state/shard_0.1_1.2").unwrap(), rng);
        let none = checkpoint.item_value("decoder.layers.mlp.linear_fc2._extra_state/shard_1_2");
        assert_eq!(none.unwrap(), Value::None);
    }
}
