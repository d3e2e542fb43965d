//! What the editing verbs share: the source, the new archive, the report.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ckptkit::nemo::{Change, Editor, NemoArchive, NewArchive, OpenOptions, WriteOptions};
use ckptkit::{Json, Result, Section};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::super::new_file::NewFile;
use super::super::stdout;
use crate::exit::Run;
use crate::text::{bytes, plain};

/// Where the new archive goes, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// The archive to write
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// Compress it with gzip, which NeMo before 1.7 wants; tensors can then not be read in place
    #[arg(long)]
    gzip: bool,
    #[command(flatten)]
    new: NewFile,
}

/// Opens an archive to be edited; its weights are not looked at.
pub(crate) fn open(path: &Path) -> Result<NemoArchive> {
    OpenOptions::new().members_only(true).open(path)
}

/// Edits an archive and writes the result.
pub(crate) fn edit(
    source: &Path,
    output: &Output,
    quiet: bool,
    change: impl FnOnce(&mut Editor) -> Result<()>,
) -> Run {
    output.check()?;
    let mut editor = Editor::new(&open(source)?)?;
    change(&mut editor)?;
    let archive = editor.layout(&WriteOptions::new())?;
    output.write(source, archive, quiet)
}

impl Output {
    /// Refuses a destination that is taken, before anything is read.
    pub(crate) fn check(&self) -> Result<()> {
        self.new.check(&self.output)
    }

    pub(crate) fn write(&self, source: &Path, archive: NewArchive, quiet: bool) -> Run {
        let mut report = Report {
            source: source.display().to_string(),
            destination: self.output.display().to_string(),
            bytes: archive.file().len(),
            changes: archive.changes().to_vec(),
            notes: archive.notes().to_vec(),
        };
        if self.new.writes() {
            let existing = self.new.existing();
            let passes = if self.gzip { 2 } else { 1 };
            let bar = self.new.bar(archive.file().len().saturating_mul(passes), quiet);
            let copy = self.new.copy_options(&bar);
            let written = match self.gzip {
                true => archive.write_gzip(&self.output, existing, &copy)?,
                false => archive.write(&self.output, existing, &copy)?,
            };
            report.bytes = written.bytes;
        }
        self.new.tell(&report, quiet, |verb| print(&report, verb))
    }
}

#[derive(serde::Serialize)]
struct Report {
    source: String,
    destination: String,
    bytes: u64,
    #[serde(serialize_with = "changes")]
    changes: Vec<Change>,
    notes: Vec<String>,
}

fn changes<S: Serializer>(changes: &[Change], s: S) -> std::result::Result<S::Ok, S::Error> {
    s.collect_seq(changes.iter().map(Changed))
}

/// A change as JSON: its `kind`, and what it was done to.
struct Changed<'a>(&'a Change);

impl Serialize for Changed<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        let mut member = |kind: &str, name: &str, bytes: u64| {
            map.serialize_entry("kind", kind)?;
            map.serialize_entry("member", name)?;
            map.serialize_entry("bytes", &bytes)
        };
        match self.0 {
            Change::Added { member: name, bytes } => member("added", name, *bytes)?,
            Change::Removed { member: name, bytes } => member("removed", name, *bytes)?,
            Change::Replaced { member: name, bytes } => member("replaced", name, *bytes)?,
            Change::LeftOut { member: name, bytes } => member("left_out", name, *bytes)?,
            Change::Weights { bytes } => member("weights", "model_weights.ckpt", *bytes)?,
            Change::Set { key, old, new } => {
                map.serialize_entry("kind", "set")?;
                map.serialize_entry("key", key)?;
                map.serialize_entry("old", &old.as_ref().map(Json))?;
                map.serialize_entry("new", &Json(new))?;
            }
            Change::Deleted { key, old } => {
                map.serialize_entry("kind", "deleted")?;
                map.serialize_entry("key", key)?;
                map.serialize_entry("old", &Json(old))?;
            }
            Change::Unwrapped => map.serialize_entry("kind", "unwrapped")?,
            _ => map.serialize_entry("kind", "config")?,
        }
        map.end()
    }
}

fn print(report: &Report, verb: &str) -> io::Result<()> {
    let mut out = stdout();
    for change in &report.changes {
        writeln!(out, "{}", plain(&change.to_string()))?;
    }
    writeln!(out, "{verb} {} ({})", plain(&report.destination), bytes(report.bytes))?;
    for note in &report.notes {
        writeln!(out, "note: {}", plain(note))?;
    }
    out.flush()
}

/// `LEFT=RIGHT`, cut at the first `=`.
pub(crate) fn pair(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((left, right)) if !left.is_empty() => Ok((left.to_owned(), right.to_owned())),
        _ => Err("KEY=… is wanted".to_owned()),
    }
}

/// A file that becomes an artifact.
pub(crate) fn content(path: &str) -> Result<Section> {
    Section::open(path)
}
