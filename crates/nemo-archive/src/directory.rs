//! An unpacked archive: the same files loose in a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use ckptkit_core::{EntryPath, Error, Result, ResultExt};

use crate::entry::{Entry, Place};
use crate::limits::ArchiveLimits;

/// The files below `root`, by name; none is opened.
pub(crate) fn walk(root: &Path, limits: &ArchiveLimits, mapped: bool) -> Result<Vec<Entry>> {
    let real =
        fs::canonicalize(root).map_err(|e| Error::io("open the directory", e).in_file(root))?;
    let mut walk = Walk { root, real, limits, mapped, found: Vec::new() };
    let mut pending = vec![String::new()];
    while let Some(below) = pending.pop() {
        walk.folder(&below, &mut pending).map_err(|e| e.in_file(root))?;
    }
    walk.found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(walk.found)
}

struct Walk<'a> {
    root: &'a Path,
    real: PathBuf,
    limits: &'a ArchiveLimits,
    mapped: bool,
    found: Vec<Entry>,
}

impl Walk<'_> {
    fn folder(&mut self, below: &str, pending: &mut Vec<String>) -> Result<()> {
        let fail = |e| Error::io("list the directory", e);
        for file in fs::read_dir(self.root.join(below)).map_err(fail)? {
            let file = file.map_err(fail)?;
            let os_name = file.file_name();
            let Some(name) = os_name.to_str() else {
                return Err(Error::unsupported(format!("the file name {os_name:?} is not UTF-8")));
            };
            let name = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
            self.file(&name, &file.path(), pending).within(|| format!("member {name}"))?;
        }
        Ok(())
    }

    fn file(&mut self, name: &str, path: &Path, pending: &mut Vec<String>) -> Result<()> {
        if self.found.len() >= self.limits.members {
            return Err(Error::limit(format!(
                "the directory holds more than {} files",
                self.limits.members
            ))
            .hint("raise the limit if this is one unpacked archive"));
        }
        let fail = |e| Error::io("read the file's size", e);
        let link = fs::symlink_metadata(path).map_err(fail)?.is_symlink();
        if link {
            let target = fs::canonicalize(path).map_err(|e| Error::io("follow the link", e))?;
            if !target.starts_with(&self.real) {
                return Err(Error::denied(format!(
                    "is a link that leaves the directory, to {}",
                    target.display()
                ))
                .hint("replace it with a copy of the file"));
            }
        }
        let meta = fs::metadata(path).map_err(fail)?;
        if meta.is_dir() && link {
            return Err(Error::denied("is a link to a directory"));
        }
        if meta.is_dir() {
            pending.push(name.to_owned());
        } else if !meta.is_file() {
            return Err(Error::denied("is neither a file nor a directory"));
        }
        let mtime = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        self.found.push(Entry {
            path: EntryPath::new(name)?,
            raw_name: name.to_owned(),
            size: if meta.is_dir() { 0 } else { meta.len() },
            mtime: mtime.map_or(0, |t| t.as_secs()),
            place: if meta.is_dir() {
                Place::Directory
            } else {
                Place::File {
                    path: path.to_path_buf(),
                    mapped: self.mapped,
                    opened: Arc::default(),
                }
            },
        });
        Ok(())
    }
}
