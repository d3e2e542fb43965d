//! The object graph as a pickle again, in the words that torch.save uses: protocol 2, which every
//! loader takes, `weights_only` included.
//!
//! Source of truth: CPython's `pickle.py` (`_Pickler`, `save_reduce`), `torch/_weights_only_unpickler.py`.
//! What protocol 2 has no opcode for (bytes, sets, keyword arguments) is spelled as CPython spells
//! it there. Only what is referred to twice is put into the memo.

use std::collections::HashMap;

use ckptkit_core::{Error, Result};

use super::graph::{Graph, MutKind, Node, NodeId, Repr, Span, narrow};
use super::node::NodeRef;
use super::opcodes::{Opcodes, length};
use super::paged::Paged;

/// Items that are set or appended at once, as CPython does.
const BATCH: usize = 1000;
const ABSENT: u32 = u32::MAX;

/// A storage as a persistent id spells it.
pub(crate) struct StorageId<'g> {
    /// Module and name of its class.
    pub(crate) class: (&'static str, &'static str),
    pub(crate) key: String,
    pub(crate) location: &'g str,
    pub(crate) numel: u64,
}

/// Says how a persistent id is spelled, in the order in which they are written.
pub(crate) type Spell<'s, 'g> = dyn FnMut(NodeRef<'g>) -> Result<StorageId<'g>> + 's;

impl Graph {
    /// The object as a pickle of protocol 2.
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for a graph in which an
    /// immutable object is a part of itself, which no pickle says;
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) for text of 4 GiB and more.
    pub fn to_pickle(&self) -> Result<Vec<u8>> {
        emit(self, Root::Node(self.root().id()), None)
    }
}

/// What is written of a graph.
#[derive(Clone, Copy)]
pub(crate) enum Root<'a> {
    Node(NodeId),
    /// A dict of these pairs, which is no node itself.
    Dict(&'a [(NodeId, NodeId)]),
}

/// Persistent ids stay as they are where nothing spells them.
pub(crate) fn emit<'g>(
    graph: &'g Graph,
    root: Root<'_>,
    spell: Option<&mut Spell<'_, 'g>>,
) -> Result<Vec<u8>> {
    let mut emitter = Emitter {
        graph,
        states: count_references(graph, root, spell.is_some()),
        spell,
        out: Opcodes::new(),
        words: HashMap::new(),
        runs: Vec::new(),
        tasks: Vec::new(),
    };
    match root {
        Root::Node(id) => emitter.tasks.push(Task::Visit(id.0)),
        Root::Dict(pairs) => emitter.dict(pairs),
    }
    emitter.run()?;
    emitter.out.push(b'.');
    Ok(emitter.out.out)
}

/// How often what the root reaches is referred to. Where an object that cannot change holds itself
/// by way of one that can, it is begun twice, and whatever lies on the way is met again: then
/// everything counts as referred to often. Persistent ids that are `spelled` refer to nothing.
fn count_references(graph: &Graph, root: Root<'_>, spelled: bool) -> Paged<State> {
    let mut states = Paged::new(State { references: 0, memo: ABSENT, entered: 0, open: false });
    let mut knotted = false;
    // A node, and whether its references have been followed.
    let mut pending = match root {
        Root::Node(id) => vec![(id, false)],
        Root::Dict(pairs) => pairs.iter().flat_map(|&(k, v)| [(k, false), (v, false)]).collect(),
    };
    while let Some((id, done)) = pending.pop() {
        let state = states.get_mut(id.index());
        if done {
            state.open = false;
            continue;
        }
        state.references = state.references.saturating_add(1);
        if state.references == 1 {
            state.open = true;
            pending.push((id, true));
            let before = pending.len();
            graph.each_reference(id, &mut |child| pending.push((child, false)));
            if spelled && matches!(graph.nodes[id.index()].repr, Repr::PersId(_)) {
                // Its id comes first.
                pending.remove(before);
            }
        } else if state.open {
            let repr = graph.nodes[id.index()].repr;
            knotted |= !matches!(repr, Repr::List | Repr::Dict | Repr::Set);
        }
    }
    if knotted {
        for state in states.iter_mut().filter(|state| state.references > 0) {
            state.references = state.references.saturating_add(1);
        }
    }
    states
}

/// What is known of a node while a pickle is written.
#[derive(Clone, Copy)]
struct State {
    references: u32,
    /// Where it stands in the memo.
    memo: u32,
    /// How often it was begun and is not complete.
    entered: u8,
    /// While references are counted: whether what it refers to is being followed.
    open: bool,
}

#[derive(Clone, Copy)]
enum Task {
    /// Puts a node on the stack.
    Visit(u32),
    /// Makes it of its parts, which are there.
    Construct(u32),
    /// What happened to the object on top, from the record `at` to `last`.
    Muts {
        at: u32,
        last: u32,
    },
    /// The rest of the items of a change.
    Items(MutKind, Span),
    Op(u8),
}

struct Emitter<'s, 'e, 'g> {
    graph: &'g Graph,
    spell: Option<&'e mut Spell<'s, 'g>>,
    out: Opcodes,
    /// Of what the root reaches.
    states: Paged<State>,
    /// Memo entries of text and names that no node stands for.
    words: HashMap<Vec<u8>, u32>,
    /// Items that came in several goes, as if they stood behind the graph's edges.
    runs: Vec<NodeId>,
    tasks: Vec<Task>,
}

impl Emitter<'_, '_, '_> {
    fn run(&mut self) -> Result<()> {
        while let Some(task) = self.tasks.pop() {
            match task {
                Task::Visit(id) => self.visit(id)?,
                Task::Construct(id) => self.construct(id),
                Task::Muts { at, last } => self.muts(at, last),
                Task::Items(kind, span) => self.items(kind, span),
                Task::Op(op) => self.out.push(op),
            }
        }
        Ok(())
    }

    /// Starts a dict that is referred to by nothing.
    fn dict(&mut self, pairs: &[(NodeId, NodeId)]) {
        self.out.push(b'}');
        for batch in pairs.chunks(BATCH).rev() {
            let one = batch.len() == 1;
            self.tasks.push(Task::Op(if one { b's' } else { b'u' }));
            for (key, value) in batch.iter().rev() {
                self.tasks.extend([Task::Visit(value.0), Task::Visit(key.0)]);
            }
            if !one {
                self.tasks.push(Task::Op(b'('));
            }
        }
    }

    fn visit(&mut self, id: u32) -> Result<()> {
        let at = id as usize;
        let memo = self.states.get(at).memo;
        if memo != ABSENT {
            self.out.get(memo);
            return Ok(());
        }
        let node = self.graph.nodes[at];
        if !self.has_parts(id, node.repr) {
            self.changes_later(node);
        }
        match node.repr {
            Repr::None => self.out.push(b'N'),
            Repr::Bool(b) => self.out.bool(b),
            Repr::Int(i) => self.out.int(i.as_int()),
            Repr::BigInt(s) => self.out.big_int(self.graph.slice(s))?,
            Repr::Float(f) => self.out.float(f.as_float()),
            Repr::Str(s) => {
                self.out.text(self.graph.slice(s))?;
                self.memoize(id);
            }
            Repr::Bytes(s) => {
                self.bytes(self.graph.slice(s))?;
                self.memoize(id);
            }
            Repr::ByteArray(s) => {
                self.word(b"c__builtin__\nbytearray\n");
                self.bytes(self.graph.slice(s))?;
                self.out.extend(b"\x85R");
                self.memoize(id);
            }
            Repr::Global(index) => {
                self.global(index)?;
                self.memoize(id);
            }
            Repr::PersId(inner) => self.persistent(id, inner)?,
            Repr::List => {
                self.out.push(b']');
                self.memoize(id);
            }
            Repr::Dict => {
                self.out.push(b'}');
                self.memoize(id);
            }
            Repr::Set if !self.has_parts(id, node.repr) => {
                self.out.push(0x8f);
                self.memoize(id);
            }
            _ => self.begin(id, node.repr)?,
        }
        Ok(())
    }

    /// Whether a node is made of others, which come first.
    fn has_parts(&self, id: u32, repr: Repr) -> bool {
        match repr {
            Repr::Tuple(_)
            | Repr::FrozenSet(_)
            | Repr::Reduce(..)
            | Repr::NewObj(..)
            | Repr::NewObjEx(..) => true,
            Repr::Set => self.is_simple_set(id),
            _ => false,
        }
    }

    /// Starts a node whose parts come first.
    fn begin(&mut self, id: u32, repr: Repr) -> Result<()> {
        let entered = &mut self.states.get_mut(id as usize).entered;
        // A part that is filled with the whole begins it again, once: by then the part is there.
        if *entered == 2 {
            return Err(Error::invalid("an object that cannot change is a part of itself"));
        }
        *entered += 1;
        self.tasks.push(Task::Construct(id));
        match repr {
            Repr::Tuple(span) => {
                if span.len > 3 {
                    self.out.push(b'(');
                }
                self.visit_later(span);
            }
            Repr::FrozenSet(span) => {
                self.word(b"c__builtin__\nfrozenset\n");
                self.out.push(b']');
                self.tasks.push(Task::Items(MutKind::Append, span));
            }
            Repr::Set => {
                self.word(b"c__builtin__\nset\n");
                self.out.push(b']');
                let last = self.graph.nodes[id as usize].last_mut;
                if let Some(record) = self.graph.muts.get(last as usize) {
                    let (items, _) = self.joined(record.next, last);
                    self.tasks.push(Task::Items(MutKind::Append, items));
                }
            }
            Repr::Reduce(callable, args) | Repr::NewObj(callable, args) => {
                self.tasks.extend([Task::Visit(args), Task::Visit(callable)]);
            }
            Repr::NewObjEx(class, arguments) => {
                let [NodeId(args), NodeId(kwargs)] = self.graph.arguments(arguments);
                // Protocol 2 has no opcode for it; this function does the same.
                self.word(b"ccopy_reg\n__newobj_ex__\n");
                self.tasks.extend([Task::Visit(kwargs), Task::Visit(args), Task::Visit(class)]);
            }
            _ => {}
        }
        Ok(())
    }

    fn construct(&mut self, id: u32) {
        let at = id as usize;
        let node = self.graph.nodes[at];
        let state = self.states.get_mut(at);
        state.entered -= 1;
        let memo = state.memo;
        if memo != ABSENT {
            // One of its parts made it already.
            let parts: &[u8] = match node.repr {
                Repr::Tuple(span) if span.len > 3 => b"1",
                Repr::Tuple(span) => &b"000"[..span.len as usize],
                Repr::NewObjEx(..) => b"0000",
                _ => b"00",
            };
            self.out.extend(parts);
            self.out.get(memo);
            return;
        }
        let ops: &[u8] = match node.repr {
            Repr::Tuple(span) => match span.len {
                0 => b")",
                1 => b"\x85",
                2 => b"\x86",
                3 => b"\x87",
                _ => b"t",
            },
            Repr::FrozenSet(_) | Repr::Set => b"\x85R",
            Repr::NewObj(..) => b"\x81",
            Repr::NewObjEx(..) => b"\x87R",
            _ => b"R",
        };
        self.out.extend(ops);
        if !matches!(node.repr, Repr::Tuple(Span { len: 0, .. })) {
            self.memoize(id);
        }
        if !matches!(node.repr, Repr::Set) {
            self.changes_later(node);
        }
    }

    fn changes_later(&mut self, node: Node) {
        let last = node.last_mut;
        if let Some(record) = self.graph.muts.get(last as usize) {
            self.tasks.push(Task::Muts { at: record.next, last });
        }
    }

    fn muts(&mut self, at: u32, last: u32) {
        let Some(&record) = self.graph.muts.get(at as usize) else { return };
        let (items, end) = match record.kind {
            MutKind::Build => (Span { start: 0, len: 0 }, at),
            _ if at == last => (Span { start: record.start, len: record.len }, at),
            _ => self.joined(at, last),
        };
        if end != last {
            self.tasks.push(Task::Muts { at: self.graph.muts[end as usize].next, last });
        }
        match record.kind {
            MutKind::Build => self.tasks.extend([Task::Op(b'b'), Task::Visit(record.start)]),
            kind => self.tasks.push(Task::Items(kind, items)),
        }
    }

    /// The items of a change and of those of its kind that follow it, as one run: how many went in
    /// together says nothing of the object. Gives the last of them.
    fn joined(&mut self, mut at: u32, last: u32) -> (Span, u32) {
        let graph = self.graph;
        let record = graph.muts[at as usize];
        let mut items = Span { start: record.start, len: record.len };
        while at != last {
            let next_at = graph.muts[at as usize].next;
            let next = graph.muts[next_at as usize];
            let end = graph.edges.len() + self.runs.len();
            // No graph is that large; as several runs it is as right.
            let fits = u32::try_from(end + (items.len + next.len) as usize).is_ok();
            if next.kind != record.kind || !fits {
                break;
            }
            if items.start as usize >= graph.edges.len() {
                items.len += next.len;
            } else if items.start + items.len == next.start {
                items.len += next.len;
                at = next_at;
                continue;
            } else {
                self.runs.extend_from_slice(graph.ids(items.start, items.len));
                items = Span { start: narrow(end), len: items.len + next.len };
            }
            self.runs.extend_from_slice(graph.ids(next.start, next.len));
            at = next_at;
        }
        (items, at)
    }

    fn items(&mut self, kind: MutKind, span: Span) {
        let (unit, one, many): (usize, Option<u8>, u8) = match kind {
            MutKind::Append => (1, Some(b'a'), b'e'),
            MutKind::SetItems => (2, Some(b's'), b'u'),
            _ => (1, None, 0x90),
        };
        let n = (span.len as usize).min(BATCH * unit);
        if n == 0 {
            return;
        }
        let batch = Span { start: span.start, len: narrow(n) };
        self.tasks.push(Task::Items(
            kind,
            Span { start: span.start + batch.len, len: span.len - batch.len },
        ));
        match one {
            Some(op) if n == unit => self.tasks.push(Task::Op(op)),
            _ => {
                self.out.push(b'(');
                self.tasks.push(Task::Op(many));
            }
        }
        self.visit_later(batch);
    }

    fn visit_later(&mut self, span: Span) {
        let edges = self.graph.edges.len();
        let ids = match (span.start as usize).checked_sub(edges) {
            Some(start) if span.len > 0 => &self.runs[start..start + span.len as usize],
            _ => self.graph.ids(span.start, span.len),
        };
        self.tasks.extend(ids.iter().rev().map(|id| Task::Visit(id.0)));
    }

    /// Whether a set can be made by a call, of items that cannot lead back to it.
    fn is_simple_set(&self, id: u32) -> bool {
        let mut pending = Vec::new();
        let graph = self.graph;
        for m in graph.records(NodeId(id)) {
            match m.kind {
                MutKind::AddItems => pending.extend_from_slice(graph.ids(m.start, m.len)),
                _ => return false,
            }
        }
        let mut budget = 4 * pending.len() + 64;
        while let Some(item) = pending.pop() {
            budget = budget.saturating_sub(1);
            if budget == 0 || graph.nodes[item.0 as usize].is_changed() {
                return false;
            }
            graph.each_reference(item, &mut |child| pending.push(child));
        }
        true
    }

    fn persistent(&mut self, id: u32, inner: u32) -> Result<()> {
        let Some(spell) = &mut self.spell else {
            self.tasks.extend([Task::Op(b'Q'), Task::Visit(inner)]);
            return Ok(());
        };
        let storage = spell(self.graph.node(NodeId(id)))?;
        self.out.push(b'(');
        self.word_text(b"storage")?;
        let (module, name) = storage.class;
        self.word(format!("c{module}\n{name}\n").as_bytes());
        self.out.text(storage.key.as_bytes())?;
        self.word_text(storage.location.as_bytes())?;
        self.out.uint(storage.numel);
        self.out.extend(b"tQ");
        Ok(())
    }

    fn global(&mut self, index: u32) -> Result<()> {
        let (module, name) = self.graph.spelled(index);
        let module = if module == "builtins" { "__builtin__" } else { module };
        if module.contains('\n') || name.contains('\n') {
            self.out.text(module.as_bytes())?;
            self.out.text(name.as_bytes())?;
            self.out.push(0x93);
            return Ok(());
        }
        // Protocol 2 looks a name up in its module and no deeper.
        let mut parts = name.split('.');
        let first = parts.next().unwrap_or_default();
        let inner: Vec<&str> = parts.collect();
        for _ in &inner {
            self.word(b"c__builtin__\ngetattr\n");
        }
        self.out.extend(format!("c{module}\n{first}\n").as_bytes());
        for part in inner {
            self.out.text(part.as_bytes())?;
            self.out.extend(b"\x86R");
        }
        Ok(())
    }

    /// A name that is written again and again.
    fn word(&mut self, spelled: &[u8]) {
        if let Some(&memo) = self.words.get(spelled) {
            return self.out.get(memo);
        }
        self.out.extend(spelled);
        let memo = self.out.put();
        self.words.insert(spelled.to_vec(), memo);
    }

    fn word_text(&mut self, text: &[u8]) -> Result<()> {
        let len = length(text)?;
        self.word(&[&b"X"[..], &len, text].concat());
        Ok(())
    }

    /// `_codecs.encode(text, 'latin1')`, where each character of the text is a byte.
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            self.word(b"c__builtin__\nbytes\n");
            self.out.extend(b")R");
            return Ok(());
        }
        self.word(b"c_codecs\nencode\n");
        let text: String = bytes.iter().map(|&b| char::from(b)).collect();
        self.out.text(text.as_bytes())?;
        self.word_text(b"latin1")?;
        self.out.extend(b"\x86R");
        Ok(())
    }

    fn memoize(&mut self, id: u32) {
        let state = self.states.get_mut(id as usize);
        if state.references > 1 {
            state.memo = self.out.put();
        }
    }
}
