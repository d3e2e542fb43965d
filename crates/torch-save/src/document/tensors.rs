//! Tensors as the calls that torch rebuilds them from.

use std::collections::HashMap;
use std::ops::Range;

use ckptkit_core::{
    Dtype, Error, Result, ResultExt, Section, StorageId, Tensor, TensorBytes, Transform, shape,
};

use super::view::{self, View};
use super::{Body, Document, Stored};
use crate::pickle::NodeId;
use crate::storage;

/// Where a tensor lies in the storage that is written for it.
struct Placed {
    storage: NodeId,
    /// In elements as torch counts them, as the strides are.
    offset: u64,
    strides: Vec<u64>,
}

impl Document {
    /// Adds tensors; gives their nodes. Those that share a storage in the checkpoint that they
    /// come from share one here, cut to what they see of it, and views stay views. Conjugate and
    /// negative bits are resolved. All tensors of one call must come from one checkpoint.
    ///
    /// # Errors
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported), naming the tensor, for one without
    /// bytes and for dtypes that torch lacks, or has only together with scales.
    pub fn tensors(&mut self, tensors: &[Tensor]) -> Result<Vec<NodeId>> {
        self.own();
        let placed = self.place(tensors)?;
        tensors
            .iter()
            .zip(placed)
            .map(|(tensor, placed)| {
                let view = View {
                    offset: placed.offset,
                    strides: placed.strides,
                    ..View::new(placed.storage, tensor.dtype(), tensor.shape())
                };
                self.rebuild(&view).within(|| format!("tensor {}", tensor.name()))
            })
            .collect()
    }

    /// As [`Document::tensors`], of one.
    ///
    /// # Errors
    /// As [`Document::tensors`].
    pub fn tensor(&mut self, tensor: &Tensor) -> Result<NodeId> {
        let nodes = self.tensors(std::slice::from_ref(tensor))?;
        nodes.first().copied().ok_or_else(|| Error::invalid("no tensor was given"))
    }

    /// An `nn.Parameter` around a tensor's node.
    pub fn parameter(&mut self, data: NodeId, requires_grad: bool) -> NodeId {
        self.own();
        let (b, constants) = (&mut self.builder, &mut self.constants);
        let (requires_grad, hooks) = (constants.bool(b, requires_grad), constants.ordered_dict(b));
        b.call("torch._utils", "_rebuild_parameter", &[data, requires_grad, hooks])
    }

    /// An `OrderedDict` of tensors under these keys: a state dict.
    ///
    /// # Errors
    /// As [`Document::tensors`].
    pub fn state_dict(&mut self, tensors: &[Tensor]) -> Result<NodeId> {
        let nodes = self.tensors(tensors)?;
        let b = &mut self.builder;
        let dict = self.constants.ordered_dict(b);
        let pairs: Vec<_> =
            tensors.iter().zip(nodes).map(|(t, node)| (b.str(t.name()), node)).collect();
        b.set_items(dict, &pairs);
        Ok(dict)
    }

    fn place(&mut self, tensors: &[Tensor]) -> Result<Vec<Placed>> {
        let mut groups: HashMap<StorageId, Vec<usize>> = HashMap::new();
        for (i, tensor) in tensors.iter().enumerate() {
            writable(tensor).within(|| format!("tensor {}", tensor.name()))?;
            if let (Some(id), Some(_)) = (tensor.info().storage(), extent(tensor)) {
                groups.entry(id).or_default().push(i);
            }
        }
        // What was placed of each storage; a view alone is a group of one.
        let mut shared: HashMap<usize, Placed> = HashMap::new();
        let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
        groups.sort();
        for members in groups {
            self.place_group(tensors, &members, &mut shared);
        }
        self.stored.reserve_exact(tensors.len() - shared.len());
        let mut out: Vec<Placed> = Vec::with_capacity(tensors.len());
        let mut computed: HashMap<StorageId, Vec<usize>> = HashMap::new();
        for (i, tensor) in tensors.iter().enumerate() {
            if let Some(placed) = shared.remove(&i) {
                out.push(placed);
                continue;
            }
            // Cast values of one tensor under two names are computed once.
            let twins = tensor.info().storage().map(|id| computed.entry(id).or_default());
            let twin = twins
                .as_ref()
                .and_then(|t| t.iter().copied().find(|&j| tensors[j].is_tied_with(tensor)));
            if let Some(twins) = twins {
                twins.push(i);
            }
            let placed = match twin {
                Some(j) => {
                    Placed { storage: out[j].storage, strides: out[j].strides.clone(), ..out[j] }
                }
                None => self.place_alone(tensor),
            };
            out.push(placed);
        }
        Ok(out)
    }

    /// A storage of the tensor's own, row-major.
    fn place_alone(&mut self, tensor: &Tensor) -> Placed {
        let dtype = tensor.dtype();
        let untyped = !storage::is_typed(dtype);
        let body = Body::of(tensor);
        let unit = dtype.element_bytes().filter(|_| !untyped).unwrap_or(1);
        let storage = self.store(Stored {
            dtype: (!untyped).then_some(dtype),
            location: "cpu".into(),
            numel: tensor.byte_len() / unit,
            body: Ok(body),
        });
        let strides = shape::row_major_strides(&torch_shape(tensor));
        Placed { storage, offset: 0, strides }
    }

    /// One storage for tensors that see parts of one. Nothing where they do not fit together.
    fn place_group(
        &mut self,
        tensors: &[Tensor],
        members: &[usize],
        out: &mut HashMap<usize, Placed>,
    ) {
        let found: Vec<(usize, Extent<'_>)> =
            members.iter().filter_map(|&i| Some((i, extent(&tensors[i])?))).collect();
        let Some((first, lead)) = found.first() else { return };
        let dtype = tensors[*first].dtype();
        let same = found.iter().all(|(i, _)| tensors[*i].dtype() == dtype);
        let untyped = !same || !storage::is_typed(dtype);
        let start = found.iter().map(|(_, e)| e.bytes.start).min().unwrap_or_default();
        let end = found.iter().map(|(_, e)| e.bytes.end).max().unwrap_or_default();
        let fits = found.iter().all(|(i, e)| {
            let unit = tensors[*i].dtype().element_bytes().unwrap_or(1);
            std::ptr::addr_eq(
                std::sync::Arc::as_ptr(e.section.source()),
                std::sync::Arc::as_ptr(lead.section.source()),
            ) && e.swap == lead.swap
                && (e.bytes.start - start) % unit == 0
        });
        let unit = dtype.element_bytes().filter(|_| !untyped).unwrap_or(1);
        if !fits || (lead.swap && untyped) || (end - start) % unit != 0 {
            return;
        }
        let whole = Section::new(std::sync::Arc::clone(lead.section.source()));
        let body = whole.slice(start, end - start).and_then(|section| {
            if lead.swap { Body::swapped(section, dtype) } else { Ok(Body::Section(section, None)) }
        });
        let storage = self.store(Stored {
            dtype: (!untyped).then_some(dtype),
            location: "cpu".into(),
            numel: (end - start) / unit,
            body,
        });
        for (i, e) in found {
            let unit = tensors[i].dtype().element_bytes().unwrap_or(1);
            let offset = (e.bytes.start - start) / unit;
            out.insert(i, Placed { storage, offset, strides: e.strides });
        }
    }
}

/// What a tensor sees of its source.
struct Extent<'a> {
    section: &'a Section,
    /// From its first element to its last one, in the source.
    bytes: Range<u64>,
    strides: Vec<u64>,
    swap: bool,
}

/// `None` for a tensor whose values are not simply there.
fn extent(tensor: &Tensor) -> Option<Extent<'_>> {
    let Transform { swap, conj, neg } = tensor.transform();
    if conj || neg || tensor.info().numel() == 0 {
        return None;
    }
    match tensor.bytes() {
        TensorBytes::Range(section) => Some(Extent {
            section,
            bytes: section.offset()..section.offset() + section.len(),
            strides: shape::row_major_strides(&torch_shape(tensor)),
            swap,
        }),
        TensorBytes::Strided(view) => {
            let unit = tensor.dtype().element_bytes()?;
            let end = shape::view_extent(view.offset, tensor.shape(), &view.strides).ok()?;
            let base = view.storage.offset();
            Some(Extent {
                section: &view.storage,
                bytes: base + view.offset * unit..base + end * unit,
                strides: view.strides.clone(),
                swap,
            })
        }
        _ => None,
    }
}

fn torch_shape(tensor: &Tensor) -> Vec<u64> {
    view::torch_shape(tensor.dtype(), tensor.shape())
}

pub(super) fn readable(tensor: &Tensor) -> Result<()> {
    match tensor.bytes() {
        TensorBytes::None(why) => {
            Err(Error::unsupported(format!("there are no bytes to write: {why}")))
        }
        TensorBytes::Broken(e) => Err(e.clone()),
        _ => Ok(()),
    }
}

fn writable(tensor: &Tensor) -> Result<()> {
    readable(tensor)?;
    let dtype = tensor.dtype();
    if dtype.torch_name().is_none() {
        return Err(Error::unsupported(format!("torch has no dtype {dtype}"))
            .hint("cast the tensor to a dtype that it has, or leave the tensor out"));
    }
    if dtype.class() == ckptkit_core::DtypeClass::Quantized {
        return Err(Error::unsupported(format!(
            "{dtype} is the integer part of a quantized tensor, which its scale belongs to"
        ))
        .hint("take the whole object from its file, or leave the tensor out"));
    }
    if dtype == Dtype::F4 && tensor.shape().last().is_none_or(|n| n % 2 != 0) {
        return Err(Error::unsupported(format!(
            "torch keeps two {dtype} in a byte, a last dimension of {:?} cannot be halved",
            tensor.shape()
        )));
    }
    Ok(())
}
