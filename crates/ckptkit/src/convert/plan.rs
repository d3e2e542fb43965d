//! From a checkpoint and wishes to a layout.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use ckptkit_core::{CopyOptions, Error, Existing, Layout, Result, Tensor};

use super::choose::choose;
#[cfg(feature = "distcp")]
use super::distributed;
use super::foreign;
use super::job::{Job, LaidOut};
#[cfg(feature = "nemo")]
use super::nemo;
#[cfg(feature = "lightning")]
use super::optimizer;
use super::report::Report;
#[cfg(feature = "safetensors")]
use super::safetensors;
use super::target::Target;
#[cfg(feature = "torch")]
use super::torch;
use super::untie::untie;
use super::wish::{Convert, Scope};
use crate::checkpoint::Checkpoint;
use crate::format::Format;

impl Convert {
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
        self.check_files()?;
        let whole = self.takes_all(checkpoint);
        #[cfg(feature = "lightning")]
        optimizer::check(self, whole, checkpoint)?;
        #[cfg(not(feature = "lightning"))]
        if self.optimizer_names || self.param_names.is_some() {
            return Err(crate::reader::left_out(Format::LightningCkpt));
        }
        let mut job = Job {
            wish: self,
            checkpoint,
            attributes: self.attributes(checkpoint),
            report: Report {
                source: checkpoint.path().to_path_buf(),
                destination: destination.to_path_buf(),
                format: self.target.format().name(),
                files: 0,
                tensors: 0,
                bytes: 0,
                renamed: BTreeMap::new(),
                cast: BTreeMap::new(),
                aliases: BTreeMap::new(),
                filled: BTreeMap::new(),
                left_out: Vec::new(),
                notes: checkpoint.notes().to_vec(),
            },
        };
        let LaidOut { layout, tensors, under } = if whole { job.whole()? } else { job.weights()? };
        let mut report = job.report;
        report.files = layout.files().count();
        Ok(Plan { tensors, under, layout, report, destination: destination.to_path_buf() })
    }

    /// Refuses files that the target would not take anything from.
    fn check_files(&self) -> Result<()> {
        let nemo = self.target == Target::Nemo;
        let directory = self.target == Target::SafetensorsDirectory;
        for (flag, given, taken, what) in [
            ("--config", &self.config, nemo, "is the config of a .nemo archive"),
            ("--like", &self.like, nemo, "is what a .nemo archive takes its config from"),
            ("--asr", &self.asr, directory, "completes the config.json of a directory"),
        ] {
            if let Some(path) = given.as_ref().filter(|_| !taken) {
                return Err(Error::invalid(format!("{flag} {what}, which is not written"))
                    .in_file(path)
                    .hint(format!("leave out {flag}, or choose another destination")));
            }
        }
        Ok(())
    }

    /// Whether a distributed checkpoint is written that can hold more than tensors.
    fn torch_form(&self) -> bool {
        #[cfg(feature = "distcp")]
        return self.form == distcp::Form::TorchSave;
        #[cfg(not(feature = "distcp"))]
        false
    }

    /// A distributed checkpoint has tensors where models look for them, whatever their attributes,
    /// and what is cast is another tensor.
    fn attributes(&self, checkpoint: &Checkpoint) -> HashSet<String> {
        let kept = self.target.holds_objects() && self.target != Target::Distcp;
        #[cfg(feature = "torch")]
        if let (true, Some(file)) = (kept && self.dtype.is_none(), checkpoint.torch_file()) {
            return torch::with_attributes(file);
        }
        HashSet::new()
    }

    /// Whether the whole tree is converted.
    fn takes_all(&self, checkpoint: &Checkpoint) -> bool {
        let plain =
            !self.selection.selects() && !self.selection.renames() && self.weights_key.is_none();
        match (self.scope, self.target) {
            // All that an archive is: weights, config, artifacts.
            (_, Target::Nemo) => false,
            (Scope::All, _) => true,
            (Scope::Weights, _) => false,
            // A Lightning checkpoint stays one.
            (Scope::Auto, Target::LightningCkpt) => {
                plain && checkpoint.kept_format() == Format::LightningCkpt
            }
            // A training checkpoint can be one in the distributed form.
            (Scope::Auto, Target::Distcp) => plain && self.torch_form() && checkpoint.is_training(),
            (Scope::Auto, _) => false,
        }
    }
}

impl Job<'_> {
    /// The weights, in the target's own form.
    fn weights(&mut self) -> Result<LaidOut> {
        let weights = match &self.wish.weights_key {
            Some(key) => self.checkpoint.weights_under(key)?,
            None => self.checkpoint.weights()?,
        };
        let chosen = choose(self, &weights)?;
        let kept = untie(self, chosen)?;
        self.report.tensors = kept.len();
        self.report.bytes = kept.iter().map(|c| c.tensor.byte_len()).sum();
        match self.wish.target {
            #[cfg(feature = "safetensors")]
            Target::SafetensorsFile | Target::SafetensorsDirectory => {
                safetensors::weights(self, kept)
            }
            #[cfg(feature = "torch")]
            Target::Torch => torch::weights(self, &weights, kept),
            #[cfg(feature = "lightning")]
            Target::LightningCkpt => torch::lightning(self, &weights, kept),
            #[cfg(feature = "nemo")]
            Target::Nemo => nemo::weights(self, &weights, kept),
            #[cfg(feature = "distcp")]
            Target::Distcp => distributed::weights(self, kept),
            #[allow(unreachable_patterns, reason = "which are left depends on the features")]
            target => Err(crate::reader::left_out(target.format())),
        }
    }

    /// Everything, under full names.
    fn whole(&mut self) -> Result<LaidOut> {
        self.report.filled = self.checkpoint.filled();
        if self.wish.selection.selects() || self.wish.selection.renames() {
            return Err(Error::invalid("the whole of a checkpoint is taken as it is")
                .hint("leave out --all to select or rename weights"));
        }
        match self.wish.target {
            #[cfg(feature = "torch")]
            Target::Torch | Target::LightningCkpt => torch::whole(self),
            #[cfg(all(feature = "safetensors", feature = "torch"))]
            Target::SafetensorsFile | Target::SafetensorsDirectory => safetensors::whole(self),
            #[cfg(feature = "distcp")]
            Target::Distcp => distributed::whole(self),
            target => Err(Error::unsupported(format!(
                "a {} target has no place for more than weights",
                target.format()
            ))
            .hint("leave out --all")),
        }
    }
}

/// A conversion that is ready to run.
#[derive(Debug)]
pub struct Plan {
    tensors: Vec<Tensor>,
    under: Option<&'static str>,
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

    /// What is written, each with the name that a reader of the destination finds it by.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (Cow<'_, str>, &Tensor)> {
        self.tensors.iter().map(|tensor| {
            let name = match self.under {
                Some(key) => format!("{key}.{}", tensor.name()).into(),
                None => tensor.name().into(),
            };
            (name, tensor)
        })
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
