//! What both verbs share: the new file, and how the report tells of what was made plain.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ckptkit::Result;
use ckptkit::core::{Layout, OutputFile};
use ckptkit::torch::sanitize::Change;
use serde::Serialize;

use super::super::new_file::NewFile;
use super::super::stdout;
use crate::exit::Run;
use crate::text::{bytes, grouped, plain};

/// Where the new file goes, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Output {
    /// The file to write
    dst: PathBuf,
    #[command(flatten)]
    new: NewFile,
}

/// What every report begins with.
#[derive(Serialize)]
pub(super) struct Files {
    source: String,
    destination: String,
    source_bytes: u64,
    bytes: u64,
}

/// A report, as JSON and as lines.
pub(super) trait Told: Serialize {
    fn print(&self, out: &mut dyn Write) -> io::Result<()>;
}

#[derive(Serialize)]
struct Report<T> {
    #[serde(flatten)]
    files: Files,
    #[serde(flatten)]
    told: T,
}

impl Output {
    /// Refuses a destination that is taken, before anything is read.
    pub(super) fn check(&self) -> Result<()> {
        self.new.check(&self.dst)
    }

    pub(super) fn write(
        &self,
        source: &Path,
        source_bytes: u64,
        file: OutputFile,
        told: impl Told,
        quiet: bool,
    ) -> Run {
        let files = Files {
            source: source.display().to_string(),
            destination: self.dst.display().to_string(),
            source_bytes,
            bytes: file.len(),
        };
        if self.new.writes() {
            let bar = self.new.bar(file.len(), quiet);
            let copy = self.new.copy_options(&bar);
            Layout::file(file).write(&self.dst, self.new.existing(), &copy)?;
        }
        let report = Report { files, told };
        self.new.tell(&report, quiet, |verb| {
            let mut out = stdout();
            report.told.print(&mut out)?;
            let files = &report.files;
            let to = plain(&files.destination);
            let (new, old) = (bytes(files.bytes), bytes(files.source_bytes));
            writeln!(out, "{verb} {to} ({new}; the source has {old})")?;
            out.flush()
        })
    }
}

/// An object that became another one.
#[derive(Serialize)]
pub(super) struct MadePlain {
    path: String,
    key: bool,
    count: u64,
    was: String,
    became: String,
    note: Option<String>,
    described: bool,
}

impl MadePlain {
    pub(super) fn list(changes: Vec<Change>) -> Vec<Self> {
        let made = |c: Change| Self {
            path: c.path,
            key: c.is_key,
            count: c.count,
            was: c.was,
            became: c.became.into_owned(),
            note: c.note,
            described: c.described,
        };
        changes.into_iter().map(made).collect()
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let path = if self.path.is_empty() { "(the whole)" } else { &self.path };
        let key = if self.key { "key of " } else { "" };
        write!(out, "{key}{}: {} → {}", plain(path), plain(&self.was), plain(&self.became))?;
        if self.described {
            write!(out, ", which describes it")?;
        }
        if self.count > 1 {
            write!(out, ", {} of them", grouped(self.count))?;
        }
        match &self.note {
            Some(note) => writeln!(out, " ({})", plain(note)),
            None => writeln!(out),
        }
    }
}
