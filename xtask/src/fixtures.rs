//! `fixtures`: makes `tests/fixtures/` with the libraries that own the formats.
//!
//! Each fixture `PATH` (file or directory) has a manifest `PATH.json`. Everything is made below
//! `target/fixtures/` first; then it is copied, or with `--check` its manifests are compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::python::{self, Env};
use crate::{Outcome, root};

struct Generator {
    script: &'static str,
    env: &'static Env,
    /// The folder of `tests/fixtures/` that it fills.
    group: &'static str,
}

const fn generator(script: &'static str, env: &'static Env, group: &'static str) -> Generator {
    Generator { script, env, group }
}

static GENERATORS: &[Generator] = &[
    generator("make_torch_tensors", &python::TORCH, "torch"),
    generator("make_torch_objects", &python::TORCH, "torch"),
    generator("make_torch_containers", &python::TORCH, "torch"),
    generator("make_torch_old", &python::TORCH, "torch"),
    generator("make_lightning", &python::TORCH, "lightning"),
    generator("make_safetensors", &python::TORCH, "safetensors"),
    generator("make_distcp", &python::TORCH, "distcp"),
    generator("make_nemo", &python::NEMO, "nemo"),
    generator("make_nemo_quantized", &python::TORCH, "nemo"),
    generator("make_hostile_torch", &python::TORCH, "hostile"),
    generator("make_hostile_safetensors", &python::TORCH, "hostile"),
    generator("make_hostile_nemo", &python::TORCH, "hostile"),
    generator("make_hostile_distcp", &python::TORCH, "hostile"),
];

/// All fixtures together; they are cloned with the repository.
const MAX_BYTES: u64 = 6 << 20;

struct Options {
    check: bool,
    only: Vec<String>,
}

pub(crate) fn run(args: &[String]) -> Outcome {
    let options = options(args)?;
    let made = root().join("target/fixtures");
    let committed = root().join("tests/fixtures");
    if made.exists() {
        fs::remove_dir_all(&made).map_err(|e| format!("{}: {e}", made.display()))?;
    }
    fs::create_dir_all(&made).map_err(|e| format!("{}: {e}", made.display()))?;
    for generator in GENERATORS.iter().filter(|g| options.wants_group(g.group)) {
        generator.env.prepare()?;
        eprintln!("running {}", generator.script);
        generate(generator, &made, &committed, &options.only)?;
    }
    if find(&made)?.is_empty() {
        return Err(format!("no fixture is called {}", options.only.join(" or ")));
    }
    if options.check {
        compare(&made, &committed, &options)
    } else {
        copy(&made, &committed, &options)
    }
}

fn options(args: &[String]) -> Result<Options, String> {
    let mut options = Options { check: false, only: Vec::new() };
    let mut names = false;
    for arg in args {
        match arg.as_str() {
            "--check" => options.check = true,
            "--only" => names = true,
            name if names && !name.starts_with('-') => options.only.push(name.to_owned()),
            other => return Err(format!("{other:?} is not understood: [--check] [--only NAME…]")),
        }
    }
    if names && options.only.is_empty() {
        return Err("--only wants names, such as `torch` or `torch/views.pt`".to_owned());
    }
    Ok(options)
}

impl Options {
    fn wants_group(&self, group: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name.split('/').next() == Some(group))
    }

    fn wants(&self, name: &str) -> bool {
        let covers = |only: &String| {
            let only = only.trim_end_matches('/');
            name.strip_prefix(only).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.only.is_empty() || self.only.iter().any(covers)
    }
}

fn generate(generator: &Generator, made: &Path, committed: &Path, only: &[String]) -> Outcome {
    let script = root().join("xtask/python").join(format!("{}.py", generator.script));
    let mut command = Command::new(generator.env.python());
    command.args(["-W", "ignore"]).arg(script).arg(made).arg(committed).args(only);
    command.current_dir(made);
    python::quiet(&mut command);
    python::call(&mut command)
}

/// Fixtures below `base`: name to path. A directory beside its manifest is one fixture.
fn find(base: &Path) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![base.to_owned()];
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        for entry in entries {
            let path = entry.map_err(|e| format!("{}: {e}", dir.display()))?.path();
            let name = path.strip_prefix(base).unwrap_or(&path).to_string_lossy().into_owned();
            if manifest_of(&path).exists() {
                found.insert(name, path);
            } else if path.is_dir() {
                open.push(path);
            } else if !name.ends_with(".json") || !path.with_extension("").exists() {
                return Err(format!("{} has no manifest {name}.json", path.display()));
            }
        }
    }
    Ok(found)
}

fn manifest_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

/// `--check`: equal manifests, nothing missing on either side.
fn compare(made: &Path, committed: &Path, options: &Options) -> Outcome {
    let (made, committed) = (find(made)?, find(committed)?);
    let mut wrong = Vec::new();
    for (name, path) in &made {
        let Some(known) = committed.get(name) else {
            wrong.push(format!("{name} is not committed"));
            continue;
        };
        let (new, old) = (python::read(&manifest_of(path))?, python::read(&manifest_of(known))?);
        if let Some(difference) = difference(&old, &new) {
            wrong.push(format!("{name} differs\n{difference}"));
        }
    }
    for name in committed.keys().filter(|name| options.wants(name) && !made.contains_key(*name)) {
        wrong.push(format!("{name} is committed, but nothing makes it"));
    }
    if wrong.is_empty() {
        eprintln!("{} fixtures are as committed", made.len());
        return Ok(());
    }
    Err(format!("{}\nrun `cargo xtask fixtures` and look at what changed", wrong.join("\n")))
}

/// The first line that differs.
fn difference(old: &str, new: &str) -> Option<String> {
    if old == new {
        return None;
    }
    let short =
        |line: Option<&str>| line.unwrap_or("(nothing)").chars().take(200).collect::<String>();
    let (mut old, mut new) = (old.lines(), new.lines());
    loop {
        let (was, is) = (old.next(), new.next());
        if was != is || was.is_none() {
            return Some(format!("  committed: {}\n  now:       {}", short(was), short(is)));
        }
    }
}

fn copy(made: &Path, committed: &Path, options: &Options) -> Outcome {
    fs::create_dir_all(committed).map_err(|e| format!("{}: {e}", committed.display()))?;
    for (name, path) in find(committed)? {
        if options.wants(&name) {
            remove(&path)?;
            remove(&manifest_of(&path))?;
        }
    }
    let fresh = find(made)?;
    for (name, path) in &fresh {
        let target = committed.join(name);
        copy_tree(path, &target)?;
        copy_tree(&manifest_of(path), &manifest_of(&target))?;
    }
    let bytes = size(committed)?;
    eprintln!("{} fixtures written, {} KiB in all", fresh.len(), bytes >> 10);
    if bytes > MAX_BYTES {
        return Err(format!(
            "tests/fixtures holds {bytes} bytes, more than {MAX_BYTES}: make some smaller"
        ));
    }
    Ok(())
}

fn remove(path: &Path) -> Outcome {
    let done = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    done.map_err(|e| format!("{}: {e}", path.display()))
}

fn children(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(dir).and_then(|all| all.map(|e| e.map(|e| e.path())).collect());
    entries.map_err(|e: std::io::Error| format!("{}: {e}", dir.display()))
}

fn copy_tree(from: &Path, to: &Path) -> Outcome {
    let error = |e: std::io::Error| format!("{}: {e}", to.display());
    if !from.is_dir() {
        fs::create_dir_all(to.parent().unwrap_or(to)).map_err(error)?;
        return fs::copy(from, to).map(drop).map_err(error);
    }
    fs::create_dir_all(to).map_err(error)?;
    for path in children(from)? {
        copy_tree(&path, &to.join(path.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

fn size(path: &Path) -> Result<u64, String> {
    if path.is_dir() {
        return children(path)?.iter().map(|child| size(child)).sum();
    }
    fs::metadata(path).map(|m| m.len()).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_a_fixture_or_a_folder() {
        let options = Options { check: false, only: vec!["torch/views.pt".into(), "nemo/".into()] };
        assert!(options.wants("torch/views.pt"));
        assert!(!options.wants("torch/views.pt2"));
        assert!(options.wants("nemo/a.nemo"));
        assert!(options.wants_group("torch"));
        assert!(!options.wants_group("distcp"));
    }

    #[test]
    fn a_difference_shows_its_line() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        let shown = difference("a\nb\n", "a\nc\n").unwrap();
        assert!(shown.contains("committed: b") && shown.contains("now:       c"));
        assert!(difference("a\n", "a\nb\n").unwrap().contains("(nothing)"));
    }

    #[test]
    fn options_are_checked() {
        let args = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        assert!(options(&args(&["--check", "--only", "torch"])).is_ok_and(|o| o.check));
        assert!(options(&args(&["--only"])).is_err());
        assert!(options(&args(&["torch"])).is_err());
    }
}
