//! The committed checkpoints of real training runs, against what Lightning's own libraries read.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use ckptkit_core::TensorSource;
use lightning_ckpt::LightningCkpt;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use torch_save::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/lightning")
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn check(path: &Path) {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let manifest = path.with_file_name(format!("{name}.json"));
    let manifest: Json = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    let values = &manifest["values"];
    let ckpt = LightningCkpt::open(path).unwrap();

    let training = ckpt.training();
    assert_eq!(training.epoch, values["epoch"].as_u64(), "{name}");
    assert_eq!(training.global_step, values["global_step"].as_u64(), "{name}");
    assert_eq!(ckpt.lightning_version(), values["pytorch-lightning_version"].as_str(), "{name}");
    let count = |key: &str| values[key].as_array().map_or(0, Vec::len);
    assert_eq!(training.optimizers, count("optimizer_states"), "{name}");
    assert_eq!(training.lr_schedulers, count("lr_schedulers"), "{name}");
    assert_eq!(ckpt.optimizer_states().unwrap().len(), training.optimizers);
    assert_eq!(ckpt.lr_schedulers().unwrap().len(), training.lr_schedulers);
    assert_eq!(ckpt.loops().unwrap().is_some(), values["loops"].is_object(), "{name}");
    let hparams = ["hyper_parameters", "hparams"].iter().any(|key| !values[*key].is_null());
    assert_eq!(ckpt.hyper_parameters().unwrap().is_some(), hparams, "{name}");

    let names: Vec<&str> = ckpt.state_dict().map(|(name, _)| name).collect();
    let weights = manifest["weights"]["names"].as_array().unwrap();
    assert_eq!(names, weights.iter().map(|n| n.as_str().unwrap()).collect::<Vec<_>>(), "{name}");
    let listed: Vec<&str> = ckpt.infos().map(|i| i.name()).collect();
    for (found, tensor) in listed.iter().zip(manifest["tensors"].as_array().unwrap()) {
        assert_eq!(*found, tensor["name"].as_str().unwrap());
        // A nested tensor has no bytes of its own.
        let Some(expected) = tensor["sha256"].as_str() else { continue };
        let bytes = ckpt.tensor(found).unwrap().read().unwrap();
        assert_eq!(sha256(&bytes), expected, "{name}: {found}");
    }
    for weight in names {
        let read = ckpt.weight(weight).unwrap();
        assert_eq!(read.name(), format!("state_dict.{weight}"));
    }
}

#[test]
fn every_file() {
    let files: Vec<PathBuf> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "ckpt"))
        .collect();
    assert!(files.len() >= 19, "{} files", files.len());
    files.iter().for_each(|path| check(path));
}

fn open(name: &str) -> LightningCkpt {
    LightningCkpt::open(fixtures().join(name)).unwrap()
}

fn hparam(name: &str, path: &str) -> Option<Value> {
    open(name).hyper_parameters().unwrap()?.into_plain().get(path).cloned()
}

#[test]
fn hyper_parameters_of_every_class() {
    assert_eq!(hparam("hparams_namespace.ckpt", "lr"), Some(Value::Float(0.1)));
    assert_eq!(hparam("hparams_namespace.ckpt", "inner.depth"), Some(Value::Int(2)));
    assert_eq!(hparam("hparams_omegaconf.ckpt", "layers.2.width"), Some(Value::Int(8)));
    assert_eq!(hparam("hparams_omegaconf.ckpt", "link"), Some(Value::Str("${lr}".into())));
    assert_eq!(hparam("hparams_omegaconf.ckpt", "inner.missing"), Some(Value::Str("???".into())));
    assert_eq!(hparam("keys_1_4.ckpt", "layers.1"), Some(Value::Int(2)));
    assert_eq!(hparam("keys_0_7.ckpt", "lr"), Some(Value::Float(0.01)));
}

#[test]
fn states_beside_the_weights() {
    let names = |file: &str| -> Vec<String> {
        open(file).callbacks().unwrap().into_iter().map(|(name, _)| name).collect()
    };
    let adam = names("adam.ckpt");
    assert!(adam.iter().any(|n| n.starts_with("EarlyStopping{'monitor': 'val_loss'")), "{adam:?}");
    assert!(
        adam.iter().any(|n| n.starts_with("ModelCheckpoint{'monitor': 'val_loss'")),
        "{adam:?}"
    );
    assert_eq!(names("keys_0_7.ckpt"), ["ModelCheckpoint", "EarlyStopping"]);
    assert!(names("keys_1_4.ckpt")[0].ends_with("ModelCheckpoint"));

    let precision = |file: &str| open(file).precision().unwrap().map(|p| p.key);
    assert_eq!(precision("mixed_precision.ckpt").as_deref(), Some("MixedPrecision"));
    assert_eq!(precision("keys_1_4.ckpt").as_deref(), Some("native_amp_scaling_state"));
    assert_eq!(precision("keys_1_9.ckpt").as_deref(), Some("MixedPrecisionPlugin"));
    assert_eq!(precision("adam.ckpt"), None);

    let optimizers = open("adam.ckpt").optimizer_states().unwrap();
    let moment = optimizers[0].get("state.0.exp_avg");
    assert_eq!(moment, Some(&Value::Tensor("optimizer_states.0.state.0.exp_avg".into())));
}

#[cfg(feature = "serde")]
#[test]
fn hyper_parameters_in_types() {
    #[derive(serde::Deserialize)]
    struct Inner {
        depth: u8,
    }
    #[derive(serde::Deserialize)]
    struct Hparams {
        lr: f64,
        inner: Inner,
        tags: Vec<String>,
    }
    let hparams: Hparams = open("hparams_namespace.ckpt").hyper_parameters_as().unwrap();
    assert_eq!((hparams.lr, hparams.inner.depth), (0.1, 2));
    assert_eq!(hparams.tags, ["a", "b"]);
    #[derive(serde::Deserialize)]
    struct Config {
        layers: (u8, u8, std::collections::BTreeMap<String, u32>),
        name: Option<String>,
        flag: bool,
    }
    let config: Config = open("hparams_omegaconf.ckpt").hyper_parameters_as().unwrap();
    assert_eq!(config.layers.2["width"], 8);
    assert!(config.flag && config.name.is_none());
}
