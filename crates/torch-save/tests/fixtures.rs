//! The committed files that the real libraries wrote, against what those libraries say is in them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use ckptkit_core::TensorSource;
use serde_json::Value as Json;
use support::{json, sha256};
use torch_save::{Container, TorchFile};

/// A file and its manifest: every tensor's name, dtype, shape and bytes, ties, and all values.
fn check(path: &Path) {
    let manifest =
        path.with_file_name(format!("{}.json", path.file_name().unwrap().to_string_lossy()));
    let manifest: Json = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    let file = TorchFile::open(path).unwrap();
    let deflated = file.container() == Container::TorchScript && !cfg!(feature = "deflate");
    if file.container() != Container::TorchExport && !deflated {
        file.verify().unwrap();
    }
    let listed: Vec<[String; 4]> = file
        .tensors()
        .iter()
        .map(|e| {
            let t = e.tensor();
            let digest = if t.has_bytes() { sha256(&t.read().unwrap()) } else { "-".into() };
            [t.name().to_owned(), t.dtype().to_string(), format!("{:?}", t.shape()), digest]
        })
        .collect();
    let expected: Vec<[String; 4]> = manifest["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| {
            let text = |key: &str| t[key].as_str().unwrap_or("-").to_owned();
            let shape: Vec<u64> =
                t["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
            [text("name"), text("dtype"), format!("{shape:?}"), text("sha256")]
        })
        .collect();
    assert_eq!(listed, expected, "{}", path.display());
    assert!(file.failures().is_empty(), "{:?}", file.failures());

    for group in manifest["ties"].as_array().unwrap() {
        let names: Vec<&str> =
            group.as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
        let first = file.tensor(names[0]).unwrap();
        for name in &names[1..] {
            assert!(first.is_tied_with(&file.tensor(name).unwrap()), "{names:?}");
        }
    }
    if !manifest["values"].is_null() {
        let value = json::normalised(json::encode(&file.value(file.root()).unwrap()));
        let expected = json::normalised(manifest["values"].clone());
        if value != expected {
            panic!("{}:\n   found {value}\nexpected {expected}", path.display());
        }
    }
}

fn files(group: &str) -> BTreeMap<String, std::path::PathBuf> {
    std::fs::read_dir(support::fixtures(group))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|p| p.is_file() && p.extension().is_none_or(|e| e != "json" && e != "md"))
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), p))
        .filter(|(name, _)| cfg!(feature = "export") || !name.ends_with(".pt2"))
        .filter(|(name, _)| {
            cfg!(feature = "deflate") || !(name.contains("deflate") || name.contains("inflates"))
        })
        .collect()
}

fn check_group(group: &str, least: usize) {
    let files = files(group);
    assert!(files.len() >= least, "{group}: {} files, expected {least}", files.len());
    let failed: Vec<&String> = files
        .iter()
        .filter(|(_, path)| std::panic::catch_unwind(|| check(path)).is_err())
        .map(|(name, _)| name)
        .collect();
    assert!(failed.is_empty(), "{group}: {failed:?}");
}

#[test]
fn torch_files_hold_what_torch_says() {
    check_group("torch", 55);
}

#[test]
fn lightning_files_hold_what_torch_says() {
    check_group("lightning", 13);
}

/// The error of opening a file and reading all its tensors; of checking it where `verify` is wanted.
fn first_error(path: &Path, verify: bool) -> Option<String> {
    let file = match TorchFile::open(path) {
        Ok(file) => file,
        Err(e) => return Some(e.to_string()),
    };
    if let Some((_, e)) = file.failures().first() {
        return Some(e.to_string());
    }
    let unreadable = file.tensors().iter().find_map(|e| e.tensor().read().err());
    let error = unreadable.or_else(|| if verify { file.verify().err() } else { None });
    error.map(|e| e.to_string())
}

#[test]
fn hostile_files_are_refused() {
    let files: Vec<_> = files("hostile")
        .into_iter()
        .filter(|(name, _)| name.ends_with(".pt") || name.ends_with(".ckpt"))
        .collect();
    assert!(files.len() >= 40, "{} files", files.len());
    for (name, path) in files {
        let manifest = path.with_file_name(format!("{name}.json"));
        let manifest: Json = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
        assert_eq!(manifest["refuse"], true, "{name}");
        let error = first_error(&path, manifest["by"] == "verify");
        let error = error.unwrap_or_else(|| panic!("{name} was read: {}", manifest["note"]));
        for words in manifest["mentions"].as_array().unwrap() {
            let words = words.as_str().unwrap();
            assert!(error.contains(words), "{name}: {words:?} is not in: {error}");
        }
    }
}
