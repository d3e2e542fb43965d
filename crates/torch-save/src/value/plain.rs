//! From graph nodes to plain values.

use ckptkit_core::{Error, Result};

use super::{Array, Object, Value, known};
use crate::numpy;
use crate::pickle::{Graph, Kind, Mut, NodeId, NodeRef, decimal};
use crate::rebuild;
use crate::text;

/// A tree costs stack; deeper values are asked for by a deeper path.
const MAX_DEPTH: usize = 256;
/// Sharing repeated in a tree can grow it without bound.
const MAX_VALUES: usize = 4_000_000;
/// Text and bytes may be repeated as well, up to this and some times the size of the pickle.
const FREE_BYTES: usize = 64 << 20;
const MAX_REPEATS: usize = 4;

/// What a conversion needs to know.
pub(crate) struct Context<'c> {
    /// The name of the tensor that a node is, best the one that ends with these keys.
    tensor_name: &'c dyn Fn(NodeId, &[String]) -> Option<String>,
    budget: usize,
    byte_budget: usize,
    /// The nodes that enclose the current one, and the keys that lead to each.
    enclosing: Vec<NodeId>,
    keys: Vec<String>,
}

impl<'c> Context<'c> {
    pub(crate) fn new(
        graph: &Graph,
        tensor_name: &'c dyn Fn(NodeId, &[String]) -> Option<String>,
    ) -> Self {
        let byte_budget = graph.heap_bytes().saturating_mul(MAX_REPEATS).saturating_add(FREE_BYTES);
        Self {
            tensor_name,
            budget: MAX_VALUES,
            byte_budget,
            enclosing: Vec::new(),
            keys: Vec::new(),
        }
    }

    /// The plain value of a node.
    ///
    /// # Errors
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) when it nests or repeats too much.
    pub(crate) fn value(&mut self, node: NodeRef<'_>) -> Result<Value> {
        self.charge(node)?;
        match leaf(node) {
            Some(leaf) => Ok(leaf),
            None => self.enter(node, |cx| cx.compound(node)),
        }
    }

    fn charge(&mut self, node: NodeRef<'_>) -> Result<()> {
        let bytes = match node.kind() {
            Kind::Str(b) | Kind::Bytes(b) | Kind::ByteArray(b) | Kind::BigInt(b) => b.len(),
            _ => 0,
        };
        let left = self.budget.checked_sub(1).zip(self.byte_budget.checked_sub(bytes));
        (self.budget, self.byte_budget) = left.ok_or_else(|| {
            Error::limit(format!(
                "the value has more than {MAX_VALUES} parts, or repeats its text too often"
            ))
            .hint("ask for a part of it by a longer path")
        })?;
        Ok(())
    }

    /// Makes a value of what `node` holds, unless it encloses itself or nests too deep.
    fn enter(
        &mut self,
        node: NodeRef<'_>,
        make: impl FnOnce(&mut Self) -> Result<Value>,
    ) -> Result<Value> {
        if self.enclosing.len() >= MAX_DEPTH {
            return Err(Error::limit(format!("the value nests more than {MAX_DEPTH} deep"))
                .hint("ask for a part of it by a longer path"));
        }
        if let Some(at) = self.enclosing.iter().position(|&id| id == node.id()) {
            return Ok(Value::Ref(self.keys[..at].join(".")));
        }
        self.enclosing.push(node.id());
        let value = make(self);
        self.enclosing.pop();
        value
    }

    /// A part of a configuration: nodes of it by what they hold, without their class.
    pub(super) fn config_part(&mut self, key: String, node: NodeRef<'_>) -> Result<Value> {
        let is_config = node.class().is_some_and(|g| g.module.starts_with("omegaconf"));
        if !is_config {
            return self.part(key, node);
        }
        self.keys.push(key);
        let value = self.charge(node).and_then(|()| {
            self.enter(node, |cx| match known::config(cx, node) {
                Some(value) => value,
                None => cx.compound(node),
            })
        });
        self.keys.pop();
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
        if let Some(name) = (self.tensor_name)(node.id(), &self.keys) {
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
                (Value::Str("key".into()), Value::Str(storage.key.clone().into_owned())),
                (
                    Value::Str("dtype".into()),
                    storage.dtype.map_or(Value::None, |d| Value::Str(d.name().into())),
                ),
                (Value::Str("location".into()), Value::Str(storage.location.clone().into_owned())),
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
        let name = text::qualified(callable);
        let unnamed = name.is_none();
        let class = name.unwrap_or_else(|| "object".to_owned());
        let mut object = Object { class, ..Object::default() };
        if unnamed {
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
        object.args = Some(self.list(args)?);
        if let Kind::NewObjEx { kwargs, .. } = node.kind() {
            object.extra.push(("kwargs", self.part("kwargs", node.other(kwargs))?));
        }
        let reduced = matches!(node.kind(), Kind::Reduce { .. }) && !made_by_copyreg;
        self.state(node, &mut object, reduced)?;
        if args.is_empty() && object.value.is_some() {
            object.args = None;
        }
        Ok(Value::Object(Box::new(object)))
    }

    /// Adds attributes, other state, appended items and set pairs. For an object without arguments
    /// one of them is its plain form: the pairs of a subclass of dict, the items of one of list,
    /// else the attributes.
    fn state(&mut self, node: NodeRef<'_>, object: &mut Object, reduced: bool) -> Result<()> {
        let bare = object.args.as_ref().is_none_or(Vec::is_empty) && object.extra.is_empty();
        let (items, pairs, state) = (node.items(), node.pairs(), node.state());
        if !pairs.is_empty() {
            let pairs = self.dict(&pairs)?;
            match bare {
                true => object.value = Some(pairs),
                false => object.extra.push(("pairs", pairs)),
            }
        }
        if !items.is_empty() {
            let items = Value::List(self.list(&items)?);
            match bare && object.value.is_none() {
                true => object.value = Some(items),
                false => object.extra.push(("items", items)),
            }
        }
        let Some(state) = state else {
            if bare && !reduced && object.value.is_none() {
                object.value = Some(Value::Dict(Vec::new()));
            }
            return Ok(());
        };
        let is_attributes = match state.kind() {
            Kind::Dict => true,
            Kind::Tuple(&[a, b]) => {
                [a, b].iter().all(|&id| matches!(node.other(id).kind(), Kind::Dict | Kind::None))
            }
            _ => false,
        };
        if is_attributes && bare && object.value.is_none() {
            object.value = Some(self.dict(&node.attributes())?);
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
