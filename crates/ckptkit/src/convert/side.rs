//! What stands beside the tensors in a directory target: the config and the artifacts.

use std::collections::HashSet;

use ckptkit_core::{Dtype, EntryPath, Layout, OutputFile, Result, Segment};

use super::report::{Kind, LeftOut};
#[cfg(feature = "torch")]
use crate::Value;
use crate::checkpoint::Checkpoint;
#[cfg(feature = "torch")]
use crate::json::Json;
use crate::opened::Config;

/// Adds `config.json` and the artifacts to a directory. `dtype` is what the weights were cast to.
pub(super) fn add(
    checkpoint: &Checkpoint,
    layout: &mut Layout,
    dtype: Option<Dtype>,
    left_out: &mut Vec<LeftOut>,
    notes: &mut Vec<String>,
) -> Result<()> {
    if let Some(config) = checkpoint.config()? {
        #[cfg(feature = "torch")]
        let mut config = config;
        #[cfg(feature = "torch")]
        if let Some(changed) = dtype.and_then(|dtype| name_dtype(&mut config, dtype)) {
            notes.push(changed);
        }
        let (name, bytes) = config_file(&config);
        if name != "config.json" {
            notes.push(format!(
                "{} cannot be said in JSON without loss, so it stays as it is",
                config.origin
            ));
        }
        add_bytes(layout, &name, bytes)?;
    }
    let mut taken: HashSet<String> = layout
        .files()
        .filter_map(|(path, _)| path.map(|p| p.as_str().to_ascii_lowercase()))
        .collect();
    for artifact in checkpoint.artifacts() {
        let skip = |why: &str| LeftOut {
            path: artifact.name.clone(),
            kind: Kind::Artifact,
            why: why.to_owned(),
        };
        let path = match EntryPath::new(&artifact.name) {
            Ok(path) => path,
            Err(e) => {
                left_out.push(skip(e.message()));
                continue;
            }
        };
        if !taken.insert(path.as_str().to_ascii_lowercase()) {
            left_out.push(skip("a file of that name is in the destination already"));
            continue;
        }
        let mut file = OutputFile::default();
        file.push(Segment::Section(artifact.section.clone()))?;
        layout.add(path, file)?;
    }
    Ok(())
}

/// Where a Hugging Face config names the dtype of the weights, that of the cast ones: loaders go by
/// it. Says what was changed.
#[cfg(feature = "torch")]
fn name_dtype(config: &mut Config, dtype: Dtype) -> Option<String> {
    let (Value::Dict(pairs), Some(new)) = (&mut config.value, dtype.torch_name()) else {
        return None;
    };
    let mut changed = None;
    for (key, value) in pairs {
        let names_one = matches!(key.as_str(), Some("dtype" | "torch_dtype"));
        let old = value.as_str().filter(|v| names_one && Dtype::from_torch(v).is_some());
        if let Some(old) = old.filter(|old| *old != new) {
            let key = key.as_str().unwrap_or_default();
            changed = Some(format!("{key} in {} was {old} and is {new} now", config.origin));
            *value = Value::Str(new.into());
        }
    }
    if changed.is_some() {
        config.text = None;
    }
    changed
}

fn add_bytes(layout: &mut Layout, name: &str, bytes: Vec<u8>) -> Result<()> {
    let mut file = OutputFile::default();
    file.push(Segment::Literal(bytes))?;
    layout.add(EntryPath::new(name)?, file)
}

/// The config as JSON; as the text that it was where JSON would lose something of it.
fn config_file(config: &Config) -> (String, Vec<u8>) {
    let as_text = |text: &String| (config.origin.clone(), text.clone().into_bytes());
    #[cfg(feature = "torch")]
    match &config.text {
        Some(text) if config.origin == "config.json" || !is_json(&config.value) => as_text(text),
        _ => {
            let mut json = serde_json::to_vec_pretty(&Json(&config.value)).unwrap_or_default();
            json.push(b'\n');
            ("config.json".into(), json)
        }
    }
    #[cfg(not(feature = "torch"))]
    config.text.as_ref().map(as_text).unwrap_or_default()
}

/// Whether JSON holds the value exactly.
#[cfg(feature = "torch")]
fn is_json(value: &Value) -> bool {
    match value {
        Value::None | Value::Bool(_) | Value::Int(_) | Value::Str(_) => true,
        Value::Float(f) => f.is_finite(),
        Value::List(items) => items.iter().all(is_json),
        Value::Dict(pairs) => pairs.iter().all(|(k, v)| matches!(k, Value::Str(_)) && is_json(v)),
        _ => false,
    }
}
