//! To NeMo archives: the weights as one state dict, a config, artifacts.

use std::path::Path;

use ckptkit_core::{Error, ErrorKind, Layout, OutputFile, Result, ResultExt, Section, TensorInfo};
use nemo_archive::{Builder, Editor, NemoArchive, NewArchive, WriteOptions};

use super::job::{Chosen, Job, LaidOut};
use super::report::Kind;
use super::torch::state_dict_alone;
use crate::Value;
use crate::opened::Config;
use crate::weights::Weights;

/// The folder in the weights' archive, as NeMo calls it.
const ROOT: &str = "model_weights";
/// Members that every archive has.
const RESERVED: [&str; 2] = ["model_config.yaml", "model_weights.ckpt"];
const MAX_CONFIG_BYTES: u64 = 64 << 20;

pub(super) fn weights(job: &mut Job<'_>, weights: &Weights, kept: Vec<Chosen>) -> Result<LaidOut> {
    for key in job.checkpoint.value_keys() {
        if key != "hyper_parameters" {
            job.left_out(
                &key,
                Kind::Value,
                "a .nemo archive holds weights, a config and artifacts",
            );
        }
    }
    let config = match &job.wish.config {
        Some(path) => Some(read_config(path)?),
        None => None,
    };
    // An archive of the same weights is the source with its members copied; forms that no loader
    // of today's archives reads are written anew.
    let untouched = job.keeps_weights() && job.wish.weights_key.is_none();
    let editor = match job.checkpoint.nemo().filter(|_| untouched).map(Editor::new) {
        Some(Err(e)) if e.kind() == ErrorKind::Unsupported => None,
        editor => editor.transpose()?,
    };
    let archive = match (&job.wish.like, editor) {
        (Some(like), _) => as_in(job, like, config, weights, &kept)?,
        (None, Some(mut editor)) => {
            if let Some(config) = config {
                editor.replace_config(config);
            }
            editor.layout(&WriteOptions::new())?
        }
        (None, _) => from_nothing(job, config, weights, &kept)?,
    };
    job.report.notes.extend(archive.notes().iter().cloned());
    let layout = Layout::file(archive.into_file());
    Ok(LaidOut::new(layout, kept.into_iter().map(|c| c.tensor).collect()))
}

fn weights_file(job: &mut Job<'_>, weights: &Weights, kept: &[Chosen]) -> Result<OutputFile> {
    let document = state_dict_alone(job, weights, kept)?;
    let mut options = torch_save::WriteOptions::new();
    options.align = job.wish.align.unwrap_or(options.align);
    options.root = ROOT.into();
    document.into_layout(&options)
}

/// Everything but the weights from another archive, which must have the same tensors.
fn as_in(
    job: &mut Job<'_>,
    like: &Path,
    config: Option<nemo_archive::Config>,
    weights: &Weights,
    kept: &[Chosen],
) -> Result<NewArchive> {
    let other = NemoArchive::open(like)?;
    let mut editor = Editor::new(&other)?;
    let infos: Vec<TensorInfo> = kept.iter().map(|c| c.tensor.info().clone()).collect();
    let difference = editor.difference(&infos)?;
    if !difference.dtypes.is_empty() {
        let n = difference.dtypes.len();
        job.report.notes.push(format!(
            "{n} tensors have another dtype than in {}, to which NeMo casts them",
            like.display()
        ));
    }
    let mut strict = difference;
    strict.dtypes.clear();
    strict.refuse().in_file(like).map_err(|e| {
        e.hint("choose names with --select, --strip-prefix and --add-prefix until they fit")
    })?;
    if let Some(config) = config {
        editor.replace_config(config);
    }
    editor.weights(weights_file(job, weights, kept)?)?;
    for artifact in job.checkpoint.artifacts() {
        job.left_out(
            &artifact.name,
            Kind::Artifact,
            format!("the artifacts are those of {}", like.display()),
        );
    }
    editor.layout(&WriteOptions::new())
}

/// A new archive of the source's config and files.
fn from_nothing(
    job: &mut Job<'_>,
    config: Option<nemo_archive::Config>,
    weights: &Weights,
    kept: &[Chosen],
) -> Result<NewArchive> {
    let checkpoint = job.checkpoint;
    let config = match config {
        Some(config) => config,
        None => config_of(checkpoint.config()?).map_err(|e| {
            e.in_file(checkpoint.path()).hint(
                "give one with --config FILE, or an archive of the same model with --like \
                 OTHER.nemo",
            )
        })?,
    };
    if config.target().is_none() {
        job.report.notes.push(
            "the config names no target: NeMo restores the archive only through the model's own \
             class"
                .into(),
        );
    }
    let mut builder = Builder::new(config);
    for artifact in checkpoint.artifacts() {
        if !RESERVED.contains(&artifact.name.as_str()) {
            builder.member(&artifact.name, &artifact.section)?;
        }
    }
    builder.weights(weights_file(job, weights, kept)?)?;
    builder.layout(&WriteOptions::new()).in_file(checkpoint.path())
}

fn read_config(path: &Path) -> Result<nemo_archive::Config> {
    let bytes = Section::open(path)?.read(MAX_CONFIG_BYTES)?;
    nemo_archive::Config::parse(&bytes).in_file(path)
}

/// The source's config as NeMo's: its own text where it is YAML, and of hyper-parameters those of
/// the one argument that NeMo's models take, whatever else a subclass takes.
fn config_of(config: Option<Config>) -> Result<nemo_archive::Config> {
    let missing =
        || Error::invalid("the checkpoint carries no config, which a .nemo archive needs");
    let config = config.ok_or_else(missing)?;
    if let Some(text) = config.text.filter(|_| config.origin.ends_with(".yaml")) {
        return nemo_archive::Config::parse(text.as_bytes());
    }
    let value = match &config.value {
        Value::Dict(pairs) => pairs
            .iter()
            .find(|(key, value)| key.as_str() == Some("cfg") && matches!(value, Value::Dict(_)))
            .map_or(&config.value, |(_, cfg)| cfg),
        other => other,
    };
    match value {
        Value::Dict(pairs) if !pairs.is_empty() => {
            nemo_archive::Config::from_value(&with_lists(value)).within(|| config.origin)
        }
        _ => Err(missing()),
    }
}

/// YAML has no tuples; OmegaConf makes lists of them too.
fn with_lists(value: &Value) -> Value {
    match value {
        Value::List(items) | Value::Tuple(items) => {
            Value::List(items.iter().map(with_lists).collect())
        }
        Value::Dict(pairs) => {
            Value::Dict(pairs.iter().map(|(k, v)| (k.clone(), with_lists(v))).collect())
        }
        other => other.clone(),
    }
}
