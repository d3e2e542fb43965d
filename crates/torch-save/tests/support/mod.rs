//! What the suites share: a pickle writer, the containers around it, and the judges' manifests.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "every suite uses its own part")]

pub mod build;
pub mod json;

use std::path::{Path, PathBuf};

use ckptkit_core::Section;
use sha2::{Digest, Sha256};
use torch_save::TorchFile;

/// The folder of the committed fixtures.
pub fn fixtures(group: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(group)
}

/// Opens bytes in memory.
pub fn open(bytes: impl Into<Vec<u8>>) -> TorchFile {
    TorchFile::from_section(&Section::from_bytes(bytes, "test")).unwrap()
}

/// The message of the error that opening bytes gives.
pub fn refused(bytes: impl Into<Vec<u8>>) -> String {
    TorchFile::from_section(&Section::from_bytes(bytes, "test")).unwrap_err().to_string()
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// One line a tensor: `name dtype shape kind`, and the first bytes' numbers for small ones.
pub fn listing(file: &TorchFile) -> Vec<String> {
    file.tensors()
        .iter()
        .map(|e| {
            let t = e.tensor();
            format!("{} {} {:?} {}", t.name(), t.dtype(), t.shape(), e.kind().name())
        })
        .collect()
}

/// The f32 elements of a tensor.
pub fn floats(file: &TorchFile, name: &str) -> Vec<f32> {
    let bytes = ckptkit_core::TensorSource::tensor(file, name).unwrap().read().unwrap();
    bytes.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
}
