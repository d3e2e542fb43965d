//! What a person should know about an archive that reads well.

use ckptkit_core::TensorSource;

use crate::artifact;
use crate::config::Config;
use crate::index::Index;
use crate::weights::Weights;

/// Packages that configs of real models name. Others still read; NeMo 3.0 no longer loads them.
const KNOWN_TARGETS: [&str; 21] = [
    "nemo",
    "torch",
    "torchaudio",
    "torchvision",
    "torchmetrics",
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "transformers",
    "tokenizers",
    "megatron",
    "transformer_engine",
    "apex",
    "omegaconf",
    "hydra",
    "peft",
    "lhotse",
    "nemo_text_processing",
    "nv_one_logger",
    "numpy",
    "einops",
];
/// How many examples one note names.
const SHOWN: usize = 3;

pub(crate) fn collect(
    index: &Index,
    config: Option<&Config>,
    weights: Option<&Weights>,
) -> Vec<String> {
    let mut out = index.notes.clone();
    if let Some(config) = config {
        out.extend_from_slice(config.notes());
        references(index, config, &mut out);
        targets(config, &mut out);
        leaked_paths(config, &mut out);
    }
    if let Some(weights) = weights {
        out.extend_from_slice(weights.notes());
        if is_adapter_only(weights) {
            out.push("holds adapter weights only, which need a base model".into());
        }
    }
    out
}

fn references(index: &Index, config: &Config, out: &mut Vec<String>) {
    for (key, uri) in artifact::unresolved(index, config) {
        out.push(format!("key {key} refers to {uri:?}, which is no member"));
    }
    if index.is_quantized() {
        return; // its files are found by their own names
    }
    let Ok(artifacts) = artifact::list(index, config) else { return };
    for artifact in artifacts.iter().filter(|a| !a.is_referenced()) {
        out.push(format!("no key of the config refers to the member {}", artifact.name()));
    }
}

/// Names of code are data here; NeMo would import them.
fn targets(config: &Config, out: &mut Vec<String>) {
    for (key, text) in config.strings() {
        let last = key.rsplit('.').next().unwrap_or(&key);
        let parts: Vec<&str> = text.split('.').collect();
        let names_code = parts.len() > 1 && parts.iter().all(|p| is_identifier(p));
        let package = parts.first().copied().unwrap_or_default();
        let known = match last {
            // NeMo itself loads models of its own only.
            "target" if key == last => package == "nemo",
            "_target_" | "target" | "cls" => KNOWN_TARGETS.contains(&package),
            _ => continue,
        };
        if names_code && !known {
            out.push(format!("key {key} names code outside the known packages: {text}"));
        }
    }
}

fn is_identifier(s: &str) -> bool {
    !s.is_empty()
        && !s.starts_with(|c: char| c.is_ascii_digit())
        && s.chars().all(|c| c.is_alphanumeric() || c == '_')
}

fn leaked_paths(config: &Config, out: &mut Vec<String>) {
    let strings = config.strings();
    let leaks: Vec<&(String, &str)> = strings.iter().filter(|(_, t)| is_local_path(t)).collect();
    if leaks.is_empty() {
        return;
    }
    let examples: Vec<String> =
        leaks.iter().take(SHOWN).map(|(key, text)| format!("{key}: {text}")).collect();
    let count = leaks.len();
    out.push(format!(
        "{count} value{} of the config hold{} absolute paths of another machine ({}{})",
        if count == 1 { "" } else { "s" },
        if count == 1 { "s" } else { "" },
        examples.join(", "),
        if count > SHOWN { ", …" } else { "" }
    ));
}

fn is_local_path(text: &str) -> bool {
    let unix = text.strip_prefix('/').or_else(|| text.strip_prefix("~/"));
    let drive = matches!(text.as_bytes(), [d, b':', b'\\' | b'/', ..] if d.is_ascii_alphabetic());
    let file = text.starts_with("file://") || text.starts_with("\\\\");
    drive || file || unix.is_some_and(|rest| rest.contains('/') && !rest.starts_with('/'))
}

pub(crate) fn is_adapter_only(weights: &Weights) -> bool {
    let mut names = weights.infos().map(ckptkit_core::TensorInfo::name).peekable();
    names.peek().is_some()
        && names.all(|n| {
            n.contains("adapter_layer.")
                || n.contains("prompt_table")
                || n.contains("prompt_encoder")
        })
}
