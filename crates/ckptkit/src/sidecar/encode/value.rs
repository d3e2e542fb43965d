//! Values, each in the shortest form that says all of it.

use std::collections::HashSet;

use ckptkit_core::{Error, Result};
use torch_save::pickle::{Kind, decimal};
use torch_save::{NodeId, NodeRef};

use super::{Encoder, Members, Place};
use crate::json::base64;
use crate::sidecar::changes::{Action, Change, changes};

/// What would nest deeper moves to the table of nodes, so that the JSON never nests 100 deep.
const MAX_DEPTH: usize = 90;
/// Text, numbers and names up to this length are written as often as they occur.
const SHORT: usize = 256;
/// Integers up to this length are written in decimal, which takes the square of it to read.
const MAX_DECIMAL: usize = 64;

impl<'d> Encoder<'d> {
    /// A node, at so many open brackets.
    pub(super) fn value(&mut self, id: NodeId, depth: usize, place: Place) -> Result<()> {
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
    pub(super) fn form(
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
        crate::sidecar::NAN => ("value", "nan".into()),
        _ if value == f64::INFINITY => ("value", "inf".into()),
        _ if value == f64::NEG_INFINITY => ("value", "-inf".into()),
        bits => ("bits", format!("{bits:016x}")),
    }
}
