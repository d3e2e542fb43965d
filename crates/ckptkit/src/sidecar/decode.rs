//! From JSON to an object graph. The text is untrusted: what it names is kept as data, what it
//! asks for is checked.

mod typed;
mod value;

use std::borrow::Cow;
use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BTreeMap, HashMap};

use ckptkit_core::{Dtype, Error, Limits, Result};
use torch_save::pickle::Builder;
use torch_save::{Document, NodeId};

use super::changes::parts;
use super::text::{Reader, Token};
use super::{FORMAT, Header, VERSION};

/// A tensor that stands for a call, which is made when its shape is known.
pub(super) struct Pending {
    /// The node that becomes the call.
    pub(super) node: NodeId,
    pub(super) name: String,
    pub(super) requires_grad: bool,
    pub(super) parameter: bool,
}

/// A row of the table of storages.
pub(super) struct Row {
    pub(super) dtype: Option<Dtype>,
    pub(super) numel: u64,
    pub(super) location: String,
    pub(super) tensors: Vec<String>,
}

/// What the text says.
pub(super) struct Parsed {
    pub(super) header: Header,
    pub(super) document: Document,
    pub(super) pending: Vec<Pending>,
    pub(super) rows: Vec<Row>,
    /// The nodes that become references to storages, by row.
    pub(super) storages: HashMap<u64, NodeId>,
    pub(super) max_nodes: usize,
}

pub(super) fn parse(json: &[u8], limits: &Limits) -> Result<Parsed> {
    if json.len() as u64 > limits.pickle_bytes {
        return Err(Error::limit(format!(
            "the sidecar has {} bytes, the limit is {}",
            json.len(),
            limits.pickle_bytes
        )));
    }
    let mut decoder = Decoder {
        reader: Reader::new(json)?,
        document: Document::new(),
        ids: HashMap::new(),
        words: HashMap::new(),
        hasher: RandomState::new(),
        pending: Vec::new(),
        storages: HashMap::new(),
        max_nodes: limits.nodes,
    };
    let (header, rows) = decoder.run().map_err(|e| decoder.reader.placed(e))?;
    decoder.check_ids()?;
    let Decoder { document, pending, storages, max_nodes, .. } = decoder;
    if let Some(row) = storages.keys().copied().filter(|row| *row >= rows.len() as u64).min() {
        return Err(Error::malformed(format!(
            "storage {row} is referred to, the table has {}",
            rows.len()
        )));
    }
    Ok(Parsed { header, document, pending, rows, storages, max_nodes })
}

/// The node that a number stands for.
struct Numbered {
    node: NodeId,
    defined: bool,
    /// Where it was first seen, in bytes.
    at: u64,
}

struct Decoder<'a> {
    reader: Reader<'a>,
    document: Document,
    ids: HashMap<u64, Numbered>,
    /// From the hash of a text, or the next free number after it, to its node: equal texts are one.
    words: HashMap<u64, NodeId>,
    hasher: RandomState,
    pending: Vec<Pending>,
    storages: HashMap<u64, NodeId>,
    max_nodes: usize,
}

impl<'a> Decoder<'a> {
    fn run(&mut self) -> Result<(Header, Vec<Row>)> {
        let Token::Object = self.reader.token()? else { return Err(no_sidecar()) };
        if self.reader.key()?.as_deref() != Some("format") {
            return Err(no_sidecar());
        }
        if self.reader.token()? != Token::Str(FORMAT.into()) {
            return Err(no_sidecar());
        }
        self.expect("version")?;
        let version = self.unsigned()?;
        if version != VERSION {
            return Err(Error::unsupported(format!(
                "version {version} of the sidecar; this release reads version {VERSION}"
            ))
            .hint("use a newer release, or leave the sidecar out and convert the tensors alone"));
        }
        let mut header = Header::new("");
        self.expect("writer")?;
        header.writer = self.string()?.into_owned();
        self.expect("source_format")?;
        header.source_format = self.string()?.into_owned();
        self.expect("weights_key")?;
        header.weights_key = match self.reader.token()? {
            Token::Null => None,
            Token::Str(key) => Some(key.into_owned()),
            other => return Err(unexpected("text or null", &other)),
        };
        let mut key = self.reader.key()?;
        if key.as_deref() == Some("written_with") {
            header.written_with = self.written_with()?;
            key = self.reader.key()?;
        }
        if key.as_deref() != Some("root") {
            return Err(wrong_member("root", key.as_deref()));
        }
        let root = self.value()?;
        self.document.set_root(root);
        let mut key = self.reader.key()?;
        if key.as_deref() == Some("nodes") {
            self.open_array()?;
            while self.reader.item()? {
                match self.reader.token()? {
                    Token::Object => self.object()?,
                    other => return Err(unexpected("a node with an $id", &other)),
                };
            }
            key = self.reader.key()?;
        }
        if key.as_deref() != Some("storages") {
            return Err(wrong_member("storages", key.as_deref()));
        }
        let rows = self.rows()?;
        if let Some(key) = self.reader.key()? {
            return Err(unknown_member(&key));
        }
        self.reader.end()?;
        Ok((header, rows))
    }

    fn written_with(&mut self) -> Result<BTreeMap<String, String>> {
        match self.reader.token()? {
            Token::Object => {}
            other => return Err(unexpected("an object", &other)),
        }
        let mut files = BTreeMap::new();
        while let Some(name) = self.reader.key()? {
            let identity = self.string()?.into_owned();
            if files.insert(name.into_owned(), identity).is_some() {
                return Err(Error::malformed("the key was there before"));
            }
        }
        Ok(files)
    }

    fn rows(&mut self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        self.open_array()?;
        while self.reader.item()? {
            let Token::Object = self.reader.token()? else {
                return Err(Error::malformed("a storage is no object"));
            };
            self.expect("dtype")?;
            let dtype = match self.reader.token()? {
                Token::Null => None,
                Token::Str(name) => {
                    let dtype = Dtype::from_name(&name);
                    Some(dtype.ok_or_else(|| {
                        Error::unsupported(format!("the dtype {name:?} is not known"))
                    })?)
                }
                other => return Err(unexpected("a dtype or null", &other)),
            };
            self.expect("numel")?;
            let numel = self.unsigned()?;
            self.expect("location")?;
            let location = self.string()?.into_owned();
            let mut tensors = Vec::new();
            match self.reader.key()?.as_deref() {
                Some("tensor") => tensors.push(self.string()?.into_owned()),
                Some("tensors") => {
                    self.open_array()?;
                    while self.reader.item()? {
                        tensors.push(self.string()?.into_owned());
                    }
                }
                other => return Err(wrong_member("tensor", other)),
            }
            self.close()?;
            rows.push(Row { dtype, numel, location, tensors });
        }
        Ok(rows)
    }

    /// Gives a number to a node that was made; the node that stands for it from now on.
    fn define(&mut self, id: Option<u64>, made: NodeId) -> Result<NodeId> {
        let Some(id) = id else { return Ok(made) };
        let at = self.reader.offset();
        let numbered = match self.ids.entry(id) {
            Entry::Vacant(slot) => {
                slot.insert(Numbered { node: made, defined: true, at });
                return Ok(made);
            }
            Entry::Occupied(slot) => slot.into_mut(),
        };
        if numbered.defined {
            return Err(Error::malformed(format!("two objects have the $id {id}")));
        }
        // It was referred to before: that node becomes what was made.
        numbered.defined = true;
        let node = numbered.node;
        self.document.builder().replace(node, made);
        Ok(node)
    }

    fn numbered(&mut self, id: u64) -> &Numbered {
        let at = self.reader.offset();
        let b = self.document.builder();
        self.ids.entry(id).or_insert_with(|| Numbered { node: b.none(), defined: false, at })
    }

    fn builder(&mut self) -> &mut Builder {
        self.document.builder()
    }

    fn open_array(&mut self) -> Result<()> {
        match self.reader.token()? {
            Token::Array => Ok(()),
            other => Err(unexpected("an array", &other)),
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>> {
        match self.reader.token()? {
            Token::Str(text) => Ok(text),
            other => Err(unexpected("text", &other)),
        }
    }

    fn unsigned(&mut self) -> Result<u64> {
        match self.reader.token()? {
            Token::Int(value) => u64::try_from(value)
                .map_err(|_| Error::malformed(format!("{value} is not 0 or more"))),
            other => Err(unexpected("an integer", &other)),
        }
    }

    fn expect(&mut self, name: &str) -> Result<()> {
        match self.reader.key()?.as_deref() {
            Some(key) if key == name => Ok(()),
            other => Err(wrong_member(name, other)),
        }
    }

    fn close(&mut self) -> Result<()> {
        match self.reader.key()? {
            None => Ok(()),
            Some(key) => Err(unknown_member(&key)),
        }
    }

    fn check_nodes(&self) -> Result<()> {
        check_nodes(&self.document, self.max_nodes)
    }

    /// What is referred to must be there, and nothing that cannot change may be a part of itself.
    fn check_ids(&self) -> Result<()> {
        let undefined = self.ids.iter().filter(|(_, n)| !n.defined).min_by_key(|(_, n)| n.at);
        if let Some((id, numbered)) = undefined {
            return Err(Error::malformed(format!("no object has the $id {id}")).at(numbered.at));
        }
        let graph = self.document.root().graph();
        // Not seen, open, done.
        let mut state = vec![0_u8; graph.len()];
        let mut starts: Vec<&Numbered> = self.ids.values().collect();
        starts.sort_unstable_by_key(|numbered| numbered.at);
        for start in starts {
            let mut pending = vec![(start.node, false)];
            while let Some((node, left)) = pending.pop() {
                let seen = &mut state[node.index()];
                match (left, *seen) {
                    (true, _) => *seen = 2,
                    (false, 0) => {
                        *seen = 1;
                        pending.push((node, true));
                        pending.extend(parts(graph.node(node)).iter().map(|part| (*part, false)));
                    }
                    (false, 1) => {
                        return Err(Error::malformed(
                            "an object that cannot change is a part of itself",
                        )
                        .at(start.at));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

pub(super) fn check_nodes(document: &Document, most: usize) -> Result<()> {
    if document.root().graph().len() < most {
        return Ok(());
    }
    Err(Error::limit(format!("more than {most} objects")))
}

fn no_sidecar() -> Error {
    Error::malformed(format!("this is no sidecar: it does not start with \"format\": {FORMAT:?}"))
}

fn unexpected(expected: &str, found: &Token<'_>) -> Error {
    Error::malformed(format!("expected {expected}, found {}", found.name()))
}

fn wrong_member(expected: &str, found: Option<&str>) -> Error {
    Error::malformed(match found {
        Some(found) => format!("expected the member {expected}, found {found:?}"),
        None => format!("the member {expected} is missing"),
    })
}

fn unknown_member(found: &str) -> Error {
    Error::malformed(format!("the member {found:?} is not known here, or out of order"))
}
