//! safetensors files and directories.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ckptkit_core::{Error, Result, Section, StorageId, Tensor, TensorBytes, TensorInfo};
use st_io::StCheckpoint;

#[cfg(feature = "torch")]
use super::kept::Kept;
#[cfg(feature = "torch")]
use super::torch::TorchValues;
#[cfg(feature = "torch")]
use crate::Value;
use crate::format::Format;
#[cfg(feature = "torch")]
use crate::json;
use crate::opened::{Artifact, Config, Entry, OpenOptions, Opened, Rule, Values};
#[cfg(feature = "torch")]
use crate::opened::{Whole, is_absent};

/// The config of a model of NeMo's that JSON could not hold.
const YAML: &str = "model_config.yaml";
/// Bytes of a config that are worth reading.
const MAX_CONFIG_BYTES: u64 = 64 << 20;

fn st_options(options: &OpenOptions) -> st_io::OpenOptions {
    let mut out = st_io::OpenOptions::default();
    out.limits = options.limits.clone();
    #[cfg(feature = "mmap")]
    {
        out.mapped = options.mapped;
    }
    out
}

pub(super) fn open_path(path: &Path, options: &OpenOptions) -> Result<Opened> {
    opened(StCheckpoint::open_with(path, &st_options(options))?, options)
}

pub(super) fn open_file(path: &Path, section: Section, options: &OpenOptions) -> Result<Opened> {
    opened(StCheckpoint::open_at(path, section, &st_options(options))?, options)
}

fn opened(checkpoint: StCheckpoint, options: &OpenOptions) -> Result<Opened> {
    let mut entries = Vec::with_capacity(checkpoint.infos().size_hint().1.unwrap_or(0));
    let mut failures = Vec::new();
    for (info, tensor) in checkpoint.infos().zip(checkpoint.tensors()) {
        match tensor {
            Ok(tensor) => entries.push(Entry::flat(tensor)),
            Err(e) => failures.push((info.name().to_owned(), e)),
        }
    }
    for entry in checkpoint.entries().filter(|e| e.info().is_none()) {
        let why = Error::unsupported(format!("its dtype {} is not known", entry.dtype()))
            .within(format_args!("tensor {}", entry.name()));
        failures.push((entry.name().to_owned(), why));
    }
    tie(&mut entries, &checkpoint.aliases())?;
    let mut artifacts: Vec<Artifact> = checkpoint
        .artifacts()?
        .into_iter()
        .map(|(name, section)| Artifact { name, section })
        .collect();
    let config = checkpoint.config()?;
    let yaml = artifacts.iter().position(|a| a.name == YAML);
    let yaml = yaml.filter(|_| config.is_none() && cfg!(feature = "nemo"));
    let yaml = yaml.map(|at| artifacts.remove(at).section);
    let mut notes = checkpoint.notes().to_vec();
    let kept = kept(&mut artifacts, &entries, options, &mut notes)?;
    Ok(Opened {
        format: Format::Safetensors,
        variant: checkpoint.variant().name().to_owned(),
        entries,
        failures,
        notes,
        artifacts,
        metadata: checkpoint.metadata().clone(),
        shards: checkpoint.shards().len(),
        training: kept.as_ref().and_then(Kept::training),
        weights: kept.as_ref().map_or(Rule::Root, Kept::weights),
        kept: kept.as_ref().and_then(Kept::format),
        sidecar: kept.as_ref().and_then(Kept::sidecar),
        writer: kept.as_ref().map(Kept::writer),
        #[cfg(feature = "torch")]
        torch: kept.as_ref().and_then(|kept| kept.file.as_ref().ok()).cloned(),
        #[cfg(feature = "nemo")]
        nemo: None,
        #[cfg(feature = "distcp")]
        distributed: None,
        values: Box::new(StValues {
            metadata: checkpoint.metadata().clone(),
            config,
            yaml,
            #[cfg(feature = "torch")]
            of_kept: kept.as_ref().and_then(Kept::values),
            #[cfg(feature = "torch")]
            kept,
        }),
    })
}

/// The sidecar, which is no artifact.
#[cfg(feature = "torch")]
fn kept(
    artifacts: &mut Vec<Artifact>,
    entries: &[Entry],
    options: &OpenOptions,
    notes: &mut Vec<String>,
) -> Result<Option<Kept>> {
    let at = artifacts.iter().position(|a| a.name == crate::sidecar::FILE_NAME);
    let Some(Artifact { section, name }) = at.map(|at| artifacts.remove(at)) else {
        return Ok(None);
    };
    let tensors: HashMap<&str, &Tensor> =
        entries.iter().map(|e| (e.tensor.name(), &e.tensor)).collect();
    let kept = Kept::read(&section, &|name| tensors.get(name).copied().cloned(), &options.limits)?;
    if let Err(e) = &kept.file {
        notes.push(format!("what {name} keeps cannot be put together: {e}"));
    }
    Ok(Some(kept))
}

#[cfg(not(feature = "torch"))]
fn kept(
    _: &mut [Artifact],
    _: &[Entry],
    _: &OpenOptions,
    _: &mut [String],
) -> Result<Option<Kept>> {
    Ok(None)
}

/// What this build makes nothing of.
#[cfg(not(feature = "torch"))]
enum Kept {}

#[cfg(not(feature = "torch"))]
impl Kept {
    fn training(&self) -> Option<crate::training::Training> {
        match *self {}
    }

    fn weights(&self) -> Rule {
        match *self {}
    }

    fn format(&self) -> Option<Format> {
        match *self {}
    }

    fn sidecar(&self) -> Option<Format> {
        match *self {}
    }

    fn writer(&self) -> String {
        match *self {}
    }
}

/// Lists the names that the file records as aliases as the tied tensors that they are.
fn tie(entries: &mut Vec<Entry>, aliases: &BTreeMap<String, String>) -> Result<()> {
    if aliases.is_empty() {
        return Ok(());
    }
    let positions: HashMap<String, usize> =
        entries.iter().enumerate().map(|(i, e)| (e.tensor.name().to_owned(), i)).collect();
    for (removed, kept) in aliases {
        let Some(&i) = positions.get(kept) else { continue };
        let id = StorageId { container: u32::MAX, index: u32::try_from(i).unwrap_or(u32::MAX) };
        let tensor = &entries[i].tensor;
        let of = |name: &str| -> Result<Tensor> {
            let info = TensorInfo::new(name, tensor.dtype(), tensor.shape())?.in_storage(id);
            let bytes: TensorBytes = tensor.bytes().clone();
            Tensor::with_transform(info, bytes, tensor.transform())
        };
        let (kept, removed_tensor) = (of(kept)?, of(removed)?);
        entries[i].tensor = kept;
        entries.push(Entry::flat(removed_tensor));
    }
    Ok(())
}

struct StValues {
    metadata: BTreeMap<String, String>,
    config: Option<Section>,
    yaml: Option<Section>,
    /// What a sidecar keeps.
    #[cfg(feature = "torch")]
    kept: Option<Kept>,
    /// Its values, where its tensors are there.
    #[cfg(feature = "torch")]
    of_kept: Option<TorchValues>,
}

impl Values for StValues {
    #[cfg(feature = "torch")]
    fn lookup(&self, path: &str) -> Result<Value> {
        let metadata = || {
            Value::Dict(
                self.metadata
                    .iter()
                    .map(|(k, v)| (Value::Str(k.clone()), Value::Str(v.clone())))
                    .collect(),
            )
        };
        match self.of_kept.as_ref().map(|kept| kept.lookup(path)) {
            Some(Err(e)) if is_absent(&e) && self.metadata.is_empty() => return Err(e),
            Some(Err(e)) if is_absent(&e) => {}
            Some(found) => return found,
            None => {}
        }
        let config = self.config()?.map(|c| c.value);
        if path.is_empty() {
            let mut all = vec![(Value::Str("__metadata__".into()), metadata())];
            all.extend(config.map(|c| (Value::Str("config".into()), c)));
            return Ok(Value::Dict(all));
        }
        if let Some(value) = self.metadata.get(path) {
            return Ok(Value::Str(value.clone()));
        }
        if path == "__metadata__" {
            return Ok(metadata());
        }
        let found = config.and_then(|c| match path.strip_prefix("config.") {
            Some(rest) => c.get(rest).or_else(|| c.get(path)).cloned(),
            None if path == "config" => Some(c),
            None => c.get(path).cloned(),
        });
        found.ok_or_else(|| {
            let keys: Vec<&str> = self.metadata.keys().map(String::as_str).take(12).collect();
            let held = if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
            Error::not_found(format!("there is no value {path:?}"))
                .hint(format!("the metadata holds: {held}"))
        })
    }

    fn top(&self) -> Vec<String> {
        #[cfg(feature = "torch")]
        if let Some(kept) = &self.of_kept {
            return kept.top();
        }
        Vec::new()
    }

    #[cfg(feature = "torch")]
    fn whole(&self) -> Result<Option<Whole>> {
        match self.kept.as_ref().map(|kept| &kept.file) {
            None => Ok(None),
            Some(Ok(file)) => super::torch::whole(file).map(Some),
            Some(Err(e)) => Err(e.clone()),
        }
    }

    fn config(&self) -> Result<Option<Config>> {
        #[cfg(feature = "torch")]
        if let Some(config) = self.of_kept.as_ref().map(Values::config).transpose()?.flatten() {
            return Ok(Some(config));
        }
        let Some(section) = &self.config else { return self.yaml_config() };
        let bytes = section.read(MAX_CONFIG_BYTES)?;
        #[cfg(feature = "torch")]
        let value = json::parse(&bytes).map_err(|e| e.in_file(section.name()))?;
        Ok(Some(Config {
            origin: "config.json".into(),
            #[cfg(feature = "torch")]
            value,
            text: String::from_utf8(bytes).ok(),
        }))
    }
}

impl StValues {
    /// The config that is there as NeMo keeps it, where this build reads it.
    #[cfg(feature = "nemo")]
    fn yaml_config(&self) -> Result<Option<Config>> {
        let Some(section) = &self.yaml else { return Ok(None) };
        let bytes = section.read(MAX_CONFIG_BYTES)?;
        let config = nemo_archive::Config::parse(&bytes).map_err(|e| e.in_file(section.name()))?;
        let text = Some(config.as_str().to_owned());
        Ok(Some(Config { origin: YAML.into(), value: config.value(), text }))
    }

    #[cfg(not(feature = "nemo"))]
    fn yaml_config(&self) -> Result<Option<Config>> {
        Ok(None)
    }
}
