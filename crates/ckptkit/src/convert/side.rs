//! What stands beside the tensors in a directory target: the config and the artifacts.

use std::collections::HashSet;

use ckptkit_core::{EntryPath, Layout, OutputFile, Result, Segment};

use super::report::{Kind, LeftOut};
#[cfg(feature = "torch")]
use crate::Value;
use crate::checkpoint::Checkpoint;
#[cfg(feature = "torch")]
use crate::json::Json;
use crate::opened::Config;

/// Adds `config.json` and the artifacts to a directory.
pub(super) fn add(
    checkpoint: &Checkpoint,
    layout: &mut Layout,
    left_out: &mut Vec<LeftOut>,
    notes: &mut Vec<String>,
) -> Result<()> {
    if let Some(config) = checkpoint.config()? {
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
