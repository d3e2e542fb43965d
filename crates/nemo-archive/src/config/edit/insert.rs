//! A key or an item that was not there.

use ckptkit_core::{Error, Result};

use super::super::emit::{self, Style};
use super::super::tree::Kind;
use super::super::value::Value;
use super::{Change, Config, Edit, Splice, unclear};

impl Edit<'_> {
    /// Adds a key to the mapping at the node, or an item behind the last of the list.
    pub(super) fn insert(&self, name: &str, value: &Value) -> Result<Config> {
        let tree = self.tree();
        let inner = self.trail.len() > self.config.top.len();
        match &tree.nodes[self.id()].kind {
            Kind::Map(pairs) if pairs.is_empty() && inner => {
                self.replace(&Value::Dict(vec![(Value::Str(name.to_owned()), value.clone())]))
            }
            Kind::Map(pairs) => {
                // In a mapping from numbers a number is meant.
                let is_int = |id| matches!(tree.scalar(id), Some(Value::Int(_)));
                let ints = !pairs.is_empty() && pairs.iter().all(|p| is_int(p.key));
                let int = name.parse().ok().filter(|_| ints).map(Value::Int);
                let key = int.unwrap_or_else(|| Value::Str(name.to_owned()));
                self.insert_entry(Some(key), value)
            }
            Kind::List(items) => match name.parse::<usize>() {
                Ok(at) if at == items.len() && items.is_empty() => {
                    self.replace(&Value::List(vec![value.clone()]))
                }
                Ok(at) if at == items.len() => self.insert_entry(None, value),
                _ => {
                    let len = items.len();
                    let why = format!("{name:?} is no position in a list of {len} items");
                    Err(Error::invalid(why).hint(format!("the position {len} appends to it")))
                }
            },
            Kind::Scalar(Value::None) if inner => {
                self.replace(&Value::Dict(vec![(Value::Str(name.to_owned()), value.clone())]))
            }
            Kind::Alias(_) => Err(unclear()),
            Kind::Scalar(_) => Err(Error::invalid(format!(
                "{name:?} would stand below a value that is no mapping"
            ))),
        }
    }

    fn insert_entry(&self, key: Option<Value>, value: &Value) -> Result<Config> {
        let (s, place) = (&self.surface, self.place()?);
        let entries = s.entries(self.id(), place.span.start).ok_or_else(unclear)?;
        let style = self.style(self.trail.len());
        let splice = if style == Style::Block {
            let first = entries.first().ok_or_else(unclear)?;
            let whole = match &key {
                Some(key) => Value::Dict(vec![(key.clone(), value.clone())]),
                None => Value::List(vec![value.clone()]),
            };
            let lines = emit::block(&whole, s.column(first.start), self.step())?;
            let end = place.span.end;
            let text = format!("{}{}", s.line_break(end), self.joined(&lines, end));
            Splice::insert(s.line_end(end), text)
        } else if s.is_flow(place.span.start) {
            let mut text = emit::inline(value, style)?;
            if let Some(key) = &key {
                text = format!("{}: {text}", emit::key(key, style)?);
            }
            match entries.last() {
                None => Splice::insert(place.span.start + 1, text),
                Some(last) => Splice::insert(self.end_of(last)?, format!(", {text}")),
            }
        } else {
            return Err(unclear()); // the one pair of a mapping without brackets
        };
        self.finish(vec![splice], &Change::Insert(key, value))
    }
}
