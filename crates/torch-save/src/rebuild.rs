//! Recognises the constructions that torch rebuilds tensors from. Nothing is built: a construction
//! becomes a description.
//!
//! Source of truth: `torch/_utils.py` and `torch/_tensor.py` (`__reduce_ex__`) of torch 2.15, and
//! what older releases wrote.

mod composed;

use std::sync::Arc;

use ckptkit_core::{Dtype, Error, Key, Result};

use crate::pickle::{Global, Kind, NodeRef};
use crate::storage::{self, StorageRef};
use composed::{
    from_numpy, is_jagged, is_said_of_jagged, jagged, meta, nested, quantized, sparse, wrapper,
};

/// Wrappers (parameter of subclass of …) nest a few deep in real files.
const MAX_WRAPPERS: usize = 16;
/// No construction of a tensor takes more arguments; a hostile tuple may be long and shared.
const MAX_ARGUMENTS: usize = 16;
/// A storage object has one attribute or two.
const MAX_STORAGE_ATTRIBUTES: usize = 64;

/// What kind of entry a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TensorKind {
    /// A plain tensor.
    Plain,
    /// An `nn.Parameter`.
    Parameter,
    /// An `nn.Buffer`.
    Buffer,
    /// Integers with scales; the bytes are the integer representation.
    Quantized,
    /// Made of index and value tensors, listed under it.
    Sparse,
    /// Made of a buffer and its geometry, listed under it.
    Nested,
    /// A shape without bytes.
    Meta,
    /// One rank's shard of a larger tensor (DTensor), listed under it as `local`.
    Distributed,
    /// A wrapper around other tensors, listed under it.
    Wrapper,
}

impl TensorKind {
    /// The word for it in listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "tensor",
            Self::Parameter => "parameter",
            Self::Buffer => "buffer",
            Self::Quantized => "quantized",
            Self::Sparse => "sparse",
            Self::Nested => "nested",
            Self::Meta => "meta",
            Self::Distributed => "distributed",
            Self::Wrapper => "wrapper",
        }
    }
}

/// Where a described tensor's bytes are.
#[derive(Debug)]
pub(crate) enum Form<'a> {
    Strided {
        storage: StorageRef<'a>,
        offset: u64,
        strides: Vec<u64>,
        conj: bool,
        neg: bool,
    },
    /// In the pickle itself.
    Inline(Vec<u8>),
    /// A persistent id that only the container understands (tar era).
    Persistent,
    None(&'static str),
    Broken(Error),
}

/// A tensor as its construction describes it.
#[derive(Debug)]
pub(crate) struct Spec<'a> {
    pub(crate) kind: TensorKind,
    pub(crate) dtype: Dtype,
    /// As torch counts it: for `float4_e2m1fn_x2` the last dimension counts pairs.
    pub(crate) shape: Vec<u64>,
    pub(crate) form: Form<'a>,
    pub(crate) requires_grad: bool,
    /// The class that the tensor is cast to, where it is not torch's own.
    pub(crate) class: Option<Arc<str>>,
    /// What is listed under it.
    pub(crate) parts: Vec<(Key, NodeRef<'a>)>,
}

impl<'a> Spec<'a> {
    fn without_bytes(kind: TensorKind, dtype: Dtype, shape: Vec<u64>, why: &'static str) -> Self {
        Self {
            kind,
            dtype,
            shape,
            form: Form::None(why),
            requires_grad: false,
            class: None,
            parts: Vec::new(),
        }
    }

    fn part(mut self, name: &str, node: NodeRef<'a>) -> Self {
        self.parts.push((Key::Str(name.into()), node));
        self
    }
}

/// Describes a node that is a tensor: `None` when it is none, an error when its construction is
/// malformed in a way that leaves not even a shape.
pub(crate) fn recognise(node: NodeRef<'_>) -> Option<Result<Spec<'_>>> {
    recognise_within(node, 0)
}

fn recognise_within(node: NodeRef<'_>, depth: usize) -> Option<Result<Spec<'_>>> {
    if depth > MAX_WRAPPERS {
        return Some(Err(too_many_wrappers()));
    }
    let (callable, given) = node.callable()?;
    let class = callable.as_global().filter(|g| g.module.starts_with("torch"))?;
    let mut args = [node; MAX_ARGUMENTS];
    recognise_call(node, class, given.first_items(&mut args), depth)
}

fn recognise_call<'a>(
    node: NodeRef<'a>,
    callable: Global<'a>,
    args: &[NodeRef<'a>],
    depth: usize,
) -> Option<Result<Spec<'a>>> {
    match (callable.module, callable.name) {
        ("torch._utils", name) => match name {
            "_rebuild_tensor" | "_rebuild_tensor_v2" => Some(strided(args)),
            "_rebuild_tensor_v3" => Some(strided_untyped(args)),
            "_rebuild_parameter" => Some(wrapped(args, TensorKind::Parameter, 1, depth)),
            "_rebuild_parameter_with_state" => {
                Some(wrapped(args, TensorKind::Parameter, 1, depth).map(|spec| match args.get(3) {
                    Some(&state) => with_state(spec, state),
                    None => spec,
                }))
            }
            "_rebuild_qtensor" => Some(quantized(args)),
            "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => Some(sparse(args, depth)),
            "_rebuild_meta_tensor_no_storage" => Some(meta(args)),
            "_rebuild_wrapper_subclass" => Some(wrapper(args)),
            "_rebuild_device_tensor_from_numpy" | "_rebuild_xla_tensor" => Some(from_numpy(args)),
            "_rebuild_device_tensor_from_cpu_tensor" => {
                Some(wrapped(args, TensorKind::Plain, 3, depth))
            }
            "_rebuild_nested_tensor" => Some(nested(args, depth)),
            _ => None,
        },
        ("torch._tensor" | "torch.tensor", "_rebuild_from_type" | "_rebuild_from_type_v2") => {
            let &[func, class, inner, state, ..] = args else {
                return Some(Err(wrong_arguments(callable, args.len())));
            };
            // The arguments may hold themselves.
            if depth > MAX_WRAPPERS {
                return Some(Err(too_many_wrappers()));
            }
            let mut room = [node; MAX_ARGUMENTS];
            let inner = inner.first_items(&mut room);
            let spec = recognise_call(node, func.as_global()?, inner, depth + 1)?;
            Some(spec.map(|spec| cast(spec, class.as_global(), state)))
        }
        ("torch.nested._internal.nested_tensor", "_rebuild_njt" | "NestedTensor") => {
            Some(jagged(args, depth))
        }
        ("torch.nn.parameter" | "torch.nn", "Parameter" | "Buffer" | "UninitializedParameter") => {
            let kind =
                if callable.name == "Buffer" { TensorKind::Buffer } else { TensorKind::Parameter };
            match args.first() {
                Some(_) => Some(wrapped(args, kind, 1, depth).map(|s| with_old_state(s, node))),
                None => Some(from_state(node).map(|spec| Spec { kind, ..spec })),
            }
        }
        ("torch.autograd.variable" | "torch.autograd", "Variable") => {
            Some(wrapped(args, TensorKind::Plain, 1, depth).map(|spec| with_old_state(spec, node)))
        }
        ("torch._tensor" | "torch", "Tensor") => Some(from_state(node)),
        _ if callable.name.ends_with("Tensor") && storage::class_dtype(callable).is_some() => {
            Some(from_state(node))
        }
        _ => None,
    }
}

fn too_many_wrappers() -> Error {
    Error::malformed(format!("more than {MAX_WRAPPERS} wrappers around one tensor"))
}

fn wrong_arguments(callable: Global<'_>, found: usize) -> Error {
    Error::malformed(format!("{callable} is called with {found} arguments, which is too few"))
}

fn storage_of(node: NodeRef<'_>) -> Result<StorageRef<'_>> {
    match node.kind() {
        Kind::PersId(id) => storage::parse(node.other(id))
            .unwrap_or_else(|| Err(Error::malformed("a persistent id is no storage"))),
        // A typed storage as an object of its own, around an untyped one.
        _ => node
            .state()
            .filter(|state| {
                state.iter_pairs().take(MAX_STORAGE_ATTRIBUTES + 1).count()
                    <= MAX_STORAGE_ATTRIBUTES
            })
            .and_then(|_| node.attribute("_untyped_storage"))
            .filter(|inner| inner.id() != node.id())
            .and_then(|inner| match inner.kind() {
                Kind::PersId(id) => storage::parse(inner.other(id)),
                _ => None,
            })
            .unwrap_or_else(|| Err(Error::malformed("a tensor's storage is no persistent id"))),
    }
}

/// A tuple of sizes; also `torch.Size((…))`.
fn dims(node: NodeRef<'_>, what: &str) -> Result<Vec<u64>> {
    let items = match node.class() {
        Some(g) if g.is("torch", "Size") => node.arguments(1).first().copied().unwrap_or(node),
        _ => node,
    };
    // One more than there may be is enough to be refused.
    let most = ckptkit_core::shape::MAX_DIMS + 1;
    let dim = |d: NodeRef<'_>| {
        d.as_u64().ok_or_else(|| {
            let found = crate::text::repr(d);
            Error::malformed(format!("{what} {found} is not an integer from 0 up"))
        })
    };
    let Some(ids) = items.plain_tuple() else {
        return items.iter_items().take(most).map(dim).collect();
    };
    let mut dims = Vec::with_capacity(ids.len().min(most));
    for &id in ids.iter().take(most) {
        dims.push(dim(node.other(id))?);
    }
    Ok(dims)
}

fn dtype_of(node: NodeRef<'_>) -> Result<Dtype> {
    let global = node.as_global().filter(|g| g.module == "torch");
    let global = global.ok_or_else(|| Error::malformed("a tensor's dtype is no name"))?;
    Dtype::from_torch(global.name)
        .ok_or_else(|| Error::unsupported(format!("dtype {global} is not known")))
}

/// A description whose geometry may be wrong in a way that still leaves a shape to list.
fn describe<'a>(
    storage: Result<StorageRef<'a>>,
    dtype: Option<Dtype>,
    offset: NodeRef<'_>,
    size: NodeRef<'_>,
    stride: NodeRef<'_>,
) -> Result<(Dtype, Vec<u64>, Form<'a>)> {
    let shape = dims(size, "size")?;
    let storage = storage?;
    let dtype = dtype.or(storage.dtype).unwrap_or(Dtype::U8);
    let geometry = || {
        let offset = offset.as_u64().ok_or_else(|| {
            Error::malformed(format!(
                "storage offset {} is not an integer from 0 up",
                crate::text::repr(offset)
            ))
        })?;
        let strides = dims(stride, "stride")?;
        if strides.len() != shape.len() {
            return Err(Error::malformed(format!(
                "size {shape:?} and stride {strides:?} have different numbers of dimensions"
            )));
        }
        Ok((offset, strides))
    };
    let form = match geometry() {
        Ok((offset, strides)) => {
            Form::Strided { storage, offset, strides, conj: false, neg: false }
        }
        Err(e) => Form::Broken(e),
    };
    Ok((dtype, shape, form))
}

/// `_rebuild_tensor(storage, offset, size, stride)`, `_v2(…, requires_grad, hooks[, metadata])`.
fn strided<'a>(args: &[NodeRef<'a>]) -> Result<Spec<'a>> {
    let [storage, offset, size, stride, rest @ ..] = args else {
        return Err(Error::malformed(format!(
            "a tensor is rebuilt from {} arguments, expected at least 4",
            args.len()
        )));
    };
    let (dtype, shape, form) = describe(storage_of(*storage), None, *offset, *size, *stride)?;
    Ok(plain(dtype, shape, form, rest.first(), rest.get(2)))
}

/// `_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])`.
fn strided_untyped<'a>(args: &[NodeRef<'a>]) -> Result<Spec<'a>> {
    let [storage, offset, size, stride, requires_grad, _, dtype, rest @ ..] = args else {
        return Err(Error::malformed(format!(
            "a tensor is rebuilt from {} arguments, expected at least 7",
            args.len()
        )));
    };
    let (dtype, shape, form) =
        describe(storage_of(*storage), Some(dtype_of(*dtype)?), *offset, *size, *stride)?;
    Ok(plain(dtype, shape, form, Some(requires_grad), rest.first()))
}

fn plain<'a>(
    dtype: Dtype,
    shape: Vec<u64>,
    mut form: Form<'a>,
    requires_grad: Option<&NodeRef<'_>>,
    metadata: Option<&NodeRef<'_>>,
) -> Spec<'a> {
    if let (Form::Strided { conj, neg, .. }, Some(metadata)) = (&mut form, metadata) {
        let set = |name| metadata.get(name).and_then(NodeRef::as_bool).unwrap_or(false);
        (*conj, *neg) = (set("conj"), set("neg"));
    }
    let requires_grad = requires_grad.and_then(|n| n.as_bool()).unwrap_or(false);
    Spec {
        kind: TensorKind::Plain,
        dtype,
        shape,
        form,
        requires_grad,
        class: None,
        parts: Vec::new(),
    }
}

fn wrapped<'a>(
    args: &[NodeRef<'a>],
    kind: TensorKind,
    requires_grad: usize,
    depth: usize,
) -> Result<Spec<'a>> {
    let data = args.first().ok_or_else(|| Error::malformed("a parameter without data"))?;
    let spec = recognise_within(*data, depth + 1).unwrap_or_else(|| match data.kind() {
        // Tar era: the data is a persistent id that the container resolves.
        Kind::PersId(_) => Ok(Spec {
            form: Form::Persistent,
            ..Spec::without_bytes(TensorKind::Plain, Dtype::U8, Vec::new(), "")
        }),
        _ => Err(Error::malformed("a parameter's data is no tensor")),
    })?;
    let requires_grad =
        args.get(requires_grad).and_then(|n| n.as_bool()).unwrap_or(spec.requires_grad);
    let kind = if spec.kind == TensorKind::Plain { kind } else { spec.kind };
    Ok(Spec { kind, requires_grad, ..spec })
}

/// Adds what `_rebuild_from_type_v2` does: the class, and the state's own tensors.
fn cast<'a>(mut spec: Spec<'a>, class: Option<Global<'a>>, state: NodeRef<'a>) -> Spec<'a> {
    if let Some(class) = class {
        match (class.module, class.name) {
            ("torch" | "torch._tensor", "Tensor") => {}
            ("torch.nn.parameter", "Parameter") if spec.kind == TensorKind::Plain => {
                spec.kind = TensorKind::Parameter
            }
            ("torch.nn.parameter", "Buffer") if spec.kind == TensorKind::Plain => {
                spec.kind = TensorKind::Buffer
            }
            _ => spec.class = Some(class.to_string().into()),
        }
    }
    with_state(spec, state)
}

fn with_state<'a>(mut spec: Spec<'a>, state: NodeRef<'a>) -> Spec<'a> {
    let dicts: Vec<NodeRef<'a>> = match state.kind() {
        Kind::Tuple(_) => state.iter_items().take(2).collect(),
        _ => vec![state],
    };
    let jagged = is_jagged(&spec);
    for (key, value) in dicts.iter().flat_map(|d| d.pairs()) {
        match key.as_str() {
            Some(name) if jagged && is_said_of_jagged(&spec, name) => {}
            Some("_lengths") if jagged && value.is_none() => {}
            Some("_lengths") if jagged => spec.parts.push((Key::Str("lengths".into()), value)),
            // Beside the shard a DTensor's state holds its mesh, whose ranks are a tensor, too.
            Some("_local_tensor") if spec.kind == TensorKind::Distributed => {
                spec.parts.push((Key::Str("local".into()), value));
            }
            Some(name) if spec.kind != TensorKind::Distributed => {
                spec.parts.push((Key::Str(name.into()), value));
            }
            _ => {}
        }
    }
    spec
}

/// Variables and parameters before torch 0.4: the state is `(requires_grad, volatile, hooks)`.
fn with_old_state<'a>(spec: Spec<'a>, node: NodeRef<'a>) -> Spec<'a> {
    let state = node.state().and_then(|state| state.iter_items().next());
    let requires_grad = state.and_then(NodeRef::as_bool).unwrap_or(spec.requires_grad);
    Spec { requires_grad, ..spec }
}

/// Forms before torch 0.4: a tensor object whose state is `(storage, offset, size, stride)`.
fn from_state(node: NodeRef<'_>) -> Result<Spec<'_>> {
    let state =
        node.state().ok_or_else(|| Error::unsupported("a tensor object without its state"))?;
    strided(state.first_items(&mut [node; MAX_ARGUMENTS]))
}
