//! `${…}`: references from one value of the config to another.
//!
//! Only references to nodes are followed. A resolver (`${oc.env:HOME}`) would run something, so it
//! is shown as it is written.

use ckptkit_core::{Error, Result};

use super::tree::{Kind, NodeId, Tree, weight};
use super::value::{self, Value};

/// Where a value stands: the nodes from the root of the document down to it.
pub(crate) type Trail = Vec<NodeId>;

pub(crate) struct Resolver<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) depth: usize,
    /// Nodes (and parts of long texts) that may still be written out: interpolations copy whole
    /// sections.
    pub(crate) budget: u64,
    /// The references that are being followed.
    pub(crate) active: Vec<Trail>,
    /// How deep the walk stands, over all references.
    pub(crate) level: usize,
}

/// Levels of nesting that references may pile up: real configs nest ten deep, and each level costs
/// stack.
const MAX_LEVEL: usize = 256;

/// A piece of a text with interpolations.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(String),
    /// Levels up (`None` for the root), then keys.
    Node(Option<usize>, Vec<&'a str>),
}

impl Resolver<'_> {
    /// The value at the end of `trail`, with every reference in it followed.
    pub(crate) fn value(&mut self, trail: &mut Trail) -> Result<Value> {
        let Some(&id) = trail.last() else { return Ok(Value::None) };
        let tree = self.tree;
        self.charge(tree.scalar(id).map_or(1, weight))?;
        match tree.kind(id) {
            Kind::Scalar(Value::Str(s)) if s.contains("${") => self.text(s, trail),
            Kind::Scalar(v) => Ok(v.clone()),
            Kind::List(items) => {
                let mut out = Vec::with_capacity(items.len());
                for &item in items {
                    out.push(self.below(item, trail)?);
                }
                Ok(Value::List(out))
            }
            Kind::Map(pairs) => {
                let mut out = Vec::with_capacity(pairs.len());
                for pair in pairs {
                    let key = tree.scalar(pair.key).cloned().unwrap_or(Value::None);
                    self.charge(weight(&key))?;
                    out.push((key, self.below(pair.value, trail)?));
                }
                Ok(Value::Dict(out))
            }
            Kind::Alias(_) => Ok(Value::None),
        }
    }

    fn charge(&mut self, cost: u64) -> Result<()> {
        self.budget = self.budget.checked_sub(cost).ok_or_else(|| {
            Error::limit("interpolations make the config larger than the limit allows")
        })?;
        Ok(())
    }

    fn below(&mut self, id: NodeId, trail: &mut Trail) -> Result<Value> {
        if self.level >= MAX_LEVEL {
            return Err(Error::limit("references nest too deep"));
        }
        self.level += 1;
        trail.push(id);
        let value = self.value(trail);
        trail.pop();
        self.level -= 1;
        value
    }

    fn text(&mut self, text: &str, trail: &Trail) -> Result<Value> {
        let Some(pieces) = pieces(text) else { return Ok(Value::Str(text.into())) };
        if let [Piece::Node(up, keys)] = pieces.as_slice() {
            return self.reference(text, *up, keys, trail);
        }
        let mut out = String::new();
        for piece in &pieces {
            match piece {
                Piece::Text(s) => out.push_str(s),
                Piece::Node(up, keys) => {
                    let value = self.reference(text, *up, keys, trail)?;
                    out.push_str(&value::text(&value).ok_or_else(|| {
                        Error::malformed(format!(
                            "{text:?} puts a list or a mapping into the middle of a text"
                        ))
                    })?);
                }
            }
        }
        Ok(Value::Str(out))
    }

    fn reference(
        &mut self,
        text: &str,
        up: Option<usize>,
        keys: &[&str],
        trail: &Trail,
    ) -> Result<Value> {
        self.enter(text, trail)?;
        let found = self.locate(text, up, keys, trail).and_then(|mut to| self.value(&mut to));
        self.active.pop();
        found
    }

    fn enter(&mut self, text: &str, trail: &Trail) -> Result<()> {
        if self.active.contains(trail) {
            return Err(Error::malformed(format!("{text:?} refers to itself")));
        }
        if self.active.len() >= self.depth {
            return Err(Error::limit(format!("{text:?} is more than {} steps long", self.depth)));
        }
        self.active.push(trail.clone());
        Ok(())
    }

    /// Where the value stands that a reference at `trail` names.
    fn locate(
        &mut self,
        text: &str,
        up: Option<usize>,
        keys: &[&str],
        trail: &Trail,
    ) -> Result<Trail> {
        let missing = || Error::not_found(format!("{text:?} refers to nothing in the config"));
        let start = match up {
            None => 1,
            // `.` is the container that holds the value.
            Some(up) => trail.len().checked_sub(up).filter(|&n| n > 0).ok_or_else(missing)?,
        };
        let mut target: Trail = trail[..start].to_vec();
        for key in keys {
            let mut here = target.last().copied().unwrap_or(self.tree.root);
            if let Some(Value::Str(s)) = self.tree.scalar(here) {
                // A section may itself be a reference.
                if let Some([Piece::Node(up, keys)]) = pieces(s).as_deref() {
                    self.enter(s, &target)?;
                    target = self.locate(s, *up, keys, &target)?;
                    self.active.pop();
                    here = target.last().copied().unwrap_or(self.tree.root);
                }
            }
            target.push(child(self.tree, here, key).ok_or_else(missing)?);
        }
        Ok(target)
    }
}

/// What a container holds under a key or a position.
pub(crate) fn child(tree: &Tree, id: NodeId, key: &str) -> Option<NodeId> {
    match tree.kind(id) {
        Kind::Map(pairs) => pairs
            .iter()
            .find(|p| match tree.scalar(p.key) {
                Some(Value::Str(s)) => s == key,
                Some(other) => value::text(other).as_deref() == Some(key),
                None => false,
            })
            .map(|p| p.value),
        Kind::List(items) => {
            let i: usize = key.parse().ok()?;
            items.get(i).copied()
        }
        _ => None,
    }
}

/// Cuts a text at its interpolations; nothing when one of them is more than a plain reference,
/// which leaves the text as it is.
fn pieces(text: &str) -> Option<Vec<Piece<'_>>> {
    let mut out = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let before = &rest[..at];
        let slashes = before.len() - before.trim_end_matches('\\').len();
        plain.push_str(&before[..before.len() - slashes]);
        // Backslashes before an interpolation escape each other, an odd one escapes it.
        plain.extend(std::iter::repeat_n('\\', slashes / 2));
        if slashes % 2 == 1 {
            let end = close(&rest[at + 2..])?;
            plain.push_str(&rest[at..at + 2 + end + 1]);
            rest = &rest[at + 2 + end + 1..];
            continue;
        }
        let end = close(&rest[at + 2..])?;
        let (up, keys) = reference(&rest[at + 2..at + 2 + end])?;
        if !plain.is_empty() {
            out.push(Piece::Text(std::mem::take(&mut plain)));
        }
        out.push(Piece::Node(up, keys));
        rest = &rest[at + 2 + end + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() || out.is_empty() {
        out.push(Piece::Text(plain));
    }
    Some(out)
}

/// The position of the brace that closes one already open.
fn close(text: &str) -> Option<usize> {
    let mut open = 1_u32;
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'{' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(i);
        }
    }
    None
}

/// `a.b[0].c`, `.x`, `..x`; nothing for resolvers and for anything nested.
fn reference(inner: &str) -> Option<(Option<usize>, Vec<&str>)> {
    let inner = inner.trim();
    let dots = inner.len() - inner.trim_start_matches('.').len();
    let path = &inner[dots..];
    let up = (dots > 0).then_some(dots);
    if path.is_empty() {
        return up.map(|_| (up, Vec::new()));
    }
    let mut keys = Vec::new();
    for part in path.split('.') {
        let (head, brackets) = part.split_at(part.find('[').unwrap_or(part.len()));
        if !head.is_empty() {
            keys.push(head);
        } else if brackets.is_empty() {
            return None;
        }
        let mut left = brackets;
        while !left.is_empty() {
            let end = left.find(']').filter(|_| left.starts_with('['))?;
            keys.push(&left[1..end]);
            left = &left[end + 1..];
        }
    }
    let plain = |k: &&str| {
        !k.is_empty()
            && k.chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | '@' | '$' | ' '))
    };
    keys.iter().all(plain).then_some((up, keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_references_are_taken_apart() {
        assert_eq!(reference("a.b[0].c"), Some((None, vec!["a", "b", "0", "c"])));
        assert_eq!(reference(".x"), Some((Some(1), vec!["x"])));
        assert_eq!(reference("..x.y"), Some((Some(2), vec!["x", "y"])));
        for not in ["oc.env:HOME", "oc.env:A,b", "", "a..b", "a.${b}", "a[0", "a]"] {
            assert_eq!(reference(not), None, "{not:?}");
        }
    }
}
