//! Slim checkpoints, against what Lightning itself keeps with `save_weights_only=True`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use ckptkit_core::{CopyOptions, Dtype, ErrorKind, Existing, Layout, OutputFile, TensorSource};
use lightning_ckpt::{LightningCkpt, Part, SlimOptions, SlimPlan};
use serde_json::Value as Json;
use torch_save::sanitize::SanitizeOptions;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/lightning")
}

fn open(name: &str) -> LightningCkpt {
    LightningCkpt::open(fixtures().join(name)).unwrap()
}

fn written(layout: &OutputFile) -> LightningCkpt {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("slim.ckpt");
    let layout = Layout::file(layout.clone());
    layout.write(&path, Existing::Refuse, &CopyOptions::default()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let ckpt =
        LightningCkpt::from_section(&ckptkit_core::Section::from_bytes(bytes, "slim")).unwrap();
    ckpt.torch().verify().unwrap();
    ckpt
}

fn slim(name: &str, change: impl FnOnce(&mut SlimOptions)) -> (SlimPlan, LightningCkpt) {
    let mut options = SlimOptions::new();
    change(&mut options);
    let plan = open(name).slim(&options).unwrap();
    let ckpt = written(&plan.layout);
    assert_eq!(plan.report.bytes.1, plan.layout.len());
    (plan, ckpt)
}

fn keys(parts: &[Part]) -> Vec<&str> {
    parts.iter().map(|p| p.key.as_str()).collect()
}

fn top(ckpt: &LightningCkpt) -> Vec<String> {
    ckpt.torch().root().pairs().into_iter().map(|(k, _)| k.key_text()).collect()
}

/// The same model, trained in the same way: one run saved everything, the other one weights only.
#[test]
fn what_stays_is_what_lightning_keeps() {
    let (plan, slim) = slim("adam.ckpt", |_| {});
    assert_eq!(top(&slim), top(&open("weights_only.ckpt")));
    assert_eq!(keys(&plan.report.removed), ["callbacks", "optimizer_states", "lr_schedulers"]);
    assert_eq!(keys(&plan.report.kept), top(&slim));
    let optimizer = &plan.report.removed[1];
    // Six parameters: two moments and a step each.
    assert_eq!((optimizer.tensors, optimizer.bytes), (18, 4 * (2 * (3 + 12 + 3 + 3 + 3 + 9) + 6)));
    assert!(plan.report.bytes.1 < plan.report.bytes.0);

    let manifest = std::fs::read(fixtures().join("weights_only.ckpt.json")).unwrap();
    let manifest: Json = serde_json::from_slice(&manifest).unwrap();
    let weights: Vec<&str> = slim.state_dict().map(|(name, _)| name).collect();
    let expected = manifest["weights"]["names"].as_array().unwrap();
    assert_eq!(weights, expected.iter().map(|n| n.as_str().unwrap()).collect::<Vec<_>>());
    let other = open("weights_only.ckpt");
    for (name, tensor) in slim.state_dict() {
        assert_eq!(tensor.read().unwrap(), other.weight(name).unwrap().read().unwrap(), "{name}");
    }
    for key in ["epoch", "global_step", "pytorch-lightning_version", "hyper_parameters", "Data"] {
        assert_eq!(slim.value(key).unwrap(), other.value(key).unwrap(), "{key}");
    }
    assert!(slim.torch().weights_only().unwrap().is_empty());
    // Slimming it again changes nothing, not even the pickle.
    let plan = other.slim(&SlimOptions::new()).unwrap();
    assert!(plan.report.removed.is_empty());
    let again = written(&plan.layout).torch().pickle().unwrap();
    assert!(again.is_some() && again == other.torch().pickle().unwrap());
}

#[test]
fn keys_of_every_release() {
    for (name, removed) in [
        (
            "ema.ckpt",
            &[
                "callbacks",
                "optimizer_states",
                "lr_schedulers",
                "current_model_state",
                "averaging_state",
            ][..],
        ),
        (
            "mixed_precision.ckpt",
            &["callbacks", "optimizer_states", "lr_schedulers", "MixedPrecision"],
        ),
        (
            "keys_1_9.ckpt",
            &["callbacks", "optimizer_states", "lr_schedulers", "MixedPrecisionPlugin"],
        ),
        (
            "keys_1_4.ckpt",
            &["callbacks", "optimizer_states", "lr_schedulers", "native_amp_scaling_state"],
        ),
        (
            "keys_0_7.ckpt",
            &[
                "checkpoint_callback_best",
                "early_stop_callback_wait",
                "early_stop_callback_patience",
                "optimizer_states",
                "lr_schedulers",
            ],
        ),
        ("weights_only.ckpt", &[]),
    ] {
        let (plan, ckpt) = slim(name, |_| {});
        assert_eq!(keys(&plan.report.removed), removed, "{name}");
        let source = open(name);
        assert_eq!(ckpt.hyper_parameters().unwrap(), source.hyper_parameters().unwrap());
        assert_eq!(ckpt.torch().container().name(), "zip");
        for (weight, tensor) in source.state_dict() {
            let found = ckpt.weight(weight).unwrap();
            assert_eq!(found.read().unwrap(), tensor.read().unwrap(), "{name}: {weight}");
        }
    }
}

#[test]
fn options() {
    let removed = |change: fn(&mut SlimOptions)| -> Vec<String> {
        let (plan, _) = slim("sgd.ckpt", change);
        plan.report.removed.iter().map(|p| p.key.clone()).collect()
    };
    assert_eq!(removed(|_| {}), ["callbacks", "optimizer_states", "lr_schedulers"]);
    assert_eq!(removed(|o| o.callbacks = true), ["optimizer_states", "lr_schedulers"]);
    assert_eq!(
        removed(|o| (o.loops, o.hyper_parameters, o.extra) = (false, false, false)),
        [
            "loops",
            "callbacks",
            "optimizer_states",
            "lr_schedulers",
            "hparams_name",
            "hyper_parameters",
            "datamodule_hparams_name",
            "datamodule_hyper_parameters",
            "Data",
            "extra",
        ]
    );
    assert_eq!(
        removed(|o| {
            o.extra = false;
            o.keep = vec!["extra".into(), "optimizer_states".into()];
            o.drop = vec!["loops".into()];
        }),
        ["loops", "callbacks", "lr_schedulers", "Data"]
    );
}

#[test]
fn options_that_cannot_be() {
    let refused = |change: fn(&mut SlimOptions)| {
        let mut options = SlimOptions::new();
        change(&mut options);
        let e = open("sgd.ckpt").slim(&options).unwrap_err();
        (e.kind(), e.to_string())
    };
    let (kind, text) = refused(|o| o.drop = vec!["optimizer".into()]);
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("\"optimizer\"") && text.contains("there are: epoch"), "{text}");
    let (kind, text) = refused(|o| o.drop = vec!["state_dict".into()]);
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(text.contains("loads no checkpoint"), "{text}");
    let (kind, _) = refused(|o| (o.keep, o.drop) = (vec!["extra".into()], vec!["extra".into()]));
    assert_eq!(kind, ErrorKind::InvalidArgument);
    let (kind, text) = refused(|o| o.dtype = Some(Dtype::I64));
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(text.contains("I64"), "{text}");
}

#[test]
fn weights_are_cast_and_nothing_else() {
    let (plan, ckpt) = slim("tied.ckpt", |o| {
        o.dtype = Some(Dtype::Bf16);
        o.keep = vec!["optimizer_states".into()];
    });
    let source = open("tied.ckpt");
    let cast: Vec<&str> = plan.report.cast.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(cast.len(), source.state_dict().count());
    for (name, tensor) in source.state_dict() {
        let expected = tensor.cast(Dtype::Bf16).unwrap().read().unwrap();
        let found = ckpt.weight(name).unwrap();
        assert_eq!((found.dtype(), found.read().unwrap()), (Dtype::Bf16, expected), "{name}");
    }
    let tied = |a: &str, b: &str| ckpt.weight(a).unwrap().is_tied_with(&ckpt.weight(b).unwrap());
    assert!(tied("net.embed.weight", "net.head.weight"));
    let moment = "optimizer_states.0.state.0.exp_avg";
    assert_eq!(ckpt.tensor(moment).unwrap().dtype(), Dtype::F32);
    // Integers stay; a type that they have already costs nothing.
    let (plan, ckpt) = slim("adam.ckpt", |o| o.dtype = Some(Dtype::F16));
    assert_eq!(ckpt.weight("net.norm.num_batches_tracked").unwrap().dtype(), Dtype::I64);
    assert!(plan.report.not_cast.is_empty());
    let (plan, _) = slim("bf16.ckpt", |o| o.dtype = Some(Dtype::Bf16));
    assert!(plan.report.cast.is_empty());
}

#[test]
fn slim_and_plain_at_once() {
    let (plan, ckpt) =
        slim("hparams_omegaconf.ckpt", |o| o.sanitize = Some(SanitizeOptions::new()));
    assert_eq!(plan.report.changes[0].path, "hyper_parameters");
    assert!(ckpt.torch().weights_only().unwrap().is_empty());
    assert_eq!(ckpt.hparams_type().as_deref(), Some("omegaconf.dictconfig.DictConfig"));
    let (_, ckpt) = slim("hparams_omegaconf.ckpt", |_| {});
    assert!(!ckpt.torch().weights_only().unwrap().is_empty());
}

/// A weight that is no plain tensor is told of, not cast.
#[test]
fn what_cannot_be_cast_stays() {
    let state =
        "ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n(I2\nt(I1\ntI00\ntR";
    let pickle = format!("(dVepoch\nI1\nsVglobal_step\nI2\nsVstate_dict\n(dVw\n{state}ss.");
    let section = ckptkit_core::Section::from_bytes(pickle.into_bytes(), "made.ckpt");
    let ckpt = LightningCkpt::from_section(&section).unwrap();
    let mut options = SlimOptions::new();
    options.dtype = Some(Dtype::F16);
    let report = ckpt.slim(&options).unwrap().report;
    assert_eq!(
        report.not_cast,
        [("state_dict.w".into(), "the meta tensor has no bytes of its own".into())]
    );
}
