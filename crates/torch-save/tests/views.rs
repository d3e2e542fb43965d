//! What a document says of its tensors' storages, against the bytes that the tensors have.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]
#![cfg(feature = "deflate")]

mod support;

use std::path::PathBuf;

use ckptkit_core::{Dtype, ErrorKind, Section, Tensor, TensorBytes, TensorInfo};
use torch_save::{Document, TensorKind, TorchFile, View};

/// The files whose objects can be edited.
fn files() -> Vec<(PathBuf, TorchFile)> {
    let mut files = Vec::new();
    for group in ["torch", "lightning"] {
        for entry in std::fs::read_dir(support::fixtures(group)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "json") {
                continue;
            }
            let file = TorchFile::open(&path).unwrap();
            if file.edit().is_ok() {
                files.push((path, file));
            }
        }
    }
    files
}

#[test]
fn views_see_the_bytes_of_tensors() {
    let (mut runs, mut others) = (0, 0);
    for (path, file) in files() {
        let mut document = file.edit().unwrap();
        for entry in file.tensors() {
            let place = format!("{}: {}", path.display(), entry.tensor().name());
            let tensor = entry.tensor();
            let node = document.imported(&file, entry.node()).unwrap();
            let found = document.view(node);
            let plain = [TensorKind::Plain, TensorKind::Parameter, TensorKind::Buffer];
            // XLA's tensors are arrays in the pickle.
            let array = tensor.info().storage().is_none();
            if !plain.contains(&entry.kind()) || array {
                assert_eq!(found, None, "{place}");
                continue;
            }
            let view = found.unwrap_or_else(|| panic!("{place} is no view"));
            assert_eq!(view.dtype, tensor.dtype(), "{place}");
            assert_eq!(view.size.len(), tensor.shape().len(), "{place}");
            let storage = document.storage(view.storage).unwrap();
            assert_eq!(Some(storage.location()), entry.location(), "{place}");
            let bytes = storage.tensor("s", true).unwrap().read().unwrap();
            assert_eq!(bytes.len() as u64, storage.byte_len().unwrap());
            let is_run = matches!(tensor.bytes(), TensorBytes::Range(_));
            match view.run() {
                Some(run) => {
                    let run =
                        usize::try_from(run.start).unwrap()..usize::try_from(run.end).unwrap();
                    assert!(is_run && bytes[run] == tensor.read().unwrap(), "{place}");
                    runs += 1;
                }
                None => {
                    assert!(!is_run || view.conj || view.neg, "{place}");
                    others += 1;
                }
            }
            let typed = storage.dtype();
            if typed.is_none_or(|d| d == view.dtype) {
                let again = document.rebuild(&view).unwrap();
                assert_eq!(document.view(again), Some(view), "{place}");
            }
        }
    }
    assert!(runs > 300 && others > 10, "{runs} {others}");
}

#[test]
fn nodes_of_other_files_are_unknown() {
    let open = || TorchFile::open(support::fixtures("torch").join("tied.pt")).unwrap();
    let (file, other) = (open(), open());
    let mut document = Document::new();
    assert_eq!(document.imported(&file, file.root().id()), None);
    let root = document.import(&file, file.root()).unwrap();
    assert_eq!(document.imported(&file, file.root().id()), Some(root));
    assert_eq!(document.imported(&other, other.root().id()), None);
    assert!(document.view(root).is_none() && document.storage(root).is_none());
}

#[test]
fn a_view_needs_a_storage_that_holds_it() {
    let mut document = Document::new();
    let info = TensorInfo::new("w", Dtype::F32, [2]).unwrap();
    let w = TensorBytes::Range(Section::from_bytes([0; 8], "w"));
    let w = [Tensor::new(info, w).unwrap()];
    let typed = document.add_storage(Some(Dtype::F32), 2, "cpu", &w).unwrap();
    let untyped = document.add_storage(None, 8, "cpu", &w).unwrap();
    let none = document.builder().none();
    for (view, kind) in [
        (View::new(none, Dtype::F32, &[2]), ErrorKind::InvalidArgument),
        (View::new(typed, Dtype::F64, &[1]), ErrorKind::InvalidArgument),
        (View::new(untyped, Dtype::F6E2M3, &[4]), ErrorKind::Unsupported),
    ] {
        assert_eq!(document.rebuild(&view).unwrap_err().kind(), kind);
    }
    let view = View::new(untyped, Dtype::F4, &[4, 2]);
    assert_eq!(
        (&view.size[..], &view.strides[..], view.run()),
        (&[4, 1][..], &[1, 1][..], Some(0..4))
    );
    let mut shifted = View::new(untyped, Dtype::C64, &[1]);
    shifted.conj = true;
    assert_eq!(shifted.run(), None);
    let node = document.rebuild(&shifted).unwrap();
    assert_eq!(document.view(node), Some(shifted.clone()));
    shifted.conj = false;
    shifted.offset = u64::MAX;
    assert_eq!(shifted.run(), None);
}
