//! Every container around the same few tensors, and what is no container at all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use ckptkit_core::{Section, TensorSource};
use support::build::*;
use support::{floats, listing, open, refused};
use torch_save::{Container, TorchFile};

/// A file's container, its listing and the elements of its tensor `w`.
fn check(bytes: Vec<u8>, container: Container, expected: &[&str], w: &[f32]) -> TorchFile {
    let file = open(bytes);
    assert_eq!(file.container(), container);
    assert_eq!(listing(&file), expected);
    assert_eq!(floats(&file, "w"), w);
    file.verify().unwrap();
    file
}

#[test]
fn zip() {
    let object = object(&[("w", vector("FloatStorage", "0", 2)), ("n", int(7))]);
    let file = check(
        pt(&object, &[("0", f32s(&[1.0, 2.0]))]),
        Container::Zip,
        &["w F32 [2] tensor"],
        &[1.0, 2.0],
    );
    assert_eq!(file.lookup("n").unwrap().as_int(), Some(7));
}

#[test]
fn legacy_stream() {
    // The second tensor is in a view of the root storage, as torch 0.1.12 wrote shared storages.
    let view = tuple(&[text("91"), int(2), int(3)]);
    let object = object(&[
        ("w", tensor(storage_view("FloatStorage", "90", 6, none()), 4, &[2], &[1])),
        ("v", tensor(storage_view("FloatStorage", "90", 6, view), 1, &[2], &[1])),
    ]);
    let bytes = legacy(&object, &[("90", 6, f32s(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))]);
    let file = check(
        bytes.clone(),
        Container::Legacy,
        &["w F32 [2] tensor", "v F32 [2] tensor"],
        &[4.0, 5.0],
    );
    assert_eq!(floats(&file, "v"), [3.0, 4.0]);
    let storage = |name: &str| file.entry(name).unwrap().tensor().info().storage();
    assert_eq!(storage("w"), storage("v"));

    let mut longer = bytes.clone();
    longer.push(0);
    assert!(open(longer).notes()[0].contains("1 bytes follow the last storage"));
    let cut = refused(&bytes[..bytes.len() - 1]);
    assert!(cut.contains("storage 90") && cut.contains("cut short"), "{cut}");
}

#[test]
fn legacy_views_keep_inside_their_part() {
    let view = tuple(&[text("91"), int(2), int(3)]);
    let object = object(&[
        ("inside", tensor(storage_view("FloatStorage", "90", 6, view.clone()), 0, &[3], &[1])),
        ("outside", tensor(storage_view("FloatStorage", "90", 6, view), 1, &[3], &[1])),
    ]);
    let file = open(legacy(&object, &[("90", 6, f32s(&[0.0; 6]))]));
    assert!(file.tensor("inside").unwrap().read().is_ok());
    let e = file.tensor("outside").unwrap().read().unwrap_err().to_string();
    assert!(e.contains("tensor outside") && e.contains("leaves its view"), "{e}");
}

#[test]
fn equal_strides_in_different_views_are_not_tied() {
    let part = |at| tuple(&[text("91"), int(at), int(4)]);
    let square = |at| tensor(storage_view("FloatStorage", "90", 8, part(at)), 0, &[2, 2], &[1, 2]);
    let object = object(&[("a", square(0)), ("b", square(4)), ("c", square(4))]);
    let file = open(legacy(&object, &[("90", 8, f32s(&[0.0; 8]))]));
    let tensor = |name| file.tensor(name).unwrap();
    assert!(!tensor("a").is_tied_with(&tensor("b")));
    assert!(tensor("b").is_tied_with(&tensor("c")));
}

#[test]
fn many_small_storages_in_a_legacy_stream() {
    let names: Vec<String> = (0..20_000).map(|i| format!("{i:05}")).collect();
    let pairs: Vec<_> = names
        .iter()
        .map(|n| (n.as_str(), tensor(storage_view("FloatStorage", n, 3, none()), 0, &[3], &[1])))
        .collect();
    let storages: Vec<_> =
        names.iter().enumerate().map(|(i, n)| (n.as_str(), 3, f32s(&[i as f32; 3]))).collect();
    let file = open(legacy(&object(&pairs), &storages));
    assert_eq!(file.tensors().len(), 20_000);
    assert_eq!(floats(&file, "19999"), [19_999.0; 3]);
}

#[test]
fn a_legacy_storage_that_nobody_describes() {
    let object =
        object(&[("w", tensor(storage_view("FloatStorage", "1", 1, none()), 0, &[1], &[1]))]);
    let e = refused(legacy(&object, &[("2", 1, f32s(&[0.0])), ("1", 1, f32s(&[0.0]))]));
    assert!(e.contains("storage 2"), "{e}");
}

#[test]
fn tar_era() {
    // torch/serialization.py, legacy_load: counts and records as pickles, with raw numbers between.
    let mut storages = pickle(&int(1));
    storages.extend(pickle(&tuple(&[int(100), text("cpu"), global("torch", "FloatStorage")])));
    storages.extend_from_slice(&4_i64.to_le_bytes());
    storages.extend(f32s(&[0.0, 1.0, 2.0, 3.0]));
    storages.extend(pickle(&list(&[tuple(&[int(101), int(100), int(2), int(2)])])));
    let mut tensors = pickle(&int(2));
    for (key, storage, sizes, strides, offset) in
        [(1_i64, 100_i64, vec![2_i64, 2], vec![1_i64, 2], 0_i64), (2, 101, vec![1], vec![1], 1)]
    {
        tensors.extend(pickle(&tuple(&[int(key), int(storage), global("torch", "FloatTensor")])));
        tensors.extend_from_slice(&i32::try_from(sizes.len()).unwrap().to_le_bytes());
        tensors.extend_from_slice(&[0; 4]);
        for number in sizes.iter().chain(&strides).chain([&offset]) {
            tensors.extend_from_slice(&number.to_le_bytes());
        }
    }
    let parameter = reduce(&global("torch.nn.parameter", "Parameter"), &[persid(&int(2))]);
    let parameter = build(&parameter, &tuple(&[boolean(true), boolean(false), none()]));
    let object = object(&[("w", persid(&int(1))), ("p", parameter)]);
    let bytes = tar(&[
        ("sys_info", pickle(&object_of_system())),
        ("pickle", pickle(&object)),
        ("storages", storages),
        ("tensors", tensors),
    ]);
    let file = check(
        bytes,
        Container::TarEra,
        &["w F32 [2, 2] tensor", "p F32 [1] parameter"],
        &[0.0, 2.0, 1.0, 3.0],
    );
    assert_eq!(floats(&file, "p"), [3.0]);
    assert!(file.entry("p").unwrap().requires_grad());
}

fn object_of_system() -> Vec<u8> {
    object(&[("protocol_version", int(1000)), ("little_endian", boolean(true))])
}

#[test]
fn persistent_ids_of_protocol_0() {
    // What `pickle_protocol=0` makes of an id: its repr, on a line.
    let id = "P('storage', <class 'torch.FloatStorage'>, '0', 'cpu', 2)\n";
    let pickle = format!(
        "(dp0\nVw\nctorch._utils\n_rebuild_tensor_v2\n({id}I0\n(I2\nt(I1\ntI00\nccollections\nOrderedDict\n(tRtRs."
    );
    let bytes = support::build::zip(&[
        ("archive/data.pkl".into(), pickle.into_bytes()),
        ("archive/data/0".into(), f32s(&[5.0, 6.0])),
        ("archive/version".into(), b"3\n".to_vec()),
    ]);
    check(bytes, Container::Zip, &["w F32 [2] tensor"], &[5.0, 6.0]);
}

#[test]
fn big_endian() {
    let object = object(&[
        ("w", vector("FloatStorage", "0", 2)),
        ("c", vector("ComplexFloatStorage", "1", 1)),
        ("b", vector("ByteStorage", "2", 2)),
    ]);
    let swapped = |values: &[f32]| values.iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<u8>>();
    let bytes = pt_with(
        &object,
        &[("0", swapped(&[1.0, 2.0])), ("1", swapped(&[3.0, 4.0])), ("2", vec![7, 8])],
        &[("byteorder", b"big")],
    );
    let listed = ["w F32 [2] tensor", "c C64 [1] tensor", "b U8 [2] tensor"];
    let file = check(bytes, Container::Zip, &listed, &[1.0, 2.0]);
    assert_eq!(floats(&file, "c"), [3.0, 4.0]);
    assert_eq!(file.tensor("b").unwrap().read().unwrap(), [7, 8]);
    let middle = pt_with(&object_of_system(), &[], &[("byteorder", b"middle")]);
    assert!(refused(middle).contains("byte order \"middle\""));
}

#[test]
fn plain_pickles() {
    let file = open(pickle(&object(&[("lr", float(0.5))])));
    assert_eq!(file.container(), Container::Pickle);
    assert_eq!(file.lookup("lr").unwrap().as_f64(), Some(0.5));
    let mut trailing = pickle(&object(&[]));
    trailing.extend_from_slice(b"rest");
    assert!(open(trailing).notes()[0].contains("4 bytes follow"));
    // A tensor whose storage the file cannot have.
    let file = open(pickle(&object(&[("w", vector("FloatStorage", "0", 1))])));
    let e = file.tensor("w").unwrap().read().unwrap_err().to_string();
    assert!(e.contains("storage 0") && e.contains("not in the file"), "{e}");
}

#[test]
fn what_is_no_checkpoint() {
    let mut safetensors = 40_u64.to_le_bytes().to_vec();
    safetensors.extend_from_slice(format!("{:<60}", "{\"w\":{}}").as_bytes());
    let mut tar = tar(&[("model_config.yaml", b"a: 1\n".to_vec())]);
    tar.extend_from_slice(&[0; 64]);
    let zip = pt(&object(&[("w", vector("FloatStorage", "0", 2))]), &[("0", f32s(&[1.0, 2.0]))]);
    for (bytes, words) in [
        (&b""[..], "an empty file"),
        (b"hello world\n", "this is text, expected what torch.save writes"),
        (b"N.\n", "this is text, expected what torch.save writes"),
        (b"N.", "this is text, expected what torch.save writes"),
        (b"Version 2\n.\n", "this is text, expected what torch.save writes"),
        (b"config\nname\n.", "this is text, expected what torch.save writes"),
        (b"I'm a README.\n", "this is text, expected what torch.save writes"),
        (b"\x9b\x01\x02\x03 neither text nor a pickle", "nothing that torch.save has written"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"\n  {\"a\": 1}\n", "JSON text"),
        (b"[1, 2]", "JSON text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x1F\x8B\x08\x00aaaa", "gzip"),
        (b"\x89HDF\r\n\x1A\n....", "HDF5"),
        (b"\x93NUMPY\x01\x00v\x00", "NumPy"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"PYTORCH1aaaaaaaa", "torch 1.0 preview"),
        (&[0; 100], "starts with zeros"),
        (&safetensors, "open it as safetensors"),
        (&tar, "a tar archive without"),
        (&zip[..zip.len() - 1], "zip directory"),
        (&zip[..zip.len() / 2], "zip directory"),
        (&support::build::zip(&[("a/b.txt".into(), vec![1])]), "no member data.pkl"),
        (&support::build::zip(&[("b.npy".into(), vec![1])]), "torch.save has not written"),
    ] {
        let message = refused(bytes);
        assert!(message.contains(words), "{:?}: {message}", bytes.escape_ascii().to_string());
        assert!(message.starts_with("test: ") && message.contains("; "), "no hint: {message}");
    }
    let missing = TorchFile::open("/nonexistent/model.pt").unwrap_err();
    assert_eq!(missing.kind(), ckptkit_core::ErrorKind::NotFound);
}

#[test]
fn a_huge_length_in_a_small_file_is_not_waited_for() {
    // BINBYTES8 of 2^40 bytes, in a file that is long enough to make a growing window tempting.
    let mut bytes = b"\x80\x04\x8e\0\0\0\0\0\x01\0\0".to_vec();
    bytes.resize(3 << 20, b'x');
    assert!(refused(bytes).contains("no pickle (the pickle ends early"));
}

#[test]
fn an_object_longer_than_the_first_window() {
    let long = "x".repeat(700_000);
    let object = object(&[
        ("text", text(&long)),
        ("w", tensor(storage_view("FloatStorage", "1", 1, none()), 0, &[1], &[1])),
    ]);
    let file = open(legacy(&object, &[("1", 1, f32s(&[9.0]))]));
    assert_eq!(floats(&file, "w"), [9.0]);
    assert_eq!(file.lookup("text").unwrap().as_str().map(str::len), Some(700_000));
}

#[test]
fn a_window_of_a_larger_file() {
    let inner = pt(&object(&[("w", vector("FloatStorage", "0", 1))]), &[("0", f32s(&[3.0]))]);
    let mut outer = vec![0xAA; 1000];
    outer.extend_from_slice(&inner);
    outer.extend_from_slice(&[0xBB; 500]);
    let section = Section::from_bytes(outer, "outer").slice(1000, inner.len() as u64).unwrap();
    assert_eq!(floats(&TorchFile::from_section(&section).unwrap(), "w"), [3.0]);
}
