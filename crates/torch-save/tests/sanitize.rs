//! Objects made plain, against the plain view of what torch loads (`xtask/python/plain.py`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::path::Path;

use ckptkit_core::{CopyOptions, ErrorKind, Existing, Layout, TensorSource};
use serde_json::Value as Json;
use support::{build, json, open, sha256};
use torch_save::sanitize::{Change, SanitizeOptions, Sanitized};
use torch_save::{TorchFile, Value, weights_only};

/// Writes a planned file and opens it again. torch loads it: nothing in it is refused.
fn written(plan: &Sanitized) -> TorchFile {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plain.pt");
    let layout = Layout::file(plan.layout.clone());
    layout.write(&path, Existing::Refuse, &CopyOptions::default()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = open(bytes);
    assert_eq!(file.weights_only().unwrap(), []);
    assert!(file.failures().is_empty());
    file.verify().unwrap();
    file
}

fn sanitize(file: &TorchFile) -> Sanitized {
    file.sanitize(&SanitizeOptions::new()).unwrap()
}

fn fixture(name: &str) -> TorchFile {
    TorchFile::open(support::fixtures("").join(name)).unwrap()
}

fn tensors(file: &TorchFile) -> Json {
    let entries = file.tensors().iter().map(|entry| {
        let t = entry.tensor();
        let digest = t.has_bytes().then(|| sha256(&t.read().unwrap()));
        serde_json::json!({
            "name": t.name(), "dtype": t.dtype().to_string(), "shape": t.shape(), "sha256": digest,
        })
    });
    entries.collect()
}

#[test]
fn every_refused_fixture_becomes_its_plain_view() {
    let expected: serde_json::Map<String, Json> =
        serde_json::from_str(include_str!("data/sanitized.json")).unwrap();
    assert!(expected.len() >= 29, "{} files", expected.len());
    let mut failed = Vec::new();
    for (name, expected) in &expected {
        let source = fixture(name);
        assert!(!source.weights_only().unwrap().is_empty() || name.ends_with(".pkl"), "{name}");
        let file = written(&sanitize(&source));
        let found = json::normalised(json::encode(&file.value(file.root()).unwrap()));
        if found != json::normalised(expected["values"].clone()) {
            eprintln!("{name}:\n   found {found}\nexpected {}", expected["values"]);
            failed.push(name);
            continue;
        }
        assert_eq!(tensors(&file), expected["tensors"], "{name}");
        for tie in expected["ties"].as_array().unwrap() {
            let tie: Vec<_> = tie.as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
            let first = file.tensor(tie[0]).unwrap();
            for other in &tie[1..] {
                assert!(first.is_tied_with(&file.tensor(other).unwrap()), "{name}: {tie:?}");
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// torch cannot load a file of protocol 0 in any way; its manifest says what was put in.
#[test]
fn protocol_0_with_storages() {
    let manifest = std::fs::read(support::fixtures("torch/protocol_0.pt.json")).unwrap();
    let manifest: Json = serde_json::from_slice(&manifest).unwrap();
    let file = written(&sanitize(&fixture("torch/protocol_0.pt")));
    let found = json::encode(&file.value(file.root()).unwrap());
    assert_eq!(json::normalised(found), json::normalised(manifest["values"].clone()));
    assert_eq!(tensors(&file), manifest["tensors"]);
}

#[test]
fn what_loads_already_keeps_its_pickle() {
    let mut files = 0;
    for group in ["torch", "lightning"] {
        for entry in std::fs::read_dir(support::fixtures(group)).unwrap() {
            let path = entry.unwrap().path();
            let Some(file) = loads(&path) else { continue };
            let plan = sanitize(&file);
            assert!(plan.report.is_empty(), "{}: {:?}", path.display(), plan.report);
            let plain = written_as_it_is(&plan);
            let copied = file.container() == torch_save::Container::Zip;
            if copied && !path.ends_with("big_endian.pt") {
                assert!(plain.pickle().unwrap() == file.pickle().unwrap(), "{}", path.display());
            }
            files += 1;
        }
    }
    assert!(files >= 55, "{files} files");
}

fn loads(path: &Path) -> Option<TorchFile> {
    let name = path.file_name()?.to_str()?;
    let odd = name.contains("deflate") || name.ends_with(".pt2") || name.starts_with("torchscript");
    if odd || name.ends_with(".json") {
        return None;
    }
    let file = TorchFile::open(path).unwrap();
    file.weights_only().unwrap().is_empty().then_some(file)
}

fn written_as_it_is(plan: &Sanitized) -> TorchFile {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("same.pt");
    let layout = Layout::file(plan.layout.clone());
    layout.write(&path, Existing::Refuse, &CopyOptions::default()).unwrap();
    open(std::fs::read(&path).unwrap())
}

fn line(change: &Change) -> String {
    let Change { path, count, is_key, was, became, note, .. } = change;
    let kind = if *is_key { "key " } else { "" };
    let count = if *count > 1 { format!(" ×{count}") } else { String::new() };
    let note = note.as_ref().map(|n| format!(" ({n})")).unwrap_or_default();
    format!("{kind}{path}{count}: {was} → {became}{note}")
}

#[test]
fn the_report_names_every_change() {
    let plan = sanitize(&fixture("lightning/hparams_omegaconf.ckpt"));
    assert_eq!(
        plan.report.changes.iter().map(line).collect::<Vec<_>>(),
        [
            "hyper_parameters: omegaconf.dictconfig.DictConfig → dict \
         (1 interpolation and 1 missing value as text)",
            "hparams_type: omegaconf.dictconfig.DictConfig → str",
        ]
    );
    let plan = sanitize(&fixture("lightning/keys_1_4.ckpt"));
    let class = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint";
    assert_eq!(
        plan.report.changes.iter().map(line).collect::<Vec<_>>(),
        [
            format!("key callbacks.{class}: {class} → str"),
            "hyper_parameters: pytorch_lightning.utilities.parsing.AttributeDict → dict".into(),
        ]
    );
    let plan = sanitize(&fixture("lightning/hparams_refused.ckpt"));
    let lines: Vec<String> = plan.report.changes.iter().map(line).collect();
    for expected in [
        "hyper_parameters.namespaces.0: argparse.Namespace → dict",
        "hyper_parameters.knot: tuple → list (it holds itself)",
        "hyper_parameters.scalars.1: numpy.float32 → float",
        "hyper_parameters.arrays.f4: numpy.ndarray → torch.Tensor",
        "hyper_parameters.arrays.dates: numpy.ndarray → torch.Tensor (of counts: it was <M8[D])",
        "hyper_parameters.arrays.dtypes.0 ×4: numpy.dtype → str",
        "hyper_parameters.sets.3: set → list (its items cannot be told apart by a set)",
        "hyper_parameters.dicts.0: collections.defaultdict → dict \
         (its default_factory was builtins.list)",
        "hyper_parameters.dicts.2: fixture_types.MyDict → OrderedDict",
        "hyper_parameters.long.1 ×2: int → str (the integer is longer than torch reads)",
        "hyper_parameters.module: fixture_types.TiedNet → state dict \
         (its other attributes are left out)",
        "hyper_parameters.stateful: fixture_types.Stateful → dict that describes it",
        "key hyper_parameters.keys.fixture_types.Color(1): fixture_types.Color → str \
         (another key has its plain form)",
        "key hyper_parameters.keys.<fixture_types.Frozen>: fixture_types.Frozen → str",
        "extra.tagged: fixture_types.Tagged → torch.Tensor",
    ] {
        assert!(lines.iter().any(|l| l == expected), "{expected} is not in {lines:#?}");
    }
    // What is under every path is there.
    let file = written(&plan);
    for change in plan.report.changes.iter().filter(|c| !c.path.contains("tagged.3")) {
        file.lookup(&change.path).unwrap();
    }
    // A change is told of once: shared objects stay shared.
    let namespace = |path: &str| file.lookup(path).unwrap();
    assert_eq!(namespace("hyper_parameters.again"), namespace("hyper_parameters.namespaces.0"));
    let at = |keys: [&str; 2]| file.root().get(keys[0]).unwrap().get(keys[1]).unwrap();
    let shared = at(["hyper_parameters", "namespaces"]).items()[0].id();
    assert_eq!(at(["hyper_parameters", "again"]).id(), shared);
}

#[test]
fn the_pickle_and_the_container_are_told_of() {
    let report = sanitize(&fixture("torch/legacy_protocol_4.pt")).report;
    assert!(report.changes.is_empty() && !report.is_empty());
    assert_eq!(report.container.name(), "legacy");
    assert_eq!(report.opcodes[0].name, "FRAME");
    let report = sanitize(&fixture("torch/tar_era.pt")).report;
    assert!(report.changes.is_empty() && !report.is_empty());
    let report = sanitize(&fixture("torch/dtensor.pt")).report;
    assert_eq!((report.is_empty(), &report.imports[..]), (true, &["torch.distributed.tensor"][..]));
}

#[test]
fn strict_refuses_what_is_only_described() {
    let mut options = SanitizeOptions::new();
    options.strict = true;
    let refused = |name: &str| fixture(name).sanitize(&options).unwrap_err();
    let e = refused("lightning/hparams_refused.ckpt");
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    let text = e.to_string();
    assert!(text.contains("hyper_parameters.frozen_slots") && text.contains("Frozen"), "{text}");
    let e = refused("torch/nested.pt").to_string();
    assert!(e.contains("value \"n\": nothing plain stands for"), "{e}");
    for name in ["lightning/hparams_omegaconf.ckpt", "lightning/hparams_dataclass.ckpt"] {
        written(&fixture(name).sanitize(&options).unwrap());
    }
}

#[test]
fn damaged_tensors_are_told_of() {
    // A view that leaves its storage: torch refuses it in any way of loading.
    let object = build::object(&[
        ("good", build::vector("FloatStorage", "0", 2)),
        ("bad", build::tensor(build::storage("FloatStorage", "0", 2), 1, &[2], &[1])),
        ("mine", new("mine.Thing", build::object(&[]))),
    ]);
    let file = open(build::pt(&object, &[("0", build::f32s(&[1.0, 2.0]))]));
    let report = sanitize(&file).report;
    assert_eq!(report.broken.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["bad"]);
    assert_eq!(report.changes.len(), 1);
    let mut options = SanitizeOptions::new();
    options.strict = true;
    let e = file.sanitize(&options).unwrap_err();
    assert!(e.to_string().contains("tensor bad"), "{e}");
}

#[test]
fn modules_can_be_left_out() {
    let mut options = SanitizeOptions::new();
    options.modules = false;
    let plan = fixture("torch/module_in_dict.pt").sanitize(&options).unwrap();
    let notes: Vec<String> = plan.report.changes.iter().map(line).collect();
    assert!(notes[0].contains("its weights are left out"), "{notes:?}");
    let file = written(&plan);
    assert_eq!(file.lookup("model.$type").unwrap().as_str(), Some("fixture_types.TiedNet"));
    assert!(file.infos().all(|i| !i.name().starts_with("model.")));
}

#[test]
fn programs_are_no_objects() {
    if cfg!(feature = "deflate") {
        let e = fixture("torch/torchscript.pt").sanitize(&SanitizeOptions::new()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(e.to_string().contains("torchscript"), "{e}");
    }
}

// --- by hand -----------------------------------------------------------------

/// The plain form of an object, written by hand, and the changes.
fn plain(object: &[u8]) -> (Value, Vec<String>) {
    let plan = sanitize(&open(build::pickle(object)));
    let file = written(&plan);
    let value = file.value(file.root()).unwrap();
    (value, plan.report.changes.iter().map(line).collect())
}

fn new(class: &str, state: Vec<u8>) -> Vec<u8> {
    let (module, class) = class.rsplit_once('.').unwrap();
    build::build(&build::newobj(&build::global(module, class), &[]), &state)
}

#[test]
fn calls_of_unknown_functions_are_described() {
    let call = |name: &str, args: &[Vec<u8>]| build::reduce(&build::global("mine", name), args);
    // With one plain value a class is taken for an enum, a function is not.
    assert_eq!(plain(&call("Color", &[build::int(3)])).0, Value::Int(3));
    assert_eq!(plain(&call("Color", &[build::ints(&[1, 2])])).0.get("1"), Some(&Value::Int(2)));
    let counted = call("Counts", &[build::object(&[("a", build::int(2))])]);
    assert_eq!(plain(&counted).0.get("a"), Some(&Value::Int(2)));
    let (value, changes) = plain(&call("make", &[build::int(3)]));
    assert_eq!(value.get("$type").unwrap().as_str(), Some("mine.make"));
    assert_eq!(value.get("args.0"), Some(&Value::Int(3)));
    assert_eq!(changes, [": mine.make → dict that describes it"]);
    // A call of a call.
    let (value, _) = plain(&build::reduce(&call("make", &[]), &[build::int(1)]));
    assert_eq!(value.get("$type").unwrap().as_str(), Some("object"));
    assert_eq!(value.get("callable.$type").unwrap().as_str(), Some("mine.make"));
    // Items, pairs and keyword arguments.
    let odd = [&call("make", &[])[..], b"K\x01aK\x02K\x03sK\x04b"].concat();
    let (value, _) = plain(&odd);
    assert_eq!(value.get("items.0"), Some(&Value::Int(1)));
    assert_eq!(value.get("pairs.2"), Some(&Value::Int(3)));
    assert_eq!(value.get("state"), Some(&Value::Int(4)));
    let keywords = [
        &build::global("mine", "Made")[..],
        b")",
        &build::object(&[("a", build::int(1))]),
        b"\x92",
    ]
    .concat();
    let (value, _) = plain(&keywords);
    assert_eq!(value.get("kwargs.a"), Some(&Value::Int(1)));
}

#[test]
fn objects_of_protocol_0() {
    let made = |class: &str, base: &str, state: &[u8]| {
        let args =
            [build::global("mine", class), build::global("__builtin__", base), state.to_vec()];
        build::reduce(&build::global("copy_reg", "_reconstructor"), &args)
    };
    assert_eq!(plain(&made("Text", "str", &build::text("a"))).0.as_str(), Some("a"));
    let value = plain(&made("Map", "dict", &build::object(&[("a", build::int(1))]))).0;
    assert_eq!(value.get("a"), Some(&Value::Int(1)));
    let value = plain(&made("Row", "list", &build::list(&[build::int(7)]))).0;
    assert_eq!(value, Value::List(vec![Value::Int(7)]));
    let bare = made("Thing", "object", b"N");
    assert_eq!(plain(&bare).0, Value::Dict(Vec::new()));
    let value = plain(&build::build(&bare, &build::object(&[("x", build::int(2))]))).0;
    assert_eq!(value.get("x"), Some(&Value::Int(2)));
    let newobj = [build::global("mine", "Pair"), build::int(1), build::int(2)];
    let value = plain(&build::reduce(&build::global("copy_reg", "__newobj__"), &newobj)).0;
    assert_eq!(value.get("args.1"), Some(&Value::Int(2)));
}

#[test]
fn slots_and_attributes_together() {
    let state = build::tuple(&[
        build::object(&[("extra", build::int(3))]),
        build::object(&[("left", build::int(1))]),
    ]);
    let value = plain(&new("mine.Slots", state)).0;
    assert_eq!(
        (value.get("left"), value.get("extra")),
        (Some(&Value::Int(1)), Some(&Value::Int(3)))
    );
    let value = plain(&new("mine.Slots", build::tuple(&[b"N".to_vec(), build::object(&[])]))).0;
    assert_eq!(value, Value::Dict(Vec::new()));
}

/// A value node whose value is itself, by way of another one: nothing is left of it.
#[test]
fn what_stands_only_for_itself_is_none() {
    let node = |val: Vec<u8>| {
        let made = build::put(0, &build::newobj(&build::global("omegaconf.nodes", "AnyNode"), &[]));
        build::build(&made, &build::object(&[("_val", val)]))
    };
    let inner = new("omegaconf.nodes.AnyNode", build::object(&[("_val", build::get(0))]));
    let value = plain(&build::object(&[("a", node(inner)), ("b", build::int(1))])).0;
    assert_eq!(value.get("a"), Some(&Value::None));
    assert_eq!(value.get("b"), Some(&Value::Int(1)));
}

#[test]
fn sets_of_any_size_are_calls() {
    // A hundred tuples of four, set one by one, as protocol 4 says it.
    let items: Vec<u8> = (0..100).flat_map(|i| build::ints(&[i, i, i, i])).collect();
    let set = [&b"\x8f("[..], &items, b"\x90"].concat();
    let (value, changes) = plain(&set);
    assert!(matches!(value, Value::Set(items) if items.len() == 100));
    assert!(changes.is_empty());
}

#[test]
fn keys_that_become_equal_stay_apart() {
    let color = |v: i64| build::reduce(&build::global("mine", "Color"), &[build::int(v)]);
    let other = build::reduce(&build::global("mine", "Level"), &[build::int(1)]);
    let object = |name: &str| new(&format!("mine.{name}"), build::object(&[]));
    let pairs = [
        (color(1), build::text("a")),
        (build::int(1), build::text("b")),
        (other, build::text("c")),
        (object("Key"), build::text("d")),
        (object("Key"), build::text("e")),
    ];
    let (value, _) = plain(&build::dict(&pairs));
    let keys: Vec<String> =
        value.into_pairs().unwrap().into_iter().map(|(k, _)| k.key_text()).collect();
    assert_eq!(keys, ["mine.Color(1)", "1", "mine.Level(1)", "<mine.Key>", "<mine.Key>~2"]);
    // In a set there is no place for words.
    let set = build::reduce(
        &build::global("__builtin__", "set"),
        &[build::list(&[color(1), build::int(1)])],
    );
    let (value, changes) = plain(&set);
    assert_eq!(value, Value::List(vec![Value::Int(1), Value::Int(1)]));
    assert_eq!(changes[0], ": set → list (its items cannot be told apart by a set)");
}

#[test]
fn what_python_does_not_let_happen_is_left_out() {
    let odd = [&build::list(&[build::int(1)])[..], &build::object(&[("a", build::int(1))]), b"b"]
        .concat();
    let (value, changes) = plain(&odd);
    assert_eq!(value, Value::List(vec![Value::Int(1)]));
    assert_eq!(changes, [": list → list (what was done to it afterwards is left out)"]);
    let (value, _) = plain(&[&build::text("a")[..], b"K\x01b"].concat());
    assert_eq!(value.as_str(), Some("a"));
}

#[test]
fn paths_of_every_form() {
    for (class, parts, expected) in [
        ("PosixPath", &["/", "a", "b"][..], "/a/b"),
        ("PosixPath", &[], "."),
        ("PosixPath", &["a/b", "c"], "a/b/c"),
        ("PosixPath", &["a", "/b"], "/b"),
        ("PosixPath", &["a//b/./c/"], "a/b/c"),
        ("PosixPath", &["//", "a"], "//a"),
        ("PureWindowsPath", &["C:\\", "a", "b"], "C:\\a\\b"),
        ("WindowsPath", &["C:/a", "b"], "C:\\a\\b"),
        ("WindowsPath", &["\\\\host\\share\\", "x"], "\\\\host\\share\\x"),
    ] {
        let args: Vec<Vec<u8>> = parts.iter().map(|p| build::text(p)).collect();
        let path = build::reduce(&build::global("pathlib", class), &args);
        assert_eq!(plain(&path).0.as_str(), Some(expected), "{class} {parts:?}");
    }
}

/// Arguments and states that thousands of objects share cost what they weigh.
#[test]
fn sharing_costs_no_time() {
    let big: Vec<Vec<u8>> = (0..20_000).map(build::int).collect();
    let state: Vec<(Vec<u8>, Vec<u8>)> =
        (0..20_000).map(|i| (build::text(&format!("k{i}")), build::int(i))).collect();
    let mut body = build::list(&[]);
    body.extend(b"(");
    body.extend(build::put(0, &build::list(&big)));
    body.extend(build::put(1, &build::dict(&state)));
    body.extend(build::put(2, &build::tuple(&big)));
    for _ in 0..5_000 {
        body.extend(build::reduce(&build::global("__builtin__", "frozenset"), &[build::get(0)]));
        body.extend(new("mine.Thing", build::get(1)));
        body.extend([&build::global("mine", "make")[..], &build::get(2), b"R"].concat());
        body.extend(build::reduce(&build::global("__builtin__", "set"), &[build::get(0)]));
    }
    body.extend(b"e");
    let started = std::time::Instant::now();
    let refused = open(build::pickle(&body)).sanitize(&SanitizeOptions::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn memo_bombs_and_depth_cost_nothing() {
    let mut bomb = build::put(0, &new("mine.Thing", build::object(&[])));
    for i in 0..60 {
        bomb.extend(build::put(i + 1, &[&build::get(i)[..], b"\x86"].concat()));
    }
    let plan = sanitize(&open(build::pickle(&bomb)));
    assert_eq!(plan.report.changes.len(), 1);
    let deep =
        [b"cmine\nBox\n)\x81}X\x01\0\0\0a".repeat(20_000), build::int(1), b"sb".repeat(20_000)]
            .concat();
    let file = open(build::pickle(&deep));
    assert_eq!(weights_only::refusals(file.graph()).len(), 20_000);
    let plan = sanitize(&file);
    assert_eq!(plan.report.changes.len(), 20_000);
    // Of a long path both ends are told.
    let paths: Vec<&str> = plan.report.changes.iter().map(|c| c.path.as_str()).collect();
    assert_eq!((paths[1], paths[128]), ("a", ["a"; 128].join(".").as_str()));
    let keys: Vec<&str> = paths[19_999].split('.').collect();
    assert_eq!((keys.len(), keys[64]), (129, "…"));
}

/// Whatever a damaged pickle says: an error, or a file with nothing in it that is refused.
#[test]
fn damaged_files_never_panic() {
    let source = std::fs::read(support::fixtures("torch/plain_p5.pkl")).unwrap();
    let more = std::fs::read(support::fixtures("torch/plain_p2.pkl")).unwrap();
    let mut made = 0;
    for bytes in [source, more] {
        for at in 0..bytes.len() {
            for mask in [1, 0x93] {
                let mut bytes = bytes.clone();
                bytes[at] ^= mask;
                let section = ckptkit_core::Section::from_bytes(bytes, "damaged");
                let Ok(file) = TorchFile::from_section(&section) else { continue };
                let Ok(mut document) = file.edit() else { continue };
                if document.sanitize(&SanitizeOptions::new()).is_ok() {
                    made += 1;
                    assert!(document.layout(&SanitizeOptions::new().write).is_ok());
                }
            }
        }
    }
    assert!(made > 500, "{made} files");
}
