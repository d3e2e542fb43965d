//! Which members hold the weights: what each release of NeMo did.

use ckptkit_core::{Error, Result};

use super::quantized::{self, Shard};
use super::ranks::{self, Rank};
use crate::entry::Entry;
use crate::index::Index;

/// Where NeMo 0.11 put everything.
pub(crate) const V0_11_FOLDER: &str = ".nemo_tmp";

const FILE: &str = "model_weights.ckpt";
pub(super) const FOLDER: &str = "model_weights/";

/// How an archive lays its tensors out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightsLayout {
    /// `model_weights.ckpt`.
    File,
    /// One `model_weights.ckpt` in a folder for each model-parallel rank.
    Ranks,
    /// A distributed checkpoint in the folder `model_weights/`.
    Distributed,
    /// One `CLASS.pt` for each module: NeMo 0.11.
    Modules,
    /// `rank0.safetensors`, `rank1.safetensors`, …: a quantized export (`.qnemo`).
    Quantized,
    /// No weights of its own, but whole models inside: a diarizer.
    Nested,
}

pub(super) enum Plan<'a> {
    File(&'a Entry),
    Ranks(Vec<Rank<'a>>),
    Distributed,
    Quantized(Vec<Shard<'a>>),
    Modules(Vec<&'a Entry>),
    Nested(Vec<&'a str>),
}

impl Plan<'_> {
    pub(super) fn layout(&self) -> WeightsLayout {
        match self {
            Self::File(_) => WeightsLayout::File,
            Self::Ranks(_) => WeightsLayout::Ranks,
            Self::Distributed => WeightsLayout::Distributed,
            Self::Modules(_) => WeightsLayout::Modules,
            Self::Quantized(_) => WeightsLayout::Quantized,
            Self::Nested(_) => WeightsLayout::Nested,
        }
    }
}

pub(super) fn plan(index: &Index) -> Result<Plan<'_>> {
    if index.is_v0_11() {
        let modules: Vec<&Entry> = modules(index).collect();
        if !modules.is_empty() {
            return Ok(Plan::Modules(modules));
        }
        let error = Error::not_found("no CLASS.pt with weights among the members");
        return Err(if index.files().any(|e| e.path().as_str().ends_with(".onnx")) {
            error.hint("the modules were exported to ONNX, which holds no state dict")
        } else {
            error
        });
    }
    if index.is_quantized() {
        return Ok(Plan::Quantized(quantized::find(index)?));
    }
    if let Some(entry) = index.file(FILE) {
        return Ok(Plan::File(entry));
    }
    let ranks = ranks::find(index);
    if !ranks.is_empty() {
        return Ok(Plan::Ranks(ranks));
    }
    if index.files().any(|e| e.path().as_str().starts_with(FOLDER)) {
        return Ok(Plan::Distributed);
    }
    let nested: Vec<&str> = nested_names(index).collect();
    if !nested.is_empty() {
        return Ok(Plan::Nested(nested));
    }
    let error = Error::not_found("no model_weights.ckpt among the members");
    Err(match index.files().find(|e| e.path().as_str().ends_with(".safetensors")) {
        Some(e) => error.hint(format!(
            "{} is there, which no release of NeMo loads: unpack it and open it as safetensors",
            e.path()
        )),
        None => error.hint("the archive holds a config without a model"),
    })
}

/// Where the weights lie, by the names of the members.
#[cfg(feature = "write")]
pub(crate) fn layout_of(index: &Index) -> Result<WeightsLayout> {
    plan(index).map(|plan| plan.layout())
}

fn modules(index: &Index) -> impl Iterator<Item = &Entry> {
    index.files().filter(|e| {
        let name = e.path().as_str();
        !name.contains('/') && name.ends_with(".pt")
    })
}

/// Whole models at the top of the archive.
pub(crate) fn nested_names(index: &Index) -> impl Iterator<Item = &str> {
    index
        .files()
        .map(|e| e.path().as_str())
        .filter(|name| !name.contains('/') && name.ends_with(".nemo"))
}

/// Whether a member is weights, and so no artifact.
pub(crate) fn is_part(index: &Index, entry: &Entry) -> bool {
    let name = entry.path().as_str();
    if index.is_v0_11() {
        return !name.contains('/') && name.ends_with(".pt");
    }
    if index.is_quantized() {
        return quantized::rank_of_file(name).is_some();
    }
    let nested = || !name.contains('/') && name.ends_with(".nemo");
    name == FILE
        || name.starts_with(FOLDER)
        || ranks::of_member(name).is_some()
        || (nested() && matches!(plan(index), Ok(Plan::Nested(_))))
}

/// Weights that a better-placed member hides.
pub(super) fn left_aside(index: &Index) -> Vec<String> {
    let mut out = Vec::new();
    if !index.is_v0_11() && !index.is_quantized() && index.file(FILE).is_some() {
        if !ranks::find(index).is_empty() {
            out.push(format!("the rank directories beside {FILE} are not read"));
        }
        if index.files().any(|e| e.path().as_str().starts_with(FOLDER)) {
            out.push(format!("the folder {FOLDER} beside {FILE} is not read"));
        }
    }
    out
}
