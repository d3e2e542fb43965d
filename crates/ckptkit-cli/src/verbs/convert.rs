//! `ckptkit convert`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use ckptkit::safetensors::parse_size;
use ckptkit::{
    Aliases, CopyOptions, Error, Existing, Glob, Kind, LeftOut, Report, Scope, Selection, Target,
};

use super::{print_json, stdout};
use crate::args::{AliasPolicy, Convert, Form, Mesh, Order, To};
use crate::exit::{Exit, Failure, Run};
use crate::progress::Bar;
use crate::text::{bytes, count, grouped, plain};

/// Things left out that are named one by one.
const NAMED: usize = 4;
/// Of a longer name, both ends are shown.
const NAME_CHARS: usize = 64;

pub(crate) fn run(args: &Convert, quiet: bool) -> Run {
    let wish = wish(args)?;
    if args.overwrite {
        apart(&args.src, &args.dst)?;
    } else {
        free(&args.dst)?;
    }
    let checkpoint = args.open.checkpoint(&args.src)?;
    let plan = wish.plan(checkpoint, &args.dst)?;
    let report = if args.dry_run {
        plan.report().clone()
    } else {
        let existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
        let bar = Bar::new("converting", plan.layout().total_bytes(), quiet).verbose(args.verbose);
        let mut options = CopyOptions::default();
        options.threads = args.threads;
        options.sync = args.fsync;
        options.observer = &bar;
        if args.verify {
            plan.write_verified(existing, &options)?
        } else {
            plan.write(existing, &options)?
        }
    };
    if args.json {
        print_json(&report)?;
    } else if !quiet {
        print(&report, args.dry_run)?;
    }
    Ok(Exit::Done)
}

/// Refuses to replace a directory that the source lies in: it would be gone with it.
fn apart(src: &Path, dst: &Path) -> Result<(), Failure> {
    let (Ok(inner), Ok(outer)) = (src.canonicalize(), dst.canonicalize()) else { return Ok(()) };
    if inner != outer && inner.starts_with(&outer) {
        return Err(Error::denied("the destination is not replaced, since the source lies in it")
            .in_file(dst)
            .hint("choose another destination")
            .into());
    }
    Ok(())
}

/// Refuses a destination that is taken, before anything is read.
fn free(dst: &Path) -> Result<(), Failure> {
    let Ok(meta) = fs::symlink_metadata(dst) else { return Ok(()) };
    if meta.is_dir() && fs::read_dir(dst).is_ok_and(|mut entries| entries.next().is_none()) {
        return Ok(());
    }
    Err(Error::invalid("the destination exists already")
        .in_file(dst)
        .hint("choose another name, or replace it with --overwrite")
        .into())
}

fn wish(args: &Convert) -> Result<ckptkit::Convert, Failure> {
    let target = match args.to {
        Some(To::Safetensors) if args.dst.extension().is_some_and(|e| e == "safetensors") => {
            Target::SafetensorsFile
        }
        Some(To::Safetensors) => Target::SafetensorsDirectory,
        Some(To::Ckpt) => Target::LightningCkpt,
        Some(To::Torch) => Target::Torch,
        Some(To::Nemo) => Target::Nemo,
        Some(To::Distcp) => Target::Distcp,
        None => Target::of(&args.dst),
    };
    let globs =
        |patterns: &[String]| patterns.iter().map(|p| Glob::new(p)).collect::<Result<Vec<_>, _>>();
    let mut wish = ckptkit::Convert::new(target);
    wish.selection.select = globs(&args.select)?;
    wish.selection.exclude = globs(&args.exclude)?;
    wish.selection.rename =
        args.rename.iter().map(|r| Selection::parse_rename(r)).collect::<Result<_, _>>()?;
    wish.selection.strip_prefix.clone_from(&args.strip_prefix);
    wish.selection.add_prefix.clone_from(&args.add_prefix);
    if args.all {
        wish.scope = Scope::All;
    }
    wish.weights_key.clone_from(&args.weights_key);
    wish.dtype = args.dtype;
    wish.aliases = match args.aliases {
        AliasPolicy::Drop => Aliases::Drop,
        AliasPolicy::Copy => Aliases::Copy,
        AliasPolicy::Error => Aliases::Error,
    };
    wish.max_shard_bytes = parse_size(&args.max_shard_size)?;
    wish.config.clone_from(&args.config);
    wish.like.clone_from(&args.like);
    wish.optimizer_names = args.optimizer_names;
    wish.param_names.clone_from(&args.param_names);
    wish.asr.clone_from(&args.asr);
    wish.align = args.align;
    wish.ranks = args.ranks;
    if let Some(Mesh(mesh)) = &args.mesh {
        wish.mesh.clone_from(mesh);
        if args.ranks == 1 {
            wish.ranks = mesh.iter().product();
        }
    }
    wish.form = match args.form {
        Form::Torch => ckptkit::distcp::Form::TorchSave,
        Form::Safetensors => ckptkit::distcp::Form::Safetensors,
    };
    wish.source_order = args.order == Order::Source;
    Ok(wish)
}

fn print(report: &Report, dry_run: bool) -> io::Result<()> {
    let mut out = stdout();
    let verb = if dry_run { "would write" } else { "wrote" };
    writeln!(
        out,
        "{verb} {}: {}, {}, {}",
        plain(&report.destination.display().to_string()),
        count(report.tensors, "tensor"),
        bytes(report.bytes),
        count(report.files, "file")
    )?;
    if !report.renamed.is_empty() {
        writeln!(out, "renamed: {}", count(report.renamed.len(), "tensor"))?;
    }
    if let Some((_, target)) = report.cast.values().next() {
        writeln!(out, "cast to {target}: {}", count(report.cast.len(), "tensor"))?;
    }
    for (removed, kept) in &report.aliases {
        writeln!(out, "tied: {} is recorded as {}", plain(removed), plain(kept))?;
    }
    if !report.filled.is_empty() {
        let elements = report.filled.values().sum();
        writeln!(
            out,
            "zeros for what is missing: {} elements of {}",
            grouped(elements),
            count(report.filled.len(), "tensor")
        )?;
    }
    left_out(&mut out, &report.left_out)?;
    for note in &report.notes {
        writeln!(out, "note: {}", plain(note))?;
    }
    out.flush()
}

/// A name without the middle of a very long one.
fn short(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= NAME_CHARS {
        return plain(name);
    }
    let half = NAME_CHARS / 2;
    let part = |chars: &[char]| plain(&chars.iter().collect::<String>());
    format!("{}…{}", part(&chars[..half]), part(&chars[chars.len() - half..]))
}

/// Grouped by kind and reason: optimizer states alone can be thousands.
fn left_out(out: &mut impl Write, all: &[LeftOut]) -> io::Result<()> {
    let mut groups: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for one in all {
        let kind = match one.kind {
            Kind::Tensor => "tensor",
            Kind::Value => "value",
            _ => "artifact",
        };
        groups.entry((kind, &one.why)).or_default().push(&one.path);
    }
    for ((kind, why), names) in groups {
        let shown: Vec<String> = names.iter().take(NAMED).map(|n| short(n)).collect();
        let more = if names.len() > NAMED {
            format!(", and {} more", grouped((names.len() - NAMED) as u64))
        } else {
            String::new()
        };
        writeln!(
            out,
            "left out: {} ({}): {}{more}",
            count(names.len(), kind),
            plain(why),
            shown.join(", ")
        )?;
    }
    Ok(())
}
