//! The committed fixtures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::manifest::Manifest;

/// The groups of readable fixtures, and how many each has at least: a test that silently finds
/// nothing to do would pass.
pub const GROUPS: [(&str, usize); 5] =
    [("torch", 65), ("lightning", 14), ("safetensors", 14), ("nemo", 22), ("distcp", 20)];

/// A checkpoint and what the real library read from it.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// `torch/views.pt`.
    pub name: String,
    /// The file or directory.
    pub path: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
}

/// The folder of all fixtures.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// One fixture by its name below the folder.
#[must_use]
pub fn one(name: &str) -> Fixture {
    let path = root().join(name);
    assert!(path.exists(), "the fixture {name} is missing");
    let text = std::fs::read(root().join(format!("{name}.json")))
        .unwrap_or_else(|e| panic!("the manifest of {name}: {e}"));
    let manifest =
        serde_json::from_slice(&text).unwrap_or_else(|e| panic!("the manifest of {name}: {e}"));
    // A folder of steps has to be asked for one of them; the manifest is that of each.
    let path = if name == "distcp/steps" { path.join("step-20") } else { path };
    Fixture { name: name.to_owned(), path, manifest }
}

/// All fixtures of a group; every entry that is no manifest must have one.
#[must_use]
pub fn group(group: &str, at_least: usize) -> Vec<Fixture> {
    let mut names: Vec<String> = std::fs::read_dir(root().join(group))
        .unwrap_or_else(|e| panic!("fixtures of {group}: {e}"))
        .map(|entry| entry.unwrap().path())
        .filter(|p| p.is_dir() || p.extension().is_none_or(|e| e != "json"))
        .map(|p| format!("{group}/{}", p.file_name().unwrap().to_str().unwrap()))
        .collect();
    names.sort();
    assert!(names.len() >= at_least, "{group}: {} fixtures, expected {at_least}", names.len());
    names.iter().map(|name| one(name)).collect()
}

/// The readable fixtures of every format.
#[must_use]
pub fn readable() -> Vec<Fixture> {
    GROUPS.iter().flat_map(|(name, at_least)| group(name, *at_least)).collect()
}

/// Runs a check on every fixture and fails with the names of all that failed.
pub fn each(fixtures: &[Fixture], check: impl Fn(&Fixture)) {
    let failed: Vec<&str> = fixtures
        .iter()
        .filter(|f| {
            let failed = catch_unwind(AssertUnwindSafe(|| check(f))).is_err();
            if failed {
                eprintln!("— in the fixture {}", f.name);
            }
            failed
        })
        .map(|f| f.name.as_str())
        .collect();
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), fixtures.len());
}
