//! What is judged after the clock has stopped: does an output hold the tensors of its source?

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::cases::{Check, LARGE};
use super::tools::Tools;
use crate::root;

/// SHA-256 of every weight by its name, for each dtype, as torch holds them.
pub(super) struct Expected(Value);

impl Expected {
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = crate::python::read(path)?;
        serde_json::from_str(&text).map(Self).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn tensors(&self, dtype: &str, prefix: &str) -> BTreeMap<String, (String, String)> {
        let known = self.0[dtype].as_object().into_iter().flatten();
        let hash = |v: &Value| (dtype.to_owned(), v.as_str().unwrap_or_default().to_owned());
        known.map(|(name, v)| (format!("{prefix}{name}"), hash(v))).collect()
    }
}

/// Compares an output with what torch holds; `prefix` is what a peer puts before names.
pub(super) fn output(
    check: Check,
    prefix: Option<&str>,
    path: &Path,
    expected: &Expected,
    tools: &Tools,
) -> Result<(), String> {
    let wanted = match check {
        Check::Nothing => return Ok(()),
        Check::Weights(dtype, before) => expected.tensors(dtype, prefix.unwrap_or(before)),
        Check::Archive(dtype) => {
            if prefix.is_none() {
                checksums(path)?;
            }
            expected.tensors(dtype, prefix.unwrap_or(""))
        }
        Check::One => {
            let mut all = expected.tensors("F32", "");
            all.retain(|name, _| name == LARGE);
            all
        }
    };
    let found = tensors(path, tools)?;
    if wanted.is_empty() {
        return Err("nothing is known of the tensors that must come".to_owned());
    }
    if found.len() != wanted.len() {
        return Err(format!("{} tensors came, {} must", found.len(), wanted.len()));
    }
    match wanted.iter().find(|(name, tensor)| found.get(*name) != Some(tensor)) {
        Some((name, _)) if found.contains_key(name) => Err(format!("{name} has other values")),
        Some((name, _)) => Err(format!("{name} is missing")),
        None => Ok(()),
    }
}

/// Dtype and SHA-256 of every weight, as the program reads them.
pub(super) fn tensors(
    path: &Path,
    tools: &Tools,
) -> Result<BTreeMap<String, (String, String)>, String> {
    let mut command = Command::new(&tools.program);
    command.args(["--quiet", "digest", "--weights", "--json"]).arg(path);
    let out = command.output().map_err(|e| format!("{}: {e}", tools.program.display()))?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).trim().to_owned());
    }
    let said: Value = serde_json::from_slice(&out.stdout).map_err(|e| format!("digest: {e}"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let tensors = said["tensors"].as_object().into_iter().flatten();
    Ok(tensors.map(|(n, t)| (n.clone(), (text(&t["dtype"]), text(&t["sha256"])))).collect())
}

fn checksums(path: &Path) -> Result<(), String> {
    let mut command = Command::new(crate::python::TORCH.python());
    command.arg(root().join("xtask/python/bench_crcs.py")).arg(path);
    let out = command.output().map_err(|e| format!("bench_crcs.py: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(said.lines().last().unwrap_or("wrong checksums").to_owned())
}
