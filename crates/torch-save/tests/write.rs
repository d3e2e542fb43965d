//! Objects that are written again, whole or changed, and state dicts from tensors.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::path::PathBuf;

use ckptkit_core::{
    CopyOptions, Dtype, ErrorKind, Existing, Layout, OutputFile, Section, StorageId, Strided,
    Tensor, TensorBytes, TensorInfo, TensorSource,
};
use support::build::{f32s, ints, object, pt, storage, tensor, torch_utils};
use support::{fixtures, floats, listing, open, sha256};
use torch_save::{Container, Document, TorchFile, Value, WriteOptions, layout_state_dict};

/// The bytes of a layout.
fn bytes(file: OutputFile) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("out");
    Layout::file(file).write(&to, Existing::Refuse, &CopyOptions::default()).unwrap();
    std::fs::read(to).unwrap()
}

fn laid_out(document: &Document) -> Vec<u8> {
    bytes(document.layout(&WriteOptions::default()).unwrap())
}

/// A document of which every pickle is written anew.
fn edit(file: &TorchFile) -> Document {
    let mut document = file.edit().unwrap();
    document.builder();
    document
}

/// Every tensor with its hash, and who shares a storage with whom.
fn tensors(file: &TorchFile) -> Vec<String> {
    let mut storages = Vec::new();
    let mut rows = listing(file);
    for (row, entry) in rows.iter_mut().zip(file.tensors()) {
        let tensor = entry.tensor();
        if tensor.has_bytes() {
            row.push_str(&format!(" {}", sha256(&tensor.read().unwrap())));
        }
        if let Some(id) = tensor.info().storage() {
            let at = storages.iter().position(|s| *s == id).unwrap_or_else(|| {
                storages.push(id);
                storages.len() - 1
            });
            row.push_str(&format!(" in {at} {} {:?}", entry.requires_grad(), entry.class()));
        }
    }
    rows
}

/// The fixtures that hold an object, not a program.
fn objects() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for group in ["torch", "lightning"] {
        for entry in std::fs::read_dir(fixtures(group)).unwrap() {
            let path = entry.unwrap().path();
            let program = path.ends_with("torchscript.pt") || path.ends_with("export.pt2");
            if path.extension().is_some_and(|e| e != "json") && !program {
                found.push(path);
            }
        }
    }
    assert!(found.len() >= 75, "{}", found.len());
    found
}

#[test]
fn every_object_comes_out_as_it_went_in() {
    for path in objects() {
        // Needs the feature `deflate`.
        let Ok(file) = TorchFile::open(&path) else { continue };
        if file.tensors().iter().any(|e| matches!(e.tensor().bytes(), TensorBytes::Broken(_))) {
            continue;
        }
        let written = laid_out(&edit(&file));
        let copy = open(written.clone());
        assert_eq!(copy.container(), Container::Zip);
        assert_eq!(tensors(&copy), tensors(&file), "{}", path.display());
        assert_eq!(copy.graph().protocol(), 2);
        copy.verify().unwrap();
        // Only old streams keep the source text of a module's class, and name the class by it.
        if !path.ends_with("legacy_module.pt") {
            match (copy.value(copy.root()), file.value(file.root())) {
                (Ok(copy), Ok(file)) => {
                    assert_eq!(format!("{copy:?}"), format!("{file:?}"), "{}", path.display());
                }
                (copy, file) => assert_eq!(copy.is_err(), file.is_err()),
            }
        }
        let last = edit(&file).into_layout(&WriteOptions::default()).unwrap();
        assert!(bytes(last) == written, "{} for the last time", path.display());
        assert!(laid_out(&edit(&file)) == written, "{} twice", path.display());
        // What earlier protocols spell with calls is a call once it was read again.
        let again = laid_out(&edit(&copy));
        assert!(laid_out(&edit(&open(again.clone()))) == again, "{} again", path.display());
    }
}

#[test]
fn what_was_not_changed_keeps_its_pickle() {
    for name in ["torch/protocol_4.pt", "lightning/adam.ckpt", "torch/views.pt"] {
        let path = fixtures(name);
        let file = TorchFile::open(&path).unwrap();
        let pickle = |bytes: &[u8]| {
            let all = members(bytes);
            all.into_iter().find(|(name, _)| name.ends_with("/data.pkl")).unwrap().1
        };
        let written = laid_out(&file.edit().unwrap());
        assert!(pickle(&written) == pickle(&std::fs::read(&path).unwrap()), "{name}");
        let last = file.edit().unwrap().into_layout(&WriteOptions::default()).unwrap();
        assert!(bytes(last) == written, "{name}");
    }
}

/// The graph of the file, a copy of it and one that was taken over node by node.
#[test]
fn an_object_is_written_alike_however_it_is_held() {
    let mut shared = 0;
    for path in objects() {
        let Ok(file) = TorchFile::open(&path) else { continue };
        let of = |document: &Document, node| {
            document.layout_of(node, &WriteOptions::default()).map(bytes).map_err(|e| e.to_string())
        };
        let held = file.edit().unwrap();
        let root = held.root().id();
        let untouched = of(&held, root);
        let copied = edit(&file);
        assert_eq!(copied.root().id(), root);
        assert!(of(&copied, root) == untouched, "{}", path.display());
        let mut taken = Document::new();
        let there = taken.import(&file, file.root()).unwrap();
        assert!(of(&taken, there) == untouched, "{}", path.display());
        // Some of the object's items, as one more object.
        let mut pairs: Vec<_> = held.root().pairs();
        pairs.truncate(2);
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.id(), value.id())).collect();
        let part = held.layout_of_pairs(&pairs, &WriteOptions::default());
        let mut made = edit(&file);
        let dict = made.builder().dict();
        made.builder().set_items(dict, &pairs);
        assert!(
            part.map(bytes).map_err(|e| e.to_string()) == of(&made, dict),
            "{}",
            path.display()
        );
        // Nodes keep their ids when something is changed, and what else is taken is there already.
        if root == file.root().id() {
            shared += 1;
            for document in [&held, &copied, &made] {
                for entry in file.tensors().iter().filter(|e| e.part_of().is_none()) {
                    assert_eq!(document.imported(&file, entry.node()), Some(entry.node()));
                }
            }
            let (mut held, mut made) = (held, made);
            assert_eq!(held.import(&file, file.root()).unwrap(), root);
            assert_eq!(made.import(&file, file.root()).unwrap(), root);
            assert!(laid_out(&held) == laid_out(&file.edit().unwrap()), "{}", path.display());
        }
    }
    assert!(shared > 50, "{shared}");
}

/// A file that is changed without a change to what the document was made from.
#[test]
fn a_change_stays_in_the_document() {
    let file = TorchFile::open(fixtures("lightning/adam.ckpt")).unwrap();
    let (before, globals) = (laid_out(&edit(&file)), file.graph().globals().count());
    let mut document = file.edit().unwrap();
    let epoch = document.builder().int(77);
    document.set("epoch", epoch).unwrap();
    let callable = document.builder().global("torch._utils", "_rebuild_tensor_v2");
    assert_eq!(document.builder().global("torch._utils", "_rebuild_tensor_v2"), callable);
    assert_eq!(document.root().graph().globals().count(), globals, "names stand there once");
    assert_eq!(document.root().graph().consumed(), 0, "a graph of its own");
    assert_eq!(file.lookup("epoch").unwrap().as_int(), Some(2));
    assert!(laid_out(&edit(&file)) == before);
    let changed = document.into_file("changed").unwrap();
    assert_eq!(changed.lookup("epoch").unwrap().as_int(), Some(77));
    assert_eq!(tensors(&changed), tensors(&file));
    // One that was never changed, as the file that it is.
    let same = file.edit().unwrap().into_file("same").unwrap();
    assert_eq!(tensors(&same), tensors(&file));
    assert!(laid_out(&edit(&same)) == before);
}

/// Every member that another program reads of an archive, its checksum checked.
fn members(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(archive)).unwrap();
    (0..archive.len())
        .map(|i| {
            let mut member = archive.by_index(i).unwrap();
            let mut out = Vec::new();
            std::io::Read::read_to_end(&mut member, &mut out).unwrap();
            (member.name().unwrap().into_owned(), out)
        })
        .collect()
}

#[test]
fn zip_tools_read_what_is_written() {
    let file = TorchFile::open(fixtures("torch/many_small.pt")).unwrap();
    let mut options = WriteOptions::new();
    options.align = 4096;
    options.root = "model_weights".into();
    let written = bytes(edit(&file).layout(&options).unwrap());
    let members = members(&written);
    let names: Vec<&str> = members.iter().map(|(n, _)| n.as_str()).collect();
    let first = ["data.pkl", ".format_version", ".storage_alignment", "byteorder", "data/0"];
    assert_eq!(names[..5], first.map(|n| format!("model_weights/{n}")));
    assert_eq!(names.last(), Some(&"model_weights/version"));
    assert_eq!(members[2].1, b"4096");
    for entry in open(written).tensors() {
        assert_eq!(entry.tensor().contiguous().unwrap().offset() % 4096, 0);
    }
    for (align, root) in [(3, "archive"), (64, "a/b"), (64, ""), (1 << 20, "archive")] {
        (options.align, options.root) = (align, root.into());
        let error = edit(&file).layout(&options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{align} {root}");
    }
}

#[test]
fn edits_touch_what_they_name() {
    let file = TorchFile::open(fixtures("lightning/adam.ckpt")).unwrap();
    let mut document = file.edit().unwrap();
    document.remove("optimizer_states.0.state.1").unwrap();
    document.remove("state_dict.net.norm.bias").unwrap();
    document.rename("state_dict.net.scale", "net.gain").unwrap();
    document.retain("callbacks", |key, _| !key.starts_with("EarlyStopping")).unwrap();
    let text = document.builder().str("new");
    document.set("note", text).unwrap();
    let value = Value::Dict(vec![(Value::Int(1), Value::Tuple(vec![Value::Float(0.5)]))]);
    let node = document.builder().value(&value).unwrap();
    document.set("hyper_parameters.rate", node).unwrap();
    let info = TensorInfo::new("x", Dtype::F16, [2]).unwrap();
    let new = TensorBytes::Range(Section::from_bytes([0, 0x3c, 0, 0x40], "memory"));
    document.replace_tensor("state_dict.net.first.bias", &Tensor::new(info, new).unwrap()).unwrap();
    let copy = open(laid_out(&document));

    let before: Vec<String> = tensors(&file);
    let after = tensors(&copy);
    let gone = |row: &&String| {
        row.starts_with("optimizer_states.0.state.1.")
            || row.starts_with("state_dict.net.norm.bias ")
            || row.starts_with("callbacks.EarlyStopping")
            || row.starts_with("state_dict.net.first.bias ")
    };
    let hash = |row: &str| row.split(" in ").next().unwrap().replace("net.gain", "net.scale");
    let expected: Vec<String> = before.iter().filter(|r| !gone(r)).map(|r| hash(r)).collect();
    let found: Vec<String> =
        after.iter().filter(|r| !r.contains("net.first.bias")).map(|r| hash(r)).collect();
    assert!(expected.len() < before.len() - 4);
    assert_eq!(found, expected);
    let replaced = copy.entry("state_dict.net.first.bias").unwrap().tensor();
    assert_eq!((replaced.dtype(), replaced.shape()), (Dtype::F16, &[2][..]));
    assert_eq!(replaced.read().unwrap(), [0, 0x3c, 0, 0x40]);
    assert_eq!(copy.lookup("note").unwrap(), Value::Str("new".into()));
    assert_eq!(copy.lookup("hyper_parameters.rate").unwrap(), value);
    assert_eq!(copy.lookup("epoch").unwrap(), file.lookup("epoch").unwrap());
    assert_eq!(
        copy.root().get("state_dict").unwrap().attribute("_metadata").is_some(),
        file.root().get("state_dict").unwrap().attribute("_metadata").is_some()
    );

    for (what, kind) in [
        (document.remove("no.such.key"), ErrorKind::NotFound),
        (document.remove(""), ErrorKind::InvalidArgument),
        (document.rename("epoch", "global_step"), ErrorKind::InvalidArgument),
        (document.rename("optimizer_states.0", "x"), ErrorKind::InvalidArgument),
        (document.set("epoch.deeper", node), ErrorKind::NotFound),
    ] {
        assert_eq!(what.unwrap_err().kind(), kind);
    }
}

#[test]
fn parts_of_storages_become_views_of_the_whole() {
    let path = fixtures("torch/legacy_storage_views.pt");
    let file = TorchFile::open(&path).unwrap();
    let copy = open(laid_out(&file.edit().unwrap()));
    assert_eq!(tensors(&copy), tensors(&file));
    assert!(copy.tensors().len() >= 2);
}

/// A tensor of 32-bit floats 0, 1, 2, … seen through strides.
fn view(name: &str, storage: &Section, index: u32, shape: &[u64], offset: u64) -> Tensor {
    let id = StorageId { container: 0, index };
    let info = TensorInfo::new(name, Dtype::F32, shape).unwrap().in_storage(id);
    let strides = (1..=shape.len() as u64).collect();
    let bytes = Strided { storage: storage.clone(), offset, strides };
    Tensor::new(info, TensorBytes::Strided(bytes)).unwrap()
}

#[test]
fn tensors_that_share_a_storage_share_one() {
    let floats32: Vec<f32> = (0..100_u16).map(f32::from).collect();
    let section = Section::from_bytes(f32s(&floats32), "memory");
    let a = view("a", &section, 0, &[3, 2], 10);
    let again = view("again", &section, 0, &[3, 2], 10);
    let b = view("b", &section, 0, &[2], 50);
    let alone = view("alone", &section, 1, &[4], 3);
    let layout = layout_state_dict(&[a.clone(), b, again, alone], &WriteOptions::new()).unwrap();
    let written = bytes(layout);
    let file = open(written.clone());
    let tensor = |name: &str| file.tensor(name).unwrap();
    assert!(tensor("a").is_tied_with(&tensor("again")));
    assert_eq!(tensor("a").info().storage(), tensor("b").info().storage());
    assert_ne!(tensor("a").info().storage(), tensor("alone").info().storage());
    assert!(matches!(tensor("a").bytes(), TensorBytes::Strided(v) if v.strides == [1, 2]));
    assert_eq!(floats(&file, "a"), [10., 12., 11., 13., 12., 14.]);
    assert_eq!(floats(&file, "b"), [50., 51.]);
    assert_eq!(floats(&file, "alone"), [3., 4., 5., 6.]);
    // The storages are cut to what is seen of them.
    let sizes: Vec<usize> = members(&written)
        .iter()
        .filter(|(name, _)| name.contains("/data/"))
        .map(|(_, bytes)| bytes.len())
        .collect();
    assert_eq!(sizes, [4 * 42, 4 * 4]);
}

#[test]
fn cast_names_of_one_tensor_stay_tied() {
    let section = Section::from_bytes(f32s(&[1.0, 2.0, 3.0]), "memory");
    let tied: Vec<Tensor> = ["x", "y"]
        .iter()
        .map(|name| view(name, &section, 0, &[3], 0).cast(Dtype::Bf16).unwrap())
        .collect();
    let file = open(bytes(layout_state_dict(&tied, &WriteOptions::new()).unwrap()));
    let [x, y] = ["x", "y"].map(|n| file.tensor(n).unwrap());
    assert!(x.is_tied_with(&y));
    assert_eq!(x.read().unwrap(), [0x80, 0x3f, 0, 0x40, 0x40, 0x40]);
}

#[test]
fn every_dtype_that_torch_has_is_written() {
    let mut written = 0;
    for dtype in Dtype::all() {
        let shape = [2, 8];
        let info = TensorInfo::new("t", dtype, shape).unwrap();
        let len = usize::try_from(info.byte_len()).unwrap();
        let data: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let bytes_of = TensorBytes::Range(Section::from_bytes(data.clone(), "memory"));
        let tensor = Tensor::new(info, bytes_of).unwrap();
        match layout_state_dict(&[tensor], &WriteOptions::new()) {
            Ok(layout) => {
                let file = open(bytes(layout));
                let found = file.tensor("t").unwrap();
                assert_eq!((found.dtype(), found.shape()), (dtype, &shape[..]));
                assert_eq!(found.read().unwrap(), data, "{dtype}");
                written += 1;
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Unsupported);
                assert!(e.to_string().contains("tensor t"), "{e}");
                assert!(e.to_string().contains(dtype.name()), "{e}");
            }
        }
    }
    // All but two 6-bit floats and the five quantized types, which have scales.
    assert_eq!(written, Dtype::all().count() - 7);
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    let missing = pt(
        &object(&[("gone", tensor(storage("FloatStorage", "7", 2), 0, &[2], &[1]))]),
        &[("0", f32s(&[1.0]))],
    );
    let error = open(missing).edit().unwrap().layout(&WriteOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("storage 7"), "{error}");

    let short = torch_utils(
        "_rebuild_tensor",
        &[storage("FloatStorage", "0", 2), support::build::int(0), ints(&[2]), ints(&[1])],
    );
    let file = open(pt(&object(&[("t", short)]), &[("0", f32s(&[1.0]))]));
    let mut document = file.edit().unwrap();
    let error = document.layout(&WriteOptions::new()).unwrap_err();
    assert!(error.to_string().contains("storage 0"), "{error}");
    // What is not reached any more is not missed.
    document.remove("t").unwrap();
    document.layout(&WriteOptions::new()).unwrap();

    let twice = view("t", &Section::from_bytes([0; 8], "m"), 0, &[2], 0);
    let error = layout_state_dict(&[twice.clone(), twice], &WriteOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("tensor t"), "{error}");

    let mut document = Document::new();
    let b = document.builder();
    let (first, placeholder) = (b.none(), b.none());
    let tuple = b.tuple(&[placeholder]);
    b.replace(placeholder, tuple);
    document.set_root(tuple);
    let _ = first;
    let error = document.layout(&WriteOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");

    let mut foreign = Document::new();
    let id = foreign.builder().int(3);
    let node = foreign.builder().persistent(id);
    foreign.set_root(node);
    assert!(foreign.layout(&WriteOptions::new()).is_err());
}

#[test]
fn programs_are_not_edited() {
    let script = TorchFile::open(fixtures("torch/torchscript.pt")).unwrap();
    assert_eq!(script.edit().err().unwrap().kind(), ErrorKind::Unsupported);
}
