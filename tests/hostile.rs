//! Damaged, malicious and mistaken input of every format: an error in words, or the same content;
//! never a panic, and never anything left behind.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use ckptkit::{Checkpoint, Convert, CopyOptions, Error, ErrorKind, Existing, Json, Target, Tensor};
use ckptkit_tests::fixture::{self, Fixture, each};
use ckptkit_tests::manifest::TensorRow;
use ckptkit_tests::{copy, damage, sha256, tree};

/// What a checkpoint holds, in the order of names: tensors, and everything else as one text.
#[derive(Clone, Debug, PartialEq)]
struct Content {
    tensors: Vec<TensorRow>,
    others: String,
}

/// Reads everything that there is; gives the content, or every error on the way.
fn everything(path: &Path) -> Result<Content, Vec<Error>> {
    let checkpoint = Checkpoint::open(path).map_err(|e| vec![e])?;
    let mut errors: Vec<Error> = checkpoint.failures().iter().map(|(_, e)| e.clone()).collect();
    let mut tensors = Vec::new();
    for tensor in checkpoint.tensors() {
        match row(tensor) {
            Ok(row) => tensors.push(row),
            Err(e) => errors.push(e),
        }
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut others = String::new();
    let value = checkpoint.value("").map(|v| serde_json::to_string(&Json(&v)).unwrap());
    let config = checkpoint
        .config()
        .map(|c| c.map(|c| serde_json::to_string(&Json(&c.value)).unwrap()).unwrap_or_default());
    for text in [value, config] {
        match text {
            Ok(text) => others.push_str(&text),
            Err(e) => errors.push(e),
        }
    }
    for artifact in checkpoint.artifacts() {
        match artifact.section.read(1 << 24) {
            Ok(bytes) => others.push_str(&format!("{} {}", artifact.name, sha256(&bytes))),
            Err(e) => errors.push(e),
        }
    }
    let _ = checkpoint.summary();
    if errors.is_empty() { Ok(Content { tensors, others }) } else { Err(errors) }
}

fn row(tensor: &Tensor) -> Result<TensorRow, Error> {
    let tensor = tensor.resolve()?;
    let has_bytes = !matches!(tensor.bytes(), ckptkit::core::TensorBytes::None(_));
    Ok(TensorRow {
        name: tensor.name().to_owned(),
        dtype: tensor.dtype().name().to_owned(),
        shape: tensor.shape().to_vec(),
        sha256: if has_bytes { Some(sha256(&tensor.read()?)) } else { None },
    })
}

fn convert(path: &Path, to: &Path) -> Result<(), Error> {
    let checkpoint = Checkpoint::open(path)?;
    let plan = Convert::new(Target::SafetensorsDirectory).plan(&checkpoint, to)?;
    plan.write(Existing::Refuse, &CopyOptions::default())?;
    Ok(())
}

fn hostile() -> Vec<Fixture> {
    fixture::group("hostile", 120)
}

#[test]
fn hostile_files_are_refused_in_these_words() {
    each(&hostile(), |f| {
        let found = everything(&f.path);
        if f.manifest.by.is_some() {
            // Only the check for damage can tell.
            assert!(found.is_ok(), "{found:?}");
            return;
        }
        let errors = found.expect_err(&f.manifest.note);
        let words: Vec<String> = errors.iter().map(Error::to_string).collect();
        for word in &f.manifest.mentions {
            let said = words.iter().any(|w| w.contains(word));
            assert!(said, "{word:?} in {words:#?}");
        }
        let mut names = vec![f.path.file_name().unwrap().to_str().unwrap().to_owned()];
        if f.path.is_dir() {
            names.extend(tree(&f.path).into_keys());
        }
        for (e, text) in errors.iter().zip(&words) {
            assert!(names.iter().any(|n| text.contains(n)), "no file is named: {text}");
            assert!(e.kind() != ErrorKind::Cancelled && e.kind() != ErrorKind::InvalidArgument);
        }
    });
}

#[test]
fn a_conversion_of_a_hostile_file_leaves_nothing() {
    each(&hostile(), |f| {
        if f.manifest.by.is_some() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("neighbour"), "stays").unwrap();
        let before = tree(dir.path());
        let found = convert(&f.path, &dir.path().join("out"));
        assert!(found.is_err(), "it was converted");
        assert!(tree(dir.path()) == before);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    });
}

/// Small checkpoints of every format and container, and how far apart their cuts are.
const SMALL: [(&str, usize); 13] = [
    ("safetensors/reordered.safetensors", 1),
    ("safetensors/dtypes.safetensors", 7),
    ("safetensors/hf_tied", 61),
    ("safetensors/dcp_shards", 17),
    ("torch/minimal_members.pt", 5),
    ("torch/rezipped_deflate.pt", 11),
    ("torch/legacy_protocol_2.pt", 5),
    ("torch/tar_era.pt", 61),
    ("lightning/keys_1_9.ckpt", 31),
    ("nemo/bare_ustar.nemo", 53),
    ("nemo/gzip.nemo", 13),
    ("distcp/sharded_tensor", 61),
    ("distcp/zstd", 61),
];

/// A copy of a fixture that may be damaged.
fn patient(name: &str) -> (tempfile::TempDir, PathBuf, Content) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("patient");
    copy(&fixture::one(name).path, &path);
    let whole = everything(&path).unwrap();
    (dir, path, whole)
}

#[test]
fn every_truncation_is_an_error_or_loses_nothing() {
    for (name, step) in SMALL {
        let (_dir, path, whole) = patient(name);
        for file in damage::files(&path) {
            let mut refused = 0;
            damage::truncations(&file, step, |len| match everything(&path) {
                Err(errors) => {
                    refused += 1;
                    assert!(errors[0].to_string().len() > 20, "{name} cut to {len}: {errors:?}");
                }
                // Padding at the end.
                Ok(content) => assert_eq!(content.tensors, whole.tensors, "{name} cut to {len}"),
            });
            // What stands beside the tensors is not parsed.
            let beside = file.ends_with("generation_config.json");
            assert!(refused > 0 || beside, "{name} {}: nothing was noticed", file.display());
        }
        assert_eq!(everything(&path).unwrap(), whole, "{name}");
    }
}

#[test]
fn a_flipped_bit_is_an_error_or_another_value_and_never_a_panic() {
    for (name, _) in SMALL {
        let (_dir, path, whole) = patient(name);
        for file in damage::files(&path) {
            damage::flips(&file, 150, |at, mask| {
                let flipped = std::panic::catch_unwind(|| everything(&path).is_ok());
                assert!(flipped.is_ok(), "{name} {} byte {at} ^ {mask}", file.display());
            });
        }
        assert_eq!(everything(&path).unwrap(), whole, "{name}");
    }
}

#[test]
fn suffixes_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    for (name, suffix) in [
        ("nemo/ctc_char.nemo", "ckpt"),
        ("nemo/gzip.nemo", "safetensors"),
        ("lightning/adam.ckpt", "safetensors"),
        ("torch/state_dict.pt", "nemo"),
        ("torch/legacy_protocol_2.pt", "zip"),
        ("torch/tar_era.pt", "nemo"),
        ("torch/plain_p5.pkl", "json"),
        ("safetensors/dtypes.safetensors", "pt"),
        ("safetensors/aliases.safetensors", "json"),
        ("safetensors/hf_sharded", "distcp"),
        ("distcp/tp_2", "nemo"),
        ("nemo/unpacked", "safetensors"),
    ] {
        let f = fixture::one(name);
        let path = dir.path().join(format!("{}.{suffix}", name.replace('/', "_")));
        copy(&f.path, &path);
        let (right, wrong) = (Checkpoint::open(&f.path).unwrap(), Checkpoint::open(&path).unwrap());
        assert_eq!(right.format(), wrong.format(), "{name}");
        assert_eq!(everything(&path).unwrap(), everything(&f.path).unwrap(), "{name}");
    }
}

#[test]
fn what_is_no_checkpoint_is_told_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let text = b"Dear reader,\nthis is a letter and no checkpoint.\n";
    let html = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n";
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 12345\n";
    let files: [(&str, &[u8], &str); 12] = [
        ("text.txt", text, "text"),
        ("model.ckpt", html, "web page"),
        ("model.safetensors", pointer, "Git LFS"),
        ("config.json", b"{\"hidden_size\": 8, \"layers\": 2}", "index"),
        ("list.json", b"[1, 2, 3]", ""),
        ("empty.nemo", b"", "empty"),
        ("zeros.bin", &[0; 4096], ""),
        ("noise.bin", &[0xA7; 4096], ""),
        ("one.bin", b"x", ""),
        ("model.gguf", b"GGUF\x03\0\0\0", "GGUF"),
        ("array.npy", b"\x93NUMPY\x01\0v\0", "NumPy"),
        ("model.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
    ];
    for (name, bytes, _) in files {
        std::fs::write(at(name), bytes).unwrap();
    }
    std::fs::create_dir(at("empty")).unwrap();
    std::fs::create_dir(at("photos")).unwrap();
    std::fs::write(at("photos/cat.jpg"), b"\xFF\xD8\xFF").unwrap();
    let mut cases: Vec<(&str, &str)> = files.iter().map(|(n, _, word)| (*n, *word)).collect();
    cases.extend([("empty", "empty"), ("photos", "cat.jpg"), ("absent", "")]);
    let mut wrong = Vec::new();
    for (name, word) in cases {
        let error = Checkpoint::open(at(name)).unwrap_err();
        let expected = if name == "absent" { ErrorKind::NotFound } else { ErrorKind::Malformed };
        let told = error.to_string();
        let says_what_to_do = name == "absent" || told.contains("expected") || told.contains(';');
        if error.kind() != expected
            || !told.contains(name)
            || !told.contains(word)
            || !says_what_to_do
            || told.contains('\n')
        {
            wrong.push(format!("{name} ({:?}, {word:?}): {told}", error.kind()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_conversion_that_cannot_finish_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source.safetensors");
    copy(&fixture::one("safetensors/dtypes.safetensors").path, &source);
    let checkpoint = Checkpoint::open(&source).unwrap();
    for target in [Target::SafetensorsFile, Target::SafetensorsDirectory] {
        let to = dir.path().join("out");
        let plan = Convert::new(target).plan(&checkpoint, &to).unwrap();
        // Another program cuts the source while it is read.
        let whole = std::fs::read(&source).unwrap();
        std::fs::OpenOptions::new().write(true).open(&source).unwrap().set_len(900).unwrap();
        let error = plan.write(Existing::Refuse, &CopyOptions::default()).unwrap_err();
        assert!(error.to_string().contains("became shorter"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::write(&source, whole).unwrap();
        plan.write(Existing::Refuse, &CopyOptions::default()).unwrap();
        let refused = plan.write(Existing::Refuse, &CopyOptions::default()).unwrap_err();
        assert!(refused.to_string().contains("exists already"), "{refused}");
        plan.write(Existing::Replace, &CopyOptions::default()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        if to.is_dir() {
            std::fs::remove_dir_all(to).unwrap();
        } else {
            std::fs::remove_file(to).unwrap();
        }
    }
}
