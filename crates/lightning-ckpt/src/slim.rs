//! Weights and hyper-parameters only: what stays of a checkpoint that nobody trains further.

use std::collections::HashSet;

use ckptkit_core::{Dtype, Error, Key, OutputFile, Result, ResultExt, TensorBytes};
use torch_save::sanitize::{Change, SanitizeOptions};
use torch_save::{Document, NodeId, TensorEntry, WriteOptions};

use crate::LightningCkpt;
use crate::version::{self, Family};

/// What stays of a checkpoint.
///
/// The defaults keep what Lightning itself keeps with `save_weights_only=True`: weights, epoch, steps,
/// version, loops, hyper-parameters, the state of the data module and what the model's own
/// `on_save_checkpoint()` added. Optimizers, schedulers, callbacks and gradient scalers go.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlimOptions {
    /// Keep the states of callbacks. Default: no.
    pub callbacks: bool,
    /// Keep the progress of the loops. Default: yes; it is small.
    pub loops: bool,
    /// Keep hyper-parameters, those of the data module included. Default: yes; without them
    /// `load_from_checkpoint` needs them from its caller.
    pub hyper_parameters: bool,
    /// Keep keys that are not Lightning's own. Default: yes; the model may want them back in
    /// `on_load_checkpoint()`.
    pub extra: bool,
    /// Keys at the top that stay, whatever else is said.
    pub keep: Vec<String>,
    /// Keys at the top that go, whatever else is said.
    pub drop: Vec<String>,
    /// Cast floating-point weights to this type, rounded as torch rounds. Default: no.
    pub dtype: Option<Dtype>,
    /// Make what stays plain as well, as [`LightningCkpt::sanitize`] does; how the file is laid out
    /// is said here. Default: no.
    pub sanitize: Option<SanitizeOptions>,
    /// How the file is laid out.
    pub write: WriteOptions,
}

impl Default for SlimOptions {
    fn default() -> Self {
        Self {
            callbacks: false,
            loops: true,
            hyper_parameters: true,
            extra: true,
            keep: Vec::new(),
            drop: Vec::new(),
            dtype: None,
            sanitize: None,
            write: WriteOptions::default(),
        }
    }
}

impl SlimOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn keeps(&self, key: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|k| k == key);
        if named(&self.keep) || named(&self.drop) {
            return !named(&self.drop);
        }
        match version::family(key) {
            Family::Base => true,
            Family::Loops => self.loops,
            Family::HyperParameters => self.hyper_parameters,
            Family::Callbacks => self.callbacks,
            Family::Training => false,
            Family::Extra => self.extra,
        }
    }
}

/// A key at the top, and what is under it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// The key.
    pub key: String,
    /// Tensors under it.
    pub tensors: usize,
    /// Bytes of the tensors, tied ones once.
    pub bytes: u64,
}

/// What is different in a slim checkpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlimReport {
    /// The keys that stay, in the order of the file.
    pub kept: Vec<Part>,
    /// The keys that go.
    pub removed: Vec<Part>,
    /// The weights that are cast, and the type that they had.
    pub cast: Vec<(String, Dtype)>,
    /// Floating-point weights that are not cast although that was asked for, and why.
    pub not_cast: Vec<(String, String)>,
    /// What was made plain.
    pub changes: Vec<Change>,
    /// Bytes of the file, and of what becomes of it.
    pub bytes: (u64, u64),
}

/// A slim checkpoint that is planned, and not written yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlimPlan {
    /// Every byte of the file.
    pub layout: OutputFile,
    /// What is different in it.
    pub report: SlimReport,
}

impl LightningCkpt {
    /// Plans a copy with weights and hyper-parameters only. `load_from_checkpoint` takes it, and
    /// `weights_only=True` does where it took the source. Reads no tensor.
    ///
    /// ```
    /// use ckptkit_core::{CopyOptions, Existing, Layout};
    /// use lightning_ckpt::{LightningCkpt, SlimOptions};
    ///
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let slim = dir.path().join("slim.ckpt");
    /// let ckpt = LightningCkpt::open(format!("{fixtures}/lightning/adam.ckpt"))?;
    /// let plan = ckpt.slim(&SlimOptions::new())?;
    /// let removed: Vec<&str> = plan.report.removed.iter().map(|p| p.key.as_str()).collect();
    /// assert_eq!(removed, ["callbacks", "optimizer_states", "lr_schedulers"]);
    /// Layout::file(plan.layout).write(&slim, Existing::Refuse, &CopyOptions::default())?;
    ///
    /// let slim = LightningCkpt::open(&slim)?;
    /// assert_eq!(slim.state_dict().count(), ckpt.state_dict().count());
    /// assert!(slim.optimizer_states()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound) for a key named in the options that is not
    /// there; [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for dropping what makes
    /// the file Lightning's, and for a type that floats are not cast to; as
    /// [`Document::layout`] and, where asked for, [`LightningCkpt::sanitize`].
    pub fn slim(&self, options: &SlimOptions) -> Result<SlimPlan> {
        self.plan_slim(options).in_file(self.file.section().name())
    }

    fn plan_slim(&self, options: &SlimOptions) -> Result<SlimPlan> {
        let parts = self.parts();
        check(options, &parts)?;
        let (kept, removed): (Vec<Part>, Vec<Part>) =
            parts.into_iter().partition(|part| options.keeps(&part.key));
        let mut document = self.file.edit()?;
        document.retain("", |key, _| options.keeps(key))?;
        let mut report = SlimReport {
            kept,
            removed,
            cast: Vec::new(),
            not_cast: Vec::new(),
            changes: Vec::new(),
            bytes: (self.file.section().len(), 0),
        };
        if let Some(dtype) = options.dtype {
            self.cast_weights(&mut document, dtype, &mut report)?;
        }
        if let Some(options) = &options.sanitize {
            report.changes = document.sanitize(options)?;
        }
        let layout = document.into_layout(&options.write)?;
        report.bytes.1 = layout.len();
        Ok(SlimPlan { layout, report })
    }

    /// The keys at the top with their tensors.
    fn parts(&self) -> Vec<Part> {
        let keys = self.file.root().pairs().into_iter();
        let mut parts: Vec<Part> =
            keys.map(|(key, _)| Part { key: key.key_text(), tensors: 0, bytes: 0 }).collect();
        let positions: std::collections::HashMap<String, usize> =
            parts.iter().enumerate().map(|(i, p)| (p.key.clone(), i)).collect();
        let mut seen = HashSet::new();
        for entry in self.file.tensors() {
            let (Some(Key::Str(key) | Key::Other(key)), None) =
                (entry.path().first(), entry.part_of())
            else {
                continue;
            };
            let Some(part) = positions.get(&**key).map(|&i| &mut parts[i]) else { continue };
            part.tensors += 1;
            if is_new(entry, &mut seen) {
                part.bytes = part.bytes.saturating_add(entry.tensor().byte_len());
            }
        }
        parts
    }

    fn cast_weights(
        &self,
        document: &mut Document,
        dtype: Dtype,
        report: &mut SlimReport,
    ) -> Result<()> {
        if !dtype.is_castable() {
            return Err(Error::invalid(format!("weights are not cast to {dtype}"))
                .hint("name a floating-point type: F32, F16, BF16"));
        }
        let mut inner: Vec<NodeId> = Vec::new();
        let mut tensors = Vec::new();
        for entry in self.file.tensors() {
            let is_weight =
                matches!(entry.path(), [Key::Str(key), _, ..] if **key == *version::STATE_DICT);
            let tensor = entry.tensor();
            let float = tensor.dtype().class() == ckptkit_core::DtypeClass::Float;
            if !is_weight || !float || tensor.dtype() == dtype || entry.part_of().is_some() {
                continue;
            }
            let name = tensor.name().to_owned();
            let node = document.imported(&self.file, entry.node());
            match node.and_then(|node| document.innermost(node)) {
                Some(node) if tensor.dtype().is_castable() && tensor.has_bytes() => {
                    report.cast.push((name, tensor.dtype()));
                    tensors.push(tensor.cast(dtype)?);
                    inner.push(node);
                }
                _ => {
                    let made_by = self.file.graph().node(entry.node()).class();
                    let why = match made_by {
                        _ if !tensor.has_bytes() => {
                            format!("the {} tensor has no bytes of its own", entry.kind().name())
                        }
                        Some(function) => format!("what {function} makes is not cast"),
                        None => format!("{} is not cast", tensor.dtype()),
                    };
                    report.not_cast.push((name, why));
                }
            }
        }
        if inner.is_empty() {
            return Ok(());
        }
        for (old, new) in inner.into_iter().zip(document.tensors(&tensors)?) {
            document.builder().replace(old, new);
        }
        Ok(())
    }
}

/// Whether an entry's bytes were not seen before.
fn is_new(entry: &TensorEntry, seen: &mut HashSet<(ckptkit_core::StorageId, u64, u64)>) -> bool {
    let tensor = entry.tensor();
    let offset = match tensor.bytes() {
        TensorBytes::Range(section) => section.offset(),
        TensorBytes::Strided(view) => view.offset,
        _ => return tensor.has_bytes(),
    };
    let storage = tensor.info().storage();
    storage.is_none_or(|id| seen.insert((id, offset, tensor.byte_len())))
}

fn check(options: &SlimOptions, parts: &[Part]) -> Result<()> {
    for key in options.keep.iter().chain(&options.drop) {
        if !parts.iter().any(|p| p.key == *key) {
            let held: Vec<&str> = parts.iter().map(|p| p.key.as_str()).take(20).collect();
            return Err(Error::not_found(format!("there is no key {key:?} at the top"))
                .hint(format!("there are: {}", held.join(", "))));
        }
    }
    if let Some(key) = options.drop.iter().find(|k| version::family(k) == Family::Base) {
        return Err(Error::invalid(format!("without {key:?} Lightning loads no checkpoint")));
    }
    if let Some(key) = options.drop.iter().find(|k| options.keep.contains(k)) {
        return Err(Error::invalid(format!("{key:?} cannot both stay and go")));
    }
    Ok(())
}
