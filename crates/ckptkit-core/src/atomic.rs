//! Output that appears whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::entry_path::EntryPath;
use crate::error::{Error, Result};

/// What to do where the destination is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// Refuse; an empty directory counts as free.
    #[default]
    Refuse,
    /// Replace it, with the last rename. The caller has made sure that nothing foreign is lost.
    Replace,
}

/// A file or directory under a temporary name beside its destination; [`Output::commit`] moves it
/// there with one rename, dropping it removes it.
pub struct Output {
    destination: PathBuf,
    temporary: PathBuf,
    directory: bool,
    done: bool,
}

impl Output {
    /// Starts a file.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) when the destination is taken;
    /// [`Io`](crate::ErrorKind::Io) when its folder cannot be written.
    pub fn file(destination: &Path, existing: Existing) -> Result<Self> {
        if let Ok(meta) = fs::symlink_metadata(destination) {
            if meta.is_dir() {
                return Err(Error::invalid("the destination is a directory, expected a file name")
                    .in_file(destination));
            }
            if existing == Existing::Refuse {
                return Err(taken(destination));
            }
        }
        Self::start(destination, false)
    }

    /// Starts a directory.
    ///
    /// # Errors
    /// As [`Output::file`].
    pub fn directory(destination: &Path, existing: Existing) -> Result<Self> {
        if let Ok(meta) = fs::symlink_metadata(destination) {
            let free = fs::read_dir(destination).is_ok_and(|mut d| d.next().is_none());
            if !meta.is_dir() && existing == Existing::Refuse {
                return Err(Error::invalid("the destination is a file, expected a directory name")
                    .in_file(destination));
            }
            if !free && existing == Existing::Refuse {
                return Err(taken(destination));
            }
        }
        Self::start(destination, true)
    }

    fn start(destination: &Path, directory: bool) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // `a/b/` and `a/b` are one place, and `fs::rename` takes only the second for a file.
        let destination: PathBuf = destination.components().collect();
        let name = destination
            .file_name()
            .ok_or_else(|| {
                Error::invalid("the destination has no name of its own").in_file(&destination)
            })?
            .to_string_lossy()
            .into_owned();
        let id = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary =
            destination.with_file_name(format!(".{name}.{}-{id}.ckptkit-tmp", std::process::id()));
        if directory {
            fs::create_dir(&temporary).map_err(|e| cannot_create(&destination, e))?;
        }
        Ok(Self { destination, temporary, directory, done: false })
    }

    /// Creates the file of the output, or one inside the directory.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), also when the name is taken already.
    pub fn create(&self, entry: Option<&EntryPath>) -> Result<File> {
        let path = self.path_of(entry);
        let cannot = |e| cannot_create(&self.place_of(entry), e);
        if let (Some(_), Some(parent)) = (entry, path.parent()) {
            fs::create_dir_all(parent).map_err(cannot)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(cannot)?;
        if !self.directory {
            if let Ok(old) = fs::metadata(&self.destination) {
                // A replaced file keeps its mode; failing to is no reason to lose the output.
                let _ = file.set_permissions(old.permissions());
            }
        }
        Ok(file)
    }

    /// Where the output stands until it is committed.
    #[must_use]
    pub fn path_of(&self, entry: Option<&EntryPath>) -> PathBuf {
        entry.map_or_else(|| self.temporary.clone(), |e| e.below(&self.temporary))
    }

    /// Where it will stand: what errors speak of, since nobody knows the other place.
    pub(crate) fn place_of(&self, entry: Option<&EntryPath>) -> PathBuf {
        entry.map_or_else(|| self.destination.clone(), |e| e.below(&self.destination))
    }

    /// The folder that the output is made in, or the one that it is.
    pub(crate) fn folder(&self) -> Option<&Path> {
        if self.directory {
            return Some(&self.temporary);
        }
        let parent = self.temporary.parent()?;
        Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    }

    /// Moves the output to its destination; with `sync`, only after it is on the disk.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io); the destination is then as it was.
    pub fn commit(mut self, sync: bool) -> Result<()> {
        let fail =
            |e| Error::io("move the finished output into place", e).in_file(&self.destination);
        if sync {
            sync_tree(&self.temporary).map_err(fail)?;
        }
        match fs::rename(&self.temporary, &self.destination) {
            Ok(()) => {}
            // A directory with something in it, or a file where a directory goes: the caller chose
            // to replace it, so it steps aside first.
            Err(_) if self.directory && self.destination.symlink_metadata().is_ok() => {
                let aside = self.temporary.with_extension("ckptkit-old");
                fs::rename(&self.destination, &aside).map_err(fail)?;
                if let Err(e) = fs::rename(&self.temporary, &self.destination) {
                    let _ = fs::rename(&aside, &self.destination);
                    return Err(fail(e));
                }
                let _ = if aside.is_dir() {
                    fs::remove_dir_all(&aside)
                } else {
                    fs::remove_file(&aside)
                };
            }
            Err(e) => return Err(fail(e)),
        }
        self.done = true;
        if sync {
            let parent = self
                .destination
                .parent()
                .filter(|p| !p.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            sync_path(parent).map_err(fail)?;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.done {
            let _ = if self.directory {
                fs::remove_dir_all(&self.temporary)
            } else {
                fs::remove_file(&self.temporary)
            };
        }
    }
}

fn taken(path: &Path) -> Error {
    Error::invalid("the destination exists already")
        .in_file(path)
        .hint("choose another name, or replace it with --overwrite")
}

fn cannot_create(path: &Path, error: io::Error) -> Error {
    let error = Error::io("create the output", error).in_file(path);
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() && !p.exists() => {
            error.hint(format!("create the directory {} first", p.display()))
        }
        _ => error,
    }
}

fn sync_path(path: &Path) -> io::Result<()> {
    if cfg!(unix) || !path.is_dir() { File::open(path)?.sync_all() } else { Ok(()) }
}

fn sync_tree(path: &Path) -> io::Result<()> {
    let mut pending = vec![path.to_path_buf()];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        }
        sync_path(&path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_dropped_output_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("x");
        {
            let out = Output::file(&to, Existing::Refuse).unwrap();
            out.create(None).unwrap().write_all(b"half").unwrap();
        }
        {
            let out = Output::directory(&to, Existing::Refuse).unwrap();
            out.create(Some(&EntryPath::new("a/b").unwrap())).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_there_stays_unless_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("x");
        fs::create_dir(&to).unwrap();
        let out = Output::directory(&to, Existing::Refuse).unwrap();
        out.create(Some(&EntryPath::new("new").unwrap())).unwrap();
        out.commit(true).unwrap();
        assert!(to.join("new").exists());
        assert!(Output::directory(&to, Existing::Refuse).is_err());
        let out = Output::directory(&to, Existing::Replace).unwrap();
        out.create(Some(&EntryPath::new("newer").unwrap())).unwrap();
        out.commit(false).unwrap();
        assert!(to.join("newer").exists() && !to.join("new").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_replaced_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("x");
        fs::write(&to, "old").unwrap();
        assert_eq!(
            Output::file(&to, Existing::Refuse).err().unwrap().kind(),
            crate::ErrorKind::InvalidArgument
        );
        let out = Output::file(&to, Existing::Replace).unwrap();
        out.create(None).unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"old");
        out.commit(true).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
    }
}
