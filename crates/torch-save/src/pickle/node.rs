//! A node as its reader sees it: what it is, what it holds, and how it came to be.

use std::borrow::Cow;
use std::fmt;
use std::hash::BuildHasher;

use ckptkit_core::Positions;
use ckptkit_core::hash::RandomState;

use super::graph::{Global, Graph, Kind, Mut, MutKind, NodeId, Repr};

/// A node and the graph it stands in.
#[derive(Clone, Copy)]
pub struct NodeRef<'a> {
    pub(super) graph: &'a Graph,
    pub(super) id: NodeId,
}

impl<'a> NodeRef<'a> {
    /// Its address.
    #[must_use]
    #[inline]
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
    #[inline]
    pub fn other(self, id: NodeId) -> Self {
        self.graph.node(id)
    }

    /// What it is.
    #[must_use]
    #[inline(always)]
    pub fn kind(self) -> Kind<'a> {
        let g = self.graph;
        match g.nodes[self.id.0 as usize].repr {
            Repr::None => Kind::None,
            Repr::Bool(b) => Kind::Bool(b),
            Repr::Int(i) => Kind::Int(i.as_int()),
            Repr::BigInt(s) => Kind::BigInt(g.slice(s)),
            Repr::Float(f) => Kind::Float(f.as_float()),
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
            Repr::NewObjEx(class, arguments) => {
                let [args, kwargs] = g.arguments(arguments);
                Kind::NewObjEx { class: NodeId(class), args, kwargs }
            }
            Repr::PersId(id) => Kind::PersId(NodeId(id)),
        }
    }

    /// What happened to it after it was made, in order.
    #[inline]
    pub fn muts(self) -> impl Iterator<Item = Mut<'a>> {
        let g = self.graph;
        g.records(self.id).map(move |m| match m.kind {
            MutKind::Append => Mut::Append(g.ids(m.start, m.len)),
            MutKind::SetItems => Mut::SetItems(g.ids(m.start, m.len)),
            MutKind::AddItems => Mut::AddItems(g.ids(m.start, m.len)),
            MutKind::Build => Mut::Build(NodeId(m.start)),
        })
    }

    /// Whether it is `None`.
    #[must_use]
    pub fn is_none(self) -> bool {
        matches!(self.graph.nodes[self.id.0 as usize].repr, Repr::None)
    }

    /// Its text, where it is text without lone surrogates; also of bytes that are such a text, which
    /// is how files from Python 2 that were saved again spell their names.
    #[must_use]
    #[inline]
    pub fn as_str(self) -> Option<&'a str> {
        let text = match self.kind() {
            Kind::Str(text) => text,
            Kind::Bytes(text) if !text.is_empty() => text,
            _ => return None,
        };
        std::str::from_utf8(text).ok()
    }

    /// Its number, where it is an integer that fits, or a bool.
    #[must_use]
    #[inline]
    pub fn as_int(self) -> Option<i64> {
        match self.kind() {
            Kind::Int(i) => Some(i),
            Kind::Bool(b) => Some(i64::from(b)),
            _ => None,
        }
    }

    /// Its number, where it is an integer from 0 up.
    #[must_use]
    #[inline]
    pub fn as_u64(self) -> Option<u64> {
        match self.kind() {
            Kind::Int(i) => u64::try_from(i).ok(),
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

    /// As [`NodeRef::as_global`], with the module as the pickle spells it: `__builtin__` may be
    /// what Python 3 calls `builtins`.
    #[must_use]
    pub fn spelled_global(self) -> Option<Global<'a>> {
        match self.graph.nodes[self.id.0 as usize].repr {
            Repr::Global(index) => {
                let (module, name) = self.graph.spelled(index);
                Some(Global { module, name })
            }
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

    /// The first items of a tuple or such, in `room`: what a construction is given.
    pub(crate) fn first_items(self, room: &mut [Self]) -> &[Self] {
        let mut count = 0;
        if let Some(ids) = self.plain_tuple() {
            count = ids.len().min(room.len());
            for (place, &id) in room.iter_mut().zip(ids) {
                *place = self.other(id);
            }
        } else {
            for (place, item) in room.iter_mut().zip(self.iter_items()) {
                *place = item;
                count += 1;
            }
        }
        &room[..count]
    }

    /// The items of a tuple that nothing happened to, as to nearly all.
    #[inline]
    pub(crate) fn plain_tuple(self) -> Option<&'a [NodeId]> {
        match self.kind() {
            Kind::Tuple(ids) if self.muts().next().is_none() => Some(ids),
            _ => None,
        }
    }

    /// Key-value pairs in the order in which they were set, repeated keys included.
    pub(crate) fn iter_pairs(self) -> impl Iterator<Item = (Self, Self)> + 'a {
        self.muts()
            .flat_map(|m| if let Mut::SetItems(flat) = m { flat } else { &[] }.chunks_exact(2))
            .map(move |pair| (self.other(pair[0]), self.other(pair[1])))
    }

    /// As a key of a path: the text where it is text, else what Python prints.
    #[must_use]
    pub fn as_key(self) -> ckptkit_core::Key {
        crate::text::key(self)
    }

    /// The key-value pairs of a dict, or of an object of any class that items were set on. As in
    /// Python, of equal keys the last value counts and the first position.
    #[must_use]
    pub fn pairs(self) -> Vec<(Self, Self)> {
        let count = self.iter_pairs().count();
        let mut out: Vec<(Self, Self)> = Vec::with_capacity(count);
        let mut seen = Positions::with_capacity(count);
        let hasher = RandomState::default();
        for (key, value) in self.iter_pairs() {
            let (equality, next) = (key.equality(), u32::try_from(out.len()).unwrap_or(u32::MAX));
            let known = seen.insert(hasher.hash_one(&equality), next, |other| {
                out[other as usize].0.equality() == equality
            });
            match known {
                Some(other) => out[other as usize].1 = value,
                None => out.push((key, value)),
            }
        }
        out
    }

    /// Bytes that are equal for keys that Python holds to be equal (`1 == True == 1.0`).
    pub(crate) fn equality(self) -> Cow<'a, [u8]> {
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

    /// A key as paths spell it: its text, or as Python prints it.
    #[must_use]
    pub fn key_text(self) -> String {
        ckptkit_core::join(&[crate::text::key(self)])
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
