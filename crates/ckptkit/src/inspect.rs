//! What a checkpoint is, at a glance.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::training::Training;
use crate::weights;

/// The summary of a checkpoint; as JSON the answer of `ckptkit inspect --json`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// The path as it was given.
    pub path: String,
    /// `nemo`, `lightning-ckpt`, `torch`, `safetensors` or `distcp`.
    pub format: &'static str,
    /// Which form of it.
    pub variant: String,
    /// The format of the whole object that a sidecar keeps beside the tensors.
    pub sidecar: Option<&'static str>,
    /// What wrote it, where the file says.
    pub writer: Option<String>,
    /// Tensors listed.
    pub tensors: usize,
    /// Elements of the weights, tied ones once; `None` when it is not clear which they are.
    pub parameters: Option<u64>,
    /// Bytes of all tensors listed.
    pub bytes: u64,
    /// Tensors of each dtype.
    pub dtypes: BTreeMap<&'static str, usize>,
    /// The key that the weights stand under; `None` for the root.
    pub weights_key: Option<String>,
    /// The state of the training run.
    pub training: Option<Training>,
    /// Whether there is a configuration.
    pub config: bool,
    /// The files that it carries.
    pub artifacts: Vec<ArtifactSummary>,
    /// Files that hold tensors.
    pub shards: usize,
    /// `__metadata__` of safetensors.
    pub metadata: BTreeMap<String, String>,
    /// What is strange about it.
    pub warnings: Vec<String>,
}

/// A file that a checkpoint carries.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ArtifactSummary {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

impl Checkpoint {
    /// Summarises the checkpoint; reads no tensor.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut dtypes = BTreeMap::new();
        let mut bytes = 0_u64;
        for tensor in self.tensors() {
            *dtypes.entry(tensor.dtype().name()).or_insert(0) += 1;
            bytes = bytes.saturating_add(tensor.byte_len());
        }
        let mut warnings = self.notes().to_vec();
        warnings.extend(self.failures().iter().map(|(_, e)| e.to_string()));
        let weights = self.weights();
        if let Err(e) = &weights {
            warnings.push(e.message().to_owned());
        }
        let config = match self.config() {
            Ok(config) => config.is_some(),
            Err(e) => {
                warnings.push(e.to_string());
                false
            }
        };
        let weights = weights.ok();
        Summary {
            path: self.path().display().to_string(),
            format: self.format().name(),
            variant: self.variant().to_owned(),
            sidecar: self.sidecar().map(crate::Format::name),
            writer: self.writer().map(str::to_owned),
            tensors: self.entries().len(),
            parameters: weights.as_ref().map(weights::parameters),
            bytes,
            dtypes,
            weights_key: weights.and_then(|w| w.key),
            training: self.training().cloned(),
            config,
            artifacts: self
                .artifacts()
                .iter()
                .map(|a| ArtifactSummary { name: a.name.clone(), bytes: a.section.len() })
                .collect(),
            shards: self.shards(),
            metadata: self.metadata().clone(),
            warnings,
        }
    }
}
