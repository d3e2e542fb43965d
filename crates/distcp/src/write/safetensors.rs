//! The shards that torch's `HuggingFaceStorageWriter` writes with `save_distributed=True`.
//!
//! Source of truth: `torch/distributed/checkpoint/{hf_storage,_hf_utils,filesystem}.py` of torch
//! 2.15.

use ckptkit_core::{Error, OutputFile, Result};

use super::Planned;
use super::deal::Share;
use super::options::WriteOptions;

#[cfg(not(feature = "safetensors"))]
pub(super) fn lay_out(
    _: &Planned,
    _: &[Vec<Share>],
    _: &WriteOptions,
    _: &mut Vec<String>,
) -> Result<Vec<(String, OutputFile)>> {
    Err(Error::unsupported("this build writes no safetensors files")
        .hint("build with the feature `safetensors`"))
}

#[cfg(feature = "safetensors")]
pub(super) use shards::lay_out;

#[cfg(feature = "safetensors")]
mod shards {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;

    use ckptkit_core::ResultExt;

    use super::{Error, OutputFile, Planned, Result, Share, WriteOptions};
    use crate::write::entry::EntryKind;

    /// One file for each rank that holds something.
    pub(in crate::write) fn lay_out(
        planned: &Planned,
        shares: &[Vec<Share>],
        options: &WriteOptions,
        notes: &mut Vec<String>,
    ) -> Result<Vec<(String, OutputFile)>> {
        if options.file_per_item {
            return Err(Error::invalid("a safetensors shard holds all tensors of its rank")
                .hint("leave file_per_item off"));
        }
        let mut st_options = st_io::WriteOptions::new();
        st_options.align = options.align.max(8);
        let mut files = Vec::new();
        for (rank, shares) in shares.iter().enumerate() {
            if shares.is_empty() {
                continue;
            }
            let name = format!("shard-{:05}-model-00001-of-00001.safetensors", rank + 1);
            let file = shard(planned, shares, &st_options, notes).within(|| name.clone())?;
            files.push((name, file));
        }
        Ok(files)
    }

    fn shard(
        planned: &Planned,
        shares: &[Share],
        options: &st_io::WriteOptions,
        notes: &mut Vec<String>,
    ) -> Result<OutputFile> {
        let mut tensors = Vec::with_capacity(shares.len());
        let mut offsets = String::from("{");
        for &share in shares {
            let name = &planned.names[share.entry()];
            let EntryKind::Tensor(tensor) = &planned.kinds[share.entry()] else {
                return Err(Error::unsupported("safetensors shards hold tensors only")
                    .within(format_args!("entry {name}"))
                    .hint("leave the object out, or write the other form"));
            };
            let part = planned.chunk(share, tensor).within(|| format!("entry {name}"))?;
            tensors.push(part.renamed(name.as_str()));
            let comma = if offsets.len() > 1 { ", " } else { "" };
            let quoted = serde_json::Value::from(name.as_str());
            let at = &planned.region(share).offsets;
            let _ = write!(offsets, "{comma}{quoted}: {{\"saved_offsets\": {at:?}}}");
        }
        offsets.push('}');
        let metadata = BTreeMap::from([
            ("DCP_SHARDING_INFO".to_owned(), offsets),
            ("DCP_VERSION".to_owned(), "1.0".to_owned()),
            ("format".to_owned(), "pt".to_owned()),
        ]);
        let plan = st_io::plan_file(&tensors, &metadata, options)?;
        notes.extend(plan.notes);
        let file = plan.layout.files().next().map(|(_, file)| file.clone());
        file.ok_or_else(|| Error::invalid("a layout of one file has none"))
    }
}
