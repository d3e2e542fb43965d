//! From JSON to an object graph. The text is untrusted: what it names is kept as data, what it
//! asks for is checked.

use std::borrow::Cow;
use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

use ckptkit_core::{Dtype, Error, Limits, Result};
use torch_save::pickle::{Builder, Kind};
use torch_save::{Document, NodeId, Value};

use super::base64;
use super::changes::{Action, parts};
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
        self.expect("root")?;
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

    /// The next value as a node.
    fn value(&mut self) -> Result<NodeId> {
        match self.reader.token()? {
            Token::Array => self.list(None),
            Token::Object => self.object(),
            Token::Str(text) => self.word(text.as_bytes()),
            scalar => self.scalar(&scalar),
        }
    }

    fn scalar(&mut self, token: &Token<'_>) -> Result<NodeId> {
        self.check_nodes()?;
        let b = self.builder();
        Ok(match token {
            Token::Bool(value) => b.bool(*value),
            Token::Int(value) => b.int(*value),
            Token::Float(value) => b.float(*value),
            _ => b.none(),
        })
    }

    /// The arguments of a call: an array is a tuple.
    fn arguments(&mut self) -> Result<NodeId> {
        match self.reader.token()? {
            Token::Array => {
                let items = self.rest_of_items()?;
                Ok(self.builder().tuple(&items))
            }
            Token::Object => self.object(),
            Token::Str(text) => self.word(text.as_bytes()),
            scalar => self.scalar(&scalar),
        }
    }

    /// What is called: text is a name.
    fn callable(&mut self) -> Result<NodeId> {
        match self.reader.token()? {
            Token::Str(text) => {
                let (module, name) = split(&text)?;
                Ok(self.builder().global(module, name))
            }
            Token::Array => self.list(None),
            Token::Object => self.object(),
            scalar => self.scalar(&scalar),
        }
    }

    fn list(&mut self, id: Option<u64>) -> Result<NodeId> {
        self.check_nodes()?;
        let list = self.builder().list();
        let list = self.define(id, list)?;
        let items = self.rest_of_items()?;
        self.builder().append(list, &items);
        Ok(list)
    }

    fn rest_of_items(&mut self) -> Result<Vec<NodeId>> {
        let mut items = Vec::new();
        while self.reader.item()? {
            items.push(self.value()?);
        }
        Ok(items)
    }

    fn items(&mut self) -> Result<Vec<NodeId>> {
        self.open_array()?;
        self.rest_of_items()
    }

    /// `[[key, value], …]`.
    fn rest_of_pairs(&mut self) -> Result<Vec<(NodeId, NodeId)>> {
        let mut pairs = Vec::new();
        while self.reader.item()? {
            self.open_array()?;
            match self.rest_of_items()?[..] {
                [key, value] => pairs.push((key, value)),
                ref other => {
                    return Err(Error::malformed(format!(
                        "a pair of {} values, expected a key and a value",
                        other.len()
                    )));
                }
            }
        }
        Ok(pairs)
    }

    /// The members of an object that has been opened, the first key of which was read.
    fn members(&mut self, first: Option<Cow<'a, str>>) -> Result<Vec<(NodeId, NodeId)>> {
        let mut pairs = Vec::new();
        let mut seen = HashSet::new();
        let mut next = first;
        while let Some(key) = next {
            if key.starts_with('$') {
                return Err(Error::malformed(format!("the member {key:?} is not known here"))
                    .hint("a dict with such a key is written as pairs"));
            }
            let key = self.word(key.as_bytes())?;
            if !seen.insert(key) {
                return Err(Error::malformed("the key was there before"));
            }
            pairs.push((key, self.value()?));
            next = self.reader.key()?;
        }
        Ok(pairs)
    }

    /// An object that has been opened: a dict, or what its first member says.
    fn object(&mut self) -> Result<NodeId> {
        self.check_nodes()?;
        let mut key = self.reader.key()?;
        let mut id = None;
        if key.as_deref() == Some("$id") {
            id = Some(self.unsigned()?);
            key = self.reader.key()?;
        }
        match key.as_deref() {
            Some("$ref") if id.is_none() => {
                let id = self.unsigned()?;
                self.close()?;
                Ok(self.numbered(id).node)
            }
            Some("$type") => self.typed(id),
            Some("$call") => self.called(id, false),
            Some("$new") => self.called(id, true),
            Some("$tensor") => self.tensor(id, false),
            Some("$parameter") => self.tensor(id, true),
            Some("$storage") => self.storage(id),
            _ => {
                let dict = self.builder().dict();
                let dict = self.define(id, dict)?;
                let pairs = self.members(key)?;
                self.builder().set_items(dict, &pairs);
                Ok(dict)
            }
        }
    }

    fn called(&mut self, id: Option<u64>, new: bool) -> Result<NodeId> {
        let callable = self.callable()?;
        self.expect("args")?;
        let args = self.arguments()?;
        let mut key = self.reader.key()?;
        let made = if new && key.as_deref() == Some("kwargs") {
            let kwargs = self.value()?;
            key = self.reader.key()?;
            self.builder().new_obj_ex(callable, args, kwargs)
        } else if new {
            self.builder().new_obj(callable, args)
        } else {
            self.builder().reduce(callable, args)
        };
        // What it is made of may have referred to it: then its node was there before.
        let node = self.define(id, made)?;
        self.changes(node, key)
    }

    fn tensor(&mut self, id: Option<u64>, parameter: bool) -> Result<NodeId> {
        let name = self.string()?.into_owned();
        let requires_grad = match self.reader.key()?.as_deref() {
            Some("requires_grad") => {
                let Token::Bool(value) = self.reader.token()? else {
                    return Err(Error::malformed("requires_grad is no bool"));
                };
                self.close()?;
                value
            }
            None if !parameter => false,
            other => return Err(wrong_member("requires_grad", other)),
        };
        let node = self.builder().none();
        let node = self.define(id, node)?;
        self.pending.push(Pending { node, name, requires_grad, parameter });
        Ok(node)
    }

    fn storage(&mut self, id: Option<u64>) -> Result<NodeId> {
        let row = self.unsigned()?;
        let key = self.reader.key()?;
        if id.is_some() || key.is_some() {
            return Err(Error::malformed("a storage has neither an $id nor changes"));
        }
        let b = self.document.builder();
        Ok(*self.storages.entry(row).or_insert_with(|| b.none()))
    }

    fn typed(&mut self, id: Option<u64>) -> Result<NodeId> {
        let name = self.string()?;
        match &*name {
            "none" => {
                let key = self.reader.key()?;
                let node = self.builder().none();
                self.leaf(id, node, key)
            }
            "bool" => {
                self.expect("value")?;
                let Token::Bool(value) = self.reader.token()? else {
                    return Err(Error::malformed("the value is no bool"));
                };
                let key = self.reader.key()?;
                let node = self.builder().bool(value);
                self.leaf(id, node, key)
            }
            "int" => {
                let node = match self.text_or_bytes("value", "base64")? {
                    Coded::Text(digits) => self.integer(&digits)?,
                    Coded::Bytes(bytes) => self.builder().big_int(&bytes),
                };
                let key = self.reader.key()?;
                self.leaf(id, node, key)
            }
            "float" => {
                let value = self.float()?;
                let key = self.reader.key()?;
                let node = self.builder().float(value);
                self.leaf(id, node, key)
            }
            "str" => {
                let text = match self.text_or_bytes("value", "base64")? {
                    Coded::Text(text) => text.into_owned().into_bytes(),
                    Coded::Bytes(bytes) => bytes,
                };
                let key = self.reader.key()?;
                // What something happens to is no longer equal to its like.
                let node = match key {
                    None => self.word(&text)?,
                    Some(_) => self.builder().wtf8(&text),
                };
                self.leaf(id, node, key)
            }
            "bytes" | "bytearray" => {
                self.expect("base64")?;
                let bytes = self.base64()?;
                let key = self.reader.key()?;
                let b = self.builder();
                let node = if &*name == "bytes" { b.bytes(&bytes) } else { b.bytearray(&bytes) };
                self.leaf(id, node, key)
            }
            "global" => self.global(id),
            "tuple" | "frozenset" => {
                self.expect("value")?;
                let items = self.items()?;
                let key = self.reader.key()?;
                let b = self.builder();
                let made = if &*name == "tuple" { b.tuple(&items) } else { b.frozenset(&items) };
                let node = self.define(id, made)?;
                self.changes(node, key)
            }
            "list" | "set" | "dict" => {
                let b = self.builder();
                let made = match &*name {
                    "list" => b.list(),
                    "set" => b.set(),
                    _ => b.dict(),
                };
                let node = self.define(id, made)?;
                self.expect("value")?;
                self.open_array()?;
                match &*name {
                    "dict" => {
                        let pairs = self.rest_of_pairs()?;
                        self.builder().set_items(node, &pairs);
                    }
                    "list" => {
                        let items = self.rest_of_items()?;
                        self.builder().append(node, &items);
                    }
                    _ => {
                        let items = self.rest_of_items()?;
                        self.builder().add_items(node, &items);
                    }
                }
                let key = self.reader.key()?;
                self.changes(node, key)
            }
            other => Err(Error::malformed(format!("the $type {other:?} is not known"))),
        }
    }

    fn global(&mut self, id: Option<u64>) -> Result<NodeId> {
        let key = self.reader.key()?;
        let spelled = match key.as_deref() {
            Some("value") => self.string()?,
            Some("module") => {
                let module = self.string()?;
                self.expect("name")?;
                let name = self.string()?;
                let key = self.reader.key()?;
                return self.named(id, &module, &name, key);
            }
            other => return Err(wrong_member("value", other)),
        };
        let (module, name) = split(&spelled)?;
        let key = self.reader.key()?;
        self.named(id, module, name, key)
    }

    fn named(
        &mut self,
        id: Option<u64>,
        module: &str,
        name: &str,
        key: Option<Cow<'a, str>>,
    ) -> Result<NodeId> {
        let mut node = self.builder().global(module, name);
        if key.is_some() {
            // Every other mention of the name stays what it is.
            let b = self.builder();
            let copy = b.none();
            b.replace(copy, node);
            node = copy;
        }
        self.leaf(id, node, key)
    }

    /// A node that holds no others.
    fn leaf(&mut self, id: Option<u64>, node: NodeId, key: Option<Cow<'a, str>>) -> Result<NodeId> {
        let node = self.define(id, node)?;
        self.changes(node, key)
    }

    /// The members from `key` on, which say what happened to an object.
    fn changes(&mut self, node: NodeId, key: Option<Cow<'a, str>>) -> Result<NodeId> {
        let mut next = key;
        if next.as_deref() == Some("then") {
            self.open_array()?;
            while self.reader.item()? {
                let Token::Object = self.reader.token()? else {
                    return Err(Error::malformed("a change is no object"));
                };
                let key = self.reader.key()?;
                let action = key.as_deref().and_then(Action::from_name);
                let action = action
                    .ok_or_else(|| wrong_member("append, set, add or build", key.as_deref()))?;
                self.change(node, action)?;
                self.close()?;
            }
            self.close()?;
            return Ok(node);
        }
        let mut last = None;
        while let Some(key) = next {
            let action = Action::from_name(&key).filter(|action| last < Some(*action));
            let action = action.ok_or_else(|| unknown_member(&key))?;
            self.change(node, action)?;
            last = Some(action);
            next = self.reader.key()?;
        }
        Ok(node)
    }

    fn change(&mut self, node: NodeId, action: Action) -> Result<()> {
        match action {
            Action::Append => {
                let items = self.items()?;
                self.builder().append(node, &items);
            }
            Action::Add => {
                let items = self.items()?;
                self.builder().add_items(node, &items);
            }
            Action::Set => {
                let pairs = match self.reader.token()? {
                    Token::Array => self.rest_of_pairs()?,
                    Token::Object => {
                        let first = self.reader.key()?;
                        self.members(first)?
                    }
                    other => return Err(unexpected("an object or pairs", &other)),
                };
                self.builder().set_items(node, &pairs);
            }
            Action::Build => {
                let state = self.value()?;
                self.builder().build(node, state);
            }
        }
        Ok(())
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

    /// The node of a text; equal texts have one.
    fn word(&mut self, text: &[u8]) -> Result<NodeId> {
        let mut hash = self.hasher.hash_one(text);
        while let Some(&node) = self.words.get(&hash) {
            if self.document.node(node).kind() == Kind::Str(text) {
                return Ok(node);
            }
            hash = hash.wrapping_add(1);
        }
        self.check_nodes()?;
        let node = self.builder().wtf8(text);
        self.words.insert(hash, node);
        Ok(node)
    }

    fn integer(&mut self, digits: &str) -> Result<NodeId> {
        let magnitude = digits.strip_prefix('-').unwrap_or(digits);
        let legal = !magnitude.is_empty()
            && magnitude.bytes().all(|b| b.is_ascii_digit())
            && (magnitude == "0" || !magnitude.starts_with('0'));
        if !legal {
            return Err(Error::malformed("the value is no integer"));
        }
        let b = self.builder();
        match digits.parse() {
            Ok(small) => Ok(b.int(small)),
            Err(_) => b.value(&Value::BigInt(digits.to_owned())).map_err(|_| {
                Error::malformed("an integer of too many digits")
                    .hint("longer ones are written as the base64 of their bytes")
            }),
        }
    }

    fn float(&mut self) -> Result<f64> {
        let key = self.reader.key()?;
        match key.as_deref() {
            Some("value") => match &*self.string()? {
                "nan" => Ok(f64::from_bits(super::NAN)),
                "inf" => Ok(f64::INFINITY),
                "-inf" => Ok(f64::NEG_INFINITY),
                other => Err(Error::malformed(format!("{other:?} is neither nan, inf nor -inf"))),
            },
            Some("bits") => {
                let text = self.string()?;
                let hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
                let bits = u64::from_str_radix(&text, 16).ok().filter(|_| hex);
                bits.map(f64::from_bits)
                    .ok_or_else(|| Error::malformed("the bits are no 16 hexadecimal digits"))
            }
            other => Err(wrong_member("value", other)),
        }
    }

    fn text_or_bytes(&mut self, text: &str, bytes: &str) -> Result<Coded<'a>> {
        let key = self.reader.key()?;
        match key.as_deref() {
            Some(key) if key == text => Ok(Coded::Text(self.string()?)),
            Some(key) if key == bytes => Ok(Coded::Bytes(self.base64()?)),
            other => Err(wrong_member(text, other)),
        }
    }

    fn base64(&mut self) -> Result<Vec<u8>> {
        let text = self.string()?;
        base64::decode(&text).ok_or_else(|| Error::malformed("the value is no base64"))
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

enum Coded<'a> {
    Text(Cow<'a, str>),
    Bytes(Vec<u8>),
}

/// `module:name`.
fn split(spelled: &str) -> Result<(&str, &str)> {
    spelled.split_once(':').ok_or_else(|| {
        Error::malformed(format!("{spelled:?} names no class or function, expected module:name"))
    })
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
