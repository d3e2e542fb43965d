//! `lightning slim` and `lightning sanitize`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{fixture, json, refused, stdout};

fn names(rows: &serde_json::Value, field: &str) -> Vec<String> {
    rows.as_array().unwrap().iter().map(|r| r[field].as_str().unwrap().to_owned()).collect()
}

#[test]
fn slim_keeps_what_save_weights_only_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("slim.ckpt").display().to_string();
    let source = fixture("lightning/adam.ckpt");
    let report = json(&["lightning", "slim", &source, &to, "--json"]);
    let kept = names(&report["kept"], "key");
    for key in ["state_dict", "hyper_parameters", "epoch", "pytorch-lightning_version"] {
        assert!(kept.iter().any(|k| k == key), "{kept:?}");
    }
    let removed = names(&report["removed"], "key");
    for key in ["optimizer_states", "lr_schedulers", "callbacks"] {
        assert!(removed.iter().any(|k| k == key), "{removed:?}");
    }
    let digest = |path: &str| stdout(&["digest", "--weights", path]);
    assert_eq!(digest(&to), digest(&source));
    let half = dir.path().join("half.ckpt").display().to_string();
    let report = json(&["lightning", "slim", &source, &half, "--dtype", "bf16", "--json"]);
    assert!(!report["cast"].as_array().unwrap().is_empty());
    assert!(stdout(&["ls", "--weights", &half]).contains("BF16"));
    assert!(report["bytes"].as_u64() < report["source_bytes"].as_u64());
}

#[test]
fn sanitize_makes_plain_what_weights_only_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("plain.ckpt").display().to_string();
    let source = fixture("lightning/hparams_refused.ckpt");
    let dry = json(&["lightning", "sanitize", &source, &to, "--json", "--dry-run"]);
    assert!(!std::path::Path::new(&to).exists());
    let report = json(&["lightning", "sanitize", &source, &to, "--json"]);
    assert_eq!(report, dry);
    assert_eq!(report["unchanged"], false);
    assert!(report["changes"].as_array().unwrap().len() > 5, "{report}");
    // There is nothing left to change.
    let again = dir.path().join("again.ckpt").display().to_string();
    let report = json(&["lightning", "sanitize", &to, &again, "--json"]);
    assert_eq!(report["unchanged"], true, "{report}");
    let digest = |path: &str| stdout(&["digest", "--weights", path]);
    assert_eq!(digest(&again), digest(&source));
}

#[test]
fn a_taken_destination_is_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("taken").display().to_string();
    std::fs::write(&to, "mine").unwrap();
    for verb in ["slim", "sanitize"] {
        let line = refused(&["lightning", verb, "no/such/source", &to]);
        assert!(line.contains("exists already"), "{line}");
        let line = refused(&["lightning", verb, &fixture("nemo/ctc_bpe.nemo"), "nowhere.ckpt"]);
        assert!(line.contains("ctc_bpe.nemo"), "{line}");
    }
    assert_eq!(std::fs::read(&to).unwrap(), b"mine");
}
