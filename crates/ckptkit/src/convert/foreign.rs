//! What must not be lost when a directory is replaced.

use std::collections::HashSet;
use std::path::Path;

use ckptkit_core::{Error, Layout, Result};

use crate::checkpoint::Checkpoint;

/// Refuses to replace a directory with anything in it that no checkpoint has. What a reader takes
/// for an artifact proves nothing: that is every file beside the tensors.
pub(super) fn nothing_foreign(directory: &Path, layout: &Layout) -> Result<()> {
    let files = below(directory)?;
    if files.is_empty() {
        return Ok(());
    }
    Checkpoint::open(directory).map_err(|e| {
        Error::denied(format!(
            "the directory is not replaced, since it holds no checkpoint ({})",
            e.message()
        ))
        .in_file(directory)
        .hint("choose another destination")
    })?;
    let written: HashSet<&str> =
        layout.files().filter_map(|(path, _)| path.map(|p| p.as_str())).collect();
    match files.iter().find(|name| !belongs(name) && !written.contains(name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Error::denied(format!(
            "the directory is not replaced, since {name} in it belongs to no checkpoint"
        ))
        .in_file(directory)
        .hint("move it away, or choose another destination")),
    }
}

/// Every file below a directory, by its path from there, `/` between parts; a link is a file.
fn below(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut pending = vec![(directory.to_path_buf(), String::new())];
    while let Some((at, prefix)) = pending.pop() {
        if prefix.is_empty() && !at.is_dir() {
            break;
        }
        let io = |e| Error::io("list the directory", e).in_file(&at);
        for entry in std::fs::read_dir(&at).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().map_err(io)?.is_dir() {
                pending.push((entry.path(), name + "/"));
            } else {
                found.push(name);
            }
        }
    }
    Ok(found)
}

/// Whether a file of this name is one that writers of checkpoints put there.
fn belongs(path: &str) -> bool {
    const SUFFIXES: [&str; 8] = [
        ".safetensors",
        ".json",
        ".distcp",
        ".metadata",
        ".model",
        ".vocab",
        ".jinja",
        ".tiktoken",
    ];
    const NAMES: [&str; 7] = [
        "model_config.yaml",
        "model_weights.ckpt",
        "meta.pt",
        "common.pt",
        "README.md",
        "vocab.txt",
        "merges.txt",
    ];
    let name = path.rsplit('/').next().unwrap_or(path);
    // NeMo puts 32 hexadecimal digits before the name of an artifact.
    let nemo = name
        .split_once('_')
        .is_some_and(|(id, _)| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    nemo || NAMES.contains(&name) || SUFFIXES.iter().any(|s| name.ends_with(s))
}
