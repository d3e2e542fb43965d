//! Every fixture of every format, converted to safetensors, against what the real library reads of
//! the source and what the reference crate reads of the output.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ckptkit::{
    Checkpoint, Convert, CopyOptions, Existing, Glob, Json, Report, Scope, Target, Tensor, digest,
};
use ckptkit_tests::fixture::{self, Fixture, each};
use ckptkit_tests::manifest::TensorRow;
use ckptkit_tests::{obedient, sha256, tree, values};
use safetensors::SafeTensors;

/// Bytes of a shard: less than most fixtures hold, more than most of their tensors.
const SHARD: u64 = 200;

fn obedient(f: &Fixture, target: Target, to: &Path) -> Option<(Convert, Report)> {
    let mut wish = Convert::new(target);
    wish.max_shard_bytes = SHARD;
    obedient::convert(f, wish, to)
}

/// What the output must hold: the rows of the weights that are not excluded.
fn expected(f: &Fixture, wish: &Convert) -> Vec<TensorRow> {
    let rows = match (f.manifest.weight_rows(), &wish.weights_key) {
        (Some(rows), None) => rows,
        (_, Some(key)) => under(&f.manifest.tensors, &format!("{key}.")),
        // Where the judge names no weights, everything that the rule picks.
        (None, None) => match f.name.as_str() {
            "distcp/nested" | "distcp/torch_2_1" | "distcp/torch_2_4" => {
                under(&f.manifest.tensors, "model.")
            }
            _ => f.manifest.tensors.clone(),
        },
    };
    // Megatron keeps the state of the run at the root, beside the model.
    let megatron = ["distcp/megatron", "distcp/nemo2", "nemo/dist_"];
    let megatron = megatron.iter().any(|m| f.name.starts_with(m));
    let stray = |name: &str| {
        ["common.", "optimizer.", "rng_state/"].iter().any(|prefix| name.starts_with(prefix))
    };
    rows.into_iter()
        .filter(|t| wish.selection.leaves_out(&t.name).is_none())
        .filter(|t| !megatron || !stray(&t.name))
        .collect()
}

fn under(rows: &[TensorRow], prefix: &str) -> Vec<TensorRow> {
    let strip = |t: &TensorRow| {
        let name = t.name.strip_prefix(prefix)?.to_owned();
        Some(TensorRow { name, ..t.clone() })
    };
    rows.iter().filter_map(strip).collect()
}

/// Removed name → kept name, from the judge's groups of ties: the first in the alphabet is kept.
fn expected_aliases(f: &Fixture, wish: &Convert, rows: &[TensorRow]) -> BTreeMap<String, String> {
    let key = match (&wish.weights_key, &f.manifest.weights) {
        (Some(key), _) => format!("{key}."),
        (None, Some(w)) if !w.key.is_empty() => format!("{}.", w.key),
        _ => String::new(),
    };
    let mut aliases = BTreeMap::new();
    for group in &f.manifest.ties {
        let mut names: Vec<&str> = group
            .iter()
            .filter_map(|n| n.strip_prefix(&key))
            .filter(|n| rows.iter().any(|t| t.name == *n))
            .collect();
        names.sort_unstable();
        for removed in names.iter().skip(1) {
            aliases.insert((*removed).to_owned(), names[0].to_owned());
        }
    }
    if f.name == "safetensors/aliases.safetensors" {
        aliases.insert("head.weight".into(), "embed.weight".into());
    }
    aliases
}

/// What the reference crate reads from a file.
fn judged(bytes: &[u8]) -> (Vec<TensorRow>, BTreeMap<String, String>) {
    let (_, metadata) = SafeTensors::read_metadata(bytes).unwrap();
    let file = SafeTensors::deserialize(bytes).unwrap();
    let rows = file
        .iter()
        .map(|(name, view)| TensorRow {
            name: name.to_owned(),
            dtype: view.dtype().to_string(),
            shape: view.shape().iter().map(|&d| d as u64).collect(),
            sha256: Some(sha256(view.data())),
        })
        .collect();
    let metadata = metadata.metadata().clone().unwrap_or_default();
    (rows, metadata.into_iter().collect())
}

fn sorted(mut rows: Vec<TensorRow>) -> Vec<TensorRow> {
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

fn check_report(report: &Report, rows: &[TensorRow], aliases: &BTreeMap<String, String>) {
    assert_eq!(report.aliases, *aliases);
    assert_eq!(report.tensors, rows.len());
    assert_eq!(report.format, "safetensors");
    assert!(report.cast.is_empty() && report.renamed.is_empty());
}

#[test]
fn every_fixture_becomes_one_file() {
    let dir = tempfile::tempdir().unwrap();
    each(&fixture::readable(), |f| {
        let to = dir.path().join(f.name.replace('/', "_"));
        let Some((wish, report)) = obedient(f, Target::SafetensorsFile, &to) else { return };
        let mut rows = expected(f, &wish);
        let aliases = expected_aliases(f, &wish, &rows);
        rows.retain(|t| !aliases.contains_key(&t.name));
        check_report(&report, &rows, &aliases);
        assert_eq!(report.files, 1);
        let bytes = std::fs::read(&to).unwrap();
        let (found, metadata) = judged(&bytes);
        assert_eq!(sorted(found), sorted(rows));
        for (removed, kept) in &aliases {
            assert_eq!(metadata.get(removed), Some(kept), "{metadata:?}");
        }
        assert_eq!(metadata.get("format").map(String::as_str), Some("pt"));
    });
}

#[test]
fn every_fixture_becomes_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let split = std::cell::Cell::new(0);
    each(&fixture::readable(), |f| {
        let to = dir.path().join(f.name.replace('/', "_"));
        let Some((wish, report)) = obedient(f, Target::SafetensorsDirectory, &to) else { return };
        let mut rows = expected(f, &wish);
        let aliases = expected_aliases(f, &wish, &rows);
        rows.retain(|t| !aliases.contains_key(&t.name));
        check_report(&report, &rows, &aliases);
        let files = tree(&to);
        assert_eq!(report.files, files.len());
        let shards: BTreeMap<&String, &Vec<u8>> = files
            .iter()
            .filter(|(name, _)| !name.contains('/') && name.ends_with(".safetensors"))
            .collect();
        let mut found = Vec::new();
        let mut held = BTreeMap::new();
        for (shard, bytes) in &shards {
            let (rows, metadata) = judged(bytes);
            let size: u64 = rows.iter().map(byte_len).sum();
            // Views of one storage stay together, and only the first counts: the rule of the hub.
            let views = f.name.contains("views");
            assert!(size <= SHARD || rows.len() == 1 || views, "{shard} holds {size} bytes");
            held.extend(rows.iter().map(|t| (t.name.clone(), (*shard).clone())));
            assert_eq!(metadata.get("format").map(String::as_str), Some("pt"));
            if shards.len() == 1 {
                aliases.iter().for_each(|(k, v)| assert_eq!(metadata.get(k), Some(v)));
            }
            found.extend(rows);
        }
        let total: u64 = rows.iter().map(byte_len).sum();
        if shards.len() == 1 {
            assert_eq!(shards.keys().collect::<Vec<_>>(), [&"model.safetensors"]);
        } else {
            split.set(split.get() + 1);
            check_index(&files, &held, total, &aliases);
        }
        assert_eq!(sorted(found), sorted(rows));
        check_beside(f, &files);
    });
    assert!(split.get() >= 30, "only {} were split", split.get());
}

fn byte_len(row: &TensorRow) -> u64 {
    let bits: u64 = match row.dtype.as_str() {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" => 8,
        d if d.starts_with("F8") => 8,
        d => d.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap(),
    };
    row.shape.iter().product::<u64>() * bits / 8
}

/// The index names every tensor's shard and every alias, and shards are numbered from 1.
fn check_index(
    files: &BTreeMap<String, Vec<u8>>,
    held: &BTreeMap<String, String>,
    total: u64,
    aliases: &BTreeMap<String, String>,
) {
    let index: serde_json::Value =
        serde_json::from_slice(&files["model.safetensors.index.json"]).unwrap();
    assert_eq!(index["metadata"]["total_size"], total);
    aliases.iter().for_each(|(k, v)| assert_eq!(index["metadata"][k], **v));
    let map: BTreeMap<String, String> =
        serde_json::from_value(index["weight_map"].clone()).unwrap();
    assert_eq!(map, *held);
    let names: BTreeSet<&String> = held.values().collect();
    let n = names.len();
    let expected: Vec<String> =
        (1..=n).map(|k| format!("model-{k:05}-of-{n:05}.safetensors")).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
}

/// The config and the artifacts stand beside the tensors.
fn check_beside(f: &Fixture, files: &BTreeMap<String, Vec<u8>>) {
    for artifact in &f.manifest.artifacts {
        assert_eq!(sha256(&files[&artifact.name]), artifact.sha256, "{}", artifact.name);
    }
    let Some(expected) = &f.manifest.config else { return };
    let Some(json) = files.get("config.json") else {
        assert!(files.contains_key("model_config.yaml"), "{:?}", files.keys());
        return;
    };
    let found: serde_json::Value = serde_json::from_slice(json).unwrap();
    for (key, expected) in expected.as_object().unwrap() {
        if !expected.to_string().contains("${") {
            assert_eq!(values::difference(&found[key], expected), None, "{key}");
        }
    }
}

/// NeMo 2 keeps the model's config beside the weights, in YAML for Hydra.
#[test]
fn the_config_of_nemo_2_becomes_the_config() {
    let f = fixture::one("distcp/nemo2");
    let checkpoint = Checkpoint::open(&f.path).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    assert_eq!(config.origin, "context/model.yaml");
    assert_eq!(checkpoint.value("config.config.hidden_size").unwrap().as_int(), Some(6));
    assert_eq!(checkpoint.value("config.config.layernorm_epsilon").unwrap().as_f64(), Some(1e-5));
    assert!(checkpoint.value("config.nothing").is_err() && checkpoint.value("confi").is_err());
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out");
    let plan = Convert::new(Target::SafetensorsDirectory).plan(&checkpoint, &to).unwrap();
    plan.write(Existing::Refuse, &CopyOptions::default()).unwrap();
    let written: serde_json::Value =
        serde_json::from_slice(&std::fs::read(to.join("config.json")).unwrap()).unwrap();
    assert_eq!(written["_target_"], "nemo.collections.llm.gpt.model.base.GPTModel");
    assert_eq!(written["config"]["params_dtype"]["_target_"], "torch.bfloat16");
    for name in ["context/model.yaml", "context/io.json", "context/tokenizer.model"] {
        let source = std::fs::read(f.path.join(name)).unwrap();
        assert_eq!(std::fs::read(to.join(name)).unwrap(), source, "{name}");
    }
}

/// A config that is no YAML that anyone should read: it is carried along, and said so.
#[test]
fn a_context_that_cannot_be_read_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    ckptkit_tests::copy(&fixture::one("distcp/nemo2").path, &source);
    for bad in
        [&b"a: !!python/object/apply:os.system [x]\n"[..], b"\xff\xfe", b"[", b"a: &a [*a]\n"]
    {
        std::fs::write(source.join("context/model.yaml"), bad).unwrap();
        let checkpoint = Checkpoint::open(&source).unwrap();
        assert!(checkpoint.config().unwrap().is_none());
        let noted = |n: &String| n.starts_with("context/model.yaml is carried along, but not read");
        assert!(checkpoint.notes().iter().any(noted), "{:?}", checkpoint.notes());
        assert_eq!(checkpoint.artifacts().len(), 3);
    }
}

#[test]
fn hyper_parameters_become_the_config() {
    let dir = tempfile::tempdir().unwrap();
    let f = fixture::one("lightning/adam.ckpt");
    let to = dir.path().join("out");
    let (_, report) = obedient(&f, Target::SafetensorsDirectory, &to).unwrap();
    let found: serde_json::Value =
        serde_json::from_slice(&std::fs::read(to.join("config.json")).unwrap()).unwrap();
    let expected = &f.manifest.values["hyper_parameters"];
    let expected = expected.get("value").unwrap_or(expected);
    assert_eq!(values::difference(&found, expected), None);
    // Everything else of the run is named as left out.
    let left: BTreeSet<&str> = report.left_out.iter().map(|l| l.path.as_str()).collect();
    for key in ["epoch", "global_step", "loops", "callbacks", "lr_schedulers", "optimizer_states"] {
        assert!(left.contains(key) || left.iter().any(|l| l.starts_with(&format!("{key}."))));
    }
    assert!(!left.contains("hyper_parameters"), "{left:?}");
}

/// What no plain values say (objects of the user's own classes) goes along as it is.
#[test]
fn hyper_parameters_of_unknown_classes_go_along_with_weights() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["lightning/hparams_dataclass.ckpt", "lightning/hparams_refused.ckpt"] {
        let f = fixture::one(name);
        let stem = f.name.replace('/', "_");
        let to = |suffix: &str| dir.path().join(format!("{stem}{suffix}"));
        let mut sharded = Convert::new(Target::Distcp);
        sharded.scope = Scope::Weights;
        let mut back = Convert::new(Target::LightningCkpt);
        back.scope = Scope::Weights;
        let whole = to("_whole");
        convert(&Convert::new(Target::Distcp), &f.path, &whole);
        convert(&sharded, &f.path, &to("_sharded"));
        convert(&back, &f.path, &to(".ckpt"));
        convert(&back, &whole, &to("_from_whole.ckpt"));
        let expected = &f.manifest.values["hyper_parameters"];
        for (path, key) in [
            (to("_sharded"), "config"),
            (to(".ckpt"), "hyper_parameters"),
            (to("_from_whole.ckpt"), "hyper_parameters"),
        ] {
            let found = Checkpoint::open(&path).unwrap().value(key).unwrap();
            // Tensors in it are called by where it stands.
            let found = serde_json::to_string(&Json(&found)).unwrap();
            let found = found.replace(&format!("\"{key}."), "\"hyper_parameters.");
            let found = serde_json::from_str(&found).unwrap();
            assert_eq!(values::difference(&found, expected), None, "{path:?}");
        }
    }
}

fn convert(wish: &Convert, from: &Path, to: &Path) {
    let plan = wish.plan(&Checkpoint::open(from).unwrap(), to).unwrap();
    plan.write(Existing::Refuse, &CopyOptions::default()).unwrap();
}

#[test]
fn digests_survive_the_conversion() {
    let dir = tempfile::tempdir().unwrap();
    each(&fixture::readable(), |f| {
        for target in [Target::SafetensorsFile, Target::SafetensorsDirectory] {
            let to = dir.path().join(format!("{target:?}{}", f.name.replace('/', "_")));
            let Some((wish, _)) = obedient(f, target, &to) else { return };
            let source = Checkpoint::open(&f.path).unwrap();
            let weights = match &wish.weights_key {
                Some(key) => source.weights_under(key).unwrap(),
                None => source.weights().unwrap(),
            };
            let chosen: Vec<&Tensor> = weights
                .tensors
                .iter()
                .filter(|t| wish.selection.leaves_out(t.name()).is_none())
                .collect();
            let before = digest(chosen.into_iter(), &|_| true).unwrap();
            let written = Checkpoint::open(&to).unwrap();
            let after = digest(written.weights().unwrap().tensors.iter(), &|_| true).unwrap();
            assert_eq!(before.lines(), after.lines());
            assert!(before.digest.is_some() && before.digest == after.digest);
        }
    });
}

#[test]
fn the_same_bytes_every_time_and_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let fixtures: Vec<Fixture> = [
        "nemo/rnnt_bpe.nemo",
        "lightning/tied.ckpt",
        "torch/views.pt",
        "torch/big_endian.pt",
        "distcp/fsdp2_4",
        "safetensors/dcp_shards",
    ]
    .map(fixture::one)
    .into();
    each(&fixtures, |f| {
        let checkpoint = Checkpoint::open(&f.path).unwrap();
        let mut wish = Convert::new(Target::SafetensorsDirectory);
        wish.max_shard_bytes = SHARD;
        let mut first = None;
        for threads in [1, 1, 2, 7, 0] {
            let to = dir.path().join(f.name.replace('/', "_"));
            let mut options = CopyOptions::default();
            options.threads = threads;
            wish.plan(&checkpoint, &to).unwrap().write(Existing::Replace, &options).unwrap();
            let files = tree(&to);
            let first = first.get_or_insert_with(|| files.clone());
            assert_eq!(*first, files, "{threads} threads");
        }
    });
}

/// What a SpeechLM2 model takes of an ASR archive: the encoder and the preprocessor, under
/// `perception.`, and nothing of the decoder.
#[test]
fn an_encoder_for_a_speech_language_model() {
    let dir = tempfile::tempdir().unwrap();
    let fixtures: Vec<Fixture> =
        ["nemo/ctc_bpe.nemo", "nemo/rnnt_bpe.nemo", "nemo/connector_1_4.nemo"]
            .map(fixture::one)
            .into();
    each(&fixtures, |f| {
        let checkpoint = Checkpoint::open(&f.path).unwrap();
        let mut wish = Convert::new(Target::SafetensorsFile);
        for part in ["encoder.**", "preprocessor.**"] {
            wish.selection.select.push(Glob::new(part).unwrap());
        }
        wish.selection.add_prefix = Some("perception.".into());
        let to = dir.path().join(f.name.replace('/', "_"));
        let plan = wish.plan(&checkpoint, &to).unwrap();
        let report = plan.write_verified(Existing::Refuse, &CopyOptions::default()).unwrap();
        let (taken, left): (Vec<&TensorRow>, Vec<&TensorRow>) =
            f.manifest.tensors.iter().partition(|t| {
                t.name.starts_with("encoder.") || t.name.starts_with("preprocessor.")
            });
        assert!(!taken.is_empty() && !left.is_empty());
        let rows: Vec<TensorRow> = taken
            .iter()
            .map(|t| TensorRow { name: format!("perception.{}", t.name), ..(*t).clone() })
            .collect();
        let (found, _) = judged(&std::fs::read(&to).unwrap());
        assert_eq!(sorted(found), sorted(rows));
        for t in taken {
            assert_eq!(report.renamed[&t.name], format!("perception.{}", t.name));
        }
        for t in left {
            assert!(report.left_out.iter().any(|l| l.path == t.name), "{}", t.name);
        }
        // The model's own weights carry such names.
        let salm = fixture::one("nemo/speechlm2");
        let has = |p: &str| salm.manifest.tensors.iter().any(|t| t.name.starts_with(p));
        assert!(has("perception.encoder.") && has("perception.preprocessor."));
    });
}

#[test]
fn values_that_json_holds_are_written_exactly() {
    let f = fixture::one("nemo/rnnt_bpe.nemo");
    let checkpoint = Checkpoint::open(&f.path).unwrap();
    let config = checkpoint.config().unwrap().unwrap();
    let text = serde_json::to_string(&Json(&config.value)).unwrap();
    let again: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(again, serde_json::to_value(Json(&config.value)).unwrap());
}
