//! Running the built program.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, unreachable_pub, reason = "test helpers")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// What a run gave.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The program, ready to be run.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ckptkit"))
}

/// Runs it with these arguments.
pub fn run(args: &[&str]) -> Ran {
    from(program().args(args).output().unwrap())
}

pub fn from(out: Output) -> Ran {
    Ran {
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// A run that must succeed without a word on stderr; gives its stdout.
#[track_caller]
pub fn stdout(args: &[&str]) -> String {
    let ran = run(args);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args:?}");
    ran.stdout
}

/// The JSON of a run that must succeed.
#[track_caller]
pub fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(args)).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

/// A run that must fail with 2 and one line on stderr, which it gives.
#[track_caller]
pub fn refused(args: &[&str]) -> String {
    let ran = run(args);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{args:?} {}", ran.stderr);
    let line = ran.stderr.strip_suffix('\n').unwrap_or(&ran.stderr).to_owned();
    assert!(line.starts_with("error: ") && !line.contains('\n'), "{line}");
    line
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// The path of a committed fixture.
pub fn fixture(name: &str) -> String {
    let path = fixtures().join(name);
    assert!(path.exists(), "the fixture {name} is missing");
    path.to_str().unwrap().to_owned()
}

/// What the real library read from it.
pub fn manifest(name: &str) -> Value {
    let text = std::fs::read(fixtures().join(format!("{name}.json"))).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Every file below a directory with its bytes.
pub fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// The names of a directory's entries.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// A safetensors file of so many tensors of zeros, nearly all hole.
pub fn sparse(path: &Path, tensors: u64, bytes_each: u64) {
    let entry = |i: u64| {
        let (start, end) = (i * bytes_each, (i + 1) * bytes_each);
        let name = format!("encoder.layers.{}.part_{}.weight", i / 10, i % 10);
        format!(
            r#""{name}":{{"dtype":"U8","shape":[{bytes_each}],"data_offsets":[{start},{end}]}}"#
        )
    };
    let header = format!("{{{}}}", (0..tensors).map(entry).collect::<Vec<_>>().join(","));
    let start = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    std::fs::write(path, &start).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(start.len() as u64 + tensors * bytes_each).unwrap();
}
