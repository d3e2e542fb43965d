//! Legal files, common and odd.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests")]

mod common;

use ckptkit_core::{Dtype, ErrorKind, Section};
use common::{contents, file, map, open};
use safetensors::SafeTensors;
use st_io::{StDtype, StFile};

#[test]
fn the_smallest_files() {
    for header in ["{}", "{}      ", "\n\t {} \r\n", r#"{"__metadata__":{}}"#] {
        let opened = open(file(header, b"")).unwrap();
        assert_eq!(opened.infos().count(), 0);
        assert_eq!(opened.header_bytes(), header.len() as u64);
        assert_eq!(opened.data_offset(), 8 + header.len() as u64);
        assert!(opened.metadata().is_empty() && opened.notes().is_empty());
        opened.verify().unwrap();
    }
    let null = open(file(r#"{"__metadata__":null}"#, b"")).unwrap();
    assert!(null.metadata().is_empty());
    assert!(null.notes()[0].contains("null"));
}

#[test]
fn scalars_and_empty_tensors_anywhere() {
    let header = r#"{
      "end":{"dtype":"F32","shape":[7,0],"data_offsets":[6,6]},
      "i16":{"shape":[],"data_offsets":[4,6],"dtype":"I16"},
      "middle":{"dtype":"F32","shape":[0],"data_offsets":[4,4]},
      "f32":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},
      "start":{"dtype":"U64","shape":[0,3],"data_offsets":[0,0]}}"#;
    let bytes = file(header, &[1, 2, 3, 4, 5, 6]);
    SafeTensors::deserialize(&bytes).unwrap();
    let opened = open(bytes).unwrap();
    let names: Vec<&str> = opened.infos().map(|i| i.name()).collect();
    assert_eq!(names, ["end", "i16", "middle", "f32", "start"], "the order of the file");
    let all = contents(opened.tensors());
    assert_eq!(all["i16"], (Dtype::I16, vec![], vec![5, 6]));
    assert_eq!(all["f32"].2, [1, 2, 3, 4]);
    assert_eq!(all["end"], (Dtype::F32, vec![7, 0], vec![]));
    assert_eq!(opened.header().entry("i16").unwrap().data_offsets(), (4, 6));
}

#[test]
fn any_text_is_a_name() {
    let header = r#"{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
      "..\/..":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},
      "a\u0000b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},
      "\ud83d\ude00 é\n\"":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}"#;
    let opened = open(file(header, &[1, 2, 3, 4])).unwrap();
    for (name, value) in [("", 1), ("../..", 2), ("a\0b", 3), ("😀 é\n\"", 4)] {
        assert_eq!(opened.tensor(name).unwrap().read().unwrap(), [value]);
    }
    let error = opened.tensor("b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("did you mean"), "{error}");
}

#[test]
fn every_dtype() {
    for dtype in Dtype::all().filter(|d| d.safetensors_name().is_some()) {
        // Eight elements are a whole number of bytes of every width.
        let len = dtype.byte_len(8).unwrap();
        let header =
            format!(r#"{{"w":{{"dtype":"{dtype}","shape":[2,4],"data_offsets":[0,{len}]}}}}"#);
        let data = common::pattern(1, len);
        let bytes = file(header, &data);
        let reference = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(reference.tensor("w").unwrap().data(), data);
        let opened = open(bytes.clone()).unwrap();
        let all = contents(opened.tensors());
        assert_eq!(all["w"], (dtype, vec![2, 4], data), "{dtype}");
    }
}

#[test]
fn one_exotic_entry_leaves_the_rest_readable() {
    let header = r#"{"ok":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},
      "odd":{"dtype":"I4","shape":[3],"data_offsets":[2,4]},
      "late":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}}"#;
    let opened = open(file(header, &[1, 2, 3, 4, 5])).unwrap();
    assert_eq!(opened.infos().map(|i| i.name()).collect::<Vec<_>>(), ["ok", "late"]);
    assert_eq!(contents(opened.tensors())["late"].2, [5]);
    let odd = &opened.entries()[1];
    assert_eq!(odd.dtype(), StDtype::Unknown("I4"));
    assert_eq!((odd.shape(), odd.byte_len()), (&[3][..], 2));
    assert!(opened.notes()[0].contains("odd"), "{:?}", opened.notes());
    for error in [opened.tensor("odd").unwrap_err(), opened.verify().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("tensor odd: I4"), "{error}");
    }
}

#[test]
fn unknown_keys_are_noted() {
    let header = r#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":[1,"two",null]}}"#;
    let opened = open(file(header, &[1])).unwrap();
    assert_eq!(opened.tensor("w").unwrap().read().unwrap(), [1]);
    assert!(opened.notes()[0].contains("\"x\""));
}

#[test]
fn aliases_are_entries_that_tie_names() {
    let header = r#"{"__metadata__":{"format":"pt","z":"a","a":"b","gone":"nowhere"},
      "a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
      "b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    let opened = open(file(header, &[1, 2])).unwrap();
    assert_eq!(opened.aliases(), map(&[("z", "a")]));
    assert_eq!(opened.metadata()["format"], "pt");
}

#[test]
fn detection_looks_past_the_first_byte() {
    let detect = |bytes: Vec<u8>| StFile::detect(&Section::from_bytes(bytes, "m"));
    for n in [2, 8, 0x80, 0x280, 0x4b50] {
        // Lengths that start as a pickle (0x80) and as a zip archive (PK) do.
        assert!(detect(file(format!("{:n$}", "{}"), b"")), "{n}");
    }
    assert!(detect(file(format!("{}{{}}", " ".repeat(300)), b"")));
    assert!(!detect(file("", b"12")));
    assert!(!detect(file("[]", b"")));
    assert!(!detect(file(" ".repeat(99), b"")));
    assert!(!detect(b"{\"a\":1}".to_vec()));
    assert!(!detect(b"{\"metadata\":{},\"weight_map\":{}}".to_vec()));
    assert!(!detect(b"PK\x03\x04\0\0\0\0{                 ".to_vec()));
    assert!(!detect([b"a.tar\0".as_slice(), &[0; 600]].concat()));
}

#[test]
fn sections_inside_other_bytes() {
    let inner = file(r#"{"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#, &[8, 9]);
    let outer = Section::from_bytes([&[0; 7][..], &inner, &[0; 5]].concat(), "archive");
    let window = outer.slice(7, inner.len() as u64).unwrap();
    let tensor = StFile::from_section(window).unwrap().tensor("w").unwrap();
    assert_eq!(tensor.read().unwrap(), [8, 9]);
    assert_eq!(tensor.as_slice(), Some(&[8, 9][..]), "memory needs no copy");
}

#[cfg(feature = "mmap")]
#[test]
fn mapped_files_need_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let bytes = file(r#"{"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#, &[8, 9]);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(StFile::open(&path).unwrap().tensor("w").unwrap().as_slice(), None);
    let mapped = StFile::open_mapped(&path).unwrap().tensor("w").unwrap();
    assert_eq!(mapped.as_slice(), Some(&[8, 9][..]));
    let mut options = st_io::OpenOptions::default();
    options.mapped = true;
    let checkpoint = st_io::StCheckpoint::open_with(dir.path(), &options).unwrap();
    assert_eq!(checkpoint.tensor("w").unwrap().as_slice(), Some(&[8, 9][..]));
}
