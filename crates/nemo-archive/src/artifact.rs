//! Artifacts: the files that the config refers to, by `nemo:NAME` or by base name.

use std::collections::HashMap;

use ckptkit_core::{EntryPath, Result, ResultExt, Section};

use crate::config::Config;
use crate::entry::Entry;
use crate::index::Index;
use crate::weights;

const SCHEME: &str = "nemo:";

/// A file of an archive besides its config and weights: a tokenizer, a vocabulary, a word list.
#[derive(Clone, Debug)]
pub struct Artifact<'a> {
    entry: &'a Entry,
    keys: Vec<String>,
}

impl<'a> Artifact<'a> {
    /// The member's normalised name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.entry.path().as_str()
    }

    /// The name of the file it was made from: without folder and the 32 hex digits that NeMo puts
    /// before it. Those are random; two saves never agree on them.
    #[must_use]
    pub fn base_name(&self) -> &'a str {
        without_digits(self.entry.path().file_name())
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.entry.size()
    }

    /// The member.
    #[must_use]
    pub fn entry(&self) -> &'a Entry {
        self.entry
    }

    /// The bytes where they lie.
    ///
    /// # Errors
    /// As [`Entry::section`].
    pub fn section(&self) -> Result<Section> {
        self.entry.section()
    }

    /// The dotted keys of the config that refer to it, in the order of the config.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Whether any key refers to it; loaders never open the others.
    #[must_use]
    pub fn is_referenced(&self) -> bool {
        !self.keys.is_empty()
    }
}

/// A name without the digits that NeMo puts before it.
pub(crate) fn without_digits(name: &str) -> &str {
    match name.split_at_checked(32) {
        Some((hex, rest)) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            rest.strip_prefix('_').filter(|r| !r.is_empty()).unwrap_or(name)
        }
        _ => name,
    }
}

/// All artifacts in the order of the archive.
pub(crate) fn list<'a>(index: &'a Index, config: &Config) -> Result<Vec<Artifact<'a>>> {
    let mut out: Vec<Artifact<'a>> = index
        .files()
        .filter(|e| is_artifact(index, e))
        .map(|entry| Artifact { entry, keys: Vec::new() })
        .collect();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut by_base: HashMap<&str, usize> = HashMap::new();
    for (i, artifact) in out.iter().enumerate() {
        places.insert(artifact.name(), i);
        by_base.entry(artifact.entry.path().file_name()).or_insert(i);
    }
    for (key, text) in config.strings() {
        let found = match uri(text) {
            Some(uri) => {
                let path = uri.within(|| format!("key {key}")).within(|| "model_config.yaml")?;
                places.get(path.as_str()).copied()
            }
            None => by_base.get(base_name(text)).copied(),
        };
        if let Some(i) = found {
            out[i].keys.push(key);
        }
    }
    Ok(out)
}

/// References of the config that name no member.
pub(crate) fn unresolved(index: &Index, config: &Config) -> Vec<(String, String)> {
    config
        .strings()
        .into_iter()
        .filter(|(_, text)| {
            text.starts_with(SCHEME) && !matches!(resolve(index, text), Ok(Some(_)))
        })
        .map(|(key, text)| (key, text.to_owned()))
        .collect()
}

/// The member that a value refers to.
pub(crate) fn resolve<'a>(index: &'a Index, text: &str) -> Result<Option<&'a Entry>> {
    if let Some(path) = uri(text) {
        return Ok(index.entry(&path?).filter(|e| !e.is_dir()));
    }
    let base = base_name(text);
    let mut files = index.files().filter(|e| is_artifact(index, e));
    Ok(files.find(|e| !base.is_empty() && e.path().file_name() == base))
}

pub(crate) fn uri(text: &str) -> Option<Result<EntryPath>> {
    text.strip_prefix(SCHEME).map(EntryPath::new)
}

/// Paths of configs come from any system.
pub(crate) fn base_name(text: &str) -> &str {
    text.rsplit(['/', '\\']).next().unwrap_or(text)
}

pub(crate) fn is_artifact(index: &Index, entry: &Entry) -> bool {
    let name = entry.path().as_str();
    index.config != Some(name) && !weights::is_part(index, entry)
}
