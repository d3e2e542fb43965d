//! Values that say their `$type`.

use std::borrow::Cow;
use std::hash::BuildHasher;

use ckptkit_core::{Error, Result};
use torch_save::pickle::Kind;
use torch_save::{NodeId, Value};

use super::{Decoder, wrong_member};
use crate::sidecar::text::Token;
use crate::sidecar::{self, base64};

/// Those of 64 bytes.
const MAX_DIGITS: usize = 155;

impl<'a> Decoder<'a> {
    pub(super) fn typed(&mut self, id: Option<u64>) -> Result<NodeId> {
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

    /// The node of a text; equal texts have one.
    pub(super) fn word(&mut self, text: &[u8]) -> Result<NodeId> {
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
        if magnitude.len() > MAX_DIGITS {
            return Err(Error::malformed("an integer of too many digits")
                .hint("longer ones are written as the base64 of their bytes"));
        }
        let b = self.builder();
        match digits.parse() {
            Ok(small) => Ok(b.int(small)),
            Err(_) => b.value(&Value::BigInt(digits.to_owned())),
        }
    }

    fn float(&mut self) -> Result<f64> {
        let key = self.reader.key()?;
        match key.as_deref() {
            Some("value") => match &*self.string()? {
                "nan" => Ok(f64::from_bits(sidecar::NAN)),
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
}

/// Text as it is, or bytes that stand for it.
enum Coded<'a> {
    Text(Cow<'a, str>),
    Bytes(Vec<u8>),
}

/// `module:name`.
pub(super) fn split(spelled: &str) -> Result<(&str, &str)> {
    spelled.split_once(':').ok_or_else(|| {
        Error::malformed(format!("{spelled:?} names no class or function, expected module:name"))
    })
}
