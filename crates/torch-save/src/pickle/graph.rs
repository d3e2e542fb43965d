//! The arena that a pickle is decoded into.
//!
//! A node is what one opcode made; edges are ids, so sharing and cycles are natural and nothing is
//! copied. What happens to an object after it was made (append, set items, build) is kept as a
//! list of mutations in stream order, on nodes of any kind, so that objects of classes nobody here
//! has heard of can be read, shown and written back. Text lives in one heap, so a node is 24 bytes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use ckptkit_core::{Limits, Result};

use super::machine::{self, Failure};

/// The address of a node in its [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) u32);

/// Bytes in the graph's heap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Repr {
    None,
    Bool(bool),
    Int(i64),
    BigInt(Span),
    Float(f64),
    Str(Span),
    Bytes(Span),
    ByteArray(Span),
    /// A run of `edges`.
    Tuple(Span),
    List,
    Dict,
    Set,
    FrozenSet(Span),
    /// An index into `globals`.
    Global(u32),
    Reduce(u32, u32),
    NewObj(u32, u32),
    NewObjEx(u32, u32, u32),
    PersId(u32),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) repr: Repr,
    pub(super) first_mut: u32,
    pub(super) last_mut: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MutKind {
    Append,
    SetItems,
    AddItems,
    Build,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct MutRecord {
    pub(super) kind: MutKind,
    pub(super) start: u32,
    pub(super) len: u32,
    pub(super) next: u32,
}

pub(super) const NO_MUT: u32 = u32::MAX;

/// The object graph of one pickle.
#[derive(Clone, Debug)]
pub struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<NodeId>,
    pub(super) muts: Vec<MutRecord>,
    pub(super) globals: Vec<(Span, Span)>,
    pub(super) heap: Vec<u8>,
    pub(super) root: u32,
    pub(super) protocol: u8,
    pub(super) consumed: usize,
}

/// A class or function that a pickle names: data here, never resolved. The module is in Python 3's
/// spelling (`__builtin__` is `builtins`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Global<'a> {
    /// The module, dotted.
    pub module: &'a str,
    /// The qualified name in it.
    pub name: &'a str,
}

impl Global<'_> {
    /// Whether it is `module.name`.
    #[must_use]
    pub fn is(self, module: &str, name: &str) -> bool {
        self.module == module && self.name == name
    }
}

impl fmt::Display for Global<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.module, self.name)
    }
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kind<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer that fits.
    Int(i64),
    /// Any other integer: two's complement, little-endian; see [`decimal`](super::decimal).
    BigInt(&'a [u8]),
    /// A float, NaN payload kept.
    Float(f64),
    /// Text: UTF-8 in which lone surrogates may occur.
    Str(&'a [u8]),
    /// `bytes`.
    Bytes(&'a [u8]),
    /// `bytearray`.
    ByteArray(&'a [u8]),
    /// A tuple's items.
    Tuple(&'a [NodeId]),
    /// A list; its items came with [`Mut::Append`].
    List,
    /// A dict; its items came with [`Mut::SetItems`].
    Dict,
    /// A set; its items came with [`Mut::AddItems`].
    Set,
    /// A frozenset's items.
    FrozenSet(&'a [NodeId]),
    /// A class or function.
    Global(Global<'a>),
    /// What Python would get by calling `callable(*args)`.
    Reduce {
        /// What would be called.
        callable: NodeId,
        /// A tuple.
        args: NodeId,
    },
    /// What Python would get from `class.__new__(class, *args)`.
    NewObj {
        /// The class.
        class: NodeId,
        /// A tuple.
        args: NodeId,
    },
    /// As `NewObj`, with keyword arguments.
    NewObjEx {
        /// The class.
        class: NodeId,
        /// A tuple.
        args: NodeId,
        /// A dict.
        kwargs: NodeId,
    },
    /// What the file's container has under this id: a storage, a module.
    PersId(NodeId),
}

/// What happened to an object after it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mut<'a> {
    /// Items added at the end.
    Append(&'a [NodeId]),
    /// Key, value, key, value.
    SetItems(&'a [NodeId]),
    /// Items added to a set.
    AddItems(&'a [NodeId]),
    /// Its state (`__setstate__`, or attributes).
    Build(NodeId),
}

impl Graph {
    /// Decodes the pickle that `bytes` starts with, of protocol 0 to 5; what follows its STOP is
    /// left alone (see [`Graph::consumed`]). Costs time and memory linear in the pickle.
    ///
    /// # Errors
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) with the offset of the opcode that cannot
    /// be; [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded);
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for opcodes whose meaning lies outside
    /// the file (EXT, out-of-band buffers).
    pub fn parse(bytes: impl Into<Vec<u8>>, limits: &Limits) -> Result<Self> {
        machine::run(bytes.into(), limits).map_err(|(e, _)| e)
    }

    /// As [`Graph::parse`], of bytes that may be only the start of a pickle: beside the error of an
    /// end that came early stands how many bytes from the start it would take to go on.
    pub(crate) fn parse_start(bytes: Vec<u8>, limits: &Limits) -> Result<Self, Failure> {
        machine::run(bytes, limits)
    }

    /// The object that was pickled.
    #[must_use]
    pub fn root(&self) -> NodeRef<'_> {
        self.node(NodeId(self.root))
    }

    /// The node with an id of this graph; the root for an id of another one.
    #[must_use]
    pub fn node(&self, id: NodeId) -> NodeRef<'_> {
        let id = if (id.0 as usize) < self.nodes.len() { id } else { NodeId(self.root) };
        NodeRef { graph: self, id }
    }

    /// The graph of `None`, for containers that hold no object.
    pub(crate) fn none() -> Self {
        let node = Node { repr: Repr::None, first_mut: NO_MUT, last_mut: NO_MUT };
        Self {
            nodes: vec![node],
            edges: Vec::new(),
            muts: Vec::new(),
            globals: Vec::new(),
            heap: Vec::new(),
            root: 0,
            protocol: 0,
            consumed: 0,
        }
    }

    /// Every node, in the order in which the pickle made them.
    pub fn nodes(&self) -> impl Iterator<Item = NodeRef<'_>> {
        (0..self.nodes.len()).map(|i| self.node(NodeId(u32::try_from(i).unwrap_or(0))))
    }

    /// Bytes of the pickle and of what was decoded from it.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.heap.len()
    }

    /// References between nodes.
    pub(crate) fn edge_count(&self) -> usize {
        self.edges.len()
    }

    /// The number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: there is always a root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The protocol that the pickle claims; 0 or 1 claim nothing and give 0.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Bytes from the start to the end of STOP.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// Every class and function that the pickle names, each once, in order of first appearance.
    pub fn globals(&self) -> impl Iterator<Item = Global<'_>> {
        (0..self.globals.len()).map(|i| self.global(u32::try_from(i).unwrap_or(0)))
    }

    fn global(&self, index: u32) -> Global<'_> {
        let (module, name) = self.globals[index as usize];
        python3_name(self.text(module), self.text(name))
    }

    fn text(&self, span: Span) -> &str {
        // Names of globals are checked to be UTF-8 when they are interned.
        std::str::from_utf8(self.slice(span)).unwrap_or("")
    }

    pub(super) fn slice(&self, span: Span) -> &[u8] {
        &self.heap[span.start as usize..span.start as usize + span.len as usize]
    }

    fn ids(&self, start: u32, len: u32) -> &[NodeId] {
        &self.edges[start as usize..start as usize + len as usize]
    }
}

/// Python 3's name for what Python 2 called otherwise.
fn python3_name<'a>(module: &'a str, name: &'a str) -> Global<'a> {
    let (module, name) = match (module, name) {
        ("__builtin__", "unicode") => ("builtins", "str"),
        ("__builtin__", "long") => ("builtins", "int"),
        ("__builtin__", "xrange") => ("builtins", "range"),
        ("__builtin__", "unichr") => ("builtins", "chr"),
        ("__builtin__" | "exceptions", n) => ("builtins", n),
        ("copy_reg", n) => ("copyreg", n),
        ("cPickle", n) => ("pickle", n),
        ("cStringIO" | "StringIO", n) => ("io", n),
        ("UserDict" | "UserList" | "UserString", n) => ("collections", n),
        other => other,
    };
    Global { module, name }
}

/// A node and the graph it stands in.
#[derive(Clone, Copy)]
pub struct NodeRef<'a> {
    graph: &'a Graph,
    id: NodeId,
}

impl<'a> NodeRef<'a> {
    /// Its address.
    #[must_use]
    pub fn id(self) -> NodeId {
        self.id
    }

    /// The graph.
    #[must_use]
    pub fn graph(self) -> &'a Graph {
        self.graph
    }

    /// Another node of the same graph.
    #[must_use]
    pub fn other(self, id: NodeId) -> Self {
        self.graph.node(id)
    }

    /// What it is.
    #[must_use]
    pub fn kind(self) -> Kind<'a> {
        let g = self.graph;
        match g.nodes[self.id.0 as usize].repr {
            Repr::None => Kind::None,
            Repr::Bool(b) => Kind::Bool(b),
            Repr::Int(i) => Kind::Int(i),
            Repr::BigInt(s) => Kind::BigInt(g.slice(s)),
            Repr::Float(f) => Kind::Float(f),
            Repr::Str(s) => Kind::Str(g.slice(s)),
            Repr::Bytes(s) => Kind::Bytes(g.slice(s)),
            Repr::ByteArray(s) => Kind::ByteArray(g.slice(s)),
            Repr::Tuple(s) => Kind::Tuple(g.ids(s.start, s.len)),
            Repr::List => Kind::List,
            Repr::Dict => Kind::Dict,
            Repr::Set => Kind::Set,
            Repr::FrozenSet(s) => Kind::FrozenSet(g.ids(s.start, s.len)),
            Repr::Global(i) => Kind::Global(g.global(i)),
            Repr::Reduce(callable, args) => {
                Kind::Reduce { callable: NodeId(callable), args: NodeId(args) }
            }
            Repr::NewObj(class, args) => Kind::NewObj { class: NodeId(class), args: NodeId(args) },
            Repr::NewObjEx(class, args, kwargs) => {
                Kind::NewObjEx { class: NodeId(class), args: NodeId(args), kwargs: NodeId(kwargs) }
            }
            Repr::PersId(id) => Kind::PersId(NodeId(id)),
        }
    }

    /// What happened to it after it was made, in order.
    pub fn muts(self) -> impl Iterator<Item = Mut<'a>> {
        let g = self.graph;
        let mut next = g.nodes[self.id.0 as usize].first_mut;
        std::iter::from_fn(move || {
            if next == NO_MUT {
                return None;
            }
            let m = g.muts[next as usize];
            next = m.next;
            Some(match m.kind {
                MutKind::Append => Mut::Append(g.ids(m.start, m.len)),
                MutKind::SetItems => Mut::SetItems(g.ids(m.start, m.len)),
                MutKind::AddItems => Mut::AddItems(g.ids(m.start, m.len)),
                MutKind::Build => Mut::Build(NodeId(m.start)),
            })
        })
    }

    /// Whether it is `None`.
    #[must_use]
    pub fn is_none(self) -> bool {
        matches!(self.kind(), Kind::None)
    }

    /// Its text, where it is text without lone surrogates; also of bytes that are such a text, which
    /// is how files from Python 2 that were saved again spell their names.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        match self.kind() {
            Kind::Str(s) | Kind::Bytes(s)
                if !s.is_empty() || matches!(self.kind(), Kind::Str(_)) =>
            {
                std::str::from_utf8(s).ok()
            }
            _ => None,
        }
    }

    /// Its number, where it is an integer that fits, or a bool.
    #[must_use]
    pub fn as_int(self) -> Option<i64> {
        match self.kind() {
            Kind::Int(i) => Some(i),
            Kind::Bool(b) => Some(i64::from(b)),
            _ => None,
        }
    }

    /// Its number, where it is an integer from 0 up.
    #[must_use]
    pub fn as_u64(self) -> Option<u64> {
        match self.kind() {
            Kind::BigInt(bytes) => match bytes {
                [low @ .., 0] if low.len() == 8 => Some(u64::from_le_bytes(low.try_into().ok()?)),
                _ => None,
            },
            _ => u64::try_from(self.as_int()?).ok(),
        }
    }

    /// Its number as a float, where it is a number.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        reason = "a caller that asks an integer for a float wants the nearest one"
    )]
    pub fn as_f64(self) -> Option<f64> {
        match self.kind() {
            Kind::Float(f) => Some(f),
            _ => self.as_int().map(|i| i as f64),
        }
    }

    /// Its truth value, where it is a bool.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match self.kind() {
            Kind::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// The class or function it names.
    #[must_use]
    pub fn as_global(self) -> Option<Global<'a>> {
        match self.kind() {
            Kind::Global(g) => Some(g),
            _ => None,
        }
    }

    /// The items of a list, tuple, set or frozenset; those appended to an object of any class.
    #[must_use]
    pub fn items(self) -> Vec<Self> {
        self.iter_items().collect()
    }

    /// As [`NodeRef::items`], without collecting them.
    pub fn iter_items(self) -> impl Iterator<Item = Self> + 'a {
        let made: &[NodeId] = match self.kind() {
            Kind::Tuple(items) | Kind::FrozenSet(items) => items,
            _ => &[],
        };
        let added = self.muts().flat_map(|m| match m {
            Mut::Append(more) | Mut::AddItems(more) => more,
            _ => &[],
        });
        made.iter().chain(added).map(move |&id| self.other(id))
    }

    /// Key-value pairs in the order in which they were set, repeated keys included.
    pub(crate) fn iter_pairs(self) -> impl Iterator<Item = (Self, Self)> + 'a {
        self.muts()
            .flat_map(|m| if let Mut::SetItems(flat) = m { flat } else { &[] }.chunks_exact(2))
            .map(move |pair| (self.other(pair[0]), self.other(pair[1])))
    }

    /// The key-value pairs of a dict, or of an object of any class that items were set on. As in
    /// Python, of equal keys the last value counts and the first position.
    #[must_use]
    pub fn pairs(self) -> Vec<(Self, Self)> {
        let mut out: Vec<(Self, Self)> = Vec::new();
        let mut seen: HashMap<Cow<'a, [u8]>, usize> = HashMap::new();
        for (key, value) in self.iter_pairs() {
            match seen.entry(key.equality()) {
                Entry::Occupied(slot) => out[*slot.get()].1 = value,
                Entry::Vacant(slot) => {
                    slot.insert(out.len());
                    out.push((key, value));
                }
            }
        }
        out
    }

    /// Bytes that are equal for keys that Python holds to be equal (`1 == True == 1.0`).
    fn equality(self) -> Cow<'a, [u8]> {
        let mut out = Vec::new();
        let mut pending = vec![self];
        let tagged = |out: &mut Vec<u8>, tag: u8, bytes: &[u8]| {
            out.push(tag);
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        // Text is by far the most common key, and needs no tag: every other one starts with a byte
        // that UTF-8 does not contain.
        if let Kind::Str(s) = self.kind() {
            return Cow::Borrowed(s);
        }
        // A tuple of tuples that share could be huge: past a few hundred keys are told apart by id.
        let mut budget = 512;
        while let Some(node) = pending.pop() {
            budget -= 1;
            if budget == 0 {
                tagged(&mut out, 0xFF, &self.id.0.to_le_bytes());
                break;
            }
            match node.kind() {
                Kind::None => out.push(0xF8),
                Kind::Bool(b) => tagged(&mut out, 0xF9, &i64::from(b).to_le_bytes()),
                Kind::Int(i) => tagged(&mut out, 0xF9, &i.to_le_bytes()),
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_precision_loss,
                    reason = "compared back"
                )]
                Kind::Float(f) if (f as i64) as f64 == f && f.abs() < 9e18 => {
                    tagged(&mut out, 0xF9, &(f as i64).to_le_bytes())
                }
                // No NaN equals another one; Python finds one that is the same object.
                Kind::Float(f) if f.is_nan() => tagged(&mut out, 0xFF, &node.id.0.to_le_bytes()),
                Kind::Float(f) => tagged(&mut out, 0xFA, &f.to_bits().to_le_bytes()),
                Kind::BigInt(b) => tagged(&mut out, 0xFB, b),
                Kind::Str(s) => tagged(&mut out, 0xFC, s),
                Kind::Bytes(b) => tagged(&mut out, 0xFD, b),
                Kind::Tuple(items) => {
                    tagged(&mut out, 0xFE, &(items.len() as u64).to_le_bytes());
                    pending.extend(items.iter().rev().map(|&id| self.other(id)));
                }
                Kind::Global(g) => tagged(&mut out, 0xF7, g.to_string().as_bytes()),
                _ => tagged(&mut out, 0xFF, &node.id.0.to_le_bytes()),
            }
        }
        Cow::Owned(out)
    }

    /// The value under a text key of a dict-like object.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Self> {
        let is_key = |node: Self| matches!(node.kind(), Kind::Str(s) | Kind::Bytes(s) if s == key.as_bytes());
        self.iter_pairs().filter(|&(k, _)| is_key(k)).last().map(|(_, value)| value)
    }

    /// The callable and the positional arguments of an object that Python would get by a call
    /// (`REDUCE`, `NEWOBJ`, `INST`, …).
    #[must_use]
    pub fn call(self) -> Option<(Self, Vec<Self>)> {
        let (callable, args) = self.callable()?;
        Some((callable, args.items()))
    }

    /// As [`NodeRef::call`], with the arguments as the one node that they are.
    pub(crate) fn callable(self) -> Option<(Self, Self)> {
        match self.kind() {
            Kind::Reduce { callable, args } => Some((self.other(callable), self.other(args))),
            Kind::NewObj { class, args } | Kind::NewObjEx { class, args, .. } => {
                Some((self.other(class), self.other(args)))
            }
            _ => None,
        }
    }

    /// The first `most` positional arguments of the call.
    pub(crate) fn arguments(self, most: usize) -> Vec<Self> {
        self.callable().map(|(_, args)| args.iter_items().take(most).collect()).unwrap_or_default()
    }

    /// The class of an object, or the function that made it.
    #[must_use]
    pub fn class(self) -> Option<Global<'a>> {
        self.callable()?.0.as_global()
    }

    /// The object's state, the last one that was set.
    #[must_use]
    pub fn state(self) -> Option<Self> {
        self.muts()
            .filter_map(|m| if let Mut::Build(s) = m { Some(self.other(s)) } else { None })
            .last()
    }

    /// The attributes that the object's state holds: those of a state that is a dict, and of one
    /// that is `(dict or None, slots or None)`.
    #[must_use]
    pub fn attributes(self) -> Vec<(Self, Self)> {
        let mut out = Vec::new();
        for m in self.muts() {
            let Mut::Build(state) = m else { continue };
            let state = self.other(state);
            match state.kind() {
                Kind::Dict => out.extend(state.pairs()),
                Kind::Tuple(&[dict, slots]) => {
                    for part in [dict, slots].map(|id| self.other(id)) {
                        if matches!(part.kind(), Kind::Dict) {
                            out.extend(part.pairs());
                        }
                    }
                }
                _ => {}
            }
        }
        out
    }

    /// One attribute by its name.
    #[must_use]
    pub fn attribute(self, name: &str) -> Option<Self> {
        let mut found = None;
        for m in self.muts() {
            let Mut::Build(state) = m else { continue };
            let state = self.other(state);
            found = match state.kind() {
                Kind::Dict => state.get(name),
                Kind::Tuple(&[dict, slots]) => {
                    [slots, dict].map(|id| self.other(id)).iter().find_map(|part| part.get(name))
                }
                _ => None,
            }
            .or(found);
        }
        found
    }
}

impl fmt::Debug for NodeRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {:?}", self.id.0, self.kind())
    }
}
