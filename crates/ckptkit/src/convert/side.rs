//! What stands beside the tensors in a directory target: the config and the artifacts.

use std::collections::HashSet;

#[cfg(feature = "torch")]
use ckptkit_core::Dtype;
use ckptkit_core::{EntryPath, Layout, OutputFile, Result, Segment, Tensor};

use super::job::Job;
use super::report::Kind;
#[cfg(feature = "torch")]
use super::{model_config, speechlm2};
#[cfg(feature = "torch")]
use crate::Value;
#[cfg(feature = "torch")]
use crate::json::Json;
use crate::opened::Config;

/// Adds `config.json` and the artifacts to a directory that gets these tensors.
pub(super) fn add(job: &mut Job<'_>, layout: &mut Layout, tensors: &[Tensor]) -> Result<()> {
    let (checkpoint, wish) = (job.checkpoint, job.wish);
    #[cfg(not(feature = "torch"))]
    if wish.asr.is_some() {
        let _ = tensors;
        return Err(crate::reader::left_out(crate::format::Format::Nemo));
    }
    if let Some(config) = checkpoint.config()? {
        let notes = &mut job.report.notes;
        #[cfg(feature = "torch")]
        let mut config = model_config::of_model(config);
        #[cfg(feature = "torch")]
        {
            notes.extend(wish.dtype.and_then(|dtype| name_dtype(&mut config, dtype)));
            let asr = wish.asr.as_deref();
            notes.extend(speechlm2::complete(&mut config, tensors, asr, wish.dtype)?);
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
        let path = match EntryPath::new(&artifact.name) {
            Ok(path) => path,
            Err(e) => {
                job.left_out(&artifact.name, Kind::Artifact, e.message());
                continue;
            }
        };
        if !taken.insert(path.as_str().to_ascii_lowercase()) {
            const TAKEN: &str = "a file of that name is in the destination already";
            job.left_out(&artifact.name, Kind::Artifact, TAKEN);
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
