//! Values: what JSON holds as it is, containers, calls, tensors, and what happens to them.

use std::borrow::Cow;
use std::collections::HashSet;

use ckptkit_core::{Error, Result};
use torch_save::NodeId;

use super::typed::split;
use super::{Decoder, Pending, unexpected, unknown_member, wrong_member};
use crate::sidecar::changes::Action;
use crate::sidecar::text::Token;

impl<'a> Decoder<'a> {
    /// The next value as a node.
    pub(super) fn value(&mut self) -> Result<NodeId> {
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

    pub(super) fn rest_of_items(&mut self) -> Result<Vec<NodeId>> {
        let mut items = Vec::new();
        while self.reader.item()? {
            items.push(self.value()?);
        }
        Ok(items)
    }

    pub(super) fn items(&mut self) -> Result<Vec<NodeId>> {
        self.open_array()?;
        self.rest_of_items()
    }

    /// `[[key, value], …]`.
    pub(super) fn rest_of_pairs(&mut self) -> Result<Vec<(NodeId, NodeId)>> {
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
    pub(super) fn object(&mut self) -> Result<NodeId> {
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

    /// The members from `key` on, which say what happened to an object.
    pub(super) fn changes(&mut self, node: NodeId, key: Option<Cow<'a, str>>) -> Result<NodeId> {
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
}
