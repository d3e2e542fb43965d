//! NumPy arrays and scalars, as `numpy` pickles them.
//!
//! Source of truth: `numpy/_core/src/multiarray` (`array_reduce`, `array_setstate`,
//! `arraydescr_setstate`), numpy 1 and 2.

use ckptkit_core::Dtype;

use crate::pickle::{Kind, NodeRef};

/// A numeric or raw array, row-major and little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Array {
    /// numpy's spelling with `<` or `|`: `<f4`, `|b1`, `<U2`.
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) data: Vec<u8>,
}

struct Descr {
    /// Kind letter and size: `f4`.
    code: String,
    kind: u8,
    item: usize,
    big_endian: bool,
    /// What dates count: `[D]`, `[25s]`.
    unit: String,
}

impl Descr {
    /// Bytes of the unit that a byte swap reverses; 1 where nothing is swapped.
    fn swap(&self) -> usize {
        match self.kind {
            b'i' | b'u' | b'f' | b'm' | b'M' => self.item,
            b'c' => self.item / 2,
            b'U' => 4,
            _ => 1,
        }
    }

    fn name(&self) -> String {
        let order = if self.swap() > 1 { '<' } else { '|' };
        format!("{order}{}{}", self.code, self.unit)
    }

    fn normalise(&self, data: &mut [u8]) {
        let n = self.swap();
        if self.big_endian && n > 1 {
            data.chunks_exact_mut(n).for_each(<[u8]>::reverse);
        }
    }
}

fn is_multiarray(module: &str) -> bool {
    matches!(module, "numpy.core.multiarray" | "numpy._core.multiarray")
}

/// The bytes that a pickle of any protocol holds for `bytes`.
pub(crate) fn raw_bytes(node: NodeRef<'_>) -> Option<Vec<u8>> {
    match node.kind() {
        Kind::Bytes(b) | Kind::ByteArray(b) => Some(b.to_vec()),
        _ => {
            let (callable, args) = node.call()?;
            let g = callable.as_global()?;
            match (g.module, g.name, &args[..]) {
                ("_codecs", "encode", [text, ..]) => latin1(*text),
                ("builtins", "bytes", []) | ("builtins", "bytearray", []) => Some(Vec::new()),
                ("builtins", "bytes" | "bytearray", [inner]) => raw_bytes(*inner),
                ("builtins", "bytes" | "bytearray", [text, _]) => latin1(*text),
                _ => None,
            }
        }
    }
}

fn latin1(node: NodeRef<'_>) -> Option<Vec<u8>> {
    match node.kind() {
        Kind::Str(s) => {
            std::str::from_utf8(s).ok()?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
        }
        Kind::Bytes(b) => Some(b.to_vec()),
        _ => None,
    }
}

/// `numpy.dtype('f4', False, True)` with state `(3, '<', None, None, None, -1, -1, 0)`.
fn descr(node: NodeRef<'_>) -> Option<Descr> {
    let (callable, args) = node.call()?;
    let g = callable.as_global()?;
    let code = if g.module == "numpy" && g.name == "dtype" {
        args.first()?.as_str()?.to_owned()
    } else {
        // `numpy.dtypes.Float32DType` and alike of numpy 2.
        return None;
    };
    let (kind, size) = code.split_at_checked(1)?;
    let kind = kind.as_bytes()[0];
    let state = node.state().map(NodeRef::items).unwrap_or_default();
    let text = |i: usize| state.get(i).and_then(|n: &NodeRef<'_>| n.as_str());
    let int = |i: usize| state.get(i).and_then(|n: &NodeRef<'_>| n.as_u64());
    let mut item: usize = size.parse().ok().or(if size.is_empty() { Some(0) } else { None })?;
    if kind == b'U' {
        item = item.checked_mul(4)?;
    }
    if matches!(kind, b'V' | b'S' | b'U') && int(5).is_some_and(|n| n > 0) {
        item = usize::try_from(int(5)?).ok()?;
    }
    let unit = match kind {
        b'm' | b'M' => state.get(8).and_then(|m| unit(*m)).unwrap_or_default(),
        _ => String::new(),
    };
    Some(Descr { kind, item, big_endian: text(1) == Some(">"), unit, code })
}

/// `(None, (b'D', 1, 1, 1))`: the unit, and how many of it.
fn unit(metadata: NodeRef<'_>) -> Option<String> {
    let fields: Vec<_> = metadata.iter_items().nth(1)?.iter_items().take(2).collect();
    let [name, count] = fields[..] else { return None };
    let name = String::from_utf8(raw_bytes(name)?).ok()?;
    let count = count.as_u64()?;
    Some(if count == 1 { format!("[{name}]") } else { format!("[{count}{name}]") })
}

/// numpy's name of a dtype that is a value: `float32`, `bool`; of text and records its code.
pub(crate) fn dtype_name(node: NodeRef<'_>) -> Option<String> {
    let Descr { code, kind, item, .. } = descr(node)?;
    let word = match kind {
        b'b' => return Some("bool".into()),
        b'O' => return Some("object".into()),
        b'i' => "int",
        b'u' => "uint",
        b'f' => "float",
        b'c' => "complex",
        _ => return Some(code),
    };
    Some(format!("{word}{}", item * 8))
}

/// An array of numbers, text or raw records; `None` for anything else, arrays of objects included.
pub(crate) fn array(node: NodeRef<'_>) -> Option<Array> {
    let (callable, args) = node.call()?;
    let g = callable.as_global()?;
    if is_multiarray(g.module) && g.name == "_reconstruct" {
        let state = node.state()?.items();
        let [_version, shape, dtype, fortran, raw] = state[..] else { return None };
        return build(raw_bytes(raw)?, dtype, shape, fortran.as_bool().unwrap_or(false));
    }
    if matches!(g.module, "numpy.core.numeric" | "numpy._core.numeric") && g.name == "_frombuffer" {
        let [raw, dtype, shape, order] = args[..] else { return None };
        return build(raw_bytes(raw)?, dtype, shape, order.as_str() == Some("F"));
    }
    None
}

fn build(
    mut data: Vec<u8>,
    dtype: NodeRef<'_>,
    shape: NodeRef<'_>,
    fortran: bool,
) -> Option<Array> {
    let descr = descr(dtype)?;
    let shape: Vec<u64> = shape.items().iter().map(|d| d.as_u64()).collect::<Option<_>>()?;
    let numel = usize::try_from(ckptkit_core::shape::numel(&shape).ok()?).ok()?;
    if descr.kind == b'O' || data.len() != numel.checked_mul(descr.item)? {
        return None;
    }
    descr.normalise(&mut data);
    if fortran && shape.len() > 1 {
        data = row_major(&data, &shape, descr.item);
    }
    Some(Array { dtype: descr.name(), shape, data })
}

/// Column-major elements in row-major order.
fn row_major(data: &[u8], shape: &[u64], item: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0_u64; shape.len()];
    for _ in 0..data.len() / item.max(1) {
        let mut at = 0_u64;
        for (i, &dim) in index.iter().zip(shape).rev() {
            at = at * dim + i;
        }
        let at = usize::try_from(at).unwrap_or(0) * item;
        out.extend_from_slice(&data[at..at + item]);
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
    out
}

/// The element type of an array, where it has one here.
pub(crate) fn dtype(code: &str) -> Option<Dtype> {
    Some(match code {
        "|b1" => Dtype::Bool,
        "|i1" => Dtype::I8,
        "|u1" => Dtype::U8,
        "<i2" => Dtype::I16,
        "<i4" => Dtype::I32,
        "<i8" => Dtype::I64,
        "<u2" => Dtype::U16,
        "<u4" => Dtype::U32,
        "<u8" => Dtype::U64,
        "<f2" => Dtype::F16,
        "<f4" => Dtype::F32,
        "<f8" => Dtype::F64,
        "<c8" => Dtype::C64,
        "<c16" => Dtype::C128,
        _ => return None,
    })
}

/// 32-bit floats as bfloat16, rounded to nearest even as torch does.
pub(crate) fn bfloat16(floats: &[u8]) -> Vec<u8> {
    let narrow = |bits: u32| -> u16 {
        if f32::from_bits(bits).is_nan() {
            return 0x7FC0;
        }
        let rounded = u64::from(bits) + 0x7FFF + u64::from(bits >> 16 & 1);
        u16::try_from(rounded >> 16).unwrap_or(u16::MAX)
    };
    let words = floats.chunks_exact(4).filter_map(|c| c.try_into().ok()).map(u32::from_le_bytes);
    words.flat_map(|bits| narrow(bits).to_le_bytes()).collect()
}

/// A scalar: its class (`numpy.float64`) and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scalar {
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Complex(f64, f64),
    Str(String),
    Bytes(Vec<u8>),
}

/// `scalar(dtype, bytes)`.
pub(crate) fn scalar(node: NodeRef<'_>) -> Option<(String, Scalar)> {
    let (callable, args) = node.call()?;
    let g = callable.as_global()?;
    if !is_multiarray(g.module) || g.name != "scalar" {
        return None;
    }
    let [dtype, raw, ..] = args[..] else { return None };
    let descr = descr(dtype)?;
    let mut data = raw_bytes(raw)?;
    if data.len() != descr.item {
        return None;
    }
    descr.normalise(&mut data);
    let class = match descr.kind {
        b'b' => "numpy.bool".to_owned(),
        b'S' => "numpy.bytes_".into(),
        b'U' => "numpy.str_".into(),
        kind => {
            let kind = match kind {
                b'i' => "int",
                b'u' => "uint",
                b'f' => "float",
                b'c' => "complex",
                _ => return None,
            };
            format!("numpy.{kind}{}", descr.item * 8)
        }
    };
    number(descr.kind, &data).map(|scalar| (class, scalar))
}

/// One little-endian element of an array, by the name of the array's type.
#[cfg(feature = "serde")]
pub(crate) fn element(dtype: &str, data: &[u8]) -> Option<Scalar> {
    number(*dtype.as_bytes().get(1)?, data)
}

fn number(kind: u8, data: &[u8]) -> Option<Scalar> {
    let wide = |fill: u8| {
        let mut b = [fill; 8];
        b[..data.len().min(8)].copy_from_slice(&data[..data.len().min(8)]);
        b
    };
    let negative = data.last().is_some_and(|b| b & 0x80 != 0);
    Some(match (kind, data.len()) {
        (b'b', 1) => Scalar::Bool(data[0] != 0),
        (b'i', 1 | 2 | 4 | 8) => {
            Scalar::Int(i64::from_le_bytes(wide(if negative { 0xFF } else { 0 })))
        }
        (b'u', 1 | 2 | 4 | 8) => Scalar::UInt(u64::from_le_bytes(wide(0))),
        (b'f', 2 | 4 | 8) => Scalar::Float(to_f64(data)?),
        (b'c', n @ (8 | 16)) => {
            let (re, im) = data.split_at(n / 2);
            Scalar::Complex(to_f64(re)?, to_f64(im)?)
        }
        (b'S', _) => Scalar::Bytes(data.to_vec()),
        (b'U', _) => {
            let text: Option<String> = data
                .chunks_exact(4)
                .map(|c| char::from_u32(u32::from_le_bytes(c.try_into().ok()?)))
                .collect();
            Scalar::Str(text?)
        }
        _ => return None,
    })
}

/// A little-endian float of 2, 4 or 8 bytes.
fn to_f64(bytes: &[u8]) -> Option<f64> {
    let dtype = match bytes.len() {
        2 => Dtype::F16,
        4 => Dtype::F32,
        _ => Dtype::F64,
    };
    dtype.to_f64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_major_is_turned() {
        // np.arange(6).reshape(2, 3) in Fortran order: columns 0 3 | 1 4 | 2 5.
        assert_eq!(row_major(&[0, 3, 1, 4, 2, 5], &[2, 3], 1), [0, 1, 2, 3, 4, 5]);
    }
}
