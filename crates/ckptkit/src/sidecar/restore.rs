//! From what the text says to a document with tensors in it.

use std::collections::HashMap;

use ckptkit_core::{Dtype, Error, ErrorKind, Result, ResultExt, Tensor};
use torch_save::{Document, NodeId, View};

use super::decode::{Parsed, Pending, Row, check_nodes};

/// See [`super::Sidecar::document`].
pub(super) fn restore(
    parsed: Parsed,
    tensors: &dyn Fn(&str) -> Option<Tensor>,
) -> Result<Document> {
    let Parsed { mut document, pending, rows, storages, max_nodes, .. } = parsed;
    let mut placed: HashMap<String, Placed> = HashMap::new();
    let mut refer = Vec::new();
    for (number, row) in rows.into_iter().enumerate() {
        let node =
            add(&mut document, row, tensors, &mut placed).within(|| format!("storage {number}"))?;
        if let Some(&slot) = storages.get(&(number as u64)) {
            refer.push((slot, node));
        }
    }
    for (slot, node) in refer {
        document.builder().replace(slot, node);
    }
    for tensor in pending {
        check_nodes(&document, max_nodes)?;
        let within = format!("tensor {}", tensor.name);
        call(&mut document, tensor, &placed).within(|| within)?;
    }
    Ok(document)
}

/// Where a tensor lies in a storage.
struct Placed {
    storage: NodeId,
    /// In bytes.
    start: u64,
    tensor: Tensor,
}

/// Adds the storage of a row; gives the node that refers to it.
fn add(
    document: &mut Document,
    row: Row,
    tensors: &dyn Fn(&str) -> Option<Tensor>,
    placed: &mut HashMap<String, Placed>,
) -> Result<NodeId> {
    let mut found = Vec::with_capacity(row.tensors.len());
    for name in &row.tensors {
        let place = || format!("tensor {name}");
        let tensor = tensors(name).ok_or_else(|| {
            Error::not_found("the checkpoint does not hold this tensor")
                .within(place())
                .hint("the sidecar belongs to another checkpoint, or a file is missing")
        })?;
        // Storages of dtypes that the checkpoint lacks are there as bytes.
        let dtype = row.dtype.filter(|d| *d != tensor.dtype() && tensor.dtype() != Dtype::U8);
        if let Some(dtype) = dtype {
            return Err(Error::malformed(format!(
                "it is {} in the checkpoint, and {dtype} in the object that was saved",
                tensor.dtype()
            ))
            .within(place())
            .hint("the tensors were cast after the sidecar was made: leave the sidecar out"));
        }
        found.push(tensor);
    }
    let storage =
        document.add_storage(row.dtype, row.numel, &row.location, &found).map_err(|e| {
            match e.kind() {
                // The file's fault, not the caller's.
                ErrorKind::InvalidArgument => Error::malformed(e.message().to_owned())
                    .within(format_args!("tensor {}", named(&row.tensors)))
                    .hint("the sidecar belongs to another checkpoint"),
                _ => e,
            }
        })?;
    let mut start = 0;
    for (name, tensor) in row.tensors.into_iter().zip(found) {
        let len = tensor.byte_len();
        let twice = placed.insert(name, Placed { storage, start, tensor });
        if let Some(Placed { tensor, .. }) = twice {
            return Err(Error::malformed("two storages are made of this tensor")
                .within(format_args!("tensor {}", tensor.name())));
        }
        start += len;
    }
    Ok(storage)
}

fn named(tensors: &[String]) -> String {
    match tensors {
        [first, _, ..] => format!("{first} and {} more", tensors.len() - 1),
        few => few.concat(),
    }
}

/// Makes the call that a tensor's name stands for.
fn call(document: &mut Document, pending: Pending, placed: &HashMap<String, Placed>) -> Result<()> {
    let Pending { node, name, requires_grad, parameter } = pending;
    let Placed { storage, start, tensor } = placed
        .get(&name)
        .ok_or_else(|| Error::malformed("no storage is said to be made of this tensor"))?;
    let mut view = View::new(*storage, tensor.dtype(), tensor.shape());
    let unit = tensor.dtype().element_bytes().unwrap_or(1);
    if start % unit != 0 {
        return Err(Error::malformed(format!(
            "it starts at byte {start} of its storage, which is no multiple of {unit}"
        )));
    }
    view.offset = start / unit;
    view.requires_grad = requires_grad && !parameter;
    let mut made = document.rebuild(&view).map_err(|e| match e.kind() {
        ErrorKind::InvalidArgument => Error::malformed(e.message().to_owned()),
        _ => e,
    })?;
    if parameter {
        made = document.parameter(made, requires_grad);
    }
    document.builder().replace(node, made);
    Ok(())
}
