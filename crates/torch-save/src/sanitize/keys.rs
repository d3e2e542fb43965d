//! Keys of dicts and items of sets: they must be hashed, so their plain forms are text, numbers and
//! tuples.

use std::collections::HashSet;

use ckptkit_core::Result;

use super::Change;
use super::walk::{Form, Walk};
use crate::pickle::{Kind, Mut, NodeId, NodeRef};
use crate::text;
use crate::trail::By;
use crate::weights_only::what;

/// Keys of tuples in tuples are made plain so far; deeper ones are spelled out.
const MAX_DEPTH: usize = 8;
/// What an item that is copied costs.
const ITEM_BYTES: usize = 32;

impl Walk<'_> {
    /// The plain form of a key, the key itself where it can stay; `None` where it has no form that
    /// can be hashed.
    fn plain_key(&mut self, id: NodeId, depth: usize) -> Result<Option<NodeId>> {
        if let Some(&done) = self.keys.get(&id) {
            return Ok(done);
        }
        let out = self.plain_key_within(id, depth)?;
        self.keys.insert(id, out);
        Ok(out)
    }

    fn plain_key_within(&mut self, id: NodeId, depth: usize) -> Result<Option<NodeId>> {
        let node = self.document.node(id);
        if crate::trail::is_atom(node) {
            return Ok(Some(id));
        }
        if depth > MAX_DEPTH {
            return Ok(None);
        }
        let frozen = node.class().is_some_and(|g| g.is("builtins", "frozenset"));
        let items: Option<Vec<NodeId>> = match node.kind() {
            Kind::Tuple(items) => Some(items.to_vec()),
            Kind::FrozenSet(items) => Some(items.to_vec()),
            Kind::Reduce { .. } if frozen => {
                let args = node.arguments(1);
                Some(args.iter().flat_map(|a| a.iter_items()).map(NodeRef::id).collect())
            }
            _ => None,
        };
        if let Some(items) = items {
            let was_tuple = matches!(node.kind(), Kind::Tuple(_));
            self.spend(items.len() * ITEM_BYTES)?;
            let mut plain = Vec::with_capacity(items.len());
            for &item in &items {
                match self.plain_key(item, depth + 1)? {
                    Some(item) => plain.push(item),
                    None => return Ok(None),
                }
            }
            let same = was_tuple && plain == items;
            return Ok(Some(if same { id } else { self.document.builder().tuple(&plain) }));
        }
        if self.is_key(id) {
            return Ok(Some(id));
        }
        if matches!(node_kind(self.node(id)), Shape::Mutable) {
            return Ok(None);
        }
        let form = self.form(id)?;
        if form.described { Ok(None) } else { self.plain_key(form.node, depth + 1) }
    }

    /// Gives a dict, or an object with items, keys that torch accepts.
    pub(super) fn plain_keys(&mut self, id: NodeId, at: u32) -> Result<()> {
        let node = self.document.node(id);
        let keys: Vec<NodeId> = node
            .muts()
            .flat_map(|m| if let Mut::SetItems(flat) = m { flat } else { &[] }.iter().step_by(2))
            .copied()
            .filter(|&key| !crate::trail::is_atom(node.other(key)))
            .collect();
        let mut changed = false;
        for key in keys {
            changed |= self.plain_key(key, 0)? != Some(key);
        }
        if !changed {
            return Ok(());
        }
        let pairs: Vec<(NodeId, NodeId)> =
            self.node(id).pairs().iter().map(|(k, v)| (k.id(), v.id())).collect();
        let stays = |walk: &Self, key: NodeId| walk.keys.get(&key).is_none_or(|k| *k == Some(key));
        let mut taken: HashSet<Vec<u8>> = HashSet::with_capacity(pairs.len());
        for &(key, _) in pairs.iter().filter(|(key, _)| stays(self, *key)) {
            taken.insert(self.node(key).equality().into_owned());
        }
        let mut plain = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            if stays(self, key) {
                plain.push((key, value));
                continue;
            }
            let wanted = self.keys.get(&key).copied().flatten();
            let (new, note) = self.free_key(key, wanted, &mut taken);
            let place = self.trail.step(at, By::Key(new));
            if wanted.is_none() {
                self.refuse_described(place, &self.key_class(key))?;
            }
            self.add(Change {
                path: self.trail.path(place, self.document.root()),
                count: 1,
                is_key: true,
                was: self.key_class(key),
                became: match what(self.node(new)) {
                    tuple if tuple == "tuple" => "tuple of plain items".into(),
                    other => other.into(),
                },
                note,
                described: wanted.is_none(),
            })?;
            plain.push((new, value));
        }
        self.document.builder().replace_pairs(id, &plain);
        Ok(())
    }

    fn key_class(&self, key: NodeId) -> String {
        let node = self.node(key);
        self.callee(node).unwrap_or_else(|| what(node))
    }

    /// The key that is wanted where no other one equals it, else one in words.
    fn free_key(
        &mut self,
        key: NodeId,
        wanted: Option<NodeId>,
        taken: &mut HashSet<Vec<u8>>,
    ) -> (NodeId, Option<String>) {
        if let Some(wanted) = wanted {
            if taken.insert(self.node(wanted).equality().into_owned()) {
                return (wanted, None);
            }
        }
        let mut words = text::repr(self.node(key));
        if let Some(wanted) = wanted {
            words = format!("{}({})", self.key_class(key), text::repr(self.node(wanted)));
        }
        let mut spelled = words.clone();
        let mut round = 1;
        while !taken.insert(spelled.as_bytes().to_vec()) {
            round += 1;
            spelled = format!("{words}~{round}");
        }
        let note = wanted.map(|_| "another key has its plain form".to_owned());
        (self.document.builder().str(&spelled), note)
    }

    /// A set as the call that torch accepts, of items that it accepts. One whose items cannot be
    /// hashed any more, or are not told apart, becomes a list.
    pub(super) fn plain_set(&mut self, id: NodeId, at: u32) -> Result<()> {
        let node = self.document.node(id);
        let called = matches!(node.kind(), Kind::Reduce { .. });
        let items = self.set_items(id);
        let (plain, is_set) = self.plain_items(&items)?;
        if is_set && called && plain == items {
            return Ok(());
        }
        let new = self.set_or_list(&plain, is_set);
        if !is_set || plain != items {
            let place = self.trail.path(at, self.document.root());
            let note = (!is_set).then(|| "its items cannot be told apart by a set".to_owned());
            self.add(Change {
                path: place,
                count: 1,
                is_key: false,
                was: "set".into(),
                became: if is_set { "set of plain items".into() } else { "list".into() },
                note,
                described: false,
            })?;
        }
        self.document.builder().replace(id, new);
        Ok(())
    }

    /// The form of a frozenset.
    pub(super) fn thawed(&mut self, id: NodeId) -> Result<Form> {
        let items = self.set_items(id);
        let (plain, is_set) = self.plain_items(&items)?;
        let node = self.set_or_list(&plain, is_set);
        Ok(Form::new(node, if is_set { "set" } else { "list" }))
    }

    fn set_items(&self, id: NodeId) -> Vec<NodeId> {
        let node = self.node(id);
        let of_call = node.arguments(1).into_iter().flat_map(NodeRef::iter_items);
        node.iter_items().chain(of_call).map(NodeRef::id).collect()
    }

    /// The items as keys, or, where they cannot all be keys, as they are.
    fn plain_items(&mut self, items: &[NodeId]) -> Result<(Vec<NodeId>, bool)> {
        self.spend(items.len() * ITEM_BYTES)?;
        let mut plain = Vec::with_capacity(items.len());
        let mut seen: HashSet<Vec<u8>> = HashSet::with_capacity(items.len());
        let mut changed = false;
        for &item in items {
            let Some(key) = self.plain_key(item, 0)? else {
                return Ok((items.to_vec(), false));
            };
            changed |= key != item;
            let is_new = seen.insert(self.node(key).equality().into_owned());
            if !is_new && changed {
                return Ok((items.to_vec(), false));
            }
            plain.push(key);
        }
        Ok((plain, true))
    }

    fn set_or_list(&mut self, items: &[NodeId], is_set: bool) -> NodeId {
        let b = self.document.builder();
        let list = b.list();
        b.append(list, items);
        if is_set { b.call("builtins", "set", &[list]) } else { list }
    }
}

enum Shape {
    Mutable,
    Other,
}

fn node_kind(node: NodeRef<'_>) -> Shape {
    match node.kind() {
        Kind::List | Kind::Dict | Kind::Set | Kind::ByteArray(_) => Shape::Mutable,
        _ => Shape::Other,
    }
}
