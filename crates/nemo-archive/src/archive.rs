//! One abstraction over the three things that hold a NeMo model.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use ckptkit_core::{
    EntryPath, Error, Result, ResultExt, Section, Tensor, TensorInfo, TensorSource,
};

use crate::artifact::{self, Artifact};
use crate::config::Config;
use crate::entry::Entry;
use crate::index::{self, Index, Variant};
use crate::options::OpenOptions;
use crate::weights::{self, Weights};
use crate::{detect, notes};

/// An opened `.nemo`: its members, its config, its tensors. Cheap to clone, shareable between
/// threads, keeps its source open.
///
/// As a [`TensorSource`] it lists what [`NemoArchive::weights`] holds; opened with
/// [`OpenOptions::members_only`], nothing where those cannot be read.
#[derive(Clone)]
pub struct NemoArchive(Arc<Inner>);

struct Inner {
    index: Index,
    options: OpenOptions,
    /// How many archives lie around this one.
    depth: u32,
    config: OnceLock<Result<Config>>,
    weights: OnceLock<Result<Weights>>,
}

impl NemoArchive {
    /// Opens an archive or an unpacked directory: reads the headers, the config and the pickles of
    /// the weights, no tensor. A compressed archive is decompressed once, to a temporary file
    /// without a name.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound) and [`Io`](ckptkit_core::ErrorKind::Io) for
    /// the file; [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for what is something else,
    /// saying what; [`Malformed`](ckptkit_core::ErrorKind::Malformed) for damage;
    /// [`Denied`](ckptkit_core::ErrorKind::Denied) for members and references that could leave the
    /// archive; [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        OpenOptions::default().open(path)
    }

    /// As [`NemoArchive::open`], through a memory mapping; see [`Section::open_mapped`].
    ///
    /// # Errors
    /// As [`NemoArchive::open`].
    #[cfg(feature = "mmap")]
    pub fn open_mapped(path: impl AsRef<Path>) -> Result<Self> {
        OpenOptions::default().mapped(true).open(path)
    }

    /// Opens an archive that lies in a window of something else: memory, a mapping, a member of
    /// another archive.
    ///
    /// # Errors
    /// As [`NemoArchive::open`].
    pub fn from_section(section: Section) -> Result<Self> {
        OpenOptions::default().open_section(section)
    }

    /// Opens an unpacked directory.
    ///
    /// # Errors
    /// As [`NemoArchive::open`]; `Denied` for links that leave the directory.
    pub fn open_dir(path: impl AsRef<Path>) -> Result<Self> {
        Self::of_directory(path.as_ref(), &OpenOptions::default())
    }

    pub(crate) fn of_directory(root: &Path, options: &OpenOptions) -> Result<Self> {
        // Only the top is listed: this may be anybody's directory.
        let mut names = Vec::new();
        let files = std::fs::read_dir(root)
            .map_err(|e| Error::io("list the directory", e).in_file(root))?;
        for file in files.take(options.limits.members).flatten() {
            names.push(file.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        let names = names.iter().map(String::as_str);
        let has = |name: &str| names.clone().any(|n| n == name);
        if index::config_among(names.clone()).is_none() && !has(weights::V0_11_FOLDER) {
            if has("context") && has("weights") {
                return Err(Error::unsupported("is a NeMo 2 checkpoint, not a .nemo")
                    .in_file(root)
                    .hint("open its directory weights/ as a distributed checkpoint"));
            }
            return Err(detect::no_model(names).in_file(root));
        }
        Self::build(Index::of_directory(root, &options.limits, options.mapped)?, 0, options)
    }

    pub(crate) fn of_section(
        section: &Section,
        name: &str,
        depth: u32,
        options: &OpenOptions,
    ) -> Result<Self> {
        let mut index = Index::of_section(section, &options.limits)?;
        name.clone_into(&mut index.name);
        Self::build(index, depth, options)
    }

    fn build(index: Index, depth: u32, options: &OpenOptions) -> Result<Self> {
        let archive = Self(Arc::new(Inner {
            index,
            options: options.clone(),
            depth,
            config: OnceLock::new(),
            weights: OnceLock::new(),
        }));
        archive.config_entry()?;
        if !options.members_only {
            archive.artifacts()?;
            archive.weights()?;
        }
        Ok(archive)
    }

    #[cfg(feature = "write")]
    pub(crate) fn index(&self) -> &Index {
        &self.0.index
    }

    /// What holds the members.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.0.index.variant
    }

    /// What messages call it: the path as it was given; `outer.nemo!/inner.nemo` for a nested one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.index.name
    }

    /// The members, files and directories, in the order of the archive.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.index.entries.iter()
    }

    /// The member of that name; `./` and repeated slashes do not matter.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound);
    /// [`Denied`](ckptkit_core::ErrorKind::Denied) for a name that leaves the archive.
    pub fn entry(&self, path: &str) -> Result<&Entry> {
        let path = EntryPath::new(path)?;
        self.0.index.entry(&path).ok_or_else(|| {
            Error::not_found(format!("there is no member {path}")).in_file(self.name())
        })
    }

    fn config_entry(&self) -> Result<&Entry> {
        self.0.index.config.and_then(|name| self.0.index.file(name)).ok_or_else(|| {
            detect::no_model(self.0.index.files().map(|e| e.path().as_str())).in_file(self.name())
        })
    }

    /// The name of the config's member: `model_config.yaml`; `module.yaml` in NeMo 0.11,
    /// `config.json` in quantized exports.
    #[must_use]
    pub fn config_name(&self) -> &str {
        self.0.index.config.unwrap_or_default()
    }

    /// The config's text as the archive holds it.
    ///
    /// # Errors
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) above the limit,
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) when it is not UTF-8.
    pub fn config_text(&self) -> Result<String> {
        let entry = self.config_entry()?;
        let bytes = entry.read(self.0.options.limits.config_bytes)?;
        String::from_utf8(bytes).map_err(|e| {
            Error::malformed("is not UTF-8 text")
                .at(e.utf8_error().valid_up_to() as u64)
                .within(format_args!("member {}", entry.path()))
                .in_file(self.name())
        })
    }

    /// The config.
    ///
    /// # Errors
    /// Those of [`Config::parse`].
    pub fn config(&self) -> Result<&Config> {
        let parse = || {
            let entry = self.config_entry()?;
            let limits = &self.0.options.limits;
            entry.read(limits.config_bytes).and_then(|bytes| {
                Config::parse_with(&bytes, limits).within(|| format!("member {}", entry.path()))
            })
        };
        let read = self.0.config.get_or_init(|| parse().in_file(self.name()));
        read.as_ref().map_err(Clone::clone)
    }

    /// The files besides config and weights, with the keys of the config that refer to them.
    ///
    /// # Errors
    /// Those of [`NemoArchive::config`]; [`Denied`](ckptkit_core::ErrorKind::Denied) for a
    /// reference that leaves the archive.
    pub fn artifacts(&self) -> Result<Vec<Artifact<'_>>> {
        artifact::list(&self.0.index, self.config()?).in_file(self.name())
    }

    /// The member that a value of the config refers to: the one it names after `nemo:`, else the
    /// one with its base name, as archives before 1.0 want it. Never a path outside the archive.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound);
    /// [`Denied`](ckptkit_core::ErrorKind::Denied) for a reference that leaves the archive.
    pub fn artifact(&self, uri: &str) -> Result<&Entry> {
        artifact::resolve(&self.0.index, uri)
            .and_then(|found| {
                found.ok_or_else(|| Error::not_found(format!("{uri:?} names no member")))
            })
            .in_file(self.name())
    }

    /// The tensors, read on first use.
    ///
    /// # Errors
    /// `NotFound` when there are none; those of the torch checkpoints inside;
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for a layout that this build does not
    /// read.
    pub fn weights(&self) -> Result<&Weights> {
        let load = || weights::load(self, &self.0.index, &self.0.options).in_file(self.name());
        self.0.weights.get_or_init(load).as_ref().map_err(Clone::clone)
    }

    /// The names of whole models inside this archive, as a diarizer has them
    /// (`speaker_model.nemo`).
    pub fn nested_names(&self) -> impl Iterator<Item = &str> {
        weights::nested_names(&self.0.index)
    }

    /// Opens a whole model inside this archive; its name becomes `outer.nemo!/speaker_model.nemo`.
    ///
    /// # Errors
    /// As [`NemoArchive::from_section`], and `LimitExceeded` when too many lie inside each other.
    pub fn nested(&self, name: &str) -> Result<Self> {
        let entry = self.entry(name)?;
        let depth = self.0.depth + 1;
        if depth > self.0.options.limits.nesting {
            return Err(Error::limit(format!(
                "archives nest deeper than {}",
                self.0.options.limits.nesting
            ))
            .within(format_args!("member {}", entry.path()))
            .in_file(self.name()));
        }
        let full = format!("{}!/{}", self.name(), entry.path());
        let open = |s: Section| Self::of_section(&s, &full, depth, &self.0.options);
        entry.section().and_then(open).map_err(|e| match e.file() {
            // The name says where it is already.
            Some(file) if file.starts_with(&full) => e,
            _ => e.within(format_args!("member {}", entry.path())).in_file(self.name()),
        })
    }

    /// Whether there are adapter weights only, which need a base model to be of use.
    #[must_use]
    pub fn is_adapter_only(&self) -> bool {
        let Some(Ok(weights)) = self.0.weights.get() else { return false };
        notes::is_adapter_only(weights)
    }

    /// What is strange but was read: for the eyes of a person. Covers config and weights where
    /// they have been read.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let config = self.0.config.get().and_then(|c| c.as_ref().ok());
        let weights = self.0.weights.get().and_then(|w| w.as_ref().ok());
        notes::collect(&self.0.index, config, weights)
    }
}

impl TensorSource for NemoArchive {
    fn infos(&self) -> Box<dyn Iterator<Item = &TensorInfo> + '_> {
        match self.weights() {
            Ok(weights) => weights.infos(),
            Err(_) => Box::new(std::iter::empty()),
        }
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        self.weights()?.tensor(name)
    }
}

impl std::fmt::Debug for NemoArchive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NemoArchive({} {})", self.name(), self.variant())
    }
}
