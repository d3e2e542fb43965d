//! Plain values as nodes.

use ckptkit_core::{Error, Result};

use crate::pickle::{Builder, NodeId, from_decimal};
use crate::value::Value;

/// Plain values nest less; what nests deeper is a graph.
const MAX_DEPTH: usize = 256;

impl Builder {
    /// A plain value: scalars, text, bytes, lists, tuples, sets and dicts.
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for what is not plain
    /// (tensors, arrays, objects, cycles), and for values that nest more than 256 deep.
    pub fn value(&mut self, value: &Value) -> Result<NodeId> {
        self.value_within(value, 0)
    }

    fn value_within(&mut self, value: &Value, depth: usize) -> Result<NodeId> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!("a value nests more than {MAX_DEPTH} deep")));
        }
        let all = |b: &mut Self, items: &[Value]| -> Result<Vec<NodeId>> {
            items.iter().map(|item| b.value_within(item, depth + 1)).collect()
        };
        Ok(match value {
            Value::None => self.none(),
            Value::Bool(b) => self.bool(*b),
            Value::Int(i) => self.int(*i),
            Value::BigInt(digits) => {
                let bytes = from_decimal(digits)
                    .ok_or_else(|| Error::invalid(format!("{digits:?} is no integer")))?;
                self.big_int(&bytes)
            }
            Value::Float(f) => self.float(*f),
            Value::Str(text) => self.str(text),
            Value::Surrogates(text) => self.wtf8(text),
            Value::Bytes(bytes) => self.bytes(bytes),
            Value::ByteArray(bytes) => self.bytearray(bytes),
            Value::Complex(re, im) => {
                let args = [self.float(*re), self.float(*im)];
                self.call("builtins", "complex", &args)
            }
            Value::List(items) => {
                let (list, items) = (self.list(), all(self, items)?);
                self.append(list, &items);
                list
            }
            Value::Tuple(items) => {
                let items = all(self, items)?;
                self.tuple(&items)
            }
            Value::Set(items) => {
                let (set, items) = (self.set(), all(self, items)?);
                self.add_items(set, &items);
                set
            }
            Value::FrozenSet(items) => {
                let items = all(self, items)?;
                self.frozenset(&items)
            }
            Value::Dict(pairs) => {
                let dict = self.dict();
                let mut nodes = Vec::with_capacity(pairs.len());
                for (key, value) in pairs {
                    let key = self.value_within(key, depth + 1)?;
                    nodes.push((key, self.value_within(value, depth + 1)?));
                }
                self.set_items(dict, &nodes);
                dict
            }
            Value::Global(name) => {
                let (module, name) = name
                    .rsplit_once('.')
                    .ok_or_else(|| Error::invalid(format!("{name:?} names no module and class")))?;
                self.global(module, name)
            }
            Value::Tensor(_) | Value::Array(_) | Value::Ref(_) | Value::Object(_) => {
                return Err(Error::invalid("only plain values can be written here"));
            }
        })
    }
}
