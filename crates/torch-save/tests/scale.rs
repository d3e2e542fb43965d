//! What opening reads of large files, counted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ckptkit_core::{ReadAt, Section, TensorSource};
use support::build::*;
use torch_save::TorchFile;

/// A file of many gigabytes, mostly holes, that counts how it is read.
struct Sparse {
    size: u64,
    pieces: BTreeMap<u64, Vec<u8>>,
    bytes: AtomicU64,
    calls: AtomicU64,
}

impl ReadAt for Sparse {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.bytes.fetch_add(out.len() as u64, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        out.fill(0);
        let end = offset + out.len() as u64;
        for (&start, piece) in self.pieces.range(..end) {
            let (from, to) = (start.max(offset), (start + piece.len() as u64).min(end));
            if from < to {
                let at = usize::try_from(from - start).unwrap();
                let len = usize::try_from(to - from).unwrap();
                let to = usize::try_from(from - offset).unwrap();
                out[to..to + len].copy_from_slice(&piece[at..at + len]);
            }
        }
        Ok(())
    }
}

/// Opens a source; the tensors that it lists, and the (bytes, calls) that it took.
fn check(source: Sparse) -> (TorchFile, u64, u64) {
    let source = Arc::new(source);
    let file = TorchFile::from_section(&Section::new(source.clone())).unwrap();
    (file, source.bytes.load(Ordering::Relaxed), source.calls.load(Ordering::Relaxed))
}

#[test]
fn a_legacy_stream_of_gigabytes() {
    let keys: Vec<String> = (0..8).map(|i| i.to_string()).collect();
    let numel = 1_i64 << 28;
    let pairs: Vec<_> = keys
        .iter()
        .map(|k| {
            let whole = storage_view("FloatStorage", k, numel, none());
            (k.as_str(), tensor(whole, 0, &[numel], &[1]))
        })
        .collect();
    let storages: Vec<_> = keys.iter().map(|k| (k.as_str(), 0, Vec::new())).collect();
    let mut head = legacy(&object(&pairs), &storages);
    head.truncate(head.len() - 8 * keys.len());
    let start = head.len() as u64;
    let step = 8 + 4 * numel.unsigned_abs();
    let mut pieces: BTreeMap<u64, Vec<u8>> =
        (0..8).map(|i| (start + i * step, numel.to_le_bytes().to_vec())).collect();
    pieces.insert(0, head);
    let size = start + 8 * step;
    let source = Sparse { size, pieces, bytes: 0.into(), calls: 0.into() };
    let (file, bytes, calls) = check(source);
    assert_eq!(file.tensors().len(), 8);
    assert!(file.tensor("7").unwrap().has_bytes());
    assert!(file.notes().is_empty(), "{:?}", file.notes());
    assert!(bytes < 4 << 20, "{bytes} bytes of {size} were read");
    assert!(calls < 40, "{calls} calls");
}

#[test]
fn neighbours_are_found_with_one_read() {
    let names: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
    let small: Vec<_> = names.iter().map(|n| (n.as_str(), vector("FloatStorage", n, 6))).collect();
    let zip =
        pt(&object(&small), &names.iter().map(|n| (n.as_str(), vec![0; 24])).collect::<Vec<_>>());
    let small: Vec<_> = names
        .iter()
        .map(|n| (n.as_str(), tensor(storage_view("FloatStorage", n, 6, none()), 0, &[6], &[1])))
        .collect();
    let stream = legacy(
        &object(&small),
        &names.iter().map(|n| (n.as_str(), 6, vec![0; 24])).collect::<Vec<_>>(),
    );
    for bytes in [zip, stream] {
        let size = bytes.len() as u64;
        let pieces = BTreeMap::from([(0, bytes)]);
        let (file, read, calls) = check(Sparse { size, pieces, bytes: 0.into(), calls: 0.into() });
        assert_eq!(file.tensors().len(), 10_000);
        assert!(read < 4 * size, "{read} bytes of {size} were read");
        assert!(calls < 200, "{} took {calls} calls", file.container().name());
    }
}
