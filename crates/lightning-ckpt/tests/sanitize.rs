//! Checkpoints made plain say what they said before.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use ckptkit_core::{CopyOptions, Existing, Layout, Section};
use lightning_ckpt::LightningCkpt;
use lightning_ckpt::optimizer::ParameterNames;
use torch_save::Value;
use torch_save::sanitize::{SanitizeOptions, Sanitized};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/lightning")
}

fn written(plan: &Sanitized) -> LightningCkpt {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plain.ckpt");
    let layout = Layout::file(plan.layout.clone());
    layout.write(&path, Existing::Refuse, &CopyOptions::default()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    LightningCkpt::from_section(&Section::from_bytes(bytes, "plain")).unwrap()
}

#[test]
fn every_getter_says_the_same() {
    let mut files = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "ckpt") {
            continue;
        }
        let before = LightningCkpt::open(&path).unwrap();
        let plan = before.sanitize(&SanitizeOptions::new()).unwrap();
        let after = written(&plan);
        let name = path.display();
        assert!(after.torch().weights_only().unwrap().is_empty(), "{name}");
        assert_eq!(
            plan.report.is_empty(),
            before.torch().weights_only().unwrap().is_empty(),
            "{name}"
        );
        assert_eq!(after.training(), before.training(), "{name}");
        assert_eq!(after.lightning_version(), before.lightning_version());
        assert_eq!(after.loops().unwrap(), before.loops().unwrap());
        assert_eq!(after.precision().unwrap(), before.precision().unwrap());
        assert_eq!(after.callbacks().unwrap(), before.callbacks().unwrap());
        assert_eq!(after.hparams_name(), before.hparams_name());
        assert_eq!(after.hparams_type(), before.hparams_type());
        for (weight, tensor) in before.state_dict() {
            let found = after.weight(weight).unwrap();
            assert_eq!(found.read().unwrap(), tensor.read().unwrap(), "{name}: {weight}");
        }
        let names = |ckpt: &LightningCkpt| -> Vec<Vec<Option<String>>> {
            let views = ckpt.optimizers(&ParameterNames::Find).unwrap();
            let each = |v: &lightning_ckpt::optimizer::OptimizerView| {
                v.parameters().iter().map(|p| p.name.clone()).collect()
            };
            views.iter().map(each).collect()
        };
        assert_eq!(names(&after), names(&before), "{name}");
        files += 1;
    }
    assert!(files >= 19, "{files} files");
}

/// The plain form of the values is what is in the file then.
#[test]
fn hyper_parameters_are_their_plain_form() {
    for name in ["hparams_namespace.ckpt", "hparams_omegaconf.ckpt", "keys_1_4.ckpt"] {
        let before = LightningCkpt::open(fixtures().join(name)).unwrap();
        let after = written(&before.sanitize(&SanitizeOptions::new()).unwrap());
        let plain = |ckpt: &LightningCkpt| ckpt.hyper_parameters().unwrap().unwrap();
        assert_eq!(plain(&after), plain(&before).into_plain(), "{name}");
        assert!(matches!(plain(&after), Value::Dict(_)));
    }
}
