//! What `weights_only=True` accepts, against what torch itself made of the same pickles.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use ckptkit_core::Limits;
use torch_save::pickle::Global;
use torch_save::weights_only::{self, Standing, TORCH};
use torch_save::{Graph, TorchFile};

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// Each row: a name, a pickle, and what torch's unpickler made of it
/// (`tests/data/make_weights_only.py`).
#[test]
fn torch_says_the_same_of_every_pickle() {
    let mut wrong = Vec::new();
    let mut rows = [0, 0];
    for row in include_str!("data/weights_only.tsv").lines() {
        let [name, hex, verdict] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let pickle = bytes(hex);
        let opcodes = weights_only::opcodes(&pickle);
        let accepted = opcodes.is_empty()
            && match Graph::parse(pickle, &Limits::default()) {
                Ok(graph) => weights_only::refusals(&graph).is_empty(),
                Err(_) => false,
            };
        rows[usize::from(verdict == "ok")] += 1;
        if accepted != (verdict == "ok") {
            wrong.push(format!("{name}: torch says {verdict}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(rows[0] >= 100 && rows[1] >= 80, "{rows:?} rows");
}

#[test]
fn the_list_is_that_of_the_installed_torch() {
    let mut rows = include_str!("data/weights_only_globals.tsv").lines();
    assert_eq!(rows.next(), Some(format!("torch\t{TORCH}").as_str()));
    let mut count = 0;
    for row in rows {
        let (name, import) = row.split_once('\t').unwrap();
        let (module, name) = name.rsplit_once('.').unwrap();
        let expected = match import {
            "" => Standing::Allowed,
            _ => Standing::AllowedAfter("torch.distributed.tensor"),
        };
        assert_eq!(weights_only::standing(Global { module, name }), expected, "{row}");
        count += 1;
    }
    assert_eq!(count, 155);
    for (module, name) in [("builtins", "frozenset"), ("torch", "half"), ("", ""), ("torch", "")] {
        assert_eq!(weights_only::standing(Global { module, name }), Standing::Unlisted);
    }
    assert_eq!(weights_only::standing(Global { module: "nt", name: "x" }), Standing::Blocked);
}

/// What torch 2.15 does with `weights_only=True` and each fixture: loads it, or refuses it with an
/// error that has these words.
#[test]
fn files() {
    let check = |name: &str, words: &[&str]| {
        let file = TorchFile::open(support::fixtures("").join(name)).unwrap();
        let refused: Vec<String> = file
            .weights_only()
            .unwrap()
            .iter()
            .map(|r| format!("{}: {}", r.path, r.what))
            .collect();
        for word in words {
            assert!(refused.iter().any(|r| r == word), "{name}: {word} is not in {refused:?}");
        }
        assert_eq!(refused.is_empty(), words.is_empty(), "{name}: {refused:?}");
    };
    for loads in [
        "torch/conj_neg.pt",
        "torch/data_parallel.pt",
        "torch/deep.pt",
        "torch/dtypes_v2.pt",
        "torch/dtypes_v3.pt",
        "torch/dtensor.pt",
        "torch/legacy_views.pt",
        "torch/legacy_storage_views.pt",
        "torch/meta.pt",
        "torch/python2_strings.pt",
        "torch/quantized.pt",
        "torch/sparse.pt",
        "torch/sparse_3_tuple.pt",
        "torch/values_torch.pt",
        "torch/train_adam.pt",
        "lightning/adam.ckpt",
        "lightning/sgd.ckpt",
        "lightning/keys_1_9.ckpt",
    ] {
        check(loads, &[]);
    }
    check("torch/cyclic.pt", &["node: fixture_types.Plain"]);
    check("torch/legacy_module.pt", &[": persistent id"]);
    check(
        "torch/module.pt",
        &[": fixture_types.Net", "_modules.first: torch.nn.modules.linear.Linear"],
    );
    check("torch/nested.pt", &["n: torch._utils._rebuild_nested_tensor"]);
    check("torch/parameters.pt", &["subclass: fixture_types.Tagged"]);
    check("torch/protocol_0.pt", &[": DICT", "w.0: persistent id"]);
    check("torch/protocol_4.pt", &[": FRAME"]);
    check("torch/tar_era.pt", &[": tar-era"]);
    check("torch/values_containers.pt", &["defaultdict: collections.defaultdict"]);
    check("torch/values_keys.pt", &["<builtins.frozenset>: builtins.frozenset"]);
    check("lightning/hparams_refused.ckpt", &["hyper_parameters.knot: tuple", ": POP"]);
    check("torch/values_plain.pt", &["big_ints.4: int", "bytes.0: builtins.bytes"]);
    check(
        "lightning/hparams_omegaconf.ckpt",
        &["hyper_parameters: omegaconf.dictconfig.DictConfig"],
    );
    check(
        "lightning/keys_1_4.ckpt",
        &[
            "callbacks.pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint: pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        ],
    );
}
