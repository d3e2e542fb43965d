//! What the real library read from a fixture; `docs/fixtures.md` describes the keys.

use serde::Deserialize;
use serde_json::Value as Json;

/// One manifest.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    /// What is special about the fixture.
    pub note: String,
    /// Every tensor, in file order.
    #[serde(default)]
    pub tensors: Vec<TensorRow>,
    /// The model's weights; `None` where there are none, or several candidates.
    #[serde(default)]
    pub weights: Option<WeightRows>,
    /// Names that are the same view of one storage.
    #[serde(default)]
    pub ties: Vec<Vec<String>>,
    /// The parameters of every optimizer in the order of their numbers, as the run had them.
    #[serde(default)]
    pub optimizers: Vec<Vec<String>>,
    /// The whole tree of values.
    #[serde(default)]
    pub values: Json,
    /// `.nemo`: the config as OmegaConf loads it.
    #[serde(default)]
    pub config: Option<Json>,
    /// `.nemo`: the members that are neither config nor weights.
    #[serde(default)]
    pub artifacts: Vec<ArtifactRow>,
    /// `hostile/`: what must fail. `verify` means that only the check for damage fails.
    #[serde(default)]
    pub by: Option<String>,
    /// `hostile/`: words of the error.
    #[serde(default)]
    pub mentions: Vec<String>,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TensorRow {
    /// Its name.
    pub name: String,
    /// Its dtype.
    pub dtype: String,
    /// Elements in every dimension.
    pub shape: Vec<u64>,
    /// The hash of its bytes; `None` where it has none of its own.
    pub sha256: Option<String>,
}

/// The model's weights.
#[derive(Clone, Debug, Deserialize)]
pub struct WeightRows {
    /// Where they stand; empty for the root.
    pub key: String,
    /// Their names without it.
    pub names: Vec<String>,
}

/// A file within.
#[derive(Clone, Debug, Deserialize)]
pub struct ArtifactRow {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The hash of its content.
    pub sha256: String,
}

impl Manifest {
    /// The rows of the weights, under their weight names.
    #[must_use]
    pub fn weight_rows(&self) -> Option<Vec<TensorRow>> {
        let weights = self.weights.as_ref()?;
        let prefix =
            if weights.key.is_empty() { String::new() } else { format!("{}.", weights.key) };
        let row = |name: &String| {
            let full = format!("{prefix}{name}");
            let row = self.tensors.iter().find(|t| t.name == full).expect("a weight is a tensor");
            TensorRow { name: name.clone(), ..row.clone() }
        };
        Some(weights.names.iter().map(row).collect())
    }
}
