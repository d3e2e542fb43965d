//! `ckptkit lightning sanitize`.

use std::io::{self, Write};
use std::path::PathBuf;

use ckptkit::torch::TorchFile;
use ckptkit::torch::sanitize::{SanitizeOptions, SanitizeReport};
use serde::Serialize;

use super::output::{MadePlain, Output, Told};
use crate::exit::Run;
use crate::text::{grouped, plain};

#[derive(Debug, clap::Args)]
pub(crate) struct Sanitize {
    /// The checkpoint, or any other file of torch.save
    src: PathBuf,
    #[command(flatten)]
    output: Output,
    /// Refuse what can only be described in words, and tensors that are damaged
    #[arg(long)]
    strict: bool,
}

#[derive(Serialize)]
struct Report {
    container: &'static str,
    unchanged: bool,
    opcodes: Vec<Opcode>,
    changes: Vec<MadePlain>,
    imports: Vec<&'static str>,
    broken: Vec<Broken>,
}

#[derive(Serialize)]
struct Opcode {
    name: &'static str,
    count: usize,
}

#[derive(Serialize)]
struct Broken {
    tensor: String,
    why: String,
}

pub(super) fn run(args: &Sanitize, quiet: bool) -> Run {
    args.output.check()?;
    let file = TorchFile::open(&args.src)?;
    let mut options = SanitizeOptions::new();
    options.strict = args.strict;
    let plan = file.sanitize(&options)?;
    let bytes = file.section().len();
    args.output.write(&args.src, bytes, plan.layout, Report::of(plan.report), quiet)
}

impl Report {
    fn of(report: SanitizeReport) -> Self {
        let opcodes = report.opcodes.iter();
        let broken = report.broken.iter();
        Self {
            container: report.container.name(),
            unchanged: report.is_empty(),
            opcodes: opcodes.map(|o| Opcode { name: o.name, count: o.count }).collect(),
            broken: broken
                .map(|(tensor, why)| Broken { tensor: tensor.clone(), why: why.to_string() })
                .collect(),
            imports: report.imports,
            changes: MadePlain::list(report.changes),
        }
    }
}

impl Told for Report {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.unchanged {
            writeln!(out, "weights_only=True refuses nothing in it: the objects stay as they are")?;
        }
        for change in &self.changes {
            change.print(out)?;
        }
        if !self.opcodes.is_empty() {
            let each = self.opcodes.iter();
            let all: Vec<String> =
                each.map(|o| format!("{} × {}", o.name, grouped(o.count as u64))).collect();
            writeln!(out, "opcodes that torch does not know, said in others: {}", all.join(", "))?;
        }
        if !self.imports.is_empty() {
            writeln!(out, "note: torch loads it after the import of {}", self.imports.join(", "))?;
        }
        for Broken { tensor, why } in &self.broken {
            writeln!(out, "note: no loader loads {}: {}", plain(tensor), plain(why))?;
        }
        Ok(())
    }
}
