//! An archive from nothing: a config, artifacts, weights.

use ckptkit_core::{EntryPath, Error, OutputFile, Result, ResultExt, Section};

use super::archive::NewArchive;
use super::members::{Content, Member, Members, Role, of_bytes, of_section};
use super::names;
use super::options::WriteOptions;
use super::report::Change;
use crate::config::{Config, Value};

pub(crate) const CONFIG: &str = "model_config.yaml";
pub(crate) const WEIGHTS: &str = "model_weights.ckpt";

/// A new archive: a config, the artifacts that it refers to, weights.
///
/// ```
/// use ckptkit_core::{Dtype, Section, Tensor, TensorBytes, TensorInfo};
/// use nemo_archive::{Builder, Config, NemoArchive, WriteOptions};
/// use torch_save::layout_state_dict;
///
/// # fn main() -> ckptkit_core::Result<()> {
/// let info = TensorInfo::new("w", Dtype::U8, [2])?;
/// let w = Tensor::new(info, TensorBytes::Range(Section::from_bytes([7, 9], "memory")))?;
/// let mut torch = torch_save::WriteOptions::new();
/// torch.root = "model_weights".into();
///
/// let config = Config::parse(b"target: nemo.x.Y\ntokenizer: {}\n")?;
/// let mut builder = Builder::new(config);
/// let words = Section::from_bytes(*b"a\nb\n", "words.txt");
/// builder.artifact("tokenizer.words", "words.txt", &words)?;
/// builder.weights(layout_state_dict(&[w], &torch)?)?;
/// let archive = builder.layout(&WriteOptions::new())?;
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("new.nemo");
/// # use ckptkit_core::{CopyOptions, Existing};
/// archive.write(&path, Existing::Refuse, &CopyOptions::default())?;
///
/// let archive = NemoArchive::open(&path)?;
/// assert_eq!(archive.artifacts()?[0].keys(), ["tokenizer.words"]);
/// assert_eq!(archive.artifacts()?[0].base_name(), "words.txt");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    config: Config,
    members: Members,
}

impl Builder {
    /// An archive with this config and no weights yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, members: Members::default() }
    }

    /// The config as it stands.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Adds an artifact and sets the key of the config to its URI. The member gets a name made of
    /// its content and `base_name`; the same content under the same name is one member.
    ///
    /// # Errors
    /// As [`Config::set`], and [`Io`](ckptkit_core::ErrorKind::Io) while the content is read to be
    /// hashed; [`Denied`](ckptkit_core::ErrorKind::Denied) or
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for a name that is no plain
    /// file name.
    pub fn artifact(&mut self, key: &str, base_name: &str, content: &Section) -> Result<()> {
        let path = names::of_content(content, base_name)?;
        self.config = self.config.set_value(key, &Value::Str(format!("nemo:{path}")))?;
        if self.members.position(&path).is_none() {
            self.push(path, Role::Artifact, of_section(content)?)?;
        }
        Ok(())
    }

    /// Adds a member under the name that the config knows it by (`nemo:NAME`), or one that no key
    /// refers to.
    ///
    /// # Errors
    /// [`Denied`](ckptkit_core::ErrorKind::Denied) for a name that leaves the archive,
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for one that is taken, also
    /// when only its case differs.
    pub fn member(&mut self, name: &str, content: &Section) -> Result<()> {
        let path = EntryPath::new(name)?;
        if matches!(path.as_str(), CONFIG | WEIGHTS) {
            return Err(Error::invalid("the name is that of the config or the weights")
                .within(format_args!("member {path}")));
        }
        self.push(path, Role::Artifact, of_section(content)?)
    }

    /// Sets the weights: a torch checkpoint of one flat state dict, its inner folder called
    /// `model_weights` as NeMo calls it.
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) when there are weights already.
    pub fn weights(&mut self, file: OutputFile) -> Result<()> {
        self.push(EntryPath::new(WEIGHTS)?, Role::Weights, file)
    }

    fn push(&mut self, path: EntryPath, role: Role, file: OutputFile) -> Result<()> {
        self.members.add(Member { path, role, content: Content::New(file) })
    }

    /// Lays the archive out: the config, the artifacts by name, the weights last.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound) for a `nemo:` reference of the config that
    /// is no member, and where there are no weights; `Denied` for one that leaves the archive;
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) for an archive longer than files
    /// can be.
    pub fn layout(mut self, options: &WriteOptions) -> Result<NewArchive> {
        if self.members.position(&EntryPath::new(WEIGHTS)?).is_none() {
            return Err(Error::not_found("the archive has no weights"));
        }
        refuse_unresolved(&self.members.unresolved(&self.config)?)?;
        let text = self.config.as_str().as_bytes().to_vec();
        self.push(EntryPath::new(CONFIG)?, Role::Config, of_bytes(text)?)?;
        self.members.add_directories()?;
        self.members.sort();
        let mut changes = Vec::new();
        for member in self.members.0.iter().filter(|m| m.role == Role::Artifact) {
            if let Content::New(file) = &member.content {
                let name = member.path.as_str().to_owned();
                changes.push(Change::Added { member: name, bytes: file.len() });
            }
        }
        let file = self.members.lay_out(options)?;
        Ok(NewArchive { file, changes, notes: Vec::new() })
    }
}

/// Refuses references that name no member: NeMo would fail on them.
pub(crate) fn refuse_unresolved(unresolved: &[(String, String)]) -> Result<()> {
    const SHOWN: usize = 4;
    if unresolved.is_empty() {
        return Ok(());
    }
    let all: Vec<String> =
        unresolved.iter().take(SHOWN).map(|(key, uri)| format!("{key}: {uri}")).collect();
    let more = if unresolved.len() > SHOWN { ", …" } else { "" };
    Err(Error::not_found(format!("the config refers to no member ({}{more})", all.join(", ")))
        .hint("add the artifacts, or delete the keys"))
    .within(|| "model_config.yaml")
}
