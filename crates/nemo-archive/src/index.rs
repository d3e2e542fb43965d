//! The members of one archive, whatever holds them: checked against each other, found by name.

use std::collections::HashMap;
use std::path::Path;

use ckptkit_core::{EntryPath, Error, Result, Section};

use crate::detect::{self, Container};
use crate::directory;
use crate::entry::{Entry, Place};
use crate::limits::ArchiveLimits;
use crate::{plain_names, tar_walk, weights};

/// What holds the members of a [`NemoArchive`](crate::NemoArchive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Variant {
    /// A plain tar, read in place: what NeMo has written since 1.7.
    Tar,
    /// A tar inside gzip: NeMo before 1.7, and diarizers.
    Gzip,
    /// The files loose in a directory.
    Directory,
}

impl Variant {
    /// `tar`, `gzip` or `directory`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Gzip => "gzip",
            Self::Directory => "directory",
        }
    }
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

const V0_11_CONFIG: &str = "module.yaml";
const QUANTIZED_CONFIG: &str = "config.json";
const CONFIGS: [&str; 3] = ["model_config.yaml", V0_11_CONFIG, QUANTIZED_CONFIG];

/// Which of the members is the config of a model.
pub(crate) fn config_among<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    let (mut found, mut ranks) = ([false; 3], false);
    for name in names {
        for (seen, config) in found.iter_mut().zip(CONFIGS) {
            *seen |= name == config;
        }
        ranks |= weights::rank_of_file(name).is_some();
    }
    // Many things have a `config.json`; only one has ranks beside it.
    found[2] &= ranks;
    found.iter().zip(CONFIGS).find_map(|(seen, config)| seen.then_some(config))
}

/// Every member under its normalised name.
pub(crate) struct Index {
    pub(crate) variant: Variant,
    pub(crate) name: String,
    pub(crate) entries: Vec<Entry>,
    /// The config's member.
    pub(crate) config: Option<&'static str>,
    /// Whether one directory lay around everything.
    #[cfg_attr(not(feature = "write"), allow(dead_code, reason = "editors ask"))]
    pub(crate) unwrapped: bool,
    by_path: HashMap<EntryPath, usize>,
    pub(crate) notes: Vec<String>,
}

impl Index {
    pub(crate) fn of_section(section: &Section, limits: &ArchiveLimits) -> Result<Self> {
        let mut notes = Vec::new();
        let (variant, tar) = match detect::container(section)? {
            Container::Tar => (Variant::Tar, section.clone()),
            Container::Gzip => (Variant::Gzip, gunzip(section, limits, &mut notes)?),
        };
        let members = tar_walk::walk(&tar, limits, &mut notes)?;
        let entries = members
            .into_iter()
            .filter_map(|m| {
                Some(Entry {
                    path: m.path?,
                    raw_name: m.raw_name,
                    size: m.data.len(),
                    mtime: m.mtime,
                    place: if m.is_dir { Place::Directory } else { Place::Section(m.data) },
                })
            })
            .collect();
        Self::checked(variant, section.name(), entries, notes)
    }

    pub(crate) fn of_directory(root: &Path, limits: &ArchiveLimits, mapped: bool) -> Result<Self> {
        let mut entries = directory::walk(root, limits, mapped)?;
        plain_names::restore(&mut entries, limits).map_err(|e| e.in_file(root))?;
        Self::checked(Variant::Directory, &root.display().to_string(), entries, Vec::new())
    }

    fn checked(
        variant: Variant,
        name: &str,
        entries: Vec<Entry>,
        notes: Vec<String>,
    ) -> Result<Self> {
        let mut index = Self {
            variant,
            name: name.to_owned(),
            entries,
            config: None,
            unwrapped: false,
            by_path: HashMap::new(),
            notes,
        };
        index.unwrap_directory();
        index.drop_repeated_directories();
        index.config = config_among(index.files().map(|e| e.path().as_str()));
        index.register().map_err(|e| e.in_file(name))?;
        index.check_tree().map_err(|e| e.in_file(name))?;
        Ok(index)
    }

    /// An archive packed from outside its folder has one directory around everything; it falls away.
    fn unwrap_directory(&mut self) {
        if config_among(self.entries.iter().map(|e| e.path().as_str())).is_some() {
            return;
        }
        let first = |e: &Entry| e.path.as_str().split('/').next().unwrap_or_default().to_owned();
        let Some(top) = self.entries.first().map(first) else { return };
        let inside = |e: &Entry| {
            let rest = e.path.as_str().strip_prefix(&top);
            rest.is_some_and(|r| r.starts_with('/') || (r.is_empty() && e.is_dir()))
        };
        let below = |e| Entry::path(e).as_str().strip_prefix(&top)?.strip_prefix('/');
        let config = config_among(self.entries.iter().filter_map(below));
        if !self.entries.iter().all(inside) || config.is_none() {
            return;
        }
        self.entries.retain_mut(|e| {
            let rest = EntryPath::new(e.path.as_str()[top.len()..].trim_start_matches('/'));
            rest.map(|path| e.path = path).is_ok()
        });
        self.unwrapped = true;
        // NeMo 0.11 packed everything that way itself.
        if top != weights::V0_11_FOLDER {
            self.notes.push(format!(
                "everything lies in the directory {top:?}, where NeMo does not look: repack it to restore it"
            ));
        }
    }

    fn drop_repeated_directories(&mut self) {
        let mut seen = std::collections::HashSet::new();
        self.entries.retain(|e| !e.is_dir() || seen.insert(e.path.clone()));
    }

    fn register(&mut self) -> Result<()> {
        let mut folded: HashMap<String, usize> = HashMap::new();
        for (i, entry) in self.entries.iter().enumerate() {
            if self.by_path.insert(entry.path.clone(), i).is_some() {
                return Err(Error::malformed("two members have this name")
                    .within(entry.place_name())
                    .hint("loaders take the last, other tools the first: repack the archive"));
            }
            if let Some(other) = folded.insert(entry.path.as_str().to_lowercase(), i) {
                self.notes.push(format!(
                    "the members {} and {} differ only in case and cannot both be unpacked everywhere",
                    self.entries[other].path, entry.path
                ));
            }
        }
        Ok(())
    }

    /// No file may be a directory too, above all not the two that every loader opens.
    fn check_tree(&self) -> Result<()> {
        for entry in &self.entries {
            let mut path = entry.path.as_str();
            while let Some((above, _)) = path.rsplit_once('/') {
                if let Some(&i) = EntryPath::new(above).ok().and_then(|p| self.by_path.get(&p)) {
                    if !self.entries[i].is_dir() {
                        return Err(Error::malformed(format!("lies in {above}, which is a file"))
                            .within(entry.place_name()));
                    }
                }
                if matches!(above, "model_config.yaml" | "model_weights.ckpt") {
                    return Err(Error::malformed(format!("lies in {above}, expected a file"))
                        .within(entry.place_name()));
                }
                path = above;
            }
            if entry.is_dir() && matches!(path, "model_config.yaml" | "model_weights.ckpt") {
                return Err(
                    Error::malformed("is a directory, expected a file").within(entry.place_name())
                );
            }
        }
        Ok(())
    }

    /// The file of that normalised name.
    pub(crate) fn file(&self, path: &str) -> Option<&Entry> {
        let path = EntryPath::new(path).ok()?;
        self.by_path.get(&path).map(|&i| &self.entries[i]).filter(|e| !e.is_dir())
    }

    pub(crate) fn entry(&self, path: &EntryPath) -> Option<&Entry> {
        self.by_path.get(path).map(|&i| &self.entries[i])
    }

    /// Whether this is what NeMo 0.11 packed: modules in files of their own, no common config.
    pub(crate) fn is_v0_11(&self) -> bool {
        self.config == Some(V0_11_CONFIG)
    }

    /// Whether this is an export for TensorRT-LLM: safetensors, and a config of its own kind.
    pub(crate) fn is_quantized(&self) -> bool {
        self.config == Some(QUANTIZED_CONFIG)
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| !e.is_dir())
    }
}

#[cfg(feature = "gzip")]
fn gunzip(section: &Section, limits: &ArchiveLimits, notes: &mut Vec<String>) -> Result<Section> {
    crate::gzip::spill(section, limits, notes)
}

#[cfg(not(feature = "gzip"))]
fn gunzip(section: &Section, _: &ArchiveLimits, _: &mut Vec<String>) -> Result<Section> {
    Err(Error::unsupported("is compressed with gzip, and this build reads plain tar only")
        .in_file(section.name())
        .hint("build with the feature gzip, or decompress the file first"))
}
