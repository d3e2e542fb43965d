//! Shards written by torch's distributed checkpoint (`HuggingFaceStorageWriter`): every file holds
//! pieces of tensors, and says where each piece begins.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ckptkit_core::{
    Chunk, Dtype, Error, Region, Result, ResultExt, Section, Tensor, TensorBytes, TensorInfo,
    TensorSource, no_such_tensor,
};

use crate::directory::{Directory, dcp_shard, some};
use crate::file::StFile;
use crate::header::StDtype;
use crate::options::OpenOptions;
use crate::sharded::Shard;
use crate::tiling;

use info::{SavedOffsets, sharding_info};

mod info;

/// The metadata key that holds where the pieces of a file begin, as JSON text.
pub(crate) const SHARDING_INFO: &str = "DCP_SHARDING_INFO";

/// A checkpoint of pieces, put together: each tensor is listed whole and lies in several files.
/// Cheap to clone; keeps every file open.
#[derive(Clone)]
pub struct DcpShards(Arc<Inner>);

struct Inner {
    files: Vec<(String, StFile)>,
    directory: Option<Directory>,
    tensors: Vec<Tensor>,
    names: HashMap<String, usize>,
    unknown: Vec<Error>,
    metadata: BTreeMap<String, String>,
    notes: Vec<String>,
}

struct Piece {
    file: usize,
    region: Region,
    tensor: Tensor,
}

impl DcpShards {
    /// Opens a directory of such files. Reads the header of each, which is opened once.
    ///
    /// # Errors
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) where pieces of a tensor overlap, leave a
    /// hole, or differ in dtype or rank; [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for
    /// a file that holds entries other than tensors.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(directory, &OpenOptions::default())
    }

    /// As [`DcpShards::open`], with options.
    ///
    /// # Errors
    /// As [`DcpShards::open`].
    pub fn open_with(directory: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        fn inner(path: &Path, options: &OpenOptions) -> Result<DcpShards> {
            let directory = Directory::scan(path, options)?;
            let (pieces, others): (Vec<&str>, Vec<&str>) =
                directory.tensor_files().partition(|n| dcp_shard(n).is_some());
            if pieces.is_empty() {
                return Err(Error::not_found(
                    "no files such as shard-00001-model-00001-of-00001.\
                     safetensors",
                )
                .in_file(path));
            }
            let mut notes = Vec::new();
            if !others.is_empty() {
                notes.push(format!("not pieces and not read: {}", some(others.iter().copied())));
            }
            let open = |name: &&str| {
                let section = directory.open(name)?;
                refuse_archive(&section)?;
                let file = StFile::from_section_with(section, &options.limits)?;
                Ok(((*name).to_owned(), file))
            };
            let files = pieces.iter().map(open).collect::<Result<Vec<_>>>()?;
            DcpShards::assemble(Some(directory), files, notes).in_file(path)
        }
        inner(directory.as_ref(), options)
    }

    /// Puts opened files together; their names serve messages and the check for gaps.
    ///
    /// # Errors
    /// As [`DcpShards::open`].
    pub fn from_files(files: impl IntoIterator<Item = (String, StFile)>) -> Result<Self> {
        Self::assemble(None, files.into_iter().collect(), Vec::new())
    }

    fn assemble(
        directory: Option<Directory>,
        files: Vec<(String, StFile)>,
        mut notes: Vec<String>,
    ) -> Result<Self> {
        note_gaps(files.iter().map(|(n, _)| n.as_str()), &mut notes);
        let mut order: Vec<Vec<Piece>> = Vec::new();
        let mut names: HashMap<String, usize> = HashMap::new();
        let mut unknown = Vec::new();
        let mut metadata = BTreeMap::new();
        for (index, (name, file)) in files.iter().enumerate() {
            let offsets = sharding_info(file).within(|| format!("file {name}"))?;
            for entry in file.entries() {
                let StDtype::Known(_) = entry.dtype() else {
                    unknown.push(entry.unknown_dtype().within(format_args!("file {name}")));
                    continue;
                };
                let piece = piece(index, file.at(entry)?, offsets.as_ref())
                    .within(|| format!("tensor {}", entry.name()))
                    .within(|| format!("file {name}"))?;
                let at = *names.entry(entry.name().to_owned()).or_insert(order.len());
                if at == order.len() {
                    order.push(Vec::new());
                }
                order[at].push(piece);
            }
            let plain = file.metadata().iter().filter(|(k, _)| *k != SHARDING_INFO);
            for (key, value) in plain {
                metadata.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        if let Some(first) = unknown.first() {
            notes.push(format!("{} pieces cannot be read: {first}", unknown.len()));
        }
        let file_name = |i: usize| files[i].0.clone();
        let tensors = (order.into_iter())
            .map(|pieces| whole(pieces, &file_name))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self(Arc::new(Inner { files, directory, tensors, names, unknown, metadata, notes })))
    }

    /// What the tensors are, whole, in the order in which the files first mention them.
    pub fn infos(&self) -> impl Iterator<Item = &TensorInfo> {
        self.0.tensors.iter().map(Tensor::info)
    }

    /// The lazy tensors, whole.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.0.tensors
    }

    /// Looks a tensor up. Reads nothing of it.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound).
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        match self.0.names.get(name) {
            Some(i) => Ok(self.0.tensors[*i].clone()),
            None => Err(no_such_tensor(name, self.infos().map(TensorInfo::name))),
        }
    }

    /// `__metadata__` of the files, put together, without the places of their pieces.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.0.metadata
    }

    /// The files.
    pub fn shards(&self) -> impl Iterator<Item = Shard> + '_ {
        let root = self.0.directory.as_ref().map(Directory::path).unwrap_or(Path::new(""));
        (self.0.files.iter())
            .map(move |(n, f)| Shard { path: root.join(n), bytes: f.section().len() })
    }

    /// The opened files and their names.
    pub fn files(&self) -> impl Iterator<Item = (&str, &StFile)> {
        self.0.files.iter().map(|(n, f)| (n.as_str(), f))
    }

    /// What is legal but strange, such as a gap in the numbers of the files.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// The strict check: no piece has an unknown dtype, and [`StFile::verify`] of every file.
    ///
    /// # Errors
    /// The first thing found.
    pub fn verify(&self) -> Result<()> {
        self.0.unknown.first().map_or(Ok(()), |e| Err(e.clone()))?;
        self.0.files.iter().try_for_each(|(_, f)| f.verify())
    }
}

/// Where a piece begins: offsets in the elements that torch counts.
fn piece(file: usize, tensor: Tensor, info: Option<&SavedOffsets>) -> Result<Piece> {
    let rank = tensor.shape().len();
    let mut offsets = match info {
        None => vec![0; rank],
        Some(info) => info.get(tensor.name()).cloned().ok_or_else(|| {
            Error::malformed(format!("{SHARDING_INFO} does not say where this piece begins"))
        })?,
    };
    if offsets.len() != rank {
        return Err(Error::malformed(format!(
            "saved_offsets {offsets:?} have {} numbers, the piece has shape {:?}",
            offsets.len(),
            tensor.shape()
        )));
    }
    // torch counts pairs along the last dimension of float4_e2m1fn_x2, the file counts elements.
    if let (Dtype::F4, Some(last)) = (tensor.dtype(), offsets.last_mut()) {
        *last = last.checked_mul(2).ok_or_else(|| Error::malformed("saved_offsets overflow"))?;
    }
    let region = Region { offsets, sizes: tensor.shape().to_vec() };
    Ok(Piece { file, region, tensor })
}

/// Puts the pieces of one tensor together.
fn whole(pieces: Vec<Piece>, file: &dyn Fn(usize) -> String) -> Result<Tensor> {
    let Some(first) = pieces.first().map(|p| p.tensor.clone()) else {
        return Err(Error::invalid("a tensor of no pieces"));
    };
    let place = |e: Error| e.within(format_args!("tensor {}", first.name()));
    for p in &pieces {
        let differs = if p.tensor.dtype() != first.dtype() {
            Some(("dtype", first.dtype().to_string(), p.tensor.dtype().to_string()))
        } else if p.tensor.shape().len() != first.shape().len() {
            let rank = |t: &Tensor| format!("{:?}", t.shape());
            Some(("rank", rank(&first), rank(&p.tensor)))
        } else {
            None
        };
        if let Some((what, a, b)) = differs {
            return Err(place(Error::malformed(format!(
                "pieces differ in {what}: {a} in {}, {b} in {}",
                file(pieces[0].file),
                file(p.file)
            ))));
        }
    }
    let regions: Vec<Region> = pieces.iter().map(|p| p.region.clone()).collect();
    let shape =
        tiling::hull(&regions).ok_or_else(|| place(Error::malformed("saved_offsets overflow")))?;
    tiling::check(&shape, &regions, |i| file(pieces[i].file)).map_err(place)?;
    if let (1, Some(only)) = (pieces.len(), pieces.first()) {
        return Ok(only.tensor.clone());
    }
    let info = TensorInfo::new(first.name(), first.dtype(), shape)?;
    let full = pieces.into_iter().filter(|p| !p.region.is_empty());
    let chunks: Arc<[Chunk]> = full.map(|p| Chunk { region: p.region, tensor: p.tensor }).collect();
    Tensor::new(info, TensorBytes::Chunks(chunks)).map_err(place)
}

/// Ranks are numbered from 1: a missing number may be a missing file.
fn note_gaps<'a>(names: impl Iterator<Item = &'a str>, notes: &mut Vec<String>) {
    let (mut ranks, mut files, mut of) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (rank, number) in names.filter_map(dcp_shard) {
        ranks.insert(rank);
        files.insert(number.number);
        of.insert(number.of);
    }
    for (what, found, last) in
        [("rank", &ranks, ranks.last().copied()), ("file", &files, of.last().copied())]
    {
        let last = last.unwrap_or(0).min(1 << 20);
        let missing: Vec<String> =
            (1..=last).filter(|n| !found.contains(n)).map(|n| n.to_string()).collect();
        if !missing.is_empty() {
            notes.push(format!(
                "no file has the {what} number {} of {last}: tensors may be missing or short",
                some(missing.iter().map(String::as_str))
            ));
        }
    }
    if of.len() > 1 {
        notes.push("the names of the files count different totals: two saves may be mixed".into());
    }
}

/// torch's writer puts entries that are no tensors in front of the tensors, as torch archives.
fn refuse_archive(section: &Section) -> Result<()> {
    let head = section.head::<128>()?;
    if !head.starts_with(b"PK\x03\x04") {
        return Ok(());
    }
    // A zip member's name starts 30 bytes in; its first part is what torch called the archive.
    let name = match head.get(26..28) {
        Some(&[a, b]) => head.get(30..30 + usize::from(u16::from_le_bytes([a, b]))),
        _ => None,
    };
    let key = String::from_utf8_lossy(name.unwrap_or_default()).into_owned();
    Err(Error::unsupported(format!(
        "the file starts with a torch archive (first member {key:?}) where a safetensors header \
         should be: torch writes entries that are no tensors so"
    ))
    .at(0)
    .in_file(section.name())
    .hint("save the checkpoint with tensors only, or without the Hugging Face writer"))
}

impl TensorSource for DcpShards {
    fn infos(&self) -> Box<dyn Iterator<Item = &TensorInfo> + '_> {
        Box::new(self.infos())
    }
    fn tensor(&self, name: &str) -> Result<Tensor> {
        self.tensor(name)
    }
}

impl fmt::Debug for DcpShards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DcpShards({} files, {} tensors)", self.0.files.len(), self.0.tensors.len())
    }
}
