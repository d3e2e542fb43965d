//! Element types.

use std::fmt;

/// The element type of a tensor: every one that any of the formats can hold.
///
/// Named as safetensors names it where safetensors has a name, after torch elsewhere.
/// The order of declaration is safetensors' own (its writer sorts by it, descending),
/// followed by the types that safetensors lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is its own documented name in `TABLE`")]
pub enum Dtype {
    Bool,
    F4,
    F6E2M3,
    F6E3M2,
    U8,
    I8,
    F8E5M2,
    F8E4M3,
    F8E8M0,
    F8E4M3Fnuz,
    F8E5M2Fnuz,
    I16,
    U16,
    F16,
    Bf16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
    C32,
    Bc32,
    C128,
    Qint8,
    Quint8,
    Qint32,
    Quint4x2,
    Quint2x4,
    Bits8,
    Bits1x8,
    Bits2x4,
    Bits4x2,
    Bits16,
}

/// What kind of number an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DtypeClass {
    /// `BOOL`: one byte an element.
    Bool,
    /// Signed or unsigned integer.
    Int,
    /// Real floating point.
    Float,
    /// Two halves, real then imaginary.
    Complex,
    /// Integer representation of a quantized value.
    Quantized,
    /// Uninterpreted bits.
    Bits,
}

struct Row(Dtype, &'static str, Option<&'static str>, u32, DtypeClass);

use Dtype as D;
use DtypeClass as C;

/// (dtype, name here, torch's name, bits an element, class), in order of declaration.
const TABLE: [Row; 35] = [
    Row(D::Bool, "BOOL", Some("bool"), 8, C::Bool),
    Row(D::F4, "F4", Some("float4_e2m1fn_x2"), 4, C::Float),
    Row(D::F6E2M3, "F6_E2M3", None, 6, C::Float),
    Row(D::F6E3M2, "F6_E3M2", None, 6, C::Float),
    Row(D::U8, "U8", Some("uint8"), 8, C::Int),
    Row(D::I8, "I8", Some("int8"), 8, C::Int),
    Row(D::F8E5M2, "F8_E5M2", Some("float8_e5m2"), 8, C::Float),
    Row(D::F8E4M3, "F8_E4M3", Some("float8_e4m3fn"), 8, C::Float),
    Row(D::F8E8M0, "F8_E8M0", Some("float8_e8m0fnu"), 8, C::Float),
    Row(D::F8E4M3Fnuz, "F8_E4M3FNUZ", Some("float8_e4m3fnuz"), 8, C::Float),
    Row(D::F8E5M2Fnuz, "F8_E5M2FNUZ", Some("float8_e5m2fnuz"), 8, C::Float),
    Row(D::I16, "I16", Some("int16"), 16, C::Int),
    Row(D::U16, "U16", Some("uint16"), 16, C::Int),
    Row(D::F16, "F16", Some("float16"), 16, C::Float),
    Row(D::Bf16, "BF16", Some("bfloat16"), 16, C::Float),
    Row(D::I32, "I32", Some("int32"), 32, C::Int),
    Row(D::U32, "U32", Some("uint32"), 32, C::Int),
    Row(D::F32, "F32", Some("float32"), 32, C::Float),
    Row(D::C64, "C64", Some("complex64"), 64, C::Complex),
    Row(D::F64, "F64", Some("float64"), 64, C::Float),
    Row(D::I64, "I64", Some("int64"), 64, C::Int),
    Row(D::U64, "U64", Some("uint64"), 64, C::Int),
    Row(D::C32, "C32", Some("complex32"), 32, C::Complex),
    Row(D::Bc32, "BC32", Some("bcomplex32"), 32, C::Complex),
    Row(D::C128, "C128", Some("complex128"), 128, C::Complex),
    Row(D::Qint8, "QINT8", Some("qint8"), 8, C::Quantized),
    Row(D::Quint8, "QUINT8", Some("quint8"), 8, C::Quantized),
    Row(D::Qint32, "QINT32", Some("qint32"), 32, C::Quantized),
    Row(D::Quint4x2, "QUINT4X2", Some("quint4x2"), 4, C::Quantized),
    Row(D::Quint2x4, "QUINT2X4", Some("quint2x4"), 2, C::Quantized),
    Row(D::Bits8, "BITS8", Some("bits8"), 8, C::Bits),
    Row(D::Bits1x8, "BITS1X8", Some("bits1x8"), 8, C::Bits),
    Row(D::Bits2x4, "BITS2X4", Some("bits2x4"), 8, C::Bits),
    Row(D::Bits4x2, "BITS4X2", Some("bits4x2"), 8, C::Bits),
    Row(D::Bits16, "BITS16", Some("bits16"), 16, C::Bits),
];

impl Dtype {
    const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Every dtype, in order of declaration.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|r| r.0)
    }

    /// The name: safetensors' where it has one (`"BF16"`), torch's in capitals elsewhere.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().1
    }

    /// torch's name without the `torch.` (`"bfloat16"`); the two 6-bit floats have none.
    #[must_use]
    pub const fn torch_name(self) -> Option<&'static str> {
        self.row().2
    }

    /// The name in the safetensors format, or `None` where that format lacks the type.
    #[must_use]
    pub const fn safetensors_name(self) -> Option<&'static str> {
        if (self as usize) <= (D::U64 as usize) { Some(self.row().1) } else { None }
    }

    /// Reads [`Dtype::name`]'s spelling; case matters.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|r| r.1 == name).map(|r| r.0)
    }

    /// Reads a name that the safetensors format knows; case matters.
    #[must_use]
    pub fn from_safetensors(name: &str) -> Option<Self> {
        Self::from_name(name).filter(|d| d.safetensors_name().is_some())
    }

    /// Reads torch's name without the `torch.`, aliases such as `half` included.
    #[must_use]
    pub fn from_torch(name: &str) -> Option<Self> {
        let name = match name {
            "half" => "float16",
            "float" => "float32",
            "double" => "float64",
            "short" => "int16",
            "int" => "int32",
            "long" => "int64",
            "chalf" => "complex32",
            "cfloat" => "complex64",
            "cdouble" => "complex128",
            other => other,
        };
        TABLE.iter().find(|r| r.2 == Some(name)).map(|r| r.0)
    }

    /// Whether [`Tensor::cast`](crate::Tensor::cast) casts from and to it: floats of whole bytes.
    #[must_use]
    pub const fn is_castable(self) -> bool {
        matches!(self.class(), DtypeClass::Float) && self.bits() % 8 == 0
    }

    /// Bits of one element; below 8 for packed types.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.row().3
    }

    /// Whole bytes of one element, or `None` for packed types.
    #[must_use]
    pub const fn element_bytes(self) -> Option<u64> {
        let bits = self.row().3;
        if bits % 8 == 0 { Some((bits / 8) as u64) } else { None }
    }

    /// What kind of number an element is.
    #[must_use]
    pub const fn class(self) -> DtypeClass {
        self.row().4
    }

    /// Bytes of `numel` elements, rounded up to a whole byte; `None` when that overflows.
    #[must_use]
    pub fn byte_len(self, numel: u64) -> Option<u64> {
        let bits = u128::from(numel) * u128::from(self.bits());
        u64::try_from(bits.div_ceil(8)).ok()
    }

    /// Whether `len` elements end where a byte ends: always, but for packed types.
    #[must_use]
    pub const fn fills_bytes(self, len: u64) -> bool {
        let per_byte = 8 / gcd(self.bits(), 8);
        len % per_byte as u64 == 0
    }

    /// Bytes of the unit that a byte swap reverses: half an element for complex types.
    #[must_use]
    pub const fn swap_bytes(self) -> usize {
        let bytes = (self.bits() / 8) as usize;
        match self.class() {
            DtypeClass::Complex => bytes / 2,
            _ if bytes == 0 => 1,
            _ => bytes,
        }
    }
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_follows_the_declaration() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, i, "{}", row.1);
            assert_eq!(Dtype::from_name(row.1), Some(row.0));
            if let Some(t) = row.2 {
                assert_eq!(Dtype::from_torch(t), Some(row.0));
            }
        }
        assert_eq!(Dtype::all().filter(|d| d.safetensors_name().is_some()).count(), 22);
    }

    #[test]
    fn packed_types_round_up() {
        assert_eq!(Dtype::F4.byte_len(3), Some(2));
        assert_eq!(Dtype::F6E2M3.byte_len(4), Some(3));
        assert!(Dtype::F4.fills_bytes(2) && !Dtype::F4.fills_bytes(3));
        assert!(Dtype::F6E2M3.fills_bytes(4) && !Dtype::F6E2M3.fills_bytes(2));
        assert!(Dtype::F32.fills_bytes(u64::MAX));
        assert_eq!(Dtype::C128.byte_len(u64::MAX), None);
        assert_eq!(Dtype::C128.swap_bytes(), 8);
        assert_eq!(Dtype::Quint2x4.swap_bytes(), 1);
    }
}
