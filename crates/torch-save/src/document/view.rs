//! Which part of which storage a tensor's call sees.

use std::ops::Range;

use ckptkit_core::{Dtype, Error, Result, shape};

use super::Document;
use crate::pickle::{Global, Kind, NodeId, NodeRef};
use crate::storage;

/// Calls around the one that sees a storage; they nest a few deep in real files.
const MAX_WRAPPERS: usize = 16;
/// No construction of a tensor takes more arguments.
const MAX_ARGUMENTS: usize = 16;

/// What a tensor sees of a storage, counted as torch counts: offset, size and strides in elements,
/// in pairs of them for [`Dtype::F4`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct View {
    /// The node that refers to the storage.
    pub storage: NodeId,
    /// The element type.
    pub dtype: Dtype,
    /// The first element.
    pub offset: u64,
    /// Elements in every dimension.
    pub size: Vec<u64>,
    /// One stride a dimension.
    pub strides: Vec<u64>,
    /// Whether the call sets it; a wrapper may set it otherwise.
    pub requires_grad: bool,
    /// The value is the complex conjugate of what is stored.
    pub conj: bool,
    /// The value is the negation of what is stored.
    pub neg: bool,
}

impl View {
    /// The start of a storage, row-major, of this shape as [`Tensor::shape`] counts it.
    ///
    /// [`Tensor::shape`]: ckptkit_core::Tensor::shape
    #[must_use]
    pub fn new(storage: NodeId, dtype: Dtype, shape: &[u64]) -> Self {
        let size = torch_shape(dtype, shape);
        let strides = shape::row_major_strides(&size);
        let (requires_grad, conj, neg) = (false, false, false);
        Self { storage, dtype, offset: 0, size, strides, requires_grad, conj, neg }
    }

    /// The bytes of the storage that are the tensor's values as they are, row-major and without
    /// gaps; `None` where they are not.
    #[must_use]
    pub fn run(&self) -> Option<Range<u64>> {
        let fits = self.size.len() == self.strides.len() && !self.conj && !self.neg;
        let numel = shape::numel(&self.size).ok().filter(|_| fits)?;
        if !shape::is_row_major(&self.size, &self.strides) {
            return None;
        }
        let start = self.offset.checked_mul(unit(self.dtype)?)?;
        Some(start..start.checked_add(numel.checked_mul(unit(self.dtype)?)?)?)
    }
}

impl Document {
    /// What the tensor that a node is sees of a storage: a call of `torch._utils._rebuild_tensor`
    /// and its successors, or an old tensor object, also inside the calls that make a parameter, a
    /// buffer or a subclass of it. `None` for everything else; quantized tensors and those that are
    /// made of others are no views. Whether it lies inside the storage is not checked.
    #[must_use]
    pub fn view(&self, node: NodeId) -> Option<View> {
        let mut node = self.node(node);
        for _ in 0..MAX_WRAPPERS {
            let callable = node.class().filter(|g| g.module.starts_with("torch"))?;
            let args = node.arguments(MAX_ARGUMENTS);
            match (callable.module, callable.name) {
                (
                    "torch._utils",
                    "_rebuild_parameter"
                    | "_rebuild_parameter_with_state"
                    | "_rebuild_device_tensor_from_cpu_tensor",
                )
                | ("torch.nn.parameter" | "torch.nn", "Parameter" | "Buffer")
                | ("torch.autograd.variable" | "torch.autograd", "Variable")
                    if !args.is_empty() =>
                {
                    node = *args.first()?;
                }
                (
                    "torch._tensor" | "torch.tensor",
                    "_rebuild_from_type" | "_rebuild_from_type_v2",
                ) => {
                    let [function, _, inner, ..] = args[..] else { return None };
                    let inner: Vec<_> = inner.iter_items().take(MAX_ARGUMENTS).collect();
                    match function.as_global()? {
                        // As the call itself would.
                        g if g.module == "torch._utils" && g.name.contains("parameter") => {
                            node = *inner.first()?;
                        }
                        g => return self.rebuilt(g, &inner),
                    }
                }
                ("torch._utils", _) => return self.rebuilt(callable, &args),
                _ if callable.name.ends_with("Tensor") => {
                    storage::class_dtype(callable)?;
                    let state: Vec<_> = node.state()?.iter_items().take(MAX_ARGUMENTS).collect();
                    return self.seen(&state, None);
                }
                _ => return None,
            }
        }
        None
    }

    fn rebuilt(&self, function: Global<'_>, args: &[NodeRef<'_>]) -> Option<View> {
        if function.module != "torch._utils" {
            return None;
        }
        match function.name {
            "_rebuild_tensor" => self.seen(&args[..args.len().min(4)], None),
            "_rebuild_tensor_v2" => self.seen(args, args.get(6).copied()),
            "_rebuild_tensor_v3" => {
                let dtype = args.get(6)?.as_global().filter(|g| g.module == "torch")?;
                let view = self.seen(args, args.get(7).copied())?;
                Some(View { dtype: Dtype::from_torch(dtype.name)?, ..view })
            }
            _ => None,
        }
    }

    /// `storage, offset, size, stride[, requires_grad]`.
    fn seen(&self, args: &[NodeRef<'_>], metadata: Option<NodeRef<'_>>) -> Option<View> {
        let [storage, offset, size, strides, rest @ ..] = args else { return None };
        let storage = self.untyped(*storage);
        let stored = self.storage(storage.id())?;
        let set = |name| metadata.and_then(|m| m.get(name)).and_then(NodeRef::as_bool);
        Some(View {
            storage: storage.id(),
            dtype: stored.dtype().unwrap_or(Dtype::U8),
            offset: offset.as_u64()?,
            size: dims(*size)?,
            strides: dims(*strides)?,
            requires_grad: rest.first().and_then(|n| n.as_bool()).unwrap_or(false),
            conj: set("conj").unwrap_or(false),
            neg: set("neg").unwrap_or(false),
        })
    }

    /// The storage in a typed one that is an object of its own.
    fn untyped<'a>(&self, node: NodeRef<'a>) -> NodeRef<'a> {
        match node.kind() {
            Kind::PersId(_) => node,
            _ => node.attribute("_untyped_storage").unwrap_or(node),
        }
    }

    /// The call that makes torch rebuild a tensor from a view: of the second form, or of the third
    /// one where the storage is untyped.
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) where the storage is none of
    /// this document, or is one of another dtype;
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for a dtype that torch lacks.
    pub fn rebuild(&mut self, view: &View) -> Result<NodeId> {
        let stored = self
            .storage(view.storage)
            .ok_or_else(|| Error::invalid("the node is no storage of this document"))?;
        let untyped = stored.dtype().is_none();
        if let Some(dtype) = stored.dtype().filter(|d| *d != view.dtype) {
            return Err(Error::invalid(format!(
                "a storage of {dtype} does not hold a tensor of {}",
                view.dtype
            )));
        }
        let name = view
            .dtype
            .torch_name()
            .ok_or_else(|| Error::unsupported(format!("torch has no dtype {}", view.dtype)))?;
        self.own();
        let (b, constants) = (&mut self.builder, &mut self.constants);
        let offset = constants.number(b, view.offset);
        let [size, strides] = [&view.size, &view.strides].map(|dims| {
            let dims: Vec<NodeId> = dims.iter().map(|&d| constants.number(b, d)).collect();
            b.tuple(&dims)
        });
        let requires_grad = constants.bool(b, view.requires_grad);
        let hooks = constants.ordered_dict(b);
        let mut args = vec![view.storage, offset, size, strides, requires_grad, hooks];
        let mut function = "_rebuild_tensor_v2";
        if untyped {
            args.push(b.global("torch", name));
            function = "_rebuild_tensor_v3";
        }
        if view.conj || view.neg {
            let flags = b.dict();
            for (name, set) in [("conj", view.conj), ("neg", view.neg)] {
                if set {
                    let pair = (b.str(name), b.bool(true));
                    b.set_items(flags, &[pair]);
                }
            }
            args.push(flags);
        }
        Ok(b.call("torch._utils", function, &args))
    }
}

fn dims(node: NodeRef<'_>) -> Option<Vec<u64>> {
    let items = match node.class() {
        Some(g) if g.is("torch", "Size") => *node.arguments(1).first()?,
        _ => node,
    };
    // One more than there may be is enough to be refused.
    let dims = items.iter_items().take(shape::MAX_DIMS + 1).map(NodeRef::as_u64);
    dims.collect::<Option<Vec<u64>>>().filter(|d| d.len() <= shape::MAX_DIMS)
}

/// torch counts pairs of 4-bit floats.
pub(super) fn torch_shape(dtype: Dtype, shape: &[u64]) -> Vec<u64> {
    let mut shape = shape.to_vec();
    if dtype == Dtype::F4 {
        if let Some(last) = shape.last_mut() {
            *last /= 2;
        }
    }
    shape
}

/// Bytes of what torch counts as one element; packed quantized ones have no such number.
fn unit(dtype: Dtype) -> Option<u64> {
    if dtype == Dtype::F4 { Some(1) } else { dtype.element_bytes() }
}
