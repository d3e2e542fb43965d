//! What a SpeechLM2 model's directory says beyond what its training checkpoint holds.
//!
//! A run that begins with a pretrained ASR model takes the config of its encoder from there, and
//! Lightning keeps the config as it was before. NeMo's export builds the model again, parents and
//! all, to write it; the archive's config and the tensors' shapes say the same.

use std::path::Path;

use ckptkit_core::{Dtype, Error, Result, Tensor};

use super::model_config::{entry, is_speechlm2};
use crate::Value;
use crate::opened::Config;

/// What NeMo names its directories by, for transformers and vLLM.
const MODEL_TYPE: &str = "nemo_speechlm";
const ARCHITECTURE: &str = "NeMoSpeechLMForConditionalGeneration";
/// What the perception module is built from.
const SECTIONS: [&str; 2] = ["preprocessor", "encoder"];

/// Completes the config of a SpeechLM2 model; nothing happens to others. `asr` is the archive that
/// the run began with, `dtype` what the weights were cast to. Gives notes on what is missing.
pub(super) fn complete(
    config: &mut Config,
    tensors: &[Tensor],
    asr: Option<&Path>,
    dtype: Option<Dtype>,
) -> Result<Vec<String>> {
    if !is_speechlm2(&config.value) {
        return match asr {
            None => Ok(Vec::new()),
            Some(_) => Err(Error::invalid(format!(
                "{} is no config of a SpeechLM2 model, which --asr completes: it names no \
                 language model with a perception module",
                config.origin
            ))
            .hint("leave out --asr")),
        };
    }
    let before = config.value.clone();
    default(&mut config.value, "model_type", || Value::Str(MODEL_TYPE.into()));
    default(&mut config.value, "architectures", || {
        Value::List(vec![Value::Str(ARCHITECTURE.into())])
    });
    if let Some(name) = dtype.and_then(Dtype::torch_name) {
        if config.value.get("dtype").is_none() {
            default(&mut config.value, "torch_dtype", || Value::Str(name.into()));
        }
    }
    if let Some(asr) = asr {
        perception(&mut config.value, tensors, asr).map_err(|e| e.in_file(asr))?;
    }
    if config.value != before {
        config.text = None;
    }
    Ok(missing(&config.value))
}

fn default(config: &mut Value, key: &str, value: impl FnOnce() -> Value) {
    if let Some(place) = entry(config, key).filter(|place| **place == Value::None) {
        *place = value();
    }
}

/// The sections that nothing can be built without.
fn missing(config: &Value) -> Vec<String> {
    let lacks = |key: &str| config.get(key).is_none_or(|found| *found == Value::None);
    // Of the encoder the user may have given some values only.
    let keys = ["perception.preprocessor", "perception.encoder._target_"];
    let sections = SECTIONS.into_iter().zip(keys).filter(|(_, key)| lacks(key));
    let sections: Vec<&str> = sections.map(|(section, _)| section).collect();
    if sections.is_empty() {
        return Vec::new();
    }
    let from = config.get("pretrained_asr").and_then(Value::as_str).unwrap_or("an ASR model");
    vec![format!(
        "the config lacks the {} of the perception module, without which NeMo does not load the \
         model: the run took it from {from}; give that archive with --asr FILE.nemo",
        sections.join(" and ")
    )]
}

/// The sections of an ASR model's archive, as NeMo puts them into the config: the user's own values
/// of the encoder stay, and what leads to the language model is as wide as it.
#[cfg(feature = "nemo")]
fn perception(config: &mut Value, tensors: &[Tensor], asr: &Path) -> Result<()> {
    let archive = nemo_archive::NemoArchive::open(asr)?;
    let theirs = archive.config()?;
    let section = |key: &str| {
        let absent = || Error::not_found(format!("its config has no section {key:?}"));
        theirs.get(key).ok_or_else(absent)?;
        theirs.resolve(key)
    };
    let (preprocessor, mut encoder) = (section("preprocessor")?, section("encoder")?);
    same_encoder(tensors, archive.weights()?.tensors())?;
    let Some(perception) = entry(config, "perception") else { return Ok(()) };
    let Some(own) = entry(perception, "encoder") else { return Ok(()) };
    if let Value::Dict(pairs) = std::mem::replace(own, Value::None) {
        for (key, value) in pairs.into_iter().filter(|(_, value)| *value != Value::None) {
            let place = key.as_str().and_then(|key| entry(&mut encoder, key));
            if let Some(place) = place {
                *place = value;
            }
        }
    }
    *own = encoder;
    if let Some(place) = entry(perception, "preprocessor") {
        *place = preprocessor;
    }
    let Some(width) = width(tensors) else { return Ok(()) };
    if let Some(place) = entry(perception, "output_dim") {
        *place = Value::Int(width);
    }
    if perception.get("modality_adapter.output_dim").is_some() {
        let adapter = entry(perception, "modality_adapter");
        if let Some(place) = adapter.and_then(|adapter| entry(adapter, "output_dim")) {
            *place = Value::Int(width);
        }
    }
    Ok(())
}

#[cfg(not(feature = "nemo"))]
fn perception(_: &mut Value, _: &[Tensor], _: &Path) -> Result<()> {
    Err(crate::reader::left_out(crate::format::Format::Nemo))
}

/// The language model's hidden size: the columns of its embedding.
#[cfg(feature = "nemo")]
fn width(tensors: &[Tensor]) -> Option<i64> {
    let embedding = tensors.iter().find(|t| {
        let outer = t.name().strip_suffix("embed_tokens.weight");
        outer.is_some_and(|outer| outer.is_empty() || outer.ends_with('.'))
    })?;
    i64::try_from(*embedding.shape().get(1)?).ok()
}

/// Refuses an archive with another encoder than the one that was trained.
#[cfg(feature = "nemo")]
fn same_encoder(tensors: &[Tensor], theirs: &[Tensor]) -> Result<()> {
    let ours: std::collections::HashMap<&str, &Tensor> = tensors
        .iter()
        .filter_map(|t| Some((&t.name()[t.name().find(".encoder.")? + 1..], t)))
        .collect();
    for tensor in theirs.iter().filter(|t| t.name().starts_with("encoder.")) {
        let Some(found) = ours.get(tensor.name()) else { continue };
        if found.shape() != tensor.shape() {
            return Err(Error::invalid(format!(
                "its {} has the shape {:?}, and {} of the checkpoint {:?}: it is not the archive \
                 that the run began with",
                tensor.name(),
                tensor.shape(),
                found.name(),
                found.shape()
            ))
            .hint("give the one that pretrained_asr names"));
        }
    }
    Ok(())
}
