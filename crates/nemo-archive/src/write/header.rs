//! The blocks that stand before a member, byte for byte those of Python's `tarfile`.

use ckptkit_core::{Error, Result};

pub(super) const BLOCK: u64 = 512;
const BLOCK_LEN: usize = 512;
/// The lengths of the fields for a name and for the directories before it.
const NAME: usize = 100;
const PREFIX: usize = 155;
/// The first size, and time, that eleven octal digits cannot say.
const OCTAL_END: u64 = 1 << 33;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
}

/// What stands before the bytes of a member; a directory's name ends in a slash.
///
/// A PAX header precedes the ustar one only where the name is longer than ustar's fields or not
/// ASCII, or where there are 8 GiB or more.
pub(super) fn blocks(name: &str, kind: Kind, size: u64, mtime: u64) -> Result<Vec<u8>> {
    let mut records = String::new();
    let fields = fields_of(name);
    if fields.is_none() {
        records.push_str(&record("path", name));
    }
    if size >= OCTAL_END {
        records.push_str(&record("size", &size.to_string()));
    }
    let mut out = Vec::new();
    if !records.is_empty() {
        let len = records.len() as u64;
        let mut header = ::tar::Header::new_ustar();
        header.set_entry_type(::tar::EntryType::XHeader);
        put(&mut header, "././@PaxHeader", "", 0, len, 0)?;
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(records.as_bytes());
        out.resize(out.len().next_multiple_of(BLOCK_LEN), 0);
    }
    let short;
    let (prefix, name) = match fields {
        Some(fields) => fields,
        None => {
            short = shortened(name);
            ("", short.as_str())
        }
    };
    let mut header = ::tar::Header::new_ustar();
    let (flag, mode) = match kind {
        Kind::File => (::tar::EntryType::Regular, 0o644),
        Kind::Directory => (::tar::EntryType::Directory, 0o755),
    };
    header.set_entry_type(flag);
    let size = if size >= OCTAL_END { 0 } else { size };
    put(&mut header, name, prefix, mode, size, mtime.min(OCTAL_END - 1))?;
    out.extend_from_slice(header.as_bytes());
    Ok(out)
}

/// Fills the fields that are not empty.
fn put(
    header: &mut ::tar::Header,
    name: &str,
    prefix: &str,
    mode: u32,
    size: u64,
    mtime: u64,
) -> Result<()> {
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(mtime);
    let Some(ustar) = header.as_ustar_mut() else {
        return Err(Error::invalid("the header is no ustar header"));
    };
    ustar.name[..name.len()].copy_from_slice(name.as_bytes());
    ustar.prefix[..prefix.len()].copy_from_slice(prefix.as_bytes());
    // Six digits, a NUL and a space, as every tar but one of Rust's writes it.
    ustar.cksum = [b' '; 8];
    let sum: u32 = header.as_bytes().iter().map(|&b| u32::from(b)).sum();
    header.as_old_mut().cksum[..7].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    Ok(())
}

/// The name in ustar's two fields, where it fits them: cut at its first slash that does.
fn fields_of(name: &str) -> Option<(&str, &str)> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= NAME {
        return Some(("", name));
    }
    let cuts = name.match_indices('/').map(|(at, _)| (&name[..at], &name[at + 1..]));
    let fits = |(prefix, rest): &(&str, &str)| prefix.len() <= PREFIX && rest.len() <= NAME;
    cuts.filter(|(prefix, rest)| !prefix.is_empty() && !rest.is_empty()).find(fits)
}

/// What readers see that know nothing of PAX.
fn shortened(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii() { c } else { '?' }).take(NAME).collect()
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(key: &str, value: &str) -> String {
    let body = key.len() + value.len() + 3;
    let mut len = body + 1;
    while len != body + len.to_string().len() {
        len = body + len.to_string().len();
    }
    format!("{len} {key}={value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_itself() {
        assert_eq!(record("size", "1"), "9 size=1\n");
        for len in 80..120 {
            let text = record("path", &"x".repeat(len));
            assert_eq!(text.split(' ').next(), Some(text.len().to_string().as_str()));
        }
    }

    #[test]
    fn names_are_cut_where_they_fit() {
        let long = "n".repeat(100);
        assert_eq!(fields_of(&long), Some(("", long.as_str())));
        assert_eq!(fields_of(&format!("./{long}")), Some((".", long.as_str())));
        assert_eq!(fields_of(&format!("./{long}n")), None);
        assert_eq!(fields_of(&format!("./{}/n", "d".repeat(154))), None);
        assert_eq!(fields_of("é"), None);
    }
}
