//! An archive as files in a directory.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use ckptkit_core::{
    CopyOptions, EntryPath, Error, ErrorKind, Existing, Layout, OutputFile, Result, ResultExt,
    Segment,
};

use crate::archive::NemoArchive;
use crate::artifact;
use crate::config::json_object;
use crate::entry::Entry;
use crate::plain_names::MAP;

/// How an archive is unpacked.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct UnpackOptions {
    /// Whether artifacts lose the 32 digits before their names, where no two of them would then be
    /// called alike. The file `ckptkit_names.json` keeps their names, and whoever opens or packs
    /// the directory here sees them.
    pub plain_names: bool,
}

impl UnpackOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unpacked {
    /// Files written.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// (name in the directory, name of the member), for artifacts that got plain names.
    pub renamed: Vec<(String, String)>,
}

impl NemoArchive {
    /// Writes every member into a directory that is absent or empty, which appears whole or not at
    /// all. Members that could leave it have been refused when the archive was opened. A folder
    /// around everything falls away. Files keep their times.
    ///
    /// ```
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/nemo/ctc_bpe.nemo");
    /// # if !std::path::Path::new(path).exists() { return Ok(()); }
    /// use ckptkit_core::CopyOptions;
    /// use nemo_archive::{NemoArchive, PackOptions, UnpackOptions, pack};
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let folder = dir.path().join("model");
    /// let mut options = UnpackOptions::new();
    /// options.plain_names = true;
    /// NemoArchive::open(path)?.unpack(&folder, &options, &CopyOptions::default())?;
    /// assert!(folder.join("tokenizer.model").exists());
    ///
    /// let packed = pack(&folder, &PackOptions::new())?;
    /// println!("{} bytes", packed.file().len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Denied`](ckptkit_core::ErrorKind::Denied) for a reference of the config that leaves the
    /// directory; [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) when it holds
    /// something; [`Io`](ckptkit_core::ErrorKind::Io), also for two members whose names differ only
    /// in case where the file system takes them for one; those of [`Layout::write`].
    pub fn unpack(
        &self,
        destination: impl AsRef<Path>,
        options: &UnpackOptions,
        copy: &CopyOptions<'_>,
    ) -> Result<Unpacked> {
        unpack(self, destination.as_ref(), options, copy).in_file(self.name())
    }
}

fn unpack(
    archive: &NemoArchive,
    destination: &Path,
    options: &UnpackOptions,
    copy: &CopyOptions<'_>,
) -> Result<Unpacked> {
    // A config that cannot be read is a file like any other; one that leads out of the directory
    // would lead whoever loads it there.
    match archive.artifacts() {
        Err(e) if e.kind() == ErrorKind::Denied && archive.config().is_ok() => return Err(e),
        _ => {}
    }
    let mut plain = HashMap::new();
    if options.plain_names {
        plain = plain_names(archive)?;
    }
    let name = |entry: &Entry| plain.get(entry.path()).unwrap_or_else(|| entry.path()).clone();
    let files = || archive.entries().filter(|e| !e.is_dir());
    let mut layout = Layout::directory();
    for entry in files() {
        let mut file = OutputFile::default();
        file.push(Segment::Section(entry.section()?))?;
        layout.add(name(entry), file).within(|| format!("member {}", entry.path()))?;
    }
    let mut unpacked = Unpacked::default();
    for entry in files().filter(|e| plain.contains_key(e.path())) {
        let pair = (name(entry).as_str().to_owned(), entry.path().as_str().to_owned());
        unpacked.renamed.push(pair);
    }
    if !unpacked.renamed.is_empty() {
        let mut file = OutputFile::default();
        file.push(Segment::Literal(json_object(&unpacked.renamed)?.into_bytes()))?;
        layout.add(EntryPath::new(MAP)?, file)?;
    }
    let report = layout.write(destination, Existing::Refuse, copy)?;
    (unpacked.files, unpacked.bytes) = (report.files, report.bytes);
    finish(archive, destination, &name);
    Ok(unpacked)
}

/// Empty directories and times: what is wanted of them, and nothing is lost where it cannot be had.
fn finish(archive: &NemoArchive, destination: &Path, name: &dyn Fn(&Entry) -> EntryPath) {
    for entry in archive.entries() {
        let path = name(entry).below(destination);
        if entry.is_dir() {
            let _ = fs::create_dir_all(&path);
        } else if let Ok(file) = File::options().write(true).open(&path) {
            if let Some(time) = UNIX_EPOCH.checked_add(Duration::from_secs(entry.mtime())) {
                let _ = file.set_modified(time);
            }
        }
    }
}

/// The artifacts that get plain names.
fn plain_names(archive: &NemoArchive) -> Result<HashMap<EntryPath, EntryPath>> {
    if archive.entry(MAP).is_ok() {
        return Err(Error::invalid(format!(
            "the archive has a member {MAP}, where the names would be kept"
        ))
        .hint("unpack it with the names that it has"));
    }
    let mut wanted = Vec::new();
    let mut taken: HashMap<String, usize> = HashMap::new();
    let index = archive.index();
    for entry in archive.entries() {
        let mut path = entry.path().clone();
        let file_name = path.file_name();
        let base = artifact::without_digits(file_name);
        if base.len() < file_name.len() && !entry.is_dir() && artifact::is_artifact(index, entry) {
            let folder = &path.as_str()[..path.as_str().len() - file_name.len()];
            path = EntryPath::new(&format!("{folder}{base}"))?;
            wanted.push((entry.path().clone(), path.clone()));
        }
        *taken.entry(path.as_str().to_lowercase()).or_default() += 1;
    }
    *taken.entry(MAP.to_lowercase()).or_default() += 1;
    wanted.retain(|(_, plain)| taken.get(&plain.as_str().to_lowercase()) == Some(&1));
    Ok(wanted.into_iter().collect())
}
