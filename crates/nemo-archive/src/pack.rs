//! An archive from the files of a directory.

use std::collections::HashMap;
use std::path::Path;

use ckptkit_core::{Error, Result, ResultExt};

use crate::archive::NemoArchive;
use crate::edit::Editor;
use crate::write::{Change, NewArchive, WriteOptions};

/// How a directory is packed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PackOptions {
    /// Whether files that no key of the config refers to are packed too.
    pub extra: bool,
    /// How the archive is written.
    pub write: WriteOptions,
}

impl PackOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// Lays out the archive of an unpacked directory: its config, the artifacts that the config refers
/// to, its weights. Files left out are among [`NewArchive::changes`].
///
/// # Errors
/// Those of [`NemoArchive::open_dir`]: the directory must be one that could be opened, with a config
/// and weights; [`NotFound`](ckptkit_core::ErrorKind::NotFound) for a `nemo:` reference to a file
/// that is not there; [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for names that
/// differ only in case; [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) as [`Editor::new`].
pub fn pack(directory: impl AsRef<Path>, options: &PackOptions) -> Result<NewArchive> {
    let archive = NemoArchive::open_dir(directory)?;
    let mut editor = Editor::new(&archive)?;
    pack_members(&mut editor, options).in_file(archive.name())?;
    editor.layout(&options.write)
}

fn pack_members(editor: &mut Editor, options: &PackOptions) -> Result<()> {
    editor.refuse_unresolved()?;
    let left_out = if options.extra { Vec::new() } else { editor.leave_out_unreferenced()? };
    let mut folded: HashMap<String, String> = HashMap::new();
    for name in editor.names() {
        if let Some(other) = folded.insert(name.to_lowercase(), name.clone()) {
            return Err(Error::invalid(format!("{other} and {name} differ only in case"))
                .hint("rename one of them"));
        }
    }
    editor.sort()?;
    for (member, bytes) in left_out {
        editor.note(Change::LeftOut { member, bytes });
    }
    Ok(())
}
