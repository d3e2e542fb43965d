//! The programs that are run, and the inputs that they get.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cases::{Case, Place};
use super::mount::Mount;
use crate::{python, root};

/// The program as users have it, and `probe`, which measures inside one process.
pub(super) struct Tools {
    pub(super) program: PathBuf,
    pub(super) probe: PathBuf,
}

impl Tools {
    pub(super) fn build() -> Result<Self, String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let build = |args: &[&str]| {
            let mut command = Command::new(&cargo);
            command.args(["build", "--quiet", "--release"]).args(args).current_dir(root());
            python::call(&mut command)
        };
        build(&["--bin", "ckptkit"])?;
        build(&["-p", "ckptkit-tests", "--example", "probe"])?;
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root().join("target"), PathBuf::from)
            .join("release");
        Ok(Self { program: target.join("ckptkit"), probe: target.join("examples/probe") })
    }
}

/// Where everything is made.
pub(super) fn folder() -> PathBuf {
    root().join("target/bench")
}

/// The folder of inputs of one size.
pub(super) fn inputs(bytes: u64, tensors: u64) -> PathBuf {
    folder().join(format!("inputs-{bytes}-{tensors}"))
}

/// Has torch and the libraries beside it write what the cases read.
pub(super) fn make(folder: &Path, bytes: u64, tensors: u64, cases: &[&Case]) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut kinds = vec!["expected.json"];
    for case in cases {
        match case.place {
            Place::Here => kinds.push(case.source),
            Place::Shared => kinds.push("model.safetensors"),
        }
        kinds.extend(case.run.contains("model.nemo").then_some("model.nemo"));
    }
    kinds.sort_unstable();
    kinds.dedup();
    let mut command = Command::new(python::TORCH.python());
    command.args(["-W", "ignore"]).arg(root().join("xtask/python/bench_inputs.py")).arg(folder);
    command.args([bytes.to_string(), tensors.to_string()]).args(kinds);
    python::quiet(&mut command);
    python::call(&mut command)
}

/// What the cases on a shared file system read, written there by the program: aligned so that
/// ranges of a source and of an output lie alike in their blocks.
pub(super) fn align(mount: &Mount, inputs: &Path, tools: &Tools) -> Result<(), String> {
    let source = inputs.join("model.safetensors");
    for name in ["aligned.ckpt", "aligned.safetensors"] {
        let mut command = Command::new(&tools.program);
        command.args(["--quiet", "convert", "--align", "4096", "--overwrite"]);
        python::call(command.arg(&source).arg(mount.path().join(name)))?;
    }
    Ok(())
}
