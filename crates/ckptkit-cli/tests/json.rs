//! The JSON that other programs rely on, against what the real libraries read.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::collections::BTreeSet;

use common::{fixture, json, manifest, stdout};
use serde_json::{Value, json as value};

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn inspect_of_a_lightning_checkpoint() {
    let name = "lightning/adam.ckpt";
    let (found, judge) = (json(&["inspect", "--json", &fixture(name)]), manifest(name));
    let expected = [
        "path",
        "format",
        "variant",
        "tensors",
        "parameters",
        "bytes",
        "dtypes",
        "weights_key",
        "training",
        "config",
        "artifacts",
        "shards",
        "metadata",
        "warnings",
    ];
    assert!(expected.iter().all(|k| keys(&found).contains(k)), "{found}");
    assert_eq!(found["path"], fixture(name));
    assert_eq!(found["format"], "lightning-ckpt");
    assert_eq!(found["variant"], "zip");
    let tensors = judge["tensors"].as_array().unwrap();
    assert_eq!(found["tensors"], tensors.len());
    assert_eq!(found["weights_key"], judge["weights"]["key"]);
    assert_eq!(found["training"]["epoch"], judge["values"]["epoch"]);
    assert_eq!(found["training"]["global_step"], judge["values"]["global_step"]);
    let states = judge["values"]["optimizer_states"].as_array().unwrap();
    assert_eq!(found["training"]["optimizers"], states.len());
    let schedulers = judge["values"]["lr_schedulers"].as_array().unwrap();
    assert_eq!(found["training"]["lr_schedulers"], schedulers.len());
    assert_eq!(found["config"], true);
    assert_eq!(found["shards"], 1);
    for (dtype, n) in found["dtypes"].as_object().unwrap() {
        assert_eq!(*n, tensors.iter().filter(|t| t["dtype"] == **dtype).count());
    }
}

#[test]
fn inspect_of_archives_and_directories() {
    let found = json(&["inspect", "--json", &fixture("nemo/ctc_bpe.nemo")]);
    assert_eq!((&found["format"], &found["variant"]), (&value!("nemo"), &value!("tar")));
    assert_eq!(found["weights_key"], Value::Null);
    assert_eq!(found["training"], Value::Null);
    let artifacts: BTreeSet<(String, u64)> = found["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| (a["name"].as_str().unwrap().to_owned(), a["bytes"].as_u64().unwrap()))
        .collect();
    let judge = manifest("nemo/ctc_bpe.nemo");
    let expected: BTreeSet<(String, u64)> = judge["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| (a["name"].as_str().unwrap().to_owned(), a["bytes"].as_u64().unwrap()))
        .collect();
    assert_eq!(artifacts, expected);

    let found = json(&["inspect", "--json", &fixture("safetensors/hf_sharded")]);
    assert_eq!((&found["variant"], &found["shards"]), (&value!("sharded"), &value!(6)));
    let found = json(&["inspect", "--json", &fixture("distcp/fsdp2_4")]);
    assert_eq!((&found["format"], &found["shards"]), (&value!("distcp"), &value!(4)));
    assert_eq!(found["weights_key"], "model");
    let found = json(&["inspect", "--json", &fixture("safetensors/metadata.safetensors")]);
    assert_eq!(
        found["metadata"],
        manifest("safetensors/metadata.safetensors")["values"]["__metadata__"]
    );
}

/// What a sidecar keeps is found under the paths of the source.
#[test]
fn inspect_and_show_look_into_sidecars() {
    let source = fixture("lightning/adam.ckpt");
    let dir = tempfile::tempdir().unwrap();
    for (name, flags) in [("archive", &["--all"][..]), ("sharded", &["--to", "distcp"])] {
        let to = dir.path().join(name);
        let to = to.to_str().unwrap();
        json(&[&["convert", "--json", &source, to], flags].concat());
        let (found, expected) =
            (json(&["inspect", "--json", to]), json(&["inspect", "--json", &source]));
        for key in ["training", "config", "parameters", "weights_key"] {
            assert_eq!(found[key], expected[key], "{name} {key}");
        }
        assert_eq!(found["sidecar"], "lightning-ckpt");
        assert_eq!(expected["sidecar"], Value::Null);
        assert_eq!(found["warnings"], value!([]));
        for path in
            ["epoch", "hyper_parameters", "optimizer_states.0.param_groups", "callbacks", ""]
        {
            let value = |at: &str| json(&["show", "--json", at, path]);
            assert_eq!(value(to), value(&source), "{name} {path}");
        }
    }
}

#[test]
fn inspect_warns_and_says_null_where_the_weights_are_unclear() {
    let found = json(&["inspect", "--json", &fixture("torch/ema.pt")]);
    assert_eq!(found["parameters"], Value::Null);
    assert!(found["warnings"][0].as_str().unwrap().contains("several keys"), "{found}");
}

#[test]
fn parameters_are_the_elements_under_the_weights_key() {
    for name in ["torch/train_adam.pt", "nemo/ctc_char.nemo", "distcp/tp_2"] {
        let (found, judge) = (json(&["inspect", "--json", &fixture(name)]), manifest(name));
        let key = judge["weights"]["key"].as_str().unwrap();
        let prefix = if key.is_empty() { String::new() } else { format!("{key}.") };
        let elements: u64 = judge["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|t| t["name"].as_str().unwrap().starts_with(&prefix))
            .map(|t| {
                t["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product::<u64>()
            })
            .sum();
        assert_eq!(found["parameters"], elements, "{name}");
    }
}

#[test]
fn ls_lists_name_dtype_shape_and_bytes() {
    let name = "torch/train_adam.pt";
    let (found, judge) = (json(&["ls", "--json", &fixture(name)]), manifest(name));
    let found = found["tensors"].as_array().unwrap();
    let expected = judge["tensors"].as_array().unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(keys(found), ["bytes", "dtype", "name", "shape"].into());
        for key in ["name", "dtype", "shape"] {
            assert_eq!(found[key], expected[key]);
        }
        let elements: u64 =
            found["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product();
        let size = if found["dtype"] == "I64" { 8 } else { 4 };
        assert_eq!(found["bytes"], elements * size);
    }
}

#[test]
fn ls_of_the_weights_chosen_sorted_and_filtered() {
    let path = fixture("torch/train_adam.pt");
    let names = |args: &[&str]| -> Vec<String> {
        let found = json(args);
        let names = found["tensors"].as_array().unwrap().iter();
        names.map(|t| t["name"].as_str().unwrap().to_owned()).collect()
    };
    let judge = manifest("torch/train_adam.pt");
    let weights: Vec<String> = serde_json::from_value(judge["weights"]["names"].clone()).unwrap();
    assert_eq!(names(&["ls", "--json", "--weights", &path]), weights);
    assert_eq!(names(&["ls", "--json", "--weights-key", "model_state_dict", &path]), weights);
    let mut sorted = weights.clone();
    sorted.sort();
    assert_eq!(names(&["ls", "--json", "--weights", "--sort", "name", &path]), sorted);
    let some = names(&["ls", "--json", "--weights", &path, "**.bias", "**.weight"]);
    let expected: Vec<&String> =
        weights.iter().filter(|n| n.ends_with(".bias") || n.ends_with(".weight")).collect();
    assert!(!expected.is_empty() && some.iter().eq(expected));
    let bytes = json(&["ls", "--json", "--sort", "bytes", &path]);
    let bytes: Vec<u64> =
        bytes["tensors"].as_array().unwrap().iter().map(|t| t["bytes"].as_u64().unwrap()).collect();
    assert!(bytes.is_sorted_by(|a, b| a >= b), "{bytes:?}");
}

#[test]
fn show_gives_values_in_their_encoding() {
    let judge = manifest("lightning/adam.ckpt");
    let path = fixture("lightning/adam.ckpt");
    assert_eq!(json(&["show", "--json", &path, "epoch"]), judge["values"]["epoch"]);
    let expected = &judge["values"]["lr_schedulers"];
    assert_eq!(json(&["show", "--json", &path, "lr_schedulers"]), *expected);
    let judge = manifest("torch/values_containers.pt");
    let path = fixture("torch/values_containers.pt");
    for (key, expected) in judge["values"].as_object().unwrap() {
        assert_eq!(json(&["show", "--json", &path, key]), *expected, "{key}");
    }
    // A hyper-parameter by its own name, and a config key of an archive.
    let path = fixture("lightning/adam.ckpt");
    assert_eq!(
        json(&["show", "--json", &path, "layers"]),
        value!({"$type": "tuple", "value": [1, 2]})
    );
    let judge = manifest("nemo/ctc_bpe.nemo");
    let path = fixture("nemo/ctc_bpe.nemo");
    let expected = &judge["config"]["preprocessor"]["sample_rate"];
    assert_eq!(json(&["show", "--json", &path, "preprocessor.sample_rate"]), *expected);
    assert_eq!(json(&["show", "--json", &path, "config.tokenizer"]), judge["config"]["tokenizer"]);
}

#[test]
fn show_gives_tensors_with_their_first_elements() {
    let found = json(&["show", "--json", &fixture("safetensors/dtypes.safetensors"), "float32"]);
    assert_eq!(found["$type"], "tensor");
    assert_eq!(found["shape"], value!([2, 4]));
    // The pattern that the fixtures are filled with.
    let first =
        value!([-1.78125, -1.203125, -0.625, -0.046875, 0.53125, 1.109375, 1.6875, -1.65625]);
    assert_eq!(found["first"], first);
    let s = &found["statistics"];
    assert_eq!((&s["finite"], &s["nan"], &s["infinite"]), (&value!(8), &value!(0), &value!(0)));
    assert_eq!((&s["min"], &s["max"]), (&value!(-1.78125), &value!(1.6875)));
    assert_eq!(s["mean"], -0.248046875);
    let dtypes = fixture("safetensors/dtypes.safetensors");
    let found = json(&["show", "--json", &dtypes, "uint64"]);
    assert_eq!(found["first"], value!([14, 9, 5, 0, 4, 8]));
    let found = json(&["show", "--json", &dtypes, "complex64"]);
    assert_eq!(found["first"][0], value!({"$type": "complex", "value": [-1.78125, 0.0]}));
    assert_eq!(found["statistics"], Value::Null);
    let found = json(&["show", "--json", &dtypes, "bool"]);
    assert_eq!(found["first"], value!([true, false, true]));
    // A weight by its name without the key, and one without bytes.
    let found = json(&["show", "--json", &fixture("lightning/adam.ckpt"), "net.first.weight"]);
    assert_eq!(found["name"], "net.first.weight");
    let found = json(&["show", "--json", &fixture("torch/sparse.pt"), "coo"]);
    assert_eq!((&found["first"], &found["statistics"]), (&value!([]), &Value::Null));
}

#[test]
fn show_prints_an_artifact_byte_for_byte() {
    for artifact in manifest("nemo/ctc_bpe.nemo")["artifacts"].as_array().unwrap() {
        let name = artifact["name"].as_str().unwrap();
        let out =
            common::program().args(["show", &fixture("nemo/ctc_bpe.nemo"), name]).output().unwrap();
        assert_eq!(out.stdout.len() as u64, artifact["bytes"], "{name}");
    }
    let readme = stdout(&["show", &fixture("nemo/speechlm2"), "README.md"]);
    assert_eq!(readme, std::fs::read_to_string(fixture("nemo/speechlm2/README.md")).unwrap());
}

#[test]
fn convert_reports() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out").to_str().unwrap().to_owned();
    let path = fixture("torch/tied.pt");
    let args = ["convert", "--json", &path, &to, "--rename", "other=else", "--exclude", "flat.**"];
    let dry = json(&[&args[..], &["--dry-run"]].concat());
    assert!(common::names(dir.path()).is_empty());
    let wet = json(&args);
    assert_eq!(dry, wet);
    let expected = [
        "source",
        "destination",
        "format",
        "files",
        "tensors",
        "bytes",
        "renamed",
        "cast",
        "aliases",
        "filled",
        "left_out",
        "notes",
    ];
    assert!(expected.iter().all(|k| keys(&wet).contains(k)), "{wet}");
    assert_eq!((&wet["source"], &wet["destination"]), (&value!(path), &value!(to)));
    assert_eq!((&wet["format"], &wet["files"]), (&value!("safetensors"), &value!(1)));
    assert_eq!(wet["renamed"], value!({"other": "else", "other_again": "else_again"}));
    assert_eq!(wet["cast"], value!({}));
    assert_eq!(wet["filled"], value!({}));
    let aliases = value!({"embed.weight": "alias.weight", "head.weight": "alias.weight", "else_again": "else"});
    assert_eq!(wet["aliases"], aliases);
    let left =
        value!([{"path": "flat.weight", "kind": "tensor", "why": "excluded by \"flat.**\""}]);
    assert_eq!(wet["left_out"], left);
    assert_eq!(wet["tensors"], 4);
}
