//! Distributed checkpoints.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ckptkit_core::{Key, Region, Result, Section, TensorInfo, TensorSource};
use distcp::DistCheckpoint;
use torch_save::TorchFile;

use super::kept::{self, Kept};
use super::torch::TorchValues;
use crate::Value;
use crate::format::Format;
use crate::opened::{Artifact, Config, Entry, OpenOptions, Opened, Rule, Values, Whole, is_absent};
use crate::training::Training;

/// Keys and beginnings of names that are never the model's, where all stands at the root.
const NOT_WEIGHTS: [&str; 2] = ["optimizer.", "optim."];
/// Megatron's further ones.
const NOT_MEGATRON_WEIGHTS: [&str; 4] = ["common", "rng_state", "chained_", "opt_param_scheduler"];

/// Where NeMo 2 keeps the model's config, relative to the directory around weights and context.
const CONFIG: &str = "context/model.yaml";
/// The key of a config that a conversion kept beside weights.
pub(crate) const KEPT_CONFIG: &str = "config";
#[cfg(feature = "nemo")]
const MAX_CONFIG_BYTES: u64 = 16 << 20;

pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Opened> {
    let checkpoint = distcp::OpenOptions::default()
        .limits(options.limits.clone())
        .allow_partial(options.allow_partial)
        .open(path)?;
    let mut entries = Vec::with_capacity(checkpoint.infos().size_hint().0);
    let mut failures = checkpoint.failures().to_vec();
    let listed = checkpoint.infos().zip(checkpoint.tensors()).zip(checkpoint.paths());
    for ((info, tensor), path) in listed {
        match tensor {
            Ok(tensor) => entries.push(Entry::nested(path.into(), tensor)),
            Err(e) => failures.push((info.name().to_owned(), e)),
        }
    }
    let mut notes = checkpoint.notes();
    let tensors = entries.iter().map(|e| &e.tensor);
    let kept = kept::beside(&checkpoint, tensors, &options.limits).unwrap_or_else(|e| {
        notes.push(kept::ignored(&e));
        None
    });
    if let Some(Ok(file)) = kept.as_ref().map(|kept| &kept.file) {
        kept::tie(&mut entries, file);
    }
    // Without paths (Megatron, custom planners) everything stands at the root under flat names.
    let flat = entries.iter().all(|e| e.path().len() == 1);
    let weights = if let Some(kept) = &kept {
        kept.weights()
    } else if checkpoint.variant() == "megatron" {
        root()
    } else if flat {
        Rule::RootExcept(NOT_WEIGHTS.iter().map(|s| (*s).to_owned()).collect())
    } else if checkpoint.variant() == "lightning" && has_key(&entries, "state_dict") {
        Rule::Key("state_dict".into())
    } else {
        Rule::Search { object: false }
    };
    let context = checkpoint.context()?;
    let base = context_root(&checkpoint);
    let mut artifacts = Vec::new();
    for file in context {
        let name = base.as_deref().and_then(|b| file.strip_prefix(b).ok()).unwrap_or(&file);
        let name = name.to_string_lossy().replace('\\', "/");
        artifacts.push(Artifact { name, section: Section::open(&file)? });
    }
    let config = context_config(&artifacts).unwrap_or_else(|e| {
        notes.push(format!("{CONFIG} is carried along, but not read: {e}"));
        None
    });
    let of_meta = training(&checkpoint);
    Ok(Opened {
        format: Format::Distcp,
        variant: checkpoint.variant().to_owned(),
        entries,
        failures,
        notes,
        artifacts,
        metadata: BTreeMap::new(),
        shards: checkpoint.files().len(),
        writer: Some(match &kept {
            Some(kept) => kept.writer(),
            None => checkpoint.writer().to_owned(),
        }),
        kept: match &kept {
            Some(kept) => kept.format(),
            // Lightning's own directories hold what its files do.
            None => of_meta.as_ref().map(|_| Format::LightningCkpt),
        },
        training: kept.as_ref().map_or(of_meta, Kept::training),
        weights,
        sidecar: kept.as_ref().and_then(Kept::sidecar),
        torch: kept.as_ref().and_then(|kept| kept.file.as_ref().ok()).cloned(),
        #[cfg(feature = "nemo")]
        nemo: None,
        distributed: Some(checkpoint.clone()),
        values: Box::new(DistValues {
            checkpoint,
            config,
            whole: kept.as_ref().and_then(|kept| kept.file.as_ref().ok()).cloned(),
            kept: kept.as_ref().and_then(Kept::values),
        }),
    })
}

/// Everything at the root but what Megatron keeps there beside the model.
pub(super) fn root() -> Rule {
    let all = NOT_WEIGHTS.iter().chain(&NOT_MEGATRON_WEIGHTS);
    Rule::RootExcept(all.map(|s| (*s).to_owned()).collect())
}

fn has_key(entries: &[Entry], key: &str) -> bool {
    entries
        .iter()
        .any(|e| e.path().len() > 1 && matches!(e.path().first(), Some(Key::Str(k)) if **k == *key))
}

/// What names of the files in `context/` are relative to.
fn context_root(checkpoint: &DistCheckpoint) -> Option<std::path::PathBuf> {
    let dir = checkpoint.dir()?;
    if dir.join("context").is_dir() {
        return Some(dir.to_path_buf());
    }
    Some(dir.parent()?.to_path_buf())
}

/// From Lightning's `meta.pt`; optimizers are counted by the keys that hold their state.
fn training(checkpoint: &DistCheckpoint) -> Option<Training> {
    let meta = checkpoint.meta().ok().flatten()?;
    let optimizers: std::collections::BTreeSet<Arc<str>> = checkpoint
        .paths()
        .filter_map(|p| match p.first() {
            Some(Key::Str(k)) if super::torch::is_optimizer(k) => Some(k.clone()),
            _ => None,
        })
        .collect();
    let training = Training { optimizers: optimizers.len(), ..super::torch::training(&meta) };
    // Fabric keeps what its user gives it, which need be no training run.
    let any = training.epoch.is_some() || training.global_step.is_some() || training.optimizers > 0;
    any.then_some(training)
}

/// NeMo 2's config of the model, by Hydra's rules: `_target_` and its arguments.
#[cfg(feature = "nemo")]
fn context_config(artifacts: &[Artifact]) -> Result<Option<Config>> {
    let Some(file) = artifacts.iter().find(|a| a.name == CONFIG) else { return Ok(None) };
    let bytes = file.section.read(MAX_CONFIG_BYTES)?;
    let value = nemo_archive::Config::parse(&bytes)?.resolved()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Some(Config { origin: CONFIG.into(), value, text: Some(text) }))
}

/// Without a reader of YAML it is an artifact like others.
#[cfg(not(feature = "nemo"))]
fn context_config(_: &[Artifact]) -> Result<Option<Config>> {
    Ok(None)
}

struct DistValues {
    checkpoint: DistCheckpoint,
    /// What a sidecar keeps, and its values.
    whole: Option<TorchFile>,
    kept: Option<TorchValues>,
    /// From NeMo 2's `context/`.
    config: Option<Config>,
}

impl Values for DistValues {
    /// A value of the tree; a key of the config in `context/` as `config.KEY`.
    fn lookup(&self, path: &str) -> Result<Value> {
        let found = match self.kept.as_ref().map(|kept| kept.lookup(path)) {
            Some(Ok(value)) => return Ok(value),
            Some(Err(e)) if !is_absent(&e) => return Err(e),
            Some(absent) => self.checkpoint.value(path).or(absent),
            None => self.checkpoint.value(path),
        };
        match (&self.config, path.strip_prefix("config")) {
            (Some(config), Some(inner)) if found.as_ref().is_err_and(is_absent) => {
                let value = match inner.strip_prefix('.') {
                    Some(inner) => config.value.get(inner),
                    None if inner.is_empty() => Some(&config.value),
                    None => None,
                };
                value.cloned().map_or(found, Ok)
            }
            _ => found,
        }
    }

    fn top(&self) -> Vec<String> {
        match &self.kept {
            Some(kept) => kept.top(),
            None => top_keys(&self.checkpoint),
        }
    }

    fn whole(&self) -> Result<Option<Whole>> {
        if let Some(file) = &self.whole {
            return super::torch::whole(file).map(Some);
        }
        let whole = self.checkpoint.whole()?;
        Ok(Some(Whole { document: whole.document, nodes: whole.tensors }))
    }

    fn filled(&self) -> BTreeMap<String, u64> {
        filled(&self.checkpoint)
    }

    fn config(&self) -> Result<Option<Config>> {
        if let Some(config) = self.kept.as_ref().map(Values::config).transpose()?.flatten() {
            return Ok(Some(config));
        }
        let Some(meta) = self.checkpoint.meta()? else {
            return match &self.config {
                Some(config) => Ok(Some(config.clone())),
                None => self.kept_config(),
            };
        };
        match meta.lookup("hyper_parameters") {
            Ok(value) => Ok(Some(Config {
                origin: "hyper_parameters".into(),
                value: value.into_plain(),
                text: None,
            })),
            Err(_) => Ok(self.config.clone()),
        }
    }
}

impl DistValues {
    /// The config that a conversion kept as an object.
    fn kept_config(&self) -> Result<Option<Config>> {
        if !self.checkpoint.byte_items().any(|name| name == KEPT_CONFIG) {
            return Ok(None);
        }
        let value = self.checkpoint.item_value(KEPT_CONFIG)?;
        let config = Config { origin: KEPT_CONFIG.into(), value: value.into_plain(), text: None };
        Ok(matches!(config.value, Value::Dict(_)).then_some(config))
    }
}

/// The tensors of which a part is stored nowhere: how many elements.
pub(super) fn filled(checkpoint: &DistCheckpoint) -> BTreeMap<String, u64> {
    let names = checkpoint.infos().map(TensorInfo::name);
    let filled = names.filter_map(|name| {
        // What cannot be read says so when it is read.
        let regions = checkpoint.filled(name).ok()?;
        let elements = |r: &Region| r.sizes.iter().product::<u64>();
        (!regions.is_empty()).then(|| (name.to_owned(), regions.iter().map(elements).sum()))
    });
    filled.collect()
}

/// The keys under which something stands that is no tensor.
pub(super) fn top_keys(checkpoint: &DistCheckpoint) -> Vec<String> {
    let mut out: Vec<String> = checkpoint.byte_items().map(str::to_owned).collect();
    if let Ok(Some(meta)) = checkpoint.meta() {
        out.extend(super::torch::top_keys(&meta));
    }
    if let Ok(Some(_)) = checkpoint.common() {
        out.push("common".into());
    }
    out.dedup();
    out
}
