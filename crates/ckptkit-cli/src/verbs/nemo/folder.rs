//! `ckptkit nemo unpack` and `pack`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use ckptkit::CopyOptions;
use ckptkit::nemo::{self, PackOptions, UnpackOptions};
use serde::Serialize;

use super::super::{print_json, stdout};
use super::output::{Output, open};
use crate::exit::{Exit, Run};
use crate::progress::Bar;
use crate::text::{bytes, count, plain};

#[derive(Debug, clap::Args)]
pub(crate) struct Unpack {
    /// The archive
    src: PathBuf,
    /// The directory to write, absent or empty
    dst: PathBuf,
    /// Artifacts lose the 32 digits before their names, which `ckptkit_names.json` keeps
    #[arg(long)]
    plain_names: bool,
    /// Force the output to the disk before it appears
    #[arg(long)]
    fsync: bool,
    /// Say on stderr how long it took, and how the bytes were moved: through the page cache, past it,
    /// or shared
    #[arg(short, long)]
    verbose: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pack {
    /// The unpacked directory
    src: PathBuf,
    /// Pack files that no key of the config refers to, too
    #[arg(long)]
    extra: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Report<'a> {
    source: String,
    destination: String,
    files: usize,
    bytes: u64,
    renamed: BTreeMap<&'a str, &'a str>,
}

pub(crate) fn unpack(args: &Unpack, quiet: bool) -> Run {
    let archive = open(&args.src)?;
    let mut options = UnpackOptions::new();
    options.plain_names = args.plain_names;
    let total = archive.entries().map(nemo::Entry::size).sum();
    let bar = Bar::new("unpacking", total, quiet).verbose(args.verbose);
    let mut copy = CopyOptions::default();
    copy.sync = args.fsync;
    copy.observer = &bar;
    let unpacked = archive.unpack(&args.dst, &options, &copy)?;
    drop(bar);
    let renamed = unpacked.renamed.iter().map(|(plain, name)| (plain.as_str(), name.as_str()));
    let report = Report {
        source: args.src.display().to_string(),
        destination: args.dst.display().to_string(),
        files: unpacked.files,
        bytes: unpacked.bytes,
        renamed: renamed.collect(),
    };
    if args.json {
        print_json(&report)?;
    } else if !quiet {
        print(&report)?;
    }
    Ok(Exit::Done)
}

fn print(report: &Report<'_>) -> io::Result<()> {
    let mut out = stdout();
    for (short, name) in &report.renamed {
        writeln!(out, "{} for {}", plain(short), plain(name))?;
    }
    writeln!(
        out,
        "wrote {}: {}, {}",
        plain(&report.destination),
        count(report.files, "file"),
        bytes(report.bytes)
    )?;
    out.flush()
}

pub(crate) fn pack(args: &Pack, quiet: bool) -> Run {
    args.output.check()?;
    let mut options = PackOptions::new();
    options.extra = args.extra;
    let archive = nemo::pack(&args.src, &options)?;
    args.output.write(&args.src, archive, quiet)
}
