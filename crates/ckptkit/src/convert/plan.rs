//! From a checkpoint and wishes to a layout.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use ckptkit_core::{CopyOptions, Dtype, Error, Existing, Layout, Result, Tensor, TensorBytes};

use super::report::{Kind, LeftOut, Report};
use super::side;
use crate::checkpoint::Checkpoint;
use crate::select::{Glob, Selection};
use crate::weights::Weights;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// One safetensors file.
    SafetensorsFile,
    /// A Hugging Face directory: one file, or shards and their index; the config and the artifacts
    /// beside them.
    SafetensorsDirectory,
}

impl Target {
    /// The target that a destination's name asks for.
    ///
    /// # Errors
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for names of formats that are not
    /// written.
    pub fn of(destination: &Path) -> Result<Self> {
        let name = destination
            .file_name()
            .map(|n| n.to_string_lossy().to_ascii_lowercase())
            .unwrap_or_default();
        let suffix = name.rsplit_once('.').map(|(_, s)| s);
        match suffix {
            Some("safetensors") => Ok(Self::SafetensorsFile),
            Some(suffix @ ("nemo" | "ckpt" | "pt" | "pth" | "bin")) => Err(Error::unsupported(
                format!("writing .{suffix} files is not possible in this version"),
            )
            .in_file(destination)
            .hint("give a name that ends in .safetensors, or a directory")),
            _ => Ok(Self::SafetensorsDirectory),
        }
    }
}

/// What becomes of names that share one tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Aliases {
    /// The alphabetically first name is written, the others are recorded in the metadata.
    #[default]
    Drop,
    /// Each name is written with its own bytes.
    Copy,
    /// Refuse.
    Error,
}

/// A conversion as it is wished for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Convert {
    /// What is written.
    pub target: Target,
    /// Which tensors, and under what names.
    pub selection: Selection,
    /// The key of the weights, where the rules should not decide.
    pub weights_key: Option<String>,
    /// The type that floating-point tensors are cast to; others stay what they are.
    pub dtype: Option<Dtype>,
    /// What becomes of tied names.
    pub aliases: Aliases,
    /// Bytes of tensors that one shard of a directory may hold.
    pub max_shard_bytes: u64,
    /// The data of a safetensors file starts at a multiple of this many bytes.
    pub align: u64,
    /// Whether tensors keep the order of the source, which reads it from front to back.
    pub source_order: bool,
}

impl Convert {
    /// Converts the weights, all of them, under their names.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            selection: Selection::new(),
            weights_key: None,
            dtype: None,
            aliases: Aliases::default(),
            max_shard_bytes: 5_000_000_000,
            align: 8,
            source_order: false,
        }
    }

    /// Lays the destination out. Reads no tensor and writes nothing; everything that can be
    /// refused is refused here.
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) when nothing is selected,
    /// two tensors get one name, the dtype to cast to is no float, or it is not clear which tensors
    /// are the weights;
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for a dtype that the target lacks and
    /// for entries without bytes, naming the tensor and the way out; what keeps a tensor from
    /// being read, as far as it is known.
    pub fn plan(&self, checkpoint: &Checkpoint, destination: impl AsRef<Path>) -> Result<Plan> {
        let destination = destination.as_ref();
        if let Some(dtype) = self.dtype.filter(|d| !d.is_castable()) {
            return Err(Error::invalid(format!("tensors are not cast to {dtype}"))
                .hint("give a floating-point type: F64, F32, BF16, F16, F8_E4M3, …"));
        }
        let weights = match &self.weights_key {
            Some(key) => checkpoint.weights_under(key)?,
            None => checkpoint.weights()?,
        };
        let mut report = Report {
            source: checkpoint.path().to_path_buf(),
            destination: destination.to_path_buf(),
            format: "safetensors",
            files: 0,
            tensors: 0,
            bytes: 0,
            renamed: BTreeMap::new(),
            cast: BTreeMap::new(),
            aliases: BTreeMap::new(),
            left_out: Vec::new(),
            notes: checkpoint.notes().to_vec(),
        };
        let mut chosen = self.choose(checkpoint, &weights, &mut report)?;
        for tensor in &mut chosen {
            self.cast(tensor, &mut report)?;
            writable(tensor).map_err(|e| e.in_file(checkpoint.path()))?;
        }
        let kept = self.untie(chosen, &mut report)?;
        report.tensors = kept.len();
        report.bytes = kept.iter().map(Tensor::byte_len).sum();
        values_left_out(checkpoint, self.target, &mut report);
        let layout = self.layout(checkpoint, &kept, &mut report)?;
        report.files = layout.files().count();
        Ok(Plan { tensors: kept, layout, report, destination: destination.to_path_buf() })
    }

    /// The tensors that are wanted, under their new names; the others go into the report.
    fn choose(
        &self,
        checkpoint: &Checkpoint,
        weights: &Weights,
        report: &mut Report,
    ) -> Result<Vec<Tensor>> {
        let mut chosen = Vec::new();
        let mut origin: HashMap<String, &str> = HashMap::new();
        for (tensor, full) in weights.tensors.iter().zip(&weights.full_names) {
            if let Some(why) = self.selection.leaves_out(tensor.name()) {
                report.left_out.push(LeftOut { path: full.clone(), kind: Kind::Tensor, why });
                continue;
            }
            let name = self.selection.renamed(tensor.name());
            if let Some(other) = origin.insert(name.clone(), tensor.name()) {
                return Err(Error::invalid(format!(
                    "{other:?} and {:?} would both be called {name:?}",
                    tensor.name()
                ))
                .hint("change the renaming, or leave one out with --exclude"));
            }
            if name == tensor.name() {
                chosen.push(tensor.clone());
            } else {
                report.renamed.insert(tensor.name().to_owned(), name.clone());
                chosen.push(tensor.renamed(name));
            }
        }
        if chosen.is_empty()
            && !(weights.tensors.is_empty()
                && self.selection.select.is_empty()
                && self.selection.exclude.is_empty())
        {
            let names: Vec<&str> = weights.tensors.iter().map(Tensor::name).take(3).collect();
            return Err(Error::invalid("no tensor is selected").in_file(checkpoint.path()).hint(
                format!(
                    "the weights have {} tensors with names such as {}",
                    weights.tensors.len(),
                    names.join(", ")
                ),
            ));
        }
        let taken: HashSet<&str> = weights.full_names.iter().map(String::as_str).collect();
        for tensor in checkpoint.tensors().filter(|t| !taken.contains(t.name())) {
            report.left_out.push(LeftOut {
                path: tensor.name().to_owned(),
                kind: Kind::Tensor,
                why: "not one of the model's weights".into(),
            });
        }
        for (full, e) in checkpoint.failures() {
            let name = match &weights.key {
                Some(key) => full.strip_prefix(key.as_str()).and_then(|n| n.strip_prefix('.')),
                None => Some(full.as_str()),
            };
            match name {
                Some(name) if self.selection.leaves_out(name).is_none() => {
                    return Err(e.clone().hint(way_out(name)));
                }
                _ => report.left_out.push(LeftOut {
                    path: full.clone(),
                    kind: Kind::Tensor,
                    why: e.message().to_owned(),
                }),
            }
        }
        Ok(chosen)
    }

    /// Casts a tensor, where that is wished for and it is of floating point.
    fn cast(&self, tensor: &mut Tensor, report: &mut Report) -> Result<()> {
        let Some(target) = self.dtype else { return Ok(()) };
        let source = tensor.dtype();
        if source != target && source.is_castable() && tensor.has_bytes() {
            *tensor = tensor.cast(target)?;
            let names = (source.name().to_owned(), target.name().to_owned());
            report.cast.insert(tensor.name().to_owned(), names);
        }
        Ok(())
    }

    /// Applies the policy for names that share one tensor.
    fn untie(&self, tensors: Vec<Tensor>, report: &mut Report) -> Result<Vec<Tensor>> {
        if self.aliases == Aliases::Copy {
            return Ok(tensors);
        }
        // Names of one storage, by what they see of it.
        let mut groups: HashMap<_, Vec<usize>> = HashMap::new();
        for (i, tensor) in tensors.iter().enumerate() {
            if let Some(id) = tensor.info().storage() {
                groups.entry(id).or_default().push(i);
            }
        }
        let mut removed: HashMap<usize, usize> = HashMap::new();
        for members in groups.into_values().filter(|m| m.len() > 1) {
            let mut by_name = members;
            by_name.sort_by(|&a, &b| tensors[a].name().cmp(tensors[b].name()));
            for (k, &later) in by_name.iter().enumerate() {
                let kept = by_name[..k].iter().find(|&&first| {
                    !removed.contains_key(&first) && tensors[first].is_tied_with(&tensors[later])
                });
                if let Some(&first) = kept {
                    removed.insert(later, first);
                }
            }
        }
        if self.aliases == Aliases::Error {
            if let Some((&later, &first)) = removed.iter().min() {
                return Err(Error::invalid(format!(
                    "{:?} and {:?} share one tensor",
                    tensors[first].name(),
                    tensors[later].name()
                ))
                .hint("write one of them (--aliases drop) or both (--aliases copy)"));
            }
        }
        for (&later, &first) in &removed {
            report
                .aliases
                .insert(tensors[later].name().to_owned(), tensors[first].name().to_owned());
        }
        Ok(tensors
            .into_iter()
            .enumerate()
            .filter(|(i, _)| !removed.contains_key(i))
            .map(|(_, t)| t)
            .collect())
    }

    fn layout(
        &self,
        checkpoint: &Checkpoint,
        tensors: &[Tensor],
        report: &mut Report,
    ) -> Result<Layout> {
        let mut metadata: BTreeMap<String, String> = checkpoint.metadata().clone();
        // What described the source's pieces, or names that are tied again, is not true any more.
        metadata.retain(|k, v| {
            !k.starts_with("DCP_")
                && !checkpoint.tensors().any(|t| t.name() == k && checkpoint.tensor(v).is_ok())
        });
        metadata.insert("format".into(), "pt".into());
        let mut options = st_io::WriteOptions::new();
        options.align = self.align;
        options.order =
            if self.source_order { st_io::Order::Source } else { st_io::Order::Reference };
        options.aliases = report.aliases.clone();
        options.max_shard_bytes = self.max_shard_bytes;
        let plan = match self.target {
            Target::SafetensorsFile => st_io::plan_file(tensors, &metadata, &options)?,
            Target::SafetensorsDirectory => st_io::plan_sharded(tensors, &metadata, &options)?,
        };
        report.notes.extend(plan.notes);
        let mut layout = plan.layout;
        if self.target == Target::SafetensorsDirectory {
            side::add(checkpoint, &mut layout, &mut report.left_out, &mut report.notes)?;
        }
        Ok(layout)
    }
}

/// How to do without a tensor, in words that a shell takes whatever the name has in it.
fn way_out(name: &str) -> String {
    format!("leave it out with --exclude '{}'", Glob::escape(name).replace('\'', "'\\''"))
}

/// Whether the target can hold a tensor; if not, the error says the way out.
fn writable(tensor: &Tensor) -> Result<()> {
    let place = format!("tensor {}", tensor.name());
    match tensor.bytes() {
        TensorBytes::None(why) => {
            return Err(Error::unsupported(format!("there are no bytes to write: {why}"))
                .within(place)
                .hint(way_out(tensor.name())));
        }
        TensorBytes::Broken(e) => return Err(e.clone().within(place).hint(way_out(tensor.name()))),
        _ => {}
    }
    if tensor.dtype().safetensors_name().is_none() {
        return Err(Error::unsupported(format!("safetensors has no dtype {}", tensor.dtype()))
            .within(place)
            .hint(way_out(tensor.name())));
    }
    tensor
        .check_expansion(&ckptkit_core::Limits::default())
        .map_err(|e| e.hint(way_out(tensor.name())))
}

/// Everything else that the source has: values, and what a single file has no place for.
fn values_left_out(checkpoint: &Checkpoint, target: Target, report: &mut Report) {
    let mut add = |path: String, kind, why: &str| {
        report.left_out.push(LeftOut { path, kind, why: why.to_owned() })
    };
    let in_directory = target == Target::SafetensorsDirectory;
    let config = checkpoint.config().ok().flatten();
    for key in checkpoint.value_keys() {
        if !(in_directory && config.as_ref().is_some_and(|c| c.origin == key)) {
            add(key, Kind::Value, "safetensors holds tensors only");
        }
    }
    if in_directory {
        return;
    }
    if let Some(config) = config.filter(|c| c.text.is_some()) {
        add(
            config.origin,
            Kind::Artifact,
            "a single file has no place for it; a directory target keeps it",
        );
    }
    for artifact in checkpoint.artifacts() {
        add(
            artifact.name.clone(),
            Kind::Artifact,
            "a single file has no place for it; a directory target keeps it",
        );
    }
}

/// A conversion that is ready to run.
#[derive(Debug)]
pub struct Plan {
    tensors: Vec<Tensor>,
    layout: Layout,
    report: Report,
    destination: PathBuf,
}

impl Plan {
    /// What will be done.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Every output byte.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Writes. The destination appears whole or not at all.
    ///
    /// # Errors
    /// As [`Layout::write`]; with [`Existing::Replace`] also
    /// [`Denied`](ckptkit_core::ErrorKind::Denied) when the destination is a directory that holds
    /// something else than a checkpoint.
    pub fn write(&self, existing: Existing, options: &CopyOptions<'_>) -> Result<Report> {
        if existing == Existing::Replace && self.layout.is_directory() {
            nothing_foreign(&self.destination, &self.layout)?;
        }
        self.layout.write(&self.destination, existing, options)?;
        Ok(self.report.clone())
    }

    /// Writes, then reads the output back and compares every tensor with the source, byte for
    /// byte, in bounded memory.
    ///
    /// # Errors
    /// As [`Plan::write`]; [`Io`](ckptkit_core::ErrorKind::Io) naming the tensor that differs. The
    /// output is then there, for whoever looks into it.
    pub fn write_verified(&self, existing: Existing, options: &CopyOptions<'_>) -> Result<Report> {
        let report = self.write(existing, options)?;
        let written = Checkpoint::open(&self.destination)?;
        for tensor in &self.tensors {
            compare(tensor, &written.tensor(tensor.name())?)
                .map_err(|e| e.in_file(&self.destination))?;
        }
        Ok(report)
    }
}

/// Compares two tensors a few MiB at a time.
fn compare(source: &Tensor, written: &Tensor) -> Result<()> {
    const BLOCK: u64 = 4 << 20;
    let differs = |what: String| {
        Error::new(ckptkit_core::ErrorKind::Io, what)
            .within(format_args!("tensor {}", source.name()))
            .hint("the disk or the memory of this machine may be failing: write it again")
    };
    if (source.dtype(), source.shape()) != (written.dtype(), written.shape()) {
        return Err(differs(format!(
            "{} {:?} was written as {} {:?}",
            source.dtype(),
            source.shape(),
            written.dtype(),
            written.shape()
        )));
    }
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < source.byte_len() {
        let n = usize::try_from(BLOCK.min(source.byte_len() - at)).unwrap_or(0);
        a.resize(n, 0);
        b.resize(n, 0);
        source.read_into(at, &mut a)?;
        written.read_into(at, &mut b)?;
        if let Some(i) = a.iter().zip(&b).position(|(x, y)| x != y) {
            return Err(differs(format!("byte {} differs from the source", at + i as u64)));
        }
        at += n as u64;
    }
    Ok(())
}

/// Refuses to replace a directory with anything in it that no checkpoint has. What a reader takes
/// for an artifact proves nothing: that is every file beside the tensors.
fn nothing_foreign(directory: &Path, layout: &Layout) -> Result<()> {
    let files = below(directory)?;
    if files.is_empty() {
        return Ok(());
    }
    Checkpoint::open(directory).map_err(|e| {
        Error::denied(format!(
            "the directory is not replaced, since it holds no checkpoint ({})",
            e.message()
        ))
        .in_file(directory)
        .hint("choose another destination")
    })?;
    let written: HashSet<&str> =
        layout.files().filter_map(|(path, _)| path.map(|p| p.as_str())).collect();
    match files.iter().find(|name| !belongs(name) && !written.contains(name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Error::denied(format!(
            "the directory is not replaced, since {name} in it belongs to no checkpoint"
        ))
        .in_file(directory)
        .hint("move it away, or choose another destination")),
    }
}

/// Every file below a directory, by its path from there, `/` between parts; a link is a file.
fn below(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut pending = vec![(directory.to_path_buf(), String::new())];
    while let Some((at, prefix)) = pending.pop() {
        if prefix.is_empty() && !at.is_dir() {
            break;
        }
        let io = |e| Error::io("list the directory", e).in_file(&at);
        for entry in std::fs::read_dir(&at).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().map_err(io)?.is_dir() {
                pending.push((entry.path(), name + "/"));
            } else {
                found.push(name);
            }
        }
    }
    Ok(found)
}

/// Whether a file of this name is one that writers of checkpoints put there.
fn belongs(path: &str) -> bool {
    const SUFFIXES: [&str; 8] = [
        ".safetensors",
        ".json",
        ".distcp",
        ".metadata",
        ".model",
        ".vocab",
        ".jinja",
        ".tiktoken",
    ];
    const NAMES: [&str; 7] = [
        "model_config.yaml",
        "model_weights.ckpt",
        "meta.pt",
        "common.pt",
        "README.md",
        "vocab.txt",
        "merges.txt",
    ];
    let name = path.rsplit('/').next().unwrap_or(path);
    // NeMo puts 32 hexadecimal digits before the name of an artifact.
    let nemo = name
        .split_once('_')
        .is_some_and(|(id, _)| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    nemo || NAMES.contains(&name) || SUFFIXES.iter().any(|s| name.ends_with(s))
}
