//! What the verbs that write one new file share.

use std::io;
use std::path::Path;

use ckptkit::{CopyOptions, Error, Existing, Result};
use serde::Serialize;

use super::print_json;
use crate::exit::{Exit, Run};
use crate::progress::Bar;

/// How a new file is written, and how it is told.
#[derive(Debug, clap::Args)]
pub(crate) struct NewFile {
    /// Replace what is there, which may be the source itself
    #[arg(long)]
    overwrite: bool,
    /// Force the output to the disk before it appears
    #[arg(long)]
    fsync: bool,
    /// Say on stderr how long it took, and how the bytes were moved: through the page cache, past it,
    /// or shared
    #[arg(short, long)]
    verbose: bool,
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl NewFile {
    /// Refuses a destination that is taken, before anything is read.
    pub(crate) fn check(&self, destination: &Path) -> Result<()> {
        if self.overwrite || std::fs::symlink_metadata(destination).is_err() {
            return Ok(());
        }
        Err(Error::invalid("the destination exists already")
            .in_file(destination)
            .hint("choose another name, or replace it with --overwrite"))
    }

    /// Whether anything is written at all.
    pub(crate) fn writes(&self) -> bool {
        !self.dry_run
    }

    /// What becomes of a file that is there.
    pub(crate) fn existing(&self) -> Existing {
        if self.overwrite { Existing::Replace } else { Existing::Refuse }
    }

    /// Shows how the writing goes.
    pub(crate) fn bar(&self, total: u64, quiet: bool) -> Bar {
        Bar::new("writing", total, quiet).verbose(self.verbose)
    }

    pub(crate) fn copy_options<'a>(&self, bar: &'a Bar) -> CopyOptions<'a> {
        let mut options = CopyOptions::default();
        options.sync = self.fsync;
        options.observer = bar;
        options
    }

    /// Prints the report: as JSON, or by `print`, which is given the verb of what was done.
    pub(crate) fn tell(
        &self,
        report: &impl Serialize,
        quiet: bool,
        print: impl FnOnce(&str) -> io::Result<()>,
    ) -> Run {
        if self.json {
            print_json(report)?;
        } else if !quiet {
            print(if self.dry_run { "would write" } else { "wrote" })?;
        }
        Ok(Exit::Done)
    }
}
