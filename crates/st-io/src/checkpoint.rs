//! Any of the forms behind one type.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ckptkit_core::{Result, Section, Tensor, TensorInfo, TensorSource};

use crate::dcp::DcpShards;
use crate::directory::{Directory, Found, index_group};
use crate::file::StFile;
use crate::header::Entry;
use crate::options::OpenOptions;
use crate::sharded::{Shard, ShardedSt};

/// How a checkpoint lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variant {
    /// One file.
    File,
    /// Several files and an index.
    Sharded,
    /// Files of pieces, written by torch's distributed checkpoint.
    DcpShards,
}

impl Variant {
    /// `file`, `sharded` or `dcp-shards`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Sharded => "sharded",
            Self::DcpShards => "dcp-shards",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A safetensors checkpoint of any form: a file, an index and its shards, a directory. Cheap to
/// clone; keeps its files open.
#[derive(Clone)]
pub struct StCheckpoint(Arc<Inner>);

struct Inner {
    form: Form,
    /// Where config and artifacts are looked for: not for a file that was opened by itself.
    directory: Option<Directory>,
    notes: Vec<String>,
}

enum Form {
    File(StFile, Option<PathBuf>),
    Sharded(ShardedSt),
    Dcp(DcpShards),
}

impl StCheckpoint {
    /// Opens a file, an index, or a directory that holds a checkpoint. In a directory,
    /// `model.safetensors` comes first and its index second, as in transformers; another name is
    /// taken where it is the only one; pieces of torch's distributed checkpoint are put together.
    /// Reads headers and indexes only.
    ///
    /// # Errors
    /// Those of [`StFile::open`], [`ShardedSt::open`] and [`DcpShards::open`];
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument), listing them, where a
    /// directory holds several checkpoints.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &OpenOptions::default())
    }

    /// As [`StCheckpoint::open`], with options.
    ///
    /// # Errors
    /// As [`StCheckpoint::open`].
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        fn inner(path: &Path, options: &OpenOptions) -> Result<StCheckpoint> {
            if !path.is_dir() {
                return StCheckpoint::open_at(path, options.open(path)?, options);
            }
            let directory = Directory::scan(path, options)?;
            let mut notes = Vec::new();
            let form = match directory.choose(&mut notes)? {
                Found::Single(name) => {
                    let section = directory.open(&name)?;
                    let file = StFile::from_section_with(section, &options.limits)?;
                    Form::File(file, Some(path.join(name)))
                }
                Found::Index(name) => {
                    let here = directory.clone();
                    let index = directory.open(&name)?;
                    Form::Sharded(ShardedSt::from_index(here, &name, &index, options, Vec::new())?)
                }
                Found::Numbered(names) => {
                    let here = directory.clone();
                    Form::Sharded(ShardedSt::from_numbered(here, &names, options, Vec::new())?)
                }
                Found::Dcp(at) => Form::Dcp(DcpShards::open_with(at, options)?),
            };
            Ok(StCheckpoint::new(form, Some(directory), notes))
        }
        inner(path.as_ref(), options)
    }

    /// Opens a file that is open already; `path` says where it lies, since an index names others
    /// beside it.
    ///
    /// # Errors
    /// As [`StCheckpoint::open`].
    pub fn open_at(path: &Path, section: Section, options: &OpenOptions) -> Result<Self> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        // A header's length is never a brace: an index is what starts as JSON does.
        let is_index = index_group(name).is_some()
            || (!StFile::detect(&section)
                && section.head::<16>()?.trim_ascii_start().starts_with(b"{"));
        if !is_index {
            let file = StFile::from_section_with(section, &options.limits)?;
            return Ok(Self::new(Form::File(file, Some(path.to_path_buf())), None, Vec::new()));
        }
        let sharded = ShardedSt::open_index(path, &section, options)?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let directory = Directory::scan(parent.unwrap_or(Path::new(".")), options)?;
        Ok(Self::new(Form::Sharded(sharded), Some(directory), Vec::new()))
    }

    /// Opens one file wherever its bytes lie.
    ///
    /// # Errors
    /// Those of [`StFile::from_section`].
    pub fn from_section(section: Section) -> Result<Self> {
        Ok(StFile::from_section(section)?.into())
    }

    fn new(form: Form, directory: Option<Directory>, mut notes: Vec<String>) -> Self {
        notes.extend_from_slice(match &form {
            Form::File(file, _) => file.notes(),
            Form::Sharded(sharded) => sharded.notes(),
            Form::Dcp(dcp) => dcp.notes(),
        });
        Self(Arc::new(Inner { form, directory, notes }))
    }

    /// Which form it has.
    #[must_use]
    pub fn variant(&self) -> Variant {
        match &self.0.form {
            Form::File(..) => Variant::File,
            Form::Sharded(_) => Variant::Sharded,
            Form::Dcp(_) => Variant::DcpShards,
        }
    }

    /// The file, where it is one.
    #[must_use]
    pub fn as_file(&self) -> Option<&StFile> {
        if let Form::File(file, _) = &self.0.form { Some(file) } else { None }
    }

    /// The shards and their index, where it has one.
    #[must_use]
    pub fn as_sharded(&self) -> Option<&ShardedSt> {
        if let Form::Sharded(sharded) = &self.0.form { Some(sharded) } else { None }
    }

    /// The files of pieces, where they are that.
    #[must_use]
    pub fn as_dcp(&self) -> Option<&DcpShards> {
        if let Form::Dcp(dcp) = &self.0.form { Some(dcp) } else { None }
    }

    /// What the tensors are, in the order of the header, the index or the files.
    pub fn infos(&self) -> Box<dyn Iterator<Item = &TensorInfo> + '_> {
        match &self.0.form {
            Form::File(file, _) => Box::new(file.infos()),
            Form::Sharded(sharded) => Box::new(sharded.infos()),
            Form::Dcp(dcp) => Box::new(dcp.infos()),
        }
    }

    /// Looks a tensor up. Reads nothing of it.
    ///
    /// # Errors
    /// As [`StFile::tensor`].
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        match &self.0.form {
            Form::File(file, _) => file.tensor(name),
            Form::Sharded(sharded) => sharded.tensor(name),
            Form::Dcp(dcp) => dcp.tensor(name),
        }
    }

    /// The lazy tensors, in the order of [`StCheckpoint::infos`].
    ///
    /// # Errors
    /// Each as [`StCheckpoint::tensor`].
    pub fn tensors(&self) -> Box<dyn Iterator<Item = Result<Tensor>> + '_> {
        match &self.0.form {
            Form::File(file, _) => Box::new(file.tensors()),
            Form::Sharded(sharded) => Box::new(sharded.tensors()),
            Form::Dcp(dcp) => Box::new(dcp.tensors().iter().cloned().map(Ok)),
        }
    }

    /// Every entry of every header, those of unknown dtypes and single pieces too.
    pub fn entries(&self) -> Box<dyn Iterator<Item = &Entry> + '_> {
        match &self.0.form {
            Form::File(file, _) => Box::new(file.entries().iter()),
            Form::Sharded(sharded) => Box::new(sharded.entries()),
            Form::Dcp(dcp) => Box::new(dcp.files().flat_map(|(_, f)| f.entries())),
        }
    }

    /// The metadata of the header, or of all headers put together.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        match &self.0.form {
            Form::File(file, _) => file.metadata(),
            Form::Sharded(sharded) => sharded.metadata(),
            Form::Dcp(dcp) => dcp.metadata(),
        }
    }

    /// Removed name → kept name; see [`StFile::aliases`].
    #[must_use]
    pub fn aliases(&self) -> BTreeMap<String, String> {
        match &self.0.form {
            Form::File(file, _) => file.aliases(),
            Form::Sharded(sharded) => sharded.aliases(),
            Form::Dcp(_) => BTreeMap::new(),
        }
    }

    /// The files that hold tensors.
    #[must_use]
    pub fn shards(&self) -> Vec<Shard> {
        match &self.0.form {
            Form::File(file, path) => {
                let path = path.clone().unwrap_or_else(|| file.section().name().into());
                vec![Shard { path, bytes: file.section().len() }]
            }
            Form::Sharded(sharded) => sharded.shards().collect(),
            Form::Dcp(dcp) => dcp.shards().collect(),
        }
    }

    /// `config.json` of the directory; none for a file that was opened by itself.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn config(&self) -> Result<Option<Section>> {
        self.0.directory.as_ref().map_or(Ok(None), Directory::config)
    }

    /// The other files of the directory, such as `tokenizer.json`; see [`ShardedSt::artifacts`].
    ///
    /// # Errors
    /// Those of opening them.
    pub fn artifacts(&self) -> Result<Vec<(String, Section)>> {
        self.0.directory.as_ref().map_or(Ok(Vec::new()), Directory::artifacts)
    }

    /// What is legal but strange, and what was chosen among several.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// The strict check; see [`StFile::verify`].
    ///
    /// # Errors
    /// The first thing found.
    pub fn verify(&self) -> Result<()> {
        match &self.0.form {
            Form::File(file, _) => file.verify(),
            Form::Sharded(sharded) => sharded.verify(),
            Form::Dcp(dcp) => dcp.verify(),
        }
    }
}

impl From<StFile> for StCheckpoint {
    fn from(file: StFile) -> Self {
        Self::new(Form::File(file, None), None, Vec::new())
    }
}

impl From<ShardedSt> for StCheckpoint {
    fn from(sharded: ShardedSt) -> Self {
        Self::new(Form::Sharded(sharded), None, Vec::new())
    }
}

impl From<DcpShards> for StCheckpoint {
    fn from(dcp: DcpShards) -> Self {
        Self::new(Form::Dcp(dcp), None, Vec::new())
    }
}

impl TensorSource for StCheckpoint {
    fn infos(&self) -> Box<dyn Iterator<Item = &TensorInfo> + '_> {
        self.infos()
    }
    fn tensor(&self, name: &str) -> Result<Tensor> {
        self.tensor(name)
    }
}

impl fmt::Debug for StCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.form {
            Form::File(file, _) => file.fmt(f),
            Form::Sharded(sharded) => sharded.fmt(f),
            Form::Dcp(dcp) => dcp.fmt(f),
        }
    }
}
