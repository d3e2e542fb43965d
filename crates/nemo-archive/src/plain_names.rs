//! Plain names of unpacked artifacts: `tokenizer.model` for `0f3a…_tokenizer.model`, with a file
//! beside them that says which is which.

use std::collections::HashMap;

use ckptkit_core::{EntryPath, Error, Result, ResultExt};

use crate::config::{Config, Value};
use crate::entry::Entry;
use crate::limits::ArchiveLimits;

/// The file: a JSON object from the name in the directory to the name of the member.
pub(crate) const MAP: &str = "ckptkit_names.json";

/// Gives the files of a directory the names of their members, where it has a map of them; the map
/// is no member.
pub(crate) fn restore(entries: &mut Vec<Entry>, limits: &ArchiveLimits) -> Result<()> {
    let Some(at) = entries.iter().position(|e| e.path().as_str() == MAP && !e.is_dir()) else {
        return Ok(());
    };
    let map = entries.remove(at);
    let names = read(&map, limits).within(|| format!("member {MAP}"))?;
    for entry in entries.iter_mut() {
        if let Some(name) = names.get(entry.path()) {
            entry.path = name.clone();
        }
    }
    Ok(())
}

fn read(map: &Entry, limits: &ArchiveLimits) -> Result<HashMap<EntryPath, EntryPath>> {
    let bytes = map.read(limits.config_bytes)?;
    let Value::Dict(pairs) = Config::parse_with(&bytes, limits)?.value() else {
        return Err(Error::malformed("is no JSON object"));
    };
    let mut names = HashMap::new();
    for (plain, name) in pairs {
        let (Value::Str(plain), Value::Str(name)) = (plain, name) else {
            return Err(Error::malformed("holds something else than names"));
        };
        names.insert(EntryPath::new(&plain)?, EntryPath::new(&name)?);
    }
    Ok(names)
}
