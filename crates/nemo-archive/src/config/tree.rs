//! The config as an arena of nodes, each with the bytes that spell it.
//!
//! Built from parser events, because libraries that give values follow YAML 1.2 and forget where
//! things stood. The parser counts characters; spans here are bytes of the file.

use std::collections::HashMap;
use std::ops::Range;

use ckptkit_core::{Error, Result};
use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::place::Bytes;
use super::scalar;
use super::value::{self, Value};
use crate::limits::ArchiveLimits;

pub(crate) type NodeId = usize;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// Bytes of the file, quotes included. Of containers, and of values that nothing spells, only
    /// the start is to be trusted.
    pub(crate) span: Range<usize>,
    /// Where it starts with its anchor and tag.
    pub(crate) outer: usize,
    pub(crate) form: Form,
    /// [`Kind::weight`] of all below when aliases are written out, and how deep they nest then.
    expanded: u64,
    height: usize,
}

/// How a node is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// No character spells it: a key with nothing behind its colon.
    Empty,
    Plain,
    SingleQuoted,
    DoubleQuoted,
    /// `|` and `>`
    Block,
    Alias,
    Container,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Scalar(Value),
    List(Vec<NodeId>),
    Map(Vec<Pair>),
    /// `*name`
    Alias(NodeId),
}

impl Kind {
    /// What writing it out once more costs: long texts count for more than one node.
    fn weight(&self) -> u64 {
        match self {
            Self::Scalar(v) => weight(v),
            Self::Alias(_) => 0,
            _ => 1,
        }
    }
}

pub(crate) fn weight(value: &Value) -> u64 {
    match value {
        Value::Str(s) | Value::BigInt(s) => 1 + s.len() as u64 / 256,
        _ => 1,
    }
}

/// A key and its value; `merged` when they come from another mapping through `<<`.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) key: NodeId,
    pub(crate) value: NodeId,
    pub(crate) merged: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    pub(crate) root: NodeId,
    pub(crate) notes: Vec<String>,
    /// Keys and values of the mappings that `<<` fills, as they are written.
    pub(crate) written: HashMap<NodeId, Vec<(NodeId, NodeId)>>,
}

impl Tree {
    /// The node itself, aliases followed.
    pub(crate) fn follow(&self, mut id: NodeId) -> NodeId {
        // An alias only ever points at an earlier node.
        while let Kind::Alias(target) = self.nodes[id].kind {
            id = target;
        }
        id
    }

    pub(crate) fn kind(&self, id: NodeId) -> &Kind {
        &self.nodes[self.follow(id)].kind
    }

    /// What the whole costs when aliases are written out.
    pub(crate) fn expanded(&self) -> u64 {
        self.nodes[self.root].expanded
    }

    pub(crate) fn scalar(&self, id: NodeId) -> Option<&Value> {
        match self.kind(id) {
            Kind::Scalar(v) => Some(v),
            _ => None,
        }
    }

    pub(crate) fn parse(text: &str, base: usize, limits: &ArchiveLimits) -> Result<Self> {
        let mut builder = Builder {
            limits,
            bytes: Bytes::new(text, base),
            nodes: Vec::new(),
            open: Vec::new(),
            anchors: HashMap::new(),
            root: None,
            documents: 0,
            notes: Vec::new(),
            written: HashMap::new(),
        };
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|e| {
                Error::malformed(format!("is not YAML: {}", e.info()))
                    .within(line(e.marker().line()))
            })?;
            // What is wrong with a mapping is seen at its end, and looked for at its start.
            let at = match (&event, builder.open.last()) {
                (Event::MappingEnd | Event::SequenceEnd, Some(open)) => open.line,
                _ => span.start.line(),
            };
            builder.event(event, span).map_err(|e| e.within(line(at)))?;
        }
        let root = builder.root.ok_or_else(|| Error::malformed("is empty, expected a mapping"))?;
        let own = builder.nodes.iter().map(|n| n.kind.weight()).sum();
        let added = builder.nodes[root].expanded.saturating_sub(own);
        if added > limits.yaml_expansion {
            return Err(Error::limit(format!(
                "aliases add {added} nodes, more than the limit of {}",
                limits.yaml_expansion
            )));
        }
        let Builder { nodes, notes, written, .. } = builder;
        Ok(Self { nodes, root, notes, written })
    }
}

fn line(line: usize) -> String {
    format!("line {line}")
}

/// A list or mapping whose end has not been seen.
struct Open {
    id: NodeId,
    line: usize,
    anchor: usize,
    is_map: bool,
    children: Vec<NodeId>,
}

struct Builder<'a> {
    limits: &'a ArchiveLimits,
    bytes: Bytes<'a>,
    nodes: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, NodeId>,
    root: Option<NodeId>,
    documents: usize,
    notes: Vec<String>,
    written: HashMap<NodeId, Vec<(NodeId, NodeId)>>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<()> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Error::malformed("a second document starts, expected one"));
                }
                Ok(())
            }
            Event::Alias(anchor) => {
                let Some(&target) = self.anchors.get(&anchor) else {
                    return Err(Error::malformed("an alias stands inside what it refers to"));
                };
                let id = self.add(Kind::Alias(target), Form::Alias, &span, 0)?;
                self.nodes[id].expanded = self.nodes[target].expanded;
                self.nodes[id].height = self.nodes[target].height;
                self.child(id)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar_value(&text, style, tag.as_deref())?;
                let before = self.nodes.last().map_or(0, |n| n.span.end);
                let form = match style {
                    ScalarStyle::Plain if text.is_empty() => Form::Empty,
                    ScalarStyle::Plain => Form::Plain,
                    ScalarStyle::SingleQuoted => Form::SingleQuoted,
                    ScalarStyle::DoubleQuoted => Form::DoubleQuoted,
                    ScalarStyle::Literal | ScalarStyle::Folded => Form::Block,
                };
                let id = self.add(Kind::Scalar(value), form, &span, anchor)?;
                let node = &mut self.nodes[id];
                node.span = self.bytes.spelled(&node.span, before, style);
                if form == Form::Empty {
                    node.span.end = node.span.start;
                }
                self.child(id)
            }
            Event::SequenceStart(anchor, tag) => {
                self.sequence_tag(tag.as_deref())?;
                self.start(Kind::List(Vec::new()), &span, anchor, false)
            }
            Event::MappingStart(anchor, tag) => {
                container_tag(tag.as_deref(), "map")?;
                self.start(Kind::Map(Vec::new()), &span, anchor, true)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(&span),
        }
    }

    /// OmegaConf writes `Path` values as a tagged list of their parts; to us they are that list.
    fn sequence_tag(&mut self, tag: Option<&Tag>) -> Result<()> {
        if let Some(tag) = tag {
            let full = full_name(tag);
            let class = full
                .strip_prefix("tag:yaml.org,2002:python/object/apply:pathlib.")
                .map(|c| c.strip_prefix("_local.").unwrap_or(c));
            if let Some("Path" | "PosixPath" | "WindowsPath") = class {
                self.notes
                    .push("a pathlib path in the config is read as the list of its parts".into());
                return Ok(());
            }
        }
        container_tag(tag, "seq")
    }

    fn add(&mut self, kind: Kind, form: Form, span: &Span, anchor: usize) -> Result<NodeId> {
        let start = self.bytes.at(span.start.index());
        let span = start..self.bytes.at(span.end.index()).max(start);
        let id = self.nodes.len();
        let expanded = kind.weight();
        self.nodes.push(Node { kind, outer: start, span, form, expanded, height: 0 });
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        Ok(id)
    }

    fn start(&mut self, kind: Kind, span: &Span, anchor: usize, is_map: bool) -> Result<()> {
        // Registered under its anchor at its end, so that nothing inside can refer to it.
        let id = self.add(kind, Form::Container, span, 0)?;
        self.open.push(Open { id, line: span.start.line(), anchor, is_map, children: Vec::new() });
        self.check_depth(0)
    }

    fn end(&mut self, span: &Span) -> Result<()> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let (mut expanded, mut height) = (1_u64, 0);
        for &child in &open.children {
            expanded = expanded.saturating_add(self.nodes[child].expanded);
            height = height.max(self.nodes[child].height + 1);
        }
        let kind = if open.is_map {
            let pairs = self.pairs(&open.children)?;
            if pairs.len() * 2 != open.children.len() || pairs.iter().any(|p| p.merged) {
                let written = open.children.chunks_exact(2).map(|p| (p[0], p[1])).collect();
                self.written.insert(open.id, written);
            }
            Kind::Map(pairs)
        } else {
            Kind::List(open.children)
        };
        let end = self.bytes.at(span.end.index());
        let node = &mut self.nodes[open.id];
        node.kind = kind;
        node.span.end = end;
        node.expanded = expanded;
        node.height = height;
        if open.anchor != 0 {
            self.anchors.insert(open.anchor, open.id);
        }
        self.child(open.id)
    }

    fn child(&mut self, id: NodeId) -> Result<()> {
        self.check_depth(self.nodes[id].height)?;
        match self.open.last_mut() {
            Some(parent) => parent.children.push(id),
            None => self.root = Some(id),
        }
        Ok(())
    }

    fn check_depth(&self, height: usize) -> Result<()> {
        if self.open.len() + height > self.limits.yaml_depth {
            return Err(Error::limit(format!(
                "lists and mappings nest deeper than {}",
                self.limits.yaml_depth
            )));
        }
        Ok(())
    }

    fn follow(&self, id: NodeId) -> NodeId {
        match self.nodes[id].kind {
            Kind::Alias(target) => target,
            _ => id,
        }
    }

    /// Keys and values of a mapping, merged ones written out.
    fn pairs(&self, children: &[NodeId]) -> Result<Vec<Pair>> {
        let mut own: Vec<Pair> = Vec::new();
        let mut merged: Vec<Pair> = Vec::new();
        let mut keys: HashMap<String, usize> = HashMap::new();
        for pair in children.chunks_exact(2) {
            let (key, value) = (pair[0], pair[1]);
            let Kind::Scalar(text) = &self.nodes[self.follow(key)].kind else {
                return Err(Error::malformed("a key is a list or a mapping, expected a text"));
            };
            if self.is_merge(key, text) {
                self.merge(value, &mut merged)?;
                continue;
            }
            let key_text = distinct(text);
            if keys.contains_key(&key_text) {
                return Err(Error::malformed(format!(
                    "the key {:?} appears twice in one mapping, again in line {}",
                    value::text(text).unwrap_or_default(),
                    self.bytes.line_of(self.nodes[key].span.start)
                ))
                .hint("remove one of them: NeMo refuses the config too"));
            }
            keys.insert(key_text, own.len());
            own.push(Pair { key, value, merged: false });
        }
        if merged.is_empty() {
            return Ok(own);
        }
        // As a dict is filled: the first place, the last value; a key of the mapping itself wins.
        let mut out: Vec<Pair> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for pair in merged {
            let Kind::Scalar(text) = &self.nodes[self.follow(pair.key)].kind else { continue };
            let text = distinct(text);
            if keys.contains_key(&text) {
                continue;
            }
            match places.get(&text) {
                Some(&i) => out[i] = pair,
                None => {
                    places.insert(text, out.len());
                    out.push(pair);
                }
            }
        }
        out.extend(own);
        Ok(out)
    }

    /// `<<` merges only where it is a plain word, not `'<<'`.
    fn is_merge(&self, key: NodeId, text: &Value) -> bool {
        value::as_str(text) == Some("<<") && self.nodes[key].span.len() == 2
    }

    fn merge(&self, value: NodeId, into: &mut Vec<Pair>) -> Result<()> {
        let value = self.follow(value);
        let bad = || Error::malformed("'<<' expects a mapping or a list of mappings");
        let sources: Vec<NodeId> = match &self.nodes[value].kind {
            Kind::Map(_) => vec![value],
            // The first of a list wins, so it is filled in last.
            Kind::List(items) => items.iter().rev().map(|&i| self.follow(i)).collect(),
            _ => return Err(bad()),
        };
        for source in sources {
            let Kind::Map(pairs) = &self.nodes[source].kind else { return Err(bad()) };
            into.extend(pairs.iter().map(|p| Pair { merged: true, ..p.clone() }));
            if into.len() as u64 > self.limits.yaml_expansion {
                return Err(Error::limit(format!(
                    "merge keys add more than {} nodes",
                    self.limits.yaml_expansion
                )));
            }
        }
        Ok(())
    }
}

/// A text that differs where Python's keys do: `1` and `'1'` are two keys, `1` and `1.0` one.
fn distinct(key: &Value) -> String {
    match key {
        Value::Str(s) => format!("s{s}"),
        #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        Value::Float(f) if f.fract() == 0.0 && f.abs() < 1e15 => format!("n{}", *f as i64),
        Value::Bool(b) => format!("n{}", u8::from(*b)),
        Value::Int(i) => format!("n{i}"),
        other => format!("n{}", value::text(other).unwrap_or_default()),
    }
}

fn full_name(tag: &Tag) -> String {
    format!("{}{}", tag.handle, tag.suffix)
}

fn refused(tag: &Tag) -> Error {
    let full = full_name(tag);
    let shown = full.strip_prefix("tag:yaml.org,2002:").map_or(full.clone(), |s| format!("!!{s}"));
    Error::denied(format!("the tag {shown} asks for an object to be made, expected plain values"))
        .hint("write the value without its tag")
}

fn container_tag(tag: Option<&Tag>, kind: &str) -> Result<()> {
    match tag {
        None => Ok(()),
        Some(t) if t.is_yaml_core_schema() && t.suffix == kind => Ok(()),
        Some(t) if t.handle.is_empty() && t.suffix == "!" => Ok(()),
        Some(t) => Err(refused(t)),
    }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value> {
    match tag {
        None if style == ScalarStyle::Plain => scalar::plain(text),
        None => Ok(Value::Str(text.into())),
        Some(t) if t.is_yaml_core_schema() => match t.suffix.as_str() {
            "str" => Ok(Value::Str(text.into())),
            kind @ ("int" | "float" | "bool" | "null") => scalar::tagged(text, kind),
            _ => Err(refused(t)),
        },
        // `! text` is a text.
        Some(t) if full_name(t) == "!" => Ok(Value::Str(text.into())),
        Some(t) => Err(refused(t)),
    }
}
