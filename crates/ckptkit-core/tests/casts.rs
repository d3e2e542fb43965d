//! Casts against torch, over every value of the small types.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use ckptkit_core::{Dtype, Section, Tensor, TensorBytes, TensorInfo};
use sha2::{Digest, Sha256};

/// What torch 2.15 makes of the same elements; the script named in it tells how.
const TABLE: &str = include_str!("data/casts.txt");

fn source(dtype: Dtype) -> Vec<u8> {
    match dtype.bits() {
        8 => (0..=u8::MAX).collect(),
        16 => (0..=u16::MAX).flat_map(u16::to_le_bytes).collect(),
        32 => [0_u32, 1, 0x1000]
            .into_iter()
            .flat_map(|ending| (0..1_u32 << 19).map(move |upper| upper << 13 | ending))
            .flat_map(u32::to_le_bytes)
            .collect(),
        _ => [0_u64, 1, 1 << 46, 1 << 28, (1 << 46) + 1]
            .into_iter()
            .flat_map(|ending| (0..1_u64 << 17).map(move |upper| upper << 47 | ending))
            .flat_map(u64::to_le_bytes)
            .collect(),
    }
}

fn is_nan(dtype: Dtype, e: &[u8]) -> bool {
    match dtype {
        Dtype::F64 => f64::from_le_bytes(e.try_into().unwrap()).is_nan(),
        Dtype::F32 => f32::from_le_bytes(e.try_into().unwrap()).is_nan(),
        Dtype::F16 => u16::from_le_bytes([e[0], e[1]]) & 0x7FFF > 0x7C00,
        Dtype::Bf16 => u16::from_le_bytes([e[0], e[1]]) & 0x7FFF > 0x7F80,
        Dtype::F8E5M2 => e[0] & 0x7F > 0x7C,
        Dtype::F8E4M3 => e[0] & 0x7F == 0x7F,
        Dtype::F8E8M0 => e[0] == 0xFF,
        _ => e[0] == 0x80,
    }
}

#[test]
fn every_pair_is_cast_as_torch_casts() {
    let mut pairs = 0;
    for line in TABLE.lines().filter(|l| !l.starts_with('#')) {
        let [from, to, expected] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let (from, to) = (Dtype::from_name(from).unwrap(), Dtype::from_name(to).unwrap());
        let bytes = source(from);
        let numel = bytes.len() as u64 * 8 / u64::from(from.bits());
        let info = TensorInfo::new("t", from, vec![numel]).unwrap();
        let tensor =
            Tensor::new(info, TensorBytes::Range(Section::from_bytes(bytes, "s"))).unwrap();
        let mut cast = tensor.cast(to).unwrap().read().unwrap();
        let size = usize::try_from(to.element_bytes().unwrap()).unwrap();
        for e in cast.chunks_exact_mut(size) {
            if is_nan(to, e) {
                e.fill(0xAA);
            }
        }
        let found: String = Sha256::digest(&cast).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(found, expected, "{from} to {to}");
        pairs += 1;
    }
    assert_eq!(pairs, 72);
}
