//! The archives that NeMo itself has written, against what NeMo, torch and OmegaConf read from
//! them; where the workspace that holds them is at hand.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ckptkit_core::{ErrorKind, TensorSource};
use common::same;
use nemo_archive::{Config, NemoArchive, Value};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/nemo")
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn check(path: &Path, expected: &Json) {
    let at = path.display();
    let archive = match NemoArchive::open(path) {
        Err(e) if e.kind() == ErrorKind::Unsupported && e.to_string().contains("feature") => return,
        opened => opened.unwrap(),
    };
    let mut tensors = BTreeMap::new();
    for info in archive.infos() {
        let bytes = archive.tensor(info.name()).unwrap().read().unwrap();
        let shape = serde_json::to_string(info.shape()).unwrap();
        tensors
            .insert(info.name().to_owned(), format!("{} {shape} {}", info.dtype(), sha256(&bytes)));
    }
    for t in expected["tensors"].as_array().unwrap() {
        let text = |key: &str| t[key].as_str().unwrap();
        let wanted = format!("{} {} {}", text("dtype"), t["shape"], text("sha256"));
        assert_eq!(tensors.remove(text("name")).as_ref(), Some(&wanted), "{at}: {}", text("name"));
    }
    assert!(tensors.is_empty(), "{at}: {tensors:?}");
    for group in expected["ties"].as_array().unwrap() {
        let names: Vec<&str> =
            group.as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
        let tensor = |name: &str| archive.tensor(name).unwrap();
        assert!(tensor(names[0]).is_tied_with(&tensor(names[1])), "{at}: {names:?}");
    }
    let config = archive.config().unwrap();
    assert!(same(&config.value(), &expected["config"]), "{at}: {:#?}", config.value());
    let found: BTreeSet<(String, u64, String)> = (archive.artifacts().unwrap().iter())
        .map(|a| (a.name().to_owned(), a.size(), sha256(&a.entry().read(1 << 20).unwrap())))
        .collect();
    let wanted: BTreeSet<(String, u64, String)> =
        (expected["artifacts"].as_array().unwrap().iter())
            .map(|a| {
                let text = |key: &str| a[key].as_str().unwrap().to_owned();
                (text("name"), a["bytes"].as_u64().unwrap(), text("sha256"))
            })
            .collect();
    assert_eq!(found, wanted, "{at}");
    // Every text is where its span says.
    for (key, text) in config.strings() {
        let Some(span) = config.span(&key) else { continue };
        let spelled = &config.as_str()[span];
        let again = Config::parse(format!("a: {spelled}\n").as_bytes()).unwrap();
        assert_eq!(again.get("a"), Some(Value::Str(text.into())), "{at}: {key}: {spelled}");
    }
}

#[test]
fn archives_hold_what_their_writers_say() {
    let Ok(files) = std::fs::read_dir(fixtures()) else { return };
    let mut checked = 0;
    for path in files.map(|f| f.unwrap().path()) {
        let Some(name) = path.to_str().and_then(|p| p.strip_suffix(".json")) else { continue };
        // A plain safetensors directory lies there too.
        if !name.contains("speechlm2") {
            let expected = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            check(Path::new(name), &expected);
            checked += 1;
        }
    }
    assert!(checked > 0, "no manifests in {}", fixtures().display());
}

#[cfg(feature = "distcp")]
#[test]
fn a_distributed_checkpoint_is_read_inside_the_archive() {
    let Ok(archive) = NemoArchive::open(fixtures().join("dist_checkpoint.nemo")) else { return };
    let weights = archive.weights().unwrap();
    assert_eq!(weights.layout(), nemo_archive::WeightsLayout::Distributed);
    assert_eq!(weights.distributed().unwrap().variant(), "megatron");
    assert_eq!(archive.tensor("model.l0_qkv").unwrap().shape(), [8, 4]);
    // Its files are weights, not artifacts.
    let artifacts = archive.artifacts().unwrap();
    assert!(artifacts.iter().all(|a| !a.name().starts_with("model_weights")));
}
