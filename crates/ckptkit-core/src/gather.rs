//! Reading any part of a tensor into a contiguous buffer: views, chunks, byte swaps, conjugates.
//!
//! A part is cut into boxes; a box is halved along the dimension that spreads it furthest in its
//! storage until it is either one run, or small enough to be read with everything between its
//! elements. So short runs cost one read of their neighbourhood, long runs are read in place, and
//! memory stays bounded.

use crate::cast::cast;
use crate::dtype::{Dtype, DtypeClass};
use crate::error::{Error, Result, ResultExt};
use crate::section::Section;
use crate::shape::{boxes_of_range, row_major_strides};
use crate::tensor::{Chunk, Tensor, TensorBytes, Transform};

/// Bytes that are always read whole, gaps included.
const SMALL_SPAN: u64 = 64 << 10;
/// The most bytes read at once with the gaps between elements.
const LARGE_SPAN: u64 = 4 << 20;
/// Bytes that are cast at a time.
const CAST_BYTES: u64 = 256 << 10;
/// Gaps may make a read this many times larger than what is wanted of it.
const SPREAD: u64 = 4;

/// Gathers tensor bytes; keeps its buffer between calls.
#[derive(Default)]
pub(crate) struct Gather {
    span: Vec<u8>,
    /// Elements before a cast.
    uncast: Vec<u8>,
}

/// A box of units (elements, or bytes of packed types) in storage and where it goes.
#[derive(Clone)]
struct Move {
    sizes: Vec<u64>,
    from: u64,
    from_strides: Vec<u64>,
    to: u64,
    to_strides: Vec<u64>,
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
            return self.read_inner(&tensor.resolve()?, start, out);
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
        let worth = span <= SMALL_SPAN
            || (span <= LARGE_SPAN
                && span <= total.saturating_mul(SPREAD)
                && inner_run < SMALL_SPAN);
        if worth {
            self.span.resize(to_usize(span), 0);
            let mut buffer = std::mem::take(&mut self.span);
            let done = section.read_at(job.from * unit.bytes, &mut buffer);
            transform(&mut buffer, unit);
            scatter(&buffer, unit.bytes, job, out);
            self.span = buffer;
            return done;
        }
        for half in job.halves() {
            self.run(section, unit, &half, out)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Target<'a> {
    /// Where the box starts in `out`, in units.
    to: u64,
    strides: &'a [u64],
    unit: u64,
}

impl Move {
    /// Drops dimensions of one element and joins those that are one run on both sides.
    fn fold(&mut self) {
        let mut d = 0;
        while d < self.sizes.len() {
            if self.sizes[d] == 1 {
                self.remove(d);
            } else {
                d += 1;
            }
        }
        let mut d = 1;
        while d < self.sizes.len() {
            let n = self.sizes[d];
            if self.from_strides[d - 1] == self.from_strides[d] * n
                && self.to_strides[d - 1] == self.to_strides[d] * n
            {
                self.sizes[d] *= self.sizes[d - 1];
                self.remove(d - 1);
            } else {
                d += 1;
            }
        }
    }

    fn remove(&mut self, d: usize) {
        self.sizes.remove(d);
        self.from_strides.remove(d);
        self.to_strides.remove(d);
    }

    fn is_one_run(&self) -> bool {
        match self.sizes.len() {
            0 => true,
            1 => self.from_strides[0] == 1 && self.to_strides[0] == 1,
            _ => false,
        }
    }

    /// Units of storage from the first to the last that the box uses.
    fn span(&self) -> u64 {
        1 + self.sizes.iter().zip(&self.from_strides).map(|(&n, &s)| (n - 1) * s).sum::<u64>()
    }

    fn halves(&self) -> [Self; 2] {
        let widest = (0..self.sizes.len())
            .filter(|&d| self.sizes[d] > 1)
            .max_by_key(|&d| (self.sizes[d] - 1) * self.from_strides[d])
            .unwrap_or(0);
        let head = self.sizes[widest] / 2;
        let mut a = self.clone();
        let mut b = self.clone();
        a.sizes[widest] = head;
        b.sizes[widest] -= head;
        b.from += head * self.from_strides[widest];
        b.to += head * self.to_strides[widest];
        a.fold();
        b.fold();
        [a, b]
    }
}

/// Copies the box out of the bytes read around it.
fn scatter(span: &[u8], unit: u64, job: &Move, out: &mut [u8]) {
    let rank = job.sizes.len();
    let unit_len = to_usize(unit);
    if rank == 0 {
        let to = to_usize(job.to) * unit_len;
        out[to..to + unit_len].copy_from_slice(&span[..unit_len]);
        return;
    }
    let (n, from_step, to_step) = (
        job.sizes[rank - 1],
        to_usize(job.from_strides[rank - 1]) * unit_len,
        to_usize(job.to_strides[rank - 1]) * unit_len,
    );
    let mut index = vec![0; rank - 1];
    loop {
        let at = |base: u64, strides: &[u64]| {
            to_usize(base + index.iter().zip(strides).map(|(i, s)| i * s).sum::<u64>()) * unit_len
        };
        let (from, to) = (at(0, &job.from_strides), at(job.to, &job.to_strides));
        copy_row(&span[from..], from_step, &mut out[to..], to_step, unit_len, to_usize(n));
        let mut d = rank - 1;
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            index[d] += 1;
            if index[d] < job.sizes[d] {
                break;
            }
            index[d] = 0;
        }
    }
}

fn copy_row(from: &[u8], from_step: usize, to: &mut [u8], to_step: usize, unit: usize, n: usize) {
    fn each<const U: usize>(
        from: &[u8],
        from_step: usize,
        to: &mut [u8],
        to_step: usize,
        n: usize,
    ) {
        for i in 0..n {
            let piece: [u8; U] =
                from[i * from_step..i * from_step + U].try_into().unwrap_or([0; U]);
            to[i * to_step..i * to_step + U].copy_from_slice(&piece);
        }
    }
    if from_step == unit && to_step == unit {
        to[..n * unit].copy_from_slice(&from[..n * unit]);
        return;
    }
    match unit {
        1 => each::<1>(from, from_step, to, to_step, n),
        2 => each::<2>(from, from_step, to, to_step, n),
        4 => each::<4>(from, from_step, to, to_step, n),
        8 => each::<8>(from, from_step, to, to_step, n),
        _ => each::<16>(from, from_step, to, to_step, n),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{Region, numel};
    use crate::tensor::{Strided, TensorInfo};
    use proptest::prelude::*;

    /// Element by element, with nothing shared with the code under test.
    fn slow(storage: &[u8], unit: usize, shape: &[u64], offset: u64, strides: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        let n = numel(shape).unwrap();
        for i in 0..n {
            let (mut rest, mut at) = (i, offset);
            for d in (0..shape.len()).rev() {
                at += rest % shape[d] * strides[d];
                rest /= shape[d];
            }
            let at = at as usize * unit;
            out.extend_from_slice(&storage[at..at + unit]);
        }
        out
    }

    fn dtype_of(unit: usize) -> Dtype {
        [Dtype::U8, Dtype::I16, Dtype::F32, Dtype::F64, Dtype::C128][unit.trailing_zeros() as usize]
    }

    proptest! {
        #[test]
        fn any_cut_of_a_view_gives_its_elements(
            dims in prop::collection::vec((1u64..5, 0u64..40), 0..4),
            offset in 0u64..9,
            log in 0usize..5,
            cuts in prop::collection::vec(0u64..4000, 2),
        ) {
            let (shape, strides): (Vec<u64>, Vec<u64>) = dims.into_iter().unzip();
            let unit = 1 << log;
            let extent = crate::shape::view_extent(offset, &shape, &strides).unwrap() as usize;
            let storage: Vec<u8> = (0..extent * unit + 5).map(|i| (i * 31 % 251) as u8).collect();
            let expected = slow(&storage, unit, &shape, offset, &strides);
            let view = Strided { storage: Section::from_bytes(storage, "s"), offset, strides };
            let t = Tensor::new(TensorInfo::new("t", dtype_of(unit), shape).unwrap(), TensorBytes::Strided(view)).unwrap();
            let len = t.byte_len();
            let (a, b) = (cuts[0].min(cuts[1]).min(len), cuts[0].max(cuts[1]).min(len));
            let mut out = vec![0; (b - a) as usize];
            t.read_into(a, &mut out).unwrap();
            prop_assert_eq!(out, &expected[a as usize..b as usize]);
        }

        #[test]
        fn chunks_of_a_grid_make_the_whole(rows in 1u64..9, cols in 1u64..9, r in 1u64..9, c in 1u64..9, cuts in prop::collection::vec(0u64..400, 2)) {
            let whole: Vec<u8> = (0..rows * cols * 2).map(|i| (i * 7 % 256) as u8).collect();
            let mut chunks = Vec::new();
            for r0 in (0..rows).step_by(r as usize) {
                for c0 in (0..cols).step_by(c as usize) {
                    let sizes = vec![r.min(rows - r0), c.min(cols - c0)];
                    let bytes = slow(&whole, 2, &sizes, r0 * cols + c0, &[cols, 1]);
                    let info = TensorInfo::new("c", Dtype::F16, sizes.clone()).unwrap();
                    let tensor = Tensor::new(info, TensorBytes::Range(Section::from_bytes(bytes, "c"))).unwrap();
                    chunks.push(Chunk { region: Region { offsets: vec![r0, c0], sizes }, tensor });
                }
            }
            let t = Tensor::new(TensorInfo::new("t", Dtype::F16, vec![rows, cols]).unwrap(), TensorBytes::Chunks(chunks.into())).unwrap();
            prop_assert_eq!(t.read().unwrap(), whole.clone());
            let len = t.byte_len();
            let (a, b) = (cuts[0].min(cuts[1]).min(len), cuts[0].max(cuts[1]).min(len));
            let mut out = vec![0; (b - a) as usize];
            t.read_into(a, &mut out).unwrap();
            prop_assert_eq!(out, &whole[a as usize..b as usize]);
        }
    }

    #[test]
    fn a_large_transposed_matrix_is_halved() {
        let n: u64 = 1200;
        let storage: Vec<u8> = (0..n * n).flat_map(|i| (i as u32).to_le_bytes()).collect();
        let expected = slow(&storage, 4, &[n, n], 0, &[1, n]);
        let view =
            Strided { storage: Section::from_bytes(storage, "s"), offset: 0, strides: vec![1, n] };
        let t = Tensor::new(
            TensorInfo::new("t", Dtype::F32, vec![n, n]).unwrap(),
            TensorBytes::Strided(view),
        )
        .unwrap();
        assert!(t.read().unwrap() == expected);
    }

    #[test]
    fn packed_chunks_are_put_together_by_bytes() {
        // Rows of four 4-bit elements, cut into columns of two: one byte each.
        let chunk = |column: u64, bytes: [u8; 2]| {
            let region = Region { offsets: vec![0, column], sizes: vec![2, 2] };
            let info = TensorInfo::new("c", Dtype::F4, vec![2, 2]).unwrap();
            let tensor =
                Tensor::new(info, TensorBytes::Range(Section::from_bytes(bytes, "c"))).unwrap();
            Chunk { region, tensor }
        };
        let whole = |chunks: Vec<Chunk>| {
            Tensor::new(
                TensorInfo::new("t", Dtype::F4, vec![2, 4]).unwrap(),
                TensorBytes::Chunks(chunks.into()),
            )
        };
        let t = whole(vec![chunk(2, [0x21, 0x43]), chunk(0, [0x65, 0x87])]).unwrap();
        assert_eq!(t.read().unwrap(), [0x65, 0x21, 0x87, 0x43]);
        assert!(whole(vec![chunk(1, [0, 0])]).is_err());
    }

    #[test]
    fn conjugate_negative_and_big_endian() {
        let value = |re: f32, im: f32| [re.to_le_bytes(), im.to_le_bytes()].concat();
        let big = [1.5f32.to_be_bytes(), 2.5f32.to_be_bytes()].concat();
        let read = |dtype, bytes: Vec<u8>, transform| {
            let info =
                TensorInfo::new("t", dtype, vec![bytes.len() as u64 * 8 / u64::from(dtype.bits())])
                    .unwrap();
            Tensor::with_transform(
                info,
                TensorBytes::Range(Section::from_bytes(bytes, "s")),
                transform,
            )
            .unwrap()
            .read()
            .unwrap()
        };
        assert_eq!(
            read(Dtype::C64, big, Transform { swap: true, conj: true, neg: false }),
            value(1.5, -2.5)
        );
        assert_eq!(
            read(Dtype::F32, value(1.0, -0.0), Transform { neg: true, ..Default::default() }),
            value(-1.0, 0.0)
        );
        let ints = [5i16.to_le_bytes(), (-300i16).to_le_bytes()].concat();
        let negated = [(-5i16).to_le_bytes(), 300i16.to_le_bytes()].concat();
        assert_eq!(read(Dtype::I16, ints, Transform { neg: true, ..Default::default() }), negated);
    }
}
