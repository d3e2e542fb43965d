//! `ckptkit nemo get`, `set` and `del`.

use std::path::PathBuf;

use ckptkit::nemo::to_yaml;
use ckptkit::{Error, Json, Value};

use super::super::{print_json, print_text};
use super::output::{Output, edit, open, pair};
use crate::exit::{Exit, Run};

#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The archive, or an unpacked directory
    src: PathBuf,
    /// A dotted key (`decoder.vocabulary.0`); the whole config where it is left out
    key: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// The archive, or an unpacked directory
    src: PathBuf,
    /// A dotted key and its value in YAML: `optim.lr=1e-4`, `'labels=[a, b]'`; a key that is not
    /// there is added (repeatable)
    #[arg(value_name = "KEY=VALUE", required = true, value_parser = pair)]
    values: Vec<(String, String)>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Del {
    /// The archive, or an unpacked directory
    src: PathBuf,
    /// A dotted key (repeatable)
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn get(args: &Get) -> Run {
    let archive = open(&args.src)?;
    let Some(key) = &args.key else {
        if args.json {
            print_json(&Json(&archive.config()?.value()))?;
        } else {
            print_text(&archive.config_text()?)?;
        }
        return Ok(Exit::Done);
    };
    let Some(value) = archive.config()?.get(key) else {
        return Err(Error::not_found(format!("the config has no key {key:?}"))
            .in_file(archive.name())
            .into());
    };
    match value {
        value if args.json => print_json(&Json(&value))?,
        Value::Str(text) => print_text(&text)?,
        value => print_text(&to_yaml(&value)?)?,
    }
    Ok(Exit::Done)
}

pub(crate) fn set(args: &Set, quiet: bool) -> Run {
    edit(&args.src, &args.output, quiet, |editor| {
        args.values.iter().try_for_each(|(key, value)| editor.set(key, value))
    })
}

pub(crate) fn del(args: &Del, quiet: bool) -> Run {
    edit(&args.src, &args.output, quiet, |editor| {
        args.keys.iter().try_for_each(|key| editor.delete(key))
    })
}
