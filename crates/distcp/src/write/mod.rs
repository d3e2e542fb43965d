//! Entries to a directory for any number of ranks: every byte decided before any is written.

mod data;
mod deal;
mod entry;
mod metadata;
mod options;
mod reshard;
mod safetensors;
mod split;

use std::sync::Arc;

use ckptkit_core::{
    Dtype, DtypeClass, EntryPath, Error, Layout, OutputFile, Region, Result, ResultExt, Segment,
    Tensor, TensorBytes,
};

pub use entry::{Entry, Placement};
pub use options::{Form, WriteOptions};

use deal::{Part, Share};
use entry::EntryKind;
use split::{Mesh, Splitter, in_elements};

/// What would be written, and what the caller should know about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The files; more may be added beside them, such as Lightning's `meta.pt`.
    pub layout: Layout,
    /// Names of the data files, and their bytes.
    pub files: Vec<(String, u64)>,
    /// The number of chunks of all tensors.
    pub chunks: usize,
    /// What is legal but may surprise.
    pub notes: Vec<String>,
}

/// Entries that have been named and split.
struct Planned {
    kinds: Vec<EntryKind>,
    names: Vec<String>,
    parts: Vec<Part>,
}

impl Planned {
    fn is_object(&self, share: Share) -> bool {
        matches!(self.kinds[share.entry()], EntryKind::Bytes(_))
    }

    /// The box of its tensor that a share is.
    fn region(&self, share: Share) -> &Region {
        &self.parts[share.entry()].split.chunks[share.chunk()].region
    }

    /// The tensor that a share is.
    fn chunk(&self, share: Share, tensor: &Tensor) -> Result<Tensor> {
        tensor.region(&in_elements(tensor.dtype(), self.region(share)))
    }
}

/// Lays out a checkpoint of these entries. Reads nothing of a tensor and opens nothing that is
/// deferred, so that a checkpoint of some ranks becomes one of others for the cost of its metadata.
/// Equal entries and options give equal bytes.
///
/// ```
/// use ckptkit_core::{CopyOptions, Existing, Key, TensorSource};
/// use distcp::{DistCheckpoint, Entry, WriteOptions};
///
/// # fn main() -> ckptkit_core::Result<()> {
/// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("of_three");
/// // Two ranks become three.
/// let two = DistCheckpoint::open(format!("{fixtures}/tp_2"))?;
/// let mut entries = Vec::new();
/// for (info, keys) in two.infos().zip(two.paths()) {
///     entries.push(Entry::tensor(keys, two.tensor(info.name())?));
/// }
/// let mut options = WriteOptions::new();
/// options.ranks = 3;
/// distcp::layout(&entries, &options)?.write(&path, Existing::Refuse, &CopyOptions::default())?;
///
/// let three = DistCheckpoint::open(&path)?;
/// assert_eq!(three.ranks(), 3);
/// assert_eq!(three.chunks("rows")?[1].region.offsets, [3, 0]);
/// assert_eq!(three.tensor("rows")?.read()?, two.tensor("rows")?.read()?);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// All before a byte is written, naming the entry:
/// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for paths that no state dict holds
/// (two of one name, an empty one, one that ends where another goes on), for a mesh that is not
/// made of the ranks, placements that do not fit the tensor, and an alignment that is not possible;
/// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for dtypes that such a checkpoint cannot
/// hold, for tensors without bytes, and for objects in safetensors shards.
pub fn layout(entries: &[Entry], options: &WriteOptions) -> Result<Layout> {
    Ok(plan(entries, options)?.layout)
}

/// As [`layout`], with what the caller should know about the result.
///
/// # Errors
/// As [`layout`].
pub fn plan(entries: &[Entry], options: &WriteOptions) -> Result<Plan> {
    let mesh = Mesh::new(options)?;
    if !options.align.is_power_of_two() || options.align > 32 << 10 {
        return Err(Error::invalid(format!("items cannot be aligned to {} bytes", options.align))
            .hint("choose a power of two up to 32768; the default is 64"));
    }
    if u32::try_from(entries.len()).is_err() {
        return Err(Error::limit(format!(
            "{} entries are more than can be laid out",
            entries.len()
        )));
    }
    let names = entry::names(entries)?;
    let mut splitter = Splitter::new(&mesh);
    let mut parts = Vec::with_capacity(entries.len());
    for (entry, name) in entries.iter().zip(&names) {
        let part = part(entry, &mut splitter).within(|| format!("entry {name}"))?;
        parts.push(part);
    }
    let shares = deal::deal(&parts, mesh.ranks());
    let kinds: Vec<EntryKind> = entries.iter().map(|entry| entry.kind().clone()).collect();
    let planned = Planned { kinds, names, parts };
    let mut notes = Vec::new();
    let idle = shares.iter().filter(|shares| shares.is_empty()).count();
    if idle > 0 {
        notes.push(format!("{idle} of {} ranks hold nothing and get no file", mesh.ranks()));
    }
    let chunks = planned.kinds.iter().zip(&planned.parts);
    let chunks = chunks.filter(|(kind, _)| matches!(kind, EntryKind::Tensor(_)));
    let chunks = chunks.map(|(_, part)| part.split.chunks.len()).sum();
    let files = match options.form {
        Form::TorchSave => {
            let planned = Arc::new(planned);
            let data = data::lay_out(&planned, shares, options)?;
            let mut index = OutputFile::default();
            index.push(Segment::Literal(metadata::pickle(entries, &planned, &data)?))?;
            let mut files = data.into_files()?;
            files.push((".metadata".into(), index));
            files
        }
        Form::Safetensors => safetensors::lay_out(&planned, &shares, options, &mut notes)?,
    };
    let mut layout = Layout::directory();
    let mut sizes = Vec::with_capacity(files.len());
    for (name, file) in files {
        if name != ".metadata" {
            sizes.push((name.clone(), file.len()));
        }
        layout.add(EntryPath::new(&name)?, file)?;
    }
    Ok(Plan { layout, files: sizes, chunks, notes })
}

fn part(entry: &Entry, splitter: &mut Splitter<'_>) -> Result<Part> {
    let bytes = match entry.kind() {
        EntryKind::Tensor(tensor) => {
            check(tensor)?;
            tensor.byte_len()
        }
        EntryKind::Bytes(_) => 0,
    };
    Ok(Part { split: splitter.split(entry)?, bytes })
}

/// Refuses what no checkpoint of torch can hold.
fn check(tensor: &Tensor) -> Result<()> {
    match tensor.bytes() {
        TensorBytes::None(why) => {
            return Err(Error::unsupported(format!("there are no bytes to write: {why}"))
                .hint("leave the tensor out"));
        }
        TensorBytes::Broken(e) => return Err(e.clone()),
        _ => {}
    }
    let dtype = tensor.dtype();
    if dtype.torch_name().is_none() {
        return Err(Error::unsupported(format!("torch has no dtype {dtype}"))
            .hint("cast the tensor to a dtype that it has, or leave the tensor out"));
    }
    if dtype.class() == DtypeClass::Quantized {
        return Err(Error::unsupported(format!(
            "{dtype} is the integer part of a quantized tensor, whose scale has no place here"
        ))
        .hint("leave the tensor out, or keep the whole object as an entry of bytes"));
    }
    if dtype == Dtype::F4 && tensor.shape().last().is_none_or(|n| n % 2 != 0) {
        return Err(Error::unsupported(format!(
            "torch keeps two {dtype} in a byte, a last dimension of {:?} cannot be halved",
            tensor.shape()
        )));
    }
    Ok(())
}
