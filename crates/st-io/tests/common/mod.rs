//! What the suites share: files made byte by byte, and tensors made from bytes.
#![allow(dead_code, unreachable_pub, reason = "each suite uses a part")]

use std::collections::BTreeMap;
use std::path::Path;

use ckptkit_core::{
    CopyOptions, Dtype, Error, Existing, Layout, Section, Tensor, TensorBytes, TensorInfo,
};
use st_io::StFile;

/// A file of this header and data.
pub fn file(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header);
    out.extend_from_slice(data);
    out
}

pub fn open(bytes: Vec<u8>) -> Result<StFile, Error> {
    StFile::from_section(Section::from_bytes(bytes, "crafted"))
}

pub fn tensor(name: &str, dtype: Dtype, shape: &[u64], bytes: Vec<u8>) -> Tensor {
    let info = TensorInfo::new(name, dtype, shape).unwrap();
    Tensor::new(info, TensorBytes::Range(Section::from_bytes(bytes, "memory"))).unwrap()
}

/// `len` bytes that tell each place from its neighbours.
pub fn pattern(seed: u64, len: u64) -> Vec<u8> {
    (0..len).map(|i| ((i + 1).wrapping_mul(2 * seed + 31) % 251) as u8).collect()
}

pub fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub fn write(layout: &Layout, to: &Path) {
    layout.write(to, Existing::Refuse, &CopyOptions::default()).unwrap();
}

/// The bytes of a layout of one file.
pub fn bytes_of(layout: &Layout) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out");
    write(layout, &to);
    std::fs::read(to).unwrap()
}

/// Every tensor of a checkpoint: name → (dtype, shape, bytes).
pub fn contents<'a>(
    tensors: impl Iterator<Item = Result<Tensor, Error>> + 'a,
) -> BTreeMap<String, (Dtype, Vec<u64>, Vec<u8>)> {
    tensors
        .map(|t| {
            let t = t.unwrap();
            (t.name().to_owned(), (t.dtype(), t.shape().to_vec(), t.read().unwrap()))
        })
        .collect()
}
