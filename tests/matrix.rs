//! Every fixture of every format into every format: the weights are the same on both sides.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use ckptkit::{
    Checkpoint, Convert, CopyOptions, Digest, ErrorKind, Existing, Format, Json, Scope, Target,
    Tensor, digest,
};
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
    let dir = tempfile::tempdir().unwrap();
    let (same, refused) = (RefCell::new(0), RefCell::new(Vec::new()));
    let all = |target| {
        let mut wish = Convert::new(target);
        wish.scope = Scope::All;
        wish.max_shard_bytes = 1000;
        wish
    };
    each(&fixture::readable(), |f| {
        let at = |step: &str| dir.path().join(format!("{step}_{}", f.name.replace('/', "_")));
        let source = Checkpoint::open(&f.path).unwrap();
        let plan = match all(Target::SafetensorsDirectory).plan(&source, at("there")) {
            Ok(plan) => plan,
            Err(e) => {
                refused.borrow_mut().push(format!("{}: {e}", f.name));
                return;
            }
        };
        plan.write(Existing::Refuse, &CopyOptions::default()).unwrap();
        for name in tree(&at("there")).keys() {
            assert!(!name.ends_with(".pkl") && !name.ends_with(".pt"), "{name}");
        }
        let there = Checkpoint::open(at("there")).unwrap();
        let back = all(Target::Torch).plan(&there, at("back")).unwrap();
        back.write(Existing::Refuse, &CopyOptions::default()).unwrap();
        let direct = all(Target::Torch).plan(&source, at("direct")).unwrap();
        direct.write(Existing::Refuse, &CopyOptions::default()).unwrap();
        let [back, direct] = [at("back"), at("direct")].map(|p| Checkpoint::open(p).unwrap());
        assert_eq!(hashes(back.tensors()).lines(), hashes(direct.tensors()).lines(), "{}", f.name);
        let values = |c: &Checkpoint| match c.value("") {
            Ok(value) => serde_json::to_string(&Json(&value)).unwrap(),
            Err(e) => format!("{:?}", e.kind()),
        };
        assert_eq!(values(&back), values(&direct), "{}", f.name);
        if let Ok(weights) = source.weights() {
            let kept = there.weights().unwrap();
            assert_eq!(kept.key.unwrap_or_default(), weights.key.unwrap_or_default());
        }
        *same.borrow_mut() += 1;
    });
    let refused = refused.into_inner();
    println!("{} came back, {} refused:\n{}", same.borrow(), refused.len(), refused.join("\n"));
    assert!(*same.borrow() >= 130);
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
        let sharded = Checkpoint::open(at("sharded")).unwrap();
        assert_eq!(sharded.variant(), "lightning", "{}", f.name);
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
