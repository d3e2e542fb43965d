//! To distributed checkpoints: one entry a tensor, cut for any number of ranks.

use std::collections::HashMap;

use ckptkit_core::{EntryPath, Error, Key, Layout, OutputFile, Result, Section, Segment, Tensor};
use distcp::{DistCheckpoint, Entry};
use torch_save::pickle::{NodeId, NodeRef};
use torch_save::{Document, WriteOptions};

use super::beside;
use super::flatten::Flattener;
use super::job::{Chosen, Job, LaidOut};
#[cfg(feature = "lightning")]
use super::optimizer;
use super::report::Kind;
use crate::format::Format;
use crate::opened::Whole;
use crate::reader::KEPT_CONFIG;

/// The weights at the root, under their names.
pub(super) fn weights(job: &mut Job<'_>, kept: Vec<Chosen>) -> Result<LaidOut> {
    let checkpoint = job.checkpoint;
    let options = WriteOptions::new();
    let mut entries = Vec::with_capacity(kept.len());
    for chosen in &kept {
        let path = [Key::Str(chosen.tensor.info().shared_name())];
        let file = checkpoint.torch_file().filter(|_| chosen.object);
        entries.push(match file.and_then(|f| Some((f, f.entry(&chosen.full)?))) {
            Some((file, entry)) => {
                let mut document = Document::new();
                let node = document.import(file, file.graph().node(entry.node()))?;
                Entry::bytes(path, document.layout_of(node, &options)?)
            }
            None => Entry::tensor(path, chosen.tensor.clone()),
        });
    }
    let config = checkpoint.config()?.filter(|_| job.wish.form == distcp::Form::TorchSave);
    if let Some(config) = &config {
        let mut document = Document::new();
        let node = super::torch::config_node(checkpoint, &mut document, config)?;
        let archive = document.layout_of(node, &options)?;
        entries.push(Entry::bytes([Key::Str(KEPT_CONFIG.into())], archive));
    }
    for key in checkpoint.value_keys() {
        if config.as_ref().is_none_or(|c| c.origin != key) {
            job.left_out(&key, Kind::Value, "only the weights were converted");
        }
    }
    artifacts_left_out(job);
    let layout = lay_out(job, &entries)?;
    Ok(LaidOut::new(layout, kept.into_iter().map(|c| c.tensor).collect()))
}

/// Everything, flattened as torch flattens it; a Lightning checkpoint as Lightning lays it out.
pub(super) fn whole(job: &mut Job<'_>) -> Result<LaidOut> {
    let checkpoint = job.checkpoint;
    if job.wish.form != distcp::Form::TorchSave {
        return Err(Error::unsupported("safetensors shards hold tensors and nothing else")
            .hint("leave out --all"));
    }
    // What is cast changes storages that the sidecar speaks of.
    let anew = job.wish.dtype.is_some() && checkpoint.torch_file().is_some();
    if let Some(source) = checkpoint.distributed().filter(|_| !anew) {
        return reshard(job, source);
    }
    let (document, tensors) = cast(job, checkpoint.whole()?)?;
    let options = WriteOptions::new();
    let lightning = checkpoint.kept_format() == Format::LightningCkpt;
    let rest = lightning.then(|| rest_of_lightning(&document));
    #[cfg(feature = "lightning")]
    let mut document = document;
    #[cfg(feature = "lightning")]
    let by_name = optimizer::by_name(job, &mut document, &tensors)?;
    let mut flattener = Flattener::new(&document, tensors, &options);
    #[cfg(feature = "lightning")]
    flattener.instead.extend(by_name);
    if lightning {
        sharded_of_lightning(&document, &mut flattener)?;
    } else {
        flattener.add(&mut Vec::new(), document.root().id())?;
    }
    let (entries, entered) = (flattener.entries, flattener.entered);
    let mut layout = lay_out(job, &entries)?;
    if let Some(rest) = rest {
        layout.add(EntryPath::new("meta.pt")?, document.layout_of_pairs(&rest, &options)?)?;
    }
    beside::add(job, &mut layout, &document, &entered, lightning)?;
    artifacts_left_out(job);
    Ok(LaidOut::new(layout, counted(job, &entries)))
}

/// The entries of a distributed checkpoint, cut anew; objects are not looked into.
fn reshard(job: &mut Job<'_>, source: &DistCheckpoint) -> Result<LaidOut> {
    let cast = job.cast_weights()?;
    let mut entries = source.entries()?;
    for entry in &mut entries {
        if let Some(tensor) = cast.get(&entry.fqn()) {
            *entry = Entry::tensor(entry.path().to_vec(), tensor.clone());
        }
    }
    let mut layout = lay_out(job, &entries)?;
    // What stands beside the index: Lightning's file, Megatron's two.
    let sides = [("meta.pt", source.meta()?), ("common.pt", source.common()?)];
    for (name, file) in sides {
        if let Some(file) = file {
            add(&mut layout, name, file.section().clone())?;
        }
    }
    if let Some(json) = source.dir().map(|d| d.join("metadata.json")).filter(|p| p.is_file()) {
        add(&mut layout, "metadata.json", Section::open(json)?)?;
    }
    beside::carry(job, &mut layout, source)?;
    artifacts_left_out(job);
    Ok(LaidOut::new(layout, counted(job, &entries)))
}

fn add(layout: &mut Layout, name: &str, section: Section) -> Result<()> {
    let mut file = OutputFile::default();
    file.push(Segment::Section(section))?;
    layout.add(EntryPath::new(name)?, file)
}

/// The tensors of the entries, under the names that a reader finds.
fn counted(job: &mut Job<'_>, entries: &[Entry]) -> Vec<Tensor> {
    let tensors: Vec<Tensor> =
        entries.iter().filter_map(|e| e.as_tensor().map(|t| t.renamed(e.fqn()))).collect();
    job.report.tensors = tensors.len();
    job.report.bytes = tensors.iter().map(Tensor::byte_len).sum();
    tensors
}

/// The object's tensors by their nodes, cast where that is wished for.
fn cast(job: &mut Job<'_>, whole: Whole) -> Result<(Document, HashMap<NodeId, Tensor>)> {
    let Whole { mut document, nodes } = whole;
    let cast = job.cast_whole(&mut document, &nodes)?;
    let mut tensors = HashMap::with_capacity(nodes.len());
    for (name, node) in nodes {
        // An object of other tensors, or without bytes, goes in as an object.
        let plain = document.innermost(node).is_some();
        let tensor = match cast.get(&name) {
            Some(tensor) => tensor.clone(),
            None => job.checkpoint.tensor_of_whole(&name)?,
        };
        if plain && tensor.has_bytes() {
            tensors.insert(node, tensor);
        }
    }
    Ok((document, tensors))
}

/// What Lightning's strategies shard: weights and optimizers
/// (`lightning/pytorch/strategies/model_parallel.py`, `save_checkpoint`).
fn sharded_of_lightning(document: &Document, flattener: &mut Flattener<'_>) -> Result<()> {
    for (key, value) in document.root().pairs() {
        match key.as_str() {
            Some("state_dict") => {
                flattener.add(&mut vec![Key::Str("state_dict".into())], value.id())?;
            }
            Some("optimizer_states") => {
                for (i, state) in value.items().into_iter().enumerate() {
                    flattener
                        .add(&mut vec![Key::Str(format!("optimizer_{i}").into())], state.id())?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The pairs of everything else, of which Lightning keeps a dict in `meta.pt`.
fn rest_of_lightning(document: &Document) -> Vec<(NodeId, NodeId)> {
    let sharded =
        |key: NodeRef<'_>| matches!(key.as_str(), Some("state_dict" | "optimizer_states"));
    let pairs = document.root().pairs().into_iter().filter(|(key, _)| !sharded(*key));
    pairs.map(|(key, value)| (key.id(), value.id())).collect()
}

fn lay_out(job: &mut Job<'_>, entries: &[Entry]) -> Result<Layout> {
    let mut options = distcp::WriteOptions::new();
    options.ranks = job.wish.ranks;
    options.mesh.clone_from(&job.wish.mesh);
    options.form = job.wish.form;
    options.align = job.wish.align.unwrap_or(options.align);
    let plan = distcp::plan(entries, &options)?;
    job.report.notes.extend(plan.notes);
    Ok(plan.layout)
}

fn artifacts_left_out(job: &mut Job<'_>) {
    for artifact in job.checkpoint.artifacts() {
        job.left_out(
            &artifact.name,
            Kind::Artifact,
            "a distributed checkpoint has no place for it",
        );
    }
}
