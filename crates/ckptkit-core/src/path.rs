//! Where a tensor stands in its tree, and the name that follows from it.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::hash::{HashMap, HashMapExt, HashSet, HashSetExt};

/// One step from a container to what it holds. Cheap to clone: the paths of a checkpoint share
/// their steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Key {
    /// A string key of a mapping, or an attribute of an object.
    Str(Arc<str>),
    /// A position in a list or tuple.
    Index(u64),
    /// A key of a mapping that is not a string, as Python prints it: `3`, `True`, `(1, 2)`.
    Other(Arc<str>),
}

impl Key {
    fn push_plain(&self, out: &mut String) {
        match self {
            Self::Str(s) | Self::Other(s) => out.push_str(s),
            Self::Index(i) => {
                let _ = write!(out, "{i}");
            }
        }
    }

    fn push_escaped(&self, brackets: bool, out: &mut String) {
        match self {
            Self::Str(s) | Self::Other(s) if !brackets || matches!(self, Self::Str(_)) => {
                for c in s.chars() {
                    if c == '.' {
                        out.push('\\');
                    }
                    out.push(c);
                }
            }
            key => {
                out.push('[');
                key.push_plain(out);
                out.push(']');
            }
        }
    }
}

/// The keys joined with dots: the name that a tensor has when no other one wants it too.
#[must_use]
pub fn join(path: &[Key]) -> String {
    let mut out = String::new();
    push_joined(path, &mut out);
    out
}

fn push_joined(path: &[Key], out: &mut String) {
    for (i, key) in path.iter().enumerate() {
        if i > 0 {
            out.push('.');
        }
        key.push_plain(out);
    }
}

/// As [`join`], shared; the name of a path of one text is that text, not a copy of it. What is in
/// `scratch` is overwritten: of many paths the longest takes memory there, once.
#[must_use]
pub fn joined(path: &[Key], scratch: &mut String) -> Arc<str> {
    match path {
        [Key::Str(only) | Key::Other(only)] => Arc::clone(only),
        path => {
            scratch.clear();
            push_joined(path, scratch);
            Arc::from(scratch.as_str())
        }
    }
}

/// Whether no two names are equal.
#[must_use]
pub fn are_unique<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    let mut names = names.into_iter();
    let mut seen = HashSet::with_capacity(names.size_hint().0);
    names.all(|name| seen.insert(name))
}

fn escaped(path: &[Key], brackets: bool) -> String {
    let mut out = String::new();
    for (i, key) in path.iter().enumerate() {
        if i > 0 {
            out.push('.');
        }
        match key {
            Key::Index(_) if !brackets => key.push_plain(&mut out),
            key => key.push_escaped(brackets, &mut out),
        }
    }
    out
}

/// The names of all paths of one checkpoint, in their order: dots between keys; where two paths
/// would get one name, those get the dots inside their keys escaped (`a\.b`), and where that is
/// not enough, positions and keys that are not strings in brackets (`[1]`). No two are equal.
#[must_use]
pub fn unique_names<'a>(paths: impl IntoIterator<Item = &'a [Key]>) -> Vec<Arc<str>> {
    let paths: Vec<&[Key]> = paths.into_iter().collect();
    let mut scratch = String::new();
    let mut names: Vec<Arc<str>> = paths.iter().map(|p| joined(p, &mut scratch)).collect();
    for brackets in [false, true] {
        for i in clashing(&names) {
            names[i] = escaped(paths[i], brackets).into();
        }
    }
    // Only paths that Python itself could not tell apart by printing are left.
    let mut round = 1;
    loop {
        let again = clashing(&names);
        if again.is_empty() {
            return names;
        }
        round += 1;
        let mut seen = HashMap::new();
        for i in again {
            let n = seen.entry(Arc::clone(&names[i])).or_insert(0_u32);
            *n += 1;
            if *n > 1 {
                names[i] = format!("{}~{}", names[i], *n + round - 2).into();
            }
        }
    }
}

fn clashing(names: &[Arc<str>]) -> Vec<usize> {
    let mut first: HashMap<&str, usize> = HashMap::with_capacity(names.len());
    let mut out = Vec::new();
    for (i, name) in names.iter().enumerate() {
        match first.entry(name) {
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(i);
            }
            std::collections::hash_map::Entry::Occupied(mut slot) => {
                let one = slot.insert(usize::MAX);
                if one != usize::MAX {
                    out.push(one);
                }
                out.push(i);
            }
        }
    }
    out.sort_unstable();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(k: &str) -> Key {
        Key::Str(k.into())
    }

    #[test]
    fn no_path_hides_another() {
        let paths = [
            vec![s("a"), s("b")],
            vec![s("a.b")],
            vec![s("l"), Key::Other("1".into())],
            vec![s("l"), s("1")],
            vec![s("x.y"), Key::Index(0)],
        ];
        let names = unique_names(paths.iter().map(Vec::as_slice));
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        assert_eq!(names, ["a.b", "a\\.b", "l.[1]", "l.1", "x.y.0"]);
    }

    #[test]
    fn keys_that_print_alike_still_differ() {
        let paths = vec![vec![Key::Other("nan".into())]; 3];
        let names = unique_names(paths.iter().map(Vec::as_slice));
        assert_eq!(clashing(&names), [0_usize; 0]);
    }
}
