//! safetensors files and directories.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use ckptkit_core::{
    Error, Key, Limits, Result, Section, StorageId, Tensor, TensorBytes, TensorInfo,
};
use st_io::StCheckpoint;
#[cfg(feature = "torch")]
use torch_save::pickle::Kind;
#[cfg(feature = "torch")]
use torch_save::{Document, NodeId};

#[cfg(feature = "torch")]
use crate::Value;
use crate::format::Format;
#[cfg(feature = "torch")]
use crate::json;
#[cfg(feature = "torch")]
use crate::opened::Whole;
use crate::opened::{Artifact, Config, Entry, OpenOptions, Opened, Rule, Values};
#[cfg(feature = "torch")]
use crate::sidecar::{self, Sidecar};

/// The config of a model of NeMo's that JSON could not hold.
const YAML: &str = "model_config.yaml";
/// Deeper tensors are found by nobody's name.
#[cfg(feature = "torch")]
const MAX_DEPTH: usize = 200;
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
    let mut entries = Vec::new();
    let mut failures = Vec::new();
    for (info, tensor) in checkpoint.infos().zip(checkpoint.tensors()) {
        match tensor {
            Ok(tensor) => {
                entries.push(Entry { path: vec![Key::Str(info.name().to_owned())], tensor })
            }
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
    #[cfg(feature = "torch")]
    let kept = artifacts
        .iter()
        .position(|a| a.name == sidecar::FILE_NAME)
        .map(|at| Kept::open(artifacts.remove(at).section, &entries, &options.limits))
        .transpose()?;
    #[cfg(feature = "torch")]
    let (kept_format, weights) = match &kept {
        Some(kept) => (kept.format, kept.weights.clone()),
        None => (None, Rule::Root),
    };
    #[cfg(not(feature = "torch"))]
    let (kept_format, weights) = (None, Rule::Root);
    Ok(Opened {
        format: Format::Safetensors,
        variant: checkpoint.variant().name().to_owned(),
        entries,
        failures,
        notes: checkpoint.notes().to_vec(),
        artifacts,
        metadata: checkpoint.metadata().clone(),
        shards: checkpoint.shards().len(),
        training: None,
        weights,
        kept: kept_format,
        writer: None,
        #[cfg(feature = "torch")]
        torch: None,
        #[cfg(feature = "nemo")]
        nemo: None,
        #[cfg(feature = "distcp")]
        distributed: None,
        values: Box::new(StValues {
            metadata: checkpoint.metadata().clone(),
            config,
            yaml,
            #[cfg(feature = "torch")]
            kept,
        }),
    })
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
        entries.push(Entry { path: vec![Key::Str(removed.clone())], tensor: removed_tensor });
    }
    Ok(())
}

struct StValues {
    metadata: BTreeMap<String, String>,
    config: Option<Section>,
    yaml: Option<Section>,
    #[cfg(feature = "torch")]
    kept: Option<Kept>,
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
        Vec::new()
    }

    #[cfg(feature = "torch")]
    fn whole(&self) -> Result<Option<Whole>> {
        self.kept.as_ref().map(Kept::whole).transpose()
    }

    fn config(&self) -> Result<Option<Config>> {
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

/// The object that a sidecar keeps, and the tensors that it needs.
#[cfg(feature = "torch")]
struct Kept {
    section: Section,
    limits: Limits,
    format: Option<Format>,
    weights: Rule,
    tensors: HashMap<String, Tensor>,
}

#[cfg(feature = "torch")]
impl Kept {
    fn open(section: Section, entries: &[Entry], limits: &Limits) -> Result<Self> {
        let json = section.read(limits.pickle_bytes)?;
        let sidecar = Sidecar::parse(&json, limits).map_err(|e| e.in_file(section.name()))?;
        let weights = match sidecar.header().weights_key.as_deref() {
            None => Rule::Search { object: false },
            Some("") => Rule::Root,
            Some(key) => Rule::Key(key.to_owned()),
        };
        let format = Format::from_name(&sidecar.header().source_format);
        let tensors = entries.iter().map(|e| (e.tensor.name().to_owned(), e.tensor.clone()));
        Ok(Self { section, limits: limits.clone(), format, weights, tensors: tensors.collect() })
    }

    fn whole(&self) -> Result<Whole> {
        let json = self.section.read(self.limits.pickle_bytes)?;
        let tensors = |name: &str| self.tensors.get(name).cloned();
        let (document, storages) = Sidecar::parse(&json, &self.limits)
            .and_then(|sidecar| {
                let storages = sidecar.storages();
                Ok((sidecar.document(&tensors)?, storages))
            })
            .map_err(|e| e.in_file(self.section.name()))?;
        let nodes = self.find(&document, &self.places(storages));
        Ok(Whole { document, nodes })
    }

    /// The names of the tensors by the storage that they are in and their first byte there.
    fn places(&self, storages: Vec<Vec<String>>) -> HashMap<(usize, u64), String> {
        let mut places = HashMap::new();
        for (storage, names) in storages.into_iter().enumerate() {
            let mut start = 0;
            for name in names {
                let len = self.tensors.get(&name).map_or(0, Tensor::byte_len);
                places.insert((storage, start), name);
                start += len;
            }
        }
        places
    }

    /// The name of the tensor that a node is: its path, where a tensor is called so, or the name
    /// that was chosen for it.
    fn name_of(
        &self,
        path: &[Key],
        node: NodeId,
        document: &Document,
        places: &HashMap<(usize, u64), String>,
    ) -> Option<String> {
        let inner = document.innermost(node)?;
        let name = ckptkit_core::join(path);
        if self.tensors.contains_key(&name) {
            return Some(name);
        }
        let view = document.view(inner)?;
        let place = (document.storage(view.storage)?.index(), view.run()?.start);
        let name = places.get(&place)?;
        let tensor = self.tensors.get(name)?;
        let plain = !view.conj && !view.neg;
        let same = plain && tensor.dtype() == view.dtype && tensor.shape() == view.size;
        same.then(|| name.clone())
    }

    /// The nodes of tensors that stand in plain containers, under the names of the tensors.
    fn find(
        &self,
        document: &Document,
        places: &HashMap<(usize, u64), String>,
    ) -> Vec<(String, NodeId)> {
        let mut found = Vec::new();
        let mut entered = HashSet::new();
        let mut pending = vec![(Vec::new(), document.root().id())];
        while let Some((path, id)) = pending.pop() {
            if let Some(name) = self.name_of(&path, id, document, places) {
                found.push((name, id));
                continue;
            }
            let node = document.node(id);
            let plain = matches!(node.kind(), Kind::Dict | Kind::List | Kind::Tuple(_))
                || node.class().is_some_and(|g| g.module == "collections");
            if !plain || path.len() > MAX_DEPTH || !entered.insert(id) {
                continue;
            }
            let pairs = node.pairs().into_iter().map(|(key, value)| (key.as_key(), value.id()));
            let items = (0..).zip(node.items()).map(|(i, item)| (Key::Index(i), item.id()));
            for (key, child) in pairs.chain(items) {
                let mut path = path.clone();
                path.push(key);
                pending.push((path, child));
            }
        }
        found
    }
}
