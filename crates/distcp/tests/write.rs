//! What is written reads as what it was made from.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ckptkit_core::shape::view_extent;
use ckptkit_core::{
    Chunk, CopyOptions, Dtype, EntryPath, ErrorKind, Existing, Key, Layout, OutputFile, Region,
    Result, Section, Segment, Strided, Tensor, TensorBytes, TensorInfo, TensorSource, Transform,
};
use distcp::{DistCheckpoint, Entry, Placement, StorageReader, WriteOptions, layout, plan};
use proptest::prelude::*;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use torch_save::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/distcp")
}

fn ranks(n: u32) -> WriteOptions {
    let mut options = WriteOptions::new();
    options.ranks = n;
    options
}

fn path(keys: &str) -> Vec<Key> {
    keys.split('/').map(|k| Key::Str(k.into())).collect()
}

fn write(layout: &Layout, to: &Path) -> DistCheckpoint {
    layout.write(to, Existing::Replace, &CopyOptions::default()).unwrap();
    let checkpoint = DistCheckpoint::open(to).unwrap();
    let report = checkpoint.verify().unwrap();
    assert!(report.is_ok(), "{:?}", report.problems);
    assert_eq!(report.unchecked, 0, "every member has its checksum");
    checkpoint
}

/// Every file of a directory, by name.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    });
    files.collect()
}

// --- checkpoints of the real libraries, for other ranks -------------------------------------------

type Described = BTreeMap<String, (String, Vec<u64>, String)>;

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// What the real library read of the fixture.
fn expected(name: &str) -> Described {
    let text = std::fs::read(fixtures().join(format!("{name}.json"))).unwrap();
    let manifest: Json = serde_json::from_slice(&text).unwrap();
    let tensors = manifest["tensors"].as_array().unwrap().iter();
    let described = tensors.map(|t| {
        let text = |key: &str| t[key].as_str().unwrap().to_owned();
        let shape = t["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap());
        (text("name"), (text("dtype"), shape.collect(), text("sha256")))
    });
    described.collect()
}

fn found(checkpoint: &DistCheckpoint) -> Described {
    let described = checkpoint.infos().map(|info| {
        let bytes = checkpoint.tensor(info.name()).unwrap().read().unwrap();
        let found = (info.dtype().name().to_owned(), info.shape().to_vec(), sha256(&bytes));
        (info.name().to_owned(), found)
    });
    described.collect()
}

/// The fixture written for each of these ranks, with the files that lie beside it.
fn check(name: &str, dir: &str) {
    let source = DistCheckpoint::open(fixtures().join(dir)).unwrap();
    let entries = source.entries().unwrap();
    let expected = expected(name);
    let temp = tempfile::tempdir().unwrap();
    let mut of_items = ranks(3);
    of_items.file_per_item = true;
    let mut mesh = ranks(6);
    mesh.mesh = vec![3, 2];
    mesh.align = 4096;
    for options in [ranks(1), ranks(2), ranks(5), of_items, mesh] {
        let mut plan = plan(&entries, &options).unwrap();
        for side in ["meta.pt", "common.pt", "metadata.json"] {
            if let Ok(section) = Section::open(source.dir().unwrap().join(side)) {
                let mut file = OutputFile::default();
                file.push(Segment::Section(section)).unwrap();
                plan.layout.add(EntryPath::new(side).unwrap(), file).unwrap();
            }
        }
        let again = write(&plan.layout, &temp.path().join("again"));
        assert_eq!(found(&again), expected, "{name} {options:?}");
        // As text, where a NaN is one.
        let trees = [&again, &source].map(|c| format!("{:?}", c.tree().unwrap()));
        assert_eq!(trees[0], trees[1], "{name} {options:?}");
        assert_eq!(again.chunk_count(), plan.chunks);
        let mut names: Vec<&String> = plan.files.iter().map(|(name, _)| name).collect();
        let mut files: Vec<&String> = again.files().iter().collect();
        (names.sort(), files.sort());
        assert_eq!(names, files);
        assert!(again.notes().iter().all(|n| source.notes().contains(n)), "{:?}", again.notes());
        // And once more, from what was written.
        let back = layout(&again.entries().unwrap(), &ranks(4)).unwrap();
        let back = write(&back, &temp.path().join("back"));
        for (name, tensor) in &found(&back) {
            assert_eq!(tensor, &expected[name]);
        }
    }
}

#[test]
fn every_fixture() {
    let mut done = 0;
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let readable = match name.as_str() {
            "zstd" => cfg!(feature = "zstd"),
            "safetensors_format" => cfg!(feature = "safetensors"),
            _ => true,
        };
        if name.ends_with(".json") || !readable {
            continue;
        }
        let dir = if name == "steps" { "steps/step-20" } else { &name };
        check(&name, dir);
        done += 1;
    }
    assert!(done >= 19, "{done}");
}

// --- tensors of every kind ------------------------------------------------------------------------

fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|i| (i * 37 % 251) as u8).collect()
}

fn tensor(name: &str, dtype: Dtype, shape: &[u64]) -> Tensor {
    let info = TensorInfo::new(name, dtype, shape).unwrap();
    let bytes = Section::from_bytes(pattern(info.byte_len()), "memory");
    Tensor::new(info, TensorBytes::Range(bytes)).unwrap()
}

fn view(name: &str, dtype: Dtype, shape: &[u64], offset: u64, strides: &[u64]) -> Tensor {
    let extent = view_extent(offset, shape, strides).unwrap() * dtype.element_bytes().unwrap();
    let storage = Section::from_bytes(pattern(extent), "memory");
    let view = Strided { storage, offset, strides: strides.to_vec() };
    let info = TensorInfo::new(name, dtype, shape).unwrap();
    Tensor::new(info, TensorBytes::Strided(view)).unwrap()
}

/// Every dtype that torch can put into a checkpoint, and every way in which bytes lie.
fn tensors() -> Vec<Tensor> {
    let quantized = ckptkit_core::DtypeClass::Quantized;
    let dtypes = Dtype::all().filter(|d| d.torch_name().is_some() && d.class() != quantized);
    let mut out: Vec<Tensor> = dtypes.map(|d| tensor(d.name(), d, &[5, 6])).collect();
    assert_eq!(out.len(), 28);
    out.extend([
        tensor("scalar", Dtype::F32, &[]),
        tensor("one", Dtype::F64, &[1]),
        tensor("empty", Dtype::F32, &[0, 4]),
        tensor("empty_columns", Dtype::F32, &[4, 0]),
        tensor("deep", Dtype::I16, &[2, 3, 1, 2, 5]),
        tensor("pairs", Dtype::F4, &[10]),
        view("transposed", Dtype::F32, &[7, 5], 3, &[1, 7]),
        view("steps", Dtype::I64, &[4, 3], 1, &[9, 2]),
        view("expanded", Dtype::U8, &[4, 6], 2, &[0, 1]),
        tensor("cast", Dtype::F32, &[9, 4]).cast(Dtype::Bf16).unwrap(),
        view("cast_view", Dtype::F16, &[5, 8], 0, &[1, 5]).cast(Dtype::F64).unwrap(),
    ]);
    let complex = tensor("conjugate", Dtype::C64, &[5, 3]);
    let transform = Transform { swap: true, conj: true, neg: true };
    let conjugate =
        Tensor::with_transform(complex.info().clone(), complex.bytes().clone(), transform);
    out.push(conjugate.unwrap());
    let whole = tensor("chunks", Dtype::I32, &[7, 4]);
    let chunks = [(0, 3), (3, 4)].map(|(at, n)| {
        let region = Region { offsets: vec![at, 0], sizes: vec![n, 4] };
        Chunk { tensor: whole.region(&region).unwrap(), region }
    });
    let chunks = TensorBytes::Chunks(chunks.into());
    out.push(Tensor::new(whole.info().clone(), chunks).unwrap());
    out
}

#[test]
fn tensors_of_every_kind() {
    let tensors = tensors();
    let entries: Vec<Entry> =
        tensors.iter().map(|t| Entry::tensor(path(t.name()), t.clone())).collect();
    let temp = tempfile::tempdir().unwrap();
    let mut options: Vec<WriteOptions> = (1..=9).map(ranks).collect();
    for mesh in [vec![2, 3], vec![3, 2], vec![2, 2, 2], vec![1, 4]] {
        let mut with_mesh = ranks(mesh.iter().product());
        with_mesh.mesh = mesh;
        options.push(with_mesh);
    }
    for options in options {
        let again = write(&layout(&entries, &options).unwrap(), &temp.path().join("again"));
        assert_eq!(again.writer(), "torch 2.9 to 2.14");
        assert_eq!(again.infos().count(), tensors.len());
        for (info, before) in again.infos().zip(&tensors) {
            assert_eq!(info.name(), before.name(), "the order is kept");
            let after = again.tensor(info.name()).unwrap();
            assert_eq!((after.dtype(), after.shape()), (before.dtype(), before.shape()));
            let same = after.read().unwrap() == before.read().unwrap();
            assert!(same, "{} {options:?}", info.name());
        }
    }
}

#[test]
fn tensor_data_is_aligned_in_the_file() {
    let entries: Vec<Entry> =
        tensors().iter().map(|t| Entry::tensor(path(t.name()), t.clone())).collect();
    let temp = tempfile::tempdir().unwrap();
    for align in [64, 512] {
        let mut options = ranks(2);
        options.align = align;
        let again = write(&layout(&entries, &options).unwrap(), &temp.path().join("again"));
        let mut seen = 0;
        for chunk in again.chunks("F64").unwrap() {
            assert_eq!(chunk.offset % align, 0);
            let whole = again.tensor("F64").unwrap();
            let part = whole.region(&chunk.region).unwrap().resolve().unwrap();
            let TensorBytes::Chunks(parts) = part.bytes() else { panic!("{part:?}") };
            let run = parts[0].tensor.resolve().unwrap();
            assert_eq!(run.contiguous().unwrap().offset() % align, 0);
            seen += 1;
        }
        assert_eq!(seen, 2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Placed in any way, a tensor comes back, and its chunks are as many as its mesh makes.
    #[test]
    fn any_placement(
        shape in prop::collection::vec(0_u64..7, 0..4),
        mesh in prop::collection::vec(1_u32..4, 1..4),
        shard in prop::collection::vec(0_usize..5, 3),
    ) {
        let t = view("t", Dtype::I16, &shape, 1, &[5, 3, 2][..shape.len()]);
        let placements: Vec<Placement> = mesh
            .iter()
            .zip(&shard)
            .map(|(_, &d)| if d < shape.len() { Placement::Shard(d) } else { Placement::Replicate })
            .collect();
        let mut options = ranks(mesh.iter().product());
        options.mesh = mesh;
        let entries = [Entry::tensor(path("t"), t.clone()).placed(placements)];
        let temp = tempfile::tempdir().unwrap();
        let again = write(&layout(&entries, &options).unwrap(), &temp.path().join("again"));
        prop_assert_eq!(again.tensor("t").unwrap().read().unwrap(), t.read().unwrap());
        // A row of what was read by chunks is what the view has there.
        if !shape.contains(&0) && !shape.is_empty() {
            let mut sizes = shape.clone();
            sizes[0] = 1;
            let last = Region { offsets: [&[shape[0] - 1][..], &vec![0; shape.len() - 1]].concat(), sizes };
            let part = again.tensor("t").unwrap().region(&last).unwrap();
            prop_assert_eq!(part.read().unwrap(), t.region(&last).unwrap().read().unwrap());
        }
    }
}

// --- objects, paths, determinism ------------------------------------------------------------------

fn object(value: &Value) -> OutputFile {
    let mut document = torch_save::Document::new();
    let root = document.builder().value(value).unwrap();
    document.set_root(root);
    document.layout(&torch_save::WriteOptions::new()).unwrap()
}

#[test]
fn objects_and_nested_paths() {
    let at = |keys: &str, index: u64, key: &str| {
        [path(keys), vec![Key::Index(index), Key::Str(key.into())]].concat()
    };
    let value = Value::Tuple(vec![Value::Float(0.9), Value::Str("x".into()), Value::None]);
    let entries = [
        Entry::tensor(
            vec![Key::Str("model".into()), Key::Str("layers.0.w".into())],
            tensor("w", Dtype::F32, &[4, 2]),
        ),
        Entry::bytes(at("optim/groups", 0, "betas"), object(&value)),
        Entry::bytes(at("optim/groups", 2, "lr"), object(&Value::Float(0.1))),
        Entry::tensor(
            [path("optim"), vec![Key::Other("7".into())]].concat(),
            tensor("x", Dtype::I8, &[3]),
        ),
        Entry::bytes(path("step"), object(&Value::Int(17))),
        Entry::bytes(path(""), object(&Value::Bool(true))),
    ];
    let temp = tempfile::tempdir().unwrap();
    let again = write(&layout(&entries, &ranks(3)).unwrap(), &temp.path().join("again"));
    let tree = again.tree().unwrap();
    assert_eq!(tree.get("optim.groups.0.betas"), Some(&value));
    let groups = again.value("optim.groups").unwrap();
    assert!(matches!(&groups, Value::List(items) if items.len() == 3 && items[1] == Value::None));
    assert_eq!(again.value("optim.7").unwrap(), Value::Tensor("optim.7".into()));
    assert_eq!(again.value("step").unwrap(), Value::Int(17));
    let names: Vec<String> = again.paths().map(|p| format!("{p:?}")).collect();
    assert_eq!(names[0], "[Str(\"model\"), Str(\"layers.0.w\")]");
    // Objects lie in front of tensors.
    let alone = write(&layout(&entries, &ranks(1)).unwrap(), &temp.path().join("alone"));
    let first = alone.chunks("model.layers.0.w").unwrap().remove(0);
    assert_eq!(first.offset, 4 * object(&Value::None).len().next_multiple_of(64));
}

#[test]
fn equal_input_gives_equal_bytes() {
    let source = DistCheckpoint::open(fixtures().join("fsdp2_4")).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for (name, threads) in [("fresh", 1), ("used", 3)] {
        let entries = source.entries().unwrap();
        if name == "used" {
            // What has been read before is laid out no other.
            write(&layout(&entries, &ranks(1)).unwrap(), &temp.path().join("before"));
        }
        let to = temp.path().join(name);
        let mut options = CopyOptions::default();
        options.threads = threads;
        let layout = layout(&entries, &ranks(3)).unwrap();
        layout.write(&to, Existing::Refuse, &options).unwrap();
        seen.push(content(&to));
    }
    assert_eq!(seen[0].len(), 4);
    assert!(seen[0] == seen[1]);
}

// --- what planning costs --------------------------------------------------------------------------

/// A directory that counts how often a data file is opened.
struct Counting(PathBuf, Arc<AtomicUsize>);

impl StorageReader for Counting {
    fn open(&self, relative: &str) -> Result<Section> {
        if relative != ".metadata" {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
        Section::open(self.0.join(relative))
    }

    fn list(&self) -> Result<Vec<String>> {
        Ok(content(&self.0).into_keys().collect())
    }

    fn size(&self, relative: &str) -> Result<Option<u64>> {
        Ok(std::fs::metadata(self.0.join(relative)).ok().map(|m| m.len()))
    }
}

#[test]
fn planning_opens_nothing() {
    for (from, to) in [("tp_4", 3), ("tp_2", 4), ("tp_2", 1), ("dtypes", 2)] {
        let opened = Arc::new(AtomicUsize::new(0));
        let storage = Counting(fixtures().join(from), Arc::clone(&opened));
        let source = DistCheckpoint::with_storage(Box::new(storage)).unwrap();
        let layout = layout(&source.entries().unwrap(), &ranks(to)).unwrap();
        assert_eq!(opened.load(Ordering::Relaxed), 0, "{from}");
        let temp = tempfile::tempdir().unwrap();
        write(&layout, &temp.path().join("again"));
        assert!(opened.load(Ordering::Relaxed) > 0);
    }
}

// --- refusals -------------------------------------------------------------------------------------

#[track_caller]
fn refused(entries: &[Entry], options: &WriteOptions, kind: ErrorKind, mentions: &[&str]) {
    let e = layout(entries, options).unwrap_err();
    assert_eq!(e.kind(), kind, "{e}");
    for words in mentions {
        assert!(e.to_string().contains(words), "{e} does not mention {words}");
    }
}

#[test]
fn names_that_no_state_dict_holds() {
    let entry = |keys: Vec<Key>| Entry::tensor(keys, tensor("t", Dtype::U8, &[2]));
    let plain = |keys: &str| entry(path(keys));
    let indexed = |keys: &str, i: u64| entry([path(keys), vec![Key::Index(i)]].concat());
    let no = |entries: &[Entry], mentions: &[&str]| {
        refused(entries, &ranks(2), ErrorKind::InvalidArgument, mentions);
    };
    no(&[plain("a.b"), plain("c"), plain("a/b")], &["\"a.b\"", "(\"a.b\")", "(\"a\", \"b\")"]);
    no(&[entry(vec![])], &["empty path"]);
    no(&[plain("a/b/c"), plain("x"), plain("a/b")], &["(\"a\", \"b\", \"c\")", "(\"a\", \"b\")"]);
    no(
        &[plain("a/b"), plain("ab"), indexed("a", 0)],
        &["(\"a\", \"b\")", "(\"a\", 0)", "position"],
    );
    no(&[indexed("a", 4000)], &["(\"a\", 4000)", "position"]);
    no(&[entry(vec![Key::Index(0)])], &["(0)", "position"]);
    no(&[entry(vec![Key::Str("k".into()); 201])], &["201 keys"]);
    // Names that only look alike are no conflict.
    layout(&[plain("a/b"), plain("a/bc"), plain("a/b!"), plain("ab/c")], &ranks(2)).unwrap();
}

#[test]
fn tensors_that_do_not_go_in() {
    let entry = |t: Tensor| [Entry::tensor(path("in/here"), t)];
    let no = |entries: &[Entry], mentions: &[&str]| {
        refused(entries, &ranks(2), ErrorKind::Unsupported, mentions);
    };
    let bare =
        |dtype, bytes| Tensor::new(TensorInfo::new("t", dtype, [4]).unwrap(), bytes).unwrap();
    no(&entry(tensor("t", Dtype::F6E2M3, &[4])), &["entry in.here", "F6_E2M3"]);
    no(&entry(tensor("t", Dtype::Qint8, &[4])), &["entry in.here", "QINT8"]);
    no(&entry(tensor("t", Dtype::F4, &[2, 3])), &["entry in.here", "F4", "halved"]);
    no(&entry(tensor("t", Dtype::F4, &[])), &["entry in.here", "F4"]);
    let meta = bare(Dtype::F32, TensorBytes::None("on the meta device".into()));
    no(&entry(meta), &["entry in.here", "meta device"]);
    let torn = ckptkit_core::Error::malformed("torn");
    let torn = entry(bare(Dtype::F32, TensorBytes::Broken(torn)));
    refused(&torn, &ranks(2), ErrorKind::Malformed, &["entry in.here", "torn"]);
}

#[test]
fn options_that_do_not_fit() {
    let t = || Entry::tensor(path("t"), tensor("t", Dtype::U8, &[2, 3]));
    let no = |entry: Entry, change: &dyn Fn(&mut WriteOptions), mentions: &[&str]| {
        let mut options = ranks(4);
        change(&mut options);
        refused(&[entry], &options, ErrorKind::InvalidArgument, mentions);
    };
    no(t(), &|o| o.ranks = 0, &["0 ranks"]);
    no(t(), &|o| o.ranks = 70_000, &["70000 ranks"]);
    no(t(), &|o| o.mesh = vec![3, 2], &["[3, 2]", "4 ranks"]);
    for align in [0, 48, 65_536] {
        no(t(), &|o| o.align = align, &["aligned", &align.to_string()]);
    }
    let two = [Placement::Shard(0), Placement::Replicate];
    no(t().placed(two), &|_| {}, &["entry t", "2 placements", "1 dimensions"]);
    no(t().placed([Placement::Shard(2)]), &|_| {}, &["entry t", "dimension 2", "[2, 3]"]);
    let object = Entry::bytes(path("t"), object(&Value::None)).placed([Placement::Replicate]);
    no(object, &|_| {}, &["entry t", "object"]);
}

#[test]
fn ranks_that_hold_nothing_are_told() {
    let entries = [Entry::tensor(path("t"), tensor("t", Dtype::U8, &[2]))];
    let plan = plan(&entries, &ranks(8)).unwrap();
    // Two rows, and the chunk without elements at their end.
    assert_eq!((plan.files.len(), plan.chunks), (3, 3));
    assert_eq!(plan.notes, ["5 of 8 ranks hold nothing and get no file"]);
}

#[test]
fn an_empty_state_dict() {
    let plan = plan(&[], &ranks(2)).unwrap();
    assert!(plan.files.is_empty());
    let temp = tempfile::tempdir().unwrap();
    assert_eq!(write(&plan.layout, &temp.path().join("again")).infos().count(), 0);
}
