//! Reading any part of a tensor into a contiguous buffer: views, chunks, byte swaps, conjugates.
//!
//! A part is cut into boxes; a box is halved along the dimension that spreads it furthest in its
//! storage until it is one run, or it is cheaper to read it with everything between its elements,
//! or it is a tile: runs that lie far apart and must be turned, which are read one after the other
//! and put in place together. So memory stays bounded, and each byte that is read is wanted, or
//! costs less than another call.

mod boxes;
mod scatter;
#[cfg(test)]
mod tests;

use crate::cast::cast;
use crate::dtype::{Dtype, DtypeClass};
use crate::error::{Error, Result, ResultExt};
use crate::section::Section;
use crate::shape::{boxes_of_range, row_major_strides};
use crate::tensor::{Chunk, Tensor, TensorBytes, Transform};
use boxes::Move;
use scatter::scatter;

/// Runs that are at least as long are read in place.
const LONG_RUN: u64 = 64 << 10;
/// The most bytes read at once with the gaps between elements.
const LARGE_SPAN: u64 = 4 << 20;
/// Bytes that can be read in the time that one more call takes.
const CALL: u64 = 8 << 10;
/// Bytes of a tile, twice as many with what pads short runs: with what it is turned into it stays in
/// a core's second cache.
const TILE: u64 = 128 << 10;
/// Bytes of a line of a cache.
const LINE: u64 = 64;
/// Bytes that are cast at a time.
const CAST_BYTES: u64 = 256 << 10;

/// Gathers tensor bytes; keeps its buffer between calls.
#[derive(Default)]
pub(crate) struct Gather {
    span: Vec<u8>,
    /// Elements before a cast.
    uncast: Vec<u8>,
    /// The deferred tensor that was read last, and where its bytes were found. Kept here and not
    /// with the tensor, so that a plan of many does not grow while it is written.
    found: Option<(Tensor, Tensor)>,
}

struct Unit {
    bytes: u64,
    dtype: Dtype,
    transform: Transform,
}

impl Gather {
    /// Fills `out` with the contiguous tensor's bytes from byte `start`.
    pub(crate) fn read(&mut self, tensor: &Tensor, start: u64, out: &mut [u8]) -> Result<()> {
        self.read_inner(tensor, start, out).within(|| format!("tensor {}", tensor.name()))
    }

    fn read_inner(&mut self, tensor: &Tensor, start: u64, out: &mut [u8]) -> Result<()> {
        match start.checked_add(out.len() as u64) {
            Some(end) if end <= tensor.byte_len() => {}
            _ => {
                return Err(Error::invalid(format!(
                    "{} bytes from byte {start} leave a tensor of {} bytes",
                    out.len(),
                    tensor.byte_len()
                )));
            }
        }
        if let Some(section) = tensor.contiguous() {
            return section.read_at(start, out);
        }
        if matches!(tensor.bytes(), TensorBytes::Deferred(_)) {
            let found = self.find(tensor)?;
            return self.read_inner(&found, start, out);
        }
        match tensor.bytes() {
            TensorBytes::None(why) => {
                return Err(Error::unsupported(format!("there are no bytes to read: {why}")));
            }
            TensorBytes::Broken(error) => return Err(error.clone()),
            _ if out.is_empty() => return Ok(()),
            _ => {}
        }
        let unit = tensor.dtype().element_bytes().unwrap_or(1);
        let (first, last) = (start / unit, (start + out.len() as u64).div_ceil(unit));
        if start % unit == 0 && out.len() as u64 % unit == 0 {
            return self.units(tensor, unit, first, last, out);
        }
        // A caller may cut anywhere; elements are made whole and cut afterwards.
        let mut whole = vec![0; to_usize((last - first) * unit)];
        self.units(tensor, unit, first, last, &mut whole)?;
        let skip = to_usize(start - first * unit);
        out.copy_from_slice(&whole[skip..skip + out.len()]);
        Ok(())
    }

    fn find(&mut self, tensor: &Tensor) -> Result<Tensor> {
        if let Some((_, found)) = self.found.as_ref().filter(|(known, _)| known.is(tensor)) {
            return Ok(found.clone());
        }
        let found = tensor.find()?;
        self.found = Some((tensor.clone(), found.clone()));
        Ok(found)
    }

    fn units(
        &mut self,
        tensor: &Tensor,
        unit: u64,
        first: u64,
        last: u64,
        out: &mut [u8],
    ) -> Result<()> {
        if let TensorBytes::Cast(source) = tensor.bytes() {
            return self.cast(source, tensor.dtype(), unit, first, out);
        }
        let shape = unit_shape(tensor);
        let strides = row_major_strides(&shape);
        for region in boxes_of_range(&shape, first, last) {
            let linear: u64 = region.offsets.iter().zip(&strides).map(|(o, s)| o * s).sum();
            let target = Target { to: linear - first, strides: &strides, unit };
            self.region(tensor, &region.offsets, &region.sizes, &target, out)?;
        }
        Ok(())
    }

    /// Fills `out` with whole elements from element `first`, cast from another type.
    fn cast(
        &mut self,
        source: &Tensor,
        target: Dtype,
        unit: u64,
        first: u64,
        out: &mut [u8],
    ) -> Result<()> {
        let size = source.dtype().element_bytes().unwrap_or(1);
        let per_block = CAST_BYTES / size.max(unit);
        let mut at = first;
        for block in out.chunks_mut(to_usize(per_block * unit)) {
            let count = block.len() as u64 / unit;
            let mut uncast = std::mem::take(&mut self.uncast);
            uncast.resize(to_usize(count * size), 0);
            let done = self.read_inner(source, at * size, &mut uncast);
            cast(&uncast, source.dtype(), block, target);
            self.uncast = uncast;
            done?;
            at += count;
        }
        Ok(())
    }

    /// Reads one box of a tensor (in units) to where `target` says.
    fn region(
        &mut self,
        tensor: &Tensor,
        offsets: &[u64],
        sizes: &[u64],
        target: &Target<'_>,
        out: &mut [u8],
    ) -> Result<()> {
        let unit =
            Unit { bytes: target.unit, dtype: tensor.dtype(), transform: tensor.transform() };
        let (section, base, strides) = match tensor.bytes() {
            TensorBytes::Range(section) => (section, 0, row_major_strides(&unit_shape(tensor))),
            TensorBytes::Strided(view) => (&view.storage, view.offset, view.strides.clone()),
            TensorBytes::Chunks(chunks) => {
                for chunk in chunks.iter() {
                    self.chunk(chunk, offsets, sizes, target, out)
                        .within(|| format!("chunk at {:?}", chunk.region.offsets))?;
                }
                return Ok(());
            }
            TensorBytes::Cast(_) => {
                return Err(Error::invalid("a cast tensor is not a part of another"));
            }
            TensorBytes::Deferred(_) => {
                return self.region(&tensor.resolve()?, offsets, sizes, target, out);
            }
            TensorBytes::None(why) => {
                return Err(Error::unsupported(format!("there are no bytes to read: {why}")));
            }
            TensorBytes::Broken(error) => return Err(error.clone()),
        };
        let from = base + offsets.iter().zip(&strides).map(|(o, s)| o * s).sum::<u64>();
        let mut job = Move {
            sizes: sizes.to_vec(),
            from,
            from_strides: strides,
            to: target.to,
            to_strides: target.strides.to_vec(),
        };
        job.fold();
        self.run(section, &unit, &job, out)
    }

    fn chunk(
        &mut self,
        chunk: &Chunk,
        offsets: &[u64],
        sizes: &[u64],
        target: &Target<'_>,
        out: &mut [u8],
    ) -> Result<()> {
        let rank = offsets.len();
        let mut inner_offsets = Vec::with_capacity(rank);
        let mut inner_sizes = Vec::with_capacity(rank);
        let mut to = target.to;
        let scale = |d: usize, v: u64| {
            if d + 1 == rank { last_dim_units(chunk.tensor.dtype(), v) } else { v }
        };
        for d in 0..rank {
            let (begin, len) = (scale(d, chunk.region.offsets[d]), scale(d, chunk.region.sizes[d]));
            let start = begin.max(offsets[d]);
            let end = (begin + len).min(offsets[d] + sizes[d]);
            if start >= end {
                return Ok(());
            }
            inner_offsets.push(start - begin);
            inner_sizes.push(end - start);
            to += (start - offsets[d]) * target.strides[d];
        }
        let target = Target { to, ..*target };
        self.region(&chunk.tensor, &inner_offsets, &inner_sizes, &target, out)
    }

    fn run(&mut self, section: &Section, unit: &Unit, job: &Move, out: &mut [u8]) -> Result<()> {
        let total = job.sizes.iter().product::<u64>() * unit.bytes;
        if job.is_one_run() {
            let to = to_usize(job.to * unit.bytes);
            let part = &mut out[to..to + to_usize(total)];
            section.read_at(job.from * unit.bytes, part)?;
            transform(part, unit);
            return Ok(());
        }
        let span = job.span() * unit.bytes;
        let inner_run = match (job.from_strides.last(), job.to_strides.last(), job.sizes.last()) {
            (Some(1), Some(1), Some(&n)) => n * unit.bytes,
            _ => 0,
        };
        let (run, runs) = job.runs();
        let apart = runs.saturating_mul(CALL).saturating_add(total);
        if span <= LARGE_SPAN && span <= apart && inner_run < LONG_RUN {
            self.span.resize(to_usize(span), 0);
            let mut buffer = std::mem::take(&mut self.span);
            let done = section.read_at(job.from * unit.bytes, &mut buffer);
            transform(&mut buffer, unit);
            scatter(&buffer, unit.bytes, job, out);
            self.span = buffer;
            return done;
        }
        if let (0, Some(run)) = (inner_run, run) {
            let row = tile_row(job.sizes[run] * unit.bytes);
            if total <= TILE && runs.saturating_mul(row) <= 2 * TILE {
                return self.tile(section, unit, job, run, out);
            }
        }
        for half in job.halves() {
            self.run(section, unit, &half, out)?;
        }
        Ok(())
    }

    /// Reads the runs of a box, which are along dimension `run`, and puts them in place together.
    fn tile(
        &mut self,
        section: &Section,
        unit: &Unit,
        job: &Move,
        run: usize,
        out: &mut [u8],
    ) -> Result<()> {
        let len = job.sizes[run] * unit.bytes;
        let row = tile_row(len);
        let mut near = job.clone();
        near.from = 0;
        let mut rows = 1;
        for d in (0..job.sizes.len()).rev().filter(|&d| d != run) {
            near.from_strides[d] = rows * row / unit.bytes;
            rows *= job.sizes[d];
        }
        let mut buffer = std::mem::take(&mut self.span);
        buffer.resize(to_usize(rows * row), 0);
        let mut done = Ok(());
        for (i, bytes) in (0..).zip(buffer.chunks_exact_mut(to_usize(row))) {
            let (mut at, mut rest) = (job.from, i);
            for d in (0..job.sizes.len()).rev().filter(|&d| d != run) {
                at += rest % job.sizes[d] * job.from_strides[d];
                rest /= job.sizes[d];
            }
            let bytes = &mut bytes[..to_usize(len)];
            done = section.read_at(at * unit.bytes, bytes);
            if done.is_err() {
                break;
            }
            transform(bytes, unit);
        }
        scatter(&buffer, unit.bytes, &near, out);
        self.span = buffer;
        done
    }
}

/// Bytes from one run of a tile to the next: one line more than an even number of them, so that a
/// column of the tile does not always fall into the same few places of the cache.
fn tile_row(run: u64) -> u64 {
    run.next_multiple_of(2 * LINE) + LINE
}

#[derive(Clone, Copy)]
struct Target<'a> {
    /// Where the box starts in `out`, in units.
    to: u64,
    strides: &'a [u64],
    unit: u64,
}

/// The shape in units: elements, or bytes along the last dimension of packed types. A packed tensor
/// whose rows do not end with a byte is one row of bytes.
fn unit_shape(tensor: &Tensor) -> Vec<u64> {
    let mut shape = tensor.shape().to_vec();
    if tensor.dtype().element_bytes().is_some() {
        return shape;
    }
    match shape.last_mut() {
        Some(last) if tensor.dtype().fills_bytes(*last) => {
            *last = last_dim_units(tensor.dtype(), *last);
            shape
        }
        _ => vec![tensor.byte_len()],
    }
}

fn last_dim_units(dtype: Dtype, len: u64) -> u64 {
    if dtype.element_bytes().is_some() { len } else { len * u64::from(dtype.bits()) / 8 }
}

fn transform(bytes: &mut [u8], unit: &Unit) {
    if unit.transform.swap {
        let n = unit.dtype.swap_bytes();
        if n > 1 {
            bytes.chunks_exact_mut(n).for_each(<[u8]>::reverse);
        }
    }
    let len = to_usize(unit.bytes);
    let complex = unit.dtype.class() == DtypeClass::Complex;
    // After the swap everything is little-endian: the sign is the top bit of a part's last byte.
    let sign = |part: &mut [u8]| {
        if let Some(last) = part.last_mut() {
            *last ^= 0x80;
        }
    };
    let negate_int = |part: &mut [u8]| {
        let mut carry = true;
        for b in part {
            let (v, c) = (!*b).overflowing_add(u8::from(carry));
            *b = v;
            carry = c;
        }
    };
    if unit.transform.neg {
        match unit.dtype.class() {
            DtypeClass::Complex => bytes.chunks_exact_mut(len / 2).for_each(sign),
            DtypeClass::Float => bytes.chunks_exact_mut(len).for_each(sign),
            _ => bytes.chunks_exact_mut(len).for_each(negate_int),
        }
    }
    if unit.transform.conj && complex {
        bytes.chunks_exact_mut(len).for_each(|e| sign(&mut e[len / 2..]));
    }
}

/// Sizes here are bounded by buffers that exist.
fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
