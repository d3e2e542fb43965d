//! To what torch.save writes: a bare state dict, a Lightning checkpoint, a whole object.

use std::collections::{HashMap, HashSet};

use ckptkit_core::{Error, Layout, Result, Tensor};
use torch_save::pickle::{Kind as NodeKind, NodeId, NodeRef};
use torch_save::{Document, TensorEntry, TensorKind, TorchFile, WriteOptions};

use super::job::{Chosen, Job, LaidOut, Object};
use super::places;
use super::report::Kind;
use super::target::Target;
use crate::checkpoint::Checkpoint;
use crate::opened::{Config, Whole};
use crate::sidecar;
use crate::weights::Weights;

/// The bare state dict.
pub(super) fn weights(job: &mut Job<'_>, weights: &Weights, kept: Vec<Chosen>) -> Result<LaidOut> {
    let document = state_dict_alone(job, weights, &kept)?;
    for key in job.checkpoint.value_keys() {
        job.left_out(&key, Kind::Value, "a state dict holds the model's weights only");
    }
    let config = job.checkpoint.config()?;
    if let Some(config) = config.filter(|c| c.text.is_some()) {
        job.left_out(&config.origin, Kind::Artifact, "a state dict has no place for a config");
    }
    artifacts_left_out(job);
    let layout = document.into_layout(&options(job))?;
    Ok(LaidOut::new(Layout::file(layout), kept.into_iter().map(|c| c.tensor).collect()))
}

/// A Lightning checkpoint of the weights, with the config as its hyper-parameters.
#[cfg(feature = "lightning")]
pub(super) fn lightning(
    job: &mut Job<'_>,
    weights: &Weights,
    kept: Vec<Chosen>,
) -> Result<LaidOut> {
    use lightning_ckpt::{NewCkpt, STATE_DICT};

    let mut document = Document::new();
    let mapping = mapping_of(job, weights);
    let state_dict = state_dict(job, &mut document, weights, &kept, mapping)?;
    let training = job.checkpoint.training();
    let mut new = NewCkpt::new(state_dict);
    new.epoch = training.and_then(|t| t.epoch).unwrap_or(0);
    new.global_step = training.and_then(|t| t.global_step).unwrap_or(0);
    let config = job.checkpoint.config()?;
    if let Some(config) = &config {
        let hyper_parameters = config_node(job.checkpoint, &mut document, config)?;
        new.hyper_parameters = Some(if super::model_config::is_argument(config) {
            let b = document.builder();
            let (dict, key) = (b.dict(), b.str(super::model_config::ARGUMENT));
            b.set_items(dict, &[(key, hyper_parameters)]);
            dict
        } else {
            hyper_parameters
        });
    }
    let root = new.build(document.builder());
    document.set_root(root);
    for key in job.checkpoint.value_keys() {
        let known = matches!(key.as_str(), "epoch" | "global_step" | "pytorch-lightning_version");
        if !known && config.as_ref().is_none_or(|c| c.origin != key) {
            job.left_out(&key, Kind::Value, "only the weights were converted");
        }
    }
    artifacts_left_out(job);
    let layout = document.into_layout(&options(job))?;
    let tensors = kept.into_iter().map(|c| c.tensor).collect();
    Ok(LaidOut { under: Some(STATE_DICT), ..LaidOut::new(Layout::file(layout), tensors) })
}

/// The config as an object: of plain values, or where those cannot say it (classes that nobody here
/// knows), the very object that the source has.
pub(super) fn config_node(
    checkpoint: &Checkpoint,
    document: &mut Document,
    config: &Config,
) -> Result<NodeId> {
    let plain = document.builder().value(&config.value);
    let Err(e) = plain else { return plain };
    #[cfg(feature = "distcp")]
    let meta = checkpoint.distributed().map(distcp::DistCheckpoint::meta).transpose()?.flatten();
    #[cfg(not(feature = "distcp"))]
    let meta: Option<TorchFile> = None;
    let file = checkpoint.torch_file().cloned().or(meta);
    match file.as_ref().and_then(|file| Some((file, file.root().get(&config.origin)?))) {
        Some((file, node)) => document.import(file, node),
        None => Err(e.within(format_args!("config {}", config.origin))),
    }
}

/// The whole object.
pub(super) fn whole(job: &mut Job<'_>) -> Result<LaidOut> {
    let checkpoint = job.checkpoint;
    let Whole { mut document, nodes } = checkpoint.whole()?;
    let mut tensors = checkpoint.tensors_of_whole();
    let cast = job.cast_whole(&mut document, &nodes)?;
    for tensor in &mut tensors {
        if let Some(cast) = cast.get(tensor.name()) {
            *tensor = cast.clone();
        }
    }
    tensors.retain(Tensor::has_bytes);
    job.report.tensors = tensors.len();
    job.report.bytes = tensors.iter().map(Tensor::byte_len).sum();
    #[cfg(all(feature = "lightning", feature = "distcp"))]
    let sharded = checkpoint.distributed().is_some() && checkpoint.torch_file().is_none();
    #[cfg(all(feature = "lightning", feature = "distcp"))]
    if job.wish.target == Target::LightningCkpt && sharded {
        lightning_ckpt::from_sharded(&mut document)?;
        let count = tensors.iter().filter(|t| t.name().starts_with("optimizer_")).count();
        if count > 0 {
            job.report.notes.push(format!(
                "{count} tensors of optimizers stand under optimizer_states, by the numbers of \
                 parameters"
            ));
        }
    }
    // A reader of the file finds them under their paths.
    if checkpoint.torch_file().is_none() {
        let places = places::names(&document, &nodes);
        // What a sidecar has beside the tensors is no tensor of the object.
        tensors.retain(|t| places.contains_key(t.name()) || !sidecar::is_storage(t.name()));
        for tensor in &mut tensors {
            if let Some(name) = places.get(tensor.name()).filter(|n| *n != tensor.name()) {
                job.report.renamed.insert(tensor.name().to_owned(), name.clone());
                *tensor = tensor.renamed(name.as_str());
            }
        }
    }
    artifacts_left_out(job);
    Ok(LaidOut::new(Layout::file(document.into_layout(&options(job))?), tensors))
}

impl Job<'_> {
    /// Casts the weights of an object; gives them under their names.
    pub(super) fn cast_whole(
        &mut self,
        document: &mut Document,
        nodes: &[(String, NodeId)],
    ) -> Result<HashMap<String, Tensor>> {
        let cast = self.cast_weights()?;
        if cast.is_empty() {
            return Ok(cast);
        }
        let known: HashSet<&String> = nodes.iter().map(|(name, _)| name).collect();
        if let Some(name) = cast.keys().find(|name| !known.contains(name)) {
            return Err(Error::unsupported(format!(
                "tensor {name} is a part of an object, which is not cast"
            ))
            .hint("leave out --dtype"));
        }
        replace(document, nodes, &cast)?;
        Ok(cast)
    }
}

/// Puts tensors, by their names, in the place of those that they were.
fn replace(
    document: &mut Document,
    nodes: &[(String, NodeId)],
    tensors: &HashMap<String, Tensor>,
) -> Result<()> {
    let mut places: Vec<(NodeId, Tensor)> = Vec::new();
    let mut seen = HashSet::new();
    for (name, node) in nodes {
        let Some(tensor) = tensors.get(name) else { continue };
        if let Some(node) = document.innermost(*node).filter(|n| seen.insert(*n)) {
            places.push((node, tensor.clone()));
        }
    }
    let values: Vec<Tensor> = places.iter().map(|(_, t)| t.clone()).collect();
    let new = document.tensors(&values)?;
    for ((place, _), node) in places.into_iter().zip(new) {
        document.builder().replace(place, node);
    }
    Ok(())
}

/// What a tensor of a torch file is there. One with bytes of its own and tensors among its
/// attributes is an object only where `attributes` are kept.
pub(super) fn object(file: &TorchFile, full: &str, attributes: &HashSet<String>) -> Object {
    let Some(entry) = file.entry(full) else { return Object::No };
    let is_object = |entry: &TensorEntry| {
        let plain =
            matches!(entry.kind(), TensorKind::Plain | TensorKind::Parameter | TensorKind::Buffer);
        !(plain && entry.class().is_none() && entry.tensor().has_bytes())
            || attributes.contains(entry.tensor().name())
    };
    // Parts have parts: the outermost object takes all of them along.
    let mut whole = entry;
    let mut outermost = None;
    while let Some(outer) = whole.part_of() {
        whole = &file.tensors()[outer];
        if is_object(whole) {
            outermost = Some(whole.tensor().name().to_owned());
        }
    }
    match outermost {
        Some(name) => Object::Part(name),
        None if is_object(entry) => Object::Whole,
        None => Object::No,
    }
}

/// The names of tensors that have others among their attributes.
pub(super) fn with_attributes(file: &TorchFile) -> HashSet<String> {
    let wholes = file.tensors().iter().filter_map(TensorEntry::part_of);
    wholes.map(|at| file.tensors()[at].tensor().name().to_owned()).collect()
}

/// A document that is the state dict and nothing else.
pub(super) fn state_dict_alone(
    job: &mut Job<'_>,
    weights: &Weights,
    kept: &[Chosen],
) -> Result<Document> {
    let mapping = mapping_of(job, weights);
    // The graph of the file as it is: no more than the mapping is written of it.
    let file = job.checkpoint.torch_file().filter(|_| mapping.is_some() && job.keeps_weights());
    let mut document = file.and_then(|file| file.edit().ok()).unwrap_or_default();
    let root = state_dict(job, &mut document, weights, kept, mapping)?;
    document.set_root(root);
    Ok(document)
}

/// The node of the state dict. What comes from a torch file and keeps its names keeps its `mapping`
/// too, with the `_metadata` of its modules and what else it holds.
fn state_dict(
    job: &Job<'_>,
    document: &mut Document,
    weights: &Weights,
    kept: &[Chosen],
    mapping: Option<NodeId>,
) -> Result<NodeId> {
    let Some(file) = job.checkpoint.torch_file() else {
        let tensors: Vec<Tensor> = kept.iter().map(|c| c.tensor.clone()).collect();
        return document.state_dict(&tensors);
    };
    if let Some(mapping) = mapping.filter(|_| job.keeps_weights()) {
        let dict = document.import(file, file.graph().node(mapping))?;
        if weights.key.is_none() {
            // What stands beside tensors at the root is no part of a state dict.
            let names: HashSet<&str> = kept.iter().map(|c| c.tensor.name()).collect();
            let is_weight = |key: NodeRef<'_>| key.as_str().is_some_and(|key| names.contains(key));
            let pairs = document.node(dict).pairs();
            let count = pairs.len();
            let pairs: Vec<_> = pairs
                .into_iter()
                .filter(|(key, _)| is_weight(*key))
                .map(|(key, value)| (key.id(), value.id()))
                .collect();
            if pairs.len() < count {
                document.builder().replace_pairs(dict, &pairs);
            }
        }
        return Ok(dict);
    }
    // Tensors that are new, together, so that what is tied stays so; objects as they are.
    let plain: Vec<Tensor> = kept.iter().filter(|c| !c.object).map(|c| c.tensor.clone()).collect();
    let mut nodes = document.tensors(&plain)?.into_iter();
    let mut pairs = Vec::with_capacity(kept.len());
    for chosen in kept {
        let node = match file.entry(&chosen.full).filter(|_| chosen.object) {
            Some(entry) => Some(document.import(file, file.graph().node(entry.node()))?),
            None => nodes.next(),
        };
        let Some(node) = node else { continue };
        pairs.push((document.builder().str(chosen.tensor.name()), node));
    }
    let b = document.builder();
    let dict = b.call("collections", "OrderedDict", &[]);
    b.set_items(dict, &pairs);
    // The versions of modules, under the names that they still have.
    let metadata = mapping
        .filter(|_| !job.wish.selection.renames())
        .and_then(|m| file.graph().node(m).attribute("_metadata"));
    if let Some(metadata) = metadata {
        let metadata = document.import(file, metadata)?;
        let b = document.builder();
        let (state, key) = (b.dict(), b.str("_metadata"));
        b.set_items(state, &[(key, metadata)]);
        b.build(dict, state);
    }
    Ok(dict)
}

/// The mapping from names to tensors that is the weights, where the source is a torch file that has
/// one.
fn mapping_of(job: &Job<'_>, weights: &Weights) -> Option<NodeId> {
    let file = job.checkpoint.torch_file()?;
    let mut node = file.root();
    if let Some(key) = &weights.key {
        node = key.split('.').try_fold(node, |node, key| node.get(key))?;
    }
    let dict = matches!(node.kind(), NodeKind::Dict)
        || node.class().is_some_and(|g| g.is("collections", "OrderedDict"));
    // Tensors that stand deeper have names that are no keys of it.
    let flat = || {
        let keys: HashSet<_> = node.pairs().iter().filter_map(|(k, _)| k.as_str()).collect();
        weights.tensors.iter().zip(&weights.full_names).all(|(tensor, full)| {
            keys.contains(tensor.name()) || file.entry(full).is_some_and(|e| e.part_of().is_some())
        })
    };
    (dict && flat()).then(|| node.id())
}

fn artifacts_left_out(job: &mut Job<'_>) {
    for artifact in job.checkpoint.artifacts() {
        job.left_out(&artifact.name, Kind::Artifact, "a torch file has no place for it");
    }
}

fn options(job: &Job<'_>) -> WriteOptions {
    let mut options = WriteOptions::new();
    options.align = job.wish.align.unwrap_or(options.align);
    options
}
