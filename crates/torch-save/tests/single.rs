//! Archives of one tensor, laid out from what others of their shape have in common.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;

use ckptkit_core::{
    CopyOptions, Dtype, ErrorKind, Existing, Layout, OutputFile, Section, Segment, Tensor,
    TensorBytes, TensorInfo,
};
use torch_save::{Document, TensorArchives, TorchFile, WriteOptions};

fn written(dir: &Path, file: OutputFile) -> Vec<u8> {
    let to = dir.join("out");
    Layout::file(file).write(&to, Existing::Replace, &CopyOptions::default()).unwrap();
    std::fs::read(to).unwrap()
}

/// As every other object is laid out.
fn general(tensor: &Tensor, options: &WriteOptions) -> OutputFile {
    let mut document = Document::new();
    let root = document.tensor(&tensor.clone().unshared()).unwrap();
    document.set_root(root);
    document.layout(options).unwrap()
}

/// A tensor of the same dtype and shape that holds other bytes.
fn other(tensor: &Tensor) -> Tensor {
    let bytes: Vec<u8> = tensor.read().unwrap().iter().map(|b| b ^ 1).collect();
    let bytes = TensorBytes::Range(Section::from_bytes(bytes, "memory"));
    Tensor::new(tensor.info().clone(), bytes).unwrap()
}

#[test]
fn every_tensor_of_the_fixtures() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/torch");
    let dir = tempfile::tempdir().unwrap();
    let mut options = WriteOptions::new();
    let mut archives = TensorArchives::new(options.clone());
    options.align = 256;
    let mut wide = TensorArchives::new(options.clone());
    let mut done = 0;
    for entry in std::fs::read_dir(fixtures).unwrap() {
        let Ok(file) = TorchFile::open(entry.unwrap().path()) else { continue };
        for entry in file.tensors() {
            let tensor = entry.tensor();
            let readable = tensor.has_bytes() && tensor.read().is_ok();
            if !readable || archives.prepare(tensor).is_err() {
                continue;
            }
            wide.prepare(tensor).unwrap();
            for tensor in [tensor.clone(), other(tensor)] {
                let expected = written(dir.path(), general(&tensor, &WriteOptions::new()));
                let got = written(dir.path(), archives.layout(&tensor).unwrap());
                assert!(got == expected, "{} {:?}", tensor.name(), tensor.shape());
                assert_eq!(archives.prepare(&tensor).unwrap(), got.len() as u64);
                let unprepared = TensorArchives::new(WriteOptions::new()).layout(&tensor);
                assert!(written(dir.path(), unprepared.unwrap()) == expected);
                let read = TorchFile::from_section(&Section::from_bytes(got, "one")).unwrap();
                assert!(read.verify().is_ok());
                let read = read.tensors()[0].tensor().clone();
                assert_eq!((read.dtype(), read.shape()), (tensor.dtype(), tensor.shape()));
                assert_eq!(read.read().unwrap(), tensor.read().unwrap());
                let expected = written(dir.path(), general(&tensor, &options));
                assert!(written(dir.path(), wide.layout(&tensor).unwrap()) == expected);
                done += 1;
            }
        }
    }
    assert!(done > 200, "{done} tensors");
}

#[test]
fn what_torch_cannot_hold_is_refused_every_time() {
    let tensor = |dtype, bytes: TensorBytes| {
        Tensor::new(TensorInfo::new("t", dtype, [4]).unwrap(), bytes).unwrap()
    };
    let three = || TensorBytes::Range(Section::from_bytes([1, 2, 3], "memory"));
    let four = || TensorBytes::Range(Section::from_bytes([1, 2, 3, 4], "memory"));
    let mut archives = TensorArchives::new(WriteOptions::new());
    for _ in 0..2 {
        for refused in [
            tensor(Dtype::F6E2M3, three()),
            tensor(Dtype::Quint8, four()),
            tensor(Dtype::U8, TensorBytes::None("on the meta device".into())),
        ] {
            for e in [archives.prepare(&refused).err(), archives.layout(&refused).err()] {
                let e = e.unwrap();
                assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
                assert!(e.to_string().contains("tensor t"), "{e}");
            }
        }
        // Of the shape of one that was refused.
        archives.prepare(&tensor(Dtype::U8, four())).unwrap();
    }
}

#[test]
fn what_is_common_is_held_once() {
    let mut archives = TensorArchives::new(WriteOptions::new());
    let tensor = |byte: u8| {
        let bytes = TensorBytes::Range(Section::from_bytes([byte; 4], "memory"));
        Tensor::new(TensorInfo::new("t", Dtype::U8, [4]).unwrap(), bytes).unwrap()
    };
    archives.prepare(&tensor(0)).unwrap();
    let files = [1, 2].map(|byte| archives.layout(&tensor(byte)).unwrap());
    let sources = files.map(|file| {
        let shared = file.segments().iter().filter_map(|(_, segment)| match segment {
            Segment::Section(section) => Some(std::sync::Arc::as_ptr(section.source()).cast()),
            Segment::Literal(bytes) => panic!("{} bytes are its own", bytes.len()),
            _ => None,
        });
        shared.collect::<Vec<*const ()>>()
    });
    assert_eq!(sources[0].len(), 2);
    assert_eq!(sources[0], sources[1]);
}
