//! `interop`: writes with the program, and lets the real libraries load what it wrote.
//!
//! Each script below `xtask/python/` converts fixtures and runs of its own, loads the results with
//! the library that owns the format and compares value by value. It ends with lines
//! `judged LIBRARY COUNT`. The counts are held against `xtask/interop.txt`, so that a judge that
//! silently sees less than it did is a failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::python::{self, Env};
use crate::{Outcome, root};

struct Judge {
    name: &'static str,
    env: &'static Env,
}

static JUDGES: &[Judge] = &[
    Judge { name: "torch", env: &python::TORCH },
    Judge { name: "transformers", env: &python::TORCH },
    Judge { name: "lightning", env: &python::TORCH },
    Judge { name: "nemo", env: &python::NEMO },
    Judge { name: "speechlm2", env: &python::SPEECHLM2 },
    Judge { name: "distcp", env: &python::TORCH },
    Judge { name: "torch-old", env: &python::TORCH_OLD },
];

pub(crate) fn run(args: &[String]) -> Outcome {
    if let Some(unknown) = args.iter().find(|a| JUDGES.iter().all(|j| j.name != **a)) {
        let names: Vec<&str> = JUDGES.iter().map(|j| j.name).collect();
        return Err(format!("there is no judge {unknown:?}: {}", names.join(", ")));
    }
    let program = build()?;
    let scratch = root().join("target/interop");
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    }
    let mut judged: BTreeMap<String, u64> = BTreeMap::new();
    let mut failed = Vec::new();
    for judge in JUDGES.iter().filter(|j| args.is_empty() || args.iter().any(|a| a == j.name)) {
        judge.env.prepare()?;
        let scratch = scratch.join(judge.name);
        std::fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
        eprintln!("judging with {}", judge.name);
        match ask(judge, &program, &scratch) {
            Ok(counts) => {
                for (library, count) in counts {
                    *judged.entry(library).or_default() += count;
                }
            }
            Err(why) => failed.push(format!("{}: {why}", judge.name)),
        }
    }
    for (library, count) in &judged {
        println!("{count:>6} loads judged by {library}");
    }
    if args.is_empty() {
        failed.extend(too_few(&judged)?);
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

/// The program as users have it.
fn build() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    python::call(
        Command::new(cargo)
            .args(["build", "--quiet", "--release", "--bin", "ckptkit"])
            .current_dir(root()),
    )?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release").join(format!("ckptkit{}", std::env::consts::EXE_SUFFIX)))
}

/// Runs a judge; gives what it says it has judged.
fn ask(judge: &Judge, program: &Path, scratch: &Path) -> Result<Vec<(String, u64)>, String> {
    let name = judge.name.replace('-', "_");
    let script = root().join(format!("xtask/python/interop_{name}.py"));
    let mut command = Command::new(judge.env.python());
    command
        .args(["-W", "ignore"])
        .arg(script)
        .args([program, scratch, &root().join("tests/fixtures")])
        .current_dir(scratch)
        .stdout(Stdio::piped());
    python::quiet(&mut command);
    let shown = format!("{command:?}");
    let out = command.output().map_err(|e| format!("{shown} did not start: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let mut counts = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("judged ").and_then(|l| l.rsplit_once(' ')) {
            Some((library, count)) => {
                let count = count.parse().map_err(|_| format!("{line:?} has no count"))?;
                counts.push((library.to_owned(), count));
            }
            None => eprintln!("{line}"),
        }
    }
    if !out.status.success() {
        return Err(format!("ended with {}: {}", out.status, without_bars(&out.stderr)));
    }
    Ok(counts)
}

/// What a script said on its error output, but for the bars that libraries draw.
fn without_bars(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().filter(|l| !l.contains("%|") && !l.contains("UserWarning"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The libraries that judged fewer loads than `interop.txt` asks for.
fn too_few(judged: &BTreeMap<String, u64>) -> Result<Vec<String>, String> {
    let list = python::read(&root().join("xtask/interop.txt"))?;
    let mut wrong = Vec::new();
    for line in list.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let bad = || format!("interop.txt: {line:?} is no library and count");
        let (library, least) = line.rsplit_once(' ').ok_or_else(bad)?;
        let least: u64 = least.parse().map_err(|_| bad())?;
        let count = judged.get(library).copied().unwrap_or_default();
        if count < least {
            wrong.push(format!("{library} judged {count} loads, at least {least} are expected"));
        }
    }
    Ok(wrong)
}
