//! Choosing and renaming tensors by their dotted names.

use ckptkit_core::{Error, Result};
use regex::Regex;

/// A pattern for dotted names: `*` and `?` stay within one part, `**` crosses dots, `[…]` is a set
/// of characters, `\` takes the next character as it is. It must match the whole name.
#[derive(Clone, Debug)]
pub struct Glob {
    text: String,
    regex: Regex,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for an open set or a
    /// backslash at the end.
    pub fn new(pattern: &str) -> Result<Self> {
        let bad = |why: &str| Error::invalid(format!("pattern {pattern:?}: {why}"));
        let mut regex = String::from("(?s)^");
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '*' if chars.peek() == Some(&'*') => {
                    chars.next();
                    regex.push_str(".*");
                }
                '*' => regex.push_str("[^.]*"),
                '?' => regex.push_str("[^.]"),
                '\\' => {
                    let c = chars.next().ok_or_else(|| bad("a backslash ends it"))?;
                    regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
                }
                '[' => {
                    let mut set = String::new();
                    let negated = chars.next_if(|c| matches!(c, '!' | '^')).is_some();
                    loop {
                        match chars.next() {
                            Some(']') if !set.is_empty() => break,
                            Some(c @ ('\\' | '[' | ']' | '^' | '&' | '~')) => {
                                set.push('\\');
                                set.push(c);
                            }
                            Some(c) => set.push(c),
                            None => {
                                return Err(bad("a set `[` is not closed")
                                    .hint("write \\[ for the character"));
                            }
                        }
                    }
                    regex.push_str(&format!("[{}{set}]", if negated { "^" } else { "" }));
                }
                c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            }
        }
        regex.push('$');
        let regex = Regex::new(&regex).map_err(|e| bad(&e.to_string()))?;
        Ok(Self { text: pattern.to_owned(), regex })
    }

    /// Whether the whole name fits.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A pattern that matches this name alone.
    #[must_use]
    pub fn escape(name: &str) -> String {
        let mut out = String::new();
        for c in name.chars() {
            if matches!(c, '*' | '?' | '[' | '\\') {
                out.push('\\');
            }
            out.push(c);
        }
        out
    }
}

/// Which tensors, and under what names. Selection sees the names before renaming; renaming goes:
/// strip the prefix, the expressions in order, add the prefix.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Selection {
    /// Names to take; all where there are none.
    pub select: Vec<Glob>,
    /// Names to leave.
    pub exclude: Vec<Glob>,
    /// A prefix to remove from the names that have it.
    pub strip_prefix: Option<String>,
    /// Expressions and what their matches become (`$1` is the first group).
    pub rename: Vec<(Regex, String)>,
    /// A prefix for every name.
    pub add_prefix: Option<String>,
}

impl Selection {
    /// Takes everything as it is.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it leaves out anything by itself.
    #[must_use]
    pub fn selects(&self) -> bool {
        !self.select.is_empty() || !self.exclude.is_empty()
    }

    /// Whether it may change a name.
    #[must_use]
    pub fn renames(&self) -> bool {
        self.strip_prefix.is_some() || self.add_prefix.is_some() || !self.rename.is_empty()
    }

    /// Reads `REGEX=TO`; the last `=` that is not escaped separates them, since expressions
    /// contain `=` more often than names do.
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument).
    pub fn parse_rename(rule: &str) -> Result<(Regex, String)> {
        let split = rule.rmatch_indices('=').find(|(at, _)| !rule[..*at].ends_with('\\'));
        let (at, _) = split.ok_or_else(|| {
            Error::invalid(format!("rename rule {rule:?} has no '='"))
                .hint("write it as 'REGEX=TO', and an '=' in TO as '\\='")
        })?;
        let regex = Regex::new(&rule[..at])
            .map_err(|e| Error::invalid(format!("rename rule {rule:?}: {e}")))?;
        Ok((regex, rule[at + 1..].replace("\\=", "=")))
    }

    /// Why a name is left out; `None` for one that is taken.
    #[must_use]
    pub fn leaves_out(&self, name: &str) -> Option<String> {
        if let Some(glob) = self.exclude.iter().find(|g| g.matches(name)) {
            return Some(format!("excluded by {:?}", glob.as_str()));
        }
        (!self.select.is_empty() && !self.select.iter().any(|g| g.matches(name)))
            .then(|| "not selected".to_owned())
    }

    /// The name that a tensor gets.
    #[must_use]
    pub fn renamed(&self, name: &str) -> String {
        let mut name = match &self.strip_prefix {
            Some(prefix) => name.strip_prefix(prefix.as_str()).unwrap_or(name).to_owned(),
            None => name.to_owned(),
        };
        for (regex, to) in &self.rename {
            name = regex.replace_all(&name, to.as_str()).into_owned();
        }
        match &self.add_prefix {
            Some(prefix) => format!("{prefix}{name}"),
            None => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        let m = |p: &str, n: &str| Glob::new(p).unwrap().matches(n);
        assert!(m("encoder.**", "encoder.layers.0.weight"));
        assert!(!m("encoder.**", "encoder"));
        assert!(!m("encoder.**", "my_encoder.x"));
        assert!(m("encoder.*", "encoder.x") && !m("encoder.*", "encoder.x.y"));
        assert!(m("**.weight", "a.b.weight") && !m("*.weight", "a.b.weight"));
        assert!(m("l.[0-3].w", "l.2.w") && !m("l.[!0-3].w", "l.2.w") && m("l.[!0-3].w", "l.7.w"));
        assert!(m("a?c", "abc") && !m("a?c", "a.c"));
        assert!(m("a+b", "a+b") && !m("a+b", "aab"));
        assert!(Glob::new("a[b").is_err() && Glob::new("a\\").is_err());
        for odd in ["a[0]*?\\.b", "x y", "(){}^$|"] {
            assert!(m(&Glob::escape(odd), odd));
        }
    }

    #[test]
    fn renaming_goes_in_order() {
        let mut s = Selection::new();
        s.strip_prefix = Some("model.".into());
        s.rename.push(Selection::parse_rename("^layers\\.(\\d+)=blocks.$1").unwrap());
        s.add_prefix = Some("encoder.".into());
        assert_eq!(s.renamed("model.layers.3.w"), "encoder.blocks.3.w");
        assert_eq!(s.renamed("other"), "encoder.other");
        let rule = |text| Selection::parse_rename(text).map(|(r, to)| (r.to_string(), to)).unwrap();
        assert_eq!(rule("a=b=c"), ("a=b".into(), "c".into()));
        assert_eq!(rule("a=b\\=c"), ("a".into(), "b=c".into()));
        assert_eq!(rule("a="), ("a".into(), String::new()));
        assert!(Selection::parse_rename("nothing").is_err());
        assert!(Selection::parse_rename("(=x").is_err());
    }
}
