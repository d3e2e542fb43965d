//! To safetensors: tensors under their weight names.

use std::collections::{BTreeMap, HashMap, HashSet};

use ckptkit_core::{EntryPath, Error, OutputFile, Result, Segment, Tensor};
#[cfg(feature = "torch")]
use torch_save::NodeId;

use super::job::{Chosen, Job, LaidOut};
use super::report::Kind;
use super::side;
use super::target::Target;
use super::untie::untie;
#[cfg(feature = "torch")]
use crate::opened::Whole;

pub(super) fn weights(job: &mut Job<'_>, kept: Vec<Chosen>) -> Result<LaidOut> {
    let tensors: Vec<Tensor> = kept.into_iter().map(|c| c.tensor).collect();
    let in_directory = job.wish.target == Target::SafetensorsDirectory;
    values_left_out(job, in_directory);
    lay_out(job, tensors, in_directory)
}

/// Everything: tensors under their full names, and the rest in a sidecar that holds no pickle.
#[cfg(feature = "torch")]
pub(super) fn whole(job: &mut Job<'_>) -> Result<LaidOut> {
    use crate::sidecar::{self, Header};

    let checkpoint = job.checkpoint;
    if job.wish.target != Target::SafetensorsDirectory {
        return Err(Error::invalid("what is no tensor needs a file of its own")
            .hint("give the name of a directory, or leave out --all"));
    }
    if job.wish.dtype.is_some() {
        return Err(Error::invalid("a whole checkpoint is kept as it is, and not cast")
            .hint("leave out --all or --dtype"));
    }
    let whole = checkpoint.whole()?;
    let new_names = state_names(job, &whole)?;
    let nodes = match checkpoint.torch_file() {
        Some(file) => sidecar::names(&whole.document, file),
        None => whole.nodes,
    };
    // The name that is kept of several comes first, here as in the policy for tied names.
    let mut chosen = Vec::new();
    for tensor in checkpoint.tensors_of_whole().into_iter().filter(Tensor::has_bytes) {
        if let Some(format) = job.wish.target.lacks(tensor.dtype()) {
            job.report.notes.push(format!(
                "{format} has no dtype {}: the storage of {} is kept as bytes",
                tensor.dtype(),
                tensor.name()
            ));
            continue;
        }
        tensor.check_expansion(&ckptkit_core::Limits::default())?;
        let full = tensor.name().to_owned();
        let mut tensor = tensor;
        if let Some(new) = new_names.get(&full) {
            tensor = tensor.renamed(new.as_str());
            // Under its place in the object a source with a sidecar need not list it.
            if checkpoint.tensor(&full).is_ok() {
                job.report.renamed.insert(full.clone(), new.clone());
            }
        }
        chosen.push(Chosen { tensor, full: full.into(), object: false });
    }
    let names: HashMap<&str, &str> = chosen.iter().map(|c| (&*c.full, c.tensor.name())).collect();
    let mut nodes: Vec<(String, NodeId)> = nodes
        .into_iter()
        .filter_map(|(name, node)| Some(((*names.get(name.as_str())?).to_owned(), node)))
        .collect();
    nodes.sort();
    nodes.dedup_by(|b, a| a.0 == b.0);
    let mut header = Header::new(checkpoint.source_format().name());
    header.weights_key = checkpoint.weights().ok().map(|weights| weights.key.unwrap_or_default());
    let encoded =
        sidecar::encode(&whole.document, &nodes, &header, &ckptkit_core::Limits::default())?;
    let kept = untie(job, chosen)?;
    let mut tensors: Vec<Tensor> = kept.into_iter().map(|c| c.tensor).collect();
    tensors.extend(encoded.extra);
    let held: HashSet<&str> = tensors.iter().map(Tensor::name).collect();
    if let Some(missing) = encoded.tensors.iter().find(|name| !held.contains(name.as_str())) {
        return Err(Error::invalid(format!(
            "the sidecar needs tensor {missing:?}, which another name stands for"
        ))
        .hint("write every name with --aliases copy"));
    }
    job.report.tensors = tensors.len();
    job.report.bytes = tensors.iter().map(Tensor::byte_len).sum();
    let LaidOut { mut layout, tensors, .. } = lay_out(job, tensors, true)?;
    let mut file = OutputFile::default();
    file.push(Segment::Literal(encoded.json))?;
    layout.add(EntryPath::new(sidecar::FILE_NAME)?, file)?;
    Ok(LaidOut::new(layout, tensors))
}

/// New names for the states of optimizers, where they are wished for.
#[cfg(feature = "torch")]
fn state_names(job: &mut Job<'_>, whole: &Whole) -> Result<HashMap<String, String>> {
    #[cfg(feature = "lightning")]
    if job.wish.optimizer_names {
        let tensor =
            |(name, node): &(String, NodeId)| Ok((*node, job.checkpoint.tensor_of_whole(name)?));
        let tensors = whole.nodes.iter().map(tensor).collect::<Result<_>>()?;
        return super::optimizer::tensor_names(job, &whole.document, &tensors);
    }
    Ok(HashMap::new())
}

fn lay_out(job: &mut Job<'_>, tensors: Vec<Tensor>, in_directory: bool) -> Result<LaidOut> {
    let checkpoint = job.checkpoint;
    let mut metadata: BTreeMap<String, String> = checkpoint.metadata().clone();
    // What described the source's pieces, or names that are tied again, is not true any more.
    metadata.retain(|k, v| {
        !k.starts_with("DCP_")
            && !checkpoint.tensors().any(|t| t.name() == k && checkpoint.tensor(v).is_ok())
    });
    metadata.insert("format".into(), "pt".into());
    let mut options = st_io::WriteOptions::new();
    options.align = job.wish.align.unwrap_or(options.align);
    options.order =
        if job.wish.source_order { st_io::Order::Source } else { st_io::Order::Reference };
    options.aliases = job.report.aliases.clone();
    options.max_shard_bytes = job.wish.max_shard_bytes;
    let plan = if in_directory {
        st_io::plan_sharded(&tensors, &metadata, &options)?
    } else {
        st_io::plan_file(&tensors, &metadata, &options)?
    };
    job.report.notes.extend(plan.notes);
    let mut layout = plan.layout;
    if in_directory {
        side::add(job, &mut layout, &tensors)?;
    }
    Ok(LaidOut::new(layout, tensors))
}

/// Everything else that the source has: values, and what a single file has no place for.
fn values_left_out(job: &mut Job<'_>, in_directory: bool) {
    const NO_PLACE: &str = "a single file has no place for it; a directory target keeps it";
    let config = job.checkpoint.config().ok().flatten();
    for key in job.checkpoint.value_keys() {
        if !(in_directory && config.as_ref().is_some_and(|c| c.origin == key)) {
            job.left_out(&key, Kind::Value, "safetensors holds tensors only");
        }
    }
    if in_directory {
        return;
    }
    if let Some(config) = config.filter(|c| c.text.is_some()) {
        job.left_out(&config.origin, Kind::Artifact, NO_PLACE);
    }
    for artifact in job.checkpoint.artifacts() {
        job.left_out(&artifact.name, Kind::Artifact, NO_PLACE);
    }
}
