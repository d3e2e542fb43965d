//! The arena that a pickle is decoded into.
//!
//! A node is what one opcode made; edges are ids, so sharing and cycles are natural and nothing is
//! copied. What happens to an object after it was made (append, set items, build) is kept as a
//! list of mutations in stream order, on nodes of any kind, so that objects of classes nobody here
//! has heard of can be read, shown and written back. Text lives in one heap, so a node is 16 bytes.

use std::fmt;

use ckptkit_core::{Error, Limits, Result, Section};

use super::machine::{self, Input};
use super::node::NodeRef;

/// The address of a node in its [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) u32);

impl NodeId {
    /// Its position in [`Graph::nodes`], for tables beside a graph.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Bytes in the graph's heap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) len: u32,
}

/// A number of 64 bits that asks for no more alignment than an id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wide([u32; 2]);

impl Wide {
    #[allow(clippy::cast_possible_truncation, reason = "both halves are kept")]
    const fn of(bits: u64) -> Self {
        Self([bits as u32, (bits >> 32) as u32])
    }

    const fn bits(self) -> u64 {
        (self.0[1] as u64) << 32 | self.0[0] as u64
    }

    pub(super) const fn halves(self) -> [u32; 2] {
        self.0
    }

    pub(super) const fn as_int(self) -> i64 {
        self.bits() as i64
    }

    pub(super) const fn as_float(self) -> f64 {
        f64::from_bits(self.bits())
    }
}

impl Repr {
    pub(super) const fn int(value: i64) -> Self {
        Self::Int(Wide::of(value as u64))
    }

    pub(super) const fn float(value: f64) -> Self {
        Self::Float(Wide::of(value.to_bits()))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Repr {
    None,
    Bool(bool),
    Int(Wide),
    BigInt(Span),
    Float(Wide),
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
    /// The class, and where in `edges` the arguments stand: positional ones, then those by name.
    NewObjEx(u32, u32),
    PersId(u32),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) repr: Repr,
    /// The last of its changes, which are a ring: the next one after it is the first.
    pub(super) last_mut: u32,
}

impl Node {
    pub(super) const fn new(repr: Repr) -> Self {
        Self { repr, last_mut: NO_MUT }
    }

    pub(super) const fn is_changed(&self) -> bool {
        self.last_mut != NO_MUT
    }
}

const _: () = assert!(size_of::<Node>() == 16);

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

impl MutRecord {
    /// One that stands in no ring yet.
    pub(super) const fn new(kind: MutKind, start: u32, len: u32) -> Self {
        Self { kind, start, len, next: NO_MUT }
    }
}

pub(super) const NO_MUT: u32 = u32::MAX;

/// The name of a class or function: as the pickle spells it, and Python 3's where that is another.
#[derive(Clone, Debug)]
pub(super) struct GlobalName {
    pub(super) spelled: (Box<str>, Box<str>),
    python3: Option<(Box<str>, Box<str>)>,
}

impl GlobalName {
    pub(super) fn new(module: &str, name: &str) -> Self {
        let now = python3_name(module, name);
        let python3 = (!now.is(module, name)).then(|| (now.module.into(), now.name.into()));
        Self { spelled: (module.into(), name.into()), python3 }
    }
}

/// The object graph of one pickle.
#[derive(Clone, Debug)]
pub struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<NodeId>,
    pub(super) muts: Vec<MutRecord>,
    pub(super) globals: Vec<GlobalName>,
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
        let bytes = bytes.into();
        let len = bytes.len() as u64;
        check_length(len, limits)?;
        machine::run(Input::bytes(bytes, limits.pickle_bytes), len, limits, false)
    }

    /// As [`Graph::parse`], of the pickle that a section starts with, of which a window is held at a
    /// time: memory is that of the graph alone.
    ///
    /// # Errors
    /// As [`Graph::parse`], and where the section cannot be read;
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) for a section longer than a pickle
    /// may be.
    pub fn read(section: &Section, limits: &Limits) -> Result<Self> {
        Self::read_whole(section, limits, false)
    }

    /// As [`Graph::read`], of a pickle that may be a small part of its section.
    pub(crate) fn read_start(section: &Section, limits: &Limits) -> Result<Self> {
        machine::run(Input::of(section, limits.pickle_bytes), 0, limits, false)
    }

    /// As [`Graph::read`], with one node each for `None`, `True`, `False`, `()` and the integers below
    /// 256, however often they occur, and one for equal tuples and integers that follow each other
    /// closely: about half as many nodes, for a graph that is read and not changed.
    ///
    /// # Errors
    /// As [`Graph::read`]; [`Malformed`](ckptkit_core::ErrorKind::Malformed) also where a tuple, an
    /// integer or one of these constants is changed after it was made, which Python refuses.
    pub fn read_compact(section: &Section, limits: &Limits) -> Result<Self> {
        Self::read_whole(section, limits, true)
    }

    fn read_whole(section: &Section, limits: &Limits, shared: bool) -> Result<Self> {
        check_length(section.len(), limits)?;
        machine::run(Input::of(section, limits.pickle_bytes), section.len(), limits, shared)
    }

    /// The object that was pickled.
    #[must_use]
    pub fn root(&self) -> NodeRef<'_> {
        self.node(NodeId(self.root))
    }

    /// The node with an id of this graph; the root for an id of another one.
    #[must_use]
    #[inline]
    pub fn node(&self, id: NodeId) -> NodeRef<'_> {
        let id = if (id.0 as usize) < self.nodes.len() { id } else { NodeId(self.root) };
        NodeRef { graph: self, id }
    }

    /// The graph of `None`, for containers that hold no object.
    pub(crate) fn none() -> Self {
        let node = Node::new(Repr::None);
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
        self.consumed + self.heap.len()
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

    #[inline]
    pub(super) fn global(&self, index: u32) -> Global<'_> {
        let known = &self.globals[index as usize];
        let (module, name) = known.python3.as_ref().unwrap_or(&known.spelled);
        Global { module, name }
    }

    /// Module and name of a global as the pickle spells them.
    pub(super) fn spelled(&self, index: u32) -> (&str, &str) {
        let (module, name) = &self.globals[index as usize].spelled;
        (module, name)
    }

    /// Every reference of a node to another one: its parts, then what happened to it, in order.
    pub(super) fn each_reference(&self, id: NodeId, to: &mut dyn FnMut(NodeId)) {
        let node = self.nodes[id.0 as usize];
        match node.repr {
            Repr::Tuple(s) | Repr::FrozenSet(s) => {
                self.ids(s.start, s.len).iter().for_each(|id| to(*id));
            }
            Repr::Reduce(a, b) | Repr::NewObj(a, b) => {
                [a, b].map(NodeId).into_iter().for_each(&mut *to)
            }
            Repr::NewObjEx(class, arguments) => {
                to(NodeId(class));
                self.ids(arguments, 2).iter().for_each(|id| to(*id));
            }
            Repr::PersId(a) => to(NodeId(a)),
            _ => {}
        }
        for record in self.records(id) {
            match record.kind {
                MutKind::Build => to(NodeId(record.start)),
                _ => self.ids(record.start, record.len).iter().for_each(|id| to(*id)),
            }
        }
    }

    #[inline]
    pub(super) fn slice(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        self.heap.get(start..start + span.len as usize).unwrap_or_default()
    }

    /// Adds references to the end of the edges.
    #[inline]
    pub(super) fn add_edges(&mut self, ids: impl Iterator<Item = NodeId>) -> Result<Span> {
        let start = self.edges.len();
        self.edges.extend(ids);
        if u32::try_from(self.edges.len()).is_err() {
            self.edges.truncate(start);
            return Err(too_many("references"));
        }
        Ok(Span { start: narrow(start), len: narrow(self.edges.len() - start) })
    }

    /// Adds a change to the end of those of a node.
    pub(super) fn link(&mut self, to: u32, record: MutRecord) -> Result<()> {
        let index = narrow(self.muts.len());
        if index == NO_MUT {
            return Err(too_many("changes"));
        }
        let last = self.nodes[to as usize].last_mut;
        // A container that is filled in batches stays one run of edges.
        if let Some(previous) = self.muts.get_mut(last as usize) {
            if previous.kind == record.kind
                && record.kind != MutKind::Build
                && previous.start + previous.len == record.start
            {
                previous.len += record.len;
                return Ok(());
            }
        }
        let first = match self.muts.get_mut(last as usize) {
            Some(previous) => std::mem::replace(&mut previous.next, index),
            None => index,
        };
        self.muts.push(MutRecord { next: first, ..record });
        self.nodes[to as usize].last_mut = index;
        Ok(())
    }

    /// What happened to a node after it was made, in order.
    #[inline]
    pub(super) fn records(&self, id: NodeId) -> Records<'_> {
        let last = self.nodes[id.0 as usize].last_mut;
        let first = self.muts.get(last as usize).map_or(NO_MUT, |record| record.next);
        Records { muts: &self.muts, next: first, last }
    }

    /// The arguments of a [`Repr::NewObjEx`]: positional ones, those by name.
    pub(super) fn arguments(&self, start: u32) -> [NodeId; 2] {
        [self.edges[start as usize], self.edges[start as usize + 1]]
    }

    pub(super) fn ids(&self, start: u32, len: u32) -> &[NodeId] {
        &self.edges[start as usize..start as usize + len as usize]
    }
}

#[cold]
fn too_many(what: &str) -> Error {
    Error::limit(format!("more {what} than the limit allows"))
}

/// See [`Graph::records`].
#[derive(Clone)]
pub(super) struct Records<'a> {
    muts: &'a [MutRecord],
    next: u32,
    last: u32,
}

impl Iterator for Records<'_> {
    type Item = MutRecord;

    #[inline]
    fn next(&mut self) -> Option<MutRecord> {
        let record = *self.muts.get(self.next as usize)?;
        self.next = if self.next == self.last { NO_MUT } else { record.next };
        Some(record)
    }
}

/// What is numbered here is bounded by limits that fit.
pub(super) fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
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
        ("UserDict", "IterableUserDict") => ("collections", "UserDict"),
        ("UserDict" | "UserList" | "UserString", n) => ("collections", n),
        other => other,
    };
    Global { module, name }
}

fn check_length(len: u64, limits: &Limits) -> Result<()> {
    if len > limits.pickle_bytes {
        return Err(Error::limit(format!(
            "the pickle has {len} bytes, the limit is {}",
            limits.pickle_bytes
        )));
    }
    Ok(())
}
