//! Names of artifacts: 32 hex digits, an underscore, the name of the file.

use std::io::Read;

use ckptkit_core::{EntryPath, Error, Result, Section};
use sha2::{Digest, Sha256};

const BUFFER: usize = 256 << 10;

/// The name of a member for new content: the first half of its SHA-256, so that the same content
/// gets the same name everywhere. NeMo's own digits are random, and no loader looks at them.
pub(crate) fn of_content(content: &Section, base_name: &str) -> Result<EntryPath> {
    check(base_name)?;
    let mut digits = sha256(content)?;
    digits.truncate(32);
    EntryPath::new(&format!("{digits}_{base_name}"))
}

/// The SHA-256 of all bytes, in hex.
pub(crate) fn sha256(content: &Section) -> Result<String> {
    let mut hash = Sha256::new();
    let mut reader = content.reader();
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = reader
            .read(&mut buffer)
            .map_err(|e| Error::io("read the artifact", e).in_file(content.name()))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// NeMo looks artifacts up by base name, in one flat folder.
fn check(base_name: &str) -> Result<()> {
    let path = EntryPath::new(base_name)?;
    if path.as_str() == base_name && !base_name.contains('/') {
        return Ok(());
    }
    Err(Error::invalid(format!("{base_name:?} is no name of a file, expected one without folders")))
}
