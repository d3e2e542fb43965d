//! Open files, not too many of them.
//!
//! A checkpoint of two thousand ranks has more files than a process may usually have open. The
//! first few hundred stay open; those beyond share a small pool of handles.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ckptkit_core::{ReadAt, Result, Section};

/// Files that stay open; common systems allow 1024 in all.
const KEPT: usize = 512;
/// Handles that all others share.
const SHARED: usize = 64;

/// Opens files for one checkpoint.
#[derive(Debug)]
pub(crate) struct Handles {
    opened: AtomicUsize,
    kept: usize,
    pool: Arc<Pool>,
}

/// The most recently used handles, the latest last.
#[derive(Debug)]
struct Pool {
    open: Mutex<Vec<(usize, Section)>>,
    most: usize,
}

impl Default for Handles {
    fn default() -> Self {
        Self::new(KEPT, SHARED)
    }
}

impl Handles {
    fn new(kept: usize, shared: usize) -> Self {
        let pool = Pool { open: Mutex::default(), most: shared };
        Self { opened: AtomicUsize::new(0), kept, pool: Arc::new(pool) }
    }

    /// Opens a file: for good, or for as long as its turn lasts.
    pub(crate) fn open(&self, path: PathBuf) -> Result<Section> {
        let id = self.opened.fetch_add(1, Ordering::Relaxed);
        let section = Section::open(&path)?;
        if id < self.kept {
            return Ok(section);
        }
        let name = section.name().to_owned();
        let pooled = Pooled { id, path, name, size: section.len(), pool: Arc::clone(&self.pool) };
        self.pool.put(id, section);
        Ok(Section::new(Arc::new(pooled)))
    }
}

impl Pool {
    /// The file's handle, if it is still there; reading happens outside the lock.
    fn take(&self, id: usize) -> Option<Section> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|(other, _)| *other == id)?;
        let section = open[at].1.clone();
        let entry = open.remove(at);
        open.push(entry);
        Some(section)
    }

    fn put(&self, id: usize, section: Section) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(other, _)| *other != id);
        if open.len() >= self.most && !open.is_empty() {
            open.remove(0);
        }
        open.push((id, section));
    }
}

/// A file that is opened again when its handle has gone to another.
struct Pooled {
    id: usize,
    path: PathBuf,
    name: String,
    size: u64,
    pool: Arc<Pool>,
}

impl ReadAt for Pooled {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let section = match self.pool.take(self.id) {
            Some(section) => section,
            None => {
                let section = Section::open(&self.path).map_err(io::Error::other)?;
                self.pool.put(self.id, section.clone());
                section
            }
        };
        section.source().read_exact_at(offset, out)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_files_than_handles() {
        let dir = tempfile::tempdir().unwrap();
        let handles = Handles::new(2, 3);
        let sections: Vec<Section> = (0..10_u8)
            .map(|i| {
                let path = dir.path().join(i.to_string());
                std::fs::write(&path, [i; 4]).unwrap();
                handles.open(path).unwrap()
            })
            .collect();
        for round in 0..3 {
            for (i, section) in (0..10_u8).zip(&sections) {
                assert_eq!(section.slice(round, 1).unwrap().read(1).unwrap(), [i]);
            }
        }
        assert_eq!(handles.pool.open.lock().unwrap().len(), 3);
        assert!(sections[1].source().file().is_some());
        assert!(sections[2].source().file().is_none());
        assert!(sections[9].name().ends_with('9'));
    }
}
