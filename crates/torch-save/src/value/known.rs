//! Classes whose objects have a plain form.

use ckptkit_core::{Dtype, Result};

use super::plain::{Context, array, string, unnamed_tensor};
use super::written::{moment, path};
use super::{Object, Value};
use crate::flatten::scripted;
use crate::numpy::{self, Scalar, raw_bytes};
use crate::pickle::{Global, Kind, NodeRef};
use crate::text;

/// A class or function as a value; torch's dtypes are globals, too.
pub(super) fn global(g: Global<'_>) -> Value {
    let numbered = ["int", "uint"].iter().any(|p| {
        g.name.strip_prefix(p).is_some_and(|n| matches!(n, "1" | "2" | "3" | "4" | "5" | "6" | "7"))
    });
    if g.module == "torch" && (Dtype::from_torch(g.name).is_some() || numbered) {
        return object("torch.dtype", Value::Str(g.name.to_owned()));
    }
    Value::Global(g.to_string())
}

fn object(class: &str, value: Value) -> Value {
    Value::Object(Box::new(Object {
        class: class.to_owned(),
        value: Some(value),
        ..Object::default()
    }))
}

/// The plain form of an object of a known class.
pub(super) fn value(cx: &mut Context<'_>, node: NodeRef<'_>) -> Option<Result<Value>> {
    if let Some(array) = array(node) {
        return Some(Ok(array));
    }
    if let Some((class, scalar)) = numpy::scalar(node) {
        return Some(Ok(object(&class, scalar_value(scalar))));
    }
    if let Some(tensor) = unnamed_tensor(node) {
        return Some(Ok(tensor));
    }
    let inner = scripted(node);
    if inner.id() != node.id() {
        return Some(cx.value(inner));
    }
    let (callable, args) = node.call()?;
    let g = callable.as_global()?;
    match (g.module, g.name) {
        ("collections", _) => collection(cx, node, g, &args),
        ("builtins", _) | ("_codecs", "encode") => builtin(cx, node, g, &args),
        ("datetime", "timedelta") => {
            let unit = |i: usize| args.get(i).map_or(Some(0), |n| n.as_int()).map(Value::Int);
            let units: Option<Vec<Value>> = (0..3).map(unit).collect();
            Some(Ok(object(&g.to_string(), Value::List(units?))))
        }
        ("datetime" | "decimal" | "uuid", _) => {
            moment(node, g, &args).map(|text| Ok(object(&g.to_string(), Value::Str(text))))
        }
        ("torch", "Size") => {
            let items = args.first().map(|a| a.items()).unwrap_or_default();
            Some(cx.list(&items).map(|v| object("torch.Size", Value::List(v))))
        }
        ("torch", "device") => {
            let kind = args.first()?.as_str()?;
            let text = args
                .get(1)
                .and_then(|i| i.as_int())
                .map_or_else(|| kind.to_owned(), |i| format!("{kind}:{i}"));
            Some(Ok(object("torch.device", Value::Str(text))))
        }
        ("pathlib" | "pathlib._local", name) => {
            path(g, &args).map(|p| Ok(object(&format!("pathlib.{name}"), Value::Str(p))))
        }
        (module, _) if module == "omegaconf" || module.starts_with("omegaconf.") => {
            let plain = config(cx, node)?;
            Some(plain.map(|v| object(&g.to_string(), v)))
        }
        _ => None,
    }
}

fn scalar_value(scalar: Scalar) -> Value {
    match scalar {
        Scalar::Bool(b) => Value::Bool(b),
        Scalar::Int(i) => Value::Int(i),
        Scalar::UInt(u) => super::plain::integer(u),
        Scalar::Float(f) => Value::Float(f),
        Scalar::Complex(re, im) => Value::Complex(re, im),
        Scalar::Str(s) => Value::Str(s),
        Scalar::Bytes(b) => Value::Bytes(b),
    }
}

fn collection(
    cx: &mut Context<'_>,
    node: NodeRef<'_>,
    g: Global<'_>,
    args: &[NodeRef<'_>],
) -> Option<Result<Value>> {
    let mut made = Object { class: g.to_string(), ..Object::default() };
    let done: Result<()> = (|| {
        match g.name {
            "OrderedDict" | "Counter" | "defaultdict" => {
                let mut pairs = Vec::new();
                for arg in args {
                    match arg.kind() {
                        Kind::Dict => pairs.extend(arg.pairs()),
                        Kind::List => {
                            pairs.extend(arg.items().iter().filter_map(|p| match p.items()[..] {
                                [k, v] => Some((k, v)),
                                _ => None,
                            }))
                        }
                        _ => {}
                    }
                }
                if g.name == "defaultdict" {
                    let factory = args.first().map(|&f| cx.part("default_factory", f));
                    let factory = factory.transpose()?.unwrap_or(Value::None);
                    made.extra.push(("default_factory", factory));
                }
                pairs.extend(node.pairs());
                made.value = Some(cx.dict(&pairs)?);
            }
            _ => {
                let mut items = args.first().map(|a| a.items()).unwrap_or_default();
                items.extend(node.items());
                let items = cx.list(&items)?;
                made.value = Some(Value::List(items));
                if let Some(maxlen) = args.get(1).filter(|m| !m.is_none()) {
                    let maxlen = cx.part("maxlen", *maxlen)?;
                    made.extra.push(("maxlen", maxlen));
                }
            }
        }
        if let Some(state) = node.state().filter(|s| !s.is_none()) {
            let state = cx.part("state", state)?;
            made.extra.push(("state", state));
        }
        Ok(())
    })();
    matches!(g.name, "OrderedDict" | "Counter" | "defaultdict" | "deque")
        .then(|| done.map(|()| Value::Object(Box::new(made))))
}

fn builtin(
    cx: &mut Context<'_>,
    node: NodeRef<'_>,
    g: Global<'_>,
    args: &[NodeRef<'_>],
) -> Option<Result<Value>> {
    match g.name {
        "bytearray" => raw_bytes(node).map(|b| Ok(Value::ByteArray(b))),
        "bytes" | "encode" => raw_bytes(node).map(|b| Ok(Value::Bytes(b))),
        "set" | "frozenset" => {
            let mut items = args.first().map(|a| a.items()).unwrap_or_default();
            items.extend(node.items());
            let items = cx.list(&items);
            Some(items.map(|v| if g.name == "set" { Value::Set(v) } else { Value::FrozenSet(v) }))
        }
        // How protocols below 4 name what is in a class, and what no module holds.
        "getattr" => text::qualified(node).map(|name| Ok(Value::Global(name))),
        "type" if args.first().is_some_and(|a| a.is_none()) => {
            Some(Ok(Value::Global("builtins.NoneType".into())))
        }
        "complex" => match args {
            [re, im] => Some(Ok(Value::Complex(re.as_f64()?, im.as_f64()?))),
            _ => None,
        },
        _ => None,
    }
}

/// `OmegaConf.to_container(node, resolve=False)`: containers by their `_content`, nodes by their
/// `_val`; interpolations and `???` stay the text that they are.
pub(super) fn config(cx: &mut Context<'_>, node: NodeRef<'_>) -> Option<Result<Value>> {
    let Some(content) = node.attribute("_content") else {
        return node.attribute("_val").map(|value| cx.part("_val", value));
    };
    Some(match content.kind() {
        Kind::Dict => {
            let mut pair = |(key, value): (NodeRef<'_>, NodeRef<'_>)| {
                let name = ckptkit_core::join(&[text::key(key)]);
                Ok((cx.part(name.clone(), key)?, cx.config_part(name, value)?))
            };
            content.pairs().into_iter().map(&mut pair).collect::<Result<_>>().map(Value::Dict)
        }
        Kind::List => {
            let items = content.items().into_iter().enumerate();
            let items = items.map(|(i, value)| cx.config_part(i.to_string(), value));
            items.collect::<Result<_>>().map(Value::List)
        }
        Kind::Str(s) => Ok(string(s)),
        _ => cx.part("_content", content),
    })
}
