//! `ckptkit lightning slim`.

use std::io::{self, Write};
use std::path::PathBuf;

use ckptkit::Dtype;
use ckptkit::lightning::{LightningCkpt, Part, SlimOptions, SlimReport};
use ckptkit::torch::sanitize::SanitizeOptions;
use serde::Serialize;

use super::output::{MadePlain, Output, Told};
use crate::dtype;
use crate::exit::Run;
use crate::text::{bytes, count, plain};

#[derive(Debug, clap::Args)]
pub(crate) struct Slim {
    /// The checkpoint
    src: PathBuf,
    #[command(flatten)]
    output: Output,
    /// Cast floating-point weights to this type, rounding as torch does: f32, bf16, f16, …
    #[arg(long, value_name = "DTYPE", value_parser = dtype::parse)]
    dtype: Option<Dtype>,
    /// Keep this key at the top, whatever it is: optimizer_states, … (repeatable)
    #[arg(long, value_name = "KEY")]
    keep: Vec<String>,
    /// Leave out this key at the top (repeatable)
    #[arg(long, value_name = "KEY")]
    drop: Vec<String>,
    /// Leave out the hyper-parameters; load_from_checkpoint then needs them from its caller
    #[arg(long)]
    no_hyper_parameters: bool,
    /// Keep the states of callbacks
    #[arg(long)]
    callbacks: bool,
    /// Make what stays plain as well, so that torch.load(weights_only=True) loads it
    #[arg(long)]
    sanitize: bool,
}

#[derive(Serialize)]
struct Report {
    kept: Vec<Key>,
    removed: Vec<Key>,
    dtype: Option<&'static str>,
    cast: Vec<Cast>,
    not_cast: Vec<NotCast>,
    changes: Vec<MadePlain>,
}

#[derive(Serialize)]
struct Key {
    key: String,
    tensors: usize,
    bytes: u64,
}

#[derive(Serialize)]
struct Cast {
    tensor: String,
    was: &'static str,
}

#[derive(Serialize)]
struct NotCast {
    tensor: String,
    why: String,
}

pub(super) fn run(args: &Slim, quiet: bool) -> Run {
    args.output.check()?;
    let mut options = SlimOptions::new();
    options.dtype = args.dtype;
    options.keep.clone_from(&args.keep);
    options.drop.clone_from(&args.drop);
    options.hyper_parameters = !args.no_hyper_parameters;
    options.callbacks = args.callbacks;
    options.sanitize = args.sanitize.then(SanitizeOptions::new);
    let plan = LightningCkpt::open(&args.src)?.slim(&options)?;
    let source_bytes = plan.report.bytes.0;
    let report = Report::of(plan.report, args.dtype);
    args.output.write(&args.src, source_bytes, plan.layout, report, quiet)
}

impl Report {
    fn of(report: SlimReport, dtype: Option<Dtype>) -> Self {
        let keys = |parts: Vec<Part>| {
            let key = |p: Part| Key { key: p.key, tensors: p.tensors, bytes: p.bytes };
            parts.into_iter().map(key).collect()
        };
        let cast = |(tensor, was): (String, Dtype)| Cast { tensor, was: was.name() };
        let not_cast = |(tensor, why)| NotCast { tensor, why };
        Self {
            kept: keys(report.kept),
            removed: keys(report.removed),
            dtype: dtype.map(Dtype::name),
            cast: report.cast.into_iter().map(cast).collect(),
            not_cast: report.not_cast.into_iter().map(not_cast).collect(),
            changes: MadePlain::list(report.changes),
        }
    }
}

impl Told for Report {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let kept: Vec<String> = self.kept.iter().map(|k| plain(&k.key)).collect();
        writeln!(out, "kept: {}", kept.join(", "))?;
        for Key { key, tensors, bytes: size } in &self.removed {
            let key = plain(key);
            match tensors {
                0 => writeln!(out, "without {key}")?,
                &n => writeln!(out, "without {key}: {}, {}", count(n, "tensor"), bytes(*size))?,
            }
        }
        if let (Some(dtype), false) = (self.dtype, self.cast.is_empty()) {
            writeln!(out, "cast to {dtype}: {}", count(self.cast.len(), "tensor"))?;
        }
        for NotCast { tensor, why } in &self.not_cast {
            writeln!(out, "not cast: {} ({})", plain(tensor), plain(why))?;
        }
        for change in &self.changes {
            change.print(out)?;
        }
        Ok(())
    }
}
