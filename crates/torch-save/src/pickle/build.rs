//! Makes an object graph by hand, or changes one that was read.

use std::collections::HashMap;

use ckptkit_core::hash::{self, HashMapExt as _};
use ckptkit_core::{Error, Result};

use super::graph::{
    GlobalName, Graph, MutKind, MutRecord, NO_MUT, Node, NodeId, Repr, Span, narrow,
};
use super::node::NodeRef;
use super::node_map::NodeMap;

/// A graph in the making. Nodes are made bottom up and returned as ids; containers are filled
/// afterwards, so that they may hold themselves. What is no longer reached from the root falls
/// away when the graph is written.
///
/// ```
/// use torch_save::pickle::Builder;
///
/// # fn main() -> ckptkit_core::Result<()> {
/// let mut b = Builder::new();
/// let dict = b.dict();
/// let (key, value) = (b.str("epoch"), b.int(3));
/// b.set_items(dict, &[(key, value)]);
/// let graph = b.finish(dict)?;
/// assert_eq!(graph.root().get("epoch").and_then(|n| n.as_int()), Some(3));
/// assert_eq!(graph.to_pickle()?, b"\x80\x02}X\x05\0\0\0epochK\x03s.");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    graph: Graph,
    /// By module and name.
    globals: hash::HashMap<String, hash::HashMap<String, NodeId>>,
    /// The first thing that did not fit, told by [`Builder::finish`].
    failure: Option<Error>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// An empty graph.
    #[must_use]
    pub fn new() -> Self {
        Self { graph: Graph::none(), globals: hash::HashMap::new(), failure: None }
    }

    /// A graph that was read, with everything in it under its own id.
    pub(crate) fn of(graph: &Graph) -> Self {
        let graph = Graph { protocol: 0, consumed: 0, ..graph.clone() };
        let mut builder = Self { graph, ..Self::new() };
        for index in 0..narrow(builder.graph.globals.len()) {
            let id = builder.add(Repr::Global(index));
            let (module, name) = builder.graph.spelled(index);
            builder.globals.entry(module.to_owned()).or_default().insert(name.to_owned(), id);
        }
        builder
    }

    /// The graph whose root is `root`.
    ///
    /// # Errors
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) when more was put in than a graph
    /// can number (4 billion nodes, references or bytes of text).
    pub fn finish(mut self, root: NodeId) -> Result<Graph> {
        self.check()?;
        self.graph.root = root.0;
        Ok(self.graph)
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// The graph as it stands, whose root means nothing yet.
    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// A node, to look at.
    #[must_use]
    pub fn node(&self, id: NodeId) -> NodeRef<'_> {
        self.graph.node(id)
    }

    /// `None`.
    pub fn none(&mut self) -> NodeId {
        self.add(Repr::None)
    }

    /// `True` or `False`.
    pub fn bool(&mut self, value: bool) -> NodeId {
        self.add(Repr::Bool(value))
    }

    /// An integer.
    pub fn int(&mut self, value: i64) -> NodeId {
        self.add(Repr::int(value))
    }

    /// An integer from 0 up.
    pub fn uint(&mut self, value: u64) -> NodeId {
        match i64::try_from(value) {
            Ok(value) => self.int(value),
            Err(_) => self.big_int(&[&value.to_le_bytes()[..], &[0]].concat()),
        }
    }

    /// An integer of any size: two's complement, little-endian.
    pub fn big_int(&mut self, bytes: &[u8]) -> NodeId {
        let span = self.bytes_of(bytes);
        self.add(Repr::BigInt(span))
    }

    /// A float.
    pub fn float(&mut self, value: f64) -> NodeId {
        self.add(Repr::float(value))
    }

    /// Text.
    pub fn str(&mut self, text: &str) -> NodeId {
        self.wtf8(text.as_bytes())
    }

    /// Text in UTF-8 in which lone surrogates may occur.
    pub fn wtf8(&mut self, text: &[u8]) -> NodeId {
        let span = self.bytes_of(text);
        self.add(Repr::Str(span))
    }

    /// `bytes`.
    pub fn bytes(&mut self, bytes: &[u8]) -> NodeId {
        let span = self.bytes_of(bytes);
        self.add(Repr::Bytes(span))
    }

    /// `bytearray`.
    pub fn bytearray(&mut self, bytes: &[u8]) -> NodeId {
        let span = self.bytes_of(bytes);
        self.add(Repr::ByteArray(span))
    }

    /// A tuple.
    pub fn tuple(&mut self, items: &[NodeId]) -> NodeId {
        let span = self.edges(items);
        self.add(Repr::Tuple(span))
    }

    /// A frozenset.
    pub fn frozenset(&mut self, items: &[NodeId]) -> NodeId {
        let span = self.edges(items);
        self.add(Repr::FrozenSet(span))
    }

    /// An empty list, for [`Builder::append`].
    pub fn list(&mut self) -> NodeId {
        self.add(Repr::List)
    }

    /// An empty dict, for [`Builder::set_items`].
    pub fn dict(&mut self) -> NodeId {
        self.add(Repr::Dict)
    }

    /// An empty set, for [`Builder::add_items`].
    pub fn set(&mut self) -> NodeId {
        self.add(Repr::Set)
    }

    /// A class or function; each name becomes one node, however often it is asked for.
    pub fn global(&mut self, module: &str, name: &str) -> NodeId {
        if let Some(&id) = self.globals.get(module).and_then(|names| names.get(name)) {
            return id;
        }
        self.graph.globals.push(GlobalName::new(module, name));
        let id = self.add(Repr::Global(narrow(self.graph.globals.len() - 1)));
        self.globals.entry(module.to_owned()).or_default().insert(name.to_owned(), id);
        id
    }

    /// What Python gets by calling `callable(*args)`; `args` is a tuple.
    pub fn reduce(&mut self, callable: NodeId, args: NodeId) -> NodeId {
        self.add(Repr::Reduce(callable.0, args.0))
    }

    /// [`Builder::reduce`] of a global with these arguments.
    pub fn call(&mut self, module: &str, name: &str, args: &[NodeId]) -> NodeId {
        let (callable, args) = (self.global(module, name), self.tuple(args));
        self.reduce(callable, args)
    }

    /// What Python gets from `class.__new__(class, *args)`; `args` is a tuple.
    pub fn new_obj(&mut self, class: NodeId, args: NodeId) -> NodeId {
        self.add(Repr::NewObj(class.0, args.0))
    }

    /// As [`Builder::new_obj`], with a dict of keyword arguments.
    pub fn new_obj_ex(&mut self, class: NodeId, args: NodeId, kwargs: NodeId) -> NodeId {
        let arguments = self.edges(&[args, kwargs]);
        self.add(Repr::NewObjEx(class.0, arguments.start))
    }

    /// What the container has under an id.
    pub fn persistent(&mut self, id: NodeId) -> NodeId {
        self.add(Repr::PersId(id.0))
    }

    /// Gives what is persistent another id.
    pub(crate) fn set_persistent(&mut self, node: NodeId, id: NodeId) {
        self.graph.nodes[node.0 as usize].repr = Repr::PersId(id.0);
    }

    /// Adds items at the end of a list, or of an object that takes them.
    pub fn append(&mut self, to: NodeId, items: &[NodeId]) {
        self.change(to, MutKind::Append, items.iter().copied());
    }

    /// Sets items of a dict, or of an object that takes them.
    pub fn set_items(&mut self, to: NodeId, pairs: &[(NodeId, NodeId)]) {
        self.change(to, MutKind::SetItems, pairs.iter().flat_map(|&(k, v)| [k, v]));
    }

    /// Adds items to a set.
    pub fn add_items(&mut self, to: NodeId, items: &[NodeId]) {
        self.change(to, MutKind::AddItems, items.iter().copied());
    }

    /// Gives an object its state.
    pub fn build(&mut self, to: NodeId, state: NodeId) {
        let record = MutRecord::new(MutKind::Build, state.0, 1);
        self.link(to, record);
    }

    /// Makes `node` what `with` is, wherever it is referred to.
    pub fn replace(&mut self, node: NodeId, with: NodeId) {
        self.graph.nodes[node.0 as usize] = self.graph.nodes[with.0 as usize];
    }

    /// Makes whatever refers to a key of `to` refer to the node that it stands for there. Costs one
    /// pass over the graph.
    pub fn redirect(&mut self, to: &HashMap<NodeId, NodeId>) {
        let there = |id: NodeId| to.get(&id).copied().unwrap_or(id);
        let number = |id: &mut u32| *id = there(NodeId(*id)).0;
        for node in &mut self.graph.nodes {
            match &mut node.repr {
                Repr::Reduce(a, b) | Repr::NewObj(a, b) => [a, b].into_iter().for_each(number),
                // Its arguments are among the edges.
                Repr::NewObjEx(a, _) | Repr::PersId(a) => number(a),
                _ => {}
            }
        }
        for edge in &mut self.graph.edges {
            *edge = there(*edge);
        }
        for record in self.graph.muts.iter_mut().filter(|m| m.kind == MutKind::Build) {
            number(&mut record.start);
        }
    }

    /// Replaces the key-value pairs of a dict, or of an object with items; what else happened to
    /// it stays.
    pub fn replace_pairs(&mut self, node: NodeId, pairs: &[(NodeId, NodeId)]) {
        let flat: Vec<NodeId> = pairs.iter().flat_map(|&(k, v)| [k, v]).collect();
        self.replace_changes(node, MutKind::SetItems, &flat);
    }

    /// Replaces the items of a list, or of an object that they were appended to.
    pub fn replace_items(&mut self, node: NodeId, items: &[NodeId]) {
        self.replace_changes(node, MutKind::Append, items);
    }

    fn replace_changes(&mut self, node: NodeId, kind: MutKind, ids: &[NodeId]) {
        let records: Vec<MutRecord> = self.graph.records(node).collect();
        self.graph.nodes[node.0 as usize].last_mut = NO_MUT;
        // Items came before the state, if there is one: `OrderedDict` and its `_metadata`.
        let first = records.iter().position(|r| r.kind == kind);
        let first = first.unwrap_or_else(|| {
            records.iter().position(|r| r.kind == MutKind::Build).unwrap_or(records.len())
        });
        for record in &records[..first] {
            self.link(node, *record);
        }
        self.change(node, kind, ids.iter().copied());
        for record in records[first..].iter().filter(|r| r.kind != kind) {
            self.link(node, *record);
        }
    }

    /// Puts another node into a tuple; what is no tuple, or too short, stays as it is.
    pub(crate) fn replace_part(&mut self, tuple: NodeId, index: usize, with: NodeId) {
        if let Repr::Tuple(span) = self.graph.nodes[tuple.0 as usize].repr {
            if index < span.len as usize {
                self.graph.edges[span.start as usize + index] = with;
            }
        }
    }

    /// Copies what `root`, of another graph, reaches into this one. What is shared or cyclic stays
    /// so, also across calls that are given the same `done`: where each node of the other graph
    /// went. `instead` may put another node in a node's place; what only that one reached is then
    /// not copied.
    ///
    /// # Errors
    /// Those of `instead`.
    pub fn import(
        &mut self,
        root: NodeRef<'_>,
        done: &mut NodeMap,
        instead: &mut dyn FnMut(&mut Self, NodeRef<'_>) -> Result<Option<NodeId>>,
    ) -> Result<NodeId> {
        let mut pending = vec![root.id];
        // Nodes of the source that are to be copied, in the order in which their places were made.
        let mut new = Vec::new();
        let source = root.graph;
        while let Some(id) = pending.pop() {
            if done.get(id).is_some() {
                continue;
            }
            if let Some(other) = instead(self, source.node(id))? {
                done.insert(id, other);
                continue;
            }
            let slot = self.add(Repr::None);
            done.insert(id, slot);
            new.push(id);
            let before = pending.len();
            source.each_reference(id, &mut |child| pending.push(child));
            pending[before..].reverse();
        }
        let there = |id: NodeId| done.get(id).unwrap_or(NodeId(0));
        for id in new {
            self.copy_node(source, id, &there);
        }
        Ok(there(root.id))
    }

    fn copy_node(&mut self, source: &Graph, id: NodeId, there: &impl Fn(NodeId) -> NodeId) {
        let to = |id: u32| there(NodeId(id)).0;
        let slot = there(id);
        let node = source.nodes[id.0 as usize];
        let repr = match node.repr {
            Repr::BigInt(s) => Repr::BigInt(self.bytes_of(source.slice(s))),
            Repr::Str(s) => Repr::Str(self.bytes_of(source.slice(s))),
            Repr::Bytes(s) => Repr::Bytes(self.bytes_of(source.slice(s))),
            Repr::ByteArray(s) => Repr::ByteArray(self.bytes_of(source.slice(s))),
            Repr::Tuple(s) => Repr::Tuple(self.mapped(source, s, there)),
            Repr::FrozenSet(s) => Repr::FrozenSet(self.mapped(source, s, there)),
            Repr::Global(index) => {
                let (module, name) = source.spelled(index);
                let same = self.global(module, name);
                self.graph.nodes[same.0 as usize].repr
            }
            Repr::Reduce(c, a) => Repr::Reduce(to(c), to(a)),
            Repr::NewObj(c, a) => Repr::NewObj(to(c), to(a)),
            Repr::NewObjEx(c, arguments) => {
                let span = Span { start: arguments, len: 2 };
                Repr::NewObjEx(to(c), self.mapped(source, span, there).start)
            }
            Repr::PersId(i) => Repr::PersId(to(i)),
            atom @ (Repr::None
            | Repr::Bool(_)
            | Repr::Int(_)
            | Repr::Float(_)
            | Repr::List
            | Repr::Dict
            | Repr::Set) => atom,
        };
        self.graph.nodes[slot.0 as usize].repr = repr;
        for record in source.records(id) {
            let span = Span { start: record.start, len: record.len };
            let start = match record.kind {
                MutKind::Build => to(record.start),
                _ => self.mapped(source, span, there).start,
            };
            self.link(slot, MutRecord { start, ..record });
        }
    }

    fn mapped(&mut self, source: &Graph, span: Span, there: &impl Fn(NodeId) -> NodeId) -> Span {
        self.edges_of(source.ids(span.start, span.len).iter().map(|id| there(*id)))
    }

    fn add(&mut self, repr: Repr) -> NodeId {
        let id = narrow(self.graph.nodes.len());
        if id == u32::MAX {
            return self.fail(Error::limit("more objects than a graph can number"));
        }
        self.graph.nodes.push(Node::new(repr));
        NodeId(id)
    }

    fn fail(&mut self, error: Error) -> NodeId {
        self.failure.get_or_insert(error);
        NodeId(0)
    }

    fn bytes_of(&mut self, bytes: &[u8]) -> Span {
        let start = self.graph.heap.len();
        if u32::try_from(start + bytes.len()).is_err() {
            self.fail(Error::limit("more text than a graph can hold"));
            return Span { start: 0, len: 0 };
        }
        self.graph.heap.extend_from_slice(bytes);
        Span { start: narrow(start), len: narrow(bytes.len()) }
    }

    fn edges(&mut self, ids: &[NodeId]) -> Span {
        self.edges_of(ids.iter().copied())
    }

    fn edges_of(&mut self, ids: impl Iterator<Item = NodeId>) -> Span {
        self.graph.add_edges(ids).unwrap_or_else(|e| {
            self.fail(e);
            Span { start: 0, len: 0 }
        })
    }

    fn change(&mut self, to: NodeId, kind: MutKind, ids: impl Iterator<Item = NodeId>) {
        let span = self.edges_of(ids);
        if span.len > 0 {
            self.link(to, MutRecord::new(kind, span.start, span.len));
        }
    }

    fn link(&mut self, to: NodeId, record: MutRecord) {
        if let Err(e) = self.graph.link(to.0, record) {
            self.fail(e);
        }
    }
}
