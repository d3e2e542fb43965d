//! A tar as a layout: headers as literals, contents as the addresses that they are.

use std::collections::BTreeMap;

use ckptkit_core::{EntryPath, Error, OutputFile, Result, Segment};

use super::header::{self, BLOCK, Kind};

/// Archives are filled up to whole records of this many bytes.
const RECORD: u64 = 20 * BLOCK;
/// Members that only ever are files, for every loader.
const FILES: [&str; 2] = ["model_config.yaml", "model_weights.ckpt"];

/// A tar archive under construction, one member after the other.
///
/// It starts with the directory `./`, and every name begins with `./`, as NeMo writes them. The
/// bytes depend on the members and their times only: no owner, mode 0644 (directories 0755), no
/// PAX header unless a name or a size of 8 GiB needs one.
///
/// ```
/// use ckptkit_core::{EntryPath, OutputFile, Segment};
/// use nemo_archive::TarLayout;
///
/// # fn main() -> ckptkit_core::Result<()> {
/// let mut config = OutputFile::default();
/// config.push(Segment::Literal(b"target: nemo.x.Y\n".to_vec()))?;
/// let mut tar = TarLayout::new(0)?;
/// tar.file(&EntryPath::new("model_config.yaml")?, 0, config)?;
/// assert_eq!(tar.finish()?.len(), 10240);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TarLayout {
    file: OutputFile,
    /// Whether each member is a directory.
    members: BTreeMap<String, bool>,
}

impl TarLayout {
    /// An archive that holds the directory `./`, last changed at `mtime` (seconds since 1970).
    ///
    /// # Errors
    /// None that can happen here; those of [`OutputFile::push`].
    pub fn new(mtime: u64) -> Result<Self> {
        let mut tar = Self { file: OutputFile::default(), members: BTreeMap::new() };
        tar.push("./", Kind::Directory, mtime, OutputFile::default())?;
        Ok(tar)
    }

    /// Appends a directory.
    ///
    /// # Errors
    /// As [`TarLayout::file`].
    pub fn directory(&mut self, path: &EntryPath, mtime: u64) -> Result<()> {
        self.claim(path, true)?;
        self.push(&format!("./{path}/"), Kind::Directory, mtime, OutputFile::default())
    }

    /// Appends a file; where its bytes lie, and what checksums they hold, `content` knows.
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for a name that is taken, that
    /// needs a file to be a directory, or that loaders expect to be the other of the two;
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) for an archive longer than files
    /// can be.
    pub fn file(&mut self, path: &EntryPath, mtime: u64, content: OutputFile) -> Result<()> {
        self.claim(path, false)?;
        self.push(&format!("./{path}"), Kind::File, mtime, content)
    }

    /// The archive with its end: two blocks of zeros, filled up to 10240 bytes.
    ///
    /// # Errors
    /// As [`TarLayout::file`].
    pub fn finish(mut self) -> Result<OutputFile> {
        let end = self.file.len() + 2 * BLOCK;
        self.zeros(end.next_multiple_of(RECORD) - self.file.len())?;
        Ok(self.file)
    }

    fn push(&mut self, name: &str, kind: Kind, mtime: u64, content: OutputFile) -> Result<()> {
        let blocks = header::blocks(name, kind, content.len(), mtime)?;
        self.file.push(Segment::Literal(blocks))?;
        self.file.append(content)?;
        self.zeros(self.file.len().next_multiple_of(BLOCK) - self.file.len())
    }

    fn zeros(&mut self, len: u64) -> Result<()> {
        self.file.push(Segment::Fill { byte: 0, len })
    }

    /// Takes a name, by the rules that readers of archives hold too.
    fn claim(&mut self, path: &EntryPath, is_dir: bool) -> Result<()> {
        let refuse = |why: String| Err(Error::invalid(why).within(format_args!("member {path}")));
        if is_dir && FILES.contains(&path.as_str()) {
            return refuse("is a directory, expected a file".into());
        }
        let mut above = path.as_str();
        while let Some((folder, _)) = above.rsplit_once('/') {
            if self.members.get(folder) == Some(&false) || FILES.contains(&folder) {
                return refuse(format!("lies in {folder}, which is a file"));
            }
            above = folder;
        }
        let below = format!("{path}/");
        let next = self.members.range(below.clone()..).next();
        if !is_dir && next.is_some_and(|(other, _)| other.starts_with(&below)) {
            return refuse("is a file, and others lie in it".into());
        }
        if self.members.insert(path.as_str().to_owned(), is_dir).is_some() {
            return refuse("two members have this name".into());
        }
        Ok(())
    }
}
