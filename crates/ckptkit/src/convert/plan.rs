//! From a checkpoint and wishes to a layout.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use ckptkit_core::{CopyOptions, Dtype, Error, Existing, Layout, Result, Tensor, TensorBytes};

use super::report::{Kind, LeftOut, Report};
use super::{foreign, side};
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
            filled: BTreeMap::new(),
            left_out: Vec::new(),
            notes: checkpoint.notes().to_vec(),
        };
        let chosen = self.choose(checkpoint, &weights, &mut report)?;
        // What still shares a storage is written whole under each name.
        let kept =
            self.untie(chosen, &mut report)?.iter().map(Tensor::unshared).collect::<Vec<_>>();
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
        let mut refused: Vec<(&str, Error)> = Vec::new();
        let mut origin: HashMap<String, &str> = HashMap::new();
        let filled = checkpoint.filled();
        for (tensor, full) in weights.tensors.iter().zip(&weights.full_names) {
            if let Some(why) = self.selection.leaves_out(tensor.name()) {
                report.left_out.push(LeftOut { path: full.clone(), kind: Kind::Tensor, why });
                continue;
            }
            let wanted = match self.cast(tensor).and_then(|t| writable(&t).map(|()| t)) {
                Ok(wanted) => wanted,
                Err(e) => {
                    refused.push((tensor.name(), e));
                    continue;
                }
            };
            let name = self.selection.renamed(tensor.name());
            if let Some(other) = origin.insert(name.clone(), tensor.name()) {
                return Err(Error::invalid(format!(
                    "{other:?} and {:?} would both be called {name:?}",
                    tensor.name()
                ))
                .hint("change the renaming, or leave one out with --exclude"));
            }
            if wanted.dtype() != tensor.dtype() {
                let dtypes = [tensor.dtype(), wanted.dtype()].map(|d| d.name().to_owned());
                report.cast.insert(name.clone(), dtypes.into());
            }
            if let Some(&elements) = filled.get(full) {
                report.filled.insert(name.clone(), elements);
            }
            if name == tensor.name() {
                chosen.push(wanted);
            } else {
                report.renamed.insert(tensor.name().to_owned(), name.clone());
                chosen.push(wanted.renamed(name));
            }
        }
        if let Some(error) = all_refused(refused) {
            return Err(error.in_file(checkpoint.path()));
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
                    return Err(e.clone().hint(way_out(&[name])));
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

    /// The tensor as it is written: cast, where that is wished for and it is of floating point.
    fn cast(&self, tensor: &Tensor) -> Result<Tensor> {
        match self.dtype {
            Some(target) if tensor.dtype().is_castable() && tensor.has_bytes() => {
                tensor.cast(target)
            }
            _ => Ok(tensor.clone()),
        }
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

/// Tensors that one error tells how to do without.
const NAMED: usize = 16;

/// How to do without tensors, in words that a shell takes whatever their names have in them.
fn way_out(names: &[&str]) -> String {
    let exclude =
        |name: &&str| format!("--exclude '{}'", Glob::escape(name).replace('\'', "'\\''"));
    let flags: Vec<String> = names.iter().take(NAMED).map(exclude).collect();
    let it = if names.len() == 1 { "it" } else { "them" };
    format!("leave {it} out with {}", flags.join(" "))
}

/// One error for every tensor that the target cannot hold.
fn all_refused(refused: Vec<(&str, Error)>) -> Option<Error> {
    let names: Vec<&str> = refused.iter().map(|(name, _)| *name).collect();
    let (_, first) = refused.into_iter().next()?;
    let error = match names.len() - 1 {
        0 => first,
        1 => Error::new(first.kind(), format!("{first}; {} cannot be written either", names[1])),
        n => {
            Error::new(first.kind(), format!("{first}; {n} more tensors cannot be written either"))
        }
    };
    Some(error.hint(way_out(&names)))
}

/// Whether the target can hold a tensor.
fn writable(tensor: &Tensor) -> Result<()> {
    let place = format!("tensor {}", tensor.name());
    match tensor.bytes() {
        TensorBytes::None(why) => {
            let message = format!("there are no bytes to write: {why}");
            return Err(Error::unsupported(message).within(place));
        }
        TensorBytes::Broken(e) => return Err(e.clone().within(place)),
        _ => {}
    }
    if tensor.dtype().safetensors_name().is_none() {
        let message = format!("safetensors has no dtype {}", tensor.dtype());
        return Err(Error::unsupported(message).within(place));
    }
    tensor.check_expansion(&ckptkit_core::Limits::default())
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

    pub(super) fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    pub(super) fn destination(&self) -> &Path {
        &self.destination
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
            foreign::nothing_foreign(&self.destination, &self.layout)?;
        }
        self.layout.write(&self.destination, existing, options)?;
        Ok(self.report.clone())
    }
}
