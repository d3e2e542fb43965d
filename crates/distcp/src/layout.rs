//! Which directory is the checkpoint: itself, or what people hold that contains it.

use std::fs;
use std::path::{Path, PathBuf};

use ckptkit_core::{Error, Result};

/// Whether the names of a directory's files are those of a distributed checkpoint.
pub(crate) fn detect<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    names.into_iter().any(|n| n == ".metadata" || local_rank(n).is_some())
}

/// The rank in `__3.metadata`.
pub(crate) fn local_rank(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("__")?.strip_suffix(".metadata")?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// The rank in `__3_0.distcp`, whatever stands before it in the name.
pub(crate) fn data_rank(relative: &str) -> Option<u32> {
    let stem = relative.rsplit('/').next()?.strip_suffix(".distcp")?;
    let (front, count) = stem.rsplit_once('_')?;
    let (_, rank) = front.rsplit_once("__")?;
    count.parse::<u32>().ok()?;
    rank.parse().ok()
}

/// A checkpoint's directory and what lies beside it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) dir: PathBuf,
    /// NeMo 2's `context/`: the configuration and the tokenizer.
    pub(crate) context: Option<PathBuf>,
}

/// Finds the one checkpoint at or below `path`.
///
/// # Errors
/// `InvalidArgument`, listing them, when there are several; `NotFound` when there is none, with
/// what is there instead.
pub(crate) fn find(path: &Path) -> Result<Found> {
    if path.file_name().is_some_and(|n| n == ".metadata") && path.is_file() {
        return find(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")));
    }
    let names = list(path)?;
    if detect(names.iter().map(String::as_str)) {
        return Ok(found(path.to_path_buf()));
    }
    if let Some(e) = unfinished(path, &names) {
        return Err(e);
    }
    let mut inside = Vec::new();
    for name in &names {
        let dir = path.join(name);
        inside.extend(checkpoint_in(&dir).map(|dir| (name.clone(), dir)));
    }
    match &mut inside[..] {
        [] => Err(nothing_in(path, &names)),
        [(_, dir)] => Ok(found(std::mem::take(dir))),
        several => Err(choose(path, several)),
    }
}

fn checkpoint_in(dir: &Path) -> Option<PathBuf> {
    [dir.to_path_buf(), dir.join("weights")].into_iter().find(|dir| {
        dir.is_dir() && list(dir).is_ok_and(|names| detect(names.iter().map(String::as_str)))
    })
}

fn found(dir: PathBuf) -> Found {
    let beside = dir.file_name().is_some_and(|n| n == "weights");
    let candidates = [
        Some(dir.join("context")),
        dir.parent().filter(|_| beside).map(|parent| parent.join("context")),
    ];
    let context = candidates.into_iter().flatten().find(|context| context.is_dir());
    Found { dir, context }
}

fn unfinished(path: &Path, names: &[String]) -> Option<Error> {
    names.iter().any(|n| n == ".metadata.tmp").then(|| {
        Error::malformed("an unfinished save: there is .metadata.tmp, but no .metadata")
            .in_file(path)
            .hint("the program that saved it was stopped; use an earlier checkpoint")
    })
}

fn nothing_in(path: &Path, names: &[String]) -> Error {
    if let Some(e) = fs::read(path.join("metadata.json")).ok().and_then(|j| other_backend(&j)) {
        return e.in_file(path);
    }
    let error = Error::not_found("there is no .metadata: no distributed checkpoint").in_file(path);
    if names.iter().any(|n| n.ends_with(".safetensors")) {
        error.hint("it holds safetensors files: open it as safetensors")
    } else if names.iter().any(|n| n.ends_with(".distcp")) {
        error.hint("it holds data files only: the save did not finish, or .metadata was not copied (names with a dot are easily missed)")
    } else {
        error.hint("give the directory that holds .metadata")
    }
}

/// The error for a `metadata.json` of a backend that is another format.
pub(crate) fn other_backend(json: &[u8]) -> Option<Error> {
    let backend = crate::megatron::sharded_backend(json).filter(|b| b != "torch_dist")?;
    let e = Error::unsupported(format!(
        "a Megatron checkpoint of the backend {backend:?}, only torch_dist is read"
    ));
    Some(e.hint("convert it with Megatron-LM's tools/checkpoint/convert.py"))
}

fn choose(path: &Path, several: &[(String, PathBuf)]) -> Error {
    let latest = latest(path, several);
    let shown: Vec<String> = several
        .iter()
        .take(30)
        .map(|(name, _)| match &latest {
            Some(l) if l == name => format!("{name} (the latest)"),
            _ => name.clone(),
        })
        .collect();
    let more = several.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Error::invalid(format!(
        "{} checkpoints are in this directory: {}{more}",
        several.len(),
        shown.join(", ")
    ))
    .in_file(path)
    .hint("give the path of one of them")
}

/// The one that Megatron's tracker names, else that of the highest number.
fn latest(path: &Path, several: &[(String, PathBuf)]) -> Option<String> {
    let tracker = fs::read_to_string(path.join("latest_checkpointed_iteration.txt")).ok();
    let number = |name: &str| -> Option<u64> {
        let end = name.trim_end_matches(|c: char| !c.is_ascii_digit());
        let start = end.trim_end_matches(|c: char| c.is_ascii_digit());
        end[start.len()..].parse().ok()
    };
    if let Some(wanted) = tracker.as_deref().map(str::trim) {
        let named = several.iter().find(|(name, _)| {
            name == wanted || wanted.parse().is_ok_and(|n: u64| number(name) == Some(n))
        });
        if let Some((name, _)) = named {
            return Some(name.clone());
        }
    }
    // Steps of one run are named alike; numbers of unrelated names mean nothing to each other.
    let stem = |name: &str| name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
    if several.windows(2).any(|pair| stem(&pair[0].0) != stem(&pair[1].0)) {
        return None;
    }
    several
        .iter()
        .filter_map(|(name, _)| Some((number(name)?, name)))
        .max_by_key(|(n, _)| *n)
        .map(|(_, name)| name.clone())
}

fn list(path: &Path) -> Result<Vec<String>> {
    let fail = |e| Error::io("list the directory", e).in_file(path);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(fail)? {
        names.extend(entry.map_err(fail)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Every file below a directory, sorted; links are not followed.
pub(crate) fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    const MOST: usize = 100_000;
    let mut out = Vec::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(dir) = pending.pop() {
        let fail = |e| Error::io("list the directory", e).in_file(&dir);
        for entry in fs::read_dir(&dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if entry.file_type().map_err(fail)?.is_dir() {
                pending.push(entry.path());
            } else {
                out.push(entry.path());
            }
            if out.len() + pending.len() > MOST {
                return Err(Error::limit(format!("more than {MOST} files")).in_file(dir));
            }
        }
    }
    out.sort_unstable();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_in_names() {
        assert_eq!(local_rank("__12.metadata"), Some(12));
        assert_eq!(local_rank("__.metadata"), None);
        assert_eq!(local_rank("__+1.metadata"), None);
        assert_eq!(data_rank("__3_0.distcp"), Some(3));
        assert_eq!(data_rank("sub/model__3_1.distcp"), Some(3));
        assert_eq!(data_rank("__3.distcp"), None);
        assert_eq!(data_rank("x.bin"), None);
    }
}
