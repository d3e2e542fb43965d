//! Tensors that are made of others, or of less than a storage.

use ckptkit_core::{Dtype, Error, Key, Result};

use super::{
    Form, MAX_ARGUMENTS, Spec, TensorKind, describe, dims, dtype_of, plain, recognise_within,
    storage_of,
};
use crate::numpy;
use crate::pickle::NodeRef;

pub(super) fn quantized<'a>(args: &[NodeRef<'a>]) -> Result<Spec<'a>> {
    let [storage, offset, size, stride, qparams, rest @ ..] = args else {
        return Err(Error::malformed(format!(
            "a quantized tensor is rebuilt from {} arguments, expected at least 5",
            args.len()
        )));
    };
    let (dtype, shape, form) = describe(storage_of(*storage), None, *offset, *size, *stride)?;
    let mut spec =
        Spec { kind: TensorKind::Quantized, ..plain(dtype, shape, form, rest.first(), None) };
    let q: Vec<_> = qparams.iter_items().take(MAX_ARGUMENTS).collect();
    if let [_, scales, zero_points, _axis] = q[..] {
        spec = spec.part("scales", scales).part("zero_points", zero_points);
    }
    Ok(spec)
}

fn layout_of(node: NodeRef<'_>) -> Option<&str> {
    match node.as_global() {
        Some(g) if g.module == "torch" => Some(g.name),
        _ => node.call()?.1.first()?.as_str().map(|s| s.strip_prefix("torch.").unwrap_or(s)),
    }
}

pub(super) fn sparse<'a>(args: &[NodeRef<'a>], depth: usize) -> Result<Spec<'a>> {
    let [layout, data, ..] = args else {
        return Err(Error::malformed("a sparse tensor without layout and data"));
    };
    let names: &[&str] = match layout_of(*layout) {
        Some("sparse_coo") => &["indices", "values"],
        Some("sparse_csr" | "sparse_bsr") => &["crow_indices", "col_indices", "values"],
        Some("sparse_csc" | "sparse_bsc") => &["ccol_indices", "row_indices", "values"],
        other => {
            return Err(Error::unsupported(format!(
                "sparse layout {} is not known",
                other.unwrap_or("without a name")
            )));
        }
    };
    let data: Vec<_> = data.iter_items().take(MAX_ARGUMENTS).collect();
    let (Some(size), Some(values)) = (data.get(names.len()), data.get(names.len() - 1)) else {
        return Err(Error::malformed(format!(
            "a sparse tensor has {} components, expected {}",
            data.len(),
            names.len() + 1
        )));
    };
    let dtype = match recognise_within(*values, depth + 1) {
        Some(values) => values?.dtype,
        None => return Err(Error::malformed("a sparse tensor's values are no tensor")),
    };
    let spec = Spec::without_bytes(
        TensorKind::Sparse,
        dtype,
        dims(*size, "size")?,
        "a sparse tensor's values and indices are listed under it",
    );
    Ok(names.iter().zip(&data).fold(spec, |spec, (name, &part)| spec.part(name, part)))
}

pub(super) fn meta<'a>(args: &[NodeRef<'a>]) -> Result<Spec<'a>> {
    let [dtype, size, ..] = args else {
        return Err(Error::malformed("a meta tensor without dtype and size"));
    };
    let spec = Spec::without_bytes(
        TensorKind::Meta,
        dtype_of(*dtype)?,
        dims(*size, "size")?,
        "a meta tensor was saved without values",
    );
    Ok(Spec { requires_grad: args.get(3).and_then(|n| n.as_bool()).unwrap_or(false), ..spec })
}

/// `_rebuild_wrapper_subclass(cls, dtype, size, stride, offset, layout, device, requires_grad)`.
pub(super) fn wrapper<'a>(args: &[NodeRef<'a>]) -> Result<Spec<'a>> {
    let [class, dtype, size, ..] = args else {
        return Err(Error::malformed("a wrapper subclass without class, dtype and size"));
    };
    let class = class.as_global();
    let distributed = class.is_some_and(|g| g.name == "DTensor");
    let (kind, why) = if distributed {
        (TensorKind::Distributed, "a DTensor's shard of this rank is listed under it as local")
    } else {
        (TensorKind::Wrapper, "the tensors that this subclass wraps are listed under it")
    };
    let spec = Spec::without_bytes(kind, dtype_of(*dtype)?, dims(*size, "size")?, why);
    Ok(Spec {
        class: class.map(|g| g.to_string().into()),
        requires_grad: args.get(7).and_then(|n| n.as_bool()).unwrap_or(false),
        ..spec
    })
}

pub(super) fn from_numpy<'a>(args: &[NodeRef<'a>]) -> Result<Spec<'a>> {
    let [data, dtype, ..] = args else {
        return Err(Error::malformed("a device tensor without data and dtype"));
    };
    let array = numpy::array(*data)
        .ok_or_else(|| Error::unsupported("a device tensor's data is no numpy array"))?;
    let requires_grad = args.get(3).and_then(|n| n.as_bool()).unwrap_or(false);
    let dtype = dtype_of(*dtype)?;
    let form = match (array.dtype.as_str(), dtype) {
        // numpy has no bfloat16: torch widens it and narrows it again when it loads.
        ("<f4", Dtype::Bf16) => Form::Inline(numpy::bfloat16(&array.data)),
        (found, _) if numpy::dtype(found) == Some(dtype) => Form::Inline(array.data),
        (found, _) => Form::Broken(Error::unsupported(format!(
            "a device tensor of {dtype} whose data is a numpy array of {found}"
        ))),
    };
    let spec = Spec::without_bytes(TensorKind::Plain, dtype, array.shape, "");
    Ok(Spec { form, requires_grad, ..spec })
}

pub(super) fn nested<'a>(args: &[NodeRef<'a>], depth: usize) -> Result<Spec<'a>> {
    let [buffer, sizes, strides, offsets, ..] = args else {
        return Err(Error::malformed(format!(
            "a nested tensor has {} components, expected 4",
            args.len()
        )));
    };
    let dtype = match recognise_within(*buffer, depth + 1) {
        Some(b) => b?.dtype,
        None => return Err(Error::malformed("a nested tensor's buffer is no tensor")),
    };
    // What it nests is in the values of `sizes`: it has no shape of its own.
    let spec = Spec::without_bytes(
        TensorKind::Nested,
        dtype,
        Vec::new(),
        "a nested tensor's buffer and geometry are listed under it",
    );
    Ok(spec
        .part("buffer", *buffer)
        .part("sizes", *sizes)
        .part("strides", *strides)
        .part("offsets", *offsets))
}

/// `_rebuild_njt({"values": …, "offsets": …, …})`, and `NestedTensor(values, offsets)` until torch
/// 2.4, whose lengths are in the state.
pub(super) fn jagged<'a>(args: &[NodeRef<'a>], depth: usize) -> Result<Spec<'a>> {
    // Many tensors may share one dict, so it is not read through where it is too long to be this.
    let keywords = |node: &NodeRef<'a>| {
        (node.iter_pairs().take(MAX_ARGUMENTS + 1).count() <= MAX_ARGUMENTS).then_some(*node)
    };
    let (values, offsets, rest) = match args {
        [kwargs] if keywords(kwargs).is_some() => {
            (kwargs.get("values"), kwargs.get("offsets"), Some(*kwargs))
        }
        [values, offsets, ..] => (Some(*values), Some(*offsets), None),
        _ => (None, None, None),
    };
    let (Some(values), Some(offsets)) = (values, offsets) else {
        return Err(Error::malformed("a jagged tensor without values and offsets"));
    };
    let dtype = match recognise_within(values, depth + 1) {
        Some(spec) => spec?.dtype,
        None => return Err(Error::malformed("a jagged tensor's values are no tensor")),
    };
    // One of its dimensions has as many lengths as there are tensors in it.
    let mut spec = Spec::without_bytes(
        TensorKind::Nested,
        dtype,
        Vec::new(),
        "a jagged tensor's values and offsets are listed under it",
    )
    .part("values", values)
    .part("offsets", offsets);
    let Some(kwargs) = rest else { return Ok(spec) };
    let cache = kwargs.get("_metadata_cache").as_ref().and_then(keywords);
    for (name, part) in [
        ("lengths", kwargs.get("lengths")),
        ("min_seqlen", cache.and_then(|c| c.get("min_seqlen"))),
        ("max_seqlen", cache.and_then(|c| c.get("max_seqlen"))),
    ] {
        if let Some(part) = part.filter(|p| !p.is_none()) {
            spec = spec.part(name, part);
        }
    }
    let requires_grad = kwargs.get("requires_grad").and_then(NodeRef::as_bool).unwrap_or(false);
    Ok(Spec { requires_grad, ..spec })
}

/// What a jagged tensor's state says again.
pub(super) fn is_said_of_jagged(spec: &Spec<'_>, name: &str) -> bool {
    matches!(name, "_values" | "_offsets" | "_metadata_cache")
        || name == "_lengths" && has_part(spec, "lengths")
}

pub(super) fn is_jagged(spec: &Spec<'_>) -> bool {
    spec.kind == TensorKind::Nested && has_part(spec, "values")
}

fn has_part(spec: &Spec<'_>, name: &str) -> bool {
    spec.parts.iter().any(|(key, _)| matches!(key, Key::Str(k) if **k == *name))
}
