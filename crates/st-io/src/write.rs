//! Tensors to files: every byte decided before any is written.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use ckptkit_core::{EntryPath, Error, Layout, OutputFile, Result, Segment, Tensor, TensorBytes};

use crate::header::{MAX_HEADER_BYTES, REMOTE_HEADER_BYTES, long_header};
use crate::index;
use crate::split::split;

/// In what order tensors lie in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// As the reference writer orders them: by dtype, largest alignment first, then by name.
    #[default]
    Reference,
    /// As they are given, which reads a source from front to back. Legal for every reader.
    Source,
}

/// How safetensors files are laid out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WriteOptions {
    /// The data starts at a multiple of this many bytes: a multiple of 8. Default 8, as the
    /// reference writer.
    pub align: u64,
    /// The order of tensors in a file.
    pub order: Order,
    /// Removed name → kept name. Goes into `__metadata__` of a single file and into the `metadata`
    /// of an index, where Hugging Face libraries put it; never over a key that is there.
    pub aliases: BTreeMap<String, String>,
    /// Bytes of tensors that a shard may hold. Default 5 GB (10^9), as `huggingface_hub`.
    pub max_shard_bytes: u64,
    /// What files of a directory are called: `model` (the default), `diffusion_pytorch_model`, …
    pub stem: String,
    /// A variant such as `fp16`, put into the names as diffusers does.
    pub variant: Option<String>,
    /// Further `metadata` of the index, beside `total_size`.
    pub index_metadata: BTreeMap<String, String>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            align: 8,
            order: Order::default(),
            aliases: BTreeMap::new(),
            max_shard_bytes: 5_000_000_000,
            stem: "model".into(),
            variant: None,
            index_metadata: BTreeMap::new(),
        }
    }
}

impl WriteOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// What would be written, and what the caller should know about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The files.
    pub layout: Layout,
    /// Names of the shards and the bytes of tensors in each; one for a single file.
    pub shards: Vec<(String, u64)>,
    /// What is legal but may surprise.
    pub notes: Vec<String>,
}

/// Lays out one file. Reads no tensor.
///
/// The bytes are those of the reference writer for the same tensors, as long as there is at most
/// one metadata key (it writes several in random order; here they are sorted).
///
/// ```
/// use std::collections::BTreeMap;
/// use ckptkit_core::{CopyOptions, Dtype, Existing, Section, Tensor, TensorBytes, TensorInfo};
/// use st_io::{StFile, WriteOptions, layout_file};
///
/// # fn main() -> ckptkit_core::Result<()> {
/// let info = TensorInfo::new("w", Dtype::U8, [2])?;
/// let w = Tensor::new(info, TensorBytes::Range(Section::from_bytes([7, 9], "memory")))?;
/// let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
/// let layout = layout_file(&[w], &metadata, &WriteOptions::new())?;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("w.safetensors");
/// layout.write(&path, Existing::Refuse, &CopyOptions::default())?;
/// assert_eq!(StFile::open(&path)?.tensor("w")?.read()?, [7, 9]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// All before a byte is written, naming the tensor:
/// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for names that a file cannot hold
/// (twice the same, `__metadata__`) and for options that do not fit;
/// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for dtypes that the format lacks and for
/// tensors without bytes; [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) for a header
/// over 100 MB.
pub fn layout_file(
    tensors: &[Tensor],
    metadata: &BTreeMap<String, String>,
    options: &WriteOptions,
) -> Result<Layout> {
    Ok(plan_file(tensors, metadata, options)?.layout)
}

/// As [`layout_file`], with what the caller should know about the result.
///
/// # Errors
/// As [`layout_file`].
pub fn plan_file(
    tensors: &[Tensor],
    metadata: &BTreeMap<String, String>,
    options: &WriteOptions,
) -> Result<Plan> {
    check(tensors, options)?;
    let mut notes = Vec::new();
    let metadata = with_aliases(metadata, &options.aliases);
    note_format(&metadata, &mut notes);
    let file = file(tensors.iter().collect(), &metadata, options, &mut notes)?;
    let bytes = tensors.iter().map(Tensor::byte_len).sum();
    Ok(Plan { layout: Layout::file(file), shards: vec![(shard_name(options, None), bytes)], notes })
}

/// Lays out a directory: shards by the rule of `huggingface_hub` (see [`split`]) and their index,
/// or one file without an index where everything fits into one shard. `metadata` goes into every
/// shard. Reads no tensor.
///
/// # Errors
/// As [`layout_file`]; `InvalidArgument` too for a stem or variant that is no plain file name.
pub fn layout_sharded(
    tensors: &[Tensor],
    metadata: &BTreeMap<String, String>,
    options: &WriteOptions,
) -> Result<Layout> {
    Ok(plan_sharded(tensors, metadata, options)?.layout)
}

/// As [`layout_sharded`], with what the caller should know about the result.
///
/// # Errors
/// As [`layout_sharded`].
pub fn plan_sharded(
    tensors: &[Tensor],
    metadata: &BTreeMap<String, String>,
    options: &WriteOptions,
) -> Result<Plan> {
    check(tensors, options)?;
    if options.max_shard_bytes == 0 {
        return Err(
            Error::invalid("a shard of 0 bytes holds nothing").hint("give a size such as 5GB")
        );
    }
    let shards = split(tensors, options.max_shard_bytes);
    let mut notes = Vec::new();
    let mut layout = Layout::directory();
    let mut sizes = Vec::with_capacity(shards.len());
    if shards.len() <= 1 {
        let name = shard_name(options, None);
        let metadata = with_aliases(metadata, &options.aliases);
        note_format(&metadata, &mut notes);
        let file = file(tensors.iter().collect(), &metadata, options, &mut notes)?;
        layout.add(plain(&name)?, file)?;
        sizes.push((name, tensors.iter().map(Tensor::byte_len).sum()));
        return Ok(Plan { layout, shards: sizes, notes });
    }
    note_format(metadata, &mut notes);
    let mut weight_map = BTreeMap::new();
    for (i, members) in shards.iter().enumerate() {
        let name = shard_name(options, Some((i + 1, shards.len())));
        let members: Vec<&Tensor> = members.iter().map(|i| &tensors[*i]).collect();
        sizes.push((name.clone(), members.iter().map(|t| t.byte_len()).sum()));
        weight_map.extend(members.iter().map(|t| (t.name(), i)));
        layout.add(plain(&name)?, file(members, metadata, options, &mut notes)?)?;
    }
    let index = index::render(
        sizes.iter().map(|(_, bytes)| bytes).sum(),
        &with_aliases(&options.index_metadata, &options.aliases),
        weight_map.iter().map(|(name, shard)| (*name, sizes[*shard].0.as_str())),
    );
    let variant = options.variant.as_ref().map_or(String::new(), |v| format!(".{v}"));
    let mut file = OutputFile::default();
    file.push(Segment::Literal(index.into_bytes()))?;
    layout.add(plain(&format!("{}.safetensors.index{variant}.json", options.stem))?, file)?;
    Ok(Plan { layout, shards: sizes, notes })
}

/// accelerate and huggingface_hub take no metadata for `pt`, and refuse metadata that does not say.
fn note_format(metadata: &BTreeMap<String, String>, notes: &mut Vec<String>) {
    if !metadata.is_empty() && !metadata.contains_key("format") {
        notes.push(
            "the metadata has no \"format\", without which accelerate and huggingface_hub refuse \
             the file: add \"format\": \"pt\""
                .into(),
        );
    }
}

fn shard_name(options: &WriteOptions, number: Option<(usize, usize)>) -> String {
    let mut name = options.stem.clone();
    if let Some(variant) = &options.variant {
        name = format!("{name}.{variant}");
    }
    if let Some((k, n)) = number {
        name = format!("{name}-{k:05}-of-{n:05}");
    }
    name + ".safetensors"
}

fn plain(name: &str) -> Result<EntryPath> {
    let path = EntryPath::new(name)?;
    if name.contains('/') {
        return Err(Error::invalid(format!("{name:?} is no plain file name"))
            .hint("a stem or a variant cannot contain '/'"));
    }
    Ok(path)
}

fn with_aliases(
    metadata: &BTreeMap<String, String>,
    aliases: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut out = aliases.clone();
    out.extend(metadata.iter().map(|(k, v)| (k.clone(), v.clone())));
    out
}

fn check(tensors: &[Tensor], options: &WriteOptions) -> Result<()> {
    if options.align == 0 || options.align % 8 != 0 || options.align > 1 << 20 {
        return Err(Error::invalid(format!(
            "an alignment of {} bytes is not possible, expected a multiple of 8 up to 1 MiB",
            options.align
        )));
    }
    let mut names = HashSet::with_capacity(tensors.len());
    for tensor in tensors {
        let place = |e: Error| Err(e.within(format_args!("tensor {}", tensor.name())));
        let dtype = tensor.dtype();
        if tensor.name() == "__metadata__" {
            return place(
                Error::invalid("the name is reserved by the format").hint("rename the tensor"),
            );
        }
        if !names.insert(tensor.name()) {
            return place(Error::invalid("two tensors have this name").hint("rename one of them"));
        }
        if dtype.safetensors_name().is_none() {
            return place(
                Error::unsupported(format!("the safetensors format has no dtype {dtype}"))
                    .hint("cast the tensor to a dtype that it has, or leave the tensor out"),
            );
        }
        if u128::from(tensor.info().numel()) * u128::from(dtype.bits()) % 8 != 0 {
            return place(Error::unsupported(format!(
                "{dtype} of shape {:?} is not a whole number of bytes, which the format asks for",
                tensor.shape()
            )));
        }
        let without_bytes = match tensor.bytes() {
            TensorBytes::None(why) => {
                Some(Error::unsupported(format!("there are no bytes to write: {why}")))
            }
            TensorBytes::Broken(error) => Some(error.clone()),
            _ => None,
        };
        if let Some(error) = without_bytes {
            return place(error.hint("leave the tensor out"));
        }
    }
    Ok(())
}

fn file(
    mut tensors: Vec<&Tensor>,
    metadata: &BTreeMap<String, String>,
    options: &WriteOptions,
    notes: &mut Vec<String>,
) -> Result<OutputFile> {
    if options.order == Order::Reference {
        tensors.sort_by_key(|t| (Reverse(t.dtype()), t.name()));
    }
    let header = header(&tensors, metadata, options.align)?;
    if header.len() as u64 - 8 > REMOTE_HEADER_BYTES {
        notes.push(long_header(header.len() as u64 - 8));
    }
    let mut file = OutputFile::default();
    file.push(Segment::Literal(header))?;
    for tensor in tensors {
        file.push(Segment::Tensor(tensor.clone()))?;
    }
    Ok(file)
}

/// The length, the JSON and its padding.
fn header(tensors: &[&Tensor], metadata: &BTreeMap<String, String>, align: u64) -> Result<Vec<u8>> {
    const LENGTH: usize = 8;
    let mut json = String::with_capacity(16 + tensors.len() * 96);
    // The length takes the place of these.
    json.push_str(&"\0".repeat(LENGTH));
    json.push('{');
    if !metadata.is_empty() {
        json.push_str("\"__metadata__\":{");
        for (i, (key, value)) in metadata.iter().enumerate() {
            json.push_str(if i == 0 { "" } else { "," });
            index::quote(&mut json, key, false);
            json.push(':');
            index::quote(&mut json, value, false);
        }
        json.push('}');
    }
    let mut offset = 0_u64;
    for tensor in tensors {
        let end = offset
            .checked_add(tensor.byte_len())
            .ok_or_else(|| Error::limit("the file would be longer than a file can be"))?;
        json.push_str(if json.len() == LENGTH + 1 { "" } else { "," });
        index::quote(&mut json, tensor.name(), false);
        let _ = write!(json, ":{{\"dtype\":\"{}\",\"shape\":[", tensor.dtype().name());
        for (i, dim) in tensor.shape().iter().enumerate() {
            let _ = write!(json, "{}{dim}", if i == 0 { "" } else { "," });
        }
        let _ = write!(json, "],\"data_offsets\":[{offset},{end}]}}");
        offset = end;
    }
    json.push('}');
    let n = (json.len() as u64).next_multiple_of(align) - LENGTH as u64;
    if n > MAX_HEADER_BYTES {
        return Err(Error::limit(format!(
            "the header would have {n} bytes, the format allows {MAX_HEADER_BYTES}"
        ))
        .hint("write a directory of shards, or fewer tensors"));
    }
    let len = usize::try_from(n).map_err(|_| Error::limit("no memory for the header"))?;
    let mut out = json.into_bytes();
    out.resize(LENGTH + len, b' ');
    out[..LENGTH].copy_from_slice(&n.to_le_bytes());
    out.shrink_to_fit();
    Ok(out)
}
