//! The states of optimizers by the names of their parameters, against those that the real runs had.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ckptkit::torch::{Document, WriteOptions};
use ckptkit::{
    Checkpoint, Convert, CopyOptions, ErrorKind, Existing, Json, Report, Scope, Target, Value,
    digest,
};
use ckptkit_tests::fixture::{Fixture, each, group, one};

/// Whose parameters the shapes leave open.
const OPEN: &str = "lightning/frozen_twin.ckpt";

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap()
}

/// Writes and compares what was written.
fn convert(wish: &Convert, from: &Path, to: &Path) -> Report {
    let plan = wish.plan(&open(from), to).unwrap();
    plan.write_verified(Existing::Refuse, &CopyOptions::default()).unwrap()
}

fn sharded() -> Convert {
    let mut wish = Convert::new(Target::Distcp);
    wish.scope = Scope::All;
    wish.ranks = 3;
    wish
}

fn directory() -> Convert {
    let mut wish = Convert::new(Target::SafetensorsDirectory);
    wish.scope = Scope::All;
    wish.optimizer_names = true;
    wish
}

/// Name → SHA-256 of what is there.
fn hashes(checkpoint: &Checkpoint) -> BTreeMap<String, String> {
    let found = digest(checkpoint.tensors(), &|_| true).unwrap();
    assert!(found.failures.is_empty());
    found.tensors.into_iter().filter_map(|(name, t)| Some((name, t.sha256?))).collect()
}

/// The hashes of states by what the optimizer of this number calls them for each of its parameters:
/// (optimizer, parameter, state) → hash.
fn states(f: &Fixture) -> BTreeMap<(usize, String, String), String> {
    let mut out = BTreeMap::new();
    for row in &f.manifest.tensors {
        let parts: Vec<&str> = row.name.split('.').collect();
        if let ["optimizer_states", optimizer, "state", number, key] = parts[..] {
            let optimizer: usize = optimizer.parse().unwrap();
            let name = &f.manifest.optimizers[optimizer][number.parse::<usize>().unwrap()];
            let key = (optimizer, name.clone(), key.to_owned());
            out.insert(key, row.sha256.clone().unwrap());
        }
    }
    out
}

fn named_runs() -> Vec<Fixture> {
    let mut runs = group("lightning", 14);
    let has_states =
        |f: &Fixture| f.manifest.tensors.iter().any(|t| t.name.starts_with("optimizer_states."));
    runs.retain(|f| has_states(f) && !f.manifest.optimizers.is_empty() && f.name != OPEN);
    assert!(runs.len() >= 11, "{}", runs.len());
    runs
}

/// The whole object is the same again.
fn same_object(f: &Fixture, back: &Path) {
    let (back, source) = (open(back), open(&f.path));
    let lines = |c: &Checkpoint| digest(c.tensors(), &|_| true).unwrap().lines();
    assert_eq!(lines(&back), lines(&source), "{}", f.name);
    for key in source.value_keys() {
        // As text: the order counts.
        let value = |c: &Checkpoint| serde_json::to_string(&Json(&c.value(&key).unwrap())).unwrap();
        assert_eq!(value(&back), value(&source), "{} {key}", f.name);
    }
}

/// The states and the groups under the names of the run, as Lightning saves them.
fn by_name(f: &Fixture, path: &Path) {
    let written = open(path);
    let found = hashes(&written);
    let states = states(f);
    for ((optimizer, name, key), sha256) in &states {
        let name = format!("optimizer_{optimizer}.state.{name}.{key}");
        assert_eq!(found.get(&name), Some(sha256), "{} {name}", f.name);
    }
    assert_eq!(found.keys().filter(|n| n.starts_with("optimizer_")).count(), states.len());
    for (i, names) in f.manifest.optimizers.iter().enumerate() {
        let Value::List(groups) = written.value(&format!("optimizer_{i}.param_groups")).unwrap()
        else {
            panic!("{}", f.name)
        };
        let mut params = Vec::new();
        for group in &groups {
            let Some(Value::List(of_group)) = group.get("params") else { panic!("{group:?}") };
            params.extend(of_group.iter().map(|p| p.as_str().unwrap().to_owned()));
        }
        assert_eq!(&params, names, "{}", f.name);
    }
}

#[test]
fn distributed_checkpoints_have_states_by_name() {
    let dir = tempfile::tempdir().unwrap();
    each(&named_runs(), |f| {
        let at = |step: &str| dir.path().join(format!("{step}_{}", f.name.replace('/', "_")));
        let report = convert(&sharded(), &f.path, &at("sharded"));
        assert!(!report.notes.iter().any(|n| n.contains("keeps the numbers")), "{report:?}");
        by_name(f, &at("sharded"));
        convert(&Convert::new(Target::LightningCkpt), &at("sharded"), &at("back.ckpt"));
        same_object(f, &at("back.ckpt"));
    });
}

#[test]
fn directories_have_states_by_name_on_request() {
    let dir = tempfile::tempdir().unwrap();
    each(&named_runs(), |f| {
        let at = |step: &str| dir.path().join(format!("{step}_{}", f.name.replace('/', "_")));
        let states = states(f);
        let expected: BTreeMap<String, String> = states
            .into_iter()
            .map(|((optimizer, name, key), sha256)| {
                let number = if optimizer == 0 { String::new() } else { format!("_{optimizer}") };
                (format!("optimizer{number}.{key}.{name}"), sha256)
            })
            .collect();
        let check = |path: &Path| {
            let mut found = hashes(&open(path));
            found.retain(|name, _| name.starts_with("optimizer"));
            assert_eq!(found, expected, "{}", f.name);
        };
        let report = convert(&directory(), &f.path, &at("there"));
        assert_eq!(report.renamed.len(), expected.len());
        check(&at("there"));
        convert(&Convert::new(Target::LightningCkpt), &at("there"), &at("back.ckpt"));
        same_object(f, &at("back.ckpt"));

        // From there everywhere else, and again.
        convert(&sharded(), &at("there"), &at("sharded"));
        by_name(f, &at("sharded"));
        convert(&directory(), &at("sharded"), &at("ranks"));
        check(&at("ranks"));
        let report = convert(&directory(), &at("there"), &at("again"));
        assert!(report.renamed.is_empty());
        check(&at("again"));
        // Where nobody asks for names, they are the places in the object.
        let mut wish = directory();
        wish.optimizer_names = false;
        convert(&wish, &at("there"), &at("places"));
        convert(&wish, &f.path, &at("direct"));
        assert_eq!(hashes(&open(&at("places"))), hashes(&open(&at("direct"))));
        let mut whole = Convert::new(Target::Torch);
        whole.scope = Scope::All;
        convert(&whole, &at("again"), &at("whole.pt"));
        same_object(f, &at("whole.pt"));
    });
}

/// Names are found from what the weights were before they are cast, ties among it.
#[test]
fn weights_that_are_cast_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["lightning/tied.ckpt", "lightning/decay_groups.ckpt"] {
        let f = one(name);
        let mut wish = sharded();
        wish.dtype = Some(ckptkit::Dtype::Bf16);
        let to = dir.path().join(f.path.file_name().unwrap());
        let report = convert(&wish, &f.path, &to);
        assert!(!report.cast.is_empty() && report.notes.is_empty(), "{report:?}");
        by_name(&f, &to);
    }
}

/// What Lightning itself has saved by name.
#[test]
fn a_checkpoint_of_model_parallel_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let f = one("distcp/lightning.ckpt");
    convert(&directory(), &f.path, &dir.path().join("there"));
    let found = hashes(&open(&dir.path().join("there")));
    let mut count = 0;
    for row in &f.manifest.tensors {
        let Some(rest) = row.name.strip_prefix("optimizer_0.state.") else { continue };
        let (name, key) = rest.rsplit_once('.').unwrap();
        let new = format!("optimizer.{key}.{name}");
        assert_eq!(found.get(&new), row.sha256.as_ref(), "{new}");
        count += 1;
    }
    assert_eq!(count, 6);
    // And back as names: the keys of a single file are those of a Lightning checkpoint only.
    let direct = dir.path().join("direct.ckpt");
    convert(&Convert::new(Target::LightningCkpt), &f.path, &direct);
    let lines = |p: &Path| digest(open(p).tensors(), &|_| true).unwrap().lines();
    assert!(lines(&direct).contains("optimizer_states.0.state.1.exp_avg_sq"));
}

/// A script's checkpoint, found by what an optimizer's state dict looks like.
#[test]
fn training_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let f = one("torch/train_sgd.pt");
    let sharded_at = dir.path().join("sharded");
    convert(&sharded(), &f.path, &sharded_at);
    let found = hashes(&open(&sharded_at));
    // In the order of the state dict, without the buffers of the norm.
    let names =
        ["scale", "first.weight", "first.bias", "norm.weight", "norm.bias", "stack.0.weight"];
    let expected = |number: usize| {
        let name = format!("optimizer.state.{number}.momentum_buffer");
        f.manifest.tensors.iter().find(|t| t.name == name).unwrap().sha256.as_ref()
    };
    for (number, name) in names.iter().enumerate() {
        let new = format!("optimizer.state.{name}.momentum_buffer");
        assert_eq!(found.get(&new), expected(number), "{new}");
    }
    convert(&directory(), &f.path, &dir.path().join("there"));
    let found = hashes(&open(&dir.path().join("there")));
    for (number, name) in names.iter().enumerate() {
        let new = format!("optimizer.momentum_buffer.{name}");
        assert_eq!(found.get(&new), expected(number), "{new}");
    }
}

fn file(dir: &Path, text: impl AsRef<[u8]>) -> Option<PathBuf> {
    let path = dir.join("names.txt");
    std::fs::write(&path, text).unwrap();
    Some(path)
}

#[test]
fn what_shapes_leave_open_keeps_its_numbers_until_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |step: &str| dir.path().join(step);
    let f = one(OPEN);
    let numbers =
        |path: &Path| hashes(&open(path)).keys().filter(|n| n.contains("state.1.exp_avg")).count();
    for (wish, step) in [(sharded(), "sharded"), (directory(), "directory")] {
        let report = convert(&wish, &f.path, &at(step));
        assert_eq!(numbers(&at(step)), 2, "exp_avg and exp_avg_sq");
        let note = report.notes.iter().find(|n| n.contains("optimizer_states.0")).unwrap();
        for part in ["12 ways", "1 is net.frozen.weight or net.body.weight", "--param-names FILE"] {
            assert!(note.contains(part), "{note}");
        }
        let back = at(&format!("{step}.ckpt"));
        convert(&Convert::new(Target::LightningCkpt), &at(step), &back);
        same_object(&f, &back);
    }

    // The model's parameters with the frozen ones still leave it open, and say what would not.
    let all: Vec<String> = f.manifest.weights.as_ref().unwrap().names.clone();
    let buffers = ["running_mean", "running_var", "num_batches_tracked", "window", "head.weight"];
    let model: Vec<String> =
        all.into_iter().filter(|n| !buffers.iter().any(|b| n.ends_with(b))).collect();
    let mut wish = sharded();
    wish.param_names = file(dir.path(), model.join("\n"));
    let report = convert(&wish, &f.path, &at("open"));
    assert_eq!(numbers(&at("open")), 2);
    let note = report.notes.iter().find(|n| n.contains("keeps the numbers")).unwrap();
    assert!(note.contains("list of lists"), "{note}");

    // Without them there is one way; a list for each optimizer says it outright.
    let trained: Vec<&str> =
        model.iter().map(String::as_str).filter(|n| !n.contains("frozen")).collect();
    let lines = format!("\u{feff}# the trained ones\r\n\n  {}\r\n", trained.join("\r\n  "));
    let list = serde_json::to_string_pretty(&trained).unwrap();
    let lists = serde_json::to_string(&f.manifest.optimizers).unwrap();
    for (i, text) in [lines, list, lists].into_iter().enumerate() {
        let mut wish = sharded();
        wish.param_names = file(dir.path(), text);
        let to = at(&format!("named_{i}"));
        convert(&wish, &f.path, &to);
        by_name(&f, &to);
        let back = at(&format!("named_{i}.ckpt"));
        convert(&Convert::new(Target::LightningCkpt), &to, &back);
        same_object(&f, &back);
        let mut wish = directory();
        wish.param_names = file(dir.path(), serde_json::to_string(&trained).unwrap());
        let to = at(&format!("directory_{i}"));
        convert(&wish, &at("directory"), &to);
        assert!(hashes(&open(&to)).contains_key("optimizer.exp_avg.net.body.weight"));
    }
}

#[test]
fn files_of_names_that_are_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let f = one("lightning/adam.ckpt");
    let source = open(&f.path);
    let refused = |text: &[u8]| {
        let mut wish = sharded();
        wish.param_names = file(dir.path(), text);
        let e = wish.plan(&source, "nowhere").unwrap_err();
        assert!(e.to_string().contains("names.txt"), "{e}");
        (e.kind(), e.to_string())
    };
    let cases: [(&[u8], ErrorKind, &[&str]); 13] = [
        (b"", ErrorKind::Malformed, &["there are no names", "one name a line"]),
        (b"# nothing\n", ErrorKind::Malformed, &["there are no names"]),
        (b"net.scale\nnet.\xff\n", ErrorKind::Malformed, &["line 2", "UTF-8"]),
        (b"net.scale\nnet first\n", ErrorKind::Malformed, &["line 2", "net first"]),
        (b"net.scale\n\nnet.scale\n", ErrorKind::Malformed, &["line 3", "twice", "line 1"]),
        (b"net.scale\nfirst.weight\n", ErrorKind::NotFound, &["line 2", "net.first.weight"]),
        (b"[\"net.scale\",", ErrorKind::Malformed, &["line 1", "JSON"]),
        (b"[]", ErrorKind::Malformed, &["there are no names"]),
        (b"[1]", ErrorKind::Malformed, &["item 1", "1 is no name"]),
        (b"[[\"a\"], 1]", ErrorKind::Malformed, &["list 2", "no list of names"]),
        (b"[[\"net.nothing\"]]", ErrorKind::NotFound, &["list 1, item 1"]),
        (b"[[\"net.scale\"]]", ErrorKind::InvalidArgument, &["1 names", "6 parameters"]),
        (b"[[\"net.scale\"], []]", ErrorKind::InvalidArgument, &["1 names", "optimizer 0"]),
    ];
    for (text, kind, mentions) in cases {
        let (found, told) = refused(text);
        assert_eq!(found, kind, "{told}");
        for part in mentions {
            assert!(told.contains(part), "{part:?} in {told}");
        }
    }
    // In another order the shapes do not fit.
    let mut lists = f.manifest.optimizers.clone();
    lists[0].reverse();
    let (kind, told) = refused(serde_json::to_string(&lists).unwrap().as_bytes());
    assert_eq!(kind, ErrorKind::InvalidArgument, "{told}");
    // Fewer names than there are parameters fit nothing, which is no error of the file.
    let mut wish = sharded();
    wish.param_names = file(dir.path(), "net.scale\n");
    let plan = wish.plan(&source, "nowhere").unwrap();
    assert!(plan.report().notes.iter().any(|n| n.contains("no names of weights fit")));
    let mut wish = sharded();
    wish.param_names = Some(dir.path().join("missing.txt"));
    assert_eq!(wish.plan(&source, "nowhere").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn names_that_nothing_takes() {
    let refused = |name: &str, change: &dyn Fn(&mut Convert)| {
        let mut wish = directory();
        change(&mut wish);
        let e = wish.plan(&open(&one(name).path), "nowhere").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}");
        e.to_string()
    };
    let adam = "lightning/adam.ckpt";
    for scope in [Scope::Weights, Scope::Auto] {
        assert!(refused(adam, &|w| w.scope = scope).contains("--all"));
    }
    for target in [Target::LightningCkpt, Target::Torch, Target::Nemo, Target::SafetensorsFile] {
        assert!(refused(adam, &|w| w.target = target).contains("directory"));
    }
    let names = Some(PathBuf::from("names.txt"));
    let told = refused(adam, &|w| {
        w.optimizer_names = false;
        w.param_names.clone_from(&names);
    });
    assert!(told.contains("--param-names"), "{told}");
    let told = refused("distcp/lightning.ckpt", &|w| {
        *w = sharded();
        w.param_names.clone_from(&names);
    });
    assert!(told.contains("--param-names"), "{told}");
    for name in ["torch/tied.pt", "lightning/weights_only.ckpt"] {
        let told = refused(name, &|w| w.param_names.clone_from(&names));
        assert!(told.contains("no optimizer states"), "{told}");
    }
}

/// A checkpoint that is written here, for what no library writes.
fn made(at: &Path, build: impl FnOnce(&mut Document)) {
    let mut document = Document::new();
    build(&mut document);
    let layout = document.layout(&WriteOptions::default()).unwrap();
    let layout = ckptkit::core::Layout::file(layout);
    layout.write(at, Existing::Refuse, &CopyOptions::default()).unwrap();
}

/// A state dict as the root, with more keys.
fn with_state(document: &mut Document, keys: &[(&str, Value)]) {
    let source = open(&one("torch/train_sgd.pt").path);
    let weights = source.weights().unwrap();
    let state_dict = document.state_dict(&weights.tensors).unwrap();
    let mut pairs = Vec::new();
    pairs.push((document.builder().str("state_dict"), state_dict));
    for (key, value) in keys {
        let value = document.builder().value(value).unwrap();
        pairs.push((document.builder().str(key), value));
    }
    let b = document.builder();
    let root = b.dict();
    b.set_items(root, &pairs);
    document.set_root(root);
}

fn dict(pairs: &[(&str, Value)]) -> Value {
    Value::Dict(pairs.iter().map(|(k, v)| (Value::Str((*k).into()), v.clone())).collect())
}

#[test]
fn what_only_looks_like_an_optimizer_is_converted_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let list = |items: &[Value]| Value::List(items.to_vec());
    let int = |n: i64| Value::Int(n);
    let cases = [
        // A parameter twice, and one that is neither a number nor a name.
        list(&[dict(&[("params", list(&[int(0), int(0)]))])]),
        list(&[dict(&[("params", list(&[Value::None]))])]),
    ];
    for (i, groups) in cases.into_iter().enumerate() {
        let path = dir.path().join(format!("{i}.pt"));
        let optimizer = dict(&[("state", dict(&[])), ("param_groups", groups.clone())]);
        made(&path, |document| with_state(document, &[("optimizer", optimizer)]));
        let to = dir.path().join(format!("{i}"));
        let report = convert(&sharded(), &path, &to);
        assert!(report.notes.iter().any(|n| n.contains("keep their numbers")), "{report:?}");
        let params = open(&to).value("optimizer.param_groups.0.params").unwrap();
        let Value::List(groups) = &groups else { panic!() };
        assert_eq!(Some(&params), groups[0].get("params"));
    }
}

/// Numbers that torch no longer gives, addresses, come back as they were; torch sees names.
#[test]
fn numbers_that_are_not_counted_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old.pt");
    let params: Vec<Value> = (0..6_i64).map(|i| Value::Int(9000 - 8 * i)).collect();
    let group = dict(&[("lr", Value::Float(0.1)), ("params", Value::List(params))]);
    let optimizer = dict(&[("state", dict(&[])), ("param_groups", Value::List(vec![group]))]);
    made(&path, |document| with_state(document, &[("optimizer", optimizer)]));
    let sharded_path = dir.path().join("sharded");
    convert(&sharded(), &path, &sharded_path);
    let first = || {
        let params = open(&sharded_path).value("optimizer.param_groups.0.params");
        let Value::List(params) = params.unwrap() else { panic!() };
        params[0].clone()
    };
    assert_eq!(first(), Value::Int(9000));
    std::fs::remove_file(sharded_path.join("ckptkit.json")).unwrap();
    assert_eq!(first().as_str(), Some("scale"));
}

#[test]
fn names_that_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("taken.pt");
    let source = open(&one("torch/train_sgd.pt").path);
    made(&path, |document| {
        let file = source.torch_file().unwrap();
        let root = document.import(file, file.root()).unwrap();
        document.set_root(root);
        let tensor = document.tensor(source.tensors().next().unwrap()).unwrap();
        let b = document.builder();
        let (inner, key) = (b.dict(), b.str("momentum_buffer.scale"));
        b.set_items(inner, &[(key, tensor)]);
        let optimizer = b.str("more");
        b.set_items(root, &[(optimizer, inner)]);
    });
    // The name is free while the container has another one.
    assert!(directory().plan(&open(&path), "nowhere").is_ok());
    let path = dir.path().join("really_taken.pt");
    made(&path, |document| {
        let file = source.torch_file().unwrap();
        let root = document.import(file, file.root()).unwrap();
        document.set_root(root);
        let tensor = document.tensor(source.tensors().next().unwrap()).unwrap();
        let b = document.builder();
        let key = b.str("optimizer.momentum_buffer.scale");
        b.set_items(root, &[(key, tensor)]);
    });
    let e = directory().plan(&open(&path), "nowhere").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{e}");
    assert!(e.to_string().contains("\"optimizer.momentum_buffer.scale\""), "{e}");
}
