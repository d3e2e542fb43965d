//! The tensors of an archive, however its release has laid them out.

#[cfg(feature = "distcp")]
mod distributed;
mod layout;
mod quantized;
mod ranks;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use ckptkit_core::{
    Error, Result, ResultExt, StorageId, Tensor, TensorInfo, TensorSource, hash, no_such_tensor,
};
use torch_save::TorchFile;

pub use layout::WeightsLayout;
#[cfg(feature = "write")]
pub(crate) use layout::layout_of;
pub(crate) use layout::{V0_11_FOLDER, is_part, nested_names};
pub(crate) use quantized::rank_of_file;

use crate::archive::NemoArchive;
use crate::config::Config;
use crate::entry::Entry;
use crate::index::Index;
use crate::options::OpenOptions;
use layout::Plan;

/// The tensors of an archive under the names that its state dict gives them; where it has several
/// state dicts, `PART/NAME` (`mp_rank_00/encoder.weight`, `rank1/lm_head.weight`).
pub struct Weights {
    layout: WeightsLayout,
    files: Vec<WeightsFile>,
    tensors: Vec<Tensor>,
    /// Made when the first is looked up.
    by_name: OnceLock<hash::HashMap<Arc<str>, usize>>,
    failures: Vec<(String, Error)>,
    notes: Vec<String>,
    #[cfg(feature = "distcp")]
    distributed: Option<distcp::DistCheckpoint>,
    #[cfg(feature = "safetensors")]
    safetensors: Vec<(String, st_io::StFile)>,
}

/// One torch checkpoint inside an archive.
#[derive(Clone)]
pub struct WeightsFile {
    member: String,
    prefix: Option<String>,
    torch: TorchFile,
}

impl WeightsFile {
    /// The member's normalised name.
    #[must_use]
    pub fn member(&self) -> &str {
        &self.member
    }

    /// What stands before the slash in the names of its tensors, where there are several files.
    #[must_use]
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// The checkpoint itself.
    #[must_use]
    pub fn torch(&self) -> &TorchFile {
        &self.torch
    }
}

impl std::fmt::Debug for WeightsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WeightsFile({})", self.member)
    }
}

impl Weights {
    /// How the archive lays its tensors out.
    #[must_use]
    pub fn layout(&self) -> WeightsLayout {
        self.layout
    }

    /// The torch checkpoints that hold them; none for distributed checkpoints, quantized exports
    /// and models inside the archive.
    #[must_use]
    pub fn files(&self) -> &[WeightsFile] {
        &self.files
    }

    /// How many ranks the archive was saved by, as far as its layout says: 1 for one file.
    #[must_use]
    pub fn ranks(&self) -> usize {
        match self.layout {
            WeightsLayout::Ranks => self.files.len(),
            #[cfg(feature = "safetensors")]
            WeightsLayout::Quantized => self.safetensors.len(),
            #[cfg(feature = "distcp")]
            WeightsLayout::Distributed => {
                self.distributed.as_ref().map_or(1, distcp::DistCheckpoint::ranks)
            }
            _ => 1,
        }
    }

    /// The distributed checkpoint that holds them, in the layout of that name.
    #[cfg(feature = "distcp")]
    #[must_use]
    pub fn distributed(&self) -> Option<&distcp::DistCheckpoint> {
        self.distributed.as_ref()
    }

    /// The members of a quantized export that hold tensors, by name and rank after rank.
    #[cfg(feature = "safetensors")]
    #[must_use]
    pub fn safetensors(&self) -> &[(String, st_io::StFile)] {
        &self.safetensors
    }

    /// The tensors in the order of their files.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Tensors that the files describe in a way that cannot be read: name and reason.
    #[must_use]
    pub fn failures(&self) -> &[(String, Error)] {
        &self.failures
    }

    /// What is strange but was read.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn new(layout: WeightsLayout) -> Self {
        Self {
            layout,
            files: Vec::new(),
            tensors: Vec::new(),
            by_name: OnceLock::new(),
            failures: Vec::new(),
            notes: Vec::new(),
            #[cfg(feature = "distcp")]
            distributed: None,
            #[cfg(feature = "safetensors")]
            safetensors: Vec::new(),
        }
    }

    fn add_file(
        &mut self,
        entry: &Entry,
        prefix: Option<&str>,
        options: &OpenOptions,
    ) -> Result<()> {
        let open = || {
            let section = entry.section()?;
            let torch = torch_save::OpenOptions::default().limits(options.torch_limits.clone());
            torch.open(&section)
        };
        let torch = open().within(|| format!("member {}", entry.path()))?;
        for note in torch.notes() {
            self.notes.push(format!("member {}: {note}", entry.path()));
        }
        let mut wrapped = 0;
        self.tensors.reserve(torch.tensors().len());
        for found in torch.tensors() {
            wrapped += usize::from(found.path().len() > 1 && found.part_of().is_none());
            self.tensors.push(found.tensor().clone());
        }
        if wrapped > 0 {
            self.notes.push(format!(
                "member {}: {wrapped} tensors are not at the top of the state dict, where NeMo looks",
                entry.path()
            ));
        }
        if let Some(prefix) = prefix {
            let mut containers = HashMap::new();
            let part = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
            let first = self.tensors.len() - torch.tensors().len();
            for tensor in &mut self.tensors[first..] {
                *tensor = in_part(tensor, prefix, part, &mut containers)?;
            }
        }
        for (name, error) in torch.failures() {
            let name = prefix.map_or(name.clone(), |p| format!("{p}/{name}"));
            self.fail(name, error.clone());
        }
        self.files.push(WeightsFile {
            member: entry.path().as_str().to_owned(),
            prefix: prefix.map(str::to_owned),
            torch,
        });
        Ok(())
    }

    fn fail(&mut self, name: String, error: Error) {
        self.notes.push(format!("tensor {name} cannot be read: {}", error.message()));
        self.failures.push((name, error));
    }
}

/// The tensor under a name with its part, and in a storage that no other part has.
fn in_part(
    tensor: &Tensor,
    prefix: &str,
    part: u32,
    containers: &mut HashMap<u32, u32>,
) -> Result<Tensor> {
    let old = tensor.info();
    let name = format!("{prefix}/{}", old.name());
    let mut info = TensorInfo::new(name, old.dtype(), old.shape())?;
    if let Some(id) = old.storage() {
        // Few files have more than one container; 4096 of them in each of a million parts.
        let next = u32::try_from(containers.len()).unwrap_or(u32::MAX);
        let inner = *containers.entry(id.container).or_insert(next);
        let container = part.wrapping_mul(4096).wrapping_add(inner);
        info = info.in_storage(StorageId { container, ..id });
    }
    Tensor::with_transform(info, tensor.bytes().clone(), tensor.transform())
}

/// Reads what the layout of the archive calls its weights.
pub(crate) fn load(archive: &NemoArchive, index: &Index, options: &OpenOptions) -> Result<Weights> {
    let plan = layout::plan(index)?;
    let mut weights = Weights::new(plan.layout());
    match plan {
        Plan::File(entry) => weights.add_file(entry, None, options)?,
        Plan::Ranks(found) => {
            ranks::check(&found)?;
            for rank in &found {
                weights.add_file(rank.entry, Some(&rank.folder), options)?;
            }
            if let Ok(config) = archive.config() {
                weights.notes.extend(ranks::disagreements(&found, config));
            }
        }
        Plan::Modules(entries) => {
            for entry in entries {
                let name = entry.path().file_name();
                let class = name.strip_suffix(".pt").unwrap_or(name);
                weights.add_file(entry, Some(class), options)?;
            }
        }
        Plan::Nested(names) => {
            for (part, name) in names.into_iter().enumerate() {
                add_nested(&mut weights, archive, name, part)?;
            }
        }
        Plan::Quantized(shards) => {
            #[cfg(feature = "safetensors")]
            quantized::load(&mut weights, &shards, archive.config()?, options)?;
            #[cfg(not(feature = "safetensors"))]
            return Err(quantized::left_out(&shards));
        }
        Plan::Distributed => {
            #[cfg(feature = "distcp")]
            distributed::load(&mut weights, index, options)?;
            #[cfg(not(feature = "distcp"))]
            return Err(Error::unsupported(
                "the weights are a distributed checkpoint, which this build does not read",
            )
            .within("member model_weights")
            .hint("build with the feature distcp"));
        }
    }
    weights.notes.extend(layout::left_aside(index));
    Ok(weights)
}

/// Tensors of a whole model inside: `speaker_model/NAME`.
fn add_nested(weights: &mut Weights, archive: &NemoArchive, name: &str, part: usize) -> Result<()> {
    let inner = archive.nested(name)?;
    let found = inner.weights()?;
    let prefix = name.strip_suffix(".nemo").unwrap_or(name);
    let part = u32::try_from(part).unwrap_or(u32::MAX);
    let mut containers = HashMap::new();
    for tensor in &found.tensors {
        weights.tensors.push(in_part(tensor, prefix, part, &mut containers)?);
    }
    weights
        .failures
        .extend(found.failures.iter().map(|(n, e)| (format!("{prefix}/{n}"), e.clone())));
    weights.notes.extend(inner.notes().into_iter().map(|n| format!("member {name}: {n}")));
    Ok(())
}

/// The integer under a key of the config.
fn config_int(config: &Config, key: &str) -> Option<u64> {
    match config.resolve(key) {
        Ok(torch_save::Value::Int(i)) => u64::try_from(i).ok(),
        _ => None,
    }
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weights({:?}, {} tensors)", self.layout, self.tensors.len())
    }
}

impl TensorSource for Weights {
    fn infos(&self) -> Box<dyn Iterator<Item = &TensorInfo> + '_> {
        Box::new(self.tensors.iter().map(Tensor::info))
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        let names = || self.tensors.iter().map(|t| t.info().shared_name());
        let by_name = self.by_name.get_or_init(|| names().zip(0..).collect());
        if let Some(&i) = by_name.get(name) {
            return Ok(self.tensors[i].clone());
        }
        if let Some((_, error)) = self.failures.iter().find(|(n, _)| n == name) {
            return Err(error.clone());
        }
        Err(no_such_tensor(name, self.tensors.iter().map(Tensor::name)))
    }
}
