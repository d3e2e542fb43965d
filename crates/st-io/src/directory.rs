//! A directory that holds a checkpoint: its files by name, which of them are the checkpoint, and
//! what else lies beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ckptkit_core::{Error, ErrorKind, Result, Section};

use crate::index::Index;
use crate::options::OpenOptions;

/// Endings of weights in other formats: no side files of this one.
const OTHER_WEIGHTS: [&str; 9] =
    [".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".nemo", ".distcp"];

/// The files of one directory, listed once.
#[derive(Clone)]
pub(crate) struct Directory {
    path: PathBuf,
    names: BTreeSet<String>,
    options: OpenOptions,
}

/// Where in a directory the checkpoint is.
#[derive(Debug)]
pub(crate) enum Found {
    Single(String),
    Index(String),
    Numbered(Vec<String>),
    Dcp(PathBuf),
}

impl Directory {
    pub(crate) fn scan(path: &Path, options: &OpenOptions) -> Result<Self> {
        let fail = |e| Error::io("list the directory", e).in_file(path);
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            // A link counts as what it points to; one that points nowhere is not there.
            let is_file = fs::metadata(entry.path()).is_ok_and(|m| m.is_file());
            if let (true, Ok(name)) = (is_file, entry.file_name().into_string()) {
                names.insert(name);
            }
            if names.len() as u64 > options.limits.members {
                return Err(Error::limit("too many files in the directory").in_file(path));
            }
        }
        Ok(Self { path: path.to_path_buf(), names, options: options.clone() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The names that end in `.safetensors`, sorted.
    pub(crate) fn tensor_files(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).filter(|n| n.ends_with(".safetensors"))
    }

    /// Opens a file, which must lie in the directory even where its name is a link.
    pub(crate) fn open(&self, name: &str) -> Result<Section> {
        let path = self.path.join(name);
        if !self.options.follow_links && !stays_inside(&self.path, &path) {
            return Err(Error::denied("a symbolic link that leaves its directory")
                .in_file(path)
                .hint("open it with links followed if you trust where it points to"));
        }
        self.options.open(&path)
    }

    /// `config.json`.
    pub(crate) fn config(&self) -> Result<Option<Section>> {
        self.contains("config.json").then(|| self.open("config.json")).transpose()
    }

    /// The other files that belong to the model: not weights, not indexes, nothing hidden.
    pub(crate) fn artifacts(&self) -> Result<Vec<(String, Section)>> {
        self.names
            .iter()
            .filter(|n| {
                !n.starts_with('.')
                    && *n != "config.json"
                    && !n.ends_with(".safetensors")
                    && index_group(n).is_none()
                    && !n.ends_with(".bin.index.json")
                    && !OTHER_WEIGHTS.iter().any(|ending| n.ends_with(ending))
            })
            .map(|n| Ok((n.clone(), self.open(n)?)))
            .collect()
    }

    /// Which files are the checkpoint, and what should be said about the choice.
    pub(crate) fn choose(&self, notes: &mut Vec<String>) -> Result<Found> {
        self.choose_inner(notes).map_err(|e| e.in_file(&self.path))
    }

    fn choose_inner(&self, notes: &mut Vec<String>) -> Result<Found> {
        if let Some(name) = &self.options.select {
            return match name {
                n if !self.contains(n) => Err(Error::not_found(format!("there is no file {n:?}"))),
                n if index_group(n).is_some() => Ok(Found::Index(n.clone())),
                n => Ok(Found::Single(n.clone())),
            };
        }
        if let Some(dcp) = self.dcp_directory()? {
            if dcp != self.path && self.tensor_files().next().is_some() {
                notes.push(
                    "the pieces in sharded/ are read, not the consolidated files beside it: torch \
                     consolidates scalars to zeros"
                        .into(),
                );
            }
            return Ok(Found::Dcp(dcp));
        }
        let mut groups: BTreeMap<String, Group<'_>> = BTreeMap::new();
        for name in &self.names {
            if let Some(group) = index_group(name) {
                groups.entry(group).or_default().index = Some(name);
            } else if let Some(number) = numbered(name) {
                groups.entry(number.group).or_default().numbered.push(name);
            } else if let Some(stem) = name.strip_suffix(".safetensors") {
                groups.entry(stem.to_owned()).or_default().single = Some(name);
            }
        }
        if groups.is_empty() {
            return Err(Error::not_found("no safetensors files in this directory").hint(
                "expected model.safetensors, or model.safetensors.index.json with its shards",
            ));
        }
        self.pick(groups, notes)
    }

    fn pick(&self, groups: BTreeMap<String, Group<'_>>, notes: &mut Vec<String>) -> Result<Found> {
        let (mut candidates, rest): (BTreeMap<_, _>, BTreeMap<_, _>) =
            groups.into_iter().partition(|(_, g)| g.listed() || self.options.without_index);
        if candidates.is_empty() {
            let shards: Vec<&str> =
                rest.values().flat_map(|g| g.numbered.iter().copied()).collect();
            return Err(Error::not_found(format!(
                "no index lists the shards {}",
                some(shards.iter().copied())
            ))
            .hint(
                "fetch the missing .safetensors.index.json, or open with `without_index` to take \
                 the shards as they are numbered",
            ));
        }
        for group in rest.values() {
            notes.push(format!(
                "not read, no index lists them: {}",
                some(group.numbered.iter().copied())
            ));
        }
        if candidates.len() > 1 && !candidates.contains_key("model") {
            self.drop_shards_of_indexes(&mut candidates)?;
        }
        let chosen = match candidates.len() {
            1 => candidates.pop_first(),
            _ => candidates.remove_entry("model"),
        };
        let Some((_, group)) = chosen else {
            let names: Vec<&str> = candidates.values().map(Group::name).collect();
            return Err(Error::invalid(format!(
                "the directory holds {} checkpoints: {}",
                names.len(),
                names.join(", ")
            ))
            .hint("name the one that is wanted"));
        };
        if !candidates.is_empty() {
            let names: Vec<&str> = candidates.values().map(Group::name).collect();
            notes.push(format!(
                "{} is read, as transformers does; not read: {}",
                group.name(),
                names.join(", ")
            ));
        }
        match group {
            Group { single: Some(single), index, numbered } => {
                let left: Vec<&str> = index.iter().copied().chain(numbered).collect();
                if !left.is_empty() {
                    notes.push(format!(
                        "{single} is read, as transformers does; beside it and not read: {}: one \
                         of the two is stale",
                        some(left.iter().copied())
                    ));
                }
                Ok(Found::Single(single.to_owned()))
            }
            Group { index: Some(index), .. } => Ok(Found::Index(index.to_owned())),
            Group { numbered, .. } => {
                Ok(Found::Numbered(numbered.into_iter().map(str::to_owned).collect()))
            }
        }
    }

    /// A shard may be called anything, so what looks like a file of its own may be one.
    fn drop_shards_of_indexes(&self, candidates: &mut BTreeMap<String, Group<'_>>) -> Result<()> {
        let mut claimed = BTreeSet::new();
        for index in candidates.values().filter_map(|g| g.index) {
            claimed.extend(Index::read(&self.open(index)?, &self.options.limits)?.shards);
        }
        candidates.retain(|_, g| g.index.is_some() || !claimed.contains(g.name()));
        Ok(())
    }

    /// Where the pieces of torch's HF writer lie: here, or in `sharded/` below.
    fn dcp_directory(&self) -> Result<Option<PathBuf>> {
        let below = self.path.join("sharded");
        if below.is_dir() && (self.options.follow_links || stays_inside(&self.path, &below)) {
            let inner = Self::scan(&below, &self.options)?;
            if inner.names.iter().any(|n| dcp_shard(n).is_some()) {
                return Ok(Some(below));
            }
        }
        let here = self.names.iter().any(|n| dcp_shard(n).is_some());
        Ok(here.then(|| self.path.clone()))
    }
}

/// The files of one stem and variant.
#[derive(Default)]
struct Group<'a> {
    single: Option<&'a str>,
    index: Option<&'a str>,
    numbered: Vec<&'a str>,
}

impl<'a> Group<'a> {
    fn listed(&self) -> bool {
        self.single.is_some() || self.index.is_some()
    }
    fn name(&self) -> &'a str {
        self.single.or(self.index).or(self.numbered.first().copied()).unwrap_or_default()
    }
}

/// Whether `path` is in `root` once links are followed, or where the Hugging Face cache keeps the
/// content of its snapshots. What does not exist is refused later, as missing.
fn stays_inside(root: &Path, path: &Path) -> bool {
    if !fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_symlink()) {
        return true;
    }
    let (Ok(root), Ok(real)) = (fs::canonicalize(root), fs::canonicalize(path)) else {
        return true;
    };
    let cache = root.ancestors().find(|a| a.file_name().is_some_and(|n| n == "snapshots"));
    let blobs = cache.and_then(Path::parent).map(|repo| repo.join("blobs"));
    real.starts_with(&root) || blobs.is_some_and(|b| real.starts_with(b))
}

/// The place of a shard among its numbers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Numbered {
    /// Stem, and variant where there is one, joined by a dot.
    pub(crate) group: String,
    pub(crate) number: u64,
    pub(crate) of: u64,
}

/// Reads `model-00001-of-00002.safetensors`, `model.fp16-00001-of-00002.safetensors` and the older
/// `model-00001-of-00002.fp16.safetensors`.
pub(crate) fn numbered(name: &str) -> Option<Numbered> {
    let body = name.strip_suffix(".safetensors")?;
    if let Some((group, number, of)) = numbers(body) {
        return Some(Numbered { group: group.to_owned(), number, of });
    }
    let (body, variant) = body.rsplit_once('.')?;
    let (group, number, of) = numbers(body)?;
    Some(Numbered { group: format!("{group}.{variant}"), number, of })
}

/// Reads `shard-00001-model-00001-of-00002.safetensors`: the rank's number, and the rest.
pub(crate) fn dcp_shard(name: &str) -> Option<(u64, Numbered)> {
    let (shard, rest) = name.strip_prefix("shard-")?.split_once('-')?;
    Some((digits(shard)?, numbered(rest)?))
}

fn numbers(body: &str) -> Option<(&str, u64, u64)> {
    let (left, of) = body.rsplit_once("-of-")?;
    let (group, number) = left.rsplit_once('-')?;
    Some((group, digits(number)?, digits(of)?))
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// The stem, and variant, of an index: `model.safetensors.index.json`,
/// `model.safetensors.index.fp16.json`.
pub(crate) fn index_group(name: &str) -> Option<String> {
    let (stem, rest) = name.split_once(".safetensors.index.")?;
    match rest.strip_suffix("json")? {
        "" => Some(stem.to_owned()),
        variant => Some(format!("{stem}.{}", variant.strip_suffix('.')?)),
    }
}

/// The first few of many names.
pub(crate) fn some<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = names.len();
    let shown: Vec<&str> = names.take(5).collect();
    let more = count - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// Every shard that should be there and is not, in one error.
pub(crate) fn check_present(directory: &Directory, shards: &[String]) -> Result<()> {
    let missing: Vec<&str> =
        shards.iter().map(String::as_str).filter(|n| !directory.contains(n)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotFound,
        format!("{} of {} shards are missing: {}", missing.len(), shards.len(), missing.join(", ")),
    )
    .in_file(directory.path())
    .hint("fetch them; all shards that the index names must lie beside it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_names() {
        let parts = |n| numbered(n).map(|p| (p.group, p.number, p.of));
        assert_eq!(parts("model-00001-of-00002.safetensors"), Some(("model".into(), 1, 2)));
        let fp16 = Some(("model.fp16".into(), 1, 2));
        assert_eq!(parts("model.fp16-00001-of-00002.safetensors"), fp16);
        assert_eq!(parts("model-00001-of-00002.fp16.safetensors"), fp16);
        assert_eq!(parts("model.safetensors"), None);
        assert_eq!(parts("model-1-of-x.safetensors"), None);
        let (rank, rest) = dcp_shard("shard-00003-model-00001-of-00002.safetensors").unwrap();
        assert_eq!((rank, rest.number, rest.of), (3, 1, 2));
        assert!(dcp_shard("model-00001-of-00002.safetensors").is_none());
        assert_eq!(index_group("model.safetensors.index.json"), Some("model".into()));
        assert_eq!(index_group("model.safetensors.index.fp16.json"), Some("model.fp16".into()));
        assert_eq!(index_group("model.safetensors.indexjson"), None);
        assert_eq!(index_group("tokenizer.json"), None);
    }
}
