//! To safetensors: tensors under their weight names.

use std::collections::BTreeMap;

use ckptkit_core::{Result, Tensor};

use super::choose::Chosen;
use super::plan::{Job, LaidOut};
use super::report::Kind;
use super::side;
use super::target::Target;

pub(super) fn weights(job: &mut Job<'_>, kept: Vec<Chosen>) -> Result<LaidOut> {
    let tensors: Vec<Tensor> = kept.into_iter().map(|c| c.tensor).collect();
    let in_directory = job.wish.target == Target::SafetensorsDirectory;
    values_left_out(job, in_directory);
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
        let dtype = job.wish.dtype;
        side::add(checkpoint, &mut layout, dtype, &mut job.report.left_out, &mut job.report.notes)?;
    }
    Ok((layout, tensors))
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
