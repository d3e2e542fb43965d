//! Runs the opcodes of a pickle over an arena instead of Python objects.
//!
//! Source of truth: CPython's `pickle.py` and `pickletools.py`. Every length is checked against
//! the bytes that are left before anything is allocated for it.

mod globals;
mod input;
mod read;

use ckptkit_core::hash::{HashMap, HashMapExt};
use ckptkit_core::{Error, Limits, Result};

use super::graph::{Graph, MutKind, MutRecord, Node, NodeId, Repr, Span, Wide, narrow};
use super::text;

use globals::Globals;
pub(crate) use input::Input;

/// With `shared`, equal atoms are one node. `expected` is about how many bytes the pickle has.
pub(super) fn run(input: Input<'_>, expected: u64, limits: &Limits, shared: bool) -> Result<Graph> {
    let room = usize::try_from(expected.min(input.len())).unwrap_or(0);
    let mut machine = Machine {
        input,
        opcode_at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::with_capacity(room / BYTES_A_MEMO_ENTRY),
        sparse_memo: HashMap::new(),
        memo_len: 0,
        atoms: shared.then(Atoms::new),
        globals: Globals::default(),
        limits,
        graph: Graph {
            nodes: Vec::with_capacity(room / BYTES_A_NODE),
            edges: Vec::with_capacity(room / BYTES_AN_EDGE),
            muts: Vec::with_capacity(room / BYTES_A_MUTATION),
            globals: Vec::new(),
            heap: Vec::with_capacity(room / BYTES_A_BYTE_OF_TEXT),
            root: 0,
            protocol: 0,
            consumed: 0,
        },
    };
    match machine.run() {
        Ok(()) => Ok(machine.finish()),
        Err(e) => Err(e.at(machine.opcode_at).within("pickle")),
    }
}

struct Machine<'i, 'l> {
    input: Input<'i>,
    graph: Graph,
    opcode_at: u64,
    stack: Vec<u32>,
    marks: Vec<usize>,
    memo: Vec<u32>,
    sparse_memo: HashMap<u64, u32>,
    memo_len: u64,
    atoms: Option<Atoms>,
    globals: Globals,
    limits: &'l Limits,
}

const ABSENT: u32 = u32::MAX;

/// The nodes of what is the same wherever it stands: constants, and the tuples and integers that
/// were made last.
struct Atoms {
    constants: [u32; Atoms::ZERO + Atoms::INTEGERS],
    tuples: [u32; Atoms::RECENT],
    integers: [u32; Atoms::RECENT],
}

const NO_ITEMS: Repr = Repr::Tuple(Span { start: 0, len: 0 });

impl Atoms {
    const NONE: usize = 0;
    const FALSE: usize = 1;
    const EMPTY: usize = 3;
    const ZERO: usize = 4;
    const INTEGERS: usize = 256;
    const RECENT: usize = 256;

    fn new() -> Self {
        Self {
            constants: [ABSENT; Self::ZERO + Self::INTEGERS],
            tuples: [ABSENT; Self::RECENT],
            integers: [ABSENT; Self::RECENT],
        }
    }

    const fn mix(hash: u32, part: u32) -> u32 {
        (hash ^ part).wrapping_mul(0x9E37_79B1).rotate_left(15)
    }

    /// Where what has a hash is remembered: whatever else has the same place is forgotten.
    const fn recent(hash: u32) -> usize {
        hash as usize % Self::RECENT
    }

    fn slot(repr: Repr) -> Option<usize> {
        match repr {
            Repr::None => Some(Self::NONE),
            Repr::Bool(b) => Some(Self::FALSE + usize::from(b)),
            Repr::Tuple(Span { len: 0, .. }) => Some(Self::EMPTY),
            Repr::Int(i) => {
                let i = usize::try_from(i.as_int()).ok().filter(|&i| i < Self::INTEGERS)?;
                Some(Self::ZERO + i)
            }
            _ => None,
        }
    }
}

/// Pickles of torch have so many bytes for each of these, or more: what is reserved too much is
/// never touched, and given back in the end.
const BYTES_A_NODE: usize = 5;
const BYTES_AN_EDGE: usize = 6;
const BYTES_A_MUTATION: usize = 20;
const BYTES_A_MEMO_ENTRY: usize = 8;
const BYTES_A_BYTE_OF_TEXT: usize = 4;

impl Machine<'_, '_> {
    fn run(&mut self) -> Result<()> {
        loop {
            self.opcode_at = self.input.position();
            let opcode = self.input.byte()?;
            match opcode {
                // The commonest first: what a pickle of many small objects consists of.
                0x94 => {
                    let id = self.top()?;
                    self.remember(self.memo_len, id);
                }
                b'h' => {
                    let index = u64::from(self.input.byte()?);
                    self.recall(index)?;
                }
                b'j' => {
                    let index = u64::from(u32::from_le_bytes(self.input.take()?));
                    self.recall(index)?;
                }
                0x8c => {
                    let len = u64::from(self.input.byte()?);
                    let repr = Repr::Str(self.text(len)?);
                    self.push_new(repr)?;
                }
                b'}' => self.push_new(Repr::Dict)?,
                b'R' | 0x81 => {
                    let (args, callable) = (self.pop()?, self.pop()?);
                    self.push_new(match opcode {
                        b'R' => Repr::Reduce(callable, args),
                        _ => Repr::NewObj(callable, args),
                    })?;
                }
                0x85..=0x87 => {
                    let n = usize::from(opcode) - 0x84;
                    let floor = self.marks.last().copied().unwrap_or(0);
                    if self.stack.len() < floor + n {
                        return Err(underflow());
                    }
                    self.push_tuple(self.stack.len() - n)?;
                }
                b't' => {
                    let mark = self.mark()?;
                    self.push_tuple(mark)?;
                }
                b'K' => {
                    let value = self.input.byte()?;
                    let slot = Atoms::ZERO + usize::from(value);
                    self.push_atom(slot, Repr::int(i64::from(value)))?;
                }
                b'M' => {
                    let value = i64::from(u16::from_le_bytes(self.input.take()?));
                    self.push_made(Repr::int(value))?;
                }
                b'N' => self.push_atom(Atoms::NONE, Repr::None)?,
                0x88 => self.push_atom(Atoms::FALSE + 1, Repr::Bool(true))?,
                0x89 => self.push_atom(Atoms::FALSE, Repr::Bool(false))?,
                b')' => self.push_atom(Atoms::EMPTY, NO_ITEMS)?,
                b'b' => {
                    let state = self.pop()?;
                    let to = self.top()?;
                    self.link(to, MutRecord::new(MutKind::Build, state, 1))?;
                }
                b'u' => {
                    let mark = self.mark()?;
                    self.add_from(mark, MutKind::SetItems)?;
                }
                b'.' => {
                    self.graph.root = self.pop()?;
                    self.graph.consumed =
                        usize::try_from(self.input.position()).unwrap_or(usize::MAX);
                    return Ok(());
                }
                0x80 => {
                    let protocol = self.input.byte()?;
                    if protocol > 5 {
                        return Err(Error::unsupported(format!(
                            "pickle protocol {protocol}; protocols 0 to 5 are known"
                        )));
                    }
                    self.graph.protocol = protocol;
                }
                0x95 => {
                    let len = u64::from_le_bytes(self.input.take()?);
                    self.input.check(len)?;
                }
                b'(' => {
                    if self.marks.len() >= self.limits.stack {
                        return Err(Error::limit("more marks than the limit allows"));
                    }
                    self.marks.push(self.stack.len());
                }
                b'0' => {
                    if self.marks.last() == Some(&self.stack.len()) {
                        self.marks.pop();
                    } else {
                        self.pop()?;
                    }
                }
                b'1' => {
                    self.pop_mark()?;
                }
                b'2' => {
                    let top = self.top()?;
                    self.push(top)?;
                }
                b'a' | b'e' | b's' | 0x90 => self.mutate(opcode)?,
                b'p' | b'q' | b'r' | b'g' => self.memoize(opcode)?,
                _ => {
                    let repr = self.construct(opcode)?;
                    if let Some(repr) = repr {
                        self.push_made(repr)?;
                    }
                }
            }
        }
    }

    /// The opcodes that make a new node; `None` when one pushed its node itself.
    fn construct(&mut self, opcode: u8) -> Result<Option<Repr>> {
        Ok(Some(match opcode {
            b'J' => Repr::int(i64::from(i32::from_le_bytes(self.input.take()?))),
            b'G' => Repr::float(f64::from_be_bytes(self.input.take()?)),
            b'I' | b'L' | b'F' => self.number_text(opcode)?,
            0x8a => {
                let len = u64::from(self.input.byte()?);
                self.long(len)?
            }
            0x8b => {
                let len = i32::from_le_bytes(self.input.take()?);
                let len = u64::try_from(len)
                    .map_err(|_| Error::malformed(format!("an integer of {len} bytes")))?;
                self.long(len)?
            }
            b'X' => {
                let len = u64::from(u32::from_le_bytes(self.input.take()?));
                Repr::Str(self.text(len)?)
            }
            0x8d => {
                let len = u64::from_le_bytes(self.input.take()?);
                Repr::Str(self.text(len)?)
            }
            b'B' => self.sized::<4>(Repr::Bytes)?,
            b'C' => self.sized::<1>(Repr::Bytes)?,
            0x8e => self.sized::<8>(Repr::Bytes)?,
            0x96 => self.sized::<8>(Repr::ByteArray)?,
            b'T' => {
                let Repr::Bytes(span) = self.sized::<4>(Repr::Bytes)? else { return Ok(None) };
                self.python2_string(span)
            }
            b'U' => {
                let Repr::Bytes(span) = self.sized::<1>(Repr::Bytes)? else { return Ok(None) };
                self.python2_string(span)
            }
            b'S' => {
                let span = self.decoded_line(text::quoted_string, "a quoted string")?;
                self.python2_string(span)
            }
            b'V' => Repr::Str(self.decoded_line(text::raw_unicode_escape, "escaped text")?),
            b']' => Repr::List,
            0x8f => Repr::Set,
            0x91 => {
                let mark = self.mark()?;
                Repr::FrozenSet(self.edges_from(mark)?)
            }
            b'l' | b'd' => {
                let items = self.pop_mark()?;
                let (repr, kind) = if opcode == b'l' {
                    (Repr::List, MutKind::Append)
                } else {
                    (Repr::Dict, MutKind::SetItems)
                };
                let id = self.node(repr)?;
                self.push(id)?;
                self.record(id, kind, &items)?;
                return Ok(None);
            }
            b'c' => self.global_lines()?,
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.repr(module), self.repr(name)) {
                    (Repr::Str(module), Repr::Str(name)) => self.global(module, name)?,
                    _ => return Err(Error::malformed("a global's module and name are not text")),
                }
            }
            b'i' => {
                let class = self.global_lines()?;
                let items = self.pop_mark()?;
                let class = self.node(class)?;
                self.called(class, &items)?
            }
            b'o' => {
                let items = self.pop_mark()?;
                let Some((&class, args)) = items.split_first() else {
                    return Err(Error::malformed("an object without a class"));
                };
                self.called(class, args)?
            }
            0x92 => {
                let (kwargs, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                Repr::NewObjEx(class, self.edges(&[args, kwargs])?.start)
            }
            b'P' => {
                let line = self.line()?;
                let id = self.node(Repr::Str(line))?;
                Repr::PersId(id)
            }
            b'Q' => Repr::PersId(self.pop()?),
            0x82..=0x84 => {
                return Err(Error::unsupported(
                    "an extension code (EXT), whose meaning is not in the file",
                ));
            }
            0x97 | 0x98 => {
                return Err(Error::unsupported("an out-of-band buffer, which is not in the file"));
            }
            other => {
                return Err(Error::malformed(format!("{other:#04x} is no pickle opcode"))
                    .hint("this is not a pickle, or it is damaged"));
            }
        }))
    }

    fn mutate(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b'a' => {
                let item = self.pop()?;
                let to = self.top()?;
                self.record(to, MutKind::Append, &[item])
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                let to = self.top()?;
                self.record(to, MutKind::SetItems, &[key, value])
            }
            _ => {
                let kind = if opcode == b'e' { MutKind::Append } else { MutKind::AddItems };
                let mark = self.mark()?;
                self.add_from(mark, kind)
            }
        }
    }

    /// Adds what is on the stack from `mark` up to the container below.
    #[inline]
    fn add_from(&mut self, mark: usize, kind: MutKind) -> Result<()> {
        let items = self.edges_from(mark)?;
        let to = self.top()?;
        self.changed(to, kind, items)
    }

    /// The opcodes of protocols 0 to 3 that name the memo's entry.
    fn memoize(&mut self, opcode: u8) -> Result<()> {
        let index = match opcode {
            b'q' => u64::from(self.input.byte()?),
            b'r' => u64::from(u32::from_le_bytes(self.input.take()?)),
            _ => {
                let line = self.line()?;
                let text = std::str::from_utf8(self.graph.slice(line)).unwrap_or("");
                let index = text
                    .trim()
                    .parse()
                    .map_err(|_| Error::malformed(format!("{text:?} is no memo index")))?;
                self.forget(line);
                index
            }
        };
        if opcode == b'g' {
            return self.recall(index);
        }
        let id = self.top()?;
        self.remember(index, id);
        Ok(())
    }

    /// Pushes an entry of the memo.
    #[inline(always)]
    fn recall(&mut self, index: u64) -> Result<()> {
        let dense = usize::try_from(index).ok().and_then(|i| self.memo.get(i));
        match dense {
            Some(&id) if id != ABSENT => self.push(id),
            _ => self.recall_out_of_order(index),
        }
    }

    #[cold]
    fn recall_out_of_order(&mut self, index: u64) -> Result<()> {
        let known = self.sparse_memo.get(&index).copied();
        let id = known.ok_or_else(|| {
            Error::malformed(format!("memo entry {index} is read before it is written"))
        })?;
        self.push(id)
    }

    /// Makes a node an entry of the memo.
    #[inline]
    fn remember(&mut self, index: u64, id: u32) {
        self.memo_len += 1;
        if index == self.memo.len() as u64 && self.sparse_memo.is_empty() {
            self.memo.push(id);
        } else {
            self.remember_out_of_order(index, id);
        }
    }

    #[cold]
    fn remember_out_of_order(&mut self, index: u64, id: u32) {
        // Pickles number their memo densely; an index far ahead must not size an array.
        match usize::try_from(index) {
            Ok(i) if i <= self.memo.len() + 64 => {
                if i >= self.memo.len() {
                    self.memo.resize(i + 1, ABSENT);
                }
                self.memo[i] = id;
                if !self.sparse_memo.is_empty() {
                    self.sparse_memo.remove(&index);
                }
            }
            _ => {
                self.sparse_memo.insert(index, id);
            }
        }
    }

    /// A global whose module and name are the next two lines.
    fn global_lines(&mut self) -> Result<Repr> {
        if let Some((lines, len)) = self.input.held_lines() {
            let names = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            let global = self.globals.named(names)?;
            self.input.pass(len);
            return Ok(global);
        }
        let module = self.line()?;
        let name = self.line()?;
        let global = self.global(module, name)?;
        self.forget(module);
        Ok(global)
    }

    /// A global whose module and name are text.
    fn global(&mut self, module: Span, name: Span) -> Result<Repr> {
        let names = [module, name].map(|span| self.graph.slice(span));
        self.globals.named(names)
    }

    fn called(&mut self, class: u32, args: &[u32]) -> Result<Repr> {
        let args = Repr::Tuple(self.edges(args)?);
        Ok(Repr::Reduce(class, self.node(args)?))
    }

    /// Pushes the tuple of what is on the stack from `mark` up; the last equal one again, where that
    /// is remembered.
    fn push_tuple(&mut self, mark: usize) -> Result<()> {
        let items = &self.stack[mark..];
        if items.is_empty() {
            return self.push_atom(Atoms::EMPTY, NO_ITEMS);
        }
        let Some(atoms) = &mut self.atoms else {
            let items = self.edges_from(mark)?;
            return self.push_new(Repr::Tuple(items));
        };
        let slot = Atoms::recent(items.iter().fold(0, |hash, &id| Atoms::mix(hash, id)));
        let known = atoms.tuples[slot];
        let is_known = self.graph.nodes.get(known as usize).is_some_and(|node| match node.repr {
            Repr::Tuple(span) => {
                self.graph.ids(span.start, span.len).iter().map(|id| id.0).eq(items.iter().copied())
            }
            _ => false,
        });
        if is_known {
            self.stack.truncate(mark);
            return self.push(known);
        }
        atoms.tuples[slot] = narrow(self.graph.nodes.len());
        let items = self.edges_from(mark)?;
        self.push_new(Repr::Tuple(items))
    }

    /// Pushes an integer that is no atom; the last equal one again, where that is remembered.
    fn push_int(&mut self, value: Wide) -> Result<()> {
        let repr = Repr::Int(value);
        let Some(atoms) = &mut self.atoms else { return self.push_new(repr) };
        let [low, high] = value.halves();
        let slot = Atoms::recent(Atoms::mix(Atoms::mix(0, low), high));
        let known = atoms.integers[slot];
        let is_known = self.graph.nodes.get(known as usize).is_some_and(
            |node| matches!(node.repr, Repr::Int(other) if other.halves() == value.halves()),
        );
        if is_known {
            return self.push(known);
        }
        atoms.integers[slot] = narrow(self.graph.nodes.len());
        self.push_new(repr)
    }

    fn repr(&self, id: u32) -> Repr {
        self.graph.nodes[id as usize].repr
    }

    #[cold]
    fn too_many(&self, what: &str, most: usize) -> Error {
        Error::limit(format!("more than {most} {what}"))
    }

    #[inline]
    fn node(&mut self, repr: Repr) -> Result<u32> {
        if self.graph.nodes.len() >= self.limits.nodes {
            return Err(self.too_many("objects", self.limits.nodes));
        }
        let id = narrow(self.graph.nodes.len());
        self.graph.nodes.push(Node::new(repr));
        Ok(id)
    }

    /// Pushes a node that is no atom.
    #[inline]
    fn push_new(&mut self, repr: Repr) -> Result<()> {
        let id = self.node(repr)?;
        self.push(id)
    }

    /// Pushes a node that may be an atom.
    #[inline]
    fn push_made(&mut self, repr: Repr) -> Result<()> {
        match (Atoms::slot(repr), repr) {
            (Some(slot), _) => self.push_atom(slot, repr),
            (None, Repr::Int(value)) => self.push_int(value),
            (None, _) => self.push_new(repr),
        }
    }

    /// Pushes the atom of a slot.
    #[inline]
    fn push_atom(&mut self, slot: usize, repr: Repr) -> Result<()> {
        let known = self.atoms.as_ref().map_or(ABSENT, |atoms| atoms.constants[slot]);
        if known != ABSENT {
            return self.push(known);
        }
        let id = self.node(repr)?;
        if let Some(atoms) = &mut self.atoms {
            atoms.constants[slot] = id;
        }
        self.push(id)
    }

    /// Adds a change to a node.
    #[inline]
    fn link(&mut self, to: u32, record: MutRecord) -> Result<()> {
        let constant =
            |repr| matches!(repr, Repr::None | Repr::Bool(_) | Repr::Int(_) | Repr::Tuple(_));
        if self.atoms.is_some() && constant(self.repr(to)) {
            return Err(Error::malformed("a constant is changed after it was made"));
        }
        self.graph.link(to, record)
    }

    fn edges(&mut self, ids: &[u32]) -> Result<Span> {
        self.graph.add_edges(ids.iter().map(|&id| NodeId(id)))
    }

    fn record(&mut self, to: u32, kind: MutKind, ids: &[u32]) -> Result<()> {
        let items = self.edges(ids)?;
        self.changed(to, kind, items)
    }

    #[inline]
    fn changed(&mut self, to: u32, kind: MutKind, items: Span) -> Result<()> {
        if kind == MutKind::SetItems && items.len % 2 != 0 {
            return Err(Error::malformed("a key without a value"));
        }
        if items.len == 0 {
            return Ok(());
        }
        self.link(to, MutRecord::new(kind, items.start, items.len))
    }

    #[inline]
    fn push(&mut self, id: u32) -> Result<()> {
        if self.stack.len() >= self.limits.stack {
            return Err(self.too_many("objects on the stack", self.limits.stack));
        }
        self.stack.push(id);
        Ok(())
    }

    #[inline]
    fn top(&self) -> Result<u32> {
        match self.stack.last() {
            Some(&id) if self.stack.len() > self.marks.last().copied().unwrap_or(0) => Ok(id),
            _ => Err(underflow()),
        }
    }

    #[inline]
    fn pop(&mut self) -> Result<u32> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    #[inline]
    fn mark(&mut self) -> Result<usize> {
        let mark = self.marks.pop().ok_or_else(unbegun)?;
        if mark > self.stack.len() {
            return Err(underflow());
        }
        Ok(mark)
    }

    fn pop_mark(&mut self) -> Result<Vec<u32>> {
        let mark = self.mark()?;
        Ok(self.stack.split_off(mark))
    }

    /// Moves what is on the stack from `mark` up to the edges.
    #[inline]
    fn edges_from(&mut self, mark: usize) -> Result<Span> {
        let span = self.graph.add_edges(self.stack[mark..].iter().map(|&id| NodeId(id)))?;
        self.stack.truncate(mark);
        Ok(span)
    }

    /// The graph, without room that it does not need.
    fn finish(self) -> Graph {
        let mut graph = self.graph;
        graph.globals = self.globals.into_names();
        graph.heap.shrink_to_fit();
        graph.nodes.shrink_to_fit();
        graph.edges.shrink_to_fit();
        graph.muts.shrink_to_fit();
        graph
    }
}

#[cold]
fn unbegun() -> Error {
    Error::malformed("a group of objects ends that was never begun")
}

#[cold]
fn underflow() -> Error {
    Error::malformed("an object is taken from an empty stack").hint("the pickle is damaged")
}
