//! From an object graph to JSON.

mod value;

use std::collections::{HashMap, HashSet, VecDeque};

use ckptkit_core::{Error, Limits, Result, ResultExt, Tensor};
use torch_save::{Document, Graph, NodeId};

use super::changes::{changes, parts};
use super::cover::Covers;
use super::exact::Exact;
use super::{Encoded, FORMAT, Header, VERSION};

/// See [`super::encode`].
pub(super) fn encode(
    document: &Document,
    names: &[(String, NodeId)],
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
    let taken: HashSet<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
    let (extra, tensors) = encoder.storages(&covers, &taken)?;
    encoder.out.push(b'}');
    encoder.check_size()?;
    let Encoder { out, .. } = encoder;
    // The text is there twice for a moment; what it was made with is not needed any more.
    drop((covers, taken));
    Ok(Encoded { json: super::indent::indent(&out), extra, tensors })
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
        if !header.written_with.is_empty() {
            self.key(&mut members, "written_with");
            self.out.push(b'{');
            let mut files = Members(false);
            for (name, identity) in &header.written_with {
                self.text_member(&mut files, name, identity);
            }
            self.out.push(b'}');
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
        serde_json::to_writer(&mut self.out, text).expect("memory takes every write");
    }

    fn write(&mut self, value: impl std::fmt::Display) {
        self.out.extend_from_slice(value.to_string().as_bytes());
    }
}
