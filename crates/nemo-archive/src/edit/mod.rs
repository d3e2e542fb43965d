//! Edits of an archive: a new one is laid out from what stays, as ranges of the source, and what is
//! new. Nothing that stays is decoded.

mod artifacts;
mod weights;

use std::collections::HashSet;

use ckptkit_core::{EntryPath, Error, ErrorKind, Result, ResultExt, TensorInfo, TensorSource};

pub use artifacts::Replace;
pub use weights::{WeightsDifference, compare_weights};

use crate::archive::NemoArchive;
use crate::artifact;
use crate::config::{Config, Value};
use crate::entry::Entry;
use crate::index::{Index, Variant};
use crate::weights::{WeightsLayout, is_part, layout_of};
use crate::write::members::{Content, Member, Members, Role, of_bytes};
use crate::write::{CONFIG, Change, NewArchive, WriteOptions, refuse_unresolved};

/// Edits to an archive or an unpacked directory, collected until [`Editor::layout`] makes a new
/// archive of them. The source stays as it is.
///
/// Members keep their order and names, those that no key refers to included; a folder around
/// everything falls away; names are written with `./`. What is not edited is copied as the bytes
/// that it is.
///
/// ```
/// # fn main() -> ckptkit_core::Result<()> {
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/nemo/ctc_bpe.nemo");
/// # if !std::path::Path::new(path).exists() { return Ok(()); }
/// use ckptkit_core::Section;
/// use nemo_archive::{Editor, NemoArchive, Replace, WriteOptions};
///
/// let mut editor = Editor::new(&NemoArchive::open(path)?)?;
/// editor.set("optim.lr", "1e-4")?;
/// let words = Section::from_bytes(*b"a\nb\n", "vocab.txt");
/// editor.replace("tokenizer.vocab_path", &words, &Replace::new())?;
/// let edited = editor.layout(&WriteOptions::new())?;
/// for change in edited.changes() {
///     println!("{change}");
/// }
/// assert_eq!(edited.changes()[0].to_string(), "optim.lr: 0.0001 (was 0.001)");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Editor {
    archive: NemoArchive,
    config: Result<Config>,
    members: Members,
    /// References that the source does not resolve either.
    unresolved: HashSet<(String, String)>,
    changes: Vec<Change>,
    notes: Vec<String>,
}

impl Editor {
    /// Starts from an archive; reads its config and no weights. One with a config that cannot be
    /// read (open it with [`OpenOptions::members_only`](crate::OpenOptions::members_only)) can be
    /// given another.
    ///
    /// # Errors
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for archives of NeMo 0.11 and
    /// quantized exports, which no loader of today's archives reads.
    pub fn new(archive: &NemoArchive) -> Result<Self> {
        let index = archive.index();
        let refuse = |what: &str| {
            Err(Error::unsupported(format!("{what} is not edited")).in_file(archive.name()))
        };
        if index.is_v0_11() {
            return refuse("an archive of NeMo 0.11");
        }
        if index.is_quantized() {
            return refuse("a quantized export");
        }
        let role = |entry: &Entry| {
            if entry.path().as_str() == CONFIG {
                Role::Config
            } else if is_part(index, entry) || entry.is_dir() && holds_weights(index, entry) {
                Role::Weights
            } else {
                Role::Artifact
            }
        };
        // The time of a folder on disk says when someone last put something there.
        let on_disk = index.variant == Variant::Directory;
        let member = |entry: &Entry| Member {
            path: entry.path().clone(),
            role: role(entry),
            content: match on_disk && entry.is_dir() {
                true => Content::Directory,
                false => Content::Kept(entry.clone()),
            },
        };
        let members = Members(index.entries.iter().map(member).collect());
        let config = archive.config().cloned();
        let mut unresolved = HashSet::new();
        if let Ok(config) = &config {
            unresolved.extend(members.unresolved(config).in_file(archive.name())?);
        }
        let mut changes = Vec::new();
        if index.unwrapped {
            changes.push(Change::Unwrapped);
        }
        let (archive, notes) = (archive.clone(), Vec::new());
        Ok(Self { archive, config, members, unresolved, changes, notes })
    }

    // --- config ------------------------------------------------------------------

    /// The config as edited so far.
    ///
    /// # Errors
    /// Those of [`NemoArchive::config`], until it is replaced.
    pub fn config(&self) -> Result<&Config> {
        self.config.as_ref().map_err(Clone::clone)
    }

    /// Takes another config for the whole of the old one.
    pub fn replace_config(&mut self, config: Config) {
        self.config = Ok(config);
        self.changes.push(Change::Config);
    }

    /// The value under a dotted key, as it is written; see [`Config::get`].
    ///
    /// # Errors
    /// Those of [`Editor::config`].
    pub fn get(&self, key: &str) -> Result<Option<Value>> {
        Ok(self.config()?.get(key))
    }

    /// Sets a value of the config to what a YAML text says; see [`Config::set`].
    ///
    /// # Errors
    /// Those of [`Config::set`] and [`Editor::config`].
    pub fn set(&mut self, key: &str, yaml: &str) -> Result<()> {
        let edited = self.config()?.set(key, yaml).within(|| CONFIG)?;
        let value = edited.get(key).unwrap_or(Value::None);
        self.take(&[(key.to_owned(), value)], edited);
        Ok(())
    }

    /// Sets a value of the config; see [`Config::set_value`].
    ///
    /// # Errors
    /// Those of [`Config::set_value`] and [`Editor::config`].
    pub fn set_value(&mut self, key: &str, value: &Value) -> Result<()> {
        self.set_all(&[(key.to_owned(), value.clone())])
    }

    /// Sets several values, all or none.
    fn set_all(&mut self, values: &[(String, Value)]) -> Result<()> {
        let mut edited = self.config()?.clone();
        for (key, value) in values {
            edited = edited.set_value(key, value).within(|| CONFIG)?;
        }
        self.take(values, edited);
        Ok(())
    }

    fn take(&mut self, values: &[(String, Value)], edited: Config) {
        for (key, new) in values {
            let old = self.config.as_ref().ok().and_then(|c| c.get(key));
            if old.as_ref() != Some(new) {
                self.changes.push(Change::Set { key: key.clone(), old, new: new.clone() });
            }
        }
        self.config = Ok(edited);
    }

    /// Deletes a value of the config; see [`Config::delete`]. A member that it referred to stays.
    ///
    /// # Errors
    /// Those of [`Config::delete`] and [`Editor::config`].
    pub fn delete(&mut self, key: &str) -> Result<()> {
        let config = self.config()?;
        let old = config.get(key).unwrap_or(Value::None);
        self.config = Ok(config.delete(key).within(|| CONFIG)?);
        self.changes.push(Change::Deleted { key: key.to_owned(), old });
        Ok(())
    }

    // --- packing -----------------------------------------------------------------

    pub(crate) fn refuse_unresolved(&self) -> Result<()> {
        refuse_unresolved(&self.members.unresolved(self.config()?)?)
    }

    /// Takes out artifacts that no key refers to, and directories that only they lie in.
    pub(crate) fn leave_out_unreferenced(&mut self) -> Result<Vec<(String, u64)>> {
        let references = self.members.references(self.config()?);
        let mut out = Vec::new();
        let mut at = 0;
        self.members.0.retain(|member| {
            at += 1;
            let keep = member.role != Role::Artifact || references.contains_key(&(at - 1));
            if let (Content::Kept(entry), false, false) = (&member.content, keep, member.is_dir()) {
                out.push((member.path.as_str().to_owned(), entry.size()));
            }
            keep
        });
        Ok(out)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.members.0.iter().map(|m| m.path.as_str().to_owned())
    }

    /// Puts the members into the order of a new archive.
    pub(crate) fn sort(&mut self) -> Result<()> {
        self.members.add_directories()?;
        self.members.sort();
        Ok(())
    }

    pub(crate) fn note(&mut self, change: Change) {
        self.changes.push(change);
    }

    // --- the result --------------------------------------------------------------

    /// Lays the new archive out.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound) for a `nemo:` reference to no member that
    /// the edits made (one that the source has already is noted);
    /// [`Denied`](ckptkit_core::ErrorKind::Denied) for one that leaves the archive; those of
    /// opening the files of a directory;
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) and
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) as [`TarLayout`](crate::TarLayout).
    pub fn layout(self, options: &WriteOptions) -> Result<NewArchive> {
        let name = self.archive.name().to_owned();
        self.lay_out(options).in_file(name)
    }

    fn lay_out(mut self, options: &WriteOptions) -> Result<NewArchive> {
        let config = self.config?;
        let unresolved = self.members.unresolved(&config)?;
        let (old, new): (Vec<_>, Vec<_>) =
            unresolved.into_iter().partition(|found| self.unresolved.contains(found));
        refuse_unresolved(&new)?;
        for (key, uri) in old {
            self.notes.push(format!("key {key} refers to {uri:?}, which is no member"));
        }
        if self.archive.config_text().ok().as_deref() != Some(config.as_str()) {
            let path = EntryPath::new(CONFIG)?;
            let text = config.as_str().as_bytes().to_vec();
            let content = Content::New(of_bytes(text)?);
            match self.members.position(&path) {
                Some(at) => self.members.0[at].content = content,
                None => self.members.0.insert(0, Member { path, role: Role::Config, content }),
            }
        }
        let file = self.members.lay_out(options)?;
        Ok(NewArchive { file, changes: self.changes, notes: self.notes })
    }
}

/// Whether a directory is one that weights lie in.
fn holds_weights(index: &Index, directory: &Entry) -> bool {
    let below = format!("{}/", directory.path());
    index.files().any(|e| e.path().as_str().starts_with(&below) && is_part(index, e))
}

/// What the weights of an archive are, or nothing where there are none.
fn infos(archive: &NemoArchive) -> Result<Vec<TensorInfo>> {
    Ok(archive.weights()?.infos().cloned().collect())
}

/// Whether the archive's weights are the one file that can be replaced, or none.
fn refuse_other_layouts(archive: &NemoArchive) -> Result<()> {
    match layout_of(archive.index()) {
        Ok(WeightsLayout::File) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e.in_file(archive.name())),
        Ok(layout) => Err(Error::unsupported(format!(
            "its weights are not one file ({layout:?}), so one file cannot replace them"
        ))
        .in_file(archive.name())),
    }
}

/// The name of an artifact's file, without the digits before it.
fn base_name(path: &EntryPath) -> &str {
    artifact::without_digits(path.file_name())
}
