//! Edits that touch the bytes of one value and no other: comments, order, quotes, anchors and line
//! breaks elsewhere stay as they are.
//!
//! An edit is a few replaced stretches of the text. The new text is parsed again, and must say what
//! the old one said but for the one value; else the edit is refused.

mod delete;
mod insert;
mod replace;
mod shared;

use std::ops::Range;

use ckptkit_core::{Error, Result};

use super::emit::Style;
use super::interpolate::Trail;
use super::surface::{Entry, Place, Surface};
use super::tree::{Form, Kind, NodeId, Tree};
use super::value::{self, Value};
use super::{Config, check_printable, plain};

/// Spaces that a mapping is indented by where the config shows none.
const STEP: usize = 2;

impl Config {
    /// The config with the value under a dotted key set to what a YAML text says: a scalar, a list,
    /// a mapping. A key that is not there is added behind the last one of its mapping, with the
    /// mappings above it where they are missing (or null); the position behind the last item of a
    /// list appends to it.
    ///
    /// ```
    /// # fn main() -> ckptkit_core::Result<()> {
    /// use nemo_archive::Config;
    ///
    /// let config = Config::parse(b"optim:\n  lr: 1e-3  # warm\n  betas: [0.9, 0.98]\nname: x\n")?;
    /// let config = config.set("optim.lr", "1e-5")?.set("optim.betas.1", "0.999")?;
    /// let config = config.set("optim.sched", "{name: 'n', warmup: null}")?;
    /// assert_eq!(
    ///     config.as_str(),
    ///     "optim:\n  lr: 1.0e-05  # warm\n  betas: [0.9, 0.999]\n  \
    ///      sched:\n    name: 'n'\n    warmup: null\nname: x\n"
    /// );
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) for a text that is not YAML;
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for a key that has no place;
    /// [`Denied`](ckptkit_core::ErrorKind::Denied) for a value that stands elsewhere, behind an
    /// alias or a merge key, or that others refer to by its anchor;
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) where the config is written in a way
    /// that cannot be edited in place.
    pub fn set(&self, dotted: &str, yaml: &str) -> Result<Self> {
        let value = self.parse_value(yaml).map_err(|e| e.within("new value"))?;
        self.set_value(dotted, &value)
    }

    /// As [`Config::set`], with a value of the types that YAML has.
    ///
    /// # Errors
    /// As [`Config::set`]; `Unsupported` for other types.
    pub fn set_value(&self, dotted: &str, value: &Value) -> Result<Self> {
        self.try_set(dotted, value).map_err(|e| e.within(format_args!("key {dotted}")))
    }

    /// The config without the value under a dotted key. A mapping or list that loses its last entry
    /// stays, empty.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound); else as [`Config::set`].
    pub fn delete(&self, dotted: &str) -> Result<Self> {
        self.try_delete(dotted).map_err(|e| e.within(format_args!("key {dotted}")))
    }

    fn try_set(&self, dotted: &str, value: &Value) -> Result<Self> {
        if dotted.is_empty() {
            return Err(Error::invalid("no key is named, expected one such as optim.lr"));
        }
        let parts: Vec<&str> = dotted.split('.').collect();
        for n in (0..=parts.len()).rev() {
            let Some(trail) = self.find(&parts[..n].join(".")) else { continue };
            let edit = Edit::new(self, &trail, n < parts.len())?;
            return match parts[n..].split_first() {
                None => edit.replace(value),
                Some((first, rest)) => edit.insert(first, &nested(rest, value)),
            };
        }
        Err(unclear())
    }

    fn try_delete(&self, dotted: &str) -> Result<Self> {
        let trail = self.find(dotted).filter(|trail| trail.len() > self.top.len());
        let trail = trail.ok_or_else(|| Error::not_found("the config has no such key"))?;
        Edit::new(self, &trail, false)?.delete()
    }

    /// What a YAML text says, by OmegaConf's rules.
    fn parse_value(&self, yaml: &str) -> Result<Value> {
        if yaml.trim().is_empty() {
            return Ok(Value::None);
        }
        check_printable(yaml, 0)?;
        let tree = Tree::parse(yaml, 0, &self.limits)?;
        Ok(plain(&tree, tree.root))
    }
}

/// The value under keys that are not there yet.
fn nested(keys: &[&str], value: &Value) -> Value {
    keys.iter()
        .rev()
        .fold(value.clone(), |inner, key| Value::Dict(vec![(Value::Str((*key).to_owned()), inner)]))
}

/// New text for a stretch of the old one.
struct Splice {
    range: Range<usize>,
    text: String,
}

impl Splice {
    fn insert(at: usize, text: impl Into<String>) -> Self {
        Self { range: at..at, text: text.into() }
    }

    fn remove(range: Range<usize>) -> Self {
        Self { range, text: String::new() }
    }
}

/// What an edit does to the values, to check the text by.
enum Change<'a> {
    Set(&'a Value),
    /// The key, where the node is a mapping.
    Insert(Option<Value>, &'a Value),
    Delete,
}

/// An edit at one node.
struct Edit<'a> {
    config: &'a Config,
    surface: Surface<'a>,
    /// The nodes from the root of the document to this one, and where they stand.
    trail: &'a [NodeId],
    places: Vec<Place>,
}

impl<'a> Edit<'a> {
    fn new(config: &'a Config, trail: &'a Trail, goes_on: bool) -> Result<Self> {
        shared::refuse_detours(&config.tree, &config.text, trail, goes_on)?;
        let surface = Surface { text: &config.text, tree: &config.tree };
        let places = surface.places(trail).ok_or_else(unclear)?;
        Ok(Self { config, surface, trail, places })
    }

    fn tree(&self) -> &'a Tree {
        &self.config.tree
    }

    fn id(&self) -> NodeId {
        self.trail.last().copied().unwrap_or(self.config.tree.root)
    }

    fn place(&self) -> Result<&Place> {
        self.places.last().ok_or_else(unclear)
    }

    /// What the container around the node holds.
    fn siblings(&self) -> Result<Vec<Entry>> {
        let level = self.trail.len().checked_sub(2).ok_or_else(unclear)?;
        let start = self.places[level].span.start;
        self.surface.entries(self.trail[level], start).ok_or_else(unclear)
    }

    fn end_of(&self, entry: &Entry) -> Result<usize> {
        let place = self.surface.place(entry.value, entry.after).ok_or_else(unclear)?;
        Ok(place.span.end)
    }

    /// Whether a node of the trail has brackets around it.
    fn has_brackets(&self, level: usize) -> bool {
        self.tree().nodes[self.trail[level]].form == Form::Container
            && self.surface.is_flow(self.places[level].span.start)
    }

    /// How to write what stands in the first `levels` nodes of the trail: within brackets there are
    /// only brackets.
    fn style(&self, levels: usize) -> Style {
        if !(0..levels).any(|level| self.has_brackets(level)) {
            return Style::Block;
        }
        let tree = self.tree();
        let first_key = match &tree.nodes[tree.root].kind {
            Kind::Map(pairs) => pairs.first().map(|p| tree.nodes[p.key].form),
            _ => None,
        };
        match first_key {
            Some(Form::DoubleQuoted) if self.has_brackets(0) => Style::Json,
            _ => Style::Flow,
        }
    }

    /// How far the config indents its mappings.
    fn step(&self) -> usize {
        let (tree, surface) = (self.tree(), self.surface);
        let inner = |e: &Entry| {
            let Kind::Map(pairs) = &tree.nodes[e.value].kind else { return None };
            let key = tree.nodes[pairs.first()?.key].outer;
            let below = key > e.start && surface.opens_line(key);
            surface.column(key).checked_sub(surface.column(e.start)).filter(|&s| below && s > 0)
        };
        let root = self.places.first().and_then(|p| surface.entries(tree.root, p.span.start));
        root.and_then(|entries| entries.iter().find_map(inner)).unwrap_or(STEP)
    }

    /// Lines with the line break that is used around `at`.
    fn joined(&self, lines: &[String], at: usize) -> String {
        lines.join(self.surface.line_break(at))
    }

    /// The config with the new text, if it says what it should.
    fn finish(&self, mut splices: Vec<Splice>, change: &Change<'_>) -> Result<Config> {
        splices.sort_by_key(|s| (s.range.start, s.range.end));
        let old = &self.config.text;
        let mut text = String::with_capacity(old.len() + 64);
        let mut at = 0;
        for splice in &splices {
            text.push_str(old.get(at..splice.range.start).ok_or_else(unclear)?);
            text.push_str(&splice.text);
            at = splice.range.end;
        }
        text.push_str(old.get(at..).ok_or_else(unclear)?);
        let edited = self.config.with_text(text).map_err(|_| unclear())?;
        let mut expected = plain(self.tree(), self.tree().root);
        let applied = self.apply(&mut expected, change);
        let found = plain(&edited.tree, edited.tree.root);
        if applied.is_none() || !value::same(&expected, &found) {
            return Err(unclear());
        }
        Ok(edited)
    }

    /// The change, done to the values themselves.
    fn apply(&self, root: &mut Value, change: &Change<'_>) -> Option<()> {
        let mut positions = Vec::new();
        for step in self.trail.windows(2) {
            positions.push(match &self.tree().nodes[step[0]].kind {
                Kind::Map(pairs) => pairs.iter().position(|p| p.value == step[1])?,
                Kind::List(items) => items.iter().position(|&i| i == step[1])?,
                _ => return None,
            });
        }
        let removed = match change {
            Change::Delete => Some(positions.pop()?),
            _ => None,
        };
        let mut at = root;
        for position in positions {
            at = match at {
                Value::List(items) => items.get_mut(position)?,
                Value::Dict(pairs) => &mut pairs.get_mut(position)?.1,
                _ => return None,
            };
        }
        match (change, at) {
            (Change::Set(value), at) => *at = (*value).clone(),
            (Change::Insert(None, value), Value::List(items)) => items.push((*value).clone()),
            (Change::Insert(Some(key), value), Value::Dict(pairs)) => {
                pairs.push((key.clone(), (*value).clone()));
            }
            (Change::Delete, Value::List(items)) => drop(items.remove(removed?)),
            (Change::Delete, Value::Dict(pairs)) => drop(pairs.remove(removed?)),
            _ => return None,
        }
        Some(())
    }
}

fn unclear() -> Error {
    Error::unsupported("is written in a way that cannot be edited in place")
        .hint("edit the text of the config by hand, and give it as a whole")
}
