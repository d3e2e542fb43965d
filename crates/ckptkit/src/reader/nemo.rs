//! NeMo archives and their unpacked directories.

use std::collections::BTreeMap;
use std::path::Path;

use ckptkit_core::{Error, Result, Section};
use nemo_archive::{NemoArchive, Weights, WeightsLayout};
use torch_save::TorchFile;

use crate::Value;
use crate::format::Format;
use crate::opened::{Artifact, Config, Entry, OpenOptions, Opened, Rule, Values, Whole};

/// Text of an artifact that is shown as a value.
const MAX_TEXT_BYTES: u64 = 64 << 20;

fn nemo_options(options: &OpenOptions) -> nemo_archive::OpenOptions {
    let nemo = nemo_archive::OpenOptions::new().torch_limits(options.limits.clone());
    #[cfg(feature = "mmap")]
    let nemo = nemo.mapped(options.mapped);
    #[cfg(feature = "distcp")]
    let nemo = nemo.allow_partial(options.allow_partial);
    nemo
}

pub(super) fn open_file(section: Section, options: &OpenOptions) -> Result<Opened> {
    opened(nemo_options(options).open_section(section)?, options)
}

pub(super) fn open_directory(path: &Path, options: &OpenOptions) -> Result<Opened> {
    opened(nemo_options(options).open(path)?, options)
}

fn opened(archive: NemoArchive, options: &OpenOptions) -> Result<Opened> {
    let weights = archive.weights()?;
    let config = archive.config()?;
    let artifacts = archive
        .artifacts()?
        .iter()
        .map(|a| Ok(Artifact { name: a.name().to_owned(), section: a.section()? }))
        .collect::<Result<_>>()?;
    let mut entries = entries(weights);
    let mut notes = archive.notes();
    let kept = kept(weights, &mut entries, options, &mut notes);
    let except = match weights.layout() {
        #[cfg(feature = "distcp")]
        WeightsLayout::Distributed => super::distributed::root(),
        _ => Rule::Root,
    };
    Ok(Opened {
        format: Format::Nemo,
        variant: archive.variant().as_str().to_owned(),
        entries,
        failures: weights.failures().to_vec(),
        notes,
        artifacts,
        metadata: BTreeMap::new(),
        shards: match weights.layout() {
            WeightsLayout::Quantized => weights.ranks(),
            _ => weights.files().len().max(1),
        },
        training: None,
        weights: kept.as_ref().map_or(except, |kept| kept.weights.clone()),
        kept: None,
        sidecar: kept.as_ref().map(|kept| kept.format),
        torch: match (weights.files(), &kept) {
            (_, Some(kept)) => Some(kept.file.clone()),
            ([file], None) if file.prefix().is_none() => Some(file.torch().clone()),
            _ => None,
        },
        nemo: Some(archive.clone()),
        #[cfg(feature = "distcp")]
        distributed: None,
        writer: writer(config),
        values: Box::new(NemoValues { archive, kept: kept.map(|kept| kept.file) }),
    })
}

/// What wrote the archive; quantized exports name the tool that quantized.
fn writer(config: &nemo_archive::Config) -> Option<String> {
    if let Some(version) = config.nemo_version() {
        return Some(format!("NeMo {version}"));
    }
    match (config.get("producer.name"), config.get("producer.version")) {
        (Some(Value::Str(name)), Some(Value::Str(version))) => Some(format!("{name} {version}")),
        _ => None,
    }
}

/// The tensors with their paths; those of a distributed checkpoint inside have longer ones.
fn entries(weights: &Weights) -> Vec<Entry> {
    #[cfg(feature = "distcp")]
    if let Some(inner) = weights.distributed() {
        let paths = inner.paths().zip(weights.tensors());
        return paths.map(|(path, t)| Entry::nested(path.into(), t.clone())).collect();
    }
    weights.tensors().iter().cloned().map(Entry::flat).collect()
}

/// The object that a sidecar keeps beside a distributed checkpoint inside.
struct Inner {
    file: TorchFile,
    weights: Rule,
    format: Format,
}

#[cfg(feature = "distcp")]
fn kept(
    weights: &Weights,
    entries: &mut [Entry],
    options: &OpenOptions,
    notes: &mut Vec<String>,
) -> Option<Inner> {
    let tensors = entries.iter().map(|e| &e.tensor);
    let kept = super::kept::beside(weights.distributed()?, tensors, &options.limits);
    let kept = kept.unwrap_or_else(|e| {
        notes.push(super::kept::ignored(&e));
        None
    })?;
    let (weights, format) = (kept.weights(), kept.sidecar()?);
    let file = kept.file.ok()?;
    super::kept::tie(entries, &file);
    Some(Inner { file, weights, format })
}

#[cfg(not(feature = "distcp"))]
fn kept(_: &Weights, _: &mut [Entry], _: &OpenOptions, _: &mut Vec<String>) -> Option<Inner> {
    None
}

struct NemoValues {
    archive: NemoArchive,
    /// What a sidecar keeps.
    kept: Option<TorchFile>,
}

impl Values for NemoValues {
    fn whole(&self) -> Result<Option<Whole>> {
        if let Some(file) = &self.kept {
            return super::torch::whole(file).map(Some);
        }
        match self.archive.weights()?.files() {
            [file] if file.prefix().is_none() => super::torch::whole(file.torch()).map(Some),
            _ => Ok(None),
        }
    }

    /// A config key, interpolations resolved; `config.KEY` too; an artifact's text by its name;
    /// what the weights' pickle holds beside tensors.
    fn lookup(&self, path: &str) -> Result<Value> {
        let config = self.archive.config()?;
        if path.is_empty() || path == "config" {
            return config.resolved();
        }
        let inner = path.strip_prefix("config.").unwrap_or(path);
        if config.get(inner).is_some() {
            return config.resolve(inner);
        }
        if path == self.archive.config_name() {
            return self.archive.config_text().map(Value::Str);
        }
        for artifact in self.archive.artifacts()? {
            if artifact.name() == path || artifact.base_name() == path {
                let bytes = artifact.section()?.read(MAX_TEXT_BYTES)?;
                return Ok(String::from_utf8(bytes)
                    .map_or_else(|e| Value::Bytes(e.into_bytes()), Value::Str));
            }
        }
        if let Some(Ok(value)) = self.kept.as_ref().map(|file| file.lookup(path)) {
            return Ok(value);
        }
        for file in self.archive.weights()?.files() {
            let inner = match file.prefix() {
                Some(prefix) => path.strip_prefix(prefix).and_then(|p| p.strip_prefix('/')),
                None => Some(path),
            };
            if let Some(Ok(value)) = inner.map(|p| file.torch().lookup(p)) {
                return Ok(value);
            }
        }
        #[cfg(feature = "distcp")]
        if let Some(inner) = self.archive.weights()?.distributed() {
            if let Ok(value) = inner.value(path) {
                return Ok(value);
            }
        }
        Err(Error::not_found(format!("there is no config key, artifact or value {path:?}"))
            .hint("show config lists the config; inspect lists the artifacts"))
    }

    fn top(&self) -> Vec<String> {
        if let Some(file) = &self.kept {
            return super::torch::top_keys(file);
        }
        let Ok(weights) = self.archive.weights() else { return Vec::new() };
        let of = |file: &nemo_archive::WeightsFile| -> Vec<String> {
            let keys = super::torch::top_keys(file.torch());
            match file.prefix() {
                Some(prefix) => keys.into_iter().map(|k| format!("{prefix}/{k}")).collect(),
                None => keys,
            }
        };
        let keys = weights.files().iter().flat_map(of);
        #[cfg(feature = "distcp")]
        let keys =
            keys.chain(weights.distributed().into_iter().flat_map(super::distributed::top_keys));
        keys.collect()
    }

    #[cfg(feature = "distcp")]
    fn filled(&self) -> BTreeMap<String, u64> {
        let inner = self.archive.weights().ok().and_then(Weights::distributed);
        inner.map(super::distributed::filled).unwrap_or_default()
    }

    fn config(&self) -> Result<Option<Config>> {
        let value = self.archive.config()?.resolved()?;
        Ok(Some(Config {
            origin: self.archive.config_name().to_owned(),
            value,
            text: Some(self.archive.config_text()?),
        }))
    }
}
