//! Every fixture of every format into every format: the weights are the same on both sides.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use ckptkit::sidecar::FILE_NAME;
use ckptkit::{
    Checkpoint, Convert, CopyOptions, Digest, ErrorKind, Existing, Format, Json, Scope, Target,
    Tensor, digest,
};
use ckptkit_tests::archive::{archive, with_one_node_a_word};
use ckptkit_tests::fixture::{self, Fixture, each};
use ckptkit_tests::{obedient, tree};

/// What is written, and what it is called in the table.
const TARGETS: [(&str, Target); 6] = [
    ("safetensors", Target::SafetensorsFile),
    ("sharded", Target::SafetensorsDirectory),
    ("ckpt", Target::LightningCkpt),
    ("torch", Target::Torch),
    ("nemo", Target::Nemo),
    ("distcp", Target::Distcp),
];

/// Cells of one column: filled as they are, filled after tensors were left out that the format
/// cannot hold, and those of which nothing is left.
#[derive(Clone, Copy, Default)]
struct Count {
    whole: usize,
    partly: usize,
    empty: usize,
}

fn hashes<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Digest {
    digest(tensors, &|_| true).unwrap()
}

fn cell(f: &Fixture, target: Target, to: &Path) -> Count {
    let mut wish = Convert::new(target);
    // Smaller than most: directories have several shards.
    wish.max_shard_bytes = 200;
    wish.ranks = 3;
    let Some((wish, report)) = obedient::convert(f, wish, to) else {
        return Count { empty: 1, ..Count::default() };
    };
    let source = Checkpoint::open(&f.path).unwrap();
    let weights = |c: &Checkpoint, key: Option<&String>| match key {
        Some(key) => c.weights_under(key).unwrap().tensors,
        None => c.weights().unwrap().tensors,
    };
    let expected = weights(&source, wish.weights_key.as_ref());
    let kept = expected.iter().filter(|t| wish.selection.leaves_out(t.name()).is_none());
    let expected = hashes(kept);
    let written = Checkpoint::open(to).unwrap();
    assert_eq!(written.format(), target.format(), "{}", f.name);
    let found = weights(&written, None);
    let found = hashes(found.iter());
    assert!(expected.failures.is_empty() && found.failures.is_empty());
    assert_eq!(found.lines(), expected.lines(), "{} as {:?}", f.name, target);
    assert!(report.tensors > 0 || expected.tensors.is_empty());
    let partly = !wish.selection.exclude.is_empty();
    Count { whole: usize::from(!partly), partly: usize::from(partly), empty: 0 }
}

#[test]
fn weights_are_equal_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let table: RefCell<BTreeMap<(String, &str), Count>> = RefCell::default();
    each(&fixture::readable(), |f| {
        for (column, target) in TARGETS {
            let to = dir.path().join(format!("{column}_{}", f.name.replace('/', "_")));
            let count = cell(f, target, &to);
            let group = f.name.split_once('/').unwrap().0.to_owned();
            let mut table = table.borrow_mut();
            let sum = table.entry((group, column)).or_default();
            sum.whole += count.whole;
            sum.partly += count.partly;
            sum.empty += count.empty;
        }
    });
    let mut cells = 0;
    for ((group, column), n) in table.borrow().iter() {
        println!(
            "{group:>11} to {column:<11} {:>3} whole, {:>2} without what it lacks, {} empty",
            n.whole, n.partly, n.empty
        );
        cells += n.whole + n.partly + n.empty;
    }
    println!("{cells} cells");
    assert!(cells >= 139 * TARGETS.len(), "{cells}");
}

/// Everything, tensors and values, under the names that it has, in a file that torch loads.
#[test]
fn everything_is_equal_in_a_torch_file() {
    let dir = tempfile::tempdir().unwrap();
    let (written, refused) = (RefCell::new(0), RefCell::new(Vec::new()));
    each(&fixture::readable(), |f| {
        let to = dir.path().join(f.name.replace('/', "_"));
        let source = Checkpoint::open(&f.path).unwrap();
        let mut wish = Convert::new(Target::Torch);
        wish.scope = Scope::All;
        let plan = match wish.plan(&source, &to) {
            Ok(plan) => plan,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Unsupported, "{}: {e}", f.name);
                refused.borrow_mut().push(format!("{}: {e}", f.name));
                return;
            }
        };
        plan.write(Existing::Refuse, &CopyOptions::default()).unwrap();
        let copy = Checkpoint::open(&to).unwrap();
        assert_eq!(hashes(copy.tensors()).lines(), hashes(source.tensors()).lines(), "{}", f.name);
        // Only the old stream keeps the source text of a module's class, and names the class by it.
        let by_source = f.name == "torch/legacy_module.pt";
        if !by_source
            && matches!(source.format(), Format::Torch | Format::LightningCkpt | Format::Distcp)
        {
            let values = |c: &Checkpoint| match c.value("") {
                Ok(value) => serde_json::to_string(&Json(&value)).unwrap(),
                // Too deep to be made plain at once, on both sides.
                Err(e) => format!("{:?}", e.kind()),
            };
            assert_eq!(values(&copy), values(&source), "{}", f.name);
        }
        *written.borrow_mut() += 1;
    });
    let refused = refused.into_inner();
    println!("{} written, {} refused:\n{}", written.borrow(), refused.len(), refused.join("\n"));
    assert!(*written.borrow() >= 130);
}

/// Everything goes through a directory of safetensors and a sidecar, without a pickle, and comes
/// back as the same file as without the detour.
#[test]
fn everything_survives_a_directory_without_pickles() {
    let mut there = all(Target::SafetensorsDirectory);
    there.max_shard_bytes = 1000;
    let refused = detours(&[there], &|f, there| {
        for name in tree(there.path()).keys() {
            assert!(!name.ends_with(".pkl") && !name.ends_with(".pt"), "{name}");
        }
        assert!(there.sidecar().is_some() || f.name.starts_with("distcp/"), "{}", f.name);
    });
    assert_eq!(refused, ["torch/export.pt2", "torch/torchscript.pt", SUB_BYTE]);
}

/// Dtypes that torch lacks.
const SUB_BYTE: &str = "safetensors/sub_byte.safetensors";

/// What cannot be flattened: objects that are no dict, keys of one name, programs.
const NOT_FLAT: [&str; 8] = [
    "torch/export.pt2",
    "torch/legacy_module.pt",
    "torch/module.pt",
    "torch/single_parameter.pt",
    "torch/single_tensor.pt",
    "torch/torchscript.pt",
    "torch/values_keys.pt",
    SUB_BYTE,
];

/// Everything goes through a distributed checkpoint, of one rank and of three, which are cut anew
/// for two; a sidecar keeps what flattening loses.
#[test]
fn everything_survives_the_distributed_form() {
    let ranks = |n| {
        let mut wish = all(Target::Distcp);
        wish.ranks = n;
        wish
    };
    for way in [vec![ranks(1)], vec![ranks(3), ranks(2)]] {
        let refused = detours(&way, &|f, there| {
            let object = matches!(f.name.split_once('/').unwrap().0, "torch" | "lightning");
            assert_eq!(there.sidecar().is_some(), object || has_object(f), "{}", f.name);
        });
        assert_eq!(refused, NOT_FLAT);
    }
}

/// Whether something else than torch's own files keeps an object of torch's.
fn has_object(f: &Fixture) -> bool {
    f.name.starts_with("nemo/") && Checkpoint::open(&f.path).unwrap().torch_file().is_some()
}

fn all(target: Target) -> Convert {
    let mut wish = Convert::new(target);
    wish.scope = Scope::All;
    wish
}

fn written(source: &Checkpoint, wish: &Convert, to: &Path) -> Checkpoint {
    let plan = wish.plan(source, to).unwrap();
    plan.write_verified(Existing::Refuse, &CopyOptions::default()).unwrap();
    Checkpoint::open(to).unwrap()
}

fn values(c: &Checkpoint) -> String {
    match c.value("") {
        Ok(value) => serde_json::to_string(&Json(&value)).unwrap(),
        // Too deep to be made plain at once, on both sides.
        Err(e) => format!("{:?}", e.kind()),
    }
}

/// Takes every fixture along a way, back into a torch file, and compares that with the one that is
/// written without the detour; gives the fixtures that the first step refuses.
fn detours(way: &[Convert], check: &dyn Fn(&Fixture, &Checkpoint)) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let (same, refused) = (RefCell::new(0), RefCell::new(Vec::new()));
    each(&fixture::readable(), |f| {
        let at = |step: &str| dir.path().join(format!("{step}_{}", f.name.replace('/', "_")));
        let source = Checkpoint::open(&f.path).unwrap();
        if let Err(e) = way[0].plan(&source, at("there")) {
            println!("{}: {e}", f.name);
            refused.borrow_mut().push(f.name.clone());
            return;
        }
        let mut there = written(&source, &way[0], &at("there"));
        check(f, &there);
        for (i, wish) in way.iter().enumerate().skip(1) {
            there = written(&there, wish, &at(&format!("on_{i}")));
            check(f, &there);
        }
        let back = written(&there, &all(Target::Torch), &at("back"));
        let direct = written(&source, &all(Target::Torch), &at("direct"));
        let lines = |c: &Checkpoint| hashes(c.tensors()).lines();
        if there.sidecar().is_some() {
            // Values stand under the paths that they had, tensors tied as they were.
            assert_eq!(values(&there), values(&direct), "{}", f.name);
            assert_eq!(there.value_keys(), direct.value_keys(), "{}", f.name);
            assert_eq!(there.training(), source.training(), "{}", f.name);
            assert_eq!(ties(&back), ties(&direct), "{}", f.name);
            // Order, types, sharing: all that a pickle says.
            let [found, expected] = [&there, &source].map(|c| {
                let mut document = c.document().unwrap();
                with_one_node_a_word(&mut document);
                archive(&document, &at("archive"))
            });
            assert!(found == expected, "{}: another archive", f.name);
        }
        if there.sidecar().is_some() || there.format() == Format::Safetensors {
            assert_eq!(lines(&back), lines(&direct), "{}", f.name);
            assert_eq!(values(&back), values(&direct), "{}", f.name);
        }
        if let Ok(weights) = source.weights() {
            let kept = there.weights().unwrap();
            assert_eq!(kept.key.unwrap_or_default(), weights.key.unwrap_or_default());
        }
        *same.borrow_mut() += 1;
    });
    println!("{} came back", same.borrow());
    assert!(*same.borrow() >= 130);
    refused.into_inner()
}

/// The names that share each storage.
fn ties(c: &Checkpoint) -> Vec<Vec<String>> {
    let mut groups: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for tensor in c.tensors() {
        if let Some(id) = tensor.info().storage() {
            groups.entry((id.container, id.index)).or_default().push(tensor.name().to_owned());
        }
    }
    groups.into_values().collect()
}

/// A training checkpoint of Lightning's, cut for three ranks as Lightning lays it out, and back.
#[test]
fn training_checkpoints_survive_the_distributed_form() {
    let dir = tempfile::tempdir().unwrap();
    each(&fixture::group("lightning", 14), |f| {
        let at = |step: &str| dir.path().join(format!("{step}_{}", f.name.replace('/', "_")));
        let source = Checkpoint::open(&f.path).unwrap();
        let mut wish = Convert::new(Target::Distcp);
        wish.ranks = 3;
        let plan = wish.plan(&source, at("sharded")).unwrap();
        plan.write(Existing::Refuse, &CopyOptions::default()).unwrap();
        // What is there without the sidecar, as Lightning has written it, is enough for this.
        std::fs::remove_file(at("sharded").join(FILE_NAME)).unwrap();
        let sharded = Checkpoint::open(at("sharded")).unwrap();
        assert_eq!((sharded.variant(), sharded.sidecar()), ("lightning", None), "{}", f.name);
        let plan = Convert::new(Target::LightningCkpt).plan(&sharded, at("back.ckpt")).unwrap();
        plan.write(Existing::Refuse, &CopyOptions::default()).unwrap();
        let back = Checkpoint::open(at("back.ckpt")).unwrap();
        let lines = |c: &Checkpoint| hashes(c.tensors()).lines();
        assert_eq!(lines(&back), lines(&source), "{}", f.name);
        for key in source.value_keys() {
            let value =
                |c: &Checkpoint| serde_json::to_value(Json(&c.value(&key).unwrap())).unwrap();
            assert_eq!(value(&back), value(&source), "{} {key}", f.name);
        }
    });
}
