//! Relative paths that cannot leave their root.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A relative path with `/` between its parts, checked so that joining it to a directory stays
/// inside that directory: no absolute path, no `..`, no drive letter, no backslash, no NUL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryPath(String);

impl EntryPath {
    /// Checks and normalises a name: `.` parts and repeated slashes fall away, so `./a//b` is `a/b`.
    ///
    /// # Errors
    /// [`Denied`](crate::ErrorKind::Denied) for a name that could leave the directory it is joined
    /// to on any operating system, and for one with nothing in it.
    pub fn new(name: &str) -> Result<Self> {
        let refuse = |why: &str| Err(Error::denied(format!("name {name:?} {why}")));
        if name.contains('\0') {
            return refuse("contains a NUL byte");
        }
        if name.contains('\\') {
            return refuse("contains a backslash");
        }
        if name.starts_with('/') {
            return refuse("is an absolute path");
        }
        let bytes = name.as_bytes();
        if bytes.len() >= 2 && bytes[1] == b':' && bytes[0].is_ascii_alphabetic() {
            return refuse("starts with a drive letter");
        }
        let mut parts = Vec::new();
        for part in name.split('/') {
            match part {
                "" | "." => {}
                ".." => return refuse("contains '..'"),
                part => parts.push(part),
            }
        }
        if parts.is_empty() {
            return refuse("is empty");
        }
        Ok(Self(parts.join("/")))
    }

    /// The normalised text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The path below `root`.
    #[must_use]
    pub fn below(&self, root: &Path) -> PathBuf {
        self.0.split('/').fold(root.to_path_buf(), |p, part| p.join(part))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises() {
        assert_eq!(EntryPath::new("././a//b/").unwrap().as_str(), "a/b");
        assert_eq!(
            EntryPath::new("a/b").unwrap().below(Path::new("r")),
            Path::new("r").join("a").join("b")
        );
        assert_eq!(EntryPath::new("a/b.txt").unwrap().file_name(), "b.txt");
    }

    #[test]
    fn refuses_what_could_leave() {
        for bad in
            ["", ".", "/a", "../a", "a/../b", "a/..", "c:x", "C:/x", "a\\b", "\\\\h\\s", "a\0b"]
        {
            assert_eq!(
                EntryPath::new(bad).unwrap_err().kind(),
                crate::ErrorKind::Denied,
                "{bad:?}"
            );
        }
    }
}
