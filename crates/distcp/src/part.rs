//! Reading a box of a tensor.

use ckptkit_core::{Chunk, Error, Region, Result, Strided, Tensor, TensorBytes, TensorInfo, shape};

/// Fills `out` with a box of `tensor`; see [`crate::DistCheckpoint::read_region`].
pub(crate) fn read(tensor: &Tensor, offsets: &[u64], sizes: &[u64], out: &mut [u8]) -> Result<()> {
    let wanted = Region { offsets: offsets.to_vec(), sizes: sizes.to_vec() };
    let full = tensor.shape();
    let inside = offsets.len() == full.len()
        && sizes.len() == full.len()
        && (0..full.len())
            .all(|d| offsets[d].checked_add(sizes[d]).is_some_and(|end| end <= full[d]));
    if !inside {
        return Err(Error::invalid(format!(
            "a box at {offsets:?} of sizes {sizes:?} leaves {} of shape {full:?}",
            tensor.name()
        )));
    }
    let info = TensorInfo::new(tensor.name(), tensor.dtype(), sizes)?;
    if info.byte_len() != out.len() as u64 {
        return Err(Error::invalid(format!(
            "a box of sizes {sizes:?} has {} bytes, the buffer {}",
            info.byte_len(),
            out.len()
        )));
    }
    if out.is_empty() {
        return Ok(());
    }
    if tensor.dtype().element_bytes().is_none() {
        return rows(tensor, &wanted, out);
    }
    window(tensor, &wanted)?.read_into(0, out)
}

/// The box as a tensor of its own.
fn window(tensor: &Tensor, wanted: &Region) -> Result<Tensor> {
    let tensor = tensor.resolve()?;
    let info = TensorInfo::new(tensor.name(), tensor.dtype(), wanted.sizes.clone())?;
    let bytes = match tensor.bytes() {
        TensorBytes::Range(section) => {
            let strides = shape::row_major_strides(tensor.shape());
            let offset = linear(&wanted.offsets, &strides);
            TensorBytes::Strided(Strided { storage: section.clone(), offset, strides })
        }
        TensorBytes::Strided(view) => {
            let offset = view.offset + linear(&wanted.offsets, &view.strides);
            TensorBytes::Strided(Strided { offset, ..view.clone() })
        }
        TensorBytes::Chunks(chunks) => {
            let mut parts = Vec::new();
            for chunk in chunks.iter() {
                let Some(common) = chunk.region.intersect(wanted) else { continue };
                let relative = |from: &Region| Region {
                    offsets: common.offsets.iter().zip(&from.offsets).map(|(a, b)| a - b).collect(),
                    sizes: common.sizes.clone(),
                };
                let tensor = window(&chunk.tensor, &relative(&chunk.region))?;
                parts.push(Chunk { region: relative(wanted), tensor });
            }
            TensorBytes::Chunks(parts.into())
        }
        other => other.clone(),
    };
    Tensor::with_transform(info, bytes, tensor.transform())
}

fn linear(offsets: &[u64], strides: &[u64]) -> u64 {
    offsets.iter().zip(strides).map(|(o, s)| o * s).sum()
}

/// Packed elements cannot be addressed one by one: row by row, where rows start at whole bytes.
fn rows(tensor: &Tensor, wanted: &Region, out: &mut [u8]) -> Result<()> {
    let bits = u64::from(tensor.dtype().bits());
    let full = tensor.shape();
    let strides = shape::row_major_strides(full);
    let (Some(&first), Some(&len)) = (wanted.offsets.last(), wanted.sizes.last()) else {
        return tensor.read_into(0, out);
    };
    let row = full.last().copied().unwrap_or(0);
    if [first, len, row].iter().any(|n| n * bits % 8 != 0) {
        return Err(Error::unsupported(format!(
            "a box of {} elements must start and end at whole bytes",
            tensor.dtype()
        )));
    }
    let outer = &wanted.sizes[..wanted.sizes.len() - 1];
    let outer_strides = shape::row_major_strides(outer);
    let bytes = usize::try_from(len * bits / 8).unwrap_or(usize::MAX);
    for (i, piece) in (0..shape::numel(outer)?).zip(out.chunks_exact_mut(bytes.max(1))) {
        let mut rest = i;
        let mut at = first;
        for (d, &s) in outer_strides.iter().enumerate() {
            at += (wanted.offsets[d] + rest / s) * strides[d];
            rest %= s;
        }
        tensor.read_into(at * bits / 8, piece)?;
    }
    Ok(())
}
