//! Metadata and items that nobody should have written, and what is said about each.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod support;

use ckptkit_core::{ErrorKind, TensorBytes, TensorSource};
use distcp::DistCheckpoint;
use support::item::{archive, floats, tensor_value, zip};
use support::pickle::{P, dict, object, pickle, s, size};
use support::{
    META, Memory, Metadata, chunk, index, place, properties, tensor, tensor_of, transformed,
};

/// `w`, float32 of 4 x 3 in two chunks of two rows, and its metadata.
fn sound() -> (Memory, Metadata) {
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    m.tensor("w", "float32", &[4, 3], &[(&[0, 0], &[2, 3]), (&[2, 0], &[2, 3])]);
    for (row, first) in [(0, 0_u8), (2, 6)] {
        let values: Vec<f32> = (first..first + 6).map(f32::from).collect();
        let (at, len) = files.item("__0_0.distcp", &floats(&[2, 3], &values));
        m.place("w", Some(&[row, 0]), "__0_0.distcp", at, len);
    }
    (files, m)
}

/// What reading `w` (and everything before that) says.
fn refusal(files: &Memory, m: &Metadata) -> String {
    refusal_of(files.open(m), "w")
}

fn refusal_of(opened: ckptkit_core::Result<DistCheckpoint>, name: &str) -> String {
    let checkpoint = match opened {
        Ok(checkpoint) => checkpoint,
        Err(e) => return e.to_string(),
    };
    let read = checkpoint.tensor(name).and_then(|t| t.read());
    let e = read.expect_err("it was read").to_string();
    assert!(e.contains(name), "{e} does not name {name}");
    assert!(!checkpoint.verify().unwrap().is_ok());
    e
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[test]
fn the_sound_one_is_read() {
    let (files, m) = sound();
    let checkpoint = files.open(&m).unwrap();
    let bytes = checkpoint.tensor("w").unwrap().read().unwrap();
    assert_eq!(bytes, (0..12_u8).flat_map(|i| f32::from(i).to_le_bytes()).collect::<Vec<_>>());
    let report = checkpoint.verify().unwrap();
    assert!(report.is_ok(), "{:?}", report.problems);
    assert_eq!((report.tensors, report.items, report.checksums), (1, 2, 6));
    assert_eq!(checkpoint.notes(), [""; 0]);
}

// --- paths and files --------------------------------------------------------

#[test]
fn paths_that_leave_the_checkpoint() {
    for path in ["/etc/passwd", "../x", "a/../../x", "a\0b", "C:\\x", "c:x", "\\\\host\\x", ""] {
        let (files, mut m) = sound();
        m.storage[0].1 = place(path, 0, 10);
        let e = files.open(&m).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Denied, "{e}");
        says(&e.to_string(), &["entry w", "outside the checkpoint"]);
    }
}

#[test]
fn missing_files_are_reported_together() {
    let (files, mut m) = sound();
    m.storage[0].1 = place("__1_0.distcp", 0, 10);
    m.storage[1].1 = place("__7_0.distcp", 0, 10);
    let e = files.open(&m).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    says(&e.to_string(), &["2 of 2 data files", "__1_0.distcp, __7_0.distcp", "every rank"]);
}

#[test]
fn a_short_file_is_seen_when_opening() {
    let (mut files, m) = sound();
    files.0.get_mut("__0_0.distcp").unwrap().pop();
    let e = refusal(&files, &m);
    says(&e, &["item of w", "__0_0.distcp", "cut short"]);
}

#[test]
fn offsets_and_lengths_out_of_range() {
    for (at, len, words) in [
        (P::Int(-1), P::Int(10), "negative number -1"),
        (P::Int(0), P::Int(-7), "negative number -7"),
        (P::Int(i64::MAX), P::Int(i64::MAX), "ends past 2^63"),
        (P::Long(vec![0, 0, 0, 0, 0, 0, 0, 0, 1]), P::Int(1), "more than an i64"),
        (P::Long(vec![1; 255]), P::Int(1), "hundreds of digits"),
        (s("0"), P::Int(1), "for a number"),
    ] {
        let (files, mut m) = sound();
        let info = vec![("relative_path", s("__0_0.distcp")), ("offset", at), ("length", len)];
        m.storage[0].1 = object(support::FILESYSTEM, "_StorageInfo", info);
        says(&refusal(&files, &m), &[words]);
    }
}

// --- shapes and chunks ------------------------------------------------------

#[test]
fn shapes_that_cannot_be() {
    let (files, good) = sound();
    let dims =
        |dims: P| tensor_of(properties(P::Global("torch", "float32")), dims, P::List(vec![]));
    for (entry, words) in [
        (dims(size(&[-4, 3])), "negative number -4"),
        (dims(size(&[1 << 62, 1 << 62])), "more elements than an i64"),
        (dims(size(&[i64::MAX])), "more bytes than can be counted"),
        (dims(size(&[1; 65])), "65 dimensions"),
        (dims(P::Int(3)), "3 stands where"),
        (dims(P::Call("os", "system", vec![s("true")])), "os.system"),
        (tensor("float32", &[4, 3], &[(&[0], &[4])]), "does not have the tensor's 2 dimensions"),
        (tensor("float32", &[4, 3], &[(&[0, 0], &[5, 3])]), "reaches outside"),
        (
            tensor("float32", &[4, 3], &[(&[0, 0], &[2, 3])]),
            "element at [2, 0]: the chunks hold 6 of 12",
        ),
        (
            tensor("float32", &[4, 3], &[(&[0, 0], &[3, 3]), (&[2, 0], &[2, 3])]),
            "overlap: 2 of them hold the element at [2, 0]",
        ),
        (
            tensor(
                "float32",
                &[4, 3],
                &[(&[0, 0], &[2, 3]), (&[0, 0], &[2, 3]), (&[2, 0], &[2, 3])],
            ),
            "overlap",
        ),
        (
            tensor("float32", &[1 << 40, 3], &[(&[0, 0], &[2, 3]), (&[2, 0], &[2, 3])]),
            "12 of 3298534883328",
        ),
        (
            tensor("float32", &[1 << 40, 3], &[(&[0, 0], &[1 << 40, 3])]),
            "chunk has sizes [1099511627776, 3]",
        ),
        (tensor("float32", &[4, 3], &[]), "hold 0 of 12"),
        (
            tensor("float32", &[4, 3], &[(&[0, 0], &[1, 3]), (&[1, 0], &[3, 3])]),
            "no place for the chunk at [1, 0]",
        ),
    ] {
        let mut m = good.clone();
        m.entries[0].1 = entry;
        says(&refusal(&files, &m), &[words]);
    }
}

#[test]
fn one_bad_tensor_does_not_hide_the_others() {
    let (files, mut m) = sound();
    m.tensor("bad", "float32", &[9], &[(&[0], &[3])]);
    m.tensor("worse", "float32", &[-1], &[]);
    m.entries.push((s("strange"), P::Call("os", "system", vec![s("true")])));
    let checkpoint = files.open(&m).unwrap();
    assert!(checkpoint.tensor("w").unwrap().read().is_ok());
    assert!(matches!(checkpoint.tensor("bad").unwrap().bytes(), TensorBytes::Broken(_)));
    let names: Vec<&str> = checkpoint.infos().map(|i| i.name()).collect();
    assert_eq!(names, ["w", "bad"]);
    says(&checkpoint.tensor("worse").unwrap_err().to_string(), &["worse", "-1"]);
    says(&checkpoint.tensor("strange").unwrap_err().to_string(), &["strange", "os.system"]);
    assert_eq!(checkpoint.notes().len(), 2);
    let failed: Vec<&str> = checkpoint.failures().iter().map(|f| f.0.as_str()).collect();
    assert_eq!(failed, ["worse", "strange"]);
    assert_eq!(checkpoint.verify().unwrap().problems.len(), 3);
}

#[test]
fn two_places_for_one_chunk() {
    let (files, mut m) = sound();
    m.storage.push(m.storage[0].clone());
    says(&refusal(&files, &m), &["two places for the chunk at [0, 0]"]);
}

#[test]
fn a_name_that_is_listed_twice() {
    let (files, mut m) = sound();
    m.entries.push(m.entries[0].clone());
    says(&refusal(&files, &m), &["listed twice"]);
}

#[test]
fn places_without_a_chunk_are_noted() {
    let (files, mut m) = sound();
    m.place("w", Some(&[9, 9]), "__0_0.distcp", 0, 1);
    m.place("w", None, "__0_0.distcp", 0, 1);
    m.place("nobody", None, "__0_0.distcp", 0, 1);
    let checkpoint = files.open(&m).unwrap();
    assert!(checkpoint.tensor("w").unwrap().read().is_ok());
    says(&checkpoint.notes().join("\n"), &["3 places that belong to no chunk"]);
}

#[test]
fn chunks_without_elements_and_scalars() {
    let (mut files, mut m) = sound();
    let (at, len) = files.item("__1_0.distcp", &floats(&[], &[2.5]));
    m.tensor("scalar", "float32", &[], &[(&[], &[])]);
    m.place("scalar", Some(&[]), "__1_0.distcp", at, len);
    m.tensor("empty", "float32", &[0, 3], &[(&[0, 0], &[0, 3])]);
    m.tensor("nothing", "float32", &[3, 0], &[]);
    // A rank past the end.
    let (at, len) = files.item("__1_0.distcp", &floats(&[1, 2], &[1.0, 2.0]));
    m.tensor("few", "float32", &[1, 2], &[(&[0, 0], &[1, 2]), (&[1, 0], &[0, 2])]);
    m.place("few", Some(&[0, 0]), "__1_0.distcp", at, len);
    let checkpoint = files.open(&m).unwrap();
    let read = |name: &str| checkpoint.tensor(name).unwrap().read().unwrap();
    assert_eq!(read("scalar"), 2.5_f32.to_le_bytes());
    assert!(read("empty").is_empty());
    assert!(read("nothing").is_empty());
    assert_eq!(read("few").len(), 8);
    assert!(checkpoint.verify().unwrap().is_ok());
    assert_eq!(checkpoint.chunks("few").unwrap().len(), 1);
}

// --- the pickle -------------------------------------------------------------

#[test]
fn metadata_that_is_something_else() {
    let (files, _) = sound();
    let open = |value: &P| files.open_bytes(pickle(value)).unwrap_err().to_string();
    says(&open(&dict(vec![])), &[".metadata", "a dict stands where"]);
    says(&open(&P::None), &["None stands where"]);
    says(&open(&P::Call("os", "system", vec![s("true")])), &["os.system", "does not call"]);
    says(&open(&P::Obj("my.module", "Metadata", None)), &["my.module.Metadata"]);
    says(&open(&object(META, "Metadata", vec![])), &["no state_dict_metadata"]);
    let set = object(META, "Metadata", vec![("state_dict_metadata", P::Int(1))]);
    says(&open(&set), &["state_dict_metadata", "1 stands where"]);
    says(
        &files.open_bytes(b"hello world".to_vec()).unwrap_err().to_string(),
        &[".metadata", "pickle"],
    );
    says(&files.open_bytes(Vec::new()).unwrap_err().to_string(), &["ends early"]);
}

#[test]
fn calls_are_only_refused_where_they_are_needed() {
    let (files, mut m) = sound();
    let evil = P::Call("os", "system", vec![s("true")]);
    m.more.push(("all_local_plans", P::List(vec![evil.clone()])));
    m.more.push(("storage_meta", evil.clone()));
    m.more.push(("something_new", evil.clone()));
    m.more.push(("version", s("2.0.0")));
    let checkpoint = files.open(&m).unwrap();
    assert!(checkpoint.tensor("w").unwrap().read().is_ok());
    says(&checkpoint.notes().join("\n"), &["version \"2.0.0\""]);
    assert_eq!(checkpoint.variant(), "megatron");

    let (_, mut m) = sound();
    m.storage[0].0 = evil.clone();
    says(&files.open(&m).unwrap_err().to_string(), &["a key of storage_data", "os.system"]);
    let (_, mut m) = sound();
    m.storage[0].1 = evil.clone();
    says(&refusal(&files, &m), &["a place in storage", "os.system"]);
    let (_, mut m) = sound();
    m.entries[0].1 = tensor_of(properties(evil), size(&[4, 3]), P::List(vec![]));
    says(&refusal(&files, &m), &["os.system", "dtype"]);
}

#[test]
fn opcodes_beyond_the_file() {
    let (files, mut m) = sound();
    m.more.push(("ext", P::Raw(vec![0x82, 1])));
    says(&files.open(&m).unwrap_err().to_string(), &["EXT"]);
}

#[test]
fn dtypes_that_cannot_be_read() {
    for (dtype, words) in
        [("qint8", "scale and a zero point"), ("int4", "torch.int4"), ("Tensor", "torch.Tensor")]
    {
        let (files, mut m) = sound();
        m.entries[0].1 = tensor(dtype, &[4, 3], &[(&[0, 0], &[2, 3]), (&[2, 0], &[2, 3])]);
        says(&refusal(&files, &m), &[words]);
    }
}

#[test]
fn layouts_other_than_strided() {
    let layout = P::Call("torch.serialization", "_get_layout", vec![s("torch.sparse_coo")]);
    let state =
        vec![P::Global("torch", "float32"), layout, P::Bool(false), P::None, P::Bool(false)];
    let properties = P::Obj(META, "TensorProperties", Some(Box::new(P::Tuple(state.clone()))));
    let (files, mut m) = sound();
    m.entries[0].1 = tensor_of(properties, size(&[4, 3]), P::List(vec![]));
    says(&refusal(&files, &m), &["torch.sparse_coo"]);
    let seven = [state.clone(), vec![P::None, P::None]].concat();
    let properties = P::Obj(META, "TensorProperties", Some(Box::new(P::Tuple(seven))));
    m.entries[0].1 = tensor_of(properties, size(&[4, 3]), P::List(vec![]));
    says(&refusal(&files, &m), &["7 parts"]);
}

#[test]
fn shapes_that_are_shared_do_not_multiply() {
    // One chunk of 64 dimensions, listed a hundred thousand times by reference; a shape shared by
    // as many chunks; a path shared by as many names.
    let (files, good) = sound();
    let ones = size(&[1; 64]);
    let mut m = good.clone();
    let chunks = P::Repeat(Box::new(chunk(ones.clone(), ones.clone())), 100_000);
    m.entries[0].1 = tensor_of(properties(P::Global("torch", "float32")), ones, chunks);
    let e = files.open(&m).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    says(&e.to_string(), &["its length can hold"]);
    let mut m = good;
    for i in 0..100 {
        let text = "long".repeat(1000);
        m.bytes(&i.to_string());
        m.path(&i.to_string(), vec![s(&text); 100]);
    }
    let e = files.open(&m).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    says(&e.to_string(), &["planner_data", "its length can hold"]);
}

#[test]
fn deep_nesting_costs_no_stack() {
    let (files, mut m) = sound();
    let mut deep = vec![b')'];
    deep.extend(std::iter::repeat_n(0x85, 200_000));
    m.more.push(("deep", P::Raw(deep.clone())));
    assert!(files.open(&m).unwrap().tensor("w").unwrap().read().is_ok());
    m.path("w", vec![P::Raw(deep)]);
    let checkpoint = files.open(&m).unwrap();
    assert!(checkpoint.tensor("w").unwrap().read().is_ok());
    says(&checkpoint.notes().join("\n"), &["path of w"]);
}

// --- names and paths --------------------------------------------------------

#[test]
fn paths_in_planner_data() {
    let (files, good) = sound();
    let name = |path: Vec<P>| {
        let mut m = good.clone();
        m.path("w", path);
        let checkpoint = files.open(&m).unwrap();
        let name = checkpoint.infos().next().unwrap().name().to_owned();
        // By its FQN it is found in any case.
        assert!(checkpoint.tensor("w").unwrap().read().is_ok());
        assert!(checkpoint.chunks("w").is_ok());
        assert!(checkpoint.chunks(&name).is_ok());
        (name, checkpoint.notes().len())
    };
    assert_eq!(name(vec![s("w")]), ("w".into(), 0));
    assert_eq!(name(vec![s("other"), P::Int(3)]), ("other.3".into(), 0));
    assert_eq!(name(vec![]), ("w".into(), 1));
    assert_eq!(name(vec![P::None]), ("w".into(), 1));
    assert_eq!(name(vec![s("a"), P::Int(-1)]), ("w".into(), 1));
}

#[test]
fn a_list_position_far_away() {
    let (files, mut m) = sound();
    m.path("w", vec![s("l"), P::Int(1 << 40)]);
    says(&refusal(&files, &m), &["position 1099511627776 of a list", "1 entries"]);
}

#[test]
fn paths_that_contradict_each_other() {
    let (files, mut m) = sound();
    m.tensor("x", "float32", &[0], &[]);
    m.path("w", vec![s("a")]);
    m.path("x", vec![s("a"), s("b")]);
    let checkpoint = files.open(&m).unwrap();
    assert_eq!(checkpoint.infos().count(), 2);
    says(
        &checkpoint.tree().unwrap_err().to_string(),
        &["entry x", "goes on where another one ends"],
    );
}

#[test]
fn two_paths_of_one_name_both_stay() {
    let (files, mut m) = sound();
    m.tensor("x", "float32", &[0], &[]);
    m.path("w", vec![s("a"), s("b")]);
    m.path("x", vec![s("a.b")]);
    let checkpoint = files.open(&m).unwrap();
    let names: Vec<&str> = checkpoint.infos().map(|i| i.name()).collect();
    assert_eq!(names, ["a.b", "a\\.b"]);
    assert_eq!(checkpoint.tensor("a\\.b").unwrap().shape(), [0]);
}

#[test]
fn names_with_lone_surrogates_are_escaped() {
    let (files, mut m) = sound();
    let raw = P::Text(b"a\xed\xb2\x80b".to_vec());
    m.entries[0].0 = raw.clone();
    for (key, _) in &mut m.storage {
        let P::Obj(_, _, Some(state)) = key else { panic!() };
        let P::Dict(pairs) = &mut **state else { panic!() };
        pairs[0].1 = raw.clone();
    }
    let checkpoint = files.open(&m).unwrap();
    let name = checkpoint.infos().next().unwrap().name().to_owned();
    assert_eq!(name, "a\\udc80b");
    assert!(checkpoint.tensor(&name).unwrap().read().is_ok());
    says(&checkpoint.notes().join("\n"), &["no UTF-8"]);
}

// --- items ------------------------------------------------------------------

/// `w` of 2 x 3 whose one item is `bytes`.
fn with_item(bytes: &[u8]) -> String {
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    let (at, len) = files.item("f", bytes);
    m.tensor("w", "float32", &[2, 3], &[(&[0, 0], &[2, 3])]);
    m.place("w", Some(&[0, 0]), "f", at, len);
    refusal(&files, &m)
}

#[test]
fn items_that_are_not_their_chunk() {
    let values = [0.0; 6];
    let data = [0_u8; 24];
    says(
        &with_item(&floats(&[3, 2], &values)),
        &["shape [3, 2]", "chunk has sizes [2, 3]", "item of"],
    );
    says(&with_item(b"not a zip archive"), &["this is text, expected what torch.save writes"]);
    says(&with_item(b""), &["empty"]);
    let longer = [floats(&[2, 3], &values), b"12345".to_vec()].concat();
    says(&with_item(&longer), &["end record ends at offset"]);
    let two =
        P::List(vec![tensor_value(&[2, 3], &[3, 1], 0, 6), tensor_value(&[2, 3], &[3, 1], 0, 6)]);
    says(&with_item(&archive(&two, &[&data])), &["2 tensors", "expected one tensor"]);
    let listed = P::List(vec![tensor_value(&[2, 3], &[3, 1], 0, 6)]);
    says(&with_item(&archive(&listed, &[&data])), &["a tensor in it, expected one tensor"]);
    says(&with_item(&archive(&P::Int(3), &[])), &["without tensors"]);
    let evil = P::Call("os", "system", vec![s("true")]);
    says(&with_item(&archive(&evil, &[])), &["without tensors"]);
}

#[test]
fn storages_that_do_not_hold_their_view() {
    let item = |strides: &[i64], offset, stored, bytes: &[u8]| {
        with_item(&archive(&tensor_value(&[2, 3], strides, offset, stored), &[bytes]))
    };
    let data = [0_u8; 24];
    says(&item(&[3, 1], 1, 6, &data), &["its storage has 24"]);
    says(&item(&[3, -1], 0, 6, &data), &["-1"]);
    says(&item(&[3, 1], 0, 7, &data), &["24 bytes are stored"]);
    says(&item(&[i64::MAX, 1], 0, 6, &data), &["w"]);
    let no_storage = archive(&tensor_value(&[2, 3], &[3, 1], 0, 6), &[]);
    says(&with_item(&no_storage), &["not in the file"]);
}

#[test]
fn an_expand_bomb() {
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    let dims = [1 << 34, 3];
    let bomb = archive(&tensor_value(&dims, &[0, 0], 0, 1), &[&[0; 4]]);
    let (at, len) = files.item("f", &bomb);
    m.tensor("w", "float32", &dims, &[(&[0, 0], &dims)]);
    m.place("w", Some(&[0, 0]), "f", at, len);
    says(&refusal(&files, &m), &["a view of 4 stored bytes would become"]);
}

#[test]
fn archives_that_mean_two_things() {
    let value = pickle(&tensor_value(&[2, 3], &[3, 1], 0, 6));
    let data = [0_u8; 24];
    let version = ("a/version", &b"3\n"[..]);
    let twice = zip(&[("a/data.pkl", &value), version, ("a/data/0", &data), ("a/data/0", &data)]);
    says(&with_item(&twice), &["data/0"]);
    let mut torn = floats(&[2, 3], &[0.0; 6]);
    let at = torn.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    torn[at + 20..at + 28].fill(0x7f);
    assert!(!with_item(&torn).is_empty());
}

#[test]
fn a_flipped_bit_is_found_by_verify() {
    let (mut files, m) = sound();
    let file = files.0.get_mut("__0_0.distcp").unwrap();
    let at = file.windows(4).position(|w| w == 5.0_f32.to_le_bytes()).unwrap();
    file[at + 2] ^= 1;
    let checkpoint = files.open(&m).unwrap();
    assert!(checkpoint.tensor("w").unwrap().read().is_ok());
    let report = checkpoint.verify().unwrap();
    says(&report.problems[0].to_string(), &["entry w", "chunk at [0, 0]", "data/0", "checksum"]);
}

#[test]
fn transforms() {
    let (files, mut m) = sound();
    let P::Obj(_, _, Some(state)) = &m.storage[0].1 else { panic!() };
    let P::Dict(fields) = &**state else { panic!() };
    let P::Int(len) = fields[2].1 else { panic!() };
    m.storage[0].1 = transformed("__0_0.distcp", 0, len, &["mine@here/1"]);
    says(&refusal(&files, &m), &["\"mine@here/1\""]);
    m.storage[0].1 = transformed("__0_0.distcp", 0, len, &["stream.zstd/1"]);
    says(&refusal(&files, &m), &["zstd"]);
    m.storage[0].1 = transformed("__0_0.distcp", 0, len, &["x"; 17]);
    says(&refusal(&files, &m), &["16 transforms"]);
    m.storage[0].1 = transformed("__0_0.distcp", 0, len, &[]);
    assert!(files.open(&m).unwrap().tensor("w").unwrap().read().is_ok());
}

#[cfg(feature = "zstd")]
#[test]
fn a_zstd_bomb() {
    // A frame of one RLE block after another: 128 KiB from 4 bytes each.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    for i in 0..400_u32 {
        let header = (128 << 10 << 3) | 2 | u32::from(i == 399);
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    let (mut files, mut m) = sound();
    let (at, len) = files.item("z", &frame);
    m.storage[0].1 = transformed("z", at, len, &["stream.zstd/1"]);
    says(&refusal(&files, &m), &["decodes to more than"]);
}

// --- byte items -------------------------------------------------------------

#[test]
fn byte_items_of_all_kinds() {
    let (mut files, mut m) = sound();
    let tensors = P::Tuple(vec![tensor_value(&[2, 3], &[3, 1], 0, 6), P::Int(1)]);
    let items: [(&str, Vec<u8>); 4] = [
        ("step", archive(&P::Int(17), &[])),
        ("pair", archive(&tensors, &[&[0; 24]])),
        ("whole", archive(&tensor_value(&[2, 3], &[3, 1], 0, 6), &[&[0; 24]])),
        ("raw", b"\xff\xfeplanner's own".to_vec()),
    ];
    for (name, bytes) in items {
        let (at, len) = files.item("__1_0.distcp", &bytes);
        m.bytes(name);
        m.place(name, None, "__1_0.distcp", at, len);
    }
    m.bytes("lost");
    let (at, len) = files.item("__1_0.distcp", b"PK\x03\x04 damaged");
    m.bytes("damaged");
    m.place("damaged", None, "__1_0.distcp", at, len);
    let checkpoint = files.open(&m).unwrap();
    let names: Vec<&str> = checkpoint.infos().map(|i| i.name()).collect();
    assert_eq!(names, ["w", "pair.0", "whole"]);
    assert_eq!(checkpoint.tensor("pair.0").unwrap().read().unwrap().len(), 24);
    use torch_save::Value;
    assert_eq!(checkpoint.item_value("step").unwrap(), Value::Int(17));
    assert_eq!(checkpoint.item_value("whole").unwrap(), Value::Tensor("whole".into()));
    let raw = Value::Bytes(b"\xff\xfeplanner's own".to_vec());
    assert_eq!(checkpoint.item_value("raw").unwrap(), raw);
    assert!(checkpoint.item("raw").unwrap().is_none());
    says(&checkpoint.item_value("lost").unwrap_err().to_string(), &["lost", "no place"]);
    let notes = checkpoint.notes().join("\n");
    says(&notes, &["entry lost", "entry damaged"]);
    let Value::Dict(tree) = checkpoint.tree().unwrap() else { panic!() };
    let keys: Vec<_> = tree.iter().filter_map(|(k, _)| k.as_str()).collect();
    assert_eq!(keys, ["w", "step", "pair", "whole", "raw"]);
    assert_eq!(checkpoint.verify().unwrap().problems.len(), 2);
}

// --- containers and ranks ---------------------------------------------------

#[test]
fn custom_planners_use_other_containers() {
    let (files, m) = sound();
    let pairs = |pairs: &[(P, P)]| {
        P::List(pairs.iter().map(|(k, v)| P::Tuple(vec![k.clone(), v.clone()])).collect())
    };
    let ordered = P::Call("collections", "OrderedDict", vec![pairs(&m.entries)]);
    let hidden = (s("w"), P::Int(0));
    let maps = P::List(vec![P::Dict(m.storage.clone()), P::Dict(vec![])]);
    let chain = object("collections", "ChainMap", vec![("maps", maps)]);
    let fields = vec![("state_dict_metadata", ordered), ("storage_data", chain.clone())];
    let checkpoint = files.open_bytes(pickle(&object(META, "Metadata", fields))).unwrap();
    assert!(checkpoint.tensor("w").unwrap().read().is_ok());
    // The first mapping of a chain hides what the later ones say.
    let maps = P::List(vec![P::Dict(m.entries.clone()), P::Dict(vec![hidden])]);
    let entries = object("collections", "ChainMap", vec![("maps", maps)]);
    let fields = vec![("state_dict_metadata", entries), ("storage_data", chain)];
    let checkpoint = files.open_bytes(pickle(&object(META, "Metadata", fields))).unwrap();
    assert!(checkpoint.tensor("w").unwrap().read().is_ok());
}

fn by_ranks(
    metadata: &[(&str, &Metadata)],
    files: &Memory,
) -> ckptkit_core::Result<DistCheckpoint> {
    let mut files = files.clone();
    for (name, m) in metadata {
        files.0.insert((*name).to_owned(), m.pickle());
    }
    DistCheckpoint::with_storage(Box::new(files))
}

#[test]
fn ranks_are_merged_and_must_agree() {
    let (files, both) = sound();
    let part = |i: usize, row: i64, rows: i64| {
        let mut m = Metadata::default();
        m.tensor("w", "float32", &[rows, 3], &[(&[row, 0], &[2, 3])]);
        m.storage.push(both.storage[i].clone());
        m
    };
    let (zero, one) = (part(0, 0, 4), part(1, 2, 4));
    let good = by_ranks(&[("__0.metadata", &zero), ("__1.metadata", &one)], &files).unwrap();
    assert_eq!(good.tensor("w").unwrap().read().unwrap().len(), 48);
    assert_eq!((good.variant(), good.ranks()), ("rank-local", 2));

    let e = by_ranks(&[("__0.metadata", &zero), ("__3.metadata", &one)], &files).unwrap_err();
    says(&e.to_string(), &["of 4 ranks", "__1.metadata, __2.metadata"]);
    let e = by_ranks(&[("__1.metadata", &one)], &files).unwrap_err();
    says(&e.to_string(), &["__0.metadata"]);
    // The last rank is missing: nothing but the tensor's own shape tells.
    says(&refusal_of(by_ranks(&[("__0.metadata", &zero)], &files), "w"), &["element at [2, 0]"]);
    let other = part(1, 2, 5);
    let mixed = by_ranks(&[("__0.metadata", &zero), ("__1.metadata", &other)], &files);
    says(&refusal_of(mixed, "w"), &["rank 1", "another shape or dtype"]);
    // Another number of dimensions, in the last chunk that there is.
    let mut flat = Metadata::default();
    flat.tensor("w", "float32", &[4], &[(&[2], &[2])]);
    flat.storage.push(both.storage[1].clone());
    let mixed = by_ranks(&[("__0.metadata", &zero), ("__1.metadata", &flat)], &files);
    says(&refusal_of(mixed, "w"), &["rank 1", "another shape or dtype"]);
}

#[test]
fn an_unfinished_save() {
    let mut files = Memory::default();
    files.0.insert(".metadata.tmp".into(), vec![]);
    let e = DistCheckpoint::with_storage(Box::new(files)).unwrap_err();
    says(&e.to_string(), &["unfinished save"]);
    let e = DistCheckpoint::with_storage(Box::new(Memory::default())).unwrap_err();
    says(&e.to_string(), &["no distributed checkpoint"]);
    let mut files = Memory::default();
    files.0.insert("metadata.json".into(), br#"{"sharded_backend": "zarr"}"#.to_vec());
    let e = DistCheckpoint::with_storage(Box::new(files)).unwrap_err();
    says(&e.to_string(), &["the backend \"zarr\""]);
}

#[test]
fn megatron_reformulated_optimizer_state() {
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    // 4 x 6 as two column blocks of 4 x 3, each flattened.
    m.tensor("o", "float32", &[1, 2, 12], &[(&[0, 0, 0], &[1, 1, 12]), (&[0, 1, 0], &[1, 1, 12])]);
    for block in 0..2_i64 {
        let values: Vec<f32> =
            (0..12_u8).map(|i| f32::from(i / 3 * 6 + i % 3) + 3.0 * block as f32).collect();
        let (at, len) = files.item("f", &floats(&[1, 1, 12], &values));
        m.place("o", Some(&[0, block, 0]), "f", at, len);
    }
    let shape = |dims: &[i64]| {
        let dims = P::Tuple(dims.iter().map(|&d| P::Int(d)).collect());
        P::Dict(vec![(s("o"), dict(vec![("nd_reformulated_orig_global_shape", dims)]))])
    };
    m.more.push(("mcore_data", shape(&[4, 6])));
    let checkpoint = files.open(&m).unwrap();
    let tensor = checkpoint.tensor("o").unwrap();
    assert_eq!(tensor.shape(), [4, 6]);
    let expected: Vec<u8> = (0..24_u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    assert_eq!(tensor.read().unwrap(), expected);
    assert!(checkpoint.verify().unwrap().is_ok());
    m.more[0].1 = shape(&[5, 6]);
    says(&refusal_of(files.open(&m), "o"), &["[1, 2, 12]", "[5, 6]"]);
}

#[test]
fn index_is_no_part_of_a_key() {
    let (files, mut m) = sound();
    let P::Obj(module, name, Some(state)) = index("w", Some(&[0, 0])) else { panic!() };
    let P::Dict(mut pairs) = *state else { panic!() };
    pairs[1].1 = P::Int(99);
    m.storage[0].0 = P::Obj(module, name, Some(Box::new(P::Dict(pairs))));
    assert!(files.open(&m).unwrap().tensor("w").unwrap().read().is_ok());
}

// --- damage -----------------------------------------------------------------

/// Whatever a damaged byte makes of a file, nothing panics, hangs or becomes huge; reading gives an
/// error, or tensors of the shapes that were listed.
fn survives(files: &Memory) {
    let Ok(checkpoint) = DistCheckpoint::with_storage(Box::new(files.clone())) else { return };
    for info in checkpoint.infos() {
        let Ok(tensor) = checkpoint.tensor(info.name()) else { continue };
        if let Ok(bytes) = tensor.read() {
            assert_eq!(bytes.len() as u64, info.byte_len());
        }
    }
    let _ = checkpoint.tree();
    checkpoint.verify().unwrap();
}

#[test]
fn any_flipped_byte_is_survived() {
    let (mut files, mut m) = sound();
    let (at, len) = files.item("__0_0.distcp", &archive(&P::Int(17), &[]));
    m.bytes("step");
    m.place("step", None, "__0_0.distcp", at, len);
    m.path("w", vec![s("w"), P::Int(1)]);
    files.0.insert(".metadata".into(), m.pickle());
    survives(&files);
    for name in [".metadata", "__0_0.distcp"] {
        for at in 0..files.0[name].len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = files.clone();
                damaged.0.get_mut(name).unwrap()[at] ^= flip;
                survives(&damaged);
            }
        }
        for end in 0..files.0[name].len() {
            let mut cut = files.clone();
            cut.0.get_mut(name).unwrap().truncate(end);
            survives(&cut);
        }
    }
}
