//! `ckptkit inspect`.

use std::io::{self, Write};

use ckptkit::Summary;

use super::{print_json, stdout};
use crate::args::Inspect;
use crate::exit::{Exit, Run};
use crate::text::{bytes, count, grouped, plain};

/// Longer values of the metadata are cut on a terminal.
const SHOWN_CHARS: usize = 80;

pub(crate) fn run(args: &Inspect) -> Run {
    let summary = args.open.checkpoint(&args.path)?.summary();
    if args.json {
        print_json(&summary)?;
    } else {
        print(&summary)?;
    }
    Ok(Exit::Done)
}

fn print(s: &Summary) -> io::Result<()> {
    let mut out = stdout();
    let mut line = |name: &str, value: String| writeln!(out, "{name:<12} {value}");
    line("path", plain(&s.path))?;
    line("format", format!("{} ({})", s.format, s.variant))?;
    if let Some(format) = s.sidecar {
        line("sidecar", format!("the whole object, of the format {format}"))?;
    }
    if let Some(writer) = &s.writer {
        line("written by", plain(writer))?;
    }
    let dtypes: Vec<String> = s.dtypes.iter().map(|(d, n)| format!("{d} × {n}")).collect();
    let dtypes =
        if dtypes.is_empty() { String::new() } else { format!(" ({})", dtypes.join(", ")) };
    line("tensors", format!("{}{dtypes}", grouped(s.tensors as u64)))?;
    line("bytes", bytes(s.bytes))?;
    if let Some(parameters) = s.parameters {
        line("parameters", grouped(parameters))?;
    }
    if let Some(key) = &s.weights_key {
        line("weights key", plain(key))?;
    }
    if let Some(t) = &s.training {
        let number = |n: Option<i64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
        line(
            "training",
            format!(
                "epoch {}, global step {}, {}, {}",
                number(t.epoch),
                number(t.global_step),
                count(t.optimizers, "optimizer"),
                count(t.lr_schedulers, "scheduler")
            ),
        )?;
    }
    line("files", s.shards.to_string())?;
    line("config", if s.config { "yes" } else { "no" }.to_owned())?;
    for artifact in &s.artifacts {
        line("artifact", format!("{} ({})", plain(&artifact.name), bytes(artifact.bytes)))?;
    }
    for (key, value) in &s.metadata {
        let mut value: String = plain(value);
        if value.chars().count() > SHOWN_CHARS {
            value = value.chars().take(SHOWN_CHARS).chain(['…']).collect();
        }
        line("metadata", format!("{} = {value}", plain(key)))?;
    }
    for warning in &s.warnings {
        line("warning", plain(warning))?;
    }
    out.flush()
}
