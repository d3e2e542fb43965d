//! Storages: how a pickle names them, and which element type their class has.

use std::borrow::Cow;

use ckptkit_core::{Dtype, Error, Result};

use crate::pickle::{Global, Kind, NodeRef};

/// What a persistent id says of a storage (`torch/serialization.py`, `persistent_id`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StorageRef<'a> {
    /// The name of its bytes in the container; opaque.
    pub(crate) key: Cow<'a, str>,
    /// The element type of its class; `None` for untyped bytes.
    pub(crate) dtype: Option<Dtype>,
    /// Where it lived: `cpu`, `cuda:0`, `meta`, …
    pub(crate) location: Cow<'a, str>,
    /// Elements of the root storage (bytes for untyped and packed classes).
    pub(crate) numel: u64,
    /// (offset, numel) of a part of the storage, in elements: old legacy streams.
    pub(crate) view: Option<(u64, u64)>,
}

impl StorageRef<'_> {
    /// Bytes that the root storage must have.
    pub(crate) fn byte_len(&self) -> Option<u64> {
        self.numel.checked_mul(self.unit_bytes())
    }

    /// Bytes of one of the elements that `numel` counts.
    pub(crate) fn unit_bytes(&self) -> u64 {
        self.dtype.and_then(Dtype::element_bytes).unwrap_or(1)
    }
}

/// The element type of a storage or legacy tensor class: `FloatStorage`, `torch.cuda.HalfTensor`.
/// `Some(None)` is a class without one (`UntypedStorage`).
pub(crate) fn class_dtype(class: Global<'_>) -> Option<Option<Dtype>> {
    if !matches!(
        class.module,
        "torch"
            | "torch.cuda"
            | "torch.storage"
            | "torch.sparse"
            | "torch.cuda.sparse"
            | "torch._tensor"
            | "torch.tensor"
    ) {
        return None;
    }
    let name = class.name.strip_suffix("Storage").or_else(|| class.name.strip_suffix("Tensor"))?;
    Some(Some(match name {
        "Double" => Dtype::F64,
        "Float" => Dtype::F32,
        "Half" => Dtype::F16,
        "BFloat16" => Dtype::Bf16,
        "Long" => Dtype::I64,
        "Int" => Dtype::I32,
        "Short" => Dtype::I16,
        "Char" => Dtype::I8,
        "Byte" => Dtype::U8,
        "Bool" => Dtype::Bool,
        "ComplexDouble" => Dtype::C128,
        "ComplexFloat" => Dtype::C64,
        "QInt8" => Dtype::Qint8,
        "QUInt8" => Dtype::Quint8,
        "QInt32" => Dtype::Qint32,
        "QUInt4x2" => Dtype::Quint4x2,
        "QUInt2x4" => Dtype::Quint2x4,
        "Untyped" | "_Untyped" | "Typed" | "_Typed" | "" => return Some(None),
        _ => return None,
    }))
}

/// Module and name of the storage class of a dtype, as today's torch writes it; an untyped one for
/// the dtypes that came after typed storages.
pub(crate) fn class_of(dtype: Option<Dtype>) -> (&'static str, &'static str) {
    let name = match dtype {
        Some(Dtype::F64) => "DoubleStorage",
        Some(Dtype::F32) => "FloatStorage",
        Some(Dtype::F16) => "HalfStorage",
        Some(Dtype::Bf16) => "BFloat16Storage",
        Some(Dtype::I64) => "LongStorage",
        Some(Dtype::I32) => "IntStorage",
        Some(Dtype::I16) => "ShortStorage",
        Some(Dtype::I8) => "CharStorage",
        Some(Dtype::U8) => "ByteStorage",
        Some(Dtype::Bool) => "BoolStorage",
        Some(Dtype::C128) => "ComplexDoubleStorage",
        Some(Dtype::C64) => "ComplexFloatStorage",
        Some(Dtype::Qint8) => "QInt8Storage",
        Some(Dtype::Quint8) => "QUInt8Storage",
        Some(Dtype::Qint32) => "QInt32Storage",
        Some(Dtype::Quint4x2) => "QUInt4x2Storage",
        Some(Dtype::Quint2x4) => "QUInt2x4Storage",
        _ => return ("torch.storage", "UntypedStorage"),
    };
    ("torch", name)
}

/// Whether storages of a dtype have a class of their own.
pub(crate) fn is_typed(dtype: Dtype) -> bool {
    class_of(Some(dtype)).0 == "torch"
}

/// A storage's id has five fields, in old streams six.
const MAX_FIELDS: usize = 6;

/// Reads a persistent id as a storage; `None` when it is something else (a module, a tar-era key).
pub(crate) fn parse(id: NodeRef<'_>) -> Option<Result<StorageRef<'_>>> {
    if let Kind::Str(text) = id.kind() {
        return parse_repr(std::str::from_utf8(text).ok()?);
    }
    if !matches!(id.kind(), Kind::Tuple(_) | Kind::List) {
        return None;
    }
    let mut room = [id; MAX_FIELDS + 1];
    let fields = id.first_items(&mut room);
    (fields.first()?.as_str()? == "storage").then(|| {
        let &[_, class, key, location, numel, ref view @ ..] = fields else {
            return Err(Error::malformed(format!(
                "a storage id has {} fields, expected 5 or 6",
                fields.len()
            )));
        };
        let class =
            class.as_global().ok_or_else(|| Error::malformed("a storage id names no class"))?;
        let dtype = class_dtype(class).ok_or_else(|| {
            Error::unsupported(format!("storage class {class} is not known"))
                .hint("leave the tensor out")
        })?;
        let key = name(key).ok_or_else(|| Error::malformed("a storage's key is not text"))?;
        let numel = numel.as_u64().ok_or_else(|| {
            Error::malformed(format!("storage {key} has no valid number of elements"))
        })?;
        let view = match view.first() {
            Some(view) if !view.is_none() => {
                let v = view.items();
                let [view_key, offset, len] = v[..] else {
                    return Err(Error::malformed(format!(
                        "storage {key}: a view has {} fields, expected 3",
                        v.len()
                    )));
                };
                match (name(view_key), offset.as_u64(), len.as_u64()) {
                    (Some(_), Some(o), Some(n)) => Some((o, n)),
                    _ => {
                        return Err(Error::malformed(format!(
                            "storage {key}: a view's fields are not a key and two counts"
                        )));
                    }
                }
            }
            _ => None,
        };
        Ok(StorageRef {
            key,
            dtype,
            location: location.as_str().unwrap_or("cpu").into(),
            numel,
            view,
        })
    })
}

/// A storage's name: text, or a number in old streams.
fn name(key: NodeRef<'_>) -> Option<Cow<'_, str>> {
    let text = key.as_str().map(Cow::Borrowed);
    text.or_else(|| key.as_int().map(|i| Cow::Owned(i.to_string())))
}

/// Protocol 0 writes the id as Python prints it:
/// `('storage', <class 'torch.FloatStorage'>, '0', 'cpu', 2)`.
fn parse_repr(text: &str) -> Option<Result<StorageRef<'_>>> {
    let body = text.strip_prefix("('storage', <class '")?.strip_suffix(')')?;
    let bad = || Error::malformed(format!("storage id {text:?} cannot be read"));
    let parse = || {
        let (class, rest) = body.split_once("'>, ").ok_or_else(bad)?;
        let (module, name) = class.rsplit_once('.').ok_or_else(bad)?;
        let fields: Vec<&str> = rest.split(", ").collect();
        let [key, location, numel] = fields[..] else { return Err(bad()) };
        Ok(StorageRef {
            key: unquoted(key).ok_or_else(bad)?,
            dtype: class_dtype(Global { module, name }).ok_or_else(bad)?,
            location: unquoted(location).ok_or_else(bad)?,
            numel: numel.parse().map_err(|_| bad())?,
            view: None,
        })
    };
    Some(parse())
}

fn unquoted(text: &str) -> Option<Cow<'_, str>> {
    text.strip_prefix('\'')?.strip_suffix('\'').map(Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_0_ids() {
        let id = parse_repr("('storage', <class 'torch.FloatStorage'>, '0', 'cuda:1', 2)")
            .unwrap()
            .unwrap();
        assert_eq!(
            (&*id.key, id.dtype, &*id.location, id.byte_len()),
            ("0", Some(Dtype::F32), "cuda:1", Some(8))
        );
        assert!(parse_repr("('storage', <class 'torch.FloatStorage'>, '0')").unwrap().is_err());
        assert!(parse_repr("94213").is_none());
    }

    #[test]
    fn classes() {
        let class = |module, name| class_dtype(Global { module, name });
        assert_eq!(class("torch", "QUInt4x2Storage"), Some(Some(Dtype::Quint4x2)));
        assert_eq!(class("torch.cuda", "HalfTensor"), Some(Some(Dtype::F16)));
        assert_eq!(class("torch.storage", "UntypedStorage"), Some(None));
        assert_eq!(class("mine", "FloatStorage"), None);
        for dtype in Dtype::all() {
            let (module, name) = class_of(Some(dtype));
            let read = if is_typed(dtype) { Some(dtype) } else { None };
            assert_eq!(class(module, name), Some(read), "{dtype}");
        }
    }
}
