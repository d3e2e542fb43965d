//! Where a checkpoint's files are: a directory, or whatever holds them by name.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ckptkit_core::{EntryPath, Error, ErrorKind, Result, Section};

use crate::handles::Handles;

/// Opens the files of one checkpoint by their paths relative to it: those of a directory, the
/// members of an archive, later the objects of a store.
///
/// The reader asks for each file once and keeps what it was given.
pub trait StorageReader: Send + Sync {
    /// Opens a file by its relative path, parts separated by `/`.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`Io`](ErrorKind::Io), or [`Denied`](ErrorKind::Denied)
    /// for a path that leaves the checkpoint.
    fn open(&self, relative: &str) -> Result<Section>;

    /// The relative paths of all files beside `.metadata`, in any order; those in subdirectories
    /// may be left out.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    fn list(&self) -> Result<Vec<String>>;

    /// The relative paths of all files, those in subdirectories included, in any order. Asked for
    /// only where Megatron may have put objects into files of their own, which no index names.
    ///
    /// The default is [`StorageReader::list`]: enough for a store that lists all it has.
    ///
    /// # Errors
    /// [`LimitExceeded`](ErrorKind::LimitExceeded) for more than `most`; [`Io`](ErrorKind::Io).
    fn list_all(&self, most: usize) -> Result<Vec<String>> {
        let _ = most;
        self.list()
    }

    /// The length of a file in bytes, `None` where there is no such file. Opens the file unless
    /// the implementation knows better.
    ///
    /// # Errors
    /// As [`StorageReader::open`], without `NotFound`.
    fn size(&self, relative: &str) -> Result<Option<u64>> {
        match self.open(relative) {
            Ok(section) => Ok(Some(section.len())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What messages call the checkpoint.
    fn name(&self) -> String {
        "checkpoint".to_owned()
    }
}

/// A local directory. Links are followed only where they stay inside it, or lead to where the
/// Hugging Face cache keeps the content of its snapshots.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    real: PathBuf,
    /// Where the Hugging Face cache keeps the content of a snapshot, whose files are links.
    blobs: Option<PathBuf>,
    handles: Handles,
}

impl Directory {
    pub(crate) fn new(root: &Path) -> Result<Self> {
        let real =
            fs::canonicalize(root).map_err(|e| Error::io("open the directory", e).in_file(root))?;
        let snapshots = real.ancestors().find(|a| a.file_name().is_some_and(|n| n == "snapshots"));
        let blobs = snapshots.and_then(Path::parent).map(|repo| repo.join("blobs"));
        Ok(Self { root: root.to_path_buf(), real, blobs, handles: Handles::default() })
    }

    /// The path of a file, if neither its name nor a link leads out of the directory.
    fn path(&self, relative: &str) -> Result<PathBuf> {
        let entry = EntryPath::new(relative)?;
        let path = entry.below(&self.root);
        let mut step = self.root.clone();
        for part in entry.as_str().split('/') {
            step.push(part);
            let is_link = fs::symlink_metadata(&step).is_ok_and(|m| m.file_type().is_symlink());
            if !is_link {
                continue;
            }
            match fs::canonicalize(&step) {
                Ok(target) if target.starts_with(&self.real) => {}
                Ok(target) if self.blobs.as_ref().is_some_and(|b| target.starts_with(b)) => {}
                Ok(_) => {
                    return Err(Error::denied(format!(
                        "{relative:?} is a link that leads out of the checkpoint"
                    ))
                    .in_file(&self.root)
                    .hint("copy the checkpoint with its links resolved (cp -rL)"));
                }
                Err(e) => return Err(Error::io("follow a link", e).in_file(&step)),
            }
        }
        Ok(path)
    }
}

impl StorageReader for Directory {
    fn open(&self, relative: &str) -> Result<Section> {
        self.handles.open(self.path(relative)?)
    }

    fn list(&self) -> Result<Vec<String>> {
        let fail = |e| Error::io("list the directory", e).in_file(&self.root);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(fail)? {
            // A name that is not UTF-8 can be no relative path of a pickle.
            if let Ok(name) = entry.map_err(fail)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Folders that are links are not entered: what lies inside is found anyway.
    fn list_all(&self, most: usize) -> Result<Vec<String>> {
        let mut files = Vec::new();
        let mut seen = 0;
        let mut pending = vec![(self.root.clone(), String::new())];
        while let Some((dir, prefix)) = pending.pop() {
            let fail = |e| Error::io("list the directory", e).in_file(&dir);
            for entry in fs::read_dir(&dir).map_err(fail)? {
                let entry = entry.map_err(fail)?;
                seen += 1;
                if seen > most {
                    return Err(Error::limit(format!("there are more than {most} files"))
                        .in_file(&self.root));
                }
                let Ok(name) = entry.file_name().into_string() else { continue };
                let kind = entry.file_type().map_err(fail)?;
                if kind.is_dir() {
                    pending.push((entry.path(), format!("{prefix}{name}/")));
                } else if !(kind.is_symlink() && entry.path().is_dir()) {
                    files.push(format!("{prefix}{name}"));
                }
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn size(&self, relative: &str) -> Result<Option<u64>> {
        let path = match self.path(relative) {
            Ok(path) => path,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        match fs::metadata(&path) {
            Ok(m) if m.is_file() => Ok(Some(m.len())),
            Ok(_) => Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read the file's size", e).in_file(path)),
        }
    }

    fn name(&self) -> String {
        self.root.display().to_string()
    }
}

/// A checkpoint's data files, each opened when it is first wanted and shared from then on.
pub(crate) struct Files {
    storage: Arc<dyn StorageReader>,
    names: Vec<String>,
    open: Vec<OnceLock<Result<Section>>>,
}

impl Files {
    /// Files beyond those that `ends` speaks of are known to be there.
    ///
    /// # Errors
    /// One error for all files that are missing, and for one that is shorter than `ends` says.
    pub(crate) fn new(
        storage: Arc<dyn StorageReader>,
        names: Vec<String>,
        ends: &[(u64, String)],
    ) -> Result<Self> {
        let mut missing = Vec::new();
        let mut short = None;
        for (name, (end, entry)) in names.iter().zip(ends) {
            match storage.size(name)? {
                None => missing.push(name.as_str()),
                Some(size) if size < *end && short.is_none() => {
                    let what =
                        format!("{entry} ends at byte {end} of {name}, which has {size} bytes");
                    short = Some(Error::malformed(what));
                }
                Some(_) => {}
            }
        }
        if !missing.is_empty() {
            let shown = missing.iter().take(20).copied().collect::<Vec<_>>().join(", ");
            let more = missing.len().saturating_sub(20);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Err(Error::not_found(format!(
                "{} of {} data files are missing: {shown}{more}",
                missing.len(),
                ends.len()
            ))
            .in_file(storage.name())
            .hint("copy the files of every rank into one directory"));
        }
        if let Some(e) = short {
            return Err(e.in_file(storage.name()).hint("the file is cut short: copy it again"));
        }
        let open = names.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { storage, names, open })
    }

    /// What messages call the checkpoint.
    pub(crate) fn root(&self) -> String {
        self.storage.name()
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn name(&self, file: u32) -> &str {
        self.names.get(file as usize).map_or("?", String::as_str)
    }

    /// The whole file.
    pub(crate) fn open(&self, file: u32) -> Result<Section> {
        let (Some(slot), Some(name)) =
            (self.open.get(file as usize), self.names.get(file as usize))
        else {
            return Err(Error::malformed("no data file is known for the item"));
        };
        slot.get_or_init(|| self.storage.open(name)).clone()
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("names", &self.names).finish_non_exhaustive()
    }
}
