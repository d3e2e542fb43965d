//! `--allow-partial`: what is left of a distributed checkpoint, and what is said of the rest.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use common::{fixture, json, refused, run, stdout};
use serde_json::json as value;
use sha2::{Digest, Sha256};

const HALF: &str = "hostile/dcp_chunk_missing";

/// The hash of the weight whose second half is zeros.
fn half() -> String {
    let numbers = (0..6_i16).map(|i| f32::from((i * 37 + 11) % 251 - 125) / 64.0);
    let mut bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
    bytes.resize(48, 0);
    Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn without_it_the_conversion_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out.safetensors").to_str().unwrap().to_owned();
    let line = refused(&["convert", &fixture(HALF), &to]);
    assert!(line.contains("layer.weight") && line.contains("no chunk holds"), "{line}");
    assert!(line.contains("allow_partial"), "{line}");
    assert!(common::names(dir.path()).is_empty());
}

#[test]
fn every_verb_takes_it() {
    let path = fixture(HALF);
    let said = json(&["inspect", "--json", "--allow-partial", &path]);
    let warning =
        "layer.weight: no chunk holds 6 of 12 elements, from [2, 0] on; they are read as zeros";
    assert_eq!(said["warnings"], value!([warning]));
    let listed = json(&["ls", "--json", "--allow-partial", &path]);
    assert_eq!(listed["tensors"][0]["shape"], value!([4, 3]));
    let digest = json(&["digest", "--json", "--allow-partial", &path]);
    assert_eq!(digest["tensors"]["layer.weight"]["sha256"], value!(half()));
    let shown = json(&["show", "--json", "--allow-partial", &path, "layer.weight"]);
    assert!(shown.to_string().contains("0.0,0.0"), "{shown}");
    // Without it, the one tensor has no hash.
    let ran = run(&["digest", "--json", &path]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("allow_partial"), "{}", ran.stderr);
}

#[test]
fn a_conversion_lists_what_was_filled() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out.safetensors").to_str().unwrap().to_owned();
    let path = fixture(HALF);
    let args =
        ["convert", "--json", "--verify", "--allow-partial", "--add-prefix", "a.", &path, &to];
    let report = json(&args);
    assert_eq!(report["filled"], value!({"a.layer.weight": 6}));
    let note = report["notes"][0].as_str().unwrap();
    assert!(note.starts_with("layer.weight: no chunk holds 6 of 12"), "{note}");
    let digest = json(&["digest", "--json", &to]);
    assert_eq!(digest["tensors"]["a.layer.weight"]["sha256"], value!(half()));

    let to = dir.path().join("again.safetensors").to_str().unwrap().to_owned();
    let said = stdout(&["convert", "--allow-partial", &path, &to]);
    assert!(said.contains("zeros for what is missing: 6 elements of 1 tensor"), "{said}");
}

#[test]
fn what_is_whole_is_as_it_was() {
    for name in ["distcp/tp_2", "nemo/ctc_char.nemo", "lightning/adam.ckpt"] {
        let path = fixture(name);
        let plain = stdout(&["digest", "--json", &path]);
        assert_eq!(stdout(&["digest", "--json", "--allow-partial", &path]), plain, "{name}");
    }
}

/// The same checkpoint as the weights of a `.nemo` archive.
#[test]
fn inside_an_archive_it_is_read_so_too() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let weights = dir.path().join("unpacked/model_weights");
    std::fs::create_dir_all(&weights).unwrap();
    std::fs::write(dir.path().join("unpacked/model_config.yaml"), "target: a.B\n").unwrap();
    for file in std::fs::read_dir(fixture(HALF)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), weights.join(file.file_name())).unwrap();
    }
    stdout(&["nemo", "pack", &at("unpacked"), "-o", &at("half.nemo")]);
    for source in [at("unpacked"), at("half.nemo")] {
        let line = refused(&["convert", &source, &at("no.safetensors")]);
        assert!(line.contains("no chunk holds") && line.contains("allow_partial"), "{line}");
        let digest = json(&["digest", "--json", "--allow-partial", &source]);
        assert_eq!(digest["tensors"]["layer.weight"]["sha256"], value!(half()));
        let to = at("out.safetensors");
        let args = ["convert", "--json", "--overwrite", "--allow-partial", &source, &to];
        let report = json(&args);
        assert_eq!(report["filled"], value!({"layer.weight": 6}));
        assert!(report["notes"].to_string().contains("no chunk holds 6 of 12"), "{report}");
    }
}
