//! From graph nodes to plain values.

use ckptkit_core::{Error, Result};

use super::{Array, Object, Value, known};
use crate::numpy;
use crate::pickle::{Kind, Mut, NodeId, NodeRef, decimal};
use crate::rebuild;
use crate::text;

/// A tree costs stack; deeper values are asked for by a deeper path.
const MAX_DEPTH: usize = 256;
/// Sharing repeated in a tree can grow it without bound.
const MAX_VALUES: usize = 4_000_000;

/// What a conversion needs to know.
pub(crate) struct Context<'c> {
    /// The name of the tensor that a node is.
    pub(crate) tensor_name: &'c dyn Fn(NodeId) -> Option<String>,
    budget: usize,
    /// The nodes that enclose the current one, and the keys that lead to each.
    enclosing: Vec<NodeId>,
    keys: Vec<String>,
}

impl<'c> Context<'c> {
    pub(crate) fn new(tensor_name: &'c dyn Fn(NodeId) -> Option<String>) -> Self {
        Self { tensor_name, budget: MAX_VALUES, enclosing: Vec::new(), keys: Vec::new() }
    }

    /// The plain value of a node.
    ///
    /// # Errors
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) when it nests or repeats too much.
    pub(crate) fn value(&mut self, node: NodeRef<'_>) -> Result<Value> {
        self.budget = self.budget.checked_sub(1).ok_or_else(|| {
            Error::limit(format!("the value has more than {MAX_VALUES} parts"))
                .hint("ask for a part of it by a longer path")
        })?;
        if let Some(leaf) = leaf(node) {
            return Ok(leaf);
        }
        if self.enclosing.len() >= MAX_DEPTH {
            return Err(Error::limit(format!("the value nests more than {MAX_DEPTH} deep"))
                .hint("ask for a part of it by a longer path"));
        }
        if let Some(at) = self.enclosing.iter().position(|&id| id == node.id()) {
            return Ok(Value::Ref(self.keys[..at].join(".")));
        }
        self.enclosing.push(node.id());
        let value = self.compound(node);
        self.enclosing.pop();
        value
    }

    /// The value of a part, which stands under `key`.
    pub(super) fn part(&mut self, key: impl Into<String>, node: NodeRef<'_>) -> Result<Value> {
        self.keys.push(key.into());
        let value = self.value(node);
        self.keys.pop();
        value
    }

    pub(super) fn list(&mut self, items: &[NodeRef<'_>]) -> Result<Vec<Value>> {
        items.iter().enumerate().map(|(i, &item)| self.part(i.to_string(), item)).collect()
    }

    pub(super) fn dict(&mut self, pairs: &[(NodeRef<'_>, NodeRef<'_>)]) -> Result<Value> {
        let pairs = pairs.iter().map(|&(key, value)| {
            let name = ckptkit_core::join(&[text::key(key)]);
            Ok((self.part(name.clone(), key)?, self.part(name, value)?))
        });
        Ok(Value::Dict(pairs.collect::<Result<_>>()?))
    }

    fn compound(&mut self, node: NodeRef<'_>) -> Result<Value> {
        if let Some(name) = (self.tensor_name)(node.id()) {
            return Ok(Value::Tensor(name));
        }
        let value = match node.kind() {
            Kind::Tuple(_) => Value::Tuple(self.list(&node.items())?),
            Kind::List => Value::List(self.list(&node.items())?),
            Kind::Set => Value::Set(self.list(&node.items())?),
            Kind::FrozenSet(_) => Value::FrozenSet(self.list(&node.items())?),
            Kind::Dict => self.dict(&node.pairs())?,
            Kind::PersId(id) => return self.persistent(node.other(id)),
            _ => return self.object(node),
        };
        // A list that items were set on, a dict with a state: only odd picklers write it.
        let strange = node.muts().any(|m| match m {
            Mut::Build(_) => true,
            Mut::Append(_) => !matches!(node.kind(), Kind::List),
            Mut::SetItems(_) => !matches!(node.kind(), Kind::Dict),
            Mut::AddItems(_) => !matches!(node.kind(), Kind::Set),
        });
        if !strange {
            return Ok(value);
        }
        let class = match node.kind() {
            Kind::Tuple(_) => "builtins.tuple",
            Kind::List => "builtins.list",
            Kind::Set => "builtins.set",
            Kind::FrozenSet(_) => "builtins.frozenset",
            _ => "builtins.dict",
        };
        let mut object = Object { class: class.into(), value: Some(value), ..Object::default() };
        if let Some(state) = node.state() {
            object.extra.push(("state", self.part("state", state)?));
        }
        if !matches!(node.kind(), Kind::Dict) && !node.pairs().is_empty() {
            let pairs = self.dict(&node.pairs())?;
            object.extra.push(("pairs", pairs));
        }
        if matches!(node.kind(), Kind::Dict) && !node.items().is_empty() {
            let items = self.list(&node.items())?;
            object.extra.push(("items", Value::List(items)));
        }
        Ok(Value::Object(Box::new(object)))
    }

    fn persistent(&mut self, id: NodeRef<'_>) -> Result<Value> {
        let mut object = Object { class: "persistent_id".into(), ..Object::default() };
        if let Some(Ok(storage)) = crate::storage::parse(id) {
            object.class = "torch.storage".into();
            object.value = Some(Value::Dict(vec![
                (Value::Str("key".into()), Value::Str(storage.key.clone())),
                (
                    Value::Str("dtype".into()),
                    storage.dtype.map_or(Value::None, |d| Value::Str(d.name().into())),
                ),
                (Value::Str("location".into()), Value::Str(storage.location.clone())),
                (Value::Str("numel".into()), integer(storage.numel)),
            ]));
        } else {
            // A module's class and its embedded source, or an id that only its container knows.
            object.value = Some(self.part("id", id)?);
        }
        Ok(Value::Object(Box::new(object)))
    }

    fn object(&mut self, node: NodeRef<'_>) -> Result<Value> {
        if let Some(known) = known::value(self, node) {
            return known;
        }
        let Some((callable, args)) = node.call() else {
            return Ok(Value::None);
        };
        let class = callable.as_global().map_or_else(|| "object".to_owned(), |g| g.to_string());
        let mut object = Object { class, ..Object::default() };
        if callable.as_global().is_none() {
            object.extra.push(("callable", self.part("callable", callable)?));
        }
        // `copyreg.__newobj__(cls, …)` and `_reconstructor(cls, object, None)` are how protocols
        // below 2 say "an object of cls".
        let made_by_copyreg = matches!(
            callable.as_global(),
            Some(g) if g.module == "copyreg" && matches!(g.name, "__newobj__" | "_reconstructor")
        );
        let mut args = &args[..];
        if let (true, Some((class, rest))) = (made_by_copyreg, args.split_first()) {
            if let Some(g) = class.as_global() {
                object.class = g.to_string();
                args = match rest {
                    [base, state]
                        if base.as_global().is_some_and(|g| g.is("builtins", "object"))
                            && state.is_none() =>
                    {
                        &[]
                    }
                    rest => rest,
                };
            }
        }
        let reduced = matches!(node.kind(), Kind::Reduce { .. }) && !made_by_copyreg;
        if reduced || !args.is_empty() {
            object.args = Some(self.list(args)?);
        }
        if let Kind::NewObjEx { kwargs, .. } = node.kind() {
            object.extra.push(("kwargs", self.part("kwargs", node.other(kwargs))?));
        }
        self.state(node, &mut object)?;
        if object.args.as_ref().is_some_and(Vec::is_empty) && object.value.is_some() {
            object.args = None;
        }
        Ok(Value::Object(Box::new(object)))
    }

    /// Adds attributes, other state, appended items and set pairs.
    pub(super) fn state(&mut self, node: NodeRef<'_>, object: &mut Object) -> Result<()> {
        let (items, pairs) = (node.items(), node.pairs());
        if !items.is_empty() && matches!(node.call(), Some(_)) {
            let items = self.list(&items)?;
            object.extra.push(("items", Value::List(items)));
        }
        if !pairs.is_empty() {
            let pairs = self.dict(&pairs)?;
            object.extra.push(("pairs", pairs));
        }
        let Some(state) = node.state() else { return Ok(()) };
        let attributes = node.attributes();
        let is_attributes = match state.kind() {
            Kind::Dict => true,
            Kind::Tuple(&[a, b]) => {
                [a, b].iter().all(|&id| matches!(node.other(id).kind(), Kind::Dict | Kind::None))
            }
            _ => false,
        };
        if is_attributes && object.value.is_none() {
            object.value = Some(self.dict(&attributes)?);
        } else if is_attributes {
            let attributes = self.dict(&attributes)?;
            object.extra.push(("state", attributes));
        } else {
            object.extra.push(("state", self.part("state", state)?));
        }
        Ok(())
    }
}

/// Values that hold no others.
fn leaf(node: NodeRef<'_>) -> Option<Value> {
    Some(match node.kind() {
        Kind::None => Value::None,
        Kind::Bool(b) => Value::Bool(b),
        Kind::Int(i) => Value::Int(i),
        Kind::BigInt(b) => Value::BigInt(decimal(b)),
        Kind::Float(f) => Value::Float(f),
        Kind::Str(s) => string(s),
        Kind::Bytes(b) => Value::Bytes(b.to_vec()),
        Kind::ByteArray(b) => Value::ByteArray(b.to_vec()),
        Kind::Global(g) => known::global(g),
        _ => return None,
    })
}

pub(super) fn string(s: &[u8]) -> Value {
    match std::str::from_utf8(s) {
        Ok(s) => Value::Str(s.to_owned()),
        Err(_) => Value::Surrogates(s.to_vec()),
    }
}

pub(super) fn integer(n: u64) -> Value {
    i64::try_from(n).map_or_else(|_| Value::BigInt(n.to_string()), Value::Int)
}

pub(super) fn array(node: NodeRef<'_>) -> Option<Value> {
    let numpy::Array { dtype, shape, data } = numpy::array(node)?;
    Some(Value::Array(Box::new(Array { dtype, shape, data })))
}

/// Whether a node is a tensor that no name is known for (a part of another one).
pub(super) fn unnamed_tensor(node: NodeRef<'_>) -> Option<Value> {
    let spec = rebuild::recognise(node)?.ok()?;
    let shape = spec.shape.iter().map(|&d| integer(d)).collect();
    let facts = vec![
        (Value::Str("dtype".into()), Value::Str(spec.dtype.name().into())),
        (Value::Str("shape".into()), Value::List(shape)),
    ];
    Some(Value::Object(Box::new(Object {
        class: "torch.Tensor".into(),
        value: Some(Value::Dict(facts)),
        ..Object::default()
    })))
}
