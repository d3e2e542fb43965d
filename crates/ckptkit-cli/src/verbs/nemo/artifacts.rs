//! `ckptkit nemo replace`, `add` and `rm`.

use std::path::{Path, PathBuf};

use ckptkit::nemo::{self, Editor};
use ckptkit::torch::{WriteOptions, layout_state_dict};
use ckptkit::{Checkpoint, Error, Result, Tensor, TensorInfo};

use super::output::{Output, content, edit, pair};
use crate::exit::Run;

/// What stands for the weights where an artifact could be named.
const WEIGHTS: &str = "weights";

#[derive(Debug, clap::Args)]
pub(crate) struct Replace {
    /// The archive, or an unpacked directory
    src: PathBuf,
    /// What is replaced, and the file: a config key that holds the artifact's URI, or the name of
    /// its member, or of its file where only one is called that (`tokenizer.model_path=new.model`);
    /// `weights=` takes a checkpoint of any format (repeatable)
    #[arg(value_name = "TARGET=FILE", required = true, value_parser = pair)]
    targets: Vec<(String, String)>,
    /// Every key that refers to the old artifact gets the new one
    #[arg(long)]
    all_refs: bool,
    /// Weights may differ from the old ones in names, shapes and dtypes
    #[arg(long)]
    force: bool,
    /// The key that the new weights stand under, where the rules cannot decide
    #[arg(long, value_name = "KEY")]
    weights_key: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// The archive, or an unpacked directory
    src: PathBuf,
    /// The config key that is to hold the artifact's URI, and the file (repeatable)
    #[arg(value_name = "KEY=FILE", required = true, value_parser = pair)]
    artifacts: Vec<(String, String)>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rm {
    /// The archive, or an unpacked directory
    src: PathBuf,
    /// The name of a member, or of its file where only one is called that (repeatable)
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn replace(args: &Replace, quiet: bool) -> Run {
    edit(&args.src, &args.output, quiet, |editor| {
        for (target, file) in &args.targets {
            if target == WEIGHTS {
                weights(editor, Path::new(file), args)?;
            } else {
                let mut how = nemo::Replace::new();
                how.all_refs = args.all_refs;
                editor.replace(target, &content(file)?, &how)?;
            }
        }
        Ok(())
    })
}

/// The weights of another checkpoint, in the order of the old ones.
fn weights(editor: &mut Editor, file: &Path, args: &Replace) -> Result<()> {
    let checkpoint = Checkpoint::open(file)?;
    let mut tensors = match &args.weights_key {
        Some(key) => checkpoint.weights_under(key)?.tensors,
        None => checkpoint.weights()?.tensors,
    };
    let infos: Vec<TensorInfo> = tensors.iter().map(|t| t.info().clone()).collect();
    if !args.force {
        let difference = editor.difference(&infos)?;
        difference
            .refuse()
            .map_err(|e| e.in_file(file).hint("take them all the same with --force"))?;
    }
    if let Ok(order) = editor.weight_names() {
        let place = |t: &Tensor| order.iter().position(|n| n == t.name()).unwrap_or(order.len());
        tensors.sort_by_cached_key(place);
    }
    let mut options = WriteOptions::new();
    options.root = "model_weights".into();
    editor.weights(layout_state_dict(&tensors, &options)?)
}

pub(crate) fn add(args: &Add, quiet: bool) -> Run {
    edit(&args.src, &args.output, quiet, |editor| {
        for (key, file) in &args.artifacts {
            let name = Path::new(file).file_name().and_then(|n| n.to_str());
            let name = name.ok_or_else(|| Error::invalid("is no name of a file").in_file(file))?;
            editor.add(key, name, &content(file)?)?;
        }
        Ok(())
    })
}

pub(crate) fn rm(args: &Rm, quiet: bool) -> Run {
    edit(&args.src, &args.output, quiet, |editor| {
        args.names.iter().try_for_each(|name| editor.remove(name))
    })
}
