//! What is decided about an output before it is written.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ckptkit_core::{
    CopyOptions, Deferred, Dtype, ErrorKind, Existing, Layout, OutputFile, Resolve, Result,
    Section, Segment, Tensor, TensorBytes, TensorInfo, Transform,
};

fn tensor(bytes: &[u8]) -> Tensor {
    let info = TensorInfo::new("t", Dtype::U8, [bytes.len() as u64]).unwrap();
    Tensor::new(info, TensorBytes::Range(Section::from_bytes(bytes, "memory"))).unwrap()
}

fn written(file: &OutputFile) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out");
    let layout = Layout::file(file.clone());
    layout.write(&to, Existing::Refuse, &CopyOptions::default()).unwrap();
    std::fs::read(to).unwrap()
}

/// Counts how often it is asked.
#[derive(Default)]
struct Asked(AtomicUsize);

impl Resolve for Asked {
    fn resolve(&self, _: &TensorInfo) -> Result<(TensorBytes, Transform)> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok((tensor(b"late").bytes().clone(), Transform::default()))
    }
}

#[test]
fn a_deferred_tensor_is_opened_when_it_is_written() {
    let asked = Arc::new(Asked::default());
    let deferred = TensorBytes::Deferred(Deferred::new(Arc::clone(&asked) as Arc<dyn Resolve>));
    let deferred = Tensor::new(tensor(b"late").info().clone(), deferred).unwrap();
    let mut file = OutputFile::default();
    file.push(Segment::Tensor(deferred)).unwrap();
    assert_eq!(asked.0.load(Ordering::Relaxed), 0);
    assert_eq!(written(&file), b"late");
    assert_eq!(asked.0.load(Ordering::Relaxed), 1);
}

#[test]
fn a_file_laid_out_once_serves_for_other_tensors() {
    let mut first = OutputFile::default();
    first.push(Segment::Literal(b"<".to_vec())).unwrap();
    first.push(Segment::Tensor(tensor(b"one"))).unwrap();
    let sum = first.checksum(1).unwrap();
    first.push(Segment::Literal(b">".to_vec())).unwrap();
    first.push_checksum(sum).unwrap();
    let with = |bytes: &'static [u8]| {
        first.clone().map(|segment| {
            Ok(match segment {
                Segment::Tensor(_) => Segment::Tensor(tensor(bytes)),
                other => other,
            })
        })
    };
    let mut both = first.clone();
    both.append(with(b"two").unwrap()).unwrap();
    let sum = |bytes| crc32fast::hash(bytes).to_le_bytes();
    let expected = [&b"<one>"[..], &sum(b"one"), b"<two>", &sum(b"two")].concat();
    assert_eq!(written(&both), expected);
    for other in [&b"three"[..], b"", b"2"] {
        assert_eq!(with(other).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
