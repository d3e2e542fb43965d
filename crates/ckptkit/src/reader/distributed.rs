//! Distributed checkpoints.

use std::collections::BTreeMap;
use std::path::Path;

use ckptkit_core::{Key, Region, Result, Section, TensorInfo, TensorSource};
use distcp::DistCheckpoint;

use crate::Value;
use crate::format::Format;
use crate::opened::{Artifact, Config, Entry, OpenOptions, Opened, Rule, Values};
use crate::training::Training;

/// Keys and beginnings of names that are never the model's: Megatron keeps all at the root.
const NOT_WEIGHTS: [&str; 6] =
    ["common", "optimizer.", "optim.", "rng_state", "chained_", "opt_param_scheduler"];

pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Opened> {
    let checkpoint = distcp::OpenOptions::default()
        .limits(options.limits.clone())
        .allow_partial(options.allow_partial)
        .open(path)?;
    let mut entries = Vec::new();
    let mut failures = checkpoint.failures().to_vec();
    for (info, path) in checkpoint.infos().zip(checkpoint.paths()) {
        match checkpoint.tensor(info.name()) {
            Ok(tensor) => entries.push(Entry { tensor, path }),
            Err(e) => failures.push((info.name().to_owned(), e)),
        }
    }
    // Without paths (Megatron, custom planners) everything stands at the root under flat names.
    let flat = entries.iter().all(|e| e.path.len() == 1);
    let weights = if flat || checkpoint.variant() == "megatron" {
        Rule::RootExcept(NOT_WEIGHTS.iter().map(|s| (*s).to_owned()).collect())
    } else if checkpoint.variant() == "lightning" && has_key(&entries, "state_dict") {
        Rule::Key("state_dict")
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
    Ok(Opened {
        format: Format::Distcp,
        variant: checkpoint.variant().to_owned(),
        entries,
        failures,
        notes: checkpoint.notes(),
        artifacts,
        metadata: BTreeMap::new(),
        shards: checkpoint.files().len(),
        training: training(&checkpoint),
        weights,
        writer: Some(checkpoint.writer().to_owned()),
        values: Box::new(DistValues { checkpoint }),
    })
}

fn has_key(entries: &[Entry], key: &str) -> bool {
    entries
        .iter()
        .any(|e| e.path.len() > 1 && matches!(e.path.first(), Some(Key::Str(k)) if k == key))
}

fn context_root(checkpoint: &DistCheckpoint) -> Option<std::path::PathBuf> {
    Some(checkpoint.dir()?.parent()?.to_path_buf())
}

/// From Lightning's `meta.pt`; optimizers are counted by the keys that hold their state.
fn training(checkpoint: &DistCheckpoint) -> Option<Training> {
    let meta = checkpoint.meta().ok().flatten()?;
    let optimizers: std::collections::BTreeSet<String> = checkpoint
        .paths()
        .filter_map(|p| match p.first() {
            Some(Key::Str(k))
                if k.strip_prefix("optimizer_").is_some_and(|n| n.parse::<u32>().is_ok()) =>
            {
                Some(k.clone())
            }
            _ => None,
        })
        .collect();
    Some(Training { optimizers: optimizers.len(), ..super::torch::training(&meta) })
}

struct DistValues {
    checkpoint: DistCheckpoint,
}

impl Values for DistValues {
    fn lookup(&self, path: &str) -> Result<Value> {
        self.checkpoint.value(path)
    }

    fn top(&self) -> Vec<String> {
        top_keys(&self.checkpoint)
    }

    fn filled(&self) -> BTreeMap<String, u64> {
        let names = self.checkpoint.infos().map(TensorInfo::name);
        let filled = names.filter_map(|name| {
            // What cannot be read says so when it is read.
            let regions = self.checkpoint.filled(name).ok()?;
            let elements = |r: &Region| r.sizes.iter().product::<u64>();
            (!regions.is_empty()).then(|| (name.to_owned(), regions.iter().map(elements).sum()))
        });
        filled.collect()
    }

    fn config(&self) -> Result<Option<Config>> {
        let Some(meta) = self.checkpoint.meta()? else { return Ok(None) };
        match meta.lookup("hyper_parameters") {
            Ok(value) => Ok(Some(Config {
                origin: "hyper_parameters".into(),
                value: value.into_plain(),
                text: None,
            })),
            Err(_) => Ok(None),
        }
    }
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
