//! Checkpoints that something went wrong with.

use std::path::{Path, PathBuf};

/// The files of a checkpoint that is a file or a flat directory.
#[must_use]
pub fn files(checkpoint: &Path) -> Vec<PathBuf> {
    if checkpoint.is_file() {
        return vec![checkpoint.to_path_buf()];
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir(checkpoint)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_file())
        .collect();
    found.sort();
    found
}

/// Calls `check` with the length of every prefix of a file, `step` bytes apart, while the file in
/// place is cut to it; the file is whole again afterwards.
pub fn truncations(file: &Path, step: usize, mut check: impl FnMut(usize)) {
    let whole = std::fs::read(file).unwrap();
    for len in (0..whole.len()).step_by(step) {
        std::fs::write(file, &whole[..len]).unwrap();
        check(len);
    }
    std::fs::write(file, whole).unwrap();
}

/// Calls `check` with a position and a mask, for `count` positions spread over the file, while the
/// bits of the mask are flipped there; the file is whole again afterwards.
pub fn flips(file: &Path, count: usize, mut check: impl FnMut(usize, u8)) {
    let mut bytes = std::fs::read(file).unwrap();
    // An odd step, so that every remainder of two, four and eight comes by.
    let step = (bytes.len() / count.max(1)).max(1) | 1;
    for at in (0..bytes.len()).step_by(step) {
        let mask = [1, 0x80, 0xFF, 0x10][at / step % 4];
        bytes[at] ^= mask;
        std::fs::write(file, &bytes).unwrap();
        check(at, mask);
        bytes[at] ^= mask;
    }
    std::fs::write(file, bytes).unwrap();
}
