//! `digest`: its lines, its JSON and the hash over the lines, computed again here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use std::fmt::Write as _;

use common::{fixture, json, manifest, run, stdout};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// The lines that the contract asks for, from what the real library read.
fn expected(rows: &[Value]) -> String {
    let mut rows: Vec<&Value> = rows.iter().collect();
    rows.sort_by_key(|t| t["name"].as_str().unwrap());
    rows.iter().fold(String::new(), |mut out, t| {
        let dims: Vec<String> =
            t["shape"].as_array().unwrap().iter().map(Value::to_string).collect();
        let shape = if dims.is_empty() { "-".to_owned() } else { dims.join("x") };
        let hash = t["sha256"].as_str().unwrap_or("-");
        let (dtype, name) = (t["dtype"].as_str().unwrap(), t["name"].as_str().unwrap());
        writeln!(out, "{hash} {dtype} {shape} {name}").unwrap();
        out
    })
}

#[test]
fn lines_and_the_hash_of_the_lines() {
    for name in [
        "torch/sparse.pt",
        "torch/views.pt",
        "torch/names.pt",
        "torch/meta.pt",
        "lightning/adam.ckpt",
        "nemo/ctc_bpe_bf16.nemo",
        "safetensors/shapes.safetensors",
        "safetensors/empty.safetensors",
        "distcp/mesh_2d",
    ] {
        let rows = manifest(name)["tensors"].as_array().unwrap().clone();
        let lines = expected(&rows);
        let whole = format!("sha256:{}", sha256(lines.as_bytes()));
        assert_eq!(stdout(&["digest", &fixture(name)]), format!("{lines}{whole}\n"), "{name}");
        let found = json(&["digest", "--json", &fixture(name)]);
        assert_eq!(found["digest"], whole, "{name}");
        assert_eq!(found["tensors"].as_object().unwrap().len(), rows.len());
        for t in &rows {
            let found = &found["tensors"][t["name"].as_str().unwrap()];
            for key in ["dtype", "shape", "sha256"] {
                assert_eq!(found[key], t[key], "{name} {t}");
            }
        }
    }
}

#[test]
fn one_digest_for_the_same_weights_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let whole = |args: &[&str]| stdout(args).lines().last().unwrap().to_owned();
    for name in ["nemo/rnnt_bpe.nemo", "lightning/tied.ckpt", "distcp/fsdp2_2", "torch/wrapped.pt"]
    {
        let to = dir.path().join(name.replace(['/', '.'], "_")).to_str().unwrap().to_owned();
        stdout(&["convert", "--quiet", &fixture(name), &to, "--max-shard-size", "1KB"]);
        let source = whole(&["digest", "--weights", &fixture(name)]);
        assert_eq!(source, whole(&["digest", "--weights", &to]), "{name}");
        assert_eq!(source, whole(&["digest", &to]), "{name}");
    }
}

#[test]
fn a_tensor_that_cannot_be_read_is_told_and_the_rest_printed() {
    let ran = run(&["digest", &fixture("hostile/st_dtype.safetensors")]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("F128"), "{}", ran.stderr);
    let ran = run(&["digest", "--json", &fixture("hostile/dcp_item_shape")]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["digest"], Value::Null);
    assert!(ran.stderr.contains("error: "), "{}", ran.stderr);
}
