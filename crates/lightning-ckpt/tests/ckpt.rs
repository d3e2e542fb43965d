//! What the getters find, under the keys of every release, in pickles written by hand.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use ckptkit_core::{ErrorKind, Section};
use lightning_ckpt::{LightningCkpt, Version};
use torch_save::Value;

/// A pickle of protocol 0: a dict of keys and pickled values.
fn pickle(pairs: &[(&str, &str)]) -> Vec<u8> {
    let body: String = pairs.iter().map(|(k, v)| format!("V{k}\n{v}s")).collect();
    format!("(d{body}.").into_bytes()
}

fn check(pairs: &[(&str, &str)]) -> LightningCkpt {
    LightningCkpt::from_section(&Section::from_bytes(pickle(pairs), "test.ckpt")).unwrap()
}

/// What every release writes.
const BASE: [(&str, &str); 3] =
    [("epoch", "I3\n"), ("global_step", "I120\n"), ("state_dict", "(d")];

fn with(more: &[(&'static str, &'static str)]) -> LightningCkpt {
    check(&[&BASE, more].concat())
}

#[test]
fn a_checkpoint_of_today() {
    let ckpt = with(&[
        ("pytorch-lightning_version", "V2.6.1\n"),
        ("optimizer_states", "(l(dVstate\n(dsa(da"),
        ("lr_schedulers", "(l(dVlast_epoch\nI3\nsa"),
        ("callbacks", "(dVEarlyStopping{'monitor': 'val_loss'}\n(dVwait_count\nI1\nss"),
        ("loops", "(dVfit_loop\n(ds"),
        ("MixedPrecision", "(dVscale\nF1024.0\ns"),
        ("hparams_name", "Vkwargs\n"),
        ("hparams_type", "cargparse\nNamespace\n"),
        ("hyper_parameters", "(dVlr\nF0.1\ns"),
        ("datamodule_hparams_name", "Vcfg\n"),
        ("datamodule_hyper_parameters", "(dVbatch\nI8\ns"),
        ("MyData", "(dVseen\nI5\ns"),
        ("ema.decay", "F0.5\n"),
    ]);
    assert_eq!(ckpt.version(), Version::parse("2.6.1"));
    let training = ckpt.training();
    assert_eq!((training.epoch, training.global_step), (Some(3), Some(120)));
    assert_eq!((training.optimizers, training.lr_schedulers), (2, 1));
    assert_eq!(ckpt.optimizer_states().unwrap().len(), 2);
    assert_eq!(ckpt.lr_schedulers().unwrap()[0].get("last_epoch"), Some(&Value::Int(3)));
    let callbacks = ckpt.callbacks().unwrap();
    assert_eq!(callbacks[0].0, "EarlyStopping{'monitor': 'val_loss'}");
    assert_eq!(callbacks[0].1.get("wait_count"), Some(&Value::Int(1)));
    assert!(ckpt.loops().unwrap().unwrap().get("fit_loop").is_some());
    let precision = ckpt.precision().unwrap().unwrap();
    assert_eq!(
        (precision.key.as_str(), precision.state.get("scale")),
        ("MixedPrecision", Some(&Value::Float(1024.0)))
    );
    assert_eq!(ckpt.hparams_name(), Some("kwargs"));
    assert_eq!(ckpt.hparams_type().as_deref(), Some("argparse.Namespace"));
    assert_eq!(ckpt.datamodule_hparams_name(), Some("cfg"));
    assert!(ckpt.datamodule_hyper_parameters().unwrap().unwrap().get("batch").is_some());
    assert_eq!(ckpt.extra_keys(), ["MyData", "ema.decay"]);
    assert_eq!(ckpt.value("ema.decay").unwrap(), Some(Value::Float(0.5)));
    assert_eq!(ckpt.value("nothing").unwrap(), None);
}

#[test]
fn only_weights() {
    let ckpt = with(&[("pytorch-lightning_version", "V2.6.1\n")]);
    assert!(ckpt.optimizer_states().unwrap().is_empty());
    assert!(ckpt.lr_schedulers().unwrap().is_empty());
    assert!(ckpt.callbacks().unwrap().is_empty());
    assert_eq!(ckpt.loops().unwrap(), None);
    assert_eq!(ckpt.precision().unwrap(), None);
    assert_eq!(ckpt.hyper_parameters().unwrap(), None);
    assert_eq!(ckpt.training().optimizers, 0);
}

#[test]
fn keys_of_older_releases() {
    for key in ["hparams", "module_arguments", "hyper_parameters"] {
        let ckpt = check(&[&BASE[..], &[(key, "(dVlr\nF0.1\ns")]].concat());
        let lr = ckpt.hyper_parameters().unwrap().unwrap().get("lr").cloned();
        assert_eq!(lr, Some(Value::Float(0.1)), "{key}");
        assert!(ckpt.extra_keys().is_empty());
    }
    for key in ["native_amp_scaling_state", "amp_scaling_state", "MixedPrecisionPlugin"] {
        let ckpt = check(&[&BASE[..], &[(key, "(dVscale\nF2.0\ns")]].concat());
        assert_eq!(ckpt.precision().unwrap().unwrap().key, key);
    }
    let ckpt = with(&[("hparams_type", "VNamespace\n"), ("hparams", "(d")]);
    assert_eq!(ckpt.hparams_type().as_deref(), Some("Namespace"));
    assert_eq!(ckpt.lightning_version(), None);
}

#[test]
fn callbacks_of_older_releases() {
    // By their class until 1.4.
    let class = "cpytorch_lightning.callbacks.early_stopping\nEarlyStopping\n";
    let by_class = format!("(d{class}(dVwait_count\nI2\nss");
    let ckpt = check(&[&BASE[..], &[("callbacks", by_class.as_str())]].concat());
    let callbacks = ckpt.callbacks().unwrap();
    assert_eq!(callbacks[0].0, "pytorch_lightning.callbacks.early_stopping.EarlyStopping");
    // At the top before 0.10.
    let ckpt = with(&[
        ("checkpoint_callback_best", "F0.5\n"),
        ("early_stop_callback_wait", "I0\n"),
        ("early_stop_callback_patience", "I3\n"),
    ]);
    let expected = |fields: &[(&str, Value)]| {
        Value::Dict(fields.iter().map(|(k, v)| (Value::Str((*k).into()), v.clone())).collect())
    };
    assert_eq!(
        ckpt.callbacks().unwrap(),
        [
            ("ModelCheckpoint".into(), expected(&[("best_model_score", Value::Float(0.5))])),
            (
                "EarlyStopping".into(),
                expected(&[("wait_count", Value::Int(0)), ("patience", Value::Int(3))])
            ),
        ]
    );
    assert!(ckpt.extra_keys().is_empty());
}

#[test]
fn namespaces_become_plain() {
    // argparse.Namespace(lr=0.1, inner=Namespace(depth=2)), as protocol 0 builds objects.
    let object = |state: &str| {
        format!(
            "ccopy_reg\n_reconstructor\n(cargparse\nNamespace\nc__builtin__\nobject\nNtR{state}b"
        )
    };
    let inner = object("(dVdepth\nI2\ns");
    let outer = object(&format!("(dVlr\nF0.1\nsVinner\n{inner}s"));
    let ckpt = check(&[&BASE[..], &[("hyper_parameters", outer.as_str())]].concat());
    let value = ckpt.hyper_parameters().unwrap().unwrap();
    assert_eq!(value.get("inner.depth"), Some(&Value::Int(2)));
    assert!(matches!(value, Value::Object(_)));
    assert!(
        matches!(value.into_plain(), Value::Dict(pairs) if matches!(pairs[1].1, Value::Dict(_)))
    );
}

#[cfg(feature = "serde")]
#[test]
fn hyper_parameters_in_a_type() {
    #[derive(Debug, serde::Deserialize)]
    struct Hparams {
        lr: f64,
        layers: Vec<u32>,
    }
    let ckpt = with(&[("hyper_parameters", "(dVlr\nF0.1\nsVlayers\n(lI1\naI2\nas")]);
    let hparams: Hparams = ckpt.hyper_parameters_as().unwrap();
    assert_eq!((hparams.lr, hparams.layers), (0.1, vec![1, 2]));
    let ckpt = with(&[("hyper_parameters", "(dVlr\nF0.1\nsVlayers\n(lI-1\nas")]);
    let e = ckpt.hyper_parameters_as::<Hparams>().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument);
    assert!(e.to_string().starts_with("test.ckpt: hyper_parameters: layers: 0: "), "{e}");
    let e = with(&[]).hyper_parameters_as::<Hparams>().unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
}

#[test]
fn what_is_no_lightning_checkpoint() {
    for bytes in [
        pickle(&[("state_dict", "(d")]),
        pickle(&[("epoch", "I1\n"), ("model", "(d")]),
        b"(lI1\na.".to_vec(),
    ] {
        let e = LightningCkpt::from_section(&Section::from_bytes(bytes, "x.pt")).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(e.to_string().starts_with("x.pt: this is no Lightning checkpoint"), "{e}");
    }
    let e = LightningCkpt::from_section(&Section::from_bytes(*b"hello\n", "x")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Malformed);
    let e = with(&[]).weight("encoder.weight").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
}
