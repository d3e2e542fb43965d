//! From an object graph to JSON.

use std::collections::{HashMap, HashSet, VecDeque};

use ckptkit_core::{Error, Limits, Result, ResultExt, Tensor};
use torch_save::pickle::{Kind, decimal};
use torch_save::{Document, Graph, NodeId, NodeRef};

use super::changes::{Action, Change, changes, parts};
use super::cover::Covers;
use super::exact::Exact;
use super::{Encoded, FORMAT, Header, VERSION};
use crate::json::base64;

/// What would nest deeper moves to the table of nodes, so that the JSON never nests 100 deep.
const MAX_DEPTH: usize = 90;
/// Text, numbers and names up to this length are written as often as they occur.
const SHORT: usize = 256;
/// Integers up to this length are written in decimal.
const MAX_DECIMAL: usize = 4 << 10;

/// See [`super::encode`].
pub(super) fn encode(
    document: &Document,
    names: &[(NodeId, String)],
    header: &Header,
    limits: &Limits,
) -> Result<Encoded> {
    let graph = document.root().graph();
    let covers = Covers::find(document, names)?;
    let mut encoder = Encoder {
        document,
        exact: Exact { document, covers: &covers, references: count_references(graph, document) },
        ids: HashMap::new(),
        deferred: VecDeque::new(),
        rows: HashMap::new(),
        stored: Vec::new(),
        out: Vec::new(),
        limit: usize::try_from(limits.pickle_bytes).unwrap_or(usize::MAX),
    };
    encoder.header(header);
    encoder.out.extend_from_slice(b",\"root\":");
    encoder.value(document.root().id(), 1, Place::Value)?;
    encoder.nodes()?;
    let taken: HashSet<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
    let (extra, tensors) = encoder.storages(&covers, &taken)?;
    encoder.out.push(b'}');
    encoder.check_size()?;
    Ok(Encoded { json: super::indent::indent(&encoder.out), extra, tensors })
}

/// How often what the root reaches is referred to, by the node's index.
fn count_references(graph: &Graph, document: &Document) -> Vec<u32> {
    let mut counts = vec![0_u32; graph.len()];
    let mut pending = vec![document.root().id()];
    while let Some(id) = pending.pop() {
        let count = &mut counts[id.index()];
        *count = count.saturating_add(1);
        if *count > 1 {
            continue;
        }
        let node = graph.node(id);
        pending.extend_from_slice(&parts(node));
        for change in changes(node) {
            pending.extend_from_slice(&change.nodes);
        }
    }
    counts
}

/// Where a value stands, which decides what needs no more than itself to be said.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Value,
    /// The arguments of a call: an array is a tuple.
    Arguments,
    /// What is called: text is a name.
    Callable,
}

struct Encoder<'d> {
    document: &'d Document,
    exact: Exact<'d>,
    /// Of what was met that may be met again.
    ids: HashMap<NodeId, u64>,
    /// What goes to the table of nodes.
    deferred: VecDeque<NodeId>,
    /// From the number of a storage to its row.
    rows: HashMap<usize, usize>,
    /// A node of each row's storage.
    stored: Vec<NodeId>,
    out: Vec<u8>,
    limit: usize,
}

/// An object in the making: whether it has members already.
struct Members(bool);

impl<'d> Encoder<'d> {
    fn header(&mut self, header: &Header) {
        let mut members = Members(false);
        self.out.push(b'{');
        self.text_member(&mut members, "format", FORMAT);
        self.key(&mut members, "version");
        self.write(VERSION);
        self.text_member(&mut members, "writer", &header.writer);
        self.text_member(&mut members, "source_format", &header.source_format);
        match &header.weights_key {
            Some(key) => self.text_member(&mut members, "weights_key", key),
            None => {
                self.key(&mut members, "weights_key");
                self.out.extend_from_slice(b"null");
            }
        }
    }

    /// What was too deep, and what is too deep in it.
    fn nodes(&mut self) -> Result<()> {
        let mut before = "\"nodes\":[";
        while let Some(node) = self.deferred.pop_front() {
            self.out.push(b',');
            self.out.extend_from_slice(before.as_bytes());
            before = "";
            let id = self.ids.get(&node).copied();
            self.form(self.document.node(node), id, 2, Place::Value)?;
        }
        if before.is_empty() {
            self.out.push(b']');
        }
        Ok(())
    }

    /// The table of storages. Gives the tensors to be written in addition, and the names of all
    /// that are needed.
    fn storages(
        &mut self,
        covers: &Covers,
        taken: &HashSet<&str>,
    ) -> Result<(Vec<Tensor>, Vec<String>)> {
        let (mut extra, mut needed) = (Vec::new(), Vec::new());
        self.out.extend_from_slice(b",\"storages\":[");
        for (row, node) in std::mem::take(&mut self.stored).into_iter().enumerate() {
            let Some(storage) = self.document.storage(node) else { continue };
            storage.byte_len().within(|| format!("storage {row}"))?;
            if row > 0 {
                self.out.push(b',');
            }
            let mut members = Members(false);
            self.out.push(b'{');
            self.key(&mut members, "dtype");
            match storage.dtype() {
                Some(dtype) => self.text(dtype.name()),
                None => self.out.extend_from_slice(b"null"),
            }
            self.key(&mut members, "numel");
            self.write(storage.numel());
            self.text_member(&mut members, "location", storage.location());
            let from = needed.len();
            match covers.of(storage.index()) {
                Some(pieces) => needed.extend(pieces.iter().map(|piece| piece.name.clone())),
                None => {
                    let mut name = format!("__storage__.{row}");
                    while taken.contains(name.as_str()) {
                        name.insert(0, '_');
                    }
                    let foreign = storage.dtype().is_some_and(|d| d.safetensors_name().is_none());
                    extra.push(storage.tensor(&name, foreign).within(|| format!("storage {row}"))?);
                    needed.push(name);
                }
            }
            match &needed[from..] {
                [one] => self.text_member(&mut members, "tensor", one),
                many => {
                    self.key(&mut members, "tensors");
                    for (i, name) in many.iter().enumerate() {
                        self.out.push(if i == 0 { b'[' } else { b',' });
                        self.text(name);
                    }
                    self.out.push(b']');
                }
            }
            self.out.push(b'}');
            self.check_size()?;
        }
        self.out.push(b']');
        Ok((extra, needed))
    }

    /// A node, at so many open brackets.
    fn value(&mut self, id: NodeId, depth: usize, place: Place) -> Result<()> {
        self.check_size()?;
        if self.ids.contains_key(&id) {
            return self.reference(id);
        }
        let node = self.document.node(id);
        let shared = self.exact.references(id) > 1 && !is_atom(node);
        if depth >= MAX_DEPTH && !is_leaf(node) {
            self.number(id);
            self.deferred.push_back(id);
            return self.reference(id);
        }
        let number = shared.then(|| self.number(id));
        self.form(node, number, depth, place)
    }

    fn number(&mut self, id: NodeId) -> u64 {
        let next = self.ids.len() as u64;
        *self.ids.entry(id).or_insert(next)
    }

    fn reference(&mut self, id: NodeId) -> Result<()> {
        self.out.extend_from_slice(b"{\"$ref\":");
        let number = self.number(id);
        self.write(number);
        self.out.push(b'}');
        Ok(())
    }

    /// The node itself, with its number where it has one.
    fn form(
        &mut self,
        node: NodeRef<'d>,
        number: Option<u64>,
        depth: usize,
        place: Place,
    ) -> Result<()> {
        let changes = changes(node);
        let bare = number.is_none() && changes.is_empty();
        if bare && self.plain(node, place) {
            return Ok(());
        }
        match (node.kind(), &changes[..]) {
            (Kind::Tuple(items), []) if bare && place == Place::Arguments => {
                return self.items(items, depth);
            }
            (Kind::List, [] | [Change { action: Action::Append, .. }])
                if number.is_none() && place != Place::Arguments =>
            {
                return self.items(nodes(changes.first()), depth);
            }
            (Kind::Dict, [] | [Change { action: Action::Set, .. }])
                if self.has_plain_keys(nodes(changes.first())) =>
            {
                return self.members(number, nodes(changes.first()), depth);
            }
            _ => {}
        }
        let mut members = Members(false);
        self.out.push(b'{');
        if let Some(number) = number {
            self.key(&mut members, "$id");
            self.write(number);
        }
        let rest = self.described(&mut members, node, &changes, depth)?;
        self.changes(&mut members, rest, depth)?;
        self.out.push(b'}');
        Ok(())
    }

    /// Writes what JSON holds as it is; `false` for everything else.
    fn plain(&mut self, node: NodeRef<'_>, place: Place) -> bool {
        match node.kind() {
            Kind::None => self.out.extend_from_slice(b"null"),
            Kind::Bool(b) => self.write(b),
            Kind::Int(i) => self.write(i),
            // The shortest text that is read to the same bits; it has a point or an exponent.
            Kind::Float(f) if f.is_finite() => {
                self.out.extend_from_slice(format!("{f:?}").as_bytes())
            }
            Kind::Str(s) if place != Place::Callable => match std::str::from_utf8(s) {
                Ok(s) => self.text(s),
                Err(_) => return false,
            },
            Kind::Global(_) if place == Place::Callable => match joined(node) {
                Some(name) => self.text(&name),
                None => return false,
            },
            _ => return false,
        }
        true
    }

    /// The members that say what a node is; gives the changes that they do not tell.
    fn described<'c>(
        &mut self,
        members: &mut Members,
        node: NodeRef<'d>,
        changes: &'c [Change<'d>],
        depth: usize,
    ) -> Result<&'c [Change<'d>]> {
        if let Some(tensor) = self.exact.tensor(node.id()) {
            self.row(tensor.storage);
            let form = if tensor.parameter { "$parameter" } else { "$tensor" };
            self.text_member(members, form, tensor.name);
            if tensor.parameter || tensor.requires_grad {
                self.key(members, "requires_grad");
                self.write(tensor.requires_grad);
            }
            return Ok(changes);
        }
        let (called, callable, args, kwargs) = match node.kind() {
            Kind::Reduce { callable, args } => ("$call", callable, args, None),
            Kind::NewObj { class, args } => ("$new", class, args, None),
            Kind::NewObjEx { class, args, kwargs } => ("$new", class, args, Some(kwargs)),
            Kind::PersId(_) if !changes.is_empty() => {
                return Err(Error::unsupported("a storage that has a state of its own"));
            }
            Kind::PersId(_) => {
                let row = self.row(node.id());
                let row = row.ok_or_else(|| {
                    Error::invalid("a persistent id is no storage of this document")
                })?;
                self.key(members, "$storage");
                self.write(row);
                return Ok(changes);
            }
            _ => return self.typed(members, node, changes, depth),
        };
        self.key(members, called);
        self.value(callable, depth + 1, Place::Callable)?;
        self.key(members, "args");
        self.value(args, depth + 1, Place::Arguments)?;
        if let Some(kwargs) = kwargs {
            self.key(members, "kwargs");
            self.value(kwargs, depth + 1, Place::Value)?;
        }
        Ok(changes)
    }

    /// `$type` and the value of everything that is neither a call nor a tensor.
    fn typed<'c>(
        &mut self,
        members: &mut Members,
        node: NodeRef<'d>,
        changes: &'c [Change<'d>],
        depth: usize,
    ) -> Result<&'c [Change<'d>]> {
        let coded = |bytes: &[u8]| ("base64", base64(bytes));
        let (name, (member, value)) = match node.kind() {
            Kind::None => {
                self.text_member(members, "$type", "none");
                return Ok(changes);
            }
            Kind::Bool(b) => {
                self.text_member(members, "$type", "bool");
                self.key(members, "value");
                self.write(b);
                return Ok(changes);
            }
            Kind::Int(i) => ("int", ("value", i.to_string())),
            Kind::BigInt(bytes) if bytes.len() <= MAX_DECIMAL => ("int", ("value", decimal(bytes))),
            Kind::BigInt(bytes) => ("int", coded(bytes)),
            Kind::Float(f) => ("float", float(f)),
            Kind::Str(s) => match std::str::from_utf8(s) {
                Ok(s) => ("str", ("value", s.to_owned())),
                Err(_) => ("str", coded(s)),
            },
            Kind::Bytes(bytes) => ("bytes", coded(bytes)),
            Kind::ByteArray(bytes) => ("bytearray", coded(bytes)),
            Kind::Global(_) => match (joined(node), node.spelled_global()) {
                (Some(name), _) => ("global", ("value", name)),
                (None, spelled) => {
                    let (module, name) = spelled.map_or(("", ""), |g| (g.module, g.name));
                    self.text_member(members, "$type", "global");
                    self.text_member(members, "module", module);
                    self.text_member(members, "name", name);
                    return Ok(changes);
                }
            },
            Kind::Tuple(items) | Kind::FrozenSet(items) => {
                let tuple = matches!(node.kind(), Kind::Tuple(_));
                self.text_member(members, "$type", if tuple { "tuple" } else { "frozenset" });
                self.key(members, "value");
                self.items(items, depth + 1)?;
                return Ok(changes);
            }
            Kind::List | Kind::Dict | Kind::Set => {
                let (name, filled) = match node.kind() {
                    Kind::List => ("list", Action::Append),
                    Kind::Dict => ("dict", Action::Set),
                    _ => ("set", Action::Add),
                };
                self.text_member(members, "$type", name);
                self.key(members, "value");
                let (first, rest) = match changes.split_first() {
                    Some((first, rest)) if first.action == filled => (Some(first), rest),
                    _ => (None, changes),
                };
                match filled {
                    Action::Set => self.pairs(nodes(first), depth + 1)?,
                    _ => self.items(nodes(first), depth + 1)?,
                }
                return Ok(rest);
            }
            other => {
                return Err(Error::unsupported(format!("an object of this kind: {other:?}")));
            }
        };
        self.text_member(members, "$type", name);
        self.text_member(members, member, &value);
        Ok(changes)
    }

    /// What happened to an object after it was made: one member each where there is at most one of
    /// every kind, in the order in which they usually come; a list of them elsewhere.
    fn changes(
        &mut self,
        members: &mut Members,
        changes: &[Change<'d>],
        depth: usize,
    ) -> Result<()> {
        if changes.windows(2).all(|pair| pair[0].action < pair[1].action) {
            return changes.iter().try_for_each(|change| self.change(members, change, depth));
        }
        self.key(members, "then");
        for (i, change) in changes.iter().enumerate() {
            self.out.extend_from_slice(if i == 0 { b"[{" } else { b",{" });
            self.change(&mut Members(false), change, depth + 2)?;
            self.out.push(b'}');
        }
        self.out.push(b']');
        Ok(())
    }

    fn change(&mut self, members: &mut Members, change: &Change<'d>, depth: usize) -> Result<()> {
        self.key(members, change.action.name());
        match change.action {
            Action::Append | Action::Add => self.items(&change.nodes, depth + 1),
            Action::Set if self.has_plain_keys(&change.nodes) => {
                self.members(None, &change.nodes, depth + 1)
            }
            Action::Set => self.pairs(&change.nodes, depth + 1),
            Action::Build => change
                .nodes
                .iter()
                .try_for_each(|state| self.value(*state, depth + 1, Place::Value)),
        }
    }

    fn items(&mut self, items: &[NodeId], depth: usize) -> Result<()> {
        self.out.push(b'[');
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            self.value(*item, depth + 1, Place::Value)?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// Key, value, key, value.
    fn pairs(&mut self, flat: &[NodeId], depth: usize) -> Result<()> {
        self.out.push(b'[');
        for (i, pair) in flat.chunks_exact(2).enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            self.items(pair, depth + 1)?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn members(&mut self, number: Option<u64>, flat: &[NodeId], depth: usize) -> Result<()> {
        let mut members = Members(false);
        self.out.push(b'{');
        if let Some(number) = number {
            self.key(&mut members, "$id");
            self.write(number);
        }
        for pair in flat.chunks_exact(2) {
            let key = self.document.node(pair[0]).as_str().unwrap_or_default();
            self.key(&mut members, key);
            self.value(pair[1], depth + 1, Place::Value)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    /// Whether an object of JSON can hold the pairs.
    fn has_plain_keys(&self, flat: &[NodeId]) -> bool {
        let mut seen = HashSet::with_capacity(flat.len() / 2);
        flat.chunks_exact(2).all(|pair| {
            let key = self.document.node(pair[0]);
            let Kind::Str(text) = key.kind() else { return false };
            let alone = self.exact.references(key.id()) <= 1 && !self.ids.contains_key(&key.id());
            key.muts().next().is_none()
                && (alone || is_atom(key))
                && !text.starts_with(b"$")
                && std::str::from_utf8(text).is_ok()
                && seen.insert(text)
        })
    }

    /// The row of a storage.
    fn row(&mut self, node: NodeId) -> Option<usize> {
        let storage = self.document.storage(node)?;
        let next = self.stored.len();
        let row = *self.rows.entry(storage.index()).or_insert(next);
        if row == next {
            self.stored.push(node);
        }
        Some(row)
    }

    fn check_size(&self) -> Result<()> {
        if self.out.len() <= self.limit {
            return Ok(());
        }
        Err(Error::limit(format!("the sidecar would have more than {} bytes", self.limit))
            .hint("raise the limit on pickles if the checkpoint is to be trusted"))
    }

    fn key(&mut self, members: &mut Members, key: &str) {
        if members.0 {
            self.out.push(b',');
        }
        members.0 = true;
        self.text(key);
        self.out.push(b':');
    }

    fn text_member(&mut self, members: &mut Members, key: &str, text: &str) {
        self.key(members, key);
        self.text(text);
    }

    fn text(&mut self, text: &str) {
        self.write_json(text);
    }

    fn write(&mut self, value: impl std::fmt::Display) {
        self.out.extend_from_slice(value.to_string().as_bytes());
    }

    fn write_json(&mut self, text: &str) {
        serde_json::to_writer(&mut self.out, text).expect("memory takes every write");
    }
}

fn nodes<'c>(change: Option<&'c Change<'_>>) -> &'c [NodeId] {
    change.map_or(&[], |change| &change.nodes)
}

/// Whether it makes no difference how often a node is there: values that are short and cannot
/// change.
fn is_atom(node: NodeRef<'_>) -> bool {
    let short = |len: usize| len <= SHORT;
    node.muts().next().is_none()
        && match node.kind() {
            Kind::None | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::PersId(_) => true,
            Kind::BigInt(bytes) | Kind::Str(bytes) => short(bytes.len()),
            Kind::Global(global) => short(global.module.len() + global.name.len()),
            Kind::Tuple(items) => items.is_empty(),
            _ => false,
        }
}

/// Whether it holds no other node.
fn is_leaf(node: NodeRef<'_>) -> bool {
    node.muts().next().is_none()
        && match node.kind() {
            Kind::Tuple(items) | Kind::FrozenSet(items) => items.is_empty(),
            Kind::Reduce { .. } | Kind::NewObj { .. } | Kind::NewObjEx { .. } => false,
            _ => true,
        }
}

/// `module:name`, where that can be taken apart again.
fn joined(node: NodeRef<'_>) -> Option<String> {
    let global = node.spelled_global()?;
    (!global.module.contains(':')).then(|| format!("{}:{}", global.module, global.name))
}

/// The member and the text for a float that JSON does not hold.
fn float(value: f64) -> (&'static str, String) {
    match value.to_bits() {
        super::NAN => ("value", "nan".into()),
        _ if value == f64::INFINITY => ("value", "inf".into()),
        _ if value == f64::NEG_INFINITY => ("value", "-inf".into()),
        bits => ("bits", format!("{bits:016x}")),
    }
}
